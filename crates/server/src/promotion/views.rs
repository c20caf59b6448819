//! The JSON of promotion: what `db::promotion` knows, with a schema.

use db::promotion::{
    Approval, BoardCell, BoardRow, Candidate, Delivery, Environment, Environments, Evidence,
    GateOutcome, GateReport, GateRule, GateState, Outcome, Proposal, ProposalState, Protection,
    Quarantine, Rules, Verdict,
};
use db::{Pointer, catalog};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What protects a label.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RulesBody {
    /// How many people must approve a move; never who asked for it.
    #[serde(default)]
    pub(crate) approvals: u32,
    /// In which roles; empty for every role that may approve.
    #[serde(default)]
    pub(crate) approver_roles: Vec<String>,
    /// What must be shown of the content before.
    #[serde(default)]
    pub(crate) gates: Vec<GateBody>,
    /// `manual`, or `auto`: content that passes the gates moves here by itself.
    #[serde(default)]
    pub(crate) delivery: DeliveryBody,
    /// How long a proposal stays open, in seconds; for ever when nothing is said.
    pub(crate) expires_after_s: Option<i64>,
}

/// One gate of a label.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateBody {
    /// `resolves`, `earlier_environment`, or the name that evidence is given under.
    pub(crate) name: String,
    /// Whether it holds a move up; otherwise it only informs.
    #[serde(default = "yes")]
    pub(crate) required: bool,
    /// For `earlier_environment`: how long the content must have been there, in seconds.
    #[serde(default)]
    pub(crate) min_s: i64,
}

fn yes() -> bool {
    true
}

/// Who begins a move.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryBody {
    /// A person or a program.
    #[default]
    Manual,
    /// The server, once the gates pass in the environment before.
    Auto,
}

impl From<RulesBody> for Rules {
    fn from(body: RulesBody) -> Self {
        let gate = |gate: GateBody| GateRule {
            name: gate.name,
            required: gate.required,
            min_s: gate.min_s,
        };
        Self {
            approvals: body.approvals,
            approver_roles: body.approver_roles,
            gates: body.gates.into_iter().map(gate).collect(),
            delivery: match body.delivery {
                DeliveryBody::Manual => Delivery::Manual,
                DeliveryBody::Auto => Delivery::Auto,
            },
            expires_after_s: body.expires_after_s,
        }
    }
}

impl From<Rules> for RulesBody {
    fn from(rules: Rules) -> Self {
        let gate = |gate: GateRule| GateBody {
            name: gate.name,
            required: gate.required,
            min_s: gate.min_s,
        };
        Self {
            approvals: rules.approvals,
            approver_roles: rules.approver_roles,
            gates: rules.gates.into_iter().map(gate).collect(),
            delivery: match rules.delivery {
                Delivery::Manual => DeliveryBody::Manual,
                Delivery::Auto => DeliveryBody::Auto,
            },
            expires_after_s: rules.expires_after_s,
        }
    }
}

/// What protects one label, and since when.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProtectionView {
    /// The label.
    label: String,
    /// What is asked of a move.
    rules: RulesBody,
    /// Counts the changes; send it back as `expected_revision`.
    revision: i64,
    /// Who changed it last.
    updated_by: String,
    /// When, microseconds since the epoch.
    updated_at: i64,
}

impl From<Protection> for ProtectionView {
    fn from(known: Protection) -> Self {
        Self {
            label: known.label,
            rules: known.rules.into(),
            revision: known.revision,
            updated_by: known.updated_by,
            updated_at: known.updated_at,
        }
    }
}

/// A label with a place in the order that content moves through.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct EnvironmentView {
    /// Its name, which is the label.
    pub(crate) name: String,
    /// What protects it.
    pub(crate) protection: Option<ProtectionView>,
}

impl From<Environment> for EnvironmentView {
    fn from(environment: Environment) -> Self {
        Self {
            name: environment.name,
            protection: environment.protection.map(ProtectionView::from),
        }
    }
}

/// The environments and the protected labels beside them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct EnvironmentsView {
    /// In their order.
    pub(crate) items: Vec<EnvironmentView>,
    /// Protected labels that are no environments.
    labels: Vec<ProtectionView>,
}

impl From<Environments> for EnvironmentsView {
    fn from(all: Environments) -> Self {
        Self {
            items: all.environments.into_iter().map(Into::into).collect(),
            labels: all.labels.into_iter().map(Into::into).collect(),
        }
    }
}

/// Where a label points.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PointerView {
    /// The label.
    label: String,
    /// The version.
    version: i64,
    /// The content's identity.
    digest: String,
    /// Counts the moves; send it back as `expected_revision`.
    revision: i64,
    /// Who moved it last.
    moved_by: String,
    /// When, microseconds since the epoch.
    moved_at: i64,
}

impl From<Pointer> for PointerView {
    fn from(pointer: Pointer) -> Self {
        Self {
            label: pointer.label,
            version: pointer.number,
            digest: pointer.digest.to_string(),
            revision: pointer.revision,
            moved_by: pointer.moved_by,
            moved_at: pointer.moved_at,
        }
    }
}

/// Where a proposal is on its way.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateView {
    /// Waits for approvals.
    Open,
    /// Approved; waits for its gates.
    Approved,
    /// Carried out.
    Applied,
    /// Somebody who may approve said no.
    Rejected,
    /// Its author took it back.
    Withdrawn,
    /// The label moved meanwhile.
    Superseded,
    /// Nobody decided in time.
    Expired,
    /// The label was rolled back, or the content quarantined.
    Cancelled,
}

impl From<ProposalState> for StateView {
    fn from(state: ProposalState) -> Self {
        match state {
            ProposalState::Open => Self::Open,
            ProposalState::Approved => Self::Approved,
            ProposalState::Applied => Self::Applied,
            ProposalState::Rejected => Self::Rejected,
            ProposalState::Withdrawn => Self::Withdrawn,
            ProposalState::Superseded => Self::Superseded,
            ProposalState::Expired => Self::Expired,
            ProposalState::Cancelled => Self::Cancelled,
        }
    }
}

/// A move that waits for approvals or gates, or did.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ProposalView {
    /// Names it.
    pub(crate) id: String,
    /// The document kind.
    pub(crate) kind: String,
    /// The name.
    pub(crate) name: String,
    /// The label to move.
    pub(crate) label: String,
    /// The version to move it to.
    pub(crate) version: i64,
    /// The content that is approved.
    digest: String,
    /// The version that the label pointed to.
    pub(crate) from: Option<i64>,
    /// The label's revision that it is bound to.
    pointer_revision: i64,
    /// What counts for it: the stricter of the rules at its beginning and today's.
    rules: RulesBody,
    /// Who asked.
    pub(crate) author: String,
    /// Who cannot approve it.
    excluded: Vec<String>,
    /// Why.
    pub(crate) reason: String,
    /// Where it is on its way.
    pub(crate) state: StateView,
    /// How many approvals count so far.
    approved: usize,
    /// When it was made, microseconds since the epoch.
    created_at: i64,
    /// When it ends by itself, microseconds since the epoch.
    expires_at: Option<i64>,
    /// Who ended it.
    closed_by: Option<String>,
    /// When it ended, microseconds since the epoch.
    closed_at: Option<i64>,
    /// Why it ended.
    close_reason: String,
    /// What people said.
    approvals: Vec<ApprovalView>,
}

impl From<Proposal> for ProposalView {
    fn from(proposal: Proposal) -> Self {
        Self {
            approved: proposal.approved_by(),
            id: proposal.id,
            kind: proposal.kind,
            name: proposal.name.to_string(),
            label: proposal.label,
            version: proposal.number,
            digest: proposal.digest.to_string(),
            from: proposal.from,
            pointer_revision: proposal.pointer_revision,
            rules: proposal.rules.into(),
            author: proposal.author,
            excluded: proposal.excluded,
            reason: proposal.reason,
            state: proposal.state.into(),
            created_at: proposal.created_at,
            expires_at: proposal.expires_at,
            closed_by: proposal.closed_by,
            closed_at: proposal.closed_at,
            close_reason: proposal.close_reason,
            approvals: proposal.approvals.into_iter().map(Into::into).collect(),
        }
    }
}

/// What one person said.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ApprovalView {
    /// Who.
    actor: String,
    /// `approve` or `reject`.
    verdict: VerdictView,
    /// In which role.
    role: String,
    /// Why.
    reason: String,
    /// When, microseconds since the epoch.
    at: i64,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictView {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        Self {
            actor: approval.actor,
            verdict: match approval.verdict {
                Verdict::Approve => VerdictView::Approve,
                Verdict::Reject => VerdictView::Reject,
            },
            role: approval.role,
            reason: approval.reason,
            at: approval.at,
        }
    }
}

/// What evidence says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeBody {
    /// Good enough.
    Pass,
    /// Not good enough.
    Fail,
    /// Not known: never a pass.
    Inconclusive,
}

impl From<OutcomeBody> for Outcome {
    fn from(outcome: OutcomeBody) -> Self {
        match outcome {
            OutcomeBody::Pass => Self::Pass,
            OutcomeBody::Fail => Self::Fail,
            OutcomeBody::Inconclusive => Self::Inconclusive,
        }
    }
}

/// What somebody found out about content.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct EvidenceView {
    /// Names it.
    id: String,
    /// The document kind.
    kind: String,
    /// The name.
    name: String,
    /// The content.
    digest: String,
    /// The gate that it is for.
    gate: String,
    /// What it says.
    outcome: OutcomeBody,
    /// The figures behind it.
    detail: Value,
    /// Where to read more.
    link: String,
    /// Who gave it.
    actor: String,
    /// When, microseconds since the epoch.
    at: i64,
}

impl From<Evidence> for EvidenceView {
    fn from(evidence: Evidence) -> Self {
        Self {
            id: evidence.id,
            kind: evidence.kind,
            name: evidence.name.to_string(),
            digest: evidence.digest.to_string(),
            gate: evidence.gate,
            outcome: match evidence.outcome {
                Outcome::Pass => OutcomeBody::Pass,
                Outcome::Fail => OutcomeBody::Fail,
                Outcome::Inconclusive => OutcomeBody::Inconclusive,
            },
            detail: evidence.detail,
            link: evidence.link,
            actor: evidence.actor,
            at: evidence.at,
        }
    }
}

/// How one gate stands.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GateOutcomeView {
    /// Passed.
    Pass,
    /// Looked at, and bad.
    Fail,
    /// Looked at, and not known.
    Inconclusive,
    /// Nobody gave evidence.
    Missing,
    /// Passes by itself later.
    Waiting,
}

/// One gate of a label, for one content.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct GateView {
    /// The gate's name.
    name: String,
    /// Whether it holds a move up.
    required: bool,
    /// How it stands.
    outcome: GateOutcomeView,
    /// Why, in words.
    why: String,
    /// When a gate that waits will pass, microseconds since the epoch.
    passes_at: Option<i64>,
    /// The evidence that counts.
    evidence: Option<EvidenceView>,
}

impl From<GateState> for GateView {
    fn from(state: GateState) -> Self {
        Self {
            name: state.name,
            required: state.required,
            outcome: match state.outcome {
                GateOutcome::Pass => GateOutcomeView::Pass,
                GateOutcome::Fail => GateOutcomeView::Fail,
                GateOutcome::Inconclusive => GateOutcomeView::Inconclusive,
                GateOutcome::Missing => GateOutcomeView::Missing,
                GateOutcome::Waiting => GateOutcomeView::Waiting,
            },
            why: state.why,
            passes_at: state.passes_at,
            evidence: state.evidence.map(EvidenceView::from),
        }
    }
}

/// Every gate of a label, for one content.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct GatesView {
    /// Whether every required gate passes.
    passes: bool,
    /// The gates in the order of the rules.
    gates: Vec<GateView>,
}

impl From<GateReport> for GatesView {
    fn from(report: GateReport) -> Self {
        Self {
            passes: report.passes,
            gates: report.gates.into_iter().map(Into::into).collect(),
        }
    }
}

/// Content that no label may be moved to.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct QuarantineView {
    /// Names it.
    id: String,
    /// The document kind.
    kind: String,
    /// The name.
    name: String,
    /// The version with the content.
    version: i64,
    /// The content.
    digest: String,
    /// Why.
    reason: String,
    /// Who.
    actor: String,
    /// When, microseconds since the epoch.
    at: i64,
    /// Who lifted it.
    lifted_by: Option<String>,
    /// When, microseconds since the epoch.
    lifted_at: Option<i64>,
    /// Why it was lifted.
    lift_reason: String,
}

impl From<Quarantine> for QuarantineView {
    fn from(known: Quarantine) -> Self {
        Self {
            id: known.id,
            kind: known.kind,
            name: known.name.to_string(),
            version: known.number,
            digest: known.digest.to_string(),
            reason: known.reason,
            actor: known.actor,
            at: known.at,
            lifted_by: known.lifted_by,
            lifted_at: known.lifted_at,
            lift_reason: known.lift_reason,
        }
    }
}

/// One name on the board.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BoardRowView {
    /// The name.
    name: String,
    /// Its newest version.
    latest: i64,
    /// The newest version's content.
    latest_digest: String,
    /// One for each environment, in their order.
    cells: Vec<BoardCellView>,
}

/// One name in one environment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct BoardCellView {
    /// The environment.
    environment: String,
    /// What runs there.
    pointer: Option<PointerView>,
    /// Whether it is other content than in the environment before.
    differs: bool,
    /// Whether what runs there is quarantined.
    quarantined: bool,
    /// What could be moved here.
    next: Option<CandidateView>,
    /// The proposals that wait, oldest first.
    proposals: Vec<ProposalView>,
}

/// Content that could be moved into an environment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CandidateView {
    /// The version.
    version: i64,
    /// Its content.
    digest: String,
    /// Whether it is quarantined.
    quarantined: bool,
    /// How the environment's gates stand for it.
    report: GatesView,
}

impl From<BoardRow> for BoardRowView {
    fn from(row: BoardRow) -> Self {
        Self {
            name: row.name.to_string(),
            latest: row.latest,
            latest_digest: row.latest_digest.to_string(),
            cells: row.cells.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<BoardCell> for BoardCellView {
    fn from(cell: BoardCell) -> Self {
        Self {
            environment: cell.environment,
            pointer: cell.pointer.map(Into::into),
            differs: cell.differs,
            quarantined: cell.quarantined,
            next: cell.next.map(Into::into),
            proposals: cell.proposals.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Candidate> for CandidateView {
    fn from(next: Candidate) -> Self {
        Self {
            version: next.number,
            digest: next.digest.to_string(),
            quarantined: next.quarantined,
            report: next.report.into(),
        }
    }
}

/// A list's page as the API gives it.
pub(crate) fn next_cursor<T>(page: &catalog::Page<T>) -> Option<String> {
    page.next.as_ref().map(|cursor| cursor.as_str().to_owned())
}
