//! Gathering what a judge and people said of the same thing: on traces, or in an evaluation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base::{ProjectId, TraceId};
use db::catalog::Name;
use db::{PageRequest, Scope};
use serde_json::Value;
use stats::Preference;
use telemetry::{Score, Source};

use super::measure::{Item, Known, Said};
use super::{CalibrationRequest, Figure, SwapJson};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::{self, Desk, Evaluation};
use crate::evaluators::judge::{self, Verdict, Winner};
use crate::evaluators::{self, EvaluatorDocument, JudgeEvaluator, JudgeMode};
use crate::scores::THUMBS;

/// The chance that an interval misses.
const ALPHA: f64 = 0.05;
/// Evaluations that are looked through for other versions of a judge.
const LOOKED_AT: i64 = 200;
/// Versions that stand side by side.
const MOST_VERSIONS: usize = 8;
/// Versions of a document that are known by their digest.
const MOST_KNOWN: u32 = 100;

/// One version of a judge, with everything that it and people said.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    pub digest: String,
    pub number: Option<i64>,
    pub current: bool,
    pub signature: Option<String>,
    pub evaluation: Option<String>,
    pub known: Known,
    /// The candidates' names.
    pub groups: Vec<String>,
    pub items: Vec<Item>,
    pub swap: Option<SwapJson>,
    /// When it last judged, for the order.
    newest: i64,
}

/// Where people's labels are.
enum Against {
    Score(String),
    Expected,
    Metadata(String),
}

impl Against {
    fn parse(text: &str) -> Result<Self> {
        let name = |prefix: &str| text.strip_prefix(prefix).filter(|name| !name.is_empty());
        if let Some(name) = name("score:") {
            return Ok(Self::Score(name.to_owned()));
        }
        if let Some(name) = name("metadata.") {
            return Ok(Self::Metadata(name.to_owned()));
        }
        match text {
            "expected" => Ok(Self::Expected),
            _ => Err(AppError::invalid(
                "people's labels are in score:NAME, or in an evaluation in expected or metadata.FIELD",
            )
            .code("bad_against")
            .at("against")),
        }
    }
}

/// Everything that was asked for, the newest version first.
pub(super) async fn gather(
    app: &App,
    scope: Scope,
    request: &CalibrationRequest,
) -> Result<Vec<Version>> {
    let against = Against::parse(&request.against)?;
    match &request.evaluation {
        Some(id) => of_evaluation(app, scope, id, &request.evaluator, &against).await,
        None => match against {
            Against::Score(name) => of_traces(app, scope, &request.evaluator, &name).await,
            _ => Err(AppError::invalid(
                "only an evaluation has examples with labels; name it, or compare with score:NAME",
            )
            .code("bad_against")
            .at("against")),
        },
    }
}

/// What there is to choose from.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Names of evaluators.
    pub evaluators: Vec<String>,
    /// Where people's labels may be.
    pub against: Vec<String>,
}

/// What there is to choose from, in an evaluation or on all traces.
///
/// # Errors
/// There is no such evaluation.
pub async fn choices(app: &App, scope: Scope, evaluation: Option<&str>) -> Result<Choices> {
    let project = scope.project;
    let read = crate::traces::read(&app.telemetry, move |reader| reader.score_names(project));
    let names = read.await?;
    let is_people = |name: &str, source: Source| {
        source == Source::Human || (source == Source::Api && name == THUMBS)
    };
    let people = names.iter().filter(|one| is_people(&one.name, one.source));
    let mut against: BTreeSet<String> = people.map(|one| format!("score:{}", one.name)).collect();
    let Some(id) = evaluation else {
        let judges = names.iter().filter(|one| one.source == Source::Judge);
        let judges: BTreeSet<String> = judges.map(|one| one.name.clone()).collect();
        return Ok(Choices {
            evaluators: judges.into_iter().collect(),
            against: against.into_iter().collect(),
        });
    };
    let desk = Desk::of(app);
    let found = evaluations::find(desk, scope, id).await?;
    let fields = evaluations::metadata_fields(desk, &found).await;
    against.insert("expected".to_owned());
    against.extend(
        fields
            .unwrap_or_default()
            .iter()
            .map(|field| format!("metadata.{field}")),
    );
    let evaluators = found.pinned.evaluators.iter();
    Ok(Choices {
        evaluators: evaluators.map(|one| one.name.clone()).collect(),
        against: against.into_iter().collect(),
    })
}

// -- on traces -------------------------------------------------------------------------------

async fn of_traces(app: &App, scope: Scope, evaluator: &str, name: &str) -> Result<Vec<Version>> {
    let scores = read_scores(app, scope.project, &[evaluator, name]).await?;
    let people = people_by_trace(&scores, name);
    let mut judges: BTreeMap<String, BTreeMap<TraceId, &Score>> = BTreeMap::new();
    let by_time = {
        let own = |score: &&Score| score.name == evaluator && score.source == Source::Judge;
        let mut own: Vec<&Score> = scores.iter().filter(own).collect();
        own.sort_by_key(|score| (score.at_us, score.score_id));
        own
    };
    for score in by_time {
        let version = digest_of(score.author.as_deref().unwrap_or_default());
        judges
            .entry(version)
            .or_default()
            .insert(score.trace_id, score);
    }
    let catalog = catalog_versions(app, scope, evaluator).await?;
    let newest = catalog.iter().max_by_key(|(_, (number, _))| *number);
    let newest = newest.map(|(digest, _)| digest.clone());
    if let Some(newest) = &newest {
        // A version that judged nothing yet is shown: it has no baseline.
        judges.entry(newest.clone()).or_default();
    }
    let mut versions: Vec<Version> = Vec::new();
    for (digest, traces) in judges {
        let known = catalog.get(&digest);
        let item = |(unit, (trace, score)): (u64, (TraceId, &Score))| Item {
            group: 0,
            unit,
            judge: Some(said_of(score)),
            people: people.get(&trace).cloned().unwrap_or_default(),
        };
        versions.push(Version {
            number: known.map(|(number, _)| *number),
            signature: known.map(|(_, document)| document.signature()),
            known: known
                .map(|(_, document)| known_of(document))
                .unwrap_or_default(),
            current: newest.as_ref() == Some(&digest),
            newest: traces.values().map(|score| score.at_us).max().unwrap_or(0),
            groups: vec![String::new()],
            items: (0..).zip(traces).map(item).collect(),
            digest,
            ..Version::default()
        });
    }
    Ok(in_order(versions))
}

fn in_order(mut versions: Vec<Version>) -> Vec<Version> {
    versions.sort_by_key(|one| std::cmp::Reverse((one.current, one.number, one.newest)));
    versions.truncate(MOST_VERSIONS);
    versions
}

async fn read_scores(app: &App, project: ProjectId, names: &[&str]) -> Result<Vec<Score>> {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let names: Vec<String> = names.into_iter().collect();
    crate::traces::read(&app.telemetry, move |reader| {
        reader.scores_named(project, &names)
    })
    .await
}

/// What people said of each trace under a name. Each person counts once: the latest.
fn people_by_trace(scores: &[Score], name: &str) -> HashMap<TraceId, Vec<Said>> {
    let is_people = |score: &&Score| {
        let source = score.source == Source::Human
            // A thumb that comes through an application is one of its users'.
            || (name == THUMBS && score.source == Source::Api);
        score.name == name && source
    };
    let mut own: Vec<&Score> = scores.iter().filter(is_people).collect();
    own.sort_by_key(|score| (score.at_us, score.score_id));
    let mut latest: BTreeMap<(TraceId, String), &Score> = BTreeMap::new();
    for score in own {
        let author = match &score.author {
            Some(author) => author.clone(),
            None => score.score_id.to_string(),
        };
        latest.insert((score.trace_id, author), score);
    }
    let mut found: HashMap<TraceId, Vec<Said>> = HashMap::new();
    for ((trace, _), score) in latest {
        let taken_back = name == THUMBS && score.value == Some(0.0);
        if !taken_back {
            found.entry(trace).or_default().push(said_of(score));
        }
    }
    found
}

fn said_of(score: &Score) -> Said {
    Said {
        value: score.value.filter(|value| value.is_finite()),
        label: score.label.clone(),
    }
}

/// The version that an author's name holds: `evaluator:0123456789ab`.
fn digest_of(author: &str) -> String {
    let last = author.rsplit([':', '@']).next().unwrap_or_default();
    let is_hex = last.len() >= 12 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex {
        true => last.chars().take(12).collect(),
        false => author.to_owned(),
    }
}

/// The versions of an evaluator in the catalog, by the short form of their digest.
async fn catalog_versions(
    app: &App,
    scope: Scope,
    evaluator: &str,
) -> Result<HashMap<String, (i64, EvaluatorDocument)>> {
    let mut found = HashMap::new();
    let parsed: std::result::Result<Name, db::Problem> = evaluator.parse();
    let Ok(name) = parsed else {
        return Ok(found);
    };
    let page = PageRequest {
        cursor: None,
        limit: MOST_KNOWN,
    };
    let catalog = &app.catalog;
    let versions = catalog
        .list_versions(scope, evaluators::KIND, &name, &page)
        .await?
        .items;
    let digests: Vec<base::Digest> = versions.iter().map(|version| version.digest).collect();
    let documents = catalog.documents(scope.project, &digests).await?;
    for version in versions {
        let content = documents.get(&version.digest);
        let document = content.and_then(|content| EvaluatorDocument::parse(content).ok());
        if let Some(document) = document {
            // The same content may come back under a higher number.
            let known = found
                .entry(version.digest.short())
                .or_insert((version.number, document));
            known.0 = known.0.max(version.number);
        }
    }
    Ok(found)
}

fn known_of(document: &EvaluatorDocument) -> Known {
    let judge = judge_of(document);
    Known {
        range: document.range(),
        whole: judge.is_some_and(|judge| judge.mode == JudgeMode::Score),
        labels: judge.map(|judge| judge.labels.clone()).unwrap_or_default(),
    }
}

fn judge_of(document: &EvaluatorDocument) -> Option<&JudgeEvaluator> {
    match document {
        EvaluatorDocument::Judge(judge) => Some(judge),
        _ => None,
    }
}

// -- in an evaluation ------------------------------------------------------------------------

async fn of_evaluation(
    app: &App,
    scope: Scope,
    id: &str,
    evaluator: &str,
    against: &Against,
) -> Result<Vec<Version>> {
    let desk = Desk::of(app);
    let evaluation = evaluations::find(desk, scope, id).await?;
    let at = index_of(&evaluation, evaluator).ok_or_else(|| {
        AppError::invalid(format!("the evaluation has no evaluator {evaluator:?}"))
            .code("no_such_evaluator")
            .at("evaluator")
    })?;
    let mut chosen = vec![(at, evaluation)];
    let others = evaluations::list(desk, scope, None, None, LOOKED_AT).await?;
    let dataset = chosen[0].1.pinned.dataset.name.clone();
    let mut seen = BTreeSet::from([chosen[0].1.pinned.evaluators[at].digest.to_string()]);
    for other in others {
        let Some(at) = index_of(&other, evaluator) else {
            continue;
        };
        let digest = other.pinned.evaluators[at].digest.to_string();
        let same_data = other.pinned.dataset.name == dataset;
        if same_data && chosen.len() < MOST_VERSIONS && seen.insert(digest) {
            chosen.push((at, other));
        }
    }
    let people = match against {
        Against::Score(name) => {
            people_by_trace(&read_scores(app, scope.project, &[name]).await?, name)
        }
        _ => HashMap::new(),
    };
    let mut versions = Vec::new();
    for (index, (at, evaluation)) in chosen.iter().enumerate() {
        let mut version = version_of(desk, evaluation, *at, against, &people).await?;
        version.current = index == 0;
        versions.push(version);
    }
    Ok(in_order(versions))
}

fn index_of(evaluation: &Evaluation, evaluator: &str) -> Option<usize> {
    let mut evaluators = evaluation.pinned.evaluators.iter();
    evaluators.position(|one| one.name == evaluator)
}

async fn version_of(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    at: usize,
    against: &Against,
    people: &HashMap<TraceId, Vec<Said>>,
) -> Result<Version> {
    let pinned = &evaluation.pinned.evaluators[at];
    let gold = gold_labels(desk, evaluation, against).await?;
    let judged = evaluations::judged(desk, evaluation, at).await?;
    let items = judged.into_iter().map(|answer| {
        let of_trace = || {
            let trace: Option<TraceId> = answer.trace.parse().ok();
            trace.and_then(|trace| people.get(&trace)).cloned()
        };
        let people = match against {
            Against::Score(_) => of_trace().unwrap_or_default(),
            _ => gold.get(&answer.cell.place).cloned().into_iter().collect(),
        };
        Item {
            group: answer.cell.candidate,
            unit: u64::try_from(answer.cell.place).unwrap_or(0),
            judge: Some(Said {
                value: Some(answer.value),
                label: answer.label,
            }),
            people,
        }
    });
    let groups = evaluation.document.candidates.iter();
    Ok(Version {
        digest: pinned.digest.short(),
        number: pinned.version,
        signature: Some(pinned.signature.clone()),
        evaluation: Some(evaluation.id.clone()),
        known: known_of(&pinned.document),
        groups: groups.map(|one| one.name.clone()).collect(),
        items: items.collect(),
        swap: swap(desk, evaluation, at).await?,
        newest: evaluation.created_at,
        current: false,
    })
}

/// The labels that examples bear, by place.
async fn gold_labels(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    against: &Against,
) -> Result<HashMap<i64, Said>> {
    let mut gold = HashMap::new();
    if matches!(against, Against::Score(_)) {
        return Ok(gold);
    }
    evaluations::each_example(desk, evaluation, |place, example| {
        let value = match against {
            Against::Metadata(field) => example.metadata.get(field),
            _ => example.expected.as_ref(),
        };
        if let Some(said) = value.and_then(said_in) {
            gold.insert(place, said);
        }
        true
    })
    .await?;
    Ok(gold)
}

fn said_in(value: &Value) -> Option<Said> {
    match value {
        Value::Number(number) => Some(Said {
            value: number.as_f64().filter(|value| value.is_finite()),
            label: None,
        }),
        Value::Bool(yes) => Some(Said {
            value: Some(f64::from(u8::from(*yes))),
            label: Some(yes.to_string()),
        }),
        Value::String(text) => Some(Said {
            value: text
                .trim()
                .parse()
                .ok()
                .filter(|value: &f64| value.is_finite()),
            label: Some(text.trim().to_owned()),
        }),
        _ => None,
    }
}

/// How a judge of pairs answers when the places are exchanged.
async fn swap(desk: Desk<'_>, evaluation: &Evaluation, at: usize) -> Result<Option<SwapJson>> {
    let document = &evaluation.pinned.evaluators[at].document;
    let Some(judge) = judge_of(document).filter(|_| document.is_pairwise()) else {
        return Ok(None);
    };
    let details = evaluations::details(desk, evaluation, at).await?;
    let mut answers = Vec::new();
    let (mut consistent, mut compared) = (0, 0);
    let mut all_kept = true;
    for (_, detail) in &details {
        let pairs = detail["compared"].as_u64().unwrap_or(0);
        compared += pairs;
        consistent += detail["consistent"].as_u64().unwrap_or(0);
        match both_answers(judge, detail) {
            Some(found) if found.len() as u64 == pairs => answers.extend(found),
            _ => all_kept = false,
        }
    }
    if compared == 0 {
        return Ok(None);
    }
    let share = stats::wilson(consistent, compared, ALPHA);
    #[expect(clippy::cast_precision_loss, reason = "counts of pairs")]
    let rate = consistent as f64 / compared as f64;
    let places = all_kept.then(|| stats::swap_consistency(&answers, ALPHA));
    Ok(Some(SwapJson {
        pairs: compared,
        consistent,
        share: Figure {
            value: rate,
            low: Some(share.low),
            high: Some(share.high),
        },
        first_place: places.map(|found| found.first_place),
        second_place: places.map(|found| found.second_place),
        place_p_value: places.map(|found| found.place_p_value),
    }))
}

/// The answers to each pair in both orders, by candidate: the judged one is the first.
/// `None` where not every question was answered, for then it is not known which belong
/// together.
fn both_answers(judge: &JudgeEvaluator, detail: &Value) -> Option<Vec<(Preference, Preference)>> {
    let replies = detail["replies"].as_array()?.iter();
    let winners: Vec<Winner> = replies
        .filter(|reply| reply.get("problem").is_none() && reply.get("error").is_none())
        .filter_map(|reply| judge::read(judge, reply["reply"].as_str()?).ok())
        .filter_map(|reply| match reply.verdict {
            Verdict::Winner(winner) => Some(winner),
            _ => None,
        })
        .collect();
    let asked = judge.jurors().count() * judge.samples as usize * 2;
    if winners.len() != asked {
        return None;
    }
    let straight = |winner: Winner| match winner {
        Winner::First => Preference::First,
        Winner::Second => Preference::Second,
        Winner::Tie => Preference::Tie,
    };
    let swapped = |winner: Winner| match winner {
        Winner::First => Preference::Second,
        Winner::Second => Preference::First,
        Winner::Tie => Preference::Tie,
    };
    let pair = |both: &[Winner]| (straight(both[0]), swapped(both[1]));
    Some(winners.chunks_exact(2).map(pair).collect())
}
