//! What the product answers when it does not do what was asked.
//!
//! One struct for every feature: an HTTP status, a stable code for programs, a
//! message for people and, where there is one, the next thing to do. The
//! surface that was called decides the shape: our own JSON, OpenAI's error
//! object under `/v1`, an HTML page elsewhere. The cause is logged once, where
//! the answer is made, and never sent.

use axum::http::StatusCode;
use serde::Serialize;

/// A refusal or failure, ready to be shaped for the surface that was called.
#[derive(Debug)]
pub struct AppError {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, machine-readable name of the problem.
    pub code: &'static str,
    /// What was attempted on what, and why it was refused.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The field, parameter or position that is wrong.
    pub at: Option<String>,
    /// For the log only.
    pub source: Option<anyhow::Error>,
}

/// What operations return.
pub type Result<T, E = AppError> = std::result::Result<T, E>;

impl AppError {
    /// A refusal with its own status and code; prefer the named ones below.
    pub fn new_status(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            hint: None,
            at: None,
            source: None,
        }
    }

    /// 400: the request is wrong in itself.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// 401: nobody is signed in, or the key is not known.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::UNAUTHORIZED, "unauthenticated", message)
    }

    /// 403: known, but not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: no such thing, or none that the caller may know of.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: it has changed meanwhile, or it exists already.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::CONFLICT, "conflict", message)
    }

    /// 413: the body is larger than this route takes.
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("the request body is larger than {limit_bytes} bytes");
        Self::new_status(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 429: too many attempts.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    /// 503: something that is needed is not there now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new_status(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500: our own fault. The cause goes to the log, not to the caller.
    pub fn internal(source: impl Into<anyhow::Error>) -> Self {
        let mut error = Self::new_status(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server could not do this; its log has the cause under this request id",
        );
        error.source = Some(source.into());
        error
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where in the request the problem is.
    pub fn at(mut self, at: impl Into<String>) -> Self {
        self.at = Some(at.into());
        self
    }

    /// Replaces the code by a more telling one.
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// Keeps the cause for the log.
    pub fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The body of our own API.
    pub fn body(&self, request_id: &str) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                code: self.code.to_owned(),
                message: self.message.clone(),
                hint: self.hint.clone(),
                at: self.at.clone(),
                request_id: request_id.to_owned(),
            },
        }
    }
}

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AppError {}

impl From<anyhow::Error> for AppError {
    fn from(source: anyhow::Error) -> Self {
        // A database that is away is no fault of ours, however deep in the call it was noticed.
        match source
            .downcast::<Self>()
            .map_err(anyhow::Error::downcast::<db::DbError>)
        {
            Ok(known) => known,
            Err(Ok(known)) => known.into(),
            Err(Err(source)) => Self::internal(source),
        }
    }
}

/// The error body of `/api/v1`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// One problem, for programs and for people.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct ErrorDetail {
    /// Stable name of the problem.
    pub code: String,
    /// What was attempted on what.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The field, parameter or position that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Look for this in the server's log.
    pub request_id: String,
}
