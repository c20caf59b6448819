//! Refuses requests that another site makes a signed-in person's browser send.
//!
//! Browsers say where a request comes from in `Sec-Fetch-Site` and `Origin`;
//! pages cannot forge either. An unsafe method with neither header is not from
//! a browser page of ours, so it must carry a key, never a cookie.

use axum::http::request::Parts;
use axum::http::{Method, header};

use crate::app::App;
use crate::error::{AppError, Result};

/// Lets safe methods, our own pages and key holders pass.
///
/// # Errors
/// 403 for an unsafe method from elsewhere, or with a cookie alone.
pub fn check_cross_site(app: &App, head: &Parts) -> Result<()> {
    if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let host = text("host").or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let has_key =
        head.headers.contains_key(header::AUTHORIZATION) || head.headers.contains_key("x-api-key");
    let refused = || {
        Err(AppError::forbidden("this request comes from another site")
            .code("cross_site")
            .hint("programs send an API key; pages must be opened at this server's own address"))
    };
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin"), _) => Ok(()),
        // "none": typed by the person, or an extension; never another page.
        (Some("none"), _) => Ok(()),
        (Some(_), _) => refused(),
        (None, Some(origin)) if app.hosts.is_own_origin(origin, host) => Ok(()),
        (None, Some(_)) => refused(),
        (None, None) if has_key || !head.headers.contains_key(header::COOKIE) => Ok(()),
        (None, None) => refused(),
    }
}
