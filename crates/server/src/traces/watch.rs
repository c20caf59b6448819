//! Hears of calls that this process makes itself, as they are settled.
//!
//! Whoever makes a call in process and must know what it cost asks for its trace
//! before the call. The answer of a call does not carry its cost, and asking
//! telemetry afterwards would be a query per call. What is heard is durable once
//! [`Watched::settled`] has answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{NanoUsd, TraceId, Usage};
use gateway::{Record, RecordKind};
use telemetry::Ack;

/// How long a record may take to its disk before its call counts as unrecorded.
const LONGEST: Duration = Duration::from_secs(20);

/// Calls that somebody waits to hear of. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<HashMap<TraceId, Listening>>>);

/// What was heard of a trace, and how many wait for it.
#[derive(Debug, Default)]
struct Listening {
    waiting: usize,
    heard: Vec<Heard>,
}

/// A settled record.
#[derive(Debug)]
struct Heard {
    settled: SettledCall,
    ack: Ack,
}

/// What one model's call came to.
#[derive(Debug, Clone, PartialEq)]
pub struct SettledCall {
    /// Whether a model was called; false for the groups around such calls.
    pub of_model: bool,
    /// The connection that served it; none when there was none.
    pub provider: Option<String>,
    /// The model that answered, or was asked for.
    pub model: String,
    /// Token counts.
    pub usage: Option<Usage>,
    /// What it cost; none when nobody knows the price.
    pub cost: Option<NanoUsd>,
    /// The short name of what went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub latency_us: i64,
}

impl SettledCall {
    fn of(record: &Record) -> Self {
        Self {
            of_model: matches!(record.kind, RecordKind::Chat | RecordKind::Embedding),
            provider: record.provider.clone(),
            model: record
                .response_model
                .clone()
                .unwrap_or_else(|| record.request_model.clone()),
            usage: record.usage,
            cost: record.cost,
            error: record.error.as_ref().map(|error| error.kind.clone()),
            latency_us: (record.ended_at - record.started_at).max(0),
        }
    }
}

impl Calls {
    /// Hears of the records of this trace from now on.
    pub fn watch(&self, trace: TraceId) -> Watched {
        self.lock().entry(trace).or_default().waiting += 1;
        Watched {
            calls: self.clone(),
            trace,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TraceId, Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What somebody wants to know of this record, if anybody does.
    pub(super) fn wanted(&self, record: &Record) -> Option<SettledCall> {
        let watched = self.lock().contains_key(&record.trace_id);
        watched.then(|| SettledCall::of(record))
    }

    pub(super) fn heard(&self, trace: TraceId, settled: SettledCall, ack: Ack) {
        if let Some(listening) = self.lock().get_mut(&trace) {
            listening.heard.push(Heard { settled, ack });
        }
    }
}

/// A trace whose records are heard of; dropping it ends that.
#[derive(Debug)]
pub struct Watched {
    calls: Calls,
    trace: TraceId,
}

impl Watched {
    /// Everything that was settled so far, once all of it is on the disk.
    ///
    /// # Errors
    /// A record was not stored.
    pub async fn settled(self) -> anyhow::Result<Vec<SettledCall>> {
        let heard = {
            let mut listening = self.calls.lock();
            let own = listening.get_mut(&self.trace);
            own.map(|own| std::mem::take(&mut own.heard))
        };
        let mut all = Vec::new();
        for one in heard.unwrap_or_default() {
            tokio::time::timeout(LONGEST, one.ack)
                .await
                .map_err(|_| anyhow::anyhow!("the record of a call does not reach the disk"))??;
            all.push(one.settled);
        }
        Ok(all)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut listening = self.calls.lock();
        if let Some(own) = listening.get_mut(&self.trace) {
            own.waiting -= 1;
            if own.waiting == 0 {
                listening.remove(&self.trace);
            }
        }
    }
}
