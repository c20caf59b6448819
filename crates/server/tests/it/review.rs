//! Review over HTTP: queues are filled, items given out, labelled, taken back, settled, and
//! become scores and gold.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{Client, Live, PATIENCE, Place, Reply, on_both_databases, question};

on_both_databases!(
    raters_never_hold_the_same_place,
    a_late_label_hears_what_became_of_the_item,
    who_differs_is_settled_and_becomes_gold,
    labels_are_scores_and_can_be_taken_back,
    a_label_survives_a_kill,
    guests_see_one_queue_for_a_time,
    a_guest_leaves,
    guidelines_are_markdown_and_no_more,
);

const QUEUE: &str = "support";

fn queue(rest: &str) -> String {
    format!("/api/v1/review/queues/{QUEUE}{rest}")
}

fn inbox(rest: &str) -> String {
    format!("/api/v1/review/inbox/{QUEUE}{rest}")
}

fn item(id: &str, rest: &str) -> String {
    format!("/api/v1/review/items/{id}{rest}")
}

fn good() -> Value {
    json!({"name": "good", "type": "choice", "options": ["yes", "no"]})
}

/// Saves the queue's document.
fn save(client: &Client, document: &Value) -> Reply {
    let at = format!("/api/v1/catalog/review_queue/{QUEUE}/versions");
    client.post(&at, &json!({"content": document}))
}

fn make_queue(client: &Client, document: &Value) {
    let reply = save(client, document);
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn make_dataset(client: &Client, name: &str, examples: &Value) {
    let body = json!({"name": name, "examples": examples});
    let reply = client.post("/api/v1/datasets", &body);
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn numbered(count: usize) -> Value {
    let one = |n: usize| json!({"id": format!("e{n}"), "input": format!("question {n}")});
    json!((0..count).map(one).collect::<Vec<_>>())
}

fn fill(client: &Client, request: &Value) -> Value {
    let reply = client.post(&queue("/fill"), request);
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn of_dataset(name: &str) -> Value {
    json!({"source": {"dataset": {"name": name}}})
}

/// The item that a rater is given; null when there is none.
fn next(client: &Client) -> Value {
    let reply = client.post(&inbox("/next"), &json!({}));
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["item"].clone()
}

fn id(value: &Value) -> &str {
    value["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id in {value}"))
}

fn label(client: &Client, held: &Value, values: &Value) -> Reply {
    let body = json!({"fence": held["fence"], "values": values});
    client.post(&item(id(held), "/label"), &body)
}

fn labelled(client: &Client, held: &Value, values: &Value) -> Value {
    let reply = label(client, held, values);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn labeller(place: &Place, live: &Live) -> Client {
    live.with_key(&place.make_key("default", "labeller").1)
}

fn raters_never_hold_the_same_place(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make_queue(&live, &json!({"questions": [good()]}));
    make_dataset(&live, "asked", &numbered(5));
    let filled = fill(&live, &of_dataset("asked"));
    assert_eq!(
        (&filled["population"], &filled["added"], &filled["drawn"]),
        (&json!(5), &json!(5), &json!(5)),
        "everything was taken, which is a sample of all"
    );
    let again = fill(&live, &of_dataset("asked"));
    assert_eq!((&again["added"], &again["known"]), (&json!(0), &json!(5)));

    // Eight raters ask at once for five items.
    let raters: Vec<Client> = (0..8).map(|_| labeller(&place, &live)).collect();
    let given: Vec<Value> = std::thread::scope(|scope| {
        let asks: Vec<_> = raters
            .iter()
            .map(|rater| scope.spawn(|| next(rater)))
            .collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    let held: Vec<&Value> = given.iter().filter(|item| !item.is_null()).collect();
    let different: BTreeSet<&str> = held.iter().map(|item| id(item)).collect();
    assert_eq!((held.len(), different.len()), (5, 5), "{given:#?}");
    let shown = live.get(&queue("")).json();
    assert_eq!(shown["counts"]["reserved"], 5);

    // One rater asks twice at once and holds one item.
    let (at, item_of) = given
        .iter()
        .enumerate()
        .find(|(_, item)| !item.is_null())
        .unwrap();
    assert_eq!(
        id(&next(&raters[at])),
        id(item_of),
        "the same after a reload"
    );

    // Whoever leaves gives back; nobody else's item is touched.
    let left = raters[at].post(&inbox("/release"), &json!({}));
    assert_eq!(left.json()["released"], 1);
    let idle = given.iter().position(Value::is_null).unwrap();
    let taken = next(&raters[idle]);
    assert_eq!(id(&taken), id(item_of), "what was given back goes round");
    let refused = label(&raters[at], item_of, &json!({"good": "yes"}));
    assert_eq!(refused.refusal(), (409, "item_taken".to_owned()));
    labelled(&raters[idle], &taken, &json!({"good": "no"}));

    // A second item is given while the first is looked at, and no more than a few.
    let body = json!({"besides": [id(&taken)]});
    let ahead = raters[idle].post(&inbox("/next"), &body);
    assert_eq!(ahead.json()["item"], Value::Null, "all others are held");

    // What is skipped is not given to the same rater again.
    let other = given.iter().rposition(|item| !item.is_null()).unwrap();
    let skipped = &given[other];
    let body = json!({"fence": skipped["fence"], "reason": "不明"});
    let reply = raters[other].post(&item(id(skipped), "/skip"), &body);
    assert_eq!(reply.json()["skipped"], 1, "{reply:?}");
    assert_eq!(next(&raters[other]), Value::Null);
    assert_eq!(id(&next(&raters[idle])), id(skipped));

    // Another project sees none of it.
    place.add_project("other");
    let stranger = live.with_key(&place.make_key("other", "admin").1);
    assert_eq!(stranger.get(&queue("")).refusal().0, 404);
    assert_eq!(stranger.get(&item(id(skipped), "")).refusal().0, 404);
    assert_eq!(
        label(&stranger, skipped, &json!({"good": "no"})).refusal(),
        (404, "no_such_item".to_owned())
    );
}

fn a_late_label_hears_what_became_of_the_item(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make_queue(&live, &json!({"questions": [good()], "reserve_s": 1}));
    make_dataset(&live, "asked", &numbered(1));
    fill(&live, &of_dataset("asked"));
    let (slow, quick) = (labeller(&place, &live), labeller(&place, &live));
    let held = next(&slow);
    // The place is another's once the time is over.
    let until = Instant::now() + PATIENCE;
    let taken = loop {
        let given = next(&quick);
        if !given.is_null() {
            break given;
        }
        assert!(Instant::now() < until, "the item is never given again");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(id(&taken), id(&held));
    let late = label(&slow, &held, &json!({"good": "yes"}));
    // The second rater's time may be over by now as well.
    let (status, code) = late.refusal();
    assert!(
        status == 409 && ["item_taken", "item_free"].contains(&&*code),
        "{late:?}"
    );
    // Late, but nobody took the place: nothing is lost.
    live.wait_for(&queue(""), |shown| shown["counts"]["reserved"] == 0);
    let done = labelled(&quick, &taken, &json!({"good": "no"}));
    assert_eq!(done["state"], "done");
    let late = label(&slow, &held, &json!({"good": "yes"}));
    assert_eq!(late.refusal(), (409, "item_done".to_owned()));
    assert!(late.text().contains("it has all its labels"), "{late:?}");
    // The same label again is one label; another one replaces it.
    let again = labelled(&quick, &taken, &json!({"good": "no"}));
    assert_eq!(again["label"], done["label"]);
    let corrected = labelled(&quick, &taken, &json!({"good": "yes"}));
    assert_ne!(corrected["label"], done["label"]);
    let shown = live.get(&item(id(&taken), "")).json();
    assert_eq!(shown["labels"].as_array().unwrap().len(), 2);
    assert_eq!(shown["labels"][1]["replaces"], done["label"]);
    assert_eq!(shown["resolved"], json!({"good": "yes"}));
    // Taken out is taken out.
    let reason = json!({"reason": "mistaken"});
    assert_eq!(live.post(&item(id(&taken), "/close"), &reason).status, 200);
    let late = label(&quick, &taken, &json!({"good": "no"}));
    assert_eq!(late.refusal(), (409, "item_closed".to_owned()));
    let undone = quick.call("POST", &inbox("/undo")).send();
    assert_eq!(undone.refusal(), (409, "item_closed".to_owned()));
}

fn who_differs_is_settled_and_becomes_gold(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let document = json!({
        "questions": [
            good(),
            {"name": "grade", "type": "rating", "scale": {"min": 1, "max": 5}, "tolerance": 1},
            {"name": "better", "type": "correction", "required": false},
            {"name": "why", "type": "text", "required": false},
            {"name": "places", "type": "spans", "options": ["wrong"], "required": false},
        ],
        "raters": 2, "blind": true, "mask": true, "into": "dataset:gold", "gold": "better",
    });
    make_queue(&live, &document);
    let example = |n: usize| {
        json!({
            "id": format!("e{n}"), "input": format!("mail taro@example.jp or call 090-1234-567{n}"),
            "source": {"answer": format!("answer {n}")}, "metadata": {"model": "secret"}, "split": "test",
        })
    };
    make_dataset(&live, "asked", &json!([example(0), example(1), example(2)]));
    fill(&live, &of_dataset("asked"));
    let (one, two) = (labeller(&place, &live), labeller(&place, &live));
    let held = next(&one);
    assert_eq!(held["snapshot"]["input"], "mail [email] or call [phone]");
    assert_eq!(held["facts"], Value::Null);
    assert!(!held.to_string().contains("secret"), "{held}");
    assert_eq!((&held["place"], &held["of"]), (&json!(1), &json!(3)));

    // Every wrong answer is found, with its place.
    for (values, at) in [
        (json!({"good": "maybe", "grade": 1}), "/values/good"),
        (json!({"good": "yes"}), "/values/grade"),
        (json!({"good": "yes", "grade": 2.5}), "/values/grade"),
        (json!({"good": "yes", "grade": 6}), "/values/grade"),
        (
            json!({"good": "yes", "grade": 1, "nobody": 1}),
            "/values/nobody",
        ),
        (json!({"good": "yes", "grade": 1, "why": 3}), "/values/why"),
        (
            json!({"good": "yes", "grade": 1, "places": [{"start": 0, "end": 99, "label": "wrong"}]}),
            "/values/places/0/end",
        ),
        (
            json!({"good": "yes", "grade": 1, "places": [{"start": 0, "end": 1, "label": "right"}]}),
            "/values/places/0/label",
        ),
    ] {
        let reply = label(&one, &held, &values);
        assert_eq!(
            reply.refusal(),
            (400, "invalid_label".to_owned()),
            "{reply:?}"
        );
        assert_eq!(reply.json()["error"]["at"], at);
    }

    // Both agree on the first, differ on the second, and on the third within the tolerance.
    let answers = [
        [
            json!({"good": "yes", "grade": 5, "better": "answer 0"}),
            json!({"good": "yes", "grade": 5, "better": "answer 0"}),
        ],
        [
            json!({"good": "yes", "grade": 4, "better": "x"}),
            json!({"good": "no", "grade": 1, "better": "y"}),
        ],
        [
            json!({"good": "no", "grade": 1, "better": "z"}),
            json!({"good": "no", "grade": 2, "better": "z "}),
        ],
    ];
    for [first, second] in &answers {
        labelled(&one, &next(&one), first);
        labelled(&two, &next(&two), second);
    }
    assert_eq!(next(&one), Value::Null);
    let shown = live.get(&queue("")).json();
    let counts = &shown["counts"];
    assert_eq!(
        (&counts["done"], &counts["adjudicate"]),
        (&json!(2), &json!(1)),
        "{shown}"
    );
    let agreement = |name: &str| {
        let all = shown["agreement"].as_array().unwrap();
        all.iter()
            .find(|one| one["question"] == name)
            .unwrap()
            .clone()
    };
    // yes/yes, yes/no, no/no: observed 2/3, expected 4/9, κ = 0.4.
    let kappa = agreement("good")["kappa"].as_f64().unwrap();
    assert!((kappa - 0.4).abs() < 1e-9, "{kappa}");
    assert_eq!(agreement("good")["n"], 3);
    assert!(agreement("grade")["weighted_kappa"].as_f64().unwrap() > 0.3);
    assert!(agreement("good")["alpha"].as_f64().is_some());
    let raters = shown["per_rater"].as_array().unwrap();
    assert_eq!(raters.len(), 2);
    assert!(
        raters
            .iter()
            .all(|rater| rater["labelled"] == 3 && rater["who"] == "labeller")
    );

    // Gold is what is settled; the rest waits.
    let made = live.post(&queue("/gold"), &json!({})).json();
    assert_eq!(
        (&made["taken"], &made["unsettled"]),
        (&json!(2), &json!(1)),
        "{made}"
    );
    let waiting = live.get(&queue("/items?state=adjudicate")).json();
    let waiting = &waiting["items"][0];
    assert_eq!(waiting["differs"], json!(["good", "grade", "better"]));
    let settled =
        json!({"values": {"good": "no", "grade": 2, "better": "w"}, "comment": "二人とも違う"});
    let viewer = live.with_key(&place.make_key("default", "viewer").1);
    let at = item(id(waiting), "/adjudicate");
    assert_eq!(viewer.post(&at, &settled).status, 403);
    assert_eq!(one.post(&at, &settled).status, 403);
    assert_eq!(live.post(&at, &settled).json()["state"], "closed");
    let made = live.post(&queue("/gold"), &json!({})).json();
    assert_eq!(
        (&made["taken"], &made["saved"]["version"]),
        (&json!(3), &json!(2)),
        "{made}"
    );
    assert_eq!(
        made["saved"]["added"], 1,
        "what was gold before is not touched"
    );
    let gold = live.get("/api/v1/datasets/gold/examples/e1").json();
    assert_eq!(
        (&gold["expected"], &gold["split"]),
        (&json!("w"), &json!("test"))
    );
    assert_eq!(gold["input"], "mail [email] or call [phone]");
    assert_eq!(gold["metadata"]["review.good"], "no");
    let review = gold["source"]["review"].as_str().unwrap();
    assert!(review.starts_with("review_queue:support@sha256:") && review.ends_with(id(waiting)));

    // Files: a row per label, an object per item.
    let csv = viewer.get(&queue("/export?format=csv")).text();
    assert_eq!(csv.lines().count(), 1 + 7, "{csv}");
    let jsonl = viewer.get(&queue("/export")).text();
    assert_eq!(jsonl.lines().count(), 3);
}

fn labels_are_scores_and_can_be_taken_back(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    make_queue(&live, &json!({"questions": [good()]}));
    place.fake.always(Answer::text("right"));
    let traces: Vec<String> = (0..6)
        .map(|n| live.chat(&question(&format!("Q{n}"))))
        .collect();
    let score = |trace: &str, name: &str, value: Value| {
        let body = json!({"trace_id": trace, "name": name, "value": value});
        assert_eq!(live.post("/api/v1/scores", &body).status, 201);
    };
    for (n, trace) in traces.iter().enumerate() {
        live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
        score(trace, "quality", json!([0.9, 0.1, 0.5, 0.7, 0.3, 0.8][n]));
    }
    score(&traces[3], "thumbs", json!(false));
    let second = live.with_key(&place.make_key("default", "caller").1);
    let body = json!({"trace_id": traces[5], "name": "quality", "value": 0.2});
    assert_eq!(second.post("/api/v1/scores", &body).status, 201);

    // What comes in by which reason, in order; the random part is marked.
    let inputs = |state: &str| -> Vec<(String, bool)> {
        let page = live.get(&queue(&format!("/items?state={state}"))).json();
        let items = page["items"].as_array().unwrap();
        let read = |one: &Value| {
            let input = one["snapshot"]["input"].to_string();
            let at = (0..6).find(|n| input.contains(&format!("Q{n}"))).unwrap();
            (format!("Q{at}"), one["drawn"] == true)
        };
        items.iter().map(read).collect()
    };
    let from = |pick: &str, more: Value| {
        let mut request = json!({"source": {"traces": {}}, "pick": pick});
        for (key, value) in more.as_object().unwrap() {
            request[key] = value.clone();
        }
        request
    };
    let clear = || {
        for one in live.get(&queue("/items?state=open")).json()["items"]
            .as_array()
            .unwrap()
        {
            assert_eq!(live.post(&item(id(one), "/close"), &json!({})).status, 200);
        }
    };
    fill(&live, &from("bad_feedback", json!({})));
    assert_eq!(inputs("open"), [("Q3".to_owned(), false)]);
    clear();
    fill(&live, &from("disagreement", json!({"score": "quality"})));
    assert_eq!(inputs("open"), [("Q5".to_owned(), false)]);
    clear();
    fill(
        &live,
        &from(
            "uncertain",
            json!({"score": "quality", "threshold": 0.5, "limit": 1}),
        ),
    );
    assert_eq!(inputs("open"), [("Q2".to_owned(), false)]);
    clear();
    let filled = fill(
        &live,
        &from("worst", json!({"score": "quality", "limit": 2})),
    );
    assert_eq!(
        inputs("open"),
        [("Q1".to_owned(), false), ("Q4".to_owned(), false)]
    );
    assert_eq!(
        (&filled["population"], &filled["known"]),
        (&json!(6), &json!(3))
    );
    clear();
    let random = from("random", json!({"limit": 3, "seed": 7}));
    fill(&live, &random);
    let drawn = live.get(&queue("")).json()["counts"]["drawn"].clone();
    assert_eq!(drawn, 3, "those that were there count as drawn as well");
    let none = live.post(&queue("/fill"), &from("worst", json!({})));
    assert_eq!(none.refusal().0, 400);
    let wrong = json!({"source": {"traces": {"filter": "nonsense ="}}});
    assert_eq!(
        live.post(&queue("/fill"), &wrong).refusal(),
        (400, "invalid_filter".to_owned())
    );
    clear();

    // A person labels; the score says so, and goes when it is taken back.
    let trace = live.chat(&question("one more"));
    live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    fill(&live, &json!({"source": {"picked": [{"trace": trace}]}}));
    let person = place.add_person("default", "labeller");
    let browser = live.browser_of(&person);
    let held = next(&browser);
    assert_eq!(held["snapshot"]["output"], "right");
    assert!(held["facts"]["metadata"]["model"].is_string(), "{held}");
    labelled(&browser, &held, &json!({"good": "yes"}));
    let scores = || {
        let all = live.get(&format!("/api/v1/scores?trace_id={trace}")).json();
        all["items"].as_array().unwrap().clone()
    };
    let found = scores();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["name"], &found[0]["value"], &found[0]["source"]),
        (&json!("good"), &json!("yes"), &json!("human"))
    );
    assert_eq!(found[0]["author"], format!("user:{}", person.id));
    assert!(
        found[0]["comment"]
            .as_str()
            .unwrap()
            .starts_with("review_queue:support@sha256:")
    );
    let undone = browser.call("POST", &inbox("/undo")).send().json();
    assert_eq!(undone["item"]["mine"], json!({"good": "yes"}));
    assert!(scores().is_empty(), "{:?}", scores());
    let shown = live.get(&item(id(&held), "")).json();
    assert_eq!(
        (&shown["state"], &shown["labels"][0]["current"]),
        (&json!("open"), &json!(false))
    );
    labelled(&browser, &undone["item"], &json!({"good": "no"}));
    assert_eq!(scores()[0]["value"], "no");
    // Settled by somebody else: both stand, and the filter finds the later one.
    let settled = json!({"values": {"good": "yes"}});
    assert_eq!(
        live.post(&item(id(&held), "/adjudicate"), &settled).status,
        200
    );
    let listed = live
        .get("/api/v1/traces?filter=score.good%20%3D%20%22yes%22")
        .json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    // A labeller sees nothing else.
    for path in [
        "/api/v1/traces",
        "/api/v1/datasets",
        "/api/v1/catalog/kinds",
        "/api/v1/review/queues",
        &queue(""),
    ] {
        assert_eq!(browser.get(path).status, 403, "{path}");
    }
    let wrong = json!({"content": {"questions": []}});
    let at = format!("/api/v1/catalog/review_queue/{QUEUE}/versions");
    assert_eq!(browser.post(&at, &wrong).status, 403);
}

fn a_label_survives_a_kill(place: Place) {
    let place = place.with_key("editor");
    let mut live = place.start();
    make_queue(&live, &json!({"questions": [good()]}));
    make_dataset(&live, "asked", &numbered(2));
    fill(&live, &of_dataset("asked"));
    let key = place.make_key("default", "labeller").1;
    let rater = live.with_key(&key);
    let first = next(&rater);
    labelled(&rater, &first, &json!({"good": "yes"}));
    let second = next(&rater);
    live.signal("-KILL");
    live.wait();
    let live = place.start();
    let rater = live.with_key(&key);
    let shown = live.get(&item(id(&first), "")).json();
    assert_eq!(
        (&shown["state"], &shown["resolved"]),
        (&json!("done"), &json!({"good": "yes"}))
    );
    // What was held is held still, and its label counts; the dataset is not needed for that.
    assert_eq!(live.delete("/api/v1/datasets/asked").status, 204);
    let held = next(&rater);
    assert_eq!((id(&held), &held["fence"]), (id(&second), &second["fence"]));
    labelled(&rater, &second, &json!({"good": "no"}));
}

fn guests_see_one_queue_for_a_time(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make_queue(&live, &json!({"questions": [good()]}));
    let other = "/api/v1/catalog/review_queue/other/versions";
    let document = json!({"content": {"questions": [good()]}});
    assert_eq!(live.post(other, &document).status, 201);
    make_dataset(&live, "asked", &numbered(2));
    fill(&live, &of_dataset("asked"));
    let made = live.post(&queue("/guests"), &json!({"name": "花子"}));
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let token = made["token"].as_str().unwrap();
    assert!(
        made["link"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/guest?token={token}"))
    );
    let guest = live.with_key(token);
    let queues = guest.get("/api/v1/review/inbox").json();
    let names: Vec<&Value> = queues["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["queue"])
        .collect();
    assert_eq!(names, ["support"]);
    assert_eq!(
        guest.get("/api/v1/review/inbox/other").refusal(),
        (404, "no_such_queue".to_owned())
    );
    for path in [
        "/api/v1/traces",
        "/api/v1/prompts",
        "/api/v1/keys",
        &queue(""),
    ] {
        assert_eq!(guest.get(path).status, 403, "{path}");
    }
    let held = next(&guest);
    labelled(&guest, &held, &json!({"good": "yes"}));
    let raters = live.get(&queue("")).json()["per_rater"].clone();
    assert_eq!(raters[0]["who"], "花子", "{raters}");
    // The token is nowhere but in the link.
    let listed = live.get(&queue("/guests")).text();
    assert!(!listed.contains(token), "{listed}");

    // Revoked: over at once, what was held goes round, what was said stays.
    let held = next(&guest);
    let at = format!(
        "/api/v1/review/guests/{}",
        made["guest"]["id"].as_str().unwrap()
    );
    assert_eq!(live.delete(&at).status, 204);
    assert_eq!(guest.get("/api/v1/review/inbox").status, 401);
    assert_eq!(label(&guest, &held, &json!({"good": "no"})).status, 401);
    assert_eq!(id(&next(&labeller(&place, &live))), id(&held));
    assert_eq!(live.get(&queue("")).json()["counts"]["done"], 1);

    // Over by its time.
    let soon = base::Clock::now_us(&base::SystemClock) + 2_000_000;
    let made = live
        .post(
            &queue("/guests"),
            &json!({"name": "short", "expires_at": soon}),
        )
        .json();
    let guest = live.with_key(made["token"].as_str().unwrap());
    let until = Instant::now() + PATIENCE;
    while guest.get("/api/v1/review/inbox").status != 401 {
        assert!(Instant::now() < until, "the link never ends");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for (body, at) in [
        (json!({"name": " "}), "name"),
        (json!({"name": "x", "days": 0}), "days"),
        (json!({"name": "x", "expires_at": 1}), "expires_at"),
    ] {
        let reply = live.post(&queue("/guests"), &body);
        assert_eq!(
            (reply.status, reply.json()["error"]["at"].as_str()),
            (400, Some(at))
        );
    }
}

/// Signing out ends a guest's visit: the browser forgets the link, what was held goes round.
fn a_guest_leaves(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    make_queue(&live, &json!({"questions": [good()]}));
    make_dataset(&live, "asked", &numbered(1));
    fill(&live, &of_dataset("asked"));
    let made = live
        .post(&queue("/guests"), &json!({"name": "花子"}))
        .json();
    let link = format!("/guest?token={}", made["token"].as_str().unwrap());
    let guest = live.browser();
    let page = guest.get(&link).header("location").unwrap();
    let shown = guest.get(&page);
    assert_eq!(shown.status, 200, "{shown:?}");
    // They are named, and can leave.
    let text = shown.text();
    assert!(
        text.contains("花子") && text.contains("/sign-out"),
        "{text}"
    );
    let left = guest.form("/sign-out", &[]);
    assert_eq!(left.header("location").as_deref(), Some("/guest"));
    assert_eq!(guest.get("/guest").status, 200);
    let to = guest.get(&page).header("location").unwrap_or_default();
    assert!(to.starts_with("/sign-in"), "{to}");
    // Their only item is free, and the link still opens the review.
    next(&labeller(&place, &live));
    assert_eq!(
        guest.get(&link).header("location").as_deref(),
        Some(page.as_str())
    );
    assert_eq!(guest.get(&page).status, 200);
}

/// Guidelines are shown as Markdown. Nothing in them becomes markup of its own.
fn guidelines_are_markdown_and_no_more(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let text = [
        "# Judging <b>well</b>",
        "Read **all** of it, then *decide*: `a < b`.",
        "",
        "1. First",
        "   - nested",
        "2. Second",
        "",
        "> quoted",
        "",
        "```html",
        "<script>alert(1)</script>",
        "```",
        "[our rules](https://example.test/rules?a=1&b=2) and https://example.test/x.",
        "[a](javascript:alert(2)) [b](data:text/html,x) ![c](https://example.test/p.gif)",
        "[d](https://example.test/\"onmouseover=alert(3)) <img src=x onerror=alert(4)>",
        "hidden \u{202e}txet &lt;i&gt;",
    ];
    make_queue(
        &live,
        &json!({"questions": [good()], "guidelines": text.join("\n")}),
    );
    make_dataset(&live, "asked", &numbered(1));
    fill(&live, &of_dataset("asked"));
    let person = live.browser_of(&place.add_person("default", "labeller"));
    let page = person.get("/default/review/support").text();
    let from = page.find("review-guidelines\">").unwrap();
    let shown = &page[from..from + page[from..].find("</details>").unwrap()];
    for part in [
        "<h3>Judging &lt;b&gt;well&lt;/b&gt;</h3>",
        "<p>Read <strong>all</strong> of it, then <em>decide</em>: <code>a &lt; b</code>.</p>",
        "<ol><li><p>First</p><ul><li><p>nested</p></li></ul></li><li><p>Second</p></li></ol>",
        "<blockquote><p>quoted</p></blockquote>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "rel=\"noopener noreferrer nofollow\" href=\"https://example.test/rules?a=1&amp;b=2\">our rules</a> <span class=\"small muted\">(example.test)</span>",
        "href=\"https://example.test/x\">https://example.test/x</a>.",
        "[a](javascript:alert(2)) [b](data:text/html,x) <a ",
        "href=\"https://example.test/&quot;onmouseover=alert(3\">d</a>",
        "&lt;img src=x onerror=alert(4)&gt;",
        "hidden \\u{202e}txet &amp;lt;i&amp;gt;",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    for part in [
        "<script",
        "<img",
        "<b>",
        "<i>",
        "href=\"javascript",
        "href=\"data",
        " onmouseover",
    ] {
        assert!(!shown.contains(part), "{part}\n{shown}");
    }
}

/// What is wrong with a queue's document is found where it is.
#[test]
fn documents_are_checked_where_they_are_wrong() {
    let place = Place::new();
    let live = place.start();
    let with = |question: Value| json!({"questions": [question]});
    for (document, at) in [
        (json!({"questions": []}), "/questions"),
        (json!({"questions": [good(), good()]}), "/questions/1/name"),
        (
            with(json!({"name": "q", "type": "choice", "options": ["one"]})),
            "/questions/0/options",
        ),
        (
            with(json!({"name": "q", "type": "choice", "options": ["a", "a"]})),
            "/questions/0/options/1",
        ),
        (
            with(json!({"name": " q", "type": "text"})),
            "/questions/0/name",
        ),
        (
            with(json!({"name": "q", "type": "text", "options": ["a"]})),
            "/questions/0/options",
        ),
        (
            with(json!({"name": "q", "type": "rating", "scale": {"min": 5, "max": 1}})),
            "/questions/0/scale",
        ),
        (
            with(json!({"name": "q", "type": "text", "tolerance": 1})),
            "/questions/0/tolerance",
        ),
        (
            with(json!({"name": "q", "type": "text", "target": "input"})),
            "/questions/0/target",
        ),
        (json!({"questions": [good()], "raters": 0}), "/raters"),
        (json!({"questions": [good()], "overlap": 1.5}), "/overlap"),
        (json!({"questions": [good()], "reserve_s": 0}), "/reserve_s"),
        (json!({"questions": [good()], "into": "gold"}), "/into"),
        (json!({"questions": [good()], "gold": "nobody"}), "/gold"),
    ] {
        let reply = save(&live, &document);
        assert_eq!(
            reply.refusal(),
            (400, "invalid_document".to_owned()),
            "{reply:?}"
        );
        assert_eq!(reply.json()["error"]["at"], at);
    }
    assert_eq!(
        live.get(&queue("")).refusal(),
        (404, "no_such_queue".to_owned())
    );
}

/// The command line sees what the server does, on the same data directory.
#[test]
fn commands_list_fill_and_export() {
    let place = Place::new();
    let live = place.start();
    make_queue(
        &live,
        &json!({"description": "commands", "questions": [good()]}),
    );
    make_dataset(&live, "asked", &numbered(4));
    fill(&live, &of_dataset("asked"));
    let held = next(&live);
    labelled(&live, &held, &json!({"good": "yes"}));
    let listed = place.meguri(&["review", "list", "--json"]).json();
    assert_eq!(listed["items"][0]["counts"]["done"], 1, "{listed}");
    let shown = place.meguri(&["review", "show", QUEUE]);
    assert!(shown.stdout.contains("4 items, 3 open"), "{shown:?}");
    let export = place.meguri(&["review", "export", QUEUE, "--format", "csv"]);
    assert_eq!(export.stdout.lines().count(), 2, "{export:?}");
    let missing = place.meguri(&["review", "show", "nobody"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    // Filling needs the data directory for itself, or a server.
    make_dataset(&live, "more", &numbered(2));
    let url = live.origin();
    let mut command = place.command();
    command.env("MEGURI_API_KEY", &place.key);
    command.args([
        "review",
        "fill",
        QUEUE,
        "--dataset",
        "more",
        "--pick",
        "random",
        "--limit",
        "1",
    ]);
    command.args(["--json", "--url", &url]);
    let filled = place.run(&mut command).json();
    assert_eq!(
        (&filled["added"], &filled["population"]),
        (&json!(1), &json!(2))
    );
    drop(live);
    let args = ["review", "fill", QUEUE, "--dataset", "more", "--json"];
    let filled = place.meguri(&args).json();
    assert_eq!((&filled["added"], &filled["known"]), (&json!(1), &json!(1)));
}

/// Each rater sees a pair in an order of their own; what they choose is one answer all the same.
#[test]
fn of_two_answers_the_better_one_is_chosen() {
    let place = Place::new();
    let live = place.start();
    place.fake.always(Answer::text("right"));
    place.fake.when("Answer badly", Answer::text("wrong"));
    for (name, text) in [("good", "Answer well."), ("bad", "Answer badly.")] {
        let content =
            json!({"messages": [{"role": "system", "content": text}], "model": "fake/tiny"});
        let reply = live.post(
            "/api/v1/prompts",
            &json!({"name": name, "content": content}),
        );
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let examples =
        |n: usize| json!({"id": format!("e{n}"), "input": format!("Q{n}"), "expected": "right"});
    make_dataset(
        &live,
        "asked",
        &json!((0..6).map(examples).collect::<Vec<_>>()),
    );
    let suite = json!({
        "dataset": "dataset:asked@latest",
        "candidates": [{"name": "good", "prompt": "prompt:good@1"}, {"name": "bad", "prompt": "prompt:bad@1"}],
        "evaluators": [{"name": "exact", "evaluator": {"type": "metric", "metric": {"id": "exact-match"}}}],
    });
    let started = live.post("/api/v1/evaluations", &json!({"document": suite}));
    assert_eq!(started.status, 201, "{started:?}");
    let evaluation = started.json()["id"].as_str().unwrap().to_owned();
    let at = format!("/api/v1/evaluations/{evaluation}");
    live.wait_for(&at, |shown| shown["evaluation"]["state"] == "done");
    let better = json!({"name": "better", "type": "pairwise"});
    make_queue(
        &live,
        &json!({"questions": [better, good()], "raters": 2, "into": "dataset:gold", "gold": "better"}),
    );
    let source = json!({"evaluation": {"id": evaluation, "candidate": "bad", "against": "good"}});
    let filled = fill(
        &live,
        &json!({"source": source, "pick": "worst", "limit": 4}),
    );
    assert_eq!(
        (&filled["population"], &filled["added"]),
        (&json!(6), &json!(4))
    );
    let raters = [labeller(&place, &live), labeller(&place, &live)];
    for rater in &raters {
        loop {
            let held = next(rater);
            if held.is_null() {
                break;
            }
            let first_is_right = held["snapshot"]["answers"][0] == "right";
            let named = if first_is_right {
                json!(["good", "bad"])
            } else {
                json!(["bad", "good"])
            };
            assert_eq!(held["facts"]["candidates"], named);
            let choice = if first_is_right { "a" } else { "b" };
            labelled(rater, &held, &json!({"better": choice, "good": "yes"}));
        }
    }
    let page = live.get(&queue("/items")).json();
    for one in page["items"].as_array().unwrap() {
        assert_eq!(
            (&one["state"], &one["kind"]),
            (&json!("done"), &json!("pair"))
        );
        assert_eq!(one["snapshot"]["answers"], json!(["wrong", "right"]));
        assert_eq!(one["resolved"]["better"], "b", "{one}");
        for (side, value) in [(0, 0), (1, 1)] {
            let trace = one["facts"]["targets"][side]["trace"].as_str().unwrap();
            let scores = live.get(&format!("/api/v1/scores?trace_id={trace}")).json();
            let scores = scores["items"].as_array().unwrap();
            let better: Vec<&Value> = scores
                .iter()
                .filter(|score| score["name"] == "better")
                .collect();
            assert_eq!(better.len(), 2, "one of each rater: {scores:?}");
            assert!(better.iter().all(|score| score["value"] == value));
        }
    }
    let made = live.post(&queue("/gold"), &json!({})).json();
    assert_eq!(made["taken"], 4, "{made}");
    let gold = live.get("/api/v1/datasets/gold/examples?limit=1").json();
    assert_eq!(gold["items"][0]["expected"], "right");
}
