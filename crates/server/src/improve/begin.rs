//! What an improvement's references mean when it starts, and which examples are for what.
//!
//! Everything is decided once and pinned: whoever takes the search over later must come to
//! the same rows. The split that is held out is drawn here and read by nobody but the final
//! comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base::Digest;
use db::{Problem, Scope};
use gateway::PromptDocument;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::{ImproveDocument, Shares};
use crate::app::App;
use crate::datasets::{Example, alike_pairs};
use crate::error::{AppError, Result};
use crate::evaluations::calling::{PinnedVersion, pin};
use crate::evaluations::{Pinned as PinnedSuite, Warning};
use crate::evaluators::{EvaluatorDocument, JudgeMode};

/// The most examples that a split is made of here.
const MOST_SPLIT: usize = 20_000;
/// Examples of a leak that a warning names.
const NAMED: usize = 5;

/// What an improvement stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Prompt, data and evaluators, as an evaluation pins them.
    pub suite: PinnedSuite,
    /// The version that it begins with.
    pub prompt: PinnedVersion,
    /// Its document.
    pub content: Value,
    /// Which examples are for what.
    pub rows: Rows,
    /// Calls for one answer and all its scores, as far as they are known beforehand.
    pub calls_per_row: i64,
    /// What to know before believing the result.
    pub warnings: Vec<Warning>,
}

/// Which examples are for what, by their places in the dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// What the reflecting model is shown.
    pub train: Vec<i64>,
    /// What decides during the search.
    pub selection: Vec<i64>,
    /// What the search never sees.
    pub held_out: Vec<i64>,
}

impl Rows {
    /// Every place, in order.
    pub fn all(&self) -> BTreeSet<i64> {
        let parts = [&self.train, &self.selection, &self.held_out];
        parts.into_iter().flatten().copied().collect()
    }

    fn parts_mut(&mut self) -> [(&'static str, &mut Vec<i64>); 3] {
        [
            ("train", &mut self.train),
            ("selection", &mut self.selection),
            ("held_out", &mut self.held_out),
        ]
    }
}

fn wrong(at: impl Into<String>, message: impl Into<String>) -> AppError {
    db::CatalogError::Invalid(vec![Problem::new(at, message)]).into()
}

/// A number from 0 to `n` − 1 that a text decides.
pub(super) fn draw(seed: u64, text: &str, n: usize) -> usize {
    let product = u128::from(order(seed, text)) * n as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

/// A number that a text decides, for putting things into an order of chance.
pub(super) fn order(seed: u64, text: &str) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(format!("{seed}\0{text}").as_bytes()).0[..8]);
    u64::from_be_bytes(first)
}

/// Follows every reference, and draws the rows.
///
/// # Errors
/// Something is missing, cannot be scored by itself, or the budget is too small to begin.
pub(super) async fn begin(app: &App, scope: Scope, document: &ImproveDocument) -> Result<Pinned> {
    let suite = document
        .suite(json!(document.prompt))
        .map_err(db::CatalogError::Invalid)?;
    let mut pinned = pin(app, scope, &suite).await.map_err(|error| {
        let at = error
            .at
            .as_deref()
            .map(|at| at.replace("/candidates/0/", "/"));
        AppError {
            at: at.or_else(|| error.at.clone()),
            ..error
        }
    })?;
    let prompt = pinned.candidates.first().and_then(|one| one.prompt.clone());
    let prompt = prompt.ok_or_else(|| wrong("/prompt", "there is no such prompt"))?;
    let content = app
        .catalog
        .documents(scope.project, &[prompt.digest])
        .await?;
    let content = content.get(&prompt.digest).cloned();
    let content = content.ok_or_else(|| wrong("/prompt", "the prompt cannot be read"))?;
    let parsed = PromptDocument::deserialize(&content).map_err(anyhow::Error::from)?;
    if super::reflect::parts(&parsed).is_empty() {
        return Err(wrong(
            "/prompt",
            "the prompt has no text that could be improved",
        ));
    }
    check_evaluators(document, &pinned)?;
    check_reflector(app, scope, document)?;
    let mut warnings = std::mem::take(&mut pinned.warnings);
    let rows = draw_rows(app, scope, document, &pinned, &mut warnings).await?;
    let calls_per_row = calls_per_row(&pinned);
    let least = calls_per_row
        * i64::try_from(rows.selection.len() + 2 * rows.held_out.len()).unwrap_or(i64::MAX);
    if i64::try_from(document.budget_calls).unwrap_or(i64::MAX) <= least {
        let message = format!(
            "{least} calls are needed to score the start on the selection examples and to compare \
             two texts on those that are held out; a search needs more than that"
        );
        return Err(AppError::invalid(message)
            .code("budget_too_small")
            .at("/budget_calls")
            .hint("allow more calls, or use fewer examples with `limits`"));
    }
    Ok(Pinned {
        suite: pinned,
        prompt,
        content,
        rows,
        calls_per_row,
        warnings,
    })
}

/// An evaluator must give each answer a number, and several must have ranges to be added up.
fn check_evaluators(document: &ImproveDocument, pinned: &PinnedSuite) -> Result<()> {
    let counted: Vec<_> = pinned
        .evaluators
        .iter()
        .enumerate()
        .filter(|(_, one)| document.weight(&one.name) > 0.0)
        .collect();
    for (index, evaluator) in &counted {
        let at = format!("/evaluators/{index}");
        if evaluator.document.is_pairwise() {
            let message =
                "a judge of pairs gives no score to a single answer; the search needs one";
            return Err(wrong(at, message));
        }
        if counted.len() > 1 && evaluator.document.range().is_none() {
            let message = format!(
                "{:?} has no range from worst to best, so it cannot be weighed against the others; \
                 use it alone, or give it the weight 0",
                evaluator.name
            );
            return Err(wrong(at, message));
        }
    }
    Ok(())
}

fn check_reflector(app: &App, scope: Scope, document: &ImproveDocument) -> Result<()> {
    let plan = app.gateway.plan();
    let Some(known) = plan.projects.get(&scope.project) else {
        return Ok(());
    };
    let (provider, name) = document
        .reflector
        .split_once('/')
        .unwrap_or((&document.reflector, ""));
    let is_there = match provider {
        "local" => gateway::LocalModels::list(app.engine.as_ref())
            .iter()
            .any(|model| model.name == name),
        other => known.providers.contains_key(other),
    };
    if is_there {
        return Ok(());
    }
    let message = match provider {
        "local" => format!("there is no local model {name:?}"),
        other => format!("there is no provider {other:?}"),
    };
    Err(AppError::invalid(message)
        .code("unknown_model")
        .at("/reflector"))
}

/// Calls for one answer and its scores, when nothing has to be asked twice.
fn calls_per_row(pinned: &PinnedSuite) -> i64 {
    let judges = pinned.evaluators.iter().map(|one| match &one.document {
        EvaluatorDocument::Judge(judge) if judge.mode != JudgeMode::Pairwise => {
            judge.jurors().count() * judge.samples as usize
        }
        other => other.models().len(),
    });
    i64::try_from(1 + judges.sum::<usize>()).unwrap_or(i64::MAX)
}

/// Reads the dataset once and decides which examples are for what.
async fn draw_rows(
    app: &App,
    scope: Scope,
    document: &ImproveDocument,
    pinned: &PinnedSuite,
    warnings: &mut Vec<Warning>,
) -> Result<Rows> {
    let dataset = crate::evaluations::dataset_document(app, scope.project, pinned).await?;
    let wanted = |example: &Example| match &document.splits {
        None => true,
        Some(splits) => {
            let split = example.split.as_deref();
            [&splits.train, &splits.selection, &splits.held_out]
                .into_iter()
                .any(|name| split == Some(name))
        }
    };
    let mut found: Vec<(i64, Example)> = Vec::new();
    let mut place = 0;
    let mut reading = app.datasets.reading_document(scope, &dataset)?;
    while let Some(examples) = reading.next().await? {
        for example in examples {
            if wanted(&example) {
                found.push((place, example));
            }
            place += 1;
        }
        if found.len() > MOST_SPLIT {
            let message = format!("an improvement draws its examples from at most {MOST_SPLIT}");
            return Err(AppError::invalid(message)
                .code("too_many_examples")
                .at("/dataset")
                .hint("name splits that are smaller"));
        }
    }
    let own = document.clone();
    let drawn = tokio::task::spawn_blocking(move || assign(&own, &found)).await;
    let (rows, leaks) = drawn.map_err(AppError::internal)?;
    for (name, rows) in [
        ("train", &rows.train),
        ("selection", &rows.selection),
        ("held_out", &rows.held_out),
    ] {
        if rows.is_empty() {
            let message = format!(
                "the dataset {} has no examples for {name}",
                pinned.dataset.name
            );
            let at = match &document.splits {
                Some(_) => format!("/splits/{name}"),
                None => "/dataset".to_owned(),
            };
            return Err(AppError::invalid(message).code("no_examples").at(at));
        }
    }
    warnings.extend(leaks);
    Ok(rows)
}

/// Which examples are for what, and warnings of examples that stand on both sides.
fn assign(document: &ImproveDocument, found: &[(i64, Example)]) -> (Rows, Option<Warning>) {
    let examples: Vec<Example> = found.iter().map(|(_, example)| example.clone()).collect();
    let pairs = alike_pairs(&examples);
    let mut rows = match &document.splits {
        Some(splits) => {
            let of = |name: &str| {
                let own = found.iter();
                own.filter(|(_, example)| example.split.as_deref() == Some(name))
                    .map(|(place, _)| *place)
                    .collect()
            };
            Rows {
                train: of(&splits.train),
                selection: of(&splits.selection),
                held_out: of(&splits.held_out),
            }
        }
        None => split(document, found, &pairs),
    };
    let ids: HashMap<i64, &str> = found
        .iter()
        .map(|(place, example)| (*place, example.id.as_str()))
        .collect();
    let limits = document.limits;
    for (name, own) in rows.parts_mut() {
        let most = match name {
            "train" => limits.train,
            "selection" => limits.selection,
            _ => limits.held_out,
        };
        let key = |place: &i64| {
            let id = ids.get(place).copied().unwrap_or_default();
            order(document.seed, &format!("{name}/{id}"))
        };
        own.sort_by_key(key);
        own.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        own.sort_unstable();
    }
    let leaks = leaks(&rows, found, &pairs);
    (rows, leaks)
}

/// Puts examples that are nearly the same into one part, and fills each part up to its share.
fn split(
    document: &ImproveDocument,
    found: &[(i64, Example)],
    pairs: &[(usize, usize, f64)],
) -> Rows {
    let mut parent: Vec<usize> = (0..found.len()).collect();
    for (a, b, _) in pairs {
        let (a, b) = (root(&mut parent, *a), root(&mut parent, *b));
        parent[a.max(b)] = a.min(b);
    }
    let mut groups: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for (index, (place, _)) in found.iter().enumerate() {
        groups
            .entry(root(&mut parent, index))
            .or_default()
            .push(*place);
    }
    let mut groups: Vec<(u64, Vec<i64>)> = groups
        .into_iter()
        .map(|(first, places)| {
            let id = found
                .get(first)
                .map_or("", |(_, example)| example.id.as_str());
            (order(document.seed, &format!("split/{id}")), places)
        })
        .collect();
    groups.sort();
    let Shares {
        train,
        selection,
        held_out,
    } = document.shares;
    let sum = train + selection + held_out;
    let mut rows = Rows::default();
    for (_, places) in groups {
        // Whatever is furthest below its share is filled next.
        #[expect(clippy::cast_precision_loss, reason = "at most 20,000 examples")]
        let filled = |own: &Vec<i64>, share: f64| own.len() as f64 / (share / sum);
        let parts = [
            (filled(&rows.held_out, held_out), 0),
            (filled(&rows.selection, selection), 1),
            (filled(&rows.train, train), 2),
        ];
        let emptiest = parts
            .into_iter()
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(2, |(_, part)| part);
        match emptiest {
            0 => rows.held_out.extend(places),
            1 => rows.selection.extend(places),
            _ => rows.train.extend(places),
        }
    }
    rows
}

fn root(parent: &mut [usize], mut index: usize) -> usize {
    while parent[index] != index {
        index = parent[index];
    }
    index
}

/// What was held out and stands, nearly the same, in what the search sees.
fn leaks(rows: &Rows, found: &[(i64, Example)], pairs: &[(usize, usize, f64)]) -> Option<Warning> {
    let held: BTreeSet<i64> = rows.held_out.iter().copied().collect();
    let seen: BTreeSet<i64> = rows.train.iter().chain(&rows.selection).copied().collect();
    let mut leaking: Vec<(i64, String)> = Vec::new();
    for (a, b, _) in pairs {
        let (Some((first, one)), Some((second, other))) = (found.get(*a), found.get(*b)) else {
            continue;
        };
        let pair = match (held.contains(first), held.contains(second)) {
            (true, false) if seen.contains(second) => (*first, one, other),
            (false, true) if seen.contains(first) => (*second, other, one),
            _ => continue,
        };
        let (place, own, twin) = pair;
        leaking.push((place, format!("{} ~ {}", own.id, twin.id)));
    }
    leaking.sort();
    leaking.dedup_by_key(|(place, _)| *place);
    if leaking.is_empty() {
        return None;
    }
    let named: Vec<&str> = leaking
        .iter()
        .take(NAMED)
        .map(|(_, text)| text.as_str())
        .collect();
    Some(Warning::Leak {
        leaking: leaking.len(),
        held_out: rows.held_out.len(),
        examples: named.join(", "),
    })
}

/// The same for two improvements that hold out the same examples of the same data.
pub(super) fn held_out_key(pinned: &Pinned) -> String {
    let identity = json!({"dataset": pinned.suite.dataset.digest, "places": pinned.rows.held_out});
    Digest::of(identity.to_string().as_bytes()).hex()
}
