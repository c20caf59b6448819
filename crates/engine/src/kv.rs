//! Keys and values of one sequence, for all layers.
//!
//! 16-bit floats, as other engines keep them: half the memory and half the
//! reading. Room grows in steps as the sequence does; the scheduler decides
//! whether there is memory for the next step.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::config::DecoderConfig;

/// The memory of one sequence.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    width: usize,
    tokens: usize,
    /// Tokens that memory is reserved for.
    room: usize,
}

/// One layer: `tokens × width` keys and as many values.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) keys: Vec<f16>,
    pub(crate) values: Vec<f16>,
}

impl KvCache {
    /// An empty cache without room.
    pub(crate) fn new(config: &DecoderConfig) -> Self {
        let layers = (0..config.layers).map(|_| Layer {
            keys: Vec::new(),
            values: Vec::new(),
        });
        Self {
            layers: layers.collect(),
            width: config.kv_heads * config.head_width,
            tokens: 0,
            room: 0,
        }
    }

    /// Tokens that memory is reserved for.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Reserves memory for `room` tokens in all.
    pub(crate) fn grow(&mut self, room: usize) {
        for layer in &mut self.layers {
            for stored in [&mut layer.keys, &mut layer.values] {
                stored.reserve_exact((room * self.width).saturating_sub(stored.len()));
            }
        }
        self.room = self.room.max(room);
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self) {
        for layer in &mut self.layers {
            (layer.keys, layer.values) = (Vec::new(), Vec::new());
        }
        (self.tokens, self.room) = (0, 0);
    }

    /// Tokens that all layers hold.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds the keys and values of new tokens to one layer.
    pub(crate) fn extend(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let layer = &mut self.layers[layer];
        for (stored, new) in [(&mut layer.keys, keys), (&mut layer.values, values)] {
            let from = stored.len();
            stored.resize(from + new.len(), f16::ZERO);
            stored[from..].convert_from_f32_slice(new);
        }
    }

    /// Says that all layers got `count` more tokens.
    pub(crate) fn advance(&mut self, count: usize) {
        self.tokens += count;
        debug_assert!(
            self.layers
                .iter()
                .all(|l| l.keys.len() == self.tokens * self.width)
        );
    }

    pub(crate) fn layer(&self, layer: usize) -> &Layer {
        &self.layers[layer]
    }
}
