//! The audit log over JSON.

use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base::{Cursor, ProjectId};
use db::audit::{Filter, Head};
use db::{Db, PageRequest};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, Verification};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadAudit);
    vec![
        Route::get("/api/v1/audit", read, list).doc(
            Doc::new("audit", "The lines of the audit log, newest first")
                .query::<ListQuery>()
                .answer::<Entries>(),
        ),
        Route::get("/api/v1/audit/export", read, export)
            .doc(Doc::new("audit", "The lines as JSONL, oldest first").query::<ExportQuery>()),
        Route::get("/api/v1/audit/verify", read, verify).doc(
            Doc::new(
                "audit",
                "Walk the chain of hashes and say where it is broken",
            )
            .query::<VerifyQuery>()
            .answer::<Verification>(),
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// The installation's chain instead of the project's.
    installation: Option<bool>,
    /// Only by this actor; `user:*` matches beginnings.
    actor: Option<String>,
    /// Only this action; `prompt.*` matches beginnings.
    action: Option<String>,
    /// Only on this object; a `*` at the end matches beginnings.
    object: Option<String>,
    /// Not before, microseconds since the epoch.
    from: Option<i64>,
    /// Before, microseconds since the epoch.
    to: Option<i64>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    /// The installation's chain instead of the project's.
    installation: Option<bool>,
    /// Only by this actor; `user:*` matches beginnings.
    actor: Option<String>,
    /// Only this action; `prompt.*` matches beginnings.
    action: Option<String>,
    /// Only on this object; a `*` at the end matches beginnings.
    object: Option<String>,
    /// Not before, microseconds since the epoch.
    from: Option<i64>,
    /// Before, microseconds since the epoch.
    to: Option<i64>,
}

fn chain(identity: &Identity, installation: Option<bool>) -> Option<ProjectId> {
    (!installation.unwrap_or(false)).then_some(identity.project.id)
}

#[derive(Serialize, JsonSchema)]
struct Entries {
    /// The lines, newest first.
    items: Vec<Entry>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Entries>> {
    let filter = Filter {
        actor: query.actor.unwrap_or_default(),
        action: query.action.unwrap_or_default(),
        object: query.object.unwrap_or_default(),
        from: query.from,
        to: query.to,
    };
    let page = PageRequest {
        cursor: query.cursor.map(Cursor::from_client),
        limit: query.limit.unwrap_or(0),
    };
    let chain = chain(&identity, query.installation);
    let page = db::audit::list(&app.db, chain, &filter, &page).await?;
    Ok(Answer(Entries {
        next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
        items: page.items.into_iter().map(Entry::from).collect(),
    }))
}

async fn export(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ExportQuery>,
) -> Result<Response> {
    let chain = chain(&identity, query.installation);
    let filter = Filter {
        actor: query.actor.unwrap_or_default(),
        action: query.action.unwrap_or_default(),
        object: query.object.unwrap_or_default(),
        from: query.from,
        to: query.to,
    };
    // The first lines before the answer begins: a database that is away is an error, not a short file.
    let (first, seq) = lines_after(&app.db, chain, &filter, 0).await?;
    let rest = stream::try_unfold(
        (app.db.clone(), filter, Some(first), seq),
        move |(db, filter, ready, seq)| async move {
            if let Some(lines) = ready {
                let more = (!lines.is_empty()).then_some((lines, (db, filter, None, seq)));
                return Ok::<_, anyhow::Error>(more);
            }
            let (lines, seq) = lines_after(&db, chain, &filter, seq).await?;
            Ok((!lines.is_empty()).then_some((lines, (db, filter, None, seq))))
        },
    );
    let headers = [
        (header::CONTENT_TYPE, "application/jsonl"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"audit.jsonl\"",
        ),
    ];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// The next lines as JSONL, and the place of the last.
async fn lines_after(
    db: &Db,
    chain: Option<ProjectId>,
    filter: &Filter,
    seq: i64,
) -> anyhow::Result<(Bytes, i64)> {
    let entries = db::audit::after(db, chain, filter, seq).await?;
    let last = entries.last().map_or(seq, |entry| entry.seq);
    let mut text = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut text, &Entry::from(entry))?;
        text.push(b'\n');
    }
    Ok((text.into(), last))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    /// The installation's chain instead of the project's.
    installation: Option<bool>,
    /// An end that you kept, `SEQ:HASH`: the chain must still go through it.
    head: Option<String>,
}

async fn verify(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<VerifyQuery>,
) -> Result<Answer<Verification>> {
    let head = query.head.as_deref().map(str::parse::<Head>).transpose();
    let head = head.map_err(|problem| AppError::invalid(problem).at("head"))?;
    let chain = chain(&identity, query.installation);
    Ok(Answer(super::verify(&app, chain, head.as_ref()).await?))
}
