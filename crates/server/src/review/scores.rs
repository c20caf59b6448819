//! Labels as scores on the traces that they are about.
//!
//! A label is durable in the database first; its scores follow it at once, or when the
//! sweep finds it. Sending twice changes nothing: a score's id follows from the label and
//! the question. A label that was taken back is followed by scores that withdraw themselves
//! and with them whatever its author said under that name before.

use base::{Digest, Id as _, ProjectId, ScoreId, SpanId, TraceId};
use db::Actor;
use serde_json::Value;
use telemetry::{Batch, Score};

use super::document::{Question, QuestionKind, QueueDocument};
use super::store::{self, Item, LabelRow};
use super::values::Span;
use crate::app::App;
use crate::error::{AppError, Result};

/// Labels of one sweep.
const SWEPT: i64 = 500;

/// Where a score goes.
struct Place {
    trace: TraceId,
    span: Option<SpanId>,
}

/// Sends the scores of a label; what cannot be sent now is sent by the sweep.
pub(super) async fn send(app: &App, project: ProjectId, label: &str) {
    if let Err(error) = try_send(app, project, label).await {
        tracing::warn!(
            review.label = label,
            error.message = %error,
            "the scores of a label were not stored; they will be sent again"
        );
    }
}

/// Sends what a crash or a full queue kept back.
///
/// # Errors
/// The database cannot be read; it is tried again the next time.
pub async fn send_unsent(app: &App) -> anyhow::Result<()> {
    for (project, label) in store::unsent(&app.db, SWEPT).await? {
        try_send(app, project, &label).await?;
    }
    Ok(())
}

async fn try_send(app: &App, project: ProjectId, label: &str) -> Result<()> {
    let Some((queue, label)) = store::read_label(&app.db, project, label).await? else {
        return Ok(());
    };
    let item = store::read_item(&app.db, project, &label.item).await?;
    let document = document_of(app, project, &label).await?;
    let mut batch = Batch::default();
    if let (Some(item), Some(document)) = (item, document) {
        let before = match &label.replaces {
            Some(before) => store::read_label(&app.db, project, before).await?,
            None => None,
        };
        let before = before.map(|(_, before)| before);
        let maker = Maker {
            project,
            queue: &queue,
            document: &document,
            label: &label,
        };
        batch.scores = maker.scores(&item, before.as_ref());
    }
    if !batch.scores.is_empty() {
        let not_stored = |cause: String| {
            AppError::unavailable(format!("the scores of a label were not stored: {cause}"))
        };
        let ack = app
            .telemetry
            .append(batch)
            .map_err(|full| not_stored(full.to_string()))?;
        ack.await.map_err(|error| not_stored(error.to_string()))?;
    }
    store::set_sent(&app.db, project, &label).await
}

/// The questions that a label answers, as they were then.
async fn document_of(
    app: &App,
    project: ProjectId,
    label: &LabelRow,
) -> Result<Option<QueueDocument>> {
    let Ok(digest) = label.digest.parse::<Digest>() else {
        return Ok(None);
    };
    let mut found = app.catalog.documents(project, &[digest]).await?;
    let content = found.remove(&digest);
    Ok(content.and_then(|content| QueueDocument::parse(&content).ok()))
}

/// Makes the scores of one label.
struct Maker<'a> {
    project: ProjectId,
    queue: &'a str,
    document: &'a QueueDocument,
    label: &'a LabelRow,
}

impl Maker<'_> {
    fn scores(&self, item: &Item, before: Option<&LabelRow>) -> Vec<Score> {
        let places = places(item);
        let mut scores = Vec::new();
        for question in &self.document.questions {
            let given = self.label.values.get(&question.name);
            let was = before.is_some_and(|before| before.values.contains_key(&question.name));
            match given {
                Some(value) if self.label.current => {
                    for (side, place) in &places {
                        scores.push(self.score(question, value, *side, place));
                    }
                }
                Some(_) => {
                    let withdrawn = places.iter();
                    scores.extend(withdrawn.map(|(side, place)| self.gone(question, *side, place)));
                }
                // The label before had an answer to this, and this one has none.
                None if was && self.label.current => {
                    let withdrawn = places.iter();
                    scores.extend(withdrawn.map(|(side, place)| self.gone(question, *side, place)));
                }
                None => {}
            }
        }
        scores
    }

    fn score(&self, question: &Question, value: &Value, side: usize, place: &Place) -> Score {
        let (number, word, remark) = stored(question, value, side);
        let mut comment = remark.unwrap_or_default();
        if comment.is_empty() {
            comment.clone_from(&self.label.comment);
        }
        let provenance = format!("review_queue:{}@{}", self.queue, self.label.digest);
        let room = telemetry::limits::LONG_TEXT_BYTES.saturating_sub(provenance.len() + 1);
        let comment = base::text::cut_bytes(&comment, room);
        let comment = match comment.is_empty() {
            true => provenance,
            false => format!("{comment}\n{provenance}"),
        };
        Score {
            score_id: self.id(question, side, "given"),
            value: number,
            label: word,
            comment: Some(comment),
            ..self.blank(question, place, self.label.at)
        }
    }

    /// A score that takes back itself, and by being the latest all before it.
    fn gone(&self, question: &Question, side: usize, place: &Place) -> Score {
        let id = self.id(question, side, "gone");
        let at = self.label.ended_at.unwrap_or(self.label.at);
        Score {
            score_id: id,
            supersedes: Some(id),
            ..self.blank(question, place, at)
        }
    }

    fn blank(&self, question: &Question, place: &Place, at_us: i64) -> Score {
        let actor = self.label.rater.parse().unwrap_or(Actor::System);
        Score {
            score_id: self.id(question, 0, "blank"),
            project: self.project,
            trace_id: place.trace,
            span_id: place.span,
            name: question.score_name().to_owned(),
            value: None,
            label: None,
            comment: None,
            source: crate::scores::source(actor),
            author: Some(self.label.rater.clone()),
            at_us,
            supersedes: None,
        }
    }

    /// The same every time for the same label, question and side.
    fn id(&self, question: &Question, side: usize, sort: &str) -> ScoreId {
        let text = format!("{} {side} {sort} {}", self.label.id, question.name);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Digest::of(text.as_bytes()).0[..16]);
        // The time first, as in every id of ours.
        let digits: String = self.label.id.chars().filter(|c| *c != '-').collect();
        for (index, byte) in bytes.iter_mut().take(6).enumerate() {
            let pair = digits.get(index * 2..index * 2 + 2);
            *byte = pair.map_or(0, |pair| u8::from_str_radix(pair, 16).unwrap_or(0));
        }
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        ScoreId::from_uuid_bytes(bytes)
    }
}

/// The traces that an item is about: of a pair the traces of both answers, each with its side.
fn places(item: &Item) -> Vec<(usize, Place)> {
    let place = |value: &Value| {
        Some(Place {
            trace: value.get("trace")?.as_str()?.parse().ok()?,
            span: value
                .get("span")
                .and_then(Value::as_str)
                .and_then(|span| span.parse().ok()),
        })
    };
    let Some(targets) = item.facts.get("targets").and_then(Value::as_array) else {
        return Vec::new();
    };
    let found = targets.iter().enumerate();
    found
        .filter_map(|(side, target)| Some((side, place(target)?)))
        .collect()
}

/// Number, word and text of an answer, as a score holds them.
fn stored(
    question: &Question,
    value: &Value,
    side: usize,
) -> (Option<f64>, Option<String>, Option<String>) {
    let word = |text: &str| {
        let cut = base::text::cut_bytes(text, telemetry::limits::TEXT_BYTES);
        Some(cut.to_owned()).filter(|cut| !cut.is_empty())
    };
    let words = |items: Vec<String>| word(&items.join(", ")).or_else(|| word("none"));
    let text = super::words(value);
    match question.kind {
        QuestionKind::Rating => (value.as_f64(), None, None),
        QuestionKind::Choice => (None, word(&text), None),
        QuestionKind::Multi => {
            let chosen = value.as_array().into_iter().flatten();
            let chosen = chosen.filter_map(Value::as_str).map(str::to_owned);
            (None, words(chosen.collect()), None)
        }
        QuestionKind::Text | QuestionKind::Expected | QuestionKind::Correction => {
            (None, word(&text), Some(text))
        }
        QuestionKind::Spans => {
            let spans: Vec<Span> = serde_json::from_value(value.clone()).unwrap_or_default();
            let mut labels: Vec<String> = spans.iter().map(|span| span.label.clone()).collect();
            labels.sort();
            labels.dedup();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            (Some(spans.len() as f64), words(labels), None)
        }
        QuestionKind::Pairwise => {
            let (number, said) = match (value.as_str(), side) {
                (Some("a"), 0) | (Some("b"), 1) => (1.0, "better"),
                (Some("tie"), _) => (0.5, "tie"),
                _ => (0.0, "worse"),
            };
            (Some(number), word(said), None)
        }
    }
}
