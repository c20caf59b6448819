//! What tokens cost.
//!
//! The program ships list prices of widely used models; a project's own rows go
//! before them. A row is never changed: an edit is a new version, and every
//! record names the table it was priced with, so that an old cost can be
//! explained. A model without a price has no cost, which is not the same as free.

mod store;

use axum::Json as Answer;
use axum::extract::State;
use base::{Digest, Price, ProjectId};
use db::Db;
use gateway::{PriceRow, PriceTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// List prices in dollars per million tokens: model, input, output, cache read, cache write.
/// As the vendors listed them when these models came out; vendors change prices, so check them
/// before you bill by them and set your own rows where they differ. The longest fitting pattern counts.
const SHIPPED: &[(&str, f64, f64, f64, f64)] = &[
    ("gpt-4o*", 2.5, 10.0, 1.25, 2.5),
    ("gpt-4o-mini*", 0.15, 0.6, 0.075, 0.15),
    ("gpt-4.1*", 2.0, 8.0, 0.5, 2.0),
    ("gpt-4.1-mini*", 0.4, 1.6, 0.1, 0.4),
    ("gpt-4.1-nano*", 0.1, 0.4, 0.025, 0.1),
    ("o3*", 2.0, 8.0, 0.5, 2.0),
    ("o4-mini*", 1.1, 4.4, 0.275, 1.1),
    ("text-embedding-3-small", 0.02, 0.0, 0.02, 0.02),
    ("text-embedding-3-large", 0.13, 0.0, 0.13, 0.13),
    ("claude-3-5-haiku*", 0.8, 4.0, 0.08, 1.0),
    ("claude-3-5-sonnet*", 3.0, 15.0, 0.3, 3.75),
    ("claude-3-7-sonnet*", 3.0, 15.0, 0.3, 3.75),
    ("claude-sonnet-4*", 3.0, 15.0, 0.3, 3.75),
    ("claude-opus-4*", 15.0, 75.0, 1.5, 18.75),
];

/// The price list over JSON.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/api/v1/prices",
            Access::Needs(Permission::ReadProviders),
            list,
        )
        .doc(Doc::new("prices", "The price table in force").answer::<Table>()),
        Route::put(
            "/api/v1/prices",
            Access::Needs(Permission::ManageProviders),
            set,
        )
        .doc(
            Doc::new(
                "prices",
                "Set the price of a model or family in this project",
            )
            .body::<Row>()
            .answer::<Table>(),
        ),
    ]
}

/// A price table.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Table {
    /// Names the table in records.
    version: String,
    /// The rows; own rows go before `*`, exact names before patterns.
    items: Vec<Row>,
}

/// The price of one model or family, in US dollars per million tokens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The provider's name, `local`, or `*` for any.
    provider: String,
    /// The model; `name*` stands for all that begin so.
    model: String,
    /// Plain prompt tokens.
    input_usd: f64,
    /// Completion tokens.
    output_usd: f64,
    /// Prompt tokens read from the provider's cache; as plain ones when left out.
    cache_read_usd: Option<f64>,
    /// Prompt tokens written to the provider's cache; as plain ones when left out.
    cache_write_usd: Option<f64>,
}

fn price(usd: f64, field: &'static str) -> Result<Price> {
    if usd.is_finite() && (0.0..=1e6).contains(&usd) {
        // A price has at most nine decimals; the product is a whole number of nano-dollars.
        return Ok(Price((usd * 1e9).round() as i64));
    }
    Err(
        AppError::invalid("a price is 0 to 1,000,000 dollars per million tokens")
            .code("bad_price")
            .at(field),
    )
}

fn usd(price: Price) -> f64 {
    price.0 as f64 / 1e9
}

impl Row {
    fn parse(&self) -> Result<PriceRow> {
        let text = |value: &str, field: &'static str| {
            let good =
                (1..=200).contains(&value.len()) && !value.chars().any(base::text::is_deceptive);
            if good {
                Ok(value.to_owned())
            } else {
                Err(AppError::invalid("this has 1 to 200 characters").at(field))
            }
        };
        Ok(PriceRow {
            provider: text(&self.provider, "provider")?,
            model: text(&self.model, "model")?,
            input: price(self.input_usd, "input_usd")?,
            output: price(self.output_usd, "output_usd")?,
            cache_read: self
                .cache_read_usd
                .map(|usd| price(usd, "cache_read_usd"))
                .transpose()?,
            cache_write: self
                .cache_write_usd
                .map(|usd| price(usd, "cache_write_usd"))
                .transpose()?,
        })
    }

    fn of(row: &PriceRow) -> Self {
        Self {
            provider: row.provider.clone(),
            model: row.model.clone(),
            input_usd: usd(row.input),
            output_usd: usd(row.output),
            cache_read_usd: row.cache_read.map(usd),
            cache_write_usd: row.cache_write.map(usd),
        }
    }
}

/// The table of a project: its own rows over the shipped ones; local models cost nothing.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(db: &Db, project: ProjectId) -> Result<PriceTable> {
    let mut rows = store::latest(db, project).await?;
    let own: Vec<(String, String)> = rows
        .iter()
        .map(|row| (row.provider.clone(), row.model.clone()))
        .collect();
    let free = PriceRow {
        provider: "local".to_owned(),
        model: "*".to_owned(),
        input: Price(0),
        output: Price(0),
        cache_read: None,
        cache_write: None,
    };
    let shipped = SHIPPED
        .iter()
        .map(|&(model, input, output, read, write)| PriceRow {
            provider: "*".to_owned(),
            model: model.to_owned(),
            input: Price((input * 1e9).round() as i64),
            output: Price((output * 1e9).round() as i64),
            cache_read: Some(Price((read * 1e9).round() as i64)),
            cache_write: Some(Price((write * 1e9).round() as i64)),
        });
    let missing = shipped
        .chain([free])
        .filter(|row| !own.contains(&(row.provider.clone(), row.model.clone())));
    rows.extend(missing.collect::<Vec<_>>());
    rows.sort_by(|a, b| (&a.provider, &a.model).cmp(&(&b.provider, &b.model)));
    let listed: Vec<Row> = rows.iter().map(Row::of).collect();
    let digest = Digest::of_json(&json!(listed)).map_err(anyhow::Error::from)?;
    Ok(PriceTable {
        version: digest.short(),
        rows,
    })
}

async fn list(State(app): State<App>, identity: Identity) -> Result<Answer<Table>> {
    let table = for_plan(&app.db, identity.project.id).await?;
    Ok(Answer(Table {
        version: table.version,
        items: table.rows.iter().map(Row::of).collect(),
    }))
}

async fn set(
    State(app): State<App>,
    identity: Identity,
    Json(row): Json<Row>,
) -> Result<Answer<Table>> {
    let parsed = row.parse()?;
    let scope = identity.scope();
    let mut tx = app.db.begin_write().await?;
    store::insert(&mut tx, scope, &parsed).await?;
    let object = format!("{}/{}", parsed.provider, parsed.model);
    db::audit::write(
        &mut tx,
        Some(scope.project),
        scope.actor,
        "price.set",
        &object,
        &json!(row),
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    app.refresh_plan().await?;
    list(State(app), identity).await
}
