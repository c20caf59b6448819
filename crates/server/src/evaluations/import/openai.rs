//! Rows of OpenAI's evaluation files: `input` (a text or messages) and `ideal` (one answer
//! or several); newer files have everything in `item`.

use serde_json::{Map, Value, json};

use super::{CHECKS, Check, Compare, Converted, How, ImportRequest, MOST_EXAMPLES, unreadable};
use crate::datasets::Example;
use crate::error::Result;
use crate::evaluators::text_of;

pub(super) fn convert(request: &ImportRequest) -> Result<Converted> {
    let mut out = Converted::default();
    for (line, number) in request.text.lines().zip(1_u64..) {
        if line.trim().is_empty() {
            continue;
        }
        if out.examples.len() >= MOST_EXAMPLES {
            let message = format!("a file has at most {MOST_EXAMPLES} rows");
            return Err(unreadable(format!("line {number}"), message));
        }
        let at = format!("line {number}");
        let row: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| unreadable(&at, error.to_string()))?;
        match example(row, number, request.compare) {
            Ok(example) => out.examples.push(example),
            Err(why) => out.notes.add(at, why),
        }
    }
    let is_object = out.examples.iter().any(|example| example.input.is_object());
    let mut candidate = Map::new();
    candidate.extend(
        request
            .model
            .clone()
            .map(|model| ("model".to_owned(), json!(model))),
    );
    candidate.extend(
        request
            .prompt
            .clone()
            .map(|prompt| ("prompt".to_owned(), json!(prompt))),
    );
    match (candidate.is_empty(), is_object && request.prompt.is_none()) {
        (true, _) => out.notes.add(
            "file",
            "it does not say what is asked: name a model, or a prompt, and a suite is made, too",
        ),
        (false, true) => out.notes.add(
            "file",
            "its inputs are objects, which only a prompt can be given: name one, and a suite is made, too",
        ),
        (false, false) => {
            let name = request.model.clone().or_else(|| request.prompt.clone());
            out.candidate(&name.unwrap_or_default(), candidate);
        }
    }
    if out
        .examples
        .iter()
        .any(|example| example.expected.is_some())
    {
        let (name, document) = evaluator(request.compare);
        out.evaluator(name, document);
    } else {
        out.notes.add(
            "file",
            "no row has an ideal answer: choose evaluators yourself",
        );
    }
    Ok(out)
}

fn example(row: Map<String, Value>, number: u64, compare: Compare) -> Result<Example, String> {
    let mut fields = match row.get("item") {
        Some(Value::Object(item)) => item.clone(),
        _ => row,
    };
    let mut take = |names: &[&str]| names.iter().find_map(|name| fields.remove(*name));
    let input = take(&["input", "prompt", "question"]);
    let expected = take(&[
        "ideal",
        "ground_truth",
        "expected",
        "correct_label",
        "answer",
        "reference_answer",
    ]);
    let input = match input {
        Some(input) => input,
        // A row of fields that a prompt's template names.
        None if !fields.is_empty() => Value::Object(std::mem::take(&mut fields)),
        None => return Err("the row has no input".to_owned()),
    };
    let mut example = Example {
        id: format!("row-{number}"),
        input,
        expected: expected.filter(|value| !value.is_null()),
        metadata: fields,
        ..Example::default()
    };
    if compare == Compare::Match {
        let ideal = match &example.expected {
            Some(Value::Array(list)) => list.iter().map(text_of).collect(),
            Some(one) => vec![text_of(one)],
            None => Vec::new(),
        };
        let check = (!ideal.is_empty()).then_some(Check {
            r#type: "match".to_owned(),
            how: How::Starts,
            texts: ideal,
            negated: false,
        });
        let checks = check.iter().map(Check::to_value).collect();
        example.metadata.insert(CHECKS.to_owned(), checks);
    }
    example.source.import = Some("openai-evals".to_owned());
    example.source.line = Some(number);
    example.check().map_err(|problem| problem.to_string())?;
    Ok(example)
}

fn evaluator(compare: Compare) -> (&'static str, Value) {
    match compare {
        Compare::Match => (
            "match",
            super::checks_evaluator("1 when the answer begins with an ideal one"),
        ),
        Compare::Includes => (
            "includes",
            json!({"type": "metric", "metric": {"id": "contains"}}),
        ),
        Compare::Exact => (
            "exact",
            json!({"type": "metric", "metric": {"id": "exact-match"}}),
        ),
    }
}
