//! What the page of a policy's editor shows: the draft as it was typed, its rules as a table, and
//! what came of trying and measuring it.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use guard::Policy;
use serde_json::{Value, json};

use super::check::{self, Checked, FindingJson};
use super::editor::{document_of, edit_href, get};
use super::finds::{self, Wanted};
use super::kept::kept_view;
use super::list_page::{hits_of, hits_view, start};
use super::marks::{self, Mark, Segment};
use super::measure::Measured;
use super::traffic::{self, Hits, Tried};
use super::{KIND, LIBRARY, curve, form, words};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::traces::encode;
use crate::ui::PageContext;
use crate::ui::form::Fields;

/// Finds of rules in shadow that the page shows.
const SHADOW_EXAMPLES: usize = 6;

/// What a page shows beside what was typed.
#[derive(Default)]
pub(super) struct Drawing {
    pub(super) errors: Value,
    pub(super) problems: Vec<db::Problem>,
    pub(super) note: Option<&'static str>,
    pub(super) checked: Option<(String, Checked)>,
    pub(super) tried: Option<Tried>,
    pub(super) measured: Option<Measured>,
}

pub(super) async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    fields: &Fields,
    drawing: Drawing,
) -> Result<Response> {
    let mut shown = fields.clone();
    form::show_watched(&mut shown);
    let fields = &shown;
    let document = document_of(fields).ok();
    let policy = document
        .as_ref()
        .and_then(|document| Policy::read(document).ok());
    let is_new = get(fields, "version").is_empty();
    let name = get(fields, "name");
    let kept = match is_new {
        true => json!(null),
        false => {
            let href = edit_href(page, name);
            kept_view(app, identity, KIND, name, &href).await?
        }
    };
    let hits = match is_new {
        true => Hits::default(),
        false => hits_of(app, identity, Some(name)).await?,
    };
    let shadows = match hits.rules.iter().any(|rule| rule.shadow) {
        true => shadow_examples(app, page, identity, name).await?,
        false => Vec::new(),
    };
    let errors = match drawing.errors {
        Value::Null => json!({}),
        errors => errors,
    };
    let options = |words: &[&str], prefix: &str| -> Vec<Value> {
        let option = |word: &&str| json!({"value": word, "label": page.t(&format!("{prefix}{}", word.replace('_', "-")))});
        words.iter().map(option).collect()
    };
    let text_fields = form::FIELDS.iter().chain(&[
        "name",
        "version",
        "document",
        "message",
        "text",
        "point",
        "system",
        "m_rule",
        "m_dataset",
        "m_jsonl",
        "m_point",
    ]);
    let values: BTreeMap<&str, &str> = text_fields.map(|name| (*name, get(fields, name))).collect();
    let ticks: BTreeMap<&str, bool> = form::TICKS
        .iter()
        .map(|name| (*name, fields.contains_key(*name)))
        .collect();
    let problems = drawing.problems.iter();
    let scope = identity.scope();
    let datasets = match identity.role.allows(Permission::ReadDatasets) {
        true => crate::catalog::offered_names(&app.catalog, scope, crate::datasets::KIND).await?,
        false => Vec::new(),
    };
    let view = json!({
        "is_new": is_new, "values": values, "ticks": ticks, "errors": errors, "note": drawing.note.map(|key| page.t(key)),
        "problems": problems.map(|problem| json!({"path": problem.path, "message": problem.message})).collect::<Vec<_>>(),
        "rules": policy.as_ref().map(|policy| rules_view(page, policy)).unwrap_or_default(),
        "checks": options(&form::CHECKS, "guards-check-"), "actions": options(&form::ACTIONS, "guards-action-"),
        "points": options(&form::POINTS, "guards-point-"),
        "starts": LIBRARY.templates(page.lang).iter().map(|template| start(page, template)).collect::<Vec<_>>(),
        "checked": drawing.checked.as_ref().map(|(text, checked)| checked_view(page, text, checked)),
        "measured": drawing.measured.as_ref().map(|measured| curve::view(page, measured)),
        "datasets": datasets, "lists": words::offered(app, scope).await?,
        "tried": drawing.tried.as_ref().map(|tried| tried_view(page, tried)),
        "hits": hits_view(page, &hits), "shadows": shadows, "kept": kept,
        "finds_href": format!("{}/guards/finds?policy={}", page.root(), encode(name)),
    });
    page.render_with_status(status, "guards/edit.html", view)
        .await
}

fn rules_view(page: &PageContext, policy: &Policy) -> Vec<Value> {
    let row = |rule: &guard::Rule| {
        let document = json!(rule);
        let word = |path: &str| {
            let word = document.pointer(path).and_then(Value::as_str);
            word.unwrap_or_default().replace('_', "-")
        };
        let at: Vec<String> = rule
            .at
            .iter()
            .map(|point| {
                let word = check::point_name(*point).replace('_', "-");
                page.t(&format!("guards-point-{word}"))
            })
            .collect();
        json!({
            "name": rule.name, "at": at.join(", "), "shadow": rule.shadow,
            "check": page.t(&format!("guards-check-{}", word("/check/type"))),
            "action": page.t(&format!("guards-action-{}", word("/action/type"))),
            "closed": rule.on_failure == guard::OnFailure::Closed,
        })
    };
    policy.rules.iter().map(row).collect()
}

/// Examples of what rules in shadow found in the last seven days, by rule.
async fn shadow_examples(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &str,
) -> Result<Vec<Value>> {
    if !identity.role.allows(Permission::ReadTraces) {
        return Ok(Vec::new());
    }
    let wanted = Wanted {
        policy: Some(name.to_owned()),
        shadow: Some(true),
        limit: Some(SHADOW_EXAMPLES),
        ..Wanted::default()
    };
    let found = finds::list(app, identity.project.id, &wanted).await?;
    let root = page.root();
    let example = |find: &finds::FindJson| {
        let excerpt = find.excerpt.as_ref();
        json!({
            "rule": find.rule, "href": format!("{root}/guards/finds?find={}", find.id), "at": find.at,
            "reason": find.reason, "score": find.score, "before": excerpt.map(|it| &it.before),
            "found": excerpt.map(|it| &it.found), "after": excerpt.map(|it| &it.after),
        })
    };
    Ok(found
        .items
        .iter()
        .take(SHADOW_EXAMPLES)
        .map(example)
        .collect())
}

/// A text with its finds marked, and what became of it.
fn checked_view(page: &PageContext, text: &str, checked: &Checked) -> Value {
    let outcome = |word: &str| page.t(&format!("guards-outcome-{}", word.replace('_', "-")));
    let finding = |finding: &FindingJson| {
        json!({
            "rule": finding.rule, "detector": finding.detector, "tier": page.t(&format!("guards-tier-{}", finding.tier)),
            "score": finding.score, "start": finding.start_char, "end": finding.end_char, "reason": finding.reason,
            "reading": finding.reading, "outcome": outcome(&finding.outcome), "mark": marks::style(&finding.outcome),
        })
    };
    json!({
        "verdict": checked.decision.name(), "verdict_text": page.t(&format!("guards-verdict-{}", checked.decision.name())),
        "ended": checked.ended.as_ref().map(|ended| json!({"rule": ended.rule, "reason": ended.reason, "rewrite": ended.rewrite})),
        "segments": segments(page, text, &checked.findings), "text": checked.text, "is_edited": checked.text.as_deref() != Some(text),
        "findings": checked.findings.iter().map(finding).collect::<Vec<_>>(),
        "rules_us": checked.timing_us.rules, "linear_us": checked.timing_us.linear,
    })
}

/// The text in pieces, those that were found with their marks.
pub(super) fn segments(page: &PageContext, text: &str, findings: &[FindingJson]) -> Vec<Segment> {
    let numbered = findings.iter().enumerate();
    let real = numbered.filter(|(_, finding)| finding.end > finding.start);
    let marks: Vec<Mark> = real
        .map(|(at, finding)| {
            let outcome = page.t(&format!(
                "guards-outcome-{}",
                finding.outcome.replace('_', "-")
            ));
            let args = [
                ("outcome", outcome.as_str()),
                ("rule", finding.rule.as_str()),
            ];
            Mark {
                range: finding.start..finding.end,
                outcome: finding.outcome.clone(),
                title: page.t_with("guards-mark-title", &args),
                number: Some(at + 1),
            }
        })
        .collect();
    marks::segments(text, &marks)
}

fn tried_view(page: &PageContext, tried: &Tried) -> Value {
    let root = page.root();
    let example = |example: &traffic::Example| {
        json!({
            "href": format!("{root}/traces/{}", example.trace_id), "at": example.at, "before": example.before,
            "found": example.found, "after": example.after, "mark": marks::style(&example.finding.outcome),
            "reason": example.finding.reason, "score": example.finding.score,
        })
    };
    let rule = |rule: &traffic::RuleTried| {
        json!({
            "rule": rule.rule, "shadow": rule.shadow, "findings": rule.findings, "calls": rule.calls,
            "examples": rule.examples.iter().map(example).collect::<Vec<_>>(),
        })
    };
    let decision = |word: &str| tried.decisions.get(word).copied().unwrap_or_default();
    json!({
        "calls": tried.calls, "texts": tried.texts, "p50_us": tried.p50_us, "p99_us": tried.p99_us,
        "pass": decision("pass"), "edited": decision("edited"), "blocked": decision("blocked") + decision("rewrite"),
        "rules": tried.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}
