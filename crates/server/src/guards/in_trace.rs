//! Guards on the page of a trace: what they found in the call at hand, as a list, and as marks on
//! its texts.

use std::collections::HashMap;

use base::ProjectId;
use serde_json::{Value, json};
use telemetry::{Bodies, Kind, StoredSpan, Trace};

use super::marks::{self, Mark};
use super::recorded::{self, Find, FindId, Guarded};
use super::verdict;
use crate::app::App;
use crate::error::Result;
use crate::traces::encode;
use crate::ui::PageContext;

/// What the page is given.
#[derive(Debug, Default)]
pub(crate) struct InTrace {
    /// One for each policy that found something; see `traces/show.html`.
    pub(crate) guards: Vec<Value>,
    /// Marks on the call's texts, by field: `messages[0].content`.
    pub(crate) marks: HashMap<String, Vec<Mark>>,
    /// Other calls of the trace in which guards found something, as spans.
    pub(crate) elsewhere: Vec<String>,
}

/// What guards found in the call that is shown; in the call that a shown guard watched.
///
/// # Errors
/// Telemetry or the database cannot be read.
pub(crate) async fn in_trace(
    app: &App,
    page: &PageContext,
    project: ProjectId,
    trace: &Trace,
    shown: &StoredSpan,
    bodies: &Bodies,
) -> Result<InTrace> {
    let span = &shown.span;
    let guards = trace.spans.iter().filter_map(|one| Guarded::of(&one.span));
    let (here, others): (Vec<Guarded>, Vec<Guarded>) = match span.kind {
        Kind::Guard => guards.partition(|one| one.span_id == span.span_id),
        _ => guards.partition(|one| one.call == Some(span.span_id)),
    };
    let mut view = InTrace::default();
    if span.kind != Kind::Guard {
        let mut calls: Vec<String> = others
            .iter()
            .filter_map(|one| Some(one.call?.to_string()))
            .collect();
        calls.sort();
        calls.dedup();
        view.elsewhere = calls;
    }
    if here.is_empty() {
        return Ok(view);
    }
    let guarded = recorded::of_call(app, project, here).await?;
    let mut number = 0;
    let mut numbers: Vec<Vec<usize>> = Vec::new();
    for one in &guarded {
        numbers.push((0..one.finds.len()).map(|at| number + at + 1).collect());
        number += one.finds.len();
    }
    if span.kind != Kind::Guard {
        view.marks = marks_of(page, &guarded, &numbers, bodies);
    }
    let marked: Vec<usize> = view
        .marks
        .values()
        .flatten()
        .filter_map(|mark| mark.number)
        .collect();
    for (one, numbers) in guarded.iter().zip(&numbers) {
        let row = |(index, find): (usize, &Find)| {
            let number = numbers.get(index).copied().unwrap_or_default();
            find_view(
                page,
                trace,
                one,
                find,
                (index, number),
                marked.contains(&number),
            )
        };
        let finds: Vec<Value> = one.finds.iter().enumerate().map(row).collect();
        view.guards.push(guard_view(page, one, finds));
    }
    Ok(view)
}

fn marks_of(
    page: &PageContext,
    guarded: &[Guarded],
    numbers: &[Vec<usize>],
    bodies: &Bodies,
) -> HashMap<String, Vec<Mark>> {
    let mut marks: HashMap<String, Vec<Mark>> = HashMap::new();
    for field in guarded
        .iter()
        .flat_map(|one| &one.finds)
        .map(|find| &find.field)
    {
        if marks.contains_key(field) {
            continue;
        }
        let Some(text) = recorded::text_of(bodies, field) else {
            continue;
        };
        let places = recorded::places(text, field, guarded);
        let mut found = Vec::new();
        for ((one, places), numbers) in guarded.iter().zip(places).zip(numbers) {
            for ((find, place), number) in one.finds.iter().zip(places).zip(numbers) {
                found.extend(place.map(|range| Mark {
                    range,
                    outcome: find.outcome.clone(),
                    title: title(page, find),
                    number: Some(*number),
                }));
            }
        }
        marks.insert(field.clone(), found);
    }
    marks
}

/// What a mark says: what was done, and by which rule.
pub(super) fn title(page: &PageContext, find: &Find) -> String {
    let outcome = outcome(page, &find.outcome);
    page.t_with(
        "guards-mark-title",
        &[("outcome", &outcome), ("rule", &find.rule_name)],
    )
}

pub(super) fn outcome(page: &PageContext, word: &str) -> String {
    page.t(&format!("guards-outcome-{}", word.replace('_', "-")))
}

pub(super) fn tier(page: &PageContext, word: &str) -> String {
    page.t(&format!("guards-tier-{word}"))
}

pub(super) fn point(page: &PageContext, word: &str) -> String {
    page.t(&format!("guards-point-{}", word.replace('_', "-")))
}

fn guard_view(page: &PageContext, one: &Guarded, finds: Vec<Value>) -> Value {
    let root = page.root();
    json!({
        "policy": one.policy, "version": one.version,
        "href": format!("{root}/guards/edit?name={}&version={}", encode(&one.policy), one.version),
        "decision": one.decision, "decision_text": page.t(&format!("guards-decision-{}", one.decision)),
        "took_us": one.took_us, "at": one.at_us,
        "span_href": format!("{root}/traces/{}?span={}", one.trace_id, one.span_id),
        "call_href": one.call.map(|call| format!("{root}/traces/{}?span={call}", one.trace_id)),
        "finds": finds,
    })
}

fn find_view(
    page: &PageContext,
    trace: &Trace,
    one: &Guarded,
    find: &Find,
    (index, number): (usize, usize),
    is_marked: bool,
) -> Value {
    let id = FindId {
        trace_id: one.trace_id,
        span_id: one.span_id,
        index,
    };
    let given = verdict::of(&trace.scores, one.span_id, index);
    json!({
        "n": number, "rule": find.rule_name, "reason": find.reason, "detector": find.detector,
        "tier": tier(page, &find.tier), "score": (find.score * 10_000.0).round() / 10_000.0,
        "start": find.start, "end": find.end, "reading": find.view, "field": find.field,
        "point": point(page, &find.point), "outcome": outcome(page, &find.outcome),
        "mark": marks::style(&find.outcome), "is_marked": is_marked,
        "shadow": find.outcome == "shadow" || one.rule(&find.rule_name).is_some_and(|rule| rule.shadow),
        "verdict": given.map(|given| page.t(&format!("guards-said-{}", given.verdict.name().replace('_', "-")))),
        "review_href": format!("{}/guards/finds?find={id}", page.root()),
    })
}
