//! The page on which finds are reviewed: a list that every number about guards leads to, filtered
//! by its address, with the text around each find and three buttons. With scripts the keys 1, 2
//! and 3 do the same and go on to the next.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use guard::classify::Task;
use http::header;
use serde::Deserialize;
use serde_json::{Value, json};

use super::finds::{self, FindJson, Wanted};
use super::in_trace::{outcome, point, tier};
use super::marks::{self, Mark};
use super::recorded::FindId;
use super::train::{self, Asked};
use super::verdict::{self, Verdict};
use super::{KIND, form, labelled, measure};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::offered_names;
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::traces::encode;
use crate::ui::form::{Fields, typed};
use crate::ui::{PageContext, redirect};

/// Rows of a page.
const ROWS: usize = 25;
/// Times that the page offers, in the words of its address.
const TIMES: [&str; 4] = ["24h", "7d", "30d", "90d"];
/// What was done, as the page's filter offers it.
const ACTIONS: [&str; 6] = [
    "blocked",
    "edited",
    "rewrite",
    "flagged",
    "shadow",
    "failed_open",
];
/// The fields of the address that filter.
const FILTERS: [&str; 9] = [
    "from", "to", "policy", "rule", "check", "action", "shadow", "verdict", "user",
];

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadTraces);
    vec![
        Route::get("/{project}/guards/finds", read, list),
        Route::get("/{project}/guards/finds/labelled", read, download),
        Route::post(
            "/{project}/guards/finds/verdict",
            Access::Needs(Permission::WriteScores),
            give,
        ),
        Route::post(
            "/{project}/guards/finds/dataset",
            Access::Needs(Permission::WriteDatasets),
            append,
        ),
        Route::post(
            "/{project}/guards/classifiers",
            Access::Needs(Permission::WriteCatalog),
            teach,
        ),
    ]
}

/// What a form or an address says; a field that was left empty says nothing.
fn wanted(fields: &Fields) -> Wanted {
    let get = |name: &str| typed(fields, name).map(str::to_owned);
    Wanted {
        from: get("from"),
        to: get("to"),
        policy: get("policy"),
        rule: get("rule"),
        check: get("check"),
        action: get("action"),
        shadow: get("shadow").and_then(|word| word.parse().ok()),
        verdict: get("verdict"),
        user: get("user"),
        limit: None,
        cursor: get("cursor"),
    }
}

/// This page with these filters.
fn href(page: &PageContext, fields: &Fields, more: &[(&str, &str)]) -> String {
    let kept = FILTERS.iter().filter_map(|name| {
        let value = fields.get(*name).map(String::as_str);
        value.map(|value| (*name, value))
    });
    let changed = |name: &str| more.iter().any(|(other, _)| *other == name);
    let pairs = kept
        .filter(|(name, _)| !changed(name))
        .chain(more.iter().copied())
        .filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    let path = format!("{}/guards/finds", page.root());
    match query.is_empty() {
        true => path,
        false => format!("{path}?{}", query.join("&")),
    }
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(fields): Query<Fields>,
) -> Result<Response> {
    let project = identity.project.id;
    let one = fields.get("find").filter(|id| !id.is_empty());
    let found = match one {
        Some(id) => finds::Finds {
            items: vec![finds::one(&app, project, FindId::parse(id)?).await?],
            next_cursor: None,
        },
        None => {
            let asked = Wanted {
                limit: Some(ROWS),
                ..wanted(&fields)
            };
            finds::list(&app, project, &asked).await?
        }
    };
    let authors = found.items.iter().filter_map(|find| find.verdict.as_ref());
    let authors = authors.filter_map(|given| given.by.as_deref());
    let people = crate::members::actor_names(&app.db, project, authors).await?;
    let rows: Vec<Value> = found
        .items
        .iter()
        .map(|find| row(&page, &fields, find, &people))
        .collect();
    let judged = found.items.iter().filter(|find| find.verdict.is_some());
    let values: BTreeMap<&str, &str> = FILTERS
        .iter()
        .map(|name| (*name, fields.get(*name).map_or("", String::as_str)))
        .collect();
    let next = found.next_cursor.as_deref();
    let filtered = FILTERS[2..].iter().any(|name| !values[name].is_empty());
    let view = json!({
        "rows": rows, "judged": judged.count(), "is_one": one.is_some(), "is_filtered": filtered,
        "values": values, "options": options(&app, &page, &identity, &values).await?,
        "here": here(&page), "all_href": href(&page, &Fields::new(), &[]),
        "is_later": fields.contains_key("cursor"), "first_href": href(&page, &fields, &[]),
        "next_href": next.map(|next| href(&page, &fields, &[("cursor", next)])),
        "labelled_href": href(&page, &fields, &[]).replacen("/guards/finds", "/guards/finds/labelled", 1),
    });
    page.render("guards/finds.html", view).await
}

/// The address of this page, to come back to.
fn here(page: &PageContext) -> String {
    match page.query.is_empty() {
        true => page.path.clone(),
        false => format!("{}?{}", page.path, page.query),
    }
}

async fn options(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    values: &BTreeMap<&str, &str>,
) -> Result<Value> {
    let scope = identity.scope();
    let any = || json!({"value": "", "label": page.t("guards-any")});
    let words = |words: &[&str], prefix: &str| -> Vec<Value> {
        let word = |word: &&str| {
            let key = format!("{prefix}{}", word.replace('_', "-"));
            json!({"value": word, "label": page.t(&key)})
        };
        std::iter::once(any())
            .chain(words.iter().map(word))
            .collect()
    };
    let policies = offered_names(&app.catalog, scope, KIND).await?;
    let mut policy_options = vec![any()];
    policy_options.extend(
        policies
            .iter()
            .map(|name| json!({"value": name, "label": name})),
    );
    let wanted = values["policy"];
    if !wanted.is_empty() && !policies.iter().any(|name| name == wanted) {
        policy_options.push(json!({"value": wanted, "label": wanted}));
    }
    let chosen = match values["from"] {
        "" => "7d",
        from => from.trim_start_matches('-'),
    };
    let mut times: Vec<Value> = TIMES
        .iter()
        .map(|time| json!({"value": format!("-{time}"), "label": page.t(&format!("guards-time-{time}"))}))
        .collect();
    if !TIMES.contains(&chosen) {
        times.push(json!({"value": values["from"], "label": page.t("guards-time-other")}));
    }
    let datasets = match identity.role.allows(Permission::WriteDatasets) {
        true => offered_names(&app.catalog, scope, crate::datasets::KIND).await?,
        false => Vec::new(),
    };
    Ok(json!({
        "policies": policy_options, "checks": words(&form::CHECKS, "guards-check-"),
        "actions": words(&ACTIONS, "guards-outcome-"),
        "verdicts": words(&["none", "right", "false_alarm", "unsure"], "guards-said-"),
        "shadows": words(&["false", "true"], "guards-shadow-"), "times": times,
        "time": format!("-{chosen}"), "datasets": datasets,
    }))
}

fn row(
    page: &PageContext,
    fields: &Fields,
    find: &FindJson,
    people: &std::collections::HashMap<String, String>,
) -> Value {
    let root = page.root();
    let done = outcome(page, &find.action);
    let title = page.t_with(
        "guards-mark-title",
        &[("outcome", &done), ("rule", &find.rule)],
    );
    let segments = find.excerpt.as_ref().map(|excerpt| {
        let text = format!("{}{}{}", excerpt.before, excerpt.found, excerpt.after);
        let start = excerpt.before.len();
        let mark = Mark {
            range: start..start + excerpt.found.len(),
            outcome: find.action.clone(),
            title,
            number: None,
        };
        json!({
            "list": marks::segments(&text, &[mark]), "cut_before": excerpt.cut_before,
            "cut_after": excerpt.cut_after, "stands_for": excerpt.stands_for,
            "is_end": excerpt.found.is_empty(),
        })
    });
    let verdicts: Vec<Value> = Verdict::ALL
        .iter()
        .map(|one| {
            let given = find.verdict.as_ref();
            json!({
                "value": one.name(), "label": page.t(&said(*one)),
                "is_given": given.is_some_and(|given| given.verdict == *one),
            })
        })
        .collect();
    let said = find.verdict.as_ref().map(|given| {
        let by = given.by.as_ref();
        json!({
            "text": page.t(&said(given.verdict)), "at": given.at, "comment": given.comment,
            "by": by.map(|by| people.get(by).cloned().unwrap_or_else(|| by.clone())),
        })
    });
    let check = find.check.as_deref().filter(|check| !check.is_empty());
    json!({
        "id": find.id, "at": find.at, "trace_href": format!("{root}/traces/{}", find.trace_id),
        "policy": find.policy, "version": find.version, "rule": find.rule, "shadow": find.shadow,
        "policy_href": format!("{root}/guards/edit?name={}&version={}", encode(&find.policy), find.version),
        "rule_href": href(page, fields, &[("policy", &find.policy), ("rule", &find.rule)]),
        "check": check.map(|check| page.t(&format!("guards-check-{}", check.replace('_', "-")))),
        "reason": find.reason, "detector": find.detector, "tier": tier(page, &find.tier), "score": find.score,
        "start": find.start, "end": find.end, "point": point(page, &find.point), "field": find.field,
        "reading": find.reading, "outcome": done, "mark": marks::style(&find.action),
        "user": find.user, "user_href": find.user.as_ref().map(|user| href(page, fields, &[("user", user)])),
        "text": segments, "verdicts": verdicts, "said": said,
    })
}

fn said(verdict: Verdict) -> String {
    format!("guards-said-{}", verdict.name().replace('_', "-"))
}

/// Where a form leads back to: this page, as it was.
fn back(page: &PageContext, to: Option<&str>) -> String {
    let own = format!("{}/guards/finds", page.root());
    let is_own = |to: &&str| to.starts_with(&own) && !to.contains(['\\', '\n', '\r']);
    to.filter(is_own).map_or(own.clone(), str::to_owned)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictForm {
    find: String,
    verdict: String,
    #[serde(default)]
    comment: String,
    back: Option<String>,
}

async fn give(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<VerdictForm>,
) -> Result<Response> {
    let id = FindId::parse(&form.find)?;
    let verdict: Verdict = form.verdict.parse()?;
    verdict::give(&app, &identity, id, verdict, Some(form.comment)).await?;
    let to = format!("{}#find-{id}", back(&page, form.back.as_deref()));
    Ok(redirect(to).into_response())
}

async fn append(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::ReadTraces)?;
    let to = redirect(back(&page, fields.get("back").map(String::as_str)));
    let name = fields.get("dataset").map_or("", |name| name.trim());
    let name = match crate::datasets::parse_name(name) {
        Ok(name) => name,
        Err(error) => return Ok(to.err(error.message).into_response()),
    };
    let taken = labelled::append(&app, identity.scope(), &name, &wanted(&fields)).await?;
    let (texts, without) = (taken.texts.to_string(), taken.without_text.to_string());
    let args = [
        ("n", texts.as_str()),
        ("without", without.as_str()),
        ("name", name.as_str()),
    ];
    Ok(match taken.saved {
        Some(_) => to.ok(page.t_with("guards-appended", &args)),
        None => to.err(page.t_with("guards-appended-none", &args)),
    }
    .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeachForm {
    task: String,
    dataset: String,
}

/// Teaches a classifier from a dataset, and shows what became of its figures.
async fn teach(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<TeachForm>,
) -> Result<Response> {
    identity.require(Permission::ReadDatasets)?;
    let to = redirect(back(&page, None));
    let Some(task) = [Task::Injection, Task::Toxicity]
        .into_iter()
        .find(|task| task.name() == form.task)
    else {
        return Ok(to.err(page.t("guards-teach-task")).into_response());
    };
    let scope = identity.scope();
    let items = measure::of_dataset(&app.datasets, scope, form.dataset.trim(), Some(task.name()));
    let items = match items.await {
        Ok(items) => items,
        Err(error) => return Ok(to.err(error.message).into_response()),
    };
    let asked = Asked {
        task,
        name: None,
        base: None,
    };
    let trained = train::train(&app.db, &app.catalog, scope, asked, items).await?;
    let report = &trained.report;
    let (before, after) = (&report.before, &report.after);
    let row = |key: &str, before: [usize; 2], after: [usize; 2]| {
        let of = |[hits, all]: [usize; 2]| format!("{hits} / {all}");
        json!({"label": page.t(key), "before": of(before), "after": of(after)})
    };
    let rows = [
        row("guards-taught-apart", before.recall, after.recall),
        row(
            "guards-taught-apart-false",
            before.false_positives,
            after.false_positives,
        ),
        row(
            "guards-taught-learned",
            before.learned_recall,
            after.learned_recall,
        ),
        row(
            "guards-taught-learned-false",
            before.learned_false_positives,
            after.learned_false_positives,
        ),
        row("guards-taught-own", before.own_recall, after.own_recall),
        row(
            "guards-taught-own-false",
            before.own_false_positives,
            after.own_false_positives,
        ),
    ];
    let check = json!({"type": task.name(), "classifier": trained.digest});
    let view = json!({
        "task": page.t(&format!("guards-check-{}", task.name())), "dataset": form.dataset.trim(),
        "digest": trained.digest, "rows": rows, "check": check.to_string(),
        "threshold_before": format!("{:.4}", before.threshold), "threshold": format!("{:.4}", after.threshold),
    });
    page.render("guards/taught.html", view).await
}

async fn download(
    State(app): State<App>,
    identity: Identity,
    Query(fields): Query<Fields>,
) -> Result<Response> {
    let found = labelled::texts(&app, identity.project.id, &wanted(&fields)).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl; charset=utf-8"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"reviewed.jsonl\"",
        ),
    ];
    Ok((headers, labelled::lines(&found)?).into_response())
}
