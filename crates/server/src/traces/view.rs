//! What the trace templates are given: plain data, shaped as the first comment
//! of each template says. Nothing here reads storage.

use std::collections::HashMap;

use base::TraceId;
use serde::Serialize;
use serde_json::Value;
use telemetry::{Bodies, Field, Kind, Literal, Op, Score, Span, Status, StoredSpan, TraceRow};

use super::json::{ScoreValue, score_value};
use super::links::ListLink;
use super::message::{MessageView, mark, messages};
use super::time::parse_duration_us;
use crate::scores::THUMBS;

/// The time ranges that pages offer.
const RANGES: &[&str] = &["1h", "6h", "24h", "7d", "30d"];

/// The range picker.
#[derive(Debug, Clone, Serialize)]
pub struct RangeView {
    /// One of [`RANGES`]; empty for another range.
    pub key: String,
    /// Links to the ranges.
    pub options: Vec<RangeOption>,
    /// Start, microseconds.
    pub from_us: i64,
    /// End, microseconds.
    pub to_us: i64,
    /// Whether it is none of the offered ones.
    pub custom: bool,
}

/// One range to pick.
#[derive(Debug, Clone, Serialize)]
pub struct RangeOption {
    key: &'static str,
    href: String,
}

/// The range that a page shows, and links to the others.
pub fn range_view(
    link: &ListLink,
    from_us: Option<i64>,
    to_us: Option<i64>,
    now_us: i64,
    default: &str,
) -> RangeView {
    let option = |key: &&'static str| RangeOption {
        key,
        href: link
            .without(&["to", "cursor", "prev", "peek"])
            .with("from", &format!("-{key}"))
            .href(),
    };
    let asked = match (link.get("from"), link.get("to")) {
        (None, None) => Some(default),
        (Some(from), None) => from.strip_prefix('-'),
        _ => None,
    };
    let key = asked
        .filter(|key| RANGES.contains(key))
        .unwrap_or_default()
        .to_owned();
    let default_from = now_us - parse_duration_us(default).unwrap_or_default();
    RangeView {
        custom: key.is_empty(),
        key,
        options: RANGES.iter().map(option).collect(),
        from_us: from_us.unwrap_or(default_from),
        to_us: to_us.unwrap_or(now_us),
    }
}

/// A chart over time.
#[derive(Debug, Clone, Serialize)]
pub struct Chart {
    /// Which one; titles hang on it.
    pub key: &'static str,
    /// `count`, `ms`, `usd` or `tokens`.
    pub unit: &'static str,
    /// Starts of the buckets, seconds since the epoch.
    pub times_s: Vec<i64>,
    /// Their width.
    pub bucket_s: i64,
    /// Whether the series add up.
    pub stacked: bool,
    /// The lines or bars.
    pub series: Vec<Series>,
    /// The list behind the chart.
    pub href: String,
}

/// One line of a chart.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Which one.
    pub key: &'static str,
    /// One value per bucket; null is a gap.
    pub values: Vec<Option<f64>>,
}

impl Chart {
    /// Calls over time, those that failed set off from those that did not.
    pub fn calls(
        times_s: Vec<i64>,
        bucket_s: i64,
        all: Vec<Option<f64>>,
        errors: Vec<Option<f64>>,
        href: String,
    ) -> Self {
        let ok = all
            .iter()
            .zip(&errors)
            .map(|(all, errors)| Some((*all)? - errors.unwrap_or_default()))
            .collect();
        let series = vec![
            Series {
                key: "ok",
                values: ok,
            },
            Series {
                key: "error",
                values: errors,
            },
        ];
        Self {
            key: "calls",
            unit: "count",
            times_s,
            bucket_s,
            stacked: true,
            series,
            href,
        }
    }
}

/// Starts of the buckets that touch a time range.
pub fn bucket_times(from_us: i64, to_us: i64, bucket_s: i64) -> Vec<i64> {
    const MOST: usize = 2000;
    let first = (from_us / 1_000_000).div_euclid(bucket_s) * bucket_s;
    let step = usize::try_from(bucket_s).unwrap_or(1);
    (first..(to_us / 1_000_000).max(first + 1))
        .step_by(step)
        .take(MOST)
        .collect()
}

/// One measure of rows that have a time bucket and no group, one value per
/// bucket. A bucket without a row is zero for what is counted, else a gap.
pub fn bucketed(
    rows: &[telemetry::AggregateRow],
    measure: usize,
    times_s: &[i64],
    counted: bool,
) -> Vec<Option<f64>> {
    let value = |row: &telemetry::AggregateRow| {
        Some((row.bucket_us? / 1_000_000, (*row.values.get(measure)?)?))
    };
    let known: HashMap<i64, f64> = rows.iter().filter_map(value).collect();
    times_s
        .iter()
        .map(|time| known.get(time).copied().or(counted.then_some(0.0)))
        .collect()
}

/// A row of the list.
#[derive(Debug, Serialize)]
pub(super) struct RowView {
    trace_id: String,
    short_id: String,
    href: String,
    peek_href: String,
    selected: bool,
    started_at: i64,
    name: String,
    model: Option<String>,
    status: &'static str,
    error_code: Option<String>,
    input_preview: String,
    output_preview: String,
    duration_us: Option<i64>,
    ttft_us: Option<i64>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cost_nanousd: Option<i64>,
    thumbs: Option<i64>,
    span_count: u64,
    prompt: Option<String>,
    environment: String,
}

pub(super) fn row(row: &TraceRow, root: &str, link: &ListLink) -> RowView {
    let span = &row.stored.span;
    let trace_id = span.trace_id.to_string();
    RowView {
        short_id: short(&trace_id),
        href: trace_href(root, span.trace_id),
        peek_href: link.with("peek", &trace_id).href(),
        selected: link.get("peek") == Some(trace_id.as_str()),
        started_at: span.start_us,
        name: span.name.clone(),
        model: model(span),
        status: span.status.as_str(),
        error_code: span.error_type.clone(),
        input_preview: row.stored.input_preview.clone(),
        output_preview: row.stored.output_preview.clone(),
        duration_us: Some(span.latency_us()),
        ttft_us: span.ttft_us,
        input_tokens: tokens(span, span.usage.input),
        output_tokens: tokens(span, span.usage.output),
        cost_nanousd: span.cost.map(|cost| cost.0),
        thumbs: thumbs(&row.scores, None),
        span_count: row.span_count,
        prompt: span.prompt.as_ref().map(prompt_label),
        environment: span.environment.clone(),
        trace_id,
    }
}

pub(super) fn trace_href(root: &str, trace_id: TraceId) -> String {
    format!("{root}/traces/{trace_id}")
}

/// The end of an id: the beginning is the time, which neighbours share.
pub(super) fn short(id: &str) -> String {
    id.get(id.len().saturating_sub(8)..)
        .unwrap_or(id)
        .to_owned()
}

fn model(span: &Span) -> Option<String> {
    span.request_model
        .clone()
        .or_else(|| span.response_model.clone())
}

/// Counts, unless nobody counted.
fn tokens(span: &Span, count: u64) -> Option<i64> {
    (span.usage != base::Usage::default()).then(|| i64::try_from(count).unwrap_or(i64::MAX))
}

fn prompt_label(prompt: &telemetry::PromptRef) -> String {
    match prompt.version {
        Some(version) => format!("{} v{version}", prompt.name),
        None => prompt.name.clone(),
    }
}

/// The thumb of one author, or of everybody: one thumb down outweighs those
/// that are up, since it is what somebody should look at.
fn thumbs(scores: &[Score], author: Option<&str>) -> Option<i64> {
    let of_author = |score: &&Score| author.is_none() || score.author.as_deref() == author;
    let signs = scores
        .iter()
        .filter(|score| score.name == THUMBS)
        .filter(of_author)
        .map(sign);
    signs
        .clone()
        .min()
        .filter(|least| *least != 0)
        .or_else(|| signs.max())
}

fn sign(score: &Score) -> i64 {
    match score.value {
        Some(value) if value > 0.0 => 1,
        Some(value) if value < 0.0 => -1,
        _ => 0,
    }
}

/// A link with a text.
#[derive(Debug, Serialize)]
pub(super) struct TextLink {
    pub(super) text: String,
    pub(super) href: String,
}

/// A link with a label.
#[derive(Debug, Serialize)]
pub(super) struct LabelLink {
    label: String,
    href: String,
}

/// A conversation.
#[derive(Debug, Serialize)]
pub(super) struct SessionLink {
    id: String,
    href: String,
}

/// An error of a span.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    code: String,
    message: String,
    provider_message: Option<String>,
}

fn error(span: &Span) -> Option<ErrorView> {
    let code = span.error_type.clone()?;
    Some(ErrorView {
        code,
        message: span.error_message.clone().unwrap_or_default(),
        provider_message: None,
    })
}

fn session(span: &Span, root: &str) -> Option<SessionLink> {
    let id = span.session_id.clone()?;
    let list = ListLink::new(format!("{root}/traces"));
    Some(SessionLink {
        href: list
            .with_condition(Field::Session, Op::Equal, Literal::Text(id.clone()))
            .href(),
        id,
    })
}

fn tags(span: &Span, root: &str) -> Vec<TextLink> {
    let list = ListLink::new(format!("{root}/traces"));
    let link = |(name, value): (&String, &String)| TextLink {
        text: format!("{name}={value}"),
        href: list
            .with_condition(
                Field::Tag(name.clone()),
                Op::Equal,
                Literal::Text(value.clone()),
            )
            .href(),
    };
    span.tags.iter().map(link).collect()
}

fn prompt(span: &Span, root: &str) -> Option<LabelLink> {
    let prompt = span.prompt.as_ref()?;
    let version = prompt
        .version
        .map(|version| format!("&version={version}"))
        .unwrap_or_default();
    let href = format!(
        "{root}/prompts/show?name={}{version}",
        super::links::encode(&prompt.name)
    );
    Some(LabelLink {
        label: prompt_label(prompt),
        href,
    })
}

fn playground_href(span: &Span, root: &str) -> Option<String> {
    (span.kind == Kind::Llm).then(|| {
        format!(
            "{root}/playground?trace={}&span={}",
            span.trace_id, span.span_id
        )
    })
}

/// A score.
#[derive(Debug, Serialize)]
pub(super) struct ScoreView {
    name: String,
    value: String,
    thumbs: Option<i64>,
    source: &'static str,
    author: Option<String>,
    comment: Option<String>,
    at: i64,
}

/// Names for authors, by what scores keep of them.
pub(super) type AuthorNames = HashMap<String, String>;

pub(super) fn scores(scores: &[Score], names: &AuthorNames) -> Vec<ScoreView> {
    let view = |score: &Score| ScoreView {
        name: score.name.clone(),
        value: match score_value(score) {
            Some(ScoreValue::Number(number)) => number.to_string(),
            Some(ScoreValue::Bool(yes)) => yes.to_string(),
            Some(ScoreValue::Label(label)) => label,
            None => String::new(),
        },
        thumbs: (score.name == THUMBS).then(|| sign(score)),
        source: score.source.as_str(),
        author: score
            .author
            .as_ref()
            .map(|author| names.get(author).cloned().unwrap_or_else(|| short(author))),
        comment: score.comment.clone(),
        at: score.at_us,
    };
    // A thumb that was taken back is no judgement any more.
    scores
        .iter()
        .filter(|score| score.name != THUMBS || sign(score) != 0)
        .map(view)
        .collect()
}

/// The drawer over the list.
#[derive(Debug, Serialize)]
pub(super) struct PeekView {
    trace_id: String,
    short_id: String,
    name: String,
    href: String,
    close_href: String,
    playground_href: Option<String>,
    status: &'static str,
    error: Option<ErrorView>,
    started_at: i64,
    duration_us: Option<i64>,
    ttft_us: Option<i64>,
    model: Option<String>,
    provider: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cost_nanousd: Option<i64>,
    prompt: Option<LabelLink>,
    user_id: Option<String>,
    session: Option<SessionLink>,
    environment: String,
    tags: Vec<TextLink>,
    input: Vec<MessageView>,
    output: Vec<MessageView>,
    scores: Vec<ScoreView>,
}

pub(super) fn peek(
    stored: &StoredSpan,
    bodies: &Bodies,
    given: &[Score],
    names: &AuthorNames,
    root: &str,
    link: &ListLink,
) -> PeekView {
    let span = &stored.span;
    let trace_id = span.trace_id.to_string();
    let href = super::api::body_href(stored);
    PeekView {
        short_id: short(&trace_id),
        name: span.name.clone(),
        href: trace_href(root, span.trace_id),
        close_href: link.without(&["peek"]).href(),
        playground_href: playground_href(span, root),
        status: span.status.as_str(),
        error: error(span),
        started_at: span.start_us,
        duration_us: Some(span.latency_us()),
        ttft_us: span.ttft_us,
        model: model(span),
        provider: span.provider.clone(),
        input_tokens: tokens(span, span.usage.input),
        output_tokens: tokens(span, span.usage.output),
        cost_nanousd: span.cost.map(|cost| cost.0),
        prompt: prompt(span, root),
        user_id: span.user_ref.clone(),
        session: session(span, root),
        environment: span.environment.clone(),
        tags: tags(span, root),
        input: messages(&bodies.input, &href),
        output: messages(&bodies.output, &href),
        scores: scores(given, names),
        trace_id,
    }
}

/// A name and a value as text.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    key: String,
    value: String,
}

/// The top level of a JSON object as rows; a large value is cut.
fn pairs(value: &Value) -> Vec<Pair> {
    const VALUE_BYTES: usize = 4 << 10;
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown = |text: String| match base::text::cut_bytes(&text, VALUE_BYTES) {
        cut if cut.len() < text.len() => format!("{cut}…"),
        whole => whole.to_owned(),
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| Pair {
                key: key.clone(),
                value: shown(text(value)),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A row of the span tree.
#[derive(Debug, Serialize)]
pub(super) struct SpanRow {
    span_id: String,
    depth: usize,
    has_children: bool,
    name: String,
    kind: &'static str,
    status: &'static str,
    duration_us: Option<i64>,
    x_pct: f64,
    w_pct: f64,
    ttft_pct: Option<f64>,
    tokens: Option<i64>,
    href: String,
    selected: bool,
}

/// The word that pages and their texts use for a kind.
fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Llm => "generation",
        Kind::Embed => "embedding",
        Kind::Retrieval => "retrieval",
        Kind::Tool => "tool",
        Kind::Agent => "agent",
        Kind::Chain => "chain",
        Kind::Guard => "guard",
        Kind::Other => "span",
    }
}

/// Depth beyond which rows are not indented further.
const MAX_DEPTH: usize = 20;

/// Spans as a tree, depth first, children by start. A span whose parent is not
/// here stands at the top. Loops in hostile parent links cannot trap it: what
/// no root leads to is listed at the top as well.
pub(super) fn tree(
    spans: &[StoredSpan],
    page: &ListLink,
    selected: &str,
    limit: usize,
) -> Vec<SpanRow> {
    let start_us = spans
        .iter()
        .map(|stored| stored.span.start_us)
        .min()
        .unwrap_or_default();
    let end_us = spans
        .iter()
        .map(|stored| stored.span.end_us)
        .max()
        .unwrap_or_default();
    let order = depth_first(spans);
    let row = |&(index, depth, has_children): &(usize, usize, bool)| {
        let span = &spans[index].span;
        let span_id = span.span_id.to_string();
        let percent =
            |us: i64| (us as f64 / (end_us - start_us).max(1) as f64 * 100.0).clamp(0.0, 100.0);
        let round = |value: f64| (value * 100.0).round() / 100.0;
        SpanRow {
            href: page.with("span", &span_id).href(),
            selected: span_id == selected,
            depth: depth.min(MAX_DEPTH),
            has_children,
            name: span.name.clone(),
            kind: kind_word(span.kind),
            status: span.status.as_str(),
            duration_us: Some(span.latency_us()),
            x_pct: round(percent(span.start_us - start_us).min(99.6)),
            w_pct: round(percent(span.latency_us()).max(0.4)),
            ttft_pct: span.ttft_us.map(|us| round(percent(us))),
            tokens: tokens(span, span.usage.input.saturating_add(span.usage.output)),
            span_id,
        }
    };
    order.iter().take(limit).map(row).collect()
}

fn depth_first(spans: &[StoredSpan]) -> Vec<(usize, usize, bool)> {
    let index_of: HashMap<_, _> = spans
        .iter()
        .enumerate()
        .map(|(index, stored)| (stored.span.span_id, index))
        .collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut roots = Vec::new();
    for (index, stored) in spans.iter().enumerate() {
        match stored.span.parent.and_then(|parent| index_of.get(&parent)) {
            Some(parent) if *parent != index => children[*parent].push(index),
            _ => roots.push(index),
        }
    }
    let mut seen = vec![false; spans.len()];
    let mut order = Vec::with_capacity(spans.len());
    for top in roots.into_iter().chain(0..spans.len()) {
        let mut waiting = vec![(top, 0)];
        while let Some((index, depth)) = waiting.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            order.push((index, depth, !children[index].is_empty()));
            waiting.extend(
                children[index]
                    .iter()
                    .rev()
                    .map(|child| (*child, depth + 1)),
            );
        }
    }
    order
}

/// The span at hand.
#[derive(Debug, Serialize)]
pub(super) struct SpanDetail {
    span_id: String,
    short_id: String,
    name: String,
    kind: &'static str,
    status: &'static str,
    error: Option<ErrorView>,
    started_at: i64,
    duration_us: Option<i64>,
    ttft_us: Option<i64>,
    model_requested: Option<String>,
    model_served: Option<String>,
    provider: Option<String>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cached_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    cost_nanousd: Option<i64>,
    price_version: Option<String>,
    finish_reason: Option<String>,
    tokens_per_s: Option<f64>,
    stream: Option<bool>,
    prompt: Option<LabelLink>,
    plan_revision: Option<String>,
    params: Vec<Pair>,
    input: Vec<MessageView>,
    output: Vec<MessageView>,
    attributes: Vec<Pair>,
    playground_href: Option<String>,
}

pub(super) fn detail(stored: &StoredSpan, bodies: &Bodies, root: &str) -> SpanDetail {
    let span = &stored.span;
    let span_id = span.span_id.to_string();
    let href = super::api::body_href(stored);
    SpanDetail {
        short_id: short(&span_id),
        name: span.name.clone(),
        kind: kind_word(span.kind),
        status: span.status.as_str(),
        error: error(span),
        started_at: span.start_us,
        duration_us: Some(span.latency_us()),
        ttft_us: span.ttft_us,
        model_requested: span.request_model.clone(),
        model_served: span.response_model.clone(),
        provider: span.provider.clone(),
        input_tokens: tokens(span, span.usage.input),
        output_tokens: tokens(span, span.usage.output),
        cached_tokens: tokens(span, span.usage.cache_read),
        reasoning_tokens: tokens(span, span.usage.reasoning),
        cost_nanousd: span.cost.map(|cost| cost.0),
        price_version: span.price_version.clone(),
        finish_reason: (!span.finish_reasons.is_empty()).then(|| span.finish_reasons.join(", ")),
        tokens_per_s: tokens_per_s(span),
        stream: Some(span.streamed),
        prompt: prompt(span, root),
        plan_revision: span.plan_revision.clone(),
        params: pairs(&span.parameters),
        input: messages(&bodies.input, &href),
        output: messages(&bodies.output, &href),
        attributes: pairs(&span.attrs),
        playground_href: playground_href(span, root),
        span_id,
    }
}

/// Speed of generation after the first token, where both are known.
fn tokens_per_s(span: &Span) -> Option<f64> {
    // Without a stream, the first token is known when the last one is.
    let generating_us = span.latency_us() - span.ttft_us.filter(|_| span.streamed)?;
    let after_first = span
        .usage
        .output
        .checked_sub(1)
        .filter(|count| *count > 0)?;
    (generating_us > 0).then(|| after_first as f64 / (generating_us as f64 / 1e6))
}

/// The page of one trace.
#[derive(Debug, Serialize)]
pub(super) struct TraceView {
    trace_id: String,
    short_id: String,
    name: String,
    status: &'static str,
    started_at: i64,
    duration_us: Option<i64>,
    ttft_us: Option<i64>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cost_nanousd: Option<i64>,
    environment: String,
    key_name: Option<String>,
    user_id: Option<String>,
    session: Option<SessionLink>,
    tags: Vec<TextLink>,
    metadata: Vec<Pair>,
    scores: Vec<ScoreView>,
    my_thumbs: Option<i64>,
    list_href: String,
    prev_href: Option<String>,
    next_href: Option<String>,
    api_href: String,
    span_count: u64,
    shown_spans: usize,
    all_href: Option<String>,
    spans: Vec<SpanRow>,
    span: SpanDetail,
    guards: Vec<Value>,
    guarded_elsewhere: Vec<LabelLink>,
}

/// What a trace page is made of.
pub(super) struct TraceParts<'a> {
    pub(super) trace: &'a telemetry::Trace,
    pub(super) selected: &'a StoredSpan,
    pub(super) bodies: &'a Bodies,
    pub(super) names: &'a AuthorNames,
    pub(super) key_name: Option<String>,
    pub(super) me: &'a str,
    pub(super) root: &'a str,
    pub(super) page: &'a ListLink,
    pub(super) guards: crate::guards::InTrace,
}

/// Rows of the span tree that a page shows before somebody asks for all.
const TREE_ROWS: usize = 2000;

pub(super) fn trace(parts: &TraceParts<'_>) -> TraceView {
    let TraceParts {
        trace,
        selected,
        bodies,
        root,
        page,
        ..
    } = *parts;
    let totals = super::json::Totals::of(trace);
    let first = main_span(trace).unwrap_or(selected);
    let span = &first.span;
    let trace_id = span.trace_id.to_string();
    let limit = if page.get("all").is_some() {
        telemetry::limits::TRACE_SPANS
    } else {
        TREE_ROWS
    };
    let spans = tree(
        &trace.spans,
        page,
        &selected.span.span_id.to_string(),
        limit,
    );
    let counted = totals.input_tokens > 0 || totals.output_tokens > 0;
    let count = |tokens: u64| counted.then(|| i64::try_from(tokens).unwrap_or(i64::MAX));
    TraceView {
        short_id: short(&trace_id),
        name: span.name.clone(),
        status: totals.status.as_str(),
        started_at: totals.start_us,
        duration_us: Some(totals.end_us - totals.start_us),
        ttft_us: span.ttft_us,
        input_tokens: count(totals.input_tokens),
        output_tokens: count(totals.output_tokens),
        cost_nanousd: totals.cost_nanousd,
        environment: span.environment.clone(),
        key_name: parts.key_name.clone(),
        user_id: span.user_ref.clone(),
        session: session(span, root),
        tags: tags(span, root),
        metadata: pairs(&span.metadata),
        scores: scores(&trace.scores, parts.names),
        my_thumbs: thumbs(&trace.scores, Some(parts.me)),
        list_href: format!("{root}/traces"),
        prev_href: None,
        next_href: None,
        api_href: format!("/api/v1/traces/{trace_id}"),
        span_count: trace.span_count,
        shown_spans: spans.len(),
        all_href: (trace.spans.len() > spans.len()).then(|| page.with("all", "1").href()),
        spans,
        span: marked(detail(selected, bodies, root), &parts.guards),
        guards: parts.guards.guards.clone(),
        guarded_elsewhere: guarded_elsewhere(parts),
        trace_id,
    }
}

/// A span's texts with the marks of guards.
fn marked(mut span: SpanDetail, guards: &crate::guards::InTrace) -> SpanDetail {
    mark(
        &mut span.input,
        |at| format!("messages[{at}]"),
        &guards.marks,
    );
    mark(
        &mut span.output,
        |at| format!("choices[{at}].message"),
        &guards.marks,
    );
    span
}

/// Other calls of the trace in which guards found something.
fn guarded_elsewhere(parts: &TraceParts<'_>) -> Vec<LabelLink> {
    let link = |id: &String| {
        let mut spans = parts.trace.spans.iter();
        let found = spans.find(|stored| stored.span.span_id.to_string() == *id)?;
        Some(LabelLink {
            label: found.span.name.clone(),
            href: parts.page.with("span", id).href(),
        })
    };
    parts.guards.elsewhere.iter().filter_map(link).collect()
}

/// The span that stands for its trace: the first root, else the first span.
pub(super) fn main_span(trace: &telemetry::Trace) -> Option<&StoredSpan> {
    trace
        .spans
        .iter()
        .find(|stored| stored.span.parent.is_none())
        .or(trace.spans.first())
}

/// The text key of a status.
pub(super) fn status_key(word: &str) -> Option<&'static str> {
    match Status::from_word(word)? {
        Status::Ok => Some("status-ok"),
        Status::Error => Some("status-error"),
        Status::Cancelled => Some("status-cancelled"),
    }
}
