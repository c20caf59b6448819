//! Policies as the editor of an app offers them: under which labels each can be named, and which
//! calls it watches without being named.

use std::collections::BTreeMap;

use db::Scope;
use guard::AppliesTo;
use serde_json::{Value, json};

use super::{KIND, watched_by};
use crate::app::App;
use crate::error::Result;
use crate::ui::PageContext;

/// What the form of an app shows per policy: `{name, labels: [str], anyway: [{text, app: str|none}]}`.
/// A text with an app holds only for the app of that name.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn offers(app: &App, page: &PageContext, scope: Scope) -> Result<Vec<Value>> {
    let names = crate::catalog::offered_names(&app.catalog, scope, KIND).await?;
    let environments = crate::projects::environments(&app.db, scope.project).await?;
    let pointers = app.catalog.pointer_index(scope.project, KIND).await?;
    let digests: Vec<base::Digest> = pointers.iter().map(|pointer| pointer.digest).collect();
    let documents = app.catalog.documents(scope.project, &digests).await?;
    let mut offers: BTreeMap<String, (Vec<String>, Vec<Value>)> = names
        .into_iter()
        .map(|name| (name, Default::default()))
        .collect();
    for pointer in pointers {
        let Some((labels, anyway)) = offers.get_mut(pointer.name.as_str()) else {
            continue;
        };
        let is_where_calls_run =
            pointer.label == crate::prompts::PRODUCTION || environments.contains(&pointer.label);
        if is_where_calls_run && let Some(content) = documents.get(&pointer.digest) {
            anyway.extend(watched(page, &pointer.label, &watched_by(content)));
        }
        labels.push(pointer.label);
    }
    let offer = |(name, (labels, anyway)): (String, (Vec<String>, Vec<Value>))| json!({"name": name, "labels": labels, "anyway": anyway});
    Ok(offers.into_iter().map(offer).collect())
}

/// Which calls a policy watches where this label holds, in words.
fn watched(page: &PageContext, label: &str, applies_to: &AppliesTo) -> Vec<Value> {
    let text = |key: &str, what: &str| {
        let args = [("label", label), ("what", what)];
        page.t_with(key, &args)
    };
    if applies_to.everything {
        return vec![json!({"text": text("apps-guards-all", ""), "app": null})];
    }
    let apps = applies_to.apps.iter();
    let mut found: Vec<Value> = apps
        .map(|app| json!({"text": text("apps-guards-app", ""), "app": app}))
        .collect();
    if !applies_to.models.is_empty() {
        let models = applies_to.models.join(", ");
        found.push(json!({"text": text("apps-guards-models", &models), "app": null}));
    }
    if !applies_to.keys.is_empty() {
        found.push(json!({"text": text("apps-guards-keys", ""), "app": null}));
    }
    found
}
