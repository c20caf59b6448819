//! Tests at the boundary: HTTP, the command line, and the real binary.
//!
//! `harness` starts servers and calls them; every other file is the stories of
//! one area. `security` holds what other products got wrong, by their names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod harness;

mod cli;
mod keys;
mod models;
mod roles;
mod sign_in;
mod traces;
