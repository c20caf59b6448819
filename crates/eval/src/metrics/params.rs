//! Reads the parameters of a metric: each by name and kind, the first thing that is wrong named by
//! its path. A name that no metric reads is refused, because a misspelt parameter would otherwise
//! be a default in silence.

use serde_json::{Map, Value};

/// What is wrong with a metric's definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct Problem {
    /// The parameter, as a JSON pointer: `/tokenizer`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    pub(super) fn at(name: &str, message: impl Into<String>) -> Problem {
        Problem {
            path: if name.is_empty() {
                String::new()
            } else {
                format!("/{name}")
            },
            message: message.into(),
        }
    }
}

pub(super) struct Params<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Params<'a> {
    /// The value; `null` is the same as nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        self.get(name).map_or(Ok(default), |value| {
            value
                .as_bool()
                .ok_or_else(|| Problem::at(name, "must be true or false"))
        })
    }

    pub(super) fn number(&self, name: &str, low: f64, high: f64) -> Result<Option<f64>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            _ => Err(Problem::at(
                name,
                format!("must be a number from {low} to {high}"),
            )),
        }
    }

    pub(super) fn count(&self, name: &str, low: u64, high: u64) -> Result<Option<usize>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(count) if (low..=high).contains(&count) => Ok(usize::try_from(count).ok()),
            _ => Err(Problem::at(
                name,
                format!("must be a whole number from {low} to {high}"),
            )),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        self.get(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| Problem::at(name, "must be text"))
            })
            .transpose()
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let wrong = || Problem::at(name, "must be a list of texts");
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    /// One of the choices; the first is the default.
    pub(super) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Problem> {
        let Some(given) = self.text(name)? else {
            return Ok(choices[0].1);
        };
        let found = choices.iter().find(|(known, _)| *known == given);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let known: Vec<_> = choices.iter().map(|(known, _)| *known).collect();
            Problem::at(name, format!("must be one of {}", known.join(", ")))
        })
    }
}
