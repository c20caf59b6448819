//! Sentence embeddings by BERT: batches by length, mean pooling, unit length.
//!
//! An own forward pass in differentiable operations only, which keeps every
//! layer's hidden states: pooling needs the last, metrics that compare tokens
//! need others, and training needs the gradients. Work is 32-bit floats
//! throughout; the model is small enough for that to be cheap.

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::softmax;
use serde_json::Value as Json;

use crate::error::{EmbedError, LoadError};
use crate::weights::{Weights, read_json};

/// Most texts in one call.
const MAX_TEXTS: usize = 4096;
/// Most rows and most padded tokens in one pass.
const MAX_BATCH_ROWS: usize = 32;
const MAX_BATCH_TOKENS: usize = 4096;

/// An embedding model in memory. Calls block the thread that makes them; several threads may
/// call at once.
#[derive(Debug)]
pub struct Embedder {
    config: BertConfig,
    tokenizer: tokenizers::Tokenizer,
    bert: Bert,
}

/// Vectors in the order of the texts, with what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// One vector of length 1 per text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read per text, special tokens included, after truncation.
    pub token_counts: Vec<usize>,
}

/// One text's tokens and their vectors at every depth.
#[derive(Debug, Clone, PartialEq)]
pub struct HiddenStates {
    /// Token ids, special tokens included.
    pub token_ids: Vec<u32>,
    /// `layers[0]` is the embedding, `layers[n]` the output of layer `n`; each holds one vector
    /// per token.
    pub layers: Vec<Vec<Vec<f32>>>,
}

/// One text's tokens and their vectors at one depth.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// Token ids, special tokens included.
    pub token_ids: Vec<u32>,
    /// One vector per token, not brought to any length.
    pub vectors: Vec<Vec<f32>>,
}

/// The shape of a BERT encoder.
#[derive(Debug, Clone)]
pub(crate) struct BertConfig {
    pub(crate) hidden: usize,
    layers: usize,
    heads: usize,
    feed_forward: usize,
    pub(crate) vocabulary: usize,
    positions: usize,
    types: usize,
    norm_epsilon: f64,
    /// The longest text in tokens.
    pub(crate) max_tokens: usize,
}

impl BertConfig {
    pub(crate) fn from_directory(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join("config.json");
        let json = read_json(&path)?;
        if json["model_type"] != "bert" {
            let message = format!(
                "model type {} is not supported for embeddings, only bert is",
                json["model_type"]
            );
            return Err(LoadError::unsupported(&path, message));
        }
        for (key, wanted) in [
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ] {
            if json[key].as_str().is_some_and(|value| value != wanted) {
                return Err(LoadError::unsupported(
                    &path,
                    format!("{key} {} is not supported", json[key]),
                ));
            }
        }
        let size = |key: &str| {
            let value = json[key]
                .as_u64()
                .filter(|value| (1..1 << 22).contains(value));
            value.map(|value| value as usize).ok_or_else(|| {
                LoadError::broken(&path, format!("{key} is missing or out of range"))
            })
        };
        let config = Self {
            hidden: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            feed_forward: size("intermediate_size")?,
            vocabulary: size("vocab_size")?,
            positions: size("max_position_embeddings")?,
            types: size("type_vocab_size")?,
            norm_epsilon: json["layer_norm_eps"].as_f64().unwrap_or(1e-12),
            max_tokens: size("max_position_embeddings")?.min(max_sequence(directory)?),
        };
        if !config.hidden.is_multiple_of(config.heads) || config.max_tokens < 3 {
            return Err(LoadError::broken(
                &path,
                "heads, hidden size and sequence length do not fit",
            ));
        }
        check_pooling(directory)?;
        Ok(config)
    }
}

/// The length that sentence-transformers cuts at.
fn max_sequence(directory: &Path) -> Result<usize, LoadError> {
    let path = directory.join("sentence_bert_config.json");
    if !path.exists() {
        return Ok(usize::MAX);
    }
    Ok(read_json(&path)?["max_seq_length"]
        .as_u64()
        .map_or(usize::MAX, |length| length as usize))
}

/// Only mean pooling is built; another kind would give vectors that look right and are not.
fn check_pooling(directory: &Path) -> Result<(), LoadError> {
    let path = directory.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(());
    }
    let json = read_json(&path)?;
    let on = |key: &str| json[key] == Json::Bool(true);
    let others = [
        "pooling_mode_cls_token",
        "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
    ];
    if !on("pooling_mode_mean_tokens") || others.into_iter().any(on) {
        return Err(LoadError::unsupported(
            &path,
            "only mean pooling is supported",
        ));
    }
    Ok(())
}

impl Embedder {
    /// Loads a directory with `config.json`, `tokenizer.json` and `model.safetensors`.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let config = BertConfig::from_directory(path)?;
        let tokenizer = load_tokenizer(&path.join("tokenizer.json"), config.max_tokens)?;
        let weights = Weights::open_safetensors(path)?;
        let bert = Bert::load(&weights, &config, path)?;
        Ok(Self {
            config,
            tokenizer,
            bert,
        })
    }

    /// The width of the vectors.
    pub fn dimensions(&self) -> usize {
        self.config.hidden
    }

    /// The longest text in tokens; what lies beyond is not read.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Embeds texts. Blocks; call it off the async runtime.
    pub fn embed(&self, texts: &[String]) -> Result<Embeddings, EmbedError> {
        if texts.len() > MAX_TEXTS {
            return Err(EmbedError::InvalidRequest(format!(
                "{} texts in one call, at most {MAX_TEXTS} are accepted",
                texts.len()
            )));
        }
        let tokens: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| self.encode(text))
            .collect::<Result<_, _>>()?;
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in batches(&tokens) {
            let rows: Vec<&[u32]> = batch
                .iter()
                .map(|index| tokens[*index].as_slice())
                .collect();
            let pooled = self
                .pooled(&rows)
                .map_err(|error| EmbedError::Internal(error.to_string()))?;
            for (index, vector) in batch.into_iter().zip(pooled) {
                vectors[index] = vector;
            }
        }
        Ok(Embeddings {
            vectors,
            token_counts: tokens.iter().map(Vec::len).collect(),
        })
    }

    /// One text's token vectors at every depth.
    pub fn hidden_states(&self, text: &str) -> Result<HiddenStates, EmbedError> {
        let token_ids = self.encode(text)?;
        let layers = self
            .bert
            .forward(&[&token_ids], self.config.layers)
            .and_then(|layers| layers.iter().map(|layer| layer.get(0)?.to_vec2()).collect())
            .map_err(|error| EmbedError::Internal(error.to_string()))?;
        Ok(HiddenStates { token_ids, layers })
    }

    /// How many layers the encoder has.
    pub fn layers(&self) -> usize {
        self.config.layers
    }

    /// One text's tokens, special tokens included, cut at the longest text.
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        self.encode(text)
    }

    /// One text's token vectors after this layer, 0 for those that the first layer reads; after
    /// the last when none is named. Layers beyond are not computed.
    pub fn token_vectors(
        &self,
        text: &str,
        layer: Option<usize>,
    ) -> Result<TokenVectors, EmbedError> {
        let layer = layer.unwrap_or(self.config.layers);
        if layer > self.config.layers {
            return Err(EmbedError::InvalidRequest(format!(
                "there is no layer {layer}: the model has {}",
                self.config.layers
            )));
        }
        let token_ids = self.encode(text)?;
        let vectors = self
            .bert
            .forward(&[&token_ids], layer)
            .and_then(|states| match states.last() {
                Some(state) => state.get(0)?.to_vec2(),
                None => Ok(Vec::new()),
            })
            .map_err(|error| EmbedError::Internal(error.to_string()))?;
        Ok(TokenVectors { token_ids, vectors })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, EmbedError> {
        let encoding = self.tokenizer.encode_fast(text, true);
        let encoding = encoding.map_err(|error| EmbedError::Internal(error.to_string()))?;
        let ids = encoding.get_ids();
        if ids.iter().any(|id| *id as usize >= self.config.vocabulary) {
            return Err(EmbedError::Internal(
                "the tokenizer and the model do not fit".to_owned(),
            ));
        }
        Ok(ids.to_vec())
    }

    /// Mean over each row's own tokens, brought to length 1.
    fn pooled(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        let layers = self.bert.forward(rows, self.config.layers)?;
        let Some(last) = layers.last() else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let mean = last
                .get(index)?
                .narrow(0, 0, row.len())?
                .mean(0)?
                .to_vec1::<f32>()?;
            let length = mean
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt()
                .max(1e-12);
            out.push(
                mean.iter()
                    .map(|x| (f64::from(*x) / length) as f32)
                    .collect(),
            );
        }
        Ok(out)
    }
}

/// Rows of similar length together: padding is work for nothing.
fn batches(tokens: &[Vec<u32>]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|index| tokens[*index].len());
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let length = tokens[index].len();
        match batches.last_mut() {
            Some(batch)
                if batch.len() < MAX_BATCH_ROWS
                    && (batch.len() + 1) * length <= MAX_BATCH_TOKENS =>
            {
                batch.push(index);
            }
            _ => batches.push(vec![index]),
        }
    }
    batches
}

fn load_tokenizer(path: &Path, max_tokens: usize) -> Result<tokenizers::Tokenizer, LoadError> {
    let text = std::fs::read(path).map_err(|error| LoadError::io(path, &error))?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(&text)
        .map_err(|error| LoadError::broken(path, error.to_string()))?;
    let truncation = tokenizers::TruncationParams {
        max_length: max_tokens,
        ..Default::default()
    };
    tokenizer
        .with_truncation(Some(truncation))
        .map_err(|error| LoadError::broken(path, error.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The encoder's weights.
#[derive(Debug)]
struct Bert {
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
}

#[derive(Debug)]
struct Layer {
    query: Affine,
    key: Affine,
    value: Affine,
    attention_output: Affine,
    attention_norm: Norm,
    intermediate: Affine,
    output: Affine,
    output_norm: Norm,
}

/// `x · Wᵀ + b`.
#[derive(Debug)]
struct Affine {
    transposed: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

/// Reads tensors by name; some exports put `bert.` before every name.
struct Loader<'a> {
    weights: &'a Weights,
    config: &'a BertConfig,
    prefix: &'static str,
    path: &'a Path,
}

impl Loader<'_> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let values = self
            .weights
            .floats(&format!("{}{name}", self.prefix), shape)?;
        Tensor::from_vec(values, shape, &Device::Cpu)
            .map_err(|error| LoadError::broken(self.path, format!("tensor {name}: {error}")))
    }

    fn affine(&self, name: &str, out: usize, input: usize) -> Result<Affine, LoadError> {
        let weight = self.tensor(&format!("{name}.weight"), &[out, input])?;
        let transposed = weight
            .t()
            .map_err(|error| LoadError::broken(self.path, error.to_string()))?;
        Ok(Affine {
            transposed,
            bias: self.tensor(&format!("{name}.bias"), &[out])?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        let width = self.config.hidden;
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"), &[width])?,
            bias: self.tensor(&format!("{name}.bias"), &[width])?,
            epsilon: self.config.norm_epsilon,
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (width, inner) = (self.config.hidden, self.config.feed_forward);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Layer {
            query: self.affine(&name("attention.self.query"), width, width)?,
            key: self.affine(&name("attention.self.key"), width, width)?,
            value: self.affine(&name("attention.self.value"), width, width)?,
            attention_output: self.affine(&name("attention.output.dense"), width, width)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            intermediate: self.affine(&name("intermediate.dense"), inner, width)?,
            output: self.affine(&name("output.dense"), width, inner)?,
            output_norm: self.norm(&name("output.LayerNorm"))?,
        })
    }
}

impl Bert {
    fn load(weights: &Weights, config: &BertConfig, path: &Path) -> Result<Self, LoadError> {
        let plain = weights.contains("embeddings.word_embeddings.weight");
        let loader = Loader {
            weights,
            config,
            prefix: if plain { "" } else { "bert." },
            path,
        };
        let table = |name: &str, rows: usize| {
            loader.tensor(
                &format!("embeddings.{name}_embeddings.weight"),
                &[rows, config.hidden],
            )
        };
        Ok(Self {
            words: table("word", config.vocabulary)?,
            positions: table("position", config.positions)?,
            types: table("token_type", config.types)?,
            norm: loader.norm("embeddings.LayerNorm")?,
            layers: (0..config.layers)
                .map(|index| loader.layer(index))
                .collect::<Result<_, _>>()?,
            heads: config.heads,
        })
    }

    /// Hidden states down to a depth, each `rows × longest × hidden`. Rows shorter than the
    /// longest are padded, and nothing attends to the padding.
    fn forward(&self, rows: &[&[u32]], depth: usize) -> Result<Vec<Tensor>, candle_core::Error> {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut ids = vec![0u32; rows.len() * longest];
        let mut mask = vec![f32::MIN / 2.0; rows.len() * longest];
        for (index, row) in rows.iter().enumerate() {
            ids[index * longest..][..row.len()].copy_from_slice(row);
            mask[index * longest..][..row.len()].fill(0.0);
        }
        let ids = Tensor::from_vec(ids, rows.len() * longest, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, (rows.len(), 1, 1, longest), &Device::Cpu)?;
        let words = self
            .words
            .index_select(&ids, 0)?
            .reshape((rows.len(), longest, ()))?;
        let positions = self.positions.narrow(0, 0, longest)?;
        let types = self.types.get(0)?;
        let sum = words.broadcast_add(&positions)?.broadcast_add(&types)?;
        let mut states = vec![self.norm.apply(&sum)?];
        for layer in self.layers.iter().take(depth) {
            let next = layer.forward(&states[states.len() - 1], &mask, self.heads)?;
            states.push(next);
        }
        Ok(states)
    }
}

impl Layer {
    fn forward(
        &self,
        input: &Tensor,
        mask: &Tensor,
        heads: usize,
    ) -> Result<Tensor, candle_core::Error> {
        let (rows, length, width) = input.dims3()?;
        let split = |x: Tensor| {
            x.reshape((rows, length, heads, width / heads))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (query, key, value) = (
            split(self.query.apply(input)?)?,
            split(self.key.apply(input)?)?,
            split(self.value.apply(input)?)?,
        );
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(mask)?;
        let attended = softmax(&scores, D::Minus1)?.matmul(&value)?;
        let attended = attended.transpose(1, 2)?.reshape((rows, length, width))?;
        let attended = self
            .attention_norm
            .apply(&(self.attention_output.apply(&attended)? + input)?)?;
        let inner = self.intermediate.apply(&attended)?.gelu_erf()?;
        self.output_norm
            .apply(&(self.output.apply(&inner)? + attended)?)
    }
}

impl Affine {
    fn apply(&self, input: &Tensor) -> Result<Tensor, candle_core::Error> {
        // One flat product instead of one per row of the batch.
        let (rows, length, width) = input.dims3()?;
        let flat = input
            .reshape((rows * length, width))?
            .matmul(&self.transposed)?;
        flat.broadcast_add(&self.bias)?.reshape((rows, length, ()))
    }
}

impl Norm {
    fn apply(&self, input: &Tensor) -> Result<Tensor, candle_core::Error> {
        let input = input.to_dtype(DType::F32)?;
        let centred = input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = centred.broadcast_div(&(variance + self.epsilon)?.sqrt()?)?;
        normed
            .broadcast_mul(&self.weight)?
            .broadcast_add(&self.bias)
    }
}
