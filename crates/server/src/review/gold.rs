//! From labels to gold: items that are settled become examples of a dataset.
//!
//! An example keeps its id, so making gold again changes what changed and nothing else. It
//! holds what the raters saw: what was masked for them stays masked.

use std::collections::HashSet;

use db::{Name, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::{Question, QuestionKind, QueueDocument};
use super::results::resolved;
use super::snapshot::mask_value;
use super::store::{self, At, Item, ItemState, LabelRow};
use super::values::Values;
use super::{Desk, Queue, find_queue};
use crate::app::App;
use crate::datasets::{Edits, Example, Saved, Source, parse_name};
use crate::error::{AppError, Result};

/// Items of one dataset's edit.
const MOST_ITEMS: usize = 10_000;

/// Where gold goes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ReviewGoldRequest")]
pub struct GoldRequest {
    /// The dataset; the queue's own unless told.
    pub dataset: Option<String>,
    /// The split that the examples shall be in; their own unless told.
    pub split: Option<String>,
    /// Only examples that were drawn at random.
    pub drawn_only: bool,
}

/// What became gold.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewGoldMade")]
pub struct GoldMade {
    /// The dataset as it is now; none when nothing became gold.
    pub saved: Option<Saved>,
    /// Items that became examples.
    pub taken: usize,
    /// Items that are not settled: raters are still to judge them, or differ.
    pub unsettled: usize,
    /// Items of an example that another item became already.
    pub duplicates: usize,
}

/// Writes what is settled into a dataset, as its next version.
///
/// # Errors
/// There is no such queue, no dataset is named, or the examples do not fit it.
pub async fn gold(app: &App, scope: Scope, queue: &str, request: &GoldRequest) -> Result<GoldMade> {
    let queue = find_queue(Desk::of(app), scope, queue).await?;
    let name = dataset(&queue, request)?;
    let question = gold_question(&queue)?;
    let at = At {
        project: scope.project,
        queue: &queue.name,
    };
    let mut made = GoldMade {
        saved: None,
        taken: 0,
        unsettled: 0,
        duplicates: 0,
    };
    let mut put: Vec<Example> = Vec::new();
    let mut seen = HashSet::new();
    let mut behind = None;
    loop {
        let items = store::list_items(&app.db, at, None, behind, 200).await?;
        behind = items.last().map(|item| item.order);
        let is_last = items.len() < 200;
        for item in items {
            if request.drawn_only && !item.drawn {
                continue;
            }
            let labels = store::read_labels_of(&app.db, scope.project, &item.id).await?;
            let Some(example) = example(&queue, question, &item, &labels, request) else {
                made.unsettled += usize::from(is_waiting(&item, &labels));
                continue;
            };
            if !seen.insert(example.id.clone()) {
                made.duplicates += 1;
                continue;
            }
            put.push(example);
        }
        if put.len() > MOST_ITEMS {
            let message = format!("more than {MOST_ITEMS} items are settled");
            return Err(AppError::invalid(message).hint("make gold of a smaller queue"));
        }
        if is_last {
            break;
        }
    }
    made.taken = put.len();
    if put.is_empty() {
        return Ok(made);
    }
    let edits = Edits {
        message: format!("gold of the review queue {}", queue.name),
        put,
        ..Edits::default()
    };
    made.saved = Some(match app.datasets.find_latest(scope, &name).await? {
        Some(_) => app.datasets.edit(scope, &name, edits).await?,
        None => app.datasets.create(scope, &name, edits).await?,
    });
    app.refresh_plan().await?;
    Ok(made)
}

fn dataset(queue: &Queue, request: &GoldRequest) -> Result<Name> {
    if let Some(text) = &request.dataset {
        let text = text.strip_prefix("dataset:").unwrap_or(text);
        return parse_name(text).map_err(|error| error.at("dataset"));
    }
    queue.document.dataset().ok_or_else(|| {
        let message = format!("the review queue {} names no dataset", queue.name);
        AppError::invalid(message)
            .code("no_dataset")
            .hint("name one, or set the queue's \"into\"")
            .at("dataset")
    })
}

fn gold_question(queue: &Queue) -> Result<&Question> {
    queue.document.gold_question().ok_or_else(|| {
        let message = format!(
            "no question of the review queue {} gives an expected output",
            queue.name
        );
        AppError::invalid(message)
            .code("no_gold_question")
            .hint("set the queue's \"gold\" to a question")
    })
}

/// Whether there will be more to say of it.
fn is_waiting(item: &Item, labels: &[LabelRow]) -> bool {
    item.state != ItemState::Closed || labels.iter().any(|label| label.current)
}

fn example(
    queue: &Queue,
    question: &Question,
    item: &Item,
    labels: &[LabelRow],
    request: &GoldRequest,
) -> Option<Example> {
    if matches!(item.state, ItemState::Open | ItemState::Adjudicate) {
        return None;
    }
    let values = resolved(&queue.document, labels);
    let expected = expected(question, item, &values)?;
    let facts = |field: &str| item.facts.get(field).cloned().unwrap_or_default();
    let text = |field: &str| facts(field).as_str().map(str::to_owned);
    let mut source: Source = serde_json::from_value(facts("source")).unwrap_or_default();
    source.review = Some(format!(
        "review_queue:{}@{}#{}",
        queue.name, queue.digest, item.id
    ));
    source.person = author(labels);
    source.answer.clone_from(&item.snapshot.output);
    Some(Example {
        id: text("example")
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| item.id.clone()),
        input: item.snapshot.input.clone(),
        expected: Some(expected),
        context: item.snapshot.context.clone(),
        metadata: metadata(&queue.document, facts("metadata"), &values),
        split: request.split.clone().or_else(|| text("split")),
        verdict: serde_json::from_value(facts("verdict")).unwrap_or_default(),
        source,
        marks: Vec::new(),
    })
}

fn expected(question: &Question, item: &Item, values: &Values) -> Option<Value> {
    let value = values.get(&question.name)?;
    if question.kind != QuestionKind::Pairwise {
        return Some(value.clone());
    }
    match value.as_str()? {
        "a" => item.snapshot.answers.first().cloned(),
        "b" => item.snapshot.answers.get(1).cloned(),
        _ => None,
    }
}

/// Who said what counts: whoever settled it, else its last rater.
fn author(labels: &[LabelRow]) -> Option<String> {
    let current = || labels.iter().rev().filter(|label| label.current);
    let settled = current().find(|label| label.kind == "adjudication");
    let label = settled.or_else(|| current().find(|label| label.kind == "label"));
    label.map(|label| label.rater.clone())
}

/// What was known of the example, and every answer that counts.
fn metadata(document: &QueueDocument, known: Value, values: &Values) -> Map<String, Value> {
    let mut known = known;
    if document.mask {
        mask_value(&mut known);
    }
    let mut metadata = match known {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (name, value) in values {
        metadata.insert(format!("review.{name}"), value.clone());
    }
    metadata
}
