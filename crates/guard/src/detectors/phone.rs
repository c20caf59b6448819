//! Telephone numbers: international ones of known countries, and the ways in which Japan, the
//! United States and the United Kingdom write their own.

use super::text::{is_dash, is_other_number, is_word};
use super::{Candidate, Detector, Verdict, View};

pub(super) static PHONE: Detector = Detector {
    name: "phone",
    label: "PHONE",
    view: View::Digits,
    patterns: &[
        r"\+[0-9]{1,4}(?:[-‐-―−ー─ .()]{0,3}[0-9]{1,11}){1,6}",
        r"\(?[0-9]{1,5}(?:[-‐-―−ー─ .()の]{1,2}[0-9]{1,8}){1,4}",
        r"[0-9]{10,11}",
    ],
    max_chars: 40,
    at_word: true,
    validate,
};

/// Words that say that a number is a telephone's.
const LABELS: &[&str] = &[
    "電話",
    "tel",
    "phone",
    "fax",
    "携帯",
    "連絡先",
    "call",
    "mobile",
    "cell",
    "ファックス",
    "ケータイ",
    "スマホ",
    "text me",
    "whatsapp",
    "sms",
    "内線",
];

/// One run of digits in a candidate.
struct Group<'a> {
    digits: &'a str,
    /// What stands between it and the next.
    mark: &'a str,
    end: usize,
}

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    if glued_to_a_number(found) {
        return None;
    }
    let groups = groups_of(found.text);
    let digits: usize = groups.iter().map(|group| group.digits.len()).sum();
    if digits < 8 {
        return None;
    }
    let labelled = found.tail().has(20, LABELS);
    // The longest telling: "03-1234-5678 20" is the number and something else.
    (1..=groups.len()).rev().find_map(|count| {
        let taken = &groups[..count];
        let last = &taken[count - 1];
        let ends_here = match count == groups.len() {
            true => !found.after.is_some_and(|c| is_word(c) || c == '@'),
            false => last.mark.contains([' ', '(']),
        };
        if !ends_here {
            return None;
        }
        let score = match found.text.starts_with('+') {
            true => international(taken),
            false => national(taken, found, labelled),
        }?;
        found.part(last.end, score)
    })
}

/// Whether the candidate goes on from digits before it, as in `2024-03-1234-5678` or `1.234.5`.
fn glued_to_a_number(found: &Candidate<'_>) -> bool {
    let mut before = found.before.chars().rev();
    match before.next() {
        Some(c) if is_word(c) || c == '+' || c == '#' || c == '$' || c == '¥' => true,
        Some(c) if is_dash(c) || matches!(c, '.' | ',' | '/' | ':' | '=') => {
            before.next().is_some_and(|c| c.is_ascii_alphanumeric()) && c != ':' && c != '='
        }
        _ => false,
    }
}

fn groups_of(text: &str) -> Vec<Group<'_>> {
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..]
        .find(|c: char| c.is_ascii_digit())
        .map(|n| at + n)
    {
        let end = text[start..]
            .find(|c: char| !c.is_ascii_digit())
            .map_or(text.len(), |n| start + n);
        let next = text[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(text.len(), |n| end + n);
        groups.push(Group {
            digits: &text[start..end],
            mark: &text[end..next],
            end,
        });
        at = next;
    }
    groups
}

fn national(groups: &[Group<'_>], found: &Candidate<'_>, labelled: bool) -> Option<f32> {
    let sizes: Vec<usize> = groups.iter().map(|group| group.digits.len()).collect();
    let area = groups[0].digits;
    if let [bare] = sizes[..] {
        return undivided(area, bare, found, labelled);
    }
    let inner = &groups[..groups.len() - 1];
    let spaced_only = inner.iter().all(|group| group.mark == " ");
    let domestic = japan(area, &sizes) || (spaced_only && britain(area, &sizes));
    if domestic {
        let score = if spaced_only { 0.8 } else { 0.9 };
        return Some(if labelled { 0.98 } else { score });
    }
    let divided = !spaced_only || labelled;
    let american = match sizes[..] {
        [3, 3, 4] => america(area, groups[1].digits),
        // "1.234.567.8901" is as often a version.
        [1, 3, 3, 4] if groups[0].mark == "." && !labelled => false,
        [1, 3, 3, 4] => area == "1" && america(groups[1].digits, groups[2].digits),
        _ => false,
    };
    (american && divided).then_some(if labelled { 0.98 } else { 0.85 })
}

/// A number without any mark needs a word that says what it is, except for mobile telephones in
/// Japan, whose beginning says it.
fn undivided(digits: &str, size: usize, found: &Candidate<'_>, labelled: bool) -> Option<f32> {
    let mobile = size == 11
        && ["070", "080", "090", "050"]
            .iter()
            .any(|start| digits.starts_with(start))
        && &digits[3..4] != "0";
    if mobile && !is_other_number(found) {
        return Some(if labelled { 0.98 } else { 0.75 });
    }
    let domestic = digits.starts_with('0') && !digits.starts_with("00");
    let american = size == 10 && america(&digits[..3], &digits[3..6]);
    (labelled && (domestic || american)).then_some(0.9)
}

/// Whether a number that is divided like this can be one in Japan. Area codes and exchanges have
/// six digits together; the shape is what sets a number apart from a date.
fn japan(area: &str, sizes: &[usize]) -> bool {
    if !area.starts_with('0') || area.starts_with("00") {
        return false;
    }
    let mobile = ["020", "050", "060", "070", "080", "090"].contains(&area);
    match *sizes {
        [2, 4, 4] | [2, 8] => ["03", "04", "06"].contains(&area),
        [3, 4, 4] | [3, 8] => mobile,
        [3, 3, 4] => !mobile,
        [4, 2, 4] => true,
        [5, 1, 4] => true,
        [4, 3, 3] => ["0120", "0570", "0990", "0180", "0170"].contains(&area),
        [4, 3, 4] => area == "0800",
        _ => false,
    }
}

fn britain(area: &str, sizes: &[usize]) -> bool {
    let starts = |list: &[&str]| list.iter().any(|start| area.starts_with(start));
    match *sizes {
        [3, 4, 4] => starts(&["02"]),
        [4, 3, 4] => starts(&["01", "03", "080"]),
        [5, 6] | [5, 3, 3] => starts(&["01", "07"]),
        _ => false,
    }
}

/// Area code and exchange of the North American plan.
fn america(area: &str, exchange: &str) -> bool {
    let good = |code: &str| {
        let code = code.as_bytes();
        code[0] >= b'2' && !(code[1] == b'1' && code[2] == b'1')
    };
    good(area) && good(exchange)
}

/// Country codes, with the fewest and the most digits that follow.
const COUNTRIES: &[(&str, usize, usize)] = &[
    ("1", 10, 10),
    ("7", 10, 10),
    ("20", 8, 10),
    ("27", 9, 9),
    ("30", 10, 10),
    ("31", 9, 9),
    ("32", 8, 9),
    ("33", 9, 9),
    ("34", 9, 9),
    ("36", 8, 9),
    ("39", 8, 11),
    ("40", 9, 9),
    ("41", 9, 9),
    ("43", 7, 11),
    ("44", 9, 10),
    ("45", 8, 8),
    ("46", 7, 9),
    ("47", 8, 8),
    ("48", 9, 9),
    ("49", 7, 11),
    ("51", 8, 9),
    ("52", 10, 10),
    ("54", 10, 11),
    ("55", 10, 11),
    ("56", 9, 9),
    ("57", 8, 10),
    ("60", 8, 10),
    ("61", 9, 9),
    ("62", 8, 11),
    ("63", 9, 10),
    ("64", 8, 10),
    ("65", 8, 8),
    ("66", 8, 9),
    ("81", 9, 10),
    ("82", 8, 10),
    ("84", 9, 10),
    ("86", 10, 11),
    ("90", 10, 10),
    ("91", 10, 10),
    ("92", 9, 10),
    ("94", 9, 9),
    ("234", 8, 10),
    ("254", 9, 9),
    ("351", 9, 9),
    ("352", 6, 9),
    ("353", 7, 9),
    ("358", 6, 10),
    ("380", 9, 9),
    ("420", 9, 9),
    ("421", 9, 9),
    ("852", 8, 8),
    ("853", 8, 8),
    ("855", 8, 9),
    ("886", 8, 9),
    ("966", 8, 9),
    ("971", 8, 9),
    ("972", 8, 9),
];

fn international(groups: &[Group<'_>]) -> Option<f32> {
    // The zero of "+44 (0)20" is for callers at home.
    let home_zero = |index: usize, group: &Group<'_>| {
        index == 1 && group.digits == "0" && groups[0].mark.contains('(')
    };
    let digits: String = groups
        .iter()
        .enumerate()
        .filter(|(index, group)| !home_zero(*index, group))
        .map(|(_, group)| group.digits)
        .collect();
    let fits = COUNTRIES.iter().any(|(code, fewest, most)| {
        let rest = digits.strip_prefix(code).unwrap_or_default();
        (*fewest..=*most).contains(&rest.len())
            && (!rest.starts_with('0') || *code == "39")
            && (*code != "1" || america(&rest[..3], &rest[3..6]))
    });
    fits.then_some(0.95)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::PHONE;

    #[test]
    fn numbers() {
        for marked in [
            "電話は⟦03-1234-5678⟧です。",
            "⟦090-1234-5678⟧、⟦０８０ー１２３４ー５６７８⟧",
            "〇三の番号: ⟦〇三－一二三四－五六七八⟧",
            "⟦(03)1234-5678⟧ or ⟦03(1234)5678⟧",
            "フリーダイヤル⟦0120-123-456⟧まで",
            "⟦0466-12-3456⟧ / ⟦045-123-4567⟧",
            "携帯 ⟦09012345678⟧",
            "TEL:⟦0312345678⟧",
            "⟦+81 90-1234-5678⟧ and ⟦+81-3-1234-5678⟧",
            "⟦+12125550123⟧; ⟦+1 (212) 555-0123⟧",
            "Call ⟦(212) 555-0123⟧ or ⟦212-555-0123⟧ 24 hours",
            "⟦1-800-555-0199⟧",
            "UK: ⟦020 7946 0958⟧, ⟦07700 900123⟧, ⟦+44 (0)20 7946 0958⟧",
            "⟦03-1234-5678⟧ 20 people",
            "phone ⟦2125550123⟧",
            "注文番号 09012345678",
            "2024-05-06 12:30, 2024-03-1234-5678",
            "0312345678 is a number",
            "version 1.234.567.8901, 10.200.300.4000",
            "price 1,234,5678 and +5 -3 212 555 0123",
            "03-123-5678 and 12-3456-7890",
        ] {
            check(&PHONE, marked);
        }
    }
}
