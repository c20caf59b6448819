//! From improvements and their steps to what the templates are given.

use gateway::PromptDocument;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    Compared, Improvement, Progress, ResultRow, Standing, Step, StepKind, StepState, Verdict,
};
use crate::evaluations::{comparison_view, encode, figure, signed};
use crate::evaluators::text_of;
use crate::ui::PageContext;

/// How much of a text a row shows.
const PREVIEW_CHARS: usize = 160;
/// Examples of the table of wins.
const WIN_ROWS: usize = 60;

pub(super) fn show_href(page: &PageContext, id: &str) -> String {
    format!("{}/improvements/show?id={}", page.root(), encode(id))
}

fn step_href(page: &PageContext, id: &str, number: i64) -> String {
    format!(
        "{}/improvements/step?id={}&number={number}",
        page.root(),
        encode(id)
    )
}

pub(super) fn preview(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    base::text::preview(&flat, PREVIEW_CHARS)
}

fn usd(nano: i64) -> Value {
    json!(nano)
}

/// A row of the list.
pub(super) fn list_row(page: &PageContext, improvement: &Improvement) -> Value {
    let verdict = improvement.verdict.as_ref();
    let compared = verdict.and_then(|verdict| verdict.objective.as_ref());
    json!({
        "href": show_href(page, &improvement.id), "prompt": improvement.prompt,
        "version": improvement.pinned.prompt.number, "state": improvement.state.name(),
        "dataset": improvement.pinned.suite.dataset.name, "calls": improvement.calls,
        "budget_calls": improvement.document.budget_calls, "spent": usd(improvement.spent.0),
        "created_at": improvement.created_at,
        "nothing": verdict.is_some_and(|verdict| verdict.best == 0),
        "verdict": compared.map(|compared| comparison_view(page, &compared.comparison, false)),
        "best_version": verdict.and_then(|verdict| verdict.version),
    })
}

/// The page of an improvement.
pub(super) fn show_view(
    page: &PageContext,
    improvement: &Improvement,
    progress: &Progress,
) -> Value {
    let id = improvement.id.as_str();
    let rows = &improvement.pinned.rows;
    let dataset = &improvement.pinned.suite.dataset;
    let root = page.root();
    let counted = |state: StepState| {
        let steps = progress.steps.iter();
        steps
            .filter(|step| step.state == state && step.number > 0)
            .count()
    };
    let best = progress
        .standings
        .iter()
        .find(|one| one.number == progress.best);
    let start = progress.standings.first();
    json!({
        "id": id, "href": show_href(page, id), "prompt": improvement.prompt,
        "version": improvement.pinned.prompt.number,
        "prompt_href": prompt_href(page, improvement, improvement.pinned.prompt.number),
        "state": improvement.state.name(), "reason": improvement.reason,
        "active": improvement.state.is_active(), "final": improvement.state.is_final(),
        "phase": improvement.phase.name(), "ended_by": improvement.ended_by,
        "dataset": {"name": dataset.name, "version": dataset.number,
            "href": format!("{root}/datasets/show?name={}&version={}", encode(&dataset.name), dataset.number)},
        "model": improvement.document.model, "reflector": improvement.document.reflector,
        "guidance": improvement.document.guidance,
        "evaluators": improvement.pinned.suite.evaluators.iter().map(|one| json!({
            "name": one.name, "signature": one.signature, "weight": figure(improvement.document.weight(&one.name)),
        })).collect::<Vec<_>>(),
        "examples": {"train": rows.train.len(), "selection": rows.selection.len(), "held_out": rows.held_out.len()},
        "calls": improvement.calls, "budget_calls": improvement.document.budget_calls,
        "spent": usd(improvement.spent.0), "unpriced": improvement.unpriced,
        "budget": improvement.document.budget_usd.map(|usd| format!("${usd}")),
        "created_at": improvement.created_at, "worked_us": improvement.worked_us,
        "warnings": crate::evaluations::Warning::all_words(page, &improvement.pinned.warnings), "started_by": improvement.started_by,
        "again_href": format!("{root}/improvements/new?like={}", encode(id)),
        "steps_count": progress.steps.len() - 1, "accepted": counted(StepState::Accepted),
        "refused": counted(StepState::Refused), "best": progress.best,
        "start_mean": start.and_then(|one| one.mean).map(figure),
        "best_mean": best.and_then(|one| one.mean).map(figure),
        "tree": progress.steps.iter().filter(|step| step.number == 0)
            .map(|step| node(page, improvement, progress, step)).collect::<Vec<_>>(),
        "steps": progress.steps.iter().skip(1).rev()
            .map(|step| step_row(page, improvement, step, standing(progress, step.number))).collect::<Vec<_>>(),
        "wins": wins(progress, rows.selection.as_slice()),
        "verdict": improvement.verdict.as_ref().map(|verdict| verdict_view(page, improvement, progress, verdict)),
    })
}

fn standing(progress: &Progress, number: i64) -> Option<&Standing> {
    progress.standings.iter().find(|one| one.number == number)
}

fn prompt_href(page: &PageContext, improvement: &Improvement, version: i64) -> String {
    format!(
        "{}/prompts/show?name={}&version={version}",
        page.root(),
        encode(&improvement.prompt)
    )
}

/// An accepted text with those that come from it.
fn node(page: &PageContext, improvement: &Improvement, progress: &Progress, step: &Step) -> Value {
    let own = standing(progress, step.number).cloned().unwrap_or_default();
    let children: Vec<Value> = progress
        .steps
        .iter()
        .filter(|one| one.parent == Some(step.number) && one.state == StepState::Accepted)
        .map(|one| node(page, improvement, progress, one))
        .collect();
    json!({
        "number": step.number, "href": step_href(page, &improvement.id, step.number),
        "version": step.version, "kind": step.kind.name(), "other": step.other,
        "mean": own.mean.map(figure), "value": own.mean, "scored": own.scored,
        "gain": signed(own.gain), "gained": own.gain > 0.0, "lost": own.gain < 0.0,
        "wins": own.wins.len(), "frontier": own.frontier, "best": step.number == progress.best,
        "reason": preview(&step.reason), "diff": difference(progress, step),
        "children": children,
    })
}

/// What a step changed in its parent's text.
fn difference(progress: &Progress, step: &Step) -> Value {
    let document = |number: i64| {
        let step = progress.steps.iter().find(|one| one.number == number)?;
        PromptDocument::deserialize(step.content.as_ref()?).ok()
    };
    match (step.parent.and_then(document), document(step.number)) {
        (Some(parent), Some(own)) => crate::prompts::text_difference(&parent, &own),
        _ => Value::Null,
    }
}

fn step_row(
    page: &PageContext,
    improvement: &Improvement,
    step: &Step,
    standing: Option<&Standing>,
) -> Value {
    json!({
        "number": step.number, "href": step_href(page, &improvement.id, step.number),
        "kind": step.kind.name(), "state": step.state.name(), "parent": step.parent, "other": step.other,
        "version": step.version, "before": step.before.map(figure), "after": step.after.map(figure),
        "rows": step.places.len(), "reason": preview(&step.reason),
        "mean": standing.and_then(|one| one.mean).filter(|_| step.state == StepState::Accepted).map(figure),
    })
}

/// Which text is best at which selection example.
fn wins(progress: &Progress, selection: &[i64]) -> Value {
    let members: Vec<&Standing> = progress
        .steps
        .iter()
        .filter(|step| step.state == StepState::Accepted)
        .filter_map(|step| standing(progress, step.number))
        .collect();
    let rows = selection.iter().take(WIN_ROWS).map(|place| {
        let cells = members.iter().map(|member| {
            json!({
                "value": member.scores.get(place).copied().map(figure),
                "wins": member.wins.contains(place),
            })
        });
        json!({"place": place, "cells": cells.collect::<Vec<_>>()})
    });
    json!({
        "members": members.iter().map(|member| member.number).collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(), "more": selection.len().saturating_sub(WIN_ROWS),
    })
}

fn verdict_view(
    page: &PageContext,
    improvement: &Improvement,
    progress: &Progress,
    verdict: &Verdict,
) -> Value {
    let root = page.root();
    let start = improvement.pinned.prompt.number;
    let name = encode(&improvement.prompt);
    let gain = standing(progress, verdict.best).map(|one| signed(one.gain));
    let links = verdict.version.filter(|_| verdict.best > 0).map(|version| {
        json!({
            "version": version,
            "show": prompt_href(page, improvement, version),
            "edit": format!("{root}/prompts/edit?name={name}&version={version}"),
            "diff": format!("{root}/prompts/diff?name={name}&base={start}&version={version}"),
            "evaluate": format!("{root}/evaluations/new?prompt={name}&dataset={}", encode(&improvement.pinned.suite.dataset.name)),
            "experiment": format!("{root}/experiments/new?kind=prompt&target={name}&control={start}&candidate={version}"),
        })
    });
    json!({
        "best": verdict.best, "rows": verdict.rows, "links": links, "selection_gain": gain,
        "objective": verdict.objective.as_ref().map(|one| compared(page, one)),
        "evaluators": verdict.evaluators.iter().map(|one| compared(page, one)).collect::<Vec<_>>(),
        "errors_start": verdict.errors_start, "errors_best": verdict.errors_best,
        "cost_start": verdict.cost_start_usd.map(nano), "cost_best": verdict.cost_best_usd.map(nano),
        "tokens_start": verdict.tokens_start.map(figure), "tokens_best": verdict.tokens_best.map(figure),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the cost of one answer")]
fn nano(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

fn compared(page: &PageContext, found: &Compared) -> Value {
    json!({
        "name": found.name, "start": figure(found.start), "best": figure(found.best),
        "comparison": comparison_view(page, &found.comparison, false),
    })
}

/// The page of a step.
pub(super) fn step_view(
    page: &PageContext,
    improvement: &Improvement,
    progress: &Progress,
    (step, standing): (&Step, Option<&Standing>),
    results: &[ResultRow],
    inputs: &std::collections::HashMap<i64, crate::datasets::Example>,
) -> Value {
    let root = page.root();
    let evaluators = &improvement.pinned.suite.evaluators;
    let trace_href = |trace: &str| (!trace.is_empty()).then(|| format!("{root}/traces/{trace}"));
    let rows = results.iter().map(|row| {
        let example = inputs.get(&row.place);
        let scores = evaluators.iter().zip(&row.scores).map(|(evaluator, said)| {
            json!({
                "name": evaluator.name, "outcome": said["outcome"], "value": said["value"].as_f64().map(figure),
                "label": said["label"], "reason": text_of(&said["reason"]),
                "trace_href": said["trace"].as_str().and_then(trace_href),
            })
        });
        json!({
            "place": row.place, "example": row.example, "part": super::api::part(improvement, row.place),
            "input": example.map(|one| preview(&text_of(&one.input))),
            "expected": example.and_then(|one| one.expected.as_ref()).map(|one| preview(&text_of(one))),
            "answer": row.answer.as_ref().ok().map(|text| preview(text)), "error": row.answer.as_ref().err(),
            "score": row.objective.map(figure), "scores": scores.collect::<Vec<_>>(),
            "trace_href": trace_href(&row.trace),
        })
    });
    let text = step
        .content
        .as_ref()
        .and_then(|content| PromptDocument::deserialize(content).ok());
    json!({
        "id": improvement.id, "href": show_href(page, &improvement.id), "prompt": improvement.prompt,
        "number": step.number, "kind": step.kind.name(), "state": step.state.name(),
        "is_start": step.kind == StepKind::Start, "parent": step.parent, "other": step.other,
        "parent_href": step.parent.map(|parent| step_href(page, &improvement.id, parent)),
        "version": step.version,
        "version_href": step.version.map(|version| prompt_href(page, improvement, version)),
        "reason": step.reason, "reply": step.reply, "before": step.before.map(figure), "after": step.after.map(figure),
        "mean": standing.and_then(|one| one.mean).map(figure), "gain": standing.map(|one| signed(one.gain)),
        "scored": standing.map(|one| one.scored), "wins": standing.map(|one| one.wins.len()),
        "reflection_href": step.trace.as_deref().and_then(trace_href),
        "diff": difference(progress, step), "text": text.as_ref().map(crate::prompts::as_text),
        "rows": rows.collect::<Vec<_>>(),
    })
}
