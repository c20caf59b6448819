//! Langfuse's score routes: judgements of traces, spans and runs.
//!
//! A score of a trace or span is a score of ours and counts wherever those do. Its trace is
//! not looked for: clients send spans and scores at the same time. What Langfuse knows of a
//! score and we do not (its client's id, its type, metadata) is kept beside it. Scores of
//! sessions are refused one by one, as nothing here is about a whole session.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use base::{Cursor, Digest, ScoreId, SpanId, TraceId};
use serde::Deserialize;
use serde_json::{Value, json};
use telemetry::{Batch, Score};

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::runs::{self, ClientScore, ScoreFilter};
use crate::error::{AppError, Result};
use crate::extract::{Query, Raw, parse_json};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::scores::NewScore;
use crate::traces::ScoreValue;
use crate::traces::time::{format_rfc3339, parse_time};

/// Scores of one request.
const MOST: usize = 10_000;

pub(super) fn routes() -> Vec<Route> {
    let doc = |summary| Doc::new("langfuse", summary);
    vec![
        Route::post(
            "/api/public/scores",
            Access::Needs(Permission::WriteScores),
            create,
        )
        .body_limit(2 << 20)
        .doc(doc("Judge traces, spans or runs: one score, or a list")),
        Route::get(
            "/api/public/v3/scores",
            Access::Needs(Permission::ReadTraces),
            list,
        )
        .doc(doc(
            "Scores that clients of this kind sent, the newest first",
        )),
    ]
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    id: Option<String>,
    trace_id: Option<String>,
    observation_id: Option<String>,
    session_id: Option<String>,
    dataset_run_id: Option<String>,
    name: String,
    value: Value,
    data_type: Option<String>,
    comment: Option<String>,
    metadata: Option<Value>,
    environment: Option<String>,
    source: Option<String>,
    timestamp: Option<String>,
}

/// A score in both of its forms.
struct Read {
    client: ClientScore,
    score: Option<Score>,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<(StatusCode, Answer<Value>)> {
    let content: Value = parse_json(&body)?;
    let (list, single) = match content {
        Value::Array(list) => (list, false),
        one => (vec![one], true),
    };
    if list.is_empty() || list.len() > MOST {
        let message = format!("a request holds 1 to {MOST} scores");
        return Err(AppError::invalid(message));
    }
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    for (index, value) in list.into_iter().enumerate() {
        match read(&app, &identity, value) {
            Ok(read) => good.push(read),
            Err(error) if single => return Err(error),
            Err(error) => errors.push(json!({"message": format!("score {index}: {error}")})),
        }
    }
    let first = good.first().map(|read| read.client.id.clone());
    let accepted = good.len();
    store(&app, &identity, good).await?;
    if single {
        return Ok((StatusCode::OK, Answer(json!({"id": first}))));
    }
    if errors.is_empty() {
        return Ok((StatusCode::ACCEPTED, Answer(json!({"message": "Accepted"}))));
    }
    let rejected = errors.len();
    Ok((
        StatusCode::MULTI_STATUS,
        Answer(json!({"accepted": accepted, "rejected": rejected, "errors": errors})),
    ))
}

async fn store(app: &App, identity: &Identity, read: Vec<Read>) -> Result<()> {
    let (mut scores, mut rows) = (Vec::new(), Vec::new());
    for one in read {
        scores.extend(one.score);
        rows.push(one.client);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let project = identity.project.id;
    for some in rows.chunks(500) {
        // A score that is sent again with another value withdraws what it was.
        let filter = ScoreFilter {
            ids: some.iter().map(|row| row.id.clone()).collect(),
            ..ScoreFilter::default()
        };
        for before in runs::list_scores(&app.db, project, &filter, None, 500).await? {
            let now = some.iter().find(|row| row.id == before.id);
            let Some(now) = now.filter(|now| now.score != before.score) else {
                continue;
            };
            let score = scores
                .iter_mut()
                .find(|score| score.score_id.to_string() == now.score);
            if let Some(score) = score {
                score.supersedes = before.score.parse().ok();
                score.at_us = score.at_us.max(before.at);
            }
        }
    }
    if !scores.is_empty() {
        let batch = Batch {
            spans: Vec::new(),
            scores,
        };
        crate::scores::append(app, batch).await?;
    }
    let mut tx = app.db.begin_write().await?;
    for row in &rows {
        runs::record_score(&mut tx, project, row).await?;
    }
    Ok(tx.commit().await?)
}

fn read(app: &App, identity: &Identity, value: Value) -> Result<Read> {
    let new: Incoming = serde_json::from_value(value)
        .map_err(|error| AppError::invalid(format!("this is no score: {error}")))?;
    if new.session_id.is_some() && new.trace_id.is_none() {
        let message = "scores of whole sessions are not kept here";
        return Err(AppError::invalid(message).at("sessionId"));
    }
    let now = app.clock.now_us();
    let at = match &new.timestamp {
        Some(text) => {
            parse_time(text, now).map_err(|why| AppError::invalid(why).at("timestamp"))?
        }
        None => now,
    };
    let (r#type, value) = typed(new.data_type.as_deref(), new.value)?;
    let id = new
        .id
        .unwrap_or_else(|| app.ids.make::<SpanId>().to_string());
    if id.is_empty() || id.len() > 200 || id.contains('\0') {
        return Err(AppError::invalid("an id has 1 to 200 bytes").at("id"));
    }
    let checked = NewScore {
        trace_id: String::new(),
        span_id: None,
        name: new.name,
        value,
        comment: new.comment,
    };
    let (number, label) = crate::scores::checked_value(&checked)?;
    let project = identity.project.id;
    let judged: Option<(TraceId, Option<SpanId>)> = match &new.trace_id {
        None => None,
        Some(trace) => {
            let bad = |at: &str, what: &str| {
                AppError::invalid(format!("{what} is no id of OpenTelemetry's form")).at(at)
            };
            let trace = trace.parse().map_err(|_| bad("traceId", "the trace"))?;
            let span = new.observation_id.as_deref().filter(|id| !id.is_empty());
            let span = span.map(|id| id.parse().map_err(|_| bad("observationId", "the span")));
            Some((trace, span.transpose()?))
        }
    };
    let run = new.dataset_run_id.filter(|run| !run.is_empty());
    if judged.is_none() == run.is_none() {
        let message = "a score names either a trace or a run that it judges";
        return Err(AppError::invalid(message).at("traceId"));
    }
    // The id follows from what is said, so that a request that is sent twice is one score.
    let said = json!([
        project.to_string(),
        id,
        new.trace_id,
        new.observation_id,
        checked.name,
        number,
        label,
        checked.comment,
        at
    ]);
    let score = judged.map(|(trace_id, span_id)| Score {
        score_id: score_id(&said),
        project,
        trace_id,
        span_id,
        name: checked.name.clone(),
        value: number,
        label: label.clone(),
        comment: checked
            .comment
            .clone()
            .filter(|text| !text.trim().is_empty()),
        source: crate::scores::source(identity.actor),
        author: Some(identity.actor.to_string()),
        at_us: at,
        supersedes: None,
    });
    let client = ClientScore {
        id,
        score: score
            .as_ref()
            .map(|score| score.score_id.to_string())
            .unwrap_or_default(),
        trace: judged
            .map(|(trace, _)| trace.to_string())
            .unwrap_or_default(),
        span: judged
            .and_then(|(_, span)| span)
            .map(|span| span.to_string())
            .unwrap_or_default(),
        run: run.unwrap_or_default().replace('\0', ""),
        name: checked.name,
        r#type: r#type.to_owned(),
        value: number,
        label,
        comment: checked.comment,
        metadata: new.metadata.unwrap_or_default(),
        environment: new
            .environment
            .unwrap_or_else(|| "default".to_owned())
            .replace('\0', ""),
        source: match new.source.as_deref() {
            Some("ANNOTATION") => "ANNOTATION".to_owned(),
            _ => "API".to_owned(),
        },
        author: identity.actor.to_string(),
        at,
        created_at: now,
        updated_at: now,
    };
    Ok(Read { client, score })
}

/// A UUID of version 8, which is for what its maker decides.
fn score_id(said: &Value) -> ScoreId {
    let digest = Digest::of(said.to_string().as_bytes()).0;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    <ScoreId as base::Id>::from_uuid_bytes(bytes)
}

/// The type of a value, and the value as we keep it.
fn typed(r#type: Option<&str>, value: Value) -> Result<(&'static str, ScoreValue)> {
    let wrong =
        |wanted: &str| Err(AppError::invalid(format!("the value must be {wanted}")).at("value"));
    let r#type = r#type.map(str::to_ascii_uppercase);
    match (r#type.as_deref(), value) {
        (None | Some("NUMERIC"), Value::Number(number)) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            Ok(("NUMERIC", ScoreValue::Number(number)))
        }
        (Some("BOOLEAN"), Value::Number(number)) => match number.as_f64() {
            Some(0.0) => Ok(("BOOLEAN", ScoreValue::Bool(false))),
            Some(1.0) => Ok(("BOOLEAN", ScoreValue::Bool(true))),
            _ => wrong("0 or 1"),
        },
        (None | Some("BOOLEAN"), Value::Bool(flag)) => Ok(("BOOLEAN", ScoreValue::Bool(flag))),
        (None | Some("CATEGORICAL"), Value::String(text)) => {
            Ok(("CATEGORICAL", ScoreValue::Label(text)))
        }
        (Some("TEXT"), Value::String(text)) => Ok(("TEXT", ScoreValue::Label(text))),
        (Some("CORRECTION"), Value::String(text)) => Ok(("CORRECTION", ScoreValue::Label(text))),
        (Some("NUMERIC"), _) => wrong("a number"),
        (Some("BOOLEAN"), _) => wrong("0 or 1"),
        (Some("CATEGORICAL" | "TEXT" | "CORRECTION"), _) => wrong("a text"),
        (None, _) => wrong("a number, a flag or a text"),
        (Some(other), _) => {
            Err(AppError::invalid(format!("there is no type {other:?} of scores")).at("dataType"))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    limit: Option<i64>,
    cursor: Option<String>,
    fields: Option<String>,
    id: Option<String>,
    name: Option<String>,
    source: Option<String>,
    data_type: Option<String>,
    environment: Option<String>,
    trace_id: Option<String>,
    observation_id: Option<String>,
    session_id: Option<String>,
    experiment_id: Option<String>,
    from_timestamp: Option<String>,
    to_timestamp: Option<String>,
    value: Option<String>,
    value_min: Option<String>,
    value_max: Option<String>,
    config_id: Option<String>,
    queue_id: Option<String>,
    author_user_id: Option<String>,
}

/// Values with commas between them.
pub(super) fn several(text: Option<&str>) -> Vec<String> {
    let parts = text.unwrap_or_default().split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .take(200)
        .map(str::to_owned)
        .collect()
}

/// A time of the query, as microseconds.
pub(super) fn moment(app: &App, text: Option<&str>, at: &'static str) -> Result<Option<i64>> {
    let read = |text: &str| {
        parse_time(text, app.clock.now_us()).map_err(|why| AppError::invalid(why).at(at))
    };
    text.map(read).transpose()
}

/// How many rows a page has, and the row after which it begins.
pub(super) fn page(
    limit: Option<i64>,
    cursor: Option<&str>,
) -> Result<(i64, Option<(i64, String)>)> {
    let limit = limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(AppError::invalid("limit is a number from 1 to 100").at("limit"));
    }
    let key = cursor.map(|cursor| Cursor::from_client(cursor).key());
    let key = key
        .transpose()
        .map_err(|error| AppError::invalid(error.to_string()).at("cursor"))?;
    Ok((limit, key))
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Value>> {
    let (limit, after) = page(query.limit, query.cursor.as_deref())?;
    if query.observation_id.is_some() && query.trace_id.is_none() {
        let message = "observationId needs traceId: span ids belong to a trace";
        return Err(AppError::invalid(message).at("observationId"));
    }
    for (given, at) in [
        (&query.value, "value"),
        (&query.value_min, "valueMin"),
        (&query.value_max, "valueMax"),
    ] {
        if given.is_some() {
            let message = format!("this server does not filter scores by {at}");
            return Err(AppError::invalid(message).at(at));
        }
    }
    let groups = several(query.fields.as_deref());
    let known = ["details", "subject", "annotation"];
    if let Some(group) = groups.iter().find(|group| !known.contains(&group.as_str())) {
        return Err(
            AppError::invalid(format!("there is no group {group:?} of fields")).at("fields"),
        );
    }
    // Nothing here has these: a filter by them finds nothing.
    let nothing = [
        &query.session_id,
        &query.config_id,
        &query.queue_id,
        &query.author_user_id,
    ];
    if nothing.iter().any(|filter| filter.is_some()) {
        return Ok(Answer(json!({"data": [], "meta": {"limit": limit}})));
    }
    let upper = |text: Option<&str>| several(text.map(str::to_ascii_uppercase).as_deref());
    let filter = ScoreFilter {
        traces: several(query.trace_id.as_deref()),
        spans: several(query.observation_id.as_deref()),
        runs: several(query.experiment_id.as_deref()),
        ids: several(query.id.as_deref()),
        names: several(query.name.as_deref()),
        types: upper(query.data_type.as_deref()),
        sources: upper(query.source.as_deref()),
        environments: several(query.environment.as_deref()),
        from: moment(&app, query.from_timestamp.as_deref(), "fromTimestamp")?,
        until: moment(&app, query.to_timestamp.as_deref(), "toTimestamp")?,
    };
    let project = identity.project.id;
    let mut found = runs::list_scores(&app.db, project, &filter, after.as_ref(), limit + 1).await?;
    let more = found.len() > usize::try_from(limit).unwrap_or(0);
    found.truncate(usize::try_from(limit).unwrap_or(0));
    let mut meta = json!({"limit": limit});
    if let Some(last) = found.last().filter(|_| more) {
        meta["cursor"] = json!(Cursor::new(&(last.at, &last.id)).as_str());
    }
    let project = project.to_string();
    let data: Vec<Value> = found
        .iter()
        .map(|score| score_json(&project, score, &groups))
        .collect();
    Ok(Answer(json!({"data": data, "meta": meta})))
}

/// A score as Langfuse sends it, with these groups of fields.
pub(super) fn score_json(project: &str, score: &ClientScore, groups: &[String]) -> Value {
    let has = |group: &str| groups.iter().any(|wanted| wanted == group);
    let mut shown = json!({
        "id": score.id, "projectId": project, "name": score.name, "value": score.shown(), "dataType": score.r#type,
        "source": score.source, "timestamp": format_rfc3339(score.at), "environment": score.environment,
        "createdAt": format_rfc3339(score.created_at), "updatedAt": format_rfc3339(score.updated_at),
    });
    if has("details") {
        shown["comment"] = json!(score.comment);
        shown["configId"] = Value::Null;
        shown["metadata"] = match &score.metadata {
            Value::Object(_) => score.metadata.clone(),
            Value::Null => json!({}),
            other => json!({"value": other}),
        };
    }
    if has("annotation") {
        shown["authorUserId"] = Value::Null;
        shown["queueId"] = Value::Null;
    }
    if has("subject") {
        shown["subject"] = match (score.run.as_str(), score.span.as_str()) {
            ("", "") => json!({"kind": "trace", "id": score.trace}),
            ("", span) => json!({"kind": "observation", "id": span, "traceId": score.trace}),
            (run, _) => json!({"kind": "experiment", "id": run}),
        };
    }
    shown
}
