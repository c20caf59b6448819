//! The conformance suite: every story runs on SQLite and on a real PostgreSQL.

mod blobs;
mod catalog;
mod jobs;
mod opening;
mod support;
