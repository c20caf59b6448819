//! `meguri audit verify|list|export`.

use std::io::Write as _;

use base::ProjectId;
use clap::{Args, Subcommand};
use db::audit::{Filter, Head};
use db::{Db, PageRequest};

use super::{Place, print_json, print_line, print_table};
use crate::app::open_database;
use crate::audit::{Entry, Verification};
use crate::traces::time::{format_rfc3339, parse_time};

#[derive(Subcommand)]
pub(super) enum Audit {
    /// Walk the chains of hashes and say where one is broken.
    Verify(Verify),
    /// List lines, newest first.
    List(List),
    /// Print lines as JSONL, oldest first.
    Export(Export),
}

/// Which chain.
#[derive(Args)]
struct Chain {
    /// The project; without it, the default one.
    #[arg(long)]
    project: Option<String>,
    /// What concerns the whole installation: accounts, sign-ins, models.
    #[arg(long, conflicts_with = "project")]
    installation: bool,
}

/// Which lines; a `*` at the end of a text matches beginnings.
#[derive(Args)]
struct Lines {
    /// Only by this actor: user:ID, key:ID, operator, system.
    #[arg(long, default_value = "")]
    actor: String,
    /// Only this action: prompt.move, prompt.*
    #[arg(long, default_value = "")]
    action: String,
    /// Only on this object: a name or id.
    #[arg(long, default_value = "")]
    object: String,
    /// Not before: a time (2026-01-31T10:00:00Z) or how long ago (24h).
    #[arg(long)]
    from: Option<String>,
    /// Before.
    #[arg(long)]
    to: Option<String>,
}

#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chain: Chain,
    /// An end that you kept, SEQ:HASH: the chain must still go through it.
    #[arg(long)]
    head: Option<Head>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chain: Chain,
    #[command(flatten)]
    lines: Lines,
    /// How many lines, at most 200.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chain: Chain,
    #[command(flatten)]
    lines: Lines,
}

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify(args) => verify(args).await,
            Self::List(args) => list(args).await,
            Self::Export(args) => export(args).await,
        }
    }
}

impl Chain {
    /// Its name for people, and the project; `None` is the installation.
    async fn find(&self, db: &Db) -> anyhow::Result<(String, Option<ProjectId>)> {
        if self.installation {
            return Ok(("(installation)".to_owned(), None));
        }
        let name = self.project.as_deref().unwrap_or("default");
        let project = crate::projects::by_name(db, name).await?;
        Ok((project.name, Some(project.id)))
    }

    /// The one that was asked for, else all.
    async fn chosen(&self, db: &Db) -> anyhow::Result<Vec<(String, Option<ProjectId>)>> {
        if self.installation || self.project.is_some() {
            return Ok(vec![self.find(db).await?]);
        }
        let mut all = vec![("(installation)".to_owned(), None)];
        for project in crate::projects::list(db).await? {
            all.push((project.name, Some(project.id)));
        }
        Ok(all)
    }
}

impl Lines {
    fn filter(&self, now_us: i64) -> anyhow::Result<Filter> {
        let time = |text: &Option<String>| {
            let parsed = text.as_deref().map(|text| parse_time(text, now_us));
            parsed
                .transpose()
                .map_err(|problem| anyhow::anyhow!(problem))
        };
        Ok(Filter {
            actor: self.actor.clone(),
            action: self.action.clone(),
            object: self.object.clone(),
            from: time(&self.from)?,
            to: time(&self.to)?,
        })
    }
}

async fn verify(args: Verify) -> anyhow::Result<()> {
    let one = args.chain.installation || args.chain.project.is_some();
    anyhow::ensure!(
        one || args.head.is_none(),
        "a head belongs to one chain: name it with --project or --installation"
    );
    let db = open_database(&args.place.load(None)?).await?;
    let mut found = Vec::new();
    for (name, project) in args.chain.chosen(&db).await? {
        let verified = db::audit::verify(&db, project, args.head.as_ref()).await?;
        found.push((name, Verification::from(verified)));
    }
    db.close().await;
    let broken = found.iter().filter(|(_, found)| !found.ok).count();
    if args.json {
        let item = |(name, found): &(String, Verification)| {
            let mut value = serde_json::to_value(found).unwrap_or_default();
            value["chain"] = name.as_str().into();
            value
        };
        let items: Vec<_> = found.iter().map(item).collect();
        print_json(&serde_json::json!({"ok": broken == 0, "items": items}))?;
    } else {
        for (name, found) in &found {
            print_line(&in_words(name, found))?;
        }
    }
    anyhow::ensure!(broken == 0, "the audit log is broken");
    Ok(())
}

fn in_words(name: &str, found: &Verification) -> String {
    match (&found.head, &found.why) {
        (Some(head), _) => format!("{name}: {} lines, head {head}", found.rows),
        (None, why) => format!(
            "{name}: broken at line {}: {}",
            found.broken_at.unwrap_or_default(),
            why.as_deref().unwrap_or_default()
        ),
    }
}

async fn list(args: List) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let (_, project) = args.chain.find(&db).await?;
    let filter = args.lines.filter(db.now_us())?;
    let page = PageRequest {
        cursor: None,
        limit: args.limit,
    };
    let page = db::audit::list(&db, project, &filter, &page).await?;
    db.close().await;
    let entries: Vec<Entry> = page.items.into_iter().map(Entry::from).collect();
    if args.json {
        return print_json(&serde_json::json!({"items": entries}));
    }
    let rows = entries.into_iter().map(|entry| {
        vec![
            entry.seq.to_string(),
            format_rfc3339(entry.at),
            entry.actor,
            entry.action,
            entry.object,
            entry.reason,
        ]
    });
    print_table(
        &["SEQ", "TIME", "ACTOR", "ACTION", "OBJECT", "REASON"],
        rows.collect(),
    )
}

async fn export(args: Export) -> anyhow::Result<()> {
    let db = open_database(&args.place.load(None)?).await?;
    let (_, project) = args.chain.find(&db).await?;
    let filter = args.lines.filter(db.now_us())?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let mut seq = 0;
    loop {
        let entries = db::audit::after(&db, project, &filter, seq).await?;
        let Some(last) = entries.last() else {
            break;
        };
        seq = last.seq;
        for entry in entries {
            serde_json::to_writer(&mut stdout, &Entry::from(entry))?;
            stdout.write_all(b"\n")?;
        }
    }
    stdout.flush()?;
    db.close().await;
    Ok(())
}
