//! The fields that stand beside a policy's JSON: those that add a rule, and those that say which
//! calls it watches. What is wrong in them is said by the policy's own check, with its place.

use serde_json::{Map, Value, json};

use super::words;
use crate::ui::form::{Fields, typed};

/// What a rule can look for, in the order of the form.
pub(super) const CHECKS: [&str; 18] = [
    "pii",
    "secrets",
    "words",
    "pattern",
    "injection",
    "toxicity",
    "topics",
    "languages",
    "links",
    "canary",
    "prompt_leak",
    "json",
    "grounded",
    "judge",
    "refusal",
    "empty",
    "size",
    "repetition",
];
/// What a rule can do.
pub(super) const ACTIONS: [&str; 5] = ["block", "redact", "replace", "rewrite", "flag"];
/// Where a rule can look.
pub(super) const POINTS: [&str; 5] = [
    "input",
    "output",
    "retrieved",
    "tool_arguments",
    "tool_result",
];
/// Fields of text.
pub(super) const FIELDS: [&str; 14] = [
    "g_was",
    "g_apps",
    "g_models",
    "g_keys",
    "r_name",
    "r_check",
    "r_values",
    "r_list",
    "r_number",
    "r_threshold",
    "r_model",
    "r_action",
    "r_with",
    "r_on_failure",
];
/// Fields that are ticked.
pub(super) const TICKS: [&str; 8] = [
    "g_everything",
    "r_at_input",
    "r_at_output",
    "r_at_retrieved",
    "r_at_tool_arguments",
    "r_at_tool_result",
    "r_shadow",
    "r_reversible",
];

fn get<'a>(form: &'a Fields, name: &str) -> &'a str {
    typed(form, name).unwrap_or_default()
}

/// Lists of `applies_to`, each a field of names with commas between them.
const WATCHED: [&str; 3] = ["apps", "models", "keys"];

/// Which calls are watched, as the fields say.
fn watched(form: &Fields) -> Map<String, Value> {
    let mut watched = Map::new();
    if form.contains_key("g_everything") {
        watched.insert("everything".to_owned(), json!(true));
    }
    for list in WATCHED {
        let names = get(form, &format!("g_{list}")).split([',', '、']);
        let names: Vec<&str> = names.map(str::trim).filter(|it| !it.is_empty()).collect();
        if !names.is_empty() {
            watched.insert(list.to_owned(), json!(names));
        }
    }
    watched
}

fn typed_document(form: &Fields) -> Option<Map<String, Value>> {
    let document = serde_json::from_str(get(form, "document")).ok()?;
    match document {
        Value::Object(document) => Some(document),
        _ => None,
    }
}

/// Puts into the typed document which calls are watched, if these fields were shown and changed:
/// who changed the JSON instead keeps that.
pub(super) fn take_watched(form: &mut Fields) {
    let now = watched(form);
    let said = json!(now).to_string();
    let changed = form.get("g_was").is_some_and(|was| *was != said);
    let Some(mut document) = typed_document(form).filter(|_| changed) else {
        return;
    };
    match now.is_empty() {
        true => document.remove("applies_to"),
        false => document.insert("applies_to".to_owned(), Value::Object(now)),
    };
    let document = serde_json::to_string_pretty(&document).unwrap_or_default();
    form.insert("document".to_owned(), document);
}

/// Fills these fields from the document; as they were typed where it cannot be read.
pub(super) fn show_watched(form: &mut Fields) {
    let Some(document) = typed_document(form) else {
        return;
    };
    let to = document.get("applies_to").unwrap_or(&Value::Null);
    form.remove("g_everything");
    if to["everything"] == true {
        form.insert("g_everything".to_owned(), "on".to_owned());
    }
    for list in WATCHED {
        let names = to[list].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        form.insert(format!("g_{list}"), names.join(", "));
    }
    let was = json!(watched(form)).to_string();
    form.insert("g_was".to_owned(), was);
}

/// The rule that the fields say.
pub(super) fn rule(form: &Fields) -> Value {
    let kind = match get(form, "r_check") {
        "" => "pii",
        kind => kind,
    };
    let at: Vec<&str> = POINTS
        .into_iter()
        .filter(|point| form.contains_key(&format!("r_at_{point}")))
        .collect();
    let name = match get(form, "r_name") {
        "" => kind.replace('_', "-"),
        name => name.to_owned(),
    };
    let mut rule = json!({
        "name": name, "at": at, "check": check(kind, form), "action": action(form),
    });
    if form.contains_key("r_shadow") {
        rule["shadow"] = json!(true);
    }
    if get(form, "r_on_failure") == "closed" {
        rule["on_failure"] = json!("closed");
    }
    rule
}

fn lines(form: &Fields) -> Vec<&str> {
    let lines = get(form, "r_values").lines().map(str::trim);
    lines.filter(|line| !line.is_empty()).collect()
}

/// A number where one was typed; else the text, for the check to refuse.
fn number(text: &str) -> Value {
    serde_json::from_str(text)
        .ok()
        .filter(Value::is_number)
        .unwrap_or_else(|| json!(text))
}

/// A list that was chosen, or whose reference was typed; else the typed words.
fn words_or_list(form: &Fields, lines: &[&str]) -> Value {
    let is_reference = |text: &str| text.starts_with(&format!("{}:", words::KIND));
    match (typed(form, "r_list"), lines) {
        (Some(reference), _) => json!(reference),
        (None, [one]) if is_reference(one) => json!(one),
        _ => json!(lines),
    }
}

fn check(kind: &str, form: &Fields) -> Value {
    let mut check = Map::new();
    check.insert("type".to_owned(), json!(kind));
    let mut put = |name: &str, value: Value| {
        check.insert(name.to_owned(), value);
    };
    let (values, lines) = (get(form, "r_values"), lines(form));
    match kind {
        "pii" | "secrets" if !lines.is_empty() => put("kinds", json!(lines)),
        "words" => put("list", words_or_list(form, &lines)),
        "pattern" => put("pattern", json!(values)),
        "languages" | "links" => put("allow", json!(lines)),
        "topics" => {
            let (allow, deny): (Vec<&str>, Vec<&str>) =
                lines.iter().partition(|line| line.starts_with('+'));
            let allow: Vec<&str> = allow.iter().map(|line| line[1..].trim()).collect();
            put("allow", json!(allow));
            put("deny", json!(deny));
        }
        "json" => {
            if !values.is_empty() {
                put(
                    "schema",
                    serde_json::from_str(values).unwrap_or_else(|_| json!(values)),
                );
            }
            put("repair", json!(true));
        }
        "judge" => put("rubric", json!(values)),
        "size" => put("max_chars", number(get(form, "r_number"))),
        _ => {}
    }
    if matches!(kind, "prompt_leak" | "repetition") && !get(form, "r_number").is_empty() {
        put("min_chars", number(get(form, "r_number")));
    }
    let has_scores = matches!(
        kind,
        "injection" | "toxicity" | "topics" | "grounded" | "judge"
    );
    if has_scores && !get(form, "r_threshold").is_empty() {
        put("threshold", number(get(form, "r_threshold")));
    }
    if matches!(kind, "grounded" | "judge") && !get(form, "r_model").is_empty() {
        put("model", json!(get(form, "r_model")));
    }
    Value::Object(check)
}

fn action(form: &Fields) -> Value {
    let with = get(form, "r_with");
    match get(form, "r_action") {
        "redact" if form.contains_key("r_reversible") => {
            json!({"type": "redact", "reversible": true})
        }
        "replace" => json!({"type": "replace", "with": with}),
        "rewrite" if !with.is_empty() => json!({"type": "rewrite", "instruction": with}),
        "" => json!({"type": "flag"}),
        action => json!({"type": action}),
    }
}
