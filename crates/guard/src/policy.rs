//! The document of a policy, as people write it and the catalog keeps it (kind `guard`).
//!
//! Only shape lives here; whether its parts fit together is checked when it is compiled
//! (`engine/check.rs`). Every default is left out again when a document is written, so that the
//! digest of a document does not change with releases.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Problem;

/// Rules, in the order in which they win where two want the same text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What the policy is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Which calls it watches by itself. Apps and `guard` steps name policies beside that.
    #[serde(default, skip_serializing_if = "is_default")]
    pub applies_to: AppliesTo,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// The calls that a policy watches by itself: those that any of these means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppliesTo {
    /// Every call of the project.
    #[serde(default, skip_serializing_if = "is_false")]
    pub everything: bool,
    /// Calls of these apps, what their steps ask models included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<String>,
    /// Calls of these models, as they are written in requests; `PROVIDER/*` means all of one, and
    /// the name of a route of an app whatever model that leads to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Calls with these API keys, by the ids that the page of keys shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// One check at some points, and what is done about what it finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the policy: stands in findings and refusals.
    pub name: String,
    /// Where it looks.
    pub at: Vec<Point>,
    /// What it looks for.
    pub check: Check,
    /// What is done about it.
    pub action: Action,
    /// Only say what would have been done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
    /// What holds if a tier cannot answer: `closed` acts as if something had been found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// How long the tiers that ask a model may take together, per question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// Whether text waits for a model's answer. `false`: it flows, and a finding ends it from
    /// there (a kill switch). Rules that only flag never wait.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub hold: bool,
}

/// Where in a call a rule looks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// What the caller sends.
    Input,
    /// What the model answers.
    Output,
    /// Passages that were retrieved for the prompt.
    Retrieved,
    /// The arguments of a tool call, as JSON.
    ToolArguments,
    /// What a tool returned.
    ToolResult,
}

impl Point {
    /// Whether what stands there was written by nobody who may give orders.
    pub(crate) fn is_data(self) -> bool {
        matches!(self, Point::Retrieved | Point::ToolResult)
    }
}

/// Who told a model something that its answer may stand on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Passages that were retrieved for the prompt.
    Retrieved,
    /// Tools.
    ToolResult,
    /// The user: messages, and the inputs of an app.
    Input,
    /// The instructions: system and developer messages.
    Instructions,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// Personal data.
    Pii {
        /// Which kinds; all of them when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
    },
    /// Keys, tokens, passwords.
    Secrets {
        /// Which kinds; all of them when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
    },
    /// Words of a list.
    Words {
        /// The words.
        list: WordList,
        /// How loosely they are compared.
        #[serde(default, skip_serializing_if = "is_default")]
        fold: Fold,
        /// Whether a word counts inside a longer one. Scripts without spaces always do.
        #[serde(default, skip_serializing_if = "is_false")]
        inside: bool,
    },
    /// A regular expression of bounded length.
    Pattern {
        /// The expression, in the syntax of the Rust crate `regex`.
        pattern: String,
        /// What it is compared with: `exact` (default here) or folded text.
        #[serde(default = "exact", skip_serializing_if = "is_exact")]
        fold: Fold,
    },
    /// Attempts to give the model other instructions.
    Injection {
        /// From which score on; each classifier's own when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
        /// Which tiers look; rules and linear when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tiers: Vec<Tier>,
        /// A classifier that learned from reviewed texts, by the digest of its file, instead of the
        /// one that comes with the program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classifier: Option<String>,
    },
    /// Insults, threats, hate.
    Toxicity {
        /// From which score on; each classifier's own when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
        /// Which tiers look; rules and linear when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tiers: Vec<Tier>,
        /// A classifier that learned from reviewed texts, by the digest of its file, instead of the
        /// one that comes with the program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classifier: Option<String>,
    },
    /// Topics, told by examples. With `allow`, whatever is like none of them is found.
    Topics {
        /// Examples of what may be talked about.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow: Vec<String>,
        /// Examples of what may not.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        deny: Vec<String>,
        /// From which score on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
    },
    /// Text in another language than these.
    Languages {
        /// ISO 639-1 codes.
        allow: Vec<String>,
    },
    /// Marks that were hidden in the prompt.
    Canary {},
    /// Passages of the system prompt.
    PromptLeak {
        /// How many letters and digits in a row must agree.
        #[serde(default = "leak_chars", skip_serializing_if = "is_leak_chars")]
        min_chars: u32,
    },
    /// Text that is not JSON, or not of this schema.
    Json {
        /// The JSON Schema, of the subset that `docs/guardrails.md` lists; any JSON when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Value>,
        /// Whether to mend it once before anything else is done.
        #[serde(default, skip_serializing_if = "is_false")]
        repair: bool,
    },
    /// Links and images to other hosts.
    Links {
        /// Hosts that are allowed; `*.example.com` allows those below it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow: Vec<String>,
    },
    /// Sentences of an answer that what the model was shown does not bear out.
    Grounded {
        /// What an answer may stand on; `retrieved` and `tool_result` when empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sources: Vec<Source>,
        /// The model that judges; the gateway's default judge when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// From which score on a sentence counts as not grounded: from 0.5 on what the evidence
        /// does not mention, from 0.8 on only what it contradicts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
    },
    /// Answers that refuse.
    Refusal {},
    /// Empty answers.
    Empty {},
    /// Too long a text.
    Size {
        /// How many characters are allowed.
        max_chars: u64,
    },
    /// Text that goes in circles.
    Repetition {
        /// From how many repeated characters on.
        #[serde(default = "loop_chars", skip_serializing_if = "is_loop_chars")]
        min_chars: u32,
    },
    /// Text that is no language.
    Gibberish {
        /// From which score on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
    },
    /// A question to a model.
    Judge {
        /// What the model is to look for, in words.
        rubric: String,
        /// The model that judges; the gateway's default judge when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// From which score on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threshold: Option<f32>,
        /// How much text one question is about, in characters.
        #[serde(default = "judge_chars", skip_serializing_if = "is_judge_chars")]
        every_chars: u32,
    },
}

/// Words, or the name of a list that is kept elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum WordList {
    /// The words themselves.
    Inline(Vec<String>),
    /// A list of the catalog, as `words:NAME@LABEL`.
    Named(String),
}

/// How loosely text is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// Not at all: as written.
    Exact,
    /// Width, case, accents, look-alikes and hidden characters do not count.
    #[default]
    Plain,
    /// Nor do digits for letters (`l33t`), nor hiragana or katakana.
    Loose,
}

/// What looks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Patterns, words and counts.
    Rules,
    /// A linear classifier, in place.
    Linear,
    /// A classifier over embeddings: asked for.
    Embedding,
    /// A model that reads: asked for.
    Judge,
}

/// What is done about a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The text ends before it.
    Block {},
    /// A placeholder stands for it.
    Redact {
        /// Whether the conversation's vault keeps what the placeholder stands for.
        #[serde(default, skip_serializing_if = "is_false")]
        reversible: bool,
    },
    /// Another text stands for it.
    Replace {
        /// The text.
        with: String,
    },
    /// The model is asked to answer again. Holds the whole answer.
    Rewrite {
        /// What the model is told; a sentence about the finding when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instruction: Option<String>,
    },
    /// It is written down.
    Flag {},
}

/// What holds if a tier cannot answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// As if nothing had been found, and written down.
    #[default]
    Open,
    /// As if something had been found.
    Closed,
}

impl Policy {
    /// The word lists that it names, each with the place of its rule.
    pub fn named_lists(&self) -> impl Iterator<Item = (usize, &str)> {
        let rules = self.rules.iter().enumerate();
        rules.filter_map(|(at, rule)| match &rule.check {
            Check::Words {
                list: WordList::Named(name),
                ..
            } => Some((at, name.as_str())),
            _ => None,
        })
    }

    /// Reads a document and says where it is wrong, as in `rules[2].check: …`.
    ///
    /// # Errors
    /// Every part that has not the shape of a policy.
    pub fn read(document: &Value) -> Result<Policy, Vec<Problem>> {
        let whole = serde_json::from_value::<Policy>(document.clone());
        let error = match whole {
            Ok(policy) => return Ok(policy),
            Err(error) => error,
        };
        let mut problems = Vec::new();
        let rules = document.get("rules").and_then(Value::as_array);
        for (at, rule) in rules.into_iter().flatten().enumerate() {
            read_rule(at, rule, &mut problems);
        }
        if problems.is_empty() {
            problems.push(Problem::new("", error.to_string()));
        }
        Err(problems)
    }
}

fn read_rule(at: usize, rule: &Value, problems: &mut Vec<Problem>) {
    let before = problems.len();
    let mut part = |name: &str, error: Option<serde_json::Error>| {
        if let Some(error) = error {
            problems.push(Problem::new(
                &format!("rules[{at}].{name}"),
                error.to_string(),
            ));
        }
    };
    if let Some(check) = rule.get("check") {
        part(
            "check",
            serde_json::from_value::<Check>(check.clone()).err(),
        );
    }
    if let Some(action) = rule.get("action") {
        part(
            "action",
            serde_json::from_value::<Action>(action.clone()).err(),
        );
    }
    if problems.len() == before
        && let Err(error) = serde_json::from_value::<Rule>(rule.clone())
    {
        problems.push(Problem::new(&format!("rules[{at}]"), error.to_string()));
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn exact() -> Fold {
    Fold::Exact
}

fn is_exact(value: &Fold) -> bool {
    *value == Fold::Exact
}

const LEAK_CHARS: u32 = 40;
const LOOP_CHARS: u32 = 200;
const JUDGE_CHARS: u32 = 2_000;

fn leak_chars() -> u32 {
    LEAK_CHARS
}

fn is_leak_chars(value: &u32) -> bool {
    *value == LEAK_CHARS
}

fn loop_chars() -> u32 {
    LOOP_CHARS
}

fn is_loop_chars(value: &u32) -> bool {
    *value == LOOP_CHARS
}

fn judge_chars() -> u32 {
    JUDGE_CHARS
}

fn is_judge_chars(value: &u32) -> bool {
    *value == JUDGE_CHARS
}
