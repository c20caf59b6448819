//! What is known of models: the catalog that comes with the program, a project's own
//! entries over it, what a local model's files say, and prices.
//!
//! An entry is of a model or of a family (`name*`). What nobody said is absent, and a
//! filter that asks for it leaves the model out: not known is not good enough for a
//! limit. Prices are the price table's and are never repeated in an entry.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base::ProjectId;
use db::{Kind, NameFilter, PageRequest, Problem, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Result;
use crate::evaluators::Problems;

/// The catalog's word for a project's own entries.
pub const KIND: &str = "model_card";
/// Entries that a project may have.
const MOST_CARDS: usize = 2000;
const TEXT_CHARS: usize = 2000;
const MOST_WORDS: usize = 100;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelTask {
    /// Chat completions.
    Chat,
    /// Vectors.
    Embedding,
}

/// What is known of a model, or of a family of models.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// The model as it is called, or its name without the provider; `name*` stands for all
    /// that begin so. The longest that fits counts.
    pub model: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Its licence: an SPDX name, or `proprietary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whether anybody may have its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<ModelTask>,
    /// The longest input and output together, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// The longest answer, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Languages that it is meant for, as in HTML: `en`, `ja`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// What it takes: `text`, `image`, `audio`, `video`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<String>,
    /// What it gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// Whether it can be fine-tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunable: Option<bool>,
    /// Where it runs, in the words of the team: `eu`, `japan-east`, `on premises`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Where this was read: https addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// When it was read: `2026-11-21`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_on: Option<String>,
}

impl ModelCard {
    /// Reads an entry and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(content: &Value) -> std::result::Result<Self, Vec<Problem>> {
        let card = Self::deserialize(content)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Problems::default();
        card.check(&mut problems);
        problems.into_result(card)
    }

    fn check(&self, problems: &mut Problems) {
        let star = self.model.trim_end_matches('*');
        if star.is_empty() || self.model.len() > 200 || star.contains('*') || !is_clean(star) {
            problems.add(
                "/model",
                "this is a model's name, or the beginning of names and a *",
            );
        }
        for (field, text) in [
            ("title", &self.title),
            ("vendor", &self.vendor),
            ("licence", &self.licence),
            ("notes", &self.notes),
        ] {
            if let Some(text) = text
                && (text.trim().is_empty() || text.chars().count() > TEXT_CHARS || !is_clean(text))
            {
                problems.add(
                    format!("/{field}"),
                    "this is a text of 1 to 2000 characters",
                );
            }
        }
        for (field, words) in [
            ("languages", &self.languages),
            ("input", &self.input),
            ("output", &self.output),
            ("regions", &self.regions),
        ] {
            let good = |word: &String| (1..=60).contains(&word.chars().count()) && is_clean(word);
            if words.len() > MOST_WORDS || !words.iter().all(good) {
                problems.add(format!("/{field}"), "this is a list of short words");
            }
        }
        for (index, source) in self.sources.iter().enumerate() {
            if !source.starts_with("https://") || source.len() > 500 || !is_clean(source) {
                problems.add(format!("/sources/{index}"), "a source is an https address");
            }
        }
        for (field, tokens) in [
            ("context_tokens", self.context_tokens),
            ("max_output_tokens", self.max_output_tokens),
        ] {
            if tokens.is_some_and(|tokens| tokens == 0 || tokens > 1 << 40) {
                problems.add(format!("/{field}"), "this is a number of tokens");
            }
        }
        if let Some(day) = &self.read_on
            && !is_day(day)
        {
            problems.add("/read_on", "a day is written 2026-11-21");
        }
    }

    /// How well the entry fits a model; the best counts.
    fn fit(&self, id: &str) -> Option<(usize, usize)> {
        let own = id.split_once('/').map_or(id, |(_, name)| name);
        // An entry with a provider is of that provider's model alone.
        let of_provider = self.model.contains('/');
        let name = if of_provider { id } else { own };
        match self.model.strip_suffix('*') {
            None if name == self.model || id == self.model => {
                Some((usize::from(of_provider), usize::MAX))
            }
            Some(start) if name.starts_with(start) => Some((usize::from(of_provider), start.len())),
            _ => None,
        }
    }

    /// This entry, and what it leaves open as the other says it.
    fn over(&self, other: Option<&Self>) -> Self {
        let Some(other) = other else {
            return self.clone();
        };
        let words = |own: &Vec<String>, other: &Vec<String>| match own.is_empty() {
            true => other.clone(),
            false => own.clone(),
        };
        Self {
            model: self.model.clone(),
            title: self.title.clone().or_else(|| other.title.clone()),
            vendor: self.vendor.clone().or_else(|| other.vendor.clone()),
            licence: self.licence.clone().or_else(|| other.licence.clone()),
            open: self.open.or(other.open),
            task: self.task.or(other.task),
            context_tokens: self.context_tokens.or(other.context_tokens),
            max_output_tokens: self.max_output_tokens.or(other.max_output_tokens),
            languages: words(&self.languages, &other.languages),
            input: words(&self.input, &other.input),
            output: words(&self.output, &other.output),
            tunable: self.tunable.or(other.tunable),
            regions: words(&self.regions, &other.regions),
            notes: self.notes.clone().or_else(|| other.notes.clone()),
            sources: words(&self.sources, &other.sources),
            read_on: self.read_on.clone().or_else(|| other.read_on.clone()),
        }
    }
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(base::text::is_deceptive)
}

fn is_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(parts.as_slice(), [year, month, day]
        if digits(year, 4) && digits(month, 2) && digits(day, 2)
            && ("01"..="12").contains(month) && ("01"..="31").contains(day))
}

/// A project's own entries, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match ModelCard::parse(content) {
            Ok(card) => serde_json::to_value(card).unwrap_or_default(),
            Err(_) => content.clone(),
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(ModelCard)),
            |content| ModelCard::parse(content).map(drop),
        )
    }
}

/// What comes with the program.
static SHIPPED: LazyLock<Vec<ModelCard>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    struct File {
        model: Vec<ModelCard>,
    }
    // A test reads and checks the file; without it there is simply nothing known.
    toml::from_str::<File>(include_str!("catalog.toml"))
        .map(|file| file.model)
        .unwrap_or_default()
});

/// What comes with the program about a model, or about the family that a pattern names.
pub(super) fn shipped(model: &str) -> Option<ModelCard> {
    let whole = |card: &&ModelCard| card.model == model;
    let found = SHIPPED.iter().find(whole);
    found.or_else(|| best(SHIPPED.iter(), model)).cloned()
}

/// What a model costs, in US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct ModelPrice {
    /// Plain prompt tokens.
    pub input_usd: f64,
    /// Completion tokens.
    pub output_usd: f64,
}

/// A model with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct KnownModel {
    /// As it is called; for a family that nobody here provides, its pattern.
    pub id: String,
    /// The provider that it is called through; none where nobody here provides it.
    pub provider: Option<String>,
    /// Whether it can be called now.
    pub callable: bool,
    /// What it costs; none where nobody knows, which is not free.
    pub price: Option<ModelPrice>,
    /// Its properties.
    pub properties: ModelCard,
    /// The project's own entry that says some of them.
    pub own_entry: Option<String>,
}

/// What a model must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Whether its weights may be had by anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// One of these licences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// One of these makers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vendors: Vec<String>,
    /// Runs in one of these places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Is meant for all of these languages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Takes all of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<String>,
    /// Whether it can be fine-tuned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunable: Option<bool>,
    /// At least this much context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// At most this price for a million prompt tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_usd: Option<f64>,
    /// At most this price for a million completion tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_usd: Option<f64>,
}

/// Which wish a model does not meet. The words are the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmet {
    /// Its weights are not open, or are, or nobody said.
    Open,
    /// Another licence.
    Licence,
    /// Another maker.
    Vendor,
    /// It runs elsewhere.
    Region,
    /// It is not meant for a language.
    Language,
    /// It does not take something.
    Input,
    /// It cannot be fine-tuned.
    Tunable,
    /// Its context is too short.
    Context,
    /// It is too dear, or nobody knows its price.
    Price,
}

impl Unmet {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Licence => "licence",
            Self::Vendor => "vendor",
            Self::Region => "region",
            Self::Language => "language",
            Self::Input => "input",
            Self::Tunable => "tunable",
            Self::Context => "context",
            Self::Price => "price",
        }
    }
}

impl Wanted {
    /// The wishes that a model does not meet; what is not known is not met.
    pub fn unmet(&self, model: &KnownModel) -> Vec<Unmet> {
        let card = &model.properties;
        let same = |a: &str, b: &String| a.eq_ignore_ascii_case(b);
        let one_of = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty()
                || found.is_some_and(|found| wanted.iter().any(|one| same(found, one)))
        };
        let has = |list: &[String], wanted: &String| list.iter().any(|found| same(found, wanted));
        let at_most = |limit: Option<f64>, price: Option<f64>| {
            limit.is_none_or(|limit| price.is_some_and(|price| price <= limit))
        };
        let checks = [
            (Unmet::Open, self.open.is_none() || card.open == self.open),
            (
                Unmet::Licence,
                one_of(&self.licences, card.licence.as_deref()),
            ),
            (Unmet::Vendor, one_of(&self.vendors, card.vendor.as_deref())),
            (
                Unmet::Region,
                self.regions.is_empty() || self.regions.iter().any(|one| has(&card.regions, one)),
            ),
            (
                Unmet::Language,
                self.languages.iter().all(|one| has(&card.languages, one)),
            ),
            (
                Unmet::Input,
                self.input.iter().all(|one| has(&card.input, one)),
            ),
            (
                Unmet::Tunable,
                self.tunable.is_none() || card.tunable == self.tunable,
            ),
            (
                Unmet::Context,
                self.context_tokens
                    .is_none_or(|least| card.context_tokens.is_some_and(|has| has >= least)),
            ),
            (
                Unmet::Price,
                at_most(self.input_usd, model.price.map(|price| price.input_usd))
                    && at_most(self.output_usd, model.price.map(|price| price.output_usd)),
            ),
        ];
        let open = checks.into_iter().filter(|(_, met)| !met);
        open.map(|(unmet, _)| unmet).collect()
    }

    /// What is wrong with it.
    pub(super) fn check(&self, at: &str, problems: &mut Problems) {
        for (field, price) in [
            ("input_usd", self.input_usd),
            ("output_usd", self.output_usd),
        ] {
            if price.is_some_and(|price| !(price.is_finite() && price >= 0.0)) {
                problems.add(format!("{at}/{field}"), "a price is 0 or more");
            }
        }
        for (field, words) in [
            ("licences", &self.licences),
            ("vendors", &self.vendors),
            ("regions", &self.regions),
            ("languages", &self.languages),
            ("input", &self.input),
        ] {
            if words.len() > MOST_WORDS || words.iter().any(|word| word.len() > 200) {
                problems.add(format!("{at}/{field}"), "this is a list of short words");
            }
        }
    }
}

/// A project's own entries by name.
async fn own_cards(app: &App, scope: Scope) -> Result<BTreeMap<String, ModelCard>> {
    let mut names = Vec::new();
    let mut cursor = None;
    while names.len() < MOST_CARDS {
        let page = PageRequest { cursor, limit: 200 };
        let found = app
            .catalog
            .list_names(scope, KIND, &NameFilter::default(), &page)
            .await?;
        names.extend(found.items.into_iter().map(|one| one.latest));
        match found.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let digests: Vec<_> = names.iter().map(|version| version.digest).collect();
    let contents = app.catalog.documents(scope.project, &digests).await?;
    let card = |version: &db::Version| {
        let content = contents.get(&version.digest)?;
        Some((version.name.to_string(), ModelCard::parse(content).ok()?))
    };
    Ok(names.iter().filter_map(card).collect())
}

/// Everything that is known of the models of a project: those that it can call, and the
/// catalog's families that nobody provides here.
///
/// # Errors
/// The database cannot be read.
pub async fn known_models(app: &App, scope: Scope) -> Result<Vec<KnownModel>> {
    let own = own_cards(app, scope).await?;
    let local = crate::models::list_models(&app.db).await?;
    let mut found: Vec<KnownModel> = Vec::new();
    for model in &local {
        let id = format!("local/{}", model.name);
        let facts = ModelCard {
            task: Some(match model.task {
                crate::models::Task::Chat => ModelTask::Chat,
                crate::models::Task::Embedding => ModelTask::Embedding,
            }),
            context_tokens: Some(model.facts.context_length).filter(|tokens| *tokens > 0),
            regions: vec!["on premises".to_owned()],
            ..ModelCard::default()
        };
        found.push(known(app, scope.project, &own, id, Some("local"), &facts));
    }
    for (provider, model) in provided(app, scope.project) {
        let id = format!("{provider}/{model}");
        // Providers do not say what a model is for; its name does.
        let embeds = model.to_ascii_lowercase().contains("embed");
        let facts = ModelCard {
            task: embeds.then_some(ModelTask::Embedding),
            ..ModelCard::default()
        };
        found.push(known(app, scope.project, &own, id, Some(&provider), &facts));
    }
    let missing = SHIPPED.iter().chain(own.values()).filter(|card| {
        !found.iter().any(|model| card.fit(&model.id).is_some())
            && !card.model.starts_with("local/")
    });
    let missing: std::collections::BTreeSet<&str> =
        missing.map(|card| card.model.as_str()).collect();
    for pattern in missing {
        let id = pattern.to_owned();
        found.push(known(
            app,
            scope.project,
            &own,
            id,
            None,
            &ModelCard::default(),
        ));
    }
    found.sort_by(|a, b| (!a.callable, &a.id).cmp(&(!b.callable, &b.id)));
    Ok(found)
}

/// What is known of these models, whether or not their providers list them.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn look_up(app: &App, scope: Scope, ids: &[String]) -> Result<Vec<KnownModel>> {
    let all = known_models(app, scope).await?;
    let own = own_cards(app, scope).await?;
    let one = |id: &String| {
        let listed = all.iter().find(|model| model.id == *id);
        listed.cloned().unwrap_or_else(|| {
            let provider = id.split_once('/').map(|(provider, _)| provider);
            let facts = ModelCard::default();
            known(app, scope.project, &own, id.clone(), provider, &facts)
        })
    };
    Ok(ids.iter().map(one).collect())
}

fn provided(app: &App, project: ProjectId) -> Vec<(String, String)> {
    let plan = app.gateway.plan();
    let providers = plan.projects.get(&project).map(|known| &known.providers);
    let providers = providers
        .into_iter()
        .flat_map(|providers| providers.values());
    let models = providers.flat_map(|provider| {
        let name = provider.name.clone();
        provider
            .models
            .iter()
            .map(move |model| (name.clone(), model.clone()))
    });
    models.collect()
}

fn best<'a>(cards: impl Iterator<Item = &'a ModelCard>, id: &str) -> Option<&'a ModelCard> {
    cards
        .filter_map(|card| Some((card.fit(id)?, card)))
        .max_by_key(|(fit, _)| *fit)
        .map(|(_, card)| card)
}

fn known(
    app: &App,
    project: ProjectId,
    own: &BTreeMap<String, ModelCard>,
    id: String,
    provider: Option<&str>,
    facts: &ModelCard,
) -> KnownModel {
    let name = id.split_once('/').map_or(id.as_str(), |(_, name)| name);
    let plan = app.gateway.plan();
    let prices = plan.projects.get(&project).map(|known| &known.prices);
    // A family's price is the one of its pattern: the table has the same patterns.
    let wanted = name.trim_end_matches('*');
    let row = prices.and_then(|prices| prices.find(provider.unwrap_or("*"), wanted));
    #[expect(clippy::cast_precision_loss, reason = "prices are far below 2^53")]
    let price = row.map(|row| ModelPrice {
        input_usd: row.input.0 as f64 / 1e9,
        output_usd: row.output.0 as f64 / 1e9,
    });
    // For a pattern its own beginning is looked up.
    let lookup = id.trim_end_matches('*');
    let own_best = own
        .iter()
        .filter_map(|(name, card)| Some((card.fit(lookup)?, name, card)))
        .max_by_key(|(fit, _, _)| *fit);
    let shipped = best(SHIPPED.iter(), lookup);
    let base = match shipped {
        Some(shipped) => shipped.over(Some(facts)),
        None => facts.clone(),
    };
    let mut properties = match own_best {
        Some((_, _, card)) => card.over(Some(&base)),
        None => base,
    };
    properties.task = properties.task.or(Some(ModelTask::Chat));
    properties.model.clone_from(&id);
    KnownModel {
        provider: provider.map(str::to_owned),
        callable: provider.is_some(),
        price,
        properties,
        own_entry: own_best.map(|(_, name, _)| name.clone()),
        id,
    }
}
