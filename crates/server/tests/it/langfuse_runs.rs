//! Runs over datasets as Langfuse's clients send them: spans by OTLP, scores, and what is
//! read back. The unmodified client is in `compat/`; here is what it would not send.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::harness::{Client, Live, Place, encode, on_both_databases};

on_both_databases!(a_run_is_kept_with_its_items_and_scores);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const NAME: &str = "langfuse/質問";
const START: u64 = 1_790_000_000_000_000_000;

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// The span that answered an item, as the client makes it.
fn item_span(trace: &str, span: &str, item: &str, output: &str) -> Value {
    let attributes = json!([
        attribute("langfuse.environment", "sdk-experiment"),
        attribute("langfuse.observation.type", "span"),
        attribute("langfuse.observation.input", "{\"country\": \"Italy\"}"),
        attribute("langfuse.observation.output", output),
        attribute("langfuse.observation.metadata.team", "葵"),
        attribute("langfuse.experiment.id", "run-1"),
        attribute("langfuse.experiment.name", "first run"),
        attribute("langfuse.experiment.description", "to begin with"),
        attribute("langfuse.experiment.metadata", "{\"model\": \"a\"}"),
        attribute("langfuse.experiment.dataset.id", NAME),
        attribute("langfuse.experiment.item.id", item),
        attribute("langfuse.experiment.item.expected_output", "Rome"),
        attribute("langfuse.experiment.item.root_observation_id", span),
    ]);
    json!({
        "traceId": trace, "spanId": span, "name": "experiment-item-task", "attributes": attributes,
        "startTimeUnixNano": START.to_string(), "endTimeUnixNano": (START + 5_000_000).to_string(),
    })
}

fn export(client: &Client, spans: &Value) -> Value {
    let body = json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": spans}]}]});
    let reply = client.post("/api/public/otel/v1/traces", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn dataset(live: &Live) {
    let examples = json!([{"id": "it-1", "input": {"country": "Italy"}, "expected": "Rome"}, {"id": "it-2", "input": "x"}]);
    let made = live.post(
        "/api/v1/datasets",
        &json!({"name": NAME, "examples": examples}),
    );
    assert_eq!(made.status, 201, "{made:?}");
}

fn data(client: &Client, path: &str) -> Vec<Value> {
    let reply = client.get(path);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()["data"].as_array().unwrap().clone()
}

const FROM: &str = "fromStartTime=2020-01-01T00:00:00Z";

fn a_run_is_kept_with_its_items_and_scores(place: Place) {
    let place = place.with_key("editor");
    let live = place.start();
    dataset(&live);
    let spans = json!([
        item_span(TRACE, SPAN, "it-1", "Milan"),
        item_span(TRACE, "00f067aa0ba902b7", "it-2", "{\"a\": [1]}"),
        {"name": "no ids", "startTimeUnixNano": "1"},
    ]);
    let answer = export(&live, &spans);
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1");
    // The same again, with another answer: the item is as it was told last.
    assert_eq!(
        export(&live, &json!([item_span(TRACE, SPAN, "it-1", "Rome")])),
        json!({})
    );

    let scores = json!([
        {"id": "s1", "traceId": TRACE, "observationId": SPAN, "name": "exact", "value": 1, "dataType": "NUMERIC", "comment": "good", "metadata": {"by": "test"}},
        {"id": "s2", "traceId": TRACE, "name": "polite", "value": 0, "dataType": "BOOLEAN"},
        {"id": "s3", "traceId": TRACE, "observationId": SPAN, "name": "tone", "value": "warm"},
        {"id": "s4", "datasetRunId": "run-1", "name": "mean", "value": 0.5},
        {"id": "s5", "sessionId": "s", "name": "x", "value": 1},
        {"id": "s6", "traceId": TRACE, "name": "x", "value": [1]},
    ]);
    let sent = live.post("/api/public/scores", &scores);
    assert_eq!(sent.status, 207, "{sent:?}");
    let sent = sent.json();
    assert_eq!(
        (sent["accepted"].as_i64(), sent["rejected"].as_i64()),
        (Some(4), Some(2))
    );
    // Sent again with another value it is still one score.
    let again = json!([{"id": "s1", "traceId": TRACE, "observationId": SPAN, "name": "exact", "value": 0.25}]);
    let sent = live.post("/api/public/scores", &again);
    assert_eq!(
        (sent.status, sent.json()),
        (202, json!({"message": "Accepted"}))
    );

    let runs = data(
        &live,
        &format!("/api/public/experiments?{FROM}&fields=core,metadata,scores"),
    );
    assert_eq!(runs.len(), 1);
    let run = &runs[0];
    assert_eq!(
        (&run["id"], &run["name"], &run["itemCount"]),
        (&json!("run-1"), &json!("first run"), &json!(2))
    );
    assert_eq!(
        (&run["datasetId"], &run["metadata"]),
        (&json!(NAME), &json!({"model": "a"}))
    );
    assert_eq!(
        run["scores"][0]["subject"],
        json!({"kind": "experiment", "id": "run-1"})
    );
    let items = data(
        &live,
        &format!(
            "/api/public/experiment-items?{FROM}&experimentId=run-1&fields=core,io,dataset,metadata,scores"
        ),
    );
    let item = items
        .iter()
        .find(|item| item["experimentItemId"] == "it-1")
        .unwrap();
    assert_eq!(
        (&item["id"], &item["traceId"]),
        (&json!(SPAN), &json!(TRACE))
    );
    assert_eq!(
        (&item["input"], &item["output"], &item["expectedOutput"]),
        (&json!({"country": "Italy"}), &json!("Rome"), &json!("Rome"))
    );
    assert_eq!(item["metadata"], json!({"team": "葵"}));
    let mut named: Vec<(String, Value)> = item["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| {
            (
                score["name"].as_str().unwrap().to_owned(),
                score["value"].clone(),
            )
        })
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        named,
        [
            ("exact".to_owned(), json!(0.25)),
            ("polite".to_owned(), json!(false)),
            ("tone".to_owned(), json!("warm"))
        ]
    );
    assert_eq!(
        items
            .iter()
            .find(|item| item["experimentItemId"] == "it-2")
            .unwrap()["output"],
        json!({"a": [1]})
    );
    // Page by page.
    let first = live
        .get(&format!("/api/public/experiment-items?{FROM}&limit=1"))
        .json();
    let cursor = first["meta"]["cursor"].as_str().unwrap();
    let second = live
        .get(&format!(
            "/api/public/experiment-items?{FROM}&limit=1&cursor={cursor}"
        ))
        .json();
    assert_ne!(first["data"][0]["id"], second["data"][0]["id"]);
    assert_eq!(second["meta"].get("cursor"), None);

    // It is a trace like every other, and its scores count as every other's.
    let trace = live.get(&format!("/api/v1/traces/{TRACE}")).json();
    let span = trace["spans"]
        .as_array()
        .unwrap()
        .iter()
        .find(|span| span["span_id"] == SPAN)
        .unwrap();
    assert_eq!(
        (&span["name"], &span["tags"]["run"]),
        (&json!("experiment-item-task"), &json!("first run"))
    );
    let listed = live.get(&format!("/api/v1/scores?trace_id={TRACE}")).json();
    let exact: Vec<&Value> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|score| score["name"] == "exact")
        .collect();
    assert_eq!(exact.len(), 1, "{listed}");
    assert_eq!(exact[0]["value"], 0.25);

    let person = live.browser_of(&place.add_person("default", "editor"));
    let page = person.get(&format!("/default/datasets/runs?name={}", encode(NAME)));
    assert_eq!(page.status, 200, "{page:?}");
    assert!(
        page.text().contains("first run") && page.text().contains("0.250"),
        "{}",
        page.text()
    );
    let page = person.get("/default/datasets/run?id=run-1");
    assert!(
        page.text().contains("warm") && page.text().contains(TRACE),
        "{}",
        page.text()
    );
    survives_and_goes(&place, live);
}

fn survives_and_goes(place: &Place, live: Live) {
    drop(live);
    let live = place.start();
    let older = format!("/api/public/datasets/{}/runs", encode(NAME));
    assert_eq!(data(&live, &older)[0]["name"], "first run");
    // An older client links by hand.
    let linked = json!({"runName": "by hand", "datasetItemId": "it-2", "traceId": TRACE, "observationId": SPAN});
    let linked = live.post("/api/public/dataset-run-items", &linked);
    assert_eq!(linked.status, 200, "{linked:?}");
    let whole = live.get(&format!("{older}/{}", encode("by hand"))).json();
    assert_eq!(whole["datasetRunItems"][0]["datasetItemId"], "it-2");
    let paged = format!(
        "/api/public/dataset-run-items?datasetId={}&runName=by+hand",
        encode(NAME)
    );
    assert_eq!(data(&live, &paged).len(), 1);
    let gone = live.delete(&format!("{older}/{}", encode("first run")));
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(data(&live, &older).len(), 1);
    assert_eq!(live.get(&format!("/api/v1/traces/{TRACE}")).status, 200);
    assert_eq!(
        data(&live, "/api/public/v3/scores?experimentId=run-1"),
        Vec::<Value>::new()
    );
    assert_eq!(
        data(
            &live,
            &format!("/api/public/v3/scores?traceId={TRACE}&name=tone")
        )
        .len(),
        1
    );
}

fn message(out: &mut Vec<u8>, number: u8, body: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = body.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(body);
}

/// An export in protobuf with one span.
fn protobuf(trace: &[u8], span: &[u8], name: &str) -> Vec<u8> {
    let mut value = Vec::new();
    message(&mut value, 1, "質問".as_bytes());
    let mut pair = Vec::new();
    message(&mut pair, 1, b"langfuse.observation.input");
    message(&mut pair, 2, &value);
    let mut row = Vec::new();
    message(&mut row, 1, trace);
    message(&mut row, 2, span);
    message(&mut row, 5, name.as_bytes());
    for number in [7_u8, 8] {
        row.push(number << 3 | 1);
        row.extend_from_slice(&START.to_le_bytes());
    }
    message(&mut row, 9, &pair);
    message(&mut row, 15, &[0x12, 0x02, b'n', b'o', 0x18, 0x02]);
    let mut scope = Vec::new();
    message(&mut scope, 2, &row);
    let mut group = Vec::new();
    message(&mut group, 2, &scope);
    let mut out = Vec::new();
    message(&mut out, 1, &group);
    out
}

/// Protobuf, packed or not; broken bodies; what the gateway recorded stays as it is.
#[test]
fn exports_are_read_and_refused() {
    let place = Place::new();
    let live = place.start();
    let kind = "application/x-protobuf";
    let body = protobuf(&[7; 16], &[9; 8], "名前");
    let sent = |body: &[u8]| {
        live.call("POST", "/api/public/otel/v1/traces")
            .body(kind, body)
            .send()
    };
    let reply = sent(&body);
    assert_eq!((reply.status, reply.body.len()), (200, 0), "{reply:?}");
    let trace = live
        .get(&format!("/api/v1/traces/{}", "07".repeat(16)))
        .json();
    assert_eq!(trace["spans"][0]["name"], "名前");
    assert_eq!(trace["spans"][0]["status"], "error");
    assert!(trace.to_string().contains("質問"), "{trace}");

    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer
        .write_all(&protobuf(&[8; 16], &[9; 8], "packed"))
        .unwrap();
    let packed = packer.finish().unwrap();
    let reply = live
        .call("POST", "/api/public/otel/v1/traces")
        .header("content-encoding", "gzip")
        .body(kind, &packed)
        .send();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        live.get(&format!("/api/v1/traces/{}", "08".repeat(16)))
            .status,
        200
    );

    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&vec![0; 40 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let reply = live
        .call("POST", "/api/public/otel/v1/traces")
        .header("content-encoding", "gzip")
        .body(kind, &bomb)
        .send();
    assert_eq!(reply.status, 400, "{reply:?}");
    for length in 1..body.len() {
        let status = sent(&body[..length]).status;
        assert!([200, 400].contains(&status), "{length}: {status}");
    }
    assert_eq!(sent(b"{\"a\": 1}").status, 400);
    assert_eq!(
        live.post("/api/public/otel/v1/traces", &json!([])).status,
        400
    );

    let recorded = live.chat(&crate::harness::question("hello"));
    let shown = live.wait_for(&format!("/api/v1/traces/{recorded}"), |_| true);
    let span = shown["spans"][0]["span_id"].as_str().unwrap();
    let answer = export(
        &live,
        &json!([item_span(&recorded, span, "it-1", "forged")]),
    );
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    let after = live.get(&format!("/api/v1/traces/{recorded}")).json();
    assert_eq!(after["spans"][0]["name"], shown["spans"][0]["name"]);
    assert_eq!(
        data(&live, &format!("/api/public/experiments?{FROM}")),
        Vec::<Value>::new()
    );
}
