//! Datasets: versioned examples for evaluations and fine-tuning.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document of the catalog: schemas, labels, splits, which chunks |
//! | `example.rs` | one example: what is allowed in it, patches, marks |
//! | `chunks.rs` | examples in the blob store |
//! | `edit.rs` | from one version to the next |
//! | `read.rs` | pages of examples, one example, all of them, what differs between versions |
//! | `from_traces.rs` | examples out of traces |
//! | `uploads.rs`, `import/`, `export.rs` | files of others |
//! | `split.rs`, `alike.rs` | assigning splits; duplicates and leaks |
//! | `transform.rs`, `marking.rs` | preparing, measuring and marking texts |
//! | `runs.rs` | runs over datasets that other tools made and sent here |
//! | `api.rs` | JSON routes |
//! | `pages.rs`, `example_page.rs`, `import_page.rs`, `traces_page.rs`, `runs_page.rs`, `transform_page.rs` | pages |
//!
//! A dataset is a document of the catalog that names chunks of examples in the blob
//! store. Saving a version writes the chunks that changed and shares the others, so
//! that a version costs what it changes. Deleting a dataset leaves its chunks where
//! they are: other versions and datasets may share them, and saving brings it back.

mod alike;
mod api;
mod chunks;
mod document;
mod edit;
mod example;
mod example_page;
mod export;
mod from_traces;
mod import;
mod import_page;
pub mod marking;
mod pages;
mod read;
pub mod runs;
mod runs_page;
mod split;
mod traces_page;
mod transform;
mod transform_page;
mod uploads;

use std::sync::Arc;

use base::ProjectId;
use db::catalog::{Name, Selector};
use db::{Catalog, Db, Document, Kind, Scope, Version};
use serde::Deserialize as _;
use serde_json::json;

use crate::error::{AppError, Result};
use crate::http::Route;

pub use alike::Report;
pub(crate) use alike::alike_pairs;
pub use document::{Checks, Chunk, DatasetDocument, Fields};
pub use edit::{Describe, Edits, Saved};
pub use example::{Example, Mark, Source, Verdict};
pub use export::ExportFormat;
pub(crate) use export::csv_cell;
pub use from_traces::{FromTraces, Picked, Taken, add_traces, span_example};
pub use import::{Format, ImportFile, ImportOptions, Mode, Preview};
pub use read::{Difference, ExampleFilter, ExamplePage, Located, Reading, SplitFilter};
pub use split::{Assign, Assigned};
pub use transform::{Lengths, PreviewItem, TransformPreview, TransformRequest};

use chunks::wrong_example;

/// The catalog's word for datasets.
pub const KIND: &str = "dataset";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// Datasets, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match DatasetDocument::deserialize(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        blobs: |content| {
            let chunks = DatasetDocument::deserialize(content).map(|document| document.chunks);
            let chunks = chunks.unwrap_or_default().into_iter();
            chunks.map(|chunk| chunk.digest).collect()
        },
        // Two datasets are alike when their examples are, which their documents do not hold.
        text_of: |_| String::new(),
        made_by: Some("send its examples to /api/v1/datasets"),
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(DatasetDocument)),
            |content| DatasetDocument::parse(content).map(drop),
        )
    }
}

/// The datasets of an installation: what the server, its jobs and commands call. Clones share it.
#[derive(Debug, Clone)]
pub struct Datasets {
    db: Db,
    catalog: Catalog,
    known: Arc<chunks::KnownIds>,
}

/// A version of a dataset.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which.
    pub version: Version,
    /// What it says.
    pub document: DatasetDocument,
}

impl Datasets {
    /// The datasets of this catalog, which must have a blob store.
    pub fn new(db: Db, catalog: Catalog) -> Self {
        Self {
            db,
            catalog,
            known: Arc::default(),
        }
    }

    fn chunks_of(&self, project: ProjectId) -> Result<chunks::Chunks> {
        let store = self.catalog.blobs(project);
        let store = store
            .ok_or_else(|| AppError::internal(anyhow::anyhow!("the catalog has no blob store")))?;
        Ok(chunks::Chunks::new(&store, project, &self.known))
    }

    fn chunks(&self, scope: Scope) -> Result<chunks::Chunks> {
        self.chunks_of(scope.project)
    }

    /// A version of a dataset that was not deleted.
    ///
    /// # Errors
    /// There is none.
    pub async fn version(&self, scope: Scope, name: &Name, selector: &Selector) -> Result<Found> {
        let listed = self.catalog.name(scope, KIND, name).await?;
        let is_living = listed.is_some_and(|listed| listed.deleted_at.is_none());
        let found = match is_living {
            true => self.catalog.version(scope, KIND, name, selector).await?,
            false => None,
        };
        match found {
            Some(document) => read_document(document),
            None if is_living => {
                let message = format!("the dataset {name} has no version {selector}");
                Err(AppError::not_found(message).code("no_such_version"))
            }
            None => {
                let message = format!("there is no dataset {name}");
                Err(AppError::not_found(message).code("no_such_dataset"))
            }
        }
    }

    /// The newest version.
    ///
    /// # Errors
    /// There is no such dataset.
    pub async fn latest(&self, scope: Scope, name: &Name) -> Result<Found> {
        self.version(scope, name, &Selector::Latest).await
    }

    /// The newest version, if there is such a dataset.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn find_latest(&self, scope: Scope, name: &Name) -> Result<Option<Found>> {
        match self.latest(scope, name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code == "no_such_dataset" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_document(document: Document) -> Result<Found> {
    let Document { version, content } = document;
    let document = DatasetDocument::deserialize(&content)
        .map_err(|error| AppError::internal(error).code("unreadable_dataset"))?;
    Ok(Found { version, document })
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    text.parse().map_err(|problem: db::Problem| {
        AppError::invalid(problem.message)
            .code("bad_name")
            .at("name")
    })
}
