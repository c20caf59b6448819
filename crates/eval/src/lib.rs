//! Measures texts: preparation, tokenisers and reference-based metrics. Pure functions over
//! strings; no IO, no clock, no randomness but by a seed. Data that is too large to be part of the
//! binary (the Japanese dictionary, VADER's lexicon) comes in as bytes, through [`Resources`].
//!
//! | folder or file | owns |
//! |---|---|
//! | `text/` | normalising, tokenising, stemming, stop words, language, lengths; [`Transform`] |
//! | `metrics/` | every metric, and [`Metric`], the one door to them |
//! | `bertscore.rs` | BERTScore over the vectors of tokens |
//! | `resources.rs` | what a metric may need beside its parameters |
//!
//! Three rules hold everywhere. A score is **finite** or there is none. A text that the instrument
//! cannot read (no tokens for this tokeniser, a reference that is empty) is **unscored**, never a
//! silent 0; an answer that is empty although one was expected is a real 0. And a metric's
//! **signature** names everything that its number depends on: same signature, same number.
//!
//! Ids that begin with `compat:` promise the very number of another program; `tests/` compares them
//! with it. Everything else is ours and says so by its name.

pub mod bertscore;
pub mod metrics;
mod resources;
pub mod text;

pub use metrics::{Entry, Item, METRICS, Metric, Needs, Outcome, Problem, Statistics};
pub use resources::{Data, Resources, Vader};
pub use text::{Japanese, Tokeniser, Transform};
