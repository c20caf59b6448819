//! Rules for text that people did not write: shortening, terminals, hidden characters.

use unicode_segmentation::UnicodeSegmentation;

/// The first `graphemes` user-perceived characters, with `…` when something was
/// cut. Never splits a character that people see as one.
pub fn preview(text: &str, graphemes: usize) -> String {
    // A grapheme is at least one byte, so short texts need no segmentation.
    if text.len() <= graphemes {
        return text.to_owned();
    }
    let mut cuts = text
        .grapheme_indices(true)
        .map(|(at, _)| at)
        .skip(graphemes);
    match cuts.next() {
        Some(at) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The longest prefix of at most `bytes` bytes that ends between characters.
pub fn cut_bytes(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether a character can hide, reorder or forge what people see: C0/C1
/// controls (not tab and newline), zero-width, bidirectional and Unicode-tag
/// characters.
pub fn is_deceptive(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        c if c.is_control() => true,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => true,
        '\u{feff}' | '\u{061c}' | '\u{180e}' | '\u{00ad}' => true,
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Text that is safe to print on a terminal or a page: deceptive characters
/// appear as `\u{…}` escapes instead of acting. The zero-width joiner stays
/// inside emoji sequences, where it is part of what people see.
pub fn reveal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut previous = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let joins =
            c == '\u{200d}' && is_emoji(previous) && chars.peek().copied().is_some_and(is_emoji);
        let windows_newline = c == '\r' && chars.peek() == Some(&'\n');
        if windows_newline {
            continue;
        }
        if is_deceptive(c) && !joins {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        previous = c;
    }
    out
}

fn is_emoji(c: char) -> bool {
    matches!(c, '\u{2190}'..='\u{2bff}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previews_count_what_people_see() {
        assert_eq!(preview("abc", 3), "abc");
        assert_eq!(preview("がぎぐ", 2), "がぎ…");
        assert_eq!(preview("👩‍👩‍👧‍👦x", 1), "👩‍👩‍👧‍👦…");
        assert_eq!(cut_bytes("日本", 4), "日");
    }

    #[test]
    fn nothing_hides() {
        assert_eq!(reveal("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(reveal("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(reveal("👩‍👧\r\n\tok"), "👩‍👧\n\tok");
        assert_eq!(reveal("\u{e0041}"), "\\u{e0041}");
    }
}
