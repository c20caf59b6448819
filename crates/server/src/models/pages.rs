//! The models page: local models, the providers' models, pulls.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Model, PullState, Task, api, jobs};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Form;
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

/// How long the page remembers a pull that ended.
const ENDED_SHOWN_US: i64 = 24 * 3_600_000_000;

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageModels);
    vec![
        Route::get(
            "/{project}/models",
            Access::Needs(Permission::ReadModels),
            list,
        ),
        Route::post("/{project}/models/pull", manage, pull),
        Route::post("/{project}/models/pulls/{id}/cancel", manage, cancel),
        Route::post("/{project}/models/remove", manage, remove),
    ]
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    show(&app, &page, &identity, json!({}), "").await
}

async fn show(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    errors: Value,
    wanted: &str,
) -> Result<Response> {
    let local: Vec<Value> = super::list_models(&app.db)
        .await?
        .iter()
        .map(|model| local_row(app, page, identity, model))
        .collect();
    let pulls: Vec<Value> = shown_pulls(app, jobs::recent(app).await?)
        .iter()
        .map(|pull| json!(pull))
        .collect();
    let may_see_prices = identity.role.allows(Permission::ReadProviders);
    let status = if errors.as_object().is_some_and(Map::is_empty) {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let view = json!({
        "local": local,
        "remote": remote_rows(app, page, identity),
        "pulls": pulls,
        "network": app.engine.pulls.network(),
        "errors": errors,
        "values": {"ref": wanted},
        "prices_href": may_see_prices.then(|| format!("{}/providers", page.root())),
    });
    page.render_with_status(status, "models/list.html", view)
        .await
}

fn local_row(app: &App, page: &PageContext, identity: &Identity, model: &Model) -> Value {
    let id = format!("local/{}", model.name);
    let (state, error) = api::phase(app, &model.name);
    json!({
        "id": id,
        "name": model.name,
        "family": model.facts.architecture,
        "params": rounded(model.facts.parameters),
        "quantization": model.facts.quantisation,
        "context_tokens": (model.facts.context_length > 0).then_some(model.facts.context_length),
        "bytes": model.size_bytes,
        "source": model.source,
        "digest": model.digest.to_string(),
        "short_digest": model.digest.short(),
        "task": model.task,
        "state": state,
        "error": error,
        "playground_href": (model.task == Task::Chat).then(|| playground(page, identity, &id)).flatten(),
        "traces_href": traces(page, &id),
        "remove_id": model.name,
    })
}

/// What providers listed when they were last tested.
fn remote_rows(app: &App, page: &PageContext, identity: &Identity) -> Vec<Value> {
    let plan = app.gateway.plan();
    let Some(project) = plan.projects.get(&identity.project.id) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for provider in project.providers.values() {
        for model in &provider.models {
            let id = format!("{}/{model}", provider.name);
            let price = project.prices.find(&provider.name, model);
            // Providers do not say what a model is for; its name does.
            let embeds = model.to_ascii_lowercase().contains("embed");
            rows.push(json!({
                "id": id,
                "provider": provider.name,
                "task": if embeds { Task::Embedding } else { Task::Chat },
                "context_tokens": Value::Null,
                "input_usd": price.map(|price| base::NanoUsd(price.input.0).to_string()),
                "output_usd": price.map(|price| base::NanoUsd(price.output.0).to_string()),
                "playground_href": (!embeds).then(|| playground(page, identity, &id)).flatten(),
                "traces_href": traces(page, &id),
            }));
        }
    }
    rows.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    rows
}

fn playground(page: &PageContext, identity: &Identity, id: &str) -> Option<String> {
    identity
        .role
        .allows(Permission::Infer)
        .then(|| format!("{}/playground?model={}", page.root(), escaped(id)))
}

fn traces(page: &PageContext, id: &str) -> String {
    format!(
        "{}/traces?filter={}",
        page.root(),
        escaped(&format!("model = \"{}\"", id.replace('"', "")))
    )
}

fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Pulls that are open, and those that failed or were stopped and were not tried again since.
fn shown_pulls(app: &App, pulls: Vec<PullState>) -> Vec<PullState> {
    let oldest = app.clock.now_us() - ENDED_SHOWN_US;
    let mut seen = std::collections::HashSet::new();
    let newest = pulls
        .into_iter()
        .filter(|pull| seen.insert(pull.source.clone()));
    newest
        .filter(|pull| match pull.state {
            "done" => false,
            "failed" | "stopped" => pull.finished_at.is_some_and(|at| at >= oldest),
            _ => true,
        })
        .collect()
}

/// `135M`, `1.7B`.
fn rounded(count: u64) -> String {
    let (unit, suffix) = match count {
        1_000_000_000.. => (1_000_000_000, "B"),
        1_000_000.. => (1_000_000, "M"),
        1000.. => (1000, "k"),
        _ => return count.to_string(),
    };
    let tenths = (count * 10 + unit / 2) / unit;
    if tenths >= 100 || tenths.is_multiple_of(10) {
        format!("{}{suffix}", (tenths + 5) / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PullForm {
    #[serde(rename = "ref", default)]
    source: String,
}

async fn pull(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<PullForm>,
) -> Result<Response> {
    match super::pull_model(&app, identity.actor, &form.source, None).await {
        Ok(_) => Ok(back(&page)),
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            show(
                &app,
                &page,
                &identity,
                form_errors(&page, &error),
                &form.source,
            )
            .await
        }
        Err(error) => Err(error),
    }
}

async fn cancel(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Path((_project, id)): Path<(String, String)>,
) -> Result<Response> {
    jobs::cancel(&app, identity.actor, &id).await?;
    Ok(back(&page))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveForm {
    id: String,
    #[serde(default)]
    confirm: String,
}

async fn remove(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<RemoveForm>,
) -> Result<Response> {
    if form.confirm.trim() != format!("local/{}", form.id) {
        let error =
            AppError::invalid(format!("type local/{} to remove it", form.id)).code("confirm_name");
        return show(&app, &page, &identity, form_errors(&page, &error), "").await;
    }
    super::remove_model(&app.db, app.engine.folder(), identity.actor, &form.id).await?;
    app.refresh_plan().await?;
    Ok(back(&page))
}

fn back(page: &PageContext) -> Response {
    redirect(format!("{}/models", page.root())).into_response()
}
