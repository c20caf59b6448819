//! Telemetry through its public API, on real files.

mod filters;
mod kill;
mod queries;
mod segments;
mod support;
mod writing;
