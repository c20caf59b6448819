//! The library part of `meguri guard bench`: labelled texts in, a report per source out. What
//! ran (a policy, one classifier) and how long it took is the caller's to say; this file reads
//! no clock and knows no policy.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classify::{Share, auc, recall_at_one_percent};

/// Fewer benign texts than this say nothing about 1 %: the benign texts of all sources stand in.
const OWN_NEGATIVES: usize = 100;

/// One labelled text of a set (a line of JSONL). Other fields are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Item {
    /// The text.
    pub text: String,
    /// Whether it should be found: `true`, 1, `"attack"`, `"toxic"`, `"positive"` or
    /// `"unsafe"`; and `false`, 0, `"benign"`, `"negative"`, `"clean"` or `"safe"`.
    #[serde(deserialize_with = "label")]
    pub label: bool,
    /// Where it is from.
    #[serde(default = "unnamed")]
    pub source: String,
    /// Its language, such as `en`.
    #[serde(default)]
    pub language: String,
}

fn unnamed() -> String {
    "unnamed".to_owned()
}

fn label<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(from)?;
    let word = value.as_str().map(str::to_ascii_lowercase);
    match (word.as_deref(), value.as_bool(), value.as_i64()) {
        (_, Some(label), _) => Ok(label),
        (_, _, Some(label @ 0..=1)) => Ok(label == 1),
        (Some("attack" | "toxic" | "positive" | "unsafe" | "1" | "true"), ..) => Ok(true),
        (Some("benign" | "negative" | "clean" | "safe" | "0" | "false"), ..) => Ok(false),
        _ => Err(serde::de::Error::custom(format!(
            "{value} is no label that is known"
        ))),
    }
}

/// A line that is no labelled text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "reading line {} of the labelled texts: {}",
            self.line, self.message
        )
    }
}

impl std::error::Error for BadLine {}

/// Reads JSONL; blank lines are skipped.
///
/// # Errors
/// The first line that has no text or no label.
pub fn read_items(jsonl: &str) -> Result<Vec<Item>, BadLine> {
    let lines = jsonl
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| BadLine {
                line: at + 1,
                message: error.to_string(),
            })
        })
        .collect()
}

/// What came of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Where the text is from.
    pub source: String,
    /// Its language.
    pub language: String,
    /// Whether it should be found.
    pub positive: bool,
    /// Whether it was found, at the thresholds in force.
    pub found: bool,
    /// The highest score; 1 or 0 for rules that have none.
    pub score: f32,
    /// How long it took.
    pub micros: Option<u64>,
}

/// Figures of one source, of one language, or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The source's name, `language: ja`, or `all`.
    pub name: String,
    /// How many texts.
    pub texts: usize,
    /// Found of those that should be; nothing without any.
    pub recall: Option<Share>,
    /// Found of those that should not be; nothing without any.
    pub false_positives: Option<Share>,
    /// Recall at the threshold that 1 % of the benign texts reach.
    pub recall_at_1_percent: Option<f64>,
    /// The area under the ROC curve.
    pub auc: Option<f64>,
    /// Whether the two figures before are against the source's own benign texts. Otherwise it
    /// has too few, and those of all sources stand in.
    pub own_negatives: bool,
    /// Durations, if the caller measured them.
    pub latency: Option<Latency>,
}

/// Percentiles of durations, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: u64,
    /// 95 of 100 were faster.
    pub p95: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// What `meguri guard bench` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// One per source, by name.
    pub sources: Vec<Figures>,
    /// One per language, if there is more than one.
    pub languages: Vec<Figures>,
    /// Everything together.
    pub all: Figures,
}

/// The report of a run.
pub fn report(outcomes: &[Outcome]) -> Report {
    let benign: Vec<f32> = outcomes
        .iter()
        .filter(|one| !one.positive)
        .map(|one| one.score)
        .collect();
    let by = |key: fn(&Outcome) -> String| -> Vec<Figures> {
        let mut groups: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
        for one in outcomes {
            groups.entry(key(one)).or_default().push(one);
        }
        groups
            .into_iter()
            .map(|(name, group)| figures(name, &group, &benign))
            .collect()
    };
    let languages = by(|one| format!("language: {}", one.language));
    let all: Vec<&Outcome> = outcomes.iter().collect();
    Report {
        sources: by(|one| one.source.clone()),
        languages: if languages.len() > 1 {
            languages
        } else {
            Vec::new()
        },
        all: figures("all".to_owned(), &all, &benign),
    }
}

fn figures(name: String, group: &[&Outcome], all_benign: &[f32]) -> Figures {
    let scores = |positive: bool| -> Vec<f32> {
        group
            .iter()
            .filter(|one| one.positive == positive)
            .map(|one| one.score)
            .collect()
    };
    let share = |positive: bool| {
        let of: Vec<_> = group
            .iter()
            .filter(|one| one.positive == positive)
            .collect();
        let found = of.iter().filter(|one| one.found).count();
        (!of.is_empty()).then(|| Share::new(found, of.len()))
    };
    let (positive, negative) = (scores(true), scores(false));
    let own_negatives = negative.len() >= OWN_NEGATIVES;
    let against = if own_negatives { &negative } else { all_benign };
    Figures {
        name,
        texts: group.len(),
        recall: share(true),
        false_positives: share(false),
        recall_at_1_percent: recall_at_one_percent(&positive, against),
        auc: auc(&positive, against),
        own_negatives,
        latency: latency(group.iter().filter_map(|one| one.micros).collect()),
    }
}

fn latency(mut micros: Vec<u64>) -> Option<Latency> {
    micros.sort_unstable();
    let max = *micros.last()?;
    // The nearest rank: a duration that was really seen.
    let at = |percent: usize| micros[(micros.len() * percent).div_ceil(100).max(1) - 1];
    Some(Latency {
        p50: at(50),
        p95: at(95),
        p99: at(99),
        max,
    })
}

impl Report {
    /// The report as a Markdown table.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| source | texts | recall | recall @1 % FPR | AUC | false positives | p50 / p95 / p99 µs |\n\
             |---|---:|---|---:|---:|---|---|\n",
        );
        let all = std::iter::once(&self.all);
        for row in self.sources.iter().chain(&self.languages).chain(all) {
            row.write_row(&mut out);
        }
        out
    }
}

impl Figures {
    fn write_row(&self, out: &mut String) {
        let number = |value: Option<f64>| {
            let mark = if self.own_negatives { "" } else { "*" };
            value.map_or("–".to_owned(), |value| format!("{value:.3}{mark}"))
        };
        let latency = self.latency.map_or("–".to_owned(), |latency| {
            format!("{} / {} / {}", latency.p50, latency.p95, latency.p99)
        });
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.name.replace('|', "\\|"),
            self.texts,
            share(self.recall),
            number(self.recall_at_1_percent),
            number(self.auc),
            share(self.false_positives),
            latency
        );
    }
}

fn share(share: Option<Share>) -> String {
    share.map_or("–".to_owned(), |share| {
        format!(
            "{:.1} % ({}/{}; {:.1}–{:.1})",
            share.value * 100.0,
            share.hits,
            share.of,
            share.low * 100.0,
            share.high * 100.0
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(source: &str, positive: bool, score: f32) -> Outcome {
        Outcome {
            source: source.into(),
            language: "en".into(),
            positive,
            found: score >= 0.5,
            score,
            micros: Some(10),
        }
    }

    #[test]
    fn labels_of_many_kinds_are_read_and_bad_lines_named() {
        let items = read_items(
            "{\"text\": \"a\", \"label\": 1}\n\n{\"text\": \"b\", \"label\": \"benign\", \"source\": \"x\"}\n\
             {\"text\": \"c\", \"label\": true, \"extra\": 1}",
        )
        .unwrap();
        let labels: Vec<bool> = items.iter().map(|item| item.label).collect();
        assert_eq!(labels, [true, false, true]);
        assert_eq!(items[1].source, "x");
        let error = read_items("{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 7}");
        assert_eq!(error.unwrap_err().line, 2);
    }

    #[test]
    fn a_source_without_benign_texts_is_measured_against_all_of_them() {
        let mut outcomes: Vec<Outcome> = (0..100u8)
            .map(|n| outcome("own", false, f32::from(n) / 200.0))
            .collect();
        outcomes.push(outcome("own", true, 0.9));
        outcomes.push(outcome("attacks", true, 0.2));
        let report = report(&outcomes);
        let [attacks, own] = &report.sources[..] else {
            panic!("two sources")
        };
        assert!(!attacks.own_negatives && attacks.false_positives.is_none());
        assert_eq!(attacks.recall.unwrap().hits, 0);
        assert_eq!(own.recall_at_1_percent, Some(1.0));
        assert_eq!(own.false_positives.unwrap().hits, 0);
        assert_eq!(report.all.texts, 102);
        assert_eq!(report.all.latency.unwrap().p99, 10);
        assert!(
            report
                .markdown()
                .contains("| attacks | 1 | 0.0 % (0/1; 0.0–79.3) |")
        );
    }

    #[test]
    fn percentiles_are_durations_that_were_seen() {
        let found = latency((1..=100).collect()).unwrap();
        assert_eq!(
            (found.p50, found.p95, found.p99, found.max),
            (50, 95, 99, 100)
        );
        assert_eq!(latency(vec![7]).unwrap().p99, 7);
        assert_eq!(latency(vec![]), None);
    }
}
