//! What is kept under a name beside its editor: versions, and labels that are moved. The same for
//! policies and for word lists.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::PageRequest;
use db::catalog::{Document, Name, Selector};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::ui::{PageContext, redirect};

/// Versions that an editor lists.
const VERSIONS: u32 = 20;

/// Which version an editor begins with; nothing for a new document.
#[derive(Deserialize)]
pub(super) struct EditQuery {
    name: Option<String>,
    version: Option<String>,
    pub(super) template: Option<String>,
}

impl EditQuery {
    /// The version that was asked for, the newest where none was said.
    pub(super) async fn open(
        &self,
        app: &App,
        identity: &Identity,
        kind: &str,
    ) -> Result<Option<(Name, Document)>> {
        let Some(text) = &self.name else {
            return Ok(None);
        };
        let name = super::parse_name(text)?;
        let version = match self.version.as_deref() {
            Some(version) => crate::catalog::parse_selector(version)?,
            None => Selector::Latest,
        };
        let scope = identity.scope();
        let found = app.catalog.version(scope, kind, &name, &version).await?;
        let missing = || AppError::not_found(format!("there is no {kind} {text:?}"));
        Ok(Some((name, found.ok_or_else(missing)?)))
    }
}

/// What is kept under the name: versions, labels, and what may be moved. `href` is the page that
/// edits it.
pub(super) async fn kept_view(
    app: &App,
    identity: &Identity,
    kind: &str,
    name: &str,
    href: &str,
) -> Result<Value> {
    let Ok(name) = name.parse::<db::Name>() else {
        return Ok(json!(null));
    };
    let scope = identity.scope();
    let request = PageRequest {
        cursor: None,
        limit: VERSIONS,
    };
    let versions = app
        .catalog
        .list_versions(scope, kind, &name, &request)
        .await?
        .items;
    let pointers = app.catalog.pointers(scope, kind, &name).await?;
    let authors = versions.iter().map(|version| version.author.as_str());
    let movers = pointers.iter().map(|pointer| pointer.moved_by.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors.chain(movers)).await?;
    let mut names = crate::projects::environments(&app.db, scope.project).await?;
    for label in [crate::prompts::PRODUCTION]
        .into_iter()
        .chain(pointers.iter().map(|pointer| pointer.label.as_str()))
    {
        if !names.iter().any(|known| known == label) {
            names.push(label.to_owned());
        }
    }
    let labels_of = |number: i64| -> Vec<&str> {
        let here = pointers.iter().filter(|pointer| pointer.number == number);
        here.map(|pointer| pointer.label.as_str()).collect()
    };
    let version_row = |version: &db::Version| {
        json!({
            "version": version.number, "href": format!("{href}&version={}", version.number),
            "at": version.created_at, "by": people.get(&version.author), "message": version.message,
            "labels": labels_of(version.number),
        })
    };
    let label_row = |pointer: &db::Pointer| {
        json!({
            "name": pointer.label, "version": pointer.number, "at": pointer.moved_at,
            "by": people.get(&pointer.moved_by), "href": format!("{href}&version={}", pointer.number),
        })
    };
    Ok(json!({
        "versions": versions.iter().map(version_row).collect::<Vec<_>>(),
        "labels": pointers.iter().map(label_row).collect::<Vec<_>>(), "label_names": names,
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelForm {
    pub(super) name: String,
    label: String,
    version: i64,
    #[serde(default)]
    reason: String,
}

/// Moves a label, or proposes it where the label is protected, and goes back to `href`.
pub(super) async fn move_label(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    kind: &str,
    href: String,
    form: &LabelForm,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let to = redirect(href);
    let label = match crate::catalog::parse_label(form.label.trim()) {
        Ok(label) => label,
        Err(error) => return Ok(to.err(error.message).into_response()),
    };
    let request = db::MoveRequest {
        kind,
        name: &name,
        label: &label,
        to: form.version,
        expected: None,
        reason: form.reason.trim(),
    };
    let number = form.version.to_string();
    let args = [("label", label.as_str()), ("n", number.as_str())];
    match crate::promotion::request_move(app, identity.scope(), request).await {
        Ok((_, None)) => Ok(to
            .ok(page.t_with("prompts-moved-flash", &args))
            .into_response()),
        Ok((_, Some(_))) => Ok(to
            .ok(page.t_with("prompts-proposed-flash", &args))
            .into_response()),
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
