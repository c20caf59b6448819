//! Classifiers that learn from reviewed texts: what a reviewer said of finds becomes weights that
//! a policy can name.
//!
//! The result is a file of half a megabyte among the project's blobs, named by its digest. A rule
//! names it (`"classifier": "sha256:…"`), so a policy's version says for ever what ran, and a
//! rollback of the policy is one of the classifier. What the trainer can and cannot do is said in
//! `guard::classify::adapt`: it goes on from weights, it does not begin anew.

use axum::Json as Answer;
use axum::extract::State;
use base::Digest;
use db::{Catalog, Db, Scope};
use guard::bench::Item;
use guard::classify::{AdaptReport, Adapted, Labelled, Linear, Task, adapt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{check, measure};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// A body with texts.
const BODY_BYTES: usize = 32 << 20;
/// Texts of one training. More say little more, and take long.
const MOST_TEXTS: usize = 5_000;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::post("/api/v1/guard/classifiers", write, train_classifier)
            .body_limit(BODY_BYTES)
            .doc(
                Doc::new(
                    "guards",
                    "Teach a classifier from reviewed texts; rules name it by its digest",
                )
                .body::<Train>()
                .answer::<Trained>(),
            ),
    ]
}

/// What to learn, and from what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Train {
    /// What the classifier looks for.
    task: Task,
    /// A name for people; `injection-reviewed` when nothing is said.
    name: Option<String>,
    /// The classifier to go on from, by its digest; the one that comes with the program when
    /// nothing is said.
    base: Option<String>,
    /// A dataset of labelled texts.
    dataset: Option<String>,
    /// Labelled texts as JSON lines, instead of a dataset.
    jsonl: Option<String>,
}

/// A classifier that learned.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TrainedClassifier")]
pub struct Trained {
    /// What rules name it by: `"classifier": "sha256:…"`.
    pub digest: String,
    /// Its size.
    pub bytes: usize,
    /// The classifier that it went on from.
    pub base: String,
    /// What it learned from, and its figures before and after.
    pub report: AdaptReport,
}

async fn train_classifier(
    State(app): State<App>,
    identity: Identity,
    Json(body): Json<Train>,
) -> Result<Answer<Trained>> {
    let items = match (&body.dataset, &body.jsonl) {
        (Some(name), None) => {
            identity.require(Permission::ReadDatasets)?;
            measure::of_dataset(
                &app.datasets,
                identity.scope(),
                name,
                Some(body.task.name()),
            )
            .await?
        }
        (None, Some(lines)) => measure::of_lines(&measure::lines_of(lines, body.task.name()))?,
        _ => return Err(AppError::invalid("send either dataset or jsonl").at("dataset")),
    };
    let asked = Asked {
        task: body.task,
        name: body.name,
        base: body.base,
    };
    train(&app.db, &app.catalog, identity.scope(), asked, items)
        .await
        .map(Answer)
}

/// What is to be learned.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What the classifier looks for.
    pub task: Task,
    /// A name for people.
    pub name: Option<String>,
    /// The classifier to go on from; the program's when nothing is said.
    pub base: Option<String>,
}

/// Teaches a classifier and keeps it among the project's blobs.
///
/// # Errors
/// 400: there is nothing to learn from, or no such classifier to go on from.
pub async fn train(
    db: &Db,
    catalog: &Catalog,
    scope: Scope,
    asked: Asked,
    items: Vec<Item>,
) -> Result<Trained> {
    if items.len() > MOST_TEXTS {
        let why = format!("{} texts are more than {MOST_TEXTS}", items.len());
        return Err(AppError::invalid(why).code("too_many_texts"));
    }
    let base = base(catalog, scope, &asked)?;
    let task = asked.task;
    let name = asked
        .name
        .unwrap_or_else(|| format!("{}-reviewed", task.name()));
    let of = base.digest().to_string();
    let learned = check::off_thread(move || learn(&base, &name, &items)).await??;
    let Adapted { bytes, report } = learned;
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    crate::gitops::put_blob(catalog, scope.project, digest, bytes).await?;
    let mut tx = db.begin_write().await?;
    let subject = digest.to_string();
    let line = db::audit::Line::new(scope, "guard.classifier", &subject);
    line.detail(json!({"task": task.name(), "base": of, "learned": report.learned}))
        .write(&mut tx)
        .await?;
    tx.commit().await?;
    Ok(Trained {
        digest: subject,
        bytes: size,
        base: of,
        report,
    })
}

fn base(catalog: &Catalog, scope: Scope, asked: &Asked) -> Result<Linear> {
    let Some(name) = &asked.base else {
        return Ok(Linear::shipped(asked.task).clone());
    };
    let refuse = |why: String| AppError::invalid(why).code("bad_classifier").at("base");
    let bytes = super::classifier_bytes(catalog.blobs(scope.project).as_ref(), name);
    let base = Linear::read(&bytes.map_err(refuse)?).map_err(|error| refuse(error.to_string()))?;
    if base.header().task == asked.task {
        return Ok(base);
    }
    Err(refuse("it looks for something else".to_owned()))
}

fn learn(base: &Linear, name: &str, items: &[Item]) -> Result<Adapted> {
    let reviewed: Vec<Labelled> = items
        .iter()
        .map(|item| Labelled {
            text: item.text.clone(),
            positive: item.label,
            source: item.source.clone(),
            licence: String::new(),
        })
        .collect();
    adapt(base, name, &reviewed)
        .map_err(|error| AppError::invalid(error.to_string()).code("cannot_learn"))
}
