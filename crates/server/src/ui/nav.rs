//! The left rail: what there is, for whom, in the order of the loop.

use serde::Serialize;

use crate::auth::{Permission, Role};

/// A group of the rail.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    label_key: &'static str,
    items: Vec<Item>,
}

/// One entry.
#[derive(Debug, Serialize)]
pub(super) struct Item {
    label_key: &'static str,
    href: String,
    icon: &'static str,
    active: bool,
}

type Entry = (&'static str, &'static str, &'static str, Permission);

const GROUPS: &[(&str, &[Entry])] = &[
    (
        "",
        &[("nav-overview", "", "overview", Permission::ReadTraces)],
    ),
    (
        "nav-ship",
        &[
            (
                "nav-playground",
                "playground",
                "playground",
                Permission::Infer,
            ),
            ("nav-compare", "compare", "compare", Permission::Infer),
            ("nav-prompts", "prompts", "prompts", Permission::ReadPrompts),
            ("nav-apps", "apps", "apps", Permission::ReadCatalog),
            ("nav-guards", "guards", "approvals", Permission::ReadCatalog),
            (
                "nav-releases",
                "releases",
                "releases",
                Permission::ReadCatalog,
            ),
            (
                "nav-approvals",
                "approvals",
                "approvals",
                Permission::ReadCatalog,
            ),
            (
                "nav-experiments",
                "experiments",
                "experiments",
                Permission::ReadCatalog,
            ),
            ("nav-models", "models", "models", Permission::ReadModels),
            (
                "nav-providers",
                "providers",
                "providers",
                Permission::ReadProviders,
            ),
        ],
    ),
    (
        "nav-monitor",
        &[
            ("nav-traces", "traces", "traces", Permission::ReadTraces),
            ("nav-live", "live", "live", Permission::ReadEvaluations),
        ],
    ),
    (
        "nav-improve",
        &[
            (
                "nav-evaluations",
                "evaluations",
                "evaluations",
                Permission::ReadEvaluations,
            ),
            (
                "nav-improvements",
                "improvements",
                "improve",
                Permission::ReadEvaluations,
            ),
            (
                "nav-datasets",
                "datasets",
                "datasets",
                Permission::ReadDatasets,
            ),
            (
                "nav-choices",
                "choices",
                "compare",
                Permission::ReadEvaluations,
            ),
            ("nav-review", "review", "review", Permission::Label),
            (
                "nav-review-queues",
                "review-queues",
                "approvals",
                Permission::ReadReviews,
            ),
        ],
    ),
    (
        "nav-govern",
        &[
            ("nav-keys", "keys", "keys", Permission::ReadKeys),
            ("nav-members", "members", "members", Permission::ReadMembers),
            (
                "nav-environments",
                "environments",
                "environments",
                Permission::ReadCatalog,
            ),
            ("nav-audit", "audit", "audit", Permission::ReadAudit),
        ],
    ),
];

/// What this role sees; `path` is the address of the page at hand.
pub(super) fn groups(role: Role, root: &str, path: &str) -> Vec<Group> {
    let item = |&(label_key, place, icon, permission): &Entry| {
        role.allows(permission).then(|| {
            let href = format!("{root}/{place}");
            let active = if place.is_empty() {
                path.trim_end_matches('/') == root
            } else {
                path == href || path.starts_with(&format!("{href}/"))
            };
            Item {
                label_key,
                href,
                icon,
                active,
            }
        })
    };
    let group = |&(label_key, entries): &(&'static str, &[Entry])| {
        let items: Vec<Item> = entries.iter().filter_map(item).collect();
        (!items.is_empty()).then_some(Group { label_key, items })
    };
    GROUPS.iter().filter_map(group).collect()
}

/// Whether a first path segment belongs to the server, so that no project may have that name.
pub fn is_reserved(segment: &str) -> bool {
    matches!(
        segment,
        "" | "v1"
            | "api"
            | "assets"
            | "setup"
            | "sign-in"
            | "sign-out"
            | "invite"
            | "guest"
            | "preferences"
            | "healthz"
            | "readyz"
            | "health"
            | "version"
            | "openapi.json"
            | "metrics"
            | "mcp"
            | "docs"
    )
}
