//! Finding personal data in texts, as marks: places, never changes of the text.
//!
//! A detector takes a text and gives the places of one kind, in characters. These two are
//! the first; more come with the guards, which use the same ones.

/// A place in a text, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first character.
    pub start: usize,
    /// The first character behind it.
    pub end: usize,
}

/// What finds places of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// E-mail addresses.
    Email,
    /// Telephone numbers: international, and Japanese ones as they are written at home.
    Phone,
}

impl Detector {
    /// Every name that [`Detector::parse`] knows.
    pub const NAMES: [&str; 2] = ["email", "phone"];

    /// The detector of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim() {
            "email" => Some(Self::Email),
            "phone" => Some(Self::Phone),
            _ => None,
        }
    }

    /// The kind of its marks.
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }

    /// Every place in a text, in order, none inside of another.
    pub fn find(self, text: &str) -> Vec<Span> {
        // Full-width forms are read as what they stand for, one character for one.
        let chars: Vec<char> = text.chars().map(narrow).collect();
        match self {
            Self::Email => emails(&chars),
            Self::Phone => phones(&chars),
        }
    }
}

fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
        '\u{3000}' => ' ',
        '−' | '‐' | '‑' | '–' | 'ー' => '-',
        other => other,
    }
}

fn emails(chars: &[char]) -> Vec<Span> {
    let local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let mut found: Vec<Span> = Vec::new();
    for (at, _) in chars.iter().enumerate().filter(|(_, c)| **c == '@') {
        let before = chars.get(..at).unwrap_or_default();
        let mut start = at - before.iter().rev().take_while(|c| local(**c)).count();
        while chars.get(start).is_some_and(|c| ".'`".contains(*c)) {
            start += 1;
        }
        let after = chars.get(at + 1..).unwrap_or_default();
        let mut end = at + 1 + after.iter().take_while(|c| host(**c)).count();
        while end > at + 1 && chars.get(end - 1).is_some_and(|c| ".-".contains(*c)) {
            end -= 1;
        }
        let name: String = chars.get(at + 1..end).unwrap_or_default().iter().collect();
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_host = name.contains('.')
            && !name.contains("..")
            && !name.starts_with(['.', '-'])
            && last.len() >= 2
            && last.chars().all(|c| c.is_ascii_alphabetic());
        let is_apart = found.last().is_none_or(|span| span.end <= start);
        if start < at && is_host && at - start <= 64 && is_apart {
            found.push(Span { start, end });
        }
    }
    found
}

/// How many digits a number has, and whether what begins it makes it one.
fn is_phone(digits: &str, international: bool, parts: usize) -> bool {
    let count = digits.len();
    if international {
        return (8..=15).contains(&count) && !digits.starts_with('0');
    }
    // Japan: a zero, an area, nine digits in all after it for mobiles, eight else.
    if digits.starts_with('0') && !digits.starts_with("00") {
        let mobile = ["070", "080", "090", "050", "020"]
            .iter()
            .any(|start| digits.starts_with(start));
        return if mobile { count == 11 } else { count == 10 };
    }
    // North America, only when written in its groups: ten digits alone may be anything.
    count == 10
        && parts == 3
        && digits
            .chars()
            .next()
            .is_some_and(|c| ('2'..='9').contains(&c))
}

fn phones(chars: &[char]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let begins = chars[at].is_ascii_digit() || (chars[at] == '+' || chars[at] == '(');
        let apart = at == 0
            || !(chars[at - 1].is_ascii_alphanumeric() || ".-/:#_=".contains(chars[at - 1]));
        if !begins || !apart {
            at += 1;
            continue;
        }
        let (end, digits, parts) = number_at(chars, at);
        let behind = chars.get(end);
        let ends = behind.is_none_or(|c| !c.is_ascii_alphanumeric() && *c != '_')
            // A decimal or a date goes on.
            && !(behind.is_some_and(|c| ".,/:".contains(*c)) && chars.get(end + 1).is_some_and(char::is_ascii_digit));
        if ends && is_phone(&digits, chars[at] == '+', parts) {
            found.push(Span { start: at, end });
            at = end;
        } else {
            at = end.max(at + 1);
        }
    }
    found
}

/// The end, the digits and the number of groups of what may be a telephone number.
fn number_at(chars: &[char], start: usize) -> (usize, String, usize) {
    let (mut at, mut end, mut digits, mut parts) = (start, start, String::new(), 0);
    let mut in_group = false;
    let mut gap = 0;
    while let Some(c) = chars.get(at) {
        match c {
            '+' if at == start => {}
            c if c.is_ascii_digit() => {
                if !in_group {
                    parts += 1;
                }
                (in_group, gap) = (true, 0);
                digits.push(*c);
                end = at + 1;
            }
            ' ' | '-' | '(' | ')' | '.' if gap < 2 && digits.len() < 16 => {
                (in_group, gap) = (false, gap + 1);
            }
            _ => break,
        }
        at += 1;
    }
    (end, digits, parts)
}
