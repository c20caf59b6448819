//! Small questions about characters and about what stands before a candidate.

/// A letter or digit of ASCII, or an underscore: what a name in a program is made of.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// A Chinese character, as Japanese uses them in words and names.
pub(super) fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '々' | '〆' | 'ヶ')
}

/// Hiragana.
pub(super) fn is_hiragana(c: char) -> bool {
    matches!(c, 'ぁ'..='ゖ')
}

/// Katakana, with the mark that lengthens a vowel.
pub(super) fn is_katakana(c: char) -> bool {
    matches!(c, 'ァ'..='ヺ' | 'ー')
}

/// A hyphen or what people type for one between digits.
pub(super) fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | 'ー' | '─' | '━' | '\u{fe63}' | '\u{ff0d}' | '\u{ff70}'
    )
}

/// What stands before a candidate, in lower case, asked from its end.
pub(super) struct Tail<'a> {
    before: &'a str,
}

impl<'a> Tail<'a> {
    pub(super) fn of(before: &'a str) -> Self {
        Self { before }
    }

    /// Whether one of the words stands in the last `chars` characters. Words are in lower case.
    pub(super) fn has(&self, chars: usize, words: &[&str]) -> bool {
        let near = last_chars(self.before, chars).to_lowercase();
        words.iter().any(|word| has_word(&near, word))
    }

    /// What is left before the candidate when the marks between a label and its value are gone.
    pub(super) fn label(&self) -> &'a str {
        self.before.trim_end_matches(|c: char| {
            c.is_whitespace()
                || matches!(
                    c,
                    ':' | '：'
                        | '='
                        | '"'
                        | '\''
                        | '`'
                        | '('
                        | '（'
                        | '「'
                        | '・'
                        | '|'
                        | '】'
                        | ']'
                        | '>'
                        | '*'
                        | '#'
                )
        })
    }

    /// Whether the label right before the candidate ends in one of the words.
    pub(super) fn label_ends(&self, words: &[&str]) -> bool {
        let label = last_chars(self.label(), 32).to_lowercase();
        words.iter().any(|word| {
            label.ends_with(word) && starts_a_word(&label, label.len() - word.len(), word)
        })
    }
}

/// Whether a word stands in a text. One that begins with a letter of ASCII counts only where a
/// word begins: `tel` is not in `hotel`.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| starts_a_word(text, at, word))
}

fn starts_a_word(text: &str, at: usize, word: &str) -> bool {
    let inside = text[..at]
        .chars()
        .next_back()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    !inside || !word.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// The last `chars` characters of a text.
pub(super) fn last_chars(text: &str, chars: usize) -> &str {
    match text.char_indices().rev().nth(chars.saturating_sub(1)) {
        Some((at, _)) if chars > 0 => &text[at..],
        Some(_) => "",
        None => text,
    }
}

/// The ASCII digits of a text, as numbers.
pub(super) fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Words that say that a number is something else than personal: an order, a product, a moment.
const OTHER_NUMBERS: &[&str] = &[
    "注文",
    "伝票",
    "追跡",
    "問い合わせ番号",
    "受付番号",
    "会員番号",
    "商品",
    "品番",
    "型番",
    "管理番号",
    "取引",
    "製造番号",
    "シリアル",
    "チケット",
    "予約番号",
    "整理番号",
    "案件",
    "order",
    "tracking",
    "sku",
    "jan code",
    "janコード",
    "バーコード",
    "isbn",
    "ean-13",
    "upc",
    "serial",
    "ticket",
    "transaction",
    "timestamp",
    "product",
    "part no",
    "reference",
    "invoice no",
    "commit",
    "build",
    "arn:",
    "account id",
    "batch",
    "lot no",
    "lot #",
    "ロット",
    "model no",
    "version",
    "shipment",
    "case no",
    "request id",
    "trace",
];

/// Whether what stands before says that a number is something else than personal.
pub(super) fn is_other_number(found: &super::Candidate<'_>) -> bool {
    found.tail().has(20, OTHER_NUMBERS)
}
