//! The playground: chat with any model, with a system prompt from the catalog.
//!
//! The page only prepares; the island calls the public API like any client.

mod compare;

use std::str::FromStr as _;

use axum::extract::State;
use axum::response::Response;
use base::TraceId;
use db::catalog::{Label, Name, Selector};
use db::{NameFilter, PageRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::prompts::{KIND, PRODUCTION};
use crate::ui::PageContext;
use gateway::PromptDocument;

pub(crate) use compare::{Comparison, render_compare};

/// The pages.
pub fn routes() -> Vec<Route> {
    let mut routes = compare::routes();
    routes.push(Route::get(
        "/{project}/playground",
        Access::Needs(Permission::Infer),
        show,
    ));
    routes
}

#[derive(Deserialize)]
struct Start {
    model: Option<String>,
    prompt: Option<String>,
    label: Option<String>,
    version: Option<i64>,
    trace: Option<String>,
    span: Option<String>,
}

/// What the island starts with.
#[derive(Default)]
struct Prefill {
    model: String,
    system: String,
    messages: Vec<Value>,
    params: serde_json::Map<String, Value>,
    prompt: Value,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(start): Query<Start>,
) -> Result<Response> {
    let models = chat_models(&app, &identity);
    let mut prefill = Prefill::default();
    if let Some(trace) = start
        .trace
        .as_deref()
        .and_then(|id| id.parse::<TraceId>().ok())
    {
        prefill_from_trace(&app, &identity, trace, start.span.as_deref(), &mut prefill).await?;
    }
    if let Some(name) = &start.prompt {
        prefill_from_prompt(&app, &identity, name, &start, &mut prefill).await?;
    }
    if let Some(model) = start.model {
        prefill.model = model;
    }
    let known = |id: &str| models.iter().any(|model| model["id"] == id);
    if !known(&prefill.model) {
        prefill.model = models
            .first()
            .and_then(|model| model["id"].as_str())
            .unwrap_or_default()
            .to_owned();
    }
    let names = app
        .catalog
        .list_names(
            identity.scope(),
            KIND,
            &NameFilter::default(),
            &PageRequest {
                cursor: None,
                limit: 200,
            },
        )
        .await?;
    let prompts: Vec<Value> = names
        .items
        .iter()
        .map(|listed| {
            let name = listed.latest.name.as_str();
            let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            json!({"name": name, "href": format!("{}/prompts/show?name={encoded}", page.root())})
        })
        .collect();
    let param = |name: &str| prefill.params.get(name).cloned().unwrap_or(Value::Null);
    let view = json!({
        "models": models, "model": prefill.model, "system": prefill.system, "messages": prefill.messages,
        "params": {
            "temperature": param("temperature"), "top_p": param("top_p"), "max_tokens": param("max_tokens"),
            "seed": param("seed"),
        },
        "prompts": prompts, "prompt": prefill.prompt, "labels": [PRODUCTION, "staging"],
    });
    page.render("playground/show.html", view).await
}

/// The models that can chat: embedding models answer no messages.
pub(crate) fn chat_models(app: &App, identity: &Identity) -> Vec<Value> {
    let plan = app.gateway.plan();
    let embedders = app.engine.embedding_names();
    let models = app.gateway.models(&plan, &identity.principal).into_iter();
    models
        .filter(|model| {
            !embedders
                .iter()
                .any(|name| model.id.strip_prefix("local/") == Some(name))
        })
        .filter(|model| !model.id.contains("embed"))
        .map(|model| {
            let (group, label) = model.id.split_once('/').unwrap_or(("", model.id.as_str()));
            json!({"id": model.id, "label": label, "group": group})
        })
        .collect()
}

async fn prefill_from_prompt(
    app: &App,
    identity: &Identity,
    name: &str,
    start: &Start,
    prefill: &mut Prefill,
) -> Result<()> {
    let Ok(name) = Name::from_str(name) else {
        return Ok(());
    };
    let label = start
        .label
        .as_deref()
        .and_then(|label| Label::from_str(label).ok());
    let selector = match (start.version, &label) {
        (Some(version), _) => Selector::Number(version),
        (None, Some(label)) => Selector::Label(label.clone()),
        (None, None) => Selector::Latest,
    };
    let Some(found) = app
        .catalog
        .version(identity.scope(), KIND, &name, &selector)
        .await?
    else {
        return Ok(());
    };
    let content = PromptDocument::deserialize(&found.content).map_err(anyhow::Error::from)?;
    prefill.system = content.system();
    prefill.prompt = json!({
        "name": name.as_str(), "version": found.version.number, "label": label.map(|label| label.as_str().to_owned()),
    });
    Ok(())
}

/// "Open in playground": the messages, model and parameters of a call that was made.
async fn prefill_from_trace(
    app: &App,
    identity: &Identity,
    trace: TraceId,
    span: Option<&str>,
    prefill: &mut Prefill,
) -> Result<()> {
    let Some(call) = crate::traces::replay(app, identity.scope(), trace, span).await? else {
        return Ok(());
    };
    prefill.model = call.model;
    prefill.params = call.parameters;
    let mut messages = call.messages;
    if messages
        .first()
        .is_some_and(|message| message["role"] == "system" || message["role"] == "developer")
    {
        prefill.system = text_of(&messages.remove(0)["content"]);
    }
    prefill.messages = messages
        .iter()
        .filter(|message| message["role"] == "user" || message["role"] == "assistant")
        .map(|message| json!({"role": message["role"], "content": text_of(&message["content"])}))
        .collect();
    // The answer is what the person wants to see again, so the last message is theirs to send.
    if prefill
        .messages
        .last()
        .is_some_and(|message| message["role"] == "assistant")
    {
        prefill.messages.pop();
    }
    Ok(())
}

/// The text of a message, whether it is a string or parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

/// The model that new things begin with: the first that can chat.
pub fn default_model(app: &App, identity: &Identity) -> String {
    let models = chat_models(app, identity);
    let model = models.first().and_then(|model| model["id"].as_str());
    model.unwrap_or("local/smollm2-135m-instruct").to_owned()
}

/// What the copy-and-paste snippets of empty pages and new keys hold.
pub fn snippet(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    key: Option<&str>,
    prompt: Option<&str>,
) -> Value {
    let models = chat_models(app, identity);
    let model = models
        .first()
        .and_then(|model| model["id"].as_str())
        .unwrap_or("local/smollm2-135m-instruct");
    let mut snippet = json!({
        "url": app.config.public_url(), "key": key.unwrap_or("$MEGURI_API_KEY"), "model": model,
        "prompt": page.t("snippet-prompt"),
    });
    if let Some(prompt) = prompt {
        snippet["call_ref"] = json!(prompt);
    }
    snippet
}
