//! The prompts of a promptfoo configuration. Their templates are Nunjucks, which
//! is Jinja as far as prompts go; what ours does not know is found by the check of
//! the prompt.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Foreign, Importing, Root, our_messages, parse_yaml};

const CONFIGURATIONS: &[&str] = &[
    "promptfooconfig.yaml",
    "promptfooconfig.yml",
    "promptfooconfig.json",
];
/// Files that are programs.
const PROGRAMS: &[&str] = &["js", "mjs", "cjs", "ts", "py", "sh", "rb", "go"];

pub(super) fn read(importing: &mut Importing) -> anyhow::Result<()> {
    let found = importing.root.files(&[
        "promptfooconfig.yaml",
        "promptfooconfig.yml",
        "promptfooconfig.json",
    ])?;
    let file = match importing.root.file.clone() {
        Some(file) => file,
        None => match found
            .iter()
            .find(|file| CONFIGURATIONS.contains(&file.as_str()))
        {
            Some(file) => file.clone(),
            None => anyhow::bail!(
                "{} has no promptfooconfig.yaml",
                importing.root.folder.display()
            ),
        },
    };
    let text = match importing.root.read(&file) {
        Ok(text) => text,
        Err(why) => {
            importing.refuse(&file, why);
            return Ok(());
        }
    };
    let Some(config) = parse_yaml(importing, &file, &text, 1) else {
        return Ok(());
    };
    match config.get("prompts") {
        None => importing.refuse(&file, "it has no prompts"),
        Some(prompts) => read_prompts(importing, &file, prompts),
    }
    Ok(())
}

fn read_prompts(importing: &mut Importing, file: &str, prompts: &Value) {
    match prompts {
        Value::String(_) => read_prompt(importing, file, prompts, 1),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                read_prompt(importing, file, item, index + 1);
            }
        }
        // The old form: path or text → label.
        Value::Object(map) => {
            for (index, (prompt, label)) in map.iter().enumerate() {
                let item = json!({"id": prompt, "label": label});
                read_prompt(importing, file, &item, index + 1);
            }
        }
        _ => importing.refuse(file, "prompts is no list"),
    }
}

/// A text, a path, or a table with `id` or `raw` and perhaps `label`.
fn read_prompt(importing: &mut Importing, file: &str, item: &Value, number: usize) {
    let label = item.get("label").and_then(Value::as_str);
    let raw = item.get("raw").and_then(Value::as_str);
    let id = item
        .as_str()
        .or_else(|| item.get("id").and_then(Value::as_str));
    match (raw, id) {
        (Some(raw), _) => {
            let name = label.map_or_else(|| format!("prompt-{number}"), str::to_owned);
            add(importing, file, &name, raw);
        }
        (None, Some(id)) => match path_of(id) {
            Some(path) => read_path(importing, file, path, label),
            None => {
                let name = label.map_or_else(|| format!("prompt-{number}"), str::to_owned);
                add(importing, file, &name, id);
            }
        },
        (None, None) => {
            importing.refuse(
                file,
                format!("prompt {number} is no text, path or table with id"),
            );
        }
    }
}

/// Whether the text is a path: `file://…`, or a single word with a known ending.
fn path_of(text: &str) -> Option<&str> {
    if let Some(path) = text.strip_prefix("file://") {
        return Some(path.trim_start_matches("./"));
    }
    let single = !text.contains(['\n', ' ', '{']);
    let ending = Path::new(text).extension()?.to_str()?;
    let known = ["txt", "md", "json", "yaml", "yml", "j2", "csv", "jsonl"];
    (single && (known.contains(&ending) || PROGRAMS.contains(&ending)))
        .then(|| text.trim_start_matches("./"))
}

fn read_path(importing: &mut Importing, file: &str, path: &str, label: Option<&str>) {
    if path.contains(['*', '?', '[']) {
        return read_pattern(importing, file, path);
    }
    // `prompt.py:function` names a function.
    let ending = path.rsplit('.').next().unwrap_or_default();
    let word = ending.split(':').next().unwrap_or_default();
    if PROGRAMS.contains(&word) {
        return importing.refuse(
            file,
            format!("{path} is a program; only texts are imported"),
        );
    }
    if matches!(ending, "csv" | "jsonl") {
        return importing.refuse(file, format!("{path}: prompts in tables are not imported"));
    }
    let text = match importing.root.read(path) {
        Ok(text) => text,
        Err(why) => return importing.refuse(file, why),
    };
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    let name = label.unwrap_or(stem);
    if matches!(ending, "yaml" | "yml") {
        let Some(value) = parse_yaml(importing, path, &text, 1) else {
            return;
        };
        return match value.as_array() {
            Some(messages) => add_chat(importing, path, name, messages),
            None => importing.refuse(path, "it is no list of messages"),
        };
    }
    // Several prompts in one file are set apart by a line of three dashes.
    let parts: Vec<&str> = text.split("\n---\n").collect();
    for (index, part) in parts.iter().enumerate() {
        let name = match index {
            0 => name.to_owned(),
            _ => format!("{name}-{}", index + 1),
        };
        add(importing, path, &name, part.trim());
    }
}

/// `prompts/*.txt`: one star in the last part.
fn read_pattern(importing: &mut Importing, file: &str, pattern: &str) {
    let (folder, last) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let star = last.split_once('*').filter(|(before, after)| {
        let plain = |text: &str| !text.contains(['*', '?', '[']);
        plain(before) && plain(after) && plain(folder)
    });
    let Some((before, after)) = star else {
        let message = format!("{pattern}: only one * in the last part of a path is understood");
        return importing.refuse(file, message);
    };
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let all = Root::all(&importing.root, after);
    let found: Vec<String> = all
        .into_iter()
        .filter(|path| {
            path.strip_prefix(&prefix).is_some_and(|name| {
                !name.contains('/')
                    && name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            })
        })
        .collect();
    if found.is_empty() {
        importing.refuse(file, format!("{pattern} finds no file"));
    }
    for path in found {
        read_path(importing, file, &path, None);
    }
}

impl Root {
    /// Every file of the folder with this ending, whichever file was named.
    fn all(&self, ending: &str) -> Vec<String> {
        let folder = Root {
            folder: self.folder.clone(),
            file: None,
        };
        folder.files(&[ending]).unwrap_or_default()
    }
}

/// A text, or a chat as JSON.
fn add(importing: &mut Importing, file: &str, name: &str, text: &str) {
    if text.starts_with('[')
        && let Ok(Value::Array(messages)) = serde_json::from_str(text)
    {
        return add_chat(importing, file, name, &messages);
    }
    let document = json!({"messages": [{"role": "user", "content": text}]});
    push(importing, file, name, document);
}

fn add_chat(importing: &mut Importing, file: &str, name: &str, messages: &[Value]) {
    match our_messages(messages) {
        Ok(messages) => {
            let document = Map::from_iter([("messages".to_owned(), Value::Array(messages))]);
            push(importing, file, name, Value::Object(document));
        }
        Err(why) => importing.refuse(file, format!("{name:?}: {why}")),
    }
}

fn push(importing: &mut Importing, file: &str, name: &str, content: Value) {
    let order = importing
        .foreign
        .iter()
        .filter(|known| known.name == name)
        .count();
    importing.foreign.push(Foreign {
        name: name.to_owned(),
        order: i64::try_from(order).unwrap_or(0),
        labels: Vec::new(),
        tags: Vec::new(),
        content,
        file: file.to_owned(),
    });
}
