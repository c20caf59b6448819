//! What guards found, one row a find: the list behind every number about guards, and what
//! reviewers work through.
//!
//! Telemetry knows guards' spans, not single finds, so a page of rows is a page of spans with the
//! finds in them: a page may hold fewer rows than were asked for, and still have one after it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use base::{Cursor, ProjectId, SpanId, TraceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use telemetry::{
    Bodies, Field, Filter, ListQuery, Literal, Op, QueryError, Reader, Scope as SpanScope,
};

use super::recorded::{self, Find, FindId, Guarded, RuleFacts};
use super::verdict::{self, Given, Verdict};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::traces::AskText;

/// Rows when nothing is said, and at most.
const ROWS: usize = 50;
pub(super) const MOST_ROWS: usize = 200;
/// Guards' spans that one look takes.
const SPANS: usize = 50;
/// Looks of one request.
const LOOKS: usize = 20;
/// Policies that watch one call.
const POLICIES: usize = 100;
/// Characters around a find.
const AROUND: usize = 160;
/// Characters of a find.
const SHOWN: usize = 600;

/// Which finds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Earliest call: microseconds, RFC 3339 or relative (`-24h`); `-7d` when nothing is said.
    pub from: Option<String>,
    /// Latest call.
    pub to: Option<String>,
    /// Only those of this policy.
    pub policy: Option<String>,
    /// Only those of rules of this name.
    pub rule: Option<String>,
    /// Only those of rules that look for this: `pii`, `injection` …
    pub check: Option<String>,
    /// What was done: `blocked`, `redacted`, `replaced`, `repaired`, `rewrite`, `flagged`, `shadow`,
    /// `covered`, `failed_open`; `edited` for any edit.
    pub action: Option<String>,
    /// Only rules in shadow, or only those in force.
    pub shadow: Option<bool>,
    /// What a reviewer said: `right`, `false_alarm`, `unsure`; `any` of them, or `none`.
    pub verdict: Option<String>,
    /// Only calls of this user of the application.
    pub user: Option<String>,
    /// Rows, at most; 50 when nothing is said.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// Something that a guard found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FindJson {
    /// Its name: for the verdict.
    pub id: String,
    /// The call's trace.
    pub trace_id: String,
    /// The guard's span.
    pub span_id: String,
    /// When the call began, microseconds since the epoch.
    pub at: i64,
    /// The policy.
    pub policy: String,
    /// Its version.
    pub version: i64,
    /// The rule.
    pub rule: String,
    /// What the rule looks for; null if that version of the policy is gone.
    pub check: Option<String>,
    /// Whether the rule is only tried out.
    pub shadow: bool,
    /// What found it.
    pub detector: String,
    /// `rules`, `linear`, `embedding` or `judge`.
    pub tier: String,
    /// How sure, 0 to 1.
    pub score: f64,
    /// First byte of the text that the policy read.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// How the text was read.
    pub reading: String,
    /// Why, in words.
    pub reason: String,
    /// What was done.
    pub action: String,
    /// Where in a call.
    pub point: String,
    /// The field: `messages[0].content`.
    pub field: String,
    /// The application's user.
    pub user: Option<String>,
    /// The environment.
    pub environment: String,
    /// The text around it, where the record has it and the place can be told.
    pub excerpt: Option<Excerpt>,
    /// What was last said of it.
    pub verdict: Option<Given>,
}

/// A piece of the recorded text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Excerpt {
    /// The text before.
    pub before: String,
    /// What was found, or what stands for it; empty where the text was ended before it.
    pub found: String,
    /// The text after.
    pub after: String,
    /// Whether text before or after was left out.
    pub cut_before: bool,
    /// The same.
    pub cut_after: bool,
    /// Whether `found` is what stands for it and not the text itself.
    pub stands_for: bool,
}

/// A page of them.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Finds {
    /// The newest first.
    pub items: Vec<FindJson>,
    /// Where the next page begins; null at the end.
    pub next_cursor: Option<String>,
}

/// A find with all that is known of it.
pub(super) struct Row {
    pub(super) id: FindId,
    pub(super) guarded: Guarded,
    pub(super) find: Find,
    pub(super) verdict: Option<Given>,
    /// The recorded text that it is in.
    pub(super) text: Option<String>,
    /// Its place there.
    pub(super) place: Option<Range<usize>>,
}

impl Row {
    pub(super) fn rule(&self) -> Option<&RuleFacts> {
        self.guarded.rule(&self.find.rule_name)
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.find.outcome == "shadow" || self.rule().is_some_and(|rule| rule.shadow)
    }

    pub(super) fn is_edit(&self) -> bool {
        is_edit(&self.find.outcome)
    }

    pub(super) fn json(&self) -> FindJson {
        let (guarded, find) = (&self.guarded, &self.find);
        FindJson {
            id: self.id.to_string(),
            trace_id: guarded.trace_id.to_string(),
            span_id: guarded.span_id.to_string(),
            at: guarded.at_us,
            policy: guarded.policy.clone(),
            version: guarded.version,
            rule: find.rule_name.clone(),
            check: self.rule().map(|rule| rule.check.clone()),
            shadow: self.is_shadow(),
            detector: find.detector.clone(),
            tier: find.tier.clone(),
            score: (find.score * 10_000.0).round() / 10_000.0,
            start: find.start,
            end: find.end,
            reading: find.view.clone(),
            reason: find.reason.clone(),
            action: find.outcome.clone(),
            point: find.point.clone(),
            field: find.field.clone(),
            user: guarded.user.clone(),
            environment: guarded.environment.clone(),
            excerpt: self.excerpt(),
            verdict: self.verdict.clone(),
        }
    }

    fn excerpt(&self) -> Option<Excerpt> {
        let (text, place) = (self.text.as_deref()?, self.place.clone()?);
        let (before, after) = (text.get(..place.start)?, text.get(place.end..)?);
        let skip = before.chars().count().saturating_sub(AROUND);
        let found = text.get(place)?;
        let shown: String = found.chars().take(SHOWN).collect();
        let is_long = shown.len() < found.len();
        let tail: String = match is_long {
            true => String::new(),
            false => after.chars().take(AROUND).collect(),
        };
        Some(Excerpt {
            cut_before: skip > 0,
            cut_after: is_long || tail.len() < after.len(),
            before: before.chars().skip(skip).collect(),
            found: shown,
            after: tail,
            stands_for: self.is_edit(),
        })
    }
}

fn is_edit(outcome: &str) -> bool {
    matches!(outcome, "redacted" | "replaced" | "repaired")
}

impl Wanted {
    /// The guards' spans that may hold such finds.
    fn query(&self, project: ProjectId, now_us: i64) -> Result<ListQuery> {
        let ask = AskText {
            from: Some(self.from.clone().unwrap_or_else(|| "-7d".to_owned())),
            to: self.to.clone(),
            ..AskText::default()
        };
        let mut ask = ask.parse(now_us)?;
        let words = [
            (Field::Kind, Some("guard".to_owned())),
            (
                Field::Name,
                self.policy.as_ref().map(|policy| format!("guard {policy}")),
            ),
            (Field::User, self.user.clone()),
        ];
        let is_judged = self.verdict.as_deref().is_some_and(|word| word != "none");
        if is_judged {
            let judged = format!("{} exists", Field::Score(verdict::SCORE.to_owned()));
            ask.filter = Filter::parse(&judged).map_err(crate::traces::filter_error)?;
        }
        for (field, word) in words {
            let Some(word) = word else { continue };
            let narrowed = ask.filter.and(field, Op::Equal, Literal::Text(word));
            ask.filter = narrowed.map_err(crate::traces::filter_error)?;
        }
        ask.scope = SpanScope::Spans;
        Ok(ask.list(project, SPANS, self.cursor.clone().map(Cursor::from_client)))
    }

    fn limit(&self) -> Result<usize> {
        let limit = self.limit.unwrap_or(ROWS);
        if (1..=MOST_ROWS).contains(&limit) {
            return Ok(limit);
        }
        let why = format!("a page has 1 to {MOST_ROWS} finds, not {limit}");
        Err(AppError::invalid(why).at("limit"))
    }

    fn takes(&self, row: &Row) -> bool {
        let is = |wanted: &Option<String>, word: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == word)
        };
        let action = match self.action.as_deref() {
            None => true,
            Some("edited") => row.is_edit(),
            Some(wanted) => wanted == row.find.outcome,
        };
        let check = row.rule().map(|rule| rule.check.as_str());
        let said = row.verdict.as_ref().map(|given| given.verdict.name());
        let verdict = match (self.verdict.as_deref(), said) {
            (None, _) | (Some("any"), Some(_)) | (Some("none"), None) => true,
            (wanted, said) => said.is_some() && wanted == said,
        };
        is(&self.rule, &row.find.rule_name)
            && is(&self.check, check.unwrap_or_default())
            && verdict
            && self.shadow.is_none_or(|wanted| wanted == row.is_shadow())
            && action
    }
}

/// A page of finds.
///
/// # Errors
/// 400: what is wanted is not understood.
pub async fn list(app: &App, project: ProjectId, wanted: &Wanted) -> Result<Finds> {
    let (rows, next_cursor) = rows(app, project, wanted).await?;
    Ok(Finds {
        items: rows.iter().map(Row::json).collect(),
        next_cursor,
    })
}

/// The same with everything that is known.
pub(super) async fn rows(
    app: &App,
    project: ProjectId,
    wanted: &Wanted,
) -> Result<(Vec<Row>, Option<String>)> {
    let limit = wanted.limit()?;
    match wanted.verdict.as_deref() {
        None | Some("none" | "any") => {}
        Some(word) => drop(word.parse::<Verdict>()?),
    }
    let mut query = wanted.query(project, app.clock.now_us())?;
    // A span has several finds: few of them fill a page.
    query.limit = SPANS.min(limit);
    let mut rows = Vec::new();
    for _ in 0..LOOKS {
        let asked = query.clone();
        let (calls, next) =
            crate::traces::read(&app.telemetry, move |reader| look(reader, &asked)).await?;
        let found = of_calls(app, project, calls).await?;
        rows.extend(found.into_iter().filter(|row| wanted.takes(row)));
        query.cursor = next;
        if query.cursor.is_none() || rows.len() >= limit {
            break;
        }
    }
    let next = query.cursor.map(|cursor| cursor.as_str().to_owned());
    Ok((rows, next))
}

/// One call: the policies that found something in it, and which of them the list is about.
struct Call {
    guards: Vec<Guarded>,
    listed: Vec<SpanId>,
    at_us: i64,
}

type CallKey = (TraceId, Option<SpanId>);

fn look(
    reader: &Reader,
    query: &ListQuery,
) -> std::result::Result<(Vec<Call>, Option<Cursor>), QueryError> {
    let page = reader.list(query)?;
    let mut order: Vec<CallKey> = Vec::new();
    let mut calls: HashMap<CallKey, Call> = HashMap::new();
    for row in &page.rows {
        let span = &row.stored.span;
        let Some(one) = Guarded::of(span) else {
            continue;
        };
        let key = (span.trace_id, span.parent);
        let call = match calls.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                order.push(key);
                let guards = beside(reader, query.project, key)?;
                free.insert(Call {
                    guards,
                    listed: Vec::new(),
                    at_us: one.at_us,
                })
            }
        };
        call.listed.push(span.span_id);
        match call
            .guards
            .iter_mut()
            .find(|known| known.span_id == span.span_id)
        {
            Some(known) => known.scores.clone_from(&row.scores),
            None => call.guards.push(Guarded {
                scores: row.scores.clone(),
                ..one
            }),
        }
    }
    let calls = order.iter().filter_map(|key| calls.remove(key)).collect();
    Ok((calls, page.next))
}

/// The guards of one call: each reads what the one before let through, so a place needs all.
fn beside(
    reader: &Reader,
    project: ProjectId,
    (trace, call): CallKey,
) -> std::result::Result<Vec<Guarded>, QueryError> {
    let filter = Filter::parse("kind = \"guard\"").unwrap_or_default();
    let trace_is = Literal::Text(trace.to_string());
    let mut query = ListQuery::new(project);
    query.filter = filter
        .and(Field::Trace, Op::Equal, trace_is)
        .unwrap_or(filter);
    query.scope = SpanScope::Spans;
    query.limit = POLICIES;
    let page = reader.list(&query)?;
    let spans = page.rows.iter().map(|row| &row.stored.span);
    let mut guards: Vec<Guarded> = spans
        .filter(|span| span.parent == call)
        .filter_map(Guarded::of)
        .collect();
    guards.sort_by(|a, b| a.policy.cmp(&b.policy));
    Ok(guards)
}

async fn of_calls(app: &App, project: ProjectId, mut calls: Vec<Call>) -> Result<Vec<Row>> {
    for call in &mut calls {
        recorded::with_rules(app, project, &mut call.guards).await?;
    }
    crate::traces::read(&app.telemetry, move |reader| {
        let mut rows = Vec::new();
        calls.sort_by_key(|call| std::cmp::Reverse(call.at_us));
        for call in calls {
            read_call(reader, project, call, &mut rows)?;
        }
        Ok(rows)
    })
    .await
}

fn read_call(
    reader: &Reader,
    project: ProjectId,
    mut call: Call,
    rows: &mut Vec<Row>,
) -> std::result::Result<(), QueryError> {
    for one in &mut call.guards {
        one.read_finds(reader, project)?;
    }
    let first = call.guards.first();
    let bodies = match first.and_then(|one| Some((one.trace_id, one.call?))) {
        Some((trace, span)) => reader.span_bodies(project, trace, span, None)?,
        None => None,
    };
    let bodies: Bodies = bodies.unwrap_or_default();
    let mut fields: BTreeMap<&str, Vec<Vec<Option<Range<usize>>>>> = BTreeMap::new();
    for find in call.guards.iter().flat_map(|one| &one.finds) {
        if !fields.contains_key(find.field.as_str())
            && let Some(text) = recorded::text_of(&bodies, &find.field)
        {
            let places = recorded::places(text, &find.field, &call.guards);
            fields.insert(&find.field, places);
        }
    }
    for (at, one) in call.guards.iter().enumerate() {
        if !call.listed.contains(&one.span_id) {
            continue;
        }
        for (index, find) in one.finds.iter().enumerate() {
            let places = fields.get(find.field.as_str());
            rows.push(Row {
                id: FindId {
                    trace_id: one.trace_id,
                    span_id: one.span_id,
                    index,
                },
                guarded: Guarded {
                    finds: Vec::new(),
                    scores: Vec::new(),
                    ..one.clone()
                },
                find: find.clone(),
                verdict: verdict::of(&one.scores, one.span_id, index),
                text: recorded::text_of(&bodies, &find.field).map(str::to_owned),
                place: places.and_then(|places| places.get(at)?.get(index)?.clone()),
            });
        }
    }
    Ok(())
}

/// One find.
///
/// # Errors
/// 404.
pub async fn one(app: &App, project: ProjectId, id: FindId) -> Result<FindJson> {
    let (trace, _) = verdict::target(app, project, id).await?;
    let span = trace
        .spans
        .iter()
        .find(|stored| stored.span.span_id == id.span_id)
        .and_then(|stored| Guarded::of(&stored.span))
        .ok_or_else(recorded::no_such_find)?;
    let key = (span.trace_id, span.call);
    let mut guards =
        crate::traces::read(&app.telemetry, move |reader| beside(reader, project, key)).await?;
    for guarded in &mut guards {
        guarded.scores.clone_from(&trace.scores);
    }
    let call = Call {
        guards,
        listed: vec![id.span_id],
        at_us: span.at_us,
    };
    let rows = of_calls(app, project, vec![call]).await?;
    let found = rows.iter().find(|row| row.id == id);
    found.map(Row::json).ok_or_else(recorded::no_such_find)
}
