//! From files to what the tree says, with everything that is wrong in it at once.
//! Needs no database: what a tree refers to and does not hold is a warning here
//! and is looked up when a plan is made.

use std::collections::{BTreeMap, BTreeSet};

use base::Digest;
use db::catalog::{Label, Name, Selector};
use db::{Kind, Kinds};
use serde_json::{Map, Value};

use super::paths::pin_of;
use super::schema::unknown_keys;
use super::toml::{self, Read, line_and_column, step};
use super::{
    ENVIRONMENTS_FILE, Entry, Environments, Files, Finding, Key, Layout, THIS, Tree, TreeDocument,
    did_you_mean, environments, files, has_errors, in_words, text,
};

/// A tree that was read, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Checked {
    /// What could be read. Complete only without errors.
    pub tree: Tree,
    /// By file and line.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// The tree, if it can be applied.
    ///
    /// # Errors
    /// Everything that was found.
    pub fn into_tree(self) -> Result<Tree, Vec<Finding>> {
        if has_errors(&self.findings) {
            Err(self.findings)
        } else {
            Ok(self.tree)
        }
    }
}

/// Reads and checks a tree.
pub fn parse(files: &Files, kinds: &Kinds) -> Checked {
    let mut parsing = Parsing {
        layout: Layout::new(kinds),
        kinds,
        files,
        findings: Vec::new(),
        reads: BTreeMap::new(),
    };
    let tree = parsing.tree();
    let mut findings = parsing.findings;
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.file.clone(), finding.line, finding.column);
        key(a).cmp(&key(b))
    });
    Checked { tree, findings }
}

/// The files of one document.
#[derive(Debug, Default)]
struct Pair {
    toml: Option<String>,
    text: Option<String>,
}

struct Parsing<'a> {
    layout: Layout,
    kinds: &'a Kinds,
    files: &'a Files,
    findings: Vec<Finding>,
    /// The TOML of each file, for the places of references.
    reads: BTreeMap<String, Read>,
}

impl Parsing<'_> {
    fn tree(&mut self) -> Tree {
        let pairs = self.pairs();
        let mut mains: BTreeMap<Key, DocumentFile> = BTreeMap::new();
        let mut pinned: BTreeMap<Key, Vec<TreeDocument>> = BTreeMap::new();
        for ((kind_name, name, pin), pair) in pairs {
            let Ok(kind) = self.kinds.get(&kind_name).copied() else {
                continue;
            };
            let key = Key {
                kind: kind_name,
                name,
            };
            let Some(file) = self.document(&kind, &pair, pin.as_deref()) else {
                continue;
            };
            match pin {
                Some(_) => pinned.entry(key).or_default().push(file.document),
                None => {
                    mains.insert(key, file);
                }
            }
        }
        let mut tree = Tree {
            names: BTreeMap::new(),
            environments: self.environments(),
        };
        for (key, file) in mains {
            let DocumentFile {
                document: main,
                tags,
                pointers,
            } = file;
            let mut pinned = pinned.remove(&key).unwrap_or_default();
            pinned.retain(|document| document.digest != main.digest);
            pinned.sort_by_key(|document| document.digest);
            let pointers = self.pointers(&main, &pinned, pointers);
            let entry = Entry {
                main,
                pinned,
                tags,
                pointers,
            };
            tree.names.insert(key, entry);
        }
        for (key, documents) in pinned {
            for document in documents {
                self.findings.push(Finding::error(
                    document.file,
                    format!("{key} has no file without @; the main document belongs beside it"),
                ));
            }
        }
        self.check_references(&tree);
        tree
    }

    /// The files of each document: kind, name and pin.
    fn pairs(&mut self) -> BTreeMap<(String, Name, Option<String>), Pair> {
        let mut pairs: BTreeMap<(String, Name, Option<String>), Pair> = BTreeMap::new();
        let mut strange_folders = BTreeSet::new();
        let mut in_conflict = BTreeSet::new();
        for (path, text) in self.files {
            if path
                .split('/')
                .any(|part| part.is_empty() || matches!(part, "." | ".."))
            {
                self.findings
                    .push(Finding::error(path, "its path leaves the tree"));
                continue;
            }
            if files::is_hidden(path) || path == ENVIRONMENTS_FILE {
                continue;
            }
            let Some((folder, _)) = path.split_once('/') else {
                self.check_root_file(path);
                continue;
            };
            if self.layout.kind_of_folder(folder).is_none() {
                if strange_folders.insert(folder.to_owned()) {
                    self.check_strange_folder(folder);
                }
                continue;
            }
            if let Some(line) = text::conflict_line(text) {
                let finding = Finding::error(path, "a merge conflict was left in it");
                self.findings.push(finding.on_line(line));
                // What the other file says without this one would only confuse.
                if let Ok(place) = self.layout.read(path) {
                    in_conflict.insert((place.kind.to_owned(), place.name, place.pin));
                }
                continue;
            }
            match self.layout.read(path) {
                Err(why) => self.findings.push(Finding::error(path, why)),
                Ok(place) => {
                    let key = (place.kind.to_owned(), place.name, place.pin);
                    let pair = pairs.entry(key.clone()).or_default();
                    let slot = if place.is_text {
                        &mut pair.text
                    } else {
                        &mut pair.toml
                    };
                    if let Some(other) = slot.replace(path.clone()) {
                        let message =
                            format!("{other} is {} {} as well; keep one of them", key.0, key.1);
                        self.findings.push(Finding::error(path, message));
                    }
                }
            }
        }
        pairs.retain(|key, _| !in_conflict.contains(key));
        pairs
    }

    fn check_root_file(&mut self, path: &str) {
        if path.ends_with(".toml")
            && let Some(hint) = did_you_mean(path, [ENVIRONMENTS_FILE])
        {
            let finding = Finding::error(path, "the tree has no such file");
            self.findings.push(finding.hint(Some(hint)));
        }
    }

    /// A repository may hold other things; a folder that is meant for documents must not be overlooked.
    fn check_strange_folder(&mut self, folder: &str) {
        let known: Vec<&str> = self
            .layout
            .iter()
            .flat_map(|(folder, kind)| [folder, kind.name])
            .collect();
        let near = super::nearest(folder, known.iter().copied());
        let prefix = format!("{folder}/");
        let has_toml = self
            .files
            .keys()
            .any(|path| path.starts_with(&prefix) && path.ends_with(".toml"));
        if near.is_none() && !has_toml {
            return;
        }
        let near = near.map(|near| self.layout.folder_of(near).unwrap_or(near).to_owned());
        let folders: Vec<&str> = self.layout.iter().map(|(folder, _)| folder).collect();
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the folders are {}", folders.join(", ")),
        };
        let finding = Finding::error(folder, "it is no kind of document");
        self.findings.push(finding.hint(Some(hint)));
    }

    fn document(&mut self, kind: &Kind, pair: &Pair, pin: Option<&str>) -> Option<DocumentFile> {
        let Some(file) = &pair.toml else {
            let text = pair.text.clone().unwrap_or_default();
            let finding = Finding::error(text, "the TOML file beside it is missing");
            self.findings.push(finding);
            return None;
        };
        let source = self.files.get(file)?.replace("\r\n", "\n");
        let read = match toml::read(&source) {
            Ok(read) => read,
            Err(mistake) => {
                let place = line_and_column(&source, mistake.at);
                self.findings
                    .push(Finding::error(file, mistake.message).at(place));
                return None;
            }
        };
        let found = Found {
            file,
            source: &source,
            read: &read,
            text_file: pair.text.as_deref(),
            text: pair.text.as_ref().and_then(|path| self.files.get(path)),
        };
        let (document, mut findings) = found.document(kind, pin);
        self.findings.append(&mut findings);
        self.reads.insert(file.clone(), read);
        document
    }

    /// Where labels point, as digests.
    fn pointers(
        &mut self,
        main: &TreeDocument,
        pinned: &[TreeDocument],
        written: Vec<(String, String)>,
    ) -> BTreeMap<Label, Digest> {
        let mut pointers = BTreeMap::new();
        for (label, target) in written {
            let pointer = format!("/pointers/{}", step(&label));
            let parsed: Label = match label.parse() {
                Ok(label) => label,
                Err(problem) => {
                    let problem: db::Problem = problem;
                    let place = self.place(&main.file, |read| read.key_at(&pointer));
                    self.findings
                        .push(Finding::error(&main.file, problem.message).at(place));
                    continue;
                }
            };
            let place = self.place(&main.file, |read| read.at(&pointer));
            let digest = match (target.as_str(), target.parse::<Digest>()) {
                (THIS, _) => main.digest,
                (_, Ok(digest)) => digest,
                (other, Err(_)) => {
                    let message =
                        format!("a label points to \"{THIS}\" or to sha256:…, not to {other:?}");
                    let finding = Finding::error(&main.file, message).at(place);
                    self.findings
                        .push(finding.hint(did_you_mean(other, [THIS])));
                    continue;
                }
            };
            let in_tree =
                digest == main.digest || pinned.iter().any(|document| document.digest == digest);
            if !in_tree {
                let message =
                    format!("no file of the tree has {digest}; the project must have it already");
                self.findings
                    .push(Finding::warning(&main.file, message).at(place));
            }
            if pointers.insert(parsed, digest).is_some() {
                let message = format!("{label} is there twice, in two spellings");
                self.findings
                    .push(Finding::error(&main.file, message).at(place));
            }
        }
        pointers
    }

    fn place(&self, file: &str, at: impl FnOnce(&Read) -> usize) -> (usize, usize) {
        let source = self
            .files
            .get(file)
            .map(|text| text.replace("\r\n", "\n"))
            .unwrap_or_default();
        let at = self.reads.get(file).map_or(0, at);
        line_and_column(&source, at)
    }

    fn environments(&mut self) -> Option<Environments> {
        let source = self.files.get(ENVIRONMENTS_FILE)?.replace("\r\n", "\n");
        let (environments, findings) = environments::read(&source);
        self.findings.extend(findings);
        environments
    }

    /// Every reference must have a chance.
    fn check_references(&mut self, tree: &Tree) {
        let mut findings = Vec::new();
        for entry in tree.names.values() {
            for document in entry.documents() {
                for reference in &document.references {
                    let Some((is_error, message, hint)) = self.doubt(tree, reference) else {
                        continue;
                    };
                    let pointer = format!("/document{}", reference.path);
                    let place = self.place(&document.file, |read| read.at(&pointer));
                    let finding = if is_error {
                        Finding::error(&document.file, message)
                    } else {
                        Finding::warning(&document.file, message)
                    };
                    findings.push(finding.at(place).hint(hint));
                }
            }
        }
        self.findings.append(&mut findings);
    }

    /// What may be wrong with a reference, and whether it certainly is.
    fn doubt(
        &self,
        tree: &Tree,
        reference: &db::Reference,
    ) -> Option<(bool, String, Option<String>)> {
        if self.kinds.get(&reference.kind).is_err() {
            let hint = did_you_mean(&reference.kind, self.kinds.iter().map(|kind| kind.name));
            let message = format!("there is no kind {:?}", reference.kind);
            return Some((true, message, hint));
        }
        let key = Key {
            kind: reference.kind.clone(),
            name: reference.name.clone(),
        };
        let Some(entry) = tree.names.get(&key) else {
            let names = tree.names.keys().filter(|known| known.kind == key.kind);
            let hint = did_you_mean(key.name.as_str(), names.map(|known| known.name.as_str()));
            let message = format!("{key} is not in the tree; the project must have it already");
            return Some((false, message, hint));
        };
        match &reference.selector {
            Selector::Label(label) if !entry.pointers.contains_key(label) => {
                let hint = did_you_mean(label.as_str(), entry.pointers.keys().map(Label::as_str));
                let message = format!("{key} has no label {} in the tree", label.as_str());
                Some((false, message, hint))
            }
            Selector::Digest(digest) if entry.documents().all(|known| known.digest != *digest) => {
                let message = format!("no file of {key} has {digest}");
                Some((false, message, None))
            }
            Selector::Number(number) => {
                let message = format!(
                    "version {number} of {key} may be another one elsewhere; name a label or a digest"
                );
                Some((false, message, None))
            }
            _ => None,
        }
    }
}

/// One document's file, read.
struct DocumentFile {
    document: TreeDocument,
    tags: Vec<String>,
    pointers: Vec<(String, String)>,
}

/// A TOML file and the text beside it.
struct Found<'a> {
    file: &'a str,
    source: &'a str,
    read: &'a Read,
    text_file: Option<&'a str>,
    text: Option<&'a String>,
}

impl Found<'_> {
    fn document(&self, kind: &Kind, pin: Option<&str>) -> (Option<DocumentFile>, Vec<Finding>) {
        let mut findings = Vec::new();
        let root = match &self.read.value {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        let known: &[&str] = match pin {
            None => &["tags", "pointers", "document"],
            Some(_) => &["document"],
        };
        for key in root.keys().filter(|key| !known.contains(&key.as_str())) {
            findings.push(self.unknown_key(key, pin.is_some(), known));
        }
        let tags = self.tags(root.get("tags"), &mut findings);
        let pointers = self.pointer_texts(root.get("pointers"), &mut findings);
        let mut content = match root.get("document") {
            Some(content) => content.clone(),
            None if self.text.is_some() => Value::Object(Map::new()),
            None => {
                findings.push(Finding::error(self.file, "the table [document] is missing"));
                return (None, findings);
            }
        };
        if let (Some(text), Some(rules)) = (self.text, &kind.text)
            && let Err(problem) = (rules.join)(&mut content, text)
        {
            findings.push(self.locate(&problem.path, in_words(&problem)));
            return (None, findings);
        }
        findings.extend(self.check(kind, &content));
        if has_errors(&findings) {
            return (None, findings);
        }
        let (content, digest) = match kept(kind, &content) {
            Ok(kept) => kept,
            Err(why) => {
                findings.push(Finding::error(self.file, why));
                return (None, findings);
            }
        };
        if let Some(pin) = pin.filter(|pin| *pin != pin_of(&digest)) {
            let message = format!(
                "the document is {digest} and no longer the one that the file's name says (@{pin})"
            );
            let hint = "a changed document belongs into the file without @; this one stays as it is or goes";
            findings.push(Finding::error(self.file, message).hint(Some(hint.to_owned())));
            return (None, findings);
        }
        let references = (kind.references)(&content);
        let blobs = (kind.blobs)(&content);
        let document = TreeDocument {
            content,
            digest,
            file: self.file.to_owned(),
            references,
            blobs,
        };
        let file = DocumentFile {
            document,
            tags,
            pointers,
        };
        (Some(file), findings)
    }

    fn unknown_key(&self, key: &str, pinned: bool, known: &[&str]) -> Finding {
        let place = line_and_column(self.source, self.read.key_at(&format!("/{}", step(key))));
        let (message, hint) = if pinned && matches!(key, "tags" | "pointers") {
            let message = format!("{key} belongs into the file without @");
            (message, None)
        } else {
            let hint = did_you_mean(key, known.iter().copied()).unwrap_or_else(|| {
                format!(
                    "the keys are {}; a document's own keys stand below [document]",
                    known.join(", ")
                )
            });
            (format!("unknown key {key:?}"), Some(hint))
        };
        Finding::error(self.file, message).at(place).hint(hint)
    }

    fn tags(&self, value: Option<&Value>, findings: &mut Vec<Finding>) -> Vec<String> {
        let Some(value) = value else {
            return Vec::new();
        };
        let texts: Option<Vec<String>> = value.as_array().and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect()
        });
        let Some(texts) = texts else {
            findings.push(self.locate_toml("/tags", "tags are a list of texts"));
            return Vec::new();
        };
        match db::catalog::clean_tags(&texts) {
            Ok(tags) => tags,
            Err(db::CatalogError::Invalid(problems)) => {
                let problems = problems.iter();
                findings.extend(
                    problems.map(|problem| self.locate_toml(&problem.path, &problem.message)),
                );
                Vec::new()
            }
            Err(error) => {
                findings.push(self.locate_toml("/tags", &error.to_string()));
                Vec::new()
            }
        }
    }

    fn pointer_texts(
        &self,
        value: Option<&Value>,
        findings: &mut Vec<Finding>,
    ) -> Vec<(String, String)> {
        let Some(value) = value else {
            return Vec::new();
        };
        let Some(map) = value.as_object() else {
            findings.push(self.locate_toml("/pointers", "pointers is a table: label = \"this\""));
            return Vec::new();
        };
        let mut pointers = Vec::new();
        for (label, target) in map {
            match target.as_str() {
                Some(target) => pointers.push((label.clone(), target.to_owned())),
                None => {
                    let message = "a label points to a text: \"this\" or a digest";
                    findings.push(self.locate_toml(&format!("/pointers/{}", step(label)), message));
                }
            }
        }
        pointers
    }

    /// Unknown keys first: they have the better words, and the check stops at the first of them.
    fn check(&self, kind: &Kind, content: &Value) -> Vec<Finding> {
        let Err(problems) = (kind.validate)(content) else {
            return Vec::new();
        };
        let unknown = unknown_keys(&(kind.schema)(), content);
        let mut findings: Vec<Finding> = unknown
            .iter()
            .map(|unknown| {
                let pointer = format!("/document{}", unknown.pointer);
                let place = line_and_column(self.source, self.read.key_at(&pointer));
                let hint = unknown
                    .suggestion
                    .as_ref()
                    .map(|near| format!("did you mean {near}?"));
                Finding::error(self.file, format!("unknown key {:?}", unknown.key))
                    .at(place)
                    .hint(hint)
            })
            .collect();
        let told = |problem: &&db::Problem| {
            unknown.is_empty() || !problem.message.contains("unknown field")
        };
        findings.extend(
            problems
                .iter()
                .filter(told)
                .map(|problem| self.locate(&problem.path, problem.message.clone())),
        );
        findings
    }

    /// A problem at a JSON Pointer into the document: in the TOML file, or in the text beside it.
    fn locate(&self, pointer: &str, message: String) -> Finding {
        let in_toml = format!("/document{pointer}");
        if self.read.has(&in_toml) && !pointer.is_empty() {
            return self.locate_toml(&in_toml, &message);
        }
        if let (Some(file), Some(text)) = (self.text_file, self.text)
            && let Some(line) = text::line_of(text, pointer)
        {
            let within = pointer
                .strip_prefix("/messages/")
                .and_then(|rest| rest.split_once('/'))
                .is_none()
                && !pointer.starts_with("line ")
                && pointer != "/template";
            let message = if within {
                format!("{pointer}: {message}")
            } else {
                message
            };
            return Finding::error(file, message).on_line(line);
        }
        let message = if pointer.is_empty() || self.read.has(&in_toml) {
            message
        } else {
            format!("{pointer}: {message}")
        };
        self.locate_toml(&in_toml, &message)
    }

    fn locate_toml(&self, pointer: &str, message: &str) -> Finding {
        let place = line_and_column(self.source, self.read.at(pointer));
        Finding::error(self.file, message).at(place)
    }
}

/// A document as the catalog keeps it, and its identity.
pub(super) fn kept(kind: &Kind, content: &Value) -> Result<(Value, Digest), String> {
    let bytes = base::canonical_json(&(kind.normal)(content)).map_err(|error| error.to_string())?;
    let content = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok((content, Digest::of(&bytes)))
}
