//! From models and choices to what the templates are given.

use serde_json::{Value, json};

use super::chart;
use super::document::{Dropped, Finalist, ModelFigures, Round, Why};
use super::properties::ModelTask;
use super::{Choice, ChoiceLimits, ChoiceResult, KnownModel, Weights};
use crate::evaluations::Evaluation;
use crate::ui::PageContext;

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn show_href(page: &PageContext, id: &str) -> String {
    format!("{}/choices/show?id={}", page.root(), encode(id))
}

/// A number as people type it.
pub(super) fn number(value: f64) -> String {
    format!("{value}")
}

fn quality(value: f64) -> String {
    format!("{value:.3}")
}

pub(super) fn percent(share: f64) -> String {
    match share {
        share if share > 0.995 && share < 1.0 => "> 99 %".to_owned(),
        share if share > 0.0 && share < 0.005 => "< 1 %".to_owned(),
        share => format!("{:.0} %", share * 100.0),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds and dollars of calls are far below 2^53"
)]
fn micros(ms: f64) -> i64 {
    (ms * 1000.0).round() as i64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds and dollars of calls are far below 2^53"
)]
fn nanos(usd: f64) -> i64 {
    (usd * 1e9).round() as i64
}

/// A price for a million tokens: in cents where they tell all of it.
fn price_of(usd: f64) -> String {
    let cents = format!("${usd:.2}");
    match usd {
        0.0 => "$0".to_owned(),
        usd if (usd * 100.0 - (usd * 100.0).round()).abs() < 1e-6 => cents,
        usd => format!("${usd}"),
    }
}

/// A row of the models' table.
pub(super) fn model_row(page: &PageContext, model: &KnownModel, chosen: bool) -> Value {
    let card = &model.properties;
    let yes_no = |flag: Option<bool>| match flag {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let entry = model.own_entry.as_ref();
    json!({
        "id": model.id, "callable": model.callable, "chosen": chosen,
        "title": card.title, "vendor": card.vendor, "licence": card.licence, "open": yes_no(card.open),
        "task": match card.task { Some(ModelTask::Embedding) => "embedding", _ => "chat" },
        "context": card.context_tokens, "output": card.max_output_tokens,
        "languages": card.languages, "input": card.input, "tunable": yes_no(card.tunable), "regions": card.regions,
        "notes": card.notes, "sources": card.sources, "read_on": card.read_on,
        "own_entry": entry,
        "edit_href": super::card_page::edit_href(page, &model.id, entry.map(String::as_str)),
        "input_usd": model.price.map(|price| price_of(price.input_usd)),
        "output_usd": model.price.map(|price| price_of(price.output_usd)),
        "try_href": (model.callable && card.task != Some(ModelTask::Embedding))
            .then(|| format!("{}/playground?model={}", page.root(), encode(&model.id))),
    })
}

/// A row of the list.
pub(super) fn list_row(page: &PageContext, choice: &Choice) -> Value {
    let rounds = &choice.progress.rounds;
    let spent: f64 = rounds.iter().map(|round| round.spent_usd).sum();
    let done = rounds.iter().filter(|round| round.done).count();
    json!({
        "href": show_href(page, &choice.id), "name": choice.name, "state": choice.state.name(),
        "dataset": choice.task.dataset, "models": choice.task.models.len(), "rounds": done,
        "left": rounds.last().map(|round| round.models.len() - round.dropped.len()),
        "spent": nanos(spent), "created_at": choice.created_at,
    })
}

/// The page of a choice.
pub(super) fn show_view(
    page: &PageContext,
    choice: &Choice,
    current: Option<&Evaluation>,
    result: Option<&ChoiceResult>,
    asked: (Weights, &ChoiceLimits),
) -> Value {
    let rounds: Vec<Value> = choice
        .progress
        .rounds
        .iter()
        .enumerate()
        .map(|(index, round)| round_view(page, index, round, current))
        .collect();
    let spent: f64 = choice
        .progress
        .rounds
        .iter()
        .map(|round| round.spent_usd)
        .sum();
    let under_way = current.map_or(0, |evaluation| evaluation.spent.0);
    let (weights, limits) = asked;
    let task = &choice.task;
    let evaluators: Vec<&str> = task.evaluators.iter().map(|used| used.name()).collect();
    let excluded: Vec<Value> = choice
        .progress
        .excluded
        .iter()
        .map(|one| {
            let unmet: Vec<&str> = one.unmet.iter().map(|unmet| unmet.name()).collect();
            json!({"model": one.model, "unmet": unmet})
        })
        .collect();
    let prompt = match &task.prompt {
        Some(crate::evaluations::PromptUse::Reference(text)) => Some(text.as_str()),
        Some(crate::evaluations::PromptUse::Inline(_)) => Some(""),
        None => None,
    };
    let href = show_href(page, &choice.id);
    json!({
        "id": choice.id, "href": href, "name": choice.name, "state": choice.state.name(), "reason": choice.reason,
        "active": choice.state.is_active(), "final": choice.state.is_final(), "description": task.description,
        "dataset": task.dataset, "split": task.split, "prompt": prompt, "evaluators": evaluators,
        "examples": choice.progress.examples, "models": task.models.len(), "finalists_wanted": task.finalists,
        "alpha": percent(task.alpha), "weights_asked": weights_view(task.weights), "excluded": excluded,
        "rounds": rounds, "spent": nanos(spent) + under_way, "budget": choice.budget, "version": choice.version,
        "started_by": choice.started_by, "created_at": choice.created_at, "ended_at": choice.ended_at,
        "form": {
            "quality": number(weights.quality), "speed": number(weights.speed), "cost": number(weights.cost),
            "p95_latency_ms": limits.p95_latency_ms.map(number).unwrap_or_default(),
            "usd_per_1000": limits.usd_per_1000.map(number).unwrap_or_default(),
            "least_quality": limits.quality.map(number).unwrap_or_default(),
        },
        "reweighed": weights != task.weights || *limits != task.limits,
        "result": result.map(|result| result_view(result, limits)),
        "again_href": format!("{}/choices/new?like={}", page.root(), encode(&choice.id)),
    })
}

fn weights_view(weights: Weights) -> Value {
    let sum = weights.quality + weights.speed + weights.cost;
    json!({
        "quality": percent(weights.quality / sum), "speed": percent(weights.speed / sum),
        "cost": percent(weights.cost / sum),
    })
}

fn round_view(
    page: &PageContext,
    index: usize,
    round: &Round,
    current: Option<&Evaluation>,
) -> Value {
    let counters = current
        .filter(|evaluation| evaluation.id == round.evaluation && !round.done)
        .map(|evaluation| evaluation.counters);
    let figures: Vec<Value> = round
        .figures
        .iter()
        .map(|figures| {
            let dropped = round.dropped.iter().find(|one| one.model == figures.model);
            json!({"figures": figures_view(figures), "dropped": dropped.map(dropped_view)})
        })
        .collect();
    json!({
        "number": index + 1, "final": round.is_final, "done": round.done, "examples": round.examples,
        "models": round.models, "compared": round.compared, "spent": nanos(round.spent_usd),
        "evaluation_href": format!("{}/evaluations/show?id={}", page.root(), encode(&round.evaluation)),
        "answers": counters.map(|counters| counters.answers_ok + counters.answers_failed),
        "answers_total": counters.map(|counters| counters.answers_total),
        "rows": figures, "dropped": round.dropped.iter().map(dropped_view).collect::<Vec<_>>(),
    })
}

fn dropped_view(one: &Dropped) -> Value {
    let (figure, bound) = match one.why {
        Why::Worse => (quality(one.figure), format!("{:.1e}", one.bound)),
        Why::TooSlow | Why::Unreliable => (percent(one.figure), percent(one.bound)),
        Why::TooDear => (format!("${:.4}", one.figure), format!("${:.4}", one.bound)),
        Why::TooBad => (quality(one.figure), quality(one.bound)),
    };
    json!({"model": one.model, "why": one.why.name(), "figure": figure, "bound": bound})
}

fn figures_view(figures: &ModelFigures) -> Value {
    json!({
        "model": figures.model, "quality": figures.quality.map(quality),
        "low": figures.low.map(quality), "high": figures.high.map(quality),
        "p50": figures.p50_latency_ms.map(micros), "p95": figures.p95_latency_ms.map(micros),
        "per_1000": figures.usd_per_1000.map(nanos), "answers": figures.answers, "errors": figures.errors,
    })
}

fn result_view(result: &ChoiceResult, limits: &ChoiceLimits) -> Value {
    let row = |one: &Finalist| {
        json!({
            "figures": figures_view(&one.figures), "breaks": one.breaks, "on_front": one.on_front,
            "dominated_by": one.dominated_by, "utility": one.utility.map(|utility| format!("{utility:.3}")),
            "probability": percent(one.probability), "share": one.probability,
            "best": result.recommended.as_ref() == Some(&one.figures.model),
        })
    };
    let best = result
        .finalists
        .first()
        .filter(|_| result.recommended.is_some());
    json!({
        "recommended": result.recommended, "clear": result.is_clear, "examples": result.examples,
        "probability": best.map(|best| percent(best.probability)),
        "weights": weights_view(result.weights),
        "scales": {
            "low": quality(result.scales.quality_low), "high": quality(result.scales.quality_high),
            "p95": micros(result.scales.p95_latency_ms), "per_1000": nanos(result.scales.usd_per_1000),
        },
        "finalists": result.finalists.iter().map(row).collect::<Vec<_>>(),
        "chart": chart::draw(result, limits.usd_per_1000, limits.quality),
    })
}
