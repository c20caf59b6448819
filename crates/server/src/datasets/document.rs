//! The document of a dataset: what its examples are like, and which chunks hold them.
//!
//! The examples themselves are not in it. A version that changes a few of them
//! names the chunks of the version before but for those that were rewritten.

use std::collections::{BTreeMap, BTreeSet};

use base::Digest;
use db::Problem;
use jsonschema::{PatternOptions, Validator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example::{Example, check_split};

/// Examples of a chunk, at most.
pub(super) const CHUNK_EXAMPLES: usize = 256;
/// Examples of a dataset, at most.
pub(super) const MAX_EXAMPLES: u64 = 1_000_000;
const MAX_DESCRIPTION_CHARS: usize = 2000;
const MAX_LABELS: usize = 1000;
const MAX_LABEL_CHARS: usize = 200;
const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// A dataset, as the catalog keeps it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetDocument {
    /// What the dataset is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What the fields of every example look like.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// The only answers that `expected` may be, for a classification; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Anything else about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// How many examples each split has.
    #[serde(default)]
    pub splits: BTreeMap<String, u64>,
    /// How many examples there are.
    #[serde(default)]
    pub count: u64,
    /// Where the examples are, in their order.
    #[serde(default)]
    pub chunks: Vec<Chunk>,
    /// The version that this one came after, where the same examples were a version before:
    /// otherwise going back to them would be no version of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub after: Option<Digest>,
}

/// A JSON Schema for each field of an example that needs one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// What `input` looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What `expected` looks like, where an example has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// What `metadata` looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// A blob with examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// The blob.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// How many examples it holds.
    pub count: u64,
    /// How many of them are in each split.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub splits: BTreeMap<String, u64>,
}

impl Fields {
    /// Whether anything goes.
    pub fn is_empty(&self) -> bool {
        self.input.is_none() && self.expected.is_none() && self.metadata.is_none()
    }

    fn each(&self) -> [(&'static str, Option<&Value>); 3] {
        [
            ("input", self.input.as_ref()),
            ("expected", self.expected.as_ref()),
            ("metadata", self.metadata.as_ref()),
        ]
    }
}

impl DatasetDocument {
    /// Reads a document and checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = document.description_problems();
        problems.extend(document.count_problems());
        if problems.is_empty() {
            Ok(document)
        } else {
            Err(problems)
        }
    }

    /// What is wrong with the part that people write.
    pub fn description_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            let why = format!("longer than {MAX_DESCRIPTION_CHARS} characters");
            problems.push(Problem::new("/description", why));
        }
        if self.labels.len() > MAX_LABELS {
            problems.push(Problem::new(
                "/labels",
                format!("more than {MAX_LABELS} labels"),
            ));
        }
        let mut seen = BTreeSet::new();
        for (index, label) in self.labels.iter().enumerate() {
            let path = format!("/labels/{index}");
            if label.trim().is_empty() {
                problems.push(Problem::new(path, "a label must not be empty"));
            } else if label.chars().count() > MAX_LABEL_CHARS {
                let why = format!("longer than {MAX_LABEL_CHARS} characters");
                problems.push(Problem::new(path, why));
            } else if !seen.insert(label) {
                problems.push(Problem::new(path, format!("{label:?} is there twice")));
            }
        }
        problems.extend(Checks::build(self).err().unwrap_or_default());
        problems
    }

    fn count_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (mut count, mut splits) = (0_u64, BTreeMap::<&str, u64>::new());
        for (index, chunk) in self.chunks.iter().enumerate() {
            if chunk.count == 0 || chunk.count > CHUNK_EXAMPLES as u64 {
                let why = format!("a chunk holds 1 to {CHUNK_EXAMPLES} examples");
                problems.push(Problem::new(format!("/chunks/{index}/count"), why));
            }
            let mut in_splits = 0_u64;
            for (split, examples) in &chunk.splits {
                in_splits = in_splits.saturating_add(*examples);
                let sum = splits.entry(split).or_default();
                *sum = sum.saturating_add(*examples);
            }
            if in_splits > chunk.count {
                let why = "more examples are in splits than there are";
                problems.push(Problem::new(format!("/chunks/{index}/splits"), why));
            }
            count = count.saturating_add(chunk.count);
        }
        if count != self.count {
            problems.push(Problem::new(
                "/count",
                format!("the chunks hold {count} examples"),
            ));
        }
        if self.count > MAX_EXAMPLES {
            problems.push(Problem::new(
                "/count",
                format!("at most {MAX_EXAMPLES} are allowed"),
            ));
        }
        let named = self
            .splits
            .iter()
            .map(|(split, count)| (split.as_str(), *count));
        if !named.eq(splits) {
            problems.push(Problem::new("/splits", "the chunks have other splits"));
        }
        for split in self.splits.keys() {
            if let Err(why) = check_split(split) {
                problems.push(Problem::new("/splits", why));
            }
        }
        problems
    }

    /// The document as JSON.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The same description of examples, with these examples.
    pub fn with_chunks(&self, chunks: Vec<Chunk>) -> Self {
        let mut splits = BTreeMap::new();
        for (split, count) in chunks.iter().flat_map(|chunk| &chunk.splits) {
            *splits.entry(split.clone()).or_default() += count;
        }
        Self {
            splits,
            count: chunks.iter().map(|chunk| chunk.count).sum(),
            chunks,
            after: None,
            ..self.clone()
        }
    }

    /// How many examples are in no split.
    pub fn without_split(&self) -> u64 {
        self.count.saturating_sub(self.splits.values().sum())
    }
}

/// What every example of a dataset must hold to, compiled once.
pub struct Checks {
    validators: Vec<(&'static str, Validator)>,
    labels: BTreeSet<String>,
}

impl Checks {
    /// Compiles the schemas of a document.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn build(document: &DatasetDocument) -> Result<Self, Vec<Problem>> {
        let (mut validators, mut problems) = (Vec::new(), Vec::new());
        for (field, schema) in document.fields.each() {
            let Some(schema) = schema else { continue };
            match compile(field, schema) {
                Ok(validator) => validators.push((field, validator)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            let labels = document.labels.iter().cloned().collect();
            Ok(Self { validators, labels })
        } else {
            Err(problems)
        }
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.validators.is_empty() && self.labels.is_empty()
    }

    /// The first thing that is wrong with an example; the path is inside of the example.
    ///
    /// # Errors
    /// Where and why it does not hold to the schemas or the labels.
    pub fn check(&self, example: &Example) -> Result<(), Problem> {
        for (field, validator) in &self.validators {
            let metadata;
            let value = match *field {
                "input" => Some(&example.input),
                "expected" => example.expected.as_ref(),
                _ => {
                    metadata = Value::Object(example.metadata.clone());
                    Some(&metadata)
                }
            };
            let Some(value) = value else { continue };
            if let Some(error) = validator.iter_errors(value).next() {
                let path = format!("/{field}{}", error.instance_path());
                let why = error.masked().to_string();
                return Err(Problem::new(path, base::text::cut_bytes(&why, 300)));
            }
        }
        self.check_label(example)
    }

    fn check_label(&self, example: &Example) -> Result<(), Problem> {
        let Some(expected) = example
            .expected
            .as_ref()
            .filter(|_| !self.labels.is_empty())
        else {
            return Ok(());
        };
        let is_known = |value: &Value| {
            value
                .as_str()
                .is_some_and(|label| self.labels.contains(label))
        };
        let fits = match expected {
            Value::Array(labels) => labels.iter().all(is_known),
            one => is_known(one),
        };
        if fits {
            return Ok(());
        }
        let shown: Vec<&str> = self.labels.iter().take(8).map(String::as_str).collect();
        let why = format!("this is none of the dataset's labels: {}", shown.join(", "));
        Err(Problem::new("/expected", why))
    }
}

fn compile(field: &str, schema: &Value) -> Result<Validator, Problem> {
    let path = format!("/fields/{field}");
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(Problem::new(path, "a schema has at most 64 KiB"));
    }
    if mentions_reference(schema) {
        // References can go round in circles, which a validator follows for ever.
        let why = "references are not allowed here; write the schema in place";
        return Err(Problem::new(path, why));
    }
    let built = jsonschema::options()
        .offline()
        .with_pattern_options(PatternOptions::regex())
        .build(schema);
    built.map_err(|error| {
        let why = error.to_string();
        let why = base::text::cut_bytes(&why, 300);
        let path = format!("{path}{}", error.instance_path());
        Problem::new(path, format!("this is not a JSON Schema: {why}"))
    })
}

fn mentions_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| {
            matches!(key.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef")
                || mentions_reference(value)
        }),
        Value::Array(items) => items.iter().any(mentions_reference),
        _ => false,
    }
}
