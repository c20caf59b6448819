//! The one filter language of tables, charts, live tail, API and command line.
//!
//! `model = "x" and latency_ms > 800 and (score.thumbs < 0 or not status = "ok")`
//!
//! A [`Filter`] is a parsed, typed tree. It prints back to canonical text,
//! turns into SQL with bound values (`sql.rs`) and answers for one span in
//! memory (`matches.rs`); a property test holds the last two together. Logic is
//! two-valued: a comparison with a missing value is false, and `a != b` is
//! always `not a = b`.

use std::fmt;

mod fields;

pub use fields::{Field, FieldType};

/// A literal in a filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `"text"`.
    Text(String),
    /// `1.5`.
    Number(f64),
    /// `true`, `false`.
    Bool(bool),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `contains`: part of the text, upper and lower case alike.
    Contains,
    /// `starts_with`: beginning of the text, upper and lower case alike.
    StartsWith,
}

/// A condition tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them (two or more).
    And(Vec<Expr>),
    /// At least one (of two or more).
    Or(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// `field op literal`.
    Compare(Field, Op, Literal),
    /// `field in (a, b)`.
    In(Field, Vec<Literal>),
    /// `field exists`.
    Exists(Field),
}

/// A parsed filter; the empty one keeps everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    expr: Option<Expr>,
}

/// What is wrong with a filter text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// What is wrong.
    pub message: String,
    /// What to write instead, when there is a good guess.
    pub hint: Option<String>,
    /// Byte range of the fault in the text.
    pub span: std::ops::Range<usize>,
    /// Column of the fault, in characters from 1.
    pub column: usize,
    /// The text with a caret line under it, for a terminal.
    pub excerpt: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at column {}", self.message, self.column)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses a filter; blank text keeps everything.
    ///
    /// # Errors
    /// The text is not a filter; the error says where and what would be.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let _ = text;
        unimplemented!()
    }

    /// The condition, unless the filter is empty.
    pub fn expr(&self) -> Option<&Expr> {
        self.expr.as_ref()
    }

    /// Whether it keeps everything.
    pub fn is_empty(&self) -> bool {
        self.expr.is_none()
    }

    /// This filter and one more condition (a click on a facet).
    ///
    /// # Errors
    /// The field does not take this comparison or this type of value.
    pub fn and(&self, field: Field, op: Op, value: Literal) -> Result<Self, FilterError> {
        let _ = (field, op, value);
        unimplemented!()
    }

    /// This filter without the top-level conditions on a field.
    #[must_use]
    pub fn without(&self, field: &Field) -> Self {
        let _ = field;
        unimplemented!()
    }
}
