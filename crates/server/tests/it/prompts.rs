//! Prompts and prices over HTTP: saved, found again, moved, served, paid for.

use serde_json::{Value, json};

use crate::harness::{Client, Place, encode, on_both_databases, question};

on_both_databases!(
    a_prompt_is_saved_labelled_and_served,
    two_people_move_one_label,
    a_price_is_set_and_named
);

fn save(client: &Client, name: &str, text: &str) -> Value {
    let body =
        json!({"name": name, "content": {"messages": [{"role": "system", "content": text}]}});
    let reply = client.post("/api/v1/prompts", &body);
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

fn a_prompt_is_saved_labelled_and_served(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let name = "サポート/回答";
    let path = format!("/api/v1/prompts/{}", encode(name));
    let first = save(&live, name, "あなたは{{ who }}の担当です。");
    assert_eq!(
        (&first["version"], &first["already_existed"]),
        (&json!(1), &json!(false))
    );
    let second = save(&live, name, "You answer for {{ who }}.");
    assert_eq!(second["version"], 2);
    // The same content again is the version that holds it, under another name its twin.
    let again = save(&live, name, "あなたは{{ who }}の担当です。");
    assert_eq!(
        (
            &again["version"],
            &again["already_existed"],
            &again["digest"]
        ),
        (&json!(1), &json!(true), &first["digest"])
    );
    let twin = save(&live, "copy", "You answer for {{ who }}.");
    assert_eq!(twin["same_content"], json!([{"name": name, "version": 2}]));

    // Not served before a label says so; then with the very next request.
    let ask = |prompt: &str| {
        let mut request = question("hello");
        request["meguri"] = json!({"prompt": prompt, "variables": {"who": "巡り"}});
        live.post("/v1/chat/completions", &request)
    };
    let served = || place.fake.seen().pop().unwrap().json()["messages"].clone();
    assert_eq!(ask(name).status, 404);
    for (version, wanted) in [
        (1, "あなたは巡りの担当です。"),
        (2, "You answer for 巡り."),
        (1, "あなたは巡りの担当です。"),
    ] {
        let moved = live.put(
            &format!("{path}/labels/production"),
            &json!({"version": version, "reason": "try it"}),
        );
        assert_eq!(moved.json()["version"], version, "{moved:?}");
        let reply = ask(name);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(
            served(),
            json!([{"role": "system", "content": wanted}, {"role": "user", "content": "hello"}])
        );
        // What the caller attached stays here.
        assert_eq!(place.fake.seen().pop().unwrap().json().get("meguri"), None);
    }
    assert_eq!(ask(&format!("{name}@2")).status, 200);
    assert_eq!(served()[0]["content"], "You answer for 巡り.");
    let mut request = question("hello");
    request["meguri"] = json!({"variables": {"who": "巡り"}});
    let by_header = live
        .call("POST", "/v1/chat/completions")
        .header("x-meguri-prompt", &format!("{name}@2"))
        .json(&request)
        .send();
    assert_eq!(by_header.status, 200, "{by_header:?}");

    let versions = live.get(&format!("{path}/versions")).json();
    let numbers: Vec<_> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["version"].clone())
        .collect();
    assert_eq!(numbers, [2, 1]);
    for selector in ["1", "production", first["digest"].as_str().unwrap()] {
        let found = live
            .get(&format!("{path}/versions/{}", encode(selector)))
            .json();
        assert_eq!(
            found["content"]["messages"][0]["content"], "あなたは{{ who }}の担当です。",
            "{selector}"
        );
    }
    assert_eq!(
        live.get(&format!("{path}/versions/latest")).json()["version"],
        2
    );
    let moves = live.get(&format!("{path}/moves")).json();
    let moves: Vec<_> = moves["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| json!([item["from"], item["to"], item["reason"]]))
        .collect();
    assert_eq!(
        moves,
        [
            json!([2, 1, "try it"]),
            json!([1, 2, "try it"]),
            json!([null, 1, "try it"])
        ]
    );
    let listed = live.get("/api/v1/prompts").json();
    let names: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["copy", name]);
    let folder = live
        .get(&format!("/api/v1/prompts?folder={}", encode("サポート")))
        .json();
    assert_eq!(folder["items"].as_array().unwrap().len(), 1);
    let page = live.get("/api/v1/prompts?limit=1").json();
    let next = live
        .get(&format!(
            "/api/v1/prompts?limit=1&cursor={}",
            encode(page["next_cursor"].as_str().unwrap())
        ))
        .json();
    assert_eq!(next["items"][0]["name"], name);
}

#[test]
fn an_unknown_prompt_is_refused_in_the_clients_protocol() {
    let place = Place::new();
    let live = place.start();
    save(&live, "answer", "Be brief, {{ name }}.");
    assert_eq!(
        live.put(
            "/api/v1/prompts/answer/labels/production",
            &json!({"version": 1})
        )
        .status,
        200
    );
    let ask = |prompt: Value| {
        let mut request = question("hello");
        request["meguri"] = json!({"prompt": prompt});
        live.post("/v1/chat/completions", &request)
    };
    for prompt in [
        json!("anser"),
        json!("answer@staging"),
        json!("answer@7"),
        json!({"name": "answer", "version": 9}),
    ] {
        let reply = ask(prompt.clone());
        let error = reply.json()["error"].clone();
        assert_eq!(
            (reply.status, &error["code"], &error["param"]),
            (404, &json!("prompt_not_found"), &json!("prompt")),
            "{prompt}: {reply:?}"
        );
    }
    assert!(
        ask(json!("anser")).text().contains("answer"),
        "a near name is suggested"
    );
    // A variable that the template wants and the caller did not send.
    let reply = ask(json!("answer"));
    assert_eq!(
        (reply.status, reply.json()["error"]["param"].clone()),
        (400, json!("prompt")),
        "{reply:?}"
    );
    assert!(reply.text().contains("name"));
    assert_eq!(ask(json!({"name": "answer", "lable": "x"})).status, 400);
    assert_eq!(place.fake.seen().len(), 0);
}

#[test]
fn wrong_prompts_are_refused() {
    let place = Place::new();
    let live = place.start();
    let post = |body: Value| live.post("/api/v1/prompts", &body);
    let content = |text: &str| json!({"messages": [{"role": "system", "content": text}]});
    for (body, code) in [
        (
            json!({"name": "a", "content": {"messages": []}}),
            "invalid_document",
        ),
        (
            json!({"name": "a", "content": content("")}),
            "invalid_document",
        ),
        (
            json!({"name": "a", "content": content("{{ open")}),
            "invalid_document",
        ),
        (
            json!({"name": "a", "content": content("nul \u{0} inside")}),
            "invalid_document",
        ),
        (
            json!({"name": "a", "content": content("{% include 'x' %}")}),
            "invalid_document",
        ),
        (
            json!({"name": "", "content": content("x")}),
            "bad_prompt_name",
        ),
        (
            json!({"name": "../x", "content": content("x")}),
            "bad_prompt_name",
        ),
        (
            json!({"name": "a\u{202e}b", "content": content("x")}),
            "bad_prompt_name",
        ),
        (
            json!({"name": "a//b", "content": content("x")}),
            "bad_prompt_name",
        ),
        (
            json!({"name": "a", "content": {"messages": [{"role": "tool", "content": "x"}]}}),
            "invalid_json",
        ),
        (
            json!({"name": "a", "content": content("x"), "labels": []}),
            "invalid_json",
        ),
        (json!({"name": "a"}), "invalid_json"),
    ] {
        assert_eq!(
            post(body.clone()).refusal(),
            (400, code.to_owned()),
            "{body}"
        );
    }
    save(&live, "a", "x");
    let label = |label: &str, body: Value| {
        live.put(
            &format!("/api/v1/prompts/a/labels/{}", encode(label)),
            &body,
        )
    };
    assert_eq!(label("production", json!({"version": 2})).status, 404);
    assert_eq!(
        label("Not A Label", json!({"version": 1})).refusal(),
        (400, "bad_label".to_owned())
    );
    assert_eq!(live.get("/api/v1/prompts/a/versions/0").status, 404);
    assert_eq!(live.get("/api/v1/prompts?cursor=invented").status, 400);
    assert_eq!(live.get("/api/v1/prompts?limit=many").status, 400);
    let unchanged = live.get("/api/v1/prompts").json();
    assert_eq!(unchanged["items"].as_array().unwrap().len(), 1);
}

/// Loops, huge ranges and walks over attributes end by fuel, in a clear error.
#[test]
fn litellm_2026_42203_prompt_template() {
    let place = Place::new();
    let live = place.start();
    for (index, template) in [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='y') %}{{ ns.x * 100000000 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ 'x' * 1000000000 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ lipsum() }}",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("hostile{index}");
        let body = json!({"name": name, "content": {"messages": [{"role": "system", "content": template}]}});
        let saved = live.post("/api/v1/prompts", &body);
        if saved.status == 400 {
            continue;
        }
        let mut request = question("hello");
        request["meguri"] = json!({"prompt": format!("{name}@1")});
        let reply = live.post("/v1/chat/completions", &request);
        assert_eq!(reply.status, 400, "{template}: {reply:?}");
        assert_eq!(reply.json()["error"]["param"], "prompt", "{template}");
    }
    assert_eq!(place.fake.seen().len(), 0);
    live.chat(&question("still here"));
}

fn two_people_move_one_label(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    for text in ["one", "two", "three"] {
        save(&live, "shared", text);
    }
    let path = "/api/v1/prompts/shared/labels/production";
    let first = live.put(path, &json!({"version": 1, "expected_revision": 0}));
    assert_eq!(first.status, 200, "{first:?}");
    let revision = first.json()["revision"].as_i64().unwrap();
    let moved = live.put(path, &json!({"version": 2, "expected_revision": revision}));
    assert_eq!(moved.status, 200, "{moved:?}");
    // Somebody who still looks at the first state learns what happened, and changes nothing.
    let late = live.put(path, &json!({"version": 3, "expected_revision": revision}));
    assert_eq!(late.refusal(), (409, "moved_meanwhile".to_owned()));
    assert!(late.text().contains("version 2"), "{late:?}");
    assert_eq!(
        live.put(path, &json!({"version": 3, "expected_revision": 0}))
            .status,
        409
    );
    assert_eq!(
        live.get("/api/v1/prompts/shared/labels").json()["items"][0]["version"],
        2
    );
    // Of many at the same moment one wins.
    let revision = moved.json()["revision"].as_i64().unwrap();
    let body = json!({"version": 3, "expected_revision": revision});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| live.put(path, &body).status))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses.iter().all(|status| [200, 409].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(
        live.get("/api/v1/prompts/shared/moves").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

fn a_price_is_set_and_named(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500});
    place.fake.always(testkit::provider::Answer {
        usage: Some(usage),
        ..Default::default()
    });
    let cost = || {
        let trace = live.chat(&question("hello"));
        let span = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true)["spans"][0].clone();
        (span["cost_nanousd"].clone(), span["price_version"].clone())
    };
    // No price is no cost, which is not the same as free.
    assert_eq!(cost().0, Value::Null);
    let set = |input: f64| {
        live.put(
            "/api/v1/prices",
            &json!({"provider": "fake", "model": "ti*", "input_usd": input, "output_usd": 4.0}),
        )
    };
    let table = set(1.0);
    assert_eq!(table.status, 200, "{table:?}");
    let first = cost();
    assert_eq!(first, (json!(3_000_000), table.json()["version"].clone()));
    let table = set(2.0).json();
    assert_eq!(cost(), (json!(4_000_000), table["version"].clone()));
    assert_ne!(first.1, table["version"]);
    assert_eq!(live.get("/api/v1/prices").json(), table);
    // The same prices again are the same table.
    set(1.0);
    assert_eq!(live.get("/api/v1/prices").json()["version"], first.1);
    for (field, value) in [
        ("input_usd", json!(-1)),
        ("input_usd", json!(1e7)),
        ("model", json!("")),
        ("output_usd", json!("free")),
    ] {
        let mut row = json!({"provider": "fake", "model": "x", "input_usd": 1, "output_usd": 1});
        row[field] = value;
        assert_eq!(live.put("/api/v1/prices", &row).status, 400, "{row}");
    }
}
