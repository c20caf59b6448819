//! The environments: their order, and what protects each.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::promotion::{Delivery, EARLIER_ENVIRONMENT, Environment, GateRule, Protection, Rules};
use serde::Deserialize;
use serde_json::{Value, json};

use super::parse_label;
use crate::app::App;
use crate::auth::{Identity, Permission, Role};
use crate::error::{AppError, Result};
use crate::extract::Form;
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageEnvironments);
    vec![
        Route::get(
            "/{project}/environments",
            Access::Needs(Permission::ReadCatalog),
            show,
        ),
        Route::post("/{project}/environments/rules", manage, save_rules),
        Route::post("/{project}/environments/move", manage, move_place),
        Route::post("/{project}/environments/add", manage, add),
    ]
}

async fn show(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    render(&app, &page, &identity, json!({}), "").await
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    errors: Value,
    name: &str,
) -> Result<Response> {
    let all = app.promotion.environments(identity.scope()).await?;
    let protections = all
        .environments
        .iter()
        .filter_map(|environment| environment.protection.as_ref())
        .chain(&all.labels);
    let actors = protections.map(|protection| protection.updated_by.as_str());
    let people = crate::members::actor_names(&app.db, identity.project.id, actors).await?;
    let count = all.environments.len();
    let row = |name: &str, protection: Option<&Protection>, place: Option<usize>| {
        let rules = protection
            .map(|protection| protection.rules.clone())
            .unwrap_or_default();
        json!({
            "name": name, "is_environment": place.is_some(), "first": place == Some(0), "last": place == Some(count - 1),
            "revision": protection.map_or(0, |protection| protection.revision), "approvals": rules.approvals,
            "roles": roles(&rules), "gates": gates_text(&rules), "auto": rules.delivery == Delivery::Auto,
            "expires_h": rules.expires_after_s.map(|seconds| seconds / 3600),
            "updated_by": protection.map(|protection| &people[&protection.updated_by]),
            "updated_at": protection.map(|protection| protection.updated_at),
        })
    };
    let environments: Vec<Value> = all
        .environments
        .iter()
        .enumerate()
        .map(|(place, Environment { name, protection })| {
            row(name, protection.as_ref(), Some(place))
        })
        .collect();
    let labels: Vec<Value> = all
        .labels
        .iter()
        .map(|protection| row(&protection.label, Some(protection), None))
        .collect();
    let is_refused = errors.as_object().is_some_and(|errors| !errors.is_empty());
    let view = json!({
        "environments": environments, "labels": labels, "errors": errors, "values": {"name": name},
    });
    let status = if is_refused {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    page.render_with_status(status, "releases/environments.html", view)
        .await
}

/// The roles that may approve at all, and whether the rules name them.
fn roles(rules: &Rules) -> Vec<Value> {
    let may = Role::ALL
        .iter()
        .filter(|role| role.allows(Permission::Approve));
    may.map(|role| {
        let is_on = rules.approver_roles.iter().any(|name| name == role.name());
        json!({"name": role.name(), "on": is_on})
    })
    .collect()
}

/// Gates as people write them: one a line, seconds after it, `?` where it only informs.
fn gates_text(rules: &Rules) -> String {
    let lines = rules.gates.iter().map(|gate| {
        let mut line = gate.name.clone();
        if gate.min_s > 0 {
            line.push_str(&format!(" {}", gate.min_s));
        }
        if !gate.required {
            line.push_str(" ?");
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn parse_gates(text: &str) -> Result<Vec<GateRule>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(parse_gate).collect()
}

fn parse_gate(line: &str) -> Result<GateRule> {
    let (rest, required) = match line.strip_suffix('?') {
        Some(rest) => (rest.trim_end(), false),
        None => (line, true),
    };
    let wrong = || {
        AppError::invalid(format!(
            "{line:?} is not a gate: a name, and for {EARLIER_ENVIRONMENT} seconds after it"
        ))
        .at("form")
    };
    let (name, min_s) = match rest.split_once(char::is_whitespace) {
        Some((name, seconds)) => (name, seconds.trim().parse().map_err(|_| wrong())?),
        None => (rest, 0),
    };
    if name.is_empty() {
        return Err(wrong());
    }
    Ok(GateRule {
        name: name.to_owned(),
        required,
        min_s,
    })
}

#[derive(Deserialize)]
struct RulesForm {
    label: String,
    revision: i64,
    #[serde(default)]
    approvals: u32,
    #[serde(default)]
    gates: String,
    delivery: Delivery,
    expires_h: Option<i64>,
    /// `role.NAME`: ticked.
    #[serde(flatten)]
    roles: BTreeMap<String, String>,
}

impl RulesForm {
    fn rules(&self) -> Result<Rules> {
        let roles = self.roles.keys();
        let expires_after_s = self.expires_h.and_then(|hours| hours.checked_mul(3600));
        Ok(Rules {
            approvals: self.approvals,
            approver_roles: roles
                .filter_map(|key| key.strip_prefix("role."))
                .map(str::to_owned)
                .collect(),
            gates: parse_gates(&self.gates)?,
            delivery: self.delivery,
            expires_after_s,
        })
    }
}

async fn save_rules(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<RulesForm>,
) -> Result<Response> {
    let saving = async {
        let (label, rules) = (parse_label(&form.label)?, form.rules()?);
        app.promotion
            .protect(identity.scope(), &label, rules, Some(form.revision))
            .await?;
        app.refresh_plan().await?;
        Ok(())
    };
    let saved: Result<()> = saving.await;
    let flash = page.t_with("environments-saved-flash", &[("name", &form.label)]);
    finish(&app, &page, &identity, saved, flash, "").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveForm {
    name: String,
    to: String,
}

async fn move_place(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<MoveForm>,
) -> Result<Response> {
    let mut names = crate::projects::environments(&app.db, identity.project.id).await?;
    let found = names.iter().position(|name| *name == form.name);
    let at = found.ok_or_else(|| AppError::not_found("there is no such environment"))?;
    let other = if form.to == "up" {
        at.checked_sub(1)
    } else {
        Some(at + 1).filter(|other| *other < names.len())
    };
    if let Some(other) = other {
        names.swap(at, other);
    }
    let ordering = async {
        app.promotion
            .order_environments(identity.scope(), &names)
            .await?;
        app.refresh_plan().await?;
        Ok(())
    };
    let moved: Result<()> = ordering.await;
    let flash = page.t("environments-moved-flash");
    finish(&app, &page, &identity, moved, flash, "").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddForm {
    #[serde(default)]
    name: String,
}

async fn add(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<AddForm>,
) -> Result<Response> {
    let adding = async {
        let label = parse_label(form.name.trim()).map_err(|error| error.at("name"))?;
        app.promotion
            .add_environment(identity.scope(), &label)
            .await?;
        app.refresh_plan().await?;
        Ok(())
    };
    let added: Result<()> = adding.await;
    let flash = page.t_with("environments-added-flash", &[("name", form.name.trim())]);
    finish(&app, &page, &identity, added, flash, &form.name).await
}

/// Back to the page with a word of success, or with what was wrong.
async fn finish(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    done: Result<()>,
    flash: String,
    name: &str,
) -> Result<Response> {
    match done {
        Ok(()) => Ok(redirect(format!("{}/environments", page.root()))
            .ok(flash)
            .into_response()),
        Err(error) if matches!(error.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) => {
            let mut errors = form_errors(page, &error);
            // Places inside the rules have no field of their own here.
            if error.at.as_deref().is_some_and(|at| at.starts_with('/')) {
                errors = json!({"form": error.message});
            }
            render(app, page, identity, errors, name).await
        }
        Err(error) => Err(error),
    }
}
