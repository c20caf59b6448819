//! The keys page.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Key, NewKey};
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::Result;
use crate::extract::Form;
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageKeys);
    vec![
        Route::get("/{project}/keys", Access::Needs(Permission::ReadKeys), list),
        Route::post("/{project}/keys", manage, create),
        Route::post("/{project}/keys/revoke", manage, revoke),
    ]
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let values = json!({"name": "", "environment": "dev", "role": "caller", "expires": "never"});
    show(&app, &page, &identity, json!({}), values).await
}

async fn show(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    errors: Value,
    values: Value,
) -> Result<Response> {
    let mut rows = Vec::new();
    for key in super::list_keys(&app.db, identity.scope()).await? {
        rows.push(row(app, page, identity, key).await?);
    }
    let environments = crate::projects::environments(&app.db, identity.project.id).await?;
    let status = if errors.as_object().is_some_and(serde_json::Map::is_empty) {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
    let view = json!({"rows": rows, "environments": environments, "roles": roles, "errors": errors, "values": values});
    page.render_with_status(status, "keys/list.html", view)
        .await
}

async fn row(app: &App, page: &PageContext, identity: &Identity, key: Key) -> Result<Value> {
    let filter: String =
        url::form_urlencoded::byte_serialize(format!("key = \"{}\"", key.id).as_bytes()).collect();
    let created_by =
        crate::members::actor_name(&app.db, identity.project.id, &key.created_by).await?;
    let mut row = serde_json::to_value(&key).map_err(anyhow::Error::from)?;
    row["created_by"] = json!(created_by);
    row["traces_href"] = json!(format!("{}/traces?filter={filter}", page.root()));
    Ok(row)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeyForm {
    #[serde(default)]
    name: String,
    environment: String,
    role: Role,
    expires: Option<String>,
}

impl NewKeyForm {
    fn expires_at(&self, now: i64) -> Option<i64> {
        let days = match self.expires.as_deref() {
            Some("30d") => 30,
            Some("90d") => 90,
            Some("365d") => 365,
            _ => return None,
        };
        Some(now + days * 86_400 * 1_000_000)
    }
}

/// Answers with the secret at once instead of redirecting: it is shown only here.
async fn create(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<NewKeyForm>,
) -> Result<Response> {
    super::check_grant(&identity, form.role)?;
    let expires_at = form.expires_at(app.clock.now_us());
    let new = NewKey {
        name: form.name.clone(),
        environment: form.environment.clone(),
        role: form.role,
        expires_at,
    };
    let (key, secret) = match super::create_key(&app.db, app.random.as_ref(), identity.scope(), new)
        .await
    {
        Ok(made) => made,
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let expires = form.expires.as_deref().unwrap_or("never");
            let values = json!({"name": form.name, "environment": form.environment, "role": form.role, "expires": expires});
            return show(&app, &page, &identity, form_errors(&page, &error), values).await;
        }
        Err(error) => return Err(error),
    };
    app.refresh_plan().await?;
    let view = json!({
        "name": key.name, "environment": key.environment, "role": key.role, "secret": secret.expose(),
        "snippet": crate::playground::snippet(&app, &page, &identity, Some(secret.expose()), None),
    });
    page.render("keys/created.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyId {
    id: String,
}

async fn revoke(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<KeyId>,
) -> Result<Response> {
    super::revoke_key(&app.db, identity.scope(), &form.id).await?;
    app.refresh_plan().await?;
    Ok(redirect(format!("{}/keys", page.root()))
        .ok(page.t("keys-revoked-flash"))
        .into_response())
}
