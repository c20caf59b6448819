//! Examples out of traces: what was asked becomes the input, what was answered stays in
//! the source, and becomes the expected output where somebody says that it was good.

use std::collections::HashSet;

use base::{Cursor, SpanId, TraceId};
use db::Scope;
use db::catalog::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use telemetry::{Body, BodyContent, StoredSpan};

use super::Saved;
use super::edit::{Describe, Edits};
use super::example::{Example, Source, Verdict};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::traces::{AskText, read};

/// Traces of one request, at most.
pub(super) const MAX_TRACES: usize = 1000;

/// Which traces become examples, and of what kind.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FromTraces {
    /// These traces, each with the span that is meant.
    pub traces: Vec<Picked>,
    /// Instead: all traces that this finds, as `GET /api/v1/traces` takes it, the newest first.
    pub query: Option<AskText>,
    /// How many of them at most, 1000 unless told; more are refused, not left out.
    pub limit: Option<usize>,
    /// What to think of the answers that were given.
    pub verdict: Option<Verdict>,
    /// What should have been answered; for one trace.
    pub expected: Option<Value>,
    /// The split that they shall be in.
    pub split: Option<String>,
    /// Make the dataset if there is none.
    pub create: bool,
    /// Why, for the history.
    pub message: String,
}

/// One trace.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Picked {
    /// The trace.
    pub trace: String,
    /// One of its spans; the root unless told.
    #[serde(default)]
    pub span: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Taken {
    /// The dataset as it is now.
    #[serde(flatten)]
    pub saved: Saved,
    /// How many traces were taken.
    pub taken: usize,
    /// How many are in the dataset already and were left as they are.
    pub known: usize,
    /// How many hold no input any more, or more than an example may.
    pub without_input: usize,
}

impl FromTraces {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(MAX_TRACES).clamp(1, MAX_TRACES)
    }
}

/// Adds traces to a dataset.
///
/// # Errors
/// There is no such trace or dataset, or the query finds more than the limit.
pub async fn add_traces(app: &App, scope: Scope, name: &Name, asked: FromTraces) -> Result<Taken> {
    let spans = find_spans(app, scope, &asked).await?;
    if asked.expected.is_some() && spans.len() != 1 {
        let message = format!(
            "an expected output is for one trace, not for {}",
            spans.len()
        );
        return Err(AppError::invalid(message).at("expected"));
    }
    let found = app.datasets.find_latest(scope, name).await?;
    if found.is_none() && !asked.create {
        let message = format!("there is no dataset {name}");
        return Err(AppError::not_found(message)
            .code("no_such_dataset")
            .hint("make it, or send create: true"));
    }
    // A trace is one example however often it is added; its id says which.
    let mut known = HashSet::new();
    if let Some(found) = &found {
        let chunks = app.datasets.chunks(scope)?;
        for chunk in &found.document.chunks {
            known.extend(chunks.ids(chunk).await?.iter().copied());
        }
    }
    let (mut put, mut counts) = (Vec::new(), (0, 0));
    for stored in &spans {
        let id = example_id(stored);
        let is_known = known.contains(&super::chunks::id_hash(&id));
        if is_known && asked.expected.is_none() && asked.verdict.is_none() {
            counts.0 += 1;
            continue;
        }
        match example(app, scope, stored, &asked, id).await? {
            Some(example) if example.check().is_ok() => put.push(example),
            _ => counts.1 += 1,
        }
    }
    let taken = put.len();
    let edits = Edits {
        put,
        message: asked.message,
        describe: Describe::default(),
        ..Edits::default()
    };
    let saved = match found {
        Some(_) => app.datasets.edit(scope, name, edits).await?,
        None => app.datasets.create(scope, name, edits).await?,
    };
    Ok(Taken {
        saved,
        taken,
        known: counts.0,
        without_input: counts.1,
    })
}

/// A span as the example that it would become, for features that show it to people.
/// `None` when it holds no input any more.
///
/// # Errors
/// There is no such trace or span.
pub async fn span_example(
    app: &App,
    scope: Scope,
    picked: &Picked,
) -> Result<Option<(StoredSpan, Example)>> {
    let stored = find_span(app, scope, picked).await?;
    let id = example_id(&stored);
    let example = example(app, scope, &stored, &FromTraces::default(), id).await?;
    Ok(example.map(|example| (stored, example)))
}

/// The id of the example that a span becomes, the same every time.
fn example_id(stored: &StoredSpan) -> String {
    match stored.span.parent {
        None => stored.span.trace_id.to_string(),
        Some(_) => format!("{}-{}", stored.span.trace_id, stored.span.span_id),
    }
}

async fn find_spans(app: &App, scope: Scope, asked: &FromTraces) -> Result<Vec<StoredSpan>> {
    match (&asked.query, asked.traces.is_empty()) {
        (Some(_), false) => Err(AppError::invalid("name traces or a query, not both").at("query")),
        (None, true) => {
            Err(AppError::invalid("name the traces, or a query that finds them").at("traces"))
        }
        (Some(query), true) => query_spans(app, scope, query, asked.limit()).await,
        (None, false) => {
            if asked.traces.len() > MAX_TRACES {
                let message = format!(
                    "at most {MAX_TRACES} traces at once, not {}",
                    asked.traces.len()
                );
                return Err(AppError::invalid(message).at("traces"));
            }
            let mut spans = Vec::new();
            for (index, picked) in asked.traces.iter().enumerate() {
                let place = format!("/traces/{index}");
                spans.push(
                    find_span(app, scope, picked)
                        .await
                        .map_err(|error| error.at(place))?,
                );
            }
            Ok(spans)
        }
    }
}

async fn find_span(app: &App, scope: Scope, picked: &Picked) -> Result<StoredSpan> {
    let trace: TraceId = crate::traces::trace_id(&picked.trace)?;
    let found = crate::traces::await_trace(app, scope.project, trace).await?;
    let wanted = picked.span.as_deref().filter(|span| !span.is_empty());
    let wanted = wanted
        .map(|span| span.parse::<SpanId>().map_err(|_| no_such_span()))
        .transpose()?;
    let mut spans = found.spans.into_iter();
    let span = match wanted {
        Some(wanted) => spans.find(|stored| stored.span.span_id == wanted),
        None => {
            let spans: Vec<StoredSpan> = spans.collect();
            let root = spans
                .iter()
                .position(|stored| stored.span.parent.is_none())
                .unwrap_or(0);
            spans.into_iter().nth(root)
        }
    };
    span.ok_or_else(no_such_span)
}

fn no_such_span() -> AppError {
    AppError::not_found("there is no span with this id in the trace").code("trace_not_found")
}

async fn query_spans(
    app: &App,
    scope: Scope,
    query: &AskText,
    limit: usize,
) -> Result<Vec<StoredSpan>> {
    let ask = query.parse(app.clock.now_us())?;
    let mut spans: Vec<StoredSpan> = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let question = ask.list(
            scope.project,
            (limit + 1).min(telemetry::limits::PAGE_ROWS),
            cursor,
        );
        let page = read(&app.telemetry, move |reader| reader.list(&question)).await?;
        spans.extend(page.rows.into_iter().map(|row| row.stored));
        if spans.len() > limit {
            let message = format!("the query finds more than {limit} traces; nothing was added");
            return Err(AppError::invalid(message)
                .code("too_many_traces")
                .hint("narrow the filter or the time, or raise the limit up to 1000")
                .at("query"));
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    // The oldest first, as they happened.
    spans.reverse();
    Ok(spans)
}

async fn example(
    app: &App,
    scope: Scope,
    stored: &StoredSpan,
    asked: &FromTraces,
    id: String,
) -> Result<Option<Example>> {
    let span = &stored.span;
    let (project, trace, span_id) = (scope.project, span.trace_id, span.span_id);
    let bodies = read(&app.telemetry, move |reader| {
        reader.span_bodies(project, trace, span_id, None)
    })
    .await?;
    let bodies = bodies.unwrap_or_default();
    let (Some(input), answer) = (value_of(bodies.input), value_of(bodies.output)) else {
        return Ok(None);
    };
    let answer = answer.map(answer_text);
    let is_good = asked.verdict == Some(Verdict::Good);
    let expected = asked
        .expected
        .clone()
        .or_else(|| answer.clone().filter(|_| is_good));
    let mut metadata = Map::new();
    if let Some(model) = span.response_model.as_ref().or(span.request_model.as_ref()) {
        metadata.insert("model".to_owned(), json!(model));
    }
    if let Some(prompt) = &span.prompt {
        let version = prompt
            .version
            .map(|version| format!("@{version}"))
            .unwrap_or_default();
        metadata.insert(
            "prompt".to_owned(),
            json!(format!("{}{version}", prompt.name)),
        );
    }
    for (tag, value) in &span.tags {
        metadata.insert(format!("tag.{tag}"), json!(value));
    }
    Ok(Some(Example {
        id,
        input,
        expected,
        metadata,
        split: asked.split.clone().filter(|split| !split.is_empty()),
        verdict: asked.verdict,
        source: Source {
            trace: Some(span.trace_id.to_string()),
            span: Some(span.span_id.to_string()),
            answer,
            ..Source::default()
        },
        ..Example::default()
    }))
}

/// The messages of a span: one that is no message as it is, several as a list. `None`
/// when there are none, or one was removed.
fn value_of(bodies: Vec<Body>) -> Option<Value> {
    let whole = |body: Body| match body.content {
        BodyContent::Whole(value) => Some(value),
        BodyContent::Cut(_) | BodyContent::Gone => None,
    };
    let mut values: Vec<Value> = bodies.into_iter().map(whole).collect::<Option<_>>()?;
    match values.len() {
        0 => None,
        1 if values[0].get("role").is_none() => values.pop(),
        _ => Some(Value::Array(values)),
    }
}

/// The words of an answer that is nothing but words.
fn answer_text(answer: Value) -> Value {
    let only = match &answer {
        Value::Array(messages) if messages.len() == 1 => &messages[0],
        other => other,
    };
    let is_plain = only.get("tool_calls").is_none_or(Value::is_null);
    match only.get("content").and_then(Value::as_str) {
        Some(text) if is_plain => Value::String(text.to_owned()),
        _ => answer,
    }
}
