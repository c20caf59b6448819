//! What a new app begins with: three whole documents that run as they are.

use serde_json::{Value, json};

/// The starts, in the order in which they are offered.
pub(super) const STARTS: &[&str] = &["answer", "steps", "agent"];

/// The document of a start, with this model; the first one for a key that is not known.
pub(super) fn document(key: &str, model: &str) -> Value {
    match key {
        "steps" => steps(model),
        "agent" => agent(model),
        _ => answer(model),
    }
}

fn user(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

fn answer(model: &str) -> Value {
    json!({
        "description": "Answers one question.",
        "models": {"main": [model]},
        "steps": [{
            "id": "answer", "type": "prompt", "model": "main",
            "prompt": {"messages": [
                {"role": "system", "content": "Answer in at most three sentences. Say so when you do not know."},
                {"role": "user", "content": "{{ question }}"},
            ]},
            "variables": {"question": "inputs.question"},
        }],
    })
}

/// Sub-prompts that feed each other, two of them at the same time.
fn steps(model: &str) -> Value {
    json!({
        "description": "Who leads a country, where they were born, and how far that is from a city.",
        "inputs": {
            "type": "object",
            "properties": {
                "country": {"type": "string", "default": "the United Kingdom"},
                "city": {"type": "string", "default": "London"},
            },
            "required": ["country"],
        },
        "models": {"main": [model]},
        "steps": [
            {
                "id": "who", "type": "prompt", "model": "main",
                "prompt": user("Who is the head of government of {{ country }}? Answer with the name only."),
                "variables": {"country": "inputs.country"},
            },
            {
                "id": "born", "type": "prompt", "model": "main",
                "prompt": user("Where was {{ person }} born? Answer with the place only."),
                "variables": {"person": "steps.who.text"},
            },
            {
                "id": "since", "type": "prompt", "model": "main",
                "prompt": user("Since when has {{ person }} been in office? Answer with the year only."),
                "variables": {"person": "steps.who.text"},
            },
            {
                "id": "distance", "type": "prompt", "model": "main",
                "prompt": user("How far is {{ place }} from {{ city }}? Answer with a number of kilometres."),
                "variables": {"place": "steps.born.text", "city": "inputs.city"},
            },
            {
                "id": "answer", "type": "prompt", "model": "main",
                "prompt": user(
                    "Say it in one sentence: {{ person }} leads {{ country }} since {{ since }}, was born in {{ place }}, which is {{ distance }} from {{ city }}.",
                ),
                "variables": {
                    "person": "steps.who.text", "country": "inputs.country", "since": "steps.since.text",
                    "place": "steps.born.text", "distance": "steps.distance.text", "city": "inputs.city",
                },
            },
        ],
    })
}

fn agent(model: &str) -> Value {
    json!({
        "description": "Looks things up with a tool before it answers.",
        "models": {"main": [model]},
        "tools": {
            "weather": {
                "type": "http",
                "description": "The weather of today at a place, by its latitude and longitude.",
                "url": "https://api.open-meteo.com/v1/forecast?latitude={latitude}&longitude={longitude}&current=temperature_2m",
                "parameters": {
                    "type": "object",
                    "properties": {"latitude": {"type": "number"}, "longitude": {"type": "number"}},
                    "required": ["latitude", "longitude"],
                },
                "dry": {"current": {"temperature_2m": 14}},
            },
        },
        "steps": [{
            "id": "answer", "type": "agent", "model": "main", "tools": ["weather"],
            "limits": {"steps": 5, "seconds": 60},
            "prompt": {"messages": [
                {"role": "system", "content": "Use the tool where the weather matters. Never guess a temperature."},
                {"role": "user", "content": "{{ question }}"},
            ]},
            "variables": {"question": "inputs.question"},
        }],
    })
}
