//! Providers: connections to somebody's models, and their credentials.
//!
//! A credential is a reference or an encrypted text (see `secrets`); it goes in
//! and never comes back out. People in the UI and API may name private
//! addresses only where the operator's configuration allows it; the command
//! line always may, since whoever runs it can reach those addresses anyway.

mod api;
mod pages;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ProjectId, ProviderId, Secret};
use db::sqlx::AnyConnection;
use db::{Db, Scope};
use gateway::{Protocol, Quirks, Retry, Timeouts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::secrets::Secrets;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// The protocols that the gateway speaks.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// OpenAI and everything compatible: vLLM, Ollama, llama.cpp …
    #[value(name = "openai")]
    OpenAi,
    /// Anthropic messages.
    Anthropic,
}

impl Wire {
    fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::OpenAi => Protocol::OpenAi,
            Self::Anthropic => Protocol::Anthropic,
        }
    }
}

/// What else is known of a provider; kept as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Options {
    /// Models that the last test listed.
    models: Vec<String>,
    /// How the last test ended: `ok`, `error` or nothing.
    state: String,
    /// What the last test said.
    state_text: String,
    /// When the last test was, microseconds since the epoch.
    checked_at: Option<i64>,
}

/// A provider, without its credential.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Provider {
    /// Names it in addresses.
    pub id: String,
    /// The name before the slash in `NAME/model`.
    pub name: String,
    /// What it speaks.
    pub protocol: Wire,
    /// Where it is.
    pub base_url: String,
    /// How its credential is kept: `env`, `file`, `stored` or `none`.
    pub credential: &'static str,
    /// The variable or path that is referred to; empty otherwise.
    pub credential_ref: String,
    /// Whether private addresses are allowed for it.
    pub allow_private: bool,
    /// The models that the last test listed.
    pub models: Vec<String>,
    /// How the last test ended: `ok`, `error` or `unknown`.
    pub state: String,
    /// What the last test said.
    pub state_text: String,
    /// When the last test was, microseconds since the epoch.
    pub checked_at: Option<i64>,
}

/// Where a provider's credential comes from.
#[derive(Debug, Clone)]
pub enum Credential {
    /// None is needed.
    None,
    /// `env:NAME`.
    Env(String),
    /// Given once, kept encrypted.
    Given(Secret<String>),
    /// What is stored already.
    Keep,
}

/// What a provider shall be.
#[derive(Debug, Clone)]
pub struct NewProvider {
    /// The name before the slash.
    pub name: String,
    /// What it speaks.
    pub protocol: Wire,
    /// Where it is.
    pub base_url: String,
    /// Its credential.
    pub credential: Credential,
    /// Whether whoever asks may name private addresses.
    pub may_be_private: bool,
}

/// Adds a provider, or replaces the one with this id.
///
/// # Errors
/// A bad name, URL or credential (`at` names the field), or the name is taken.
pub async fn save_provider(
    db: &Db,
    secrets: &Secrets,
    random: &dyn base::Random,
    scope: Scope,
    replaces: Option<&str>,
    new: NewProvider,
) -> Result<Provider> {
    let name = check_name(&new.name)?;
    let url = base::net::parse_base_url(&new.base_url).map_err(|problem| {
        AppError::invalid(problem.to_string())
            .code("bad_url")
            .at("base_url")
    })?;
    let host = url.host_str().unwrap_or_default();
    let private = is_private_name(host);
    if private && !new.may_be_private {
        return Err(
            AppError::invalid("this address is private; an operator can allow it")
                .code("private_address")
                .at("base_url")
                .hint(
                    "set egress.allow_private in meguri.toml, or add it with: meguri provider add",
                ),
        );
    }
    let credential_ref = match &new.credential {
        Credential::None => None,
        Credential::Env(variable) => Some(format!("env:{}", check_variable(variable)?)),
        Credential::Given(secret) if secret.expose().trim().is_empty() => None,
        Credential::Given(secret) => {
            Some(secrets.seal(random, &seal_name(scope.project, &name), secret)?)
        }
        Credential::Keep => match replaces {
            Some(id) => rekeep(db, secrets, random, scope, id, &name).await?,
            None => None,
        },
    };
    let row = store::Row {
        id: match replaces {
            Some(id) => id.to_owned(),
            None => db.ids().make::<ProviderId>().to_string(),
        },
        name,
        protocol: new.protocol.name().to_owned(),
        base_url: url.to_string(),
        credential_ref,
        allow_private: new.may_be_private,
        options: Options::default(),
    };
    let mut tx = db.begin_write().await?;
    tx.serialise().await?;
    let is_known = store::is_name(tx.conn(), scope.project, &row.name).await?;
    if !is_known && crate::apps::would_be_hidden(tx.conn(), scope.project, &row.name).await? {
        let message = format!("apps of this project begin with {}/", row.name);
        return Err(AppError::conflict(message)
            .code("name_hides_apps")
            .at("name")
            .hint("calls of these apps would go to the provider: choose another name"));
    }
    let saved = match replaces {
        Some(_) => store::update(&mut tx, scope, &row).await?,
        None => store::insert(&mut tx, scope, &row).await?,
    };
    if !saved {
        return Err(match replaces {
            Some(_) => AppError::not_found("there is no such provider, or its new name is taken"),
            None => AppError::conflict(format!("there is a provider {:?} already", row.name))
                .code("name_taken")
                .at("name"),
        });
    }
    let detail = json!({"name": row.name, "protocol": row.protocol, "base_url": row.base_url});
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "provider.save",
        &row.id,
        &detail,
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    row.public()
}

/// A kept credential is bound to the provider's name, so a new name seals it anew.
async fn rekeep(
    db: &Db,
    secrets: &Secrets,
    random: &dyn base::Random,
    scope: Scope,
    id: &str,
    name: &str,
) -> Result<Option<String>> {
    let Some(old) = store::find(db, scope.project, id).await? else {
        return Ok(None);
    };
    match old.credential_ref {
        Some(reference) if reference.starts_with("enc:") && old.name != name => {
            let secret = secrets.resolve(&seal_name(scope.project, &old.name), &reference)?;
            Ok(Some(secrets.seal(
                random,
                &seal_name(scope.project, name),
                &secret,
            )?))
        }
        other => Ok(other),
    }
}

fn seal_name(project: ProjectId, name: &str) -> String {
    format!("provider:{project}:{name}")
}

fn check_name(name: &str) -> Result<String> {
    let name = name.trim();
    let good = (1..=40).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && name != "local";
    if good {
        return Ok(name.to_owned());
    }
    let message =
        "a provider's name has 1 to 40 lower-case letters, digits, - or _, and is not \"local\"";
    Err(AppError::invalid(message)
        .code("bad_provider_name")
        .at("name"))
}

fn check_variable(variable: &str) -> Result<&str> {
    let variable = variable.trim();
    let good = !variable.is_empty()
        && variable
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        Ok(variable)
    } else {
        Err(
            AppError::invalid("this is not the name of an environment variable")
                .code("bad_variable")
                .at("api_key_env"),
        )
    }
}

/// Whether a host is a private address by its spelling alone; names are checked
/// by the egress client when they are connected to.
fn is_private_name(host: &str) -> bool {
    // A dot at the end makes a name absolute; it leads to the same place.
    let bare = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_end_matches('.');
    bare.parse().is_ok_and(|ip| !base::net::is_public(ip))
        || bare == "localhost"
        || bare.ends_with(".localhost")
}

/// Every provider of a project, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn list_providers(db: &Db, scope: Scope) -> Result<Vec<Provider>> {
    store::list(db, scope.project)
        .await?
        .into_iter()
        .map(store::Row::public)
        .collect()
}

/// One provider by id or name.
///
/// # Errors
/// The project has none such.
pub async fn find_provider(db: &Db, scope: Scope, id_or_name: &str) -> Result<Provider> {
    let row = store::find(db, scope.project, id_or_name).await?;
    row.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no provider {id_or_name:?} in this project"
        ))
    })?
    .public()
}

/// Whether a provider of the project has this name, as this connection sees it.
///
/// # Errors
/// The database cannot be read.
pub async fn is_provider(
    connection: &mut AnyConnection,
    project: ProjectId,
    name: &str,
) -> std::result::Result<bool, db::DbError> {
    store::is_name(connection, project, name).await
}

/// Removes a provider; calls that run finish.
///
/// # Errors
/// The project has none such.
pub async fn remove_provider(db: &Db, scope: Scope, id_or_name: &str) -> Result<()> {
    let mut tx = db.begin_write().await?;
    if !store::delete(&mut tx, scope, id_or_name).await? {
        return Err(AppError::not_found(format!(
            "there is no provider {id_or_name:?} in this project"
        )));
    }
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "provider.remove",
        id_or_name,
        &json!({}),
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    Ok(())
}

/// Asks a provider for its models and keeps the answer.
///
/// # Errors
/// The project has no such provider. A provider that does not answer is a result, not an error.
pub async fn test_provider(
    db: &Db,
    secrets: &Secrets,
    egress: &gateway::Egress,
    scope: Scope,
    id_or_name: &str,
) -> Result<Provider> {
    let row = store::find(db, scope.project, id_or_name).await?;
    let mut row = row.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no provider {id_or_name:?} in this project"
        ))
    })?;
    let provider = callable(secrets, scope.project, &row)?;
    let result = gateway::test_provider(egress, &provider).await;
    row.options.checked_at = Some(db.now_us());
    match result {
        Ok(models) => {
            row.options.state_text = String::new();
            row.options.state = "ok".to_owned();
            row.options.models = models;
        }
        Err(problem) => {
            row.options.state = "error".to_owned();
            row.options.state_text = problem;
        }
    }
    let mut tx = db.begin_write().await?;
    store::set_options(&mut tx, scope, &row).await?;
    let detail = json!({"state": row.options.state});
    db::audit::Line::new(scope, "provider.test", &row.id)
        .detail(detail)
        .write(&mut tx)
        .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    row.public()
}

/// The providers of a project as the gateway calls them.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
) -> Result<BTreeMap<String, Arc<gateway::Provider>>> {
    let mut providers = BTreeMap::new();
    for row in store::list(&app.db, project).await? {
        match callable(&app.secrets, project, &row) {
            Ok(provider) => drop(providers.insert(row.name.clone(), Arc::new(provider))),
            Err(error) => {
                tracing::warn!(provider.name = row.name, error.message = %error, "a provider is left out of the plan")
            }
        }
    }
    Ok(providers)
}

fn callable(secrets: &Secrets, project: ProjectId, row: &store::Row) -> Result<gateway::Provider> {
    let wire = row.wire()?;
    let base_url = base::net::parse_base_url(&row.base_url)
        .map_err(|problem| AppError::internal(anyhow::anyhow!(problem)))?;
    let reference = row.credential_ref.as_deref();
    let resolved = reference
        .map(|reference| secrets.resolve(&seal_name(project, &row.name), reference))
        .transpose();
    // Without its credential the provider's own refusal tells the caller more than "no such model".
    let credential = resolved.unwrap_or_else(|problem| {
        tracing::warn!(provider.name = row.name, error.message = %format!("{problem:#}"), "a credential cannot be read");
        None
    });
    Ok(gateway::Provider {
        name: row.name.clone(),
        protocol: wire.protocol(),
        base_url,
        credential,
        allow_private: row.allow_private,
        timeouts: Timeouts::default(),
        retry: Retry::default(),
        quirks: Quirks::default(),
        models: row.options.models.clone(),
    })
}
