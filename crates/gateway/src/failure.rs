//! What can go wrong upstream, said three times: to the client, to the record,
//! and to the retry loop.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::egress::EgressError;
use crate::error::ApiError;
use crate::local::LocalError;
use crate::plan::Provider;

/// The most of a provider's own words that is kept.
const KEPT_WORDS: usize = 4096;

/// A call, or an attempt, that did not work.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What the client reads.
    pub error: ApiError,
    /// What the record says, when it may say more than the client may know.
    pub detail: Option<Box<str>>,
    /// Whether another attempt may work.
    pub retry: Again,
}

/// Whether another attempt may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    Yes,
    /// The provider asks to wait this many milliseconds first.
    After(u32),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            error,
            detail: None,
            retry: Again::No,
        }
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        let message = error.to_string();
        let error = match error {
            LocalError::UnknownModel(_) => {
                ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message)
            }
            LocalError::Invalid { param, .. } => ApiError::invalid(param, message),
            LocalError::ContextOverflow(_) => {
                let mut error =
                    ApiError::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message);
                error.param = Some("messages".to_owned());
                error
            }
            LocalError::Busy => {
                let mut error = ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "local_models_busy",
                    message,
                );
                error.retry_after_s = Some(1);
                error
            }
            LocalError::Failed(_) => {
                let message = format!("the local model failed: {message}");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "local_model_failed",
                    message,
                )
            }
        };
        error.into()
    }
}

/// Which wait was over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Headers,
    FirstToken,
    Idle,
    Total,
}

impl Failure {
    /// A provider that took too long. Not tried again: the time is gone.
    pub(crate) fn timeout(provider: &str, wait: Wait) -> Self {
        let what = match wait {
            Wait::Headers => "sent no response in time",
            Wait::FirstToken => "sent no first token in time",
            Wait::Idle => "stopped in the middle of its answer",
            Wait::Total => "did not finish its answer in time",
        };
        ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "provider_timeout",
            format!("the provider {provider:?} {what}"),
        )
        .into()
    }

    /// No usable connection. The client learns that, not what stands in our network.
    pub(crate) fn egress(provider: &str, error: &EgressError) -> Self {
        let failure = match error {
            EgressError::HeaderTimeout(_) => Self::timeout(provider, Wait::Headers),
            EgressError::IdleTimeout => Self::timeout(provider, Wait::Idle),
            EgressError::TooLarge(_) => {
                Self::garbage(provider, "sent a larger answer than is allowed")
            }
            EgressError::Broken { .. } => Self::died(provider, "broke the connection"),
            EgressError::Refused { .. } | EgressError::BadTarget(_) => {
                let message =
                    format!("the address of the provider {provider:?} may not be called from here");
                ApiError::new(StatusCode::BAD_GATEWAY, "provider_refused", message).into()
            }
            EgressError::Connect { .. }
            | EgressError::ConnectTimeout(_)
            | EgressError::Redirect(_) => {
                let message = format!("the provider {provider:?} cannot be reached");
                let error = ApiError::new(StatusCode::BAD_GATEWAY, "provider_unreachable", message);
                Self {
                    retry: Again::Yes,
                    ..error.into()
                }
            }
        };
        Self {
            detail: Some(error.to_string().into()),
            ..failure
        }
    }

    /// The connection ended before the answer did.
    pub(crate) fn died(provider: &str, what: &str) -> Self {
        let message = format!("the provider {provider:?} {what}");
        Self {
            retry: Again::Yes,
            ..ApiError::new(StatusCode::BAD_GATEWAY, "provider_died", message).into()
        }
    }

    /// What came is not the protocol.
    pub(crate) fn garbage(provider: &str, what: &str) -> Self {
        let message = format!("the provider {provider:?} {what}");
        ApiError::new(StatusCode::BAD_GATEWAY, "provider_garbage", message).into()
    }

    /// A response that is an error, in whatever shape the provider has.
    pub(crate) fn status(
        provider: &Provider,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let mut failure = Self::said(provider, status.as_u16(), &String::from_utf8_lossy(body));
        if let Some(wait) = retry_after(headers) {
            let seconds = u32::try_from(wait.as_secs().max(1)).unwrap_or(u32::MAX);
            failure.error.retry_after_s = Some(seconds);
            if failure.retry == Again::Yes {
                failure.retry = Again::After(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
            }
        }
        failure
    }

    /// An error in the provider's own words, as response or as stream event.
    pub(crate) fn said(provider: &Provider, status: u16, words: &str) -> Self {
        let words = scrub(provider, words);
        let parsed: Option<Value> = serde_json::from_str(&words).ok();
        let kept = base::text::cut_bytes(&words, KEPT_WORDS).to_owned();
        let (client_status, code) = client_status(status);
        let inner = parsed
            .as_ref()
            .map(|value| value.get("error").unwrap_or(value));
        let text = |key: &str| {
            inner
                .and_then(|error| error.get(key))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let said = text("message").or_else(|| inner?.as_str().map(str::to_owned));
        let name = &provider.name;

        // What a provider says about our credential is not the caller's business: it may spell
        // parts of the key, and the caller can do nothing about it.
        if code == "upstream_credentials_rejected" {
            let message = format!(
                "the provider {name:?} does not accept the credential that is stored for it"
            );
            let detail = Some(format!("{status}: {}", said.unwrap_or(kept)).into());
            return Self {
                detail,
                ..ApiError::new(client_status, code, message).into()
            };
        }
        let message = match said {
            Some(said) => {
                let said = base::text::cut_bytes(&said, KEPT_WORDS);
                format!("the provider {name:?} answered: {said}")
            }
            None => format!("the provider {name:?} answered with status {status}"),
        };
        let code = if client_status.is_client_error() {
            text("code").unwrap_or(code.to_owned())
        } else {
            code.to_owned()
        };
        let mut error = ApiError::new(client_status, &code, message);
        error.param = text("param");
        let whole = words.len() <= KEPT_WORDS;
        let body = parsed.filter(|_| whole).unwrap_or(kept.into());
        error.provider = Some(Box::new(
            json!({ "name": name, "status": status, "body": body }),
        ));
        let again = matches!(status, 429 | 502 | 503 | 504 | 529);
        Self {
            retry: if again { Again::Yes } else { Again::No },
            ..error.into()
        }
    }
}

/// The status that the client gets, and a code for it.
fn client_status(status: u16) -> (StatusCode, &'static str) {
    match status {
        401..=403 => (StatusCode::BAD_GATEWAY, "upstream_credentials_rejected"),
        404 => (StatusCode::NOT_FOUND, "model_not_found"),
        408 | 504 => (StatusCode::GATEWAY_TIMEOUT, "provider_timeout"),
        429 => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        503 | 529 => (StatusCode::SERVICE_UNAVAILABLE, "provider_overloaded"),
        400..=499 => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            "provider_rejected",
        ),
        _ => (StatusCode::BAD_GATEWAY, "provider_error"),
    }
}

/// Some providers repeat the key that they were sent.
fn scrub(provider: &Provider, words: &str) -> String {
    match &provider.credential {
        Some(secret) if !secret.expose().is_empty() => {
            words.replace(secret.expose().as_str(), "[secret]")
        }
        _ => words.to_owned(),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let milliseconds = headers
        .get("retry-after-ms")
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let seconds = milliseconds.map(|ms| ms / 1000.0).or(seconds)?;
    Duration::try_from_secs_f64(seconds.min(86_400.0)).ok()
}
