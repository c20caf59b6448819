//! Builds the gateway's plan from the metadata database.
//!
//! The plan is complete and resolved: keys as hashes, providers with their
//! credentials, prompts with every version, prices. A provider whose credential
//! cannot be read stays in the plan without one, so that its calls fail with
//! the provider's own 401 instead of "no such model".

use std::collections::HashMap;
use std::sync::Arc;

use gateway::{Limits, Plan, ProjectPlan};

use crate::app::App;

/// Reads everything that a request may depend on, at this revision.
///
/// # Errors
/// The database cannot be read.
pub async fn build(app: &App, revision: i64) -> anyhow::Result<Plan> {
    let mut projects = HashMap::new();
    for project in crate::projects::list(&app.db).await? {
        let plan = ProjectPlan {
            providers: crate::providers::for_plan(app, project.id).await?,
            prompts: crate::prompts::for_plan(app, project.id).await?,
            apps: std::collections::BTreeMap::new(),
            experiments: crate::experiments::for_plan(app, project.id).await?,
            prices: Arc::new(crate::prices::for_plan(&app.db, project.id).await?),
        };
        projects.insert(project.id, Arc::new(plan));
    }
    let limits = Limits {
        request_bytes: app.config.file.limits.inference_body_bytes,
        ..Limits::default()
    };
    Ok(Plan {
        revision: revision.to_string(),
        keys: crate::keys::for_plan(&app.db).await?,
        projects,
        limits,
    })
}
