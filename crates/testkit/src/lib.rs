//! Test support: fake providers over real HTTP, a fixed clock, a real
//! PostgreSQL, fixtures. Only ever a dev-dependency.

pub mod clock;
pub mod postgres;
pub mod provider;
