//! Calibration over JSON.

use axum::Json as Answer;
use axum::extract::State;

use super::{Calibration, CalibrationRequest};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    vec![
        Route::get("/api/v1/calibration", read, show).doc(
            Doc::new(
                "evaluations",
                "How far an evaluator agrees with people, each version of it by itself",
            )
            .query::<CalibrationRequest>()
            .answer::<Calibration>(),
        ),
    ]
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Query(request): Query<CalibrationRequest>,
) -> Result<Answer<Calibration>> {
    let found = super::calibrate(&app, identity.scope(), &request).await?;
    Ok(Answer(found))
}
