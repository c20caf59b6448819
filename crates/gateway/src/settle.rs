//! The one who settles a record.
//!
//! A settler is made before the work starts, with the record's place reserved, and
//! goes wherever the work goes. What happens to the work decides how the record is
//! settled; that it is settled once does not depend on anybody remembering it.

use std::sync::Arc;

use base::{Clock, NanoUsd, SpanId, Usage};
use serde_json::{Map, Value};

use crate::Inner;
use crate::context::CallContext;
use crate::experiment::ArmUsed;
use crate::failure::Failure;
use crate::guards::without_mark;
use crate::meter::{Meter, estimate_tokens};
use crate::plan::{Plan, Principal};
use crate::record::{AppUsed, CallError, CallStatus, Permit, PromptUsed, Record, RecordKind};

/// What a record is a part of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    /// The span that it stands under.
    pub parent: Option<SpanId>,
    /// The app, and the step of it.
    pub app: Option<AppUsed>,
    /// The prompt that was rendered before the call began.
    pub prompt: Option<PromptUsed>,
    /// The side of an experiment.
    pub arm: Option<ArmUsed>,
    /// The version of its prompt that a copy of a call is for.
    pub pinned: Option<i64>,
}

/// What is known when a record begins.
pub(crate) struct About<'a> {
    pub kind: RecordKind,
    pub principal: &'a Principal,
    pub context: &'a CallContext,
    pub part: Part,
    pub request_bytes: usize,
}

/// How a record was settled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled {
    pub usage: Option<Usage>,
    pub cost: Option<NanoUsd>,
    pub error: Option<CallError>,
    /// None only before the end.
    pub status: Option<CallStatus>,
    pub http_status: u16,
    pub output: Vec<Value>,
}

/// Owns the record and settles it exactly once; a drop without a settlement is a
/// client that went away, a stopped process, or a panic.
pub(crate) struct Settler {
    permit: Option<Permit>,
    record: Option<Box<Record>>,
    pub(crate) meter: Meter,
    /// What a record that is no model call gives out.
    pub(crate) output: Vec<Value>,
    /// What was hidden in the call's instructions; it is kept nowhere.
    pub(crate) mark: Option<String>,
    settled: Option<Settled>,
    span_id: SpanId,
    clock: Arc<dyn Clock>,
    plan: Arc<Plan>,
    model: String,
}

impl Settler {
    pub(crate) fn new(
        gateway: &Inner,
        permit: Permit,
        plan: &Arc<Plan>,
        about: &About<'_>,
    ) -> Self {
        let About {
            kind,
            principal,
            context,
            part,
            request_bytes,
        } = about;
        let now = gateway.clock.now_us();
        let span_id = gateway.ids.make();
        let record = Record {
            trace_id: context.trace_id,
            span_id,
            parent_span_id: context.parent_span_id,
            parent: part.parent,
            project: principal.project,
            environment: principal.environment.clone(),
            key_id: principal.key_id,
            caller: principal.user_id,
            kind: *kind,
            protocol: None,
            provider: None,
            request_model: String::new(),
            response_model: None,
            response_id: None,
            provider_request_id: None,
            prompt: part.prompt.clone(),
            app: part.app.clone(),
            arm: part.arm.clone(),
            guard: None,
            session: context.session.clone(),
            step: context.step,
            user: context.user.clone(),
            tags: context.tags.clone(),
            metadata: context.metadata.clone(),
            parameters: Map::new(),
            input: Vec::new(),
            output: Vec::new(),
            finish_reasons: Vec::new(),
            usage: None,
            cost: None,
            price_version: None,
            status: CallStatus::Cancelled,
            error: None,
            http_status: 499,
            streamed: false,
            started_at: now,
            first_token_at: None,
            ended_at: now,
            request_bytes: u64::try_from(*request_bytes).unwrap_or(u64::MAX),
            response_bytes: 0,
            plan_revision: plan.revision.clone(),
            attempts: 0,
            generated_chunks: 0,
            delivered_chunks: 0,
        };
        Self {
            permit: Some(permit),
            record: Some(Box::new(record)),
            meter: Meter::default(),
            output: Vec::new(),
            mark: None,
            settled: None,
            span_id,
            clock: gateway.clock.clone(),
            plan: plan.clone(),
            model: String::new(),
        }
    }

    /// Gives the record's place back: there is nothing to tell.
    pub(crate) fn discard(mut self) {
        self.permit = None;
        self.record = None;
    }

    /// The record that is being filled.
    #[expect(
        clippy::expect_used,
        reason = "a settled record is not written to: a bug of ours, never input"
    )]
    pub(crate) fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("the call is not settled yet")
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.permit.is_none()
    }

    pub(crate) fn started_s(&self) -> i64 {
        self.record
            .as_ref()
            .map_or(0, |record| record.started_at / 1_000_000)
    }

    pub(crate) fn set_target(&mut self, protocol: &'static str, provider: &str, model: &str) {
        model.clone_into(&mut self.model);
        let record = self.record_mut();
        record.protocol = Some(protocol);
        record.provider = Some(provider.to_owned());
    }

    pub(crate) fn set_context(&mut self, context: &CallContext) {
        let record = self.record_mut();
        record.session.clone_from(&context.session);
        record.step = context.step;
        record.user.clone_from(&context.user);
        record.tags.clone_from(&context.tags);
        record.metadata.clone_from(&context.metadata);
    }

    pub(crate) fn first_token(&mut self) {
        let now = self.clock.now_us();
        if let Some(record) = &mut self.record {
            record.first_token_at.get_or_insert(now);
        }
    }

    pub(crate) fn delivered(&mut self, bytes: usize, real: bool) {
        if let Some(record) = &mut self.record {
            record.response_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
            record.delivered_chunks += u64::from(real);
        }
    }

    pub(crate) fn fail(&mut self, failure: &Failure) {
        let error = CallError {
            kind: failure.error.code.clone(),
            message: match &failure.detail {
                Some(detail) => detail.to_string(),
                None => failure.error.message.clone(),
            },
        };
        self.settle_with(
            CallStatus::Error,
            Some(error),
            failure.error.status.as_u16(),
        );
    }

    pub(crate) fn settle(&mut self, status: CallStatus, error: Option<CallError>) {
        self.settle_with(status, error, 200);
    }

    /// How it ended, once it has.
    pub(crate) fn settled(&self) -> Option<&Settled> {
        self.settled.as_ref()
    }

    /// The provider's name, as far as it is known.
    pub(crate) fn provider(&self) -> &str {
        let record = self.record.as_ref();
        record
            .and_then(|record| record.provider.as_deref())
            .unwrap_or_default()
    }

    /// The record's own span.
    pub(crate) fn span(&self) -> SpanId {
        self.span_id
    }

    /// Whether the record is of a model's work, which the meter has followed.
    fn is_of_model(kind: RecordKind) -> bool {
        matches!(kind, RecordKind::Chat | RecordKind::Embedding)
    }

    pub(crate) fn settle_with(
        &mut self,
        status: CallStatus,
        error: Option<CallError>,
        http_status: u16,
    ) {
        let (Some(permit), Some(mut record)) = (self.permit.take(), self.record.take()) else {
            return;
        };
        record.status = status;
        record.error = error;
        record.http_status = http_status;
        record.ended_at = self.clock.now_us();
        record.output = match record.kind {
            RecordKind::Embedding => Vec::new(),
            RecordKind::Chat => self.meter.messages(),
            _ => std::mem::take(&mut self.output),
        };
        if let Some(mark) = &self.mark {
            let said = record.output.iter_mut();
            said.for_each(|message| without_mark(message, mark));
        }
        record.finish_reasons = self.meter.finish_reasons();
        record.response_model = self.meter.response_model.take();
        record.response_id = self.meter.response_id.take();
        record.generated_chunks = self.meter.generated_chunks;
        if Self::is_of_model(record.kind) {
            record.usage = self.usage(&record);
            (record.cost, record.price_version) = self.price(&record);
        }
        self.settled = Some(Settled {
            usage: record.usage,
            cost: record.cost,
            error: record.error.clone(),
            status: Some(record.status),
            http_status: record.http_status,
            output: record.output.clone(),
        });
        permit.settle(*record);
    }

    /// The provider's counts; where it sent none, or not the last ones, ours.
    fn usage(&self, record: &Record) -> Option<Usage> {
        let whole = record.status == CallStatus::Ok || self.meter.has_finished();
        match self.meter.usage {
            Some(usage) if whole => Some(usage),
            Some(usage) => {
                let output = usage.output.max(self.meter.estimated_output());
                Some(Usage {
                    output,
                    estimated: true,
                    ..usage
                })
            }
            // A cancelled call was sent, so its input was probably read and will be charged.
            None if self.meter.has_output()
                || (record.status == CallStatus::Cancelled && record.attempts > 0) =>
            {
                let input = record
                    .input
                    .iter()
                    .map(|message| estimate_tokens(&message.to_string()))
                    .sum();
                Some(Usage {
                    input,
                    output: self.meter.estimated_output(),
                    estimated: true,
                    ..Usage::default()
                })
            }
            None => None,
        }
    }

    fn price(&self, record: &Record) -> (Option<NanoUsd>, Option<String>) {
        let project = self.plan.projects.get(&record.project);
        let (Some(project), Some(usage), Some(provider)) =
            (project, &record.usage, &record.provider)
        else {
            return (None, None);
        };
        match project.prices.find(provider, &self.model) {
            Some(row) => (Some(row.cost(usage)), Some(project.prices.version.clone())),
            None => (None, None),
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = CallError {
                kind: "panic".to_owned(),
                message: "the call stopped by a bug".to_owned(),
            };
            self.settle_with(CallStatus::Error, Some(error), 500);
        } else {
            self.settle_with(CallStatus::Cancelled, None, 499);
        }
    }
}
