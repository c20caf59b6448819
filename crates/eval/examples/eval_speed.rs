//! `eval_speed ROWS.jsonl METRICS.json [DICTIONARY]`: scores every row with every metric on one
//! thread and prints, per metric, the processor seconds and the value as JSON. `bench/eval.py` gives
//! the same rows to the Python programs. Linux only: processor time is read from `/proc`.
//!
//! A row is `[answer, [reference, …]]`; the metrics file is a list of definitions.

use std::io::Write;
use std::sync::Arc;

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
        let started = processor_seconds()?;
        let outcome = metric.corpus(&items);
        let seconds = processor_seconds()? - started;
        let line = json!({
            "signature": metric.signature(), "seconds": seconds, "value": outcome.value(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// What this thread has used of a processor so far: the first field of its `schedstat`, in ns.
fn processor_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    Ok(nanoseconds / 1e9)
}
