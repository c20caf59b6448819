//! Which language a passage is in, for allow-lists. Scripts decide first, because they are
//! certain; statistics decide among languages that share one.
//!
//! Short passages are not judged: three words of Dutch and German are often the same three.

use whatlang::{Detector, Lang};

use super::text::{is_han, is_hiragana, is_katakana};

/// A passage in a language that is not on the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// ISO 639-1, or 639-3 where that has none.
    pub code: &'static str,
    /// How sure, 0 to 1.
    pub score: f32,
}

/// Fewer letters of a script that languages share are not judged.
const FEWEST_LETTERS: usize = 24;

/// Below this, statistics do not count.
const SURE: f64 = 0.85;

/// What language a passage is in, if it is none of those that are allowed (ISO 639-1).
pub fn outside(passage: &str, allow: &[String]) -> Option<Foreign> {
    let allowed = |code: &str| allow.iter().any(|entry| base_of(entry) == code);
    let counts = Counts::of(passage);
    if let Some(code) = counts.certain() {
        // Characters alone may be Chinese or Japanese (a heading, an address).
        let shared = code == "zh" && allowed("ja") && counts.han < FEWEST_LETTERS;
        return (!allowed(code) && !shared).then_some(Foreign { code, score: 0.98 });
    }
    if counts.shared < FEWEST_LETTERS {
        return None;
    }
    let prose = without_code(passage);
    if prose.chars().filter(|c| c.is_alphabetic()).count() < FEWEST_LETTERS {
        return None;
    }
    let guess = Detector::new().detect(&prose)?;
    let code = code_of(guess.lang());
    let sure = guess.is_reliable() && guess.confidence() >= SURE;
    (sure && !allowed(code) && !near(code).iter().any(|other| allowed(other))).then(|| Foreign {
        code,
        score: guess.confidence() as f32,
    })
}

/// `en` of `en-GB`.
fn base_of(entry: &str) -> String {
    let base = entry.split(['-', '_']).next().unwrap_or_default();
    base.to_ascii_lowercase()
}

/// Languages that statistics cannot tell apart reliably.
fn near(code: &str) -> &'static [&'static str] {
    match code {
        "da" | "nb" => &["da", "nb", "no", "nn", "sv"],
        "hr" | "sr" | "bs" => &["hr", "sr", "bs"],
        "id" | "jv" => &["id", "ms", "jv"],
        "pt" => &["gl"],
        "es" => &["ca", "gl"],
        "cs" | "sk" => &["cs", "sk"],
        _ => &[],
    }
}

/// Letters by script.
#[derive(Default)]
struct Counts {
    kana: usize,
    han: usize,
    hangul: usize,
    thai: usize,
    greek: usize,
    hebrew: usize,
    other: usize,
    /// Latin, Cyrillic, Arabic, Devanagari: many languages each.
    shared: usize,
}

impl Counts {
    fn of(passage: &str) -> Self {
        let mut counts = Counts::default();
        for c in passage.chars().filter(|c| c.is_alphabetic()) {
            let count = match c {
                c if is_hiragana(c) || is_katakana(c) => &mut counts.kana,
                c if is_han(c) => &mut counts.han,
                '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7a3}' => &mut counts.hangul,
                '\u{0e00}'..='\u{0e7f}' => &mut counts.thai,
                '\u{0370}'..='\u{03ff}' | '\u{1f00}'..='\u{1fff}' => &mut counts.greek,
                '\u{0590}'..='\u{05ff}' => &mut counts.hebrew,
                'a'..='z'
                | 'A'..='Z'
                | '\u{00c0}'..='\u{024f}'
                | '\u{0400}'..='\u{052f}'
                | '\u{0600}'..='\u{06ff}'
                | '\u{0900}'..='\u{097f}' => &mut counts.shared,
                _ => &mut counts.other,
            };
            *count += 1;
        }
        counts
    }

    /// The language whose script most letters are of. Kana makes a passage Japanese however many
    /// names of programs stand in it.
    fn certain(&self) -> Option<&'static str> {
        let asian = self.kana + self.han;
        let total =
            asian + self.hangul + self.thai + self.greek + self.hebrew + self.shared + self.other;
        let most = |count: usize| count >= 6 && count * 3 > total;
        match () {
            () if self.kana >= 3 && asian * 4 > total => Some("ja"),
            () if most(self.hangul) => Some("ko"),
            () if most(self.han) && self.kana * 10 < self.han => Some("zh"),
            () if most(self.thai) => Some("th"),
            () if most(self.greek) => Some("el"),
            () if most(self.hebrew) => Some("he"),
            () => None,
        }
    }
}

/// A passage without what is no prose: links, paths, names in programs, numbers.
fn without_code(passage: &str) -> String {
    let prose = |word: &&str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        !bare.is_empty()
            && bare
                .chars()
                .all(|c| c.is_alphabetic() || c == '\'' || c == '’' || c == '-')
    };
    passage
        .split_whitespace()
        .filter(prose)
        .collect::<Vec<_>>()
        .join(" ")
}

/// ISO 639-1 where a language has one.
fn code_of(lang: Lang) -> &'static str {
    const CODES: &[(&str, &str)] = &[
        ("eng", "en"),
        ("jpn", "ja"),
        ("cmn", "zh"),
        ("kor", "ko"),
        ("fra", "fr"),
        ("deu", "de"),
        ("spa", "es"),
        ("por", "pt"),
        ("ita", "it"),
        ("nld", "nl"),
        ("rus", "ru"),
        ("ukr", "uk"),
        ("pol", "pl"),
        ("ces", "cs"),
        ("slk", "sk"),
        ("slv", "sl"),
        ("hrv", "hr"),
        ("srp", "sr"),
        ("bul", "bg"),
        ("mkd", "mk"),
        ("bel", "be"),
        ("ron", "ro"),
        ("hun", "hu"),
        ("fin", "fi"),
        ("est", "et"),
        ("lav", "lv"),
        ("lit", "lt"),
        ("swe", "sv"),
        ("dan", "da"),
        ("nob", "nb"),
        ("tur", "tr"),
        ("aze", "az"),
        ("uzb", "uz"),
        ("tuk", "tk"),
        ("ara", "ar"),
        ("pes", "fa"),
        ("urd", "ur"),
        ("heb", "he"),
        ("yid", "yi"),
        ("hin", "hi"),
        ("mar", "mr"),
        ("nep", "ne"),
        ("ben", "bn"),
        ("tam", "ta"),
        ("tel", "te"),
        ("kan", "kn"),
        ("mal", "ml"),
        ("guj", "gu"),
        ("pan", "pa"),
        ("ori", "or"),
        ("sin", "si"),
        ("tha", "th"),
        ("mya", "my"),
        ("khm", "km"),
        ("vie", "vi"),
        ("ind", "id"),
        ("jav", "jv"),
        ("tgl", "tl"),
        ("ell", "el"),
        ("kat", "ka"),
        ("hye", "hy"),
        ("amh", "am"),
        ("zul", "zu"),
        ("sna", "sn"),
        ("aka", "ak"),
        ("epo", "eo"),
        ("lat", "la"),
        ("cat", "ca"),
        ("afr", "af"),
        ("cym", "cy"),
    ];
    let three = lang.code();
    CODES
        .iter()
        .find(|(long, _)| *long == three)
        .map_or(three, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(passage: &str, allow: &[&str], expected: Option<&str>) {
        let allow: Vec<String> = allow.iter().map(|code| (*code).to_owned()).collect();
        let found = outside(passage, &allow).map(|foreign| foreign.code);
        assert_eq!(found, expected, "{passage}");
    }

    #[test]
    fn passages() {
        let french = "Je voudrais savoir comment fonctionne cette machine, parce que je ne la comprends pas.";
        let german = "Ich möchte gerne wissen, wie diese Maschine eigentlich funktioniert und was sie kostet.";
        let english =
            "I would like to know how this machine works, because nobody has explained it to me.";
        check(french, &["en", "ja"], Some("fr"));
        check(french, &["fr"], None);
        check(german, &["en"], Some("de"));
        check(english, &["en"], None);
        check(english, &["en-GB"], None);
        check(english, &["ja"], Some("en"));
        check("これは日本語の文章です。", &["en"], Some("ja"));
        check("これは日本語の文章です。", &["ja"], None);
        check("Kubernetesのpodがrestartします", &["ja"], None);
        check(
            "이 문장은 한국어로 쓰여 있습니다.",
            &["en", "ja"],
            Some("ko"),
        );
        check(
            "我想知道这台机器是怎么工作的,因为没有人给我解释过这个问题。",
            &["ja"],
            Some("zh"),
        );
        check("東京都千代田区丸の内", &["ja"], None);
        check(
            "Я хотел бы узнать, как работает эта машина, потому что никто не объяснил.",
            &["en"],
            Some("ru"),
        );
        check("OK, bonjour!", &["en"], None);
        check(
            "fn main() { println!(\"{}\", x.iter().map(f).sum::<u32>()); }",
            &["en"],
            None,
        );
        check(
            "2024-05-06 12:00 https://example.com/ein/langer/pfad",
            &["en"],
            None,
        );
    }
}
