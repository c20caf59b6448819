//! Messages as one text file: what people edit is text, not quoted strings.
//!
//! ```text
//! --- system ---
//! You answer for {{ team }}.
//! --- placeholder history ---
//! --- user ---
//! {{ question }}
//! ```
//!
//! Every text comes back byte by byte. A heading is a line `--- role ---`; a
//! line of a message that looks like one, or like a merge conflict's marker, gets
//! a backslash in front, as many as it has plus one. The newline before the next heading or the
//! end of the file belongs to the format: a message that itself ends in a newline
//! is followed by an empty line.

use db::Problem;
use db::catalog::TextFile;
use serde_json::{Map, Value, json};

const OPEN: &str = "--- ";
const CLOSE: &str = " ---";
const PLACEHOLDER: &str = "placeholder ";

/// The text file of prompts: the messages of a chat, or the template of a text.
pub const PROMPT_TEXT: TextFile = TextFile {
    suffix: "prompt.md",
    split: split_prompt,
    join: join_prompt,
};

fn split_prompt(document: &mut Value) -> Option<String> {
    let map = document.as_object_mut()?;
    if map.get("type").and_then(Value::as_str) == Some("text") {
        let template = map.get("template")?.as_str()?;
        // No text file and an empty one must not be two things, and a line that would read as a
        // merge conflict can be escaped only in the TOML file.
        if template.is_empty() || conflict_line(template).is_some() {
            return None;
        }
        return match map.shift_remove("template") {
            Some(Value::String(template)) => Some(template),
            _ => None,
        };
    }
    let text = write_messages(map.get("messages")?.as_array()?)?;
    map.shift_remove("messages");
    Some(text)
}

fn join_prompt(document: &mut Value, text: &str) -> Result<(), Problem> {
    let Some(map) = document.as_object_mut() else {
        return Err(Problem::new("", "a prompt is a table"));
    };
    let is_text = map.get("type").and_then(Value::as_str) == Some("text");
    let (key, value) = if is_text {
        ("template", Value::from(text))
    } else {
        ("messages", Value::Array(read_messages(text)?))
    };
    if map.contains_key(key) {
        let message = format!("{key} is in the TOML file and in the text file; keep one of them");
        return Err(Problem::new(format!("/{key}"), message));
    }
    map.insert(key.to_owned(), value);
    Ok(())
}

/// The text of these messages; `None` where one has more than this form can say.
pub fn write_messages(messages: &[Value]) -> Option<String> {
    if messages.is_empty() {
        return None;
    }
    let mut out = String::new();
    for message in messages {
        let map = message.as_object()?;
        match (map.len(), text_of(map, "placeholder")) {
            (1, Some(name)) if is_word(name) => {
                out.push_str(&format!("{OPEN}{PLACEHOLDER}{name}{CLOSE}\n"));
            }
            (2, None) => {
                let (role, content) = (text_of(map, "role")?, text_of(map, "content")?);
                if !is_word(role) {
                    return None;
                }
                out.push_str(&format!("{OPEN}{role}{CLOSE}\n"));
                write_content(content, &mut out);
            }
            _ => return None,
        }
    }
    Some(out)
}

fn text_of<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn is_word(text: &str) -> bool {
    let written = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && text.chars().all(written)
}

fn write_content(content: &str, out: &mut String) {
    for line in content.split('\n') {
        if needs_escape(line.trim_start_matches('\\')) {
            out.push('\\');
        }
        out.push_str(line);
        out.push('\n');
    }
}

fn needs_escape(line: &str) -> bool {
    looks_like_heading(line) || is_conflict_line(line)
}

fn is_conflict_line(line: &str) -> bool {
    line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ")
}

/// The first line, from 1, that a merge left behind.
pub(super) fn conflict_line(text: &str) -> Option<usize> {
    text.split('\n')
        .position(is_conflict_line)
        .map(|line| line + 1)
}

/// Whether the character at this byte begins such a line.
pub(super) fn begins_conflict_line(text: &str, at: usize) -> bool {
    (at == 0 || text[..at].ends_with('\n')) && is_conflict_line(&text[at..])
}

/// Also with the carriage return that some editors put behind every line.
fn looks_like_heading(line: &str) -> bool {
    let line = line.strip_suffix('\r').unwrap_or(line);
    line.len() > OPEN.len() + CLOSE.len() && line.starts_with(OPEN) && line.ends_with(CLOSE)
}

/// The messages of a text. A problem's path is `line N`.
///
/// # Errors
/// A text before the first heading, or a heading that names no role.
pub fn read_messages(text: &str) -> Result<Vec<Value>, Problem> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let mut messages: Vec<Value> = Vec::new();
    let mut open: Option<(String, Vec<String>)> = None;
    for (index, line) in body.split('\n').enumerate() {
        let at = |message: String| Problem::new(format!("line {}", index + 1), message);
        if looks_like_heading(line) {
            if line.ends_with('\r') {
                return Err(at(
                    "the file's lines end in CR LF, which would change every text; save it with LF"
                        .to_owned(),
                ));
            }
            messages.extend(open.take().map(close));
            let heading = &line[OPEN.len()..line.len() - CLOSE.len()];
            match heading.strip_prefix(PLACEHOLDER) {
                Some(name) if is_word(name) => messages.push(json!({ "placeholder": name })),
                None if is_word(heading) => open = Some((heading.to_owned(), Vec::new())),
                _ => {
                    return Err(at(format!(
                        "{heading:?} is no role and no placeholder; \
                    put a backslash before the line if it is text"
                    )));
                }
            }
            continue;
        }
        let line = match line.strip_prefix('\\') {
            Some(rest) if needs_escape(rest.trim_start_matches('\\')) => rest,
            _ => line,
        };
        match (&mut open, line.trim().is_empty()) {
            (Some((_, lines)), _) => lines.push(line.to_owned()),
            (None, true) => {}
            (None, false) => {
                return Err(at(
                    "a text stands under no heading; begin with a line such as --- system ---"
                        .to_owned(),
                ));
            }
        }
    }
    messages.extend(open.take().map(close));
    Ok(messages)
}

fn close((role, lines): (String, Vec<String>)) -> Value {
    json!({ "role": role, "content": lines.join("\n") })
}

/// The line of the text file that a JSON Pointer into the document means: the
/// heading of `/messages/N`, or line 1 of a template.
pub(super) fn line_of(text: &str, pointer: &str) -> Option<usize> {
    if let Some(line) = pointer.strip_prefix("line ") {
        return line.parse().ok();
    }
    if pointer == "/template" || pointer.starts_with("/template/") {
        return Some(1);
    }
    let index: usize = pointer
        .strip_prefix("/messages/")?
        .split('/')
        .next()?
        .parse()
        .ok()?;
    let mut headings = text
        .split('\n')
        .enumerate()
        .filter(|(_, line)| looks_like_heading(line));
    headings.nth(index).map(|(line, _)| line + 1)
}
