//! The document of a live evaluation: which traces, how many of them, by what, at what cost.
//!
//! Checked completely when it is saved, each problem with its place. The evaluator is a
//! reference that is followed again and again, so that moving a label changes the
//! instrument; scores bear its digest.

use db::catalog::Reference;
use db::{Problem, Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use telemetry::{Field, Filter};

use crate::evaluators::Problems;

const NAME_CHARS: usize = 100;
const MOST_PER_HOUR: u32 = 100_000;
const MOST_USD: f64 = 1_000_000.0;

/// An evaluator on live traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveDocument {
    /// What the people who read the scores should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What gives the scores: `evaluator:NAME@SELECTOR`.
    pub evaluator: String,
    /// The name of the scores on the traces.
    pub score: String,
    /// Which traces, in the language of the trace list's filter; all of them when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filter: String,
    /// The share of these traces that is evaluated, 0 to 1.
    #[serde(default = "all")]
    pub sample: f64,
    /// The most traces of any sixty minutes.
    #[serde(default = "default_per_hour")]
    pub max_per_hour: u32,
    /// What the evaluator's calls of any 24 hours may cost, in US dollars. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_day: Option<f64>,
    /// Whether it works.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn all() -> f64 {
    1.0
}

fn default_per_hour() -> u32 {
    100
}

fn yes() -> bool {
    true
}

impl LiveDocument {
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

    /// What it refers to.
    pub fn references(&self) -> Vec<Reference> {
        Reference::parse_at("/evaluator", &self.evaluator)
            .into_iter()
            .collect()
    }

    /// The evaluator's name and which version of it.
    pub fn evaluator(&self) -> Option<(db::Name, Selector)> {
        let reference = Reference::parse_at("/evaluator", &self.evaluator).ok()?;
        Some((reference.name, reference.selector))
    }

    /// Which traces.
    pub fn filter(&self) -> Filter {
        Filter::parse(&self.filter).unwrap_or_default()
    }

    fn check(&self, problems: &mut Problems) {
        match Reference::parse_at("/evaluator", &self.evaluator) {
            Err(problem) => problems.add(problem.path, problem.message),
            Ok(reference) if reference.kind != crate::evaluators::KIND => {
                problems.add(
                    "/evaluator",
                    "an evaluator is named evaluator:NAME@SELECTOR",
                );
            }
            Ok(_) => {}
        }
        self.check_score(problems);
        self.check_filter(problems);
        if !(0.0..=1.0).contains(&self.sample) {
            problems.add("/sample", "a sample is a share, from 0 to 1");
        }
        if !(1..=MOST_PER_HOUR).contains(&self.max_per_hour) {
            let message = format!("the limit of an hour is 1 to {MOST_PER_HOUR} traces");
            problems.add("/max_per_hour", message);
        }
        let budget = self.budget_usd_per_day;
        if budget.is_some_and(|usd| !usd.is_finite() || usd <= 0.0 || usd > MOST_USD) {
            problems.add("/budget_usd_per_day", "a budget is an amount above 0");
        }
    }

    fn check_score(&self, problems: &mut Problems) {
        let name = self.score.as_str();
        let chars = name.chars().count();
        let clean = !name.chars().any(base::text::is_deceptive) && name.trim() == name;
        if chars == 0 || chars > NAME_CHARS || !clean || name.contains(['\n', '\t']) {
            let message = format!(
                "a score's name has 1 to {NAME_CHARS} visible characters and no space at its ends"
            );
            problems.add("/score", message);
        } else if name == crate::scores::THUMBS {
            problems.add("/score", "thumbs are given by people");
        }
    }

    fn check_filter(&self, problems: &mut Problems) {
        let filter = match Filter::parse(&self.filter) {
            Ok(filter) => filter,
            Err(error) => {
                problems.add("/filter", error.to_string());
                return;
            }
        };
        let of_score = |field: &Field| matches!(field, Field::Score(_));
        if filter.fields().iter().any(of_score) {
            problems.add(
                "/filter",
                "a trace is looked at when it is stored, before anybody can have scored it",
            );
        }
    }
}
