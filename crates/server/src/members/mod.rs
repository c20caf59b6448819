//! Who belongs to a project, with which role, and how people are invited.

mod api;
mod pages;
mod store;

use std::collections::HashMap;

use base::{ProjectId, UserId};
use db::{Actor, Scope, WriteTx};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::auth::{Role, Token};
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::projects::Project;
use crate::sessions::hex;
pub(crate) use store::insert;

/// How long an invitation works.
const INVITE_VALID_US: i64 = 7 * 86_400 * 1_000_000;

/// The roles that people can have; `caller` is for keys.
pub const PEOPLE_ROLES: &[Role] = &[
    Role::Admin,
    Role::Editor,
    Role::ProductOwner,
    Role::Auditor,
    Role::Viewer,
    Role::Labeller,
];

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// Somebody in a project.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Member {
    /// The person.
    pub user_id: String,
    /// Their name.
    pub name: String,
    /// Their e-mail address.
    pub email: String,
    /// What they may do here.
    pub role: Role,
    /// Since when, microseconds since the epoch.
    pub created_at: i64,
    /// When they were last seen, microseconds since the epoch.
    pub last_seen_at: Option<i64>,
}

/// An invitation that waits to be accepted.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Invite {
    /// Names it, for revoking.
    pub id: String,
    /// Whom it is for.
    pub email: String,
    /// The role they will have.
    pub role: Role,
    /// When it was made, microseconds since the epoch.
    pub created_at: i64,
    /// When it stops working, microseconds since the epoch.
    pub expires_at: i64,
    /// Who made it.
    pub created_by: String,
}

/// The project that a person means and their role in it: the named one, else their first.
///
/// # Errors
/// 404 for a project that they are no member of, the same as for none.
pub async fn role_in(app: &App, user: UserId, name: Option<&str>) -> Result<(Project, Role)> {
    let found = store::role_in(&app.db, user, name).await?;
    found.ok_or_else(|| match name {
        Some(name) => AppError::not_found(format!("there is no project {name:?}")),
        None => AppError::forbidden("you are not a member of any project")
            .hint("ask an administrator for an invitation"),
    })
}

/// Everybody in a project.
///
/// # Errors
/// The database cannot be read.
pub async fn list_members(app: &App, scope: Scope) -> Result<Vec<Member>> {
    store::list(&app.db, scope).await
}

/// Open invitations of a project.
///
/// # Errors
/// The database cannot be read.
pub async fn list_invites(app: &App, scope: Scope) -> Result<Vec<Invite>> {
    store::invites(&app.db, scope, app.clock.now_us()).await
}

/// Makes a one-time link by which somebody joins the project. The link is shown
/// once; there is no mail server to send it.
///
/// # Errors
/// A bad address, or a role that people cannot have.
pub async fn invite_member(
    app: &App,
    scope: Scope,
    email: &str,
    role: Role,
) -> Result<(String, Invite)> {
    let email = crate::setup::check_email(email)?;
    if !PEOPLE_ROLES.contains(&role) {
        return Err(AppError::invalid(
            "people are admin, editor, product_owner, auditor, viewer or labeller",
        )
        .code("bad_role")
        .at("role"));
    }
    let token = Token::make(app.random.as_ref(), "");
    let now = app.clock.now_us();
    let invite = Invite {
        id: hex(&token.hash),
        email,
        role,
        created_at: now,
        expires_at: now + INVITE_VALID_US,
        created_by: scope.actor.to_string(),
    };
    let mut tx = app.db.begin_write().await?;
    store::insert_invite(&mut tx, scope, &invite).await?;
    // No address: lines of the audit log cannot be forgotten.
    let detail = json!({"role": role.name()});
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "member.invite",
        &invite.id,
        &detail,
    )
    .await?;
    tx.commit().await?;
    let link = format!(
        "{}/invite?token={}",
        app.config.public_url(),
        token.secret.expose()
    );
    Ok((link, invite))
}

/// Takes an invitation back.
///
/// # Errors
/// There is no such open invitation in this project.
pub async fn revoke_invite(app: &App, scope: Scope, id: &str) -> Result<()> {
    let mut tx = app.db.begin_write().await?;
    if !store::delete_invite(&mut tx, scope, id).await? {
        return Err(AppError::not_found("there is no such invitation"));
    }
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "invite.revoke",
        id,
        &json!({}),
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Changes what a member may do. Their sessions end, so that no open page keeps the old role.
///
/// # Errors
/// No such member, or it would leave the project without an administrator.
pub async fn set_role(app: &App, scope: Scope, user: UserId, role: Role) -> Result<()> {
    if !PEOPLE_ROLES.contains(&role) {
        return Err(AppError::invalid(
            "people are admin, editor, product_owner, auditor, viewer or labeller",
        )
        .code("bad_role")
        .at("role"));
    }
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    if !store::set_role(&mut tx, scope, user, role).await? {
        return Err(AppError::not_found("there is no such member"));
    }
    finish_change(
        tx,
        scope,
        "member.set_role",
        user,
        json!({"role": role.name()}),
    )
    .await?;
    if scope.actor != Actor::User(user) {
        crate::sessions::end_all(app, scope.actor, user).await?;
    }
    Ok(())
}

/// Removes a member from the project and ends their sessions.
///
/// # Errors
/// No such member, or it would leave the project without an administrator.
pub async fn remove_member(app: &App, scope: Scope, user: UserId) -> Result<()> {
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    if !store::remove(&mut tx, scope, user).await? {
        return Err(AppError::not_found("there is no such member"));
    }
    finish_change(tx, scope, "member.remove", user, json!({})).await?;
    crate::sessions::end_all(app, scope.actor, user).await
}

async fn finish_change(
    mut tx: WriteTx,
    scope: Scope,
    action: &str,
    user: UserId,
    detail: serde_json::Value,
) -> Result<()> {
    if store::count_admins(&mut tx, scope.project).await? == 0 {
        return Err(AppError::conflict("a project needs an administrator").code("last_admin"));
    }
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        action,
        &user.to_string(),
        &detail,
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

/// What an invitation link offers.
pub(crate) struct Offer {
    pub(crate) project: ProjectId,
    pub(crate) project_name: String,
    pub(crate) email: String,
    pub(crate) role: Role,
    pub(crate) invited_by: String,
}

/// Makes the membership that an invitation is for, and the account unless there
/// is one: then the password must be that account's, since a link alone must not
/// open it.
///
/// # Errors
/// The link is over, or a field is wrong.
pub(crate) async fn accept_invite(
    app: &App,
    token: &str,
    name: String,
    password: String,
    from: &str,
) -> Result<UserId> {
    let hash = hex(&crate::auth::hash_token(token));
    let now = app.clock.now_us();
    let over = || {
        AppError::not_found("this invitation was used, taken back or is too old").code("link_used")
    };
    let offer = store::offer(&app.db, &hash, now).await?.ok_or_else(over)?;
    let joining = if crate::sessions::has_account(app, &offer.email).await? {
        let known = crate::sessions::check_password(app, &offer.email, password, from).await?;
        let wrong = || {
            AppError::invalid("this address has an account: its password is needed")
                .code("account_exists")
        };
        Joining::Known(known.ok_or_else(|| wrong().at("password"))?)
    } else {
        Joining::New(
            crate::setup::NewAccount {
                name,
                email: offer.email.clone(),
                password,
            }
            .check()
            .await?,
        )
    };
    let mut tx = app.db.begin_write().await?;
    if !store::use_invite(&mut tx, &hash, now).await? {
        return Err(over());
    }
    let user = match joining {
        Joining::Known(user) => user,
        Joining::New(account) => crate::setup::insert_user(&mut tx, &account, now).await?,
    };
    insert(&mut tx, offer.project, user, offer.role, now).await?;
    let detail = json!({"role": offer.role.name()});
    db::audit::write(
        &mut tx,
        Some(offer.project),
        Actor::User(user),
        "member.join",
        &user.to_string(),
        &detail,
    )
    .await?;
    tx.commit().await?;
    Ok(user)
}

/// Who accepts an invitation.
enum Joining {
    Known(UserId),
    New(crate::setup::CheckedAccount),
}

/// The name behind an actor text (`user:ID`, `key:ID`, `guest:ID`, `operator`), for pages.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn actor_name(db: &db::Db, project: ProjectId, actor: &str) -> Result<String> {
    let name = match actor.parse() {
        Ok(Actor::Key(key)) => crate::keys::key_name(db, project, key).await?,
        Ok(Actor::User(user)) => store::person_name(db, user).await?,
        Ok(Actor::Guest(guest)) => crate::review::guest_name(db, project, guest).await?,
        _ => None,
    };
    Ok(name.unwrap_or_else(|| actor.to_owned()))
}

/// [`actor_name`] for many, each looked up once.
///
/// # Errors
/// As there.
pub(crate) async fn actor_names(
    db: &db::Db,
    project: ProjectId,
    actors: impl Iterator<Item = &str>,
) -> Result<HashMap<String, String>> {
    let mut names = HashMap::new();
    for actor in actors {
        if !names.contains_key(actor) {
            names.insert(actor.to_owned(), actor_name(db, project, actor).await?);
        }
    }
    Ok(names)
}
