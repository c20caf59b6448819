//! Weights as integer blocks of 32, packed for the kernels.
//!
//! Two forms cover every file: nibbles with scale and offset (Q4_0 and Q4_1 keep
//! their exact values) and signed bytes with a scale and sometimes an offset
//! (Q8_0, Q5_0 and Q5_1 exactly; K-quants and floats are rounded to Q8_0). Eight
//! rows are interleaved, four consecutive values of each at a time, so that one
//! 32-byte vector serves eight output values and no horizontal sums are needed.

use std::ops::Range;

use candle_core::quantized::GgmlDType;
use half::f16;

use super::kernels::{self, Isa};
use super::{Activations, BLOCK, Linear};
use crate::pool::SharedSlice;

/// Rows that are interleaved.
pub(crate) const GROUP: usize = 8;

/// Products below this many multiplications are not worth waking another thread for.
const SMALL_PRODUCT: usize = 1 << 16;

/// A packed weight matrix.
#[derive(Debug)]
pub(crate) struct QuantMatrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) width: Width,
    /// Per group, per block: 128 or 256 bytes.
    pub(crate) data: Vec<u8>,
    /// Per group, per block: eight scales.
    pub(crate) scales: Vec<f16>,
    /// Per group, per block: eight offsets; empty when there are none.
    pub(crate) offsets: Vec<f16>,
}

/// Bits per value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// Unsigned nibbles.
    Four,
    /// Signed bytes.
    Eight,
}

/// One block of one row before packing.
struct Block {
    values: [u8; BLOCK],
    scale: f16,
    offset: f16,
}

impl QuantMatrix {
    /// Packs a matrix stored as `dtype`; other types than the 32-wide ones must come as floats
    /// through [`Self::from_floats`]. `None` if the shape or type does not fit.
    pub(crate) fn from_blocks(
        dtype: GgmlDType,
        bytes: &[u8],
        rows: usize,
        columns: usize,
    ) -> Option<Self> {
        let (width, has_offsets, read): (_, _, fn(&[u8]) -> Block) = match dtype {
            GgmlDType::Q4_0 => (Width::Four, true, read_q4_0),
            GgmlDType::Q4_1 => (Width::Four, true, read_q4_1),
            GgmlDType::Q5_0 => (Width::Eight, false, read_q5_0),
            GgmlDType::Q5_1 => (Width::Eight, true, read_q5_1),
            GgmlDType::Q8_0 => (Width::Eight, false, read_q8_0),
            _ => return None,
        };
        let size = dtype.type_size();
        if !columns.is_multiple_of(BLOCK) || bytes.len() != rows * columns / BLOCK * size {
            return None;
        }
        let mut matrix = Self::zeros(rows, columns, width, has_offsets);
        for (index, block) in bytes.chunks_exact(size).enumerate() {
            matrix.put(index, &read(block));
        }
        Some(matrix)
    }

    /// Rounds floats to Q8_0.
    pub(crate) fn from_floats(values: &[f32], rows: usize, columns: usize) -> Option<Self> {
        if !columns.is_multiple_of(BLOCK) || values.len() != rows * columns {
            return None;
        }
        let mut matrix = Self::zeros(rows, columns, Width::Eight, false);
        for (index, block) in values.chunks_exact(BLOCK).enumerate() {
            matrix.put(index, &round_block(block));
        }
        Some(matrix)
    }

    pub(super) fn zeros(rows: usize, columns: usize, width: Width, has_offsets: bool) -> Self {
        let blocks = rows.next_multiple_of(GROUP) * (columns / BLOCK);
        let bytes = match width {
            Width::Four => BLOCK / 2,
            Width::Eight => BLOCK,
        };
        Self {
            rows,
            columns,
            width,
            data: vec![0; blocks * bytes],
            scales: vec![f16::ZERO; blocks],
            offsets: vec![f16::ZERO; if has_offsets { blocks } else { 0 }],
        }
    }

    pub(crate) fn blocks_per_row(&self) -> usize {
        self.columns / BLOCK
    }

    /// Puts block `index` (counted row by row) in its packed place.
    fn put(&mut self, index: usize, block: &Block) {
        let (row, column) = (index / self.blocks_per_row(), index % self.blocks_per_row());
        let cell = row / GROUP * self.blocks_per_row() + column;
        let lane = row % GROUP;
        self.scales[cell * GROUP + lane] = block.scale;
        if !self.offsets.is_empty() {
            self.offsets[cell * GROUP + lane] = block.offset;
        }
        match self.width {
            Width::Four => {
                let cell = &mut self.data[cell * GROUP * BLOCK / 2..][..GROUP * BLOCK / 2];
                for i in 0..BLOCK / 2 {
                    cell[i / 4 * 32 + lane * 4 + i % 4] =
                        block.values[i] | block.values[i + 16] << 4;
                }
            }
            Width::Eight => {
                let cell = &mut self.data[cell * GROUP * BLOCK..][..GROUP * BLOCK];
                for i in 0..BLOCK {
                    cell[i / 4 * 32 + lane * 4 + i % 4] = block.values[i];
                }
            }
        }
    }

    /// Writes the float values of one row.
    pub(crate) fn row(&self, row: usize, output: &mut [f32]) {
        let lane = row % GROUP;
        for (column, output) in output.chunks_exact_mut(BLOCK).enumerate() {
            let cell = row / GROUP * self.blocks_per_row() + column;
            let scale = self.scales[cell * GROUP + lane].to_f32();
            let offset = self
                .offsets
                .get(cell * GROUP + lane)
                .map_or(0.0, |m| m.to_f32());
            for (i, output) in output.iter_mut().enumerate() {
                *output = scale * self.integer(cell, lane, i) as f32 + offset;
            }
        }
    }

    /// The stored integer `i` of one block.
    pub(crate) fn integer(&self, cell: usize, lane: usize, i: usize) -> i32 {
        match self.width {
            Width::Four => {
                let at = cell * GROUP * BLOCK / 2 + i % 16 / 4 * 32 + lane * 4 + i % 4;
                i32::from(if i < 16 {
                    self.data[at] & 15
                } else {
                    self.data[at] >> 4
                })
            }
            Width::Eight => {
                i32::from(self.data[cell * GROUP * BLOCK + i / 4 * 32 + lane * 4 + i % 4] as i8)
            }
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }
}

fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| {
        if i < 16 {
            bytes[i] & 15
        } else {
            bytes[i - 16] >> 4
        }
    })
}

fn read_q4_0(block: &[u8]) -> Block {
    let scale = half_at(block, 0);
    Block {
        values: nibbles(&block[2..]),
        scale,
        offset: f16::from_f32(-8.0 * scale.to_f32()),
    }
}

fn read_q4_1(block: &[u8]) -> Block {
    Block {
        values: nibbles(&block[4..]),
        scale: half_at(block, 0),
        offset: half_at(block, 2),
    }
}

/// Five bits, made signed by taking 16 off.
fn five_bits(high: &[u8], low: &[u8]) -> [u8; BLOCK] {
    let nibbles = nibbles(low);
    std::array::from_fn(|i| (nibbles[i] | (high[i / 8] >> (i % 8) & 1) << 4).wrapping_sub(16))
}

fn read_q5_0(block: &[u8]) -> Block {
    Block {
        values: five_bits(&block[2..6], &block[6..]),
        scale: half_at(block, 0),
        offset: f16::ZERO,
    }
}

fn read_q5_1(block: &[u8]) -> Block {
    let scale = half_at(block, 0);
    let offset = half_at(block, 2).to_f32() + 16.0 * scale.to_f32();
    Block {
        values: five_bits(&block[4..8], &block[8..]),
        scale,
        offset: f16::from_f32(offset),
    }
}

fn read_q8_0(block: &[u8]) -> Block {
    let mut values = [0; BLOCK];
    values.copy_from_slice(&block[2..]);
    Block {
        values,
        scale: half_at(block, 0),
        offset: f16::ZERO,
    }
}

fn round_block(values: &[f32]) -> Block {
    let largest = values
        .iter()
        .fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = if scale.to_f32() > 0.0 {
        1.0 / scale.to_f32()
    } else {
        0.0
    };
    let round = |value: f32| (value * inverse).round().clamp(-127.0, 127.0) as i8 as u8;
    Block {
        values: std::array::from_fn(|i| round(values[i])),
        scale,
        offset: f16::ZERO,
    }
}

/// A quantised projection.
#[derive(Debug)]
pub(crate) struct QuantLinear {
    matrix: QuantMatrix,
    isa: Isa,
}

impl QuantLinear {
    pub(crate) fn new(matrix: QuantMatrix) -> Self {
        Self {
            matrix,
            isa: Isa::detect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn with_isa(matrix: QuantMatrix, isa: Isa) -> Self {
        Self { matrix, isa }
    }
}

impl Linear for QuantLinear {
    fn out_features(&self) -> usize {
        self.matrix.rows
    }

    fn parts(&self, input: &Activations<'_>, threads: usize) -> usize {
        assert_eq!(input.width, self.matrix.columns, "width of the input");
        // Made here, on one thread, and read by all.
        input.quantised();
        let work = input.rows() * self.matrix.rows * self.matrix.columns;
        // Several parts per thread, so that a thread that loses its core does not hold up all.
        if work < SMALL_PRODUCT {
            1
        } else {
            (threads * 4).min(self.matrix.groups())
        }
    }

    fn run_part(
        &self,
        input: &Activations<'_>,
        index: usize,
        count: usize,
        output: &SharedSlice<f32>,
    ) {
        let groups = self.matrix.groups();
        let range: Range<usize> = index * groups / count..(index + 1) * groups / count;
        kernels::multiply(self.isa, &self.matrix, input.quantised(), range, output);
    }

    fn weight_row(&self, index: usize, output: &mut [f32]) {
        self.matrix.row(index, output);
    }
}
