//! promptfoo's configurations: prompts, providers, and tests with variables and assertions.
//!
//! A test passes there when all of its assertions hold. Those about the answer's text become
//! checks of the example, and one evaluator, `assertions`, looks at all of them; those that
//! measure become evaluators of their own, with the test's value as what is expected.

use serde_json::{Map, Value, json};

use super::{
    CHECKS, Check, Converted, How, ImportRequest, MOST_EXAMPLES, checks_evaluator, unreadable,
};
use crate::datasets::Example;
use crate::error::Result;
use crate::evaluators::text_of;

const ASSERTIONS: &str = "assertions";
/// Where an example keeps which patterns its answer must match.
const PATTERNS: &str = "patterns";
/// Different patterns of a file.
const MOST_PATTERNS: usize = 10;
/// What stands for the answer where a pattern is not asked for.
const NOT_ASKED: &str = "~not asked~";
/// Assertions that a metric of ours measures, and the metric.
const METRICS: [(&str, &str, &str); 3] = [
    ("levenshtein", "levenshtein", "compat:levenshtein"),
    ("bleu", "bleu", "compat:bleu"),
    ("rouge-n", "rouge", "compat:rouge"),
];
/// Assertions that a model judges.
const JUDGED: [&str; 5] = [
    "llm-rubric",
    "model-graded-closedqa",
    "model-graded-factuality",
    "factuality",
    "g-eval",
];

pub(super) fn convert(request: &ImportRequest) -> Result<Converted> {
    let content: Value = serde_yaml_ng::from_str(&request.text).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        unreadable(format!("line {line}"), error.to_string())
    })?;
    let (config, tests) = match content {
        Value::Array(tests) => (Map::new(), tests),
        Value::Object(mut config) => match config.remove("tests") {
            Some(Value::Array(tests)) => (config, tests),
            Some(Value::String(path)) => {
                let message = format!("the tests are in another file: give {path}");
                return Err(unreadable("tests", message));
            }
            _ => {
                return Err(unreadable(
                    "tests",
                    "there is no list of tests in this file",
                ));
            }
        },
        _ => {
            return Err(unreadable(
                "line 1",
                "this is no configuration of promptfoo",
            ));
        }
    };
    if tests.len() > MOST_EXAMPLES {
        let message = format!("a file has at most {MOST_EXAMPLES} tests");
        return Err(unreadable("tests", message));
    }
    let mut reading = Reading {
        out: Converted::default(),
        judge: request.judge.as_deref(),
        templates: match config.get("assertionTemplates") {
            Some(Value::Object(templates)) => templates.clone(),
            _ => Map::new(),
        },
    };
    if let Some(description) = config.get("description").and_then(Value::as_str) {
        description.clone_into(&mut reading.out.description);
    }
    let defaults = match config.get("defaultTest") {
        Some(Value::Object(defaults)) => defaults.clone(),
        Some(Value::String(path)) => {
            let message = format!("it is in another file, {path}, which is not read");
            reading.out.notes.add("defaultTest", message);
            Map::new()
        }
        _ => Map::new(),
    };
    for (number, test) in tests.into_iter().enumerate() {
        reading.test(number, test, &defaults);
    }
    for field in [
        "scenarios",
        "derivedMetrics",
        "transform",
        "nunjucksFilters",
        "extensions",
    ] {
        if config.contains_key(field) {
            reading
                .out
                .notes
                .add(field, "this has no counterpart here and was left out");
        }
    }
    reading.candidates(&config, request);
    Ok(reading.out)
}

struct Reading<'a> {
    out: Converted,
    judge: Option<&'a str>,
    templates: Map<String, Value>,
}

/// A test while its assertions are read.
struct Test {
    at: String,
    vars: Map<String, Value>,
    expected: Option<Value>,
    checks: Vec<Value>,
    patterns: Vec<String>,
}

impl Reading<'_> {
    fn test(&mut self, number: usize, test: Value, defaults: &Map<String, Value>) {
        let at = format!("tests[{number}]");
        let mut fields = match test {
            Value::Object(fields) => fields,
            Value::String(path) => {
                let message = format!("it is in another file: give {path}");
                return self.out.notes.add(at, message);
            }
            _ => return self.out.notes.add(at, "it is no object"),
        };
        let mut vars = match defaults.get("vars") {
            Some(Value::Object(vars)) => vars.clone(),
            _ => Map::new(),
        };
        match fields.remove("vars") {
            Some(Value::Object(own)) => vars.extend(own),
            Some(Value::String(path)) => {
                let message = format!("its vars are in another file, {path}, which is not read");
                return self.out.notes.add(at, message);
            }
            _ => {}
        }
        if vars.is_empty() {
            return self.out.notes.add(at, "it has no vars");
        }
        for (name, value) in &vars {
            let place = format!("{at}.vars.{name}");
            if value
                .as_str()
                .is_some_and(|text| text.starts_with("file://"))
            {
                let message = "it is in another file, which is not read";
                return self.out.notes.add(place, message);
            }
            if value.is_array() {
                let message = "the list is one value here, not a test for each of its entries";
                self.out.notes.add(place, message);
            }
        }
        let mut test = Test {
            at: at.clone(),
            vars,
            expected: None,
            checks: Vec::new(),
            patterns: Vec::new(),
        };
        let lists = [
            (
                "defaultTest.assert".to_owned(),
                defaults.get("assert").cloned(),
            ),
            (format!("{at}.assert"), fields.remove("assert")),
        ];
        for (place, list) in lists {
            let Some(Value::Array(list)) = list else {
                continue;
            };
            for (index, assert) in list.into_iter().enumerate() {
                self.assertion(&format!("{place}[{index}]"), assert, &mut test);
            }
        }
        for field in ["threshold", "options", "provider", "providerOutput"] {
            if fields.contains_key(field) {
                let message = "this has no counterpart here and was left out";
                self.out.notes.add(format!("{at}.{field}"), message);
            }
        }
        self.example(number, test, fields);
    }

    fn example(&mut self, number: usize, test: Test, mut fields: Map<String, Value>) {
        let mut metadata = match fields.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        if let Some(description) = fields.remove("description") {
            metadata.insert("description".to_owned(), description);
        }
        metadata.insert(CHECKS.to_owned(), Value::Array(test.checks));
        metadata.insert(PATTERNS.to_owned(), json!(test.patterns));
        let mut example = Example {
            id: format!("test-{}", number + 1),
            input: Value::Object(test.vars),
            expected: test.expected,
            metadata,
            ..Example::default()
        };
        example.source.import = Some("promptfoo".to_owned());
        example.source.line = Some(number as u64 + 1);
        match example.check() {
            Ok(_) => self.out.examples.push(example),
            Err(problem) => self.out.notes.add(test.at, problem.to_string()),
        }
    }

    fn assertion(&mut self, at: &str, assert: Value, test: &mut Test) {
        let assert = match assert.get("$ref").and_then(Value::as_str) {
            Some(path) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                match self.templates.get(name) {
                    Some(template) => template.clone(),
                    None => {
                        let message = format!("there is no assertion template {name:?}");
                        return self.out.notes.add(at, message);
                    }
                }
            }
            None => assert,
        };
        let Some(kind) = assert["type"].as_str().map(str::to_owned) else {
            return self.out.notes.add(at, "the assertion has no type");
        };
        if kind == "assert-set" {
            if assert.get("threshold").is_some() {
                let message = "all assertions of the set must hold here, whatever its threshold";
                self.out.notes.add(at, message);
            }
            let list = assert["assert"].as_array().cloned().unwrap_or_default();
            for (index, inner) in list.into_iter().enumerate() {
                if inner["type"] == "assert-set" {
                    self.out.notes.add(at, "a set in a set was left out");
                    continue;
                }
                self.assertion(&format!("{at}.assert[{index}]"), inner, test);
            }
            return;
        }
        if assert.get("transform").is_some() {
            let message =
                "its transform is a program, which is not run here: the assertion was left out";
            return self.out.notes.add(at, message);
        }
        let (negated, bare) = match kind.strip_prefix("not-") {
            Some(bare) => (true, bare),
            None => (false, kind.as_str()),
        };
        let value = match filled(&assert["value"], &test.vars) {
            Ok(value) => value,
            Err(why) => return self.out.notes.add(at, why),
        };
        if value
            .as_str()
            .is_some_and(|text| text.starts_with("file://"))
        {
            let message = "its value is in another file, which is not read";
            return self.out.notes.add(at, message);
        }
        self.known(at, bare, negated, &value, &assert, test);
    }

    fn known(
        &mut self,
        at: &str,
        kind: &str,
        negated: bool,
        value: &Value,
        assert: &Value,
        test: &mut Test,
    ) {
        if kind == "regex" && !negated {
            return self.pattern(at, &text_of(value), test);
        }
        if let Some((how, texts)) = texts(kind, value) {
            // Each of several must be there, or none of one: "not all of them" is neither.
            if negated && texts.len() > 1 {
                let message = format!("not-{kind} has no counterpart here and was left out");
                return self.out.notes.add(at, message);
            }
            for texts in texts {
                let r#type = kind.to_owned();
                self.add(
                    Check {
                        r#type,
                        how,
                        texts,
                        negated,
                    },
                    test,
                );
            }
            let is_answer = matches!(kind, "equals" | "contains" | "icontains");
            if is_answer && !negated && test.expected.is_none() {
                test.expected = Some(value.clone());
            }
            return;
        }
        let metric = METRICS.iter().find(|(named, _, _)| *named == kind);
        match (kind, metric) {
            ("is-json" | "contains-json", _) => {
                if value.is_object() && !negated {
                    let schema = json!({"type": "metric", "metric": {"id": "json-schema", "schema": value, "fenced": true}});
                    let known = self
                        .out
                        .evaluators
                        .iter()
                        .find(|(name, _)| name == "json-schema");
                    if known.is_some_and(|(_, known)| *known != schema) {
                        let message = "another test has another schema; only the first is measured";
                        self.out.notes.add(at, message);
                    }
                    self.out.evaluator("json-schema", schema);
                }
                self.add(
                    Check {
                        r#type: kind.to_owned(),
                        how: How::Json,
                        texts: Vec::new(),
                        negated,
                    },
                    test,
                );
            }
            (_, Some((_, name, id))) if !negated => {
                if !expect(test, value) {
                    let message = "the test expects something else already; this was left out";
                    return self.out.notes.add(at, message);
                }
                if assert.get("threshold").is_some() {
                    let message = format!(
                        "its threshold is no part of a score: a gate of the suite can ask {name} for one"
                    );
                    self.out.notes.add(at, message);
                }
                self.out
                    .evaluator(name, json!({"type": "metric", "metric": {"id": id}}));
            }
            ("latency" | "cost", _) => {
                let message =
                    format!("{kind} is among the figures of every candidate; it is no evaluator");
                self.out.notes.add(at, message);
            }
            (judged, _) if JUDGED.contains(&judged) && !negated => {
                self.judged(at, judged, value, test)
            }
            _ => {
                let not = if negated { "not-" } else { "" };
                let message = format!("{not}{kind} has no counterpart here and was left out");
                self.out.notes.add(at, message);
            }
        }
    }

    /// An evaluator of its own for each pattern; where it is not asked for it always holds.
    fn pattern(&mut self, at: &str, pattern: &str, test: &mut Test) {
        let asked = json!({"id": "regex", "pattern": pattern});
        if eval::Metric::parse(&asked).is_err() {
            let message = "this pattern is not understood here (look-around and back references are not): it was left out";
            return self.out.notes.add(at, message);
        }
        let is_of = |(name, document): &(String, Value)| {
            name.starts_with("regex ") && document["description"] == *pattern
        };
        if !self.out.evaluators.iter().any(is_of) {
            let known = self.out.evaluators.iter();
            let known = known.filter(|(name, _)| name.starts_with("regex ")).count();
            if known >= MOST_PATTERNS {
                let message =
                    format!("more than {MOST_PATTERNS} different patterns: this one was left out");
                return self.out.notes.add(at, message);
            }
            let name = format!("regex {}", known + 1);
            let document = json!({
                "type": "metric", "description": pattern,
                "metric": {"id": "regex", "pattern": format!(r"(?:{pattern})|\A{NOT_ASKED}\z")},
                "output": format!("example.metadata.{PATTERNS}.exists(p, p == {}) ? answer.text : \"{NOT_ASKED}\"", json!(name)),
            });
            self.out.evaluator(&name, document);
        }
        let found = self.out.evaluators.iter().find(|one| is_of(one));
        test.patterns.extend(found.map(|(name, _)| name.clone()));
    }

    fn add(&mut self, check: Check, test: &mut Test) {
        test.checks.push(check.to_value());
        let document = checks_evaluator("1 when every assertion about the answer's text holds");
        self.out.evaluator(ASSERTIONS, document);
    }

    fn judged(&mut self, at: &str, kind: &str, value: &Value, test: &mut Test) {
        let Some(model) = self.judge else {
            let message = format!("{kind} needs a judge: name a model for it");
            return self.out.notes.add(at, message);
        };
        if !expect(test, value) {
            let message = "the test expects something else already; this was left out";
            return self.out.notes.add(at, message);
        }
        let what = match kind {
            "factuality" | "model-graded-factuality" => {
                "The facts of the answer agree with those of the expected text."
            }
            _ => "The answer meets the requirement that stands where the expected answer does.",
        };
        let document = json!({
            "type": "judge", "model": model, "mode": "classify", "labels": {"yes": 1.0, "no": 0.0},
            "criteria": [{"name": "requirement", "description": what}], "uses": ["input", "expected"],
        });
        self.out.evaluator(kind, document);
    }

    fn candidates(&mut self, config: &Map<String, Value>, request: &ImportRequest) {
        let models = match &request.model {
            Some(model) => vec![model.clone()],
            None => self.models(config),
        };
        let mut prompts: Vec<(String, Option<Value>)> = match &request.prompt {
            Some(prompt) => vec![(prompt.clone(), Some(json!(prompt)))],
            None => self.prompts(config),
        };
        if prompts.is_empty() {
            let message = "it has no prompts that can be read: name one, and a suite is made, too";
            return self.out.notes.add("prompts", message);
        }
        if models.is_empty() && request.prompt.is_none() {
            let message =
                "it has no providers that are known here: name a model, and a suite is made, too";
            return self.out.notes.add("providers", message);
        }
        prompts.truncate(20);
        let one = models.len() <= 1;
        for (label, prompt) in &prompts {
            let models: Vec<Option<&String>> = match models.is_empty() {
                true => vec![None],
                false => models.iter().map(Some).collect(),
            };
            for model in models {
                if self.out.candidates.len() >= 20 {
                    return self.out.notes.add(
                        "prompts",
                        "a suite has at most 20 candidates; the others were left out",
                    );
                }
                let mut candidate = Map::new();
                candidate.extend(prompt.clone().map(|prompt| ("prompt".to_owned(), prompt)));
                candidate.extend(model.map(|model| ("model".to_owned(), json!(model))));
                let name = match (model, one, prompts.len()) {
                    (Some(model), _, 1) => model.clone(),
                    (Some(model), false, _) => format!("{label} · {model}"),
                    _ => label.clone(),
                };
                self.out.candidate(&name, candidate);
            }
        }
    }

    fn models(&mut self, config: &Map<String, Value>) -> Vec<String> {
        let providers = config.get("providers").or_else(|| config.get("targets"));
        let list = match providers {
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
            None => Vec::new(),
        };
        let mut models = Vec::new();
        for (index, provider) in list.iter().enumerate() {
            let at = format!("providers[{index}]");
            let named = provider.as_str().or_else(|| provider["id"].as_str());
            let Some(id) = named else {
                self.out
                    .notes
                    .add(at, "a provider without an id was left out");
                continue;
            };
            let mut parts: Vec<&str> = id.split(':').collect();
            parts.retain(|part| !matches!(*part, "chat" | "messages" | "completion" | "responses"));
            match parts.as_slice() {
                [provider, model]
                    if !matches!(
                        *provider,
                        "file" | "http" | "https" | "exec" | "python" | "javascript" | "webhook"
                    ) =>
                {
                    models.push(format!("{provider}/{model}"));
                }
                _ => self.out.notes.add(
                    at,
                    format!("the provider {id:?} is not known here: name a model"),
                ),
            }
            if provider.get("config").is_some() {
                let message = "the provider's own settings were left out";
                self.out
                    .notes
                    .add(format!("providers[{index}].config"), message);
            }
        }
        models
    }

    fn prompts(&mut self, config: &Map<String, Value>) -> Vec<(String, Option<Value>)> {
        let list = match config.get("prompts") {
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
            None => Vec::new(),
        };
        let mut prompts = Vec::new();
        for (index, prompt) in list.iter().enumerate() {
            let at = format!("prompts[{index}]");
            let text = prompt
                .as_str()
                .or_else(|| prompt["raw"].as_str())
                .or_else(|| prompt["id"].as_str());
            let Some(text) = text else {
                self.out
                    .notes
                    .add(at, "a prompt without a text was left out");
                continue;
            };
            if text.starts_with("file://") || is_path(text) {
                let message = format!(
                    "the prompt is in another file, {text}: save it as a prompt and name that"
                );
                self.out.notes.add(at, message);
                continue;
            }
            let label = prompt["label"]
                .as_str()
                .map_or_else(|| format!("prompt {}", index + 1), str::to_owned);
            prompts.push((label, Some(document(text))));
        }
        prompts
    }
}

/// Keeps what a test expects; false when it expects something else already.
fn expect(test: &mut Test, value: &Value) -> bool {
    match &test.expected {
        Some(known) => known == value,
        None => {
            test.expected = (!value.is_null()).then(|| value.clone());
            !value.is_null()
        }
    }
}

fn is_path(text: &str) -> bool {
    let endings = [
        ".txt", ".json", ".yaml", ".yml", ".md", ".j2", ".js", ".py", ".csv",
    ];
    !text.contains([' ', '\n', '{']) && endings.iter().any(|ending| text.ends_with(ending))
}

/// A prompt of ours: messages where the text is a list of them.
fn document(text: &str) -> Value {
    let messages: Option<Vec<Value>> = serde_json::from_str(text).ok();
    let messages = messages.filter(|list| {
        !list.is_empty()
            && list
                .iter()
                .all(|message| message["role"].is_string() && message["content"].is_string())
    });
    let mut document = match messages {
        Some(messages) => json!({"messages": messages}),
        None => json!({"type": "text", "template": text}),
    };
    // Filters and tags are of its template language, which ours is near to.
    if !text.contains("{%") && !text.contains('|') {
        document["dialect"] = json!("simple");
    }
    document
}

/// What is looked for in an answer: of each list any text; `None` where it is about something else.
fn texts(kind: &str, value: &Value) -> Option<(How, Vec<Vec<String>>)> {
    let text = || vec![vec![text_of(value)]];
    // A list, or a text with commas between its parts.
    let several = || -> Vec<String> {
        match value {
            Value::Array(list) => list.iter().map(text_of).collect(),
            other => text_of(other)
                .split(',')
                .map(|part| part.trim().to_owned())
                .collect(),
        }
    };
    let each = || several().into_iter().map(|text| vec![text]).collect();
    Some(match kind {
        "equals" if !value.is_object() && !value.is_array() => (How::Equals, text()),
        "contains" => (How::Contains, text()),
        "icontains" => (How::ContainsAnyCase, text()),
        "starts-with" => (How::Starts, text()),
        "contains-any" => (How::Contains, vec![several()]),
        "icontains-any" => (How::ContainsAnyCase, vec![several()]),
        "contains-all" => (How::Contains, each()),
        "icontains-all" => (How::ContainsAnyCase, each()),
        _ => return None,
    })
}

/// A value with the test's variables filled in.
fn filled(value: &Value, vars: &Map<String, Value>) -> Result<Value, String> {
    match value {
        Value::String(text) if text.contains("{{") => fill(text, vars).map(Value::String),
        Value::String(text) if text.contains("{%") => Err(
            "its value is a template with tags, which are not run here: it was left out".to_owned(),
        ),
        Value::Array(list) => list.iter().map(|item| filled(item, vars)).collect(),
        other => Ok(other.clone()),
    }
}

fn fill(text: &str, vars: &Map<String, Value>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let value = vars.get(name.trim()).ok_or_else(|| {
            format!(
                "its value names {:?}, which is no variable of the test: it was left out",
                name.trim()
            )
        })?;
        out.push_str(before);
        out.push_str(&text_of(value));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
