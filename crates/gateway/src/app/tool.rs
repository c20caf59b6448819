//! A tool's call: one HTTP request through the one way out.
//!
//! Arguments come from expressions or from a model, so both the schema and the
//! address template stand between them and the network: an argument can fill a
//! place in a path or a query, never a host, a header or a second request.
//! Redirects are not followed, an answer has a cap, and private addresses are
//! refused unless the operator allowed them for tools.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value};

use super::compile::CompiledTool;
use super::document::Method;
use super::expr::as_text;
use super::guarded::ToolCall;
use super::run::Run;
use crate::egress::{Allow, EgressError, read_capped, uri_of};
use crate::error::ApiError;
use crate::failure::Failure;
use crate::record::{CallStatus, RecordKind};
use crate::settle::Settler;
use base::SpanId;

/// The most that a tool may answer.
const ANSWER_BYTES: usize = 256 << 10;
/// The most of an answer that is an error which is kept.
const ERROR_BYTES: usize = 2_000;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of all arguments together.
const ARGUMENT_BYTES: usize = 256 << 10;

/// Where a tool's arguments come from.
pub(crate) enum Arguments {
    /// Expressions made them.
    Made(Map<String, Value>),
    /// A model said them, and its guards looked at them there.
    Said(Map<String, Value>),
}

impl Run<'_> {
    /// Calls a tool: its own record, its answer as JSON where it is JSON, else as text. Guards
    /// look at what it is called with and at what it answers; the record has placeholders where
    /// the tool gets values.
    pub(crate) async fn call_tool(
        &self,
        name: &str,
        arguments: Arguments,
        parent: SpanId,
        step: &str,
    ) -> Result<Value, Failure> {
        let mut settler = self.begin(RecordKind::Tool, parent, step).await?;
        let call = ToolCall {
            name,
            step,
            span: settler.span(),
        };
        match self.guarded_answer(&call, arguments, &mut settler).await {
            Ok(answer) => {
                settler.output = vec![answer.clone()];
                settler.settle(CallStatus::Ok, None);
                Ok(answer)
            }
            Err(failure) => {
                settler.fail(&failure);
                Err(failure)
            }
        }
    }

    async fn guarded_answer(
        &self,
        call: &ToolCall<'_>,
        arguments: Arguments,
        settler: &mut Settler,
    ) -> Result<Value, Failure> {
        let arguments = match arguments {
            Arguments::Said(arguments) => arguments,
            Arguments::Made(mut arguments) => {
                self.guard_arguments(call, &mut arguments).await?;
                arguments
            }
        };
        let record = settler.record_mut();
        record.request_model = call.name.to_owned();
        record.input = vec![Value::Object(arguments.clone())];
        record.attempts = 1;
        let mut sent = arguments;
        let guards = &self.context.guards;
        sent.values_mut()
            .for_each(|value| guards.restore_all(value));
        let answer = self.tool_answer(call.name, sent).await;
        self.guard_result(call, answer).await
    }

    async fn tool_answer(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<Value, Failure> {
        let tool = self.compiled.tools.get(name).ok_or_else(|| {
            let message = format!("there is no tool {name:?}");
            wrong(StatusCode::BAD_REQUEST, "tool_not_found", message)
        })?;
        check(name, tool, &arguments)?;
        if self.dry {
            return tool.http.dry.clone().ok_or_else(|| {
                let message = format!("the tool {name:?} has no dry answer for copies of calls");
                wrong(StatusCode::BAD_REQUEST, "tool_is_dry", message)
            });
        }
        let timeout = tool.http.timeout_ms.map(Duration::from_millis);
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
        let request = self.tool_request(name, tool, arguments)?;
        let sent = tokio::time::timeout(timeout, self.send(name, request, timeout)).await;
        sent.unwrap_or_else(|_| {
            let message = format!("the tool {name:?} did not answer in {timeout:?}");
            Err(wrong(StatusCode::GATEWAY_TIMEOUT, "tool_timeout", message))
        })
    }

    async fn send(
        &self,
        name: &str,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let allow = if self.caller.plan.limits.private_tools {
            Allow::Private
        } else {
            Allow::Public
        };
        let egress = &self.caller.gateway.egress;
        let sent = egress.send(request, allow, timeout).await;
        let (head, mut body) = sent.map_err(|error| unsent(name, &error))?.into_parts();
        let answer = read_capped(&mut body, ANSWER_BYTES, timeout).await;
        let answer = answer.map_err(|error| unsent(name, &error))?;
        let text = String::from_utf8_lossy(&answer);
        if !head.status.is_success() {
            let said = unescaped(base::text::cut_bytes(&text, ERROR_BYTES));
            let message = format!(
                "the tool {name:?} answered {}: {said}",
                head.status.as_u16()
            );
            return Err(wrong(StatusCode::BAD_GATEWAY, "tool_error", message));
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_else(|_| text.into_owned().into()))
    }

    fn tool_request(
        &self,
        name: &str,
        tool: &CompiledTool,
        arguments: Map<String, Value>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let bad = |what: String| {
            wrong(
                StatusCode::BAD_GATEWAY,
                "tool_not_callable",
                format!("the tool {name:?} cannot be called: {what}"),
            )
        };
        let http = &tool.http;
        let mut url = fill(&http.url, &arguments);
        let rest: Map<String, Value> = arguments
            .into_iter()
            .filter(|(argument, _)| !tool.in_url.contains(argument))
            .collect();
        let mut body = Bytes::new();
        if http.method.has_body() {
            body = Value::Object(rest).to_string().into();
        } else {
            for (argument, value) in &rest {
                url.push(if url.contains('?') { '&' } else { '?' });
                url.push_str(&format!(
                    "{}={}",
                    encoded(argument),
                    encoded(&as_text(value))
                ));
            }
        }
        if has_dot_segment(&url) {
            let what = "an argument would change the path of its address";
            let message = format!("the arguments of the tool {name:?} are wrong: {what}");
            return Err(wrong(
                StatusCode::BAD_REQUEST,
                "tool_arguments_invalid",
                message,
            ));
        }
        let url = url::Url::parse(&url).map_err(|error| bad(error.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = uri_of(&url).map_err(|error| bad(error.to_string()))?;
        *request.method_mut() = method(http.method);
        let headers = request.headers_mut();
        if http.method.has_body() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (header, value) in &http.headers {
            let header = HeaderName::from_bytes(header.as_bytes());
            let value = HeaderValue::from_str(value);
            if let (Ok(header), Ok(value)) = (header, value) {
                headers.insert(header, value);
            }
        }
        if let Some(reference) = &http.credential {
            let secret = self.release.credentials.get(reference).ok_or_else(|| {
                let variable = reference.strip_prefix("env:").unwrap_or(reference);
                bad(format!("the server has no {variable} in its environment"))
            })?;
            let (header, text) = match &http.credential_header {
                Some(header) => (
                    HeaderName::from_bytes(header.as_bytes()).ok(),
                    secret.expose().clone(),
                ),
                None => (Some(AUTHORIZATION), format!("Bearer {}", secret.expose())),
            };
            let value = HeaderValue::from_str(&text).ok();
            let (Some(header), Some(mut value)) = (header, value) else {
                return Err(bad("its credential does not fit into a header".to_owned()));
            };
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(request)
    }
}

/// Words that are likely JSON, cut off anywhere: escapes become what they stand for, so that
/// people, models and guards read the same.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n' | 'r') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                out.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn wrong(status: StatusCode, code: &str, message: String) -> Failure {
    ApiError::new(status, code, message).into()
}

/// What an address may not be is said to the caller; what stands in our network is not.
fn unsent(name: &str, error: &EgressError) -> Failure {
    let (status, code, what) = match error {
        EgressError::Refused { .. } | EgressError::BadTarget(_) => (
            StatusCode::BAD_GATEWAY,
            "tool_refused",
            "has an address that may not be called from here",
        ),
        EgressError::TooLarge(_) => (
            StatusCode::BAD_GATEWAY,
            "tool_answer_too_large",
            "answered more than is allowed",
        ),
        EgressError::HeaderTimeout(_)
        | EgressError::IdleTimeout
        | EgressError::ConnectTimeout(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "tool_timeout",
            "did not answer in time",
        ),
        _ => (
            StatusCode::BAD_GATEWAY,
            "tool_unreachable",
            "cannot be reached",
        ),
    };
    Failure {
        detail: Some(format!("the tool {name:?}: {error}").into()),
        ..wrong(status, code, format!("the tool {name:?} {what}"))
    }
}

fn check(name: &str, tool: &CompiledTool, arguments: &Map<String, Value>) -> Result<(), Failure> {
    let bad = |what: String| {
        wrong(
            StatusCode::BAD_REQUEST,
            "tool_arguments_invalid",
            format!("the arguments of the tool {name:?} are wrong: {what}"),
        )
    };
    let value = Value::Object(arguments.clone());
    if value.to_string().len() > ARGUMENT_BYTES {
        return Err(bad(format!("they have more than {ARGUMENT_BYTES} bytes")));
    }
    let Some(validator) = &tool.validator else {
        return Ok(());
    };
    validator.validate(&value).map_err(|error| {
        let place = error.instance_path().to_string();
        let message = error.to_string();
        let message = base::text::cut_bytes(&message, 300);
        bad(format!("{place} {message}").trim_start().to_owned())
    })
}

fn method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
    }
}

/// The address with its arguments. One that is not given is empty.
fn fill(template: &str, arguments: &Map<String, Value>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        out.push_str(before);
        if let Some(value) = arguments.get(name) {
            out.push_str(&encoded(&as_text(value)));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a part of the path is a step up or none at all. URLs are read so that
/// `%2E` is a dot there, however it was written.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| {
        let dots = segment.to_ascii_lowercase().replace("%2e", ".");
        dots == "." || dots == ".."
    })
}

/// Everything but letters, digits, `-`, `_` and `~` as `%XX`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_stay_in_their_place() {
        let check = |argument: &str, expected: &str| {
            let arguments = json!({ "a": argument });
            let filled = fill(
                "https://h.example/x/{a}/y?q={a}",
                arguments.as_object().unwrap(),
            );
            let url = url::Url::parse(&filled).unwrap();
            assert_eq!(url.host_str(), Some("h.example"), "{filled}");
            assert_eq!(
                filled,
                format!("https://h.example/x/{expected}/y?q={expected}")
            );
        };
        check("Tokyo", "Tokyo");
        check("a b&c=d#e", "a%20b%26c%3Dd%23e");
        check("a/b", "a%2Fb");
        check("@evil.example/", "%40evil%2Eexample%2F");
        check("世", "%E4%B8%96");
        check("%2e%2e", "%252e%252e");
    }

    #[test]
    fn escapes_of_an_error_are_read() {
        let check = |text: &str, expected: &str| assert_eq!(unescaped(text), expected, "{text}");
        check(r#"{"a":"b\nc\u0064 \"e\""}"#, "{\"a\":\"b\ncd \"e\"\"}");
        check(r"cut \u00", "cut \u{0}");
        check(r"cut \ud83d\", "cut \u{fffd}");
    }

    #[test]
    fn a_step_up_is_refused() {
        let check = |argument: &str, refused: bool| {
            let arguments = json!({ "a": argument });
            let filled = fill(
                "https://h.example/users/{a}/me?q={a}",
                arguments.as_object().unwrap(),
            );
            assert_eq!(has_dot_segment(&filled), refused, "{filled}");
        };
        check("..", true);
        check(".", true);
        check("%2e%2E", false);
        check("a..b", false);
        check("...", false);
    }
}
