//! CSV as spreadsheets write it: quoted cells with line breaks and doubled quotes in
//! them, lines that end in any of the three ways. Every record knows its line.

use std::io::BufRead;

use super::{MAX_ROW_BYTES, RowError};

/// Reads records.
pub(super) struct Records<R> {
    reader: R,
    delimiter: u8,
    line: u64,
    /// A record ended with a carriage return; a line feed after it belongs to it.
    skips_feed: bool,
    /// The last byte was a carriage return, which counted the line already.
    after_return: bool,
}

/// A record and the line that it begins in.
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) cells: Vec<String>,
}

/// Where in a record the reader is.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Start,
    Bare,
    Quoted,
    /// Behind a quote inside of a quoted cell: the end of it, or the first of two.
    Quote,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(reader: R, delimiter: u8) -> Self {
        Self {
            reader,
            delimiter,
            line: 1,
            skips_feed: false,
            after_return: false,
        }
    }

    /// The next record that is not an empty line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, RowError> {
        loop {
            match self.record()? {
                Some(record) if record.cells.len() == 1 && record.cells[0].is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn record(&mut self) -> Result<Option<Record>, RowError> {
        let begin = self.line;
        let (mut cells, mut cell) = (Vec::new(), Vec::new());
        let (mut state, mut bytes, mut quoted_since) = (State::Start, 0_usize, begin);
        loop {
            let Some(byte) = self.byte()? else {
                if state == State::Quoted {
                    return Err(RowError::new(
                        quoted_since,
                        "a quoted cell begins here and never ends",
                    ));
                }
                if bytes == 0 {
                    return Ok(None);
                }
                cells.push(text(cell, begin)?);
                return Ok(Some(Record { line: begin, cells }));
            };
            bytes += 1;
            if bytes > MAX_ROW_BYTES {
                return Err(RowError::too_large(begin));
            }
            let is_end = matches!(byte, b'\n' | b'\r') && state != State::Quoted;
            match (state, byte) {
                _ if is_end => {
                    self.skips_feed = byte == b'\r';
                    cells.push(text(cell, begin)?);
                    return Ok(Some(Record { line: begin, cells }));
                }
                (State::Quoted, b'"') => state = State::Quote,
                (State::Quoted, other) => cell.push(other),
                (State::Quote, b'"') => {
                    cell.push(b'"');
                    state = State::Quoted;
                }
                (_, other) if other == self.delimiter => {
                    cells.push(text(std::mem::take(&mut cell), begin)?);
                    state = State::Start;
                }
                (State::Quote, other) => {
                    let why = format!(
                        "{:?} stands behind the end of a quoted cell",
                        char::from(other)
                    );
                    return Err(RowError::new(self.line, why));
                }
                (State::Start, b'"') => {
                    state = State::Quoted;
                    quoted_since = self.line;
                }
                (State::Start | State::Bare, other) => {
                    cell.push(other);
                    state = State::Bare;
                }
            }
        }
    }

    /// The next byte; counts lines, however they end.
    fn byte(&mut self) -> Result<Option<u8>, RowError> {
        loop {
            let buffer = self
                .reader
                .fill_buf()
                .map_err(|error| RowError::io(self.line, &error))?;
            let Some(&byte) = buffer.first() else {
                return Ok(None);
            };
            self.reader.consume(1);
            let is_second = std::mem::take(&mut self.after_return) && byte == b'\n';
            self.after_return = byte == b'\r';
            if byte == b'\r' || (byte == b'\n' && !is_second) {
                self.line += 1;
            }
            if std::mem::take(&mut self.skips_feed) && byte == b'\n' {
                continue;
            }
            return Ok(Some(byte));
        }
    }
}

fn text(bytes: Vec<u8>, line: u64) -> Result<String, RowError> {
    String::from_utf8(bytes).map_err(|_| RowError::new(line, "this is not UTF-8 text"))
}
