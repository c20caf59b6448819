//! Guards over JSON: a check for other gateways, policies tried on calls of the past, figures over
//! labelled texts, and what policies in force have found. Policies themselves are saved, labelled
//! and promoted through the catalog's routes, like every kind.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use guard::Point;
use http::header;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Found;
use super::asker::Asker;
use super::check::{self, Beside, Checked, Piece, Subject};
use super::finds::{self, FindJson, Finds, Wanted};
use super::labelled::{self, Taken};
use super::measure::{self, Measured, What};
use super::recorded::FindId;
use super::traffic::{self, Hits, Tried};
use super::verdict::{self, Given, Verdict};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, RequestContext, Route};
use crate::openapi::Doc;
use crate::traces::AskText;

/// A body of labelled texts.
const LABELLED_BYTES: usize = 32 << 20;

pub(super) fn routes() -> Vec<Route> {
    let check = Access::Needs(Permission::CheckGuards);
    let read = Access::Needs(Permission::ReadTraces);
    let doc = |summary| Doc::new("guards", summary);
    vec![
        Route::post("/api/v1/guard/check", check, check_text)
            .body_limit(usize::MAX)
            .doc(
                doc("What a policy says of a text or of messages; no text is stored")
                    .body::<Check>()
                    .answer::<Checked>(),
            ),
        Route::post("/api/v1/guard/measure", check, measure_policy)
            .body_limit(LABELLED_BYTES)
            .doc(
                doc("Figures of a policy over labelled texts, and what each threshold would give")
                    .body::<Measure>()
                    .answer::<Measured>(),
            ),
        Route::post("/api/v1/guard/try", check, try_policy)
            .body_limit(1 << 20)
            .doc(
                doc("What a policy would have found in calls of the past")
                    .body::<Try>()
                    .answer::<Tried>(),
            ),
        Route::get("/api/v1/guard/hits", read, hits).doc(
            doc("What policies in force have found, by rule")
                .query::<HitsQuery>()
                .answer::<Hits>(),
        ),
        Route::get("/api/v1/guard/finds", read, list_finds).doc(
            doc("What guards found in calls, one row a find, the newest first")
                .query::<Wanted>()
                .answer::<Finds>(),
        ),
        Route::get("/api/v1/guard/finds/labelled", read, labelled_texts).doc(
            doc("Texts of finds that were judged, as JSON lines for measuring and training")
                .query::<Wanted>(),
        ),
        Route::post(
            "/api/v1/guard/finds/dataset",
            Access::Needs(Permission::WriteDatasets),
            append_texts,
        )
        .doc(
            doc("Add the texts of finds that were judged to a dataset")
                .body::<AppendTexts>()
                .answer::<Taken>(),
        ),
        Route::get("/api/v1/guard/finds/{id}", read, show_find)
            .doc(doc("One find").answer::<FindJson>()),
        Route::post(
            "/api/v1/guard/finds/{id}/verdict",
            Access::Needs(Permission::WriteScores),
            give_verdict,
        )
        .doc(
            doc("Say what a find was: right, a false alarm, or not sure")
                .body::<GiveVerdict>()
                .answer::<Given>(),
        ),
    ]
}

async fn list_finds(
    State(app): State<App>,
    identity: Identity,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Finds>> {
    finds::list(&app, identity.project.id, &wanted)
        .await
        .map(Answer)
}

async fn show_find(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<FindJson>> {
    let id = FindId::parse(&id)?;
    finds::one(&app, identity.project.id, id).await.map(Answer)
}

/// What a find was.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GiveVerdict {
    /// What it was.
    verdict: Verdict,
    /// Why.
    comment: Option<String>,
}

async fn give_verdict(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<GiveVerdict>,
) -> Result<Answer<Given>> {
    let id = FindId::parse(&id)?;
    verdict::give(&app, &identity, id, body.verdict, body.comment)
        .await
        .map(Answer)
}

async fn labelled_texts(
    State(app): State<App>,
    identity: Identity,
    Query(wanted): Query<Wanted>,
) -> Result<Response> {
    let labelled = labelled::texts(&app, identity.project.id, &wanted).await?;
    let header = [(header::CONTENT_TYPE, "application/jsonl; charset=utf-8")];
    Ok((header, labelled::lines(&labelled)?).into_response())
}

/// Where the texts go, and which finds they are of.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AppendTexts {
    /// The dataset's name; it is made if there is none.
    dataset: String,
    /// Which finds; those of the last 90 days that were judged, when nothing is said.
    #[serde(default)]
    finds: Wanted,
}

async fn append_texts(
    State(app): State<App>,
    identity: Identity,
    Json(body): Json<AppendTexts>,
) -> Result<Answer<Taken>> {
    identity.require(Permission::ReadTraces)?;
    let name = crate::datasets::parse_name(&body.dataset)?;
    labelled::append(&app, identity.scope(), &name, &body.finds)
        .await
        .map(Answer)
}

/// A policy's name, or a policy that is sent along.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Named {
    /// The name of one that is kept.
    Name(String),
    /// One that is kept nowhere.
    Inline(serde_json::Map<String, Value>),
}

/// Which policy is meant.
///
/// # Errors
/// There is none, or it cannot run.
async fn policy(
    app: &App,
    identity: &Identity,
    named: &Named,
    version: Option<&str>,
) -> Result<Found> {
    let name = match named {
        Named::Name(name) => super::parse_name(name)?,
        Named::Inline(content) => {
            let content = Value::Object(content.clone());
            return Found::inline(&app.catalog, identity.scope(), &content).await;
        }
    };
    match version {
        Some(version) => {
            let version = crate::catalog::parse_selector(version)?;
            super::find(&app.catalog, identity.scope(), &name, &version).await
        }
        None => super::in_force(app, identity, &name).await,
    }
}

/// What to check, and by which policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    /// The name of a policy, or a whole policy.
    policy: Named,
    /// Which version: a number, `latest`, a label or a digest. What holds in the key's environment
    /// when nothing is said.
    version: Option<String>,
    /// Where in a call the text stands; `input` when nothing is said.
    point: Option<Point>,
    /// The text.
    text: Option<String>,
    /// Messages in OpenAI's form, instead of a text: what users wrote counts as input, what
    /// assistants wrote as output, what tools returned as tool result.
    messages: Option<Vec<Value>>,
    /// What the check should know beside.
    #[serde(default)]
    context: Beside,
}

async fn check_text(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    Json(body): Json<Check>,
) -> Result<Answer<Checked>> {
    let subject = match (body.text, body.messages) {
        (Some(text), None) => Subject::Text(Piece::new(body.point.unwrap_or(Point::Input), text)),
        (None, Some(messages)) if body.point.is_none() => Subject::Messages(messages),
        (None, Some(_)) => {
            let why = "each message says by its role where it stands, so point goes with text only";
            return Err(AppError::invalid(why).at("point"));
        }
        _ => return Err(AppError::invalid("send either text or messages").at("text")),
    };
    let found = policy(&app, &identity, &body.policy, body.version.as_deref()).await?;
    let asker = Asker::new(&app, &identity, request.id);
    check::check(&found, subject, &body.context, Some(&asker))
        .await
        .map(Answer)
}

/// Labelled texts, and the policy to measure with them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Measure {
    /// The name of a policy, or a whole policy.
    policy: Named,
    /// Which version; what holds in the key's environment when nothing is said.
    version: Option<String>,
    /// Where in a call the texts stand; `input` when nothing is said.
    point: Option<Point>,
    /// Only this rule, with the curve of its threshold.
    rule: Option<String>,
    /// A dataset: the input is the text, the expected output its label.
    dataset: Option<String>,
    /// Labelled texts as JSON lines, instead of a dataset: `{"text", "label", "source"}`.
    jsonl: Option<String>,
}

async fn measure_policy(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    Json(body): Json<Measure>,
) -> Result<Answer<Measured>> {
    let found = policy(&app, &identity, &body.policy, body.version.as_deref()).await?;
    let items = match (&body.dataset, &body.jsonl) {
        (Some(name), None) => {
            identity.require(Permission::ReadDatasets)?;
            measure::of_dataset(&app.datasets, identity.scope(), name, None).await?
        }
        (None, Some(lines)) => measure::of_lines(lines)?,
        _ => return Err(AppError::invalid("send either dataset or jsonl").at("dataset")),
    };
    let what = What {
        point: body.point.unwrap_or(Point::Input),
        rule: body.rule,
    };
    let asker = Asker::new(&app, &identity, request.id);
    measure::measure(&found, items, what, Some(&asker))
        .await
        .map(Answer)
}

/// Which calls to try a policy on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Try {
    /// The name of a policy, or a whole policy.
    policy: Named,
    /// Which version; the latest when nothing is said.
    version: Option<String>,
    /// How many calls, the newest first; 200 when nothing is said, at most 1000.
    limit: Option<usize>,
    /// Which calls: `from`, `to`, `filter` and `q`, as for lists of traces. The last 24 hours when
    /// nothing is said.
    #[serde(default)]
    calls: AskText,
}

async fn try_policy(
    State(app): State<App>,
    identity: Identity,
    Json(body): Json<Try>,
) -> Result<Answer<Tried>> {
    identity.require(Permission::ReadTraces)?;
    let version = body.version.as_deref().unwrap_or("latest");
    let found = policy(&app, &identity, &body.policy, Some(version)).await?;
    let tried = traffic::try_on(&app, identity.scope(), &found, &body.calls, body.limit).await?;
    Ok(Answer(tried))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HitsQuery {
    /// Only those of this policy.
    policy: Option<String>,
    /// Since when: microseconds, RFC 3339 or relative; `-24h` when nothing is said.
    from: Option<String>,
}

async fn hits(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<HitsQuery>,
) -> Result<Answer<Hits>> {
    let found = traffic::hits(&app, identity.scope(), query.policy.as_deref(), query.from).await?;
    Ok(Answer(found))
}
