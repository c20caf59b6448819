//! What an app adds to a call: from its name to its release, its checked inputs
//! and its compiled steps.
//!
//! `cargo run --release -p gateway --example app_speed` prints medians of many
//! calls in microseconds, one line for each case:
//!
//! - `request_read`: a call of a model that is refused for want of messages:
//!   reading the request and its record, which every call has.
//! - `app_resolved`: a call of one of 1,000 apps, of four steps that are all
//!   skipped: everything of an app but the work of its steps.
//! - `app_resolution_adds`: the difference, which is what the target is about.
//! - `model_called`, `app_of_one_step`: a local model that answers at once, called
//!   directly and as the only step of an app, which has a record and a rendered
//!   prompt more.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Digest, Id as _, Ids, ProjectId, SystemClock, SystemRandom, TraceId, Usage};
use bytes::Bytes;
use gateway::{
    App, AppDocument, AppVersion, Busy, CallContext, Egress, EgressConfig, FinishReason, Gateway,
    LocalChat, LocalEmbed, LocalEmbedding, LocalError, LocalEvent, LocalKind, LocalModel,
    LocalModels, LocalStream, Permit, Plan, Principal, ProjectPlan, Recorder, Release,
};
use serde_json::{Value, json};

const RUNS: usize = 20_000;
const APPS: usize = 1_000;

/// Answers one word at once.
struct Instantly;

impl LocalModels for Instantly {
    fn list(&self) -> Vec<LocalModel> {
        vec![LocalModel {
            name: "instant".to_owned(),
            kind: LocalKind::Chat,
            installed_at: 0,
        }]
    }

    fn chat(&self, _request: LocalChat) -> LocalStream {
        let text = LocalEvent::Text {
            text: "Yes.".to_owned(),
            logprobs: Vec::new(),
        };
        let end = LocalEvent::Finish {
            reason: FinishReason::Stop,
            usage: Usage::default(),
        };
        Box::pin(futures_util::stream::iter([Ok(text), Ok(end)]))
    }

    fn embed(&self, request: LocalEmbed) -> LocalEmbedding {
        Box::pin(async move { Err(LocalError::UnknownModel(request.model)) })
    }
}

/// Takes records and keeps none.
struct Nowhere;

impl Recorder for Nowhere {
    fn admit(&self) -> Result<Permit, Busy> {
        Ok(Permit::new(drop))
    }
}

fn release(name: &str, document: &Value) -> Arc<App> {
    let document = AppDocument::parse(document).unwrap_or_else(|problems| panic!("{problems:?}"));
    let digest = Digest::of(name.as_bytes());
    let release = Arc::new(Release {
        name: name.to_owned(),
        number: 1,
        digest,
        app: Arc::new(AppVersion::new(digest, document)),
        prompts: HashMap::new(),
        guards: HashMap::new(),
        credentials: HashMap::new(),
    });
    Arc::new(App {
        environments: [("dev".to_owned(), release.clone())].into(),
        releases: [(1, release)].into(),
    })
}

/// Four steps that feed each other.
fn four_steps(when: &str) -> Value {
    let step = |id: &str, from: &str| {
        json!({"id": id, "type": "prompt", "model": "local/instant", "when": when, "variables": {"x": from},
            "prompt": {"messages": [{"role": "user", "content": "Go on: {{ x }}"}]}})
    };
    json!({
        "inputs": {"type": "object", "required": ["question"], "additionalProperties": false,
            "properties": {"question": {"type": "string", "maxLength": 2000}, "loud": {"type": "boolean", "default": false}}},
        "steps": [step("a", "inputs.question"), step("b", "steps.a.text"), step("c", "steps.b.text"), step("d", "steps.c.text")],
    })
}

struct Bench {
    gateway: Gateway,
    plan: Arc<Plan>,
    principal: Principal,
    ids: Ids,
}

impl Bench {
    fn new() -> Self {
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(SystemRandom));
        let gateway = Gateway::new(
            Egress::new(EgressConfig::default()),
            Arc::new(Instantly),
            Arc::new(Nowhere),
            Arc::new(SystemClock),
            ids.clone(),
        );
        let principal = Principal {
            key_id: None,
            user_id: None,
            project: ProjectId::from_uuid_bytes([7; 16]),
            environment: "dev".to_owned(),
            role: "caller".to_owned(),
            expires_at: None,
        };
        let mut project = ProjectPlan::default();
        for number in 0..APPS {
            let name = format!("team/app{number}");
            project
                .apps
                .insert(name.clone(), release(&name, &four_steps("inputs.loud")));
        }
        let one = json!({"steps": [{"id": "a", "type": "prompt", "model": "local/instant",
            "variables": {"x": "inputs.question"}, "prompt": {"messages": [{"role": "user", "content": "{{ x }}"}]}}]});
        project.apps.insert("one".to_owned(), release("one", &one));
        let mut plan = Plan::default();
        plan.projects.insert(principal.project, Arc::new(project));
        gateway.set_plan(plan);
        let plan = gateway.plan();
        Self {
            gateway,
            plan,
            principal,
            ids,
        }
    }

    async fn call(&self, body: &Bytes, status: u16) -> Duration {
        let context = CallContext::new(self.ids.make::<TraceId>());
        let started = Instant::now();
        let answer =
            self.gateway
                .chat_completions(&self.plan, &self.principal, context, body.clone());
        let answer = answer.await;
        let time = started.elapsed();
        assert_eq!(answer.status(), status, "{:?}", body);
        time
    }

    async fn median(&self, model: &str, status: u16) -> f64 {
        let messages = match status {
            200 => json!([{"role": "user", "content": "Where is my parcel of day 3?"}]),
            _ => Value::Null,
        };
        let body = json!({"model": model, "user": "aki", "messages": messages});
        let body = Bytes::from(body.to_string());
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            times.push(self.call(&body, status).await);
        }
        times.sort_unstable();
        times[RUNS / 2].as_secs_f64() * 1e6
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let bench = Bench::new();
    let read = bench.median("local/instant", 400).await;
    let resolved = bench.median("team/app500", 200).await;
    let mut out = std::io::stdout();
    for (name, time) in [
        ("request_read", read),
        ("app_resolved", resolved),
        ("app_resolution_adds", resolved - read),
        ("model_called", bench.median("local/instant", 200).await),
        ("app_of_one_step", bench.median("one", 200).await),
    ] {
        writeln!(out, "{name} {time:.1}")?;
    }
    Ok(())
}
