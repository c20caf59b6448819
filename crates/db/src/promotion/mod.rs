//! Promotion: what protects labels, and how a protected label is moved all the same.
//!
//! Works on labels of names of any kind and knows no kind. A move of a protected
//! label becomes a [`Proposal`], bound to the content's digest and to where the
//! pointer is; when enough other people approved it and its gates pass, it is
//! carried out in that same transaction. Going back needs none of this
//! ([`Promotion::roll_back`]) and quarantines what it leaves.
//!
//! Every operation takes the write lock first, so two approvals, or an approval
//! and a move, are one after the other on both databases.

mod board;
mod environments;
mod gates;
pub(crate) mod guard;
mod proposals;
mod quarantine;
mod rollback;
mod rules;
mod snapshot;
mod store;

use base::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalog::{Catalog, CatalogError, Name, Page, Pointer, Problem};
use crate::{Db, DbError};

pub use environments::protect_prod;
pub use rules::{Delivery, EARLIER_ENVIRONMENT, GateRule, RESOLVES, Rules};
pub use snapshot::PromotionSnapshot;

/// Protected labels, proposals, evidence, quarantine and rollback. Clones share the database.
#[derive(Debug, Clone)]
pub struct Promotion {
    db: Db,
    catalog: Catalog,
}

impl Promotion {
    /// Promotion over this catalog.
    pub fn new(db: Db, catalog: Catalog) -> Self {
        Self { db, catalog }
    }
}

/// Why promotion refused.
#[derive(Debug, thiserror::Error)]
pub enum PromotionError {
    /// The catalog refused, or the input is wrong.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is no such proposal, quarantine or environment in this project.
    #[error("there is no such {0} in this project")]
    NotFound(&'static str),
    /// The proposal has ended, or was never open for this.
    #[error("this proposal is {} and cannot be decided on any more", .0.name())]
    Ended(ProposalState),
    /// Nobody approves their own.
    #[error("who asked for a move or made its content cannot approve it")]
    OwnChange,
    /// A key cannot approve; a person or the operator can.
    #[error("only a signed-in person can decide on a proposal, not a key")]
    NotAPerson,
    /// The label's rules want another role.
    #[error("approvals for this label are given by: {}", .0.join(", "))]
    WrongRole(Vec<String>),
    /// Only who asked can take it back.
    #[error("only who made this proposal can withdraw it")]
    NotTheAuthor,
    /// There is nothing to go back to.
    #[error("{0}")]
    NothingBefore(String),
    /// It was changed by somebody else first; this is its revision now.
    #[error("somebody else changed this first; its revision is {0} now")]
    Stale(i64),
}

impl From<DbError> for PromotionError {
    fn from(error: DbError) -> Self {
        Self::Catalog(error.into())
    }
}

impl From<sqlx::Error> for PromotionError {
    fn from(error: sqlx::Error) -> Self {
        Self::Catalog(error.into())
    }
}

impl From<Problem> for PromotionError {
    fn from(problem: Problem) -> Self {
        Self::Catalog(problem.into())
    }
}

/// What protects one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// The label.
    pub label: String,
    /// What is asked of a move.
    pub rules: Rules,
    /// Counts the changes, from 1; what compare-and-swap compares.
    pub revision: i64,
    /// Who changed it last, as [`Actor`](crate::Actor) prints.
    pub updated_by: String,
    /// When.
    pub updated_at: i64,
}

/// A label with a place in the order that content moves through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// Its name, which is the label.
    pub name: String,
    /// What protects it, if anything was ever said.
    pub protection: Option<Protection>,
}

/// The environments in order, and the labels beside them that are protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Environments {
    /// In their order.
    pub environments: Vec<Environment>,
    /// Protected labels that are no environments, by name.
    pub labels: Vec<Protection>,
}

/// Where a proposal is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposalState {
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
    /// The label moved meanwhile, so what people approved is no more.
    Superseded,
    /// Nobody decided in time.
    Expired,
    /// The label was rolled back, or the content quarantined.
    Cancelled,
}

impl ProposalState {
    const ALL: [Self; 8] = [
        Self::Open,
        Self::Approved,
        Self::Applied,
        Self::Rejected,
        Self::Withdrawn,
        Self::Superseded,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word that the database and the API use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it still waits for something.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Open | Self::Approved)
    }
}

impl std::str::FromStr for ProposalState {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| Problem::new("state", format!("{text:?} is not a state of proposals")))
    }
}

/// A move that waits for approvals or gates, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proposal {
    /// Names it.
    pub id: String,
    /// The document kind.
    pub kind: String,
    /// The name.
    pub name: Name,
    /// The label to move.
    pub label: String,
    /// The version to move it to.
    pub number: i64,
    /// The content that is approved.
    pub digest: Digest,
    /// The version that the label pointed to; `None` where it did not exist.
    pub from: Option<i64>,
    /// The pointer's revision that it is bound to; 0 where it did not exist.
    pub pointer_revision: i64,
    /// What counts for it: the stricter of the rules at its beginning and those of now.
    pub rules: Rules,
    /// Who asked, as [`Actor`](crate::Actor) prints.
    pub author: String,
    /// Who cannot approve it: the author, and who stands behind it.
    pub excluded: Vec<String>,
    /// Why, in the author's words.
    pub reason: String,
    /// Where it is on its way.
    pub state: ProposalState,
    /// When it was made.
    pub created_at: i64,
    /// When it ends by itself.
    pub expires_at: Option<i64>,
    /// Who ended it.
    pub closed_by: Option<String>,
    /// When it ended.
    pub closed_at: Option<i64>,
    /// Why it ended.
    pub close_reason: String,
    /// What people said, in their order.
    pub approvals: Vec<Approval>,
}

impl Proposal {
    /// How many approvals count.
    pub fn approved_by(&self) -> usize {
        let counts = |approval: &&Approval| {
            approval.verdict == Verdict::Approve
                && self.rules.counts_role(&approval.role)
                && !self.excluded.contains(&approval.actor)
        };
        self.approvals.iter().filter(counts).count()
    }

    /// `KIND:NAME@LABEL`, as the audit log has it.
    pub fn object(&self) -> String {
        format!("{}:{}@{}", self.kind, self.name, self.label)
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Approve,
    /// No; this ends the proposal.
    Reject,
}

/// What one person said to a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Who, as [`Actor`](crate::Actor) prints.
    pub actor: String,
    /// Yes or no.
    pub verdict: Verdict,
    /// In which role.
    pub role: String,
    /// Why, in their words.
    pub reason: String,
    /// When.
    pub at: i64,
}

/// What became of a request to move a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Nothing held it up: it points there now.
    Moved(Pointer),
    /// It pointed there already.
    Unchanged(Pointer),
    /// It waits; asking again for the same gives the same proposal.
    Proposed(Box<Proposal>),
    /// Somebody else moved it first; this is where it is.
    Conflict(Option<Pointer>),
}

/// What a decision did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The proposal as it is now.
    pub proposal: Proposal,
    /// Where the label points, when this decision moved it.
    pub moved: Option<Pointer>,
    /// What holds an approved proposal up, in words; its gates are in [`Promotion::gate_report`].
    pub held_up: Option<String>,
}

/// Which proposals a list shows; the default shows all.
#[derive(Debug, Clone, Default)]
pub struct ProposalFilter {
    /// Only those that wait, or only those that ended.
    pub waiting: Option<bool>,
    /// Only in this state.
    pub state: Option<ProposalState>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only of this name.
    pub name: Option<Name>,
    /// Only for this label.
    pub label: Option<String>,
    /// Only by this actor.
    pub author: Option<String>,
}

/// What evidence says of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Good enough.
    Pass,
    /// Not good enough.
    Fail,
    /// Looked at, and not known: never a pass.
    Inconclusive,
}

impl Outcome {
    /// The word that the database and the API use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let all = [Self::Pass, Self::Fail, Self::Inconclusive];
        let found = all.into_iter().find(|outcome| outcome.name() == text);
        found.ok_or_else(|| Problem::new("outcome", format!("{text:?} is not an outcome")))
    }
}

/// What somebody found out about content. Append-only; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Names it.
    pub id: String,
    /// The document kind.
    pub kind: String,
    /// The name.
    pub name: Name,
    /// The content.
    pub digest: Digest,
    /// The gate that it is for.
    pub gate: String,
    /// What it says.
    pub outcome: Outcome,
    /// The figures behind it.
    pub detail: Value,
    /// Where to read more; may be empty.
    pub link: String,
    /// Who gave it, as [`Actor`](crate::Actor) prints.
    pub actor: String,
    /// When.
    pub at: i64,
}

/// Evidence to give.
#[derive(Debug, Clone, Copy)]
pub struct NewEvidence<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// The content; a version of the name must have it.
    pub digest: Digest,
    /// The gate's name.
    pub gate: &'a str,
    /// What it says.
    pub outcome: Outcome,
    /// The figures behind it.
    pub detail: &'a Value,
    /// Where to read more: an https address or a path of this server; may be empty.
    pub link: &'a str,
}

/// How one gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    /// Passed.
    Pass,
    /// Looked at, and bad.
    Fail,
    /// Looked at, and not known.
    Inconclusive,
    /// Nobody gave evidence.
    Missing,
    /// Passes by itself later, if nothing changes.
    Waiting,
}

/// One gate of a label, for one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GateState {
    /// The gate's name.
    pub name: String,
    /// Whether it holds a move up.
    pub required: bool,
    /// How it stands.
    pub outcome: GateOutcome,
    /// Why, in words; empty for a pass.
    pub why: String,
    /// When a gate that waits will pass.
    pub passes_at: Option<i64>,
    /// The evidence that counts.
    pub evidence: Option<Evidence>,
}

/// Every gate of a label, for one content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GateReport {
    /// Whether every required gate passes.
    pub passes: bool,
    /// The gates in the order of the rules.
    pub gates: Vec<GateState>,
}

/// Content that no label may be moved to, until somebody lifts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantine {
    /// Names it.
    pub id: String,
    /// The document kind.
    pub kind: String,
    /// The name.
    pub name: Name,
    /// The version with the content.
    pub number: i64,
    /// The content.
    pub digest: Digest,
    /// Why.
    pub reason: String,
    /// Who, as [`Actor`](crate::Actor) prints.
    pub actor: String,
    /// When.
    pub at: i64,
    /// Who lifted it.
    pub lifted_by: Option<String>,
    /// When.
    pub lifted_at: Option<i64>,
    /// Why it was lifted.
    pub lift_reason: String,
}

/// A label that somebody wants to go back.
#[derive(Debug, Clone, Copy)]
pub struct RollbackRequest<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// The label.
    pub label: &'a crate::catalog::Label,
    /// The version to go back to, which the label pointed to once; `None` for the one before.
    pub to: Option<i64>,
    /// Only if the pointer still has this revision; makes a second click harmless.
    pub expected: Option<i64>,
    /// Why.
    pub reason: &'a str,
    /// Whether the content that it leaves is bad everywhere.
    pub quarantine: bool,
}

/// What became of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per rollback and taken apart at once"
)]
pub enum RolledBack {
    /// It went back.
    Done {
        /// Where the label points now.
        pointer: Pointer,
        /// The version that it left.
        left: i64,
        /// The quarantine of the content that it left, where one was wanted.
        quarantine: Option<Quarantine>,
    },
    /// Somebody moved or rolled back first; this is where it is.
    Conflict(Option<Pointer>),
}

/// What runs where: one kind's names against the environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The environments in their order.
    pub environments: Vec<Environment>,
    /// The names, in order.
    pub rows: Page<BoardRow>,
}

/// One name on the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoardRow {
    /// The name.
    pub name: Name,
    /// Its newest version.
    pub latest: i64,
    /// The newest version's content.
    pub latest_digest: Digest,
    /// One for each environment, in their order.
    pub cells: Vec<BoardCell>,
}

/// One name in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoardCell {
    /// The environment.
    pub environment: String,
    /// What runs there: version, content, since when, by whom.
    pub pointer: Option<Pointer>,
    /// Whether it is other content than in the environment before (in the first: than the newest version).
    pub differs: bool,
    /// Whether what runs there is quarantined.
    pub quarantined: bool,
    /// What could be moved here: what runs in the environment before, where it differs.
    pub next: Option<Candidate>,
    /// The proposals that wait, oldest first.
    pub proposals: Vec<Proposal>,
}

/// Content that could be moved into an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The version.
    pub number: i64,
    /// Its content.
    pub digest: Digest,
    /// Whether it is quarantined, so that it cannot be moved.
    pub quarantined: bool,
    /// How the environment's gates stand for it.
    pub report: GateReport,
}
