//! The shape of a decoder, read from GGUF metadata or from `config.json`.
//!
//! Everything that would make the arithmetic differ from what the one decoder
//! block does is refused here by name, because a model that runs slightly wrong
//! is worse than one that does not load.

use std::path::Path;

use serde_json::Value as Json;

use crate::error::{LoadError, LoadErrorKind};
use crate::gguf::Gguf;
use crate::kv::PAGE;

/// The numbers that define one decoder of the Llama and Qwen families.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderConfig {
    pub(crate) architecture: String,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_width: usize,
    pub(crate) feed_forward: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context_length: usize,
    pub(crate) norm_epsilon: f32,
    pub(crate) rope: Rope,
    /// `None`: tied if the file has no separate output matrix.
    pub(crate) tied_embedding: Option<bool>,
}

/// Rotary position encoding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) base: f64,
    pub(crate) pairing: Pairing,
    /// Positions are divided by this (linear scaling).
    pub(crate) factor: f64,
    /// Llama 3's scaling of low frequencies.
    pub(crate) llama3: Option<Llama3Scaling>,
}

/// Which two values turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Neighbours: GGUF files of `llama`, whose weights were permuted for it.
    Neighbours,
    /// First half with second half: everything else.
    Halves,
}

/// Parameters of Llama 3's rope scaling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Llama3Scaling {
    pub(crate) factor: f64,
    pub(crate) low_frequency_factor: f64,
    pub(crate) high_frequency_factor: f64,
    pub(crate) original_context: f64,
}

impl Rope {
    /// Angle per position for each pair. `divisors` are a GGUF file's own frequency factors.
    pub(crate) fn frequencies(&self, head_width: usize, divisors: Option<&[f32]>) -> Vec<f64> {
        (0..head_width / 2)
            .map(|pair| {
                let plain = self.base.powf(-2.0 * pair as f64 / head_width as f64) / self.factor;
                let scaled = self.llama3.map_or(plain, |scaling| scaling.apply(plain));
                divisors
                    .and_then(|d| d.get(pair))
                    .map_or(scaled, |d| scaled / f64::from(*d))
            })
            .collect()
    }
}

impl Llama3Scaling {
    /// High frequencies stay, low ones are divided by the factor, those between are blended.
    fn apply(self, frequency: f64) -> f64 {
        let turns = self.original_context * frequency / std::f64::consts::TAU;
        if turns > self.high_frequency_factor {
            return frequency;
        }
        if turns < self.low_frequency_factor {
            return frequency / self.factor;
        }
        let span = self.high_frequency_factor - self.low_frequency_factor;
        let share = (turns - self.low_frequency_factor) / span;
        frequency * (share + (1.0 - share) / self.factor)
    }
}

impl DecoderConfig {
    /// From GGUF metadata.
    pub(crate) fn from_gguf(gguf: &Gguf, path: &Path) -> Result<Self, LoadError> {
        let architecture = gguf
            .text("general.architecture")
            .ok_or_else(|| LoadError::broken(path, "general.architecture is missing"))?;
        check_architecture(architecture, path)?;
        let key = |name: &str| format!("{architecture}.{name}");
        let size = |name: &str| {
            let value = gguf.int(&key(name)).and_then(|v| usize::try_from(v).ok());
            value.ok_or_else(|| {
                LoadError::broken(path, format!("{} is missing or not a number", key(name)))
            })
        };
        if gguf
            .int(&key("expert_count"))
            .is_some_and(|count| count > 0)
        {
            return Err(LoadError::unsupported(
                path,
                "mixtures of experts are not supported",
            ));
        }
        let (hidden, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let head_width = match gguf.int(&key("attention.key_length")) {
            Some(width) => usize::try_from(width).unwrap_or(0),
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        if gguf
            .int(&key("rope.dimension_count"))
            .is_some_and(|count| count as usize != head_width)
        {
            return Err(LoadError::unsupported(
                path,
                "rotary encoding of a part of each head is not supported",
            ));
        }
        let mut rope = Rope {
            base: gguf.float(&key("rope.freq_base")).unwrap_or(10_000.0),
            pairing: if architecture == "llama" {
                Pairing::Neighbours
            } else {
                Pairing::Halves
            },
            factor: 1.0,
            llama3: None,
        };
        match gguf.text(&key("rope.scaling.type")) {
            None | Some("none") => {}
            Some("linear") => rope.factor = gguf.float(&key("rope.scaling.factor")).unwrap_or(1.0),
            Some(other) => {
                return Err(LoadError::unsupported(
                    path,
                    format!("rope scaling {other:?} is not supported"),
                ));
            }
        }
        let window = gguf
            .int(&key("attention.sliding_window"))
            .and_then(|w| usize::try_from(w).ok());
        let embedding = gguf
            .tensors
            .get("token_embd.weight")
            .ok_or_else(|| LoadError::broken(path, "tensor token_embd.weight is missing"))?;
        let config = Self {
            architecture: architecture.to_owned(),
            hidden,
            layers: size("block_count")?,
            heads,
            kv_heads: size("attention.head_count_kv").unwrap_or(heads),
            head_width,
            feed_forward: size("feed_forward_length")?,
            vocabulary: embedding.shape.first().copied().unwrap_or(0),
            context_length: windowed(size("context_length")?, window),
            norm_epsilon: gguf
                .float(&key("attention.layer_norm_rms_epsilon"))
                .unwrap_or(1e-5) as f32,
            rope,
            tied_embedding: None,
        };
        config.checked(path)
    }

    /// From the `config.json` of a model directory.
    pub(crate) fn from_json(json: &Json, path: &Path) -> Result<Self, LoadError> {
        let family = json["model_type"].as_str().unwrap_or_default();
        let architecture = if family == "mistral" { "llama" } else { family };
        check_architecture(architecture, path)?;
        let size = |name: &str| {
            let value = json[name].as_u64().and_then(|v| usize::try_from(v).ok());
            value.ok_or_else(|| {
                LoadError::broken(
                    path,
                    format!("config.json: {name} is missing or not a number"),
                )
            })
        };
        for (name, wanted) in [("hidden_act", "silu")] {
            if json[name].as_str().is_some_and(|value| value != wanted) {
                return Err(LoadError::unsupported(
                    path,
                    format!("config.json: {name} {} is not supported", json[name]),
                ));
            }
        }
        if json["mlp_bias"].as_bool() == Some(true) {
            return Err(LoadError::unsupported(
                path,
                "config.json: mlp_bias is not supported",
            ));
        }
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let window = match json["use_sliding_window"].as_bool() {
            Some(false) => None,
            _ => json["sliding_window"]
                .as_u64()
                .and_then(|w| usize::try_from(w).ok()),
        };
        let config = Self {
            architecture: architecture.to_owned(),
            hidden,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads: if json["num_key_value_heads"].is_null() {
                heads
            } else {
                size("num_key_value_heads")?
            },
            head_width: if json["head_dim"].is_null() {
                hidden.checked_div(heads).unwrap_or(0)
            } else {
                size("head_dim")?
            },
            feed_forward: size("intermediate_size")?,
            vocabulary: size("vocab_size")?,
            context_length: windowed(size("max_position_embeddings")?, window),
            norm_epsilon: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            rope: rope_from_json(json, path)?,
            tied_embedding: Some(json["tie_word_embeddings"].as_bool().unwrap_or(false)),
        };
        config.checked(path)
    }

    /// Refuses numbers that contradict each other or that no real model has.
    fn checked(self, path: &Path) -> Result<Self, LoadError> {
        let limits = [
            ("hidden size", self.hidden, 1 << 16),
            ("layer count", self.layers, 1 << 9),
            ("head count", self.heads, 1 << 10),
            ("key/value head count", self.kv_heads, 1 << 10),
            ("head width", self.head_width, 1 << 9),
            ("feed-forward size", self.feed_forward, 1 << 19),
            ("vocabulary", self.vocabulary, 1 << 21),
            ("context length", self.context_length, 1 << 24),
        ];
        for (name, value, limit) in limits {
            if value == 0 {
                return Err(LoadError::broken(path, format!("the {name} is 0")));
            }
            if value > limit {
                let message =
                    format!("the {name} is {value}, more than the {limit} that are accepted");
                return Err(LoadError::new(path, LoadErrorKind::TooLarge, message));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_width.is_multiple_of(2) {
            return Err(LoadError::broken(
                path,
                format!(
                    "{} heads of width {} over {} key/value heads do not fit",
                    self.heads, self.head_width, self.kv_heads
                ),
            ));
        }
        let sound = self.norm_epsilon > 0.0 && self.rope.base > 0.0 && self.rope.factor > 0.0;
        if !sound || !self.rope.base.is_finite() || !self.rope.factor.is_finite() {
            return Err(LoadError::broken(
                path,
                "the norm or rope parameters are out of range",
            ));
        }
        Ok(self)
    }

    /// Bytes that one token's keys and values take in all layers (16-bit floats).
    pub(crate) fn kv_bytes_per_token(&self) -> u64 {
        (self.layers * 2 * self.kv_heads * self.head_width * 2) as u64
    }

    /// Tokens whose keys and values fit into so many bytes, in whole pages.
    pub(crate) fn kv_room(&self, bytes: u64) -> usize {
        let tokens = usize::try_from(bytes / self.kv_bytes_per_token()).unwrap_or(usize::MAX);
        tokens - tokens % PAGE
    }
}

fn check_architecture(architecture: &str, path: &Path) -> Result<(), LoadError> {
    if matches!(architecture, "llama" | "qwen2" | "qwen3") {
        return Ok(());
    }
    let message =
        format!("architecture {architecture:?} is not supported; llama, qwen2 and qwen3 are");
    Err(LoadError::unsupported(path, message))
}

/// Attention here is over everything, which equals a sliding window as long as the context is
/// no longer than the window.
fn windowed(context: usize, window: Option<usize>) -> usize {
    window
        .filter(|w| *w > 0)
        .map_or(context, |window| context.min(window))
}

fn rope_from_json(json: &Json, path: &Path) -> Result<Rope, LoadError> {
    let scaling = if json["rope_parameters"].is_object() {
        &json["rope_parameters"]
    } else {
        &json["rope_scaling"]
    };
    let number = |name: &str| scaling[name].as_f64();
    let need = |name: &str| {
        number(name).ok_or_else(|| {
            LoadError::broken(path, format!("config.json: rope scaling has no {name}"))
        })
    };
    let base = number("rope_theta")
        .or(json["rope_theta"].as_f64())
        .unwrap_or(10_000.0);
    let mut rope = Rope {
        base,
        pairing: Pairing::Halves,
        factor: 1.0,
        llama3: None,
    };
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()) {
        None | Some("default") => {}
        Some("linear") => rope.factor = need("factor")?,
        Some("llama3") => {
            rope.llama3 = Some(Llama3Scaling {
                factor: need("factor")?,
                low_frequency_factor: need("low_freq_factor")?,
                high_frequency_factor: need("high_freq_factor")?,
                original_context: need("original_max_position_embeddings")?,
            });
        }
        Some(other) => {
            return Err(LoadError::unsupported(
                path,
                format!("config.json: rope scaling {other:?} is not supported"),
            ));
        }
    }
    Ok(rope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        assert_eq!(scaling.apply(1.0), 1.0);
        assert_eq!(scaling.apply(1e-5), 1e-5 / 8.0);
        let between = std::f64::consts::TAU * 2.5 / 8192.0;
        assert!((scaling.apply(between) - between * (0.5 + 0.5 / 8.0)).abs() < 1e-12);
    }

    #[test]
    fn unsupported_configurations_are_named() {
        let base = json!({
            "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
            "intermediate_size": 64, "vocab_size": 8, "max_position_embeddings": 32,
        });
        let path = Path::new("m");
        assert_eq!(
            DecoderConfig::from_json(&base, path).unwrap().head_width,
            16
        );
        for (key, value, expected) in [
            ("model_type", json!("mamba"), "mamba"),
            ("hidden_act", json!("gelu"), "gelu"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "yarn"),
            ("num_key_value_heads", json!(3), "do not fit"),
            ("num_hidden_layers", json!(100_000), "100000"),
            ("vocab_size", json!(-1), "vocab_size"),
        ] {
            let mut changed = base.clone();
            changed[key] = value;
            let error = DecoderConfig::from_json(&changed, path).unwrap_err();
            assert!(error.message.contains(expected), "{key}: {}", error.message);
        }
    }
}
