//! From evaluations and figures to what the templates are given, and how figures read.

use serde_json::{Value, json};

use super::api::left_s;
use super::results::{CellFigures, ComparisonJson, DifferenceRow, EvaluatorFigures, Slice};
use super::{Evaluation, ExampleDetail, Outcome, Results, gate};
use crate::datasets::Example;
use crate::evaluators::text_of;
use crate::ui::PageContext;

/// How much of a text a row shows.
const PREVIEW_CHARS: usize = 160;

/// A text as part of an address.
pub(crate) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn show_href(page: &PageContext, id: &str) -> String {
    format!("{}/evaluations/show?id={}", page.root(), encode(id))
}

fn example_href(
    page: &PageContext,
    evaluation: &Evaluation,
    chosen: (usize, usize),
    place: i64,
) -> String {
    let (evaluator, candidate) = names_of(evaluation, chosen);
    format!(
        "{}/evaluations/example?id={}&place={place}&evaluator={}&candidate={}",
        page.root(),
        encode(&evaluation.id),
        encode(&evaluator),
        encode(&candidate)
    )
}

fn names_of(evaluation: &Evaluation, (evaluator, candidate): (usize, usize)) -> (String, String) {
    let evaluator = evaluation.pinned.evaluators.get(evaluator);
    let candidate = evaluation.document.candidates.get(candidate);
    (
        evaluator.map(|one| one.name.clone()).unwrap_or_default(),
        candidate.map(|one| one.name.clone()).unwrap_or_default(),
    )
}

/// A figure with as many digits as tell something.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// A difference, with its sign.
pub(crate) fn signed(value: f64) -> String {
    let text = figure(value.abs());
    match value {
        value if value < 0.0 => format!("−{text}"),
        value if value > 0.0 => format!("+{text}"),
        _ => text,
    }
}

pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// What an evaluation is called.
fn title(page: &PageContext, evaluation: &Evaluation) -> String {
    match evaluation.suite.as_str() {
        "" => page.t_with(
            "evaluations-of",
            &[("dataset", &evaluation.pinned.dataset.name)],
        ),
        suite => without_id(suite).to_owned(),
    }
}

/// A round of a choice bears the choice's id, which tells people nothing.
fn without_id(suite: &str) -> &str {
    let id_of =
        |text: &str| text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let found = suite
        .strip_suffix(')')
        .and_then(|text| text.rsplit_once(" ("));
    found
        .filter(|(_, id)| id_of(id))
        .map_or(suite, |(name, _)| name)
}

/// A row of the list.
pub(super) fn list_row(page: &PageContext, evaluation: &Evaluation) -> Value {
    let counters = &evaluation.counters;
    let gates: Vec<gate::GateResult> = evaluation
        .gates
        .clone()
        .and_then(|gates| serde_json::from_value(gates).ok())
        .unwrap_or_default();
    json!({
        "href": show_href(page, &evaluation.id), "title": title(page, evaluation), "state": evaluation.state.name(),
        "dataset": evaluation.pinned.dataset.name, "examples": counters.examples,
        "candidates": evaluation.document.candidates.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        "done": counters.answers_ok + counters.answers_failed, "total": counters.answers_total,
        "errors": counters.answers_failed, "spent": evaluation.spent.0, "created_at": evaluation.created_at,
        "gate": match gates.is_empty() { true => Value::Null, false => json!(gate::all_pass(&gates)) },
    })
}

/// The page of one evaluation, without its examples and slices.
pub(super) fn show_view(
    page: &PageContext,
    evaluation: &Evaluation,
    results: &Results,
    chosen: (usize, usize),
) -> Value {
    let counters = &evaluation.counters;
    let (evaluator, candidate) = names_of(evaluation, chosen);
    let href = show_href(page, &evaluation.id);
    let scored = counters.scores_ok + counters.scores_error + counters.scores_unscored;
    let gates = gate::judge(&evaluation.document.gate, results);
    let traces = |name: &str| {
        let filter = format!(
            "tag.evaluation = \"{}\" and tag.candidate = \"{}\"",
            evaluation.id,
            name.replace('"', "\\\"")
        );
        format!(
            "{}/traces?range=30d&filter={}",
            page.root(),
            encode(&filter)
        )
    };
    let pick = |evaluator: &str, candidate: &str| {
        format!(
            "{href}&evaluator={}&candidate={}",
            encode(evaluator),
            encode(candidate)
        )
    };
    let dataset = &evaluation.pinned.dataset;
    json!({
        "id": evaluation.id, "href": href, "self_href": pick(&evaluator, &candidate), "title": title(page, evaluation), "suite": evaluation.suite,
        "suite_version": evaluation.suite_version, "state": evaluation.state.name(), "reason": evaluation.reason,
        "active": evaluation.state.is_active(), "final": evaluation.state.is_final(),
        "dataset": {"name": dataset.name, "version": dataset.number, "split": evaluation.document.split,
            "href": format!("{}/datasets/show?name={}", page.root(), encode(&dataset.name))},
        "again_href": format!("{}/evaluations/new?like={}", page.root(), encode(&evaluation.id)),
        "counters": counters, "answers_done": counters.answers_ok + counters.answers_failed, "scores_done": scored,
        "spent": evaluation.spent.0, "unpriced": evaluation.unpriced,
        "budget": evaluation.document.budget_usd.map(|usd| format!("${usd}")), "left_s": left_s(evaluation),
        "created_at": evaluation.created_at, "started_at": evaluation.started_at, "ended_at": evaluation.ended_at,
        "worked_us": evaluation.worked_us, "warnings": super::Warning::all_words(page, &evaluation.pinned.warnings), "baseline": results.baseline,
        "repeats": evaluation.document.repeats, "clustered": evaluation.document.cluster_by,
        "candidates": results.candidates.iter().map(|one| json!({
            "name": one.name, "baseline": one.name == results.baseline, "answers": one.answers, "errors": one.errors,
            "error_kinds": one.error_kinds.iter().map(|(kind, count)| format!("{kind} × {count}")).collect::<Vec<_>>(),
            "tokens": one.mean_input_tokens.zip(one.mean_output_tokens).map(|(input, output)| format!("{input:.0} + {output:.0}")),
            "cost": one.mean_cost_usd.map(nano), "p50": one.p50_latency_ms.map(micros), "p95": one.p95_latency_ms.map(micros),
            "traces_href": traces(&one.name),
        })).collect::<Vec<_>>(),
        "matrix": results.evaluators.iter().map(|one| json!({
            "name": one.name, "type": one.r#type, "signature": one.signature,
            "calibration_href": format!("{}/calibration?evaluation={}&evaluator={}", page.root(), encode(&evaluation.id), encode(&one.name)),
            "better": one.better, "pairwise": one.pairwise,
            "of_corpus": one.of_corpus, "margin": (one.margin > 0.0).then(|| figure(one.margin)),
            "cells": one.cells.iter().map(|cell| cell_view(page, one, cell, &results.baseline, pick(&one.name, &cell.candidate))).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "gates": gates.iter().map(|one| json!({
            "evaluator": one.evaluator, "candidate": one.candidate, "rule": one.rule, "limit": figure(one.limit),
            "bound": one.bound.map(figure), "outcome": one.outcome, "reason": why(page, one), "baseline": one.baseline,
        })).collect::<Vec<_>>(),
        "gates_final": evaluation.gates.is_some(),
        "evaluator": evaluator, "candidate": candidate,
        "evaluators": results.evaluators.iter().map(|one| json!({"value": one.name, "label": one.name})).collect::<Vec<_>>(),
        "others": results.candidates.iter().filter(|one| one.name != results.baseline || results.candidates.len() == 1)
            .map(|one| json!({"value": one.name, "label": one.name})).collect::<Vec<_>>(),
    })
}

/// Why a gate stands as it does, in the reader's language.
fn why(page: &PageContext, result: &gate::GateResult) -> String {
    let Some(why) = &result.why else {
        return result.reason.clone();
    };
    let (key, arguments) = why.message();
    let arguments: Vec<(&'static str, &str)> = arguments
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    page.t_with(key, &arguments)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "dollars and milliseconds of one call"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "dollars and milliseconds of one call"
)]
fn micros(ms: f64) -> i64 {
    (ms * 1000.0) as i64
}

fn cell_view(
    page: &PageContext,
    evaluator: &EvaluatorFigures,
    cell: &CellFigures,
    baseline: &str,
    href: String,
) -> Value {
    json!({
        "candidate": cell.candidate, "baseline": cell.candidate == baseline, "href": href,
        "value": cell.value.map(figure), "low": cell.low.map(figure), "high": cell.high.map(figure),
        "interval": cell.interval, "scored": cell.scored, "errors": cell.errors, "unscored": cell.unscored,
        "coverage": cell.coverage.map(percent), "complete": cell.coverage.is_none_or(|share| share >= 1.0),
        "swap": cell.swap_consistency.map(percent), "pass_at_k": cell.pass_at_k.map(percent),
        "pass_all_k": cell.pass_all_k.map(percent),
        "comparison": cell.comparison.as_ref().map(|found| comparison_view(page, found, evaluator.pairwise)),
    })
}

/// A comparison in words and numbers.
/// A comparison, as templates show it.
pub(crate) fn comparison_view(page: &PageContext, found: &ComparisonJson, pairwise: bool) -> Value {
    let (low, high) = (found.low.map(signed), found.high.map(signed));
    let range = low.zip(high).map(|(low, high)| format!("{low} … {high}"));
    let difference = signed(found.difference);
    let range_text = range.clone().unwrap_or_else(|| "–".to_owned());
    let detectable = found
        .detectable
        .map(figure)
        .unwrap_or_else(|| "–".to_owned());
    // "Worse by" says the direction already.
    let size = match found.verdict.as_ref() {
        "better" | "worse" => figure(found.difference.abs()),
        _ => difference.clone(),
    };
    let args: [(&'static str, &str); 3] = [
        ("difference", &size),
        ("range", &range_text),
        ("detectable", &detectable),
    ];
    let words = match found.verdict.as_ref() {
        "better" => page.t_with("evaluations-says-better", &args),
        "worse" => page.t_with("evaluations-says-worse", &args),
        "equivalent" => page.t_with("evaluations-says-equivalent", &args),
        "no_difference_shown" if found.detectable.is_none() => {
            page.t_with("evaluations-says-same", &args)
        }
        "no_difference_shown" => page.t_with("evaluations-says-none", &args),
        _ => page.t_with("evaluations-says-little", &args),
    };
    let kind = match found.verdict.as_ref() {
        "better" => "ok",
        "worse" => "err",
        "equivalent" => "info",
        _ => "",
    };
    json!({
        "verdict": found.verdict, "kind": kind, "words": words, "difference": difference, "range": range,
        "p_value": p_value(found.adjusted_p_value.unwrap_or(found.p_value)), "adjusted": found.adjusted_p_value.is_some(),
        "detectable": found.detectable.map(figure), "wins": found.wins, "losses": found.losses, "ties": found.ties,
        "rows": found.rows, "units": found.units, "method": found.method, "cautions": found.cautions, "pairwise": pairwise,
    })
}

fn p_value(p: f64) -> String {
    if p < 0.001 {
        "< 0.001".to_owned()
    } else {
        format!("{p:.3}")
    }
}

/// A row of the examples.
pub(super) fn region_row(
    page: &PageContext,
    evaluation: &Evaluation,
    evaluator: usize,
    candidate: usize,
    row: &DifferenceRow,
    example: Option<&Example>,
) -> Value {
    let input = example.map(|example| preview(&text_of(&example.input)));
    json!({
        "href": example_href(page, evaluation, (evaluator, candidate), row.place), "place": row.place + 1,
        "id": example.map(|example| example.id.clone()), "input": input,
        "baseline": row.baseline.map(figure), "candidate": row.candidate.map(figure), "gain": row.gain.map(signed),
        "kind": match row.gain { Some(gain) if gain < 0.0 => "worse", Some(gain) if gain > 0.0 => "better", Some(_) => "same", None => "none" },
    })
}

fn preview(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(PREVIEW_CHARS + 1)
        .collect();
    match line.chars().count() > PREVIEW_CHARS {
        true => format!("{}…", line.chars().take(PREVIEW_CHARS).collect::<String>()),
        false => line,
    }
}

/// A slice's row.
pub(super) fn slice_view(page: &PageContext, slice: &Slice) -> Value {
    json!({
        "value": slice.value, "examples": slice.examples,
        "cells": slice.means.iter().zip(&slice.comparisons).map(|(mean, comparison)| json!({
            "value": mean.map(figure),
            // A candidate without a score there differs by nothing that could be said.
            "comparison": mean.and(comparison.as_ref()).map(|found| comparison_view(page, found, false)),
        })).collect::<Vec<_>>(),
    })
}

/// One example with everything that was answered and scored.
pub(super) fn example_view(
    page: &PageContext,
    evaluation: &Evaluation,
    chosen: (usize, usize),
    place: i64,
    detail: &ExampleDetail,
    before: Option<i64>,
    after: Option<i64>,
) -> Value {
    let root = page.root();
    let trace_href = |trace: &str| (!trace.is_empty()).then(|| format!("{root}/traces/{trace}"));
    let (evaluator, candidate) = names_of(evaluation, chosen);
    let example = &detail.example;
    let pretty = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    };
    let answers: Vec<Value> = detail
        .answers
        .iter()
        .map(|answer| {
            let scores: Vec<Value> = detail
                .scores
                .iter()
                .filter(|score| score.cell == answer.cell)
                .map(|score| {
                    let evaluator = evaluation.pinned.evaluators.get(score.evaluator);
                    let raw = (!score.detail.is_null() && score.detail != json!({}))
                        .then(|| serde_json::to_string_pretty(&score.detail).unwrap_or_default());
                    json!({
                        "evaluator": evaluator.map(|one| one.name.as_str()), "outcome": score.outcome.name(),
                        "value": match score.outcome { Outcome::Scored(value) => Some(figure(value)), _ => None },
                        "label": score.label, "reason": score.reason, "cached": score.cached, "raw": raw,
                        "trace_href": score.trace.as_deref().and_then(trace_href),
                    })
                })
                .collect();
            let problem = answer.answer.as_ref().err();
            json!({
                "candidate": evaluation.document.candidates.get(answer.cell.candidate).map(|one| one.name.as_str()),
                "baseline": answer.cell.candidate == evaluation.document.baseline(),
                "repetition": answer.cell.repetition + 1, "text": answer.answer.as_ref().ok(),
                "error": problem.map(|problem| problem.kind.as_str()), "message": problem.map(|problem| problem.message.as_str()),
                "trace_href": trace_href(&answer.trace), "cost": answer.cost, "latency_us": answer.latency_us,
                "tokens": format!("{} + {}", answer.input_tokens, answer.output_tokens), "cached": answer.cached,
                "attempts": answer.attempts, "scores": scores,
            })
        })
        .collect();
    json!({
        "title": title(page, evaluation), "href": show_href(page, &evaluation.id), "place": place + 1, "id": example.id,
        "evaluator": evaluator, "candidate": candidate, "repeats": evaluation.document.repeats,
        "input": pretty(&example.input), "expected": example.expected.as_ref().map(pretty), "context": example.context,
        "metadata": example.metadata.iter().map(|(name, value)| json!({"name": name, "value": text_of(value)})).collect::<Vec<_>>(),
        "answers": answers,
        "prev_href": before.map(|place| example_href(page, evaluation, chosen, place)),
        "next_href": after.map(|place| example_href(page, evaluation, chosen, place)),
    })
}
