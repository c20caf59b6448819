//! Labelled texts under a policy: figures per source, and what each threshold of a rule would
//! give. The same for the command line, the API and the page.
//!
//! What a policy finds says nothing about scores below its thresholds. So each text is scanned
//! twice: by the policy as it is, which is what counts as found and what is timed, and by a copy
//! that flags from the lowest score on, which gives the scores of curves and of areas under them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use db::Scope;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use guard::bench::{self, Item, Outcome, Report};
use guard::{Action, Check, Compiled, Context, Finding, Point, Policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asker::{self, Asker};
use super::check::{self, Piece, PolicyRef};
use super::{Found, Ready};
use crate::datasets::Datasets;
use crate::error::{AppError, Result};

/// Labelled texts of one request. The command line takes any number.
const MOST_TEXTS: usize = 10_000;
/// Labelled texts of one request for a policy that asks models: each may cost money.
const MOST_ASKED: usize = 500;
/// Texts that models are asked about at once.
const ASKED_AT_ONCE: usize = 4;
/// Text of one request that comes from a dataset.
const MOST_BYTES: usize = 32 << 20;
/// From this score on a copy for curves flags. Zero would flag what was never scored.
const LOWEST: f32 = 0.001;
/// Thresholds of a curve.
const STEPS: u32 = 50;
/// What a suggested threshold may find among the benign texts.
const SUGGESTED_RATE: f64 = 0.01;

/// What is measured.
#[derive(Debug, Clone)]
pub struct What {
    /// Where in a call the texts stand.
    pub point: Point,
    /// Only this rule, with its curve.
    pub rule: Option<String>,
}

/// Figures of a policy, or of one of its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Which policy; none for one that was sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// The rule, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Per source, per language, and together: recall and false positives with 95 % intervals,
    /// recall at 1 % false positives, area under the ROC curve, microseconds per text.
    #[schemars(with = "Value")]
    pub report: Report,
    /// What other thresholds would give, for one rule with scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
    /// How many texts each rule could not check and let pass, because nobody could be asked or
    /// its word list is missing. The figures count them as not found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unchecked: BTreeMap<String, usize>,
}

/// What each threshold of a rule would give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    /// From the lowest threshold to the highest.
    pub points: Vec<CurvePoint>,
    /// The threshold that is in force.
    pub current: CurvePoint,
    /// The lowest threshold that finds at most 1 % of the benign texts. Nothing without any.
    pub suggested: Option<CurvePoint>,
}

/// One threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    /// The threshold.
    pub threshold: f64,
    /// How many of those that were found should be; nothing if none was.
    pub precision: Option<f64>,
    /// How many of those that should be found were; nothing without any.
    pub recall: Option<f64>,
    /// How many of those that should not be found were; nothing without any.
    pub false_positive_rate: Option<f64>,
}

/// The JSON lines that say nothing of a check, or this one.
pub fn lines_of(lines: &str, check: &str) -> String {
    let is_of = |line: &&str| {
        let read: Option<Value> = serde_json::from_str(line).ok();
        let of = read.as_ref().and_then(|line| line.get("check")?.as_str());
        of.is_none_or(|of| of == check)
    };
    lines.lines().filter(is_of).collect::<Vec<_>>().join("\n")
}

/// Labelled texts of JSON lines.
///
/// # Errors
/// 400: the first line that is none, or too many of them.
pub fn of_lines(lines: &str) -> Result<Vec<Item>> {
    let items = bench::read_items(lines)
        .map_err(|bad| AppError::invalid(bad.message.clone()).at(format!("line {}", bad.line)))?;
    at_most(items)
}

fn at_most(items: Vec<Item>) -> Result<Vec<Item>> {
    match items.len() {
        0 => Err(AppError::invalid("there are no labelled texts").code("no_texts")),
        count if count > MOST_TEXTS => {
            let why = format!("{count} labelled texts are more than {MOST_TEXTS}");
            Err(AppError::invalid(why)
                .code("too_many_texts")
                .hint("take a sample, or use meguri guard bench on the data directory"))
        }
        _ => Ok(items),
    }
}

/// Labelled texts of a dataset: the input is the text, the expected output its label, and the
/// metadata may name a `source` and a `language`. With a check, only those that say nothing of a
/// check, or this one: harmless for one rule is not harmless for another.
///
/// # Errors
/// There is no such dataset; an example has no label that is known; there are too many.
pub async fn of_dataset(
    datasets: &Datasets,
    scope: Scope,
    name: &str,
    check: Option<&str>,
) -> Result<Vec<Item>> {
    let name = crate::datasets::parse_name(name)?;
    let found = datasets.latest(scope, &name).await?;
    let mut reading = datasets.reading(scope, &found)?;
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(examples) = reading.next().await? {
        for example in examples {
            let of = example.metadata.get("check").and_then(Value::as_str);
            if check.is_some_and(|check| of.is_some_and(|of| of != check)) {
                continue;
            }
            let text = match &example.input {
                Value::String(text) => text.clone(),
                _ => example.input_text(),
            };
            bytes += text.len();
            if bytes > MOST_BYTES {
                let why = format!("the dataset has more than {} MiB of text", MOST_BYTES >> 20);
                return Err(AppError::invalid(why).code("too_many_texts"));
            }
            let mut line = serde_json::Map::new();
            line.insert("text".to_owned(), Value::String(text));
            line.insert("label".to_owned(), label_of(example.expected.as_ref()));
            for field in ["source", "language"] {
                if let Some(word) = example.metadata.get(field).and_then(Value::as_str) {
                    line.insert(field.to_owned(), word.into());
                }
            }
            line.entry("source").or_insert_with(|| name.as_str().into());
            let item = serde_json::from_value(Value::Object(line)).map_err(|error| {
                let why = format!("the example {:?} is not labelled: {error}", example.id);
                AppError::invalid(why).code("not_labelled").at("dataset")
            })?;
            items.push(item);
        }
    }
    at_most(items)
}

/// `"attack"`, or `{"label": "attack"}`.
fn label_of(expected: Option<&Value>) -> Value {
    let value = expected.cloned().unwrap_or_default();
    match value.get("label") {
        Some(label) => label.clone(),
        None => value,
    }
}

/// Measures a policy, off the threads that serve calls.
///
/// # Errors
/// There is no such rule; every place is taken.
pub async fn measure(
    found: &Found,
    items: Vec<Item>,
    what: What,
    asker: Option<&Asker>,
) -> Result<Measured> {
    let bench = Bench::new(&found.ready, what)?;
    let mut measured = match asker.filter(|_| bench.asks) {
        Some(asker) => {
            let outcomes = bench.ask_all(&items, asker).await?;
            bench.measured(outcomes)
        }
        None => {
            check::off_thread(move || {
                let outcomes: Vec<Seen> = items.iter().map(|item| bench.one(item)).collect();
                bench.measured(outcomes)
            })
            .await?
        }
    };
    measured.policy = PolicyRef::of(found);
    Ok(measured)
}

/// A policy that is measured.
pub struct Bench {
    as_is: Arc<Compiled>,
    /// The copy that gives scores, where any rule has scores.
    scoring: Option<Arc<Compiled>>,
    /// The threshold of the one rule that is measured.
    threshold: Option<f32>,
    /// Whether any rule asks a model.
    asks: bool,
    what: What,
}

impl Bench {
    /// Prepares to measure.
    ///
    /// # Errors
    /// 400: there is no such rule.
    pub fn new(ready: &Ready, what: What) -> Result<Self> {
        let mut policy = ready.policy.clone();
        if let Some(wanted) = &what.rule {
            policy.rules.retain(|rule| rule.name == *wanted);
            if policy.rules.is_empty() {
                let why = format!("the policy has no rule {wanted:?}");
                return Err(AppError::invalid(why).code("no_such_rule").at("rule"));
            }
        }
        let one = match (&what.rule, policy.rules.as_slice()) {
            (Some(_), [rule]) => threshold_of(&rule.check, ready),
            _ => None,
        };
        let has_scores = policy
            .rules
            .iter()
            .any(|rule| threshold_of(&rule.check, ready).is_some());
        Ok(Self {
            as_is: prepare(&policy, ready)?,
            asks: asker::asks(&policy),
            scoring: if has_scores {
                Some(prepare(&scoring(policy), ready)?)
            } else {
                None
            },
            threshold: one,
            what,
        })
    }

    /// What comes of one text.
    pub fn one(&self, item: &Item) -> Seen {
        let piece = Piece::new(self.what.point, item.text.as_str());
        let context = Context::default();
        let (scanned, timing) = check::scan(&self.as_is, &piece, &context);
        let scored = self
            .scoring
            .as_ref()
            .map(|scoring| check::scan(scoring, &piece, &context).0.findings);
        seen(item, &scanned.findings, scored.as_deref(), timing)
    }

    /// The same for all texts, with models that are asked; the answers to one text's questions
    /// count for both readings of it.
    async fn ask_all(&self, items: &[Item], asker: &Asker) -> Result<Vec<Seen>> {
        if items.len() > MOST_ASKED {
            let why = format!(
                "{} texts are more than {MOST_ASKED} for a policy that asks models",
                items.len()
            );
            return Err(AppError::invalid(why).code("too_many_texts"));
        }
        let (mut asked, mut outcomes) = (FuturesOrdered::new(), Vec::new());
        for item in items {
            if asked.len() >= ASKED_AT_ONCE
                && let Some(outcome) = asked.next().await
            {
                outcomes.push(outcome?);
            }
            asked.push_back(self.ask_one(item, asker));
        }
        while let Some(outcome) = asked.next().await {
            outcomes.push(outcome?);
        }
        Ok(outcomes)
    }

    async fn ask_one(&self, item: &Item, asker: &Asker) -> Result<Seen> {
        let piece = Piece::new(self.what.point, item.text.as_str());
        let (context, asker) = (Context::default(), asker.anew());
        let (scanned, timing) = asker::scan(&self.as_is, &piece, &context, &asker).await?;
        let scored = match &self.scoring {
            Some(scoring) => {
                let (scanned, _) = asker::scan(scoring, &piece, &context, &asker).await?;
                Some(scanned.findings)
            }
            None => None,
        };
        Ok(seen(item, &scanned.findings, scored.as_deref(), timing))
    }

    /// The figures of what came of all texts.
    pub fn measured(&self, seen: Vec<Seen>) -> Measured {
        let mut unchecked = BTreeMap::new();
        for rule in seen.iter().flat_map(|seen| &seen.unchecked) {
            *unchecked.entry(rule.clone()).or_default() += 1;
        }
        let outcomes: Vec<Outcome> = seen.into_iter().map(|seen| seen.outcome).collect();
        Measured {
            policy: None,
            rule: self.what.rule.clone(),
            report: bench::report(&outcomes),
            curve: self.threshold.map(|current| curve(&outcomes, current)),
            unchecked,
        }
    }
}

/// What came of one text.
pub struct Seen {
    outcome: Outcome,
    /// The rules that could not check it and let it pass.
    unchecked: BTreeSet<String>,
}

/// What was found in a text as it is, and with which scores where the rules have any.
fn seen(
    item: &Item,
    findings: &[Finding],
    scored: Option<&[Finding]>,
    timing: check::Timing,
) -> Seen {
    let score = scored
        .unwrap_or(findings)
        .iter()
        .filter(|finding| is_found(finding))
        .map(|finding| finding.score)
        .fold(0.0, f32::max);
    let unchecked = findings.iter().filter(|finding| !is_found(finding));
    Seen {
        unchecked: unchecked.map(|finding| finding.rule_name.clone()).collect(),
        outcome: Outcome {
            source: item.source.clone(),
            language: item.language.clone(),
            positive: item.label,
            found: findings.iter().any(is_found),
            score,
            micros: Some(timing.total),
        },
    }
}

/// What a tier could not answer is not found.
fn is_found(finding: &Finding) -> bool {
    finding.outcome != guard::Outcome::FailedOpen
}

fn prepare(policy: &Policy, ready: &Ready) -> Result<Arc<Compiled>> {
    let compiled = Compiled::new(policy, &ready.resources).map_err(|problems| {
        let words: Vec<String> = problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        AppError::internal(anyhow::anyhow!(
            "a policy that was checked: {}",
            words.join("; ")
        ))
    })?;
    Ok(Arc::new(compiled))
}

/// A copy that flags whatever has any score at all.
fn scoring(mut policy: Policy) -> Policy {
    for rule in &mut policy.rules {
        rule.action = Action::Flag {};
        rule.shadow = false;
        if let Check::Injection { threshold, .. }
        | Check::Toxicity { threshold, .. }
        | Check::Topics { threshold, .. }
        | Check::Grounded { threshold, .. }
        | Check::Judge { threshold, .. }
        | Check::Gibberish { threshold } = &mut rule.check
        {
            *threshold = Some(LOWEST);
        }
    }
    policy
}

/// From which score on a rule finds something in place; nothing for rules without such scores.
fn threshold_of(check: &Check, ready: &Ready) -> Option<f32> {
    let of_scorer = |name: &str| {
        let scorer = ready.resources.scorers.get(name);
        scorer.map(|scorer| scorer.threshold)
    };
    match check {
        Check::Injection {
            threshold,
            classifier,
            ..
        } => threshold.or_else(|| of_scorer(classifier.as_deref().unwrap_or("injection"))),
        Check::Toxicity {
            threshold,
            classifier,
            ..
        } => threshold.or_else(|| of_scorer(classifier.as_deref().unwrap_or("toxicity"))),
        Check::Topics { threshold, .. }
        | Check::Grounded { threshold, .. }
        | Check::Judge { threshold, .. }
        | Check::Gibberish { threshold } => Some(threshold.unwrap_or(0.5)),
        _ => None,
    }
}

fn curve(outcomes: &[Outcome], current: f32) -> Curve {
    #[expect(clippy::cast_precision_loss, reason = "at most the number of steps")]
    let thresholds = (1..STEPS).map(|step| step as f32 / STEPS as f32);
    let points: Vec<CurvePoint> = thresholds.map(|at| curve_point(outcomes, at)).collect();
    let suggested = points
        .iter()
        .find(|point| {
            point
                .false_positive_rate
                .is_some_and(|rate| rate <= SUGGESTED_RATE)
        })
        .copied();
    Curve {
        current: curve_point(outcomes, current),
        points,
        suggested,
    }
}

fn curve_point(outcomes: &[Outcome], threshold: f32) -> CurvePoint {
    let count = |positive: bool, found: bool| {
        let of = outcomes
            .iter()
            .filter(|one| one.positive == positive && (one.score >= threshold) == found);
        of.count()
    };
    let (hits, misses) = (count(true, true), count(true, false));
    let (alarms, silent) = (count(false, true), count(false, false));
    CurvePoint {
        threshold: check::score(threshold),
        precision: share(hits, hits + alarms),
        recall: share(hits, hits + misses),
        false_positive_rate: share(alarms, alarms + silent),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn share(part: usize, of: usize) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}
