//! What a choice is asked, and the document that it ends in.
//!
//! The task is checked completely when a choice is started. The document of kind
//! `choice` is made by the work alone: task, rounds, figures and the evaluations that
//! stand behind them, so that whoever cites it cites what was measured.

use std::collections::{BTreeMap, HashSet};

use base::Digest;
use db::{Kind, Problem, Reference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::properties::{Unmet, Wanted};
use crate::evaluations::{Candidate, EvaluatorUse, PromptUse, Sample, SuiteDocument};
use crate::evaluators::Problems;

/// The catalog's word for choices.
pub const KIND: &str = "choice";
const MOST_MODELS: usize = 20;
const MOST_FINALISTS: u32 = 5;
const TEXT_CHARS: usize = 4000;
/// With fewer examples a comparison shows nothing.
pub(super) const LEAST_SAMPLE: u64 = 10;

/// What a choice is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceTask {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The data: `dataset:NAME@SELECTOR`.
    pub dataset: String,
    /// Only the examples of this split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The metadata field whose examples belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_by: Option<String>,
    /// The prompt that every model gets: `prompt:NAME@SELECTOR`, or a prompt's document. The
    /// example's input alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptUse>,
    /// The prompt's inputs, as expressions over `example`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Fields of the call: `temperature`, `max_tokens` …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// The models to choose from, as callers write them.
    pub models: Vec<String>,
    /// What gives the scores.
    pub evaluators: Vec<EvaluatorUse>,
    /// What each evaluator counts in quality, by its name; all the same when absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quality: BTreeMap<String, f64>,
    /// What matters how much.
    #[serde(default)]
    pub weights: Weights,
    /// What must not be broken.
    #[serde(default, skip_serializing_if = "ChoiceLimits::is_empty")]
    pub limits: ChoiceLimits,
    /// How many models are left for the full data.
    #[serde(default = "default_finalists")]
    pub finalists: u32,
    /// How many examples the first round takes.
    #[serde(default = "default_first_sample")]
    pub first_sample: u64,
    /// By what the sample grows from round to round.
    #[serde(default = "default_growth")]
    pub growth: u32,
    /// The chance that a model which belongs to the finalists is dropped by mistake.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// How many calls run at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How often a call is tried before its answer counts as an error.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// What all rounds together may spend, in US dollars; the choice pauses there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// For the samples and for resampling.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seed: u64,
}

fn default_finalists() -> u32 {
    3
}

fn default_first_sample() -> u64 {
    20
}

fn default_growth() -> u32 {
    2
}

fn default_alpha() -> f64 {
    0.05
}

fn default_concurrency() -> u32 {
    8
}

fn default_attempts() -> u32 {
    3
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What matters how much: any numbers from 0 up, not all 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of quality.
    pub quality: f64,
    /// Of speed: the 95th percentile of latency.
    pub speed: f64,
    /// Of cost.
    pub cost: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            quality: 60.0,
            speed: 20.0,
            cost: 20.0,
        }
    }
}

impl Weights {
    /// As the statistics take them.
    pub(super) fn priorities(self) -> stats::Priorities {
        stats::Priorities {
            quality: self.quality,
            latency: self.speed,
            cost: self.cost,
        }
    }

    fn is_good(self) -> bool {
        let all = [self.quality, self.speed, self.cost];
        let sum: f64 = all.iter().sum();
        all.iter()
            .all(|weight| weight.is_finite() && *weight >= 0.0)
            && sum > 0.0
            && sum <= 1e9
    }
}

/// What a chosen model must not break.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChoiceLimits {
    /// 95 of 100 answers come within this time, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_latency_ms: Option<f64>,
    /// A thousand answers cost at most this much, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_1000: Option<f64>,
    /// The quality is at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// What its properties must be.
    #[serde(skip_serializing_if = "is_any")]
    pub properties: Wanted,
}

fn is_any(wanted: &Wanted) -> bool {
    *wanted == Wanted::default()
}

impl ChoiceLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the statistics take them.
    pub(super) fn limits(&self) -> stats::Limits {
        stats::Limits {
            least_quality: self.quality,
            most_p95_latency_ms: self.p95_latency_ms,
            // Dollars per 1,000 answers are a million nano-dollars per answer.
            most_cost_nanousd: self.usd_per_1000.map(|usd| usd * 1e6),
        }
    }
}

impl ChoiceTask {
    /// Reads a task and checks all that can be known without the database.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let task = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Problems::default();
        task.check(&mut problems);
        problems.into_result(task)
    }

    /// The one way to write it.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn check(&self, problems: &mut Problems) {
        if self.description.chars().count() > TEXT_CHARS {
            problems.add("/description", "this is too long");
        }
        if !(2..=MOST_MODELS).contains(&self.models.len()) {
            let message = format!("a choice is made from 2 to {MOST_MODELS} models");
            problems.add("/models", message);
        }
        let mut seen = HashSet::new();
        for (index, model) in self.models.iter().enumerate() {
            let whole = model
                .split_once('/')
                .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
            if !whole {
                problems.add(
                    format!("/models/{index}"),
                    "a model is written PROVIDER/MODEL",
                );
            } else if !seen.insert(model) {
                problems.add(
                    format!("/models/{index}"),
                    format!("{model} is there already"),
                );
            }
        }
        if !self.weights.is_good() {
            problems.add("/weights", "weights are 0 or more, and not all of them 0");
        }
        self.check_quality(problems);
        self.check_limits(problems);
        self.check_numbers(problems);
        // Everything else is as in a suite, and said by it.
        if self.models.len() <= MOST_MODELS && !self.models.is_empty() {
            let suite = self.suite(&self.models, None, None).to_value();
            for problem in SuiteDocument::parse(&suite).err().into_iter().flatten() {
                let path = match problem.path.strip_prefix("/candidates/0/") {
                    Some(field) => format!("/{field}"),
                    None if problem.path.starts_with("/candidates") => continue,
                    None => problem.path,
                };
                problems.add(path, problem.message);
            }
        }
    }

    fn check_quality(&self, problems: &mut Problems) {
        let names: HashSet<&str> = self.evaluators.iter().map(EvaluatorUse::name).collect();
        for (name, weight) in &self.quality {
            let at = format!("/quality/{name}");
            if !names.contains(name.as_str()) {
                problems.add(at, format!("there is no evaluator {name:?}"));
            } else if !(weight.is_finite() && *weight >= 0.0) {
                problems.add(at, "a weight is 0 or more");
            }
        }
        if !self.quality.is_empty() && self.quality.values().sum::<f64>() <= 0.0 {
            problems.add("/quality", "one weight at least is above 0");
        }
    }

    fn check_limits(&self, problems: &mut Problems) {
        for (field, limit) in [
            ("p95_latency_ms", self.limits.p95_latency_ms),
            ("usd_per_1000", self.limits.usd_per_1000),
        ] {
            if limit.is_some_and(|limit| !(limit.is_finite() && limit > 0.0)) {
                problems.add(format!("/limits/{field}"), "a limit is a number above 0");
            }
        }
        if self.limits.quality.is_some_and(|limit| !limit.is_finite()) {
            problems.add("/limits/quality", "a limit is a number");
        }
        self.limits.properties.check("/limits/properties", problems);
    }

    fn check_numbers(&self, problems: &mut Problems) {
        if !(1..=MOST_FINALISTS).contains(&self.finalists) {
            let message = format!("this is a number from 1 to {MOST_FINALISTS}");
            problems.add("/finalists", message);
        }
        if !(LEAST_SAMPLE..=100_000).contains(&self.first_sample) {
            let message = format!("a sample has {LEAST_SAMPLE} examples or more");
            problems.add("/first_sample", message);
        }
        if !(2..=10).contains(&self.growth) {
            problems.add("/growth", "this is a number from 2 to 10");
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.2) {
            problems.add("/alpha", "this is a chance above 0 and at most 0.2");
        }
    }

    /// The suite that measures these models: on a random sample, or on everything.
    pub(super) fn suite(
        &self,
        models: &[String],
        sample: Option<u64>,
        budget_usd: Option<f64>,
    ) -> SuiteDocument {
        let candidate = |model: &String| Candidate {
            name: candidate_name(&self.models, model),
            prompt: self.prompt.clone(),
            model: Some(model.clone()),
            app: None,
            release: None,
            variables: self.variables.clone(),
            parameters: self.parameters.clone(),
        };
        SuiteDocument {
            description: self.description.clone(),
            dataset: self.dataset.clone(),
            split: self.split.clone(),
            limit: sample,
            sample: match sample {
                Some(_) => Sample::Random,
                None => Sample::First,
            },
            candidates: models.iter().map(candidate).collect(),
            evaluators: self.evaluators.clone(),
            baseline: None,
            repeats: 1,
            concurrency: self.concurrency,
            attempts: self.attempts,
            budget_usd: budget_usd.or(self.budget_usd),
            seed: self.seed,
            cluster_by: self.cluster_by.clone(),
            margin: BTreeMap::new(),
            gate: Vec::new(),
            // What one round has paid for, the next one has.
            cache: true,
        }
    }

    /// The sizes of the samples that come before the full data of this many examples.
    pub(super) fn samples(&self, examples: u64) -> Vec<u64> {
        let growth = u64::from(self.growth);
        let sizes = std::iter::successors(Some(self.first_sample), |size| {
            Some(size.saturating_mul(growth))
        });
        sizes.take_while(|size| *size < examples).collect()
    }

    /// What an evaluator counts in quality.
    pub(super) fn quality_weight(&self, evaluator: &str) -> f64 {
        match self.quality.is_empty() {
            true => 1.0,
            false => self.quality.get(evaluator).copied().unwrap_or(0.0),
        }
    }
}

/// A suite's names are short; a model's may be long. Where two would be cut to the same,
/// their place tells them apart.
fn candidate_name(models: &[String], model: &str) -> String {
    const MOST: usize = 60;
    if model.chars().count() <= MOST {
        return model.to_owned();
    }
    let place = models.iter().position(|one| one == model).unwrap_or(0) + 1;
    let end: Vec<char> = model.chars().rev().take(MOST - 6).collect();
    let end: String = end.into_iter().rev().collect();
    format!("{place} …{end}")
}

/// Why a model is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// As many others as there are finalists are shown to be better by the weights.
    Worse,
    /// Shown to be slower than the limit.
    TooSlow,
    /// Shown to be dearer than the limit.
    TooDear,
    /// Shown to have less quality than the limit.
    TooBad,
    /// Shown to fail more than one answer in twenty.
    Unreliable,
}

impl Why {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::TooSlow => "too_slow",
            Self::TooDear => "too_dear",
            Self::TooBad => "too_bad",
            Self::Unreliable => "unreliable",
        }
    }
}

/// A model that a round dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// The model.
    pub model: String,
    /// Why.
    pub why: Why,
    /// The figure that the interval bounds.
    pub figure: f64,
    /// The bound of the interval, or the p-value of "it is as good as each of those in front".
    pub bound: f64,
}

/// A model that was left out before anything was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    /// The model.
    pub model: String,
    /// The limits that its properties do not keep; what is not known is not kept.
    pub unmet: Vec<Unmet>,
}

/// What a model did in a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelFigures {
    /// The model.
    pub model: String,
    /// Its quality on the examples that all were scored on.
    pub quality: Option<f64>,
    /// The lower end of its 95 % interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// The upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// The time that half of its answers took at most, in milliseconds.
    pub p50_latency_ms: Option<f64>,
    /// The time that 95 of 100 answers took at most, in milliseconds.
    pub p95_latency_ms: Option<f64>,
    /// What a thousand answers cost, in US dollars.
    pub usd_per_1000: Option<f64>,
    /// Answers that were given.
    pub answers: u64,
    /// Answers that could not be had.
    pub errors: u64,
}

/// One round: some models on a sample, or the finalists on everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// How many examples.
    pub examples: u64,
    /// Whether these are all examples, and the models the finalists.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The models that took part.
    pub models: Vec<String>,
    /// The evaluation that measured them.
    pub evaluation: String,
    /// Whether it has ended and was judged.
    pub done: bool,
    /// Examples on which all were scored: those that comparisons are made on.
    pub compared: u64,
    /// What they did.
    pub figures: Vec<ModelFigures>,
    /// Who did not go on, and why.
    pub dropped: Vec<Dropped>,
    /// What its calls cost, in US dollars.
    pub spent_usd: f64,
}

/// How a finalist stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finalist {
    /// What it did on everything.
    pub figures: ModelFigures,
    /// The limits that it breaks: `quality`, `latency`, `cost`, `errors`.
    pub breaks: Vec<String>,
    /// Whether none within the limits is at least as good in everything and better in something.
    pub on_front: bool,
    /// One that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominated_by: Option<String>,
    /// The weighted sum, from 0 to 1; none for one that breaks a limit.
    pub utility: Option<f64>,
    /// The probability that it is the best by the weights and within the limits.
    pub probability: f64,
}

/// Where 0 and 1 lie in the weighted sum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleJson {
    /// The quality that counts 0.
    pub quality_low: f64,
    /// The quality that counts 1.
    pub quality_high: f64,
    /// The latency that counts 0, in milliseconds.
    pub p95_latency_ms: f64,
    /// The cost of a thousand answers that counts 0, in US dollars.
    pub usd_per_1000: f64,
}

/// What a choice has shown, by some weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceResult {
    /// The weights.
    pub weights: Weights,
    /// Where 0 and 1 lie.
    pub scales: ScaleJson,
    /// The finalists, the most probable first.
    pub finalists: Vec<Finalist>,
    /// The most probable one; none where nobody keeps the limits.
    pub recommended: Option<String>,
    /// Whether its probability is 95 % or more.
    pub is_clear: bool,
    /// Examples that it is made of.
    pub examples: u64,
}

/// The document that a choice ends in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceDocument {
    /// The choice that made it.
    pub choice: String,
    /// What was asked, with every reference at the version that was measured.
    pub task: ChoiceTask,
    /// The content of the dataset.
    #[schemars(with = "String")]
    pub dataset: Digest,
    /// Models that were left out by their properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
    /// What was measured.
    pub rounds: Vec<Round>,
    /// What it shows by the task's weights.
    pub result: ChoiceResult,
}

impl ChoiceDocument {
    fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        ChoiceTask::parse(&document.task.to_value()).map_err(|problems| {
            let at =
                |problem: Problem| Problem::new(format!("/task{}", problem.path), problem.message);
            problems.into_iter().map(at).collect::<Vec<_>>()
        })?;
        Ok(document)
    }
}

/// Results, as the catalog knows them: nobody writes one.
pub fn kind() -> Kind {
    Kind {
        made_by: Some("let a choice make it: /api/v1/choices"),
        normal: |content| match ChoiceDocument::parse(content) {
            Ok(document) => serde_json::to_value(document).unwrap_or_default(),
            Err(_) => content.clone(),
        },
        references: |content| {
            let task = ChoiceDocument::parse(content).map(|document| document.task);
            task.map(|task| task.references()).unwrap_or_default()
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(ChoiceDocument)),
            |content| ChoiceDocument::parse(content).map(drop),
        )
    }
}

impl ChoiceTask {
    /// What the task refers to: the dataset, the prompt, the evaluators.
    pub fn references(&self) -> Vec<Reference> {
        let one = self.models.first().cloned().into_iter().collect::<Vec<_>>();
        let renamed = |reference: Reference| {
            // A suite's first candidate is what the task calls its prompt.
            let path = reference
                .path
                .strip_prefix("/candidates/0")
                .unwrap_or(&reference.path);
            Reference {
                path: format!("/task{path}"),
                ..reference.clone()
            }
        };
        let of_suite = self.suite(&one, None, None).references();
        of_suite.into_iter().map(renamed).collect()
    }
}
