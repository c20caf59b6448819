//! The page of one example: where it comes from, and the form that adds and edits one
//! without scripts.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use db::catalog::Selector;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{READ, WRITE};
use super::pages::{as_text, encode, head, href};
use super::{Edits, Example, Found, Verdict, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::Route;
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}/datasets/example", READ, show),
        Route::post("/{project}/datasets/example", WRITE, save).body_limit(8 << 20),
        Route::post("/{project}/datasets/example/remove", WRITE, remove),
    ]
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
    id: Option<String>,
    version: Option<i64>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let name = parse_name(&query.name)?;
    let selector = query.version.map_or(Selector::Latest, Selector::Number);
    let found = app.datasets.version(scope, &name, &selector).await?;
    let latest = match query.version {
        None => found.version.number,
        Some(_) => app.datasets.latest(scope, &name).await?.version.number,
    };
    let located = match &query.id {
        Some(id) => Some(app.datasets.example(scope, &found, id).await?),
        None => None,
    };
    let neighbours = match &located {
        Some(located) => neighbours(&app, &identity, &page, &found, located.place, latest).await?,
        None => (None, None),
    };
    let form = located
        .as_ref()
        .map_or_else(ExampleForm::default, |located| {
            ExampleForm::of(&located.example)
        });
    let example = located.as_ref().map(|located| &located.example);
    let may_edit =
        identity.role.allows(Permission::WriteDatasets) && found.version.number == latest;
    let view = view(
        &app,
        &page,
        &identity,
        &found,
        latest,
        example,
        &form,
        may_edit,
        &BTreeMap::new(),
        neighbours,
    )
    .await?;
    page.render("datasets/example.html", view).await
}

type Neighbours = (Option<String>, Option<String>);

/// The examples before and behind this one.
async fn neighbours(
    app: &App,
    identity: &Identity,
    page: &PageContext,
    found: &Found,
    place: u64,
    latest: i64,
) -> Result<Neighbours> {
    let from = place.saturating_sub(1);
    let all = super::ExampleFilter::default();
    let around = app
        .datasets
        .page(identity.scope(), found, &all, from, 3)
        .await?;
    let version = if found.version.number == latest {
        String::new()
    } else {
        found.version.number.to_string()
    };
    let link = |wanted: Option<u64>| {
        let located = around
            .items
            .iter()
            .find(|located| Some(located.place) == wanted)?;
        Some(href(
            page,
            "example",
            found.version.name.as_str(),
            &[("id", &located.example.id), ("version", &version)],
        ))
    };
    Ok((link(place.checked_sub(1)), link(Some(place + 1))))
}

/// An example as a form holds it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExampleForm {
    name: String,
    base: i64,
    id: String,
    input: String,
    input_as: String,
    expected: String,
    expected_as: String,
    /// One text after the other, lines of dashes between them.
    context: String,
    metadata: String,
    split: String,
    verdict: String,
    message: String,
}

const BETWEEN: &str = "\n---\n";

impl ExampleForm {
    fn of(example: &Example) -> Self {
        let value = |value: Option<&Value>| match value {
            None => (String::new(), "text"),
            Some(Value::String(text)) => (text.clone(), "text"),
            Some(other) => (format!("{other:#}"), "json"),
        };
        let (input, input_as) = value(Some(&example.input));
        let (expected, expected_as) = value(example.expected.as_ref());
        let metadata = match example.metadata.is_empty() {
            true => String::new(),
            false => format!("{:#}", json!(example.metadata)),
        };
        Self {
            id: example.id.clone(),
            input,
            input_as: input_as.to_owned(),
            expected,
            expected_as: expected_as.to_owned(),
            context: example.context.join(BETWEEN),
            metadata,
            split: example.split.clone().unwrap_or_default(),
            verdict: example
                .verdict
                .map(|verdict| verdict.name().to_owned())
                .unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The merge patch, or the new example, that the form asks for.
    fn fields(&self) -> Result<Map<String, Value>> {
        let mut fields = Map::new();
        fields.insert(
            "input".to_owned(),
            read_value("input", &self.input, &self.input_as)?,
        );
        let expected = match self.expected.is_empty() {
            true => Value::Null,
            false => read_value("expected", &self.expected, &self.expected_as)?,
        };
        fields.insert("expected".to_owned(), expected);
        let context = lines(&self.context);
        let texts: Vec<&str> = match context.is_empty() {
            true => Vec::new(),
            false => context.split(BETWEEN).collect(),
        };
        fields.insert(
            "context".to_owned(),
            if texts.is_empty() {
                Value::Null
            } else {
                json!(texts)
            },
        );
        let metadata = match self.metadata.trim() {
            "" => Value::Object(Map::new()),
            text => read_value("metadata", text, "json")?,
        };
        fields.insert("metadata".to_owned(), metadata);
        let word = |text: &str| {
            if text.is_empty() {
                Value::Null
            } else {
                json!(text)
            }
        };
        fields.insert("split".to_owned(), word(self.split.trim()));
        fields.insert("verdict".to_owned(), word(&self.verdict));
        Ok(fields)
    }
}

/// Forms send line ends as two characters.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn read_value(field: &str, text: &str, kind: &str) -> Result<Value> {
    if kind == "json" {
        return serde_json::from_str(text).map_err(|error| {
            AppError::invalid(format!("this is no JSON: {error}")).at(format!("/{field}"))
        });
    }
    Ok(Value::String(lines(text)))
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<ExampleForm>,
) -> Result<Response> {
    match write(&app, &identity, &form).await {
        Ok(id) => {
            let to = href(&page, "example", &form.name, &[("id", &id)]);
            Ok(redirect(to).ok(page.t("datasets-saved")).into_response())
        }
        Err(error) if error.status.is_client_error() && error.code != "no_such_dataset" => {
            let name = parse_name(&form.name)?;
            let found = app.datasets.latest(identity.scope(), &name).await?;
            let example = match form.id.is_empty() {
                true => None,
                false => Some(
                    app.datasets
                        .example(identity.scope(), &found, &form.id)
                        .await?
                        .example,
                ),
            };
            let at = error.at.clone().unwrap_or_default();
            let fields = ["input", "expected", "context", "metadata", "split"];
            let field = fields
                .into_iter()
                .find(|field| at.contains(&format!("/{field}")))
                .unwrap_or("form");
            let errors = BTreeMap::from([(field, error.message.clone())]);
            let number = found.version.number;
            let view = view(
                &app,
                &page,
                &identity,
                &found,
                number,
                example.as_ref(),
                &form,
                true,
                &errors,
                (None, None),
            )
            .await?;
            page.render_with_status(error.status, "datasets/example.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}

async fn write(app: &App, identity: &Identity, form: &ExampleForm) -> Result<String> {
    let name = parse_name(&form.name)?;
    let mut fields = form.fields()?;
    let edits = if form.id.is_empty() {
        fields.retain(|_, value| !value.is_null());
        let example: Example = serde_json::from_value(Value::Object(fields))
            .map_err(|error| AppError::invalid(error.to_string()))?;
        Edits {
            put: vec![example],
            ..Edits::default()
        }
    } else {
        // A merge patch adds to an object; the form has the whole of it.
        let found = app.datasets.latest(identity.scope(), &name).await?;
        let now = app
            .datasets
            .example(identity.scope(), &found, &form.id)
            .await?
            .example;
        let replaced = Example {
            input: fields.remove("input").unwrap_or_default(),
            expected: fields.remove("expected").filter(|value| !value.is_null()),
            context: serde_json::from_value(
                fields
                    .remove("context")
                    .filter(|value| !value.is_null())
                    .unwrap_or_else(|| json!([])),
            )
            .map_err(AppError::internal)?,
            metadata: match fields.remove("metadata") {
                Some(Value::Object(map)) => map,
                _ => return Err(AppError::invalid("metadata is a JSON object").at("/metadata")),
            },
            split: fields
                .remove("split")
                .and_then(|value| value.as_str().map(str::to_owned)),
            verdict: match form.verdict.as_str() {
                "good" => Some(Verdict::Good),
                "bad" => Some(Verdict::Bad),
                _ => None,
            },
            marks: Vec::new(),
            ..now
        };
        Edits {
            put: vec![replaced],
            ..Edits::default()
        }
    };
    let edits = Edits {
        message: form.message.clone(),
        base: (form.base > 0).then_some(form.base),
        ..edits
    };
    let saved = app.datasets.edit(identity.scope(), &name, edits).await?;
    app.refresh_plan().await?;
    Ok(saved
        .ids
        .into_iter()
        .next()
        .unwrap_or_else(|| form.id.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveForm {
    name: String,
    id: String,
}

async fn remove(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<RemoveForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    let edits = Edits {
        remove: vec![form.id],
        ..Edits::default()
    };
    app.datasets.edit(identity.scope(), &name, edits).await?;
    app.refresh_plan().await?;
    let to = href(&page, "show", name.as_str(), &[]);
    Ok(redirect(to).ok(page.t("datasets-removed")).into_response())
}

#[expect(
    clippy::too_many_arguments,
    reason = "a page is made of all of this, here and nowhere else"
)]
async fn view(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    found: &Found,
    latest: i64,
    example: Option<&Example>,
    form: &ExampleForm,
    may_edit: bool,
    errors: &BTreeMap<&str, String>,
    neighbours: Neighbours,
) -> Result<Value> {
    let name = found.version.name.as_str();
    let source = match example {
        Some(example) => Some(source_view(app, page, identity, example).await?),
        None => None,
    };
    let kind = |kind: &str| {
        if kind == "json" {
            "json".to_owned()
        } else {
            "text".to_owned()
        }
    };
    Ok(json!({
        "head": head(page, found, latest, "show"), "name": name, "base": latest, "version": found.version.number,
        "id": form.id, "is_new": form.id.is_empty(), "may_edit": may_edit,
        "input": form.input, "input_as": kind(&form.input_as), "expected": form.expected, "expected_as": kind(&form.expected_as),
        "context": form.context, "metadata": form.metadata, "split": form.split, "verdict": form.verdict, "message": form.message,
        "split_names": found.document.splits.keys().collect::<Vec<_>>(), "labels": found.document.labels,
        "marks": example.map(marks_view).unwrap_or_default(), "source": source, "errors": errors,
        "prev_href": neighbours.0, "next_href": neighbours.1,
        "api_href": format!("/api/v1/datasets/{}/examples/{}?version={}", crate::traces::encode(name), crate::traces::encode(&form.id), found.version.number),
    }))
}

fn marks_view(example: &Example) -> Vec<Value> {
    let whole = json!(example);
    let mark = |mark: &super::Mark| {
        let text = whole
            .pointer(&mark.path)
            .and_then(Value::as_str)
            .unwrap_or_default();
        let covered: String = text
            .chars()
            .skip(mark.start)
            .take(mark.end.saturating_sub(mark.start))
            .collect();
        json!({"kind": mark.kind, "path": mark.path, "text": covered})
    };
    example.marks.iter().map(mark).collect()
}

async fn source_view(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    example: &Example,
) -> Result<Value> {
    let source = &example.source;
    let person = match &source.person {
        Some(person) => {
            let names = crate::members::actor_names(
                &app.db,
                identity.project.id,
                [person.as_str()].into_iter(),
            )
            .await?;
            names.get(person).cloned()
        }
        None => None,
    };
    let trace_href = source.trace.as_ref().map(|trace| {
        let span = source
            .span
            .as_ref()
            .map(|span| format!("?span={}", encode(span)))
            .unwrap_or_default();
        format!("{}/traces/{}{span}", page.root(), encode(trace))
    });
    Ok(json!({
        "trace": source.trace, "trace_href": trace_href, "import": source.import, "line": source.line, "person": person,
        "answer": source.answer.as_ref().map(as_text),
    }))
}
