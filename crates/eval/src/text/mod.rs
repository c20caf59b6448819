//! Preparing text: each step a pure function from text to text, tokens or numbers.
//!
//! Nothing here guesses: the language is only detected where a caller asks, and a tokeniser is
//! always named. Whitespace is Python's everywhere, because the programs that we compare with are
//! written in it: U+001C to U+001F separate words there, in Rust they do not.

mod intl;
mod japanese;
mod language;
mod mecab;
mod normalise;
mod porter;
mod sacre;
mod statistics;
mod stop_words;
mod tokenise;
mod transform;

pub use japanese::{DictionaryError, IPADIC_ENTRIES, Japanese, Morpheme};
pub use language::{Language, choose_tokeniser, detect_language};
pub use mecab::MecabFiles;
pub use normalise::{collapse_whitespace, is_space, nfkc, split, trim, trim_end};
pub use porter::{PorterBuffer, porter};
pub use statistics::{TextStatistics, sentences, text_statistics};
pub use stop_words::{StopWords, stop_words};
pub use tokenise::{NoDictionary, Tokeniser};
pub use transform::{SNOWBALL, Transform, TransformError};
