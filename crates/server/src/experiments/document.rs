//! The document of an experiment: what it splits, between what, measured by what.
//!
//! Checked completely when it is saved, each problem with its place. Whether the
//! versions that it names exist is the catalog's question, because a document
//! does not know its project; it is asked again when a run starts.

use std::collections::HashSet;
use std::str::FromStr as _;

use db::catalog::{Label, Name, Selector};
use db::{Problem, Reference};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Weights are a sum of decimal fractions, which binary numbers only come near to.
const ROUNDING: f64 = 1e-6;
/// More arms than this need more traffic than anybody has.
const MOST_ARMS: usize = 10;
const MOST_GUARDS: usize = 10;
const MOST_STEPS: usize = 20;

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExperimentDocument {
    /// What the people who read the result should know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where the traffic is split: the place where a pointer would have been looked up.
    pub target: TargetDocument,
    /// What it is split between. Exactly one is the control: the one that says so, or the first.
    pub arms: Vec<ArmDocument>,
    /// Who stays with one arm. Observations are averaged per unit, so that a talkative user counts once.
    #[serde(default)]
    pub unit: Unit,
    /// How the shares come about.
    #[serde(default)]
    pub mode: Mode,
    /// The steps of a canary, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ramp: Vec<RampStep>,
    /// What decides.
    pub metric: Metric,
    /// Limits that stop the run by themselves when a candidate crosses one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardDocument>,
    /// Units per arm before a verdict, at least 100; also the size at which the interval is narrowest.
    #[serde(default = "default_sample")]
    pub minimum_sample: u64,
    /// The chance of ever calling a difference where there is none.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// The largest difference that nobody would act on; for latency a share (0.05 is 5 %).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub equivalence: f64,
}

fn default_sample() -> u64 {
    1000
}

fn default_alpha() -> f64 {
    0.05
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// What is split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetDocument {
    /// A prompt, an app or a guard policy.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// The label of a prompt or policy; `production` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The app's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// What can be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Versions of a prompt.
    Prompt,
    /// Releases of an app.
    App,
    /// Versions of a guard policy.
    Guard,
}

impl TargetKind {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::App => "app",
            Self::Guard => "guard",
        }
    }

    /// The catalog's kind of what its arms are versions of.
    pub fn arm_kind(self) -> &'static str {
        match self {
            Self::Prompt => crate::prompts::KIND,
            Self::App => super::RELEASE,
            Self::Guard => crate::guards::KIND,
        }
    }
}

/// One side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmDocument {
    /// What figures call it: `control`, `candidate`.
    pub name: String,
    /// The prompt's or policy's version, or the app's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Instead of a number: what this label points to when the run starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its share; all of them sum to 1 or to 100. For a shadow, the share of calls that it gets a copy of (1 is all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Whether the others are compared with this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
}

/// Who stays with one arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// The application's end user; a call that names none counts on its own.
    #[default]
    User,
    /// The conversation; a call that names none counts on its own.
    Session,
    /// Every call on its own.
    Request,
}

impl Unit {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Request => "request",
        }
    }
}

/// How the shares come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Fixed shares and a sequential test: the one that gives a verdict about a difference.
    #[default]
    Split,
    /// Thompson sampling: shares follow success. For earning, not for finding out.
    Bandit,
    /// A ramp that goes on while the guards hold.
    Canary,
    /// The control answers; candidates get copies whose answers nobody sees.
    Shadow,
}

impl Mode {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Bandit => "bandit",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
        }
    }
}

/// A step of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RampStep {
    /// The candidate's share, between 0 and 1.
    pub weight: f64,
    /// It lasts at least this long.
    #[serde(default)]
    pub at_least_s: u64,
    /// And until the candidate has served this many calls in it.
    #[serde(default)]
    pub at_least_calls: u64,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Which kind of figure.
    pub kind: MetricKind,
    /// The score's name; only for scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which direction is good; by itself higher for scores and lower for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub better: Option<Direction>,
}

impl Metric {
    /// Which direction is good.
    pub fn better(&self) -> Direction {
        self.better.unwrap_or(match self.kind {
            MetricKind::Score => Direction::Higher,
            _ => Direction::Lower,
        })
    }

    /// As filters and tables write it: `score.thumbs`, `latency`.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("score.{name}"),
            None => self.kind.name().to_owned(),
        }
    }
}

/// Kinds of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// A score: feedback, an evaluator's or a person's judgement.
    Score,
    /// How long calls took that did not fail, in milliseconds; compared as a ratio, on a log scale.
    Latency,
    /// What calls cost, in dollars.
    Cost,
    /// The share of calls that failed.
    ErrorRate,
    /// The share of calls that a guard refused, or whose answer was cut off by one or by the
    /// provider's own filter.
    BlockedRate,
}

impl MetricKind {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Latency => "latency",
            Self::Cost => "cost",
            Self::ErrorRate => "error_rate",
            Self::BlockedRate => "blocked_rate",
        }
    }
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardDocument {
    /// What is watched.
    pub metric: Metric,
    /// The limit: milliseconds, dollars, a share, or the score's own scale.
    pub limit: f64,
    /// What is forbidden: `above` the limit or `below` it.
    pub direction: Forbidden,
}

/// Which side of a limit is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forbidden {
    /// More than the limit.
    Above,
    /// Less than the limit.
    Below,
}

impl ExperimentDocument {
    /// Reads a document and finds everything that is wrong with it.
    ///
    /// # Errors
    /// Each problem with its place.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document: Self = gateway::read_shape(content)
            .map_err(|problem| vec![Problem::new(problem.path, problem.message)])?;
        let mut problems = Problems::default();
        document.check(&mut problems);
        if problems.0.is_empty() {
            Ok(document)
        } else {
            Err(problems.0)
        }
    }

    /// The index of the arm that the others are compared with.
    pub fn control(&self) -> usize {
        self.arms.iter().position(|arm| arm.control).unwrap_or(0)
    }

    /// The label or environment that is split.
    pub fn pointer(&self) -> &str {
        let of = match self.target.kind {
            TargetKind::Prompt | TargetKind::Guard => &self.target.label,
            TargetKind::App => &self.target.environment,
        };
        of.as_deref().unwrap_or(crate::prompts::PRODUCTION)
    }

    /// The catalog's kind of what the arms are versions of.
    pub fn arm_kind(&self) -> &'static str {
        self.target.kind.arm_kind()
    }

    /// The target as one text: `prompt:support/answer@production`.
    pub fn target_text(&self) -> String {
        let kind = self.target.kind.name();
        format!("{kind}:{}@{}", self.target.name, self.pointer())
    }

    /// The shares that a run starts with, between 0 and 1, in the order of the arms.
    /// For shadows, the shares of calls that are copied; the control has all calls.
    pub fn first_weights(&self) -> Vec<f64> {
        let given: Vec<f64> = self.arms.iter().filter_map(|arm| arm.weight).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of arms")]
        let equal = 1.0 / self.arms.len() as f64;
        match self.mode {
            Mode::Shadow => self
                .arms
                .iter()
                .map(|arm| arm.weight.unwrap_or(1.0))
                .collect(),
            Mode::Canary => {
                let weight = self.ramp.first().map_or(0.0, |step| step.weight);
                self.canary_weights(weight)
            }
            _ if given.len() == self.arms.len() => {
                let sum: f64 = given.iter().sum();
                given.into_iter().map(|weight| weight / sum).collect()
            }
            _ => vec![equal; self.arms.len()],
        }
    }

    /// The shares when the one candidate of a canary has this one.
    pub fn canary_weights(&self, candidate: f64) -> Vec<f64> {
        let control = self.control();
        let share = |index| {
            if index == control {
                1.0 - candidate
            } else {
                candidate
            }
        };
        (0..self.arms.len()).map(share).collect()
    }

    /// What the document refers to: the versions of its arms.
    pub fn references(&self) -> Vec<Reference> {
        let Ok(name) = Name::from_str(&self.target.name) else {
            return Vec::new();
        };
        let reference = |(index, arm): (usize, &ArmDocument)| {
            let (field, selector) = match (arm.version, &arm.label) {
                (Some(number), _) => ("version", Selector::Number(number)),
                (None, Some(label)) => ("label", Selector::Label(label.parse().ok()?)),
                (None, None) => return None,
            };
            Some(Reference {
                path: format!("/arms/{index}/{field}"),
                kind: self.arm_kind().to_owned(),
                name: name.clone(),
                selector,
            })
        };
        self.arms.iter().enumerate().filter_map(reference).collect()
    }

    fn check(&self, problems: &mut Problems) {
        self.check_target(problems);
        self.check_arms(problems);
        self.check_weights(problems);
        self.check_ramp(problems);
        check_metric(&self.metric, "/metric", problems);
        self.check_guards(problems);
        if self.mode == Mode::Bandit
            && !matches!(self.metric.kind, MetricKind::Score | MetricKind::ErrorRate)
        {
            problems.add(
                "/metric/kind",
                "a bandit needs a reward between 0 and 1: a score or the error rate",
            );
        }
        if !(100..=100_000_000).contains(&self.minimum_sample) {
            problems.add(
                "/minimum_sample",
                "at least 100 units per arm: below that the variance is not known well enough",
            );
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.2) {
            problems.add("/alpha", "alpha lies above 0 and not above 0.2");
        }
        if !(self.equivalence >= 0.0 && self.equivalence.is_finite()) {
            problems.add("/equivalence", "the equivalence margin is 0 or more");
        }
        if self.description.chars().count() > 2000 {
            problems.add(
                "/description",
                "the description has at most 2000 characters",
            );
        }
    }

    fn check_target(&self, problems: &mut Problems) {
        if let Err(problem) = Name::from_str(&self.target.name) {
            problems.add("/target/name", problem.message);
        }
        let (other, wrong, message) = match self.target.kind {
            TargetKind::Prompt | TargetKind::Guard => (
                "environment",
                self.target.environment.is_some(),
                "these calls are split at a label, not in an environment",
            ),
            TargetKind::App => (
                "label",
                self.target.label.is_some(),
                "calls of an app are split in an environment, not at a label",
            ),
        };
        if wrong {
            problems.add(format!("/target/{other}"), message);
        }
        if self.target.kind == TargetKind::App && self.target.environment.is_none() {
            problems.add(
                "/target/environment",
                "say in which environment the app's calls are split",
            );
        }
        if self.target.kind == TargetKind::Guard && self.mode == Mode::Shadow {
            let words = "a policy has a shadow of its own: \"shadow\": true on its rules";
            problems.add("/mode", words);
        }
        if let Err(problem) = Label::from_str(self.pointer()) {
            let field = match self.target.kind {
                TargetKind::Prompt | TargetKind::Guard => "label",
                TargetKind::App => "environment",
            };
            problems.add(format!("/target/{field}"), problem.message);
        }
    }

    fn check_arms(&self, problems: &mut Problems) {
        if !(2..=MOST_ARMS).contains(&self.arms.len()) {
            problems.add("/arms", format!("an experiment has 2 to {MOST_ARMS} arms"));
        }
        let mut names = HashSet::new();
        let mut versions = HashSet::new();
        let mut controls = 0;
        for (index, arm) in self.arms.iter().enumerate() {
            let at = |field: &str| format!("/arms/{index}/{field}");
            if arm.name.trim().is_empty() || arm.name.chars().count() > 60 {
                problems.add(at("name"), "an arm has a name of at most 60 characters");
            } else if !names.insert(arm.name.as_str()) {
                problems.add(at("name"), format!("there is another arm {:?}", arm.name));
            }
            controls += usize::from(arm.control);
            if arm.control && controls > 1 {
                problems.add(
                    at("control"),
                    "there is another control arm; the others are compared with one only",
                );
            }
            match (arm.version, &arm.label) {
                (None, None) => problems.add(
                    at("version"),
                    "say which version this arm is: a number, or a label",
                ),
                (Some(_), Some(_)) => {
                    problems.add(at("label"), "an arm has a version or a label, not both")
                }
                (Some(number), None) if number < 1 => {
                    problems.add(at("version"), "versions count from 1")
                }
                (Some(number), None) if !versions.insert(number) => {
                    problems.add(
                        at("version"),
                        format!(
                            "another arm is version {number} too; there would be nothing to compare"
                        ),
                    );
                }
                (None, Some(label)) => {
                    if let Err(problem) = Label::from_str(label) {
                        problems.add(at("label"), problem.message);
                    }
                }
                _ => {}
            }
        }
    }

    fn check_weights(&self, problems: &mut Problems) {
        for (index, arm) in self.arms.iter().enumerate() {
            let at = format!("/arms/{index}/weight");
            match (self.mode, arm.weight) {
                (Mode::Canary, Some(_)) => problems.add(at, "a canary's shares come from its ramp"),
                (Mode::Shadow, Some(_)) if index == self.control() => {
                    problems.add(at, "the control answers every call of a shadow experiment");
                }
                (Mode::Shadow, Some(weight)) if !(weight > 0.0 && weight <= 1.0) => {
                    problems.add(
                        at,
                        "the share of calls to copy lies above 0 and not above 1",
                    );
                }
                (Mode::Split, None) => problems.add(at, "say which share this arm gets"),
                (_, Some(weight)) if !(weight.is_finite() && weight >= 0.0) => {
                    problems.add(at, "a share is 0 or more");
                }
                _ => {}
            }
        }
        let given: Vec<f64> = self.arms.iter().filter_map(|arm| arm.weight).collect();
        let summed = matches!(self.mode, Mode::Split | Mode::Bandit) && !given.is_empty();
        let sum: f64 = given.iter().sum();
        if summed && given.len() != self.arms.len() && self.mode == Mode::Bandit {
            problems.add("/arms", "give every arm a share, or none");
        } else if summed && (sum - 1.0).abs() > ROUNDING && (sum - 100.0).abs() > 100.0 * ROUNDING {
            problems.add(
                "/arms",
                format!("the shares sum to {sum}; they must sum to 1 or to 100"),
            );
        }
    }

    fn check_ramp(&self, problems: &mut Problems) {
        if self.mode != Mode::Canary {
            if !self.ramp.is_empty() {
                problems.add("/ramp", "only a canary has a ramp");
            }
            return;
        }
        if self.arms.len() != 2 {
            problems.add(
                "/arms",
                "a canary has two arms: the control and the candidate",
            );
        }
        if !(1..=MOST_STEPS).contains(&self.ramp.len()) {
            problems.add(
                "/ramp",
                format!("a canary's ramp has 1 to {MOST_STEPS} steps"),
            );
        }
        let mut before = 0.0;
        for (index, step) in self.ramp.iter().enumerate() {
            let at = format!("/ramp/{index}/weight");
            if !(step.weight > 0.0 && step.weight <= 1.0) {
                problems.add(at, "the candidate's share lies above 0 and not above 1");
            } else if step.weight <= before {
                problems.add(at, "each step has a larger share than the one before");
            }
            before = step.weight;
        }
    }

    fn check_guards(&self, problems: &mut Problems) {
        if self.guards.len() > MOST_GUARDS {
            problems.add(
                "/guards",
                format!("an experiment has at most {MOST_GUARDS} guards"),
            );
        }
        for (index, guard) in self.guards.iter().enumerate() {
            check_metric(&guard.metric, &format!("/guards/{index}/metric"), problems);
            let limit = format!("/guards/{index}/limit");
            if !guard.limit.is_finite() {
                problems.add(limit, "the limit is a number");
            } else if guard.metric.kind == MetricKind::Latency && guard.limit <= 0.0 {
                problems.add(
                    limit,
                    "a limit for latency is a number of milliseconds above 0",
                );
            } else if guard.metric.kind == MetricKind::ErrorRate
                && !(0.0..=1.0).contains(&guard.limit)
            {
                problems.add(
                    limit,
                    "a limit for the error rate is a share between 0 and 1",
                );
            }
        }
    }
}

fn check_metric(metric: &Metric, at: &str, problems: &mut Problems) {
    let name = metric.name.as_deref().map(str::trim);
    match (metric.kind, name) {
        (MetricKind::Score, None | Some("")) => {
            problems.add(format!("{at}/name"), "say which score");
        }
        (MetricKind::Score, Some(name)) if name.chars().count() > 100 => {
            problems.add(
                format!("{at}/name"),
                "the name of a score has at most 100 characters",
            );
        }
        (MetricKind::Score, _) | (_, None) => {}
        (kind, Some(_)) => problems.add(
            format!("{at}/name"),
            format!("{} has no name; only scores do", kind.name()),
        ),
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(path, message));
    }
}
