//! Names and labels: what people may call things.
//!
//! Names are in any script, with `/` for folders. They are kept in Unicode
//! normal form C, so that a name typed on a Mac and one typed elsewhere are the
//! same name, and hold nothing invisible, so that two names that look the same
//! mostly are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::Problem;

const MAX_NAME_CHARS: usize = 200;
const MAX_LABEL_CHARS: usize = 64;

/// A document's name: `support/answer`, `サポート/回答`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A pointer's label: `production`, `本番`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let name = normal_form(text, MAX_NAME_CHARS).map_err(|why| Problem::new("name", why))?;
        name.split('/')
            .try_for_each(check_segment)
            .map_err(|why| Problem::new("name", why))?;
        Ok(Self(name))
    }
}

impl FromStr for Label {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let problem = |why: String| Problem::new("label", why);
        let label = normal_form(text, MAX_LABEL_CHARS).map_err(problem)?;
        check_segment(&label).map_err(problem)?;
        if label == "latest" {
            return Err(problem(
                "latest always means the newest version; choose another label".to_owned(),
            ));
        }
        if label.bytes().all(|b| b.is_ascii_digit()) {
            return Err(problem(
                "a label of digits only would read as a version number".to_owned(),
            ));
        }
        Ok(Self(label))
    }
}

fn normal_form(text: &str, max_chars: usize) -> Result<String, String> {
    // Composing never makes a text more than a few times longer, but decomposing an attacker's megabytes is work.
    if text.len() > max_chars * 16 {
        return Err(format!("longer than {max_chars} characters"));
    }
    let normal: String = text.nfc().collect();
    match normal.chars().count() {
        0 => Err("must not be empty".to_owned()),
        count if count > max_chars => Err(format!(
            "has {count} characters; at most {max_chars} are allowed"
        )),
        _ => Ok(normal),
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("a part between slashes is empty".to_owned());
    }
    if segment == "." || segment == ".." {
        return Err(format!("{segment:?} cannot be a part of it"));
    }
    if segment.starts_with(is_combining_mark) {
        return Err("a part begins with a combining mark".to_owned());
    }
    match segment.chars().find(|c| !is_allowed(*c)) {
        None => Ok(()),
        Some('/') => Err("must not contain a slash".to_owned()),
        Some(' ' | '\u{3000}') => Err("must not contain spaces; write - or _ instead".to_owned()),
        // Escaped, because the character may be invisible or act on the reader's terminal.
        Some(c) if c.is_control() || base::text::is_deceptive(c) || is_blank_letter(c) => {
            Err(format!(
                "must not contain the invisible character U+{:04X}",
                u32::from(c)
            ))
        }
        Some(c) => Err(format!(
            "must not contain {c:?}; letters, digits, - _ . are allowed"
        )),
    }
}

fn is_allowed(c: char) -> bool {
    let written = c.is_alphanumeric() || is_combining_mark(c);
    (written && !is_blank_letter(c) && !base::text::is_deceptive(c)) || matches!(c, '-' | '_' | '.')
}

/// Characters that Unicode counts as letters or marks and fonts draw as nothing:
/// Hangul fillers, variation selectors, the grapheme joiner.
fn is_blank_letter(c: char) -> bool {
    matches!(
        c,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{034f}' | '\u{17b4}' | '\u{17b5}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{180b}'..='\u{180f}' | '\u{e0100}'..='\u{e01ef}'
    )
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Problem;

            fn try_from(text: String) -> Result<Self, Problem> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    };
}

text_conversions!(Name);
text_conversions!(Label);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_people_use_are_fine() {
        for good in [
            "a",
            "support/answer",
            "サポート/回答-v2",
            "日々",
            "हिन्दी",
            "ภาษาไทย",
            "Ünïcode_1.0",
            "3",
        ] {
            assert_eq!(
                good.parse::<Name>().map(|name| name.to_string()),
                Ok(good.to_owned())
            );
        }
        let decomposed = "か\u{3099}";
        assert_eq!(decomposed.parse::<Name>().unwrap().as_str(), "が");
        assert_eq!("a".repeat(200).parse::<Name>().unwrap().as_str().len(), 200);
    }

    #[test]
    fn a_refused_name_says_why() {
        let check = |text: &str, says: &str| {
            let problem = text.parse::<Name>().unwrap_err();
            assert!(problem.message.contains(says), "{text:?}: {problem}");
        };
        check("", "empty");
        check("/a", "between slashes");
        check("a//b", "between slashes");
        check("a/", "between slashes");
        check("a/../b", "\"..\"");
        check("a b", "spaces");
        check("a\u{3000}b", "spaces");
        check("a\0", "U+0000");
        check("a\u{200b}b", "U+200B");
        check("a\u{3164}", "U+3164");
        check("a\u{202e}b", "U+202E");
        check("a@3", "'@'");
        check("\u{301}a", "combining mark");
        check(&"a".repeat(201), "201 characters");
        check(&"a".repeat(1_000_000), "longer than 200");
    }

    #[test]
    fn labels_cannot_be_mistaken_for_versions() {
        assert!("production".parse::<Label>().is_ok());
        assert!("本番".parse::<Label>().is_ok());
        for bad in ["latest", "12", "a/b", "", "sha256:0"] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_stable_and_has_only_allowed_characters(text in any::<String>()) {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.as_str().parse::<Name>().unwrap(), name.clone());
                prop_assert!(name.as_str().chars().all(|c| c == '/' || is_allowed(c)));
                prop_assert!(name.as_str().split('/').all(|part| !part.is_empty()));
                prop_assert!(name.as_str().chars().count() <= MAX_NAME_CHARS);
            }
        }

        #[test]
        fn both_spellings_of_one_name_are_one_name(text in "[a-zéüがぎ고글]{1,20}(/[a-zéüがぎ고글]{1,20}){0,3}") {
            let decomposed: String = text.nfd().collect();
            prop_assert_eq!(decomposed.parse::<Name>(), text.parse::<Name>());
        }
    }
}
