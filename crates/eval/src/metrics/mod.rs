//! Every metric behind one door: parse a definition, print its signature, score a row, combine rows.
//!
//! The typed functions below (`bleu`, `rouge`, …) are the formulas and answer exactly what the
//! programs answer that they are compared with, even where that is a 0 that misleads. [`Metric`] is
//! what a product calls: it knows when a formula has nothing to say.

mod bleu;
mod bootstrap;
mod chrf;
mod entries;
mod json;
mod labels;
mod ngrams;
mod numeric;
mod params;
mod parse;
mod refusal;
mod retrieval;
mod rouge;
mod script;
mod sentiment;
mod strings;
mod toxicity;
pub(crate) mod vader;

use jsonschema::Validator;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use bleu::{Bleu, BleuScore, MAX_ORDER, Smoothing};
pub use bootstrap::{DEFAULT_SAMPLES, DEFAULT_SEED, PairedBootstrap};
pub use chrf::{Chrf, MAX_CHARACTER_ORDER, MAX_WORD_ORDER};
pub use entries::{Entry, METRICS, Needs, Parameter, ParameterKind};
pub use json::{json_equal, read_json};
pub use labels::{
    Answers, Average, ClassCounts, Confusion, INVALID, LabelMeasure, Labels, ZeroDivision,
};
pub use numeric::{Which, find_number, is_close};
pub use params::Problem;
pub use refusal::is_refusal;
pub use retrieval::{Retrieval, retrieval};
pub use rouge::{Rouge, RougeScore, Variant};
pub use sentiment::{SmallSentiment, small_sentiment};
pub use strings::{Comparison, Edits, Measure, string_distance};
pub use toxicity::{Toxic, toxic_phrases};
pub use vader::{Polarity, Vader};

use crate::Resources;
use crate::resources::Data;
use crate::text::{NoDictionary, Tokeniser, detect_language, text_statistics};

/// What a metric says that lacks VADER's lexicon.
const NO_LEXICON: &str =
    "VADER's lexicon is not installed; on the server, run: meguri data pull vader";

/// One row to score. What a metric does not read may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Item<'a> {
    /// The answer.
    pub output: &'a str,
    /// Expected answers, any of which is right.
    pub expected: &'a [String],
    /// Ids (or texts) that were retrieved, best first.
    pub retrieved: &'a [String],
    /// Ids (or texts) that are relevant.
    pub relevant: &'a [String],
    /// How relevant each of `relevant` is; 1 where nothing is given.
    pub grades: &'a [f64],
}

impl<'a> Item<'a> {
    /// An answer and what was expected.
    pub fn new(output: &'a str, expected: &'a [String]) -> Item<'a> {
        Item {
            output,
            expected,
            ..Item::default()
        }
    }
}

/// What became of scoring a row or many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is a number, and it is finite.
    Scored {
        /// The score.
        value: f64,
        /// What it is made of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Value>,
        /// Why the number may mislead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning: Option<String>,
    },
    /// The instrument has nothing to say; this counts neither for nor against the answer.
    Unscored {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// The number, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Outcome::Scored { value, .. } => Some(*value),
            Outcome::Unscored { .. } => None,
        }
    }

    fn scored(value: f64, detail: Option<Value>) -> Outcome {
        if value.is_finite() {
            Outcome::Scored {
                value,
                detail,
                warning: None,
            }
        } else {
            Outcome::unscored("the result is not a finite number")
        }
    }

    fn unscored(why: impl Into<String>) -> Outcome {
        Outcome::Unscored { why: why.into() }
    }

    fn yes(yes: bool) -> Outcome {
        Outcome::scored(f64::from(u8::from(yes)), None)
    }

    fn warn(mut self, about: Option<String>) -> Outcome {
        if let Outcome::Scored { warning, .. } = &mut self {
            *warning = about;
        }
        self
    }
}

/// What one row adds to a corpus score. Kept, it lets a bootstrap draw rows again and again without
/// looking at a text twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Counts that add up (BLEU, chrF).
    Counts(Vec<u64>),
    /// Expected and given label.
    Labels {
        /// The label that was expected.
        expected: String,
        /// The label that was given, or [`INVALID`].
        given: String,
    },
    /// A value whose mean counts.
    Value(f64),
}

/// A metric with its parameters, ready to score.
#[derive(Clone, Debug)]
pub struct Metric {
    entry: &'static Entry,
    formula: Formula,
}

#[derive(Clone, Debug)]
enum Formula {
    Exact(Comparison),
    Contains {
        texts: Option<Vec<String>>,
        mode: Mode,
        comparison: Comparison,
    },
    Regex {
        regex: Regex,
        pattern: String,
        whole: bool,
        ignore_case: bool,
    },
    JsonValid {
        fenced: bool,
    },
    JsonSchema {
        validator: std::sync::Arc<Validator>,
        digest: String,
        fenced: bool,
    },
    JsonEqual {
        fenced: bool,
    },
    Numeric {
        absolute: f64,
        relative: f64,
        which: Which,
    },
    Distance {
        edits: Edits,
        measure: Measure,
        comparison: Comparison,
    },
    Bleu(Bleu),
    Chrf(Chrf),
    Rouge {
        rouge: Rouge,
        value: RougeValue,
    },
    Labels {
        labels: Labels,
        inside: bool,
        ignore_case: bool,
    },
    Retrieval {
        measure: Retrieval,
        k: Option<usize>,
    },
    Vader {
        value: VaderValue,
        vader: Option<std::sync::Arc<Vader>>,
    },
    Sentiment,
    Refusal,
    Toxicity,
    Length(Unit),
    Language(Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Any,
    All,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum RougeValue {
    F,
    Precision,
    Recall,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum VaderValue {
    Compound,
    Positive,
    Neutral,
    Negative,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Characters,
    Graphemes,
    Words,
    Sentences,
    Lines,
    Bytes,
}

/// Version of everything that is not `compat:`. A change of any number raises it.
const VERSION: u32 = 1;

impl Metric {
    /// From a definition: an object with `id` and the metric's parameters.
    pub fn parse(definition: &Value) -> Result<Metric, Problem> {
        parse::parse(definition)
    }

    /// With what is installed. Without it a metric that needs something leaves rows unscored.
    pub fn with(mut self, resources: &Resources) -> Metric {
        let tokeniser = match &mut self.formula {
            Formula::Bleu(bleu) => Some(&mut bleu.tokeniser),
            Formula::Rouge { rouge, .. } => Some(&mut rouge.tokeniser),
            Formula::Vader { vader, .. } => {
                vader.clone_from(&resources.vader);
                None
            }
            _ => None,
        };
        if let Some(Tokeniser::JaMecab(japanese)) = tokeniser {
            japanese.clone_from(&resources.japanese);
        }
        self
    }

    /// The line of the list that this metric is.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// What is missing to score anything, in words.
    pub fn missing(&self) -> Option<String> {
        match &self.formula {
            Formula::Bleu(Bleu { tokeniser, .. })
            | Formula::Rouge {
                rouge: Rouge { tokeniser, .. },
                ..
            } if tokeniser.lacks_dictionary() => Some(NoDictionary.to_string()),
            Formula::Vader { vader: None, .. } => Some(NO_LEXICON.to_owned()),
            _ => None,
        }
    }

    /// The data that it uses, installed or not.
    pub fn data(&self) -> Option<Data> {
        match &self.formula {
            Formula::Bleu(Bleu { tokeniser, .. })
            | Formula::Rouge {
                rouge: Rouge { tokeniser, .. },
                ..
            } => matches!(tokeniser, Tokeniser::JaMecab(_)).then_some(Data::Japanese),
            Formula::Vader { .. } => Some(Data::Vader),
            _ => None,
        }
    }

    /// Everything that the number of many rows depends on, in one line. A single row's BLEU is
    /// always with `eff:yes`; see [`Metric::row_signature`].
    pub fn signature(&self) -> String {
        self.signature_of(&self.formula)
    }

    /// The signature of a single row's number.
    pub fn row_signature(&self) -> String {
        match &self.formula {
            Formula::Bleu(bleu) => self.signature_of(&Formula::Bleu(sentence(bleu))),
            other => self.signature_of(other),
        }
    }

    fn signature_of(&self, formula: &Formula) -> String {
        let settings = settings(formula);
        let version = match self.entry.id.split_once(':') {
            // sacreBLEU's settings end with its version.
            Some((_, "bleu" | "chrf")) => String::new(),
            Some((_, "rouge")) => "version:0.1.2".to_owned(),
            Some((_, "vader")) => "version:3.3.2".to_owned(),
            Some((_, "levenshtein" | "indel")) => "version:rapidfuzz-3".to_owned(),
            Some(_) => "version:sklearn-1.9".to_owned(),
            None => format!("v:{VERSION}"),
        };
        let parts = [self.entry.id, &settings, &version];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("|")
    }

    /// The score of one row.
    pub fn score(&self, item: &Item<'_>) -> Outcome {
        if let Some(why) = self.missing() {
            return Outcome::unscored(why);
        }
        if self.entry.needs == Needs::Expected && item.expected.is_empty() {
            return Outcome::unscored("the example has no expected answer");
        }
        match &self.formula {
            Formula::Exact(comparison) => exact(*comparison, item),
            Formula::Contains {
                texts,
                mode,
                comparison,
            } => contains(
                texts.as_deref().unwrap_or(item.expected),
                *mode,
                *comparison,
                item,
            ),
            Formula::Regex { regex, .. } => Outcome::yes(regex.is_match(item.output)),
            Formula::JsonValid { fenced } => json_valid(*fenced, item),
            Formula::JsonSchema {
                validator, fenced, ..
            } => json_schema(validator, *fenced, item),
            Formula::JsonEqual { fenced } => json_is_expected(*fenced, item),
            Formula::Numeric {
                absolute,
                relative,
                which,
            } => numeric(*absolute, *relative, *which, item),
            Formula::Distance {
                edits,
                measure,
                comparison,
            } => distance(*edits, *measure, *comparison, item),
            Formula::Bleu(bleu) => {
                let bleu = sentence(bleu);
                self.score_counts(item, |counts| {
                    let score = bleu.score(counts);
                    Outcome::scored(score.score, Some(score.detail()))
                })
            }
            Formula::Chrf(chrf) => {
                self.score_counts(item, |counts| Outcome::scored(chrf.score(counts), None))
            }
            Formula::Rouge { rouge, value } => score_rouge(rouge, *value, item),
            Formula::Labels { .. } => match self.statistics(item) {
                Ok(Statistics::Labels { expected, given }) => Outcome::scored(
                    f64::from(u8::from(expected == given)),
                    Some(json!({"expected": expected, "given": given})),
                ),
                Ok(_) => Outcome::unscored("no label"),
                Err(why) => Outcome::unscored(why),
            },
            Formula::Retrieval { measure, k } => {
                retrieval(*measure, item.retrieved, item.relevant, item.grades, *k).map_or_else(
                    || Outcome::unscored("the example names nothing relevant"),
                    |value| Outcome::scored(value, None),
                )
            }
            Formula::Vader { value, vader } => score_vader(vader.as_deref(), *value, item),
            Formula::Sentiment => score_sentiment(item),
            Formula::Refusal => Outcome::yes(is_refusal(item.output)),
            Formula::Toxicity => {
                let (value, found) = toxicity::toxicity(item.output);
                Outcome::scored(value, found)
            }
            Formula::Length(unit) => length(*unit, item),
            Formula::Language(code) => language(code.as_deref(), item),
        }
    }

    fn score_counts(&self, item: &Item<'_>, score: impl Fn(&[u64]) -> Outcome) -> Outcome {
        match self.statistics(item) {
            Ok(Statistics::Counts(counts)) => score(&counts).warn(self.warning(item)),
            Ok(_) => Outcome::unscored("no counts"),
            Err(why) => Outcome::unscored(why),
        }
    }

    fn warning(&self, item: &Item<'_>) -> Option<String> {
        match &self.formula {
            Formula::Bleu(bleu) => script::warning(&bleu.tokeniser, item.expected),
            Formula::Rouge { rouge, .. } => script::warning(&rouge.tokeniser, item.expected),
            _ => None,
        }
    }

    /// What one row adds to the score of many, or why it adds nothing.
    pub fn statistics(&self, item: &Item<'_>) -> Result<Statistics, String> {
        if let Some(why) = self.missing() {
            return Err(why);
        }
        match &self.formula {
            Formula::Bleu(bleu) => {
                script::check_tokens(&bleu.tokeniser, item)?;
                let counts = bleu.statistics(item.output, item.expected);
                counts
                    .map(Statistics::Counts)
                    .map_err(|error| error.to_string())
            }
            Formula::Chrf(chrf) => {
                script::check_tokens(&Tokeniser::None, item)?;
                Ok(Statistics::Counts(
                    chrf.statistics(item.output, item.expected),
                ))
            }
            Formula::Labels {
                labels,
                inside,
                ignore_case,
            } => label_pair(labels, *inside, *ignore_case, item),
            _ => match self.score(item) {
                Outcome::Scored { value, .. } => Ok(Statistics::Value(value)),
                Outcome::Unscored { why } => Err(why),
            },
        }
    }

    /// The score of many rows from what each adds.
    pub fn combine<'a>(&self, statistics: impl Iterator<Item = &'a Statistics> + Clone) -> Outcome {
        match &self.formula {
            Formula::Bleu(bleu) => with_sum(statistics, |sum| {
                let score = bleu.score(sum);
                Outcome::scored(score.score, Some(score.detail()))
            }),
            Formula::Chrf(chrf) => {
                with_sum(statistics, |sum| Outcome::scored(chrf.score(sum), None))
            }
            Formula::Labels { labels, .. } => combine_labels(labels, statistics),
            _ => mean(statistics),
        }
    }

    /// The score of many rows. The detail has how many rows there were and why some have no score.
    pub fn corpus(&self, items: &[Item<'_>]) -> Outcome {
        let mut kept = Vec::with_capacity(items.len());
        let mut reasons = std::collections::BTreeMap::new();
        let mut warned = std::collections::BTreeMap::new();
        for item in items {
            match self.statistics(item) {
                Ok(statistics) => {
                    kept.push(statistics);
                    if let Some(about) = self.warning(item) {
                        *warned.entry(about).or_insert(0_u64) += 1;
                    }
                }
                Err(why) => *reasons.entry(why).or_insert(0_u64) += 1,
            }
        }
        let coverage = json!({"rows": items.len(), "scored": kept.len(), "unscored": reasons});
        let warning = warned
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(about, count)| format!("{about} ({count} of {} rows)", items.len()));
        let mut outcome = self.combine(kept.iter()).warn(warning);
        if let Outcome::Scored { detail, .. } = &mut outcome {
            let detail = detail.get_or_insert_with(|| json!({}));
            detail["coverage"] = coverage;
        }
        outcome
    }
}

fn sentence(bleu: &Bleu) -> Bleu {
    Bleu {
        effective_order: true,
        ..bleu.clone()
    }
}

fn settings(formula: &Formula) -> String {
    let flag = |yes: bool| if yes { "yes" } else { "no" };
    match formula {
        Formula::Exact(comparison) => comparison.signature(),
        Formula::Contains {
            texts,
            mode,
            comparison,
        } => format!(
            "texts:{}|mode:{}|{}",
            texts
                .as_ref()
                .map_or_else(|| "expected".to_owned(), |texts| json!(texts).to_string()),
            match mode {
                Mode::Any => "any",
                Mode::All => "all",
                Mode::None => "none",
            },
            comparison.signature()
        ),
        Formula::Regex {
            pattern,
            whole,
            ignore_case,
            ..
        } => format!(
            "pattern:{}|find:{}|case:{}",
            json!(pattern),
            if *whole { "whole" } else { "anywhere" },
            if *ignore_case { "ignored" } else { "mixed" }
        ),
        Formula::JsonValid { fenced } | Formula::JsonEqual { fenced } => {
            format!("fenced:{}", flag(*fenced))
        }
        Formula::JsonSchema { digest, fenced, .. } => {
            format!("schema:{digest}|fenced:{}", flag(*fenced))
        }
        Formula::Numeric {
            absolute,
            relative,
            which,
        } => format!(
            "abs:{absolute}|rel:{relative}|which:{}",
            match which {
                Which::Whole => "whole",
                Which::First => "first",
                Which::Last => "last",
            }
        ),
        Formula::Distance {
            measure,
            comparison,
            ..
        } => format!(
            "{}|{}",
            match measure {
                Measure::NormalisedSimilarity => "normalised_similarity",
                Measure::NormalisedDistance => "normalised_distance",
                Measure::Distance => "distance",
                Measure::Similarity => "similarity",
            },
            comparison.signature()
        ),
        Formula::Bleu(bleu) => bleu.settings(),
        Formula::Chrf(chrf) => chrf.settings(),
        Formula::Rouge { rouge, value } => format!(
            "{}|{}|tok:{}",
            rouge.name(),
            match value {
                RougeValue::F => "f",
                RougeValue::Precision => "precision",
                RougeValue::Recall => "recall",
            },
            rouge.tokeniser.signature()
        ),
        Formula::Labels {
            labels,
            inside,
            ignore_case,
        } => format!(
            "{}|find:{}|case:{}",
            labels.signature(),
            if *inside { "inside" } else { "whole" },
            if *ignore_case { "ignored" } else { "mixed" }
        ),
        Formula::Retrieval { k, .. } => k.map_or_else(|| "k:all".to_owned(), |k| format!("k:{k}")),
        Formula::Vader { value, .. } => match value {
            VaderValue::Compound => "compound",
            VaderValue::Positive => "positive",
            VaderValue::Neutral => "neutral",
            VaderValue::Negative => "negative",
        }
        .to_owned(),
        Formula::Sentiment => "lexicon:en+ja".to_owned(),
        Formula::Refusal => "phrases:en+ja".to_owned(),
        Formula::Toxicity => format!("phrases:en+ja|list:{}", toxicity::VERSION),
        Formula::Length(unit) => match unit {
            Unit::Characters => "characters",
            Unit::Graphemes => "graphemes",
            Unit::Words => "words",
            Unit::Sentences => "sentences",
            Unit::Lines => "lines",
            Unit::Bytes => "bytes",
        }
        .to_owned(),
        Formula::Language(code) => {
            format!(
                "code:{}|by:whatlang-0.18",
                code.as_deref().unwrap_or("expected")
            )
        }
    }
}

fn exact(comparison: Comparison, item: &Item<'_>) -> Outcome {
    let output = comparison.prepare(item.output);
    Outcome::yes(
        item.expected
            .iter()
            .any(|one| comparison.prepare(one) == output),
    )
}

fn contains(texts: &[String], mode: Mode, comparison: Comparison, item: &Item<'_>) -> Outcome {
    // An empty text is in every answer and says nothing.
    let mut texts = texts.iter().filter(|text| !text.is_empty()).peekable();
    if texts.peek().is_none() {
        return Outcome::unscored("there is no text to look for");
    }
    let output = comparison.prepare(item.output);
    let mut found = texts.map(|text| output.contains(comparison.prepare(text).as_ref()));
    Outcome::yes(match mode {
        Mode::Any => found.any(|found| found),
        Mode::All => found.all(|found| found),
        Mode::None => !found.any(|found| found),
    })
}

fn json_valid(fenced: bool, item: &Item<'_>) -> Outcome {
    match read_json(item.output, fenced) {
        Ok(_) => Outcome::scored(1.0, None),
        Err(error) => Outcome::scored(0.0, Some(json!({"error": error}))),
    }
}

fn json_schema(validator: &Validator, fenced: bool, item: &Item<'_>) -> Outcome {
    let value = match read_json(item.output, fenced) {
        Ok(value) => value,
        Err(error) => return Outcome::scored(0.0, Some(json!({"error": error}))),
    };
    let errors = json::complaints(validator, &value);
    if errors.is_empty() {
        Outcome::scored(1.0, None)
    } else {
        Outcome::scored(0.0, Some(json!({"errors": errors})))
    }
}

fn json_is_expected(fenced: bool, item: &Item<'_>) -> Outcome {
    let expected: Vec<Value> = item
        .expected
        .iter()
        .filter_map(|one| read_json(one, false).ok())
        .collect();
    if expected.is_empty() {
        return Outcome::unscored("the expected answer is not JSON");
    }
    match read_json(item.output, fenced) {
        Ok(value) => Outcome::yes(expected.iter().any(|one| json_equal(one, &value))),
        Err(error) => Outcome::scored(0.0, Some(json!({"error": error}))),
    }
}

fn numeric(absolute: f64, relative: f64, which: Which, item: &Item<'_>) -> Outcome {
    let expected: Vec<f64> = item
        .expected
        .iter()
        .filter_map(|one| find_number(one, Which::Whole))
        .collect();
    if expected.is_empty() {
        return Outcome::unscored("the expected answer is not a number");
    }
    let Some(found) = find_number(item.output, which) else {
        return Outcome::scored(0.0, Some(json!({"found": null})));
    };
    let near = expected
        .iter()
        .any(|one| is_close(found, *one, absolute, relative));
    Outcome::scored(f64::from(u8::from(near)), Some(json!({"found": found})))
}

fn distance(edits: Edits, measure: Measure, comparison: Comparison, item: &Item<'_>) -> Outcome {
    let output = comparison.prepare(item.output);
    let values = item
        .expected
        .iter()
        .map(|one| string_distance(edits, measure, &output, &comparison.prepare(one)));
    let best = match measure {
        Measure::Distance | Measure::NormalisedDistance => values.reduce(f64::min),
        Measure::Similarity | Measure::NormalisedSimilarity => values.reduce(f64::max),
    };
    best.map_or_else(
        || Outcome::unscored("the example has no expected answer"),
        |best| Outcome::scored(best, None),
    )
}

fn score_rouge(rouge: &Rouge, value: RougeValue, item: &Item<'_>) -> Outcome {
    if let Err(why) = script::check_tokens(&rouge.tokeniser, item) {
        return Outcome::unscored(why);
    }
    match rouge.score(item.output, item.expected) {
        Ok(score) => Outcome::scored(
            match value {
                RougeValue::F => score.f,
                RougeValue::Precision => score.precision,
                RougeValue::Recall => score.recall,
            },
            Some(json!({"precision": score.precision, "recall": score.recall, "f": score.f})),
        )
        .warn(script::warning(&rouge.tokeniser, item.expected)),
        Err(error) => Outcome::unscored(error.to_string()),
    }
}

/// Expected and given label as they are counted.
fn label_pair(
    labels: &Labels,
    inside: bool,
    ignore_case: bool,
    item: &Item<'_>,
) -> Result<Statistics, String> {
    let [expected] = item.expected else {
        return Err("a label needs one expected answer, and only one".to_owned());
    };
    let prepare = |text: &str| {
        let text = crate::text::trim(text);
        if ignore_case {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let (expected, given) = (prepare(expected), prepare(item.output));
    let Some(list) = &labels.list else {
        // Without a list, the only answer that cannot be a label is none.
        let given = if given.is_empty() {
            INVALID.to_owned()
        } else {
            given
        };
        return Ok(Statistics::Labels { expected, given });
    };
    let find = |text: &str| list.iter().find(|label| prepare(label) == text);
    let expected = find(&expected)
        .ok_or_else(|| "the expected label is not on the list".to_owned())?
        .clone();
    let given = find(&given).or_else(|| {
        let mut candidates = list
            .iter()
            .filter(|label| inside && given.contains(&prepare(label)));
        candidates.next().filter(|_| candidates.next().is_none())
    });
    Ok(Statistics::Labels {
        expected,
        given: given.cloned().unwrap_or_else(|| INVALID.to_owned()),
    })
}

fn score_vader(vader: Option<&Vader>, value: VaderValue, item: &Item<'_>) -> Outcome {
    let Some(vader) = vader else {
        return Outcome::unscored(NO_LEXICON);
    };
    if crate::text::trim(item.output).is_empty() {
        return Outcome::unscored("the answer is empty");
    }
    let polarity = vader.polarity(item.output);
    let score = match value {
        VaderValue::Compound => polarity.compound,
        VaderValue::Positive => polarity.positive,
        VaderValue::Neutral => polarity.neutral,
        VaderValue::Negative => polarity.negative,
    };
    let warning = script::without_spaces(item.output)
        .then(|| "VADER knows English; this answer is in another script".to_owned());
    Outcome::scored(score, Some(polarity.detail())).warn(warning)
}

fn score_sentiment(item: &Item<'_>) -> Outcome {
    let found = small_sentiment(item.output);
    let detail = json!({"positive": found.positive, "negative": found.negative});
    found.balance().map_or_else(
        || Outcome::unscored("the answer has no word of the lexicon"),
        |balance| Outcome::scored(balance, Some(detail)),
    )
}

fn length(unit: Unit, item: &Item<'_>) -> Outcome {
    let statistics = text_statistics(item.output);
    let count = match unit {
        Unit::Characters => statistics.characters,
        Unit::Graphemes => statistics.graphemes,
        Unit::Words => statistics.words,
        Unit::Sentences => statistics.sentences,
        Unit::Lines => statistics.lines,
        Unit::Bytes => statistics.bytes,
    };
    Outcome::scored(count as f64, None)
}

fn language(code: Option<&str>, item: &Item<'_>) -> Outcome {
    let of_expected = || detect_language(item.expected.first()?).map(|language| language.code);
    let Some(wanted) = code.or_else(of_expected) else {
        return Outcome::unscored("no language is named and the expected answer shows none");
    };
    match detect_language(item.output) {
        Some(found) => Outcome::scored(
            f64::from(u8::from(found.code == wanted)),
            Some(
                json!({"found": found.code, "confidence": found.confidence, "reliable": found.reliable}),
            ),
        ),
        None => Outcome::unscored("the answer has no letters to tell a language by"),
    }
}

fn with_sum<'a>(
    statistics: impl Iterator<Item = &'a Statistics>,
    score: impl Fn(&[u64]) -> Outcome,
) -> Outcome {
    let mut sum: Vec<u64> = Vec::new();
    for one in statistics {
        if let Statistics::Counts(counts) = one {
            sum.resize(sum.len().max(counts.len()), 0);
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum = sum.saturating_add(*count);
            }
        }
    }
    if sum.is_empty() {
        return Outcome::unscored("no row has a score");
    }
    score(&sum)
}

fn mean<'a>(statistics: impl Iterator<Item = &'a Statistics>) -> Outcome {
    let (mut sum, mut count) = (0.0, 0_u64);
    for one in statistics {
        if let Statistics::Value(value) = one {
            sum += value;
            count += 1;
        }
    }
    if count == 0 {
        return Outcome::unscored("no row has a score");
    }
    Outcome::scored(sum / count as f64, None)
}

fn combine_labels<'a>(
    labels: &Labels,
    statistics: impl Iterator<Item = &'a Statistics> + Clone,
) -> Outcome {
    let pairs = statistics.filter_map(|one| match one {
        Statistics::Labels { expected, given } => Some((expected.as_str(), given.as_str())),
        _ => None,
    });
    let confusion = Confusion::count(pairs, labels.list.as_deref());
    match labels.value(&confusion) {
        Some(value) => Outcome::scored(value, Some(confusion.detail(labels))),
        None if confusion.total() == 0 => Outcome::unscored("no row has a score"),
        None => Outcome::unscored("there is nothing to divide by"),
    }
}
