//! What a project holds, read at one moment: inside the transaction that will
//! change it, or on any connection for a plan that only shows.
//!
//! The catalog gives names one at a time or in pages; a plan compares all of
//! them, so this reads whole tables of one project, one statement each.

use std::collections::BTreeMap;

use base::{Digest, ProjectId};
use db::catalog::{Label, Name};
use db::promotion::Rules;
use db::sqlx::any::AnyRow;
use db::sqlx::{AnyConnection, Row as _, query};
use db::{DbError, Scope, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Environment, Key};

/// What a project holds under one name.
#[derive(Debug, Clone, Default)]
pub(super) struct NameState {
    /// By content: the version's number.
    pub(super) versions: BTreeMap<Digest, i64>,
    /// The newest.
    pub(super) latest: Option<(i64, Digest)>,
    pub(super) tags: Vec<String>,
    pub(super) is_deleted: bool,
    pub(super) pointers: BTreeMap<Label, PointerState>,
}

/// Where a label points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PointerState {
    pub(super) number: i64,
    pub(super) digest: Digest,
    pub(super) revision: i64,
}

/// A proposal that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Waiting {
    pub(super) id: String,
    pub(super) digest: Digest,
    pub(super) pointer_revision: i64,
}

/// What a project holds.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<Key, NameState>,
    pub(super) environments: Vec<Environment>,
    /// By label.
    pub(super) protections: BTreeMap<String, Rules>,
    pub(super) waiting: BTreeMap<(Key, Label), Vec<Waiting>>,
    pub(super) quarantined: BTreeMap<Key, Vec<Digest>>,
    /// What the last apply left behind.
    pub(super) applied: Option<Snapshot>,
}

/// The state that an apply left behind, as far as trees know it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// The tree that was applied.
    pub(super) tree: String,
    pub(super) actor: String,
    pub(super) at: i64,
    /// By `KIND:NAME`.
    pub(super) names: BTreeMap<String, SnapshotName>,
}

/// One name of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct SnapshotName {
    pub(super) latest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) pointers: BTreeMap<String, String>,
}

type Result<T> = std::result::Result<T, DbError>;

fn parsed<T>(row: &AnyRow, column: usize) -> db::sqlx::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.try_get(column)?;
    text.parse()
        .map_err(|source: T::Err| db::sqlx::Error::ColumnDecode {
            index: column.to_string(),
            source: Box::new(source),
        })
}

fn parsed_json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: usize) -> db::sqlx::Result<T> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|source| db::sqlx::Error::ColumnDecode {
        index: column.to_string(),
        source: Box::new(source),
    })
}

fn key(row: &AnyRow) -> db::sqlx::Result<Key> {
    Ok(Key {
        kind: row.try_get(0)?,
        name: parsed::<Name>(row, 1)?,
    })
}

/// Everything that a plan compares.
pub(super) async fn read_state(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<State> {
    let mut state = State::default();
    read_names(connection, project, &mut state).await?;
    read_versions(connection, project, &mut state).await?;
    read_pointers(connection, project, &mut state).await?;
    read_protections(connection, project, &mut state).await?;
    read_waiting(connection, project, &mut state).await?;
    let rows = query(
        "SELECT kind, name, digest FROM quarantines WHERE project = $1 AND lifted_at IS NULL",
    )
    .bind(project.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let digests = state.quarantined.entry(key(row)?).or_default();
        digests.push(parsed(row, 2)?);
    }
    state.applied = read_snapshot(connection, project).await?;
    Ok(state)
}

async fn read_names(
    connection: &mut AnyConnection,
    project: ProjectId,
    state: &mut State,
) -> Result<()> {
    let rows = query("SELECT kind, name, tags, deleted_at FROM names WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let name = state.names.entry(key(row)?).or_default();
        name.tags = parsed_json(row, 2)?;
        name.is_deleted = row.try_get::<Option<i64>, _>(3)?.is_some();
    }
    Ok(())
}

async fn read_versions(
    connection: &mut AnyConnection,
    project: ProjectId,
    state: &mut State,
) -> Result<()> {
    let rows = query("SELECT kind, name, number, digest FROM versions WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let name = state.names.entry(key(row)?).or_default();
        let (number, digest): (i64, Digest) = (row.try_get(2)?, parsed(row, 3)?);
        name.versions.insert(digest, number);
        if name.latest.is_none_or(|(latest, _)| latest < number) {
            name.latest = Some((number, digest));
        }
    }
    Ok(())
}

async fn read_pointers(
    connection: &mut AnyConnection,
    project: ProjectId,
    state: &mut State,
) -> Result<()> {
    let rows = query(
        "SELECT p.kind, p.name, p.label, v.number, v.digest, p.revision
         FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND p.removed = 0",
    )
    .bind(project.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let name = state.names.entry(key(row)?).or_default();
        let pointer = PointerState {
            number: row.try_get(3)?,
            digest: parsed(row, 4)?,
            revision: row.try_get(5)?,
        };
        name.pointers.insert(parsed(row, 2)?, pointer);
    }
    Ok(())
}

async fn read_protections(
    connection: &mut AnyConnection,
    project: ProjectId,
    state: &mut State,
) -> Result<()> {
    let rows = query("SELECT label, rules FROM protections WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let rules: Rules = parsed_json(row, 1)?;
        state.protections.insert(row.try_get(0)?, rules);
    }
    let rows = query("SELECT name FROM environments WHERE project = $1 ORDER BY position, name")
        .bind(project.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let name: String = row.try_get(0)?;
        let rules = state.protections.get(&name);
        let protection = rules
            .filter(|rules| **rules != Rules::default())
            .map(protection_of);
        state.environments.push(Environment { name, protection });
    }
    Ok(())
}

async fn read_waiting(
    connection: &mut AnyConnection,
    project: ProjectId,
    state: &mut State,
) -> Result<()> {
    let rows = query(
        "SELECT kind, name, label, id, digest, pointer_revision FROM proposals
         WHERE project = $1 AND state IN ('open', 'approved') ORDER BY created_at, id",
    )
    .bind(project.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let waiting = Waiting {
            id: row.try_get(3)?,
            digest: parsed(row, 4)?,
            pointer_revision: row.try_get(5)?,
        };
        let of = (key(row)?, parsed::<Label>(row, 2)?);
        state.waiting.entry(of).or_default().push(waiting);
    }
    Ok(())
}

/// The documents with these digests.
pub(super) async fn read_document(
    connection: &mut AnyConnection,
    project: ProjectId,
    digest: &Digest,
) -> Result<Option<Value>> {
    let row = query("SELECT content FROM documents WHERE project = $1 AND digest = $2")
        .bind(project.to_string())
        .bind(digest.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(|row| parsed_json(row, 0)).transpose()?)
}

/// What the documents of a project are, by digest: all of them, for an export.
pub(super) async fn read_documents(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<BTreeMap<Digest, Value>> {
    let rows = query("SELECT digest, content FROM documents WHERE project = $1")
        .bind(project.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((parsed(row, 0)?, parsed_json(row, 1)?)))
        .collect()
}

fn snapshot_setting(project: ProjectId) -> String {
    format!("gitops.applied.{project}")
}

async fn read_snapshot(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Result<Option<Snapshot>> {
    let row = query("SELECT value FROM settings WHERE name = $1")
        .bind(snapshot_setting(project))
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(|row| parsed_json(row, 0)).transpose()?)
}

/// Remembers what an apply left behind.
pub(super) async fn write_snapshot(
    tx: &mut WriteTx,
    scope: Scope,
    snapshot: &Snapshot,
) -> Result<()> {
    let now = tx.db().now_us();
    query(
        "INSERT INTO settings (name, value, updated_by, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value,
            updated_by = excluded.updated_by, updated_at = excluded.updated_at",
    )
    .bind(snapshot_setting(scope.project))
    .bind(json!(snapshot).to_string())
    .bind(scope.actor.to_string())
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What protects a label, without what is as it is by default.
pub(super) fn protection_of(rules: &Rules) -> Value {
    let mut value = json!(rules);
    let defaults = json!(Rules::default());
    if let (Some(map), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) {
        map.retain(|key, value| !value.is_null() && defaults.get(key) != Some(value));
    }
    value
}

/// The rules of an environment of a tree.
pub(super) fn rules_of(environment: &Environment) -> std::result::Result<Rules, String> {
    match &environment.protection {
        None => Ok(Rules::default()),
        Some(value) => serde_json::from_value(value.clone()).map_err(|error| error.to_string()),
    }
}

/// An environment as it is compared: its rules checked and without what is by default.
pub(super) fn check_environment(
    mut environment: Environment,
) -> std::result::Result<Environment, String> {
    environment
        .name
        .parse::<Label>()
        .map_err(|problem| problem.message)?;
    let rules = rules_of(&environment)?;
    rules.check().map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("; ")
    })?;
    environment.protection = (rules != Rules::default()).then(|| protection_of(&rules));
    Ok(environment)
}

/// The JSON Schema of a protection.
pub(super) fn protection_schema() -> Value {
    json!({
        "type": "object",
        "description": "What a move of the label needs. Nobody approves their own.",
        "additionalProperties": false,
        "properties": {
            "approvals": {"type": "integer", "minimum": 0, "description": "How many people must approve a move."},
            "approver_roles": {"type": "array", "items": {"type": "string"}, "description": "In which roles; empty for all that may approve."},
            "gates": {"type": "array", "description": "What must be shown of the content before.", "items": {
                "type": "object",
                "additionalProperties": false,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "required": {"type": "boolean", "default": true},
                    "min_s": {"type": "integer", "minimum": 0},
                },
            }},
            "delivery": {"enum": ["manual", "auto"], "description": "Whether content moves here by itself once its gates pass."},
            "expires_after_s": {"type": "integer", "description": "How long a proposal stays open."},
        },
    })
}
