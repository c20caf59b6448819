//! The page on which traces become examples: one, a selection, or all that a filter finds.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use db::PageRequest;
use db::catalog::NameFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::WRITE;
use super::from_traces::{FromTraces, MAX_TRACES, Picked, add_traces};
use super::pages::href;
use super::{KIND, Verdict, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Form;
use crate::http::Route;
use crate::traces::AskText;
use crate::ui::{PageContext, redirect};

/// Datasets that the form offers.
const OFFERED: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}/datasets/add", WRITE, show),
        Route::post("/{project}/datasets/add", WRITE, add),
    ]
}

/// What the form holds; the traces as one text, since a selection is a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AddForm {
    /// Trace ids, separated by spaces.
    traces: String,
    span: String,
    from: String,
    to: String,
    filter: String,
    q: String,
    dataset: String,
    new_dataset: String,
    split: String,
    verdict: String,
    expected: String,
    back: String,
}

impl AddForm {
    /// The keys of the address; `trace` may be there many times.
    fn of_query(query: &str) -> Self {
        let mut form = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match key.as_ref() {
                "trace" => {
                    form.traces.push_str(&value);
                    form.traces.push(' ');
                }
                "span" => form.span = value,
                "from" => form.from = value,
                "to" => form.to = value,
                "filter" => form.filter = value,
                "q" => form.q = value,
                "dataset" => form.dataset = value,
                "back" => form.back = value,
                _ => {}
            }
        }
        form.traces.truncate(form.traces.trim_end().len());
        form
    }

    fn picked(&self) -> Vec<Picked> {
        let span = Some(self.span.clone()).filter(|span| !span.is_empty());
        let ids: Vec<&str> = self.traces.split_whitespace().collect();
        let span = span.filter(|_| ids.len() == 1);
        ids.into_iter()
            .map(|trace| Picked {
                trace: trace.to_owned(),
                span: span.clone(),
            })
            .collect()
    }

    fn asked(&self) -> FromTraces {
        let traces = self.picked();
        let text = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        let query = traces.is_empty().then(|| AskText {
            from: text(&self.from),
            to: text(&self.to),
            filter: text(&self.filter),
            q: text(&self.q),
            scope: None,
        });
        FromTraces {
            traces,
            query,
            verdict: match self.verdict.as_str() {
                "good" => Some(Verdict::Good),
                "bad" => Some(Verdict::Bad),
                _ => None,
            },
            expected: text(&self.expected.replace("\r\n", "\n")).map(Value::String),
            split: text(self.split.trim()),
            create: !self.new_dataset.trim().is_empty(),
            ..FromTraces::default()
        }
    }
}

async fn show(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    identity.require(Permission::ReadTraces)?;
    let form = AddForm::of_query(&page.query);
    render(&app, &page, &identity, &form, None).await
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    form: &AddForm,
    error: Option<&AppError>,
) -> Result<Response> {
    let request = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let names = app
        .catalog
        .list_names(identity.scope(), KIND, &NameFilter::default(), &request)
        .await?;
    let names: Vec<&str> = names
        .items
        .iter()
        .map(|listed| listed.latest.name.as_str())
        .collect();
    let count = form.picked().len();
    let view = json!({
        "datasets": names, "dataset": form.dataset, "new_dataset": form.new_dataset, "split": form.split, "verdict": form.verdict,
        "expected": form.expected, "traces": form.traces, "span": form.span, "from": form.from, "to": form.to,
        "filter": form.filter, "q": form.q, "back": form.back, "count": count, "most": MAX_TRACES,
        "back_href": back_href(page, form), "error": error.map(|error| error.message.clone()),
    });
    match error {
        None => page.render("datasets/add.html", view).await,
        Some(error) => {
            page.render_with_status(error.status, "datasets/add.html", view)
                .await
        }
    }
}

/// Where the reader came from, if that is a page of ours.
fn back_href(page: &PageContext, form: &AddForm) -> String {
    let traces = format!("{}/traces", page.root());
    let is_ours = form.back == traces
        || form.back.starts_with(&format!("{traces}/"))
        || form.back.starts_with(&format!("{traces}?"));
    match (is_ours, form.picked().as_slice()) {
        (true, _) => form.back.clone(),
        (false, [one]) => format!("{traces}/{}", crate::traces::encode(&one.trace)),
        (false, _) => traces,
    }
}

async fn add(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<AddForm>,
) -> Result<Response> {
    identity.require(Permission::ReadTraces)?;
    let added = async {
        let name = match form.new_dataset.trim() {
            "" => form.dataset.as_str(),
            new => new,
        };
        if name.is_empty() {
            return Err(AppError::invalid(page.t("datasets-add-choose")).at("dataset"));
        }
        let name = parse_name(name)?;
        let taken = add_traces(&app, identity.scope(), &name, form.asked()).await?;
        app.refresh_plan().await?;
        Ok((name, taken))
    };
    match added.await {
        Ok((name, taken)) => {
            let counts = [
                ("taken", taken.taken.to_string()),
                ("known", taken.known.to_string()),
                ("without", taken.without_input.to_string()),
            ];
            let args: Vec<(&'static str, &str)> = counts
                .iter()
                .map(|(key, value)| (*key, value.as_str()))
                .collect();
            let text = page.t_with("datasets-added", &args);
            Ok(redirect(href(&page, "show", name.as_str(), &[]))
                .ok(text)
                .into_response())
        }
        Err(error) if error.status.is_client_error() => {
            render(&app, &page, &identity, &form, Some(&error)).await
        }
        Err(error) => Err(error),
    }
}
