//! Templates in two dialects, boxed in.
//!
//! Templates come from people and variables from anybody. A jinja template has no
//! loader, a short list of filters and tests, fuel, a recursion limit, an output
//! cap, and every undefined variable is an error. Only `if`, `for` and `raw` are
//! allowed as tags: `set`, `with` and macros would let forty short lines double a
//! string forty times, which fuel does not count. A simple template is one pass of
//! replacements: what a value holds is never read as a template, and a name that
//! nobody gave stays in the text as it is written. Fuel and the output cap hold
//! for all templates of one rendering together ([`Budget`]).

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, merge_maps};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, filters, tests};
use serde_json::{Map, Value};

use super::document::Dialect;

const TAGS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
const RAW_TAGS: [&str; 2] = ["raw", "endraw"];
/// Instructions of one template.
const FUEL: u64 = 100_000;
/// Instructions of all templates of one rendering; the last one may go over it by its own.
const FUEL_IN_ALL: u64 = 400_000;
/// The largest result of one filter.
const FILTER_BYTES: usize = 1 << 20;

/// What one rendering may still use.
pub(super) struct Budget {
    most: usize,
    room: usize,
    fuel: u64,
}

impl Budget {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            most: max_bytes,
            room: max_bytes,
            fuel: FUEL_IN_ALL,
        }
    }

    /// Counts text that did not come from a template.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), String> {
        match self.room.checked_sub(bytes) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => Err(self.overflow()),
        }
    }

    fn overflow(&self) -> String {
        format!("the rendered text is larger than {} bytes", self.most)
    }
}

/// The values of one rendering: layers of variables, of which the first that
/// knows a name counts.
pub(super) struct Scope<'a> {
    layers: Vec<&'a Map<String, Value>>,
    jinja: minijinja::Value,
}

impl<'a> Scope<'a> {
    pub(super) fn new(dialect: Dialect, layers: Vec<&'a Map<String, Value>>) -> Self {
        let jinja = match dialect {
            Dialect::Simple => minijinja::Value::UNDEFINED,
            Dialect::Jinja => {
                // There the last counts.
                let filled = layers.iter().rev().filter(|layer| !layer.is_empty());
                merge_maps(filled.map(|layer| minijinja::Value::from(Serde(*layer))))
            }
        };
        Self { layers, jinja }
    }

    /// This scope under one more layer.
    pub(super) fn under<'b>(&'b self, layer: &'b Layer) -> Scope<'b>
    where
        'a: 'b,
    {
        let jinja = match &layer.jinja {
            Some(value) => merge_maps([self.jinja.clone(), value.clone()]),
            None => minijinja::Value::UNDEFINED,
        };
        let mut layers: Vec<&'b Map<String, Value>> = vec![&layer.map];
        layers.extend(self.layers.iter().copied());
        Scope { layers, jinja }
    }

    /// What a dotted name stands for: an input of just that name, else a way into one.
    fn find(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.layers.iter().find_map(|layer| layer.get(name)) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let root = parts.next()?;
        let root = self.layers.iter().find_map(|layer| layer.get(root))?;
        parts.try_fold(root, |value, part| value.get(part))
    }
}

/// Variables that are kept with a version and not made anew for each rendering.
pub(super) struct Layer {
    pub(super) map: Map<String, Value>,
    jinja: Option<minijinja::Value>,
}

impl Layer {
    pub(super) fn new(dialect: Dialect, map: Map<String, Value>) -> Self {
        let jinja = match dialect {
            Dialect::Jinja => Some(minijinja::Value::from(Serde(&map))),
            Dialect::Simple => None,
        };
        Self { map, jinja }
    }
}

/// Templates that were read once and are rendered often.
pub(super) struct Templates {
    kind: Read,
}

enum Read {
    Jinja {
        env: Box<Environment<'static>>,
        names: Vec<String>,
    },
    Simple(Vec<Vec<Piece>>),
}

/// A part of a simple template.
#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Variable { name: String, written: String },
}

impl Templates {
    pub(super) fn new(dialect: Dialect) -> Self {
        let kind = match dialect {
            Dialect::Jinja => Read::Jinja {
                env: Box::new(environment().clone()),
                names: Vec::new(),
            },
            Dialect::Simple => Read::Simple(Vec::new()),
        };
        Self { kind }
    }

    /// Reads one more template and gives its number.
    pub(super) fn add(&mut self, source: &str) -> Result<usize, String> {
        match &mut self.kind {
            Read::Jinja { env, names } => {
                check_tags(source)?;
                let name = names.len().to_string();
                env.add_template_owned(name.clone(), source.to_owned())
                    .map_err(|error| describe(&error))?;
                names.push(name);
                Ok(names.len() - 1)
            }
            Read::Simple(list) => {
                list.push(pieces(source));
                Ok(list.len() - 1)
            }
        }
    }

    /// Renders a template that was added.
    pub(super) fn render(
        &self,
        number: usize,
        scope: &Scope<'_>,
        budget: &mut Budget,
    ) -> Result<String, String> {
        match &self.kind {
            Read::Jinja { env, names } => {
                let name = names.get(number).map_or("", String::as_str);
                let template = env.get_template(name).map_err(|error| describe(&error))?;
                render_jinja(&template, scope, budget)
            }
            Read::Simple(list) => {
                let pieces = list.get(number).map_or(&[][..], Vec::as_slice);
                fill(pieces, scope, budget)
            }
        }
    }
}

fn render_jinja(
    template: &minijinja::Template<'_, '_>,
    scope: &Scope<'_>,
    budget: &mut Budget,
) -> Result<String, String> {
    if budget.fuel == 0 {
        return Err(TOO_MUCH_WORK.to_owned());
    }
    let mut out = Capped {
        bytes: Vec::new(),
        room: budget.room,
        full: false,
    };
    match template.render_captured_to(scope.jinja.clone(), &mut out) {
        Ok(captured) => {
            let used = captured.state().fuel_levels().map_or(0, |(used, _)| used);
            budget.fuel = budget.fuel.saturating_sub(used);
            budget.room = out.room;
            String::from_utf8(out.bytes).map_err(|_| "the text is not UTF-8".to_owned())
        }
        Err(_) if out.full => Err(budget.overflow()),
        Err(error) => Err(describe(&error)),
    }
}

fn fill(pieces: &[Piece], scope: &Scope<'_>, budget: &mut Budget) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces {
        let before = out.len();
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Variable { name, written } => match scope.find(name) {
                Some(Value::String(text)) => out.push_str(text),
                Some(Value::Null) => {}
                Some(other) => out.push_str(&other.to_string()),
                None => out.push_str(written),
            },
        }
        budget.take(out.len() - before)?;
    }
    Ok(out)
}

/// Cuts a simple template: `{{` up to the next `}}` is a variable, the rest is text.
fn pieces(source: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}").map(|end| start + end + 2) else {
            break;
        };
        if start > 0 {
            found.push(Piece::Text(rest[..start].to_owned()));
        }
        let written = &rest[start..end];
        let name = &written[2..written.len() - 2];
        found.push(Piece::Variable {
            name: name.trim().to_owned(),
            written: written.to_owned(),
        });
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest.to_owned()));
    }
    found
}

/// The variables that a template uses, dotted where only a part is; none when it
/// cannot be read.
pub(super) fn variables(dialect: Dialect, source: &str) -> BTreeSet<String> {
    match dialect {
        Dialect::Simple => {
            let names = pieces(source).into_iter().filter_map(|piece| match piece {
                Piece::Variable { name, .. } if is_name(&name) => Some(name),
                _ => None,
            });
            names.collect()
        }
        Dialect::Jinja => match environment().template_from_str(source) {
            Ok(template) => template.undeclared_variables(true).into_iter().collect(),
            Err(_) => BTreeSet::new(),
        },
    }
}

/// What a jinja template loops over, as far as it is a plain name.
pub(super) fn looped_over(source: &str) -> BTreeSet<String> {
    let tags = source.split("{%").skip(1).filter_map(|tag| {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let (_, list) = tag.strip_prefix("for ")?.split_once(" in ")?;
        let name = list.trim_start();
        let end = name
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        Some(name[..end].to_owned())
    });
    tags.filter(|name| !name.is_empty()).collect()
}

/// Whether this can be a variable's name, possibly dotted.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// Whether a template can be saved: it parses and uses only what is allowed.
pub(super) fn check(dialect: Dialect, source: &str) -> Result<(), String> {
    match dialect {
        Dialect::Simple => Ok(()),
        Dialect::Jinja => {
            check_tags(source)?;
            environment()
                .template_from_str(source)
                .map(|_| ())
                .map_err(|error| describe(&error))
        }
    }
}

/// Renders a jinja template with these variables, to at most `max_bytes`.
///
/// # Errors
/// What is wrong: a syntax error, an undefined variable, too much work or text.
pub fn render_template(
    template: &str,
    variables: &Map<String, Value>,
    max_bytes: usize,
) -> Result<String, String> {
    check_tags(template)?;
    let compiled = environment()
        .template_from_str(template)
        .map_err(|error| describe(&error))?;
    let scope = Scope::new(Dialect::Jinja, vec![variables]);
    render_jinja(&compiled, &scope, &mut Budget::new(max_bytes))
}

const TOO_MUCH_WORK: &str = "the template does too much work";

fn check_tags(template: &str) -> Result<(), String> {
    let mut raw = false;
    for piece in template.split("{%").skip(1) {
        let tag = piece.trim_start_matches(['-', '+']).trim_start();
        let name: &str = tag
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        if RAW_TAGS.contains(&name) {
            raw = name == "raw";
        } else if !raw && !TAGS.contains(&name) {
            return Err(format!(
                "the tag {name:?} is not allowed in prompts; use if, for and raw"
            ));
        }
    }
    Ok(())
}

fn describe(error: &minijinja::Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return TOO_MUCH_WORK.to_owned();
    }
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut env = Environment::empty();
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            env.set_syntax(syntax);
        }
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(50);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.add_filter("upper", filters::upper);
        env.add_filter("lower", filters::lower);
        env.add_filter("title", filters::title);
        env.add_filter("capitalize", filters::capitalize);
        env.add_filter("trim", filters::trim);
        env.add_filter("length", filters::length);
        env.add_filter("first", filters::first);
        env.add_filter("last", filters::last);
        env.add_filter("items", filters::items);
        env.add_filter("default", filters::default);
        env.add_filter("tojson", filters::tojson);
        env.add_filter("join", join);
        env.add_filter("replace", replace);
        env.add_test("defined", tests::is_defined);
        env.add_test("undefined", tests::is_undefined);
        env.add_test("none", tests::is_none);
        env.add_test("string", tests::is_string);
        env.add_test("number", tests::is_number);
        env.add_test("mapping", tests::is_mapping);
        env.add_test("sequence", tests::is_sequence);
        env
    });
    &ENVIRONMENT
}

/// The library's `replace` and `join` multiply their inputs' sizes, and chained
/// they do so again and again; these stop at a cap.
fn replace(text: &str, from: &str, to: &str) -> Result<String, minijinja::Error> {
    let count = text.matches(from).count();
    capped(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(text.replace(from, to))
}

fn join(items: Vec<String>, separator: Option<&str>) -> Result<String, minijinja::Error> {
    let separator = separator.unwrap_or_default();
    let texts: usize = items.iter().map(String::len).sum();
    capped(texts.saturating_add(items.len().saturating_mul(separator.len())))?;
    Ok(items.join(separator))
}

fn capped(bytes: usize) -> Result<(), minijinja::Error> {
    let message = "the result of a filter is too large";
    if bytes > FILTER_BYTES {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    } else {
        Ok(())
    }
}

struct Capped {
    bytes: Vec<u8>,
    room: usize,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.room {
            self.full = true;
            return Err(std::io::Error::other("the output is full"));
        }
        self.room -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests_of_templates {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(template: &str, variables: Value, expected: Result<&str, &str>) {
        let variables = variables.as_object().cloned().unwrap_or_default();
        let got = render_template(template, &variables, 200);
        match expected {
            Ok(text) => assert_eq!(got.as_deref(), Ok(text), "{template}"),
            Err(part) => assert!(
                got.as_ref().is_err_and(|e| e.contains(part)),
                "{template}: {got:?}"
            ),
        }
    }

    #[track_caller]
    fn simple(template: &str, variables: Value, expected: &str) {
        let got = render(Dialect::Simple, template, &variables, 200);
        assert_eq!(got.as_deref(), Ok(expected), "{template}");
    }

    fn render(
        dialect: Dialect,
        template: &str,
        variables: &Value,
        max_bytes: usize,
    ) -> Result<String, String> {
        let variables = variables.as_object().cloned().unwrap_or_default();
        let mut templates = Templates::new(dialect);
        let number = templates.add(template)?;
        let scope = Scope::new(dialect, vec![&variables]);
        templates.render(number, &scope, &mut Budget::new(max_bytes))
    }

    #[test]
    fn simple_templates_are_filled_once() {
        let values = json!({"a": "{{ b }}", "b": "B", "n": null, "x": 1.5, "t": true, "日": "本",
            "user": {"name": "Aki", "tags": ["p", 1]}, "dotted.name": "d", "two words": "w"});
        simple("{{a}} {{ b }} {{  日\n}}", values.clone(), "{{ b }} B 本");
        simple("[{{n}}] {{x}} {{t}}", values.clone(), "[] 1.5 true");
        simple(
            "{{user.name}} {{user.tags}} {{dotted.name}}",
            values.clone(),
            "Aki [\"p\",1] d",
        );
        simple(
            "{{ missing }} {{user.age}} {{two words}}",
            values.clone(),
            "{{ missing }} {{user.age}} w",
        );
        simple(
            "{{ a {{ b }} }} {{}} {{{{b}}}}",
            values.clone(),
            "{{ a {{ b }} }} {{}} {{{{b}}}}",
        );
        simple("{{{b}}} {{ b", values.clone(), "{{{b}}} {{ b");
        simple("{% if b %}{# c #}", values, "{% if b %}{# c #}");
    }

    #[test]
    fn variables_are_found() {
        let check = |dialect, text: &str, expected: &[&str]| {
            let found = variables(dialect, text);
            assert_eq!(
                found.iter().map(String::as_str).collect::<Vec<_>>(),
                expected,
                "{text}"
            );
        };
        check(
            Dialect::Jinja,
            "{{ a.b }} {% for x in xs %}{{ x }}{{ loop.index }}{% endfor %}",
            &["a.b", "xs"],
        );
        check(Dialect::Jinja, "{{ a ", &[]);
        check(
            Dialect::Simple,
            "{{ a.b }} {{c}} {{ not a name! }} {{c}}",
            &["a.b", "c"],
        );
        let lists = looped_over("{%- for k, v in map|items %}{% endfor %}{% for x in xs %}");
        assert_eq!(lists.into_iter().collect::<Vec<_>>(), ["map", "xs"]);
    }

    /// The same meaning, written as one regular pass over characters.
    fn naive(template: &str, values: &Map<String, Value>) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < template.len() {
            let rest = &template[at..];
            if rest.starts_with("{{")
                && let Some(end) = rest.find("}}")
            {
                let written = &rest[..end + 2];
                match values.get(written[2..end].trim()) {
                    Some(value) => out.push_str(value.as_str().unwrap_or_default()),
                    None => out.push_str(written),
                }
                at += written.len();
            } else {
                let c = rest.chars().next().unwrap();
                out.push(c);
                at += c.len_utf8();
            }
        }
        out
    }

    proptest! {
        #[test]
        fn simple_templates_mean_what_a_naive_model_says(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{{", "}}", "{", "}", " ", "a", "b", "日本", "{{a}}", "{{ b }}", "\n", "{{ a }", "x",
            ]), 0..40),
            a in "[a-b{} ]{0,6}", b in "\\PC{0,6}",
        ) {
            let template = parts.concat();
            let values = json!({"a": a, "b": b});
            let expected = naive(&template, values.as_object().unwrap());
            let got = render(Dialect::Simple, &template, &values, 1 << 20);
            prop_assert_eq!(got, Ok(expected));
        }

        #[test]
        fn no_template_panics_or_goes_over_its_limits(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{{", "}}", "{%", "%}", "{#", "#}", " for ", " in ", "x", " xs ", " if ", " endfor ", " endif ", "|",
                "upper", "join", "'", "\"", "(", ")", "[", "]", "*", "9", ".", "~", "-", "raw", " endraw ", "日", "\\",
            ]), 0..30),
        ) {
            let values = json!({"x": "text", "xs": [1, [2, "three"], {"x": null}]});
            for dialect in [Dialect::Jinja, Dialect::Simple] {
                let template = parts.concat();
                let _ = variables(dialect, &template);
                let _ = looped_over(&template);
                if let Ok(text) = render(dialect, &template, &values, 100) {
                    prop_assert!(text.len() <= 100);
                }
            }
        }
    }

    #[test]
    fn templates_render_in_a_box() {
        check(
            "Hi {{ name }}!\n",
            json!({"name": "<世界>"}),
            Ok("Hi <世界>!\n"),
        );
        check(
            "{% for x in xs %}{{ x|upper }},{% endfor %}",
            json!({"xs": ["a", "b"]}),
            Ok("A,B,"),
        );
        check(
            "{{ xs|join(' ') }}{% if y is defined %}!{% endif %}",
            json!({"xs": [1, 2]}),
            Ok("1 2"),
        );
        check("{% raw %}{{ x }}{% endraw %}", json!({}), Ok("{{ x }}"));
        check("{{ missing }}", json!({}), Err("undefined"));
        check("{{ a.b.c }}", json!({"a": {}}), Err("undefined"));
        check("{{ x", json!({}), Err("line 1"));
        check("{% set x = 1 %}", json!({}), Err("\"set\" is not allowed"));
        check("{%- include 'secret' %}", json!({}), Err("not allowed"));
        check("{{ range(10) }}", json!({}), Err("range"));
        check("{{ 'x' * 201 }}", json!({}), Err("larger than 200"));
        check(
            "{{ x|replace('a', x)|replace('a', x)|replace('a', x) }}",
            json!({"x": "a".repeat(900)}),
            Err("too large"),
        );
        let nested = "{% for a in xs %}".repeat(6) + &"{% endfor %}".repeat(6);
        check(&nested, json!({"xs": vec![1; 100]}), Err("too much work"));
    }
}
