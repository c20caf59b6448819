//! Releases in environments: promoted, approved by another person, called,
//! rolled back.

use serde_json::{Value, json};

use crate::apps::{answering, cut, save_app, save_prompt};
use crate::harness::{Client, Live, Place, on_both_databases};

on_both_databases!(
    a_release_goes_to_production_and_back,
    rules_of_environments_are_kept
);

/// A key of an environment, for a program that calls models.
fn key_of(place: &Place, environment: &str) -> String {
    let made = place
        .meguri(&[
            "key",
            "create",
            "--name",
            environment,
            "--env",
            environment,
            "--role",
            "caller",
            "--json",
        ])
        .json();
    made["secret"].as_str().unwrap().to_owned()
}

fn ask(client: &Client, session: Option<&str>) -> (u16, String) {
    let mut request =
        json!({"model": "geo", "messages": [{"role": "user", "content": "Where is Kyoto?"}]});
    if let Some(session) = session {
        request["meguri"] = json!({"session": session});
    }
    let reply = client.post("/v1/chat/completions", &request);
    (
        reply.status,
        reply.header("x-meguri-release").unwrap_or_default(),
    )
}

/// The system message that the provider saw last.
fn seen(place: &Place) -> Value {
    place.fake.seen().pop().unwrap().json()["messages"][0]["content"].clone()
}

/// Sends a form that leads back to a page; the text that the page then says.
fn form(browser: &Client, path: &str, fields: &[(&str, &str)]) -> String {
    let reply = browser.form(path, fields);
    assert_eq!(reply.status, 303, "{path}: {reply:?}");
    browser.get(&reply.header("location").unwrap()).text()
}

fn promote(browser: &Client, label: &str, number: &str, expected: &str) -> String {
    let fields = [
        ("kind", "release"),
        ("name", "geo"),
        ("label", label),
        ("number", number),
        ("expected", expected),
        ("reason", "as tested"),
    ];
    form(browser, "/default/releases/promote", &fields)
}

/// The id of the one proposal that waits.
fn waiting(live: &Live) -> String {
    let found = live.get("/api/v1/proposals").json();
    let waits = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["state"] == "open");
    waits.unwrap_or_else(|| panic!("nothing waits: {found}"))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn a_release_goes_to_production_and_back(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let keys =
        ["dev", "staging", "prod"].map(|environment| live.with_key(&key_of(&place, environment)));
    let [dev, staging, prod] = &keys;
    save_prompt(&live, "geo/answer", "Be brief.");
    save_app(&live, "geo", &answering("prompt:geo/answer@1"));
    assert_eq!(cut(&live, "geo")["version"], 1);
    assert_eq!(ask(dev, None).0, 404, "nothing runs before it is released");

    let maker = live.browser_of(&place.add_person("default", "editor"));
    let owner = live.browser_of(&place.add_person("default", "product_owner"));
    promote(&maker, "dev", "1", "0");
    let (status, release) = ask(dev, None);
    assert_eq!(
        (status, seen(&place)),
        (200, json!("Be brief.")),
        "{release}"
    );
    assert_eq!(ask(staging, None).0, 404);
    promote(&maker, "staging", "1", "0");
    assert_eq!(ask(staging, None).0, 200);

    // Production asks for somebody else: its maker cannot approve, the owner can.
    let said = promote(&maker, "prod", "1", "0");
    assert_eq!(ask(prod, None).0, 404, "{said}");
    let id = waiting(&live);
    let inbox = maker.get("/default/approvals").text();
    assert!(inbox.contains("your own proposal"), "{inbox}");
    let decide = |browser: &Client, verdict: &str, id: &str| {
        browser.form(
            "/default/approvals/decide",
            &[("id", id), ("verdict", verdict), ("reason", "looks right")],
        )
    };
    assert_eq!(decide(&maker, "approve", &id).status, 403);
    let inbox = owner.get("/default/approvals").text();
    assert!(inbox.contains("value=\"approve\""), "{inbox}");
    assert_eq!(decide(&owner, "approve", &id).status, 303);
    assert_eq!(ask(prod, None).0, 200, "in effect on the next request");
    assert_eq!(ask(prod, Some("talk-1")).0, 200);

    // A second release, all the way.
    save_prompt(&live, "geo/answer", "Be exact.");
    save_app(&live, "geo", &answering("prompt:geo/answer@2"));
    assert_eq!(cut(&live, "geo")["version"], 2);
    promote(&maker, "dev", "2", "1");
    promote(&maker, "staging", "2", "1");
    let board = owner.get("/default/releases").text().replace("&#x2f;", "/");
    assert!(
        board.contains("r2") && board.contains("/default/apps/diff?name=geo&amp;kind=release"),
        "{board}"
    );
    promote(&maker, "prod", "2", "1");
    assert_eq!(decide(&owner, "approve", &waiting(&live)).status, 303);
    assert_eq!(ask(prod, None).0, 200);
    assert_eq!(seen(&place), "Be exact.");
    // The conversation that began before finishes on its own release.
    assert_eq!(ask(prod, Some("talk-1")).0, 200);
    assert_eq!(seen(&place), "Be brief.");
    assert_eq!(ask(prod, Some("talk-2")).0, 200);
    assert_eq!(seen(&place), "Be exact.");

    // Back at once, without approval; what was left cannot come back.
    let fields = [
        ("kind", "release"),
        ("name", "geo"),
        ("label", "prod"),
        ("to", "1"),
        ("expected", "2"),
        ("reason", "wrong places"),
        ("quarantine", "on"),
    ];
    assert_eq!(
        maker.form("/default/releases/rollback", &fields).status,
        403
    );
    let said = form(&owner, "/default/releases/rollback", &fields);
    assert!(said.contains("r1"), "{said}");
    assert_eq!(ask(prod, None).0, 200);
    assert_eq!(seen(&place), "Be brief.");
    assert_eq!(
        ask(prod, Some("talk-2")).0,
        200,
        "a conversation on a quarantined release finds another"
    );
    assert_eq!(seen(&place), "Be brief.");
    let fields = [
        ("kind", "release"),
        ("name", "geo"),
        ("label", "prod"),
        ("number", "2"),
        ("expected", "3"),
        ("reason", "again"),
    ];
    let refused = maker.form("/default/releases/promote", &fields);
    assert!((400..500).contains(&refused.status), "{refused:?}");
    let board = owner.get("/default/releases").text().replace("&#x2f;", "/");
    assert!(board.contains("wrong places"), "{board}");

    // All of it is in the audit log, and its chain is whole.
    let audit = owner.get("/default/audit?verify=1").text();
    assert!(
        audit.contains("The chain is whole") && audit.contains("wrong places"),
        "{audit}"
    );
    let none = owner.get("/default/audit?action=nothing.at.all").text();
    assert!(none.contains("No line fits"), "{none}");
    let export = owner.get("/default/audit/export");
    let lines: Vec<Value> = export
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() > 10 && lines[0]["seq"] == 1, "{export:?}");
    assert_eq!(maker.get("/default/audit").status, 403);
}

fn rules_of_environments_are_kept(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let admin = live.browser_of(&place.add_person("default", "admin"));
    let page = admin.get("/default/environments").text();
    assert!(
        page.contains("env-dev") && page.contains("env-prod"),
        "{page}"
    );
    let fields = [
        ("label", "staging"),
        ("revision", "0"),
        ("approvals", "2"),
        ("role.product_owner", "on"),
        ("gates", "resolves\r\nearlier_environment 3600\r\nquality ?"),
        ("delivery", "auto"),
        ("expires_h", "48"),
    ];
    form(&admin, "/default/environments/rules", &fields);
    let found = live.get("/api/v1/environments").json();
    let staging = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "staging");
    let text = staging.unwrap().to_string();
    for part in [
        "\"approvals\":2",
        "product_owner",
        "earlier_environment",
        "3600",
        "172800",
        "auto",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Somebody else's change is not overwritten unseen; what is wrong is said on the page.
    let stale = admin.form("/default/environments/rules", &fields);
    assert_eq!(stale.status, 422, "{stale:?}");
    let wrong = admin.form("/default/environments/add", &[("name", "Bad Name")]);
    assert_eq!(wrong.status, 422, "{wrong:?}");
    form(&admin, "/default/environments/add", &[("name", "preview")]);
    form(
        &admin,
        "/default/environments/move",
        &[("name", "preview"), ("to", "up")],
    );
    let found = live.get("/api/v1/environments").json();
    let names: Vec<&Value> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["dev", "staging", "preview", "prod"]);
}
