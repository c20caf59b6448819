//! A fake provider that speaks real HTTP on loopback.
//!
//! It answers OpenAI chat completions, embeddings and models, and Anthropic
//! messages, streaming or not, and misbehaves on demand: stalls, dies in the
//! middle of a frame, sends garbage, errors, or far too much. It runs on its own
//! thread, so it works under any test runtime, and stops when dropped. Every
//! request is kept with its exact bytes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Sleep;

/// How one request is answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The pieces of text, one stream event each.
    pub text: Vec<String>,
    /// Tool calls: name and arguments.
    pub tools: Vec<(String, Value)>,
    /// The `usage` object, in the words of the protocol that is spoken; a plausible one when none.
    pub usage: Option<Value>,
    /// A pause before every event of a stream.
    pub pace: Duration,
    /// What goes wrong.
    pub fault: Fault,
}

/// What goes wrong. Counts are stream events that still come before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The request is read and never answered.
    StallBeforeHeaders,
    /// Nothing more comes, and the connection stays.
    StallAfter(usize),
    /// The connection breaks in the middle of the next event.
    DieAfter(usize),
    /// The response ends cleanly, but too early.
    EndAfter(usize),
    /// Half of the next event, and then a clean end of the response.
    HalfAfter(usize),
    /// An event that is not the protocol.
    GarbageAfter(usize),
    /// An error in the stream, in the protocol's shape, and then the stream's good end.
    ErrorAfter(usize),
    /// Events without any model output (role, pings) come for ever.
    NeverReal,
    /// One event, or one body, of this many bytes.
    Huge(usize),
    /// This status, these headers, this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Exactly these bytes with status 200 and this content type, in these chunks.
    Raw(&'static str, Vec<Bytes>),
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            text: ["Hello", " from", " the", " fake", " provider."]
                .map(str::to_owned)
                .to_vec(),
            tools: Vec::new(),
            usage: None,
            pace: Duration::ZERO,
            fault: Fault::None,
        }
    }
}

impl Answer {
    /// The usual text with this fault.
    pub fn faulty(fault: Fault) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// This text, in one piece.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: vec![text.into()],
            ..Self::default()
        }
    }

    /// Exactly this JSON, for whoever is no model.
    pub fn json(value: &Value) -> Self {
        let body = Bytes::from(value.to_string());
        Self::faulty(Fault::Raw("application/json", vec![body]))
    }

    /// An error status with this body.
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self::faulty(Fault::Status(status, Vec::new(), body.into()))
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `POST` …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The exact bytes.
    pub body: Bytes,
}

impl Seen {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// The running fake.
#[derive(Debug)]
pub struct FakeProvider {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    next: Mutex<VecDeque<Answer>>,
    always: Mutex<Answer>,
    rules: Mutex<Vec<(String, Answer)>>,
    seen: Mutex<Vec<Seen>>,
    open: AtomicUsize,
    connections: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeProvider {
    /// Starts on a free loopback port.
    ///
    /// # Panics
    /// Without a free port or a thread there is nothing to test.
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let (stop, stopped) = oneshot::channel();
        let (send, receive) = std::sync::mpsc::channel();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("a free port");
                send.send(listener.local_addr().expect("an address"))
                    .expect("the starter waits");
                tokio::select! {
                    () = serve(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = receive.recv().expect("the fake provider starts");
        Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// `http://127.0.0.1:PORT`, what an Anthropic client takes.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `http://127.0.0.1:PORT/v1`, what an OpenAI client takes.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Answers one coming request like this; calls queue up.
    pub fn next(&self, answer: Answer) {
        lock(&self.state.next).push_back(answer);
    }

    /// Forgets what is queued.
    pub fn forget_next(&self) {
        lock(&self.state.next).clear();
    }

    /// Answers every request that has nothing queued like this.
    pub fn always(&self, answer: Answer) {
        *lock(&self.state.always) = answer;
    }

    /// Answers every request whose path or body holds this text like this, whatever
    /// is queued; the newest rule that fits counts.
    pub fn when(&self, text: impl Into<String>, answer: Answer) {
        lock(&self.state.rules).push((text.into(), answer));
    }

    /// Requests so far, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// Answers that are being given at this moment: 0 again soon after a client
    /// has cancelled.
    pub fn open_answers(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Dropped with the thread, which ends every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, state.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that goes away is part of many tests.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Counts an answer as open until it is dropped.
struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self(state.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<FakeBody>, Infallible> {
    let open = Open::new(&state);
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let path = head
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let seen = Seen {
        method: head.method.to_string(),
        path: path.clone(),
        headers: head.headers,
        body,
    };
    let request = seen.json();
    let plan = choose(&state, &seen);
    lock(&state.seen).push(seen);
    if plan.fault == Fault::StallBeforeHeaders {
        std::future::pending::<()>().await;
    }
    Ok(respond(head.uri.path(), &request, &plan, open))
}

fn choose(state: &State, seen: &Seen) -> Answer {
    let text = format!("{} {}", seen.path, String::from_utf8_lossy(&seen.body));
    let rules = lock(&state.rules);
    if let Some((_, answer)) = rules.iter().rev().find(|(part, _)| text.contains(part)) {
        return answer.clone();
    }
    drop(rules);
    let queued = lock(&state.next).pop_front();
    queued.unwrap_or_else(|| lock(&state.always).clone())
}

fn respond(path: &str, request: &Value, plan: &Answer, open: Open) -> Response<FakeBody> {
    let stream = request["stream"] == true;
    match &plan.fault {
        Fault::Status(status, headers, body) => {
            let mut response = whole(body.clone(), open);
            *response.status_mut() =
                StatusCode::from_u16(*status).unwrap_or(StatusCode::IM_A_TEAPOT);
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_str(value) {
                    response.headers_mut().insert(*name, value);
                }
            }
            response
        }
        Fault::Raw(kind, chunks) => {
            let steps = chunks
                .iter()
                .map(|chunk| Step::Send(chunk.clone()))
                .collect();
            with_type(FakeBody::new(steps, open), kind)
        }
        _ if path.ends_with("/chat/completions") && stream => {
            streamed(openai_events(request, plan), plan, open)
        }
        _ if path.ends_with("/messages") && stream => {
            streamed(anthropic_events(request, plan), plan, open)
        }
        _ => {
            let body = match path.rsplit('/').next().unwrap_or_default() {
                "completions" => openai_answer(request, plan),
                "messages" => anthropic_answer(request, plan),
                "embeddings" => embeddings(request, plan),
                "models" => {
                    json!({ "object": "list", "data": [{ "id": "fake-large", "object": "model" }, { "id": "fake-small", "object": "model" }] })
                }
                _ => {
                    json!({ "error": { "message": "no such path", "type": "invalid_request_error" } })
                }
            };
            let mut text = body.to_string();
            if let Fault::Huge(bytes) = plan.fault {
                text.push_str(&" ".repeat(bytes));
            }
            broken_whole(text, plan, open)
        }
    }
}

/// A whole answer, or the beginning of one.
fn broken_whole(text: String, plan: &Answer, open: Open) -> Response<FakeBody> {
    let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let steps = match plan.fault {
        Fault::DieAfter(_) => vec![Step::Send(half), Step::Die],
        Fault::StallAfter(_) => vec![Step::Send(half), Step::Stall],
        Fault::EndAfter(_) | Fault::HalfAfter(_) => vec![Step::Send(half)],
        Fault::GarbageAfter(_) => vec![Step::Send(Bytes::from_static(b"<html>not json</html>"))],
        _ => return whole(text, open),
    };
    with_type(FakeBody::new(steps, open), "application/json")
}

fn whole(text: String, open: Open) -> Response<FakeBody> {
    with_type(
        FakeBody::new(vec![Step::Send(text.into())], open),
        "application/json",
    )
}

fn with_type(body: FakeBody, kind: &'static str) -> Response<FakeBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert("x-request-id", HeaderValue::from_static("fake-request-1"));
    response
}

fn streamed(events: Vec<String>, plan: &Answer, open: Open) -> Response<FakeBody> {
    with_type(
        FakeBody::new(steps(events, plan), open),
        "text/event-stream; charset=utf-8",
    )
}

fn steps(events: Vec<String>, plan: &Answer) -> Vec<Step> {
    let bad = match plan.fault {
        Fault::StallAfter(n)
        | Fault::DieAfter(n)
        | Fault::EndAfter(n)
        | Fault::HalfAfter(n)
        | Fault::GarbageAfter(n)
        | Fault::ErrorAfter(n) => n,
        Fault::NeverReal => 1,
        Fault::Huge(_) => 2,
        _ => usize::MAX,
    };
    let mut steps = Vec::new();
    for (index, event) in events.iter().enumerate() {
        if !plan.pace.is_zero() {
            steps.push(Step::Wait(plan.pace));
        }
        if index == bad {
            let half = Bytes::from(event[..event.len() / 2].to_owned());
            match plan.fault {
                Fault::StallAfter(_) => steps.push(Step::Stall),
                Fault::DieAfter(_) => steps.extend([
                    Step::Send(half),
                    Step::Wait(Duration::from_millis(1)),
                    Step::Die,
                ]),
                Fault::EndAfter(_) => {}
                Fault::HalfAfter(_) => steps.push(Step::Send(half)),
                Fault::GarbageAfter(_) => {
                    steps.push(Step::Send(Bytes::from_static(b"data: <garbage>\n\n")))
                }
                Fault::ErrorAfter(_) => {
                    let error = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "too much to do", "code": 529 } });
                    steps.push(Step::Send(
                        format!("event: error\ndata: {error}\n\n").into(),
                    ));
                    steps.push(Step::Send(Bytes::from_static(b"data: [DONE]\n\n")));
                }
                Fault::NeverReal => {
                    steps.extend([
                        Step::Wait(Duration::from_millis(5)),
                        Step::Repeat(Bytes::from_static(b": ping\n\n")),
                    ]);
                }
                Fault::Huge(bytes) => {
                    steps.push(Step::Send(
                        format!("data: \"{}\"\n\n", "x".repeat(bytes)).into(),
                    ));
                }
                _ => {}
            }
            return steps;
        }
        steps.push(Step::Send(event.clone().into()));
    }
    steps
}

fn openai_usage(plan: &Answer) -> Value {
    let output = plan.text.len() + plan.tools.len();
    let total = 12 + output;
    let usual = json!({ "prompt_tokens": 12, "completion_tokens": output, "total_tokens": total });
    plan.usage.clone().unwrap_or(usual)
}

fn openai_tools(plan: &Answer) -> Vec<Value> {
    let tools = plan
        .tools
        .iter()
        .enumerate()
        .map(|(index, (name, arguments))| {
            let function = json!({ "name": name, "arguments": arguments.to_string() });
            json!({ "id": format!("call_{index}"), "type": "function", "function": function })
        });
    tools.collect()
}

/// The whole answer. `echo` holds the request, so that a test sees what arrived.
fn openai_answer(request: &Value, plan: &Answer) -> Value {
    let mut message = json!({ "role": "assistant", "content": plan.text.concat() });
    if !plan.tools.is_empty() {
        message["content"] = Value::Null;
        message["tool_calls"] = openai_tools(plan).into();
    }
    json!({
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request["model"],
        "choices": [{ "index": 0, "message": message, "finish_reason": reason(plan), "logprobs": null }],
        "usage": openai_usage(plan),
        "system_fingerprint": "fp_fake",
        "echo": request,
    })
}

fn reason(plan: &Answer) -> &'static str {
    if plan.tools.is_empty() {
        "stop"
    } else {
        "tool_calls"
    }
}

fn openai_events(request: &Value, plan: &Answer) -> Vec<String> {
    let chunk = |choices: Value| {
        json!({
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": request["model"],
            "system_fingerprint": "fp_fake",
            "choices": choices,
        })
    };
    let delta = |delta: Value, reason: Option<&str>| {
        chunk(json!([{ "index": 0, "delta": delta, "finish_reason": reason }]))
    };
    let mut events = vec![delta(json!({ "role": "assistant", "content": "" }), None)];
    if plan.tools.is_empty() {
        events.extend(
            plan.text
                .iter()
                .map(|piece| delta(json!({ "content": piece }), None)),
        );
    }
    for (index, mut call) in openai_tools(plan).into_iter().enumerate() {
        let arguments = call["function"]["arguments"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        call["index"] = index.into();
        call["function"]["arguments"] = "".into();
        events.push(delta(json!({ "tool_calls": [call] }), None));
        let middle = arguments.len() / 2;
        for part in [&arguments[..middle], &arguments[middle..]] {
            let function = json!({ "arguments": part });
            events.push(delta(
                json!({ "tool_calls": [{ "index": index, "function": function }] }),
                None,
            ));
        }
    }
    events.push(delta(json!({}), Some(reason(plan))));
    if request["stream_options"]["include_usage"] == true {
        let mut usage = chunk(json!([]));
        usage["usage"] = openai_usage(plan);
        events.push(usage);
    }
    let mut events: Vec<String> = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn anthropic_usage(plan: &Answer) -> Value {
    let output = plan.text.len() + plan.tools.len();
    plan.usage
        .clone()
        .unwrap_or_else(|| json!({ "input_tokens": 12, "output_tokens": output }))
}

fn anthropic_reason(plan: &Answer) -> &'static str {
    if plan.tools.is_empty() {
        "end_turn"
    } else {
        "tool_use"
    }
}

fn anthropic_answer(request: &Value, plan: &Answer) -> Value {
    let mut content = vec![json!({ "type": "text", "text": plan.text.concat() })];
    content.extend(plan.tools.iter().enumerate().map(|(index, (name, input))| {
        json!({ "type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": input })
    }));
    json!({
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": content,
        "stop_reason": anthropic_reason(plan),
        "stop_sequence": null,
        "usage": anthropic_usage(plan),
    })
}

fn anthropic_events(request: &Value, plan: &Answer) -> Vec<String> {
    let mut first_usage = anthropic_usage(plan);
    first_usage["output_tokens"] = 1.into();
    let message = json!({
        "id": "msg_fake", "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": null, "usage": first_usage,
    });
    let mut events = vec![
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
    ];
    for piece in &plan.text {
        events.push(json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": piece } }));
    }
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({ "type": "ping" }));
    for (index, (name, input)) in plan.tools.iter().enumerate() {
        let block = json!({ "type": "tool_use", "id": format!("toolu_{index}"), "name": name, "input": {} });
        events.push(
            json!({ "type": "content_block_start", "index": index + 1, "content_block": block }),
        );
        let delta = json!({ "type": "input_json_delta", "partial_json": input.to_string() });
        events.push(json!({ "type": "content_block_delta", "index": index + 1, "delta": delta }));
        events.push(json!({ "type": "content_block_stop", "index": index + 1 }));
    }
    let usage = json!({ "output_tokens": anthropic_usage(plan)["output_tokens"] });
    events.push(json!({ "type": "message_delta", "delta": { "stop_reason": anthropic_reason(plan) }, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    let line = |event: &Value| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap_or_default()
        )
    };
    events.iter().map(line).collect()
}

fn embeddings(request: &Value, plan: &Answer) -> Value {
    let count = request["input"].as_array().map_or(1, Vec::len);
    let data = (0..count)
        .map(|index| json!({ "object": "embedding", "index": index, "embedding": [0.5, -0.5] }));
    let usage = plan
        .usage
        .clone()
        .unwrap_or_else(|| json!({ "prompt_tokens": 3 * count, "total_tokens": 3 * count }));
    json!({ "object": "list", "data": data.collect::<Vec<_>>(), "model": request["model"], "usage": usage, "echo": request })
}

#[derive(Debug, Clone)]
enum Step {
    Send(Bytes),
    Wait(Duration),
    /// Sends this every few milliseconds for ever.
    Repeat(Bytes),
    Stall,
    Die,
}

/// A body that follows a list of steps.
struct FakeBody {
    steps: VecDeque<Step>,
    sleep: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

impl FakeBody {
    fn new(steps: Vec<Step>, open: Open) -> Self {
        Self {
            steps: steps.into(),
            sleep: None,
            _open: open,
        }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>, pause: Duration) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        let done = sleep.as_mut().poll(cx);
        if done.is_ready() {
            self.sleep = None;
        }
        done
    }
}

impl Body for FakeBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            let Some(step) = self.steps.front().cloned() else {
                return Poll::Ready(None);
            };
            match step {
                Step::Stall => return Poll::Pending,
                Step::Die => {
                    return Poll::Ready(Some(Err(std::io::Error::other("the fake provider dies"))));
                }
                Step::Wait(pause) => {
                    if self.poll_sleep(cx, pause).is_pending() {
                        return Poll::Pending;
                    }
                    self.steps.pop_front();
                }
                Step::Repeat(bytes) => {
                    if self.poll_sleep(cx, Duration::from_millis(5)).is_pending() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Step::Send(bytes) => {
                    self.steps.pop_front();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
            }
        }
    }
}
