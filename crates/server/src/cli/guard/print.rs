//! What a check and a measurement say, as tables and as JSON.

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::{message, print_json, print_line, print_table};
use crate::guards::asker::Unasked;
use crate::guards::check::Checked;
use crate::guards::measure::{Curve, CurvePoint, Measured};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// Everything, as the API answers.
    Json,
}

/// A result, and the rules that nobody could be asked for.
#[derive(Serialize)]
pub(super) struct Said<T> {
    #[serde(flatten)]
    pub(super) what: T,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unasked: Vec<Unasked>,
}

impl<T: Serialize> Said<T> {
    /// What a server said, which asks whom it must.
    pub(super) fn by_server(what: T) -> Self {
        Self {
            what,
            unasked: Vec::new(),
        }
    }

    pub(super) fn print(
        &self,
        format: Format,
        table: impl Fn(&T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if format == Format::Json {
            return print_json(self);
        }
        for one in &self.unasked {
            let holds = match one.on_failure {
                guard::OnFailure::Open => "open lets all texts pass",
                guard::OnFailure::Closed => "closed takes all texts for found",
            };
            message(&format!(
                "the rule {:?} was not asked: {}; its on_failure decides, and {holds}",
                one.rule, one.why
            ));
        }
        if self.unasked.iter().any(|one| one.why.contains("model")) {
            message("a running server asks models: --url https://…");
        }
        table(&self.what)
    }
}

pub(super) fn checked_table(checked: &Checked) -> anyhow::Result<()> {
    let rows = checked.findings.iter().map(|finding| {
        vec![
            finding.rule.clone(),
            finding.detector.clone(),
            finding.tier.clone(),
            format!("{:.2}", finding.score),
            format!("{}–{}", finding.start_char, finding.end_char),
            finding.outcome.clone(),
            finding.reason.clone(),
        ]
    });
    let header = [
        "RULE",
        "FOUND",
        "TIER",
        "SCORE",
        "CHARACTERS",
        "DONE",
        "WHY",
    ];
    print_table(&header, rows.collect())?;
    let timing = checked.timing_us;
    message(&format!(
        "{}: rules {} µs, linear {} µs, models {} µs",
        checked.decision.name(),
        timing.rules,
        timing.linear,
        timing.models
    ));
    if let Some(trace) = &checked.trace_id {
        message(&format!("questions to models: trace {trace}"));
    }
    print_line(checked.text.as_deref().unwrap_or_default())
}

pub(super) fn measured_table(measured: &Measured) -> anyhow::Result<()> {
    for line in measured.report.markdown().lines() {
        print_line(line)?;
    }
    message("* against the benign texts of all sources: this one has too few of its own");
    for (rule, texts) in &measured.unchecked {
        message(&format!(
            "the rule {rule:?} could not check {texts} texts and let them pass; they count as not found"
        ));
    }
    match &measured.curve {
        Some(curve) => print_curve(curve),
        None => Ok(()),
    }
}

fn print_curve(curve: &Curve) -> anyhow::Result<()> {
    let percent = |share: Option<f64>| match share {
        Some(share) => format!("{:.1} %", share * 100.0),
        None => "–".to_owned(),
    };
    let row = |note: &str, point: &CurvePoint| {
        vec![
            format!("{:.2}", point.threshold),
            percent(point.recall),
            percent(point.precision),
            percent(point.false_positive_rate),
            note.to_owned(),
        ]
    };
    let suggested = curve
        .suggested
        .iter()
        .map(|point| row("1 % false positives", point));
    let rows = std::iter::once(row("in force", &curve.current)).chain(suggested);
    // Thresholds stand 0.02 apart; the table has those at each tenth.
    let every_tenth = curve
        .points
        .iter()
        .skip(4)
        .step_by(5)
        .map(|point| row("", point));
    let header = ["THRESHOLD", "RECALL", "PRECISION", "FALSE POSITIVES", ""];
    print_table(&header, rows.chain(every_tenth).collect())
}
