//! What is asked for: a prompt, data, what gives the scores, who reflects, and how far to go.
//!
//! Checked completely when an improvement starts, each problem with its place. References
//! are followed then, and pinned.

use std::collections::{BTreeMap, HashSet};

use db::{Problem, Reference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::evaluations::{EvaluatorUse, SuiteDocument};
use crate::evaluators::Problems;

const MOST_MINIBATCH: u32 = 20;
const MOST_PATIENCE: u32 = 100;
const MOST_CALLS: u64 = 1_000_000;
const MOST_ROWS: u64 = 2000;
const GUIDANCE_CHARS: usize = 4000;
/// What the candidate is called where the calling code wants a name.
pub(super) const CANDIDATE: &str = "candidate";

/// An improvement of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImproveDocument {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The prompt to begin with: `prompt:NAME@SELECTOR`. What is found becomes versions of NAME.
    pub prompt: String,
    /// The model that answers; the prompt's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The inputs of the prompt, as expressions over `example`. When absent an input that is an
    /// object gives its fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Fields of the answering call: `temperature`, `max_tokens` …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// The data: `dataset:NAME@SELECTOR`.
    pub dataset: String,
    /// The names of the dataset's splits. When absent the examples are split by `shares`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<Splits>,
    /// How the examples are split where `splits` does not say it: weights. Examples that are nearly
    /// the same stay together.
    #[serde(default)]
    pub shares: Shares,
    /// The most examples of each split that are used, drawn with the seed.
    #[serde(default)]
    pub limits: RowLimits,
    /// What gives the scores.
    pub evaluators: Vec<EvaluatorUse>,
    /// By evaluator, how much it counts; 1 when absent, 0 to watch it only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
    /// The model that reads failing examples and writes new texts.
    pub reflector: String,
    /// Fields of the reflecting call.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub reflector_parameters: Map<String, Value>,
    /// What the reflecting model should keep in mind: style, length, what must not change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub guidance: String,
    /// How many training examples a new text is written from and tried on first.
    #[serde(default = "default_minibatch")]
    pub minibatch: u32,
    /// The search ends after so many tries in a row that brought nothing.
    #[serde(default = "default_patience")]
    pub patience: u32,
    /// Whether two texts that are good at different examples are merged.
    #[serde(default = "yes")]
    pub merge: bool,
    /// The most calls that may be made, the final comparison and the judges' calls among them.
    #[serde(default = "default_calls")]
    pub budget_calls: u64,
    /// What may be spent, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// For everything that is drawn at random.
    #[serde(default)]
    pub seed: u64,
    /// How many calls run at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How often a call is tried before its answer counts as an error.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// The metadata field whose examples belong together: they are not independent in the final
    /// comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_by: Option<String>,
    /// The largest difference of the final comparison that nobody would act on.
    #[serde(default)]
    pub margin: f64,
}

/// Splits of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// What the reflecting model is shown.
    pub train: String,
    /// What decides which text is better during the search.
    pub selection: String,
    /// What the search never sees: the final number is of this one.
    pub held_out: String,
}

/// Shares of a split that is made here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// What the reflecting model is shown.
    pub train: f64,
    /// What decides during the search.
    pub selection: f64,
    /// What the search never sees.
    pub held_out: f64,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            train: 0.4,
            selection: 0.3,
            held_out: 0.3,
        }
    }
}

/// The most examples of each split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RowLimits {
    /// Of training.
    pub train: u64,
    /// Of selection: each accepted text is scored on all of these.
    pub selection: u64,
    /// Of what is held out.
    pub held_out: u64,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self {
            train: 300,
            selection: 50,
            held_out: 200,
        }
    }
}

fn default_minibatch() -> u32 {
    3
}

fn default_patience() -> u32 {
    8
}

fn default_calls() -> u64 {
    1000
}

fn default_concurrency() -> u32 {
    4
}

fn default_attempts() -> u32 {
    3
}

fn yes() -> bool {
    true
}

impl ImproveDocument {
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

    /// The same candidate, data and evaluators as a suite says them: what the calling code of
    /// evaluations is given.
    ///
    /// # Errors
    /// What is wrong with them, at their places in this document.
    pub(super) fn suite(&self, prompt: Value) -> Result<SuiteDocument, Vec<Problem>> {
        let mut candidate = json!({
            "name": CANDIDATE, "prompt": prompt, "variables": self.variables, "parameters": self.parameters,
        });
        if let Some(model) = &self.model {
            candidate["model"] = json!(model);
        }
        let mut suite = json!({
            "dataset": self.dataset, "candidates": [candidate], "evaluators": self.evaluators,
            "concurrency": self.concurrency, "attempts": self.attempts, "seed": self.seed, "cache": false,
        });
        if let Some(budget) = self.budget_usd {
            suite["budget_usd"] = json!(budget);
        }
        SuiteDocument::parse(&suite).map_err(|problems| {
            let own = problems.into_iter().map(|problem| {
                let path = problem.path.replace("/candidates/0/", "/");
                Problem::new(path, problem.message)
            });
            own.collect()
        })
    }

    /// How much an evaluator counts.
    pub(super) fn weight(&self, evaluator: &str) -> f64 {
        self.weights.get(evaluator).copied().unwrap_or(1.0)
    }

    fn check(&self, problems: &mut Problems) {
        match Reference::parse_at("/prompt", &self.prompt) {
            Ok(reference) if reference.kind == crate::prompts::KIND => {}
            Ok(_) => problems.add(
                "/prompt",
                "this is a reference to a prompt: prompt:NAME@SELECTOR",
            ),
            Err(problem) => problems.0.push(problem),
        }
        // Data, candidate and evaluators have the rules of a suite.
        if let Err(found) = self.suite(json!("prompt:p@latest")) {
            problems.0.extend(found);
        }
        self.check_splits(problems);
        self.check_weights(problems);
        self.check_numbers(problems);
        if self.reflector.trim().is_empty() {
            problems.add("/reflector", "name the model that reflects");
        }
        if self.guidance.chars().count() > GUIDANCE_CHARS {
            let message = format!("at most {GUIDANCE_CHARS} characters");
            problems.add("/guidance", message);
        }
        for name in [
            "model",
            "messages",
            "stream",
            "n",
            "response_format",
            "meguri",
        ] {
            if self.reflector_parameters.contains_key(name) {
                let message = "the improvement sets this field itself";
                problems.add(format!("/reflector_parameters/{name}"), message);
            }
        }
    }

    fn check_splits(&self, problems: &mut Problems) {
        if let Some(splits) = &self.splits {
            let names = [&splits.train, &splits.selection, &splits.held_out];
            let different: HashSet<&String> = names.into_iter().collect();
            if different.len() < names.len() {
                let message = "training, selection and what is held out are three different splits";
                problems.add("/splits", message);
            }
        }
        let Shares {
            train,
            selection,
            held_out,
        } = self.shares;
        for (field, share) in [
            ("train", train),
            ("selection", selection),
            ("held_out", held_out),
        ] {
            if !(share.is_finite() && share > 0.0) {
                problems.add(format!("/shares/{field}"), "a share is a number above 0");
            }
        }
        let RowLimits {
            train,
            selection,
            held_out,
        } = self.limits;
        for (field, limit) in [
            ("train", train),
            ("selection", selection),
            ("held_out", held_out),
        ] {
            if !(1..=MOST_ROWS).contains(&limit) {
                let message = format!("this is a number from 1 to {MOST_ROWS}");
                problems.add(format!("/limits/{field}"), message);
            }
        }
    }

    fn check_weights(&self, problems: &mut Problems) {
        for (name, weight) in &self.weights {
            let at = format!("/weights/{name}");
            if !self.evaluators.iter().any(|used| used.name() == name) {
                problems.add(at, format!("there is no evaluator {name:?}"));
            } else if !(weight.is_finite() && *weight >= 0.0) {
                problems.add(at, "a weight is a number from 0");
            }
        }
        if !self.evaluators.is_empty()
            && self
                .evaluators
                .iter()
                .all(|used| self.weight(used.name()) == 0.0)
        {
            problems.add("/weights", "at least one evaluator must count");
        }
    }

    fn check_numbers(&self, problems: &mut Problems) {
        if !(1..=MOST_MINIBATCH).contains(&self.minibatch) {
            let message = format!("this is a number from 1 to {MOST_MINIBATCH}");
            problems.add("/minibatch", message);
        }
        if !(1..=MOST_PATIENCE).contains(&self.patience) {
            let message = format!("this is a number from 1 to {MOST_PATIENCE}");
            problems.add("/patience", message);
        }
        if !(1..=MOST_CALLS).contains(&self.budget_calls) {
            let message = format!("this is a number from 1 to {MOST_CALLS}");
            problems.add("/budget_calls", message);
        }
        if !(self.margin.is_finite() && self.margin >= 0.0) {
            problems.add("/margin", "a margin is 0 or more");
        }
    }
}
