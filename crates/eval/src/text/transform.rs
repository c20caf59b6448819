//! Steps that prepare text, by name, so that a dataset or an evaluator can list them.
//!
//! The name is the whole step, parameters after a colon: `nfkc`, `lower`, `tokenise:13a`,
//! `stem:porter`, `stem:german`, `stop-words:ja`, `remove-words:foo,bar`, `cut:200`. What
//! [`Transform`] prints, it parses.

use std::fmt;
use std::str::FromStr;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;

use super::intl::is_punctuation;
use super::normalise::{collapse_whitespace, join, nfkc, split};
use super::porter::porter;
use super::stop_words::StopWords;
use super::tokenise::{NoDictionary, Tokeniser};
use crate::Resources;

/// One step of preparation.
#[derive(Clone, Debug)]
pub enum Transform {
    /// Unicode's compatibility form NFKC.
    Nfkc,
    /// Lower case.
    Lower,
    /// Each run of white space as one space, none at the ends.
    Whitespace,
    /// Without Unicode punctuation.
    Punctuation,
    /// Words with a space between them.
    Tokenise(Tokeniser),
    /// Each word as its base form; Japanese, needs the dictionary.
    BaseForm,
    /// Each word by NLTK's Porter stemmer.
    Porter,
    /// Each word by the Snowball stemmer of a language of [`SNOWBALL`].
    Snowball(&'static str),
    /// Without the words of a list.
    StopWords(StopWords),
    /// At most so many characters as a reader sees them.
    Cut(usize),
}

/// Why a name is not a transform, or a transform could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The name is unknown or its parameter is.
    #[error("no transform is called {0:?}; there are {known}", known = NAMES.join(", "))]
    Unknown(String),
    /// The dictionary is not there.
    #[error(transparent)]
    NoDictionary(#[from] NoDictionary),
}

const NAMES: [&str; 10] = [
    "nfkc",
    "lower",
    "whitespace",
    "punctuation",
    "tokenise:NAME",
    "base-form",
    "stem:porter|LANGUAGE",
    "stop-words:en|ja",
    "remove-words:A,B",
    "cut:N",
];

/// Languages that `stem:` knows, beside `porter`. `english` is Porter's second algorithm.
pub const SNOWBALL: [&str; 18] = [
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
];

impl FromStr for Transform {
    type Err = TransformError;

    fn from_str(name: &str) -> Result<Transform, TransformError> {
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        let transform = match (kind, rest) {
            ("nfkc", "") => Some(Transform::Nfkc),
            ("lower", "") => Some(Transform::Lower),
            ("whitespace", "") => Some(Transform::Whitespace),
            ("punctuation", "") => Some(Transform::Punctuation),
            ("base-form", "") => Some(Transform::BaseForm),
            ("tokenise", name) => Tokeniser::parse(name).map(Transform::Tokenise),
            ("stem", "porter") => Some(Transform::Porter),
            ("stem", language) => SNOWBALL
                .iter()
                .find(|known| **known == language)
                .map(|language| Transform::Snowball(language)),
            ("stop-words", "en") => Some(Transform::StopWords(StopWords::En)),
            ("stop-words", "ja") => Some(Transform::StopWords(StopWords::Ja)),
            ("remove-words", words) if !words.is_empty() => {
                let words = words.split(',').map(str::to_owned).collect();
                Some(Transform::StopWords(StopWords::Words(words)))
            }
            ("cut", count) => count.parse().ok().map(Transform::Cut),
            _ => None,
        };
        transform.ok_or_else(|| TransformError::Unknown(name.to_owned()))
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transform::Nfkc => f.write_str("nfkc"),
            Transform::Lower => f.write_str("lower"),
            Transform::Whitespace => f.write_str("whitespace"),
            Transform::Punctuation => f.write_str("punctuation"),
            Transform::Tokenise(tokeniser) => write!(f, "tokenise:{}", tokeniser.name()),
            Transform::BaseForm => f.write_str("base-form"),
            Transform::Porter => f.write_str("stem:porter"),
            Transform::Snowball(language) => write!(f, "stem:{language}"),
            Transform::StopWords(StopWords::En) => f.write_str("stop-words:en"),
            Transform::StopWords(StopWords::Ja) => f.write_str("stop-words:ja"),
            Transform::StopWords(StopWords::Words(words)) => {
                write!(f, "remove-words:{}", words.join(","))
            }
            Transform::Cut(count) => write!(f, "cut:{count}"),
        }
    }
}

impl Transform {
    /// The text after this step.
    pub fn apply(&self, text: &str, resources: &Resources) -> Result<String, TransformError> {
        let japanese = || resources.japanese.as_ref().ok_or(NoDictionary);
        Ok(match self {
            Transform::Nfkc => nfkc(text).into_owned(),
            Transform::Lower => text.to_lowercase(),
            Transform::Whitespace => collapse_whitespace(text),
            Transform::Punctuation => text.chars().filter(|c| !is_punctuation(*c)).collect(),
            Transform::Tokenise(Tokeniser::JaMecab(None)) => {
                collapse_whitespace(&japanese()?.wakati(text))
            }
            Transform::Tokenise(tokeniser) => collapse_whitespace(&tokeniser.line(text)?),
            Transform::BaseForm => {
                let words = japanese()?.morphemes(text);
                join(words.iter().map(|word| word.base.as_str()))
            }
            Transform::Porter => map_words(text, porter),
            Transform::Snowball(language) => {
                let stemmer = Stemmer::create(algorithm(language));
                map_words(text, |word| stemmer.stem(&word.to_lowercase()).into_owned())
            }
            Transform::StopWords(list) => join(split(text).filter(|word| !list.contains(word))),
            Transform::Cut(count) => text.graphemes(true).take(*count).collect(),
        })
    }
}

fn map_words(text: &str, stem: impl Fn(&str) -> String) -> String {
    let words: Vec<String> = split(text).map(stem).collect();
    join(words.iter().map(String::as_str))
}

fn algorithm(language: &str) -> Algorithm {
    match language {
        "arabic" => Algorithm::Arabic,
        "danish" => Algorithm::Danish,
        "dutch" => Algorithm::Dutch,
        "finnish" => Algorithm::Finnish,
        "french" => Algorithm::French,
        "german" => Algorithm::German,
        "greek" => Algorithm::Greek,
        "hungarian" => Algorithm::Hungarian,
        "italian" => Algorithm::Italian,
        "norwegian" => Algorithm::Norwegian,
        "portuguese" => Algorithm::Portuguese,
        "romanian" => Algorithm::Romanian,
        "russian" => Algorithm::Russian,
        "spanish" => Algorithm::Spanish,
        "swedish" => Algorithm::Swedish,
        "tamil" => Algorithm::Tamil,
        "turkish" => Algorithm::Turkish,
        _ => Algorithm::English,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_effects() {
        let check = |name: &str, text: &str, expected: &str| {
            let transform: Transform = name.parse().unwrap();
            assert_eq!(transform.to_string(), name);
            let result = transform.apply(text, &Resources::default()).unwrap();
            assert_eq!(result, expected, "{name}");
        };
        check("nfkc", "ＡＢＣ", "ABC");
        check("lower", "ÄB", "äb");
        check("whitespace", " a\n b ", "a b");
        check("punctuation", "「a」, b!", "a b");
        check("tokenise:13a", "a, b.", "a , b .");
        check("stem:porter", "running dogs", "run dog");
        check("stem:german", "Häuser laufen", "haus lauf");
        check("stop-words:en", "The cat and I", "cat");
        check("stop-words:ja", "猫 が 好き です", "猫 好き");
        check("remove-words:a,b", "a c B", "c");
        check("cut:2", "👩‍👩‍👧ab", "👩‍👩‍👧a");
    }

    #[test]
    fn every_snowball_language_has_its_algorithm() {
        for language in SNOWBALL {
            let own = format!("{:?}", algorithm(language)).to_lowercase();
            assert_eq!(own, language);
        }
    }

    #[test]
    fn unknown_names_and_missing_dictionaries() {
        for name in [
            "",
            "upper",
            "stem:klingon",
            "cut:x",
            "nfkc:1",
            "remove-words:",
        ] {
            assert!(name.parse::<Transform>().is_err(), "{name}");
        }
        let base_form = Transform::BaseForm.apply("猫", &Resources::default());
        assert!(matches!(base_form, Err(TransformError::NoDictionary(_))));
    }
}
