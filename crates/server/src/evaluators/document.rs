//! The document of an evaluator: a metric with its parameters, or a judge with its rubric.
//!
//! Checked completely when it is saved, each problem with its place. Two
//! evaluators of one digest measure the same, so everything that changes a number
//! is in here: the rubric, the scale, the judging model, the number of samples.

use std::collections::{BTreeMap, HashSet};

use db::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bertscore::{self, BertScoreEvaluator};
use super::embedding::{self, EmbeddingEvaluator};
use super::output::OutputRule;
use super::perplexity::{self, PerplexityEvaluator};
use super::rag::{self, RagEvaluator};
use super::wasm::{self, WasmEvaluator};

/// A judge's time and money multiply with each of these.
const MOST_SAMPLES: u32 = 20;
const MOST_JURORS: usize = 9;
const MOST_CRITERIA: usize = 20;
const MOST_EXAMPLES: usize = 20;
const MOST_LABELS: usize = 26;
const TEXT_CHARS: usize = 4000;
/// Where an evaluator's credential may come from.
const CREDENTIAL: &str = "env:MEGURI_TOOL_";

/// An evaluator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EvaluatorDocument {
    /// Measures the answer's text, most often against what was expected.
    Metric(MetricEvaluator),
    /// Asks a model.
    Judge(JudgeEvaluator),
    /// Asks a program of the team's own.
    Http(HttpEvaluator),
    /// Runs a WebAssembly module of the team's own in here.
    Wasm(WasmEvaluator),
    /// Asks a model about an answer that stands on retrieved texts.
    Rag(RagEvaluator),
    /// Compares by an embedding model.
    Embedding(EmbeddingEvaluator),
    /// Compares token by token, by an encoder of this server.
    #[serde(rename = "bertscore")]
    BertScore(BertScoreEvaluator),
    /// Asks a model of this server how probable the answer is.
    Perplexity(PerplexityEvaluator),
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The larger the better.
    #[default]
    Higher,
    /// The smaller the better.
    Lower,
}

pub(super) fn is_higher(direction: &Direction) -> bool {
    *direction == Direction::Higher
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The metric's `id` and its parameters.
    pub metric: Map<String, Value>,
    /// Which part of the answer is measured: a JSON Pointer (`/answer`) into an answer that is
    /// JSON, or an expression over `answer.text`, `answer.json` and `example`; all of the text
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Which direction is good; as the metric is known when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub better: Option<Direction>,
}

/// What a judge does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JudgeMode {
    /// Gives one answer a grade on the scale.
    #[default]
    Score,
    /// Says which of two answers is better: the candidate's or the baseline's.
    Pairwise,
    /// Puts one answer into one of the labels.
    Classify,
}

/// What a judge looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// A word for it.
    pub name: String,
    /// What it means, for somebody who has never heard of the task.
    pub description: String,
}

/// The ends of a judge's scale, whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The worst grade.
    pub min: i64,
    /// The best grade.
    pub max: i64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { min: 1, max: 10 }
    }
}

impl Scale {
    /// The grades, worst first.
    pub fn grades(self) -> impl Iterator<Item = i64> {
        self.min..=self.max
    }
}

/// An answer that was judged, to show the judge what is meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeExample {
    /// What was asked.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// The answer.
    pub answer: String,
    /// Its grade, or its label.
    pub verdict: Value,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What a judge is shown beside the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// What was asked.
    Input,
    /// The answer that was expected.
    Expected,
    /// The texts that the answer should stand on.
    Context,
}

/// A judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The judging model, as callers write it: `openai/gpt-5`.
    pub model: String,
    /// What it does.
    #[serde(default)]
    pub mode: JudgeMode,
    /// What it looks at.
    pub criteria: Vec<Criterion>,
    /// The grades of the mode `score`; 1 to 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// What single grades mean: `{"1": "wrong", "10": "complete and correct"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anchors: BTreeMap<String, String>,
    /// The labels of the mode `classify`, each with the number that it counts as.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, f64>,
    /// Judged answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<JudgeExample>,
    /// What the judge is shown beside the answer.
    #[serde(default = "default_uses")]
    pub uses: Vec<Shown>,
    /// How often each judge is asked; the grades are averaged.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub samples: u32,
    /// Further models that judge beside the first: grades are averaged, labels and winners voted on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jury: Vec<String>,
    /// Lets a model judge answers of its own family. Judges prefer their own; the result says so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_same_family: bool,
    /// Fields of the call: `temperature`, `max_tokens` …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

fn default_uses() -> Vec<Shown> {
    vec![Shown::Input]
}

fn one() -> u32 {
    1
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
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl JudgeEvaluator {
    /// The grades.
    pub fn scale(&self) -> Scale {
        self.scale.unwrap_or_default()
    }

    /// Every judging model, the first one first.
    pub fn jurors(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.model.as_str()).chain(self.jury.iter().map(String::as_str))
    }
}

/// A program that is asked over HTTP: it gets the example and the answer as JSON and
/// answers `{"score": number, "reason": text}`, or `{"unscored": why}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpEvaluator {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it is asked, with POST.
    pub url: String,
    /// Where its bearer token comes from: `env:MEGURI_TOOL_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// How long it may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Which direction is good.
    #[serde(default, skip_serializing_if = "is_higher")]
    pub better: Direction,
}

fn default_timeout_ms() -> u64 {
    10_000
}

impl EvaluatorDocument {
    /// Reads a document and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Problems::default();
        match &document {
            Self::Metric(metric) => check_metric(metric, &mut problems),
            Self::Judge(judge) => check_judge(judge, &mut problems),
            Self::Http(http) => check_http(http, &mut problems),
            Self::Wasm(one) => wasm::check(one, &mut problems),
            Self::Rag(rag) => rag::check(rag, &mut problems),
            Self::Embedding(one) => embedding::check(one, &mut problems),
            Self::BertScore(one) => bertscore::check(one, &mut problems),
            Self::Perplexity(one) => perplexity::check(one, &mut problems),
        }
        problems.into_result(document)
    }

    /// The one way to write the document.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Which direction is good.
    pub fn better(&self) -> Direction {
        match self {
            Self::Metric(metric) => super::metric::better(metric),
            Self::Judge(_) | Self::Rag(_) | Self::Embedding(_) | Self::BertScore(_) => {
                Direction::Higher
            }
            Self::Perplexity(_) => Direction::Lower,
            Self::Http(http) => http.better,
            Self::Wasm(one) => one.better,
        }
    }

    /// The word for what it is.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Metric(_) => "metric",
            Self::Judge(_) => "judge",
            Self::Http(_) => "http",
            Self::Wasm(_) => "wasm",
            Self::Rag(_) => "rag",
            Self::Embedding(_) => "embedding",
            Self::BertScore(_) => "bertscore",
            Self::Perplexity(_) => "perplexity",
        }
    }

    /// What people should know of it.
    pub fn description(&self) -> &str {
        match self {
            Self::Metric(metric) => &metric.description,
            Self::Judge(judge) => &judge.description,
            Self::Http(http) => &http.description,
            Self::Wasm(one) => &one.description,
            Self::Rag(rag) => &rag.description,
            Self::Embedding(one) => &one.description,
            Self::BertScore(one) => &one.description,
            Self::Perplexity(one) => &one.description,
        }
    }

    /// What every number of it is signed with: two numbers may be compared when their
    /// signatures are equal.
    pub fn signature(&self) -> String {
        match self {
            Self::Metric(metric) => super::metric::signature(metric),
            Self::Judge(judge) => judge_signature(judge),
            Self::Http(http) => format!("http|url:{}", http.url),
            Self::Wasm(one) => one.signature(),
            Self::Rag(rag) => rag.signature(),
            Self::Embedding(one) => one.signature(),
            Self::BertScore(one) => one.signature(),
            Self::Perplexity(one) => one.signature(),
        }
    }

    /// The lowest and the highest number that it can give, if it has both.
    #[expect(clippy::cast_precision_loss, reason = "grades are 0 to 100")]
    pub fn range(&self) -> Option<(f64, f64)> {
        match self {
            Self::Metric(metric) => super::metric::range(metric),
            Self::Judge(judge) => match judge.mode {
                JudgeMode::Score => Some((judge.scale().min as f64, judge.scale().max as f64)),
                JudgeMode::Pairwise => Some((0.0, 1.0)),
                JudgeMode::Classify => {
                    let values = || judge.labels.values().copied();
                    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
                    (low < high).then_some((low, high))
                }
            },
            // Cosines may be below 0, and are on the whole scale.
            Self::Rag(rag) if rag.metric == rag::RagMetric::AnswerRelevancy => Some((-1.0, 1.0)),
            Self::Rag(_) => Some((0.0, 1.0)),
            Self::Embedding(_) => Some((-1.0, 1.0)),
            Self::BertScore(one) if one.rescale.is_none() => Some((-1.0, 1.0)),
            Self::Http(_) | Self::Wasm(_) | Self::BertScore(_) | Self::Perplexity(_) => None,
        }
    }

    /// The set of data that it needs beside the binary, as `meguri data pull` names it.
    pub fn data(&self) -> Option<&'static str> {
        match self {
            Self::Metric(metric) => super::metric::data(metric),
            _ => None,
        }
    }

    /// Whether it compares two candidates' answers.
    pub fn is_pairwise(&self) -> bool {
        matches!(self, Self::Judge(judge) if judge.mode == JudgeMode::Pairwise)
    }

    /// The models that it calls.
    pub fn models(&self) -> Vec<&str> {
        match self {
            Self::Judge(judge) => judge.jurors().collect(),
            Self::Rag(rag) => std::iter::once(rag.model.as_str())
                .chain(rag.embedding_model.as_deref())
                .collect(),
            Self::Embedding(one) => vec![&one.model],
            Self::BertScore(one) => vec![&one.model],
            Self::Perplexity(one) => vec![&one.model],
            Self::Metric(_) | Self::Http(_) | Self::Wasm(_) => Vec::new(),
        }
    }

    /// Whether a score depends on more of the dataset than its own example.
    pub fn uses_dataset(&self) -> bool {
        matches!(self, Self::BertScore(one) if one.idf)
    }

    /// The models that judge, and whether they may judge their own family.
    pub fn judges(&self) -> (Vec<&str>, bool) {
        match self {
            Self::Judge(judge) => (judge.jurors().collect(), judge.allow_same_family),
            Self::Rag(rag) => (vec![&rag.model], rag.allow_same_family),
            _ => (Vec::new(), false),
        }
    }
}

fn judge_signature(judge: &JudgeEvaluator) -> String {
    let mode = match judge.mode {
        JudgeMode::Score => format!("score:{}-{}", judge.scale().min, judge.scale().max),
        JudgeMode::Pairwise => "pairwise:both-orders".to_owned(),
        JudgeMode::Classify => {
            let labels: Vec<&str> = judge.labels.keys().map(String::as_str).collect();
            format!("classify:{}", labels.join("/"))
        }
    };
    let models: Vec<&str> = judge.jurors().collect();
    let version = super::judge::PROMPT_VERSION;
    format!(
        "judge|{mode}|model:{}|samples:{}|prompt:{version}",
        models.join("+"),
        judge.samples
    )
}

/// Problems with their places, as they are found.
#[derive(Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(path, message));
    }

    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(self.0)
        }
    }
}

fn check_metric(metric: &MetricEvaluator, problems: &mut Problems) {
    if let Err(problem) = super::metric::parse(metric) {
        problems.add(format!("/metric{}", problem.path), problem.message);
    }
    if let Some(text) = &metric.output
        && let Err(message) = OutputRule::parse(text)
    {
        problems.add("/output", message);
    }
}

fn check_judge(judge: &JudgeEvaluator, problems: &mut Problems) {
    check_models(judge, problems);
    check_rubric(judge, problems);
    match judge.mode {
        JudgeMode::Score => check_scale(judge, problems),
        JudgeMode::Classify => check_labels(judge, problems),
        JudgeMode::Pairwise => {}
    }
    if judge.mode != JudgeMode::Score && (judge.scale.is_some() || !judge.anchors.is_empty()) {
        problems.add(
            "/scale",
            "only a judge that gives grades has a scale and anchors",
        );
    }
    if judge.mode != JudgeMode::Classify && !judge.labels.is_empty() {
        problems.add("/labels", "only a judge that classifies has labels");
    }
    if !(1..=MOST_SAMPLES).contains(&judge.samples) {
        let message = format!("a judge is asked 1 to {MOST_SAMPLES} times");
        problems.add("/samples", message);
    }
}

fn check_models(judge: &JudgeEvaluator, problems: &mut Problems) {
    if judge.jury.len() >= MOST_JURORS {
        let message = format!("a jury has at most {MOST_JURORS} models with the first");
        problems.add("/jury", message);
    }
    let mut seen = HashSet::new();
    for (index, model) in judge.jurors().enumerate() {
        let at = match index {
            0 => "/model".to_owned(),
            index => format!("/jury/{}", index - 1),
        };
        if model.trim().is_empty() || !model.contains('/') {
            problems.add(at, "a model is written PROVIDER/MODEL");
        } else if !seen.insert(model) {
            problems.add(
                at,
                "this model judges already; ask it more often with \"samples\"",
            );
        }
    }
    for name in [
        "model",
        "messages",
        "response_format",
        "logprobs",
        "stream",
        "n",
    ] {
        if judge.parameters.contains_key(name) {
            problems.add(
                format!("/parameters/{name}"),
                "the judge sets this field itself",
            );
        }
    }
}

fn check_rubric(judge: &JudgeEvaluator, problems: &mut Problems) {
    if !(1..=MOST_CRITERIA).contains(&judge.criteria.len()) {
        let message = format!("a judge has 1 to {MOST_CRITERIA} criteria");
        problems.add("/criteria", message);
    }
    for (index, criterion) in judge.criteria.iter().enumerate() {
        let at = |field: &str| format!("/criteria/{index}/{field}");
        check_text(&criterion.name, at("name"), problems);
        check_text(&criterion.description, at("description"), problems);
    }
    if judge.examples.len() > MOST_EXAMPLES {
        problems.add(
            "/examples",
            format!("a judge is shown at most {MOST_EXAMPLES} examples"),
        );
    }
    for (index, example) in judge.examples.iter().enumerate() {
        let fits = match judge.mode {
            JudgeMode::Score => example
                .verdict
                .as_i64()
                .is_some_and(|grade| judge.scale().grades().any(|known| known == grade)),
            JudgeMode::Classify => example
                .verdict
                .as_str()
                .is_some_and(|label| judge.labels.contains_key(label)),
            JudgeMode::Pairwise => false,
        };
        if !fits {
            let message = match judge.mode {
                JudgeMode::Score => "the verdict of an example is a grade of the scale",
                JudgeMode::Classify => "the verdict of an example is one of the labels",
                JudgeMode::Pairwise => "a judge of pairs is shown no examples",
            };
            problems.add(format!("/examples/{index}/verdict"), message);
        }
    }
}

fn check_text(text: &str, at: String, problems: &mut Problems) {
    if text.trim().is_empty() || text.chars().count() > TEXT_CHARS {
        problems.add(
            at,
            format!("this is a text of 1 to {TEXT_CHARS} characters"),
        );
    }
}

fn check_scale(judge: &JudgeEvaluator, problems: &mut Problems) {
    let scale = judge.scale();
    if !(0..=100).contains(&scale.min) || scale.max > 100 || scale.min >= scale.max {
        problems.add(
            "/scale",
            "a scale goes from a whole number up to a larger one, 0 to 100",
        );
        return;
    }
    for (grade, meaning) in &judge.anchors {
        let at = format!("/anchors/{grade}");
        let known = grade
            .parse()
            .is_ok_and(|grade: i64| (scale.min..=scale.max).contains(&grade));
        if !known {
            problems.add(at, "an anchor says what a grade of the scale means");
        } else {
            check_text(meaning, at, problems);
        }
    }
}

fn check_labels(judge: &JudgeEvaluator, problems: &mut Problems) {
    if !(2..=MOST_LABELS).contains(&judge.labels.len()) {
        let message = format!("a judge that classifies has 2 to {MOST_LABELS} labels");
        problems.add("/labels", message);
    }
    for (label, value) in &judge.labels {
        if label.trim().is_empty() || label.chars().count() > 60 || !value.is_finite() {
            let message = "a label has a name of at most 60 characters and counts as a number";
            problems.add(format!("/labels/{label}"), message);
        }
    }
}

fn check_http(http: &HttpEvaluator, problems: &mut Problems) {
    if let Err(problem) = base::net::parse_base_url(&http.url) {
        problems.add("/url", problem.to_string());
    }
    if !(1..=120_000).contains(&http.timeout_ms) {
        problems.add("/timeout_ms", "an evaluator has 1 to 120000 ms to answer");
    }
    // Whoever may write an evaluator must not read every variable of the server with it.
    let named = http.credential.as_deref();
    let known = |reference: &str| {
        reference
            .strip_prefix(CREDENTIAL)
            .is_some_and(|name| !name.is_empty())
    };
    if named.is_some_and(|reference| !known(reference)) {
        let message = format!("a credential is a variable of the server: {CREDENTIAL}NAME");
        problems.add("/credential", message);
    }
}
