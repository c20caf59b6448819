//! API keys over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DEFAULT_ROLE, Key, NewKey};
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/keys", Access::Needs(Permission::ReadKeys), list)
            .doc(Doc::new("keys", "Every key of the project, without secrets").answer::<Keys>()),
        Route::post(
            "/api/v1/keys",
            Access::Needs(Permission::ManageKeys),
            create,
        )
        .doc(
            Doc::new("keys", "Make a key; its secret is in this answer only")
                .body::<Create>()
                .answer::<Created>()
                .status(201),
        ),
        Route::delete(
            "/api/v1/keys/{id}",
            Access::Needs(Permission::ManageKeys),
            revoke,
        )
        .doc(Doc::new("keys", "Revoke a key").status(204)),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Keys {
    /// The keys, newest first.
    items: Vec<Key>,
}

async fn list(State(app): State<App>, identity: Identity) -> Result<Answer<Keys>> {
    Ok(Answer(Keys {
        items: super::list_keys(&app.db, identity.scope()).await?,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// What to call it.
    name: String,
    /// The environment that it is bound to.
    environment: String,
    /// What it may do; `caller` when nothing is said.
    role: Option<Role>,
    /// When it stops working, microseconds since the epoch.
    expires_at: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Created {
    /// Names the key.
    pub(crate) id: String,
    /// The secret; it is not shown again.
    pub(crate) secret: String,
    /// The key as it is listed.
    pub(crate) key: Key,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<Create>,
) -> Result<(StatusCode, Answer<Created>)> {
    let role = new.role.unwrap_or(DEFAULT_ROLE);
    super::check_grant(&identity, role)?;
    if new.expires_at.is_some_and(|end| end <= app.clock.now_us()) {
        return Err(AppError::invalid("this time is over already").at("expires_at"));
    }
    let new = NewKey {
        name: new.name,
        environment: new.environment,
        role,
        expires_at: new.expires_at,
    };
    let (key, secret) =
        super::create_key(&app.db, app.random.as_ref(), identity.scope(), new).await?;
    app.refresh_plan().await?;
    Ok((
        StatusCode::CREATED,
        Answer(Created {
            id: key.id.clone(),
            secret: secret.expose().clone(),
            key,
        }),
    ))
}

async fn revoke(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    super::revoke_key(&app.db, identity.scope(), &id).await?;
    app.refresh_plan().await?;
    Ok(StatusCode::NO_CONTENT)
}
