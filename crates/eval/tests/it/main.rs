//! The crate from outside: its numbers beside those of the programs that it names, and its promises
//! for any text whatever.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod cases;
mod compat;
mod japanese;
mod properties;
mod support;
