//! Unicode form and whitespace. The surprising thing: [`is_space`] is Python's set, not Rust's.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// Whether Python's `str.split()` separates words here. Unicode's white space and the four
/// information separators, which Unicode does not count.
pub fn is_space(c: char) -> bool {
    match c {
        '\t'..='\r' | '\u{1c}'..='\u{1f}' | ' ' => true,
        c => !c.is_ascii() && c.is_whitespace(),
    }
}

/// Words between white space, as Python's `str.split()` gives them: no empty ones.
pub fn split(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Without white space at both ends, as Python's `str.strip()`.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Without white space at the end, as Python's `str.rstrip()`.
pub fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// Every run of white space as one space, none at the ends.
pub fn collapse_whitespace(text: &str) -> String {
    join(split(text))
}

/// Unicode's compatibility form: full-width letters become ASCII, half-width kana become kana.
pub fn nfkc(text: &str) -> Cow<'_, str> {
    match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    }
}

/// Words with one space between them.
pub(crate) fn join<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_is_pythons() {
        let words: Vec<_> = split(" a\u{1c}b\u{85}c\u{3000}d\u{200b}e\n").collect();
        assert_eq!(words, ["a", "b", "c", "d\u{200b}e"]);
        assert_eq!(collapse_whitespace("\u{1f} a \t b\u{a0}"), "a b");
        assert_eq!(trim_end("a \u{1d}"), "a");
        assert_eq!(split("").count(), 0);
    }

    #[test]
    fn compatibility_form() {
        assert_eq!(nfkc("ＡＢｶﾞ①"), "ABガ1");
        assert!(matches!(nfkc("plain"), Cow::Borrowed(_)));
    }
}
