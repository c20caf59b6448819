//! Starting points for new documents, in each language of the UI: what a feature's library holds.
//!
//! The texts are in the feature's `library/*.toml`. Reading them cannot fail at run time: a test
//! of each feature reads every one; if one were wrong all the same, there are none of that
//! language, and the log says why.

use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::ui::Lang;

/// A starting point.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its stable name: `personal-data`, `refusal` …
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What it is good for.
    pub about: String,
    /// The document to start with.
    pub document: Value,
}

/// The starting points of one feature.
#[derive(Debug)]
pub struct Library {
    english: Shelf,
    japanese: Shelf,
}

#[derive(Debug)]
struct Shelf {
    text: &'static str,
    read: OnceLock<Vec<Template>>,
}

#[derive(Deserialize)]
struct File {
    template: Vec<Template>,
}

impl Library {
    /// Of these two files.
    pub const fn new(english: &'static str, japanese: &'static str) -> Self {
        Self {
            english: Shelf::new(english),
            japanese: Shelf::new(japanese),
        }
    }

    /// The starting points in this language.
    pub fn templates(&self, lang: Lang) -> &[Template] {
        let shelf = match lang {
            Lang::En => &self.english,
            Lang::Ja => &self.japanese,
        };
        shelf.read.get_or_init(|| read(shelf.text))
    }

    /// The starting point of this name.
    pub fn find(&self, lang: Lang, id: &str) -> Option<&Template> {
        self.templates(lang)
            .iter()
            .find(|template| template.id == id)
    }
}

impl Shelf {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            read: OnceLock::new(),
        }
    }
}

fn read(text: &str) -> Vec<Template> {
    match toml::from_str::<File>(text) {
        Ok(file) => file.template,
        Err(error) => {
            tracing::error!(error.message = %error, "a library of starting points cannot be read");
            Vec::new()
        }
    }
}
