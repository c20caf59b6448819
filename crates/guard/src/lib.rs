//! Guardrails: what a policy says, what its checks find in a text, and what becomes of the
//! text. Pure functions of the text: no IO, no async, no clock. What only a model can tell is
//! asked for as data, and the caller brings the answer.
//!
//! | folder or file | owns |
//! |---|---|
//! | `policy.rs` | the document: rules, checks, actions |
//! | `detectors/` | what is worth finding: patterns and functions that decide |
//! | `engine/` | views of a text, scanning, streams |
//! | `classify/` | classifiers trained here, their trainer and figures |
//! | `bench.rs` | labelled texts in, a report per source out |
//! | `vault.rs` | which placeholder stands for which value, and putting values back |
//! | `decide.rs` | findings, questions, and what is done about them |
//!
//! One rule holds everywhere: **how a text was cut on its way here changes nothing**. A whole text
//! is a stream of one push; findings, the text that leaves and the decision follow from the text
//! alone. `tests/streaming.rs` holds this over a hundred thousand random cuts.

pub mod bench;
pub mod classify;
mod decide;
pub mod detectors;
mod engine;
mod policy;
mod vault;

pub use decide::{
    Answer, Cited, Decision, Ended, Finding, Grounds, Held, Outcome, Question, QuestionId, Reading,
    Relation, Scanned, Step, Subject,
};
pub use detectors::{BEFORE_CHARS, Candidate, Detector, Verdict};
pub use engine::{
    Compiled, Context, Evidence, List, Passage, Problem, PromptIndex, Pseudonyms, Resources,
    Scorer, Stream, Told,
};
pub use policy::{
    Action, AppliesTo, Check, Fold, OnFailure, Point, Policy, Rule, Source, Tier, WordList,
};
pub use vault::{Form, Full, Restore, Room, Vault};
