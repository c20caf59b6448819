//! Calibration: how far a judge agrees with people, and what its numbers are worth then.
//!
//! | file | owns |
//! |---|---|
//! | `pairs.rs` | gathering what a judge and people said of the same thing |
//! | `measure.rs` | the scale that both are read on; agreement, bias, corrected means |
//! | `api.rs`, `pages.rs` | the JSON route and the page |
//!
//! A judge is the digest of its document. Whatever changes it, a model, a criterion, an
//! anchor, starts a baseline of its own: figures of two versions stand side by side and
//! are never mixed. Any evaluator can be calibrated, not only models.

mod api;
mod measure;
mod pages;
mod pairs;

use db::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;

pub use pairs::{Choices, choices};

/// Fewer pairs than this are no baseline.
pub const ENOUGH_PAIRS: u64 = 30;

/// Page and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// What is set beside each other.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRequest {
    /// The evaluator: its name in the catalog, or in the evaluation.
    pub evaluator: String,
    /// The evaluation whose answers it judged; every judged trace when absent.
    #[serde(default)]
    pub evaluation: Option<String>,
    /// Where people's labels are: `score:NAME` for their scores on the traces; in an
    /// evaluation also `expected` or `metadata.FIELD` of the examples.
    pub against: String,
    /// The scale that both are read on; what fits when absent.
    #[serde(default)]
    pub scale: Option<ScaleWord>,
    /// With the scale `pass`: the judge's yes is at least this.
    #[serde(default)]
    pub judge_at_least: Option<f64>,
    /// With the scale `pass`: people's yes is at least this.
    #[serde(default)]
    pub people_at_least: Option<f64>,
}

/// How judge and people are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "CalibrationScaleKind")]
pub enum ScaleWord {
    /// By their words.
    Labels,
    /// By a few numbers.
    Grades,
    /// By yes and no, with a threshold on each side.
    Pass,
    /// By numbers as they are: no table and no κ.
    Numbers,
}

impl ScaleWord {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Grades => "grades",
            Self::Pass => "pass",
            Self::Numbers => "numbers",
        }
    }
}

/// How far a judge agrees with people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Calibration {
    /// The evaluator.
    pub evaluator: String,
    /// Where people's labels are.
    pub against: String,
    /// The evaluation whose answers were judged; none for every judged trace.
    pub evaluation: Option<String>,
    /// The scale that everything here is read on.
    pub scale: ScaleJson,
    /// Each version of the judge by itself, the newest first.
    pub versions: Vec<VersionJson>,
}

/// The scale that judge and people are read on.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationScale")]
pub struct ScaleJson {
    /// Which.
    pub kind: ScaleWord,
    /// Its categories in their order; none for plain numbers.
    pub categories: Vec<String>,
    /// Whether the categories have an order.
    pub ordered: bool,
    /// The judge's threshold.
    pub judge_at_least: Option<f64>,
    /// People's threshold.
    pub people_at_least: Option<f64>,
}

/// One version of a judge beside people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationVersion")]
pub struct VersionJson {
    /// The first twelve digits of its content's digest.
    pub digest: String,
    /// Its number in the catalog, where it is there.
    pub version: Option<i64>,
    /// Whether it is the newest of the catalog, or the one of the evaluation.
    pub current: bool,
    /// What its numbers are signed with.
    pub signature: Option<String>,
    /// The evaluation that this is from, where it is one.
    pub evaluation: Option<String>,
    /// Whether there are enough pairs to rely on: 30.
    pub is_baseline: bool,
    /// The figures.
    #[serde(flatten)]
    pub figures: VersionFigures,
    /// Of a judge of pairs: whether exchanging the places changes its mind.
    pub swap: Option<SwapJson>,
}

/// A number with its 95 % interval, as far as that is known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationFigure")]
pub struct Figure {
    /// The number.
    pub value: f64,
    /// The lower end.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

/// What one version of a judge shows beside people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationFigures")]
pub struct VersionFigures {
    /// What the judge scored.
    pub judged: u64,
    /// What both scored.
    pub pairs: u64,
    /// Pairs that are left out of table and κ: people evenly split, or no such category.
    pub split: u64,
    /// The most people that labelled one thing.
    pub raters: u64,
    /// The share of pairs with the same category.
    pub agreement: Option<Figure>,
    /// Cohen's κ; none where one category was used only.
    pub kappa: Option<Figure>,
    /// κ with quadratic weights, for categories with an order.
    pub weighted_kappa: Option<Figure>,
    /// Krippendorff's α of the judge and every person.
    pub alpha: Option<f64>,
    /// Krippendorff's α of the people alone: what can be hoped for.
    pub alpha_people: Option<f64>,
    /// What α counts: `nominal`, `ordinal` or `interval`.
    pub alpha_level: String,
    /// Each category by itself.
    pub labels: Vec<LabelRow>,
    /// How often people gave the row's and the judge the column's category.
    pub confusion: Vec<Vec<u64>>,
    /// Judge less people.
    pub bias: Option<Figure>,
    /// The mean of each candidate: raw, and corrected by what people said.
    pub headlines: Vec<Headline>,
}

/// One category.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationCategory")]
pub struct LabelRow {
    /// The category.
    pub name: String,
    /// How often people gave it.
    pub people: u64,
    /// How often the judge gave it.
    pub judge: u64,
    /// How often both did.
    pub both: u64,
    /// Of all its uses, the share that the other side confirms.
    pub agreement: Option<f64>,
}

/// A mean that rests on a judge and on people.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationHeadline")]
pub struct Headline {
    /// Whose; empty where there are no candidates.
    pub candidate: String,
    /// The judge's mean over everything that it scored.
    pub raw: Figure,
    /// The same, corrected by prediction-powered inference (PPI++). Right when what people
    /// labelled was drawn at random.
    pub corrected: Option<Figure>,
    /// The mean of what people labelled, without the judge.
    pub people: Option<Figure>,
    /// How much people labelled.
    pub labelled: u64,
    /// How much only the judge scored.
    pub unlabelled: u64,
    /// How far the judge was trusted: 0 not at all, 1 as it is.
    pub trust: f64,
}

/// A judge of pairs, asked in both orders.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CalibrationSwap")]
pub struct SwapJson {
    /// Pairs.
    pub pairs: u64,
    /// Those with the same answer both times.
    pub consistent: u64,
    /// Their share.
    pub share: Figure,
    /// Pairs where what came first won both times; none where it was not kept.
    pub first_place: Option<u64>,
    /// Pairs where what came second won both times.
    pub second_place: Option<u64>,
    /// Of "the place does not matter".
    pub place_p_value: Option<f64>,
}

/// How far a judge agrees with people.
///
/// # Errors
/// There is no such evaluation or evaluator, or `against` names nothing.
pub async fn calibrate(
    app: &App,
    scope: Scope,
    request: &CalibrationRequest,
) -> Result<Calibration> {
    for threshold in [request.judge_at_least, request.people_at_least] {
        if threshold.is_some_and(|least| !least.is_finite()) {
            return Err(AppError::invalid("a threshold is a finite number").at("judge_at_least"));
        }
    }
    let gathered = pairs::gather(app, scope, request).await?;
    let wish = measure::Wish {
        scale: request.scale,
        judge_at_least: request.judge_at_least,
        people_at_least: request.people_at_least,
    };
    let computed = tokio::task::spawn_blocking(move || compute(gathered, wish)).await;
    let (scale, versions) = computed.map_err(AppError::internal)?;
    Ok(Calibration {
        evaluator: request.evaluator.clone(),
        against: request.against.clone(),
        evaluation: request.evaluation.clone(),
        scale,
        versions,
    })
}

fn compute(gathered: Vec<pairs::Version>, wish: measure::Wish) -> (ScaleJson, Vec<VersionJson>) {
    let current = gathered.iter().find(|version| version.current);
    let known = current
        .or_else(|| gathered.first())
        .map(|version| version.known.clone())
        .unwrap_or_default();
    let all: Vec<&measure::Item> = gathered.iter().flat_map(|version| &version.items).collect();
    let scale = measure::Scale::choose(&all, &known, wish);
    let version = |version: pairs::Version| {
        let figures = measure::figures(&version.items, &scale, &version.known, &version.groups);
        VersionJson {
            digest: version.digest,
            version: version.number,
            current: version.current,
            signature: version.signature,
            evaluation: version.evaluation,
            is_baseline: figures.pairs >= ENOUGH_PAIRS,
            figures,
            swap: version.swap,
        }
    };
    (scale.shown(), gathered.into_iter().map(version).collect())
}
