//! The ways of reading a text: each is a derived text that grows with the source, cluster by
//! cluster, with a map back. See [`Reading`](crate::Reading) for what they are.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::skeleton;

use super::cluster::{self, Cut};
use super::spans::Spans;
use crate::decide::Reading;

/// Which folding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Raw,
    Plain,
    Digits,
    Leet,
    Rot13,
}

impl Kind {
    pub(super) fn reading(self) -> Reading {
        match self {
            Kind::Raw => Reading::Raw,
            Kind::Plain => Reading::Plain,
            Kind::Digits => Reading::Digits,
            Kind::Leet => Reading::Leet,
            Kind::Rot13 => Reading::Rot13,
        }
    }

    fn ascii(self) -> &'static [u8; 128] {
        match self {
            Kind::Raw | Kind::Digits => &SAME,
            Kind::Plain => &LOWER,
            Kind::Leet => &LEET,
            Kind::Rot13 => &ROT13,
        }
    }

    /// Whether a character of a script without case stays what it is.
    #[inline]
    fn keeps(self, c: char) -> bool {
        match self {
            Kind::Raw => true,
            Kind::Digits => is_settled(c) && kanji_digit(c).is_none(),
            Kind::Plain | Kind::Rot13 => is_settled(c),
            Kind::Leet => is_settled(c) && !is_katakana(c),
        }
    }
}

/// A derived text. Positions are absolute; `text` begins at `off`.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) off: usize,
    pub(super) spans: Spans,
}

impl Folded {
    pub(super) fn new(kind: Kind) -> Self {
        Folded {
            kind,
            text: String::new(),
            off: 0,
            spans: Spans::default(),
        }
    }

    pub(super) fn end(&self) -> usize {
        self.off + self.text.len()
    }

    /// Characters that are each a cluster.
    pub(super) fn push_singles(&mut self, run: &str, from: usize) {
        if self.kind == Kind::Raw {
            self.text.push_str(run);
            self.spans.carry(run.len(), from);
            return;
        }
        let table = self.kind.ascii();
        let bytes = run.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let ascii = bytes[at..].iter().take_while(|b| b.is_ascii()).count();
            if ascii > 0 {
                self.push_ascii(&run[at..at + ascii], table);
                self.spans.carry(ascii, from + at);
                at += ascii;
            }
            for c in run[at..].chars() {
                if c.is_ascii() {
                    break;
                }
                self.push_single(c, from + at);
                at += c.len_utf8();
            }
        }
    }

    fn push_ascii(&mut self, run: &str, table: &[u8; 128]) {
        match self.kind {
            Kind::Raw | Kind::Digits => self.text.push_str(run),
            Kind::Plain => {
                let before = self.text.len();
                self.text.push_str(run);
                self.text[before..].make_ascii_lowercase();
            }
            Kind::Leet | Kind::Rot13 => {
                let mut folded = [0; 64];
                for part in run.as_bytes().chunks(folded.len()) {
                    for (slot, b) in folded.iter_mut().zip(part) {
                        *slot = table[usize::from(b & 0x7F)];
                    }
                    let text = std::str::from_utf8(&folded[..part.len()]);
                    self.text.push_str(text.unwrap_or_default());
                }
            }
        }
    }

    #[inline]
    fn push_single(&mut self, c: char, from: usize) {
        if self.kind.keeps(c) {
            self.text.push(c);
            self.spans.carry(c.len_utf8(), from);
        } else {
            let mut buffer = [0; 4];
            self.push_cluster(c.encode_utf8(&mut buffer), from);
        }
    }

    /// One cluster.
    pub(super) fn push_cluster(&mut self, cluster: &str, from: usize) {
        let before = self.text.len();
        fold_cluster(self.kind, cluster, &mut self.text);
        self.spans
            .replace(self.text.len() - before, from, cluster.len());
    }

    /// Forgets text before an absolute position, but for a context of a scanner's need.
    pub(super) fn forget(&mut self, before: usize) {
        let keep = before.saturating_sub(super::CONTEXT_BYTES);
        if keep <= self.off + super::SLACK_BYTES {
            return;
        }
        let mut cut = keep - self.off;
        while !self.text.is_char_boundary(cut) {
            cut -= 1;
        }
        self.text.drain(..cut);
        self.off += cut;
        self.spans.forget(self.off);
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.off = 0;
        self.spans.clear();
    }
}

/// A whole text, folded: for words of lists, which must be what the text becomes.
pub(super) fn fold_text(kind: Kind, text: &str) -> String {
    let mut folded = Folded::new(kind);
    let mut at = 0;
    while let Some(cut) = cluster::next(&text[at..], true) {
        at += match cut {
            Cut::Single(len) => {
                folded.push_singles(&text[at..at + len], at);
                len
            }
            Cut::Cluster(len) => {
                folded.push_cluster(&text[at..at + len], at);
                len
            }
        };
    }
    folded.text
}

fn fold_cluster(kind: Kind, cluster: &str, out: &mut String) {
    match kind {
        Kind::Raw => out.push_str(cluster),
        Kind::Digits => {
            let seen = cluster.nfkc().filter(|c| !is_hidden(*c));
            out.extend(seen.map(|c| digit(c).unwrap_or(c)));
        }
        Kind::Plain => plain(cluster, |c| out.push(c)),
        Kind::Leet => plain(cluster, |c| out.push(leet(c))),
        Kind::Rot13 => plain(cluster, |c| out.push(table_or_same(&ROT13, c))),
    }
}

fn plain(cluster: &str, mut push: impl FnMut(char)) {
    for c in cluster.nfkc().flat_map(char::to_lowercase) {
        if c.is_ascii() || is_settled(c) {
            push(c);
        } else if !is_hidden(c) && !matches!(c, '\u{300}'..='\u{36f}') {
            push(LOOK_ALIKES.get(&c).copied().unwrap_or(c));
        }
    }
}

fn leet(c: char) -> char {
    if is_katakana(c) {
        char::from_u32(c as u32 - 0x60).unwrap_or(c)
    } else {
        table_or_same(&LEET, c)
    }
}

fn table_or_same(table: &[u8; 128], c: char) -> char {
    match table.get(c as usize) {
        Some(b) => char::from(*b),
        None => c,
    }
}

/// Characters that every folding but the digits' and the loosest leaves alone.
#[inline]
fn is_settled(c: char) -> bool {
    matches!(c as u32,
        0x3001..=0x3029 | 0x3041..=0x3096 | 0x30A0..=0x30FE
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7A3)
}

#[inline]
fn is_katakana(c: char) -> bool {
    matches!(c, '\u{30a1}'..='\u{30f6}')
}

#[inline]
fn kanji_digit(c: char) -> Option<char> {
    Some(match c {
        '〇' | '零' => '0',
        '一' => '1',
        '二' => '2',
        '三' => '3',
        '四' => '4',
        '五' => '5',
        '六' => '6',
        '七' => '7',
        '八' => '8',
        '九' => '9',
        _ => return None,
    })
}

/// Where ten digits of a script begin.
const ZEROS: [u32; 18] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xE50,
    0xED0, 0xF20, 0x1040, 0x17E0, 0x1810,
];

fn digit(c: char) -> Option<char> {
    let code = c as u32;
    let zero = ZEROS
        .iter()
        .find(|zero| (**zero..**zero + 10).contains(&code));
    match zero {
        Some(zero) => char::from_digit(code - zero, 10),
        None => kanji_digit(c),
    }
}

/// Characters that show nothing, and are put between letters to hide a word.
pub(super) fn is_hidden(c: char) -> bool {
    matches!(c as u32,
        0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F
        | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164
        | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1D173..=0x1D17A
        | 0xE0000..=0xE0FFF)
}

/// Letters of other scripts that look like a letter of ASCII, and letters with accents.
static LOOK_ALIKES: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    let ranges = [
        0xA1..=0x24F_u32,
        0x250..=0x2AF,
        0x370..=0x3FF,
        0x400..=0x52F,
        0x531..=0x587,
        0x13A0..=0x13FF,
        0x1D00..=0x1D7F,
        0x1E00..=0x1FFF,
        0xA640..=0xA7FF,
        0xAB30..=0xABBF,
    ];
    let letters = ranges.into_iter().flatten().filter_map(char::from_u32);
    letters.filter_map(|c| Some((c, looks_like(c)?))).collect()
});

fn looks_like(c: char) -> Option<char> {
    let text = c.to_string();
    let mut seen = skeleton(&text).filter(|c| !is_combining_mark(*c));
    let first = seen.next()?;
    (seen.next().is_none() && first.is_ascii_alphanumeric()).then(|| first.to_ascii_lowercase())
}

static SAME: [u8; 128] = {
    let mut table = [0; 128];
    let mut b = 0;
    while b < 128 {
        table[b] = b as u8;
        b += 1;
    }
    table
};

static LOWER: [u8; 128] = {
    let mut table = SAME;
    let mut b = 0;
    while b < 128 {
        table[b] = (b as u8).to_ascii_lowercase();
        b += 1;
    }
    table
};

static LEET: [u8; 128] = {
    let mut table = LOWER;
    let pairs = *b"0o1i3e4a5s7t8b@a$s!i|i+t";
    let mut at = 0;
    while at < pairs.len() {
        table[pairs[at] as usize] = pairs[at + 1];
        at += 2;
    }
    table
};

static ROT13: [u8; 128] = {
    let mut table = LOWER;
    let mut at = 0;
    while at < 26 {
        table[b'a' as usize + at] = b'a' + ((at + 13) % 26) as u8;
        table[b'A' as usize + at] = b'a' + ((at + 13) % 26) as u8;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_past_their_disguise() {
        for (kind, text, read) in [
            (Kind::Plain, "Ｉｇｎｏｒｅ", "ignore"),
            (Kind::Plain, "i\u{200b}gno\u{ad}re", "ignore"),
            (Kind::Plain, "іgnоrе аll", "ignore all"),
            (Kind::Plain, "Ígñóre Z\u{335}a\u{336}lgo", "ignore zalgo"),
            (Kind::Plain, "ﾊﾟｽﾜｰﾄﾞ", "パスワード"),
            (Kind::Plain, "か\u{3099}き", "がき"),
            (Kind::Plain, "㍿ＡＢＣ①", "株式会社abc1"),
            (Kind::Digits, "ＡＢ-１２三〇٣", "AB-12303"),
            (Kind::Leet, "1gn0r3 シネ", "ignore しね"),
            (Kind::Rot13, "Vtaber", "ignore"),
            (Kind::Raw, "i\u{200b}É", "i\u{200b}É"),
        ] {
            assert_eq!(fold_text(kind, text), read, "{kind:?} {text}");
        }
    }
}
