//! An example: one row of a dataset, what is allowed in it, and how it is edited.

use std::collections::BTreeMap;

use base::Digest;
use db::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The largest example, in bytes of canonical JSON.
pub(super) const MAX_EXAMPLE_BYTES: usize = 1 << 20;
const MAX_ID_CHARS: usize = 128;
const MAX_SPLIT_CHARS: usize = 64;
const MAX_MARKS: usize = 1000;

/// One row of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Names it in every version; a new example without one gets one.
    #[serde(default)]
    pub id: String,
    /// What an application is given: a text, messages, or an object of inputs.
    pub input: Value,
    /// What it should answer; absent on an unlabelled example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// Texts that an answer may rest on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// Anything else, for slices and filters.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The part of the dataset that it belongs to: `train`, `test` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What somebody thought of the answer that was given when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Source::is_empty")]
    pub source: Source,
    /// Places in its texts that somebody or something marked, such as personal data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
}

/// What somebody thought of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

impl Verdict {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

/// Where an example comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The trace that it was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The span of that trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// What was answered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// The file that it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// Where in that file: a line, or the number of a row where a file has no lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The review in which it was judged: `review_queue:NAME@DIGEST#ITEM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<String>,
    /// Who typed it, as `user:ID` or `key:ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
}

impl Source {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A place in a text of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What it marks: `email`, `person`, `my_number` …
    pub kind: String,
    /// The text, as a JSON Pointer into the example: `/input/question`.
    pub path: String,
    /// The first character of it.
    pub start: usize,
    /// The first character behind it.
    pub end: usize,
}

impl Mark {
    /// The text that it covers.
    fn text<'a>(&self, example: &'a Value) -> Option<&'a str> {
        let text = example.pointer(&self.path)?.as_str()?;
        slice_chars(text, self.start, self.end)
    }
}

/// These characters of a text; `None` where it does not have them.
fn slice_chars(text: &str, start: usize, end: usize) -> Option<&str> {
    if start >= end {
        return None;
    }
    let mut bounds = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = bounds.nth(start)?;
    let to = bounds.nth(end - start - 1)?;
    text.get(from..to)
}

/// Whether a split may be called this.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_split(split: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    match split.chars().count() {
        1..=MAX_SPLIT_CHARS if split.chars().all(allowed) => Ok(()),
        _ => Err(format!(
            "a split has 1 to {MAX_SPLIT_CHARS} letters, digits, dots, dashes or underscores"
        )),
    }
}

impl Example {
    /// Checks what every example must hold to, whatever its dataset; gives the line that a
    /// chunk keeps.
    ///
    /// # Errors
    /// What is wrong, with its place inside of the example.
    pub fn check(&self) -> Result<Vec<u8>, Problem> {
        let id_chars = self.id.chars().count();
        if id_chars == 0 || id_chars > MAX_ID_CHARS || self.id.chars().any(base::text::is_deceptive)
        {
            let why = format!("an id has 1 to {MAX_ID_CHARS} visible characters");
            return Err(Problem::new("/id", why));
        }
        if let Some(split) = &self.split {
            check_split(split).map_err(|why| Problem::new("/split", why))?;
        }
        if self.input.is_null() {
            return Err(Problem::new("/input", "an example needs an input"));
        }
        let value =
            serde_json::to_value(self).map_err(|error| Problem::new("", error.to_string()))?;
        self.check_marks(&value)?;
        let line =
            base::canonical_json(&value).map_err(|error| Problem::new("", error.to_string()))?;
        if line.len() > MAX_EXAMPLE_BYTES {
            let why = format!("the example has {} bytes; the limit is 1 MiB", line.len());
            return Err(Problem::new("", why));
        }
        Ok(line)
    }

    fn check_marks(&self, value: &Value) -> Result<(), Problem> {
        if self.marks.len() > MAX_MARKS {
            return Err(Problem::new(
                "/marks",
                format!("more than {MAX_MARKS} marks"),
            ));
        }
        for (index, mark) in self.marks.iter().enumerate() {
            if mark.text(value).is_none() {
                let why = format!(
                    "there are no characters {} to {} at {}",
                    mark.start, mark.end, mark.path
                );
                return Err(Problem::new(format!("/marks/{index}"), why));
            }
        }
        Ok(())
    }

    /// What the example says, whatever it is called and wherever it comes from.
    pub fn content(&self) -> Option<Digest> {
        let value = serde_json::json!([self.input, self.expected, self.context, self.metadata]);
        Digest::of_json(&value).ok()
    }

    /// What is asked: examples with the same are duplicates.
    pub fn input_digest(&self) -> Option<Digest> {
        Digest::of_json(&self.input).ok()
    }

    /// All words of the input, in the order of its keys.
    pub fn input_text(&self) -> String {
        let mut out = String::new();
        collect_text(&self.input, &mut out);
        out
    }

    /// Whether some text in it contains this; `needle` is in lower case.
    pub fn mentions(&self, needle: &str) -> bool {
        let texts = [Some(&self.input), self.expected.as_ref()];
        texts
            .into_iter()
            .flatten()
            .any(|value| value_mentions(value, needle))
            || self
                .context
                .iter()
                .any(|text| text.to_lowercase().contains(needle))
            || self.metadata.iter().any(|(key, value)| {
                key.to_lowercase().contains(needle) || value_mentions(value, needle)
            })
            || self.id.to_lowercase().contains(needle)
    }

    /// Keeps the marks of the example that this one replaces, where what they cover still
    /// stands. A mark whose text was moved goes with it if the text is there once; one whose
    /// text is gone, is gone.
    pub fn inherit_marks(&mut self, before: &Self) {
        if !self.marks.is_empty() || before.marks.is_empty() {
            return;
        }
        let (Ok(old), Ok(new)) = (serde_json::to_value(before), serde_json::to_value(&*self))
        else {
            return;
        };
        let moved = before.marks.iter().filter_map(|mark| {
            let covered = mark.text(&old)?;
            if mark.text(&new) == Some(covered) {
                return Some(mark.clone());
            }
            let text = new.pointer(&mark.path)?.as_str()?;
            let mut found = text.match_indices(covered);
            let (at, _) = found.next()?;
            if found.next().is_some() {
                return None;
            }
            let start = text.get(..at)?.chars().count();
            let end = start + covered.chars().count();
            Some(Mark {
                start,
                end,
                ..mark.clone()
            })
        });
        self.marks = moved.collect();
    }

    /// Applies a merge patch (RFC 7396): what it names is set, `null` takes away.
    ///
    /// # Errors
    /// The outcome is no example.
    pub fn patched(&self, patch: &Map<String, Value>) -> Result<Self, Problem> {
        let mut value =
            serde_json::to_value(self).map_err(|error| Problem::new("", error.to_string()))?;
        let whole = Value::Object(patch.clone());
        merge(&mut value, &whole);
        // A patch that does not speak of marks leaves them to be carried over.
        if !patch.contains_key("marks")
            && let Some(map) = value.as_object_mut()
        {
            map.remove("marks");
        }
        let mut example: Self =
            serde_json::from_value(value).map_err(|error| Problem::new("", error.to_string()))?;
        if !patch.contains_key("marks") {
            example.inherit_marks(self);
        }
        Ok(example)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else {
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            map.remove(key);
        } else if matches!(key.as_str(), "input" | "expected") {
            // What is asked and expected is one value, never a mixture of two.
            map.insert(key.clone(), value.clone());
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn value_mentions(value: &Value, needle: &str) -> bool {
    match value {
        Value::String(text) => text.to_lowercase().contains(needle),
        Value::Array(items) => items.iter().any(|item| value_mentions(item, needle)),
        Value::Object(map) => map.values().any(|item| value_mentions(item, needle)),
        Value::Number(number) => number.to_string().contains(needle),
        Value::Bool(_) | Value::Null => false,
    }
}

pub(super) fn collect_text(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| collect_text(item, out)),
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| key.as_str() != "role")
            .for_each(|(_, item)| collect_text(item, out)),
        Value::Number(number) => {
            out.push_str(&number.to_string());
            out.push('\n');
        }
        Value::Bool(_) | Value::Null => {}
    }
}

/// How many of these examples are in each split.
pub(super) fn count_splits<'a>(
    splits: impl Iterator<Item = Option<&'a str>>,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for split in splits.flatten() {
        *counts.entry(split.to_owned()).or_default() += 1;
    }
    counts
}
