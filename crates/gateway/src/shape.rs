//! Where a document has the wrong shape, in words for whoever wrote it.
//!
//! serde says what it met and stops there, without a place. The place is found
//! from outside: the part without which serde says something else is the part
//! that it meant. That needs no second description of any type, costs nothing
//! while documents are right, and is given up where one is too large for it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::DocumentProblem;

/// Readings that are spent on finding one place.
const MOST_TRIES: usize = 1_000;
/// Bytes of a document, times the readings of it.
const MOST_BYTES: usize = 32 << 20;

/// Reads a value; a wrong one is located.
///
/// # Errors
/// What has the wrong shape, and where.
pub fn read_shape<T: DeserializeOwned>(value: &Value) -> Result<T, DocumentProblem> {
    T::deserialize(value).map_err(|error| {
        let error = error.to_string();
        let read = |value: &Value| T::deserialize(value).err().map(|error| error.to_string());
        let bytes = value.to_string().len().max(1);
        let mut search = Search {
            read: &read,
            error: &error,
            left: MOST_TRIES.min(MOST_BYTES / bytes),
        };
        let path = if let Some(field) = quoted(&error, "missing field `") {
            search.without_field(value, field)
        } else if let Some(field) = quoted(&error, "unknown field `") {
            search.with_field(value, field)
        } else {
            search.deepest(value)
        };
        DocumentProblem::new(path, words(&error))
    })
}

struct Search<'a> {
    read: &'a dyn Fn(&Value) -> Option<String>,
    error: &'a str,
    /// Readings that may still be spent.
    left: usize,
}

impl Search<'_> {
    /// What is said of another value; nothing once all readings are spent.
    fn says(&mut self, value: &Value) -> Option<Option<String>> {
        self.left = self.left.checked_sub(1)?;
        Some((self.read)(value))
    }

    /// The smallest part without which something else is said.
    fn deepest(&mut self, value: &Value) -> String {
        let mut path = String::new();
        'deeper: loop {
            let mut parts = children(value.pointer(&path));
            // Without its tag nothing can be said of an object, and the tag would be blamed.
            parts.sort_by_key(|name| name == "type");
            for child in parts {
                let place = format!("{path}/{child}");
                let Some(less) = without(value, &path, &child) else {
                    continue;
                };
                match self.says(&less) {
                    Some(said) if said.as_deref() != Some(self.error) => {
                        path = place;
                        continue 'deeper;
                    }
                    Some(_) => {}
                    None => return path,
                }
            }
            return path;
        }
    }

    /// The field of this name without which something else is said. Other parts are not tried:
    /// without its tag a variant is wrong in another way, and the tag would be blamed.
    fn with_field(&mut self, value: &Value, field: &str) -> String {
        let escaped = field.replace('~', "~0").replace('/', "~1");
        let mut places = vec![String::new()];
        let mut at = 0;
        while let Some(place) = places.get(at).cloned() {
            at += 1;
            for child in children(value.pointer(&place)) {
                places.push(format!("{place}/{child}"));
                if child != escaped {
                    continue;
                }
                let Some(less) = without(value, &place, &child) else {
                    continue;
                };
                match self.says(&less) {
                    Some(said) if said.as_deref() != Some(self.error) => {
                        return format!("{place}/{child}");
                    }
                    Some(_) => {}
                    None => return String::new(),
                }
            }
        }
        String::new()
    }

    /// The object that lacks this field: of which something else is said when it is there.
    fn without_field(&mut self, value: &Value, field: &str) -> String {
        let unknown = format!("unknown field `{field}`");
        let mut places = vec![String::new()];
        let mut at = 0;
        while let Some(place) = places.get(at).cloned() {
            at += 1;
            let here = value.pointer(&place);
            for child in children(here) {
                places.push(format!("{place}/{child}"));
            }
            if !here.is_some_and(|here| here.is_object() && here.get(field).is_none()) {
                continue;
            }
            let mut more = value.clone();
            if let Some(Value::Object(map)) = more.pointer_mut(&place) {
                map.insert(field.to_owned(), Value::Null);
            }
            match self.says(&more) {
                Some(Some(said)) if said == self.error || said.starts_with(&unknown) => {}
                Some(_) => return place,
                None => break,
            }
        }
        String::new()
    }
}

/// The parts of a value, as parts of a JSON Pointer.
fn children(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Object(map)) => map
            .keys()
            .map(|name| name.replace('~', "~0").replace('/', "~1"))
            .collect(),
        Some(Value::Array(items)) => (0..items.len()).map(|at| at.to_string()).collect(),
        _ => Vec::new(),
    }
}

/// A copy without one part.
fn without(value: &Value, path: &str, child: &str) -> Option<Value> {
    let mut copy = value.clone();
    match copy.pointer_mut(path)? {
        Value::Object(map) => {
            map.shift_remove(&child.replace("~1", "/").replace("~0", "~"))?;
        }
        Value::Array(items) => {
            items.remove(child.parse().ok()?);
        }
        _ => return None,
    }
    Some(copy)
}

/// What stands between this beginning and the next backtick.
fn quoted<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once('`')?.0)
}

/// serde's words as a person's.
fn words(error: &str) -> String {
    let known = || -> Vec<&str> {
        let list = error.split_once("expected ").map_or("", |(_, list)| list);
        list.split('`').skip(1).step_by(2).collect()
    };
    let hint = |wrong: &str| match crate::nearest(wrong, known().into_iter()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("known are {}", known().join(", ")),
    };
    if let Some(field) = quoted(error, "missing field `") {
        return format!("the field {field:?} is missing");
    }
    if let Some(field) = quoted(error, "unknown field `") {
        return format!("unknown field {field:?}; {}", hint(field));
    }
    if let Some(variant) = quoted(error, "unknown variant `") {
        return format!("{variant:?} is not known here; {}", hint(variant));
    }
    let wrong = error
        .strip_prefix("invalid type: ")
        .or_else(|| error.strip_prefix("invalid value: "));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((met, expected)) => format!("this must be {}, not {}", noun(expected), thing(met)),
        None => error.to_owned(),
    }
}

/// What serde expects.
fn noun(expected: &str) -> &str {
    match expected {
        "f64" | "f32" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "a string" | "string" => "a text",
        "a boolean" | "bool" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if expected.starts_with("struct ") || expected.starts_with("internally tagged enum ") => {
            "an object"
        }
        other => other,
    }
}

/// What serde met.
fn thing(met: &str) -> String {
    let value = quoted(met, "`");
    match met {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => match met.strip_prefix("string ") {
            Some(text) => format!("the text {}", base::text::cut_bytes(text, 100)),
            None => value.unwrap_or(met).to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Outer {
        name: String,
        list: Vec<Inner>,
        target: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        kind: Kind,
        #[serde(default)]
        weight: f64,
        count: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Prompt,
        Agent,
    }

    #[test]
    fn the_place_and_the_words() {
        let check = |value: Value, path: &str, message: &str| {
            let problem = read_shape::<Outer>(&value).unwrap_err();
            assert_eq!(
                (problem.path.as_str(), problem.message.as_str()),
                (path, message)
            );
        };
        let with = |inner: Value| json!({"name": "x", "list": [{"kind": "agent"}, inner]});
        let at = "/list/1/weight";
        check(
            with(json!({"kind": "agent", "weight": "5"})),
            at,
            "this must be a number, not the text \"5\"",
        );
        check(
            with(json!({"kind": "agent", "weight": {"a": 1}})),
            at,
            "this must be a number, not an object",
        );
        check(
            with(json!({"kind": "agent", "count": -1})),
            "/list/1/count",
            "this must be a whole number that is not negative, not -1",
        );
        check(
            with(json!({"kind": "agnt"})),
            "/list/1/kind",
            "\"agnt\" is not known here; did you mean \"agent\"?",
        );
        check(
            with(json!({"kind": "agent", "wieght": 1})),
            "/list/1/wieght",
            "unknown field \"wieght\"; did you mean \"weight\"?",
        );
        check(
            with(json!({"weight": 1})),
            "/list/1",
            "the field \"kind\" is missing",
        );
        check(
            json!({"list": [], "target": {"kind": "agent"}}),
            "",
            "the field \"name\" is missing",
        );
        check(
            json!({"name": "x", "list": [], "target": {}}),
            "/target",
            "the field \"kind\" is missing",
        );
        check(
            json!({"name": 1, "list": []}),
            "/name",
            "this must be a text, not 1",
        );
        check(json!(null), "", "this must be an object, not null");
        check(
            json!({"name": "x", "list": "y"}),
            "/list",
            "this must be a list, not the text \"y\"",
        );
        // Too large to be searched to its end: as far as it was.
        let many = vec![json!({"kind": "agent"}); 200_000];
        let mut large = json!({"name": "x", "list": many});
        large["list"][199_999]["weight"] = json!("5");
        check(large, "/list", "this must be a number, not the text \"5\"");
    }
}
