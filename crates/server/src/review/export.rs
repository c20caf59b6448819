//! Labels as files: CSV that spreadsheets open safely, and JSON Lines with everything.

use std::fmt::Write as _;

use db::Scope;
use serde_json::json;

use super::results::answer_text;
use super::store::LabelRow;
use super::{Desk, find_queue};
use crate::datasets::csv_cell;
use crate::error::{AppError, Result};
use crate::traces::time::format_rfc3339;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One row per label.
    Csv,
    /// One object per item, with its labels.
    Jsonl,
}

impl ExportFormat {
    /// The form that this word names.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::Jsonl),
            other => Err(AppError::invalid(format!(
                "{other:?} is not a format; the formats are csv and jsonl"
            ))
            .at("format")),
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Jsonl => "application/x-ndjson",
        }
    }

    /// The end of a file's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }
}

/// Every item of a queue with what was said of it.
///
/// # Errors
/// There is no such queue.
pub async fn export(
    desk: Desk<'_>,
    scope: Scope,
    queue: &str,
    format: ExportFormat,
) -> Result<String> {
    let queue = find_queue(desk, scope, queue).await?;
    let questions: Vec<&str> = queue
        .document
        .questions
        .iter()
        .map(|question| question.name.as_str())
        .collect();
    let mut out = String::new();
    if format == ExportFormat::Csv {
        let fixed = [
            "item", "kind", "state", "drawn", "chance", "label", "by", "rater", "at", "took_s",
        ];
        let cells = fixed.iter().chain(&questions).chain(&["comment"]);
        let cells: Vec<String> = cells.map(|cell| csv_cell(cell)).collect();
        let _ = write!(out, "{}\r\n", cells.join(","));
    }
    let mut cursor = None;
    loop {
        let page = super::items(desk, scope, &queue.name, None, cursor, 200).await?;
        for item in &page.items {
            match format {
                ExportFormat::Jsonl => {
                    let line = json!({
                        "item": item.id, "kind": item.kind, "state": item.state, "drawn": item.drawn,
                        "chance": item.chance, "snapshot": item.snapshot, "facts": item.facts,
                        "labels": item.labels, "who": item.who, "resolved": item.resolved,
                    });
                    let _ = writeln!(out, "{line}");
                }
                ExportFormat::Csv => {
                    for label in item.labels.iter().filter(|label| label.current) {
                        let who = item.who.get(&label.rater).map_or("", String::as_str);
                        let mut cells = vec![
                            item.id.clone(),
                            item.kind.clone(),
                            item.state.name().to_owned(),
                            u8::from(item.drawn).to_string(),
                            item.chance
                                .map(|chance| chance.to_string())
                                .unwrap_or_default(),
                            label.kind.clone(),
                            who.to_owned(),
                            label.rater.clone(),
                            format_rfc3339(label.at),
                            format!("{:.1}", took_s(label)),
                        ];
                        let answers = questions.iter().map(|name| {
                            label.values.get(*name).map(answer_text).unwrap_or_default()
                        });
                        cells.extend(answers);
                        cells.push(label.comment.clone());
                        let cells: Vec<String> = cells.iter().map(|cell| csv_cell(cell)).collect();
                        let _ = write!(out, "{}\r\n", cells.join(","));
                    }
                }
            }
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(out),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time of work is far below 2^53"
)]
fn took_s(label: &LabelRow) -> f64 {
    label.took_us as f64 / 1e6
}
