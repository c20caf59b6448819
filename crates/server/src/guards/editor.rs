//! The editor of a policy, with its test bench.
//!
//! It is one form: the policy as JSON, fields that add a rule to it, and a text to try it on.
//! Every button sends all of it, so that a draft is tried before it is saved and nothing that
//! was typed is lost. It all works without scripts.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::NewVersion;
use db::catalog::CatalogError;
use guard::Point;
use serde_json::{Value, json};

use super::asker::Asker;
use super::check::{self, Beside, Piece, Subject};
use super::curve;
use super::editor_view::{Drawing, render};
use super::kept::{self, EditQuery, LabelForm};
use super::measure::{self, Measured, What};
use super::traffic;
use super::{Found, KIND, LIBRARY, form};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::traces::{AskText, encode};
use crate::ui::form::Fields;
use crate::ui::{PageContext, redirect};

/// Calls that the button of the editor tries a draft on.
const TRIED_CALLS: usize = 200;
/// Bytes of a form: a policy and a text to try it on.
const FORM_BYTES: usize = 4 << 20;
/// The same with labelled texts.
const LABELLED_BYTES: usize = 16 << 20;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    let check = Access::Needs(Permission::CheckGuards);
    vec![
        Route::get("/{project}/guards/edit", read, edit),
        Route::post("/{project}/guards/edit", write, save).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/check", check, try_text).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/try", check, try_calls).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/measure", check, measure_draft).body_limit(LABELLED_BYTES),
        Route::post("/{project}/guards/labels", write, move_label),
    ]
}

pub(super) fn edit_href(page: &PageContext, name: &str) -> String {
    format!("{}/guards/edit?name={}", page.root(), encode(name))
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let mut fields = Fields::new();
    if let Some((name, found)) = query.open(&app, &identity, KIND).await? {
        fields.insert("name".to_owned(), name.to_string());
        fields.insert("version".to_owned(), found.version.number.to_string());
        fields.insert("document".to_owned(), pretty(&found.content));
    } else {
        let template = query.template.as_deref();
        let template = template.and_then(|id| LIBRARY.find(page.lang, id));
        let document = match template {
            Some(template) => template.document.clone(),
            None => json!({"rules": []}),
        };
        if let Some(template) = template {
            fields.insert("name".to_owned(), template.id.clone());
        }
        fields.insert("document".to_owned(), pretty(&document));
    }
    for tick in ["r_at_input", "r_at_output"] {
        fields.insert(tick.to_owned(), "on".to_owned());
    }
    let drawing = Drawing::default();
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

pub(super) fn get<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

/// The document as it was typed.
pub(super) fn document_of(fields: &Fields) -> std::result::Result<Value, Vec<db::Problem>> {
    serde_json::from_str(get(fields, "document")).map_err(|error| {
        let why = format!("the JSON cannot be read: {error}");
        vec![db::Problem::new("", why)]
    })
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    form::take_watched(&mut fields);
    let action = get(&fields, "action").to_owned();
    let mut document = match document_of(&fields) {
        Ok(document) => document,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    if action == "threshold" && curve::set_threshold(&mut document, &fields).is_none() {
        let why = db::Problem::new("", "there is no such rule, or no such threshold");
        return refuse(&app, &page, &identity, &fields, vec![why]).await;
    }
    if action == "add" || action == "threshold" || action.starts_with("remove-") {
        if action != "threshold" {
            change_rules(&mut document, &action, &fields);
        }
        fields.insert("document".to_owned(), pretty(&document));
        if action == "add" {
            forget_rule(&mut fields);
        }
        let drawing = Drawing {
            problems: super::check_document(&document).err().unwrap_or_default(),
            note: Some("guards-not-saved"),
            ..Drawing::default()
        };
        return render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await;
    }
    if let Err(problems) = super::check_document(&document) {
        return refuse(&app, &page, &identity, &fields, problems).await;
    }
    let name: std::result::Result<db::Name, db::Problem> = get(&fields, "name").trim().parse();
    let name = match name {
        Ok(name) => name,
        Err(problem) => {
            let drawing = Drawing {
                errors: json!({"name": problem.message}),
                ..Drawing::default()
            };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return render(&app, &page, &identity, status, &fields, drawing).await;
        }
    };
    let new = NewVersion {
        kind: KIND,
        name: &name,
        content: &document,
        message: get(&fields, "message").trim(),
    };
    let saved = match app.catalog.save_version(identity.scope(), new).await {
        Ok(saved) => saved,
        Err(CatalogError::Invalid(problems)) => {
            return refuse(&app, &page, &identity, &fields, problems).await;
        }
        Err(error) => return Err(error.into()),
    };
    let number = saved.version.number.to_string();
    let text = page.t_with("guards-saved", &[("version", &number)]);
    Ok(redirect(edit_href(&page, name.as_str()))
        .ok(text)
        .into_response())
}

fn change_rules(document: &mut Value, action: &str, fields: &Fields) {
    let Some(document) = document.as_object_mut() else {
        return;
    };
    let rules = document.entry("rules").or_insert_with(|| json!([]));
    let Some(rules) = rules.as_array_mut() else {
        return;
    };
    match action.strip_prefix("remove-") {
        None => rules.push(form::rule(fields)),
        Some(index) => {
            if let Ok(index) = index.parse::<usize>()
                && index < rules.len()
            {
                rules.remove(index);
            }
        }
    }
}

/// The next rule begins with an empty form, at the same places.
fn forget_rule(fields: &mut Fields) {
    for name in [
        "r_name",
        "r_values",
        "r_list",
        "r_number",
        "r_threshold",
        "r_with",
    ] {
        fields.remove(name);
    }
}

async fn refuse(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    fields: &Fields,
    problems: Vec<db::Problem>,
) -> Result<Response> {
    let drawing = Drawing {
        problems,
        ..Drawing::default()
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render(app, page, identity, status, fields, drawing).await
}

/// The draft, ready to run with the project's word lists; or what is wrong with it.
async fn draft(
    app: &App,
    identity: &Identity,
    fields: &Fields,
) -> Result<std::result::Result<Found, Vec<db::Problem>>> {
    let document = match document_of(fields) {
        Ok(document) => document,
        Err(problems) => return Ok(Err(problems)),
    };
    let ready = super::try_compile_in(&app.catalog, identity.scope(), &document).await?;
    Ok(ready.map(|ready| Found {
        name: get(fields, "name").to_owned(),
        ..Found::nameless(ready)
    }))
}

async fn try_text(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    form::take_watched(&mut fields);
    let found = match draft(&app, &identity, &fields).await? {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let point = check::point_of(get(&fields, "point")).unwrap_or(Point::Input);
    let text = get(&fields, "text").replace("\r\n", "\n");
    let system = get(&fields, "system");
    let beside = Beside {
        system: (!system.is_empty()).then(|| system.to_owned()),
        ..Beside::default()
    };
    let subject = Subject::Text(Piece::new(point, text.as_str()));
    let asker = Asker::new(&app, &identity, page.request.id);
    let checked = check::check(&found, subject, &beside, Some(&asker)).await?;
    let drawing = Drawing {
        checked: Some((text, checked)),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn try_calls(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    form::take_watched(&mut fields);
    identity.require(Permission::ReadTraces)?;
    let found = match draft(&app, &identity, &fields).await? {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let calls = AskText::default();
    let tried = traffic::try_on(&app, identity.scope(), &found, &calls, Some(TRIED_CALLS)).await?;
    let drawing = Drawing {
        tried: Some(tried),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn measure_draft(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    form::take_watched(&mut fields);
    let found = match draft(&app, &identity, &fields).await? {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let measured = match measured(&app, &page, &identity, &found, &fields).await {
        Ok(measured) => measured,
        Err(error)
            if error.status == StatusCode::BAD_REQUEST || error.status == StatusCode::NOT_FOUND =>
        {
            let drawing = Drawing {
                errors: json!({"m_dataset": error.message}),
                ..Drawing::default()
            };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return render(&app, &page, &identity, status, &fields, drawing).await;
        }
        Err(error) => return Err(error),
    };
    let drawing = Drawing {
        measured: Some(measured),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn measured(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    found: &Found,
    fields: &Fields,
) -> Result<Measured> {
    let (dataset, lines) = (get(fields, "m_dataset").trim(), get(fields, "m_jsonl"));
    let items = match (dataset, lines.trim()) {
        ("", "") => {
            let why = "choose a dataset, or paste labelled texts";
            return Err(AppError::invalid(why).at("m_dataset"));
        }
        ("", lines) => measure::of_lines(lines)?,
        (name, _) => {
            identity.require(Permission::ReadDatasets)?;
            measure::of_dataset(&app.datasets, identity.scope(), name, None).await?
        }
    };
    let rule = get(fields, "m_rule");
    let what = What {
        point: check::point_of(get(fields, "m_point")).unwrap_or(Point::Input),
        rule: (!rule.is_empty()).then(|| rule.to_owned()),
    };
    let asker = Asker::new(app, identity, page.request.id);
    measure::measure(found, items, what, Some(&asker)).await
}

async fn move_label(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<LabelForm>,
) -> Result<Response> {
    let href = edit_href(&page, &form.name);
    kept::move_label(&app, &page, &identity, KIND, href, &form).await
}
