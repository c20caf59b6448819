//! Scripts, styles and icons: built by `make ui`, served under hashed names.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;
use serde::Serialize;

use crate::error::{AppError, Result};
use crate::http::{Access, Route};

#[derive(RustEmbed)]
#[folder = "../../ui/dist/"]
#[exclude = "*.map"]
struct Files;

/// Logical names → files.
pub(super) struct Assets {
    names: HashMap<String, String>,
}

impl Assets {
    pub(super) fn load() -> anyhow::Result<Self> {
        let names = match Files::get("manifest.json") {
            Some(file) => serde_json::from_slice(&file.data)?,
            // Only a debug build gets here (build.rs): the API works, pages are bare.
            None => HashMap::new(),
        };
        Ok(Self { names })
    }

    /// The address of a file by its logical name.
    pub(super) fn url(&self, name: &str) -> String {
        // A debug build sees what `esbuild --watch` has just written.
        let fresh = cfg!(debug_assertions)
            .then(Self::load)
            .and_then(anyhow::Result::ok);
        let names = fresh.as_ref().map_or(&self.names, |fresh| &fresh.names);
        format!("/assets/{}", names.get(name).map_or(name, String::as_str))
    }
}

/// A package whose code is in the scripts that pages load.
#[derive(Debug, Serialize)]
pub(super) struct Package {
    /// Name, version and licence in one line.
    title: String,
    /// The licence's text.
    text: String,
}

/// The packages of `licences.txt`, which the UI's build writes: a line of dashes
/// between them, the first line of each its title.
pub(super) fn licences() -> Vec<Package> {
    let file = Files::get("licences.txt");
    let text = file
        .map(|file| String::from_utf8_lossy(&file.data).into_owned())
        .unwrap_or_default();
    let between = format!("\n{}\n", "-".repeat(78));
    let parts = text
        .split(between.as_str())
        .filter_map(|part| part.trim().split_once('\n'));
    parts
        .map(|(title, text)| Package {
            title: title.to_owned(),
            text: text.trim().to_owned(),
        })
        .collect()
}

pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/assets/{*file}", Access::Public, serve)]
}

async fn serve(Path(name): Path<String>) -> Result<Response> {
    let file = Files::get(&name).ok_or_else(|| AppError::not_found("there is no such file"))?;
    let kind = match name.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        // The name changes with the content.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=31536000, immutable"),
        ),
    ];
    Ok((headers, Body::from(file.data.into_owned())).into_response())
}
