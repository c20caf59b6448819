//! Telemetry through its public API, on real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod filters;
mod follow;
mod kill;
mod queries;
mod segments;
mod support;
mod writing;
