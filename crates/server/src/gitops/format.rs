//! The one normal form of a tree's files: the bytes that an export writes, but with
//! the comments that people put there.
//!
//! A comment stays above the key, table or item that it stood above or behind. What
//! the normal form puts elsewhere (a text that belongs into the text file) leaves its
//! comment where it was around. Nothing here decides what is normal: `render` does.

use std::collections::{BTreeMap, BTreeSet};

use db::Kinds;

use super::schema::schema_line_of;
use super::toml::{self, Read};
use super::{ENVIRONMENTS_FILE, Files, Tree, files, render};

/// What differs between files and their normal form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Formatted {
    /// Files as they should be, only those that are not: new ones among them.
    pub write: Files,
    /// Files whose content belongs elsewhere.
    pub remove: BTreeSet<String>,
}

impl Formatted {
    /// Whether all is as it should be. The schemas for editors do not count.
    pub fn is_normal(&self) -> bool {
        self.paths().next().is_none()
    }

    /// The files that are not as they should be.
    pub fn paths(&self) -> impl Iterator<Item = &String> {
        let written = self.write.keys().filter(|path| !files::is_hidden(path));
        written.chain(&self.remove)
    }
}

/// The difference between these files and their normal form. The tree is what they say,
/// without errors.
pub fn format(present: &Files, tree: &Tree, kinds: &Kinds) -> Formatted {
    let normal = render(tree, kinds);
    let mut sources = sources(tree, kinds, &normal);
    sources.insert(ENVIRONMENTS_FILE.to_owned(), ENVIRONMENTS_FILE.to_owned());
    let mut formatted = Formatted::default();
    for (path, text) in &normal {
        let old = sources.get(path).and_then(|source| present.get(source));
        let text = match old.filter(|_| path.ends_with(".toml")) {
            Some(old) => with_comments(&old.replace("\r\n", "\n"), text),
            None => text.clone(),
        };
        if present.get(path) != Some(&text) {
            formatted.write.insert(path.clone(), text);
        }
    }
    let folders = super::kind_folders(kinds);
    let ours = present.keys().filter(|path| {
        let folder = path.split_once('/').map(|(folder, _)| folder);
        folder.is_some_and(|folder| folders.contains(folder)) && !files::is_hidden(path)
    });
    let gone = ours.filter(|path| !normal.contains_key(*path));
    formatted.remove = gone.cloned().collect();
    formatted
}

/// Normal path of a TOML file → the path that its document was read from.
fn sources(tree: &Tree, kinds: &Kinds, normal: &Files) -> BTreeMap<String, String> {
    let mut by_place = BTreeMap::new();
    let layout = super::Layout::new(kinds);
    let place = |path: &str| {
        let place = layout.read(path).ok().filter(|place| !place.is_text)?;
        Some((place.kind.to_owned(), place.name, place.pin))
    };
    for path in normal.keys().filter(|path| path.ends_with(".toml")) {
        if let Some(place) = place(path) {
            by_place.insert(place, path.clone());
        }
    }
    let documents = tree.names.values().flat_map(super::Entry::documents);
    documents
        .filter_map(|document| {
            let path = by_place.get(&place(&document.file)?)?;
            Some((path.clone(), document.file.clone()))
        })
        .collect()
}

/// A comment of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comment {
    at: usize,
    text: String,
    /// Whether something stands before it on its line.
    is_behind: bool,
}

/// The normal text with the comments of the old one.
fn with_comments(old: &str, normal: &str) -> String {
    let comments = comments(old);
    let (Ok(before), Ok(after), false) = (toml::read(old), toml::read(normal), comments.is_empty())
    else {
        return normal.to_owned();
    };
    let places = before.places();
    let mut above: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for comment in &comments {
        let anchor = if comment.is_behind {
            places.range(..=comment.at).next_back()
        } else {
            places.range(comment.at..).next()
        };
        let at = match anchor {
            Some((_, pointer)) => line_of(normal, &after, &moved(&before, &after, pointer)),
            None => normal.len(),
        };
        above.entry(at).or_default().push(&comment.text);
    }
    let mut out = String::with_capacity(old.len() + normal.len());
    let mut from = 0;
    for (at, comments) in above {
        out.push_str(&normal[from..at]);
        from = at;
        for comment in comments {
            out.push_str(comment);
            out.push('\n');
        }
    }
    out.push_str(&normal[from..]);
    out
}

/// Where the line begins that this pointer, or what is around it, stands on; never above the
/// line that names the schema.
fn line_of(text: &str, read: &Read, pointer: &str) -> usize {
    let at = read.key_at(pointer);
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    if line > 0 {
        return line;
    }
    match text.find('\n').filter(|_| schema_line_of(text).is_some()) {
        Some(newline) => newline + 1,
        None => 0,
    }
}

/// Lists of environments and labels are told by name, and labels are sorted.
fn moved(before: &Read, after: &Read, pointer: &str) -> String {
    let mut parts = pointer.splitn(4, '/');
    let (_, list, index) = (parts.next(), parts.next(), parts.next());
    let rest = parts.next();
    let name = |read: &Read, index: usize| {
        let name = read.value.pointer(&format!("/{}/{index}/name", list?))?;
        Some(name.as_str()?.to_owned())
    };
    let found = index
        .and_then(|index| index.parse::<usize>().ok())
        .filter(|_| matches!(list, Some("environment" | "label")))
        .and_then(|index| {
            let wanted = name(before, index)?;
            let count = after.value.get(list?)?.as_array()?.len();
            (0..count).find(|index| name(after, *index).as_ref() == Some(&wanted))
        });
    match (found, list, rest) {
        (Some(index), Some(list), Some(rest)) => format!("/{list}/{index}/{rest}"),
        (Some(index), Some(list), None) => format!("/{list}/{index}"),
        _ => pointer.to_owned(),
    }
}

/// The comments of TOML that is known to be good, but for the line that names the schema.
fn comments(text: &str) -> Vec<Comment> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        at += match rest.as_bytes()[0] {
            b'#' => {
                let comment = rest.split('\n').next().unwrap_or_default();
                if schema_line_of(rest).is_none() {
                    found.push(Comment {
                        at,
                        text: comment.trim_end().to_owned(),
                        is_behind: !text[line_start..at].trim().is_empty(),
                    });
                }
                comment.len()
            }
            b'"' | b'\'' => string_len(rest),
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
    }
    found
}

/// The length of the string that begins here, quotes included.
fn string_len(text: &str) -> usize {
    let quote = &text[..1];
    let long = quote.repeat(3);
    let (open, close) = if text.starts_with(&long) {
        (3, long.as_str())
    } else {
        (1, quote)
    };
    let mut at = open;
    while at < text.len() {
        let rest = &text[at..];
        if let Some(after) = rest.strip_prefix(close) {
            // Up to two quotes more belong to a long string.
            let more = after
                .chars()
                .take_while(|c| open == 3 && quote.starts_with(*c))
                .count();
            return at + close.len() + more.min(2);
        }
        let escape = quote == "\"" && rest.starts_with('\\');
        let mut chars = rest.chars();
        at += chars.next().map_or(1, char::len_utf8);
        if escape {
            at += chars.next().map_or(0, char::len_utf8);
        }
    }
    text.len()
}
