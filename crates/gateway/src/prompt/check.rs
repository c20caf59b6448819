//! Everything that can be wrong with a prompt's document, told at once.
//!
//! First the shape: unknown fields and wrong types, by hand rather than by serde,
//! which stops at the first problem and cannot say where in a list it stands. Then
//! the meaning: templates that parse, a schema that can be checked with, examples
//! that fit. What needs other documents (does a partial exist, is there a cycle)
//! is the catalog's to check.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::document::{
    Dialect, EXAMPLES, Examples, MessageRole, PARTIALS, Placeholder, PromptDocument, PromptItem,
    PromptType, SelectBy, Show, pointer_part,
};
use super::inputs::Inputs;
use super::template;
use crate::context::PromptRef;
use crate::problem::DocumentProblem;

const MOST_MESSAGES: usize = 100;
const MOST_EXAMPLES: usize = 2_000;
/// Without a choice all examples go to the model.
const MOST_SHOWN: usize = 200;
const MOST_PARTIALS: usize = 16;
const MOST_TOOLS: usize = 128;
const MOST_PROBLEMS: usize = 100;
/// Fields of a request that a prompt's `parameters` cannot be.
const NOT_PARAMETERS: [(&str, &str); 12] = [
    ("model", "the field \"model\" of the prompt"),
    ("messages", "the field \"messages\" of the prompt"),
    ("tools", "the field \"tools\" of the prompt"),
    (
        "response_format",
        "the field \"response_format\" of the prompt",
    ),
    ("stream", "the caller"),
    ("stream_options", "the caller"),
    ("metadata", "the caller"),
    ("user", "the caller"),
    ("meguri", "the caller"),
    ("prompt_id", "the caller"),
    ("prompt_version", "the caller"),
    ("prompt_variables", "the caller"),
];

pub(super) fn parse(value: &Value) -> Result<PromptDocument, Vec<DocumentProblem>> {
    let mut problems = Problems(Vec::new());
    shape(value, &mut problems);
    if problems.0.is_empty() {
        match PromptDocument::deserialize(value) {
            Ok(document) => {
                meaning(&document, &mut problems);
                if problems.0.is_empty() {
                    return Ok(document);
                }
            }
            Err(error) => problems.add("", error.to_string()),
        }
    }
    problems.0.truncate(MOST_PROBLEMS);
    Err(problems.0)
}

struct Problems(Vec<DocumentProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(DocumentProblem::new(path, message));
    }

    /// The value as an object with no fields but these.
    fn object<'a>(
        &mut self,
        path: &str,
        value: &'a Value,
        fields: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let Some(map) = value.as_object() else {
            self.add(path, "this must be an object");
            return None;
        };
        for name in map.keys().filter(|name| !fields.contains(&name.as_str())) {
            let hint = match crate::nearest(name, fields.iter().copied()) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => format!("; the fields are {}", fields.join(", ")),
            };
            let at = format!("{path}/{}", pointer_part(name));
            self.add(at, format!("there is no such field{hint}"));
        }
        Some(map)
    }

    /// Checks that a field, if it is there, can be read as this type.
    fn field<T: DeserializeOwned>(&mut self, path: &str, map: &Map<String, Value>, name: &str) {
        if let Some(value) = map.get(name)
            && let Err(error) = T::deserialize(value)
        {
            self.add(format!("{path}/{name}"), error.to_string());
        }
    }

    fn required<T: DeserializeOwned>(&mut self, path: &str, map: &Map<String, Value>, name: &str) {
        if map.contains_key(name) {
            self.field::<T>(path, map, name);
        } else {
            self.add(format!("{path}/{name}"), "this field is required");
        }
    }

    /// The entries of a list.
    fn list<'a>(&mut self, path: &str, value: &'a Value) -> &'a [Value] {
        match value.as_array() {
            Some(list) => list,
            None => {
                self.add(path, "this must be a list");
                &[]
            }
        }
    }
}

fn shape(value: &Value, problems: &mut Problems) {
    const FIELDS: [&str; 13] = [
        "description",
        "type",
        "dialect",
        "template",
        "messages",
        "inputs",
        "examples",
        "partials",
        "model",
        "parameters",
        "response_format",
        "tools",
        "config",
    ];
    let Some(map) = problems.object("", value, &FIELDS) else {
        return;
    };
    problems.field::<String>("", map, "description");
    problems.field::<PromptType>("", map, "type");
    problems.field::<Dialect>("", map, "dialect");
    problems.field::<Option<String>>("", map, "template");
    problems.field::<Option<String>>("", map, "model");
    problems.field::<Map<String, Value>>("", map, "parameters");
    problems.field::<Vec<Value>>("", map, "tools");
    if let Some(messages) = map.get("messages") {
        for (index, item) in problems.list("/messages", messages).iter().enumerate() {
            shape_of_item(&format!("/messages/{index}"), item, problems);
        }
    }
    if let Some(partials) = map.get("partials") {
        for (name, reference) in partials.as_object().into_iter().flatten() {
            if !reference.is_string() {
                let path = format!("/partials/{}", pointer_part(name));
                problems.add(path, "this must be a text: prompt:NAME@LABEL");
            }
        }
        if !partials.is_object() {
            problems.add(
                "/partials",
                "this must be an object: a name and a reference",
            );
        }
    }
    if let Some(examples) = map.get("examples").filter(|value| !value.is_null()) {
        shape_of_examples(examples, problems);
    }
}

fn shape_of_item(path: &str, item: &Value, problems: &mut Problems) {
    if item.get("placeholder").is_some() {
        if let Some(map) = problems.object(path, item, &["placeholder"]) {
            problems.field::<String>(path, map, "placeholder");
        }
    } else if let Some(map) = problems.object(path, item, &["role", "content"]) {
        problems.required::<MessageRole>(path, map, "role");
        problems.required::<String>(path, map, "content");
    }
}

fn shape_of_examples(examples: &Value, problems: &mut Problems) {
    let fields = ["items", "template", "show", "select"];
    let Some(map) = problems.object("/examples", examples, &fields) else {
        return;
    };
    problems.field::<Option<String>>("/examples", map, "template");
    problems.field::<Option<Show>>("/examples", map, "show");
    match map.get("items") {
        Some(items) => {
            for (index, item) in problems.list("/examples/items", items).iter().enumerate() {
                let path = format!("/examples/items/{index}");
                if let Some(map) = problems.object(&path, item, &["inputs", "output"]) {
                    problems.required::<Map<String, Value>>(&path, map, "inputs");
                    problems.required::<Value>(&path, map, "output");
                }
            }
        }
        None => problems.add("/examples/items", "this field is required"),
    }
    if let Some(select) = map.get("select").filter(|value| !value.is_null())
        && let Some(map) =
            problems.object("/examples/select", select, &["k", "by", "input", "model"])
    {
        problems.required::<usize>("/examples/select", map, "k");
        problems.required::<SelectBy>("/examples/select", map, "by");
        problems.field::<Option<String>>("/examples/select", map, "input");
        problems.field::<Option<String>>("/examples/select", map, "model");
    }
}

fn meaning(document: &PromptDocument, problems: &mut Problems) {
    match document.kind {
        PromptType::Chat => chat(document, problems),
        PromptType::Text => text(document, problems),
    }
    for (path, template) in document.templates() {
        check_template(document.dialect, &path, template, problems);
    }
    let inputs = document.inputs.as_ref().map(Inputs::new).transpose();
    let inputs = inputs.unwrap_or_else(|found| {
        problems.0.extend(found);
        None
    });
    let declared = document
        .inputs
        .as_ref()
        .map(super::inputs::names)
        .unwrap_or_default();
    for own in document.own_variables() {
        if declared.contains(&own) {
            let path = format!("/inputs/properties/{own}");
            problems.add(
                path,
                format!("the name {own:?} stands for this prompt's own"),
            );
        }
    }
    if let Some(examples) = &document.examples {
        check_examples(document, examples, inputs.as_ref(), problems);
    }
    check_partials(document, problems);
    check_call(document, problems);
}

fn chat(document: &PromptDocument, problems: &mut Problems) {
    if document.template.is_some() {
        problems.add("/template", "only a prompt of type \"text\" has a template");
    }
    if document.messages.is_empty() {
        problems.add("/messages", "a prompt has at least one message");
    }
    if document.messages.len() > MOST_MESSAGES {
        let message = format!("a prompt has at most {MOST_MESSAGES} messages");
        problems.add("/messages", message);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (index, item) in document.messages.iter().enumerate() {
        let PromptItem::Placeholder(Placeholder { placeholder }) = item else {
            continue;
        };
        let path = format!("/messages/{index}/placeholder");
        if !template::is_name(placeholder) {
            let message = "a placeholder's name is letters, digits, - _ and .";
            problems.add(path, message);
        } else if seen.contains(&placeholder.as_str()) {
            let message = format!("the placeholder {placeholder:?} is there twice");
            problems.add(path, message);
        } else if placeholder == EXAMPLES
            && (document.examples.is_none() || document.shows_examples() == Show::Variable)
        {
            problems.add(path, "there are no examples to be shown as messages");
        }
        seen.push(placeholder);
    }
}

fn text(document: &PromptDocument, problems: &mut Problems) {
    if document.template.is_none() {
        problems.add("/template", "a prompt of type \"text\" has a template");
    }
    if !document.messages.is_empty() {
        let message = "only a prompt of type \"chat\" has messages";
        problems.add("/messages", message);
    }
}

fn check_template(dialect: Dialect, path: &str, text: &str, problems: &mut Problems) {
    if text.trim().is_empty() {
        problems.add(path, "a message has a text");
    } else if text.contains('\0') {
        problems.add(path, "the text has a NUL character");
    } else if let Err(error) = template::check(dialect, text) {
        problems.add(path, error);
    }
}

/// `local/NAME` or `PROVIDER/MODEL`.
fn is_model(model: &str) -> bool {
    let parts = model.split_once('/');
    model.len() <= 300
        && parts.is_some_and(|(provider, name)| !provider.is_empty() && !name.is_empty())
}

fn check_examples(
    document: &PromptDocument,
    examples: &Examples,
    inputs: Option<&Inputs>,
    problems: &mut Problems,
) {
    if examples.items.is_empty() {
        problems.add("/examples/items", "there is at least one example");
    }
    if examples.items.len() > MOST_EXAMPLES {
        let message = format!("there are at most {MOST_EXAMPLES} examples");
        problems.add("/examples/items", message);
        return;
    }
    match &examples.select {
        Some(select) if select.k == 0 || select.k > MOST_SHOWN => {
            let message = format!("between 1 and {MOST_SHOWN} examples are shown");
            problems.add("/examples/select/k", message);
        }
        None if examples.items.len() > MOST_SHOWN => {
            let message = format!(
                "more than {MOST_SHOWN} examples are never shown together; choose some with \"select\""
            );
            problems.add("/examples/items", message);
        }
        _ => {}
    }
    if let Some(select) = &examples.select
        && let Some(model) = &select.model
    {
        if select.by != SelectBy::Embedding {
            let message = "only a choice by \"embedding\" has a model";
            problems.add("/examples/select/model", message);
        } else if !is_model(model) {
            let message = format!("write local/NAME or PROVIDER/MODEL, not {model:?}");
            problems.add("/examples/select/model", message);
        }
    }
    if let Some(name) = examples
        .select
        .as_ref()
        .and_then(|select| select.input.as_ref())
        && !examples
            .items
            .iter()
            .any(|item| item.inputs.contains_key(name))
    {
        let message = format!("no example has the input {name:?}");
        problems.add("/examples/select/input", message);
    }
    match document.shows_examples() {
        Show::Messages if document.kind == PromptType::Text => problems.add(
            "/examples/show",
            "a prompt of type \"text\" shows its examples in the variable \"examples\"",
        ),
        Show::Messages if question(document).is_none() => problems.add(
            "/examples/template",
            "the prompt has no user message, so the examples need a template for the question",
        ),
        Show::Variable if !uses(document, EXAMPLES) => problems.add(
            "/examples",
            "no template uses the variable \"examples\", so they would never be shown",
        ),
        _ => {}
    }
    let Some(inputs) = inputs else { return };
    for (index, item) in examples.items.iter().enumerate() {
        let base = format!("/examples/items/{index}/inputs");
        problems.0.extend(inputs.check_part(&item.inputs, &base));
    }
}

/// The template of an example's question.
pub(super) fn question(document: &PromptDocument) -> Option<&str> {
    let own = document
        .examples
        .as_ref()
        .and_then(|examples| examples.template.as_deref());
    let of_user = document.messages.iter().rev().find_map(|item| match item {
        PromptItem::Message(message) if message.role == MessageRole::User => {
            Some(message.content.as_str())
        }
        _ => None,
    });
    own.or(of_user)
}

fn uses(document: &PromptDocument, variable: &str) -> bool {
    document.templates().iter().any(|(_, text)| {
        template::variables(document.dialect, text)
            .iter()
            .any(|name| name.split('.').next() == Some(variable))
    })
}

fn check_partials(document: &PromptDocument, problems: &mut Problems) {
    if document.partials.len() > MOST_PARTIALS {
        let message = format!("a prompt uses at most {MOST_PARTIALS} others");
        problems.add("/partials", message);
    }
    for (name, reference) in &document.partials {
        let path = format!("/partials/{}", pointer_part(name));
        if !template::is_name(name) || name.contains(['.', '-']) {
            problems.add(
                path.clone(),
                "a partial's name is letters, digits and _, as templates write it",
            );
        }
        if PromptRef::from_reference(reference).is_none() {
            let message =
                "a partial is written prompt:NAME@LABEL, with a label, a version or a digest";
            problems.add(path, message);
        }
    }
    if document.partials.is_empty() {
        return;
    }
    for (path, text) in document.templates() {
        for name in template::variables(document.dialect, text) {
            let Some(partial) = name
                .strip_prefix(PARTIALS)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            if !document.partials.contains_key(partial) {
                let near = crate::nearest(partial, document.partials.keys().map(String::as_str));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                problems.add(
                    path.clone(),
                    format!("there is no partial {partial:?}{hint}"),
                );
            }
        }
    }
}

/// What the prompt says about the call itself.
fn check_call(document: &PromptDocument, problems: &mut Problems) {
    if let Some(model) = &document.model {
        if model.trim().is_empty() || model.len() > 300 {
            problems.add("/model", "a model is written PROVIDER/MODEL or local/MODEL");
        } else if model.starts_with(super::MODEL_PREFIX) {
            problems.add("/model", "a prompt cannot be the model of a prompt");
        }
    }
    for name in document.parameters.keys() {
        if let Some((_, place)) = NOT_PARAMETERS.iter().find(|(field, _)| field == name) {
            let path = format!("/parameters/{}", pointer_part(name));
            problems.add(
                path,
                format!("{name:?} is not a parameter; it comes from {place}"),
            );
        }
    }
    if let Some(format) = &document.response_format
        && !format.is_object()
    {
        problems.add("/response_format", "this must be an object");
    }
    if document.tools.len() > MOST_TOOLS {
        problems.add("/tools", format!("there are at most {MOST_TOOLS} tools"));
    }
    for (index, tool) in document.tools.iter().enumerate() {
        if !tool.is_object() {
            problems.add(format!("/tools/{index}"), "a tool is an object");
        }
    }
}
