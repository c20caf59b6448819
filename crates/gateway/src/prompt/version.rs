//! One version of a prompt: read once, rendered for every call.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use base::Digest;
use serde_json::{Map, Value, json};

use super::check;
use super::document::{
    CALLERS_MESSAGES, Dialect, EXAMPLES, MessageRole, PARTIALS, PromptDocument, PromptItem,
    PromptType, Show, pointer_part,
};
use super::examples::{self, Shown};
use super::inputs::Inputs;
use super::template::{Budget, Scope, Templates};
use crate::problem::DocumentProblem;

/// How deep partials use partials.
const DEEPEST_PARTIAL: usize = 5;
/// Partials of one rendering.
const MOST_PARTIALS: usize = 64;

/// One version of a prompt. Its templates and its schema are read at the first
/// rendering and kept.
pub struct PromptVersion {
    /// The digest of its document.
    pub digest: Digest,
    /// What it says.
    pub document: PromptDocument,
    ready: OnceLock<Result<Ready, Vec<DocumentProblem>>>,
}

impl std::fmt::Debug for PromptVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromptVersion")
            .field("digest", &self.digest)
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

/// Finds the prompt that a reference (`prompt:NAME@SELECTOR`) stands for: in the
/// plan, in a release, or among drafts.
pub type PromptLookup<'a> = dyn Fn(&str) -> Option<Arc<PromptVersion>> + 'a;

/// What a prompt is rendered with.
#[derive(Clone, Copy)]
pub struct RenderWith<'a> {
    /// The inputs of the call.
    pub variables: &'a Map<String, Value>,
    /// The caller's own messages, which the rendered ones go around.
    pub messages: &'a [Value],
    /// Where partials are looked up.
    pub partials: &'a PromptLookup<'a>,
    /// The most that all rendered texts may have together.
    pub max_bytes: usize,
}

impl std::fmt::Debug for RenderWith<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenderWith")
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// A rendered prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendered {
    /// The messages that stand before the caller's own.
    pub before: Vec<Value>,
    /// Those that stand after them, where the prompt has a place for them.
    pub after: Vec<Value>,
    /// The prompt's own model.
    pub model: Option<String>,
    /// What the prompt says about the call: parameters, `response_format`, `tools`.
    /// A field that the caller sends wins.
    pub parameters: Map<String, Value>,
    /// The examples that were shown, by their place in the document.
    pub examples: Vec<usize>,
}

impl Rendered {
    /// The whole conversation.
    pub fn around(&self, messages: &[Value]) -> Vec<Value> {
        let parts = [self.before.as_slice(), messages, self.after.as_slice()];
        parts.concat()
    }
}

/// What was read from a document.
struct Ready {
    templates: Templates,
    items: Vec<Item>,
    inputs: Option<Inputs>,
    examples: Option<Shown>,
    /// The template of an example's question.
    question: Option<usize>,
    parameters: Map<String, Value>,
}

enum Item {
    /// A message. A text has no role of its own: that depends on the call.
    Message {
        role: Option<MessageRole>,
        template: usize,
        at: String,
    },
    History(String),
    Callers,
    Examples,
}

impl PromptVersion {
    /// A version of this content.
    pub fn new(digest: Digest, document: PromptDocument) -> Self {
        Self {
            digest,
            document,
            ready: OnceLock::new(),
        }
    }

    fn ready(&self) -> Result<&Ready, Vec<DocumentProblem>> {
        let ready = self.ready.get_or_init(|| Ready::read(&self.document));
        ready.as_ref().map_err(Clone::clone)
    }

    /// Renders the prompt for a call.
    ///
    /// # Errors
    /// What is wrong with the inputs (`variables.NAME`) or the document (a JSON
    /// Pointer), each with its place.
    pub fn render(&self, with: &RenderWith<'_>) -> Result<Rendered, Vec<DocumentProblem>> {
        self.render_chosen(with, &Chosen::default())
    }

    /// Renders the prompt with examples that were chosen before.
    pub(crate) fn render_chosen(
        &self,
        with: &RenderWith<'_>,
        chosen: &Chosen,
    ) -> Result<Rendered, Vec<DocumentProblem>> {
        let ready = self.ready()?;
        let placeholders: Vec<&str> = self.document.placeholders().collect();
        let filled = match &ready.inputs {
            Some(inputs) => inputs.fill(with.variables, &placeholders)?,
            None => with.variables.clone(),
        };
        let mut run = Run {
            with,
            chosen,
            inputs: &filled,
            budget: Budget::new(with.max_bytes),
            texts: HashMap::new(),
            path: Vec::new(),
        };
        run.render(self, ready).map_err(|problem| vec![problem])
    }
}

/// Examples that were chosen before the rendering: by the version's digest.
pub(crate) type Chosen = HashMap<Digest, Vec<usize>>;

/// Examples of a version that an embedding model has to choose.
pub(crate) struct ToChoose {
    pub version: Arc<PromptVersion>,
    /// How many.
    pub k: usize,
    /// The model; the default one where there is none.
    pub model: Option<String>,
    /// The text of the call, to compare the examples with.
    pub text: String,
}

impl PromptVersion {
    /// The choices of examples that a model makes before this is rendered: of this
    /// prompt, and of the partials that it leads to.
    pub(crate) fn to_choose(self: &Arc<Self>, with: &RenderWith<'_>) -> Vec<ToChoose> {
        let mut found = Vec::new();
        // Most prompts have neither; they pay for two looks.
        if self.document.chooses_by_embedding().is_none() && self.document.partials.is_empty() {
            return found;
        }
        let mut versions = vec![self.clone()];
        let mut seen: Vec<Digest> = vec![self.digest];
        let mut at = 0;
        while let Some(version) = versions.get(at).cloned() {
            at += 1;
            for reference in version.document.partials.values() {
                if let Some(partial) = (with.partials)(reference)
                    && seen.len() <= MOST_PARTIALS
                    && !seen.contains(&partial.digest)
                {
                    seen.push(partial.digest);
                    versions.push(partial);
                }
            }
        }
        versions.retain(|version| version.document.chooses_by_embedding().is_some());
        if versions.is_empty() {
            return found;
        }
        // What is wrong with the inputs is said by the rendering.
        let Some(inputs) = self.filled(with) else {
            return found;
        };
        let question = last_question(with.messages);
        for version in versions {
            let Some(select) = version.document.chooses_by_embedding() else {
                continue;
            };
            let (k, model) = (select.k, select.model.clone());
            let ready = version.ready().ok();
            let shown = ready.and_then(|ready| ready.examples.as_ref());
            let text = shown.and_then(|shown| shown.to_embed(&inputs, &question));
            if let Some(text) = text {
                found.push(ToChoose {
                    version,
                    k,
                    model,
                    text,
                });
            }
        }
        found
    }

    fn filled(&self, with: &RenderWith<'_>) -> Option<Map<String, Value>> {
        let placeholders: Vec<&str> = self.document.placeholders().collect();
        match &self.ready().ok()?.inputs {
            Some(inputs) => inputs.fill(with.variables, &placeholders).ok(),
            None => Some(with.variables.clone()),
        }
    }

    /// The texts of the examples, to be embedded.
    pub(crate) fn example_texts(&self) -> Vec<String> {
        let ready = self.ready().ok();
        let shown = ready.and_then(|ready| ready.examples.as_ref());
        shown.map(Shown::texts).unwrap_or_default()
    }
}

/// Renders a document that is being edited. Examples that a model would choose are
/// chosen by similarity: a preview calls no model.
///
/// # Errors
/// As [`PromptVersion::render`].
pub fn render_preview(
    document: &PromptDocument,
    with: &RenderWith<'_>,
) -> Result<Rendered, Vec<DocumentProblem>> {
    PromptVersion::new(Digest::of(b""), document.clone()).render(with)
}

impl Ready {
    fn read(document: &PromptDocument) -> Result<Self, Vec<DocumentProblem>> {
        let mut templates = Templates::new(document.dialect);
        let mut problems = Vec::new();
        let mut add = |path: String, source: &str| {
            templates.add(source).unwrap_or_else(|message| {
                problems.push(DocumentProblem::new(path, message));
                0
            })
        };
        let mut items = Vec::new();
        if let (PromptType::Text, Some(text)) = (document.kind, &document.template) {
            let at = "/template".to_owned();
            items.push(Item::Message {
                role: None,
                template: add(at.clone(), text),
                at,
            });
        }
        for (index, item) in document.messages.iter().enumerate() {
            items.push(match item {
                PromptItem::Message(message) => {
                    let at = format!("/messages/{index}/content");
                    Item::Message {
                        role: Some(message.role),
                        template: add(at.clone(), &message.content),
                        at,
                    }
                }
                PromptItem::Placeholder(place) => match place.placeholder.as_str() {
                    CALLERS_MESSAGES => Item::Callers,
                    EXAMPLES => Item::Examples,
                    name => Item::History(name.to_owned()),
                },
            });
        }
        let question = match (document.shows_examples(), &document.examples) {
            (_, None) => None,
            (Show::Messages, _) => check::question(document),
            (Show::Variable, Some(examples)) => examples.template.as_deref(),
        };
        let question = question.map(|text| add("/examples/template".to_owned(), text));
        let inputs = match document.inputs.as_ref().map(Inputs::new).transpose() {
            Ok(inputs) => inputs,
            Err(found) => {
                problems.extend(found);
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        place_examples(document, &mut items);
        let examples = document.examples.as_ref();
        Ok(Self {
            templates,
            items,
            inputs,
            examples: examples.map(|examples| Shown::new(examples, document.dialect)),
            question,
            parameters: parameters(document),
        })
    }
}

/// Examples without a place of their own come after the leading system messages.
fn place_examples(document: &PromptDocument, items: &mut Vec<Item>) {
    let placed = items.iter().any(|item| matches!(item, Item::Examples));
    if document.examples.is_none() || placed || document.shows_examples() == Show::Variable {
        return;
    }
    let leads = |item: &Item| {
        matches!(
            item,
            Item::Message {
                role: Some(MessageRole::System),
                ..
            }
        )
    };
    let place = items
        .iter()
        .position(|item| !leads(item))
        .unwrap_or(items.len());
    items.insert(place, Item::Examples);
}

fn parameters(document: &PromptDocument) -> Map<String, Value> {
    let mut parameters = document.parameters.clone();
    if let Some(format) = &document.response_format {
        parameters.insert("response_format".to_owned(), format.clone());
    }
    if !document.tools.is_empty() {
        parameters.insert("tools".to_owned(), document.tools.clone().into());
    }
    parameters
}

/// One rendering: what it may still use, and the partials that it has rendered.
struct Run<'a> {
    with: &'a RenderWith<'a>,
    chosen: &'a Chosen,
    /// The inputs with the defaults of the prompt that was called.
    inputs: &'a Map<String, Value>,
    budget: Budget,
    texts: HashMap<Digest, String>,
    /// The references that led here.
    path: Vec<String>,
}

impl Run<'_> {
    fn render(
        &mut self,
        version: &PromptVersion,
        ready: &Ready,
    ) -> Result<Rendered, DocumentProblem> {
        let (own, shown) = self.own(version, ready, &[self.inputs])?;
        let scope = Scope::new(version.document.dialect, vec![&own, self.inputs]);
        let (mut before, mut after) = (Vec::new(), None);
        for item in &ready.items {
            let out = after.as_mut().unwrap_or(&mut before);
            match item {
                Item::Message { role, template, at } => {
                    let text = self.text(ready, *template, &scope, at)?;
                    let role = role.unwrap_or_else(|| role_of_text(self.with.messages));
                    out.push(message(role, text));
                }
                Item::History(name) => out.extend(self.history(name)?),
                Item::Callers => after = Some(Vec::new()),
                Item::Examples => self.example_messages(ready, &shown, &scope, out)?,
            }
        }
        Ok(Rendered {
            before,
            after: after.unwrap_or_default(),
            model: version.document.model.clone(),
            parameters: ready.parameters.clone(),
            examples: shown,
        })
    }

    /// The variables that come from the document, and which examples are shown.
    fn own(
        &mut self,
        version: &PromptVersion,
        ready: &Ready,
        inputs: &[&Map<String, Value>],
    ) -> Result<(Map<String, Value>, Vec<usize>), DocumentProblem> {
        let document = &version.document;
        let mut own = self.partials(document)?;
        let Some(examples) = &ready.examples else {
            return Ok((own, Vec::new()));
        };
        let shown = match self.chosen.get(&version.digest) {
            Some(chosen) => chosen.clone(),
            None => examples.choose(self.inputs, &last_question(self.with.messages)),
        };
        if document.shows_examples() == Show::Variable {
            let layers: Vec<_> = [&own].into_iter().chain(inputs.iter().copied()).collect();
            let scope = Scope::new(document.dialect, layers);
            let value = self.examples_variable(document.dialect, ready, &shown, &scope)?;
            own.insert(EXAMPLES.to_owned(), value);
        }
        Ok((own, shown))
    }

    fn text(
        &mut self,
        ready: &Ready,
        template: usize,
        scope: &Scope<'_>,
        at: &str,
    ) -> Result<String, DocumentProblem> {
        let rendered = ready.templates.render(template, scope, &mut self.budget);
        rendered.map_err(|message| DocumentProblem::new(at, message))
    }

    /// The messages that an input holds. They come as they are: what people wrote
    /// in a conversation is never read as a template.
    fn history(&mut self, name: &str) -> Result<Vec<Value>, DocumentProblem> {
        let problem =
            |at: String, message: &str| DocumentProblem::new(format!("variables.{at}"), message);
        let list = match self.inputs.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(problem(name.to_owned(), "this must be a list of messages")),
        };
        for (index, message) in list.iter().enumerate() {
            let at = || format!("{name}[{index}]");
            if !message.get("role").is_some_and(Value::is_string) {
                return Err(problem(at(), "a message is an object with a \"role\""));
            }
            let bytes = message.to_string().len();
            self.budget
                .take(bytes)
                .map_err(|message| problem(at(), &message))?;
        }
        Ok(list.clone())
    }

    fn example_messages(
        &mut self,
        ready: &Ready,
        shown: &[usize],
        scope: &Scope<'_>,
        out: &mut Vec<Value>,
    ) -> Result<(), DocumentProblem> {
        for number in shown {
            if let Some(example) = self.example(ready, *number, scope)? {
                let question = example.question.unwrap_or_default();
                out.push(message(MessageRole::User, question));
                out.push(message(MessageRole::Assistant, example.item.output.clone()));
            }
        }
        Ok(())
    }

    fn example<'r>(
        &mut self,
        ready: &'r Ready,
        number: usize,
        scope: &Scope<'_>,
    ) -> Result<Option<OneExample<'r>>, DocumentProblem> {
        let examples = ready.examples.as_ref();
        let Some(item) = examples.and_then(|examples| examples.items.get(number)) else {
            return Ok(None);
        };
        let at = format!("/examples/items/{number}");
        let question = match ready.question {
            Some(template) => Some(self.text(ready, template, &scope.under(&item.inputs), &at)?),
            None => None,
        };
        let taken = self.budget.take(item.output.len());
        taken.map_err(|message| DocumentProblem::new(at, message))?;
        Ok(Some(OneExample { question, item }))
    }

    fn examples_variable(
        &mut self,
        dialect: Dialect,
        ready: &Ready,
        shown: &[usize],
        scope: &Scope<'_>,
    ) -> Result<Value, DocumentProblem> {
        let (mut list, mut blocks) = (Vec::new(), Vec::new());
        for number in shown {
            let Some(OneExample { question, item }) = self.example(ready, *number, scope)? else {
                continue;
            };
            let (inputs, output) = (&item.inputs.map, &item.output);
            match dialect {
                Dialect::Simple => {
                    let question = question.unwrap_or_else(|| lines(inputs));
                    blocks.push(format!("{question}\n{output}"));
                }
                Dialect::Jinja => {
                    list.push(json!({"input": question, "inputs": inputs, "output": output}));
                }
            }
        }
        Ok(match dialect {
            Dialect::Simple => blocks.join("\n\n").into(),
            Dialect::Jinja => list.into(),
        })
    }

    /// The variable `partials`.
    fn partials(
        &mut self,
        document: &PromptDocument,
    ) -> Result<Map<String, Value>, DocumentProblem> {
        let mut own = Map::new();
        if document.partials.is_empty() {
            return Ok(own);
        }
        let mut texts = Map::new();
        for (name, reference) in &document.partials {
            let text = self.partial(reference).map_err(|message| {
                DocumentProblem::new(format!("/partials/{}", pointer_part(name)), message)
            })?;
            texts.insert(name.clone(), text.into());
        }
        own.insert(PARTIALS.to_owned(), texts.into());
        Ok(own)
    }

    /// The text of another prompt, with the inputs of this call.
    fn partial(&mut self, reference: &str) -> Result<String, String> {
        let trail = |path: &[String]| format!("{} → {reference}", path.join(" → "));
        if self.path.iter().any(|before| before == reference) {
            return Err(format!(
                "the partials go in a circle: {}",
                trail(&self.path)
            ));
        }
        if self.path.len() >= DEEPEST_PARTIAL {
            return Err(format!(
                "partials are nested deeper than {DEEPEST_PARTIAL}: {}",
                trail(&self.path)
            ));
        }
        let version =
            (self.with.partials)(reference).ok_or_else(|| format!("there is no {reference}"))?;
        if let Some(text) = self.texts.get(&version.digest) {
            return Ok(text.clone());
        }
        if self.texts.len() >= MOST_PARTIALS {
            return Err(format!("more than {MOST_PARTIALS} partials are used"));
        }
        self.path.push(reference.to_owned());
        let text = self.partial_text(&version);
        self.path.pop();
        let text = text.map_err(|problem| format!("{reference}: {problem}"))?;
        self.texts.insert(version.digest, text.clone());
        Ok(text)
    }

    fn partial_text(&mut self, version: &PromptVersion) -> Result<String, DocumentProblem> {
        let first = |mut problems: Vec<DocumentProblem>| match problems.is_empty() {
            true => DocumentProblem::new("", "it cannot be read"),
            false => problems.swap_remove(0),
        };
        let ready = version.ready().map_err(first)?;
        let mut defaults = Map::new();
        if let Some(inputs) = &ready.inputs {
            inputs.defaults(&mut defaults);
        }
        let (own, _) = self.own(version, ready, &[self.inputs, &defaults])?;
        let layers = vec![&own, self.inputs, &defaults];
        let scope = Scope::new(version.document.dialect, layers);
        let mut texts = Vec::new();
        for item in &ready.items {
            if let Item::Message { template, at, .. } = item {
                texts.push(self.text(ready, *template, &scope, at)?);
            }
        }
        Ok(texts.join("\n\n"))
    }
}

/// An example as it is shown in one rendering.
struct OneExample<'r> {
    question: Option<String>,
    item: &'r examples::Item,
}

fn message(role: MessageRole, text: String) -> Value {
    json!({"role": role.as_str(), "content": text})
}

/// A text instructs a conversation that the caller brings; alone it is the question.
fn role_of_text(messages: &[Value]) -> MessageRole {
    if messages.is_empty() {
        MessageRole::User
    } else {
        MessageRole::System
    }
}

/// The text of the last user message, which examples are compared with when the
/// inputs say nothing.
fn last_question(messages: &[Value]) -> String {
    let last = messages.iter().rfind(|message| message["role"] == "user");
    match last.map(|message| &message["content"]) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// Inputs as lines of text.
fn lines(inputs: &Map<String, Value>) -> String {
    let lines = inputs
        .iter()
        .map(|(name, value)| format!("{name}: {}", examples::text_of(value)));
    lines.collect::<Vec<_>>().join("\n")
}
