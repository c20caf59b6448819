//! Who calls, and what they may do.
//!
//! Ways in: an API key in `Authorization: Bearer` (or `x-api-key`), looked
//! up in the plan by its hash; a session cookie, looked up in the database; or the token
//! of a guest's review link, in either place. All end in one [`Identity`], which is the only thing that handlers and
//! stores get to see. A cookie works only for requests that come from our own
//! pages ([`check_cross_site`]).

mod cross_site;
mod password;
mod permission;
mod token;

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base::{SessionId, UserId};
use base64::Engine as _;
use db::{Actor, Scope};
use gateway::{KeyProblem, Principal};

pub use cross_site::check_cross_site;
pub use password::{hash_password, verify_password};
pub use permission::{Permission, Role};
pub use token::{Token, hash_token};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::surface::Surface;

/// Who calls, in which project, with which role. Only [`identify`] makes one.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For history and audit.
    pub actor: Actor,
    /// The project at hand.
    pub project: crate::projects::Project,
    /// What the caller may do there.
    pub role: Role,
    /// The signed-in person; none for keys and guests.
    pub person: Option<Person>,
    /// For a guest, the one review queue that they see.
    pub guest: Option<GuestOf>,
    /// The same caller, as the gateway wants it.
    pub principal: Arc<Principal>,
}

/// What a guest was let in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOf {
    /// The only review queue that they see.
    pub queue: String,
    /// Who they are.
    pub name: String,
}

/// A signed-in person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their id.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Their e-mail address.
    pub email: String,
    /// The session that the cookie stands for.
    pub session: SessionId,
}

impl Identity {
    /// Refuses when the role does not allow this.
    ///
    /// # Errors
    /// 403, naming the permission.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.role.allows(permission) {
            return Ok(());
        }
        let message = format!(
            "the role {} does not allow {}",
            self.role.name(),
            permission.name()
        );
        Err(AppError::forbidden(message).hint("ask an administrator of this project"))
    }

    /// What stores and the catalog need: the project and who acts.
    pub fn scope(&self) -> Scope {
        Scope {
            project: self.project.id,
            actor: self.actor,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AppError> {
        // A public route has no identity; asking for one there is our own mistake.
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| AppError::internal(anyhow::anyhow!("route without identity")))
    }
}

/// Finds out who sends this request.
///
/// # Errors
/// 401 without a good credential; 404 for a project that the person is no member of.
pub async fn identify(app: &App, head: &mut Parts) -> Result<Identity> {
    let foreign = matches!(
        Surface::of(head.uri.path()),
        Surface::Langfuse | Surface::Mlflow
    );
    match credential(&head.headers, foreign)?.as_deref() {
        Some(_) if Surface::of(head.uri.path()) == Surface::Page => {
            Err(AppError::unauthenticated("pages are for people: sign in"))
        }
        Some(token) if crate::review::is_guest_token(token) => {
            crate::review::identify_guest(app, token).await
        }
        Some(secret) => identify_key(app, secret).await,
        None => identify_browser(app, head).await,
    }
}

/// The key that the request carries, in whichever header a client library puts it.
/// Langfuse's and MLflow's clients send a pair, `Basic PREFIX:KEY`; only their
/// own surfaces take it.
fn credential(headers: &HeaderMap, pair: bool) -> Result<Option<Cow<'_, str>>> {
    let bad = || AppError::unauthenticated("the Authorization header is not \"Bearer KEY\"");
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| bad())?;
        let (scheme, key) = text.split_once(' ').ok_or_else(bad)?;
        return match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Ok(Some(Cow::Borrowed(key.trim()))),
            "basic" if pair => key_of_pair(key.trim()).map(|key| Some(Cow::Owned(key))),
            _ => Err(bad()),
        };
    }
    match headers.get("x-api-key").or_else(|| headers.get("api-key")) {
        Some(value) => value
            .to_str()
            .map(|key| Some(Cow::Borrowed(key)))
            .map_err(|_| AppError::unauthenticated("the key is not text")),
        None => Ok(None),
    }
}

/// The secret of a key pair. The public half is the visible prefix of the key, so
/// that a pair put together from two keys is refused.
fn key_of_pair(pair: &str) -> Result<String> {
    let bad = || {
        AppError::unauthenticated("the Authorization header is not \"Basic\" with a key pair")
            .hint("the public key is the prefix that the list of keys shows, the secret key is the key itself")
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(pair)
        .map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (public, secret) = text.split_once(':').ok_or_else(bad)?;
    // The environment's name in it makes every prefix longer than this.
    if public.len() < 8 || !secret.starts_with(public) {
        return Err(bad());
    }
    Ok(secret.to_owned())
}

/// How long an unknown key may wait for the database. Strangers must not queue up behind one that is away.
const LOOK: std::time::Duration = std::time::Duration::from_secs(3);

async fn identify_key(app: &App, secret: &str) -> Result<Identity> {
    let hash = hash_token(secret);
    let now = app.clock.now_us();
    let mut found = app.gateway.plan().principal(&hash, now).cloned();
    if found == Err(KeyProblem::Unknown) {
        // Made a moment ago by another process, perhaps: look before refusing. One cheap query,
        // shared by all who ask at the same time.
        let refreshed = tokio::time::timeout(LOOK, app.refresh_plan()).await;
        refreshed.map_err(|_| {
            AppError::unavailable("this key is not known, and the database does not answer")
        })??;
        found = app.gateway.plan().principal(&hash, now).cloned();
    }
    let principal = found.map_err(|problem| {
        AppError::unauthenticated(problem.to_string())
            .hint("create a key under API keys, or with: meguri key create")
    })?;
    let Some(key) = principal.key_id else {
        return Err(AppError::internal(anyhow::anyhow!(
            "a key's principal has no key id"
        )));
    };
    app.keys_used.note(key, now);
    let role = principal
        .role
        .parse()
        .map_err(|problem: String| AppError::internal(anyhow::anyhow!(problem)))?;
    // A key's holder sees its project by id only; no page shows a name to it.
    let project = crate::projects::Project {
        id: principal.project,
        name: String::new(),
    };
    Ok(Identity {
        actor: Actor::Key(key),
        project,
        role,
        person: None,
        guest: None,
        principal,
    })
}

/// Whoever is signed in, or else the guest whose link this browser was opened with.
async fn identify_browser(app: &App, head: &Parts) -> Result<Identity> {
    let refused = match identify_person(app, head).await {
        Ok(identity) => return Ok(identity),
        Err(error) => error,
    };
    let Some(token) = crate::review::guest_cookie(app, &head.headers) else {
        return Err(refused);
    };
    let guest = crate::review::identify_guest(app, token).await?;
    match wanted_project(head) {
        Some(name) if name != guest.project.name => {
            Err(AppError::not_found(format!("there is no project {name:?}")))
        }
        _ => Ok(guest),
    }
}

async fn identify_person(app: &App, head: &Parts) -> Result<Identity> {
    let no_session = || {
        AppError::unauthenticated("no API key and no session")
            .hint("send Authorization: Bearer KEY")
    };
    let cookie = crate::sessions::cookie(app, &head.headers).ok_or_else(no_session)?;
    let person = crate::sessions::find(app, &cookie)
        .await?
        .ok_or_else(no_session)?;
    let wanted = wanted_project(head);
    let (project, role) = crate::members::role_in(app, person.id, wanted.as_deref()).await?;
    let principal = Principal {
        key_id: None,
        user_id: Some(person.id),
        project: project.id,
        environment: "dev".to_owned(),
        role: role.name().to_owned(),
        expires_at: None,
    };
    Ok(Identity {
        actor: Actor::User(person.id),
        project,
        role,
        person: Some(person),
        guest: None,
        principal: Arc::new(principal),
    })
}

/// The project that a signed-in person means: the first segment of a page's
/// address, the header `x-meguri-project` elsewhere.
fn wanted_project(head: &Parts) -> Option<String> {
    let path = head.uri.path();
    if Surface::of(path) == Surface::Page {
        let first = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        return (!crate::ui::is_reserved(first)).then(|| first.to_owned());
    }
    head.headers
        .get("x-meguri-project")?
        .to_str()
        .ok()
        .map(str::to_owned)
}
