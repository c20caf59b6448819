//! Scores: judgements on traces, given by people, programs and judges.
//!
//! A score is a new row, never a change to the span that it judges; the latest
//! of one author under one name counts. It is on the disk before the caller
//! hears that it was taken.

mod api;

use base::{ProjectId, ScoreId, SpanId, TraceId};
use db::Actor;
use schemars::JsonSchema;
use serde::Deserialize;
use telemetry::{Batch, Score, Source};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::traces::ScoreValue;

/// The score that a thumb stands for: 1 up, -1 down, 0 taken back.
pub const THUMBS: &str = "thumbs";

/// Characters of a name.
const NAME_CHARS: usize = 100;
/// Bytes of a word.
const LABEL_BYTES: usize = telemetry::limits::TEXT_BYTES;
/// Bytes of a comment.
const COMMENT_BYTES: usize = telemetry::limits::LONG_TEXT_BYTES;

/// The API.
pub fn routes() -> Vec<Route> {
    api::routes()
}

/// A judgement as a client sends it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewScore {
    /// The trace that is judged.
    pub trace_id: String,
    /// One of its spans; absent judges the whole trace.
    #[serde(default)]
    pub span_id: Option<String>,
    /// What is judged, for example `thumbs` (1 up, -1 down, 0 taken back).
    pub name: String,
    /// A number, a flag or a word.
    pub value: ScoreValue,
    /// Reason or remark.
    #[serde(default)]
    pub comment: Option<String>,
}

/// Adds a score to a trace; returns when it is on the disk.
///
/// # Errors
/// 400 for what cannot be stored as it is, 404 for a trace or span that this
/// project does not have, 503 when it could not be written.
pub async fn create_score(app: &App, identity: &Identity, new: NewScore) -> Result<Score> {
    let project = identity.project.id;
    let trace_id = crate::traces::trace_id(&new.trace_id)?;
    check(&new)?;
    let span_id = find_target(app, project, trace_id, new.span_id.as_deref()).await?;
    let (value, label) = stored_value(&new.name, new.value)?;
    let score = Score {
        score_id: app.ids.make::<ScoreId>(),
        project,
        trace_id,
        span_id,
        name: new.name,
        value,
        label,
        comment: new.comment.filter(|comment| !comment.trim().is_empty()),
        source: source(identity.actor),
        author: Some(identity.actor.to_string()),
        at_us: app.clock.now_us(),
        supersedes: None,
    };
    append(app, score.clone().into()).await?;
    Ok(score)
}

/// Puts facts into telemetry that are complete in themselves; returns when they are on the disk.
/// Whether what they judge exists is not asked: it may be on its way.
///
/// # Errors
/// 503 when they could not be written.
pub async fn append(app: &App, batch: Batch) -> Result<()> {
    let not_stored = |cause: String| {
        AppError::unavailable(format!("it was not stored: {cause}"))
            .code("not_stored")
            .hint("send it again")
    };
    let ack = app
        .telemetry
        .append(batch)
        .map_err(|full| not_stored(full.to_string()))?;
    ack.await.map_err(|error| not_stored(error.to_string()))
}

/// Checks a judgement and gives the number and the word that it is kept as.
///
/// # Errors
/// 400 for what cannot be stored as it is.
pub fn checked_value(new: &NewScore) -> Result<(Option<f64>, Option<String>)> {
    check(new)?;
    stored_value(&new.name, new.value.clone())
}

/// Whether somebody's scores are a person's.
pub(crate) fn source(actor: Actor) -> Source {
    match actor {
        Actor::User(_) | Actor::Guest(_) => Source::Human,
        Actor::Key(_) | Actor::Operator | Actor::System => Source::Api,
    }
}

/// The judged span, after making sure that the trace (and the span) exist here.
async fn find_target(
    app: &App,
    project: ProjectId,
    trace_id: TraceId,
    span: Option<&str>,
) -> Result<Option<SpanId>> {
    let trace = crate::traces::await_trace(app, project, trace_id).await?;
    let Some(text) = span else { return Ok(None) };
    let wanted = text.parse::<SpanId>().ok();
    let found = wanted.filter(|wanted| {
        trace
            .spans
            .iter()
            .any(|stored| stored.span.span_id == *wanted)
    });
    found.map(Some).ok_or_else(|| {
        AppError::not_found("this trace has no span with this id").code("span_not_found")
    })
}

fn check(new: &NewScore) -> Result<()> {
    let chars = new.name.chars().count();
    let clean = !new.name.chars().any(base::text::is_deceptive) && new.name.trim() == new.name;
    if chars == 0 || chars > NAME_CHARS || !clean || new.name.contains(['\n', '\t']) {
        let message = format!(
            "a score's name has 1 to {NAME_CHARS} visible characters and no space at its ends"
        );
        return Err(AppError::invalid(message).at("name"));
    }
    if new
        .comment
        .as_ref()
        .is_some_and(|comment| comment.len() > COMMENT_BYTES)
    {
        return Err(
            AppError::invalid(format!("a comment has at most {COMMENT_BYTES} bytes")).at("comment"),
        );
    }
    let nul = new.comment.iter().any(|comment| comment.contains('\0'));
    if nul {
        Err(AppError::invalid("a comment cannot hold NUL").at("comment"))
    } else {
        Ok(())
    }
}

/// Number and word of a value. A flag is both, so that filters can compare it
/// either way; a thumb given as a flag means up or down.
fn stored_value(name: &str, value: ScoreValue) -> Result<(Option<f64>, Option<String>)> {
    match value {
        ScoreValue::Number(number) if number.is_finite() => Ok((Some(number), None)),
        ScoreValue::Bool(up) if name == THUMBS => Ok((Some(if up { 1.0 } else { -1.0 }), None)),
        ScoreValue::Bool(yes) => Ok((Some(f64::from(u8::from(yes))), Some(yes.to_string()))),
        ScoreValue::Label(word)
            if (1..=LABEL_BYTES).contains(&word.len()) && !word.contains('\0') =>
        {
            Ok((None, Some(word)))
        }
        _ => Err(AppError::invalid(format!(
            "a value is a number, true or false, or a word of 1 to {LABEL_BYTES} bytes"
        ))
        .at("value")),
    }
}
