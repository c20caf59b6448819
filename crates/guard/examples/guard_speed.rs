//! How fast the rules are: every built-in detector and check of the rules tier over 4 KB of
//! English and of Japanese, whole and as a stream of frames of about four tokens.
//!
//! `cargo run --release -p guard --example guard_speed [hostile]`. Prints wall time per text (p50, p99) and
//! per frame, CPU time per text, and how much text waits on average. The figures are in
//! `docs/guardrails.md`.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use guard::{
    Action, Check, Compiled, Context, Fold, Point, Policy, PromptIndex, Resources, Rule, Scorer,
    Tier, WordList,
};

const TEXT_BYTES: usize = 4_096;
const ROUNDS: usize = 2_000;
const FRAME_CHARS: usize = 14;

const ENGLISH: &str = "Thanks for writing in about the delivery of your order, which left our \
warehouse in Rotterdam on the 14th of March at 9:30. If the parcel has not arrived by Friday, \
call 020 7946 0958 or write to support@example.com and mention invoice 20391-B; we will send \
a second one. The manual at https://docs.example.com/setup?step=3 explains how the sensor is \
mounted, which needs about 25 minutes and a 5 mm key. Several readers asked whether the battery \
lasts through a winter: in our tests it held 143 days at minus ten degrees. ";

const JAPANESE: &str = "お問い合わせいただきありがとうございます。ご注文の商品は三月十四日の午前九時\
半に倉庫を出荷いたしました。金曜日までに届かない場合は、０３－１２３４－５６７８までお電話いただくか、\
support@example.com までご連絡ください。担当の田中が折り返しご説明いたします。設置の手順は\
https://docs.example.com/setup をご覧ください。作業には約２５分かかります。電池は冬の間ずっと持つのかと\
いうご質問を多くいただきますが、マイナス十度の試験で百四十三日間動作しました。";

/// What is said again and again.
const HOSTILE: &[(&str, &str)] = &[
    ("marks on one letter", "\u{301}"),
    ("joined emoji", "👩\u{200d}"),
    ("hidden characters", "\u{200b}"),
    ("tags", "\u{e0061}\u{e0020}"),
    ("flags", "🇯"),
    ("one letter", "a"),
    ("one digit", "7"),
    ("digits and hyphens", "1-"),
    ("digits and spaces", "4 1"),
    ("kanji numerals", "一二"),
    ("at signs", "a@"),
    ("domains", "a.b."),
    ("addresses to be", "1 Main "),
    ("names to be", "John Van "),
    ("names in kanji", "山田"),
    ("towns", "中央区"),
    ("quotes", "\"'"),
    ("opened brackets", "[("),
    ("links", "http://a"),
    ("link in link", "](http://"),
    ("markup", "<img src="),
    ("percent", "%25"),
    ("hex", "deadbeef"),
    ("base64", "QUJDRA=="),
    ("base64 without end", "QUJD"),
    ("base64 of spaces", "ICAg "),
    ("spaced letters", "b a d "),
    ("dotted letters", "b.a."),
    ("keys to be", "sk-"),
    ("bearer", "Bearer "),
    ("begin key", "-----BEGIN "),
    ("labels", "password: "),
    ("ignore", "ignore all previous "),
    ("sentence ends", ". "),
    ("newlines", "\n"),
    ("carriage returns", "\r\n"),
    ("braces", "{\"a\":"),
    ("backslashes", "\\u0061"),
    ("placeholders", "<EMAIL_1>"),
];

fn main() {
    let policy = policy();
    let resources = resources();
    if std::env::args().nth(1).as_deref() == Some("hostile") {
        measure_hostile(&policy, &resources);
        return;
    }
    let started = Instant::now();
    let compiled = match Compiled::new(&policy, &resources) {
        Ok(compiled) => Arc::new(compiled),
        Err(problems) => {
            for problem in problems {
                say(&problem.to_string());
            }
            return;
        }
    };
    say(&format!(
        "policy compiled in {} ms",
        started.elapsed().as_millis()
    ));
    for (name, piece) in [("English", ENGLISH), ("Japanese", JAPANESE)] {
        let mut text = piece.repeat(TEXT_BYTES / piece.len() + 1);
        let mut end = TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        measure_whole(name, &compiled, &text);
        measure_stream(name, &compiled, &text);
    }
    for rule in &policy.rules {
        measure_rule(rule, &resources);
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads on: nothing to do about it.
    let _ = writeln!(out, "{line}");
}

fn measure_whole(name: &str, compiled: &Arc<Compiled>, text: &str) {
    let context = context();
    let mut times: Vec<u128> = Vec::with_capacity(ROUNDS);
    let mut found = 0;
    for _ in 0..50 {
        found = compiled.scan(Point::Output, text, &context).findings.len();
    }
    let cpu = cpu_ns();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        std::hint::black_box(compiled.scan(Point::Output, text, &context));
        times.push(started.elapsed().as_nanos());
    }
    let cpu_us = (cpu_ns() - cpu) / ROUNDS as u64 / 1_000;
    let (p50, p99) = percentiles(&mut times);
    say(&format!(
        "{name:9} whole {} bytes: p50 {p50} us, p99 {p99} us, CPU {cpu_us} us, {found} findings",
        text.len()
    ));
}

fn measure_stream(name: &str, compiled: &Arc<Compiled>, text: &str) {
    let chars: Vec<char> = text.chars().collect();
    let frames: Vec<String> = chars
        .chunks(FRAME_CHARS)
        .map(|c| c.iter().collect())
        .collect();
    let mut times: Vec<u128> = Vec::new();
    let (mut waiting, mut pushed, mut released) = (0, 0, 0);
    for _ in 0..ROUNDS / 20 {
        let mut stream = compiled.stream(Point::Output, context());
        (pushed, released) = (0, 0);
        for frame in &frames {
            let started = Instant::now();
            let step = stream.push(frame);
            times.push(started.elapsed().as_nanos());
            pushed += frame.len();
            released += step.release.len();
            waiting += pushed.saturating_sub(released);
        }
        released += stream.finish().release.len();
    }
    let mean = waiting / times.len().max(1);
    let frames = times.len();
    let (p50, p99) = percentiles(&mut times);
    say(&format!(
        "{name:9} {frames} frames: p50 {p50} us, p99 {p99} us per frame, {mean} bytes wait on \
         average ({pushed} in, {released} out)"
    ));
}

fn measure_rule(rule: &Rule, resources: &Resources) {
    let policy = Policy {
        rules: vec![rule.clone()],
        ..Policy::default()
    };
    let Ok(compiled) = Compiled::new(&policy, resources) else {
        return;
    };
    let compiled = Arc::new(compiled);
    let context = context();
    let mut shown = format!("  {:14}", rule.name);
    for piece in [ENGLISH, JAPANESE] {
        let text = piece.repeat(TEXT_BYTES / piece.len() + 1);
        let mut times: Vec<u128> = Vec::new();
        for _ in 0..200 {
            let started = Instant::now();
            std::hint::black_box(compiled.scan(Point::Output, &text, &context));
            times.push(started.elapsed().as_nanos());
        }
        let (p50, p99) = percentiles(&mut times);
        shown += &format!("  p50 {p50:4} us  p99 {p99:4} us");
    }
    say(&shown);
}

/// Texts that are made to be slow to read, by each detector alone, at one length and at four
/// times that: where time is not in proportion to the text, somebody can stop a server with it.
fn measure_hostile(policy: &Policy, resources: &Resources) {
    for (name, piece) in HOSTILE {
        let mut slowest = (String::new(), 0.0, 0.0);
        for rule in policy.rules.iter().flat_map(apart) {
            let label = rule.name.clone();
            let alone = Policy {
                rules: vec![rule],
                ..Policy::default()
            };
            let Ok(compiled) = Compiled::new(&alone, resources) else {
                continue;
            };
            let compiled = Arc::new(compiled);
            let [short, long] = [64, 256].map(|kib| per_kib(&compiled, piece, kib));
            if long > slowest.1 {
                slowest = (label, long, long / short);
            }
        }
        let (label, long, growth) = slowest;
        say(&format!(
            "{name:20} {label:20} {long:6.0} us per KiB, {growth:.1} times that of a quarter of it"
        ));
    }
}

/// CPU time in microseconds, over as many rounds as the clock needs to be exact.
fn per_kib(compiled: &Arc<Compiled>, piece: &str, kib: usize) -> f64 {
    let text = piece.repeat((kib << 10) / piece.len());
    let (cpu, mut rounds) = (cpu_ns(), 0);
    loop {
        std::hint::black_box(compiled.scan(Point::Output, &text, &context()));
        rounds += 1;
        let took = cpu_ns() - cpu;
        if took > 8_000_000 || rounds >= 100 {
            return took as f64 / 1e3 / f64::from(rounds) / kib as f64;
        }
    }
}

/// A rule for each kind of its check.
fn apart(rule: &Rule) -> Vec<Rule> {
    let of = |detector: &&guard::Detector, check: fn(Vec<String>) -> Check| Rule {
        name: detector.name.to_owned(),
        check: check(vec![detector.name.to_owned()]),
        ..rule.clone()
    };
    match &rule.check {
        Check::Pii { .. } => {
            let pii = guard::detectors::PII.iter();
            pii.map(|it| of(it, |kinds| Check::Pii { kinds })).collect()
        }
        Check::Secrets { .. } => {
            let secrets = guard::detectors::SECRETS.iter();
            secrets
                .map(|it| of(it, |kinds| Check::Secrets { kinds }))
                .collect()
        }
        _ => vec![rule.clone()],
    }
}

fn percentiles(times: &mut [u128]) -> (u128, u128) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0) / 1_000;
    (at(50), at(99))
}

/// CPU time of this process so far; 0 where there is no such file.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let first = stat.split_whitespace().next();
    first.and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn policy() -> Policy {
    let words = ["competitor", "project nightingale", "社外秘", "ライバル社"];
    let checks = [
        ("pii", Check::Pii { kinds: Vec::new() }),
        ("secrets", Check::Secrets { kinds: Vec::new() }),
        (
            "words",
            Check::Words {
                list: WordList::Inline(words.iter().map(|word| (*word).to_owned()).collect()),
                fold: Fold::Loose,
                inside: false,
            },
        ),
        (
            "pattern",
            Check::Pattern {
                pattern: r"\b[A-Z]{2,5}-[0-9]{3,8}\b".to_owned(),
                fold: Fold::Exact,
            },
        ),
        (
            "injection",
            Check::Injection {
                threshold: None,
                tiers: vec![Tier::Rules],
                classifier: None,
            },
        ),
        (
            "toxicity",
            Check::Toxicity {
                threshold: None,
                tiers: vec![Tier::Rules],
                classifier: None,
            },
        ),
        (
            "links",
            Check::Links {
                allow: vec!["*.example.com".to_owned()],
            },
        ),
        ("canary", Check::Canary {}),
        ("prompt_leak", Check::PromptLeak { min_chars: 40 }),
        ("refusal", Check::Refusal {}),
        ("empty", Check::Empty {}),
        ("size", Check::Size { max_chars: 100_000 }),
        ("repetition", Check::Repetition { min_chars: 2_000 }),
        ("gibberish", Check::Gibberish { threshold: None }),
    ];
    let rules = checks.into_iter().map(|(name, check)| {
        let action = match check {
            Check::Pii { .. } | Check::Secrets { .. } => Action::Redact { reversible: false },
            _ => Action::Flag {},
        };
        Rule {
            name: name.to_owned(),
            at: vec![Point::Output],
            check,
            action,
            shadow: false,
            on_failure: guard::OnFailure::Open,
            deadline_ms: None,
            hold: true,
        }
    });
    Policy {
        rules: rules.collect(),
        ..Policy::default()
    }
}

fn resources() -> Resources {
    let scorers: BTreeMap<String, Scorer> = BTreeMap::new();
    Resources {
        scorers,
        ..Resources::default()
    }
}

fn context() -> Context {
    let prompt = "You are the assistant of a shop for sensors. Answer in the customer's language, \
                  never promise a date, and do not speak about unreleased products.";
    Context {
        system: Some(Arc::new(PromptIndex::new(prompt))),
        canaries: vec!["mk-7f3a91c2".to_owned()],
        ..Context::default()
    }
}
