//! Filling a queue: which traces, examples or answers come in, and in what order.
//!
//! Whatever is picked for a reason is no sample of the whole. So a part can be drawn at
//! random from everything that was found, before anything else is picked; what was drawn is
//! marked with its chance, and estimates that rest on it alone stay unbiased. Drawing goes
//! by a hash of seed and subject: the same again, in whatever order things are found.

use std::collections::{HashMap, HashSet};

use base::{Digest, SpanId, TraceId};
use db::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use telemetry::{Score, TraceRow};

use super::snapshot::{MOST_BYTES, Snapshot, Taken, mask_value, of_example};
use super::store::{self, At, FillRow, NewItem};
use super::{Desk, Queue, find_queue};
use crate::app::App;
use crate::catalog::parse_selector;
use crate::datasets::{Example, Picked, Source, SplitFilter, Verdict, parse_name, span_example};
use crate::error::{AppError, Result};
use crate::evaluations::{self, Evaluation};
use crate::traces::{AskText, read};

/// Items of one fill.
const MOST_ITEMS: usize = 1000;
const ITEMS: usize = 100;
/// What one fill looks through.
const MOST_FOUND: usize = 50_000;

/// What comes into a queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewFillRequest")]
pub struct FillRequest {
    /// Where from.
    pub source: FillSource,
    /// Which of what is there; all unless told.
    #[serde(default)]
    pub pick: Pick,
    /// The score, or the evaluator of an evaluation, that the pick goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// The value near which a score is uncertain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The worst scores are the highest ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub highest: bool,
    /// How many are picked, 100 unless told, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How many are drawn at random beside those that are picked.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub random: usize,
    /// For drawing: the same seed draws the same.
    #[serde(default)]
    pub seed: u64,
    /// Items with a higher one are given out first.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub priority: i64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_nothing(number: &usize) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_usual(number: &i64) -> bool {
    *number == 0
}

/// Where items come from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReviewFillSource")]
pub enum FillSource {
    /// What this finds, as `GET /api/v1/traces` takes it.
    Traces(AskText),
    /// These traces, each with the span that is meant.
    Picked(Vec<Picked>),
    /// Examples of a dataset.
    Dataset(DatasetSource),
    /// Answers of an evaluation.
    Evaluation(EvaluationSource),
}

/// Examples of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewDatasetSource")]
pub struct DatasetSource {
    /// The dataset.
    pub name: String,
    /// Which version; the newest unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Only those of this split; `~none` for those in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Only those without an expected output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlabelled: bool,
}

/// Answers of an evaluation: of one candidate, or of two side by side.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReviewEvaluationSource")]
pub struct EvaluationSource {
    /// The evaluation.
    pub id: String,
    /// The candidate; the first that is not the baseline unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Beside this candidate: raters choose between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
}

/// Which of what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReviewPick")]
pub enum Pick {
    /// All, the newest first.
    #[default]
    All,
    /// Drawn at random.
    Random,
    /// Those with the worst score; of a pair those where the candidate lost most.
    Worst,
    /// Those whose score is nearest to the threshold, or whose judges' grades lie furthest
    /// apart where there is none; of a pair those that differ least.
    Uncertain,
    /// Those whose scores contradict each other: people, judges and programs, or evaluators.
    Disagreement,
    /// Those that users gave a thumb down, or that somebody called bad.
    BadFeedback,
}

/// What came in.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewFilled")]
pub struct Filled {
    /// How many there were to choose from.
    pub population: usize,
    /// How many items are new.
    pub added: usize,
    /// How many of these were drawn at random.
    pub drawn: usize,
    /// How many are in the queue already.
    pub known: usize,
    /// How many were left out: too large, without input, or without an answer.
    pub left_out: usize,
}

/// What may come in, before anything of it is read.
struct Found {
    subject: String,
    handle: Handle,
    /// How much it is what the pick looks for; `None` if not at all.
    rank: Option<f64>,
}

/// How to read it.
enum Handle {
    Span(TraceId, Option<SpanId>),
    Example(String),
    Place(i64),
}

/// Fills a queue. What it has already is left as it is.
///
/// # Errors
/// There is no such queue or source, the pick does not go with it, or more is found than
/// one fill looks through.
pub async fn fill(app: &App, scope: Scope, queue: &str, request: &FillRequest) -> Result<Filled> {
    let queue = find_queue(Desk::of(app), scope, queue).await?;
    check(request)?;
    let at = At {
        project: scope.project,
        queue: &queue.name,
    };
    let opened = open(app, scope, request).await?;
    let found = opened.find(app, scope, request).await?;
    let population = found.len();
    let known = store::subjects(&app.db, at).await?;
    let chosen = choose(found, request, &known);
    let mut filled = Filled {
        population,
        added: 0,
        drawn: 0,
        known: chosen.known,
        left_out: 0,
    };
    let wanted = overlap(&queue, &chosen.items);
    let mut items = Vec::new();
    let taken = opened.take(app, scope, &queue, &chosen.items).await?;
    for ((chosen, taken), wanted) in chosen.items.into_iter().zip(taken).zip(wanted) {
        let Some(taken) = taken.filter(|taken| fits(&taken.snapshot)) else {
            filled.left_out += 1;
            continue;
        };
        items.push(NewItem {
            kind: opened.kind(),
            subject: chosen.found.subject,
            snapshot: taken.snapshot,
            facts: taken.facts,
            wanted,
            priority: request.priority,
            chance: chosen.chance,
        });
    }
    save(app, scope, at, request, &mut filled, items).await?;
    Ok(filled)
}

fn fits(snapshot: &Snapshot) -> bool {
    serde_json::to_vec(snapshot).is_ok_and(|bytes| bytes.len() <= MOST_BYTES)
}

async fn save(
    app: &App,
    scope: Scope,
    at: At<'_>,
    request: &FillRequest,
    filled: &mut Filled,
    items: Vec<NewItem>,
) -> Result<()> {
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    let mut seq = store::next_seq(&mut tx, at).await?;
    for item in &items {
        if store::insert_item(&mut tx, at, seq, item).await? {
            seq += 1;
            filled.added += 1;
            filled.drawn += usize::from(item.chance.is_some());
        } else {
            filled.known += 1;
        }
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let row = FillRow {
        request: serde_json::to_value(request).unwrap_or_default(),
        population: count(filled.population),
        added: count(filled.added),
        drawn: count(filled.drawn),
        by: scope.actor.to_string(),
        at: app.db.now_us(),
    };
    store::insert_fill(&mut tx, at, &row).await?;
    let detail = json!({
        "population": filled.population, "added": filled.added, "drawn": filled.drawn,
        "pick": request.pick, "seed": request.seed,
    });
    let line = db::audit::Line::new(scope, "review_queue.fill", at.queue);
    line.detail(detail).write(&mut tx).await?;
    Ok(tx.commit().await?)
}

fn check(request: &FillRequest) -> Result<()> {
    let limit = request.limit.unwrap_or(ITEMS);
    if !(1..=MOST_ITEMS).contains(&limit) {
        let message = format!("a fill takes 1 to {MOST_ITEMS} items");
        return Err(AppError::invalid(message).at("limit"));
    }
    if request.random > MOST_ITEMS {
        let message = format!("a fill draws at most {MOST_ITEMS} items");
        return Err(AppError::invalid(message).at("random"));
    }
    if request
        .threshold
        .is_some_and(|threshold| !threshold.is_finite())
    {
        return Err(AppError::invalid("a threshold is a number").at("threshold"));
    }
    let needs_score = request.pick == Pick::Worst
        || (request.pick == Pick::Uncertain && request.threshold.is_some());
    let is_evaluation = matches!(request.source, FillSource::Evaluation(_));
    if needs_score && request.score.is_none() && !is_evaluation {
        return Err(AppError::invalid("say by which score").at("score"));
    }
    Ok(())
}

struct Chosen {
    found: Found,
    chance: Option<f64>,
}

struct Choice {
    items: Vec<Chosen>,
    /// Those that were picked and are in the queue already.
    known: usize,
}

/// Draws, then picks from the rest, and mixes the two so that both get done.
fn choose(found: Vec<Found>, request: &FillRequest, known: &HashSet<String>) -> Choice {
    let limit = request.limit.unwrap_or(ITEMS);
    let population = found.len();
    let draws = match request.pick {
        Pick::Random => limit + request.random,
        // Everything is a sample of which each was certain to be part.
        Pick::All if population <= limit => population,
        _ => request.random,
    };
    let mut by_hash: Vec<(u64, usize)> = found
        .iter()
        .enumerate()
        .map(|(index, found)| (hash(request.seed, &found.subject), index))
        .collect();
    by_hash.sort_unstable();
    let drawn: HashSet<usize> = by_hash
        .iter()
        .take(draws)
        .map(|(_, index)| *index)
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let chance = drawn.len() as f64 / population.max(1) as f64;
    let keep_order = request.pick == Pick::All;
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    let mut left_known = 0;
    for (index, one) in found.iter().enumerate() {
        if drawn.contains(&index) {
            continue;
        }
        match one.rank {
            Some(_) if known.contains(&one.subject) => left_known += 1,
            Some(rank) if request.pick != Pick::Random => ranked.push((rank, index)),
            _ => {}
        }
    }
    if !keep_order {
        ranked.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    }
    ranked.truncate(limit);
    let drawn = by_hash.iter().take(draws).map(|(_, index)| *index);
    let drawn: Vec<usize> = if request.pick == Pick::All {
        let mut drawn: Vec<usize> = drawn.collect();
        drawn.sort_unstable();
        drawn
    } else {
        drawn.collect()
    };
    let place = |index: usize, of: usize| (2 * index + 1) * (u32::MAX as usize) / (2 * of.max(1));
    let mut order: Vec<(usize, usize, bool)> = Vec::new();
    for (at, index) in drawn.iter().enumerate() {
        order.push((place(at, drawn.len()), *index, true));
    }
    for (at, (_, index)) in ranked.iter().enumerate() {
        order.push((place(at, ranked.len()), *index, false));
    }
    order.sort_unstable();
    let mut by_index: HashMap<usize, Found> = found.into_iter().enumerate().collect();
    let items = order.into_iter().filter_map(|(_, index, is_drawn)| {
        let found = by_index.remove(&index)?;
        let chance = is_drawn.then_some(chance);
        Some(Chosen { found, chance })
    });
    Choice {
        items: items.collect(),
        known: left_known,
    }
}

fn hash(seed: u64, subject: &str) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&Digest::of(format!("{seed} {subject}").as_bytes()).0[..8]);
    u64::from_be_bytes(bytes)
}

/// How many raters each item is for: all of them for the overlap's share, one for the rest.
/// Which ones these are has nothing to do with why they came in.
fn overlap(queue: &Queue, items: &[Chosen]) -> Vec<i64> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of at most 2000 items"
    )]
    let shared = (items.len() as f64 * queue.document.overlap).round() as usize;
    let name = format!("overlap of {}", queue.name);
    let mut by_hash: Vec<(Digest, usize)> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let text = format!("{name} {}", item.found.subject);
            (Digest::of(text.as_bytes()), index)
        })
        .collect();
    by_hash.sort_unstable_by_key(|(digest, _)| digest.0);
    let mut wanted = vec![1; items.len()];
    for (_, index) in by_hash.into_iter().take(shared) {
        wanted[index] = i64::from(queue.document.raters);
    }
    wanted
}

/// A source, looked up.
enum Opened<'a> {
    Traces(&'a AskText),
    Picked(&'a [Picked]),
    Dataset(&'a DatasetSource, Box<crate::datasets::Found>),
    Answers(Box<Answers>),
}

/// An evaluation with the candidates that are judged.
struct Answers {
    evaluation: Evaluation,
    evaluator: usize,
    candidate: usize,
    against: Option<usize>,
}

async fn open<'a>(app: &App, scope: Scope, request: &'a FillRequest) -> Result<Opened<'a>> {
    let by_scores = matches!(
        request.pick,
        Pick::Worst | Pick::Uncertain | Pick::Disagreement
    );
    match &request.source {
        FillSource::Traces(query) => Ok(Opened::Traces(query)),
        FillSource::Picked(picked) if picked.is_empty() || picked.len() > MOST_ITEMS => {
            let message = format!("name 1 to {MOST_ITEMS} traces");
            Err(AppError::invalid(message).at("source.picked"))
        }
        FillSource::Picked(_) | FillSource::Dataset(_) if by_scores => {
            let message =
                "only traces that a filter finds, and evaluations, can be picked by scores";
            Err(AppError::invalid(message).code("no_scores").at("pick"))
        }
        FillSource::Picked(picked) => Ok(Opened::Picked(picked)),
        FillSource::Dataset(source) => {
            let selector = parse_selector(source.version.as_deref().unwrap_or("latest"))?;
            let name = parse_name(&source.name)?;
            let found = app.datasets.version(scope, &name, &selector).await?;
            Ok(Opened::Dataset(source, Box::new(found)))
        }
        FillSource::Evaluation(source) => answers(app, scope, request, source).await,
    }
}

async fn answers<'a>(
    app: &App,
    scope: Scope,
    request: &FillRequest,
    source: &EvaluationSource,
) -> Result<Opened<'a>> {
    let desk = evaluations::Desk::of(app);
    let evaluation = evaluations::find(desk, scope, &source.id).await?;
    let none = |what: &str, name: &str| {
        AppError::not_found(format!("the evaluation has no {what} {name:?}")).code("not_found")
    };
    let candidates = &evaluation.document.candidates;
    let position = |name: &str| {
        let found = candidates.iter().position(|one| one.name == name);
        found.ok_or_else(|| none("candidate", name))
    };
    let baseline = evaluation.document.baseline();
    let candidate = match &source.candidate {
        Some(name) => position(name)?,
        None => (0..candidates.len())
            .find(|index| *index != baseline)
            .unwrap_or(baseline),
    };
    let against = source.against.as_deref().map(position).transpose()?;
    if against == Some(candidate) {
        return Err(AppError::invalid("a pair is two candidates").at("source.against"));
    }
    let evaluators = &evaluation.pinned.evaluators;
    let evaluator = match &request.score {
        Some(name) => {
            let found = evaluators.iter().position(|one| one.name == *name);
            found.ok_or_else(|| none("evaluator", name))?
        }
        None => 0,
    };
    if request.pick == Pick::BadFeedback {
        let message = "answers of an evaluation have no feedback";
        return Err(AppError::invalid(message).code("no_scores").at("pick"));
    }
    if request.pick == Pick::Uncertain && against.is_none() && request.threshold.is_none() {
        let message = "say the value near which a score is uncertain";
        return Err(AppError::invalid(message).at("threshold"));
    }
    Ok(Opened::Answers(Box::new(Answers {
        evaluation,
        evaluator,
        candidate,
        against,
    })))
}

impl Opened<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Traces(_) | Self::Picked(_) => "trace",
            Self::Dataset(..) => "example",
            Self::Answers(answers) if answers.against.is_some() => "pair",
            Self::Answers(_) => "answer",
        }
    }

    /// Everything that may come in.
    async fn find(&self, app: &App, scope: Scope, request: &FillRequest) -> Result<Vec<Found>> {
        match self {
            Self::Traces(query) => find_traces(app, scope, query, request).await,
            Self::Picked(picked) => find_picked(picked),
            Self::Dataset(source, found) => find_examples(app, scope, source, found, request).await,
            Self::Answers(answers) => answers.find(app, request).await,
        }
    }

    /// Reads what was chosen; `None` for what cannot be shown.
    async fn take(
        &self,
        app: &App,
        scope: Scope,
        queue: &Queue,
        chosen: &[Chosen],
    ) -> Result<Vec<Option<Taken>>> {
        let mask = queue.document.mask;
        if let Self::Dataset(source, found) = self {
            return take_examples(app, scope, source, found, chosen, mask).await;
        }
        let mut taken = Vec::with_capacity(chosen.len());
        for one in chosen {
            taken.push(match (&one.found.handle, self) {
                (Handle::Span(trace, span), _) => {
                    take_span(app, scope, *trace, *span, mask).await?
                }
                (Handle::Place(place), Self::Answers(answers)) => {
                    answers.take(app, *place, mask).await?
                }
                _ => None,
            });
        }
        Ok(taken)
    }
}

fn too_many() -> AppError {
    AppError::invalid(format!(
        "this finds more than {MOST_FOUND}; nothing was added"
    ))
    .code("too_many_found")
    .hint("narrow the filter or the time")
    .at("source")
}

async fn find_traces(
    app: &App,
    scope: Scope,
    query: &AskText,
    request: &FillRequest,
) -> Result<Vec<Found>> {
    let ask = query.parse(app.clock.now_us())?;
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let question = ask.list(scope.project, telemetry::limits::PAGE_ROWS, cursor);
        let page = read(&app.telemetry, move |reader| reader.list(&question)).await?;
        for row in page.rows {
            let span = &row.stored.span;
            let span_id = span.parent.map(|_| span.span_id);
            found.push(Found {
                subject: subject_of_span(span.trace_id, span_id),
                handle: Handle::Span(span.trace_id, span_id),
                rank: rank_of(&row, request),
            });
        }
        if found.len() > MOST_FOUND {
            return Err(too_many());
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

fn subject_of_span(trace: TraceId, span: Option<SpanId>) -> String {
    match span {
        Some(span) => format!("span:{trace}:{span}"),
        None => format!("trace:{trace}"),
    }
}

fn find_picked(picked: &[Picked]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for (index, one) in picked.iter().enumerate() {
        let at = format!("source.picked.{index}");
        let trace = crate::traces::trace_id(&one.trace).map_err(|error| error.at(&at))?;
        let span = one.span.as_deref().filter(|span| !span.is_empty());
        let span: Option<SpanId> = span
            .map(|span| {
                let missing = AppError::not_found("there is no span with this id in the trace");
                span.parse().map_err(|_| missing.at(&at))
            })
            .transpose()?;
        let subject = subject_of_span(trace, span);
        if seen.insert(subject.clone()) {
            found.push(Found {
                subject,
                handle: Handle::Span(trace, span),
                rank: Some(0.0),
            });
        }
    }
    Ok(found)
}

/// How much a trace is what the pick looks for: higher is more.
fn rank_of(row: &TraceRow, request: &FillRequest) -> Option<f64> {
    let named = |score: &&Score| {
        request
            .score
            .as_ref()
            .is_none_or(|name| score.name == *name)
    };
    let scores: Vec<&Score> = row.scores.iter().filter(named).collect();
    match request.pick {
        Pick::All | Pick::Random => Some(0.0),
        Pick::Worst => {
            let value = scores.iter().rev().find_map(|score| score.value)?;
            Some(if request.highest { value } else { -value })
        }
        Pick::Uncertain => match request.threshold {
            Some(threshold) => {
                let value = scores.iter().rev().find_map(|score| score.value)?;
                Some(-(value - threshold).abs())
            }
            None => by_name(&scores)
                .into_values()
                .filter_map(|of| spread(&of))
                .reduce(f64::max),
        },
        Pick::Disagreement => {
            let found = by_name(&scores).into_values();
            found.filter_map(|of| contradiction(&of)).reduce(f64::max)
        }
        Pick::BadFeedback => {
            let bad = row.scores.iter().filter(|score| {
                let is_thumb = score.name == crate::scores::THUMBS;
                let is_asked = request.score.as_ref() == Some(&score.name);
                (is_thumb || is_asked) && score.value.is_some_and(|value| value < 0.0)
            });
            let bad = bad.count();
            #[expect(clippy::cast_precision_loss, reason = "a few scores")]
            (bad > 0).then_some(bad as f64)
        }
    }
}

fn by_name<'a>(scores: &[&'a Score]) -> HashMap<&'a str, Vec<&'a Score>> {
    let mut found: HashMap<&str, Vec<&Score>> = HashMap::new();
    for score in scores {
        found.entry(&score.name).or_default().push(score);
    }
    found
}

/// The variance of the numbers of one score, where there are several.
fn spread(scores: &[&Score]) -> Option<f64> {
    let values: Vec<f64> = scores.iter().filter_map(|score| score.value).collect();
    if values.len() < 2 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a few scores")]
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / (n - 1.0);
    (variance > 0.0).then_some(variance)
}

/// How far scores of one name contradict each other: numbers by their range, words by being
/// different at all.
fn contradiction(scores: &[&Score]) -> Option<f64> {
    let values = scores.iter().filter_map(|score| score.value);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high > low {
        return Some(high - low);
    }
    let words: HashSet<&str> = scores
        .iter()
        .filter_map(|score| score.label.as_deref())
        .collect();
    (words.len() > 1).then_some(1.0)
}

async fn take_span(
    app: &App,
    scope: Scope,
    trace: TraceId,
    span: Option<SpanId>,
    mask: bool,
) -> Result<Option<Taken>> {
    let picked = Picked {
        trace: trace.to_string(),
        span: span.map(|span| span.to_string()),
    };
    let Some((_, example)) = span_example(app, scope, &picked).await? else {
        return Ok(None);
    };
    let mut taken = of_example(example, mask);
    taken.facts["targets"] = json!([picked]);
    Ok(Some(taken))
}

fn subject_of_example(dataset: &str, example: &Example) -> String {
    let content = example.content().map(|digest| digest.to_string());
    format!(
        "example:{dataset}:{}:{}",
        example.id,
        content.unwrap_or_default()
    )
}

async fn find_examples(
    app: &App,
    scope: Scope,
    source: &DatasetSource,
    dataset: &crate::datasets::Found,
    request: &FillRequest,
) -> Result<Vec<Found>> {
    let filter = crate::datasets::ExampleFilter {
        split: source.split.as_deref().map(SplitFilter::parse),
        labelled: source.unlabelled.then_some(false),
        ..crate::datasets::ExampleFilter::default()
    };
    let mut found = Vec::new();
    let mut reading = app.datasets.reading(scope, dataset)?;
    while let Some(examples) = reading.next().await? {
        for example in examples.iter().filter(|example| filter.takes(example)) {
            let is_bad = example.verdict == Some(Verdict::Bad);
            found.push(Found {
                subject: subject_of_example(&source.name, example),
                handle: Handle::Example(example.id.clone()),
                rank: (request.pick != Pick::BadFeedback || is_bad).then_some(0.0),
            });
        }
        if found.len() > MOST_FOUND {
            return Err(too_many());
        }
    }
    Ok(found)
}

async fn take_examples(
    app: &App,
    scope: Scope,
    source: &DatasetSource,
    dataset: &crate::datasets::Found,
    chosen: &[Chosen],
    mask: bool,
) -> Result<Vec<Option<Taken>>> {
    let ids = chosen.iter().enumerate().filter_map(|(index, one)| {
        let Handle::Example(id) = &one.found.handle else {
            return None;
        };
        Some((id.as_str(), index))
    });
    let wanted: HashMap<&str, usize> = ids.collect();
    let mut taken: Vec<Option<Taken>> = chosen.iter().map(|_| None).collect();
    let mut reading = app.datasets.reading(scope, dataset)?;
    let label = format!("dataset:{}@{}", source.name, dataset.version.number);
    while let Some(examples) = reading.next().await? {
        for example in examples {
            let Some(index) = wanted.get(example.id.as_str()) else {
                continue;
            };
            let target = example
                .source
                .trace
                .as_ref()
                .filter(|_| example.source.answer.is_some());
            let target = target.map(|trace| json!([{"trace": trace, "span": example.source.span}]));
            let mut one = of_example(example, mask);
            one.facts["dataset"] = json!(label);
            one.facts["targets"] = target.unwrap_or_else(|| json!([]));
            taken[*index] = Some(one);
        }
    }
    Ok(taken)
}

impl Answers {
    fn name(&self, candidate: usize) -> &str {
        let found = self.evaluation.document.candidates.get(candidate);
        found.map_or("", |one| one.name.as_str())
    }

    fn subject(&self, place: i64) -> String {
        let (id, candidate) = (&self.evaluation.id, self.name(self.candidate));
        match self.against {
            Some(against) => format!("pair:{id}:{place}:{candidate}:{}", self.name(against)),
            None => format!("answer:{id}:{place}:{candidate}"),
        }
    }

    async fn find(&self, app: &App, request: &FillRequest) -> Result<Vec<Found>> {
        let desk = evaluations::Desk::of(app);
        let rows = evaluations::differences(desk, &self.evaluation, self.evaluator, self.candidate)
            .await?;
        if rows.len() > MOST_FOUND {
            return Err(too_many());
        }
        let others = match (request.pick, self.against) {
            (Pick::Disagreement, None) => self.other_scores(app).await?,
            _ => HashMap::new(),
        };
        let mut found: Vec<Found> = rows
            .into_iter()
            .map(|row| {
                let rank = match (request.pick, self.against) {
                    (Pick::All | Pick::Random, _) => Some(0.0),
                    (Pick::Worst, Some(_)) => row.gain.map(|gain| -gain),
                    (Pick::Worst, None) => row
                        .candidate
                        .map(|score| if request.highest { score } else { -score }),
                    (Pick::Uncertain, Some(_)) => row.gain.map(|gain| -gain.abs()),
                    (Pick::Uncertain, None) => row
                        .candidate
                        .and_then(|score| Some(-(score - request.threshold?).abs())),
                    (Pick::Disagreement, Some(_)) => row.gain.map(f64::abs),
                    (Pick::Disagreement, None) => others.get(&row.place).copied(),
                    (Pick::BadFeedback, _) => None,
                };
                Found {
                    subject: self.subject(row.place),
                    handle: Handle::Place(row.place),
                    rank,
                }
            })
            .collect();
        found.sort_by_key(|one| match one.handle {
            Handle::Place(place) => place,
            Handle::Span(..) | Handle::Example(_) => 0,
        });
        Ok(found)
    }

    /// How far the evaluators of an answer are apart, by place. Each evaluator's scores are
    /// put on its own range first, so that 0 to 1 and 1 to 10 can be compared.
    async fn other_scores(&self, app: &App) -> Result<HashMap<i64, f64>> {
        let desk = evaluations::Desk::of(app);
        let mut ranges: HashMap<i64, (f64, f64)> = HashMap::new();
        for evaluator in 0..self.evaluation.pinned.evaluators.len() {
            let rows =
                evaluations::differences(desk, &self.evaluation, evaluator, self.candidate).await?;
            let scores = || {
                rows.iter()
                    .filter_map(|row| Some((row.place, row.candidate?)))
            };
            let low = scores()
                .map(|(_, score)| score)
                .fold(f64::INFINITY, f64::min);
            let high = scores()
                .map(|(_, score)| score)
                .fold(f64::NEG_INFINITY, f64::max);
            if high <= low {
                continue;
            }
            for (place, score) in scores() {
                let score = (score - low) / (high - low);
                let range = ranges.entry(place).or_insert((score, score));
                *range = (range.0.min(score), range.1.max(score));
            }
        }
        let apart = ranges
            .into_iter()
            .map(|(place, (low, high))| (place, high - low))
            .filter(|(_, apart)| *apart > 0.0);
        Ok(apart.collect())
    }

    async fn take(&self, app: &App, place: i64, mask: bool) -> Result<Option<Taken>> {
        let desk = evaluations::Desk::of(app);
        let detail = evaluations::example(desk, &self.evaluation, place).await?;
        let sides = [Some(self.candidate), self.against];
        let mut answers = Vec::new();
        let mut targets = Vec::new();
        for side in sides.into_iter().flatten() {
            let row = detail.answers.iter().find(|row| {
                row.cell.candidate == side && row.cell.repetition == 0 && row.answer.is_ok()
            });
            let Some(row) = row else { return Ok(None) };
            answers.push(Value::String(row.answer.clone().unwrap_or_default()));
            targets.push(json!({"trace": row.trace}));
        }
        let names = sides.into_iter().flatten().map(|side| self.name(side));
        let names: Vec<&str> = names.collect();
        let is_pair = self.against.is_some();
        let example = Example {
            source: Source {
                answer: answers.first().filter(|_| !is_pair).cloned(),
                ..Source::default()
            },
            ..detail.example
        };
        let mut taken = of_example(example, mask);
        if is_pair {
            if mask {
                answers.iter_mut().for_each(mask_value);
            }
            taken.snapshot.answers = answers;
        }
        taken.facts["evaluation"] = json!(self.evaluation.id);
        taken.facts["dataset"] = json!(format!(
            "dataset:{}@{}",
            self.evaluation.pinned.dataset.name, self.evaluation.pinned.dataset.number
        ));
        taken.facts["candidates"] = json!(names);
        taken.facts["targets"] = json!(targets);
        Ok(Some(taken))
    }
}
