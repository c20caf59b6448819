//! `meguri traces list|show|tail`: traces on the data directory, with or
//! without a running server.
//!
//! The commands only read, and everything that models or users wrote is made
//! harmless for a terminal before it is printed. `--json` gives what the API
//! gives; `tail` polls, because the one writer may be another process.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base::text::{is_deceptive, preview, reveal};
use base::{Clock as _, Cursor, ProjectId, SystemClock, TraceId};
use clap::{Args, Subcommand};
use serde::Serialize;
use telemetry::{Bodies, BodyContent, Reader, StoredSpan, Telemetry, Trace, TraceRow};

use super::{Place, message, print_table};
use crate::error::AppError;
use crate::traces::time::format_rfc3339;
use crate::traces::{AskText, ListOf, SpanJson, TraceRowJson, trace_json};

/// How often `tail` looks.
const POLL: Duration = Duration::from_millis(300);
/// How far back `tail` looks for calls that began earlier and end now.
const TAIL_WINDOW_US: i64 = 2 * 3600 * 1_000_000;

#[derive(Subcommand)]
pub(super) enum Traces {
    /// List traces, newest first.
    List(List),
    /// Show one trace: spans, messages, scores.
    Show(Show),
    /// Print traces as they are recorded.
    Tail(Tail),
}

/// Which data, of which project.
#[derive(Args)]
struct Source {
    #[command(flatten)]
    place: Place,
    /// The project.
    #[arg(long, default_value = "default")]
    project: String,
}

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    source: Source,
    /// Earliest start: RFC 3339, microseconds, or how long ago (-1h).
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    from: Option<String>,
    /// Latest start, exclusive.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    to: Option<String>,
    /// A filter, for example 'status = "error" and latency_ms > 800'.
    #[arg(long)]
    filter: Option<String>,
    /// Words that must all occur in the messages.
    #[arg(long)]
    q: Option<String>,
    /// Rows, at most 1000.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// The cursor that the page before ended with.
    #[arg(long)]
    cursor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Show {
    #[command(flatten)]
    source: Source,
    /// The trace id.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Tail {
    #[command(flatten)]
    source: Source,
    /// A filter.
    #[arg(long)]
    filter: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Traces {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let done = match self {
            Self::List(args) => list(args).await,
            Self::Show(args) => show(args).await,
            Self::Tail(args) => tail(args).await,
        };
        match done {
            // `meguri traces list | head` is not a failure.
            Err(error)
                if error
                    .downcast_ref::<io::Error>()
                    .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

async fn open(source: &Source) -> anyhow::Result<(Reader, ProjectId)> {
    let config = source.place.load(None)?;
    if !config.data_dir.is_dir() {
        bail!(
            "there is no data directory {}; meguri serve makes one",
            config.data_dir.display()
        );
    }
    let db = crate::app::open_database(&config).await?;
    let project = crate::projects::by_name(&db, &source.project).await;
    db.close().await;
    let directory = crate::traces::directory(&config);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    Ok((Telemetry::open_reader(&directory)?, project?.id))
}

async fn list(args: List) -> anyhow::Result<()> {
    let text = AskText {
        from: args.from,
        to: args.to,
        filter: args.filter,
        q: args.q,
        scope: None,
    };
    let ask = text.parse(SystemClock.now_us())?;
    let (reader, project) = open(&args.source).await?;
    let query = ask.list(
        project,
        args.limit.clamp(1, telemetry::limits::PAGE_ROWS),
        args.cursor.map(Cursor::from_client),
    );
    let page = reader.list(&query)?;
    if args.json {
        let items = page.rows.iter().map(TraceRowJson::of).collect();
        let next_cursor = page.next.as_ref().map(|cursor| cursor.as_str().to_owned());
        print_json(&ListOf { items, next_cursor }, true)?;
    } else {
        let header = [
            "TIME", "TRACE", "STATUS", "MODEL", "LATENCY", "TOKENS", "COST", "SCORES", "INPUT",
        ];
        print_table(&header, page.rows.iter().map(table_row).collect())?;
        if let Some(next) = &page.next {
            message(&format!("more: --cursor {}", next.as_str()));
        }
    }
    Ok(())
}

fn table_row(row: &TraceRow) -> Vec<String> {
    let mut cells = cells(&row.stored);
    let scores: Vec<String> = row.scores.iter().map(score_text).collect();
    cells.insert(7, line(&scores.join(" "), 30));
    cells
}

fn cells(stored: &StoredSpan) -> Vec<String> {
    let span = &stored.span;
    let status = span.error_type.as_deref().unwrap_or(span.status.as_str());
    vec![
        format_rfc3339(span.start_us),
        span.trace_id.to_string(),
        line(status, 24),
        line(span.request_model.as_deref().unwrap_or("-"), 40),
        format!("{} ms", span.latency_us() / 1000),
        format!("{}+{}", span.usage.input, span.usage.output),
        span.cost
            .map_or_else(|| "-".to_owned(), |cost| cost.to_string()),
        line(&stored.input_preview, 60),
    ]
}

/// One line of somebody's text.
fn line(text: &str, graphemes: usize) -> String {
    let flat: String = text
        .chars()
        .map(|c| {
            if matches!(c, '\n' | '\t' | '\r') {
                ' '
            } else {
                c
            }
        })
        .collect();
    reveal(&preview(&flat, graphemes))
}

fn score_text(score: &telemetry::Score) -> String {
    let value = match (&score.label, score.value) {
        (Some(label), _) => label.clone(),
        (None, Some(value)) => value.to_string(),
        (None, None) => String::new(),
    };
    format!("{}={value}", score.name)
}

async fn show(args: Show) -> anyhow::Result<()> {
    let (reader, project) = open(&args.source).await?;
    let id = args.id.parse::<TraceId>().ok();
    let trace = id
        .map(|id| reader.trace(project, id))
        .transpose()?
        .flatten();
    let Some(trace) = trace else {
        return Err(AppError::not_found(format!(
            "there is no trace {:?} in project {:?}",
            args.id, args.source.project
        ))
        .into());
    };
    if args.json {
        print_json(&trace_json(&reader, project, &trace, true)?, true)?;
    } else {
        print_trace(&reader, project, &trace)?;
    }
    Ok(())
}

fn print_trace(reader: &Reader, project: ProjectId, trace: &Trace) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for stored in &trace.spans {
        let span = &stored.span;
        writeln!(
            out,
            "{} {} {}",
            format_rfc3339(span.start_us),
            span.kind,
            line(&span.name, 100)
        )?;
        let facts = [
            ("trace", Some(span.trace_id.to_string())),
            ("span", Some(span.span_id.to_string())),
            ("status", Some(span.status.to_string())),
            ("error", span.error_message.clone()),
            ("provider", span.provider.clone()),
            ("model", span.response_model.clone()),
            (
                "prompt",
                span.prompt.as_ref().map(|prompt| {
                    format!("{} v{}", prompt.name, prompt.version.unwrap_or_default())
                }),
            ),
            ("session", span.session_id.clone()),
            ("user", span.user_ref.clone()),
            ("latency", Some(format!("{} ms", span.latency_us() / 1000))),
            (
                "first token",
                span.ttft_us.map(|us| format!("{} ms", us / 1000)),
            ),
            (
                "tokens",
                Some(format!(
                    "{} in, {} out",
                    span.usage.input, span.usage.output
                )),
            ),
            ("cost", span.cost.map(|cost| cost.to_string())),
        ];
        for (name, value) in facts {
            if let Some(value) = value {
                writeln!(out, "  {name:<12} {}", line(&value, 500))?;
            }
        }
        let bodies = reader
            .span_bodies(project, span.trace_id, span.span_id, Some(64 << 10))?
            .unwrap_or_default();
        print_messages(&mut out, &bodies)?;
    }
    for score in &trace.scores {
        let comment = score
            .comment
            .as_deref()
            .map(|comment| format!(" — {}", line(comment, 200)))
            .unwrap_or_default();
        writeln!(
            out,
            "score {} ({}){comment}",
            line(&score_text(score), 100),
            score.source
        )?;
    }
    Ok(())
}

fn print_messages(out: &mut impl Write, bodies: &Bodies) -> io::Result<()> {
    for (title, list) in [("input", &bodies.input), ("output", &bodies.output)] {
        for body in list {
            let (role, text) = match &body.content {
                BodyContent::Whole(value) => readable(value),
                BodyContent::Cut(text) => {
                    (String::new(), format!("{text}… ({} bytes)", body.bytes))
                }
                BodyContent::Gone => (String::new(), "(removed)".to_owned()),
            };
            writeln!(out, "  {title} {}", line(&role, 40))?;
            for row in reveal(&text).lines() {
                writeln!(out, "    {row}")?;
            }
        }
    }
    Ok(())
}

/// Role and text of a message; what is not a plain one stays JSON.
fn readable(value: &serde_json::Value) -> (String, String) {
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str);
    let plain = text("content")
        .filter(|_| value.get("tool_calls").is_none())
        .or(value.as_str());
    let role = text("role").unwrap_or_default().to_owned();
    (role, plain.map_or_else(|| value.to_string(), str::to_owned))
}

async fn tail(args: Tail) -> anyhow::Result<()> {
    let ask = AskText {
        filter: args.filter,
        ..AskText::default()
    }
    .parse(SystemClock.now_us())?;
    let (reader, project) = open(&args.source).await?;
    let mut known: HashSet<(TraceId, base::SpanId)> = HashSet::new();
    let mut first = true;
    message("waiting for traces; Ctrl-C ends");
    loop {
        // A call is recorded when it ends, so what is new is not always what began last.
        let mut query = ask.list(project, telemetry::limits::PAGE_ROWS, None);
        query.from_us = Some(SystemClock.now_us() - TAIL_WINDOW_US);
        let rows = reader.list(&query)?.rows;
        let seen: HashSet<_> = rows
            .iter()
            .map(|row| (row.stored.span.trace_id, row.stored.span.span_id))
            .collect();
        for row in rows.iter().rev() {
            let id = (row.stored.span.trace_id, row.stored.span.span_id);
            if !first && !known.contains(&id) {
                print_row(row, args.json)?;
            }
        }
        known = seen;
        first = false;
        tokio::time::sleep(POLL).await;
    }
}

fn print_row(row: &TraceRow, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&SpanJson::of(&row.stored), false);
    }
    writeln!(io::stdout().lock(), "{}", cells(&row.stored).join("  "))?;
    Ok(())
}

/// Prints JSON in which everything that could deceive a terminal is escaped;
/// a parser reads the same values.
fn print_json(value: &impl Serialize, indented: bool) -> anyhow::Result<()> {
    let text = if indented {
        serde_json::to_string_pretty(value)?
    } else {
        serde_json::to_string(value)?
    };
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Such characters can only be inside strings: JSON itself is plain ASCII.
        if is_deceptive(c) {
            let mut units = [0; 2];
            safe.extend(
                c.encode_utf16(&mut units)
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        } else {
            safe.push(c);
        }
    }
    writeln!(io::stdout().lock(), "{safe}")?;
    Ok(())
}
