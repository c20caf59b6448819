//! The page of the audit log: filters in the address, the chain's state on demand.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::PageRequest;
use db::audit::{Entry, Filter};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::traces::time::parse_time;
use crate::ui::PageContext;

const DAY_US: i64 = 86_400_000_000;
const ROWS: u32 = 100;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadAudit);
    vec![
        Route::get("/{project}/audit", read, list),
        Route::get("/{project}/audit/export", read, export),
    ]
}

#[derive(Deserialize)]
struct AuditQuery {
    #[serde(default)]
    actor: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    object: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
    cursor: Option<String>,
    verify: Option<String>,
}

impl AuditQuery {
    fn filter(&self) -> Result<Filter> {
        let day = |text: &str, at: &'static str| {
            if text.is_empty() {
                return Ok(None);
            }
            let wrong =
                |_| AppError::invalid(format!("{text:?} is not a date like 2026-11-21")).at(at);
            parse_time(&format!("{text}T00:00:00Z"), 0)
                .map(Some)
                .map_err(wrong)
        };
        Ok(Filter {
            actor: self.actor.clone(),
            action: self.action.trim().to_owned(),
            object: self.object.trim().to_owned(),
            from: day(&self.from, "from")?,
            // Until means that day included.
            to: day(&self.to, "to")?.map(|start| start.saturating_add(DAY_US)),
        })
    }

    /// The filters as a query string, for links that keep them.
    fn keep(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("actor", &self.actor),
            ("action", &self.action),
            ("object", &self.object),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        query.finish()
    }
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    let project = identity.project.id;
    let filter = query.filter()?;
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: ROWS,
    };
    let found = db::audit::list(&app.db, Some(project), &filter, &request).await?;
    let people = db::audit::actors(&app.db, Some(project)).await?;
    let actors = found.items.iter().map(|entry| entry.actor.as_str());
    let names = crate::members::actor_names(
        &app.db,
        project,
        actors.chain(people.iter().map(String::as_str)),
    )
    .await?;
    let people: Vec<Value> = people
        .iter()
        .map(|actor| json!({"id": actor, "name": names[actor]}))
        .collect();
    let rows: Vec<Value> = found
        .items
        .iter()
        .map(|entry| row(entry, &names[&entry.actor]))
        .collect();
    let mut actions: Vec<&str> = found
        .items
        .iter()
        .map(|entry| entry.action.as_str())
        .collect();
    actions.sort_unstable();
    actions.dedup();
    let verify = match &query.verify {
        Some(_) => Some(verify(&app, project).await?),
        None => None,
    };
    let (here, kept) = (format!("{}/audit", page.root()), query.keep());
    let next_href = found.next.map(|cursor| {
        format!(
            "{here}?{kept}&cursor={}",
            crate::apps::encode(cursor.as_str())
        )
    });
    let view = json!({
        "filter": {"actor": query.actor, "action": query.action, "object": query.object, "from": query.from, "to": query.to},
        "people": people, "actions": actions, "rows": rows, "any": !kept.is_empty(), "verify": verify,
        "verify_href": format!("{here}?{kept}&verify=1"), "export_href": format!("{here}/export?{kept}"),
        "pager": {"prev_href": query.cursor.as_ref().map(|_| format!("{here}?{kept}")), "next_href": next_href},
    });
    page.render("audit/list.html", view).await
}

fn row(entry: &Entry, by: &str) -> Value {
    let is_empty = entry
        .detail
        .as_object()
        .is_some_and(serde_json::Map::is_empty);
    let short = |digest: &Option<String>| {
        let digest: Option<base::Digest> = digest.as_ref()?.parse().ok();
        Some(digest?.short())
    };
    json!({
        "seq": entry.seq, "at": entry.at, "by": by, "actor": entry.actor, "action": entry.action, "object": entry.object,
        "reason": entry.reason, "detail": if is_empty { String::new() } else { entry.detail.to_string() },
        "request_id": entry.request_id, "before": entry.before, "after": entry.after,
        "short_before": short(&entry.before), "short_after": short(&entry.after), "hash": entry.hash,
    })
}

async fn verify(app: &App, project: base::ProjectId) -> Result<Value> {
    Ok(
        match db::audit::verify(&app.db, Some(project), None).await? {
            Ok(whole) => {
                json!({"ok": true, "rows": whole.rows, "head": whole.head.to_string(), "seq": 0, "why": ""})
            }
            Err(broken) => {
                json!({"ok": false, "rows": 0, "head": "", "seq": broken.seq, "why": broken.why})
            }
        },
    )
}

/// Every line that the filters let through, oldest first, one JSON object a line.
async fn export(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<AuditQuery>,
) -> Result<Response> {
    let (project, filter) = (identity.project.id, query.filter()?);
    let lines = futures_util::stream::try_unfold(0_i64, move |seq| {
        let (app, filter) = (app.clone(), filter.clone());
        async move {
            let entries = db::audit::after(&app.db, Some(project), &filter, seq).await?;
            let Some(last) = entries.last().map(|entry| entry.seq) else {
                return Ok::<_, anyhow::Error>(None);
            };
            let mut text = String::new();
            for entry in &entries {
                text.push_str(&serde_json::to_string(entry)?);
                text.push('\n');
            }
            Ok(Some((bytes::Bytes::from(text), last)))
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"audit.jsonl\"",
        ),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}
