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
use std::str::FromStr;

mod fields;
mod lexer;
mod matches;
mod parse;
pub(crate) mod sql;

pub use fields::{Field, FieldType, UnknownField};
pub(crate) use matches::{FieldValue, Subject, json_value, score_value, value_of};

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

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&lexer::quote(text)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(yes) => write!(f, "{yes}"),
        }
    }
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

impl Op {
    /// As it is written in a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
            Self::Contains => "contains",
            Self::StartsWith => "starts_with",
        }
    }
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

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(parts) => write_joined(f, parts, " and ", |part| {
                matches!(part, Self::And(_) | Self::Or(_))
            }),
            Self::Or(parts) => write_joined(f, parts, " or ", |part| matches!(part, Self::Or(_))),
            Self::Not(inner) if matches!(**inner, Self::And(_) | Self::Or(_)) => {
                write!(f, "not ({inner})")
            }
            Self::Not(inner) => write!(f, "not {inner}"),
            Self::Compare(field, op, literal) => write!(f, "{field} {} {literal}", op.as_str()),
            Self::In(field, literals) => {
                write!(f, "{field} in (")?;
                for (index, literal) in literals.iter().enumerate() {
                    write!(f, "{}{literal}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Self::Exists(field) => write!(f, "{field} exists"),
        }
    }
}

fn write_joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expr],
    word: &str,
    needs_parentheses: fn(&Expr) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { word })?;
        if needs_parentheses(part) {
            write!(f, "({part})")?;
        } else {
            write!(f, "{part}")?;
        }
    }
    Ok(())
}

impl Expr {
    fn visit(&self, each: &mut impl FnMut(&Field)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.visit(each)),
            Self::Not(inner) => inner.visit(each),
            Self::Compare(field, ..) | Self::In(field, _) | Self::Exists(field) => each(field),
        }
    }

    fn is_about(&self, wanted: &Field) -> bool {
        let mut all = true;
        self.visit(&mut |field| all &= field == wanted);
        all
    }
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

impl FilterError {
    fn new(
        text: &str,
        span: std::ops::Range<usize>,
        message: String,
        hint: Option<String>,
    ) -> Self {
        let before = &text[..span.start];
        // One screen line: a line break inside the filter would move the caret.
        let shown: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let blank: String = before
            .chars()
            .map(|c| if is_wide(c) { '\u{3000}' } else { ' ' })
            .collect();
        let carets = text[span.clone()]
            .chars()
            .map(|c| if is_wide(c) { 2 } else { 1 })
            .sum::<usize>()
            .max(1);
        let excerpt = format!("{shown}\n{blank}{}", "^".repeat(carets));
        Self {
            message,
            hint,
            span,
            column: before.chars().count() + 1,
            excerpt,
        }
    }
}

/// Whether terminals draw this character two columns wide (East Asian text).
fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{ff01}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}')
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
        Ok(Self {
            expr: parse::parse(text)?,
        })
    }

    /// The condition, unless the filter is empty.
    pub fn expr(&self) -> Option<&Expr> {
        self.expr.as_ref()
    }

    /// Whether it keeps everything.
    pub fn is_empty(&self) -> bool {
        self.expr.is_none()
    }

    /// Every field that it names, once each.
    pub fn fields(&self) -> Vec<Field> {
        let mut fields = Vec::new();
        if let Some(expr) = &self.expr {
            expr.visit(&mut |field| fields.push(field.clone()));
        }
        fields.sort();
        fields.dedup();
        fields
    }

    /// This filter and one more condition (a click on a facet).
    ///
    /// # Errors
    /// The field does not take this comparison or this type of value.
    pub fn and(&self, field: Field, op: Op, value: Literal) -> Result<Self, FilterError> {
        let text = format!("{field} {} {value}", op.as_str());
        let Some(added) = parse::parse(&text)? else {
            return Ok(self.clone());
        };
        let mut parts = self.conjuncts();
        if !parts.contains(&added) {
            parts.push(added);
        }
        Ok(Self::all_of(parts))
    }

    /// This filter without the top-level conditions on a field.
    #[must_use]
    pub fn without(&self, field: &Field) -> Self {
        let parts = self
            .conjuncts()
            .into_iter()
            .filter(|part| !part.is_about(field));
        Self::all_of(parts.collect())
    }

    fn conjuncts(&self) -> Vec<Expr> {
        match &self.expr {
            None => Vec::new(),
            Some(Expr::And(parts)) => parts.clone(),
            Some(other) => vec![other.clone()],
        }
    }

    fn all_of(mut parts: Vec<Expr>) -> Self {
        let expr = if parts.len() > 1 {
            Some(Expr::And(parts))
        } else {
            parts.pop()
        };
        Self { expr }
    }

    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        self.expr
            .as_ref()
            .is_none_or(|expr| matches::matches(expr, subject))
    }
}

impl fmt::Display for Filter {
    /// Canonical text: parsing it gives the same filter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.iter().try_for_each(|expr| expr.fmt(f))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
