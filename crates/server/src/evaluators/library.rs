//! Starting points for new evaluators, in each language of the UI.
//!
//! The texts are in `library/*.toml`: whole documents that lack only a judging model.
//! Reading them cannot fail at run time: a test parses every one.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use crate::ui::Lang;

/// A starting point.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its stable name: `toxicity`, `refusal` …
    pub id: String,
    /// What it is called.
    pub title: String,
    /// What it is good for.
    pub about: String,
    /// The document to start with, without its model.
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
pub(super) fn find(lang: Lang, id: &str) -> Option<&'static Template> {
    templates(lang).iter().find(|template| template.id == id)
}

fn read(text: &str) -> Vec<Template> {
    match toml::from_str::<File>(text) {
        Ok(file) => file.template,
        Err(error) => {
            tracing::error!(error.message = %error, "the library of starting evaluators cannot be read");
            Vec::new()
        }
    }
}
