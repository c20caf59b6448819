//! Who acts, and in which project: the first argument of everything that reads
//! or writes a project's rows.

use std::fmt;
use std::str::FromStr;

use base::{KeyId, MemberId, ProjectId, UserId};

/// Who did something, as version authors, pointer moves and the audit log keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A signed-in person.
    User(UserId),
    /// A program with an API key.
    Key(KeyId),
    /// Somebody without an account who was given a link to one review queue.
    Guest(MemberId),
    /// Somebody with access to the data directory, on the command line.
    Operator,
    /// The program itself: jobs, first start.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Guest(id) => write!(f, "guest:{id}"),
            Self::Operator => f.write_str("operator"),
            Self::System => f.write_str("system"),
        }
    }
}

/// The text is not an actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no actor: it is user:ID, key:ID, guest:ID, operator or system")]
pub struct BadActor(String);

impl FromStr for Actor {
    type Err = BadActor;

    fn from_str(text: &str) -> Result<Self, BadActor> {
        let bad = || BadActor(text.chars().take(64).collect());
        match text.split_once(':') {
            Some(("user", id)) => id.parse().map(Self::User).map_err(|_| bad()),
            Some(("key", id)) => id.parse().map(Self::Key).map_err(|_| bad()),
            Some(("guest", id)) => id.parse().map(Self::Guest).map_err(|_| bad()),
            None if text == "operator" => Ok(Self::Operator),
            None if text == "system" => Ok(Self::System),
            _ => Err(bad()),
        }
    }
}

/// The project that an operation may touch, and who performs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Every query has it in its `WHERE`.
    pub project: ProjectId,
    /// Written into history and audit.
    pub actor: Actor,
}
