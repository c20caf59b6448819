//! Errors as the clients of the OpenAI surface read them.
//!
//! Everything that can go wrong in a call ends here: one status, one body shape.
//! The provider's own words are kept in `error.provider`, capped and without our
//! credential.

use base::TraceId;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{GatewayBody, TRACE_ID_HEADER, trace_header};

/// An error in the OpenAI shape: `{"error": {message, type, param, code}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// `error.code`: stable, what programs branch on.
    pub code: String,
    /// `error.message`: what a person reads.
    pub message: String,
    /// `error.param`: the request field at fault.
    pub param: Option<String>,
    /// `error.provider`: what the provider said, when it was asked.
    pub provider: Option<Box<Value>>,
    /// `Retry-After`, in seconds.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    /// An error with this status and code; `error.type` (`invalid_request_error`,
    /// `api_error` …) follows from the status.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            param: None,
            provider: None,
            retry_after_s: None,
        }
    }

    /// A request that can never work, with the field at fault.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_value", message);
        error.param = Some(param.into());
        error
    }

    /// A body that is not the JSON that it should be.
    pub(crate) fn bad_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    /// The body.
    pub fn body(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": kind_of(self.status),
            "param": self.param,
            "code": self.code,
        });
        if let Some(provider) = &self.provider {
            error["provider"] = provider.as_ref().clone();
        }
        json!({ "error": error })
    }

    /// The event that ends a stream that has begun well and ends badly.
    pub(crate) fn stream_event(&self) -> Bytes {
        Bytes::from(format!("data: {}\n\n", self.body()))
    }

    /// The whole response.
    pub fn into_response(self, trace_id: Option<TraceId>) -> Response<GatewayBody> {
        let mut response = Response::new(GatewayBody::full(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(trace_id) = trace_id {
            headers.insert(TRACE_ID_HEADER, trace_header(trace_id));
        }
        response
    }
}

fn kind_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}
