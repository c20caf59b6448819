//! The command line as other people's scripts use it.

use std::os::unix::process::CommandExt as _;

use serde_json::{Value, json};
use testkit::provider::Answer;

use crate::harness::{Database, Ended, Place, on_both_databases, question};

on_both_databases!(
    keys_are_made_listed_and_revoked,
    providers_are_added_tested_and_removed
);

/// Nothing that could act on a terminal.
fn assert_plain(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        assert!(
            !text.chars().any(|c| c != '\n' && c.is_control()),
            "{text:?}"
        );
    }
}

fn keys_are_made_listed_and_revoked(place: Place) {
    let create = [
        "key",
        "create",
        "--project",
        "default",
        "--env",
        "dev",
        "--name",
        "ci",
        "--json",
    ];
    let ended = place.meguri(&create);
    assert_eq!(ended.stderr, "");
    let made = ended.json();
    let (id, secret) = (
        made["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    assert!(secret.starts_with("mgr_dev_"), "{secret}");
    // For people the secret is the data, and the remark about it is not.
    let plain = place.meguri(&["key", "create", "--name", "people", "--role", "viewer"]);
    assert_eq!(plain.stdout.lines().count(), 1);
    assert!(
        plain.stdout.starts_with("mgr_dev_") && plain.stderr.contains("not shown again"),
        "{plain:?}"
    );

    let listed = place.meguri(&["key", "list", "--json"]);
    assert!(!listed.stdout.contains(secret));
    let names: Vec<Value> = listed.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].clone())
        .collect();
    assert_eq!(names, ["people", "ci"]);
    let table = place.meguri(&["key", "list"]);
    assert!(
        table.stdout.contains(id) && table.stdout.contains("good") && table.stderr.is_empty(),
        "{table:?}"
    );
    let revoked = place.meguri(&["key", "revoke", id]);
    assert_eq!((revoked.code, revoked.stdout.as_str()), (0, ""));
    assert!(place.meguri(&["key", "list"]).stdout.contains("revoked"));
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_was() {
    let place = Place::on(Database::Sqlite);
    let code = |args: &[&str]| {
        let ended = place.meguri(args);
        assert_plain(&ended);
        assert!(
            ended.code == 0 || ended.stdout.is_empty(),
            "a failure printed data: {ended:?}"
        );
        assert!(
            ended.code == 0 || !ended.stderr.is_empty(),
            "a failure without a word: {ended:?}"
        );
        ended.code
    };
    // Wrong usage.
    assert_eq!(code(&["key", "create"]), 2);
    assert_eq!(code(&["key", "create", "--name", "x", "--role", "root"]), 2);
    assert_eq!(
        code(&[
            "provider",
            "add",
            "x",
            "--protocol",
            "telnet",
            "--base-url",
            "http://a"
        ]),
        2
    );
    assert_eq!(code(&["keys", "list"]), 2);
    assert_eq!(code(&["serve", "--listen", "nowhere"]), 2);
    assert_eq!(place.run(&mut place.command()).code, 2);
    // Not found.
    assert_eq!(code(&["key", "revoke", "nothing"]), 3);
    assert_eq!(
        code(&["key", "create", "--name", "x", "--project", "nowhere"]),
        3
    );
    assert_eq!(code(&["provider", "rm", "nothing"]), 3);
    assert_eq!(code(&["provider", "test", "nothing"]), 3);
    assert_eq!(
        code(&["traces", "show", "0190a5b0c3d47e8f9a0b1c2d3e4f5061"]),
        3
    );
    // Failed.
    assert_eq!(code(&["key", "create", "--name", "x", "--env", "moon"]), 1);
    assert_eq!(
        code(&[
            "provider",
            "add",
            "Bad Name",
            "--protocol",
            "openai",
            "--base-url",
            "http://a"
        ]),
        1
    );
    assert_eq!(
        code(&[
            "provider",
            "add",
            "x",
            "--protocol",
            "openai",
            "--base-url",
            "ftp://a"
        ]),
        1
    );
    assert_eq!(
        code(&[
            "provider",
            "add",
            "x",
            "--protocol",
            "openai",
            "--base-url",
            "http://user:secret@a/"
        ]),
        1
    );
}

#[test]
fn version_and_help_need_no_data() {
    let place = Place::on(Database::Sqlite);
    let version = env!("CARGO_PKG_VERSION");
    let run = |args: &[&str]| place.run(place.command().args(args));
    assert_eq!(run(&["version"]).stdout, format!("meguri {version}\n"));
    assert_eq!(
        run(&["version", "--json"]).json(),
        json!({"version": version})
    );
    assert_eq!(run(&["--version"]).stdout, format!("meguri {version}\n"));
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for verb in [
        "up", "serve", "key", "provider", "model", "traces", "doctor", "version",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {verb} ")),
            "{verb}: {}",
            help.stdout
        );
    }
    assert_plain(&help);
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 0);
}

fn providers_are_added_tested_and_removed(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let unknown = live.post("/v1/chat/completions", &question("hello"));
    assert_eq!(
        (unknown.status, unknown.code()),
        (404, "model_not_found".to_owned()),
        "{unknown:?}"
    );
    let url = place.fake.openai_url();
    let added = place
        .meguri(&[
            "provider",
            "add",
            "fake",
            "--protocol",
            "openai",
            "--base-url",
            &url,
            "--json",
        ])
        .json();
    assert_eq!(
        (&added["name"], &added["credential"], &added["state"]),
        (&json!("fake"), &json!("none"), &json!("unknown"))
    );
    // A running server follows at once.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while live.post("/v1/chat/completions", &question("hello")).status != 200 {
        assert!(
            std::time::Instant::now() < until,
            "the server does not see the new provider"
        );
    }
    let twice = place.meguri(&[
        "provider",
        "add",
        "fake",
        "--protocol",
        "openai",
        "--base-url",
        &url,
    ]);
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.stderr.contains("already"), "{twice:?}");

    let tested = place.meguri(&["provider", "test", "fake", "--json"]).json();
    assert_eq!(tested["state"], "ok");
    assert!(!tested["models"].as_array().unwrap().is_empty(), "{tested}");
    let listed = place.meguri(&["provider", "list", "--json"]).json();
    assert_eq!(listed["items"], json!([tested]));
    assert!(place.meguri(&["provider", "list"]).stdout.contains("fake"));
    place.fake.always(Answer::status(500, "on fire\u{1b}[31m"));
    let failed = place.meguri(&["provider", "test", "fake"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (1, ""), "{failed:?}");
    assert_plain(&failed);

    place.meguri(&["provider", "rm", "fake"]).assert_done();
    assert_eq!(
        place.meguri(&["provider", "list", "--json"]).json(),
        json!({"items": []})
    );
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while live.post("/v1/chat/completions", &question("hello")).status != 404 {
        assert!(
            std::time::Instant::now() < until,
            "the server still calls a removed provider"
        );
    }
}

#[test]
fn a_credential_comes_from_the_environment_or_a_file() {
    let place = Place::on(Database::Sqlite).with_key("editor");
    let url = place.fake.openai_url();
    let add = [
        "provider",
        "add",
        "env",
        "--protocol",
        "openai",
        "--base-url",
        &url,
        "--api-key-env",
        "FAKE_KEY",
    ];
    place.meguri(&add).assert_done();
    let file = place.beside("secret");
    std::fs::write(&file, "sk-from-a-file\n").unwrap();
    let path = file.display().to_string();
    let add = [
        "provider",
        "add",
        "file",
        "--protocol",
        "openai",
        "--base-url",
        &url,
        "--api-key-file",
        &path,
    ];
    let added = place.meguri(&add);
    added.assert_done();
    assert!(!format!("{added:?}").contains("sk-from-a-file"));
    std::fs::remove_file(file).unwrap();
    let live = place.start_with(|command| {
        command.env("FAKE_KEY", "sk-from-the-environment");
    });
    for (model, wanted) in [
        ("env/tiny", "Bearer sk-from-the-environment"),
        ("file/tiny", "Bearer sk-from-a-file"),
    ] {
        live.chat(&json!({"model": model, "messages": [{"role": "user", "content": "hello"}]}));
        let seen = place.fake.seen().pop().unwrap();
        assert_eq!(seen.headers["authorization"], wanted);
    }
}

#[test]
fn llm10_terminal_escapes() {
    let place = Place::new();
    let live = place.start();
    // Whatever a model, a caller or a key's name says, a terminal only ever shows it.
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m red \u{202e}txet";
    place.fake.next(Answer {
        text: vec![hostile.to_owned()],
        ..Answer::default()
    });
    let mut request = question(hostile);
    request["meguri"] = json!({"session": hostile, "user": hostile, "tags": {"team": hostile}});
    let trace = live.chat(&request);
    live.wait_for(&format!("/api/v1/traces/{trace}"), |_| true);
    place.fake.always(Answer::status(
        500,
        format!("{{\"error\": {{\"message\": {}}}}}", json!(hostile)),
    ));
    let _ = live.post("/v1/chat/completions", &question("hello"));
    for args in [
        &["traces", "list"][..],
        &["traces", "show", &trace],
        &["provider", "list"],
        &["provider", "test", "fake"],
        &["key", "list"],
        &["key", "revoke", hostile],
        &["key", "create", "--name", hostile],
        &["provider", "rm", hostile],
        &["key", "list", "--project", hostile],
    ] {
        let ended = place.meguri(args);
        assert_plain(&ended);
        assert!(
            !ended.stdout.contains('\u{202e}') && !ended.stderr.contains('\u{202e}'),
            "{args:?}: {ended:?}"
        );
    }
    // JSON keeps every character, escaped by the format itself.
    let shown = place.meguri(&["traces", "show", &trace, "--json"]);
    assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    assert!(shown.json().to_string().contains("owned"));
}

#[test]
fn doctor_looks_at_everything() {
    let place = Place::new();
    let checks = |ended: &Ended| {
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        let names: Vec<String> = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["ok"] == false)
            .map(|check| check["name"].as_str().unwrap().to_owned())
            .collect();
        (ended.code, json["ok"].clone(), names)
    };
    let good = place.meguri(&["doctor", "--json"]);
    assert_eq!(checks(&good), (0, json!(true), vec![]), "{good:?}");
    assert!(place.meguri(&["doctor"]).stdout.contains("ok"));
    {
        let _live = place.start();
        let beside = place.meguri(&["doctor", "--json"]);
        assert_eq!(checks(&beside), (0, json!(true), vec![]), "{beside:?}");
    }
    std::fs::write(
        place.data().join("meguri.db"),
        b"this is not a database, only some text of ours",
    )
    .unwrap();
    let broken = place.meguri(&["doctor", "--json"]);
    assert_eq!(
        (checks(&broken).0, checks(&broken).1),
        (1, json!(false)),
        "{broken:?}"
    );
    assert!(
        checks(&broken).2.contains(&"database".to_owned()),
        "{broken:?}"
    );
    place.configure("lisen = 1");
    let wrong = place.meguri(&["doctor", "--json"]);
    assert_eq!(
        checks(&wrong),
        (1, json!(false), vec!["configuration".to_owned()])
    );
}

/// As root a folder cannot be made read-only for us, so the command runs as somebody else then.
#[test]
fn a_read_only_data_directory_is_a_clear_error() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let place = Place::on(Database::Sqlite);
    let mut command = place.command();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    // Somebody else may not be able to enter the checkout.
    let copy = place.beside("meguri");
    std::fs::copy(env!("CARGO_BIN_EXE_meguri"), &copy).unwrap();
    std::fs::set_permissions(place.data(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if is_root {
        std::fs::set_permissions(place.beside("."), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        command = std::process::Command::new(&copy);
        command.uid(65534).gid(65534).current_dir("/");
    }
    for verb in [&["serve", "--listen", "127.0.0.1:1"][..], &["key", "list"]] {
        let mut command = std::process::Command::new(command.get_program());
        if is_root {
            command.uid(65534).gid(65534).current_dir("/");
        }
        let ended = place.run(command.args(verb).args(place.place_args()));
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{ended:?}");
        assert!(
            ended.stderr.contains(&place.data().display().to_string()),
            "{ended:?}"
        );
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
    std::fs::set_permissions(place.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_newer_database_is_left_alone() {
    let place = Place::new();
    place.database(async |db| {
        let mut tx = db.begin_write().await.unwrap();
        let insert = "INSERT INTO migrations (number, name, digest, applied_at) VALUES (9999, 'later', '', 0)";
        db::sqlx::query(insert).execute(tx.conn()).await.unwrap();
        tx.commit().await.unwrap();
    });
    for args in [&["serve", "--listen", "127.0.0.1:1"][..], &["key", "list"]] {
        let ended = place.meguri(args);
        assert_eq!(ended.code, 1, "{ended:?}");
    }
    let ended = place.meguri(&["key", "list"]);
    assert!(
        ended.stderr.contains("newer version") && ended.stderr.contains("9999"),
        "{ended:?}"
    );
}
