//! Providers over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Credential, NewProvider, Provider, Wire};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadProviders);
    let manage = Access::Needs(Permission::ManageProviders);
    vec![
        Route::get("/api/v1/providers", read, list).doc(
            Doc::new(
                "providers",
                "Every provider of the project, without credentials",
            )
            .answer::<Providers>(),
        ),
        Route::post("/api/v1/providers", manage, create).doc(
            Doc::new("providers", "Add a provider")
                .body::<Body>()
                .answer::<Provider>()
                .status(201),
        ),
        Route::get("/api/v1/providers/{id}", read, show)
            .doc(Doc::new("providers", "One provider, by id or name").answer::<Provider>()),
        Route::put("/api/v1/providers/{id}", manage, replace).doc(
            Doc::new(
                "providers",
                "Change a provider; without a credential it keeps its own",
            )
            .body::<Body>()
            .answer::<Provider>(),
        ),
        Route::delete("/api/v1/providers/{id}", manage, remove)
            .doc(Doc::new("providers", "Remove a provider").status(204)),
        Route::post("/api/v1/providers/{id}/test", manage, test)
            .doc(Doc::new("providers", "Ask a provider for its models").answer::<Provider>()),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Providers {
    /// The providers, by name.
    items: Vec<Provider>,
}

async fn list(State(app): State<App>, identity: Identity) -> Result<Answer<Providers>> {
    Ok(Answer(Providers {
        items: super::list_providers(&app.db, identity.scope()).await?,
    }))
}

/// What a provider shall be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    /// The name before the slash in `NAME/model`.
    name: String,
    /// What it speaks.
    protocol: Wire,
    /// Where it is, the version path included for OpenAI.
    base_url: String,
    /// The credential itself; kept encrypted and never shown again.
    api_key: Option<String>,
    /// The environment variable of the server that holds the credential.
    api_key_env: Option<String>,
}

impl Body {
    fn into_new(self, app: &App, otherwise: Credential) -> Result<NewProvider> {
        let credential = match (self.api_key, self.api_key_env) {
            (Some(_), Some(_)) => {
                return Err(AppError::invalid("give either api_key or api_key_env").at("api_key"));
            }
            (Some(key), None) => Credential::Given(Secret::new(key)),
            (None, Some(variable)) => Credential::Env(variable),
            (None, None) => otherwise,
        };
        Ok(NewProvider {
            name: self.name,
            protocol: self.protocol,
            base_url: self.base_url,
            credential,
            may_be_private: app.config.file.egress.allow_private,
        })
    }
}

async fn save(
    app: &App,
    identity: &Identity,
    replaces: Option<&str>,
    new: NewProvider,
) -> Result<Provider> {
    let saved = super::save_provider(
        &app.db,
        &app.secrets,
        app.random.as_ref(),
        identity.scope(),
        replaces,
        new,
    )
    .await?;
    app.refresh_plan().await?;
    Ok(saved)
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Json(body): Json<Body>,
) -> Result<(StatusCode, Answer<Provider>)> {
    let new = body.into_new(&app, Credential::None)?;
    Ok((
        StatusCode::CREATED,
        Answer(save(&app, &identity, None, new).await?),
    ))
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Provider>> {
    Ok(Answer(
        super::find_provider(&app.db, identity.scope(), &id).await?,
    ))
}

async fn replace(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Body>,
) -> Result<Answer<Provider>> {
    let found = super::find_provider(&app.db, identity.scope(), &id).await?;
    let new = body.into_new(&app, Credential::Keep)?;
    Ok(Answer(save(&app, &identity, Some(&found.id), new).await?))
}

async fn remove(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    super::remove_provider(&app.db, identity.scope(), &id).await?;
    app.refresh_plan().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn test(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Provider>> {
    let tested =
        super::test_provider(&app.db, &app.secrets, &app.egress, identity.scope(), &id).await?;
    app.refresh_plan().await?;
    Ok(Answer(tested))
}
