//! The members page and the page behind an invitation link.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PEOPLE_ROLES, store};
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Connection, Route};
use crate::sessions::hex;
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadMembers);
    let manage = Access::Needs(Permission::ManageMembers);
    vec![
        Route::get("/{project}/members", read, list),
        Route::post("/{project}/members/invite", manage, invite),
        Route::post("/{project}/members/invite/revoke", manage, revoke),
        Route::post("/{project}/members/role", manage, set_role),
        Route::post("/{project}/members/remove", manage, remove),
        Route::get("/invite", Access::Public, show_invite),
        Route::post("/invite", Access::Public, accept),
    ]
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let values = json!({"email": "", "role": "editor"});
    show(
        &app,
        &page,
        &identity,
        Shown {
            new_invite: Value::Null,
            errors: json!({}),
            values,
        },
    )
    .await
}

/// What differs between the ways to the members page.
struct Shown {
    new_invite: Value,
    errors: Value,
    values: Value,
}

async fn show(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    shown: Shown,
) -> Result<Response> {
    let scope = identity.scope();
    let me = identity.person.as_ref().map(|person| person.id.to_string());
    let mut rows = Vec::new();
    for member in super::list_members(app, scope).await? {
        let is_self = me.as_deref() == Some(&member.user_id);
        let mut row = serde_json::to_value(&member).map_err(anyhow::Error::from)?;
        row["is_self"] = json!(is_self);
        rows.push(row);
    }
    let mut invites = Vec::new();
    for mut invite in super::list_invites(app, scope).await? {
        invite.created_by = super::actor_name(&app.db, scope.project, &invite.created_by).await?;
        invites.push(invite);
    }
    let status = if shown
        .errors
        .as_object()
        .is_some_and(|errors| !errors.is_empty())
    {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let view = json!({
        "rows": rows, "invites": invites, "new_invite": shown.new_invite, "errors": shown.errors,
        "values": shown.values, "roles": PEOPLE_ROLES,
    });
    page.render_with_status(status, "members/list.html", view)
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteForm {
    #[serde(default)]
    email: String,
    role: Role,
}

async fn invite(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<InviteForm>,
) -> Result<Response> {
    match super::invite_member(&app, identity.scope(), &form.email, form.role).await {
        Ok((link, invite)) => {
            let new_invite =
                json!({"email": invite.email, "link": link, "expires_at": invite.expires_at});
            let values = json!({"email": "", "role": "editor"});
            show(
                &app,
                &page,
                &identity,
                Shown {
                    new_invite,
                    errors: json!({}),
                    values,
                },
            )
            .await
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let errors = form_errors(&page, &error);
            let values = json!({"email": form.email, "role": form.role});
            show(
                &app,
                &page,
                &identity,
                Shown {
                    new_invite: Value::Null,
                    errors,
                    values,
                },
            )
            .await
        }
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteId {
    id: String,
}

async fn revoke(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<InviteId>,
) -> Result<Response> {
    super::revoke_invite(&app, identity.scope(), &form.id).await?;
    Ok(redirect(format!("{}/members", page.root()))
        .ok(page.t("members-invite-revoked"))
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleForm {
    user_id: base::UserId,
    role: Role,
}

async fn set_role(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<RoleForm>,
) -> Result<Response> {
    let to = redirect(format!("{}/members", page.root()));
    done(
        &page,
        to,
        super::set_role(&app, identity.scope(), form.user_id, form.role).await,
        "members-role-set",
    )
}

#[derive(Deserialize)]
struct Removal {
    user_id: base::UserId,
}

async fn remove(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(removal): Query<Removal>,
) -> Result<Response> {
    let to = redirect(format!("{}/members", page.root()));
    done(
        &page,
        to,
        super::remove_member(&app, identity.scope(), removal.user_id).await,
        "members-removed",
    )
}

/// A flash with what happened; a conflict is shown there too.
fn done(
    page: &PageContext,
    to: crate::ui::Redirect,
    result: Result<()>,
    key: &str,
) -> Result<Response> {
    match result {
        Ok(()) => Ok(to.ok(page.t(key)).into_response()),
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(page.t("members-last-admin")).into_response())
        }
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    token: String,
}

async fn show_invite(
    State(app): State<App>,
    page: PageContext,
    Query(link): Query<Link>,
) -> Result<Response> {
    accept_page(&app, &page, &link.token, json!({}), "").await
}

async fn accept_page(
    app: &App,
    page: &PageContext,
    token: &str,
    errors: Value,
    name: &str,
) -> Result<Response> {
    let hash = hex(&crate::auth::hash_token(token));
    let Some(offer) = store::offer(&app.db, &hash, app.clock.now_us()).await? else {
        return page
            .render_with_status(
                StatusCode::GONE,
                "setup/used.html",
                json!({"has_admin": true}),
            )
            .await;
    };
    let status = if errors.as_object().is_some_and(|errors| errors.is_empty()) {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let view = json!({
        "token": token, "email": offer.email, "project_name": offer.project_name, "role": offer.role,
        "invited_by": offer.invited_by, "errors": errors, "values": {"name": name},
    });
    page.render_with_status(status, "members/accept.html", view)
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acceptance {
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
}

async fn accept(
    State(app): State<App>,
    page: PageContext,
    connection: axum::Extension<Connection>,
    headers: HeaderMap,
    Form(form): Form<Acceptance>,
) -> Result<Response> {
    let from = connection.peer.ip().to_string();
    let user = match super::accept_invite(
        &app,
        &form.token,
        form.name.clone(),
        form.password,
        &from,
    )
    .await
    {
        Ok(user) => user,
        Err(AppError {
            status: StatusCode::NOT_FOUND,
            ..
        }) => {
            return page
                .render_with_status(
                    StatusCode::GONE,
                    "setup/used.html",
                    json!({"has_admin": true}),
                )
                .await;
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let errors = form_errors(&page, &error);
            return accept_page(&app, &page, &form.token, errors, &form.name).await;
        }
        Err(error) => return Err(error),
    };
    let mut response = redirect("/").into_response();
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    crate::sessions::begin(&app, user, agent, &mut response).await?;
    Ok(response)
}
