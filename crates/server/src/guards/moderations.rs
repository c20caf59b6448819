//! `POST /v1/moderations` in OpenAI's shape, errors included, answered from guard policies.
//!
//! `model` is a policy's name. Clients that name one of OpenAI's models, or none, get the policies
//! that watch every call in the key's environment. Categories are OpenAI's, so that clients which
//! know them by name find them, and then the policy's rules by their own names; what no rule looks
//! for is false. A text may be meant as a question or as an answer, so rules at either point count.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use gateway::GuardPolicy;
use guard::{Compiled, Context, Finding, Point};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::asker::{self, Asker};
use super::check::{self, Piece};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Raw, parse_json};
use crate::http::{Access, RequestContext, Route};
use crate::openapi::Doc;

/// Texts of one request.
const MOST_INPUTS: usize = 1_000;
/// OpenAI's categories, which its clients know as fields.
const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/moderations",
            Access::Needs(Permission::CheckGuards),
            moderate,
        )
        .body_limit(usize::MAX)
        .doc(
            Doc::new(
                "inference",
                "OpenAI moderations, answered from guard policies",
            )
            .body::<Moderate>()
            .answer::<Moderated>(),
        ),
    ]
}

/// What to moderate. Fields that OpenAI may add are left alone.
#[derive(Debug, Deserialize, JsonSchema)]
struct Moderate {
    /// A text, texts, or parts with texts.
    input: Input,
    /// A policy's name; the policies that watch every call when it is one of OpenAI's, or nothing.
    model: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Parts(Vec<Part>),
}

/// A part of an input.
#[derive(Debug, Deserialize, JsonSchema)]
struct Part {
    /// `text`; images are not looked at here.
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    text: Option<String>,
}

/// What became of the inputs.
#[derive(Debug, Serialize, JsonSchema)]
struct Moderated {
    /// This answer's.
    id: String,
    /// The policies that answered.
    model: String,
    /// One for each text; one for all parts together.
    results: Vec<Moderation>,
}

/// What became of one input.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Moderation {
    /// Whether anything was found.
    flagged: bool,
    /// What was found.
    categories: BTreeMap<String, bool>,
    /// How sure, 0 to 1.
    category_scores: BTreeMap<String, f64>,
    /// Which kinds of input a category looked at: text, always.
    category_applied_input_types: BTreeMap<String, Vec<String>>,
}

async fn moderate(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    Raw(body): Raw,
) -> Result<Answer<Moderated>> {
    let body: Moderate = parse_json(&body)?;
    let inputs = texts(body.input)?;
    let policies = policies(&app, &identity, body.model.as_deref())?;
    let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    let model = names.join(",");
    let rules: Vec<Arc<Compiled>> = policies
        .iter()
        .map(|policy| runnable(policy))
        .collect::<Result<_>>()?;
    let asker = Asker::new(&app, &identity, request.id);
    let mut results = Vec::new();
    for texts in &inputs {
        results.push(moderation(&rules, texts, &asker).await?);
    }
    Ok(Answer(Moderated {
        id: format!("modr-{}", request.id),
        model,
        results,
    }))
}

/// The texts of each input.
fn texts(input: Input) -> Result<Vec<Vec<String>>> {
    let inputs = match input {
        Input::Text(text) => vec![vec![text]],
        Input::Texts(texts) => texts.into_iter().map(|text| vec![text]).collect(),
        Input::Parts(parts) => {
            let text = |part: Part| match (part.kind.as_str(), part.text) {
                ("text", Some(text)) => Ok(text),
                ("text", None) => {
                    Err(AppError::invalid("a part of type text has a text").at("input"))
                }
                (other, _) => {
                    let why = format!("guards read text only, not parts of type {other:?}");
                    Err(AppError::invalid(why).code("unsupported_input").at("input"))
                }
            };
            vec![parts.into_iter().map(text).collect::<Result<_>>()?]
        }
    };
    match inputs.len() {
        1..=MOST_INPUTS => Ok(inputs),
        count => {
            let why = format!("a request has 1 to {MOST_INPUTS} inputs, not {count}");
            Err(AppError::invalid(why).at("input"))
        }
    }
}

/// The policies that a model's name stands for, as they hold in the key's environment.
fn policies(app: &App, identity: &Identity, model: Option<&str>) -> Result<Vec<Arc<GuardPolicy>>> {
    let plan = app.gateway.plan();
    let project = plan.projects.get(&identity.project.id);
    let known = project.into_iter().flat_map(|project| &project.guards);
    let environment = identity.principal.environment.as_str();
    let mut in_force = known.filter_map(|(name, versions)| {
        let labels = &versions.labels;
        let policy = labels
            .get(environment)
            .or_else(|| labels.get(crate::prompts::PRODUCTION))?;
        Some((name, Arc::clone(policy)))
    });
    match model.filter(|model| !is_of_openai(model)) {
        Some(model) => match in_force.find(|(name, _)| *name == model) {
            Some((_, policy)) => Ok(vec![policy]),
            None => Err(AppError::not_found(format!(
                "no policy {model:?} holds in the environment {environment}"
            ))
            .code("model_not_found")
            .at("model")),
        },
        None => {
            let all: Vec<_> = in_force
                .filter(|(_, policy)| policy.applies_to.everything)
                .map(|(_, policy)| policy)
                .collect();
            if all.is_empty() {
                let why = format!("no policy watches every call in the environment {environment}");
                return Err(AppError::not_found(why)
                    .code("model_not_found")
                    .hint("name a policy as the model, or let one apply to everything"));
            }
            Ok(all)
        }
    }
}

fn is_of_openai(model: &str) -> bool {
    model.is_empty() || model.starts_with("omni-moderation") || model.starts_with("text-moderation")
}

fn runnable(policy: &GuardPolicy) -> Result<Arc<Compiled>> {
    policy.compiled.clone().map_err(|why| {
        let message = format!("the policy {} cannot run: {why}", policy.name);
        AppError::new_status(
            StatusCode::SERVICE_UNAVAILABLE,
            "guard_unavailable",
            message,
        )
    })
}

async fn moderation(
    rules: &[Arc<Compiled>],
    texts: &[String],
    asker: &Asker,
) -> Result<Moderation> {
    let mut moderation = Moderation::default();
    for category in CATEGORIES {
        moderation.note(category, None);
    }
    for compiled in rules {
        for text in texts {
            for point in [Point::Input, Point::Output] {
                if compiled.looks_at(point) {
                    let piece = Piece::new(point, text.as_str());
                    let context = Context::default();
                    let (scanned, _) = asker::scan(compiled, &piece, &context, asker).await?;
                    moderation.take(&scanned.findings);
                }
            }
        }
    }
    Ok(moderation)
}

impl Moderation {
    fn take(&mut self, findings: &[Finding]) {
        for finding in findings {
            if check::counts(check::outcome_name(finding.outcome)) {
                self.found(finding);
            }
        }
    }

    fn found(&mut self, finding: &Finding) {
        let score = check::score(finding.score);
        self.flagged = true;
        self.note(&finding.rule_name, Some(score));
        if let Some(category) = category_of(&finding.detector) {
            self.note(category, Some(score));
        }
    }

    fn note(&mut self, category: &str, score: Option<f64>) {
        let own = || category.to_owned();
        *self.categories.entry(own()).or_default() |= score.is_some();
        let highest = self.category_scores.entry(own()).or_default();
        *highest = highest.max(score.unwrap_or_default());
        let kinds = self.category_applied_input_types.entry(own());
        kinds.or_insert_with(|| vec!["text".to_owned()]);
    }
}

/// The category of OpenAI's that a finding is one of, if it is of any.
fn category_of(detector: &str) -> Option<&'static str> {
    match detector {
        "threat" => Some("harassment/threatening"),
        "insult" => Some("harassment"),
        scored if scored.starts_with("toxicity") => Some("harassment"),
        _ => None,
    }
}
