//! Lengths of a text in every unit that somebody may mean by "length".

use std::collections::HashSet;

use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation;

/// How long a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TextStatistics {
    /// UTF-8 bytes.
    pub bytes: usize,
    /// Unicode code points, as Python's `len` counts.
    pub characters: usize,
    /// What a reader sees as one character.
    pub graphemes: usize,
    /// By Unicode's word boundaries; Japanese counts higher than a dictionary would.
    pub words: usize,
    /// Different words, after lower-casing.
    pub unique_words: usize,
    /// By Unicode's sentence boundaries.
    pub sentences: usize,
    /// Lines with anything in them.
    pub lines: usize,
}

/// The sentences of a text, by Unicode's boundaries, without the white space around them.
pub fn sentences(text: &str) -> Vec<String> {
    let sentences = text.unicode_sentences().map(str::trim);
    let full = sentences.filter(|sentence| !sentence.is_empty());
    full.map(str::to_owned).collect()
}

/// Counts everything at once.
pub fn text_statistics(text: &str) -> TextStatistics {
    let mut unique = HashSet::new();
    let mut words = 0;
    for word in text.unicode_words() {
        words += 1;
        unique.insert(word.to_lowercase());
    }
    TextStatistics {
        bytes: text.len(),
        characters: text.chars().count(),
        graphemes: text.graphemes(true).count(),
        words,
        unique_words: unique.len(),
        sentences: text.unicode_sentences().count(),
        lines: text.lines().filter(|line| !line.trim().is_empty()).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let statistics = text_statistics("The cat. The 👩‍👩‍👧 dog!\n\nEnd");
        assert_eq!(statistics.words, 5);
        assert_eq!(statistics.unique_words, 4);
        assert_eq!(statistics.sentences, 3);
        assert_eq!(statistics.lines, 2);
        assert_eq!(statistics.characters - statistics.graphemes, 4);
        assert_eq!(text_statistics("猫です。犬です。").sentences, 2);
        assert_eq!(text_statistics(""), TextStatistics::default());
    }
}
