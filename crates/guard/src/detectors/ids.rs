//! Numbers that a state gives to people and companies: United States and Japan.

use super::text::{digits, is_dash, is_other_number, is_word};
use super::{Candidate, Detector, Verdict, View};

pub(super) static US_SSN: Detector = Detector {
    name: "us_ssn",
    label: "US_SSN",
    view: View::Digits,
    patterns: &[
        r"[0-9]{3}[-‐-―−][0-9]{2}[-‐-―−][0-9]{4}",
        r"[0-9]{3} ?[0-9]{2} ?[0-9]{4}",
    ],
    max_chars: 11,
    at_word: true,
    validate: validate_ssn,
};

pub(super) static JP_MY_NUMBER: Detector = Detector {
    name: "jp_my_number",
    label: "MY_NUMBER",
    view: View::Digits,
    patterns: &[r"[0-9]{4}[-‐-―−ー ]?[0-9]{4}[-‐-―−ー ]?[0-9]{4}"],
    max_chars: 14,
    at_word: true,
    validate: validate_my_number,
};

pub(super) static JP_CORPORATE_NUMBER: Detector = Detector {
    name: "jp_corporate_number",
    label: "CORPORATE_NUMBER",
    view: View::Digits,
    patterns: &[r"[0-9](?:[-‐-―−ー ]?[0-9]{4}){3}"],
    max_chars: 16,
    at_word: true,
    validate: validate_corporate,
};

pub(super) static JP_INVOICE_NUMBER: Detector = Detector {
    name: "jp_invoice_number",
    label: "INVOICE_NUMBER",
    view: View::Digits,
    patterns: &[r"[Tt][-‐-―−ー ]?[0-9](?:[-‐-―−ー ]?[0-9]{4}){3}"],
    max_chars: 18,
    at_word: true,
    validate: validate_invoice,
};

pub(super) static JP_DRIVER_LICENCE: Detector = Detector {
    name: "jp_driver_licence",
    label: "DRIVER_LICENCE",
    view: View::Digits,
    patterns: &[r"[0-9]{4}[-‐-―−ー ]?[0-9]{4}[-‐-―−ー ]?[0-9]{4}"],
    max_chars: 14,
    at_word: true,
    validate: validate_licence,
};

pub(super) static JP_PASSPORT: Detector = Detector {
    name: "jp_passport",
    label: "PASSPORT",
    view: View::Digits,
    patterns: &[r"[A-Za-z]{2} ?[0-9]{7}"],
    max_chars: 10,
    at_word: true,
    validate: validate_passport,
};

pub(super) static JP_RESIDENCE_CARD: Detector = Detector {
    name: "jp_residence_card",
    label: "RESIDENCE_CARD",
    view: View::Digits,
    patterns: &[r"[A-Za-z]{2}[- ]?[0-9]{8}[- ]?[A-Za-z]{2}"],
    max_chars: 14,
    at_word: true,
    validate: validate_residence,
};

/// Whether the candidate is part of something longer.
fn glued(found: &Candidate<'_>) -> bool {
    let joins = |c: char| is_word(c) || is_dash(c) || matches!(c, '.' | '/' | '#');
    let continues = |c: char| is_word(c) || is_dash(c);
    found.previous().is_some_and(joins) || found.after.is_some_and(continues)
}

fn validate_ssn(found: &Candidate<'_>) -> Option<Verdict> {
    let number: String = found.text.chars().filter(char::is_ascii_digit).collect();
    let (area, group, serial) = (&number[..3], &number[3..5], &number[5..]);
    let never =
        ["000", "666"].contains(&area) || area >= "900" || group == "00" || serial == "0000";
    if glued(found) || never {
        return None;
    }
    let labelled = found
        .tail()
        .has(32, &["ssn", "social security", "社会保障"]);
    let divided = found.text.contains(is_dash);
    match (labelled, divided) {
        (true, _) => found.whole(0.98),
        (false, true) if !is_other_number(found) => found.whole(0.8),
        _ => None,
    }
}

fn validate_my_number(found: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(found.text);
    if glued(found) || !my_number_checks(&number) {
        return None;
    }
    let tail = found.tail();
    if tail.has(
        32,
        &[
            "マイナンバー",
            "個人番号",
            "my number",
            "mynumber",
            "my_number",
            "my-number",
        ],
    ) {
        return found.whole(0.99);
    }
    let is_licence = tail.has(20, LICENCE_LABELS);
    // Three groups of a longer row of them: a card, an IBAN.
    let in_row = found
        .before
        .trim_end()
        .ends_with(|c: char| c.is_ascii_digit());
    if in_row || is_licence || is_other_number(found) || is_moment(&number) || !is_varied(&number) {
        return None;
    }
    found.whole(if found.text.len() > 12 { 0.8 } else { 0.6 })
}

/// The check digit of an individual's number (Order of the Ministry of Internal Affairs and
/// Communications No. 85 of 2014, article 5).
fn my_number_checks(number: &[u32]) -> bool {
    let Ok(number) = <[u32; 12]>::try_from(number) else {
        return false;
    };
    let weights = [6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2];
    let sum: u32 = number
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    let check = match sum % 11 {
        0 | 1 => 0,
        rest => 11 - rest,
    };
    number[11] == check
}

/// Whether twelve digits read as a year, month, day, hour and minute.
fn is_moment(number: &[u32]) -> bool {
    let part = |from: usize, to: usize| {
        number[from..to]
            .iter()
            .fold(0, |sum, digit| sum * 10 + digit)
    };
    matches!(part(0, 2), 19 | 20)
        && (1..=12).contains(&part(4, 6))
        && (1..=31).contains(&part(6, 8))
        && part(8, 10) < 24
        && part(10, 12) < 60
}

fn is_varied(number: &[u32]) -> bool {
    number[1..].iter().any(|digit| *digit != number[0])
}

fn validate_corporate(found: &Candidate<'_>) -> Option<Verdict> {
    let labelled = found.tail().has(
        24,
        &[
            "法人番号",
            "会社法人等番号",
            "corporate number",
            "houjin",
            "hojin",
            "corporate_number",
        ],
    );
    let number = digits(found.text);
    if glued(found) || !labelled || !corporate_checks(&number) {
        return None;
    }
    found.whole(0.98)
}

/// The check digit of a corporate number stands first (Order of the Ministry of Finance No. 70
/// of 2014, article 2).
fn corporate_checks(number: &[u32]) -> bool {
    if number.len() != 13 {
        return false;
    }
    let sum: u32 = number[1..]
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| digit * (1 + at as u32 % 2))
        .sum();
    number[0] == 9 - sum % 9
}

fn validate_invoice(found: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(found.text);
    if glued(found) || !corporate_checks(&number) {
        return None;
    }
    let labelled = found
        .tail()
        .has(24, &["登録番号", "インボイス", "適格", "invoice"]);
    found.whole(if labelled { 0.99 } else { 0.9 })
}

const LICENCE_LABELS: &[&str] = &[
    "免許",
    "driver's license",
    "driver license",
    "driving licence",
    "drivers license",
    "licence no",
    "license no",
    "licence number",
    "license number",
    "driver's licence",
];

fn validate_licence(found: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(found.text);
    let office = number[0] * 10 + number[1];
    let known = matches!(
        office,
        10..=14 | 20..=25 | 30 | 40..=55 | 60..=65 | 70..=74 | 80..=83 | 90..=97
    );
    if glued(found) || !known || !found.tail().has(24, LICENCE_LABELS) {
        return None;
    }
    found.whole(if licence_checks(&number) { 0.98 } else { 0.6 })
}

/// The eleventh digit checks the ten before it; the twelfth counts how often the card was lost.
fn licence_checks(number: &[u32]) -> bool {
    let weights = [5, 4, 3, 2, 7, 6, 5, 4, 3, 2];
    let sum: u32 = number
        .iter()
        .zip(weights)
        .map(|(digit, weight)| digit * weight)
        .sum();
    number[10] == (11 - sum % 11) % 10
}

fn validate_passport(found: &Candidate<'_>) -> Option<Verdict> {
    let labelled = found.tail().has(32, &["旅券", "パスポート", "passport"]);
    if glued(found) || !labelled || is_other_number(found) {
        return None;
    }
    found.whole(0.95)
}

fn validate_residence(found: &Candidate<'_>) -> Option<Verdict> {
    if glued(found) {
        return None;
    }
    if found
        .tail()
        .has(32, &["在留", "residence card", "zairyu", "特別永住者"])
    {
        return found.whole(0.98);
    }
    let letters: Vec<char> = found
        .text
        .chars()
        .filter(char::is_ascii_alphabetic)
        .collect();
    let upper = letters.iter().all(char::is_ascii_uppercase);
    let hexadecimal = letters.iter().all(char::is_ascii_hexdigit);
    (upper && !hexadecimal && !is_other_number(found)).then_some(found.whole(0.8)?)
}

#[cfg(test)]
mod tests {
    use super::super::check::{check, find};
    use super::*;

    #[test]
    fn social_security_numbers() {
        for marked in [
            "SSN: ⟦123-45-6789⟧",
            "my number is ⟦219-09-9999⟧.",
            "social security ⟦123 45 6789⟧",
            "000-12-3456 666-12-3456 912-34-5678 123-00-4567 123-45-0000",
            "123456789 and 1-123-45-6789 and 123-45-6789-0",
            "order no. 123-45-6789",
        ] {
            check(&US_SSN, marked);
        }
    }

    #[test]
    fn my_numbers() {
        for marked in [
            "マイナンバーは⟦123456789018⟧です",
            "個人番号：⟦１２３４ ５６７８ ９０１８⟧",
            "⟦一二三四五六七八九〇一八⟧",
            "⟦1234-5678-9018⟧",
            "マイナンバー 123456789012",
            "注文番号 123456789018, 伝票番号：123456789018",
            "202411220052 1111 1111 1111",
            "1234567890181 x123456789018",
        ] {
            check(&JP_MY_NUMBER, marked);
        }
    }

    #[test]
    fn companies() {
        for marked in [
            "法人番号 ⟦7000012050002⟧",
            "法人番号 8000012050002",
            "7000012050002",
        ] {
            check(&JP_CORPORATE_NUMBER, marked);
        }
        for marked in [
            "登録番号：⟦T7000012050002⟧",
            "⟦T7-0000-1205-0002⟧",
            "T8000012050002",
            "XT7000012050002",
        ] {
            check(&JP_INVOICE_NUMBER, marked);
        }
    }

    #[test]
    fn papers() {
        check(
            &JP_DRIVER_LICENCE,
            "運転免許証 ⟦309212345610⟧、免許の条件 12",
        );
        check(&JP_DRIVER_LICENCE, "309212345610 免許 999212345610");
        check(&JP_PASSPORT, "パスポート番号は⟦TK1234567⟧、型番AB1234567");
        check(&JP_PASSPORT, "passport no. ⟦tz 1234567⟧");
        check(&JP_PASSPORT, "製品AB1234567");
        check(&JP_RESIDENCE_CARD, "在留カード番号 ⟦AB12345678CD⟧");
        check(
            &JP_RESIDENCE_CARD,
            "⟦XY12345678ZW⟧ ab12345678cd AB12345678CD9",
        );
    }

    /// Every wrong check digit is refused, every right one is found.
    #[test]
    fn check_digits() {
        for seed in 0..2_000_u64 {
            let body = format!("{:011}", (seed * 97_003 + 51_234_567_891) % 100_000_000_000);
            let right =
                (0..10).filter(|check| my_number_checks(&digits(&format!("{body}{check}"))));
            assert_eq!(right.count(), 1, "{body}");
            let body = format!(
                "{:012}",
                (seed * 970_003 + 351_234_567_891) % 1_000_000_000_000
            );
            let right =
                (0..10).filter(|check| corporate_checks(&digits(&format!("{check}{body}"))));
            assert_eq!(right.count(), 1, "{body}");
        }
        for wrong in (0..10).filter(|digit| *digit != 8) {
            assert!(find(&JP_MY_NUMBER, &format!("マイナンバー 12345678901{wrong}")).is_empty());
        }
    }
}
