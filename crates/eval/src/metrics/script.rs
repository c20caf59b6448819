//! When a tokeniser cannot read a script. A score over no tokens is 0 whatever the answer is, and a
//! score over one token per Japanese sentence is nearly so; the first is unscored, the second is
//! printed with a warning, because `compat:` must still be the other program's number.

use super::Item;
use crate::text::{Tokeniser, split};

/// Whether words of this text mostly have no spaces between them: Chinese, Japanese, Thai, Lao,
/// Khmer, Burmese.
pub(super) fn without_spaces(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let (mut letters, mut joined) = (0_usize, 0_usize);
    for c in text.chars().filter(|c| c.is_alphabetic()).take(2_000) {
        letters += 1;
        joined += usize::from(is_joined(c));
    }
    joined * 10 > letters * 3
}

fn is_joined(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{323af}')
}

/// Why a score with this tokeniser may mislead for these references.
pub(super) fn warning(tokeniser: &Tokeniser, references: &[String]) -> Option<String> {
    let fits = match tokeniser {
        Tokeniser::Sacre13a | Tokeniser::Intl | Tokeniser::None => {
            !references.iter().any(|text| without_spaces(text))
        }
        Tokeniser::Ascii { .. } => !references.iter().any(|text| mostly_foreign(text)),
        _ => true,
    };
    (!fits).then(|| {
        format!(
            "the tokeniser {} does not find the words of this text; see ja-mecab, zh and char",
            tokeniser.name()
        )
    })
}

/// Whether more than three letters in ten are not of the Latin alphabet without accents.
fn mostly_foreign(text: &str) -> bool {
    let (mut letters, mut foreign) = (0_usize, 0_usize);
    for c in text.chars().filter(|c| c.is_alphabetic()).take(2_000) {
        letters += 1;
        foreign += usize::from(!c.is_ascii());
    }
    foreign * 10 > letters * 3
}

/// Refuses what cannot be scored: references that are all empty, or a side that has text but no
/// tokens. An answer that is empty can be scored: it is worth nothing.
pub(super) fn check_tokens(tokeniser: &Tokeniser, item: &Item<'_>) -> Result<(), String> {
    if item.expected.is_empty() {
        return Err("the example has no expected answer".to_owned());
    }
    let blank = |text: &str| split(text).next().is_none();
    if item.expected.iter().all(|text| blank(text)) {
        return Err("the expected answer is empty".to_owned());
    }
    if !may_lose_text(tokeniser) {
        return Ok(());
    }
    let no_tokens = |text: &str| {
        tokeniser
            .line(text)
            .is_ok_and(|line| split(&line).next().is_none())
    };
    if item.expected.iter().all(|text| no_tokens(text)) {
        return Err(format!(
            "the tokeniser {} finds no words in the expected answer",
            tokeniser.name()
        ));
    }
    if !blank(item.output) && no_tokens(item.output) {
        return Err(format!(
            "the tokeniser {} finds no words in the answer",
            tokeniser.name()
        ));
    }
    Ok(())
}

/// Whether a text that is not blank may have no tokens.
fn may_lose_text(tokeniser: &Tokeniser) -> bool {
    match tokeniser {
        Tokeniser::Ascii { .. } | Tokeniser::UnicodeWord | Tokeniser::Sacre13a => true,
        Tokeniser::None
        | Tokeniser::Char
        | Tokeniser::Intl
        | Tokeniser::Zh
        | Tokeniser::JaMecab(_) => false,
    }
}
