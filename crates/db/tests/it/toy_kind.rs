//! A kind of document that nobody knew before: a schema, a check and one
//! registration, and versions, de-duplication, diff, pointers with history,
//! references, tags, deletion and the audit log are there.

use base::Digest;
use db::catalog::{Admission, Candidate, Deleted, NameFilter};
use db::sqlx::{self, AnyConnection};
use db::{
    BlobStore, Catalog, CatalogError, DeleteRequest, Kind, Kinds, Label, MoveAction, MoveOutcome,
    MoveRequest, Name, NewVersion, PageRequest, Problem, Reference, RemoveOutcome, RemoveRequest,
    SavedVersion, Selector, audit, diff,
};
use serde_json::{Value, json};

use crate::support::{Fixture, on_both};

on_both!(
    a_new_kind_has_everything,
    a_kind_says_what_it_needs_around_it,
    defaults_spelled_out_are_the_same_version
);

/// The whole kind: a recipe is a list of steps, and may build on other recipes.
fn recipe() -> Kind {
    let schema = || {
        json!({
            "type": "object", "required": ["steps"], "additionalProperties": false,
            "properties": {
                "steps": { "type": "array", "items": { "type": "string" } },
                "uses": { "type": "object", "additionalProperties": { "type": "string" } },
                "photos": { "type": "array", "items": { "type": "string" } },
            },
        })
    };
    Kind {
        normal: without_empty_uses,
        references,
        blobs,
        admit,
        ..Kind::new("recipe", schema, validate)
    }
}

/// The second kind: nobody writes a tasting, somebody eats.
fn tasting() -> Kind {
    Kind {
        made_by: Some("taste a recipe"),
        ..Kind::new("tasting", || json!({ "type": "object" }), |_| Ok(()))
    }
}

fn blobs(document: &Value) -> Vec<Digest> {
    let photos = document["photos"].as_array().into_iter().flatten();
    photos
        .filter_map(|photo| photo.as_str()?.parse().ok())
        .collect()
}

/// A recipe must not be called as a project is: something that only the database knows.
fn admit<'a>(connection: &'a mut AnyConnection, candidate: Candidate<'a>) -> Admission<'a> {
    Box::pin(async move {
        let name = candidate.name;
        let rows = sqlx::query("SELECT id FROM projects WHERE name = $1 AND id = $2")
            .bind(name.as_str())
            .bind(candidate.project.to_string())
            .fetch_all(connection)
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        Err(CatalogError::NameTaken {
            kind: "recipe".to_owned(),
            name: name.clone(),
            why: "that is the house".to_owned(),
        })
    })
}

/// Building on nothing is the default, so it is not written.
fn without_empty_uses(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.retain(|name, value| name != "uses" || *value != json!({}));
    }
    document
}

fn validate(document: &Value) -> Result<(), Vec<Problem>> {
    let mut problems: Vec<Problem> = uses(document).filter_map(Result::err).collect();
    if !document["steps"].is_array() {
        problems.push(Problem::new("/steps", "a recipe has steps"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn references(document: &Value) -> Vec<Reference> {
    uses(document).filter_map(Result::ok).collect()
}

fn uses(document: &Value) -> impl Iterator<Item = Result<Reference, Problem>> {
    let uses = document["uses"].as_object().into_iter().flatten();
    uses.map(|(key, text)| {
        Reference::parse_at(&format!("/uses/{key}"), text.as_str().unwrap_or_default())
    })
}

struct Kitchen {
    f: Fixture,
    catalog: Catalog,
}

impl Kitchen {
    async fn try_save(&self, at: &str, content: &Value) -> Result<SavedVersion, CatalogError> {
        let new = NewVersion {
            kind: "recipe",
            name: &name(at),
            content,
            message: "",
        };
        self.catalog.save_version(self.f.scope, new).await
    }

    async fn save(&self, at: &str, content: Value) -> SavedVersion {
        self.f.clock.advance_us(1);
        self.try_save(at, &content).await.unwrap()
    }

    async fn serve(&self, at: &str, to: i64) -> MoveOutcome {
        self.f.clock.advance_us(1);
        let request = MoveRequest {
            kind: "recipe",
            name: &name(at),
            label: &label("production"),
            to,
            expected: None,
            reason: "tasty",
        };
        self.catalog
            .move_pointer(self.f.scope, request)
            .await
            .unwrap()
    }

    async fn delete(&self, at: &str, force: bool) -> Result<Deleted, CatalogError> {
        self.f.clock.advance_us(1);
        let request = DeleteRequest {
            kind: "recipe",
            name: &name(at),
            reason: "stale",
            force,
        };
        self.catalog.delete_name(self.f.scope, request).await
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

async fn a_new_kind_has_everything(f: Fixture) {
    let kitchen = Kitchen {
        // The one registration.
        catalog: Catalog::new(f.db.clone(), Kinds::new([recipe()])),
        f,
    };
    versions_and_diff(&kitchen).await;
    pointers(&kitchen).await;
    references_hold(&kitchen).await;
    tags_and_deletion(&kitchen).await;
    audited(&kitchen).await;
}

async fn defaults_spelled_out_are_the_same_version(f: Fixture) {
    let kitchen = Kitchen {
        catalog: Catalog::new(f.db.clone(), Kinds::new([recipe()])),
        f,
    };
    let spelled_out = json!({ "steps": ["boil"], "uses": {} });
    let first = kitchen.save("egg", spelled_out.clone()).await;
    let again = kitchen.save("egg", json!({ "steps": ["boil"] })).await;
    assert!(again.already_existed);
    assert_eq!(again.version, first.version);
    let digest = kitchen.catalog.check("recipe", &spelled_out).unwrap();
    assert_eq!(digest, first.version.digest);
}

async fn a_kind_says_what_it_needs_around_it(f: Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let store = BlobStore::open(folder.path(), f.db.ids().clone(), 1 << 20).unwrap();
    let kinds = Kinds::new([recipe(), tasting()]);
    let kitchen = Kitchen {
        catalog: Catalog::new(f.db.clone(), kinds).with_blobs(store.clone()),
        f,
    };
    // Blobs: each one that is missing is named, where it stands.
    let store = store.of_project(kitchen.f.scope.project);
    let here = store.put_bytes(b"a photo").unwrap().digest;
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let with = |photos: &[Digest]| json!({ "steps": [], "photos": photos });
    let refused = kitchen
        .try_save("egg", &with(&[here, one, here, two, one]))
        .await;
    let Err(CatalogError::Invalid(problems)) = refused else {
        panic!("{refused:?}")
    };
    let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = [(1, one), (3, two)]
        .map(|(at, digest)| format!("/photos/{at}: there is no blob {digest}; upload it first"));
    assert_eq!(shown, expected);
    store.put_bytes(b"one").unwrap();
    store.put_bytes(b"two").unwrap();
    kitchen
        .save("egg", with(&[here, one, here, two, one]))
        .await;
    let without_store = Catalog::new(kitchen.f.db.clone(), Kinds::new([recipe()]));
    let missing = without_store
        .missing_blobs(kitchen.f.scope.project, "recipe", &with(&[here]))
        .await;
    assert_eq!(missing.unwrap(), [here]);

    // Names: the database knows what is taken, and a refusal writes nothing.
    let refused = kitchen.try_save("default", &with(&[])).await.unwrap_err();
    let words = "recipe cannot be called \"default\": that is the house";
    assert_eq!(refused.to_string(), words);
    let taken = name("default");
    let found = kitchen.catalog.name(kitchen.f.scope, "recipe", &taken);
    assert!(found.await.unwrap().is_none());

    // What is made is not written.
    let (egg, stars) = (name("egg"), json!({ "stars": 5 }));
    let new = NewVersion {
        kind: "tasting",
        name: &egg,
        content: &stars,
        message: "",
    };
    let refused = kitchen.catalog.save_version(kitchen.f.scope, new).await;
    assert!(
        matches!(&refused, Err(CatalogError::Made { instead, .. }) if *instead == "taste a recipe"),
        "{refused:?}"
    );
    let made = kitchen.catalog.save_made(kitchen.f.scope, new).await;
    assert_eq!(made.unwrap().version.number, 1);
}

async fn versions_and_diff(kitchen: &Kitchen) {
    let (catalog, scope) = (&kitchen.catalog, kitchen.f.scope);
    let one = json!({ "steps": ["boil water", "add salt", "wait for ten minutes"] });
    let two = json!({ "steps": ["boil water", "wait for ten minutes"] });
    let first = kitchen.save("だし", one.clone()).await;
    let second = kitchen.save("だし", two.clone()).await;
    assert_eq!((first.version.number, second.version.number), (1, 2));
    let again = kitchen.save("だし", one.clone()).await;
    assert_eq!(
        (again.version, again.already_existed),
        (first.version, true)
    );
    let twin = kitchen.save("soup/base", two.clone()).await;
    assert_eq!(twin.same_content, [(name("だし"), 2)]);
    assert!(twin.similar.iter().all(|other| other.name != name("だし")));
    let like = json!({ "steps": ["boil water", "add salt", "wait for nine minutes"] });
    let like = kitchen.save("soup/quick", like).await.similar;
    assert_eq!(
        (&like[0].name, like[0].number),
        (&name("だし"), 1),
        "{like:?}"
    );

    let changes = diff(&one, &two);
    let shown: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(shown, ["/steps/1"]);
    let refused = kitchen.try_save("bad", &json!({})).await.unwrap_err();
    assert_eq!(refused.to_string(), "/steps: a recipe has steps");
    let found = catalog
        .version(scope, "recipe", &name("だし"), &Selector::Latest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.content, two);
}

async fn pointers(kitchen: &Kitchen) {
    let (catalog, scope) = (&kitchen.catalog, kitchen.f.scope);
    kitchen.serve("だし", 2).await;
    kitchen.serve("だし", 1).await;
    let request = RemoveRequest {
        kind: "recipe",
        name: &name("だし"),
        label: &label("production"),
        expected: Some(2),
        reason: "closed",
        force: false,
    };
    let removed = catalog.remove_pointer(scope, request).await.unwrap();
    assert!(matches!(removed, RemoveOutcome::Removed(pointer) if pointer.revision == 3));
    assert!(
        matches!(kitchen.serve("だし", 1).await, MoveOutcome::Moved(pointer) if pointer.revision == 4)
    );
    let moves = catalog
        .moves(
            scope,
            "recipe",
            &name("だし"),
            None,
            &PageRequest::default(),
        )
        .await
        .unwrap();
    let shown: Vec<_> = moves
        .items
        .iter()
        .map(|m| (m.revision, m.action, m.from, m.to, m.reason.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (4, MoveAction::Move, None, 1, "tasty"),
            (3, MoveAction::Remove, Some(1), 1, "closed"),
            (2, MoveAction::Move, Some(2), 1, "tasty"),
            (1, MoveAction::Move, None, 2, "tasty"),
        ]
    );
}

async fn references_hold(kitchen: &Kitchen) {
    let (catalog, scope) = (&kitchen.catalog, kitchen.f.scope);
    let ramen = json!({ "steps": [], "uses": { "broth": "recipe:だし", "base": "recipe:soup/base@latest" } });
    kitchen.save("ramen", ramen).await;
    let resolution = catalog
        .resolve(scope, "recipe", &name("ramen"), 1)
        .await
        .unwrap();
    let shown: Vec<_> = resolution
        .references
        .iter()
        .map(|resolved| (resolved.text.as_str(), resolved.number))
        .collect();
    assert_eq!(
        shown,
        [
            ("recipe:soup/base@latest", 1),
            ("recipe:だし@production", 1)
        ]
    );
    let by = catalog
        .dependents(scope, "recipe", &name("だし"))
        .await
        .unwrap();
    assert_eq!(by.len(), 1);
    assert_eq!(
        (&by[0].name, by[0].path.as_str()),
        (&name("ramen"), "/uses/broth")
    );
}

async fn tags_and_deletion(kitchen: &Kitchen) {
    let (catalog, scope) = (&kitchen.catalog, kitchen.f.scope);
    kitchen.f.clock.advance_us(1);
    let tags = ["スープ".to_owned(), " hot".to_owned(), "hot".to_owned()];
    let tags = catalog
        .set_tags(scope, "recipe", &name("だし"), &tags)
        .await
        .unwrap();
    assert_eq!(tags, ["hot", "スープ"]);
    let filter = NameFilter {
        tag: Some("hot".to_owned()),
        ..NameFilter::default()
    };
    let tagged = catalog
        .list_names(scope, "recipe", &filter, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(tagged.items.len(), 1);

    let refused = kitchen.delete("だし", false).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "recipe だし is still referred to by recipe ramen (version 1)"
    );
    let deleted = kitchen.delete("ramen", false).await.unwrap();
    assert!(deleted.pointers.is_empty() && deleted.dependents.is_empty());
    let deleted = kitchen.delete("だし", false).await.unwrap();
    assert_eq!(deleted.pointers.len(), 1);
}

async fn audited(kitchen: &Kitchen) {
    let page = PageRequest {
        cursor: None,
        limit: 200,
    };
    let project = kitchen.f.scope.project;
    let filter = audit::Filter::default();
    let lines = audit::list(&kitchen.f.db, Some(project), &filter, &page)
        .await
        .unwrap();
    let mut shown: Vec<_> = lines
        .items
        .iter()
        .map(|line| (line.action.as_str(), line.object.as_str()))
        .collect();
    shown.reverse();
    assert_eq!(
        shown,
        [
            ("recipe.save", "だし"),
            ("recipe.save", "だし"),
            ("recipe.save", "soup/base"),
            ("recipe.save", "soup/quick"),
            ("recipe.move", "だし"),
            ("recipe.move", "だし"),
            ("recipe.remove", "だし"),
            ("recipe.move", "だし"),
            ("recipe.save", "ramen"),
            ("recipe.tag", "だし"),
            ("recipe.delete", "ramen"),
            ("recipe.remove", "だし"),
            ("recipe.delete", "だし"),
        ]
    );
    let moved = &lines.items[lines.items.len() - 6];
    assert_eq!(moved.reason, "tasty");
    assert!(moved.before.is_some() && moved.after.is_some() && moved.before != moved.after);
    let verified = audit::verify(&kitchen.f.db, Some(project), None)
        .await
        .unwrap();
    assert_eq!(verified.unwrap().rows, 13);
}
