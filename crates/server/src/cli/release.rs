//! `meguri release cut|list|show`: releases on the data directory, with or without
//! a running server. Moving one between environments is `meguri promote`'s business.

use clap::{Args, Subcommand};
use db::catalog::Selector;
use db::{Catalog, PageRequest, Problem, Scope};
use serde_json::json;

use super::{Place, message, print_json, print_line, print_table};
use crate::app::{open_catalog, open_database};
use crate::apps::{self, RELEASE};
use crate::error::AppError;
use crate::keys::operator_scope;
use crate::traces::time::format_rfc3339;

#[derive(Subcommand)]
pub(super) enum Release {
    /// Cut a release: an app with everything it refers to, as it points now.
    Cut(Cut),
    /// List an app's releases, newest first.
    List(List),
    /// Show what a release pins.
    Show(Show),
}

#[derive(Args)]
struct Named {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
    /// The app's name.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Cut {
    #[command(flatten)]
    named: Named,
    /// The app's version: a number or `latest`.
    #[arg(long, default_value = "latest")]
    version: String,
    /// What this release brings.
    #[arg(long, short, default_value = "")]
    message: String,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    named: Named,
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    named: Named,
    /// A number, `latest`, an environment or a digest.
    #[arg(default_value = "latest")]
    release: String,
}

impl Release {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Cut(args) => cut(args).await,
            Self::List(args) => list(args).await,
            Self::Show(args) => show(args).await,
        }
    }
}

/// The catalog of a place, and who asks there.
async fn open(named: &Named) -> anyhow::Result<(db::Db, Catalog, Scope)> {
    let config = named.place.load(None)?;
    let db = open_database(&config).await?;
    let scope = operator_scope(&db, &named.project).await?;
    let catalog = open_catalog(&config, &db)?;
    Ok((db, catalog, scope))
}

fn selector(text: &str) -> Result<Selector, AppError> {
    text.parse()
        .map_err(|problem: Problem| AppError::invalid(problem.message))
}

async fn cut(args: Cut) -> anyhow::Result<()> {
    let (db, catalog, scope) = open(&args.named).await?;
    let name = apps::parse_name(&args.named.name)?;
    let version = selector(&args.version)?;
    let saved = apps::cut_release_in(&catalog, scope, &name, &version, &args.message).await?;
    db.close().await;
    if args.named.json {
        return print_json(&json!({
            "name": name.as_str(), "version": saved.version.number, "digest": saved.version.digest.to_string(),
            "already_existed": saved.already_existed,
        }));
    }
    if saved.already_existed {
        message("nothing changed since:");
    }
    print_line(&format!("{} r{}", name.as_str(), saved.version.number))
}

async fn list(args: List) -> anyhow::Result<()> {
    let (db, catalog, scope) = open(&args.named).await?;
    let name = apps::parse_name(&args.named.name)?;
    let page = PageRequest {
        cursor: None,
        limit: 200,
    };
    let releases = catalog.list_versions(scope, RELEASE, &name, &page).await?;
    let pointers = catalog.pointers(scope, RELEASE, &name).await?;
    db.close().await;
    let environments = |number: i64| -> Vec<&str> {
        let here = pointers.iter().filter(|pointer| pointer.number == number);
        here.map(|pointer| pointer.label.as_str()).collect()
    };
    if args.named.json {
        let items = releases.items.iter().map(|release| {
            json!({
                "version": release.number, "digest": release.digest.to_string(), "message": release.message,
                "created_by": release.author, "created_at": release.created_at,
                "environments": environments(release.number),
            })
        });
        return print_json(&json!({"items": items.collect::<Vec<_>>()}));
    }
    let rows = releases.items.iter().map(|release| {
        vec![
            format!("r{}", release.number),
            release.digest.short(),
            environments(release.number).join(", "),
            format_rfc3339(release.created_at),
            release.message.clone(),
        ]
    });
    print_table(
        &["RELEASE", "DIGEST", "RUNS IN", "CUT", "MESSAGE"],
        rows.collect(),
    )
}

async fn show(args: Show) -> anyhow::Result<()> {
    let (db, catalog, scope) = open(&args.named).await?;
    let name = apps::parse_name(&args.named.name)?;
    let wanted = selector(&args.release)?;
    let (version, content) = apps::find_release(&catalog, scope, &name, &wanted).await?;
    db.close().await;
    if args.named.json {
        return print_json(&json!({
            "name": name.as_str(), "version": version.number, "digest": version.digest.to_string(), "content": content,
        }));
    }
    print_line(&format!(
        "{} r{} {}",
        name.as_str(),
        version.number,
        version.digest
    ))?;
    let app = [vec![
        format!("app:{}", content.app.name),
        format!("v{}", content.app.number),
        content.app.digest.clone(),
    ]];
    let pinned = content.documents.iter().map(|(reference, pinned)| {
        vec![
            reference.clone(),
            format!("v{}", pinned.number),
            pinned.digest.clone(),
        ]
    });
    print_table(
        &["REFERENCE", "VERSION", "DIGEST"],
        app.into_iter().chain(pinned).collect(),
    )
}
