//! The data plane: runs a [`Plan`], speaks the providers' protocols, hands one
//! [`Record`] per call on.
//!
//! In: a request body, who sent it, and the plan of this moment. Out: a response
//! whose body streams, and exactly one record when the call ends, however it
//! ends. No SQL, no HTML, no web framework, no model code: local models come in
//! through [`LocalModels`].
//!
//! The way of a call: `request.rs` reads the few fields that matter and prepares
//! the caller's bytes; `call.rs` makes attempts, holds a stream until its first
//! real token, relays it, and settles; `providers/` knows the wire formats.

mod body;
mod context;
pub mod egress;
mod error;
mod local;
mod plan;
mod record;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::{Clock, Ids};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

pub use body::{GatewayBody, TRACE_ID_HEADER};
pub use context::{CallContext, PromptRef};
pub use egress::{Allow, Egress, EgressConfig, EgressError};
pub use error::ApiError;
pub use local::{
    FinishReason, LocalChat, LocalEmbed, LocalEmbedding, LocalEmbeddings, LocalError, LocalEvent, LocalKind,
    LocalModel, LocalModels, LocalStream, TokenLogprob,
};
pub use plan::{
    KeyProblem, Limits, Plan, PriceRow, PriceTable, Principal, ProjectPlan, Prompt, PromptMessage, PromptVersion,
    Protocol, Provider, Quirks, Retry, Timeouts,
};
pub use record::{Busy, CallError, CallKind, CallStatus, Permit, PromptUsed, Record, Recorder};

/// The data plane. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    plan: ArcSwap<Plan>,
    egress: Egress,
    local: Arc<dyn LocalModels>,
    recorder: Arc<dyn Recorder>,
    clock: Arc<dyn Clock>,
    ids: Ids,
}

impl Gateway {
    /// A gateway with an empty plan: it knows nobody until [`Gateway::set_plan`].
    pub fn new(
        egress: Egress,
        local: Arc<dyn LocalModels>,
        recorder: Arc<dyn Recorder>,
        clock: Arc<dyn Clock>,
        ids: Ids,
    ) -> Self {
        let plan = ArcSwap::from_pointee(Plan::default());
        Self { inner: Arc::new(Inner { plan, egress, local, recorder, clock, ids }) }
    }

    /// The plan of this moment. Load it once per request and keep it.
    pub fn plan(&self) -> Arc<Plan> {
        self.inner.plan.load_full()
    }

    /// Swaps the whole plan; calls that run keep theirs.
    pub fn set_plan(&self, plan: Plan) {
        self.inner.plan.store(Arc::new(plan));
    }

    /// `POST /v1/chat/completions`. Also what the playground calls, in process.
    pub async fn chat_completions(
        &self,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: CallContext,
        body: Bytes,
    ) -> Response<GatewayBody> {
        let _ = (plan, principal, body);
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", "in work").into_response(Some(context.trace_id))
    }

    /// `POST /v1/embeddings`.
    pub async fn embeddings(
        &self,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: CallContext,
        body: Bytes,
    ) -> Response<GatewayBody> {
        self.chat_completions(plan, principal, context, body).await
    }

    /// `GET /v1/models`: local models, then each provider's listed ones.
    pub fn models(&self, plan: &Plan, principal: &Principal) -> Vec<ModelEntry> {
        let local = self.inner.local.list().into_iter().map(|model| ModelEntry {
            id: format!("local/{}", model.name),
            object: "model",
            created: model.installed_at / 1_000_000,
            owned_by: "local".to_owned(),
        });
        let project = plan.projects.get(&principal.project);
        let providers = project.into_iter().flat_map(|project| project.providers.values());
        let remote = providers.flat_map(|provider| {
            provider.models.iter().map(|model| ModelEntry {
                id: format!("{}/{model}", provider.name),
                object: "model",
                created: 0,
                owned_by: provider.name.clone(),
            })
        });
        local.chain(remote).collect()
    }

    /// Whether a provider answers, and the models that it lists.
    ///
    /// # Errors
    /// What a person should know; never the provider's own words.
    pub async fn test_provider(&self, provider: &Provider) -> Result<Vec<String>, String> {
        let _ = provider;
        Err("in work".to_owned())
    }
}

/// A row of `GET /v1/models`, in the OpenAI shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// What to write as `model`.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Seconds since the epoch; 0 when unknown.
    pub created: i64,
    /// `local` or the provider's name.
    pub owned_by: String,
}
