//! Which app a call means, and which release of it serves the call.
//!
//! A provider's name before the slash wins over an app of the same name, so that
//! a new app never takes calls away from a model. Nothing is compiled or copied
//! here: a call that means no app pays for one look into a map.

use std::sync::Arc;

use http::StatusCode;

use super::sticky::Conversation;
use crate::call::{Caller, Read};
use crate::context::CallContext;
use crate::error::ApiError;
use crate::experiment::{ArmUsed, Target};
use crate::plan::{App, ProjectPlan, Release};

/// What may stand before an app's name.
const PREFIX: &str = "app/";

/// An app that a call means.
pub(crate) struct Found {
    pub name: String,
    pub app: Arc<App>,
}

/// The release that serves a call, and those that get a copy of it.
pub(crate) struct Chosen {
    pub release: Arc<Release>,
    pub arm: Option<ArmUsed>,
    pub shadows: Vec<(Arc<Release>, ArmUsed)>,
}

/// The app that a call means, if it means one.
pub(crate) fn find(caller: Caller<'_>, read: &Read) -> Option<Found> {
    let project = caller.project()?;
    if project.apps.is_empty() {
        return None;
    }
    let model = read.model.as_deref()?;
    if let Some((first, _)) = model.split_once('/')
        && (first == "local" || project.providers.contains_key(first))
    {
        return None;
    }
    let named = |name: &str| Some((name.to_owned(), project.apps.get(name)?));
    let (name, app) = named(model).or_else(|| named(model.strip_prefix(PREFIX)?))?;
    Some(Found {
        name,
        app: app.clone(),
    })
}

/// The release for this call: the one that the conversation began with, else the
/// one that an experiment chooses, else that of the key's environment.
pub(crate) fn choose(
    caller: Caller<'_>,
    found: &Found,
    context: &CallContext,
) -> Result<Chosen, ApiError> {
    let environment = &caller.principal.environment;
    let now_us = caller.gateway.clock.now_us();
    let conversation = context.session.as_deref().map(|session| {
        Conversation::new(caller.principal.project, environment, &found.name, session)
    });
    let begun = conversation.and_then(|conversation| {
        let may_be_used = |number| found.app.releases.contains_key(&number);
        caller
            .gateway
            .conversations
            .find(conversation, now_us, may_be_used)
    });
    let mut chosen = by_experiment(caller, found, context);
    if let Some(release) = begun.and_then(|number| found.app.releases.get(&number)) {
        // One that an experiment began in the middle of is no part of it.
        let same = |chosen: &Chosen| chosen.release.number == release.number;
        let kept = chosen.take().filter(same);
        chosen = Some(kept.unwrap_or_else(|| Chosen {
            release: release.clone(),
            arm: None,
            shadows: Vec::new(),
        }));
    }
    let chosen = match chosen {
        Some(chosen) => chosen,
        None => Chosen {
            release: of_environment(found, environment)?,
            arm: None,
            shadows: Vec::new(),
        },
    };
    if let Some(conversation) = conversation {
        let number = chosen.release.number;
        caller
            .gateway
            .conversations
            .put(conversation, number, now_us);
    }
    Ok(chosen)
}

fn by_experiment(caller: Caller<'_>, found: &Found, context: &CallContext) -> Option<Chosen> {
    let project = caller.project().filter(|it| !it.experiments.is_empty())?;
    let target = Target::App {
        name: found.name.clone(),
        environment: caller.principal.environment.clone(),
    };
    let experiment = project.experiments.get(&target)?;
    let unit = context.unit(experiment.unit);
    let release = |number: i64| found.app.releases.get(&number).cloned();
    let (arm, used) = experiment.choose(&unit)?;
    let shadows = experiment.shadows(&unit).into_iter();
    Some(Chosen {
        release: release(arm.number)?,
        arm: Some(used),
        shadows: shadows
            .filter_map(|(arm, used)| Some((release(arm.number)?, used)))
            .collect(),
    })
}

fn of_environment(found: &Found, environment: &str) -> Result<Arc<Release>, ApiError> {
    let release = found.app.environments.get(environment).cloned();
    release.ok_or_else(|| {
        let others: Vec<&str> = found.app.environments.keys().map(String::as_str).collect();
        let hint = match others.as_slice() {
            [] => "it was never released".to_owned(),
            others => format!("it is in {}", others.join(", ")),
        };
        let message = format!(
            "the app {:?} has no release in the environment {environment:?} of this key; {hint}",
            found.name
        );
        let mut error = ApiError::new(StatusCode::NOT_FOUND, "app_not_released", message);
        error.param = Some("model".to_owned());
        error
    })
}

impl<'a> Caller<'a> {
    /// What the caller's project owns.
    pub(crate) fn project(&self) -> Option<&'a ProjectPlan> {
        let project = self.plan.projects.get(&self.principal.project);
        project.map(AsRef::as_ref)
    }
}
