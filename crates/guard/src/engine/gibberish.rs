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
        letters += usize::from(is_letter(c));
        broken += usize::from(is_broken(c)) + 2 * usize::from(is_mojibake(before, c));
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
    let words = text.split(|c: char| !c.is_ascii_alphabetic());
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

fn is_unsayable(word: &str) -> bool {
    // An acronym, or a name of code.
    if word.bytes().all(|b| b.is_ascii_uppercase()) {
        return false;
    }
    let is_vowel = |b: u8| b"aeiouyAEIOUY".contains(&b);
    let vowels = word.bytes().filter(|b| is_vowel(*b)).count();
    let longest = word
        .as_bytes()
        .split(|b| is_vowel(*b))
        .map(<[u8]>::len)
        .max();
    let rare = word
        .bytes()
        .filter(|b| b"qxzjkwvQXZJKWV".contains(b))
        .count();
    vowels == 0 || longest >= Some(5) || word.len() >= 6 && rare * 3 > word.len()
}

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
