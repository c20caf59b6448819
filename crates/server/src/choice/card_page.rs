//! The form of a project's own entry about a model.
//!
//! What is left open is taken from the catalog that comes with the program; the form shows
//! that beside each field, so that nobody copies what would then grow old. The form knows
//! every property, so there is nothing that only JSON could say.

use std::collections::BTreeMap;

use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::{NewVersion, Problem, Selector};
use serde_json::{Map, Value, json};

use super::pages::{field, words};
use super::properties::{self, ModelCard, ModelTask};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::ui::{PageContext, redirect};

type Fields = BTreeMap<String, String>;

/// The form's fields that are lists of words with commas between.
const LISTS: [&str; 2] = ["languages", "regions"];
/// What models take and give; others can be written beside them.
const MODALITIES: [&str; 4] = ["text", "image", "audio", "video"];
/// Fields that are texts in the document as well.
const TEXTS: [&str; 5] = ["title", "vendor", "licence", "notes", "read_on"];
const NUMBERS: [&str; 2] = ["context_tokens", "max_output_tokens"];

/// Where a model's own entry is edited, or made.
pub(super) fn edit_href(page: &PageContext, model: &str, entry: Option<&str>) -> String {
    let encode = super::view::encode;
    match entry {
        Some(name) => format!("{}/choices/models/edit?name={}", page.root(), encode(name)),
        None => format!(
            "{}/choices/models/edit?model={}",
            page.root(),
            encode(model)
        ),
    }
}

pub(super) async fn edit(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    let mut fields = Fields::new();
    if let Some(text) = field(&query, "name") {
        let missing = || {
            AppError::not_found(format!("there is no model card {text:?}"))
                .code("model_card_not_found")
        };
        let name: db::Name = text.parse().map_err(|_| missing())?;
        let found = app
            .catalog
            .version(identity.scope(), properties::KIND, &name, &Selector::Latest)
            .await?
            .ok_or_else(missing)?;
        // A card that cannot be read any more is written anew from what the form shows.
        let card = ModelCard::parse(&found.content).unwrap_or_default();
        fields = fields_of(&card);
        fields.insert("name".to_owned(), name.to_string());
        fields.insert("version".to_owned(), found.version.number.to_string());
    } else if let Some(model) = field(&query, "model") {
        fields.insert("model".to_owned(), model.to_owned());
        fields.insert("name".to_owned(), name_for(model));
    }
    render(&page, StatusCode::OK, &fields, &[]).await
}

/// A name for the entry of a model: the model's, without what names may not hold.
fn name_for(model: &str) -> String {
    let plain = model.trim_end_matches(['*', '-', '.', '/']);
    let name: String = plain
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_./".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    match name.parse::<db::Name>() {
        Ok(name) => name.to_string(),
        Err(_) => String::new(),
    }
}

fn fields_of(card: &ModelCard) -> Fields {
    let yes_no = |flag: Option<bool>| flag.map_or("", |flag| if flag { "yes" } else { "no" });
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let mut fields: Fields = [
        ("model", Some(card.model.clone())),
        ("title", card.title.clone()),
        ("vendor", card.vendor.clone()),
        ("licence", card.licence.clone()),
        ("open", Some(yes_no(card.open).to_owned())),
        ("tunable", Some(yes_no(card.tunable).to_owned())),
        (
            "task",
            card.task.map(|task| match task {
                ModelTask::Chat => "chat".to_owned(),
                ModelTask::Embedding => "embedding".to_owned(),
            }),
        ),
        ("context_tokens", number(card.context_tokens)),
        ("max_output_tokens", number(card.max_output_tokens)),
        ("languages", Some(card.languages.join(", "))),
        ("regions", Some(card.regions.join(", "))),
        ("notes", card.notes.clone()),
        ("sources", Some(card.sources.join("\n"))),
        ("read_on", card.read_on.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.unwrap_or_default()))
    .collect();
    for (at, list) in [("input", &card.input), ("output", &card.output)] {
        let (known, other): (Vec<&str>, Vec<&str>) = list
            .iter()
            .map(String::as_str)
            .partition(|word| MODALITIES.contains(word));
        for word in known {
            fields.insert(format!("{at}.{word}"), "on".to_owned());
        }
        fields.insert(format!("{at}.other"), other.join(", "));
    }
    fields
}

/// The document that the fields describe; what is wrong with it is for the check to say,
/// save what is no number.
fn document_of(fields: &Fields) -> std::result::Result<Value, Problem> {
    let mut document = Map::new();
    document.insert(
        "model".to_owned(),
        json!(field(fields, "model").unwrap_or_default()),
    );
    for name in TEXTS {
        if let Some(text) = field(fields, name) {
            document.insert(name.to_owned(), json!(text.replace("\r\n", "\n")));
        }
    }
    if let Some(task) = field(fields, "task") {
        document.insert("task".to_owned(), json!(task));
    }
    for name in ["open", "tunable"] {
        if let Some(word) = field(fields, name) {
            document.insert(name.to_owned(), json!(word == "yes"));
        }
    }
    for name in NUMBERS {
        if let Some(text) = field(fields, name) {
            let digits: String = text
                .chars()
                .filter(|c| !matches!(c, ',' | '_' | ' '))
                .collect();
            let number: u64 = digits.parse().map_err(|_| {
                Problem::new(format!("/{name}"), format!("{text:?} is no whole number"))
            })?;
            document.insert(name.to_owned(), json!(number));
        }
    }
    for name in LISTS {
        insert_list(&mut document, name, words(fields, name));
    }
    for name in ["input", "output"] {
        let chosen = MODALITIES.iter().map(|word| (*word).to_owned());
        let chosen = chosen.filter(|word| fields.contains_key(&format!("{name}.{word}")));
        let list = chosen
            .chain(words(fields, &format!("{name}.other")))
            .collect();
        insert_list(&mut document, name, list);
    }
    let sources = field(fields, "sources").unwrap_or_default();
    let sources = sources.split_whitespace().map(str::to_owned).collect();
    insert_list(&mut document, "sources", sources);
    Ok(Value::Object(document))
}

fn insert_list(document: &mut Map<String, Value>, name: &str, words: Vec<String>) {
    if !words.is_empty() {
        document.insert(name.to_owned(), json!(words));
    }
}

async fn render(
    page: &PageContext,
    status: StatusCode,
    fields: &Fields,
    problems: &[Problem],
) -> Result<Response> {
    let mut values: Map<String, Value> = [
        "name", "version", "model", "task", "open", "tunable", "sources",
    ]
    .into_iter()
    .chain(TEXTS)
    .chain(NUMBERS)
    .chain(LISTS)
    .map(|name| {
        (
            name.to_owned(),
            json!(fields.get(name).map(String::as_str).unwrap_or_default()),
        )
    })
    .collect();
    let marks = |at: &str| {
        let mark =
            |word: &&str| json!({"word": word, "on": fields.contains_key(&format!("{at}.{word}"))});
        let other = fields
            .get(&format!("{at}.other"))
            .map(String::as_str)
            .unwrap_or_default();
        json!({"known": MODALITIES.iter().map(mark).collect::<Vec<_>>(), "other": other})
    };
    values.insert("input".to_owned(), marks("input"));
    values.insert("output".to_owned(), marks("output"));
    let model = field(fields, "model").unwrap_or_default();
    let shipped = properties::shipped(model)
        .map(|card| fields_of(&card))
        .unwrap_or_default();
    let shipped_words = |at: &str| {
        let known = MODALITIES
            .iter()
            .filter(|word| shipped.contains_key(&format!("{at}.{word}")));
        known.copied().collect::<Vec<_>>().join(", ")
    };
    let mut known: Map<String, Value> = values
        .keys()
        .map(|name| {
            (
                name.clone(),
                json!(shipped.get(name).map(String::as_str).unwrap_or_default()),
            )
        })
        .collect();
    known.insert("input".to_owned(), json!(shipped_words("input")));
    known.insert("output".to_owned(), json!(shipped_words("output")));
    // A field shows the first of its problems; a list's are those of its elements.
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for problem in problems {
        let at = problem
            .path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let at = if values.contains_key(at) { at } else { "form" };
        errors
            .entry(at.to_owned())
            .or_insert_with(|| problem.message.clone());
    }
    let view = json!({
        "values": values, "errors": errors, "known": known, "is_known": !shipped.is_empty(),
        "is_new": field(fields, "version").is_none(), "back_href": format!("{}/choices/models", page.root()),
    });
    page.render_with_status(status, "choice/card.html", view)
        .await
}

pub(super) async fn save(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    match save_card(&app, &identity, &fields).await? {
        Ok(model) => {
            let to = format!(
                "{}/choices/models?q={}",
                page.root(),
                super::view::encode(&model)
            );
            let text = page.t_with("choices-card-saved", &[("model", &model)]);
            Ok(redirect(to).ok(text).into_response())
        }
        Err(problems) => render(&page, StatusCode::UNPROCESSABLE_ENTITY, &fields, &problems).await,
    }
}

/// Saves a version of the entry; gives the model that it is about, without a star.
async fn save_card(
    app: &App,
    identity: &Identity,
    fields: &Fields,
) -> Result<std::result::Result<String, Vec<Problem>>> {
    let mut problems = Vec::new();
    let name = field(fields, "name")
        .unwrap_or_default()
        .parse::<db::Name>();
    let name = name
        .map_err(|problem| problems.push(Problem::new("/name", problem.message)))
        .ok();
    let content = document_of(fields)
        .map_err(|problem| vec![problem])
        .and_then(|content| ModelCard::parse(&content).map(|card| (content, card)));
    let content = content.map_err(|found| problems.extend(found)).ok();
    let (Some(name), Some((content, card))) = (name, content) else {
        return Ok(Err(problems));
    };
    let new = NewVersion {
        kind: properties::KIND,
        name: &name,
        content: &content,
        message: "",
    };
    app.catalog.save_version(identity.scope(), new).await?;
    Ok(Ok(card.model.trim_end_matches('*').to_owned()))
}
