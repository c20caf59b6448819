//! The catalog's API, the same for every kind: saved, compared, labelled,
//! referred to, tagged, deleted, with refusals that say where and why.

use serde_json::{Value, json};

use crate::harness::{Client, Place, encode, on_both_databases, question};

on_both_databases!(
    a_document_goes_through_its_life,
    references_are_checked_and_followed
);

const NAME: &str = "サポート/回答";

fn content(text: &str) -> Value {
    json!({"messages": [{"role": "system", "content": text}]})
}

fn at(name: &str, rest: &str) -> String {
    format!("/api/v1/catalog/prompt/{}/{rest}", encode(name))
}

fn save(client: &Client, name: &str, content: &Value) -> Value {
    let body = json!({"content": content, "message": "why"});
    let reply = client.post(&at(name, "versions"), &body);
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

fn names(client: &Client, query: &str) -> Vec<String> {
    let listed = client.get(&format!("/api/v1/catalog/prompt/names{query}"));
    let listed = listed.json();
    let mut names: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn a_document_goes_through_its_life(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let kinds = live.get("/api/v1/catalog/kinds").json();
    assert!(
        kinds["items"]
            .as_array()
            .unwrap()
            .contains(&json!({"kind": "prompt", "schema": "/api/v1/schemas/prompt"})),
        "{kinds}"
    );
    let schema = live.get("/api/v1/schemas/prompt").json();
    assert!(schema["properties"]["messages"].is_object(), "{schema}");

    // Versions and what differs.
    let text = "You answer questions of customers about their orders, briefly and politely.";
    let first = save(&live, NAME, &content(text));
    assert_eq!(
        (&first["version"], &first["revived"]),
        (&json!(1), &json!(false))
    );
    let second = save(&live, NAME, &content(&text.replace("politely", "kindly")));
    assert_eq!(second["version"], 2);
    assert_eq!(save(&live, NAME, &content(text))["already_existed"], true);
    let like = save(
        &live,
        "copy",
        &content(&text.replace("customers", "clients")),
    );
    assert_eq!(like["similar"][0]["name"], NAME, "{like}");
    let similar = live.get(&at("copy", "similar")).json();
    assert_eq!(similar["items"].as_array().unwrap().len(), 1, "{similar}");
    let diff = live.get(&at(NAME, "diff?from=1&to=latest")).json();
    assert_eq!(
        diff["changes"],
        json!([{
            "path": "/messages/0/content", "before": text,
            "after": text.replace("politely", "kindly"),
        }])
    );
    let found = live.get(&at(NAME, "versions/latest")).json();
    assert_eq!(
        (&found["version"], &found["message"]),
        (&json!(2), &json!("why"))
    );
    let versions = live.get(&at(NAME, "versions?limit=1")).json();
    assert_eq!(versions["items"][0]["version"], 2);
    assert!(versions["next_cursor"].is_string());

    // Labels: moved, raced for, removed, made again.
    let label = at(NAME, "pointers/production");
    let moved = live.put(
        &label,
        &json!({"version": 2, "expected_revision": 0, "reason": "go"}),
    );
    assert_eq!(moved.json()["revision"], 1, "{moved:?}");
    let late = live.put(&label, &json!({"version": 1, "expected_revision": 0}));
    assert_eq!(
        (late.status, late.code()),
        (409, "moved_meanwhile".to_owned()),
        "{late:?}"
    );
    assert!(
        late.text().contains("version 2 now (revision 1)"),
        "{late:?}"
    );
    let mut call = question("hello");
    call["meguri"] = json!({"prompt": NAME});
    assert_eq!(live.post("/v1/chat/completions", &call).status, 200);
    let removed = live.delete(&format!("{label}?expected_revision=1&reason=stop"));
    assert_eq!(removed.json()["revision"], 2, "{removed:?}");
    assert_eq!(live.get(&at(NAME, "pointers")).json()["items"], json!([]));
    assert_eq!(
        live.post("/v1/chat/completions", &call).status,
        404,
        "with the next request"
    );
    assert_eq!(live.delete(&label).status, 404);
    assert_eq!(
        live.put(&label, &json!({"version": 1})).json()["revision"],
        3
    );
    let moves = live.get(&at(NAME, "moves?label=production")).json();
    let shown: Vec<_> = moves["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| json!([item["action"], item["from"], item["to"], item["reason"]]))
        .collect();
    assert_eq!(
        shown,
        [
            json!(["move", null, 1, ""]),
            json!(["remove", 2, null, "stop"]),
            json!(["move", null, 2, "go"]),
        ]
    );

    // Tags, folders, search.
    let tags = live.put(&at(NAME, "tags"), &json!({"tags": ["b", " a ", "b"]}));
    assert_eq!(tags.json(), json!({"tags": ["a", "b"]}));
    assert_eq!(
        live.get(&at(NAME, "tags")).json(),
        json!({"tags": ["a", "b"]})
    );
    assert_eq!(names(&live, "?tag=a"), [NAME]);
    assert_eq!(names(&live, "?search=COPY"), ["copy"]);
    assert_eq!(names(&live, "?direct=true"), ["copy"]);
    let folders = live.get("/api/v1/catalog/prompt/folders").json();
    assert_eq!(folders["items"], json!([{"path": "サポート", "names": 1}]));
    assert_eq!(folders["names_here"], 1);

    // Deleted and back again.
    let deleted = live.delete(&at(NAME, "versions?reason=old"));
    assert_eq!(
        deleted.json()["pointers"][0]["label"],
        "production",
        "{deleted:?}"
    );
    assert_eq!(names(&live, ""), ["copy"]);
    assert_eq!(names(&live, "?deleted=true"), ["copy", NAME]);
    assert_eq!(
        live.get(&at(NAME, "versions/1")).status,
        200,
        "the history stays"
    );
    assert_eq!(live.get(&at(NAME, "versions/latest")).status, 404);
    call["meguri"] = json!({"prompt": format!("{NAME}@1")});
    assert_eq!(live.post("/v1/chat/completions", &call).status, 404);
    let refused = live.put(&label, &json!({"version": 1}));
    assert_eq!(
        (refused.status, refused.code()),
        (404, "deleted".to_owned())
    );
    let back = save(&live, NAME, &content("Something new."));
    assert_eq!(
        (&back["version"], &back["revived"]),
        (&json!(3), &json!(true))
    );
}

fn references_are_checked_and_followed(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let using = |text: &str, reference: &str| {
        let mut document = content(text);
        document["partials"] = json!({"tone": reference});
        document["messages"][0]["content"] = json!(format!("{text} {{{{ partials.tone }}}}"));
        document
    };
    save(&live, "parts/tone", &content("Be kind."));
    let refused = live.post(
        &at("answer", "versions"),
        &json!({"content": using("Answer.", "prompt:parts/tona@1")}),
    );
    assert_eq!(refused.status, 400, "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(error["at"], "/partials/tone");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("did you mean parts/tone?"),
        "{error}"
    );
    let checked = live.post(
        "/api/v1/catalog/prompt/check",
        &json!({"content": using("Answer.", "prompt:parts/tone@latest")}),
    );
    assert_eq!(
        checked.json()["references"][0]["reference"],
        "prompt:parts/tone@latest"
    );
    assert_eq!(names(&live, ""), ["parts/tone"], "a check saves nothing");

    let label = json!({"version": 1});
    assert_eq!(
        live.put(&at("parts/tone", "pointers/production"), &label)
            .status,
        200
    );
    save(
        &live,
        "answer",
        &using("Answer.", "prompt:parts/tone@production"),
    );
    assert_eq!(
        live.put(&at("answer", "pointers/production"), &label)
            .status,
        200
    );
    let references = live.get(&at("answer", "references")).json();
    assert_eq!(
        references["items"],
        json!([{"path": "/partials/tone", "reference": "prompt:parts/tone@production"}])
    );
    assert_eq!(references["resolved"][0]["version"], 1);
    let dependents = live.get(&at("parts/tone", "dependents")).json();
    assert_eq!(dependents["items"][0]["name"], "answer");
    assert_eq!(dependents["items"][0]["labels"], json!(["production"]));

    let circle = live.post(
        &at("parts/tone", "versions"),
        &json!({"content": using("Be.", "prompt:answer@production")}),
    );
    assert_eq!(
        (circle.status, circle.code()),
        (409, "reference_cycle".to_owned())
    );
    let chain = "prompt:parts/tone → prompt:answer@production → prompt:parts/tone@production";
    assert!(circle.text().contains(chain), "{circle:?}");
    let held = live.delete(&at("parts/tone", "versions"));
    assert_eq!(
        (held.status, held.code()),
        (409, "still_referenced".to_owned())
    );
    assert!(
        held.text()
            .contains("prompt answer (version 1, production)"),
        "{held:?}"
    );
    let held = live.delete(&at("parts/tone", "pointers/production"));
    assert_eq!(
        (held.status, held.code()),
        (409, "still_referenced".to_owned())
    );
    let forced = live.delete(&at("parts/tone", "versions?force=true"));
    assert_eq!(
        forced.json()["dependents"][0]["name"],
        "answer",
        "{forced:?}"
    );
}

#[test]
fn what_is_not_there_or_not_allowed() {
    let place = Place::new();
    let live = place.start();
    save(&live, "a", &content("hello"));
    let unknown = live.get("/api/v1/catalog/poem/names");
    assert_eq!(
        (unknown.status, unknown.code()),
        (404, "unknown_kind".to_owned())
    );
    for missing in [
        at("b", "versions"),
        at("b", "tags"),
        at("b", "references"),
        at("a", "versions/9"),
        at("a", "diff?from=1&to=2"),
    ] {
        assert_eq!(live.get(&missing).status, 404, "{missing}");
    }
    for wrong in [
        "/api/v1/catalog/prompt/names?folder=%2e%2e/x".to_owned(),
        "/api/v1/catalog/prompt/names?cursor=x".to_owned(),
        "/api/v1/catalog/prompt/names?page=2".to_owned(),
        at("a\u{202e}", "versions"),
        at("a", "versions/a b"),
        at("a", "diff?from=1"),
    ] {
        let reply = live.get(&wrong);
        assert!([400, 404].contains(&reply.status), "{wrong}: {reply:?}");
    }
    let tags = live.put(&at("a", "tags"), &json!({"tags": ["ok", ""]}));
    assert_eq!(
        (tags.status, &tags.json()["error"]["at"]),
        (400, &json!("/tags/1"))
    );
    let extra = live.put(&at("a", "tags"), &json!({"tags": [], "more": 1}));
    assert_eq!(extra.status, 400);
    let viewer = live.with_key(&place.make_key("default", "viewer").1);
    assert_eq!(viewer.get(&at("a", "versions")).status, 200);
    let refused = viewer.put(&at("a", "pointers/production"), &json!({"version": 1}));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("prompts_write"), "{refused:?}");
    // Another project sees nothing of it.
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "editor").1);
    assert_eq!(other.get(&at("a", "versions")).status, 404);
    assert_eq!(names(&other, "?deleted=true"), [""; 0]);
}
