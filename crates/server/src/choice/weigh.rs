//! From measurements to figures, to who is dropped, and to the result by any weights.
//!
//! Pure: a round or a whole choice can be judged again from what its evaluation has
//! measured, which is how other weights are tried without asking any model again.
//! Comparisons are made on the examples on which all models were scored; a model that
//! does not answer is judged for that first, so that it takes no examples from others.

use stats::{
    Alternative, Better, ChoiceRule, Halving, Interval, Property, Resampling, Scales, Scoreboard,
    Weighed, halve, probability_of_best_choice, rank_alternatives, wilson,
};

use super::document::{
    ChoiceLimits, ChoiceResult, ChoiceTask, Dropped, Finalist, ModelFigures, ScaleJson, Weights,
    Why,
};
use crate::error::{AppError, Result};
use crate::evaluations::{Measurements, Pinned};
use crate::evaluators::Direction;

/// The share of answers that may fail.
const MOST_ERRORS: f64 = 0.05;
/// The share of answers that may be slower than a limit on the 95th percentile.
const SLOWER: f64 = 0.05;
/// Kinds of limits that a model is held against in a round.
const CHECKS: f64 = 4.0;
/// From here on the most probable one is called clear.
const CLEAR: f64 = 0.95;
/// Of intervals that are shown.
const SHOWN_ALPHA: f64 = 0.05;

/// How the scores of an answer make up its quality.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Yardstick {
    parts: Vec<Part>,
    /// From what to what quality goes, where that is known.
    range: Option<(f64, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    evaluator: usize,
    weight: f64,
    /// The worst score and the best; the sign alone where they are not known.
    ends: Option<(f64, f64)>,
    sign: f64,
}

impl Yardstick {
    /// Scores on their ranges, weighted; one evaluator without a range counts as it is.
    ///
    /// # Errors
    /// An evaluator's scores cannot be put together with others'.
    pub(super) fn of(task: &ChoiceTask, pinned: &Pinned) -> Result<Self> {
        let mut parts = Vec::new();
        for (index, evaluator) in pinned.evaluators.iter().enumerate() {
            let weight = task.quality_weight(&evaluator.name);
            if weight == 0.0 {
                continue;
            }
            let wrong = |message: String| {
                AppError::invalid(message)
                    .code("unfit_evaluator")
                    .at(format!("/evaluators/{index}"))
            };
            if evaluator.document.is_pairwise() {
                return Err(wrong(format!(
                    "{} compares each with the first and gives no model a quality of its own",
                    evaluator.name
                )));
            }
            let higher = evaluator.document.better() == Direction::Higher;
            let ends = evaluator.document.range();
            parts.push(Part {
                evaluator: index,
                weight,
                ends: ends.map(|(low, high)| if higher { (low, high) } else { (high, low) }),
                sign: if higher { 1.0 } else { -1.0 },
            });
        }
        let open = parts.iter().find(|part| part.ends.is_none());
        if let Some(open) = open.filter(|_| parts.len() > 1) {
            return Err(AppError::invalid(
                "the scores of this evaluator have no range, so they cannot be weighed with others",
            )
            .code("unfit_evaluator")
            .at(format!("/evaluators/{}", open.evaluator)));
        }
        let sum: f64 = parts.iter().map(|part| part.weight).sum();
        if parts.is_empty() || sum <= 0.0 {
            return Err(AppError::invalid("nothing counts as quality").at("/quality"));
        }
        let range = open.is_none().then_some((0.0, 1.0));
        for part in &mut parts {
            part.weight /= sum;
        }
        Ok(Self { parts, range })
    }

    fn quality(&self, scores: &[Option<f64>]) -> Option<f64> {
        let mut quality = 0.0;
        for part in &self.parts {
            let score = (*scores.get(part.evaluator)?)?;
            quality += part.weight
                * match part.ends {
                    Some((worst, best)) => (score - worst) / (best - worst),
                    None => score * part.sign,
                };
        }
        quality.is_finite().then_some(quality)
    }
}

/// What some models did with the same examples.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    models: Vec<String>,
    /// By example, by model; none where there is no answer, no score or no price.
    rows: Vec<Vec<Option<Weighed>>>,
    clusters: Option<Vec<u64>>,
    answers: Vec<u64>,
    errors: Vec<u64>,
    range: Option<(f64, f64)>,
}

impl Sheet {
    pub(super) fn new(models: &[String], measured: &Measurements, yardstick: &Yardstick) -> Self {
        let mut sheet = Self {
            models: models.to_vec(),
            rows: Vec::new(),
            clusters: (!measured.clusters.is_empty()).then(Vec::new),
            answers: vec![0; models.len()],
            errors: vec![0; models.len()],
            range: yardstick.range,
        };
        for (place, cells) in &measured.rows {
            let mut row = vec![None; models.len()];
            for (model, cell) in cells.iter().enumerate().take(models.len()) {
                sheet.errors[model] += cell.errors;
                sheet.answers[model] += cell.latencies_ms.len() as u64;
                row[model] = weighed(cell, yardstick);
            }
            sheet.rows.push(row);
            if let Some(clusters) = &mut sheet.clusters {
                // An example without the field stands alone; places are no digests.
                let own = u64::try_from(*place).unwrap_or_default();
                clusters.push(measured.clusters.get(place).copied().unwrap_or(own));
            }
        }
        sheet
    }

    /// The examples that all of these were scored on.
    fn complete(&self, models: &[usize]) -> Vec<usize> {
        let whole = |row: &usize| models.iter().all(|model| self.rows[*row][*model].is_some());
        (0..self.rows.len()).filter(whole).collect()
    }

    fn column(&self, model: usize, rows: &[usize]) -> Vec<Weighed> {
        let cells = rows.iter().filter_map(|row| self.rows[*row][model]);
        cells.collect()
    }

    fn clusters_of(&self, rows: &[usize]) -> Option<Vec<u64>> {
        let clusters = self.clusters.as_ref()?;
        Some(rows.iter().map(|row| clusters[*row]).collect())
    }

    fn own_rows(&self, model: usize) -> Vec<usize> {
        (0..self.rows.len())
            .filter(|row| self.rows[*row][model].is_some())
            .collect()
    }

    fn figures(&self, model: usize, rows: &[usize]) -> ModelFigures {
        let column = self.column(model, rows);
        let mut latencies: Vec<f64> = column.iter().map(|one| one.latency_ms).collect();
        latencies.sort_by(f64::total_cmp);
        let quantile = |percent: usize| {
            let at = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(at).copied()
        };
        let mean = mean_of(&column);
        let interval = self.quality_interval(model, rows);
        ModelFigures {
            model: self.models[model].clone(),
            quality: mean.map(|mean| mean.quality),
            low: interval.map(|ends| ends.low).filter(|end| end.is_finite()),
            high: interval.map(|ends| ends.high).filter(|end| end.is_finite()),
            p50_latency_ms: quantile(50),
            p95_latency_ms: quantile(95),
            usd_per_1000: mean.map(|mean| mean.cost_nanousd / 1e6),
            answers: self.answers[model],
            errors: self.errors[model],
        }
    }

    fn quality_interval(&self, model: usize, rows: &[usize]) -> Option<Interval> {
        let values: Vec<f64> = self
            .column(model, rows)
            .iter()
            .map(|one| one.quality)
            .collect();
        if values.is_empty() {
            return None;
        }
        let clusters = self.clusters_of(rows);
        if clusters.is_none() && values.iter().all(|value| *value == 0.0 || *value == 1.0) {
            let right = values.iter().filter(|value| **value == 1.0).count() as u64;
            return Some(wilson(right, values.len() as u64, SHOWN_ALPHA));
        }
        let mean = match &clusters {
            Some(clusters) => stats::estimate_clustered_mean(&values, clusters),
            None => stats::estimate_mean(&values),
        };
        mean.ok().map(|mean| mean.interval(SHOWN_ALPHA))
    }
}

fn weighed(cell: &crate::evaluations::Measured, yardstick: &Yardstick) -> Option<Weighed> {
    let mean = |values: &[f64]| {
        #[expect(clippy::cast_precision_loss, reason = "a handful of repetitions")]
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    Some(Weighed {
        quality: yardstick.quality(&cell.scores)?,
        latency_ms: mean(&cell.latencies_ms)?,
        cost_nanousd: mean(&cell.costs)?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of examples")]
fn mean_of(column: &[Weighed]) -> Option<Weighed> {
    let n = column.len() as f64;
    let mean = |of: fn(&Weighed) -> f64| column.iter().map(of).sum::<f64>() / n;
    (!column.is_empty()).then(|| Weighed {
        quality: mean(|one| one.quality),
        latency_ms: mean(|one| one.latency_ms),
        cost_nanousd: mean(|one| one.cost_nanousd),
    })
}

/// What a round before the last one says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub figures: Vec<ModelFigures>,
    pub dropped: Vec<Dropped>,
    pub compared: u64,
    /// What counts 0 in latency and cost from this round on.
    pub scales: Option<(f64, f64)>,
}

/// How many rounds and models the chance of a mistake is shared over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub rounds: u32,
    pub models: usize,
}

/// Who goes on. A model is dropped only where an interval shows it: that it fails or breaks
/// a limit, or that as many others as there are finalists are better by the weights. Half of
/// the task's α is for limits, half for comparisons.
pub(super) fn judge_round(
    task: &ChoiceTask,
    sheet: &Sheet,
    scales: Option<(f64, f64)>,
    family: Family,
) -> Result<Judged> {
    let mut dropped = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "counts of models")]
    let checks = f64::from(family.rounds.max(1)) * family.models.max(1) as f64 * CHECKS;
    let level = task.alpha / 2.0 / checks;
    let mut staying: Vec<usize> = Vec::new();
    let mut figures: Vec<Option<ModelFigures>> = vec![None; sheet.models.len()];
    for (model, seen) in figures.iter_mut().enumerate() {
        let own = sheet.own_rows(model);
        match broken_limit(task, sheet, model, &own, level) {
            Some((why, figure, bound)) => {
                *seen = Some(sheet.figures(model, &own));
                dropped.push(Dropped {
                    model: sheet.models[model].clone(),
                    why,
                    figure,
                    bound,
                });
            }
            None => staying.push(model),
        }
    }
    let rows = sheet.complete(&staying);
    for model in &staying {
        // Nothing is compared yet where they have no example in common.
        let own = if rows.is_empty() {
            sheet.own_rows(*model)
        } else {
            rows.clone()
        };
        figures[*model] = Some(sheet.figures(*model, &own));
    }
    let scales = scales.or_else(|| round_scales(task, sheet, &staying));
    if let Some(scales) = scales.filter(|_| !rows.is_empty()) {
        let board: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let cells = staying.iter().filter_map(|model| sheet.rows[*row][*model]);
                cells
                    .map(|one| utility_of(task, sheet, &one, scales))
                    .collect()
            })
            .collect();
        let clusters = sheet.clusters_of(&rows);
        let how = Halving {
            keep: task.finalists as usize,
            started_with: family.models,
            rounds: family.rounds,
            alpha: task.alpha / 2.0,
            least_rows: usize::try_from(super::document::LEAST_SAMPLE).unwrap_or(10),
        };
        let board = Scoreboard {
            rows: &board,
            clusters: clusters.as_deref(),
            better: Better::Higher,
        };
        let fates = halve(&board, &how).map_err(AppError::internal)?;
        for (model, fate) in staying.iter().zip(fates) {
            if !fate.stays {
                let column = sheet.column(*model, &rows);
                let utilities = column
                    .iter()
                    .map(|one| utility_of(task, sheet, one, scales));
                #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
                let mean = utilities.sum::<f64>() / column.len().max(1) as f64;
                dropped.push(Dropped {
                    model: sheet.models[*model].clone(),
                    why: Why::Worse,
                    figure: mean,
                    bound: fate.p_value,
                });
            }
        }
    }
    Ok(Judged {
        figures: figures.into_iter().flatten().collect(),
        dropped,
        compared: rows.len() as u64,
        scales,
    })
}

/// The first limit that a model is shown to break, with its figure and the bound.
fn broken_limit(
    task: &ChoiceTask,
    sheet: &Sheet,
    model: usize,
    own: &[usize],
    level: f64,
) -> Option<(Why, f64, f64)> {
    let (errors, answers) = (sheet.errors[model], sheet.answers[model]);
    let above = |hits: u64, n: u64, most: f64| {
        let low = wilson(hits, n, level).low;
        #[expect(clippy::cast_precision_loss, reason = "counts of answers")]
        (n > 0 && low > most).then(|| (hits as f64 / n as f64, low))
    };
    if let Some((figure, bound)) = above(errors, errors + answers, MOST_ERRORS) {
        return Some((Why::Unreliable, figure, bound));
    }
    let column = sheet.column(model, own);
    if let Some(limit) = task.limits.p95_latency_ms {
        let slower = column.iter().filter(|one| one.latency_ms > limit).count() as u64;
        if let Some((figure, bound)) = above(slower, column.len() as u64, SLOWER) {
            return Some((Why::TooSlow, figure, bound));
        }
    }
    let interval = |of: fn(&Weighed) -> f64| {
        let values: Vec<f64> = column.iter().map(of).collect();
        let clusters = sheet.clusters_of(own);
        let mean = match &clusters {
            Some(clusters) => stats::estimate_clustered_mean(&values, clusters).ok()?,
            None => stats::estimate_mean(&values).ok()?,
        };
        let few = (mean.units as u64) < super::document::LEAST_SAMPLE;
        (!few).then(|| (mean.mean, mean.interval(level)))
    };
    if let Some(limit) = task.limits.limits().most_cost_nanousd
        && let Some((mean, ends)) = interval(|one| one.cost_nanousd)
        && ends.low > limit
    {
        return Some((Why::TooDear, mean / 1e6, ends.low / 1e6));
    }
    if let Some(limit) = task.limits.quality
        && let Some((mean, ends)) = interval(|one| one.quality)
        && ends.high < limit
    {
        return Some((Why::TooBad, mean, ends.high));
    }
    None
}

/// What counts 0 while rounds are judged: the limits, or the most of any model's mean.
fn round_scales(task: &ChoiceTask, sheet: &Sheet, models: &[usize]) -> Option<(f64, f64)> {
    let means: Vec<Weighed> = models
        .iter()
        .filter_map(|model| mean_of(&sheet.column(*model, &sheet.own_rows(*model))))
        .collect();
    let most = |of: fn(&Weighed) -> f64| means.iter().map(of).fold(0.0, f64::max);
    let limits = task.limits.limits();
    (!means.is_empty()).then(|| {
        (
            limits
                .most_p95_latency_ms
                .unwrap_or_else(|| most(|one| one.latency_ms)),
            limits
                .most_cost_nanousd
                .unwrap_or_else(|| most(|one| one.cost_nanousd)),
        )
    })
}

/// What one answer is worth by the weights. Of few answers the 95th percentile is not
/// known, so that rounds before the last weigh each answer's own latency.
fn utility_of(task: &ChoiceTask, sheet: &Sheet, one: &Weighed, scales: (f64, f64)) -> f64 {
    let scales = Scales {
        // Without a range the unit of quality is its own: differences count, not places.
        quality: sheet.range.unwrap_or((0.0, 1.0)),
        most_p95_latency_ms: scales.0,
        most_cost_nanousd: scales.1,
    };
    let one = Alternative {
        quality: one.quality,
        p95_latency_ms: one.latency_ms,
        cost_nanousd: one.cost_nanousd,
    };
    scales.utility(&one, &task.weights.priorities())
}

/// The result by some weights and limits, from the figures of the full data.
pub(super) fn weigh(
    sheet: &Sheet,
    weights: Weights,
    limits: &ChoiceLimits,
    seed: u64,
) -> Result<ChoiceResult> {
    let reliable = |model: &usize| {
        #[expect(clippy::cast_precision_loss, reason = "counts of answers")]
        let (errors, all) = (
            sheet.errors[*model] as f64,
            (sheet.errors[*model] + sheet.answers[*model]) as f64,
        );
        all > 0.0 && errors <= MOST_ERRORS * all
    };
    let good: Vec<usize> = (0..sheet.models.len()).filter(reliable).collect();
    let rows = sheet.complete(&good);
    let figures: Vec<ModelFigures> = (0..sheet.models.len())
        .map(|model| match good.contains(&model) && !rows.is_empty() {
            true => sheet.figures(model, &rows),
            false => sheet.figures(model, &sheet.own_rows(model)),
        })
        .collect();
    // Whoever has no figures cannot be ranked: no example is common to all.
    let ranked: Vec<(usize, Alternative)> = good
        .iter()
        .filter_map(|model| Some((*model, alternative(&figures[*model])?)))
        .collect();
    let alternatives: Vec<Alternative> = ranked.iter().map(|(_, one)| *one).collect();
    let rule = ChoiceRule {
        limits: limits.limits(),
        priorities: weights.priorities(),
        scales: Scales::of(&alternatives, &limits.limits(), sheet.range),
    };
    let standings = rank_alternatives(&alternatives, &rule.limits, &rule.priorities, &rule.scales);
    let standings = standings.map_err(|error| AppError::invalid(error.to_string()))?;
    let answers: Vec<Vec<Weighed>> = rows
        .iter()
        .map(|row| {
            let cells = ranked
                .iter()
                .filter_map(|(model, _)| sheet.rows[*row][*model]);
            cells.collect()
        })
        .collect();
    let how = Resampling {
        seed: if seed == 0 {
            Resampling::default().seed
        } else {
            seed
        },
        ..Resampling::default()
    };
    let clusters = sheet.clusters_of(&rows);
    let shares = match answers.is_empty() {
        true => vec![0.0; ranked.len()],
        false => probability_of_best_choice(&answers, clusters.as_deref(), &rule, how)
            .map_err(AppError::internal)?,
    };
    let mut finalists: Vec<Finalist> = figures
        .iter()
        .enumerate()
        .map(|(model, figures)| {
            let at = ranked.iter().position(|(ranked, _)| *ranked == model);
            let standing = at.and_then(|at| standings.get(at));
            let dominated = standing.and_then(|standing| standing.dominated_by);
            Finalist {
                figures: figures.clone(),
                breaks: match standing {
                    None => vec!["errors".to_owned()],
                    Some(standing) => standing.breaks.iter().copied().map(word).collect(),
                },
                on_front: standing.is_some_and(|standing| standing.on_front),
                dominated_by: dominated
                    .and_then(|at| ranked.get(at))
                    .map(|(model, _)| sheet.models[*model].clone()),
                utility: standing.and_then(|standing| standing.utility),
                probability: at.and_then(|at| shares.get(at)).copied().unwrap_or(0.0),
            }
        })
        .collect();
    finalists.sort_by(|a, b| {
        let utility = |one: &Finalist| one.utility.unwrap_or(f64::NEG_INFINITY);
        b.probability
            .total_cmp(&a.probability)
            .then(utility(b).total_cmp(&utility(a)))
    });
    let recommended = finalists
        .first()
        .filter(|best| best.breaks.is_empty() && best.probability > 0.0);
    let scales = rule.scales;
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    Ok(ChoiceResult {
        weights,
        scales: ScaleJson {
            quality_low: finite(scales.quality.0),
            quality_high: finite(scales.quality.1),
            p95_latency_ms: scales.most_p95_latency_ms,
            usd_per_1000: scales.most_cost_nanousd / 1e6,
        },
        recommended: recommended.map(|best| best.figures.model.clone()),
        is_clear: recommended.is_some_and(|best| best.probability >= CLEAR),
        finalists,
        examples: rows.len() as u64,
    })
}

fn word(property: Property) -> String {
    match property {
        Property::Quality => "quality",
        Property::Latency => "latency",
        Property::Cost => "cost",
    }
    .to_owned()
}

fn alternative(figures: &ModelFigures) -> Option<Alternative> {
    Some(Alternative {
        quality: figures.quality?,
        p95_latency_ms: figures.p95_latency_ms?,
        cost_nanousd: figures.usd_per_1000? * 1e6,
    })
}
