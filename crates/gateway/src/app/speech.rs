//! An agent that is heard while it works.
//!
//! The agent's future and the body of the response are one task: the body polls
//! the future and hands on what it has put into a short channel. So nothing runs
//! on once the body is dropped, and an agent whose caller reads slowly waits.
//! What an agent says cannot be taken back, so it is an agent's own setting
//! (`stream`) whether text that may still turn out to be no answer is said.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base::SpanId;
use http::StatusCode;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc};

use super::compile::{AgentWork, Work};
use super::document::AgentStream;
use super::run::{AT_A_TIME, Run, Said, Tally};
use crate::Inner;
use crate::call::Caller;
use crate::context::CallContext;
use crate::error::ApiError;
use crate::failure::Failure;
use crate::plan::{Plan, Principal, Release};
use crate::record::AppUsed;

/// Pieces that wait for the caller to read.
const WAITING: usize = 16;
/// The most that one agent says.
const SAID_BYTES: usize = 16 << 20;
/// What stands between the texts of two turns.
const GAP: &str = "\n\n";

/// What an agent speaks into.
pub(crate) struct Voice {
    out: mpsc::Sender<String>,
    live: bool,
    said: String,
    gap: bool,
}

impl Voice {
    /// Whether text is said before it is known to be the answer.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Says more; waits while the caller does not read. False when it is too much.
    pub(crate) async fn say(&mut self, text: &str) -> bool {
        if text.is_empty() {
            return true;
        }
        let gap = if std::mem::take(&mut self.gap) {
            GAP
        } else {
            ""
        };
        if self.said.len() + gap.len() + text.len() > SAID_BYTES {
            return false;
        }
        let piece = format!("{gap}{text}");
        self.said.push_str(&piece);
        // Nobody listens any more: then this future is dropped in a moment.
        let _ = self.out.send(piece).await;
        true
    }

    /// What comes next is another turn's.
    pub(crate) fn end_turn(&mut self) {
        self.gap = !self.said.is_empty();
    }

    /// Everything that was said.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }
}

/// What is heard next.
pub(crate) enum Heard {
    Text(String),
    End(Result<Said, Failure>),
}

type Speaking = Pin<Box<dyn Future<Output = Result<Said, Failure>> + Send>>;

/// An agent at work, as it is heard.
pub(crate) struct Speech {
    /// Gone once it has ended.
    work: Option<Speaking>,
    ended: Option<Result<Said, Failure>>,
    pieces: mpsc::Receiver<String>,
    tally: Arc<Mutex<Tally>>,
}

impl Speech {
    /// Begins; nothing happens before it is polled.
    pub(crate) fn new(speaker: Speaker) -> Self {
        let (out, pieces) = mpsc::channel(WAITING);
        let tally = speaker.tally.clone();
        Self {
            work: Some(Box::pin(speaker.speak(out))),
            ended: None,
            pieces,
            tally,
        }
    }

    pub(crate) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        if let Some(work) = &mut self.work
            && let Poll::Ready(ended) = work.as_mut().poll(cx)
        {
            self.work = None;
            self.ended = Some(ended);
        }
        match self.pieces.poll_recv(cx) {
            Poll::Ready(Some(text)) => Poll::Ready(Some(Heard::Text(text))),
            // The voice went with the work.
            Poll::Ready(None) => Poll::Ready(self.ended.take().map(Heard::End)),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) async fn next(&mut self) -> Option<Heard> {
        std::future::poll_fn(|cx| self.poll_heard(cx)).await
    }

    /// What the models of the whole run have used so far.
    pub(crate) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that an agent needs to outlive the future that its call began in.
pub(crate) struct Speaker {
    pub gateway: Arc<Inner>,
    pub plan: Arc<Plan>,
    pub principal: Principal,
    pub context: CallContext,
    pub release: Arc<Release>,
    pub inputs: Value,
    pub messages: Vec<Value>,
    pub used: AppUsed,
    pub dry: bool,
    pub tally: Arc<Mutex<Tally>>,
    /// The place of the agent among the app's steps.
    pub at: usize,
    /// Its variables, computed.
    pub variables: Map<String, Value>,
    /// The app's own span.
    pub root: SpanId,
}

impl Speaker {
    async fn speak(self, out: mpsc::Sender<String>) -> Result<Said, Failure> {
        let gone = || {
            let message = "the agent is not a step of its app";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "app_broken", message)
        };
        let compiled = self.release.app.compiled().map_err(|_| gone())?;
        let step = compiled.group.steps.get(self.at).ok_or_else(gone)?;
        let Work::Agent(work) = &step.work else {
            return Err(gone().into());
        };
        let run = Run {
            caller: Caller {
                gateway: &self.gateway,
                plan: &self.plan,
                principal: &self.principal,
            },
            context: self.context,
            release: &self.release,
            compiled,
            inputs: self.inputs,
            messages: &self.messages,
            used: self.used,
            dry: self.dry,
            places: Semaphore::new(AT_A_TIME),
            tally: self.tally,
        };
        let mut voice = Voice {
            out,
            live: is_live(work),
            said: String::new(),
            gap: false,
        };
        let said = run.run_agent(&step.id, work, self.variables, self.root, Some(&mut voice));
        said.await
            .map_err(|failure| super::run::named(failure, &step.id))
    }
}

/// A model without tools can only answer.
fn is_live(work: &AgentWork) -> bool {
    work.stream == AgentStream::Live || work.tools.is_empty()
}
