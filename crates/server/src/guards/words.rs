//! Word lists: documents of kind `words`, which rules of policies name.
//!
//! A rule says `"list": "words:NAME@LABEL"`. That the list is there is checked when the policy is
//! saved, and a list that a policy in use names cannot be deleted; both is the catalog's work. A
//! policy is compiled anew when the list that its reference means is another. What cannot be had
//! all the same is lost, not empty: the rule's `on_failure` decides, and it is written down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Digest, ProjectId};
use db::catalog::Reference;
use db::{BlobStore, Catalog, Kind, Problem};
use guard::{Fold, List, Policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Known;
use crate::app::App;

/// The catalog's word for word lists.
pub const KIND: &str = "words";
/// Entries of one list.
pub(super) const MOST_ENTRIES: usize = 50_000;
/// Characters of one entry.
pub(super) const MOST_CHARS: usize = 128;
/// Lists that a form offers.
const OFFERED: u32 = 100;

/// A list of words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordsDocument {
    /// What the list is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language of the words, as ISO 639-1; for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// How loosely they are compared; as the rule says when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// The words. Order and repetition mean nothing.
    pub entries: Vec<String>,
}

/// Word lists, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match serde_json::from_value::<WordsDocument>(content.clone()) {
            Ok(document) => json!(document.normal()),
            Err(_) => content.clone(),
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(WordsDocument)),
            |content| WordsDocument::parse(content).map(drop),
        )
    }
}

impl WordsDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> Result<Self, Vec<Problem>> {
        let document: Self = serde_json::from_value(content.clone())
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Vec::new();
        let mut say = |path: String, why: String| problems.push(Problem::new(path, why));
        if document.entries.is_empty() {
            say("/entries".to_owned(), "has no word".to_owned());
        }
        if document.entries.len() > MOST_ENTRIES {
            say(
                "/entries".to_owned(),
                format!("has over {MOST_ENTRIES} words"),
            );
        }
        for (at, entry) in document.entries.iter().enumerate() {
            if entry.trim().is_empty() {
                say(format!("/entries/{at}"), "is empty".to_owned());
            } else if entry.chars().count() > MOST_CHARS {
                let why = format!("is longer than {MOST_CHARS} characters");
                say(format!("/entries/{at}"), why);
            }
        }
        let code = &document.language;
        if !is_language(code) {
            let why = format!("{code:?} is no ISO 639-1 code, as en or ja");
            say("/language".to_owned(), why);
        }
        if problems.is_empty() {
            Ok(document)
        } else {
            Err(problems)
        }
    }

    /// The words once each, in order.
    fn normal(self) -> Self {
        let entries = self.entries.iter().map(|entry| entry.trim().to_owned());
        let entries: BTreeSet<String> = entries.collect();
        Self {
            entries: entries.into_iter().collect(),
            ..self
        }
    }
}

/// Whether a text is a language's code, or says nothing.
pub(super) fn is_language(code: &str) -> bool {
    let is_code = code.len() == 2 && code.bytes().all(|b| b.is_ascii_lowercase());
    code.is_empty() || is_code
}

impl From<WordsDocument> for List {
    fn from(document: WordsDocument) -> Self {
        Self {
            words: document.entries,
            fold: document.fold,
        }
    }
}

/// The lists that a policy names, each with the place of its name.
pub fn references(policy: &Policy) -> Vec<Result<Reference, Problem>> {
    let named = policy.named_lists().map(|(rule, name)| {
        let path = format!("/rules/{rule}/check/list");
        let reference = Reference::parse_at(&path, name)?;
        if reference.kind == KIND {
            Ok(reference)
        } else {
            let why = format!("{name:?} names no list; write {KIND}:NAME@LABEL");
            Err(Problem::new(path, why))
        }
    });
    named.collect()
}

/// What the names of a policy mean now: those that can be had, with the identity of each, so
/// that somebody can tell whether anything changed.
///
/// # Errors
/// The database cannot be read.
pub async fn resolve(
    catalog: &Catalog,
    project: ProjectId,
    policy: &Policy,
) -> anyhow::Result<BTreeMap<String, (Digest, List)>> {
    let mut found = BTreeMap::new();
    for (_, name) in policy.named_lists() {
        let Ok(reference) = name.parse::<Reference>() else {
            continue;
        };
        if reference.kind != KIND || found.contains_key(name) {
            continue;
        }
        let actor = db::Actor::System;
        let scope = db::Scope { project, actor };
        let version = catalog
            .version(scope, KIND, &reference.name, &reference.selector)
            .await?;
        let Some(version) = version else {
            continue;
        };
        if let Ok(document) = WordsDocument::parse(&version.content) {
            found.insert(name.to_owned(), (version.version.digest, document.into()));
        }
    }
    Ok(found)
}

/// The lists that a policy names and that can be had now, by what it calls them.
///
/// # Errors
/// The database cannot be read.
pub async fn named_now(
    catalog: &Catalog,
    project: ProjectId,
    content: &Value,
) -> anyhow::Result<BTreeMap<String, List>> {
    let Ok(policy) = Policy::read(content) else {
        return Ok(BTreeMap::new());
    };
    let lists = resolve(catalog, project, &policy).await?;
    let lists = lists.into_iter().map(|(name, (_, list))| (name, list));
    Ok(lists.collect())
}

/// The lists that a form offers, as rules name them: each under its labels, and as it is now.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn offered(app: &App, scope: db::Scope) -> crate::error::Result<Vec<String>> {
    let page = db::PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let filter = db::catalog::NameFilter::default();
    let found = app.catalog.list_names(scope, KIND, &filter, &page).await?;
    let references = found.items.iter().flat_map(|listed| {
        let labels = listed.labels.iter().map(|(label, _)| label.as_str());
        let name = &listed.latest.name;
        labels
            .chain(["latest"])
            .map(move |selector| format!("{KIND}:{name}@{selector}"))
    });
    Ok(references.collect())
}

/// A policy that names lists, with what came of the lists that it was compiled with last.
#[derive(Debug)]
pub(super) struct Naming {
    policy: Policy,
    content: Value,
    /// Where classifiers are that it may name.
    blobs: Option<BlobStore>,
    last: Mutex<Option<(Meanings, Arc<Known>)>>,
}

/// What each name meant.
type Meanings = Vec<(String, Digest)>;

impl Naming {
    /// Nothing for a policy that names no list.
    pub(super) fn new(policy: &Policy, content: &Value, blobs: Option<&BlobStore>) -> Option<Self> {
        policy.named_lists().next()?;
        Some(Self {
            policy: policy.clone(),
            content: content.clone(),
            blobs: blobs.cloned(),
            last: Mutex::new(None),
        })
    }

    async fn now(&self, app: &App, project: ProjectId) -> anyhow::Result<Arc<Known>> {
        let lists = resolve(&app.catalog, project, &self.policy).await?;
        Ok(self.with(lists))
    }

    fn with(&self, lists: BTreeMap<String, (Digest, List)>) -> Arc<Known> {
        let meanings: Meanings = lists
            .iter()
            .map(|(name, (digest, _))| (name.clone(), *digest))
            .collect();
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((meant, known)) = last().as_ref()
            && *meant == meanings
        {
            return known.clone();
        }
        let lists = lists.into_iter().map(|(name, (_, list))| (name, list));
        let known = Arc::new(super::know_with(
            &self.content,
            lists.collect(),
            self.blobs.as_ref(),
        ));
        *last() = Some((meanings, known.clone()));
        known
    }
}

impl Known {
    /// With the lists that somebody knows by name: those that a release pins.
    pub(crate) fn with_lists(
        self: Arc<Self>,
        list: impl Fn(&str) -> Option<(Digest, List)>,
    ) -> Arc<Self> {
        let Some(naming) = &self.naming else {
            return self;
        };
        let named = naming.policy.named_lists();
        let lists = named.filter_map(|(_, name)| Some((name.to_owned(), list(name)?)));
        naming.with(lists.collect())
    }
}

/// Policies with the lists that their names mean now.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn with_lists(
    app: &App,
    project: ProjectId,
    mut known: HashMap<Digest, Arc<Known>>,
) -> anyhow::Result<HashMap<Digest, Arc<Known>>> {
    for of in known.values_mut() {
        if let Some(naming) = &of.naming {
            let now = naming.now(app, project).await?;
            *of = now;
        }
    }
    Ok(known)
}
