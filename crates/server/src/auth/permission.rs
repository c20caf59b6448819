//! Permissions and the roles that bundle them.
//!
//! A permission names one thing that can be done. Routes ask for permissions,
//! never for roles, so that a new role is one more list here.

use serde::{Deserialize, Serialize};

/// One thing that somebody may be allowed to do inside a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Call models through `/v1` and the playground.
    Infer,
    /// Have texts checked by guard policies; nothing is called for it.
    CheckGuards,
    /// Read traces, their bodies and figures made of them.
    ReadTraces,
    /// Add scores to traces.
    WriteScores,
    /// Read prompts and their histories.
    ReadPrompts,
    /// Save prompt versions and move labels.
    WritePrompts,
    /// Read every other kind of document: apps, releases, experiments.
    ReadCatalog,
    /// Save, tag, label and delete those documents; cut releases; apply a tree of files.
    WriteCatalog,
    /// Read datasets and their examples, which hold what people wrote.
    ReadDatasets,
    /// Make, edit, import and delete datasets.
    WriteDatasets,
    /// Ask for a move that needs approval, move where none is needed, attach evidence.
    Propose,
    /// Approve or reject what somebody else proposed.
    Approve,
    /// Move back to an earlier version at once, and quarantine the bad one.
    RollBack,
    /// Lift a quarantine; change environments and what protects them.
    ManageEnvironments,
    /// Start, stop and conclude experiments.
    RunExperiments,
    /// See evaluations, their answers and scores.
    ReadEvaluations,
    /// Start, hold and stop evaluations: they spend money.
    RunEvaluations,
    /// Be given items of review queues and label them; see one's own progress.
    Label,
    /// See review queues with all their items, labels and raters.
    ReadReviews,
    /// Fill review queues, settle where raters differ, hand out guest links, make gold.
    ManageReviews,
    /// Read, export and verify the audit log.
    ReadAudit,
    /// See which models there are.
    ReadModels,
    /// Pull and remove local models.
    ManageModels,
    /// See providers, without their credentials.
    ReadProviders,
    /// Add, test and remove providers; edit prices.
    ManageProviders,
    /// See API keys, without their secrets.
    ReadKeys,
    /// Create and revoke API keys.
    ManageKeys,
    /// See who is a member.
    ReadMembers,
    /// Invite and remove members, change roles.
    ManageMembers,
}

use Permission::*;

const CALLER: &[Permission] = &[
    Infer,
    CheckGuards,
    ReadTraces,
    WriteScores,
    ReadPrompts,
    ReadCatalog,
    ReadModels,
];
const AUDITOR: &[Permission] = &[
    ReadTraces,
    ReadPrompts,
    ReadCatalog,
    ReadDatasets,
    ReadAudit,
    ReadEvaluations,
    ReadReviews,
    ReadModels,
    ReadProviders,
    ReadKeys,
    ReadMembers,
];
const PRODUCT_OWNER: &[Permission] = &[
    Infer,
    CheckGuards,
    ReadTraces,
    WriteScores,
    ReadPrompts,
    ReadCatalog,
    ReadDatasets,
    Approve,
    RollBack,
    ReadAudit,
    ReadEvaluations,
    Label,
    ReadReviews,
    ReadModels,
    ReadProviders,
    ReadKeys,
    ReadMembers,
];
const VIEWER: &[Permission] = &[
    ReadTraces,
    ReadPrompts,
    ReadCatalog,
    ReadDatasets,
    ReadEvaluations,
    ReadReviews,
    ReadModels,
    ReadProviders,
    ReadKeys,
    ReadMembers,
];
const EDITOR: &[Permission] = &[
    Infer,
    CheckGuards,
    ReadTraces,
    WriteScores,
    ReadPrompts,
    WritePrompts,
    ReadCatalog,
    WriteCatalog,
    ReadDatasets,
    WriteDatasets,
    Propose,
    RunExperiments,
    ReadEvaluations,
    RunEvaluations,
    Label,
    ReadReviews,
    ManageReviews,
    ReadModels,
    ReadProviders,
    ReadKeys,
    ReadMembers,
];
const LABELLER: &[Permission] = &[Label];
const ADMIN: &[Permission] = &[
    Infer,
    CheckGuards,
    ReadTraces,
    WriteScores,
    ReadPrompts,
    WritePrompts,
    ReadCatalog,
    WriteCatalog,
    ReadDatasets,
    WriteDatasets,
    Propose,
    Approve,
    RollBack,
    ManageEnvironments,
    RunExperiments,
    ReadEvaluations,
    RunEvaluations,
    Label,
    ReadReviews,
    ManageReviews,
    ReadAudit,
    ReadModels,
    ManageModels,
    ReadProviders,
    ManageProviders,
    ReadKeys,
    ManageKeys,
    ReadMembers,
    ManageMembers,
];

impl Permission {
    /// Every permission, in the order of the most powerful role's list.
    pub const ALL: &'static [Self] = ADMIN;

    /// The name that the API and templates use.
    pub fn name(self) -> &'static str {
        match self {
            Infer => "infer",
            CheckGuards => "guards_check",
            ReadTraces => "traces_read",
            WriteScores => "scores_write",
            ReadPrompts => "prompts_read",
            WritePrompts => "prompts_write",
            ReadCatalog => "catalog_read",
            WriteCatalog => "catalog_write",
            ReadDatasets => "datasets_read",
            WriteDatasets => "datasets_write",
            Propose => "propose",
            Approve => "approve",
            RollBack => "roll_back",
            ManageEnvironments => "environments_write",
            RunExperiments => "experiments_run",
            ReadEvaluations => "evaluations_read",
            RunEvaluations => "evaluations_run",
            Label => "review_label",
            ReadReviews => "reviews_read",
            ManageReviews => "reviews_write",
            ReadAudit => "audit_read",
            ReadModels => "models_read",
            ManageModels => "models_write",
            ReadProviders => "providers_read",
            ManageProviders => "providers_write",
            ReadKeys => "keys_read",
            ManageKeys => "keys_write",
            ReadMembers => "members_read",
            ManageMembers => "members_write",
        }
    }
}

/// A named bundle of permissions that a member or a key has in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, members and credentials included.
    Admin,
    /// Works on prompts, apps and experiments and proposes releases; changes no credentials or members.
    Editor,
    /// Watches quality and cost, approves what others propose, rolls back; edits nothing.
    ProductOwner,
    /// Reads everything, the audit log included; changes nothing.
    Auditor,
    /// Reads everything but the audit log, changes nothing.
    Viewer,
    /// Labels what review queues give; sees nothing else.
    Labeller,
    /// What an application's key needs: calls models, adds scores, reads its traces.
    Caller,
}

impl Role {
    /// Every role, most powerful first.
    pub const ALL: &'static [Self] = &[
        Self::Admin,
        Self::Editor,
        Self::ProductOwner,
        Self::Auditor,
        Self::Viewer,
        Self::Labeller,
        Self::Caller,
    ];

    /// What this role allows.
    pub fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Admin => ADMIN,
            Self::Editor => EDITOR,
            Self::ProductOwner => PRODUCT_OWNER,
            Self::Auditor => AUDITOR,
            Self::Viewer => VIEWER,
            Self::Labeller => LABELLER,
            Self::Caller => CALLER,
        }
    }

    /// Whether this role allows that.
    pub fn allows(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }

    /// The name that the API, the database and the command line use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::ProductOwner => "product_owner",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Labeller => "labeller",
            Self::Caller => "caller",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|role| role.name() == text)
            .ok_or_else(|| {
                let names: Vec<_> = Self::ALL.iter().map(|role| role.name()).collect();
                format!("{text:?} is not a role; the roles are {}", names.join(", "))
            })
    }
}
