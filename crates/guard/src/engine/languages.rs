//! Passages in a language that is not allowed.

use crate::detectors::language;

/// Whether a code could be one of ISO 639-1 or 639-3.
pub(super) fn is_known(code: &str) -> bool {
    matches!(code.len(), 2 | 3) && code.bytes().all(|b| b.is_ascii_lowercase())
}

/// How sure, and which language, if it is none of those that are allowed.
pub(super) fn outside(text: &str, allow: &[String]) -> Option<(f32, &'static str)> {
    language::outside(text, allow).map(|foreign| (foreign.score, foreign.code))
}
