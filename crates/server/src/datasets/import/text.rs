//! Bytes of a file as UTF-8, whatever encoding it says it has; what is not text of that
//! encoding is refused with the line that it is in.

use std::io::{self, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

/// The encoding of this name; `None` reads the byte order mark, else UTF-8.
pub(super) fn encoding(label: Option<&str>) -> Result<Option<&'static Encoding>, String> {
    let Some(label) = label.map(str::trim).filter(|label| !label.is_empty()) else {
        return Ok(None);
    };
    match Encoding::for_label(label.as_bytes()) {
        Some(encoding) => Ok(Some(encoding)),
        None => Err(format!(
            "{label:?} is no encoding that is known here; utf-8, shift_jis, euc-jp, utf-16le and windows-1252 are"
        )),
    }
}

/// A reader that gives UTF-8.
pub(super) struct Utf8<R> {
    inner: R,
    decoder: Decoder,
    raw: Vec<u8>,
    raw_from: usize,
    raw_to: usize,
    ended: bool,
    finished: bool,
    line: u64,
}

const RAW_BYTES: usize = 16 << 10;

impl<R: Read> Utf8<R> {
    pub(super) fn new(mut inner: R, encoding: Option<&'static Encoding>) -> io::Result<Self> {
        let mut raw = vec![0; RAW_BYTES];
        let mut raw_to = 0;
        while raw_to < 3 {
            match inner.read(&mut raw[raw_to..])? {
                0 => break,
                count => raw_to += count,
            }
        }
        let marked = Encoding::for_bom(&raw[..raw_to]);
        let (encoding, skip) = match (encoding, marked) {
            // A mark of the encoding that was named, or of what nobody named.
            (None, Some((marked, length))) => (marked, length),
            (Some(named), Some((marked, length))) if named == marked => (named, length),
            (named, _) => (named.unwrap_or(UTF_8), 0),
        };
        Ok(Self {
            inner,
            decoder: encoding.new_decoder_without_bom_handling(),
            raw,
            raw_from: skip,
            raw_to,
            ended: false,
            finished: false,
            line: 1,
        })
    }

    fn malformed(&self) -> io::Error {
        let name = self.decoder.encoding().name();
        let hint = if self.decoder.encoding() == UTF_8 {
            "; if the file has another encoding, such as shift_jis, say so"
        } else {
            ""
        };
        let message = format!("line {}: this is not {name} text{hint}", self.line);
        io::Error::new(io::ErrorKind::InvalidData, message)
    }
}

impl<R: Read> Read for Utf8<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.finished || out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.raw_from == self.raw_to && !self.ended {
                self.raw_from = 0;
                self.raw_to = self.inner.read(&mut self.raw)?;
                self.ended = self.raw_to == 0;
            }
            let (result, read, written) = self.decoder.decode_to_utf8_without_replacement(
                &self.raw[self.raw_from..self.raw_to],
                out,
                self.ended,
            );
            self.raw_from += read;
            self.line += count_lines(&out[..written]);
            match result {
                DecoderResult::Malformed(..) => return Err(self.malformed()),
                DecoderResult::OutputFull if written == 0 => {
                    let message = "a buffer too small for one character";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                DecoderResult::InputEmpty if self.ended => {
                    self.finished = true;
                    return Ok(written);
                }
                _ if written > 0 => return Ok(written),
                _ => {}
            }
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
