//! Members over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base::UserId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Invite, Member};
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadMembers);
    let manage = Access::Needs(Permission::ManageMembers);
    vec![
        Route::get("/api/v1/members", read, list)
            .doc(Doc::new("members", "Everybody in the project").answer::<Members>()),
        Route::put("/api/v1/members/{user_id}", manage, set_role).doc(
            Doc::new("members", "Change a member's role")
                .body::<SetRole>()
                .status(204),
        ),
        Route::delete("/api/v1/members/{user_id}", manage, remove)
            .doc(Doc::new("members", "Remove a member; their sessions end").status(204)),
        Route::post("/api/v1/invites", manage, invite).doc(
            Doc::new("members", "Make a one-time invitation link")
                .body::<NewInvite>()
                .answer::<Invited>()
                .status(201),
        ),
        Route::delete("/api/v1/invites/{id}", manage, revoke)
            .doc(Doc::new("members", "Take an invitation back").status(204)),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Members {
    /// The members, by name.
    items: Vec<Member>,
    /// Open invitations, oldest first.
    invites: Vec<Invite>,
}

async fn list(State(app): State<App>, identity: Identity) -> Result<Answer<Members>> {
    let scope = identity.scope();
    let (items, invites) = (
        super::list_members(&app, scope).await?,
        super::list_invites(&app, scope).await?,
    );
    Ok(Answer(Members { items, invites }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetRole {
    /// The new role: admin, editor or viewer.
    role: Role,
}

fn user(text: &str) -> Result<UserId> {
    text.parse()
        .map_err(|_| AppError::not_found("there is no such member"))
}

async fn set_role(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(change): Json<SetRole>,
) -> Result<StatusCode> {
    super::set_role(&app, identity.scope(), user(&id)?, change.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    super::remove_member(&app, identity.scope(), user(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewInvite {
    /// Whom to invite.
    email: String,
    /// The role they will have: admin, editor or viewer.
    role: Role,
}

#[derive(Serialize, JsonSchema)]
struct Invited {
    /// The one-time link; it is not shown again.
    link: String,
    /// The invitation.
    invite: Invite,
}

async fn invite(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<NewInvite>,
) -> Result<(StatusCode, Answer<Invited>)> {
    let (link, invite) = super::invite_member(&app, identity.scope(), &new.email, new.role).await?;
    Ok((StatusCode::CREATED, Answer(Invited { link, invite })))
}

async fn revoke(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    super::revoke_invite(&app, identity.scope(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
