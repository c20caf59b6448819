//! The product: one folder per feature, and what they share.
//!
//! The only crate that knows the web framework and HTML, and the only one that
//! sees all the others. Start at `app.rs` (the wiring) and `http.rs` (the route
//! table); a feature is a folder with `mod.rs`, `api.rs`, `pages.rs`, `store.rs`.

pub mod app;
pub mod apps;
pub mod audit;
pub mod auth;
pub mod calibration;
pub mod catalog;
pub mod choice;
pub mod cli;
pub mod config;
pub mod data;
pub mod datasets;
pub mod error;
pub mod evaluations;
pub mod evaluators;
pub mod experiments;
pub mod extract;
pub mod gitops;
pub mod guards;
pub mod http;
pub mod improve;
pub mod inference;
pub mod jobs;
pub mod keys;
mod leftover;
pub mod live;
pub mod members;
mod memory;
pub mod meta;
pub mod models;
pub mod openapi;
pub mod overview;
pub mod plan;
pub mod playground;
pub mod prices;
pub mod projects;
pub mod promotion;
pub mod prompts;
pub mod providers;
pub mod releases;
pub mod review;
pub mod runs;
pub mod scores;
pub mod sdk;
pub mod secrets;
pub mod sessions;
pub mod setup;
pub mod sse;
pub mod stall;
pub mod starts;
pub mod store;
pub mod surface;
pub mod traces;
pub mod ui;
mod zip;
