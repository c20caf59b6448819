//! What is refused before anything is computed.
//!
//! Numbers that are not finite, shares outside their range and lists that do not
//! belong together are mistakes of the caller and never become a result. Too little
//! data is not a mistake: each function says what it returns then.

use std::fmt;

/// Why the input was refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Invalid {
    /// A value is NaN or infinite.
    NotFinite {
        /// Which list.
        what: &'static str,
        /// Its place in the list, from 0.
        at: usize,
    },
    /// A parameter lies outside what it can be.
    OutOfRange {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Two lists that belong together have different lengths.
    LengthsDiffer {
        /// Which lists.
        what: &'static str,
        /// The length of the first.
        first: usize,
        /// The length of the second.
        second: usize,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { what, at } => {
                write!(f, "{what}: number {at} (counted from 0) is not finite")
            }
            Self::OutOfRange {
                what,
                value,
                allowed,
            } => write!(f, "{what} is {value}; it must be {allowed}"),
            Self::LengthsDiffer {
                what,
                first,
                second,
            } => write!(f, "{what} differ in length: {first} and {second}"),
        }
    }
}

impl std::error::Error for Invalid {}

/// Refuses a list that has a NaN or an infinite value.
pub(crate) fn all_finite(
    what: &'static str,
    values: impl IntoIterator<Item = f64>,
) -> Result<(), Invalid> {
    match values.into_iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Invalid::NotFinite { what, at }),
        None => Ok(()),
    }
}

/// Refuses a level of error outside (0, 0.5].
pub(crate) fn valid_alpha(alpha: f64) -> Result<(), Invalid> {
    if alpha > 0.0 && alpha <= 0.5 {
        return Ok(());
    }
    Err(Invalid::OutOfRange {
        what: "alpha",
        value: alpha,
        allowed: "above 0 and at most 0.5",
    })
}

/// Refuses lists of different length.
pub(crate) fn same_length(what: &'static str, first: usize, second: usize) -> Result<(), Invalid> {
    if first == second {
        return Ok(());
    }
    Err(Invalid::LengthsDiffer {
        what,
        first,
        second,
    })
}
