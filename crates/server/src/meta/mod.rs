//! What machines ask about the server itself: alive, ready, and its API.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::app::App;
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// Health, readiness and the OpenAPI document.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/healthz", Access::Public, healthz)
            .doc(Doc::new("server", "Whether the process answers").answer::<Health>()),
        Route::get("/readyz", Access::Public, readyz).doc(
            Doc::new(
                "server",
                "Whether the server can take calls: 503 when a part of it cannot",
            )
            .answer::<Ready>(),
        ),
        Route::get("/openapi.json", Access::Public, openapi_json)
            .doc(Doc::new("server", "This document")),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The release that runs.
    version: &'static str,
}

async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Serialize, JsonSchema)]
struct Ready {
    /// Whether everything below is.
    ready: bool,
    /// The metadata database answers.
    database: bool,
    /// Records can be written.
    telemetry: bool,
}

/// Whoever asks has a time-out of its own, and wants the answer that the database is away before it.
const DATABASE_TIME: Duration = Duration::from_secs(2);

async fn readyz(State(app): State<App>) -> Response {
    let asked = tokio::time::timeout(DATABASE_TIME, app.db.plan_revision()).await;
    let database = asked.is_ok_and(|answer| answer.is_ok());
    let telemetry = crate::traces::can_write(&app.telemetry);
    let ready = database && telemetry;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(Ready {
            ready,
            database,
            telemetry,
        }),
    )
        .into_response()
}

/// The committed document, which a test keeps equal to what [`crate::openapi::document`] says of
/// the routes: making it here would cost an idle server a third of its memory.
async fn openapi_json() -> impl IntoResponse {
    const COMMITTED: &str = include_str!("../openapi.json");
    let version = concat!("\"version\": \"", env!("CARGO_PKG_VERSION"), "\"");
    let text = COMMITTED.replacen(crate::openapi::NO_VERSION, version, 1);
    ([(header::CONTENT_TYPE, "application/json")], text)
}
