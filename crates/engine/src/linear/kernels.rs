//! Integer products of packed weights and 8-bit activations.
//!
//! One scalar version that says what is computed, one for AVX2 and one for
//! AVX-512 VNNI (256-bit vectors, same packing), chosen at run time. The
//! (each is compared with the scalar one before it is used, see `self_check`). The
//! versions differ only in the order of additions inside a block, which is exact,
//! and of the floating-point sums over blocks, which is the same in all: results
//! are equal up to fused rounding.

#![expect(
    unsafe_code,
    reason = "SIMD intrinsics; each block says why it is sound"
)]

use std::ops::Range;
use std::sync::OnceLock;

use half::f16;

use super::quant::{GROUP, QuantMatrix, Width};
use super::{BLOCK, QuantRows, self_check};
use crate::pool::SharedSlice;

/// Instruction set that the products use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Any machine.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The same with AVX-512 VNNI and VL.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Isa {
    /// The best one that this machine has and that computes what the scalar version does. Found
    /// out once per process.
    pub(crate) fn detect() -> Self {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| self_check::first_right(&Self::available(), self_check::product))
    }

    /// What this machine has, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
                found.push(Self::Vnni);
            }
            found.push(Self::Avx2);
        }
        found.push(Self::Scalar);
        found
    }
}

/// Rounds rows to 8-bit blocks. The scale is rounded to 16 bits after the bytes are made, as
/// llama.cpp does, so that both engines see the same integers.
pub(super) fn quantise_rows(values: &[f32]) -> QuantRows {
    let blocks = values.len() / BLOCK;
    let mut rows = QuantRows {
        bytes: vec![0; values.len()],
        scales: vec![0.0; blocks],
        sums: vec![0.0; blocks],
    };
    #[cfg(target_arch = "x86_64")]
    if Isa::detect() != Isa::Scalar {
        // SAFETY: the features were detected.
        unsafe { quantise_avx2(values, &mut rows) };
        return rows;
    }
    quantise_blocks(values, &mut rows);
    rows
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_avx2(values: &[f32], rows: &mut QuantRows) {
    quantise_blocks(values, rows);
}

#[inline(always)]
fn quantise_blocks(values: &[f32], rows: &mut QuantRows) {
    for (index, block) in values.chunks_exact(BLOCK).enumerate() {
        let mut largest = [0f32; 8];
        for part in block.chunks_exact(8) {
            for lane in 0..8 {
                largest[lane] = if part[lane].abs() > largest[lane] {
                    part[lane].abs()
                } else {
                    largest[lane]
                };
            }
        }
        let largest = largest.iter().fold(0f32, |a, b| a.max(*b));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sum = 0i32;
        for (byte, value) in rows.bytes[index * BLOCK..][..BLOCK].iter_mut().zip(block) {
            // Adding 1.5·2²³ leaves the nearest whole number, ties to even, in the low bits.
            let integer = (value * inverse + 12_582_912.0).to_bits() as i32 - 0x4B40_0000;
            sum += integer;
            *byte = integer as i8;
        }
        let scale = f16::from_f32(largest / 127.0).to_f32();
        rows.scales[index] = scale;
        // llama.cpp keeps this product in 16 bits; a more exact one moves logits by about 0.05 and
        // with them the choice between near ties.
        rows.sums[index] = f16::from_f32(largest / 127.0 * sum as f32).to_f32();
    }
}

/// Multiplies all rows with the given groups of eight weight rows.
pub(super) fn multiply(
    isa: Isa,
    matrix: &QuantMatrix,
    input: &QuantRows,
    groups: Range<usize>,
    output: &SharedSlice<f32>,
) {
    let blocks = matrix.blocks_per_row();
    let rows = input.scales.len() / blocks;
    for group in groups {
        let mut row = 0;
        while row < rows {
            let tile = if rows - row >= 4 { 4 } else { 1 };
            let mut sums = [[0f32; GROUP]; 4];
            tile_product(isa, matrix, input, group, row, tile, &mut sums);
            let lanes = GROUP.min(matrix.rows - group * GROUP);
            for (offset, sums) in sums.iter().take(tile).enumerate() {
                let from = (row + offset) * matrix.rows + group * GROUP;
                // SAFETY: each (row, group) is written by the one task that owns the group.
                unsafe { output.part(from, lanes) }.copy_from_slice(&sums[..lanes]);
            }
            row += tile;
        }
    }
}

/// Eight weight rows times one or four input rows.
fn tile_product(
    isa: Isa,
    matrix: &QuantMatrix,
    input: &QuantRows,
    group: usize,
    row: usize,
    tile: usize,
    sums: &mut [[f32; GROUP]; 4],
) {
    match isa {
        Isa::Scalar => {
            for (offset, sums) in sums.iter_mut().take(tile).enumerate() {
                scalar(matrix, input, group, row + offset, sums);
            }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa` values other than `Scalar` exist only where their features were
        // detected; slices are as long as the matrix's own shape says, checked in `Operands`.
        Isa::Avx2 | Isa::Vnni => unsafe {
            let operands = x86::Operands::new(matrix, input, group, row, tile);
            match (isa, matrix.width, tile) {
                (Isa::Vnni, Width::Four, 4) => x86::nibbles_vnni::<4>(&operands, sums),
                (Isa::Vnni, Width::Four, _) => x86::nibbles_vnni::<1>(&operands, sums),
                (Isa::Vnni, Width::Eight, 4) => x86::bytes_vnni::<4>(&operands, sums),
                (Isa::Vnni, Width::Eight, _) => x86::bytes_vnni::<1>(&operands, sums),
                (_, Width::Four, 4) => x86::nibbles_avx2::<4>(&operands, sums),
                (_, Width::Four, _) => x86::nibbles_avx2::<1>(&operands, sums),
                (_, Width::Eight, 4) => x86::bytes_avx2::<4>(&operands, sums),
                (_, Width::Eight, _) => x86::bytes_avx2::<1>(&operands, sums),
            }
        },
    }
}

/// What every version computes: Σ over blocks of
/// `weight scale · input scale · Σ integers + weight offset · input sum`.
fn scalar(
    matrix: &QuantMatrix,
    input: &QuantRows,
    group: usize,
    row: usize,
    sums: &mut [f32; GROUP],
) {
    let blocks = matrix.blocks_per_row();
    for block in 0..blocks {
        let cell = group * blocks + block;
        let at = row * blocks + block;
        let bytes = &input.bytes[at * BLOCK..][..BLOCK];
        for (lane, sum) in sums.iter_mut().enumerate() {
            let dot: i32 = bytes
                .iter()
                .enumerate()
                .map(|(i, x)| i32::from(*x) * matrix.integer(cell, lane, i))
                .sum();
            *sum += matrix.scales[cell * GROUP + lane].to_f32() * input.scales[at] * dot as f32;
            if let Some(offset) = matrix.offsets.get(cell * GROUP + lane) {
                *sum += offset.to_f32() * input.sums[at];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, GROUP, QuantMatrix, QuantRows, Width};

    /// Pointers to the data of one tile, with their extents checked.
    pub(super) struct Operands {
        blocks: usize,
        data: *const u8,
        scales: *const u16,
        /// Null when the weights have no offsets.
        offsets: *const u16,
        bytes: *const i8,
        input_scales: *const f32,
        input_sums: *const f32,
    }

    impl Operands {
        pub(super) fn new(
            matrix: &QuantMatrix,
            input: &QuantRows,
            group: usize,
            row: usize,
            tile: usize,
        ) -> Self {
            let blocks = matrix.blocks_per_row();
            let size = match matrix.width {
                Width::Four => BLOCK / 2,
                Width::Eight => BLOCK,
            };
            let cells = group * blocks * GROUP..(group + 1) * blocks * GROUP;
            let inputs = row * blocks..(row + tile) * blocks;
            Self {
                blocks,
                data: matrix.data[cells.start * size..cells.end * size].as_ptr(),
                scales: matrix.scales[cells.clone()].as_ptr().cast(),
                offsets: if matrix.offsets.is_empty() {
                    std::ptr::null()
                } else {
                    matrix.offsets[cells].as_ptr().cast()
                },
                bytes: input.bytes[inputs.start * BLOCK..inputs.end * BLOCK].as_ptr(),
                input_scales: input.scales[inputs.clone()].as_ptr(),
                input_sums: input.sums[inputs].as_ptr(),
            }
        }

        /// Eight 16-bit floats as 32-bit ones.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn halves(&self, from: *const u16, block: usize) -> __m256 {
            // SAFETY: `block < blocks`, and the arrays hold eight values per block.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.add(block * GROUP).cast())) }
        }

        /// Four input bytes, repeated for the eight weight rows.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn input(&self, row: usize, block: usize, four: usize) -> __m256i {
            let at = (row * self.blocks + block) * BLOCK + four * 4;
            // SAFETY: inside the tile's rows, whose extent `new` checked; unaligned reads.
            unsafe { _mm256_set1_epi32(self.bytes.add(at).cast::<i32>().read_unaligned()) }
        }

        /// Adds one block's integer sums, scaled, and the offset's part.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn add_block(
            &self,
            sum: __m256,
            dots: __m256i,
            scale: __m256,
            offset: __m256,
            row: usize,
            block: usize,
        ) -> __m256 {
            // SAFETY: as for `input`.
            unsafe {
                let at = row * self.blocks + block;
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(*self.input_scales.add(at)));
                let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, sum);
                _mm256_fmadd_ps(offset, _mm256_set1_ps(*self.input_sums.add(at)), sum)
            }
        }

        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn offset(&self, block: usize) -> __m256 {
            if self.offsets.is_null() {
                return _mm256_setzero_ps();
            }
            // SAFETY: not null, so it holds eight values per block.
            unsafe { self.halves(self.offsets, block) }
        }
    }

    /// The eight vectors of nibbles of one block: values 0..16 from the low halves, then 16..32.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(o: &Operands, block: usize) -> [__m256i; 8] {
        let mask = _mm256_set1_epi8(15);
        let mut out = [_mm256_setzero_si256(); 8];
        for j in 0..4 {
            // SAFETY: a block of eight rows of nibbles has 128 bytes.
            let packed = unsafe { _mm256_loadu_si256(o.data.add(block * 128 + j * 32).cast()) };
            out[j] = _mm256_and_si256(packed, mask);
            out[j + 4] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
        }
        out
    }

    /// Nibbles: eight products of at most 2·15·127 fit 16 bits, so one widening per block is
    /// enough.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn nibbles_avx2<const ROWS: usize>(
        o: &Operands,
        sums: &mut [[f32; GROUP]; 4],
    ) {
        let ones = _mm256_set1_epi16(1);
        let mut totals = [_mm256_setzero_ps(); ROWS];
        for block in 0..o.blocks {
            // SAFETY: `block` and the rows are inside the extents checked by `Operands::new`.
            unsafe {
                let weights = unpack(o, block);
                let scale = o.halves(o.scales, block);
                let offset = o.offset(block);
                for (row, total) in totals.iter_mut().enumerate() {
                    let mut pairs = _mm256_setzero_si256();
                    for (four, weight) in weights.iter().enumerate() {
                        let product = _mm256_maddubs_epi16(*weight, o.input(row, block, four));
                        pairs = _mm256_add_epi16(pairs, product);
                    }
                    let dots = _mm256_madd_epi16(pairs, ones);
                    *total = o.add_block(*total, dots, scale, offset, row, block);
                }
            }
        }
        store(&totals, sums);
    }

    /// Signed bytes: the sign of the weight moves to the input, because the instruction wants
    /// its first operand unsigned.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn bytes_avx2<const ROWS: usize>(o: &Operands, sums: &mut [[f32; GROUP]; 4]) {
        let ones = _mm256_set1_epi16(1);
        let mut totals = [_mm256_setzero_ps(); ROWS];
        for block in 0..o.blocks {
            // SAFETY: as in `nibbles_avx2`; a block of eight rows of bytes has 256 bytes.
            unsafe {
                let mut dots = [_mm256_setzero_si256(); ROWS];
                for four in 0..8 {
                    let weight = _mm256_loadu_si256(o.data.add(block * 256 + four * 32).cast());
                    let magnitude = _mm256_abs_epi8(weight);
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let signed = _mm256_sign_epi8(o.input(row, block, four), weight);
                        let pairs = _mm256_maddubs_epi16(magnitude, signed);
                        *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
                    }
                }
                let scale = o.halves(o.scales, block);
                let offset = o.offset(block);
                for (row, total) in totals.iter_mut().enumerate() {
                    *total = o.add_block(*total, dots[row], scale, offset, row, block);
                }
            }
        }
        store(&totals, sums);
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512vnni,avx512vl")]
    pub(super) unsafe fn nibbles_vnni<const ROWS: usize>(
        o: &Operands,
        sums: &mut [[f32; GROUP]; 4],
    ) {
        let mut totals = [_mm256_setzero_ps(); ROWS];
        for block in 0..o.blocks {
            // SAFETY: as in `nibbles_avx2`.
            unsafe {
                let weights = unpack(o, block);
                let scale = o.halves(o.scales, block);
                let offset = o.offset(block);
                for (row, total) in totals.iter_mut().enumerate() {
                    let mut dots = _mm256_setzero_si256();
                    for (four, weight) in weights.iter().enumerate() {
                        dots = _mm256_dpbusd_epi32(dots, *weight, o.input(row, block, four));
                    }
                    *total = o.add_block(*total, dots, scale, offset, row, block);
                }
            }
        }
        store(&totals, sums);
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512vnni,avx512vl")]
    pub(super) unsafe fn bytes_vnni<const ROWS: usize>(o: &Operands, sums: &mut [[f32; GROUP]; 4]) {
        let mut totals = [_mm256_setzero_ps(); ROWS];
        for block in 0..o.blocks {
            // SAFETY: as in `bytes_avx2`.
            unsafe {
                let mut dots = [_mm256_setzero_si256(); ROWS];
                for four in 0..8 {
                    let weight = _mm256_loadu_si256(o.data.add(block * 256 + four * 32).cast());
                    let magnitude = _mm256_abs_epi8(weight);
                    for (row, dots) in dots.iter_mut().enumerate() {
                        let signed = _mm256_sign_epi8(o.input(row, block, four), weight);
                        *dots = _mm256_dpbusd_epi32(*dots, magnitude, signed);
                    }
                }
                let scale = o.halves(o.scales, block);
                let offset = o.offset(block);
                for (row, total) in totals.iter_mut().enumerate() {
                    *total = o.add_block(*total, dots[row], scale, offset, row, block);
                }
            }
        }
        store(&totals, sums);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn store(totals: &[__m256], sums: &mut [[f32; GROUP]; 4]) {
        for (total, sums) in totals.iter().zip(sums) {
            // SAFETY: `sums` is an array of eight floats.
            unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), *total) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{Activations, DenseLinear, Linear, QuantLinear, forward};
    use crate::pool::Pool;
    use candle_core::quantized::GgmlDType;

    const WIDTH: usize = 96;

    /// Numbers that look random and are the same everywhere.
    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
            })
            .collect()
    }

    /// A Q4_1 or Q8_0 matrix from random bytes with sane scales.
    fn random_matrix(dtype: GgmlDType, rows: usize, columns: usize) -> QuantMatrix {
        let size = dtype.type_size();
        let mut bytes: Vec<u8> = noise(rows * columns / BLOCK * size, 7)
            .into_iter()
            .map(|value| (value * 128.0) as i32 as u8)
            .collect();
        for (index, block) in bytes.chunks_exact_mut(size).enumerate() {
            block[..2].copy_from_slice(&f16::from_f32(0.01 + index as f32 * 1e-5).to_le_bytes());
            if matches!(dtype, GgmlDType::Q4_1 | GgmlDType::Q5_1) {
                block[2..4].copy_from_slice(&f16::from_f32(-0.07).to_le_bytes());
            }
        }
        QuantMatrix::from_blocks(dtype, &bytes, rows, columns).unwrap()
    }

    fn product(linear: &dyn Linear, input: &[f32], width: usize) -> Vec<f32> {
        let activations = Activations::new(input, width);
        let [output] = forward([linear], &activations, &mut Pool::new(2));
        output
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        a.iter()
            .zip(b)
            .fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
    }

    #[test]
    fn fast_versions_equal_the_scalar_one() {
        for dtype in [
            GgmlDType::Q4_0,
            GgmlDType::Q4_1,
            GgmlDType::Q5_0,
            GgmlDType::Q5_1,
            GgmlDType::Q8_0,
        ] {
            for rows in [1, 3, 4, 9] {
                let input = noise(rows * WIDTH, 3);
                let reference = QuantLinear::with_isa(random_matrix(dtype, 21, WIDTH), Isa::Scalar);
                let fast = QuantLinear::new(random_matrix(dtype, 21, WIDTH));
                let difference = largest_difference(
                    &product(&reference, &input, WIDTH),
                    &product(&fast, &input, WIDTH),
                );
                assert!(
                    difference < 1e-4,
                    "{dtype:?} with {rows} rows differs by {difference}"
                );
            }
        }
    }

    #[test]
    fn vnni_machines_also_run_the_avx2_version() {
        #[cfg(target_arch = "x86_64")]
        if Isa::detect() != Isa::Scalar {
            let input = noise(5 * WIDTH, 3);
            for dtype in [GgmlDType::Q4_1, GgmlDType::Q8_0] {
                let reference = QuantLinear::with_isa(random_matrix(dtype, 16, WIDTH), Isa::Scalar);
                let fast = QuantLinear::with_isa(random_matrix(dtype, 16, WIDTH), Isa::Avx2);
                assert!(
                    largest_difference(
                        &product(&reference, &input, WIDTH),
                        &product(&fast, &input, WIDTH)
                    ) < 1e-4
                );
            }
        }
    }

    #[test]
    fn quantised_products_are_close_to_plain_ones() {
        let (rows, columns) = (24, 128);
        let weights = noise(rows * columns, 11);
        let input = noise(3 * columns, 5);
        let dense = DenseLinear::new(weights.clone(), rows, columns).unwrap();
        let quantised =
            QuantLinear::new(QuantMatrix::from_floats(&weights, rows, columns).unwrap());
        // Both operands are rounded to 1/127 of their block's largest value: for 128 products of
        // values below 1 the error stays near sqrt(128)/127/2.
        assert!(
            largest_difference(
                &product(&dense, &input, columns),
                &product(&quantised, &input, columns)
            ) < 0.2
        );
    }

    #[test]
    fn a_row_reads_back_what_was_packed() {
        let values = noise(10 * 64, 2);
        let matrix = QuantMatrix::from_floats(&values, 10, 64).unwrap();
        let mut row = vec![0.0; 64];
        matrix.row(9, &mut row);
        assert!(largest_difference(&row, &values[9 * 64..]) <= 0.5 / 127.0 + 1e-3);
    }
}
