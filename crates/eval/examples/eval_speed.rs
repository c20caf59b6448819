//! `eval_speed ROWS.jsonl METRICS.json [DICTIONARY]`: scores every row with every metric on one
//! thread and prints, per metric, the seconds and the value as JSON. `bench/eval.py` gives the same
//! rows to the Python programs.
//!
//! A row is `[answer, [reference, …]]`; the metrics file is a list of definitions.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use eval::{Item, Japanese, Metric, Resources};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rows, metrics, rest @ ..] = arguments.as_slice() else {
        return Err("two arguments are needed: ROWS.jsonl METRICS.json [DICTIONARY]".into());
    };
    let rows: Vec<(String, Vec<String>)> = std::fs::read_to_string(rows)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut resources = Resources::default();
    if let Some(dictionary) = rest.first() {
        resources.japanese = Some(Arc::new(Japanese::unpack(&std::fs::read(dictionary)?)?));
    }
    let definitions: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(metrics)?)?;
    let mut out = std::io::stdout().lock();
    for definition in definitions {
        let metric = Metric::parse(&definition)?.with(&resources);
        let items: Vec<Item<'_>> = rows
            .iter()
            .map(|(output, expected)| Item::new(output, expected))
            .collect();
        let started = Instant::now();
        let outcome = metric.corpus(&items);
        let seconds = started.elapsed().as_secs_f64();
        let line = json!({
            "signature": metric.signature(), "seconds": seconds, "value": outcome.value(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
