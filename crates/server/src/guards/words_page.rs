//! The pages of word lists, for people who write no JSON: the lists with how many words they have
//! and which policies name them, and an editor with one word a line.
//!
//! Words from elsewhere are pasted as they come and put in; a text is tried on the list as it
//! stands, unsaved. Every button sends the whole form, so it works without scripts.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::NewVersion;
use db::catalog::{CatalogError, DeleteRequest, Name};
use guard::{List, Point};
use serde::Deserialize;
use serde_json::{Value, json};

use super::check::{self, Beside, Checked, Piece, Subject};
use super::editor::{edit_href, get};
use super::editor_view::segments;
use super::kept::{self, EditQuery, LabelForm, kept_view};
use super::words::{KIND, MOST_CHARS, MOST_ENTRIES, WordsDocument, is_language};
use super::{Found, compile_with};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::{self, ListQuery};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::traces::encode;
use crate::ui::form::{Fields, typed};
use crate::ui::{PageContext, redirect};

/// Rows of the list: each reads a document.
const ROWS: u32 = 25;
/// Bytes of a form: a full list of short words, as browsers encode them.
const FORM_BYTES: usize = 32 << 20;
/// Lines that the page names of those that are wrong.
const WRONG_LINES: usize = 5;
/// How words are compared, in the order of the form; nothing means as the rule says.
const FOLDS: [&str; 4] = ["", "exact", "plain", "loose"];
/// Fields of text.
const FIELDS: [&str; 9] = [
    "name",
    "version",
    "description",
    "language",
    "fold",
    "entries",
    "more",
    "message",
    "text",
];

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/{project}/guards/words", read, list),
        Route::get("/{project}/guards/words/edit", read, edit),
        Route::post("/{project}/guards/words/edit", write, submit).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/words/labels", write, move_label),
        Route::post("/{project}/guards/words/delete", write, delete),
    ]
}

fn href(page: &PageContext, name: &str) -> String {
    format!("{}/guards/words/edit?name={}", page.root(), encode(name))
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let latest = catalog::latest(&app.catalog, scope, KIND, query, ROWS).await?;
    let mut rows = Vec::new();
    for (listed, found) in &latest.rows {
        let name = &listed.latest.name;
        let words = WordsDocument::parse(&found.content).unwrap_or_default();
        let labels = listed.labels.iter();
        let labels = labels.map(|(label, number)| json!({"name": label, "version": number}));
        rows.push(json!({
            "name": name, "href": href(&page, name.as_str()), "version": found.version.number,
            "at": found.version.created_at, "entries": words.entries.len(), "language": words.language,
            "description": words.description, "labels": labels.collect::<Vec<_>>(),
            "used_by": used_by(&app, &page, &identity, name).await?,
        }));
    }
    let next = latest.next_href(&format!("{}/guards/words", page.root()));
    let view = json!({"rows": rows, "pager": {"prev_href": null, "next_href": next}});
    page.render("guards/words.html", view).await
}

/// The policies that name a list, in their newest version or in one that a label points to.
async fn used_by(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &Name,
) -> Result<Vec<Value>> {
    let found = app.catalog.dependents(identity.scope(), KIND, name).await?;
    let names: BTreeSet<&str> = found
        .iter()
        .filter(|one| one.kind == super::KIND && (one.is_latest || !one.labels.is_empty()))
        .map(|one| one.name.as_str())
        .collect();
    let policy = |name: &str| json!({"name": name, "href": edit_href(page, name)});
    Ok(names.into_iter().map(policy).collect())
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let mut fields = Fields::new();
    if let Some((name, found)) = query.open(&app, &identity, KIND).await? {
        let words = WordsDocument::parse(&found.content).unwrap_or_default();
        let fold = found.content["fold"].as_str().unwrap_or_default();
        let mut put = |name: &str, value: String| fields.insert(name.to_owned(), value);
        put("name", name.to_string());
        put("version", found.version.number.to_string());
        put("fold", fold.to_owned());
        put("description", words.description);
        put("language", words.language);
        put("entries", words.entries.join("\n"));
    }
    let drawing = Drawing::default();
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

/// What the page shows beside what was typed.
#[derive(Default)]
struct Drawing {
    errors: BTreeMap<&'static str, String>,
    note: Option<String>,
    checked: Option<(String, Checked)>,
}

/// The words of the form, each with the number of its line.
fn entries(fields: &Fields) -> Vec<(usize, &str)> {
    let lines = get(fields, "entries").lines().map(str::trim).enumerate();
    lines
        .filter(|(_, word)| !word.is_empty())
        .map(|(at, word)| (at + 1, word))
        .collect()
}

/// Words as they are pasted: a list in JSON, lines, or words between commas and tabs.
fn pasted(text: &str) -> Vec<String> {
    let read: Option<Value> = serde_json::from_str(text).ok();
    let listed = read.as_ref().and_then(|read| match read {
        Value::Array(words) => Some(words),
        Value::Object(document) => document.get("entries")?.as_array(),
        _ => None,
    });
    let words: Vec<String> = match listed {
        Some(words) => words
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect(),
        None => text
            .split(['\n', '\t', ',', ';', '、', '，', '；'])
            .map(|word| word.trim().trim_matches('"').to_owned())
            .collect(),
    };
    let words = words.into_iter().map(|word| word.trim().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// Puts pasted words at the end of the list; how many came and how many were there already.
fn merge(fields: &mut Fields) -> (usize, usize) {
    let more = pasted(&fields.remove("more").unwrap_or_default());
    let mut known: BTreeSet<String> = entries(fields)
        .into_iter()
        .map(|(_, word)| word.to_owned())
        .collect();
    let all = more.len();
    let new: Vec<String> = more
        .into_iter()
        .filter(|word| known.insert(word.clone()))
        .collect();
    let text = fields.entry("entries".to_owned()).or_default();
    for word in &new {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(word);
    }
    (new.len(), all - new.len())
}

/// The document that the form says; or what is wrong with it, by field.
fn document(
    page: &PageContext,
    fields: &Fields,
) -> std::result::Result<Value, BTreeMap<&'static str, String>> {
    let mut errors = BTreeMap::new();
    let entries = entries(fields);
    let long = |(_, word): &&(usize, &str)| word.chars().count() > MOST_CHARS;
    let wrong: Vec<String> = entries
        .iter()
        .filter(long)
        .take(WRONG_LINES)
        .map(|(line, _)| line.to_string())
        .collect();
    if entries.is_empty() {
        errors.insert("entries", page.t("words-none"));
    } else if !wrong.is_empty() {
        let (lines, most) = (wrong.join(", "), MOST_CHARS.to_string());
        let args = [("lines", lines.as_str()), ("most", most.as_str())];
        errors.insert("entries", page.t_with("words-too-long", &args));
    } else if entries.len() > MOST_ENTRIES {
        let (n, most) = (entries.len().to_string(), MOST_ENTRIES.to_string());
        let args = [("n", n.as_str()), ("most", most.as_str())];
        errors.insert("entries", page.t_with("words-too-many", &args));
    }
    let language = get(fields, "language").trim().to_lowercase();
    if !is_language(&language) {
        errors.insert("language", page.t("words-bad-language"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let words: Vec<&str> = entries.into_iter().map(|(_, word)| word).collect();
    let mut document = json!({"entries": words});
    for (name, value) in [
        ("description", get(fields, "description").trim()),
        ("language", language.as_str()),
        ("fold", get(fields, "fold")),
    ] {
        if !value.is_empty() {
            document[name] = json!(value);
        }
    }
    Ok(document)
}

async fn submit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    for name in ["entries", "more", "text"] {
        if let Some(text) = fields.get_mut(name) {
            *text = text.replace("\r\n", "\n");
        }
    }
    let (new, had) = merge(&mut fields);
    let document = match (get(&fields, "action"), document(&page, &fields)) {
        ("merge", _) => {
            let (new, had) = (new.to_string(), had.to_string());
            let args = [("n", new.as_str()), ("had", had.as_str())];
            let drawing = Drawing {
                note: Some(page.t_with("words-merged", &args)),
                ..Drawing::default()
            };
            return render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await;
        }
        (_, Err(errors)) => return refuse(&app, &page, &identity, &fields, errors).await,
        (_, Ok(document)) => document,
    };
    if get(&fields, "action") == "check" {
        let text = get(&fields, "text").to_owned();
        let checked = try_words(&document, &text).await?;
        let drawing = Drawing {
            checked: Some((text, checked)),
            ..Drawing::default()
        };
        return render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await;
    }
    save(&app, &page, &identity, &fields, &document).await
}

async fn save(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    fields: &Fields,
    document: &Value,
) -> Result<Response> {
    let name: Name = match get(fields, "name").trim().parse() {
        Ok(name) => name,
        Err(problem) => {
            let problem: db::Problem = problem;
            let errors = BTreeMap::from([("name", problem.message)]);
            return refuse(app, page, identity, fields, errors).await;
        }
    };
    let new = NewVersion {
        kind: KIND,
        name: &name,
        content: document,
        message: get(fields, "message").trim(),
    };
    match app.catalog.save_version(identity.scope(), new).await {
        Ok(saved) => {
            let number = saved.version.number.to_string();
            let text = page.t_with("guards-saved", &[("version", &number)]);
            Ok(redirect(href(page, name.as_str())).ok(text).into_response())
        }
        Err(error @ (CatalogError::Invalid(_) | CatalogError::NameTaken { .. })) => {
            let errors = BTreeMap::from([("form", error.to_string())]);
            refuse(app, page, identity, fields, errors).await
        }
        Err(error) => Err(error.into()),
    }
}

/// What the list finds in a text, under a rule that says nothing else.
async fn try_words(document: &Value, text: &str) -> Result<Checked> {
    const NAME: &str = "words:list@latest";
    let words = WordsDocument::parse(document).map_err(CatalogError::Invalid)?;
    let policy = json!({"rules": [{
        "name": "words", "at": ["input"], "check": {"type": "words", "list": NAME}, "action": {"type": "flag"},
    }]});
    let lists = BTreeMap::from([(NAME.to_owned(), List::from(words))]);
    let ready = compile_with(&policy, lists, None).map_err(CatalogError::Invalid)?;
    let subject = Subject::Text(Piece::new(Point::Input, text));
    check::check(&Found::nameless(ready), subject, &Beside::default(), None).await
}

async fn refuse(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    fields: &Fields,
    errors: BTreeMap<&'static str, String>,
) -> Result<Response> {
    let drawing = Drawing {
        errors,
        ..Drawing::default()
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render(app, page, identity, status, fields, drawing).await
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    fields: &Fields,
    drawing: Drawing,
) -> Result<Response> {
    let kept_name = typed(fields, "version").and(typed(fields, "name"));
    let (kept, users) = match kept_name.and_then(|name| name.parse::<Name>().ok()) {
        Some(name) => {
            let href = href(page, name.as_str());
            let kept = kept_view(app, identity, KIND, name.as_str(), &href).await?;
            (kept, used_by(app, page, identity, &name).await?)
        }
        None => (Value::Null, Vec::new()),
    };
    let fold = |word: &&str| {
        let key = if word.is_empty() { "rule" } else { word };
        json!({"value": word, "label": page.t(&format!("words-fold-{key}"))})
    };
    let values: BTreeMap<&str, &str> = FIELDS
        .iter()
        .map(|name| (*name, get(fields, name)))
        .collect();
    let checked = drawing.checked.as_ref().map(|(text, checked)| {
        json!({"segments": segments(page, text, &checked.findings), "found": checked.findings.len()})
    });
    let view = json!({
        "is_new": kept_name.is_none(), "values": values, "errors": drawing.errors, "note": drawing.note,
        "folds": FOLDS.iter().map(fold).collect::<Vec<_>>(), "count": entries(fields).len(),
        "most": MOST_ENTRIES, "checked": checked, "kept": kept, "used_by": users,
    });
    page.render_with_status(status, "guards/words_edit.html", view)
        .await
}

async fn move_label(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<LabelForm>,
) -> Result<Response> {
    let href = href(&page, &form.name);
    kept::move_label(&app, &page, &identity, KIND, href, &form).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteForm {
    name: String,
}

async fn delete(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<DeleteForm>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let request = DeleteRequest {
        kind: KIND,
        name: &name,
        reason: "",
        force: false,
    };
    let deleted = app.catalog.delete_name(identity.scope(), request).await;
    match deleted.map_err(AppError::from) {
        Ok(_) => {
            let to = redirect(format!("{}/guards/words", page.root()));
            let text = page.t_with("words-deleted", &[("name", name.as_str())]);
            Ok(to.ok(text).into_response())
        }
        Err(error) if error.status == StatusCode::CONFLICT => {
            let to = redirect(href(&page, name.as_str()));
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
