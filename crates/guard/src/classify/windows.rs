//! Where a long text is cut for a classifier: windows of two sentences, each sentence in two
//! windows. One instruction in a long letter is lost in the average of the letter, and is not in
//! that of its two sentences. The cuts follow from the text alone.

use std::ops::Range;

/// No window has more characters, unless asked for.
pub const MAX_CHARS: usize = 400;
/// A shorter piece (a heading, a list item, "Yes.") goes with the next.
const MIN_CHARS: usize = 24;

/// Byte ranges of the windows of `text`, in order. A text of one or two sentences is one window;
/// a blank text has none.
pub fn windows(text: &str) -> Vec<Range<usize>> {
    let sentences = sentences(text);
    if sentences.len() < 2 {
        return sentences
            .into_iter()
            .map(|sentence| sentence.range)
            .collect();
    }
    let mut out: Vec<Range<usize>> = Vec::with_capacity(sentences.len());
    for pair in sentences.windows(2) {
        if pair[0].chars + pair[1].chars <= MAX_CHARS {
            out.push(pair[0].range.start..pair[1].range.end);
        } else {
            out.push(pair[0].range.clone());
            out.push(pair[1].range.clone());
        }
    }
    out.dedup();
    out
}

struct Sentence {
    range: Range<usize>,
    chars: usize,
}

fn sentences(text: &str) -> Vec<Sentence> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut chars = 0;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        chars += 1;
        let end = at + c.len_utf8();
        let next = rest.peek().map(|(_, next)| *next);
        let full = chars >= MAX_CHARS / 2 && c.is_whitespace() || chars >= MAX_CHARS - 100;
        if full || (chars >= MIN_CHARS && ends_sentence(c, next)) {
            push(text, start..end, chars, &mut out);
            start = end;
            chars = 0;
        }
    }
    push(text, start..text.len(), chars, &mut out);
    out
}

fn push(text: &str, range: Range<usize>, chars: usize, out: &mut Vec<Sentence>) {
    if !text[range.clone()].trim().is_empty() {
        out.push(Sentence { range, chars });
    }
}

fn ends_sentence(c: char, next: Option<char>) -> bool {
    match c {
        '。' | '！' | '？' | '\n' | '．' => true,
        '.' | '!' | '?' | ';' => next.is_none_or(char::is_whitespace),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        windows(text)
            .into_iter()
            .map(|range| &text[range])
            .collect()
    }

    #[test]
    fn sentences_are_paired() {
        let text = "The first sentence stands here. The second sentence follows it. \
                    And here is the third one of them.";
        assert_eq!(
            cut(text),
            [
                "The first sentence stands here. The second sentence follows it.",
                " The second sentence follows it. And here is the third one of them.",
            ]
        );
        assert_eq!(
            cut("一文だけの短いテキスト。"),
            ["一文だけの短いテキスト。"]
        );
        assert!(cut("  \n ").is_empty());
    }

    #[test]
    fn every_character_is_in_a_window_and_none_is_too_long() {
        for text in [
            "x".repeat(5000),
            "あ".repeat(3000),
            "word ".repeat(900),
            "a. b! ".repeat(300),
        ] {
            let found = windows(&text);
            let mut covered = 0;
            for range in &found {
                assert!(range.start <= covered && range.end >= covered);
                covered = range.end;
                assert!(text[range.clone()].chars().count() <= MAX_CHARS);
            }
            assert!(text[covered..].trim().is_empty());
        }
    }
}
