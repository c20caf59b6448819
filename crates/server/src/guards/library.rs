//! Starting points for new policies, in each language of the UI.
//!
//! The texts are in `library/*.toml`: whole documents that hold as they are. Reading them cannot
//! fail at run time: a test compiles every one.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::ui::Lang;

/// A starting point.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its stable name: `personal-data`, `links` …
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What it is good for.
    pub about: String,
    /// The document to start with.
    pub document: Value,
}

#[derive(Deserialize)]
struct File {
    template: Vec<Template>,
}

/// The starting points in this language.
pub fn templates(lang: Lang) -> &'static [Template] {
    static EN: LazyLock<Vec<Template>> = LazyLock::new(|| read(include_str!("library/en.toml")));
    static JA: LazyLock<Vec<Template>> = LazyLock::new(|| read(include_str!("library/ja.toml")));
    match lang {
        Lang::En => &EN,
        Lang::Ja => &JA,
    }
}

/// The starting point of this name.
pub fn find(lang: Lang, id: &str) -> Option<&'static Template> {
    templates(lang).iter().find(|template| template.id == id)
}

fn read(text: &str) -> Vec<Template> {
    match toml::from_str::<File>(text) {
        Ok(file) => file.template,
        Err(error) => {
            tracing::error!(error.message = %error, "the library of starting policies cannot be read");
            Vec::new()
        }
    }
}
