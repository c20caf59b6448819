//! The measurement of a draft on its page: figures per source, and for one rule a curve of what
//! each threshold would give, as a drawing with a table beside it.
//!
//! The drawing is made here, so that it is there without scripts; a slider below it is what is
//! dragged, by mouse, finger or keys, and a script only moves a line along.

use std::collections::BTreeMap;

use guard::bench::{Figures, Report};
use guard::classify::Share;
use serde_json::{Value, json};

use super::measure::{Curve, CurvePoint, Measured};
use crate::ui::PageContext;

/// The drawing's size and the room around it, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 12.0;
const BOTTOM: f64 = 24.0;

/// What `guards/edit.html` draws.
pub(super) fn view(page: &PageContext, measured: &Measured) -> Value {
    json!({
        "rule": measured.rule, "figures": report(page, &measured.report),
        "curve": measured.curve.as_ref().map(curve), "unchecked": measured.unchecked,
    })
}

fn report(page: &PageContext, report: &Report) -> Vec<Value> {
    let all = Figures {
        name: page.t("guards-measured-all"),
        ..report.all.clone()
    };
    let rows = report.sources.iter().filter(|_| report.sources.len() > 1);
    rows.chain(&report.languages)
        .chain([&all])
        .map(figures)
        .collect()
}

fn figures(figures: &Figures) -> Value {
    let number = |value: Option<f64>| value.map(|value| format!("{value:.3}"));
    json!({
        "name": figures.name, "texts": figures.texts, "recall": figures.recall.as_ref().map(share),
        "false_positives": figures.false_positives.as_ref().map(share),
        "recall_at": number(figures.recall_at_1_percent), "auc": number(figures.auc),
        "own": figures.own_negatives, "p99_us": figures.latency.map(|latency| latency.p99),
    })
}

fn share(share: &Share) -> Value {
    json!({
        "share": percent(share.value), "hits": share.hits, "of": share.of,
        "low": percent(share.low), "high": percent(share.high),
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn x(threshold: f64) -> f64 {
    round(LEFT + threshold.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT))
}

fn y(share: f64) -> f64 {
    round(HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM))
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn curve(curve: &Curve) -> Value {
    let line = |of: fn(&CurvePoint) -> Option<f64>| {
        let points = curve.points.iter().filter_map(|point| {
            let share = of(point)?;
            Some(format!("{},{}", x(point.threshold), y(share)))
        });
        points.collect::<Vec<_>>().join(" ")
    };
    let ticks = |scale: fn(f64) -> f64| -> Vec<Value> {
        let shares = [0.0, 0.25, 0.5, 0.75, 1.0];
        shares
            .iter()
            .map(|share| json!({"at": scale(*share), "label": format!("{share}")}))
            .collect()
    };
    let chosen = curve.suggested.unwrap_or(curve.current);
    json!({
        "width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM,
        "precision": line(|point| point.precision), "recall": line(|point| point.recall),
        "false_positives": line(|point| point.false_positive_rate),
        "x_ticks": ticks(x), "y_ticks": ticks(y), "current": point(&curve.current),
        "suggested": curve.suggested.as_ref().map(point), "chosen": point(&chosen),
        "points": curve.points.iter().map(point).collect::<Vec<_>>(),
        "min": curve.points.first().map(|point| point.threshold), "max": curve.points.last().map(|point| point.threshold),
    })
}

fn point(point: &CurvePoint) -> Value {
    json!({
        "threshold": point.threshold, "x": x(point.threshold), "precision": point.precision.map(percent),
        "recall": point.recall.map(percent), "false_positives": point.false_positive_rate.map(percent),
    })
}

/// Puts a threshold into a rule of a document. Nothing where there is no such rule or number.
pub(super) fn set_threshold(document: &mut Value, fields: &BTreeMap<String, String>) -> Option<()> {
    let get = |name: &str| fields.get(name).map(|value| value.trim());
    let threshold: f64 = get("m_threshold")?.parse().ok()?;
    let wanted = get("m_rule")?;
    let rules = document.get_mut("rules")?.as_array_mut()?;
    let rule = rules.iter_mut().find(|rule| rule["name"] == wanted)?;
    let check = rule.get_mut("check")?.as_object_mut()?;
    check.insert("threshold".to_owned(), json!(threshold));
    Some(())
}
