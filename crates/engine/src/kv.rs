//! Keys and values of one sequence, for all layers.
//!
//! 16-bit floats, as other engines keep them: half the memory and half the
//! reading. Memory comes in pages of 64 tokens; the scheduler decides whether there
//! is room for the next. Inside a page the keys of a head lie dimension by dimension,
//! so that one query value meets 64 keys at once and no sums across a vector are needed.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::config::DecoderConfig;

/// Tokens per page.
pub(crate) const PAGE: usize = 64;

/// The memory of one sequence.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    kv_heads: usize,
    head_width: usize,
    tokens: usize,
    /// Tokens that memory is reserved for.
    room: usize,
}

/// One layer: whole pages, in each page one part per key/value head.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    /// Per page and head: `head_width × PAGE`.
    keys: Vec<f16>,
    /// Per page and head: `PAGE × head_width`.
    values: Vec<f16>,
}

impl Layer {
    /// Writes the keys and values of new tokens, `kv_heads × head_width` each, from position
    /// `first` on.
    pub(crate) fn write(
        &mut self,
        first: usize,
        (kv_heads, head_width): (usize, usize),
        keys: &[f32],
        values: &[f32],
    ) {
        let width = kv_heads * head_width;
        let count = keys.len() / width;
        let length = (first + count).next_multiple_of(PAGE) * width;
        let mut row = vec![f16::ZERO; width];
        for stored in [&mut self.keys, &mut self.values] {
            stored.resize(length, f16::ZERO);
        }
        for (index, (keys, values)) in keys
            .chunks_exact(width)
            .zip(values.chunks_exact(width))
            .enumerate()
        {
            let (page, slot) = ((first + index) / PAGE, (first + index) % PAGE);
            let page = page * PAGE * width..(page + 1) * PAGE * width;
            row.convert_from_f32_slice(keys);
            let places = self.keys[page.clone()].iter_mut().skip(slot).step_by(PAGE);
            places.zip(&row).for_each(|(place, key)| *place = *key);
            row.convert_from_f32_slice(values);
            let heads = self.values[page].chunks_exact_mut(PAGE * head_width);
            for (head, row) in heads.zip(row.chunks_exact(head_width)) {
                head[slot * head_width..][..head_width].copy_from_slice(row);
            }
        }
    }

    /// The keys of one head in one page, as floats: `head_width × PAGE`.
    pub(crate) fn read_keys(&self, part: usize, out: &mut [f32]) {
        self.keys[part * out.len()..][..out.len()].convert_to_f32_slice(out);
    }

    /// The values of the first tokens of one head in one page, as floats.
    pub(crate) fn read_values(&self, part: usize, tokens: usize, out: &mut [f32]) {
        let used = out.len() / PAGE * tokens;
        self.values[part * out.len()..][..used].convert_to_f32_slice(&mut out[..used]);
    }
}

impl KvCache {
    /// An empty cache without room.
    pub(crate) fn new(config: &DecoderConfig) -> Self {
        Self {
            layers: (0..config.layers).map(|_| Layer::default()).collect(),
            kv_heads: config.kv_heads,
            head_width: config.head_width,
            tokens: 0,
            room: 0,
        }
    }

    /// Tokens that memory is reserved for.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Reserves memory for `room` tokens in all, whole pages.
    pub(crate) fn grow(&mut self, room: usize) {
        debug_assert!(room.is_multiple_of(PAGE), "room for a part of a page");
        let width = self.kv_heads * self.head_width;
        for layer in &mut self.layers {
            for stored in [&mut layer.keys, &mut layer.values] {
                stored.reserve_exact((room * width).saturating_sub(stored.len()));
            }
        }
        self.room = self.room.max(room);
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self) {
        self.layers.fill_with(Layer::default);
        (self.tokens, self.room) = (0, 0);
    }

    /// Tokens that all layers hold.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds the keys and values of new tokens to one layer.
    pub(crate) fn extend(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let heads = (self.kv_heads, self.head_width);
        self.layers[layer].write(self.tokens, heads, keys, values);
    }

    /// Says that all layers got `count` more tokens.
    pub(crate) fn advance(&mut self, count: usize) {
        self.tokens += count;
        debug_assert!(self.tokens <= self.room, "more tokens than room");
    }

    pub(crate) fn layer(&self, layer: usize) -> &Layer {
        &self.layers[layer]
    }
}
