//! The first start: a one-time link makes the first administrator.
//!
//! There is no default password and no open registration. As long as nobody is
//! an administrator, each start prints a fresh link and the ones before stop
//! working. Invitations (see `members`) are the same kind of link.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base::{Secret, UserId};
use db::sqlx::{Row as _, query};
use db::{Actor, Db, DbError};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::auth::{self, Role, Token};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::sessions::hex;
use crate::ui::{PageContext, redirect};

/// How long a setup link works.
const VALID_US: i64 = 24 * 3600 * 1_000_000;

/// The setup page.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/setup", Access::Public, show),
        Route::post("/setup", Access::Public, create),
    ]
}

/// Whether there is no account yet.
///
/// # Errors
/// The database cannot be read.
pub async fn is_needed(db: &Db) -> Result<bool> {
    let row = query("SELECT COUNT(*) AS n FROM users")
        .fetch_one(db.read())
        .await?;
    Ok(row.try_get::<i64, _>("n")? == 0)
}

/// Makes the one-time link; earlier ones stop working.
///
/// # Errors
/// The database cannot be written.
pub async fn make_link(app: &App) -> anyhow::Result<Secret<String>> {
    let token = Token::make(app.random.as_ref(), "");
    let now = app.clock.now_us();
    let mut tx = app.db.begin_write().await?;
    query("DELETE FROM setup_links WHERE purpose = 'setup'")
        .execute(tx.conn())
        .await?;
    query("INSERT INTO setup_links (token_hash, purpose, created_by, created_at, expires_at) VALUES ($1, 'setup', $2, $3, $4)")
        .bind(hex(&token.hash))
        .bind(Actor::System.to_string())
        .bind(now)
        .bind(now + VALID_US)
        .execute(tx.conn())
        .await?;
    db::audit::Line::of_installation(Actor::System, "setup.link", "setup")
        .write(&mut tx)
        .await?;
    tx.commit().await?;
    Ok(Secret::new(format!(
        "{}/setup?token={}",
        app.config.public_url(),
        token.secret.expose()
    )))
}

/// The page for people who come without a good link.
///
/// # Errors
/// The template is broken.
pub async fn explain(page: &PageContext) -> Result<Response> {
    page.render("setup/used.html", json!({"has_admin": false}))
        .await
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    token: String,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    Query(link): Query<Link>,
) -> Result<Response> {
    if !is_needed(&app.db).await? {
        return page
            .render_with_status(
                StatusCode::GONE,
                "setup/used.html",
                json!({"has_admin": true}),
            )
            .await;
    }
    if !is_valid(&app, &link.token).await? {
        return page
            .render_with_status(
                StatusCode::FORBIDDEN,
                "setup/used.html",
                json!({"has_admin": false}),
            )
            .await;
    }
    let view = json!({"token": link.token, "errors": {}, "values": {"name": "", "email": ""}});
    page.render("setup/setup.html", view).await
}

async fn is_valid(app: &App, token: &str) -> Result<bool> {
    let row = query("SELECT expires_at FROM setup_links WHERE token_hash = $1 AND purpose = 'setup' AND used_at IS NULL")
        .bind(hex(&auth::hash_token(token)))
        .fetch_optional(app.db.read())
        .await?;
    match row {
        Some(row) => Ok(row.try_get::<i64, _>("expires_at")? > app.clock.now_us()),
        None => Ok(false),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Administrator {
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

async fn create(
    State(app): State<App>,
    page: PageContext,
    headers: HeaderMap,
    Form(form): Form<Administrator>,
) -> Result<Response> {
    if !is_valid(&app, &form.token).await? {
        let view = json!({"has_admin": !is_needed(&app.db).await?});
        return page
            .render_with_status(StatusCode::FORBIDDEN, "setup/used.html", view)
            .await;
    }
    let account = NewAccount {
        name: form.name.clone(),
        email: form.email.clone(),
        password: form.password,
    };
    let user = match create_first(&app, &form.token, account).await {
        Ok(user) => user,
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let errors = form_errors(&page, &error);
            let view = json!({"token": form.token, "errors": errors, "values": {"name": form.name, "email": form.email}});
            return page
                .render_with_status(StatusCode::UNPROCESSABLE_ENTITY, "setup/setup.html", view)
                .await;
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

/// An error as a form shows it: at its field, or above the form.
pub(crate) fn form_errors(page: &PageContext, error: &AppError) -> serde_json::Value {
    let field = error.at.as_deref().unwrap_or("form");
    let key = format!("form-error-{}", error.code.replace('_', "-"));
    let text = page.t(&key);
    json!({field: if text == key { error.message.clone() } else { text }})
}

/// What a person says when an account is made.
pub(crate) struct NewAccount {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) password: String,
}

/// Checks the fields and inserts the account in this transaction.
///
/// # Errors
/// A field is wrong (`at` names it), or the address has an account already.
pub(crate) async fn insert_user(
    tx: &mut db::WriteTx,
    account: &CheckedAccount,
    now: i64,
) -> Result<UserId> {
    let user: UserId = tx.db().ids().make();
    let inserted = query("INSERT INTO users (id, email, name, password_hash, created_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (email) DO NOTHING")
        .bind(user.to_string())
        .bind(&account.email)
        .bind(&account.name)
        .bind(&account.password_hash)
        .bind(now)
        .execute(tx.conn())
        .await?;
    if inserted.rows_affected() == 0 {
        return Err(AppError::invalid("this address has an account already")
            .code("email_taken")
            .at("email"));
    }
    Ok(user)
}

/// An account whose fields are good, with its password hashed.
pub(crate) struct CheckedAccount {
    pub(crate) name: String,
    pub(crate) email: String,
    password_hash: String,
}

impl NewAccount {
    /// Checks the fields and hashes the password.
    ///
    /// # Errors
    /// `at` names the wrong field.
    pub(crate) async fn check(self) -> Result<CheckedAccount> {
        let name = self.name.trim().to_owned();
        if name.is_empty()
            || name.chars().count() > 100
            || name.chars().any(base::text::is_deceptive)
        {
            return Err(AppError::invalid("a name has 1 to 100 characters")
                .code("bad_name")
                .at("name"));
        }
        let email = check_email(&self.email)?;
        let password_hash = auth::hash_password(self.password).await?;
        Ok(CheckedAccount {
            name,
            email,
            password_hash,
        })
    }
}

/// The address in the one form that is kept: trimmed and lower case.
pub(crate) fn check_email(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let (local, domain) = email.split_once('@').unwrap_or_default();
    let good = !local.is_empty()
        && domain.contains('.') | (domain == "localhost")
        && email.len() <= 254
        && !email.contains(char::is_whitespace)
        && !email.chars().any(base::text::is_deceptive);
    if good {
        Ok(email)
    } else {
        Err(AppError::invalid("this is not an e-mail address")
            .code("bad_email")
            .at("email"))
    }
}

async fn create_first(app: &App, token: &str, account: NewAccount) -> Result<UserId> {
    let account = account.check().await?;
    let now = app.clock.now_us();
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    // The link is used up in the same transaction that makes the account: two people with one
    // link cannot both become administrators.
    let used = query("UPDATE setup_links SET used_at = $2 WHERE token_hash = $1 AND purpose = 'setup' AND used_at IS NULL AND expires_at > $2")
        .bind(hex(&auth::hash_token(token)))
        .bind(now)
        .execute(tx.conn())
        .await?;
    if used.rows_affected() == 0 {
        return Err(AppError::forbidden("this setup link was used already").code("link_used"));
    }
    let user = insert_user(&mut tx, &account, now).await?;
    let projects = query("SELECT id FROM projects")
        .fetch_all(tx.conn())
        .await
        .map_err(DbError::from)?;
    for project in &projects {
        let project: base::ProjectId = db::rows::parsed(project, "id")?;
        crate::members::insert(&mut tx, project, user, Role::Admin, now).await?;
    }
    db::audit::write(
        &mut tx,
        None,
        Actor::User(user),
        "setup.complete",
        &user.to_string(),
        &json!({}),
    )
    .await?;
    tx.commit().await?;
    Ok(user)
}
