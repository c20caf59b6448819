//! Edits: from one version of a dataset to the next.
//!
//! All or nothing, and never on top of something that the editor did not see: the
//! version that was edited must still be the newest when the new one is saved.
//! Without a named base the edit is made again on the newest version.

use std::collections::{HashMap, HashSet};

use db::catalog::{Name, Selector};
use db::{NewVersion, SavedVersion, Scope, WriteTx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::chunks::{ChunkWriter, id_hash, wrong_example};
use super::document::{Checks, Chunk, DatasetDocument, Fields};
use super::example::Example;
use super::{Datasets, Found, KIND};
use crate::error::{AppError, Result};

/// How often an edit without a base is made again when somebody else saves first.
const TRIES: usize = 5;

/// What changes about a dataset's examples.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// Examples to add, or to replace where their id is there already.
    pub put: Vec<Example>,
    /// Merge patches (RFC 7396), each with the `id` of the example that it changes.
    pub patch: Vec<Map<String, Value>>,
    /// Ids of examples to remove.
    pub remove: Vec<String>,
    /// What changes about the dataset itself.
    pub describe: Describe,
    /// Why, for the history.
    pub message: String,
    /// The version that was edited; another newest version is a conflict. Without it the
    /// edit applies to whatever is newest.
    pub base: Option<i64>,
}

/// What changes about a dataset itself; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Describe {
    /// What the dataset is for.
    pub description: Option<String>,
    /// JSON Schemas of the fields; every example must hold to them.
    pub fields: Option<Fields>,
    /// The labels that `expected` may be.
    pub labels: Option<Vec<String>>,
    /// Anything else about it.
    pub metadata: Option<Value>,
}

impl Describe {
    fn apply(&self, document: &mut DatasetDocument) {
        if let Some(description) = &self.description {
            document.description.clone_from(description);
        }
        if let Some(fields) = &self.fields {
            document.fields = fields.clone();
        }
        if let Some(labels) = &self.labels {
            document.labels.clone_from(labels);
        }
        if let Some(metadata) = &self.metadata {
            document.metadata = Some(metadata.clone()).filter(|metadata| !metadata.is_null());
        }
    }
}

/// What a save did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "SavedDataset")]
pub struct Saved {
    /// The dataset.
    pub name: String,
    /// The version that holds the examples now.
    pub version: i64,
    /// Its identity.
    pub digest: String,
    /// True when nothing was different and no version was made.
    pub already_existed: bool,
    /// How many examples it has.
    pub count: u64,
    /// How many were added.
    pub added: u64,
    /// How many were changed.
    pub changed: u64,
    /// How many were removed.
    pub removed: u64,
    /// The ids of the examples that were put, in order, at most 10,000.
    pub ids: Vec<String>,
}

/// How many examples an edit touched.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
}

const MAX_IDS: usize = 10_000;

impl Datasets {
    /// Makes a dataset.
    ///
    /// # Errors
    /// The name is in use, or an example is wrong.
    pub async fn create(&self, scope: Scope, name: &Name, edits: Edits) -> Result<Saved> {
        if self.find_latest(scope, name).await?.is_some() {
            let refusal = AppError::conflict(format!("there is a dataset {name} already"));
            return Err(refusal.code("dataset_exists").at("name"));
        }
        self.save_edits(scope, name, edits, None).await
    }

    /// Saves the next version of a dataset.
    ///
    /// # Errors
    /// There is no such dataset or example, somebody else saved first, or an example is wrong.
    pub async fn edit(&self, scope: Scope, name: &Name, edits: Edits) -> Result<Saved> {
        for attempt in 1.. {
            let base = self.latest(scope, name).await?;
            if let Some(wanted) = edits.base.filter(|wanted| *wanted != base.version.number) {
                return Err(saved_meanwhile(name, wanted, base.version.number));
            }
            match self
                .save_edits(scope, name, edits.clone(), Some(base))
                .await
            {
                Err(error)
                    if error.code == MEANWHILE && edits.base.is_none() && attempt < TRIES => {}
                done => return done,
            }
        }
        Err(AppError::conflict("the dataset changes all the time"))
    }

    async fn save_edits(
        &self,
        scope: Scope,
        name: &Name,
        edits: Edits,
        base: Option<Found>,
    ) -> Result<Saved> {
        let mut document = base
            .as_ref()
            .map(|base| base.document.clone())
            .unwrap_or_default();
        let before = document.clone();
        edits.describe.apply(&mut document);
        let problems = document.description_problems();
        if !problems.is_empty() {
            return Err(db::CatalogError::Invalid(problems).into());
        }
        let checks = Checks::build(&document).map_err(db::CatalogError::Invalid)?;
        // Rules that are new hold for the examples that were there before, too.
        let recheck = (before.fields != document.fields || before.labels != document.labels)
            && !checks.is_empty();
        let message = edits.message.clone();
        let mut run = Run::new(self, scope, edits, &checks)?;
        let mut writer = self.chunks(scope)?.writer();
        for (index, chunk) in before.chunks.iter().enumerate() {
            let is_last = index + 1 == before.chunks.len();
            run.chunk(self, scope, chunk, is_last, recheck, &mut writer)
                .await?;
        }
        run.append(&mut writer).await?;
        let document = document.with_chunks(writer.finish().await?);
        let saved = self
            .save_version(scope, name, document.clone(), &message, base.as_ref())
            .await?;
        Ok(run.saved(name, &document, &saved))
    }

    /// Saves a document whose chunks are written, if `base` is still the newest version.
    pub(super) async fn save_version(
        &self,
        scope: Scope,
        name: &Name,
        mut document: DatasetDocument,
        message: &str,
        base: Option<&Found>,
    ) -> Result<SavedVersion> {
        let mut tx = self.db.begin_write().await?;
        tx.serialise().await?;
        let newest = self
            .catalog
            .version_in(&mut tx, scope, KIND, name, &Selector::Latest)
            .await?;
        let newest = newest.map(|newest| newest.version);
        if let Some(base) = base
            && newest.as_ref().map(|newest| newest.number) != Some(base.version.number)
        {
            let now = newest.map_or(0, |newest| newest.number);
            return Err(saved_meanwhile(name, base.version.number, now));
        }
        if let Some(base) = base {
            // The same examples with the same description are the same version.
            document.after = base.document.after;
            if document != base.document {
                document.after = None;
            }
        }
        let mut saved = self
            .save_in(&mut tx, scope, name, &document, message)
            .await?;
        if saved.already_existed
            && let Some(newest) = newest.filter(|newest| newest.number != saved.version.number)
        {
            // Back to what an older version held: a version of its own all the same.
            document.after = Some(newest.digest);
            saved = self
                .save_in(&mut tx, scope, name, &document, message)
                .await?;
        }
        tx.commit().await?;
        Ok(saved)
    }

    async fn save_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        name: &Name,
        document: &DatasetDocument,
        message: &str,
    ) -> Result<SavedVersion> {
        let content = document.to_value();
        let new = NewVersion {
            kind: KIND,
            name,
            content: &content,
            message,
        };
        Ok(self.catalog.save_made_in(tx, scope, new).await?)
    }
}

const MEANWHILE: &str = "saved_meanwhile";

pub(super) fn saved_meanwhile(name: &Name, base: i64, now: i64) -> AppError {
    let message =
        format!("somebody else saved {name} first: version {base} was edited, {now} is the newest");
    AppError::conflict(message)
        .code(MEANWHILE)
        .hint("look at the newest version and edit that")
        .at("base")
}

/// One pass over the chunks of a version.
struct Run<'a> {
    checks: &'a Checks,
    /// By id: the place in the request and the example.
    puts: HashMap<String, (usize, Example)>,
    patches: HashMap<String, (usize, Map<String, Value>)>,
    removes: HashMap<String, usize>,
    hashes: HashSet<u64>,
    ids: Vec<String>,
    touched: Touched,
}

impl<'a> Run<'a> {
    fn new(datasets: &Datasets, scope: Scope, edits: Edits, checks: &'a Checks) -> Result<Self> {
        let mut run = Self {
            checks,
            puts: HashMap::new(),
            patches: HashMap::new(),
            removes: HashMap::new(),
            hashes: HashSet::new(),
            ids: Vec::new(),
            touched: Touched::default(),
        };
        for (index, mut example) in edits.put.into_iter().enumerate() {
            let place = format!("/put/{index}");
            datasets.complete(scope, &mut example);
            if run.ids.len() < MAX_IDS {
                run.ids.push(example.id.clone());
            }
            run.claim(&example.id, &place)?;
            run.puts.insert(example.id.clone(), (index, example));
        }
        for (index, mut patch) in edits.patch.into_iter().enumerate() {
            let place = format!("/patch/{index}");
            let Some(Value::String(id)) = patch.remove("id") else {
                let refusal =
                    AppError::invalid(format!("{place}: a patch names an example by its id"));
                return Err(refusal.at(format!("{place}/id")));
            };
            run.claim(&id, &place)?;
            run.patches.insert(id, (index, patch));
        }
        for (index, id) in edits.remove.into_iter().enumerate() {
            run.claim(&id, &format!("/remove/{index}"))?;
            run.removes.insert(id, index);
        }
        Ok(run)
    }

    /// Each example is edited once.
    fn claim(&mut self, id: &str, place: &str) -> Result<()> {
        let is_known = self.puts.contains_key(id)
            || self.patches.contains_key(id)
            || self.removes.contains_key(id);
        if is_known {
            let refusal =
                AppError::invalid(format!("{place}: the example {id:?} is in this edit twice"));
            return Err(refusal.code("invalid_example").at(place));
        }
        self.hashes.insert(id_hash(id));
        Ok(())
    }

    async fn chunk(
        &mut self,
        datasets: &Datasets,
        scope: Scope,
        chunk: &Chunk,
        is_last: bool,
        recheck: bool,
        writer: &mut ChunkWriter,
    ) -> Result<()> {
        let chunks = datasets.chunks(scope)?;
        let is_touched = if self.hashes.is_empty() {
            false
        } else {
            chunks
                .ids(chunk)
                .await?
                .iter()
                .any(|id| self.hashes.contains(id))
        };
        // New examples fill the last chunk first, or a thousand small edits would make a thousand chunks.
        let is_filled_up = is_last
            && !self.puts.is_empty()
            && (chunk.count as usize) < super::document::CHUNK_EXAMPLES;
        if !is_touched && !is_filled_up && !recheck {
            return writer.keep(chunk).await;
        }
        let examples = chunks.read(chunk).await?;
        if recheck {
            for example in &examples {
                if !self.is_edited(&example.id) {
                    let place = format!("example {:?}", example.id);
                    self.checks
                        .check(example)
                        .map_err(|problem| wrong_example(&place, &problem))?;
                }
            }
            if !is_touched && !is_filled_up {
                return writer.keep(chunk).await;
            }
        }
        for example in examples {
            self.example(example, writer).await?;
        }
        Ok(())
    }

    fn is_edited(&self, id: &str) -> bool {
        self.puts.contains_key(id) || self.patches.contains_key(id) || self.removes.contains_key(id)
    }

    async fn example(&mut self, example: Example, writer: &mut ChunkWriter) -> Result<()> {
        if self.removes.remove(&example.id).is_some() {
            self.touched.removed += 1;
            return Ok(());
        }
        let (place, edited) = if let Some((index, mut put)) = self.puts.remove(&example.id) {
            put.inherit_marks(&example);
            if put.source.is_only_person() {
                // Whoever retypes an example does not become its origin.
                put.source = example.source.clone();
            }
            (format!("/put/{index}"), put)
        } else if let Some((index, patch)) = self.patches.remove(&example.id) {
            let place = format!("/patch/{index}");
            let patched = example
                .patched(&patch)
                .map_err(|problem| wrong_example(&place, &problem))?;
            (place, patched)
        } else {
            let place = format!("example {:?}", example.id);
            return writer
                .push(&example)
                .await
                .map_err(|error| error.at(&place));
        };
        if edited != example {
            self.touched.changed += 1;
        }
        self.write(&place, &edited, writer).await
    }

    async fn write(&self, place: &str, example: &Example, writer: &mut ChunkWriter) -> Result<()> {
        self.checks
            .check(example)
            .map_err(|problem| wrong_example(place, &problem))?;
        writer.push(example).await.map_err(|error| error.at(place))
    }

    async fn append(&mut self, writer: &mut ChunkWriter) -> Result<()> {
        let missing = self
            .patches
            .iter()
            .map(|(id, (index, _))| (format!("/patch/{index}"), id));
        let missing = missing.chain(
            self.removes
                .iter()
                .map(|(id, index)| (format!("/remove/{index}"), id)),
        );
        if let Some((place, id)) = missing.min() {
            let refusal = AppError::not_found(format!(
                "{place}: there is no example {id:?} in the newest version"
            ));
            return Err(refusal.code("no_such_example").at(place));
        }
        let mut new: Vec<(usize, Example)> = std::mem::take(&mut self.puts).into_values().collect();
        new.sort_by_key(|(index, _)| *index);
        for (index, example) in new {
            self.write(&format!("/put/{index}"), &example, writer)
                .await?;
            self.touched.added += 1;
        }
        Ok(())
    }

    fn saved(self, name: &Name, document: &DatasetDocument, saved: &SavedVersion) -> Saved {
        Saved::of(name, document, saved, self.touched, self.ids)
    }
}

impl Saved {
    pub(super) fn of(
        name: &Name,
        document: &DatasetDocument,
        saved: &SavedVersion,
        touched: Touched,
        ids: Vec<String>,
    ) -> Self {
        Self {
            name: name.as_str().to_owned(),
            version: saved.version.number,
            digest: saved.version.digest.to_string(),
            already_existed: saved.already_existed,
            count: document.count,
            added: touched.added,
            changed: touched.changed,
            removed: touched.removed,
            ids,
        }
    }
}

impl super::example::Source {
    fn is_only_person(&self) -> bool {
        self.person.is_some()
            && Self {
                person: None,
                ..self.clone()
            }
            .is_empty()
    }
}

impl Datasets {
    /// Gives a new example what it lacks: an id, and who made it.
    pub(super) fn complete(&self, scope: Scope, example: &mut Example) {
        if example.id.is_empty() {
            example.id = self.new_id();
        }
        if example.source.is_empty() {
            example.source.person = Some(scope.actor.to_string());
        }
        example.split = example.split.take().filter(|split| !split.is_empty());
    }

    /// A short id that nothing has.
    pub(super) fn new_id(&self) -> String {
        self.db.ids().make::<base::SpanId>().to_string()
    }
}
