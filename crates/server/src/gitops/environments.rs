//! `environments.toml`: the environments in order, what protects them, and what
//! protects labels that are no environments. Reading, checking, writing and the
//! schema of that one file.
//!
//! The surprising thing: rules that ask for nothing are no rules. They are not
//! written, and are not told from a label that nobody ever protected.

use std::collections::BTreeMap;

use db::catalog::Label;
use db::promotion::{Delivery, Rules};
use serde_json::{Map, Value, json};

use super::schema::{schema_line, unknown_keys};
use super::toml::{self, Read, line_and_column};
use super::{ENVIRONMENTS_FILE, Finding, has_errors, text};

/// What a project says of environments and protected labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environments {
    /// The environments, in their order.
    pub order: Vec<String>,
    /// What protects labels, environments or not; those without protection are not here.
    pub protections: BTreeMap<String, Rules>,
}

impl Environments {
    /// Those of a project.
    pub(super) fn of(known: &db::promotion::Environments) -> Self {
        let of_environments = known
            .environments
            .iter()
            .filter_map(|environment| environment.protection.as_ref());
        let protections = of_environments
            .chain(&known.labels)
            .filter(|protection| protection.rules != Rules::default())
            .map(|protection| (protection.label.clone(), protection.rules.clone()));
        Self {
            protections: protections.collect(),
            order: known
                .environments
                .iter()
                .map(|environment| environment.name.clone())
                .collect(),
        }
    }

    /// What protects a label; the rules that ask for nothing where nothing does.
    pub fn rules(&self, label: &str) -> Rules {
        self.protections.get(label).cloned().unwrap_or_default()
    }

    /// Whether it is an environment.
    pub fn has(&self, name: &str) -> bool {
        self.order.iter().any(|known| known == name)
    }

    /// The protected labels that are no environments, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&String, &Rules)> {
        self.protections
            .iter()
            .filter(|(label, _)| !self.has(label))
    }

    /// The environments that take content over by themselves, and the one that each takes it from.
    pub(super) fn following(&self) -> BTreeMap<String, String> {
        let pairs = self.order.iter().zip(self.order.iter().skip(1));
        pairs
            .filter(|(_, to)| self.rules(to).delivery == Delivery::Auto)
            .map(|(from, to)| (to.clone(), from.clone()))
            .collect()
    }

    /// What the project will say once these of a tree were applied to it: those of the tree in
    /// its order, where it has another one than the project.
    pub(super) fn with(&self, wanted: &Self) -> Self {
        let added = wanted.order.iter().filter(|name| !self.has(name));
        let mut order: Vec<String> = self.order.iter().chain(added).cloned().collect();
        let of_tree: Vec<&String> = order.iter().filter(|name| wanted.has(name)).collect();
        if of_tree != wanted.order.iter().collect::<Vec<_>>() {
            let others = order.iter().filter(|name| !wanted.has(name));
            order = wanted.order.iter().chain(others).cloned().collect();
        }
        let mut protections = self.protections.clone();
        protections.retain(|label, _| !wanted.has(label));
        protections.extend(wanted.protections.clone());
        Self { order, protections }
    }

    /// The file.
    pub(super) fn write(&self) -> String {
        let mut out = schema_line(ENVIRONMENTS_FILE, "environments");
        let entry = |name: &String, rules: Option<&Rules>| {
            let mut map = Map::from_iter([("name".to_owned(), json!(name))]);
            if let Some(rules) = rules {
                map.insert("protection".to_owned(), protection_of(rules));
            }
            Value::Object(map)
        };
        let environments = self
            .order
            .iter()
            .map(|name| entry(name, self.protections.get(name)));
        let labels = self.labels().map(|(name, rules)| entry(name, Some(rules)));
        let lists: [(&str, Value); 2] = [
            ("environment", environments.collect()),
            ("label", labels.collect()),
        ];
        for (key, list) in lists {
            toml::write_section(&list, &[key], &mut out);
        }
        out
    }
}

/// What protects a label, without what is as it is by default.
pub(super) fn protection_of(rules: &Rules) -> Value {
    let mut value = json!(rules);
    let defaults = json!(Rules::default());
    if let (Some(map), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) {
        map.retain(|key, value| !value.is_null() && defaults.get(key) != Some(value));
    }
    value
}

/// Reads the file, with everything that is wrong in it at once.
pub(super) fn read(source: &str) -> (Option<Environments>, Vec<Finding>) {
    let file = ENVIRONMENTS_FILE;
    if let Some(line) = text::conflict_line(source) {
        let finding = Finding::error(file, "a merge conflict was left in it");
        return (None, vec![finding.on_line(line)]);
    }
    let read = match toml::read(source) {
        Ok(read) => read,
        Err(mistake) => {
            let place = line_and_column(source, mistake.at);
            return (None, vec![Finding::error(file, mistake.message).at(place)]);
        }
    };
    let unknown = unknown_keys(&schema(), &read.value);
    let findings: Vec<Finding> = unknown
        .iter()
        .map(|unknown| {
            let hint = unknown
                .suggestion
                .as_ref()
                .map(|near| format!("did you mean {near}?"));
            let place = line_and_column(source, read.key_at(&unknown.pointer));
            Finding::error(file, format!("unknown key {:?}", unknown.key))
                .at(place)
                .hint(hint)
        })
        .collect();
    if has_errors(&findings) {
        return (None, findings);
    }
    let mut reading = Reading {
        source,
        read: &read,
        found: Environments::default(),
        findings,
    };
    reading.list("environment");
    reading.list("label");
    (Some(reading.found), reading.findings)
}

struct Reading<'a> {
    source: &'a str,
    read: &'a Read,
    found: Environments,
    findings: Vec<Finding>,
}

impl Reading<'_> {
    /// `[[environment]]` or `[[label]]`.
    fn list(&mut self, key: &str) {
        let list = match self.read.value.get(key) {
            None => return,
            Some(Value::Array(list)) => list.clone(),
            Some(_) => {
                let message = format!("{key} is a list of tables: [[{key}]]");
                return self.error(&format!("/{key}"), message, None);
            }
        };
        for (index, item) in list.iter().enumerate() {
            let pointer = format!("/{key}/{index}");
            if let Err((message, hint)) = self.entry(key == "label", item) {
                self.error(&pointer, message, hint);
            }
        }
    }

    fn entry(&mut self, is_label: bool, item: &Value) -> Result<(), (String, Option<String>)> {
        let plain = |message: String| (message, None);
        let name = item.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| plain("it needs a name".to_owned()))?;
        let label: Label = name
            .parse()
            .map_err(|problem: db::Problem| plain(problem.message))?;
        let label = label.to_string();
        if is_label && self.found.has(&label) {
            let message = format!("{label} is an environment");
            let hint = "what protects it stands in its [[environment]]";
            return Err((message, Some(hint.to_owned())));
        }
        if self.found.has(&label) || self.found.protections.contains_key(&label) {
            return Err(plain(format!("{label} is there twice")));
        }
        let rules = match item.get("protection") {
            None => Rules::default(),
            Some(value) => read_rules(value).map_err(plain)?,
        };
        if is_label && rules == Rules::default() {
            let message = format!("nothing protects the label {label}");
            let hint = "give it a protection, or take it out of the file; what protects it in the \
                        project then goes with --allow-delete";
            return Err((message, Some(hint.to_owned())));
        }
        if rules != Rules::default() {
            self.found.protections.insert(label.clone(), rules);
        }
        if !is_label {
            self.found.order.push(label);
        }
        Ok(())
    }

    fn error(&mut self, pointer: &str, message: String, hint: Option<String>) {
        let place = line_and_column(self.source, self.read.at(pointer));
        let finding = Finding::error(ENVIRONMENTS_FILE, message).at(place);
        self.findings.push(finding.hint(hint));
    }
}

fn read_rules(value: &Value) -> Result<Rules, String> {
    let rules: Rules = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    crate::promotion::check_roles(&rules).map_err(|error| error.message)?;
    rules.check().map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("; ")
    })?;
    Ok(rules)
}

/// The JSON Schema of the file.
pub(super) fn schema() -> Value {
    let entry = |what: &str, required: &[&str]| {
        json!({
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": false,
                "required": required,
                "properties": {
                    "name": {"type": "string", "description": what},
                    "protection": protection_schema(),
                },
            },
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The environments of a project of Meguri, in order, and what protects labels",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "environment": entry("The environment, and the label that it serves.", &["name"]),
            "label": entry("A protected label that is no environment.", &["name", "protection"]),
        },
    })
}

fn protection_schema() -> Value {
    json!({
        "type": "object",
        "description": "What a move of the label needs. Nobody approves their own.",
        "additionalProperties": false,
        "properties": {
            "approvals": {"type": "integer", "minimum": 0, "description": "How many people must approve a move."},
            "approver_roles": {"type": "array", "items": {"type": "string"}, "description": "In which roles; empty for all that may approve."},
            "gates": {"type": "array", "description": "What must be shown of the content before.", "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "required": {"type": "boolean", "default": true},
                    "min_s": {"type": "integer", "minimum": 0},
                },
            }},
            "delivery": {"enum": ["manual", "auto"], "description": "Whether content moves here by itself once its gates pass."},
            "expires_after_s": {"type": "integer", "description": "How long a proposal stays open."},
        },
    })
}
