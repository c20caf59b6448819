//! From judged things to how far a judge agrees with people. Pure arithmetic on what
//! `pairs.rs` gathered.
//!
//! Judges and people rarely speak one language: a judge grades 1 to 10 and people give
//! thumbs. The scale that both are read on is chosen once for everything on the page
//! (versions of a judge stand side by side only on one scale), from what was said, unless
//! somebody says which.

use std::collections::{BTreeMap, BTreeSet};

use stats::{Confusion, Labelled, Level, MeanEstimate, Resampling, Trust, Weights};

use super::{Figure, Headline, LabelRow, ScaleJson, ScaleWord, VersionFigures};

/// The chance that an interval misses.
const ALPHA: f64 = 0.05;
/// More different values than this are numbers, not grades: a table of them shows nothing.
const MOST_GRADES: usize = 20;
/// Resamples of an interval of κ; fewer with many pairs, so that a page stays fast.
const RESAMPLES: u32 = 1_000;
const MOST_DRAWS: usize = 4_000_000;

/// What somebody said of something: a number, a word, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Said {
    pub value: Option<f64>,
    pub label: Option<String>,
}

/// One judged answer or trace.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    /// The number of the candidate that answered; 0 where there are none.
    pub group: usize,
    /// Items with the same unit are repetitions of one example.
    pub unit: u64,
    /// What the judge said; none where only people did.
    pub judge: Option<Said>,
    /// What people said, each once.
    pub people: Vec<Said>,
}

/// What is known of the judge beside its scores.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The lowest and the highest number that it gives.
    pub range: Option<(f64, f64)>,
    /// Whether it gives whole grades; an expectation between them is read as the nearest.
    pub whole: bool,
    /// The number that each of its labels counts as.
    pub labels: BTreeMap<String, f64>,
}

/// The scale that judge and people are read on.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    /// Words, in an order where they have one.
    Labels { words: Vec<String>, ordered: bool },
    /// A few numbers, ascending.
    Grades(Vec<f64>),
    /// Yes and no: a number of at least this.
    Pass { judge: f64, people: f64 },
    /// Any numbers.
    Numbers,
}

/// What somebody asked of the scale.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    pub scale: Option<ScaleWord>,
    pub judge_at_least: Option<f64>,
    pub people_at_least: Option<f64>,
}

impl Scale {
    /// The scale that fits what was said.
    pub(super) fn choose(items: &[&Item], known: &Known, wish: Wish) -> Self {
        let word = wish.scale.unwrap_or_else(|| {
            let thresholds = wish.judge_at_least.is_some() || wish.people_at_least.is_some();
            match thresholds {
                true => ScaleWord::Pass,
                false => fitting(items, known),
            }
        });
        match word {
            ScaleWord::Labels => labels(items, known),
            ScaleWord::Grades => grades(items, known),
            ScaleWord::Numbers => Self::Numbers,
            ScaleWord::Pass => Self::Pass {
                judge: wish.judge_at_least.unwrap_or_else(|| {
                    let range = known.range.or_else(|| span(judge_numbers(items)));
                    range.map_or(0.0, |(low, high)| (low + high) / 2.0)
                }),
                people: wish.people_at_least.unwrap_or_else(|| {
                    let range = span(people_numbers(items));
                    range.map_or(0.0, |(low, high)| (low + high) / 2.0)
                }),
            },
        }
    }

    /// What is shown of it.
    pub(super) fn shown(&self) -> ScaleJson {
        let (kind, judge_at_least, people_at_least) = match self {
            Self::Labels { .. } => (ScaleWord::Labels, None, None),
            Self::Grades(_) => (ScaleWord::Grades, None, None),
            Self::Numbers => (ScaleWord::Numbers, None, None),
            Self::Pass { judge, people } => (ScaleWord::Pass, Some(*judge), Some(*people)),
        };
        ScaleJson {
            kind,
            categories: self.names(),
            ordered: self.is_ordered(),
            judge_at_least,
            people_at_least,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Labels { words, .. } => words.clone(),
            Self::Grades(values) => values.iter().map(f64::to_string).collect(),
            Self::Pass { .. } => vec!["no".to_owned(), "yes".to_owned()],
            Self::Numbers => Vec::new(),
        }
    }

    fn is_ordered(&self) -> bool {
        match self {
            Self::Labels { ordered, .. } => *ordered,
            Self::Grades(_) | Self::Numbers => true,
            Self::Pass { .. } => false,
        }
    }

    fn level(&self) -> Level {
        match self {
            Self::Labels { ordered: true, .. } | Self::Grades(_) => Level::Ordinal,
            Self::Labels { .. } | Self::Pass { .. } => Level::Nominal,
            Self::Numbers => Level::Interval,
        }
    }

    /// The place of what was said in the list of categories.
    fn place(&self, said: &Said, is_judge: bool) -> Option<usize> {
        match self {
            Self::Labels { words, .. } => {
                let word = word_of(said)?;
                words.iter().position(|known| *known == word)
            }
            Self::Grades(values) => nearest(values, said.value?),
            Self::Pass { judge, people } => {
                let least = if is_judge { *judge } else { *people };
                Some(usize::from(said.value? >= least))
            }
            Self::Numbers => None,
        }
    }

    /// What was said as a number that means can be made of.
    fn number(&self, said: &Said, is_judge: bool, known: &Known) -> Option<f64> {
        match self {
            Self::Labels { .. } => {
                let word = word_of(said)?;
                known
                    .labels
                    .get(&word)
                    .copied()
                    .or_else(|| word.parse().ok())
            }
            Self::Grades(_) | Self::Numbers => said.value,
            #[expect(clippy::cast_precision_loss, reason = "0 or 1")]
            Self::Pass { .. } => self.place(said, is_judge).map(|place| place as f64),
        }
    }

    /// As agreement sees it: the place where there are categories, else the number.
    fn rating(&self, said: &Said, is_judge: bool) -> Option<f64> {
        match self {
            Self::Numbers => said.value,
            #[expect(clippy::cast_precision_loss, reason = "a place in a short list")]
            _ => self.place(said, is_judge).map(|place| place as f64),
        }
    }
}

fn word_of(said: &Said) -> Option<String> {
    said.label
        .clone()
        .or_else(|| said.value.map(|value| value.to_string()))
}

fn nearest(values: &[f64], value: f64) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (at, known) in values.iter().enumerate() {
        let gap = (known - value).abs();
        // Half-way goes up, as people round.
        if best.is_none_or(|(_, least)| gap <= least) {
            best = Some((at, gap));
        }
    }
    best.map(|(at, _)| at)
}

fn pairs<'a>(items: &'a [&Item]) -> impl Iterator<Item = (&'a Said, &'a [Said])> {
    items.iter().filter_map(|item| {
        let judge = item.judge.as_ref()?;
        (!item.people.is_empty()).then_some((judge, item.people.as_slice()))
    })
}

fn judge_numbers(items: &[&Item]) -> impl Iterator<Item = f64> {
    let judges = items.iter().filter_map(|item| item.judge.as_ref());
    judges.filter_map(|said| said.value)
}

fn people_numbers(items: &[&Item]) -> impl Iterator<Item = f64> {
    let people = items.iter().flat_map(|item| &item.people);
    people.filter_map(|said| said.value)
}

fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |span, value| match span {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// Words where both sides use the same ones, grades or numbers where people's numbers lie
/// in the judge's range, else yes and no.
fn fitting(items: &[&Item], known: &Known) -> ScaleWord {
    let mut words = [BTreeSet::new(), BTreeSet::new()];
    let (mut all, mut with_words, mut with_numbers) = (0, 0, 0);
    for (judge, people) in pairs(items) {
        all += 1;
        let labels = judge.label.is_some() && people.iter().all(|one| one.label.is_some());
        let numbers = judge.value.is_some() && people.iter().all(|one| one.value.is_some());
        with_words += usize::from(labels);
        with_numbers += usize::from(numbers);
        words[0].extend(judge.label.clone());
        words[1].extend(people.iter().filter_map(|one| one.label.clone()));
    }
    let shared = words[0].intersection(&words[1]).next().is_some();
    if all > 0 && with_words > 0 && with_words >= with_numbers && (shared || with_numbers == 0) {
        return ScaleWord::Labels;
    }
    let judges = known.range.or_else(|| span(judge_numbers(items)));
    let people = span(people_numbers(items));
    let fits = match (judges, people) {
        (Some((low, high)), Some((least, most))) => low <= least && most <= high,
        _ => true,
    };
    let different = grade_values(items, known);
    match (fits, different.len()) {
        (false, _) => ScaleWord::Pass,
        (true, count) if count <= MOST_GRADES => ScaleWord::Grades,
        (true, _) => ScaleWord::Numbers,
    }
}

fn labels(items: &[&Item], known: &Known) -> Scale {
    let mut words: BTreeSet<String> = known.labels.keys().cloned().collect();
    for item in items {
        words.extend(item.judge.iter().filter_map(word_of));
        words.extend(item.people.iter().filter_map(word_of));
    }
    let number = |word: &String| -> Option<f64> {
        known
            .labels
            .get(word)
            .copied()
            .or_else(|| word.parse().ok())
    };
    let mut words: Vec<String> = words.into_iter().collect();
    let ordered = words.len() > 2 && words.iter().all(|word| number(word).is_some());
    let order = |word: &String| number(word).unwrap_or(f64::INFINITY);
    words.sort_by(|a, b| order(a).total_cmp(&order(b)).then_with(|| a.cmp(b)));
    Scale::Labels { words, ordered }
}

/// The different numbers that were said, every whole one between where grades are whole.
fn grade_values(items: &[&Item], known: &Known) -> Vec<f64> {
    let said = judge_numbers(items).chain(people_numbers(items));
    let mut values: Vec<f64> = said
        .map(|value| if known.whole { value.round() } else { value })
        .collect();
    if let (true, Some((low, high))) = (known.whole, known.range) {
        let mut grade = low.round();
        while grade <= high && values.len() < 10_000_000 {
            values.push(grade);
            grade += 1.0;
        }
    }
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

fn grades(items: &[&Item], known: &Known) -> Scale {
    match grade_values(items, known) {
        values if values.len() <= MOST_GRADES => Scale::Grades(values),
        _ => Scale::Numbers,
    }
}

/// What most people said; the middle one where there is an order. `None` where they are
/// evenly split.
fn verdict(scale: &Scale, people: &[Said]) -> Option<usize> {
    let mut places: Vec<usize> = people
        .iter()
        .filter_map(|said| scale.place(said, false))
        .collect();
    places.sort_unstable();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for place in &places {
        *counts.entry(*place).or_default() += 1;
    }
    let most = counts.values().max().copied()?;
    let mut first = counts.iter().filter(|(_, count)| **count == most);
    match (first.next(), first.next(), scale.is_ordered()) {
        (Some((place, _)), None, _) => Some(*place),
        // Two neighbours in an order have no middle; the higher one, as in rounding.
        (_, _, true) => places.get(places.len() / 2).copied(),
        _ => None,
    }
}

/// The figures of one version of a judge.
pub(super) fn figures(
    items: &[Item],
    scale: &Scale,
    known: &Known,
    groups: &[String],
) -> VersionFigures {
    let judged = items.iter().filter(|item| item.judge.is_some()).count();
    let mut places = Vec::new();
    let mut clusters = Vec::new();
    let (mut both, mut split) = (0, 0);
    for item in items {
        let Some(judge) = item.judge.as_ref().filter(|_| !item.people.is_empty()) else {
            continue;
        };
        both += 1;
        if *scale == Scale::Numbers {
            continue;
        }
        match (verdict(scale, &item.people), scale.place(judge, true)) {
            (Some(people), Some(judge)) => {
                places.push((people, judge));
                clusters.push(item.unit);
            }
            _ => split += 1,
        }
    }
    let categories = scale.names();
    let confusion =
        Confusion::count(categories.len(), &places).unwrap_or(Confusion { counts: Vec::new() });
    let kappa = |weights| kappa_figure(categories.len(), &places, &clusters, weights);
    let same: u64 = places.iter().filter(|(a, b)| a == b).count() as u64;
    let total = places.len() as u64;
    let share = stats::wilson(same, total, ALPHA);
    let (alpha, alpha_people, raters) = alphas(items, scale);
    VersionFigures {
        judged: judged as u64,
        pairs: both,
        split,
        raters,
        agreement: confusion.percent_agreement().map(|value| Figure {
            value,
            low: Some(share.low),
            high: Some(share.high),
        }),
        kappa: kappa(Weights::None),
        weighted_kappa: match scale.is_ordered() && categories.len() > 2 {
            true => kappa(Weights::Quadratic),
            false => None,
        },
        alpha,
        alpha_people,
        alpha_level: match scale.level() {
            Level::Nominal => "nominal",
            Level::Ordinal => "ordinal",
            Level::Interval => "interval",
        }
        .to_owned(),
        labels: confusion
            .by_label()
            .iter()
            .zip(&categories)
            .map(|(one, name)| LabelRow {
                name: name.clone(),
                people: one.first,
                judge: one.second,
                both: one.both,
                agreement: one.agreement,
            })
            .collect(),
        confusion: confusion.counts,
        bias: bias(items, scale, known),
        headlines: groups
            .iter()
            .enumerate()
            .filter_map(|(group, name)| headline(items, scale, known, group, name))
            .collect(),
    }
}

fn kappa_figure(
    categories: usize,
    places: &[(usize, usize)],
    clusters: &[u64],
    weights: Weights,
) -> Option<Figure> {
    let value = Confusion::count(categories, places).ok()?.kappa(weights)?;
    let most = u32::try_from(MOST_DRAWS / places.len().max(1)).unwrap_or(RESAMPLES);
    let how = Resampling {
        resamples: most.clamp(
            stats::LEAST_RESAMPLES,
            RESAMPLES.max(stats::LEAST_RESAMPLES),
        ),
        ..Resampling::default()
    };
    let mut counts = vec![vec![0_u64; categories]; categories];
    let drawn = |rows: &[usize]| {
        counts.iter_mut().for_each(|row| row.fill(0));
        for at in rows {
            let (people, judge) = places[*at];
            counts[people][judge] += 1;
        }
        let drawn = Confusion {
            counts: counts.clone(),
        };
        drawn.kappa(weights)
    };
    let found = stats::bootstrap_interval(places.len(), Some(clusters), ALPHA, how, drawn).ok();
    let end = |value: f64| value.is_finite().then_some(value);
    Some(Figure {
        value,
        low: found.and_then(|found| end(found.low)),
        high: found.and_then(|found| end(found.high)),
    })
}

/// α of the judge and all people, α of the people alone, and the most people of an item.
fn alphas(items: &[Item], scale: &Scale) -> (Option<f64>, Option<f64>, u64) {
    let mut together = Vec::new();
    let mut people = Vec::new();
    let mut raters = 0;
    for item in items.iter().filter(|item| !item.people.is_empty()) {
        let own: Vec<Option<f64>> = item
            .people
            .iter()
            .map(|said| scale.rating(said, false))
            .collect();
        raters = raters.max(own.len());
        if let Some(judge) = &item.judge {
            let mut all = own.clone();
            all.push(scale.rating(judge, true));
            together.push(all);
        }
        people.push(own);
    }
    let alpha = |rows: &[Vec<Option<f64>>]| {
        stats::krippendorff(rows, scale.level())
            .ok()
            .and_then(|found| found.value)
    };
    (alpha(&together), alpha(&people), raters as u64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of people and repetitions"
)]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The mean of what people said of an item.
fn people_mean(item: &Item, scale: &Scale, known: &Known) -> Option<f64> {
    let values: Vec<f64> = item
        .people
        .iter()
        .filter_map(|said| scale.number(said, false, known))
        .collect();
    mean(&values)
}

/// Judge less people, on the items that both scored.
fn bias(items: &[Item], scale: &Scale, known: &Known) -> Option<Figure> {
    let gap = |item: &Item| {
        let judge = scale.number(item.judge.as_ref()?, true, known)?;
        Some(judge - people_mean(item, scale, known)?)
    };
    let gaps: Vec<f64> = items.iter().filter_map(gap).collect();
    if gaps.is_empty() {
        return None;
    }
    Some(figure_of(&stats::estimate_mean(&gaps).ok()?))
}

fn figure_of(found: &MeanEstimate) -> Figure {
    let interval = found.interval(ALPHA);
    Figure {
        value: found.mean,
        low: interval.low.is_finite().then_some(interval.low),
        high: interval.high.is_finite().then_some(interval.high),
    }
}

/// The judge's mean of one candidate, and what people make of it. The unit is the example:
/// repetitions are averaged first.
fn headline(
    items: &[Item],
    scale: &Scale,
    known: &Known,
    group: usize,
    name: &str,
) -> Option<Headline> {
    let mut units: BTreeMap<u64, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for item in items.iter().filter(|item| item.group == group) {
        let judge = item.judge.as_ref();
        let Some(judge) = judge.and_then(|said| scale.number(said, true, known)) else {
            continue;
        };
        let unit = units.entry(item.unit).or_default();
        unit.0.push(judge);
        unit.1.extend(people_mean(item, scale, known));
    }
    let mut all = Vec::new();
    let (mut labelled, mut alone) = (Vec::new(), Vec::new());
    for (judge, people) in units.values() {
        let judge = mean(judge)?;
        all.push(judge);
        match mean(people) {
            Some(human) => labelled.push(Labelled { human, judge }),
            None => alone.push(judge),
        }
    }
    let raw = figure_of(
        &stats::estimate_mean(&all)
            .ok()
            .filter(|_| !all.is_empty())?,
    );
    let found = stats::prediction_powered_mean(&labelled, &alone, Trust::Tuned, ALPHA).ok()?;
    let people = (!labelled.is_empty()).then(|| figure_of(&found.human_only));
    let end = |value: f64| value.is_finite().then_some(value);
    let corrected = found.estimate.map(|value| Figure {
        value,
        low: end(found.interval.low),
        high: end(found.interval.high),
    });
    Some(Headline {
        candidate: name.to_owned(),
        raw,
        // Where people labelled everything there is nothing to infer.
        corrected: corrected.or_else(|| people.clone().filter(|_| alone.is_empty())),
        people,
        labelled: labelled.len() as u64,
        unlabelled: alone.len() as u64,
        trust: found.lambda,
    })
}
