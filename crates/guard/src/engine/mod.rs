//! The engine: compiles a policy once, then runs streams over it.
//!
//! | file | owns |
//! |---|---|
//! | `plan.rs` | from a policy to what runs; what is wrong with a policy |
//! | `stream.rs` | one text: order of finds, edits, questions, release |
//! | `layer.rs` | a text and its readings, down to what was decoded from what was decoded |
//! | `cluster.rs`, `fold.rs`, `spans.rs` | readings: cuts, foldings, the way back |
//! | `decode.rs`, `arguments.rs` | base64 and its like; JSON of tool calls |
//! | `scan.rs`, `pattern.rs` | the anchored scanner; what patterns may be |
//! | `addressed.rs` | orders to the machine in text that is data |
//! | `sentences.rs`, `languages.rs`, `gibberish.rs` | passages, and what is judged in place |
//! | `evidence.rs`, `claims.rs` | what an answer may stand on; sentences that claim nothing |
//! | `loops.rs`, `leak.rs`, `schema.rs`, `repair.rs` | circles, the system prompt, JSON |

mod addressed;
mod arguments;
mod claims;
mod cluster;
mod decode;
mod evidence;
mod fold;
mod gibberish;
mod languages;
mod layer;
mod leak;
mod loops;
mod pattern;
mod plan;
mod repair;
mod scan;
mod schema;
mod sentences;
mod spans;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use evidence::{Evidence, Passage, Told};
pub use leak::PromptIndex;
pub use stream::Stream;

use crate::decide::{Answer, Decision, Outcome, Scanned, Step};
use crate::policy::{Fold, Point, Policy};

/// How much text before a position is kept for what looks back: 64 characters of any script.
const CONTEXT_BYTES: usize = 256;
/// Forgetting is done in steps of this much, because it moves what is kept.
const SLACK_BYTES: usize = 4_096;

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

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.message)
    }
}

/// What a policy refers to by name.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Word lists, by what policies call them.
    pub lists: BTreeMap<String, List>,
    /// Lists that policies may name and that cannot be had now: their rules' `on_failure` decides.
    /// One that is in neither is a problem of the policy that names it.
    pub lost: BTreeSet<String>,
    /// Linear classifiers: `injection` and `toxicity`.
    pub scorers: BTreeMap<String, Scorer>,
}

/// Words that are kept outside of policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    /// The words.
    pub words: Vec<String>,
    /// How loosely they are compared; as the rule says when not given.
    pub fold: Option<Fold>,
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
            .finish_non_exhaustive()
    }
}

/// Gives the placeholder for a label and a value, the same for the same, and keeps which stands
/// for which; none when the vault is full.
pub type Pseudonyms = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// What a scan knows beside the text.
#[derive(Clone, Default)]
pub struct Context {
    /// The system prompt, for `prompt_leak`. Without one that check has nothing to find.
    pub system: Option<Arc<PromptIndex>>,
    /// Marks that were hidden in the prompt, for `canary`. Without one that check has nothing to
    /// find.
    pub canaries: Vec<String>,
    /// The conversation's vault, for reversible redaction. Without one, placeholders are numbered
    /// within the text and nothing is kept.
    pub pseudonyms: Option<Pseudonyms>,
    /// What the model was shown, for `grounded`. Without any, each rule's `on_failure` decides.
    pub evidence: Option<Arc<Evidence>>,
    /// The text is no answer: what a model thinks, or says instead of one. It is not held to
    /// evidence.
    pub is_aside: bool,
}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Context").finish_non_exhaustive()
    }
}

/// A policy that was checked and is ready to run. Shared by all streams.
#[derive(Debug)]
pub struct Compiled {
    rules: Vec<plan::RuleFacts>,
    points: BTreeMap<Point, Arc<plan::Plan>>,
}

impl Compiled {
    /// Checks and prepares a policy.
    ///
    /// # Errors
    /// Every problem that it has, with its place.
    pub fn new(policy: &Policy, resources: &Resources) -> Result<Compiled, Vec<Problem>> {
        plan::compile(policy, resources)
    }

    /// Whether any rule looks at this point.
    pub fn looks_at(&self, point: Point) -> bool {
        self.points.contains_key(&point)
    }

    /// Whether nothing leaves a stream at this point before its end: a rule asks for a rewrite or
    /// for JSON.
    pub fn holds_all(&self, point: Point) -> bool {
        self.points.get(&point).is_some_and(|plan| plan.holds_all)
    }

    /// Whether a rule at this point may ask for another answer.
    pub fn may_rewrite(&self, point: Point) -> bool {
        self.points.get(&point).is_some_and(|plan| plan.rewrites)
    }

    /// Whether a rule looks for passages of the system prompt: without one the host need not
    /// prepare it.
    pub fn looks_for_leaks(&self) -> bool {
        self.points.values().any(|plan| !plan.leaks.is_empty())
    }

    /// Whether a rule looks for marks: without one the host need not hide any.
    pub fn looks_for_canaries(&self) -> bool {
        self.points.values().any(|plan| !plan.canaries.is_empty())
    }

    /// Whether a rule at this point holds the text to what the model was shown: without one the
    /// host need not gather that.
    pub fn holds_to_evidence(&self, point: Point) -> bool {
        let plan = self.points.get(&point);
        plan.is_some_and(|plan| plan.holds_to_evidence)
    }

    /// A whole text. Tiers that would have to be asked count as failed, each by its rule's
    /// `on_failure`: hosts that have them use a stream.
    pub fn scan(self: &Arc<Self>, point: Point, text: &str, context: &Context) -> Scanned {
        let mut stream = self.stream(point, context.clone());
        let mut whole = Step::default();
        let mut asked = Vec::new();
        for step in [stream.push(text), stream.finish()] {
            asked.extend(join(&mut whole, step));
        }
        while let Some(id) = asked.pop() {
            let failed = Answer::Failed("there is no model to ask here".to_owned());
            let step = stream.answer(id, failed);
            asked.extend(join(&mut whole, step));
        }
        Scanned {
            decision: decision(&whole),
            text: whole.release,
            findings: whole.findings,
        }
    }

    /// A text that comes in parts.
    pub fn stream(self: &Arc<Self>, point: Point, context: Context) -> Stream {
        Stream::new(self.clone(), point, context)
    }
}

impl Scanned {
    /// What the steps of a stream come to, in the order in which it gave them.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut whole = Step::default();
        for step in steps {
            join(&mut whole, step);
        }
        Self {
            decision: decision(&whole),
            text: whole.release,
            findings: whole.findings,
        }
    }
}

/// Adds a step to those before it; what it asks.
fn join(whole: &mut Step, step: Step) -> Vec<crate::QuestionId> {
    whole.release.push_str(&step.release);
    whole.findings.extend(step.findings);
    whole.ended = whole.ended.take().or(step.ended);
    whole.done |= step.done;
    step.ask.iter().map(|question| question.id).collect()
}

fn decision(whole: &Step) -> Decision {
    let edited = |outcome: Outcome| {
        matches!(
            outcome,
            Outcome::Redacted | Outcome::Replaced | Outcome::Repaired
        )
    };
    match &whole.ended {
        Some(ended) if ended.rewrite.is_some() => Decision::Rewrite(ended.clone()),
        Some(ended) => Decision::Blocked(ended.clone()),
        None if whole.findings.iter().any(|found| edited(found.outcome)) => Decision::Edited,
        None => Decision::Pass,
    }
}
