//! `GET /api/v1/evaluations/{id}/events`: progress as server-sent events.

use axum::extract::{Path, State as Extracted};
use axum::http::request::Parts;
use axum::response::Response;

use super::{Desk, RUNS, api};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::runs::{self, Seen};
use crate::sse::Reader;

pub(super) async fn events(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    head: Parts,
) -> Result<Response> {
    // Whoever asks for another project's evaluation hears 404, not silence.
    super::find(Desk::of(&app), identity.scope(), &id).await?;
    let news = app.evaluations.news.clone();
    let reader = Reader::new(app, identity, head, Permission::ReadEvaluations);
    Ok(runs::follow(&RUNS, &news, reader, move |app, scope| {
        let id = id.clone();
        async move {
            let evaluation = super::find(Desk::of(&app), scope, &id).await?;
            Ok(Seen {
                state: evaluation.state,
                progress: api::progress(&evaluation),
            })
        }
    }))
}
