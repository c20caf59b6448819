//! What differs between two documents, field by field.

use serde::Serialize;
use serde_json::{Map, Value};

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// A JSON Pointer into the later document, or into the earlier one for what is gone.
    pub path: String,
    /// What was there; `None` where it is new.
    pub before: Option<Value>,
    /// What is there; `None` where it is gone.
    pub after: Option<Value>,
}

/// Every field that differs, in the order of the later document; what is gone
/// comes after its neighbours. Nothing, exactly when the documents are the same.
///
/// In a list, what both begin and end with is set aside, so that one item put in
/// or taken out is one change.
pub fn diff(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", before, after, &mut changes);
    changes
}

fn compare(path: &str, before: &Value, after: &Value, out: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => objects(path, before, after, out),
        (Value::Array(before), Value::Array(after)) => arrays(path, before, after, out),
        _ if same(before, after) => {}
        _ => out.push(Change {
            path: path.to_owned(),
            before: Some(before.clone()),
            after: Some(after.clone()),
        }),
    }
}

/// 1 and 1.0 are one number, as their canonical form says.
fn same(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Number(before), Value::Number(after)) => before.as_f64() == after.as_f64(),
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len() && before.iter().zip(after).all(|(b, a)| same(b, a))
        }
        (Value::Object(before), Value::Object(after)) => {
            before.len() == after.len()
                && before
                    .iter()
                    .all(|(key, value)| after.get(key).is_some_and(|other| same(value, other)))
        }
        _ => before == after,
    }
}

fn objects(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    out: &mut Vec<Change>,
) {
    for (key, value) in after {
        let path = format!("{path}/{}", escape(key));
        match before.get(key) {
            Some(earlier) => compare(&path, earlier, value, out),
            None => out.push(added(path, value)),
        }
    }
    for (key, value) in before {
        if !after.contains_key(key) {
            out.push(gone(format!("{path}/{}", escape(key)), value));
        }
    }
}

fn arrays(path: &str, before: &[Value], after: &[Value], out: &mut Vec<Change>) {
    let equal = |(b, a): &(&Value, &Value)| same(b, a);
    let head = before.iter().zip(after).take_while(equal).count();
    let (before, after) = (&before[head..], &after[head..]);
    let tail = before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(equal)
        .count();
    let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);
    let at = |index: usize| format!("{path}/{}", head + index);
    for (index, (earlier, later)) in before.iter().zip(after).enumerate() {
        compare(&at(index), earlier, later, out);
    }
    for (index, value) in after.iter().enumerate().skip(before.len()) {
        out.push(added(at(index), value));
    }
    for (index, value) in before.iter().enumerate().skip(after.len()) {
        out.push(gone(at(index), value));
    }
}

fn added(path: String, value: &Value) -> Change {
    Change {
        path,
        before: None,
        after: Some(value.clone()),
    }
}

fn gone(path: String, value: &Value) -> Change {
    Change {
        path,
        before: Some(value.clone()),
        after: None,
    }
}

/// A key as one part of a JSON Pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(before: Value, after: Value, expected: &[(&str, Option<Value>, Option<Value>)]) {
        let shown: Vec<_> = diff(&before, &after)
            .into_iter()
            .map(|change| (change.path, change.before, change.after))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(path, before, after)| ((*path).to_owned(), before.clone(), after.clone()))
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn fields_and_items() {
        check(json!({"a": 1, "b": [1]}), json!({"b": [1.0], "a": 1}), &[]);
        check(
            json!(1),
            json!("1"),
            &[("", Some(json!(1)), Some(json!("1")))],
        );
        check(
            json!({"a": 1, "gone/x": null, "deep": {"~": 1}}),
            json!({"a": 2, "deep": {"~": 2, "new": []}}),
            &[
                ("/a", Some(json!(1)), Some(json!(2))),
                ("/deep/~0", Some(json!(1)), Some(json!(2))),
                ("/deep/new", None, Some(json!([]))),
                ("/gone~1x", Some(json!(null)), None),
            ],
        );
    }

    #[test]
    fn one_item_put_in_or_taken_out_is_one_change() {
        check(
            json!(["a", "b"]),
            json!(["x", "a", "b"]),
            &[("/0", None, Some(json!("x")))],
        );
        check(
            json!(["a", "b", "c"]),
            json!(["a", "c"]),
            &[("/1", Some(json!("b")), None)],
        );
        check(
            json!(["a"]),
            json!(["a", "b"]),
            &[("/1", None, Some(json!("b")))],
        );
        check(
            json!(["a", "a"]),
            json!(["a"]),
            &[("/1", Some(json!("a")), None)],
        );
        check(
            json!([{"t": 1}, {"t": 2}]),
            json!([{"t": 1}, {"t": 3}]),
            &[("/1/t", Some(json!(2)), Some(json!(3)))],
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c/~]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_differs_exactly_when_the_identity_is_the_same(a in any_json(), b in any_json()) {
            let same = base::canonical_json(&a).unwrap() == base::canonical_json(&b).unwrap();
            prop_assert_eq!(diff(&a, &b).is_empty(), same);
            prop_assert!(diff(&a, &a).is_empty());
        }

        #[test]
        fn every_change_is_where_it_says(a in any_json(), b in any_json()) {
            for change in diff(&a, &b) {
                if let Some(before) = &change.before && change.after.is_none() {
                    prop_assert_eq!(a.pointer(&change.path), Some(before));
                }
                if let Some(after) = &change.after {
                    prop_assert_eq!(b.pointer(&change.path), Some(after));
                }
            }
        }
    }
}
