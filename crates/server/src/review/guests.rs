//! Guests: people without an account, each with a link to one queue.
//!
//! A link names one person, works until it expires or is revoked, and opens nothing but its
//! queue. Its token is shown once and kept as a hash. In a browser the token is a cookie of
//! its own; programs send it as a key.

use axum::http::HeaderMap;
use axum::response::Response;
use base::{MemberId, ProjectId};
use db::{Actor, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::store::{self, At};
use super::{Desk, find_queue};
use crate::app::App;
use crate::auth::{GuestOf, Identity, Role, Token, hash_token};
use crate::error::{AppError, Result};
use crate::sessions::hex;

/// What every guest token begins with.
const PREFIX: &str = "mgr_guest_";
/// Where a link leads.
pub const LINK_PATH: &str = "/guest";
/// How long a link works unless told.
const DAYS: u32 = 14;
const MOST_DAYS: u32 = 365;
const NAME_CHARS: usize = 100;
const DAY_US: i64 = 86_400_000_000;

/// A guest, without their token.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewGuest")]
pub struct Guest {
    /// Names them, for revoking; their labels say `guest:ID`.
    pub id: String,
    /// The project.
    #[serde(skip)]
    pub project: ProjectId,
    /// The only queue that they see.
    pub queue: String,
    /// Who they are.
    pub name: String,
    /// Who made the link.
    pub created_by: String,
    /// When, microseconds since the epoch.
    pub created_at: i64,
    /// When it stops working, microseconds since the epoch.
    pub expires_at: i64,
    /// When it was revoked, microseconds since the epoch.
    pub revoked_at: Option<i64>,
}

impl Guest {
    /// Whether the link works now.
    pub fn is_good(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at > now
    }
}

/// Who shall be a guest.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewReviewGuest")]
pub struct NewGuest {
    /// Who they are; their labels show it.
    pub name: String,
    /// How many days the link works, 14 unless told, at most 365.
    #[serde(default)]
    pub days: Option<u32>,
    /// Instead: when it stops working, microseconds since the epoch.
    #[serde(default)]
    pub expires_at: Option<i64>,
}

/// A guest and the link that is shown once.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewGuestMade")]
pub struct GuestMade {
    /// The guest.
    pub guest: Guest,
    /// The link for a browser.
    pub link: String,
    /// The token in it, for programs: send it as `Authorization: Bearer TOKEN`.
    pub token: String,
}

/// Makes a link to a queue for one person; it is shown once.
///
/// # Errors
/// There is no such queue, or the name or the time is wrong.
pub async fn make_guest(app: &App, scope: Scope, queue: &str, new: &NewGuest) -> Result<GuestMade> {
    find_queue(Desk::of(app), scope, queue).await?;
    let name = new.name.trim();
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS || name.chars().any(base::text::is_deceptive) {
        let message = format!("a guest's name has 1 to {NAME_CHARS} visible characters");
        return Err(AppError::invalid(message).code("bad_name").at("name"));
    }
    let now = app.clock.now_us();
    let guest = Guest {
        id: app.ids.make::<MemberId>().to_string(),
        project: scope.project,
        queue: queue.to_owned(),
        name: name.to_owned(),
        created_by: scope.actor.to_string(),
        created_at: now,
        expires_at: expiry(new, now)?,
        revoked_at: None,
    };
    let token = Token::make(app.random.as_ref(), PREFIX);
    let mut tx = app.db.begin_write().await?;
    store::insert_guest(&mut tx, &guest, &hex(&token.hash)).await?;
    let detail = json!({"queue": queue, "name": guest.name, "expires_at": guest.expires_at});
    let line = db::audit::Line::new(scope, "review_guest.make", &guest.id);
    line.detail(detail).write(&mut tx).await?;
    tx.commit().await?;
    let token = token.secret.expose().clone();
    Ok(GuestMade {
        guest,
        link: format!("{}{LINK_PATH}?token={token}", app.config.public_url()),
        token,
    })
}

fn expiry(new: &NewGuest, now: i64) -> Result<i64> {
    let latest = now + i64::from(MOST_DAYS) * DAY_US;
    match (new.days, new.expires_at) {
        (Some(_), Some(_)) => {
            Err(AppError::invalid("say days or expires_at, not both").at("expires_at"))
        }
        (None, Some(at)) if at > now && at <= latest => Ok(at),
        (None, Some(_)) => {
            let message = format!("a link works until some time within {MOST_DAYS} days");
            Err(AppError::invalid(message).at("expires_at"))
        }
        (days, None) => match days.unwrap_or(DAYS) {
            days @ 1..=MOST_DAYS => Ok(now + i64::from(days) * DAY_US),
            _ => Err(AppError::invalid(format!("a link works 1 to {MOST_DAYS} days")).at("days")),
        },
    }
}

/// The guests of a queue, the newest first, those whose link is over among them.
///
/// # Errors
/// There is no such queue.
pub async fn guests(desk: Desk<'_>, scope: Scope, queue: &str) -> Result<Vec<Guest>> {
    find_queue(desk, scope, queue).await?;
    let at = At {
        project: scope.project,
        queue,
    };
    store::list_guests(desk.db, at).await
}

/// Ends a guest's link at once and gives back what they hold. Their labels stay.
///
/// # Errors
/// There is no such guest. Revoking twice is not an error.
pub async fn revoke_guest(app: &App, scope: Scope, id: &str) -> Result<()> {
    let found = store::find_guest(&app.db, scope.project, id).await?;
    let found =
        found.ok_or_else(|| AppError::not_found("there is no such guest").code("no_such_guest"))?;
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    store::revoke_guest(&mut tx, scope.project, id).await?;
    let rater = format!("guest:{id}");
    store::release_all(&mut tx, scope.project, None, &rater).await?;
    let detail = json!({"queue": found.queue, "name": found.name});
    let line = db::audit::Line::new(scope, "review_guest.revoke", id);
    line.detail(detail).write(&mut tx).await?;
    Ok(tx.commit().await?)
}

/// Whether a credential is a guest's.
pub fn is_guest_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The guest whose token this is, if the link works.
///
/// # Errors
/// The database cannot be read.
pub async fn find_guest(app: &App, token: &str) -> Result<Option<Guest>> {
    if !is_guest_token(token) {
        return Ok(None);
    }
    let found = store::guest_by_token(&app.db, &hex(&hash_token(token))).await?;
    Ok(found.filter(|guest| guest.is_good(app.clock.now_us())))
}

/// Who a guest's token stands for.
///
/// # Errors
/// 401 when the link is unknown, over or revoked.
pub async fn identify_guest(app: &App, token: &str) -> Result<Identity> {
    let over = || {
        AppError::unauthenticated("this review link is not known, is over or was revoked")
            .code("link_over")
            .hint("ask whoever sent it for another one")
    };
    let guest = find_guest(app, token).await?.ok_or_else(over)?;
    let projects = crate::projects::list(&app.db).await?;
    let project = projects.into_iter().find(|known| known.id == guest.project);
    let project = project.ok_or_else(over)?;
    let id: MemberId = guest.id.parse().map_err(anyhow::Error::from)?;
    let role = Role::Labeller;
    let principal = gateway::Principal {
        key_id: None,
        user_id: None,
        project: project.id,
        environment: "dev".to_owned(),
        role: role.name().to_owned(),
        expires_at: None,
    };
    Ok(Identity {
        actor: Actor::Guest(id),
        project,
        role,
        person: None,
        guest: Some(GuestOf {
            queue: guest.queue,
            name: guest.name,
        }),
        principal: std::sync::Arc::new(principal),
    })
}

/// `__Host-` needs TLS; plain loopback uses another name, so that the two modes never mix.
fn cookie_name(app: &App) -> &'static str {
    if app.config.is_https() {
        "__Host-meguri-guest"
    } else {
        "meguri-loopback-guest"
    }
}

/// The guest token that a browser sends.
pub(crate) fn guest_cookie<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    crate::ui::cookie(headers, cookie_name(app))
}

/// Ends a guest's visit in this browser: it forgets the link, and what they hold goes to
/// others. The link itself works until it is over. Gives whether there was a guest.
///
/// # Errors
/// The database cannot be written.
pub async fn leave_guest(app: &App, headers: &HeaderMap, response: &mut Response) -> Result<bool> {
    let Some(token) = guest_cookie(app, headers) else {
        return Ok(false);
    };
    if let Some(guest) = find_guest(app, token).await? {
        let mut tx = app.db.begin_write().await?;
        tx.serialise().await?;
        let rater = format!("guest:{}", guest.id);
        store::release_all(&mut tx, guest.project, None, &rater).await?;
        tx.commit().await?;
    }
    crate::ui::set_cookie(app, response, cookie_name(app), "", Some(0));
    Ok(true)
}

/// Lets a browser in: from now on it is this guest, until the link is over. Gives the guest
/// and the path of the queue's page.
///
/// # Errors
/// 401 when the link is unknown, over or revoked.
pub async fn enter_guest(
    app: &App,
    token: &str,
    response: &mut Response,
) -> Result<(Identity, String)> {
    let identity = identify_guest(app, token).await?;
    let guest = find_guest(app, token).await?;
    let left = guest.map_or(0, |guest| guest.expires_at - app.clock.now_us());
    let age = Some((left / 1_000_000).max(1));
    crate::ui::set_cookie(app, response, cookie_name(app), token, age);
    let queue = identity.guest.as_ref().map(|guest| guest.queue.as_str());
    let path = format!(
        "/{}/review/{}",
        identity.project.name,
        crate::traces::encode(queue.unwrap_or_default())
    );
    Ok((identity, path))
}
