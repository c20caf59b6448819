//! Releases: an app version with everything that it refers to pinned to digests.
//!
//! A release is a document of its own kind under its app's name, so that it is
//! versioned, compared, promoted and rolled back like everything else. Nobody
//! writes one: [`cut_release`] resolves an app as its references point at that
//! moment, and cutting the same thing twice gives the same release. A tree of files
//! may bring one back, if it is what cutting could have given.

use std::collections::{BTreeMap, BTreeSet};

use db::catalog::{Admission, Candidate, Name, Reference, Selector, references_on};
use db::sqlx::AnyConnection;
use db::{Catalog, CatalogError, Kind, NewVersion, Problem, SavedVersion, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::APP;
use crate::app::App;
use crate::error::{AppError, Result};

/// The catalog's word for releases.
pub const RELEASE: &str = "release";

/// The document of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseContent {
    /// The app version that runs.
    pub app: PinnedApp,
    /// What its references stand for, transitively: `prompt:geo/who@production` → one version of it.
    #[serde(default)]
    pub documents: BTreeMap<String, Pinned>,
}

/// One version of the app that bears the release's own name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinnedApp {
    /// The app's name.
    pub name: String,
    /// The version's number.
    pub number: i64,
    /// The version's content.
    pub digest: String,
}

/// One version of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// The document's kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The version's number.
    pub number: i64,
    /// The version's content.
    pub digest: String,
}

/// Releases, as the catalog knows them.
pub fn release_kind() -> Kind {
    Kind {
        references,
        admit,
        made_by: Some(
            "cut it from its app: POST /api/v1/apps/{name}/releases, or meguri release cut",
        ),
        ..Kind::new(
            RELEASE,
            || json!(schemars::schema_for!(ReleaseContent)),
            validate,
        )
    }
}

fn validate(content: &Value) -> std::result::Result<(), Vec<Problem>> {
    let release = ReleaseContent::deserialize(content)
        .map_err(|error| vec![Problem::new("", error.to_string())])?;
    let mut problems = Vec::new();
    check_pin(
        &mut problems,
        "/app",
        &release.app.name,
        &release.app.digest,
    );
    for (reference, pinned) in &release.documents {
        let path = format!("/documents/{}", escape(reference));
        check_pin(&mut problems, &path, &pinned.name, &pinned.digest);
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn check_pin(problems: &mut Vec<Problem>, path: &str, name: &str, digest: &str) {
    if let Err(problem) = name.parse::<Name>() {
        problems.push(Problem::new(format!("{path}/name"), problem.message));
    }
    if digest.parse::<base::Digest>().is_err() {
        let text = "this is not a digest: sha256: and 64 hexadecimal digits";
        problems.push(Problem::new(format!("{path}/digest"), text));
    }
}

/// A key as one segment of a JSON Pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A release refers to exact contents, so that nothing it runs can be taken away unnoticed.
fn references(content: &Value) -> Vec<Reference> {
    let Ok(release) = ReleaseContent::deserialize(content) else {
        return Vec::new();
    };
    let pin = |path: String, kind: &str, name: &str, digest: &str| {
        Some(Reference {
            path,
            kind: kind.to_owned(),
            name: name.parse().ok()?,
            selector: Selector::Digest(digest.parse().ok()?),
        })
    };
    let app = pin(
        "/app".to_owned(),
        APP,
        &release.app.name,
        &release.app.digest,
    );
    let documents = release.documents.iter().filter_map(|(key, pinned)| {
        let path = format!("/documents/{}", escape(key));
        pin(path, &pinned.kind, &pinned.name, &pinned.digest)
    });
    app.into_iter().chain(documents).collect()
}

/// A release is what cutting gives, also one that comes out of a tree of files: the app of
/// its own name, and every reference that it leads to, each pinned once and to what it names.
fn admit<'a>(connection: &'a mut AnyConnection, candidate: Candidate<'a>) -> Admission<'a> {
    Box::pin(async move {
        let release = ReleaseContent::deserialize(candidate.content)
            .map_err(|error| Problem::new("", error.to_string()))?;
        let mut problems = Vec::new();
        if release.app.name != candidate.name.as_str() {
            let why = format!("a release of {} is one of its own app", candidate.name);
            problems.push(Problem::new("/app/name", why));
        }
        let needed = pins_needed(connection, candidate.project, &release, &mut problems).await?;
        let unneeded = |text: &&String| !needed.contains(*text);
        problems.extend(release.documents.keys().filter(unneeded).map(|text| {
            let path = format!("/documents/{}", escape(text));
            Problem::new(path, "nothing of the app refers to this")
        }));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(CatalogError::Invalid(problems))
        }
    })
}

/// The references that the app leads to through what the release pins them to; what is not
/// pinned, or not to what it names, is a problem.
async fn pins_needed(
    connection: &mut AnyConnection,
    project: base::ProjectId,
    release: &ReleaseContent,
    problems: &mut Vec<Problem>,
) -> std::result::Result<BTreeSet<String>, CatalogError> {
    let mut needed = BTreeSet::new();
    let mut open = vec![(APP.to_owned(), release.app.digest.clone())];
    while let Some((kind, digest)) = open.pop() {
        let Ok(digest) = digest.parse() else { continue };
        for reference in references_on(connection, project, &kind, &digest).await? {
            let text = reference.to_string();
            if !needed.insert(text.clone()) {
                continue;
            }
            let Some(pinned) = release.documents.get(&text) else {
                problems.push(Problem::new("/documents", format!("{text} is not pinned")));
                continue;
            };
            if pinned.is_of(&reference) {
                open.push((pinned.kind.clone(), pinned.digest.clone()));
            } else {
                let path = format!("/documents/{}", escape(&text));
                problems.push(Problem::new(path, "this is not what the reference names"));
            }
        }
    }
    Ok(needed)
}

impl Pinned {
    /// Whether a reference could stand for this: it names the same thing, and the same
    /// version where it names one.
    fn is_of(&self, reference: &Reference) -> bool {
        let is_version = match &reference.selector {
            Selector::Number(number) => self.number == *number,
            Selector::Digest(digest) => self.digest == digest.to_string(),
            Selector::Label(_) | Selector::Latest => true,
        };
        is_version && self.kind == reference.kind && self.name == reference.name.as_str()
    }
}

/// Makes a release of an app's version: everything it refers to, as it points now.
/// The same thing again gives the release that holds it.
///
/// # Errors
/// There is no such version, or one of its references leads nowhere (`at` says which).
pub async fn cut_release(
    app: &App,
    scope: Scope,
    name: &Name,
    version: &Selector,
    message: &str,
) -> Result<SavedVersion> {
    let saved = cut_release_in(&app.catalog, scope, name, version, message).await?;
    app.refresh_plan().await?;
    Ok(saved)
}

/// [`cut_release`] without a server: one that runs follows by itself.
///
/// # Errors
/// As there.
pub async fn cut_release_in(
    catalog: &Catalog,
    scope: Scope,
    name: &Name,
    version: &Selector,
    message: &str,
) -> Result<SavedVersion> {
    let found = catalog.version(scope, APP, name, version).await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "the app {:?} has no version {version}",
            name.as_str()
        ))
    })?;
    let resolution = catalog
        .resolve(scope, APP, name, found.version.number)
        .await?;
    let documents = resolution.references.into_iter().map(|resolved| {
        let pinned = Pinned {
            kind: resolved.kind,
            name: resolved.name.as_str().to_owned(),
            number: resolved.number,
            digest: resolved.digest.to_string(),
        };
        (resolved.text, pinned)
    });
    let content = ReleaseContent {
        app: PinnedApp {
            name: name.as_str().to_owned(),
            number: found.version.number,
            digest: found.version.digest.to_string(),
        },
        documents: documents.collect(),
    };
    let document = json!(content);
    let new = NewVersion {
        kind: RELEASE,
        name,
        content: &document,
        message,
    };
    Ok(catalog.save_made(scope, new).await?)
}

/// One release.
///
/// # Errors
/// There is none with this number, label or digest.
pub async fn find_release(
    catalog: &Catalog,
    scope: Scope,
    name: &Name,
    selector: &Selector,
) -> Result<(db::Version, ReleaseContent)> {
    let found = catalog.version(scope, RELEASE, name, selector).await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "the app {:?} has no release {selector}",
            name.as_str()
        ))
    })?;
    let content = ReleaseContent::deserialize(found.content).map_err(anyhow::Error::from)?;
    Ok((found.version, content))
}

/// One document that two releases of an app pin otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DocumentChange {
    /// How the app refers to it; `app` for the app itself.
    pub reference: String,
    /// The document's kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The version in the first release; none where it was added.
    pub before: Option<i64>,
    /// The version in the second release; none where it was removed.
    pub after: Option<i64>,
}

/// Which documents differ between two releases.
pub fn compare(before: &ReleaseContent, after: &ReleaseContent) -> Vec<DocumentChange> {
    let mut changes = Vec::new();
    if before.app.digest != after.app.digest {
        changes.push(DocumentChange {
            reference: APP.to_owned(),
            kind: APP.to_owned(),
            name: after.app.name.clone(),
            before: Some(before.app.number),
            after: Some(after.app.number),
        });
    }
    let references: BTreeSet<&String> = before
        .documents
        .keys()
        .chain(after.documents.keys())
        .collect();
    for reference in references {
        let (old, new) = (
            before.documents.get(reference),
            after.documents.get(reference),
        );
        let Some(either) = new.or(old) else { continue };
        if old.map(|pinned| &pinned.digest) != new.map(|pinned| &pinned.digest) {
            changes.push(DocumentChange {
                reference: reference.clone(),
                kind: either.kind.clone(),
                name: either.name.clone(),
                before: old.map(|pinned| pinned.number),
                after: new.map(|pinned| pinned.number),
            });
        }
    }
    changes
}
