//! Causal attention of new rows over one sequence's cache.
//!
//! Works through the cache page by page with a running softmax, so memory does
//! not grow with the context, and converts each page to floats once for all query
//! heads that share it. Plain loops with explicit lanes: inside a
//! function that enables AVX2 the compiler turns them into vectors, elsewhere
//! they still run.

use crate::kv::{Layer, PAGE};
use crate::linear::Isa;

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
        let mut keys = vec![0f32; PAGE * width];
        let mut values = vec![0f32; PAGE * width];
        output.fill(0.0);
        let end = self.first_visible + self.rows.end - 1;
        for (page, from) in (0..end).step_by(PAGE).enumerate() {
            let part = page * self.kv_heads + self.kv_head;
            self.cache.read_keys(part, &mut keys);
            let count = PAGE.min(end - from);
            self.cache.read_values(part, count, &mut values);
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
                    let mut scores = products::<FUSED>(query, &keys);
                    scores.iter_mut().for_each(|score| *score *= scale);
                    scores[visible..].fill(f32::NEG_INFINITY);
                    let top = largest_of(&scores).max(largest[slot]);
                    let shrink = exp(largest[slot] - top);
                    largest[slot] = top;
                    scores
                        .iter_mut()
                        .for_each(|score| *score = exp(*score - top));
                    scores[visible..].fill(0.0);
                    totals[slot] = totals[slot] * shrink + sum_of(&scores);
                    if shrink != 1.0 {
                        output.iter_mut().for_each(|value| *value *= shrink);
                    }
                    add_values::<FUSED>(output, &values, &scores[..visible]);
                }
            }
        }
        for (output, total) in output.chunks_exact_mut(width).zip(totals) {
            output.iter_mut().for_each(|value| *value /= total);
        }
    }
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a slow library call.
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// The query's product with every key of a page.
#[inline(always)]
fn products<const FUSED: bool>(query: &[f32], keys: &[f32]) -> [f32; PAGE] {
    let mut sums = [0f32; PAGE];
    for (value, keys) in query.iter().zip(keys.as_chunks::<PAGE>().0) {
        for (sum, key) in sums.iter_mut().zip(keys) {
            *sum = multiply_add::<FUSED>(*value, *key, *sum);
        }
    }
    sums
}

/// Adds all values of a page, weighted. Parts of the row are summed in registers.
#[inline(always)]
fn add_values<const FUSED: bool>(output: &mut [f32], values: &[f32], scores: &[f32]) {
    let width = output.len();
    let (wide, rest) = output.as_chunks_mut::<PAGE>();
    let mut at = 0;
    for part in wide {
        add_part::<FUSED, PAGE>(part, &values[at..], width, scores);
        at += PAGE;
    }
    let (lanes, rest) = rest.as_chunks_mut::<LANES>();
    for part in lanes {
        add_part::<FUSED, LANES>(part, &values[at..], width, scores);
        at += LANES;
    }
    for part in rest.as_chunks_mut::<1>().0 {
        add_part::<FUSED, 1>(part, &values[at..], width, scores);
        at += 1;
    }
}

#[inline(always)]
fn add_part<const FUSED: bool, const N: usize>(
    output: &mut [f32; N],
    values: &[f32],
    width: usize,
    scores: &[f32],
) {
    let mut sums = *output;
    for (score, values) in scores.iter().zip(values.chunks(width)) {
        for (sum, value) in sums.iter_mut().zip(&values[..N]) {
            *sum = multiply_add::<FUSED>(*value, *score, *sum);
        }
    }
    *output = sums;
}

#[inline(always)]
fn largest_of(scores: &[f32; PAGE]) -> f32 {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for part in scores.as_chunks::<LANES>().0 {
        for (a, b) in largest.iter_mut().zip(part) {
            *a = if *b > *a { *b } else { *a };
        }
    }
    largest.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b))
}

#[inline(always)]
fn sum_of(scores: &[f32; PAGE]) -> f32 {
    let mut sums = [0f32; LANES];
    for part in scores.as_chunks::<LANES>().0 {
        sums.iter_mut().zip(part).for_each(|(a, b)| *a += b);
    }
    sums.iter().sum()
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
    fn reference(
        task: &Task<'_>,
        (keys, values): (&[f16], &[f16]),
        row: usize,
        head: usize,
    ) -> Vec<f64> {
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
                    .map(|i| f64::from(query[i]) * stored(keys, token, i))
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
                    .map(|(t, w)| w / total * stored(values, t, i))
                    .sum()
            })
            .collect()
    }

    #[test]
    fn equals_the_definition_across_blocks_and_heads() {
        for width in [20, 32, 64, 96] {
            check(width);
        }
    }

    fn check(width: usize) {
        let (kv_heads, group, tokens, rows) = (2, 3, 150, 5);
        let wave = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<_>>();
        let halves = |v: &[f32]| v.iter().copied().map(f16::from_f32).collect::<Vec<_>>();
        let keys = wave(tokens * kv_heads * width, 0.37);
        let values = wave(tokens * kv_heads * width, 0.11);
        let mut cache = Layer::default();
        // In two parts that do not meet at a page's end.
        let cut = 70 * kv_heads * width;
        cache.write(0, (kv_heads, width), &keys[..cut], &values[..cut]);
        cache.write(70, (kv_heads, width), &keys[cut..], &values[cut..]);
        let stored = (&*halves(&keys), &*halves(&values));
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
                    let expected = reference(&task, stored, row, head);
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
