//! Review: queues of items that people judge, who is given what, and what comes of it.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document of a queue: questions and rules |
//! | `snapshot.rs`, `values.rs` | what a rater sees of an item, and may answer |
//! | `store.rs` | items, places, labels, guests and fills in the database |
//! | `work.rs` | giving out items, labels, skipping, taking back, settling |
//! | `fill.rs` | items from traces, datasets and evaluations |
//! | `results.rs` | counts, raters, agreement, what an item came to |
//! | `gold.rs`, `export.rs` | settled items as examples; labels as files |
//! | `scores.rs` | labels as scores on their traces |
//! | `guests.rs` | people without an account |
//! | `api.rs` | JSON routes |
//! | `pages.rs`, `manage.rs` | pages of those who label, and of those who run queues |
//! | `edit.rs`, `fill_page.rs`, `settle.rs` | forms of the latter: the document, filling, one item |
//!
//! An item has as many **places** as it wants raters. A rater who is given an item holds one
//! of its places for a time, with a fence that rises whenever somebody takes the place. A
//! label shows its fence. The clock decides when a place may be taken over, never whose
//! label counts: who comes late to a place that nobody took, still labels it; who comes to
//! one that was taken hears what became of it. Labels are rows that are added; taking one
//! back ends it and leaves it where it is.

mod api;
mod document;
mod edit;
mod export;
mod fill;
mod fill_page;
mod gold;
mod guests;
mod manage;
mod pages;
mod results;
mod scores;
mod settle;
mod snapshot;
mod store;
mod values;
mod work;

use base::{Digest, MemberId, ProjectId};
use db::catalog::{NameFilter, Selector};
use db::{Catalog, Db, Kind, Name, PageRequest, Scope};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::http::Route;

pub use document::{Question, QuestionKind, QueueDocument, Scale, Target};
pub use export::{ExportFormat, export};
pub use fill::{FillRequest, FillSource, Filled, Pick, fill};
pub use gold::{GoldMade, GoldRequest, gold};
pub(crate) use guests::guest_cookie;
pub use guests::{
    Guest, GuestMade, LINK_PATH, NewGuest, enter_guest, find_guest, guests, identify_guest,
    is_guest_token, leave_guest, make_guest, revoke_guest,
};
pub use results::{
    Agreement, ItemDetail, ItemPage, PairAgreement, QueueRow, QueueShown, RaterFigures, item,
    items, queue, queues,
};
pub use scores::send_unsent;
pub use snapshot::{Snapshot, words};
pub use store::{Counts, FillRow, ItemState, LabelRow, Progress};
pub use values::{Span, Values, check as check_values};
pub use work::{
    Given, ItemShown, Labelled, MyLabel, Texts, adjudicate, close, label, my_item, my_labels,
    next_item, release, reopen, skip, undo,
};

/// The catalog's word for queues.
pub const KIND: &str = "review_queue";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes.extend(manage::routes());
    routes.extend(settle::routes());
    routes.extend(edit::routes());
    routes.extend(fill_page::routes());
    routes
}

/// Queues, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match QueueDocument::parse(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(QueueDocument)),
            |content| QueueDocument::parse(content).map(drop),
        )
    }
}

/// What the operations that only the database is needed for work on: the server's, or a
/// command's.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The metadata database.
    pub db: &'a Db,
    /// The catalog.
    pub catalog: &'a Catalog,
}

impl<'a> Desk<'a> {
    /// The server's.
    pub fn of(app: &'a App) -> Self {
        Self {
            db: &app.db,
            catalog: &app.catalog,
        }
    }
}

/// Somebody who labels: a person, a key, or a guest who has only one queue.
#[derive(Debug, Clone)]
pub struct Rater {
    /// The project, and who.
    pub scope: Scope,
    /// The only queue that they may see.
    queue: Option<String>,
}

impl Rater {
    /// Whoever calls.
    ///
    /// # Errors
    /// Their role does not let them label.
    pub fn of(identity: &Identity) -> Result<Self> {
        identity.require(Permission::Label)?;
        Ok(Self {
            scope: identity.scope(),
            queue: identity.guest.as_ref().map(|guest| guest.queue.clone()),
        })
    }

    /// How labels name them: `user:ID`, `key:ID` or `guest:ID`.
    pub fn id(&self) -> String {
        self.scope.actor.to_string()
    }

    /// Whether they may know of this queue.
    fn may_see(&self, queue: &str) -> bool {
        self.queue.as_deref().is_none_or(|only| only == queue)
    }

    async fn queue(&self, desk: Desk<'_>, name: &str) -> Result<Queue> {
        if !self.may_see(name) {
            return Err(no_such_queue(name));
        }
        find_queue(desk, self.scope, name).await
    }
}

/// A queue as it is now.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: i64,
    /// The identity of that version.
    pub digest: Digest,
    /// What that says.
    pub document: QueueDocument,
}

fn no_such_queue(name: &str) -> AppError {
    AppError::not_found(format!("there is no review queue {name:?}")).code("no_such_queue")
}

fn no_such_item() -> AppError {
    AppError::not_found("there is no such item").code("no_such_item")
}

/// The newest version of a queue that was not deleted.
///
/// # Errors
/// There is none.
pub async fn find_queue(desk: Desk<'_>, scope: Scope, name: &str) -> Result<Queue> {
    let parsed: Name = name.parse().map_err(|_| no_such_queue(name))?;
    let listed = desk.catalog.name(scope, KIND, &parsed).await?;
    if listed.is_none_or(|listed| listed.deleted_at.is_some()) {
        return Err(no_such_queue(name));
    }
    let found = desk
        .catalog
        .version(scope, KIND, &parsed, &Selector::Latest)
        .await?
        .ok_or_else(|| no_such_queue(name))?;
    Ok(Queue {
        name: name.to_owned(),
        version: found.version.number,
        digest: found.version.digest,
        document: QueueDocument::parse(&found.content).map_err(db::CatalogError::Invalid)?,
    })
}

/// The names of a project's queues.
async fn queue_names(desk: Desk<'_>, scope: Scope) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut page = PageRequest {
        cursor: None,
        limit: 200,
    };
    loop {
        let found = desk
            .catalog
            .list_names(scope, KIND, &NameFilter::default(), &page)
            .await?;
        names.extend(
            found
                .items
                .into_iter()
                .map(|listed| listed.latest.name.as_str().to_owned()),
        );
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(names),
        }
    }
}

/// A queue in a rater's inbox.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewInboxRow")]
pub struct InboxRow {
    /// Its name.
    pub queue: String,
    /// What it is for.
    pub description: String,
    /// How far the rater is.
    #[serde(flatten)]
    pub progress: Progress,
}

/// A queue as a rater sees it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewInbox")]
pub struct Inbox {
    /// Its name.
    pub queue: String,
    /// The identity of its document.
    pub digest: String,
    /// What it is for.
    pub description: String,
    /// How to judge; Markdown.
    pub guidelines: String,
    /// What is asked about each item.
    pub questions: Vec<Question>,
    /// Whether raters see nothing of who or what answered.
    pub blind: bool,
    /// How far the rater is.
    pub progress: Progress,
}

/// The queues that a rater may work on, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn inbox(desk: Desk<'_>, rater: &Rater) -> Result<Vec<InboxRow>> {
    let mut rows = Vec::new();
    for name in queue_names(desk, rater.scope).await? {
        if !rater.may_see(&name) {
            continue;
        }
        let queue = find_queue(desk, rater.scope, &name).await?;
        rows.push(InboxRow {
            progress: progress(desk, rater, &name).await?,
            description: queue.document.description,
            queue: name,
        });
    }
    Ok(rows)
}

/// One queue as a rater sees it.
///
/// # Errors
/// There is none that they may know of.
pub async fn inbox_queue(desk: Desk<'_>, rater: &Rater, name: &str) -> Result<Inbox> {
    let queue = rater.queue(desk, name).await?;
    Ok(Inbox {
        progress: progress(desk, rater, name).await?,
        digest: queue.digest.to_string(),
        queue: queue.name,
        description: queue.document.description,
        guidelines: queue.document.guidelines,
        questions: queue.document.questions,
        blind: queue.document.blind,
    })
}

async fn progress(desk: Desk<'_>, rater: &Rater, queue: &str) -> Result<Progress> {
    let at = store::At {
        project: rater.scope.project,
        queue,
    };
    store::progress(desk.db, at, &rater.id()).await
}

/// What a guest is called, good or revoked.
///
/// # Errors
/// The database cannot be read.
pub async fn guest_name(db: &Db, project: ProjectId, guest: MemberId) -> Result<Option<String>> {
    let found = store::find_guest(db, project, &guest.to_string()).await?;
    Ok(found.map(|guest| guest.name))
}
