//! Dates of birth: a date beside a word that says so. Dates alone are left alone.

use super::{Candidate, Detector, Verdict, View};

pub(super) static DATE_OF_BIRTH: Detector = Detector {
    name: "date_of_birth",
    label: "DATE_OF_BIRTH",
    view: View::Digits,
    patterns: &[
        // Numerals above nine keep their 十 in the view of digits.
        r"(?:西暦)?[0-9]{4} ?[-/.年‐-―−] ?[0-9十]{1,3} ?[-/.月‐-―−] ?[0-9十]{1,3}(?: ?日)?(?:に?生まれ|うまれ|生)?",
        r"(?:明治|大正|昭和|平成|令和|[MTSHRmtshr]\.?) ?[0-9十元]{1,3} ?[-/.年] ?[0-9十]{1,3} ?[-/.月] ?[0-9十]{1,3}(?: ?日)?(?:に?生まれ|うまれ|生)?",
        r"[0-9]{1,2}[-/. ][0-9]{1,2}[-/. ][0-9]{2,4}",
        r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[A-Za-z]{0,6}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4}",
        r"[0-9]{1,2}(?:st|nd|rd|th)? (?:of )?(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[A-Za-z]{0,6}\.?,? [0-9]{4}",
        r"[0-9]{8}",
    ],
    max_chars: 32,
    at_word: true,
    validate,
};

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    let born_after = ["に生まれ", "生まれ", "うまれ", "生"]
        .iter()
        .find(|word| found.text.ends_with(**word))
        .copied();
    let len = found.text.len() - born_after.map_or(0, str::len);
    // 生産, 生成, 生まれる: 生 alone counts only before an end.
    let is_born = match born_after {
        Some("生") => !found
            .after
            .is_some_and(|c| super::text::is_han(c) || super::text::is_hiragana(c)),
        Some(_) => true,
        None => false,
    };
    let tail = found.tail();
    let labelled = tail.has(
        22,
        &[
            "生年月日",
            "誕生日",
            "生まれは",
            "出生日",
            "date of birth",
            "birth date",
            "birthdate",
            "birthday",
            "born on",
            "born:",
            "was born",
            "dob",
            "d.o.b",
            "born in",
        ],
    );
    let not_a_number = found
        .previous()
        .is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '/' | '.'));
    if not_a_number || found.after.is_some_and(|c| c.is_ascii_digit()) || !(is_born || labelled) {
        return None;
    }
    is_date(&found.text[..len]).then_some(found.part(len, if labelled { 0.95 } else { 0.85 })?)
}

/// Whether the numbers can be a date: one of them a day, one a month or its name there.
fn is_date(text: &str) -> bool {
    let numbers: Vec<u32> = numbers(text);
    match numbers[..] {
        [whole] if whole >= 10_000_000 => {
            is_date_of(whole / 10_000, whole / 100 % 100, whole % 100)
        }
        [day, year] => (1..=31).contains(&day) && (1900..2100).contains(&year),
        [year, month, day] if text.contains('年') || year > 31 => is_date_of(year, month, day),
        [first, month, day] if month <= 12 && text.starts_with(|c: char| !c.is_ascii_digit()) => {
            is_date_of(1900 + first, month, day)
        }
        [first, second, year] => {
            is_date_of(year.max(1900), first, second) || is_date_of(year.max(1900), second, first)
        }
        _ => false,
    }
}

fn is_date_of(year: u32, month: u32, day: u32) -> bool {
    let possible = year < 150 || (1868..2100).contains(&year);
    possible && (1..=12).contains(&month) && (1..=31).contains(&day)
}

/// The numbers in a text, with 十 and 元 read.
fn numbers(text: &str) -> Vec<u32> {
    let is_part = |c: char| c.is_ascii_digit() || c == '十' || c == '元';
    text.split(|c| !is_part(c))
        .filter(|run| !run.is_empty())
        .map(number)
        .collect()
}

fn number(run: &str) -> u32 {
    if run == "元" {
        return 1;
    }
    match run.split_once('十') {
        Some((tens, ones)) => {
            tens.parse().unwrap_or(1_u32).min(99) * 10 + ones.parse().unwrap_or(0_u32).min(9)
        }
        None => run.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::DATE_OF_BIRTH;

    #[test]
    fn dates() {
        for marked in [
            "生年月日：⟦1985年4月1日⟧",
            "生年月日 ⟦昭和６０年４月１日⟧",
            "生年月日は⟦昭和六十年十二月三十一日⟧です",
            "⟦平成元年5月3日⟧生まれの男性",
            "誕生日は⟦1985/04/01⟧",
            "生年月日 ⟦S60.4.1⟧",
            "DOB: ⟦04/01/1985⟧",
            "born on ⟦April 1, 1985⟧ in Kobe",
            "Date of birth: ⟦1 Apr 1985⟧",
            "birthdate=⟦1985-04-01⟧",
            "生年月日:⟦19850401⟧",
            "2024-05-06 12:00, 4/1/2024, April 1, 2024",
            "1985年4月1日生産開始",
            "発売日は1985年4月1日",
            "dob: 99/99/1999",
        ] {
            check(&DATE_OF_BIRTH, marked);
        }
    }
}
