//! The document of a suite: data, candidates, evaluators, and what must hold.
//!
//! Checked completely when it is saved, each problem with its place. References
//! are followed when an evaluation starts, and pinned then.

use std::collections::{BTreeMap, HashSet};

use base::Digest;
use db::{Problem, Reference};
use gateway::{NamedExpression, PromptDocument};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::evaluators::wasm::{self, WasmEvaluator};
use crate::evaluators::{EvaluatorDocument, Problems};

const MOST_CANDIDATES: usize = 20;
const MOST_EVALUATORS: usize = 30;
const MOST_GATES: usize = 50;
const MOST_REPEATS: u32 = 50;
const MOST_CONCURRENT: u32 = 64;
const MOST_ATTEMPTS: u32 = 10;
const NAME_CHARS: usize = 60;

/// A suite: what is evaluated, on what, by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuiteDocument {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The data: `dataset:NAME@SELECTOR`.
    pub dataset: String,
    /// Only the examples of this split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// At most this many examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Which ones, where `limit` leaves some out.
    #[serde(default, skip_serializing_if = "Sample::is_first")]
    pub sample: Sample,
    /// What is evaluated. The first is the baseline, unless another is named.
    pub candidates: Vec<Candidate>,
    /// What gives the scores.
    pub evaluators: Vec<EvaluatorUse>,
    /// The candidate that the others are compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// How often each example is answered. More than once leaves the cache out, so that
    /// the answers can differ.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repeats: u32,
    /// How many calls run at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// How often a call is tried before its answer counts as an error.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// What the evaluation may spend, in US dollars; it pauses there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<f64>,
    /// For everything that is drawn at random: resampling, and a random sample.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seed: u64,
    /// The metadata field whose examples belong together (one document, one customer): such
    /// examples are not independent, and intervals take that into account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_by: Option<String>,
    /// By evaluator, the largest difference that nobody would act on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub margin: BTreeMap<String, f64>,
    /// What must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<Gate>,
    /// Whether answers and scores of earlier evaluations are used again where nothing changed.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub cache: bool,
}

/// Which examples a limited evaluation takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sample {
    /// The first of the dataset.
    #[default]
    First,
    /// Drawn by `seed` and the examples' ids: a larger sample of the same seed holds the
    /// smaller one.
    Random,
}

impl Sample {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_first(&self) -> bool {
        *self == Self::First
    }
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn default_concurrency() -> u32 {
    4
}

fn default_attempts() -> u32 {
    3
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
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// What is evaluated: a prompt, a model, both, or an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// What it is called in results.
    pub name: String,
    /// A prompt of the catalog, `prompt:NAME@SELECTOR`, or a prompt's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptUse>,
    /// The model, as callers write it: `openai/gpt-5`. The prompt's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// An app, instead of a prompt and a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Which of the app's releases: a number, an environment or a digest; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The inputs of the prompt or app, as expressions over `example`: `{"question":
    /// "example.input.text"}`. When absent an input that is an object gives its fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Fields of the call: `temperature`, `max_tokens` …
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

/// A prompt of the catalog, or one that is written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PromptUse {
    /// `prompt:NAME@SELECTOR`.
    Reference(String),
    /// The document of a prompt.
    Inline(Map<String, Value>),
}

/// An evaluator of the catalog, or one that is written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EvaluatorUse {
    /// `evaluator:NAME@SELECTOR`; its name in results is NAME.
    Reference(String),
    /// One that is written out.
    Inline(InlineEvaluator),
}

/// An evaluator that is written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InlineEvaluator {
    /// Its name in results.
    pub name: String,
    /// The evaluator's document, or `evaluator:NAME@SELECTOR`.
    #[schemars(with = "EvaluatorDocument")]
    pub evaluator: Value,
}

impl EvaluatorUse {
    /// Its name in results.
    pub fn name(&self) -> &str {
        match self {
            Self::Reference(text) => reference_name(text),
            Self::Inline(inline) => &inline.name,
        }
    }
}

fn reference_name(text: &str) -> &str {
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
    rest.split_once('@').map_or(rest, |(name, _)| name)
}

/// Something that must hold, for one candidate or for all but the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// The evaluator whose score counts.
    pub evaluator: String,
    /// The candidate; every one but the baseline when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The candidate that it is compared with; the suite's baseline when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The bound of the mean's interval that lies on the bad side is at least this good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The interval of the difference shows that it is not worse by more than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_worse_by: Option<f64>,
}

impl SuiteDocument {
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

    /// What the suite refers to.
    pub fn references(&self) -> Vec<Reference> {
        let mut texts = vec![("/dataset".to_owned(), self.dataset.clone())];
        for (index, candidate) in self.candidates.iter().enumerate() {
            if let Some(PromptUse::Reference(text)) = &candidate.prompt {
                texts.push((format!("/candidates/{index}/prompt"), text.clone()));
            }
            if let Some(text) = candidate.release_reference() {
                texts.push((format!("/candidates/{index}/app"), text));
            }
        }
        for (index, used) in self.evaluators.iter().enumerate() {
            match used {
                EvaluatorUse::Reference(text) => {
                    texts.push((format!("/evaluators/{index}"), text.clone()));
                }
                EvaluatorUse::Inline(inline) => {
                    if let Some(text) = inline.evaluator.as_str() {
                        texts.push((format!("/evaluators/{index}/evaluator"), text.to_owned()));
                    }
                }
            }
        }
        let parsed = texts.iter();
        parsed
            .filter_map(|(path, text)| Reference::parse_at(path, text).ok())
            .collect()
    }

    /// The modules of evaluators that are written out.
    pub fn modules(&self) -> Vec<Digest> {
        let digests = self
            .modules_written_out()
            .filter_map(|(_, wasm)| wasm.digest());
        digests.collect()
    }

    /// Whether a blob is a module that the evaluators which name it could run.
    ///
    /// # Errors
    /// What is wrong, with its place in the suite.
    pub fn check_module(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Problem> {
        for (index, wasm) in self.modules_written_out() {
            if wasm.digest().as_ref() == Some(digest) {
                wasm::check_module(&wasm, bytes).map_err(|problem| {
                    let path = format!("/evaluators/{index}/evaluator{}", problem.path);
                    Problem::new(path, problem.message)
                })?;
            }
        }
        Ok(())
    }

    fn modules_written_out(&self) -> impl Iterator<Item = (usize, WasmEvaluator)> {
        let used = self.evaluators.iter().enumerate();
        used.filter_map(|(index, used)| match used {
            EvaluatorUse::Inline(inline) => match EvaluatorDocument::parse(&inline.evaluator) {
                Ok(EvaluatorDocument::Wasm(wasm)) => Some((index, wasm)),
                _ => None,
            },
            EvaluatorUse::Reference(_) => None,
        })
    }

    /// The index of the candidate that the others are compared with.
    pub fn baseline(&self) -> usize {
        let named = self.baseline.as_deref();
        let found = named.and_then(|name| self.candidates.iter().position(|c| c.name == name));
        found.unwrap_or(0)
    }

    fn check(&self, problems: &mut Problems) {
        check_reference(&self.dataset, "dataset", "/dataset", problems);
        self.check_candidates(problems);
        self.check_evaluators(problems);
        self.check_numbers(problems);
        self.check_gates(problems);
        if let Some(name) = &self.baseline
            && !self
                .candidates
                .iter()
                .any(|candidate| candidate.name == *name)
        {
            problems.add("/baseline", format!("there is no candidate {name:?}"));
        }
        for (name, margin) in &self.margin {
            let at = format!("/margin/{name}");
            if !self.evaluators.iter().any(|used| used.name() == name) {
                problems.add(at, format!("there is no evaluator {name:?}"));
            } else if !(margin.is_finite() && *margin >= 0.0) {
                problems.add(at, "a margin is 0 or more");
            }
        }
    }

    fn check_candidates(&self, problems: &mut Problems) {
        if !(1..=MOST_CANDIDATES).contains(&self.candidates.len()) {
            let message = format!("a suite has 1 to {MOST_CANDIDATES} candidates");
            problems.add("/candidates", message);
        }
        let mut names = HashSet::new();
        for (index, candidate) in self.candidates.iter().enumerate() {
            let at = |field: &str| format!("/candidates/{index}/{field}");
            check_name(&candidate.name, at("name"), &mut names, problems);
            candidate.check(&at, problems);
        }
    }

    fn check_evaluators(&self, problems: &mut Problems) {
        if !(1..=MOST_EVALUATORS).contains(&self.evaluators.len()) {
            let message = format!("a suite has 1 to {MOST_EVALUATORS} evaluators");
            problems.add("/evaluators", message);
        }
        let mut names = HashSet::new();
        for (index, used) in self.evaluators.iter().enumerate() {
            let at = format!("/evaluators/{index}");
            match used {
                EvaluatorUse::Reference(text) => {
                    check_reference(text, "evaluator", &at, problems);
                    // The catalog's names may be longer than those that are written out.
                    if !names.insert(used.name().to_owned()) {
                        problems.add(at, format!("there is another evaluator {:?}", used.name()));
                    }
                }
                EvaluatorUse::Inline(inline) => {
                    check_name(&inline.name, format!("{at}/name"), &mut names, problems);
                    let at = format!("{at}/evaluator");
                    match inline.evaluator.as_str() {
                        Some(text) => check_reference(text, "evaluator", &at, problems),
                        None => {
                            let parsed = EvaluatorDocument::parse(&inline.evaluator);
                            for problem in parsed.err().into_iter().flatten() {
                                problems.add(format!("{at}{}", problem.path), problem.message);
                            }
                        }
                    }
                }
            }
        }
    }

    fn check_numbers(&self, problems: &mut Problems) {
        let mut within = |value: u32, most: u32, field: &str| {
            if !(1..=most).contains(&value) {
                problems.add(
                    format!("/{field}"),
                    format!("this is a number from 1 to {most}"),
                );
            }
        };
        within(self.repeats, MOST_REPEATS, "repeats");
        within(self.concurrency, MOST_CONCURRENT, "concurrency");
        within(self.attempts, MOST_ATTEMPTS, "attempts");
        if self.limit == Some(0) {
            problems.add("/limit", "at least one example is evaluated");
        }
        if self
            .budget_usd
            .is_some_and(|budget| !(budget.is_finite() && budget > 0.0 && budget <= 1e6))
        {
            problems.add("/budget_usd", "a budget is a number of dollars above 0");
        }
    }

    fn check_gates(&self, problems: &mut Problems) {
        if self.gate.len() > MOST_GATES {
            problems.add("/gate", format!("a suite has at most {MOST_GATES} gates"));
        }
        let candidate = |name: &str| self.candidates.iter().any(|known| known.name == name);
        for (index, gate) in self.gate.iter().enumerate() {
            let at = |field: &str| format!("/gate/{index}/{field}");
            if !self
                .evaluators
                .iter()
                .any(|used| used.name() == gate.evaluator)
            {
                let message = format!("there is no evaluator {:?}", gate.evaluator);
                problems.add(at("evaluator"), message);
            }
            for (field, name) in [("candidate", &gate.candidate), ("baseline", &gate.baseline)] {
                if let Some(name) = name.as_ref().filter(|name| !candidate(name)) {
                    problems.add(at(field), format!("there is no candidate {name:?}"));
                }
            }
            let baseline = self.candidates.get(self.baseline()).map(|one| &one.name);
            if gate.baseline.is_some() && gate.baseline.as_ref() != baseline {
                let message = "candidates are compared with the suite's baseline: say it there";
                problems.add(at("baseline"), message);
            }
            match (gate.at_least, gate.not_worse_by) {
                (None, None) | (Some(_), Some(_)) => {
                    problems.add(
                        at("at_least"),
                        "a gate says either at_least or not_worse_by",
                    );
                }
                (Some(bound), None) if !bound.is_finite() => {
                    problems.add(at("at_least"), "the bound is a number");
                }
                (None, Some(margin)) if !(margin.is_finite() && margin >= 0.0) => {
                    problems.add(at("not_worse_by"), "the margin is 0 or more");
                }
                _ => {}
            }
            if gate.not_worse_by.is_some() && self.candidates.len() < 2 {
                let message = "there is no other candidate to compare with";
                problems.add(at("not_worse_by"), message);
            }
        }
    }
}

impl Candidate {
    /// The release of the app, as the catalog refers to it.
    pub fn release_reference(&self) -> Option<String> {
        let app = self.app.as_deref()?;
        let selector = self.release.as_deref().unwrap_or("latest");
        Some(format!("release:{app}@{selector}"))
    }

    fn check(&self, at: &impl Fn(&str) -> String, problems: &mut Problems) {
        match (&self.app, &self.prompt, &self.model) {
            (Some(_), None, None) => {
                let text = self.release_reference().unwrap_or_default();
                check_reference(&text, "release", &at("app"), problems);
            }
            (Some(_), _, _) => {
                problems.add(at("app"), "an app has its own prompts and models");
            }
            (None, None, None) => {
                problems.add(
                    at("model"),
                    "say what is evaluated: a prompt, a model or an app",
                );
            }
            (None, prompt, model) => {
                self.check_prompt(prompt.as_ref(), at, problems);
                if model
                    .as_deref()
                    .is_some_and(|model| model.trim().is_empty())
                {
                    problems.add(at("model"), "this is a model's name");
                }
            }
        }
        if self.release.is_some() && self.app.is_none() {
            problems.add(at("release"), "only an app has releases");
        }
        for (name, text) in &self.variables {
            if let Err(message) = NamedExpression::parse(text, &["example"]) {
                problems.add(at(&format!("variables/{name}")), message);
            }
        }
        for name in ["model", "messages", "stream", "n", "meguri", "metadata"] {
            if self.parameters.contains_key(name) {
                let message = "the evaluation sets this field itself";
                problems.add(at(&format!("parameters/{name}")), message);
            }
        }
    }

    fn check_prompt(
        &self,
        prompt: Option<&PromptUse>,
        at: &impl Fn(&str) -> String,
        problems: &mut Problems,
    ) {
        match prompt {
            Some(PromptUse::Reference(text)) => {
                check_reference(text, "prompt", &at("prompt"), problems);
            }
            Some(PromptUse::Inline(content)) => {
                match PromptDocument::parse(&Value::Object(content.clone())) {
                    Ok(document) if document.model.is_none() && self.model.is_none() => {
                        problems.add(
                            at("model"),
                            "neither the prompt nor the candidate names one",
                        );
                    }
                    Ok(_) => {}
                    Err(wrong) => {
                        for problem in wrong {
                            problems.add(at(&format!("prompt{}", problem.path)), problem.message);
                        }
                    }
                }
            }
            None => {}
        }
    }
}

fn check_name(name: &str, at: String, names: &mut HashSet<String>, problems: &mut Problems) {
    let clean = name.trim() == name && !name.chars().any(base::text::is_deceptive);
    if name.is_empty() || name.chars().count() > NAME_CHARS || !clean || name.contains('\n') {
        let message = format!("a name has 1 to {NAME_CHARS} visible characters");
        problems.add(at, message);
    } else if !names.insert(name.to_owned()) {
        problems.add(at, format!("there is another {name:?}"));
    }
}

fn check_reference(text: &str, kind: &str, at: &str, problems: &mut Problems) {
    match Reference::parse_at(at, text) {
        Ok(reference) if reference.kind != kind => {
            problems.add(
                at,
                format!("this is a reference to a {kind}: {kind}:NAME@SELECTOR"),
            );
        }
        Ok(_) => {}
        Err(problem) => problems.0.push(problem),
    }
}
