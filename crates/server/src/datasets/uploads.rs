//! Files on their way into a dataset: streamed to the disk, looked at, imported, gone.
//!
//! An upload lies in a folder of its project under an id of ours. It stays for a day, so
//! that a mapping can be corrected without sending the file again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use base::{ProjectId, TraceId};
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use super::import::ImportFile;
use crate::app::App;
use crate::error::{AppError, Result};

/// The largest upload.
pub(super) const MAX_BYTES: usize = 512 << 20;
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a client may pause while it sends.
const PAUSE: Duration = Duration::from_secs(30);
const MAX_NAME_CHARS: usize = 200;

/// A file that was uploaded and not imported yet.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DatasetUpload")]
pub(super) struct Upload {
    /// Names it for a day.
    pub upload: String,
    /// What the file is called; its ending says what it is.
    pub name: String,
}

fn folder(app: &App, project: ProjectId) -> PathBuf {
    app.config
        .data_dir
        .join("uploads")
        .join(project.to_string())
}

/// Where archives of this project are unpacked.
pub(super) fn scratch(app: &App, project: ProjectId) -> PathBuf {
    folder(app, project)
}

/// Takes a file.
pub(super) async fn store(app: &App, project: ProjectId, name: &str, body: Body) -> Result<Upload> {
    let name = check_name(name)?;
    let folder = folder(app, project);
    let swept = folder.clone();
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&swept)?;
        sweep(&swept)
    })
    .await
    .map_err(AppError::internal)?
    .map_err(AppError::internal)?;
    let id: TraceId = app.ids.make();
    let path = folder.join(id.to_string());
    match write(&path, body).await {
        Ok(()) => Ok(Upload {
            upload: id.to_string(),
            name,
        }),
        Err(error) => {
            let _ = tokio::fs::remove_file(&path).await;
            Err(error)
        }
    }
}

fn check_name(name: &str) -> Result<String> {
    let count = name.chars().count();
    if count == 0 || count > MAX_NAME_CHARS || name.chars().any(base::text::is_deceptive) {
        let message = format!("a file's name has 1 to {MAX_NAME_CHARS} visible characters");
        return Err(AppError::invalid(message).at("name"));
    }
    Ok(name.to_owned())
}

async fn write(path: &Path, body: Body) -> Result<()> {
    let mut file = tokio::fs::File::create_new(path)
        .await
        .map_err(AppError::internal)?;
    let mut stream = body.into_data_stream();
    loop {
        let next = tokio::time::timeout(PAUSE, stream.next()).await;
        let next = next.map_err(|_| {
            AppError::invalid("the file did not arrive: nothing came for 30 seconds")
        })?;
        match next {
            None => break,
            Some(Ok(bytes)) => file.write_all(&bytes).await.map_err(disk_error)?,
            Some(Err(error)) if crate::extract::caused_by_limit(&error) => {
                return Err(AppError::too_large(MAX_BYTES));
            }
            Some(Err(error)) => return Err(AppError::invalid("the file broke off").because(error)),
        }
    }
    file.flush().await.map_err(disk_error)
}

fn disk_error(error: std::io::Error) -> AppError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            AppError::unavailable("the disk is full; nothing was kept").because(error)
        }
        _ => AppError::internal(error),
    }
}

/// Removes uploads and unpacked archives that nobody wants any more.
fn sweep(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age >= KEPT) {
            let path = entry.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            // Somebody else may sweep at the same time.
            let _ = removed;
        }
    }
    Ok(())
}

/// The files of uploads.
pub(super) fn files(app: &App, project: ProjectId, uploads: &[Upload]) -> Result<Vec<ImportFile>> {
    if uploads.is_empty() {
        return Err(AppError::invalid("name at least one upload").at("uploads"));
    }
    let file = |(index, upload): (usize, &Upload)| {
        let gone = || {
            let message = format!(
                "there is no upload {:?}; uploads are kept for a day",
                upload.upload
            );
            AppError::not_found(message)
                .code("no_such_upload")
                .at(format!("uploads.{index}"))
        };
        let id: TraceId = upload.upload.parse().map_err(|_| gone())?;
        let path = folder(app, project).join(id.to_string());
        if !path.is_file() {
            return Err(gone());
        }
        Ok(ImportFile {
            name: check_name(&upload.name)?,
            path,
        })
    };
    uploads.iter().enumerate().map(file).collect()
}

/// Removes uploads that were imported.
pub(super) async fn remove(app: &App, project: ProjectId, uploads: &[Upload]) {
    for upload in uploads {
        if let Ok(id) = upload.upload.parse::<TraceId>() {
            // One that stays is swept a day later.
            let _ = tokio::fs::remove_file(folder(app, project).join(id.to_string())).await;
        }
    }
}
