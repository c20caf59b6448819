//! The OpenAI protocol, spoken by most providers: bytes pass, the meter reads.
//!
//! To know the tokens of a stream, `stream_options.include_usage` is asked for
//! where the caller did not; the extra chunk that it brings is taken out again,
//! so the caller sees the stream it asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde::Deserialize;

use crate::egress::EgressError;
use crate::failure::Failure;
use crate::meter::{Chunk, Meter, OpenAiUsage};
use crate::plan::Provider;
use crate::providers::Piece;
use crate::sse::Event;

/// A request to a path below the provider's base URL.
pub(crate) fn request(
    provider: &Provider,
    path: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, EgressError> {
    let uri = format!(
        "{}/{path}",
        provider.base_url.as_str().trim_end_matches('/')
    );
    let bad = || EgressError::BadTarget(provider.name.clone());
    let mut request = Request::post(uri)
        .body(Full::new(body))
        .map_err(|_| bad())?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    if let Some(credential) = &provider.credential {
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", credential.expose())).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// Asks for the list of models.
pub(crate) fn list_models(provider: &Provider) -> Result<Request<Full<Bytes>>, EgressError> {
    let mut request = request(provider, "models", Bytes::new())?;
    *request.method_mut() = http::Method::GET;
    request.headers_mut().remove(CONTENT_TYPE);
    Ok(request)
}

/// Reads a stream of chat completion chunks.
pub(crate) struct Stream {
    provider: Arc<Provider>,
    /// The caller did not ask for the usage chunk.
    hide_usage: bool,
}

impl Stream {
    pub(crate) fn new(provider: Arc<Provider>, hide_usage: bool) -> Self {
        Self {
            provider,
            hide_usage,
        }
    }

    pub(crate) fn event(
        &mut self,
        event: Event,
        meter: &mut Meter,
        out: &mut VecDeque<Piece>,
    ) -> Result<(), Failure> {
        let Some(data) = &event.data else {
            out.push_back(Piece {
                bytes: event.raw,
                real: false,
                last: false,
            });
            return Ok(());
        };
        if data.trim_ascii() == b"[DONE]" {
            out.push_back(Piece {
                bytes: event.raw,
                real: false,
                last: true,
            });
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|error| {
            Failure::garbage(
                &self.provider.name,
                &format!("sent something that is not a chunk: {error}"),
            )
        })?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            let status = error["code"]
                .as_u64()
                .and_then(|code| u16::try_from(code).ok());
            let status = status
                .filter(|code| (400..600).contains(code))
                .unwrap_or(500);
            return Err(Failure::said(
                &self.provider,
                status,
                &String::from_utf8_lossy(data),
            ));
        }
        let usage_only = chunk.choices.is_empty() && chunk.usage.is_some();
        let real = meter.chunk(Chunk {
            error: None,
            ..chunk
        });
        if !(usage_only && self.hide_usage) {
            out.push_back(Piece {
                bytes: event.raw,
                real,
                last: false,
            });
        }
        Ok(())
    }

    pub(crate) fn may_end(&self, meter: &Meter) -> bool {
        self.provider.quirks.no_done && meter.has_finished()
    }
}

/// Reads a whole chat completion.
pub(crate) fn completion(
    provider: &Provider,
    body: &[u8],
    meter: &mut Meter,
) -> Result<(), Failure> {
    let answer: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| not_json(provider, &error))?;
    if !answer["choices"].is_array() {
        return Err(Failure::garbage(
            &provider.name,
            "sent an answer without choices",
        ));
    }
    meter.completion(&answer);
    Ok(())
}

/// Reads a whole embedding answer; the vectors are not looked at.
pub(crate) fn embeddings(
    provider: &Provider,
    body: &[u8],
    meter: &mut Meter,
) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        model: Option<String>,
        data: Vec<serde::de::IgnoredAny>,
        usage: Option<OpenAiUsage>,
    }
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| not_json(provider, &error))?;
    meter.response_model = answer.model;
    meter.usage = answer.usage.as_ref().map(Into::into);
    meter.generated_chunks = u64::from(!answer.data.is_empty());
    Ok(())
}

/// The vectors of an embedding answer in the order of its texts, where it has that shape.
pub(crate) fn read_vectors(body: &[u8]) -> Option<Vec<Vec<f32>>> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        index: Option<usize>,
        embedding: Vec<f32>,
    }
    let Answer { mut data } = serde_json::from_slice(body).ok()?;
    data.sort_by_key(|row| row.index);
    Some(data.into_iter().map(|row| row.embedding).collect())
}

fn not_json(provider: &Provider, error: &serde_json::Error) -> Failure {
    Failure::garbage(
        &provider.name,
        &format!("sent an answer that cannot be read: {error}"),
    )
}
