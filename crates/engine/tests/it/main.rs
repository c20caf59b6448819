//! The engine from outside: real models against reference answers, and tiny
//! random models for everything that does not need a real one.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod files;
mod golden;
mod serving;
mod support;
