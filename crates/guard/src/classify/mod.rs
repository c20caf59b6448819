//! Classifiers that are trained here, from packaged texts and texts of our own, and what is
//! needed to train, store and measure them. A model is bytes in, scores out; nothing here reads
//! a file or a clock. What comes from a language model (embeddings) is brought by the caller.
//!
//! Training gives the same bytes for the same texts wherever it runs; see `math.rs`.

mod adapt;
mod features;
mod figures;
mod file;
mod fused;
mod linear;
mod math;
mod mlp;
mod near;
mod own;
mod train;
mod windows;

pub use adapt::{AdaptFigures, AdaptReport, Adapted, adapt};
pub use features::{Features, Recipe, extract, normalise};
pub use figures::{Share, auc, recall_at_one_percent, threshold_at, wilson};
pub use file::{BadModel, Card, CardSource, Task};
pub use fused::{Fused, Fusion, PROBE, with_logit};
pub use linear::{Linear, LinearHeader, Scored};
pub use mlp::{Mlp, MlpHeader, MlpOptions, Vector, train_mlp};
pub use near::clusters;
pub use own::{Use, own_texts};
pub use train::{Labelled, TrainOptions, Trained, train};
pub use windows::{MAX_CHARS, windows};
