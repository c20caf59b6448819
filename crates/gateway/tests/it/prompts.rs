//! Prompts: what a document may say, how it renders, and calls that use it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::Digest;
use gateway::{
    Arm, DocumentProblem, Experiment, Prompt, PromptDocument, PromptRef, PromptVersion, RenderWith,
    Rendered, Target, Unit,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::rig::Rig;

#[track_caller]
fn document(value: &Value) -> PromptDocument {
    PromptDocument::parse(value).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn version(value: &Value) -> Arc<PromptVersion> {
    let digest = Digest::of_json(value).unwrap();
    Arc::new(PromptVersion::new(digest, document(value)))
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// Renders with these drafts as the other prompts.
fn render_among(
    drafts: &HashMap<&str, Arc<PromptVersion>>,
    value: &Value,
    variables: &Value,
    messages: &[Value],
) -> Result<Rendered, Vec<DocumentProblem>> {
    let with = RenderWith {
        variables: &map(variables),
        messages,
        partials: &|reference| drafts.get(reference).cloned(),
        max_bytes: 2_000,
    };
    gateway::render_preview(&document(value), &with)
}

fn render(value: &Value, variables: &Value) -> Result<Rendered, Vec<DocumentProblem>> {
    render_among(&HashMap::new(), value, variables, &[])
}

/// What a document renders to, or its problems: `role: text` each.
#[track_caller]
fn check(value: &Value, variables: &Value, expected: &[&str]) {
    check_among(&HashMap::new(), value, variables, &[], expected);
}

#[track_caller]
fn check_among(
    drafts: &HashMap<&str, Arc<PromptVersion>>,
    value: &Value,
    variables: &Value,
    messages: &[Value],
    expected: &[&str],
) {
    let got = match render_among(drafts, value, variables, messages) {
        Ok(rendered) => texts(&rendered.around(messages)),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(got, expected, "{value}");
}

fn texts(messages: &[Value]) -> Vec<String> {
    let line = |message: &Value| {
        let (role, text) = (&message["role"], &message["content"]);
        format!("{}: {}", role.as_str().unwrap(), text.as_str().unwrap())
    };
    messages.iter().map(line).collect()
}

fn system(text: &str) -> Value {
    json!({"messages": [{"role": "system", "content": text}]})
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn full() -> Value {
    json!({
        "description": "says who somebody is",
        "dialect": "simple",
        "messages": [
            {"role": "system", "content": "{{ partials.tone }} Answer in {{ language }}."},
            {"placeholder": "examples"},
            {"placeholder": "history"},
            {"role": "user", "content": "Who is {{ who }}?"},
            {"placeholder": "messages"},
        ],
        "inputs": {
            "type": "object",
            "properties": {
                "who": {"type": "string", "examples": ["Ada Lovelace"]},
                "language": {"type": "string", "default": "English"},
            },
            "required": ["who"],
        },
        "examples": {
            "items": [{"inputs": {"who": "Bach"}, "output": "A composer."}],
            "select": {"k": 3, "by": "similarity", "input": "who"},
        },
        "partials": {"tone": "prompt:shared/tone@production"},
        "model": "open/fake-large",
        "parameters": {"temperature": 0.5},
        "response_format": {"type": "json_object"},
        "tools": [{"type": "function", "function": {"name": "look_up"}}],
        "config": {"owner": "team a"},
    })
}

#[test]
fn documents_keep_their_digests() {
    let check = |value: &Value, expected: &str| {
        let digest = Digest::of_json(&document(value).to_value()).unwrap();
        assert_eq!(digest.to_string(), expected);
        assert_eq!(Digest::of_json(value).unwrap(), digest);
    };
    check(
        &system("Be brief."),
        "sha256:5b9ed511eec1dbc5ed0b155a9a0d5b2affcc84706b51bbbfe9ae749dcdd39dc8",
    );
    check(
        &full(),
        "sha256:24fe623010ae4c9461d5ee1a1619ce6855f9704110a37f05e66c9228617570f4",
    );
    let said = json!({"type": "chat", "dialect": "jinja", "description": "", "template": null,
        "messages": system("Be brief.")["messages"], "partials": {}, "parameters": {}, "tools": []});
    assert_eq!(document(&said).to_value(), system("Be brief."));
}

#[test]
fn every_problem_of_a_document_is_told_with_its_place() {
    let check = |value: Value, expected: &[(&str, &str)]| {
        let problems = PromptDocument::parse(&value).unwrap_err();
        assert_eq!(problems.len(), expected.len(), "{value}: {problems:?}");
        for (problem, (path, part)) in problems.iter().zip(expected) {
            let fits = problem.path == *path && problem.message.contains(part);
            assert!(fits, "{value}: {problem:?}, not {path} {part}");
        }
    };
    check(json!([1]), &[("", "must be an object")]);
    check(json!({}), &[("/messages", "at least one message")]);
    check(
        json!({"mesages": [], "type": "chart", "template": 1, "tools": {}, "partials": {"a": 1}}),
        &[
            ("/mesages", "did you mean \"messages\""),
            ("/type", "expected `chat` or `text`"),
            ("/template", "expected a string"),
            ("/tools", "expected a sequence"),
            ("/partials/a", "prompt:NAME@LABEL"),
        ],
    );
    check(
        json!({"messages": [
            {"role": "robot", "content": "x"}, {"role": "user"}, "x", {"placeholder": 1}, {"role": "user", "contents": "x"},
            {"placeholder": "a", "role": "user"},
        ]}),
        &[
            ("/messages/0/role", "unknown variant `robot`"),
            ("/messages/1/content", "required"),
            ("/messages/2", "must be an object"),
            ("/messages/3/placeholder", "expected a string"),
            ("/messages/4/contents", "did you mean \"content\""),
            ("/messages/4/content", "required"),
            ("/messages/5/role", "no such field"),
        ],
    );
    check(
        json!({"messages": [
            {"role": "user", "content": " "}, {"role": "user", "content": "{{ x"}, {"role": "user", "content": "a\u{0}"},
            {"role": "user", "content": "{% include 'x' %}"}, {"placeholder": "a b"}, {"placeholder": "h"}, {"placeholder": "h"},
            {"placeholder": "examples"},
        ]}),
        &[
            ("/messages/4/placeholder", "letters, digits"),
            ("/messages/6/placeholder", "twice"),
            ("/messages/7/placeholder", "no examples"),
            ("/messages/0/content", "has a text"),
            ("/messages/1/content", "line 1"),
            ("/messages/2/content", "NUL"),
            ("/messages/3/content", "not allowed"),
        ],
    );
    check(
        json!({"type": "text", "messages": [user("x")], "model": "prompt:x", "response_format": 1, "tools": [1],
            "parameters": {"model": "x", "stream": true, "temperature": 1}}),
        &[
            ("/template", "has a template"),
            ("/messages", "only a prompt of type \"chat\""),
            ("/model", "cannot be the model"),
            ("/parameters/model", "the field \"model\""),
            ("/parameters/stream", "the caller"),
            ("/response_format", "must be an object"),
            ("/tools/0", "is an object"),
        ],
    );
    check(
        json!({"messages": [{"role": "system", "content": "{{ partials.tome }}{{ x }}"}],
            "partials": {"tone": "prompt:shared/tone@production", "a-b": "prompt:x", "c": "shared/tone", "d": "prompt:x@"},
            "inputs": {"properties": {"partials": {}}}}),
        &[
            ("/inputs/properties/partials", "this prompt's own"),
            ("/partials/a-b", "as templates write it"),
            ("/partials/c", "prompt:NAME@LABEL"),
            ("/partials/d", "prompt:NAME@LABEL"),
            ("/messages/0/content", "did you mean \"tone\""),
        ],
    );
    check(
        json!({"messages": [{"role": "system", "content": "x"}], "examples": {"items": [], "select": {"k": 0, "by": "similarity"}}}),
        &[
            ("/examples/items", "at least one"),
            ("/examples/select/k", "between 1 and"),
            ("/examples/template", "need a template"),
        ],
    );
    check(
        json!({"messages": [user("{{ n }}")], "inputs": {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
            "examples": {"itms": 1, "items": [{"inputs": {}, "output": 1}, {"inputs": 1}], "select": {"k": -1, "by": "chance"}}}),
        &[
            ("/examples/itms", "did you mean \"items\""),
            ("/examples/items/1/inputs", "expected a map"),
            ("/examples/items/1/output", "required"),
            ("/examples/select/k", "usize"),
            ("/examples/select/by", "expected `similarity`"),
        ],
    );
    check(
        json!({"messages": [user("{{ n }}")], "inputs": {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
            "examples": {"items": [{"inputs": {"n": "x"}, "output": 1}, {"inputs": {"m": 1}, "output": ""}]}}),
        &[
            ("/examples/items/0/inputs/n", "is not of type \"integer\""),
            ("/examples/items/1/inputs/m", "no such input"),
        ],
    );
    check(
        json!({"messages": [user("{{ n }}")],
            "examples": {"items": [{"inputs": {"n": "x"}, "output": 1}], "select": {"k": 1, "by": "similarity", "input": "m"}}}),
        &[("/examples/select/input", "no example has the input \"m\"")],
    );
    check(
        json!({"type": "text", "template": "x", "examples": {"items": [{"inputs": {}, "output": ""}]}}),
        &[("/examples", "no template uses")],
    );
}

#[test]
fn schemas_that_reach_out_recurse_or_explode_are_refused() {
    let check = |inputs: Value, path: &str, part: &str| {
        let value = json!({"messages": [user("x")], "inputs": inputs});
        let problems = PromptDocument::parse(&value).unwrap_err();
        let first = &problems[0];
        let fits = first.path == path && first.message.contains(part);
        assert!(fits, "{inputs}: {problems:?}");
    };
    check(json!([]), "/inputs", "an object");
    check(
        json!({"type": "string"}),
        "/inputs/type",
        "of type \"object\"",
    );
    check(
        json!({"properties": {"a": {"type": "strin"}}}),
        "/inputs/properties/a/type",
        "a type is",
    );
    check(
        json!({"properties": {"a": {"pattern": "("}}}),
        "/inputs/properties/a/pattern",
        "regex",
    );
    check(
        json!({"properties": {"a": {"$ref": "https://example.com/x"}}}),
        "/inputs/properties/a/$ref",
        "its own parts",
    );
    check(
        json!({"properties": {"default": {"$ref": "file:///etc/passwd"}}}),
        "/inputs/properties/default/$ref",
        "its own parts",
    );
    check(json!({"$ref": "#"}), "/inputs/$ref", "refers to itself");
    check(
        json!({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"items": {"$ref": "#/$defs/b"}}}}),
        "/inputs/$defs/b/items/$ref",
        "refers to itself",
    );
    check(
        json!({"properties": {"a": {"$ref": "#/$defs/b"}}}),
        "/inputs/properties/a/$ref",
        "nothing at",
    );
    check(
        json!({"$id": "https://example.com"}),
        "/inputs/$id",
        "not supported",
    );
    let twice = |n: usize| json!({"allOf": [{"$ref": format!("#/$defs/d{n}")}, {"$ref": format!("#/$defs/d{n}")}]});
    let bomb: Map<String, Value> = (0..40).map(|n| (format!("d{n}"), twice(n + 1))).collect();
    let mut inputs = json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": bomb});
    inputs["$defs"]["d40"] = json!({"type": "string"});
    check(inputs, "/inputs", "more than");
    let chain: Map<String, Value> = (0..9_999)
        .map(|n| {
            (
                format!("d{n}"),
                json!({"$ref": format!("#/$defs/d{}", n + 1)}),
            )
        })
        .collect();
    let inputs = json!({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": chain});
    let problems =
        PromptDocument::parse(&json!({"messages": [user("x")], "inputs": inputs})).unwrap_err();
    assert!(
        problems[0].message.contains("follow from one another"),
        "{problems:?}"
    );
}

#[test]
fn variables_have_names_in_any_script() {
    let prompt = json!({
        "messages": [{"role": "system", "content": "{{ 文章 }}を{% for 語 in 用語 %}{{ 語 }}と{% endfor %}{{ größe | upper }}で"}],
        "inputs": {"type": "object", "properties": {
            "文章": {"type": "string"}, "用語": {"type": "array", "default": ["甲", "乙"]}, "größe": {"default": "m"},
        }},
    });
    check(
        &prompt,
        &json!({"文章": "本文"}),
        &["system: 本文を甲と乙とMで"],
    );
}

#[test]
fn inputs_are_filled_and_checked() {
    let prompt = json!({
        "messages": [{"role": "system", "content": "{{ name }} {{ age }} {{ at.city }}"}, {"placeholder": "history"}],
        "inputs": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 9},
            "age": {"type": "integer", "default": 7},
            "at": {"type": "object", "default": {}, "properties": {"city": {"default": "Kyoto"}}},
            "tags": {"type": "array", "items": {"type": "string"}},
        }},
    });
    check(&prompt, &json!({"name": "Aki"}), &["system: Aki 7 Kyoto"]);
    check(
        &prompt,
        &json!({"name": "Aki", "age": 3, "at": {"city": "Oslo"}, "history": [user("hi {{ name }}")]}),
        &["system: Aki 3 Oslo", "user: hi {{ name }}"],
    );
    check(
        &prompt,
        &json!({"age": "x", "agee": 1, "at": 1, "tags": ["a", 2]}),
        &[
            "variables.agee: there is no such input; did you mean \"age\"?",
            "variables.name: it is required",
            "variables.age: value is not of type \"integer\"",
            "variables.at: value is not of type \"object\"",
            "variables.tags[1]: value is not of type \"string\"",
        ],
    );
    let open = json!({"messages": [user("{{ a }}{{ b }}")],
        "inputs": {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}});
    check(&open, &json!({"a": "x", "b": 2}), &["user: x2"]);
    check(
        &open,
        &json!({"a": "x", "b": "y"}),
        &["variables.b: value is not of type \"integer\""],
    );
    let anything = json!({"messages": [user("{{ a }}")]});
    check(&anything, &json!({"a": 1, "b": {}}), &["user: 1"]);
    check(
        &anything,
        &json!({}),
        &["/messages/0/content: `a` is undefined (line 1 of the template)"],
    );
    let history = |value: Value| json!({"name": "x", "history": value});
    check(
        &prompt,
        &history(json!("x")),
        &["variables.history: this must be a list of messages"],
    );
    check(
        &prompt,
        &history(json!([user("a"), 1])),
        &["variables.history[1]: a message is an object with a \"role\""],
    );
}

#[test]
fn messages_stand_where_the_prompt_has_a_place_for_them() {
    let own = [user("a"), user("b")];
    let none = HashMap::new();
    check_among(
        &none,
        &system("s"),
        &json!({}),
        &own,
        &["system: s", "user: a", "user: b"],
    );
    let around = json!({"messages": [
        {"role": "system", "content": "s"}, {"placeholder": "messages"}, {"placeholder": "more"}, {"role": "user", "content": "{{ q }}"},
    ]});
    let variables = json!({"q": "now", "more": [{"role": "assistant", "content": "m"}]});
    check_among(
        &none,
        &around,
        &variables,
        &own,
        &[
            "system: s",
            "user: a",
            "user: b",
            "assistant: m",
            "user: now",
        ],
    );
    check(&around, &json!({"q": "x"}), &["system: s", "user: x"]);
    let text = json!({"type": "text", "dialect": "simple", "template": "T {{ a }} {{ b }}"});
    check(
        &text,
        &json!({"a": "{{ b }}"}),
        &["user: T {{ b }} {{ b }}"],
    );
    check_among(
        &none,
        &text,
        &json!({"a": 1}),
        &own[..1],
        &["system: T 1 {{ b }}", "user: a"],
    );
}

fn few_shot(select: Value) -> Value {
    json!({
        "messages": [
            {"role": "system", "content": "Sort in {{ language }}."},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "[{{ language }}] {{ text }}"},
        ],
        "examples": {
            "items": [
                {"inputs": {"text": "送料はいくらですか"}, "output": "shipping"},
                {"inputs": {"text": "I want my money back", "language": "en"}, "output": {"topic": "refund"}},
                {"inputs": {"text": "パスワードを忘れました"}, "output": "account"},
                {"inputs": {"text": "the parcel never arrived"}, "output": "shipping"},
            ],
            "select": select,
        },
    })
}

#[test]
fn examples_are_shown_as_messages() {
    check(
        &few_shot(Value::Null),
        &json!({"language": "ja", "text": "?"}),
        &[
            "system: Sort in ja.",
            "system: Be brief.",
            "user: [ja] 送料はいくらですか",
            "assistant: shipping",
            "user: [en] I want my money back",
            "assistant: {\"topic\":\"refund\"}",
            "user: [ja] パスワードを忘れました",
            "assistant: account",
            "user: [ja] the parcel never arrived",
            "assistant: shipping",
            "user: [ja] ?",
        ],
    );
    let placed = json!({
        "dialect": "simple",
        "messages": [{"role": "system", "content": "s"}, {"placeholder": "messages"}, {"placeholder": "examples"}],
        "examples": {"template": "Q {{ q }}", "items": [{"inputs": {"q": "{{ x }}"}, "output": "A"}]},
    });
    check(
        &placed,
        &json!({"x": 1}),
        &["system: s", "user: Q {{ x }}", "assistant: A"],
    );
}

#[test]
fn examples_are_shown_in_a_variable() {
    let items =
        json!([{"inputs": {"q": "1+1"}, "output": "2"}, {"inputs": {"q": "2+2"}, "output": "4"}]);
    let jinja = json!({
        "type": "text",
        "template": "{% for e in examples %}{{ e.input }}={{ e.output }} ({{ e.inputs.q }})\n{% endfor %}{{ q }}",
        "examples": {"items": items, "template": "<{{ q }}>"},
    });
    check(
        &jinja,
        &json!({"q": "3+3"}),
        &["user: <1+1>=2 (1+1)\n<2+2>=4 (2+2)\n3+3"],
    );
    let simple = json!({
        "messages": [{"role": "system", "content": "{{ examples }}"}], "dialect": "simple",
        "examples": {"items": items, "show": "variable"},
    });
    check(&simple, &json!({}), &["system: q: 1+1\n2\n\nq: 2+2\n4"]);
}

#[test]
fn the_most_alike_examples_are_chosen() {
    let chosen = |select: Value, variables: Value, messages: &[Value]| {
        let rendered = render_among(&HashMap::new(), &few_shot(select), &variables, messages);
        rendered.unwrap().examples
    };
    let by = |k: usize, input: Value| json!({"k": k, "by": "similarity", "input": input});
    let ask = |text: &str| json!({"language": "ja", "text": text});
    // The most alike comes last.
    for (text, expected) in [
        ("送料は無料ですか", [1, 0]),
        ("パスワードの変更", [0, 2]),
        ("Where is my PARCEL?", [1, 3]),
        ("can I get my money   back", [3, 1]),
        ("zzz", [1, 0]),
        ("", [1, 0]),
    ] {
        assert_eq!(
            chosen(by(2, json!("text")), ask(text), &[]),
            expected,
            "{text}"
        );
    }
    assert_eq!(chosen(by(9, json!("text")), ask("zzz"), &[]), [3, 2, 1, 0]);
    assert_eq!(chosen(by(1, Value::Null), ask("money back"), &[]), [1]);
    // Nothing to compare in the inputs: the caller's question is compared.
    let mut value = few_shot(by(1, json!("text")));
    value["messages"] = json!([{"role": "system", "content": "Sort."}]);
    value["examples"]["template"] = json!("{{ text }}");
    let parts = json!([{"type": "text", "text": "わたしのパスワード"}]);
    for content in [json!("わたしのパスワード"), parts] {
        let messages = [
            json!({"role": "user", "content": content}),
            json!({"role": "assistant", "content": "送料"}),
        ];
        let rendered = render_among(&HashMap::new(), &value, &json!({}), &messages).unwrap();
        assert_eq!(rendered.examples, [2]);
        assert_eq!(texts(&rendered.before)[1], "user: パスワードを忘れました");
    }
}

#[test]
fn partials_are_rendered_with_the_same_inputs() {
    let tone = json!({"dialect": "simple", "messages": [
        {"role": "system", "content": "Be {{ mood }}."}, {"placeholder": "history"}, {"role": "user", "content": "{{ partials.sign }}"},
    ], "inputs": {"properties": {"mood": {"default": "kind"}, "sign": {"default": "-"}}},
        "partials": {"sign": "prompt:shared/sign@7"}});
    let sign = json!({"type": "text", "template": "{{ name }}{{ mood|default('?') }}"});
    let drafts = HashMap::from([
        ("prompt:shared/tone@production", version(&tone)),
        ("prompt:shared/sign@7", version(&sign)),
    ]);
    let main = |text: &str| {
        json!({"messages": [{"role": "system", "content": text}],
            "partials": {"tone": "prompt:shared/tone@production", "sign": "prompt:shared/sign@7"}})
    };
    check_among(
        &drafts,
        &main("{{ partials.tone }}|{{ partials.sign }}"),
        &json!({"name": "{{ x }}"}),
        &[],
        &["system: Be kind.\n\n{{ x }}?|{{ x }}?"],
    );
    check_among(
        &drafts,
        &main("{{ partials.tone }}"),
        &json!({"name": "A", "mood": "glad"}),
        &[],
        &["system: Be glad.\n\nAglad"],
    );
    check_among(
        &drafts,
        &main("{{ partials.tone }}"),
        &json!({}),
        &[],
        &[
            "/partials/sign: prompt:shared/sign@7: /template: `name` is undefined (line 1 of the template)",
        ],
    );
    check(
        &main("x"),
        &json!({}),
        &["/partials/sign: there is no prompt:shared/sign@7"],
    );
}

#[test]
fn partials_end() {
    let uses = |other: &str, times: usize| {
        let partials: Map<String, Value> = (0..times)
            .map(|n| (format!("p{n}"), format!("prompt:{other}").into()))
            .collect();
        let text: String = (0..times)
            .map(|n| format!("{{{{ partials.p{n} }}}}"))
            .collect();
        json!({"messages": [{"role": "system", "content": text + "."}], "partials": partials})
    };
    let circle = HashMap::from([
        ("prompt:a", version(&uses("b", 1))),
        ("prompt:b", version(&uses("a", 1))),
    ]);
    check_among(
        &circle,
        &uses("a", 1),
        &json!({}),
        &[],
        &[
            "/partials/p0: prompt:a: /partials/p0: prompt:b: /partials/p0: the partials go in a circle: \
           prompt:a → prompt:b → prompt:a",
        ],
    );
    let chain: HashMap<&str, _> = [
        ("prompt:1", "2"),
        ("prompt:2", "3"),
        ("prompt:3", "4"),
        ("prompt:4", "5"),
        ("prompt:5", "6"),
    ]
    .into_iter()
    .map(|(name, next)| (name, version(&uses(next, 1))))
    .chain([("prompt:6", version(&system("end")))])
    .collect();
    check_among(
        &chain,
        &uses("2", 1),
        &json!({}),
        &[],
        &["system: end....."],
    );
    let problems = render_among(&chain, &uses("1", 1), &json!({}), &[]).unwrap_err();
    assert!(
        problems[0].message.contains("nested deeper than 5"),
        "{problems:?}"
    );
    // Sixteen times sixteen times sixteen: each text is made once, and the cap holds for all of it.
    let wide: HashMap<&str, _> = [("prompt:1", "2"), ("prompt:2", "3"), ("prompt:3", "4")]
        .into_iter()
        .map(|(name, next)| (name, version(&uses(next, 16))))
        .chain([("prompt:4", version(&system("0123456789")))])
        .collect();
    let problems = render_among(&wide, &uses("1", 16), &json!({}), &[]).unwrap_err();
    assert!(
        problems[0].message.contains("larger than 2000 bytes"),
        "{problems:?}"
    );
}

#[test]
fn the_output_cap_holds_for_everything_together() {
    let many = json!({"messages": [user("{{ x }}"), user("{{ x }}"), {"placeholder": "h"}]});
    let x = |n: usize| json!({"x": "x".repeat(n)});
    assert!(render(&many, &x(1_000)).is_ok());
    check(
        &many,
        &x(1_001),
        &["/messages/1/content: the rendered text is larger than 2000 bytes"],
    );
    let mut with_history = x(500);
    with_history["h"] = json!([user(&"y".repeat(1_000))]);
    check(
        &many,
        &with_history,
        &["variables.h[0]: the rendered text is larger than 2000 bytes"],
    );
    let work =
        "{% for a in xs %}{% for b in xs %}{% for c in xs %}{% endfor %}{% endfor %}{% endfor %}.";
    let hundred: Vec<Value> = (0..100).map(|_| user(work)).collect();
    let problems = render(&json!({"messages": hundred}), &json!({"xs": vec![1; 20]})).unwrap_err();
    assert!(
        problems[0].message.contains("too much work"),
        "{problems:?}"
    );
}

#[test]
fn a_document_tells_what_it_needs() {
    let names = |value: &Value| {
        let variables = document(value).variables();
        let line =
            |v: gateway::Variable| format!("{} {} {}", v.name, v.declared, v.used_in.join(","));
        variables.into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&full()),
        [
            "history false /messages/2/placeholder",
            "language true /messages/0/content",
            "who true /messages/3/content"
        ]
    );
    let value = json!({"messages": [user("{{ a.b }}{% for x in xs %}{{ x }}{% endfor %}"), user("{{ a.c }}")]});
    assert_eq!(
        names(&value),
        [
            "a.b true /messages/0/content",
            "a.c true /messages/1/content",
            "xs true /messages/0/content"
        ]
    );
    assert_eq!(
        Value::from(document(&value).sample_inputs()),
        json!({"a": {"b": "b", "c": "c"}, "xs": ["xs"]})
    );
    assert_eq!(
        document(&value).inputs_draft(),
        json!({"type": "object", "required": ["a", "xs"], "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": "string"}}},
            "xs": {"type": "array", "items": {"type": "string"}},
        }})
    );
    assert_eq!(
        Value::from(document(&full()).sample_inputs()),
        json!({"who": "Bach", "language": "English", "history": [user("history")]})
    );
    let typed = json!({"messages": [user("x")], "inputs": {"properties": {
        "n": {"type": "integer", "minimum": 3}, "b": {"type": "boolean"}, "e": {"enum": ["p", "q"]}, "c": {"const": 4},
        "o": {"type": "object", "properties": {"s": {"type": ["string", "null"]}}}, "l": {"type": "array", "items": {"type": "number"}},
    }}});
    assert_eq!(
        Value::from(document(&typed).sample_inputs()),
        json!({"n": 3, "b": true, "e": "p", "c": 4, "o": {"s": "s"}, "l": [1]})
    );
    let mentions = document(&full()).references();
    assert_eq!(
        (mentions[0].path.as_str(), mentions[0].reference.as_str()),
        ("/partials/tone", "prompt:shared/tone@production")
    );
}

// Calls.

fn project(rig: &Rig) {
    let versions = |list: Vec<Value>| -> BTreeMap<i64, Arc<PromptVersion>> {
        (1..).zip(list.iter().map(version)).collect()
    };
    let labels = |list: &[(&str, i64)]| -> BTreeMap<String, i64> {
        list.iter()
            .map(|(label, n)| ((*label).to_owned(), *n))
            .collect()
    };
    rig.set_project(|project| {
        let mut add = |name: &str, list: Vec<Value>, to: &[(&str, i64)]| {
            let prompt = Prompt {
                versions: versions(list),
                labels: labels(to),
            };
            project.prompts.insert(name.to_owned(), Arc::new(prompt));
        };
        add("geo/who", vec![full()], &[("production", 1)]);
        add(
            "shared/tone",
            vec![system("Be kind.")],
            &[("production", 1)],
        );
        let tools = json!({"type": "text", "template": "x", "tools": full()["tools"], "parameters": {"max_tokens": 5}});
        add("tools", vec![tools], &[("production", 1)]);
        let numbered = ["one", "two", "three"].map(system).to_vec();
        add("numbered", numbered, &[("production", 1), ("next", 2)]);
        add(
            "mine",
            ["one", "two"].map(system).to_vec(),
            &[("production", 1), ("dev", 2)],
        );
    });
}

/// The body that the provider got, without what is the same in every call.
async fn sent(rig: &Rig, body: &Value) -> Value {
    let (status, answer) = rig.chat_json(body).await;
    assert_eq!(status, 200, "{answer}");
    rig.provider.seen().last().unwrap().json()
}

#[tokio::test]
async fn a_prompt_brings_its_model_parameters_and_tools() {
    let rig = Rig::new();
    project(&rig);
    let got = sent(
        &rig,
        &json!({"model": "prompt:geo/who", "prompt_variables": {"who": "Ada"}, "seed": 7}),
    )
    .await;
    assert_eq!(
        got,
        json!({
            "model": "fake-large", "seed": 7,
            "messages": [
                {"role": "system", "content": "Be kind. Answer in English."},
                {"role": "user", "content": "Who is Bach?"}, {"role": "assistant", "content": "A composer."},
                {"role": "user", "content": "Who is Ada?"},
            ],
            "temperature": 0.5, "response_format": {"type": "json_object"},
            "tools": [{"type": "function", "function": {"name": "look_up"}}],
        })
    );
    let record = rig.last_record();
    assert_eq!(record.request_model, "prompt:geo/who");
    assert_eq!(record.parameters["temperature"], 0.5);
    assert_eq!(record.prompt.unwrap().name, "geo/who");

    // What the caller says wins, also the model.
    let body = json!({"model": "open/m", "prompt_id": "geo/who", "prompt_variables": {"who": "Ada"},
        "temperature": 0.1, "tools": null, "messages": [user("and when?")]});
    let got = sent(&rig, &body).await;
    assert_eq!(
        (&got["temperature"], &got["model"], &got["tools"]),
        (&json!(0.1), &json!("m"), &Value::Null)
    );
    let messages = got["messages"].as_array().unwrap();
    assert_eq!(messages.last().unwrap(), &user("and when?"));

    // It holds in the other protocol too.
    let got = sent(
        &rig,
        &json!({"model": "claude/m", "prompt_id": "tools", "max_completion_tokens": 9}),
    )
    .await;
    assert_eq!(
        (
            &got["tools"][0]["name"],
            &got["max_tokens"],
            &got["messages"][0]["role"]
        ),
        (&json!("look_up"), &json!(9), &json!("user"))
    );

    // Without any model the prompt's is called.
    let got = sent(
        &rig,
        &json!({"messages": [], "prompt_id": "geo/who", "prompt_variables": {"who": "Ada"}}),
    )
    .await;
    assert_eq!(got["model"], "fake-large");
    assert_eq!(rig.last_record().request_model, "open/fake-large");
}

#[tokio::test]
async fn prompts_are_named_in_every_way() {
    let rig = Rig::new();
    project(&rig);
    let digest = Digest::of_json(&system("three")).unwrap();
    for (extra, text, label) in [
        (json!({"prompt_id": "numbered"}), "one", Some("production")),
        (
            json!({"prompt_id": "numbered", "prompt_version": 2}),
            "two",
            None,
        ),
        (
            json!({"prompt_id": "numbered", "prompt_version": "3"}),
            "three",
            None,
        ),
        (
            json!({"prompt_id": "numbered", "prompt_version": "next"}),
            "two",
            Some("next"),
        ),
        (json!({"prompt_id": "numbered@latest"}), "three", None),
        (
            json!({"prompt_id": format!("numbered@{digest}")}),
            "three",
            None,
        ),
        (
            json!({"metadata": {"prompt_id": "numbered", "prompt_version": "2", "prompt_variables": "{\"a\":1}"}}),
            "two",
            None,
        ),
        (
            json!({"metadata": {"prompt_id": "nowhere"}, "prompt_id": "numbered"}),
            "one",
            Some("production"),
        ),
        (
            json!({"meguri": {"prompt": "nowhere"}, "prompt_id": "numbered"}),
            "one",
            Some("production"),
        ),
        (
            json!({"meguri": {"prompt_id": "numbered@2", "prompt_variables": {}}}),
            "two",
            None,
        ),
        // The environment of the key is `dev`, and this prompt has such a label.
        (json!({"prompt_id": "mine"}), "two", Some("dev")),
        (
            json!({"prompt_id": "mine@production"}),
            "one",
            Some("production"),
        ),
    ] {
        let mut body = json!({"model": "open/m", "n": 1, "messages": [user("x")]});
        body.as_object_mut().unwrap().extend(map(&extra));
        let got = sent(&rig, &body).await;
        let messages = [json!({"role": "system", "content": text}), user("x")];
        assert_eq!(
            got,
            json!({"model": "m", "n": 1, "messages": messages}),
            "{extra}"
        );
        let used = rig.last_record().prompt.unwrap();
        assert_eq!(used.label.as_deref(), label, "{extra}");
    }
    let body = json!({"model": "open/m", "messages": [user("x")], "metadata": {"prompt_id": "numbered", "order": "7"}});
    let got = sent(&rig, &body).await;
    assert_eq!(got["metadata"], json!({"order": "7"}));
    assert_eq!(
        Value::from(rig.last_record().metadata),
        json!({"order": "7"})
    );
}

#[tokio::test]
async fn calls_that_say_nonsense_about_prompts_are_told() {
    let rig = Rig::new();
    project(&rig);
    for (extra, status, param, part) in [
        (
            json!({"prompt_version": 2}),
            400,
            "prompt_version",
            "no \"prompt_id\"",
        ),
        (json!({"prompt_id": 1}), 400, "prompt_id", "name"),
        (
            json!({"prompt_id": "numbered", "prompt_version": 1.5}),
            400,
            "prompt_version",
            "number or a label",
        ),
        (
            json!({"prompt_id": "numbered", "prompt_variables": [1]}),
            400,
            "prompt_variables",
            "an object",
        ),
        (
            json!({"metadata": {"prompt_id": "numbered", "prompt_variables": "{"}}),
            400,
            "prompt_variables",
            "JSON",
        ),
        (
            json!({"prompt_id": "numbered@9"}),
            404,
            "prompt",
            "no version 9",
        ),
        (
            json!({"prompt_id": format!("numbered@{}", Digest::of(b"x"))}),
            404,
            "prompt",
            "digest sha256:",
        ),
        (
            json!({"prompt_id": "geo/who", "prompt_variables": {"whom": 1}}),
            400,
            "variables.whom",
            "did you mean \"who\"",
        ),
        (
            json!({"prompt_id": "geo/who", "prompt_variables": {"who": 1}}),
            400,
            "variables.who",
            "type \"string\"",
        ),
        (
            json!({"model": "prompt:numbered"}),
            400,
            "model",
            "no prompt says one",
        ),
        (
            json!({"model": "prompt:numbered", "prompt_id": "mine"}),
            400,
            "prompt_id",
            "names",
        ),
        (
            json!({"model": "prompt:nowhere"}),
            404,
            "prompt",
            "no prompt",
        ),
        (json!({"model": ""}), 400, "model", "missing"),
    ] {
        let mut body = json!({"model": "open/m", "messages": [user("x")]});
        body.as_object_mut().unwrap().extend(map(&extra));
        let (got, answer) = rig.chat_json(&body).await;
        let error = &answer["error"];
        assert_eq!(
            (got, error["param"].as_str()),
            (status, Some(param)),
            "{extra}: {answer}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(part),
            "{extra}: {answer}"
        );
    }
    assert!(rig.provider.seen().is_empty());
}

#[tokio::test]
async fn an_experiment_chooses_the_version_behind_its_label() {
    let rig = Rig::new();
    project(&rig);
    let arm = |name: &str, number: i64| Arm {
        name: name.to_owned(),
        number,
        digest: Digest::of_json(&system(["one", "two", "three"][number as usize - 1])).unwrap(),
        weight: 1.0,
    };
    let experiment = |arms: Vec<Arm>| Experiment {
        name: "kinder".to_owned(),
        version: 4,
        unit: Unit::User,
        key: [3; 32],
        arms,
        shadows: Vec::new(),
    };
    let target = |label: &str| Target::Prompt {
        name: "numbered".to_owned(),
        label: label.to_owned(),
    };
    let both = experiment(vec![arm("control", 1), arm("candidate", 3)]);
    let gone = experiment(vec![Arm {
        number: 9,
        ..arm("gone", 1)
    }]);
    rig.set_project(|project| {
        project
            .experiments
            .insert(target("production"), Arc::new(both.clone()));
        project.experiments.insert(target("next"), Arc::new(gone));
    });
    let mut seen = BTreeMap::<String, String>::new();
    for user_name in (0..20).chain(0..20) {
        let name = format!("u{user_name}");
        let body = json!({"model": "open/m", "user": name, "prompt_id": "numbered", "messages": [user("x")]});
        let text = sent(&rig, &body).await["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_owned();
        let record = rig.last_record();
        let (expected, used) = both.choose(&name).unwrap();
        assert_eq!(
            (record.arm, record.prompt.unwrap().version),
            (Some(used), expected.number)
        );
        let before = seen.insert(name, text.clone());
        assert!(
            before.is_none_or(|before| before == text),
            "a user stays with one arm"
        );
    }
    let texts: std::collections::BTreeSet<&str> = seen.values().map(String::as_str).collect();
    assert_eq!(texts.into_iter().collect::<Vec<_>>(), ["one", "three"]);

    // Who names a version gets it, and an arm that is not here leaves the pointer in force.
    for (id, text) in [
        ("numbered@1", "one"),
        ("numbered@2", "two"),
        ("numbered@next", "two"),
    ] {
        let body =
            json!({"model": "open/m", "user": "u1", "prompt_id": id, "messages": [user("x")]});
        assert_eq!(
            sent(&rig, &body).await["messages"][0]["content"],
            text,
            "{id}"
        );
        assert_eq!(rig.last_record().arm, None, "{id}");
    }
}

#[test]
fn references_are_read() {
    let read = |text: &str| {
        PromptRef::from_reference(text).map(|r| (r.name, r.label, r.version, r.digest.is_some()))
    };
    let name = |name: &str| name.to_owned();
    assert_eq!(read("prompt:a/b"), Some((name("a/b"), None, None, false)));
    assert_eq!(
        read("prompt:a@x"),
        Some((name("a"), Some(name("x")), None, false))
    );
    assert_eq!(
        read("prompt:a@12"),
        Some((name("a"), None, Some(12), false))
    );
    let digest = Digest::of(b"");
    assert_eq!(
        read(&format!("prompt:a@{digest}")),
        Some((name("a"), None, None, true))
    );
    for bad in ["a", "app:a", "prompt:", "prompt:@x", "prompt:a@"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

fn any_json(depth: u32) -> impl Strategy<Value = Value> {
    let words = [
        "",
        "a",
        "{{ a }}",
        "{{ examples }}",
        "{{ partials.p }}",
        "history",
        "messages",
        "examples",
        "user",
        "system",
        "text",
        "chat",
        "simple",
        "jinja",
        "similarity",
        "variable",
        "prompt:p",
        "prompt:q@1",
        "object",
        "#",
        "#/properties/a",
        "string",
        "{% for x in a %}{{ x }}{% endfor %}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..300).prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 40, 6, |inner| {
        let names = [
            "type",
            "dialect",
            "template",
            "messages",
            "inputs",
            "examples",
            "partials",
            "model",
            "parameters",
            "tools",
            "role",
            "content",
            "placeholder",
            "items",
            "output",
            "select",
            "k",
            "by",
            "input",
            "show",
            "properties",
            "default",
            "required",
            "$ref",
            "allOf",
            "a",
            "p",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(names.to_vec()), inner), 0..6).prop_map(
                |pairs| Value::Object(
                    pairs
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect()
                )
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_document_and_no_inputs_make_it_panic(
        base in prop::sample::select(vec![0, 1, 2, 3]),
        key in prop::sample::select(vec!["messages", "inputs", "examples", "partials", "template", "type", "dialect", "x"]),
        value in any_json(4),
        variables in prop::collection::btree_map("[a-z]{1,3}|who|text|history", any_json(3), 0..4),
        messages in prop::collection::vec(any_json(2), 0..3),
    ) {
        let mut document = [full(), few_shot(Value::Null), system("{{ a }}"), json!({})][base].clone();
        document[key] = value;
        let variables: Map<String, Value> = variables.into_iter().collect();
        let other = version(&system("{{ a }}"));
        if let Ok(document) = PromptDocument::parse(&document) {
            let _ = (document.variables(), document.sample_inputs(), document.inputs_draft());
            let again = PromptDocument::parse(&document.to_value());
            prop_assert_eq!(again.as_ref(), Ok(&document));
            for variables in [variables, document.sample_inputs()] {
                let with = RenderWith {
                    variables: &variables, messages: &messages, partials: &|_| Some(other.clone()), max_bytes: 300,
                };
                if let Ok(rendered) = gateway::render_preview(&document, &with) {
                    let bytes: usize = rendered.around(&[]).iter().filter_map(|m| m["content"].as_str()).map(str::len).sum();
                    prop_assert!(bytes <= 300, "{bytes}");
                }
            }
        }
    }
}
