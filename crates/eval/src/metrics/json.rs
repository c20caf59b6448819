//! Answers that must be JSON: whether they are, whether a schema accepts them, whether they hold the
//! expected value.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::params::Problem;

/// An answer longer than this is not parsed: a row may be 100 MB.
const MAX_BYTES: usize = 16 << 20;

/// The JSON value of an answer. With `fenced`, one Markdown code block around it is taken off,
/// because chat models put one there.
pub fn read_json(output: &str, fenced: bool) -> Result<Value, String> {
    let text = if fenced { inside_fence(output) } else { output };
    if text.len() > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn inside_fence(output: &str) -> &str {
    let trimmed = crate::text::trim(output);
    let inner = trimmed
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"))
        .and_then(|rest| rest.split_once('\n'))
        // The first line names a language or nothing; anything else is content.
        .filter(|(tag, _)| tag.trim().chars().all(|c| c.is_ascii_alphanumeric()))
        .map(|(_, rest)| rest);
    inner.unwrap_or(trimmed)
}

/// A compiled schema. References that lead out of it are refused; nothing is fetched.
pub(super) fn compile_schema(schema: &Value) -> Result<Validator, Problem> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| {
            let path = error.instance_path();
            Problem::at(&format!("schema{path}"), error.to_string())
        })
}

/// What is wrong with a value: at most five complaints, each with its place.
pub(super) fn complaints(validator: &Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .take(5)
        .map(|error| {
            let message = error.to_string();
            // The message repeats the value, which may be long.
            format!(
                "{}: {}",
                error.instance_path(),
                base::text::cut_bytes(&message, 300)
            )
        })
        .collect()
}

/// Equal as JSON: the order of an object's members does not matter, 1 and 1.0 are the same.
pub fn json_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| json_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| json_equal(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reading() {
        assert_eq!(
            read_json("```json\n{\"a\":1}\n```", true),
            Ok(json!({"a": 1}))
        );
        assert!(read_json("```json\n{\"a\":1}\n```", false).is_err());
        assert!(read_json("{\"a\": NaN}", true).is_err());
        assert!(read_json("", true).is_err());
        assert!(read_json("```", true).is_err());
    }

    #[test]
    fn equality_and_schemas() {
        assert!(json_equal(
            &json!({"a": 1, "b": [1.0]}),
            &json!({"b": [1], "a": 1.0})
        ));
        assert!(!json_equal(&json!([1, 2]), &json!([2, 1])));
        let schema = compile_schema(&json!({"type": "object", "required": ["a"]})).unwrap();
        assert!(complaints(&schema, &json!({"a": 1})).is_empty());
        assert_eq!(complaints(&schema, &json!({})).len(), 1);
        assert!(compile_schema(&json!({"type": "thing"})).is_err());
        assert!(compile_schema(&json!({"$ref": "https://example.com/s"})).is_err());
    }
}
