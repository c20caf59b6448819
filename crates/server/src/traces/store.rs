//! Names for ids that spans and scores carry: people and keys.

use std::collections::HashMap;

use base::{KeyId, ProjectId};
use db::sqlx::{Row as _, query};
use db::{Actor, Db, DbError};

use crate::error::Result;

/// The name of an API key of this project, revoked or not.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn key_name(db: &Db, project: ProjectId, key: KeyId) -> Result<Option<String>, DbError> {
    let row = query("SELECT name FROM api_keys WHERE project = $1 AND id = $2")
        .bind(project.to_string())
        .bind(key.to_string())
        .fetch_optional(db.read())
        .await?;
    Ok(row.map(|row| row.try_get("name")).transpose()?)
}

/// Names for the authors of scores, as `user:ID` or `key:ID`.
///
/// # Errors
/// The database cannot be read.
pub(super) async fn author_names(
    db: &Db,
    project: ProjectId,
    authors: impl Iterator<Item = &str>,
) -> Result<HashMap<String, String>> {
    let mut names = HashMap::new();
    for author in authors {
        if names.contains_key(author) {
            continue;
        }
        let name = match author.parse() {
            Ok(Actor::Key(key)) => key_name(db, project, key).await?,
            Ok(Actor::User(_)) => Some(crate::members::actor_name(db, author).await?),
            _ => None,
        };
        names.extend(name.map(|name| (author.to_owned(), name)));
    }
    Ok(names)
}
