//! Data that metrics and transforms may need and that is too large, or too much somebody else's, to
//! be part of the binary. The caller finds the bytes; nothing here reads a file.

use std::sync::Arc;

pub use crate::metrics::vader::Vader;
use crate::text::Japanese;

/// A kind of data that somebody else made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// IPADIC.
    Japanese,
    /// VADER's lexicon.
    Vader,
}

/// What is installed. A metric that needs more than this leaves its items unscored and says why.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// IPADIC, for the tokeniser `ja-mecab` and the transform `base-form`.
    pub japanese: Option<Arc<Japanese>>,
    /// VADER's lexicon, for `compat:vader`.
    pub vader: Option<Arc<Vader>>,
}
