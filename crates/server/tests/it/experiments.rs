//! Experiments over HTTP: split, measured, stopped by guards, ramped, promoted.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::apps::{answering, cut, save_app, save_prompt};
use crate::harness::{Client, Live, Place, encode, on_both_databases, question};

on_both_databases!(
    a_split_is_sticky_measured_and_promoted,
    a_guard_stops_a_canary_and_a_lost_version_a_split,
    releases_of_an_app_are_split_measured_and_promoted,
    a_release_stands_in_the_shadow_of_another,
    a_policy_is_split_and_measured_by_what_it_blocks
);

const PROMPT: &str = "support/answer";

/// A prompt with versions 1 and 2; production points to 1.
fn make_prompt(client: &Client) {
    for text in ["version one", "version two"] {
        let content = json!({"messages": [{"role": "system", "content": text}]});
        let reply = client.post(
            "/api/v1/prompts",
            &json!({"name": PROMPT, "content": content}),
        );
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let label = format!("/api/v1/prompts/{}/labels/production", encode(PROMPT));
    assert_eq!(client.put(&label, &json!({"version": 1})).status, 200);
}

fn document() -> Value {
    json!({
        "target": {"kind": "prompt", "name": PROMPT, "label": "production"},
        "arms": [{"name": "control", "version": 1, "weight": 50}, {"name": "candidate", "version": 2, "weight": 50}],
        "metric": {"kind": "score", "name": "thumbs"},
        "minimum_sample": 100,
    })
}

fn save(client: &Client, name: &str, content: &Value) -> crate::harness::Reply {
    client.post(
        "/api/v1/experiments",
        &json!({"name": name, "content": content}),
    )
}

fn experiment(name: &str, rest: &str) -> String {
    format!("/api/v1/experiments/{}{rest}", encode(name))
}

/// A call of this user; the trace and the version that answered.
fn call(live: &Live, place: &Place, user: &str) -> (String, &'static str) {
    let mut request = question("hello");
    request["meguri"] = json!({"prompt": PROMPT, "user": user});
    let trace = live.chat(&request);
    let sent = place.fake.seen().pop().unwrap().json();
    let text = sent["messages"][0]["content"].as_str().unwrap().to_owned();
    (
        trace,
        if text == "version one" {
            "control"
        } else {
            "candidate"
        },
    )
}

fn a_split_is_sticky_measured_and_promoted(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_prompt(&live);

    // What is wrong is said where it is.
    let mut wrong = document();
    wrong["arms"][1]["weight"] = json!(60);
    let reply = save(&live, "tone", &wrong);
    assert_eq!(reply.refusal(), (400, "invalid_document".to_owned()));
    assert_eq!(reply.json()["error"]["at"], "/arms");
    let mut wrong = document();
    wrong["arms"][1]["version"] = json!(9);
    let reply = save(&live, "tone", &wrong);
    assert_eq!(reply.refusal(), (400, "unknown_version".to_owned()));
    assert_eq!(reply.json()["error"]["at"], "/arms/1/version");
    let mut wrong = document();
    wrong["arms"][0]["control"] = json!(true);
    wrong["arms"][1]["control"] = json!(true);
    assert_eq!(
        save(&live, "tone", &wrong).json()["error"]["at"],
        "/arms/1/control"
    );

    assert_eq!(save(&live, "tone", &document()).status, 201);
    assert_eq!(save(&live, "other", &document()).json()["version"], 1);
    let started = live.post(
        &experiment("tone", "/start"),
        &json!({"reason": "a friendlier tone"}),
    );
    assert_eq!(started.status, 201, "{started:?}");
    let run = started.json();
    assert_eq!(
        (&run["state"], &run["target"]),
        (
            &json!("running"),
            &json!("prompt:support/answer@production")
        )
    );
    let second = live.post(&experiment("other", "/start"), &json!({}));
    assert_eq!(second.refusal(), (409, "target_busy".to_owned()));

    // Users stay with their arm; what they say of it arrives there.
    let mut arms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for user in 0..24 {
        let user = format!("user{user}");
        let (first, arm) = call(&live, &place, &user);
        let (second, again) = call(&live, &place, &user);
        assert_eq!(arm, again, "{user} changed sides");
        arms.entry(arm).or_default().extend([first, second]);
    }
    assert_eq!(arms.len(), 2, "both versions serve: {arms:?}");
    for (arm, traces) in &arms {
        let value = if *arm == "candidate" { 1 } else { -1 };
        for trace in traces {
            let score = json!({"trace_id": trace, "name": "thumbs", "value": value});
            assert_eq!(live.post("/api/v1/scores", &score).status, 201);
        }
    }
    let results = live.wait_for(&experiment("tone", "/results"), |value| {
        let figures = &value["results"]["arms"];
        let scored = |arm: usize| figures[arm]["figures"][0]["units"].as_u64().unwrap_or(0);
        scored(0) + scored(1) == 24
    });
    let shown = &results["results"];
    for (index, (name, mean)) in [("control", -1.0), ("candidate", 1.0)]
        .into_iter()
        .enumerate()
    {
        let arm = &shown["arms"][index];
        let calls = arms[name].len();
        assert_eq!(
            (&arm["name"], &arm["calls"]),
            (&json!(name), &json!(calls)),
            "{arm}"
        );
        assert_eq!(arm["units"], calls / 2);
        assert_eq!(
            (&arm["figures"][0]["metric"], &arm["figures"][0]["mean"]),
            (&json!("score.thumbs"), &json!(mean))
        );
    }
    let comparison = &shown["comparisons"][0];
    assert_eq!(comparison["verdict"], "not_enough_data", "{comparison}");
    assert_eq!(comparison["estimate"], 2.0);
    // The calls of the run are found by their arm.
    let filter = encode("experiment = tone and arm = candidate");
    let found = live
        .get(&format!("/api/v1/traces?filter={filter}&limit=100"))
        .json();
    assert_eq!(
        found["items"].as_array().unwrap().len(),
        arms["candidate"].len()
    );

    let person = live.browser_of(&place.add_person("default", "editor"));
    let page = person.get("/default/experiments/show?name=tone");
    assert_eq!(page.status, 200, "{page:?}");
    for text in [
        "Not enough data",
        "candidate",
        "stop-run",
        "Promote candidate",
    ] {
        assert!(
            page.text().contains(text),
            "{text} is not on the page: {}",
            page.text()
        );
    }
    assert!(person.get("/default/experiments").text().contains("tone"));

    // Promoting moves the label and ends the split.
    let unknown = live.post(&experiment("tone", "/promote"), &json!({"arm": "nobody"}));
    assert_eq!(unknown.refusal(), (400, "unknown_arm".to_owned()));
    let promoted = live.post(
        &experiment("tone", "/promote"),
        &json!({"arm": "candidate"}),
    );
    assert_eq!(promoted.status, 200, "{promoted:?}");
    assert_eq!(promoted.json()["run"]["state"], "concluded");
    let labels = live
        .get(&format!("/api/v1/prompts/{}/labels", encode(PROMPT)))
        .json();
    assert_eq!(labels["items"][0]["version"], 2, "{labels}");
    for user in 0..6 {
        assert_eq!(call(&live, &place, &format!("user{user}")).1, "candidate");
    }
    // The figures were kept, without what came after the end.
    let kept = live.get(&experiment("tone", "/results")).json();
    assert_eq!(kept["results"]["arms"][0]["calls"], arms["control"].len());
    assert_eq!(
        live.post(&experiment("tone", "/stop"), &json!({}))
            .refusal(),
        (409, "not_running".to_owned())
    );
    let page = person.get("/default/experiments/show?name=tone").text();
    assert!(page.contains("Promoted"), "{page}");
    // The target is free again.
    assert_eq!(
        live.post(&experiment("other", "/start"), &json!({})).status,
        201
    );
    assert_eq!(
        live.post(&experiment("other", "/stop"), &json!({"reason": "enough"}))
            .json()["state"],
        "stopped"
    );
}

fn a_guard_stops_a_canary_and_a_lost_version_a_split(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_prompt(&live);
    let mut canary = document();
    canary["mode"] = json!("canary");
    canary["arms"] =
        json!([{"name": "control", "version": 1}, {"name": "candidate", "version": 2}]);
    canary["ramp"] =
        json!([{"weight": 0.5, "at_least_calls": 3}, {"weight": 1.0, "at_least_calls": 3}]);
    canary["unit"] = json!("request");
    canary["guards"] =
        json!([{"metric": {"kind": "error_rate"}, "limit": 0.2, "direction": "above"}]);
    assert_eq!(save(&live, "careful", &canary).status, 201);
    assert_eq!(
        live.post(&experiment("careful", "/start"), &json!({}))
            .status,
        201
    );
    let newest = |value: &Value| value["runs"][0].clone();

    // Good calls take the ramp to its end by themselves.
    let mut served = 0;
    while served < 5 {
        served += usize::from(call(&live, &place, "").1 == "candidate");
    }
    let advanced = live.wait_for(&experiment("careful", ""), |value| {
        newest(value)["step"] == 2
    });
    assert_eq!(newest(&advanced)["arms"][1]["weight"], 1.0);
    // The step is in the database a moment before it is in the plan.
    let mut in_a_row = 0;
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while in_a_row < 10 {
        assert!(
            std::time::Instant::now() < deadline,
            "the ramp has no effect"
        );
        let arm = call(&live, &place, "").1;
        in_a_row = if arm == "candidate" { in_a_row + 1 } else { 0 };
    }

    // Then the candidate fails, and calls go back to the control.
    place
        .fake
        .always(Answer::status(400, r#"{"error": {"message": "no"}}"#));
    let mut request = question("hello");
    request["meguri"] = json!({"prompt": PROMPT});
    for _ in 0..25 {
        assert_eq!(live.post("/v1/chat/completions", &request).status, 400);
    }
    place.fake.always(Answer::default());
    let stopped = live.wait_for(&experiment("careful", ""), |value| {
        newest(value)["state"] == "stopped"
    });
    let run = newest(&stopped);
    assert_eq!(run["ended_by"], "system");
    assert!(
        run["reason"].as_str().unwrap().contains("error_rate"),
        "{run}"
    );
    // The plan follows the row within a moment.
    while call(&live, &place, "").1 == "candidate" {}
    for _ in 0..5 {
        assert_eq!(call(&live, &place, "").1, "control");
    }
    let evidence = live.wait_for("/api/v1/evidence?kind=prompt", |value| {
        value["items"][0].is_object()
    });
    let evidence = &evidence["items"][0];
    assert_eq!(
        (&evidence["gate"], &evidence["outcome"]),
        (&json!("experiment/careful"), &json!("fail")),
        "{evidence}"
    );
    let person = live.browser_of(&place.add_person("default", "viewer"));
    let page = person.get("/default/experiments/show?name=careful").text();
    assert!(
        page.contains("Crossed") && !page.contains("experiments/stop\""),
        "{page}"
    );

    // A split whose prompt is deleted stops itself and says why.
    assert_eq!(save(&live, "lost", &document()).status, 201);
    assert_eq!(
        live.post(&experiment("lost", "/start"), &json!({})).status,
        201
    );
    place.database(async |db| {
        let catalog = db::Catalog::new(db.clone(), server::app::kinds());
        let project = server::projects::by_name(db, "default").await.unwrap();
        let scope = db::Scope {
            project: project.id,
            actor: db::Actor::Operator,
        };
        let name = PROMPT.parse().unwrap();
        let request = db::catalog::DeleteRequest {
            kind: "prompt",
            name: &name,
            reason: "",
            force: true,
        };
        catalog.delete_name(scope, request).await.unwrap();
    });
    let stopped = live.wait_for(&experiment("lost", ""), |value| {
        newest(value)["state"] == "stopped"
    });
    assert!(
        newest(&stopped)["reason"]
            .as_str()
            .unwrap()
            .contains("deleted"),
        "{stopped}"
    );
    let again = live.post(&experiment("lost", "/start"), &json!({}));
    assert_eq!(
        again.refusal(),
        (409, "arm_not_usable".to_owned()),
        "{again:?}"
    );
}

/// An app with releases 1 and 2; the environment `dev` runs 1.
fn make_app(live: &Live, second: &Value) {
    save_prompt(live, "geo/answer", "release one");
    save_prompt(live, "geo/answer", "release two");
    save_app(live, "geo", &answering("prompt:geo/answer@1"));
    assert_eq!(cut(live, "geo")["version"], 1);
    save_app(live, "geo", second);
    assert_eq!(cut(live, "geo")["version"], 2);
    let pointer = "/api/v1/catalog/release/geo/pointers/dev";
    let moved = live.put(pointer, &json!({"version": 1}));
    assert!([200, 201].contains(&moved.status), "{moved:?}");
}

fn of_app() -> Value {
    let mut document = document();
    document["target"] = json!({"kind": "app", "name": "geo", "environment": "dev"});
    document
}

fn ask_app(live: &Live, user: &str) -> crate::harness::Reply {
    let request = json!({"model": "geo", "user": user,
        "messages": [{"role": "user", "content": "Where is Kyoto?"}]});
    let reply = live.post("/v1/chat/completions", &request);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// A call of the app by this user; the trace, and the arm whose release answered.
fn call_app(live: &Live, place: &Place, user: &str) -> (String, &'static str) {
    let reply = ask_app(live, user);
    let arm = match reply.header("x-meguri-release").as_deref() {
        Some("geo@1") => "control",
        Some("geo@2") => "candidate",
        other => panic!("{other:?}"),
    };
    let sent = place.fake.seen().pop().unwrap().json();
    let text = if arm == "control" {
        "release one"
    } else {
        "release two"
    };
    assert_eq!(sent["messages"][0]["content"], text, "{sent}");
    (reply.header("x-meguri-trace-id").unwrap(), arm)
}

fn releases_of_an_app_are_split_measured_and_promoted(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_app(&live, &answering("prompt:geo/answer@2"));
    assert_eq!(call_app(&live, &place, "before").1, "control");
    // Releases that are not there, and weights that are no whole.
    let mut wrong = of_app();
    wrong["arms"][1]["version"] = json!(3);
    let reply = save(&live, "which", &wrong);
    assert_eq!(reply.refusal(), (400, "unknown_version".to_owned()));
    let message = reply.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("release geo version 3"), "{message}");
    let mut wrong = of_app();
    wrong["target"]["environment"] = json!("nowhere");
    let reply = save(&live, "which", &wrong);
    assert_eq!(reply.refusal(), (400, "unknown_environment".to_owned()));
    // What has the wrong shape is said where it is, in words.
    for (at, value, said) in [
        (
            "/arms/1/weight",
            json!("50"),
            "this must be a number, not the text \"50\"",
        ),
        (
            "/metric/kind",
            json!("latancy"),
            "\"latancy\" is not known here; did you mean \"latency\"?",
        ),
        ("/arms/0/name", json!(null), "this must be a text, not null"),
    ] {
        let mut wrong = of_app();
        *wrong.pointer_mut(at).unwrap() = value;
        let error = save(&live, "which", &wrong).json()["error"].clone();
        assert_eq!(error["at"], at, "{error}");
        assert_eq!(error["message"], format!("{at}: {said}"));
    }
    assert_eq!(save(&live, "which", &of_app()).status, 201);
    let started = live.post(&experiment("which", "/start"), &json!({}));
    assert_eq!(started.status, 201, "{started:?}");
    assert_eq!(started.json()["target"], "app:geo@dev");

    let mut arms: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for user in 0..20 {
        let user = format!("user{user}");
        let (first, arm) = call_app(&live, &place, &user);
        let (second, again) = call_app(&live, &place, &user);
        assert_eq!(arm, again, "{user} changed sides");
        arms.entry(arm).or_default().extend([first, second]);
    }
    assert_eq!(arms.len(), 2, "both releases serve: {arms:?}");
    for (arm, traces) in &arms {
        let value = if *arm == "candidate" { 1 } else { -1 };
        for trace in traces {
            let score = json!({"trace_id": trace, "name": "thumbs", "value": value});
            assert_eq!(live.post("/api/v1/scores", &score).status, 201);
        }
    }
    let results = live.wait_for(&experiment("which", "/results"), |value| {
        let scored = |arm: usize| {
            let figures = &value["results"]["arms"][arm]["figures"];
            figures[0]["units"].as_u64().unwrap_or(0)
        };
        scored(0) + scored(1) == 20
    });
    for (index, (name, mean)) in [("control", -1.0), ("candidate", 1.0)]
        .into_iter()
        .enumerate()
    {
        let arm = &results["results"]["arms"][index];
        let calls = arms[name].len();
        assert_eq!(
            (&arm["name"], &arm["calls"], &arm["units"]),
            (&json!(name), &json!(calls), &json!(calls / 2)),
            "steps of a call are not counted again: {arm}"
        );
        assert_eq!(arm["figures"][0]["mean"], mean);
    }
    let person = live.browser_of(&place.add_person("default", "editor"));
    let page = person.get("/default/experiments/show?name=which").text();
    for text in ["app:geo@dev", "Not enough data", "Promote candidate"] {
        assert!(page.contains(text), "{text} is not on the page: {page}");
    }

    // Stopping goes back to the environment's release, for everybody.
    let stopped = live.post(&experiment("which", "/stop"), &json!({"reason": "a pause"}));
    assert_eq!(stopped.json()["state"], "stopped", "{stopped:?}");
    for user in 0..6 {
        assert_eq!(call_app(&live, &place, &format!("user{user}")).1, "control");
    }
    // Promoting moves it.
    let again = live.post(&experiment("which", "/start"), &json!({}));
    assert_eq!(again.status, 201, "{again:?}");
    let promoted = live.post(
        &experiment("which", "/promote"),
        &json!({"arm": "candidate"}),
    );
    assert_eq!(promoted.status, 200, "{promoted:?}");
    for user in 0..6 {
        assert_eq!(
            call_app(&live, &place, &format!("user{user}")).1,
            "candidate"
        );
    }
    let pointers = live.get("/api/v1/catalog/release/geo/pointers").json();
    assert_eq!(pointers["items"][0]["version"], 2, "{pointers}");
}

fn a_policy_is_split_and_measured_by_what_it_blocks(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let versions = "/api/v1/catalog/guard/house%2Frules/versions";
    for word in ["plan", "secret"] {
        let content = json!({"applies_to": {"everything": true}, "rules": [{"name": "word", "at": ["input"],
            "check": {"type": "words", "list": [word]}, "action": {"type": "block"}}]});
        let saved = live.post(versions, &json!({"content": content}));
        assert_eq!(saved.status, 201, "{saved:?}");
    }
    let label = "/api/v1/catalog/guard/house%2Frules/pointers/production";
    assert_eq!(live.put(label, &json!({"version": 1})).status, 200);
    let mut document = document();
    document["target"] = json!({"kind": "guard", "name": "house/rules"});
    document["metric"] = json!({"kind": "blocked_rate"});
    let mut shadow = document.clone();
    shadow["mode"] = json!("shadow");
    shadow["arms"][0]["weight"] = Value::Null;
    let refused = save(&live, "stricter", &shadow).json();
    assert_eq!(refused["error"]["at"], "/mode", "{refused}");
    assert_eq!(save(&live, "stricter", &document).status, 201);
    let started = live.post(&experiment("stricter", "/start"), &json!({}));
    assert_eq!(started.status, 201, "{started:?}");
    assert_eq!(
        started.json()["target"],
        "guard:house/rules@production",
        "{started:?}"
    );
    let mut refused = 0;
    for user in 0..24 {
        let mut request = question("the plan");
        request["meguri"] = json!({"user": format!("user{user}")});
        let ask = || live.post("/v1/chat/completions", &request).status;
        let (first, again) = (ask(), ask());
        assert_eq!(first, again, "user{user} changed sides");
        assert!([200, 400].contains(&first));
        refused += u64::from(first == 400);
    }
    assert!((1..24).contains(&refused), "{refused}");
    let results = live.wait_for(&experiment("stricter", "/results"), |value| {
        let arms = &value["results"]["arms"];
        let units = |arm: usize| arms[arm]["units"].as_u64().unwrap_or(0);
        units(0) + units(1) == 24
    });
    let arms = &results["results"]["arms"];
    let of = |arm: usize| {
        (
            &arms[arm]["figures"][0]["metric"],
            &arms[arm]["figures"][0]["mean"],
        )
    };
    let (rate, one, none) = (json!("blocked_rate"), json!(1.0), json!(0.0));
    assert_eq!(arms[0]["units"], refused);
    assert_eq!((of(0), of(1)), ((&rate, &one), (&rate, &none)), "{arms}");
    // The label stands where it stood, and holds again when the run is over.
    let ended = live.post(
        &experiment("stricter", "/stop"),
        &json!({"reason": "seen enough"}),
    );
    assert_eq!(ended.status, 200, "{ended:?}");
    let mut request = question("the plan");
    request["meguri"] = json!({"user": "user0"});
    assert_eq!(live.post("/v1/chat/completions", &request).status, 400);
}

fn a_release_stands_in_the_shadow_of_another(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let mut second = answering("prompt:geo/answer@2");
    second["tools"] = json!({"mail": {"type": "http", "method": "POST",
        "url": format!("{}/mail", place.fake.url()), "dry": {"sent": "as if"}}});
    second["steps"][0]["after"] = json!(["tell"]);
    let tell = json!({"id": "tell", "type": "tool", "tool": "mail"});
    second["steps"].as_array_mut().unwrap().insert(0, tell);
    make_app(&live, &second);
    place.fake.when("release one", Answer::text("served"));
    place.fake.when("release two", Answer::text("unseen"));
    let mut shadow = of_app();
    shadow["mode"] = json!("shadow");
    shadow["arms"] = json!([{"name": "control", "version": 1}, {"name": "candidate", "version": 2, "weight": 1.0}]);
    shadow["metric"] = json!({"kind": "latency"});
    assert_eq!(save(&live, "dark", &shadow).status, 201);
    let started = live.post(&experiment("dark", "/start"), &json!({}));
    assert_eq!(started.status, 201, "{started:?}");

    let mut traces = Vec::new();
    for user in 0..4 {
        let reply = ask_app(&live, &format!("user{user}"));
        assert_eq!(reply.header("x-meguri-release").as_deref(), Some("geo@1"));
        let text = reply.text();
        assert!(
            text.contains("served") && !text.contains("unseen"),
            "{text}"
        );
        traces.push(reply.header("x-meguri-trace-id").unwrap());
    }
    // The call with its step, and its copy with two: all in one trace.
    let trace = live.wait_for(&format!("/api/v1/traces/{}", traces[0]), |found| {
        found["spans"]
            .as_array()
            .is_some_and(|spans| spans.len() == 5)
    });
    assert!(trace.to_string().contains("unseen"), "{trace}");
    let results = live.wait_for(&experiment("dark", "/results"), |value| {
        value["results"]["pairs"]
            .as_array()
            .is_some_and(|pairs| pairs.len() == 4)
    });
    let shown = &results["results"];
    for arm in 0..2 {
        assert_eq!(shown["arms"][arm]["calls"], 4, "{shown}");
    }
    assert!(
        place.fake.seen().iter().all(|it| it.path != "/mail"),
        "a copy calls no tool"
    );
    let person = live.browser_of(&place.add_person("default", "viewer"));
    let page = person.get("/default/experiments/show?name=dark");
    assert_eq!(page.status, 200);
    // A shadow that fails is the shadow's failure.
    place.fake.when("release two", Answer::status(500, "{}"));
    for user in 0..3 {
        assert!(
            ask_app(&live, &format!("user{user}"))
                .text()
                .contains("served")
        );
    }
    let stopped = live.post(&experiment("dark", "/stop"), &json!({}));
    assert_eq!(stopped.json()["state"], "stopped", "{stopped:?}");
}

#[test]
fn the_form_makes_and_the_command_runs_an_experiment() {
    let place = Place::new();
    let live = place.start();
    make_prompt(&live);
    let person = live.browser_of(&place.add_person("default", "editor"));
    assert_eq!(person.get("/default/experiments/new").status, 200);
    let fields = |share: &'static str| {
        [
            ("name", "form/made"),
            ("kind", "prompt"),
            ("target", PROMPT),
            ("pointer", "production"),
            ("mode", "split"),
            ("unit", "session"),
            ("control", "1"),
            ("candidate", "v2"),
            ("share", share),
            ("metric", "latency"),
            ("guard", "error_rate"),
            ("guard_direction", "above"),
            ("guard_limit", "10"),
            ("minimum_sample", "500"),
            ("alpha", "5"),
            ("equivalence", "3"),
        ]
    };
    let refused = person.form("/default/experiments", &fields("lots"));
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("is not a number"), "{refused:?}");
    let made = person.form("/default/experiments", &fields("20"));
    assert_eq!(made.status, 303, "{made:?}");
    let shown = live.get(&experiment("form/made", "")).json();
    let content = &shown["content"];
    assert_eq!(
        content["arms"][1],
        json!({"name": "candidate", "version": 2, "weight": 20.0})
    );
    assert_eq!(
        (&content["unit"], &content["equivalence"]),
        (&json!("session"), &json!(0.03))
    );
    assert_eq!(content["guards"][0]["limit"], 0.1);
    let page = person
        .get("/default/experiments/show?name=form%2Fmade")
        .text();
    assert!(page.contains("Not started yet"), "{page}");

    place
        .meguri(&["experiment", "start", "form/made", "--reason", "by hand"])
        .assert_done();
    live.wait_for(&experiment("form/made", ""), |value| {
        value["runs"][0]["state"] == "running"
    });
    let listed = place.meguri(&["experiment", "list", "--json"]).json();
    assert_eq!(listed["items"][0]["run"]["state"], "running");
    let figures = place
        .meguri(&["experiment", "show", "form/made", "--json"])
        .json();
    assert_eq!(figures["results"]["arms"][0]["calls"], 0);
    place
        .meguri(&["experiment", "show", "form/made"])
        .assert_done();
    place
        .meguri(&["experiment", "stop", "form/made"])
        .assert_done();
    assert_eq!(place.meguri(&["experiment", "stop", "form/made"]).code, 1);
    assert_eq!(place.meguri(&["experiment", "show", "nothing"]).code, 3);
    let ended = person.get("/default/experiments/show?name=form%2Fmade");
    assert_eq!(ended.status, 200, "{ended:?}");
}
