//! `/v1`: the OpenAI surface, handed to the gateway.
//!
//! Nothing happens here but the hand-over: the gateway answers in the client's
//! protocol, errors included, and records the call.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use gateway::{CallContext, GatewayBody};
use serde_json::json;

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Raw;
use crate::http::{Access, RequestContext, Route};
use crate::openapi::Doc;

/// Chat completions, embeddings and the list of models.
pub fn routes() -> Vec<Route> {
    let infer = Access::Needs(Permission::Infer);
    vec![
        Route::post("/v1/chat/completions", infer, chat_completions)
            .body_limit(usize::MAX)
            .doc(Doc::new(
                "inference",
                "OpenAI chat completions, streamed or not, by any model of the project",
            )),
        Route::post("/v1/embeddings", infer, embeddings)
            .body_limit(usize::MAX)
            .doc(Doc::new(
                "inference",
                "OpenAI embeddings by any model of the project",
            )),
        Route::get("/v1/models", Access::Needs(Permission::ReadModels), models)
            .doc(Doc::new("inference", "The models that can be called")),
        Route::get(
            "/v1/models/{*id}",
            Access::Needs(Permission::ReadModels),
            model,
        )
        .doc(Doc::new("inference", "One model that can be called")),
    ]
}

async fn chat_completions(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Response {
    let context = match CallContext::from_headers(request.id, &headers) {
        Ok(context) => context,
        Err(error) => return respond(error.into_response(Some(request.id))),
    };
    let plan = app.gateway.plan();
    respond(
        app.gateway
            .chat_completions(&plan, &identity.principal, context, body)
            .await,
    )
}

async fn embeddings(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Response {
    let context = match CallContext::from_headers(request.id, &headers) {
        Ok(context) => context,
        Err(error) => return respond(error.into_response(Some(request.id))),
    };
    let plan = app.gateway.plan();
    respond(
        app.gateway
            .embeddings(&plan, &identity.principal, context, body)
            .await,
    )
}

fn respond(response: axum::http::Response<GatewayBody>) -> Response {
    response.map(Body::new)
}

async fn models(State(app): State<App>, identity: Identity) -> Response {
    let plan = app.gateway.plan();
    let models = app.gateway.models(&plan, &identity.principal);
    json_response(&json!({"object": "list", "data": models}))
}

async fn model(
    State(app): State<App>,
    identity: Identity,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Response> {
    let plan = app.gateway.plan();
    let found = app
        .gateway
        .models(&plan, &identity.principal)
        .into_iter()
        .find(|model| model.id == id);
    let found = found.ok_or_else(|| {
        crate::error::AppError::not_found(format!("the model {id:?} is not known here"))
            .code("model_not_found")
    })?;
    Ok(json_response(&json!(found)))
}

fn json_response(value: &serde_json::Value) -> Response {
    (
        [("content-type", "application/json")],
        Bytes::from(value.to_string()),
    )
        .into_response()
}
