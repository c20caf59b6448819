//! Tokenisers. Each turns a text into one line whose words stand between white space, as sacreBLEU
//! does; the words are that line, split. So a token never contains white space.

use std::borrow::Cow;
use std::sync::Arc;

use unicode_segmentation::UnicodeSegmentation;

use super::japanese::Japanese;
use super::normalise::{join, split};
use super::porter::PorterBuffer;
use super::{intl, sacre};

/// How a text becomes words.
#[derive(Clone, Debug)]
pub enum Tokeniser {
    /// Split at white space only.
    None,
    /// Each character a word.
    Char,
    /// mteval-v13a, sacreBLEU's default: for languages in Latin script.
    Sacre13a,
    /// mteval-v14: Unicode punctuation and symbols.
    Intl,
    /// sacreBLEU's Chinese, mistake included.
    Zh,
    /// MeCab's words with IPADIC; needs the dictionary.
    JaMecab(Option<Arc<Japanese>>),
    /// Words by Unicode's word boundaries (UAX 29), punctuation dropped; no dictionary, so
    /// Japanese kanji come one by one.
    UnicodeWord,
    /// rouge-score's: lower-cased runs of `[a-z0-9]`, optionally stemmed. Nothing of any other
    /// script remains.
    Ascii {
        /// Porter's stemmer on words of more than three letters.
        stem: bool,
    },
}

/// The tokeniser is `ja-mecab` and its dictionary is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the Japanese dictionary (IPADIC) is not installed; on the server, run: meguri data pull ja-dictionary"
)]
pub struct NoDictionary;

impl Tokeniser {
    /// Every name that [`Tokeniser::parse`] knows.
    pub const NAMES: [&str; 9] = [
        "13a",
        "intl",
        "char",
        "zh",
        "ja-mecab",
        "none",
        "unicode-word",
        "ascii",
        "ascii-stem",
    ];

    /// By name; `ja-mecab` still without its dictionary.
    pub fn parse(name: &str) -> Option<Tokeniser> {
        Some(match name {
            "none" => Tokeniser::None,
            "char" => Tokeniser::Char,
            "13a" => Tokeniser::Sacre13a,
            "intl" => Tokeniser::Intl,
            "zh" => Tokeniser::Zh,
            "ja-mecab" => Tokeniser::JaMecab(None),
            "unicode-word" => Tokeniser::UnicodeWord,
            "ascii" => Tokeniser::Ascii { stem: false },
            "ascii-stem" => Tokeniser::Ascii { stem: true },
            _ => return None,
        })
    }

    /// The name that [`Tokeniser::parse`] takes.
    pub fn name(&self) -> &'static str {
        match self {
            Tokeniser::None => "none",
            Tokeniser::Char => "char",
            Tokeniser::Sacre13a => "13a",
            Tokeniser::Intl => "intl",
            Tokeniser::Zh => "zh",
            Tokeniser::JaMecab(_) => "ja-mecab",
            Tokeniser::UnicodeWord => "unicode-word",
            Tokeniser::Ascii { stem: false } => "ascii",
            Tokeniser::Ascii { stem: true } => "ascii-stem",
        }
    }

    /// As it is printed in signatures: sacreBLEU names the version of MeCab and the dictionary.
    pub fn signature(&self) -> &'static str {
        match self {
            Tokeniser::JaMecab(_) => "ja-mecab-0.996-IPA",
            other => other.name(),
        }
    }

    /// Whether a dictionary is needed that has not been given.
    pub fn lacks_dictionary(&self) -> bool {
        matches!(self, Tokeniser::JaMecab(None))
    }

    /// The text as words between white space.
    pub fn line<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, NoDictionary> {
        Ok(match self {
            Tokeniser::None => Cow::Borrowed(text),
            Tokeniser::Char => Cow::Owned(spread(text)),
            Tokeniser::Sacre13a => Cow::Owned(sacre::tokenise_13a(text)),
            Tokeniser::Intl => Cow::Owned(intl::tokenise_intl(text)),
            Tokeniser::Zh => Cow::Owned(sacre::tokenise_zh(text)),
            Tokeniser::JaMecab(None) => return Err(NoDictionary),
            Tokeniser::JaMecab(Some(japanese)) => Cow::Owned(japanese.wakati(text)),
            Tokeniser::UnicodeWord => Cow::Owned(join(text.unicode_words())),
            Tokeniser::Ascii { stem } => Cow::Owned(ascii(text, *stem)),
        })
    }

    /// The words.
    pub fn tokens(&self, text: &str) -> Result<Vec<String>, NoDictionary> {
        Ok(split(&self.line(text)?).map(str::to_owned).collect())
    }
}

fn spread(text: &str) -> String {
    let mut line = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        line.push(c);
        line.push(' ');
    }
    line
}

/// Lower-cased runs of `[a-z0-9]`. Some characters outside ASCII become ASCII when they are
/// lower-cased (the Kelvin sign, the dotted capital I), so case comes first.
fn ascii(text: &str, stem: bool) -> String {
    let mut lower = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if c.is_ascii() {
            let c = c.to_ascii_lowercase();
            lower.push(if c.is_ascii_alphanumeric() { c } else { ' ' });
        } else {
            for c in c.to_lowercase() {
                lower.push(if c.is_ascii_alphanumeric() { c } else { ' ' });
            }
        }
    }
    if !stem {
        return lower;
    }
    let mut buffer = PorterBuffer::default();
    let mut stemmed = String::with_capacity(lower.len());
    for word in lower.split_ascii_whitespace() {
        stemmed.push_str(if word.len() > 3 {
            buffer.stem(word)
        } else {
            word
        });
        stemmed.push(' ');
    }
    stemmed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for name in Tokeniser::NAMES {
            assert_eq!(Tokeniser::parse(name).map(|t| t.name()), Some(name));
        }
        assert!(Tokeniser::parse("13A").is_none());
    }

    #[test]
    fn words() {
        let check = |name: &str, text: &str, expected: &[&str]| {
            let tokens = Tokeniser::parse(name).unwrap().tokens(text).unwrap();
            assert_eq!(tokens, expected, "{name} {text:?}");
        };
        check("none", " a\u{1c}b ", &["a", "b"]);
        check("char", "a b\u{3000}猫", &["a", "b", "猫"]);
        check(
            "unicode-word",
            "Don't, 東京は3.5!",
            &["Don't", "東", "京", "は", "3.5"],
        );
        check(
            "ascii",
            "İstanbul 12\u{212a} 東京",
            &["i", "stanbul", "12k"],
        );
        check("ascii-stem", "Running was flies", &["run", "was", "fli"]);
        assert!(Tokeniser::parse("ja-mecab").unwrap().tokens("猫").is_err());
    }
}
