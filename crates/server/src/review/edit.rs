//! The document of a queue as a form.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use db::{NewVersion, Problem};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::manage::{names, show_href};
use super::{Desk, QueueDocument, find_queue};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::form::{self, Fields};
use crate::ui::{PageContext, redirect};

/// Questions that the form has places for.
const QUESTIONS: usize = 6;

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/{project}/review-queues/edit", manage, edit),
        Route::post("/{project}/review-queues/edit", manage, save),
    ]
}

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let values = match &query.name {
        Some(name) => {
            let queue = find_queue(Desk::of(&app), identity.scope(), name).await?;
            let mut values = fields_of(&queue.document);
            values.insert("name".to_owned(), queue.name);
            values.insert("version".to_owned(), queue.version.to_string());
            values
        }
        None => fields_of(&QueueDocument {
            description: String::new(),
            guidelines: String::new(),
            questions: Vec::new(),
            raters: 1,
            overlap: 1.0,
            blind: true,
            mask: false,
            reserve_s: 900,
            adjudicate: true,
            into: None,
            gold: None,
        }),
    };
    render_edit(
        &app,
        &page,
        &identity,
        StatusCode::OK,
        &values,
        json!({}),
        &[],
    )
    .await
}

/// The fields that a document fills; with a note where they do not tell all of it.
fn fields_of(document: &QueueDocument) -> Fields {
    let mut fields = Fields::new();
    let mut put = |name: &str, value: String| {
        fields.insert(name.to_owned(), value);
    };
    put("description", document.description.clone());
    put("guidelines", document.guidelines.clone());
    put("raters", document.raters.to_string());
    put("overlap", (document.overlap * 100.0).to_string());
    put(
        "reserve_min",
        (f64::from(document.reserve_s) / 60.0).to_string(),
    );
    put(
        "into",
        document
            .dataset()
            .map(|name| name.to_string())
            .unwrap_or_default(),
    );
    for (name, is_on) in [
        ("blind", document.blind),
        ("mask", document.mask),
        ("adjudicate", document.adjudicate),
    ] {
        if is_on {
            put(name, "on".to_owned());
        }
    }
    for (index, question) in document.questions.iter().enumerate().take(QUESTIONS) {
        let at = |field: &str| format!("{field}{}", index + 1);
        put(&at("question"), question.name.clone());
        put(&at("kind"), question.kind.name().to_owned());
        put(&at("title"), question.label.clone());
        put(&at("help"), question.help.clone());
        put(&at("options"), question.options.join("\n"));
        if question.required {
            put(&at("required"), "on".to_owned());
        }
        if let Some(scale) = &question.scale {
            put(&at("min"), scale.min.to_string());
            put(&at("max"), scale.max.to_string());
        }
        if let Some(super::Target::Input) = question.target {
            put(&at("target"), "input".to_owned());
        }
    }
    put(
        "document",
        serde_json::to_string_pretty(&document.to_value()).unwrap_or_default(),
    );
    let told = document_of(&fields).map(|told| QueueDocument::parse(&told));
    if told != Ok(Ok(document.clone())) && !document.questions.is_empty() {
        form::allow_only_json(&mut fields);
    }
    fields
}

async fn render_edit(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    values: &Fields,
    errors: Value,
    problems: &[Problem],
) -> Result<Response> {
    let datasets = names(app, identity, crate::datasets::KIND).await?;
    let is_new = values.get("version").is_none_or(String::is_empty);
    let kinds = [
        "",
        "choice",
        "multi",
        "rating",
        "text",
        "spans",
        "pairwise",
        "expected",
        "correction",
    ];
    let kinds = kinds.map(|kind| match kind {
        "" => json!({"value": "", "label": "–"}),
        kind => json!({"value": kind, "label": page.t(&format!("review-kind-{kind}"))}),
    });
    let mut all: Vec<String> = [
        "name",
        "version",
        "description",
        "guidelines",
        "raters",
        "overlap",
        "reserve_min",
        "into",
        "blind",
        "mask",
        "adjudicate",
        "document",
    ]
    .map(str::to_owned)
    .to_vec();
    for index in 1..=QUESTIONS {
        let fields = [
            "question", "kind", "title", "help", "options", "required", "min", "max", "target",
        ];
        all.extend(fields.map(|field| format!("{field}{index}")));
    }
    let every: Fields = all
        .into_iter()
        .map(|name| {
            let value = values.get(&name).cloned().unwrap_or_default();
            (name, value)
        })
        .collect();
    let shown = (1..=QUESTIONS)
        .rev()
        .find(|index| !every[&format!("question{index}")].is_empty())
        .unwrap_or(0)
        .max(1);
    let view = json!({
        "values": every, "errors": errors, "is_new": is_new, "kinds": kinds,
        "numbers": (1..=QUESTIONS).collect::<Vec<_>>(), "filled": shown,
        "datasets": datasets, "back_href": match values.get("name").filter(|_| !is_new) {
            Some(name) => show_href(page, name),
            None => format!("{}/review-queues", page.root()),
        },
        "problems": problems.iter().map(|problem| json!({"path": problem.path, "message": problem.message})).collect::<Vec<_>>(),
    });
    page.render_with_status(status, "review/edit.html", view)
        .await
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::WriteCatalog)?;
    let again = |errors: Value, problems: Vec<Problem>| {
        let (app, page, identity, form) =
            (app.clone(), page.clone(), identity.clone(), form.clone());
        async move {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render_edit(&app, &page, &identity, status, &form, errors, &problems).await
        }
    };
    let content = match document_of(&form) {
        Ok(content) => content,
        Err(message) => return again(json!({"form": message}), Vec::new()).await,
    };
    if let Err(problems) = QueueDocument::parse(&content) {
        return again(json!({}), problems).await;
    }
    let name = form.get("name").map(|name| name.trim()).unwrap_or_default();
    let parsed: std::result::Result<db::Name, Problem> = name.parse();
    let name = match parsed {
        Ok(name) => name,
        Err(problem) => return again(json!({"name": problem.message}), Vec::new()).await,
    };
    let new = NewVersion {
        kind: super::KIND,
        name: &name,
        content: &content,
        message: "",
    };
    let saved = app.catalog.save_version(identity.scope(), new).await?;
    let number = saved.version.number.to_string();
    let text = page.t_with("review-saved", &[("version", &number)]);
    let to = redirect(show_href(&page, name.as_str()));
    Ok(to.ok(text).into_response())
}

/// The document that the form says: its JSON where that was sent, else its fields.
fn document_of(form: &Fields) -> std::result::Result<Value, String> {
    if let Some(sent) = form::sent_json(form) {
        return sent;
    }
    let get = |name: &str| form::typed(form, name);
    let number = |name: &str| -> std::result::Result<Option<f64>, String> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let parsed: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
        parsed
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no number"))
    };
    let mut document = Map::new();
    for field in ["description", "guidelines"] {
        if let Some(text) = get(field) {
            document.insert(field.to_owned(), json!(text.replace("\r\n", "\n")));
        }
    }
    if let Some(raters) = get("raters") {
        let raters: u32 = raters
            .parse()
            .map_err(|_| format!("{raters:?} is no whole number"))?;
        document.insert("raters".to_owned(), json!(raters));
    }
    if let Some(percent) = number("overlap")? {
        document.insert("overlap".to_owned(), json!(percent / 100.0));
    }
    if let Some(minutes) = number("reserve_min")? {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what a u32 holds"
        )]
        let seconds = (minutes * 60.0).round().clamp(0.0, 1e9) as u32;
        document.insert("reserve_s".to_owned(), json!(seconds));
    }
    for flag in ["blind", "mask"] {
        document.insert(flag.to_owned(), json!(get(flag).is_some()));
    }
    document.insert("adjudicate".to_owned(), json!(get("adjudicate").is_some()));
    if let Some(into) = get("into") {
        document.insert("into".to_owned(), json!(format!("dataset:{into}")));
    }
    let mut questions = Vec::new();
    for index in 1..=QUESTIONS {
        let of = |field: &str| get(&format!("{field}{index}"));
        let (Some(name), kind) = (of("question"), of("kind")) else {
            continue;
        };
        let kind = kind.ok_or_else(|| format!("the question {name:?} needs a type"))?;
        let mut question =
            json!({"name": name, "type": kind, "required": of("required").is_some()});
        for (field, key) in [("title", "label"), ("help", "help")] {
            if let Some(text) = of(field) {
                question[key] = json!(text);
            }
        }
        if matches!(kind, "choice" | "multi" | "spans") {
            let options = of("options").unwrap_or_default().lines();
            let options: Vec<&str> = options
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            question["options"] = json!(options);
        }
        let (min, max) = (
            number(&format!("min{index}"))?,
            number(&format!("max{index}"))?,
        );
        if let (Some(min), Some(max), "rating") = (min, max, kind) {
            question["scale"] = json!({"min": min, "max": max});
        }
        if let ("spans", Some(target)) = (kind, of("target")) {
            question["target"] = json!(target);
        }
        questions.push(question);
    }
    document.insert("questions".to_owned(), Value::Array(questions));
    Ok(Value::Object(document))
}
