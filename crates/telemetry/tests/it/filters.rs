//! The filter language as people write it: what parses to what, and what the
//! errors say.

use telemetry::{Field, Filter, Literal, Op};

#[track_caller]
fn check(text: &str, canonical: &str) {
    match Filter::parse(text) {
        Ok(filter) => assert_eq!(filter.to_string(), canonical),
        Err(error) => panic!("{error}\n{}", error.excerpt),
    }
}

#[test]
fn texts_and_their_canonical_forms() {
    check("", "");
    check("  \u{3000} ", "");
    check(
        r#"model = "x" and latency_ms > 800"#,
        r#"model = "x" and latency_ms > 800"#,
    );
    check(
        "model=gpt-4o AND NOT status == ok",
        r#"model = "gpt-4o" and not status = "ok""#,
    );
    check(
        "(model = a or model = b) and ttft_ms <= .5",
        r#"(model = "a" or model = "b") and ttft_ms <= 0.5"#,
    );
    check(
        "model = a or (model = b and kind = llm)",
        r#"model = "a" or model = "b" and kind = "llm""#,
    );
    check(
        "not (model = a or streamed = true)",
        r#"not (model = "a" or streamed = true)"#,
    );
    check("((score.thumbs < 0))", "score.thumbs < 0");
    check("model in (a, 'b c', 5)", r#"model in ("a", "b c", "5")"#);
    check("model not in (a)", r#"not model in ("a")"#);
    check(
        "tag.team exists and metadata.a.b = 5",
        "tag.team exists and metadata.a.b = 5",
    );
    check(
        "metadata.flag = true or metadata.x = \"5\"",
        "metadata.flag = true or metadata.x = \"5\"",
    );
    check(
        r#"tag."my team" starts_with x"#,
        r#"tag."my team" starts_with "x""#,
    );
    check(
        r#"name = "a\"b\\\n\u{1f600}""#,
        "name = \"a\\\"b\\\\\\n😀\"",
    );
    // As it comes out of a Japanese keyboard.
    check(
        "ｍｏｄｅｌ　＝　「東京」　ａｎｄ　ｌａｔｅｎｃｙ＿ｍｓ　＞＝　８００",
        r#"model = "東京" and latency_ms >= 800"#,
    );
    check(
        "user = “日本” or user = 『x」y』 or user = 日本太郎",
        r#"user = "日本" or user = "x」y" or user = "日本太郎""#,
    );
    check("model in （「a」、「b」）", r#"model in ("a", "b")"#);
    check(
        "cost_usd ≧ -1.5 and latency_ms ≠ 2",
        "cost_usd >= -1.5 and latency_ms != 2",
    );
    check("tag.部署 = 営業", r#"tag.部署 = "営業""#);
}

#[track_caller]
fn refused(text: &str, shown: &str) {
    let error = Filter::parse(text).expect_err(text);
    let found = format!("{error}\n{}", error.excerpt);
    assert_eq!(found.trim_end(), shown.trim_end(), "\n{found}");
}

#[test]
fn errors_point_and_suggest() {
    refused(
        "modle = 1",
        "there is no field \"modle\" at column 1; did you mean model?\nmodle = 1\n^^^^^",
    );
    refused(
        "latency > 5",
        "there is no field \"latency\" at column 1; did you mean latency_ms?\nlatency > 5\n^^^^^^^",
    );
    refused(
        "tags.team = a",
        "there is no field \"tags.team\" at column 1; did you mean tag.team?\ntags.team = a\n^^^^^^^^^",
    );
    refused(
        "qqqqqqqqqq = a",
        "there is no field \"qqqqqqqqqq\" at column 1\nqqqqqqqqqq = a\n^^^^^^^^^^",
    );
    refused(
        "status = eror",
        "status is never \"eror\" at column 10; did you mean \"error\"? known: ok, error, cancelled\nstatus = eror\n         ^^^^",
    );
    refused(
        "latency_ms > \"5\"",
        "latency_ms needs a number at column 14; write the number without quotes\nlatency_ms > \"5\"\n             ^^^",
    );
    refused(
        "model > 5",
        "model cannot be compared by > at column 7; use =, !=, in, contains, starts_with, exists\nmodel > 5\n      ^",
    );
    refused(
        "streamed = 1",
        "streamed needs true or false at column 12\nstreamed = 1\n           ^",
    );
    refused(
        "metadata.x > abc",
        "only numbers have an order at column 14; use = or != for texts\nmetadata.x > abc\n             ^^^",
    );
    refused(
        "model = ",
        "a value is missing at the end at column 9\nmodel = \n        ^",
    );
    refused(
        "model \"x\"",
        "a comparison is missing at column 7; write one of =, !=, in, contains, starts_with, exists after model\nmodel \"x\"\n      ^^^",
    );
    refused(
        "model = \"x",
        "this text has no end at column 9; close it with \"\nmodel = \"x\n        ^^",
    );
    refused(
        "(model = x",
        "a closing parenthesis is missing at column 11; write ) here\n(model = x\n          ^",
    );
    refused(
        "model = x)",
        "this parenthesis was never opened at column 10\nmodel = x)\n         ^",
    );
    refused(
        "model = x kind = llm",
        "two conditions need \"and\" or \"or\" between them at column 11; write \"and\" here\nmodel = x kind = llm\n          ^^^^",
    );
    refused(
        "model = x & kind = llm",
        "'&' has no meaning here at column 11; write \"and\"\nmodel = x & kind = llm\n          ^",
    );
    refused(
        "\"hello\"",
        "a field name is missing before this text at column 1; a condition begins with a field; free text goes into the search box\n\"hello\"\n^^^^^^^",
    );
    refused(
        "model in x",
        "a list is missing at column 10; for example: in (\"a\", \"b\")\nmodel in x\n         ^",
    );
    refused(
        "and",
        "a condition is missing before \"and\" at column 1\nand\n^^^",
    );
    refused(
        "model = x and",
        "a condition is missing at column 14; for example: status = \"error\"\nmodel = x and\n             ^",
    );
    refused(
        "name = 「東京」 und",
        "two conditions need \"and\" or \"or\" between them at column 13; write \"and\" here\nname = 「東京」 und\n       \u{3000}\u{3000}\u{3000}\u{3000} ^^^",
    );
    refused(
        r#"name = "\q""#,
        "this escape is not known at column 9; use \\\\ for a backslash, \\\" for a quote, \\n, \\t or \\u{3042}\nname = \"\\q\"\n        ^^",
    );
    assert!(
        Filter::parse(&"(".repeat(5000))
            .unwrap_err()
            .message
            .contains("nested too deeply")
    );
    assert!(
        Filter::parse(&"not ".repeat(4000))
            .unwrap_err()
            .message
            .contains("nested too deeply")
    );
    assert!(
        Filter::parse(&"x".repeat(20_000))
            .unwrap_err()
            .message
            .contains("longer than")
    );
    assert!(
        Filter::parse(&vec!["kind=llm"; 600].join(" or "))
            .unwrap_err()
            .message
            .contains("too many conditions")
    );
}

#[test]
fn facet_clicks_add_and_remove_conditions() {
    let text = |word: &str| Literal::Text(word.to_owned());
    let filter = Filter::parse("status = error or latency_ms > 5").unwrap();
    let with = filter.and(Field::Model, Op::Equal, text("x y")).unwrap();
    assert_eq!(
        with.to_string(),
        r#"(status = "error" or latency_ms > 5) and model = "x y""#
    );
    assert_eq!(
        with.and(Field::Model, Op::Equal, text("x y")).unwrap(),
        with
    );
    let more = with
        .and(Field::Tag("a b".into()), Op::NotEqual, text("\""))
        .unwrap();
    assert_eq!(
        more.without(&Field::Model).to_string(),
        r#"(status = "error" or latency_ms > 5) and tag."a b" != "\"""#
    );
    assert_eq!(with.without(&Field::Status), with);
    assert_eq!(
        Filter::default()
            .and(Field::LatencyMs, Op::AtLeast, Literal::Number(2.5))
            .unwrap()
            .to_string(),
        "latency_ms >= 2.5"
    );
    assert!(
        Filter::default()
            .and(Field::LatencyMs, Op::Contains, text("x"))
            .is_err()
    );
    assert!(
        filter
            .without(&Field::Model)
            .without(&Field::LatencyMs)
            .to_string()
            .contains("or")
    );
    for field in Field::NAMED.iter().cloned().chain([
        Field::Tag("x y\"".into()),
        Field::Metadata("a.b".into()),
        Field::Score("名".into()),
    ]) {
        assert_eq!(field.to_string().parse::<Field>().unwrap(), field);
    }
}
