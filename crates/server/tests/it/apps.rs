//! Apps over HTTP: saved, checked, cut into releases, compared, drawn.

use serde_json::{Value, json};

use crate::harness::{Client, Place, encode, on_both_databases};

on_both_databases!(
    an_app_is_saved_cut_and_compared,
    an_app_without_a_release_is_known_but_not_callable,
    a_wrong_app_is_refused_at_its_place
);

/// An app of one step that renders a prompt of the catalog.
pub(crate) fn answering(prompt: &str) -> Value {
    json!({
        "description": "Answers.",
        "models": {"main": ["fake/tiny"]},
        "steps": [{
            "id": "answer", "type": "prompt", "prompt": prompt, "model": "main",
            "variables": {"question": "inputs.question"},
        }],
    })
}

pub(crate) fn save_prompt(client: &Client, name: &str, text: &str) -> Value {
    let content = json!({"messages": [
        {"role": "system", "content": text}, {"role": "user", "content": "{{ question }}"},
    ]});
    let reply = client.post(
        "/api/v1/prompts",
        &json!({"name": name, "content": content}),
    );
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

pub(crate) fn save_app(client: &Client, name: &str, content: &Value) -> Value {
    let body = json!({"name": name, "content": content, "message": "as tested"});
    let reply = client.post("/api/v1/apps", &body);
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

pub(crate) fn cut(client: &Client, name: &str) -> Value {
    let path = format!("/api/v1/apps/{}/releases", encode(name));
    let reply = client.post(&path, &json!({"message": "cut"}));
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

fn an_app_without_a_release_is_known_but_not_callable(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    save_prompt(&live, "geo/answer", "Be brief.");
    let document = answering("prompt:geo/answer@latest");
    save_app(&live, "geo/guide", &document);
    let call = json!({"model": "geo/guide", "messages": [{"role": "user", "content": "Where?"}]});
    let refused = live.post("/v1/chat/completions", &call);
    assert_eq!(refused.status, 404, "{refused:?}");
    let error = &refused.json()["error"];
    assert_eq!(error["code"], "app_not_released");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("never released"), "{message}");
    let listed = live.get("/v1/models").json().to_string();
    assert!(!listed.contains("geo/guide"), "{listed}");

    cut(&live, "geo/guide");
    let dev = "/api/v1/catalog/release/geo%2Fguide/pointers/dev";
    assert_eq!(live.put(dev, &json!({"version": 1})).status, 200);
    assert_eq!(live.post("/v1/chat/completions", &call).status, 200);
    let listed = live.get("/v1/models").json().to_string();
    assert!(listed.contains("geo/guide"), "{listed}");
    let board = live.get("/api/v1/board").json();
    assert_eq!(board["items"][0]["name"], "geo/guide", "{board}");
}

fn an_app_is_saved_cut_and_compared(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    save_prompt(&live, "geo/answer", "Be brief.");
    let label = "/api/v1/prompts/geo%2Fanswer/labels/production";
    assert_eq!(live.put(label, &json!({"version": 1})).status, 200);

    let name = "地理/案内";
    let document = answering("prompt:geo/answer@production");
    let first = save_app(&live, name, &document);
    assert_eq!(
        (&first["version"], &first["already_existed"]),
        (&json!(1), &json!(false))
    );
    let again = save_app(&live, name, &document);
    assert_eq!(
        (
            &again["version"],
            &again["already_existed"],
            &again["digest"]
        ),
        (&json!(1), &json!(true), &first["digest"])
    );
    let path = format!("/api/v1/apps/{}", encode(name));
    let found = live.get(&format!("{path}/versions/latest")).json();
    assert_eq!(found["content"], document);

    // A release pins what the references stand for now; the same again is the same release.
    let one = cut(&live, name);
    assert_eq!(
        (&one["version"], &one["already_existed"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(cut(&live, name)["already_existed"], true);
    let release = live.get(&format!("{path}/releases/1")).json();
    assert_eq!(release["content"]["app"]["digest"], first["digest"]);
    let pinned = &release["content"]["documents"]["prompt:geo/answer@production"];
    assert_eq!(
        (&pinned["kind"], &pinned["number"]),
        (&json!("prompt"), &json!(1)),
        "{release}"
    );

    // The label moves on; the release does not, the next one does.
    save_prompt(&live, "geo/answer", "Be exact.");
    assert_eq!(live.put(label, &json!({"version": 2})).status, 200);
    let still = live.get(&format!("{path}/releases/1")).json();
    assert_eq!(still["content"], release["content"]);
    assert_eq!(cut(&live, name)["version"], 2);
    let changes = live
        .get(&format!("{path}/releases/2/changes?base=1"))
        .json();
    assert_eq!(
        changes,
        json!({"base": 1, "version": 2, "items": [{
            "reference": "prompt:geo/answer@production", "kind": "prompt", "name": "geo/answer", "before": 1, "after": 2,
        }]})
    );
    let listed = live.get(&format!("{path}/releases")).json();
    let numbers: Vec<&Value> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["version"])
        .collect();
    assert_eq!(numbers, [2, 1]);
    let apps = live.get("/api/v1/apps").json();
    assert_eq!(
        (&apps["items"][0]["name"], &apps["items"][0]["releases"]),
        (&json!(name), &json!({}))
    );

    // The pages of all that.
    let person = live.browser_of(&place.add_person("default", "editor"));
    let encoded = encode(name);
    let show = person.get(&format!("/default/apps/show?name={encoded}"));
    assert_eq!(show.status, 200, "{show:?}");
    assert!(
        show.text().contains("<svg") && show.text().contains("step-answer"),
        "{show:?}"
    );
    for page in [
        "/default/apps".to_owned(),
        format!("/default/apps/edit?name={encoded}"),
        "/default/apps/edit?start=steps".to_owned(),
        "/default/apps/edit?start=agent".to_owned(),
        format!("/default/apps/release?name={encoded}&number=2"),
        format!("/default/apps/diff?name={encoded}&kind=release&base=1&version=2"),
        "/default/releases".to_owned(),
    ] {
        let reply = person.get(&page);
        assert_eq!(reply.status, 200, "{page}: {reply:?}");
    }
}

fn a_wrong_app_is_refused_at_its_place(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let refused = |name: &str, content: Value| {
        let reply = live.post("/api/v1/apps", &json!({"name": name, "content": content}));
        assert_eq!(reply.status, 400, "{reply:?}");
        reply.json()["error"].clone()
    };
    // A reference that leads nowhere, located in the document.
    let lost = refused("lost", answering("prompt:no/such@production"));
    assert_eq!(lost["at"], "/steps/0/prompt", "{lost}");
    let mut unknown = answering("prompt:no/such@production");
    unknown["steps"][0]["modle"] = json!("main");
    let unknown = refused("unknown", unknown);
    assert_eq!(unknown["at"], "/steps/0/modle", "{unknown}");
    // Names that mean something else when they are called, whichever way they come in.
    let document = json!({"steps": [{"id": "a", "type": "prompt", "model": "fake/tiny",
        "prompt": {"messages": [{"role": "user", "content": "Hi"}]}}]});
    for name in ["local/x", "app/x", "fake/x"] {
        let taken = refused(name, document.clone());
        assert_eq!(
            (&taken["code"], &taken["at"]),
            (&json!("name_taken"), &json!("name")),
            "{name}"
        );
        let path = format!("/api/v1/catalog/app/{}/versions", encode(name));
        let reply = live.post(&path, &json!({"content": document}));
        assert_eq!(reply.refusal(), (400, "name_taken".to_owned()), "{name}");
    }
    let saved = live.post(
        "/api/v1/catalog/app/fake/versions",
        &json!({"content": document}),
    );
    assert_eq!(saved.status, 201, "no folder, no clash: {saved:?}");
    // Nobody writes a release by hand, and none is cut of nothing.
    cut(&live, "fake");
    let release = live.get("/api/v1/catalog/release/fake/versions/1").json();
    let path = "/api/v1/catalog/release/fake/versions";
    let written = live.post(path, &json!({"content": release["content"]}));
    assert_eq!(written.refusal(), (400, "made_not_written".to_owned()));
    assert!(written.text().contains("meguri release cut"), "{written:?}");
    // Nor does a tree of files bring one that cutting would not give.
    let tree = live.get("/api/v1/gitops/export").json()["files"].clone();
    let path = "releases/fake.toml";
    let text = tree[path].as_str().unwrap_or_else(|| panic!("{tree:#}"));
    let pin = format!(
        "documents = {{ \"app:fake@latest\" = {{ kind = \"app\", name = \"fake\", number = 1, digest = {} }} }}",
        release["content"]["app"]["digest"]
    );
    assert!(text.contains("documents = {}"), "{text}");
    let tampered = [
        ("releases/other.toml", text.to_owned(), "one of its own app"),
        (
            path,
            text.replace("documents = {}", &pin),
            "nothing of the app refers to this",
        ),
    ];
    for (path, text, says) in tampered {
        let mut files = tree.clone();
        files[path] = json!(text);
        let reply = live.post("/api/v1/gitops/apply", &json!({"files": files}));
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.text().contains(says), "{says}: {reply:?}");
    }
    // A provider that would hide apps is refused as well.
    save_app(&live, "house/x", &document);
    let house =
        json!({"name": "house", "protocol": "openai", "base_url": "https://api.example.com/v1"});
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let reply = admin.post("/api/v1/providers", &house);
    assert_eq!(reply.refusal(), (409, "name_hides_apps".to_owned()));
    let nothing = live.post("/api/v1/apps/nothing/releases", &json!({}));
    assert_eq!(nothing.refusal(), (404, "not_found".to_owned()));

    // The editor says the line, and keeps what was typed.
    let person = live.browser_of(&place.add_person("default", "editor"));
    let text =
        "{\n  \"steps\": [\n    {\"id\": \"a\", \"type\": \"prompt\",\n     \"prompt\": 7}\n  ]\n}";
    let fields = [
        ("name", "x"),
        ("document", text),
        ("message", "kept"),
        ("action", "check"),
    ];
    let reply = person.form("/default/apps/edit", &fields);
    assert_eq!(reply.status, 422, "{reply:?}");
    assert!(
        reply.text().contains("line 4") && reply.text().contains("kept"),
        "{reply:?}"
    );
    let good = json!({"steps": [{"id": "a", "type": "prompt", "model": "fake/tiny",
        "prompt": {"messages": [{"role": "user", "content": "Hi"}]}}]})
    .to_string();
    let fields = [("name", "x"), ("document", &good), ("action", "save")];
    let reply = person.form("/default/apps/edit", &fields);
    assert_eq!(
        (reply.status, reply.header("location").as_deref()),
        (303, Some("/default/apps/show?name=x&version=1")),
        "{reply:?}"
    );
}

#[test]
fn a_draft_runs_as_it_stands() {
    let place = Place::new();
    let live = place.start();
    save_prompt(&live, "geo/answer", "Be brief.");
    let draft = answering("prompt:geo/answer@1");
    let body = json!({"content": draft, "inputs": {"question": "Where is Kyoto?"}});
    let reply = live.post("/api/v1/apps/try", &body);
    let tried = reply.json();
    assert_eq!(
        (&tried["ok"], &tried["text"]),
        (&json!(true), &json!("Hello from the fake provider.")),
        "{reply:?}"
    );
    let messages = place.fake.seen().pop().unwrap().json()["messages"].clone();
    assert_eq!(messages[0]["content"], "Be brief.");
    assert_eq!(messages[1]["content"], "Where is Kyoto?");
    // The trial is recorded with its steps, and nothing was saved.
    let trace = format!("/api/v1/traces/{}", tried["trace_id"].as_str().unwrap());
    live.wait_for(&trace, |found| {
        found["spans"]
            .as_array()
            .is_some_and(|spans| spans.len() >= 2)
    });
    assert_eq!(live.get("/api/v1/apps").json()["items"], json!([]));

    // What goes wrong while it runs is its answer; what is wrong with it is refused.
    let missing = live.post("/api/v1/apps/try", &json!({"content": draft, "inputs": {}}));
    assert_eq!(missing.json()["ok"], false, "{missing:?}");
    let lost = json!({"content": answering("prompt:no/such@1"), "inputs": {"question": "x"}});
    let refused = live.post("/api/v1/apps/try", &lost).json();
    assert_eq!(refused["error"]["at"], "/steps/0/prompt", "{refused}");

    // Streamed: the trace at once, then the answer; what goes wrong is said in the stream.
    let ask = json!({"content": draft, "inputs": {"question": "Where is Uji?"}, "stream": true});
    let streamed = live.post("/api/v1/apps/try", &ask).text();
    assert!(
        streamed.starts_with("event: trace\ndata: {\"trace_id\":") && streamed.contains("[DONE]"),
        "{streamed}"
    );
    let ask = json!({"content": draft, "inputs": {}, "stream": true});
    let streamed = live.post("/api/v1/apps/try", &ask).text();
    assert!(streamed.contains("event: error"), "{streamed}");

    let person = live.browser_of(&place.add_person("default", "editor"));
    // The editor's drawing: of a good draft, of one with problems, of half a text.
    let draw = |document: &str| {
        let reply = person.post("/default/apps/draw", &json!({"document": document}));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    let good = draw(&draft.to_string());
    assert!(good["graph"]["boxes"].is_array(), "{good}");
    assert_eq!(good["problems"], json!([]), "{good}");
    let lost = draw(&answering("prompt:no/such@1").to_string());
    assert_eq!(lost["problems"][0]["path"], "/steps/0/prompt", "{lost}");
    assert!(lost["graph"]["boxes"].is_array(), "{lost}");
    let half = draw("{\n\"steps\": [");
    assert_eq!(half["problems"][0]["line"], 2, "{half}");

    let fields = [
        ("name", "x"),
        ("document", &draft.to_string()),
        ("in.question", "Where is Nara?"),
        ("action", "try"),
    ];
    let page = person.form("/default/apps/edit", &fields);
    assert_eq!(page.status, 200, "{page:?}");
    assert!(
        page.text().contains("Hello from the fake provider.")
            && page.text().contains("Where is Nara?"),
        "{page:?}"
    );
}

/// With the real embedding model of the tests, installed as anybody would.
#[test]
fn a_local_model_chooses_the_examples_of_a_call() {
    let files = std::env::var_os("MEGURI_TEST_MODELS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-models"),
        std::path::PathBuf::from,
    );
    let files = files.join("minilm");
    assert!(
        files.exists(),
        "{} is missing: `make test` fetches it",
        files.display()
    );
    let place = Place::new();
    let path = files.display().to_string();
    place
        .meguri(&["model", "pull", &path, "--name", "minilm"])
        .assert_done();
    let live = place.start();
    let example =
        |text: &str, output: &str| json!({"inputs": {"question": text}, "output": output});
    let content = json!({
        "messages": [{"role": "user", "content": "{{ question }}"}],
        "examples": {
            "items": [
                example("I forgot how to sign in", "account"),
                example("The parcel never arrived at my house", "shipping"),
                example("How much does the large one cost?", "price"),
            ],
            "select": {"k": 1, "by": "embedding", "input": "question"},
        },
    });
    let saved = live.post(
        "/api/v1/prompts",
        &json!({"name": "sort", "content": content}),
    );
    assert_eq!(saved.status, 201, "{saved:?}");
    for (question, expected) in [
        ("My password does not work any more", "account"),
        ("When will my package be delivered?", "shipping"),
        ("Is it expensive?", "price"),
    ] {
        let request = json!({"model": "fake/tiny", "prompt_id": "sort", "prompt_version": 1,
            "prompt_variables": {"question": question}});
        let trace = live.chat(&request);
        let sent = place.fake.seen().pop().unwrap().json();
        assert_eq!(sent["messages"][1]["content"], expected, "{sent}");
        let spans = live.wait_for(&format!("/api/v1/traces/{trace}"), |found| {
            found["spans"]
                .as_array()
                .is_some_and(|spans| spans.len() >= 2)
        });
        assert!(
            !spans.to_string().contains("chosen by similarity"),
            "{spans}"
        );
    }
}
