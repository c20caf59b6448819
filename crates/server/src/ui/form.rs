//! A document of the catalog as a form, with its JSON beside it.
//!
//! A form shows what people change often. Where a document says more than that, saving the
//! form would lose the rest: the page then offers the JSON alone.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the fields of a form hold, by their names.
pub type Fields = BTreeMap<String, String>;

/// What a template asks for, to know that the form would lose something.
const ONLY_JSON: &str = "only_json";

/// What somebody filled in.
pub fn typed<'a>(form: &'a Fields, name: &str) -> Option<&'a str> {
    form.get(name)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

/// The JSON, where that was sent and not the fields.
pub fn sent_json(form: &Fields) -> Option<Result<Value, String>> {
    if typed(form, "action") != Some("json") {
        return None;
    }
    let text = typed(form, "document").unwrap_or_default();
    let parsed = serde_json::from_str(text);
    Some(parsed.map_err(|error| format!("the JSON cannot be read: {error}")))
}

/// Notes that the fields do not tell all of a document.
pub fn allow_only_json(fields: &mut Fields) {
    fields.insert(ONLY_JSON.to_owned(), "on".to_owned());
}
