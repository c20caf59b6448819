//! The first page of a project: how its calls went over a time range, against
//! the range before.
//!
//! Every number is a query over traces and leads to the list of exactly those
//! traces; nothing is kept here. The figures come from telemetry's aggregates,
//! a handful of queries per page.

mod figures;
mod pages;
mod view;

use crate::http::Route;

/// The pages.
pub fn routes() -> Vec<Route> {
    pages::routes()
}
