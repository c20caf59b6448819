//! The seam between the decoder and its weights: `y = x · Wᵀ`.
//!
//! The decoder only knows [`Linear`]; quantised blocks and plain floats are the
//! two implementations. Activations carry their 8-bit form with them, made once
//! and shared by all projections that read the same rows (q, k and v; gate and
//! up).

mod dense;
mod kernels;
mod quant;
mod self_check;

pub(crate) use dense::DenseLinear;
pub(crate) use kernels::Isa;
pub(crate) use quant::{QuantLinear, QuantMatrix};

use std::sync::OnceLock;

use crate::pool::{Pool, SharedSlice};

/// Values per quantisation block.
pub(crate) const BLOCK: usize = 32;

/// A projection. Rows go in, rows come out.
pub(crate) trait Linear: Send + Sync + std::fmt::Debug {
    /// Width of an output row.
    fn out_features(&self) -> usize;
    /// Into how many parts that may run at once the product is split for so many threads.
    fn parts(&self, input: &Activations<'_>, threads: usize) -> usize;
    /// Computes part `index` of `count` of the `rows × out_features` values. The output has that
    /// size, and different parts write different values.
    fn run_part(
        &self,
        input: &Activations<'_>,
        index: usize,
        count: usize,
        output: &SharedSlice<f32>,
    );
    /// Writes row `index` of the weights; this is how a tied embedding is read.
    fn weight_row(&self, index: usize, output: &mut [f32]);
}

/// Multiplies the same rows with several projections in one job of the pool: a job's end makes
/// every thread wait, and a decoded token has few multiplications between two ends.
pub(crate) fn forward<const N: usize>(
    linears: [&dyn Linear; N],
    input: &Activations<'_>,
    pool: &mut Pool,
) -> [Vec<f32>; N] {
    let mut outputs = linears.map(|linear| vec![0.0; input.rows() * linear.out_features()]);
    let parts = linears.map(|linear| linear.parts(input, pool.threads()));
    let shared = outputs.each_mut().map(|output| SharedSlice::new(output));
    pool.run(parts.iter().sum(), &|task| {
        let mut index = task;
        for ((linear, count), output) in linears.iter().zip(parts).zip(&shared) {
            if index < count {
                return linear.run_part(input, index, count, output);
            }
            index -= count;
        }
    });
    outputs
}

/// Rows of floats, and their quantised form once somebody asked for it.
pub(crate) struct Activations<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) width: usize,
    quantised: OnceLock<QuantRows>,
}

/// Rows as 8-bit blocks: `value ≈ scale · byte`.
pub(crate) struct QuantRows {
    pub(crate) bytes: Vec<i8>,
    /// One per block.
    pub(crate) scales: Vec<f32>,
    /// `scale · Σ bytes` of each block, for weights that have an offset.
    pub(crate) sums: Vec<f32>,
}

impl<'a> Activations<'a> {
    pub(crate) fn new(values: &'a [f32], width: usize) -> Self {
        debug_assert!(values.len().is_multiple_of(width), "ragged activations");
        Self {
            values,
            width,
            quantised: OnceLock::new(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// The 8-bit form. The width must be a multiple of [`BLOCK`].
    pub(crate) fn quantised(&self) -> &QuantRows {
        self.quantised
            .get_or_init(|| kernels::quantise_rows(self.values))
    }
}
