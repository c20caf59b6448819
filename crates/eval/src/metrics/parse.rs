//! From a definition to a metric. One function per family; the list of metrics says which
//! parameters there are, and nothing else is accepted.

use std::sync::Arc;

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::json::compile_schema;
use super::params::{Params, Problem};
use super::{
    Answers, Average, Bleu, Chrf, Comparison, Edits, Entry, Formula, INVALID, LabelMeasure, Labels,
    METRICS, Measure, Metric, Mode, Retrieval, Rouge, RougeValue, Smoothing, Unit, VaderValue,
    Variant, Which, ZeroDivision,
};
use crate::text::Tokeniser;

pub(super) fn parse(definition: &Value) -> Result<Metric, Problem> {
    let object = definition
        .as_object()
        .ok_or_else(|| Problem::at("", "must be an object with an id"))?;
    let params = Params(object);
    let id = params
        .text("id")?
        .ok_or_else(|| Problem::at("id", "is missing"))?;
    let entry = METRICS
        .iter()
        .find(|entry| entry.id == id)
        .ok_or_else(|| Problem::at("id", format!("no metric is called {id:?}")))?;
    refuse_unknown(entry, object)?;
    Ok(Metric {
        entry,
        formula: formula(id, &params)?,
    })
}

fn refuse_unknown(entry: &Entry, object: &Map<String, Value>) -> Result<(), Problem> {
    let known = |name: &str| name == "id" || entry.parameters.iter().any(|one| one.name == name);
    match object.keys().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let names: Vec<_> = entry.parameters.iter().map(|one| one.name).collect();
            let names = if names.is_empty() {
                "no parameters".to_owned()
            } else {
                names.join(", ")
            };
            Err(Problem::at(name, format!("{} takes {names}", entry.id)))
        }
    }
}

fn formula(id: &str, params: &Params<'_>) -> Result<Formula, Problem> {
    Ok(match id {
        "exact-match" => Formula::Exact(comparison(params)?),
        "contains" => Formula::Contains {
            texts: texts(params)?,
            mode: params.choice(
                "mode",
                &[("any", Mode::Any), ("all", Mode::All), ("none", Mode::None)],
            )?,
            comparison: comparison(params)?,
        },
        "regex" => regex(params)?,
        "json-valid" => Formula::JsonValid {
            fenced: params.flag("fenced", false)?,
        },
        "json-schema" => json_schema(params)?,
        "json-equal" => Formula::JsonEqual {
            fenced: params.flag("fenced", false)?,
        },
        "numeric" => Formula::Numeric {
            absolute: params.number("absolute", 0.0, 1e300)?.unwrap_or(0.0),
            relative: params.number("relative", 0.0, 1e6)?.unwrap_or(0.0),
            which: params.choice(
                "which",
                &[
                    ("last", Which::Last),
                    ("first", Which::First),
                    ("whole", Which::Whole),
                ],
            )?,
        },
        "compat:levenshtein" => distance(Edits::Levenshtein, params)?,
        "compat:indel" => distance(Edits::Indel, params)?,
        "compat:bleu" => Formula::Bleu(bleu(
            params,
            &["13a", "intl", "char", "zh", "ja-mecab", "none"],
        )?),
        "bleu" => Formula::Bleu(bleu(params, &["unicode-word"])?),
        "compat:chrf" => Formula::Chrf(chrf(params)?),
        "compat:rouge" => {
            let stem = params.flag("stem", false)?;
            rouge(Tokeniser::Ascii { stem }, params)?
        }
        "rouge" => rouge(
            tokeniser(params, &["unicode-word", "ja-mecab", "char"])?,
            params,
        )?,
        "compat:accuracy" => labels(LabelMeasure::Accuracy, params)?,
        "compat:precision" => labels(LabelMeasure::Precision, params)?,
        "compat:recall" => labels(LabelMeasure::Recall, params)?,
        "compat:f" => labels(LabelMeasure::FBeta, params)?,
        "hit-rate" => retrieval(Retrieval::HitRate, params)?,
        "mrr" => retrieval(Retrieval::ReciprocalRank, params)?,
        "ndcg" => retrieval(Retrieval::Ndcg, params)?,
        "precision-at-k" => retrieval(Retrieval::Precision, params)?,
        "recall-at-k" => retrieval(Retrieval::Recall, params)?,
        "context-precision" => retrieval(Retrieval::ContextPrecision, params)?,
        "context-recall-similar" => retrieval(Retrieval::SimilarRecall, params)?,
        "compat:vader" => Formula::Vader {
            value: params.choice(
                "value",
                &[
                    ("compound", VaderValue::Compound),
                    ("positive", VaderValue::Positive),
                    ("neutral", VaderValue::Neutral),
                    ("negative", VaderValue::Negative),
                ],
            )?,
            vader: None,
        },
        "sentiment" => Formula::Sentiment,
        "refusal" => Formula::Refusal,
        "toxicity" => Formula::Toxicity,
        "length" => Formula::Length(params.choice(
            "unit",
            &[
                ("characters", Unit::Characters),
                ("graphemes", Unit::Graphemes),
                ("words", Unit::Words),
                ("sentences", Unit::Sentences),
                ("lines", Unit::Lines),
                ("bytes", Unit::Bytes),
            ],
        )?),
        "language" => Formula::Language(params.text("code")?.map(str::to_owned)),
        _ => return Err(Problem::at("id", format!("no metric is called {id:?}"))),
    })
}

fn comparison(params: &Params<'_>) -> Result<Comparison, Problem> {
    Ok(Comparison {
        ignore_case: params.flag("ignore_case", false)?,
        nfkc: params.flag("nfkc", false)?,
        collapse_whitespace: params.flag("collapse_whitespace", false)?,
    })
}

fn texts(params: &Params<'_>) -> Result<Option<Vec<String>>, Problem> {
    let texts = params.texts("texts")?;
    if texts
        .as_ref()
        .is_some_and(|texts| texts.iter().any(String::is_empty) || texts.is_empty())
    {
        return Err(Problem::at(
            "texts",
            "must have at least one text, and none that is empty",
        ));
    }
    Ok(texts)
}

fn regex(params: &Params<'_>) -> Result<Formula, Problem> {
    let pattern = params
        .text("pattern")?
        .ok_or_else(|| Problem::at("pattern", "is missing"))?;
    let whole = params.choice("find", &[("anywhere", false), ("whole", true)])?;
    let ignore_case = params.flag("ignore_case", false)?;
    let full = if whole {
        format!(r"\A(?:{pattern})\z")
    } else {
        pattern.to_owned()
    };
    let regex = RegexBuilder::new(&full)
        .case_insensitive(ignore_case)
        .build()
        .map_err(|error| Problem::at("pattern", error.to_string()))?;
    Ok(Formula::Regex {
        regex,
        pattern: pattern.to_owned(),
        whole,
        ignore_case,
    })
}

fn json_schema(params: &Params<'_>) -> Result<Formula, Problem> {
    let schema = params
        .get("schema")
        .ok_or_else(|| Problem::at("schema", "is missing"))?;
    if has_reference(schema) {
        // References can go round in circles, which a validator follows for ever.
        return Err(Problem::at("schema", "references are not allowed here"));
    }
    let digest =
        base::Digest::of_json(schema).map_err(|error| Problem::at("schema", error.to_string()))?;
    Ok(Formula::JsonSchema {
        validator: Arc::new(compile_schema(schema)?),
        digest: digest.to_string(),
        fenced: params.flag("fenced", false)?,
    })
}

fn has_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => object.iter().any(|(name, value)| {
            matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") && value.is_string()
                || has_reference(value)
        }),
        Value::Array(array) => array.iter().any(has_reference),
        _ => false,
    }
}

fn distance(edits: Edits, params: &Params<'_>) -> Result<Formula, Problem> {
    Ok(Formula::Distance {
        edits,
        measure: params.choice(
            "measure",
            &[
                ("normalised_similarity", Measure::NormalisedSimilarity),
                ("normalised_distance", Measure::NormalisedDistance),
                ("distance", Measure::Distance),
                ("similarity", Measure::Similarity),
            ],
        )?,
        comparison: comparison(params)?,
    })
}

fn tokeniser(params: &Params<'_>, allowed: &[&str]) -> Result<Tokeniser, Problem> {
    let name = params.text("tokeniser")?.unwrap_or(allowed[0]);
    Some(name)
        .filter(|name| allowed.contains(name))
        .and_then(Tokeniser::parse)
        .ok_or_else(|| {
            Problem::at(
                "tokeniser",
                format!("must be one of {}", allowed.join(", ")),
            )
        })
}

fn bleu(params: &Params<'_>, tokenisers: &[&str]) -> Result<Bleu, Problem> {
    let value = params.number("smooth_value", 0.0, 100.0)?;
    let smoothing = params.choice(
        "smooth",
        &[
            ("exp", Smoothing::Exp),
            ("floor", Smoothing::Floor(value.unwrap_or(0.1))),
            ("add-k", Smoothing::AddK(value.unwrap_or(1.0))),
            ("none", Smoothing::None),
        ],
    )?;
    if value.is_some() && matches!(smoothing, Smoothing::Exp | Smoothing::None) {
        return Err(Problem::at("smooth_value", "is only for floor and add-k"));
    }
    Ok(Bleu {
        tokeniser: tokeniser(params, tokenisers)?,
        lowercase: params.flag("lowercase", false)?,
        smoothing,
        effective_order: params.flag("effective_order", false)?,
        max_order: params.count("max_order", 1, 4)?.unwrap_or(4),
    })
}

fn chrf(params: &Params<'_>) -> Result<Chrf, Problem> {
    Ok(Chrf {
        character_order: params.count("char_order", 1, 6)?.unwrap_or(6),
        word_order: params.count("word_order", 0, 4)?.unwrap_or(0),
        beta: params.count("beta", 1, 100)?.unwrap_or(2) as u32,
        lowercase: params.flag("lowercase", false)?,
        whitespace: params.flag("whitespace", false)?,
        epsilon_smoothing: params.flag("eps_smoothing", false)?,
    })
}

fn rouge(tokeniser: Tokeniser, params: &Params<'_>) -> Result<Formula, Problem> {
    let variant = params.choice(
        "variant",
        &[
            ("1", Variant::N(1)),
            ("2", Variant::N(2)),
            ("3", Variant::N(3)),
            ("4", Variant::N(4)),
            ("L", Variant::L),
            ("Lsum", Variant::Lsum),
        ],
    )?;
    let value = params.choice(
        "value",
        &[
            ("f", RougeValue::F),
            ("precision", RougeValue::Precision),
            ("recall", RougeValue::Recall),
        ],
    )?;
    Ok(Formula::Rouge {
        rouge: Rouge { variant, tokeniser },
        value,
    })
}

fn labels(measure: LabelMeasure, params: &Params<'_>) -> Result<Formula, Problem> {
    let list = params.texts("labels")?;
    let ignore_case = params.flag("ignore_case", false)?;
    if let Some(list) = &list {
        check_labels(list, ignore_case)?;
    }
    let inside = params.choice("find", &[("whole", false), ("inside", true)])?;
    if inside && list.is_none() {
        return Err(Problem::at("find", "inside needs a list of labels"));
    }
    let average = params.choice(
        "average",
        &[
            ("macro", Average::Macro),
            ("micro", Average::Micro),
            ("weighted", Average::Weighted),
            ("binary", Average::Binary),
        ],
    )?;
    let positive = params.text("positive")?.map(str::to_owned);
    match (&positive, &list) {
        (None, _) if average == Average::Binary => {
            return Err(Problem::at(
                "positive",
                "is missing: the average binary is of one class",
            ));
        }
        (Some(positive), Some(list)) if !list.contains(positive) => {
            return Err(Problem::at("positive", "must be one of the labels"));
        }
        _ => {}
    }
    Ok(Formula::Labels {
        labels: Labels {
            measure,
            average,
            beta: params.number("beta", 0.001, 1000.0)?.unwrap_or(1.0),
            zero_division: params.choice(
                "zero_division",
                &[
                    ("0", ZeroDivision::Zero),
                    ("1", ZeroDivision::One),
                    ("nan", ZeroDivision::Leave),
                ],
            )?,
            answers: params.choice(
                "answers",
                &[("strict", Answers::Strict), ("answered", Answers::Answered)],
            )?,
            list,
            positive,
        },
        inside,
        ignore_case,
    })
}

fn check_labels(list: &[String], ignore_case: bool) -> Result<(), Problem> {
    let mut seen = std::collections::HashSet::new();
    for label in list {
        let key = if ignore_case {
            label.to_lowercase()
        } else {
            label.clone()
        };
        if label == INVALID || crate::text::trim(label) != label || label.is_empty() {
            return Err(Problem::at(
                "labels",
                format!("{label:?} cannot be a label"),
            ));
        }
        if !seen.insert(key) {
            return Err(Problem::at("labels", format!("{label:?} is there twice")));
        }
    }
    if list.is_empty() {
        return Err(Problem::at("labels", "must not be empty"));
    }
    Ok(())
}

fn retrieval(measure: Retrieval, params: &Params<'_>) -> Result<Formula, Problem> {
    Ok(Formula::Retrieval {
        measure,
        k: params.count("k", 1, 1_000_000)?,
    })
}
