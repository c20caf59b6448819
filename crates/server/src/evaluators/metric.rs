//! Metrics as evaluators: from an example and an answer to what the crate `eval` scores.

use db::Problem;
use eval::{Data, Item, Metric, Needs, Outcome, Resources, Statistics};
use serde_json::{Value, json};

use super::document::{Direction, MetricEvaluator};
use super::output::{OutputRule, json_of, text_of};

/// A metric, ready to measure.
#[derive(Debug)]
pub struct Measure {
    metric: Metric,
    output: Option<OutputRule>,
}

/// What became of measuring an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The finite number, or why there is none.
    pub value: Result<f64, String>,
    /// What it is made of, and what it adds to a figure of the whole data.
    pub detail: Value,
}

/// Reads a metric's definition.
///
/// # Errors
/// What is wrong with it, at its place in the definition.
pub fn parse(evaluator: &MetricEvaluator) -> Result<Metric, Problem> {
    Metric::parse(&Value::Object(evaluator.metric.clone()))
        .map_err(|problem| Problem::new(problem.path, problem.message))
}

/// Everything that the metric's numbers depend on.
pub fn signature(evaluator: &MetricEvaluator) -> String {
    let metric = parse(evaluator).map(|metric| metric.signature());
    let signature = metric.unwrap_or_else(|problem| format!("invalid: {problem}"));
    match &evaluator.output {
        Some(rule) => format!("{signature}|output:{}", json!(rule)),
        None => signature,
    }
}

/// The set of data that the metric needs, as `meguri data pull` names it.
pub fn data(evaluator: &MetricEvaluator) -> Option<&'static str> {
    let needed = parse(evaluator).ok()?.data()?;
    Some(match needed {
        Data::Japanese => crate::data::JA_DICTIONARY,
        Data::Vader => crate::data::VADER,
    })
}

/// Which direction is good: as the document says, else as the metric is known.
pub fn better(evaluator: &MetricEvaluator) -> Direction {
    let known = || match parse(evaluator).map(|metric| metric.entry().higher_is_better) {
        Ok(Some(false)) => Direction::Lower,
        _ => Direction::Higher,
    };
    evaluator.better.unwrap_or_else(known)
}

/// The lowest and the highest number that it can give, if it has both.
pub fn range(evaluator: &MetricEvaluator) -> Option<(f64, f64)> {
    let metric = parse(evaluator).ok()?;
    let (low, high) = (metric.entry().low, metric.entry().high);
    (low.is_finite() && high.is_finite() && low < high).then_some((low, high))
}

impl Measure {
    /// The metric of an evaluator, with what is installed.
    ///
    /// # Errors
    /// The document is wrong, which was checked when it was saved.
    pub fn new(evaluator: &MetricEvaluator, resources: &Resources) -> Result<Self, Problem> {
        let output = evaluator.output.as_deref().map(OutputRule::parse);
        Ok(Self {
            metric: parse(evaluator)?.with(resources),
            output: output
                .transpose()
                .map_err(|message| Problem::new("/output", message))?,
        })
    }

    /// Measures an answer.
    pub fn measure(&self, example: &Value, answer: &str) -> Measured {
        let taken = match &self.output {
            None => Ok(answer.to_owned()),
            Some(rule) => rule.apply(answer, example),
        };
        let output = match taken {
            Ok(output) => output,
            // An answer without the part that was asked for is an answer: an empty one.
            Err(why) => {
                let mut measured = self.measure_text(example, "");
                measured.detail["output_missing"] = json!(why);
                return measured;
            }
        };
        self.measure_text(example, &output)
    }

    fn measure_text(&self, example: &Value, output: &str) -> Measured {
        let of_retrieval = self.metric.entry().needs == Needs::Retrieval;
        let expected = texts(
            &example["expected"],
            self.metric.entry().id.starts_with("json"),
        );
        let retrieved = match of_retrieval {
            true => json_of(output)
                .map(|list| texts(&list, false))
                .unwrap_or_default(),
            false => Vec::new(),
        };
        let mut item = Item::new(output, &expected);
        if of_retrieval {
            item.retrieved = &retrieved;
            item.relevant = &expected;
        }
        let mut detail = json!({});
        let value = match self.metric.score(&item) {
            Outcome::Scored {
                value,
                detail: parts,
                warning,
            } if value.is_finite() => {
                if let Some(parts) = parts {
                    detail["parts"] = parts;
                }
                if let Some(warning) = warning {
                    detail["warning"] = json!(warning);
                }
                Ok(value)
            }
            Outcome::Scored { .. } => Err("the result is not a finite number".to_owned()),
            Outcome::Unscored { why } => Err(why),
        };
        if self.metric.entry().corpus
            && value.is_ok()
            && let Ok(statistics) = self.metric.statistics(&item)
        {
            detail["statistics"] = serde_json::to_value(statistics).unwrap_or_default();
        }
        Measured { value, detail }
    }

    /// Whether the figure of the whole data is more than the mean of its rows.
    pub fn is_of_corpus(&self) -> bool {
        self.metric.entry().corpus
    }

    /// The figure of many rows, from what each of them adds.
    pub fn combine<'a>(&self, rows: impl Iterator<Item = &'a Statistics> + Clone) -> Option<f64> {
        self.metric.combine(rows).value()
    }
}

/// What a row adds to the figure of the whole data, as its detail keeps it.
pub fn statistics(detail: &Value) -> Option<Statistics> {
    serde_json::from_value(detail.get("statistics")?.clone()).ok()
}

/// The texts that are meant by a value: each one of a list, or the value itself.
fn texts(value: &Value, whole: bool) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) if !whole => items.iter().map(text_of).collect(),
        Value::String(text) if whole => vec![text.clone()],
        other => vec![text_of(other)],
    }
}
