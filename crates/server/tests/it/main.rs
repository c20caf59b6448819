//! Tests at the boundary: HTTP, the command line, and the real binary.
//!
//! `harness` starts servers and calls them; every other file is the stories of
//! one area. `security` holds what other products got wrong, by their names.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod harness;

mod app_guards;
mod apps;
mod audit;
mod audit_walk;
mod bad_input;
mod calibration;
mod catalog;
mod choices;
mod cli;
mod datasets;
mod evaluations;
mod experiments;
mod gitops;
mod guard_cli;
mod guard_finds;
mod guard_words;
mod guards;
mod improve;
mod judges;
mod keys;
mod langfuse_runs;
mod life;
mod live;
mod model_evaluators;
mod models;
mod openapi;
mod pages;
mod preparing;
mod programs;
mod promotion;
mod prompts;
mod providers;
mod releases;
mod review;
mod roles;
mod sdk_prompts;
mod security;
mod sign_in;
mod traces;
mod user_evaluators;
