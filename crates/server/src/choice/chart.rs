//! Where the marks of the chart stand: quality over the cost of a thousand answers, the
//! 95th percentile of latency as the size of the mark.
//!
//! Pure numbers in pixels; the template draws them with the colours of the theme. The
//! same figures stand in a table beside it, for whoever does not see it.

use serde::Serialize;

use super::document::{ChoiceResult, Finalist};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 48.0;
const SMALLEST: f64 = 6.0;
const LARGEST: f64 = 18.0;
const TICKS: f64 = 4.0;
/// The width of a character of a name, about, and the height of its line.
const CHARACTER: f64 = 7.5;
const LINE: f64 = 16.0;

/// The chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Chart {
    width: f64,
    height: f64,
    left: f64,
    bottom: f64,
    right: f64,
    top: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    marks: Vec<Mark>,
    /// The front from the cheapest to the best, as a path; empty with fewer than two.
    front: String,
    /// The limits, where they lie inside.
    cost_limit: Option<f64>,
    quality_limit: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Tick {
    at: f64,
    text: String,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Mark {
    x: f64,
    y: f64,
    /// The ends of the interval of quality.
    low: Option<f64>,
    high: Option<f64>,
    radius: f64,
    model: String,
    /// `best`, `front`, `dominated` or `out`.
    kind: &'static str,
    /// Where the name goes.
    label_x: f64,
    label_y: f64,
    anchor: &'static str,
}

/// Draws a result; none without a model that has figures.
pub(super) fn draw(
    result: &ChoiceResult,
    cost_limit: Option<f64>,
    quality_limit: Option<f64>,
) -> Option<Chart> {
    let points: Vec<(&Finalist, f64, f64)> = result
        .finalists
        .iter()
        .filter_map(|one| Some((one, one.figures.usd_per_1000?, one.figures.quality?)))
        .collect();
    if points.is_empty() {
        return None;
    }
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let dearest = most(&mut points.iter().map(|point| point.1));
    let x_end = nice(if dearest > 0.0 { dearest * 1.1 } else { 1.0 });
    let high = |(one, _, quality): &(&Finalist, f64, f64)| one.figures.high.unwrap_or(*quality);
    let low = |(one, _, quality): &(&Finalist, f64, f64)| one.figures.low.unwrap_or(*quality);
    let (bottom, top) = (
        least(&mut points.iter().map(low)),
        most(&mut points.iter().map(high)),
    );
    let margin = if top > bottom {
        (top - bottom) * 0.1
    } else {
        0.1
    };
    let (mut y_low, mut y_high) = (bottom - margin, top + margin);
    if (result.scales.quality_low, result.scales.quality_high) == (0.0, 1.0) {
        (y_low, y_high) = (y_low.max(0.0), y_high.min(1.0));
    }
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (value / x_end).clamp(0.0, 1.0);
    let y = |value: f64| {
        let share = ((value - y_low) / (y_high - y_low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    };
    let slowest = most(
        &mut points
            .iter()
            .filter_map(|(one, _, _)| one.figures.p95_latency_ms),
    );
    let radius = |one: &Finalist| {
        let share = one.figures.p95_latency_ms.unwrap_or(0.0) / slowest.max(f64::MIN_POSITIVE);
        // The area, not the width, goes with the time.
        SMALLEST + (LARGEST - SMALLEST) * share.clamp(0.0, 1.0).sqrt()
    };
    let marks: Vec<Mark> = points
        .iter()
        .map(|(one, cost, quality)| {
            let (x, radius) = (x(*cost), radius(one));
            Mark {
                x: rounded(x),
                y: rounded(y(*quality)),
                low: one.figures.low.map(|end| rounded(y(end))),
                high: one.figures.high.map(|end| rounded(y(end))),
                radius: rounded(radius),
                model: one.figures.model.clone(),
                kind: kind_of(result, one),
                label_x: 0.0,
                label_y: 0.0,
                anchor: "start",
            }
        })
        .collect();
    let marks = named(marks);
    let front = front(&points);
    let front: Vec<(f64, f64)> = front
        .into_iter()
        .map(|(cost, quality)| (x(cost), y(quality)))
        .collect();
    let inside = |value: f64, low: f64, high: f64| value > low && value < high;
    Some(Chart {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        bottom: HEIGHT - BOTTOM,
        right: WIDTH - RIGHT,
        top: TOP,
        x_ticks: ticks(0.0, x_end, |value| money(value, x_end), x),
        y_ticks: ticks(y_low, y_high, |value| format!("{value:.2}"), y),
        marks,
        front: path(&front),
        cost_limit: cost_limit
            .filter(|limit| inside(*limit, 0.0, x_end))
            .map(|limit| rounded(x(limit))),
        quality_limit: quality_limit
            .filter(|limit| inside(*limit, y_low, y_high))
            .map(|limit| rounded(y(limit))),
    })
}

/// Puts the names beside their marks, on the side where no other mark is in the way.
fn named(mut marks: Vec<Mark>) -> Vec<Mark> {
    let places: Vec<(f64, f64, f64)> = marks.iter().map(|one| (one.x, one.y, one.radius)).collect();
    for (own, mark) in marks.iter_mut().enumerate() {
        let width = CHARACTER * mark.model.chars().count() as f64;
        let (right, left) = (mark.x + mark.radius + 6.0, mark.x - mark.radius - 6.0);
        let is_free = |from: f64, to: f64| {
            let mut others = places.iter().enumerate().filter(|(index, _)| *index != own);
            from > 0.0
                && to < WIDTH
                && !others.any(|(_, (x, y, radius))| {
                    x + radius > from && x - radius < to && (y - mark.y).abs() < radius + LINE / 2.0
                })
        };
        (mark.label_x, mark.label_y, mark.anchor) = if is_free(right, right + width) {
            (right, mark.y + 4.0, "start")
        } else if is_free(left - width, left) {
            (left, mark.y + 4.0, "end")
        } else {
            let middle = mark
                .x
                .clamp(width / 2.0, (WIDTH - width / 2.0).max(width / 2.0));
            let above = mark.y - mark.radius - 6.0;
            let below = mark.y + mark.radius + LINE;
            (middle, if above > LINE { above } else { below }, "middle")
        };
        mark.label_x = rounded(mark.label_x);
        mark.label_y = rounded(mark.label_y);
    }
    marks
}

/// The models that no other beats in the two figures that the chart has axes for, from the
/// cheapest to the best. Latency is the third of a choice's figures: with it more models
/// can stand on the front, but no line through them would mean anything here.
fn front(points: &[(&Finalist, f64, f64)]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = points
        .iter()
        .filter(|(one, _, _)| one.on_front)
        .map(|(_, cost, quality)| (*cost, *quality))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::NEG_INFINITY;
    all.retain(|(_, quality)| {
        let is_better = *quality > best;
        best = best.max(*quality);
        is_better
    });
    all
}

fn kind_of(result: &ChoiceResult, one: &Finalist) -> &'static str {
    match () {
        () if !one.breaks.is_empty() => "out",
        () if result.recommended.as_ref() == Some(&one.figures.model) => "best",
        () if one.on_front => "front",
        () => "dominated",
    }
}

fn path(points: &[(f64, f64)]) -> String {
    if points.len() < 2 {
        return String::new();
    }
    let step = |(index, (x, y)): (usize, &(f64, f64))| {
        format!(
            "{}{} {}",
            if index == 0 { "M" } else { "L" },
            rounded(*x),
            rounded(*y)
        )
    };
    points.iter().enumerate().map(step).collect()
}

fn ticks(low: f64, high: f64, text: impl Fn(f64) -> String, at: impl Fn(f64) -> f64) -> Vec<Tick> {
    let steps = [0.0, 1.0, 2.0, 3.0, 4.0];
    let value = |step: f64| low + (high - low) * step / TICKS;
    let tick = |step: f64| Tick {
        at: rounded(at(value(step))),
        text: text(value(step)),
    };
    steps.into_iter().map(tick).collect()
}

/// The next number of the form 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 4.0, 5.0, 10.0];
    let found = step
        .into_iter()
        .find(|step| step * power >= value * 0.999_999);
    found.unwrap_or(10.0) * power
}

fn money(value: f64, most: f64) -> String {
    let digits = match most {
        most if most >= 20.0 => 0,
        most if most >= 2.0 => 1,
        most if most >= 0.2 => 2,
        most if most >= 0.02 => 3,
        _ => 5,
    };
    format!("${value:.digits$}")
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
