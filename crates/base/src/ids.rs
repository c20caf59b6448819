//! Identifiers: UUIDv7 newtypes for rows, W3C-sized ids for traces and spans.
//!
//! UUIDv7 begins with the time, so ids made later sort later, in the database
//! and in segments alike. A [`TraceId`] is a UUIDv7 written as 32 hex digits: a
//! valid OpenTelemetry trace id that also tells when the trace began.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Random};

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind} id")]
pub struct BadId {
    kind: &'static str,
    text: String,
}

impl BadId {
    fn new(kind: &'static str, text: &str) -> Self {
        Self {
            kind,
            text: text.chars().take(64).collect(),
        }
    }
}

/// An identifier that [`Ids::make`] can produce.
pub trait Id: Sized {
    /// Builds the id from 16 UUIDv7 bytes.
    fn from_uuid_bytes(bytes: [u8; 16]) -> Self;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl Id for $name {
            fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            /// Accepts exactly the hyphenated lower-case form, so that one id has one spelling.
            fn from_str(text: &str) -> Result<Self, BadId> {
                let id = Uuid::try_parse(text).map_err(|_| BadId::new($kind, text))?;
                let id = Self(id);
                if id.to_string() == text { Ok(id) } else { Err(BadId::new($kind, text)) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/// A project: the tenant that owns everything else.
    ProjectId, "project");
id!(/// A person who can sign in.
    UserId, "user");
id!(/// A person's role in a project.
    MemberId, "member");
id!(/// A signed-in browser (not a conversation).
    SessionId, "session");
id!(/// An API key.
    KeyId, "key");
id!(/// A connection to somebody's models.
    ProviderId, "provider");
id!(/// A background job.
    JobId, "job");
id!(/// A row of the catalog's document table.
    DocumentId, "document");
id!(/// A document under a name: one version.
    VersionId, "version");
id!(/// A named, mutable reference to one digest.
    PointerId, "pointer");
id!(/// One move of a pointer.
    MoveId, "move");
id!(/// One judgement on a trace or span.
    ScoreId, "score");

/// One request through the product: 16 bytes, shown as 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// One timed operation in a trace: 8 bytes, shown as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// When the trace began, in microseconds since the epoch, if the id is one
    /// of ours (UUIDv7, millisecond precision). Foreign trace ids give `None`.
    pub fn started_us(&self) -> Option<i64> {
        let id = Uuid::from_bytes(self.0);
        if id.get_version_num() != 7 {
            return None;
        }
        let millis = self.0[..6]
            .iter()
            .fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
        millis.checked_mul(1000)
    }
}

impl Id for TraceId {
    fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Id for SpanId {
    fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        // The random tail: the leading bytes are the time and would collide within a millisecond.
        let mut tail = [0; 8];
        tail.copy_from_slice(&bytes[8..]);
        Self(tail)
    }
}

macro_rules! hex_id {
    ($name:ident, $bytes:literal, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let mut bytes = [0; $bytes];
                if text.len() != 2 * $bytes || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(BadId::new($kind, text));
                }
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                    let digit = |b: u8| if b <= b'9' { b - b'0' } else { b - b'a' + 10 };
                    *byte = digit(pair[0]) << 4 | digit(pair[1]);
                }
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(TraceId, 16, "trace");
hex_id!(SpanId, 8, "span");

/// Makes identifiers from the injected clock and random source.
#[derive(Clone)]
pub struct Ids {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl Ids {
    /// Ids that take their time and random bits from these sources.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { clock, random }
    }

    /// A new id of the wanted kind.
    pub fn make<T: Id>(&self) -> T {
        let millis = u64::try_from(self.clock.now_us() / 1000).unwrap_or(0);
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        T::from_uuid_bytes(id.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SystemClock, SystemRandom};

    #[test]
    fn ids_keep_their_time_and_their_one_spelling() {
        let ids = Ids::new(Arc::new(SystemClock), Arc::new(SystemRandom));
        let trace: TraceId = ids.make();
        let age_us = SystemClock.now_us() - trace.started_us().unwrap();
        assert!((0..60_000_000).contains(&age_us), "{age_us}");
        assert_eq!(trace.to_string().parse::<TraceId>().unwrap(), trace);

        let key: KeyId = ids.make();
        assert_eq!(key.to_string().parse::<KeyId>().unwrap(), key);
        assert!(key.to_string().to_uppercase().parse::<KeyId>().is_err());
        assert!("g".repeat(32).parse::<TraceId>().is_err());
        assert_eq!(TraceId([0xff; 16]).started_us(), None);
    }
}
