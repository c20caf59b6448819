//! What documents of every kind look like over JSON: the rows, pages and answers
//! that the catalog's own routes and those of single kinds share. A kind's own
//! routes only add what is theirs.

use axum::http::StatusCode;
use base::Cursor;
use db::{Document, Name, PageRequest, Pointer, SavedVersion, Version};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which page of a list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    /// Where the page before ended.
    pub(crate) cursor: Option<String>,
    /// How many rows, at most 200.
    pub(crate) limit: Option<u32>,
}

impl PageQuery {
    /// The page that a caller asked for.
    pub(crate) fn page(self) -> PageRequest {
        page_request(self.cursor, self.limit)
    }
}

/// The page that a caller asked for among other things.
pub(crate) fn page_request(cursor: Option<String>, limit: Option<u32>) -> PageRequest {
    PageRequest {
        cursor: cursor.map(Cursor::from_client),
        limit: limit.unwrap_or(0),
    }
}

/// What to ask the next page with.
pub(crate) fn cursor_text(next: Option<Cursor>) -> Option<String> {
    next.map(|cursor| cursor.as_str().to_owned())
}

/// A version without its content.
#[derive(Serialize, JsonSchema)]
pub(crate) struct VersionRow {
    /// The number under the name.
    pub(crate) version: i64,
    /// The content's identity.
    pub(crate) digest: String,
    /// Why it was saved.
    message: String,
    /// Who saved it.
    created_by: String,
    /// When, microseconds since the epoch.
    created_at: i64,
}

impl From<Version> for VersionRow {
    fn from(version: Version) -> Self {
        Self {
            version: version.number,
            digest: version.digest.to_string(),
            message: version.message,
            created_by: version.author,
            created_at: version.created_at,
        }
    }
}

/// A version with its content.
#[derive(Serialize, JsonSchema)]
pub(crate) struct VersionDetail {
    /// The version.
    #[serde(flatten)]
    row: VersionRow,
    /// The document.
    content: Value,
}

impl From<Document> for VersionDetail {
    fn from(found: Document) -> Self {
        Self {
            row: found.version.into(),
            content: found.content,
        }
    }
}

/// A page of versions.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Versions {
    /// The versions, newest first.
    pub(crate) items: Vec<VersionRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

impl From<db::Page<Version>> for Versions {
    fn from(page: db::Page<Version>) -> Self {
        Self {
            items: page.items.into_iter().map(VersionRow::from).collect(),
            next_cursor: cursor_text(page.next),
        }
    }
}

/// What saving did.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Saved {
    /// The name.
    name: String,
    /// The number of the version that holds the content.
    version: i64,
    /// The content's identity.
    digest: String,
    /// Whether this content was there before; nothing was written then.
    already_existed: bool,
}

impl From<&SavedVersion> for Saved {
    fn from(saved: &SavedVersion) -> Self {
        Self {
            name: saved.version.name.to_string(),
            version: saved.version.number,
            digest: saved.version.digest.to_string(),
            already_existed: saved.already_existed,
        }
    }
}

/// 201 where something was written.
pub(crate) fn saved_status(saved: &SavedVersion) -> StatusCode {
    if saved.already_existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }
}

/// Another name with the same content.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SameContent {
    /// The other name.
    name: String,
    /// Its version.
    version: i64,
}

impl SameContent {
    /// The names that a save found.
    pub(crate) fn of(saved: &SavedVersion) -> Vec<Self> {
        let row = |(name, version): &(Name, i64)| Self {
            name: name.to_string(),
            version: *version,
        };
        saved.same_content.iter().map(row).collect()
    }
}

/// Where a label points.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PointerRow {
    /// The label.
    label: String,
    /// The version that it points to.
    version: i64,
    /// The content's identity.
    digest: String,
    /// Counts the moves; send it back as `expected_revision`.
    revision: i64,
    /// Who moved it last.
    moved_by: String,
    /// When, microseconds since the epoch.
    moved_at: i64,
}

impl From<Pointer> for PointerRow {
    fn from(pointer: Pointer) -> Self {
        Self {
            label: pointer.label,
            version: pointer.number,
            digest: pointer.digest.to_string(),
            revision: pointer.revision,
            moved_by: pointer.moved_by,
            moved_at: pointer.moved_at,
        }
    }
}

/// The labels of a name.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Pointers {
    /// The labels, in order.
    items: Vec<PointerRow>,
}

impl From<Vec<Pointer>> for Pointers {
    fn from(pointers: Vec<Pointer>) -> Self {
        Self {
            items: pointers.into_iter().map(PointerRow::from).collect(),
        }
    }
}

/// Where to point a label.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveBody {
    /// The version to point to.
    pub(crate) version: i64,
    /// Move only if the label still has this revision; 0 means that it must not exist yet.
    pub(crate) expected_revision: Option<i64>,
    /// Why.
    #[serde(default)]
    pub(crate) reason: String,
}
