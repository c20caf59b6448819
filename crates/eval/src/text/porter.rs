//! The Porter stemmer as NLTK has it by default (its mode `NLTK_EXTENSIONS`): Porter's algorithm of
//! 1980 with a table of irregular words, a gentler rule for a final *y*, and words of one or two
//! letters left alone. ROUGE with stemming depends on each of these.
//!
//! Works on bytes: ROUGE hands in `[a-z0-9]` only. A word with anything else is lower-cased and its
//! other bytes count as consonants, which is what the original does with its characters.

/// A buffer that lets [`PorterBuffer::stem`] work without allocating for each word.
#[derive(Clone, Debug, Default)]
pub struct PorterBuffer(Vec<u8>);

/// The stem of one word.
pub fn porter(word: &str) -> String {
    PorterBuffer::default().stem(word).to_owned()
}

/// The stem of a word that is listed.
fn irregular(word: &[u8]) -> Option<&'static str> {
    Some(match word {
        b"sky" | b"skies" => "sky",
        b"dying" => "die",
        b"lying" => "lie",
        b"tying" => "tie",
        b"news" => "news",
        b"innings" | b"inning" => "inning",
        b"outings" | b"outing" => "outing",
        b"cannings" | b"canning" => "canning",
        b"howe" => "howe",
        b"proceed" => "proceed",
        b"exceed" => "exceed",
        b"succeed" => "succeed",
        _ => return None,
    })
}

/// Suffix, what takes its place; all want a measure above 0 of what is before.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Suffixes that go when the measure before them is above 1. The order is part of the algorithm:
/// the first that fits decides, whether or not its condition holds.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

impl PorterBuffer {
    /// The stem of one word; valid until the next call.
    pub fn stem(&mut self, word: &str) -> &str {
        let word_buffer = &mut self.0;
        word_buffer.clear();
        if word.is_ascii() {
            word_buffer.extend(word.bytes().map(|b| b.to_ascii_lowercase()));
        } else {
            word_buffer.extend(word.to_lowercase().bytes());
        }
        if let Some(stem) = irregular(word_buffer) {
            return stem;
        }
        if word.chars().nth(2).is_some() {
            step_1a(word_buffer);
            step_1b(word_buffer);
            step_1c(word_buffer);
            step_2(word_buffer);
            step_3(word_buffer);
            step_4(word_buffer);
            step_5(word_buffer);
        }
        // Only ASCII suffixes are cut or put on, so this stays UTF-8.
        std::str::from_utf8(word_buffer).unwrap_or_default()
    }
}

fn is_vowel_letter(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u')
}

/// For each byte whether it is a consonant: *y* is one at the start and after a vowel. Bytes inside
/// a character are passed over, so that a character counts once.
fn consonants(word: &[u8]) -> impl Iterator<Item = bool> + '_ {
    let mut previous = false;
    let mut first = true;
    word.iter()
        .filter(|byte| (**byte & 0xc0) != 0x80)
        .map(move |&byte| {
            previous = match byte {
                b'y' => first || !previous,
                _ => !is_vowel_letter(byte),
            };
            first = false;
            previous
        })
}

/// How often a vowel is followed by a consonant: Porter's *m*.
fn measure(stem: &[u8]) -> usize {
    let mut after_vowel = false;
    let mut found = 0;
    for consonant in consonants(stem) {
        found += usize::from(consonant && after_vowel);
        after_vowel = !consonant;
    }
    found
}

fn has_vowel(stem: &[u8]) -> bool {
    consonants(stem).any(|consonant| !consonant)
}

fn ends_in_consonant(word: &[u8]) -> bool {
    consonants(word).last().unwrap_or(false)
}

fn ends_double_consonant(word: &[u8]) -> bool {
    // Two equal characters: for ASCII two equal bytes; a doubled other character is told by text.
    let text = std::str::from_utf8(word).unwrap_or_default();
    let mut back = text.chars().rev();
    match (back.next(), back.next()) {
        (Some(last), Some(before)) => last == before && ends_in_consonant(word),
        _ => false,
    }
}

/// Consonant, vowel, consonant at the end, the last not w, x or y; or a word of vowel and consonant.
fn ends_cvc(word: &[u8]) -> bool {
    let mut tail = [false; 3];
    let mut count = 0_usize;
    for consonant in consonants(word) {
        tail = [tail[1], tail[2], consonant];
        count += 1;
    }
    match count {
        0 | 1 => false,
        2 => !tail[1] && tail[2],
        _ => tail == [true, false, true] && !matches!(word.last(), Some(b'w' | b'x' | b'y')),
    }
}

/// Most suffixes are told apart by their last letter, so most words need no comparison.
fn stem_before<'a>(word: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    let suffix = suffix.as_bytes();
    if word.last() != suffix.last() {
        return None;
    }
    word.strip_suffix(suffix)
}

fn replace(word: &mut Vec<u8>, suffix: &str, by: &str) {
    word.truncate(word.len() - suffix.len());
    word.extend_from_slice(by.as_bytes());
}

fn characters(word: &[u8]) -> usize {
    word.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

fn step_1a(word: &mut Vec<u8>) {
    if word.ends_with(b"ies") {
        let short = characters(word) == 4;
        replace(word, "ies", if short { "ie" } else { "i" });
    } else if word.ends_with(b"sses") {
        replace(word, "sses", "ss");
    } else if word.ends_with(b"s") && !word.ends_with(b"ss") {
        replace(word, "s", "");
    }
}

fn step_1b(word: &mut Vec<u8>) {
    if word.ends_with(b"ied") {
        let short = characters(word) == 4;
        return replace(word, "ied", if short { "ie" } else { "i" });
    }
    if let Some(stem) = stem_before(word, "eed") {
        if measure(stem) > 0 {
            replace(word, "eed", "ee");
        }
        return;
    }
    let Some(suffix) = ["ed", "ing"]
        .into_iter()
        .find(|suffix| stem_before(word, suffix).is_some_and(has_vowel))
    else {
        return;
    };
    replace(word, suffix, "");
    if word.ends_with(b"at") || word.ends_with(b"bl") || word.ends_with(b"iz") {
        word.push(b'e');
    } else if ends_double_consonant(word) {
        if !matches!(word.last(), Some(b'l' | b's' | b'z')) {
            drop_last_character(word);
        }
    } else if measure(word) == 1 && ends_cvc(word) {
        word.push(b'e');
    }
}

fn drop_last_character(word: &mut Vec<u8>) {
    while let Some(byte) = word.pop() {
        if (byte & 0xc0) != 0x80 {
            break;
        }
    }
}

fn step_1c(word: &mut Vec<u8>) {
    if let Some(stem) = stem_before(word, "y")
        && characters(stem) > 1
        && ends_in_consonant(stem)
    {
        replace(word, "y", "i");
    }
}

fn step_2(word: &mut Vec<u8>) {
    // "alli" goes first and its result is looked at again.
    while stem_before(word, "alli").is_some_and(|stem| measure(stem) > 0) {
        replace(word, "alli", "al");
    }
    if apply(word, &STEP_2) {
        return;
    }
    // The l of "logi" counts with the stem, so that short ones such as "geo" are cut too.
    if word.ends_with(b"logi") && measure(&word[..word.len() - 3]) > 0 {
        replace(word, "logi", "log");
    }
}

fn step_3(word: &mut Vec<u8>) {
    apply(word, &STEP_3);
}

/// The first rule whose suffix fits decides. True when one fitted.
fn apply(word: &mut Vec<u8>, rules: &[(&str, &str)]) -> bool {
    for (suffix, by) in rules {
        if let Some(stem) = stem_before(word, suffix) {
            if measure(stem) > 0 {
                replace(word, suffix, by);
            }
            return true;
        }
    }
    false
}

fn step_4(word: &mut Vec<u8>) {
    for suffix in STEP_4 {
        if let Some(stem) = stem_before(word, suffix) {
            let fits = suffix != "ion" || matches!(stem.last(), Some(b's' | b't'));
            if fits && measure(stem) > 1 {
                replace(word, suffix, "");
            }
            return;
        }
    }
}

fn step_5(word: &mut Vec<u8>) {
    if let Some(stem) = stem_before(word, "e") {
        let m = measure(stem);
        if m > 1 || (m == 1 && !ends_cvc(stem)) {
            word.pop();
        }
    }
    if word.ends_with(b"ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let cases = [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("spied", "spi"),
            ("died", "die"),
            ("relational", "relat"),
            ("radically", "radic"),
            ("geology", "geolog"),
            ("controlling", "control"),
            ("skies", "sky"),
            ("is", "is"),
            ("a", "a"),
            ("", ""),
            ("123s", "123"),
            ("Running", "run"),
            ("été", "été"),
            ("日本語s", "日本語"),
        ];
        for (word, stem) in cases {
            assert_eq!(porter(word), stem, "{word}");
        }
    }
}
