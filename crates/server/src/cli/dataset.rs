//! `meguri dataset list|show|import|export`: datasets on the data directory, with or
//! without a running server.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use db::catalog::NameFilter;
use db::{Catalog, PageRequest, Scope};
use serde_json::json;

use super::{Place, message, print_json, print_table};
use crate::app::{open_catalog, open_database};
use crate::catalog::parse_selector;
use crate::datasets::{
    self, Datasets, ExampleFilter, ExportFormat, Found, ImportFile, ImportOptions, Mode,
    SplitFilter, parse_name,
};
use crate::keys::operator_scope;

#[derive(Subcommand)]
pub(super) enum Dataset {
    /// List datasets.
    List(List),
    /// Show a dataset: its versions' newest, splits and first examples.
    Show(Show),
    /// Import files into a dataset, all rows or none; it is made if there is none.
    Import(Import),
    /// Write a dataset's examples to stdout or a file.
    Export(Export),
}

#[derive(Args)]
struct Where {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    at: Where,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    at: Where,
    /// The dataset.
    name: String,
    /// A number, `latest`, a label or a digest.
    #[arg(long, default_value = "latest")]
    version: String,
    /// Only examples of this split; `~none` for those in none.
    #[arg(long)]
    split: Option<String>,
    /// How many examples to show.
    #[arg(long, default_value_t = 10)]
    examples: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Import {
    #[command(flatten)]
    at: Where,
    /// The dataset.
    name: String,
    /// CSV, TSV, JSON, JSONL and YAML files, or archives of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Take them for this: csv, tsv, jsonl, json, promptfoo or promptfoo_csv.
    #[arg(long)]
    format: Option<String>,
    /// Their encoding, such as shift_jis.
    #[arg(long)]
    encoding: Option<String>,
    /// COLUMN=FIELD: what a column becomes, such as question=input or topic=metadata.topic.
    #[arg(long)]
    map: Vec<String>,
    /// The split of rows that name none.
    #[arg(long)]
    split: Option<String>,
    /// Replace the examples that are there.
    #[arg(long)]
    replace: bool,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    message: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Export {
    #[command(flatten)]
    at: Where,
    /// The dataset.
    name: String,
    /// csv, jsonl or openai_chat.
    #[arg(long, default_value = "jsonl")]
    format: String,
    /// A number, `latest`, a label or a digest.
    #[arg(long, default_value = "latest")]
    version: String,
    /// Only examples of this split; `~none` for those in none.
    #[arg(long)]
    split: Option<String>,
    /// Where to write; `-` is stdout.
    #[arg(long, default_value = "-")]
    out: PathBuf,
}

impl Dataset {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(args) => list(args).await,
            Self::Show(args) => show(args).await,
            Self::Import(args) => import(args).await,
            Self::Export(args) => export(args).await,
        }
    }
}

struct Opened {
    db: db::Db,
    catalog: Catalog,
    datasets: Datasets,
    scope: Scope,
    scratch: PathBuf,
}

impl Where {
    async fn open(&self) -> anyhow::Result<Opened> {
        let config = self.place.load(None)?;
        let db = open_database(&config).await?;
        let catalog = open_catalog(&config, &db)?;
        let scope = operator_scope(&db, &self.project).await?;
        Ok(Opened {
            datasets: Datasets::new(db.clone(), catalog.clone()),
            catalog,
            scope,
            db,
            scratch: config.data_dir.join("uploads"),
        })
    }
}

impl Opened {
    async fn find(&self, name: &str, version: &str) -> anyhow::Result<Found> {
        let found = self
            .datasets
            .version(self.scope, &parse_name(name)?, &parse_selector(version)?)
            .await?;
        Ok(found)
    }
}

async fn list(args: List) -> anyhow::Result<()> {
    let opened = args.at.open().await?;
    let (mut rows, mut page) = (
        Vec::new(),
        PageRequest {
            cursor: None,
            limit: 200,
        },
    );
    loop {
        let names = opened
            .catalog
            .list_names(opened.scope, datasets::KIND, &NameFilter::default(), &page)
            .await?;
        for listed in names.items {
            rows.push(
                opened
                    .datasets
                    .latest(opened.scope, &listed.latest.name)
                    .await?,
            );
        }
        match names.next {
            Some(next) => page.cursor = Some(next),
            None => break,
        }
    }
    opened.db.close().await;
    if args.json {
        let row = |found: &Found| {
            json!({
                "name": found.version.name, "version": found.version.number, "count": found.document.count,
                "splits": found.document.splits, "description": found.document.description,
            })
        };
        return print_json(&rows.iter().map(row).collect::<Vec<_>>());
    }
    let row = |found: &Found| {
        vec![
            found.version.name.as_str().to_owned(),
            found.version.number.to_string(),
            found.document.count.to_string(),
            splits(found),
            found.document.description.clone(),
        ]
    };
    print_table(
        &["NAME", "VERSION", "EXAMPLES", "SPLITS", "DESCRIPTION"],
        rows.iter().map(row).collect(),
    )
}

fn splits(found: &Found) -> String {
    let splits = found
        .document
        .splits
        .iter()
        .map(|(split, count)| format!("{split} {count}"));
    splits.collect::<Vec<_>>().join(", ")
}

fn filter(split: Option<&str>) -> ExampleFilter {
    ExampleFilter {
        split: split.map(SplitFilter::parse),
        ..ExampleFilter::default()
    }
}

async fn show(args: Show) -> anyhow::Result<()> {
    let opened = args.at.open().await?;
    let found = opened.find(&args.name, &args.version).await?;
    let page = match args.examples {
        0 => Vec::new(),
        limit => {
            opened
                .datasets
                .page(
                    opened.scope,
                    &found,
                    &filter(args.split.as_deref()),
                    0,
                    limit,
                )
                .await?
                .items
        }
    };
    opened.db.close().await;
    let (version, document) = (&found.version, &found.document);
    if args.json {
        return print_json(&json!({
            "name": version.name, "version": version.number, "digest": version.digest, "description": document.description,
            "fields": document.fields, "labels": document.labels, "count": document.count, "splits": document.splits, "examples": page,
        }));
    }
    message(&format!(
        "{} version {}: {} examples{}{}",
        version.name.as_str(),
        version.number,
        document.count,
        if document.splits.is_empty() { "" } else { "; " },
        splits(&found)
    ));
    let short = |value: &serde_json::Value| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        base::text::preview(&text.split_whitespace().collect::<Vec<_>>().join(" "), 60)
    };
    let row = |located: &datasets::Located| {
        let example = &located.example;
        vec![
            example.id.clone(),
            example.split.clone().unwrap_or_default(),
            short(&example.input),
            example.expected.as_ref().map(short).unwrap_or_default(),
        ]
    };
    print_table(
        &["ID", "SPLIT", "INPUT", "EXPECTED"],
        page.iter().map(row).collect(),
    )
}

async fn import(args: Import) -> anyhow::Result<()> {
    let word = |text: &String| {
        serde_json::from_value(json!(text)).with_context(|| format!("{text:?} is no format"))
    };
    let pair = |text: &String| {
        let (column, field) = text
            .split_once('=')
            .with_context(|| format!("write COLUMN=FIELD, not {text:?}"))?;
        Ok((column.to_owned(), field.to_owned()))
    };
    let options = ImportOptions {
        format: args.format.as_ref().map(word).transpose()?,
        encoding: args.encoding,
        mapping: args.map.iter().map(pair).collect::<anyhow::Result<_>>()?,
        split: args.split,
        mode: if args.replace {
            Mode::Replace
        } else {
            Mode::Append
        },
        message: args.message,
    };
    let file = |path: &PathBuf| ImportFile {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        path: path.clone(),
    };
    let files = args.files.iter().map(file).collect();
    let opened = args.at.open().await?;
    let imported = opened
        .datasets
        .import(
            opened.scope,
            &parse_name(&args.name)?,
            files,
            options,
            opened.scratch.clone(),
        )
        .await;
    opened.db.close().await;
    let saved = imported?;
    if args.json {
        return print_json(&saved);
    }
    message(&format!(
        "{} examples imported; {} version {} has {}",
        saved.added, saved.name, saved.version, saved.count
    ));
    Ok(())
}

async fn export(args: Export) -> anyhow::Result<()> {
    let format: ExportFormat = serde_json::from_value(json!(args.format))
        .with_context(|| format!("{:?} is no format", args.format))?;
    let opened = args.at.open().await?;
    let found = opened.find(&args.name, &args.version).await?;
    let mut out: Box<dyn std::io::Write> = match args.out.as_os_str() == "-" {
        true => Box::new(std::io::stdout().lock()),
        false => Box::new(
            std::fs::File::create(&args.out)
                .with_context(|| format!("creating {}", args.out.display()))?,
        ),
    };
    let filter = filter(args.split.as_deref());
    let mut count = 0;
    out.write_all(format.header(false).as_bytes())?;
    let mut reading = opened.datasets.reading(opened.scope, &found)?;
    while let Some(examples) = reading.next().await? {
        for example in examples.iter().filter(|example| filter.takes(example)) {
            let line = format.line(example);
            count += usize::from(!line.is_empty());
            out.write_all(line.as_bytes())?;
        }
    }
    out.flush()?;
    opened.db.close().await;
    message(&format!(
        "{count} examples of {} version {}",
        found.version.name.as_str(),
        found.version.number
    ));
    Ok(())
}
