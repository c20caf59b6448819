//! Pages: templates, translations, assets, and what every page knows.
//!
//! The only module of the workspace that makes HTML. In debug builds templates,
//! locales and assets are read from disk, so that an edit needs no compiler; a
//! release binary holds them.

mod assets;
pub mod form;
mod format;
mod locales;
mod markdown;
mod nav;
mod page;

use std::sync::Arc;

use anyhow::Context as _;
use axum::http::HeaderMap;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use rust_embed::RustEmbed;

pub use locales::Lang;
pub use nav::is_reserved;
pub use page::{PageContext, Redirect, error_page, redirect};
pub(crate) use page::{local_path, set_cookie};

use crate::http::Route;

/// Everything that rendering needs; made once.
pub struct Ui {
    templates: Environment<'static>,
    locales: Arc<locales::Locales>,
    assets: Arc<assets::Assets>,
}

#[derive(RustEmbed)]
#[folder = "src/"]
#[include = "*.html"]
struct TemplateFiles;

impl Ui {
    /// Reads or unpacks templates, locales and assets.
    ///
    /// # Errors
    /// A template or locale that does not parse: our own mistake, found by the first test.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            templates: templates()?,
            locales: Arc::new(locales::Locales::load()?),
            assets: Arc::new(assets::Assets::load()?),
        })
    }
}

fn templates() -> anyhow::Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_auto_reload(cfg!(debug_assertions));
    // A debug dump of a template's variables would put prompts and answers into the log.
    environment.set_debug(false);
    format::add_filters(&mut environment);
    if cfg!(debug_assertions) {
        environment.set_loader(minijinja::path_loader(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        )));
        return Ok(environment);
    }
    for name in TemplateFiles::iter() {
        let file = TemplateFiles::get(&name).with_context(|| format!("template {name}"))?;
        let text = String::from_utf8(file.data.into_owned())
            .with_context(|| format!("template {name}"))?;
        environment
            .add_template_owned(name.to_string(), text)
            .with_context(|| format!("template {name}"))?;
    }
    Ok(environment)
}

/// Assets and preferences: the routes that every page needs.
pub fn routes() -> Vec<Route> {
    let mut routes = assets::routes();
    routes.extend(page::routes());
    routes
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers
        .get_all(axum::http::header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}
