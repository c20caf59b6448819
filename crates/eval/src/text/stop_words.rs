//! Words that say little about what a text is about. Two short lists of our own making: the closed
//! word classes of English, and Japanese particles, auxiliaries and the emptiest verbs and nouns as
//! IPADIC cuts them. Not any other program's list; results with another list differ.

/// A list of words to drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopWords {
    /// English.
    En,
    /// Japanese, for text that `ja-mecab` has cut.
    Ja,
    /// The caller's own, compared after lower-casing.
    Words(Vec<String>),
}

impl StopWords {
    /// Whether a word is on the list, in whatever case.
    pub fn contains(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        match self {
            StopWords::En => ENGLISH.contains(&word.as_str()),
            StopWords::Ja => JAPANESE.contains(&word.as_str()),
            StopWords::Words(words) => words.iter().any(|stop| stop.to_lowercase() == word),
        }
    }
}

/// The built-in list of a language (`en`, `ja`).
pub fn stop_words(language: &str) -> Option<&'static [&'static str]> {
    match language {
        "en" => Some(ENGLISH),
        "ja" => Some(JAPANESE),
        _ => None,
    }
}

#[rustfmt::skip]
const ENGLISH: &[&str] = &[
    // articles, demonstratives, quantifiers
    "a", "an", "the", "this", "that", "these", "those", "all", "any", "both", "each", "every",
    "either", "neither", "few", "many", "more", "most", "much", "no", "other", "another", "some",
    "such", "own", "same",
    // pronouns and possessives
    "i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves", "you", "your",
    "yours", "yourself", "yourselves", "he", "him", "his", "himself", "she", "her", "hers",
    "herself", "it", "its", "itself", "they", "them", "their", "theirs", "themselves", "one",
    "who", "whom", "whose", "which", "what",
    // auxiliaries
    "am", "is", "are", "was", "were", "be", "been", "being", "have", "has", "had", "having", "do",
    "does", "did", "doing", "will", "would", "shall", "should", "can", "could", "may", "might",
    "must", "ought",
    // prepositions
    "about", "above", "across", "after", "against", "along", "among", "around", "at", "before",
    "behind", "below", "beneath", "beside", "between", "beyond", "by", "down", "during", "for",
    "from", "in", "inside", "into", "near", "of", "off", "on", "onto", "out", "outside", "over",
    "past", "since", "through", "throughout", "to", "toward", "towards", "under", "until", "up",
    "upon", "with", "within", "without",
    // conjunctions
    "and", "or", "but", "nor", "so", "yet", "if", "because", "as", "while", "although", "though",
    "unless", "whereas", "whether", "than",
    // adverbs of little content
    "not", "only", "too", "very", "also", "again", "then", "there", "here", "when", "where", "why",
    "how", "just", "now", "once", "further",
    // contractions, whole and as tokenisers leave them
    "i'm", "you're", "he's", "she's", "it's", "we're", "they're", "i've", "you've", "we've",
    "they've", "i'll", "you'll", "he'll", "she'll", "we'll", "they'll", "i'd", "you'd", "he'd",
    "she'd", "we'd", "they'd", "isn't", "aren't", "wasn't", "weren't", "don't", "doesn't",
    "didn't", "won't", "wouldn't", "shouldn't", "can't", "couldn't", "hasn't", "haven't", "hadn't",
    "that's", "there's", "what's", "let's", "'s", "'t", "'m", "'re", "'ve", "'ll", "'d", "n't",
];

#[rustfmt::skip]
const JAPANESE: &[&str] = &[
    // particles
    "は", "が", "を", "に", "へ", "と", "で", "も", "の", "や", "か", "ね", "よ", "な", "わ", "ぞ",
    "さ", "から", "まで", "より", "だけ", "しか", "ばかり", "ほど", "くらい", "ぐらい", "など",
    "なんか", "って", "とか", "なら", "ながら", "ので", "のに", "けど", "けれど", "けれども", "し",
    "て", "ば", "たり", "つつ", "でも", "さえ", "すら", "こそ", "という", "として", "について",
    "に対して", "によって", "により", "において", "に関する", "にとって",
    // auxiliaries
    "だ", "です", "ます", "た", "ない", "ん", "う", "よう", "らしい", "たい", "れる", "られる",
    "せる", "させる", "ぬ", "まい", "でし", "まし", "ませ", "だっ", "だろ", "でしょ", "なかっ",
    "なく", "べき",
    // verbs and nouns that carry no content of their own
    "する", "し", "さ", "せ", "すれ", "いる", "い", "ある", "あり", "あっ", "なる", "なり", "なっ",
    "できる", "でき", "こと", "もの", "ところ", "ため", "とき", "うち", "わけ", "はず", "ほう",
    // pronouns, demonstratives
    "これ", "それ", "あれ", "どれ", "ここ", "そこ", "あそこ", "どこ", "この", "その", "あの", "どの",
    "こう", "そう", "ああ", "どう", "私", "僕", "俺", "あなた", "彼", "彼女", "我々", "誰", "何",
    // conjunctions
    "また", "そして", "しかし", "だから", "それから", "それで", "ただし", "および", "または",
    "つまり", "なお", "さらに",
    // marks
    "、", "。", "「", "」", "・", "（", "）",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert!(StopWords::En.contains("The"));
        assert!(!StopWords::En.contains("cat"));
        assert!(StopWords::Ja.contains("です"));
        assert!(StopWords::Words(vec!["Foo".to_owned()]).contains("foo"));
        assert!(stop_words("fr").is_none());
    }
}
