//! How much a passage looks like no language: bytes read with the wrong encoding, keys hit at
//! random, words that nobody could say. Counts, not statistics of a language, so that names,
//! code and scripts that we know nothing of pass.

use super::cluster::is_letter;

/// Shorter passages are not judged.
const FEWEST_LETTERS: usize = 20;

/// 0 for text, towards 1 for what is none.
pub(super) fn score(text: &str) -> f32 {
    let (mut letters, mut broken) = (0_usize, 0_usize);
    let mut before = ' ';
    for c in text.chars() {
        if c.is_ascii() {
            let class = CLASS[c as usize];
            letters += usize::from(class & LETTER != 0);
            broken += usize::from(class & BROKEN != 0);
            if before.is_ascii() {
                continue;
            }
        }
        letters += usize::from(!c.is_ascii() && is_letter(c));
        broken += usize::from(!c.is_ascii() && is_broken(c));
        broken += 2 * usize::from(is_mojibake(before, c));
        before = c;
    }
    if letters + broken < FEWEST_LETTERS {
        return 0.0;
    }
    let broken = (broken as f32 * 3.0 / (letters + broken) as f32).min(1.0);
    broken.max(unsayable(text))
}

fn is_broken(c: char) -> bool {
    c == '\u{fffd}'
        || c.is_control() && !c.is_whitespace()
        || matches!(c as u32, 0xE000..=0xF8FF | 0xFFFE..=0xFFFF | 0xF0000..)
}

/// Pairs that UTF-8 makes when it is read as Latin-1 or Shift JIS.
fn is_mojibake(before: char, c: char) -> bool {
    match before {
        'Ã' | 'Â' | 'ã' | 'å' | 'æ' | 'ç' => {
            matches!(c as u32, 0x80..=0xBF) || "‚€œ‡„¼".contains(c)
        }
        '縺' | '繧' | '繝' => !matches!(c, 'を' | 'に' | 'の' | 'が' | 'は' | 'で' | 'と'),
        _ => false,
    }
}

/// How much of the words of Latin letters could not be said.
fn unsayable(text: &str) -> f32 {
    let is_latin = |b: &u8| b.is_ascii_alphabetic();
    let words = text.as_bytes().split(|b| !is_latin(b));
    let (mut all, mut bad) = (0_usize, 0_usize);
    for word in words.filter(|word| word.len() >= 4) {
        all += word.len();
        if is_unsayable(word) {
            bad += word.len();
        }
    }
    if all < FEWEST_LETTERS {
        return 0.0;
    }
    bad as f32 / all as f32
}

fn is_unsayable(word: &[u8]) -> bool {
    let (mut capitals, mut vowels, mut rare, mut run, mut longest) = (0, 0, 0, 0, 0);
    for b in word {
        let class = CLASS[usize::from(*b)];
        capitals += usize::from(b.is_ascii_uppercase());
        rare += usize::from(class & RARE != 0);
        if class & VOWEL != 0 {
            vowels += 1;
            run = 0;
        } else {
            run += 1;
            longest = longest.max(run);
        }
    }
    // An acronym, or a name of code.
    let acronym = capitals == word.len();
    !acronym && (vowels == 0 || longest >= 5 || word.len() >= 6 && rare * 3 > word.len())
}

const LETTER: u8 = 1;
const VOWEL: u8 = 2;
const RARE: u8 = 4;
const BROKEN: u8 = 8;

/// What the characters of ASCII are.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        if c.is_ascii_alphanumeric() {
            table[b] |= LETTER;
        }
        if matches!(
            c.to_ascii_lowercase(),
            b'a' | b'e' | b'i' | b'o' | b'u' | b'y'
        ) {
            table[b] |= VOWEL;
        }
        if matches!(
            c.to_ascii_lowercase(),
            b'q' | b'x' | b'z' | b'j' | b'k' | b'w' | b'v'
        ) {
            table[b] |= RARE;
        }
        if c.is_ascii_control() && !matches!(c, 9..=13) {
            table[b] |= BROKEN;
        }
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_text() {
        for text in [
            "The quick brown fox jumps over the lazy dog, and the strengths of it are known.",
            "今日は天気がいいので、散歩に行きましょう。糸を繰る。",
            "fn main() { let xs: Vec<u8> = vec![]; println!(\"{:?}\", xs); }",
            "Grzegorz Brzęczyszczykiewicz lives in Chrząszczyżewoszyce near the town.",
            "Αυτό είναι ένα κείμενο στα ελληνικά.",
        ] {
            assert!(score(text) < 0.5, "{} {text}", score(text));
        }
        for text in [
            "xkjqw zpvbn qwrtz mnbvc lkjhg fdsap qzxwv bnmkl rtzpq",
            "縺薙ｓ縺ｫ縺｡縺ｯ荳也阜縺薙ｓ縺ｫ縺｡縺ｯ荳也阜",
            "ã\u{81}\u{93}ã\u{82}\u{93}ã\u{81}«ã\u{81}¡ã\u{81}¯ã\u{81}\u{93}ã\u{82}\u{93}",
        ] {
            assert!(score(text) >= 0.5, "{} {text}", score(text));
        }
    }
}
