//! The texts of the UI, in Fluent: one file a language, the same keys in each.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context as _, anyhow};
use axum::http::{HeaderMap, header};
use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use rust_embed::RustEmbed;

/// A language of the UI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    /// English, also the fallback.
    En,
    /// Japanese.
    Ja,
}

impl Lang {
    /// The code that `<html lang>` and the cookie use.
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ja => "ja",
        }
    }

    /// The language with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::En),
            "ja" => Some(Self::Ja),
            _ => None,
        }
    }

    /// What the person chose, else the first language that the browser asks for.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(chosen) = super::cookie(headers, "meguri-lang").and_then(Self::from_code) {
            return chosen;
        }
        let accepted = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let codes = accepted
            .split(',')
            .map(|part| part.split([';', '-']).next().unwrap_or_default().trim());
        codes.filter_map(Self::from_code).next().unwrap_or(Self::En)
    }
}

#[derive(RustEmbed)]
#[folder = "src/ui/locales/"]
struct Files;

/// Every text in every language. A language is read when somebody first asks for it: a server
/// that only answers machines has no use for the 4 MiB.
pub(super) struct Locales {
    en: LazyLock<Locale>,
    ja: LazyLock<Locale>,
}

struct Locale {
    bundle: FluentBundle<FluentResource>,
    keys: Vec<String>,
}

impl Locales {
    pub(super) fn new() -> Self {
        Self {
            en: LazyLock::new(|| Locale::of("en")),
            ja: LazyLock::new(|| Locale::of("ja")),
        }
    }

    /// The text, or the key itself when there is none: a test refuses that, a page survives it.
    pub(super) fn text(&self, lang: Lang, key: &str, args: &FluentArgs<'_>) -> String {
        self.locale(lang)
            .text(key, args)
            .or_else(|| self.en.text(key, args))
            .unwrap_or_else(|| key.to_owned())
    }

    /// Every text whose key starts with `prefix-`, for islands; placeholders stay as they are.
    pub(super) fn with_prefix(&self, lang: Lang, prefix: &str) -> BTreeMap<String, String> {
        let locale = self.locale(lang);
        let start = format!("{prefix}-");
        let keys = locale.keys.iter().filter(|key| key.starts_with(&start));
        keys.map(|key| {
            (
                key.clone(),
                locale.text(key, &FluentArgs::new()).unwrap_or_default(),
            )
        })
        .collect()
    }

    /// Whether there is a text under this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.en.bundle.has_message(key)
    }

    fn locale(&self, lang: Lang) -> &Locale {
        match lang {
            Lang::En => &self.en,
            Lang::Ja => &self.ja,
        }
    }
}

impl Locale {
    /// The language's texts. They are part of the program and tests read them; should one be
    /// damaged all the same, pages show keys and the log says why.
    fn of(code: &str) -> Self {
        Self::load(code).unwrap_or_else(|error| {
            tracing::error!(error.message = %format!("{error:#}"), "a language of the pages cannot be read");
            Self {
                bundle: FluentBundle::new_concurrent(Vec::new()),
                keys: Vec::new(),
            }
        })
    }

    fn load(code: &str) -> anyhow::Result<Self> {
        let name = format!("{code}.ftl");
        let file = Files::get(&name).with_context(|| format!("locale {name} is missing"))?;
        let text =
            String::from_utf8(file.data.into_owned()).with_context(|| format!("locale {name}"))?;
        let keys = text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned()))
            .collect();
        let resource = FluentResource::try_new(text)
            .map_err(|(_, errors)| anyhow!("locale {name}: {errors:?}"))?;
        let id = code.parse().with_context(|| format!("language {code}"))?;
        let mut bundle = FluentBundle::new_concurrent(vec![id]);
        // The marks that isolate directions would be copied along with ids and commands.
        bundle.set_use_isolating(false);
        bundle
            .add_resource(resource)
            .map_err(|errors| anyhow!("locale {name}: {errors:?}"))?;
        Ok(Self { bundle, keys })
    }

    fn text(&self, key: &str, args: &FluentArgs<'_>) -> Option<String> {
        let pattern = self.bundle.get_message(key)?.value()?;
        let mut errors = Vec::new();
        Some(
            self.bundle
                .format_pattern(pattern, Some(args), &mut errors)
                .into_owned(),
        )
    }
}

/// A template's argument as Fluent takes it: numbers choose plural forms.
pub(super) fn fluent_value(value: &minijinja::Value) -> FluentValue<'static> {
    match (value.is_number(), f64::try_from(value.clone())) {
        (true, Ok(number)) => FluentValue::from(number),
        _ => FluentValue::from(value.to_string()),
    }
}
