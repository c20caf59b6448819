//! What a call asks of an app: its inputs, its conversation, how it wants the answer.

use http::StatusCode;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use super::compile::{Inputs, MESSAGES};
use crate::context::CallContext;
use crate::error::ApiError;
use crate::request::Request;
use crate::settle::Settler;

/// A request to an app, read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The conversation.
    pub messages: Vec<Value>,
    /// Inputs by name.
    pub variables: Map<String, Value>,
    pub stream: bool,
    pub wants_usage: bool,
}

/// Reads a request, and writes what it says into the record and the context.
pub(crate) fn ask(
    request: &Request,
    context: &mut CallContext,
    settler: &mut Settler,
) -> Result<Asked, ApiError> {
    let fields = crate::call::attach(request, None, context, settler)?;
    let stream = request.field("stream", "true or false")?.unwrap_or(false);
    let options = fields.get("stream_options");
    let wants_usage = options.is_some_and(|options| options["include_usage"] == true);
    let messages: Option<Vec<Value>> = request.field("messages", "a list of messages")?;
    let mut variables = context.variables.clone();
    if let Some(inputs) = context.metadata.get("inputs") {
        variables.extend(inputs_of_metadata(inputs)?);
    }
    let record = settler.record_mut();
    record.streamed = stream;
    record.parameters = fields;
    let messages = messages.unwrap_or_default();
    record.input.clone_from(&messages);
    Ok(Asked {
        messages,
        variables,
        stream,
        wants_usage,
    })
}

/// OpenAI's metadata holds only texts, so the inputs may be JSON in a text.
fn inputs_of_metadata(inputs: &Value) -> Result<Map<String, Value>, ApiError> {
    let read = match inputs {
        Value::Object(map) => Some(map.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    };
    read.ok_or_else(|| {
        ApiError::invalid(
            "metadata.inputs",
            "\"metadata.inputs\" must be an object, or a text that is one in JSON",
        )
    })
}

/// The inputs as the steps see them: what was given, defaults, the question, and
/// the conversation itself.
///
/// # Errors
/// An input is missing or wrong; says which.
pub(crate) fn inputs(inputs: &Inputs, asked: &Asked) -> Result<Value, ApiError> {
    let mut value = assemble(inputs, asked);
    let messages = value.as_object_mut().and_then(|map| map.remove(MESSAGES));
    if let Some(validator) = &inputs.validator
        && let Err(error) = validator.validate(&value)
    {
        return Err(wrong_input(&error, inputs));
    }
    value[MESSAGES] = messages.unwrap_or_default();
    Ok(value)
}

/// The same, not checked: guards may have put placeholders where the schema wants a form.
pub(crate) fn assemble(inputs: &Inputs, asked: &Asked) -> Value {
    let mut map = inputs.defaults.clone();
    map.extend(asked.variables.clone());
    map.remove(MESSAGES);
    if let Some(main) = &inputs.main
        && !asked.variables.contains_key(main)
        && let Some(text) = last_question(&asked.messages)
    {
        map.insert(main.clone(), text.into());
    }
    map.insert(MESSAGES.to_owned(), asked.messages.clone().into());
    Value::Object(map)
}

fn wrong_input(error: &jsonschema::ValidationError<'_>, inputs: &Inputs) -> ApiError {
    let mut place = error.instance_path().to_string().replace('/', ".");
    let message = if let ValidationErrorKind::Required { property } = error.kind() {
        let name = property.as_str().unwrap_or_default();
        place = format!("{place}.{name}");
        let how = if inputs.main.as_deref() == Some(name) {
            "say it in the last user message or in metadata.inputs"
        } else {
            "give it in metadata.inputs"
        };
        format!("the app needs the input {name:?}; {how}")
    } else {
        let message = error.to_string();
        format!(
            "the input{} is wrong: {}",
            if place.is_empty() { "" } else { &place },
            base::text::cut_bytes(&message, 300)
        )
    };
    let mut error = ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message);
    error.param = Some(format!("inputs{place}"));
    error
}

/// The text of the last user message.
fn last_question(messages: &[Value]) -> Option<String> {
    let last = messages.iter().rev().find(|it| it["role"] == "user")?;
    match &last["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        _ => None,
    }
}
