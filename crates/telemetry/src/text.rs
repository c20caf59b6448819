//! Words for full-text search, previews, and the folding that both searches
//! share.
//!
//! SQLite's `unicode61` holds a whole run of Japanese as one token, so an inner
//! word would find nothing. Runs of CJK characters are therefore written as
//! overlapping pairs (東京都 → 東京 京都 都) and searched as a phrase of pairs;
//! the last character stands alone so that one character is found everywhere.

use serde_json::Value;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

use crate::limits;

/// Compatibility form in lower case: `Ａ`, `A` and `a` are alike, so are `ｶﾞ` and `ガ`.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else if is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        text.to_lowercase()
    } else {
        text.nfkc().collect::<String>().to_lowercase()
    }
}

fn is_cjk(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}' | '\u{3031}'..='\u{3035}' | '\u{303b}'..='\u{303c}'
        | '\u{3041}'..='\u{30ff}' | '\u{3105}'..='\u{312f}' | '\u{3131}'..='\u{318e}' | '\u{31a0}'..='\u{31bf}'
        | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3fffd}')
        && c.is_alphanumeric()
}

/// Runs of letters and digits of a folded text, CJK and other apart.
fn runs(folded: &str) -> Vec<(bool, &str)> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut current = None;
    for (at, c) in folded.char_indices().chain([(folded.len(), ' ')]) {
        let kind = c.is_alphanumeric().then(|| is_cjk(c));
        if kind != current {
            if let Some(cjk) = current {
                runs.push((cjk, &folded[start..at]));
            }
            start = at;
            current = kind;
        }
    }
    runs
}

fn pairs(run: &str) -> Vec<&str> {
    let cuts: Vec<usize> = run
        .char_indices()
        .map(|(at, _)| at)
        .chain([run.len()])
        .collect();
    cuts.windows(3).map(|cut| &run[cut[0]..cut[2]]).collect()
}

/// A text as it is written into the full-text index.
pub(crate) fn index_words(text: &str) -> String {
    let folded = fold(base::text::cut_bytes(text, limits::INDEXED_BYTES));
    let mut out = String::with_capacity(folded.len() * 2);
    for (cjk, run) in runs(&folded) {
        if cjk {
            for pair in pairs(run) {
                out.push_str(pair);
                out.push(' ');
            }
            out.extend(run.chars().next_back());
        } else {
            out.push_str(run);
        }
        out.push(' ');
    }
    out
}

/// What to MATCH for the words that a person typed, all of them required;
/// `None` when there is no letter or digit to look for. Quotes ask for words in
/// this order, a `*` after a word for its beginning.
pub(crate) fn match_query(typed: &str) -> Option<String> {
    let mut phrases = Vec::new();
    for (index, part) in typed.split(['"', '“', '”', '「', '」']).enumerate() {
        let in_quotes = index % 2 == 1;
        if in_quotes {
            phrases.extend(phrase(part));
        } else {
            phrases.extend(part.split_whitespace().flat_map(term));
        }
    }
    (!phrases.is_empty()).then(|| phrases.join(" AND "))
}

fn term(word: &str) -> Vec<String> {
    let folded = fold(word);
    let begins = folded.ends_with('*');
    let mut out: Vec<String> = Vec::new();
    let found = runs(&folded);
    for (index, (cjk, run)) in found.iter().enumerate() {
        let prefix = begins && index + 1 == found.len();
        out.push(if *cjk {
            cjk_phrase(run)
        } else {
            format!("\"{run}\"{}", if prefix { " *" } else { "" })
        });
    }
    out
}

/// Words in their order. Where CJK and other runs meet, the order is not held.
fn phrase(text: &str) -> Vec<String> {
    let folded = fold(text);
    let mut out = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for (cjk, run) in runs(&folded) {
        if cjk {
            if !words.is_empty() {
                out.push(format!("\"{}\"", std::mem::take(&mut words).join(" ")));
            }
            out.push(cjk_phrase(run));
        } else {
            words.push(run);
        }
    }
    if !words.is_empty() {
        out.push(format!("\"{}\"", words.join(" ")));
    }
    out
}

fn cjk_phrase(run: &str) -> String {
    let pairs = pairs(run);
    if pairs.is_empty() {
        format!("\"{run}\" *")
    } else {
        format!("\"{}\"", pairs.join(" "))
    }
}

/// Every text in a message, for the index: contents, tool arguments, nested
/// parts. Keys, embedded files and the names of roles and types are not text.
pub(crate) fn collect_text(value: &Value, out: &mut String) {
    if out.len() >= limits::INDEXED_BYTES {
        return;
    }
    match value {
        Value::String(text) if !text.starts_with("data:") => {
            out.push_str(base::text::cut_bytes(
                text,
                limits::INDEXED_BYTES - out.len(),
            ));
            out.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| collect_text(item, out)),
        Value::Object(map) => {
            let texts = map
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "role" | "type" | "id" | "data"));
            texts.for_each(|(_, item)| collect_text(item, out));
        }
        _ => {}
    }
}

/// The preview of what the operation was asked: the last user message.
pub(crate) fn input_preview(messages: &[Value]) -> String {
    let user = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user");
    preview(user.or(messages.last()))
}

/// The preview of what it answered.
pub(crate) fn output_preview(messages: &[Value]) -> String {
    preview(messages.first())
}

fn preview(message: Option<&Value>) -> String {
    let Some(message) = message else {
        return String::new();
    };
    let content = match message.get("content") {
        None | Some(Value::Null) => message,
        Some(content) => content,
    };
    let mut text = String::new();
    collect_text(content, &mut text);
    let text = text.trim().replace('\0', "\u{fffd}");
    // A grapheme can be arbitrarily long; the byte bound keeps the row small.
    base::text::preview(
        base::text::cut_bytes(&text, limits::PREVIEW_GRAPHEMES * 32),
        limits::PREVIEW_GRAPHEMES,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn japanese_is_indexed_in_pairs_and_searched_as_a_phrase() {
        assert_eq!(index_words("東京都へ Go!"), "東京 京都 都へ へ go ");
        assert_eq!(match_query("京都").unwrap(), "\"京都\"");
        assert_eq!(
            match_query("東京都 go").unwrap(),
            "\"東京 京都\" AND \"go\""
        );
        assert_eq!(match_query("都").unwrap(), "\"都\" *");
        assert_eq!(
            match_query("\"Hello World\" NEAR(").unwrap(),
            "\"hello world\" AND \"near\""
        );
        assert_eq!(match_query("foo* ＡＢＣ").unwrap(), "\"foo\" * AND \"abc\"");
        assert_eq!(match_query(" !?() "), None);
    }

    #[test]
    fn previews_show_the_question_and_the_answer() {
        let messages = serde_json::json!([
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "なぜ？"}, {"type": "image_url", "image_url": {"url": "data:xx"}}]},
        ]);
        assert_eq!(input_preview(messages.as_array().unwrap()), "なぜ？");
        assert_eq!(
            output_preview(&[serde_json::json!({"role": "assistant", "content": "a".repeat(300)})])
                .chars()
                .count(),
            201
        );
        assert_eq!(output_preview(&[]), "");
    }
}
