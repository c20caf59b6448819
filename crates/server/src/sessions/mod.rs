//! Signing in and out: a browser's session is a row that can be ended, named by
//! a cookie that holds nothing but 256 random bits.

mod pages;
mod store;

use std::collections::HashMap;
use std::sync::Mutex;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base::{SessionId, UserId};

use crate::app::App;
use crate::auth::{self, Person, Token};
use crate::error::{AppError, Result};
pub use pages::routes;

/// A session ends this long after it began, whatever happens.
const ABSOLUTE_US: i64 = 30 * 86_400 * 1_000_000;
/// A session ends when it was not used for this long.
const IDLE_US: i64 = 7 * 86_400 * 1_000_000;

/// The cookie's name. `__Host-` needs TLS; plain loopback uses another name, so
/// that the two modes never mix.
fn cookie_name(app: &App) -> &'static str {
    if app.config.is_https() {
        "__Host-meguri"
    } else {
        "meguri-loopback"
    }
}

/// The session cookie of a request.
pub fn cookie(app: &App, headers: &HeaderMap) -> Option<String> {
    crate::ui::cookie(headers, cookie_name(app)).map(str::to_owned)
}

/// Who this cookie stands for, if the session is still good.
///
/// # Errors
/// The database cannot be read.
pub async fn find(app: &App, cookie: &str) -> Result<Option<Person>> {
    let now = app.clock.now_us();
    let hash = hex(&auth::hash_token(cookie));
    let Some(found) = store::find(&app.db, &hash).await? else {
        return Ok(None);
    };
    let over = found.expires_at <= now || found.last_seen_at + IDLE_US <= now;
    if over || !may_sign_in(&found) {
        return Ok(None);
    }
    // Once a minute is enough to know whether a session is idle.
    if now - found.last_seen_at > 60_000_000 {
        store::touch(&app.db, &hash, now).await?;
    }
    Ok(Some(found.person))
}

/// The one rule about which accounts may be signed in.
fn may_sign_in(found: &store::Found) -> bool {
    !found.disabled && !found.revoked
}

/// The account with this address, if the password is its own. Every way in that
/// takes a password comes through here, so that none is without the limit.
///
/// # Errors
/// 429 after too many failures of this account or from this network address.
pub async fn check_password(
    app: &App,
    email: &str,
    password: String,
    from: &str,
) -> Result<Option<UserId>> {
    let now = app.clock.now_us();
    // Longer ones are no addresses, and would only fill the memory of failures.
    let email = base::text::cut_bytes(email.trim(), 254).to_lowercase();
    app.sign_in_limits.check(&email, now)?;
    app.sign_in_limits.check(from, now)?;
    let account = store::account(&app.db, &email).await?;
    let hash = account
        .as_ref()
        .and_then(|account| account.password_hash.clone());
    let good = auth::verify_password(password, hash).await?;
    match account {
        Some(account) if good && !account.disabled => Ok(Some(account.id)),
        _ => {
            app.sign_in_limits.note_failure(&email, now);
            app.sign_in_limits.note_failure(from, now);
            Ok(None)
        }
    }
}

/// Whether somebody has an account with this address.
///
/// # Errors
/// The database cannot be read.
pub async fn has_account(app: &App, email: &str) -> Result<bool> {
    Ok(store::account(&app.db, email).await?.is_some())
}

/// Begins a session: a new id at every sign-in, so that none can be planted before.
///
/// # Errors
/// The database cannot be written.
pub async fn begin(
    app: &App,
    user: UserId,
    user_agent: &str,
    response: &mut Response,
) -> Result<()> {
    let token = Token::make(app.random.as_ref(), "");
    let now = app.clock.now_us();
    let id: SessionId = app.ids.make();
    let agent = base::text::cut_bytes(user_agent, 200);
    store::insert(
        &app.db,
        &hex(&token.hash),
        id,
        user,
        now,
        now + ABSOLUTE_US,
        agent,
    )
    .await?;
    crate::ui::set_cookie(
        app,
        response,
        cookie_name(app),
        token.secret.expose(),
        Some(ABSOLUTE_US / 1_000_000),
    );
    Ok(())
}

/// Ends every session of a person, on password change, removal or demotion by this actor.
///
/// # Errors
/// The database cannot be written.
pub async fn end_all(app: &App, actor: db::Actor, user: UserId) -> Result<()> {
    store::revoke_user(&app.db, actor, user, app.clock.now_us()).await
}

/// Deletes sessions and one-time links that are over.
///
/// # Errors
/// The database cannot be written.
pub async fn drop_expired(app: &App) -> anyhow::Result<()> {
    Ok(store::delete_expired(&app.db, app.clock.now_us()).await?)
}

/// Where somebody who is not signed in goes: to the sign-in page, and back
/// afterwards. Before there is any account, that page explains the setup link.
pub fn to_sign_in(path: &str) -> Response {
    let path: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
    crate::ui::redirect(format!("/sign-in?return_to={path}")).into_response()
}

/// Counts failed sign-ins by account and by address, so that guessing is slow
/// while nobody can lock somebody else out for long.
#[derive(Default)]
pub struct Attempts(Mutex<HashMap<String, (u32, i64)>>);

impl Attempts {
    const MOST: u32 = 10;
    const WINDOW_US: i64 = 5 * 60 * 1_000_000;
    const REMEMBERED: usize = 10_000;

    /// Refuses when there were too many failures lately.
    fn check(&self, who: &str, now: i64) -> Result<()> {
        let attempts = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match attempts.get(who) {
            Some((count, since)) if *count >= Self::MOST && now - since < Self::WINDOW_US => Err(
                AppError::too_many("too many failed sign-ins; wait five minutes"),
            ),
            _ => Ok(()),
        }
    }

    fn note_failure(&self, who: &str, now: i64) {
        let mut attempts = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if attempts.len() >= Self::REMEMBERED {
            attempts.retain(|_, (_, since)| now - *since < Self::WINDOW_US);
        }
        if attempts.len() >= Self::REMEMBERED {
            // A flood of invented names must not fill the memory, nor make us forget who is refused already.
            attempts.retain(|_, (count, _)| *count >= Self::MOST);
        }
        if attempts.len() >= Self::REMEMBERED && !attempts.contains_key(who) {
            return;
        }
        let entry = attempts.entry(who.to_owned()).or_insert((0, now));
        if now - entry.1 >= Self::WINDOW_US {
            *entry = (0, now);
        }
        entry.0 += 1;
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
