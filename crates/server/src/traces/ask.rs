//! From what clients write (times, filter, words, page) to telemetry's queries,
//! and running those where blocking is allowed.
//!
//! Pages and API read the same keys with the same meaning, so that the address
//! of a page can be turned into an API call by changing its path.

use base::{Cursor, ProjectId};
use serde::{Deserialize, Serialize};
use telemetry::{
    AggregateQuery, FacetQuery, Filter, FilterError, ListQuery, QueryError, Reader, Scope,
    Telemetry,
};

use crate::error::{AppError, Result};

use super::time::parse_time;

/// Which spans somebody asks for: the keys that list, facets, figures and live
/// tail share.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Earliest start, inclusive.
    pub from_us: Option<i64>,
    /// Latest start, exclusive.
    pub to_us: Option<i64>,
    /// Which.
    pub filter: Filter,
    /// Words that must occur in the messages.
    pub text: Option<String>,
    /// Roots or every span.
    pub scope: Scope,
}

/// [`Ask`] as clients write it.
#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct AskText {
    /// Earliest start, inclusive: microseconds, RFC 3339 or relative (`-1h`).
    pub from: Option<String>,
    /// Latest start, exclusive.
    pub to: Option<String>,
    /// A filter, for example `model = "local/small" and latency_ms > 800`.
    pub filter: Option<String>,
    /// Words that must all occur in the messages.
    pub q: Option<String>,
    /// `roots` (one row per trace; the default) or `spans`.
    pub scope: Option<String>,
}

impl AskText {
    /// Reads the keys.
    ///
    /// # Errors
    /// 400 that names the key and, for a filter, the column.
    pub fn parse(&self, now_us: i64) -> Result<Ask> {
        let from_us = time("from", self.from.as_deref(), now_us)?;
        let to_us = time("to", self.to.as_deref(), now_us)?;
        if let (Some(from), Some(to)) = (from_us, to_us)
            && from > to
        {
            return Err(AppError::invalid("from is later than to").at("from"));
        }
        let filter =
            Filter::parse(self.filter.as_deref().unwrap_or_default()).map_err(filter_error)?;
        let text = self
            .q
            .as_deref()
            .map(str::trim)
            .filter(|words| !words.is_empty())
            .map(str::to_owned);
        Ok(Ask {
            from_us,
            to_us,
            filter,
            text,
            scope: scope(self.scope.as_deref())?,
        })
    }
}

fn time(key: &'static str, text: Option<&str>, now_us: i64) -> Result<Option<i64>> {
    let parsed = text.map(|text| parse_time(text, now_us)).transpose();
    parsed.map_err(|message| AppError::invalid(message).code("invalid_time").at(key))
}

fn scope(word: Option<&str>) -> Result<Scope> {
    match word {
        None | Some("roots") => Ok(Scope::Roots),
        Some("spans") => Ok(Scope::Spans),
        Some(other) => {
            Err(AppError::invalid(format!("scope is roots or spans, not {other:?}")).at("scope"))
        }
    }
}

/// A filter that was not understood: `at` is `filter:COLUMN`, counted in characters from 1.
pub fn filter_error(error: FilterError) -> AppError {
    let mut refusal = AppError::invalid(format!(
        "the filter was not understood: {} at column {}",
        error.message, error.column
    ))
    .code("invalid_filter")
    .at(format!("filter:{}", error.column));
    refusal.hint = error.hint;
    refusal
}

impl Ask {
    /// A page of these spans.
    pub fn list(&self, project: ProjectId, limit: usize, cursor: Option<Cursor>) -> ListQuery {
        ListQuery {
            project,
            from_us: self.from_us,
            to_us: self.to_us,
            filter: self.filter.clone(),
            text: self.text.clone(),
            cursor,
            limit,
            scope: self.scope,
        }
    }

    /// Figures over these spans; what to compute is left to set.
    pub fn aggregate(&self, project: ProjectId) -> AggregateQuery {
        let mut query = AggregateQuery::new(project);
        query.from_us = self.from_us;
        query.to_us = self.to_us;
        query.filter = self.filter.clone();
        query.text = self.text.clone();
        query.scope = self.scope;
        query
    }

    /// The most frequent values of these fields among these spans.
    pub fn facets(
        &self,
        project: ProjectId,
        fields: Vec<telemetry::Field>,
        top: usize,
    ) -> FacetQuery {
        FacetQuery {
            project,
            from_us: self.from_us,
            to_us: self.to_us,
            filter: self.filter.clone(),
            text: self.text.clone(),
            scope: self.scope,
            fields,
            top,
        }
    }
}

/// A query that gave no answer, as the caller sees it.
fn query_error(error: QueryError) -> AppError {
    match error {
        QueryError::Invalid(message) => AppError::invalid(message),
        slow @ QueryError::TooSlow { .. } => {
            AppError::unavailable(slow.to_string()).code("query_too_slow")
        }
        busy @ QueryError::Busy { .. } => {
            AppError::unavailable(busy.to_string()).code("query_busy")
        }
        storage @ QueryError::Storage { .. } => AppError::internal(storage),
    }
}

/// Runs queries on a thread that may block. Telemetry bounds their number and
/// their time; a caller that goes away leaves at most one running to its limit.
///
/// # Errors
/// What the work returns, and 500 when it panicked.
pub async fn read<T: Send + 'static>(
    telemetry: &Telemetry,
    work: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
) -> Result<T> {
    let telemetry = telemetry.clone();
    let done = tokio::task::spawn_blocking(move || work(telemetry.reader())).await;
    done.map_err(AppError::internal)?.map_err(query_error)
}
