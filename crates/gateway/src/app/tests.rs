//! Documents that are wrong, expressions that mean harm, drawings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::expr::{Expression, Scope, Steps, with_room};
use super::*;

fn minister() -> Value {
    json!({
        "models": {"smart": ["open/fake-large", "claude/fake-large"]},
        "tools": {"distance": {
            "type": "http", "url": "https://maps.example.com/{from}/{to}?u=km",
            "parameters": {"type": "object", "properties": {"from": {"type": "string"}, "to": {"type": "string"}},
                "required": ["from", "to"]},
        }},
        "steps": [
            {"id": "who", "type": "prompt", "prompt": "prompt:geo/who@production", "model": "smart",
                "variables": {"question": "inputs.question"}},
            {"id": "born", "type": "prompt", "prompt": {"messages": [{"role": "user", "content": "{{ name }}"}]},
                "model": "smart", "variables": {"name": "steps.who.text"}},
            {"id": "far", "type": "tool", "tool": "distance",
                "arguments": {"from": "steps.born.text", "to": "'London'"}},
            {"id": "answer", "type": "prompt", "prompt": "prompt:geo/answer", "model": "open/fake-large",
                "variables": {"name": "steps.who.text", "km": "steps.far.json.km"}},
        ],
    })
}

#[test]
fn a_good_document_is_read_written_and_drawn() {
    let document = AppDocument::parse(&minister()).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap(), minister());
    let references: Vec<String> = document
        .references()
        .into_iter()
        .map(|it| format!("{} {}", it.path, it.text))
        .collect();
    assert_eq!(
        references,
        [
            "/steps/0/prompt prompt:geo/who@production",
            "/steps/3/prompt prompt:geo/answer"
        ]
    );
    let graph = document.graph();
    let nodes: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| format!("{} {} {}", node.layer, node.id, node.kind))
        .collect();
    assert_eq!(
        nodes,
        [
            "0 @inputs inputs",
            "1 who prompt",
            "2 born prompt",
            "3 far tool",
            "4 answer prompt",
            "5 @output output"
        ]
    );
    let edges: Vec<String> = graph
        .edges
        .iter()
        .map(|edge| format!("{}>{}", edge.from, edge.to))
        .collect();
    assert_eq!(
        edges,
        [
            "@inputs>who",
            "who>born",
            "born>far",
            "who>answer",
            "far>answer",
            "answer>@output"
        ]
    );
}

#[test]
fn the_schema_tells_every_field() {
    let schema = AppDocument::schema();
    assert!(jsonschema::is_valid(&schema, &minister()));
    assert!(!jsonschema::is_valid(
        &schema,
        &json!({"steps": [{"id": "a", "type": "magic"}]})
    ));
}

/// The problem at this place, after the good document was changed.
#[track_caller]
fn check(pointer: &str, value: Value, path: &str, part: &str) {
    let mut document = minister();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) => {
            map.insert(name.to_owned(), value);
        }
        Value::Array(list) => list.push(value),
        other => panic!("{other}"),
    }
    let problems = AppDocument::parse(&document).unwrap_err();
    assert!(
        problems
            .iter()
            .any(|problem| problem.path == path && problem.message.contains(part)),
        "{pointer}: {problems:#?}"
    );
}

#[test]
fn problems_say_where_they_are() {
    check("/stepps", json!([]), "/stepps", "unknown field");
    check("/steps/1/modle", json!("x"), "/steps/1/modle", "unknown");
    check(
        "/steps/1/type",
        json!("magic"),
        "/steps/1/type",
        "\"magic\" is not known",
    );
    check(
        "/steps/1/prompt",
        json!({"messages": [{"role": "robot", "content": "x"}]}),
        "/steps/1/prompt/messages/0/role",
        "robot",
    );
    check(
        "/steps/1/prompt",
        json!(7),
        "/steps/1/prompt",
        "write prompt:NAME@LABEL",
    );
    check(
        "/steps/1/parameters",
        json!([]),
        "/steps/1/parameters",
        "an object, not a list",
    );
    check(
        "/steps/-",
        json!({"id": "l", "type": "agent", "prompt": "prompt:a", "limits": {"steps": -1}}),
        "/steps/4/limits/steps",
        "not -1",
    );
    check("/models", json!({"a": "x/y"}), "/models/a", "a list");
    check("/steps/1/id", json!("who"), "/steps/1/id", "already");
    check("/steps/1/id", json!("1 a"), "/steps/1/id", "letters");
    check(
        "/steps/1/model",
        json!("smrt"),
        "/steps/1/model",
        "\"smart\"",
    );
    check(
        "/steps/1/model",
        json!("x"),
        "/steps/1/model",
        "PROVIDER/MODEL",
    );
    check(
        "/steps/1/prompt",
        json!("geo/who"),
        "/steps/1/prompt",
        "prompt:NAME",
    );
    check(
        "/steps/1/after",
        json!(["whoo"]),
        "/steps/1/after/0",
        "\"who\"",
    );
    check(
        "/steps/1/variables",
        json!({"a/b": "steps.nobody.text"}),
        "/steps/1/variables/a~1b",
        "nobody",
    );
    check(
        "/steps/1/variables",
        json!({"a": "1 +"}),
        "/steps/1/variables/a",
        "column",
    );
    check(
        "/steps/1/variables",
        json!({"a": "nam(1)"}),
        "/steps/1/variables/a",
        "no function",
    );
    check(
        "/steps/1/variables",
        json!({"a": "x + 1"}),
        "/steps/1/variables/a",
        "not known",
    );
    check(
        "/steps/1/variables",
        json!({"a": "inputs.qestion"}),
        "/steps/1/variables/a",
        "\"question\"",
    );
    check(
        "/steps/1/variables",
        json!({"a": "item"}),
        "/steps/1/variables/a",
        "for_each",
    );
}

#[test]
fn problems_of_other_parts() {
    check(
        "/steps/1/when",
        json!("steps.born.skipped"),
        "/steps/1",
        "born",
    );
    check(
        "/steps/0/after",
        json!(["answer"]),
        "/steps/0",
        "who → answer",
    );
    check(
        "/steps/2/tool",
        json!("distanc"),
        "/steps/2/tool",
        "\"distance\"",
    );
    check(
        "/steps/2/arguments",
        json!({"from": "'a'"}),
        "/steps/2/arguments",
        "\"to\"",
    );
    check(
        "/steps/2/arguments",
        json!({"from": "'a'", "to": "'b'", "x": "1"}),
        "/steps/2/arguments/x",
        "no parameter",
    );
    check(
        "/tools/distance/url",
        json!("https://{host}/x"),
        "/tools/distance/url",
        "host",
    );
    check(
        "/tools/distance/url",
        json!("https://a.example/{x}"),
        "/tools/distance/url",
        "not among",
    );
    check(
        "/tools/distance/url",
        json!("ftp://a.example/"),
        "/tools/distance/url",
        "https",
    );
    check(
        "/tools/distance/url",
        json!("https://a:b@a.example/"),
        "/tools/distance/url",
        "credential",
    );
    check(
        "/tools/distance/headers",
        json!({"Authorization": "x"}),
        "/tools/distance/headers/Authorization",
        "credential",
    );
    check(
        "/tools/distance/credential",
        json!("env:HOME"),
        "/tools/distance/credential",
        "MEGURI_TOOL_",
    );
    check(
        "/tools/distance/timeout_ms",
        json!(5),
        "/tools/distance/timeout_ms",
        "100",
    );
    check(
        "/tools/distance/parameters",
        json!({"type": "object", "properties": {"from": {"$ref": "#"}, "to": {}}}),
        "/tools/distance/parameters/properties/from/$ref",
        "not allowed",
    );
    check(
        "/tools/distance/parameters",
        json!({"type": "object", "properties": {"from": {"type": 5}, "to": {}}}),
        "/tools/distance/parameters/properties/from/type",
        "JSON Schema",
    );
    check("/models/smart", json!([]), "/models/smart", "1 to 8");
    check(
        "/models/smart",
        json!(["open"]),
        "/models/smart/0",
        "PROVIDER/MODEL",
    );
    check(
        "/inputs",
        json!({"type": "array"}),
        "/inputs/type",
        "object",
    );
    check("/output", json!({"type": "html"}), "/output/type", "html");
    check(
        "/output",
        json!({"value": "steps.nobody.text"}),
        "/output/value",
        "nobody",
    );
    check(
        "/steps/-",
        json!({"id": "loop", "type": "agent", "prompt": "prompt:a", "model": "smart", "tools": ["distance", "nothing"],
        "limits": {"steps": 0}}),
        "/steps/4/limits/steps",
        "1 to 50",
    );
    check(
        "/steps/-",
        json!({"id": "c", "type": "chain", "steps": []}),
        "/steps/4/steps",
        "at least one",
    );
    check(
        "/steps/-",
        json!({"id": "c", "type": "chain", "steps": [{"id": "d", "type": "tool", "tol": "x"}]}),
        "/steps/4/steps/0/tol",
        "unknown field",
    );
    check(
        "/steps/-",
        json!({"id": "c", "type": "chain", "steps": [
        {"id": "d", "type": "guard", "guard": "guard:x", "on": "steps.c.text"}]}),
        "/steps/4",
        "itself",
    );
    let mut deep = json!({"id": "z", "type": "guard", "guard": "guard:x", "on": "1"});
    for depth in 0..20 {
        deep = json!({"id": format!("c{depth}"), "type": "chain", "steps": [deep]});
    }
    check(
        "/steps/-",
        deep,
        "/steps/4/steps/0/steps/0/steps/0/steps/0",
        "too deep",
    );
    let many: Vec<Value> = (0..200)
        .map(|at| json!({"id": format!("s{at}"), "type": "guard", "guard": "guard:x", "on": "1"}))
        .collect();
    check("/steps", json!(many), "/steps/100", "at most 100");
}

fn run(text: &str) -> Result<Value, String> {
    let expression = with_room(|| Expression::parse(text))??;
    let inputs = json!({"a": 1, "b": 2.5, "s": "Tokyo", "list": [1, 2, 3], "people": [{"n": "x", "age": 30}, {"n": "y", "age": 5}],
        "long": "x".repeat(100_000), "many": vec![1; 5_000]});
    let result = Arc::new(json!({"text": "hi", "json": {"name": "Ai"}, "skipped": false}));
    let steps: Steps = [("who".to_owned(), result)].into();
    let item = json!("I");
    let scope = Scope {
        inputs: &inputs,
        steps: &steps,
        item: Some((&item, 4)),
        named: &[],
    };
    expression.run(&scope)
}

#[test]
fn expressions_mean_what_cel_means() {
    let check = |text: &str, expected: Value| assert_eq!(run(text), Ok(expected), "{text}");
    check("inputs.a + 1", json!(2));
    check("inputs.a + inputs.b", json!(3.5));
    check("7 / 2", json!(3));
    check("-7 % 4", json!(-3));
    check("-inputs.a", json!(-1));
    check("'a' + \"b\"", json!("ab"));
    check("steps.who.text + '!'", json!("hi!"));
    check("steps['who'].json.name", json!("Ai"));
    check(
        "has(steps.who.json.name) && !has(steps.who.json.age)",
        json!(true),
    );
    check("inputs.a == 1.0 ? 'one' : 'other'", json!("one"));
    check(
        "2 in inputs.list && 'a' in {'a': 1} && !(9 in inputs.list)",
        json!(true),
    );
    check("inputs.list[2]", json!(3));
    check("inputs.list.map(x, x * 2)", json!([2, 4, 6]));
    check("inputs.list.filter(x, x > 1)", json!([2, 3]));
    check(
        "inputs.people.filter(p, p.age > 10).map(p, p.n)",
        json!(["x"]),
    );
    check("inputs.list.map(x, x > 1, x + inputs.a)", json!([3, 4]));
    check(
        "inputs.list.exists(x, x == 3) && inputs.list.all(x, x > 0)",
        json!(true),
    );
    check("inputs.list.exists_one(x, x > 2)", json!(true));
    check("size(inputs.list) + inputs.s.size()", json!(8));
    check(
        "inputs.s.startsWith('To') && inputs.s.contains('ky') && inputs.s.endsWith('o')",
        json!(true),
    );
    check("string(inputs.list)", json!("[1,2,3]"));
    check("int('5') + int(2.9)", json!(7));
    check("['a', 'b'].join(', ')", json!("a, b"));
    check("'a,b'.split(',')", json!(["a", "b"]));
    check("'世界'.substring(1)", json!("界"));
    check("fromJson('{\"a\": [1]}').a[0]", json!(1));
    check("{'k': inputs.list}.k[0]", json!(1));
    check("item + string(index)", json!("I4"));
    check("false && inputs.nothing", json!(false));
    check("inputs.nothing || true", json!(true));
    check("null == null", json!(true));
    check("inputs.list.map(inputs, inputs)", json!([1, 2, 3]));
}

#[test]
fn expressions_that_fail_say_what_and_where() {
    let check = |text: &str, part: &str| {
        let problem = run(text).unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    };
    check("1 / 0", "division by zero");
    check("1.0 / 0.0", "not a number");
    check("9223372036854775807 + 1", "too large");
    check("-9223372036854775808 / -1", "too large");
    check("inputs.a + 'x'", "column 10");
    check("inputs.nothing", "no field \"nothing\"");
    check("inputs.list[7]", "no place 7");
    check("inputs.list[-1]", "no place -1");
    check("steps.nobody.text", "no result");
    check("inputs.s ? 1 : 2", "true or false");
    check("inputs.list.all(x, x)", "true or false");
    check("int('x')", "whole number");
    check("b'x'", "bytes");
    check("Foo{a: 1}", "messages");
    check("matches('a', 'b')", "no function");
    check("", "empty");
    check("1 +\n +", "line");
    check(&"(".repeat(500), "nested");
    check(&"1+".repeat(5000), "at most 2000");
}

#[test]
fn hostile_expressions_end_soon() {
    // Half of what a worker thread has.
    let small = std::thread::Builder::new().stack_size(1 << 20);
    small.spawn(hostile_expressions).unwrap().join().unwrap();
}

fn hostile_expressions() {
    let hostile = [
        "inputs.many.map(a, inputs.many.map(b, inputs.many.map(c, a + b + c)))".to_owned(),
        "inputs.many.all(a, inputs.many.all(b, inputs.many.all(c, true)))".to_owned(),
        "inputs.many.map(a, inputs.long)".to_owned(),
        format!("[{}].map(t, t{})", "inputs.long", " + t".repeat(300)),
        "[inputs.long].map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a)"
            .to_owned(),
        "inputs.long.replace('x', inputs.long)".to_owned(),
        "inputs.long.replace('', inputs.long)".to_owned(),
        "inputs.long.split('').map(x, inputs.long.split(''))".to_owned(),
        "inputs.many.join(inputs.long)".to_owned(),
        format!("[{}].map(a, [{}].map(b, [{}].map(c, 1)))", "1,".repeat(300) + "1", "1,".repeat(300) + "1", "1,".repeat(300) + "1"),
        "1".to_owned() + &"+1".repeat(900),
        "[".repeat(30) + &"]".repeat(30),
        "(".repeat(20) + "1" + &")".repeat(20),
        "true ? ".repeat(25) + "1" + &" : 1".repeat(25),
        "!".repeat(30) + "true",
        "-".repeat(900) + "1",
        "a.".repeat(900) + "b",
        "a".to_owned() + &"[0]".repeat(600),
        "a.b(".repeat(30) + "1" + &")".repeat(30),
        "{1:".repeat(30) + "1" + &"}".repeat(30),
        "&&".repeat(900),
        "true".to_owned() + &" && true".repeat(240),
        "true".to_owned() + &" || true && false".repeat(110),
        "1 < ".repeat(450) + "1",
        "'".repeat(1999),
        "\"\\".repeat(900),
        "\u{202e}\u{0}x".repeat(300),
        "[1].map(x, ".repeat(15) + "x" + &")".repeat(15),
        "has(".repeat(15) + "a.b" + &")".repeat(15),
    ];
    for text in hostile {
        let start = Instant::now();
        let _ = run(&text);
        let took = start.elapsed();
        // A bound on work, seen through a clock that has a lot of room.
        assert!(
            took < Duration::from_secs(20),
            "{took:?} for {}",
            &text[..text.len().min(80)]
        );
        if took > Duration::from_millis(300) {
            eprintln!("{took:?} {}", &text[..text.len().min(80)]);
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_an_expression_panic(text in r#"[a-z0-9 ().,\[\]{}'"+*/%<>=!&|?:\\-]{0,60}"#) {
        let _ = run(&text);
    }
}
