//! Word lists: documents that rules name, over HTTP and on their pages.

use serde_json::{Value, json};

use crate::harness::{Client, Place, Reply, encode, on_both_databases};

on_both_databases!(
    a_list_is_made_named_moved_and_kept,
    people_write_lists_without_json,
    an_unsaved_policy_knows_the_lists_of_the_project
);

const LIST: &str = "社内/競合";

fn at(rest: &str) -> String {
    format!("/api/v1/catalog/words/{}/{rest}", encode(LIST))
}

fn save_list(live: &Client, entries: &[&str]) -> Reply {
    let content = json!({"entries": entries, "language": "ja"});
    live.post(&at("versions"), &json!({"content": content}))
}

/// Blocks the words of a list.
fn policy(list: &str) -> Value {
    json!({"rules": [{
        "name": "brands", "at": ["input"], "check": {"type": "words", "list": list}, "action": {"type": "block"},
    }]})
}

fn save_policy(live: &Client, name: &str, content: &Value) -> Reply {
    let path = format!("/api/v1/catalog/guard/{name}/versions");
    live.post(&path, &json!({"content": content}))
}

fn decision(live: &Client, policy: Value, text: &str) -> Value {
    let body = json!({"policy": policy, "text": text});
    let reply = live.post("/api/v1/guard/check", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["decision"].clone()
}

fn a_list_is_made_named_moved_and_kept(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let named = policy(&format!("words:{LIST}@production"));
    let refused = save_policy(&live, "brands", &named);
    assert_eq!(refused.status, 400, "a list that is not there: {refused:?}");
    assert_eq!(refused.json()["error"]["at"], "/rules/0/check/list");

    let wrong = json!({"content": {"entries": ["fine", " "], "language": "Japanese"}});
    let refused = live.post(&at("versions"), &wrong);
    assert_eq!(refused.refusal(), (400, "invalid_document".to_owned()));
    assert_eq!(refused.json()["error"]["at"], "/entries/1");

    assert_eq!(save_list(&live, &["ゼノン商事", "Acme"]).status, 201);
    // The same words in another order are the same version.
    let again = save_list(&live, &["Acme", "ゼノン商事", "Acme "]);
    assert_eq!(again.json()["version"], 1, "{again:?}");
    let refused = save_policy(&live, "brands", &named);
    assert_eq!(
        refused.status, 400,
        "a label that is not there: {refused:?}"
    );
    let label = at("pointers/production");
    assert_eq!(live.put(&label, &json!({"version": 1})).status, 200);
    let saved = save_policy(&live, "brands", &named);
    assert_eq!(saved.status, 201, "{saved:?}");
    assert_eq!(
        decision(&live, json!("brands"), "ｾﾞﾉﾝ商事 はどうですか"),
        "blocked"
    );
    assert_eq!(decision(&live, json!("brands"), "buy from ACME"), "blocked");
    assert_eq!(decision(&live, json!("brands"), "buy from Globex"), "pass");

    // The policy follows the label, and nobody saved it.
    assert_eq!(save_list(&live, &["Globex"]).json()["version"], 2);
    assert_eq!(decision(&live, json!("brands"), "buy from Globex"), "pass");
    assert_eq!(live.put(&label, &json!({"version": 2})).status, 200);
    assert_eq!(
        decision(&live, json!("brands"), "buy from Globex"),
        "blocked"
    );
    assert_eq!(decision(&live, json!("brands"), "buy from ACME"), "pass");

    // What a policy in use names stays.
    assert_eq!(live.delete(&label).status, 409);
    let refused = live.delete(&at("versions"));
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.text().contains("brands"), "{refused:?}");
    let policy = "/api/v1/catalog/guard/brands/versions";
    assert_eq!(live.delete(policy).status, 200);
    assert_eq!(live.delete(&at("versions")).status, 200);
}

fn an_unsaved_policy_knows_the_lists_of_the_project(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    assert_eq!(save_list(&live, &["Globex"]).status, 201);
    let named = policy(&format!("words:{LIST}@latest"));
    assert_eq!(decision(&live, named.clone(), "buy from Globex"), "blocked");
    let jsonl = "{\"text\": \"buy from Globex\", \"label\": \"attack\"}\n{\"text\": \"buy a book\", \"label\": \"benign\"}";
    let measured = |policy: &Value| {
        let body = json!({"policy": policy, "jsonl": jsonl});
        live.post("/api/v1/guard/measure", &body).json()
    };
    let found = measured(&named);
    assert_eq!(found["report"]["all"]["recall"]["hits"], 1, "{found:#}");
    assert_eq!(found["unchecked"], Value::Null);

    // A list that is not there is never taken for one that finds nothing.
    let missing = policy("words:nobody@latest");
    let body = json!({"policy": missing, "text": "buy from Globex"});
    let checked = live.post("/api/v1/guard/check", &body).json();
    assert_eq!(checked["findings"][0]["outcome"], "failed_open");
    let found = measured(&missing);
    assert_eq!(found["report"]["all"]["recall"]["hits"], 0);
    assert_eq!(found["unchecked"], json!({"brands": 2}), "{found:#}");

    // The bench of the page knows the same.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let document = named.to_string();
    let fields = [
        ("name", "draft"),
        ("document", document.as_str()),
        ("text", "buy from Globex now"),
        ("point", "input"),
    ];
    let shown = browser.form("/default/guards/check", &fields);
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(
        shown.text().contains("guard-mark mark-3"),
        "{}",
        shown.text()
    );
}

fn people_write_lists_without_json(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let browser = live.browser_of(&place.add_person("default", "editor"));
    for page in ["/default/guards/words", "/default/guards/words/edit"] {
        assert_eq!(browser.get(page).status, 200, "{page}");
    }
    let edit = "/default/guards/words/edit";
    let typed = [
        ("name", "brands"),
        ("entries", "Acme\r\n\r\n Globex "),
        ("language", "en"),
    ];
    // Pasted words go to the end; what is there already does not.
    let more = "Initech,Acme\nUmbrella\t\"Hooli\"";
    let merge = [typed.as_slice(), &[("action", "merge"), ("more", more)]].concat();
    let shown = browser.form(edit, &merge);
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(
        shown
            .text()
            .contains("Globex \nInitech\nUmbrella\nHooli</textarea>"),
        "{}",
        shown.text()
    );
    let listed = [
        typed.as_slice(),
        &[("action", "merge"), ("more", "[\"a, b\"]")],
    ]
    .concat();
    assert!(
        browser
            .form(edit, &listed)
            .text()
            .contains("Globex \na, b</textarea>")
    );

    let text = "I like <b>GLOBEX</b>";
    let tried = [typed.as_slice(), &[("action", "check"), ("text", text)]].concat();
    let shown = browser.form(edit, &tried);
    assert!(shown.text().contains("guard-mark"), "{}", shown.text());
    assert!(!shown.text().contains(text));

    let wrong = |fields: &[(&str, &str)], part: &str| {
        let reply = browser.form(edit, &[fields, &[("action", "save")]].concat());
        assert_eq!(reply.status, 422, "{fields:?}");
        assert!(reply.text().contains(part), "{part}: {}", reply.text());
    };
    let long = format!("fine\n{}", "x".repeat(129));
    wrong(&[("name", "brands"), ("entries", " \n")], "h-entries");
    wrong(&[("name", "brands"), ("entries", &long)], "line 2");
    wrong(
        &[
            ("name", "brands"),
            ("entries", "a"),
            ("language", "English"),
        ],
        "h-language",
    );
    wrong(&[("name", "//"), ("entries", "a")], "h-name");

    let save = [
        typed.as_slice(),
        &[("action", "save"), ("more", "Hooli"), ("fold", "loose")],
    ]
    .concat();
    assert_eq!(browser.form(edit, &save).status, 303);
    let kept = live
        .get("/api/v1/catalog/words/brands/versions/latest")
        .json();
    assert_eq!(
        kept["content"],
        json!({"entries": ["Acme", "Globex", "Hooli"], "language": "en", "fold": "loose"})
    );
    let label = [
        ("name", "brands"),
        ("label", "production"),
        ("version", "1"),
    ];
    assert_eq!(
        browser.form("/default/guards/words/labels", &label).status,
        303
    );
    let shown = browser.get("/default/guards/words/edit?name=brands").text();
    assert!(shown.contains("words:brands@production"), "{shown}");

    // A rule of the policy's form takes the list; without a list of that name the draft stays.
    let rule = [
        ("name", "shop"),
        ("document", "{\"rules\": []}"),
        ("action", "add"),
        ("r_name", "brands"),
        ("r_check", "words"),
        ("r_list", "words:brands@production"),
        ("r_action", "block"),
        ("r_at_input", "on"),
    ];
    let shown = browser.form("/default/guards/edit", &rule).text();
    assert!(
        shown.contains("&quot;list&quot;: &quot;words:brands@production&quot;"),
        "{shown}"
    );
    let document = policy("words:nobody@production").to_string();
    let save = [
        ("name", "shop"),
        ("action", "save"),
        ("document", document.as_str()),
    ];
    let refused = browser.form("/default/guards/edit", &save);
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.text().contains("there is no words nobody"),
        "{}",
        refused.text()
    );
    let document = policy("words:brands@production").to_string();
    let save = [
        ("name", "shop"),
        ("action", "save"),
        ("document", document.as_str()),
    ];
    assert_eq!(browser.form("/default/guards/edit", &save).status, 303);

    let list = browser.get("/default/guards/words").text();
    assert!(list.contains("edit?name=shop"), "who names it: {list}");
    let delete = "/default/guards/words/delete";
    let name = [("name", "brands")];
    assert_eq!(browser.form(delete, &name).status, 303);
    assert!(
        browser
            .get("/default/guards/words")
            .text()
            .contains("brands")
    );
    let policy = "/api/v1/catalog/guard/shop/versions";
    assert_eq!(live.delete(policy).status, 200);
    assert_eq!(browser.form(delete, &name).status, 303);
    assert!(
        !browser
            .get("/default/guards/words")
            .text()
            .contains("name=brands")
    );
}
