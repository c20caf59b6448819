//! Proof, before the first use, that a fast version computes what the scalar one does.
//!
//! Some instruction sets are rarer than the machines that tests run on. A wrong
//! product gives fluent nonsense that nobody traces back to the processor, so the
//! choice is checked where it is made. Scales are powers of two: every sum is exact
//! and the comparison needs no tolerance.

use half::f16;

use super::kernels::{self, Isa};
use super::quant::{QuantMatrix, Width};
use super::{BLOCK, QuantRows};
use crate::pool::SharedSlice;

/// Two full groups and a part of a third.
const OUTPUTS: usize = 21;
/// Blocks per row.
const BLOCKS: usize = 3;
/// Every tile size occurs, alone and after another.
const ROWS: [usize; 4] = [1, 3, 4, 7];

/// The first candidate whose products equal the scalar ones. The scalar version itself is the
/// last resort and needs no proof.
pub(super) fn first_right(
    candidates: &[Isa],
    product: impl Fn(Isa, &QuantMatrix, &QuantRows) -> Vec<f32>,
) -> Isa {
    let cases = cases();
    for candidate in candidates {
        if *candidate == Isa::Scalar {
            break;
        }
        let is_right = cases.iter().all(|(matrix, input)| {
            product(*candidate, matrix, input) == product(Isa::Scalar, matrix, input)
        });
        if is_right {
            return *candidate;
        }
        tracing::warn!(
            kernel = ?candidate,
            "this processor's products differ from the reference; a slower kernel is used"
        );
    }
    Isa::Scalar
}

/// All output values of one product.
pub(super) fn product(isa: Isa, matrix: &QuantMatrix, input: &QuantRows) -> Vec<f32> {
    let rows = input.scales.len() / matrix.blocks_per_row();
    let mut output = vec![0.0; rows * matrix.rows];
    let groups = 0..matrix.groups();
    kernels::multiply(isa, matrix, input, groups, &SharedSlice::new(&mut output));
    output
}

/// Matrices of every form that weights take, with inputs of every tile size.
fn cases() -> Vec<(QuantMatrix, QuantRows)> {
    let mut noise = Noise(0x5eed);
    let forms = [
        (Width::Four, false),
        (Width::Four, true),
        (Width::Eight, false),
        (Width::Eight, true),
    ];
    forms
        .into_iter()
        .flat_map(|(width, has_offsets)| ROWS.map(|rows| (width, has_offsets, rows)))
        .map(|(width, has_offsets, rows)| {
            (
                random_matrix(width, has_offsets, &mut noise),
                random_rows(rows, &mut noise),
            )
        })
        .collect()
}

fn random_matrix(width: Width, has_offsets: bool, noise: &mut Noise) -> QuantMatrix {
    let mut matrix = QuantMatrix::zeros(OUTPUTS, BLOCKS * BLOCK, width, has_offsets);
    matrix.data.fill_with(|| noise.byte());
    matrix.scales.fill_with(|| f16::from_f32(noise.power()));
    matrix.offsets.fill_with(|| f16::from_f32(-noise.power()));
    matrix
}

fn random_rows(rows: usize, noise: &mut Noise) -> QuantRows {
    let blocks = rows * BLOCKS;
    QuantRows {
        // Quantised activations lie in -127..=127.
        bytes: (0..blocks * BLOCK)
            .map(|_| (noise.byte() as i8).max(-127))
            .collect(),
        scales: (0..blocks).map(|_| noise.power()).collect(),
        sums: (0..blocks)
            .map(|_| f32::from(noise.byte() as i8) * noise.power())
            .collect(),
    }
}

/// Numbers that look random and are the same everywhere; a fifth of the bytes are extremes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn byte(&mut self) -> u8 {
        match self.next() % 20 {
            0 => 0x80,
            1 => 0x7f,
            2 => 0xff,
            3 => 0x81,
            _ => self.next() as u8,
        }
    }

    /// 1/2 or 1: a product of two is a multiple of 1/4, and no sum needs more than 24 bits.
    fn power(&mut self) -> f32 {
        if self.next().is_multiple_of(2) {
            0.5
        } else {
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a broken kernel would do: one value of one form is off by the smallest step.
    fn broken_for(
        broken: &[Isa],
        width: Width,
    ) -> impl Fn(Isa, &QuantMatrix, &QuantRows) -> Vec<f32> {
        move |isa, matrix, input| {
            let mut output = product(Isa::Scalar, matrix, input);
            if broken.contains(&isa) && matrix.width == width {
                let last = output.len() - 1;
                output[last] += 0.25;
            }
            output
        }
    }

    #[test]
    fn this_machine_needs_no_fallback() {
        assert_eq!(first_right(&Isa::available(), product), Isa::available()[0]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_wrong_kernel_is_passed_over() {
        let all = [Isa::Vnni, Isa::Avx2, Isa::Scalar];
        for width in [Width::Four, Width::Eight] {
            let choose = |broken: &[Isa]| first_right(&all, broken_for(broken, width));
            assert_eq!(choose(&[]), Isa::Vnni);
            assert_eq!(choose(&[Isa::Vnni]), Isa::Avx2);
            assert_eq!(choose(&[Isa::Avx2]), Isa::Vnni);
            assert_eq!(choose(&[Isa::Vnni, Isa::Avx2]), Isa::Scalar);
        }
    }

    #[test]
    fn sums_are_exact_so_that_equality_may_be_asked_for() {
        for (matrix, input) in cases() {
            for value in product(Isa::Scalar, &matrix, &input) {
                let quarters = value * 4.0;
                assert!(quarters.fract() == 0.0 && quarters.abs() < (1u32 << 24) as f32);
            }
        }
    }
}
