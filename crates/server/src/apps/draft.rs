//! Running a document that nobody saved: what the editor's trial does.
//!
//! A draft becomes a release that is in no plan; its references stand for what
//! they point to now, or for the draft's own contents. Its calls are recorded
//! like any other, without a release's number.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use axum::body::Body;
use axum::http;
use axum::response::Response;
use base::{Digest, TraceId};
use bytes::Bytes;
use db::Scope;
use db::catalog::Reference;
use futures_util::{StreamExt as _, stream};
use gateway::{
    AppDocument, AppVersion, CallContext, GatewayBody, GuardPolicy, PinnedPrompt, PromptDocument,
    PromptVersion, Release,
};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};

use super::APP;
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::sse;

/// The largest answer that a trial shows, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;
/// Prompts that a draft may draw in through references.
const MOST_PROMPTS: usize = 200;

/// How a trial ended.
pub struct Tried {
    /// Whether it answered.
    pub is_ok: bool,
    /// The answer, or what went wrong.
    pub text: String,
    /// The trace of the run and all its steps.
    pub trace_id: TraceId,
}

/// Runs a draft with these inputs, as whoever asks.
///
/// # Errors
/// The document is wrong or refers to what is not there: `at` says where. What
/// goes wrong while it runs is an answer, not an error.
pub async fn run_draft(
    app: &App,
    identity: &Identity,
    trace_id: TraceId,
    content: &Value,
    inputs: Map<String, Value>,
) -> Result<Tried> {
    let release = release_of(app, identity, content).await?;
    let response = call(app, identity, trace_id, release, inputs, false).await;
    let is_ok = response.status().is_success();
    let answer = whole(response).await;
    let text = if is_ok {
        &answer["choices"][0]["message"]["content"]
    } else {
        &answer["error"]["message"]
    };
    Ok(Tried {
        is_ok,
        text: text.as_str().unwrap_or_default().to_owned(),
        trace_id,
    })
}

/// As [`run_draft`], as server-sent events: `trace` with the id at once, so that
/// its steps can be followed, then the chunks of a chat completion; `error` where
/// it fails before the answer begins. Dropping the response ends the run.
///
/// # Errors
/// As there.
pub async fn stream_draft(
    app: &App,
    identity: &Identity,
    trace_id: TraceId,
    content: &Value,
    inputs: Map<String, Value>,
) -> Result<Response> {
    let release = release_of(app, identity, content).await?;
    let begun = sse::frame("trace", &json!({"trace_id": trace_id.to_string()}));
    let (app, identity) = (app.clone(), identity.clone());
    let run = Box::pin(async move {
        let response = call(&app, &identity, trace_id, release, inputs, true).await;
        let body = if response.status().is_success() {
            Body::new(response.into_body())
        } else {
            let failure = whole(response).await;
            Body::from(sse::frame("error", &failure))
        };
        body.into_data_stream()
    });
    let rest = stream::once(run).flatten();
    Ok(sse::response(stream::once(ready(Ok(begun))).chain(rest)))
}

/// A draft as a release that is in no plan.
async fn release_of(app: &App, identity: &Identity, content: &Value) -> Result<Arc<Release>> {
    let document = AppDocument::parse(content).map_err(|problems| {
        let problems = problems.into_iter();
        let problems = problems.map(|problem| db::Problem::new(problem.path, problem.message));
        db::CatalogError::Invalid(problems.collect())
    })?;
    let digest = Digest::of_json(content).map_err(db::CatalogError::from)?;
    Ok(Arc::new(Release {
        name: "draft".to_owned(),
        number: 0,
        digest,
        prompts: prompts_of(app, identity.scope(), &document).await?,
        guards: guards_of(app, identity.scope(), &document).await?,
        credentials: super::plan::credentials(app, &document),
        app: Arc::new(AppVersion::new(digest, document)),
    }))
}

async fn call(
    app: &App,
    identity: &Identity,
    trace_id: TraceId,
    release: Arc<Release>,
    inputs: Map<String, Value>,
    stream: bool,
) -> http::Response<GatewayBody> {
    let body = json!({"model": APP, "messages": [], "prompt_variables": inputs, "stream": stream});
    let body = Bytes::from(body.to_string());
    let plan = app.gateway.plan();
    let context = CallContext::new(trace_id);
    let principal = &identity.principal;
    let run = app
        .gateway
        .run_draft(&plan, principal, context, release, body);
    run.await
}

/// An answer that is not streamed, as JSON; null where it is none or too long.
async fn whole(response: http::Response<GatewayBody>) -> Value {
    let body = http_body_util::Limited::new(response.into_body(), LONGEST_ANSWER);
    match body.collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
        Err(_) => Value::Null,
    }
}

/// The policies that a draft refers to, as they point now.
pub(super) async fn guards_of(
    app: &App,
    scope: Scope,
    document: &AppDocument,
) -> Result<HashMap<String, Arc<GuardPolicy>>> {
    let mut found = HashMap::new();
    for gateway::AppReference { path, text } in document.references() {
        let reference = Reference::parse_at(&path, &text).map_err(db::CatalogError::from)?;
        if reference.kind != crate::guards::KIND || found.contains_key(&text) {
            continue;
        }
        let (name, selector) = (&reference.name, &reference.selector);
        let version = app
            .catalog
            .version(scope, crate::guards::KIND, name, selector)
            .await?
            .ok_or_else(|| unresolved(&text, &path))?;
        let (number, digest) = (version.version.number, version.version.digest);
        let known = crate::guards::know_now(&app.catalog, scope.project, &version.content).await?;
        let policy = crate::guards::policy(name, number, digest, Some(&known));
        found.insert(text, Arc::new(policy));
    }
    Ok(found)
}

fn unresolved(text: &str, path: &str) -> AppError {
    AppError::invalid(format!("there is no {text}"))
        .code("unresolved_reference")
        .at(path)
}

/// The prompts that a draft refers to, itself and through partials, as they point now.
pub(super) async fn prompts_of(
    app: &App,
    scope: Scope,
    document: &AppDocument,
) -> Result<HashMap<String, PinnedPrompt>> {
    let mut found = HashMap::new();
    let own = document.references().into_iter();
    let mut left: Vec<(String, String)> = own.map(|one| (one.path, one.text)).collect();
    while let Some((path, text)) = left.pop() {
        if found.contains_key(&text) {
            continue;
        }
        if found.len() >= MOST_PROMPTS {
            let message = format!("the draft draws in more than {MOST_PROMPTS} prompts");
            return Err(AppError::invalid(message).at(path));
        }
        let reference = Reference::parse_at(&path, &text).map_err(db::CatalogError::from)?;
        if reference.kind != crate::prompts::KIND {
            continue;
        }
        let (name, selector) = (&reference.name, &reference.selector);
        let version = app
            .catalog
            .version(scope, crate::prompts::KIND, name, selector)
            .await?;
        let missing = || unresolved(&text, &path);
        let version = version.ok_or_else(missing)?;
        let content = PromptDocument::parse(&version.content).map_err(|_| missing())?;
        // A partial is wrong where the app names the prompt that has it.
        left.extend(
            content
                .references()
                .into_iter()
                .map(|one| (path.clone(), one.reference)),
        );
        let pinned = PinnedPrompt {
            number: version.version.number,
            version: Arc::new(PromptVersion::new(version.version.digest, content)),
        };
        found.insert(text, pinned);
    }
    Ok(found)
}
