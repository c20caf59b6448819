//! The engine: compiles a policy once, then runs streams over it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::decide::{Answer, QuestionId, Scanned, Step};
use crate::policy::{Point, Policy};

/// Where a policy is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place, as in `rules[2].check.pattern`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(path: &str, message: impl Into<String>) -> Self {
        Problem {
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

/// What a policy refers to by name.
#[derive(Clone, Default)]
pub struct Resources {
    /// Word lists.
    pub lists: BTreeMap<String, Vec<String>>,
    /// Linear classifiers: `injection` and `toxicity`.
    pub scorers: BTreeMap<String, Scorer>,
}

/// A classifier that answers in place.
#[derive(Clone)]
pub struct Scorer {
    /// Stands in findings.
    pub name: String,
    /// From which score on, if the rule does not say.
    pub threshold: f32,
    /// The score of a passage, 0 to 1.
    pub score: Arc<dyn Fn(&str) -> f32 + Send + Sync>,
}

impl fmt::Debug for Scorer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Scorer")
            .field("name", &self.name)
            .finish()
    }
}

/// Gives the placeholder for a label and a value, the same for the same, and keeps which stands
/// for which; none when the vault is full.
pub type Pseudonyms = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// What a scan knows beside the text.
#[derive(Clone, Default)]
pub struct Context {
    /// The system prompt, for `prompt_leak`.
    pub system: Option<Arc<PromptIndex>>,
    /// Marks that were hidden in the prompt, for `canary`.
    pub canaries: Vec<String>,
    /// The conversation's vault, for reversible redaction. Without one, placeholders are numbered
    /// within the text and nothing is kept.
    pub pseudonyms: Option<Pseudonyms>,
}

/// A system prompt, prepared for finding passages of it. Built once per prompt, shared by streams.
#[derive(Debug)]
pub struct PromptIndex {}

impl PromptIndex {
    /// Prepares a prompt.
    pub fn new(_prompt: &str) -> Self {
        PromptIndex {}
    }
}

/// A policy that was checked and is ready to run. Shared by all streams.
#[derive(Debug)]
pub struct Compiled {}

impl Compiled {
    /// Checks and prepares a policy.
    ///
    /// # Errors
    /// Every problem that it has, with its place.
    pub fn new(_policy: &Policy, _resources: &Resources) -> Result<Compiled, Vec<Problem>> {
        Ok(Compiled {})
    }

    /// Whether any rule looks at this point.
    pub fn looks_at(&self, _point: Point) -> bool {
        false
    }

    /// A whole text. Tiers that would have to be asked count as failed: hosts that have them use
    /// a stream.
    pub fn scan(self: &Arc<Self>, _point: Point, text: &str, _context: &Context) -> Scanned {
        Scanned {
            text: text.to_owned(),
            findings: Vec::new(),
            decision: crate::Decision::Pass,
        }
    }

    /// A text that comes in parts.
    pub fn stream(self: &Arc<Self>, _point: Point, _context: Context) -> Stream {
        Stream {}
    }
}

/// A text that comes in parts: see [`Step`].
#[derive(Debug)]
pub struct Stream {}

impl Stream {
    /// The next part.
    pub fn push(&mut self, text: &str) -> Step {
        Step {
            release: text.to_owned(),
            ..Step::default()
        }
    }

    /// There is no more.
    pub fn finish(&mut self) -> Step {
        Step {
            done: true,
            ..Step::default()
        }
    }

    /// What a model tier said.
    pub fn answer(&mut self, _question: QuestionId, _answer: Answer) -> Step {
        Step::default()
    }
}
