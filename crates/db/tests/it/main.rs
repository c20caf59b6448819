//! The conformance suite: every story runs on SQLite and on a real PostgreSQL.
//!
//! The modules say `cfg(test)` although they are never anything else: clippy's
//! leave to unwrap in tests looks for it.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod blobs;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod promotion;
#[cfg(test)]
mod relations;
#[cfg(test)]
mod support;
#[cfg(test)]
mod toy_kind;
