//! The metadata database: connections, migrations, the catalog, the job queue,
//! the audit log, and the blob store beside it.
//!
//! One SQL text runs on SQLite (a file in the data directory) and PostgreSQL;
//! every difference between the two is dealt with here and nowhere else.
//! Feature code writes its own SQL in its `store.rs` through the re-exported
//! [`sqlx`], with [`Db::read`] for reading and [`Db::begin_write`] for writing.
//! This crate knows no feature's types: document kinds come in as data.

pub mod audit;
mod blobs;
pub mod catalog;
mod database;
mod error;
pub mod jobs;
mod migrate;
mod open;
pub mod promotion;
mod real;
pub mod rows;
mod scope;

pub use blobs::{Blob, BlobError, BlobStore, BlobWriter};
pub use catalog::{
    Admission, Candidate, Catalog, CatalogError, Change, DEFAULT_LABEL, DeleteRequest, Deleted,
    Dependent, Document, Folder, FolderListing, IndexRow, Kind, Kinds, Label, Listed, Move,
    MoveAction, MoveOutcome, MoveRequest, Name, NameFilter, NewVersion, Page, PageRequest, Pointer,
    PointerIndexRow, Problem, Reference, RemoveOutcome, RemoveRequest, Resolution, Resolved,
    SavedVersion, Selector, Similar, TextFile, Version, diff,
};
pub use database::{Db, WriteTx};
pub use error::{DbError, Fault};
pub use open::{DatabaseUrl, OpenError};
pub use promotion::Promotion;
pub use real::Real;
pub use scope::{Actor, Scope};
/// The SQL toolkit, at the version and with the features that this crate uses.
pub use sqlx;
