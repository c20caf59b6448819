//! What reviewers say of finds: right, a false alarm, not sure.
//!
//! A verdict is a score on the guard's span, like every judgement: a row of its own that says who
//! gave it and when. Each find has a score name of its own, `guard_verdict.N`; beside it stands
//! one for the span, `guard_verdict`, so that lists of spans can be filtered by it. There is no
//! other store.

use base::{ProjectId, ScoreId, SpanId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::{Batch, Score, Trace};

use super::recorded::{FindId, Guarded, no_such_find};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::scores::NewScore;
use crate::traces::ScoreValue;

/// The score that a guard's span has when any of its finds was judged.
pub const SCORE: &str = "guard_verdict";

/// What a find was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What the rule is to find.
    Right,
    /// Nothing of the kind.
    FalseAlarm,
    /// The reviewer cannot tell.
    Unsure,
}

impl Verdict {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 3] = [Self::Right, Self::FalseAlarm, Self::Unsure];

    /// The word that is kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::FalseAlarm => "false_alarm",
            Self::Unsure => "unsure",
        }
    }
}

impl std::str::FromStr for Verdict {
    type Err = AppError;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|one| one.name() == word);
        found.ok_or_else(|| {
            AppError::invalid(format!("{word:?} is no verdict"))
                .hint("right, false_alarm or unsure")
                .at("verdict")
        })
    }
}

/// A verdict that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Given {
    /// What was said.
    pub verdict: Verdict,
    /// `human`, `api` or another source of scores.
    pub source: String,
    /// Who said it.
    pub by: Option<String>,
    /// When, microseconds since the epoch.
    pub at: i64,
    /// Why.
    pub comment: Option<String>,
}

fn score_name(index: usize) -> String {
    format!("{SCORE}.{index}")
}

fn read(score: &Score) -> Option<Given> {
    Some(Given {
        verdict: score.label.as_deref()?.parse().ok()?,
        source: score.source.as_str().to_owned(),
        by: score.author.clone(),
        at: score.at_us,
        comment: score.comment.clone(),
    })
}

/// What was last said of a find.
pub fn of(scores: &[Score], span: SpanId, index: usize) -> Option<Given> {
    let name = score_name(index);
    let of_find = scores
        .iter()
        .filter(|score| score.span_id == Some(span) && score.name == name);
    of_find.filter_map(read).max_by_key(|given| given.at)
}

/// The trace of a find and how many finds its span has, after making sure that it is one.
pub(super) async fn target(app: &App, project: ProjectId, id: FindId) -> Result<(Trace, usize)> {
    let trace = crate::traces::await_trace(app, project, id.trace_id)
        .await
        .map_err(|error| match error.status {
            http::StatusCode::NOT_FOUND => no_such_find(),
            _ => error,
        })?;
    let stored = trace
        .spans
        .iter()
        .find(|stored| stored.span.span_id == id.span_id)
        .filter(|stored| Guarded::of(&stored.span).is_some())
        .ok_or_else(no_such_find)?;
    let count = stored.body_counts.output;
    if id.index < count {
        return Ok((trace, count));
    }
    Err(no_such_find())
}

/// Says what a find was; returns when it is on the disk.
///
/// # Errors
/// 404: there is no such find; 400: the comment cannot be kept; 503: it was not stored.
pub async fn give(
    app: &App,
    identity: &Identity,
    id: FindId,
    verdict: Verdict,
    comment: Option<String>,
) -> Result<Given> {
    let project = identity.project.id;
    let (trace, count) = target(app, project, id).await?;
    let me = identity.actor.to_string();
    let new = NewScore {
        trace_id: id.trace_id.to_string(),
        span_id: Some(id.span_id.to_string()),
        name: score_name(id.index),
        value: ScoreValue::Label(verdict.name().to_owned()),
        comment: comment.filter(|comment| !comment.trim().is_empty()),
    };
    crate::scores::checked_value(&new)?;
    let score = |name: String, word: &str, comment: Option<String>| Score {
        score_id: app.ids.make::<ScoreId>(),
        project,
        trace_id: id.trace_id,
        span_id: Some(id.span_id),
        name,
        value: None,
        label: Some(word.to_owned()),
        comment,
        source: crate::scores::source(identity.actor),
        author: Some(me.clone()),
        at_us: app.clock.now_us(),
        supersedes: None,
    };
    // One false alarm is what somebody should look at, whatever the other finds were.
    let mine: Vec<Score> = trace
        .scores
        .into_iter()
        .filter(|score| score.author.as_deref() == Some(me.as_str()))
        .collect();
    let others = (0..count).filter(|index| *index != id.index);
    let others = others.filter_map(|index| of(&mine, id.span_id, index));
    let all: Vec<Verdict> = others.map(|given| given.verdict).chain([verdict]).collect();
    let first = [Verdict::FalseAlarm, Verdict::Unsure];
    let summary = first.into_iter().find(|one| all.contains(one));
    let of_find = score(new.name, verdict.name(), new.comment);
    let given = read(&of_find);
    let of_span = score(
        SCORE.to_owned(),
        summary.unwrap_or(Verdict::Right).name(),
        None,
    );
    let batch = Batch {
        scores: vec![of_find, of_span],
        ..Batch::default()
    };
    crate::scores::append(app, batch).await?;
    given.ok_or_else(|| AppError::internal(anyhow::anyhow!("a verdict has a word")))
}
