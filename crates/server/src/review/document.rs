//! The document of a review queue: what raters are asked, and by which rules items go round.
//!
//! Checked completely when it is saved, each problem with its place. What a rater may
//! answer to it is in `values.rs`.

use std::collections::HashSet;

use db::{Name, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::snapshot::Snapshot;
use crate::evaluators::Problems;

const MOST_QUESTIONS: usize = 30;
const MOST_OPTIONS: usize = 100;
const MOST_RATERS: u32 = 20;
const MOST_STEPS: f64 = 1000.0;
const NAME_CHARS: usize = 60;
const OPTION_CHARS: usize = 200;
const TEXT_BYTES: usize = 64 << 10;
const RESERVE_S: std::ops::RangeInclusive<u32> = 1..=86_400;

/// A review queue: what people are asked about its items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueDocument {
    /// What the queue is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How to judge, for the raters; Markdown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub guidelines: String,
    /// What is asked about each item.
    pub questions: Vec<Question>,
    /// How many people judge an item.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub raters: u32,
    /// The share of items that all of them judge; the others are judged by one.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub overlap: f64,
    /// Raters see what was asked and answered, and nothing of who or what answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// Marked places and what looks like personal data are replaced before a rater sees an item.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mask: bool,
    /// How long an item is kept for the rater who was given it, in seconds.
    #[serde(default = "quarter_hour", skip_serializing_if = "is_quarter_hour")]
    pub reserve_s: u32,
    /// Items on which raters differ wait for somebody who settles them.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub adjudicate: bool,
    /// The dataset that settled items become examples of: `dataset:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The question whose answer becomes the expected output there; the first correction,
    /// expected answer or choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
}

/// One question about an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Names it in labels.
    pub name: String,
    /// What kind of answer it takes.
    #[serde(rename = "type")]
    pub kind: QuestionKind,
    /// What raters read instead of the name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// What there is to choose from, or the labels of spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// The grades of a rating; 1 to 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// Whether an item cannot be labelled without it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub required: bool,
    /// The text in which spans are marked; the answer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Whether neither of a pair may be the better one.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub ties: bool,
    /// How far ratings may be apart and still count as the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// The name of the score that it gives; the question's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
}

/// What kind of answer a question takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// One of the options.
    Choice,
    /// Any of the options.
    Multi,
    /// A grade.
    Rating,
    /// A text.
    Text,
    /// Marked places in a text, each with one of the options.
    Spans,
    /// Which of two answers is better: `a`, `b` or `tie`.
    Pairwise,
    /// What should have been answered.
    Expected,
    /// The answer, corrected.
    Correction,
}

impl QuestionKind {
    /// The word of the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Choice => "choice",
            Self::Multi => "multi",
            Self::Rating => "rating",
            Self::Text => "text",
            Self::Spans => "spans",
            Self::Pairwise => "pairwise",
            Self::Expected => "expected",
            Self::Correction => "correction",
        }
    }

    /// Whether raters who answer differently disagree: remarks and marked places always differ.
    pub fn is_compared(self) -> bool {
        !matches!(self, Self::Text | Self::Spans)
    }
}

/// The grades of a rating.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// From one to the next.
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub step: f64,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            min: 1.0,
            max: 5.0,
            step: 1.0,
        }
    }
}

impl Scale {
    /// The grades, lowest first.
    pub fn grades(&self) -> Vec<f64> {
        let steps = ((self.max - self.min) / self.step + 1e-9)
            .floor()
            .clamp(0.0, MOST_STEPS);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000"
        )]
        let steps = steps as u32;
        (0..=steps)
            .map(|step| self.min + f64::from(step) * self.step)
            .collect()
    }
}

/// A text of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// What was asked.
    Input,
    /// What was answered.
    Output,
}

fn one() -> u32 {
    1
}

fn whole() -> f64 {
    1.0
}

fn quarter_hour() -> u32 {
    900
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "serde passes a reference; the default is exactly 1"
)]
fn is_whole(number: &f64) -> bool {
    *number == 1.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_quarter_hour(number: &u32) -> bool {
    *number == 900
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_true(flag: &bool) -> bool {
    *flag
}

impl QueueDocument {
    /// Reads a document and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Problems::default();
        document.check(&mut problems);
        problems.into_result(document)
    }

    /// The one way to write the document.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The question of this name.
    pub fn question(&self, name: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.name == name)
    }

    /// The dataset that settled items go to.
    pub fn dataset(&self) -> Option<Name> {
        self.into.as_deref()?.strip_prefix("dataset:")?.parse().ok()
    }

    /// The question whose answer becomes an expected output.
    pub fn gold_question(&self) -> Option<&Question> {
        if let Some(name) = &self.gold {
            return self.question(name);
        }
        let order = [
            QuestionKind::Correction,
            QuestionKind::Expected,
            QuestionKind::Choice,
        ];
        order.iter().find_map(|kind| {
            self.questions
                .iter()
                .find(|question| question.kind == *kind)
        })
    }

    /// Whether raters are asked for the expected output, which they then must not see.
    pub fn asks_expected(&self) -> bool {
        let asks = |question: &Question| question.kind == QuestionKind::Expected;
        self.questions.iter().any(asks)
    }

    fn check(&self, problems: &mut Problems) {
        if !(1..=MOST_QUESTIONS).contains(&self.questions.len()) {
            let message = format!("a queue asks 1 to {MOST_QUESTIONS} questions");
            problems.add("/questions", message);
        }
        let mut names = HashSet::new();
        for (index, question) in self.questions.iter().enumerate() {
            let at = format!("/questions/{index}");
            if !names.insert(question.name.as_str()) {
                let message = format!("there is another question {:?}", question.name);
                problems.add(format!("{at}/name"), message);
            }
            question.check(&at, problems);
        }
        for (at, text) in [
            ("/description", &self.description),
            ("/guidelines", &self.guidelines),
        ] {
            if text.len() > TEXT_BYTES || text.contains('\0') {
                problems.add(at, "a text has at most 64 KiB and no NUL");
            }
        }
        if !(1..=MOST_RATERS).contains(&self.raters) {
            problems.add("/raters", format!("an item has 1 to {MOST_RATERS} raters"));
        }
        if !(0.0..=1.0).contains(&self.overlap) {
            problems.add("/overlap", "the overlap is a share, 0 to 1");
        }
        if !RESERVE_S.contains(&self.reserve_s) {
            problems.add("/reserve_s", "an item is kept for 1 second to one day");
        }
        if self.into.is_some() && self.dataset().is_none() {
            problems.add("/into", "a dataset is named as dataset:NAME");
        }
        if let Some(name) = &self.gold
            && self.question(name).is_none()
        {
            problems.add("/gold", format!("there is no question {name:?}"));
        }
    }
}

impl Question {
    /// What raters read.
    pub fn title(&self) -> &str {
        if self.label.is_empty() {
            &self.name
        } else {
            &self.label
        }
    }

    /// The grades of a rating.
    pub fn scale(&self) -> Scale {
        self.scale.unwrap_or_default()
    }

    /// The name of its score.
    pub fn score_name(&self) -> &str {
        self.score.as_deref().unwrap_or(&self.name)
    }

    /// The text in which spans are marked.
    pub fn target(&self) -> Target {
        self.target.unwrap_or(Target::Output)
    }

    /// Whether it can be answered for this item: of one answer nobody can say which of two is better.
    pub fn applies_to(&self, snapshot: &Snapshot) -> bool {
        match self.kind {
            QuestionKind::Pairwise => snapshot.answers.len() == 2,
            QuestionKind::Correction => snapshot.output.is_some(),
            QuestionKind::Spans => self.target() == Target::Input || snapshot.output.is_some(),
            QuestionKind::Choice
            | QuestionKind::Multi
            | QuestionKind::Rating
            | QuestionKind::Text
            | QuestionKind::Expected => true,
        }
    }

    fn check(&self, at: &str, problems: &mut Problems) {
        for (field, name) in [("name", Some(&self.name)), ("score", self.score.as_ref())] {
            let Some(name) = name else { continue };
            let bad = name.is_empty()
                || name.chars().count() > NAME_CHARS
                || name.trim() != name
                || name
                    .chars()
                    .any(|c| base::text::is_deceptive(c) || matches!(c, '\n' | '\t'));
            if bad {
                let message = format!(
                    "a name has 1 to {NAME_CHARS} visible characters and no space at its ends"
                );
                problems.add(format!("{at}/{field}"), message);
            }
        }
        for (field, text) in [("label", &self.label), ("help", &self.help)] {
            if text.len() > TEXT_BYTES || text.contains('\0') {
                problems.add(
                    format!("{at}/{field}"),
                    "a text has at most 64 KiB and no NUL",
                );
            }
        }
        self.check_options(at, problems);
        self.check_scale(at, problems);
        if self.target.is_some() && self.kind != QuestionKind::Spans {
            problems.add(format!("{at}/target"), "only spans have a target");
        }
        if !self.ties && self.kind != QuestionKind::Pairwise {
            problems.add(format!("{at}/ties"), "only a pairwise question has ties");
        }
    }

    fn check_options(&self, at: &str, problems: &mut Problems) {
        let least = match self.kind {
            QuestionKind::Choice => 2,
            QuestionKind::Multi | QuestionKind::Spans => 1,
            _ if self.options.is_empty() => return,
            other => {
                let message = format!("a question of the type {} has no options", other.name());
                return problems.add(format!("{at}/options"), message);
            }
        };
        if !(least..=MOST_OPTIONS).contains(&self.options.len()) {
            let message = format!("there are {least} to {MOST_OPTIONS} options");
            problems.add(format!("{at}/options"), message);
        }
        let mut seen = HashSet::new();
        for (index, option) in self.options.iter().enumerate() {
            let at = format!("{at}/options/{index}");
            let chars = option.chars().count();
            let visible = !option.chars().any(base::text::is_deceptive);
            if !(1..=OPTION_CHARS).contains(&chars) || option.trim() != option || !visible {
                let message = format!("an option has 1 to {OPTION_CHARS} visible characters");
                problems.add(&at, message);
            }
            if !seen.insert(option) {
                problems.add(&at, format!("there is another option {option:?}"));
            }
        }
    }

    fn check_scale(&self, at: &str, problems: &mut Problems) {
        let is_rating = self.kind == QuestionKind::Rating;
        if let Some(scale) = &self.scale {
            let at = format!("{at}/scale");
            let finite = [scale.min, scale.max, scale.step]
                .iter()
                .all(|n| n.is_finite());
            if !is_rating {
                problems.add(at, "only a rating has a scale");
            } else if !finite || scale.max <= scale.min || scale.step <= 0.0 {
                problems.add(at, "a scale goes up from min to max by a step above 0");
            } else if (scale.max - scale.min) / scale.step > MOST_STEPS {
                problems.add(at, "a scale has at most 1000 steps");
            }
        }
        if let Some(tolerance) = self.tolerance {
            let at = format!("{at}/tolerance");
            if !is_rating {
                problems.add(at, "only ratings can be nearly the same");
            } else if !(tolerance.is_finite() && tolerance >= 0.0) {
                problems.add(at, "a tolerance is 0 or more");
            }
        }
    }
}
