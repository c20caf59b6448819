//! Who may call what: the server's own route table, walked by everybody.
//!
//! [`EXPECTED`] is the test's own knowledge. A route that is not in it fails
//! the test, so that nobody adds one without saying who it is for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, Live, NO_ID, Place, Reply, on_both_databases, question};

/// The roles that people have.
const PEOPLE: [&str; 6] = [
    "admin",
    "editor",
    "product_owner",
    "auditor",
    "viewer",
    "labeller",
];

/// A method, a path, and who may call it: `everybody`, or roles.
const EXPECTED: &[(&str, &str, &str)] = &[
    // The short public list.
    ("GET", "/healthz", "everybody"),
    ("GET", "/readyz", "everybody"),
    ("GET", "/openapi.json", "everybody"),
    ("GET", "/", "everybody"),
    ("GET", "/assets/{*file}", "everybody"),
    ("POST", "/preferences", "everybody"),
    ("GET", "/setup", "everybody"),
    ("POST", "/setup", "everybody"),
    ("GET", "/invite", "everybody"),
    ("POST", "/invite", "everybody"),
    ("GET", "/sign-in", "everybody"),
    ("GET", "/guest", "everybody"),
    ("POST", "/sign-in", "everybody"),
    ("POST", "/sign-out", "everybody"),
    // Inference.
    (
        "POST",
        "/v1/chat/completions",
        "admin editor product_owner caller",
    ),
    (
        "POST",
        "/v1/embeddings",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/v1/models",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/v1/models/{*id}",
        "admin editor product_owner auditor viewer caller",
    ),
    // Traces and scores.
    (
        "GET",
        "/api/v1/traces",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/traces/facets",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/traces/tail",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/traces/{id}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/traces/{id}/spans/{span}/body",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/query",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/scores",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/api/v1/scores",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/{project}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/traces",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/traces/{id}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "POST",
        "/{project}/traces/{id}/thumbs",
        "admin editor product_owner",
    ),
    ("GET", "/{project}/playground", "admin editor product_owner"),
    ("GET", "/{project}/compare", "admin editor product_owner"),
    ("POST", "/{project}/compare", "admin editor product_owner"),
    (
        "GET",
        "/{project}/about",
        "admin editor product_owner auditor viewer labeller",
    ),
    // Documents of every kind; the permission depends on the kind.
    (
        "GET",
        "/api/v1/catalog/kinds",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/schemas/{kind}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/names",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/folders",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/catalog/{kind}/check",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/versions",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/catalog/{kind}/{name}/versions",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/v1/catalog/{kind}/{name}/versions",
        "admin editor",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/versions/{version}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/diff",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/pointers",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "PUT",
        "/api/v1/catalog/{kind}/{name}/pointers/{label}",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/v1/catalog/{kind}/{name}/pointers/{label}",
        "admin editor",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/moves",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/tags",
        "admin editor product_owner auditor viewer caller",
    ),
    ("PUT", "/api/v1/catalog/{kind}/{name}/tags", "admin editor"),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/references",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/dependents",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/catalog/{kind}/{name}/similar",
        "admin editor product_owner auditor viewer caller",
    ),
    // Prompts.
    (
        "GET",
        "/api/v1/prompts",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/prompts", "admin editor"),
    (
        "GET",
        "/api/v1/prompts/{name}/versions",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/prompts/{name}/versions", "admin editor"),
    (
        "GET",
        "/api/v1/prompts/{name}/versions/{version}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/prompts/{name}/labels",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "PUT",
        "/api/v1/prompts/{name}/labels/{label}",
        "admin editor",
    ),
    (
        "GET",
        "/api/v1/prompts/{name}/moves",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/prompts/templates",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/prompts/render",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/prompts/similar",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/prompts/try",
        "admin editor product_owner caller",
    ),
    (
        "POST",
        "/api/v1/prompts/generate",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/{project}/prompts",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/prompts/edit", "admin editor"),
    ("POST", "/{project}/prompts/edit", "admin editor"),
    ("GET", "/{project}/prompts/generate", "admin editor"),
    ("POST", "/{project}/prompts/generate", "admin editor"),
    ("POST", "/{project}/prompts/tags", "admin editor"),
    ("POST", "/{project}/prompts/delete", "admin editor"),
    ("GET", "/{project}/prompts/new", "admin editor"),
    (
        "GET",
        "/{project}/prompts/show",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/prompts/diff",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/prompts/labels", "admin editor"),
    // Experiments.
    (
        "GET",
        "/api/v1/evaluations",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/evaluations", "admin editor"),
    (
        "GET",
        "/api/v1/evaluations/{id}",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/evaluations/{id}/pause", "admin editor"),
    ("POST", "/api/v1/evaluations/{id}/resume", "admin editor"),
    ("POST", "/api/v1/evaluations/{id}/stop", "admin editor"),
    (
        "GET",
        "/api/v1/evaluations/{id}/examples",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/evaluations/{id}/examples/{place}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/evaluations/{id}/slices",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/evaluations/{id}/events",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/improvements",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/improvements/{id}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/improvements/{id}/steps/{number}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/improvements/{id}/events",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/improvements", "admin editor"),
    ("POST", "/api/v1/improvements/{id}/pause", "admin editor"),
    ("POST", "/api/v1/improvements/{id}/resume", "admin editor"),
    ("POST", "/api/v1/improvements/{id}/stop", "admin editor"),
    (
        "GET",
        "/{project}/improvements",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/improvements/show",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/improvements/step",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/improvements/new", "admin editor"),
    ("POST", "/{project}/improvements", "admin editor"),
    ("POST", "/{project}/improvements/change", "admin editor"),
    (
        "GET",
        "/{project}/evaluations",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/evaluations", "admin editor"),
    ("GET", "/{project}/evaluations/new", "admin editor"),
    (
        "GET",
        "/{project}/evaluations/show",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/evaluations/example",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/evaluations/change", "admin editor"),
    ("POST", "/api/v1/evaluator-modules", "admin editor"),
    ("POST", "/{project}/evaluators/module", "admin editor"),
    // Live evaluation.
    (
        "GET",
        "/api/v1/live-evaluations",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/live-evaluations", "admin editor"),
    (
        "GET",
        "/api/v1/live-evaluations/{name}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/live-evaluations/{name}/traces",
        "admin editor product_owner auditor viewer",
    ),
    (
        "POST",
        "/api/v1/live-evaluations/{name}/pause",
        "admin editor",
    ),
    (
        "POST",
        "/api/v1/live-evaluations/{name}/resume",
        "admin editor",
    ),
    (
        "GET",
        "/{project}/live",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/live/edit", "admin editor"),
    ("POST", "/{project}/live/edit", "admin editor"),
    (
        "GET",
        "/{project}/live/show",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/live/change", "admin editor"),
    (
        "GET",
        "/api/v1/calibration",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/calibration",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/evaluators",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/evaluators/edit",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/evaluators/edit", "admin editor"),
    // Guards.
    (
        "POST",
        "/v1/moderations",
        "admin editor product_owner caller",
    ),
    (
        "POST",
        "/api/v1/guard/check",
        "admin editor product_owner caller",
    ),
    (
        "POST",
        "/api/v1/guard/measure",
        "admin editor product_owner caller",
    ),
    (
        "POST",
        "/api/v1/guard/try",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/api/v1/guard/hits",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/guard/classifiers", "admin editor"),
    ("POST", "/{project}/guards/classifiers", "admin editor"),
    (
        "GET",
        "/api/v1/guard/finds",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/guard/finds/labelled",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/guard/finds/{id}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/guard/finds/{id}/verdict",
        "admin editor product_owner caller",
    ),
    ("POST", "/api/v1/guard/finds/dataset", "admin editor"),
    (
        "GET",
        "/{project}/guards/finds",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/guards/finds/labelled",
        "admin editor product_owner auditor viewer",
    ),
    (
        "POST",
        "/{project}/guards/finds/verdict",
        "admin editor product_owner",
    ),
    ("POST", "/{project}/guards/finds/dataset", "admin editor"),
    (
        "GET",
        "/{project}/guards",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/guards/edit",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/guards/edit", "admin editor"),
    (
        "POST",
        "/{project}/guards/check",
        "admin editor product_owner",
    ),
    (
        "POST",
        "/{project}/guards/try",
        "admin editor product_owner",
    ),
    (
        "POST",
        "/{project}/guards/measure",
        "admin editor product_owner",
    ),
    ("POST", "/{project}/guards/labels", "admin editor"),
    (
        "GET",
        "/{project}/guards/words",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/guards/words/edit",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/guards/words/edit", "admin editor"),
    ("POST", "/{project}/guards/words/labels", "admin editor"),
    ("POST", "/{project}/guards/words/delete", "admin editor"),
    // Models' properties and choices.
    (
        "GET",
        "/api/v1/model-catalog",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/choices",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/choices", "admin editor"),
    (
        "GET",
        "/api/v1/choices/{id}",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/choices/{id}/pause", "admin editor"),
    ("POST", "/api/v1/choices/{id}/resume", "admin editor"),
    ("POST", "/api/v1/choices/{id}/stop", "admin editor"),
    ("POST", "/api/v1/choices/{id}/evidence", "admin editor"),
    (
        "GET",
        "/{project}/choices",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/choices", "admin editor"),
    (
        "GET",
        "/{project}/choices/models",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/choices/models/edit", "admin editor"),
    ("POST", "/{project}/choices/models/edit", "admin editor"),
    ("GET", "/{project}/choices/new", "admin editor"),
    (
        "GET",
        "/{project}/choices/show",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/choices/change", "admin editor"),
    ("POST", "/{project}/choices/evidence", "admin editor"),
    (
        "GET",
        "/api/v1/experiments",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/experiments", "admin editor"),
    (
        "GET",
        "/api/v1/experiments/{name}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/experiments/{name}/results",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/experiments/{name}/start", "admin editor"),
    ("POST", "/api/v1/experiments/{name}/stop", "admin editor"),
    ("POST", "/api/v1/experiments/{name}/promote", "admin editor"),
    (
        "GET",
        "/{project}/experiments",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/experiments", "admin editor"),
    ("GET", "/{project}/experiments/new", "admin editor"),
    (
        "GET",
        "/{project}/experiments/show",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/experiments/start", "admin editor"),
    ("POST", "/{project}/experiments/stop", "admin editor"),
    ("POST", "/{project}/experiments/promote", "admin editor"),
    // The prompt registries of Langfuse and MLflow.
    ("GET", "/api/public/health", "everybody"),
    (
        "GET",
        "/api/public/projects",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/public/v2/prompts",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/public/v2/prompts", "admin editor"),
    (
        "GET",
        "/api/public/v2/prompts/{name}",
        "admin editor product_owner auditor viewer caller",
    ),
    ("DELETE", "/api/public/v2/prompts/{name}", "admin editor"),
    (
        "PATCH",
        "/api/public/v2/prompts/{name}/versions/{version}",
        "admin editor",
    ),
    ("GET", "/health", "everybody"),
    ("GET", "/version", "everybody"),
    (
        "POST",
        "/api/2.0/mlflow/registered-models/create",
        "admin editor",
    ),
    (
        "GET",
        "/api/2.0/mlflow/registered-models/get",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/2.0/mlflow/registered-models/search",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "PATCH",
        "/api/2.0/mlflow/registered-models/update",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/2.0/mlflow/registered-models/delete",
        "admin editor",
    ),
    (
        "POST",
        "/api/2.0/mlflow/registered-models/set-tag",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/2.0/mlflow/registered-models/delete-tag",
        "admin editor",
    ),
    (
        "POST",
        "/api/2.0/mlflow/registered-models/alias",
        "admin editor",
    ),
    (
        "GET",
        "/api/2.0/mlflow/registered-models/alias",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "DELETE",
        "/api/2.0/mlflow/registered-models/alias",
        "admin editor",
    ),
    (
        "GET",
        "/api/2.0/mlflow/registered-models/get-latest-versions",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/2.0/mlflow/registered-models/get-latest-versions",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/2.0/mlflow/model-versions/create",
        "admin editor",
    ),
    (
        "GET",
        "/api/2.0/mlflow/model-versions/get",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/2.0/mlflow/model-versions/search",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "PATCH",
        "/api/2.0/mlflow/model-versions/update",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/2.0/mlflow/model-versions/delete",
        "admin editor",
    ),
    (
        "POST",
        "/api/2.0/mlflow/model-versions/set-tag",
        "admin editor",
    ),
    (
        "DELETE",
        "/api/2.0/mlflow/model-versions/delete-tag",
        "admin editor",
    ),
    // Apps, releases, the pages of promotion and of the audit log.
    (
        "GET",
        "/api/v1/apps",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/apps", "admin editor"),
    ("POST", "/api/v1/apps/try", "admin editor"),
    (
        "GET",
        "/api/v1/apps/{name}/versions/{version}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/apps/{name}/releases",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/apps/{name}/releases", "admin editor"),
    (
        "GET",
        "/api/v1/apps/{name}/releases/{version}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/apps/{name}/releases/{version}/changes",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/{project}/apps",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/apps/show",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/apps/edit", "admin editor"),
    ("POST", "/{project}/apps/edit", "admin editor"),
    ("POST", "/{project}/apps/draw", "admin editor"),
    ("POST", "/{project}/apps/releases", "admin editor"),
    (
        "GET",
        "/{project}/apps/release",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/apps/diff",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/releases",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/releases/promote", "admin editor"),
    (
        "POST",
        "/{project}/releases/rollback",
        "admin product_owner",
    ),
    ("POST", "/{project}/releases/lift", "admin"),
    (
        "GET",
        "/{project}/approvals",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/approvals/decide", "admin product_owner"),
    ("POST", "/{project}/approvals/withdraw", "admin editor"),
    (
        "GET",
        "/{project}/environments",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/environments/rules", "admin"),
    ("POST", "/{project}/environments/move", "admin"),
    ("POST", "/{project}/environments/add", "admin"),
    ("GET", "/{project}/audit", "admin product_owner auditor"),
    (
        "GET",
        "/{project}/audit/export",
        "admin product_owner auditor",
    ),
    // Local models belong to the installation, not to a project.
    (
        "GET",
        "/api/v1/models",
        "admin editor product_owner auditor viewer caller",
    ),
    ("DELETE", "/api/v1/models/{name}", "admin"),
    ("POST", "/api/v1/models/pull", "admin"),
    (
        "GET",
        "/api/v1/models/pulls",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/models/pulls/{id}",
        "admin editor product_owner auditor viewer caller",
    ),
    ("DELETE", "/api/v1/models/pulls/{id}", "admin"),
    (
        "GET",
        "/{project}/models",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/models/pull", "admin"),
    ("POST", "/{project}/models/pulls/{id}/cancel", "admin"),
    ("POST", "/{project}/models/remove", "admin"),
    // Providers and prices.
    (
        "GET",
        "/api/v1/providers",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/providers", "admin"),
    (
        "GET",
        "/api/v1/providers/{id}",
        "admin editor product_owner auditor viewer",
    ),
    ("PUT", "/api/v1/providers/{id}", "admin"),
    ("DELETE", "/api/v1/providers/{id}", "admin"),
    ("POST", "/api/v1/providers/{id}/test", "admin"),
    (
        "GET",
        "/api/v1/prices",
        "admin editor product_owner auditor viewer",
    ),
    ("PUT", "/api/v1/prices", "admin"),
    (
        "GET",
        "/{project}/providers",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/providers", "admin"),
    ("GET", "/{project}/providers/new", "admin"),
    ("POST", "/{project}/providers/test", "admin"),
    ("POST", "/{project}/providers/remove", "admin"),
    ("GET", "/{project}/providers/{id}", "admin"),
    ("POST", "/{project}/providers/{id}", "admin"),
    // Environments, proposals, evidence, quarantine, rollback.
    (
        "GET",
        "/api/v1/environments",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/environments", "admin"),
    ("PUT", "/api/v1/environments", "admin"),
    ("PUT", "/api/v1/protections/{label}", "admin"),
    (
        "GET",
        "/api/v1/board",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/proposals",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/proposals", "admin editor"),
    (
        "GET",
        "/api/v1/proposals/{id}",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/proposals/{id}/approve",
        "admin product_owner",
    ),
    (
        "POST",
        "/api/v1/proposals/{id}/reject",
        "admin product_owner",
    ),
    ("POST", "/api/v1/proposals/{id}/withdraw", "admin editor"),
    (
        "GET",
        "/api/v1/gates",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "GET",
        "/api/v1/evidence",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/evidence", "admin editor"),
    (
        "GET",
        "/api/v1/quarantines",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/quarantines/{id}/lift", "admin"),
    (
        "POST",
        "/api/v1/catalog/{kind}/{name}/pointers/{label}/rollback",
        "admin product_owner",
    ),
    // The audit log.
    ("GET", "/api/v1/audit", "admin product_owner auditor"),
    ("GET", "/api/v1/audit/export", "admin product_owner auditor"),
    ("GET", "/api/v1/audit/verify", "admin product_owner auditor"),
    // Keys and members.
    (
        "GET",
        "/api/v1/keys",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/keys", "admin"),
    ("DELETE", "/api/v1/keys/{id}", "admin"),
    (
        "GET",
        "/{project}/keys",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/keys", "admin"),
    ("POST", "/{project}/keys/revoke", "admin"),
    (
        "GET",
        "/api/v1/members",
        "admin editor product_owner auditor viewer",
    ),
    ("PUT", "/api/v1/members/{user_id}", "admin"),
    ("DELETE", "/api/v1/members/{user_id}", "admin"),
    ("POST", "/api/v1/invites", "admin"),
    ("DELETE", "/api/v1/invites/{id}", "admin"),
    (
        "GET",
        "/{project}/members",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/members/invite", "admin"),
    ("POST", "/{project}/members/invite/revoke", "admin"),
    ("POST", "/{project}/members/role", "admin"),
    ("POST", "/{project}/members/remove", "admin"),
    // Datasets.
    (
        "GET",
        "/api/v1/datasets",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/datasets", "admin editor"),
    (
        "GET",
        "/api/v1/datasets/{name}",
        "admin editor product_owner auditor viewer",
    ),
    ("DELETE", "/api/v1/datasets/{name}", "admin editor"),
    (
        "GET",
        "/api/v1/datasets/{name}/versions",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/datasets/{name}/versions", "admin editor"),
    (
        "GET",
        "/api/v1/datasets/{name}/examples",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/datasets/{name}/examples/{id}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/datasets/{name}/diff",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/datasets/{name}/export",
        "admin editor product_owner auditor viewer",
    ),
    (
        "POST",
        "/api/v1/datasets/{name}/examples/from-traces",
        "admin editor",
    ),
    ("POST", "/api/v1/datasets/{name}/splits", "admin editor"),
    (
        "GET",
        "/api/v1/datasets/{name}/alike",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/dataset-uploads", "admin editor"),
    ("POST", "/api/v1/dataset-uploads/preview", "admin editor"),
    ("POST", "/api/v1/datasets/{name}/import", "admin editor"),
    (
        "GET",
        "/{project}/datasets",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/datasets", "admin editor"),
    ("GET", "/{project}/datasets/new", "admin editor"),
    (
        "GET",
        "/{project}/datasets/show",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/datasets/versions",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/datasets/diff",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/datasets/alike",
        "admin editor product_owner auditor viewer",
    ),
    ("GET", "/{project}/datasets/settings", "admin editor"),
    ("POST", "/{project}/datasets/settings", "admin editor"),
    ("POST", "/{project}/datasets/splits", "admin editor"),
    ("POST", "/{project}/datasets/delete", "admin editor"),
    (
        "GET",
        "/{project}/datasets/example",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/datasets/example", "admin editor"),
    ("POST", "/{project}/datasets/example/remove", "admin editor"),
    ("GET", "/{project}/datasets/import", "admin editor"),
    ("POST", "/{project}/datasets/import", "admin editor"),
    ("GET", "/{project}/datasets/add", "admin editor"),
    ("POST", "/{project}/datasets/add", "admin editor"),
    (
        "GET",
        "/api/public/v2/datasets",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/public/v2/datasets", "admin editor"),
    (
        "GET",
        "/api/public/v2/datasets/{name}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/public/datasets",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/public/datasets", "admin editor"),
    (
        "GET",
        "/api/public/datasets/{name}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/public/dataset-items",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/public/dataset-items", "admin editor"),
    (
        "GET",
        "/api/public/dataset-items/{id}",
        "admin editor product_owner auditor viewer",
    ),
    ("DELETE", "/api/public/dataset-items/{id}", "admin editor"),
    (
        "GET",
        "/api/public/experiments",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/public/experiment-items",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/public/dataset-run-items",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/public/dataset-run-items", "admin editor"),
    (
        "GET",
        "/api/public/datasets/{name}/runs",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/public/datasets/{name}/runs/{run}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "DELETE",
        "/api/public/datasets/{name}/runs/{run}",
        "admin editor",
    ),
    (
        "POST",
        "/api/public/scores",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/api/public/v3/scores",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/public/otel/v1/traces",
        "admin editor product_owner caller",
    ),
    (
        "GET",
        "/{project}/datasets/runs",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/datasets/run",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/datasets/run/delete", "admin editor"),
    (
        "POST",
        "/api/v1/datasets/{name}/transform/preview",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/datasets/{name}/transform", "admin editor"),
    ("GET", "/{project}/datasets/transform", "admin editor"),
    ("POST", "/{project}/datasets/transform", "admin editor"),
    ("POST", "/api/v1/evaluations/import", "admin editor"),
    ("GET", "/{project}/evaluations/import", "admin editor"),
    ("POST", "/{project}/evaluations/import", "admin editor"),
    (
        "GET",
        "/api/v1/evaluations/{id}/distributions",
        "admin editor product_owner auditor viewer",
    ),
    // Review.
    (
        "GET",
        "/api/v1/review/inbox",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/api/v1/review/inbox/{name}",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/api/v1/review/inbox/{name}/next",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/api/v1/review/inbox/{name}/undo",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/api/v1/review/inbox/{name}/release",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/api/v1/review/inbox/{name}/mine",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/api/v1/review/items/{id}/mine",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/api/v1/review/items/{id}/label",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/api/v1/review/items/{id}/skip",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/api/v1/review/queues",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/review/queues/{name}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/review/queues/{name}/items",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/review/queues/{name}/export",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/review/items/{id}",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/api/v1/review/queues/{name}/guests",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/api/v1/review/queues/{name}/fill", "admin editor"),
    ("POST", "/api/v1/review/queues/{name}/gold", "admin editor"),
    (
        "POST",
        "/api/v1/review/queues/{name}/guests",
        "admin editor",
    ),
    ("DELETE", "/api/v1/review/guests/{id}", "admin editor"),
    (
        "POST",
        "/api/v1/review/items/{id}/adjudicate",
        "admin editor",
    ),
    ("POST", "/api/v1/review/items/{id}/close", "admin editor"),
    ("POST", "/api/v1/review/items/{id}/reopen", "admin editor"),
    (
        "GET",
        "/{project}/review",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/{project}/review/{name}",
        "admin editor product_owner labeller",
    ),
    (
        "POST",
        "/{project}/review/{name}",
        "admin editor product_owner labeller",
    ),
    (
        "GET",
        "/{project}/review-queues",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/review-queues/show",
        "admin editor product_owner auditor viewer",
    ),
    (
        "GET",
        "/{project}/review-queues/item",
        "admin editor product_owner auditor viewer",
    ),
    ("POST", "/{project}/review-queues/item", "admin editor"),
    ("GET", "/{project}/review-queues/edit", "admin editor"),
    ("POST", "/{project}/review-queues/edit", "admin editor"),
    ("GET", "/{project}/review-queues/fill", "admin editor"),
    ("POST", "/{project}/review-queues/fill", "admin editor"),
    ("POST", "/{project}/review-queues/gold", "admin editor"),
    ("POST", "/{project}/review-queues/guests", "admin editor"),
    (
        "POST",
        "/{project}/review-queues/guests/revoke",
        "admin editor",
    ),
    // Trees of files.
    (
        "GET",
        "/api/v1/gitops/export",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/gitops/validate",
        "admin editor product_owner auditor viewer caller",
    ),
    (
        "POST",
        "/api/v1/gitops/plan",
        "admin editor product_owner auditor viewer caller",
    ),
    ("POST", "/api/v1/gitops/apply", "admin editor"),
    (
        "GET",
        "/api/v1/gitops/blobs/{digest}",
        "admin editor product_owner auditor viewer caller",
    ),
    ("PUT", "/api/v1/gitops/blobs/{digest}", "admin editor"),
];

/// An address on this route that no row has.
fn address(path: &str) -> String {
    let filled = path
        .replace("{project}", "default")
        .replace("{*file}", "nothing.js")
        .replace("{*id}", "no/model");
    let filled = filled
        .replace("{kind}", "prompt")
        .replace("{span}", "0123456789abcdef")
        .replace("{version}", "7")
        .replace("{place}", "7")
        .replace("{number}", "7")
        .replace("{run}", "norun")
        .replace("{label}", "nolabel")
        .replace("{digest}", &format!("sha256:{}", "0".repeat(64)));
    let filled = filled
        .replace("{name}", "nothing")
        .replace("{user_id}", NO_ID)
        .replace("{id}", NO_ID);
    assert!(!filled.contains('{'), "no value for a parameter of {path}");
    filled
}

fn is_page(path: &str) -> bool {
    path.starts_with("/{project}")
}

/// The head of the answer is enough, and all there is of a live tail.
fn status_of(client: &Client, method: &str, path: &str) -> u16 {
    let mut stream = client.call(method, path).open();
    let head = crate::harness::read_until(&mut stream, "\r\n");
    head[9..12].parse().unwrap()
}

#[test]
fn every_route_says_who_it_is_for() {
    let name = |method: &str, path: &str| format!("{method} {path}");
    let routes: BTreeSet<String> = server::http::routes()
        .iter()
        .map(|route| name(route.method.as_str(), route.path))
        .collect();
    let expected: BTreeSet<String> = EXPECTED
        .iter()
        .map(|(method, path, _)| name(method, path))
        .collect();
    let unexpected: Vec<_> = routes.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&routes).collect();
    assert!(
        unexpected.is_empty(),
        "say in EXPECTED who may call: {unexpected:?}"
    );
    assert!(missing.is_empty(), "these routes are gone: {missing:?}");
}

#[test]
fn mlflow_2026_2652_no_side_doors() {
    let place = Place::new();
    let live = place.start();
    let stranger = live.anonymous();
    let wrong_key = live.with_key("mgr_dev_wrong");
    for (method, path, who) in EXPECTED {
        let address = address(path);
        for client in [&stranger, &wrong_key] {
            let status = status_of(client, method, &address);
            match *who {
                // They answer something of their own: 200, a form that was not understood, a missing file.
                "everybody" => assert!(
                    ![401, 403].contains(&status) || *path == "/setup",
                    "{method} {path}: {status}"
                ),
                _ if is_page(path) && *method == "GET" => {
                    assert_eq!(status, 303, "{method} {path}")
                }
                _ => assert_eq!(status, 401, "{method} {path}"),
            }
        }
    }
    // What is not in the table does not exist, whoever asks.
    for path in [
        "/v1",
        "/v1/traces",
        "/v1/keys",
        "/metrics",
        "/debug/pprof",
        "/mcp",
        "/api",
        "/api/keys",
        "/api/v2/keys",
        "/api/v1/jobs",
        "/assets",
    ] {
        for client in [&stranger, &live.with_key(&place.key)] {
            assert_eq!(status_of(client, "GET", path), 404, "{path}");
            assert_eq!(status_of(client, "POST", path), 404, "{path}");
        }
    }
    // These could be projects' pages, which lead to the sign-in page.
    for path in ["/graphql", "/.env", "/admin", "/default/nothing"] {
        assert!(
            [303, 404].contains(&status_of(&stranger, "GET", path)),
            "{path}"
        );
    }
    // A method that a path does not have is no way around its permission.
    for method in ["PATCH", "TRACE", "CONNECT", "PROPFIND", "OPTIONS"] {
        let status = status_of(&stranger, method, "/api/v1/keys");
        assert!([400, 404, 405].contains(&status), "{method}: {status}");
    }
    assert_eq!(status_of(&stranger, "HEAD", "/api/v1/keys"), 401);
}

on_both_databases!(every_role_gets_what_it_may_and_no_more);

fn every_role_gets_what_it_may_and_no_more(place: Place) {
    let place = place.with_key("admin");
    let live = place.start();
    let mut callers: Vec<(&str, bool, Client)> = Vec::new();
    for role in PEOPLE {
        callers.push((
            role,
            true,
            live.browser_of(&place.add_person("default", role)),
        ));
    }
    for role in PEOPLE.into_iter().chain(["caller"]) {
        callers.push((
            role,
            false,
            live.with_key(&place.make_key("default", role).1),
        ));
    }
    let mut wrong = Vec::new();
    for (method, path, who) in EXPECTED.iter().filter(|(_, _, who)| *who != "everybody") {
        for (role, is_person, client) in &callers {
            let status = status_of(client, method, &address(path));
            let allowed = who.split(' ').any(|may| may == *role);
            let right = if is_page(path) && !is_person {
                // A key opens no page.
                status == 401 || status == 303
            } else if allowed {
                // The row is missing or the body is: anything but a matter of permission.
                ![401, 403, 303, 500].contains(&status) || (status == 303 && *method == "POST")
            } else {
                status == 403
            };
            if !right {
                let kind = if *is_person { "person" } else { "key" };
                wrong.push(format!("{method} {path} by {role} ({kind}): {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Everything that the project `default` has one of.
struct Things {
    ids: Vec<(&'static str, String)>,
}

fn make_things(place: &Place, live: &Live) -> Things {
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let trace = admin.chat(&question("a secret of the first project"));
    let shown = admin.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    let span = shown["spans"][0]["span_id"].as_str().unwrap().to_owned();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let provider = text(&admin.get("/api/v1/providers/fake").json()["id"]);
    let prompt = json!({"name": "secret", "content": {"messages": [{"role": "system", "content": "be brief"}]}});
    assert_eq!(admin.post("/api/v1/prompts", &prompt).status, 201);
    let moved = admin.put(
        "/api/v1/prompts/secret/labels/production",
        &json!({"version": 1}),
    );
    assert_eq!(moved.status, 200, "{moved:?}");
    let key = place.make_key("default", "caller").0;
    let member = place.add_person("default", "viewer").id;
    let invite = admin
        .post(
            "/api/v1/invites",
            &json!({"email": "a@example.test", "role": "viewer"}),
        )
        .json();
    let ids = vec![
        ("trace", trace),
        ("span", span),
        ("provider", provider),
        ("provider name", "fake".to_owned()),
        ("prompt", "secret".to_owned()),
        ("key", key),
        ("member", member),
        ("invite", text(&invite["invite"]["id"])),
    ];
    Things { ids }
}

impl Things {
    fn id(&self, what: &str) -> &str {
        &self.ids.iter().find(|(name, _)| *name == what).unwrap().1
    }
}

/// What the stranger gets for a thing of the other project and for one that does not exist.
fn compare(client: &Client, method: &str, known: &str, unknown: &str, body: Option<&Value>) {
    let ask = |path: &str| {
        let call = client.call(method, path);
        let reply: Reply = body
            .map_or_else(|| client.call(method, path), |body| call.json(body))
            .send();
        let (status, text) = reply.without_request_id();
        // The refusal repeats the name that was asked for.
        let asked: Vec<&str> = path
            .split(['/', '?', '='])
            .filter(|part| !part.is_empty())
            .collect();
        (
            status,
            asked
                .iter()
                .filter(|part| part.len() > 3)
                .fold(text, |text, part| text.replace(part, "ASKED")),
        )
    };
    let (theirs, none) = (ask(known), ask(unknown));
    assert_eq!(theirs.0, 404, "{method} {known}: {theirs:?}");
    assert_eq!(theirs, none, "{method} {known}");
}

on_both_databases!(dify_2026_41947_other_project_is_404);

fn dify_2026_41947_other_project_is_404(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    let things = make_things(&place, &live);
    place.add_project("other");
    let key = live.with_key(&place.make_key("other", "admin").1);
    let person = live.browser_of(&place.add_person("other", "admin"));
    let provider =
        json!({"name": "stolen", "protocol": "openai", "base_url": "https://api.example.com/v1"});
    let id = |what: &str| things.id(what).to_owned();
    let missing = NO_ID.replace('-', "");
    for client in [&key, &person] {
        let trace = id("trace");
        compare(
            client,
            "GET",
            &format!("/api/v1/traces/{trace}"),
            &format!("/api/v1/traces/{missing}"),
            None,
        );
        let body = format!("spans/{}/body", id("span"));
        compare(
            client,
            "GET",
            &format!("/api/v1/traces/{trace}/{body}"),
            &format!("/api/v1/traces/{missing}/{body}"),
            None,
        );
        for provider_id in [id("provider"), id("provider name")] {
            let (known, unknown) = (
                format!("/api/v1/providers/{provider_id}"),
                "/api/v1/providers/nothing".to_owned(),
            );
            compare(client, "GET", &known, &unknown, None);
            compare(client, "PUT", &known, &unknown, Some(&provider));
            compare(
                client,
                "POST",
                &format!("{known}/test"),
                &format!("{unknown}/test"),
                None,
            );
            compare(client, "DELETE", &known, &unknown, None);
        }
        for rest in ["versions", "versions/1", "versions/production"] {
            let (known, unknown) = (
                format!("/api/v1/prompts/secret/{rest}"),
                format!("/api/v1/prompts/nothing/{rest}"),
            );
            compare(client, "GET", &known, &unknown, None);
        }
        let version = json!({"version": 1});
        compare(
            client,
            "PUT",
            "/api/v1/prompts/secret/labels/production",
            "/api/v1/prompts/nothing/labels/production",
            Some(&version),
        );
        for (path, what, method, body) in [
            ("keys", "key", "DELETE", None),
            ("members", "member", "DELETE", None),
            ("members", "member", "PUT", Some(json!({"role": "viewer"}))),
            ("invites", "invite", "DELETE", None),
        ] {
            let known = format!("/api/v1/{path}/{}", id(what));
            compare(
                client,
                method,
                &known,
                &format!("/api/v1/{path}/{NO_ID}"),
                body.as_ref(),
            );
        }
        // Lists hold nothing of the other project.
        for path in ["/api/v1/prompts", "/api/v1/providers"] {
            assert_eq!(client.get(path).json()["items"], json!([]), "{path}");
        }
        assert!(!client.get("/api/v1/traces").text().contains(&trace));
        for path in [
            "/api/v1/prompts/secret/labels",
            "/api/v1/prompts/secret/moves",
        ] {
            let (theirs, none) = (
                client.get(path),
                client.get(&path.replace("secret", "nothing")),
            );
            assert_eq!(
                (theirs.status, theirs.text()),
                (none.status, none.text()),
                "{path}"
            );
        }
        let keys = client.get("/api/v1/keys").text();
        assert!(!keys.contains(&id("key")), "{keys}");
        let chat = client.post("/v1/chat/completions", &question("hello"));
        let none = client.post(
            "/v1/chat/completions",
            &json!({"model": "none/tiny", "messages": [{"role": "user", "content": "x"}]}),
        );
        assert_eq!(
            (chat.status, chat.code()),
            (none.status, none.code()),
            "{chat:?}"
        );
    }
    // Naming the project does not help: a key is bound to its own, a person is no member.
    let named = key
        .call("GET", "/api/v1/prompts")
        .header("x-meguri-project", "default")
        .send();
    assert_eq!(named.json()["items"], json!([]));
    for (method, path, who) in EXPECTED.iter().filter(|(_, path, _)| is_page(path)) {
        let known = address(path);
        let unknown = known.replacen("default", "nowhere", 1);
        let form = |path: &str| {
            let reply = person
                .call(method, path)
                .body("application/x-www-form-urlencoded", b"")
                .send();
            let (status, text) = reply.without_request_id();
            (
                status,
                text.replace("default", "PROJECT")
                    .replace("nowhere", "PROJECT"),
            )
        };
        let theirs = form(&known);
        assert_eq!(theirs.0, 404, "{method} {path} ({who})");
        assert_eq!(theirs, form(&unknown), "{method} {path}");
    }
    // And nothing was changed.
    let admin = live.with_key(&place.key);
    assert_eq!(
        admin.get("/api/v1/providers/fake").json()["base_url"],
        format!("{}", place.fake.openai_url())
    );
    assert_eq!(
        admin.get("/api/v1/prompts/secret/versions").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let keys = admin.get("/api/v1/keys").json();
    let kept = keys["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["id"] == things.id("key"))
        .unwrap();
    assert_eq!(kept["revoked_at"], Value::Null);
    let members = admin.get("/api/v1/members").json();
    assert_eq!(
        (
            members["items"].as_array().unwrap().len(),
            members["invites"].as_array().unwrap().len()
        ),
        (1, 1)
    );
}

/// An id and a name reach a thing through the same checks and give the same answer.
#[test]
fn langflow_2026_55255_id_like_name() {
    let place = Place::new();
    let live = place.start();
    let viewer = live.with_key(&place.make_key("default", "viewer").1);
    let by_name = viewer.get("/api/v1/providers/fake");
    let id = by_name.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        viewer.get(&format!("/api/v1/providers/{id}")).json(),
        by_name.json()
    );
    for named in ["fake", &id] {
        assert_eq!(
            viewer.delete(&format!("/api/v1/providers/{named}")).status,
            403,
            "{named}"
        );
    }
}
