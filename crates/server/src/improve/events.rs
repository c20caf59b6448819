//! `GET /api/v1/improvements/{id}/events`: progress as server-sent events.

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
    // Whoever asks for another project's improvement hears 404, not silence.
    super::find(Desk::of(&app), identity.scope(), &id).await?;
    let news = app.improvements.clone();
    let reader = Reader::new(app, identity, head, Permission::ReadEvaluations);
    Ok(runs::follow(&RUNS, &news, reader, move |app, scope| {
        let id = id.clone();
        async move {
            let desk = Desk::of(&app);
            let improvement = super::find(desk, scope, &id).await?;
            Ok(Seen {
                progress: api::progress(desk, &improvement).await?,
                state: improvement.state,
            })
        }
    }))
}
