//! Environments, and what protects them and other labels.

use std::collections::HashMap;

use base::ProjectId;
use serde_json::json;

use super::{Environment, Environments, Promotion, PromotionError, Protection, Rules, store};
use crate::audit::Line;
use crate::catalog::{Label, Problem};
use crate::{Actor, DbError, Scope, WriteTx};

/// How many environments a project may have.
const MAX_ENVIRONMENTS: usize = 20;

impl Promotion {
    /// The environments in their order with what protects them, and other protected labels.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn environments(&self, scope: Scope) -> Result<Environments, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        let names = store::environments(&mut connection, scope.project).await?;
        let protections = store::protections(&mut connection, scope.project).await?;
        Ok(arrange(names, protections))
    }

    /// What protects one label; `None` when nothing was ever said.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn protection(
        &self,
        scope: Scope,
        label: &Label,
    ) -> Result<Option<Protection>, PromotionError> {
        let mut connection = self.db.read().acquire().await?;
        Ok(store::protection(&mut connection, scope.project, label.as_str()).await?)
    }

    /// Adds an environment after the others.
    ///
    /// # Errors
    /// There is one with this name, or too many.
    pub async fn add_environment(
        &self,
        scope: Scope,
        name: &Label,
    ) -> Result<Environments, PromotionError> {
        let mut tx = self.db.begin_write().await?;
        self.add_environment_in(&mut tx, scope, name).await?;
        tx.commit().await?;
        self.environments(scope).await
    }

    /// [`Promotion::add_environment`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn add_environment_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        name: &Label,
    ) -> Result<(), PromotionError> {
        tx.serialise().await?;
        let names = store::environments(tx.conn(), scope.project).await?;
        if names.iter().any(|known| known == name.as_str()) {
            return Err(
                Problem::new("name", format!("there is an environment {name} already")).into(),
            );
        }
        if names.len() >= MAX_ENVIRONMENTS {
            let message = format!("a project has at most {MAX_ENVIRONMENTS} environments");
            return Err(Problem::new("name", message).into());
        }
        let (position, now) = (names.len() as i64, self.db.now_us());
        // Positions may have gaps; whatever they are, this one comes last.
        number_positions(tx, scope.project, &names).await?;
        store::insert_environment(tx.conn(), scope.project, name.as_str(), position, now).await?;
        let line = Line::new(scope, "environment.add", name.as_str());
        line.detail(json!({ "position": position }))
            .write(tx)
            .await?;
        tx.bump_plan().await?;
        Ok(())
    }

    /// Puts the environments in this order; every one must be named once.
    ///
    /// # Errors
    /// One is missing, unknown or named twice.
    pub async fn order_environments(
        &self,
        scope: Scope,
        names: &[String],
    ) -> Result<Environments, PromotionError> {
        let mut tx = self.db.begin_write().await?;
        self.order_environments_in(&mut tx, scope, names).await?;
        tx.commit().await?;
        self.environments(scope).await
    }

    /// [`Promotion::order_environments`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn order_environments_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        names: &[String],
    ) -> Result<(), PromotionError> {
        tx.serialise().await?;
        let before = store::environments(tx.conn(), scope.project).await?;
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        if sorted(&before) != sorted(names) {
            let message = format!("name each environment once: {}", before.join(", "));
            return Err(Problem::new("names", message).into());
        }
        number_positions(tx, scope.project, names).await?;
        let line = Line::new(scope, "environment.order", "environments");
        let detail = json!({ "before": before, "after": names });
        line.detail(detail).write(tx).await?;
        Ok(())
    }

    /// Sets what protects a label, environment or not. Proposals that wait keep the
    /// stricter of the rules of their beginning and these.
    ///
    /// # Errors
    /// Something is wrong with the rules, or somebody else changed them first.
    pub async fn protect(
        &self,
        scope: Scope,
        label: &Label,
        rules: Rules,
        expected: Option<i64>,
    ) -> Result<Protection, PromotionError> {
        let mut tx = self.db.begin_write().await?;
        let protection = self
            .protect_in(&mut tx, scope, label, rules, expected)
            .await?;
        tx.commit().await?;
        Ok(protection)
    }

    /// [`Promotion::protect`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn protect_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        label: &Label,
        rules: Rules,
        expected: Option<i64>,
    ) -> Result<Protection, PromotionError> {
        rules.check().map_err(crate::CatalogError::Invalid)?;
        tx.serialise().await?;
        let before = store::protection(tx.conn(), scope.project, label.as_str()).await?;
        let revision = before.as_ref().map_or(0, |known| known.revision);
        if expected.is_some_and(|expected| expected != revision) {
            return Err(PromotionError::Stale(revision));
        }
        let protection = Protection {
            label: label.to_string(),
            rules,
            revision: revision + 1,
            updated_by: scope.actor.to_string(),
            updated_at: self.db.now_us(),
        };
        write(tx, scope, before.map(|known| known.rules), &protection).await?;
        Ok(protection)
    }
}

async fn number_positions(
    tx: &mut WriteTx,
    project: ProjectId,
    names: &[String],
) -> Result<(), DbError> {
    for (position, name) in names.iter().enumerate() {
        store::set_position(tx.conn(), project, name, position as i64).await?;
    }
    Ok(())
}

async fn write(
    tx: &mut WriteTx,
    scope: Scope,
    before: Option<Rules>,
    protection: &Protection,
) -> Result<(), DbError> {
    store::put_protection(tx.conn(), scope.project, protection).await?;
    let detail =
        json!({ "before": before, "after": protection.rules, "revision": protection.revision });
    let line = Line::new(scope, "protection.set", &protection.label);
    line.detail(detail).write(tx).await
}

/// What a new project begins with: one approval for `prod`.
///
/// # Errors
/// The statement failed; the transaction cannot be used further.
pub async fn protect_prod(tx: &mut WriteTx, project: ProjectId) -> Result<(), DbError> {
    let scope = Scope {
        project,
        actor: Actor::System,
    };
    let protection = Protection {
        label: "prod".to_owned(),
        rules: Rules {
            approvals: 1,
            ..Rules::default()
        },
        revision: 1,
        updated_by: scope.actor.to_string(),
        updated_at: tx.db().now_us(),
    };
    write(tx, scope, None, &protection).await
}

pub(super) fn arrange(names: Vec<String>, protections: Vec<Protection>) -> Environments {
    let mut by_label: HashMap<String, Protection> = protections
        .into_iter()
        .map(|known| (known.label.clone(), known))
        .collect();
    let environments = names
        .into_iter()
        .map(|name| Environment {
            protection: by_label.remove(&name),
            name,
        })
        .collect();
    let mut labels: Vec<Protection> = by_label.into_values().collect();
    labels.sort_by(|a, b| a.label.cmp(&b.label));
    Environments {
        environments,
        labels,
    }
}
