//! Modules of evaluators: checked when they come, kept as blobs of their project.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base::Digest;
use db::{Catalog, Db, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pages;
use super::wasm::{MODULE_BYTES, compile};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Raw;
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::ui::PageContext;

/// What a form adds around its file.
const FORM_BYTES: usize = 64 << 10;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::post("/api/v1/evaluator-modules", write, upload)
            .body_limit(MODULE_BYTES)
            .doc(
                Doc::new(
                    "evaluators",
                    "Keep a WebAssembly module for evaluators; the body is the file",
                )
                .answer::<Kept>()
                .status(201),
            ),
        Route::post("/{project}/evaluators/module", write, save_form)
            .body_limit(MODULE_BYTES + FORM_BYTES),
    ]
}

/// A module that was kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// What evaluators name it by.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// Whether it was kept already.
    pub already_existed: bool,
}

/// Checks a module and keeps it.
///
/// # Errors
/// It cannot be an evaluator, or the disk failed.
pub async fn keep(db: &Db, catalog: &Catalog, scope: Scope, bytes: Vec<u8>) -> Result<Kept> {
    let checked = tokio::task::spawn_blocking(move || compile(&bytes).map(|_| bytes)).await;
    let bytes = checked
        .map_err(AppError::internal)?
        .map_err(|why| AppError::invalid(why).code("invalid_module").at("/module"))?;
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let is_new = crate::gitops::put_blob(catalog, scope.project, digest, bytes).await?;
    let mut tx = db.begin_write().await?;
    let subject = digest.to_string();
    let line = db::audit::Line::new(scope, "evaluator.module", &subject);
    line.detail(json!({"bytes": size})).write(&mut tx).await?;
    tx.commit().await?;
    Ok(Kept {
        digest: digest.to_string(),
        bytes: size,
        already_existed: !is_new,
    })
}

/// How large a kept module is; none where the project keeps none of this digest.
pub(super) async fn size_of(catalog: &Catalog, scope: Scope, digest: &str) -> Option<u64> {
    let digest: Digest = digest.parse().ok()?;
    let path = catalog.blobs(scope.project)?.path(&digest);
    let found = tokio::fs::metadata(path).await.ok()?;
    Some(found.len())
}

async fn upload(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<(StatusCode, Answer<Kept>)> {
    let kept = keep(&app.db, &app.catalog, identity.scope(), body.to_vec()).await?;
    Ok((StatusCode::CREATED, Answer(kept)))
}

/// The form of a module's evaluator: a file where one was chosen, and the fields. The file is
/// kept even where the fields are wrong, so that nobody chooses it twice.
async fn save_form(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    headers: HeaderMap,
    Raw(body): Raw,
) -> Result<Response> {
    let boundary = boundary(&headers).ok_or_else(|| {
        AppError::invalid("the form is not sent as multipart/form-data").at("content-type")
    })?;
    let mut fields = BTreeMap::new();
    let mut file = Vec::new();
    for (name, content) in parts(&body, &boundary) {
        match name.as_str() {
            "file" => content.clone_into(&mut file),
            _ => drop(fields.insert(name, String::from_utf8_lossy(content).into_owned())),
        }
    }
    if !file.is_empty() {
        match keep(&app.db, &app.catalog, identity.scope(), file).await {
            Ok(kept) => drop(fields.insert("module".to_owned(), kept.digest)),
            Err(error) if error.status == StatusCode::BAD_REQUEST => {
                let errors = json!({"file": error.message});
                return pages::refuse(&app, &page, &identity, &fields, errors).await;
            }
            Err(error) => return Err(error),
        }
    }
    pages::save_fields(&app, &page, &identity, &fields).await
}

fn boundary(headers: &HeaderMap) -> Option<Vec<u8>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let rest = kind.strip_prefix("multipart/form-data")?;
    let (_, boundary) = rest.split_once("boundary=")?;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    (!boundary.is_empty()).then(|| format!("--{boundary}").into_bytes())
}

/// The fields of a form that was sent as multipart/form-data, by name, as far as they are whole.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<(String, &'a [u8])> {
    let mut found = Vec::new();
    let mut rest = match find(body, boundary).and_then(|at| body.get(at + boundary.len()..)) {
        Some(rest) => rest,
        None => return found,
    };
    // The line break before a boundary belongs to it.
    let end = [b"\r\n", boundary].concat();
    while let Some(at) = find(rest, b"\r\n\r\n") {
        let (head, content) = (
            rest.get(..at).unwrap_or_default(),
            rest.get(at + 4..).unwrap_or_default(),
        );
        let Some(length) = find(content, &end) else {
            break;
        };
        if let Some(name) = name_of(head) {
            found.push((name, content.get(..length).unwrap_or_default()));
        }
        rest = content.get(length + end.len()..).unwrap_or_default();
    }
    found
}

fn name_of(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(['\r', '\n', ';']).map(str::trim);
    let name = words.find_map(|word| word.strip_prefix("name=\"")?.strip_suffix('"'))?;
    Some(name.to_owned())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return None;
    }
    text.windows(wanted.len()).position(|part| part == wanted)
}
