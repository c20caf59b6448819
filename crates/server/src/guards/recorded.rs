//! What policies found in calls, as telemetry keeps it: spans of the kind `guard` below the calls,
//! each with the finds of one policy as its output.
//!
//! A find is known by its trace, its span and its number there, and never holds the text. The text
//! is the call's, and is shown only where the find's place in it can be told (`marks.rs`). What
//! kind of rule it was, and whether the rule is in shadow, is read from the very version of the
//! policy that ran.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use base::{Digest, ProjectId, SpanId, TraceId};
use guard::Policy;
use serde::Deserialize;
use serde_json::Value;
use telemetry::{Bodies, Body, BodyContent, Kind, QueryError, Reader, Score, Span};

use super::marks::{self, Found, Kept};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::traces::Ask;

/// Finds of one policy in one call; what is more than that was counted and not written down.
const KEPT_FINDS: usize = 200;
/// Spans of one query.
const PAGE: usize = 1_000;

/// A find, in the words of the record.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Find {
    /// The rule.
    pub rule_name: String,
    /// What found it.
    pub detector: String,
    /// What it is called in placeholders.
    pub label: String,
    /// `rules`, `linear`, `embedding` or `judge`.
    pub tier: String,
    /// First byte of the text that the policy read.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// How sure, 0 to 1.
    pub score: f64,
    /// How the text was read.
    pub view: String,
    /// Why, in words.
    pub reason: String,
    /// What was done.
    pub outcome: String,
    /// Where in a call: `input`, `output` …
    pub point: String,
    /// The field: `messages[0].content`.
    pub field: String,
}

/// What a rule is, in the version of the policy that ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleFacts {
    /// What it looks for: `pii`, `injection` …
    pub check: String,
    /// Whether it is only tried out.
    pub shadow: bool,
    /// What it does: `block`, `redact` …
    pub action: String,
    /// What it puts in the place of what it finds, if it replaces.
    pub replacement: Option<String>,
}

/// The rules of a version of a policy, by name.
pub type Rules = BTreeMap<String, RuleFacts>;

/// What one policy found in one call.
#[derive(Debug, Clone)]
pub struct Guarded {
    /// The trace.
    pub trace_id: TraceId,
    /// The guard's own span.
    pub span_id: SpanId,
    /// The call that it watched.
    pub call: Option<SpanId>,
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// The policy.
    pub policy: String,
    /// Its version.
    pub version: i64,
    /// The version's identity.
    pub digest: Option<Digest>,
    /// The strongest thing that it did: `flagged`, `edited`, `blocked`.
    pub decision: String,
    /// The rules that found something.
    pub found_by: Vec<String>,
    /// How long its rules took.
    pub took_us: u64,
    /// The application's user.
    pub user: Option<String>,
    /// The environment.
    pub environment: String,
    /// What the rules are; empty if the version is gone.
    pub rules: Arc<Rules>,
    /// What was found, where it was asked for.
    pub finds: Vec<Find>,
    /// Current scores of the guard's span, where they were asked for.
    pub scores: Vec<Score>,
}

impl Guarded {
    /// A span of the kind `guard`.
    pub fn of(span: &Span) -> Option<Self> {
        let used = span
            .attrs
            .get("guard")
            .filter(|_| span.kind == Kind::Guard)?;
        let word = |field: &str| used.get(field).and_then(Value::as_str).unwrap_or_default();
        let names = used.get("rules").and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        Some(Self {
            trace_id: span.trace_id,
            span_id: span.span_id,
            call: span.parent,
            at_us: span.start_us,
            policy: word("policy").to_owned(),
            version: used.get("version").and_then(Value::as_i64).unwrap_or(0),
            digest: word("digest").parse().ok(),
            decision: word("decision").to_owned(),
            found_by: names.map(str::to_owned).collect(),
            took_us: used.get("took_us").and_then(Value::as_u64).unwrap_or(0),
            user: span.user_ref.clone(),
            environment: span.environment.clone(),
            rules: Arc::default(),
            finds: Vec::new(),
            scores: Vec::new(),
        })
    }

    /// What is known of a rule.
    pub fn rule(&self, name: &str) -> Option<&RuleFacts> {
        self.rules.get(name)
    }

    /// Whether a rule that is in force found anything.
    pub fn is_enforced(&self) -> bool {
        let is_shadow = |name: &String| self.rule(name).is_some_and(|rule| rule.shadow);
        !self.found_by.iter().all(is_shadow)
    }

    /// Reads the finds themselves.
    ///
    /// # Errors
    /// Telemetry cannot be read.
    pub fn read_finds(
        &mut self,
        reader: &Reader,
        project: ProjectId,
    ) -> std::result::Result<(), QueryError> {
        let bodies = reader.span_bodies(project, self.trace_id, self.span_id, None)?;
        let output = bodies.unwrap_or_default().output;
        self.finds = output.iter().filter_map(find).collect();
        Ok(())
    }
}

fn find(body: &Body) -> Option<Find> {
    match &body.content {
        BodyContent::Whole(value) => serde_json::from_value(value.clone()).ok(),
        BodyContent::Cut(_) | BodyContent::Gone => None,
    }
}

/// Puts the rules of the versions that ran beside what they found.
///
/// # Errors
/// The database cannot be read.
pub async fn with_rules(app: &App, project: ProjectId, guarded: &mut [Guarded]) -> Result<()> {
    let mut digests: Vec<Digest> = guarded.iter().filter_map(|one| one.digest).collect();
    digests.sort();
    digests.dedup();
    if digests.is_empty() {
        return Ok(());
    }
    let documents = app.catalog.documents(project, &digests).await?;
    let known: HashMap<Digest, Arc<Rules>> = documents
        .into_iter()
        .map(|(digest, content)| (digest, Arc::new(rules_of(&content))))
        .collect();
    for one in guarded {
        if let Some(rules) = one.digest.and_then(|digest| known.get(&digest)) {
            one.rules = rules.clone();
        }
    }
    Ok(())
}

fn rules_of(content: &Value) -> Rules {
    let Ok(policy) = Policy::read(content) else {
        return Rules::default();
    };
    let facts = |rule: guard::Rule| {
        let document = serde_json::json!(rule);
        let word = |path: &str| document.pointer(path).and_then(Value::as_str);
        let facts = RuleFacts {
            check: word("/check/type").unwrap_or_default().to_owned(),
            shadow: rule.shadow,
            action: word("/action/type").unwrap_or_default().to_owned(),
            replacement: word("/action/with").map(str::to_owned),
        };
        (rule.name, facts)
    };
    policy.rules.into_iter().map(facts).collect()
}

/// A find's name in addresses: its trace, its span and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindId {
    /// The trace.
    pub trace_id: TraceId,
    /// The guard's span.
    pub span_id: SpanId,
    /// Which of its finds, from 0.
    pub index: usize,
}

impl FindId {
    /// Reads one; what is none is not found, like one that nobody has.
    ///
    /// # Errors
    /// 404.
    pub fn parse(text: &str) -> Result<Self> {
        let read = || {
            let mut parts = text.split('-');
            let id = Self {
                trace_id: parts.next()?.parse().ok()?,
                span_id: parts.next()?.parse().ok()?,
                index: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(id)
        };
        read().ok_or_else(no_such_find)
    }
}

impl std::fmt::Display for FindId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.trace_id, self.span_id, self.index)
    }
}

pub(super) fn no_such_find() -> AppError {
    AppError::not_found("no guard has found anything under this id").code("find_not_found")
}

/// A text of a call, by the field that finds name: `messages[2].content[0].text`,
/// `choices[0].message.tool_calls[1].function.arguments`.
pub fn text_of<'b>(bodies: &'b Bodies, field: &str) -> Option<&'b str> {
    let (body, inside) = match field.strip_prefix("messages[") {
        Some(rest) => {
            let (index, inside) = rest.split_once("].")?;
            (bodies.input.get(index.parse::<usize>().ok()?)?, inside)
        }
        None => {
            let (index, inside) = field.strip_prefix("choices[")?.split_once("].message.")?;
            (bodies.output.get(index.parse::<usize>().ok()?)?, inside)
        }
    };
    let BodyContent::Whole(message) = &body.content else {
        return None;
    };
    let parts = inside
        .split(['.', '['])
        .map(|part| part.trim_end_matches(']'));
    let path: String = parts.map(|part| format!("/{part}")).collect();
    message.pointer(&path)?.as_str()
}

/// Where the finds in one field of a call stand in its recorded text, policy by policy. `guarded`
/// are all policies that found anything in the call, in the order of their names, which is the
/// order in which they read.
pub fn places(text: &str, field: &str, guarded: &[Guarded]) -> Vec<Vec<Option<Range<usize>>>> {
    let nothing = || {
        let nothing = |one: &Guarded| vec![None; one.finds.len()];
        guarded.iter().map(nothing).collect()
    };
    let of_field = |one: &Guarded| -> Vec<usize> {
        let finds = one.finds.iter().enumerate();
        finds
            .filter(|(_, find)| find.field == field)
            .map(|(at, _)| at)
            .collect()
    };
    let indices: Vec<Vec<usize>> = guarded.iter().map(of_field).collect();
    let here = || {
        let policies = guarded.iter().zip(&indices);
        policies.flat_map(|(one, indices)| indices.iter().map(|at| &one.finds[*at]))
    };
    let has = |outcome: &str| here().any(|find| find.outcome == outcome);
    let is_input = field.starts_with("messages[");
    // Of an answer that was asked for again the record holds the second, and finds are of both. Of
    // finds that were too many to write down, some edits are not known.
    let is_cut = guarded.iter().any(|one| one.finds.len() >= KEPT_FINDS);
    if is_cut || (has("rewrite") && !is_input) {
        return nothing();
    }
    let kept = match is_input && (has("blocked") || has("rewrite")) {
        true => Kept::AsRead,
        false => Kept::AsPassed,
    };
    let found: Vec<Vec<Found<'_>>> = guarded
        .iter()
        .zip(&indices)
        .map(|(one, indices)| {
            let of = |at: &usize| {
                let find = &one.finds[*at];
                let rule = one.rule(&find.rule_name);
                Found {
                    start: find.start,
                    end: find.end,
                    outcome: &find.outcome,
                    label: &find.label,
                    replacement: rule.and_then(|rule| rule.replacement.as_deref()),
                }
            };
            indices.iter().map(of).collect()
        })
        .collect();
    let placed = marks::place(text, &found, kept);
    let mut places: Vec<Vec<Option<Range<usize>>>> = nothing();
    for ((all, indices), placed) in places.iter_mut().zip(&indices).zip(placed) {
        for (at, place) in indices.iter().zip(placed) {
            all[*at] = place;
        }
    }
    places
}

/// The newest guards' spans among these, with their scores and without the finds themselves; and
/// whether there are more.
///
/// # Errors
/// Telemetry cannot be read.
pub fn newest(
    reader: &Reader,
    project: ProjectId,
    ask: &Ask,
    most: usize,
) -> std::result::Result<(Vec<Guarded>, bool), QueryError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = reader.list(&ask.list(project, PAGE, cursor))?;
        for row in page.rows {
            if let Some(one) = Guarded::of(&row.stored.span) {
                found.push(Guarded {
                    scores: row.scores,
                    ..one
                });
            }
        }
        cursor = page.next;
        if cursor.is_none() || found.len() >= most {
            return Ok((found, cursor.is_some()));
        }
    }
}

/// What policies found in one call, in the order of their names.
///
/// # Errors
/// Telemetry or the database cannot be read.
pub async fn of_call(app: &App, project: ProjectId, guards: Vec<Guarded>) -> Result<Vec<Guarded>> {
    let mut guarded = crate::traces::read(&app.telemetry, move |reader| {
        let mut guards = guards;
        for one in &mut guards {
            one.read_finds(reader, project)?;
        }
        Ok(guards)
    })
    .await?;
    guarded.sort_by(|a, b| a.policy.cmp(&b.policy));
    with_rules(app, project, &mut guarded).await?;
    Ok(guarded)
}
