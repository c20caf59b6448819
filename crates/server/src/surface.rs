//! The faces of the server and how an error looks on each.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::error::AppError;
use crate::http::{ErrorView, RequestContext};

/// Which protocol a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// OpenAI's wire format, `/v1`.
    OpenAi,
    /// Langfuse's public API, as far as prompts need it: `/api/public`.
    Langfuse,
    /// MLflow's REST API, as far as prompts need it: `/api/2.0`, `/api/3.0`.
    Mlflow,
    /// Our own JSON, `/api/v1` and the machine-readable rest.
    Api,
    /// HTML for people.
    Page,
}

impl Surface {
    /// The surface that this path belongs to.
    pub fn of(path: &str) -> Self {
        let under = |prefix: &str| {
            path == prefix
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        if under("/v1") {
            Self::OpenAi
        } else if under("/api/public") {
            Self::Langfuse
        } else if under("/api/2.0") || under("/api/3.0") {
            Self::Mlflow
        } else if under("/api")
            || matches!(
                path,
                "/healthz" | "/readyz" | "/health" | "/version" | "/openapi.json"
            )
            || under("/assets")
        {
            Self::Api
        } else {
            Self::Page
        }
    }
}

/// The error in the caller's own protocol.
pub async fn shape(
    app: &App,
    error: &AppError,
    context: &RequestContext,
    view: &ErrorView,
) -> Response {
    let mut response = match Surface::of(&view.path) {
        Surface::OpenAi => json_response(&openai_body(error)),
        Surface::Langfuse => json_response(&langfuse_body(error)),
        Surface::Mlflow => json_response(&mlflow_body(error)),
        Surface::Api => json_response(
            &serde_json::to_value(error.body(&context.id.to_string())).unwrap_or_default(),
        ),
        Surface::Page => return crate::ui::error_page(app, error, context, view).await,
    };
    *response.status_mut() = error.status;
    if error.status == axum::http::StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if Surface::of(&view.path) == Surface::OpenAi {
        let id = HeaderValue::from_str(&context.id.to_string());
        if let Ok(id) = id {
            response.headers_mut().insert("x-meguri-trace-id", id);
        }
    }
    response
}

/// OpenAI's error object; clients branch on `type` and `code`.
fn openai_body(error: &AppError) -> serde_json::Value {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = if error.status.as_u16() == 401 {
        "invalid_api_key"
    } else {
        error.code
    };
    json!({"error": {"message": error.to_string(), "type": kind, "param": error.at, "code": code}})
}

/// Langfuse's error object: a message, and a name in place of a code.
fn langfuse_body(error: &AppError) -> serde_json::Value {
    json!({"message": error.to_string(), "error": error.code})
}

/// MLflow's error object; its client maps `error_code` to exceptions.
fn mlflow_body(error: &AppError) -> serde_json::Value {
    let code = match error.status.as_u16() {
        400 | 413 | 415 | 422 => "INVALID_PARAMETER_VALUE",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        // What is missing in the registry has a code of its own; this is a route that is not here.
        404 if error.code == "not_found" => "ENDPOINT_NOT_FOUND",
        404 => "RESOURCE_DOES_NOT_EXIST",
        409 if error.code == "exists" => "RESOURCE_ALREADY_EXISTS",
        409 => "RESOURCE_CONFLICT",
        429 => "REQUEST_LIMIT_EXCEEDED",
        501 => "NOT_IMPLEMENTED",
        503 => "TEMPORARILY_UNAVAILABLE",
        _ => "INTERNAL_ERROR",
    };
    json!({"error_code": code, "message": error.to_string()})
}

fn json_response(body: &serde_json::Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::from(body.to_string())).into_response()
}
