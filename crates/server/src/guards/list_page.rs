//! The page that lists policies, with what their rules found lately.

use axum::extract::State;
use axum::response::Response;
use guard::Policy;
use serde_json::{Value, json};

use super::editor::edit_href;
use super::traffic::{self, Hits};
use super::{KIND, LIBRARY};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::{self, ListQuery};
use crate::error::Result;
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::starts::Template;
use crate::traces::encode;
use crate::ui::PageContext;

/// Rows of the list: each reads a document.
const ROWS: u32 = 50;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    vec![Route::get("/{project}/guards", read, list)]
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let latest = catalog::latest(&app.catalog, scope, KIND, query, ROWS).await?;
    let hits = hits_of(&app, &identity, None).await?;
    let mut rows = Vec::new();
    for (listed, found) in &latest.rows {
        let name = &listed.latest.name;
        let policy = Policy::read(&found.content).ok();
        let calls: usize = hits
            .rules
            .iter()
            .filter(|row| row.policy == name.as_str())
            .map(|row| row.calls_day)
            .sum();
        let labels: Vec<Value> = listed
            .labels
            .iter()
            .map(|(label, number)| json!({"name": label, "version": number}))
            .collect();
        rows.push(json!({
            "name": name, "href": edit_href(&page, name.as_str()), "version": found.version.number,
            "at": found.version.created_at, "labels": labels, "hits": calls,
            "description": policy.as_ref().map(|policy| policy.description.clone()),
            "rules": policy.as_ref().map(|policy| policy.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()),
        }));
    }
    let next_href = latest.next_href(&format!("{}/guards", page.root()));
    let starts: Vec<Value> = LIBRARY
        .templates(page.lang)
        .iter()
        .map(|template| start(&page, template))
        .collect();
    let decided = |word: &str| hits.decisions.get(word).copied().unwrap_or_default();
    let decisions =
        ["flagged", "edited", "blocked"].map(|word| (word.to_owned(), json!(decided(word))));
    let decisions = serde_json::Map::from_iter(decisions);
    let view = json!({
        "rows": rows, "starts": starts, "hits": hits_view(&page, &hits),
        "decisions": decisions, "finds_href": format!("{}/guards/finds", page.root()),
        "pager": {"prev_href": null, "next_href": next_href},
    });
    page.render("guards/list.html", view).await
}

pub(super) fn start(page: &PageContext, template: &Template) -> Value {
    let href = format!("{}/guards/edit?template={}", page.root(), template.id);
    json!({"title": template.title, "about": template.about, "href": href})
}

/// What policies found, for readers who may see calls.
pub(super) async fn hits_of(app: &App, identity: &Identity, policy: Option<&str>) -> Result<Hits> {
    if !identity.role.allows(Permission::ReadTraces) {
        return Ok(Hits::default());
    }
    let week = Some("-7d".to_owned());
    traffic::hits(app, identity.scope(), policy, week).await
}

pub(super) fn hits_view(page: &PageContext, hits: &Hits) -> Vec<Value> {
    let root = page.root();
    let row = |row: &traffic::RuleHits| {
        let finds = format!(
            "{root}/guards/finds?policy={}&rule={}",
            encode(&row.policy),
            encode(&row.rule)
        );
        let action = match row.action.as_str() {
            "" => None,
            action => Some(page.t(&format!("guards-action-{action}"))),
        };
        json!({
            "policy": row.policy, "href": edit_href(page, &row.policy), "rule": row.rule, "week": row.calls,
            "day": row.calls_day, "blocked": row.blocked, "at": row.last_at, "finds_href": finds,
            "shadow": row.shadow, "action": action,
        })
    };
    hits.rules.iter().map(row).collect()
}
