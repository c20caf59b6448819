//! Names as paths of files, and back.
//!
//! A file's name must be possible on every system, however a repository travels:
//! case is not told apart on two of the three, `con` is a device on one, a name
//! has at most 255 bytes nearly everywhere. What cannot be written as it is
//! becomes `~HEX~`, the character's code point. `~`, `+` and `@` never occur in
//! names, so that reading needs no context: whatever way a name was written, it
//! reads back as itself.
//!
//! The surprising thing: case is escaped only where two names of one folder
//! would be one file, so that `Support` stays `Support` as long as there is no
//! `support` beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base::Digest;
use db::catalog::Name;
use db::{Kind, Kinds};

use super::blobs::BLOB_FOLDER;

/// The longest part of a path that we make, in bytes, before its ending. With the
/// longest ending it stays under 255.
const MAX_PART_BYTES: usize = 160;
/// Ends a folder that continues in the next part of the path without a slash.
const CONTINUES: char = '+';

/// The folder of each kind.
#[derive(Debug, Clone)]
pub struct Layout {
    kinds: Vec<(String, Kind)>,
}

/// What a path of the tree stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: &'static str,
    pub(super) name: Name,
    /// The first hexadecimal digits of the digest, for a document that is not the newest.
    pub(super) pin: Option<String>,
    /// Whether it is the text file.
    pub(super) is_text: bool,
}

/// How many hexadecimal digits of a digest are in the name of a file.
pub(super) const PIN_DIGITS: usize = 12;

impl Layout {
    /// The folders of these kinds.
    pub fn new(kinds: &Kinds) -> Self {
        let mut taken = BTreeSet::from([BLOB_FOLDER.to_owned()]);
        let folders = kinds.iter().map(|kind| {
            let plural = plural(kind.name);
            let folder = if taken.contains(&plural) {
                kind.name.to_owned()
            } else {
                plural
            };
            taken.insert(folder.clone());
            (folder, *kind)
        });
        Self {
            kinds: folders.collect(),
        }
    }

    /// Folder and kind, in the order of registration.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Kind)> {
        self.kinds
            .iter()
            .map(|(folder, kind)| (folder.as_str(), kind))
    }

    pub(super) fn kind_of_folder(&self, folder: &str) -> Option<&Kind> {
        self.iter()
            .find_map(|(known, kind)| (known == folder).then_some(kind))
    }

    pub(super) fn folder_of(&self, kind: &str) -> Option<&str> {
        self.iter()
            .find_map(|(folder, known)| (known.name == kind).then_some(folder))
    }

    /// What a path below a kind's folder stands for.
    pub(super) fn read(&self, path: &str) -> Result<Place, String> {
        let (folder, rest) = path.split_once('/').ok_or("it is in no kind's folder")?;
        let kind = self
            .kind_of_folder(folder)
            .ok_or("it is in no kind's folder")?;
        let text_end = kind.text.map(|text| format!(".{}", text.suffix));
        let text = text_end.as_deref().and_then(|end| rest.strip_suffix(end));
        let (stem, is_text) = match (text, rest.strip_suffix(".toml")) {
            (Some(stem), _) => (stem, true),
            (None, Some(stem)) => (stem, false),
            (None, None) => {
                return Err(format!(
                    "it is not part of the tree: files of {folder} end in .toml{}",
                    text_end.map_or_else(String::new, |end| format!(" or {end}"))
                ));
            }
        };
        let (stem, pin) = match stem.rsplit_once('@') {
            Some((stem, pin)) => (stem, Some(read_pin(pin)?)),
            None => (stem, None),
        };
        let name = read_name(stem)?;
        Ok(Place {
            kind: kind.name,
            name,
            pin,
            is_text,
        })
    }
}

fn read_pin(pin: &str) -> Result<String, String> {
    let is_hex = pin
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if pin.len() == PIN_DIGITS && is_hex {
        Ok(pin.to_owned())
    } else {
        Err(format!(
            "after @ stand the first {PIN_DIGITS} digits of the document's digest, not {pin:?}"
        ))
    }
}

/// `prompt` → `prompts`, `index` → `indexes`, `policy` → `policies`.
fn plural(word: &str) -> String {
    let vowel_before_y = |stem: &str| stem.ends_with(['a', 'e', 'i', 'o', 'u']);
    match word.strip_suffix('y') {
        Some(stem) if !vowel_before_y(stem) => format!("{stem}ies"),
        _ if ["s", "x", "z", "ch", "sh"]
            .iter()
            .any(|end| word.ends_with(end)) =>
        {
            format!("{word}es")
        }
        _ => format!("{word}s"),
    }
}

/// The paths, without folder of the kind and without ending, of these names of one kind.
pub(super) fn write_names<'a>(
    names: impl IntoIterator<Item = &'a Name>,
    kind: &Kind,
) -> HashMap<Name, String> {
    let names: Vec<&Name> = names.into_iter().collect();
    let clashing = clashing(&names);
    let write = |name: &Name| {
        let segments: Vec<&str> = name.as_str().split('/').collect();
        let mut parts = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let parent = segments[..index].join("/");
            let clashes = clashing.contains(&(parent, (*segment).to_owned()));
            let is_folder = index + 1 < segments.len();
            let written = write_segment(segment, clashes, is_folder, kind);
            parts.extend(cut_segment(&written));
        }
        parts.join("/")
    };
    names
        .iter()
        .map(|name| ((*name).clone(), write(name)))
        .collect()
}

/// The (parent, segment) pairs that a system without case would take for another of the same parent.
fn clashing(names: &[&Name]) -> BTreeSet<(String, String)> {
    let mut groups: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for name in names {
        let mut parent = String::new();
        for segment in name.as_str().split('/') {
            groups
                .entry((parent.clone(), fold(segment)))
                .or_default()
                .insert(segment.to_owned());
            if !parent.is_empty() {
                parent.push('/');
            }
            parent.push_str(segment);
        }
    }
    let clashes = groups.into_iter().filter(|(_, members)| members.len() > 1);
    clashes
        .flat_map(|((parent, _), members)| {
            members
                .into_iter()
                .map(move |member| (parent.clone(), member))
        })
        .collect()
}

/// Generous: what any file system might take for the same.
fn fold(text: &str) -> String {
    text.to_uppercase().to_lowercase()
}

fn write_segment(segment: &str, clashes: bool, is_folder: bool, kind: &Kind) -> String {
    let last = segment.chars().count().saturating_sub(1);
    let lower = segment.to_lowercase();
    let stem = lower.split('.').next().unwrap_or_default();
    let is_device = DEVICES.contains(&stem) || is_numbered_device(stem);
    // A folder that ends like a file could meet that file.
    let like_file = is_folder
        && (lower.ends_with(".toml")
            || kind
                .text
                .is_some_and(|text| lower.ends_with(&format!(".{}", text.suffix))));
    let chars: Vec<char> = segment.chars().collect();
    let last_dot = chars.iter().rposition(|c| *c == '.');
    // A long segment is cut, and its beginning could meet the beginning of another.
    let clashes = clashes || segment.len() > MAX_PART_BYTES - 40;
    let mut out = String::with_capacity(segment.len());
    for (index, c) in chars.into_iter().enumerate() {
        let outer_dot = c == '.' && (index == 0 || index == last);
        let needs = outer_dot
            || (is_device && index == 0)
            || (like_file && Some(index) == last_dot)
            || (clashes && fold(c.encode_utf8(&mut [0; 4])) != c.to_string());
        if needs {
            out.push_str(&format!("~{:x}~", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

const DEVICES: &[&str] = &["con", "prn", "aux", "nul"];

fn is_numbered_device(stem: &str) -> bool {
    let number = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    number.is_some_and(|number| {
        let mut chars = number.chars();
        matches!(
            (chars.next(), chars.next()),
            (Some('0'..='9' | '¹' | '²' | '³'), None)
        )
    })
}

/// One part of a path, or several where it is too long; all but the last end in `+`.
fn cut_segment(written: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = written;
    while rest.len() > MAX_PART_BYTES {
        let (part, after) = rest.split_at(cut_at(rest));
        parts.push(format!("{part}{CONTINUES}"));
        rest = after;
    }
    parts.push(rest.to_owned());
    parts
}

/// A place to cut: not inside an escape, and what follows does not begin or end in a dot or look
/// like a device.
fn cut_at(text: &str) -> usize {
    let mut cut = base::text::cut_bytes(text, MAX_PART_BYTES).len();
    let escapes = text[..cut].matches('~').count();
    if escapes % 2 == 1 {
        cut = text[..cut].rfind('~').unwrap_or(cut);
    }
    let good = |at: usize| {
        let (before, after) = text.split_at(at);
        let stem = after.split('.').next().unwrap_or_default().to_lowercase();
        !before.ends_with('.')
            && !after.starts_with('.')
            && !DEVICES.contains(&stem.as_str())
            && !is_numbered_device(&stem)
    };
    let mut at = cut;
    while at > MAX_PART_BYTES / 2 {
        let outside_escape = |at: usize| {
            text.is_char_boundary(at) && text[..at].matches('~').count().is_multiple_of(2)
        };
        if outside_escape(at) && good(at) {
            return at;
        }
        at -= 1;
    }
    cut
}

/// The name of a path without folder of the kind and without ending.
fn read_name(path: &str) -> Result<Name, String> {
    let mut text = String::with_capacity(path.len());
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let continued = part.strip_suffix(CONTINUES);
        text.push_str(&read_segment(continued.unwrap_or(part))?);
        if parts.peek().is_some() && continued.is_none() {
            text.push('/');
        }
    }
    text.parse::<Name>()
        .map_err(|problem| format!("its path is no name: {}", problem.message))
}

fn read_segment(part: &str) -> Result<String, String> {
    let mut out = String::with_capacity(part.len());
    for (index, piece) in part.split('~').enumerate() {
        if index % 2 == 0 {
            out.push_str(piece);
            continue;
        }
        let code = u32::from_str_radix(piece, 16)
            .ok()
            .filter(|_| piece.len() <= 6);
        let c = code.and_then(char::from_u32).filter(|c| *c != '/');
        out.push(c.ok_or_else(|| format!("~{piece}~ in its path is no escaped character"))?);
    }
    if part.matches('~').count() % 2 == 1 {
        return Err("its path has a ~ that begins no escape".to_owned());
    }
    Ok(out)
}

/// The path of a document's file, with the ending that is given.
pub(super) fn join(folder: &str, stem: &str, pin: Option<&Digest>, end: &str) -> String {
    match pin {
        Some(digest) => format!("{folder}/{stem}@{}.{end}", pin_of(digest)),
        None => format!("{folder}/{stem}.{end}"),
    }
}

/// The digits of a digest that are in a file's name.
pub(super) fn pin_of(digest: &Digest) -> String {
    digest.hex().chars().take(PIN_DIGITS).collect()
}
