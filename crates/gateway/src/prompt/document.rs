//! The document of a prompt: what people write, version and compare.
//!
//! Everything but the messages is left out of the serialisation where it says
//! nothing, so that a prompt written before a field existed keeps its digest.
//! What a document means when it is rendered is `version.rs`; what makes one
//! wrong is `check.rs`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{check, inputs, template};
use crate::problem::DocumentProblem;

/// A prompt: messages made of templates, what they need, and how a model is to be called with them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptDocument {
    /// What the prompt is for, in a sentence or two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `chat` has `messages`, `text` has one `template`.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: PromptType,
    /// How templates are read: `jinja` knows conditions, loops and filters; `simple` replaces `{{ name }}` once and nothing else.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dialect: Dialect,
    /// The text of a prompt of type `text`. It becomes a system message before the caller's messages, or the user message of a call that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The messages of a prompt of type `chat`, in order. They stand before the caller's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<PromptItem>,
    /// The inputs as a JSON Schema of type `object`: types, descriptions, defaults, examples. Without it any input is taken as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Value>,
    /// Worked examples that are shown to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<Examples>,
    /// Other prompts whose text is used here: `{"tone": "prompt:shared/tone@production"}` is written `{{ partials.tone }}` in a template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partials: BTreeMap<String, String>,
    /// The model that is called when the caller names none: `provider/model` or `local/model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Parameters of the call, such as `temperature` and `max_tokens`. What the caller sends itself wins.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// The shape of the answer, as OpenAI's field `response_format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Tools that the model may call, as OpenAI's field `tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Free JSON for the application; it is kept and never interpreted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// The shape of a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PromptType {
    /// A list of messages.
    #[default]
    Chat,
    /// One text.
    Text,
}

/// The language of the templates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Jinja: `{{ name }}`, `{% if %}`, `{% for %}`, filters. An undefined variable is an error.
    #[default]
    Jinja,
    /// `{{ name }}` is replaced in one pass and values are never read as templates; an unknown name stays as it is written.
    Simple,
}

/// One entry of `messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PromptItem {
    /// A message.
    Message(PromptMessage),
    /// The place of messages that come with the call.
    Placeholder(Placeholder),
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: MessageRole,
    /// A template over the inputs.
    pub content: String,
}

/// The place of messages that come with the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placeholder {
    /// The input that is a list of messages. `messages` is the place of the caller's own messages, `examples` that of the examples.
    pub placeholder: String,
}

/// The placeholder that stands for the caller's own messages.
pub(super) const CALLERS_MESSAGES: &str = "messages";
/// The placeholder that stands for the examples, and the variable that holds them.
pub(super) const EXAMPLES: &str = "examples";
/// The variable that holds the texts of the partials.
pub(super) const PARTIALS: &str = "partials";

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageRole {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl MessageRole {
    /// The word that providers use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Worked examples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Examples {
    /// The examples, in the order in which they are shown.
    pub items: Vec<Example>,
    /// The template of an example's question, over its inputs. Without it the template of the prompt's last user message is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Where they are shown; `messages` for a chat, `variable` for a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<Show>,
    /// Shows only some of them, chosen for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
}

/// One worked example.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The inputs of the example.
    pub inputs: Map<String, Value>,
    /// The answer that is right for them; anything but a text is shown as JSON.
    pub output: Value,
}

/// Where examples are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Show {
    /// As pairs of a user and an assistant message, after the leading system messages or where the placeholder `examples` stands.
    Messages,
    /// In the variable `examples` of the templates: a list of `input` (the question's text), `inputs` and `output`; one text in the dialect `simple`.
    Variable,
}

/// Which examples are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// How many; the most alike comes last, nearest to the question.
    pub k: usize,
    /// By what they are chosen.
    pub by: SelectBy,
    /// The input that is compared; without it all inputs of the examples are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The model of `embedding`: `local/NAME` or `PROVIDER/MODEL`; without it the first local embedding model by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// How examples are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SelectBy {
    /// By how many two- and three-letter sequences they share with the call's inputs.
    Similarity,
    /// By how alike their embeddings are to that of the call's inputs. Where the embedding model fails, by similarity; the call's record then says so.
    Embedding,
}

/// A mention of another prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptMention {
    /// Where it stands: a JSON Pointer into the document.
    pub path: String,
    /// The reference: `prompt:NAME@SELECTOR`.
    pub reference: String,
}

/// A variable that the templates use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name; dotted where a part of it is used.
    pub name: String,
    /// Whether `inputs` knows it; true for all when there is no `inputs`.
    pub declared: bool,
    /// The templates that use it, as JSON Pointers.
    pub used_in: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PromptDocument {
    /// Reads a document and checks everything about it that can be checked without
    /// looking at other documents.
    ///
    /// # Errors
    /// Every problem that it has, each with its place.
    pub fn parse(value: &Value) -> Result<Self, Vec<DocumentProblem>> {
        check::parse(value)
    }

    /// A prompt that is one system message.
    pub fn of_system(text: impl Into<String>) -> Self {
        Self {
            messages: vec![PromptItem::Message(PromptMessage {
                role: MessageRole::System,
                content: text.into(),
            })],
            ..Self::default()
        }
    }

    /// The templates of the system messages, or the template of a text.
    pub fn system(&self) -> String {
        let system = self.messages.iter().filter_map(|item| match item {
            PromptItem::Message(message) if message.role == MessageRole::System => {
                Some(message.content.as_str())
            }
            _ => None,
        });
        let texts: Vec<&str> = self.template.as_deref().into_iter().chain(system).collect();
        texts.join("\n\n")
    }

    /// The document as the catalog keeps it: what says nothing is left out.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The other prompts that this one uses.
    pub fn references(&self) -> Vec<PromptMention> {
        let mention = |(name, reference): (&String, &String)| PromptMention {
            path: format!("/partials/{}", pointer_part(name)),
            reference: reference.clone(),
        };
        self.partials.iter().map(mention).collect()
    }

    /// Every template of the document with its place.
    pub fn templates(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        if let Some(text) = &self.template {
            found.push(("/template".to_owned(), text.as_str()));
        }
        for (index, item) in self.messages.iter().enumerate() {
            if let PromptItem::Message(message) = item {
                found.push((
                    format!("/messages/{index}/content"),
                    message.content.as_str(),
                ));
            }
        }
        if let Some(text) = self.examples.as_ref().and_then(|e| e.template.as_ref()) {
            found.push(("/examples/template".to_owned(), text.as_str()));
        }
        found
    }

    /// The variables that the templates use, by name. A template that cannot be
    /// read has none.
    pub fn variables(&self) -> Vec<Variable> {
        let mut used: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, text) in self.templates() {
            for name in template::variables(self.dialect, text) {
                used.entry(name).or_default().push(path.clone());
            }
        }
        for (index, item) in self.messages.iter().enumerate() {
            if let PromptItem::Placeholder(Placeholder { placeholder }) = item
                && placeholder != CALLERS_MESSAGES
                && placeholder != EXAMPLES
            {
                let paths = used.entry(placeholder.clone()).or_default();
                paths.push(format!("/messages/{index}/placeholder"));
            }
        }
        let known = self.inputs.as_ref().map(inputs::names);
        let own = self.own_variables();
        let variables = used.into_iter().filter_map(|(name, used_in)| {
            let root = name.split('.').next().unwrap_or_default();
            let declared = known
                .as_ref()
                .is_none_or(|known| known.contains(&root) || known.contains(&name.as_str()));
            (!own.contains(&root)).then_some(Variable {
                name,
                declared,
                used_in,
            })
        });
        variables.collect()
    }

    /// The variables that come from the document and not from the call.
    pub(super) fn own_variables(&self) -> Vec<&'static str> {
        let mut own = Vec::new();
        if !self.partials.is_empty() {
            own.push(PARTIALS);
        }
        if self.examples.is_some() && self.shows_examples() == Show::Variable {
            own.push(EXAMPLES);
        }
        own
    }

    /// Where examples are shown.
    pub fn shows_examples(&self) -> Show {
        let said = self.examples.as_ref().and_then(|examples| examples.show);
        said.unwrap_or(match self.kind {
            PromptType::Chat => Show::Messages,
            PromptType::Text => Show::Variable,
        })
    }

    /// How its examples are chosen, where an embedding model does that.
    pub(crate) fn chooses_by_embedding(&self) -> Option<&Select> {
        let select = self.examples.as_ref()?.select.as_ref();
        select.filter(|select| select.by == SelectBy::Embedding)
    }

    /// Inputs to try the prompt with: from the declared examples, defaults and
    /// types, else the variables' names, and over them the first worked example.
    pub fn sample_inputs(&self) -> Map<String, Value> {
        inputs::sample(self)
    }

    /// A JSON Schema for `inputs` that declares every variable as a required
    /// text, as a start for the author.
    pub fn inputs_draft(&self) -> Value {
        inputs::draft(self)
    }

    /// The placeholders that the caller fills with lists of messages.
    pub(super) fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().filter_map(|item| match item {
            PromptItem::Placeholder(Placeholder { placeholder })
                if placeholder != CALLERS_MESSAGES && placeholder != EXAMPLES =>
            {
                Some(placeholder.as_str())
            }
            _ => None,
        })
    }
}

/// A name as a part of a JSON Pointer.
pub(super) fn pointer_part(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
