//! API keys: what programs identify themselves with.
//!
//! A key belongs to one project and one environment and has a role. Its secret
//! is shown once and kept as a hash. Revoking takes effect with the next plan,
//! at once on this server and within a quarter of a second on others.

mod api;
mod pages;
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base::{KeyId, Secret};
use db::{Actor, Db, Scope};
use gateway::Principal;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::auth::{Role, Token};
use crate::error::{AppError, Result};
use crate::http::Route;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// A key, without its secret.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Key {
    /// Names it, for revoking.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// The first characters of the secret, to tell keys apart.
    pub prefix: String,
    /// The environment that it is bound to.
    pub environment: String,
    /// What it may do.
    pub role: Role,
    /// Who made it.
    pub created_by: String,
    /// When, microseconds since the epoch.
    pub created_at: i64,
    /// When it was last used, microseconds since the epoch, to about five seconds.
    pub last_used_at: Option<i64>,
    /// When it stops working, microseconds since the epoch.
    pub expires_at: Option<i64>,
    /// When it was revoked, microseconds since the epoch.
    pub revoked_at: Option<i64>,
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What to call it.
    pub name: String,
    /// Its environment.
    pub environment: String,
    /// What it may do.
    pub role: Role,
    /// When it stops working, microseconds since the epoch.
    pub expires_at: Option<i64>,
}

/// Makes a key; the secret is never available again.
///
/// # Errors
/// A bad name, or an environment that the project does not have.
pub async fn create_key(
    db: &Db,
    random: &dyn base::Random,
    scope: Scope,
    new: NewKey,
) -> Result<(Key, Secret<String>)> {
    let name = new.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(base::text::is_deceptive) {
        return Err(AppError::invalid("a key's name has 1 to 100 characters")
            .code("bad_name")
            .at("name"));
    }
    let environments = crate::projects::environments(db, scope.project).await?;
    if !environments.contains(&new.environment) {
        let message = format!(
            "there is no environment {:?}; there are {}",
            new.environment,
            environments.join(", ")
        );
        return Err(AppError::invalid(message)
            .code("unknown_environment")
            .at("environment"));
    }
    let token = Token::make(random, &format!("mgr_{}_", new.environment));
    let id: KeyId = db.ids().make();
    let key = Key {
        id: id.to_string(),
        name,
        prefix: token
            .secret
            .expose()
            .chars()
            .take(new.environment.len() + 9)
            .collect(),
        environment: new.environment,
        role: new.role,
        created_by: scope.actor.to_string(),
        created_at: db.now_us(),
        last_used_at: None,
        expires_at: new.expires_at,
        revoked_at: None,
    };
    let mut tx = db.begin_write().await?;
    store::insert(&mut tx, scope, &key, &token.hash).await?;
    let detail = json!({"name": key.name, "environment": key.environment, "role": key.role});
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "key.create",
        &key.id,
        &detail,
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    Ok((key, token.secret))
}

/// Every key of a project, newest first, revoked ones included.
///
/// # Errors
/// The database cannot be read.
pub async fn list_keys(db: &Db, scope: Scope) -> Result<Vec<Key>> {
    store::list(db, scope).await
}

/// What a key is called, good or revoked.
///
/// # Errors
/// The database cannot be read.
pub async fn key_name(db: &Db, project: base::ProjectId, key: KeyId) -> Result<Option<String>> {
    Ok(store::name(db, project, key).await?)
}

/// Ends a key.
///
/// # Errors
/// The project has no such key. Revoking twice is not an error.
pub async fn revoke_key(db: &Db, scope: Scope, id: &str) -> Result<()> {
    let mut tx = db.begin_write().await?;
    if !store::revoke(&mut tx, scope, id, db.now_us()).await? {
        return Err(AppError::not_found("there is no such key in this project"));
    }
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "key.revoke",
        id,
        &json!({}),
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    Ok(())
}

/// Every good key by its hash, for the plan.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(db: &Db) -> Result<HashMap<[u8; 32], Arc<Principal>>> {
    store::live(db).await
}

/// When keys were used, collected here and written every few seconds: the
/// request path has no SQL on it.
#[derive(Default)]
pub struct Used(Mutex<HashMap<KeyId, i64>>);

impl Used {
    /// Notes a use.
    pub fn note(&self, key: KeyId, at: i64) {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(key, at);
    }

    fn take(&self) -> HashMap<KeyId, i64> {
        std::mem::take(
            &mut *self
                .0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

/// Writes down when keys were used.
///
/// # Errors
/// The database cannot be written; the uses are noted again with the next calls.
pub async fn write_last_used(app: &App) -> anyhow::Result<()> {
    let used = app.keys_used.take();
    if used.is_empty() {
        return Ok(());
    }
    Ok(store::set_last_used(&app.db, &used).await?)
}

/// What a person or the command line gives a key when nothing is said.
pub const DEFAULT_ROLE: Role = Role::Caller;

/// The command line acts on a project by name, as the operator.
///
/// # Errors
/// There is no such project.
pub async fn operator_scope(db: &Db, project: &str) -> Result<Scope> {
    let project = crate::projects::by_name(db, project).await?;
    Ok(Scope {
        project: project.id,
        actor: Actor::Operator,
    })
}

/// Nobody hands out more than they have.
///
/// # Errors
/// 403 when the key's role would allow something that its maker may not do.
pub(crate) fn check_grant(identity: &crate::auth::Identity, role: Role) -> Result<()> {
    role.permissions()
        .iter()
        .try_for_each(|permission| identity.require(*permission))
}

pub(crate) use api::Created;
