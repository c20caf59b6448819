//! Reversible pseudonyms: which placeholder stands for which value in one conversation.
//!
//! The same value always gets the same placeholder, so that a model can reason about
//! `<EMAIL_1>` without ever seeing the address; [`Restore`] puts values back into what comes
//! from the model, also when a placeholder comes in parts, and escaped where the text is JSON.
//!
//! A vault holds exactly what must not leak. Nothing of it shows in `Debug`; what keeps it
//! between calls is [`Vault::to_bytes`], to be encrypted by whoever stores it. It is bounded: a
//! value that finds no room gets no placeholder, and the rule says what happens then.

use std::collections::HashMap;
use std::fmt;

use base::Secret;
use serde::{Deserialize, Serialize};

/// How much a vault may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Values.
    pub values: usize,
    /// Bytes of all values together.
    pub bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room {
            values: 1_000,
            bytes: 64 << 10,
        }
    }
}

/// No value is longer, in bytes.
const LONGEST_VALUE: usize = 8 << 10;

/// Labels longer than this are cut, so that a placeholder has a bound.
const LONGEST_LABEL: usize = 32;

/// No placeholder is longer: `<`, a label, `_`, a number, `>`.
const LONGEST_PLACEHOLDER: usize = LONGEST_LABEL + 12;

/// There is no room for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the conversation's vault is full")
    }
}

impl std::error::Error for Full {}

/// The pseudonyms of one conversation.
#[derive(Clone, Default)]
pub struct Vault {
    room: Room,
    /// In the order in which they came.
    entries: Vec<Entry>,
    /// By label and value.
    placeholders: HashMap<(String, String), usize>,
    /// By placeholder.
    values: HashMap<String, usize>,
    /// How many placeholders each label has.
    counts: HashMap<String, u32>,
    bytes: usize,
}

#[derive(Clone)]
struct Entry {
    label: String,
    placeholder: String,
    value: Secret<String>,
}

/// What is kept of a vault: an entry is a label, a number and a value.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    entries: Vec<(String, u32, String)>,
}

const VERSION: u32 = 1;

impl fmt::Debug for Vault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Vault")
            .field("values", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// An empty vault with this much room.
    pub fn new(room: Room) -> Self {
        Vault {
            room,
            ..Vault::default()
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The placeholder of a value: the one that it has, or a new one.
    ///
    /// # Errors
    /// There is no room for a new one.
    pub fn placeholder(&mut self, label: &str, value: &str) -> Result<&str, Full> {
        let label = clean_label(label);
        let key = (label, value.to_owned());
        if let Some(index) = self.placeholders.get(&key) {
            return Ok(&self.entries[*index].placeholder);
        }
        let (label, value) = key;
        let number = self
            .counts
            .get(&label)
            .map_or(1, |count| count.saturating_add(1));
        self.add(label, number, value)?;
        Ok(&self.entries[self.entries.len() - 1].placeholder)
    }

    fn add(&mut self, label: String, number: u32, value: String) -> Result<(), Full> {
        let size = value.len();
        let no_room = self.entries.len() >= self.room.values
            || self.bytes + size > self.room.bytes
            || size > LONGEST_VALUE;
        if no_room {
            return Err(Full);
        }
        let index = self.entries.len();
        let placeholder = format!("<{label}_{number}>");
        self.bytes += size;
        self.values.insert(placeholder.clone(), index);
        self.placeholders
            .insert((label.clone(), value.clone()), index);
        let count = self.counts.entry(label.clone()).or_default();
        *count = (*count).max(number);
        self.entries.push(Entry {
            label,
            placeholder,
            value: Secret::new(value),
        });
        Ok(())
    }

    /// The value that a placeholder stands for.
    pub fn value(&self, placeholder: &str) -> Option<&Secret<String>> {
        let index = self.values.get(placeholder)?;
        Some(&self.entries[*index].value)
    }

    /// A whole text with its placeholders replaced by their values.
    pub fn restore(&self, text: &str, form: Form) -> String {
        let mut restore = Restore::new(form);
        let mut out = restore.push(self, text);
        out += &restore.finish();
        out
    }

    /// Everything that it holds, in the clear: for whoever encrypts and stores it.
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        let entries = self.entries.iter().map(|entry| {
            let number = number_of(&entry.placeholder).unwrap_or_default();
            (entry.label.clone(), number, entry.value.expose().clone())
        });
        let kept = Kept {
            version: VERSION,
            entries: entries.collect(),
        };
        Secret::new(serde_json::to_vec(&kept).unwrap_or_default())
    }

    /// A vault as it was kept.
    ///
    /// # Errors
    /// What is wrong with the bytes; never what stands in them.
    pub fn from_bytes(bytes: &[u8], room: Room) -> Result<Vault, String> {
        let kept: Kept = serde_json::from_slice(bytes)
            .map_err(|error| format!("a vault could not be read at byte {}", error.column()))?;
        if kept.version != VERSION {
            return Err(format!(
                "a vault of version {} cannot be read",
                kept.version
            ));
        }
        // What was accepted once stays, even if there is less room today.
        let whole = Room {
            values: usize::MAX,
            bytes: usize::MAX,
        };
        let mut vault = Vault::new(whole);
        for (label, number, value) in kept.entries {
            let known = vault.values.contains_key(&format!("<{label}_{number}>"));
            let good = label == clean_label(&label) && number > 0 && !known;
            if !good || vault.add(label, number, value).is_err() {
                return Err("a vault has an entry that no vault writes".to_owned());
            }
        }
        vault.room = room;
        Ok(vault)
    }
}

/// A label as placeholders write it: capitals, digits and underscores.
fn clean_label(label: &str) -> String {
    let sign = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    let label: String = label.chars().take(LONGEST_LABEL).map(sign).collect();
    match label.as_str() {
        "" => "VALUE".to_owned(),
        _ => label,
    }
}

fn number_of(placeholder: &str) -> Option<u32> {
    let inner = placeholder.strip_prefix('<')?.strip_suffix('>')?;
    let (label, number) = inner.rsplit_once('_')?;
    let good = !label.is_empty() && label.bytes().all(is_label);
    let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    (good && plain).then(|| number.parse().ok())?
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// How values stand in the text that they are put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// Inside a string of JSON: escaped. Placeholders are also seen when the model escaped them
    /// (`\u003cEMAIL_1\u003e`).
    Json,
}

/// Puts values back into a text that comes in parts. It holds back only what may be the
/// beginning of a placeholder. It keeps no values, so it may outlive changes of the vault.
#[derive(Clone, Debug)]
pub struct Restore {
    form: Form,
    /// What may still become a placeholder.
    held: String,
}

/// What the beginning of a text is.
enum Start {
    /// A whole placeholder, this many bytes of the text, written in the usual way.
    Placeholder(usize, String),
    /// More text may make it one.
    Maybe,
    /// Not one.
    No,
}

impl Restore {
    /// For a new text.
    pub fn new(form: Form) -> Self {
        Restore {
            form,
            held: String::new(),
        }
    }

    /// The next part: gives what can leave.
    pub fn push(&mut self, vault: &Vault, part: &str) -> String {
        let mut text = std::mem::take(&mut self.held);
        text.push_str(part);
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['<', '\\']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match self.start_of(rest) {
                Start::Placeholder(len, name) => {
                    match vault.value(&name) {
                        Some(value) => self.put(&mut out, value.expose()),
                        None => out.push_str(&rest[..len]),
                    }
                    rest = &rest[len..];
                }
                Start::Maybe => {
                    self.held = rest.to_owned();
                    return out;
                }
                Start::No => {
                    let one = self.step(rest);
                    out.push_str(&rest[..one]);
                    rest = &rest[one..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// There is no more: what was held back leaves as it is.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn put(&self, out: &mut String, value: &str) {
        match self.form {
            Form::Plain => out.push_str(value),
            Form::Json => {
                let quoted = serde_json::Value::from(value).to_string();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }

    /// What the text is, from its start.
    fn start_of(&self, text: &str) -> Start {
        let (open, mut at) = match self.sign(text, b'<') {
            Sign::Is(len) => (true, len),
            Sign::Maybe => return Start::Maybe,
            Sign::No => (false, 0),
        };
        if !open {
            return Start::No;
        }
        let inner = at;
        loop {
            let rest = &text[at..];
            let Some(byte) = rest.bytes().next() else {
                return Start::Maybe;
            };
            if at - inner > LONGEST_PLACEHOLDER {
                return Start::No;
            }
            if is_label(byte) {
                at += 1;
                continue;
            }
            return match self.sign(rest, b'>') {
                Sign::Is(len) => {
                    let name = format!("<{}>", &text[inner..at]);
                    match number_of(&name) {
                        Some(_) => Start::Placeholder(at + len, name),
                        None => Start::No,
                    }
                }
                Sign::Maybe => Start::Maybe,
                Sign::No => Start::No,
            };
        }
    }

    /// Whether a text begins with a sign, plain or as an escape of JSON.
    fn sign(&self, text: &str, sign: u8) -> Sign {
        if text.as_bytes().first() == Some(&sign) {
            return Sign::Is(1);
        }
        if self.form == Form::Plain || !text.starts_with('\\') {
            return Sign::No;
        }
        let escape = format!("\\u{sign:04x}");
        let seen = text.len().min(escape.len());
        match text.as_bytes()[..seen].eq_ignore_ascii_case(&escape.as_bytes()[..seen]) {
            true if seen == escape.len() => Sign::Is(seen),
            true => Sign::Maybe,
            false => Sign::No,
        }
    }

    /// How many bytes to go on after something that is no placeholder: an escape is one thing,
    /// or the second backslash of `\\u003c` would be taken for the first of another.
    fn step(&self, text: &str) -> usize {
        let escaped = self.form == Form::Json && text.starts_with("\\\\");
        1 + usize::from(escaped)
    }
}

/// Whether a sign stands somewhere.
enum Sign {
    Is(usize),
    Maybe,
    No,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vault() -> Vault {
        let mut vault = Vault::default();
        for (label, value) in [
            ("EMAIL", "taro@example.com"),
            ("PERSON", "山田\"太郎\"\n"),
            ("EMAIL", "<EMAIL_1>"),
        ] {
            vault.placeholder(label, value).unwrap();
        }
        vault
    }

    #[test]
    fn the_same_value_has_the_same_placeholder() {
        let mut vault = vault();
        assert_eq!(
            vault.placeholder("EMAIL", "taro@example.com"),
            Ok("<EMAIL_1>")
        );
        assert_eq!(
            vault.placeholder("EMAIL", "new@example.com"),
            Ok("<EMAIL_3>")
        );
        assert_eq!(
            vault.placeholder("PHONE", "taro@example.com"),
            Ok("<PHONE_1>")
        );
        assert_eq!(vault.placeholder("jp my", "1"), Ok("<JP_MY_1>"));
        assert_eq!(vault.len(), 6);
        assert_eq!(
            vault.value("<EMAIL_3>").unwrap().expose(),
            "new@example.com"
        );
        assert!(vault.value("<EMAIL_4>").is_none());
    }

    #[test]
    fn values_come_back() {
        let vault = vault();
        for (text, expected) in [
            ("to <EMAIL_1>.", "to taro@example.com."),
            ("<<EMAIL_1>>", "<taro@example.com>"),
            // What is put in is not looked at again.
            ("<EMAIL_2>", "<EMAIL_1>"),
            (
                "<EMAIL_9> <email_1> < EMAIL_1> <b>",
                "<EMAIL_9> <email_1> < EMAIL_1> <b>",
            ),
            ("a <EMAIL_", "a <EMAIL_"),
            ("<EMAIL_01> <_1> <EMAIL_>", "<EMAIL_01> <_1> <EMAIL_>"),
        ] {
            assert_eq!(vault.restore(text, Form::Plain), expected, "{text}");
        }
    }

    #[test]
    fn json_stays_json() {
        let vault = vault();
        for text in [
            r#"{"to": "<PERSON_1> \u003cPERSON_1\u003E", "path": "\\u003cPERSON_1>"}"#,
            r#"{"to": "\u003CEMAIL_1>", "x": "\\<PERSON_1>"}"#,
        ] {
            let restored = vault.restore(text, Form::Json);
            let value: serde_json::Value = serde_json::from_str(&restored).expect(&restored);
            let to = value["to"].as_str().unwrap();
            assert!(
                to.contains("山田\"太郎\"\n") || to == "taro@example.com",
                "{to}"
            );
            assert!(!to.contains("_1"), "{to}");
        }
        // An escaped backslash before `u003c` begins no escape.
        let text = r#""\\u003cPERSON_1\u003e""#;
        assert_eq!(vault.restore(text, Form::Json), text);
    }

    #[test]
    fn a_full_vault_says_so() {
        let mut vault = Vault::new(Room {
            values: 2,
            bytes: 10,
        });
        assert_eq!(vault.placeholder("A", "12345"), Ok("<A_1>"));
        assert_eq!(vault.placeholder("A", "123456"), Err(Full));
        assert_eq!(vault.placeholder("A", "1234"), Ok("<A_2>"));
        assert_eq!(vault.placeholder("A", "1"), Err(Full));
        assert_eq!(vault.placeholder("A", "12345"), Ok("<A_1>"));
        let mut wide = Vault::default();
        assert_eq!(
            wide.placeholder("A", &"x".repeat(LONGEST_VALUE + 1)),
            Err(Full)
        );
    }

    #[test]
    fn nothing_shows() {
        let vault = vault();
        let shown = format!(
            "{vault:?} {:?} {:?}",
            vault.to_bytes(),
            vault.value("<EMAIL_1>")
        );
        assert!(
            !shown.contains("taro") && !shown.contains("太郎"),
            "{shown}"
        );
        let error = Vault::from_bytes(br#"{"version":1,"entries":[["A",1,"taro"#, Room::default());
        assert!(!error.unwrap_err().contains("taro"));
    }

    #[test]
    fn what_was_kept_comes_back() {
        let vault = vault();
        let bytes = vault.to_bytes();
        let small = Room {
            values: 3,
            bytes: 1,
        };
        let mut again = Vault::from_bytes(bytes.expose(), small).unwrap();
        assert_eq!(again.to_bytes().expose(), bytes.expose());
        assert_eq!(
            again.placeholder("EMAIL", "taro@example.com"),
            Ok("<EMAIL_1>")
        );
        assert_eq!(again.placeholder("EMAIL", "new@example.com"), Err(Full));
        for bad in [
            r#"{"version":2,"entries":[]}"#,
            r#"{"version":1,"entries":[["a b",1,"x"]]}"#,
            r#"{"version":1,"entries":[["A",0,"x"]]}"#,
            r#"{"version":1,"entries":[["A",1,"x"],["A",1,"y"]]}"#,
            "",
        ] {
            assert!(Vault::from_bytes(bad.as_bytes(), small).is_err(), "{bad}");
        }
    }

    /// Pieces that make placeholders, halves of them and look-alikes likely.
    fn text() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "<",
            ">",
            "EMAIL",
            "_",
            "1",
            "2",
            "<EMAIL_1>",
            "<EMAIL_2>",
            "<PERSON_1>",
            "\\",
            "\\u003c",
            "\\u003E",
            "\\\\",
            "u003c",
            "山",
            "👩‍👧",
            " ",
            "A",
            "PERSON_1",
            "\"",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn parts_give_what_the_whole_gives(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), json in any::<bool>()) {
            let vault = vault();
            let form = if json { Form::Json } else { Form::Plain };
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.retain(|end| text.is_char_boundary(*end));
            ends.push(text.len());
            ends.sort_unstable();
            let mut restore = Restore::new(form);
            let (mut out, mut from) = (String::new(), 0);
            for end in ends {
                out += &restore.push(&vault, &text[from..end]);
                prop_assert!(restore.held.len() <= LONGEST_PLACEHOLDER + 12);
                from = end;
            }
            out += &restore.finish();
            prop_assert_eq!(out, vault.restore(&text, form));
        }

        #[test]
        fn redaction_is_undone(values in prop::collection::vec("\\PC{1,20}", 1..12)) {
            let mut vault = Vault::default();
            let mut redacted = String::new();
            for value in &values {
                redacted += vault.placeholder("VALUE", value).unwrap();
                redacted += " ";
            }
            let restored = vault.restore(&redacted, Form::Plain);
            prop_assert_eq!(restored, values.iter().map(|value| format!("{value} ")).collect::<String>());
            let again = Vault::from_bytes(vault.to_bytes().expose(), Room::default()).unwrap();
            prop_assert_eq!(again.restore(&redacted, Form::Plain), vault.restore(&redacted, Form::Plain));
        }
    }
}
