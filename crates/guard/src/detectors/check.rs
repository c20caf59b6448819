//! For tests: the plainest scanner there is, to try one detector on a text. Tries every position
//! and takes the longest match; what the engine does in a stream must come to the same.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, MatchKind};
use unicode_normalization::UnicodeNormalization;

use super::{BEFORE_CHARS, Candidate, Detector, View, text};

/// Text of a view, and which bytes of the original each of its bytes came from.
fn view_of(text: &str, view: View) -> (String, Vec<Range<usize>>) {
    let (mut out, mut spans) = (String::new(), Vec::new());
    for (at, c) in text.char_indices() {
        let span = at..at + c.len_utf8();
        let read = match view {
            View::Raw => c.to_string(),
            _ if base::text::is_deceptive(c) => String::new(),
            View::Plain => c.nfkc().collect::<String>().to_lowercase(),
            View::Digits => c.nfkc().map(ascii_digit).collect(),
        };
        spans.extend(std::iter::repeat_n(span, read.len()));
        out.push_str(&read);
    }
    (out, spans)
}

fn ascii_digit(c: char) -> char {
    match "〇一二三四五六七八九".chars().position(|digit| digit == c) {
        Some(value) => char::from(b'0' + value as u8),
        None => c,
    }
}

static REGEXES: LazyLock<Mutex<HashMap<&'static str, Regex>>> = LazyLock::new(Mutex::default);

fn regex_of(detector: &'static Detector) -> Regex {
    let mut regexes = REGEXES.lock().unwrap();
    let regex = regexes.entry(detector.name).or_insert_with(|| {
        Regex::builder()
            .configure(Regex::config().match_kind(MatchKind::All))
            .build_many(detector.patterns)
            .unwrap()
    });
    regex.clone()
}

/// Where a detector finds something, in bytes of the original.
pub(crate) fn find(detector: &'static Detector, original: &str) -> Vec<Range<usize>> {
    let (text, spans) = view_of(original, detector.view);
    let regex = regex_of(detector);
    let (mut found, mut taken) = (Vec::new(), 0);
    for (at, _) in text.char_indices() {
        let inside_word = text[..at].chars().next_back().is_some_and(text::is_word);
        if at < taken || detector.at_word && inside_word {
            continue;
        }
        let cut = text[at..].char_indices().nth(detector.max_chars);
        let limit = cut.map_or(text.len(), |(chars, _)| at + chars);
        let input = Input::new(&text).anchored(Anchored::Yes).range(at..limit);
        let Some(end) = regex.search_half(&input).map(|half| half.offset()) else {
            continue;
        };
        let candidate = Candidate {
            text: &text[at..end],
            before: text::last_chars(&text[..at], BEFORE_CHARS),
            after: text[end..].chars().next(),
        };
        if let Some(verdict) = (detector.validate)(&candidate) {
            taken = at + verdict.len;
            found.push(spans[at].start..spans[taken - 1].end);
        }
    }
    found
}

/// Checks a table: each text has the spans to be found between ⟦ and ⟧.
#[track_caller]
pub(crate) fn check(detector: &'static Detector, marked: &str) {
    let text = marked.replace(['⟦', '⟧'], "");
    let mut shown = String::new();
    let mut at = 0;
    for span in find(detector, &text) {
        shown += &format!("{}⟦{}⟧", &text[at..span.start], &text[span.clone()]);
        at = span.end;
    }
    shown += &text[at..];
    assert_eq!(shown, marked, "{}", detector.name);
}
