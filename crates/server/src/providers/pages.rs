//! The providers page and the form behind it.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Credential, NewProvider, Provider, Wire};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};

/// Starting points of the form: key, label, name, protocol, base URL, usual variable.
const PRESETS: &[(&str, &str, &str, &str, &str, &str)] = &[
    (
        "openai",
        "OpenAI",
        "openai",
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
    ),
    (
        "anthropic",
        "Anthropic",
        "anthropic",
        "anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
    ),
    (
        "ollama",
        "Ollama",
        "ollama",
        "openai",
        "http://127.0.0.1:11434/v1",
        "",
    ),
    (
        "vllm",
        "vLLM",
        "vllm",
        "openai",
        "http://127.0.0.1:8000/v1",
        "",
    ),
    (
        "llamacpp",
        "llama.cpp",
        "llamacpp",
        "openai",
        "http://127.0.0.1:8080/v1",
        "",
    ),
    ("other", "OpenAI-compatible", "", "openai", "", ""),
];

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageProviders);
    vec![
        Route::get(
            "/{project}/providers",
            Access::Needs(Permission::ReadProviders),
            list,
        ),
        Route::post("/{project}/providers", manage, create),
        Route::get("/{project}/providers/new", manage, new),
        Route::post("/{project}/providers/test", manage, test),
        Route::post("/{project}/providers/remove", manage, remove),
        Route::get("/{project}/providers/{id}", manage, edit),
        Route::post("/{project}/providers/{id}", manage, update),
    ]
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let scope = identity.scope();
    let calls =
        crate::traces::calls_by_provider(&app, scope, app.clock.now_us() - 86_400 * 1_000_000)
            .await?;
    let providers = super::list_providers(&app.db, scope).await?;
    let rows: Vec<Value> = providers
        .iter()
        .map(|provider| row(&page, provider, &calls))
        .collect();
    page.render("providers/list.html", json!({"rows": rows}))
        .await
}

fn row(page: &PageContext, provider: &Provider, calls: &BTreeMap<String, (i64, i64)>) -> Value {
    let root = page.root();
    let (calls_24h, errors_24h) = calls.get(&provider.name).copied().unwrap_or_default();
    let filter = encode(&format!("provider = \"{}\"", provider.name));
    json!({
        "id": provider.id, "name": provider.name, "protocol": provider.protocol, "base_url": provider.base_url,
        "credential": provider.credential, "credential_ref": provider.credential_ref,
        "models": (!provider.models.is_empty()).then_some(provider.models.len()),
        "models_href": format!("{root}/models"), "state": provider.state, "state_text": provider.state_text,
        "checked_at": provider.checked_at, "calls_24h": calls_24h, "errors_24h": errors_24h,
        "calls_href": format!("{root}/traces?from=-24h&filter={filter}"),
        "edit_href": format!("{root}/providers/{}", provider.id),
    })
}

#[derive(Deserialize)]
struct Preset {
    preset: Option<String>,
}

async fn new(
    State(app): State<App>,
    page: PageContext,
    Query(query): Query<Preset>,
) -> Result<Response> {
    let wanted = query.preset.unwrap_or_else(|| "openai".to_owned());
    let chosen = PRESETS
        .iter()
        .find(|preset| preset.0 == wanted)
        .unwrap_or(&PRESETS[0]);
    let (_, _, name, protocol, base_url, variable) = *chosen;
    let credential = if variable.is_empty() {
        "none"
    } else {
        "stored"
    };
    let values = json!({"name": name, "protocol": protocol, "base_url": base_url, "credential": credential, "api_key_env": variable});
    let form = FormView {
        id: "",
        preset: chosen.0,
        values,
        has_stored: false,
        errors: json!({}),
    };
    render_form(&app, &page, form).await
}

/// What the form shows.
struct FormView<'a> {
    id: &'a str,
    preset: &'a str,
    values: Value,
    has_stored: bool,
    errors: Value,
}

async fn render_form(app: &App, page: &PageContext, form: FormView<'_>) -> Result<Response> {
    let preset = |&(key, label, ..): &(&'static str, &'static str, &str, &str, &str, &str)| {
        let href = format!("{}/providers/new?preset={key}", page.root());
        json!({"key": key, "label": label, "href": href, "active": key == form.preset})
    };
    let presets: Vec<Value> = if form.id.is_empty() {
        PRESETS.iter().map(preset).collect()
    } else {
        Vec::new()
    };
    let status = if form
        .errors
        .as_object()
        .is_some_and(serde_json::Map::is_empty)
    {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let view = json!({
        "mode": if form.id.is_empty() { "new" } else { "edit" }, "id": form.id, "presets": presets, "values": form.values,
        "has_stored": form.has_stored, "private_allowed": app.config.file.egress.allow_private, "errors": form.errors,
    });
    page.render_with_status(status, "providers/form.html", view)
        .await
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response> {
    let provider = super::find_provider(&app.db, identity.scope(), &id).await?;
    let values = json!({
        "name": provider.name, "protocol": provider.protocol, "base_url": provider.base_url,
        "credential": if provider.credential == "file" { "stored" } else { provider.credential },
        "api_key_env": if provider.credential == "env" { provider.credential_ref.as_str() } else { "" },
    });
    let has_stored = matches!(provider.credential, "stored" | "file");
    render_form(
        &app,
        &page,
        FormView {
            id: &provider.id,
            preset: "",
            values,
            has_stored,
            errors: json!({}),
        },
    )
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderForm {
    #[serde(default)]
    name: String,
    protocol: Wire,
    #[serde(default)]
    base_url: String,
    credential: String,
    #[serde(default)]
    api_key_env: String,
    #[serde(default)]
    api_key: String,
}

impl ProviderForm {
    fn values(&self) -> Value {
        json!({
            "name": self.name, "protocol": self.protocol, "base_url": self.base_url, "credential": self.credential,
            "api_key_env": self.api_key_env,
        })
    }

    fn new_provider(&self, app: &App, editing: bool) -> NewProvider {
        let credential = match self.credential.as_str() {
            "env" => Credential::Env(self.api_key_env.clone()),
            "stored" if self.api_key.is_empty() && editing => Credential::Keep,
            "stored" => Credential::Given(Secret::new(self.api_key.clone())),
            _ => Credential::None,
        };
        NewProvider {
            name: self.name.clone(),
            protocol: self.protocol,
            base_url: self.base_url.clone(),
            credential,
            may_be_private: app.config.file.egress.allow_private,
        }
    }
}

async fn create(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<ProviderForm>,
) -> Result<Response> {
    save(&app, &page, &identity, None, &form).await
}

async fn update(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Path((_, id)): Path<(String, String)>,
    Form(form): Form<ProviderForm>,
) -> Result<Response> {
    let provider = super::find_provider(&app.db, identity.scope(), &id).await?;
    save(&app, &page, &identity, Some(&provider), &form).await
}

async fn save(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    old: Option<&Provider>,
    form: &ProviderForm,
) -> Result<Response> {
    let scope = identity.scope();
    let replaces = old.map(|old| old.id.as_str());
    let new = form.new_provider(app, old.is_some());
    match super::save_provider(
        &app.db,
        &app.secrets,
        app.random.as_ref(),
        scope,
        replaces,
        new,
    )
    .await
    {
        Ok(saved) => {
            let tested =
                super::test_provider(&app.db, &app.secrets, &app.egress, scope, &saved.id).await?;
            app.refresh_plan().await?;
            Ok(result_flash(page, &tested).into_response())
        }
        Err(error) if matches!(error.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT) => {
            let has_stored = old.is_some_and(|old| old.credential == "stored");
            let errors = form_errors(page, &error);
            let view = FormView {
                id: replaces.unwrap_or(""),
                preset: "",
                values: form.values(),
                has_stored,
                errors,
            };
            render_form(app, page, view).await
        }
        Err(error) => Err(error),
    }
}

fn result_flash(page: &PageContext, tested: &Provider) -> crate::ui::Redirect {
    let to = redirect(format!("{}/providers", page.root()));
    let name = [("name", tested.name.as_str())];
    if tested.state == "ok" {
        to.ok(page.t_with("providers-test-ok-flash", &name))
    } else {
        to.err(page.t_with(
            "providers-test-failed-flash",
            &[name[0], ("why", tested.state_text.as_str())],
        ))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderId {
    id: String,
    confirm: Option<String>,
}

async fn test(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<ProviderId>,
) -> Result<Response> {
    let tested = super::test_provider(
        &app.db,
        &app.secrets,
        &app.egress,
        identity.scope(),
        &form.id,
    )
    .await?;
    app.refresh_plan().await?;
    Ok(result_flash(&page, &tested).into_response())
}

async fn remove(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<ProviderId>,
) -> Result<Response> {
    let scope = identity.scope();
    let provider = super::find_provider(&app.db, scope, &form.id).await?;
    let to = redirect(format!("{}/providers", page.root()));
    if form.confirm.as_deref().map(str::trim) != Some(provider.name.as_str()) {
        return Ok(to.err(page.t("providers-confirm-flash")).into_response());
    }
    super::remove_provider(&app.db, scope, &provider.id).await?;
    app.refresh_plan().await?;
    Ok(to
        .ok(page.t_with("providers-removed-flash", &[("name", &provider.name)]))
        .into_response())
}
