//! Runs of other tools over a dataset: a client called its own application with the
//! examples, judged the answers and sent both here. Kept in full, because traces expire.
//!
//! An evaluation is made by this server and is elsewhere (`evaluations/`); a run is what
//! somebody else says they did. Its scores are in telemetry, too, as far as they are of a
//! trace; [`ClientScore`] keeps what only the client knows of them.

use std::collections::BTreeMap;

use base::ProjectId;
use db::sqlx::any::AnyRow;
use db::sqlx::{Row as _, query};
use db::{Db, DbError, Scope, WriteTx};
use serde_json::{Value, json};

use crate::error::{AppError, Result};

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its client's name for it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The dataset's name; none for examples that are in none.
    pub dataset: Option<String>,
    /// What it is for.
    pub description: String,
    /// Anything else; `Null` when there is nothing.
    pub metadata: Value,
    /// Who sent it.
    pub author: String,
    /// When its first item began.
    pub started_at: i64,
    /// When its last item ended.
    pub ended_at: i64,
    /// How many items it has.
    pub items: i64,
    /// How many of them have no answer.
    pub failed: i64,
}

/// What a run did with one example.
#[derive(Debug, Clone, PartialEq)]
pub struct RunItem {
    /// The run.
    pub run: String,
    /// The example's id.
    pub item: String,
    /// The trace in which it was answered.
    pub trace: String,
    /// The span that answered; empty for the whole trace.
    pub span: String,
    /// When.
    pub started_at: i64,
    /// Until when.
    pub ended_at: i64,
    /// Whether something went wrong.
    pub failed: bool,
    /// Where.
    pub environment: String,
    /// The time of the dataset's version, where the client asked for one.
    pub item_version: Option<String>,
    /// What was asked.
    pub input: Value,
    /// What was answered.
    pub output: Value,
    /// What should have been.
    pub expected: Value,
    /// What the client noted.
    pub metadata: Value,
    /// What the example says about itself.
    pub item_metadata: Value,
}

/// What an item tells about its run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunFacts {
    /// The run.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The dataset.
    pub dataset: Option<String>,
    /// What it is for, where the item says it.
    pub description: Option<String>,
    /// Anything else, where the item says it.
    pub metadata: Value,
}

/// A score as a client sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientScore {
    /// The client's id for it.
    pub id: String,
    /// The score in telemetry; empty for one of a run.
    pub score: String,
    /// What it judges: a trace, perhaps a span of it, or a run. Empty where it is not that.
    pub trace: String,
    /// See above.
    pub span: String,
    /// See above.
    pub run: String,
    /// What is judged.
    pub name: String,
    /// `NUMERIC`, `BOOLEAN`, `CATEGORICAL`, `TEXT` or `CORRECTION`.
    pub r#type: String,
    /// The number.
    pub value: Option<f64>,
    /// The word.
    pub label: Option<String>,
    /// Reason or remark.
    pub comment: Option<String>,
    /// Anything else; `Null` when there is nothing.
    pub metadata: Value,
    /// Where.
    pub environment: String,
    /// `API` or `ANNOTATION`.
    pub source: String,
    /// Who sent it.
    pub author: String,
    /// When it was given.
    pub at: i64,
    /// When it came first.
    pub created_at: i64,
    /// When it came last.
    pub updated_at: i64,
}

impl ClientScore {
    /// The value, as people read it.
    pub fn shown(&self) -> Value {
        match (self.r#type.as_str(), self.value, &self.label) {
            ("BOOLEAN", Some(value), _) => json!(value > 0.0),
            (_, _, Some(label)) => json!(label),
            (_, value, None) => json!(value),
        }
    }
}

/// Which scores.
#[derive(Debug, Clone, Default)]
pub struct ScoreFilter {
    /// Of these traces.
    pub traces: Vec<String>,
    /// Of these spans.
    pub spans: Vec<String>,
    /// Of these runs.
    pub runs: Vec<String>,
    /// With these ids.
    pub ids: Vec<String>,
    /// With these names.
    pub names: Vec<String>,
    /// Of these types.
    pub types: Vec<String>,
    /// Of these sources.
    pub sources: Vec<String>,
    /// Of these environments.
    pub environments: Vec<String>,
    /// Given at this time or later.
    pub from: Option<i64>,
    /// Given before.
    pub until: Option<i64>,
}

/// Which items.
#[derive(Debug, Clone, Default)]
pub struct ItemFilter {
    /// Of these runs, by id.
    pub runs: Vec<String>,
    /// Of runs with these names.
    pub run_names: Vec<String>,
    /// Of these examples.
    pub items: Vec<String>,
    /// Of runs over these datasets.
    pub datasets: Vec<String>,
    /// Begun at this time or later.
    pub from: Option<i64>,
    /// Begun before.
    pub until: Option<i64>,
}

/// Which runs.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// With these ids.
    pub ids: Vec<String>,
    /// With these names.
    pub names: Vec<String>,
    /// Over these datasets.
    pub datasets: Vec<String>,
    /// With anything at this time or later.
    pub from: Option<i64>,
    /// Begun before.
    pub until: Option<i64>,
}

/// One `IN` of a condition: as many `$n` as there are values, which are bound later.
/// Names of columns are ours, never a caller's.
struct Where {
    text: String,
    bound: Vec<Bound>,
}

enum Bound {
    Text(String),
    Number(i64),
}

impl Where {
    fn new(project: ProjectId, column: &str) -> Self {
        Self {
            text: format!("{column} = $1"),
            bound: vec![Bound::Text(project.to_string())],
        }
    }

    fn is_one_of(&mut self, column: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let mut places = Vec::new();
        for value in values {
            self.bound.push(Bound::Text(value.clone()));
            places.push(format!("${}", self.bound.len()));
        }
        self.text
            .push_str(&format!(" AND {column} IN ({})", places.join(", ")));
    }

    fn compare(&mut self, column: &str, sign: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.bound.push(Bound::Number(value));
            self.text
                .push_str(&format!(" AND {column} {sign} ${}", self.bound.len()));
        }
    }

    /// Rows after this one, newest first; `ids` break ties.
    fn after(&mut self, time: &str, ids: &str, key: Option<&(i64, String)>) {
        if let Some((at, id)) = key {
            self.bound.push(Bound::Number(*at));
            let at = self.bound.len();
            self.bound.push(Bound::Text(id.clone()));
            let id = self.bound.len();
            self.text.push_str(&format!(
                " AND ({time} < ${at} OR ({time} = ${at} AND {ids} < ${id}))"
            ));
        }
    }

    async fn fetch(self, db: &Db, before: &str, after: &str) -> Result<Vec<AnyRow>> {
        let text = format!("{before} WHERE {} {after}", self.text);
        let mut query = query(db::sqlx::AssertSqlSafe(text));
        for bound in self.bound {
            query = match bound {
                Bound::Text(text) => query.bind(text),
                Bound::Number(number) => query.bind(number),
            };
        }
        Ok(query.fetch_all(db.read()).await.map_err(DbError::from)?)
    }
}

fn to_text(value: &Value) -> String {
    if value.is_null() {
        String::new()
    } else {
        value.to_string()
    }
}

fn of_text(row: &AnyRow, column: usize) -> Result<Value, DbError> {
    let text: String = row.try_get(column)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// Writes what a run did with an example, and the run where it is new.
///
/// # Errors
/// The database cannot be written.
pub async fn record_item(
    tx: &mut WriteTx,
    scope: Scope,
    facts: &RunFacts,
    item: &RunItem,
) -> Result<()> {
    let project = scope.project.to_string();
    query(
        "INSERT INTO dataset_runs (project, id, name, dataset, description, metadata, author, started_at, ended_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (project, id) DO UPDATE SET \
            description = CASE WHEN excluded.description = '' THEN dataset_runs.description ELSE excluded.description END, \
            metadata = CASE WHEN excluded.metadata = '' THEN dataset_runs.metadata ELSE excluded.metadata END, \
            dataset = COALESCE(dataset_runs.dataset, excluded.dataset), \
            started_at = CASE WHEN excluded.started_at < dataset_runs.started_at THEN excluded.started_at ELSE dataset_runs.started_at END, \
            ended_at = CASE WHEN excluded.ended_at > dataset_runs.ended_at THEN excluded.ended_at ELSE dataset_runs.ended_at END",
    )
    .bind(&project)
    .bind(&facts.id)
    .bind(&facts.name)
    .bind(&facts.dataset)
    .bind(facts.description.as_deref().unwrap_or_default())
    .bind(to_text(&facts.metadata))
    .bind(scope.actor.to_string())
    .bind(item.started_at)
    .bind(item.ended_at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    query(
        "INSERT INTO dataset_run_items (project, run, item, trace, span, started_at, ended_at, failed, environment, \
            item_version, input, output, expected, metadata, item_metadata) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (project, run, item, trace) DO UPDATE SET span = excluded.span, started_at = excluded.started_at, \
            ended_at = excluded.ended_at, failed = excluded.failed, environment = excluded.environment, \
            item_version = excluded.item_version, input = excluded.input, output = excluded.output, \
            expected = excluded.expected, metadata = excluded.metadata, item_metadata = excluded.item_metadata",
    )
    .bind(project)
    .bind(&facts.id)
    .bind(&item.item)
    .bind(&item.trace)
    .bind(&item.span)
    .bind(item.started_at)
    .bind(item.ended_at)
    .bind(i64::from(item.failed))
    .bind(&item.environment)
    .bind(&item.item_version)
    .bind(to_text(&item.input))
    .bind(to_text(&item.output))
    .bind(to_text(&item.expected))
    .bind(to_text(&item.metadata))
    .bind(to_text(&item.item_metadata))
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Runs, the newest first, after this one.
///
/// # Errors
/// The database cannot be read.
pub async fn list_runs(
    db: &Db,
    project: ProjectId,
    filter: &RunFilter,
    after: Option<&(i64, String)>,
    limit: i64,
) -> Result<Vec<Run>> {
    let mut wanted = Where::new(project, "r.project");
    wanted.is_one_of("r.id", &filter.ids);
    wanted.is_one_of("r.name", &filter.names);
    wanted.is_one_of("r.dataset", &filter.datasets);
    wanted.compare("r.ended_at", ">=", filter.from);
    wanted.compare("r.started_at", "<", filter.until);
    wanted.after("r.ended_at", "r.id", after);
    let rows = wanted
        .fetch(
            db,
            "SELECT r.id, r.name, r.dataset, r.description, r.metadata, r.author, r.started_at, r.ended_at, \
                (SELECT CAST(COUNT(*) AS BIGINT) FROM dataset_run_items i WHERE i.project = r.project AND i.run = r.id), \
                (SELECT CAST(COALESCE(SUM(i.failed), 0) AS BIGINT) FROM dataset_run_items i WHERE i.project = r.project AND i.run = r.id) \
             FROM dataset_runs r",
            &format!("ORDER BY r.ended_at DESC, r.id DESC LIMIT {}", limit.clamp(1, 1000)),
        )
        .await?;
    let read = |row: &AnyRow| -> Result<Run, DbError> {
        Ok(Run {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            dataset: row.try_get(2)?,
            description: row.try_get(3)?,
            metadata: of_text(row, 4)?,
            author: row.try_get(5)?,
            started_at: row.try_get(6)?,
            ended_at: row.try_get(7)?,
            items: row.try_get(8)?,
            failed: row.try_get(9)?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// One run.
///
/// # Errors
/// 404 when there is none.
pub async fn find_run(db: &Db, project: ProjectId, id: &str) -> Result<Run> {
    let filter = RunFilter {
        ids: vec![id.to_owned()],
        ..RunFilter::default()
    };
    let found = list_runs(db, project, &filter, None, 1).await?.pop();
    found.ok_or_else(|| AppError::not_found("there is no such run").code("run_not_found"))
}

/// Items of runs, the newest first, after this one.
///
/// # Errors
/// The database cannot be read.
pub async fn list_items(
    db: &Db,
    project: ProjectId,
    filter: &ItemFilter,
    after: Option<&(i64, String)>,
    limit: i64,
) -> Result<Vec<RunItem>> {
    let mut wanted = Where::new(project, "i.project");
    wanted.is_one_of("i.run", &filter.runs);
    wanted.is_one_of("r.name", &filter.run_names);
    wanted.is_one_of("i.item", &filter.items);
    wanted.is_one_of("r.dataset", &filter.datasets);
    wanted.compare("i.started_at", ">=", filter.from);
    wanted.compare("i.started_at", "<", filter.until);
    // A trace has one item of a run, as a rule; two in the same microsecond of one trace are one key.
    wanted.after("i.started_at", "(i.trace || i.item)", after);
    let rows = wanted
        .fetch(
            db,
            "SELECT i.run, i.item, i.trace, i.span, i.started_at, i.ended_at, i.failed, i.environment, i.item_version, \
                i.input, i.output, i.expected, i.metadata, i.item_metadata \
             FROM dataset_run_items i JOIN dataset_runs r ON r.project = i.project AND r.id = i.run",
            &format!(
                "ORDER BY i.started_at DESC, (i.trace || i.item) DESC LIMIT {}",
                limit.clamp(1, 10_000)
            ),
        )
        .await?;
    let read = |row: &AnyRow| -> Result<RunItem, DbError> {
        Ok(RunItem {
            run: row.try_get(0)?,
            item: row.try_get(1)?,
            trace: row.try_get(2)?,
            span: row.try_get(3)?,
            started_at: row.try_get(4)?,
            ended_at: row.try_get(5)?,
            failed: row.try_get::<i64, _>(6)? != 0,
            environment: row.try_get(7)?,
            item_version: row.try_get(8)?,
            input: of_text(row, 9)?,
            output: of_text(row, 10)?,
            expected: of_text(row, 11)?,
            metadata: of_text(row, 12)?,
            item_metadata: of_text(row, 13)?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

impl RunItem {
    /// What comes after this item, for [`list_items`].
    pub fn key(&self) -> (i64, String) {
        (self.started_at, format!("{}{}", self.trace, self.item))
    }
}

/// Removes a run and its own scores. Traces and their scores stay.
///
/// # Errors
/// 404 when there is none.
pub async fn delete_run(db: &Db, scope: Scope, id: &str) -> Result<()> {
    let run = find_run(db, scope.project, id).await?;
    let mut tx = db.begin_write().await?;
    for text in [
        "DELETE FROM client_scores WHERE project = $1 AND run = $2",
        "DELETE FROM dataset_run_items WHERE project = $1 AND run = $2",
        "DELETE FROM dataset_runs WHERE project = $1 AND id = $2",
    ] {
        query(text)
            .bind(scope.project.to_string())
            .bind(id)
            .execute(tx.conn())
            .await
            .map_err(DbError::from)?;
    }
    let detail = json!({"run": run.name, "dataset": run.dataset, "items": run.items});
    let line = db::audit::Line::new(scope, "dataset.run_delete", id);
    line.detail(detail).write(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Writes a score, or replaces the one with its id.
///
/// # Errors
/// The database cannot be written.
pub async fn record_score(tx: &mut WriteTx, project: ProjectId, score: &ClientScore) -> Result<()> {
    query(
        "INSERT INTO client_scores (project, id, score, trace, span, run, name, type, value, label, comment, metadata, \
            environment, source, author, at, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17) \
         ON CONFLICT (project, id) DO UPDATE SET score = excluded.score, trace = excluded.trace, span = excluded.span, \
            run = excluded.run, name = excluded.name, type = excluded.type, value = excluded.value, label = excluded.label, \
            comment = excluded.comment, metadata = excluded.metadata, environment = excluded.environment, \
            source = excluded.source, author = excluded.author, at = excluded.at, updated_at = excluded.updated_at",
    )
    .bind(project.to_string())
    .bind(&score.id)
    .bind(&score.score)
    .bind(&score.trace)
    .bind(&score.span)
    .bind(&score.run)
    .bind(&score.name)
    .bind(&score.r#type)
    .bind(db::Real(score.value))
    .bind(&score.label)
    .bind(&score.comment)
    .bind(to_text(&score.metadata))
    .bind(&score.environment)
    .bind(&score.source)
    .bind(&score.author)
    .bind(score.at)
    .bind(score.updated_at)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Scores that clients sent, the newest first, after this one.
///
/// # Errors
/// The database cannot be read.
pub async fn list_scores(
    db: &Db,
    project: ProjectId,
    filter: &ScoreFilter,
    after: Option<&(i64, String)>,
    limit: i64,
) -> Result<Vec<ClientScore>> {
    let mut wanted = Where::new(project, "project");
    wanted.is_one_of("trace", &filter.traces);
    wanted.is_one_of("span", &filter.spans);
    wanted.is_one_of("run", &filter.runs);
    wanted.is_one_of("id", &filter.ids);
    wanted.is_one_of("name", &filter.names);
    wanted.is_one_of("type", &filter.types);
    wanted.is_one_of("source", &filter.sources);
    wanted.is_one_of("environment", &filter.environments);
    wanted.compare("at", ">=", filter.from);
    wanted.compare("at", "<", filter.until);
    wanted.after("at", "id", after);
    let rows = wanted
        .fetch(
            db,
            "SELECT id, score, trace, span, run, name, type, value, label, comment, metadata, environment, source, author, \
                at, created_at, updated_at FROM client_scores",
            &format!("ORDER BY at DESC, id DESC LIMIT {}", limit.clamp(1, 100_000)),
        )
        .await?;
    let read = |row: &AnyRow| -> Result<ClientScore, DbError> {
        Ok(ClientScore {
            id: row.try_get(0)?,
            score: row.try_get(1)?,
            trace: row.try_get(2)?,
            span: row.try_get(3)?,
            run: row.try_get(4)?,
            name: row.try_get(5)?,
            r#type: row.try_get(6)?,
            value: row.try_get(7)?,
            label: row.try_get(8)?,
            comment: row.try_get(9)?,
            metadata: of_text(row, 10)?,
            environment: row.try_get(11)?,
            source: row.try_get(12)?,
            author: row.try_get(13)?,
            at: row.try_get(14)?,
            created_at: row.try_get(15)?,
            updated_at: row.try_get(16)?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// The scores that count for these items: of the span that answered, or of its trace.
///
/// # Errors
/// The database cannot be read.
pub async fn scores_of_items(
    db: &Db,
    project: ProjectId,
    items: &[RunItem],
) -> Result<BTreeMap<(String, String), Vec<ClientScore>>> {
    const AT_ONCE: usize = 500;
    let mut found: BTreeMap<(String, String), Vec<ClientScore>> = BTreeMap::new();
    for some in items.chunks(AT_ONCE) {
        let filter = ScoreFilter {
            traces: some.iter().map(|item| item.trace.clone()).collect(),
            ..ScoreFilter::default()
        };
        let scores = list_scores(db, project, &filter, None, 100_000).await?;
        for item in some {
            let own = scores.iter().filter(|score| {
                score.trace == item.trace && (score.span.is_empty() || score.span == item.span)
            });
            let key = (item.trace.clone(), item.item.clone());
            found.insert(key, own.cloned().collect());
        }
    }
    Ok(found)
}

/// What the scores of one name come to, for runs beside each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreSummary {
    /// The mean of those that are numbers or flags.
    pub mean: Option<f64>,
    /// How many there are.
    pub count: u64,
}

/// By run and name of a score: what the items' scores come to.
///
/// # Errors
/// The database cannot be read.
pub async fn summaries(
    db: &Db,
    project: ProjectId,
    runs: &[String],
) -> Result<BTreeMap<String, BTreeMap<String, ScoreSummary>>> {
    let mut found: BTreeMap<String, BTreeMap<String, ScoreSummary>> = BTreeMap::new();
    if runs.is_empty() {
        return Ok(found);
    }
    let mut wanted = Where::new(project, "i.project");
    wanted.is_one_of("i.run", runs);
    let rows = wanted
        .fetch(
            db,
            "SELECT i.run, s.name, AVG(s.value), CAST(COUNT(*) AS BIGINT) FROM dataset_run_items i \
             JOIN client_scores s ON s.project = i.project AND s.trace = i.trace AND (s.span = '' OR s.span = i.span)",
            "GROUP BY i.run, s.name",
        )
        .await?;
    for row in &rows {
        let read = || -> Result<(String, String, ScoreSummary), DbError> {
            let count: i64 = row.try_get(3)?;
            Ok((
                row.try_get(0)?,
                row.try_get(1)?,
                ScoreSummary {
                    mean: row.try_get(2)?,
                    count: u64::try_from(count).unwrap_or(0),
                },
            ))
        };
        let (run, name, summary) = read()?;
        found.entry(run).or_default().insert(name, summary);
    }
    Ok(found)
}
