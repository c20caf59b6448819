//! The part of Handlebars that dotprompt files use, as Jinja.
//!
//! Variables, `#if`, `#unless`, `#each`, `#with`, the helpers `json`, `ifEquals`
//! and `unlessEquals`, partials, and dotprompt's `role` and `history`. What has no
//! counterpart is an error with its line, not a guess.
//!
//! The surprising thing: a path means a field of what surrounds it. Inside
//! `{{#each people}}` the text `{{name}}` is the person's name and nothing else,
//! which Jinja writes `{{ item1.name }}`.

use std::collections::{BTreeMap, BTreeSet};

/// One message of the converted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A role and a Jinja template.
    Message { role: String, template: String },
    /// The conversation so far.
    History,
}

/// A text that was converted.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) parts: Vec<Part>,
    /// The names of partials that it uses, and how the template calls them.
    pub(super) partials: BTreeMap<String, String>,
}

/// What cannot be converted, and its line in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: usize,
    pub(super) message: String,
}

/// A piece of the source.
#[derive(Debug)]
enum Token<'a> {
    Text(String),
    Tag(Tag<'a>),
}

#[derive(Debug)]
struct Tag<'a> {
    line: usize,
    body: &'a str,
    trims_before: bool,
    trims_after: bool,
}

/// Converts a text. `known` are the inputs that are always there; others get a
/// default, because Handlebars prints nothing for what is missing. `None`: the
/// prompt declares no inputs.
pub(super) fn convert(
    source: &str,
    known: Option<&BTreeSet<String>>,
) -> Result<Converted, Vec<Refused>> {
    let mut tokens = match tokens(source) {
        Ok(tokens) => tokens,
        Err(refused) => return Err(vec![refused]),
    };
    strip_standalone(&mut tokens);
    let mut converting = Converting {
        known,
        done: Converted::default(),
        role: "user".to_owned(),
        template: String::new(),
        blocks: Vec::new(),
        refused: Vec::new(),
    };
    for token in &tokens {
        match token {
            Token::Text(text) => write_literal(text, &mut converting.template),
            Token::Tag(tag) => {
                if let Err(message) = converting.tag(tag) {
                    let line = tag.line;
                    converting.refused.push(Refused { line, message });
                }
            }
        }
    }
    if let Some(block) = converting.blocks.last() {
        let message = format!("{{{{#{}}}}} is not closed", block.name);
        let line = block.line;
        converting.refused.push(Refused { line, message });
    }
    converting.close_message();
    if converting.refused.is_empty() {
        Ok(converting.done)
    } else {
        Err(converting.refused)
    }
}

fn tokens(source: &str) -> Result<Vec<Token<'_>>, Refused> {
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(start) = rest.find("{{") {
        let before = &rest[..start];
        line += before.matches('\n').count();
        if let Some(before) = before.strip_suffix('\\') {
            text.push_str(before);
            text.push_str("{{");
            rest = &rest[start + 2..];
            continue;
        }
        text.push_str(before);
        let (open, close) = delimiters(&rest[start..]);
        let after_open = &rest[start + open.len()..];
        let Some(end) = after_open.find(close) else {
            let message = format!("{open} is not closed by {close}");
            return Err(Refused { line, message });
        };
        let body = &after_open[..end];
        rest = &after_open[end + close.len()..];
        let newlines = body.matches('\n').count();
        if !open.contains('!') {
            let (trims_before, body) = match body.strip_prefix('~') {
                Some(body) => (true, body),
                None => (false, body),
            };
            let (trims_after, body) = match body.strip_suffix('~') {
                Some(body) => (true, body),
                None => (false, body),
            };
            tokens.push(Token::Text(std::mem::take(&mut text)));
            tokens.push(Token::Tag(Tag {
                line,
                body: body.trim(),
                trims_before,
                trims_after,
            }));
        }
        line += newlines;
    }
    text.push_str(rest);
    tokens.push(Token::Text(text));
    Ok(tokens)
}

fn delimiters(text: &str) -> (&'static str, &'static str) {
    if text.starts_with("{{!--") {
        ("{{!--", "--}}")
    } else if text.starts_with("{{!") {
        ("{{!", "}}")
    } else if text.starts_with("{{{") {
        ("{{{", "}}}")
    } else {
        ("{{", "}}")
    }
}

/// A block's tag alone on its line takes the line with it; `~` takes the space beside it.
fn strip_standalone(tokens: &mut [Token<'_>]) {
    for index in 1..tokens.len() {
        let (before, after) = tokens.split_at_mut(index);
        let [.., Token::Text(left)] = before else {
            continue;
        };
        let is_last = after.len() == 2;
        let [Token::Tag(tag), Token::Text(right), ..] = after else {
            continue;
        };
        let is_block = tag.body.starts_with(['#', '/', '^', '>']) || is_else(tag.body);
        let line_start = left.rfind('\n').map_or(0, |newline| newline + 1);
        let at_start = index == 1 || left.contains('\n');
        let line_end = right.find('\n');
        let alone = at_start
            && left[line_start..].trim().is_empty()
            && right[..line_end.unwrap_or(right.len())].trim().is_empty()
            && (line_end.is_some() || is_last);
        if is_block && alone {
            left.truncate(line_start);
            *right = line_end.map_or_else(String::new, |end| right[end + 1..].to_owned());
        }
        if tag.trims_before {
            left.truncate(left.trim_end().len());
        }
        if tag.trims_after {
            *right = right.trim_start().to_owned();
        }
    }
}

fn is_else(body: &str) -> bool {
    body == "else" || body.starts_with("else ")
}

/// Text of the source; a brace that Jinja would read as its own is written as a value.
fn write_literal(text: &str, out: &mut String) {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '{' && chars.peek().is_some_and(|next| "{%#".contains(*next)) {
            out.push_str("{{ \"{\" }}");
        } else {
            out.push(c);
        }
    }
}

/// An open block.
struct Block {
    name: String,
    line: usize,
    /// The variable that a bare path is a field of; `None` keeps that of the block around it.
    context: Option<String>,
    /// How it ends in Jinja.
    end: &'static str,
}

struct Converting<'a> {
    known: Option<&'a BTreeSet<String>>,
    done: Converted,
    role: String,
    template: String,
    blocks: Vec<Block>,
    refused: Vec<Refused>,
}

impl Converting<'_> {
    fn close_message(&mut self) {
        let template = std::mem::take(&mut self.template);
        let template = template.trim().to_owned();
        if !template.is_empty() {
            let role = self.role.clone();
            self.done.parts.push(Part::Message { role, template });
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) -> Result<(), String> {
        let words = words(tag.body)?;
        let Some(first) = words.first().map(String::as_str) else {
            return Err("an empty tag".to_owned());
        };
        if let Some(name) = tag.body.strip_prefix('/') {
            return self.close(name.trim());
        }
        if let Some(rest) = tag.body.strip_prefix('#') {
            return self.open(rest.trim(), tag.line);
        }
        if tag.body == "^" || is_else(tag.body) {
            return self.otherwise(&words);
        }
        if let Some(partial) = tag.body.strip_prefix('>') {
            return self.partial(partial.trim());
        }
        match (first, words.len()) {
            ("role", 2) => self.begin_role(&words[1]),
            ("history", 1) => {
                self.outside_blocks("history")?;
                self.close_message();
                self.done.parts.push(Part::History);
                "model".clone_into(&mut self.role);
                Ok(())
            }
            ("json", _) if words.len() >= 2 => {
                let value = self.path(&words[1])?;
                let indent = words.iter().find_map(|word| word.strip_prefix("indent="));
                let filter = indent.map_or("tojson".to_owned(), |n| format!("tojson(indent={n})"));
                self.template
                    .push_str(&format!("{{{{ {value} | {filter} }}}}"));
                Ok(())
            }
            ("media" | "section", _) => Err(format!(
                "{{{{{first}}}}} has no counterpart: a message of a prompt is text"
            )),
            (_, 1) => {
                let value = self.value(first)?;
                self.template.push_str(&format!("{{{{ {value} }}}}"));
                Ok(())
            }
            _ => Err(format!("the helper {first:?} has no counterpart")),
        }
    }

    fn outside_blocks(&self, what: &str) -> Result<(), String> {
        match self.blocks.last() {
            None => Ok(()),
            Some(block) => Err(format!(
                "{{{{{what}}}}} inside {{{{#{}}}}}: which messages there are cannot depend on the inputs",
                block.name
            )),
        }
    }

    fn begin_role(&mut self, word: &str) -> Result<(), String> {
        self.outside_blocks("role")?;
        let role = match literal(word) {
            Some(role) => role,
            None => return Err("a role is a text in quotes".to_owned()),
        };
        self.close_message();
        self.role = role;
        Ok(())
    }

    fn open(&mut self, body: &str, line: usize) -> Result<(), String> {
        let words = words(body)?;
        let name = words.first().cloned().unwrap_or_default();
        // An unknown block is open all the same, so that its end is not a second error.
        let mut block = Block {
            name: name.clone(),
            line,
            context: None,
            end: "",
        };
        let opened = self.open_known(&name, &words, &mut block);
        self.blocks.push(block);
        opened
    }

    fn open_known(
        &mut self,
        name: &str,
        words: &[String],
        block: &mut Block,
    ) -> Result<(), String> {
        let argument = |index: usize| {
            words
                .get(index)
                .map(String::as_str)
                .ok_or_else(|| format!("{{{{#{name}}}}} needs an argument"))
        };
        let jinja = match name {
            "if" => {
                block.end = "{% endif %}";
                format!("{{% if {} %}}", self.value(argument(1)?)?)
            }
            "unless" => {
                block.end = "{% endif %}";
                format!("{{% if not ({}) %}}", self.value(argument(1)?)?)
            }
            "ifEquals" | "unlessEquals" => {
                block.end = "{% endif %}";
                let operator = if name == "ifEquals" { "==" } else { "!=" };
                let (a, b) = (self.value(argument(1)?)?, self.value(argument(2)?)?);
                format!("{{% if ({a}) {operator} ({b}) %}}")
            }
            "each" => {
                block.end = "{% endfor %}";
                let list = self.path(argument(1)?)?;
                let list = if self.is_certain(argument(1)?) {
                    list
                } else {
                    format!("{list} | default([])")
                };
                let item = block_name(words).unwrap_or(format!("item{}", self.blocks.len() + 1));
                block.context = Some(item.clone());
                format!("{{% for {item} in {list} %}}")
            }
            // Our templates have no `with`; the path itself is what is around.
            "with" if words.len() > 2 => {
                return Err("only {{#with path}} has a counterpart".to_owned());
            }
            "with" => {
                block.end = "{% endif %}";
                block.context = Some(self.path(argument(1)?)?);
                format!("{{% if {} %}}", self.value(argument(1)?)?)
            }
            _ => return Err(format!("the block {{{{#{name}}}}} has no counterpart")),
        };
        self.template.push_str(&jinja);
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<(), String> {
        match self.blocks.pop() {
            Some(block) if block.name == name => {
                self.template.push_str(block.end);
                Ok(())
            }
            Some(block) => Err(format!(
                "{{{{/{name}}}}} closes {{{{#{}}}}} of line {}",
                block.name, block.line
            )),
            None => Err(format!("{{{{/{name}}}}} closes nothing")),
        }
    }

    fn otherwise(&mut self, words: &[String]) -> Result<(), String> {
        let Some(block) = self.blocks.last_mut() else {
            return Err("{{else}} stands in no block".to_owned());
        };
        let is_loop = block.end == "{% endfor %}";
        if block.context.is_some() {
            // What follows is outside of it.
            block.context = None;
        }
        match words.get(1).map(String::as_str) {
            None => {
                self.template.push_str("{% else %}");
                Ok(())
            }
            Some("if") if !is_loop && words.len() == 3 => {
                let condition = self.value(&words[2])?;
                self.template.push_str(&format!("{{% elif {condition} %}}"));
                Ok(())
            }
            Some(_) => Err("only {{else}} and {{else if x}} have a counterpart".to_owned()),
        }
    }

    fn partial(&mut self, body: &str) -> Result<(), String> {
        let words = words(body)?;
        match words.as_slice() {
            [name] if literal(name).is_none() && !name.starts_with('(') => {
                let local = local_name(name);
                self.done.partials.insert(name.clone(), local.clone());
                self.template
                    .push_str(&format!("{{{{ partials.{local} }}}}"));
                Ok(())
            }
            [_] => Err("a partial is named, not computed".to_owned()),
            _ => {
                Err("a partial takes the prompt's own inputs; it cannot be given others".to_owned())
            }
        }
    }

    /// The variable that bare paths are fields of.
    fn context(&self, up: usize) -> Option<String> {
        let mut contexts = self
            .blocks
            .iter()
            .rev()
            .filter_map(|block| block.context.clone());
        contexts.nth(up)
    }

    /// A path or literal as a Jinja expression that prints nothing where nothing is there.
    fn value(&self, word: &str) -> Result<String, String> {
        if let Some(text) = literal(word) {
            return Ok(quoted(&text));
        }
        let is_plain = matches!(word, "true" | "false" | "null") || word.parse::<f64>().is_ok();
        if is_plain {
            return Ok(if word == "null" { "none" } else { word }.to_owned());
        }
        let path = self.path(word)?;
        if self.is_certain(word) || path.starts_with("loop.") {
            Ok(path)
        } else {
            Ok(format!("{path} | default(\"\")"))
        }
    }

    /// Whether a path is always there: the item of a list, a required input, or any input where none are declared.
    fn is_certain(&self, word: &str) -> bool {
        let single = !word.contains(['.', '/', '@', '[']);
        match (self.known, self.context(0)) {
            (_, Some(_)) => word == "this" || word == ".",
            (None, None) => single,
            (Some(known), None) => single && known.contains(word),
        }
    }

    fn path(&self, word: &str) -> Result<String, String> {
        match word {
            "@index" => return Ok("loop.index0".to_owned()),
            "@first" => return Ok("loop.first".to_owned()),
            "@last" => return Ok("loop.last".to_owned()),
            _ => {}
        }
        if word.starts_with('@') && !word.starts_with("@root.") {
            return Err(format!("{word} has no counterpart"));
        }
        if word.starts_with('(') {
            return Err("a helper inside of a tag has no counterpart".to_owned());
        }
        let mut rest = word;
        let mut up = 0;
        while let Some(outer) = rest.strip_prefix("../") {
            up += 1;
            rest = outer;
        }
        let from_root = rest.strip_prefix("@root.");
        let context = if from_root.is_some() {
            None
        } else {
            self.context(up)
        };
        let rest = from_root.unwrap_or(rest);
        let rest = rest
            .strip_prefix("this.")
            .or_else(|| rest.strip_prefix("this/"))
            .or_else(|| rest.strip_prefix("./"))
            .unwrap_or(rest);
        if matches!(rest, "this" | ".") {
            return context.ok_or_else(|| "{{this}} stands in no list".to_owned());
        }
        let mut steps = Vec::new();
        for step in rest.split(['.', '/']) {
            let bare = step.trim_start_matches('[').trim_end_matches(']');
            let is_name = !bare.is_empty()
                && bare.chars().all(|c| c.is_alphanumeric() || c == '_')
                && !bare.starts_with(|c: char| c.is_ascii_digit());
            if is_name {
                steps.push(format!(".{bare}"));
            } else if bare.chars().all(|c| c.is_ascii_digit()) && !bare.is_empty() {
                steps.push(format!("[{bare}]"));
            } else if !bare.is_empty() && step.starts_with('[') {
                steps.push(format!("[{}]", quoted(bare)));
            } else {
                return Err(format!("{word:?} is no path"));
            }
        }
        // A block parameter such as `as |person|` is a variable, not a field of the context.
        let head = steps.first().and_then(|step| step.strip_prefix('.'));
        let is_parameter = head.is_some_and(|head| {
            let mut contexts = self
                .blocks
                .iter()
                .filter_map(|block| block.context.as_deref());
            contexts.any(|context| context == head)
        });
        let steps = steps.concat();
        match context.filter(|_| !is_parameter) {
            Some(context) => Ok(format!("{context}{steps}")),
            None if steps.starts_with('[') => Err(format!("{word:?} is no path")),
            None => Ok(steps[1..].to_owned()),
        }
    }
}

/// `as |name|` of a block.
fn block_name(words: &[String]) -> Option<String> {
    let at = words.iter().position(|word| word == "as")?;
    let name = words.get(at + 1)?.trim_matches('|');
    let good = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    good.then(|| name.to_owned())
}

/// The words of a tag; a text in quotes and something in parentheses is one.
fn words(body: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut depth = 0usize;
    for c in body.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => {
                quote = None;
                word.push(c);
            }
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (None, '(') => {
                depth += 1;
                word.push(c);
            }
            (None, ')') => {
                depth = depth.saturating_sub(1);
                word.push(c);
            }
            (None, c) if c.is_whitespace() && depth == 0 => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn literal(word: &str) -> Option<String> {
    ['"', '\''].into_iter().find_map(|quote| {
        let inner = word.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(inner.to_owned())
    })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A name that a template can write after `partials.`.
pub(super) fn local_name(name: &str) -> String {
    let mut local: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .collect();
    if local.starts_with(|c: char| c.is_ascii_digit()) || local.is_empty() {
        local.insert(0, '_');
    }
    local
}
