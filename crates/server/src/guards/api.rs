//! Guards over JSON: a check for other gateways, policies tried on calls of the past, figures over
//! labelled texts, and what policies in force have found. Policies themselves are saved, labelled
//! and promoted through the catalog's routes, like every kind.

use axum::Json as Answer;
use axum::extract::State;
use guard::Point;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Found;
use super::check::{self, Beside, Checked, Piece, Subject};
use super::measure::{self, Measured, What};
use super::traffic::{self, Hits, Tried};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::traces::AskText;

/// A body of labelled texts.
const LABELLED_BYTES: usize = 32 << 20;

pub(super) fn routes() -> Vec<Route> {
    let check = Access::Needs(Permission::CheckGuards);
    let doc = |summary| Doc::new("guards", summary);
    vec![
        Route::post("/api/v1/guard/check", check, check_text)
            .body_limit(usize::MAX)
            .doc(
                doc("What a policy says of a text or of messages; nothing is called or stored")
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
        Route::get(
            "/api/v1/guard/hits",
            Access::Needs(Permission::ReadTraces),
            hits,
        )
        .doc(
            doc("What policies in force have found, by rule")
                .query::<HitsQuery>()
                .answer::<Hits>(),
        ),
    ]
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
    check::check(&found, subject, &body.context)
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
    Json(body): Json<Measure>,
) -> Result<Answer<Measured>> {
    let found = policy(&app, &identity, &body.policy, body.version.as_deref()).await?;
    let items = match (&body.dataset, &body.jsonl) {
        (Some(name), None) => {
            identity.require(Permission::ReadDatasets)?;
            measure::of_dataset(&app, identity.scope(), name).await?
        }
        (None, Some(lines)) => measure::of_lines(lines)?,
        _ => return Err(AppError::invalid("send either dataset or jsonl").at("dataset")),
    };
    let what = What {
        point: body.point.unwrap_or(Point::Input),
        rule: body.rule,
    };
    measure::measure(&found, items, what).await.map(Answer)
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
