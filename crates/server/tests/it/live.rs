//! Live evaluation over HTTP: traffic is drawn, judged once, limited, held, and survives kills.

use db::sqlx::query;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::harness::{Client, Place, encode, on_both_databases};

on_both_databases!(
    traffic_is_scored_beside_feedback_and_judges_are_not_judged,
    a_trace_is_paid_for_once_whatever_dies,
    limits_leave_traces_out_and_say_so,
    it_is_held_and_goes_on_and_an_older_version_counts_again,
    documents_are_refused_where_they_are_wrong
);

/// A judge by the fake provider, saved under its criterion's name.
fn save_judge(client: &Client, name: &str) {
    let content = json!({
        "type": "judge", "model": "fake/fake-judge", "allow_same_family": true,
        "criteria": [{"name": name, "description": format!("how {name} it is")}],
    });
    let path = format!("/api/v1/catalog/evaluator/{name}/versions");
    let reply = client.post(&path, &json!({"content": content}));
    assert!(reply.status < 300, "{reply:?}");
}

fn verdict(word: &str) -> Answer {
    Answer::text(json!({"reason": "because", "verdict": word}).to_string())
}

fn save(client: &Client, name: &str, evaluator: &str, more: Value) -> Value {
    let mut content = json!({"evaluator": format!("evaluator:{evaluator}@latest"), "score": name});
    for (field, value) in more.as_object().unwrap() {
        content[field] = value.clone();
    }
    let body = json!({"name": format!("watch/{name}"), "content": content});
    let reply = client.post("/api/v1/live-evaluations", &body);
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/live-evaluations/watch%2F{name}{rest}")
}

/// Waits until this many traces were judged, one way or another, and none is being judged.
fn wait(client: &Client, name: &str, judged: i64) -> Value {
    client.wait_for(&path(name, ""), |shown| {
        let figures = &shown["live_evaluation"]["last_day"];
        let count = |field: &str| figures[field].as_i64().unwrap();
        count("scored") + count("unscored") + count("errors") >= judged && count("pending") == 0
    })
}

fn figure(shown: &Value, field: &str) -> i64 {
    shown["live_evaluation"]["last_day"][field]
        .as_i64()
        .unwrap()
}

fn ask(client: &Client, text: &str, team: &str) -> String {
    client.chat(&json!({
        "model": "fake/fake-large", "messages": [{"role": "user", "content": text}],
        "meguri": {"tags": {"team": team}},
    }))
}

/// How often the judge was asked about this text.
fn judged(place: &Place, text: &str) -> usize {
    let seen = place.fake.seen();
    let bodies = seen.iter().map(|seen| String::from_utf8_lossy(&seen.body));
    bodies
        .filter(|body| body.contains("material to judge") && body.contains(text))
        .count()
}

fn traffic_is_scored_beside_feedback_and_judges_are_not_judged(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    place.fake.always(Answer::text("hello"));
    place.fake.when("how kind it is", verdict("H"));
    save_judge(&live, "kind");
    let saved = save(
        &live,
        "kind",
        "kind",
        json!({"filter": "tag.team = \"search\""}),
    );
    assert_eq!(
        (&saved["state"], &saved["content"]["sample"]),
        (&json!("running"), &json!(1.0))
    );
    let digest = saved["evaluator"]["digest"].as_str().unwrap().to_owned();
    let all = json!({"type": "metric", "metric": {"id": "regex", "pattern": "hello"}});
    let reply = live.post(
        "/api/v1/catalog/evaluator/greets/versions",
        &json!({"content": all}),
    );
    assert!(reply.status < 300, "{reply:?}");
    save(&live, "greets", "greets", json!({}));

    let traces: Vec<String> = (0..3)
        .map(|n| ask(&live, &format!("search {n}"), "search"))
        .collect();
    for n in 0..2 {
        ask(&live, &format!("other {n}"), "support");
    }
    let shown = wait(&live, "kind", 3);
    assert_eq!(
        (figure(&shown, "seen"), figure(&shown, "scored")),
        (3, 3),
        "{shown:#}"
    );
    let mean = shown["live_evaluation"]["last_day"]["mean"].as_f64();
    assert_eq!(mean, Some(8.0), "{shown:#}");
    assert_eq!(shown["hours"].as_array().unwrap().len(), 1, "{shown:#}");

    // On the trace it stands beside what a person thinks, and says what gave it.
    let thumbs = json!({"trace_id": traces[0], "name": "thumbs", "value": true});
    assert_eq!(live.post("/api/v1/scores", &thumbs).status, 201);
    let scores = live
        .get(&format!("/api/v1/scores?trace_id={}", traces[0]))
        .json();
    let named = |name: &str| {
        let items = scores["items"].as_array().unwrap();
        items
            .iter()
            .find(|score| score["name"] == name)
            .unwrap()
            .clone()
    };
    let kind = named("kind");
    assert_eq!(
        (kind["value"].as_f64(), &kind["source"], &kind["comment"]),
        (Some(8.0), &json!("judge"), &json!("because")),
        "{scores:#}"
    );
    let short = &digest.strip_prefix("sha256:").unwrap()[..12];
    assert_eq!(kind["author"], format!("evaluator:kind@{short}"));
    assert_eq!(named("thumbs")["value"], 1.0);
    // Filters, and so experiments, decide by it.
    let found = live
        .get(&format!(
            "/api/v1/traces?filter={}",
            encode("score.kind > 7")
        ))
        .json();
    assert_eq!(found["items"].as_array().unwrap().len(), 3, "{found:#}");

    // The one without a filter saw the five calls, and none of the judge's three.
    let greeted = wait(&live, "greets", 5);
    ask(&live, "one more", "support");
    let greeted = match figure(&greeted, "seen") {
        5 => wait(&live, "greets", 6),
        seen => panic!("{seen} calls: {greeted:#}"),
    };
    assert_eq!(
        (figure(&greeted, "seen"), figure(&greeted, "scored")),
        (6, 6),
        "{greeted:#}"
    );
    assert_eq!(judged(&place, "search"), 3);
    // The judge's call is a trace of its own, apart from real traffic.
    let rows = live.get(&path("kind", "/traces?state=scored")).json();
    let row = &rows["items"][0];
    let judge = row["judge_trace_id"].as_str().unwrap();
    let call = live.get(&format!("/api/v1/traces/{judge}")).json();
    let root = &call["spans"][0];
    assert_eq!(root["environment"], "evaluation", "{call:#}");
    assert_eq!(root["tags"]["live_evaluation"], "watch/kind", "{call:#}");

    // What fails is counted and visible.
    place
        .fake
        .when("how kind it is", Answer::text("Very kind, I would say."));
    ask(&live, "search prose", "search");
    place.fake.when(
        "search broken",
        Answer::status(400, r#"{"error": {"message": "no"}}"#),
    );
    let broken = json!({
        "model": "fake/fake-large", "messages": [{"role": "user", "content": "search broken"}],
        "meguri": {"tags": {"team": "search"}},
    });
    assert_eq!(live.post("/v1/chat/completions", &broken).status, 400);
    let shown = wait(&live, "kind", 5);
    assert_eq!(
        (figure(&shown, "unscored"), figure(&shown, "errors")),
        (1, 1),
        "{shown:#}"
    );
    let rows = live.get(&path("kind", "/traces?state=unscored")).json();
    let reason = rows["items"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("no JSON object"), "{reason}");

    // Pages; another project sees nothing.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let text = |path: &str| {
        let reply = browser.get(path);
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.text().replace("&#x2f;", "/")
    };
    assert!(text("/default/live").contains("watch/kind"));
    let page = text("/default/live/show?name=watch%2Fkind");
    assert!(
        page.contains("no JSON object") && page.contains(&traces[0][..8]),
        "{page}"
    );
    assert!(text("/default/live/edit?name=watch%2Fkind").contains("tag.team"));
    assert!(text("/default/live/edit").contains("evaluator:kind@latest"));
    assert!(text("/default/").contains("watch/kind"));
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "admin").1);
    assert_eq!(other.get(&path("kind", "")).status, 404);
    assert_eq!(other.get(&path("kind", "/traces")).status, 404);
    assert_eq!(other.post(&path("kind", "/pause"), &json!({})).status, 404);
}

/// Changes the database as a story needs it: statements with what is bound to them.
fn change(place: &Place, statements: &[(&'static str, &[&str])]) {
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        for (statement, values) in statements {
            let mut statement = query(*statement);
            for value in *values {
                statement = statement.bind((*value).to_owned());
            }
            statement.execute(tx.conn()).await.unwrap();
        }
        tx.commit().await.unwrap();
    });
}

fn a_trace_is_paid_for_once_whatever_dies(place: Place) {
    let place = place.add_fake().with_key("editor");
    let mut live = place.start();
    place.fake.always(Answer::text("hello"));
    place.fake.when("how kind it is", verdict("H"));
    // Of this call the judge never answers, so that the server dies in the middle of it.
    place
        .fake
        .when("question of somebody", Answer::text("stalls"));
    place
        .fake
        .when("stalls", Answer::faulty(Fault::StallBeforeHeaders));
    save_judge(&live, "kind");
    save(&live, "kind", "kind", json!({}));
    let mut traces: Vec<String> = (0..5).map(|n| ask(&live, &format!("Q{n}?"), "a")).collect();
    // Its answer holds the word that makes the judge's call stall.
    let stalled = ask(&live, "a question of somebody", "a");
    let shown = live.wait_for(&path("kind", ""), |shown| {
        figure(shown, "scored") == 5 && figure(shown, "pending") == 1
    });
    assert_eq!(figure(&shown, "seen"), 6, "{shown:#}");
    while judged(&place, "stalls") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    live.signal("-KILL");
    live.wait();
    // As if some results had reached telemetry and not the database any more, and as if the
    // position had not moved past any of them.
    let lost = "UPDATE live_scores SET state = 'asked', value = NULL, judge = NULL, cost = 0 \
                WHERE trace IN ($1, $2)";
    let back = "UPDATE live_positions SET position = 0";
    change(&place, &[(lost, &[&traces[0], &traces[1]]), (back, &[])]);
    let live = place.start();
    traces.push(ask(&live, "Q9?", "a"));
    let shown = wait(&live, "kind", 7);
    assert_eq!(
        (figure(&shown, "scored"), figure(&shown, "unscored")),
        (6, 1),
        "{shown:#}"
    );
    assert_eq!(figure(&shown, "known"), 6, "{shown:#}");
    for n in [0, 1, 2, 3, 4, 9] {
        assert_eq!(judged(&place, &format!("Q{n}?")), 1, "Q{n}");
    }
    assert_eq!(judged(&place, "stalls"), 1);
    let rows = live.get(&path("kind", "/traces?state=unscored")).json();
    assert_eq!(rows["items"][0]["trace_id"], stalled, "{rows:#}");
    let reason = rows["items"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("not paid for twice"), "{reason}");
    for trace in &traces {
        let scores = live.get(&format!("/api/v1/scores?trace_id={trace}")).json();
        assert_eq!(scores["items"].as_array().unwrap().len(), 1, "{scores:#}");
    }

    // Somebody else has the lease: nothing is claimed until it runs out, and then once.
    let taken = "UPDATE live_workers SET holder = 'other', fence = fence + 1, \
                 lease_until = 9223372036854775807";
    change(&place, &[(taken, &[])]);
    let trace = ask(&live, "Q10?", "a");
    live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    change(&place, &[("UPDATE live_workers SET lease_until = 0", &[])]);
    wait(&live, "kind", 8);
    assert_eq!(judged(&place, "Q10?"), 1);

    // A clean end gives the lease back, and a start goes on where it was.
    let mut live = live;
    live.signal("-TERM");
    assert_eq!(live.wait(), 0);
    let live = place.start();
    ask(&live, "Q11?", "a");
    let shown = wait(&live, "kind", 9);
    assert_eq!(figure(&shown, "scored"), 8, "{shown:#}");
    assert_eq!(judged(&place, "Q10?") + judged(&place, "Q11?"), 2);
}

fn limits_leave_traces_out_and_say_so(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    place.fake.always(Answer::text("hello"));
    place.fake.when("how kind it is", verdict("H"));
    place.fake.when("how dear it is", verdict("H"));
    for name in ["kind", "dear"] {
        save_judge(&live, name);
    }
    let of_team = |team: &str| format!("tag.team = \"{team}\"");
    let limits = json!({"filter": of_team("rate"), "max_per_hour": 2});
    save(&live, "kind", "kind", limits);
    for n in 0..5 {
        ask(&live, &format!("rate {n}"), "rate");
    }
    let seen = |count: i64| move |shown: &Value| figure(shown, "seen") == count;
    live.wait_for(&path("kind", ""), seen(5));
    let shown = wait(&live, "kind", 2);
    assert_eq!(
        (figure(&shown, "scored"), figure(&shown, "over_rate")),
        (2, 3),
        "{shown:#}"
    );

    // Nobody knows the price, so that a budget cannot be kept: the first one shows it.
    let limits = json!({"filter": of_team("money"), "budget_usd_per_day": 0.05});
    save(&live, "dear", "dear", limits);
    for n in 0..3 {
        ask(&live, &format!("money {n}"), "money");
    }
    let shown = live.wait_for(&path("dear", ""), seen(3));
    assert_eq!(
        (figure(&shown, "scored"), figure(&shown, "over_budget")),
        (1, 2),
        "{shown:#}"
    );
    let page = live
        .browser_of(&place.add_person("default", "viewer"))
        .get("/default/live/show?name=watch%2Fdear");
    assert!(page.text().contains("price"), "{}", page.text());
    // With a price, and let go on again, it spends what it may and no more.
    let admin = live.with_key(&place.make_key("default", "admin").1);
    let row = json!({"provider": "fake", "model": "*", "input_usd": 1000.0, "output_usd": 1000.0});
    assert!(admin.put("/api/v1/prices", &row).status < 300);
    for verb in ["/pause", "/resume"] {
        assert_eq!(live.post(&path("dear", verb), &json!({})).status, 200);
    }
    for n in 3..10 {
        ask(&live, &format!("money {n}"), "money");
    }
    live.wait_for(&path("dear", ""), seen(10));
    let shown = wait(&live, "dear", 2);
    let spent = shown["live_evaluation"]["last_day"]["spent_usd"]
        .as_f64()
        .unwrap();
    assert!(spent > 0.0 && spent <= 0.05, "{shown:#}");
    assert!(figure(&shown, "over_budget") > 2, "{shown:#}");

    // A sample of nothing draws nothing; one of everything was drawn above.
    save(
        &live,
        "never",
        "kind",
        json!({"filter": of_team("nought"), "sample": 0}),
    );
    ask(&live, "nought", "nought");
    let shown = live.wait_for(&path("never", ""), seen(1));
    assert_eq!(figure(&shown, "drawn"), 0, "{shown:#}");
    assert_eq!(judged(&place, "nought"), 0);
    // The same evaluator judges a trace once, whoever asks for it.
    save(
        &live,
        "again",
        "kind",
        json!({"filter": of_team("twice"), "max_per_hour": 50}),
    );
    save(
        &live,
        "twice",
        "kind",
        json!({"filter": of_team("twice"), "max_per_hour": 50}),
    );
    ask(&live, "the second", "twice");
    live.wait_for(&path("again", ""), seen(1));
    live.wait_for(&path("twice", ""), seen(1));
    let both = |field: &str| {
        let count = |name: &str| figure(&live.get(&path(name, "")).json(), field);
        count("again") + count("twice")
    };
    assert_eq!(both("known"), 1);
    assert_eq!(judged(&place, "the second"), 1);
}

fn it_is_held_and_goes_on_and_an_older_version_counts_again(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    place.fake.always(Answer::text("hello"));
    place.fake.when("how kind it is", verdict("H"));
    save_judge(&live, "kind");
    save(&live, "kind", "kind", json!({"description": "first"}));
    ask(&live, "before", "a");
    wait(&live, "kind", 1);
    let held = live.post(&path("kind", "/pause"), &json!({"reason": "too dear"}));
    assert_eq!(
        (&held.json()["state"], &held.json()["held"]["reason"]),
        (&json!("paused"), &json!("too dear")),
        "{held:?}"
    );
    let again = live.post(&path("kind", "/pause"), &json!({}));
    assert_eq!(again.refusal(), (409, "wrong_state".to_owned()));
    let meanwhile = ask(&live, "meanwhile", "a");
    live.wait_for(&format!("/api/v1/traces/{meanwhile}"), |_| true);
    let resumed = live.post(&path("kind", "/resume"), &json!({}));
    assert_eq!(resumed.json()["state"], "running", "{resumed:?}");
    ask(&live, "after", "a");
    let shown = wait(&live, "kind", 2);
    assert_eq!(
        (figure(&shown, "scored"), judged(&place, "meanwhile")),
        (2, 0),
        "{shown:#}"
    );

    // Off is a version; saving the first one again, word for word, makes that one count.
    let off = save(
        &live,
        "kind",
        "kind",
        json!({"description": "first", "enabled": false}),
    );
    assert_eq!((&off["state"], &off["version"]), (&json!("off"), &json!(2)));
    let on = save(&live, "kind", "kind", json!({"description": "first"}));
    assert_eq!(
        (&on["state"], &on["version"]),
        (&json!("running"), &json!(1))
    );
    ask(&live, "on again", "a");
    wait(&live, "kind", 3);
    // A new version counts before an old one that was chosen.
    let new = save(&live, "kind", "kind", json!({"description": "third"}));
    assert_eq!(new["version"], 3, "{new:#}");
    // A changed evaluator is another instrument: its scores have another author.
    let content = json!({
        "type": "judge", "model": "fake/fake-judge", "allow_same_family": true, "samples": 1,
        "criteria": [{"name": "kind", "description": "how kind it is, really"}],
    });
    let reply = live.post(
        "/api/v1/catalog/evaluator/kind/versions",
        &json!({"content": content}),
    );
    assert!(reply.status < 300, "{reply:?}");
    let shown = live.get(&path("kind", "")).json();
    assert_eq!(shown["live_evaluation"]["evaluator"]["version"], 2);
    // Its name deleted, it cannot work, and that is said.
    let gone = live.delete("/api/v1/catalog/evaluator/kind?force=true");
    if gone.status < 300 {
        let shown = live.get(&path("kind", "")).json();
        assert_eq!(shown["live_evaluation"]["state"], "stuck", "{shown:#}");
    }
}

fn documents_are_refused_where_they_are_wrong(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    save_judge(&live, "kind");
    let pairs = json!({
        "type": "judge", "model": "fake/fake-judge", "mode": "pairwise",
        "criteria": [{"name": "a", "description": "b"}],
    });
    let reply = live.post(
        "/api/v1/catalog/evaluator/pairs/versions",
        &json!({"content": pairs}),
    );
    assert!(reply.status < 300, "{reply:?}");
    let refused = |change: Value, code: &str, at: &str| {
        let mut content = json!({"evaluator": "evaluator:kind@latest", "score": "kind"});
        for (field, value) in change.as_object().unwrap() {
            content[field] = value.clone();
        }
        let body = json!({"name": "x", "content": content});
        let reply = live.post("/api/v1/live-evaluations", &body);
        assert_eq!(reply.refusal(), (400, code.to_owned()), "{reply:?}");
        assert_eq!(reply.json()["error"]["at"], at, "{reply:?}");
    };
    let invalid = "invalid_document";
    refused(json!({"filter": "nonsense ="}), invalid, "/filter");
    refused(json!({"filter": "score.thumbs > 0"}), invalid, "/filter");
    refused(json!({"sample": 1.5}), invalid, "/sample");
    refused(json!({"max_per_hour": 0}), invalid, "/max_per_hour");
    refused(
        json!({"budget_usd_per_day": 0}),
        invalid,
        "/budget_usd_per_day",
    );
    refused(json!({"score": "thumbs"}), invalid, "/score");
    refused(json!({"score": ""}), invalid, "/score");
    refused(
        json!({"evaluator": "prompt:x@latest"}),
        invalid,
        "/evaluator",
    );
    refused(json!({"nonsense": 1}), invalid, "");
    let unusable = "unusable_evaluator";
    refused(
        json!({"evaluator": "evaluator:none@latest"}),
        unusable,
        "/evaluator",
    );
    refused(
        json!({"evaluator": "evaluator:pairs@latest"}),
        unusable,
        "/evaluator",
    );
    let bad = live.get(&path("none", ""));
    assert_eq!(bad.refusal(), (404, "live_evaluation_not_found".to_owned()));
    // The form says the same beside its fields.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let fields = [
        ("name", "x"),
        ("is_new", "1"),
        ("evaluator", "evaluator:kind@latest"),
        ("score", "kind"),
        ("filter", "nonsense ="),
        ("sample", "half"),
        ("max_per_hour", "5"),
    ];
    let reply = browser.form("/default/live/edit", &fields);
    assert_eq!(reply.status, 422, "{reply:?}");
    let page = reply.text();
    assert!(
        page.contains("h-filter") && page.contains("h-sample"),
        "{page}"
    );
}
