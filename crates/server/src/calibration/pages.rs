//! The page of a judge's calibration.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Calibration, CalibrationRequest, Choices, ENOUGH_PAIRS, Figure, Headline, ScaleWord,
    VersionJson,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::ui::PageContext;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    vec![Route::get("/{project}/calibration", read, show)]
}

#[derive(Debug, Deserialize)]
struct ShowQuery {
    evaluator: Option<String>,
    evaluation: Option<String>,
    against: Option<String>,
    scale: Option<String>,
    judge_at_least: Option<String>,
    people_at_least: Option<String>,
    /// The version whose table is shown.
    version: Option<String>,
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let evaluation = filled(query.evaluation.as_ref());
    let choices = super::choices(&app, scope, evaluation).await?;
    let evaluator = filled(query.evaluator.as_ref());
    let against = filled(query.against.as_ref());
    // One thing to choose from is no choice.
    let evaluator = evaluator.or(match choices.evaluators.as_slice() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let request = match (evaluator, against) {
        (Some(evaluator), Some(against)) => Some(request(&query, evaluator, against)?),
        _ => None,
    };
    let found = match &request {
        Some(request) => Some(super::calibrate(&app, scope, request).await?),
        None => None,
    };
    let view = view(&page, &query, &choices, evaluator, found.as_ref());
    page.render("calibration/show.html", view).await
}

fn request(query: &ShowQuery, evaluator: &str, against: &str) -> Result<CalibrationRequest> {
    let number = |field: &str, text: Option<&String>| -> Result<Option<f64>> {
        let Some(text) = filled(text) else {
            return Ok(None);
        };
        let wrong = || AppError::invalid(format!("{text:?} is no number")).at(field.to_owned());
        text.parse().map(Some).map_err(|_| wrong())
    };
    let scale = match filled(query.scale.as_ref()) {
        None => None,
        Some("labels") => Some(ScaleWord::Labels),
        Some("grades") => Some(ScaleWord::Grades),
        Some("pass") => Some(ScaleWord::Pass),
        Some("numbers") => Some(ScaleWord::Numbers),
        Some(other) => {
            return Err(AppError::invalid(format!("there is no scale {other:?}")).at("scale"));
        }
    };
    // Thresholds belong to yes and no; with another scale they say nothing.
    let thresholds = matches!(scale, None | Some(ScaleWord::Pass));
    let least = |field: &str, text: Option<&String>| match thresholds {
        true => number(field, text),
        false => Ok(None),
    };
    Ok(CalibrationRequest {
        evaluator: evaluator.to_owned(),
        evaluation: filled(query.evaluation.as_ref()).map(str::to_owned),
        against: against.to_owned(),
        scale,
        judge_at_least: least("judge_at_least", query.judge_at_least.as_ref())?,
        people_at_least: least("people_at_least", query.people_at_least.as_ref())?,
    })
}

fn view(
    page: &PageContext,
    query: &ShowQuery,
    choices: &Choices,
    evaluator: Option<&str>,
    found: Option<&Calibration>,
) -> Value {
    let root = page.root();
    let option = |text: &String| json!({"value": text, "label": text});
    let with_none = |list: &[String]| {
        let mut options = vec![json!({"value": "", "label": "–"})];
        options.extend(list.iter().map(option));
        options
    };
    let against = |text: &String| {
        let label = match text.as_str() {
            "expected" => page.t("calibration-expected"),
            text => match text.split_once(':') {
                Some((_, name)) => page.t_with("calibration-score", &[("name", name)]),
                None => text.to_owned(),
            },
        };
        json!({"value": text, "label": label})
    };
    let mut places = vec![json!({"value": "", "label": "–"})];
    places.extend(choices.against.iter().map(against));
    let scales: Vec<Value> = ["", "labels", "grades", "pass", "numbers"]
        .map(|word| {
            let key = match word {
                "" => "calibration-scale-auto".to_owned(),
                word => format!("calibration-scale-{word}"),
            };
            json!({"value": word, "label": page.t(&key)})
        })
        .to_vec();
    let evaluation = filled(query.evaluation.as_ref());
    let chosen = |text: Option<&String>| filled(text).unwrap_or_default().to_owned();
    let threshold = |text: Option<&String>, found: Option<f64>| match filled(text) {
        Some(text) => text.to_owned(),
        None => found.map(|least| least.to_string()).unwrap_or_default(),
    };
    let scale = found.map(|found| &found.scale);
    json!({
        "evaluator": evaluator.unwrap_or_default(), "against": chosen(query.against.as_ref()),
        "evaluation": evaluation,
        "evaluation_href": evaluation.map(|id| format!("{root}/evaluations/show?id={}", encode(id))),
        "evaluators": with_none(&choices.evaluators), "places": places, "scales": scales,
        "can_choose": !choices.evaluators.is_empty() && !choices.against.is_empty(),
        "scale": chosen(query.scale.as_ref()),
        "scale_used": scale.map(|scale| scale.kind.name()),
        "judge_at_least": threshold(query.judge_at_least.as_ref(), scale.and_then(|scale| scale.judge_at_least)),
        "people_at_least": threshold(query.people_at_least.as_ref(), scale.and_then(|scale| scale.people_at_least)),
        "enough": ENOUGH_PAIRS,
        "result": found.map(|found| result(page, query, found)),
    })
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The address of this view with another version's table.
fn version_href(page: &PageContext, query: &ShowQuery, digest: &str) -> String {
    let mut to = url::form_urlencoded::Serializer::new(String::new());
    let fields = [
        ("evaluator", query.evaluator.as_ref()),
        ("evaluation", query.evaluation.as_ref()),
        ("against", query.against.as_ref()),
        ("scale", query.scale.as_ref()),
        ("judge_at_least", query.judge_at_least.as_ref()),
        ("people_at_least", query.people_at_least.as_ref()),
    ];
    for (name, value) in fields {
        if let Some(value) = filled(value) {
            to.append_pair(name, value);
        }
    }
    to.append_pair("version", digest);
    format!("{}/calibration?{}#version", page.root(), to.finish())
}

fn result(page: &PageContext, query: &ShowQuery, found: &Calibration) -> Value {
    let wanted = filled(query.version.as_ref());
    let named = |wanted: &str| found.versions.iter().find(|one| one.digest == wanted);
    // The newest one with something to show.
    let shown = wanted
        .and_then(named)
        .or_else(|| found.versions.iter().find(|one| one.figures.pairs > 0))
        .or_else(|| found.versions.first());
    let digest = shown.map(|one| one.digest.as_str()).unwrap_or_default();
    let versions: Vec<Value> = found
        .versions
        .iter()
        .map(|one| {
            let mut row = version_row(page, one);
            row["href"] = json!(version_href(page, query, &one.digest));
            row["selected"] = json!(one.digest == digest);
            row
        })
        .collect();
    let current = found.versions.iter().find(|one| one.current);
    json!({
        "versions": versions, "ordered": found.scale.ordered && found.scale.categories.len() > 2,
        "without_baseline": current.is_some_and(|one| !one.is_baseline),
        "current_pairs": current.map(|one| one.figures.pairs),
        "shown": shown.map(|one| version_detail(page, found, one)),
    })
}

fn version_row(page: &PageContext, version: &VersionJson) -> Value {
    let figures = &version.figures;
    json!({
        "digest": version.digest, "number": version.version, "current": version.current,
        "is_baseline": version.is_baseline, "signature": version.signature,
        "evaluation_href": version.evaluation.as_ref().map(|id| format!("{}/evaluations/show?id={}", page.root(), encode(id))),
        "judged": figures.judged, "pairs": figures.pairs, "split": figures.split,
        "agreement": figures.agreement.as_ref().map(percent), "kappa": figures.kappa.as_ref().map(number),
        "kappa_kind": figures.kappa.as_ref().map(|kappa| kind_of(kappa.value)),
        "weighted_kappa": figures.weighted_kappa.as_ref().map(number),
        "alpha": figures.alpha.map(|alpha| format!("{alpha:.2}")),
        "alpha_people": figures.alpha_people.map(|alpha| format!("{alpha:.2}")),
        "bias": figures.bias.as_ref().map(signed),
    })
}

/// How people speak of a κ: the words of Landis and Koch, without their false precision.
fn kind_of(kappa: f64) -> &'static str {
    match kappa {
        kappa if kappa >= 0.6 => "ok",
        kappa if kappa >= 0.4 => "warn",
        _ => "err",
    }
}

fn figure(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.as_str() {
        "-0.00" => "0.00".to_owned(),
        _ => text.replace('-', "−"),
    }
}

fn number(found: &Figure) -> Value {
    json!({"value": figure(found.value), "low": found.low.map(figure), "high": found.high.map(figure)})
}

fn signed(found: &Figure) -> Value {
    let plus = |value: f64| match value > 0.005 {
        true => format!("+{}", figure(value)),
        false => figure(value),
    };
    json!({"value": plus(found.value), "low": found.low.map(plus), "high": found.high.map(plus)})
}

fn percent(found: &Figure) -> Value {
    let share = |value: f64| format!("{:.0} %", value * 100.0);
    json!({"value": share(found.value), "low": found.low.map(share), "high": found.high.map(share)})
}

fn version_detail(page: &PageContext, found: &Calibration, version: &VersionJson) -> Value {
    let figures = &version.figures;
    let name = |name: &String| match found.scale.kind {
        ScaleWord::Pass => page.t(&format!("calibration-{name}")),
        _ => name.clone(),
    };
    let names: Vec<String> = found.scale.categories.iter().map(name).collect();
    let most = figures.confusion.iter().flatten().max().copied();
    let rows: Vec<Value> = figures
        .confusion
        .iter()
        .zip(&names)
        .enumerate()
        .map(|(at, (counts, name))| {
            let cells: Vec<Value> = counts
                .iter()
                .enumerate()
                .map(|(column, count)| json!({"count": count, "same": at == column, "shade": shade(*count, most.unwrap_or(0))}))
                .collect();
            let total: u64 = counts.iter().sum();
            json!({"name": name, "cells": cells, "total": total})
        })
        .collect();
    let labels: Vec<Value> = figures
        .labels
        .iter()
        .zip(&names)
        .map(|(one, name)| {
            json!({"name": name, "people": one.people, "judge": one.judge, "both": one.both,
                "agreement": one.agreement.map(|share| format!("{:.0} %", share * 100.0))})
        })
        .collect();
    let share = found.scale.kind == ScaleWord::Pass;
    json!({
        "digest": version.digest, "number": version.version, "pairs": figures.pairs, "split": figures.split,
        "signature": version.signature, "raters": figures.raters,
        "names": names, "confusion": rows, "any": most.is_some_and(|most| most > 0), "labels": labels,
        "headlines": figures.headlines.iter().map(|one| headline(one, share)).collect::<Vec<_>>(),
        "swap": version.swap.as_ref().map(|swap| json!({
            "pairs": swap.pairs, "consistent": swap.consistent, "share": percent(&swap.share),
            "first_place": swap.first_place, "second_place": swap.second_place,
            "p_value": swap.place_p_value.map(|p| format!("{p:.3}")),
            "leans": swap.place_p_value.is_some_and(|p| p < 0.05),
        })),
    })
}

/// How dark a cell is, in four steps: classes of the style sheet.
fn shade(count: u64, most: u64) -> u64 {
    match count {
        0 => 0,
        count => (count * 4).div_ceil(most.max(1)),
    }
}

fn headline(one: &Headline, share: bool) -> Value {
    let of = |found: &Figure| match share {
        true => percent(found),
        false => number(found),
    };
    json!({
        "candidate": one.candidate, "raw": of(&one.raw), "corrected": one.corrected.as_ref().map(of),
        "people": one.people.as_ref().map(of), "labelled": one.labelled, "unlabelled": one.unlabelled,
        "trust": format!("{:.0} %", one.trust * 100.0),
    })
}
