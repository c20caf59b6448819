//! `meguri key create|list|revoke`.

use base::SystemRandom;
use clap::{Args, Subcommand};

use super::{Place, message, print_json, print_line, print_table};
use crate::app::open_database;
use crate::auth::Role;
use crate::keys::{self, Created, NewKey};
use crate::traces::time::format_rfc3339;

#[derive(Subcommand)]
pub(super) enum Key {
    /// Create a key; its secret is printed once.
    Create(Create),
    /// List keys, without secrets.
    List(List),
    /// Revoke a key.
    Revoke(Revoke),
}

#[derive(Args)]
pub(super) struct Create {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The environment that the key is bound to.
    #[arg(long, default_value = "dev")]
    env: String,
    /// What to call it.
    #[arg(long)]
    name: String,
    /// What it may do: admin, editor, product_owner, auditor, viewer, labeller or caller.
    #[arg(long, default_value = "caller")]
    role: Role,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The key's id.
    id: String,
}

impl Key {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create(args) => create(args).await,
            Self::List(args) => list(args).await,
            Self::Revoke(args) => revoke(args).await,
        }
    }
}

async fn create(args: Create) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let scope = keys::operator_scope(&db, &args.project).await?;
    let new = NewKey {
        name: args.name,
        environment: args.env,
        role: args.role,
        expires_at: None,
    };
    let (key, secret) = keys::create_key(&db, &SystemRandom, scope, new).await?;
    db.close().await;
    if args.json {
        let id = key.id.clone();
        return print_json(&Created {
            id,
            secret: secret.expose().clone(),
            key,
        });
    }
    message("this secret is not shown again:");
    print_line(secret.expose())
}

async fn list(args: List) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let scope = keys::operator_scope(&db, &args.project).await?;
    let keys = keys::list_keys(&db, scope).await?;
    db.close().await;
    if args.json {
        return print_json(&serde_json::json!({"items": keys}));
    }
    let time = |at: Option<i64>| at.map(format_rfc3339).unwrap_or_default();
    let rows = keys.into_iter().map(|key| {
        let role = key.role.name().to_owned();
        let state = if key.revoked_at.is_some() {
            "revoked"
        } else {
            "good"
        };
        vec![
            key.id,
            key.name,
            key.prefix,
            key.environment,
            role,
            state.to_owned(),
            time(key.last_used_at),
        ]
    });
    print_table(
        &["ID", "NAME", "PREFIX", "ENV", "ROLE", "STATE", "LAST USED"],
        rows.collect(),
    )
}

async fn revoke(args: Revoke) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let scope = keys::operator_scope(&db, &args.project).await?;
    keys::revoke_key(&db, scope, &args.id).await?;
    db.close().await;
    message(&format!("revoked {}", args.id));
    Ok(())
}
