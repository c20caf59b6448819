//! What comes out of a scan: findings, questions to model tiers, and the decision. The words
//! that the gateway, the bench and the pages share; how they come about is `engine/`.

use serde::Serialize;

use crate::engine::Passage;
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
    /// How the text stands to what the model was shown, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Grounds>,
    /// What was done.
    pub outcome: Outcome,
}

/// How a sentence stands to the passages that it was held to: places and numbers, never texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grounds {
    /// What holds between them.
    pub relation: Relation,
    /// The passage that the verdict relies on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cited: Option<Cited>,
    /// How many passages the judge was shown.
    pub shown: usize,
}

impl Grounds {
    /// The same in words, which say where and never what.
    pub(crate) fn in_words(&self, is_cut: bool) -> String {
        let cited = match &self.cited {
            Some(cited) => format!(
                "passage {} (`{}`, bytes {} to {})",
                cited.passage, cited.field, cited.start, cited.end
            ),
            None => "no passage".to_owned(),
        };
        let rest = match is_cut {
            true => ", and there was more than could be read",
            false => "",
        };
        match self.relation {
            Relation::Entailed => format!("follows from {cited}"),
            Relation::Contradicted => format!("is contradicted by {cited}"),
            Relation::NotMentioned => {
                let shown = self.shown;
                format!("is mentioned in none of {shown} passages that were read{rest}")
            }
            Relation::NoClaim => "claims nothing".to_owned(),
        }
    }
}

/// A passage of what the model was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cited {
    /// Its number among the passages that count for the rule, from 1 on.
    pub passage: usize,
    /// The text that it is of, as in `messages[2].content`.
    pub field: String,
    /// Its first byte there.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

/// What holds between a sentence and what a model was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It follows from a passage.
    Entailed,
    /// A passage says otherwise.
    Contradicted,
    /// It claims what no passage says or denies.
    NotMentioned,
    /// It claims nothing.
    NoClaim,
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
    /// Where in `text` the passage in question begins.
    pub at: usize,
    /// What the passage is held to, for [`Subject::Grounded`]; never empty there.
    pub evidence: Vec<Passage>,
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
    /// Whether the evidence bears it out: answered with [`Answer::Held`].
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
    /// How it stands to the evidence.
    Held(Held),
    /// It could not say, and why: the rule's `on_failure` decides, and it is written down.
    Failed(String),
}

/// A judge's verdict on a sentence and the passages that it was shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// What holds between them.
    pub relation: Relation,
    /// The number of the passage that this relies on. One that was not shown makes the verdict
    /// none, as does its absence where a passage is said to speak.
    pub passage: Option<usize>,
    /// How sure the judge is, 0 to 1.
    pub sure: f32,
}

impl Held {
    /// What the verdict relies on, among the passages that were shown.
    ///
    /// # Errors
    /// It relies on nothing that was shown.
    pub(crate) fn grounds(&self, shown: &[Passage]) -> Result<Grounds, String> {
        let number = match self.relation {
            Relation::Entailed | Relation::Contradicted => self.passage,
            Relation::NotMentioned | Relation::NoClaim => None,
        };
        let passage = shown.iter().find(|it| Some(it.number) == number);
        let cites = matches!(self.relation, Relation::Entailed | Relation::Contradicted);
        if cites && passage.is_none() {
            return Err("the judge relies on a passage that it was not shown".to_owned());
        }
        Ok(Grounds {
            relation: self.relation,
            cited: passage.map(|it| Cited {
                passage: it.number,
                field: it.field.to_string(),
                start: it.start,
                end: it.end,
            }),
            shown: shown.len(),
        })
    }

    /// How much it is what a rule looks for. The bands do not touch, so that a threshold can tell
    /// what is contradicted from what is not mentioned.
    pub(crate) fn score(&self) -> f32 {
        let sure = self.sure.clamp(0.0, 1.0);
        match self.relation {
            Relation::NoClaim => 0.0,
            Relation::Entailed => 0.49 * (1.0 - sure),
            Relation::NotMentioned => 0.5 + 0.29 * sure,
            Relation::Contradicted => 0.8 + 0.2 * sure,
        }
    }
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
