//! `meguri provider add|list|test|rm`. The operator may name private addresses.

use base::{Secret, SystemRandom};
use clap::{Args, Subcommand};
use gateway::{Egress, EgressConfig};

use super::{Place, message, print_json, print_table};
use crate::app::open_database;
use crate::keys::operator_scope;
use crate::providers::{self, Credential, NewProvider, Wire};
use crate::secrets::Secrets;

#[derive(Subcommand)]
pub(super) enum Provider {
    /// Add a provider; its models are called as NAME/model.
    Add(Add),
    /// List providers, without credentials.
    List(List),
    /// Ask a provider for its models.
    Test(Named),
    /// Remove a provider.
    Rm(Named),
}

#[derive(Args)]
pub(super) struct Add {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The name before the slash in NAME/model.
    name: String,
    /// What it speaks.
    #[arg(long)]
    protocol: Wire,
    /// Where it is, the version path included for OpenAI.
    #[arg(long)]
    base_url: String,
    /// The server's environment variable that holds the credential.
    #[arg(long, conflicts_with = "api_key_file")]
    api_key_env: Option<String>,
    /// A file whose content is the credential, read now and kept encrypted; - is stdin.
    #[arg(long)]
    api_key_file: Option<String>,
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
pub(super) struct Named {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The provider's name.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Provider {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add(args) => add(args).await,
            Self::List(args) => list(args).await,
            Self::Test(args) => test(args).await,
            Self::Rm(args) => remove(args).await,
        }
    }
}

async fn add(args: Add) -> anyhow::Result<()> {
    let config = args.place.load(None)?;
    let db = open_database(&config).await?;
    let scope = operator_scope(&db, &args.project).await?;
    let secrets = Secrets::open(&config.data_dir, &SystemRandom)?;
    let credential = match (args.api_key_env, args.api_key_file.as_deref()) {
        (Some(variable), _) => Credential::Env(variable),
        (None, Some(path)) => Credential::Given(read_secret(path)?),
        (None, None) => Credential::None,
    };
    let new = NewProvider {
        name: args.name,
        protocol: args.protocol,
        base_url: args.base_url,
        credential,
        may_be_private: true,
    };
    let saved = providers::save_provider(&db, &secrets, &SystemRandom, scope, None, new).await?;
    db.close().await;
    if args.json {
        return print_json(&saved);
    }
    message(&format!(
        "added; its models are called as {}/MODEL",
        saved.name
    ));
    Ok(())
}

pub(super) fn read_secret(path: &str) -> anyhow::Result<Secret<String>> {
    let text = if path == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(path)?
    };
    Ok(Secret::new(text.trim().to_owned()))
}

async fn list(args: List) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let scope = operator_scope(&db, &args.project).await?;
    let items = providers::list_providers(&db, scope).await?;
    db.close().await;
    if args.json {
        return print_json(&serde_json::json!({"items": items}));
    }
    let rows = items.into_iter().map(|provider| {
        let credential = format!("{} {}", provider.credential, provider.credential_ref);
        vec![
            provider.name,
            provider.base_url,
            credential.trim().to_owned(),
            provider.state,
            provider.models.len().to_string(),
        ]
    });
    print_table(
        &["NAME", "BASE URL", "CREDENTIAL", "STATE", "MODELS"],
        rows.collect(),
    )
}

async fn test(args: Named) -> anyhow::Result<()> {
    let config = args.place.load(None)?;
    let db = open_database(&config).await?;
    let scope = operator_scope(&db, &args.project).await?;
    let secrets = Secrets::open(&config.data_dir, &SystemRandom)?;
    let egress = Egress::new(EgressConfig::default());
    let tested = providers::test_provider(&db, &secrets, &egress, scope, &args.name).await?;
    db.close().await;
    if args.json {
        print_json(&tested)?;
    }
    if tested.state != "ok" {
        anyhow::bail!(
            "{} did not answer as it should: {}",
            tested.name,
            tested.state_text
        );
    }
    message(&format!(
        "{} answers and lists {} models",
        tested.name,
        tested.models.len()
    ));
    Ok(())
}

async fn remove(args: Named) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let scope = operator_scope(&db, &args.project).await?;
    providers::remove_provider(&db, scope, &args.name).await?;
    db.close().await;
    message(&format!("removed {}", args.name));
    Ok(())
}
