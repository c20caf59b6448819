//! From runs and results to what the templates are given, and how figures read.

use serde_json::{Value, json};

use super::document::{
    ArmDocument, Direction, ExperimentDocument, Forbidden, Metric, MetricKind, Mode, TargetKind,
};
use super::{Comparison, Figure, GuardResult, Results, Run, RunArm, RunState};
use crate::ui::PageContext;

/// A value of a metric on its own scale.
fn amount(metric: &str, value: f64) -> String {
    match metric {
        "latency" if value < 10.0 => format!("{value:.1} ms"),
        "latency" if value < 1000.0 => format!("{value:.0} ms"),
        "latency" => format!("{:.2} s", value / 1000.0),
        "cost" => dollars(value),
        "error_rate" | "blocked_rate" => format!("{:.1} %", value * 100.0),
        _ => format!("{value:.3}"),
    }
}

fn dollars(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    let size = value.abs();
    if size == 0.0 {
        "$0".to_owned()
    } else if size >= 0.01 {
        format!("{sign}${size:.2}")
    } else {
        format!("{sign}${size:.6}")
    }
}

/// A difference or ratio, with its sign.
fn change(metric: &str, scale: &str, value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "+" };
    let size = value.abs();
    match (scale, metric) {
        ("ratio", _) => format!("{sign}{:.1} %", size * 100.0),
        (_, "error_rate" | "blocked_rate") => format!("{sign}{:.2} pp", size * 100.0),
        (_, "cost") => format!("{sign}{}", dollars(size)),
        _ => format!("{sign}{size:.3}"),
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = format!("{percent:.1}");
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// What a metric is called.
pub(super) fn metric_name(page: &PageContext, metric: &str) -> String {
    match metric.strip_prefix("score.") {
        Some(name) => page.t_with("experiments-metric-score", &[("name", name)]),
        None => page.t(&format!("experiments-metric-{}", metric.replace('_', "-"))),
    }
}

/// A row of the list.
pub(super) fn list_row(
    page: &PageContext,
    name: &str,
    document: &ExperimentDocument,
    run: Option<&Run>,
) -> Value {
    let kept: Option<Results> = run
        .and_then(|run| run.outcome.clone())
        .and_then(|kept| serde_json::from_value(kept).ok());
    let verdict = kept
        .and_then(|results| results.comparisons.into_iter().next())
        .filter(|comparison| comparison.is_final)
        .map(|comparison| comparison.verdict);
    json!({
        "name": name, "href": show_href(page, name), "target": document.target_text(),
        "mode": document.mode.name(), "metric": metric_name(page, &document.metric.label()),
        "state": run.map_or("new", |run| run.state.name()), "verdict": verdict,
        "started_at": run.map(|run| run.started_at),
        "arms": document.arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(),
    })
}

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/experiments/show?name={}", page.root(), encode(name))
}

/// The document, in words.
pub(super) fn document_view(page: &PageContext, document: &ExperimentDocument) -> Value {
    let guard = |guard: &super::document::GuardDocument| {
        json!({
            "metric": metric_name(page, &guard.metric.label()),
            "limit": amount(&guard.metric.label(), guard.limit),
            "direction": direction_word(guard.direction),
        })
    };
    let margin = (document.equivalence > 0.0).then(|| margin_text(document));
    json!({
        "description": document.description, "target": document.target_text(),
        "target_href": target_href(page, document), "mode": document.mode.name(), "unit": document.unit.name(),
        "metric": metric_name(page, &document.metric.label()),
        "better": match document.metric.better() { Direction::Higher => "higher", Direction::Lower => "lower" },
        "alpha": percent(document.alpha), "minimum_sample": document.minimum_sample, "margin": margin,
        "guards": document.guards.iter().map(guard).collect::<Vec<_>>(),
        "arms": document.arms.iter().enumerate().map(|(index, arm)| arm_view(document, index, arm)).collect::<Vec<_>>(),
    })
}

fn arm_view(document: &ExperimentDocument, index: usize, arm: &ArmDocument) -> Value {
    let version = arm.version.map_or_else(
        || arm.label.clone().unwrap_or_default(),
        |version| format!("v{version}"),
    );
    let weights = document.first_weights();
    json!({
        "name": arm.name, "version": version, "control": index == document.control(),
        "weight": weights.get(index).copied().map(percent),
    })
}

fn direction_word(direction: Forbidden) -> &'static str {
    match direction {
        Forbidden::Above => "above",
        Forbidden::Below => "below",
    }
}

fn margin_text(document: &ExperimentDocument) -> String {
    let text = change(
        &document.metric.label(),
        scale_of(&document.metric),
        document.equivalence,
    );
    format!("±{}", text.trim_start_matches('+'))
}

fn scale_of(metric: &Metric) -> &'static str {
    match metric.kind {
        MetricKind::Latency => "ratio",
        _ => "difference",
    }
}

fn target_href(page: &PageContext, document: &ExperimentDocument) -> String {
    let folder = match document.target.kind {
        TargetKind::Prompt => "prompts/show",
        TargetKind::App => "apps/show",
        TargetKind::Guard => "guards/edit",
    };
    format!(
        "{}/{folder}?name={}",
        page.root(),
        encode(&document.target.name)
    )
}

/// A run with everything that it has shown.
pub(super) fn run_view(
    page: &PageContext,
    run: &Run,
    document: &ExperimentDocument,
    results: Option<&Results>,
    now_us: i64,
) -> Value {
    let control = run.control().map_or("", |arm| arm.name.as_str());
    let arms: Vec<Value> = run
        .arms
        .iter()
        .map(|arm| arm_figures(page, run, document, arm, results))
        .collect();
    let comparisons: Vec<Value> = results
        .iter()
        .flat_map(|results| &results.comparisons)
        .map(|found| comparison_view(page, run, document, control, found, now_us))
        .collect();
    let guards: Vec<Value> = results
        .iter()
        .flat_map(|results| &results.guards)
        .map(|guard| guard_view(page, guard))
        .collect();
    json!({
        "id": run.id, "version": run.version, "state": run.state.name(), "live": run.state == RunState::Running,
        "started_at": run.started_at, "ended_at": run.ended_at, "reason": run.reason, "winner": run.winner,
        "mode": document.mode.name(), "arms": arms, "comparisons": comparisons, "guards": guards,
        "steps": steps(run, document), "at": results.map(|results| results.at),
        "ramp_done": ramp_done(run, document),
        "pairs": pairs(page, results), "units_left_out": results.map_or(0, |results| results.units_left_out),
        "columns": columns(page, results), "traces_href": traces_href(page, run, None),
    })
}

fn ramp_done(run: &Run, document: &ExperimentDocument) -> bool {
    document.mode == Mode::Canary
        && usize::try_from(run.step).is_ok_and(|step| step + 1 >= document.ramp.len())
}

fn columns(page: &PageContext, results: Option<&Results>) -> Vec<String> {
    let first = results.and_then(|results| results.arms.first());
    first
        .into_iter()
        .flat_map(|arm| &arm.figures)
        .map(|figure| metric_name(page, &figure.metric))
        .collect()
}

fn traces_href(page: &PageContext, run: &Run, arm: Option<&str>) -> String {
    let mut filter = format!("experiment = {}", json!(run.experiment));
    if let Some(arm) = arm {
        filter.push_str(&format!(" and arm = {}", json!(arm)));
    }
    let from = crate::traces::time::format_rfc3339(run.started_at);
    format!(
        "{}/traces?from={}&filter={}",
        page.root(),
        encode(&from),
        encode(&filter)
    )
}

fn arm_figures(
    page: &PageContext,
    run: &Run,
    document: &ExperimentDocument,
    arm: &RunArm,
    results: Option<&Results>,
) -> Value {
    let found =
        results.and_then(|results| results.arms.iter().find(|found| found.name == arm.name));
    let figure = |figure: &Figure| {
        let text = |value: Option<f64>| value.map(|value| amount(&figure.metric, value));
        json!({
            "units": figure.units, "mean": text(figure.mean), "low": text(figure.low), "high": text(figure.high),
            "metric": metric_name(page, &figure.metric),
        })
    };
    let shadow = document.mode == Mode::Shadow && !arm.control;
    let weight = if document.mode == Mode::Shadow && arm.control {
        1.0
    } else {
        arm.weight
    };
    json!({
        "name": arm.name, "version": arm.number, "control": arm.control, "shadow": shadow,
        "weight": percent(weight), "calls": found.map_or(0, |found| found.calls),
        "units": found.map_or(0, |found| found.units),
        "figures": found.into_iter().flat_map(|found| &found.figures).map(figure).collect::<Vec<_>>(),
        "traces_href": traces_href(page, run, Some(&arm.name)),
        "won": run.winner.as_deref() == Some(arm.name.as_str()),
    })
}

fn comparison_view(
    page: &PageContext,
    run: &Run,
    document: &ExperimentDocument,
    control: &str,
    found: &Comparison,
    now_us: i64,
) -> Value {
    let text = |value: Option<f64>| {
        value.map_or_else(
            || "–".to_owned(),
            |value| change(&found.metric, &found.scale, value),
        )
    };
    let (key, kind) = match (document.mode, found.verdict.as_str(), found.is_final) {
        (Mode::Bandit, ..) => ("bandit", "info"),
        (_, "better", _) => ("better", "ok"),
        (_, "worse", _) => ("worse", "err"),
        (_, "no_difference_shown", true) => ("same", "info"),
        (_, "no_difference_shown", false) => ("none", "info"),
        _ => ("too-little", "info"),
    };
    let (estimate, low, high) = (text(found.estimate), text(found.low), text(found.high));
    let (units, needed) = (found.units.to_string(), found.units_needed.to_string());
    let (metric, margin) = (metric_name(page, &found.metric), margin_text(document));
    let alpha = percent(document.alpha);
    let unit = page.t(&format!("experiments-units-{}", document.unit.name()));
    let args: [(&'static str, &str); 11] = [
        ("arm", &found.arm),
        ("control", control),
        ("metric", &metric),
        ("estimate", &estimate),
        ("low", &low),
        ("high", &high),
        ("units", &units),
        ("needed", &needed),
        ("unit", &unit),
        ("margin", &margin),
        ("alpha", &alpha),
    ];
    json!({
        "arm": found.arm, "verdict": key, "kind": kind, "title": page.t_with(&format!("experiments-verdict-{key}"), &args),
        "text": page.t_with(&format!("experiments-verdict-{key}-text"), &args),
        "estimate": estimate, "low": low, "high": high, "p_value": p_text(found.p_value),
        "exact_p_value": found.exact_p_value.map(p_text), "paired": found.paired,
        "share_mismatch": found.share_mismatch, "units": found.units, "units_needed": found.units_needed,
        "chart": chart(page, run, found, now_us), "points": points(found),
    })
}

fn p_text(p: f64) -> String {
    if p < 0.0001 {
        "< 0.0001".to_owned()
    } else {
        format!("{p:.4}")
    }
}

/// The difference over time as the chart island takes it; see `ui/src/charts`.
fn chart(page: &PageContext, run: &Run, found: &Comparison, now_us: i64) -> Value {
    let unit = match (found.scale.as_str(), found.metric.as_str()) {
        ("ratio", _) | (_, "error_rate" | "blocked_rate") => "percent",
        (_, "cost") => "usd",
        _ => "score",
    };
    let times: Vec<i64> = found.series.iter().map(|point| point.at_s).collect();
    let series = |key: &str, value: fn(&super::results::Point) -> Option<f64>| json!({"key": key, "values": found.series.iter().map(value).collect::<Vec<_>>()});
    let last_us = times.last().map_or(0, |last| last * 1_000_000);
    let until = run.ended_at.unwrap_or(now_us).max(last_us);
    json!({
        "chart": {
            "key": "difference", "unit": unit, "times_s": times, "bucket_s": 1, "stacked": false, "signed": true,
            "series": [
                series("low", |point| point.low),
                series("high", |point| point.high),
                series("difference", |point| point.estimate),
            ],
            "href": traces_href(page, run, None),
        },
        "from_us": run.started_at, "to_us": until,
    })
}

/// The same as rows, newest first: for readers without scripts.
fn points(found: &Comparison) -> Vec<Value> {
    let text = |value: Option<f64>| value.map(|value| change(&found.metric, &found.scale, value));
    let row = |point: &super::results::Point| {
        json!({
            "at": point.at_s.saturating_mul(1_000_000), "estimate": text(point.estimate),
            "low": text(point.low), "high": text(point.high),
        })
    };
    found
        .series
        .iter()
        .rev()
        .filter(|point| point.estimate.is_some())
        .take(12)
        .map(row)
        .collect()
}

fn guard_view(page: &PageContext, guard: &GuardResult) -> Value {
    let text = |value: Option<f64>| value.map(|value| amount(&guard.metric, value));
    json!({
        "arm": guard.arm, "metric": metric_name(page, &guard.metric), "limit": amount(&guard.metric, guard.limit),
        "direction": direction_word(guard.direction), "state": guard.state,
        "mean": text(guard.mean), "low": text(guard.low), "high": text(guard.high),
    })
}

fn steps(run: &Run, document: &ExperimentDocument) -> Vec<Value> {
    let step = |(index, step): (usize, &super::document::RampStep)| {
        let at = usize::try_from(run.step).unwrap_or_default();
        let state = match index.cmp(&at) {
            std::cmp::Ordering::Less => "done",
            std::cmp::Ordering::Equal => "now",
            std::cmp::Ordering::Greater => "next",
        };
        json!({
            "weight": percent(step.weight), "at_least_s": step.at_least_s,
            "at_least_calls": step.at_least_calls, "state": state,
        })
    };
    document.ramp.iter().enumerate().map(step).collect()
}

fn pairs(page: &PageContext, results: Option<&Results>) -> Vec<Value> {
    let pair = |pair: &super::results::Pair| {
        let href = |span: &str| format!("{}/traces/{}?span={span}", page.root(), pair.trace_id);
        json!({
            "arm": pair.arm, "at": pair.at, "trace_id": pair.trace_id,
            "control_href": href(&pair.control_span), "shadow_href": href(&pair.shadow_span),
        })
    };
    results
        .iter()
        .flat_map(|results| &results.pairs)
        .map(pair)
        .collect()
}
