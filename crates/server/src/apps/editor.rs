//! The editor of apps: one form with three buttons, check, try and save.
//!
//! Checking and trying answer the same page again, so that everything works
//! without scripts. With scripts an island takes the form's place: it edits the
//! same document, asks `apps/draw` for the drawing and the problems while
//! somebody types, and saves and tries through the public API.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::catalog::Selector;
use gateway::AppDocument;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::drawing::drawing;
use super::pages::{count_steps, input_fields, sample, show_href, start_links};
use super::starts::{self, STARTS};
use super::{APP, locate, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Json, Query};
use crate::http::{Access, RequestContext, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/{project}/apps/edit", write, edit),
        Route::post("/{project}/apps/edit", write, submit).body_limit(5 << 20),
        Route::post("/{project}/apps/draw", write, draw).body_limit(5 << 20),
    ]
}

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
    version: Option<i64>,
    start: Option<String>,
}

/// The editor's fields, as a form posts them or a page begins with them.
#[derive(Debug, Default, Deserialize)]
struct Draft {
    #[serde(default)]
    name: String,
    base: Option<i64>,
    #[serde(default)]
    document: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    action: String,
    /// `in.NAME`: the inputs to try it with; `guard.NAME`: what is chosen of a policy.
    #[serde(flatten)]
    inputs: BTreeMap<String, String>,
}

/// What checking or trying a draft brought to light.
#[derive(Default)]
struct Outcome {
    errors: Option<Value>,
    problems: Vec<db::Problem>,
    result: Option<Value>,
    is_checked: bool,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let draft = match &query.name {
        Some(name) => {
            let name = parse_name(name)?;
            let selector = query.version.map_or(Selector::Latest, Selector::Number);
            let found = app
                .catalog
                .version(identity.scope(), APP, &name, &selector)
                .await?;
            let found = found.ok_or_else(|| {
                AppError::not_found(format!(
                    "there is no app {:?} with this version",
                    name.as_str()
                ))
            })?;
            Draft {
                name: name.as_str().to_owned(),
                base: Some(found.version.number),
                document: pretty(&found.content),
                ..Draft::default()
            }
        }
        None => {
            let key = query.start.as_deref().unwrap_or(STARTS[0]);
            let model = crate::playground::default_model(&app, &identity);
            Draft {
                document: pretty(&starts::document(key, &model)),
                ..Draft::default()
            }
        }
    };
    let start = query.start.as_deref().unwrap_or(STARTS[0]);
    let start = query.name.is_none().then_some(start);
    render_edit(&app, &page, &identity, &draft, start, Outcome::default()).await
}

/// A draft as it stands in the editor: its text, so that problems can name lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drawn {
    document: String,
}

/// The drawing of a draft and what is wrong with it. A draft with problems is an
/// answer, not an error, and is drawn as far as it can be.
async fn draw(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Json(draft): Json<Drawn>,
) -> Result<Answer<Value>> {
    let content: Value = match serde_json::from_str(&draft.document) {
        Ok(content) => content,
        Err(error) => {
            let problem = json!({"path": "", "message": error.to_string(), "line": error.line()});
            return Ok(Answer(json!({"graph": null, "problems": [problem]})));
        }
    };
    let problems = match (super::kind().validate)(&content) {
        Ok(()) => unresolved(&app, &identity, &content).await?,
        Err(problems) => problems,
    };
    let graph = AppDocument::deserialize(&content).ok();
    let graph = graph.map(|document| drawing(&page, &document));
    Ok(Answer(json!({
        "graph": graph, "problems": located(&draft.document, &problems),
    })))
}

/// The references that lead nowhere as the labels point now.
async fn unresolved(app: &App, identity: &Identity, content: &Value) -> Result<Vec<db::Problem>> {
    let Ok(document) = AppDocument::parse(content) else {
        return Ok(Vec::new());
    };
    let scope = identity.scope();
    let resolved = async {
        super::draft::prompts_of(app, scope, &document).await?;
        super::draft::guards_of(app, scope, &document)
            .await
            .map(drop)
    };
    match resolved.await {
        Ok(()) => Ok(Vec::new()),
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let at = error.at.clone().unwrap_or_default();
            Ok(vec![db::Problem::new(at, error.message)])
        }
        Err(error) => Err(error),
    }
}

/// Problems with the lines at which they stand.
fn located(text: &str, problems: &[db::Problem]) -> Vec<Value> {
    let rows = problems.iter().map(|problem| {
        let line = (!problem.path.is_empty())
            .then(|| locate::line_of(text, &problem.path))
            .flatten();
        json!({"path": problem.path, "message": problem.message, "line": line})
    });
    rows.collect()
}

fn pretty(content: &Value) -> String {
    serde_json::to_string_pretty(content).unwrap_or_default()
}

async fn render_edit(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    draft: &Draft,
    start: Option<&str>,
    outcome: Outcome,
) -> Result<Response> {
    let content: Value = serde_json::from_str(&draft.document).unwrap_or_default();
    let document = AppDocument::parse(&content).ok();
    let problems = located(&draft.document, &outcome.problems);
    let is_refused = outcome.errors.is_some() || !problems.is_empty();
    let is_new = draft.base.is_none();
    let href = (!is_new).then(|| show_href(page, &draft.name));
    let offers = crate::guards::offers(app, page, identity.scope()).await?;
    let guards = guard_controls(&content, &offers);
    let view = json!({
        "props": props(app, identity, draft, start.is_some(), offers).await?, "guards": guards,
        "is_new": is_new, "name": draft.name, "href": href, "base": draft.base,
        "starts": if is_new && start.is_some() { start_links(page, start) } else { Vec::new() },
        "document": draft.document, "message": draft.message, "problems": problems,
        "errors": outcome.errors.unwrap_or_else(|| json!({})),
        "graph": document.as_ref().map(|document| drawing(page, document)),
        "steps": count_steps(&content["steps"]), "inputs": input_controls(&content, &draft.inputs),
        "result": outcome.result, "checked": outcome.is_checked,
    });
    let status = if is_refused {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    page.render_with_status(status, "apps/edit.html", view)
        .await
}

/// What the island starts with.
async fn props(
    app: &App,
    identity: &Identity,
    draft: &Draft,
    is_untouched: bool,
    guards: Vec<Value>,
) -> Result<Value> {
    let (scope, kind) = (identity.scope(), crate::prompts::KIND);
    let prompts = crate::catalog::offered_names(&app.catalog, scope, kind).await?;
    Ok(json!({
        "name": draft.name, "base": draft.base, "document": draft.document, "message": draft.message,
        "untouched": draft.base.is_some() || is_untouched, "prompts": prompts,
        "guards": guards, "models": crate::playground::chat_models(app, identity),
    }))
}

/// What stands before a policy's name in the name of its control.
const GUARD_FIELD: &str = "guard.";
/// The hidden field with what was chosen when the page was drawn.
const GUARDS_WERE: &str = "guards_were";

/// The policies that a document names.
fn named_guards(content: &Value) -> Vec<&str> {
    let named = content["guards"].as_array().into_iter().flatten();
    named.filter_map(Value::as_str).collect()
}

/// `guard:NAME@SELECTOR` without its ends.
fn name_of(reference: &str) -> &str {
    let name = reference.strip_prefix("guard:").unwrap_or(reference);
    name.rsplit_once('@').map_or(name, |(name, _)| name)
}

/// One control per policy: those of the project, and those that only the document names.
fn guard_controls(content: &Value, offers: &[Value]) -> Vec<Value> {
    let named = named_guards(content);
    let control = |name: &str, labels: &[&str], anyway: &Value| {
        let value = named.iter().find(|reference| name_of(reference) == name);
        let own = value.map(|value| (*value).to_owned());
        let mut options: Vec<String> = labels
            .iter()
            .chain([&"latest"])
            .map(|label| format!("guard:{name}@{label}"))
            .collect();
        if let Some(own) = own
            && !options.contains(&own)
        {
            options.insert(0, own);
        }
        json!({"name": name, "value": value, "options": options, "anyway": anyway})
    };
    let mut controls: Vec<Value> = offers
        .iter()
        .map(|offer| {
            let labels = offer["labels"].as_array().into_iter().flatten();
            let labels: Vec<&str> = labels.filter_map(Value::as_str).collect();
            let name = offer["name"].as_str().unwrap_or_default();
            control(name, &labels, &offer["anyway"])
        })
        .collect();
    let is_offered = |name: &str| offers.iter().any(|offer| offer["name"] == name);
    for name in named.iter().map(|reference| name_of(reference)) {
        if !is_offered(name) {
            controls.push(control(name, &[], &json!([])));
        }
    }
    controls
}

/// Puts what was chosen of policies into the document. Where nothing was chosen anew the
/// document's own word holds, which somebody may have typed.
fn choose_guards(content: &mut Value, typed: &BTreeMap<String, String>) -> bool {
    // An empty field reads like one that is not there.
    let were = typed.get(GUARDS_WERE).map_or("", String::as_str);
    let chosen: Vec<&str> = typed
        .iter()
        .filter(|(field, reference)| field.starts_with(GUARD_FIELD) && !reference.is_empty())
        .map(|(_, reference)| reference.as_str())
        .collect();
    let mut were: Vec<&str> = were.split_whitespace().collect();
    let mut sorted = chosen.clone();
    were.sort_unstable();
    sorted.sort_unstable();
    let Some(document) = content.as_object_mut().filter(|_| were != sorted) else {
        return false;
    };
    match chosen.is_empty() {
        true => document.remove("guards"),
        false => document.insert("guards".to_owned(), json!(chosen)),
    };
    true
}

/// One control per input, filled with what was typed before.
fn input_controls(content: &Value, typed: &BTreeMap<String, String>) -> Vec<Value> {
    input_fields(content)
        .into_iter()
        .map(|(name, schema, required)| {
            let options: Vec<String> = schema["enum"]
                .as_array()
                .into_iter()
                .flatten()
                .map(as_text)
                .collect();
            let kind = match schema["type"].as_str() {
                _ if !options.is_empty() => "choice",
                Some("number" | "integer") => "number",
                Some("boolean") => "flag",
                Some("object" | "array") => "json",
                _ => "text",
            };
            let value = typed.get(&format!("in.{name}")).cloned();
            json!({
                "value": value.unwrap_or_else(|| sample(&schema).map(as_text).unwrap_or_default()),
                "name": name, "kind": kind, "options": options, "required": required,
                "hint": schema["description"].as_str().unwrap_or_default(),
            })
        })
        .collect()
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The inputs that a form sent, each read as its schema says.
fn typed_inputs(
    content: &Value,
    typed: &BTreeMap<String, String>,
) -> std::result::Result<Map<String, Value>, db::Problem> {
    let mut inputs = Map::new();
    for (name, schema, _) in input_fields(content) {
        let Some(text) = typed.get(&format!("in.{name}")) else {
            continue;
        };
        let is_text = matches!(schema["type"].as_str(), Some("string") | None);
        let value = if is_text {
            json!(text.replace("\r\n", "\n"))
        } else {
            serde_json::from_str(text).map_err(|error| {
                db::Problem::new(
                    format!("/inputs/properties/{name}"),
                    format!("{text:?} cannot be read as its type says: {error}"),
                )
            })?
        };
        inputs.insert(name, value);
    }
    Ok(inputs)
}

async fn submit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    request: RequestContext,
    Form(mut draft): Form<Draft>,
) -> Result<Response> {
    draft.document = draft.document.replace("\r\n", "\n");
    let mut content: Value = match serde_json::from_str(&draft.document) {
        Ok(content) => content,
        Err(error) => {
            let problem = db::Problem::new("", error.to_string());
            return refuse(&app, &page, &identity, &draft, vec![problem]).await;
        }
    };
    if choose_guards(&mut content, &draft.inputs) {
        draft.document = pretty(&content);
    }
    if let Err(problems) = (super::kind().validate)(&content) {
        return refuse(&app, &page, &identity, &draft, problems).await;
    }
    match draft.action.as_str() {
        "save" => save(&app, &page, &identity, &draft, &content).await,
        "try" => try_out(&app, &page, &identity, request, &draft, &content).await,
        _ => {
            let outcome = Outcome {
                is_checked: true,
                ..Outcome::default()
            };
            render_edit(&app, &page, &identity, &draft, None, outcome).await
        }
    }
}

async fn refuse(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    draft: &Draft,
    problems: Vec<db::Problem>,
) -> Result<Response> {
    let outcome = Outcome {
        problems,
        ..Outcome::default()
    };
    render_edit(app, page, identity, draft, None, outcome).await
}

async fn save(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    draft: &Draft,
    content: &Value,
) -> Result<Response> {
    let saving = async {
        let name = parse_name(&draft.name)?;
        super::save_app(app, identity.scope(), &name, content, draft.message.trim()).await
    };
    match saving.await {
        Ok(saved) => {
            let href = show_href(page, saved.version.name.as_str());
            let flash = if saved.already_existed {
                "apps-same-flash"
            } else {
                "apps-saved-flash"
            };
            let number = saved.version.number.to_string();
            Ok(redirect(format!("{href}&version={number}"))
                .ok(page.t_with(flash, &[("n", &number)]))
                .into_response())
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let at = error.at.clone().unwrap_or_default();
            if at.starts_with('/') {
                return refuse(
                    app,
                    page,
                    identity,
                    draft,
                    vec![db::Problem::new(at, error.message)],
                )
                .await;
            }
            let outcome = Outcome {
                errors: Some(form_errors(page, &error)),
                ..Outcome::default()
            };
            render_edit(app, page, identity, draft, None, outcome).await
        }
        Err(error) => Err(error),
    }
}

async fn try_out(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    request: RequestContext,
    draft: &Draft,
    content: &Value,
) -> Result<Response> {
    let inputs = match typed_inputs(content, &draft.inputs) {
        Ok(inputs) => inputs,
        Err(problem) => return refuse(app, page, identity, draft, vec![problem]).await,
    };
    let began = app.clock.now_us();
    let tried = super::run_draft(app, identity, request.id, content, inputs).await?;
    let result = json!({
        "ok": tried.is_ok, "text": tried.text, "ms": app.clock.now_us() - began,
        "trace_href": format!("{}/traces/{}", page.root(), tried.trace_id),
    });
    let outcome = Outcome {
        result: Some(result),
        ..Outcome::default()
    };
    render_edit(app, page, identity, draft, None, outcome).await
}
