//! The page that compares two versions: their texts, their settings, and what
//! they render to with the same inputs.

use axum::extract::State;
use axum::response::Response;
use db::Version;
use db::catalog::{Change, Name, Selector};
use gateway::PromptDocument;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pages::{content_of, conversation, diff_href, only_text, show_href, versions_of};
use super::{KIND, diff, drafts, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Query;
use crate::http::{Access, Route};
use crate::ui::PageContext;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::get(
        "/{project}/prompts/diff",
        Access::Needs(Permission::ReadPrompts),
        show,
    )]
}

#[derive(Deserialize)]
struct DiffQuery {
    name: String,
    base: i64,
    version: i64,
    mode: Option<String>,
    /// A JSON object; the newer version's sample inputs where there is none.
    inputs: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<DiffQuery>,
) -> Result<Response> {
    let name = parse_name(&query.name)?;
    let (old, old_document) = version(&app, &identity, &name, query.base).await?;
    let (new, new_document) = version(&app, &identity, &name, query.version).await?;
    let split = query.mode.as_deref() == Some("split");
    // One message beside several: both under their roles, or everything would seem to have changed.
    let texts = match (only_text(&old_document), only_text(&new_document)) {
        (Some(old), Some(new)) => sides(old, new, split),
        _ => sides(
            &conversation(&old_document),
            &conversation(&new_document),
            split,
        ),
    };
    let changes = db::catalog::diff(&without_texts(&old_document), &without_texts(&new_document));
    let href = diff_href(&page, name.as_str(), query.base, query.version);
    let with_inputs = match &query.inputs {
        Some(inputs) => format!("{href}&inputs={}", super::pages::encode(inputs)),
        None => href,
    };
    let view = json!({
        "name": name.as_str(), "href": show_href(&page, name.as_str()), "base": query.base, "version": query.version,
        "mode": if split { "split" } else { "unified" },
        "mode_href": {"unified": with_inputs, "split": format!("{with_inputs}&mode=split")},
        "versions": version_menu(&app, &identity, &name).await?, "text": texts,
        "settings": changes.iter().map(setting).collect::<Vec<_>>(),
        "rendered": rendered(&app, &page, &identity, [(&old, &old_document), (&new, &new_document)], &query, split),
        "meta": meta(&app, &identity, &old, &new).await?,
    });
    page.render("prompts/diff.html", view).await
}

async fn version(
    app: &App,
    identity: &Identity,
    name: &Name,
    number: i64,
) -> Result<(Version, PromptDocument)> {
    let found = content_of(app, identity.scope(), name, &Selector::Number(number)).await?;
    found.ok_or_else(|| {
        AppError::not_found(format!(
            "the prompt {:?} has no version {number}",
            name.as_str()
        ))
    })
}

async fn version_menu(app: &App, identity: &Identity, name: &Name) -> Result<Vec<Value>> {
    let scope = identity.scope();
    let pointers = app.catalog.pointers(scope, KIND, name).await?;
    let row = |version: Version| {
        let here = pointers
            .iter()
            .filter(|pointer| pointer.number == version.number);
        let labels: Vec<&str> = here.map(|pointer| pointer.label.as_str()).collect();
        json!({"version": version.number, "labels": labels})
    };
    Ok(versions_of(app, scope, name)
        .await?
        .into_iter()
        .map(row)
        .collect())
}

/// One comparison of two texts in the layout that is asked for.
fn sides(old: &str, new: &str, split: bool) -> Value {
    let difference = diff::compare(old, new);
    json!({
        "same": difference.same, "added": difference.added, "removed": difference.removed,
        "unified": if split { json!([]) } else { json!(difference.unified) },
        "split": if split { json!(difference.split) } else { json!([]) },
    })
}

/// What is not compared line by line.
fn without_texts(document: &PromptDocument) -> Value {
    let mut value = document.to_value();
    if let Value::Object(fields) = &mut value {
        fields.retain(|key, _| key != "messages" && key != "template");
    }
    value
}

fn setting(change: &Change) -> Value {
    let text = |value: &Option<Value>| match value {
        None => Value::Null,
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(serde_json::to_string_pretty(other).unwrap_or_default()),
    };
    json!({"path": change.path, "old": text(&change.before), "new": text(&change.after)})
}

/// Both versions rendered with the same inputs, and how that differs.
fn rendered(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    versions: [(&Version, &PromptDocument); 2],
    query: &DiffQuery,
    split: bool,
) -> Value {
    let [(_, old), (_, new)] = versions;
    let mut problem = Value::Null;
    let inputs = match query
        .inputs
        .as_deref()
        .map(serde_json::from_str::<Map<String, Value>>)
    {
        Some(Ok(inputs)) => inputs,
        Some(Err(error)) => {
            problem = json!(page.t_with("diff-bad-inputs", &[("why", &error.to_string())]));
            Map::new()
        }
        // What only the older version needs is filled in from its own samples.
        None => {
            let mut inputs = old.sample_inputs();
            inputs.extend(new.sample_inputs());
            inputs
        }
    };
    let shown = query.inputs.clone();
    let shown = shown.unwrap_or_else(|| serde_json::to_string_pretty(&inputs).unwrap_or_default());
    let mut texts = Vec::new();
    for (version, document) in versions {
        match drafts::rendered(app, identity, document, &only_known(document, &inputs), &[]) {
            Ok(rendered) => texts.push(messages_text(&rendered.around(&[]))),
            Err(problems) if problem.is_null() => {
                let why: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let args = [
                    ("version", &*version.number.to_string()),
                    ("why", &*why.join("; ")),
                ];
                problem = json!(page.t_with("diff-not-rendered", &args));
            }
            Err(_) => {}
        }
    }
    let diff = match texts.as_slice() {
        [old, new] if problem.is_null() => sides(old, new, split),
        _ => Value::Null,
    };
    json!({"inputs": shown, "problem": problem, "diff": diff})
}

/// A version is not refused for inputs that only the other one knows.
fn only_known(document: &PromptDocument, inputs: &Map<String, Value>) -> Map<String, Value> {
    let known = document
        .inputs
        .as_ref()
        .and_then(|schema| schema["properties"].as_object());
    let Some(known) = known else {
        return inputs.clone();
    };
    let used = document.variables();
    let wanted = |name: &String| {
        known.contains_key(name)
            || used
                .iter()
                .any(|variable| variable.name.split('.').next() == Some(name))
    };
    let kept = inputs.iter().filter(|(name, _)| wanted(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn messages_text(messages: &[Value]) -> String {
    let text = |message: &Value| {
        let content = match &message["content"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!(
            "[{}]\n{content}\n",
            message["role"].as_str().unwrap_or_default()
        )
    };
    messages.iter().map(text).collect()
}

async fn meta(app: &App, identity: &Identity, old: &Version, new: &Version) -> Result<Vec<Value>> {
    let project = identity.scope().project;
    let people = crate::members::actor_names(
        &app.db,
        project,
        [old.author.as_str(), new.author.as_str()].into_iter(),
    )
    .await?;
    let rows = [
        (
            "author",
            people[&old.author].clone(),
            people[&new.author].clone(),
        ),
        ("message", old.message.clone(), new.message.clone()),
    ];
    let differ = rows
        .into_iter()
        .filter(|(_, before, after)| before != after);
    Ok(differ
        .map(|(key, before, after)| json!({"key": key, "old": before, "new": after}))
        .collect())
}
