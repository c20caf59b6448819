//! Moving what is protected: proposals, approvals, quarantine and rollback, over
//! HTTP and on the command line. The rules themselves are tested in `db`.

use serde_json::{Value, json};

use crate::harness::{Client, Live, Place, on_both_databases, question};

on_both_databases!(
    a_protected_label_waits_for_somebody_else,
    a_rollback_is_in_effect_on_the_next_request,
    the_command_line_approves_and_rolls_back,
    two_approvals_at_once_move_once,
    environments_deliver_by_themselves,
);

const LABEL: &str = "/api/v1/prompts/geo/labels/production";
const ROLLBACK: &str = "/api/v1/catalog/prompt/geo/pointers/production/rollback";

/// A prompt with two versions; the first is in production.
fn begin(place: &Place) -> Live {
    let live = place.start();
    for text in ["first", "second"] {
        let body =
            json!({"name": "geo", "content": {"messages": [{"role": "system", "content": text}]}});
        assert_eq!(live.post("/api/v1/prompts", &body).status, 201);
    }
    done(live.put(LABEL, &json!({"version": 1})));
    live
}

fn done(reply: crate::harness::Reply) -> Value {
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    reply.json()
}

fn protect(client: &Client, label: &str, rules: &Value) {
    let path = format!("/api/v1/protections/{label}");
    done(client.put(&path, &json!({"rules": rules})));
}

fn propose(client: &Client, version: i64) -> Value {
    let wanted = json!({"kind": "prompt", "name": "geo", "label": "production", "version": version, "reason": "shorter"});
    done(client.post("/api/v1/proposals", &wanted))
}

fn approve(client: &Client, id: &Value) -> crate::harness::Reply {
    let path = format!("/api/v1/proposals/{}/approve", id.as_str().unwrap());
    client.post(&path, &json!({"reason": "read it"}))
}

/// What a call with the prompt is served at this moment.
fn served(place: &Place, live: &Live) -> Value {
    let mut request = question("hello");
    request["meguri"] = json!({"prompt": "geo"});
    let reply = live.post("/v1/chat/completions", &request);
    assert_eq!(reply.status, 200, "{reply:?}");
    place.fake.seen().pop().unwrap().json()["messages"][0]["content"].clone()
}

fn a_protected_label_waits_for_somebody_else(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = begin(&place);
    let [admin, owner, editor] = ["admin", "product_owner", "editor"]
        .map(|role| live.browser_of(&place.add_person("default", role)));
    let admin_key = live.with_key(&place.make_key("default", "admin").1);
    protect(
        &admin,
        "production",
        &json!({"approvals": 1, "approver_roles": ["product_owner"]}),
    );
    let refused = live.put(LABEL, &json!({"version": 2}));
    assert_eq!(refused.refusal(), (409, "label_protected".to_owned()));
    let asked = propose(&editor, 2);
    assert_eq!(asked["moved"], Value::Null);
    let id = &asked["proposal"]["id"];
    assert_eq!(propose(&editor, 2)["proposal"]["id"], *id);
    assert_eq!(served(&place, &live), "first");

    assert_eq!(
        approve(&editor, id).refusal(),
        (403, "forbidden".to_owned())
    );
    assert_eq!(
        approve(&admin, id).refusal(),
        (403, "wrong_role".to_owned())
    );
    assert_eq!(
        approve(&admin_key, id).refusal(),
        (403, "not_a_person".to_owned())
    );
    let shown = done(owner.get(&format!("/api/v1/proposals/{}", id.as_str().unwrap())));
    assert_eq!(shown["proposal"]["state"], "open");
    assert_eq!(shown["gates"]["passes"], true);
    let approved = done(approve(&owner, id));
    assert_eq!(approved["proposal"]["state"], "applied");
    assert_eq!(approved["moved"]["version"], 2);
    assert_eq!(served(&place, &live), "second");
    assert_eq!(
        approve(&owner, id).refusal(),
        (409, "proposal_ended".to_owned())
    );

    // Who may approve cannot approve what they asked for.
    protect(&admin, "production", &json!({"approvals": 1}));
    let own = propose(&admin, 1);
    let id = &own["proposal"]["id"];
    assert_eq!(
        approve(&admin, id).refusal(),
        (403, "own_change".to_owned())
    );
    let path = format!("/api/v1/proposals/{}/reject", id.as_str().unwrap());
    let rejected = done(owner.post(&path, &json!({"reason": "not today"})));
    assert_eq!(rejected["proposal"]["state"], "rejected");
    assert_eq!(served(&place, &live), "second");
    let waiting = done(owner.get("/api/v1/proposals?waiting=true"));
    assert_eq!(waiting["items"], json!([]));
    let ended = done(owner.get("/api/v1/proposals?waiting=false&kind=prompt&name=geo"));
    assert_eq!(ended["items"].as_array().unwrap().len(), 2);

    // Rules that nobody could satisfy, and changes over somebody else's, are refused.
    for (rules, place) in [
        (json!({"approver_roles": ["viewer"]}), "/approver_roles/0"),
        (json!({"gates": [{"name": "Not a gate"}]}), "/gates/0"),
    ] {
        let refused = admin.put("/api/v1/protections/production", &json!({"rules": rules}));
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(refused.json()["error"]["at"], place);
    }
    let stale = json!({"rules": {}, "expected_revision": 1});
    let refused = admin.put("/api/v1/protections/production", &stale);
    assert_eq!(refused.refusal(), (409, "changed_meanwhile".to_owned()));
    assert_eq!(
        owner.put("/api/v1/protections/production", &stale).status,
        403
    );
}

fn a_rollback_is_in_effect_on_the_next_request(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = begin(&place);
    let [admin, owner] =
        ["admin", "product_owner"].map(|role| live.browser_of(&place.add_person("default", role)));
    let moved = done(live.put(LABEL, &json!({"version": 2})));
    protect(&admin, "production", &json!({"approvals": 2}));
    assert_eq!(served(&place, &live), "second");
    let body = json!({"reason": "it rambles", "expected_revision": moved["revision"]});
    assert_eq!(live.post(ROLLBACK, &body).refusal().0, 403);
    let back = done(owner.post(ROLLBACK, &body));
    assert_eq!(
        (&back["pointer"]["version"], &back["left"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(served(&place, &live), "first");
    // A double click is not a second step back.
    assert_eq!(
        owner.post(ROLLBACK, &body).refusal(),
        (409, "moved_meanwhile".to_owned())
    );

    protect(&admin, "production", &json!({}));
    let refused = live.put(LABEL, &json!({"version": 2}));
    assert_eq!(refused.refusal(), (409, "quarantined".to_owned()));
    let listed = done(owner.get("/api/v1/quarantines?active=true"));
    assert_eq!(listed["items"][0]["reason"], "it rambles");
    let id = listed["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/quarantines/{id}/lift");
    let reason = json!({"reason": "the model was to blame"});
    assert_eq!(owner.post(&path, &reason).status, 403);
    done(admin.post(&path, &reason));
    done(live.put(LABEL, &json!({"version": 2})));
    assert_eq!(served(&place, &live), "second");
}

fn the_command_line_approves_and_rolls_back(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = begin(&place);
    let listed = place.meguri(&["env", "list", "--json"]).json();
    let names: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert_eq!(names, ["dev", "staging", "prod"]);
    // A new project asks for one approval where it matters.
    assert_eq!(listed["items"][2]["protection"]["rules"]["approvals"], 1);
    place
        .meguri(&[
            "env",
            "protect",
            "production",
            "--approvals",
            "1",
            "--gate",
            "eval",
        ])
        .assert_done();
    // Made by a key of the operator's: the operator cannot approve it.
    let by_key = propose(&live, 2);
    let id = by_key["proposal"]["id"].as_str().unwrap();
    let refused = place.meguri(&["proposals", "approve", id]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let withdrawn = live.post(&format!("/api/v1/proposals/{id}/withdraw"), &json!({}));
    assert_eq!(done(withdrawn)["state"], "withdrawn");

    let editor = live.browser_of(&place.add_person("default", "editor"));
    let asked = propose(&editor, 2);
    let id = asked["proposal"]["id"].as_str().unwrap();
    let waiting = place.meguri(&["proposals", "list", "--json"]).json();
    assert_eq!(waiting["items"][0]["id"], id);
    let approved = place.meguri(&["proposals", "approve", id, "--reason", "ok"]);
    assert!(approved.stderr.contains("eval"), "{approved:?}");
    // The evidence that it waited for carries it out.
    let evidence = json!({
        "kind": "prompt", "name": "geo", "digest": asked["proposal"]["digest"], "gate": "eval",
        "outcome": "pass", "detail": {"n": 40}, "link": "https://ci.example.test/1",
    });
    let added = done(live.post("/api/v1/evidence", &evidence));
    assert_eq!(added["proposals"][0]["state"], "applied");
    assert_eq!(served(&place, &live), "second");
    let gates = "/api/v1/gates?kind=prompt&name=geo&version=2&label=production";
    assert_eq!(
        done(live.get(gates))["gates"][0]["evidence"]["detail"]["n"],
        40
    );

    let back = place
        .meguri(&[
            "rollback",
            "prompt:geo@production",
            "--reason",
            "worse",
            "--json",
        ])
        .json();
    assert_eq!((&back["version"], &back["left"]), (&json!(1), &json!(2)));
    let nothing = place.meguri(&["rollback", "prompt:geo@production"]);
    assert_eq!(nothing.code, 1, "{nothing:?}");
    // A running server follows other processes within a quarter of a second.
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    while served(&place, &live) != "first" {
        assert!(std::time::Instant::now() < until);
    }
}

fn two_approvals_at_once_move_once(place: Place) {
    let place = place.with_key("editor");
    let live = begin(&place);
    let admin = live.browser_of(&place.add_person("default", "admin"));
    protect(&admin, "production", &json!({"approvals": 2}));
    let id = propose(&live, 2)["proposal"]["id"].clone();
    let people: Vec<Client> = (0..4)
        .map(|_| live.browser_of(&place.add_person("default", "product_owner")))
        .collect();
    let replies: Vec<_> = std::thread::scope(|scope| {
        let tasks: Vec<_> = people
            .iter()
            .map(|person| scope.spawn(|| approve(person, &id)))
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    let moved = replies
        .iter()
        .filter(|reply| reply.status == 200 && reply.json()["moved"] != Value::Null);
    assert_eq!(moved.count(), 1, "{replies:?}");
    for reply in &replies {
        assert!([200, 409].contains(&reply.status), "{reply:?}");
    }
    let labels = done(live.get("/api/v1/prompts/geo/labels"));
    assert_eq!(labels["items"][0]["revision"], 2);
}

fn environments_deliver_by_themselves(place: Place) {
    let place = place.with_key("editor");
    let live = begin(&place);
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let added = done(admin.post("/api/v1/environments", &json!({"name": "canary"})));
    assert_eq!(added["items"][3]["name"], "canary");
    let order = json!({"names": ["dev", "staging", "canary", "prod"]});
    let ordered = done(admin.put("/api/v1/environments", &order));
    assert_eq!(ordered["items"][2]["name"], "canary");
    let short = json!({"names": ["dev", "prod"]});
    assert_eq!(admin.put("/api/v1/environments", &short).status, 400);
    protect(&admin, "staging", &json!({"delivery": "auto"}));
    protect(
        &admin,
        "canary",
        &json!({"delivery": "auto", "gates": [{"name": "resolves"}]}),
    );
    done(live.put("/api/v1/prompts/geo/labels/dev", &json!({"version": 2})));
    let board = done(live.get("/api/v1/board?kind=prompt"));
    let cells = &board["items"][0]["cells"];
    for at in 0..3 {
        assert_eq!(cells[at]["pointer"]["version"], 2, "{board}");
    }
    assert_eq!(cells[2]["pointer"]["moved_by"], "system");
    assert_eq!(
        (&cells[3]["pointer"], &cells[3]["next"]["version"]),
        (&Value::Null, &json!(2))
    );
}
