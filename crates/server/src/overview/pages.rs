//! The overview page.

use axum::extract::State;
use axum::response::Response;

use super::figures::{Range, compute};
use super::view::{
    FindsLink, OverviewView, blocked_users, charts, error_row, guard_tiles, model_row, prompt_row,
    tiles,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::http::{Access, Route};
use crate::traces::time::{parse_duration_us, parse_time};
use crate::traces::{ListLink, RangeView, bucket_s, range_view, read};
use crate::ui::PageContext;

const READ: Access = Access::Needs(Permission::ReadTraces);
/// What the page shows when its address names no time.
const DEFAULT_RANGE: &str = "24h";
/// Points of a chart, about.
const BUCKETS: i64 = 60;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}", READ, show),
        Route::get("/{project}/", READ, show),
    ]
}

async fn show(State(app): State<App>, identity: Identity, page: PageContext) -> Result<Response> {
    let link = ListLink::of_request(&page.path, &page.query);
    let range = read_range(&link, app.clock.now_us())?;
    let bucket_s = bucket_s(range.to_us - range.from_us, BUCKETS);
    let asked = Range {
        project: identity.project.id,
        from_us: range.from_us,
        to_us: range.to_us,
        bucket_us: bucket_s * 1_000_000,
    };
    let figures = read(&app.telemetry, move |reader| compute(reader, &asked)).await?;
    let list = list_link(&page.root(), &link);
    let root = page.root();
    let live = match identity.role.allows(Permission::ReadEvaluations) {
        true => {
            crate::live::rows(&app, &page, identity.scope(), (range.from_us, range.to_us)).await?
        }
        false => Vec::new(),
    };
    let guards = crate::guards::figures(&app, identity.scope(), range.from_us, range.to_us).await?;
    let default = format!("-{DEFAULT_RANGE}");
    let finds = FindsLink {
        root: &root,
        from: link
            .get("from")
            .or(link.get("to").is_none().then_some(default.as_str()))
            .unwrap_or_default(),
        to: link.get("to").unwrap_or_default(),
    };
    let view = OverviewView {
        live,
        guard_tiles: guards
            .as_ref()
            .map(|guards| guard_tiles(guards, &finds))
            .unwrap_or_default(),
        blocked_users: guards
            .as_ref()
            .map(|guards| blocked_users(guards, &finds))
            .unwrap_or_default(),
        empty: !figures.any,
        snippet: crate::playground::snippet(&app, &page, &identity, None, None),
        tiles: tiles(&figures, &list),
        charts: charts(&figures, &range, bucket_s, &list),
        models: figures
            .models
            .iter()
            .map(|row| model_row(row, &list))
            .collect(),
        errors: figures
            .errors
            .iter()
            .map(|class| error_row(class, &root, &list))
            .collect(),
        prompts: figures
            .prompts
            .iter()
            .map(|used| prompt_row(used, &list))
            .collect(),
        range,
    };
    page.render("overview/show.html", view).await
}

fn read_range(link: &ListLink, now_us: i64) -> Result<RangeView> {
    let time = |key: &'static str| {
        let parsed = link
            .get(key)
            .map(|text| parse_time(text, now_us))
            .transpose();
        parsed.map_err(|message| AppError::invalid(message).code("invalid_time").at(key))
    };
    let (from_us, to_us) = (time("from")?, time("to")?);
    let to_or_now_us = to_us.unwrap_or(now_us);
    let default_from_us = to_or_now_us - parse_duration_us(DEFAULT_RANGE).unwrap_or_default();
    let from_us = from_us.unwrap_or(default_from_us);
    if from_us >= to_or_now_us {
        return Err(AppError::invalid("from must be earlier than to").at("from"));
    }
    Ok(range_view(
        link,
        Some(from_us),
        to_us,
        now_us,
        DEFAULT_RANGE,
    ))
}

/// The trace list over the same range as this page.
fn list_link(root: &str, link: &ListLink) -> ListLink {
    let default = format!("-{DEFAULT_RANGE}");
    let from = link
        .get("from")
        .or(link.get("to").is_none().then_some(default.as_str()));
    ListLink::new(format!("{root}/traces"))
        .with("from", from.unwrap_or_default())
        .with("to", link.get("to").unwrap_or_default())
}
