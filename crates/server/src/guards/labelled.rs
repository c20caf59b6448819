//! Verdicts on finds as labelled texts: what measures policies and trains classifiers.
//!
//! One row is one text under one kind of check. It is what the check looks for if any of its finds
//! there was right, and harmless if all that were judged were false alarms. What was not sure says
//! nothing. A text that was changed or withheld on purpose is not in the record any more, and so
//! cannot become data; the answer counts those.

use std::collections::BTreeMap;

use base::{Digest, ProjectId};
use db::Scope;
use db::catalog::Name;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::finds::{self, MOST_ROWS, Row, Wanted};
use super::verdict::Verdict;
use crate::app::App;
use crate::datasets::{Edits, Example, Saved, Source};
use crate::error::{AppError, Result};

/// Pages of finds that one request reads.
const PAGES: usize = 100;
/// Texts of one request.
const MOST_TEXTS: usize = 10_000;
/// Bytes of one text.
const TEXT_BYTES: usize = 64 << 10;
/// What finds are looked through when nothing is said.
const SINCE: &str = "-90d";

/// A labelled text: a line of the JSONL that `guard bench` and `guard train` read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LabelledText {
    /// The text.
    pub text: String,
    /// `attack`, `toxic` or `positive`; or `benign`.
    pub label: String,
    /// Always `reviewed`.
    pub source: String,
    /// `ja`, `en`, or nothing where it cannot be told.
    pub language: String,
    /// What the rule looks for: `injection`, `toxicity` …
    pub check: String,
    /// The policy.
    pub policy: String,
    /// The call's trace.
    pub trace: String,
    /// The field that the text is in.
    pub field: String,
    /// Who last judged it.
    pub by: Option<String>,
    /// The identity of the example that it becomes.
    pub id: String,
}

/// The labelled texts, and what could not become one.
#[derive(Debug, Clone, Default)]
pub struct Labelled {
    /// The texts.
    pub texts: Vec<LabelledText>,
    /// Finds that were judged, whose text is not in the record.
    pub without_text: usize,
}

/// What came of adding them to a dataset.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Taken {
    /// The dataset as it is now; null when there was nothing to add.
    pub saved: Option<Saved>,
    /// Texts that were judged.
    pub texts: usize,
    /// Judged finds whose text is not in the record.
    pub without_text: usize,
}

struct Group {
    row: Row,
    right: bool,
    false_alarm: bool,
}

/// The texts of finds that were judged.
///
/// # Errors
/// 400: what is wanted is not understood.
pub async fn texts(app: &App, project: ProjectId, wanted: &Wanted) -> Result<Labelled> {
    let mut wanted = Wanted {
        from: Some(wanted.from.clone().unwrap_or_else(|| SINCE.to_owned())),
        verdict: Some(wanted.verdict.clone().unwrap_or_else(|| "any".to_owned())),
        limit: Some(MOST_ROWS),
        cursor: None,
        ..wanted.clone()
    };
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut labelled = Labelled::default();
    for _ in 0..PAGES {
        let (rows, next) = finds::rows(app, project, &wanted).await?;
        for row in rows {
            let Some(given) = &row.verdict else { continue };
            if given.verdict == Verdict::Unsure {
                continue;
            }
            if row.place.as_ref().is_none_or(std::ops::Range::is_empty) || row.is_edit() {
                labelled.without_text += 1;
                continue;
            }
            let verdict = given.verdict;
            let group = groups.entry(id_of(&row)?).or_insert(Group {
                row,
                right: false,
                false_alarm: false,
            });
            group.right |= verdict == Verdict::Right;
            group.false_alarm |= verdict == Verdict::FalseAlarm;
        }
        wanted.cursor = next;
        if wanted.cursor.is_none() || groups.len() >= MOST_TEXTS {
            break;
        }
    }
    labelled.texts = groups
        .into_iter()
        .filter_map(|(id, group)| labelled_text(id, group))
        .collect();
    Ok(labelled)
}

/// The texts as JSON lines.
///
/// # Errors
/// None that can happen: a text has a JSON form.
pub fn lines(labelled: &Labelled) -> Result<String> {
    let mut lines = String::new();
    for text in &labelled.texts {
        lines.push_str(&serde_json::to_string(text).map_err(AppError::internal)?);
        lines.push('\n');
    }
    Ok(lines)
}

fn id_of(row: &Row) -> Result<String> {
    let check = row.rule().map(|rule| rule.check.as_str());
    let place = json!([
        row.guarded.trace_id.to_string(),
        row.guarded.call.map(|call| call.to_string()),
        row.find.field,
        check
    ]);
    let digest = Digest::of_json(&place).map_err(AppError::internal)?;
    let hex = digest.to_string();
    let hex = hex.rsplit(':').next().unwrap_or_default();
    Ok(format!("guard-{}", hex.get(..24).unwrap_or(hex)))
}

fn labelled_text(id: String, group: Group) -> Option<LabelledText> {
    let row = group.row;
    let text = row.text.clone().filter(|text| text.len() <= TEXT_BYTES)?;
    let check = row
        .rule()
        .map(|rule| rule.check.clone())
        .unwrap_or_default();
    let label = match (group.right, check.as_str()) {
        (false, _) => "benign",
        (true, "injection") => "attack",
        (true, "toxicity") => "toxic",
        (true, _) => "positive",
    };
    Some(LabelledText {
        language: language(&text).to_owned(),
        text,
        label: label.to_owned(),
        source: "reviewed".to_owned(),
        check,
        policy: row.guarded.policy.clone(),
        trace: row.guarded.trace_id.to_string(),
        field: row.find.field.clone(),
        by: row.verdict.and_then(|given| given.by),
        id,
    })
}

/// Kana are Japanese and nothing else; of other texts only plain English letters are told.
fn language(text: &str) -> &'static str {
    let is_kana = |c: char| matches!(c, '\u{3041}'..='\u{30ff}');
    if text.chars().any(is_kana) {
        return "ja";
    }
    match text
        .chars()
        .filter(|c| c.is_alphabetic())
        .all(|c| c.is_ascii())
    {
        true => "en",
        false => "",
    }
}

/// Adds the labelled texts to a dataset, which is made if there is none. A text that is there
/// already is that example again, with what is said of it now.
///
/// # Errors
/// The dataset's name is none, or the dataset does not take them.
pub async fn append(app: &App, scope: Scope, name: &Name, wanted: &Wanted) -> Result<Taken> {
    let labelled = texts(app, scope.project, wanted).await?;
    let taken = |saved| Taken {
        saved,
        texts: labelled.texts.len(),
        without_text: labelled.without_text,
    };
    if labelled.texts.is_empty() {
        return Ok(taken(None));
    }
    let edits = Edits {
        put: labelled.texts.iter().map(example).collect(),
        message: "reviewed finds of guards".to_owned(),
        ..Edits::default()
    };
    let saved = match app.datasets.find_latest(scope, name).await? {
        Some(_) => app.datasets.edit(scope, name, edits).await?,
        None => app.datasets.create(scope, name, edits).await?,
    };
    Ok(taken(Some(saved)))
}

fn example(text: &LabelledText) -> Example {
    let mut metadata = Map::new();
    for (key, value) in [
        ("source", &text.source),
        ("language", &text.language),
        ("check", &text.check),
        ("policy", &text.policy),
    ] {
        if !value.is_empty() {
            metadata.insert(key.to_owned(), Value::String(value.clone()));
        }
    }
    Example {
        id: text.id.clone(),
        input: Value::String(text.text.clone()),
        expected: Some(Value::String(text.label.clone())),
        metadata,
        source: Source {
            trace: Some(text.trace.clone()),
            person: text.by.clone(),
            ..Source::default()
        },
        ..Example::default()
    }
}
