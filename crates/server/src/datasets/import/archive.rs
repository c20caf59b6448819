//! Files out of archives: ZIP, tar and compressed tar.
//!
//! Files are unpacked under numbers into a folder of their own; the paths that an
//! archive gives them are only what they are called. What is no plain file with a
//! relative path is passed over.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use super::ImportFile;
use crate::error::{AppError, Result};
use crate::zip::Zip;

const MAX_FILES: usize = 1000;
const MAX_UNPACKED_BYTES: u64 = 2 << 30;

/// A folder that is removed with everything in it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept with the uploads.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether it is an archive, by its name.
pub(super) fn is_archive(name: &str) -> bool {
    let name = name.to_lowercase();
    [".zip", ".tar", ".tar.gz", ".tgz"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

/// The files in an archive.
pub(super) fn unpack(archive: &ImportFile, scratch: &Path) -> Result<(Vec<ImportFile>, Scratch)> {
    let folder = make_folder(scratch).map_err(AppError::internal)?;
    let mut out = Out {
        folder: folder.0.clone(),
        files: Vec::new(),
        left: MAX_UNPACKED_BYTES,
    };
    let file = File::open(&archive.path).map_err(AppError::internal)?;
    let name = archive.name.to_lowercase();
    let unpacked = if name.ends_with(".zip") {
        unzip(file, &mut out)
    } else if name.ends_with(".tar") {
        untar(BufReader::new(file), &mut out)
    } else {
        untar(
            flate2::read::MultiGzDecoder::new(BufReader::new(file)),
            &mut out,
        )
    };
    unpacked.map_err(|error| {
        let message = format!("the archive {} cannot be read: {error}", archive.name);
        AppError::invalid(message)
            .code("bad_archive")
            .at(archive.name.clone())
    })?;
    let mut files = out.files;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((files, folder))
}

fn make_folder(scratch: &Path) -> io::Result<Scratch> {
    std::fs::create_dir_all(scratch)?;
    for number in 0..u32::MAX {
        let path = scratch.join(format!("unpacked-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(Scratch(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no folder could be made"))
}

struct Out {
    folder: PathBuf,
    files: Vec<ImportFile>,
    left: u64,
}

impl Out {
    fn file(&mut self, name: &str, content: &mut dyn Read) -> io::Result<()> {
        let hidden = name
            .split('/')
            .any(|part| part.starts_with('.') || part == "__MACOSX");
        if hidden || !crate::models::is_relative_path(name) {
            io::copy(content, &mut io::sink())?;
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            return Err(bad(format!("it has more than {MAX_FILES} files")));
        }
        let path = self.folder.join(self.files.len().to_string());
        let mut file = File::create_new(&path)?;
        let written = io::copy(&mut content.take(self.left + 1), &mut file)?;
        if written > self.left {
            return Err(bad(format!(
                "it unpacks to more than {} GiB",
                MAX_UNPACKED_BYTES >> 30
            )));
        }
        self.left -= written;
        file.flush()?;
        self.files.push(ImportFile {
            name: name.to_owned(),
            path,
        });
        Ok(())
    }
}

fn bad(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn unzip(file: File, out: &mut Out) -> io::Result<()> {
    let mut zip = Zip::open(file)?;
    for entry in zip.entries().to_vec() {
        if entry.path.ends_with('/') {
            continue;
        }
        let mut reader = flate2::CrcReader::new(zip.reader(&entry)?);
        out.file(&entry.path, &mut reader)?;
        if reader.crc().sum() != entry.crc || u64::from(reader.crc().amount()) != entry.size_bytes {
            return Err(bad(format!(
                "{} has another length or checksum than announced",
                entry.path
            )));
        }
    }
    Ok(())
}

const BLOCK: u64 = 512;

fn untar(mut archive: impl Read, out: &mut Out) -> io::Result<()> {
    let mut long_name: Option<String> = None;
    loop {
        let mut header = [0; BLOCK as usize];
        if !read_block(&mut archive, &mut header)? || header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        if octal(&header[148..156])? != sum {
            return Err(bad("it is no tar archive, or damaged"));
        }
        let size = octal(&header[124..136])?;
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        let mut content = archive.by_ref().take(size);
        match header[156] {
            b'0' | 0 => {
                let name = long_name.take().unwrap_or_else(|| name_of(&header));
                out.file(name.trim_start_matches("./"), &mut content)?;
            }
            b'L' => {
                long_name = Some(
                    short_text(&mut content, size)?
                        .trim_end_matches('\0')
                        .to_owned(),
                )
            }
            b'x' => long_name = path_of_pax(&short_text(&mut content, size)?).or(long_name),
            _ => {}
        }
        // What nobody read, and what fills the block.
        let rest = io::copy(&mut content, &mut io::sink());
        rest?;
        if content.limit() > 0 {
            return Err(bad("it is cut off"));
        }
        io::copy(&mut archive.by_ref().take(padding), &mut io::sink())?;
    }
}

fn read_block(archive: &mut impl Read, block: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < block.len() {
        match archive.read(&mut block[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(bad("it is cut off")),
            count => filled += count,
        }
    }
    Ok(true)
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(field)
        .map_err(|_| bad("a number in it is larger than is read here"))?;
    let digits = text.trim_matches(['\0', ' ']);
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| bad("it is no tar archive, or damaged"))
}

fn name_of(header: &[u8]) -> String {
    let text = |field: &[u8]| {
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    let is_ustar = &header[257..262] == b"ustar";
    if is_ustar && !prefix.is_empty() && header[262] == 0 {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

fn short_text(content: &mut impl Read, size: u64) -> io::Result<String> {
    if size > 64 << 10 {
        return Err(bad("a name in it is longer than 64 KiB"));
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `27 path=some/long/name\n` among other lines.
fn path_of_pax(text: &str) -> Option<String> {
    let entry = |line: &str| {
        line.split_once(' ')?
            .1
            .strip_prefix("path=")
            .map(str::to_owned)
    };
    text.lines().find_map(entry)
}
