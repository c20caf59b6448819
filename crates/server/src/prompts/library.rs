//! Starting points for new prompts, in each language of the UI.
//!
//! The texts are in `library/*.toml`, whole documents that render with their own
//! sample inputs. Reading them cannot fail at run time: a test renders every one.

use std::sync::LazyLock;

use gateway::PromptDocument;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ui::Lang;

/// A starting point.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    /// Its stable name: `few-shot`, `judge` …
    pub(super) id: String,
    /// What it is called.
    pub(super) title: String,
    /// What it is good for.
    pub(super) about: String,
    /// The document to start with.
    #[schemars(with = "PromptDocument")]
    pub(super) document: Value,
}

#[derive(Deserialize)]
struct File {
    template: Vec<Template>,
}

/// The starting points in this language.
pub(super) fn templates(lang: Lang) -> &'static [Template] {
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
            tracing::error!(error.message = %error, "the library of starting prompts cannot be read");
            Vec::new()
        }
    }
}
