//! What every other crate agrees on: identifiers, time, money, token counts,
//! canonical JSON with digests, cursors, secrets, text and address rules.
//!
//! No IO, no async, no globals. Time and randomness come in through [`Clock`]
//! and [`Random`], so that a test can fix both. Everything depends on this
//! crate, so a change here rebuilds the world: keep it boring.

mod canonical;
mod clock;
mod cursor;
mod ids;
mod money;
pub mod net;
mod secret;
pub mod text;
mod usage;

pub use canonical::{CanonicalError, Digest, canonical_json};
pub use clock::{Clock, Random, SystemClock, SystemRandom};
pub use cursor::{Cursor, CursorError};
pub use ids::{
    BadId, DocumentId, Id, Ids, JobId, KeyId, MemberId, MoveId, PointerId, ProjectId, ProviderId,
    ScoreId, SessionId, SpanId, TraceId, UserId, VersionId,
};
pub use money::{NanoUsd, Price};
pub use secret::Secret;
pub use usage::Usage;
