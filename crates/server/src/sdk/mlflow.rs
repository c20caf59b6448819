//! MLflow's model registry, as far as its prompt client uses it: a prompt is a
//! registered model with the tag `mlflow.prompt.is_prompt`, a version is a model
//! version whose text is in a tag, an alias is a label.
//!
//! Only prompts live here: whatever asks for another kind of model is told that
//! there is none. Numbers of 64 bits are JSON numbers, unset fields are left out.

use std::collections::{BTreeMap, HashMap};

use axum::Json as Answer;
use axum::extract::State;
use db::audit::Line;
use db::catalog::{Name, Selector};
use db::{Document, Scope, WriteTx};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::content::Body;
use super::filter::{self, Subject};
use super::langfuse::set_labels;
use super::{Indexed, author, find, missing, parse_name, save_in, store};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Query, Raw, parse_json};
use crate::http::{Access, Route};
use crate::openapi::Doc;

const IS_PROMPT: &str = "mlflow.prompt.is_prompt";
const TEXT: &str = "mlflow.prompt.text";
const TYPE: &str = "_mlflow_prompt_type";
const RESPONSE_FORMAT: &str = "_mlflow_prompt_response_format";
const MODEL_CONFIG: &str = "_mlflow_prompt_model_config";
/// The key of a description among what is attached; no client's tag has a space.
const DESCRIPTION: &str = "meguri description";
/// MLflow's own limits.
const KEY_CHARS: usize = 250;
const VALUE_BYTES: usize = 100_000;
const MOST_RESULTS: usize = 1000;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadPrompts);
    let write = Access::Needs(Permission::WritePrompts);
    let doc = |summary| Doc::new("mlflow", summary);
    vec![
        Route::get("/health", Access::Public, health),
        Route::get("/version", Access::Public, version),
        Route::post(
            "/api/2.0/mlflow/registered-models/create",
            write,
            create_model,
        )
        .doc(doc("Make a prompt without versions")),
        Route::get("/api/2.0/mlflow/registered-models/get", read, get_model).doc(doc("A prompt")),
        Route::get(
            "/api/2.0/mlflow/registered-models/search",
            read,
            search_models,
        )
        .doc(doc("Prompts by name and tags")),
        Route::patch(
            "/api/2.0/mlflow/registered-models/update",
            write,
            update_model,
        )
        .doc(doc("Describe a prompt")),
        Route::delete(
            "/api/2.0/mlflow/registered-models/delete",
            write,
            delete_model,
        )
        .doc(doc("Delete a prompt")),
        Route::post(
            "/api/2.0/mlflow/registered-models/set-tag",
            write,
            set_model_tag,
        )
        .doc(doc("Tag a prompt")),
        Route::delete(
            "/api/2.0/mlflow/registered-models/delete-tag",
            write,
            delete_model_tag,
        )
        .doc(doc("Take a prompt's tag away")),
        Route::post("/api/2.0/mlflow/registered-models/alias", write, set_alias)
            .doc(doc("Point a label to a version")),
        Route::get(
            "/api/2.0/mlflow/registered-models/alias",
            read,
            get_by_alias,
        )
        .doc(doc("The version that a label points to")),
        Route::delete(
            "/api/2.0/mlflow/registered-models/alias",
            write,
            delete_alias,
        )
        .doc(doc("Take a label away")),
        Route::get(
            "/api/2.0/mlflow/registered-models/get-latest-versions",
            read,
            latest_versions,
        )
        .doc(doc("A prompt's newest version")),
        Route::post(
            "/api/2.0/mlflow/registered-models/get-latest-versions",
            read,
            latest_versions_posted,
        )
        .doc(doc("A prompt's newest version")),
        Route::post(
            "/api/2.0/mlflow/model-versions/create",
            write,
            create_version,
        )
        .body_limit(5 << 20)
        .doc(doc("Save a version of a prompt")),
        Route::get("/api/2.0/mlflow/model-versions/get", read, get_version)
            .doc(doc("A version of a prompt")),
        Route::get(
            "/api/2.0/mlflow/model-versions/search",
            read,
            search_versions,
        )
        .doc(doc("A prompt's versions, newest first")),
        Route::patch(
            "/api/2.0/mlflow/model-versions/update",
            write,
            update_version,
        )
        .doc(doc("Describe a version")),
        Route::delete(
            "/api/2.0/mlflow/model-versions/delete",
            write,
            delete_version,
        )
        .doc(doc("Refused: versions stay as they are")),
        Route::post(
            "/api/2.0/mlflow/model-versions/set-tag",
            write,
            set_version_tag,
        )
        .doc(doc("Tag a version")),
        Route::delete(
            "/api/2.0/mlflow/model-versions/delete-tag",
            write,
            delete_version_tag,
        )
        .doc(doc("Take a version's tag away")),
    ]
}

async fn health() -> &'static str {
    "OK"
}

/// The MLflow release whose registry this follows; clients refuse to talk to what is too old.
async fn version() -> &'static str {
    "3.17.0"
}

/// MLflow sends some deletions and reads with a body and some with a query, by release.
fn read_either<T: DeserializeOwned>(body: &[u8], query: HashMap<String, String>) -> Result<T> {
    if body.iter().any(|byte| !byte.is_ascii_whitespace()) {
        return parse_json(body);
    }
    let map: Map<String, Value> = query
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    serde_json::from_value(Value::Object(map))
        .map_err(|error| AppError::invalid(format!("the query was not understood: {error}")))
}

type Params = Query<HashMap<String, String>>;

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct CreateModel {
    name: String,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
}

async fn create_model(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let new: CreateModel = parse_json(&body)?;
    let scope = identity.scope();
    let name = parse_name(&new.name)?;
    if !new
        .tags
        .iter()
        .any(|tag| tag.key == IS_PROMPT && tag.value == "true")
    {
        return Err(AppError::new_status(
            axum::http::StatusCode::NOT_IMPLEMENTED,
            "not_implemented",
            "this registry holds prompts only: a registered model needs the tag mlflow.prompt.is_prompt",
        ));
    }
    if model(&app, scope, &name).await?.is_some() {
        return Err(
            AppError::conflict(format!("Registered Model (name={name}) already exists."))
                .code("exists"),
        );
    }
    let mut changes: Vec<Change> = new.tags.iter().map(Change::Tag).collect();
    changes.extend(new.description.as_deref().map(Change::Description));
    let place = Place { name, number: 0 };
    change_attached(&app, scope, &place, &changes).await?;
    answer_model(&app, scope, &place.name).await
}

/// What something is attached to: a version of a prompt, or the prompt as a whole (0).
struct Place {
    name: Name,
    number: i64,
}

/// A change of what is attached somewhere.
enum Change<'a> {
    Tag(&'a Tag),
    NoTag(&'a str),
    Description(&'a str),
}

impl Change<'_> {
    fn key(&self) -> &str {
        match self {
            Self::Tag(tag) => &tag.key,
            Self::NoTag(key) => key,
            Self::Description(_) => DESCRIPTION,
        }
    }
}

async fn change_attached(
    app: &App,
    scope: Scope,
    place: &Place,
    changes: &[Change<'_>],
) -> Result<()> {
    let mut tx = app.db.begin_write().await?;
    change_attached_in(&mut tx, scope, place, changes).await?;
    Ok(tx.commit().await?)
}

/// Carries out the changes and says so in one line of the audit log: which keys, not their values.
async fn change_attached_in(
    tx: &mut WriteTx,
    scope: Scope,
    place: &Place,
    changes: &[Change<'_>],
) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let (name, number) = (place.name.as_str(), place.number);
    for change in changes {
        match change {
            Change::Tag(tag) => {
                check_tag(tag)?;
                store::attach(tx, scope, name, number, &tag.key, &tag.value).await?;
            }
            Change::NoTag(key) => store::detach(tx, scope, name, number, key).await?,
            Change::Description(text) => {
                store::attach(tx, scope, name, number, DESCRIPTION, text).await?;
            }
        }
    }
    let keys: Vec<&str> = changes.iter().map(Change::key).collect();
    let detail = json!({"number": number, "keys": keys});
    let line = Line::new(scope, "prompt.annotate", name).detail(detail);
    Ok(line.write(tx).await?)
}

fn check_tag(tag: &Tag) -> Result<()> {
    if tag.key.is_empty()
        || tag.key.chars().count() > KEY_CHARS
        || tag.key.contains('\0')
        || tag.key == DESCRIPTION
    {
        return Err(AppError::invalid(format!(
            "Invalid value {:?} for parameter 'key' supplied.",
            tag.key
        ))
        .at("key"));
    }
    if tag.value.len() > VALUE_BYTES || tag.value.contains('\0') {
        return Err(AppError::invalid(format!(
            "the value of the tag {:?} is too long or holds NUL",
            tag.key
        ))
        .at("value"));
    }
    Ok(())
}

/// A prompt as the registry sees it: with versions, or made and still empty.
struct Model {
    indexed: Option<Indexed>,
    attached: store::Attached,
}

async fn model(app: &App, scope: Scope, name: &Name) -> Result<Option<Model>> {
    let indexed = Indexed::find(app, scope, name).await?;
    let attached = store::attached(&app.db, scope, name.as_str()).await?;
    if indexed.is_none() && !attached.contains_key(&0) {
        return Ok(None);
    }
    Ok(Some(Model { indexed, attached }))
}

async fn existing(app: &App, scope: Scope, name: &Name) -> Result<Model> {
    let found = model(app, scope, name).await?;
    found.ok_or_else(|| missing(format!("Registered Model with name={name} not found")))
}

async fn answer_model(app: &App, scope: Scope, name: &Name) -> Result<Answer<Value>> {
    let found = existing(app, scope, name).await?;
    let latest = match &found.indexed {
        Some(indexed) => {
            let document = find(app, scope, name, &Selector::Number(indexed.latest())).await?;
            vec![version_json(app, scope, indexed, &found.attached, document).await?]
        }
        None => Vec::new(),
    };
    let tags = found.attached.get(&0).cloned().unwrap_or_default();
    Ok(Answer(
        json!({"registered_model": model_json(name.as_str(), found.indexed.as_ref(), tags, latest)}),
    ))
}

fn model_json(
    name: &str,
    indexed: Option<&Indexed>,
    mut tags: BTreeMap<String, String>,
    latest: Vec<Value>,
) -> Value {
    let description = tags.remove(DESCRIPTION);
    tags.insert(IS_PROMPT.to_owned(), "true".to_owned());
    let aliases = indexed.map(|entry| {
        entry
            .labels
            .iter()
            .map(|(label, number)| json!({"alias": label, "version": number.to_string()}))
            .collect::<Vec<_>>()
    });
    let at = indexed.map_or(0, |entry| entry.updated_at / 1000);
    let mut shown = json!({
        "name": name, "creation_timestamp": at, "last_updated_timestamp": at,
        "latest_versions": latest, "tags": tags_json(tags), "aliases": aliases.unwrap_or_default(),
    });
    if let Some(description) = description {
        shown["description"] = json!(description);
    }
    shown
}

fn tags_json(tags: BTreeMap<String, String>) -> Vec<Value> {
    tags.into_iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

async fn version_json(
    app: &App,
    scope: Scope,
    indexed: &Indexed,
    attached: &store::Attached,
    found: Document,
) -> Result<Value> {
    let Document { version, content } = found;
    let mut tags = attached.get(&version.number).cloned().unwrap_or_default();
    let description = tags
        .remove(DESCRIPTION)
        .unwrap_or_else(|| version.message.clone());
    let body = Body::of_document(&content);
    let body = super::partials::resolve(app, scope, body, &content).await?;
    tags.insert(IS_PROMPT.to_owned(), "true".to_owned());
    tags.insert(TYPE.to_owned(), body.kind().to_owned());
    tags.insert(TEXT.to_owned(), body.to_mlflow());
    if let Some(format) = content.get("response_format") {
        tags.insert(RESPONSE_FORMAT.to_owned(), format.to_string());
    }
    if let Some(config) = content["config"].get("mlflow_model_config") {
        tags.insert(MODEL_CONFIG.to_owned(), config.to_string());
    }
    let at = version.created_at / 1000;
    Ok(json!({
        "name": version.name.as_str(), "version": version.number.to_string(), "creation_timestamp": at, "last_updated_timestamp": at,
        "user_id": author(app, scope, &version).await?, "current_stage": "None", "description": description,
        "source": "dummy-source", "run_id": "", "status": "READY", "tags": tags_json(tags), "aliases": indexed.labels_of(version.number),
    }))
}

async fn get_model(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let Named { name } = read_either(&[], query)?;
    answer_model(&app, identity.scope(), &parse_name(&name)?).await
}

#[derive(Deserialize)]
struct Search {
    filter: Option<String>,
    max_results: Option<String>,
    page_token: Option<String>,
}

impl Search {
    /// Offset and size of the page. The token is the offset: these lists are made anew for every page.
    fn page(&self) -> Result<(usize, usize)> {
        let wrong = |at: &'static str| {
            move |_| {
                AppError::invalid(format!("Invalid value for parameter '{at}' supplied.")).at(at)
            }
        };
        let offset = self
            .page_token
            .as_deref()
            .filter(|token| !token.is_empty())
            .map_or(Ok(0), str::parse)
            .map_err(wrong("page_token"))?;
        let size = self
            .max_results
            .as_deref()
            .map_or(Ok(100), str::parse)
            .map_err(wrong("max_results"))?;
        Ok((offset, usize::clamp(size, 1, MOST_RESULTS)))
    }

    fn conditions(&self) -> Result<Vec<filter::Condition>> {
        filter::parse(self.filter.as_deref().unwrap_or_default())
    }
}

fn page_json<T>(
    all: Vec<T>,
    (offset, size): (usize, usize),
    field: &str,
    show: impl Fn(T) -> Value,
) -> Value {
    let more = all.len() > offset + size;
    let items: Vec<Value> = all.into_iter().skip(offset).take(size).map(show).collect();
    let mut answer = Map::new();
    answer.insert(field.to_owned(), Value::Array(items));
    if more {
        answer.insert(
            "next_page_token".to_owned(),
            json!((offset + size).to_string()),
        );
    }
    Value::Object(answer)
}

async fn search_models(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let search: Search = read_either(&[], query)?;
    let scope = identity.scope();
    let conditions = search.conditions()?;
    // Models that are no prompts do not live here; whoever does not ask for prompts finds nothing.
    let wants_prompts = conditions.iter().any(|condition| {
        condition.subject == Subject::Tag(IS_PROMPT.to_owned()) && condition.holds(Some("true"))
    });
    let mut found = Vec::new();
    if wants_prompts {
        let mut attached = store::of_names(&app.db, scope).await?;
        for entry in Indexed::all(&app, scope).await? {
            let tags = attached.remove(&entry.name).unwrap_or_default();
            found.push((entry.name.clone(), Some(entry), tags));
        }
        found.extend(attached.into_iter().map(|(name, tags)| (name, None, tags)));
        found.sort_by(|one, other| one.0.cmp(&other.0));
    }
    found.retain(|(name, _, tags)| {
        conditions.iter().all(|condition| match &condition.subject {
            Subject::Name => condition.holds(Some(name)),
            Subject::Tag(key) if key == IS_PROMPT => condition.holds(Some("true")),
            Subject::Tag(key) => condition.holds(tags.get(key).map(String::as_str)),
        })
    });
    let shown = page_json(
        found,
        search.page()?,
        "registered_models",
        |(name, entry, tags)| model_json(&name, entry.as_ref(), tags, Vec::new()),
    );
    Ok(Answer(shown))
}

#[derive(Deserialize)]
struct Described {
    name: String,
    version: Option<String>,
    #[serde(default)]
    description: String,
}

async fn update_model(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Described {
        name, description, ..
    } = parse_json(&body)?;
    let (scope, name) = (identity.scope(), parse_name(&name)?);
    existing(&app, scope, &name).await?;
    let place = Place { name, number: 0 };
    let change = Change::Description(&description);
    change_attached(&app, scope, &place, &[change]).await?;
    answer_model(&app, scope, &place.name).await
}

async fn delete_model(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Named { name } = read_either(&body, query)?;
    let (scope, name) = (identity.scope(), parse_name(&name)?);
    let found = existing(&app, scope, &name).await?;
    if found.indexed.is_some() {
        super::delete_prompt(&app, scope, &name).await?;
    } else {
        let mut tx = app.db.begin_write().await?;
        store::detach_all(&mut tx, scope, name.as_str()).await?;
        let line = Line::new(scope, "prompt.delete", name.as_str());
        line.write(&mut tx).await?;
        tx.commit().await?;
    }
    Ok(Answer(json!({})))
}

#[derive(Deserialize)]
struct Tagged {
    name: String,
    version: Option<String>,
    key: String,
    #[serde(default)]
    value: String,
}

impl Tagged {
    /// The prompt that a tag is for.
    async fn of_model(&self, app: &App, scope: Scope) -> Result<Place> {
        let name = parse_name(&self.name)?;
        existing(app, scope, &name).await?;
        Ok(Place { name, number: 0 })
    }

    /// The version that a tag is for. What makes the prompt cannot be changed as a tag.
    async fn of_version(&self, app: &App, scope: Scope) -> Result<Place> {
        if [IS_PROMPT, TEXT, TYPE, RESPONSE_FORMAT].contains(&self.key.as_str()) {
            return Err(AppError::invalid(format!(
                "the tag {} is part of the version, which stays as it is: save a new version",
                self.key
            ))
            .at("key"));
        }
        let (name, selector) = (parse_name(&self.name)?, number(self.version.as_deref())?);
        let version = find(app, scope, &name, &selector).await?.version;
        Ok(Place {
            name: version.name,
            number: version.number,
        })
    }

    async fn set(self, app: &App, scope: Scope, place: Place) -> Result<Answer<Value>> {
        let (key, value) = (self.key, self.value);
        let tag = Tag { key, value };
        change_attached(app, scope, &place, &[Change::Tag(&tag)]).await?;
        Ok(Answer(json!({})))
    }

    async fn remove(self, app: &App, scope: Scope, place: Place) -> Result<Answer<Value>> {
        change_attached(app, scope, &place, &[Change::NoTag(&self.key)]).await?;
        Ok(Answer(json!({})))
    }
}

async fn set_model_tag(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let tagged: Tagged = parse_json(&body)?;
    let place = tagged.of_model(&app, identity.scope()).await?;
    tagged.set(&app, identity.scope(), place).await
}

async fn delete_model_tag(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let tagged: Tagged = read_either(&body, query)?;
    let place = tagged.of_model(&app, identity.scope()).await?;
    tagged.remove(&app, identity.scope(), place).await
}

async fn set_version_tag(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let tagged: Tagged = parse_json(&body)?;
    let place = tagged.of_version(&app, identity.scope()).await?;
    tagged.set(&app, identity.scope(), place).await
}

async fn delete_version_tag(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let tagged: Tagged = read_either(&body, query)?;
    let place = tagged.of_version(&app, identity.scope()).await?;
    tagged.remove(&app, identity.scope(), place).await
}

#[derive(Deserialize)]
struct Alias {
    name: String,
    alias: String,
    version: Option<String>,
}

async fn set_alias(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Alias {
        name,
        alias,
        version,
    } = parse_json(&body)?;
    let (scope, name) = (identity.scope(), parse_name(&name)?);
    let found = find(&app, scope, &name, &number(version.as_deref())?).await?;
    let mut tx = app.db.begin_write().await?;
    set_labels(&app, &mut tx, scope, &found.version, &[alias]).await?;
    tx.commit().await?;
    app.refresh_plan().await?;
    Ok(Answer(json!({})))
}

async fn get_by_alias(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let Alias { name, alias, .. } = read_either(&[], query)?;
    let (scope, name) = (identity.scope(), parse_name(&name)?);
    let selector = match alias.as_str() {
        "latest" => Selector::Latest,
        label => Selector::Label(super::parse_label(label)?),
    };
    answer_version(&app, scope, &name, &selector).await
}

async fn delete_alias(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Alias { name, alias, .. } = read_either(&body, query)?;
    super::remove_label(&app, identity.scope(), &parse_name(&name)?, &alias).await?;
    Ok(Answer(json!({})))
}

async fn latest_versions(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let Named { name } = read_either(&[], query)?;
    newest(&app, identity.scope(), &name).await
}

async fn latest_versions_posted(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Named { name } = parse_json(&body)?;
    newest(&app, identity.scope(), &name).await
}

async fn newest(app: &App, scope: Scope, name: &str) -> Result<Answer<Value>> {
    let name = parse_name(name)?;
    let found = existing(app, scope, &name).await?;
    let Some(indexed) = &found.indexed else {
        return Ok(Answer(json!({})));
    };
    let document = find(app, scope, &name, &Selector::Latest).await?;
    let shown = version_json(app, scope, indexed, &found.attached, document).await?;
    Ok(Answer(json!({"model_versions": [shown]})))
}

#[derive(Deserialize)]
struct CreateVersion {
    name: String,
    #[serde(default)]
    tags: Vec<Tag>,
    description: Option<String>,
}

async fn create_version(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let new: CreateVersion = parse_json(&body)?;
    let (scope, name) = (identity.scope(), parse_name(&new.name)?);
    existing(&app, scope, &name).await?;
    let document = document_of(&new.tags)?;
    let mut tx = app.db.begin_write().await?;
    let message = new.description.as_deref().unwrap_or_default();
    let saved = save_in(&app, &mut tx, scope, &name, &document, message).await?;
    let own = [IS_PROMPT, TEXT, TYPE, RESPONSE_FORMAT, MODEL_CONFIG];
    let extra = new.tags.iter();
    let extra = extra.filter(|tag| !own.contains(&tag.key.as_str()));
    let changes: Vec<Change> = extra.map(Change::Tag).collect();
    let place = Place {
        name: name.clone(),
        number: saved.version.number,
    };
    change_attached_in(&mut tx, scope, &place, &changes).await?;
    tx.commit().await?;
    app.refresh_plan().await?;
    answer_version(&app, scope, &name, &Selector::Number(saved.version.number)).await
}

/// The document that a version's tags describe.
fn document_of(tags: &[Tag]) -> Result<Value> {
    let tag = |key: &str| {
        tags.iter()
            .find(|tag| tag.key == key)
            .map(|tag| tag.value.as_str())
    };
    let text = tag(TEXT).ok_or_else(|| {
        AppError::invalid(format!(
            "Missing value for required parameter 'tags': a prompt has the tag {TEXT}"
        ))
        .at("tags")
    })?;
    let json = |key: &str| {
        tag(key)
            .map(|text| {
                parse_json::<Value>(text.as_bytes()).map_err(|error| {
                    AppError::invalid(format!("the tag {key}: {}", error.message)).at("tags")
                })
            })
            .transpose()
    };
    let template = match tag(TYPE) {
        Some("chat") => parse_json(text.as_bytes())?,
        _ => json!(text),
    };
    let mut extra = Map::new();
    if let Some(format) = json(RESPONSE_FORMAT)? {
        extra.insert("response_format".to_owned(), format);
    }
    if let Some(config) = json(MODEL_CONFIG)? {
        extra.extend(parameters_of(&config));
        extra.insert("config".to_owned(), json!({"mlflow_model_config": config}));
    }
    Ok(Body::read(&template, "template")?.to_document(extra))
}

/// The parts of MLflow's model configuration that the gateway can use.
fn parameters_of(config: &Value) -> Map<String, Value> {
    const SAME: [&str; 6] = [
        "temperature",
        "max_tokens",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "stop",
    ];
    let mut parameters = Map::new();
    for name in SAME {
        if let Some(value) = config.get(name).filter(|value| !value.is_null()) {
            parameters.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(stop) = config
        .get("stop_sequences")
        .filter(|value| !value.is_null())
    {
        parameters.insert("stop".to_owned(), stop.clone());
    }
    let mut extra = Map::new();
    if let (Some(provider), Some(model)) =
        (config["provider"].as_str(), config["model_name"].as_str())
    {
        extra.insert("model".to_owned(), json!(format!("{provider}/{model}")));
    }
    if !parameters.is_empty() {
        extra.insert("parameters".to_owned(), Value::Object(parameters));
    }
    extra
}

fn number(version: Option<&str>) -> Result<Selector> {
    let wrong =
        || AppError::invalid("Invalid value for parameter 'version' supplied.").at("version");
    version
        .and_then(|text| text.parse().ok())
        .map(Selector::Number)
        .ok_or_else(wrong)
}

async fn answer_version(
    app: &App,
    scope: Scope,
    name: &Name,
    selector: &Selector,
) -> Result<Answer<Value>> {
    let found = existing(app, scope, name).await?;
    let document = find(app, scope, name, selector).await?;
    let Some(indexed) = &found.indexed else {
        return Err(missing(format!(
            "Registered Model with name={name} has no versions"
        )));
    };
    let shown = version_json(app, scope, indexed, &found.attached, document).await?;
    Ok(Answer(json!({"model_version": shown})))
}

#[derive(Deserialize)]
struct OneVersion {
    name: String,
    version: Option<String>,
}

async fn get_version(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let OneVersion { name, version } = read_either(&[], query)?;
    answer_version(
        &app,
        identity.scope(),
        &parse_name(&name)?,
        &number(version.as_deref())?,
    )
    .await
}

async fn search_versions(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
) -> Result<Answer<Value>> {
    let search: Search = read_either(&[], query)?;
    let scope = identity.scope();
    let conditions = search.conditions()?;
    let name = conditions
        .iter()
        .find(|condition| condition.subject == Subject::Name)
        .map(|condition| condition.value.clone());
    let Some(name) = name else {
        return Err(
            AppError::invalid("a search of versions names the prompt: name = '…'").at("filter"),
        );
    };
    let name = parse_name(&name)?;
    let Some(Model {
        indexed: Some(indexed),
        attached,
    }) = model(&app, scope, &name).await?
    else {
        return Ok(Answer(json!({})));
    };
    let (offset, size) = search.page()?;
    let numbers: Vec<i64> = indexed.versions.iter().rev().copied().collect();
    let mut shown = Vec::new();
    for number in numbers.iter().skip(offset).take(size) {
        let document = find(&app, scope, &name, &Selector::Number(*number)).await?;
        shown.push(version_json(&app, scope, &indexed, &attached, document).await?);
    }
    let mut answer = json!({"model_versions": shown});
    if numbers.len() > offset + size {
        answer["next_page_token"] = json!((offset + size).to_string());
    }
    Ok(Answer(answer))
}

async fn update_version(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let Described {
        name,
        version,
        description,
    } = parse_json(&body)?;
    let (scope, name, selector) = (
        identity.scope(),
        parse_name(&name)?,
        number(version.as_deref())?,
    );
    let found = find(&app, scope, &name, &selector).await?;
    let place = Place {
        name,
        number: found.version.number,
    };
    let change = Change::Description(&description);
    change_attached(&app, scope, &place, &[change]).await?;
    answer_version(&app, scope, &place.name, &selector).await
}

async fn delete_version(
    State(app): State<App>,
    identity: Identity,
    Query(query): Params,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let OneVersion { name, version } = read_either(&body, query)?;
    let name = parse_name(&name)?;
    find(&app, identity.scope(), &name, &number(version.as_deref())?).await?;
    Err(AppError::conflict(format!(
        "versions of {name} stay as they are: they may be in use and in records"
    ))
    .hint("take its aliases away, or delete the whole prompt"))
}
