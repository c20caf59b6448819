//! References: how one document names another, and what follows from it.
//!
//! The text form is the same everywhere: `KIND:NAME@SELECTOR`, and without a
//! selector the label `production`. Saving checks that what a document refers to
//! exists; neither a save nor a move may close a circle. The two checks differ:
//! a save refuses any way back to its own *name*, because every label of it may
//! come to point to the new version; a move follows the pointers as they would be.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use base::{Digest, ProjectId};
use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;

use super::{Catalog, CatalogError, Kinds, Label, Name, Problem, Selector, Version, store};
use crate::{DbError, Scope, WriteTx};

/// The label that a reference means when it names none.
pub const DEFAULT_LABEL: &str = "production";
/// How many references one document may have.
const MAX_REFERENCES: usize = 1000;
/// How many documents may hang together through references.
const MAX_CLOSURE: usize = 2000;

/// One document's mention of another. Its text form leaves the path out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it stands: a JSON Pointer into the document; empty outside of one.
    pub path: String,
    /// The kind of the other document.
    pub kind: String,
    /// Its name.
    pub name: Name,
    /// Which version of it.
    pub selector: Selector,
}

impl Reference {
    /// Reads the text form that stands at this place of a document.
    ///
    /// # Errors
    /// What is wrong with the text, at that place.
    pub fn parse_at(path: &str, text: &str) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::new(path, why);
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(wrong(format!(
                "{text:?} is not a reference; write KIND:NAME@LABEL, as prompt:support/answer@production"
            )));
        };
        let is_kind = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if kind.is_empty() || !kind.chars().all(is_kind) {
            return Err(wrong(format!("{kind:?} cannot be a kind of document")));
        }
        let (name, selector) = match rest.split_once('@') {
            Some((name, selector)) => (name, selector),
            None => (rest, DEFAULT_LABEL),
        };
        let in_reference = |problem: Problem| wrong(format!("{text:?}: {problem}"));
        Ok(Self {
            path: path.to_owned(),
            kind: kind.to_owned(),
            name: name.parse().map_err(in_reference)?,
            selector: selector.parse().map_err(in_reference)?,
        })
    }

    /// The same reference, standing at this place.
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

impl FromStr for Reference {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::parse_at("", text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}@{}", self.kind, self.name, self.selector)
    }
}

/// What a reference stands for at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// The reference as text, its selector written out: `prompt:geo/who@production`.
    pub text: String,
    /// The other document's kind.
    pub kind: String,
    /// Its name.
    pub name: Name,
    /// The version's number.
    pub number: i64,
    /// The content's identity.
    pub digest: Digest,
}

/// Everything that a document refers to, itself and through others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// Each reference once, by its text.
    pub references: Vec<Resolved>,
}

/// A document that refers to a name, in a version that is in use: the newest of
/// its name, or one that a label points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dependent {
    /// The referring document's kind.
    pub kind: String,
    /// Its name.
    pub name: Name,
    /// The version that refers.
    pub number: i64,
    /// Whether that is the newest version.
    pub is_latest: bool,
    /// The labels that point to it.
    pub labels: Vec<String>,
    /// Where in the document: a JSON Pointer.
    pub path: String,
    /// What it refers to, as text: `prompt:geo/who@production`.
    pub reference: String,
}

impl fmt::Display for Dependent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (version {}", self.kind, self.name, self.number)?;
        for label in &self.labels {
            write!(f, ", {label}")?;
        }
        f.write_str(")")
    }
}

impl Catalog {
    /// What a version refers to, itself and through others, as the pointers are now:
    /// what a release is cut from.
    ///
    /// # Errors
    /// [`CatalogError::NoVersion`], or [`CatalogError::Invalid`] when something on the
    /// way is missing or deleted; its path says which reference of the version leads there.
    pub async fn resolve(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        number: i64,
    ) -> Result<Resolution, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        self.resolve_on(&mut connection, scope.project, kind, name, number)
            .await
    }

    /// [`Catalog::resolve`] as the transaction sees it.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn resolve_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        kind: &str,
        name: &Name,
        number: i64,
    ) -> Result<Resolution, CatalogError> {
        self.resolve_on(tx.conn(), scope.project, kind, name, number)
            .await
    }

    async fn resolve_on(
        &self,
        connection: &mut AnyConnection,
        project: ProjectId,
        kind: &str,
        name: &Name,
        number: i64,
    ) -> Result<Resolution, CatalogError> {
        let found = store::by_number(connection, project, kind, name, number).await?;
        let version = found.ok_or_else(|| CatalogError::NoVersion {
            kind: kind.to_owned(),
            name: name.to_string(),
            number,
        })?;
        let mut graph = Graph::new(connection, project, self.kinds(), None);
        let root = graph.add_version(&version).await?;
        graph.refuse_cycle(root)?;
        graph.refuse_missing()?;
        Ok(graph.resolution())
    }

    /// What a document that is not saved refers to, as [`Catalog::resolve`] has it.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] when something on the way is missing or deleted.
    pub async fn resolve_document(
        &self,
        scope: Scope,
        kind: &str,
        content: &Value,
    ) -> Result<Resolution, CatalogError> {
        let references = (self.kinds().get(kind)?.references)(content);
        let mut connection = self.db.read().acquire().await?;
        let mut graph = Graph::new(&mut connection, scope.project, self.kinds(), None);
        let root = graph.add_document(kind.to_owned(), references).await?;
        graph.refuse_cycle(root)?;
        graph.refuse_missing()?;
        Ok(graph.resolution())
    }

    /// The documents in use that refer to this name, by kind and name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn dependents(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
    ) -> Result<Vec<Dependent>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::dependents(&mut connection, scope.project, kind, name).await?)
    }

    /// The references of a version's own document.
    ///
    /// # Errors
    /// The kind is not registered.
    pub fn references_of(
        &self,
        kind: &str,
        content: &Value,
    ) -> Result<Vec<Reference>, CatalogError> {
        Ok((self.kinds().get(kind)?.references)(content))
    }

    /// Refuses while a document in use refers to the name, by this label if one is given.
    pub(super) async fn refuse_referenced(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        kind: &str,
        name: &Name,
        label: Option<&Label>,
    ) -> Result<(), CatalogError> {
        let mut by = store::dependents(tx.conn(), scope.project, kind, name).await?;
        if let Some(label) = label {
            let text = Reference {
                path: String::new(),
                kind: kind.to_owned(),
                name: name.clone(),
                selector: Selector::Label(label.clone()),
            }
            .to_string();
            by.retain(|dependent| dependent.reference == text);
        }
        if by.is_empty() {
            return Ok(());
        }
        let what = match label {
            Some(label) => format!("{kind} {name}@{label}"),
            None => format!("{kind} {name}"),
        };
        Err(CatalogError::Referenced { what, by })
    }

    /// What a new document refers to must be there, and must not lead back to its own name.
    pub(super) async fn check_references(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        kind: &str,
        name: &Name,
        references: &[Reference],
    ) -> Result<(), CatalogError> {
        if references.is_empty() {
            return Ok(());
        }
        if references.len() > MAX_REFERENCES {
            let why = format!(
                "refers to {} documents; at most {MAX_REFERENCES} are allowed",
                references.len()
            );
            return Err(Problem::new("", why).into());
        }
        let mut graph = Graph::new(tx.conn(), scope.project, self.kinds(), None);
        let root = graph
            .add_document(format!("{kind}:{name}"), references.to_vec())
            .await?;
        graph.refuse_name(root, kind, name)?;
        graph.refuse_missing()
    }
}

/// What a saved document refers to, as this connection sees it; nothing for one that
/// the project does not have.
///
/// # Errors
/// The database cannot be read.
pub async fn references_on(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    digest: &Digest,
) -> Result<Vec<Reference>, DbError> {
    store::references(connection, project, kind, digest).await
}

/// A label as it will be after a move.
pub(super) struct MovedLabel<'a> {
    pub(super) label: &'a Label,
    pub(super) target: &'a Version,
}

/// Documents and what they refer to, transitively, at one moment.
pub(super) struct Graph<'a> {
    connection: &'a mut AnyConnection,
    project: ProjectId,
    kinds: &'a Kinds,
    moved: Option<MovedLabel<'a>>,
    /// The first is the document that everything begins at.
    nodes: Vec<Node>,
    by_version: HashMap<(String, Name, i64), usize>,
    by_text: HashMap<String, Found>,
}

struct Node {
    /// How a chain of references calls it when it begins there.
    title: String,
    version: Option<Version>,
    edges: Vec<Edge>,
}

struct Edge {
    reference: Reference,
    to: Found,
}

/// A node's place, or why there is none.
type Found = Result<usize, String>;

impl<'a> Graph<'a> {
    pub(super) fn new(
        connection: &'a mut AnyConnection,
        project: ProjectId,
        kinds: &'a Kinds,
        moved: Option<MovedLabel<'a>>,
    ) -> Self {
        Self {
            connection,
            project,
            kinds,
            moved,
            nodes: Vec::new(),
            by_version: HashMap::new(),
            by_text: HashMap::new(),
        }
    }

    /// Begins at a version that is saved, and reads everything that it leads to.
    pub(super) async fn add_version(&mut self, version: &Version) -> Result<usize, CatalogError> {
        let selector = match &self.moved {
            Some(moved) => moved.label.to_string(),
            None => version.number.to_string(),
        };
        let root = self.add_node(version);
        self.nodes[root].title = format!("{}:{}@{selector}", version.kind, version.name);
        self.follow_all().await?;
        Ok(root)
    }

    /// Begins at a document that is not saved.
    async fn add_document(
        &mut self,
        title: String,
        references: Vec<Reference>,
    ) -> Result<usize, CatalogError> {
        let root = self.nodes.len();
        self.nodes.push(Node {
            title,
            version: None,
            edges: Vec::new(),
        });
        for reference in references {
            let to = self.find(&reference).await?;
            self.nodes[root].edges.push(Edge { reference, to });
        }
        self.follow_all().await?;
        Ok(root)
    }

    fn add_node(&mut self, version: &Version) -> usize {
        let key = (version.kind.clone(), version.name.clone(), version.number);
        *self.by_version.entry(key).or_insert_with(|| {
            self.nodes.push(Node {
                title: String::new(),
                version: Some(version.clone()),
                edges: Vec::new(),
            });
            self.nodes.len() - 1
        })
    }

    async fn follow_all(&mut self) -> Result<(), CatalogError> {
        let mut next = 0;
        while next < self.nodes.len() {
            if self.nodes.len() > MAX_CLOSURE {
                let why = format!("leads to more than {MAX_CLOSURE} documents through references");
                return Err(Problem::new("", why).into());
            }
            if let Some(version) = self.nodes[next].version.clone() {
                let references = store::references(
                    self.connection,
                    self.project,
                    &version.kind,
                    &version.digest,
                )
                .await?;
                for reference in references {
                    let to = self.find(&reference).await?;
                    self.nodes[next].edges.push(Edge { reference, to });
                }
            }
            next += 1;
        }
        Ok(())
    }

    async fn find(&mut self, reference: &Reference) -> Result<Found, DbError> {
        let text = reference.to_string();
        if let Some(known) = self.by_text.get(&text) {
            return Ok(known.clone());
        }
        let found = self
            .look_up(reference)
            .await?
            .map(|version| self.add_node(&version));
        self.by_text.insert(text, found.clone());
        Ok(found)
    }

    async fn look_up(&mut self, reference: &Reference) -> Result<Result<Version, String>, DbError> {
        let Reference {
            kind,
            name,
            selector,
            ..
        } = reference;
        if let Some(MovedLabel { label, target }) = &self.moved
            && *kind == target.kind
            && *name == target.name
            && matches!(selector, Selector::Label(own) if own == *label)
        {
            return Ok(Ok((*target).clone()));
        }
        let kinds = || self.kinds.iter().map(|kind| kind.name);
        if !kinds().any(|known| known == kind) {
            let hint = did_you_mean(nearest(kind, kinds()).as_deref());
            return Ok(Err(format!("there is no document kind {kind:?}{hint}")));
        }
        let connection = &mut *self.connection;
        match store::name_row(connection, self.project, kind, name).await? {
            None => {
                let names = store::all_names(connection, self.project, kind).await?;
                let near = nearest(name.as_str(), names.iter().map(String::as_str));
                let hint = did_you_mean(near.as_deref());
                return Ok(Err(format!("there is no {kind} {name}{hint}")));
            }
            Some(entry) if entry.deleted_at.is_some() => {
                return Ok(Err(format!("{kind} {name} was deleted")));
            }
            Some(_) => {}
        }
        let found = super::find_version(connection, self.project, kind, name, selector).await?;
        match found {
            Some(version) => Ok(Ok(version)),
            None => Ok(Err(self.no_such_version(reference).await?)),
        }
    }

    async fn no_such_version(&mut self, reference: &Reference) -> Result<String, DbError> {
        let Reference { kind, name, .. } = reference;
        let Selector::Label(label) = &reference.selector else {
            return Ok(format!(
                "{kind} {name} has no version {}",
                reference.selector
            ));
        };
        let pointers = store::pointers(self.connection, self.project, kind, name).await?;
        let labels: Vec<_> = pointers
            .iter()
            .map(|pointer| pointer.label.as_str())
            .collect();
        Ok(match labels.as_slice() {
            [] => format!("{kind} {name} has no label {label}, nor any other"),
            labels => format!(
                "{kind} {name} has no label {label}; it has {}",
                labels.join(", ")
            ),
        })
    }

    /// Refuses documents that lead back to themselves.
    pub(super) fn refuse_cycle(&self, root: usize) -> Result<(), CatalogError> {
        let closes = |edge: &Edge, path: &[usize]| matches!(&edge.to, Ok(to) if path.contains(to));
        let Some(walk) = self.walk(root, closes) else {
            return Ok(());
        };
        // What stands before the circle leads into it and is no part of it.
        let closing = walk.last().and_then(|edge| edge.to.as_ref().ok());
        let begin = walk
            .iter()
            .position(|edge| edge.to.as_ref().ok() == closing);
        let begin = begin.unwrap_or_default();
        let own = (begin + 1 == walk.len()).then(|| self.nodes[root].title.clone());
        let skipped = if own.is_some() { 0 } else { begin };
        let texts = walk[skipped..]
            .iter()
            .map(|edge| edge.reference.to_string());
        Err(cycle(&walk, own.into_iter().chain(texts)))
    }

    /// Refuses documents that lead to this name, in whichever version.
    fn refuse_name(&self, root: usize, kind: &str, name: &Name) -> Result<(), CatalogError> {
        let closes =
            |edge: &Edge, _: &[usize]| edge.reference.kind == kind && edge.reference.name == *name;
        let Some(walk) = self.walk(root, closes) else {
            return Ok(());
        };
        let texts = walk.iter().map(|edge| edge.reference.to_string());
        let own = std::iter::once(self.nodes[root].title.clone());
        Err(cycle(&walk, own.chain(texts)))
    }

    /// Refuses references that lead nowhere: all of the first document's own, or
    /// else the first one further down.
    pub(super) fn refuse_missing(&self) -> Result<(), CatalogError> {
        let Some(first) = self.nodes.first() else {
            return Ok(());
        };
        let own: Vec<Problem> = first
            .edges
            .iter()
            .filter_map(|edge| {
                let why = edge.to.as_ref().err()?;
                Some(Problem::new(edge.reference.path.as_str(), why.as_str()))
            })
            .collect();
        if !own.is_empty() {
            return Err(CatalogError::Invalid(own));
        }
        let Some(walk) = self.walk(0, |edge: &Edge, _: &[usize]| edge.to.is_err()) else {
            return Ok(());
        };
        let path = walk.first().map_or("", |edge| edge.reference.path.as_str());
        let chain: Vec<_> = walk.iter().map(|edge| edge.reference.to_string()).collect();
        let why = walk.last().and_then(|edge| edge.to.as_ref().err());
        let why = why.map_or("", String::as_str);
        Err(Problem::new(path, format!("{}: {why}", chain.join(" → "))).into())
    }

    /// The edges from the root to the first one that `closes`, depth first; it is
    /// told the nodes between the root and that edge.
    fn walk(&self, root: usize, closes: impl Fn(&Edge, &[usize]) -> bool) -> Option<Vec<&Edge>> {
        let mut seen = HashSet::from([root]);
        let mut path = vec![root];
        let mut next = vec![0];
        let mut edges: Vec<&Edge> = Vec::new();
        while let (Some(&node), Some(at)) = (path.last(), next.last_mut()) {
            let Some(edge) = self.nodes[node].edges.get(*at) else {
                path.pop();
                next.pop();
                edges.pop();
                continue;
            };
            *at += 1;
            if closes(edge, &path) {
                edges.push(edge);
                return Some(edges);
            }
            if let Ok(to) = edge.to
                && seen.insert(to)
            {
                path.push(to);
                next.push(0);
                edges.push(edge);
            }
        }
        None
    }

    fn resolution(&self) -> Resolution {
        let mut references = Vec::new();
        for (text, found) in &self.by_text {
            let Ok(node) = found else { continue };
            let Some(version) = &self.nodes[*node].version else {
                continue;
            };
            references.push(Resolved {
                text: text.clone(),
                kind: version.kind.clone(),
                name: version.name.clone(),
                number: version.number,
                digest: version.digest,
            });
        }
        references.sort_by(|a, b| a.text.cmp(&b.text));
        Resolution { references }
    }
}

fn cycle(walk: &[&Edge], chain: impl Iterator<Item = String>) -> CatalogError {
    CatalogError::Cycle {
        at: walk
            .first()
            .map(|edge| edge.reference.path.clone())
            .unwrap_or_default(),
        chain: chain.collect::<Vec<_>>().join(" → "),
    }
}

/// The known word that somebody probably meant.
pub fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
    let allowed = (wrong.chars().count() / 3).clamp(1, 4);
    let distance = |known: &str| {
        if last(known) == last(wrong) {
            return 1;
        }
        strsim::damerau_levenshtein(wrong, known)
    };
    known
        .into_iter()
        .map(|known| (distance(known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known.to_owned())
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_one_text_form() {
        let check = |text: &str, canonical: &str| {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(canonical.parse::<Reference>(), Ok(reference));
        };
        let digest = Digest::of(b"").to_string();
        check("prompt:geo/who", "prompt:geo/who@production");
        check("prompt:geo/who@staging", "prompt:geo/who@staging");
        check("prompt:v1.2/誰@本番", "prompt:v1.2/誰@本番");
        check("app:a@latest", "app:a@latest");
        check("app:a@3", "app:a@3");
        check(&format!("guard:g@{digest}"), &format!("guard:g@{digest}"));
        for (bad, says) in [
            ("", "is not a reference"),
            ("geo/who", "is not a reference"),
            (":a", "cannot be a kind"),
            ("Prompt:a", "cannot be a kind"),
            ("prompt:", "name: must not be empty"),
            ("prompt:a b", "name: must not contain spaces"),
            ("prompt:a\u{200b}", "U+200B"),
            ("prompt:\u{202e}a", "U+202E"),
            ("prompt:a/../b", "\"..\""),
            ("prompt:a@", "label: must not be empty"),
            ("prompt:a@x@y", "label: must not contain '@'"),
            ("prompt:a@99999999999999999999", "there is no version"),
        ] {
            let problem = Reference::parse_at("/x", bad).unwrap_err();
            assert_eq!(problem.path, "/x");
            assert!(problem.message.contains(says), "{bad:?}: {problem}");
        }
    }

    #[test]
    fn the_nearest_name_is_a_likely_one() {
        let known = ["geo/who", "geo/where", "support/answer", "a"];
        assert_eq!(nearest("geo/whoo", known).as_deref(), Some("geo/who"));
        assert_eq!(nearest("answer", known).as_deref(), Some("support/answer"));
        assert_eq!(nearest("Answer", known).as_deref(), Some("support/answer"));
        assert_eq!(nearest("something-else", known), None);
        assert_eq!(nearest("geo/who", []), None);
    }
}
