//! For tests: how often the detectors are right, on lines written by hand and on numbers that
//! are made by the rules of those who issue them. Prints the table that stands in
//! `docs/guardrails.md` (`cargo test -p guard measure -- --nocapture`).

use std::collections::BTreeMap;
use std::ops::Range;

use super::check::find;
use super::{Detector, PII, SECRETS};

/// Lines in which nothing is to be found.
const BENIGN: &str = include_str!("../../tests/data/benign.txt");
/// Lines with what is to be found in them.
const MARKED: &str = include_str!("../../tests/data/marked.txt");

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn everything() -> impl Iterator<Item = &'static Detector> {
    PII.iter().chain(SECRETS).copied()
}

/// A line without its marks, and what was marked.
fn unmark(line: &str) -> (String, Vec<(String, Range<usize>)>) {
    let (mut text, mut marks, mut rest) = (String::new(), Vec::new(), line);
    while let Some((before, after)) = rest.split_once('⟦') {
        let (mark, after) = after.split_once('⟧').unwrap();
        let (kind, value) = mark.split_once('|').unwrap();
        text.push_str(before);
        let start = text.len();
        text.push_str(value);
        marks.push((kind.to_owned(), start..text.len()));
        rest = after;
    }
    text.push_str(rest);
    (text, marks)
}

#[derive(Default)]
struct Count {
    right: usize,
    missed: usize,
    wrong: usize,
}

#[test]
fn lines_with_nothing_in_them() {
    let mut hits = Vec::new();
    let all: Vec<&str> = lines(BENIGN).collect();
    for line in &all {
        for detector in everything() {
            for span in find(detector, line) {
                hits.push(format!("{}: {} in {line}", detector.name, &line[span]));
            }
        }
    }
    println!(
        "{} of {} benign lines:\n{}",
        hits.len(),
        all.len(),
        hits.join("\n")
    );
    assert!(all.len() >= 200);
    assert!(hits.len() * 100 <= all.len(), "{} hits", hits.len());
}

#[test]
fn lines_with_something_in_them() {
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for line in lines(MARKED) {
        let (text, marks) = unmark(line);
        for detector in everything() {
            let count = counts.entry(detector.name).or_default();
            let mut wanted: Vec<Range<usize>> = marks
                .iter()
                .filter(|(kind, _)| kind == detector.name)
                .map(|(_, span)| span.clone())
                .collect();
            for span in find(detector, &text) {
                match wanted.iter().position(|mark| *mark == span) {
                    Some(at) => {
                        wanted.remove(at);
                        count.right += 1;
                    }
                    // An address has its postal code in it, and the engine gives the longer find.
                    None if detector.label == "POSTAL_CODE"
                        && marks.iter().any(|(kind, mark)| {
                            kind.ends_with("_address")
                                && mark.start < span.start
                                && span.end <= mark.end
                        }) => {}
                    None => {
                        println!("wrong {}: {} in {text}", detector.name, &text[span]);
                        count.wrong += 1;
                    }
                }
            }
            for span in wanted {
                println!("missed {}: {} in {text}", detector.name, &text[span]);
                count.missed += 1;
            }
        }
    }
    println!("| detector | found exactly | missed | wrong |\n|---|---|---|---|");
    let (mut right, mut missed, mut wrong) = (0, 0, 0);
    for (name, count) in counts {
        println!(
            "| {name} | {} | {} | {} |",
            count.right, count.missed, count.wrong
        );
        right += count.right;
        missed += count.missed;
        wrong += count.wrong;
    }
    println!("| all | {right} | {missed} | {wrong} |");
    assert!(right >= 110, "{right}");
    assert!(
        missed * 20 <= right,
        "recall: {missed} missed, {right} found"
    );
    assert!(
        wrong * 20 <= right,
        "precision: {wrong} wrong, {right} found"
    );
}

/// A sequence of numbers that is the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn digits(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.below(10) as u32).collect()
    }

    fn signs(&mut self, alphabet: &str, count: usize) -> String {
        let signs: Vec<char> = alphabet.chars().collect();
        (0..count)
            .map(|_| signs[self.below(signs.len() as u64) as usize])
            .collect()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn text_of(number: &[u32]) -> String {
    number.iter().map(u32::to_string).collect()
}

fn grouped(number: &str, sizes: &[usize], mark: &str) -> String {
    let (mut groups, mut at) = (Vec::new(), 0);
    for size in sizes {
        groups.push(&number[at..at + size]);
        at += size;
    }
    groups.join(mark)
}

/// The digit that makes a weighted sum come out, found by trying: another way to the same digit
/// than the detectors'.
fn with_check(mut number: Vec<u32>, at: usize, holds: impl Fn(&[u32]) -> bool) -> Vec<u32> {
    number.insert(at, 0);
    for digit in 0..10 {
        number[at] = digit;
        if holds(&number) {
            return number;
        }
    }
    panic!("no digit fits {number:?}")
}

fn weighted(number: &[u32], weights: &[u32]) -> u32 {
    number
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum()
}

/// ISO 7064-like: the sum with the check digit is a multiple of eleven, where 10 is written 0.
fn is_my_number(number: &[u32]) -> bool {
    let sum = weighted(&number[..11], &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]);
    (sum + number[11]).is_multiple_of(11) && number[11] > 1
        || number[11] == 0 && sum % 11 <= 1
        || number[11] == 1 && sum % 11 == 10
}

fn is_company(number: &[u32]) -> bool {
    let sum = weighted(&number[1..], &[2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1]);
    number[0] > 0 && (number[0] + sum).is_multiple_of(9)
}

fn is_card(number: &[u32]) -> bool {
    let double = |digit: u32| if digit < 5 { digit * 2 } else { digit * 2 - 9 };
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 1 { double(*digit) } else { *digit })
        .sum();
    sum.is_multiple_of(10)
}

fn is_licence(number: &[u32]) -> bool {
    let sum = weighted(&number[..10], &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]);
    number[10] == [1, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][sum as usize % 11]
}

/// A British IBAN: the check digits by trying all of them.
fn iban(numbers: &mut Numbers) -> String {
    let bank = numbers.signs("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 4);
    let account = text_of(&numbers.digits(14));
    let remainder = |check: u32| {
        let spelled: String = format!("{bank}{account}GB{check:02}")
            .chars()
            .map(|c| c.to_digit(36).unwrap().to_string())
            .collect();
        spelled
            .bytes()
            .fold(0, |sum, b| (sum * 10 + u32::from(b - b'0')) % 97)
    };
    let check = (2..=98).find(|check| remainder(*check) == 1).unwrap();
    format!("GB{check:02}{bank}{account}")
}

/// A digit other than the one that stands there.
fn spoiled(number: &[u32], at: usize) -> Vec<u32> {
    let mut number = number.to_vec();
    number[at] = (number[at] + 1) % 10;
    number
}

/// Full-width, kanji or plain digits.
fn in_a_script(number: &str, numbers: &mut Numbers) -> String {
    let script = numbers.one(&["0123456789", "０１２３４５６７８９", "〇一二三四五六七八九"]);
    let digits: Vec<char> = script.chars().collect();
    number
        .chars()
        .map(|c| c.to_digit(10).map_or(c, |digit| digits[digit as usize]))
        .collect()
}

#[test]
fn numbers_that_are_made() {
    let mut numbers = Numbers(20_261_122);
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    const ROUNDS: usize = 200;
    for _ in 0..ROUNDS {
        let (good, bad) = a_round(&mut numbers);
        for (kind, text) in &good {
            let found = find(super::by_name(kind).unwrap(), text);
            counts.entry(kind).or_default().0 += usize::from(found.len() == 1);
        }
        for (kind, text) in &bad {
            let found = find(super::by_name(kind).unwrap(), text);
            assert!(found.is_empty(), "{kind} in {text}");
            counts.entry(kind).or_default().1 += 1;
        }
    }
    println!("| detector | made, found | spoiled, refused |\n|---|---|---|");
    for (kind, (found, refused)) in counts {
        println!("| {kind} | {found} of {ROUNDS} | {refused} of {refused} |");
        assert_eq!(found, ROUNDS, "{kind}");
    }
}

type Made = Vec<(&'static str, String)>;

/// One good example of each kind, and one with a wrong digit where there is one that checks.
fn a_round(numbers: &mut Numbers) -> (Made, Made) {
    let mut good: Made = Vec::new();
    let mut bad: Made = Vec::new();
    let mark = numbers.one(&["", " ", "-"]);

    let mine = with_check(numbers.digits(11), 11, is_my_number);
    let write = |number: &[u32], numbers: &mut Numbers| {
        let text = grouped(&text_of(number), &[4, 4, 4], mark);
        format!("マイナンバーは{}です", in_a_script(&text, numbers))
    };
    good.push(("jp_my_number", write(&mine, numbers)));
    bad.push(("jp_my_number", write(&spoiled(&mine, 11), numbers)));

    let company = with_check(numbers.digits(12), 0, is_company);
    good.push((
        "jp_corporate_number",
        format!("法人番号 {}", in_a_script(&text_of(&company), numbers)),
    ));
    good.push((
        "jp_invoice_number",
        format!("登録番号：T{}", text_of(&company)),
    ));
    bad.push((
        "jp_corporate_number",
        format!("法人番号 {}", text_of(&spoiled(&company, 0))),
    ));
    bad.push((
        "jp_invoice_number",
        format!("登録番号：T{}", text_of(&spoiled(&company, 0))),
    ));

    let office = [vec![4, 3], numbers.digits(8)].concat();
    let licence = with_check(office, 10, |number| {
        number.len() == 11 && is_licence(number)
    });
    good.push((
        "jp_driver_licence",
        format!("免許証番号 {}0", text_of(&licence)),
    ));

    let card = with_check([vec![4], numbers.digits(14)].concat(), 15, is_card);
    good.push((
        "credit_card",
        format!("card {} ok", grouped(&text_of(&card), &[4, 4, 4, 4], mark)),
    ));
    bad.push((
        "credit_card",
        format!(
            "card {} ok",
            grouped(&text_of(&spoiled(&card, 7)), &[4, 4, 4, 4], mark)
        ),
    ));

    let account = iban(numbers);
    let digit = account.find(|c: char| c.is_ascii_digit()).unwrap();
    let wrong = account.replacen(
        &account[digit..=digit],
        if &account[digit..=digit] == "1" {
            "2"
        } else {
            "1"
        },
        1,
    );
    good.push((
        "iban",
        format!(
            "IBAN {}",
            grouped(
                &account,
                &[4, 4, 4, 4, 4, 2],
                if mark == "-" { " " } else { mark }
            )
        ),
    ));
    bad.push(("iban", format!("IBAN {wrong}")));

    let ssn = format!(
        "{:03}-{:02}-{:04}",
        1 + numbers.below(665),
        1 + numbers.below(99),
        1 + numbers.below(9_999)
    );
    bad.push(("us_ssn", format!("SSN 9{}", &ssn[1..])));
    good.push(("us_ssn", format!("SSN {ssn}")));

    let passport = numbers.signs("ABCDEFGHJKLMNPRSTUVWXYZ", 2) + &text_of(&numbers.digits(7));
    bad.push(("jp_passport", format!("品番 {passport}")));
    good.push(("jp_passport", format!("旅券番号：{passport}")));

    let card = format!(
        "{}{}{}",
        numbers.signs("GHJKLMNPRSTUVWXYZ", 2),
        text_of(&numbers.digits(8)),
        numbers.signs("ABCDEFGHJKL", 2)
    );
    good.push(("jp_residence_card", format!("カードは{card}です")));

    let postal = in_a_script(
        &grouped(&text_of(&numbers.digits(7)), &[3, 4], "-"),
        numbers,
    );
    good.push(("jp_postal_code", format!("〒{postal} ")));
    bad.push(("jp_postal_code", format!("{postal} 個")));

    let area = numbers.one(&["03", "06", "045", "0466", "090", "080", "0120"]);
    let rest = match area {
        "03" | "06" | "090" | "080" => grouped(&text_of(&numbers.digits(8)), &[4, 4], "-"),
        "045" => grouped(&text_of(&numbers.digits(7)), &[3, 4], "-"),
        "0466" => grouped(&text_of(&numbers.digits(6)), &[2, 4], "-"),
        _ => grouped(&text_of(&numbers.digits(6)), &[3, 3], "-"),
    };
    good.push((
        "phone",
        format!("番号は{}", in_a_script(&format!("{area}-{rest}"), numbers)),
    ));
    bad.push(("phone", format!("2024-{}", rest)));

    let address = format!(
        "{}.{}.{}.{}",
        1 + numbers.below(126),
        numbers.below(256),
        numbers.below(256),
        numbers.below(256)
    );
    bad.push(("ip_address", format!("version {address}")));
    good.push(("ip_address", format!("from {address} to")));

    let name = numbers.signs("abcdefghijklmnopqrstuvwxyz", 6);
    good.push(("email", format!("<{name}.{name}@{name}.example.jp>")));
    let token = numbers.signs(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        40,
    );
    good.push((
        "github_token",
        format!("x gh{}_{token}", numbers.one(&["p", "o", "s"])),
    ));
    good.push(("openai_key", format!("sk-{token}")));
    good.push(("labelled_secret", format!("client_secret: \"{token}\"")));
    (good, bad)
}

/// Pieces that candidates are made of, in any order.
const PIECES: &[&str] = &[
    "0",
    "1",
    "9",
    "１",
    "〇",
    "三",
    "十",
    "-",
    "ー",
    "−",
    " ",
    "　",
    ".",
    ",",
    ":",
    "/",
    "@",
    "+",
    "(",
    ")",
    "<",
    "\n",
    "\\",
    "山",
    "田",
    "佐藤",
    "太郎",
    "さん",
    "様",
    "東京都",
    "港区",
    "丁目",
    "番",
    "〒",
    "年",
    "月",
    "日",
    "昭和",
    "生",
    "氏名：",
    "a",
    "Z",
    "T",
    "sk-",
    "eyJ",
    "http://",
    "![x](",
    "John",
    " Smith",
    "Dr. ",
    "\u{200b}",
    "\u{301}",
    "ｶﾞ",
    "👩‍👧",
    "é",
    "IBAN ",
    "DE89",
    "password: ",
    "-----BEGIN PRIVATE KEY-----",
    "ignore ",
    "previous instructions",
    "口座番号",
    "ジョン・",
    "ヤマダ ",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// No text makes a detector panic, and what it finds are whole characters of the text.
    #[test]
    fn any_text_is_survived(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        for detector in everything().chain(super::INJECTION.iter().chain(super::TOXICITY).chain(super::REFUSAL).chain(super::LINKS).copied()) {
            for span in find(detector, &text) {
                proptest::prop_assert!(text.get(span).is_some_and(|found| !found.is_empty()));
            }
        }
        super::language::outside(&text, &["en".to_owned()]);
        super::links::host(&text);
    }
}
