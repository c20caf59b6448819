//! Every change of anything is in the audit log: the server's own route table, walked
//! with a good request for each route that changes something.
//!
//! A request's audit lines bear its id, so what each route wrote is counted exactly,
//! whatever else the server does meanwhile. A new route that may change something
//! fails here until it is walked, or named in [`CHANGES_NOTHING`] with a reason.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use db::sqlx::Row as _;
use serde_json::{Value, json};
use testkit::provider::{Answer, Fault};

use crate::harness::{Client, Place, Reply, encode, on_both_databases};
use crate::user_evaluators::{gives_one, send_module_form};

on_both_databases!(every_change_is_in_the_log);

/// Routes whose method could change something and that do not, and why.
const CHANGES_NOTHING: &[(&str, &str)] = &[
    ("POST /preferences", "a cookie of this browser"),
    ("POST /v1/chat/completions", "a call; telemetry records it"),
    ("POST /v1/embeddings", "a call; telemetry records it"),
    ("POST /v1/moderations", "a check; nothing is kept"),
    ("POST /api/v1/guard/check", "a check; nothing is kept"),
    (
        "POST /api/v1/guard/measure",
        "a measurement; nothing is kept",
    ),
    ("POST /api/v1/guard/try", "a trial; nothing is kept"),
    ("POST /{project}/guards/check", "a check; nothing is kept"),
    ("POST /{project}/guards/try", "a trial; nothing is kept"),
    (
        "POST /{project}/guards/measure",
        "a measurement; nothing is kept",
    ),
    ("POST /api/v1/query", "a question with a body"),
    (
        "POST /api/v1/scores",
        "telemetry: a score is a row of its own that says who gave it, and is never changed",
    ),
    (
        "POST /{project}/traces/{id}/thumbs",
        "telemetry: a score, as above",
    ),
    (
        "POST /api/v1/guard/finds/{id}/verdict",
        "telemetry: a score, as above",
    ),
    (
        "POST /{project}/guards/finds/verdict",
        "telemetry: a score, as above",
    ),
    (
        "POST /api/public/scores",
        "telemetry: a score, as above; what its client calls it is kept beside it",
    ),
    (
        "POST /api/public/otel/v1/traces",
        "telemetry: what a client says that it did",
    ),
    (
        "POST /api/public/dataset-run-items",
        "a record of what a client did, like its traces",
    ),
    ("POST /{project}/compare", "calls of drafts"),
    ("POST /api/v1/catalog/{kind}/check", "a preview"),
    ("POST /api/v1/prompts/render", "a preview"),
    ("POST /api/v1/prompts/similar", "a preview"),
    ("POST /api/v1/prompts/try", "a call of a draft"),
    ("POST /api/v1/prompts/generate", "calls; nothing is saved"),
    (
        "POST /{project}/prompts/generate",
        "calls; nothing is saved",
    ),
    ("POST /api/v1/apps/try", "a call of a draft"),
    ("POST /{project}/apps/draw", "a preview"),
    ("POST /api/v1/gitops/plan", "a preview"),
    ("POST /api/v1/gitops/validate", "a preview"),
    (
        "PUT /api/v1/gitops/blobs/{digest}",
        "content that means nothing before a document names it",
    ),
    (
        "POST /api/v1/dataset-uploads",
        "a file that waits for its import and is swept after a day",
    ),
    ("POST /api/v1/dataset-uploads/preview", "a preview"),
    (
        "POST /api/v1/review/inbox/{name}/next",
        "who holds an item for a while; the label says who judged it",
    ),
    ("POST /api/v1/review/inbox/{name}/release", "as above"),
    (
        "POST /api/v1/review/items/{id}/label",
        "a label is a row of its own that says who gave it, and is never changed",
    ),
    (
        "POST /api/v1/review/items/{id}/skip",
        "a row of its own, as a label",
    ),
    (
        "POST /api/v1/review/inbox/{name}/undo",
        "ends one's own label and leaves it where it is",
    ),
    (
        "POST /api/v1/datasets/{name}/transform/preview",
        "a preview",
    ),
    (
        "POST /{project}/review/{name}",
        "labels, skips and what takes them back, as above",
    ),
    (
        "POST /api/2.0/mlflow/registered-models/get-latest-versions",
        "a question with a body",
    ),
    (
        "DELETE /api/2.0/mlflow/model-versions/delete",
        "always refused: versions stay",
    ),
];

/// How many lines a request must write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// One change.
    One,
    /// Several changes in one request, each with its line.
    Several,
}

/// One request that was made, and what it must have written.
struct Made {
    route: &'static str,
    request: String,
    lines: Lines,
}

/// The requests so far.
#[derive(Default)]
struct Walk(RefCell<Vec<Made>>);

impl Walk {
    fn note(&self, lines: Lines, route: &'static str, reply: &Reply) {
        assert!(
            [200, 201, 202, 204, 303].contains(&reply.status),
            "{route}: {reply:?}"
        );
        let request = reply.header("x-request-id").unwrap();
        self.0.borrow_mut().push(Made {
            route,
            request,
            lines,
        });
    }

    /// Sends JSON to a route; `at` is its path with the parameters filled in.
    fn json(
        &self,
        lines: Lines,
        route: &'static str,
        client: &Client,
        at: &str,
        body: Value,
    ) -> Value {
        let method = route.split(' ').next().unwrap();
        let call = client.call(method, at);
        let reply = if body.is_null() {
            call
        } else {
            call.json(&body)
        }
        .send();
        self.note(lines, route, &reply);
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    /// Sends a form to a page.
    fn form(
        &self,
        lines: Lines,
        route: &'static str,
        client: &Client,
        at: &str,
        fields: &[(&str, &str)],
    ) -> Reply {
        let reply = client.form(at, fields);
        self.note(lines, route, &reply);
        reply
    }

    /// Each request wrote what it must have, and nothing was left out of the walk.
    fn check(&self, place: &Place) {
        let written: BTreeMap<String, Vec<String>> = place.database(async |db| {
            let rows = db::sqlx::query("SELECT request_id, action FROM audit ORDER BY seq")
                .fetch_all(db.read())
                .await
                .unwrap();
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for row in rows {
                found.entry(row.get(0)).or_default().push(row.get(1));
            }
            found
        });
        let mut wrong = Vec::new();
        let mut walked = BTreeSet::new();
        for made in self.0.borrow().iter() {
            walked.insert(made.route);
            let lines = written.get(&made.request).cloned().unwrap_or_default();
            let right = match made.lines {
                Lines::One => lines.len() == 1,
                Lines::Several => lines.len() > 1,
            };
            if !right {
                wrong.push(format!(
                    "{}: {:?} wanted, there are {lines:?}",
                    made.route, made.lines
                ));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let excused: BTreeSet<&str> = CHANGES_NOTHING.iter().map(|(route, _)| *route).collect();
        let routes: BTreeSet<String> = server::http::routes()
            .iter()
            .filter(|route| !["GET", "HEAD"].contains(&route.method.as_str()))
            .map(|route| format!("{} {}", route.method, route.path))
            .collect();
        let known: BTreeSet<String> = walked
            .union(&excused)
            .map(|&route| route.to_owned())
            .collect();
        let missing: Vec<_> = routes.difference(&known).collect();
        assert!(
            missing.is_empty(),
            "walk these, or say why they change nothing: {missing:#?}"
        );
        let gone: Vec<_> = known.difference(&routes).collect();
        assert!(gone.is_empty(), "these routes are gone: {gone:#?}");
        let both: Vec<_> = walked.intersection(&excused).collect();
        assert!(
            both.is_empty(),
            "these change something after all: {both:?}"
        );
    }
}

use Lines::{One, Several};

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

fn prompt(text: &str) -> Value {
    json!({"messages": [{"role": "system", "content": text}]})
}

fn every_change_is_in_the_log(place: Place) {
    let place = place.add_fake();
    // Nothing listens there: what a pull is asked for fails later, which is no matter here.
    place.configure("[egress]\nhub_url = \"http://127.0.0.1:9\"\n");
    let walk = Walk::default();
    let live = place.start();
    let browser = people_come_and_go(&walk, &place, &live);
    let program = live.with_key(&place.make_key("default", "admin").1);
    let editor = live.with_key(&place.make_key("default", "editor").1);
    members(&walk, &place, &program, &browser);
    keys(&walk, &program, &browser);
    review_pages(&walk, &program, &browser);
    providers_and_prices(&walk, &program, &browser);
    models(&walk, &place, &program, &browser);
    documents(&walk, &program, &browser);
    foreign_registries(&walk, &program);
    apps(&walk, &program, &browser);
    promotion(
        &walk,
        &program,
        &editor,
        &browser,
        &live.browser_of(&place.add_person("default", "admin")),
    );
    experiments(&walk, &program, &browser);
    datasets(&walk, &program, &browser);
    choices(&walk, &place, &program, &browser);
    evaluations(&walk, &place, &program, &browser);
    review(&walk, &program);
    improvements(&walk, &place, &program, &browser);
    live_evaluations(&walk, &program, &browser);
    walk.check(&place);
}

/// The first administrator, who signs out and in again, and somebody who is invited.
fn people_come_and_go(walk: &Walk, place: &Place, live: &crate::harness::Live) -> Client {
    let browser = live.browser();
    let link = place.setup_link();
    let token = link.split_once('=').unwrap().1;
    let ada = [
        ("email", "ada@example.test"),
        ("password", "correct horse battery"),
    ];
    let fields = [("token", token), ("name", "Ada"), ada[0], ada[1]];
    walk.form(Several, "POST /setup", &browser, "/setup", &fields);
    walk.form(One, "POST /sign-out", &browser, "/sign-out", &[]);
    walk.form(One, "POST /sign-in", &browser, "/sign-in", &ada);

    let invite = json!({"email": "new@example.test", "role": "viewer"});
    let route = "POST /api/v1/invites";
    let made = walk.json(One, route, &browser, "/api/v1/invites", invite);
    let link = text(&made["link"]);
    let token = link.split_once("token=").unwrap().1;
    let fields = [
        ("token", token),
        ("name", "New"),
        ("password", "another long password"),
    ];
    walk.form(Several, "POST /invite", &live.browser(), "/invite", &fields);
    browser
}

fn members(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    let invite = json!({"email": "a@example.test", "role": "viewer"});
    let made = walk.json(
        One,
        "POST /api/v1/invites",
        program,
        "/api/v1/invites",
        invite,
    );
    let at = format!("/api/v1/invites/{}", text(&made["invite"]["id"]));
    walk.json(
        One,
        "DELETE /api/v1/invites/{id}",
        program,
        &at,
        Value::Null,
    );
    let fields = [("email", "b@example.test"), ("role", "editor")];
    let route = "POST /{project}/members/invite";
    walk.form(One, route, browser, "/default/members/invite", &fields);
    let listed = program.get("/api/v1/members").json();
    let id = text(&listed["invites"][0]["id"]);
    let route = "POST /{project}/members/invite/revoke";
    walk.form(
        One,
        route,
        browser,
        "/default/members/invite/revoke",
        &[("id", &id)],
    );

    let [first, second] = [(); 2].map(|()| place.add_person("default", "viewer").id);
    let at = format!("/api/v1/members/{first}");
    let route = "PUT /api/v1/members/{user_id}";
    walk.json(Several, route, program, &at, json!({"role": "editor"}));
    let fields = [("user_id", second.as_str()), ("role", "auditor")];
    let route = "POST /{project}/members/role";
    walk.form(Several, route, browser, "/default/members/role", &fields);
    let route = "DELETE /api/v1/members/{user_id}";
    walk.json(One, route, program, &at, Value::Null);
    let at = format!("/default/members/remove?user_id={second}");
    walk.form(One, "POST /{project}/members/remove", browser, &at, &[]);
}

fn review_pages(walk: &Walk, program: &Client, browser: &Client) {
    let page = |route: &'static str, place: &str, fields: &[(&str, &str)]| {
        let at = format!("/default/review-queues{place}");
        let reply = walk.form(One, route, browser, &at, fields);
        assert!(reply.status < 400, "{route}: {}", reply.text());
    };
    let example = json!({"id": "a", "input": "Where?", "source": {"answer": "Here."}});
    let dataset = json!({"name": "paged", "examples": [example]});
    assert_eq!(program.post("/api/v1/datasets", &dataset).status, 201);
    let queue = [("name", "paged"), ("action", "form"), ("question1", "good")];
    let question = [
        ("kind1", "choice"),
        ("options1", "yes\nno"),
        ("raters", "1"),
    ];
    let route = "POST /{project}/review-queues/edit";
    page(route, "/edit", &[queue, question].concat());
    let source = [
        ("name", "paged"),
        ("source", "dataset"),
        ("dataset", "paged"),
    ];
    page("POST /{project}/review-queues/fill", "/fill", &source);
    let next = program.post("/api/v1/review/inbox/paged/next", &json!({}));
    let item = &next.json()["item"];
    let id = text(&item["id"]);
    let label = json!({"fence": item["fence"], "values": {"good": "yes"}});
    let at = format!("/api/v1/review/items/{id}/label");
    assert_eq!(program.post(&at, &label).status, 200);
    let gold = [("name", "paged"), ("dataset", "paged/gold")];
    page("POST /{project}/review-queues/gold", "/gold", &gold);
    let close = [("id", id.as_str()), ("action", "close")];
    page("POST /{project}/review-queues/item", "/item", &close);
    let guest = [("name", "paged"), ("guest", "Taro")];
    page("POST /{project}/review-queues/guests", "/guests", &guest);
    let at = "/api/v1/review/queues/paged/guests";
    let guests = program.get(at).json();
    let id = text(&guests["items"][0]["id"]);
    let revoke = [("name", "paged"), ("id", id.as_str())];
    let route = "POST /{project}/review-queues/guests/revoke";
    page(route, "/guests/revoke", &revoke);
}

fn keys(walk: &Walk, program: &Client, browser: &Client) {
    let new = json!({"name": "app", "environment": "dev"});
    let made = walk.json(One, "POST /api/v1/keys", program, "/api/v1/keys", new);
    let at = format!("/api/v1/keys/{}", text(&made["id"]));
    walk.json(One, "DELETE /api/v1/keys/{id}", program, &at, Value::Null);
    let fields = [
        ("name", "by hand"),
        ("environment", "dev"),
        ("role", "caller"),
    ];
    walk.form(
        One,
        "POST /{project}/keys",
        browser,
        "/default/keys",
        &fields,
    );
    let listed = program.get("/api/v1/keys").json();
    let by_hand = |row: &&Value| row["name"] == "by hand";
    let id = text(
        &listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(by_hand)
            .unwrap()["id"],
    );
    let route = "POST /{project}/keys/revoke";
    walk.form(One, route, browser, "/default/keys/revoke", &[("id", &id)]);
}

fn providers_and_prices(walk: &Walk, program: &Client, browser: &Client) {
    let url = "https://api.example.com/v1";
    let new = json!({"name": "one", "protocol": "openai", "base_url": url});
    let route = "POST /api/v1/providers";
    let made = walk.json(One, route, program, "/api/v1/providers", new.clone());
    let at = format!("/api/v1/providers/{}", text(&made["id"]));
    walk.json(One, "PUT /api/v1/providers/{id}", program, &at, new);
    walk.json(
        One,
        "DELETE /api/v1/providers/{id}",
        program,
        &at,
        Value::Null,
    );
    let route = "POST /api/v1/providers/{id}/test";
    walk.json(
        One,
        route,
        program,
        "/api/v1/providers/fake/test",
        json!({}),
    );

    let fields = [
        ("name", "two"),
        ("protocol", "openai"),
        ("base_url", url),
        ("credential", "none"),
    ];
    let route = "POST /{project}/providers";
    walk.form(Several, route, browser, "/default/providers", &fields);
    let id = text(&program.get("/api/v1/providers/two").json()["id"]);
    let at = format!("/default/providers/{id}");
    walk.form(
        Several,
        "POST /{project}/providers/{id}",
        browser,
        &at,
        &fields,
    );
    let fake = text(&program.get("/api/v1/providers/fake").json()["id"]);
    let route = "POST /{project}/providers/test";
    walk.form(
        One,
        route,
        browser,
        "/default/providers/test",
        &[("id", &fake)],
    );
    let fields = [("id", id.as_str()), ("confirm", "two")];
    let route = "POST /{project}/providers/remove";
    walk.form(One, route, browser, "/default/providers/remove", &fields);

    let price = json!({"provider": "fake", "model": "tiny", "input_usd": 1.0, "output_usd": 2.0});
    walk.json(One, "PUT /api/v1/prices", program, "/api/v1/prices", price);
}

fn models(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    // Two that are installed, as far as the database knows, and two pulls that wait for tomorrow.
    let waiting: Vec<String> = place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        let mut waiting = Vec::new();
        for name in ["first", "second"] {
            let insert = "INSERT INTO models (id, name, source, path, digest, kind, state, created_at, updated_at) \
                 VALUES ($1, $1, $1, '', $2, 'chat', 'ready', 0, 0)";
            let digest = base::Digest::of(name.as_bytes()).to_string();
            let query = db::sqlx::query(insert).bind(name).bind(digest);
            query.execute(tx.conn()).await.unwrap();
            let payload = json!({"ref": format!("hf:test/{name}"), "name": null, "actor": "system"});
            let job = db::jobs::NewJob {
                run_at: Some(db.now_us() + 86_400_000_000),
                ..db::jobs::NewJob::new("model.pull", payload)
            };
            waiting.push(db::jobs::enqueue(&mut tx, job).await.unwrap().to_string());
        }
        tx.commit().await.unwrap();
        waiting
    });
    walk.json(
        One,
        "DELETE /api/v1/models/{name}",
        program,
        "/api/v1/models/first",
        Value::Null,
    );
    let fields = [("id", "second"), ("confirm", "local/second")];
    let route = "POST /{project}/models/remove";
    walk.form(One, route, browser, "/default/models/remove", &fields);
    let at = format!("/api/v1/models/pulls/{}", waiting[0]);
    walk.json(
        One,
        "DELETE /api/v1/models/pulls/{id}",
        program,
        &at,
        Value::Null,
    );
    let at = format!("/default/models/pulls/{}/cancel", waiting[1]);
    walk.form(
        One,
        "POST /{project}/models/pulls/{id}/cancel",
        browser,
        &at,
        &[],
    );
    let asked = json!({"ref": "hf:test/third"});
    walk.json(
        One,
        "POST /api/v1/models/pull",
        program,
        "/api/v1/models/pull",
        asked,
    );
    let route = "POST /{project}/models/pull";
    walk.form(
        One,
        route,
        browser,
        "/default/models/pull",
        &[("ref", "hf:test/fourth")],
    );
}

fn documents(walk: &Walk, program: &Client, browser: &Client) {
    let of = |name: &str, rest: &str| format!("/api/v1/catalog/prompt/{}/{rest}", encode(name));
    let route = "POST /api/v1/catalog/{kind}/{name}/versions";
    for text in ["one", "two"] {
        let body = json!({"content": prompt(text)});
        walk.json(One, route, program, &of("a/b", "versions"), body);
    }
    let route = "PUT /api/v1/catalog/{kind}/{name}/pointers/{label}";
    walk.json(
        One,
        route,
        program,
        &of("a/b", "pointers/live"),
        json!({"version": 1}),
    );
    let route = "DELETE /api/v1/catalog/{kind}/{name}/pointers/{label}";
    walk.json(
        One,
        route,
        program,
        &of("a/b", "pointers/live"),
        Value::Null,
    );
    let route = "PUT /api/v1/catalog/{kind}/{name}/tags";
    walk.json(
        One,
        route,
        program,
        &of("a/b", "tags"),
        json!({"tags": ["x"]}),
    );
    program.put(&of("a/b", "pointers/live"), &json!({"version": 1}));
    let route = "DELETE /api/v1/catalog/{kind}/{name}/versions";
    walk.json(Several, route, program, &of("a/b", "versions"), Value::Null);

    let new = json!({"name": "c", "content": prompt("three")});
    walk.json(One, "POST /api/v1/prompts", program, "/api/v1/prompts", new);
    let route = "POST /api/v1/prompts/{name}/versions";
    let body = json!({"content": prompt("four")});
    walk.json(One, route, program, "/api/v1/prompts/c/versions", body);
    let route = "PUT /api/v1/prompts/{name}/labels/{label}";
    walk.json(
        One,
        route,
        program,
        "/api/v1/prompts/c/labels/live",
        json!({"version": 1}),
    );

    let document = prompt("five").to_string();
    let fields = [
        ("name", "d"),
        ("document", document.as_str()),
        ("action", "save"),
    ];
    let route = "POST /{project}/prompts/edit";
    walk.form(One, route, browser, "/default/prompts/edit", &fields);
    let fields = [("name", "d"), ("label", "live"), ("version", "1")];
    let route = "POST /{project}/prompts/labels";
    walk.form(One, route, browser, "/default/prompts/labels", &fields);
    let route = "POST /{project}/prompts/tags";
    walk.form(
        One,
        route,
        browser,
        "/default/prompts/tags",
        &[("name", "d"), ("tags", "x, y")],
    );
    let fields = [("name", "d"), ("confirm", "d")];
    let route = "POST /{project}/prompts/delete";
    walk.form(Several, route, browser, "/default/prompts/delete", &fields);

    // A tree: one line for its version, one for the whole.
    let file = "[document]\nmessages = [{ role = \"system\", content = \"of a tree\" }]\n";
    let tree = json!({"files": {"prompts/tree.toml": file}});
    let route = "POST /api/v1/gitops/apply";
    walk.json(Several, route, program, "/api/v1/gitops/apply", tree);
}

fn foreign_registries(walk: &Walk, program: &Client) {
    let of = |rest: &str| format!("/api/public/v2/prompts{rest}");
    let new = json!({"name": "l", "prompt": "Hi", "labels": ["live"], "tags": ["x"]});
    walk.json(
        Several,
        "POST /api/public/v2/prompts",
        program,
        &of(""),
        new,
    );
    let route = "PATCH /api/public/v2/prompts/{name}/versions/{version}";
    walk.json(
        One,
        route,
        program,
        &of("/l/versions/1"),
        json!({"newLabels": ["other"]}),
    );
    let route = "DELETE /api/public/v2/prompts/{name}";
    walk.json(One, route, program, &of("/l?label=other"), Value::Null);
    walk.json(Several, route, program, &of("/l"), Value::Null);

    let of = |rest: &str| format!("/api/2.0/mlflow/{rest}");
    let is_prompt = json!({"key": "mlflow.prompt.is_prompt", "value": "true"});
    let new = json!({"name": "m", "tags": [is_prompt], "description": "a prompt"});
    let route = "POST /api/2.0/mlflow/registered-models/create";
    walk.json(One, route, program, &of("registered-models/create"), new);
    let change = json!({"name": "m", "description": "another"});
    let route = "PATCH /api/2.0/mlflow/registered-models/update";
    walk.json(One, route, program, &of("registered-models/update"), change);
    let tag = json!({"name": "m", "key": "team", "value": "geo"});
    let route = "POST /api/2.0/mlflow/registered-models/set-tag";
    walk.json(
        One,
        route,
        program,
        &of("registered-models/set-tag"),
        tag.clone(),
    );
    let route = "DELETE /api/2.0/mlflow/registered-models/delete-tag";
    walk.json(
        One,
        route,
        program,
        &of("registered-models/delete-tag"),
        tag,
    );
    let new = json!({"name": "m", "tags": [
        is_prompt, {"key": "mlflow.prompt.text", "value": "Hi"}, {"key": "team", "value": "geo"},
    ]});
    let route = "POST /api/2.0/mlflow/model-versions/create";
    walk.json(Several, route, program, &of("model-versions/create"), new);
    let change = json!({"name": "m", "version": "1", "description": "better"});
    let route = "PATCH /api/2.0/mlflow/model-versions/update";
    walk.json(One, route, program, &of("model-versions/update"), change);
    let tag = json!({"name": "m", "version": "1", "key": "state", "value": "good"});
    let route = "POST /api/2.0/mlflow/model-versions/set-tag";
    walk.json(
        One,
        route,
        program,
        &of("model-versions/set-tag"),
        tag.clone(),
    );
    let route = "DELETE /api/2.0/mlflow/model-versions/delete-tag";
    walk.json(One, route, program, &of("model-versions/delete-tag"), tag);
    let alias = json!({"name": "m", "alias": "champion", "version": "1"});
    let route = "POST /api/2.0/mlflow/registered-models/alias";
    walk.json(
        One,
        route,
        program,
        &of("registered-models/alias"),
        alias.clone(),
    );
    let route = "DELETE /api/2.0/mlflow/registered-models/alias";
    walk.json(One, route, program, &of("registered-models/alias"), alias);
    let route = "DELETE /api/2.0/mlflow/registered-models/delete";
    walk.json(
        One,
        route,
        program,
        &of("registered-models/delete"),
        json!({"name": "m"}),
    );
    // One that never had a version is forgotten with a line as well.
    let new = json!({"name": "empty", "tags": [is_prompt]});
    program.post(&of("registered-models/create"), &new);
    walk.json(
        One,
        route,
        program,
        &of("registered-models/delete"),
        json!({"name": "empty"}),
    );
}

fn app(text: &str) -> Value {
    json!({"steps": [{"id": "a", "type": "prompt", "model": "fake/tiny", "prompt": prompt(text)}]})
}

/// The app `geo` with two releases.
fn apps(walk: &Walk, program: &Client, browser: &Client) {
    let new = json!({"name": "geo", "content": app("one")});
    walk.json(One, "POST /api/v1/apps", program, "/api/v1/apps", new);
    let route = "POST /api/v1/apps/{name}/releases";
    walk.json(One, route, program, "/api/v1/apps/geo/releases", json!({}));
    let document = app("two").to_string();
    let fields = [
        ("name", "geo"),
        ("document", document.as_str()),
        ("action", "save"),
    ];
    walk.form(
        One,
        "POST /{project}/apps/edit",
        browser,
        "/default/apps/edit",
        &fields,
    );
    let fields = [("name", "geo"), ("version", "2")];
    let route = "POST /{project}/apps/releases";
    walk.form(One, route, browser, "/default/apps/releases", &fields);
}

fn promotion(walk: &Walk, program: &Client, editor: &Client, browser: &Client, other: &Client) {
    let of = |rest: &str| format!("/api/v1/{rest}");
    let route = "POST /api/v1/environments";
    walk.json(
        One,
        route,
        program,
        &of("environments"),
        json!({"name": "canary"}),
    );
    let order = json!({"names": ["canary", "dev", "staging", "prod"]});
    walk.json(
        One,
        "PUT /api/v1/environments",
        program,
        &of("environments"),
        order,
    );
    let route = "POST /{project}/environments/add";
    walk.form(
        One,
        route,
        browser,
        "/default/environments/add",
        &[("name", "beta")],
    );
    let route = "POST /{project}/environments/move";
    let fields = [("name", "beta"), ("to", "up")];
    walk.form(One, route, browser, "/default/environments/move", &fields);
    let route = "POST /{project}/environments/rules";
    let fields = [
        ("label", "canary"),
        ("revision", "0"),
        ("approvals", "2"),
        ("delivery", "manual"),
    ];
    walk.form(One, route, browser, "/default/environments/rules", &fields);
    let route = "PUT /api/v1/protections/{label}";
    let rules = json!({"rules": {"approvals": 1, "gates": [{"name": "eval", "required": false}]}});
    walk.json(One, route, program, &of("protections/prod"), rules);

    // Releases of `geo`: asked for, approved, rejected, withdrawn, by API and by page.
    let ask = |version: i64| {
        let wanted = json!({"kind": "release", "name": "geo", "label": "prod", "version": version});
        let asked = walk.json(
            One,
            "POST /api/v1/proposals",
            editor,
            &of("proposals"),
            wanted,
        );
        text(&asked["proposal"]["id"])
    };
    let route = "POST /api/v1/proposals/{id}/approve";
    walk.json(
        Several,
        route,
        browser,
        &of(&format!("proposals/{}/approve", ask(1))),
        json!({}),
    );
    let route = "POST /api/v1/proposals/{id}/reject";
    walk.json(
        One,
        route,
        browser,
        &of(&format!("proposals/{}/reject", ask(2))),
        json!({}),
    );
    let route = "POST /api/v1/proposals/{id}/withdraw";
    walk.json(
        One,
        route,
        editor,
        &of(&format!("proposals/{}/withdraw", ask(2))),
        json!({}),
    );
    let id = ask(2);
    let fields = [("id", id.as_str()), ("verdict", "approve")];
    let route = "POST /{project}/approvals/decide";
    walk.form(Several, route, other, "/default/approvals/decide", &fields);

    let route = "POST /api/v1/catalog/{kind}/{name}/pointers/{label}/rollback";
    let back = walk.json(
        Several,
        route,
        program,
        &of("catalog/release/geo/pointers/prod/rollback"),
        json!({}),
    );
    let route = "POST /api/v1/quarantines/{id}/lift";
    let id = text(&back["quarantine"]["id"]);
    let digest = back["quarantine"]["digest"].clone();
    walk.json(
        One,
        route,
        program,
        &of(&format!("quarantines/{id}/lift")),
        json!({}),
    );
    let evidence = json!({"kind": "release", "name": "geo", "digest": digest, "gate": "eval", "outcome": "pass"});
    walk.json(
        One,
        "POST /api/v1/evidence",
        program,
        &of("evidence"),
        evidence,
    );

    let route = "POST /{project}/releases/promote";
    for number in ["1", "2"] {
        let expected = if number == "2" { "1" } else { "0" };
        let fields = [
            ("kind", "release"),
            ("name", "geo"),
            ("label", "staging"),
            ("number", number),
            ("expected", expected),
        ];
        walk.form(One, route, browser, "/default/releases/promote", &fields);
    }
    let fields = [
        ("kind", "release"),
        ("name", "geo"),
        ("label", "staging"),
        ("to", "1"),
        ("expected", "2"),
        ("quarantine", "on"),
    ];
    let route = "POST /{project}/releases/rollback";
    walk.form(
        Several,
        route,
        browser,
        "/default/releases/rollback",
        &fields,
    );
    let active = program.get("/api/v1/quarantines?active=true").json();
    let id = text(&active["items"][0]["id"]);
    let route = "POST /{project}/releases/lift";
    walk.form(
        One,
        route,
        browser,
        "/default/releases/lift",
        &[("id", &id)],
    );
    // Asked for on the board, and taken back there.
    let fields = [
        ("kind", "release"),
        ("name", "geo"),
        ("label", "prod"),
        ("number", "2"),
        ("expected", "3"),
    ];
    walk.form(
        One,
        "POST /{project}/releases/promote",
        browser,
        "/default/releases/promote",
        &fields,
    );
    let waiting = program.get("/api/v1/proposals?waiting=true").json();
    let id = text(&waiting["items"][0]["id"]);
    let route = "POST /{project}/approvals/withdraw";
    walk.form(
        One,
        route,
        browser,
        "/default/approvals/withdraw",
        &[("id", &id)],
    );
}

fn experiments(walk: &Walk, program: &Client, browser: &Client) {
    for text in ["tone one", "tone two"] {
        program.post(
            "/api/v1/prompts",
            &json!({"name": "tone", "content": prompt(text)}),
        );
    }
    program.put("/api/v1/prompts/tone/labels/live", &json!({"version": 1}));
    let content = json!({
        "target": {"kind": "prompt", "name": "tone", "label": "live"},
        "arms": [{"name": "control", "version": 1, "weight": 50}, {"name": "candidate", "version": 2, "weight": 50}],
        "metric": {"kind": "score", "name": "thumbs"},
    });
    let new = json!({"name": "api", "content": content});
    walk.json(
        One,
        "POST /api/v1/experiments",
        program,
        "/api/v1/experiments",
        new,
    );
    let at = |verb: &str| format!("/api/v1/experiments/api/{verb}");
    let route = "POST /api/v1/experiments/{name}/start";
    walk.json(One, route, program, &at("start"), json!({}));
    walk.json(
        One,
        "POST /api/v1/experiments/{name}/stop",
        program,
        &at("stop"),
        json!({}),
    );
    walk.json(One, route, program, &at("start"), json!({}));
    let route = "POST /api/v1/experiments/{name}/promote";
    walk.json(
        Several,
        route,
        program,
        &at("promote"),
        json!({"arm": "candidate"}),
    );

    let fields = [
        ("name", "page"),
        ("kind", "prompt"),
        ("target", "tone"),
        ("pointer", "live"),
        ("mode", "split"),
        ("unit", "session"),
        ("control", "2"),
        ("candidate", "v1"),
        ("share", "20"),
        ("metric", "latency"),
        ("guard", "error_rate"),
        ("guard_direction", "above"),
        ("guard_limit", "10"),
        ("minimum_sample", "500"),
        ("alpha", "5"),
        ("equivalence", "3"),
    ];
    let route = "POST /{project}/experiments";
    walk.form(One, route, browser, "/default/experiments", &fields);
    let at = |verb: &str| format!("/default/experiments/{verb}");
    let start = "POST /{project}/experiments/start";
    walk.form(One, start, browser, &at("start"), &[("name", "page")]);
    let route = "POST /{project}/experiments/stop";
    walk.form(One, route, browser, &at("stop"), &[("name", "page")]);
    walk.form(One, start, browser, &at("start"), &[("name", "page")]);
    let fields = [("name", "page"), ("arm", "candidate")];
    let route = "POST /{project}/experiments/promote";
    walk.form(Several, route, browser, &at("promote"), &fields);
}

fn datasets(walk: &Walk, program: &Client, browser: &Client) {
    let one = |route: &'static str, at: &str, body: Value| walk.json(One, route, program, at, body);
    let of = |rest: &str| format!("/api/v1/datasets/{rest}");
    let examples = json!([{"id": "a", "input": "first"}, {"id": "b", "input": "second"}]);
    let new = json!({"name": "asked", "examples": examples});
    one("POST /api/v1/datasets", "/api/v1/datasets", new);
    let edits = json!({"put": [{"id": "c", "input": "third"}]});
    let route = "POST /api/v1/datasets/{name}/versions";
    one(route, &of("asked/versions"), edits);
    let shares = json!({"shares": {"train": 0.5, "test": 0.5}});
    let route = "POST /api/v1/datasets/{name}/splits";
    one(route, &of("asked/splits"), shares);
    let file = program
        .call("POST", "/api/v1/dataset-uploads?name=more.jsonl")
        .body("application/octet-stream", b"{\"input\": \"fourth\"}")
        .send();
    let import = json!({"uploads": [file.json()], "options": {}});
    let route = "POST /api/v1/datasets/{name}/import";
    one(route, &of("asked/import"), import);
    let [traced, added] = ["one", "two"].map(|text| program.chat(&crate::harness::question(text)));
    let taken = json!({"traces": [{"trace": traced}]});
    let route = "POST /api/v1/datasets/{name}/examples/from-traces";
    one(route, &of("asked/examples/from-traces"), taken);
    let route = "POST /api/v1/datasets/{name}/transform";
    let transform = json!({"transform": {"field": "/input", "facts": ["words"]}});
    one(route, &of("asked/transform"), transform);
    let route = "DELETE /api/v1/datasets/{name}";
    one(route, &of("asked"), Value::Null);

    for route in ["POST /api/public/datasets", "POST /api/public/v2/datasets"] {
        let (_, at) = route.split_once(' ').unwrap();
        one(route, at, json!({"name": at.replace('/', "-")}));
    }
    let item = json!({"datasetName": "-api-public-datasets", "id": "item", "input": {"q": 1}});
    let at = "/api/public/dataset-items";
    one("POST /api/public/dataset-items", at, item);
    let linked = |run: &str| {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let body = json!({"runName": run, "datasetItemId": "item", "traceId": trace});
        let made = program.post("/api/public/dataset-run-items", &body).json();
        self::text(&made["datasetRunId"])
    };
    linked("first");
    let second = linked("second");
    let route = "DELETE /api/public/datasets/{name}/runs/{run}";
    let at = "/api/public/datasets/-api-public-datasets/runs/first";
    one(route, at, Value::Null);
    let fields = [("id", second.as_str())];
    let route = "POST /{project}/datasets/run/delete";
    walk.form(One, route, browser, "/default/datasets/run/delete", &fields);
    let route = "DELETE /api/public/dataset-items/{id}";
    one(route, "/api/public/dataset-items/item", Value::Null);

    let form = |route: &'static str, fields: &[(&str, &str)]| {
        let at = route
            .split_once(' ')
            .unwrap()
            .1
            .replace("{project}", "default");
        walk.form(One, route, browser, &at, fields);
    };
    let name = ("name", "by-hand");
    form("POST /{project}/datasets", &[name]);
    let text = ("input_as", "text");
    let route = "POST /{project}/datasets/example";
    form(route, &[name, ("base", "1"), ("input", "first"), text]);
    let listed = program.get("/api/v1/datasets/by-hand/examples").json();
    let id = self::text(&listed["items"][0]["id"]);
    let route = "POST /{project}/datasets/import";
    let pasted = ("text", "input,expected\na,b\n");
    form(
        route,
        &[name, pasted, ("format", "csv"), ("mode", "append")],
    );
    let route = "POST /{project}/datasets/splits";
    form(route, &[name, ("shares", "train 50, test 50")]);
    let newest = program.get("/api/v1/datasets/by-hand").json()["version"].to_string();
    let route = "POST /{project}/datasets/settings";
    let described = ("description", "what people ask");
    form(route, &[name, ("base", &newest), described]);
    let route = "POST /{project}/datasets/add";
    form(route, &[("traces", &added), ("dataset", "by-hand")]);
    let route = "POST /{project}/datasets/transform";
    form(route, &[name, ("field", "/input"), ("facts", "words")]);
    let route = "POST /{project}/datasets/example/remove";
    form(route, &[name, ("id", &id)]);
    let route = "POST /{project}/datasets/delete";
    form(route, &[name, ("confirm", "by-hand")]);
}

/// Waits for a choice, which tells more while its worker goes on.
fn wait_for_choice(program: &Client, id: &str, until: impl Fn(&Value) -> bool) {
    program.wait_for(&format!("/api/v1/choices/{id}"), |shown| {
        until(&shown["choice"])
    });
}

fn choices(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    for name in ["chosen", "chosen-later"] {
        let examples: Vec<Value> = (0..12)
            .map(|index| json!({"input": format!("{name} {index}"), "expected": "right"}))
            .collect();
        let body = json!({"name": name, "examples": examples});
        program.post("/api/v1/datasets", &body);
    }
    for model in ["fake-large", "fake-small"] {
        let price =
            json!({"provider": "fake", "model": model, "input_usd": 1.0, "output_usd": 1.0});
        assert_eq!(
            program
                .call("PUT", "/api/v1/prices")
                .json(&price)
                .send()
                .status,
            200
        );
    }
    let mut content = prompt("Answer.");
    content["model"] = json!("fake/fake-large");
    program.post(
        "/api/v1/prompts",
        &json!({"name": "chooser", "content": content}),
    );
    place.fake.always(Answer::text("right"));
    let task = json!({
        "dataset": "dataset:chosen@latest", "models": ["fake/fake-large", "fake/fake-small"],
        "evaluators": [{"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}],
    });
    let route = "POST /api/v1/choices";
    let body = json!({"name": "walked/choice", "task": task});
    let started = walk.json(One, route, program, "/api/v1/choices", body);
    let id = text(&started["id"]);
    wait_for_choice(program, &id, |choice| choice["state"] == "done");
    let route = "POST /api/v1/choices/{id}/evidence";
    let at = format!("/api/v1/choices/{id}/evidence");
    let subject = json!({"kind": "prompt", "name": "chooser"});
    walk.json(One, route, program, &at, subject);
    let route = "POST /{project}/choices/evidence";
    let fields = [("id", id.as_str()), ("subject", "prompt:chooser")];
    walk.form(One, route, browser, "/default/choices/evidence", &fields);

    let route = "POST /{project}/choices/models/edit";
    let fields = [("name", "walked/card"), ("model", "fake/fake-large")];
    walk.form(One, route, browser, "/default/choices/models/edit", &fields);

    // The provider says nothing, so that a choice can be held and goes on. Holding one
    // holds its evaluation too.
    place.fake.always(Answer::faulty(Fault::StallBeforeHeaders));
    let route = "POST /{project}/choices";
    let fields = [
        ("name", "walked/other"),
        ("dataset", "chosen-later"),
        ("m:fake/fake-large", "on"),
        ("more", "fake/fake-small"),
        ("e1", "metric:contains"),
    ];
    let reply = walk.form(One, route, browser, "/default/choices", &fields);
    let to = reply.header("location").unwrap();
    let id = to.split_once("id=").unwrap().1.to_owned();
    let asked = |choice: &Value| {
        choice["rounds"]
            .as_array()
            .is_some_and(|rounds| !rounds.is_empty())
    };
    wait_for_choice(program, &id, asked);
    let at = |verb: &str| format!("/api/v1/choices/{id}/{verb}");
    let route = "POST /api/v1/choices/{id}/pause";
    walk.json(Several, route, program, &at("pause"), json!({}));
    let route = "POST /api/v1/choices/{id}/resume";
    walk.json(One, route, program, &at("resume"), json!({}));
    let route = "POST /{project}/choices/change";
    let fields = [("id", id.as_str()), ("action", "pause")];
    let reply = browser.form("/default/choices/change", &fields);
    assert_eq!(reply.status, 303, "{reply:?}");
    let fields = [("id", id.as_str()), ("action", "resume")];
    walk.form(One, route, browser, "/default/choices/change", &fields);
    let route = "POST /api/v1/choices/{id}/stop";
    walk.json(Several, route, program, &at("stop"), json!({}));
}

fn modules(walk: &Walk, program: &Client, browser: &Client) {
    let call = program.call("POST", "/api/v1/evaluator-modules");
    let kept = call.body("application/wasm", &gives_one(1)).send();
    walk.note(One, "POST /api/v1/evaluator-modules", &kept);
    let fields = [("type", "wasm"), ("name", "one")];
    let saved = send_module_form(browser, &fields, &gives_one(2));
    walk.note(Several, "POST /{project}/evaluators/module", &saved);
}

fn evaluations(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    let examples =
        json!([{"input": "one", "expected": "right"}, {"input": "two", "expected": "right"}]);
    program.post(
        "/api/v1/datasets",
        &json!({"name": "judged", "examples": examples}),
    );
    // A dataset and a suite come of a file.
    let tests = "prompts: ['{{q}}']\nproviders: ['fake:fake-large']\ntests: [{vars: {q: x}, assert: [{type: contains, value: x}]}]";
    let body = json!({"name": "taken-over", "text": tests});
    let route = "POST /api/v1/evaluations/import";
    walk.json(Several, route, program, "/api/v1/evaluations/import", body);
    let fields = [("name", "taken-over-2"), ("text", tests)];
    let route = "POST /{project}/evaluations/import";
    walk.form(
        Several,
        route,
        browser,
        "/default/evaluations/import",
        &fields,
    );
    let document = json!({
        "dataset": "dataset:judged@latest",
        "candidates": [{"name": "one", "model": "fake/fake-large"}],
        "evaluators": [{"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}],
    });
    // The provider says nothing, so that an evaluation can be held and goes on.
    place.fake.always(Answer::faulty(Fault::StallBeforeHeaders));
    let route = "POST /api/v1/evaluations";
    let body = json!({"document": document});
    let started = walk.json(One, route, program, "/api/v1/evaluations", body);
    let id = text(&started["id"]);
    let at = |verb: &str| format!("/api/v1/evaluations/{id}/{verb}");
    let route = "POST /api/v1/evaluations/{id}/pause";
    walk.json(One, route, program, &at("pause"), json!({}));
    let route = "POST /api/v1/evaluations/{id}/resume";
    walk.json(One, route, program, &at("resume"), json!({}));
    let route = "POST /{project}/evaluations/change";
    let fields = [("id", id.as_str()), ("action", "pause")];
    walk.form(One, route, browser, "/default/evaluations/change", &fields);
    let route = "POST /api/v1/evaluations/{id}/stop";
    walk.json(One, route, program, &at("stop"), json!({}));
    let fields = [
        ("action", "start"),
        ("dataset", "judged"),
        ("name1", "one"),
        ("model1", "fake/fake-large"),
        ("e1", "metric:exact-match"),
    ];
    let route = "POST /{project}/evaluations";
    walk.form(One, route, browser, "/default/evaluations", &fields);

    let policy = r#"{"rules": [{"name": "empty", "at": ["output"], "check": {"type": "empty"}, "action": {"type": "flag"}}]}"#;
    let fields = [("name", "walked"), ("action", "save"), ("document", policy)];
    let route = "POST /{project}/guards/edit";
    walk.form(One, route, browser, "/default/guards/edit", &fields);
    let fields = [("name", "walked"), ("label", "dev"), ("version", "1")];
    let route = "POST /{project}/guards/labels";
    walk.form(One, route, browser, "/default/guards/labels", &fields);
    let fields = [("name", "walked"), ("action", "save"), ("entries", "one")];
    let route = "POST /{project}/guards/words/edit";
    walk.form(One, route, browser, "/default/guards/words/edit", &fields);
    let fields = [("name", "walked"), ("label", "dev"), ("version", "1")];
    let route = "POST /{project}/guards/words/labels";
    walk.form(One, route, browser, "/default/guards/words/labels", &fields);
    let route = "POST /{project}/guards/words/delete";
    let fields = [("name", "walked")];
    let delete = "/default/guards/words/delete";
    walk.form(Several, route, browser, delete, &fields);
    judged_finds(walk, place, program, browser);

    let route = "POST /{project}/evaluators/edit";
    let content = r#"{"type": "metric", "metric": {"id": "exact-match"}}"#;
    let fields = [("name", "exact"), ("action", "json"), ("document", content)];
    walk.form(One, route, browser, "/default/evaluators/edit", &fields);
    modules(walk, program, browser);
}

/// A find that is judged, and becomes data.
fn judged_finds(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    place.fake.when("hello guard", Answer::text("hello"));
    let policy = json!({"applies_to": {"models": ["fake/watched"]}, "rules": [{
        "name": "hello", "at": ["input"], "check": {"type": "words", "list": ["hello"]}, "action": {"type": "flag"},
    }]});
    let path = "/api/v1/catalog/guard/watching";
    let saved = program.post(&format!("{path}/versions"), &json!({"content": policy}));
    assert_eq!(saved.status, 201, "{saved:?}");
    program.put(
        &format!("{path}/pointers/production"),
        &json!({"version": 1}),
    );
    program.chat(
        &json!({"model": "fake/watched", "messages": [{"role": "user", "content": "hello guard"}]}),
    );
    let found = program.wait_for("/api/v1/guard/finds", |list| {
        list["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    });
    let id = found["items"][0]["id"].as_str().unwrap().to_owned();
    let said = program.post(
        &format!("/api/v1/guard/finds/{id}/verdict"),
        &json!({"verdict": "false_alarm"}),
    );
    assert_eq!(said.status, 200, "{said:?}");
    let route = "POST /api/v1/guard/classifiers";
    let at = "/api/v1/guard/classifiers";
    let texts = "{\"text\": \"the tower is open\", \"label\": \"benign\"}";
    walk.json(
        One,
        route,
        program,
        at,
        json!({"task": "injection", "jsonl": texts}),
    );
    let route = "POST /api/v1/guard/finds/dataset";
    let at = "/api/v1/guard/finds/dataset";
    walk.json(One, route, program, at, json!({"dataset": "said-one"}));
    let route = "POST /{project}/guards/finds/dataset";
    let fields = [("dataset", "said-two")];
    walk.form(
        One,
        route,
        browser,
        "/default/guards/finds/dataset",
        &fields,
    );
    let texts = json!({"name": "teaching", "examples": [{"input": "the tower is open", "expected": "benign"}]});
    assert_eq!(program.post("/api/v1/datasets", &texts).status, 201);
    let route = "POST /{project}/guards/classifiers";
    let fields = [("dataset", "teaching"), ("task", "injection")];
    walk.form(One, route, browser, "/default/guards/classifiers", &fields);
}

fn review(walk: &Walk, program: &Client) {
    let one = |route: &'static str, at: &str, body: Value| walk.json(One, route, program, at, body);
    let document =
        json!({"questions": [{"name": "good", "type": "choice", "options": ["yes", "no"]}]});
    let at = "/api/v1/catalog/review_queue/walked/versions";
    let made = program.post(at, &json!({"content": document}));
    assert_eq!(made.status, 201, "{made:?}");
    let of = |rest: &str| format!("/api/v1/review/queues/walked/{rest}");
    let fill = json!({"source": {"dataset": {"name": "judged"}}});
    let route = "POST /api/v1/review/queues/{name}/fill";
    one(route, &of("fill"), fill);
    let next = program.post("/api/v1/review/inbox/walked/next", &json!({}));
    let item = &next.json()["item"];
    let id = text(&item["id"]);
    let label = json!({"fence": item["fence"], "values": {"good": "yes"}});
    let at = |verb: &str| format!("/api/v1/review/items/{id}/{verb}");
    assert_eq!(program.post(&at("label"), &label).status, 200);
    let route = "POST /api/v1/review/items/{id}/adjudicate";
    one(route, &at("adjudicate"), json!({"values": {"good": "no"}}));
    let route = "POST /api/v1/review/items/{id}/reopen";
    one(route, &at("reopen"), json!({}));
    let route = "POST /api/v1/review/queues/{name}/gold";
    one(route, &of("gold"), json!({"dataset": "gold"}));
    let route = "POST /api/v1/review/items/{id}/close";
    one(route, &at("close"), json!({}));
    let route = "POST /api/v1/review/queues/{name}/guests";
    let guest = one(route, &of("guests"), json!({"name": "Hanako"}));
    let at = format!("/api/v1/review/guests/{}", text(&guest["guest"]["id"]));
    let route = "DELETE /api/v1/review/guests/{id}";
    one(route, &at, Value::Null);
}

fn improvements(walk: &Walk, place: &Place, program: &Client, browser: &Client) {
    let examples: Vec<Value> = (0..9)
        .map(|index| json!({"input": format!("question {index} of many"), "expected": "right"}))
        .collect();
    let dataset = json!({"name": "to-improve", "examples": examples});
    program.post("/api/v1/datasets", &dataset);
    let content =
        json!({"messages": [{"role": "system", "content": "Answer."}], "model": "fake/fake-large"});
    let prompt = json!({"name": "improvable", "content": content});
    program.post("/api/v1/prompts", &prompt);
    // The provider says nothing, so that an improvement can be held and goes on.
    place.fake.always(Answer::faulty(Fault::StallBeforeHeaders));
    let body = json!({
        "prompt": "prompt:improvable@latest", "dataset": "dataset:to-improve@latest",
        "evaluators": [{"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}],
        "reflector": "fake/fake-large",
    });
    let route = "POST /api/v1/improvements";
    let started = walk.json(One, route, program, "/api/v1/improvements", body);
    let id = text(&started["id"]);
    let at = |verb: &str| format!("/api/v1/improvements/{id}/{verb}");
    let route = "POST /api/v1/improvements/{id}/pause";
    walk.json(One, route, program, &at("pause"), json!({}));
    let route = "POST /api/v1/improvements/{id}/resume";
    walk.json(One, route, program, &at("resume"), json!({}));
    let route = "POST /{project}/improvements/change";
    let fields = [("id", id.as_str()), ("action", "pause")];
    walk.form(One, route, browser, "/default/improvements/change", &fields);
    let route = "POST /api/v1/improvements/{id}/stop";
    walk.json(One, route, program, &at("stop"), json!({}));
    let fields = [
        ("prompt", "improvable"),
        ("dataset", "to-improve"),
        ("reflector", "fake/fake-large"),
        ("e1", "metric:exact-match"),
    ];
    let route = "POST /{project}/improvements";
    walk.form(One, route, browser, "/default/improvements", &fields);
}

fn live_evaluations(walk: &Walk, program: &Client, browser: &Client) {
    // The evaluator "exact" was saved before.
    let content = json!({"evaluator": "evaluator:exact@latest", "score": "exact", "sample": 0.5});
    let route = "POST /api/v1/live-evaluations";
    let body = json!({"name": "watch/exact", "content": content});
    walk.json(One, route, program, "/api/v1/live-evaluations", body);
    let at = |verb: &str| format!("/api/v1/live-evaluations/watch%2Fexact/{verb}");
    let route = "POST /api/v1/live-evaluations/{name}/pause";
    walk.json(
        One,
        route,
        program,
        &at("pause"),
        json!({"reason": "a look"}),
    );
    let route = "POST /api/v1/live-evaluations/{name}/resume";
    walk.json(One, route, program, &at("resume"), json!({}));
    let route = "POST /{project}/live/change";
    let fields = [("name", "watch/exact"), ("action", "pause")];
    walk.form(One, route, browser, "/default/live/change", &fields);
    let route = "POST /{project}/live/edit";
    let fields = [
        ("name", "watch/more"),
        ("is_new", "1"),
        ("evaluator", "evaluator:exact@latest"),
        ("score", "exact"),
        ("sample", "10"),
        ("max_per_hour", "5"),
    ];
    walk.form(One, route, browser, "/default/live/edit", &fields);
}
