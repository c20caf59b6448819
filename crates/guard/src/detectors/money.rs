//! Payment cards, IBANs and Japanese bank accounts.

use super::text::{digits, is_dash, is_other_number, is_word};
use super::{Candidate, Detector, Verdict, View};

pub(super) static CREDIT_CARD: Detector = Detector {
    name: "credit_card",
    label: "CREDIT_CARD",
    view: View::Digits,
    patterns: &[r"[0-9](?:[-‐-―−ー ]?[0-9]){12,18}"],
    max_chars: 40,
    at_word: true,
    validate: validate_card,
};

pub(super) static IBAN: Detector = Detector {
    name: "iban",
    label: "IBAN",
    view: View::Plain,
    patterns: &[r"[a-z]{2}[0-9]{2}(?:[ -]?[a-z0-9]){11,30}"],
    max_chars: 70,
    at_word: true,
    validate: validate_iban,
};

pub(super) static JP_BANK_ACCOUNT: Detector = Detector {
    name: "jp_bank_account",
    label: "BANK_ACCOUNT",
    view: View::Digits,
    patterns: &[
        r"[0-9]{6,8}",
        // Japan Post: a symbol of five digits and a number of up to eight.
        r"[0-9]{5}[-‐-―−ー ]{0,2}(?:番号)?[:： ]{0,2}[0-9]{6,8}",
    ],
    max_chars: 24,
    at_word: true,
    validate: validate_account,
};

fn validate_card(found: &Candidate<'_>) -> Option<Verdict> {
    let mut before = found.before.chars().rev();
    let previous = before.next();
    let glued = previous.is_some_and(|c| is_word(c) || is_dash(c) || c == '.' || c == '/');
    if glued || found.after.is_some_and(|c| is_word(c) || is_dash(c)) {
        return None;
    }
    // A second number may follow after a space, so shorter tellings are tried as well.
    let sizes = group_sizes(found.text);
    (1..=sizes.len()).rev().find_map(|count| {
        let end = sizes[count - 1].1;
        let number = digits(&found.text[..end]);
        let groups: Vec<usize> = sizes[..count].iter().map(|(size, _)| *size).collect();
        let good = brand(&number) && divided_like_a_card(&groups) && luhn(&number);
        let ends_here = count == sizes.len() || found.text[end..].starts_with(' ');
        let labelled = found.tail().has(
            24,
            &[
                "card",
                "カード",
                "visa",
                "master",
                "amex",
                "jcb",
                "credit",
                "クレジット",
            ],
        );
        if !good || !ends_here || (!labelled && is_other_number(found)) {
            return None;
        }
        let score = match (labelled, count > 1) {
            (true, _) => 0.99,
            (false, true) => 0.95,
            (false, false) => 0.8,
        };
        found.part(end, score)
    })
}

/// The runs of digits: how many, and where each ends.
fn group_sizes(text: &str) -> Vec<(usize, usize)> {
    let mut sizes = Vec::new();
    let mut size = 0;
    for (at, c) in text.char_indices() {
        if c.is_ascii_digit() {
            size += 1;
        } else if size > 0 {
            sizes.push((size, at));
            size = 0;
        }
    }
    if size > 0 {
        sizes.push((size, text.len()));
    }
    sizes
}

fn divided_like_a_card(groups: &[usize]) -> bool {
    matches!(
        groups,
        [13..=19]
            | [4, 4, 4, 4]
            | [4, 6, 5]
            | [4, 6, 4]
            | [4, 4, 4, 4, 1..=3]
            | [6, 13]
            | [4, 5, 6]
    )
}

/// Whether a network issues cards with this beginning and length. Thirteen digits are left out:
/// no card has them any more, and barcodes do.
fn brand(number: &[u32]) -> bool {
    let start = |count: usize| {
        number
            .iter()
            .take(count)
            .fold(0, |sum, digit| sum * 10 + digit)
    };
    let size = number.len();
    match (start(1), start(2), start(3), start(4)) {
        (4, ..) => size == 16 || size == 19,
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => size == 16,
        (_, 34 | 37, ..) => size == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => size == 14,
        (_, _, _, 3528..=3589) => (16..=19).contains(&size),
        (_, 62 | 65, ..) | (_, _, 644..=649, _) | (_, _, _, 6011) => (16..=19).contains(&size),
        _ => false,
    }
}

fn luhn(number: &[u32]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => digit * 2 - if *digit > 4 { 9 } else { 0 },
        })
        .sum();
    let varied = number.iter().any(|digit| *digit != number[0]);
    sum.is_multiple_of(10) && varied
}

/// Countries in the registry of IBANs, with the length of theirs.
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("ad", 24),
    ("ae", 23),
    ("al", 28),
    ("at", 20),
    ("az", 28),
    ("ba", 20),
    ("be", 16),
    ("bg", 22),
    ("bh", 22),
    ("br", 29),
    ("by", 28),
    ("ch", 21),
    ("cr", 22),
    ("cy", 28),
    ("cz", 24),
    ("de", 22),
    ("dk", 18),
    ("do", 28),
    ("ee", 20),
    ("eg", 29),
    ("es", 24),
    ("fi", 18),
    ("fo", 18),
    ("fr", 27),
    ("gb", 22),
    ("ge", 22),
    ("gi", 23),
    ("gl", 18),
    ("gr", 27),
    ("gt", 28),
    ("hr", 21),
    ("hu", 28),
    ("ie", 22),
    ("il", 23),
    ("iq", 23),
    ("is", 26),
    ("it", 27),
    ("jo", 30),
    ("kw", 30),
    ("kz", 20),
    ("lb", 28),
    ("lc", 32),
    ("li", 21),
    ("lt", 20),
    ("lu", 20),
    ("lv", 21),
    ("ly", 25),
    ("mc", 27),
    ("md", 24),
    ("me", 22),
    ("mk", 19),
    ("mr", 27),
    ("mt", 31),
    ("mu", 30),
    ("nl", 18),
    ("no", 15),
    ("pk", 24),
    ("pl", 28),
    ("ps", 29),
    ("pt", 25),
    ("qa", 29),
    ("ro", 24),
    ("rs", 22),
    ("sa", 24),
    ("sc", 31),
    ("sd", 18),
    ("se", 24),
    ("si", 19),
    ("sk", 24),
    ("sm", 27),
    ("st", 25),
    ("sv", 28),
    ("tl", 23),
    ("tn", 24),
    ("tr", 26),
    ("ua", 29),
    ("va", 22),
    ("vg", 24),
    ("xk", 20),
];

fn validate_iban(found: &Candidate<'_>) -> Option<Verdict> {
    if found.previous().is_some_and(is_word) {
        return None;
    }
    let country = found.text.get(..2)?;
    let (_, length) = IBAN_LENGTHS.iter().find(|(code, _)| *code == country)?;
    let mut signs = found
        .text
        .char_indices()
        .filter(|(_, c)| c.is_ascii_alphanumeric());
    let (last, _) = signs.nth(length - 1)?;
    let number = &found.text[..=last];
    if found.next(last + 1).is_some_and(is_word) || !mod_97(number) {
        return None;
    }
    found.part(last + 1, 0.99)
}

/// ISO 13616: with the first four signs at the end and letters as numbers, one modulo 97.
fn mod_97(number: &str) -> bool {
    let signs: Vec<u32> = number.chars().filter_map(|c| c.to_digit(36)).collect();
    let (head, rest) = signs.split_at(4);
    let remainder = rest.iter().chain(head).fold(0, |sum, sign| match sign {
        0..=9 => (sum * 10 + sign) % 97,
        _ => (sum * 100 + sign) % 97,
    });
    remainder == 1
}

fn validate_account(found: &Candidate<'_>) -> Option<Verdict> {
    if found.previous().is_some_and(|c| is_word(c) || is_dash(c)) {
        return None;
    }
    if found
        .after
        .is_some_and(|c| is_word(c) || is_dash(c) || c == '円' || c == '.')
    {
        return None;
    }
    let tail = found.tail();
    let post = found.text.chars().filter(char::is_ascii_digit).count() > 8;
    if post {
        return tail
            .has(12, &["記号", "ゆうちょ"])
            .then_some(found.whole(0.9)?);
    }
    let labelled = tail.label_ends(&[
        "口座番号",
        "口座番号は",
        "普通",
        "普通預金",
        "普通口座",
        "普通預金口座",
        "当座",
        "当座預金",
        "貯蓄",
        "貯蓄預金",
        "口座",
        "口座no",
        "口座no.",
        "口座は",
        "account number",
        "account no",
        "account no.",
        "account #",
        "預金",
    ]);
    let bank = tail.has(
        48,
        &[
            "銀行",
            "支店",
            "信用金庫",
            "信金",
            "口座",
            "bank",
            "農協",
            "ゆうちょ",
        ],
    );
    let sized = found.text.len() == 7 || bank;
    (labelled && sized).then_some(found.whole(if bank { 0.95 } else { 0.85 })?)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn cards() {
        for marked in [
            "card ⟦4111 1111 1111 1111⟧ exp 12/27",
            "⟦4111-1111-1111-1111⟧",
            "⟦378282246310005⟧ or ⟦3782 822463 10005⟧",
            "カード番号：⟦５５５５５５５５５５５５４４４４⟧",
            "JCB ⟦3530111333300000⟧。",
            "⟦4111 1111 1111 1111⟧ 123",
            "4111 1111 1111 1112",
            "order 4111111111111111",
            "1700000000000000 1234567890123456",
            "4111111111111",
            "4444444444444444",
            "0.4111111111111111",
        ] {
            check(&CREDIT_CARD, marked);
        }
    }

    #[test]
    fn ibans() {
        for marked in [
            "IBAN: ⟦GB82 WEST 1234 5698 7654 32⟧ and more",
            "⟦DE89370400440532013000⟧.",
            "⟦fr14 2004 1010 0505 0001 3m02 606⟧",
            "DE89370400440532013001",
            "XX82 WEST 1234 5698 7654 32",
            "de12 is not one, nor is gb99abcdefghijklmnopqr",
        ] {
            check(&IBAN, marked);
        }
    }

    #[test]
    fn accounts() {
        for marked in [
            "みずほ銀行 渋谷支店 普通 ⟦1234567⟧ ヤマダタロウ",
            "口座番号：⟦１２３４５６７⟧",
            "当座預金 ⟦7654321⟧へ",
            "ゆうちょ銀行 記号⟦12345 番号1234567⟧",
            "普通は1234567円です",
            "売上は 1234567 件、部品 1234567",
        ] {
            check(&JP_BANK_ACCOUNT, marked);
        }
    }
}
