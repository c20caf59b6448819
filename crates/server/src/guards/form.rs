//! The form that adds a rule to a policy: fields as they are typed, to the rule's JSON. What is
//! wrong in it is said by the policy's own check, with its place.

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
pub(super) const FIELDS: [&str; 10] = [
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
pub(super) const TICKS: [&str; 7] = [
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
