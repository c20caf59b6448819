//! Names: listing them by folder, tag and search, tagging and deleting them.
//!
//! What is mutable about a name is here; everything else about it is versions.
//! A deleted name is hidden and points nowhere, but its versions stay, and saving
//! under it brings it back. Searching happens in the program, a chunk of names at
//! a time, because the two databases fold the case of non-Latin letters differently.

use std::collections::{BTreeMap, HashMap};

use base::{Cursor, ProjectId};
use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use unicode_normalization::UnicodeNormalization;

use super::{
    Catalog, CatalogError, Changed, Name, Page, PageRequest, Pointer, Problem, Version,
    audit_catalog, clean_text, store,
};
use crate::{DbError, Scope, WriteTx};

const MAX_TAGS: usize = 50;
const MAX_TAG_CHARS: usize = 64;

/// A name in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its newest version.
    pub latest: Version,
    /// Its pointers: label and version number, by label.
    pub labels: Vec<(String, i64)>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// When it was deleted; only in lists that ask for deleted names.
    pub deleted_at: Option<i64>,
}

/// Which names a list shows; the default shows all that are not deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// Only names in this folder: `support` finds `support/answer`.
    pub folder: Option<Name>,
    /// Only names right in the folder (or in none), not those in its sub-folders.
    pub direct: bool,
    /// Only names with this tag.
    pub tag: Option<String>,
    /// Only names that hold each of these words, in the name or a tag; case and width do not matter.
    pub search: Option<String>,
    /// Deleted names as well.
    pub include_deleted: bool,
}

/// A folder with the names in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Folder {
    /// The whole path: `support/mail`.
    pub path: Name,
    /// How many names it holds, its own sub-folders included.
    pub names: usize,
}

/// What lies right in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FolderListing {
    /// Its sub-folders, by name.
    pub folders: Vec<Folder>,
    /// How many names lie right in it.
    pub names_here: usize,
    /// How many names it holds in all.
    pub names: usize,
    /// The tags in use below it, each with the number of names that have it.
    pub tags: Vec<(String, usize)>,
}

/// A name that somebody wants to delete.
#[derive(Debug, Clone, Copy)]
pub struct DeleteRequest<'a> {
    /// The document kind.
    pub kind: &'a str,
    /// The name.
    pub name: &'a Name,
    /// Why, in the actor's words; may be empty.
    pub reason: &'a str,
    /// Delete it although documents in use refer to it.
    pub force: bool,
}

/// What deleting a name did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// The pointers that were removed, where they pointed last.
    pub pointers: Vec<Pointer>,
    /// The documents in use that refer to the name and now lead nowhere; empty unless forced.
    pub dependents: Vec<super::Dependent>,
}

/// Whether names of this kind lie in this folder, as this connection sees it.
///
/// # Errors
/// The database cannot be read.
pub async fn is_folder_on(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    folder: &str,
) -> Result<bool, DbError> {
    let query = store::NamesAfter {
        prefix: &format!("{folder}/"),
        direct: false,
        include_deleted: false,
        after: "",
        limit: 1,
    };
    let found = store::names_after(connection, project, kind, query).await?;
    Ok(!found.is_empty())
}

impl Catalog {
    /// The names of a kind in order.
    ///
    /// # Errors
    /// The database cannot be read, or the cursor was not made here.
    pub async fn list_names(
        &self,
        scope: Scope,
        kind: &str,
        filter: &NameFilter,
        page: &PageRequest,
    ) -> Result<Page<Listed>, CatalogError> {
        let after: String = page
            .cursor
            .as_ref()
            .map(Cursor::key)
            .transpose()?
            .unwrap_or_default();
        let mut connection = self.db.read().acquire().await?;
        let rows = matching(
            &mut connection,
            scope.project,
            kind,
            filter,
            after,
            page.limit(),
        )
        .await?;
        let page = Page::cut(rows, page.limit(), |row| Cursor::new(&row.name.as_str()));
        let items = with_versions(&mut connection, scope.project, kind, page.items).await?;
        Ok(Page {
            items,
            next: page.next,
        })
    }

    /// One name as a list shows it, deleted or not; `None` when there never was one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn name(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
    ) -> Result<Option<Listed>, CatalogError> {
        let mut connection = self.db.read().acquire().await?;
        let row = store::name_row(&mut connection, scope.project, kind, name).await?;
        let rows = row.into_iter().collect();
        let listed = with_versions(&mut connection, scope.project, kind, rows).await?;
        Ok(listed.into_iter().next())
    }

    /// The sub-folders of a folder, or those at the top, with how much is in them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn folders(
        &self,
        scope: Scope,
        kind: &str,
        folder: Option<&Name>,
    ) -> Result<FolderListing, CatalogError> {
        let prefix = prefix_of(folder);
        let mut connection = self.db.read().acquire().await?;
        let query = store::NamesAfter {
            prefix: &prefix,
            direct: false,
            include_deleted: false,
            after: "",
            limit: i64::MAX,
        };
        let rows = store::names_after(&mut connection, scope.project, kind, query).await?;
        let mut listing = FolderListing {
            names: rows.len(),
            ..FolderListing::default()
        };
        let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
        let mut tags: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &rows {
            let name = row.name.as_str();
            match name[prefix.len()..].find('/') {
                Some(end) => *folders.entry(&name[..prefix.len() + end]).or_default() += 1,
                None => listing.names_here += 1,
            }
            for tag in &row.tags {
                *tags.entry(tag).or_default() += 1;
            }
        }
        for (path, names) in folders {
            let path = path.parse()?;
            listing.folders.push(Folder { path, names });
        }
        let owned = |(tag, names): (&str, usize)| (tag.to_owned(), names);
        listing.tags = tags.into_iter().map(owned).collect();
        Ok(listing)
    }

    /// Replaces the tags of a name; gives them back as they are kept.
    ///
    /// # Errors
    /// A tag is wrong, or there is no such name.
    pub async fn set_tags(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        tags: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let mut tx = self.db.begin_write().await?;
        let tags = self.set_tags_in(&mut tx, scope, kind, name, tags).await?;
        tx.commit().await?;
        Ok(tags)
    }

    /// [`Catalog::set_tags`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn set_tags_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        kind: &str,
        name: &Name,
        tags: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let tags = clean_tags(tags)?;
        tx.serialise().await?;
        let row = living(tx, scope, kind, name).await?;
        if row.tags == tags {
            return Ok(tags);
        }
        store::put_tags(tx.conn(), scope.project, kind, name, &tags).await?;
        let detail = json!({ "from": row.tags, "to": tags });
        audit_catalog(tx, scope, kind, "tag", name, Changed::default(), &detail).await?;
        Ok(tags)
    }

    /// Deletes a name: its pointers are removed and it is hidden; its versions stay.
    ///
    /// # Errors
    /// [`CatalogError::NoName`], [`CatalogError::Protected`] where a label of it is
    /// protected, [`CatalogError::Referenced`] while documents in use refer to it,
    /// unless forced.
    pub async fn delete_name(
        &self,
        scope: Scope,
        request: DeleteRequest<'_>,
    ) -> Result<Deleted, CatalogError> {
        let mut tx = self.db.begin_write().await?;
        let deleted = self.delete_name_in(&mut tx, scope, request).await?;
        tx.commit().await?;
        Ok(deleted)
    }

    /// [`Catalog::delete_name`] in the caller's transaction.
    ///
    /// # Errors
    /// As there; after a database error the transaction cannot be used further.
    pub async fn delete_name_in(
        &self,
        tx: &mut WriteTx,
        scope: Scope,
        request: DeleteRequest<'_>,
    ) -> Result<Deleted, CatalogError> {
        let reason = clean_text("reason", request.reason)?;
        tx.serialise().await?;
        let DeleteRequest { kind, name, .. } = request;
        let row = living(tx, scope, kind, name).await?;
        if !request.force {
            self.refuse_referenced(tx, scope, kind, name, None).await?;
        }
        let dependents = store::dependents(tx.conn(), scope.project, kind, name).await?;
        let pointers = store::pointers(tx.conn(), scope.project, kind, name).await?;
        for pointer in &pointers {
            self.remove_current(tx, scope, pointer, &reason).await?;
        }
        let now = self.db.now_us();
        store::put_name(tx.conn(), scope.project, kind, name, row.latest, Some(now)).await?;
        let latest = store::by_number(tx.conn(), scope.project, kind, name, row.latest).await?;
        let changed = Changed {
            before: latest.map(|version| version.digest),
            after: None,
            reason: &reason,
        };
        let detail = json!({ "latest": row.latest, "forced": request.force, "reason": reason });
        audit_catalog(tx, scope, kind, "delete", name, changed, &detail).await?;
        tx.bump_plan().await?;
        Ok(Deleted {
            pointers,
            dependents,
        })
    }
}

/// The row of a name that exists and is not deleted.
async fn living(
    tx: &mut WriteTx,
    scope: Scope,
    kind: &str,
    name: &Name,
) -> Result<NameRow, CatalogError> {
    match store::name_row(tx.conn(), scope.project, kind, name).await? {
        Some(row) if row.deleted_at.is_none() => Ok(row),
        Some(_) => Err(CatalogError::Deleted {
            kind: kind.to_owned(),
            name: name.clone(),
        }),
        None => Err(CatalogError::NoName {
            kind: kind.to_owned(),
            name: name.clone(),
        }),
    }
}

/// What is kept about a name.
#[derive(Debug, Clone)]
pub(super) struct NameRow {
    pub(super) name: Name,
    pub(super) tags: Vec<String>,
    pub(super) latest: i64,
    pub(super) deleted_at: Option<i64>,
}

fn prefix_of(folder: Option<&Name>) -> String {
    folder
        .map(|folder| format!("{folder}/"))
        .unwrap_or_default()
}

/// One more than `limit`, so that the caller knows whether there is another page.
async fn matching(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    filter: &NameFilter,
    mut after: String,
    limit: i64,
) -> Result<Vec<NameRow>, CatalogError> {
    let wanted = Wanted::new(filter);
    let prefix = prefix_of(filter.folder.as_ref());
    let chunk = if wanted.is_all() { limit + 1 } else { 2000 };
    let mut found = Vec::new();
    loop {
        let query = store::NamesAfter {
            prefix: &prefix,
            direct: filter.direct,
            include_deleted: filter.include_deleted,
            after: &after,
            limit: chunk,
        };
        let rows = store::names_after(connection, project, kind, query).await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < chunk);
        if let Some(last) = rows.last() {
            after = last.name.to_string();
        }
        found.extend(rows.into_iter().filter(|row| wanted.includes(row)));
        let enough = i64::try_from(found.len()).is_ok_and(|found| found > limit);
        if is_last || enough {
            found.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
            return Ok(found);
        }
    }
}

/// What the program, not the database, looks for.
struct Wanted {
    tag: Option<String>,
    words: Vec<String>,
}

impl Wanted {
    fn new(filter: &NameFilter) -> Self {
        let search = filter.search.as_deref().map(folded).unwrap_or_default();
        Self {
            tag: filter.tag.as_deref().map(|tag| tag.trim().nfc().collect()),
            words: search.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn is_all(&self) -> bool {
        self.tag.is_none() && self.words.is_empty()
    }

    fn includes(&self, row: &NameRow) -> bool {
        let tagged = |tag: &String| row.tags.contains(tag);
        if !self.tag.as_ref().is_none_or(tagged) {
            return false;
        }
        if self.words.is_empty() {
            return true;
        }
        let texts: Vec<String> = std::iter::once(row.name.as_str())
            .chain(row.tags.iter().map(String::as_str))
            .map(folded)
            .collect();
        let has = |word: &String| texts.iter().any(|text| text.contains(word.as_str()));
        self.words.iter().all(has)
    }
}

/// A text without its differences of case and width.
fn folded(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).collect()
}

async fn with_versions(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    rows: Vec<NameRow>,
) -> Result<Vec<Listed>, CatalogError> {
    let names: Vec<&Name> = rows.iter().map(|row| &row.name).collect();
    let latest = store::latest_of(connection, project, kind, &names).await?;
    let mut latest: HashMap<Name, Version> = latest
        .into_iter()
        .map(|version| (version.name.clone(), version))
        .collect();
    let mut labels: HashMap<String, Vec<(String, i64)>> = HashMap::new();
    for (name, label, number) in store::labels_of(connection, project, kind, &names).await? {
        labels.entry(name).or_default().push((label, number));
    }
    let listed = |row: NameRow| {
        Some(Listed {
            latest: latest.remove(&row.name)?,
            labels: labels.remove(row.name.as_str()).unwrap_or_default(),
            tags: row.tags,
            deleted_at: row.deleted_at,
        })
    };
    Ok(rows.into_iter().filter_map(listed).collect())
}

/// Tags as they are kept: trimmed, in normal form, sorted, each once.
/// Tags as they are kept: trimmed, in normal form, sorted, each once.
///
/// # Errors
/// Each tag that cannot be one, with its place (`/tags/3`).
pub fn clean_tags(tags: &[String]) -> Result<Vec<String>, CatalogError> {
    let mut problems = Vec::new();
    let mut clean = Vec::new();
    for (index, tag) in tags.iter().enumerate() {
        match clean_tag(tag) {
            Ok(tag) => clean.push(tag),
            Err(why) => problems.push(Problem::new(format!("/tags/{index}"), why)),
        }
    }
    clean.sort();
    clean.dedup();
    if clean.len() > MAX_TAGS {
        let why = format!("{} tags; at most {MAX_TAGS} are allowed", clean.len());
        problems.push(Problem::new("/tags", why));
    }
    if problems.is_empty() {
        Ok(clean)
    } else {
        Err(CatalogError::Invalid(problems))
    }
}

fn clean_tag(tag: &str) -> Result<String, String> {
    if tag.len() > MAX_TAG_CHARS * 16 {
        return Err(format!("longer than {MAX_TAG_CHARS} characters"));
    }
    let tag: String = tag.trim().nfc().collect();
    let hidden = |c: &char| base::text::is_deceptive(*c) || matches!(c, '\t' | '\n');
    match tag.chars().count() {
        0 => Err("a tag must not be empty".to_owned()),
        count if count > MAX_TAG_CHARS => Err(format!(
            "has {count} characters; at most {MAX_TAG_CHARS} are allowed"
        )),
        _ => match tag.chars().find(hidden) {
            Some(c) => Err(format!(
                "must not contain the invisible character U+{:04X}",
                u32::from(c)
            )),
            None => Ok(tag),
        },
    }
}
