//! Evaluators of a team's own that are modules of WebAssembly: what they score, and that
//! whatever they do wrong is said and is never a number.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{Client, Live, Place, Reply, on_both_databases};

on_both_databases!(
    modules_score_and_hostile_ones_are_unscored,
    what_could_never_run_is_refused_with_its_place,
    modules_come_by_page_and_command_and_travel_with_trees,
);

/// What the modules below may reply; each lies at 64 times its index.
const REPLIES: [&str; 8] = [
    r#"{"score": 1, "reason": "found"}"#,
    r#"{"score": 0}"#,
    r#"{"score": NaN}"#,
    r#"{"score": 1e999}"#,
    r#"{"score": "high"}"#,
    "I would say eight.",
    r#"{"unscored": "nothing to judge"}"#,
    "",
];

/// Gives one of [`REPLIES`].
fn reply(index: usize) -> String {
    reply_at(index * 64, REPLIES[index].len())
}

fn reply_at(place: usize, length: usize) -> String {
    format!("(i64.or (i64.shl (i64.const {place}) (i64.const 32)) (i64.const {length}))")
}

/// A module whose `evaluate` is this.
fn module(body: &str) -> String {
    let data = REPLIES.iter().enumerate().map(|(index, text)| {
        let text = text.replace('"', "\\\"");
        format!("(data (i32.const {}) \"{text}\")\n", index * 64)
    });
    let data: String = data.collect();
    format!(
        r#"(module
            (memory (export "memory") 2)
            {data}
            (global $next (mut i32) (i32.const 1024))
            (global $count (mut i32) (i32.const 0))
            (func $alloc (export "alloc") (param i32) (result i32)
                (local $place i32)
                (local.set $place (global.get $next))
                (global.set $next (i32.add (global.get $next) (local.get 0)))
                (local.get $place))
            (func $deep (param i32) (result i32)
                (i32.add (call $deep (local.get 0)) (i32.const 1)))
            (func (export "evaluate") (param $p i32) (param $n i32) (result i64)
                (local $end i32)
                {body}))"#
    )
}

/// 1 where a letter z is anywhere in what it is given, else 0.
fn finds_z() -> String {
    module(&format!(
        "(local.set $end (i32.add (local.get $p) (local.get $n)))
         (block $none (loop $more
            (br_if $none (i32.ge_u (local.get $p) (local.get $end)))
            (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 122)) (then (return {})))
            (local.set $p (i32.add (local.get $p) (i32.const 1)))
            (br $more)))
         {}",
        reply(0),
        reply(1)
    ))
}

fn bytes_of(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// A module that gives 1 whatever it is asked; seeds make different ones.
pub(crate) fn gives_one(seed: u64) -> Vec<u8> {
    let begin = format!("(i32.const {})", 1024 + seed % 1000);
    bytes_of(&module(&reply(0)).replacen("(i32.const 1024)", &begin, 1))
}

fn send(client: &Client, bytes: &[u8]) -> Reply {
    let call = client.call("POST", "/api/v1/evaluator-modules");
    call.body("application/wasm", bytes).send()
}

fn upload(client: &Client, wat: &str) -> String {
    let kept = send(client, &bytes_of(wat));
    assert_eq!(kept.status, 201, "{kept:?}");
    kept.json()["digest"].as_str().unwrap().to_owned()
}

fn wasm(digest: &str) -> Value {
    json!({"type": "wasm", "module": digest, "fuel": 3_000_000, "memory_mib": 8})
}

fn make_dataset(client: &Client, inputs: &[&str]) {
    let examples = inputs
        .iter()
        .map(|input| json!({"id": input.replace(' ', "-"), "input": input}));
    let body = json!({"name": "questions", "examples": examples.collect::<Vec<_>>()});
    let made = client.post("/api/v1/datasets", &body);
    assert_eq!(made.status, 201, "{made:?}");
}

fn suite(evaluators: &[(&str, Value)]) -> Value {
    let used = evaluators
        .iter()
        .map(|(name, evaluator)| json!({"name": name, "evaluator": evaluator}));
    json!({
        "dataset": "dataset:questions@latest", "candidates": [{"name": "one", "model": "fake/fake-large"}],
        "evaluators": used.collect::<Vec<_>>(), "concurrency": 16, "cache": false, "attempts": 2,
    })
}

/// Runs evaluators on the dataset; gives what is shown of it and of the first example.
fn evaluate(client: &Client, evaluators: &[(&str, Value)]) -> (Value, Value) {
    let document = suite(evaluators);
    let started = client.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(started.status, 201, "{started:?}");
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/evaluations/{id}");
    let until = Instant::now() + Duration::from_secs(120);
    let shown = loop {
        let shown = client.get(&path).json();
        if shown["evaluation"]["state"] == "done" {
            break shown;
        }
        assert!(Instant::now() < until, "not done: {shown:#}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let detail = client.get(&format!("{path}/examples/0")).json();
    (shown, detail)
}

fn score<'a>(detail: &'a Value, name: &str) -> &'a Value {
    let scores = detail["scores"].as_array().unwrap();
    let found = scores.iter().find(|score| score["evaluator"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {detail:#}"))
}

/// What goes wrong while a module runs, by name: what its `evaluate` does, and what is said.
fn hostile() -> Vec<(&'static str, String, &'static str)> {
    let text = str::to_owned;
    vec![
        (
            "loop",
            text("(loop $for_ever (br $for_ever)) (unreachable)"),
            "used up its fuel",
        ),
        (
            "grab",
            text(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) (unreachable)",
            ),
            "more than 8 MiB",
        ),
        (
            "fill",
            text(
                "(loop $more (memory.fill (i32.const 0) (i32.const 1) (i32.const 131072)) (br $more)) (unreachable)",
            ),
            "used up its fuel",
        ),
        ("huge", reply_at(0, 100_000), "the limit is 65536"),
        ("outside", reply_at(0xffff_fff0, 8), "outside of its memory"),
        ("nothing", reply(7), "not JSON"),
        ("prose", reply(5), "not JSON"),
        ("nan", reply(2), "not JSON"),
        ("infinite", reply(3), "not JSON"),
        ("word", reply(4), "no number"),
        ("refuses", reply(6), "nothing to judge"),
        ("panic", text("(unreachable)"), "gave up (a panic)"),
        (
            "deep",
            text("(i64.extend_i32_u (call $deep (i32.const 1)))"),
            "called itself too deeply",
        ),
        (
            "divides",
            text("(i64.extend_i32_u (i32.div_u (i32.const 1) (i32.const 0)))"),
            "divide by zero",
        ),
        (
            "reads",
            text("(i64.load (i32.const -8))"),
            "out of bounds memory access",
        ),
    ]
}

fn modules_score_and_hostile_ones_are_unscored(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    place.fake.always(Answer::text("right"));
    make_dataset(&live, &["a zebra", "a cow", "an ox"]);
    let good = upload(&live, &finds_z());
    // Whatever a module leaves behind, the next answer does not see it.
    let counts = module(&format!(
        "(global.set $count (i32.add (global.get $count) (i32.const 1)))
         (i32.store8 (i32.const 10) (i32.add (global.get $count) (i32.const 48)))
         {}",
        reply(0)
    ));
    let mut evaluators = vec![
        ("good", wasm(&good)),
        ("counts", wasm(&upload(&live, &counts))),
    ];
    let hostile = hostile();
    for (name, body, _) in &hostile {
        evaluators.push((name, wasm(&upload(&live, &module(body)))));
    }
    // What some compilers set up first: here, that `alloc` gives a place inside.
    let begun = finds_z().replace(
        "(global $next (mut i32) (i32.const 1024))",
        "(global $next (mut i32) (i32.const -4))
         (func (export \"_initialize\") (global.set $next (i32.const 1024)))",
    );
    evaluators.push(("begun", wasm(&upload(&live, &begun))));
    // A place for the question that is none.
    let nowhere = finds_z().replace("(local.get $place))", "(i32.const -4))");
    evaluators.push(("nowhere", wasm(&upload(&live, &nowhere))));
    let (shown, detail) = evaluate(&live, &evaluators);
    let cells = |index: usize| shown["results"]["evaluators"][index]["cells"][0].clone();
    let third = cells(0)["value"].as_f64().unwrap();
    assert!((third - 1.0 / 3.0).abs() < 1e-9, "{shown:#}");
    assert_eq!(score(&detail, "good")["reason"], "found", "{detail:#}");
    assert_eq!(score(&detail, "begun")["value"], 1.0, "{detail:#}");
    assert_eq!(cells(1)["value"].as_f64(), Some(1.0), "{shown:#}");
    let words = hostile.iter().map(|(name, _, words)| (*name, *words));
    let words = words.chain([("nowhere", "alloc gave a place outside")]);
    for (name, words) in words {
        let found = score(&detail, name);
        assert_eq!(found["outcome"], "unscored", "{name}: {found:#}");
        let reason = found["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{name}: {reason}");
    }
    // Nothing of this counts against the candidate.
    assert_eq!(shown["results"]["candidates"][0]["errors"], 0, "{shown:#}");
    // Once more, the same to the last unit of fuel.
    let (_, again) = evaluate(&live, &evaluators);
    let fuel = |detail: &Value| score(detail, "good")["detail"]["fuel"].as_u64();
    assert!(fuel(&detail).is_some_and(|fuel| fuel > 0), "{detail:#}");
    assert_eq!(fuel(&again), fuel(&detail));
}

fn what_could_never_run_is_refused_with_its_place(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    make_dataset(&live, &["a zebra"]);
    let refused = |bytes: &[u8], words: &str| {
        let reply = send(&live, bytes);
        assert_eq!(
            reply.refusal(),
            (400, "invalid_module".to_owned()),
            "{reply:?}"
        );
        let error = reply.json();
        assert_eq!(error["error"]["at"], "/module");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    };
    let finds_z = finds_z();
    let without = |what: &str| bytes_of(&finds_z.replace(what, ""));
    refused(b"", "no WebAssembly");
    refused(b"#!/bin/sh\nrm -rf /", "no WebAssembly");
    let whole = bytes_of(&finds_z);
    refused(&whole[..whole.len() / 2], "no module that can run");
    refused(&without("(export \"memory\")"), "no memory");
    refused(&without("(export \"alloc\")"), "no function alloc(i32)");
    let other = finds_z.replace("(export \"alloc\")", "(export \"evaluate \")");
    refused(&bytes_of(&other), "no function alloc(i32)");
    let floats = "(module (memory (export \"memory\") 1)
        (func (export \"alloc\") (param i32) (result i32) (i32.const 0))
        (func (export \"evaluate\") (param i32 i32) (result f64) (f64.const 1)))";
    refused(&bytes_of(floats), "evaluate is (i32, i32) -> f64");
    for (from, name) in [
        ("wasi_snapshot_preview1", "fd_write"),
        ("env", "connect"),
        ("env", "__linear_memory"),
    ] {
        let import = format!("(module (import \"{from}\" \"{name}\" (func (param i32)))");
        refused(
            &bytes_of(&finds_z.replacen("(module", &import, 1)),
            &format!("imports \"{name}\" of \"{from}\""),
        );
    }
    let begins = "(func $begin (loop (br 0))) (start $begin) (global $next";
    let begins = finds_z.replacen("(global $next", begins, 1);
    refused(&bytes_of(&begins), "start");
    // One that is too large is refused before it is sent.
    let head = format!(
        "POST /api/v1/evaluator-modules HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/wasm\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        live.origin().trim_start_matches("http://"),
        place.key,
        (4 << 20) + 1
    );
    assert_eq!(live.raw(head.as_bytes()).unwrap().status, 413);

    // What is kept and is no module, as a tree could bring it; what is not kept at all.
    let junk = b"not a module".to_vec();
    let digest = base::Digest::of(&junk);
    let put = live.call("PUT", &format!("/api/v1/gitops/blobs/{digest}"));
    let put = put.body("application/octet-stream", &junk).send();
    assert!(put.status < 300, "{put:?}");
    let junk = digest.to_string();
    let nobody = base::Digest::of(b"nobody has this").to_string();
    let good = upload(&live, &finds_z);
    let wide = finds_z.replace("\"memory\") 2", "\"memory\") 160");
    let wide = upload(&live, &wide);
    let save = |client: &Client, content: &Value| {
        let path = "/api/v1/catalog/evaluator/z/versions";
        client.post(path, &json!({"content": content}))
    };
    let with = |digest: &str, field: &str, value: Value| {
        let mut content = wasm(digest);
        content[field] = value;
        content
    };
    let wrong = [
        (wasm("nonsense"), "/module", "digest"),
        (wasm(&nobody), "/module", "no blob"),
        (wasm(&junk), "/module", "no WebAssembly"),
        (wasm(&wide), "/memory_mib", "begins with 10 MiB"),
        (with(&good, "fuel", json!(0)), "/fuel", "fuel is 1"),
        (
            with(&good, "memory_mib", json!(100_000)),
            "/memory_mib",
            "1 to 256",
        ),
        (with(&good, "network", json!(true)), "", "network"),
    ];
    for (content, at, words) in wrong {
        let reply = save(&live, &content);
        let error = reply.json()["error"].clone();
        assert_eq!(reply.status, 400, "{reply:?}");
        assert_eq!(error["at"].as_str().unwrap_or_default(), at, "{error:#}");
        assert!(
            error["message"].as_str().unwrap().contains(words),
            "{error:#}"
        );
    }
    assert!(save(&live, &with(&wide, "memory_mib", json!(10))).status < 300);
    assert!(save(&live, &wasm(&good)).status < 300);
    // In suites and evaluations, where an evaluator is written out.
    let document = suite(&[("good", wasm(&good)), ("junk", wasm(&junk))]);
    let saved = live.post(
        "/api/v1/catalog/suite/s/versions",
        &json!({"content": document}),
    );
    let error = saved.json()["error"].clone();
    assert_eq!(error["at"], "/evaluators/1/evaluator/module", "{error:#}");
    let started = live.post("/api/v1/evaluations", &json!({"document": document}));
    assert_eq!(started.status, 400, "{started:?}");
    // A module of another project is none.
    place.add_project("other");
    let other = live.with_key(&place.make_key("other", "admin").1);
    assert_eq!(save(&other, &wasm(&good)).status, 400);
}

/// Sends the form of a module's evaluator, as a browser does.
pub(crate) fn send_module_form(browser: &Client, fields: &[(&str, &str)], file: &[u8]) -> Reply {
    let boundary = "----WebKitFormBoundaryx";
    let mut body = Vec::new();
    for (name, value) in fields {
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend(format!("{head}{value}\r\n").into_bytes());
    }
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"name=x.wasm\"";
    body.extend(
        format!("--{boundary}\r\n{head}\r\nContent-Type: application/wasm\r\n\r\n").bytes(),
    );
    body.extend(file);
    body.extend(format!("\r\n--{boundary}--\r\n").bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    let call = browser.call("POST", "/default/evaluators/module");
    call.body(&kind, &body).send()
}

fn modules_come_by_page_and_command_and_travel_with_trees(place: Place) {
    let place = place.add_fake().with_key("admin");
    let live = place.start();
    place.fake.always(Answer::text("right"));
    make_dataset(&live, &["a zebra"]);
    let bytes = bytes_of(&finds_z());
    let digest = base::Digest::of(&bytes).to_string();

    // By page: file and fields in one form.
    let browser = live.browser_of(&place.add_person("default", "editor"));
    let page = browser.get("/default/evaluators/edit?type=wasm").text();
    assert!(
        page.contains("multipart/form-data") && page.contains("type=\"file\""),
        "{page}"
    );
    let fields = [
        ("type", "wasm"),
        ("name", "page/z"),
        ("fuel", "3000000"),
        ("memory_mib", "8"),
        ("parameters", "{\"letter\": \"z\"}"),
        ("action", "form"),
    ];
    let refused = send_module_form(&browser, &fields, b"no module");
    assert_eq!(refused.status, 422);
    let text = refused.text();
    assert!(
        text.contains("no WebAssembly module") && text.contains("page&#x2f;z"),
        "{text}"
    );
    let no_file = send_module_form(&browser, &fields, b"");
    assert!(no_file.status == 422 && no_file.text().contains("/module"));
    let mut wrong = fields;
    wrong[2].1 = "0";
    let kept = send_module_form(&browser, &wrong, &bytes);
    assert!(kept.status == 422 && kept.text().contains(&digest));
    let saved = send_module_form(&browser, &fields, &bytes);
    assert_eq!(saved.status, 303, "{saved:?}");
    let shown = browser.get(&saved.header("location").unwrap()).text();
    assert!(
        shown.contains(&digest) && shown.contains("letter"),
        "{shown}"
    );
    // Once it is kept, the file is not needed again.
    let fields = [fields.as_slice(), &[("module", digest.as_str())]].concat();
    assert_eq!(send_module_form(&browser, &fields, b"").status, 303);

    // By command, here and on the running server.
    let file = place.beside("z.wasm");
    std::fs::write(&file, &bytes).unwrap();
    let file = file.display().to_string();
    let push = ["evaluator", "push", &file, "--json"];
    let limits = ["--fuel", "3000000", "--memory-mib", "8"];
    let here = [push.as_slice(), &limits, &["--name", "command/z"]].concat();
    let ended = place.meguri(&here).json();
    assert_eq!(
        (
            &ended["digest"],
            &ended["version"],
            &ended["already_existed"]
        ),
        (&json!(digest), &json!(1), &json!(true)),
        "{ended:#}"
    );
    place.add_project("other");
    let key = place.make_key("other", "admin").1;
    let on_server = |place: &Place, args: &[&str]| {
        let mut command = place.command();
        command.args(args).args(["--url", &live.origin()]);
        place.run(command.env("MEGURI_API_KEY", &key))
    };
    let there = [
        push.as_slice(),
        &["--name", "remote/z", "--description", "z"],
    ]
    .concat();
    let ended = on_server(&place, &there).json();
    assert_eq!(ended["already_existed"], json!(false), "{ended:#}");
    let short = place.meguri(&["evaluator", "push", "/dev/null", "--name", "no"]);
    assert!(
        short.code == 1 && short.stderr.contains("no WebAssembly"),
        "{short:?}"
    );

    // All of them give scores, and every module that came is in the audit log.
    for name in ["page/z", "command/z"] {
        let named = [("named", json!(format!("evaluator:{name}@latest")))];
        let (shown, detail) = evaluate(&live, &named);
        assert_eq!(score(&detail, "named")["value"], 1.0, "{detail:#}");
        let signature = &shown["results"]["evaluators"][0]["signature"];
        let signature = signature.as_str().unwrap();
        assert!(signature.starts_with("wasm|module:"), "{signature}");
    }
    let lines = live.get("/api/v1/audit?action=evaluator.module").json();
    let lines = lines["items"].as_array().unwrap().clone();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line["object"] == digest),
        "{lines:#?}"
    );

    travels(&place, &live);
}

/// Exports the project and applies it to another: the module goes along.
fn travels(place: &Place, live: &Live) {
    let tree = place.beside("tree").display().to_string();
    place.meguri(&["export", &tree]).assert_done();
    place.add_project("third");
    let args = ["apply", &tree, "--project", "third", "--yes"];
    place.meguri(&args).assert_done();
    let third = live.with_key(&place.make_key("third", "viewer").1);
    let path = "/api/v1/catalog/evaluator/page%2Fz/versions";
    assert_eq!(third.get(path).status, 200);
    let args = ["plan", &tree, "--project", "third", "--json"];
    let again = place.meguri(&args).json();
    assert_eq!(again["steps"], json!([]), "{again:#}");
}

/// `try` needs no data directory, and says what an evaluation would.
#[test]
fn a_module_is_tried_on_one_example() {
    let place = Place::new();
    let file = place.beside("z.wasm");
    std::fs::write(&file, bytes_of(&finds_z())).unwrap();
    let file = file.display().to_string();
    let example = place.beside("example.json");
    std::fs::write(&example, r#"{"input": "a zebra", "answer": "a horse"}"#).unwrap();
    let example = example.display().to_string();
    let run = |more: &[&str]| {
        let mut command = place.command();
        place.run(command.args(["evaluator", "try", &file]).args(more))
    };
    let ended = run(&["--example", &example]);
    assert_eq!(
        ended.json(),
        json!({"score": 1, "reason": "found"}),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("fuel used"), "{ended:?}");
    assert_eq!(run(&["--answer", "a cow"]).json(), json!({"score": 0}));
    let ended = run(&["--answer", "a cow", "--parameters", r#"{"letter": "z"}"#]);
    assert_eq!(ended.json()["score"], 1);
    let ended = run(&["--answer", "a cow", "--fuel", "100"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .stderr
            .contains("unscored: the module used up its fuel")
    );
    let ended = run(&["--memory-mib", "0"]);
    assert!(ended.stderr.contains("memory is 1 to 256 MiB"), "{ended:?}");
}

/// Fuel alone says little about seconds.
#[test]
fn a_module_that_never_ends_is_stopped_after_ten_seconds_slow() {
    let place = Place::new();
    let file = place.beside("loop.wasm");
    let body = "(loop $for_ever (br $for_ever)) (unreachable)";
    std::fs::write(&file, bytes_of(&module(body))).unwrap();
    let file = file.display().to_string();
    let args = ["evaluator", "try", &file, "--fuel", "100000000000"];
    let ended = place.run(place.command().args(args));
    assert!(ended.stderr.contains("ran longer than 10 s"), "{ended:?}");
}
