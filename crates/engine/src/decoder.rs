//! One decoder for the Llama and Qwen families, run on ragged batches.
//!
//! A step takes the new tokens of all running sequences, prompt parts and single
//! decode tokens alike, as one matrix: each projection is one product for all of
//! them, attention alone works per sequence. The block is parametric (grouped
//! heads, query/key norms, projection biases, both rope pairings, tied output)
//! and knows its weights only through [`Linear`].

use std::path::Path;

use crate::attention::{Task, silu_product};
use crate::chat::Precision;
use crate::config::{DecoderConfig, Pairing};
use crate::error::LoadError;
use crate::kv::KvCache;
use crate::linear::{self, Activations, Isa, Linear};
use crate::pool::{Pool, SharedSlice};
use crate::weights::Weights;

/// Query rows per attention task.
const ROWS_PER_TASK: usize = 16;

/// A decoder in memory.
#[derive(Debug)]
pub(crate) struct Decoder {
    pub(crate) config: DecoderConfig,
    frequencies: Vec<f64>,
    embedding: Box<dyn Linear>,
    blocks: Vec<Block>,
    final_norm: Vec<f32>,
    /// `None`: the embedding is the output matrix too.
    head: Option<Box<dyn Linear>>,
    isa: Isa,
}

#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    query: Projection,
    key: Projection,
    value: Projection,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    output: Projection,
    feed_forward_norm: Vec<f32>,
    gate: Projection,
    up: Projection,
    down: Projection,
}

/// A linear layer with its bias, if it has one.
#[derive(Debug)]
struct Projection {
    linear: Box<dyn Linear>,
    bias: Option<Vec<f32>>,
}

/// One sequence's new tokens in a step.
pub(crate) struct Span<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) cache: &'a mut KvCache,
    /// After how many of them, counted from the last, the logits are wanted.
    pub(crate) logits: usize,
}

/// How a file calls the tensors of the block.
struct Names {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    layer: &'static str,
    parts: [&'static str; 11],
}

const GGUF_NAMES: Names = Names {
    embedding: "token_embd",
    final_norm: "output_norm",
    head: "output",
    layer: "blk",
    parts: [
        "attn_norm",
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_q_norm",
        "attn_k_norm",
        "attn_output",
        "ffn_norm",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ],
};

const SAFETENSORS_NAMES: Names = Names {
    embedding: "model.embed_tokens",
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers",
    parts: [
        "input_layernorm",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.q_norm",
        "self_attn.k_norm",
        "self_attn.o_proj",
        "post_attention_layernorm",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
};

/// What a tensor loader needs to know, in one place.
struct Loader<'a> {
    weights: &'a Weights,
    config: &'a DecoderConfig,
    precision: Precision,
    names: &'a Names,
}

impl Loader<'_> {
    fn part(&self, layer: usize, part: usize) -> String {
        format!("{}.{layer}.{}", self.names.layer, self.names.parts[part])
    }

    fn projection(
        &self,
        layer: usize,
        part: usize,
        out: usize,
        input: usize,
    ) -> Result<Projection, LoadError> {
        let name = self.part(layer, part);
        Ok(Projection {
            linear: self
                .weights
                .linear(&format!("{name}.weight"), out, input, self.precision)?,
            bias: self
                .weights
                .optional_floats(&format!("{name}.bias"), &[out])?,
        })
    }

    fn norm(&self, layer: usize, part: usize) -> Result<Vec<f32>, LoadError> {
        self.weights.floats(
            &format!("{}.weight", self.part(layer, part)),
            &[self.config.hidden],
        )
    }

    fn head_norm(&self, layer: usize, part: usize) -> Result<Option<Vec<f32>>, LoadError> {
        let name = format!("{}.weight", self.part(layer, part));
        self.weights
            .optional_floats(&name, &[self.config.head_width])
    }

    fn block(&self, layer: usize) -> Result<Block, LoadError> {
        let c = self.config;
        let (queries, keys) = (c.heads * c.head_width, c.kv_heads * c.head_width);
        Ok(Block {
            attention_norm: self.norm(layer, 0)?,
            query: self.projection(layer, 1, queries, c.hidden)?,
            key: self.projection(layer, 2, keys, c.hidden)?,
            value: self.projection(layer, 3, keys, c.hidden)?,
            query_norm: self.head_norm(layer, 4)?,
            key_norm: self.head_norm(layer, 5)?,
            output: self.projection(layer, 6, c.hidden, queries)?,
            feed_forward_norm: self.norm(layer, 7)?,
            gate: self.projection(layer, 8, c.feed_forward, c.hidden)?,
            up: self.projection(layer, 9, c.feed_forward, c.hidden)?,
            down: self.projection(layer, 10, c.hidden, c.feed_forward)?,
        })
    }
}

impl Decoder {
    /// Reads all weights. GGUF and safetensors differ in names only; the config knows the rest.
    pub(crate) fn load(
        weights: &Weights,
        config: DecoderConfig,
        precision: Precision,
        is_gguf: bool,
        path: &Path,
    ) -> Result<Self, LoadError> {
        let names = if is_gguf {
            &GGUF_NAMES
        } else {
            &SAFETENSORS_NAMES
        };
        let loader = Loader {
            weights,
            config: &config,
            precision,
            names,
        };
        let matrix = |name: &str| {
            weights.linear(
                &format!("{name}.weight"),
                config.vocabulary,
                config.hidden,
                precision,
            )
        };
        let head_name = format!("{}.weight", names.head);
        let tied = config
            .tied_embedding
            .unwrap_or(!weights.contains(&head_name));
        let divisors = weights.optional_floats("rope_freqs.weight", &[config.head_width / 2])?;
        if divisors
            .iter()
            .flatten()
            .any(|d| !d.is_finite() || *d <= 0.0)
        {
            return Err(LoadError::broken(
                path,
                "rope_freqs.weight holds a factor that is not positive",
            ));
        }
        Ok(Self {
            frequencies: config
                .rope
                .frequencies(config.head_width, divisors.as_deref()),
            embedding: matrix(names.embedding)?,
            blocks: (0..config.layers)
                .map(|layer| loader.block(layer))
                .collect::<Result<_, _>>()?,
            final_norm: weights
                .floats(&format!("{}.weight", names.final_norm), &[config.hidden])?,
            head: if tied {
                None
            } else {
                Some(matrix(names.head)?)
            },
            isa: Isa::detect(),
            config,
        })
    }

    /// Runs one step. Returns the rows of logits that spans want, in order.
    pub(crate) fn step(&self, spans: &mut [Span<'_>], pool: &mut Pool) -> Vec<f32> {
        let mut hidden = self.embed(spans);
        let turns = self.turns(spans);
        for (layer, block) in self.blocks.iter().enumerate() {
            self.attend(layer, block, &mut hidden, &turns, spans, pool);
            self.feed_forward(block, &mut hidden, pool);
        }
        for span in spans.iter_mut() {
            span.cache.advance(span.tokens.len());
        }
        self.logits(&hidden, spans, pool)
    }

    fn embed(&self, spans: &[Span<'_>]) -> Vec<f32> {
        let width = self.config.hidden;
        let tokens = || spans.iter().flat_map(|span| span.tokens);
        let mut hidden = vec![0.0; tokens().count() * width];
        for (row, token) in hidden.chunks_exact_mut(width).zip(tokens()) {
            // Tokens come from the tokenizer or were checked at the door.
            self.embedding
                .weight_row(*token as usize % self.config.vocabulary, row);
        }
        hidden
    }

    /// Cosine and sine of every row and pair, the same for all layers.
    fn turns(&self, spans: &[Span<'_>]) -> Vec<(f32, f32)> {
        let positions = spans
            .iter()
            .flat_map(|span| (0..span.tokens.len()).map(|offset| span.cache.tokens() + offset));
        positions
            .flat_map(|position| {
                self.frequencies
                    .iter()
                    .map(move |frequency| position as f64 * frequency)
            })
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .collect()
    }

    fn attend(
        &self,
        layer: usize,
        block: &Block,
        hidden: &mut [f32],
        turns: &[(f32, f32)],
        spans: &mut [Span<'_>],
        pool: &mut Pool,
    ) {
        let normed = self.normed(hidden, &block.attention_norm);
        let input = Activations::new(&normed, self.config.hidden);
        let [mut queries, mut keys, values] =
            apply([&block.query, &block.key, &block.value], &input, pool);
        let width = self.config.head_width;
        for (rows, norm) in [
            (&mut queries, &block.query_norm),
            (&mut keys, &block.key_norm),
        ] {
            if let Some(norm) = norm {
                normalise_in_place(rows, norm, self.config.norm_epsilon);
            }
        }
        rotate(
            &mut queries,
            turns,
            self.config.heads,
            width,
            self.config.rope.pairing,
        );
        rotate(
            &mut keys,
            turns,
            self.config.kv_heads,
            width,
            self.config.rope.pairing,
        );
        let kv_width = self.config.kv_heads * width;
        let mut row = 0;
        for span in spans.iter_mut() {
            let part = row * kv_width..(row + span.tokens.len()) * kv_width;
            span.cache.extend(layer, &keys[part.clone()], &values[part]);
            row += span.tokens.len();
        }
        let attended = self.attention(layer, &queries, spans, pool);
        let input = Activations::new(&attended, self.config.heads * width);
        let [output] = apply([&block.output], &input, pool);
        add(hidden, &output);
    }

    /// Attention of all spans, split into tasks over heads and rows.
    fn attention(
        &self,
        layer: usize,
        queries: &[f32],
        spans: &[Span<'_>],
        pool: &mut Pool,
    ) -> Vec<f32> {
        let c = &self.config;
        let stride = c.heads * c.head_width;
        let group = c.heads / c.kv_heads;
        let mut output = vec![0.0; queries.len()];
        let shared = SharedSlice::new(&mut output);
        let mut tasks = Vec::new();
        let mut first = 0;
        for span in spans {
            let count = span.tokens.len();
            for from in (0..count).step_by(ROWS_PER_TASK) {
                let rows = from..(from + ROWS_PER_TASK).min(count);
                tasks.extend((0..c.kv_heads).map(|kv_head| {
                    let task = Task {
                        cache: span.cache.layer(layer),
                        queries: &queries[first * stride..(first + count) * stride],
                        stride,
                        head_width: c.head_width,
                        kv_heads: c.kv_heads,
                        kv_head,
                        group,
                        rows: rows.clone(),
                        first_visible: span.cache.tokens() + 1,
                        isa: self.isa,
                    };
                    (first, task)
                }));
            }
            first += count;
        }
        let width = group * c.head_width;
        pool.run(tasks.len(), &|index| {
            let (first, task) = &tasks[index];
            let mut part = vec![0.0; task.rows.len() * width];
            task.run(&mut part);
            for (row, part) in task.rows.clone().zip(part.chunks_exact(width)) {
                #[expect(unsafe_code, reason = "tasks write disjoint parts of one buffer")]
                // SAFETY: each task owns its rows of its heads.
                unsafe { shared.part((first + row) * stride + task.kv_head * width, width) }
                    .copy_from_slice(part);
            }
        });
        output
    }

    fn feed_forward(&self, block: &Block, hidden: &mut [f32], pool: &mut Pool) {
        let normed = self.normed(hidden, &block.feed_forward_norm);
        let input = Activations::new(&normed, self.config.hidden);
        let [mut gate, up] = apply([&block.gate, &block.up], &input, pool);
        silu_product(self.isa, &mut gate, &up);
        let input = Activations::new(&gate, self.config.feed_forward);
        let [down] = apply([&block.down], &input, pool);
        add(hidden, &down);
    }

    /// Logits of the last rows of each span that wants them: the output matrix is a fifth of a
    /// small model's weights, so no other row pays for it.
    fn logits(&self, hidden: &[f32], spans: &[Span<'_>], pool: &mut Pool) -> Vec<f32> {
        let width = self.config.hidden;
        let mut last = Vec::new();
        let mut row = 0;
        for span in spans {
            row += span.tokens.len();
            last.extend_from_slice(&hidden[(row - span.logits) * width..row * width]);
        }
        if last.is_empty() {
            return Vec::new();
        }
        let normed = self.normed(&last, &self.final_norm);
        let input = Activations::new(&normed, width);
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let [logits] = linear::forward([&**head], &input, pool);
        logits
    }

    fn normed(&self, rows: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut rows = rows.to_vec();
        normalise_in_place(&mut rows, weight, self.config.norm_epsilon);
        rows
    }
}

/// Several projections of the same rows, biases added.
fn apply<const N: usize>(
    projections: [&Projection; N],
    input: &Activations<'_>,
    pool: &mut Pool,
) -> [Vec<f32>; N] {
    let linears = projections.map(|projection| &*projection.linear);
    let mut outputs = linear::forward(linears, input, pool);
    for (projection, output) in projections.iter().zip(&mut outputs) {
        if let Some(bias) = &projection.bias {
            output
                .chunks_exact_mut(bias.len())
                .for_each(|row| add(row, bias));
        }
    }
    outputs
}

/// Root-mean-square norm of each run of `weight.len()` values.
fn normalise_in_place(rows: &mut [f32], weight: &[f32], epsilon: f32) {
    for row in rows.chunks_exact_mut(weight.len()) {
        let mut squares = [0f32; 16];
        let (lanes, rest) = row.as_chunks::<16>();
        for part in lanes {
            for (sum, value) in squares.iter_mut().zip(part) {
                *sum += value * value;
            }
        }
        let sum: f32 = squares.iter().sum::<f32>() + rest.iter().map(|v| v * v).sum::<f32>();
        let scale = 1.0 / (sum / weight.len() as f32 + epsilon).sqrt();
        for (value, weight) in row.iter_mut().zip(weight) {
            *value *= scale * weight;
        }
    }
}

/// Turns each head of each row by its position's angles.
fn rotate(rows: &mut [f32], turns: &[(f32, f32)], heads: usize, width: usize, pairing: Pairing) {
    let half = width / 2;
    for (row, turns) in rows
        .chunks_exact_mut(heads * width)
        .zip(turns.chunks_exact(half))
    {
        for head in row.chunks_exact_mut(width) {
            for (pair, (cos, sin)) in turns.iter().enumerate() {
                let (a, b) = match pairing {
                    Pairing::Neighbours => (2 * pair, 2 * pair + 1),
                    Pairing::Halves => (pair, pair + half),
                };
                let (x, y) = (head[a], head[b]);
                head[a] = x * cos - y * sin;
                head[b] = x * sin + y * cos;
            }
        }
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}
