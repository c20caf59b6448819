//! Plain 32-bit weights, multiplied by candle's matrix product.

use candle_core::{DType, Device, Tensor};

use super::{Activations, Linear};
use crate::pool::SharedSlice;

/// Weights as floats: exact, and the reference for the quantised kernels.
#[derive(Debug)]
pub(crate) struct DenseLinear {
    weight: Tensor,
    transposed: Tensor,
    in_features: usize,
    out_features: usize,
}

impl DenseLinear {
    /// `weight` is row-major, `out_features × in_features`.
    pub(crate) fn new(
        weight: Vec<f32>,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, candle_core::Error> {
        let weight = Tensor::from_vec(weight, (out_features, in_features), &Device::Cpu)?;
        let transposed = weight.t()?;
        Ok(Self {
            weight,
            transposed,
            in_features,
            out_features,
        })
    }

    fn multiply(&self, input: &Activations<'_>) -> Result<Vec<f32>, candle_core::Error> {
        let rows =
            Tensor::from_slice(input.values, (input.rows(), self.in_features), &Device::Cpu)?;
        rows.matmul(&self.transposed)?
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1()
    }
}

impl Linear for DenseLinear {
    fn out_features(&self) -> usize {
        self.out_features
    }

    fn parts(&self, _: &Activations<'_>, _: usize) -> usize {
        // candle splits the product itself.
        1
    }

    fn run_part(&self, input: &Activations<'_>, _: usize, _: usize, output: &SharedSlice<f32>) {
        // Shapes were checked at load, so a failure here is a fault of ours; the scheduler
        // turns it into a failed generation.
        let product = self
            .multiply(input)
            .expect("matrix product of checked shapes");
        #[expect(unsafe_code, reason = "tasks write disjoint parts of one buffer")]
        // SAFETY: this is the only part.
        unsafe { output.part(0, product.len()) }.copy_from_slice(&product);
    }

    fn weight_row(&self, index: usize, output: &mut [f32]) {
        let row = self.weight.get(index).and_then(|row| row.to_vec1::<f32>());
        output.copy_from_slice(&row.expect("row of a checked shape"));
    }
}
