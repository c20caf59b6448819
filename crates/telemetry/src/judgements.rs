//! Scores by themselves, without the spans that they judge: which names there are, and
//! every current score of some names.
//!
//! For setting judges beside people, which needs each author's score and not the latest
//! one that a trace shows.

use std::collections::BTreeMap;

use base::ProjectId;

use crate::query::QueryError;
use crate::reader::Reader;
use crate::span::{Score, Source};

/// A name that scores bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreName {
    /// The name.
    pub name: String,
    /// Who or what gave them.
    pub source: Source,
    /// How many there are, those included that later ones replace.
    pub count: u64,
}

impl Reader {
    /// The names that scores of a project bear, by name and source. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn score_names(&self, project: ProjectId) -> Result<Vec<ScoreName>, QueryError> {
        let sql =
            "SELECT name, source, COUNT(*) FROM scores WHERE project = ?1 GROUP BY name, source";
        let run = self.begin(project)?;
        let mut counts: BTreeMap<(String, Source), u64> = BTreeMap::new();
        for segment in run.segments.iter().filter(|one| one.stat.scores > 0) {
            let found = run.on(segment, |connection, project| {
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map([project], |row| {
                    let source = Source::from_word(row.get_ref(1)?.as_str()?);
                    let count: i64 = row.get(2)?;
                    let key = (row.get::<_, String>(0)?, source.unwrap_or(Source::Api));
                    Ok((key, u64::try_from(count).unwrap_or(0)))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })?;
            for (key, count) in found.unwrap_or_default() {
                *counts.entry(key).or_default() += count;
            }
        }
        let name = |((name, source), count)| ScoreName {
            name,
            source,
            count,
        };
        Ok(counts.into_iter().map(name).collect())
    }

    /// Every current score of these names: the latest of each author on each target. Blocks.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn scores_named(
        &self,
        project: ProjectId,
        names: &[String],
    ) -> Result<Vec<Score>, QueryError> {
        let mut run = self.begin(project)?;
        run.load_scores(names, None)?;
        Ok(run.loaded_scores().all().cloned().collect())
    }
}
