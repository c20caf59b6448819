//! Prompts as Langfuse's API gives them: `GET /api/public/v2/prompts/NAME` per
//! version, alone, in a list, or as one file per version.
//!
//! Their templates are our dialect `simple`. `@@@langfusePrompt:…@@@` becomes a
//! partial. Their version numbers mean nothing here, so a composition that names
//! one names the digest of that version, which must be in the files as well.

use std::collections::BTreeMap;

use base::Digest;
use serde_json::{Map, Value, json};

use super::handlebars::local_name;
use super::{Foreign, Importing, our_messages, read_json, texts};

const COMPOSITION: &str = "@@@langfusePrompt:";
const COMPOSITION_END: &str = "@@@";
/// How deep compositions may be nested there.
const MAX_DEPTH: usize = 5;

/// A version as it was read.
struct Version {
    name: String,
    number: i64,
    value: Value,
    file: String,
}

pub(super) fn read(importing: &mut Importing) -> anyhow::Result<()> {
    let mut versions = Vec::new();
    for file in importing.root.files(&[".json"])? {
        let Some(value) = read_json(importing, &file) else {
            continue;
        };
        for item in items(&value) {
            match version(item, &file) {
                Ok(version) => versions.push(version),
                Err(why) => importing.refuse(&file, why),
            }
        }
    }
    let mut converting = Converting {
        versions: &versions,
        done: BTreeMap::new(),
    };
    for (index, version) in versions.iter().enumerate() {
        match converting.convert(importing, index, 0) {
            Err(why) => importing.refuse(&version.file, format!("{:?}: {why}", version.name)),
            Ok(content) => importing.foreign.push(Foreign {
                name: version.name.clone(),
                order: version.number,
                labels: texts(version.value.get("labels")),
                tags: texts(version.value.get("tags")),
                content,
                file: version.file.clone(),
            }),
        }
    }
    Ok(())
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => match map.get("data").or_else(|| map.get("prompts")) {
            Some(Value::Array(items)) => items.iter().collect(),
            _ => vec![value],
        },
        _ => vec![value],
    }
}

fn version(value: &Value, file: &str) -> Result<Version, String> {
    let name = value.get("name").and_then(Value::as_str);
    let name = name.ok_or("a prompt has a name and a text in \"prompt\"")?;
    if value.get("prompt").is_none() {
        return Err(format!(
            "{name:?} is an entry of a list without its text; export the versions one by one \
             (GET /api/public/v2/prompts/NAME?version=N)"
        ));
    }
    Ok(Version {
        name: name.to_owned(),
        number: value.get("version").and_then(Value::as_i64).unwrap_or(1),
        value: value.clone(),
        file: file.to_owned(),
    })
}

struct Converting<'a> {
    versions: &'a [Version],
    done: BTreeMap<usize, Value>,
}

impl Converting<'_> {
    fn convert(
        &mut self,
        importing: &Importing,
        index: usize,
        depth: usize,
    ) -> Result<Value, String> {
        if let Some(done) = self.done.get(&index) {
            return Ok(done.clone());
        }
        if depth > MAX_DEPTH {
            return Err(format!(
                "compositions are nested more than {MAX_DEPTH} deep, or in a circle"
            ));
        }
        let value = &self.versions[index].value;
        let mut document = Map::new();
        let mut partials = Map::new();
        document.insert("dialect".to_owned(), json!("simple"));
        match value.get("prompt") {
            Some(Value::String(text)) => {
                let text = self.compose(importing, text, depth, &mut partials)?;
                document.insert("type".to_owned(), json!("text"));
                document.insert("template".to_owned(), json!(text));
            }
            Some(Value::Array(messages)) => {
                let mut messages = our_messages(messages)?;
                for message in &mut messages {
                    if let Some(text) = message.get("content").and_then(Value::as_str) {
                        message["content"] =
                            json!(self.compose(importing, text, depth, &mut partials)?);
                    }
                }
                document.insert("messages".to_owned(), Value::Array(messages));
            }
            _ => return Err("its prompt is neither a text nor a list of messages".to_owned()),
        }
        if !partials.is_empty() {
            document.insert("partials".to_owned(), Value::Object(partials));
        }
        let config = value.get("config").filter(|config| {
            !config.is_null() && config.as_object().is_none_or(|map| !map.is_empty())
        });
        if let Some(config) = config {
            document.insert("config".to_owned(), config.clone());
        }
        let document = Value::Object(document);
        self.done.insert(index, document.clone());
        Ok(document)
    }

    fn compose(
        &mut self,
        importing: &Importing,
        text: &str,
        depth: usize,
        partials: &mut Map<String, Value>,
    ) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(COMPOSITION) {
            out.push_str(&rest[..start]);
            let after = &rest[start + COMPOSITION.len()..];
            let end = after
                .find(COMPOSITION_END)
                .ok_or("a composition is not closed by @@@")?;
            let reference = self.reference(importing, &after[..end], depth)?;
            let local = local_of(partials, &reference);
            out.push_str(&format!("{{{{ partials.{local} }}}}"));
            partials.insert(local, json!(reference));
            rest = &after[end + COMPOSITION_END.len()..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name=N|label=L` or `name=N|version=3`.
    fn reference(
        &mut self,
        importing: &Importing,
        written: &str,
        depth: usize,
    ) -> Result<String, String> {
        let mut name = None;
        let mut selector = "production".to_owned();
        for pair in written.split('|') {
            match pair.split_once('=') {
                Some(("name", value)) => name = Some(value),
                Some(("label", value)) => value.clone_into(&mut selector),
                Some(("version", value)) => {
                    let number: i64 = value
                        .parse()
                        .map_err(|_| format!("{value:?} is no version"))?;
                    let name = name.ok_or("a composition begins with a name")?;
                    selector = self.digest(importing, name, number, depth)?.to_string();
                }
                _ => return Err(format!("{pair:?} of a composition was not understood")),
            }
        }
        let name = name.ok_or("a composition has a name")?;
        Ok(format!("prompt:{}@{selector}", importing.name(name)?))
    }

    fn digest(
        &mut self,
        importing: &Importing,
        name: &str,
        number: i64,
        depth: usize,
    ) -> Result<Digest, String> {
        let index = self
            .versions
            .iter()
            .position(|version| version.name == name && version.number == number)
            .ok_or_else(|| format!("version {number} of {name:?} is used and not in the files"))?;
        let document = self.convert(importing, index, depth + 1)?;
        Digest::of_json(&document).map_err(|error| error.to_string())
    }
}

/// What the template calls the partial: by its name, with a number where two would share one.
fn local_of(partials: &Map<String, Value>, reference: &str) -> String {
    let name = reference
        .strip_prefix("prompt:")
        .and_then(|rest| rest.rsplit_once('@'))
        .map_or(reference, |(name, _)| name);
    let base = local_name(name);
    let mut local = base.clone();
    let mut number = 2;
    while partials.get(&local).is_some_and(|known| known != reference) {
        local = format!("{base}_{number}");
        number += 1;
    }
    local
}
