//! Splits a byte stream into server-sent events, keeping the raw bytes of each.
//!
//! Understands what the HTML specification asks for: LF, CRLF and CR line ends,
//! several `data` lines, comments, `event`, a byte-order mark at the start, and
//! any split of the bytes into chunks. An event is given out when its empty line
//! is complete, so half an event at the end of a connection is never an event;
//! [`Splitter::finish`] tells that one was left. It keeps no `id` and `retry`:
//! we never reconnect to a model.

use bytes::{Bytes, BytesMut};

/// One event, or one block of comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its exact bytes, the ending empty line included.
    pub raw: Bytes,
    /// The `event` field; empty when there is none.
    pub name: String,
    /// The `data` lines joined by LF; `None` when there is no such line (a comment).
    pub data: Option<Bytes>,
}

/// Why a stream cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is larger than the cap.
    #[error("one event of the stream is larger than {0} bytes")]
    TooLarge(usize),
}

/// The incremental splitter.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    /// How far the buffer was searched for the end of an event.
    searched: usize,
    /// Where the current line begins.
    line_start: usize,
    /// A CR was the last byte seen: a LF that follows belongs to it.
    after_cr: bool,
    /// The current event ended with a bare CR; its LF may still come and belongs to its raw bytes.
    begun: bool,
    cap: usize,
}

impl Splitter {
    /// A splitter that refuses events of more than `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            line_start: 0,
            after_cr: false,
            begun: false,
            cap,
        }
    }

    /// Takes more bytes in; [`Splitter::next_event`] then gives out what is complete.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete event.
    ///
    /// # Errors
    /// The event that is being read is larger than the cap.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        while self.searched < self.buffer.len() {
            let byte = self.buffer[self.searched];
            let at = self.searched;
            self.searched += 1;
            let second_half = byte == b'\n' && std::mem::take(&mut self.after_cr);
            if second_half {
                // The LF of a CRLF: the line has ended at its CR already.
                self.line_start = self.searched;
                continue;
            }
            self.after_cr = byte == b'\r';
            if byte != b'\n' && byte != b'\r' {
                continue;
            }
            let empty = self.line_start == at || self.is_mark_only(at);
            self.line_start = self.searched;
            if empty && let Some(event) = self.cut() {
                return self.checked(event).map(Some);
            }
        }
        if self.buffer.len() > self.cap {
            Err(SseError::TooLarge(self.cap))
        } else {
            Ok(None)
        }
    }

    /// Whether the stream ended in the middle of an event.
    pub fn finish(&self) -> bool {
        self.buffer
            .iter()
            .any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    fn is_mark_only(&self, line_end: usize) -> bool {
        !self.begun && &self.buffer[self.line_start..line_end] == BYTE_ORDER_MARK
    }

    fn checked(&self, event: Event) -> Result<Event, SseError> {
        if event.raw.len() > self.cap {
            Err(SseError::TooLarge(self.cap))
        } else {
            Ok(event)
        }
    }

    /// Cuts the searched bytes off as one event; `None` when they are empty lines only.
    fn cut(&mut self) -> Option<Event> {
        // In CRLF streams the last LF of an event is usually there already; it belongs to this
        // event, so that the raw bytes of events are what the client's parser expects.
        if self.after_cr && self.buffer.get(self.searched) == Some(&b'\n') {
            self.searched += 1;
            self.after_cr = false;
        }
        let raw = self.buffer.split_to(self.searched).freeze();
        self.searched = 0;
        self.line_start = 0;
        let first = !std::mem::replace(&mut self.begun, true);
        parse(raw, first)
    }
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

fn parse(raw: Bytes, first: bool) -> Option<Event> {
    let mut text: &[u8] = &raw;
    if first {
        text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    }
    let mut name = String::new();
    let mut data: Option<Data> = None;
    let mut lines = 0;
    for line in text
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty())
    {
        lines += 1;
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut data {
                None => data = Some(Data::One(raw.slice_ref(value))),
                Some(lines) => lines.add(value),
            },
            b"event" => name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
    (lines > 0).then(|| Event {
        name,
        data: data.map(Data::into_bytes),
        raw: raw.clone(),
    })
}

/// Data of one line is a slice of the raw bytes; only several lines need a copy.
enum Data {
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn add(&mut self, line: &[u8]) {
        if let Self::One(first) = self {
            *self = Self::Many(BytesMut::from(&first[..]));
        }
        if let Self::Many(joined) = self {
            joined.extend_from_slice(b"\n");
            joined.extend_from_slice(line);
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(joined) => joined.freeze(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name and data of every event, with the bytes given in these chunks.
    fn events<'a>(
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<(String, Option<String>)>, bool) {
        let mut splitter = Splitter::new(1 << 20);
        let mut found = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(event) = splitter.next_event().unwrap() {
                let data = event
                    .data
                    .map(|data| String::from_utf8_lossy(&data).into_owned());
                found.push((event.name, data));
            }
        }
        (found, splitter.finish())
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Option<&str>)], half_left: bool) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, d)| ((*n).to_owned(), d.map(str::to_owned)))
            .collect();
        let whole = events([text.as_bytes()]);
        assert_eq!(whole, (expected, half_left), "{text:?}");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(events(bytes), whole, "byte by byte: {text:?}");
    }

    #[test]
    fn events_of_every_spelling() {
        check("data: a\n\n", &[("", Some("a"))], false);
        check(
            "data: a\r\n\r\ndata:b\r\n\r\n",
            &[("", Some("a")), ("", Some("b"))],
            false,
        );
        check(
            "data: a\r\rdata: b\r\r",
            &[("", Some("a")), ("", Some("b"))],
            false,
        );
        check("event: ping\ndata: {}\n\n", &[("ping", Some("{}"))], false);
        check("data: a\ndata: b\n\n", &[("", Some("a\nb"))], false);
        check("data: a\r\ndata:  b\r\n\r\n", &[("", Some("a\n b"))], false);
        check(
            ": hello\n\n\n\ndata\n\n",
            &[("", None), ("", Some(""))],
            false,
        );
        check("\u{feff}data: 日本\n\n", &[("", Some("日本"))], false);
        check("data: a\n\ndata: half", &[("", Some("a"))], true);
        check("data: a\n\ndata: half\n", &[("", Some("a"))], true);
        check("id: 7\nretry: 9\ndata: a\n\n", &[("", Some("a"))], false);
    }

    #[test]
    fn raw_bytes_are_all_there() {
        let text = ": c\r\n\r\ndata: 1\n\nevent: x\rdata: 2\r\r";
        let mut splitter = Splitter::new(1000);
        splitter.push(text.as_bytes());
        let mut raw = Vec::new();
        while let Some(event) = splitter.next_event().unwrap() {
            raw.extend_from_slice(&event.raw);
        }
        assert_eq!(raw, text.as_bytes());
    }

    #[test]
    fn endless_events_are_refused() {
        let mut splitter = Splitter::new(100);
        splitter.push(&[b'x'; 101]);
        assert_eq!(splitter.next_event(), Err(SseError::TooLarge(100)));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "data: a", "data: 日本語 🙂", "data:", "event: e", ": comment", "", "", "data: {\"x\":1}", "junk",
                ]),
                0..20,
            ),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 20),
            cuts in prop::collection::vec(0_usize..400, 0..12),
            mark in any::<bool>(),
        ) {
            let mut text = String::from(if mark { "\u{feff}" } else { "" });
            for (line, end) in lines.iter().zip(&ends) {
                text.push_str(line);
                text.push_str(end);
            }
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(pieces), events([bytes]));
            prop_assert_eq!(events(bytes.chunks(1)), events([bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), size in 1_usize..50) {
            let mut splitter = Splitter::new(200);
            for chunk in bytes.chunks(size) {
                splitter.push(chunk);
                while let Ok(Some(_)) = splitter.next_event() {}
            }
            splitter.finish();
        }
    }
}
