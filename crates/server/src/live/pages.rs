//! The pages of live evaluations. Names hold slashes, so a page is `live/show?name=…`.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::{NameFilter, PageRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{TracesQuery, hours, last_day, page as page_of};
use super::{Figures, Found, HourRow, LiveDocument};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::traces::{Chart, Series};
use crate::ui::{PageContext, redirect};

/// Names that a choice offers.
const OFFERED: u32 = 200;
/// Rows of the show page.
const ROWS: u32 = 25;
const HOURS: i64 = 48;
const FIELDS: [&str; 9] = [
    "name",
    "description",
    "evaluator",
    "score",
    "filter",
    "sample",
    "max_per_hour",
    "budget_usd_per_day",
    "enabled",
];

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    vec![
        Route::get("/{project}/live", read, list),
        Route::get("/{project}/live/edit", run, edit),
        Route::post("/{project}/live/edit", run, save),
        Route::get("/{project}/live/show", read, show),
        Route::post("/{project}/live/change", run, change),
    ]
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/live/show?name={}", page.root(), encode(name))
}

/// A number as people read it: few digits, none that say nothing.
fn shown(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn figures_view(figures: &Figures) -> Value {
    json!({
        "seen": figures.seen, "drawn": figures.drawn, "scored": figures.scored, "errors": figures.errors,
        "unscored": figures.unscored, "pending": figures.pending, "over_rate": figures.over_rate,
        "over_budget": figures.over_budget, "known": figures.known, "mean": figures.mean.map(shown),
        "coverage": figures.coverage(), "spent": nano(figures.spent_usd), "unpriced": figures.unpriced_calls,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "what was spent is far below nine billion dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let mut rows = Vec::new();
    for found in super::all(&app, identity.scope()).await? {
        let figures = last_day(&app, &found).await?;
        rows.push(json!({
            "name": found.name.as_str(), "href": show_href(&page, found.name.as_str()),
            "state": found.state().name(), "score": found.document.score, "evaluator": found.document.evaluator,
            "filter": found.document.filter, "sample": found.document.sample, "figures": figures_view(&figures),
        }));
    }
    page.render("live/list.html", json!({"rows": rows})).await
}

/// A row for each live evaluation with what it has shown of a range, for other pages.
///
/// # Errors
/// The database cannot be read.
pub async fn rows(
    app: &App,
    page: &PageContext,
    scope: db::Scope,
    range: (i64, i64),
) -> Result<Vec<Value>> {
    let found = super::summaries(app, scope, range).await?;
    let row = |row: super::Summary| {
        json!({
            "name": row.name, "href": show_href(page, &row.name), "score": row.score, "state": row.state.name(),
            "mean": row.figures.mean.map(shown), "scored": row.figures.scored,
            "unscored": row.figures.unscored + row.figures.errors,
        })
    };
    Ok(found.into_iter().map(row).collect())
}

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
    evaluator: Option<String>,
    filter: Option<String>,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let mut values = BTreeMap::new();
    let mut is_new = true;
    if let Some(text) = &query.name {
        let name = super::parse_name(text)?;
        let found = super::find(&app, identity.scope(), &name).await?;
        values = values_of(&found);
        is_new = false;
    } else {
        let mut set = |name: &str, value: Option<String>| {
            values.insert(name.to_owned(), value.unwrap_or_default());
        };
        set("evaluator", query.evaluator);
        set("filter", query.filter);
        set("sample", Some("100".to_owned()));
        set("max_per_hour", Some("100".to_owned()));
        set("enabled", Some("on".to_owned()));
    }
    let status = StatusCode::OK;
    render_edit(&app, &page, &identity, status, &values, json!({}), is_new).await
}

fn values_of(found: &Found) -> BTreeMap<String, String> {
    let document = &found.document;
    let budget = document.budget_usd_per_day;
    let values = [
        ("name", found.name.to_string()),
        ("description", document.description.clone()),
        ("evaluator", document.evaluator.clone()),
        ("score", document.score.clone()),
        ("filter", document.filter.clone()),
        ("sample", shown(document.sample * 100.0)),
        ("max_per_hour", document.max_per_hour.to_string()),
        (
            "budget_usd_per_day",
            budget.map(|usd| usd.to_string()).unwrap_or_default(),
        ),
        (
            "enabled",
            if document.enabled {
                "on".to_owned()
            } else {
                String::new()
            },
        ),
    ];
    let own = |(name, value): (&str, String)| (name.to_owned(), value);
    values.into_iter().map(own).collect()
}

async fn render_edit(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    typed: &BTreeMap<String, String>,
    errors: Value,
    is_new: bool,
) -> Result<Response> {
    let request = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let kind = crate::evaluators::KIND;
    let names = app
        .catalog
        .list_names(identity.scope(), kind, &NameFilter::default(), &request)
        .await?;
    let mut evaluators: Vec<String> = names
        .items
        .iter()
        .map(|listed| format!("evaluator:{}@latest", listed.latest.name))
        .collect();
    let chosen = typed.get("evaluator").cloned().unwrap_or_default();
    if !chosen.is_empty() && !evaluators.contains(&chosen) {
        evaluators.insert(0, chosen);
    }
    // Templates are strict: every field is there.
    let value = |name: &str| typed.get(name).cloned().unwrap_or_default();
    let values: BTreeMap<&str, String> = FIELDS.map(|name| (name, value(name))).into();
    let option =
        |name: &String| json!({"value": name, "label": name.trim_start_matches("evaluator:")});
    let view = json!({
        "values": values, "errors": errors, "is_new": is_new,
        "evaluators": evaluators.iter().map(option).collect::<Vec<_>>(),
    });
    page.render_with_status(status, "live/edit.html", view)
        .await
}

/// The document that the fields say; what is no number is left for the check to refuse.
fn document_of(form: &BTreeMap<String, String>) -> Value {
    let get = |name: &str| form.get(name).map(|value| value.trim()).unwrap_or_default();
    let mut document = Map::new();
    for name in ["description", "evaluator", "score", "filter"] {
        if !get(name).is_empty() {
            document.insert(name.to_owned(), json!(get(name)));
        }
    }
    document.entry("score").or_insert_with(|| json!(""));
    document.entry("evaluator").or_insert_with(|| json!(""));
    let percent = get("sample").trim_end_matches(['%', '％']).trim();
    let sample = percent
        .parse::<f64>()
        .map_or(-1.0, |percent| percent / 100.0);
    document.insert("sample".to_owned(), json!(sample));
    let limit = get("max_per_hour").parse::<u32>().unwrap_or(0);
    document.insert("max_per_hour".to_owned(), json!(limit));
    if !get("budget_usd_per_day").is_empty() {
        let budget = get("budget_usd_per_day").parse::<f64>().unwrap_or(-1.0);
        document.insert("budget_usd_per_day".to_owned(), json!(budget));
    }
    document.insert("enabled".to_owned(), json!(!get("enabled").is_empty()));
    Value::Object(document)
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    let is_new = form.get("is_new").is_some_and(|word| !word.is_empty());
    let saved = async {
        let name = super::parse_name(form.get("name").map(|name| name.trim()).unwrap_or_default())?;
        let content = document_of(&form);
        if let Err(problems) = LiveDocument::parse(&content) {
            return Ok(Err(errors_of(&problems)));
        }
        let found = super::save(&app, identity.scope(), &name, &content, "").await?;
        Ok::<_, AppError>(Ok(found))
    };
    let errors = match saved.await {
        Ok(Ok(found)) => {
            let to = redirect(show_href(&page, found.name.as_str()));
            return Ok(to.ok(page.t("live-saved")).into_response());
        }
        Ok(Err(errors)) => errors,
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let at = error.at.clone().unwrap_or_default();
            let field = at.trim_start_matches('/');
            let known = FIELDS.contains(&field);
            json!({if known { field } else { "form" }: error.message})
        }
        Err(error) => return Err(error),
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render_edit(&app, &page, &identity, status, &form, errors, is_new).await
}

fn errors_of(problems: &[db::Problem]) -> Value {
    let mut errors = Map::new();
    for problem in problems {
        let field = problem.path.trim_start_matches('/');
        let field = if FIELDS.contains(&field) {
            field
        } else {
            "form"
        };
        errors.insert(field.to_owned(), json!(problem.message));
    }
    Value::Object(errors)
}

#[derive(Deserialize)]
struct ShowPage {
    name: String,
    state: Option<String>,
    cursor: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowPage>,
) -> Result<Response> {
    let name = super::parse_name(&query.name)?;
    let scope = identity.scope();
    let found = super::find(&app, scope, &name).await?;
    let figures = last_day(&app, &found).await?;
    let hours = hours(&app, scope, name.as_str(), HOURS).await?;
    let asked = TracesQuery {
        state: query.state.clone(),
        cursor: query.cursor.clone(),
        limit: Some(ROWS),
    };
    let (rows, next) = page_of(&app, scope, name.as_str(), asked).await?;
    let (root, href) = (page.root(), show_href(&page, name.as_str()));
    let state = query.state.clone().unwrap_or_default();
    let with_state = |state: &str| match state {
        "" => href.clone(),
        state => format!("{href}&state={state}"),
    };
    let traces: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "href": format!("{root}/traces/{}", row.trace), "trace": row.trace.get(..8), "state": row.state.name(),
                "value": row.value.map(shown), "label": row.label, "reason": row.reason, "at": row.taken_at,
                "cost": row.cost,
                "judge_href": row.judge.as_ref().map(|judge| format!("{root}/traces/{judge}")),
            })
        })
        .collect();
    let states: Vec<Value> = ["", "scored", "unscored", "error", "pending"]
        .iter()
        .map(|word| json!({"key": word, "href": with_state(word), "selected": *word == state}))
        .collect();
    let held = found.held.as_ref().filter(|held| held.paused);
    let people = crate::members::actor_names(
        &app.db,
        scope.project,
        held.iter().map(|held| held.by.as_str()),
    )
    .await?;
    let document = &found.document;
    let instrument = found.instrument.as_ref().ok().map(|instrument| {
        json!({
            "name": instrument.name, "version": instrument.version, "digest": instrument.digest.short(),
            "signature": instrument.document.signature(),
            "href": format!("{root}/evaluators/edit?name={}", encode(&instrument.name)),
        })
    });
    let list_filter = format!("score.{} exists", quoted(&document.score));
    let view = json!({
        "name": name.as_str(), "href": href, "self_href": with_state(&state), "state": found.state().name(),
        "problem": found.instrument.as_ref().err(), "version": found.version.number,
        "edit_href": format!("{root}/live/edit?name={}", encode(name.as_str())),
        "traces_href": format!("{root}/traces?filter={}", encode(&list_filter)),
        "held": held.map(|held| json!({"reason": held.reason, "by": people.get(&held.by), "at": held.at})),
        "document": {
            "description": document.description, "score": document.score, "filter": document.filter,
            "sample": document.sample, "max_per_hour": document.max_per_hour, "evaluator": document.evaluator,
            "budget": document.budget_usd_per_day.map(nano),
        },
        "instrument": instrument, "figures": figures_view(&figures),
        "hours": hours.iter().rev().map(hour_view).collect::<Vec<_>>(),
        "charts": charts(&app, &hours), "traces": traces, "states": states,
        "next_href": next.map(|cursor| format!("{}&cursor={}", with_state(&state), encode(&cursor))),
    });
    page.render("live/show.html", view).await
}

/// A name as the filter language takes it.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match name.chars().all(plain) && !name.is_empty() {
        true => name.to_owned(),
        false => json!(name).to_string(),
    }
}

fn hour_view(hour: &HourRow) -> Value {
    json!({"at": hour.at, "figures": figures_view(&hour.figures)})
}

/// Mean and counts by the hour; an hour without a score is a gap in the one, zero in the other.
fn charts(app: &App, hours: &[HourRow]) -> Vec<Value> {
    let to_us = app.clock.now_us();
    let from_us = to_us - HOURS * super::store::HOUR_US;
    let times_s = crate::traces::bucket_times(from_us, to_us, 3600);
    let by_time: HashMap<i64, &HourRow> = hours
        .iter()
        .map(|hour| (hour.at / 1_000_000, hour))
        .collect();
    let values = |of: &dyn Fn(&HourRow) -> Option<f64>, empty: Option<f64>| -> Vec<Option<f64>> {
        let value = |time: &i64| by_time.get(time).map_or(empty, |hour| of(hour));
        times_s.iter().map(value).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = |number: i64| Some(number as f64);
    let chart = |key, unit, stacked, series| Chart {
        key,
        unit,
        times_s: times_s.clone(),
        bucket_s: 3600,
        stacked,
        series,
        href: String::new(),
    };
    let mean = chart(
        "live-mean",
        "score",
        false,
        vec![Series {
            key: "mean",
            values: values(&|hour| hour.figures.mean, None),
        }],
    );
    let counts = chart(
        "live-counts",
        "count",
        true,
        vec![
            Series {
                key: "ok",
                values: values(&|hour| count(hour.figures.scored), Some(0.0)),
            },
            Series {
                key: "error",
                values: values(
                    &|hour| count(hour.figures.unscored + hour.figures.errors),
                    Some(0.0),
                ),
            },
        ],
    );
    [mean, counts]
        .into_iter()
        .map(|chart| json!({"chart": chart, "key": chart.key, "from_us": from_us, "to_us": to_us}))
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: String,
    action: String,
    #[serde(default)]
    reason: String,
}

async fn change(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Change>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let (paused, done) = match form.action.as_str() {
        "pause" => (true, "live-paused"),
        "resume" => (false, "live-resumed"),
        _ => return Err(AppError::invalid("an action is pause or resume").at("action")),
    };
    let to = redirect(show_href(&page, name.as_str()));
    match super::hold(&app, identity.scope(), &name, paused, &form.reason).await {
        Ok(_) => Ok(to.ok(page.t(done)).into_response()),
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
