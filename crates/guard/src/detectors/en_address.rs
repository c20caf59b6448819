//! Addresses and postal codes as English-speaking countries write them: the United States, the
//! United Kingdom, Canada, Australia. A city or a state alone is no personal data and is left
//! alone.
//!
//! A number, a name and a kind of street stand in harmless prose too ("top 5 Wall Street banks"),
//! so what is between must read like a name, and what follows must not go on as a phrase would.

use super::{Candidate, Detector, Verdict, View};

/// What streets are called, for a pattern.
macro_rules! kinds {
    () => {
        "(?:[Ss]treet|STREET|[Ss]t|ST|[Aa]venue|AVENUE|[Aa]ve|AVE|[Rr]oad|ROAD|[Rr]d|RD|[Bb]oulevard|BOULEVARD|[Bb]lvd|BLVD|\
         [Ll]ane|LANE|[Ll]n|LN|[Dd]rive|DRIVE|[Dd]r|DR|[Cc]ourt|COURT|[Cc]t|CT|[Tt]errace|TERRACE|[Cc]rescent|CRESCENT|\
         [Pp]arkway|PARKWAY|[Pp]kwy|PKWY|[Hh]ighway|HIGHWAY|[Hh]wy|HWY|[Cc]ircle|CIRCLE|[Tt]rail|[Tt]urnpike|[Mm]ews|\
         [Pp]lace|PLACE|[Pp]l|[Ss]quare|SQUARE|[Ss]q|[Ww]ay|WAY|[Cc]lose|[Gg]rove|[Gg]ardens|[Rr]ow|[Ww]alk|[Hh]ill|[Ww]harf|\
         [Bb]roadway|BROADWAY)"
    };
}

/// What may come behind the kind of street: parts of the same line or the next.
macro_rules! rest {
    () => {
        r"(?:\.?[ ,#\n-]{1,3}[A-Za-z0-9'’.]{1,16}){0,9}"
    };
}

pub(super) static STREET_ADDRESS: Detector = Detector {
    name: "street_address",
    label: "ADDRESS",
    view: View::Digits,
    patterns: &[
        concat!(
            r"[0-9]{1,5}[A-Za-z]?(?:[-/][0-9]{1,4})?,? (?:[A-Z0-9][A-Za-z0-9'’.-]{0,18} ){0,4}",
            kinds!(),
            rest!()
        ),
        // In small letters two words at most, and no number of one digit: less is held back from
        // a stream behind each number.
        concat!(
            r"[0-9]{2,5}[a-z]? (?:[nsew]{1,2}\.? )?(?:[a-z'’]{1,18} ){1,2}",
            kinds!(),
            rest!()
        ),
        concat!(r"[Pp]\.?[Oo]\.? ?[Bb][Oo][Xx] #?[0-9]{1,6}", rest!()),
    ],
    max_chars: 96,
    at_word: true,
    validate: validate_address,
};

pub(super) static POSTAL_CODE: Detector = Detector {
    name: "postal_code",
    label: "POSTAL_CODE",
    view: View::Digits,
    patterns: &[
        r"[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}",
        r"[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9]",
        r"[A-Z]{2,3} [0-9]{4,5}(?:-[0-9]{4})?",
        r"[0-9]{5}(?:-[0-9]{4})?",
    ],
    max_chars: 16,
    at_word: true,
    validate: validate_code,
};

/// Kinds of street that are one of little else: they need nothing behind them.
const CERTAIN: &[&str] = &[
    "street",
    "avenue",
    "ave",
    "road",
    "rd",
    "boulevard",
    "blvd",
    "lane",
    "ln",
    "drive",
    "terrace",
    "crescent",
    "parkway",
    "pkwy",
    "mews",
    "st",
];
/// Kinds that are also words or titles: something of an address must follow.
const DOUBTFUL: &[&str] = &[
    "dr", "court", "ct", "highway", "hwy", "circle", "trail", "turnpike", "place", "pl", "square",
    "sq", "way", "close", "grove", "gardens", "row", "walk", "hill", "wharf", "broadway",
];
/// What a sentence goes on with behind an address.
const GOES_ON: &[&str] = &[
    "is", "was", "are", "and", "or", "in", "at", "on", "near", "by", "to", "for", "with", "from",
    "if", "but", "since", "where", "which", "when", "please", "today", "tomorrow", "tonight",
    "between", "before", "after", "until", "as", "because", "so", "has", "will", "this", "next",
    "every", "around", "again", "then", "last", "also", "he", "she", "we", "they", "i", "my",
];
const LABELS: &[&str] = &[
    "address",
    "address is",
    "live at",
    "lives at",
    "living at",
    "lived at",
    "reside at",
    "resides at",
    "residing at",
    "deliver to",
    "delivered to",
    "ship to",
    "send it to",
    "mail to",
    "located at",
    "home is",
    "moved to",
    "shipping",
    "billing",
    "residence",
    "street",
];
/// Words before a number that counts something.
const COUNTED: &[&str] = &[
    "the", "top", "all", "these", "those", "about", "only", "over", "of",
];
const UNITS: &[&str] = &[
    "apt",
    "apartment",
    "suite",
    "ste",
    "unit",
    "floor",
    "fl",
    "room",
    "rm",
    "flat",
    "box",
    "no",
];
const DIRECTIONS: &[&str] = &[
    "n", "s", "e", "w", "ne", "nw", "se", "sw", "north", "south", "east", "west",
];
const US_STATES: &str = "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM \
NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY PR";
/// States whose codes are words as well.
const STATES_THAT_ARE_WORDS: &str = "IN OR OK ME HI OH PA MA ID";
const AU_STATES: &str = "NSW VIC QLD WA SA TAS ACT NT";
const CA_PROVINCES: &str = "AB BC MB NB NL NS NT NU ON PE QC SK YT";
/// The areas of British postcodes (Royal Mail's 124).
const UK_AREAS: &str = "AB AL B BA BB BD BH BL BN BR BS BT CA CB CF CH CM CO CR CT CV CW DA DD DE DG DH DL DN DT DY E EC EH \
EN EX FK FY G GL GU GY HA HD HG HP HR HS HU HX IG IM IP IV JE KA KT KW KY L LA LD LE LL LN LS LU M ME MK ML N NE NG NN NP NR \
NW OL OX PA PE PH PL PO PR RG RH RM S SA SE SG SK SL SM SN SO SP SR SS ST SW SY TA TD TF TN TQ TR TS TW UB W WA WC WD WF WN WR \
WS WV YO ZE";

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|entry| entry == word)
}

/// A run of letters and digits of a candidate.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

impl Word<'_> {
    fn is(&self, list: &[&str]) -> bool {
        let small = self.text.to_ascii_lowercase();
        list.contains(&small.as_str())
    }

    fn is_capital(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_uppercase())
    }

    fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }
}

fn words(text: &str) -> Vec<Word<'_>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '\'' | '’');
    let mut all = Vec::new();
    let mut rest = 0;
    while let Some(found) = text[rest..].find(is_part) {
        let start = rest + found;
        let end = text[start..]
            .find(|c: char| !is_part(c))
            .map_or(text.len(), |length| start + length);
        all.push(Word {
            text: &text[start..end],
            start,
            end,
        });
        rest = end;
    }
    all
}

fn validate_address(found: &Candidate<'_>) -> Option<Verdict> {
    let words = words(found.text);
    let labelled = found.tail().label_ends(LABELS);
    let is_box = !words.first()?.is_number();
    let street = match is_box {
        true => words.iter().position(Word::is_number)?,
        false => street_of(&words)?,
    };
    let (end, has_place) = place_behind(found.text, &words, street);
    // The last word of a candidate that was cut may be half of one.
    let next = words
        .get(street + 1)
        .filter(|word| word.start < found.text.len());
    let goes_on = || {
        let Some(next) = next else {
            return found.after.is_none_or(|c| !c.is_alphanumeric());
        };
        let between = &found.text[words[street].end..next.start];
        !matches!(between, " " | " \n") || next.is(GOES_ON) || next.is_number()
    };
    let counted = found.tail().label_ends(COUNTED);
    let certain = is_box || words[street].is(CERTAIN) && !counted;
    let is_small = !is_box && !words[1].is_capital() && !words[1].is_number();
    match (has_place, labelled) {
        (true, _) => found.part(end, 0.97),
        (false, true) => found.part(end, 0.93),
        (false, false) if certain && !is_small && goes_on() => found.part(end, 0.85),
        _ => None,
    }
}

/// Which word is the kind of street: the first one with a name before it.
fn street_of(words: &[Word<'_>]) -> Option<usize> {
    let first = words
        .iter()
        .position(|word| !word.is_number() && word.text.len() > 1)?
        .min(1);
    let at = (first..words.len().min(7)).find(|&at| {
        let word = &words[at];
        let is_kind = word.is(CERTAIN) || word.is(DOUBTFUL);
        // "12 St James Road": a saint, no street.
        let has_name = at > 1 && !words[1..at].iter().all(|word| word.is(DIRECTIONS));
        is_kind && (has_name || word.is(&["broadway"]))
    })?;
    let name = &words[1..at];
    let in_small = name.iter().all(|word| !word.is_capital());
    let is_name = |word: &Word<'_>| word.is_capital() || word.is_number();
    (in_small && name.len() <= 3 || name.iter().all(is_name)).then_some(at)
}

/// Where the address ends, and whether what follows the street says that it is one: a unit, a
/// state or a postal code.
fn place_behind(text: &str, words: &[Word<'_>], street: usize) -> (usize, bool) {
    let mut end = words[street].end;
    if text[end..].starts_with('.') && !words[street].is(&["street", "road", "avenue", "lane"]) {
        end += 1;
    }
    let (mut has_place, mut at) = (false, street + 1);
    if let Some(word) = words
        .get(at)
        .filter(|word| word.is(DIRECTIONS) && word.is_capital())
    {
        (end, at) = (word.end, at + 1);
    }
    if let Some(unit) = unit_at(text, words, at) {
        (end, at, has_place) = (words[unit].end, unit + 1, true);
    }
    // Up to four words of a city before the state or the code.
    for code in at..words.len().min(at + 5) {
        let cities = &words[at..code];
        if !cities.iter().all(Word::is_capital) {
            break;
        }
        if let Some(last) = code_at(words, code) {
            return (words[last].end, true);
        }
    }
    (end, has_place)
}

/// The last word of "Apt 4B" or "#12" that begins with a word.
fn unit_at(text: &str, words: &[Word<'_>], at: usize) -> Option<usize> {
    let word = words.get(at)?;
    let named = word.is(UNITS)
        && words
            .get(at + 1)
            .is_some_and(|next| next.is_number() || next.text.len() == 1);
    let numbered = word.is_number() && text[..word.start].ends_with('#');
    match (named, numbered) {
        (true, _) => Some(at + 1),
        (false, true) => Some(at),
        _ => None,
    }
}

/// The last word of a state, or of a postal code with or without a state before it.
fn code_at(words: &[Word<'_>], at: usize) -> Option<usize> {
    let word = words.get(at)?.text;
    let next = words.get(at + 1).map_or("", |word| word.text);
    let after = words.get(at + 2).map_or("", |word| word.text);
    let is_state = is_one_of(US_STATES, word) || is_one_of(AU_STATES, word);
    let is_digits =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if is_one_of(US_STATES, word) && is_digits(next, 5) {
        return Some(if is_digits(after, 4) { at + 2 } else { at + 1 });
    }
    if is_one_of(AU_STATES, word) && is_digits(next, 4) {
        return Some(at + 1);
    }
    if is_one_of(CA_PROVINCES, word) && is_canadian(&format!("{next}{after}")) {
        return Some(at + 2);
    }
    if is_british(&format!("{word}{next}")) || is_canadian(&format!("{word}{next}")) {
        return Some(at + 1);
    }
    (is_state && !is_one_of(STATES_THAT_ARE_WORDS, word)).then_some(at)
}

fn validate_code(found: &Candidate<'_>) -> Option<Verdict> {
    if found
        .next(found.text.len())
        .is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_')
    {
        return None;
    }
    if found
        .previous()
        .is_some_and(|c| matches!(c, '-' | '_' | '.' | '/' | '#' | '$'))
    {
        return None;
    }
    let labels = [
        "zip",
        "zip code",
        "zipcode",
        "zip is",
        "zip code is",
        "postal code",
        "postal code is",
        "post code",
        "postcode",
        "postcode is",
    ];
    let labelled = found.tail().label_ends(&labels);
    let joined: String = found
        .text
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let (first, rest) = found.text.split_once(' ').unwrap_or((found.text, ""));
    if found.text.starts_with(|c: char| c.is_ascii_digit()) {
        return labelled.then_some(Verdict {
            score: 0.95,
            len: found.text.len(),
        });
    }
    if rest.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(|b| b.is_ascii_uppercase())
    {
        return state_and_code(found, first, rest, labelled);
    }
    let spaced = found.text.contains([' ', '-']);
    // "M1 2TB" is a computer.
    let is_size = joined.ends_with("TB") || joined.ends_with("GB") || joined.ends_with("MB");
    let stands_alone =
        found.before.trim_end_matches(' ').is_empty() || found.before.ends_with('\n');
    match labelled || spaced && !is_size && (stands_alone || follows_city(found)) {
        true if is_british(&joined) || is_canadian(&joined) => {
            found.whole(if labelled { 0.97 } else { 0.85 })
        }
        _ => None,
    }
}

/// "CA 94103", "NSW 2000": the state says what the number is, unless it is a word too.
fn state_and_code(
    found: &Candidate<'_>,
    state: &str,
    code: &str,
    labelled: bool,
) -> Option<Verdict> {
    let digits = code.find('-').unwrap_or(code.len());
    let is_known = match digits {
        5 => is_one_of(US_STATES, state),
        4 => is_one_of(AU_STATES, state) && !code.contains('-'),
        _ => false,
    };
    let city = follows_city(found);
    let surer = labelled || city && found.before.trim_end().ends_with(',');
    let is_word = is_one_of(STATES_THAT_ARE_WORDS, state);
    (is_known && (surer || city && !is_word)).then_some(Verdict {
        score: if surer { 0.95 } else { 0.75 },
        len: found.text.len(),
    })
}

/// Whether the word before begins with a capital, as cities do.
fn follows_city(found: &Candidate<'_>) -> bool {
    let before = found.before.trim_end().trim_end_matches(',');
    let word = before.rsplit(|c: char| !c.is_alphanumeric()).next();
    word.is_some_and(|word| word.starts_with(char::is_uppercase))
}

/// A British postcode without its space: area, district, then a digit and two letters that are
/// none of those left out for being misread.
fn is_british(code: &str) -> bool {
    let Some(inward) = code
        .len()
        .checked_sub(3)
        .filter(|_| code.is_ascii() && code.len() >= 5)
    else {
        return false;
    };
    let (outward, inward) = code.split_at(inward);
    let area_len = outward.bytes().take_while(u8::is_ascii_uppercase).count();
    let (area, district) = outward.split_at(area_len);
    let mut inward = inward.bytes();
    inward.next().is_some_and(|b| b.is_ascii_digit())
        && inward.all(|b| b.is_ascii_uppercase() && !b"CIKMOV".contains(&b))
        && matches!(district.len(), 1..=2)
        && district.starts_with(|c: char| c.is_ascii_digit())
        && district
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && is_one_of(UK_AREAS, area)
}

/// A Canadian postal code without its space: letter, digit, letter, digit, letter, digit.
fn is_canadian(code: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_uppercase() && !b"DFIOQU".contains(&b);
    code.len() == 6
        && code.bytes().enumerate().all(|(at, b)| match at {
            0 => is_letter(b) && !b"WZ".contains(&b),
            2 | 4 => is_letter(b),
            _ => b.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn addresses_of_four_countries() {
        for marked in [
            "Ship it to ⟦742 Evergreen Terrace, Springfield, IL 62704⟧.",
            "I live at ⟦221B Baker Street⟧ in London.",
            "⟦10 Downing Street, London SW1A 2AA⟧",
            "Office: ⟦1600 Pennsylvania Ave NW, Washington, DC 20500⟧, second door",
            "⟦350 Fifth Avenue, Apt 4B, New York, NY 10118-0110⟧",
            "my address is ⟦123 main st⟧, springfield",
            "she stays at ⟦45 N. Main St.⟧ and waits",
            "⟦1 Infinite Loop Drive, Cupertino CA 95014⟧",
            "⟦12 St James Road, Leeds LS1 4AB⟧",
            "Write to ⟦P.O. Box 1234, Austin, TX 78701⟧.",
            "⟦24 Sussex Drive, Ottawa, ON K1M 1M4⟧",
            "⟦483 George Street, Sydney NSW 2000⟧",
            "⟦1234 Broadway, New York, NY 10001⟧",
            "⟦77 Massachusetts Avenue⟧\nis where they met",
            "the parcel went to ⟦5 Mill Lane⟧, then back",
            "⟦8 Oak Court, Reading RG1 2AB⟧",
            "Ｓｅｎｄ to ⟦１２ Ｈｉｇｈ Ｓｔｒｅｅｔ⟧.",
        ] {
            check(&STREET_ADDRESS, marked);
        }
    }

    #[test]
    fn streets_that_are_nobodys() {
        for text in [
            "the top 5 Wall Street banks",
            "walk 2 miles down the road",
            "12 people on the street",
            "It took 30 minutes to drive.",
            "We have 2 Main Street stores",
            "a 4 lane highway",
            "Route 66 is a highway",
            "3 Dr Martens boots",
            "the 21st street from here",
            "In 1984 Michael Way won.",
            "Section 12 Supreme Court ruling",
            "iOS 17 Apple Square icons",
            "100 square metres",
            "the 2024 Tour Drive",
            "on 14 March St Patrick was",
        ] {
            check(&STREET_ADDRESS, text);
        }
    }

    #[test]
    fn postal_codes() {
        for marked in [
            "London ⟦SW1A 2AA⟧",
            "postcode: ⟦M11AE⟧",
            "Ottawa ⟦K1A 0B1⟧",
            "Springfield, ⟦IL 62704⟧",
            "Austin ⟦TX 78701-1234⟧.",
            "zip code: ⟦94103⟧",
            "Sydney ⟦NSW 2000⟧",
            "an M1 2TB disk",
            "IN 10000 of them, OK 20000",
            "error E4 5XX",
            "order 94103",
            "ISO 27001 and RFC 9110",
            "GB 29000",
        ] {
            check(&POSTAL_CODE, marked);
        }
    }
}
