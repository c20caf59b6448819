//! MLflow's search filters, as far as its prompt client writes them: conditions
//! joined by AND over the name and tags, with `=`, `!=`, `LIKE` and `ILIKE`.

use crate::error::{AppError, Result};

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Subject {
    /// The prompt's name.
    Name,
    /// A tag, by its key.
    Tag(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    Unequal,
    Like,
    ILike,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) subject: Subject,
    comparison: Comparison,
    pub(super) value: String,
}

impl Condition {
    /// Whether a value (none: there is no such tag) fulfils it.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        match (self.comparison, value) {
            (Comparison::Unequal, None) => true,
            (_, None) => false,
            (Comparison::Equal, Some(value)) => value == self.value,
            (Comparison::Unequal, Some(value)) => value != self.value,
            (Comparison::Like, Some(value)) => like(&self.value, value),
            (Comparison::ILike, Some(value)) => {
                like(&self.value.to_lowercase(), &value.to_lowercase())
            }
        }
    }
}

/// Reads a filter; empty means no conditions.
///
/// # Errors
/// What cannot be read, and where.
pub(super) fn parse(text: &str) -> Result<Vec<Condition>> {
    let mut rest = Rest { text, at: 0 };
    let mut conditions = Vec::new();
    rest.skip_space();
    while !rest.is_empty() {
        if !conditions.is_empty() {
            rest.keyword("AND")?;
        }
        conditions.push(rest.condition()?);
        rest.skip_space();
    }
    Ok(conditions)
}

/// SQL's LIKE: `%` is any text, `_` one character. Linear in both texts but for
/// the stars, like every greedy glob.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn left(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn is_empty(&self) -> bool {
        self.left().is_empty()
    }

    fn skip_space(&mut self) {
        self.at += self.left().len() - self.left().trim_start().len();
    }

    fn wrong(&self, expected: &str) -> AppError {
        AppError::invalid(format!(
            "Invalid filter string: expected {expected} at character {}",
            self.text[..self.at].chars().count() + 1
        ))
        .at("filter")
    }

    fn keyword(&mut self, word: &str) -> Result<()> {
        self.skip_space();
        let found = self
            .left()
            .get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word));
        if !found {
            return Err(self.wrong(word));
        }
        self.at += word.len();
        Ok(())
    }

    fn condition(&mut self) -> Result<Condition> {
        let subject = self.subject()?;
        let comparison = self.comparison()?;
        let value = self.quoted(&['\'', '"'], "a text in quotes")?;
        Ok(Condition {
            subject,
            comparison,
            value,
        })
    }

    fn subject(&mut self) -> Result<Subject> {
        self.skip_space();
        let word: String = self
            .left()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        self.at += word.len();
        match word.as_str() {
            "name" => Ok(Subject::Name),
            "tag" | "tags" if self.left().starts_with('.') => {
                self.at += 1;
                self.key().map(Subject::Tag)
            }
            _ => {
                self.at -= word.len();
                Err(self.wrong("name or tags.KEY"))
            }
        }
    }

    fn key(&mut self) -> Result<String> {
        if self.left().starts_with(['`', '"']) {
            return self.quoted(&['`', '"'], "a key");
        }
        let end = self
            .left()
            .find(|c: char| c.is_whitespace() || "=!".contains(c));
        let key = &self.left()[..end.unwrap_or(self.left().len())];
        if key.is_empty() {
            return Err(self.wrong("a key"));
        }
        self.at += key.len();
        Ok(key.to_owned())
    }

    fn comparison(&mut self) -> Result<Comparison> {
        self.skip_space();
        for (sign, comparison) in [("!=", Comparison::Unequal), ("=", Comparison::Equal)] {
            if self.left().starts_with(sign) {
                self.at += sign.len();
                return Ok(comparison);
            }
        }
        for (word, comparison) in [("ILIKE", Comparison::ILike), ("LIKE", Comparison::Like)] {
            if self.keyword(word).is_ok() {
                return Ok(comparison);
            }
        }
        Err(self.wrong("=, !=, LIKE or ILIKE"))
    }

    fn quoted(&mut self, quotes: &[char], what: &str) -> Result<String> {
        self.skip_space();
        let quote = self.left().chars().next().filter(|c| quotes.contains(c));
        let quote = quote.ok_or_else(|| self.wrong(what))?;
        let inside = &self.left()[1..];
        let end = inside
            .find(quote)
            .ok_or_else(|| self.wrong(&format!("{what} that ends")))?;
        self.at += end + 2;
        Ok(inside[..end].to_owned())
    }
}
