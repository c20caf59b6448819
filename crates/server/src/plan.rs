//! Builds the gateway's plan from the metadata database.
//!
//! The plan is complete and resolved: keys as hashes, providers with their
//! credentials, prompts with every version, prices. A provider whose credential
//! cannot be read stays in the plan without one, so that its calls fail with
//! the provider's own 401 instead of "no such model".
//!
//! A document never changes, so what was read and compiled for one plan is kept
//! for the next ([`Kept`]): moving a label of ten thousand prompts reads an index
//! and no document.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::{Digest, ProjectId};
use serde_json::Value;

use gateway::{Limits, Plan, ProjectPlan};

use crate::app::App;

/// What stays from one plan to the next.
#[derive(Default)]
pub struct Memory {
    /// The revision of the plan in force; 0 before the first.
    pub revision: i64,
    /// Prompts, ready to be rendered.
    pub prompts: Kept<gateway::PromptVersion>,
    /// Apps, ready to run.
    pub apps: Kept<gateway::AppVersion>,
    /// Guard policies, ready to run, or why they cannot.
    pub guards: Kept<crate::guards::Known>,
}

/// Compiled documents of one kind, by project and digest.
pub struct Kept<T> {
    known: HashMap<(ProjectId, Digest), Arc<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
        }
    }
}

impl<T> Kept<T> {
    /// How many documents one query reads.
    const AT_ONCE: usize = 500;

    /// These documents of a project. Only those that are new are read and
    /// compiled; one that `compile` has no use for is left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn load(
        &mut self,
        app: &App,
        project: ProjectId,
        wanted: impl IntoIterator<Item = Digest>,
        compile: impl Fn(Digest, &Value) -> Option<T>,
    ) -> anyhow::Result<HashMap<Digest, Arc<T>>> {
        let wanted: HashSet<Digest> = wanted.into_iter().collect();
        self.known
            .retain(|(of, digest), _| *of != project || wanted.contains(digest));
        let missing: Vec<Digest> = wanted
            .iter()
            .filter(|digest| !self.known.contains_key(&(project, **digest)))
            .copied()
            .collect();
        for part in missing.chunks(Self::AT_ONCE) {
            for (digest, content) in app.catalog.documents(project, part).await? {
                if let Some(compiled) = compile(digest, &content) {
                    self.known.insert((project, digest), Arc::new(compiled));
                }
            }
        }
        let found = wanted.into_iter().filter_map(|digest| {
            let kept = self.known.get(&(project, digest))?;
            Some((digest, Arc::clone(kept)))
        });
        Ok(found.collect())
    }
}

/// Reads everything that a request may depend on, at this revision.
///
/// # Errors
/// The database cannot be read.
pub async fn build(app: &App, revision: i64, memory: &mut Memory) -> anyhow::Result<Plan> {
    let mut projects = HashMap::new();
    for project in crate::projects::list(&app.db).await? {
        let experiments = crate::experiments::for_plan(app, project.id).await?;
        let plan = ProjectPlan {
            providers: crate::providers::for_plan(app, project.id).await?,
            prompts: crate::prompts::for_plan(app, project.id, &mut memory.prompts).await?,
            apps: crate::apps::for_plan(app, project.id, &experiments).await?,
            guards: crate::guards::for_plan(app, project.id, &mut memory.guards, &experiments)
                .await?,
            experiments,
            prices: Arc::new(crate::prices::for_plan(&app.db, project.id).await?),
        };
        projects.insert(project.id, Arc::new(plan));
    }
    let limits = Limits {
        request_bytes: app.config.file.limits.inference_body_bytes,
        private_tools: app.config.file.egress.allow_private_tools,
        ..Limits::default()
    };
    Ok(Plan {
        revision: revision.to_string(),
        keys: crate::keys::for_plan(&app.db).await?,
        projects,
        limits,
    })
}
