//! Reads the arguments of a tool call, JSON that comes in parts, as the text that they mean:
//! escapes undone, with a way back for edits, which must leave the JSON valid.
//!
//! Surprising: a number or word outside a string is one piece: an edit within it takes all of it
//! and puts a string in its place.

use super::layer::Layer;

/// A longer bare word is read in pieces.
const MOST_BARE_CHARS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// What is not yet read, and where it begins in the original.
    tail: String,
    tail_from: usize,
    inside: bool,
    /// Where strings begin and end: the quote's place, and whether a string begins there.
    quotes: Vec<(usize, bool)>,
}

enum Piece {
    Same(usize),
    /// One character for so many bytes.
    Escape(char, usize),
    Bare(usize),
    Quote,
    Wait,
}

impl Arguments {
    pub(super) fn push(&mut self, text: &str, finished: bool, layer: &mut Layer) {
        self.tail.push_str(text);
        let mut at = 0;
        while at < self.tail.len() {
            let rest = &self.tail[at..];
            let from = self.tail_from + at;
            let piece = if self.inside {
                string_piece(rest, finished)
            } else {
                outside_piece(rest, finished)
            };
            at += match piece {
                Piece::Wait => break,
                Piece::Quote => {
                    self.inside = !self.inside;
                    self.quotes.push((from, self.inside));
                    layer.push_same("\"", from);
                    1
                }
                Piece::Same(len) => {
                    layer.push_same(&rest[..len], from);
                    len
                }
                Piece::Escape(c, len) => {
                    layer.push_char(c, from, len);
                    len
                }
                Piece::Bare(len) => {
                    for c in rest[..len].chars() {
                        layer.push_char(c, from, len);
                    }
                    len
                }
            };
        }
        self.tail.drain(..at);
        self.tail_from += at;
    }

    /// Everything before this byte of the original is read.
    pub(super) fn settled(&self) -> usize {
        self.tail_from
    }

    pub(super) fn forget(&mut self, before: usize) {
        let next = self.quotes.partition_point(|(at, _)| *at < before);
        if next > 256 {
            self.quotes.drain(..next - 1);
        }
    }

    /// The original's `text`, which begins at `start`, with another text in place of what it
    /// means. Quotes, commas and brackets stay.
    pub(super) fn edit(&self, text: &str, start: usize, with: &str) -> String {
        let quoted = serde_json::Value::from(with).to_string();
        let bare = &quoted[1..quoted.len() - 1];
        let before = self.quotes.partition_point(|(at, _)| *at < start);
        let mut inside = before > 0 && self.quotes[before - 1].1;
        let (mut out, mut placed) = (String::new(), false);
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '"' {
                inside = !inside;
                out.push(c);
            } else if inside {
                if c == '\\' {
                    rest.next();
                }
                out.push_str(if placed { "" } else { bare });
                placed = true;
            } else if is_structure(c) {
                out.push(c);
            } else {
                while rest.next_if(|c| *c != '"' && !is_structure(*c)).is_some() {}
                out.push_str(if placed { "null" } else { &quoted });
                placed = true;
            }
        }
        out
    }
}

fn is_structure(c: char) -> bool {
    c.is_whitespace() || "{}[],:".contains(c)
}

fn outside_piece(rest: &str, finished: bool) -> Piece {
    let structure = rest.chars().take_while(|c| is_structure(*c));
    let len: usize = structure.map(char::len_utf8).sum();
    if len > 0 {
        return Piece::Same(len);
    }
    if rest.starts_with('"') {
        return Piece::Quote;
    }
    let end = rest
        .char_indices()
        .enumerate()
        .find(|(chars, (_, c))| *chars == MOST_BARE_CHARS || *c == '"' || is_structure(*c));
    match end {
        Some((_, (at, _))) => Piece::Bare(at),
        None if finished => Piece::Bare(rest.len()),
        None => Piece::Wait,
    }
}

fn string_piece(rest: &str, finished: bool) -> Piece {
    match rest.find(['"', '\\']) {
        None => Piece::Same(rest.len()),
        Some(0) if rest.starts_with('"') => Piece::Quote,
        Some(0) => escape(rest, finished),
        Some(len) => Piece::Same(len),
    }
}

fn escape(rest: &str, finished: bool) -> Piece {
    let c = match rest[1..].chars().next() {
        None if finished => return Piece::Same(1),
        None => return Piece::Wait,
        Some('u') => return unicode_escape(rest, finished),
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some(c @ ('"' | '\\' | '/')) => c,
        Some(_) => return Piece::Same(1),
    };
    Piece::Escape(c, 2)
}

fn unicode_escape(rest: &str, finished: bool) -> Piece {
    let Some(first) = unit(rest) else {
        let could = rest.len() < 6 && rest[2..].bytes().all(|b| b.is_ascii_hexdigit());
        return if could && !finished {
            Piece::Wait
        } else {
            Piece::Same(1)
        };
    };
    if let Some(c) = char::from_u32(first) {
        return Piece::Escape(c, 6);
    }
    let next = &rest[6..];
    let low = unit(next).filter(|low| (0xDC00..0xE000).contains(low));
    if let (Some(low), true) = (low, first < 0xDC00) {
        let code = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
        return Piece::Escape(char::from_u32(code).unwrap_or('\u{fffd}'), 12);
    }
    if first < 0xDC00 && !finished && begins_unit(next) {
        return Piece::Wait;
    }
    Piece::Escape('\u{fffd}', 6)
}

/// The value of `\uXXXX` at the start of a text.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// Whether more text could make it one.
fn begins_unit(text: &str) -> bool {
    text.len() < 6
        && text.bytes().enumerate().all(|(at, b)| match at {
            0 => b == b'\\',
            1 => b == b'u',
            _ => b.is_ascii_hexdigit(),
        })
}
