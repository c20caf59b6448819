//! Classification, as scikit-learn 1.9 computes it, over pairs of expected and given labels.
//!
//! An answer that is not on the fixed list becomes `__invalid__`. It is a miss of the label that was
//! expected and a hit of none, and no class of its own: as a class it would drag macro averages
//! down by a number that depends on how models misspell.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The label of an answer that is on no list.
pub const INVALID: &str = "__invalid__";

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelMeasure {
    /// Share of equal labels.
    Accuracy,
    /// Of the answers with a label, the share that is right.
    Precision,
    /// Of the examples with a label, the share that was found.
    Recall,
    /// Their weighted harmonic mean, by beta.
    FBeta,
}

/// How the numbers of the classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The mean over classes.
    Macro,
    /// From the counts of all classes together.
    Micro,
    /// The mean weighted by how often a class is expected.
    Weighted,
    /// Of one class only.
    Binary,
}

/// What stands where something is divided by zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroDivision {
    /// 0, scikit-learn's default (it also warns).
    Zero,
    /// 1.
    One,
    /// Nothing: the class leaves the mean.
    Leave,
}

/// Which answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// All; an invalid one is wrong.
    Strict,
    /// Only those on the list.
    Answered,
}

/// Counts of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassCounts {
    /// Expected and given.
    pub right: u64,
    /// Given.
    pub given: u64,
    /// Expected.
    pub expected: u64,
}

/// Every class with its counts, in the order of the list, or sorted where there is no list.
#[derive(Clone, Debug, PartialEq)]
pub struct Confusion {
    /// The labels, without [`INVALID`].
    pub labels: Vec<String>,
    /// Rows are expected, columns given labels; the last row and column are [`INVALID`].
    pub matrix: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts pairs of (expected, given). With a list, labels that are not on it become invalid;
    /// without one, every label that occurs is on it.
    pub fn count<'a>(
        pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
        list: Option<&[String]>,
    ) -> Confusion {
        let labels: Vec<String> = match list {
            Some(list) => list.to_vec(),
            None => {
                let mut seen: Vec<&str> = pairs
                    .clone()
                    .flat_map(|(expected, given)| [expected, given])
                    .filter(|label| *label != INVALID)
                    .collect();
                seen.sort_unstable();
                seen.dedup();
                seen.into_iter().map(str::to_owned).collect()
            }
        };
        let mut places = BTreeMap::new();
        for (at, label) in labels.iter().enumerate() {
            places.entry(label.as_str()).or_insert(at);
        }
        let invalid = labels.len();
        let mut matrix = vec![vec![0; invalid + 1]; invalid + 1];
        let place = |label: &str| places.get(label).copied().unwrap_or(invalid);
        for (expected, given) in pairs {
            matrix[place(expected)][place(given)] += 1;
        }
        Confusion { labels, matrix }
    }

    /// The same without the answers that are invalid.
    pub fn answered(&self) -> Confusion {
        let mut matrix = self.matrix.clone();
        for row in &mut matrix {
            row[self.labels.len()] = 0;
        }
        Confusion {
            labels: self.labels.clone(),
            matrix,
        }
    }

    /// All pairs.
    pub fn total(&self) -> u64 {
        self.matrix.iter().flatten().sum()
    }

    /// Pairs whose answer is on no list.
    pub fn invalid(&self) -> u64 {
        self.matrix.iter().map(|row| row[self.labels.len()]).sum()
    }

    /// Counts per class, in the order of `labels`.
    pub fn classes(&self) -> Vec<ClassCounts> {
        (0..self.labels.len())
            .map(|class| ClassCounts {
                right: self.matrix[class][class],
                given: self.matrix.iter().map(|row| row[class]).sum(),
                expected: self.matrix[class].iter().sum(),
            })
            .collect()
    }

    /// Share of pairs that are equal. None without pairs.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.labels.len())
            .map(|class| self.matrix[class][class])
            .sum();
        (self.total() > 0).then(|| right as f64 / self.total() as f64)
    }

    pub(super) fn detail(&self, settings: &Labels) -> Value {
        let per_class: Vec<Value> = self
            .labels
            .iter()
            .zip(self.classes())
            .map(|(label, counts)| {
                let value = |measure| settings.of_counts(measure, counts);
                json!({
                    "label": label,
                    "precision": value(LabelMeasure::Precision),
                    "recall": value(LabelMeasure::Recall),
                    "f": value(LabelMeasure::FBeta),
                    "expected": counts.expected,
                    "given": counts.given,
                })
            })
            .collect();
        let mut labels = self.labels.clone();
        labels.push(INVALID.to_owned());
        json!({
            "per_class": per_class,
            "confusion": {"labels": labels, "counts": self.matrix},
            "invalid": self.invalid(),
            "strict": settings.of(self),
            "answered": settings.of(&self.answered()),
        })
    }
}

/// A classification measure with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// What to compute.
    pub measure: LabelMeasure,
    /// How classes become one number.
    pub average: Average,
    /// Recall counts beta times as much as precision.
    pub beta: f64,
    /// What stands where something is divided by zero.
    pub zero_division: ZeroDivision,
    /// Which answers count.
    pub answers: Answers,
    /// The fixed list; without it every label that occurs is a class.
    pub list: Option<Vec<String>>,
    /// The class of [`Average::Binary`].
    pub positive: Option<String>,
}

impl Labels {
    /// The value over all pairs. None where there is nothing to divide by and
    /// [`ZeroDivision::Leave`] asks for nothing, or where there is no pair.
    pub fn value(&self, confusion: &Confusion) -> Option<f64> {
        match self.answers {
            Answers::Strict => self.of(confusion),
            Answers::Answered => self.of(&confusion.answered()),
        }
    }

    fn of(&self, confusion: &Confusion) -> Option<f64> {
        if confusion.total() == 0 {
            return None;
        }
        if self.measure == LabelMeasure::Accuracy {
            return confusion.accuracy();
        }
        let classes = confusion.classes();
        match self.average {
            Average::Micro => {
                let sum = classes
                    .iter()
                    .fold(ClassCounts::default(), |sum, one| ClassCounts {
                        right: sum.right + one.right,
                        given: sum.given + one.given,
                        expected: sum.expected + one.expected,
                    });
                self.of_counts(self.measure, sum)
            }
            Average::Binary => {
                let positive = self.positive.as_deref()?;
                let at = confusion
                    .labels
                    .iter()
                    .position(|label| label == positive)?;
                self.of_counts(self.measure, classes[at])
            }
            Average::Macro => self.mean(&classes, |_| 1.0),
            Average::Weighted => self.mean(&classes, |counts| counts.expected as f64),
        }
    }

    /// A weighted mean over the classes that have a value; plain where all weights are 0.
    fn mean(&self, classes: &[ClassCounts], weight: impl Fn(&ClassCounts) -> f64) -> Option<f64> {
        let (mut sum, mut weights, mut plain, mut count) = (0.0, 0.0, 0.0, 0.0);
        for counts in classes {
            if let Some(value) = self.of_counts(self.measure, *counts) {
                sum += value * weight(counts);
                weights += weight(counts);
                plain += value;
                count += 1.0;
            }
        }
        if weights > 0.0 {
            Some(sum / weights)
        } else {
            (count > 0.0).then(|| plain / count)
        }
    }

    fn by_zero(&self) -> Option<f64> {
        match self.zero_division {
            ZeroDivision::Zero => Some(0.0),
            ZeroDivision::One => Some(1.0),
            ZeroDivision::Leave => None,
        }
    }

    fn of_counts(&self, measure: LabelMeasure, counts: ClassCounts) -> Option<f64> {
        let share = |part: f64, whole: f64| {
            if whole == 0.0 {
                self.by_zero()
            } else {
                Some(part / whole)
            }
        };
        let (right, given, expected) = (
            counts.right as f64,
            counts.given as f64,
            counts.expected as f64,
        );
        match measure {
            LabelMeasure::Precision => share(right, given),
            LabelMeasure::Accuracy | LabelMeasure::Recall => share(right, expected),
            LabelMeasure::FBeta => {
                let square = self.beta * self.beta;
                share((1.0 + square) * right, square * expected + given)
            }
        }
    }

    pub(super) fn signature(&self) -> String {
        let average = match self.average {
            _ if self.measure == LabelMeasure::Accuracy => String::new(),
            Average::Macro => "avg:macro|".to_owned(),
            Average::Micro => "avg:micro|".to_owned(),
            Average::Weighted => "avg:weighted|".to_owned(),
            Average::Binary => {
                format!("avg:binary|pos:{}|", self.positive.as_deref().unwrap_or(""))
            }
        };
        let zero = match self.zero_division {
            _ if self.measure == LabelMeasure::Accuracy => String::new(),
            ZeroDivision::Zero => "zero:0|".to_owned(),
            ZeroDivision::One => "zero:1|".to_owned(),
            ZeroDivision::Leave => "zero:nan|".to_owned(),
        };
        let beta = match self.measure {
            LabelMeasure::FBeta => format!("beta:{}|", self.beta),
            _ => String::new(),
        };
        let answers = match self.answers {
            Answers::Strict => "strict",
            Answers::Answered => "answered",
        };
        let list = match &self.list {
            None => "seen".to_owned(),
            Some(list) => list.join(","),
        };
        format!("{beta}{average}{zero}answers:{answers}|labels:{list}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(measure: LabelMeasure, average: Average, list: Option<&[&str]>) -> Labels {
        Labels {
            measure,
            average,
            beta: 1.0,
            zero_division: ZeroDivision::Zero,
            answers: Answers::Strict,
            list: list.map(|list| list.iter().map(|l| (*l).to_owned()).collect()),
            positive: None,
        }
    }

    #[test]
    fn an_invalid_answer_is_a_miss_and_not_a_class() {
        let pairs = [("a", "a"), ("a", "banana"), ("b", "b"), ("b", "a")];
        let settings = labels(LabelMeasure::FBeta, Average::Macro, Some(&["a", "b"]));
        let confusion = Confusion::count(pairs.into_iter(), settings.list.as_deref());
        // a: 1 of 2 given, 1 of 2 expected; b: 1 of 1 given, 1 of 2 expected.
        let expected = (0.5 + 2.0 / 3.0) / 2.0;
        assert!((settings.value(&confusion).unwrap() - expected).abs() < 1e-12);
        assert_eq!(confusion.invalid(), 1);
        let answered = Labels {
            answers: Answers::Answered,
            ..settings
        };
        let expected = (2.0 / 3.0 + 2.0 / 3.0) / 2.0;
        assert!((answered.value(&confusion).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn nothing_is_not_zero() {
        let settings = labels(LabelMeasure::Accuracy, Average::Macro, None);
        let confusion = Confusion::count(std::iter::empty(), None);
        assert_eq!(settings.value(&confusion), None);
        let one = Confusion::count([("a", "a")].into_iter(), None);
        assert_eq!(settings.value(&one), Some(1.0));
    }
}
