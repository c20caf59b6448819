//! Retrieval: a ranked list of ids against the ids that are relevant.
//!
//! An id that is retrieved twice counts at its first place only; otherwise a list of one good id
//! repeated would beat every honest list.

use std::collections::{HashMap, HashSet};

use super::strings::{Edits, Measure, string_distance};

/// Which number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Retrieval {
    /// 1 when any relevant id is among the first k.
    HitRate,
    /// 1 ÷ place of the first relevant id; 0 when none is among the first k.
    ReciprocalRank,
    /// Discounted gain over the best possible one: grades ÷ log2(place + 1).
    Ndcg,
    /// Share of the first k that is relevant; divided by what was retrieved, where that is less.
    Precision,
    /// Share of the relevant ids that is among the first k.
    Recall,
    /// Mean of the precision at each place that holds a relevant id, over the relevant ids *that
    /// were retrieved*: Ragas' context precision with ids for verdicts.
    ContextPrecision,
    /// Share of the relevant texts that some retrieved text is like by more than 0.5: Ragas'
    /// context recall without a model.
    SimilarRecall,
}

/// The value for one row; none when nothing is relevant, because then no list could be good. Every
/// relevant id has a grade, 1 where none is given.
pub fn retrieval(
    measure: Retrieval,
    retrieved: &[String],
    relevant: &[String],
    grades: &[f64],
    k: Option<usize>,
) -> Option<f64> {
    let mut gains: HashMap<&str, f64> = HashMap::new();
    for (at, id) in relevant.iter().enumerate() {
        let grade = grades.get(at).copied().unwrap_or(1.0);
        if grade.is_finite() && grade > 0.0 {
            gains.insert(id, grade);
        }
    }
    if gains.is_empty() {
        return None;
    }
    let mut seen = HashSet::new();
    let ranked: Vec<&str> = retrieved
        .iter()
        .map(String::as_str)
        .filter(|id| seen.insert(*id))
        .take(k.unwrap_or(usize::MAX))
        .collect();
    let places: Vec<usize> = ranked
        .iter()
        .enumerate()
        .filter(|(_, id)| gains.contains_key(*id))
        .map(|(at, _)| at + 1)
        .collect();
    let found = places.len() as f64;
    Some(match measure {
        Retrieval::HitRate => f64::from(u8::from(!places.is_empty())),
        Retrieval::ReciprocalRank => places.first().map_or(0.0, |place| 1.0 / *place as f64),
        Retrieval::Precision => found / ranked.len().max(1) as f64,
        Retrieval::Recall => found / gains.len() as f64,
        Retrieval::ContextPrecision => {
            let sum: f64 = places
                .iter()
                .enumerate()
                .map(|(before, place)| (before + 1) as f64 / *place as f64)
                .sum();
            sum / (found + 1e-10)
        }
        Retrieval::Ndcg => ndcg(&ranked, &gains, k),
        Retrieval::SimilarRecall => similar_recall(&ranked, gains.keys().copied()),
    })
}

fn ndcg(ranked: &[&str], gains: &HashMap<&str, f64>, k: Option<usize>) -> f64 {
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        gains
            .enumerate()
            .map(|(at, gain)| gain / (at as f64 + 2.0).log2())
            .sum()
    };
    let mut best: Vec<f64> = gains.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let ideal = discounted(&mut best.into_iter().take(k.unwrap_or(usize::MAX)));
    let real = discounted(
        &mut ranked
            .iter()
            .map(|id| gains.get(id).copied().unwrap_or(0.0)),
    );
    real / ideal
}

fn similar_recall<'a>(ranked: &[&str], relevant: impl ExactSizeIterator<Item = &'a str>) -> f64 {
    let total = relevant.len() as f64;
    let found = relevant
        .filter(|text| {
            ranked.iter().any(|other| {
                string_distance(
                    Edits::Levenshtein,
                    Measure::NormalisedSimilarity,
                    text,
                    other,
                ) > 0.5
            })
        })
        .count();
    found as f64 / total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let ids = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let retrieved = ids(&["x", "a", "a", "y", "b"]);
        let relevant = ids(&["a", "b", "c"]);
        let check = |measure, k, expected: f64| {
            let value = retrieval(measure, &retrieved, &relevant, &[], k).unwrap();
            assert!(
                (value - expected).abs() < 1e-9,
                "{measure:?} {value} {expected}"
            );
        };
        check(Retrieval::HitRate, Some(1), 0.0);
        check(Retrieval::HitRate, None, 1.0);
        check(Retrieval::ReciprocalRank, None, 0.5);
        check(Retrieval::Precision, None, 0.5);
        check(Retrieval::Precision, Some(2), 0.5);
        check(Retrieval::Recall, None, 2.0 / 3.0);
        check(Retrieval::ContextPrecision, None, (0.5 + 0.5) / 2.0);
        let real = 1.0 / 3.0_f64.log2() + 1.0 / 5.0_f64.log2();
        let ideal = 1.0 + 1.0 / 3.0_f64.log2() + 0.5;
        check(Retrieval::Ndcg, None, real / ideal);
        assert_eq!(
            retrieval(Retrieval::Recall, &retrieved, &[], &[], None),
            None
        );
        let texts = retrieval(
            Retrieval::SimilarRecall,
            &ids(&["hello world"]),
            &ids(&["hello word", "bye"]),
            &[],
            None,
        );
        assert_eq!(texts, Some(0.5));
    }
}
