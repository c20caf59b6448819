//! Datasets over HTTP: versions, edits, pages, imports, splits, leaks.

use serde_json::{Value, json};

use crate::harness::{Client, Place, Reply, encode, on_both_databases};

on_both_databases!(
    a_dataset_is_edited_version_by_version,
    files_come_in_whole_and_go_out_again,
    traces_become_examples,
);

const NAME: &str = "support/質問";

fn path(rest: &str) -> String {
    format!("/api/v1/datasets/{}{rest}", encode(NAME))
}

fn create(client: &Client, name: &str, examples: Value) -> Value {
    let reply = client.post(
        "/api/v1/datasets",
        &json!({"name": name, "examples": examples}),
    );
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn edit(client: &Client, edits: &Value) -> Value {
    let reply = client.post(&path("/versions"), edits);
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

/// The code and the place of a refusal.
fn refused(reply: &Reply) -> (u16, String, String) {
    let (status, code) = reply.refusal();
    let at = reply.json()["error"]["at"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (status, code, at)
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

/// Every example of a version, page by page, with the chunk files counted on the disk.
fn all_ids(client: &Client, query: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client
            .get(&path(&format!("/examples?limit=97{query}{cursor}")))
            .json();
        found.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

fn blobs(place: &Place) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                if entry.path().is_dir() {
                    count(&entry.path())
                } else {
                    1
                }
            })
            .sum()
    }
    count(&place.data().join("blobs"))
}

fn a_dataset_is_edited_version_by_version(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    let examples: Vec<Value> = (0..600)
        .map(|n| json!({"id": format!("e{n:03}"), "input": format!("question {n}"), "split": if n % 3 == 0 { "test" } else { "train" }}))
        .collect();
    let saved = create(&live, NAME, json!(examples));
    assert_eq!(
        (&saved["version"], &saved["count"], &saved["added"]),
        (&json!(1), &json!(600), &json!(600))
    );
    assert_eq!(blobs(&place), 3, "256 + 256 + 88");
    let again = live.post("/api/v1/datasets", &json!({"name": NAME}));
    assert_eq!(
        refused(&again),
        (409, "dataset_exists".to_owned(), "name".to_owned())
    );

    // Pages, filters.
    let all = all_ids(&live, "");
    assert_eq!((all.len(), &*all[0], &*all[599]), (600, "e000", "e599"));
    assert_eq!(all_ids(&live, "&split=test").len(), 200);
    assert_eq!(
        all_ids(&live, "&q=QUESTION%2059"),
        [
            "e059", "e590", "e591", "e592", "e593", "e594", "e595", "e596", "e597", "e598", "e599"
        ]
    );
    assert!(all_ids(&live, "&split=~none").is_empty());
    let page = live.get(&path("/examples?split=train&limit=2")).json();
    assert_eq!(
        (&page["total"], ids(&page)),
        (&json!(400), vec!["e001", "e002"])
    );
    let one = live.get(&path("/examples/e599")).json();
    assert_eq!(
        (&one["place"], &one["input"]),
        (&json!(599), &json!("question 599"))
    );
    assert!(
        one["source"]["person"]
            .as_str()
            .unwrap()
            .starts_with("key:")
    );
    assert_eq!(
        live.get(&path("/examples/nobody")).refusal(),
        (404, "no_such_example".to_owned())
    );

    // An edit writes the chunks that it touches and shares the others.
    let edits = json!({
        "put": [{"id": "e000", "input": "question 0", "expected": "zero", "split": "test"}, {"input": {"q": "new"}}],
        "patch": [{"id": "e599", "split": null, "metadata": {"hard": true}}],
        "remove": ["e001"],
        "message": "corrected",
        "base": 1,
    });
    let saved = edit(&live, &edits);
    assert_eq!(
        (
            &saved["version"],
            &saved["count"],
            &saved["added"],
            &saved["changed"],
            &saved["removed"]
        ),
        (&json!(2), &json!(600), &json!(1), &json!(2), &json!(1))
    );
    assert_eq!(blobs(&place), 5, "the first and the last chunk are new");
    let id = saved["ids"][1].as_str().unwrap();
    assert_eq!(
        live.get(&path(&format!("/examples/{id}"))).json()["place"],
        599
    );
    assert_eq!(
        live.get(&path("/examples/e000?version=1"))
            .json()
            .get("expected"),
        None
    );
    assert_eq!(live.get(&path("/examples/e000")).json()["expected"], "zero");
    let shown = live.get(&path("")).json();
    assert_eq!(shown["splits"], json!({"test": 200, "train": 398}));

    // What differs, by example.
    let diff = live.get(&path("/diff?from=1&to=2")).json();
    let counts = ["added", "changed", "removed"].map(|sort| diff[sort]["count"].as_u64().unwrap());
    assert_eq!(counts, [1, 2, 1]);
    assert_eq!(diff["changed"]["items"][0]["after"]["expected"], "zero");
    assert_eq!(diff["removed"]["items"][0]["before"]["id"], "e001");

    // Nobody overwrites what they did not see; an edit back is a version of its own.
    let late = live.post(&path("/versions"), &json!({"remove": ["e002"], "base": 1}));
    assert_eq!(
        refused(&late),
        (409, "saved_meanwhile".to_owned(), "base".to_owned())
    );
    assert_eq!(
        edit(
            &live,
            &json!({"patch": [{"id": "e002", "expected": "two"}]})
        )["version"],
        3
    );
    assert_eq!(
        edit(&live, &json!({"patch": [{"id": "e002", "expected": null}]}))["version"],
        4
    );
    assert_eq!(
        live.get(&path("/diff?from=2&to=4")).json()["changed"]["count"],
        0
    );
    assert_eq!(edit(&live, &json!({"put": []}))["already_existed"], true);

    // All or nothing, with the place.
    for (edits, code, at) in [
        (
            json!({"put": [{"input": "a"}, {"input": null}]}),
            "invalid_example",
            "/put/1/input",
        ),
        (
            json!({"put": [{"input": "a", "split": "no/split"}]}),
            "invalid_example",
            "/put/0/split",
        ),
        (
            json!({"patch": [{"id": "nobody", "split": "x"}]}),
            "no_such_example",
            "/patch/0",
        ),
        (
            json!({"remove": ["e003", "e003"]}),
            "invalid_example",
            "/remove/1",
        ),
        (
            json!({"put": [{"input": 9007199254740993_i64}]}),
            "invalid_example",
            "/put/0",
        ),
        (
            json!({"put": [{"input": "x".repeat(1 << 20)}]}),
            "invalid_example",
            "/put/0",
        ),
        (
            json!({"describe": {"fields": {"input": {"type": "strin"}}}}),
            "invalid_document",
            "/fields/input/type",
        ),
        (
            json!({"describe": {"labels": ["a", "a"]}}),
            "invalid_document",
            "/labels/1",
        ),
        (
            json!({"describe": {"fields": {"input": {"$ref": "#"}}}}),
            "invalid_document",
            "/fields/input",
        ),
        // One example is an object.
        (
            json!({"describe": {"fields": {"input": {"type": "string"}}}}),
            "invalid_example",
            &format!("example {id:?}/input"),
        ),
    ] {
        let reply = live.post(&path("/versions"), &edits);
        let (_, found, place) = refused(&reply);
        assert_eq!((&*found, &*place), (code, at), "{reply:?}");
    }
    assert_eq!(live.get(&path("")).json()["version"], 4);

    // Rules hold from then on, for old examples and new ones.
    let rules = json!({"describe": {"fields": {"expected": {"type": "string", "maxLength": 4}}, "labels": ["zero", "one"]}});
    assert_eq!(edit(&live, &rules)["version"], 5);
    let wrong = live.post(
        &path("/versions"),
        &json!({"put": [{"input": "a", "expected": "none"}]}),
    );
    assert_eq!(refused(&wrong).2, "/put/0/expected");
    edit(
        &live,
        &json!({"put": [{"input": "a", "expected": ["one", "zero"]}], "describe": {"fields": {}}}),
    );

    // Marks stay where their text stays.
    let text = "call 太郎 at 090-1234-5678";
    let mark = json!({"kind": "phone", "path": "/input", "start": 11, "end": 24});
    edit(
        &live,
        &json!({"put": [{"id": "m", "input": text, "marks": [mark]}]}),
    );
    edit(
        &live,
        &json!({"patch": [{"id": "m", "input": format!("please {text}")}]}),
    );
    assert_eq!(
        live.get(&path("/examples/m")).json()["marks"],
        json!([{"kind": "phone", "path": "/input", "start": 18, "end": 31}])
    );
    edit(
        &live,
        &json!({"put": [{"id": "m", "input": "call nobody"}]}),
    );
    assert_eq!(live.get(&path("/examples/m")).json().get("marks"), None);
    let beyond = json!({"put": [{"input": "short", "marks": [mark]}]});
    assert_eq!(
        refused(&live.post(&path("/versions"), &beyond)).2,
        "/put/0/marks/0"
    );

    // A document is not written by hand, and another project sees none of it.
    let by_hand = live.post(
        &format!("/api/v1/catalog/dataset/{}/versions", encode(NAME)),
        &json!({"content": {"count": 0}}),
    );
    assert_eq!(by_hand.refusal(), (400, "made_not_written".to_owned()));
    place.add_project("other");
    let (_, key) = place.make_key("other", "admin");
    let other = live.with_key(&key);
    for rest in [
        "",
        "/versions",
        "/examples",
        "/examples/e000",
        "/diff?from=1",
    ] {
        assert_eq!(
            other.get(&path(rest)).refusal(),
            (404, "no_such_dataset".to_owned()),
            "{rest}"
        );
    }

    // Deleting hides it; saving brings it back with its history.
    assert_eq!(live.delete(&path("")).status, 204);
    assert_eq!(
        live.get(&path("/examples")).refusal(),
        (404, "no_such_dataset".to_owned())
    );
    assert!(
        live.get("/api/v1/datasets").json()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let revived = create(&live, NAME, json!([{"id": "e000", "input": "again"}]));
    assert_eq!(revived["count"], 1);
    assert!(revived["version"].as_i64().unwrap() > 5);
    assert_eq!(all_ids(&live, "&version=1").len(), 600);
}

/// Sends a file and gives the upload's id and name, as an import names it.
fn upload(client: &Client, name: &str, bytes: &[u8]) -> Value {
    let path = format!("/api/v1/dataset-uploads?name={}", encode(name));
    let reply = client
        .call("POST", &path)
        .body("application/octet-stream", bytes)
        .send();
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

fn try_import(client: &Client, name: &str, files: &[(&str, &[u8])], options: Value) -> Reply {
    let uploads: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| upload(client, name, bytes))
        .collect();
    let path = format!("/api/v1/datasets/{}/import", encode(name));
    client.post(&path, &json!({"uploads": uploads, "options": options}))
}

fn import(client: &Client, name: &str, files: &[(&str, &[u8])], options: Value) -> Value {
    let reply = try_import(client, name, files, options);
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()
}

/// The examples of a dataset without what differs from time to time.
fn examples(client: &Client, name: &str) -> Vec<Value> {
    let path = format!("/api/v1/datasets/{}/examples?limit=1000", encode(name));
    let mut page = client.get(&path).json();
    let mut items = page["items"].take();
    for item in items.as_array_mut().unwrap() {
        for key in ["place", "id", "source"] {
            item.as_object_mut().unwrap().remove(key);
        }
    }
    items.as_array().unwrap().clone()
}

/// A tar archive of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[156] = b'0';
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn files_come_in_whole_and_go_out_again(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();

    // CSV as spreadsheets write it: a byte order mark, line breaks in cells, other columns.
    let csv = "\u{feff}Question,answer,topic,split\r\n\"say \"\"hi\"\",\nplease\",hi,greeting,train\r\n日本の首都は?,東京,geo,\r\n";
    import(
        &live,
        "csv",
        &[("quiz.csv", csv.as_bytes())],
        json!({"split": "test"}),
    );
    assert_eq!(
        examples(&live, "csv"),
        [
            json!({"input": "say \"hi\",\nplease", "expected": "hi", "metadata": {"topic": "greeting"}, "split": "train"}),
            json!({"input": "日本の首都は?", "expected": "東京", "metadata": {"topic": "geo"}, "split": "test"}),
        ]
    );
    let source = live.get("/api/v1/datasets/csv/examples?limit=2").json();
    assert_eq!(
        source["items"][1]["source"],
        json!({"import": "quiz.csv", "line": 4})
    );

    // Another encoding: said, or refused with its line.
    let sjis = b"question,answer\n\x93\xfa\x96{,yes\n";
    let refused_at = |reply: &Reply| refused(reply);
    let reply = try_import(&live, "sjis", &[("a.csv", sjis)], json!({}));
    assert_eq!(
        refused_at(&reply),
        (400, "invalid_rows".to_owned(), "a.csv:2".to_owned())
    );
    assert!(reply.text().contains("shift_jis"), "{reply:?}");
    import(
        &live,
        "sjis",
        &[("a.csv", sjis)],
        json!({"encoding": "shift_jis"}),
    );
    assert_eq!(examples(&live, "sjis")[0]["input"], "日本");

    // A mapping, looked at before anything is saved.
    let file = upload(&live, "b.csv", b"a,b,c\n1,2,3\n");
    let request = json!({"uploads": [file], "options": {"mapping": {"a": "metadata.n", "b": "input.x", "c": "input.y"}}});
    let preview = live
        .post("/api/v1/dataset-uploads/preview", &request)
        .json();
    assert_eq!(preview["examples"][0]["input"], json!({"x": "2", "y": "3"}));
    assert_eq!(
        preview["columns"][1],
        json!({"column": "b", "field": "input.x"})
    );
    assert_eq!(live.get("/api/v1/datasets/b").status, 404);

    // A folder as Hugging Face has it, packed; several files; OpenAI's formats; promptfoo's.
    let archive = tar(&[
        ("data/README.md", b"# nothing"),
        (
            "data/train-00000-of-00001.jsonl",
            b"{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n",
        ),
        ("data/test.csv", b"text,label\nc,x\n"),
        ("../outside.jsonl", b"{\"text\": \"never\"}"),
    ]);
    import(&live, "folder", &[("set.tar", &archive)], json!({}));
    let shown = live.get("/api/v1/datasets/folder").json();
    assert_eq!(shown["splits"], json!({"test": 1, "train": 2}));
    let evals = br#"{"input": [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2"}], "ideal": ["4", "four"]}
{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}
"#;
    import(
        &live,
        "evals",
        &[(
            "evals.jsonl",
            &evals[..evals.iter().position(|b| *b == b'\n').unwrap()],
        )],
        json!({}),
    );
    assert_eq!(
        examples(&live, "evals")[0]["expected"],
        json!(["4", "four"])
    );
    let chat = br#"{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}"#;
    import(&live, "evals", &[("chat.jsonl", chat)], json!({}));
    let found = examples(&live, "evals");
    assert_eq!(
        (
            found.len(),
            &found[1]["expected"],
            &found[1]["input"][0]["content"]
        ),
        (2, &json!("hi"), &json!("hello"))
    );
    let tests = b"prompts: [x]\ntests:\n  - description: first\n    vars: {city: Paris}\n    assert:\n      - {type: contains, value: France}\n";
    import(
        &live,
        "promptfoo",
        &[("promptfooconfig.yaml", tests)],
        json!({}),
    );
    let found = examples(&live, "promptfoo");
    assert_eq!(
        (&found[0]["input"], &found[0]["expected"]),
        (&json!({"city": "Paris"}), &json!("France"))
    );
    assert_eq!(found[0]["metadata"]["assert"][0]["type"], "contains");
    import(
        &live,
        "promptfoo",
        &[("tests.csv", b"city,__expected\nRome,icontains: Italy\n")],
        json!({}),
    );
    assert_eq!(examples(&live, "promptfoo")[1]["expected"], "Italy");

    // All or nothing: a bad row of any kind says where it is.
    let long = format!(
        "{{\"input\": \"a\"}}\n{{\"input\": \"{}\"}}\n",
        "x".repeat(5 << 20)
    );
    for (name, bytes, at) in [
        (
            "a.jsonl",
            b"{\"input\": 1}\n\n{\"input\": \n".as_slice(),
            "a.jsonl:3",
        ),
        ("a.jsonl", b"{\"input\": 1}\n[1]\n", "a.jsonl:2"),
        ("a.jsonl", b"{\"expected\": \"x\"}\n", "a.jsonl:1"),
        (
            "a.jsonl",
            b"{\"id\": \"x\", \"input\": 1}\n{\"id\": \"x\", \"input\": 2}\n",
            "a.jsonl:2",
        ),
        ("a.csv", b"input,expected\na,b\nc\n", "a.csv:3"),
        ("a.csv", b"input,expected\na,\"b\nc\n", "a.csv:2"),
        ("a.csv", b"input,input\na,b\n", "a.csv:1"),
        ("a.json", b"{}", "a.json:1"),
        ("a.jsonl", long.as_bytes(), "a.jsonl:2"),
    ] {
        let reply = try_import(
            &live,
            "none",
            &[("good.jsonl", b"{\"input\": \"good\"}\n"), (name, bytes)],
            json!({}),
        );
        assert_eq!(
            refused(&reply),
            (400, "invalid_rows".to_owned(), at.to_owned()),
            "{name}"
        );
    }
    assert_eq!(live.get("/api/v1/datasets/none").status, 404);
    let parquet = try_import(&live, "none", &[("a.parquet", b"PAR1")], json!({}));
    assert_eq!(parquet.status, 400, "{parquet:?}");

    // What goes out comes back as it was; a spreadsheet never sees a formula.
    let odd = json!([
        {"id": "a", "input": "=1+1", "expected": "'=x", "split": "train"},
        {"id": "b", "input": {"q": "-2", "n": 1.5}, "expected": ["@a", null], "context": ["c1", "c,2"], "metadata": {"k": {"deep": [1]}}, "verdict": "bad"},
        {"id": "c", "input": "", "expected": "{\"not\": \"parsed\"}"},
        {"id": "d", "input": "line\r\nbreak \"q\"", "expected": -5, "source": {"trace": "0190a5b0c3d47e8f9a0b1c2d3e4f5061", "answer": "x"},
         "marks": [{"kind": "k", "path": "/input", "start": 0, "end": 4}]},
        {"id": "e", "input": [{"role": "user", "content": "hello"}], "expected": "hi"},
    ]);
    create(&live, "odd", odd.clone());
    let text = live
        .get("/api/v1/datasets/odd/export?format=csv&bom=true")
        .text();
    assert!(
        text.starts_with('\u{feff}') && text.contains("a,train,,'=1+1,''=x,"),
        "{text}"
    );
    let before = live.get("/api/v1/datasets/odd/examples").json();
    for format in ["csv", "jsonl"] {
        let file = live.get(&format!("/api/v1/datasets/odd/export?format={format}"));
        assert!(
            file.header("content-disposition")
                .unwrap()
                .contains("odd-v1")
        );
        let name = format!("round/{format}");
        import(
            &live,
            &name,
            &[(&format!("x.{format}"), &file.body)],
            json!({}),
        );
        let after = live
            .get(&format!("/api/v1/datasets/{}/examples", encode(&name)))
            .json();
        assert_eq!(after["items"], before["items"], "{format}");
    }
    let chat = live
        .get("/api/v1/datasets/odd/export?format=openai_chat")
        .text();
    let last: Value = serde_json::from_str(chat.lines().last().unwrap()).unwrap();
    assert_eq!(
        last,
        json!({"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]})
    );
    assert_eq!(chat.lines().count(), 5);

    // Replacing keeps the versions before.
    let saved = import(
        &live,
        "odd",
        &[("new.jsonl", b"{\"input\": \"only\"}")],
        json!({"mode": "replace"}),
    );
    assert_eq!(
        (&saved["version"], &saved["count"], &saved["removed"]),
        (&json!(2), &json!(1), &json!(5))
    );
    assert_eq!(
        live.get("/api/v1/datasets/odd/examples?version=1").json()["items"]
            .as_array()
            .unwrap()
            .len(),
        5
    );

    // Splits: the same every time, near-twins together; leaks are found.
    let rows: Vec<Value> = (0..200).map(|n| json!({"input": format!("a question about topic number {n} and nothing else"), "metadata": {"n": n}})).collect();
    create(&live, "split", json!(rows));
    let assign = json!({"shares": {"train": 0.8, "test": 0.2}, "seed": "one"});
    let assigned = live.post("/api/v1/datasets/split/splits", &assign).json();
    let test = assigned["splits"]["test"].as_i64().unwrap();
    assert!((20..=60).contains(&test), "{assigned}");
    let again = live.post("/api/v1/datasets/split/splits", &assign).json();
    assert_eq!(
        (&again["changed"], &again["already_existed"]),
        (&json!(0), &json!(true))
    );
    let report = live.get("/api/v1/datasets/split/alike").json();
    assert!(
        report["leaks"].as_i64().unwrap() > 0,
        "texts of one template leak: {report}"
    );
    let together =
        json!({"shares": {"train": 80, "test": 20}, "seed": "one", "keep_alike_together": true});
    assert_eq!(
        live.post("/api/v1/datasets/split/splits", &together).status,
        201
    );
    assert_eq!(live.get("/api/v1/datasets/split/alike").json()["leaks"], 0);
    assert_eq!(
        live.post("/api/v1/datasets/split/splits", &json!({"shares": {}}))
            .status,
        400
    );

    // A prompt that shows an example to the model.
    let prompt = json!({
        "messages": [{"role": "user", "content": "{{ question }}"}],
        "examples": {"items": [{"inputs": {"question": "What is the capital of the Kingdom of Norway?"}, "output": "Oslo"}]},
    });
    let saved = live.post(
        "/api/v1/prompts",
        &json!({"name": "geo", "content": prompt}),
    );
    assert_eq!(saved.status, 201, "{saved:?}");
    create(
        &live,
        "geo",
        json!([
            {"id": "leak", "input": {"question": "What is the capital of the Kingdom of Norway?"}, "split": "test"},
            {"id": "copy", "input": {"question": "What is the capital of the Kingdom of Norway?"}, "split": "train"},
            {"id": "fine", "input": {"question": "How long is the coast of Iceland in kilometres?"}, "split": "test"},
        ]),
    );
    let report = live.get("/api/v1/datasets/geo/alike").json();
    assert_eq!(
        (&report["copies"], &report["leaks"], &report["shown"]),
        (&json!(1), &json!(1), &json!(2))
    );
    assert_eq!(
        (
            &report["shown_by"][0]["prompt"],
            &report["shown_by"][0]["version"]
        ),
        (&json!("geo"), &json!(1))
    );
}

fn traces_become_examples(place: Place) {
    let place = place.add_fake().with_key("editor");
    let live = place.start();
    let ask = |text: &str| {
        let mut request = crate::harness::question(text);
        request["meguri"] = json!({"tags": {"team": "search"}});
        live.chat(&request)
    };
    let traces: Vec<String> = ["one", "two", "three"].into_iter().map(ask).collect();
    let path = "/api/v1/datasets/from/examples/from-traces";
    let picked = |trace: &str| json!([{"trace": trace}]);
    let none = live.post(path, &json!({"traces": picked(&traces[0])}));
    assert_eq!(none.refusal(), (404, "no_such_dataset".to_owned()));
    let taken = live.post(
        path,
        &json!({"traces": picked(&traces[0]), "verdict": "good", "split": "train", "create": true}),
    );
    assert_eq!(taken.status, 201, "{taken:?}");
    let example = live
        .get(&format!("/api/v1/datasets/from/examples/{}", traces[0]))
        .json();
    assert_eq!(
        (&example["verdict"], &example["split"]),
        (&json!("good"), &json!("train"))
    );
    assert_eq!(example["expected"], example["source"]["answer"]);
    assert_eq!(example["source"]["trace"], traces[0]);
    assert_eq!(example["input"][0]["content"], "one");
    assert_eq!(example["metadata"]["tag.team"], "search");

    // All that a filter finds, those that are known left as they are.
    live.wait_for("/api/v1/traces", |page| {
        page["items"]
            .as_array()
            .is_some_and(|items| items.len() == 3)
    });
    let all = json!({"query": {"filter": "tag.team = \"search\""}, "verdict": null});
    let taken = live.post(path, &all).json();
    assert_eq!(
        (&taken["taken"], &taken["known"], &taken["count"]),
        (&json!(2), &json!(1), &json!(3))
    );
    let few = live.post(path, &json!({"query": {}, "limit": 2}));
    assert_eq!(few.refusal(), (400, "too_many_traces".to_owned()));

    // A corrected answer replaces what is there.
    let corrected =
        json!({"traces": picked(&traces[1]), "verdict": "bad", "expected": "two, of course"});
    assert_eq!(live.post(path, &corrected).json()["changed"], 1);
    let example = live
        .get(&format!("/api/v1/datasets/from/examples/{}", traces[1]))
        .json();
    assert_eq!(
        (&example["verdict"], &example["expected"]),
        (&json!("bad"), &json!("two, of course"))
    );
    assert_eq!(
        live.post(
            path,
            &json!({"traces": picked("0190a5b0c3d47e8f9a0b1c2d3e4f5061")})
        )
        .refusal(),
        (404, "trace_not_found".to_owned())
    );

    // Pages, without scripts.
    let person = place.add_person("default", "editor");
    let browser = live.browser_of(&person);
    for page in [
        "datasets",
        "datasets/new",
        "datasets/show?name=from",
        "datasets/versions?name=from",
        "datasets/diff?name=from&from=1&to=2",
        "datasets/alike?name=from",
        "datasets/settings?name=from",
        "datasets/import?name=from",
        "datasets/example?name=from",
        &format!("datasets/example?name=from&id={}", traces[0]),
        &format!("datasets/add?trace={}", traces[2]),
        "datasets/add?filter=x",
        "traces",
        &format!("traces/{}", traces[0]),
    ] {
        let reply = browser.get(&format!("/default/{page}"));
        assert_eq!(reply.status, 200, "{page}: {}", reply.text());
    }
    let saved = browser.form(
        "/default/datasets/example",
        &[
            ("name", "from"),
            ("base", "0"),
            ("id", ""),
            ("input", "{\"q\": 1}"),
            ("input_as", "json"),
            ("expected", "one\r\ntwo"),
            ("expected_as", "text"),
            ("context", "a\r\n---\r\nb"),
            ("metadata", ""),
            ("split", "train"),
            ("verdict", ""),
            ("message", "by hand"),
        ],
    );
    assert_eq!(saved.status, 303, "{}", saved.text());
    let last = live
        .get("/api/v1/datasets/from/examples?split=train")
        .json()["items"][1]
        .take();
    assert_eq!(
        (&last["input"], &last["expected"], &last["context"]),
        (&json!({"q": 1}), &json!("one\ntwo"), &json!(["a", "b"]))
    );
    let id = last["id"].as_str().unwrap().to_owned();
    let wrong = browser.form(
        "/default/datasets/example",
        &[
            ("name", "from"),
            ("id", &id),
            ("input", "{"),
            ("input_as", "json"),
        ],
    );
    assert_eq!(wrong.status, 400);
    let gone = browser.form(
        "/default/datasets/example/remove",
        &[("name", "from"), ("id", &id)],
    );
    assert_eq!(gone.status, 303);
    let pasted = browser.form(
        "/default/datasets/import",
        &[
            ("name", "from"),
            ("text", "q,expected\na,b\n"),
            ("format", "csv"),
            ("mode", "append"),
        ],
    );
    assert_eq!(pasted.status, 303, "{}", pasted.text());
    let splits = browser.form(
        "/default/datasets/splits",
        &[
            ("name", "from"),
            ("shares", "train 50, test 50"),
            ("only_unassigned", "1"),
        ],
    );
    assert_eq!(splits.status, 303);
    assert_eq!(live.get("/api/v1/datasets/from").json()["count"], 4);
    let viewer = live.browser_of(&place.add_person("default", "viewer"));
    assert_eq!(viewer.get("/default/datasets/show?name=from").status, 200);
    assert_eq!(viewer.get("/default/datasets/add?filter=x").status, 403);

    // The command line, beside the running server.
    let listed = place.meguri(&["dataset", "list", "--json"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["count"]),
        (&json!("from"), &json!(4))
    );
    let file = place.beside("more.jsonl");
    std::fs::write(&file, "{\"input\": \"from a file\"}\n").unwrap();
    let imported = place
        .meguri(&[
            "dataset",
            "import",
            "from",
            file.to_str().unwrap(),
            "--json",
        ])
        .json();
    assert_eq!(
        (&imported["added"], &imported["count"]),
        (&json!(1), &json!(5))
    );
    let shown = place.meguri(&["dataset", "show", "from", "--json"]).json();
    assert_eq!(shown["examples"][4]["input"], "from a file");
    assert_eq!(live.get("/api/v1/datasets/from").json()["count"], 5);
}
