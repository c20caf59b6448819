//! Text to tokens and tokens to bytes.
//!
//! Both sources end in the same library tokenizer: `tokenizer.json` as it is, and
//! GGUF metadata translated into the same form. The splitting rule (`pre`)
//! decides every token, and a wrong one still gives plausible text, so a rule
//! that is not known here is refused rather than replaced by a similar one.

use std::path::Path;

use serde_json::{Value as Json, json};
use tokenizers::{Model, Normalizer, PreTokenizer};
use tokenizers::{NormalizedString, OffsetReferential, OffsetType, PreTokenizedString};

use crate::error::LoadError;
use crate::gguf::Gguf;
use crate::weights::read_json;

/// Texts of control tokens that end a turn whatever the metadata says: files often name one of
/// two (`<|endoftext|>` but not `<|im_end|>`), and the other would appear in the answer.
const END_OF_TURN: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
];

const GPT2_SPLIT: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A model's tokenizer.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes of all tokens one after the other, and where each begins.
    bytes: Vec<u8>,
    starts: Vec<u32>,
    /// Prepended to plain-text prompts.
    leading: Option<u32>,
    end_of_turn: Vec<u32>,
    /// How control tokens are written.
    special_texts: Vec<String>,
    /// What templates call `bos_token` and `eos_token`.
    pub(crate) bos_text: String,
    pub(crate) eos_text: String,
}

/// How token texts of a vocabulary spell bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// One printable character per byte, as GPT-2 does.
    ByteLevel,
    /// Plain text with `▁` for a space and `<0x0A>` for other bytes.
    Metaspace,
}

impl Tokenizer {
    /// From GGUF metadata.
    pub(crate) fn from_gguf(gguf: &Gguf, path: &Path) -> Result<Self, LoadError> {
        match gguf.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            Some("llama") => {
                return Err(LoadError::unsupported(
                    path,
                    "SentencePiece tokenizers (tokenizer.ggml.model = llama) are not supported in GGUF files; load the model's directory with tokenizer.json instead",
                ));
            }
            other => {
                let name = other.unwrap_or("none");
                return Err(LoadError::unsupported(
                    path,
                    format!("tokenizer model {name:?} is not supported"),
                ));
            }
        }
        let need = |key: &str| LoadError::broken(path, format!("{key} is missing or not a list"));
        let tokens = gguf
            .texts("tokenizer.ggml.tokens")
            .ok_or_else(|| need("tokenizer.ggml.tokens"))?;
        let merges = gguf
            .texts("tokenizer.ggml.merges")
            .ok_or_else(|| need("tokenizer.ggml.merges"))?;
        let kinds = gguf.ints("tokenizer.ggml.token_type").unwrap_or_default();
        let rule = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
        let document = library_document(tokens, merges, kinds, rule)
            .map_err(|message| LoadError::unsupported(path, message))?;
        let inner = parse(document.to_string().as_bytes(), path)?;

        let id = |key: &str| {
            gguf.int(key)
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| (*id as usize) < tokens.len())
        };
        let bos = id("tokenizer.ggml.bos_token_id");
        let eos = id("tokenizer.ggml.eos_token_id");
        let adds_bos = gguf
            .bool("tokenizer.ggml.add_bos_token")
            .unwrap_or(rule == "llama-bpe");
        let mut end_of_turn: Vec<u32> = [
            eos,
            id("tokenizer.ggml.eot_token_id"),
            id("tokenizer.ggml.eom_token_id"),
        ]
        .into_iter()
        .flatten()
        .collect();
        end_of_turn.extend(
            END_OF_TURN
                .iter()
                .filter_map(|text| inner.token_to_id(text)),
        );
        let text_of =
            |id: Option<u32>| id.map(|id| tokens[id as usize].clone()).unwrap_or_default();
        let mut tokenizer = Self {
            bytes: Vec::new(),
            starts: Vec::new(),
            leading: bos.filter(|_| adds_bos),
            end_of_turn,
            special_texts: Vec::new(),
            bos_text: text_of(bos),
            eos_text: text_of(eos),
            inner,
        };
        tokenizer.spell(Spelling::ByteLevel);
        Ok(tokenizer)
    }

    /// From a model directory: `tokenizer.json`, and what its neighbours say about special tokens.
    pub(crate) fn from_directory(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|error| LoadError::io(&path, &error))?;
        let document: Json = serde_json::from_slice(&text)
            .map_err(|error| LoadError::broken(&path, error.to_string()))?;
        let spelling = spelling_of(&document["decoder"]).ok_or_else(|| {
            LoadError::unsupported(
                &path,
                format!("decoder {} is not supported", document["decoder"]["type"]),
            )
        })?;
        let inner = parse(&text, &path)?;
        let config = optional_json(&directory.join("tokenizer_config.json"))?;
        let (bos_text, eos_text) = (
            token_text(&config["bos_token"]),
            token_text(&config["eos_token"]),
        );
        let mut end_of_turn: Vec<u32> = END_OF_TURN
            .iter()
            .copied()
            .chain((!eos_text.is_empty()).then_some(eos_text.as_str()))
            .filter_map(|text| inner.token_to_id(text))
            .collect();
        for name in ["generation_config.json", "config.json"] {
            end_of_turn.extend(token_ids(
                &optional_json(&directory.join(name))?["eos_token_id"],
            ));
        }
        let mut tokenizer = Self {
            inner,
            bytes: Vec::new(),
            starts: Vec::new(),
            leading: None,
            end_of_turn,
            special_texts: Vec::new(),
            bos_text,
            eos_text,
        };
        tokenizer.spell(spelling);
        Ok(tokenizer)
    }

    /// Tokens of a text. Special tokens written in it are recognised; nothing is added.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text with what the model expects before it.
    pub(crate) fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|error| error.to_string())?;
        let leading = self
            .leading
            .filter(|leading| encoding.get_ids().first() != Some(leading));
        Ok(leading
            .into_iter()
            .chain(encoding.get_ids().iter().copied())
            .collect())
    }

    /// Tokens of a text in which only special tokens without a mark are recognised; the marks
    /// themselves are left out. See `marks`.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Result<Vec<u32>, String> {
        let added = self.inner.get_added_vocabulary();
        let parts = added.extract_and_normalize(self.inner.get_normalizer(), text);
        let mut ids = Vec::new();
        for (_, (from, to), tokens) in
            parts.get_splits(OffsetReferential::Original, OffsetType::Byte)
        {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => {
                    let text = text[from..to].replace(mark, "");
                    ids.extend(
                        self.encode_plain(&text)
                            .map_err(|error| error.to_string())?,
                    );
                }
            }
        }
        Ok(ids)
    }

    /// Tokens of a text in which nothing is special: the library's steps without the one that
    /// looks for added tokens.
    fn encode_plain(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        let mut normalised = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalised)?;
        }
        let mut parts = PreTokenizedString::from(normalised);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        let model = self.inner.get_model();
        parts.tokenize(|part| model.tokenize(part.get()))?;
        let encoding = parts.into_encoding(None, 0, OffsetType::None)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text in which nothing is special and to which nothing is added.
    pub(crate) fn encode_text(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode_plain(text).map_err(|error| error.to_string())
    }

    /// How control tokens are written.
    pub(crate) fn special_texts(&self) -> &[String] {
        &self.special_texts
    }

    /// The bytes that a token adds to the text; none for special tokens and unknown ids.
    pub(crate) fn bytes_of(&self, token: u32) -> &[u8] {
        let index = token as usize;
        match (self.starts.get(index), self.starts.get(index + 1)) {
            (Some(from), Some(to)) => &self.bytes[*from as usize..*to as usize],
            _ => &[],
        }
    }

    /// Whether the model ends its turn with this token.
    pub(crate) fn ends_turn(&self, token: u32) -> bool {
        self.end_of_turn.contains(&token)
    }

    /// One more than the largest token id.
    pub(crate) fn size(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Fills the tables of bytes and of control tokens.
    fn spell(&mut self, spelling: Spelling) {
        let added = self.inner.get_added_tokens_decoder();
        let specials = added.values().filter(|token| token.special);
        self.special_texts = specials.map(|token| token.content.clone()).collect();
        let vocabulary = self.inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
        let mut texts: Vec<Vec<u8>> = vec![Vec::new(); size];
        for (text, id) in vocabulary {
            texts[id as usize] = match added.get(&id) {
                Some(token) if token.special => Vec::new(),
                Some(token) => token.content.clone().into_bytes(),
                None => spelled_bytes(&text, spelling),
            };
        }
        self.starts = Vec::with_capacity(size + 1);
        for text in texts {
            self.starts.push(self.bytes.len() as u32);
            self.bytes.extend(text);
        }
        self.starts.push(self.bytes.len() as u32);
    }
}

fn parse(document: &[u8], path: &Path) -> Result<tokenizers::Tokenizer, LoadError> {
    tokenizers::Tokenizer::from_bytes(document)
        .map_err(|error| LoadError::broken(path, format!("tokenizer: {error}")))
}

/// The library's own document for a GGUF vocabulary.
fn library_document(
    tokens: &[String],
    merges: &[String],
    kinds: &[i64],
    rule: &str,
) -> Result<Json, String> {
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let steps = match rule {
        "smollm" => vec![
            json!({"type": "Digits", "individual_digits": true}),
            split(GPT2_SPLIT),
            bytes(false),
        ],
        "qwen2" => vec![split(QWEN2_SPLIT), bytes(false)],
        "llama-bpe" | "llama3" | "llama-v3" => vec![split(LLAMA3_SPLIT), bytes(false)],
        "default" | "gpt2" | "gpt-2" => vec![split(GPT2_SPLIT), bytes(false)],
        other => return Err(format!("tokenizer.ggml.pre = {other:?} is not supported")),
    };
    let pairs: Option<Vec<(&str, &str)>> =
        merges.iter().map(|merge| merge.split_once(' ')).collect();
    let pairs = pairs.ok_or("tokenizer.ggml.merges holds an entry that is not a pair")?;
    let vocabulary: serde_json::Map<String, Json> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    if vocabulary.len() != tokens.len() {
        return Err("tokenizer.ggml.tokens holds a token twice".to_owned());
    }
    const CONTROL: i64 = 3;
    const USER_DEFINED: i64 = 4;
    let added: Vec<Json> = kinds
        .iter()
        .zip(tokens)
        .enumerate()
        .filter(|(_, (kind, token))| matches!(**kind, CONTROL | USER_DEFINED) && !token.is_empty())
        .map(|(id, (kind, token))| {
            json!({"id": id, "content": token, "special": *kind == CONTROL, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": if rule == "qwen2" { json!({"type": "NFC"}) } else { Json::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": bytes(false),
        "model": {"type": "BPE", "vocab": vocabulary, "merges": pairs,
                  "ignore_merges": rule.starts_with("llama")},
    }))
}

fn spelling_of(decoder: &Json) -> Option<Spelling> {
    let is = |value: &Json, name: &str| value["type"].as_str() == Some(name);
    if is(decoder, "ByteLevel") {
        return Some(Spelling::ByteLevel);
    }
    let parts = decoder["decoders"].as_array()?;
    if parts.iter().any(|part| is(part, "ByteLevel")) {
        return Some(Spelling::ByteLevel);
    }
    parts
        .iter()
        .any(|part| is(part, "ByteFallback"))
        .then_some(Spelling::Metaspace)
}

fn spelled_bytes(text: &str, spelling: Spelling) -> Vec<u8> {
    match spelling {
        Spelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = text.chars().map(byte_of_character).collect();
            bytes.unwrap_or_else(|| text.as_bytes().to_vec())
        }
        Spelling::Metaspace => {
            let hex = text
                .strip_prefix("<0x")
                .and_then(|rest| rest.strip_suffix('>'));
            match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            }
        }
    }
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100.
fn byte_of_character(character: char) -> Option<u8> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let code = character as u32;
    if code < 256 {
        return printable(code).then_some(code as u8);
    }
    (0..256)
        .filter(|byte| !printable(*byte))
        .nth(code.checked_sub(256)? as usize)
        .map(|byte| byte as u8)
}

fn optional_json(path: &Path) -> Result<Json, LoadError> {
    if path.exists() {
        read_json(path)
    } else {
        Ok(Json::Null)
    }
}

/// A special token is written as text or as an object with `content`.
fn token_text(value: &Json) -> String {
    value
        .as_str()
        .or(value["content"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// A token id is written as a number or as a list of numbers.
fn token_ids(value: &Json) -> Vec<u32> {
    let id = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Json::Array(values) => values.iter().filter_map(id).collect(),
        other => id(other).into_iter().collect(),
    }
}

/// The chat template of a model directory: a file of its own, or a field of the tokenizer's.
pub(crate) fn template_of_directory(directory: &Path) -> Result<Option<String>, LoadError> {
    let file = directory.join("chat_template.jinja");
    if file.exists() {
        return std::fs::read_to_string(&file)
            .map(Some)
            .map_err(|error| LoadError::io(&file, &error));
    }
    let config = optional_json(&directory.join("tokenizer_config.json"))?;
    let named = || {
        let templates = config["chat_template"].as_array()?;
        templates.iter().find(|t| t["name"] == "default")?["template"].as_str()
    };
    Ok(config["chat_template"]
        .as_str()
        .or_else(named)
        .map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_complete_and_unambiguous() {
        let mut bytes: Vec<u8> = (0..512)
            .filter_map(|c| byte_of_character(char::from_u32(c)?))
            .collect();
        assert_eq!(bytes.len(), 256);
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), 256);
        assert_eq!(
            (byte_of_character('Ġ'), byte_of_character('Ċ')),
            (Some(b' '), Some(b'\n'))
        );
    }

    #[test]
    fn unknown_splitting_rules_are_refused() {
        let error = library_document(&[], &[], &[], "viking").unwrap_err();
        assert!(error.contains("viking"), "{error}");
    }
}
