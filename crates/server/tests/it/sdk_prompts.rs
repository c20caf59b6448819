//! Prompts as the clients of Langfuse and MLflow send them. The unmodified clients are in
//! `compat/`; here is what they seldom send, and what they would not.

use serde_json::{Value, json};

use crate::harness::{Client, Place, encode, on_both_databases};

on_both_databases!(
    mlflows_filters_find_what_they_say,
    langfuses_prompts_come_back_as_they_went_in,
);

fn make_model(client: &Client, name: &str, tags: &[(&str, &str)]) {
    let mut all = vec![json!({"key": "mlflow.prompt.is_prompt", "value": "true"})];
    all.extend(
        tags.iter()
            .map(|(key, value)| json!({"key": key, "value": value})),
    );
    let body = json!({"name": name, "tags": all});
    let made = client.post("/api/2.0/mlflow/registered-models/create", &body);
    assert_eq!(made.status, 200, "{made:?}");
}

fn search(client: &Client, filter: &str) -> crate::harness::Reply {
    client.get(&format!(
        "/api/2.0/mlflow/registered-models/search?filter={}",
        encode(filter)
    ))
}

fn found(client: &Client, filter: &str) -> Vec<String> {
    let reply = search(client, filter);
    assert_eq!(reply.status, 200, "{filter}: {reply:?}");
    let models = reply.json()["registered_models"].clone();
    let names = models.as_array().into_iter().flatten();
    names
        .filter_map(|model| model["name"].as_str().map(str::to_owned))
        .collect()
}

fn mlflows_filters_find_what_they_say(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make_model(&live, "abc", &[("team", "a b")]);
    make_model(&live, "ac", &[("stage", "beta")]);
    make_model(&live, "banana", &[]);
    make_model(&live, "本日は", &[("team", "葵"), ("stage", "beta")]);
    let all = ["abc", "ac", "banana", "本日は"];
    for (filter, expected) in [
        ("name = 'ac'", &["ac"][..]),
        ("name != \"ac\"", &["abc", "banana", "本日は"]),
        ("name LIKE '%'", &all),
        ("name LIKE 'a%'", &["abc", "ac"]),
        ("name LIKE '%c'", &["abc", "ac"]),
        ("name LIKE 'a_c'", &["abc"]),
        ("name LIKE '%b%'", &["abc", "banana"]),
        ("name LIKE '%a%a%'", &["banana"]),
        ("name LIKE 'x%'", &[]),
        ("name LIKE '%日%'", &["本日は"]),
        ("name LIKE 'A%'", &[]),
        ("name ILIKE 'A%'", &["abc", "ac"]),
        ("tags.stage = 'beta' and name like '%c'", &["ac"]),
        ("tag.team != \"a b\"", &["ac", "banana", "本日は"]),
        ("tags.`team` = '葵'", &["本日は"]),
    ] {
        let filter = format!("tags.`mlflow.prompt.is_prompt` = 'true' AND {filter}");
        assert_eq!(found(&live, &filter), expected, "{filter}");
    }
    // Whoever does not ask for prompts asks for models, and there are none.
    assert!(found(&live, "  ").is_empty());
    for filter in [
        "nam = 'x'",
        "name > 'x'",
        "name = x",
        "name = 'x",
        "name = 'x' OR name = 'y'",
        "tags. = 'x'",
    ] {
        let reply = search(&live, filter);
        assert_eq!(reply.status, 400, "{filter}: {reply:?}");
        assert!(reply.text().contains("at character"), "{filter}: {reply:?}");
    }
}

fn create(client: &Client, name: &str, prompt: &Value) -> crate::harness::Reply {
    let kind = if prompt.is_array() { "chat" } else { "text" };
    let body = json!({"name": name, "type": kind, "prompt": prompt, "labels": ["production"]});
    client.post("/api/public/v2/prompts", &body)
}

fn langfuses_prompts_come_back_as_they_went_in(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let ours = |name: &str| {
        let at = format!("/api/v1/catalog/prompt/{}/versions/1", encode(name));
        live.get(&at).json()["content"].clone()
    };
    let theirs = |name: &str, query: &str| {
        let at = format!("/api/public/v2/prompts/{}{query}", encode(name));
        live.get(&at).json()["prompt"].clone()
    };
    let chat = json!([
        {"type": "chatmessage", "role": "system", "content": "Be {{tone}}."},
        {"type": "placeholder", "name": "history"},
        {"type": "chatmessage", "role": "user", "content": "{{質問}}"},
    ]);
    for (name, prompt, dialect) in [
        ("hello", json!("Hi {{name}}"), json!("simple")),
        ("chat", chat, json!("simple")),
        // Only jinja has tags.
        ("jinja", json!("{% if a %}{{ b }}{% endif %}"), Value::Null),
    ] {
        let made = create(&live, name, &prompt);
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(ours(name)["dialect"], dialect, "{name}");
        assert_eq!(theirs(name, ""), prompt);
    }

    // Parts of others: references to us, tags to the client.
    for (name, text) in [("語/tone", "kindly"), ("x", "X")] {
        let made = create(&live, name, &json!(text));
        assert_eq!(made.status, 201, "{made:?}");
    }
    let text = "a @@@langfusePrompt:name=語/tone|label=production@@@ b \
                @@@langfusePrompt:name=x|version=1@@@ c @@@langfusePrompt:name=x|version=1@@@";
    let made = create(&live, "parts", &json!(text));
    assert_eq!(made.status, 201, "{made:?}");
    let document = ours("parts");
    assert_eq!(
        document["template"],
        "a {{partials.p1}} b {{partials.p2}} c {{partials.p2}}"
    );
    assert_eq!(document["partials"]["p1"], "prompt:語/tone@production");
    assert_eq!(theirs("parts", "?resolve=false"), text);
    assert_eq!(theirs("parts", ""), "a kindly b X c X");

    for (prompt, at) in [
        (json!(1), "prompt"),
        (
            json!([{"role": "user", "content": "x"}, {"role": "user"}]),
            "prompt[1]",
        ),
        (json!([{"type": "placeholder"}]), "prompt[0]"),
        (json!("@@@langfusePrompt:name=x"), "tag"),
        (json!("@@@langfusePrompt:label=x@@@"), "tag"),
        (json!("@@@langfusePrompt:x@@@"), "tag"),
    ] {
        let refused = create(&live, "wrong", &prompt);
        assert_eq!(refused.status, 400, "{prompt}: {refused:?}");
        assert!(refused.text().contains(at), "{prompt}: {refused:?}");
    }
}
