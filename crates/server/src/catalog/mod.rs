//! The catalog over HTTP, for every kind of document alike.
//!
//! What a kind adds of its own (pages, shortcuts) is in its own folder; what all
//! share is here: reading names and labels that callers typed, moving pointers so
//! that the plan follows, and how the catalog's refusals are answered.

mod api;
pub(crate) mod rows;

use std::str::FromStr as _;

use base::Cursor;
use db::catalog::{CatalogError, Document, Label, Listed, Name, NameFilter};
use db::{Catalog, MoveOutcome, MoveRequest, PageRequest, Pointer, Scope, Selector};
use serde::Deserialize;

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::traces::encode;

/// The API; each kind's pages are in its own folder.
pub fn routes() -> Vec<Route> {
    api::routes()
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    Name::from_str(text).map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_prompt_name")
            .at("name")
    })
}

/// A label that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_label(text: &str) -> Result<Label> {
    Label::from_str(text).map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_label")
            .at("label")
    })
}

/// What a caller typed to say which version: a number, `latest`, a label or a digest.
///
/// # Errors
/// What is wrong with it.
pub fn parse_selector(text: &str) -> Result<Selector> {
    text.parse()
        .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("version"))
}

/// Names that a form offers; others are typed.
const OFFERED: u32 = 200;

/// The first names of a kind, for a choice in a form.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn offered_names(
    catalog: &Catalog,
    scope: Scope,
    kind: &str,
) -> Result<Vec<String>> {
    let page = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let found = catalog
        .list_names(scope, kind, &NameFilter::default(), &page)
        .await?;
    let names = found.items.into_iter();
    Ok(names.map(|one| one.latest.name.to_string()).collect())
}

/// Where a list goes on.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    cursor: Option<String>,
}

/// One page of a list: names of a kind, with their newest documents.
pub(crate) struct Latest {
    /// By name.
    pub(crate) rows: Vec<(Listed, Document)>,
    next: Option<Cursor>,
}

impl Latest {
    /// Where the list at this path goes on.
    pub(crate) fn next_href(&self, path: &str) -> Option<String> {
        let next = self.next.as_ref()?;
        Some(format!("{path}?cursor={}", encode(next.as_str())))
    }
}

/// Reads one page of a list, at most so many rows of it.
///
/// # Errors
/// The cursor is none; the database cannot be read.
pub(crate) async fn latest(
    catalog: &Catalog,
    scope: Scope,
    kind: &str,
    query: ListQuery,
    most: u32,
) -> Result<Latest> {
    let page = PageRequest {
        cursor: query.cursor.map(Cursor::from_client),
        limit: most,
    };
    let names = catalog
        .list_names(scope, kind, &NameFilter::default(), &page)
        .await?;
    let mut rows = Vec::new();
    for listed in names.items {
        let name = &listed.latest.name;
        let found = catalog
            .version(scope, kind, name, &Selector::Latest)
            .await?;
        rows.extend(found.map(|found| (listed, found)));
    }
    Ok(Latest {
        rows,
        next: names.next,
    })
}

impl From<CatalogError> for AppError {
    fn from(error: CatalogError) -> Self {
        let text = error.to_string();
        match error {
            CatalogError::Invalid(problems) => {
                let at = problems
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| db::Problem::new("", ""));
                Self::invalid(text).code("invalid_document").at(at.path)
            }
            CatalogError::NameTaken { .. } => Self::invalid(text).code("name_taken").at("name"),
            CatalogError::Made { instead, .. } => {
                Self::invalid(text).code("made_not_written").hint(instead)
            }
            CatalogError::UnknownKind(_) => Self::not_found(text).code("unknown_kind"),
            CatalogError::NoVersion { .. }
            | CatalogError::NoName { .. }
            | CatalogError::NoPointer { .. } => Self::not_found(text),
            CatalogError::Deleted { .. } => Self::not_found(text).code("deleted"),
            CatalogError::Protected { .. } => Self::conflict(text)
                .code("label_protected")
                .hint("propose the move instead: POST /api/v1/proposals"),
            CatalogError::Quarantined { .. } => Self::conflict(text)
                .code("quarantined")
                .hint("choose another version, or have the quarantine lifted"),
            CatalogError::Cycle { at, .. } => {
                let refusal = Self::conflict(text).code("reference_cycle");
                if at.is_empty() {
                    refusal
                } else {
                    refusal.at(at)
                }
            }
            CatalogError::Referenced { .. } => Self::conflict(text)
                .code("still_referenced")
                .hint("change or delete what refers to it first, or force it"),
            CatalogError::Cursor(_) => Self::invalid(text).at("cursor"),
            CatalogError::Db(error) => error.into(),
        }
    }
}

/// Points a label to a version, in effect on the next request.
///
/// # Errors
/// There is no such version, the label is protected, the content is quarantined, a
/// circle would arise, or somebody else moved the label first.
pub async fn move_pointer(app: &App, scope: Scope, request: MoveRequest<'_>) -> Result<Pointer> {
    match app.catalog.move_pointer(scope, request).await? {
        MoveOutcome::Moved(pointer) | MoveOutcome::Unchanged(pointer) => {
            app.refresh_plan().await?;
            Ok(pointer)
        }
        MoveOutcome::Conflict(current) => Err(moved_meanwhile(request.label, current.as_ref())),
    }
}

/// The refusal of a move on a state that is no more, with the state that is.
pub fn moved_meanwhile(label: &Label, current: Option<&Pointer>) -> AppError {
    let now = match current {
        Some(pointer) => format!(
            "it points to version {} now (revision {})",
            pointer.number, pointer.revision
        ),
        None => "it does not exist".to_owned(),
    };
    AppError::conflict(format!("somebody else moved {label} first: {now}")).code("moved_meanwhile")
}
