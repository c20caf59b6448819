//! The inputs of a prompt: a JSON Schema that fills defaults and checks what a
//! caller sends, once compiled per version.
//!
//! A schema is somebody's text too. It cannot reach outside itself (`$ref` is a
//! JSON Pointer into the same schema), cannot refer to itself, and is refused
//! when its references unfold to more than a few thousand parts, so checking an
//! input always ends soon. Patterns run in linear time.

use std::collections::HashMap;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::document::{PromptDocument, pointer_part};
use super::template;
use crate::problem::DocumentProblem;

/// The parts of a schema with every reference unfolded.
const MOST_PARTS: usize = 5_000;
/// Problems that are told at once.
const MOST_PROBLEMS: usize = 20;
/// Keywords that change what a reference means.
const REFUSED: [&str; 6] = [
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
];
/// Keywords whose values are data and not schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keywords whose values hold schemas by name.
const BY_NAME: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];
/// References that may follow from one another.
const LONGEST_CHAIN: usize = 50;
/// Keywords through which a schema may know properties that `properties` does not list.
const OTHER_WAYS: [&str; 10] = [
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "dependentSchemas",
    "if",
    "oneOf",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
];

/// A schema that inputs are checked with.
pub(super) struct Inputs {
    schema: Value,
    validator: Validator,
}

impl Inputs {
    /// Reads a schema.
    ///
    /// # Errors
    /// What is wrong with it; paths begin with `/inputs`.
    pub(super) fn new(schema: &Value) -> Result<Self, Vec<DocumentProblem>> {
        let Some(map) = schema.as_object() else {
            let message = "the inputs are a JSON Schema, an object";
            return Err(vec![DocumentProblem::new("/inputs", message)]);
        };
        if map.get("type").is_some_and(|kind| kind != "object") {
            let message = "the inputs as a whole are of type \"object\"";
            return Err(vec![DocumentProblem::new("/inputs/type", message)]);
        }
        Unfold::new(schema).check()?;
        let built = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(schema);
        let validator = built.map_err(|error| {
            let path = format!("/inputs{}", error.instance_path());
            // The schema of schemas knows two ways to write a type and names neither.
            let message = match path.ends_with("/type") {
                true => {
                    "a type is array, boolean, integer, null, number, object or string".to_owned()
                }
                false => error.masked().to_string(),
            };
            vec![DocumentProblem::new(path, message)]
        })?;
        Ok(Self {
            schema: schema.clone(),
            validator,
        })
    }

    /// The inputs of a call with defaults filled in. `extra` are names that are
    /// allowed although the schema does not know them.
    ///
    /// # Errors
    /// What is wrong with the inputs; paths begin with `variables.`.
    pub(super) fn fill(
        &self,
        given: &Map<String, Value>,
        extra: &[&str],
    ) -> Result<Map<String, Value>, Vec<DocumentProblem>> {
        let mut problems = self.unknown(given, extra);
        let mut filled = given.clone();
        fill_defaults(&self.schema, &mut filled);
        let (known, value) = self.without(filled, extra);
        self.collect(&value, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut filled = known;
        if let Value::Object(map) = value {
            filled.extend(map);
        }
        Ok(filled)
    }

    /// Checks only what is there; paths are JSON Pointers below `base`.
    pub(super) fn check_part(
        &self,
        given: &Map<String, Value>,
        base: &str,
    ) -> Vec<DocumentProblem> {
        let mut problems = Vec::new();
        for found in self.unknown(given, &[]) {
            let name = found.path.trim_start_matches("variables.").to_owned();
            let path = format!("{base}/{}", pointer_part(&name));
            problems.push(DocumentProblem::new(path, found.message));
        }
        let value = Value::Object(given.clone());
        for error in self.validator.iter_errors(&value).take(MOST_PROBLEMS) {
            let missing = matches!(error.kind(), ValidationErrorKind::Required { .. });
            if !missing || !error.instance_path().as_str().is_empty() {
                let path = format!("{base}{}", error.instance_path());
                problems.push(DocumentProblem::new(path, error.masked().to_string()));
            }
        }
        problems
    }

    /// Fills the defaults and nothing else.
    pub(super) fn defaults(&self, given: &mut Map<String, Value>) {
        fill_defaults(&self.schema, given);
    }

    fn collect(&self, value: &Value, problems: &mut Vec<DocumentProblem>) {
        for error in self.validator.iter_errors(value).take(MOST_PROBLEMS) {
            let path = dotted(error.instance_path().as_str());
            let problem = match error.kind() {
                ValidationErrorKind::Required { property } => DocumentProblem::new(
                    format!("{path}.{}", property.as_str().unwrap_or_default()),
                    "it is required",
                ),
                _ => DocumentProblem::new(path, error.masked().to_string()),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }

    /// Names that the schema does not know, unless it leaves that open.
    fn unknown(&self, given: &Map<String, Value>, extra: &[&str]) -> Vec<DocumentProblem> {
        if OTHER_WAYS.iter().any(|key| self.schema.get(key).is_some()) {
            return Vec::new();
        }
        let known = names(&self.schema);
        let wrong = given
            .keys()
            .filter(|name| !known.contains(&name.as_str()) && !extra.contains(&name.as_str()));
        let problem = |name: &String| {
            let near = crate::nearest(name, known.iter().copied());
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            let message = format!("there is no such input{hint}");
            DocumentProblem::new(format!("variables.{}", shown(name)), message)
        };
        wrong.take(MOST_PROBLEMS).map(problem).collect()
    }

    /// Takes out what the schema is not asked about.
    fn without(
        &self,
        mut given: Map<String, Value>,
        extra: &[&str],
    ) -> (Map<String, Value>, Value) {
        let known = names(&self.schema);
        let mut apart = Map::new();
        for name in extra.iter().filter(|name| !known.contains(*name)) {
            if let Some(value) = given.shift_remove(*name) {
                apart.insert((*name).to_owned(), value);
            }
        }
        (apart, Value::Object(given))
    }
}

/// `/a/0/b` as `variables.a[0].b`.
fn dotted(pointer: &str) -> String {
    let mut out = "variables".to_owned();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{part}]"));
        } else {
            out.push('.');
            out.push_str(shown(&part));
        }
    }
    out
}

/// A name that a caller made up, cut to what a message can hold.
fn shown(name: &str) -> &str {
    base::text::cut_bytes(name, 100)
}

fn fill_defaults(schema: &Value, given: &mut Map<String, Value>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    for (name, property) in properties {
        if let Some(default) = property.get("default") {
            given.entry(name.clone()).or_insert_with(|| default.clone());
        }
        if let Some(Value::Object(inner)) = given.get_mut(name) {
            fill_defaults(property, inner);
        }
    }
}

/// The inputs that a schema lists.
pub(super) fn names(schema: &Value) -> Vec<&str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
        .collect()
}

/// Follows every reference of a schema and counts what it unfolds to.
struct Unfold<'a> {
    root: &'a Value,
    /// Parts below a place; `None` while it is being counted.
    sizes: HashMap<String, Option<usize>>,
    chain: usize,
    problems: Vec<DocumentProblem>,
}

impl<'a> Unfold<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            sizes: HashMap::new(),
            chain: 0,
            problems: Vec::new(),
        }
    }

    fn check(mut self) -> Result<(), Vec<DocumentProblem>> {
        let parts = self.size(String::new(), "");
        if parts > MOST_PARTS && self.problems.is_empty() {
            let message =
                format!("with its references unfolded the schema has more than {MOST_PARTS} parts");
            self.problem("", message);
        }
        if self.problems.is_empty() {
            Ok(())
        } else {
            self.problems.truncate(MOST_PROBLEMS);
            Err(self.problems)
        }
    }

    fn problem(&mut self, at: &str, message: impl Into<String>) {
        self.problems
            .push(DocumentProblem::new(format!("/inputs{at}"), message));
    }

    /// The parts of what stands at this place.
    fn size(&mut self, target: String, from: &str) -> usize {
        match self.sizes.get(&target) {
            Some(Some(size)) => return *size,
            Some(None) => {
                self.problem(from, "the schema refers to itself, which is not supported");
                return 0;
            }
            None => {}
        }
        let Some(place) = self.root.pointer(&target) else {
            self.problem(from, format!("there is nothing at \"#{}\"", shown(&target)));
            return 0;
        };
        if self.chain > LONGEST_CHAIN {
            let message = format!("more than {LONGEST_CHAIN} references follow from one another");
            self.problem(from, message);
            return 0;
        }
        self.sizes.insert(target.clone(), None);
        self.chain += 1;
        let size = self.walk(place, &target, false);
        self.chain -= 1;
        self.sizes.insert(target, Some(size));
        size
    }

    /// `by_name`: the keys are names that somebody chose and not keywords.
    fn walk(&mut self, value: &Value, at: &str, by_name: bool) -> usize {
        let mut size = 1_usize;
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let inside = format!("{at}/{}", pointer_part(key));
                    let parts = if by_name {
                        self.walk(inner, &inside, false)
                    } else {
                        self.keyword(key, inner, &inside)
                    };
                    size = size.saturating_add(parts);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let parts = self.walk(item, &format!("{at}/{index}"), false);
                    size = size.saturating_add(parts);
                }
            }
            _ => {}
        }
        size
    }

    fn keyword(&mut self, key: &str, inner: &Value, at: &str) -> usize {
        if REFUSED.contains(&key) {
            self.problem(at, format!("{key} is not supported here"));
            return 0;
        }
        match inner.as_str() {
            Some(target) if key == "$ref" => self.reference(target, at),
            _ if DATA.contains(&key) => 1,
            _ => self.walk(inner, at, BY_NAME.contains(&key)),
        }
    }

    fn reference(&mut self, target: &str, from: &str) -> usize {
        match target.strip_prefix('#') {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                self.size(pointer.to_owned(), from)
            }
            _ => {
                let message = format!(
                    "a schema can only refer to its own parts (\"#/$defs/NAME\"), not to {:?}",
                    shown(target)
                );
                self.problem(from, message);
                0
            }
        }
    }
}

/// Inputs to try a prompt with.
pub(super) fn sample(document: &PromptDocument) -> Map<String, Value> {
    let mut inputs = Map::new();
    if let Some(properties) = document
        .inputs
        .as_ref()
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object)
    {
        for (name, property) in properties {
            inputs.insert(name.clone(), sample_of(name, property, 0));
        }
    }
    let lists: Vec<String> = document
        .templates()
        .iter()
        .flat_map(|(_, text)| template::looped_over(text))
        .collect();
    let placeholders: Vec<&str> = document.placeholders().collect();
    for variable in document.variables() {
        let name = variable.name.as_str();
        let root = name.split('.').next().unwrap_or(name);
        if inputs.contains_key(root) {
            if document.inputs.is_none() {
                put(&mut inputs, name);
            }
        } else if placeholders.contains(&name) {
            let message = json!([{"role": "user", "content": name}]);
            inputs.insert(name.to_owned(), message);
        } else if lists.iter().any(|list| list == name) {
            inputs.insert(name.to_owned(), json!([name]));
        } else if document.inputs.is_none() {
            put(&mut inputs, name);
        }
    }
    if let Some(first) = document.examples.as_ref().and_then(|e| e.items.first()) {
        inputs.extend(first.inputs.clone());
    }
    inputs
}

/// Puts a sample text at a dotted name.
fn put(inputs: &mut Map<String, Value>, name: &str) {
    let (root, rest) = match name.split_once('.') {
        Some((root, rest)) => (root, Some(rest)),
        None => (name, None),
    };
    let Some(rest) = rest else {
        inputs.entry(root.to_owned()).or_insert_with(|| root.into());
        return;
    };
    let inner = inputs.entry(root.to_owned()).or_insert_with(|| json!({}));
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Value::Object(inner) = inner {
        put(inner, rest);
    }
}

fn sample_of(name: &str, schema: &Value, depth: usize) -> Value {
    const DEEPEST: usize = 8;
    let first = |key: &str| schema.get(key).and_then(|list| list.get(0)).cloned();
    let said = first("examples")
        .or_else(|| schema.get("default").cloned())
        .or_else(|| schema.get("const").cloned())
        .or_else(|| first("enum"));
    if let Some(said) = said {
        return said;
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None => None,
    };
    match kind {
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") if depth < DEEPEST => match schema.get("items") {
            Some(items) => json!([sample_of(name, items, depth + 1)]),
            None => json!([name]),
        },
        Some("object") if depth < DEEPEST => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let members = properties
                .into_iter()
                .flatten()
                .map(|(name, inner)| (name.clone(), sample_of(name, inner, depth + 1)));
            Value::Object(members.collect())
        }
        _ => name.into(),
    }
}

/// A schema that declares what the templates use.
pub(super) fn draft(document: &PromptDocument) -> Value {
    let sample = sample(&PromptDocument {
        inputs: None,
        ..document.clone()
    });
    let required: Vec<&String> = sample.keys().collect();
    let properties: Map<String, Value> = sample
        .iter()
        .map(|(name, value)| (name.clone(), schema_of(value)))
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn schema_of(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => match items.first() {
            Some(first) => json!({"type": "array", "items": schema_of(first)}),
            None => json!({"type": "array"}),
        },
        Value::Object(members) => {
            let properties: Map<String, Value> = members
                .iter()
                .map(|(name, value)| (name.clone(), schema_of(value)))
                .collect();
            json!({"type": "object", "properties": properties})
        }
    }
}
