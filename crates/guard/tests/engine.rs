//! What a policy does to a text, as tables: texts in, what leaves out. Texts go through a stream,
//! character by character, and as a whole.

use std::sync::Arc;

use guard::{
    Answer, Compiled, Context, Decision, Evidence, Fold, Held, List, Outcome, Point, Policy,
    PromptIndex, Reading, Relation, Resources, Scanned, Source, Step, Tier, Told,
};
use serde_json::{Value, json};

fn compiled(rules: Value) -> Arc<Compiled> {
    let policy = Policy::read(&json!({ "rules": rules })).expect("a policy");
    Arc::new(Compiled::new(&policy, &Resources::default()).expect("a policy that compiles"))
}

fn one(check: Value, action: &str) -> Arc<Compiled> {
    compiled(json!([{
        "name": "names", "at": ["input", "output", "tool_arguments"],
        "check": check, "action": { "type": action },
    }]))
}

/// The text as it leaves, in parts and whole; `⏹` where it was ended.
#[track_caller]
fn leaves(compiled: &Arc<Compiled>, point: Point, text: &str) -> String {
    let mut stream = compiled.stream(point, Context::default());
    let mut steps: Vec<Step> = Vec::new();
    for c in text.chars() {
        steps.push(stream.push(&c.to_string()));
    }
    steps.push(stream.finish());
    let mut out: String = steps.iter().map(|step| step.release.as_str()).collect();
    let scanned = compiled.scan(point, text, &Context::default());
    assert_eq!(out, scanned.text);
    if steps.iter().any(|step| step.ended.is_some()) {
        out.push('⏹');
    }
    out
}

fn scan(compiled: &Arc<Compiled>, text: &str) -> Scanned {
    compiled.scan(Point::Output, text, &Context::default())
}

#[test]
fn words_are_found_in_every_disguise() {
    let words = one(
        json!({"type": "words", "list": ["secret", "秘密計画"]}),
        "redact",
    );
    for (text, left) in [
        ("a Secret thing", "a <NAMES_1> thing"),
        ("a secretary", "a secretary"),
        ("ｓｅｃｒｅｔ!", "<NAMES_1>!"),
        ("se\u{200b}c\u{ad}ret.", "<NAMES_1>."),
        ("ѕесrеt", "<NAMES_1>"),
        ("s\u{301}e\u{301}cret", "<NAMES_1>"),
        ("frperg, secret, secret", "<NAMES_1>, <NAMES_2>, <NAMES_2>"),
        ("この秘密計画は", "この<NAMES_1>は"),
        ("%73ecret=%20", "<NAMES_1>=%20"),
        ("our s e c r e t!", "our <NAMES_1>!"),
        ("S.E.C.R.E.T, s-e-c-r-e-t", "<NAMES_1>, <NAMES_2>"),
        ("秘 密 計 画", "<NAMES_1>"),
        ("s e c r e", "s e c r e"),
        (
            "x: c29tZSBzZWNyZXQgdGhpbmc= y",
            "x: c29t<NAMES_1>dGhpbmc= y",
        ),
        (
            "736f6d6520736563726574206f6e65",
            "736f6d6520<NAMES_1>206f6e65",
        ),
        (
            "hi\u{e0073}\u{e0065}\u{e0063}\u{e0072}\u{e0065}\u{e0074}!",
            "hi<NAMES_1>!",
        ),
    ] {
        let came = leaves(&words, Point::Output, text);
        // Base64 is edited in groups of four letters, whose edges depend on the text around.
        if text.contains("c29t") {
            assert!(
                came.contains("<NAMES_1>") && !came.contains("zZWNyZX"),
                "{came}"
            );
        } else {
            assert_eq!(came, left, "{text}");
        }
    }
    let loose = json!({"type": "words", "list": ["secret", "ひみつ"], "fold": "loose"});
    let loose = one(loose, "redact");
    assert_eq!(
        leaves(&loose, Point::Output, "5ecr3t ヒミツ"),
        "<NAMES_1> <NAMES_2>"
    );
}

/// A list of another document that cannot be had: never as if it were empty.
#[test]
fn a_lost_list_counts_as_the_rule_says() {
    let with = |action: Value, on_failure: &str, lost: bool| {
        let policy = Policy::read(&json!({"rules": [{
            "name": "names", "at": ["output"], "on_failure": on_failure, "action": action,
            "check": {"type": "words", "list": "words:brands@production", "fold": "exact"},
        }]}));
        let list = List {
            words: vec!["acme".to_owned()],
            fold: Some(Fold::Plain),
        };
        let name = "words:brands@production".to_owned();
        let mut resources = Resources::default();
        if lost {
            resources.lost.insert(name);
        } else {
            resources.lists.insert(name, list);
        }
        Arc::new(Compiled::new(&policy.unwrap(), &resources).expect("a policy that compiles"))
    };
    let [block, redact] = [json!({"type": "block"}), json!({"type": "redact"})];
    let found = with(redact.clone(), "closed", false);
    assert_eq!(leaves(&found, Point::Output, "at ACME"), "at <NAMES_1>");
    for (action, on_failure, left, outcome) in [
        (&block, "open", "at ACME", Outcome::FailedOpen),
        (&block, "closed", "⏹", Outcome::Blocked),
        (&redact, "closed", "⏹", Outcome::Blocked),
    ] {
        let lost = with(action.clone(), on_failure, true);
        assert_eq!(leaves(&lost, Point::Output, "at ACME"), left);
        let scanned = scan(&lost, "at ACME");
        assert_eq!(scanned.findings.len(), 1);
        assert_eq!(scanned.findings[0].outcome, outcome);
        assert!(scanned.findings[0].reason.contains("brands"));
        assert!(scan(&lost, "").findings.is_empty());
    }
}

#[test]
fn what_is_encoded_twice_is_found_and_three_times_is_not() {
    let words = one(json!({"type": "words", "list": ["secret"]}), "flag");
    for (text, view) in [
        ("dGhlIHNlY3JldCBwbGFu", Some(Reading::Base64)),
        ("ZEdobElITmxZM0psZENCd2JHRnU=", Some(Reading::Base64)),
        (
            "%64%47%68%6C%49%48%4E%6C%59%33%4A%6C%64%43%42%77%62%47%46%75",
            Some(Reading::Base64),
        ),
        ("WkVkb2JFbElUbXhaTTBwc1pFTkNkMkpIUm5VPQ==", None),
    ] {
        let found = scan(&words, text).findings;
        assert_eq!(found.first().map(|finding| finding.view), view, "{text}");
    }
}

#[test]
fn the_earliest_edit_wins_and_what_it_leaves_is_edited_too() {
    let rules = compiled(json!([
        {"name": "b", "at": ["output"], "action": {"type": "replace", "with": "[B]"},
         "check": {"type": "pattern", "pattern": "bcd"}},
        {"name": "a", "at": ["output"], "action": {"type": "replace", "with": "[A]"},
         "check": {"type": "pattern", "pattern": "abc"}},
        {"name": "long", "at": ["output"], "action": {"type": "replace", "with": "[L]"},
         "check": {"type": "pattern", "pattern": "xyz"}},
        {"name": "short", "at": ["output"], "action": {"type": "replace", "with": "[S]"},
         "check": {"type": "pattern", "pattern": "xy"}},
    ]));
    assert_eq!(leaves(&rules, Point::Output, "-abcd-xyz-"), "-[A][B]-[L]-");
    let found = scan(&rules, "xyz").findings;
    let outcomes: Vec<Outcome> = found.iter().map(|finding| finding.outcome).collect();
    assert_eq!(outcomes, [Outcome::Replaced, Outcome::Covered]);
}

#[test]
fn a_block_lets_the_text_before_it_go_and_says_why() {
    let block = one(json!({"type": "words", "list": ["secret"]}), "block");
    assert_eq!(
        leaves(&block, Point::Output, "before secret after"),
        "before ⏹"
    );
    let Decision::Blocked(ended) = scan(&block, "secret").decision else {
        panic!("not blocked");
    };
    assert_eq!((ended.rule_name.as_str(), ended.rewrite), ("names", None));
    let rewrite = compiled(json!([{
        "name": "r", "at": ["output"], "check": {"type": "words", "list": ["secret"]},
        "action": {"type": "rewrite", "instruction": "Say it without."},
    }]));
    assert!(rewrite.holds_all(Point::Output));
    assert_eq!(leaves(&rewrite, Point::Output, "before secret after"), "⏹");
    assert_eq!(
        leaves(&rewrite, Point::Output, "nothing here"),
        "nothing here"
    );
}

#[test]
fn a_rule_in_shadow_says_what_it_would_have_done() {
    let shadow = compiled(json!([{
        "name": "s", "at": ["output"], "check": {"type": "words", "list": ["secret"]},
        "action": {"type": "block"}, "shadow": true,
    }]));
    let scanned = scan(&shadow, "a secret");
    assert_eq!(
        (scanned.text.as_str(), scanned.decision),
        ("a secret", Decision::Pass)
    );
    assert_eq!(scanned.findings[0].outcome, Outcome::Shadow);
}

#[test]
fn text_waits_for_possible_matches_only() {
    let words = one(
        json!({"type": "words", "list": ["secret garden"]}),
        "redact",
    );
    let mut stream = words.stream(Point::Output, Context::default());
    assert_eq!(
        stream.push("Today, an open secret ").release,
        "Today, an open "
    );
    assert_eq!(stream.push("ingredient ").release, "secret ingredient");
}

#[test]
fn arguments_of_tools_stay_json() {
    let words = json!({"type": "pattern", "pattern": "(?:secret|[0-9]{5})", "fold": "plain"});
    let words = one(words, "redact");
    for (text, left) in [
        (r#"{"a": "my \u0073ecret"}"#, r#"{"a": "my <NAMES_1>"}"#),
        (
            r#"{"a": "my s\u200becret\n"}"#,
            r#"{"a": "my <NAMES_1>\n"}"#,
        ),
        (
            r#"{"n": 12345, "b": true}"#,
            r#"{"n": "<NAMES_1>", "b": true}"#,
        ),
        (r#"{"n": -1.12345e9}"#, r#"{"n": "<NAMES_1>"}"#),
        (r#"["SECRET"]"#, r#"["<NAMES_1>"]"#),
    ] {
        let came = leaves(&words, Point::ToolArguments, text);
        assert_eq!(came, left);
        serde_json::from_str::<Value>(&came).expect("JSON");
    }
    let across = one(json!({"type": "pattern", "pattern": "a\", \"b"}), "redact");
    let came = leaves(&across, Point::ToolArguments, r#"["xa", "bx"]"#);
    assert_eq!(came, r#"["x<NAMES_1>", "x"]"#);
    let quoted = compiled(json!([{
        "name": "q", "at": ["tool_arguments"], "check": {"type": "words", "list": ["x"]},
        "action": {"type": "replace", "with": "a \"b\"\n"},
    }]));
    let came = leaves(&quoted, Point::ToolArguments, r#"{"a": "x"}"#);
    assert_eq!(came, r#"{"a": "a \"b\"\n"}"#);
}

#[test]
fn json_is_mended_once_or_refused() {
    let schema = json!({"type": "object", "required": ["a"]});
    let check = json!({"type": "json", "schema": schema, "repair": true});
    let json_rule = one(check, "block");
    for (text, left) in [
        (r#"{"a": 1}"#, r#"{"a": 1}"#),
        ("```json\n{\"a\": 1,}\n```", "{\"a\": 1}"),
        (r#"{"b": 1}"#, "⏹"),
        ("sorry", "⏹"),
    ] {
        assert_eq!(leaves(&json_rule, Point::Output, text), left);
    }
    let found = scan(&json_rule, "{\"a\": [1").findings;
    assert_eq!(found[0].outcome, Outcome::Repaired);
}

#[test]
fn counts_and_circles_end_a_text() {
    let size = one(json!({"type": "size", "max_chars": 5}), "block");
    assert_eq!(leaves(&size, Point::Output, "あいうえお"), "あいうえお");
    assert_eq!(leaves(&size, Point::Output, "あいうえおか"), "あいうえお⏹");
    let circles = one(json!({"type": "repetition", "min_chars": 40}), "block");
    let came = leaves(&circles, Point::Output, &"again and ".repeat(20));
    assert!(came.ends_with('⏹') && came.len() < 80, "{came}");
    let empty = one(json!({"type": "empty"}), "block");
    assert_eq!(leaves(&empty, Point::Output, " \n"), " \n⏹");
    assert_eq!(leaves(&empty, Point::Output, " a"), " a");
}

#[test]
fn the_prompt_and_its_marks_do_not_leak() {
    let rules = compiled(json!([
        {"name": "leak", "at": ["output"], "action": {"type": "redact"},
         "check": {"type": "prompt_leak", "min_chars": 20}},
        {"name": "mark", "at": ["output"], "action": {"type": "block"},
         "check": {"type": "canary"}},
    ]));
    let context = Context {
        system: Some(Arc::new(PromptIndex::new(
            "Never mention the discount of 40 percent.",
        ))),
        canaries: vec!["mk-7F3A".to_owned()],
        ..Context::default()
    };
    let text = "Well: never mention the discount OF 40% or mk-7f3a or this";
    let scanned = rules.scan(Point::Output, text, &context);
    assert_eq!(scanned.text, "Well: <LEAK_1>% or ");
    assert!(matches!(scanned.decision, Decision::Blocked(_)));
}

#[test]
fn a_model_is_asked_passage_by_passage_and_its_silence_counts() {
    let judged = |action: &str, on_failure: &str| {
        compiled(json!([{
            "name": "j", "at": ["output"], "action": {"type": action},
            "check": {"type": "topics", "deny": ["politics"], "threshold": 0.6},
            "on_failure": on_failure, "deadline_ms": 50,
        }]))
    };
    let text = "The weather is fine in Kyoto today. Vote for the other party tomorrow, please.  ";
    let mut stream = judged("block", "open").stream(Point::Output, Context::default());
    let step = stream.push(text);
    assert_eq!((step.release.as_str(), step.ask.len()), ("", 2));
    assert_eq!(
        (step.ask[0].deadline_ms, step.ask[0].tier),
        (50, Tier::Embedding)
    );
    assert!(
        step.ask[1].text.contains("Kyoto"),
        "the sentence before comes with it"
    );
    assert!(!stream.finish().done);
    let first = stream.answer(step.ask[0].id, Answer::Score(0.1));
    assert_eq!(first.release, "The weather is fine in Kyoto today.");
    let second = stream.answer(step.ask[1].id, Answer::Score(0.9));
    assert!(second.done && second.release.is_empty());
    assert_eq!(
        second.ended.map(|ended| ended.rule_name),
        Some("j".to_owned())
    );

    // A host without such a tier: `scan` counts it as failed.
    let open = scan(&judged("block", "open"), text);
    assert_eq!((open.text.as_str(), open.decision), (text, Decision::Pass));
    assert!(
        open.findings
            .iter()
            .all(|finding| finding.outcome == Outcome::FailedOpen)
    );
    assert_eq!(open.findings.len(), 2);
    let closed = scan(&judged("block", "closed"), text);
    assert!(matches!(closed.decision, Decision::Blocked(_)) && closed.text.is_empty());

    // What only flags holds nothing.
    let mut stream = judged("flag", "open").stream(Point::Output, Context::default());
    let step = stream.push(text);
    assert!(step.release.len() + 1 >= text.len() && !step.ask[0].holds);
}

#[test]
fn a_kill_switch_ends_text_that_already_flows() {
    let rules = compiled(json!([{
        "name": "k", "at": ["output"], "action": {"type": "block"}, "hold": false,
        "check": {"type": "judge", "rubric": "bad", "every_chars": 200},
    }]));
    let mut stream = rules.stream(Point::Output, Context::default());
    let step = stream.push(&"some words of it ".repeat(14));
    assert!(step.release.len() > 200);
    let ended = stream.answer(step.ask[0].id, Answer::Score(1.0));
    assert!(ended.ended.is_some() && ended.done);
    assert_eq!(stream.push("more").release, "");
}

#[test]
fn a_policy_that_cannot_hold_is_refused_with_its_place() {
    let rule = |check: Value, action: Value| json!({"rules": [{"name": "r", "at": ["input"], "check": check, "action": action}]});
    let flag = json!({"type": "flag"});
    for (document, path) in [
        (
            rule(json!({"type": "pattern", "pattern": "a+"}), flag.clone()),
            "rules[0].check.pattern",
        ),
        (
            rule(json!({"type": "pii", "kinds": ["shoe_size"]}), flag.clone()),
            "rules[0].check.kinds[0]",
        ),
        (
            rule(json!({"type": "words", "list": "none"}), flag.clone()),
            "rules[0].check.list",
        ),
        (
            rule(json!({"type": "empty"}), json!({"type": "rewrite"})),
            "rules[0].action",
        ),
        (
            rule(
                json!({"type": "size", "max_chars": 9}),
                json!({"type": "redact"}),
            ),
            "rules[0].action",
        ),
        (
            rule(
                json!({"type": "json", "schema": {"pattern": 1}}),
                flag.clone(),
            ),
            "rules[0].check.schema.pattern",
        ),
        (
            rule(json!({"type": "judge", "rubric": " "}), flag.clone()),
            "rules[0].check.rubric",
        ),
        (
            rule(
                json!({"type": "size", "max_chars": 9, "x": 1}),
                flag.clone(),
            ),
            "rules[0].check",
        ),
        (
            rule(json!({"type": "canary", "x": 1}), flag.clone()),
            "rules[0].check",
        ),
        (rule(json!({"type": "nothing"}), flag), "rules[0].check"),
        (
            json!({"rules": [{"name": "r", "at": ["here"]}]}),
            "rules[0]",
        ),
    ] {
        let problems = match Policy::read(&document) {
            Ok(policy) => Compiled::new(&policy, &Resources::default())
                .map(|_| ())
                .unwrap_err(),
            Err(problems) => problems,
        };
        assert_eq!(problems[0].path, path, "{problems:?}");
    }
}

#[test]
fn a_policy_is_written_as_it_was_read() {
    let document = json!({"rules": [
        {"name": "pii", "at": ["input", "output"],
         "check": {"type": "pii", "kinds": ["email"]},
         "action": {"type": "redact", "reversible": true},
         "on_failure": "closed", "deadline_ms": 50},
        {"name": "w", "at": ["tool_result"], "check": {"type": "words", "list": "names"},
         "action": {"type": "flag"}, "shadow": true},
    ]});
    let policy = Policy::read(&document).unwrap();
    assert_eq!(serde_json::to_value(&policy).unwrap(), document);
}

/// LiteLLM #41611: a number that came in two chunks passed its redaction.
#[test]
fn litellm_41611_a_value_split_over_two_chunks_is_redacted() {
    let pii = one(
        json!({"type": "pii", "kinds": ["email", "credit_card"]}),
        "redact",
    );
    let mut stream = pii.stream(Point::Output, Context::default());
    let mut out = String::new();
    for chunk in [
        "Card 4111 11",
        "11 1111 11",
        "11, mail jane@exa",
        "mple.com.",
    ] {
        out += &stream.push(chunk).release;
        assert!(!out.contains("41") && !out.contains("jane"), "{out}");
    }
    out += &stream.finish().release;
    assert_eq!(out, "Card <CREDIT_CARD_1>, mail <EMAIL_1>.");
}

/// NeMo's `stream_first`, OpenAI's SDK, Cloudflare: text left before, or without, the check.
#[test]
fn nothing_leaves_a_stream_before_it_was_checked() {
    let block = one(
        json!({"type": "words", "list": ["forbidden phrase"]}),
        "block",
    );
    let mut stream = block.stream(Point::Output, Context::default());
    let mut out = String::new();
    for c in "the forbidden phrase".chars() {
        out += &stream.push(&c.to_string()).release;
    }
    assert_eq!(out, "the ");
    assert!(stream.finish().ended.is_some());
}

/// LiteLLM PR #38722: the whole reply was kept back to redact it.
#[test]
fn a_reply_is_not_kept_back_whole() {
    let pii = one(json!({"type": "pii"}), "redact");
    let mut stream = pii.stream(Point::Output, Context::default());
    let (mut sent, mut came) = (0, 0);
    for word in "The sensor is mounted with a key of five millimetres, and that is all. "
        .repeat(8)
        .split_inclusive(' ')
    {
        sent += word.len();
        came += stream.push(word).release.len();
        assert!(sent - came < 64, "{} bytes wait", sent - came);
    }
}

/// MLflow: a guardrail that does not load is logged and skipped.
#[test]
fn a_rule_that_cannot_run_is_no_policy() {
    for check in [
        json!({"type": "words", "list": "gone"}),
        json!({"type": "injection"}),
    ] {
        let rule =
            json!({"name": "r", "at": ["input"], "check": check, "action": {"type": "flag"}});
        let policy = Policy::read(&json!({"rules": [rule]})).unwrap();
        assert!(Compiled::new(&policy, &Resources::default()).is_err());
    }
}

#[test]
fn hostile_texts_come_to_an_end() {
    let rules = compiled(json!([
        {"name": "pii", "at": ["output"], "check": {"type": "pii"}, "action": {"type": "redact"}},
        {"name": "w", "at": ["output"], "action": {"type": "redact"},
         "check": {"type": "words", "list": ["secret"], "fold": "loose"}},
        {"name": "p", "at": ["output"], "action": {"type": "redact"},
         "check": {"type": "pattern", "pattern": "a{400}b"}},
    ]));
    let nested = |text: &str| {
        text.bytes()
            .map(|b| format!("%{b:02x}"))
            .collect::<String>()
    };
    for text in [
        "a".repeat(4_000),
        format!("e{}", "\u{301}".repeat(10_000)),
        "\u{e0041}".repeat(10_000),
        "\u{200d}\u{200b}".repeat(10_000),
        "👩\u{200d}".repeat(5_000),
        "%25".repeat(10_000),
        nested(&nested("secret ".repeat(40).as_str())),
        "c2VjcmV0".repeat(2_000),
        "@".repeat(4_000),
        "0".repeat(4_000),
        "http://".repeat(1_000),
    ] {
        let scanned = scan(&rules, &text);
        assert!(!scanned.text.contains("secret") || scanned.findings.is_empty());
    }
}

fn evidence(texts: &[(Source, &str)]) -> Context {
    let told = texts.iter().map(|(source, text)| Told {
        source: *source,
        field: "messages[1].content".to_owned(),
        text: (*text).to_owned(),
    });
    Context {
        evidence: Some(Arc::new(Evidence::new(told))),
        ..Context::default()
    }
}

fn held_to(action: &str, on_failure: &str, sources: &Value) -> Arc<Compiled> {
    compiled(json!([{
        "name": "g", "at": ["output"], "action": {"type": action}, "on_failure": on_failure,
        "check": {"type": "grounded", "model": "open/judge", "sources": sources},
    }]))
}

#[test]
fn sentences_are_held_to_passages_and_the_find_says_to_which() {
    let rules = held_to("flag", "open", &json!([]));
    let context = evidence(&[
        (Source::ToolResult, "The museum opens at nine."),
        (Source::Input, "It opens at five."),
    ]);
    let mut stream = rules.stream(Point::Output, context);
    let step = stream.push("Hello! How can I help? The museum opens at ten. It is old. ");
    let asked: Vec<&str> = step.ask.iter().map(|it| &it.text[it.at..]).collect();
    assert_eq!(asked, [" The museum opens at ten."]);
    let question = &step.ask[0];
    assert_eq!(
        question.evidence.len(),
        1,
        "what the user says is no source"
    );
    assert!(question.text.starts_with("Hello!") || question.at == 0);
    let said = |relation, passage| {
        Answer::Held(Held {
            relation,
            passage,
            sure: 0.5,
        })
    };
    let found = stream.answer(question.id, said(Relation::Contradicted, Some(1)));
    let rest = stream.finish();
    let found = &found.findings[0];
    assert_eq!(
        found.reason,
        "is contradicted by passage 1 (`messages[1].content`, bytes 0 to 25); scores 0.90, from \
         0.50 on it counts"
    );
    let grounds = serde_json::to_value(found).unwrap()["grounds"].clone();
    let cited = json!({"passage": 1, "field": "messages[1].content", "start": 0, "end": 25});
    assert_eq!(
        grounds,
        json!({"relation": "contradicted", "cited": cited, "shown": 1})
    );
    assert_eq!(rest.ask.len(), 1, "the last sentence is whole at the end");
    let nonsense = stream.answer(rest.ask[0].id, said(Relation::Entailed, Some(7)));
    assert_eq!(nonsense.findings[0].outcome, Outcome::FailedOpen);
    assert!(nonsense.findings[0].reason.contains("not shown"));
}

#[test]
fn relations_come_to_scores_that_a_threshold_tells_apart() {
    for (relation, sure, threshold, found) in [
        (Relation::Entailed, 0.0, 0.5, false),
        (Relation::NoClaim, 1.0, 0.5, false),
        (Relation::NotMentioned, 0.0, 0.5, true),
        (Relation::NotMentioned, 1.0, 0.8, false),
        (Relation::Contradicted, 0.0, 0.8, true),
    ] {
        let rules = compiled(json!([{
            "name": "g", "at": ["output"], "action": {"type": "flag"},
            "check": {"type": "grounded", "threshold": threshold},
        }]));
        let context = evidence(&[(Source::Retrieved, "営業時間は九時からです。")]);
        let mut stream = rules.stream(Point::Output, context);
        stream.push("営業時間は十時からです。");
        let question = stream.finish().ask.remove(0);
        let passage = Some(1);
        let held = Answer::Held(Held {
            relation,
            passage,
            sure,
        });
        let step = stream.answer(question.id, held);
        assert_eq!(!step.findings.is_empty(), found, "{relation:?} {sure}");
    }
}

#[test]
fn without_evidence_the_rule_says_what_holds_and_it_is_written_down() {
    let text = "The museum opens at nine. It closes at six in winter. Is that early?";
    let other = evidence(&[(Source::Input, "It opens at nine.")]);
    for context in [Context::default(), other] {
        let open = held_to("block", "open", &json!([])).scan(Point::Output, text, &context);
        assert_eq!((open.text.as_str(), open.findings.len()), (text, 1));
        assert_eq!(open.findings[0].outcome, Outcome::FailedOpen);
        let closed = held_to("block", "closed", &json!([])).scan(Point::Output, text, &context);
        assert!(closed.text.is_empty() && matches!(closed.decision, Decision::Blocked(_)));
        assert!(closed.findings[0].reason.contains("no retrieved text"));
        let chat = held_to("block", "closed", &json!([])).scan(
            Point::Output,
            "Hello! How can I help you today?",
            &context,
        );
        assert_eq!(chat.decision, Decision::Pass);
    }
    let aside = Context {
        is_aside: true,
        ..Context::default()
    };
    let thought = held_to("block", "closed", &json!([])).scan(Point::Output, text, &aside);
    assert_eq!((thought.text.as_str(), thought.findings.len()), (text, 0));
}
