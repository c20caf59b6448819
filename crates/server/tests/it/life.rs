//! A server's life: configuration, lock, port, restart, stop.

use std::io::Read as _;

use serde_json::json;
use testkit::provider::Answer;

use crate::harness::{Database, PATIENCE, Place, Wire, on_both_databases, question, read_until};

on_both_databases!(
    a_stop_lets_calls_finish_and_keeps_their_records,
    everything_is_there_after_a_restart
);

fn a_stop_lets_calls_finish_and_keeps_their_records(place: Place) {
    let place = place.add_fake().with_key("editor");
    let mut live = place.start();
    let words = [
        "a",
        " slow",
        " answer",
        " that",
        " outlives",
        " the",
        " server",
    ];
    let pace = std::time::Duration::from_millis(80);
    place.fake.next(Answer {
        text: words.map(str::to_owned).to_vec(),
        pace,
        ..Answer::default()
    });
    let mut request = question("tell me slowly");
    request["stream"] = json!(true);
    let mut stream = live
        .call("POST", "/v1/chat/completions")
        .json(&request)
        .open();
    let head = read_until(&mut stream, "\" slow\"");
    let trace = head
        .lines()
        .find_map(|line| line.strip_prefix("x-meguri-trace-id: "))
        .unwrap()
        .trim()
        .to_owned();
    live.signal("-TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("\" server\"") && rest.contains("[DONE]"),
        "{rest}"
    );
    assert_eq!(live.wait(), 0, "{}", place.log());
    // New calls are not taken while the old ones end.
    assert!(live.call("GET", "/healthz").try_send().is_none());

    let live = place.start();
    let shown = live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    assert_eq!(shown["status"], "ok");
    assert_eq!(shown["spans"][0]["output"][0]["content"], words.concat());
}

#[test]
fn a_page_that_follows_does_not_hold_up_a_stop() {
    let place = Place::new();
    let mut live = place.start();
    let mut tail = live.call("GET", "/api/v1/traces/tail").open();
    read_until(&mut tail, ": following");
    // An idle connection does not either.
    let idle = live.connect();
    let started = std::time::Instant::now();
    live.signal("-TERM");
    let mut rest = String::new();
    let _ = tail.read_to_string(&mut rest);
    assert_eq!(live.wait(), 0);
    // The time that calls get to finish is 25 seconds.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    drop(idle);
}

fn everything_is_there_after_a_restart(place: Place) {
    let place = place.add_fake().with_key("admin");
    let (cookie, trace) = {
        let mut live = place.start();
        let admin = live.set_up(&place, "ada@example.test", "a long enough password");
        let prompt = json!({"name": "kept", "content": {"messages": [{"role": "system", "content": "be brief"}]}});
        assert_eq!(admin.post("/api/v1/prompts", &prompt).status, 201);
        assert_eq!(
            admin
                .put(
                    "/api/v1/prompts/kept/labels/production",
                    &json!({"version": 1})
                )
                .status,
            200
        );
        let mut request = question("hello");
        request["meguri"] = json!({"prompt": "kept"});
        let trace = live.chat(&request);
        // An answer is not yet a record on the disk; a stop waits for that.
        live.signal("-TERM");
        assert_eq!(live.wait(), 0);
        (admin.cookie(crate::harness::SESSION_COOKIE).unwrap(), trace)
    };
    let live = place.start();
    let browser = live.browser();
    browser.set_cookie(crate::harness::SESSION_COOKIE, &cookie);
    assert_eq!(browser.get("/default/").status, 200);
    assert_eq!(
        live.get("/api/v1/prompts").json()["items"][0]["labels"],
        json!({"production": 1})
    );
    let shown = live.get(&format!("/api/v1/traces/{trace}")).json();
    assert_eq!(
        (
            &shown["spans"][0]["prompt"],
            &shown["spans"][0]["prompt_version"]
        ),
        (&json!("kept"), &json!(1)),
        "{shown}"
    );
    let mut request = question("again");
    request["meguri"] = json!({"prompt": "kept"});
    live.chat(&request);
    assert_eq!(
        place.fake.seen().pop().unwrap().json()["messages"][0]["content"],
        "be brief"
    );
}

#[test]
fn one_server_for_one_data_directory() {
    let place = Place::on(Database::Sqlite);
    let first = place.start();
    let second = place.meguri(&["serve", "--listen", "127.0.0.1:1"]);
    assert_eq!((second.code, second.stdout.as_str()), (1, ""));
    assert!(
        second.stderr.contains("another meguri server") && second.stderr.contains("data"),
        "{second:?}"
    );
    assert_eq!(first.get("/readyz").status, 200);
    // A server that was killed leaves nothing behind that would stop the next.
    drop(first);
    place.start();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = Place::on(Database::Sqlite);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let ended = place.meguri(&["serve", "--listen", &address]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains(&address) && ended.stderr.contains("in use"),
        "{ended:?}"
    );
}

#[test]
fn a_database_that_is_not_there_is_named_without_its_password() {
    let place = Place::on(Database::Sqlite);
    let args = place.place_args();
    for url in [
        "postgres://meguri:hunter2@127.0.0.1:1/none",
        "mysql://root:hunter2@127.0.0.1/x",
        "nonsense:hunter2",
    ] {
        let mut command = place.command();
        let ended = place.run(
            command
                .args(["key", "list", "--database-url", url])
                .args(&args),
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(
            !ended.stderr.is_empty() && !ended.stderr.contains("hunter2"),
            "{ended:?}"
        );
    }
}

#[test]
fn the_configuration_says_what_is_wrong_with_it() {
    let place = Place::on(Database::Sqlite);
    for (toml, wanted) in [
        ("lisen = \"127.0.0.1:1\"", "did you mean `listen`?"),
        ("[limits]\nconections = 3", "did you mean `connections`?"),
        (
            "[egress]\nallow_privat = true",
            "did you mean `allow_private`?",
        ),
        ("listen = 7800", "listen"),
        ("listen = \"localhost\"", "listen"),
        ("[telemetry]\nwindow_ms = 6", "0 to 5"),
        ("public_url = \"ftp://a\"", "public_url"),
        ("[log]\nformat = \"xml\"", "format"),
        ("[log", "meguri.toml"),
        ("\u{0}", "meguri.toml"),
    ] {
        place.configure(toml);
        for verb in [&["serve"][..], &["key", "list"]] {
            let ended = place.meguri(verb);
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (1, ""),
                "{toml}: {ended:?}"
            );
            assert!(ended.stderr.contains(wanted), "{toml}: {ended:?}");
            assert!(
                ended.stderr.contains("meguri.toml") || toml.contains("ftp") || toml.contains('6'),
                "{toml}: {ended:?}"
            );
        }
    }
    place.configure("[log]\nlevel = \"a=b=c\"");
    let ended = place.meguri(&["serve"]);
    assert!(
        ended.code == 1 && ended.stderr.contains("log.level"),
        "{ended:?}"
    );
    let mut command = place.command();
    let ended = place.run(
        command
            .args(["serve", "--config", "/nowhere.toml"])
            .args(place.place_args()),
    );
    assert!(
        ended.code == 1 && ended.stderr.contains("/nowhere.toml"),
        "{ended:?}"
    );
    // The rule for suggestions: near enough, or none.
    assert!(
        !server::config::parse_for_test("xyzzy = 1")
            .unwrap_err()
            .contains("did you mean")
    );
    assert_eq!(server::config::parse_for_test(""), Ok(()));
}

#[test]
fn file_then_environment_then_flags() {
    let place = Place::on(Database::Sqlite);
    let taken: Vec<std::net::TcpListener> = (0..3)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let address = |index: usize| taken[index].local_addr().unwrap().to_string();
    place.configure(&format!("listen = \"{}\"", address(0)));
    // Each start fails on the address that it chose, and says so.
    let run = |environment: Option<String>, flag: Option<String>| {
        let mut command = place.command();
        command.arg("serve").args(place.place_args());
        if let Some(value) = environment {
            command.env("MEGURI_LISTEN", value);
        }
        if let Some(value) = flag {
            command.args(["--listen", &value]);
        }
        place.run(&mut command).stderr
    };
    assert!(run(None, None).contains(&address(0)));
    assert!(run(Some(address(1)), None).contains(&address(1)));
    assert!(run(Some(address(1)), Some(address(2))).contains(&address(2)));
}

#[test]
fn logs_are_structured_and_hold_no_content() {
    let place = Place::new();
    place.configure("[log]\nformat = \"json\"\nlevel = \"debug\"");
    let live = place.start();
    live.chat(&question("a sentence that is nobody's business"));
    let _ = live.post(
        "/v1/chat/completions",
        &json!({"model": "none/x", "messages": "a sentence that is nobody's business"}),
    );
    let until = std::time::Instant::now() + PATIENCE;
    while !place.log().contains("meguri serves") {
        assert!(std::time::Instant::now() < until);
    }
    let log = place.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["fields"]["message"] == "meguri serves"),
        "{log}"
    );
    assert!(
        !log.contains("nobody's business") && !log.contains(&place.key),
        "{log}"
    );
}

/// The database goes away under a running server: calls go on, what needs it
/// says so, after the 20 seconds that it waits for a connection.
#[test]
fn slow_a_lost_database_does_not_stop_calls() {
    let place = Place::on(Database::Postgres).add_fake().with_key("editor");
    let wire = Wire::to(&place);
    // The flag that comes last would be the direct way.
    let mut live = place.start_with(|command| {
        let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let at = args.len() - 1;
        *command = place.command();
        command
            .args(&args[..at])
            .arg(&wire.url)
            .stdout(std::process::Stdio::null());
        command.stderr(
            std::fs::File::options()
                .append(true)
                .open(place.beside("server.log"))
                .unwrap(),
        );
    });
    live.chat(&question("before"));
    wire.cut();
    live.chat(&question("after"));
    let reply = live.get("/readyz");
    assert_eq!(
        (reply.status, reply.json()["database"].clone()),
        (503, json!(false)),
        "{reply:?}"
    );
    assert_eq!(live.get("/healthz").status, 200);
    let unknown = live.with_key("mgr_dev_unknown").get("/v1/models");
    assert_eq!(
        (unknown.status, unknown.json()["error"]["type"].clone()),
        (503, json!("server_error")),
        "{unknown:?}"
    );
    let needs_it = live.get("/api/v1/prompts");
    assert_eq!(
        needs_it.refusal(),
        (503, "unavailable".to_owned()),
        "{needs_it:?}"
    );
    assert_eq!(
        live.get("/api/v1/traces").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    live.signal("-TERM");
    assert_eq!(live.wait(), 0, "{}", place.log());
}
