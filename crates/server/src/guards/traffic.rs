//! Policies and calls of the past: what a policy would have found in them, and what policies in
//! force did find.
//!
//! Trying a policy reads what telemetry kept of calls, never more of a call than it said anew: a
//! conversation repeats itself with every turn. What policies in force found is in spans of the
//! kind `guard` that the gateway writes below the calls.

use std::collections::{BTreeMap, HashSet};

use db::Scope;
use guard::{Context, Decision};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use telemetry::{Body, BodyContent, QueryError, Reader};

use super::Found;
use super::check::{self, Beside, FindingJson, Piece, PolicyRef, Timing};
use super::recorded::{self, Guarded};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::traces::{Ask, AskText};

/// Calls that a policy is tried on when nothing is said, and at most.
const CALLS: usize = 200;
const MOST_CALLS: usize = 1_000;
/// Calls that one query reads.
const PAGE: usize = 100;
/// Bytes of one message; what is longer is tried up to there.
const MESSAGE_BYTES: usize = 256 << 10;
/// Finds that are shown of each rule.
const EXAMPLES: usize = 5;
/// Characters that an example shows on both sides of what was found.
const AROUND: usize = 48;
/// Characters that an example shows of what was found.
const SHOWN: usize = 200;
/// Spans that hits are counted over, the newest.
const MOST_SPANS: usize = 5_000;
const DAY_US: i64 = 86_400_000_000;

/// What a policy would have done to calls of the past.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Tried {
    /// Which policy; none for one that was sent along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// Calls that it was tried on.
    pub calls: usize,
    /// Texts of them.
    pub texts: usize,
    /// Calls that would have gone on as they were, with edits, asked again, or not at all.
    pub decisions: BTreeMap<String, usize>,
    /// What each rule would have found, in the order of the policy.
    pub rules: Vec<RuleTried>,
    /// Microseconds per text: the median and the one that 99 of 100 stay below.
    pub p50_us: u64,
    /// The same.
    pub p99_us: u64,
}

/// What a rule would have found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RuleTried {
    /// The rule's name.
    pub rule: String,
    /// Whether it only says what it would have done.
    pub shadow: bool,
    /// Finds.
    pub findings: usize,
    /// Calls with any.
    pub calls: usize,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// Something that a rule found in a call of the past.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Example {
    /// The call.
    pub trace_id: String,
    /// When it began, microseconds since the epoch.
    pub at: i64,
    /// The text before.
    pub before: String,
    /// What was found.
    pub found: String,
    /// The text after.
    pub after: String,
    /// What is known of it.
    pub finding: FindingJson,
}

/// Tries a policy on calls of the past.
///
/// # Errors
/// 400: the calls are not said in a way that is understood; 503: every place is taken.
pub async fn try_on(
    app: &App,
    scope: Scope,
    found: &Found,
    calls: &AskText,
    limit: Option<usize>,
) -> Result<Tried> {
    let now = app.clock.now_us();
    let mut ask = calls.parse(now)?;
    ask.from_us = ask.from_us.or(Some(now - DAY_US));
    let limit = limit.unwrap_or(CALLS);
    if !(1..=MOST_CALLS).contains(&limit) {
        let why = format!("a policy is tried on 1 to {MOST_CALLS} calls, not {limit}");
        return Err(AppError::invalid(why).at("limit"));
    }
    let place = check::place().await?;
    let found = found.clone();
    crate::traces::read(&app.telemetry, move |reader| {
        let tried = Trial::new(&found).run(reader, scope, &ask, limit);
        drop(place);
        tried
    })
    .await
}

struct Trial<'a> {
    found: &'a Found,
    tried: Tried,
    took_us: Vec<u64>,
}

impl<'a> Trial<'a> {
    fn new(found: &'a Found) -> Self {
        let rules = found.ready.policy.rules.iter().map(|rule| RuleTried {
            rule: rule.name.clone(),
            shadow: rule.shadow,
            findings: 0,
            calls: 0,
            examples: Vec::new(),
        });
        let tried = Tried {
            policy: PolicyRef::of(found),
            calls: 0,
            texts: 0,
            decisions: BTreeMap::new(),
            rules: rules.collect(),
            p50_us: 0,
            p99_us: 0,
        };
        Self {
            found,
            tried,
            took_us: Vec::new(),
        }
    }

    fn run(
        mut self,
        reader: &Reader,
        scope: Scope,
        ask: &Ask,
        limit: usize,
    ) -> std::result::Result<Tried, QueryError> {
        let mut cursor = None;
        while self.tried.calls < limit {
            let wanted = PAGE.min(limit - self.tried.calls);
            let page = reader.list(&ask.list(scope.project, wanted, cursor))?;
            for row in &page.rows {
                let span = &row.stored.span;
                let bodies = reader.span_bodies(
                    scope.project,
                    span.trace_id,
                    span.span_id,
                    Some(MESSAGE_BYTES),
                )?;
                let bodies = bodies.unwrap_or_default();
                let new = bodies.input.get(bodies.new_from..).unwrap_or_default();
                let system = check::system_of(&messages(&bodies.input));
                let mut pieces = check::pieces(&messages(new));
                pieces.extend(check::pieces(&said(&bodies.output)));
                self.call(&span.trace_id.to_string(), span.start_us, system, &pieces);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        self.took_us.sort_unstable();
        self.tried.p50_us = percentile(&self.took_us, 50);
        self.tried.p99_us = percentile(&self.took_us, 99);
        Ok(self.tried)
    }

    fn call(&mut self, trace_id: &str, at: i64, system: Option<String>, pieces: &[Piece]) {
        let beside = Beside {
            system,
            ..Beside::default()
        };
        let context: Context = beside.context();
        let mut verdict = check::Verdict::Pass;
        let mut hit = HashSet::new();
        for piece in pieces {
            let (scanned, Timing { total, .. }) =
                check::scan(&self.found.ready.compiled, piece, &context);
            self.took_us.push(total);
            self.tried.texts += 1;
            verdict = verdict.worse(check::Verdict::of(&scanned.decision));
            let findings = check::findings_of(piece, &scanned.findings);
            for (finding, json) in scanned.findings.iter().zip(findings) {
                if finding.outcome == guard::Outcome::FailedOpen {
                    continue;
                }
                let Some(rule) = self.tried.rules.get_mut(finding.rule) else {
                    continue;
                };
                rule.findings += 1;
                rule.calls += usize::from(hit.insert(finding.rule));
                if rule.examples.len() < EXAMPLES {
                    rule.examples.push(example(trace_id, at, &piece.text, json));
                }
            }
            if matches!(scanned.decision, Decision::Blocked(_)) {
                // The call would have ended here.
                break;
            }
        }
        self.tried.calls += 1;
        let decided = self.tried.decisions.entry(verdict.name().to_owned());
        *decided.or_default() += 1;
    }
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(rank).copied().unwrap_or(0)
}

/// What a call read, in the form of messages. An app's inputs are no messages: their text counts
/// as what the caller sent.
fn messages(bodies: &[Body]) -> Vec<Value> {
    bodies
        .iter()
        .filter_map(|body| message(body, "user"))
        .collect()
}

/// What a call said.
fn said(bodies: &[Body]) -> Vec<Value> {
    let said = bodies.iter();
    said.filter_map(|body| message(body, "assistant")).collect()
}

fn message(body: &Body, role: &str) -> Option<Value> {
    let whole = match &body.content {
        BodyContent::Whole(value) if value.get("role").is_some() => return Some(value.clone()),
        BodyContent::Whole(value) => crate::evaluations::message_text(value),
        BodyContent::Cut(text) => text.clone(),
        BodyContent::Gone => return None,
    };
    Some(serde_json::json!({"role": role, "content": whole}))
}

fn example(trace_id: &str, at: i64, text: &str, finding: FindingJson) -> Example {
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let before: String = {
        let before = part(0..finding.start);
        let skip = before.chars().count().saturating_sub(AROUND);
        before.chars().skip(skip).collect()
    };
    Example {
        trace_id: trace_id.to_owned(),
        at,
        before,
        found: part(finding.start..finding.end)
            .chars()
            .take(SHOWN)
            .collect(),
        after: part(finding.end..text.len()).chars().take(AROUND).collect(),
        finding,
    }
}

/// What policies in force have found.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Hits {
    /// Since when, microseconds since the epoch.
    pub from: i64,
    /// One row for each rule that found something, the most frequent first.
    pub rules: Vec<RuleHits>,
    /// Calls with finds, by what the policy did to them: `flagged`, `edited`, `blocked`.
    pub decisions: BTreeMap<String, usize>,
    /// Whether there were more finds than are counted.
    pub is_cut: bool,
}

/// What a rule has found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RuleHits {
    /// The policy.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// Whether it is only tried out, as of the newest of these calls.
    pub shadow: bool,
    /// What it does, or would do: `block`, `redact` … Empty if that version of the policy is gone.
    pub action: String,
    /// Calls in which it found something.
    pub calls: usize,
    /// Of them, calls of the last 24 hours.
    pub calls_day: usize,
    /// Calls that its policy did not let go on; none for a rule in shadow.
    pub blocked: usize,
    /// When it was last, microseconds since the epoch.
    pub last_at: i64,
    /// The newest calls.
    pub traces: Vec<String>,
}

/// What policies in force have found since a time, or in the last 24 hours.
///
/// # Errors
/// 400: the time is not understood.
pub async fn hits(
    app: &App,
    scope: Scope,
    policy: Option<&str>,
    from: Option<String>,
) -> Result<Hits> {
    let now = app.clock.now_us();
    let ask = AskText {
        from: Some(from.unwrap_or_else(|| "-24h".to_owned())),
        filter: Some("kind = \"guard\"".to_owned()),
        scope: Some("spans".to_owned()),
        ..AskText::default()
    };
    let ask = ask.parse(now)?;
    let from_us = ask.from_us.unwrap_or_default();
    let (project, wanted) = (scope.project, policy.map(str::to_owned));
    let (mut found, is_cut) = crate::traces::read(&app.telemetry, move |reader| {
        recorded::newest(reader, project, &ask, MOST_SPANS)
    })
    .await?;
    found.retain(|one| wanted.as_deref().is_none_or(|wanted| wanted == one.policy));
    recorded::with_rules(app, project, &mut found).await?;
    Ok(count_hits(&found, from_us, now, is_cut))
}

/// Counts finds by rule. A call that went through two versions of a policy counts for each rule
/// under what that version said of it; the newest version says whether the rule is in shadow.
fn count_hits(found: &[Guarded], from_us: i64, now_us: i64, is_cut: bool) -> Hits {
    let mut hits = Hits {
        from: from_us,
        is_cut,
        ..Hits::default()
    };
    let mut rules: BTreeMap<(&str, &str), RuleHits> = BTreeMap::new();
    for one in found {
        *hits.decisions.entry(one.decision.clone()).or_default() += 1;
        for rule in &one.found_by {
            let facts = one.rule(rule);
            let is_shadow = facts.is_some_and(|facts| facts.shadow);
            let row = rules
                .entry((&one.policy, rule))
                .or_insert_with(|| RuleHits {
                    policy: one.policy.clone(),
                    rule: rule.clone(),
                    shadow: is_shadow,
                    action: facts.map(|facts| facts.action.clone()).unwrap_or_default(),
                    calls: 0,
                    calls_day: 0,
                    blocked: 0,
                    last_at: one.at_us,
                    traces: Vec::new(),
                });
            row.calls += 1;
            row.calls_day += usize::from(one.at_us >= now_us - DAY_US);
            row.blocked += usize::from(one.decision == "blocked" && !is_shadow);
            if row.traces.len() < EXAMPLES {
                row.traces.push(one.trace_id.to_string());
            }
        }
    }
    hits.rules = rules.into_values().collect();
    hits.rules.sort_by_key(|rule| std::cmp::Reverse(rule.calls));
    hits
}
