//! sacreBLEU's `intl` (mteval-v14): punctuation and symbols of any script stand alone, except
//! punctuation between two numbers. The classes are Unicode's P, S and N as `regex-syntax` has them;
//! a character younger than the Unicode version of either side may be classed differently.

use std::sync::LazyLock;

/// Words and punctuation separated by white space.
pub(super) fn tokenise_intl(text: &str) -> String {
    let one = pairs(
        text,
        |a, b| !is_number(a) && is_punctuation(b),
        |out, a, b| {
            out.extend([a, ' ', b, ' ']);
        },
    );
    let two = pairs(
        &one,
        |a, b| is_punctuation(a) && !is_number(b),
        |out, a, b| {
            out.extend([' ', a, ' ', b]);
        },
    );
    let mut three = String::with_capacity(two.len() + 16);
    for c in two.chars() {
        if is_symbol(c) {
            three.extend([' ', c, ' ']);
        } else {
            three.push(c);
        }
    }
    three
}

/// Unicode's general category P.
pub(crate) fn is_punctuation(c: char) -> bool {
    PUNCTUATION.contains(c)
}

fn is_symbol(c: char) -> bool {
    SYMBOLS.contains(c)
}

fn is_number(c: char) -> bool {
    NUMBERS.contains(c)
}

fn pairs(
    text: &str,
    fits: impl Fn(char, char) -> bool,
    write: impl Fn(&mut String, char, char),
) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match characters.peek() {
            Some(&next) if fits(c, next) => {
                write(&mut out, c, next);
                characters.next();
            }
            _ => out.push(c),
        }
    }
    out
}

static PUNCTUATION: LazyLock<Class> = LazyLock::new(|| Class::new(r"\p{P}"));
static SYMBOLS: LazyLock<Class> = LazyLock::new(|| Class::new(r"\p{S}"));
static NUMBERS: LazyLock<Class> = LazyLock::new(|| Class::new(r"\p{N}"));

/// A set of characters: one bit per ASCII character, ranges for the rest.
struct Class {
    ascii: u128,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn new(pattern: &str) -> Class {
        let ranges = match regex_syntax::parse(pattern).map(|hir| hir.into_kind()) {
            Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                class
                    .iter()
                    .map(|range| (range.start(), range.end()))
                    .collect()
            }
            // The three patterns above are classes; a test would fail on the first character.
            _ => Vec::new(),
        };
        let mut class = Class { ascii: 0, ranges };
        for byte in 0..128_u8 {
            if class.find(char::from(byte)) {
                class.ascii |= 1 << byte;
            }
        }
        class
    }

    fn find(&self, c: char) -> bool {
        let after = self.ranges.partition_point(|(from, _)| *from <= c);
        after > 0 && c <= self.ranges[after - 1].1
    }

    fn contains(&self, c: char) -> bool {
        if c.is_ascii() {
            self.ascii >> u32::from(c) & 1 == 1
        } else {
            self.find(c)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::normalise::collapse_whitespace;

    #[test]
    fn international() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                collapse_whitespace(&tokenise_intl(text)),
                expected,
                "{text:?}"
            );
        };
        check(
            "1,000 and 1.5%: 「東京」だ。",
            "1,000 and 1.5 % : 「 東京 」 だ 。",
        );
        check("year 2026.", "year 2026.");
        check("a+b £3 don't", "a + b £ 3 don ' t");
        check("", "");
    }
}
