//! Trees on disk. Reading takes nothing that leaves the folder: links are
//! refused, not followed. Writing touches no file that it did not make itself,
//! which is known from its first line or from being what we would write.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base::Digest;
use db::Kinds;

use super::blobs::{BLOB_FOLDER, path_of, read_blob_file};
use super::format::Formatted;
use super::schema::schema_line_of;
use super::{ENVIRONMENTS_FILE, Files, Finding, Layout, SCHEMA_FOLDER};

/// The most files of a tree.
const MAX_FILES: usize = 100_000;
/// The largest file. A document has at most 4 MiB, which TOML can make longer.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The largest tree.
const MAX_TREE_BYTES: usize = 512 << 20;
/// Folders in folders. A name of 200 characters has at most 100.
const MAX_DEPTH: usize = 120;

/// Reads every file of a folder that can be part of a tree. Names that begin with
/// a dot (`.git`) are skipped.
///
/// # Errors
/// The folder itself cannot be read. What is wrong in it are findings.
pub fn read_directory(folder: &Path) -> anyhow::Result<(Files, Vec<Finding>)> {
    let meta = fs::metadata(folder).with_context(|| format!("reading {}", folder.display()))?;
    if !meta.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    let mut reading = Reading::default();
    reading.folder(folder, "", 0)?;
    Ok((reading.files, reading.findings))
}

#[derive(Default)]
struct Reading {
    files: Files,
    findings: Vec<Finding>,
    bytes: usize,
}

impl Reading {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> anyhow::Result<()> {
        let failed = || format!("reading {}", folder.display());
        let mut entries = fs::read_dir(folder)
            .with_context(failed)?
            .collect::<Result<Vec<_>, _>>()
            .with_context(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                let shown = entry.file_name().to_string_lossy().into_owned();
                self.refuse(prefix, &shown, "its name is not UTF-8");
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let kind = entry.file_type().with_context(failed)?;
            if kind.is_symlink() {
                self.refuse(prefix, &name, "it is a link, and links can leave the tree");
            } else if kind.is_dir() && prefix.is_empty() && name == BLOB_FOLDER {
                // No text; `find_blobs` reads it.
            } else if kind.is_dir() && depth >= MAX_DEPTH {
                self.refuse(prefix, &name, "it is too deep");
            } else if kind.is_dir() {
                self.folder(&entry.path(), &format!("{prefix}{name}/"), depth + 1)?;
            } else if kind.is_file() {
                self.file(&entry.path(), prefix, &name)?;
            } else {
                self.refuse(prefix, &name, "it is neither a file nor a folder");
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, prefix: &str, name: &str) -> anyhow::Result<()> {
        // Not part of a tree: a README, a licence, a script.
        if prefix.is_empty() && !name.ends_with(".toml") {
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            bail!("the tree has more than {MAX_FILES} files");
        }
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .with_context(|| format!("reading {}", path.display()))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            self.refuse(prefix, name, "it is larger than 16 MiB");
            return Ok(());
        }
        self.bytes += bytes.len();
        if self.bytes > MAX_TREE_BYTES {
            bail!("the tree is larger than {} MiB", MAX_TREE_BYTES >> 20);
        }
        match String::from_utf8(bytes) {
            Ok(text) => {
                self.files.insert(format!("{prefix}{name}"), text);
            }
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..good]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1;
                let finding = Finding::error(format!("{prefix}{name}"), "it is not UTF-8");
                self.findings.push(finding.on_line(line));
            }
        }
        Ok(())
    }

    fn refuse(&mut self, prefix: &str, name: &str, why: &str) {
        self.findings
            .push(Finding::error(format!("{prefix}{name}"), why));
    }
}

/// What writing a tree did.
#[derive(Debug, Default, serde::Serialize)]
pub struct Written {
    /// Files that are new or changed.
    pub written: Vec<String>,
    /// Files that were as they should be.
    pub unchanged: usize,
    /// Files of our making that the tree has no longer, removed or, without being told to, kept.
    pub stale: Vec<String>,
}

/// How a tree is written over what is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Writing {
    /// Remove files of our making that the tree has no longer.
    pub remove_stale: bool,
    /// Replace files that somebody else made.
    pub overwrite: bool,
}

/// Writes a tree into a folder. Files that are neither ours nor in the tree stay.
///
/// # Errors
/// A file of somebody else's is in the way; then nothing is written at all.
pub fn write_directory(
    folder: &Path,
    files: &Files,
    kind_folders: &BTreeSet<String>,
    how: Writing,
) -> anyhow::Result<Written> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let folder = folder
        .canonicalize()
        .with_context(|| format!("reading {}", folder.display()))?;
    let (present, findings) = read_directory(&folder)?;
    for path in files.keys() {
        if let Some(finding) = findings.iter().find(|finding| finding.file == *path) {
            bail!("{finding}");
        }
        check_confined(&folder, path)?;
        if let Some(old) = present.get(path)
            && !how.overwrite
            && !is_ours(path, &present)
            && old != &files[path]
        {
            bail!(
                "{} is there and was not exported by meguri; move it away, or overwrite it with --overwrite",
                folder.join(path).display()
            );
        }
    }
    let mut done = Written::default();
    for (path, text) in files {
        let full = folder.join(path);
        if fs::read(&full).is_ok_and(|old| old == text.as_bytes()) {
            done.unchanged += 1;
            continue;
        }
        write_file(&full, text.as_bytes())?;
        done.written.push(path.clone());
    }
    for path in present.keys().filter(|path| !files.contains_key(*path)) {
        let in_kind = path
            .split_once('/')
            .is_some_and(|(folder, _)| kind_folders.contains(folder));
        if !in_kind || !is_ours(path, &present) {
            continue;
        }
        if how.remove_stale {
            remove_file(&folder, path)?;
        }
        done.stale.push(path.clone());
    }
    Ok(done)
}

/// Refuses a path that no export has: what another machine sent must not decide where
/// files are written.
///
/// # Errors
/// A path is neither a document's nor any other that an export writes.
pub fn check_paths(files: &Files, kinds: &Kinds) -> anyhow::Result<()> {
    let layout = Layout::new(kinds);
    let is_schema = |path: &str| {
        let word = path
            .strip_prefix(SCHEMA_FOLDER)
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.strip_suffix(".json"));
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        word.is_some_and(|word| !word.is_empty() && word.chars().all(is_word))
    };
    for path in files.keys() {
        if path != ENVIRONMENTS_FILE && !is_schema(path) && layout.read(path).is_err() {
            bail!("the server sent {path:?}, which is no file of a tree that this meguri knows");
        }
    }
    Ok(())
}

/// Writes what [`format`](super::format) found into the folder.
///
/// # Errors
/// The disk failed, or a link is in the way.
pub fn write_formatted(folder: &Path, formatted: &Formatted) -> anyhow::Result<()> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("reading {}", folder.display()))?;
    let paths = formatted.write.keys().chain(&formatted.remove);
    paths
        .into_iter()
        .try_for_each(|path| check_confined(&folder, path))?;
    // What is renamed by its case only is one file on some systems: it goes before it comes.
    for path in &formatted.remove {
        remove_file(&folder, path)?;
    }
    for (path, text) in &formatted.write {
        write_file(&folder.join(path), text.as_bytes())?;
    }
    Ok(())
}

/// Whether the folder has this blob, unchanged.
pub fn has_blob_file(folder: &Path, digest: &Digest) -> bool {
    let path = path_of(digest);
    check_confined(folder, &path).is_ok() && read_blob_file(digest, &folder.join(path)).is_ok()
}

/// Writes a blob into the folder; its path.
///
/// # Errors
/// The disk failed, or a link is in the way.
pub fn write_blob_file(folder: &Path, digest: &Digest, bytes: &[u8]) -> anyhow::Result<String> {
    let path = path_of(digest);
    check_confined(folder, &path)?;
    write_file(&folder.join(&path), bytes)?;
    Ok(path)
}

/// Exported TOML files begin with the line that names their schema; a text file
/// has no place for a mark and is ours where the TOML file beside it is.
fn is_ours(path: &str, present: &Files) -> bool {
    toml_beside(path, present)
        .and_then(|toml| present.get(toml))
        .is_some_and(|text| schema_line_of(text).is_some())
}

/// The TOML file that a file belongs to: itself, or the one with the same beginning.
fn toml_beside<'a>(path: &'a str, present: &'a Files) -> Option<&'a str> {
    if path.ends_with(".toml") {
        return Some(path);
    }
    let (folder, name) = path.rsplit_once('/')?;
    let mut cut = name.len();
    while let Some(dot) = name[..cut].rfind('.') {
        let toml = format!("{folder}/{}.toml", &name[..dot]);
        if let Some((known, _)) = present.get_key_value(&toml) {
            return Some(known.as_str());
        }
        cut = dot;
    }
    None
}

/// No part of the path may be a link, or writing would leave the folder.
fn check_confined(folder: &Path, path: &str) -> anyhow::Result<()> {
    let mut full = folder.to_owned();
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." || part.contains('\\') {
            bail!("{path:?} is no path of a tree");
        }
        full.push(part);
        if fs::symlink_metadata(&full).is_ok_and(|meta| meta.file_type().is_symlink()) {
            bail!("{} is a link, and links can leave the tree", full.display());
        }
    }
    Ok(())
}

fn write_file(full: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("writing {}", full.display());
    if let Some(parent) = full.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    // Beside it and then renamed: an interrupted export leaves no half file.
    let mut beside = full.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes).with_context(failed)?;
    fs::rename(&beside, full).with_context(failed)
}

fn remove_file(folder: &Path, path: &str) -> anyhow::Result<()> {
    let full = folder.join(path);
    fs::remove_file(&full).with_context(|| format!("removing {}", full.display()))?;
    let mut parent = full.parent();
    while let Some(empty) = parent.filter(|parent| *parent != folder) {
        // Fails where something is left in it, which is the end of it.
        if fs::remove_dir(empty).is_err() {
            break;
        }
        parent = empty.parent();
    }
    Ok(())
}

/// Whether a path belongs to what only editors read.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.')) || path.starts_with(SCHEMA_FOLDER)
}
