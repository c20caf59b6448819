//! Evaluators: what gives scores to answers.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document: a metric, a judge, a program; its check and signature |
//! | `metric.rs` | metrics, as the crate `eval` computes them |
//! | `judge.rs` | what a judge is asked and how its reply is read |
//! | `rag.rs` | what is asked about answers that stand on retrieved texts; Ragas' formulas |
//! | `embedding.rs`, `bertscore.rs`, `perplexity.rs` | measures by a model's vectors or probabilities |
//! | `library/` | starting points for new evaluators: whole documents that lack only a judging model |
//! | `wasm.rs`, `modules.rs` | modules of the team's own: how they run, how they come |
//! | `output.rs` | which part of an answer is measured |
//! | `pages.rs` | the list and the editor |
//!
//! Nothing here calls a model: `evaluations` does, for these rules. An evaluator is
//! a document of the catalog; its digest is its version, and a number that it gave
//! is comparable with numbers of the same signature only.

pub mod bertscore;
mod document;
pub mod embedding;
pub mod judge;
pub mod metric;
mod modules;
mod output;
mod pages;
pub mod perplexity;
pub mod rag;
pub mod wasm;

use db::Kind;
use serde_json::json;

use crate::http::Route;
use crate::starts::Library;

pub(crate) use document::Problems;
pub use document::{
    Criterion, Direction, EvaluatorDocument, HttpEvaluator, JudgeEvaluator, JudgeExample,
    JudgeMode, MetricEvaluator, Scale, Shown,
};

/// Starting points for new evaluators.
pub static LIBRARY: Library = Library::new(
    include_str!("library/en.toml"),
    include_str!("library/ja.toml"),
);
pub use modules::{Kept, keep};
pub use output::{OutputRule, json_of, text_of};

/// The catalog's word for evaluators.
pub const KIND: &str = "evaluator";

/// The pages. The catalog's own API serves everything else about evaluators.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(modules::routes());
    routes
}

/// Evaluators, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match EvaluatorDocument::parse(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        blobs: |content| match EvaluatorDocument::parse(content) {
            Ok(EvaluatorDocument::Wasm(wasm)) => wasm.digest().into_iter().collect(),
            _ => Vec::new(),
        },
        check_blob: Some(
            |content, _, bytes| match EvaluatorDocument::parse(content) {
                Ok(EvaluatorDocument::Wasm(wasm)) => wasm::check_module(&wasm, bytes),
                _ => Ok(()),
            },
        ),
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(EvaluatorDocument)),
            |content| EvaluatorDocument::parse(content).map(drop),
        )
    }
}
