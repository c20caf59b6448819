//! The tokenisers of sacreBLEU that work on ASCII punctuation: `13a` (mteval-v13a) and `zh`.
//!
//! Four replacements run one after the other and each consumes what it matched, so neighbours
//! matter: in `a..b` the first full stop takes the second one's place. All patterns are ASCII, so
//! the passes run on bytes; a byte of a longer character is only ever "not a digit".

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::normalise::trim;

/// sacreBLEU's `13a`: words and punctuation separated by white space.
pub(super) fn tokenise_13a(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for (from, to) in [("<skipped>", ""), ("-\n", ""), ("\n", " ")] {
        replace(&mut text, from, to);
    }
    if text.contains('&') {
        for (from, to) in [
            ("&quot;", "\""),
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
        ] {
            replace(&mut text, from, to);
        }
    }
    let mut padded = Vec::with_capacity(text.len() + 2);
    padded.push(b' ');
    padded.extend_from_slice(text.as_bytes());
    padded.push(b' ');
    separate(&padded)
}

/// sacreBLEU's `zh`: each Chinese character a word, the rest as in `13a` without its padding.
pub(super) fn tokenise_zh(text: &str) -> String {
    let mut spread = String::with_capacity(text.len() * 2);
    for c in trim(text).chars() {
        if is_chinese(c) {
            spread.extend([' ', c, ' ']);
        } else {
            spread.push(c);
        }
    }
    separate(spread.as_bytes())
}

/// What sacreBLEU takes for Chinese. Two of its ranges were meant for U+20000 to U+2A6D6 and
/// U+2F800 to U+2FA1D, but are written with escapes of four digits and compare as strings: the
/// first then holds everything from U+2001 to before U+2A6E, such as “ and →, the second U+2F81 to
/// before U+2FA2. The number is only the same with the same mistake.
fn is_chinese(c: char) -> bool {
    let ranges = [
        ('\u{2001}', '\u{2a6d}'),
        ('\u{2e80}', '\u{2fdf}'),
        ('\u{2ff0}', '\u{303f}'),
        ('\u{3100}', '\u{312f}'),
        ('\u{31a0}', '\u{31bf}'),
        ('\u{31c0}', '\u{31ef}'),
        ('\u{3200}', '\u{4db5}'),
        ('\u{4e00}', '\u{9fbb}'),
        ('\u{f900}', '\u{fa2d}'),
        ('\u{fa30}', '\u{fa6a}'),
        ('\u{fa70}', '\u{fad9}'),
        ('\u{fe10}', '\u{fe1f}'),
        ('\u{fe30}', '\u{fe4f}'),
        ('\u{ff00}', '\u{ffef}'),
    ];
    // Most text is below all of them.
    c >= '\u{2001}' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c))
}

fn replace(text: &mut Cow<'_, str>, from: &str, to: &str) {
    if text.contains(from) {
        *text = Cow::Owned(text.replace(from, to));
    }
}

fn separate(text: &[u8]) -> String {
    let mut one = Vec::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(at) = rest
        .iter()
        .position(|byte| STANDS_ALONE[usize::from(*byte)])
    {
        one.extend_from_slice(&rest[..at]);
        one.extend_from_slice(&[b' ', rest[at], b' ']);
        rest = &rest[at + 1..];
    }
    one.extend_from_slice(rest);
    let mut two = Vec::with_capacity(one.len() + 16);
    // Full stop and comma unless after a digit.
    let stop = |text: &[u8]| memchr2(b'.', b',', text);
    pairs(
        &one,
        &mut two,
        |rest| stop(rest.get(1..)?),
        |a, _| !a.is_ascii_digit(),
        |a, b| [a, b' ', b, b' '],
    );
    one.clear();
    // Full stop and comma unless before a digit.
    pairs(
        &two,
        &mut one,
        stop,
        |_, b| !b.is_ascii_digit(),
        |a, b| [b' ', a, b' ', b],
    );
    two.clear();
    // A dash after a digit.
    pairs(
        &one,
        &mut two,
        |rest| memchr(b'-', rest.get(1..)?),
        |a, _| a.is_ascii_digit(),
        |a, b| [a, b' ', b, b' '],
    );
    String::from_utf8(two).unwrap_or_default()
}

/// Rewrites each pair of neighbours that fits, left to right; a rewritten pair is used up.
/// `next` says how far the next pair is that may fit.
fn pairs(
    text: &[u8],
    out: &mut Vec<u8>,
    next: impl Fn(&[u8]) -> Option<usize>,
    fits: impl Fn(u8, u8) -> bool,
    rewritten: impl Fn(u8, u8) -> [u8; 4],
) {
    let mut rest = text;
    while let Some(at) = next(rest) {
        let [a, b, ..] = rest[at..] else {
            break;
        };
        out.extend_from_slice(&rest[..at]);
        if fits(a, b) {
            out.extend_from_slice(&rewritten(a, b));
            rest = &rest[at + 2..];
        } else {
            out.push(a);
            rest = &rest[at + 1..];
        }
    }
    out.extend_from_slice(rest);
}

/// ASCII punctuation but for the apostrophe, the comma, the dash and the full stop; and the space.
const fn stands_alone(byte: u8) -> bool {
    matches!(byte, b' '..=b'&' | b'('..=b'+' | b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=b'~')
}

/// [`stands_alone`] for every byte.
const STANDS_ALONE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = stands_alone(byte as u8);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::normalise::collapse_whitespace;

    fn check(tokenise: fn(&str) -> String, text: &str, expected: &str) {
        assert_eq!(collapse_whitespace(&tokenise(text)), expected, "{text:?}");
    }

    #[test]
    fn thirteen_a() {
        check(
            tokenise_13a,
            "It's $1,000.50 (net).",
            "It's $ 1,000.50 ( net ) .",
        );
        check(tokenise_13a, "a..b 3-4 x-y 1.", "a . . b 3 - 4 x-y 1 .");
        check(
            tokenise_13a,
            "&lt;b&gt; &amp;quot; <skipped>end",
            "< b > & quot ; end",
        );
        check(tokenise_13a, "", "");
    }

    #[test]
    fn chinese_with_its_mistake() {
        check(tokenise_zh, "我爱Rust。", "我 爱 Rust 。");
        check(
            tokenise_zh,
            "a\u{201c}b\u{201d}c",
            "a \u{201c} b \u{201d} c",
        );
        check(tokenise_zh, "a\u{2001}b \u{20000}", "a b \u{20000}");
    }
}
