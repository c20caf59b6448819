//! Traces, scores and figures, from the outside: the real binary, a fake
//! provider over real HTTP, and SIGKILL.

use std::io::{BufRead as _, Read as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::traces::time::{format_rfc3339, parse_time};
use testkit::provider::Answer;

use crate::harness::{
    Live, PATIENCE, Place, Reply, encode, on_both_databases, question, read_until,
};

fn ids(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["trace_id"].as_str().unwrap())
        .collect()
}

on_both_databases!(a_call_becomes_a_trace_that_is_found_judged_and_counted);

fn a_call_becomes_a_trace_that_is_found_judged_and_counted(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let mut first = question("東京の天気はどうですか");
    first["meguri"] = json!({"session": "s-1", "user": "u-1", "tags": {"team": "a"}});
    let asked = live.chat(&first);
    let other = live.chat(&question("How tall is Mount Fuji?"));

    // Visible with prompt, answer, tokens and time.
    let trace = live.wait_for(&format!("/api/v1/traces/{asked}"), |_| true);
    assert_eq!(trace["status"], "ok");
    assert_eq!(trace["span_count"], 1);
    let span = &trace["spans"][0];
    assert_eq!(span["input"][0]["content"], "東京の天気はどうですか");
    assert_eq!(
        span["output"][0]["content"],
        "Hello from the fake provider."
    );
    assert_eq!(span["model"], "fake/tiny");
    assert_eq!(span["provider"], "fake");
    assert_eq!(span["session"], "s-1");
    assert_eq!(span["tags"]["team"], "a");
    assert!(span["input_tokens"].as_u64().unwrap() > 0, "{span}");
    assert!(span["output_tokens"].as_u64().unwrap() > 0, "{span}");
    assert!(span["latency_ms"].as_f64().unwrap() > 0.0, "{span}");

    // Judged: on the disk when it is acknowledged, so the next read has it.
    let score = live.post(
        "/api/v1/scores",
        &json!({"trace_id": asked, "name": "thumbs", "value": -1, "comment": "wrong city"}),
    );
    assert_eq!(
        score.status,
        201,
        "{}",
        String::from_utf8_lossy(&score.body)
    );
    let scores = live.get(&format!("/api/v1/scores?trace_id={asked}")).json();
    assert_eq!(scores["items"][0]["value"], -1);
    assert_eq!(scores["items"][0]["comment"], "wrong city");
    assert_eq!(scores["items"][0]["source"], "api");

    // Found by filter and by words, Japanese ones too.
    live.wait_for("/api/v1/traces", |list| ids(list).len() == 2);
    for (query, wanted) in [
        (format!("filter={}", encode("score.thumbs < 0")), &asked),
        (
            format!(
                "filter={}",
                encode("model = \"fake/tiny\" and tag.team = \"a\"")
            ),
            &asked,
        ),
        (format!("q={}", encode("東京")), &asked),
        (format!("q={}", encode("天気")), &asked),
        (format!("q={}", encode("Fuji")), &other),
    ] {
        let list = live.get(&format!("/api/v1/traces?{query}")).json();
        assert_eq!(ids(&list), [wanted.as_str()], "{query}");
    }

    // One page after another, newest first.
    let page = live.get("/api/v1/traces?limit=1").json();
    assert_eq!(ids(&page), [other.as_str()]);
    let rest = live
        .get(&format!(
            "/api/v1/traces?limit=1&cursor={}",
            page["next_cursor"].as_str().unwrap()
        ))
        .json();
    assert_eq!(ids(&rest), [asked.as_str()]);

    // Counted.
    let figures = live.post(
        "/api/v1/query",
        &json!({"from": "-1h", "measures": ["count", "errors", "p95(latency_ms)", "sum(output_tokens)"], "by": ["model"]}),
    );
    assert_eq!(
        figures.status,
        200,
        "{}",
        String::from_utf8_lossy(&figures.body)
    );
    let row = &figures.json()["rows"][0];
    assert_eq!(row["group"]["model"], "fake/tiny");
    assert_eq!(row["values"]["count"], 2);
    assert_eq!(row["values"]["errors"], 0);
    assert!(
        row["values"]["p95(latency_ms)"].as_f64().unwrap() > 0.0,
        "{row}"
    );
    let facets = live
        .get("/api/v1/traces/facets?fields=model,tag.team")
        .json();
    assert_eq!(
        facets["items"][0]["values"],
        json!([{"value": "fake/tiny", "count": 2}])
    );
    assert_eq!(
        facets["items"][1]["values"],
        json!([{"value": "a", "count": 1}])
    );

    // All messages of one span, uncut.
    let span_id = span["span_id"].as_str().unwrap();
    let body = live
        .get(&format!("/api/v1/traces/{asked}/spans/{span_id}/body"))
        .json();
    assert_eq!(body["input"][0]["content"], "東京の天気はどうですか");
}

#[test]
fn failed_calls_are_recorded_with_their_error() {
    let place = Place::new();
    let live = place.start();
    place.fake.always(Answer::status(500, "{}"));
    let reply = live.post("/v1/chat/completions", &question("hello"));
    assert!(reply.status >= 500, "{}", reply.status);
    let id = reply.header("x-meguri-trace-id").unwrap();
    let trace = live.wait_for(&format!("/api/v1/traces/{id}"), |_| true);
    assert_eq!(trace["status"], "error");
    assert!(trace["spans"][0]["error_type"].is_string(), "{trace}");
    let list = live
        .get(&format!(
            "/api/v1/traces?filter={}",
            encode("status = \"error\"")
        ))
        .json();
    assert_eq!(ids(&list), [id.as_str()]);
}

#[test]
fn wrong_requests_say_where_they_are_wrong() {
    let place = Place::new();
    let live = place.start();
    let refused = |path: &str, code: &str, at: &str| {
        let reply = live.get(path);
        assert_eq!(
            reply.status,
            400,
            "{path}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        let error = reply.json()["error"].clone();
        assert_eq!(
            (error["code"].as_str(), error["at"].as_str()),
            (Some(code), Some(at)),
            "{path}: {error}"
        );
        error
    };
    let error = refused(
        &format!(
            "/api/v1/traces?filter={}",
            encode("model = \"x\" and latency > 3")
        ),
        "invalid_filter",
        "filter:17",
    );
    assert!(
        error["hint"].as_str().unwrap().contains("latency_ms"),
        "{error}"
    );
    refused("/api/v1/traces?from=yesterday", "invalid_time", "from");
    refused("/api/v1/traces?from=-1h&to=-2h", "invalid", "from");
    refused("/api/v1/traces?sort=cost", "invalid", "sort");
    assert_eq!(live.get("/api/v1/traces?filtre=x").status, 400);
    assert_eq!(live.get("/api/v1/traces?cursor=invented").status, 400);

    let id = live.chat(&question("hello"));
    let score = |extra: Value| {
        let mut body = json!({"trace_id": id, "name": "thumbs", "value": 1});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        live.post("/api/v1/scores", &body).status
    };
    assert_eq!(score(json!({})), 201);
    assert_eq!(score(json!({"valu": 2})), 400);
    assert_eq!(score(json!({"value": null})), 400);
    assert_eq!(score(json!({"name": ""})), 400);
    assert_eq!(score(json!({"name": "a\u{202e}b"})), 400);
    assert_eq!(score(json!({"span_id": "0123456789abcdef"})), 404);
    assert_eq!(score(json!({"trace_id": "nonsense"})), 404);
    let measures = live.post(
        "/api/v1/query",
        &json!({"measures": ["median(latency_ms)"]}),
    );
    assert_eq!(measures.json()["error"]["code"], "unknown_measure");
}

#[test]
fn another_projects_trace_is_like_one_that_does_not_exist() {
    let place = Place::new();
    let live = place.start();
    let id = live.chat(&question("a secret of the first project"));
    let trace = live.wait_for(&format!("/api/v1/traces/{id}"), |_| true);
    let span = trace["spans"][0]["span_id"].as_str().unwrap().to_owned();
    place.add_project("other");
    let stranger = live.with_key(&place.make_key("other", "admin").1);
    let missing = "0190a5b0c3d47e8f9a0b1c2d3e4f5061";
    let answer = |reply: Reply| {
        let mut body = reply.json();
        body["error"]["request_id"] = json!("");
        (reply.status, body)
    };
    for (known, unknown) in [
        (
            format!("/api/v1/traces/{id}"),
            format!("/api/v1/traces/{missing}"),
        ),
        (
            format!("/api/v1/traces/{id}/spans/{span}/body"),
            format!("/api/v1/traces/{missing}/spans/{span}/body"),
        ),
        (
            format!("/api/v1/scores?trace_id={id}"),
            format!("/api/v1/scores?trace_id={missing}"),
        ),
    ] {
        let (theirs, none) = (answer(stranger.get(&known)), answer(stranger.get(&unknown)));
        assert_eq!(theirs.0, 404, "{known}");
        assert_eq!(theirs, none, "{known}");
    }
    let score = |id: &str| {
        answer(stranger.post(
            "/api/v1/scores",
            &json!({"trace_id": id, "name": "thumbs", "value": 1}),
        ))
    };
    assert_eq!(score(&id), score(missing));
    assert_eq!(ids(&stranger.get("/api/v1/traces").json()), [""; 0]);
    assert_eq!(
        stranger.post("/api/v1/query", &json!({})).json()["rows"],
        json!([{"group": {}, "values": {"count": 0}}])
    );
    // Nobody without a key sees anything.
    assert_eq!(
        live.with_key("mgr_wrong")
            .get(&format!("/api/v1/traces/{id}"))
            .status,
        401
    );
}

#[test]
fn the_live_tail_hears_what_matches() {
    let place = Place::new();
    let live = place.start();
    let path = format!("/api/v1/traces/tail?filter={}", encode("tag.team = \"a\""));
    let mut stream = live.call("GET", &path).open();
    read_until(&mut stream, ": following");
    live.chat(&question("not for this tail"));
    let mut wanted = question("for this tail");
    wanted["meguri"] = json!({"tags": {"team": "a"}});
    let id = live.chat(&wanted);
    let (mut event, mut line) = (String::new(), String::new());
    let until = Instant::now() + PATIENCE;
    let data = loop {
        assert!(Instant::now() < until, "no event came");
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the tail ended");
        if let Some(name) = line.strip_prefix("event: ") {
            event = name.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            break serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!(
        (event.as_str(), data["trace_id"].as_str()),
        ("trace", Some(id.as_str()))
    );
}

#[test]
fn a_revoked_key_hears_no_more() {
    let place = Place::new();
    let (id, secret) = place.make_key("default", "caller");
    let live = place.start();
    let listener = live.with_key(&secret);
    let mut stream = listener.call("GET", "/api/v1/traces/tail").open();
    read_until(&mut stream, ": following");
    place.meguri(&["key", "revoke", &id]).assert_done();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("event: end"), "{rest}");
}

#[test]
fn the_command_line_reads_beside_a_running_server() {
    let place = Place::new();
    let live = place.start();
    place.fake.next(Answer {
        text: vec!["red \u{1b}[31malert\u{202e}".to_owned()],
        ..Answer::default()
    });
    let id = live.chat(&question("what colour?"));
    live.wait_for(&format!("/api/v1/traces/{id}"), |_| true);
    let list = place
        .meguri(&[
            "traces",
            "list",
            "--from",
            "-1h",
            "--filter",
            "provider = \"fake\"",
            "--json",
        ])
        .json();
    assert_eq!(ids(&list), [id.as_str()]);
    let table = place.meguri(&["traces", "list"]);
    assert!(table.stdout.contains(&id));
    let shown = place.meguri(&["traces", "show", &id, "--json"]).json();
    assert_eq!(shown["trace_id"], id.as_str());
    let plain = place.meguri(&["traces", "show", &id]);
    let text = plain.stdout;
    assert!(
        text.contains("what colour?") && text.contains("\\u{1b}[31malert\\u{202e}"),
        "{text}"
    );
    assert!(
        !text.chars().any(|c| c != '\n' && c.is_control()),
        "{text:?}"
    );

    let missing = place.meguri(&["traces", "show", "0190a5b0c3d47e8f9a0b1c2d3e4f5061"]);
    assert_eq!(missing.code, 3);
    let wrong = place.meguri(&["traces", "list", "--filter", "modl = \"x\""]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("model"), "{wrong:?}");
}

/// A page without what its copy buttons hold, which is the text as it was.
fn shown(page: &str) -> String {
    let mut parts = page.split("data-copy=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .filter_map(|part| part.split_once('"'))
        .fold(first, |text, (_, rest)| text + rest)
}

#[test]
fn pages_show_what_happened_and_lead_to_it() {
    let place = Place::new();
    let live = place.start();
    let browser = live.set_up(&place, "ann@example.test", "correct-horse-battery");
    let page = |path: &str| {
        let reply = browser.get(path);
        // The templates escape slashes too.
        (reply.status, reply.text().replace("&#x2f;", "/"))
    };
    // Before the first call: how to make one.
    for path in ["/default/", "/default/traces"] {
        let (status, text) = page(path);
        assert_eq!(status, 200, "{text}");
        assert!(
            text.contains("/v1/chat/completions"),
            "{path} has no call to copy: {text}"
        );
    }
    place.fake.next(Answer {
        text: vec!["<script>alert(1)</script> \u{202e}evil".to_owned()],
        ..Answer::default()
    });
    let mut request = question("<img src=x onerror=alert(1)> 東京");
    request["meguri"] = json!({"session": "s-1", "tags": {"team": "a"}});
    let id = live.chat(&request);
    live.wait_for(&format!("/api/v1/traces/{id}"), |_| true);

    let filter = encode("tag.team = \"a\" and latency_ms >= 0");
    for path in [
        "/default/traces".to_owned(),
        format!(
            "/default/traces?from=-1h&filter={filter}&q={}",
            encode("東京")
        ),
        format!("/default/traces?peek={id}"),
        format!("/default/traces/{id}"),
    ] {
        let (status, text) = page(&path);
        assert_eq!(status, 200, "{path}: {text}");
        assert!(
            text.contains(&id) && text.contains("fake/tiny") && text.contains("東京"),
            "{path}: {text}"
        );
        // What people and models wrote is text, and what could deceive is visible.
        assert!(
            text.contains("&lt;script&gt;alert(1)&lt;/script&gt;")
                && !text.contains("<script>alert(1)"),
            "{path}: {text}"
        );
        assert!(
            text.contains("\\u{202e}evil") && !shown(&text).contains('\u{202e}'),
            "{path}: {text}"
        );
        assert!(!text.contains("<img"), "{path}: {text}");
    }
    let (status, overview) = page("/default/?from=-1h");
    assert_eq!(status, 200, "{overview}");
    assert!(
        overview.contains("/default/traces?from=-1h"),
        "the numbers lead nowhere: {overview}"
    );
    for range in ["-24h", "-7d", "-30d", "2026-01-01"] {
        assert_eq!(page(&format!("/default/?from={range}")).0, 200, "{range}");
    }

    // A pasted id is found, a wrong filter is shown where it was typed.
    let found = browser.get(&format!("/default/traces?q={id}&from=-1h"));
    assert_eq!(
        (found.status, found.header("location")),
        (303, Some(format!("/default/traces/{id}")))
    );
    let (status, text) = page(&format!("/default/traces?filter={}", encode("modl = 1")));
    assert_eq!(status, 400);
    assert!(
        text.contains("filter-error") && text.contains("model"),
        "{text}"
    );
    assert_eq!(
        page("/default/traces/0190a5b0c3d47e8f9a0b1c2d3e4f5061").0,
        404
    );

    // A thumb without scripts: the form, and back.
    let back = format!("/default/traces/{id}?span=x");
    let given = browser.form(
        &format!("/default/traces/{id}/thumbs"),
        &[("value", "-1"), ("back", &back)],
    );
    assert_eq!((given.status, given.header("location")), (303, Some(back)));
    let scores = live.get(&format!("/api/v1/scores?trace_id={id}")).json();
    assert_eq!(
        (&scores["items"][0]["value"], &scores["items"][0]["source"]),
        (&json!(-1), &json!("human"))
    );
    let away = [("value", "1"), ("back", "https://evil.example/")];
    let given = browser.form(&format!("/default/traces/{id}/thumbs"), &away);
    assert_eq!(
        given.header("location"),
        Some(format!("/default/traces/{id}"))
    );
    assert!(page(&format!("/default/traces/{id}")).1.contains("Ada"));
}

/// What the server has acknowledged: scores whose answer was 201, on traces that it then had.
type Acknowledged = Mutex<Vec<(String, String)>>;

fn load(live: &Live, stop: &AtomicBool, acknowledged: &Acknowledged) {
    while !stop.load(Ordering::Relaxed) {
        let Some(reply) = live
            .call("POST", "/v1/chat/completions")
            .json(&question("keep this"))
            .try_send()
        else {
            return;
        };
        let Some(trace) = reply.header("x-meguri-trace-id") else {
            return;
        };
        let score = json!({"trace_id": trace, "name": "kept", "value": 1});
        let Some(reply) = live.call("POST", "/api/v1/scores").json(&score).try_send() else {
            return;
        };
        if reply.status == 201 {
            let id = reply.json()["id"].as_str().unwrap().to_owned();
            acknowledged.lock().unwrap().push((trace, id));
        }
    }
}

#[test]
fn slow_nothing_acknowledged_is_lost_to_sigkill() {
    let place = Place::new();
    let acknowledged = Acknowledged::default();
    for goal in [15, 60, 100, 170] {
        let mut live = place.start();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| load(&live, &stop, &acknowledged));
            }
            let until = Instant::now() + PATIENCE;
            while acknowledged.lock().unwrap().len() < goal {
                assert!(Instant::now() < until, "too few were acknowledged");
                std::thread::sleep(Duration::from_millis(1));
            }
            // SIGKILL, in the middle of the load.
            live.signal("-9");
            stop.store(true, Ordering::Relaxed);
        });
        live.wait();
    }
    let live = place.start();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() >= 170);
    for (trace, score) in &acknowledged {
        let reply = live.get(&format!("/api/v1/traces/{trace}"));
        assert_eq!(
            reply.status, 200,
            "the trace {trace} was acknowledged and is gone"
        );
        let shown = reply.json();
        assert_eq!(
            shown["spans"][0]["output"][0]["content"], "Hello from the fake provider.",
            "{trace}"
        );
        assert_eq!(
            shown["scores"][0]["id"],
            score.as_str(),
            "the score of {trace} was acknowledged and is gone"
        );
    }
}

#[test]
fn times_are_read_in_every_form_that_people_write() {
    let now = 1_763_724_600_000_000; // 2025-11-21T11:30:00Z
    let check = |text: &str, wanted: Option<&str>| {
        assert_eq!(
            parse_time(text, now).ok().map(format_rfc3339).as_deref(),
            wanted,
            "{text}"
        );
    };
    check("now", Some("2025-11-21T11:30:00.000Z"));
    check("-1h", Some("2025-11-21T10:30:00.000Z"));
    check("-7d", Some("2025-11-14T11:30:00.000Z"));
    check("1763724600000000", Some("2025-11-21T11:30:00.000Z"));
    check(
        "2024-02-29T23:59:59.5+09:00",
        Some("2024-02-29T14:59:59.500Z"),
    );
    check("2024-02-29", Some("2024-02-29T00:00:00.000Z"));
    check("1999-12-31T23:59:59Z", Some("1999-12-31T23:59:59.000Z"));
    check("1763724600", None); // seconds
    check("2023-02-29", None);
    check("2025-13-01", None);
    check("-1y", None);
    check("-", None);
    check("yesterday", None);
    check("２０２５", None);
    check("2025-11-21T25:00:00Z", None);
}
