//! What an evaluation has shown, as a table, JSON, Markdown or JUnit.

use std::fmt::Write as _;

use clap::ValueEnum;

use crate::cli::{print_json, print_line, print_table};
use crate::evaluations::gate::GateResult;
use crate::evaluations::{CellFigures, Shown};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// Everything, as the API answers.
    Json,
    /// Each gate as a test case.
    Junit,
    /// For a pull request's comment.
    Markdown,
}

const HEADER: [&str; 6] = [
    "evaluator",
    "candidate",
    "value",
    "95 % interval",
    "scored",
    "beside the baseline",
];

pub(super) fn print(shown: &Shown, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => print_json(shown),
        Format::Markdown => markdown(shown).lines().try_for_each(print_line),
        Format::Junit => junit(shown).lines().try_for_each(print_line),
        Format::Table => {
            print_table(&HEADER, rows(shown).into_iter().map(Vec::from).collect())?;
            let gates = shown.gates.iter().map(gate_line);
            gates.into_iter().try_for_each(|line| print_line(&line))
        }
    }
}

/// The matrix, a row for each evaluator and candidate.
fn rows(shown: &Shown) -> Vec<[String; 6]> {
    let evaluators = shown.results.evaluators.iter();
    let cells = evaluators.flat_map(|one| one.cells.iter().map(move |cell| (one, cell)));
    let rows = cells.map(|(evaluator, cell)| {
        [
            evaluator.name.clone(),
            cell.candidate.clone(),
            cell.value.map_or_else(|| "–".to_owned(), number),
            interval(cell.low, cell.high).unwrap_or_default(),
            format!(
                "{}/{}",
                cell.scored,
                cell.scored + cell.errors + cell.unscored
            ),
            verdict(cell),
        ]
    });
    rows.collect()
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}

fn interval(low: Option<f64>, high: Option<f64>) -> Option<String> {
    Some(format!("{} … {}", number(low?), number(high?)))
}

fn verdict(cell: &CellFigures) -> String {
    let Some(compared) = &cell.comparison else {
        return String::new();
    };
    let ends = interval(compared.low, compared.high)
        .map(|ends| format!(" ({ends})"))
        .unwrap_or_default();
    let verdict = compared.verdict.replace('_', " ");
    format!("{verdict}: {:+.3}{ends}", compared.difference)
}

fn gate_line(gate: &GateResult) -> String {
    format!(
        "{}: {} {} {}: {}",
        gate.outcome,
        gate.candidate,
        gate.evaluator,
        gate.rule.replace('_', " "),
        gate.reason
    )
}

/// Text inside of a Markdown table.
fn cell(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;");
    escaped.replace(['\n', '\r'], " ")
}

fn markdown(shown: &Shown) -> String {
    let evaluation = &shown.evaluation;
    let suite = match evaluation.suite.as_str() {
        "" => String::new(),
        suite => format!(" `{}`", cell(suite)),
    };
    let mut out = format!(
        "### Evaluation{suite}\n\n{} examples of `{}` version {}, {} answers, {} errors\n\n| {} |\n|{}\n",
        evaluation.counters.examples,
        cell(&evaluation.dataset.name),
        evaluation.dataset.version,
        evaluation.counters.answers_ok,
        evaluation.counters.answers_failed,
        HEADER.join(" | "),
        "---|".repeat(HEADER.len())
    );
    for row in rows(shown) {
        let row = row.map(|text| cell(&text)).join(" | ");
        let _ = writeln!(out, "| {row} |");
    }
    if !shown.gates.is_empty() {
        out.push_str("\n**Gates**\n\n");
    }
    for gate in &shown.gates {
        let mark = if gate.holds() { "x" } else { " " };
        let _ = writeln!(out, "- [{mark}] {}", cell(&gate_line(gate)));
    }
    out
}

fn xml(text: &str) -> String {
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect();
    clean
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn junit(shown: &Shown) -> String {
    let open = shown.gates.iter().filter(|gate| !gate.holds()).count();
    let suite = match shown.evaluation.suite.as_str() {
        "" => "evaluation",
        suite => suite,
    };
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{open}\" errors=\"0\">\n",
        xml(suite),
        shown.gates.len()
    );
    for gate in &shown.gates {
        let case = format!(
            "<testcase classname=\"{}\" name=\"{} {} {}\"",
            xml(&gate.candidate),
            xml(&gate.evaluator),
            xml(&gate.rule),
            gate.limit
        );
        let _ = match gate.holds() {
            true => writeln!(out, "{case}/>"),
            false => writeln!(
                out,
                "{case}><failure type=\"{}\" message=\"{}\"/></testcase>",
                xml(&gate.outcome),
                xml(&gate.reason)
            ),
        };
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}
