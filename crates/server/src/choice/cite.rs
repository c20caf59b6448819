//! A choice as evidence: that the model which a release or a prompt uses is the one that
//! was chosen.
//!
//! The gate is the choice's name, so that a protected label can demand it.

use db::promotion::{NewEvidence, Outcome};
use db::{Name, Scope, Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Choice, ChoiceDocument, Desk, saved};
use crate::error::{AppError, Result};

/// What cites a choice.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// `release` or `prompt`.
    pub kind: String,
    /// The app's or the prompt's name.
    pub name: String,
    /// Which version: a number, a label or a digest; the newest when absent.
    #[serde(default)]
    pub version: Option<String>,
}

/// The evidence that was given.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Cited {
    /// Names it.
    pub evidence: String,
    /// The gate: the choice's name.
    pub gate: String,
    /// `pass`, `fail` or `inconclusive`.
    pub outcome: String,
    /// Why, in words.
    pub reason: String,
    /// The models that the subject uses first.
    pub models: Vec<String>,
}

/// Gives evidence for a release or a prompt: that it uses the chosen model, or one that
/// was shown to be no good choice.
///
/// # Errors
/// The choice has no result, there is no such version, or it uses none of the models.
pub(super) async fn cite(
    desk: Desk<'_>,
    scope: Scope,
    choice: &Choice,
    subject: &Subject,
    link: &str,
) -> Result<Cited> {
    let document = match choice.version {
        Some(version) => saved(desk, choice, version).await?,
        None => None,
    };
    let document = document.ok_or_else(|| {
        AppError::conflict("the choice has no saved result to cite").code("no_result")
    })?;
    let bad = |problem: db::Problem| AppError::invalid(problem.message);
    let name: Name = subject.name.parse().map_err(|e| bad(e).at("name"))?;
    let selector: Selector = match subject.version.as_deref().map(str::trim) {
        None | Some("") => Selector::Latest,
        Some(text) => text.parse().map_err(|e| bad(e).at("version"))?,
    };
    if ![crate::apps::RELEASE, crate::prompts::KIND].contains(&subject.kind.as_str()) {
        return Err(AppError::invalid("a release or a prompt cites a choice").at("kind"));
    }
    let found = desk
        .app
        .catalog
        .version(scope, &subject.kind, &name, &selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!("there is no {} {name}@{selector}", subject.kind))
            .code("version_not_found")
    })?;
    let models = match subject.kind.as_str() {
        crate::prompts::KIND => {
            let model = found.content["model"].as_str();
            model.map(str::to_owned).into_iter().collect()
        }
        _ => {
            let version = &found.version;
            let release = crate::apps::load_release(
                desk.app,
                scope.project,
                name.as_str(),
                version.number,
                version.digest,
            )
            .await?;
            let release = release.ok_or_else(|| {
                AppError::invalid(format!("the release {name}@{selector} cannot be read"))
            })?;
            let routes = release.app.document.models.values();
            routes
                .filter_map(|route| route.first().cloned())
                .collect::<Vec<_>>()
        }
    };
    let (outcome, reason) = judge(&document, &models)?;
    let result = &document.result;
    let detail = json!({
        "choice": choice.id, "version": choice.version, "task": document.task.description,
        "dataset": {"reference": document.task.dataset, "digest": document.dataset},
        "models": models, "recommended": result.recommended, "weights": result.weights,
        "limits": document.task.limits, "examples": result.examples,
        "finalists": result.finalists.iter().map(|one| json!({
            "model": one.figures.model, "quality": one.figures.quality, "probability": one.probability,
            "p95_latency_ms": one.figures.p95_latency_ms, "usd_per_1000": one.figures.usd_per_1000,
        })).collect::<Vec<_>>(),
        "reason": reason,
    });
    let new = NewEvidence {
        kind: &subject.kind,
        name: &name,
        digest: found.version.digest,
        gate: &choice.name,
        outcome,
        detail: &detail,
        link,
    };
    let (evidence, _) = crate::promotion::add_evidence(desk.app, scope, new).await?;
    Ok(Cited {
        evidence: evidence.id,
        gate: choice.name.clone(),
        outcome: outcome.name().to_owned(),
        reason,
        models,
    })
}

/// What a choice says of who uses these models.
fn judge(document: &ChoiceDocument, models: &[String]) -> Result<(Outcome, String)> {
    let dropped = |model: &String| {
        let rounds = document.rounds.iter();
        let mut dropped = rounds.flat_map(|round| &round.dropped);
        let found = dropped.find(|one| one.model == *model);
        found.map(|one| format!("{model} was dropped: {}", one.why.name()))
    };
    let excluded = |model: &String| {
        let found = document.excluded.iter().find(|one| one.model == *model);
        found.map(|_| format!("{model} was left out: its properties break a limit"))
    };
    let broken = |model: &String| {
        let finalists = document.result.finalists.iter();
        let mut broken = finalists.filter(|one| !one.breaks.is_empty());
        let found = broken.find(|one| one.figures.model == *model);
        found.map(|one| format!("{model} breaks a limit: {}", one.breaks.join(", ")))
    };
    for model in models {
        if let Some(reason) = dropped(model).or(excluded(model)).or(broken(model)) {
            return Ok((Outcome::Fail, reason));
        }
    }
    let recommended = document.result.recommended.as_ref();
    if let Some(model) = recommended.filter(|model| models.contains(model)) {
        let best = document.result.finalists.iter();
        let probability = best
            .filter(|one| one.figures.model == *model)
            .map(|one| one.probability)
            .next();
        let percent = probability.unwrap_or(0.0) * 100.0;
        let reason = format!("{model} is the best choice with a probability of {percent:.0} %");
        return Ok((Outcome::Pass, reason));
    }
    let finalist = |model: &&String| {
        let finalists = document.result.finalists.iter();
        finalists
            .map(|one| &one.figures.model)
            .any(|one| one == *model)
    };
    match models.iter().find(finalist) {
        Some(model) => Ok((
            Outcome::Inconclusive,
            format!("{model} was measured, and another model is more probably the best"),
        )),
        None => Err(AppError::invalid(
            "this uses none of the models that the choice was made from",
        )
        .code("not_measured")
        .at("version")),
    }
}
