//! Why a model could not be pulled, sorted by what can be done about it.

use axum::http::StatusCode;

use crate::error::AppError;

/// A pull that failed. The message stands alone and is meant for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullError {
    /// What a caller branches on.
    pub fault: PullFault,
    /// What was attempted on what, and what went wrong.
    pub message: String,
}

/// What can be done about a failed pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullFault {
    /// The reference is wrong, or names something that is not a model.
    Invalid,
    /// The source does not have it, or does not show it to us.
    NotFound,
    /// The source cannot be reached now; trying again may help.
    Unreachable,
    /// The address may not be reached from here.
    Refused,
    /// What came is not what was announced.
    Damaged,
    /// The engine cannot run this model.
    Unsupported,
    /// Another model has the name, or the same pull is running.
    Conflict,
    /// The disk is full or cannot be written.
    Disk,
    /// A tool that is needed is missing, or a fault of ours.
    Failed,
}

impl PullError {
    /// An error of this kind.
    pub fn new(fault: PullFault, message: impl Into<String>) -> Self {
        Self {
            fault,
            message: message.into(),
        }
    }

    /// Whether the same pull may work later without anybody doing anything.
    pub fn is_temporary(&self) -> bool {
        self.fault == PullFault::Unreachable
    }

    /// What the system said about this path.
    pub(crate) fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                format!("no space left on the disk to {doing} {}", path.display())
            }
            _ => format!("cannot {doing} {}: {error}", path.display()),
        };
        Self::new(PullFault::Disk, message)
    }
}

impl From<super::reference::BadRef> for PullError {
    fn from(error: super::reference::BadRef) -> Self {
        Self::new(PullFault::Invalid, error.to_string())
    }
}

impl From<db::DbError> for PullError {
    fn from(error: db::DbError) -> Self {
        let fault = if error.is_busy() {
            PullFault::Unreachable
        } else {
            PullFault::Failed
        };
        Self::new(fault, format!("writing down the model: {error}"))
    }
}

impl From<tokio::task::JoinError> for PullError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(
            PullFault::Failed,
            format!("a part of the pull ended early: {error}"),
        )
    }
}

impl From<PullError> for AppError {
    fn from(error: PullError) -> Self {
        let (status, code) = match error.fault {
            PullFault::Invalid | PullFault::Unsupported => (StatusCode::BAD_REQUEST, "invalid"),
            PullFault::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            PullFault::Conflict => (StatusCode::CONFLICT, "conflict"),
            PullFault::Refused => (StatusCode::FORBIDDEN, "address_refused"),
            PullFault::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            PullFault::Damaged => (StatusCode::BAD_GATEWAY, "damaged_download"),
            PullFault::Disk | PullFault::Failed => return Self::internal(error),
        };
        Self::new_status(status, code, error.message)
    }
}
