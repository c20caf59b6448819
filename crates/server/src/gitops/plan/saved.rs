//! A plan in a file: looked at today, carried out tomorrow, or not at all.

use serde::{Deserialize, Serialize};

use super::super::Files;
use super::{Options, Plan, Step};

/// A plan in a file: the tree, and the state that it was made for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// What the file is.
    pub format: String,
    /// The project's name.
    pub project: String,
    /// What the plan may do.
    pub options: Options,
    /// What makes it the same plan.
    pub plan: String,
    /// For readers: the steps in words.
    pub summary: Vec<String>,
    /// The tree.
    pub files: Files,
    /// Where its blobs lay, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs_from: Option<String>,
}

/// The first field of a plan's file.
pub const PLAN_FORMAT: &str = "meguri-plan-1";

impl SavedPlan {
    /// The file of a plan with this digest.
    pub fn new(plan: &Plan, digest: &str, options: Options, project: &str, files: Files) -> Self {
        Self {
            format: PLAN_FORMAT.to_owned(),
            project: project.to_owned(),
            options,
            plan: digest.to_owned(),
            summary: plan.steps.iter().map(Step::in_words).collect(),
            files,
            blobs_from: None,
        }
    }
}
