//! JSON Schema, the part of it that answers of models are described with. A keyword that is not
//! known is refused when the policy is read: a check that silently did less would be worse.

use serde_json::{Map, Value};

/// A schema that was read.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<String>,
    choices: Option<Vec<Value>>,
    properties: Vec<(String, Schema)>,
    required: Vec<String>,
    others: Others,
    items: Option<Box<Schema>>,
    any_of: Vec<Schema>,
    number: [Option<f64>; 4],
    length: [Option<u64>; 2],
    count: [Option<u64>; 2],
}

#[derive(Debug)]
enum Others {
    Allowed,
    Refused,
    Are(Box<Schema>),
}

/// What is wrong with a schema, and where in it.
#[derive(Debug)]
pub(super) struct SchemaError {
    pub(super) path: String,
    pub(super) message: String,
}

const NOTES: [&str; 8] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
];
const TYPES: [&str; 7] = [
    "object", "array", "string", "number", "integer", "boolean", "null",
];

impl Schema {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(value: &Value) -> Result<Schema, SchemaError> {
        read(value, "", 0)
    }

    /// # Errors
    /// The first place where a value is not of this schema, and why.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        self.check_at(value, "")
    }

    fn check_at(&self, value: &Value, at: &str) -> Result<(), String> {
        let place = if at.is_empty() { "the value" } else { at };
        if !self.types.is_empty() && !self.types.iter().any(|kind| is_of_type(value, kind)) {
            return Err(format!("{place} must be {}", self.types.join(" or ")));
        }
        if let Some(choices) = &self.choices
            && !choices.contains(value)
        {
            return Err(format!("{place} must be one of {} values", choices.len()));
        }
        if !self.any_of.is_empty() && !self.any_of.iter().any(|s| s.check_at(value, at).is_ok()) {
            return Err(format!("{place} is like none of the alternatives"));
        }
        match value {
            Value::Object(fields) => self.check_fields(fields, at, place),
            Value::Array(items) => self.check_items(items, at, place),
            Value::String(text) => in_range(
                text.chars().count() as u64,
                &self.length,
                place,
                "characters",
            ),
            Value::Number(number) => self.check_number(number.as_f64(), place),
            _ => Ok(()),
        }
    }

    fn check_fields(
        &self,
        fields: &Map<String, Value>,
        at: &str,
        place: &str,
    ) -> Result<(), String> {
        if let Some(missing) = self
            .required
            .iter()
            .find(|name| !fields.contains_key(*name))
        {
            return Err(format!("{place} lacks `{missing}`"));
        }
        for (name, value) in fields {
            let path = format!("{at}.{name}");
            let known = self.properties.iter().find(|(known, _)| known == name);
            match (known, &self.others) {
                (Some((_, schema)), _) => schema.check_at(value, &path)?,
                (None, Others::Are(schema)) => schema.check_at(value, &path)?,
                (None, Others::Refused) => return Err(format!("{place} may not have that field")),
                (None, Others::Allowed) => {}
            }
        }
        Ok(())
    }

    fn check_items(&self, items: &[Value], at: &str, place: &str) -> Result<(), String> {
        in_range(items.len() as u64, &self.count, place, "items")?;
        let Some(schema) = &self.items else {
            return Ok(());
        };
        let mut items = items.iter().enumerate();
        items.try_for_each(|(index, item)| schema.check_at(item, &format!("{at}[{index}]")))
    }

    fn check_number(&self, number: Option<f64>, place: &str) -> Result<(), String> {
        let number = number.unwrap_or(f64::NAN);
        let [least, most, above, below] = self.number;
        let fits = least.is_none_or(|limit| number >= limit)
            && most.is_none_or(|limit| number <= limit)
            && above.is_none_or(|limit| number > limit)
            && below.is_none_or(|limit| number < limit);
        if fits {
            Ok(())
        } else {
            Err(format!("{place} is out of range"))
        }
    }
}

fn in_range(count: u64, range: &[Option<u64>; 2], place: &str, what: &str) -> Result<(), String> {
    let [least, most] = *range;
    if least.is_none_or(|least| count >= least) && most.is_none_or(|most| count <= most) {
        return Ok(());
    }
    Err(format!("{place} has {count} {what}, which is not allowed"))
}

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}

fn read(value: &Value, path: &str, depth: usize) -> Result<Schema, SchemaError> {
    let wrong = |path: String, message: String| Err(SchemaError { path, message });
    let mut schema = Schema {
        types: Vec::new(),
        choices: None,
        properties: Vec::new(),
        required: Vec::new(),
        others: Others::Allowed,
        items: None,
        any_of: Vec::new(),
        number: [None; 4],
        length: [None; 2],
        count: [None; 2],
    };
    if depth > 32 {
        return wrong(path.to_owned(), "is nested too deeply".to_owned());
    }
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Bool(true) => return Ok(schema),
        _ => return wrong(path.to_owned(), "must be an object".to_owned()),
    };
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        if let Err(message) = schema.keyword(name, value, &path, depth)? {
            return wrong(path, message);
        }
    }
    Ok(schema)
}

impl Schema {
    /// Takes one keyword: the outer error is of a schema within, the inner of the keyword itself.
    fn keyword(
        &mut self,
        name: &str,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<Result<(), String>, SchemaError> {
        let within = |value: &Value, path: &str| read(value, path, depth + 1);
        match name {
            "type" => {
                let many = value
                    .as_array()
                    .map_or(std::slice::from_ref(value), Vec::as_slice);
                let names = many.iter().map(|name| name.as_str().unwrap_or_default());
                self.types = names.map(str::to_owned).collect();
                if !self.types.iter().all(|name| TYPES.contains(&name.as_str())) {
                    return Ok(Err(format!("must be of {}", TYPES.join(", "))));
                }
            }
            "enum" => match value.as_array() {
                Some(choices) => self.choices = Some(choices.clone()),
                None => return Ok(Err("must be a list".to_owned())),
            },
            "const" => self.choices = Some(vec![value.clone()]),
            "properties" => {
                let Some(fields) = value.as_object() else {
                    return Ok(Err("must be an object".to_owned()));
                };
                for (name, value) in fields {
                    let schema = within(value, &format!("{path}.{name}"))?;
                    self.properties.push((name.clone(), schema));
                }
            }
            "required" => {
                let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let names = names.iter().filter_map(Value::as_str);
                self.required = names.map(str::to_owned).collect();
            }
            "additionalProperties" => {
                self.others = match value {
                    Value::Bool(true) => Others::Allowed,
                    Value::Bool(false) => Others::Refused,
                    schema => Others::Are(Box::new(within(schema, path)?)),
                };
            }
            "items" => self.items = Some(Box::new(within(value, path)?)),
            "anyOf" => {
                let Some(schemas) = value.as_array() else {
                    return Ok(Err("must be a list".to_owned()));
                };
                for (index, schema) in schemas.iter().enumerate() {
                    self.any_of
                        .push(within(schema, &format!("{path}[{index}]"))?);
                }
            }
            _ => return Ok(self.limit(name, value)),
        }
        Ok(Ok(()))
    }

    fn limit(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let count = value.as_u64();
        let slot = match name {
            "minimum" => &mut self.number[0],
            "maximum" => &mut self.number[1],
            "exclusiveMinimum" => &mut self.number[2],
            "exclusiveMaximum" => &mut self.number[3],
            "minLength" => return set(&mut self.length[0], count),
            "maxLength" => return set(&mut self.length[1], count),
            "minItems" => return set(&mut self.count[0], count),
            "maxItems" => return set(&mut self.count[1], count),
            _ if NOTES.contains(&name) => return Ok(()),
            _ => return Err("is a keyword that is not checked here".to_owned()),
        };
        set(slot, value.as_f64())
    }
}

fn set<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), String> {
    *slot = value;
    if slot.is_some() {
        Ok(())
    } else {
        Err("must be a number".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_held_against_a_schema() {
        let schema = json!({
            "type": "object", "required": ["name"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
                "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
            },
        });
        let schema = Schema::new(&schema).unwrap();
        for (value, wrong) in [
            (json!({"name": "x", "tags": ["a"], "age": 3}), ""),
            (json!({"name": "x", "age": null}), ""),
            (json!([]), "must be object"),
            (json!({}), "lacks `name`"),
            (json!({"name": ""}), ".name has 0 characters"),
            (
                json!({"name": "x", "tags": ["c"]}),
                ".tags[0] must be one of",
            ),
            (json!({"name": "x", "age": -1}), "none of the alternatives"),
            (json!({"name": "x", "other": 1}), "may not have"),
        ] {
            let outcome = schema.check(&value).err().unwrap_or_default();
            assert!(
                outcome.contains(wrong) && outcome.is_empty() == wrong.is_empty(),
                "{value}"
            );
        }
        let error = Schema::new(&json!({"properties": {"a": {"pattern": "x"}}})).unwrap_err();
        assert_eq!(error.path, ".properties.a.pattern");
    }
}
