//! One gateway, one fake provider under three names, and every record kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{Id as _, Ids, Price, ProjectId, Secret, SystemClock, SystemRandom, TraceId};
use base64::Engine as _;
use bytes::Bytes;
use gateway::{
    Busy, CallContext, Egress, EgressConfig, FinishReason, Gateway, GatewayBody, LocalChat,
    LocalEmbed, LocalEmbedding, LocalEmbeddings, LocalError, LocalEvent, LocalKind, LocalModel,
    LocalModels, LocalStream, Permit, Plan, PriceRow, PriceTable, Principal, ProjectPlan, Protocol,
    Provider, Quirks, Record, Recorder, Retry, Timeouts, TokenLogprob,
};
use http::Response;
use serde_json::Value;
use testkit::provider::FakeProvider;

/// The credential that must never come out.
pub(crate) const SECRET: &str = "sk-canary-0123456789";

/// Keeps records and counts places.
#[derive(Default)]
pub(crate) struct Sink {
    pub records: Mutex<Vec<Record>>,
    pub admitted: AtomicUsize,
    pub full: std::sync::atomic::AtomicBool,
}

struct SinkRecorder(Arc<Sink>);

impl Recorder for SinkRecorder {
    fn admit(&self) -> Result<Permit, Busy> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(Busy { retry_after_s: 7 });
        }
        self.0.admitted.fetch_add(1, Ordering::SeqCst);
        let sink = self.0.clone();
        Ok(Permit::new(move |record| {
            sink.records.lock().unwrap().push(record)
        }))
    }
}

pub(crate) struct Rig {
    pub gateway: Gateway,
    pub provider: FakeProvider,
    pub sink: Arc<Sink>,
    pub principal: Principal,
    ids: Ids,
}

impl Rig {
    /// Providers `open` (OpenAI) and `claude` (Anthropic), short time-outs, no waits between attempts.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl Fn(&mut Provider)) -> Self {
        Self::made(change, vector)
    }

    /// With a local embedding model that gives these vectors.
    pub(crate) fn embedding(vector: fn(&str) -> Vec<f32>) -> Self {
        Self::made(|_| {}, vector)
    }

    fn made(change: impl Fn(&mut Provider), vector: fn(&str) -> Vec<f32>) -> Self {
        let provider = FakeProvider::start();
        let sink = Arc::new(Sink::default());
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(SystemRandom));
        let egress = Egress::new(EgressConfig {
            connect_timeout: Duration::from_secs(2),
            ..EgressConfig::default()
        });
        let recorder = Arc::new(SinkRecorder(sink.clone()));
        let gateway = Gateway::new(
            egress,
            Arc::new(Parrot { vector }),
            recorder,
            Arc::new(SystemClock),
            ids.clone(),
        );
        let principal = Principal {
            key_id: Some(ids.make()),
            user_id: None,
            project: ProjectId::from_uuid_bytes([7; 16]),
            environment: "dev".to_owned(),
            role: "editor".to_owned(),
            expires_at: None,
        };
        let rig = Self {
            gateway,
            provider,
            sink,
            principal,
            ids,
        };
        let mut open = rig.describe("open", Protocol::OpenAi, &rig.provider.openai_url());
        let mut claude = rig.describe("claude", Protocol::Anthropic, &rig.provider.url());
        change(&mut open);
        change(&mut claude);
        rig.set_project(|project| {
            project
                .providers
                .insert("open".to_owned(), Arc::new(open.clone()));
            project
                .providers
                .insert("claude".to_owned(), Arc::new(claude.clone()));
        });
        rig
    }

    pub(crate) fn describe(&self, name: &str, protocol: Protocol, url: &str) -> Provider {
        Provider {
            name: name.to_owned(),
            protocol,
            base_url: base::net::parse_base_url(url).unwrap(),
            credential: Some(Secret::new(SECRET.to_owned())),
            allow_private: true,
            timeouts: Timeouts {
                headers: Duration::from_secs(5),
                first_token: Duration::from_secs(5),
                idle: Duration::from_secs(5),
                total: Duration::from_secs(20),
            },
            retry: Retry {
                attempts: 3,
                backoff: Duration::from_millis(1),
                longest_wait: Duration::from_secs(1),
            },
            quirks: Quirks::default(),
            models: vec!["fake-large".to_owned()],
        }
    }

    /// Changes the project and swaps the plan.
    pub(crate) fn set_project(&self, change: impl FnOnce(&mut ProjectPlan)) {
        let old = self.gateway.plan();
        let mut project = match old.projects.get(&self.principal.project) {
            Some(project) => ProjectPlan::clone(project),
            None => ProjectPlan {
                prices: Arc::new(prices()),
                ..ProjectPlan::default()
            },
        };
        change(&mut project);
        self.set_plan(|plan| {
            plan.projects
                .insert(self.principal.project, Arc::new(project));
        });
    }

    /// Changes the plan and swaps it.
    pub(crate) fn set_plan(&self, change: impl FnOnce(&mut Plan)) {
        let old = self.gateway.plan();
        let mut plan = Plan {
            revision: "r1".to_owned(),
            keys: old.keys.clone(),
            projects: old.projects.clone(),
            limits: old.limits,
        };
        change(&mut plan);
        self.gateway.set_plan(plan);
    }

    pub(crate) fn context(&self) -> CallContext {
        CallContext::new(self.ids.make::<TraceId>())
    }

    pub(crate) async fn chat(&self, body: impl Into<Bytes>) -> Response<GatewayBody> {
        self.chat_with(self.context(), body).await
    }

    pub(crate) async fn chat_with(
        &self,
        context: CallContext,
        body: impl Into<Bytes>,
    ) -> Response<GatewayBody> {
        let plan = self.gateway.plan();
        self.gateway
            .chat_completions(&plan, &self.principal, context, body.into())
            .await
    }

    /// A chat's status and whole body.
    pub(crate) async fn chat_text(&self, body: impl Into<Bytes>) -> (u16, String) {
        read(self.chat(body).await).await
    }

    /// A chat's status and body as JSON.
    pub(crate) async fn chat_json(&self, body: &Value) -> (u16, Value) {
        let (status, text) = self.chat_text(body.to_string()).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub(crate) async fn embed_json(&self, body: &Value) -> (u16, Value) {
        let plan = self.gateway.plan();
        let body = Bytes::from(body.to_string());
        let response = self
            .gateway
            .embeddings(&plan, &self.principal, self.context(), body)
            .await;
        let (status, text) = read(response).await;
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// The only record there is.
    pub(crate) fn record(&self) -> Record {
        let records = self.sink.records.lock().unwrap();
        assert_eq!(records.len(), 1, "{records:#?}");
        records[0].clone()
    }

    /// The newest record.
    pub(crate) fn last_record(&self) -> Record {
        self.sink.records.lock().unwrap().last().unwrap().clone()
    }

    /// Waits until the provider has nothing left to answer: everything was cancelled or ended.
    pub(crate) async fn provider_is_idle(&self) {
        for _ in 0..1000 {
            if self.provider.open_answers() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "the provider is still answering {} requests",
            self.provider.open_answers()
        );
    }
}

pub(crate) async fn read(response: Response<GatewayBody>) -> (u16, String) {
    let status = response.status().as_u16();
    assert!(response.headers().contains_key("x-meguri-trace-id"));
    let bytes = response.into_body().collect_bytes().await;
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// A chat request that streams.
pub(crate) fn stream_request(model: &str) -> String {
    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hi"}}]}}"#)
}

/// A chat request that does not stream.
pub(crate) fn request(model: &str) -> String {
    stream_request(model).replace("\"stream\":true,", "")
}

/// The data of a stream's events.
pub(crate) fn events(stream: &str) -> Vec<String> {
    stream
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: ").map(str::to_owned))
        .collect()
}

fn prices() -> PriceTable {
    let row = |provider: &str, model: &str, input, output, cache_read, cache_write| PriceRow {
        provider: provider.to_owned(),
        model: model.to_owned(),
        input: Price(input),
        output: Price(output),
        cache_read,
        cache_write,
    };
    let rows = vec![
        row(
            "open",
            "fake-large",
            2_000_000_000,
            8_000_000_000,
            Some(Price(500_000_000)),
            None,
        ),
        row(
            "claude",
            "fake-*",
            3_000_000_000,
            15_000_000_000,
            Some(Price(300_000_000)),
            Some(Price(3_750_000_000)),
        ),
    ];
    PriceTable {
        version: "2026-11".to_owned(),
        rows,
    }
}

/// Local models that say again what they were told, word by word.
pub(crate) struct Parrot {
    vector: fn(&str) -> Vec<f32>,
}

impl LocalModels for Parrot {
    fn list(&self) -> Vec<LocalModel> {
        let model = |name: &str, kind| LocalModel {
            name: name.to_owned(),
            kind,
            installed_at: 1_700_000_000_000_000,
        };
        vec![
            model("parrot", LocalKind::Chat),
            model("broken", LocalKind::Chat),
            model("vectors", LocalKind::Embedding),
        ]
    }

    fn chat(&self, request: LocalChat) -> LocalStream {
        assert!(
            !request
                .messages
                .iter()
                .any(|message| message["content"] == "panic"),
            "the parrot is angry"
        );
        if request.model == "broken" {
            let events = vec![
                Ok(text("a", false)),
                Err(LocalError::Failed("no memory".to_owned())),
            ];
            return Box::pin(futures_util::stream::iter(events));
        }
        let last = request
            .messages
            .last()
            .and_then(|m| m["content"].as_str())
            .unwrap_or_default()
            .to_owned();
        let last = match last.contains("in base64") {
            true => base64::engine::general_purpose::STANDARD.encode(last),
            false => last,
        };
        if last == "stall" {
            return Box::pin(futures_util::stream::pending());
        }
        let most = request.max_tokens.map_or(usize::MAX, |most| most as usize);
        let words: Vec<String> = last.split_inclusive(' ').map(str::to_owned).collect();
        let cut = words.len() > most;
        let words: Vec<String> = words.into_iter().take(most).collect();
        let usage = base::Usage {
            input: 5,
            output: words.len() as u64,
            ..base::Usage::default()
        };
        let reason = if cut {
            FinishReason::Length
        } else {
            FinishReason::Stop
        };
        let mut events: Vec<Result<LocalEvent, LocalError>> = words
            .iter()
            .map(|word| Ok(text(word, request.top_logprobs.is_some())))
            .collect();
        events.push(Ok(LocalEvent::Finish { reason, usage }));
        Box::pin(futures_util::stream::iter(events))
    }

    fn embed(&self, request: LocalEmbed) -> LocalEmbedding {
        let vectors = request.inputs.iter().map(|text| (self.vector)(text));
        let vectors: Vec<Vec<f32>> = vectors.collect();
        Box::pin(async move {
            Ok(LocalEmbeddings {
                input_tokens: 4,
                vectors,
            })
        })
    }
}

/// Two topics that have words of their own; everything else is alike.
fn vector(text: &str) -> Vec<f32> {
    let has = |words: [&str; 2]| words.iter().any(|word| text.contains(word));
    if has(["package", "delivery"]) {
        return vec![2.0, 0.1];
    }
    if has(["invoice", "refund"]) {
        return vec![0.1, 2.0];
    }
    vec![1.0, -0.5]
}

fn text(text: &str, logprobs: bool) -> LocalEvent {
    let entry = TokenLogprob {
        token: text.to_owned(),
        bytes: text.as_bytes().to_vec(),
        logprob: -0.5,
        top: vec![(text.to_owned(), text.as_bytes().to_vec(), -0.5)],
    };
    LocalEvent::Text {
        text: text.to_owned(),
        logprobs: if logprobs { vec![entry] } else { Vec::new() },
    }
}

/// Metadata as sorted text, for comparing.
pub(crate) fn sorted(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
