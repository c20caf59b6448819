//! The pages on which prompts are written: choosing a start, editing a draft,
//! having drafts written by a model.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::PageRequest;
use db::catalog::{NameFilter, Selector};
use serde::Deserialize;
use serde_json::{Value, json};

use super::form::{DraftForm, json_texts};
use super::generate::{Candidate, GenerateRequest, MOST};
use super::{KIND, drafts, generate, library, parse_document, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WritePrompts);
    vec![
        Route::get("/{project}/prompts/new", write, new),
        Route::get("/{project}/prompts/edit", write, edit),
        Route::post("/{project}/prompts/edit", write, submit).body_limit(5 << 20),
        Route::get("/{project}/prompts/generate", write, generate_form),
        Route::post("/{project}/prompts/generate", write, generate_candidates),
    ]
}

#[derive(Deserialize)]
struct NewQuery {
    /// A starting point of the library, or `blank`.
    start: Option<String>,
    /// A name to begin with, such as the folder that somebody is in.
    name: Option<String>,
}

async fn new(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NewQuery>,
) -> Result<Response> {
    let name = query.name.unwrap_or_default();
    let Some(start) = query.start else {
        return choose(&page, &name).await;
    };
    let document = match start.as_str() {
        "blank" => json!({"messages": [{"role": "system", "content": ""}]}),
        id => {
            let found = library::find(page.lang, id);
            let template = found.ok_or_else(|| {
                AppError::not_found(format!("there is no starting prompt {id:?}"))
            })?;
            template.document.clone()
        }
    };
    let editor = Editor {
        name,
        json: json_texts(&document),
        document,
        ..Editor::default()
    };
    editor.render(&app, &page, &identity, StatusCode::OK).await
}

async fn choose(page: &PageContext, name: &str) -> Result<Response> {
    let with_name = if name.is_empty() {
        String::new()
    } else {
        format!("&name={}", super::pages::encode(name))
    };
    let starts: Vec<Value> = library::templates(page.lang)
        .iter()
        .map(|template| json!({"title": template.title, "about": template.about, "href": format!("{}/prompts/new?start={}{with_name}", page.root(), template.id)}))
        .collect();
    let view = json!({
        "starts": starts, "blank_href": format!("{}/prompts/new?start=blank{with_name}", page.root()),
        "generate_href": format!("{}/prompts/generate", page.root()),
    });
    page.render("prompts/new.html", view).await
}

#[derive(Deserialize)]
struct EditQuery {
    name: String,
    version: Option<i64>,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let name = parse_name(&query.name)?;
    let selector = query.version.map_or(Selector::Latest, Selector::Number);
    let found = app
        .catalog
        .version(identity.scope(), KIND, &name, &selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no prompt {:?} with this version",
            name.as_str()
        ))
    })?;
    let editor = Editor {
        name: name.as_str().to_owned(),
        base: Some(found.version.number),
        json: json_texts(&found.content),
        document: found.content,
        ..Editor::default()
    };
    editor.render(&app, &page, &identity, StatusCode::OK).await
}

/// Every button of the editor's form that works without scripts.
async fn submit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    let mut form = DraftForm::read(&fields);
    let mut errors: BTreeMap<String, String> = form
        .errors
        .iter()
        .map(|(name, why)| ((*name).to_owned(), why.clone()))
        .collect();
    if form.change_messages()
        || form.action == "open"
        || form.action == "preview"
        || !errors.is_empty()
    {
        let wants_preview = form.action == "preview";
        let status = if errors.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        let editor = Editor {
            errors,
            wants_preview,
            ..Editor::of(form)
        };
        return editor.render(&app, &page, &identity, status).await;
    }
    match save(&app, &identity, &form).await {
        Ok((name, version)) => {
            let to = redirect(format!(
                "{}&version={version}",
                super::pages::show_href(&page, &name)
            ));
            Ok(to
                .ok(page.t_with("prompts-saved-flash", &[("n", &version.to_string())]))
                .into_response())
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            errors.extend(errors_of(&page, &error));
            let editor = Editor {
                errors,
                wants_preview: true,
                ..Editor::of(form)
            };
            editor
                .render(&app, &page, &identity, StatusCode::UNPROCESSABLE_ENTITY)
                .await
        }
        Err(error) => Err(error),
    }
}

async fn save(app: &App, identity: &Identity, form: &DraftForm) -> Result<(String, i64)> {
    let name = parse_name(&form.name)?;
    let document = parse_document(&form.document)?;
    let saved = super::save_version(app, identity.scope(), &name, &document, &form.message).await?;
    Ok((name.as_str().to_owned(), saved.version.number))
}

/// A refusal by the field of the form that it is about.
fn errors_of(page: &PageContext, error: &AppError) -> BTreeMap<String, String> {
    let at = error.at.as_deref().unwrap_or_default();
    let part = at
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    if at.starts_with('/') && !matches!(part, "messages" | "template") {
        return BTreeMap::from([(part.to_owned(), error.message.clone())]);
    }
    if at.starts_with('/') || at.is_empty() {
        return BTreeMap::from([("form".to_owned(), error.message.clone())]);
    }
    let shown = form_errors(page, error);
    let fields = shown.as_object().into_iter().flatten();
    fields
        .filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())))
        .collect()
}

/// The editor's page with a draft in it.
#[derive(Default)]
struct Editor {
    name: String,
    message: String,
    base: Option<i64>,
    document: Value,
    json: BTreeMap<&'static str, String>,
    errors: BTreeMap<String, String>,
    wants_preview: bool,
}

impl Editor {
    fn of(form: DraftForm) -> Self {
        Self {
            name: form.name,
            message: form.message,
            base: form.base,
            document: form.document,
            json: form.json,
            ..Self::default()
        }
    }

    async fn render(
        self,
        app: &App,
        page: &PageContext,
        identity: &Identity,
        status: StatusCode,
    ) -> Result<Response> {
        let scope = identity.scope();
        let request = PageRequest {
            cursor: None,
            limit: 200,
        };
        let names = app
            .catalog
            .list_names(scope, KIND, &NameFilter::default(), &request)
            .await?;
        let prompts: Vec<&str> = names
            .items
            .iter()
            .map(|listed| listed.latest.name.as_str())
            .collect();
        let models = crate::playground::chat_models(app, identity);
        let preview = self.wants_preview.then(|| {
            let request = drafts::RenderRequest {
                content: self.document.clone(),
                inputs: None,
                model: None,
            };
            drafts::render(app, identity, request)
        });
        let is_new = self.base.is_none();
        let text = |name: &str| {
            self.document
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let props = json!({
            "name": self.name, "is_new": is_new, "base": self.base, "document": self.document, "tags": [],
            "models": models, "prompts": prompts, "labels": super::labels_of_project(app, scope).await?,
        });
        let view = json!({
            "is_new": is_new, "name": self.name, "base": self.base, "message": self.message,
            "href": if is_new { String::new() } else { super::pages::show_href(page, &self.name) },
            "type": if text("type").is_empty() { "chat" } else { text("type") },
            "dialect": if text("dialect").is_empty() { "jinja" } else { text("dialect") },
            "template": text("template"), "description": text("description"), "model": text("model"),
            "messages": messages(&self.document), "json": self.json, "errors": self.errors,
            "preview": preview, "props": props,
        });
        page.render_with_status(status, "prompts/editor.html", view)
            .await
    }
}

/// The messages as rows of a form; a placeholder's name stands where a text would.
fn messages(document: &Value) -> Vec<Value> {
    let list = document.get("messages").and_then(Value::as_array);
    let row = |message: &Value| match message.get("placeholder") {
        Some(name) => json!({"role": "placeholder", "content": name}),
        None => json!({"role": message["role"], "content": message["content"]}),
    };
    list.into_iter().flatten().map(row).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateForm {
    description: Option<String>,
    examples: Option<String>,
    model: Option<String>,
    n: Option<usize>,
}

async fn generate_form(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
) -> Result<Response> {
    let form = GenerateForm {
        description: None,
        examples: None,
        model: None,
        n: Some(4),
    };
    render_generate(&app, &page, &identity, &form, &json!({}), StatusCode::OK).await
}

async fn render_generate(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    form: &GenerateForm,
    errors: &Value,
    status: StatusCode,
) -> Result<Response> {
    let view = json!({
        "models": crate::playground::chat_models(app, identity), "most": MOST, "errors": errors,
        "values": {"description": form.description, "examples": form.examples, "model": form.model, "n": form.n},
    });
    page.render_with_status(status, "prompts/generate.html", view)
        .await
}

/// Has candidates written and opens them beside each other.
async fn generate_candidates(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<GenerateForm>,
) -> Result<Response> {
    let outcome = match examples(form.examples.as_deref().unwrap_or_default()) {
        Ok(examples) => {
            let request = GenerateRequest {
                description: form.description.clone().unwrap_or_default(),
                model: form.model.clone().unwrap_or_default(),
                n: form.n,
                techniques: Vec::new(),
                examples,
            };
            generate::generate(&app, &identity, request).await
        }
        Err(problem) => Err(AppError::invalid(problem).at("examples")),
    };
    let candidates = match outcome {
        Ok(found) => found.candidates,
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let errors = form_errors(&page, &error);
            return render_generate(
                &app,
                &page,
                &identity,
                &form,
                &errors,
                StatusCode::UNPROCESSABLE_ENTITY,
            )
            .await;
        }
        Err(error) => return Err(error),
    };
    let drafts: Vec<Value> = candidates
        .iter()
        .filter_map(|candidate| draft_of(&page, candidate))
        .collect();
    if drafts.is_empty() {
        let why = candidates
            .into_iter()
            .find_map(|candidate| candidate.error)
            .unwrap_or_default();
        let errors = json!({"form": why});
        return render_generate(
            &app,
            &page,
            &identity,
            &form,
            &errors,
            StatusCode::UNPROCESSABLE_ENTITY,
        )
        .await;
    }
    let models: Vec<String> = form.model.into_iter().collect();
    crate::playground::render_compare(
        &app,
        &page,
        &identity,
        crate::playground::Comparison {
            given: drafts,
            models,
            ..Default::default()
        },
    )
    .await
}

fn draft_of(page: &PageContext, candidate: &Candidate) -> Option<Value> {
    let document = candidate.document.as_ref()?;
    let technique = serde_json::to_value(candidate.technique).ok()?;
    let title = page.t(&format!("compare-technique-{}", technique.as_str()?));
    Some(json!({"title": title, "name": "", "version": null, "document": document}))
}

/// Worked examples as JSON: a list, or one object a line, each `{"inputs": {…}, "output": …}`
/// or flat with the answer under `output`.
fn examples(text: &str) -> std::result::Result<Vec<generate::GivenExample>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Value> = match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => rows,
        Ok(row) => vec![row],
        Err(_) => {
            let lines = text
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty());
            let row = |(at, line): (usize, &str)| {
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))
            };
            lines.map(row).collect::<std::result::Result<_, _>>()?
        }
    };
    rows.into_iter()
        .enumerate()
        .map(|(at, row)| {
            generate::GivenExample::of_row(row)
                .ok_or_else(|| format!("example {}: an example has inputs and an output", at + 1))
        })
        .collect()
}
