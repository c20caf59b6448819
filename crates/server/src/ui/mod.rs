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
    /// Templates and texts are read when they are first needed.
    ///
    /// # Errors
    /// The assets cannot be read.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            templates: templates(),
            locales: Arc::new(locales::Locales::new()),
            assets: Arc::new(assets::Assets::load()?),
        })
    }
}

fn templates() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_auto_reload(cfg!(debug_assertions));
    // A debug dump of a template's variables would put prompts and answers into the log.
    environment.set_debug(false);
    format::add_filters(&mut environment);
    // A template is compiled when it is first needed: all of them at once would be a good part of
    // what an idle server holds.
    if cfg!(debug_assertions) {
        environment.set_loader(minijinja::path_loader(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        )));
    } else {
        environment.set_loader(embedded);
    }
    environment
}

fn embedded(name: &str) -> Result<Option<String>, minijinja::Error> {
    let Some(file) = TemplateFiles::get(name) else {
        return Ok(None);
    };
    let text = String::from_utf8(file.data.into_owned());
    text.map(Some).map_err(|_| {
        let why = format!("template {name} is not UTF-8");
        minijinja::Error::new(minijinja::ErrorKind::SyntaxError, why)
    })
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
