//! Causal attention of new rows over one sequence's cache.
//!
//! Works through the cache in blocks of keys with a running softmax, so memory
//! does not grow with the context, and converts each block to floats once for
//! all query heads that share it. Plain loops with explicit lanes: inside a
//! function that enables AVX2 the compiler turns them into vectors, elsewhere
//! they still run.

use half::slice::HalfFloatSliceExt;

use crate::kv::Layer;
use crate::linear::Isa;

const KEYS_PER_BLOCK: usize = 64;
const LANES: usize = 16;

/// One key/value head and the query heads that read it, for consecutive rows of a sequence.
pub(crate) struct Task<'a> {
    pub(crate) cache: &'a Layer,
    /// All query rows of this sequence's part in the step, `stride` values apart.
    pub(crate) queries: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) head_width: usize,
    pub(crate) kv_heads: usize,
    pub(crate) kv_head: usize,
    /// Query heads per key/value head.
    pub(crate) group: usize,
    /// Rows to compute, and how many cached tokens the first row of the sequence's part sees.
    pub(crate) rows: std::ops::Range<usize>,
    pub(crate) first_visible: usize,
    pub(crate) isa: Isa,
}

impl Task<'_> {
    /// Writes `rows × group × head_width` values.
    pub(crate) fn run(&self, output: &mut [f32]) {
        match self.isa {
            Isa::Scalar => self.attend::<false>(output),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Vnni => {
                #[expect(unsafe_code, reason = "calls a function for detected features")]
                // SAFETY: these values exist only where AVX2 and FMA were detected.
                unsafe {
                    self.attend_avx2(output);
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn attend_avx2(&self, output: &mut [f32]) {
        self.attend::<true>(output);
    }

    #[inline(always)]
    fn attend<const FUSED: bool>(&self, output: &mut [f32]) {
        let width = self.head_width;
        let scale = 1.0 / (width as f32).sqrt();
        let queries = self.rows.len() * self.group;
        let mut largest = vec![f32::NEG_INFINITY; queries];
        let mut totals = vec![0f32; queries];
        let mut keys = vec![0f32; KEYS_PER_BLOCK * width];
        let mut values = vec![0f32; KEYS_PER_BLOCK * width];
        output.fill(0.0);
        let end = self.first_visible + self.rows.end - 1;
        for from in (0..end).step_by(KEYS_PER_BLOCK) {
            let count = KEYS_PER_BLOCK.min(end - from);
            self.load(&self.cache.keys, from, count, &mut keys);
            self.load(&self.cache.values, from, count, &mut values);
            for (index, row) in self.rows.clone().enumerate() {
                let visible = (self.first_visible + row).saturating_sub(from).min(count);
                if visible == 0 {
                    continue;
                }
                for head in 0..self.group {
                    let at = row * self.stride + (self.kv_head * self.group + head) * width;
                    let query = &self.queries[at..at + width];
                    let slot = index * self.group + head;
                    let output = &mut output[slot * width..][..width];
                    let mut scores = [0f32; KEYS_PER_BLOCK];
                    for (score, key) in scores
                        .iter_mut()
                        .zip(keys.chunks_exact(width))
                        .take(visible)
                    {
                        *score = scale * dot::<FUSED>(query, key);
                    }
                    let scores = &mut scores[..visible];
                    let top = scores
                        .iter()
                        .fold(largest[slot], |a, b| if *b > a { *b } else { a });
                    let shrink = exp(largest[slot] - top);
                    largest[slot] = top;
                    for score in scores.iter_mut() {
                        *score = exp(*score - top);
                    }
                    totals[slot] = totals[slot] * shrink + scores.iter().sum::<f32>();
                    if shrink != 1.0 {
                        output.iter_mut().for_each(|value| *value *= shrink);
                    }
                    for (score, value) in scores.iter().zip(values.chunks_exact(width)) {
                        add_scaled::<FUSED>(output, value, *score);
                    }
                }
            }
        }
        for (output, total) in output.chunks_exact_mut(width).zip(totals) {
            output.iter_mut().for_each(|value| *value /= total);
        }
    }

    /// Converts this head's part of `count` cached tokens.
    #[inline(always)]
    fn load(&self, stored: &[half::f16], from: usize, count: usize, out: &mut [f32]) {
        let width = self.head_width;
        for (token, out) in (from..from + count).zip(out.chunks_exact_mut(width)) {
            let at = (token * self.kv_heads + self.kv_head) * width;
            stored[at..at + width].convert_to_f32_slice(out);
        }
    }
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a slow library call.
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of products, in lanes that become one or two vectors.
#[inline(always)]
fn dot<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] = multiply_add::<FUSED>(a[lane], b[lane], sums[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled<const FUSED: bool>(output: &mut [f32], values: &[f32], scale: f32) {
    for (output, value) in output.iter_mut().zip(values) {
        *output = multiply_add::<FUSED>(*value, scale, *output);
    }
}

/// e^x to about 1e-7 relative, without a branch or call, so that loops over it become vectors.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let whole = shifted - MAGIC;
    // ln 2 in two parts keeps the remainder exact.
    let rest = (x - whole * 0.693_359_4) - whole * -2.121_944_4e-4;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * rest + coefficient;
    }
    let power = (shifted.to_bits() as i32 - MAGIC.to_bits() as i32 + 127) << 23;
    sum * f32::from_bits(power as u32)
}

/// `gate · sigmoid(gate) · up`, into `gate`.
pub(crate) fn silu_product(isa: Isa, gate: &mut [f32], up: &[f32]) {
    match isa {
        Isa::Scalar => silu_product_lanes(gate, up),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Vnni => {
            #[expect(unsafe_code, reason = "calls a function for detected features")]
            // SAFETY: these values exist only where AVX2 and FMA were detected.
            unsafe {
                silu_product_avx2(gate, up);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn silu_product_avx2(gate: &mut [f32], up: &[f32]) {
    silu_product_lanes(gate, up);
}

#[inline(always)]
fn silu_product_lanes(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn exp_is_accurate() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!(
                ((f64::from(exp(x)) - exact) / exact).abs() < 3e-7,
                "exp({x})"
            );
        }
    }

    /// The definition, in f64 and without blocks.
    fn reference(task: &Task<'_>, row: usize, head: usize) -> Vec<f64> {
        let width = task.head_width;
        let query = &task.queries[row * task.stride + (task.kv_head * task.group + head) * width..]
            [..width];
        let stored = |list: &[f16], token: usize, i: usize| {
            list[(token * task.kv_heads + task.kv_head) * width + i].to_f64()
        };
        let visible = task.first_visible + row;
        let weights: Vec<f64> = (0..visible)
            .map(|token| {
                let dot: f64 = (0..width)
                    .map(|i| f64::from(query[i]) * stored(&task.cache.keys, token, i))
                    .sum();
                (dot / (width as f64).sqrt()).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        (0..width)
            .map(|i| {
                weights
                    .iter()
                    .enumerate()
                    .map(|(t, w)| w / total * stored(&task.cache.values, t, i))
                    .sum()
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_across_blocks_and_heads() {
        let (width, kv_heads, group, tokens, rows) = (32, 2, 3, 150, 5);
        let wave = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<_>>();
        let halves = |v: Vec<f32>| v.into_iter().map(f16::from_f32).collect::<Vec<_>>();
        let cache = Layer {
            keys: halves(wave(tokens * kv_heads * width, 0.37)),
            values: halves(wave(tokens * kv_heads * width, 0.11)),
        };
        let stride = kv_heads * group * width;
        let queries = wave(rows * stride, 0.73);
        for isa in [Isa::Scalar, Isa::detect()] {
            let task = Task {
                cache: &cache,
                queries: &queries,
                stride,
                head_width: width,
                kv_heads,
                kv_head: 1,
                group,
                rows: 1..rows,
                first_visible: tokens - rows + 1,
                isa,
            };
            let mut output = vec![0.0; (rows - 1) * group * width];
            task.run(&mut output);
            for row in 1..rows {
                for head in 0..group {
                    let expected = reference(&task, row, head);
                    let actual = &output[((row - 1) * group + head) * width..][..width];
                    for (a, e) in actual.iter().zip(&expected) {
                        assert!(
                            (f64::from(*a) - e).abs() < 1e-5,
                            "{isa:?} row {row} head {head}: {a} {e}"
                        );
                    }
                }
            }
        }
    }
}
