//! Keys and values of one sequence, for all layers.
//!
//! 16-bit floats, as other engines keep them: half the memory and half the
//! reading. Room is reserved for the longest the sequence may become; the
//! operating system only provides what is written.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::config::DecoderConfig;

/// The memory of one sequence.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<Layer>,
    width: usize,
    tokens: usize,
}

/// One layer: `tokens × width` keys and as many values.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) keys: Vec<f16>,
    pub(crate) values: Vec<f16>,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens.
    pub(crate) fn new(config: &DecoderConfig, capacity: usize) -> Self {
        let width = config.kv_heads * config.head_width;
        let room = || Vec::with_capacity(capacity * width);
        let layers = (0..config.layers)
            .map(|_| Layer {
                keys: room(),
                values: room(),
            })
            .collect();
        Self {
            layers,
            width,
            tokens: 0,
        }
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
