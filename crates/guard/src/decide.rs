//! What comes out of a scan: findings, questions to model tiers, and the decision. The words
//! that the gateway, the bench and the pages share; how they come about is `engine/`.

use serde::Serialize;

use crate::policy::{Point, Tier};

/// Something that a rule found, and what was done about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which rule: its place in the policy.
    pub rule: usize,
    /// Its name.
    pub rule_name: String,
    /// What found it: a detector's name, a check's, or a classifier's.
    pub detector: String,
    /// What it is called in placeholders.
    pub label: String,
    /// Which tier found it.
    pub tier: Tier,
    /// First byte of the original text, always at a character's start.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// How sure, 0 to 1.
    pub score: f32,
    /// How the text was read.
    pub view: Reading,
    /// Why, in words; never the text itself.
    pub reason: String,
    /// What was done.
    pub outcome: Outcome,
}

/// How a text was read when something was found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As it is, case included.
    Raw,
    /// NFKC, lower case, hidden characters removed, look-alikes and accents of letters folded.
    Plain,
    /// NFKC, hidden characters removed, digits of any script and kanji numerals as ASCII digits;
    /// case and separators stay.
    Digits,
    /// Plain, with digits and signs that stand for letters read as letters, and katakana as
    /// hiragana.
    Leet,
    /// Plain, with ROT13 undone.
    Rot13,
    /// What a run of base64 says.
    Base64,
    /// What a run of hexadecimal digits says.
    Hex,
    /// What a run with percent escapes says.
    Url,
    /// What characters of the Unicode tag block say.
    Tags,
}

/// What was done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The text ended before it.
    Blocked,
    /// A placeholder stands for it.
    Redacted,
    /// Another text stands for it.
    Replaced,
    /// JSON was mended.
    Repaired,
    /// The model is to answer again.
    Rewrite,
    /// Written down, nothing else.
    Flagged,
    /// A rule in shadow: nothing was done.
    Shadow,
    /// An edit that came first covers it.
    Covered,
    /// Not found at all: the tier could not answer, and the rule fails open.
    FailedOpen,
}

/// A question's identity within its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct QuestionId(pub u64);

/// Something that only a model can tell. The host asks it and brings the answer to
/// [`Stream::answer`](crate::Stream::answer), within the deadline or as a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its identity.
    pub id: QuestionId,
    /// Which rule asks.
    pub rule: usize,
    /// Its name.
    pub rule_name: String,
    /// The tier that is to answer: embedding or judge.
    pub tier: Tier,
    /// Where the text stands.
    pub point: Point,
    /// What is asked.
    pub subject: Subject,
    /// The text that it is asked of: the passage in question and the sentence before it.
    pub text: String,
    /// The passage in question, in bytes of the original text.
    pub start: usize,
    /// Its end.
    pub end: usize,
    /// How long the answer may take.
    pub deadline_ms: u32,
    /// Whether text waits for it.
    pub holds: bool,
}

/// What a question is about. The answer is a score: 1 is what the rule is to find.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// Attempts to give the model other instructions.
    Injection,
    /// Insults, threats, hate.
    Toxicity,
    /// Likeness to examples.
    Topics {
        /// What may be talked about.
        allow: Vec<String>,
        /// What may not.
        deny: Vec<String>,
    },
    /// Whether the retrieved text bears it out.
    Grounded {
        /// The model that judges, if the rule names one.
        model: Option<String>,
    },
    /// A rubric.
    Judge {
        /// In words.
        rubric: String,
        /// The model that judges, if the rule names one.
        model: Option<String>,
    },
}

/// What a model tier said.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// How much it is what the rule looks for, 0 to 1.
    Score(f32),
    /// It could not say, and why: the rule's `on_failure` decides, and it is written down.
    Failed(String),
}

/// What one push, answer or finish brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Text that may leave now.
    pub release: String,
    /// What is known now and was not before, in the order of the text.
    pub findings: Vec<Finding>,
    /// Set once, when a rule ended the text: nothing is released after it.
    pub ended: Option<Ended>,
    /// What a model is to be asked.
    pub ask: Vec<Question>,
    /// Nothing more will come: the text was finished and every question that holds is answered,
    /// or it ended.
    pub done: bool,
}

/// Why a text ended before its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// The rule that ended it.
    pub rule: usize,
    /// Its name.
    pub rule_name: String,
    /// The instruction for another attempt, if the rule asks for a rewrite instead of blocking.
    pub rewrite: Option<String>,
    /// Why, in words; never the text itself.
    pub reason: String,
}

/// What became of a whole text.
#[derive(Clone, Debug, PartialEq)]
pub struct Scanned {
    /// The text as it may go on.
    pub text: String,
    /// What was found, in the order of the text.
    pub findings: Vec<Finding>,
    /// The decision.
    pub decision: Decision,
}

/// What is to become of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It goes on as it is.
    Pass,
    /// It goes on with edits.
    Edited,
    /// It does not go on.
    Blocked(Ended),
    /// The model is asked again.
    Rewrite(Ended),
}
