//! Addresses of lists: the query string is the only view state, so every link
//! on a page is the page's own address with a key or two changed.

use std::fmt::Write as _;

use telemetry::filter::Expr;
use telemetry::{Field, Filter, Literal, Op};

/// The keys that a list's address may have; others are dropped.
const KEYS: &[&str] = &[
    "from", "to", "filter", "q", "cursor", "prev", "limit", "peek", "live", "span", "all",
];
/// Bytes of one value; a longer one is dropped.
const VALUE_BYTES: usize = 16 << 10;

/// A path with its query, to derive other addresses from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListLink {
    path: String,
    pairs: Vec<(&'static str, String)>,
}

impl ListLink {
    /// An address without a query.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            pairs: Vec::new(),
        }
    }

    /// The address of a request.
    pub fn of_request(path: &str, query: &str) -> Self {
        let mut link = Self::new(path);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let known = KEYS.iter().find(|key| **key == name);
            if let Some(key) = known
                && !value.is_empty()
                && value.len() <= VALUE_BYTES
            {
                link = link.with(key, &value);
            }
        }
        link
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find_map(|(name, value)| (*name == key).then_some(value.as_str()))
    }

    /// This address with a key set; an empty value removes it.
    #[must_use]
    pub fn with(&self, key: &'static str, value: &str) -> Self {
        let mut link = self.without(&[key]);
        if !value.is_empty() {
            link.pairs.push((key, value.to_owned()));
        }
        link
    }

    /// This address without some keys.
    #[must_use]
    pub fn without(&self, keys: &[&str]) -> Self {
        let kept = self
            .pairs
            .iter()
            .filter(|(name, _)| !keys.contains(name))
            .cloned();
        Self {
            path: self.path.clone(),
            pairs: kept.collect(),
        }
    }

    /// This address with another filter, from its first page.
    #[must_use]
    pub fn with_filter(&self, filter: &str) -> Self {
        self.without(&["cursor", "prev", "peek"])
            .with("filter", filter)
    }

    /// This address with one more condition `field = value`.
    #[must_use]
    pub fn with_condition(&self, field: Field, op: Op, value: Literal) -> Self {
        let now = Filter::parse(self.get("filter").unwrap_or_default()).unwrap_or_default();
        // A value that the field cannot have matches nothing; the link then leads to the list as it is.
        let narrowed = now.without(&field).and(field, op, value).unwrap_or(now);
        self.with_filter(&narrowed.to_string())
    }

    /// As text for an `href`.
    pub fn href(&self) -> String {
        let mut out = self.path.clone();
        for (index, (name, value)) in self.pairs.iter().enumerate() {
            let _ = write!(
                out,
                "{}{name}={}",
                if index == 0 { '?' } else { '&' },
                encode(value)
            );
        }
        out
    }
}

/// Percent-encodes everything but unreserved characters: right for a path segment and for a query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// The conditions of a filter that all hold, one by one.
pub(super) fn conjuncts(filter: &Filter) -> Vec<&Expr> {
    match filter.expr() {
        None => Vec::new(),
        Some(Expr::And(parts)) => parts.iter().collect(),
        Some(other) => vec![other],
    }
}

/// The text of these conditions together.
pub(super) fn all_of<'a>(parts: impl Iterator<Item = &'a Expr>) -> String {
    let texts = parts.map(|part| match part {
        Expr::Or(_) => format!("({part})"),
        other => other.to_string(),
    });
    texts.collect::<Vec<_>>().join(" and ")
}

/// A value as a facet shows it, as a literal that the field takes.
pub(super) fn literal(field: &Field, value: &str) -> Literal {
    use telemetry::FieldType;
    match field.field_type() {
        FieldType::Number => value
            .parse()
            .map_or_else(|_| Literal::Text(value.to_owned()), Literal::Number),
        FieldType::Bool => Literal::Bool(matches!(value, "true" | "1")),
        FieldType::Text | FieldType::Word | FieldType::Any => Literal::Text(value.to_owned()),
    }
}
