//! The trace list and the page of one trace.
//!
//! A fragment is the same page: htmx takes the part that it wants. Only the
//! drawer has a template of its own to answer with, since it opens often and
//! needs none of the list.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base::{Cursor, ProjectId, TraceId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use telemetry::{
    Aggregate, Bodies, Facet, Field, FilterError, Measure, Op, Page, QueryError, Reader, Trace,
    TraceRow,
};

use super::ask::{Ask, AskText, read};
use super::json::ScoreValue;
use super::links::{ListLink, all_of, conjuncts, literal};
use super::time::{parse_duration_us, parse_time};
use super::view::{
    self, AuthorNames, Chart, PeekView, RangeView, RowView, TextLink, TraceParts, range_view,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Form;
use crate::http::{Access, Route};
use crate::scores::{NewScore, THUMBS};
use crate::ui::{PageContext, redirect};

const READ: Access = Access::Needs(Permission::ReadTraces);

/// What the list shows when its address names no time.
const DEFAULT_RANGE: &str = "7d";
/// Bytes of one message on a page.
const BODY_BYTES: usize = 64 << 10;
/// Values of a facet.
const FACET_VALUES: usize = 8;
/// Rows that tell which tags there are.
const TAG_SAMPLE: usize = 200;
/// Tags that become facets.
const TAG_FACETS: usize = 5;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}/traces", READ, list),
        Route::get("/{project}/traces/{id}", READ, show),
        Route::post(
            "/{project}/traces/{id}/thumbs",
            Access::Needs(Permission::WriteScores),
            thumbs,
        ),
    ]
}

/// `traces/list.html`
#[derive(Debug, Serialize)]
struct ListView {
    filter: String,
    q: String,
    live: bool,
    filter_error: Option<FilterErrorView>,
    range: RangeView,
    chips: Vec<Chip>,
    clear_href: String,
    facets: Vec<FacetView>,
    pulse: Option<Chart>,
    rows: Vec<RowView>,
    count: u64,
    count_exact: bool,
    pager: Pager,
    export_href: Option<TextLink>,
    any: bool,
    snippet: Value,
    peek: Option<PeekView>,
    tail_query: String,
}

#[derive(Debug, Serialize)]
struct FilterErrorView {
    message: String,
    at: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Chip {
    text: String,
    remove_href: String,
}

#[derive(Debug, Serialize)]
struct Pager {
    prev_href: Option<String>,
    next_href: Option<String>,
}

#[derive(Debug, Serialize)]
struct FacetView {
    key: String,
    title: String,
    values: Vec<FacetValueView>,
    more_href: Option<String>,
}

#[derive(Debug, Serialize)]
struct FacetValueView {
    label: String,
    count: u64,
    share: f64,
    active: bool,
    href: String,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    page: PageContext,
    headers: HeaderMap,
) -> Result<Response> {
    let link = ListLink::of_request(&page.path, &page.query);
    if let Some(trace) = pasted_trace(&app, &identity, &link).await? {
        return Ok(redirect(view::trace_href(&page.root(), trace)).into_response());
    }
    let peek = peek_view(&app, &identity, &page, &link).await?;
    if peek.is_some()
        && headers
            .get("hx-target")
            .is_some_and(|target| target.as_bytes().ends_with(b"drawer-slot"))
    {
        return page.render("traces/_peek.html", PeekOnly { peek }).await;
    }
    let now_us = app.clock.now_us();
    let (ask, wrong) = read_ask(&link, now_us);
    let range = range_view(&link, ask.from_us, ask.to_us, now_us, DEFAULT_RANGE);
    let found = match &wrong {
        Some(_) => Found::default(),
        None => find(&app, identity.project.id, &ask, &link, &range).await?,
    };
    let status = if wrong.is_some() {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    let view = list_view(
        &app,
        &identity,
        &page,
        &link,
        ListParts {
            ask,
            wrong,
            range,
            found,
            peek,
        },
    );
    page.render_with_status(status, "traces/list.html", view)
        .await
}

#[derive(Serialize)]
struct PeekOnly {
    peek: Option<PeekView>,
}

/// A trace whose id was put into the search field or the filter as it is: found whenever it was.
async fn pasted_trace(app: &App, identity: &Identity, link: &ListLink) -> Result<Option<TraceId>> {
    let project = identity.project.id;
    for key in ["q", "filter"] {
        let pasted = link
            .get(key)
            .and_then(|text| text.trim().trim_matches('"').parse::<TraceId>().ok());
        if let Some(id) = pasted
            && read(&app.telemetry, move |reader| reader.trace(project, id))
                .await?
                .is_some()
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// What the address asks for. A filter or time that is wrong is shown beside
/// the field where it was typed, not as an error page.
fn read_ask(link: &ListLink, now_us: i64) -> (Ask, Option<FilterErrorView>) {
    let filter = link.get("filter").unwrap_or_default();
    let mut text = AskText {
        q: link.get("q").map(str::to_owned),
        ..AskText::default()
    };
    text.filter = Some(filter.to_owned());
    let mut wrong = None;
    if let Err(error) = telemetry::Filter::parse(filter) {
        wrong = Some(filter_error_view(&error));
        text.filter = None;
    }
    for (key, place) in [("from", &mut text.from), ("to", &mut text.to)] {
        match link.get(key).map(|value| parse_time(value, now_us)) {
            Some(Ok(us)) => *place = Some(us.to_string()),
            Some(Err(message)) => wrong = wrong.or(Some(FilterErrorView { message, at: None })),
            None => {}
        }
    }
    if text.from.is_none() {
        text.from = parse_duration_us(DEFAULT_RANGE).map(|ago| (now_us - ago).to_string());
    }
    match text.parse(now_us) {
        Ok(ask) => (ask, wrong),
        Err(error) => (
            Ask::default(),
            wrong.or(Some(FilterErrorView {
                message: error.to_string(),
                at: None,
            })),
        ),
    }
}

fn filter_error_view(error: &FilterError) -> FilterErrorView {
    let hint = error
        .hint
        .as_ref()
        .map(|hint| format!(" ({hint})"))
        .unwrap_or_default();
    FilterErrorView {
        message: format!("{}{hint}", error.message),
        at: Some(error.column),
    }
}

/// What the queries of a list page find.
#[derive(Default)]
struct Found {
    rows: Vec<TraceRow>,
    next: Option<Cursor>,
    facets: Vec<Facet>,
    pulse: Option<Aggregate>,
    count: u64,
    count_exact: bool,
    any: bool,
}

async fn find(
    app: &App,
    project: ProjectId,
    ask: &Ask,
    link: &ListLink,
    range: &RangeView,
) -> Result<Found> {
    let limit = link
        .get("limit")
        .and_then(|limit| limit.parse().ok())
        .unwrap_or(50_usize)
        .clamp(1, 200);
    let cursor = link.get("cursor").map(Cursor::from_client);
    let bucket_us = bucket_s(range.to_us - range.from_us, 60) * 1_000_000;
    let ask = ask.clone();
    let page = {
        let query = ask.list(project, limit, cursor);
        read(&app.telemetry, move |reader| reader.list(&query)).await?
    };
    let work = move |reader: &Reader| Ok(around(reader, project, &ask, page, bucket_us));
    read(&app.telemetry, work).await
}

/// The figures around the rows. They are extras: one that takes too long is
/// left out, and the rows still come.
fn around(
    reader: &Reader,
    project: ProjectId,
    ask: &Ask,
    page: Page<TraceRow>,
    bucket_us: i64,
) -> Found {
    let mut pulse = ask.aggregate(project);
    pulse.measures = vec![Measure::Count, Measure::Errors];
    pulse.every_us = Some(bucket_us);
    let pulse = optional(reader.aggregate(&pulse));
    let counted = pulse.as_ref().map(|pulse| {
        pulse
            .rows
            .iter()
            .filter_map(|row| *row.values.first()?)
            .sum::<f64>() as u64
    });
    let any = !page.rows.is_empty()
        || optional(reader.list(&Ask::default().list(project, 1, None)))
            .is_some_and(|page| !page.rows.is_empty());
    Found {
        facets: facets(reader, project, ask),
        count: counted.unwrap_or(page.rows.len() as u64),
        count_exact: counted.is_some(),
        rows: page.rows,
        next: page.next,
        pulse,
        any,
    }
}

fn optional<T>(answer: Result<T, QueryError>) -> Option<T> {
    answer.map_err(|error| tracing::debug!(error.message = %error, "a figure beside the trace list was left out")).ok()
}

/// The most frequent values of the usual fields and of the tags in use. A field
/// that the filter names is counted without its own condition, so that its
/// other values can be chosen.
fn facets(reader: &Reader, project: ProjectId, ask: &Ask) -> Vec<Facet> {
    let mut fields = vec![
        Field::Status,
        Field::Model,
        Field::Provider,
        Field::Environment,
        Field::Prompt,
        Field::ErrorType,
        Field::User,
        Field::Session,
    ];
    let sample = Ask {
        filter: telemetry::Filter::default(),
        text: None,
        ..ask.clone()
    }
    .list(project, TAG_SAMPLE, None);
    let rows = optional(reader.list(&sample))
        .map(|page| page.rows)
        .unwrap_or_default();
    let mut tags: Vec<String> = rows
        .iter()
        .flat_map(|row| row.stored.span.tags.keys().cloned())
        .collect();
    tags.sort();
    tags.dedup();
    fields.extend(tags.into_iter().take(TAG_FACETS).map(Field::Tag));
    let named = ask.filter.fields();
    let (own, plain): (Vec<Field>, Vec<Field>) = fields
        .iter()
        .cloned()
        .partition(|field| named.contains(field));
    let mut found =
        optional(reader.facets(&ask.facets(project, plain, FACET_VALUES))).unwrap_or_default();
    for field in own {
        let without = Ask {
            filter: ask.filter.without(&field),
            ..ask.clone()
        };
        found.extend(
            optional(reader.facets(&without.facets(project, vec![field], FACET_VALUES)))
                .unwrap_or_default(),
        );
    }
    found.sort_by_key(|facet| fields.iter().position(|field| *field == facet.field));
    found
}

/// A bucket width that people can read, for about so many buckets.
pub fn bucket_s(range_us: i64, wanted: i64) -> i64 {
    const WIDTHS_S: &[i64] = &[
        1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 604_800,
    ];
    let exact = range_us / 1_000_000 / wanted.max(1);
    WIDTHS_S
        .iter()
        .copied()
        .find(|width| *width >= exact)
        .unwrap_or(2_592_000)
}

struct ListParts {
    ask: Ask,
    wrong: Option<FilterErrorView>,
    range: RangeView,
    found: Found,
    peek: Option<PeekView>,
}

fn list_view(
    app: &App,
    identity: &Identity,
    page: &PageContext,
    link: &ListLink,
    parts: ListParts,
) -> ListView {
    let ListParts {
        ask,
        wrong,
        range,
        found,
        peek,
    } = parts;
    let live = link.get("live") != Some("0")
        && ask.text.is_none()
        && ["to", "cursor"].iter().all(|key| link.get(key).is_none());
    let filter = link.get("filter").unwrap_or_default().to_owned();
    ListView {
        q: link.get("q").unwrap_or_default().to_owned(),
        live,
        chips: chips(&ask, link),
        clear_href: link
            .without(&["filter", "q", "cursor", "prev", "peek"])
            .href(),
        facets: found
            .facets
            .iter()
            .filter(|facet| !facet.values.is_empty())
            .map(|facet| facet_view(page, &ask, link, facet))
            .collect(),
        pulse: found
            .pulse
            .as_ref()
            .map(|pulse| pulse_chart(pulse, &range, link)),
        rows: found
            .rows
            .iter()
            .map(|row| view::row(row, &page.root(), link))
            .collect(),
        count: found.count,
        count_exact: found.count_exact,
        pager: pager(link, found.next.as_ref()),
        export_href: None,
        // A wrong filter is typed by somebody who has a list before them.
        any: found.any || wrong.is_some(),
        snippet: crate::playground::snippet(app, page, identity, None, None),
        peek,
        tail_query: if filter.is_empty() {
            String::new()
        } else {
            format!("filter={}", super::encode(&filter))
        },
        filter_error: wrong,
        filter,
        range,
    }
}

fn chips(ask: &Ask, link: &ListLink) -> Vec<Chip> {
    let parts = conjuncts(&ask.filter);
    let mut chips: Vec<Chip> = (0..parts.len())
        .map(|index| {
            let others = parts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .map(|(_, part)| *part);
            Chip {
                text: parts[index].to_string(),
                remove_href: link.with_filter(&all_of(others)).href(),
            }
        })
        .collect();
    chips.extend(ask.text.as_ref().map(|text| Chip {
        text: text.clone(),
        remove_href: link.without(&["q", "cursor", "prev", "peek"]).href(),
    }));
    chips
}

/// Cursors only lead on. The page before is known while the address carries its cursor in `prev`.
fn pager(link: &ListLink, next: Option<&Cursor>) -> Pager {
    const FIRST: &str = "first";
    let here = link.get("cursor").unwrap_or(FIRST);
    let plain = link.without(&["peek"]);
    Pager {
        next_href: next.map(|next| {
            plain
                .with("cursor", next.as_str())
                .with("prev", here)
                .href()
        }),
        prev_href: link.get("prev").map(|prev| {
            let back = plain.without(&["cursor", "prev"]);
            if prev == FIRST {
                back.href()
            } else {
                back.with("cursor", prev).href()
            }
        }),
    }
}

fn facet_view(page: &PageContext, ask: &Ask, link: &ListLink, facet: &Facet) -> FacetView {
    let field = &facet.field;
    let most = facet
        .values
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(1)
        .max(1);
    let value = |(value, count): &(String, u64)| {
        let condition = format!("{field} = {}", literal(field, value));
        let active = conjuncts(&ask.filter)
            .iter()
            .any(|part| part.to_string() == condition);
        let href = if active {
            link.with_filter(&ask.filter.without(field).to_string())
        } else {
            link.with_condition(field.clone(), Op::Equal, literal(field, value))
        };
        let label = match field {
            Field::Status => {
                view::status_key(value).map_or_else(|| value.clone(), |key| page.t(key))
            }
            _ => value.clone(),
        };
        FacetValueView {
            label,
            count: *count,
            share: *count as f64 / most as f64,
            active,
            href: href.href(),
        }
    };
    FacetView {
        key: field.to_string(),
        title: facet_title(page, field),
        values: facet.values.iter().map(value).collect(),
        more_href: None,
    }
}

fn facet_title(page: &PageContext, field: &Field) -> String {
    let key = match field {
        Field::Status => "col-status",
        Field::Model => "col-model",
        Field::Provider => "col-provider",
        Field::Environment => "col-environment",
        Field::Prompt => "col-prompt",
        Field::ErrorType => "col-errors",
        Field::User => "col-user",
        Field::Session => "col-session",
        other => return other.to_string(),
    };
    page.t(key)
}

fn pulse_chart(pulse: &Aggregate, range: &RangeView, link: &ListLink) -> Chart {
    let bucket_s = bucket_s(range.to_us - range.from_us, 60);
    let times_s = view::bucket_times(range.from_us, range.to_us, bucket_s);
    let all = view::bucketed(&pulse.rows, 0, &times_s, true);
    let errors = view::bucketed(&pulse.rows, 1, &times_s, true);
    Chart::calls(
        times_s,
        bucket_s,
        all,
        errors,
        link.without(&["cursor", "prev", "peek"]).href(),
    )
}

/// The drawer of the trace that the address names in `peek`, if there is one.
async fn peek_view(
    app: &App,
    identity: &Identity,
    page: &PageContext,
    link: &ListLink,
) -> Result<Option<PeekView>> {
    let Some(id) = link.get("peek").and_then(|id| id.parse::<TraceId>().ok()) else {
        return Ok(None);
    };
    let project = identity.project.id;
    let Some(trace) = read(&app.telemetry, move |reader| reader.trace(project, id)).await? else {
        return Ok(None);
    };
    let Some(stored) = view::main_span(&trace) else {
        return Ok(None);
    };
    let bodies = span_bodies(app, project, stored).await?;
    let names = author_names(app, project, &trace).await?;
    Ok(Some(view::peek(
        stored,
        &bodies,
        &trace.scores,
        &names,
        &page.root(),
        link,
    )))
}

async fn span_bodies(
    app: &App,
    project: ProjectId,
    stored: &telemetry::StoredSpan,
) -> Result<Bodies> {
    let (trace_id, span_id) = (stored.span.trace_id, stored.span.span_id);
    let work =
        move |reader: &Reader| reader.span_bodies(project, trace_id, span_id, Some(BODY_BYTES));
    Ok(read(&app.telemetry, work).await?.unwrap_or_default())
}

async fn author_names(app: &App, project: ProjectId, trace: &Trace) -> Result<AuthorNames> {
    let authors = trace
        .scores
        .iter()
        .filter_map(|score| score.author.as_deref());
    crate::members::actor_names(&app.db, project, authors).await
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    page: PageContext,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response> {
    let project = identity.project.id;
    let trace = super::await_trace(&app, project, super::trace_id(&id)?).await?;
    let link = ListLink::of_request(&page.path, &page.query);
    let wanted = link.get("span");
    let chosen = trace
        .spans
        .iter()
        .find(|stored| wanted == Some(stored.span.span_id.to_string().as_str()));
    let Some(selected) = chosen.or_else(|| view::main_span(&trace)) else {
        return Err(super::no_such_trace());
    };
    let bodies = span_bodies(&app, project, selected).await?;
    let names = author_names(&app, project, &trace).await?;
    let key_name = match selected
        .span
        .key_id
        .as_deref()
        .and_then(|key| key.parse().ok())
    {
        Some(key) => crate::keys::key_name(&app.db, project, key).await?,
        None => None,
    };
    let guards = crate::guards::in_trace(&app, &page, project, &trace, selected, &bodies).await?;
    let view = view::trace(&TraceParts {
        trace: &trace,
        selected,
        bodies: &bodies,
        names: &names,
        key_name,
        me: &identity.actor.to_string(),
        root: &page.root(),
        page: &link,
        guards,
    });
    page.render("traces/show.html", view).await
}

#[derive(Deserialize)]
struct ThumbsForm {
    value: i64,
    back: Option<String>,
}

/// A thumb without scripts: score, then back to where the reader was.
async fn thumbs(
    State(app): State<App>,
    identity: Identity,
    page: PageContext,
    Path((_, id)): Path<(String, String)>,
    Form(form): Form<ThumbsForm>,
) -> Result<Response> {
    let score = NewScore {
        trace_id: id.clone(),
        span_id: None,
        name: THUMBS.to_owned(),
        value: ScoreValue::Number(form.value.signum() as f64),
        comment: None,
    };
    crate::scores::create_score(&app, &identity, score).await?;
    let own = format!("{}/traces/", page.root());
    let back = form
        .back
        .filter(|back| back.starts_with(&own) && !back.contains(['\\', '\n', '\r']));
    Ok(redirect(back.unwrap_or_else(|| format!("{own}{}", super::encode(&id)))).into_response())
}
