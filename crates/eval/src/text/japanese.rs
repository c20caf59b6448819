//! Japanese words as MeCab 0.996 finds them with IPADIC, by `vibrato`.
//!
//! Two settings make it the same as MeCab: spaces are skipped, and unknown words are grouped up to
//! 24 characters. The dictionary is not part of the binary: it is compiled once from the files of
//! PyPI's or Debian's package ([`Japanese::from_mecab`], [`Japanese::from_csv`]), kept compressed
//! ([`Japanese::pack`]) and read back ([`Japanese::unpack`]).

use std::fmt;
use std::io::Read;

use vibrato::{Dictionary, SystemDictionaryBuilder, Tokenizer};

use super::mecab::{MecabFiles, decompile, short_feature};
use super::normalise::trim;

/// How many entries the IPADIC has that sacreBLEU insists on.
pub const IPADIC_ENTRIES: usize = 392_126;

/// A dictionary unpacks to 40 MB; anything that claims more is not one.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;
/// MeCab looks at no more characters than this when it groups an unknown word.
const MAX_GROUPING: usize = 24;
/// Texts are cut here, at the last white space or full stop, so that memory stays bounded: the
/// lattice takes some hundred bytes for each character.
const MAX_CHARACTERS: usize = 50_000;
/// Debian's package has one entry more than PyPI's and sacreBLEU's: the era that began in 2019. It
/// is left out, so that both give the same words.
const ADDED_BY_DEBIAN: &str = "令和,1288,1288,5904,";

/// A dictionary could not be compiled or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DictionaryError(pub String);

/// A loaded dictionary. Shared by reference; one per process is enough.
pub struct Japanese {
    tokenizer: Tokenizer,
}

/// One word of a text, as the dictionary knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Morpheme {
    /// As written.
    pub surface: String,
    /// 名詞, 動詞, 助詞, …
    pub part_of_speech: String,
    /// The form found in dictionaries; the surface itself where there is none.
    pub base: String,
}

impl fmt::Debug for Japanese {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Japanese")
    }
}

impl Japanese {
    /// From a dictionary that MeCab compiled, such as the `dicdir` of PyPI's `ipadic`. Refuses any
    /// but the IPADIC that sacreBLEU names.
    pub fn from_mecab(files: MecabFiles<'_>) -> Result<Vec<u8>, DictionaryError> {
        let text = decompile(files)?;
        check_entries(text.entries)?;
        compile(&text.lexicon, &text.matrix, &text.characters, &text.unknown)
    }

    /// From the text files of Debian's `mecab-ipadic`, already in UTF-8: every `*.csv` joined, in
    /// the order of their names, and `matrix.def`, `char.def`, `unk.def`.
    pub fn from_csv(
        lexicon: &str,
        matrix: &str,
        characters: &str,
        unknown: &str,
    ) -> Result<Vec<u8>, DictionaryError> {
        let lexicon = shorten(lexicon);
        check_entries(lexicon.lines().count())?;
        compile(&lexicon, matrix, characters, &shorten(unknown))
    }

    /// Reads what [`Japanese::from_mecab`] or [`Japanese::from_csv`] gave. The bytes must be ones
    /// that were made by this function: check their digest, they are trusted.
    pub fn load(compiled: &[u8]) -> Result<Japanese, DictionaryError> {
        let dictionary = Dictionary::read(compiled).map_err(cannot("read the dictionary"))?;
        let tokenizer = Tokenizer::new(dictionary)
            .ignore_space(true)
            .map_err(cannot("use the dictionary"))?
            .max_grouping_len(MAX_GROUPING);
        Ok(Japanese { tokenizer })
    }

    /// A compiled dictionary, compressed for keeping: about 7 MB.
    pub fn pack(compiled: &[u8]) -> Result<Vec<u8>, DictionaryError> {
        zstd::encode_all(compiled, 12).map_err(cannot("compress the dictionary"))
    }

    /// Loads what [`Japanese::pack`] gave.
    pub fn unpack(packed: &[u8]) -> Result<Japanese, DictionaryError> {
        let decoder = zstd::Decoder::new(packed).map_err(cannot("decompress the dictionary"))?;
        let mut compiled = Vec::new();
        decoder
            .take(MAX_UNPACKED_BYTES)
            .read_to_end(&mut compiled)
            .map_err(cannot("decompress the dictionary"))?;
        Japanese::load(&compiled)
    }

    /// Words with a space between them, as `mecab -Owakati` prints them for a stripped line.
    pub fn wakati(&self, text: &str) -> String {
        let mut line = String::with_capacity(text.len() + text.len() / 4);
        self.each(text, |token| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(token.surface());
        });
        line
    }

    /// Words with part of speech and base form.
    pub fn morphemes(&self, text: &str) -> Vec<Morpheme> {
        let mut found = Vec::new();
        self.each(text, |token| {
            let (part, base) = token.feature().split_once(',').unwrap_or(("*", "*"));
            let surface = token.surface().to_owned();
            found.push(Morpheme {
                part_of_speech: part.to_owned(),
                base: if base == "*" {
                    surface.clone()
                } else {
                    base.to_owned()
                },
                surface,
            });
        });
        found
    }

    fn each(&self, text: &str, mut see: impl FnMut(&vibrato::token::Token<'_, '_>)) {
        let mut worker = self.tokenizer.new_worker();
        for piece in pieces(trim(text), MAX_CHARACTERS) {
            worker.reset_sentence(piece);
            worker.tokenize();
            for token in worker.token_iter() {
                see(&token);
            }
        }
    }
}

/// Cuts a text that is too long, after the last character before the limit that can end a sentence
/// or a word; at the limit where there is none.
fn pieces(text: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match rest.char_indices().nth(limit) {
            None => rest.len(),
            Some((end, _)) => rest[..end]
                .char_indices()
                .rev()
                .find(|(_, c)| c.is_whitespace() || matches!(c, '。' | '．' | '！' | '？'))
                .map_or(end, |(at, c)| at + c.len_utf8()),
        };
        let (piece, left) = rest.split_at(end);
        rest = left;
        Some(piece)
    })
}

fn cannot<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> DictionaryError {
    move |error| DictionaryError(format!("cannot {what}: {error}"))
}

fn check_entries(entries: usize) -> Result<(), DictionaryError> {
    if entries == IPADIC_ENTRIES {
        return Ok(());
    }
    Err(DictionaryError(format!(
        "this dictionary has {entries} entries; the IPADIC that MeCab's results are compared with has {IPADIC_ENTRIES}"
    )))
}

fn compile(
    lexicon: &str,
    matrix: &str,
    characters: &str,
    unknown: &str,
) -> Result<Vec<u8>, DictionaryError> {
    let dictionary = SystemDictionaryBuilder::from_readers(
        lexicon.as_bytes(),
        matrix.as_bytes(),
        characters.as_bytes(),
        unknown.as_bytes(),
    )
    .map_err(cannot("compile the dictionary"))?;
    let mut compiled = Vec::new();
    dictionary
        .write(&mut compiled)
        .map_err(cannot("write the dictionary"))?;
    Ok(compiled)
}

/// Lines of a lexicon with the features that are kept. The surface may be quoted; the three
/// numbers after it are not.
fn shorten(lexicon: &str) -> String {
    let mut text = String::with_capacity(lexicon.len());
    let wanted = |line: &&str| !line.is_empty() && !line.starts_with(ADDED_BY_DEBIAN);
    for line in lexicon.lines().filter(wanted) {
        let surface_end = match line.strip_prefix('"') {
            Some(quoted) => quoted.find("\",").map_or(line.len(), |at| at + 2),
            None => line
                .char_indices()
                .skip(1)
                .find(|(_, c)| *c == ',')
                .map_or(line.len(), |(at, _)| at),
        };
        let feature_at = line[surface_end..]
            .match_indices(',')
            .nth(3)
            .map_or(line.len(), |(at, _)| surface_end + at + 1);
        text.push_str(&line[..feature_at]);
        text.push_str(&short_feature(&line[feature_at..]));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_sentences() {
        let cut: Vec<_> = pieces("あ。いう。えお", 4).collect();
        assert_eq!(cut, ["あ。", "いう。", "えお"]);
        assert_eq!(pieces("あいうえお", 2).collect::<String>(), "あいうえお");
        assert_eq!(pieces("", 2).count(), 0);
    }

    #[test]
    fn features_are_shortened() {
        let line = "赤い,1,2,-3,形容詞,自立,*,*,形容詞・アウオ段,基本形,赤い,アカイ,アカイ\n\",\",4,5,6,記号,読点,*,*,*,*,*\n";
        assert_eq!(
            shorten(line),
            "赤い,1,2,-3,形容詞,赤い\n\",\",4,5,6,記号,*\n"
        );
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(Japanese::load(b"nothing").is_err());
        assert!(Japanese::unpack(b"nothing").is_err());
        let files = MecabFiles {
            system: b"x",
            unknown: b"",
            matrix: b"",
            characters: b"",
        };
        assert!(Japanese::from_mecab(files).is_err());
    }
}
