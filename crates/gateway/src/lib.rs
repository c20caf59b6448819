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

mod app;
mod body;
mod call;
mod context;
pub mod egress;
mod embedded;
mod error;
mod experiment;
mod failure;
mod guards;
mod local;
mod meter;
mod plan;
mod problem;
mod prompt;
mod providers;
mod record;
mod relay;
mod request;
mod settle;
mod shadow;
mod shape;
pub mod sse;

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::{Clock, Ids};
use bytes::Bytes;
use http::Response;
use serde::Serialize;

use call::Caller;
use settle::Part;

pub use app::{
    AgentLimits, AgentStep, AgentStream, AppDocument, AppReference, AppVersion, ChainStep, Graph,
    GraphEdge, GraphNode, GuardStep, HttpTool, Method, NamedExpression, OnBlock, Output,
    OutputKind, PromptSource, PromptStep, RetrieveStep, Step, Tool, ToolStep,
};
pub use body::{GatewayBody, TRACE_ID_HEADER};
pub use context::{CallContext, PromptRef, traceparent};
pub use egress::{Allow, Egress, EgressConfig, EgressError};
pub use error::ApiError;
pub use experiment::{Arm, ArmUsed, Experiment, Target, Unit};
pub use guards::AppGuards;
pub use local::{
    FinishReason, LocalChat, LocalEmbed, LocalEmbedding, LocalEmbeddings, LocalError, LocalEvent,
    LocalKind, LocalModel, LocalModels, LocalStream, TokenLogprob,
};
pub use plan::{
    App, GuardPolicies, GuardPolicy, KeyProblem, Limits, PinnedPrompt, Plan, PriceRow, PriceTable,
    Principal, ProjectPlan, Prompt, Protocol, Provider, Quirks, Release, Retry, Timeouts,
};
pub use problem::DocumentProblem;
pub use prompt::{
    Dialect, Example, Examples, FoundPrompt, MessageRole, Placeholder, PromptDocument, PromptItem,
    PromptLookup, PromptMention, PromptMessage, PromptType, PromptVersion, RenderWith, Rendered,
    Select, SelectBy, Show, Variable, check_template, find_prompt, refer, render_preview,
    render_template,
};
pub use shape::read_shape;

pub use record::{
    AppUsed, Busy, CallError, CallKind, CallStatus, GuardUsed, Permit, PromptUsed, Record,
    RecordKind, Recorder,
};

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
    /// Releases that conversations began with.
    conversations: app::Sticky,
    shadows: shadow::Shadows,
    /// Of examples that are chosen by embedding.
    vectors: embedded::ExampleVectors,
    /// Of instructions that guards look for in answers.
    prompts: guards::PromptIndexes,
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
        Self {
            inner: Arc::new(Inner {
                plan,
                egress,
                local,
                recorder,
                clock,
                ids,
                conversations: app::Sticky::default(),
                shadows: shadow::Shadows::new(),
                vectors: embedded::ExampleVectors::default(),
                prompts: guards::PromptIndexes::default(),
            }),
        }
    }

    /// The plan of this moment. Load it once per request and keep it.
    pub fn plan(&self) -> Arc<Plan> {
        self.inner.plan.load_full()
    }

    /// See [`test_provider`].
    ///
    /// # Errors
    /// As there.
    pub async fn test_provider(&self, provider: &Provider) -> Result<Vec<String>, String> {
        test_provider(&self.inner.egress, provider).await
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
        let caller = self.caller(plan, principal);
        call::run(caller, CallKind::Chat, context, body, Part::default()).await
    }

    /// Runs a release that is not in the plan, for an editor that tries a draft
    /// out: as a chat completion, recorded without a release's number. The body is
    /// that of a chat completion; its `model` does not matter.
    pub async fn run_draft(
        &self,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: CallContext,
        release: Arc<Release>,
        body: Bytes,
    ) -> Response<GatewayBody> {
        let caller = self.caller(plan, principal);
        Box::pin(app::serve_draft(caller, context, &release, body)).await
    }

    fn caller<'a>(&'a self, plan: &'a Arc<Plan>, principal: &'a Principal) -> Caller<'a> {
        Caller {
            gateway: &self.inner,
            plan,
            principal,
        }
    }

    /// Waits a moment for what runs beside the calls, then ends it. To be called
    /// once no more calls come, and before the recorder closes.
    pub async fn close(&self) {
        self.inner.shadows.close().await;
    }

    /// `POST /v1/embeddings`.
    pub async fn embeddings(
        &self,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: CallContext,
        body: Bytes,
    ) -> Response<GatewayBody> {
        let caller = self.caller(plan, principal);
        call::run(caller, CallKind::Embedding, context, body, Part::default()).await
    }

    /// Asks a model what a guard's rules cannot tell, for a text that is of no call: a check for
    /// another gateway, a measurement. The question is a call of its own at the top of the
    /// context's trace, with its cost; no guard watches it. There is an answer in any case, by the
    /// question's deadline.
    pub async fn answer_guard(
        &self,
        plan: &Arc<Plan>,
        principal: &Principal,
        context: &CallContext,
        question: guard::Question,
    ) -> guard::Answer {
        guards::answer(self.caller(plan, principal), context, question).await
    }

    /// `GET /v1/models`: local models, each provider's listed ones, the project's apps.
    pub fn models(&self, plan: &Plan, principal: &Principal) -> Vec<ModelEntry> {
        models(&self.inner, plan, principal)
    }
}

/// How long a provider may take to list its models, and how many bytes.
const TEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
const TEST_BYTES: usize = 4 << 20;

fn models(gateway: &Inner, plan: &Plan, principal: &Principal) -> Vec<ModelEntry> {
    let local = gateway.local.list().into_iter().map(|model| ModelEntry {
        id: format!("local/{}", model.name),
        object: "model",
        created: model.installed_at / 1_000_000,
        owned_by: "local".to_owned(),
    });
    let project = plan.projects.get(&principal.project);
    let providers = project
        .into_iter()
        .flat_map(|project| project.providers.values());
    let remote = providers.flat_map(|provider| {
        provider.models.iter().map(|model| ModelEntry {
            id: format!("{}/{model}", provider.name),
            object: "model",
            created: 0,
            owned_by: provider.name.clone(),
        })
    });
    let apps = project.into_iter().flat_map(|project| &project.apps);
    let callable = |app: &App| app.environments.contains_key(&principal.environment);
    let apps = apps
        .filter(|(_, app)| callable(app))
        .map(|(name, _)| ModelEntry {
            id: name.clone(),
            object: "model",
            created: 0,
            owned_by: "app".to_owned(),
        });
    local.chain(remote).chain(apps).collect()
}

/// The known name that is most like a wrong one, if any is like it.
fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let score = |name: &str| {
        // People forget the provider more often than they misspell the model.
        let bare = name.split_once('/').map_or(name, |(_, bare)| bare);
        strsim::jaro_winkler(wrong, name).max(strsim::jaro_winkler(wrong, bare))
    };
    let scored = known
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score >= ALIKE);
    scored
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
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
    /// `local`, `app` or the provider's name.
    pub owned_by: String,
}

/// Whether a provider answers, and the models that it lists.
///
/// # Errors
/// What a person should know; never the provider's own words.
pub async fn test_provider(egress: &Egress, provider: &Provider) -> Result<Vec<String>, String> {
    let request = match provider.protocol {
        Protocol::OpenAi => providers::openai::list_models(provider),
        Protocol::Anthropic => providers::anthropic::request(provider, "models?limit=1000", None),
    };
    let words = |error: &EgressError| providers::unreachable_words(error);
    let allow = if provider.allow_private {
        Allow::Private
    } else {
        Allow::Public
    };
    let request = request.map_err(|error| words(&error))?;
    let response = egress.send(request, allow, TEST_TIMEOUT).await;
    let (head, mut body) = response.map_err(|error| words(&error))?.into_parts();
    match head.status.as_u16() {
        200..=299 => {}
        401 | 403 => return Err("it does not accept the credential".to_owned()),
        status => {
            return Err(format!(
                "it answered with status {status} when asked for its models"
            ));
        }
    }
    let body = egress::read_capped(&mut body, TEST_BYTES, TEST_TIMEOUT)
        .await
        .map_err(|error| words(&error))?;
    let answer: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|_| "its list of models cannot be read".to_owned())?;
    let models = answer["data"]
        .as_array()
        .ok_or("its list of models cannot be read")?;
    Ok(models
        .iter()
        .filter_map(|model| model["id"].as_str().map(str::to_owned))
        .collect())
}
