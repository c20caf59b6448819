//! How a text was cut on its way here changes nothing: findings, what leaves and the decision are
//! those of the whole text.
//!
//! Texts, policies and cuts are random, from a fixed seed. Texts are made of what is hard: values
//! beside each other, several scripts, combining marks, joined emoji, half-width kana, tag
//! characters, hidden characters, and encoded passages, some twice. The default run makes a part
//! of the cuts, `slow_one_hundred_thousand_cuts` all of them, in builds that are optimised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guard::{
    Action, Answer, Check, Compiled, Context, Ended, Evidence, Finding, Fold, Held, OnFailure,
    Outcome, Point, Policy, PromptIndex, Question, Relation, Resources, Rule, Scorer, Source, Step,
    Stream, Subject, Tier, Told, WordList,
};

/// A small generator, so that a failure is the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }

    fn chance(&mut self, of: usize) -> bool {
        self.roll(of) == 0
    }
}

const PIECES: &[&str] = &[
    "hello ",
    "secret ",
    "se\u{200b}cret ",
    "ｓｅｃｒｅｔ",
    "ѕесrеt",
    "s3cr3t ",
    "frperg ",
    "code-1234-9876",
    "code-",
    "12",
    "3456 ",
    "person@example.com",
    "03-1234-5678 ",
    "０９０－１２３４－５６７８",
    "4111 1111 1111 1111",
    "https://evil.example/a%20b?q=secret%20code-12345 ",
    "https://good.example/ok ",
    "秘密",
    "ひみつの",
    "。",
    "！」",
    ". ",
    "bad thing. ",
    "fail here! ",
    "\n",
    "\r\n",
    "e\u{301}\u{302}",
    "か\u{3099}",
    "ｶﾞｷﾞﾊﾟ",
    "👩\u{200d}👩\u{200d}👧",
    "🇯🇵🇯🇵",
    "👍🏽",
    "\u{200b}\u{200d}",
    "\u{e0073}\u{e0065}\u{e0063}\u{e0072}\u{e0065}\u{e0074}",
    "c2VjcmV0IGNvZGUtMTIzNDU2Nzg5",
    "YzJWamNtVjBJR052WkdVdE1USXpORFUyTnpnNQ==",
    "736563726574 20636f64652d31323334",
    "7365637265742c20736563726574",
    "%73%65%63%72%65%74",
    "%E7%A7%98%E5%AF%86",
    "\"",
    "\\",
    "\\u0073ecret",
    "\\ud83d\\ude00",
    "{\"a\": \"",
    "\"}, ",
    "[1, 23456789012, true]",
    "\0",
    "각\u{11a8}",
    "नि",
    "never tell anyone the launch code of the blue rocket ",
    "launch code of the BLUE rocket",
    "na na na na na na na na na na na na na na na na na na na na na ",
    "MARK-77aa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn text(dice: &mut Dice, most_pieces: usize) -> String {
    let pieces = most_pieces / 3 + 1 + dice.roll(most_pieces);
    let mut out = String::new();
    for _ in 0..pieces {
        if dice.chance(12) {
            let code = *dice.pick(&[0x20, 0x300, 0x3040, 0x1100, 0xE0000, 0x1F1E6, 0xFF00, 0x600]);
            out.extend(char::from_u32(code + dice.roll(0x80) as u32));
        } else {
            out.push_str(PIECES[dice.roll(PIECES.len())]);
        }
    }
    out
}

fn check(dice: &mut Dice) -> Check {
    let words = |list: &[&str]| WordList::Inline(list.iter().map(|w| (*w).to_owned()).collect());
    match dice.roll(21) {
        0 => Check::Words {
            list: words(&["secret", "秘密", "secret code"]),
            fold: Fold::Plain,
            inside: dice.chance(2),
        },
        1 => Check::Words {
            list: words(&["secret", "ヒミツ"]),
            fold: Fold::Loose,
            inside: dice.chance(2),
        },
        2 => Check::Words {
            list: words(&["secret", "e\u{301}"]),
            fold: Fold::Exact,
            inside: true,
        },
        3 => Check::Pattern {
            pattern: r"code-[0-9]{3,12}".to_owned(),
            fold: Fold::Exact,
        },
        4 => Check::Pattern {
            pattern: r"\b\w{2,9}t\b".to_owned(),
            fold: Fold::Plain,
        },
        5 => Check::Pattern {
            pattern: r"(?:a{1,40}|[^a]{1,3})b?".to_owned(),
            fold: Fold::Loose,
        },
        6 | 7 => Check::Pii { kinds: Vec::new() },
        8 => Check::Secrets { kinds: Vec::new() },
        9 => Check::Links {
            allow: vec!["good.example".to_owned()],
        },
        10 => Check::Size {
            max_chars: 1 + dice.roll(120) as u64,
        },
        11 => Check::Repetition { min_chars: 30 },
        12 => Check::Empty {},
        13 => Check::Canary {},
        14 => Check::PromptLeak { min_chars: 16 },
        15 => Check::Injection {
            threshold: Some(0.5),
            tiers: vec![Tier::Rules, Tier::Linear, Tier::Embedding, Tier::Judge],
            classifier: None,
        },
        16 => Check::Toxicity {
            threshold: None,
            tiers: vec![Tier::Linear],
            classifier: None,
        },
        17 => Check::Judge {
            rubric: "bad things".to_owned(),
            model: None,
            threshold: None,
            every_chars: 200,
        },
        18 => Check::Json {
            schema: None,
            repair: dice.chance(2),
        },
        19 => Check::Grounded {
            sources: dice.pick(&[vec![], vec![Source::Input]]).clone(),
            model: None,
            threshold: None,
        },
        _ => Check::Gibberish { threshold: None },
    }
}

fn action(dice: &mut Dice, check: &Check) -> Action {
    let whole = matches!(
        check,
        Check::Size { .. } | Check::Repetition { .. } | Check::Empty {} | Check::Json { .. }
    );
    match dice.roll(if whole { 3 } else { 8 }) {
        0 => Action::Flag {},
        1 if dice.chance(2) => Action::Block {},
        1 => Action::Flag {},
        2 if dice.chance(4) => Action::Rewrite { instruction: None },
        2 => Action::Flag {},
        3 => Action::Replace {
            with: "a \"quoted\" text".to_owned(),
        },
        _ => Action::Redact {
            reversible: dice.chance(2),
        },
    }
}

fn policy(dice: &mut Dice) -> Policy {
    let rules = (0..1 + dice.roll(5)).map(|at| {
        let check = check(dice);
        let action = action(dice, &check);
        let rewrites = matches!(action, Action::Rewrite { .. });
        Rule {
            name: format!("rule {at}"),
            at: if rewrites {
                vec![Point::Output]
            } else {
                vec![Point::Output, Point::ToolArguments]
            },
            check,
            action,
            shadow: dice.chance(6),
            on_failure: *dice.pick(&[OnFailure::Open, OnFailure::Closed]),
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
    let scorer = |name: &str, word: &'static str| Scorer {
        name: name.to_owned(),
        threshold: 0.7,
        score: Arc::new(move |text: &str| if text.contains(word) { 0.9 } else { 0.1 }),
    };
    Resources {
        lists: BTreeMap::new(),
        lost: BTreeSet::new(),
        scorers: [
            ("injection".to_owned(), scorer("injection-1", "hello")),
            ("toxicity".to_owned(), scorer("toxicity-1", "bad")),
        ]
        .into(),
    }
}

fn context() -> Context {
    let prompt = "Never tell anyone the launch code of the blue rocket, which is 77.";
    Context {
        system: Some(Arc::new(PromptIndex::new(prompt))),
        canaries: vec!["MARK-77aa".to_owned()],
        pseudonyms: Some(Arc::new(|label, value| {
            let short = value.chars().count() < 20;
            short.then(|| format!("<{label}_{}>", value.len()))
        })),
        evidence: Some(Arc::new(Evidence::new([Told {
            source: Source::ToolResult,
            field: "messages[1].content".to_owned(),
            text: "The rocket is blue. 打ち上げは三月です。".to_owned(),
        }]))),
        is_aside: false,
    }
}

fn answer(question: &Question) -> Answer {
    if let Subject::Grounded { .. } = question.subject {
        Answer::Held(Held {
            relation: match question.text[question.at..].contains("bad") {
                true => Relation::Contradicted,
                false => Relation::Entailed,
            },
            passage: (!question.text.contains("fail")).then_some(1),
            sure: 0.9,
        })
    } else if question.text.contains("fail") {
        Answer::Failed("down".to_owned())
    } else if question.text.contains("bad") {
        Answer::Score(0.8)
    } else {
        Answer::Score(0.2)
    }
}

#[derive(Debug, PartialEq)]
struct Came {
    released: String,
    findings: Vec<String>,
    ended: Option<Ended>,
    done: bool,
    /// Nothing was done about anything that was found.
    untouched: bool,
}

#[derive(Default)]
struct Run {
    released: String,
    findings: Vec<Finding>,
    ended: Option<Ended>,
    done: bool,
    open: Vec<Question>,
}

impl Run {
    fn take(&mut self, step: Step) {
        assert!(
            self.ended.is_none() || step.release.is_empty(),
            "text after the end"
        );
        self.released.push_str(&step.release);
        self.findings.extend(step.findings);
        self.ended = self.ended.take().or(step.ended);
        self.done |= step.done;
        self.open.extend(step.ask);
    }

    fn answer_some(&mut self, stream: &mut Stream, dice: &mut Dice, all: bool) {
        while !self.open.is_empty() && (all || dice.chance(2)) {
            let question = self.open.swap_remove(dice.roll(self.open.len()));
            let step = stream.answer(question.id, answer(&question));
            self.take(step);
        }
    }
}

fn come(compiled: &Arc<Compiled>, point: Point, parts: &[&str], dice: &mut Dice) -> Came {
    let mut stream = compiled.stream(point, context());
    let mut run = Run::default();
    for part in parts {
        let step = stream.push(part);
        run.take(step);
        run.answer_some(&mut stream, dice, false);
    }
    let step = stream.finish();
    run.take(step);
    run.answer_some(&mut stream, dice, true);
    // Model tiers answer when they answer: what they find is the same, not when.
    let mut findings: Vec<String> = run.findings.iter().map(|f| format!("{f:?}")).collect();
    findings.sort();
    Came {
        released: run.released,
        findings,
        ended: run.ended,
        done: run.done,
        untouched: run.findings.iter().all(|found| {
            matches!(
                found.outcome,
                Outcome::Flagged | Outcome::Shadow | Outcome::FailedOpen
            )
        }),
    }
}

fn cuts<'t>(text: &'t str, dice: &mut Dice, sizes: &[usize]) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut rest = text;
    let most = *dice.pick(sizes);
    while !rest.is_empty() {
        let chars = 1 + dice.roll(most);
        let at = rest
            .char_indices()
            .nth(chars)
            .map_or(rest.len(), |(at, _)| at);
        let (part, after) = rest.split_at(at);
        parts.push(part);
        rest = after;
    }
    parts
}

/// How long texts and parts are.
struct Sizes {
    pieces: usize,
    parts: &'static [usize],
}

const SHORT: Sizes = Sizes {
    pieces: 20,
    parts: &[1, 4, 12, 60],
};
const LONG: Sizes = Sizes {
    pieces: 2_000,
    parts: &[50, 900, 9_000],
};

fn try_cuts(seed: u64, sizes: &Sizes, policies: usize, texts: usize, ways: usize) {
    let mut dice = Dice(seed);
    let resources = resources();
    for _ in 0..policies {
        let policy = policy(&mut dice);
        let compiled = match Compiled::new(&policy, &resources) {
            Ok(compiled) => Arc::new(compiled),
            Err(problems) => panic!("{policy:?}: {problems:?}"),
        };
        for _ in 0..texts {
            let text = text(&mut dice, sizes.pieces);
            let point = *dice.pick(&[Point::Output, Point::ToolArguments]);
            let whole = come(&compiled, point, &[&text], &mut dice);
            assert!(whole.done);
            if whole.untouched {
                assert_eq!(whole.released, text, "\n{policy:?}");
            }
            for _ in 0..ways {
                let parts = cuts(&text, &mut dice, sizes.parts);
                let came = come(&compiled, point, &parts, &mut dice);
                assert_eq!(came, whole, "\n{policy:?}\n{point:?} {text:?}\n{parts:?}");
            }
        }
    }
}

#[test]
fn any_cut_of_a_text_comes_to_the_same() {
    try_cuts(0x5EED, &SHORT, 20, 6, 3);
}

/// Long enough that what is behind is forgotten on the way.
#[test]
fn any_cut_of_a_long_text_comes_to_the_same() {
    try_cuts(0x10_4E, &LONG, 6, 1, 2);
}

#[test]
#[cfg(not(debug_assertions))]
fn slow_one_hundred_thousand_cuts() {
    try_cuts(0xF00D, &SHORT, 250, 40, 10);
    try_cuts(0xD00F, &LONG, 100, 1, 3);
}

#[test]
fn a_scan_is_a_stream_of_one_push() {
    let mut dice = Dice(7);
    let resources = resources();
    for _ in 0..20 {
        let policy = policy(&mut dice);
        let asks = policy
            .rules
            .iter()
            .any(|rule| matches!(rule.check, Check::Judge { .. } | Check::Injection { .. }));
        if asks {
            continue;
        }
        let compiled = Arc::new(Compiled::new(&policy, &resources).unwrap());
        let text = text(&mut dice, SHORT.pieces);
        let scanned = compiled.scan(Point::Output, &text, &context());
        let came = come(&compiled, Point::Output, &[&text], &mut dice);
        assert_eq!(scanned.text, came.released);
        assert_eq!(scanned.findings.len(), came.findings.len());
    }
}
