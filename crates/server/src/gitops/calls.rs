//! What the command line and the API do with trees: files in, answers out. A command
//! that works on the data directory calls these; one that works on a server calls the
//! routes that call these, and both print the same answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Digest;
use db::catalog::Catalog;
use db::{Db, Kinds, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apply::{Applied, ApplyRequest, apply, check_expected, impossible};
use super::blobs::{self, BlobOf};
use super::plan::{Options, Plan, plan};
use super::{Checked, Files, Finding, Tree, has_errors, parse};
use crate::error::{AppError, Result};

/// What versions and moves say where nobody gave a reason.
pub const DEFAULT_MESSAGE: &str = "applied from files";

/// A tree, and what may be done with it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentTree {
    /// Path → text.
    pub files: Files,
    /// The digests of the blobs that the sender has beside the files, and sends before it applies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<String>,
    /// Delete names and remove labels that the tree does not have.
    #[serde(default)]
    pub allow_delete: bool,
    /// Undo what was changed in the project since the last apply.
    #[serde(default)]
    pub overwrite_drift: bool,
    /// The project's name; refused where the caller's is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Apply only if the plan is still this one: the field `digest` of a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// Why, for the versions and moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The project as a tree of files.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExportedTree {
    /// Path → text.
    pub files: Files,
    /// What the documents need beside the files.
    pub blobs: Vec<BlobOf>,
}

/// What is wrong with a tree in itself.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Validated {
    /// How many names it has.
    pub documents: usize,
    /// By file and line.
    pub findings: Vec<Finding>,
}

/// A plan, and what makes it this one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    /// The project's name.
    pub project: String,
    /// What `expected` of an apply compares; missing where the tree itself is wrong.
    pub digest: Option<String>,
    /// The sender's blobs that must be sent before the tree is applied.
    pub missing_blobs: Vec<String>,
    /// The plan. Where the tree itself is wrong, it has findings and no steps.
    #[serde(flatten)]
    pub plan: Plan,
}

impl SentTree {
    fn options(&self) -> Options {
        Options {
            allow_delete: self.allow_delete,
            overwrite_drift: self.overwrite_drift,
        }
    }

    fn expected(&self) -> Result<Option<Digest>> {
        let expected = self.expected.as_deref().map(str::parse::<Digest>);
        expected
            .transpose()
            .map_err(|error| AppError::invalid(format!("expected: {error}")).at("expected"))
    }

    fn blobs(&self) -> Result<BTreeSet<Digest>> {
        let parse = |text: &String| {
            text.parse::<Digest>()
                .map_err(|error| AppError::invalid(format!("blobs: {error}")).at("blobs"))
        };
        self.blobs.iter().map(parse).collect()
    }

    /// Refuses a tree that was meant for another project.
    ///
    /// # Errors
    /// 409 when this is not the project that the sender named.
    pub fn check_project(&self, project: &str) -> Result<()> {
        match &self.project {
            Some(named) if named != project => Err(AppError::conflict(format!(
                "this is the project {project}, and the plan or tree is for {named}"
            ))
            .code("other_project")),
            _ => Ok(()),
        }
    }
}

/// The project as files.
///
/// # Errors
/// The database cannot be read.
pub async fn export_files(db: &Db, catalog: &Catalog, scope: Scope) -> Result<ExportedTree> {
    let tree = super::export(db, catalog, scope).await?;
    let kinds = catalog.kinds().clone();
    let written = tokio::task::spawn_blocking(move || ExportedTree {
        files: super::render(&tree, &kinds),
        blobs: blobs::of_tree(&tree),
    });
    written.await.map_err(AppError::internal)
}

/// What is wrong with a tree, without looking into the project.
///
/// # Errors
/// A blob's digest is none.
pub async fn validate_files(kinds: &Kinds, mut sent: SentTree) -> Result<Validated> {
    let given = sent.blobs()?;
    let files = Arc::new(std::mem::take(&mut sent.files));
    let mut checked = parsed(kinds, &files).await?;
    let known = |digest: &Digest| given.contains(digest);
    checked
        .findings
        .extend(blobs::not_in_tree(&checked.tree, known));
    Ok(Validated {
        documents: checked.tree.names.len(),
        findings: checked.findings,
    })
}

/// What applying a tree would do; changes nothing.
///
/// # Errors
/// The database cannot be read. What is wrong with the tree is in the plan.
pub async fn plan_files(
    db: &Db,
    catalog: &Catalog,
    scope: Scope,
    project: &str,
    mut sent: SentTree,
) -> Result<Planned> {
    sent.check_project(project)?;
    let given = sent.blobs()?;
    let files = Arc::new(std::mem::take(&mut sent.files));
    let checked = parsed(catalog.kinds(), &files).await?;
    let mut planned = Planned {
        project: project.to_owned(),
        digest: None,
        missing_blobs: Vec::new(),
        plan: Plan::default(),
    };
    if has_errors(&checked.findings) {
        planned.plan.findings = checked.findings;
        return Ok(planned);
    }
    let (tree, mut findings) = (checked.tree, checked.findings);
    let mut plan = plan(db, catalog, scope, &tree, sent.options()).await?;
    planned.digest = Some(plan.identity()?.to_string());
    for missing in blobs::missing(catalog, scope.project, &tree, &plan).await? {
        if given.contains(&missing.digest) {
            planned.missing_blobs.push(missing.digest.to_string());
        } else {
            plan.findings.push(missing.finding());
        }
    }
    findings.append(&mut plan.findings);
    plan.findings = findings;
    planned.plan = plan;
    Ok(planned)
}

/// Applies a tree, if whoever sends it may do each step of its plan.
///
/// # Errors
/// As [`apply`], or a step is not allowed; nothing was changed then.
pub async fn apply_files(
    db: &Db,
    catalog: &Catalog,
    scope: Scope,
    mut sent: SentTree,
    allowed: impl FnOnce(&Plan) -> Result<()>,
) -> Result<Applied> {
    let expected = sent.expected()?;
    let files = Arc::new(std::mem::take(&mut sent.files));
    let checked = parsed(catalog.kinds(), &files).await?;
    if has_errors(&checked.findings) {
        return Err(impossible(&checked.findings));
    }
    let tree: Tree = checked.tree;
    // What the tree would do decides what its sender must be allowed to do. The plan is made again
    // in the transaction, and must then be this one.
    let seen = plan(db, catalog, scope, &tree, sent.options()).await?;
    allowed(&seen)?;
    check_expected(&seen, expected)?;
    let request = ApplyRequest {
        tree: &tree,
        options: sent.options(),
        expected: Some(seen.identity()?),
        message: sent.message.as_deref().unwrap_or(DEFAULT_MESSAGE),
        is_source: true,
    };
    apply(db, catalog, scope, request).await
}

/// Reading a large tree is work for a thread that may be kept busy.
async fn parsed(kinds: &Kinds, files: &Arc<Files>) -> Result<Checked> {
    let (kinds, files) = (kinds.clone(), Arc::clone(files));
    tokio::task::spawn_blocking(move || parse(&files, &kinds))
        .await
        .map_err(AppError::internal)
}
