//! What a caller attaches to a call besides the request itself.
//!
//! Two equal ways: headers (`x-meguri-session`, `-step`, `-user`, `-tags`,
//! `-metadata`, `-prompt`) and a top-level `meguri` object in the body with the
//! same names, which is cut out before the request is forwarded. Where both say
//! something, the body wins: it is closer to the request. OpenAI's own `user` and
//! `metadata` fields are recorded too, and still forwarded. A prompt is also named
//! by the fields `prompt_id`, `prompt_version` and `prompt_variables`, at the top of
//! the body or in `metadata`, where clients that know only OpenAI's fields can put
//! them; and by a model `prompt:NAME`.

use std::collections::BTreeMap;

use base::{Digest, SpanId, TraceId};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::experiment::Unit;
use crate::guards::AppGuards;
use crate::prompt::MODEL_PREFIX;

/// What a call is part of.
#[derive(Debug, Clone, PartialEq)]
pub struct CallContext {
    /// The trace, also sent back in `x-meguri-trace-id`.
    pub trace_id: TraceId,
    /// The span that the caller says it runs under (`traceparent`).
    pub parent_span_id: Option<SpanId>,
    /// The conversation.
    pub session: Option<String>,
    /// The position in it.
    pub step: Option<i64>,
    /// The application's end user.
    pub user: Option<String>,
    /// Tags; a bare tag has the value `true`.
    pub tags: BTreeMap<String, String>,
    /// Anything else.
    pub metadata: Map<String, Value>,
    /// The catalog prompt to put before the messages.
    pub prompt: Option<PromptRef>,
    /// The inputs of the prompt or the app that is called.
    pub variables: Map<String, Value>,
    /// No guard watches it: the server's own questions to models about texts, such as a judge's.
    /// No request can say this.
    pub unguarded: bool,
    /// In a step of an app: what its guards share.
    pub guards: AppGuards,
}

/// Names a prompt: `name`, `name@label`, `name@version`, `name@latest` or
/// `name@sha256:…`. When nothing is said, the label with the name of the key's
/// environment is meant, or `production` where the prompt has no such label.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PromptRef {
    /// The prompt's name.
    pub name: String,
    /// A label.
    pub label: Option<String>,
    /// A version number; wins over a label.
    pub version: Option<i64>,
    /// A version's content; wins over both.
    pub digest: Option<Digest>,
}

impl PromptRef {
    /// Reads `name[@label|@version|@digest]`.
    pub fn parse(text: &str) -> Self {
        let (name, selector) = match text.rsplit_once('@') {
            Some((name, selector)) => (name, Some(selector)),
            None => (text, None),
        };
        let mut wanted = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        if let Some(selector) = selector {
            wanted.select(selector);
        }
        wanted
    }

    /// Reads `prompt:NAME[@SELECTOR]`, as documents refer to prompts.
    pub fn from_reference(text: &str) -> Option<Self> {
        let wanted = Self::parse(text.strip_prefix("prompt:")?);
        let selected = text.contains('@');
        let says = wanted
            .label
            .as_deref()
            .is_none_or(|label| !label.is_empty());
        (!wanted.name.is_empty() && (says || !selected)).then_some(wanted)
    }

    /// The same prompt at this version.
    pub(crate) fn pinned(&self, version: i64) -> Self {
        Self {
            name: self.name.clone(),
            version: Some(version),
            ..Self::default()
        }
    }

    /// Takes a selector: a version number, a digest or a label.
    fn select(&mut self, selector: &str) {
        self.digest = selector.parse().ok();
        let number = selector.strip_prefix('v').unwrap_or(selector);
        self.version = number.parse().ok().filter(|_| self.digest.is_none());
        let named = self.digest.is_none() && self.version.is_none();
        self.label = named.then(|| selector.to_owned());
    }
}

impl CallContext {
    /// A context that attaches nothing.
    pub fn new(trace_id: TraceId) -> Self {
        Self {
            trace_id,
            parent_span_id: None,
            session: None,
            step: None,
            user: None,
            tags: BTreeMap::new(),
            metadata: Map::new(),
            prompt: None,
            variables: Map::new(),
            unguarded: false,
            guards: AppGuards::default(),
        }
    }

    /// Reads the `x-meguri-*` headers, and the parent span of a `traceparent`
    /// header that names this trace.
    ///
    /// # Errors
    /// A header that does not mean anything; says which.
    pub fn from_headers(trace_id: TraceId, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut context = Self::new(trace_id);
        let parent = traceparent(headers).filter(|(trace, _)| *trace == trace_id);
        context.parent_span_id = parent.map(|(_, span)| span);
        context.session = text(headers, "x-meguri-session")?;
        context.user = text(headers, "x-meguri-user")?;
        context.prompt = text(headers, "x-meguri-prompt")?.map(|name| PromptRef::parse(&name));
        if let Some(step) = text(headers, "x-meguri-step")? {
            let step = step
                .parse()
                .map_err(|_| header_error("x-meguri-step", "is not a whole number"))?;
            context.step = Some(step);
        }
        if let Some(tags) = text(headers, "x-meguri-tags")? {
            context.tags = tags.split(',').filter_map(parse_tag).collect();
        }
        if let Some(metadata) = text(headers, "x-meguri-metadata")? {
            context.metadata = serde_json::from_str(&metadata)
                .map_err(|_| header_error("x-meguri-metadata", "is not a JSON object"))?;
        }
        Ok(context)
    }

    /// Takes over which prompt the body's fields and its model name.
    ///
    /// # Errors
    /// They contradict each other, or name a version of no prompt.
    pub(crate) fn merge_prompt(
        &mut self,
        fields: PromptFields,
        model: Option<&str>,
    ) -> Result<(), ApiError> {
        let by_model = model.and_then(|model| model.strip_prefix(MODEL_PREFIX));
        match (by_model, fields.id) {
            (Some(by_model), Some(id)) if PromptRef::parse(by_model).name != id => {
                let message =
                    format!("the model names the prompt {by_model:?}, \"prompt_id\" names {id:?}");
                return Err(ApiError::invalid("prompt_id", message));
            }
            (Some(text), _) => self.prompt = Some(PromptRef::parse(text)),
            (None, Some(id)) => self.prompt = Some(PromptRef::parse(&id)),
            (None, None) => {}
        }
        self.variables.extend(fields.variables);
        match (&mut self.prompt, fields.version) {
            (Some(prompt), Some(version)) => prompt.select(&version),
            (None, Some(_)) => {
                let message = "\"prompt_version\" is there, but no \"prompt_id\"";
                return Err(ApiError::invalid("prompt_version", message));
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// Takes over what the body's `meguri` object says.
    pub(crate) fn merge(&mut self, extension: Extension) {
        self.session = extension.session.or(self.session.take());
        self.step = extension.step.or(self.step);
        self.user = extension.user.or(self.user.take());
        match extension.tags {
            Some(Tags::List(list)) => self
                .tags
                .extend(list.iter().filter_map(|tag| parse_tag(tag))),
            Some(Tags::Map(map)) => self.tags.extend(map),
            None => {}
        }
        self.metadata.extend(extension.metadata);
        let header_prompt = self.prompt.take();
        self.prompt = match extension.prompt {
            Some(PromptField::Text(text)) => Some(PromptRef::parse(&text)),
            Some(PromptField::Object {
                name,
                label,
                version,
            }) => {
                let mut prompt = PromptRef::parse(&name);
                prompt.label = label.or(prompt.label);
                prompt.version = version.or(prompt.version);
                Some(prompt)
            }
            None => header_prompt,
        };
        self.variables.extend(extension.variables);
    }

    /// Who an experiment's choice sticks to: a call that names no user or session
    /// counts on its own.
    pub fn unit(&self, unit: Unit) -> String {
        let named = match unit {
            Unit::User => self.user.clone(),
            Unit::Session => self.session.clone(),
            Unit::Request => None,
        };
        named.unwrap_or_else(|| self.trace_id.to_string())
    }
}

/// What the body's fields say about a prompt.
#[derive(Debug, Default)]
pub(crate) struct PromptFields {
    id: Option<String>,
    version: Option<String>,
    variables: Map<String, Value>,
}

impl PromptFields {
    /// Takes a field; one that is not about prompts is left alone.
    ///
    /// # Errors
    /// The field has another type.
    pub(crate) fn take(&mut self, name: &str, raw: &str) -> Result<(), ApiError> {
        let wrong =
            |expected: &str| ApiError::invalid(name, format!("{name:?} must be {expected}"));
        match name {
            "prompt_id" => {
                let id: Option<String> =
                    serde_json::from_str(raw).map_err(|_| wrong("a prompt's name"))?;
                self.id = id.filter(|id| !id.is_empty()).or(self.id.take());
            }
            "prompt_version" => match serde_json::from_str(raw) {
                Ok(Value::String(text)) if !text.is_empty() => self.version = Some(text),
                Ok(Value::Number(number)) if number.is_u64() => {
                    self.version = Some(number.to_string());
                }
                Ok(Value::Null) => {}
                _ => return Err(wrong("a version's number or a label")),
            },
            "prompt_variables" => {
                let mut value: Value = serde_json::from_str(raw).unwrap_or_default();
                // OpenAI's metadata holds texts only.
                if let Value::String(text) = &value {
                    value = serde_json::from_str(text)
                        .map_err(|_| wrong("an object, or one as JSON in a text"))?;
                }
                match value {
                    Value::Object(variables) => self.variables.extend(variables),
                    Value::Null => {}
                    _ => return Err(wrong("an object")),
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The `meguri` object of a request body. Our own fields, so unknown ones are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extension {
    #[serde(alias = "prompt_id")]
    prompt: Option<PromptField>,
    #[serde(default, alias = "prompt_variables")]
    variables: Map<String, Value>,
    session: Option<String>,
    step: Option<i64>,
    user: Option<String>,
    tags: Option<Tags>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PromptField {
    Text(String),
    Object {
        name: String,
        label: Option<String>,
        version: Option<i64>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

/// The trace and the span of a W3C `traceparent` header. Callers that trace on
/// their own want our spans in their trace.
pub fn traceparent(headers: &HeaderMap) -> Option<(TraceId, SpanId)> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.trim().split('-');
    let version = parts
        .next()
        .filter(|version| version.len() == 2 && *version != "ff");
    let trace: TraceId = version.and(parts.next())?.parse().ok()?;
    let span: SpanId = parts.next()?.parse().ok()?;
    // All zeros means "none" there.
    (trace.0 != [0; 16] && span.0 != [0; 8]).then_some((trace, span))
}

fn parse_tag(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    let name = name.trim();
    (!name.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
}

fn text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    // Names and tags may be Japanese; `to_str` would allow ASCII only.
    let text =
        std::str::from_utf8(value.as_bytes()).map_err(|_| header_error(name, "is not UTF-8"))?;
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn header_error(name: &'static str, problem: &str) -> ApiError {
    ApiError::invalid(name, format!("the header {name} {problem}"))
}
