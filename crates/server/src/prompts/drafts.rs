//! Drafts: documents that nobody has saved, rendered and called as they stand.
//!
//! The editor and the compare page live on this. A call with a draft goes through
//! the gateway like any other and is recorded, with the tag `draft`; nothing of
//! the catalog is written.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use base::TraceId;
use bytes::Bytes;
use gateway::{
    CallContext, DocumentProblem, Plan, PromptDocument, PromptVersion, RenderWith, Rendered,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::KIND;
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};

/// The most that a rendered draft may have, in bytes.
const MAX_RENDERED_BYTES: usize = 1 << 20;
/// How many messages a caller may send along with a draft.
const MAX_MESSAGES: usize = 1000;

/// A draft to render.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RenderRequest {
    /// The document, as it would be saved.
    #[schemars(with = "PromptDocument")]
    pub(super) content: Value,
    /// The inputs to render it with; those of the document's examples and defaults where there are none.
    pub(super) inputs: Option<Map<String, Value>>,
    /// Whose tokens to count; the document's own model when it names one.
    pub(super) model: Option<String>,
}

/// A rendered draft, or why it cannot be rendered.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct RenderAnswer {
    /// What the model would be sent; empty where there are problems.
    pub(super) messages: Vec<Value>,
    /// The model that the document names.
    pub(super) model: Option<String>,
    /// What the document says about the call: parameters, `response_format`, `tools`.
    pub(super) parameters: Map<String, Value>,
    /// The variables that the templates use.
    pub(super) variables: Vec<VariableRow>,
    /// The inputs that were used.
    pub(super) inputs: Map<String, Value>,
    /// What is wrong, each with its place.
    pub(super) problems: Vec<ProblemRow>,
    /// How many tokens the messages are.
    pub(super) tokens: Option<TokenCount>,
}

/// A variable of a draft.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VariableRow {
    name: String,
    /// Whether the document's inputs declare it.
    declared: bool,
}

/// A problem of a draft.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ProblemRow {
    /// A JSON Pointer into the document, or `variables.NAME` for an input.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
    /// The line of the template, where the problem is in one.
    pub(super) line: Option<usize>,
}

/// How many tokens, and how that is known.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TokenCount {
    /// The number.
    pub(super) count: usize,
    /// `model`: counted with the model's own tokenizer; `estimate`: from the number of characters.
    pub(super) method: &'static str,
    /// The model whose tokenizer counted.
    pub(super) model: Option<String>,
}

impl From<DocumentProblem> for ProblemRow {
    fn from(problem: DocumentProblem) -> Self {
        Self {
            line: line_of(&problem.message),
            path: problem.path,
            message: problem.message,
        }
    }
}

/// The line that a template's problem names: "… (line 3 of the template)".
fn line_of(message: &str) -> Option<usize> {
    let (_, rest) = message.rsplit_once("(line ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Renders a draft. A draft with problems is an answer, not an error: the editor
/// asks while somebody types.
pub(super) fn render(app: &App, identity: &Identity, request: RenderRequest) -> RenderAnswer {
    let given = request.inputs;
    let document = match PromptDocument::parse(&request.content) {
        Ok(document) => document,
        Err(problems) => {
            return RenderAnswer {
                inputs: given.unwrap_or_default(),
                variables: readable_variables(&request.content),
                problems: problems.into_iter().map(ProblemRow::from).collect(),
                ..RenderAnswer::default()
            };
        }
    };
    let inputs = given.unwrap_or_else(|| document.sample_inputs());
    let mut answer = RenderAnswer {
        variables: variables(&document),
        model: document.model.clone(),
        ..RenderAnswer::default()
    };
    match rendered(app, identity, &document, &inputs, &[]) {
        Ok(rendered) => {
            answer.messages = rendered.around(&[]);
            answer.parameters = rendered.parameters;
            let model = document.model.as_deref().or(request.model.as_deref());
            answer.tokens = Some(count_tokens(app, model, &answer.messages));
        }
        Err(problems) => answer.problems = problems.into_iter().map(ProblemRow::from).collect(),
    }
    answer.inputs = inputs;
    answer
}

/// The variables of a document that has problems, as far as it can be read.
fn readable_variables(content: &Value) -> Vec<VariableRow> {
    PromptDocument::deserialize(content)
        .map(|document| variables(&document))
        .unwrap_or_default()
}

fn variables(document: &PromptDocument) -> Vec<VariableRow> {
    let row = |variable: gateway::Variable| VariableRow {
        name: variable.name,
        declared: variable.declared,
    };
    document.variables().into_iter().map(row).collect()
}

/// Renders a document against the plan of this moment, where its partials are looked up.
pub(super) fn rendered(
    app: &App,
    identity: &Identity,
    document: &PromptDocument,
    inputs: &Map<String, Value>,
    messages: &[Value],
) -> Result<Rendered, Vec<DocumentProblem>> {
    let plan = app.gateway.plan();
    let lookup = |reference: &str| refer(&plan, identity, reference);
    let with = RenderWith {
        variables: inputs,
        messages,
        partials: &lookup,
        max_bytes: MAX_RENDERED_BYTES,
    };
    gateway::render_preview(document, &with)
}

fn refer(plan: &Plan, identity: &Identity, reference: &str) -> Option<Arc<PromptVersion>> {
    let project = plan.projects.get(&identity.principal.project)?;
    gateway::refer(project, reference)
}

/// Counts with the model's own tokenizer where it is a local model in memory, else estimates.
fn count_tokens(app: &App, model: Option<&str>, messages: &[Value]) -> TokenCount {
    let local = model.and_then(|model| model.strip_prefix("local/"));
    let counted = local.and_then(|name| app.engine.count_tokens(name, messages));
    match counted {
        Some(count) => TokenCount {
            count,
            method: "model",
            model: model.map(str::to_owned),
        },
        None => TokenCount {
            count: estimate(messages),
            method: "estimate",
            model: None,
        },
    }
}

/// About four Latin letters a token and somewhat more than one token for a
/// Japanese one and a half, plus what each message costs.
fn estimate(messages: &[Value]) -> usize {
    let of_message = |message: &Value| {
        let text = match &message["content"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let ascii = text.chars().filter(char::is_ascii).count();
        let other = text.chars().count() - ascii;
        4 + ascii.div_ceil(4) + (other * 3).div_ceil(4)
    };
    messages.iter().map(of_message).sum()
}

/// A call with a draft.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TryRequest {
    /// The document, as it would be saved.
    #[schemars(with = "PromptDocument")]
    content: Value,
    /// The inputs.
    #[serde(default)]
    variables: Map<String, Value>,
    /// Messages that come after the draft's own, as in a chat completion.
    #[serde(default)]
    messages: Vec<Value>,
    /// The model; the document's own when none is named.
    model: Option<String>,
    /// The conversation that the trace belongs to.
    session: Option<String>,
    /// Tags of the trace.
    #[serde(default)]
    tags: Vec<String>,
    /// Any other field of a chat completion, such as `stream` or `temperature`; it wins over the document's parameters.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Renders a draft and calls the model. The answer is a chat completion, streamed if asked for.
///
/// # Errors
/// The document or its inputs are wrong, each problem with its place; what the
/// model or provider says comes back as the gateway's own answer.
pub(super) async fn try_draft(
    app: &App,
    identity: &Identity,
    mut context: CallContext,
    request: TryRequest,
) -> Result<Response> {
    if request.messages.len() > MAX_MESSAGES {
        return Err(AppError::invalid(format!(
            "at most {MAX_MESSAGES} messages can be sent along"
        ))
        .at("messages"));
    }
    let document = super::parse_document(&request.content)?;
    let rendered = rendered(
        app,
        identity,
        &document,
        &request.variables,
        &request.messages,
    )
    .map_err(|problems| refused(&problems))?;
    let model = request.model.or_else(|| document.model.clone());
    let model = model.ok_or_else(|| {
        AppError::invalid("no model is named")
            .at("model")
            .hint("send \"model\", or give the document one")
    })?;
    let mut body = rendered.parameters.clone();
    body.extend(request.more);
    body.insert("model".to_owned(), model.into());
    body.insert(
        "messages".to_owned(),
        rendered.around(&request.messages).into(),
    );
    body.remove("meguri");
    let mut tags = request.tags;
    tags.push("draft".to_owned());
    context.session = request.session.or(context.session);
    body.insert("meguri".to_owned(), json!({"tags": tags}));
    let answer = call(app, identity, context, &Value::Object(body)).await;
    Ok(answer.map(Body::new))
}

/// One chat completion in this process, recorded like any other.
pub(super) async fn call(
    app: &App,
    identity: &Identity,
    context: CallContext,
    body: &Value,
) -> http::Response<gateway::GatewayBody> {
    let plan = app.gateway.plan();
    let body = Bytes::from(body.to_string());
    // The gateway's future holds a whole call; this one is small beside it.
    Box::pin(
        app.gateway
            .chat_completions(&plan, &identity.principal, context, body),
    )
    .await
}

/// A fresh context for a call that the server makes on its own.
pub(super) fn own_context(app: &App) -> CallContext {
    CallContext::new(app.ids.make::<TraceId>())
}

/// Problems of a document or its inputs as one refusal, at the place of the first.
pub(super) fn refused(problems: &[DocumentProblem]) -> AppError {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let at = problems.first().map(|problem| problem.path.clone());
    AppError::invalid(texts.join("; "))
        .code("invalid_document")
        .at(at.unwrap_or_default())
}

/// Where nearly the same is said already.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlikeRequest {
    /// The document, as it would be saved.
    #[schemars(with = "PromptDocument")]
    content: Value,
    /// The name that it would be saved under; its own versions are not near-duplicates of it.
    name: Option<String>,
}

/// Other prompts with the same or nearly the same text.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AlikeAnswer {
    /// Versions with exactly this content.
    identical: Vec<IdenticalRow>,
    /// The most similar version of each other prompt, the most similar first.
    similar: Vec<SimilarRow>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct IdenticalRow {
    name: String,
    version: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SimilarRow {
    name: String,
    version: i64,
    /// The estimated share of the text that is the same, 0.7 to 1.
    similarity: f64,
}

/// Finds what says the same or nearly the same.
///
/// # Errors
/// The content is no prompt.
pub(super) async fn find_alike(
    app: &App,
    identity: &Identity,
    request: AlikeRequest,
) -> Result<AlikeAnswer> {
    let document = super::parse_document(&request.content)?.to_value();
    let scope = identity.scope();
    let digest = base::Digest::of_json(&document).map_err(anyhow::Error::from)?;
    let mut identical = Vec::new();
    let own = request.name.as_deref().map(super::parse_name).transpose()?;
    let mut similar = app.catalog.similar(scope, KIND, &document).await?;
    let mut candidates: Vec<_> = own.iter().cloned().collect();
    candidates.extend(similar.iter().map(|other| other.name.clone()));
    candidates.dedup();
    for name in candidates {
        let selector = db::catalog::Selector::Digest(digest);
        if let Some(found) = app.catalog.version(scope, KIND, &name, &selector).await? {
            identical.push(IdenticalRow {
                name: name.as_str().to_owned(),
                version: found.version.number,
            });
        }
    }
    identical.dedup_by(|a, b| a.name == b.name);
    similar.retain(|other| {
        let is_own = own.as_ref() == Some(&other.name);
        !is_own
            && !identical
                .iter()
                .any(|same| same.name == other.name.as_str())
    });
    let similar = similar.into_iter().map(|other| SimilarRow {
        name: other.name.as_str().to_owned(),
        version: other.number,
        similarity: other.similarity,
    });
    Ok(AlikeAnswer {
        identical,
        similar: similar.collect(),
    })
}
