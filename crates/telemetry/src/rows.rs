//! Spans and scores to SQL rows and back.

use std::collections::BTreeMap;

use base::{NanoUsd, ProjectId, SpanId, TraceId, Usage};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params};
use serde_json::Value;

use crate::bodies::Hash;
use crate::span::{BodyCounts, Kind, PromptRef, Score, Source, Span, Status, StoredSpan};

/// Columns of a stored span in the order that [`read_span`] expects.
pub(crate) const SPAN_COLUMNS: &str = "trace, span, parent, seq, start_us, end_us, name, kind, status, environment, \
     provider, request_model, response_model, prompt_name, prompt_version, prompt_digest, session_id, session_step, \
     user_ref, key_id, tags, metadata, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, \
     tokens_reasoning, tokens_estimated, cost_nanousd, price_version, ttft_us, error_type, error_message, \
     finish_reasons, streamed, plan_revision, release_digest, parameters, attrs, length(input_refs) / 16, \
     length(output_refs) / 16, length(tool_refs) / 16, new_from, input_preview, output_preview, truncated";

const INSERT_SPAN: &str = "INSERT INTO spans (project, trace, span, parent, seq, start_us, end_us, ingest_us, name, \
     kind, status, environment, provider, request_model, response_model, prompt_name, prompt_version, prompt_digest, \
     session_id, session_step, user_ref, key_id, tags, metadata, tokens_in, tokens_out, tokens_cache_read, \
     tokens_cache_write, tokens_reasoning, tokens_estimated, cost_nanousd, price_version, ttft_us, error_type, \
     error_message, finish_reasons, streamed, plan_revision, release_digest, parameters, attrs, input_refs, \
     output_refs, tool_refs, new_from, input_preview, output_preview, truncated) VALUES (:project, :trace, :span, \
     :parent, :seq, :start_us, :end_us, :ingest_us, :name, :kind, :status, :environment, :provider, :request_model, \
     :response_model, :prompt_name, :prompt_version, :prompt_digest, :session_id, :session_step, :user_ref, :key_id, \
     :tags, :metadata, :tokens_in, :tokens_out, :tokens_cache_read, :tokens_cache_write, :tokens_reasoning, \
     :tokens_estimated, :cost_nanousd, :price_version, :ttft_us, :error_type, :error_message, :finish_reasons, \
     :streamed, :plan_revision, :release_digest, :parameters, :attrs, :input_refs, :output_refs, :tool_refs, \
     :new_from, :input_preview, :output_preview, :truncated)";

/// Addresses of a span's bodies, each list concatenated.
pub(crate) struct Refs {
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) tools: Vec<u8>,
}

/// Splits concatenated addresses.
pub(crate) fn hashes(refs: &[u8]) -> impl Iterator<Item = Hash> + '_ {
    refs.chunks_exact(16).map(|chunk| {
        let mut hash = [0; 16];
        hash.copy_from_slice(chunk);
        hash
    })
}

/// Inserts a span; gives its row number.
pub(crate) fn insert_span(
    connection: &Connection,
    project: i64,
    stored: &StoredSpan,
    refs: &Refs,
    ingest_us: i64,
) -> rusqlite::Result<i64> {
    let span = &stored.span;
    let prompt = span.prompt.as_ref();
    let tokens = |count: u64| {
        i64::try_from(count)
            .unwrap_or(i64::MAX / 4)
            .min(i64::MAX / 4)
    };
    let tags =
        (!span.tags.is_empty()).then(|| serde_json::to_string(&span.tags).unwrap_or_default());
    let reasons = (!span.finish_reasons.is_empty())
        .then(|| Value::from(span.finish_reasons.clone()).to_string());
    let truncated =
        (!span.truncated.is_empty()).then(|| Value::from(span.truncated.clone()).to_string());
    connection
        .prepare_cached(INSERT_SPAN)?
        .execute(named_params! {
            ":project": project,
            ":trace": span.trace_id.0.as_slice(),
            ":span": span.span_id.0.as_slice(),
            ":parent": span.parent.as_ref().map(|id| id.0.as_slice()),
            ":seq": stored.seq.cast_signed(),
            ":start_us": span.start_us,
            ":end_us": span.end_us,
            ":ingest_us": ingest_us,
            ":name": span.name,
            ":kind": span.kind.as_str(),
            ":status": span.status.as_str(),
            ":environment": span.environment,
            ":provider": span.provider,
            ":request_model": span.request_model,
            ":response_model": span.response_model,
            ":prompt_name": prompt.map(|prompt| prompt.name.as_str()),
            ":prompt_version": prompt.and_then(|prompt| prompt.version),
            ":prompt_digest": prompt.and_then(|prompt| prompt.digest.as_deref()),
            ":session_id": span.session_id,
            ":session_step": span.session_step,
            ":user_ref": span.user_ref,
            ":key_id": span.key_id,
            ":tags": tags,
            ":metadata": json_text(&span.metadata),
            ":tokens_in": tokens(span.usage.input),
            ":tokens_out": tokens(span.usage.output),
            ":tokens_cache_read": tokens(span.usage.cache_read),
            ":tokens_cache_write": tokens(span.usage.cache_write),
            ":tokens_reasoning": tokens(span.usage.reasoning),
            ":tokens_estimated": span.usage.estimated,
            ":cost_nanousd": span.cost.map(|cost| cost.0),
            ":price_version": span.price_version,
            ":ttft_us": span.ttft_us,
            ":error_type": span.error_type,
            ":error_message": span.error_message,
            ":finish_reasons": reasons,
            ":streamed": span.streamed,
            ":plan_revision": span.plan_revision,
            ":release_digest": span.release_digest,
            ":parameters": json_text(&span.parameters),
            ":attrs": json_text(&span.attrs),
            ":input_refs": refs.input,
            ":output_refs": refs.output,
            ":tool_refs": refs.tools,
            ":new_from": span.new_from.unwrap_or(0),
            ":input_preview": stored.input_preview,
            ":output_preview": stored.output_preview,
            ":truncated": truncated,
        })?;
    Ok(connection.last_insert_rowid())
}

fn json_text(value: &Value) -> Option<String> {
    (!value.is_null()).then(|| value.to_string())
}

struct Json(Value);

impl FromSql for Json {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Null => Ok(Self(Value::Null)),
            other => serde_json::from_str(other.as_str()?)
                .map(Self)
                .map_err(|error| FromSqlError::Other(error.into())),
        }
    }
}

impl Json {
    fn texts(self) -> Vec<String> {
        let Value::Array(items) = self.0 else {
            return Vec::new();
        };
        items
            .into_iter()
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    }

    fn tags(self) -> BTreeMap<String, String> {
        let Value::Object(map) = self.0 else {
            return BTreeMap::new();
        };
        map.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())))
            .collect()
    }
}

/// Reads [`SPAN_COLUMNS`].
pub(crate) fn read_span(row: &Row<'_>, project: ProjectId) -> rusqlite::Result<StoredSpan> {
    let mut index = 0;
    let mut next = || {
        index += 1;
        index - 1
    };
    let tokens = |index| {
        row.get::<_, i64>(index)
            .map(|count| u64::try_from(count).unwrap_or(0))
    };
    let count = |index| {
        row.get::<_, i64>(index)
            .map(|count| usize::try_from(count).unwrap_or(0))
    };
    let trace_id = TraceId(row.get(next())?);
    let span_id = SpanId(row.get(next())?);
    let parent = row.get::<_, Option<[u8; 8]>>(next())?.map(SpanId);
    let seq = row.get::<_, i64>(next())?.cast_unsigned();
    let mut span = Span::new(project, trace_id, span_id, Kind::Other, row.get(next())?);
    span.parent = parent;
    span.end_us = row.get(next())?;
    span.name = row.get(next())?;
    span.kind = Kind::from_word(row.get_ref(next())?.as_str()?).unwrap_or(Kind::Other);
    span.status = Status::from_word(row.get_ref(next())?.as_str()?).unwrap_or(Status::Error);
    span.environment = row.get(next())?;
    span.provider = row.get(next())?;
    span.request_model = row.get(next())?;
    span.response_model = row.get(next())?;
    let (name, version, digest): (Option<String>, _, _) =
        (row.get(next())?, row.get(next())?, row.get(next())?);
    span.prompt = name.map(|name| PromptRef {
        name,
        version,
        digest,
    });
    span.session_id = row.get(next())?;
    span.session_step = row.get(next())?;
    span.user_ref = row.get(next())?;
    span.key_id = row.get(next())?;
    span.tags = row.get::<_, Json>(next())?.tags();
    span.metadata = row.get::<_, Json>(next())?.0;
    span.usage = Usage {
        input: tokens(next())?,
        output: tokens(next())?,
        cache_read: tokens(next())?,
        cache_write: tokens(next())?,
        reasoning: tokens(next())?,
        estimated: row.get(next())?,
    };
    span.cost = row.get::<_, Option<i64>>(next())?.map(NanoUsd);
    span.price_version = row.get(next())?;
    span.ttft_us = row.get(next())?;
    span.error_type = row.get(next())?;
    span.error_message = row.get(next())?;
    span.finish_reasons = row.get::<_, Json>(next())?.texts();
    span.streamed = row.get(next())?;
    span.plan_revision = row.get(next())?;
    span.release_digest = row.get(next())?;
    span.parameters = row.get::<_, Json>(next())?.0;
    span.attrs = row.get::<_, Json>(next())?.0;
    let body_counts = BodyCounts {
        input: count(next())?,
        output: count(next())?,
        tools: count(next())?,
    };
    span.new_from = Some(row.get(next())?);
    let (input_preview, output_preview) = (row.get(next())?, row.get(next())?);
    span.truncated = row.get::<_, Json>(next())?.texts();
    Ok(StoredSpan {
        span,
        seq,
        input_preview,
        output_preview,
        body_counts,
    })
}

/// A span of this segment by its identity.
pub(crate) fn find_span(
    connection: &Connection,
    project: i64,
    id: ProjectId,
    trace: TraceId,
    span: SpanId,
) -> rusqlite::Result<Option<(i64, StoredSpan)>> {
    let sql = format!(
        "SELECT {SPAN_COLUMNS}, row FROM spans WHERE project = ?1 AND trace = ?2 AND span = ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_row((project, trace.0.as_slice(), span.0.as_slice()), |row| {
        Ok((row.get("row")?, read_span(row, id)?))
    });
    found.optional()
}

/// Columns of a score in the order that [`read_score`] expects.
pub(crate) const SCORE_COLUMNS: &str =
    "score_id, trace, span, name, value, label, comment, source, author, at_us, supersedes";

/// Inserts a score; false when its id is known.
pub(crate) fn insert_score(
    connection: &Connection,
    project: i64,
    score: &Score,
) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO scores (score_id, project, trace, span, name, value, label, comment, source, author, \
         at_us, supersedes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING";
    let inserted = connection.prepare_cached(sql)?.execute((
        score.score_id.to_string(),
        project,
        score.trace_id.0.as_slice(),
        score.span_id.as_ref().map(|id| id.0.as_slice()),
        &score.name,
        score.value,
        &score.label,
        &score.comment,
        score.source.as_str(),
        &score.author,
        score.at_us,
        score.supersedes.map(|id| id.to_string()),
    ))?;
    Ok(inserted > 0)
}

/// Reads [`SCORE_COLUMNS`].
pub(crate) fn read_score(row: &Row<'_>, project: ProjectId) -> rusqlite::Result<Score> {
    let id = |index: usize, text: &str| {
        text.parse().map_err(|error: base::BadId| {
            rusqlite::Error::FromSqlConversionFailure(
                index,
                rusqlite::types::Type::Text,
                error.into(),
            )
        })
    };
    let supersedes: Option<String> = row.get(10)?;
    Ok(Score {
        score_id: id(0, row.get_ref(0)?.as_str()?)?,
        project,
        trace_id: TraceId(row.get(1)?),
        span_id: row.get::<_, Option<[u8; 8]>>(2)?.map(SpanId),
        name: row.get(3)?,
        value: row.get(4)?,
        label: row.get(5)?,
        comment: row.get(6)?,
        source: Source::from_word(row.get_ref(7)?.as_str()?).unwrap_or(Source::Api),
        author: row.get(8)?,
        at_us: row.get(9)?,
        supersedes: supersedes.map(|text| id(10, &text)).transpose()?,
    })
}

/// The number that stands for a project in this segment.
pub(crate) fn project_number(
    connection: &Connection,
    project: ProjectId,
) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT no FROM projects WHERE project = ?1")?;
    statement
        .query_row([project.to_string()], |row| row.get(0))
        .optional()
}
