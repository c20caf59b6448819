//! Apps: steps that call prompts, tools and models, run as one call.
//!
//! `document.rs` is what people write, `compile.rs` what it becomes, `expr.rs` the
//! expressions in between. A call goes through `choose.rs` (which release), `ask.rs`
//! (its inputs), `run.rs` (the steps; `tool.rs` and `agent.rs` are two kinds of
//! them; `speech.rs` is an agent that is heard while it works) and `answer.rs`;
//! `serve.rs` leads it there, and `guarded.rs` is where guards look on the way.

mod agent;
mod answer;
mod ask;
mod choose;
mod compile;
mod document;
mod expr;
mod graph;
mod guarded;
mod named;
mod run;
mod serve;
mod speech;
mod sticky;
mod tool;

use std::sync::OnceLock;

use base::Digest;
use serde_json::Value;

pub use document::{
    AgentLimits, AgentStep, AgentStream, AppDocument, ChainStep, GuardStep, HttpTool, Method,
    OnBlock, Output, OutputKind, PromptSource, PromptStep, RetrieveStep, Step, Tool, ToolStep,
};
pub use graph::{Graph, GraphEdge, GraphNode};
pub use named::NamedExpression;

pub(crate) use choose::find;
pub(crate) use expr::as_text;
pub(crate) use serve::{serve, serve_draft};
pub(crate) use sticky::Sticky;

use crate::problem::DocumentProblem;
use compile::Compiled;

/// Another document that an app mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppReference {
    /// Where: a JSON Pointer into the app's document.
    pub path: String,
    /// The reference as it is written: `prompt:NAME@SELECTOR`.
    pub text: String,
}

impl AppDocument {
    /// Reads a document and asks whether all its parts fit together.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, Vec<DocumentProblem>> {
        let document = Self::read(value)?;
        let (_, problems) = compile::compile(&document);
        if problems.is_empty() {
            Ok(document)
        } else {
            Err(problems)
        }
    }

    /// The JSON Schema of these documents, for editors.
    pub fn schema() -> Value {
        schemars::schema_for!(AppDocument).to_value()
    }

    /// The other documents that this one mentions.
    pub fn references(&self) -> Vec<AppReference> {
        let guards = self.guards.iter().enumerate();
        let mut found: Vec<AppReference> = guards
            .map(|(at, text)| AppReference {
                path: format!("/guards/{at}"),
                text: text.clone(),
            })
            .collect();
        add_references("", &self.steps, &mut found);
        found
    }

    /// The credentials that its tools need: `env:MEGURI_TOOL_NAME`.
    pub fn credentials(&self) -> Vec<&str> {
        let tools = self.tools.values();
        tools
            .filter_map(|Tool::Http(tool)| tool.credential.as_deref())
            .collect()
    }
}

fn add_references(path: &str, steps: &[Step], found: &mut Vec<AppReference>) {
    for (at, step) in steps.iter().enumerate() {
        let path = format!("{path}/steps/{at}");
        let mut add = |field: &str, text: &str| {
            found.push(AppReference {
                path: format!("{path}/{field}"),
                text: text.to_owned(),
            });
        };
        match step {
            Step::Prompt(PromptStep { prompt, .. }) | Step::Agent(AgentStep { prompt, .. }) => {
                match prompt {
                    PromptSource::Reference(text) => add("prompt", text),
                    PromptSource::Inline(document) => {
                        for mention in document.references() {
                            add(&format!("prompt{}", mention.path), &mention.reference);
                        }
                    }
                }
            }
            Step::Retrieve(step) => add("index", &step.index),
            Step::Guard(step) => add("guard", &step.guard),
            Step::Chain(chain) => add_references(&path, &chain.steps, found),
            Step::Tool(_) => {}
        }
    }
}

/// One version of an app, ready to run. What can be prepared is prepared once,
/// by the first call.
#[derive(Debug)]
pub struct AppVersion {
    /// The digest of its document.
    pub digest: Digest,
    /// The document.
    pub document: AppDocument,
    compiled: OnceLock<Result<Compiled, Vec<DocumentProblem>>>,
}

impl AppVersion {
    /// A version with this document.
    pub fn new(digest: Digest, document: AppDocument) -> Self {
        Self {
            digest,
            document,
            compiled: OnceLock::new(),
        }
    }

    /// The app as it runs.
    ///
    /// # Errors
    /// What is wrong with the document: it was saved by a version that allowed more.
    pub(crate) fn compiled(&self) -> Result<&Compiled, &[DocumentProblem]> {
        let compiled = self.compiled.get_or_init(|| {
            let (compiled, problems) = compile::compile(&self.document);
            if problems.is_empty() {
                Ok(compiled)
            } else {
                Err(problems)
            }
        });
        compiled.as_ref().map_err(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
