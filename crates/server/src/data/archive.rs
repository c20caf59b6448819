//! Reads named files out of a package: a wheel, a source archive, or a folder in
//! which somebody has unpacked one. Everything is bounded and nothing is trusted:
//! an archive must be the one whose digest is known, before it is opened.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use base::Digest;
use flate2::read::GzDecoder;

use crate::zip::Zip;

/// The largest archive and the largest file in one.
const LARGEST: u64 = 256 << 20;
const BLOCK: usize = 512;

/// A package, open.
pub(super) enum Archive {
    Folder(PathBuf),
    Wheel(Box<Zip>),
    Source(PathBuf),
}

fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

impl Archive {
    /// Opens a package file of this digest, or a folder.
    pub(super) fn open(path: &Path, sha256: &Digest) -> io::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
        if Digest::of(&bytes) != *sha256 {
            return Err(wrong(format!(
                "this is another file than the one with the SHA-256 {}",
                sha256.hex()
            )));
        }
        if bytes.starts_with(b"PK") {
            return Ok(Self::Wheel(Box::new(Zip::open(File::open(path)?)?)));
        }
        Ok(Self::Source(path.to_owned()))
    }

    /// The files at these paths in the package, in their order.
    pub(super) fn read(&mut self, paths: &[&str]) -> io::Result<Vec<Option<Vec<u8>>>> {
        match self {
            Self::Folder(folder) => paths.iter().map(|path| of_folder(folder, path)).collect(),
            Self::Wheel(zip) => paths.iter().map(|path| of_wheel(zip, path)).collect(),
            Self::Source(path) => of_source(path, paths),
        }
    }
}

/// A folder has the package's own tree, or the files side by side.
fn of_folder(folder: &Path, path: &str) -> io::Result<Option<Vec<u8>>> {
    let name = path.rsplit('/').next().unwrap_or(path);
    for candidate in [folder.join(path), folder.join(name)] {
        match std::fs::read(candidate) {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn of_wheel(zip: &mut Zip, path: &str) -> io::Result<Option<Vec<u8>>> {
    let entry = zip.entries().iter().find(|entry| entry.path == path);
    let Some(entry) = entry.cloned() else {
        return Ok(None);
    };
    if entry.size_bytes > LARGEST {
        return Err(wrong(format!("{path} is too large")));
    }
    let mut bytes = Vec::new();
    zip.reader(&entry)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Walks a tar archive. Its first folder is the package's name and version.
fn of_source(path: &Path, wanted: &[&str]) -> io::Result<Vec<Option<Vec<u8>>>> {
    let mut reader = GzDecoder::new(BufReader::new(File::open(path)?));
    let mut found: Vec<Option<Vec<u8>>> = vec![None; wanted.len()];
    let mut header = [0; BLOCK];
    while found.iter().any(Option::is_none) {
        reader.read_exact(&mut header)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = octal(&header[124..136]).ok_or_else(|| wrong("a file's size is no number"))?;
        if size > LARGEST {
            return Err(wrong("a file in it is too large"));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let is_file = matches!(header[156], b'0' | 0);
        let name = name_of(&header);
        let inside = name.split_once('/').map_or("", |(_, inside)| inside);
        let at = wanted.iter().position(|path| is_file && *path == inside);
        match at {
            Some(at) => {
                let mut bytes = Vec::new();
                reader.by_ref().take(size).read_to_end(&mut bytes)?;
                found[at] = Some(bytes);
                io::copy(&mut reader.by_ref().take(padding), &mut io::sink())?;
            }
            None => {
                io::copy(&mut reader.by_ref().take(size + padding), &mut io::sink())?;
            }
        }
    }
    Ok(found)
}

fn name_of(header: &[u8; BLOCK]) -> String {
    let text = |field: &[u8]| {
        let end = field.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
    };
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    let is_ustar = header[257..262] == *b"ustar";
    match is_ustar && !prefix.is_empty() {
        true => format!("{prefix}/{name}"),
        false => name,
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}
