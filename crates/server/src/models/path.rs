//! Models from a file or folder of this machine: copied, so that a later change
//! of the original does not change the model. Only the command line comes here.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::choose::{Choice, Offered, choose};
use super::error::{PullError, PullFault};
use super::files::{ModelFile, Staging, copy_hashed};
use super::progress::{Meter, Stage};
use super::pull::{Content, Naming};
use super::reference;

const DEEPEST: usize = 3;
const MOST_ENTRIES: usize = 5000;

/// Copies the model's files into the staging folder.
pub(super) async fn copy(
    source: &Path,
    staging: &Staging,
    naming: &Naming,
    meter: &mut Meter<'_>,
) -> Result<Content, PullError> {
    meter.stage(Stage::Listing, "");
    let asked = source.to_owned();
    let (root, offered, choice) = tokio::task::spawn_blocking(move || look(&asked)).await??;
    meter.total(Some(
        choice
            .files
            .iter()
            .map(|index| offered[*index].size_bytes)
            .sum(),
    ));
    let label = root
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let name = naming.settle(choice.label(&label))?;
    let mut files = Vec::new();
    for index in &choice.files {
        let kept = choice.kept_path(&offered[*index].path);
        meter.stage(Stage::Copying, kept);
        files.push(
            copy_file(
                root.join(&offered[*index].path),
                kept,
                staging.place(kept)?,
                meter,
            )
            .await?,
        );
    }
    Ok(Content {
        name,
        gguf: choice.gguf,
        files,
        revision: None,
    })
}

/// The folder to copy from, what is in it, and what of that is the model.
fn look(source: &Path) -> Result<(PathBuf, Vec<Offered>, Choice), PullError> {
    let source = source.canonicalize().map_err(|error| {
        let message = format!("cannot read {}: {error}", source.display());
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        PullError::new(
            if missing {
                PullFault::NotFound
            } else {
                PullFault::Disk
            },
            message,
        )
    })?;
    let explain = |error: PullError| {
        PullError::new(
            error.fault,
            format!("{}: {}", source.display(), error.message),
        )
    };
    if source.is_dir() {
        let mut offered = Vec::new();
        list(&source, "", DEEPEST, &mut offered)?;
        let choice = choose(&offered, None).map_err(explain)?;
        return Ok((source, offered, choice));
    }
    let size_bytes = source
        .metadata()
        .map_err(|error| PullError::io("read", &source, &error))?
        .len();
    let name = source
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let offered = vec![Offered {
        path: name.clone(),
        size_bytes,
    }];
    let choice = choose(&offered, Some(&name)).map_err(explain)?;
    let folder = source.parent().unwrap_or(&source).to_owned();
    Ok((folder, offered, choice))
}

/// Links are followed: a hub client's cache is made of them.
fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    offered: &mut Vec<Offered>,
) -> Result<(), PullError> {
    let failed = |error: std::io::Error| PullError::io("list", folder, &error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let Ok(meta) = std::fs::metadata(entry.path()) else {
            continue;
        };
        if offered.len() >= MOST_ENTRIES {
            let message = format!("{} has too many files to be a model", folder.display());
            return Err(PullError::new(PullFault::Invalid, message));
        }
        if meta.is_dir() && depth > 0 {
            list(&entry.path(), &format!("{path}/"), depth - 1, offered)?;
        } else if meta.is_file() && reference::is_relative_path(&path) {
            offered.push(Offered {
                path,
                size_bytes: meta.len(),
            });
        }
    }
    Ok(())
}

async fn copy_file(
    source: PathBuf,
    kept: &str,
    target: PathBuf,
    meter: &mut Meter<'_>,
) -> Result<ModelFile, PullError> {
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let copying = tokio::task::spawn_blocking(move || {
        let mut reader =
            File::open(&source).map_err(|error| PullError::io("open", &source, &error))?;
        // A slow listener must not slow the copy: what does not fit into the channel is told with the next step.
        let mut untold = 0;
        let step = &mut |bytes: u64| {
            untold += bytes;
            if tell.try_send(untold).is_ok() {
                untold = 0;
            }
        };
        let copied = copy_hashed(&mut reader, &target, u64::MAX, step);
        let rest = untold;
        let _ = tell.blocking_send(rest);
        copied.map_err(|error| PullError::io("copy to", &target, &error))
    });
    while let Some(bytes) = told.recv().await {
        meter.add(bytes);
    }
    let (size_bytes, sha256) = copying.await??;
    Ok(ModelFile {
        path: kept.to_owned(),
        size_bytes,
        sha256,
    })
}
