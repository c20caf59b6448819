//! Promotion's SQL: one function per statement, each with the project in its `WHERE`.

use std::collections::{BTreeSet, HashMap};

use base::{Digest, ProjectId};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{
    Approval, Delivery, Evidence, Proposal, ProposalFilter, ProposalState, Protection, Quarantine,
    Rules, Verdict,
};
use crate::DbError;
use crate::catalog::{Name, Pointer};
use crate::rows::{json, parsed, pointer_of_row};

type Rows<T> = Result<Vec<T>, DbError>;

fn to_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

// Environments and protections.

pub(super) async fn environments(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Rows<String> {
    let rows =
        sqlx::query("SELECT name FROM environments WHERE project = $1 ORDER BY position, name")
            .bind(project.to_string())
            .fetch_all(connection)
            .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) async fn insert_environment(
    connection: &mut AnyConnection,
    project: ProjectId,
    name: &str,
    position: i64,
    now_us: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO environments (project, name, position, created_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(project.to_string())
    .bind(name)
    .bind(position)
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn set_position(
    connection: &mut AnyConnection,
    project: ProjectId,
    name: &str,
    position: i64,
) -> Result<(), DbError> {
    sqlx::query("UPDATE environments SET position = $3 WHERE project = $1 AND name = $2")
        .bind(project.to_string())
        .bind(name)
        .bind(position)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn protections(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Rows<Protection> {
    let rows = sqlx::query(
        "SELECT label, rules, revision, updated_by, updated_at FROM protections
         WHERE project = $1 ORDER BY label",
    )
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    rows.iter().map(protection_of).collect()
}

pub(super) async fn protection(
    connection: &mut AnyConnection,
    project: ProjectId,
    label: &str,
) -> Result<Option<Protection>, DbError> {
    let row = sqlx::query(
        "SELECT label, rules, revision, updated_by, updated_at FROM protections
         WHERE project = $1 AND label = $2",
    )
    .bind(project.to_string())
    .bind(label)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(protection_of).transpose()
}

fn protection_of(row: &AnyRow) -> Result<Protection, DbError> {
    Ok(Protection {
        label: row.try_get(0)?,
        rules: json(row, 1)?,
        revision: row.try_get(2)?,
        updated_by: row.try_get(3)?,
        updated_at: row.try_get(4)?,
    })
}

pub(super) async fn put_protection(
    connection: &mut AnyConnection,
    project: ProjectId,
    protection: &Protection,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO protections (project, label, rules, revision, updated_by, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (project, label) DO UPDATE SET rules = excluded.rules, revision = excluded.revision,
             updated_by = excluded.updated_by, updated_at = excluded.updated_at",
    )
    .bind(project.to_string())
    .bind(&protection.label)
    .bind(to_text(&protection.rules))
    .bind(protection.revision)
    .bind(&protection.updated_by)
    .bind(protection.updated_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Projects in which something may happen by itself: a proposal waits, or a label is moved on automatically.
pub(super) async fn busy_projects(
    connection: &mut AnyConnection,
) -> Result<BTreeSet<ProjectId>, DbError> {
    let mut busy = BTreeSet::new();
    let rows =
        sqlx::query("SELECT DISTINCT project FROM proposals WHERE state IN ('open', 'approved')")
            .fetch_all(&mut *connection)
            .await?;
    for row in &rows {
        busy.insert(parsed(row, 0)?);
    }
    let rows = sqlx::query("SELECT project, rules FROM protections")
        .fetch_all(connection)
        .await?;
    for row in &rows {
        if json::<Rules>(row, 1)?.delivery == Delivery::Auto {
            busy.insert(parsed(row, 0)?);
        }
    }
    Ok(busy)
}

// Pointers, as promotion looks at them.

/// A pointer's row, also of one that was removed: its revision goes on counting.
pub(super) struct Standing {
    pub(super) pointer: Pointer,
    pub(super) removed: bool,
    /// What its last move was: `move`, `rollback`, `remove`.
    pub(super) last_action: String,
}

impl Standing {
    pub(super) fn live(&self) -> Option<&Pointer> {
        (!self.removed).then_some(&self.pointer)
    }
}

fn standing(row: &AnyRow) -> Result<Standing, DbError> {
    Ok(Standing {
        pointer: pointer_of_row(row)?,
        removed: row.try_get::<i64, _>(10)? != 0,
        last_action: row.try_get(11)?,
    })
}

pub(super) async fn pointer(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    label: &str,
) -> Result<Option<Standing>, DbError> {
    let row = sqlx::query(
        "SELECT p.id, p.kind, p.name, p.label, v.number, v.id, v.digest, p.revision, p.moved_by, p.moved_at,
                p.removed, m.action
         FROM pointers p JOIN versions v ON v.id = p.version_id
         JOIN moves m ON m.pointer_id = p.id AND m.revision = p.revision
         WHERE p.project = $1 AND p.kind = $2 AND p.name = $3 AND p.label = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(label)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(standing).transpose()
}

/// The pointers that are environments, of one kind or (`''`) all, of the names in the range.
pub(super) async fn environment_pointers(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    range: &Range,
) -> Rows<Standing> {
    let rows = sqlx::query(
        "SELECT p.id, p.kind, p.name, p.label, v.number, v.id, v.digest, p.revision, p.moved_by, p.moved_at,
                p.removed, m.action
         FROM pointers p JOIN versions v ON v.id = p.version_id
         JOIN moves m ON m.pointer_id = p.id AND m.revision = p.revision
         JOIN environments e ON e.project = p.project AND e.name = p.label
         WHERE p.project = $1 AND ($2 = '' OR p.kind = $2) AND ($3 = '' OR (p.name >= $3 AND p.name <= $4))",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(&range.first)
    .bind(&range.last)
    .fetch_all(connection)
    .await?;
    rows.iter().map(standing).collect()
}

/// Names from one to another, both included; empty for all.
#[derive(Debug, Clone, Default)]
pub(super) struct Range {
    pub(super) first: String,
    pub(super) last: String,
}

impl Range {
    pub(super) fn one(name: &Name) -> Self {
        Self {
            first: name.to_string(),
            last: name.to_string(),
        }
    }
}

/// One line of a pointer's history.
pub(super) struct Past {
    pub(super) number: i64,
    pub(super) digest: Digest,
    pub(super) action: String,
}

/// A pointer's history, oldest first.
pub(super) async fn history(
    connection: &mut AnyConnection,
    project: ProjectId,
    pointer: &Pointer,
) -> Rows<Past> {
    let rows = sqlx::query(
        "SELECT v.number, v.digest, m.action FROM moves m JOIN versions v ON v.id = m.to_version
         WHERE m.pointer_id = $1 AND v.project = $2 ORDER BY m.revision",
    )
    .bind(pointer.id.to_string())
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    let past = |row: &AnyRow| {
        Ok(Past {
            number: row.try_get(0)?,
            digest: parsed(row, 1)?,
            action: row.try_get(2)?,
        })
    };
    rows.iter().map(past).collect()
}

/// What promotion needs to know of a version.
pub(super) struct VersionRow {
    pub(super) number: i64,
    pub(super) digest: Digest,
    pub(super) author: String,
}

fn version_row(row: &AnyRow) -> Result<VersionRow, DbError> {
    Ok(VersionRow {
        number: row.try_get(0)?,
        digest: parsed(row, 1)?,
        author: row.try_get(2)?,
    })
}

pub(super) async fn version(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    number: i64,
) -> Result<Option<VersionRow>, DbError> {
    let row = sqlx::query(
        "SELECT number, digest, author FROM versions
         WHERE project = $1 AND kind = $2 AND name = $3 AND number = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(number)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version_row).transpose()
}

pub(super) async fn version_of_digest(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    digest: &Digest,
) -> Result<Option<VersionRow>, DbError> {
    let row = sqlx::query(
        "SELECT number, digest, author FROM versions
         WHERE project = $1 AND kind = $2 AND name = $3 AND digest = $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(digest.to_string())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version_row).transpose()
}

/// Name, newest version and its content, of names that are not deleted, after this one.
pub(super) async fn newest_versions(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    after: &str,
    limit: i64,
) -> Rows<(Name, i64, Digest)> {
    let rows = sqlx::query(
        "SELECT n.name, v.number, v.digest FROM names n
         JOIN versions v ON v.project = n.project AND v.kind = n.kind AND v.name = n.name AND v.number = n.latest
         WHERE n.project = $1 AND n.kind = $2 AND n.name > $3 AND n.deleted_at IS NULL
         ORDER BY n.name LIMIT $4",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(after)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((parsed(row, 0)?, row.try_get(1)?, parsed(row, 2)?)))
        .collect()
}

/// Who made a key.
pub(super) async fn key_creator(
    connection: &mut AnyConnection,
    project: ProjectId,
    key: &str,
) -> Result<Option<String>, DbError> {
    let row = sqlx::query("SELECT created_by FROM api_keys WHERE project = $1 AND id = $2")
        .bind(project.to_string())
        .bind(key)
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(|row| row.try_get(0)).transpose()?)
}

// Proposals and approvals.

pub(super) async fn insert_proposal(
    connection: &mut AnyConnection,
    project: ProjectId,
    proposal: &Proposal,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO proposals (id, project, kind, name, label, number, digest, from_number, pointer_revision,
                                rules, author, excluded, reason, state, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(&proposal.id)
    .bind(project.to_string())
    .bind(&proposal.kind)
    .bind(proposal.name.as_str())
    .bind(&proposal.label)
    .bind(proposal.number)
    .bind(proposal.digest.to_string())
    .bind(proposal.from)
    .bind(proposal.pointer_revision)
    .bind(to_text(&proposal.rules))
    .bind(&proposal.author)
    .bind(to_text(&proposal.excluded))
    .bind(&proposal.reason)
    .bind(proposal.state.name())
    .bind(proposal.created_at)
    .bind(proposal.expires_at)
    .execute(connection)
    .await?;
    Ok(())
}

/// With the rules of its beginning, and without approvals.
fn proposal_of(row: &AnyRow) -> Result<Proposal, DbError> {
    Ok(Proposal {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        name: parsed(row, 2)?,
        label: row.try_get(3)?,
        number: row.try_get(4)?,
        digest: parsed(row, 5)?,
        from: row.try_get(6)?,
        pointer_revision: row.try_get(7)?,
        rules: json::<Rules>(row, 8)?,
        author: row.try_get(9)?,
        excluded: json(row, 10)?,
        reason: row.try_get(11)?,
        state: parsed(row, 12)?,
        created_at: row.try_get(13)?,
        expires_at: row.try_get(14)?,
        closed_by: row.try_get(15)?,
        closed_at: row.try_get(16)?,
        close_reason: row.try_get(17)?,
        approvals: Vec::new(),
    })
}

pub(super) async fn proposal(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: &str,
) -> Result<Option<Proposal>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, name, label, number, digest, from_number, pointer_revision, rules, author, excluded,
                reason, state, created_at, expires_at, closed_by, closed_at, close_reason
         FROM proposals WHERE project = $1 AND id = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(proposal_of).transpose()
}

/// Those that wait, of one kind or (`''`) all and of the names in the range, oldest first.
pub(super) async fn waiting(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    range: &Range,
) -> Rows<Proposal> {
    let rows = sqlx::query(
        "SELECT id, kind, name, label, number, digest, from_number, pointer_revision, rules, author, excluded,
                reason, state, created_at, expires_at, closed_by, closed_at, close_reason
         FROM proposals
         WHERE project = $1 AND state IN ('open', 'approved') AND ($2 = '' OR kind = $2)
           AND ($3 = '' OR (name >= $3 AND name <= $4))
         ORDER BY created_at, id",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(&range.first)
    .bind(&range.last)
    .fetch_all(connection)
    .await?;
    rows.iter().map(proposal_of).collect()
}

pub(super) async fn count_waiting(
    connection: &mut AnyConnection,
    project: ProjectId,
    now_us: i64,
) -> Result<i64, DbError> {
    let row = sqlx::query(
        "SELECT COUNT(*) FROM proposals WHERE project = $1 AND state = 'open'
           AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(project.to_string())
    .bind(now_us)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get(0)?)
}

/// Newest first.
pub(super) async fn proposals_before(
    connection: &mut AnyConnection,
    project: ProjectId,
    filter: &ProposalFilter,
    before: &(i64, String),
    limit: i64,
) -> Rows<Proposal> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let waiting = match filter.waiting {
        None => 0_i64,
        Some(true) => 1,
        Some(false) => 2,
    };
    let rows = sqlx::query(
        "SELECT id, kind, name, label, number, digest, from_number, pointer_revision, rules, author, excluded,
                reason, state, created_at, expires_at, closed_by, closed_at, close_reason
         FROM proposals
         WHERE project = $1 AND (created_at < $2 OR (created_at = $2 AND id < $3))
           AND ($4 = '' OR state = $4) AND ($5 = '' OR kind = $5) AND ($6 = '' OR name = $6)
           AND ($7 = '' OR label = $7) AND ($8 = '' OR author = $8)
           AND ($9 <> 1 OR state IN ('open', 'approved')) AND ($9 <> 2 OR state NOT IN ('open', 'approved'))
         ORDER BY created_at DESC, id DESC LIMIT $10",
    )
    .bind(project.to_string())
    .bind(before.0)
    .bind(&before.1)
    .bind(filter.state.map(ProposalState::name).unwrap_or_default())
    .bind(text(&filter.kind))
    .bind(filter.name.as_ref().map(ToString::to_string).unwrap_or_default())
    .bind(text(&filter.label))
    .bind(text(&filter.author))
    .bind(waiting)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    rows.iter().map(proposal_of).collect()
}

/// Whether content was ever proposed for a label at or after this time.
pub(super) async fn was_proposed_since(
    connection: &mut AnyConnection,
    project: ProjectId,
    pointer: (&str, &Name, &str),
    digest: &Digest,
    since: i64,
) -> Result<bool, DbError> {
    let (kind, name, label) = pointer;
    let row = sqlx::query(
        "SELECT COUNT(*) FROM proposals
         WHERE project = $1 AND kind = $2 AND name = $3 AND label = $4 AND digest = $5 AND created_at >= $6",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(label)
    .bind(digest.to_string())
    .bind(since)
    .fetch_one(connection)
    .await?;
    Ok(row.try_get::<i64, _>(0)? > 0)
}

/// Writes what may change of a proposal.
pub(super) async fn update_proposal(
    connection: &mut AnyConnection,
    project: ProjectId,
    proposal: &Proposal,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE proposals SET state = $3, closed_by = $4, closed_at = $5, close_reason = $6
         WHERE project = $1 AND id = $2",
    )
    .bind(project.to_string())
    .bind(&proposal.id)
    .bind(proposal.state.name())
    .bind(proposal.closed_by.as_deref())
    .bind(proposal.closed_at)
    .bind(&proposal.close_reason)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn put_approval(
    connection: &mut AnyConnection,
    proposal: &str,
    approval: &Approval,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO approvals (proposal, actor, verdict, role, reason, at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (proposal, actor) DO UPDATE SET verdict = excluded.verdict, role = excluded.role,
             reason = excluded.reason, at = excluded.at",
    )
    .bind(proposal)
    .bind(&approval.actor)
    .bind(match approval.verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
    })
    .bind(&approval.role)
    .bind(&approval.reason)
    .bind(approval.at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds their approvals to proposals, oldest first, with one query.
pub(super) async fn add_approvals(
    connection: &mut AnyConnection,
    project: ProjectId,
    proposals: &mut [Proposal],
) -> Result<(), DbError> {
    let times = || proposals.iter().map(|proposal| proposal.created_at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Ok(());
    };
    let rows = sqlx::query(
        "SELECT a.proposal, a.actor, a.verdict, a.role, a.reason, a.at
         FROM approvals a JOIN proposals p ON p.id = a.proposal
         WHERE p.project = $1 AND p.created_at >= $2 AND p.created_at <= $3 ORDER BY a.at, a.actor",
    )
    .bind(project.to_string())
    .bind(first)
    .bind(last)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<String, Vec<Approval>> = HashMap::new();
    for row in &rows {
        let verdict: String = row.try_get(2)?;
        let approval = Approval {
            actor: row.try_get(1)?,
            verdict: if verdict == "approve" {
                Verdict::Approve
            } else {
                Verdict::Reject
            },
            role: row.try_get(3)?,
            reason: row.try_get(4)?,
            at: row.try_get(5)?,
        };
        found.entry(row.try_get(0)?).or_default().push(approval);
    }
    for proposal in proposals {
        proposal.approvals = found.remove(&proposal.id).unwrap_or_default();
    }
    Ok(())
}

// Evidence.

pub(super) async fn insert_evidence(
    connection: &mut AnyConnection,
    project: ProjectId,
    evidence: &Evidence,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO evidence (id, project, kind, name, digest, gate, outcome, detail, link, actor, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(&evidence.id)
    .bind(project.to_string())
    .bind(&evidence.kind)
    .bind(evidence.name.as_str())
    .bind(evidence.digest.to_string())
    .bind(&evidence.gate)
    .bind(evidence.outcome.name())
    .bind(to_text(&evidence.detail))
    .bind(&evidence.link)
    .bind(&evidence.actor)
    .bind(evidence.at)
    .execute(connection)
    .await?;
    Ok(())
}

fn evidence_of(row: &AnyRow) -> Result<Evidence, DbError> {
    Ok(Evidence {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        name: parsed(row, 2)?,
        digest: parsed(row, 3)?,
        gate: row.try_get(4)?,
        outcome: parsed(row, 5)?,
        detail: json(row, 6)?,
        link: row.try_get(7)?,
        actor: row.try_get(8)?,
        at: row.try_get(9)?,
    })
}

/// The newest evidence of each content and gate, of the names in the range.
pub(super) async fn newest_evidence(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    range: &Range,
) -> Rows<Evidence> {
    let rows = sqlx::query(
        "SELECT e.id, e.kind, e.name, e.digest, e.gate, e.outcome, e.detail, e.link, e.actor, e.at FROM evidence e
         WHERE e.project = $1 AND e.kind = $2 AND ($3 = '' OR (e.name >= $3 AND e.name <= $4))
           AND NOT EXISTS (SELECT 1 FROM evidence n
               WHERE n.project = e.project AND n.kind = e.kind AND n.name = e.name AND n.digest = e.digest
                 AND n.gate = e.gate AND (n.at > e.at OR (n.at = e.at AND n.id > e.id)))",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(&range.first)
    .bind(&range.last)
    .fetch_all(connection)
    .await?;
    rows.iter().map(evidence_of).collect()
}

/// Which evidence a list shows; empty texts match everything.
pub(super) struct EvidenceQuery<'a> {
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) digest: &'a str,
    pub(super) gate: &'a str,
}

/// Newest first.
pub(super) async fn evidence_before(
    connection: &mut AnyConnection,
    project: ProjectId,
    query: &EvidenceQuery<'_>,
    before: &(i64, String),
    limit: i64,
) -> Rows<Evidence> {
    let rows = sqlx::query(
        "SELECT id, kind, name, digest, gate, outcome, detail, link, actor, at FROM evidence
         WHERE project = $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR name = $3) AND ($4 = '' OR digest = $4)
           AND ($5 = '' OR gate = $5) AND (at < $6 OR (at = $6 AND id < $7))
         ORDER BY at DESC, id DESC LIMIT $8",
    )
    .bind(project.to_string())
    .bind(query.kind)
    .bind(query.name)
    .bind(query.digest)
    .bind(query.gate)
    .bind(before.0)
    .bind(&before.1)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    rows.iter().map(evidence_of).collect()
}

// Quarantine.

fn quarantine_of(row: &AnyRow) -> Result<Quarantine, DbError> {
    Ok(Quarantine {
        id: row.try_get(0)?,
        kind: row.try_get(1)?,
        name: parsed(row, 2)?,
        number: row.try_get(3)?,
        digest: parsed(row, 4)?,
        reason: row.try_get(5)?,
        actor: row.try_get(6)?,
        at: row.try_get(7)?,
        lifted_by: row.try_get(8)?,
        lifted_at: row.try_get(9)?,
        lift_reason: row.try_get(10)?,
    })
}

pub(super) async fn insert_quarantine(
    connection: &mut AnyConnection,
    project: ProjectId,
    quarantine: &Quarantine,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO quarantines (id, project, kind, name, number, digest, reason, actor, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&quarantine.id)
    .bind(project.to_string())
    .bind(&quarantine.kind)
    .bind(quarantine.name.as_str())
    .bind(quarantine.number)
    .bind(quarantine.digest.to_string())
    .bind(&quarantine.reason)
    .bind(&quarantine.actor)
    .bind(quarantine.at)
    .execute(connection)
    .await?;
    Ok(())
}

/// The quarantine in force for this content of a name.
pub(super) async fn active_quarantine(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    name: &Name,
    digest: &Digest,
) -> Result<Option<Quarantine>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, name, number, digest, reason, actor, at, lifted_by, lifted_at, lift_reason
         FROM quarantines
         WHERE project = $1 AND kind = $2 AND name = $3 AND digest = $4 AND lifted_at IS NULL",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(name.as_str())
    .bind(digest.to_string())
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(quarantine_of).transpose()
}

/// Every quarantine in force.
pub(super) async fn active_quarantines(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Rows<Quarantine> {
    let rows = sqlx::query(
        "SELECT id, kind, name, number, digest, reason, actor, at, lifted_by, lifted_at, lift_reason
         FROM quarantines WHERE project = $1 AND lifted_at IS NULL ORDER BY at, id",
    )
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    rows.iter().map(quarantine_of).collect()
}

pub(super) async fn quarantine(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: &str,
) -> Result<Option<Quarantine>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, name, number, digest, reason, actor, at, lifted_by, lifted_at, lift_reason
         FROM quarantines WHERE project = $1 AND id = $2",
    )
    .bind(project.to_string())
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(quarantine_of).transpose()
}

/// Newest first, of one kind or (`''`) all; `active` leaves out those that were lifted.
pub(super) async fn quarantines_before(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    active: bool,
    before: &(i64, String),
    limit: i64,
) -> Rows<Quarantine> {
    let rows = sqlx::query(
        "SELECT id, kind, name, number, digest, reason, actor, at, lifted_by, lifted_at, lift_reason
         FROM quarantines
         WHERE project = $1 AND ($2 = '' OR kind = $2) AND ($3 = 0 OR lifted_at IS NULL)
           AND (at < $4 OR (at = $4 AND id < $5))
         ORDER BY at DESC, id DESC LIMIT $6",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(i64::from(active))
    .bind(before.0)
    .bind(&before.1)
    .bind(limit + 1)
    .fetch_all(connection)
    .await?;
    rows.iter().map(quarantine_of).collect()
}

pub(super) async fn lift_quarantine(
    connection: &mut AnyConnection,
    project: ProjectId,
    id: &str,
    lifted: (&str, i64, &str),
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE quarantines SET lifted_by = $3, lifted_at = $4, lift_reason = $5
         WHERE project = $1 AND id = $2 AND lifted_at IS NULL",
    )
    .bind(project.to_string())
    .bind(id)
    .bind(lifted.0)
    .bind(lifted.1)
    .bind(lifted.2)
    .execute(connection)
    .await?;
    Ok(())
}

// What the built-in gates look at.

/// How long content stayed somewhere: one move of an environment's pointer.
pub(super) struct Stay {
    pub(super) name: Name,
    pub(super) label: String,
    pub(super) digest: Digest,
    pub(super) action: String,
    pub(super) moved_at: i64,
}

/// Every move of the pointers that are environments, in order for each of them.
pub(super) async fn stays(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    range: &Range,
) -> Rows<Stay> {
    let rows = sqlx::query(
        "SELECT p.name, p.label, v.digest, m.action, m.moved_at
         FROM moves m JOIN pointers p ON p.id = m.pointer_id JOIN versions v ON v.id = m.to_version
         JOIN environments e ON e.project = p.project AND e.name = p.label
         WHERE p.project = $1 AND p.kind = $2 AND ($3 = '' OR (p.name >= $3 AND p.name <= $4))
         ORDER BY p.name, p.label, m.revision",
    )
    .bind(project.to_string())
    .bind(kind)
    .bind(&range.first)
    .bind(&range.last)
    .fetch_all(connection)
    .await?;
    let stay = |row: &AnyRow| {
        Ok(Stay {
            name: parsed(row, 0)?,
            label: row.try_get(1)?,
            digest: parsed(row, 2)?,
            action: row.try_get(3)?,
            moved_at: row.try_get(4)?,
        })
    };
    rows.iter().map(stay).collect()
}

/// A document's mention of a name: its kind and digest, then kind, name and selector of the other.
pub(super) type Mention = ((String, String), (String, String), String);

pub(super) async fn mentions(connection: &mut AnyConnection, project: ProjectId) -> Rows<Mention> {
    let rows = sqlx::query(
        "SELECT kind, digest, to_kind, to_name, selector FROM document_references WHERE project = $1",
    )
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    let mention = |row: &AnyRow| {
        Ok((
            (row.try_get(0)?, row.try_get(1)?),
            (row.try_get(2)?, row.try_get(3)?),
            row.try_get(4)?,
        ))
    };
    rows.iter().map(mention).collect()
}

/// Kind, name, number and digest of every version of the names that documents mention.
pub(super) async fn mentioned_versions(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Rows<(String, String, i64, String)> {
    let rows = sqlx::query(
        "SELECT v.kind, v.name, v.number, v.digest FROM versions v
         WHERE v.project = $1 AND EXISTS (SELECT 1 FROM document_references r
             WHERE r.project = v.project AND r.to_kind = v.kind AND r.to_name = v.name)",
    )
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    let version = |row: &AnyRow| {
        Ok((
            row.try_get(0)?,
            row.try_get(1)?,
            row.try_get(2)?,
            row.try_get(3)?,
        ))
    };
    rows.iter().map(version).collect()
}

/// Kind, name, label and digest of every pointer of the names that documents mention.
pub(super) async fn mentioned_pointers(
    connection: &mut AnyConnection,
    project: ProjectId,
) -> Rows<(String, String, String, String)> {
    let rows = sqlx::query(
        "SELECT p.kind, p.name, p.label, v.digest FROM pointers p JOIN versions v ON v.id = p.version_id
         WHERE p.project = $1 AND p.removed = 0 AND EXISTS (SELECT 1 FROM document_references r
             WHERE r.project = p.project AND r.to_kind = p.kind AND r.to_name = p.name)",
    )
    .bind(project.to_string())
    .fetch_all(connection)
    .await?;
    let pointer = |row: &AnyRow| {
        Ok((
            row.try_get(0)?,
            row.try_get(1)?,
            row.try_get(2)?,
            row.try_get(3)?,
        ))
    };
    rows.iter().map(pointer).collect()
}
