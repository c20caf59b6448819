//! The crate from outside: its numbers beside those of the programs that it names, and its promises
//! for any text whatever.

mod cases;
mod compat;
mod japanese;
mod properties;
mod support;
