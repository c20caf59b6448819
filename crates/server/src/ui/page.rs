//! One page request: what the frame around every page needs, and rendering.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fluent_bundle::FluentArgs;
use minijinja::context;
use minijinja::value::{Kwargs, Rest, Serde, Value};
use serde::{Deserialize, Serialize};

use super::locales::{Lang, fluent_value};
use super::nav;
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::{AppError, Result};
use crate::extract::Form;
use crate::http::{Access, ErrorView, RequestContext, Route};

/// What a handler of a page receives; renders templates into the frame.
#[derive(Clone)]
pub struct PageContext {
    app: App,
    /// The request's id and nonce.
    pub request: RequestContext,
    /// The path of this page.
    pub path: String,
    /// The query string, without `?`.
    pub query: String,
    /// The language to answer in.
    pub lang: Lang,
    headers: HeaderMap,
    identity: Option<Identity>,
}

impl FromRequestParts<App> for PageContext {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let request = RequestContext::from_request_parts(parts, app).await?;
        Ok(Self {
            app: app.clone(),
            request,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            lang: Lang::of(&parts.headers),
            headers: parts.headers.clone(),
            identity: parts.extensions.get::<Identity>().cloned(),
        })
    }
}

/// A message that is carried over one redirect.
#[derive(Debug, Serialize, Deserialize)]
struct Flash {
    kind: String,
    text: String,
}

impl PageContext {
    /// Whether htmx asks for a part of the page.
    pub fn is_partial(&self) -> bool {
        self.headers.contains_key("hx-request") && !self.headers.contains_key("hx-boosted")
    }

    /// The prefix of this project's pages.
    pub fn root(&self) -> String {
        self.identity
            .as_ref()
            .map(|identity| format!("/{}", identity.project.name))
            .unwrap_or_default()
    }

    /// The page that this reader begins with.
    pub fn home(&self) -> String {
        match &self.identity {
            Some(identity) => first_page(&identity.project.name, identity.role),
            None => "/".to_owned(),
        }
    }

    /// A text of the UI.
    pub fn t(&self, key: &str) -> String {
        self.app.ui.locales.text(self.lang, key, &FluentArgs::new())
    }

    /// A text of the UI with values in it.
    pub fn t_with(&self, key: &str, args: &[(&'static str, &str)]) -> String {
        let args: FluentArgs<'_> = args
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.app.ui.locales.text(self.lang, key, &args)
    }

    /// Renders a template; `view` is what its first comment describes.
    ///
    /// # Errors
    /// The template or its view is wrong: our own mistake.
    pub async fn render(&self, template: &str, view: impl Serialize) -> Result<Response> {
        self.render_with_status(StatusCode::OK, template, view)
            .await
    }

    /// As [`PageContext::render`], for forms that come back with errors.
    ///
    /// # Errors
    /// As there.
    pub async fn render_with_status(
        &self,
        status: StatusCode,
        template: &str,
        view: impl Serialize,
    ) -> Result<Response> {
        let globals = self.globals(Value::from(Serde(view))).await?;
        let template = self
            .app
            .ui
            .templates
            .get_template(template)
            .map_err(template_error)?;
        let html = template.render(globals).map_err(template_error)?;
        let mut response = (status, Html(html)).into_response();
        if super::cookie(&self.headers, FLASH_COOKIE).is_some() {
            set_cookie(&self.app, &mut response, FLASH_COOKIE, "", Some(0));
        }
        Ok(response)
    }

    async fn globals(&self, view: Value) -> Result<Value> {
        let app = &self.app;
        let projects = match self
            .identity
            .as_ref()
            .and_then(|identity| identity.person.as_ref())
        {
            Some(person) => crate::projects::of_user(&app.db, person.id).await?,
            None => Vec::new(),
        };
        let projects: Vec<Value> = projects
            .iter()
            .map(|project| context! { id => project.id.to_string(), name => project.name.clone(), href => format!("/{}/", project.name) })
            .collect();
        let identity = self.identity.as_ref();
        let root = self.root();
        let user = identity.and_then(|identity| {
            let person = identity.person.as_ref()?;
            Some(context! { name => person.name.clone(), email => person.email.clone(), role => identity.role.name() })
        });
        let project = identity.map(|identity| context! { id => identity.project.id.to_string(), name => identity.project.name.clone() });
        let can: BTreeMap<&str, bool> = Permission::ALL
            .iter()
            .map(|permission| {
                (
                    permission.name(),
                    identity.is_some_and(|identity| identity.role.allows(*permission)),
                )
            })
            .collect();
        let nav = identity
            .map(|identity| nav::groups(identity.role, &root, &self.path))
            .unwrap_or_default();
        let flash = super::cookie(&self.headers, FLASH_COOKIE).and_then(read_flash);
        Ok(context! {
            view,
            lang => self.lang.code(),
            theme => theme(&self.headers),
            nonce => self.request.nonce.clone(),
            path => self.path.clone(),
            query => self.query.clone(),
            partial => self.is_partial(),
            base => "",
            home => self.home(),
            root,
            project,
            projects,
            user,
            guest => identity.and_then(|identity| identity.guest.as_ref().map(|guest| guest.name.clone())),
            nav => Value::from(Serde(nav)),
            can,
            flash => Value::from(Serde(flash)),
            version => env!("CARGO_PKG_VERSION"),
            public_url => app.config.public_url(),
            t => self.translate(),
            i18n_for => self.translations(),
            asset => asset_function(app),
        })
    }

    fn translate(&self) -> Value {
        let (locales, lang) = (Arc::clone(&self.app.ui.locales), self.lang);
        Value::from_function(move |key: String, kwargs: Kwargs| {
            let mut args = FluentArgs::new();
            for name in kwargs.args() {
                args.set(name.to_owned(), fluent_value(&kwargs.get::<Value>(name)?));
            }
            Ok::<_, minijinja::Error>(locales.text(lang, &key, &args))
        })
    }

    fn translations(&self) -> Value {
        let (locales, lang) = (Arc::clone(&self.app.ui.locales), self.lang);
        Value::from_function(move |prefixes: Rest<String>| {
            let texts: BTreeMap<String, String> = prefixes
                .iter()
                .flat_map(|prefix| locales.with_prefix(lang, prefix))
                .collect();
            Value::from(texts)
        })
    }
}

fn asset_function(app: &App) -> Value {
    let assets = Arc::clone(&app.ui.assets);
    Value::from_function(move |name: String| assets.url(&name))
}

fn template_error(error: minijinja::Error) -> AppError {
    AppError::internal(anyhow::anyhow!(
        "{error:#}: {:?}",
        std::error::Error::source(&error).map(ToString::to_string)
    ))
}

fn theme(headers: &HeaderMap) -> &'static str {
    match super::cookie(headers, "meguri-theme") {
        Some("light") => "light",
        Some("dark") => "dark",
        _ => "system",
    }
}

const FLASH_COOKIE: &str = "meguri-flash";

fn read_flash(text: &str) -> Option<Flash> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Sends a browser elsewhere after a form was handled.
pub struct Redirect {
    to: String,
    flash: Option<Flash>,
}

/// A redirect to a page of ours.
pub fn redirect(to: impl Into<String>) -> Redirect {
    Redirect {
        to: to.into(),
        flash: None,
    }
}

impl Redirect {
    /// Shows this text, already translated, on the page that follows.
    pub fn ok(mut self, text: impl Into<String>) -> Self {
        self.flash = Some(Flash {
            kind: "ok".to_owned(),
            text: text.into(),
        });
        self
    }

    /// Shows this failure on the page that follows.
    pub fn err(mut self, text: impl Into<String>) -> Self {
        self.flash = Some(Flash {
            kind: "err".to_owned(),
            text: text.into(),
        });
        self
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        let mut response = StatusCode::SEE_OTHER.into_response();
        if let Ok(to) = HeaderValue::from_str(&self.to) {
            response.headers_mut().insert(header::LOCATION, to);
        }
        let flash = self.flash.and_then(|flash| serde_json::to_vec(&flash).ok());
        if let Some(flash) = flash {
            let cookie = format!(
                "{FLASH_COOKIE}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=60",
                URL_SAFE_NO_PAD.encode(flash)
            );
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        response
    }
}

/// Adds a cookie to a response; `max_age_s` 0 removes it, `None` keeps it for the browser's session.
pub(crate) fn set_cookie(
    app: &App,
    response: &mut Response,
    name: &str,
    value: &str,
    max_age_s: Option<i64>,
) {
    let secure = if app.config.is_https() {
        "; Secure"
    } else {
        ""
    };
    let age = max_age_s
        .map(|age| format!("; Max-Age={age}"))
        .unwrap_or_default();
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// An error as a page. Somebody who is not signed in is sent to where they can sign in.
pub async fn error_page(
    app: &App,
    error: &AppError,
    context: &RequestContext,
    view: &ErrorView,
) -> Response {
    if error.status == StatusCode::UNAUTHORIZED && view.method == axum::http::Method::GET {
        return crate::sessions::to_sign_in(&view.path);
    }
    let page = PageContext {
        app: app.clone(),
        request: context.clone(),
        path: view.path.clone(),
        query: String::new(),
        lang: Lang::of(&view.headers),
        headers: view.headers.clone(),
        // Where the database is away, asking it again who reads would only double the wait.
        identity: if error.status.is_server_error() {
            None
        } else {
            reader(app, view).await
        },
    };
    let (message, detail, hint) = error_texts(&page, error);
    let body = context! {
        status => error.status.as_u16(),
        code => error.code,
        message,
        detail,
        hint,
        request_id => context.id.to_string(),
        home_href => page.home(),
    };
    match page
        .render_with_status(error.status, "ui/error.html", body)
        .await
    {
        Ok(response) => response,
        Err(broken) => {
            tracing::error!(request.id = %context.id, error.cause = ?broken.source, "the error page failed");
            (error.status, error.to_string()).into_response()
        }
    }
}

/// Who reads an error page, so that the frame and its way back stay. The error may have come before
/// anybody was identified, or be that the address names a foreign project: then the reader's own project
/// frames it. Nothing here can fail; a stranger gets the bare page.
async fn reader(app: &App, view: &ErrorView) -> Option<Identity> {
    crate::sessions::cookie(app, &view.headers)?;
    for path in [view.path.as_str(), "/"] {
        let mut head = axum::http::Request::builder()
            .uri(path)
            .body(())
            .ok()?
            .into_parts()
            .0;
        head.headers = view.headers.clone();
        match crate::auth::identify(app, &mut head).await {
            Ok(identity) => return Some(identity),
            Err(error) if error.status == StatusCode::NOT_FOUND => {}
            Err(_) => return None,
        }
    }
    None
}

/// What an error page says: the message and hint in the reader's language where there are such texts,
/// and then the original message too, because it may name what was wrong.
fn error_texts(page: &PageContext, error: &AppError) -> (String, String, String) {
    let code = error.code.replace('_', "-");
    let known = |key: String| page.app.ui.locales.has(&key).then(|| page.t(&key));
    let hint = known(format!("error-hint-{}", code))
        .or_else(|| error.hint.clone())
        .unwrap_or_default();
    match known(format!("error-code-{}", code)).filter(|_| page.lang != Lang::En) {
        Some(message) => (message, error.message.clone(), hint),
        None => (error.message.clone(), String::new(), hint),
    }
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/", Access::Public, home),
        Route::get("/{project}/about", Access::SignedIn, about),
        Route::post("/preferences", Access::Public, save_preferences),
    ]
}

/// What runs here, and under which licences.
async fn about(page: PageContext) -> Result<Response> {
    let view = context! {
        licence => env!("CARGO_PKG_LICENSE"),
        packages => Value::from(Serde(super::assets::licences())),
    };
    page.render("ui/about.html", view).await
}

/// The address without a project: on to the first project, or to the way in.
async fn home(State(app): State<App>, page: PageContext) -> Result<Response> {
    let cookie = crate::sessions::cookie(&app, &page.headers);
    let person = match cookie {
        Some(cookie) => crate::sessions::find(&app, &cookie).await?,
        None => None,
    };
    let Some(person) = person else {
        return Ok(crate::sessions::to_sign_in("/"));
    };
    let projects = crate::projects::of_user(&app.db, person.id).await?;
    match projects.first() {
        Some(project) => {
            let (_, role) = crate::members::role_in(&app, person.id, Some(&project.name)).await?;
            Ok(redirect(first_page(&project.name, role)).into_response())
        }
        None => Err(AppError::forbidden("you are not a member of any project")
            .hint("ask an administrator for an invitation")),
    }
}

/// Where a role begins: whoever only labels sees no overview.
fn first_page(project: &str, role: Role) -> String {
    if role.allows(Permission::ReadTraces) {
        format!("/{project}/")
    } else {
        format!("/{project}/review")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preferences {
    theme: Option<String>,
    lang: Option<String>,
    return_to: Option<String>,
}

async fn save_preferences(
    State(app): State<App>,
    Form(form): Form<Preferences>,
) -> Result<Response> {
    let mut response = redirect(local_path(form.return_to.as_deref())).into_response();
    let year = Some(365 * 86_400);
    if let Some(theme) = form
        .theme
        .filter(|theme| matches!(theme.as_str(), "light" | "dark" | "system"))
    {
        set_cookie(&app, &mut response, "meguri-theme", &theme, year);
    }
    if let Some(lang) = form.lang.as_deref().and_then(Lang::from_code) {
        set_cookie(&app, &mut response, "meguri-lang", lang.code(), year);
    }
    Ok(response)
}

/// A path of this server that a form may return to; anything else is the home page.
/// Browsers drop tabs and line ends from an address, so that `/<tab>/host` would lead elsewhere.
pub(crate) fn local_path(path: Option<&str>) -> String {
    match path {
        Some(path)
            if path.starts_with('/')
                && !path.starts_with("//")
                && !path.contains(|c: char| c == '\\' || c.is_control()) =>
        {
            path.to_owned()
        }
        _ => "/".to_owned(),
    }
}
