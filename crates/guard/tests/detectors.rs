//! The detectors through the engine: the same sets that they are measured on alone, redaction
//! with a vault and back, and how long the rules take.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use guard::{
    Compiled, Context, Decision, Finding, Form, Outcome, Point, Policy, Resources, Restore, Room,
    Vault,
};
use serde_json::{Value, json};

const BENIGN: &str = include_str!("data/benign.txt");
const MARKED: &str = include_str!("data/marked.txt");

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn compiled(rules: Value) -> Arc<Compiled> {
    let policy = Policy::read(&json!({"rules": rules})).unwrap();
    Arc::new(Compiled::new(&policy, &Resources::default()).unwrap())
}

fn everything() -> Arc<Compiled> {
    compiled(json!([
        {"name": "pii", "at": ["input"], "check": {"type": "pii"}, "action": {"type": "flag"}},
        {"name": "secrets", "at": ["input"], "check": {"type": "secrets"}, "action": {"type": "flag"}},
    ]))
}

fn finds(rules: &Arc<Compiled>, text: &str) -> Vec<Finding> {
    rules.scan(Point::Input, text, &Context::default()).findings
}

#[test]
fn at_most_one_in_a_hundred_harmless_lines_is_taken_for_something() {
    let rules = everything();
    let all: Vec<&str> = lines(BENIGN).collect();
    let mut wrong = Vec::new();
    for line in &all {
        for finding in finds(&rules, line) {
            wrong.push(format!("{} in {line}", finding.detector));
        }
    }
    println!("{} of {}: {wrong:#?}", wrong.len(), all.len());
    assert!(wrong.len() * 100 <= all.len(), "{wrong:#?}");
}

#[test]
fn the_engine_finds_what_the_detectors_find() {
    let rules = everything();
    let (mut right, mut missed) = (0, Vec::new());
    for line in lines(MARKED) {
        let mut text = String::new();
        let mut marks = Vec::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('⟦') {
            let (mark, after) = after.split_once('⟧').unwrap();
            let (kind, value) = mark.split_once('|').unwrap();
            text.push_str(before);
            marks.push((kind, text.len(), text.len() + value.len()));
            text.push_str(value);
            rest = after;
        }
        text.push_str(rest);
        let found = finds(&rules, &text);
        for (kind, start, end) in marks {
            let is_mark = |f: &&Finding| f.detector == kind && f.start == start && f.end == end;
            match found.iter().find(is_mark) {
                Some(_) => right += 1,
                None => missed.push(format!("{kind}: {} in {text}", &text[start..end])),
            }
        }
    }
    println!("{right} found; missed {missed:#?}");
    assert!(missed.len() * 20 <= right, "{missed:#?}");
}

fn with_vault(vault: &Arc<Mutex<Vault>>) -> Context {
    let vault = vault.clone();
    Context {
        pseudonyms: Some(Arc::new(move |label, value| {
            let mut vault = vault.lock().unwrap();
            vault.placeholder(label, value).ok().map(str::to_owned)
        })),
        ..Context::default()
    }
}

fn redacting(on_failure: &str) -> Arc<Compiled> {
    compiled(json!([{
        "name": "pii", "at": ["input"], "check": {"type": "pii"}, "on_failure": on_failure,
        "action": {"type": "redact", "reversible": true},
    }]))
}

#[test]
fn what_is_redacted_comes_back_also_in_parts() {
    let vault = Arc::new(Mutex::new(Vault::default()));
    let rules = redacting("closed");
    let text = "山田太郎様、taro@example.com と 090-1234-5678 へ。Again: taro@example.com";
    let scanned = rules.scan(Point::Input, text, &with_vault(&vault));
    assert_eq!(
        scanned.text,
        "<PERSON_1>様、<EMAIL_1> と <PHONE_1> へ。Again: <EMAIL_1>"
    );
    let again = rules.scan(Point::Input, "mail taro@example.com", &with_vault(&vault));
    assert_eq!(again.text, "mail <EMAIL_1>");

    let vault = vault.lock().unwrap();
    assert_eq!(vault.restore(&scanned.text, Form::Plain), text);
    let mut restore = Restore::new(Form::Plain);
    let mut restored = String::new();
    for part in scanned.text.chars() {
        restored += &restore.push(&vault, part.encode_utf8(&mut [0; 4]));
    }
    restored += &restore.finish();
    assert_eq!(restored, text);
}

#[test]
fn a_full_vault_blocks_or_redacts_for_good() {
    let room = Room {
        values: 1,
        bytes: 1_000,
    };
    let text = "a@example.com b@example.com";
    let full = || with_vault(&Arc::new(Mutex::new(Vault::new(room))));

    let closed = redacting("closed").scan(Point::Input, text, &full());
    assert!(
        matches!(closed.decision, Decision::Blocked(_)),
        "{closed:?}"
    );
    assert!(!closed.text.contains("b@example.com"));

    let open = redacting("open").scan(Point::Input, text, &full());
    assert_eq!(open.text, "<EMAIL_1> <EMAIL>");
    assert!(
        open.findings
            .iter()
            .all(|finding| finding.outcome == Outcome::Redacted)
    );
}

#[test]
fn digits_of_any_script_and_hidden_signs_do_not_help() {
    let rules = redacting("closed");
    for (text, expected) in [
        ("電話は〇九〇－一二三四－五六七八。", "電話は<PHONE_1>。"),
        ("０９０ー１２３４ー５６７８", "<PHONE_1>"),
        ("ta\u{200b}ro@exam\u{200d}ple.com!", "<EMAIL_1>!"),
        ("ｔａｒｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", "<EMAIL_1>"),
        (
            "個人番号：１２３４ ５６７８ ９０１８",
            "個人番号：<MY_NUMBER_1>",
        ),
    ] {
        let vault = Arc::new(Mutex::new(Vault::default()));
        assert_eq!(
            rules.scan(Point::Input, text, &with_vault(&vault)).text,
            expected
        );
    }
}

#[test]
fn kinds_are_chosen_by_name() {
    let only = compiled(json!([{
        "name": "pii", "at": ["input"], "check": {"type": "pii", "kinds": ["email"]},
        "action": {"type": "flag"},
    }]));
    let found = finds(&only, "a@example.com 090-1234-5678");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].detector, "email");
}

/// The table of `docs/guardrails.md` names every detector.
#[test]
fn the_documentation_names_them_all() {
    let page = include_str!("../../../docs/guardrails.md");
    let lists = [guard::detectors::PII, guard::detectors::SECRETS];
    for detector in lists.into_iter().flatten() {
        assert!(
            page.contains(&format!("`{}`", detector.name)),
            "{}",
            detector.name
        );
    }
}
