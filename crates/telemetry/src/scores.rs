//! Which scores are current: the latest per (target, name, source, author),
//! without those that a later one withdraws.

use std::collections::{HashMap, HashSet};

use base::{ScoreId, SpanId, TraceId};

use crate::span::Score;

/// Current scores by trace, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ScoreTable {
    traces: HashMap<TraceId, Vec<Score>>,
}

impl ScoreTable {
    /// Sorts out a pile of score rows; the same score may be in it twice.
    pub(crate) fn new(scores: Vec<Score>) -> Self {
        let mut traces: HashMap<TraceId, Vec<Score>> = HashMap::new();
        for score in scores {
            traces.entry(score.trace_id).or_default().push(score);
        }
        traces.values_mut().for_each(keep_current);
        Self { traces }
    }

    /// Current scores of a trace, oldest first.
    pub(crate) fn of(&self, trace: TraceId) -> &[Score] {
        self.traces.get(&trace).map_or(&[], Vec::as_slice)
    }

    /// Every current score, in no order of traces.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Score> {
        self.traces.values().flatten()
    }

    /// The score of this name that a span shows: its own, or for a root the
    /// latest in the whole trace.
    pub(crate) fn latest(
        &self,
        name: &str,
        trace: TraceId,
        span: SpanId,
        is_root: bool,
    ) -> Option<&Score> {
        self.of(trace)
            .iter()
            .rev()
            .find(|score| score.name == name && (is_root || score.span_id == Some(span)))
    }
}

fn keep_current(scores: &mut Vec<Score>) {
    scores.sort_by_key(|score| (score.at_us, score.score_id));
    scores.dedup_by_key(|score| score.score_id);
    // A withdrawal reaches scores of its own name only, so that a query that loads
    // one name sees the same as one that loads all.
    let withdrawn: HashSet<(ScoreId, String)> = scores
        .iter()
        .filter_map(|score| Some((score.supersedes?, score.name.clone())))
        .collect();
    let mut seen = HashSet::new();
    let mut current: Vec<Score> = Vec::with_capacity(scores.len());
    for score in std::mem::take(scores).into_iter().rev() {
        let slot = (
            score.span_id,
            score.name.clone(),
            score.source,
            score.author.clone(),
        );
        let gone = withdrawn.contains(&(score.score_id, score.name.clone()));
        if seen.insert(slot) && !gone {
            current.push(score);
        }
    }
    current.reverse();
    *scores = current;
}
