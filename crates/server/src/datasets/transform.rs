//! Preparing the texts of a dataset: one field of every example goes through steps of
//! `crates/eval`, is looked at, or is marked. A preview first, then a new version.
//!
//! Texts are never changed silently: the version says what was done in its message, an
//! example that would be empty afterwards is told, and examples that do not change keep
//! their place and their chunk. Marks follow their text where it still stands.

use std::collections::BTreeMap;

use db::Scope;
use db::catalog::Name;
use eval::{Resources, Transform};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::document::Checks;
use super::edit::Touched;
use super::example::{Example, Mark};
use super::marking;
use super::{Datasets, Saved, SplitFilter, wrong_example};
use crate::error::{AppError, Result};

/// Steps of one transform.
const MOST_STEPS: usize = 20;
/// Examples of a preview.
const MOST_SHOWN: usize = 100;
/// Examples that a preview counts over, so that it answers at once.
const COUNTED: u64 = 20_000;

/// What is done to the examples of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "DatasetTransform")]
pub struct TransformRequest {
    /// Which text, as a JSON Pointer into an example: `/input`, `/input/question`, `/expected`,
    /// `/context`, `/metadata/title`. Every text below it is taken, but not the roles of messages.
    pub field: String,
    /// Steps that change the text, in order: `nfkc`, `lower`, `whitespace`, `punctuation`,
    /// `tokenise:NAME`, `base-form`, `stem:porter`, `stem:LANGUAGE`, `stop-words:en`,
    /// `remove-words:A,B`, `cut:N`.
    pub steps: Vec<String>,
    /// Where the changed text goes, as a metadata field; in the place of the text when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Facts about the text that are written as metadata: `language`, `characters`, `graphemes`,
    /// `words`, `unique_words`, `sentences`, `lines`, `bytes`, or `tokens:NAME` by a tokeniser.
    pub facts: Vec<String>,
    /// What is marked in the text: `email`, `phone`.
    pub mark: Vec<String>,
    /// Only the examples of this split; `~none` for those in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// What a transform would do.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TransformPreview {
    /// The version that was looked at.
    pub version: i64,
    /// The first examples that have the field.
    pub items: Vec<PreviewItem>,
    /// How many examples were looked at; all of them, unless there are very many.
    pub examples: u64,
    /// How many of them have the field.
    pub with_field: u64,
    /// How many would change.
    pub changed: u64,
    /// How many would have no text left in the field.
    pub emptied: u64,
    /// How many places would be marked, by kind.
    pub marks: BTreeMap<String, u64>,
    /// How the texts would be spread: by language, where that was asked for.
    pub languages: BTreeMap<String, u64>,
    /// Lengths in characters before and after: the least, the median, the mean and the most.
    pub before: Lengths,
    /// The same afterwards.
    pub after: Lengths,
}

/// How long texts are, in characters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "TextLengths")]
pub struct Lengths {
    /// The shortest.
    pub least: u64,
    /// Half of them are at most this long.
    pub median: u64,
    /// The mean.
    pub mean: f64,
    /// The longest.
    pub most: u64,
}

/// One example before and after.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "TransformPreviewItem")]
pub struct PreviewItem {
    /// The example.
    pub id: String,
    /// Its text.
    pub before: String,
    /// What would be there.
    pub after: String,
    /// Facts and marks that would be written.
    pub metadata: Map<String, Value>,
    /// Places that would be marked.
    pub marks: Vec<Mark>,
}

/// A transform that was understood.
struct Prepared {
    pointer: Vec<String>,
    steps: Vec<Transform>,
    into: Option<String>,
    facts: Vec<Fact>,
    detectors: Vec<marking::Detector>,
    split: Option<SplitFilter>,
    resources: Resources,
}

enum Fact {
    Language,
    Count(&'static str),
    Tokens(String, Box<Transform>),
}

const COUNTS: [&str; 7] = [
    "bytes",
    "characters",
    "graphemes",
    "words",
    "unique_words",
    "sentences",
    "lines",
];

impl TransformRequest {
    /// What it does, in a line, for the history.
    fn summary(&self) -> String {
        let mut parts = self.steps.clone();
        parts.extend(self.facts.iter().map(|fact| format!("fact {fact}")));
        parts.extend(self.mark.iter().map(|kind| format!("mark {kind}")));
        let target = self
            .into
            .as_ref()
            .map(|into| format!(" → /metadata/{into}"));
        format!(
            "{}{}: {}",
            self.field,
            target.unwrap_or_default(),
            parts.join(", ")
        )
    }

    fn prepare(&self, resources: Resources) -> Result<Prepared> {
        let pointer = pointer(&self.field)?;
        if self.steps.is_empty() && self.facts.is_empty() && self.mark.is_empty() {
            return Err(AppError::invalid("choose a step, a fact or a mark").at("steps"));
        }
        if self.steps.len() + self.facts.len() + self.mark.len() > MOST_STEPS {
            let message = format!("a transform has at most {MOST_STEPS} steps");
            return Err(AppError::invalid(message).at("steps"));
        }
        let step = |(index, name): (usize, &String)| {
            parse_step(name, &format!("steps[{index}]"), &resources)
        };
        let steps: Vec<Transform> = self
            .steps
            .iter()
            .enumerate()
            .map(step)
            .collect::<Result<_>>()?;
        let fact = |(index, name): (usize, &String)| {
            parse_fact(name, &format!("facts[{index}]"), &resources)
        };
        let facts: Vec<Fact> = self
            .facts
            .iter()
            .enumerate()
            .map(fact)
            .collect::<Result<_>>()?;
        let detector = |(index, name): (usize, &String)| {
            marking::Detector::parse(name).ok_or_else(|| {
                let known = marking::Detector::NAMES.join(", ");
                AppError::invalid(format!("nothing marks {name:?}; there are {known}"))
                    .at(format!("mark[{index}]"))
            })
        };
        let detectors = self
            .mark
            .iter()
            .enumerate()
            .map(detector)
            .collect::<Result<_>>()?;
        if let Some(into) = &self.into {
            let clean =
                !into.trim().is_empty() && into.chars().count() <= 100 && !into.contains('\0');
            if !clean || self.steps.is_empty() {
                let message = "a metadata field has a name of 1 to 100 characters, and steps whose text goes there";
                return Err(AppError::invalid(message).at("into"));
            }
        }
        Ok(Prepared {
            pointer,
            steps,
            into: self.into.clone(),
            facts,
            detectors,
            split: self
                .split
                .as_deref()
                .filter(|split| !split.is_empty())
                .map(SplitFilter::parse),
            resources,
        })
    }
}

fn pointer(field: &str) -> Result<Vec<String>> {
    let parts = field.strip_prefix('/').map(|rest| {
        let unescape = |part: &str| part.replace("~1", "/").replace("~0", "~");
        rest.split('/').map(unescape).collect::<Vec<String>>()
    });
    let first = parts.as_ref().and_then(|parts| parts.first());
    let known = ["input", "expected", "context", "metadata"];
    match parts {
        Some(ref parts) if first.is_some_and(|first| known.contains(&first.as_str())) => {
            Ok(parts.clone())
        }
        _ => {
            let message = "name the text by a pointer: /input, /input/question, /expected, /context or /metadata/FIELD";
            Err(AppError::invalid(message).at("field"))
        }
    }
}

fn parse_step(name: &str, at: &str, resources: &Resources) -> Result<Transform> {
    let step: Transform = name
        .trim()
        .parse()
        .map_err(|error: eval::text::TransformError| AppError::invalid(error.to_string()).at(at))?;
    // What is missing is told now and not in the middle of a dataset.
    step.apply("", resources)
        .map_err(|error| AppError::invalid(error.to_string()).at(at))?;
    Ok(step)
}

fn parse_fact(name: &str, at: &str, resources: &Resources) -> Result<Fact> {
    let name = name.trim();
    if name == "language" {
        return Ok(Fact::Language);
    }
    if let Some(known) = COUNTS.iter().find(|known| **known == name) {
        return Ok(Fact::Count(known));
    }
    match name.strip_prefix("tokens:") {
        Some(tokeniser) => {
            let step = parse_step(&format!("tokenise:{tokeniser}"), at, resources)?;
            Ok(Fact::Tokens(tokeniser.to_owned(), Box::new(step)))
        }
        None => {
            let known = COUNTS.join(", ");
            let message =
                format!("no fact is called {name:?}; there are language, {known} and tokens:NAME");
            Err(AppError::invalid(message).at(at))
        }
    }
}

/// What became of one example.
struct Done {
    before: String,
    after: String,
    example: Example,
    written: Map<String, Value>,
    marks: Vec<Mark>,
}

impl Prepared {
    fn takes(&self, example: &Example) -> bool {
        let split = example.split.as_deref();
        self.split.as_ref().is_none_or(|wanted| wanted.takes(split))
    }

    /// The example afterwards; `None` where it has no such text.
    fn run(&self, example: &Example) -> Result<Option<Done>> {
        let whole = serde_json::to_value(example).map_err(AppError::internal)?;
        let mut texts: Vec<(String, String)> = Vec::new();
        if let Some(value) = find(&whole, &self.pointer) {
            let at = format!(
                "/{}",
                self.pointer
                    .iter()
                    .map(|part| escape(part))
                    .collect::<Vec<_>>()
                    .join("/")
            );
            collect(value, &at, &mut texts);
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let mut changed: Vec<(String, String)> = Vec::new();
        for (at, text) in &texts {
            changed.push((at.clone(), self.prepared_text(text)?));
        }
        let join = |texts: &[(String, String)]| {
            let texts: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
            texts.join("\n")
        };
        let (before, after) = (join(&texts), join(&changed));
        let mut new = example.clone();
        let mut written = Map::new();
        if let Some(into) = &self.into {
            written.insert(into.clone(), json!(after));
        } else if !self.steps.is_empty() {
            let mut value = whole;
            for (at, text) in &changed {
                if let Some(place) = value.pointer_mut(at) {
                    *place = Value::String(text.clone());
                }
            }
            // Marks are of the old text; those whose text still stands are carried over.
            if let Some(map) = value.as_object_mut() {
                map.remove("marks");
            }
            new = serde_json::from_value(value).map_err(AppError::internal)?;
            new.inherit_marks(example);
        }
        self.facts(&after, &mut written);
        let stands = if self.into.is_none() {
            &changed
        } else {
            &texts
        };
        let marks = self.marks(stands, &new.marks);
        if !marks.is_empty() {
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            // Those that were marked before count, too.
            let all = new.marks.iter().chain(&marks);
            for mark in all.filter(|mark| marking::Detector::parse(&mark.kind).is_some()) {
                *counts.entry(&mark.kind).or_default() += 1;
            }
            written.insert("personal_data".to_owned(), json!(counts));
        }
        new.metadata.extend(written.clone());
        new.marks.extend(marks.clone());
        Ok(Some(Done {
            before,
            after,
            example: new,
            written,
            marks,
        }))
    }

    fn prepared_text(&self, text: &str) -> Result<String> {
        let mut text = text.to_owned();
        for step in &self.steps {
            text = step
                .apply(&text, &self.resources)
                .map_err(|error| AppError::invalid(error.to_string()).at("steps"))?;
        }
        Ok(text)
    }

    fn facts(&self, text: &str, written: &mut Map<String, Value>) {
        let counts = eval::text::text_statistics(text);
        let counts = serde_json::to_value(counts).unwrap_or_default();
        for fact in &self.facts {
            match fact {
                Fact::Language => {
                    let found = eval::text::detect_language(text);
                    written.insert("language".to_owned(), json!(found.map(|found| found.code)));
                }
                Fact::Count(name) => {
                    let name = *name;
                    written.insert(name.to_owned(), counts[name].clone());
                }
                Fact::Tokens(name, step) => {
                    let tokens = step.apply(text, &self.resources).unwrap_or_default();
                    let count = tokens.split_whitespace().count();
                    written.insert(format!("tokens_{name}"), json!(count));
                }
            }
        }
    }

    /// Places that are not marked so already.
    fn marks(&self, texts: &[(String, String)], known: &[Mark]) -> Vec<Mark> {
        let mut found = Vec::new();
        for (at, text) in texts {
            for detector in &self.detectors {
                let marks = detector.find(text).into_iter().map(|span| Mark {
                    kind: detector.name().to_owned(),
                    path: at.clone(),
                    start: span.start,
                    end: span.end,
                });
                found.extend(marks.filter(|mark| !known.contains(mark)));
            }
        }
        found
    }
}

fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn find<'a>(value: &'a Value, parts: &[String]) -> Option<&'a Value> {
    parts.iter().try_fold(value, |value, part| match value {
        Value::Object(map) => map.get(part),
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Every text below a value with its place.
fn collect(value: &Value, at: &str, out: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => out.push((at.to_owned(), text.clone())),
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                collect(item, &format!("{at}/{index}"), out);
            }
        }
        Value::Object(map) => {
            for (key, item) in map.iter().filter(|(key, _)| key.as_str() != "role") {
                collect(item, &format!("{at}/{}", escape(key)), out);
            }
        }
        _ => {}
    }
}

fn lengths(mut counts: Vec<u64>) -> Lengths {
    counts.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "counts of characters")]
    let mean = match counts.len() {
        0 => 0.0,
        length => counts.iter().sum::<u64>() as f64 / length as f64,
    };
    Lengths {
        least: counts.first().copied().unwrap_or(0),
        median: counts
            .get(counts.len().saturating_sub(1) / 2)
            .copied()
            .unwrap_or(0),
        mean,
        most: counts.last().copied().unwrap_or(0),
    }
}

impl Datasets {
    /// What a transform would do, with the first examples before and after.
    ///
    /// # Errors
    /// There is no such dataset, or the transform is wrong.
    pub async fn preview_transform(
        &self,
        scope: Scope,
        name: &Name,
        request: &TransformRequest,
        shown: usize,
        resources: Resources,
    ) -> Result<TransformPreview> {
        let base = self.latest(scope, name).await?;
        let prepared = request.prepare(resources)?;
        let shown = shown.clamp(1, MOST_SHOWN);
        let mut preview = TransformPreview {
            version: base.version.number,
            items: Vec::new(),
            examples: 0,
            with_field: 0,
            changed: 0,
            emptied: 0,
            marks: BTreeMap::new(),
            languages: BTreeMap::new(),
            before: Lengths::default(),
            after: Lengths::default(),
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut reading = self.reading(scope, &base)?;
        while let Some(examples) = reading.next().await? {
            let taken = examples.iter().filter(|example| prepared.takes(example));
            for example in taken {
                preview.examples += 1;
                let Some(done) = prepared.run(example)? else {
                    continue;
                };
                preview.count(example, &done);
                before.push(done.before.chars().count() as u64);
                after.push(done.after.chars().count() as u64);
                if preview.items.len() < shown {
                    preview.items.push(PreviewItem {
                        id: example.id.clone(),
                        before: done.before,
                        after: done.after,
                        metadata: done.written,
                        marks: done.marks,
                    });
                }
            }
            if preview.examples >= COUNTED {
                break;
            }
            tokio::task::yield_now().await;
        }
        preview.before = lengths(before);
        preview.after = lengths(after);
        Ok(preview)
    }

    /// Makes a version with every example as the transform leaves it. The number of examples
    /// that have no such text comes with it: they stay as they were.
    ///
    /// # Errors
    /// The transform is wrong, an example does not hold to the dataset's schemas afterwards
    /// (nothing is saved then), or somebody else saved first.
    pub async fn transform(
        &self,
        scope: Scope,
        name: &Name,
        request: &TransformRequest,
        base_version: Option<i64>,
        resources: Resources,
    ) -> Result<Saved> {
        let base = self.latest(scope, name).await?;
        if let Some(wanted) = base_version.filter(|wanted| *wanted != base.version.number) {
            return Err(super::edit::saved_meanwhile(
                name,
                wanted,
                base.version.number,
            ));
        }
        let prepared = request.prepare(resources)?;
        let checks = Checks::build(&base.document).map_err(db::CatalogError::Invalid)?;
        let chunks = self.chunks(scope)?;
        let (mut writer, mut touched) = (chunks.writer(), Touched::default());
        for chunk in &base.document.chunks {
            let examples = chunks.read(chunk).await?;
            let mut done = Vec::with_capacity(examples.len());
            let mut any = false;
            for example in examples {
                let new = match prepared.takes(&example) {
                    true => prepared.run(&example)?.map(|done| done.example),
                    false => None,
                };
                let new = new.filter(|new| *new != example);
                if let Some(new) = &new {
                    any = true;
                    touched.changed += 1;
                    let place = format!("example {:?}", new.id);
                    checks
                        .check(new)
                        .map_err(|problem| wrong_example(&place, &problem))?;
                }
                done.push(new.unwrap_or(example));
            }
            if !any {
                writer.keep(chunk).await?;
                continue;
            }
            for example in &done {
                writer
                    .push(example)
                    .await
                    .map_err(|error| error.at(&example.id))?;
            }
        }
        let document = base.document.with_chunks(writer.finish().await?);
        let message = request.summary();
        let message = base::text::cut_bytes(&message, 500);
        let saved = self
            .save_version(scope, name, document.clone(), message, Some(&base))
            .await?;
        Ok(Saved::of(name, &document, &saved, touched, Vec::new()))
    }
}

impl TransformPreview {
    fn count(&mut self, example: &Example, done: &Done) {
        self.with_field += 1;
        self.changed += u64::from(done.example != *example);
        self.emptied += u64::from(!done.before.trim().is_empty() && done.after.trim().is_empty());
        for mark in &done.marks {
            *self.marks.entry(mark.kind.clone()).or_default() += 1;
        }
        if let Some(language) = done.written.get("language") {
            let language = language.as_str().unwrap_or("–").to_owned();
            *self.languages.entry(language).or_default() += 1;
        }
    }
}
