//! Datasets over HTTP: versions, edits, pages, imports, splits, leaks.

use serde_json::{Value, json};

use crate::harness::{Client, Place, Reply, encode, on_both_databases};

on_both_databases!(a_dataset_is_edited_version_by_version);

const NAME: &str = "support/質問";

fn path(rest: &str) -> String {
    format!("/api/v1/datasets/{}{rest}", encode(NAME))
}

fn create(client: &Client, name: &str, examples: Value) -> Value {
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": name, "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn edit(client: &Client, edits: &Value) -> Value {
    let reply = client.post(&path("/versions"), edits);
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

/// The code and the place of a refusal.
fn refused(reply: &Reply) -> (u16, String, String) {
    let (status, code) = reply.refusal();
    let at = reply.json()["error"]["at"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (status, code, at)
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

/// Every example of a version, page by page, with the chunk files counted on the disk.
fn all_ids(client: &Client, query: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client
            .get(&path(&format!("/examples?limit=97{query}{cursor}")))
            .json();
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn blobs(place: &Place) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                if entry.path().is_dir() {
                    count(&entry.path())
                } else {
                    1
                }
            })
            .sum()
    }
    count(&place.data().join("blobs"))
}

fn a_dataset_is_edited_version_by_version(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let examples: Vec<Value> = (0..600)
        .map(|n| json!({"id": format!("e{n:03}"), "input": format!("question {n}"), "split": if n % 3 == 0 { "test" } else { "train" }}))
        .collect();
    let saved = create(&live, NAME, json!(examples));
    assert_eq!(
        (&saved["version"], &saved["count"], &saved["added"]),
        (&json!(1), &json!(600), &json!(600))
    );
    assert_eq!(blobs(&place), 3, "256 + 256 + 88");
    let again = live.post("/api/v1/datasets", &json!({"name": NAME}));
    assert_eq!(
        refused(&again),
        (409, "dataset_exists".to_owned(), "name".to_owned())
    );

    // Pages, filters.
    let all = all_ids(&live, "");
    assert_eq!((all.len(), &*all[0], &*all[599]), (600, "e000", "e599"));
    assert_eq!(all_ids(&live, "&split=test").len(), 200);
    assert_eq!(
        all_ids(&live, "&q=QUESTION%2059"),
        [
            "e059", "e590", "e591", "e592", "e593", "e594", "e595", "e596", "e597", "e598", "e599"
        ]
    );
    assert!(all_ids(&live, "&split=~none").is_empty());
    let page = live.get(&path("/examples?split=train&limit=2")).json();
    assert_eq!(
        (&page["total"], ids(&page)),
        (&json!(400), vec!["e001", "e002"])
    );
    let one = live.get(&path("/examples/e599")).json();
    assert_eq!(
        (&one["place"], &one["input"]),
        (&json!(599), &json!("question 599"))
    );
    assert!(
        one["source"]["person"]
            .as_str()
            .unwrap()
            .starts_with("key:")
    );
    assert_eq!(
        live.get(&path("/examples/nobody")).refusal(),
        (404, "no_such_example".to_owned())
    );

    // An edit writes the chunks that it touches and shares the others.
    let edits = json!({
        "put": [{"id": "e000", "input": "question 0", "expected": "zero", "split": "test"}, {"input": {"q": "new"}}],
        "patch": [{"id": "e599", "split": null, "metadata": {"hard": true}}],
        "remove": ["e001"],
        "message": "corrected",
        "base": 1,
    });
    let saved = edit(&live, &edits);
    assert_eq!(
        (
            &saved["version"],
            &saved["count"],
            &saved["added"],
            &saved["changed"],
            &saved["removed"]
        ),
        (&json!(2), &json!(600), &json!(1), &json!(2), &json!(1))
    );
    assert_eq!(blobs(&place), 5, "the first and the last chunk are new");
    let id = saved["ids"][1].as_str().unwrap();
    assert_eq!(
        live.get(&path(&format!("/examples/{id}"))).json()["place"],
        599
    );
    assert_eq!(
        live.get(&path("/examples/e000?version=1"))
            .json()
            .get("expected"),
        None
    );
    assert_eq!(live.get(&path("/examples/e000")).json()["expected"], "zero");
    let shown = live.get(&path("")).json();
    assert_eq!(shown["splits"], json!({"test": 200, "train": 398}));

    // What differs, by example.
    let diff = live.get(&path("/diff?from=1&to=2")).json();
    let counts = ["added", "changed", "removed"].map(|sort| diff[sort]["count"].as_u64().unwrap());
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!(diff["changed"]["items"][0]["after"]["expected"], "zero");
    assert_eq!(diff["removed"]["items"][0]["before"]["id"], "e001");

    // Nobody overwrites what they did not see; an edit back is a version of its own.
    let late = live.post(&path("/versions"), &json!({"remove": ["e002"], "base": 1}));
    assert_eq!(
        refused(&late),
        (409, "saved_meanwhile".to_owned(), "base".to_owned())
    );
    assert_eq!(
        edit(
            &live,
            &json!({"patch": [{"id": "e002", "expected": "two"}]})
        )["version"],
        3
    );
    assert_eq!(
        edit(&live, &json!({"patch": [{"id": "e002", "expected": null}]}))["version"],
        4
    );
    assert_eq!(
        live.get(&path("/diff?from=2&to=4")).json()["changed"]["count"],
        0
    );
    assert_eq!(edit(&live, &json!({"put": []}))["already_existed"], true);

    // All or nothing, with the place.
    for (edits, code, at) in [
        (
            json!({"put": [{"input": "a"}, {"input": null}]}),
            "invalid_example",
            "/put/1/input",
        ),
        (
            json!({"put": [{"input": "a", "split": "no/split"}]}),
            "invalid_example",
            "/put/0/split",
        ),
        (
            json!({"patch": [{"id": "nobody", "split": "x"}]}),
            "no_such_example",
            "/patch/0",
        ),
        (
            json!({"remove": ["e003", "e003"]}),
            "invalid_example",
            "/remove/1",
        ),
        (
            json!({"put": [{"input": 9007199254740993_i64}]}),
            "invalid_example",
            "/put/0",
        ),
        (
            json!({"put": [{"input": "x".repeat(1 << 20)}]}),
            "invalid_example",
            "/put/0",
        ),
        (
            json!({"describe": {"fields": {"input": {"type": "strin"}}}}),
            "invalid_document",
            "/fields/input/type",
        ),
        (
            json!({"describe": {"labels": ["a", "a"]}}),
            "invalid_document",
            "/labels/1",
        ),
        (
            json!({"describe": {"fields": {"input": {"$ref": "#"}}}}),
            "invalid_document",
            "/fields/input",
        ),
        // One example is an object.
        (
            json!({"describe": {"fields": {"input": {"type": "string"}}}}),
            "invalid_example",
            &format!("example {id:?}/input"),
        ),
    ] {
        let reply = live.post(&path("/versions"), &edits);
        let (_, found, place) = refused(&reply);
        assert_eq!((&*found, &*place), (code, at), "{reply:?}");
    }
    assert_eq!(live.get(&path("")).json()["version"], 4);

    // Rules hold from then on, for old examples and new ones.
    let rules = json!({"describe": {"fields": {"expected": {"type": "string", "maxLength": 4}}, "labels": ["zero", "one"]}});
    assert_eq!(edit(&live, &rules)["version"], 5);
    let wrong = live.post(
        &path("/versions"),
        &json!({"put": [{"input": "a", "expected": "none"}]}),
    );
    assert_eq!(refused(&wrong).2, "/put/0/expected");
    edit(
        &live,
        &json!({"put": [{"input": "a", "expected": ["one", "zero"]}], "describe": {"fields": {}}}),
    );

    // Marks stay where their text stays.
    let text = "call 太郎 at 090-1234-5678";
    let mark = json!({"kind": "phone", "path": "/input", "start": 11, "end": 24});
    edit(
        &live,
        &json!({"put": [{"id": "m", "input": text, "marks": [mark]}]}),
    );
    edit(
        &live,
        &json!({"patch": [{"id": "m", "input": format!("please {text}")}]}),
    );
    assert_eq!(
        live.get(&path("/examples/m")).json()["marks"],
        json!([{"kind": "phone", "path": "/input", "start": 18, "end": 31}])
    );
    edit(
        &live,
        &json!({"put": [{"id": "m", "input": "call nobody"}]}),
    );
    assert_eq!(live.get(&path("/examples/m")).json().get("marks"), None);
    let beyond = json!({"put": [{"input": "short", "marks": [mark]}]});
    assert_eq!(
        refused(&live.post(&path("/versions"), &beyond)).2,
        "/put/0/marks/0"
    );

    // A document is not written by hand, and another project sees none of it.
    let by_hand = live.post(
        &format!("/api/v1/catalog/dataset/{}/versions", encode(NAME)),
        &json!({"content": {"count": 0}}),
    );
    assert_eq!(by_hand.status, 409, "{by_hand:?}");
    place.add_project("other");
    let (_, key) = place.make_key("other", "admin");
    let other = live.with_key(&key);
    for rest in [
        "",
        "/versions",
        "/examples",
        "/examples/e000",
        "/diff?from=1",
    ] {
        assert_eq!(
            other.get(&path(rest)).refusal(),
            (404, "no_such_dataset".to_owned()),
            "{rest}"
        );
    }

    // Deleting hides it; saving brings it back with its history.
    assert_eq!(live.delete(&path("")).status, 204);
    assert_eq!(
        live.get(&path("/examples")).refusal(),
        (404, "no_such_dataset".to_owned())
    );
    assert!(
        live.get("/api/v1/datasets").json()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let revived = create(&live, NAME, json!([{"id": "e000", "input": "again"}]));
    assert_eq!(revived["count"], 1);
    assert!(revived["version"].as_i64().unwrap() > 5);
    assert_eq!(all_ids(&live, "&version=1").len(), 600);
}
