//! How long it takes to render a chat prompt of 2 KB with five worked examples.
//!
//! `cargo run --release -p gateway --example render_speed` prints the median of
//! many runs in microseconds, one line for each case: `render_2kb_5_examples 12.3`.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use base::Digest;
use gateway::{PromptDocument, PromptVersion, RenderWith};
use serde_json::{Map, Value, json};

const RUNS: usize = 20_000;

fn document(dialect: &str, items: usize, select: &Value) -> PromptDocument {
    let rules =
        "Answer in {{ language }} for {{ product }}; be brief, be kind, and never promise a date. ";
    let example = |n: usize| {
        let question =
            format!("Question number {n}: where is the parcel that I ordered on day {n}?");
        json!({"inputs": {"question": question}, "output": "shipping"})
    };
    let value = json!({
        "dialect": dialect,
        "messages": [
            {"role": "system", "content": rules.repeat(17)},
            {"role": "user", "content": "Sort this question of {{ customer }}: {{ question }}\nAnswer with one word."},
        ],
        "inputs": {
            "type": "object",
            "properties": {
                "language": {"type": "string", "default": "English"},
                "product": {"type": "string"},
                "customer": {"type": "string"},
                "question": {"type": "string", "maxLength": 2000},
            },
            "required": ["product", "customer", "question"],
        },
        "examples": {"items": (0..items).map(example).collect::<Vec<_>>(), "select": select},
        "parameters": {"temperature": 0.2},
    });
    PromptDocument::parse(&value).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn median(version: &PromptVersion, variables: &Map<String, Value>) -> Duration {
    let with = RenderWith {
        variables,
        messages: &[],
        partials: &|_| None,
        max_bytes: 1 << 20,
    };
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let rendered = version.render(black_box(&with));
            let time = started.elapsed();
            black_box(rendered).unwrap_or_else(|problems| panic!("{problems:?}"));
            time
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

fn main() -> std::io::Result<()> {
    let variables = json!({
        "product": "the garden shop", "customer": "Aki Sato", "question": "My parcel of day 3 did not come. Where is it?",
    });
    let variables = variables.as_object().cloned().unwrap_or_default();
    let some = json!({"k": 5, "by": "similarity", "input": "question"});
    let mut out = std::io::stdout();
    for (name, document) in [
        ("render_2kb_5_examples", document("jinja", 5, &Value::Null)),
        (
            "render_2kb_5_examples_simple",
            document("simple", 5, &Value::Null),
        ),
        (
            "render_2kb_5_of_500_examples",
            document("jinja", 500, &some),
        ),
    ] {
        let version = PromptVersion::new(Digest::of(name.as_bytes()), document);
        let time = median(&version, &variables);
        writeln!(out, "{name} {:.1}", time.as_secs_f64() * 1e6)?;
    }
    Ok(())
}
