//! Reads the files of a Python wheel: a ZIP archive with a list of digests.
//!
//! Only what is needed and nothing that a hostile archive could use: no ZIP64,
//! no encryption, no links, stored or deflated entries only, and never more
//! bytes than an entry announces. Entries with unusual paths are not seen.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use base::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::CrcReader;
use flate2::read::DeflateDecoder;

use super::choose::Offered;
use super::error::{PullError, PullFault};
use super::files::{ModelFile, copy_hashed};
use super::reference::is_relative_path;

/// An open wheel.
#[derive(Debug)]
pub(super) struct Wheel {
    file: File,
    name: String,
    entries: Vec<Entry>,
    digests: HashMap<String, Digest>,
}

#[derive(Debug, Clone)]
struct Entry {
    path: String,
    deflated: bool,
    crc: u32,
    packed_bytes: u64,
    size_bytes: u64,
    header_at: u64,
}

const LARGEST_DIRECTORY: u64 = 32 << 20;
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
        let mut wheel = Self {
            file,
            name,
            entries: Vec::new(),
            digests: HashMap::new(),
        };
        let broken = |why: String| {
            damaged(
                &path.file_name().unwrap_or_default().to_string_lossy(),
                &why,
            )
        };
        wheel.entries =
            read_directory(&mut wheel.file).map_err(|error| broken(error.to_string()))?;
        let record = wheel
            .entries
            .iter()
            .find(|entry| entry.path.ends_with(".dist-info/RECORD"))
            .cloned();
        let record = record.ok_or_else(|| broken("it has no RECORD".to_owned()))?;
        if record.size_bytes > LARGEST_RECORD {
            return Err(broken("its RECORD is too large".to_owned()));
        }
        let mut text = String::new();
        let read = wheel
            .reader(&record)
            .and_then(|mut reader| reader.read_to_string(&mut text));
        read.map_err(|error| broken(format!("its RECORD cannot be read: {error}")))?;
        wheel.digests = parse_record(&text);
        Ok(wheel)
    }

    /// The files in it.
    pub(super) fn offered(&self) -> Vec<Offered> {
        let offer = |entry: &Entry| Offered {
            path: entry.path.clone(),
            size_bytes: entry.size_bytes,
        };
        self.entries.iter().map(offer).collect()
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
        let Some(entry) = self.entries.get(index).cloned() else {
            return Err(broken("a file has vanished from its directory".to_owned()));
        };
        let reader = self
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

    fn reader(&mut self, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
        self.file.seek(SeekFrom::Start(entry.header_at))?;
        let mut header = [0; 30];
        self.file.read_exact(&mut header)?;
        if header[..4] != *b"PK\x03\x04" {
            return Err(invalid("a file's header is not where the directory says"));
        }
        let skip = i64::from(u16_at(&header, 26)) + i64::from(u16_at(&header, 28));
        self.file.seek(SeekFrom::Current(skip))?;
        let packed = BufReader::new(&mut self.file).take(entry.packed_bytes);
        if entry.deflated {
            return Ok(Box::new(
                DeflateDecoder::new(packed).take(entry.size_bytes.saturating_add(1)),
            ));
        }
        Ok(Box::new(packed))
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
    )
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_directory(file: &mut File) -> io::Result<Vec<Entry>> {
    let length = file.metadata()?.len();
    // The end record is 22 bytes and a comment of at most 65,535.
    let tail_length = length.min(22 + 65_535);
    file.seek(SeekFrom::Start(length - tail_length))?;
    let mut tail = Vec::new();
    file.take(tail_length).read_to_end(&mut tail)?;
    let end = tail
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .filter(|at| at + 22 <= tail.len());
    let end = end.ok_or_else(|| invalid("it is no ZIP archive"))?;
    let (size, start) = (
        u64::from(u32_at(&tail, end + 12)),
        u64::from(u32_at(&tail, end + 16)),
    );
    if start == u64::from(u32::MAX) {
        return Err(invalid("it is larger than 4 GiB, which is not supported"));
    }
    if size > LARGEST_DIRECTORY || start + size > length {
        return Err(invalid("its directory lies outside the file"));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut directory = Vec::new();
    file.take(size).read_to_end(&mut directory)?;
    parse_directory(&directory)
}

fn parse_directory(mut bytes: &[u8]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut seen = std::collections::HashSet::new();
    while bytes.len() >= 46 && bytes[..4] == *b"PK\x01\x02" {
        let name_length = usize::from(u16_at(bytes, 28));
        let next =
            46 + name_length + usize::from(u16_at(bytes, 30)) + usize::from(u16_at(bytes, 32));
        if next > bytes.len() {
            return Err(invalid("its directory is cut off"));
        }
        if let Some(entry) = parse_entry(bytes, &bytes[46..46 + name_length])? {
            if !seen.insert(entry.path.clone()) {
                return Err(invalid("it has two files of the same name"));
            }
            entries.push(entry);
        }
        bytes = &bytes[next..];
    }
    Ok(entries)
}

/// `None` for folders and for names that nobody should use.
fn parse_entry(header: &[u8], name: &[u8]) -> io::Result<Option<Entry>> {
    let Some(path) = std::str::from_utf8(name)
        .ok()
        .filter(|path| is_relative_path(path))
    else {
        return Ok(None);
    };
    let encrypted = u16_at(header, 8) & 1 == 1;
    let deflated = match u16_at(header, 10) {
        0 => false,
        8 => true,
        _ => return Ok(None),
    };
    let (packed, size) = (u32_at(header, 20), u32_at(header, 24));
    if encrypted || packed == u32::MAX || size == u32::MAX {
        return Err(invalid(
            "it is encrypted or larger than 4 GiB, which is not supported",
        ));
    }
    if !deflated && packed != size {
        return Err(invalid("a stored file has two lengths"));
    }
    Ok(Some(Entry {
        path: path.to_owned(),
        deflated,
        crc: u32_at(header, 16),
        packed_bytes: u64::from(packed),
        size_bytes: u64::from(size),
        header_at: u64::from(u32_at(header, 42)),
    }))
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
