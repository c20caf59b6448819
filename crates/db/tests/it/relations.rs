//! What documents have to do with each other: references and circles, deletion
//! and revival, near-duplicates, and names in lists.

use db::catalog::{Deleted, FolderListing};
use db::{
    Catalog, CatalogError, DeleteRequest, Kind, Kinds, Label, Listed, MoveAction, MoveOutcome,
    MoveRequest, Name, NameFilter, NewVersion, PageRequest, Problem, Reference, RemoveOutcome,
    RemoveRequest, SavedVersion, Scope, Selector, sqlx,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Fixture, on_both};

on_both!(
    what_is_referred_to_must_exist,
    a_document_cannot_refer_to_itself,
    a_move_that_closes_a_circle_is_refused,
    a_resolution_is_transitive_and_says_what_is_missing,
    what_is_referred_to_is_not_deleted,
    a_deleted_name_is_gone_and_comes_back,
    a_removed_pointer_is_nowhere_and_goes_on_counting,
    a_mover_and_a_remover_at_once_one_wins,
    near_duplicates_are_pointed_out,
    names_are_found_by_folder_tag_and_words,
    wrong_tags_are_refused_and_say_why,
    names_of_every_script_are_kept_apart,
    ten_thousand_names_are_listed_in_pages,
);

/// Documents of two kinds that say what they refer to in a list.
fn kinds() -> Kinds {
    let kind = |name| Kind {
        references: |document| read(document).filter_map(Result::ok).collect(),
        text_of: |document| document["text"].as_str().unwrap_or_default().to_owned(),
        ..Kind::new(
            name,
            || json!(true),
            |document| {
                let problems: Vec<_> = read(document).filter_map(Result::err).collect();
                if problems.is_empty() {
                    Ok(())
                } else {
                    Err(problems)
                }
            },
        )
    };
    Kinds::new([kind("prompt"), kind("app")])
}

fn read(document: &Value) -> impl Iterator<Item = Result<Reference, Problem>> {
    let uses = document["uses"].as_array().into_iter().flatten();
    uses.enumerate().map(|(index, text)| {
        Reference::parse_at(&format!("/uses/{index}"), text.as_str().unwrap_or_default())
    })
}

fn uses(text: &str, references: &[&str]) -> Value {
    json!({ "text": text, "uses": references })
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn page(limit: u32) -> PageRequest {
    PageRequest {
        cursor: None,
        limit,
    }
}

struct World {
    f: Fixture,
    catalog: Catalog,
    scope: Scope,
}

impl World {
    fn new(f: Fixture) -> Self {
        Self {
            catalog: Catalog::new(f.db.clone(), kinds()),
            scope: f.scope,
            f,
        }
    }

    async fn try_save(&self, at: &str, content: &Value) -> Result<SavedVersion, CatalogError> {
        let (kind, at) = at.split_once(':').unwrap();
        let new = NewVersion {
            kind,
            name: &name(at),
            content,
            message: "",
        };
        self.catalog.save_version(self.scope, new).await
    }

    async fn save(&self, at: &str, content: Value) -> SavedVersion {
        self.try_save(at, &content).await.unwrap()
    }

    async fn refused(&self, at: &str, content: Value) -> String {
        self.try_save(at, &content).await.unwrap_err().to_string()
    }

    /// Moves `prompt:a@production`.
    async fn try_move(&self, at: &str, to: i64) -> Result<MoveOutcome, CatalogError> {
        let reference: Reference = at.parse().unwrap();
        let Selector::Label(label) = &reference.selector else {
            panic!("{at} is no label");
        };
        let request = MoveRequest {
            kind: &reference.kind,
            name: &reference.name,
            label,
            to,
            expected: None,
            reason: "",
        };
        self.catalog.move_pointer(self.scope, request).await
    }

    async fn point(&self, at: &str, to: i64) {
        self.try_move(at, to).await.unwrap();
    }

    async fn try_remove(&self, at: &str, force: bool) -> Result<RemoveOutcome, CatalogError> {
        let reference: Reference = at.parse().unwrap();
        let Selector::Label(label) = &reference.selector else {
            panic!("{at} is no label");
        };
        let request = RemoveRequest {
            kind: &reference.kind,
            name: &reference.name,
            label,
            expected: None,
            reason: "",
            force,
        };
        self.catalog.remove_pointer(self.scope, request).await
    }

    async fn try_delete(&self, at: &str, force: bool) -> Result<Deleted, CatalogError> {
        let (kind, at) = at.split_once(':').unwrap();
        let request = DeleteRequest {
            kind,
            name: &name(at),
            reason: "old",
            force,
        };
        self.catalog.delete_name(self.scope, request).await
    }

    async fn list(&self, filter: &NameFilter) -> Vec<Listed> {
        let page = self
            .catalog
            .list_names(self.scope, "prompt", filter, &page(200))
            .await
            .unwrap();
        page.items
    }

    /// Names as a list shows them, sorted as this program sorts them.
    async fn listed(&self, filter: NameFilter) -> Vec<String> {
        let listed = self.list(&filter).await;
        let mut names: Vec<_> = listed
            .into_iter()
            .map(|item| item.latest.name.to_string())
            .collect();
        names.sort();
        names
    }

    async fn resolve(&self, at: &str, number: i64) -> Result<Vec<(String, i64)>, CatalogError> {
        let (kind, at) = at.split_once(':').unwrap();
        let resolution = self
            .catalog
            .resolve(self.scope, kind, &name(at), number)
            .await?;
        let shown = resolution.references.into_iter();
        Ok(shown
            .map(|resolved| (resolved.text, resolved.number))
            .collect())
    }
}

async fn what_is_referred_to_must_exist(f: Fixture) {
    let w = World::new(f);
    let who = w.save("prompt:geo/who", uses("who", &[])).await.version;
    let check = async |reference: &str, says: &str| {
        let refused = w
            .refused("app:a", uses("", &["prompt:geo/who@1", reference]))
            .await;
        assert_eq!(refused, format!("/uses/1: {says}"));
    };
    check(
        "prompt:geo/whoo",
        "there is no prompt geo/whoo; did you mean geo/who?",
    )
    .await;
    check(
        "prompt:who",
        "there is no prompt who; did you mean geo/who?",
    )
    .await;
    check(
        "prompt:quite-different",
        "there is no prompt quite-different",
    )
    .await;
    check(
        "promt:geo/who",
        "there is no document kind \"promt\"; did you mean prompt?",
    )
    .await;
    check(
        "prompt:geo/who",
        "prompt geo/who has no label production, nor any other",
    )
    .await;
    w.point("prompt:geo/who@staging", 1).await;
    check(
        "prompt:geo/who",
        "prompt geo/who has no label production; it has staging",
    )
    .await;
    check("prompt:geo/who@2", "prompt geo/who has no version 2").await;
    let all = w
        .refused(
            "app:a",
            uses("", &["prompt:x", "prompt:geo/who@1", "prompt:y"]),
        )
        .await;
    assert_eq!(
        all,
        "/uses/0: there is no prompt x; /uses/2: there is no prompt y"
    );
    let digest = format!("prompt:geo/who@{}", who.digest);
    for good in [
        "prompt:geo/who@1",
        "prompt:geo/who@latest",
        "prompt:geo/who@staging",
        &digest,
    ] {
        w.save("app:a", uses("", &[good])).await;
    }
    // Another project's documents are not there.
    let theirs = NewVersion {
        kind: "app",
        name: &name("a"),
        content: &uses("", &["prompt:geo/who@1"]),
        message: "",
    };
    let refused = w.catalog.save_version(w.f.other, theirs).await.unwrap_err();
    assert_eq!(refused.to_string(), "/uses/0: there is no prompt geo/who");
}

async fn a_document_cannot_refer_to_itself(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:a", uses("a1", &[])).await;
    w.point("prompt:a@production", 1).await;
    w.save("prompt:b", uses("b1", &["prompt:a"])).await;
    w.point("prompt:b@staging", 1).await;
    for own in ["prompt:a", "prompt:a@latest", "prompt:a@1"] {
        let full: Reference = own.parse().unwrap();
        assert_eq!(
            w.refused("prompt:a", uses("a2", &[own])).await,
            format!("documents must not refer to themselves: prompt:a → {full}")
        );
    }
    let through = w
        .try_save("prompt:a", &uses("a2", &["prompt:b@staging"]))
        .await;
    let Err(CatalogError::Cycle { at, chain }) = through else {
        panic!("{through:?}");
    };
    assert_eq!(at, "/uses/0");
    assert_eq!(chain, "prompt:a → prompt:b@staging → prompt:a@production");
    // The same name of another kind is another document.
    w.save("app:b", uses("", &["prompt:b@staging"])).await;
    // A diamond is no circle.
    w.save("prompt:c", uses("c", &["prompt:a", "prompt:b@1"]))
        .await;
}

async fn a_move_that_closes_a_circle_is_refused(f: Fixture) {
    let w = World::new(f);
    for at in ["prompt:a", "prompt:b", "prompt:c"] {
        w.save(at, uses(&format!("{at} 1"), &[])).await;
        w.point(&format!("{at}@production"), 1).await;
    }
    w.save("prompt:a", uses("a2", &["prompt:b"])).await;
    w.save("prompt:b", uses("b2", &["prompt:c"])).await;
    w.save("prompt:c", uses("c2", &["prompt:a"])).await;
    w.point("prompt:a@production", 2).await;
    w.point("prompt:b@production", 2).await;
    let refused = w.try_move("prompt:c@production", 2).await.unwrap_err();
    let CatalogError::Cycle { chain, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!(
        chain,
        "prompt:c@production → prompt:a@production → prompt:b@production → prompt:c@production"
    );
    // Under another label it leads to no circle, since nobody follows that one.
    w.point("prompt:c@staging", 2).await;
    // What the moved label leads to may hold a circle that it is no part of only by `latest`.
    w.point("prompt:a@production", 1).await;
    w.point("prompt:c@production", 2).await;
    let refused = w.try_move("prompt:a@production", 2).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Cycle { .. }), "{refused}");
}

async fn a_resolution_is_transitive_and_says_what_is_missing(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:leaf", uses("leaf 1", &[])).await;
    w.save("prompt:leaf", uses("leaf 2", &[])).await;
    w.point("prompt:leaf@production", 1).await;
    w.save("prompt:mid", uses("mid", &["prompt:leaf"])).await;
    w.point("prompt:mid@production", 1).await;
    w.save(
        "app:top",
        uses(
            "",
            &["prompt:mid", "prompt:leaf@latest", "prompt:leaf@production"],
        ),
    )
    .await;
    let expected = |leaf| {
        vec![
            ("prompt:leaf@latest".to_owned(), 2),
            ("prompt:leaf@production".to_owned(), leaf),
            ("prompt:mid@production".to_owned(), 1),
        ]
    };
    assert_eq!(w.resolve("app:top", 1).await.unwrap(), expected(1));
    w.point("prompt:leaf@production", 2).await;
    assert_eq!(w.resolve("app:top", 1).await.unwrap(), expected(2));
    assert_eq!(w.resolve("prompt:leaf", 2).await.unwrap(), []);
    let draft = w
        .catalog
        .resolve_document(w.scope, "app", &uses("", &["prompt:mid"]))
        .await
        .unwrap();
    assert_eq!(draft.references.len(), 2);
    let none = w.resolve("app:top", 9).await.unwrap_err();
    assert_eq!(none.to_string(), "app top has no version 9");

    w.try_remove("prompt:leaf@production", true).await.unwrap();
    let missing = w.resolve("app:top", 1).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/uses/2: prompt leaf has no label production, nor any other"
    );
    w.save("app:other", uses("", &[])).await;
    let through = w.refused("app:other", uses("", &["prompt:mid"])).await;
    assert_eq!(
        through,
        "/uses/0: prompt:mid@production → prompt:leaf@production: prompt leaf has no label production, nor any other"
    );
    // Nor does a label move to what leads nowhere.
    let refused = w.try_move("app:top@production", 1).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Invalid(_)), "{refused}");
    w.try_delete("prompt:leaf", true).await.unwrap();
    let missing = w.resolve("prompt:mid", 1).await.unwrap_err();
    assert_eq!(missing.to_string(), "/uses/0: prompt leaf was deleted");
}

async fn what_is_referred_to_is_not_deleted(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:a", uses("a", &[])).await;
    w.point("prompt:a@production", 1).await;
    w.save("app:x", uses("1", &["prompt:a"])).await;
    w.save("app:x", uses("2", &["prompt:a@1"])).await;
    w.save("app:x", uses("3", &[])).await;
    w.point("app:x@production", 1).await;
    w.point("app:x@staging", 1).await;
    let by = w
        .catalog
        .dependents(w.scope, "prompt", &name("a"))
        .await
        .unwrap();
    assert_eq!(by.len(), 1, "{by:?}");
    assert_eq!(
        (by[0].number, by[0].is_latest, by[0].labels.as_slice()),
        (
            1,
            false,
            ["production".to_owned(), "staging".to_owned()].as_slice()
        )
    );
    let refused = w.try_delete("prompt:a", false).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "prompt a is still referred to by app x (version 1, production, staging)"
    );
    let refused = w
        .try_remove("prompt:a@production", false)
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "prompt a@production is still referred to by app x (version 1, production, staging)"
    );
    // Version 2 refers to a number; it is neither the newest nor pointed to.
    w.point("app:x@production", 3).await;
    w.point("app:x@staging", 2).await;
    w.try_remove("prompt:a@production", false).await.unwrap();
    let refused = w.try_delete("prompt:a", false).await.unwrap_err();
    assert!(
        matches!(&refused, CatalogError::Referenced { by, .. } if by[0].reference == "prompt:a@1")
    );
    w.point("app:x@staging", 3).await;
    w.try_delete("prompt:a", false).await.unwrap();
    let refused = w.try_delete("prompt:a", false).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Deleted { .. }), "{refused}");
    let refused = w.try_delete("prompt:never", false).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no prompt never");
}

async fn a_deleted_name_is_gone_and_comes_back(f: Fixture) {
    let w = World::new(f);
    let first = w.save("prompt:a", uses("one", &[])).await.version;
    w.save("prompt:a", uses("two", &[])).await;
    w.point("prompt:a@production", 2).await;
    w.save("prompt:b", uses("other", &[])).await;
    let revision = w.f.db.plan_revision().await.unwrap();
    let deleted = w.try_delete("prompt:a", false).await.unwrap();
    assert_eq!(deleted.pointers[0].number, 2);
    assert!(w.f.db.plan_revision().await.unwrap() > revision);

    let a = name("a");
    let find = async |selector: Selector| {
        w.catalog
            .version(w.scope, "prompt", &a, &selector)
            .await
            .unwrap()
            .map(|found| found.version.number)
    };
    assert_eq!(w.listed(NameFilter::default()).await, ["b"]);
    let with_deleted = NameFilter {
        include_deleted: true,
        ..NameFilter::default()
    };
    assert_eq!(w.listed(with_deleted).await, ["a", "b"]);
    assert_eq!(find(Selector::Latest).await, None);
    assert_eq!(find(Selector::Label(label("production"))).await, None);
    // The history can still be read.
    assert_eq!(find(Selector::Number(1)).await, Some(1));
    assert_eq!(find(Selector::Digest(first.digest)).await, Some(1));
    let project = w.scope.project;
    let index = w.catalog.version_index(project, "prompt").await.unwrap();
    assert_eq!(index.len(), 1, "{index:?}");
    assert!(
        w.catalog
            .pointer_index(project, "prompt")
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        w.catalog
            .all_documents(project, "prompt")
            .await
            .unwrap()
            .len(),
        1
    );
    let documents = w.catalog.documents(project, &[first.digest]).await.unwrap();
    assert_eq!(documents[&first.digest], uses("one", &[]));
    let refused = w.try_move("prompt:a@production", 1).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "prompt a was deleted; saving a version brings it back"
    );

    // An old version again brings the name back, with all of its numbers.
    let back = w.save("prompt:a", uses("one", &[])).await;
    assert_eq!(
        (back.revived, back.already_existed, back.version.number),
        (true, true, 1)
    );
    assert_eq!(find(Selector::Latest).await, Some(2));
    assert_eq!(w.listed(NameFilter::default()).await, ["a", "b"]);
    w.try_delete("prompt:a", false).await.unwrap();
    let back = w.save("prompt:a", uses("three", &[])).await;
    assert_eq!(
        (back.revived, back.already_existed, back.version.number),
        (true, false, 3)
    );
    assert!(matches!(
        w.try_move("prompt:a@production", 3).await,
        Ok(MoveOutcome::Moved(pointer)) if pointer.revision == 3
    ));
}

async fn a_removed_pointer_is_nowhere_and_goes_on_counting(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:a", uses("one", &[])).await;
    w.point("prompt:a@production", 1).await;
    w.point("prompt:a@staging", 1).await;
    w.try_remove("prompt:a@production", false).await.unwrap();
    let (a, production) = (name("a"), label("production"));
    let project = w.scope.project;
    let pointers = w.catalog.pointers(w.scope, "prompt", &a).await.unwrap();
    assert_eq!(pointers.len(), 1);
    assert_eq!(
        w.catalog
            .pointer(w.scope, "prompt", &a, &production)
            .await
            .unwrap(),
        None
    );
    let selector = Selector::Label(production.clone());
    let found = w
        .catalog
        .version(w.scope, "prompt", &a, &selector)
        .await
        .unwrap();
    assert_eq!(found, None);
    assert_eq!(
        w.list(&NameFilter::default()).await[0].labels,
        [("staging".to_owned(), 1)]
    );
    assert_eq!(
        w.catalog
            .pointer_index(project, "prompt")
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        w.catalog
            .pointed_documents(project, "prompt")
            .await
            .unwrap()
            .len(),
        1
    );
    let again = w
        .try_remove("prompt:a@production", false)
        .await
        .unwrap_err();
    assert_eq!(again.to_string(), "prompt a has no label production");

    // Somebody who sees no label says 0, somebody who saw the removal its revision.
    let mut request = MoveRequest {
        kind: "prompt",
        name: &a,
        label: &production,
        to: 1,
        expected: Some(1),
        reason: "",
    };
    let old = w.catalog.move_pointer(w.scope, request).await.unwrap();
    assert_eq!(old, MoveOutcome::Conflict(None));
    request.expected = Some(0);
    let new = w.catalog.move_pointer(w.scope, request).await.unwrap();
    assert!(matches!(new, MoveOutcome::Moved(pointer) if pointer.revision == 3));
}

async fn a_mover_and_a_remover_at_once_one_wins(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:a", uses("one", &[])).await;
    w.save("prompt:a", uses("two", &[])).await;
    let second = Catalog::new(w.f.second().await, kinds());
    let mut racers = JoinSet::new();
    for racer in 0..6 {
        let catalog = if racer % 2 == 0 {
            w.catalog.clone()
        } else {
            second.clone()
        };
        racers.spawn(race(catalog, w.scope, racer % 3 == 0));
    }
    let won: usize = racers.join_all().await.into_iter().sum();
    let moves = w
        .catalog
        .moves(w.scope, "prompt", &name("a"), None, &page(200))
        .await
        .unwrap()
        .items;
    let revisions: Vec<_> = moves.iter().rev().map(|m| m.revision).collect();
    assert_eq!(revisions, (1..=won as i64).collect::<Vec<_>>());
    for pair in moves.windows(2) {
        let (after, before) = (&pair[0], &pair[1]);
        let gone = before.action == MoveAction::Remove;
        assert_eq!(after.from, (!gone).then_some(before.to), "{pair:?}");
        assert!(!gone || after.action == MoveAction::Move, "{pair:?}");
    }
}

/// Moves or removes on the state that it sees, twenty times; says how often it won.
async fn race(catalog: Catalog, scope: Scope, removes: bool) -> usize {
    let (a, production) = (name("a"), label("production"));
    let mut won = 0;
    for _ in 0..20 {
        let seen = catalog
            .pointer(scope, "prompt", &a, &production)
            .await
            .unwrap();
        let expected = Some(seen.as_ref().map_or(0, |pointer| pointer.revision));
        if removes {
            let request = RemoveRequest {
                kind: "prompt",
                name: &a,
                label: &production,
                expected,
                reason: "",
                force: false,
            };
            match catalog.remove_pointer(scope, request).await {
                Ok(RemoveOutcome::Removed(_)) => won += 1,
                Ok(RemoveOutcome::Conflict(_)) | Err(CatalogError::NoPointer { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            continue;
        }
        let request = MoveRequest {
            kind: "prompt",
            name: &a,
            label: &production,
            to: seen.map_or(1, |pointer| 3 - pointer.number),
            expected,
            reason: "",
        };
        if let MoveOutcome::Moved(_) = catalog.move_pointer(scope, request).await.unwrap() {
            won += 1;
        }
    }
    won
}

async fn near_duplicates_are_pointed_out(f: Fixture) {
    let w = World::new(f);
    let text = "You answer questions of customers about their orders. Be brief and polite, \
        and never promise a date of delivery that you do not know.";
    let japanese = "あなたはお客様の注文に関する質問に答えます。簡潔かつ丁寧に、分からない配達日を約束しないでください。";
    w.save(
        "prompt:support/answer",
        uses("Something else entirely was here.", &[]),
    )
    .await;
    w.save("prompt:support/answer", uses(text, &[])).await;
    w.save("prompt:support/回答", uses(japanese, &[])).await;
    let told = |saved: SavedVersion| {
        let similar = saved.similar.into_iter();
        similar
            .map(|other| (other.name.to_string(), other.number))
            .collect::<Vec<_>>()
    };
    let copy = w
        .save("prompt:copy", uses(&text.replace("brief", "short"), &[]))
        .await;
    assert!((0.7..1.0).contains(&copy.similar[0].similarity), "{copy:?}");
    assert_eq!(told(copy), [("support/answer".to_owned(), 2)]);
    let copy = w
        .save("prompt:写し", uses(&japanese.replace("簡潔", "手短"), &[]))
        .await;
    assert_eq!(told(copy), [("support/回答".to_owned(), 1)]);
    // One's own earlier versions, other kinds and other projects are not news.
    assert_eq!(
        told(
            w.save(
                "prompt:support/回答",
                uses(&japanese.replace("簡潔", "短く"), &[])
            )
            .await
        )
        .len(),
        1
    );
    assert_eq!(told(w.save("app:copy", uses(text, &[])).await), []);
    assert_eq!(told(w.save("prompt:empty", uses(" ", &[])).await), []);
    let theirs = w
        .catalog
        .similar(w.f.other, "prompt", &uses(text, &[]))
        .await
        .unwrap();
    assert_eq!(theirs, []);
    // Asking saves nothing, and finds the very same document as well.
    let asked = w
        .catalog
        .similar(w.scope, "prompt", &uses(text, &[]))
        .await
        .unwrap();
    let names: Vec<_> = asked.iter().map(|other| other.name.as_str()).collect();
    assert_eq!(names, ["support/answer", "copy"]);
    w.try_delete("prompt:support/answer", false).await.unwrap();
    let asked = w
        .catalog
        .similar(w.scope, "prompt", &uses(text, &[]))
        .await
        .unwrap();
    assert_eq!(asked.len(), 1);
}

async fn names_are_found_by_folder_tag_and_words(f: Fixture) {
    let w = World::new(f);
    for at in [
        "a",
        "x/a",
        "x/y/Ａｂｃ",
        "x/y/b",
        "x/ÄRGER",
        "xx/a",
        "z/質問",
    ] {
        w.save(&format!("prompt:{at}"), uses(at, &[])).await;
    }
    let tag = async |at: &str, tags: &[&str]| {
        let tags: Vec<_> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let at = name(at);
        w.catalog
            .set_tags(w.scope, "prompt", &at, &tags)
            .await
            .unwrap();
    };
    tag("x/a", &["support", "日本語"]).await;
    tag("z/質問", &["日本語"]).await;
    tag("a", &["gone"]).await;
    tag("a", &[]).await;
    let filter = |folder: &str, direct: bool, tag: &str, search: &str| NameFilter {
        folder: (!folder.is_empty()).then(|| name(folder)),
        direct,
        tag: (!tag.is_empty()).then(|| tag.to_owned()),
        search: (!search.is_empty()).then(|| search.to_owned()),
        include_deleted: false,
    };
    let all = [
        "a",
        "x/a",
        "x/y/b",
        "x/y/Ａｂｃ",
        "x/ÄRGER",
        "xx/a",
        "z/質問",
    ];
    assert_eq!(w.listed(filter("", false, "", "")).await, all);
    assert_eq!(w.listed(filter("", true, "", "")).await, ["a"]);
    assert_eq!(
        w.listed(filter("x", true, "", "")).await,
        ["x/a", "x/ÄRGER"]
    );
    assert_eq!(
        w.listed(filter("x/y", false, "", "")).await,
        ["x/y/b", "x/y/Ａｂｃ"]
    );
    assert_eq!(
        w.listed(filter("", false, "日本語", "")).await,
        ["x/a", "z/質問"]
    );
    assert_eq!(w.listed(filter("z", false, "日本語", "")).await, ["z/質問"]);
    assert_eq!(w.listed(filter("", false, "日本", "")).await, [""; 0]);
    assert_eq!(w.listed(filter("", false, "", "ABC")).await, ["x/y/Ａｂｃ"]);
    assert_eq!(w.listed(filter("", false, "", "ärger")).await, ["x/ÄRGER"]);
    assert_eq!(
        w.listed(filter("", false, "", "Y/ B")).await,
        ["x/y/b", "x/y/Ａｂｃ"]
    );
    assert_eq!(w.listed(filter("", false, "", "supp")).await, ["x/a"]);

    let folders = async |at: Option<&str>| -> FolderListing {
        let at = at.map(name);
        w.catalog
            .folders(w.scope, "prompt", at.as_ref())
            .await
            .unwrap()
    };
    let shown = |listing: &FolderListing| {
        let folders = listing.folders.iter();
        folders
            .map(|folder| (folder.path.to_string(), folder.names))
            .collect::<Vec<_>>()
    };
    let top = folders(None).await;
    assert_eq!(
        shown(&top),
        [
            ("x".to_owned(), 4),
            ("xx".to_owned(), 1),
            ("z".to_owned(), 1)
        ]
    );
    assert_eq!((top.names_here, top.names), (1, 7));
    assert_eq!(
        top.tags,
        [("support".to_owned(), 1), ("日本語".to_owned(), 2)]
    );
    let x = folders(Some("x")).await;
    assert_eq!((shown(&x), x.names_here), (vec![("x/y".to_owned(), 2)], 2));
    assert_eq!(folders(Some("nothing")).await, FolderListing::default());
}

async fn wrong_tags_are_refused_and_say_why(f: Fixture) {
    let w = World::new(f);
    w.save("prompt:a", uses("a", &[])).await;
    let set = async |at: &str, tags: &[&str]| {
        let tags: Vec<_> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        w.catalog
            .set_tags(w.scope, "prompt", &name(at), &tags)
            .await
    };
    let refused = set("a", &["good", " ", "a\u{202e}b", &"x".repeat(65)])
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/tags/1: a tag must not be empty; /tags/2: must not contain the invisible character U+202E; \
         /tags/3: has 65 characters; at most 64 are allowed"
    );
    let many: Vec<String> = (0..51).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = set("a", &many).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "/tags: 51 tags; at most 50 are allowed"
    );
    assert!(
        set("a", &["か\u{3099}", "が"])
            .await
            .is_ok_and(|tags| tags == ["が"])
    );
    let refused = set("b", &["x"]).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no prompt b");
    w.try_delete("prompt:a", false).await.unwrap();
    let refused = set("a", &["x"]).await.unwrap_err();
    assert!(matches!(refused, CatalogError::Deleted { .. }));
}

async fn names_of_every_script_are_kept_apart(f: Fixture) {
    let w = World::new(f);
    // What could be taken for a path, a version or a file's end, and right-to-left letters.
    let names = [
        "v1.2",
        "a.b/c.d",
        "3",
        "عربي/سؤال",
        "עברית",
        "サポート/回答",
        "Ａ",
        "A",
        "a",
    ];
    for at in names {
        w.save(&format!("prompt:{at}"), uses(at, &[])).await;
        w.point(&format!("prompt:{at}@production"), 1).await;
    }
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(w.listed(NameFilter::default()).await, sorted);
    for at in names {
        let reference = format!("prompt:{at}@production");
        let saved = w.save("app:x", uses("", &[&reference])).await.version;
        let resolved = w.resolve("app:x", saved.number).await.unwrap();
        assert_eq!(resolved, [(reference, 1)]);
        w.try_move("app:x@production", saved.number).await.unwrap();
    }
    for bad in [
        "a\u{200b}",
        "\u{202e}a",
        "a/",
        "..",
        "a//b",
        "a\u{200d}b",
        "a@b",
        "a:b",
    ] {
        assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        let reference = format!("prompt:{bad}");
        let refused = w.refused("app:y", uses("", &[&reference])).await;
        assert!(refused.starts_with("/uses/0: "), "{refused}");
    }
}

async fn ten_thousand_names_are_listed_in_pages(f: Fixture) {
    let w = World::new(f);
    let digest = w
        .save("prompt:seed", uses("seed", &[]))
        .await
        .version
        .digest;
    fill(&w, &digest.to_string(), 10_000).await;
    if w.f.url_text.starts_with("postgres") {
        // As PostgreSQL does by itself a minute after so many rows have come.
        let mut tx = w.f.db.begin_write().await.unwrap();
        sqlx::raw_sql("ANALYZE").execute(tx.conn()).await.unwrap();
        tx.commit().await.unwrap();
    }
    let page_of = async |filter: &NameFilter, limit: u32| {
        w.catalog
            .list_names(w.scope, "prompt", filter, &page(limit))
            .await
            .unwrap()
    };
    let first = page_of(&NameFilter::default(), 200).await;
    assert_eq!(first.items.len(), 200);
    assert_eq!(first.items[0].labels, [("production".to_owned(), 1)]);
    let folder = NameFilter {
        folder: Some(name("folder-7")),
        ..NameFilter::default()
    };
    let in_folder = page_of(&folder, 200).await;
    assert_eq!((in_folder.items.len(), in_folder.next), (100, None));
    let search = NameFilter {
        search: Some("NAME-9999".to_owned()),
        ..NameFilter::default()
    };
    assert_eq!(page_of(&search, 50).await.items.len(), 1);
    let folders = w.catalog.folders(w.scope, "prompt", None).await.unwrap();
    assert_eq!((folders.folders.len(), folders.names_here), (100, 1));
    let project = w.scope.project;
    let index = w.catalog.version_index(project, "prompt").await.unwrap();
    let pointers = w.catalog.pointer_index(project, "prompt").await.unwrap();
    assert_eq!((index.len(), pointers.len()), (10_001, 10_000));
}

/// Names, versions and pointers by the shortest way: saving them one by one is not what is tested.
async fn fill(w: &World, digest: &str, count: i64) {
    let project = w.scope.project.to_string();
    let inserts = [
        "names (project, kind, name, latest) SELECT $1, 'prompt', name, 1",
        "versions (id, project, kind, name, number, digest, message, author, created_at)
            SELECT id, $1, 'prompt', name, 1, $3, '', 'system', 0",
        "pointers (id, project, kind, name, label, version_id, revision, moved_by, moved_at)
            SELECT id, $1, 'prompt', name, 'production', id, 1, 'system', 0",
    ];
    let mut tx = w.f.db.begin_write().await.unwrap();
    for insert in inserts {
        let (into, select) = insert.split_once("SELECT").unwrap();
        let text = format!(
            "INSERT INTO {into}
             WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < $2),
             named AS (SELECT 'folder-' || (n % 100) || '/name-' || n AS name,
                 '00000000-0000-7000-8000-' || substr('00000000000' || n, length('00000000000' || n) - 11) AS id
                 FROM counted)
             SELECT {select} FROM named WHERE $3 <> ''"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(&project)
            .bind(count)
            .bind(digest)
            .execute(tx.conn())
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
}
