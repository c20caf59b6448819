//! What a queue has come to: counts, raters, agreement, and what its items' labels say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base::Cursor;
use db::Scope;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use stats::{Confusion, Level, Weights, krippendorff};

use super::document::{Question, QuestionKind, QueueDocument};
use super::snapshot::{Snapshot, words};
use super::store::{self, At, Counts, FillRow, Item, ItemState, LabelRow};
use super::values::{self, Span, Values};
use super::{Desk, find_queue, no_such_item, queue_names};
use crate::error::{AppError, Result};

/// Characters of which the agreement on marked places is computed.
const MOST_CHARS: usize = 200_000;

/// A queue in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewQueueRow")]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its newest version.
    pub version: i64,
    /// The identity of that version.
    pub digest: String,
    /// How many questions it asks.
    pub questions: usize,
    /// How many items it has in each state.
    pub counts: Counts,
}

/// A queue with what came of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewQueueShown")]
pub struct QueueShown {
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub version: i64,
    /// The identity of that version.
    pub digest: String,
    /// What that says.
    pub document: QueueDocument,
    /// How many items it has in each state.
    pub counts: Counts,
    /// Who labelled, the busiest first.
    pub per_rater: Vec<RaterFigures>,
    /// How far raters agree, by question.
    pub agreement: Vec<Agreement>,
    /// How it was filled, the last time first.
    pub fills: Vec<FillRow>,
}

/// One rater's work in a queue.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewRaterFigures")]
pub struct RaterFigures {
    /// `user:ID`, `key:ID` or `guest:ID`.
    pub rater: String,
    /// Their name.
    pub who: String,
    /// Items that they labelled.
    pub labelled: i64,
    /// Items that they skipped.
    pub skipped: i64,
    /// The median of seconds from being given an item to its label.
    pub median_s: Option<f64>,
    /// When they labelled last, microseconds since the epoch.
    pub last_at: Option<i64>,
    /// Of the answers that another rater gave too, on questions that can be compared, the
    /// share that was the same.
    pub same: Option<f64>,
    /// The mean of κ with each other rater over the questions, weighted by shared items.
    pub kappa: Option<f64>,
    /// Of the answers to items that were settled, the share that was the one that counts.
    pub right: Option<f64>,
}

/// How far raters agree on a question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewAgreement")]
pub struct Agreement {
    /// The question.
    pub question: String,
    /// Its type.
    pub kind: QuestionKind,
    /// Items with at least two answers (for spans: characters of these).
    pub n: usize,
    /// Answers to these.
    pub ratings: usize,
    /// The share of pairs of answers that are the same.
    pub same: Option<f64>,
    /// Cohen's κ: of two raters; of more the mean over pairs, weighted by shared items.
    pub kappa: Option<f64>,
    /// κ with quadratic weights, for ratings.
    pub weighted_kappa: Option<f64>,
    /// Krippendorff's α: ordinal for ratings, nominal for everything else.
    pub alpha: Option<f64>,
    /// Each pair of raters by itself.
    pub pairs: Vec<PairAgreement>,
}

/// How far two raters agree on a question.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewPairAgreement")]
pub struct PairAgreement {
    /// One of them.
    pub a: String,
    /// The other.
    pub b: String,
    /// Items that both answered.
    pub n: usize,
    /// The share of the same answers.
    pub same: Option<f64>,
    /// Cohen's κ.
    pub kappa: Option<f64>,
    /// κ with quadratic weights, for ratings.
    pub weighted_kappa: Option<f64>,
}

/// An item with everything that was said of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewItemDetail")]
pub struct ItemDetail {
    /// Names it.
    pub id: String,
    /// Its queue.
    pub queue: String,
    /// `trace`, `example` or `pair`.
    pub kind: String,
    /// Where it is.
    pub state: ItemState,
    /// How many raters it is for.
    pub wanted: i64,
    /// Whether it was drawn at random from everything that its fill found.
    pub drawn: bool,
    /// How likely each one was to be drawn.
    pub chance: Option<f64>,
    /// What raters see.
    pub snapshot: Snapshot,
    /// What is known beyond that, and where it comes from.
    pub facts: Value,
    /// What was said of it, the oldest first, what was taken back among it.
    pub labels: Vec<LabelRow>,
    /// The names of those who said it.
    pub who: BTreeMap<String, String>,
    /// The answers that count: those of whoever settled it, else those on which all agree.
    pub resolved: Values,
    /// The questions on which raters differ.
    pub differs: Vec<String>,
    /// When it came in, microseconds since the epoch.
    pub created_at: i64,
    /// When it was closed, microseconds since the epoch.
    pub closed_at: Option<i64>,
}

/// A page of items.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ReviewItemPage")]
pub struct ItemPage {
    /// The items, in the order in which they are given out.
    pub items: Vec<ItemDetail>,
    /// What to ask the next page with.
    pub next_cursor: Option<String>,
}

/// A project's queues, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn queues(desk: Desk<'_>, scope: Scope) -> Result<Vec<QueueRow>> {
    let mut rows = Vec::new();
    for name in queue_names(desk, scope).await? {
        let queue = find_queue(desk, scope, &name).await?;
        let at = At {
            project: scope.project,
            queue: &name,
        };
        rows.push(QueueRow {
            description: queue.document.description,
            version: queue.version,
            digest: queue.digest.to_string(),
            questions: queue.document.questions.len(),
            counts: store::counts(desk.db, at).await?,
            name,
        });
    }
    Ok(rows)
}

/// A queue with what came of it.
///
/// # Errors
/// There is no such queue.
pub async fn queue(desk: Desk<'_>, scope: Scope, name: &str) -> Result<QueueShown> {
    let queue = find_queue(desk, scope, name).await?;
    let at = At {
        project: scope.project,
        queue: name,
    };
    let labels = store::current_labels(desk.db, at).await?;
    let texts = span_texts(desk, at, &queue.document, &labels).await?;
    let document = queue.document.clone();
    let figures = tokio::task::spawn_blocking(move || {
        let agreement = agreement(&document, &labels, &texts);
        let raters = raters(&document, &labels, &agreement);
        (agreement, raters)
    });
    let (agreement, mut per_rater) = figures.await.map_err(AppError::internal)?;
    let names = per_rater.iter().map(|row| row.rater.as_str());
    let names = crate::members::actor_names(desk.db, scope.project, names).await?;
    for row in &mut per_rater {
        row.who = names.get(&row.rater).cloned().unwrap_or_default();
    }
    Ok(QueueShown {
        name: queue.name,
        version: queue.version,
        digest: queue.digest.to_string(),
        document: queue.document,
        counts: store::counts(desk.db, at).await?,
        per_rater,
        agreement,
        fills: store::fills(desk.db, at).await?,
    })
}

/// How many characters the texts have in which places are marked, by item and question.
type SpanTexts = HashMap<(String, String), usize>;

async fn span_texts(
    desk: Desk<'_>,
    at: At<'_>,
    document: &QueueDocument,
    labels: &[LabelRow],
) -> Result<SpanTexts> {
    let asks = |question: &&Question| question.kind == QuestionKind::Spans;
    let questions: Vec<&Question> = document.questions.iter().filter(asks).collect();
    let mut texts = SpanTexts::new();
    if questions.is_empty() {
        return Ok(texts);
    }
    let wanted: BTreeSet<&str> = labels.iter().map(|label| label.item.as_str()).collect();
    let mut behind = None;
    loop {
        let items = store::list_items(desk.db, at, None, behind, 200).await?;
        for item in items
            .iter()
            .filter(|item| wanted.contains(item.id.as_str()))
        {
            for question in &questions {
                let chars = item.snapshot.text(question.target()).chars().count();
                texts.insert((item.id.clone(), question.name.clone()), chars);
            }
        }
        match items.last() {
            Some(last) if items.len() == 200 => behind = Some(last.order),
            _ => break,
        }
    }
    Ok(texts)
}

/// The answers of raters to one question: by item, by rater.
fn answers<'a>(
    labels: &'a [LabelRow],
    question: &Question,
) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a Value>> {
    let mut found: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for label in labels.iter().filter(|label| label.kind == "label") {
        if let Some(value) = label.values.get(&question.name) {
            found
                .entry(&label.item)
                .or_default()
                .insert(&label.rater, value);
        }
    }
    found
}

/// How far raters agree, by question.
fn agreement(document: &QueueDocument, labels: &[LabelRow], texts: &SpanTexts) -> Vec<Agreement> {
    let one = |question: &Question| match question.kind {
        QuestionKind::Spans => of_spans(question, &answers(labels, question), texts),
        _ => of_values(question, &answers(labels, question)),
    };
    document.questions.iter().map(one).collect()
}

type Answers<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a Value>>;

fn of_values(question: &Question, answers: &Answers<'_>) -> Agreement {
    let codes = Codes::new(question, answers);
    let raters: BTreeSet<&str> = answers.values().flat_map(BTreeMap::keys).copied().collect();
    let raters: Vec<&str> = raters.into_iter().collect();
    let mut pairs = Vec::new();
    for (index, a) in raters.iter().enumerate() {
        for b in &raters[index + 1..] {
            pairs.extend(pair(question, answers, &codes, a, b));
        }
    }
    let rows: Vec<Vec<Option<f64>>> = answers
        .values()
        .map(|item| {
            let code = |rater: &&str| item.get(rater).and_then(|value| codes.number(value));
            raters.iter().map(code).collect()
        })
        .collect();
    let level = match question.kind {
        QuestionKind::Rating => Level::Ordinal,
        _ => Level::Nominal,
    };
    let alpha = krippendorff(&rows, level).ok();
    Agreement {
        question: question.name.clone(),
        kind: question.kind,
        n: alpha.map_or(0, |alpha| alpha.items),
        ratings: alpha.map_or(0, |alpha| alpha.ratings),
        same: mean(&pairs, |pair| pair.same),
        kappa: mean(&pairs, |pair| pair.kappa),
        weighted_kappa: mean(&pairs, |pair| pair.weighted_kappa),
        alpha: alpha.and_then(|alpha| alpha.value),
        pairs,
    }
}

/// The mean over pairs of raters, weighted by the items that they share.
fn mean(pairs: &[PairAgreement], value: impl Fn(&PairAgreement) -> Option<f64>) -> Option<f64> {
    let known = pairs
        .iter()
        .filter_map(|pair| Some((float(pair.n), value(pair)?)));
    weighted(known)
}

fn weighted(known: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut weight, mut sum) = (0.0, 0.0);
    for (n, value) in known {
        weight += n;
        sum += n * value;
    }
    (weight > 0.0).then(|| sum / weight)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(count: usize) -> f64 {
    count as f64
}

/// The different answers of a question, each with its number.
struct Codes {
    places: HashMap<String, usize>,
    numbers: Vec<f64>,
}

impl Codes {
    fn new(question: &Question, answers: &Answers<'_>) -> Self {
        let mut places = HashMap::new();
        let mut numbers = Vec::new();
        if question.kind == QuestionKind::Rating {
            for grade in question.scale().grades() {
                places.insert(key(&serde_json::json!(grade)), numbers.len());
                numbers.push(grade);
            }
        }
        for value in answers.values().flat_map(BTreeMap::values) {
            let next = numbers.len();
            if let std::collections::hash_map::Entry::Vacant(vacant) = places.entry(key(value)) {
                vacant.insert(next);
                numbers.push(value.as_f64().unwrap_or(float(next)));
            }
        }
        Self { places, numbers }
    }

    fn place(&self, value: &Value) -> Option<usize> {
        self.places.get(&key(value)).copied()
    }

    fn number(&self, value: &Value) -> Option<f64> {
        self.numbers.get(self.place(value)?).copied()
    }
}

/// Answers with one key are the same answer.
fn key(value: &Value) -> String {
    match (value.as_f64(), value.as_str()) {
        (Some(number), _) => format!("{number}"),
        (_, Some(text)) => format!("\"{}", text.trim()),
        _ => value.to_string(),
    }
}

fn pair(
    question: &Question,
    answers: &Answers<'_>,
    codes: &Codes,
    a: &str,
    b: &str,
) -> Option<PairAgreement> {
    let both = answers
        .values()
        .filter_map(|item| Some((*item.get(a)?, *item.get(b)?)));
    let both: Vec<(&Value, &Value)> = both.collect();
    if both.is_empty() {
        return None;
    }
    let same = both
        .iter()
        .filter(|(a, b)| values::is_same(question, a, b))
        .count();
    let places: Vec<(usize, usize)> = both
        .iter()
        .filter_map(|(a, b)| Some((codes.place(a)?, codes.place(b)?)))
        .collect();
    // Of free texts κ would be of as many labels as there are texts.
    let confusion = match question.kind {
        QuestionKind::Text | QuestionKind::Expected | QuestionKind::Correction => None,
        _ => Confusion::count(codes.numbers.len(), &places).ok(),
    };
    let is_rating = question.kind == QuestionKind::Rating;
    Some(PairAgreement {
        a: a.to_owned(),
        b: b.to_owned(),
        n: both.len(),
        same: Some(float(same) / float(both.len())),
        kappa: confusion
            .as_ref()
            .and_then(|counts| counts.kappa(Weights::None)),
        weighted_kappa: confusion
            .as_ref()
            .filter(|_| is_rating)
            .and_then(|counts| counts.kappa(Weights::Quadratic)),
    })
}

/// Agreement on marked places: each character of the texts is one thing that raters gave a
/// label, or none.
fn of_spans(question: &Question, answers: &Answers<'_>, texts: &SpanTexts) -> Agreement {
    let label = |name: &str| question.options.iter().position(|option| option == name);
    let raters: BTreeSet<&str> = answers.values().flat_map(BTreeMap::keys).copied().collect();
    let raters: Vec<&str> = raters.into_iter().collect();
    let mut rows: Vec<Vec<Option<f64>>> = Vec::new();
    let mut items = 0;
    for (item, given) in answers.iter().filter(|(_, given)| given.len() > 1) {
        let place = ((*item).to_owned(), question.name.clone());
        let chars = texts.get(&place).copied().unwrap_or(0);
        if rows.len() + chars > MOST_CHARS {
            break;
        }
        items += 1;
        let begin = rows.len();
        rows.resize(begin + chars, vec![None; raters.len()]);
        for (column, rater) in raters.iter().enumerate() {
            let Some(value) = given.get(rater) else {
                continue;
            };
            let spans: Vec<Span> = serde_json::from_value((*value).clone()).unwrap_or_default();
            for row in &mut rows[begin..] {
                row[column] = Some(0.0);
            }
            for span in spans {
                let (start, end) = (span.start.min(chars), span.end.min(chars));
                for row in &mut rows[begin + start..begin + end] {
                    row[column] = label(&span.label).map(|place| float(place + 1));
                }
            }
        }
    }
    let alpha = krippendorff(&rows, Level::Nominal).ok();
    let same = rows.iter().map(|row| {
        let given: Vec<f64> = row.iter().flatten().copied().collect();
        #[expect(clippy::float_cmp, reason = "small whole numbers")]
        let all = given.windows(2).all(|two| two[0] == two[1]);
        (1.0, f64::from(u8::from(all)))
    });
    let same = weighted(same);
    Agreement {
        question: question.name.clone(),
        kind: question.kind,
        n: items,
        ratings: alpha.map_or(0, |alpha| alpha.ratings),
        same,
        kappa: None,
        weighted_kappa: None,
        alpha: alpha.and_then(|alpha| alpha.value),
        pairs: Vec::new(),
    }
}

/// Each rater's work.
fn raters(
    document: &QueueDocument,
    labels: &[LabelRow],
    agreement: &[Agreement],
) -> Vec<RaterFigures> {
    let settled = labels.iter().filter(|label| label.kind == "adjudication");
    let settled: HashMap<&str, &LabelRow> =
        settled.map(|label| (label.item.as_str(), label)).collect();
    let mut by_rater: BTreeMap<&str, Vec<&LabelRow>> = BTreeMap::new();
    for label in labels.iter().filter(|label| label.kind != "adjudication") {
        by_rater.entry(&label.rater).or_default().push(label);
    }
    let one = |(rater, own): (&str, Vec<&LabelRow>)| {
        let labelled = own.iter().filter(|label| label.kind == "label");
        let mut took: Vec<i64> = labelled.clone().map(|label| label.took_us).collect();
        took.sort_unstable();
        let pairs = || {
            agreement
                .iter()
                .filter(|one| one.kind.is_compared())
                .flat_map(|one| &one.pairs)
                .filter(|pair| pair.a == rater || pair.b == rater)
        };
        let right = labelled.clone().flat_map(|label| {
            let settled = settled.get(label.item.as_str());
            let questions = document.questions.iter();
            questions.filter_map(move |question| {
                let counts = settled?.values.get(&question.name)?;
                let own = label.values.get(&question.name)?;
                let is_same = values::is_same(question, own, counts);
                question
                    .kind
                    .is_compared()
                    .then(|| (1.0, f64::from(u8::from(is_same))))
            })
        });
        RaterFigures {
            rater: rater.to_owned(),
            who: String::new(),
            labelled: i64::try_from(took.len()).unwrap_or(i64::MAX),
            skipped: i64::try_from(own.len() - took.len()).unwrap_or(i64::MAX),
            median_s: median(&took).map(|us| us / 1e6),
            last_at: own.iter().map(|label| label.at).max(),
            same: weighted(pairs().filter_map(|pair| Some((float(pair.n), pair.same?)))),
            kappa: weighted(pairs().filter_map(|pair| Some((float(pair.n), pair.kappa?)))),
            right: weighted(right),
        }
    };
    let mut rows: Vec<RaterFigures> = by_rater.into_iter().map(one).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.labelled));
    rows
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time of work is far below 2^53"
)]
fn median(sorted: &[i64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle] as f64),
        _ => Some((sorted[middle - 1] as f64 + sorted[middle] as f64) / 2.0),
    }
}

/// The answers that count: those of whoever settled the item, else those of its raters as
/// far as they say the same. Grades within the tolerance count as their mean.
pub(super) fn resolved(document: &QueueDocument, labels: &[LabelRow]) -> Values {
    let current = || labels.iter().filter(|label| label.current);
    if let Some(settled) = current().rev().find(|label| label.kind == "adjudication") {
        return settled.values.clone();
    }
    let mut found = Values::new();
    for question in &document.questions {
        let given = current().filter(|label| label.kind == "label");
        let given: Vec<&Value> = given
            .filter_map(|label| label.values.get(&question.name))
            .collect();
        let Some(first) = given.first() else { continue };
        let same = given.iter().all(|one| {
            given
                .iter()
                .all(|other| values::is_same(question, one, other))
        });
        if !same {
            continue;
        }
        let numbers: Vec<f64> = given.iter().filter_map(|value| value.as_f64()).collect();
        let value = if question.kind == QuestionKind::Rating && numbers.len() > 1 {
            let mean = numbers.iter().sum::<f64>() / float(numbers.len());
            values::number(mean).map_or(Value::Null, Value::Number)
        } else {
            (*first).clone()
        };
        found.insert(question.name.clone(), value);
    }
    found
}

fn differs(document: &QueueDocument, labels: &[LabelRow]) -> Vec<String> {
    let one = |question: &&Question| {
        let only = QueueDocument {
            questions: vec![(*question).clone()],
            ..document.clone()
        };
        super::work::differ(&only, labels)
    };
    let found = document.questions.iter().filter(one);
    found.map(|question| question.name.clone()).collect()
}

async fn detail(
    desk: Desk<'_>,
    scope: Scope,
    document: &QueueDocument,
    item: Item,
) -> Result<ItemDetail> {
    let labels = store::read_labels_of(desk.db, scope.project, &item.id).await?;
    let names = labels.iter().map(|label| label.rater.as_str());
    let who = crate::members::actor_names(desk.db, scope.project, names).await?;
    Ok(ItemDetail {
        resolved: resolved(document, &labels),
        differs: differs(document, &labels),
        who: who.into_iter().collect(),
        labels,
        id: item.id,
        queue: item.queue,
        kind: item.kind,
        state: item.state,
        wanted: item.wanted,
        drawn: item.drawn,
        chance: item.chance,
        snapshot: item.snapshot,
        facts: item.facts,
        created_at: item.created_at,
        closed_at: item.closed_at,
    })
}

/// An item with everything that was said of it.
///
/// # Errors
/// There is no such item, or its queue was deleted.
pub async fn item(desk: Desk<'_>, scope: Scope, id: &str) -> Result<ItemDetail> {
    let item = store::read_item(desk.db, scope.project, id).await?;
    let item = item.ok_or_else(no_such_item)?;
    let queue = find_queue(desk, scope, &item.queue).await?;
    detail(desk, scope, &queue.document, item).await
}

/// Items of a queue, in the order in which they are given out, with everything that was said
/// of them.
///
/// # Errors
/// There is no such queue, or the cursor is not ours.
pub async fn items(
    desk: Desk<'_>,
    scope: Scope,
    queue: &str,
    state: Option<ItemState>,
    cursor: Option<String>,
    limit: usize,
) -> Result<ItemPage> {
    let behind: Option<(i64, i64)> = cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let queue = find_queue(desk, scope, queue).await?;
    let at = At {
        project: scope.project,
        queue: &queue.name,
    };
    let limit = limit.clamp(1, 200);
    let wanted = i64::try_from(limit).unwrap_or(i64::MAX) + 1;
    let mut found = store::list_items(desk.db, at, state, behind, wanted).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next_cursor = next.map(|item| Cursor::new(&item.order).as_str().to_owned());
    let mut items = Vec::new();
    for item in found {
        items.push(detail(desk, scope, &queue.document, item).await?);
    }
    Ok(ItemPage { items, next_cursor })
}

/// The words of an answer, for tables and files.
pub(super) fn answer_text(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            items.join("|")
        }
        Value::Array(_) => value.to_string(),
        other => words(other),
    }
}
