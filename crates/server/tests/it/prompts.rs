//! Prompts and prices over HTTP: saved, found again, moved, served, paid for.

use serde_json::{Value, json};

use crate::harness::{Client, Place, encode, on_both_databases, question};

on_both_databases!(
    a_prompt_is_saved_labelled_and_served,
    two_people_move_one_label,
    drafts_are_rendered_and_run_without_being_saved,
    a_model_writes_candidates_whatever_it_answers,
    prompts_are_tagged_found_and_deleted,
    the_editor_works_as_a_plain_form,
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
            "invalid_document",
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

/// HTML as people read it, as far as these tests look.
fn unescaped(html: &str) -> String {
    html.replace("&#x2f;", "/").replace("&amp;", "&")
}

fn drafts_are_rendered_and_run_without_being_saved(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    save(&live, "shared/tone", "Be kind.");
    let labelled = live.put(
        "/api/v1/prompts/shared%2Ftone/labels/production",
        &json!({"version": 1}),
    );
    assert_eq!(labelled.status, 200, "{labelled:?}");
    let draft = json!({
        "messages": [
            {"role": "system", "content": "{{ partials.tone }} Answer {{ who }}."},
            {"role": "user", "content": "{{ question }}"},
        ],
        "inputs": {"type": "object", "required": ["question"], "properties": {
            "who": {"type": "string", "default": "everybody"},
            "question": {"type": "string", "examples": ["Why?"]},
        }},
        "partials": {"tone": "prompt:shared/tone"},
        "parameters": {"temperature": 0.5},
        "model": "fake/from-the-draft",
    });
    let render = |content: &Value, inputs: Value| {
        let mut body = json!({"content": content});
        if !inputs.is_null() {
            body["inputs"] = inputs;
        }
        let reply = live.post("/api/v1/prompts/render", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    };
    // With its own samples, then with given inputs.
    let shown = render(&draft, Value::Null);
    assert_eq!(
        shown["messages"],
        json!([{"role": "system", "content": "Be kind. Answer everybody."}, {"role": "user", "content": "Why?"}])
    );
    assert_eq!(shown["problems"], json!([]));
    assert_eq!(shown["tokens"]["method"], "estimate");
    assert!(shown["tokens"]["count"].as_u64().unwrap() > 5, "{shown}");
    let shown = render(&draft, json!({"question": "何故?", "who": "巡り"}));
    assert_eq!(shown["messages"][0]["content"], "Be kind. Answer 巡り.");

    // What is wrong is an answer with its place, never an error: somebody is typing.
    let missing = render(&draft, json!({}));
    assert_eq!(
        missing["problems"][0]["path"], "variables.question",
        "{missing}"
    );
    let cases = [
        (
            json!({"messages": [{"role": "user", "content": "ok\n{{ a"}]}),
            "/messages/0/content",
            json!(2),
        ),
        (json!({"messages": []}), "/messages", Value::Null),
        (
            json!({"messages": [{"role": "user", "content": "{% set a = 1 %}"}]}),
            "/messages/0/content",
            Value::Null,
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}], "partials": {"a": "prompt:no/such"}}),
            "",
            Value::Null,
        ),
        (json!("no object"), "", Value::Null),
    ];
    for (content, path, line) in cases {
        let shown = render(&content, json!({}));
        let problems = shown["problems"].as_array().unwrap();
        assert!(
            !problems.is_empty() || path.is_empty(),
            "{content}: {shown}"
        );
        if !path.is_empty() {
            assert_eq!(problems[0]["path"], path, "{content}: {shown}");
            if !line.is_null() {
                assert_eq!(problems[0]["line"], line, "{content}: {shown}");
            }
        }
    }

    // Run as it stands: rendered, with the draft's model and parameters, recorded, and nothing saved.
    let mut call = json!({"content": draft, "variables": {"question": "Why?"}, "messages": [{"role": "user", "content": "Really?"}], "session": "s-1", "seed": 7});
    let reply = live.post("/api/v1/prompts/try", &call);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["object"], "chat.completion");
    let seen = place.fake.seen().pop().unwrap().json();
    assert_eq!(
        seen["messages"],
        json!([
            {"role": "system", "content": "Be kind. Answer everybody."},
            {"role": "user", "content": "Why?"},
            {"role": "user", "content": "Really?"},
        ])
    );
    assert_eq!(
        (
            &seen["model"],
            &seen["temperature"],
            &seen["seed"],
            seen.get("meguri")
        ),
        (&json!("from-the-draft"), &json!(0.5), &json!(7), None)
    );
    let trace = reply.header("x-meguri-trace-id").unwrap();
    let trace = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    assert!(trace.to_string().contains("\"draft\""), "{trace}");
    call["model"] = json!("fake/other");
    call["stream"] = json!(true);
    call["temperature"] = json!(0.1);
    let streamed = live.post("/api/v1/prompts/try", &call);
    assert!(
        streamed.text().trim_end().ends_with("data: [DONE]"),
        "{streamed:?}"
    );
    let seen = place.fake.seen().pop().unwrap().json();
    assert_eq!(
        (&seen["model"], &seen["temperature"]),
        (&json!("other"), &json!(0.1))
    );
    let listed = live.get("/api/v1/prompts").json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");

    // Bad drafts are refused with their place before anybody is called.
    let calls = place.fake.seen().len();
    for (change, at) in [
        (
            json!({"content": {"messages": [{"role": "user", "content": "{{ a"}]}}),
            "/messages/0/content",
        ),
        (json!({"variables": {"question": 5}}), "variables.question"),
        (json!({"variables": {}}), "variables.question"),
    ] {
        let mut bad = call.clone();
        bad.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let reply = live.post("/api/v1/prompts/try", &bad);
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(reply.json()["error"]["at"], at, "{reply:?}");
    }
    let nobody = json!({"content": {"messages": [{"role": "user", "content": "x"}]}});
    let reply = live.post("/api/v1/prompts/try", &nobody);
    assert_eq!(
        (reply.status, &reply.json()["error"]["at"]),
        (400, &json!("model"))
    );
    assert_eq!(place.fake.seen().len(), calls);
}

fn a_model_writes_candidates_whatever_it_answers(place: Place) {
    use testkit::provider::{Answer, Fault};

    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let says = |text: &str| Answer {
        text: vec![text.to_owned()],
        ..Answer::default()
    };
    let ask = |techniques: Value, examples: Value| {
        let body = json!({"description": "Answer questions about the shop.", "model": "fake/writer", "techniques": techniques, "examples": examples});
        let reply = live.post("/api/v1/prompts/generate", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["candidates"].as_array().unwrap().clone()
    };
    let one = |text: &str, examples: Value| {
        place.fake.next(says(text));
        let candidate = ask(json!(["zero_shot"]), examples).remove(0);
        // Whatever came back, it is a prompt that renders with its own samples.
        let body = json!({"content": candidate["document"], "inputs": {"question": "q", "shop": "s", "input": "i"}});
        let shown = live
            .post(
                "/api/v1/prompts/render",
                &json!({"content": candidate["document"]}),
            )
            .json();
        assert_eq!(shown["problems"], json!([]), "{text}: {candidate} {body}");
        candidate
    };
    let contents = |candidate: &Value| {
        let messages = candidate["document"]["messages"].as_array().unwrap();
        messages
            .iter()
            .map(|m| m["content"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let asked = |candidate: &Value| candidate["document"]["inputs"]["required"].clone();

    let formed = one(
        "<system>\nBe brief.\n</system>\n<user>\n{{ question }}\n</user>\n<inputs>\nquestion: what is asked\n</inputs>",
        json!([]),
    );
    assert_eq!(contents(&formed), ["Be brief.", "{{ question }}"]);
    assert_eq!(
        (&formed["repairs"], asked(&formed)),
        (&json!([]), json!(["question"]))
    );
    assert_eq!(
        formed["document"]["inputs"]["properties"]["question"]["description"],
        "what is asked"
    );
    let thought = one(
        "<think>hm {{ x</think><system>A</system><user>{question} in [shop]</user><inputs>- question: a\n- shop: b</inputs>",
        json!([]),
    );
    assert_eq!(contents(&thought), ["A", "{{ question }} in {{ shop }}"]);
    assert_eq!(thought["repairs"], json!(["rewrote_placeholders"]));
    let as_json = one(
        "```json\n{\"system\": \"Be brief.\", \"user\": \"{{ question }}\", \"inputs\": [\"question\"]}\n```",
        json!([]),
    );
    assert_eq!(contents(&as_json), ["Be brief.", "{{ question }}"]);
    let headed = one("**System:** Be brief.\n**User:** {{ question }}", json!([]));
    assert_eq!(contents(&headed), ["Be brief.", "{{ question }}"]);
    assert_eq!(headed["repairs"], json!(["declared_inputs"]));
    let rambling = one("Sure! You could be brief and helpful.", json!([]));
    assert_eq!(
        contents(&rambling),
        ["Sure! You could be brief and helpful.", "{{ input }}"]
    );
    assert_eq!(
        rambling["repairs"],
        json!(["took_whole_text", "added_input"])
    );
    let broken = one(
        "<system>{% include 'x' %}{{ a b }} {{</system><user>{{ question }}</user>",
        json!([]),
    );
    assert!(
        broken["repairs"]
            .as_array()
            .unwrap()
            .contains(&json!("made_literal")),
        "{broken}"
    );
    let silent = one("", json!([]));
    assert_eq!(
        contents(&silent),
        ["Answer questions about the shop.", "{{ input }}"]
    );

    // Examples give the inputs, and the few-shot candidate shows them.
    place.fake.always(says(
        "<system>Be brief.</system><user>{{ question }}</user>",
    ));
    let examples = json!([{"inputs": {"question": "Open?"}, "output": "Until six."}]);
    let found = ask(json!(["few_shot", "structured_output"]), examples);
    assert_eq!(
        found[0]["document"]["examples"]["items"][0]["output"],
        "Until six."
    );
    assert_eq!(
        found[0]["document"]["inputs"]["properties"]["question"]["examples"],
        json!(["Open?"])
    );
    assert_eq!(
        found[1]["document"]["response_format"]["type"],
        "json_object"
    );
    assert!(
        place.fake.seen().pop().unwrap().json()["messages"][1]["content"]
            .as_str()
            .unwrap()
            .contains("Open?")
    );
    let trace = found[0]["trace_id"].as_str().unwrap();
    live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);

    // A call that fails is said in its candidate; what is wrong with the request is an error.
    place.fake.next(Answer::faulty(Fault::Status(
        401,
        Vec::new(),
        "{}".to_owned(),
    )));
    let failed = ask(json!(["zero_shot"]), json!([])).remove(0);
    assert_eq!(failed["document"], Value::Null, "{failed}");
    assert!(!failed["error"].as_str().unwrap().is_empty());
    for (body, at) in [
        (
            json!({"description": " ", "model": "fake/m"}),
            "description",
        ),
        (json!({"description": "x", "model": ""}), "model"),
        (json!({"description": "x", "model": "fake/m", "n": 9}), "n"),
        (json!({"description": "x", "model": "fake/m", "n": 0}), "n"),
    ] {
        let reply = live.post("/api/v1/prompts/generate", &body);
        assert_eq!(
            (reply.status, &reply.json()["error"]["at"]),
            (400, &json!(at)),
            "{reply:?}"
        );
    }
}

fn prompts_are_tagged_found_and_deleted(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let text = "You answer questions of customers about their orders, briefly and politely, and never promise a date.";
    save(&live, "support/mail/answer", text);
    save(&live, "support/chat", "Chat with people about books.");
    save(&live, "日本語/要約", "次の文章を三行で要約してください。");
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let tagged = browser.form(
        "/default/prompts/tags",
        &[("name", "support/mail/answer"), ("tags", "mail, 重要、 ")],
    );
    assert_eq!(tagged.status, 303, "{tagged:?}");

    // Folders at the top and what they hold below them, tags and search through all of them.
    let page = |query: &str| unescaped(&browser.get(&format!("/default/prompts{query}")).text());
    let top = page("");
    assert!(
        top.contains("?folder=support")
            && top.contains("重要")
            && top.contains("support/mail/answer"),
        "{top}"
    );
    let inside = page("?folder=support");
    assert!(
        inside.contains(">chat<") && inside.contains("?folder=support%2Fmail"),
        "{inside}"
    );
    let by_tag = page(&format!("?tag={}", encode("重要")));
    assert!(
        by_tag.contains("support/mail/answer") && !by_tag.contains("support/chat"),
        "{by_tag}"
    );
    let by_search = page(&format!("?q={}", encode("要約")));
    assert!(
        by_search.contains("日本語/要約") && !by_search.contains("support/chat"),
        "{by_search}"
    );
    assert!(page("?q=nowhere").contains("No prompt here matches"));

    // The same and nearly the same are pointed out.
    let alike = |text: &str, name: &str| {
        let body =
            json!({"content": {"messages": [{"role": "system", "content": text}]}, "name": name});
        live.post("/api/v1/prompts/similar", &body).json()
    };
    let same = alike(text, "support/mail/answer");
    assert_eq!(
        same,
        json!({"identical": [{"name": "support/mail/answer", "version": 1}], "similar": []})
    );
    let near = alike(&text.replace("briefly", "shortly"), "other");
    assert_eq!(
        (&near["identical"], &near["similar"][0]["name"]),
        (&json!([]), &json!("support/mail/answer")),
        "{near}"
    );
    assert_eq!(
        alike("Something else altogether.", "other")["similar"],
        json!([])
    );

    // Two versions: text, settings and what they render to.
    let second = json!({"content": {"messages": [{"role": "system", "content": "Chat with {{ who }} about books."}], "parameters": {"temperature": 0.2},
        "inputs": {"type": "object", "properties": {"who": {"type": "string", "default": "children"}}}}});
    assert_eq!(
        live.post("/api/v1/prompts/support%2Fchat/versions", &second)
            .status,
        201
    );
    let differ = unescaped(
        &browser
            .get("/default/prompts/diff?name=support%2Fchat&base=1&version=2")
            .text(),
    );
    for part in [
        "/parameters",
        "temperature",
        "children",
        "<td class=\"del\">",
        "<mark>",
    ] {
        assert!(differ.contains(part), "{part}: {differ}");
    }
    let with = browser
        .get(&format!(
            "/default/prompts/diff?name=support%2Fchat&base=1&version=2&mode=split&inputs={}",
            encode("{\"who\": \"読者\"}")
        ))
        .text();
    assert!(with.contains("読者"), "{with}");
    let bad = browser
        .get("/default/prompts/diff?name=support%2Fchat&base=1&version=2&inputs=nonsense")
        .text();
    assert!(bad.contains("no JSON object"), "{bad}");
    assert_eq!(
        browser
            .get("/default/prompts/diff?name=support%2Fchat&base=1&version=9")
            .status,
        404
    );

    // Deleted only under its own name; its versions come back with the next save.
    let not = browser.form(
        "/default/prompts/delete",
        &[("name", "support/chat"), ("confirm", "support")],
    );
    assert_eq!(not.status, 303);
    assert!(page("?folder=support").contains(">chat<"));
    let gone = browser.form(
        "/default/prompts/delete",
        &[
            ("name", "support/chat"),
            ("confirm", "support/chat"),
            ("reason", "old"),
        ],
    );
    assert_eq!(
        gone.header("location").as_deref(),
        Some("/default/prompts"),
        "{gone:?}"
    );
    assert!(!page("?folder=support").contains(">chat<"));
    assert_eq!(save(&live, "support/chat", "Again.")["version"], 3);
}

fn the_editor_works_as_a_plain_form(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let start = browser.get("/default/prompts/new").text();
    assert!(
        start.contains("start=few-shot") && start.contains("start=judge"),
        "{start}"
    );
    let edit = |fields: &[(&str, &str)]| browser.form("/default/prompts/edit", fields);
    let base = [
        ("name", "plain"),
        ("role.0", "system"),
        ("content.0", "One\r\ntwo."),
        ("role.1", "user"),
        ("content.1", "{{ q }}"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [base.as_slice(), more].concat();

    let more = edit(&with(&[("action", "add")])).text();
    assert!(
        more.contains("name=\"role.2\"") && more.contains("One\ntwo."),
        "{more}"
    );
    let moved = edit(&with(&[("action", "up:1")])).text();
    assert!(moved.find("{{ q }}").unwrap() < moved.find("One\ntwo.").unwrap());
    let fewer = edit(&with(&[("action", "remove:0")])).text();
    assert!(!fewer.contains("One\ntwo.") && fewer.contains("{{ q }}"));
    let shown = edit(&with(&[
        ("action", "preview"),
        (
            "inputs",
            r#"{"type": "object", "properties": {"q": {"type": "string", "default": "sample!"}}}"#,
        ),
    ]))
    .text();
    assert!(
        shown.contains("sample!") && shown.contains("tokens"),
        "{shown}"
    );

    // Faults come back at their field with everything that was typed.
    let reply = edit(&with(&[
        ("action", "save"),
        ("parameters", "{temperature: 1}"),
    ]));
    assert_eq!(reply.status, 422);
    assert!(
        reply.text().contains("id=\"h-parameters\"") && reply.text().contains("{temperature: 1}")
    );
    let reply = edit(&[
        ("name", "plain"),
        ("role.0", "user"),
        ("content.0", "{{ q"),
        ("action", "save"),
    ]);
    assert_eq!(reply.status, 422, "{reply:?}");
    assert!(reply.text().contains("{{ q"));
    let reply = edit(&[
        ("name", "Bad//Name"),
        ("role.0", "user"),
        ("content.0", "x"),
        ("action", "save"),
    ]);
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains("aria-invalid=\"true\""));

    let saved = edit(&with(&[
        ("action", "save"),
        ("message", "first"),
        ("parameters", r#"{"temperature": 0.5}"#),
    ]));
    assert_eq!(
        saved.header("location").as_deref(),
        Some("/default/prompts/show?name=plain&version=1"),
        "{saved:?}"
    );
    let content = live.get("/api/v1/prompts/plain/versions/1").json()["content"].clone();
    assert_eq!(
        content,
        json!({"messages": [{"role": "system", "content": "One\ntwo."}, {"role": "user", "content": "{{ q }}"}], "parameters": {"temperature": 0.5}})
    );
    let draft = browser
        .get("/default/prompts/edit?name=plain&version=1")
        .text();
    assert!(
        draft.contains("One\ntwo.") && draft.contains("temperature"),
        "{draft}"
    );

    // A protected label does not move at once: the move waits, and the page says so.
    let asked = browser.form(
        "/default/prompts/labels",
        &[("name", "plain"), ("label", "prod"), ("version", "1")],
    );
    assert_eq!(asked.status, 303, "{asked:?}");
    let shown = unescaped(&browser.get("/default/prompts/show?name=plain").text());
    assert!(
        shown.contains("prod → v1 is proposed") && shown.contains("/default/approvals"),
        "{shown}"
    );
    assert_eq!(
        live.get("/api/v1/prompts/plain/labels").json()["items"],
        json!([])
    );

    // A draft that is not saved is handed to the compare page, beside a version.
    let drafts = json!([{"title": "mine", "document": {"messages": [{"role": "system", "content": "Unsaved words."}]}}]).to_string();
    let compare = browser
        .form(
            "/default/compare",
            &[("drafts", &drafts), ("against", "plain@v1")],
        )
        .text();
    assert!(
        compare.contains("Unsaved words.") && compare.contains("plain"),
        "{compare}"
    );
    assert_eq!(
        browser.form("/default/compare", &[("drafts", "[1")]).status,
        400
    );
    let linked = browser
        .get(&format!(
            "/default/compare?prompts={}",
            encode(r#"["plain@v1","plain@v7"]"#)
        ))
        .text();
    assert!(
        linked.contains("two.") && !linked.contains("Unsaved"),
        "{linked}"
    );
}

#[test]
fn every_starting_point_renders_with_its_own_samples() {
    let place = Place::new();
    let live = place.start();
    let mut ids = Vec::new();
    for lang in ["en", "ja"] {
        let found = live
            .get(&format!("/api/v1/prompts/templates?lang={lang}"))
            .json();
        let items = found["items"].as_array().unwrap();
        for item in items {
            let shown = live
                .post(
                    "/api/v1/prompts/render",
                    &json!({"content": item["document"]}),
                )
                .json();
            assert_eq!(shown["problems"], json!([]), "{lang} {}", item["id"]);
            assert!(!shown["messages"].as_array().unwrap().is_empty());
            for variable in shown["variables"].as_array().unwrap() {
                assert_eq!(
                    variable["declared"], true,
                    "{lang} {}: {variable}",
                    item["id"]
                );
            }
            let body = json!({"name": format!("starts/{lang}/{}", item["id"].as_str().unwrap()), "content": item["document"]});
            assert_eq!(live.post("/api/v1/prompts", &body).status, 201);
        }
        ids.push(
            items
                .iter()
                .map(|item| item["id"].clone())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(ids[0], ids[1], "both languages have the same");
    assert!(ids[0].len() >= 8);
    assert_eq!(live.get("/api/v1/prompts/templates?lang=xx").status, 400);
}

#[test]
fn a_list_of_thousands_is_paged() {
    let place = Place::new();
    let live = place.start();
    for index in 0..230 {
        save(
            &live,
            &format!("many/p{index:04}"),
            &format!("Prompt number {index}."),
        );
    }
    let browser = live.browser_of(&place.add_person("default", "viewer"));
    let mut path = "/default/prompts?folder=many".to_owned();
    let mut seen = 0;
    for _ in 0..3 {
        let page = unescaped(&browser.get(&path).text());
        seen += page.matches("<tr data-href").count();
        let Some((_, rest)) = page.split_once("rel=\"next\" href=\"") else {
            break;
        };
        path = rest.split('"').next().unwrap().to_owned();
    }
    assert_eq!(seen, 230);
}
