//! The gateway against a provider over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod agents;
mod app_guards;
mod apps;
mod attachments;
mod docs;
mod egress;
mod examples;
mod grounded;
mod guard_bad_input;
mod guard_incidents;
mod guards;
mod life_cycle;
mod local;
mod prompts;
mod random;
mod rig;
mod shadows;
mod translation;
