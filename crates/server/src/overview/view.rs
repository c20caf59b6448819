//! From figures to what `overview/show.html` is given.

use serde::Serialize;
use serde_json::Value;
use telemetry::{AggregateRow, Field, Filter, Literal, Op};

use super::figures::{
    COST_USD, COUNT, ERRORS, ErrorClass, Figures, INPUT_TOKENS, LATENCY_P50, LATENCY_P95,
    LATENCY_P99, OUTPUT_TOKENS, PromptUse, TTFT_P50, TTFT_P95, Totals, thumbs,
};
use crate::guards::{Counts as GuardCounts, Figures as GuardFigures};
use crate::traces::{Chart, ListLink, RangeView, Series, bucket_times, bucketed, encode};

/// The page.
#[derive(Debug, Serialize)]
pub(super) struct OverviewView {
    /// Live evaluations; none for whoever may not see them.
    pub(super) live: Vec<serde_json::Value>,
    pub(super) range: RangeView,
    pub(super) empty: bool,
    pub(super) snippet: Value,
    pub(super) tiles: Vec<Tile>,
    pub(super) charts: Vec<Chart>,
    pub(super) models: Vec<ModelRow>,
    pub(super) errors: Vec<ErrorRow>,
    pub(super) prompts: Vec<PromptRow>,
    /// Numbers about guards; none where there is no policy.
    pub(super) guard_tiles: Vec<Tile>,
    pub(super) blocked_users: Vec<BlockedUser>,
}

/// A user of the application whose calls guards blocked.
#[derive(Debug, Serialize)]
pub(super) struct BlockedUser {
    user: String,
    calls: usize,
    last_at: i64,
    href: String,
}

/// Numbers about guards; `list` is the list of finds over the same range.
pub(super) fn guard_tiles(figures: &GuardFigures, list: &FindsLink<'_>) -> Vec<Tile> {
    let tile = |key, of: fn(&GuardCounts) -> usize, good, more: &[(&str, &str)]| {
        let (now, before) = (of(&figures.now) as f64, of(&figures.before) as f64);
        let (value, unit) = count(Some(now));
        Tile {
            key,
            value: match figures.is_cut {
                true => format!("≥ {value}"),
                false => value,
            },
            unit,
            delta_pct: delta_pct((Some(now), Some(before))),
            good,
            href: list.with(more),
        }
    };
    vec![
        tile("guard-hits", GuardCounts::hits, "", &[("shadow", "false")]),
        tile(
            "guard-blocked",
            GuardCounts::blocked,
            "",
            &[("action", "blocked")],
        ),
        tile(
            "guard-injections",
            GuardCounts::injections,
            "down",
            &[("check", "injection")],
        ),
        tile(
            "guard-false",
            GuardCounts::false_alarms,
            "down",
            &[("verdict", "false_alarm")],
        ),
    ]
}

/// Users with the most blocked calls.
pub(super) fn blocked_users(figures: &GuardFigures, list: &FindsLink<'_>) -> Vec<BlockedUser> {
    let row = |(user, calls, last_at): &(String, usize, i64)| BlockedUser {
        user: user.clone(),
        calls: *calls,
        last_at: *last_at,
        href: list.with(&[("user", user), ("action", "blocked")]),
    };
    figures.users.iter().map(row).collect()
}

/// The list of guards' finds over the range of the page.
pub(super) struct FindsLink<'a> {
    pub(super) root: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

impl FindsLink<'_> {
    fn with(&self, more: &[(&str, &str)]) -> String {
        let range = [("from", self.from), ("to", self.to)];
        let pairs = range
            .iter()
            .chain(more)
            .filter(|(_, value)| !value.is_empty());
        let query: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        format!("{}/guards/finds?{}", self.root, query.join("&"))
    }
}

/// One number.
#[derive(Debug, Serialize)]
pub(super) struct Tile {
    key: &'static str,
    value: String,
    unit: &'static str,
    delta_pct: Option<f64>,
    good: &'static str,
    href: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ModelRow {
    model: String,
    provider: String,
    calls: i64,
    errors: i64,
    error_pct: f64,
    p50_us: Option<i64>,
    p95_us: Option<i64>,
    tokens: i64,
    cost_nanousd: Option<i64>,
    href: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ErrorRow {
    code: String,
    count: i64,
    last_at: i64,
    sample_href: String,
    href: String,
}

#[derive(Debug, Serialize)]
pub(super) struct PromptRow {
    name: String,
    version: i64,
    calls: i64,
    thumbs_up: i64,
    thumbs_down: i64,
    href: String,
}

fn text(value: &str) -> Literal {
    Literal::Text(value.to_owned())
}

/// The key figures; `list` is the trace list over the same range.
pub(super) fn tiles(figures: &Figures, list: &ListLink) -> Vec<Tile> {
    let (now, before) = (&figures.now, &figures.before);
    let tokens = |totals: &Totals| {
        Some(totals.get(INPUT_TOKENS)? + totals.get(OUTPUT_TOKENS).unwrap_or_default())
    };
    let tile = |key,
                shown: (String, &'static str),
                pair: (Option<f64>, Option<f64>),
                good,
                href: ListLink| Tile {
        key,
        value: shown.0,
        unit: shown.1,
        delta_pct: delta_pct(pair),
        good,
        href: href.href(),
    };
    let both = |measure: usize| (now.get(measure), before.get(measure));
    let slower = |field: Field, measure: usize| match now.get(measure) {
        Some(ms) => list.with_condition(field, Op::AtLeast, Literal::Number(ms.floor())),
        None => list.clone(),
    };
    vec![
        tile(
            "calls",
            count(now.get(COUNT)),
            both(COUNT),
            "",
            list.clone(),
        ),
        tile(
            "errors",
            count(now.get(ERRORS)),
            both(ERRORS),
            "down",
            list.with_condition(Field::Status, Op::Equal, text("error")),
        ),
        tile(
            "p95",
            duration(now.get(LATENCY_P95)),
            both(LATENCY_P95),
            "down",
            slower(Field::LatencyMs, LATENCY_P95),
        ),
        tile(
            "ttft",
            duration(now.get(TTFT_P95)),
            both(TTFT_P95),
            "down",
            slower(Field::TtftMs, TTFT_P95),
        ),
        tile(
            "tokens",
            count(tokens(now)),
            (tokens(now), tokens(before)),
            "",
            list.clone(),
        ),
        tile(
            "cost",
            money(now.get(COST_USD)),
            both(COST_USD),
            "down",
            list.with_condition(Field::CostUsd, Op::Greater, Literal::Number(0.0)),
        ),
        tile(
            "thumbs",
            share_up(now),
            (up_pct(now), up_pct(before)),
            "up",
            list.with_filter("score.thumbs > 0 or score.thumbs < 0"),
        ),
    ]
}

fn delta_pct((now, before): (Option<f64>, Option<f64>)) -> Option<f64> {
    let (now, before) = (now?, before?);
    (before > 0.0).then(|| (now - before) / before * 100.0)
}

fn up_pct(totals: &Totals) -> Option<f64> {
    let all = totals.thumbs_up + totals.thumbs_down;
    (all > 0.0).then(|| totals.thumbs_up / all * 100.0)
}

fn share_up(totals: &Totals) -> (String, &'static str) {
    match up_pct(totals) {
        Some(pct) => (format!("{pct:.0}"), "%"),
        None => (NOTHING.to_owned(), ""),
    }
}

const NOTHING: &str = "–";

fn count(value: Option<f64>) -> (String, &'static str) {
    let value = value.unwrap_or_default();
    if value >= 10_000_000.0 {
        (format!("{:.1}", value / 1e6), "M")
    } else {
        (grouped(value as i64), "")
    }
}

fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let separated = digits.chars().enumerate().flat_map(|(index, digit)| {
        let comma = index > 0 && (digits.len() - index).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    });
    separated.collect()
}

fn duration(ms: Option<f64>) -> (String, &'static str) {
    match ms {
        None => (NOTHING.to_owned(), ""),
        Some(ms) if ms < 10.0 => (format!("{ms:.1}"), "ms"),
        Some(ms) if ms < 1000.0 => (format!("{ms:.0}"), "ms"),
        Some(ms) => (format!("{:.2}", ms / 1000.0), "s"),
    }
}

fn money(usd: Option<f64>) -> (String, &'static str) {
    let text = match usd {
        None => NOTHING.to_owned(),
        Some(0.0) => "$0".to_owned(),
        Some(usd) if usd >= 1000.0 => format!("${}", grouped(usd as i64)),
        Some(usd) if usd >= 0.01 => format!("${usd:.2}"),
        Some(usd) => format!("${usd:.6}").trim_end_matches('0').to_owned(),
    };
    (text, "")
}

/// The charts over the range.
pub(super) fn charts(
    figures: &Figures,
    range: &RangeView,
    bucket_s: i64,
    list: &ListLink,
) -> Vec<Chart> {
    let times = bucket_times(range.from_us, range.to_us, bucket_s);
    let of = |measure, counted| bucketed(&figures.buckets, measure, &times, counted);
    let chart =
        |key, unit, stacked, series: Vec<(&'static str, Vec<Option<f64>>)>, href: ListLink| Chart {
            key,
            unit,
            times_s: times.clone(),
            bucket_s,
            stacked,
            series: series
                .into_iter()
                .map(|(key, values)| Series { key, values })
                .collect(),
            href: href.href(),
        };
    let thumb = |rows: &[AggregateRow]| bucketed(rows, 0, &times, true);
    vec![
        Chart::calls(
            times.clone(),
            bucket_s,
            of(COUNT, true),
            of(ERRORS, true),
            list.href(),
        ),
        chart(
            "latency",
            "ms",
            false,
            vec![
                ("p50", of(LATENCY_P50, false)),
                ("p95", of(LATENCY_P95, false)),
                ("p99", of(LATENCY_P99, false)),
            ],
            list.clone(),
        ),
        chart(
            "ttft",
            "ms",
            false,
            vec![("p50", of(TTFT_P50, false)), ("p95", of(TTFT_P95, false))],
            list.clone(),
        ),
        chart(
            "tokens",
            "tokens",
            true,
            vec![
                ("input", of(INPUT_TOKENS, true)),
                ("output", of(OUTPUT_TOKENS, true)),
            ],
            list.clone(),
        ),
        chart(
            "cost",
            "usd",
            true,
            vec![("cost", of(COST_USD, true))],
            list.clone(),
        ),
        chart(
            "thumbs",
            "count",
            true,
            vec![("up", thumb(&figures.up)), ("down", thumb(&figures.down))],
            list.with_filter(&thumbs(Op::Less).to_string()),
        ),
    ]
}

pub(super) fn model_row(row: &AggregateRow, list: &ListLink) -> ModelRow {
    let value = |index: usize| row.values.get(index).copied().flatten();
    let name = |index: usize| row.group.get(index).cloned().flatten();
    let (calls, errors) = (value(0).unwrap_or_default(), value(1).unwrap_or_default());
    let us = |index: usize| value(index).map(|ms| (ms * 1000.0) as i64);
    let model = name(0).unwrap_or_default();
    ModelRow {
        href: list
            .with_condition(Field::Model, Op::Equal, text(&model))
            .href(),
        model,
        provider: name(1).unwrap_or_default(),
        calls: calls as i64,
        errors: errors as i64,
        error_pct: if calls > 0.0 {
            errors / calls * 100.0
        } else {
            0.0
        },
        p50_us: us(2),
        p95_us: us(3),
        tokens: value(4).unwrap_or_default() as i64,
        cost_nanousd: value(5).map(|usd| (usd * 1e9) as i64),
    }
}

pub(super) fn error_row(class: &ErrorClass, root: &str, list: &ListLink) -> ErrorRow {
    let latest = class.latest.as_ref().map(|row| &row.stored.span);
    let href = list
        .with_condition(Field::ErrorType, Op::Equal, text(&class.code))
        .href();
    ErrorRow {
        code: class.code.clone(),
        count: class.count as i64,
        last_at: latest.map(|span| span.start_us).unwrap_or_default(),
        sample_href: latest.map_or_else(
            || href.clone(),
            |span| format!("{root}/traces/{}", span.trace_id),
        ),
        href,
    }
}

pub(super) fn prompt_row(used: &PromptUse, list: &ListLink) -> PromptRow {
    let of_version = Filter::default()
        .and(Field::Prompt, Op::Equal, text(&used.name))
        .and_then(|filter| {
            filter.and(
                Field::PromptVersion,
                Op::Equal,
                Literal::Number(used.version as f64),
            )
        })
        .unwrap_or_default();
    PromptRow {
        name: used.name.clone(),
        version: used.version,
        calls: used.calls as i64,
        thumbs_up: used.thumbs_up as i64,
        thumbs_down: used.thumbs_down as i64,
        href: list.with_filter(&of_version.to_string()).href(),
    }
}
