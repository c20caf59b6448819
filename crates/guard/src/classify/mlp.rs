//! The classifier over embeddings: one hidden layer. The caller brings the vector of a window;
//! this file knows nothing of the model that made it but its name and length.

use base::Digest;
use serde::{Deserialize, Serialize};

use super::file::{self, BadModel, Card, Task};
use super::fused::Fusion;
use super::math::{Rng, ln, sigmoid};

/// Everything of an embedding classifier's file but the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpHeader {
    /// Always `mlp`.
    pub kind: String,
    /// What it looks for.
    pub task: Task,
    /// A name for people.
    pub name: String,
    /// The embedding model whose vectors it reads.
    pub embedder: String,
    /// The length of those vectors.
    pub inputs: usize,
    /// Units in between.
    pub hidden: usize,
    /// A score from here on is a finding.
    pub threshold: f32,
    /// Set where it reads a linear classifier's logit behind the vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// What it was made of.
    pub card: Card,
}

/// An embedding classifier, ready to score.
#[derive(Debug, Clone)]
pub struct Mlp {
    header: MlpHeader,
    net: Net,
    digest: Digest,
}

/// A labelled embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// As the embedding model gave it.
    pub values: Vec<f32>,
    /// Whether it is what the classifier looks for.
    pub positive: bool,
    /// How much it counts.
    pub weight: f32,
}

/// How to train.
#[derive(Debug, Clone, PartialEq)]
pub struct MlpOptions {
    /// What the model looks for.
    pub task: Task,
    /// A name for people.
    pub name: String,
    /// The embedding model.
    pub embedder: String,
    /// Units in between.
    pub hidden: usize,
    /// Passes over the vectors.
    pub passes: usize,
    /// Vectors between two steps.
    pub batch: usize,
    /// The length of a step.
    pub rate: f32,
    /// How fast unused weights fade.
    pub decay: f32,
    /// Where the first weights and the order come from.
    pub seed: u64,
    /// See [`MlpHeader::fusion`].
    pub fusion: Option<Fusion>,
}

#[derive(Debug, Clone, PartialEq)]
struct Net {
    inputs: usize,
    hidden: usize,
    /// hidden × inputs, then hidden biases, then hidden weights of the output, then its bias.
    all: Vec<f32>,
}

impl Net {
    fn len(inputs: usize, hidden: usize) -> usize {
        hidden * inputs + 2 * hidden + 1
    }

    fn fresh(inputs: usize, hidden: usize, rng: &mut Rng) -> Self {
        let mut all = vec![0.0; Self::len(inputs, hidden)];
        let (first, second) = ((6.0 / inputs as f64).sqrt(), (6.0 / hidden as f64).sqrt());
        for weight in &mut all[..hidden * inputs] {
            *weight = ((rng.unit() * 2.0 - 1.0) * first) as f32;
        }
        let out = hidden * inputs + hidden;
        for weight in &mut all[out..out + hidden] {
            *weight = ((rng.unit() * 2.0 - 1.0) * second) as f32;
        }
        Self {
            inputs,
            hidden,
            all,
        }
    }

    /// The activations of the hidden units, and the logit.
    fn forward(&self, input: &[f32], active: &mut Vec<f32>) -> f32 {
        active.clear();
        let (rows, rest) = self.all.split_at(self.hidden * self.inputs);
        let (biases, rest) = rest.split_at(self.hidden);
        for (row, bias) in rows.chunks_exact(self.inputs).zip(biases) {
            let sum: f32 = row.iter().zip(input).map(|(weight, x)| weight * x).sum();
            active.push((sum + bias).max(0.0));
        }
        let (weights, bias) = rest.split_at(self.hidden);
        let sum: f32 = weights
            .iter()
            .zip(active.iter())
            .map(|(weight, x)| weight * x)
            .sum();
        sum + bias[0]
    }

    /// Adds what one vector asks of every weight to `gradient`; returns its loss.
    fn backward(&self, vector: &Vector, active: &mut Vec<f32>, gradient: &mut [f32]) -> f64 {
        let logit = self.forward(&vector.values, active);
        let probability = sigmoid(f64::from(logit));
        let target = if vector.positive { 1.0 } else { 0.0 };
        let wrong = (probability - target) as f32 * vector.weight;
        let out = self.hidden * self.inputs + self.hidden;
        gradient[out + self.hidden] += wrong;
        for (unit, value) in active.iter().enumerate() {
            gradient[out + unit] += wrong * value;
            if *value <= 0.0 {
                continue;
            }
            let back = wrong * self.all[out + unit];
            gradient[self.hidden * self.inputs + unit] += back;
            let row = &mut gradient[unit * self.inputs..(unit + 1) * self.inputs];
            for (slot, x) in row.iter_mut().zip(&vector.values) {
                *slot += back * x;
            }
        }
        let right = if vector.positive {
            probability
        } else {
            1.0 - probability
        };
        -ln(right.max(1e-12)) * f64::from(vector.weight)
    }
}

/// Trains an embedding classifier with Adam. All vectors must be as long as the first; others
/// are left out.
///
/// # Errors
/// There is no vector.
pub fn train_mlp(
    vectors: &[Vector],
    options: &MlpOptions,
    threshold: f32,
    card: Card,
) -> Result<Vec<u8>, BadModel> {
    let inputs = vectors.first().map_or(0, |vector| vector.values.len());
    if inputs == 0 || options.hidden == 0 {
        return Err(BadModel("there is nothing to train on".into()));
    }
    let mut rng = Rng(options.seed);
    let mut net = Net::fresh(inputs, options.hidden, &mut rng);
    let mut order: Vec<usize> = (0..vectors.len())
        .filter(|at| vectors[*at].values.len() == inputs)
        .collect();
    let mut adam = Adam::new(net.all.len());
    let mut gradient = vec![0.0; net.all.len()];
    let mut active = Vec::with_capacity(options.hidden);
    for _ in 0..options.passes {
        rng.shuffle(&mut order);
        for batch in order.chunks(options.batch.max(1)) {
            gradient.fill(0.0);
            for at in batch {
                net.backward(&vectors[*at], &mut active, &mut gradient);
            }
            adam.step(&mut net.all, &gradient, batch.len() as f32, options);
        }
    }
    let header = MlpHeader {
        kind: "mlp".to_owned(),
        task: options.task,
        name: options.name.clone(),
        embedder: options.embedder.clone(),
        inputs,
        hidden: options.hidden,
        threshold,
        fusion: options.fusion.clone(),
        card,
    };
    let bytes: Vec<u8> = net
        .all
        .iter()
        .flat_map(|weight| weight.to_le_bytes())
        .collect();
    file::write(&header, &bytes)
}

struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    mean_fade: f32,
    square_fade: f32,
}

impl Adam {
    fn new(len: usize) -> Self {
        Self {
            mean: vec![0.0; len],
            square: vec![0.0; len],
            mean_fade: 1.0,
            square_fade: 1.0,
        }
    }

    fn step(&mut self, weights: &mut [f32], gradient: &[f32], batch: f32, options: &MlpOptions) {
        self.mean_fade *= 0.9;
        self.square_fade *= 0.999;
        for (at, weight) in weights.iter_mut().enumerate() {
            let gradient = gradient[at] / batch;
            self.mean[at] = 0.9 * self.mean[at] + 0.1 * gradient;
            self.square[at] = 0.999 * self.square[at] + 0.001 * gradient * gradient;
            let mean = self.mean[at] / (1.0 - self.mean_fade);
            let square = self.square[at] / (1.0 - self.square_fade);
            *weight -= options.rate * (mean / (square.sqrt() + 1e-8) + options.decay * *weight);
        }
    }
}

impl Mlp {
    /// Reads a model's file.
    ///
    /// # Errors
    /// The bytes are not such a file.
    pub fn read(bytes: &[u8]) -> Result<Self, BadModel> {
        let (header, weights, digest) = file::read::<MlpHeader>(bytes)?;
        if header.kind != "mlp" {
            return Err(BadModel(format!("it is of kind {}, not mlp", header.kind)));
        }
        if !(1..=8192).contains(&header.inputs) || !(1..=4096).contains(&header.hidden) {
            return Err(BadModel("its layers have no sensible size".into()));
        }
        if weights.len() != 4 * Net::len(header.inputs, header.hidden) {
            return Err(BadModel(format!(
                "{} bytes of weights do not fit",
                weights.len()
            )));
        }
        let all = weights
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let net = Net {
            inputs: header.inputs,
            hidden: header.hidden,
            all,
        };
        Ok(Self {
            header,
            net,
            digest,
        })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &MlpHeader {
        &self.header
    }

    /// The identity of the file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The score of an embedding, 0 to 1; nothing for a vector of another length.
    pub fn score(&self, vector: &[f32]) -> Option<f32> {
        self.logit(vector).map(|logit| sigmoid(logit) as f32)
    }

    pub(super) fn logit(&self, vector: &[f32]) -> Option<f64> {
        let fits = vector.len() == self.net.inputs;
        fits.then(|| {
            let mut active = Vec::with_capacity(self.net.hidden);
            f64::from(self.net.forward(vector, &mut active))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rings, which no line parts.
    fn rings(count: usize) -> Vec<Vector> {
        let mut rng = Rng(7);
        let mut ring = |at: usize| {
            let positive = at.is_multiple_of(2);
            let (x, y) = loop {
                let (x, y) = (rng.unit() * 2.0 - 1.0, rng.unit() * 2.0 - 1.0);
                let length = (x * x + y * y).sqrt();
                if (positive && length < 0.5) || (!positive && (0.7..1.0).contains(&length)) {
                    break (x, y);
                }
            };
            Vector {
                values: vec![x as f32, y as f32, 1.0],
                positive,
                weight: 1.0,
            }
        };
        (0..count).map(&mut ring).collect()
    }

    fn options() -> MlpOptions {
        MlpOptions {
            task: Task::Injection,
            name: "rings".into(),
            embedder: "none".into(),
            hidden: 16,
            passes: 120,
            batch: 16,
            rate: 0.01,
            decay: 0.0,
            seed: 1,
            fusion: None,
        }
    }

    #[test]
    fn it_learns_what_no_line_parts_and_twice_the_same() {
        let vectors = rings(400);
        let bytes = train_mlp(&vectors[..300], &options(), 0.5, Card::default()).unwrap();
        assert_eq!(
            bytes,
            train_mlp(&vectors[..300], &options(), 0.5, Card::default()).unwrap()
        );
        let model = Mlp::read(&bytes).unwrap();
        let right = vectors[300..]
            .iter()
            .filter(|vector| (model.score(&vector.values).unwrap() >= 0.5) == vector.positive)
            .count();
        assert!(right >= 97, "{right} of 100");
        assert_eq!(model.score(&[0.0]), None);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let net = Net::fresh(3, 4, &mut Rng(3));
        let vector = Vector {
            values: vec![0.3, -0.8, 0.5],
            positive: true,
            weight: 1.0,
        };
        let mut gradient = vec![0.0; net.all.len()];
        net.backward(&vector, &mut Vec::new(), &mut gradient);
        for (at, expected) in gradient.iter().enumerate() {
            let loss = |by: f32| {
                let mut moved = net.clone();
                moved.all[at] += by;
                moved.backward(&vector, &mut Vec::new(), &mut vec![0.0; net.all.len()])
            };
            let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
            assert!((slope - f64::from(*expected)).abs() < 5e-3, "weight {at}");
        }
    }

    #[test]
    fn broken_files_are_refused() {
        let bytes = train_mlp(
            &rings(10),
            &MlpOptions {
                passes: 1,
                ..options()
            },
            0.5,
            Card::default(),
        )
        .unwrap();
        for length in [0, 7, 11, 40, bytes.len() - 1] {
            assert!(Mlp::read(&bytes[..length]).is_err());
        }
        assert!(super::super::Linear::read(&bytes).is_err());
    }
}
