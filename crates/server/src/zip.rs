//! Reads ZIP archives that strangers made.
//!
//! Only what is needed and nothing that a hostile archive could use: no ZIP64,
//! no encryption, no links, stored or deflated entries only, and never more
//! bytes than an entry announces. Entries with unusual paths are not seen.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

/// An open archive.
#[derive(Debug)]
pub(crate) struct Zip {
    file: File,
    entries: Vec<Entry>,
}

/// A file in an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its path, relative and without `..`.
    pub(crate) path: String,
    /// The CRC-32 of its content.
    pub(crate) crc: u32,
    /// The length of its content.
    pub(crate) size_bytes: u64,
    deflated: bool,
    packed_bytes: u64,
    header_at: u64,
}

const LARGEST_DIRECTORY: u64 = 32 << 20;

impl Zip {
    /// Reads the archive's directory.
    ///
    /// # Errors
    /// It is no archive, or one that is not read here.
    pub(crate) fn open(mut file: File) -> io::Result<Self> {
        let entries = read_directory(&mut file)?;
        Ok(Self { file, entries })
    }

    /// The files in it.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The content of a file in it, never longer than the directory says.
    ///
    /// # Errors
    /// The archive is damaged, or the disk failed.
    pub(crate) fn reader(&mut self, entry: &Entry) -> io::Result<Box<dyn Read + '_>> {
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
        .filter(|path| crate::models::is_relative_path(path))
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
