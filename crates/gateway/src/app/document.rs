//! The document of an app, as people write it and the catalog keeps it.
//!
//! Only shape lives here: what a document may hold and how it is read. Whether
//! its parts fit together is `check.rs`'s business, running it `run.rs`'s. Every
//! expression is a text in CEL; every default is left out again when a document
//! is written, so that the digest of a document does not change with releases.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::problem::DocumentProblem;
use crate::prompt::PromptDocument;
use crate::shape::read_shape;

/// Steps that call prompts, tools and models, run as one call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppDocument {
    /// What the app is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A JSON Schema of the app's inputs, an object. One text named `question` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// Model routes by alias: the models to try, in this order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Vec<String>>,
    /// Tools by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, Tool>,
    /// Policies that watch everything that this app does, beside those that watch it by
    /// themselves: `guard:NAME@SELECTOR`. A release keeps the versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<String>,
    /// What happens. Steps that do not need each other's results run at the same time.
    pub steps: Vec<Step>,
    /// What the app answers; the text of the last step when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// A tool that steps and agents call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Tool {
    /// One HTTP request.
    Http(HttpTool),
}

/// A tool that is one HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTool {
    /// What the tool does, for the model that chooses it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `GET` when not given.
    #[serde(default, skip_serializing_if = "Method::is_get")]
    pub method: Method,
    /// The address. `{name}` stands for an argument, percent-encoded; never in the host.
    /// Arguments that are not in it become the query of GET and DELETE, else the JSON body.
    pub url: String,
    /// Further headers. Credentials do not belong here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Where the credential comes from: `env:MEGURI_TOOL_NAME`. It is sent as `authorization: Bearer …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Another header for the credential, which then holds nothing else: `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_header: Option<String>,
    /// A JSON Schema of the arguments, an object.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// How long the whole request may take: 100 to 60000; 10000 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The answer in copies whose result nobody sees, where tools do not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry: Option<Value>,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Sends a JSON body.
    Post,
    /// Sends a JSON body.
    Put,
    /// Sends a JSON body.
    Patch,
    /// Deletes.
    Delete,
}

impl Method {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    fn is_get(&self) -> bool {
        *self == Self::Get
    }

    /// Whether arguments that are not in the address travel as a JSON body.
    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Step {
    /// Renders a prompt and calls a model.
    Prompt(PromptStep),
    /// Calls a tool.
    Tool(ToolStep),
    /// Lets a model call tools until it has an answer.
    Agent(AgentStep),
    /// Steps of its own, once or for each item of a list.
    Chain(ChainStep),
    /// Searches an index. Not available in this release.
    Retrieve(RetrieveStep),
    /// Checks a text with a guard policy.
    Guard(GuardStep),
}

/// Renders a prompt and calls a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `prompt:NAME@SELECTOR`, or a prompt's document in place.
    pub prompt: PromptSource,
    /// The prompt's inputs, an expression each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// An alias of `models`, or `PROVIDER/MODEL`; the prompt's own model when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Model parameters, over those of the prompt.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

/// Calls a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// A name of `tools`.
    pub tool: String,
    /// The tool's arguments, an expression each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
}

/// Lets a model call tools until it has an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `prompt:NAME@SELECTOR`, or a prompt's document in place.
    pub prompt: PromptSource,
    /// The prompt's inputs, an expression each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// An alias of `models`, or `PROVIDER/MODEL`; the prompt's own model when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Model parameters, over those of the prompt.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// Names of `tools` that the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Where it stops by itself.
    #[serde(default, skip_serializing_if = "AgentLimits::is_default")]
    pub limits: AgentLimits,
    /// What a stream says where the agent is the last step; `live` when not given.
    #[serde(default, skip_serializing_if = "AgentStream::is_live")]
    pub stream: AgentStream,
}

/// What a stream says while an agent works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentStream {
    /// All text of the model as it comes, also what it says before it calls tools;
    /// a blank line stands between the texts of two turns.
    #[default]
    Live,
    /// Only the answer: a turn's text waits until the turn has ended without a call of a tool.
    Answer,
}

impl AgentStream {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    fn is_live(&self) -> bool {
        *self == Self::Live
    }
}

/// Where an agent stops by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentLimits {
    /// Calls of the model: 1 to 50; 8 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// US dollars for all calls of the model together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Seconds: 1 to 900; 120 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
}

impl AgentLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Steps of its own, once or for each item of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// A list: the steps run once for each item, which they know as `item` and `index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<String>,
    /// The steps. Others see only the chain's own result: that of its last step, or
    /// the list of them.
    pub steps: Vec<Step>,
}

/// Searches an index. Not available in this release: running one is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetrieveStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `index:NAME@SELECTOR`.
    pub index: String,
    /// What to search for.
    pub query: String,
    /// How many passages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
}

/// Checks a text with a guard policy. Its result is the text as it may go on, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardStep {
    /// Names the step in expressions and traces.
    pub id: String,
    /// Skips the step where this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Steps to wait for whose results are not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `guard:NAME@SELECTOR`.
    pub guard: String,
    /// What to check: a text, or any value, whose every text is checked.
    pub on: String,
    /// Which of the policy's rules look: those at this point; `input` when not given.
    #[serde(default = "input", skip_serializing_if = "is_input")]
    pub point: guard::Point,
    /// What happens where a rule blocks; `stop` when not given.
    #[serde(default, skip_serializing_if = "OnBlock::is_stop")]
    pub on_block: OnBlock,
}

fn input() -> guard::Point {
    guard::Point::Input
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_input(point: &guard::Point) -> bool {
    *point == guard::Point::Input
}

/// What happens where a rule of a `guard` step blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBlock {
    /// The app ends with the error `guard_blocked`.
    #[default]
    Stop,
    /// The app goes on: conditions read `steps.ID.decision`, and the text is what stood before.
    Continue,
}

impl OnBlock {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    fn is_stop(&self) -> bool {
        *self == Self::Stop
    }
}

/// A prompt of the catalog, or one that stands in the app itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PromptSource {
    /// `prompt:NAME@SELECTOR`.
    Reference(String),
    /// A prompt's document.
    Inline(Box<PromptDocument>),
}

/// What the app answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// How the value becomes the answer's text; `text` when not given.
    #[serde(default, rename = "type", skip_serializing_if = "OutputKind::is_text")]
    pub kind: OutputKind,
    /// The value; the text of the last step when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// How a value becomes an answer's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// A text as it is, anything else as JSON.
    #[default]
    Text,
    /// Always JSON.
    Json,
}

impl OutputKind {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    fn is_text(&self) -> bool {
        *self == Self::Text
    }
}

impl Step {
    /// Its name.
    pub fn id(&self) -> &str {
        match self {
            Self::Prompt(step) => &step.id,
            Self::Tool(step) => &step.id,
            Self::Agent(step) => &step.id,
            Self::Chain(step) => &step.id,
            Self::Retrieve(step) => &step.id,
            Self::Guard(step) => &step.id,
        }
    }

    /// The condition.
    pub fn when(&self) -> Option<&str> {
        let when = match self {
            Self::Prompt(step) => &step.when,
            Self::Tool(step) => &step.when,
            Self::Agent(step) => &step.when,
            Self::Chain(step) => &step.when,
            Self::Retrieve(step) => &step.when,
            Self::Guard(step) => &step.when,
        };
        when.as_deref()
    }

    /// The steps that it waits for without using their results.
    pub fn after(&self) -> &[String] {
        match self {
            Self::Prompt(step) => &step.after,
            Self::Tool(step) => &step.after,
            Self::Agent(step) => &step.after,
            Self::Chain(step) => &step.after,
            Self::Retrieve(step) => &step.after,
            Self::Guard(step) => &step.after,
        }
    }

    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prompt(_) => "prompt",
            Self::Tool(_) => "tool",
            Self::Agent(_) => "agent",
            Self::Chain(_) => "chain",
            Self::Retrieve(_) => "retrieve",
            Self::Guard(_) => "guard",
        }
    }

    /// Its expressions, `when` included, with the place of each inside the step.
    pub(crate) fn expressions(&self) -> Vec<(String, &str)> {
        let mut all: Vec<(String, &str)> = Vec::new();
        if let Some(when) = self.when() {
            all.push(("/when".to_owned(), when));
        }
        match self {
            Self::Prompt(PromptStep { variables, .. })
            | Self::Agent(AgentStep { variables, .. }) => {
                all.extend(places("variables", variables));
            }
            Self::Tool(step) => all.extend(places("arguments", &step.arguments)),
            Self::Chain(step) => {
                if let Some(for_each) = &step.for_each {
                    all.push(("/for_each".to_owned(), for_each));
                }
            }
            Self::Retrieve(step) => all.push(("/query".to_owned(), &step.query)),
            Self::Guard(step) => all.push(("/on".to_owned(), &step.on)),
        }
        all
    }
}

fn places<'a>(
    field: &'a str,
    map: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (String, &'a str)> {
    map.iter()
        .map(move |(name, text)| (format!("/{field}/{}", pointer_token(name)), text.as_str()))
}

/// A name as a part of a JSON Pointer.
pub(crate) fn pointer_token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl AppDocument {
    /// Reads a document without asking whether its parts fit together; see
    /// [`AppDocument::parse`] for that.
    ///
    /// # Errors
    /// What has the wrong shape, and where.
    pub fn read(value: &Value) -> Result<Self, Vec<DocumentProblem>> {
        read_shape(value).map_err(|first| {
            let mut problems = Vec::new();
            find_wrong_shapes(value, &mut problems);
            if problems.is_empty() {
                problems.push(first);
            }
            problems
        })
    }
}

/// The first problem stops the reading, so the parts are read one by one.
fn find_wrong_shapes(value: &Value, problems: &mut Vec<DocumentProblem>) {
    if let Some(tools) = value.get("tools").and_then(Value::as_object) {
        for (name, tool) in tools {
            let path = format!("/tools/{}", pointer_token(name));
            find_wrong_shape::<Tool>(&path, tool, problems);
        }
    }
    find_wrong_steps("", value, problems);
    if let Some(output) = value.get("output") {
        find_wrong_shape::<Output>("/output", output, problems);
    }
}

fn find_wrong_steps(path: &str, value: &Value, problems: &mut Vec<DocumentProblem>) {
    let steps = value.get("steps").and_then(Value::as_array);
    for (at, step) in steps.into_iter().flatten().enumerate() {
        let path = format!("{path}/steps/{at}");
        let before = problems.len();
        if step["type"] == "chain" {
            find_wrong_steps(&path, step, problems);
        }
        let prompt = &step["prompt"];
        if prompt.is_object()
            && let Err(wrong) = PromptDocument::parse(prompt)
        {
            let located = wrong.into_iter().map(|problem| {
                let path = format!("{path}/prompt{}", problem.path);
                DocumentProblem::new(path, problem.message)
            });
            problems.extend(located);
        }
        if problems.len() == before {
            find_wrong_shape::<Step>(&path, step, problems);
        }
    }
}

fn find_wrong_shape<T: DeserializeOwned>(
    path: &str,
    value: &Value,
    problems: &mut Vec<DocumentProblem>,
) {
    if let Err(problem) = read_shape::<T>(value) {
        let path = format!("{path}{}", problem.path);
        problems.push(DocumentProblem::new(path, problem.message));
    }
}

impl<'de> Deserialize<'de> for PromptSource {
    /// As `untagged` would, but with the words of what is wrong with the prompt.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Reference(text)),
            value @ Value::Object(_) => PromptDocument::deserialize(value)
                .map(|document| Self::Inline(Box::new(document)))
                .map_err(D::Error::custom),
            _ => Err(D::Error::custom(
                "write prompt:NAME@LABEL, or a prompt's document in place",
            )),
        }
    }
}
