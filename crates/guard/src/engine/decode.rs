//! Decoders: find runs of base64, hexadecimal digits, percent escapes and tag characters in a
//! layer's text, and feed what they say to a layer below, as it comes.
//!
//! A run is a text of its own: it ends where its alphabet ends, or where what it says is no text.
//! Nothing is decoded before the run is long enough to be meant, so ordinary words cost a look at
//! each byte and the layer below is not even made.

use super::layer::{Hit, Layer, Scans};
use crate::decide::Reading;

/// How many bytes of base64 or hex make a run that is meant.
const MEANT_BYTES: usize = 16;
/// How many tag characters; a flag has fewer.
const MEANT_TAGS: usize = 6;
/// How much of an address before its first percent escape is read with it.
const MOST_BEFORE: usize = 128;

#[derive(Debug)]
pub(super) struct Decoder {
    kind: Code,
    depth: usize,
    /// Everything before is decoded or left alone.
    at: usize,
    run: Run,
    /// Bytes that are not yet a character, and where they begin.
    partial: Vec<u8>,
    partial_from: usize,
    below: Option<Box<Layer>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Base64,
    Hex,
    Url,
    Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// Between runs.
    None,
    /// Begun, and perhaps only a word.
    Early { from: usize },
    /// Decoded and passed on.
    Meant,
    /// Says nothing: skipped to its end.
    Dead,
}

/// Whether a run is long enough.
enum Length {
    /// It is: decoding begins here.
    Meant(usize),
    /// It ends here and is not.
    Short(usize),
    /// Only more text can tell; so much was looked at for good.
    Wait(usize),
}

/// The next unit of a run.
enum Unit {
    /// So many bytes of the layer say these bytes (so many of them).
    Bytes(usize, [u8; 3], usize),
    /// So many bytes of the layer say nothing.
    Skip(usize),
    /// The run ends here; so many bytes still say something.
    End,
    /// Only more text can tell.
    Wait,
}

impl Decoder {
    pub(super) fn all(depth: usize) -> Vec<Decoder> {
        let kinds = [Code::Base64, Code::Hex, Code::Url, Code::Tags];
        kinds
            .into_iter()
            .map(|kind| Decoder {
                kind,
                depth,
                at: 0,
                run: Run::None,
                partial: Vec::new(),
                partial_from: 0,
                below: None,
            })
            .collect()
    }

    pub(super) fn clear(&mut self) {
        self.at = 0;
        self.end_run();
    }

    /// The layer's text that is still needed begins here.
    pub(super) fn needs(&self) -> usize {
        let at = match self.run {
            Run::Early { from } => from.min(self.at),
            _ => self.at,
        };
        // Enough for the bytes before a unit, and for what stands before a run.
        at.saturating_sub(64)
    }

    pub(super) fn settled(&self, layer: &Layer, open: usize) -> usize {
        let mut settled = open;
        match self.run {
            Run::Early { from } => settled = settled.min(layer.start_of(from)),
            Run::Meant => {
                let from = if self.partial.is_empty() {
                    self.at
                } else {
                    self.partial_from
                };
                if from < layer.end() {
                    settled = settled.min(layer.start_of(from));
                }
                if let Some(below) = &self.below {
                    settled = settled.min(below.settled(open));
                }
            }
            Run::None | Run::Dead => {
                if self.at < layer.end() {
                    settled = settled.min(layer.start_of(self.at));
                }
            }
        }
        settled
    }

    pub(super) fn advance(
        &mut self,
        layer: &Layer,
        scans: &Scans,
        finished: bool,
        out: &mut Vec<Hit>,
    ) {
        let text = layer.text.as_bytes();
        while self.at < layer.end() {
            let here = self.at - layer.off;
            if self.run == Run::None {
                match self.kind.begins(text, here) {
                    Some(skip) => {
                        self.at += skip;
                        self.run = Run::Early { from: self.at };
                    }
                    None => self.at = layer.end(),
                }
                continue;
            }
            if let Run::Early { from } = self.run {
                match self.kind.length(text, from - layer.off, here, finished) {
                    Length::Meant(from) => {
                        self.run = Run::Meant;
                        self.at = from + layer.off;
                    }
                    Length::Short(end) => {
                        self.run = Run::None;
                        self.at = end + layer.off;
                    }
                    Length::Wait(at) => {
                        self.at = at + layer.off;
                        let from = from.max(self.at.saturating_sub(MOST_BEFORE));
                        self.run = Run::Early { from };
                        break;
                    }
                }
                continue;
            }
            match self.kind.unit(text, here, finished, self.run) {
                Unit::Bytes(len, bytes, count) => {
                    self.take(layer, scans, len, &bytes[..count]);
                    self.at += len;
                }
                Unit::Skip(len) => self.at += len,
                Unit::End => self.finish_run(scans, out),
                Unit::Wait => break,
            }
        }
        if finished && self.run != Run::None {
            self.finish_run(scans, out);
        }
        if let (Run::Meant, Some(below)) = (self.run, &mut self.below) {
            below.advance(scans, false, out);
            below.forget(usize::MAX);
        }
        if self.run == Run::Dead && self.below.is_some() {
            self.flush_below(scans, out);
        }
    }

    /// Bytes that `len` bytes of the layer say.
    fn take(&mut self, layer: &Layer, scans: &Scans, len: usize, bytes: &[u8]) {
        if self.run == Run::Dead {
            return;
        }
        if let (true, [byte @ 0x20..=0x7E]) = (self.partial.is_empty(), bytes) {
            self.pass_on(layer, scans, char::from(*byte), self.at, self.at + len);
            return;
        }
        if self.partial.is_empty() {
            self.partial_from = self.at;
        }
        self.partial.extend_from_slice(bytes);
        let end = self.at + len;
        loop {
            let c = match first_char(&self.partial) {
                Ok(Some(c)) => c,
                Ok(None) => return,
                Err(()) => {
                    self.die();
                    return;
                }
            };
            self.partial.drain(..c.len_utf8());
            self.pass_on(layer, scans, c, self.partial_from, end);
            self.partial_from = self.at;
        }
    }

    fn pass_on(&mut self, layer: &Layer, scans: &Scans, c: char, from: usize, end: usize) {
        let reading = self.kind.reading();
        let depth = self.depth;
        let below = self
            .below
            .get_or_insert_with(|| Box::new(Layer::below(scans, reading, depth)));
        let start = layer.start_of(from);
        below.push_char(c, start, layer.end_of(end) - start);
    }

    /// What it said before was text, and is read to its end.
    fn die(&mut self) {
        self.run = Run::Dead;
        self.partial.clear();
    }

    fn finish_run(&mut self, scans: &Scans, out: &mut Vec<Hit>) {
        self.flush_below(scans, out);
        self.end_run();
    }

    fn flush_below(&mut self, scans: &Scans, out: &mut Vec<Hit>) {
        if let Some(below) = &mut self.below
            && below.end() > 0
        {
            below.advance(scans, true, out);
            below.clear();
        }
    }

    fn end_run(&mut self) {
        self.run = Run::None;
        self.partial.clear();
        if let Some(below) = &mut self.below {
            below.clear();
        }
    }
}

/// The first character of some bytes: none if it is not whole, an error if it is no text.
fn first_char(bytes: &[u8]) -> Result<Option<char>, ()> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    let len = match first {
        0..=0x7F => 1,
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return Err(()),
    };
    let have = &bytes[..len.min(bytes.len())];
    match std::str::from_utf8(have) {
        Ok(text) => match text.chars().next() {
            Some(c) if c.is_control() && !matches!(c, '\n' | '\r' | '\t') => Err(()),
            c => Ok(c),
        },
        Err(error) if error.error_len().is_none() => Ok(None),
        Err(_) => Err(()),
    }
}

impl Code {
    fn reading(self) -> Reading {
        match self {
            Code::Base64 => Reading::Base64,
            Code::Hex => Reading::Hex,
            Code::Url => Reading::Url,
            Code::Tags => Reading::Tags,
        }
    }

    /// How far it is to the start of the next run.
    fn begins(self, text: &[u8], at: usize) -> Option<usize> {
        let rest = &text[at..];
        match self {
            Code::Base64 => rest.iter().position(u8::is_ascii_alphanumeric),
            Code::Hex => (0..rest.len()).find(|at| {
                let next = rest.get(at + 1);
                rest[*at].is_ascii_hexdigit()
                    && next.is_none_or(|b| b.is_ascii_hexdigit() || *b == b'x')
            }),
            Code::Url => rest.iter().position(|b| is_address(*b)),
            Code::Tags => {
                (0..rest.len()).find(|at| rest[*at] == 0xF3 && tag(&rest[*at..]).is_some())
            }
        }
    }

    /// Whether the run from `from`, looked at up to `at`, is meant.
    fn length(self, text: &[u8], from: usize, at: usize, finished: bool) -> Length {
        let unsure = |at: usize| {
            if finished {
                Length::Short(text.len())
            } else {
                Length::Wait(at)
            }
        };
        match self {
            Code::Base64 => {
                let run = text[from..].iter().take(MEANT_BYTES);
                match run.take_while(|b| base64_value(**b).is_some()).count() {
                    MEANT_BYTES => Length::Meant(from),
                    len if from + len < text.len() => Length::Short(from + len),
                    _ => unsure(from),
                }
            }
            Code::Tags => {
                let tags = (0..MEANT_TAGS).take_while(|tag_at| {
                    let rest = text.get(from + 4 * tag_at..);
                    rest.is_some_and(|rest| tag(rest).is_some())
                });
                match tags.count() {
                    MEANT_TAGS => Length::Meant(from),
                    count if from + 4 * count < text.len() => Length::Short(from + 4 * count),
                    _ => unsure(from),
                }
            }
            Code::Hex => {
                let mut at = from;
                while at < text.len() && at - from < MEANT_BYTES {
                    match hex_unit(&text[at..], finished, Run::Meant) {
                        Unit::Bytes(len, ..) => at += len,
                        Unit::Wait => return Length::Wait(from),
                        _ => return Length::Short(at.max(from + 1)),
                    }
                }
                if at - from >= MEANT_BYTES {
                    Length::Meant(from)
                } else {
                    unsure(from)
                }
            }
            Code::Url => {
                for at in at..text.len() {
                    if text[at] == b'%' {
                        match url_unit(&text[at..], finished) {
                            Unit::Wait => return Length::Wait(at),
                            Unit::Bytes(3, ..) => {
                                return Length::Meant(from.max(at.saturating_sub(MOST_BEFORE)));
                            }
                            _ => {}
                        }
                    } else if !is_address(text[at]) {
                        return Length::Short(at);
                    }
                }
                unsure(text.len())
            }
        }
    }

    fn unit(self, text: &[u8], at: usize, finished: bool, run: Run) -> Unit {
        match self {
            Code::Base64 => base64_unit(&text[at..], finished, run),
            Code::Hex => hex_unit(&text[at..], finished, run),
            Code::Url => url_unit(&text[at..], finished),
            Code::Tags => match tag(&text[at..]) {
                Some(byte) => Unit::Bytes(4, [byte, 0, 0], 1),
                None => Unit::End,
            },
        }
    }
}

/// Four letters say three bytes. What is left at the end says one or two. Lines may be wrapped.
fn base64_unit(rest: &[u8], finished: bool, run: Run) -> Unit {
    let (mut len, mut count, mut value) = (0, 0, 0_u32);
    while count < 4 {
        match rest.get(len) {
            Some(byte) => match base64_value(*byte) {
                // A path before a run (`/files/aGVsbG8…`) must not spoil it.
                Some(62..) if run == Run::Dead => break,
                Some(six) => {
                    value = value << 6 | u32::from(six);
                    count += 1;
                }
                None if run == Run::Meant && matches!(byte, b'\n' | b'\r') && len < 12 => {}
                None => break,
            },
            None if finished => break,
            None => return Unit::Wait,
        }
        len += 1;
    }
    let value = value << (6 * (4 - count));
    let [_, a, b, c] = value.to_be_bytes();
    match count {
        0 | 1 if len == 0 || count == 0 => Unit::End,
        1 => Unit::Skip(len),
        2 => Unit::Bytes(len, [a, 0, 0], 1),
        3 => Unit::Bytes(len, [a, b, 0], 2),
        _ => Unit::Bytes(len, [a, b, c], 3),
    }
}

/// Two digits say a byte; a space, a colon or `\x` may stand before them.
fn hex_unit(rest: &[u8], finished: bool, run: Run) -> Unit {
    let before = match rest {
        _ if run == Run::Dead => 0,
        [b'\\', b'x', ..] | [b'0', b'x', ..] => 2,
        [b' ' | b':' | b'\\', ..] => 1,
        _ => 0,
    };
    let digit = |at: usize| rest.get(at).map(|b| char::from(*b).to_digit(16));
    match (digit(before), digit(before + 1)) {
        (Some(Some(high)), Some(Some(low))) => {
            Unit::Bytes(before + 2, [(high * 16 + low) as u8, 0, 0], 1)
        }
        (Some(Some(_)), None) | (None, _) if !finished => Unit::Wait,
        _ => Unit::End,
    }
}

/// A percent escape says a byte, a plus a space, everything else itself.
fn url_unit(rest: &[u8], finished: bool) -> Unit {
    let digit = |at: usize| rest.get(at).map(|b| char::from(*b).to_digit(16));
    match rest[0] {
        b'%' => match (digit(1), digit(2)) {
            (Some(Some(high)), Some(Some(low))) => {
                Unit::Bytes(3, [(high * 16 + low) as u8, 0, 0], 1)
            }
            (None, _) | (Some(Some(_)), None) if !finished => Unit::Wait,
            _ => Unit::Bytes(1, [b'%', 0, 0], 1),
        },
        b'+' => Unit::Bytes(1, [b' ', 0, 0], 1),
        byte if is_address(byte) => Unit::Bytes(1, [byte, 0, 0], 1),
        _ => Unit::End,
    }
}

fn base64_value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

fn is_address(byte: u8) -> bool {
    const ADDRESS: [bool; 256] = {
        let mut table = [false; 256];
        let signs = b"-._~:/?#[]@!$&'()*+,;=%";
        let mut at = 0;
        while at < signs.len() {
            table[signs[at] as usize] = true;
            at += 1;
        }
        let mut b = 0;
        while b < 128 {
            table[b] |= (b as u8).is_ascii_alphanumeric();
            b += 1;
        }
        table
    };
    ADDRESS[usize::from(byte)]
}

/// The letter that a tag character says.
fn tag(bytes: &[u8]) -> Option<u8> {
    let [0xF3, 0xA0, high @ (0x80 | 0x81), low, ..] = bytes else {
        return None;
    };
    let byte = (high & 1) << 6 | (low & 0x3F);
    matches!(byte, 0x20..=0x7E).then_some(byte)
}
