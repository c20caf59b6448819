//! Which language a text is in, by script and trigrams (`whatlang`), and which tokeniser suits it.
//!
//! Short texts are guesses; [`Language::reliable`] says so. Kanji without any kana read as Chinese.

use serde::Serialize;
use whatlang::Lang;

use super::tokenise::Tokeniser;

/// The language that a text is probably in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Language {
    /// ISO 639-1 (`en`, `ja`), or ISO 639-3 for a language that has no two-letter code.
    pub code: &'static str,
    /// From 0 to 1.
    pub confidence: f64,
    /// Whether the text was long and clear enough to rely on it.
    pub reliable: bool,
}

/// The language of a text; none where there are no letters.
pub fn detect_language(text: &str) -> Option<Language> {
    let info = whatlang::detect(text)?;
    let confidence = info.confidence();
    confidence.is_finite().then(|| Language {
        code: short_code(info.lang()),
        confidence,
        reliable: info.is_reliable(),
    })
}

/// The tokeniser to use for texts of a language that nobody named: `ja-mecab` for Japanese, `zh` for
/// Chinese, `char` for scripts without spaces, `13a` for what is written in Latin letters, `intl`
/// for the rest. Looks at the references, because a broken answer must not choose its own ruler.
pub fn choose_tokeniser<'a>(references: impl Iterator<Item = &'a str>) -> Tokeniser {
    let mut sample = String::new();
    for reference in references {
        sample.extend(reference.chars().take(500));
        sample.push('\n');
        if sample.len() > 20_000 {
            break;
        }
    }
    let Some(info) = whatlang::detect(&sample) else {
        return Tokeniser::Sacre13a;
    };
    match info.lang() {
        Lang::Jpn => Tokeniser::JaMecab(None),
        Lang::Cmn => Tokeniser::Zh,
        Lang::Tha | Lang::Khm | Lang::Mya => Tokeniser::Char,
        _ if info.script() == whatlang::Script::Latin => Tokeniser::Sacre13a,
        _ => Tokeniser::Intl,
    }
}

fn short_code(lang: Lang) -> &'static str {
    let pairs = [
        ("afr", "af"),
        ("aka", "ak"),
        ("amh", "am"),
        ("ara", "ar"),
        ("aze", "az"),
        ("bel", "be"),
        ("ben", "bn"),
        ("bul", "bg"),
        ("cat", "ca"),
        ("ces", "cs"),
        ("cmn", "zh"),
        ("cym", "cy"),
        ("dan", "da"),
        ("deu", "de"),
        ("ell", "el"),
        ("eng", "en"),
        ("epo", "eo"),
        ("est", "et"),
        ("fin", "fi"),
        ("fra", "fr"),
        ("guj", "gu"),
        ("heb", "he"),
        ("hin", "hi"),
        ("hrv", "hr"),
        ("hun", "hu"),
        ("hye", "hy"),
        ("ind", "id"),
        ("ita", "it"),
        ("jav", "jv"),
        ("jpn", "ja"),
        ("kan", "kn"),
        ("kat", "ka"),
        ("khm", "km"),
        ("kor", "ko"),
        ("lat", "la"),
        ("lav", "lv"),
        ("lit", "lt"),
        ("mal", "ml"),
        ("mar", "mr"),
        ("mkd", "mk"),
        ("mya", "my"),
        ("nep", "ne"),
        ("nld", "nl"),
        ("nob", "nb"),
        ("ori", "or"),
        ("pan", "pa"),
        ("pes", "fa"),
        ("pol", "pl"),
        ("por", "pt"),
        ("ron", "ro"),
        ("rus", "ru"),
        ("sin", "si"),
        ("slk", "sk"),
        ("slv", "sl"),
        ("sna", "sn"),
        ("spa", "es"),
        ("srp", "sr"),
        ("swe", "sv"),
        ("tam", "ta"),
        ("tel", "te"),
        ("tgl", "tl"),
        ("tha", "th"),
        ("tuk", "tk"),
        ("tur", "tr"),
        ("ukr", "uk"),
        ("urd", "ur"),
        ("uzb", "uz"),
        ("vie", "vi"),
        ("yid", "yi"),
        ("zul", "zu"),
    ];
    let code = lang.code();
    pairs
        .iter()
        .find(|(long, _)| *long == code)
        .map_or(code, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        let check = |text: &str, code: Option<&str>| {
            assert_eq!(detect_language(text).map(|l| l.code), code, "{text}");
        };
        check("これは日本語の文章です。", Some("ja"));
        check(
            "The quick brown fox jumps over the lazy dog, and then it sleeps.",
            Some("en"),
        );
        check(
            "Der schnelle braune Fuchs springt über den faulen Hund hinweg.",
            Some("de"),
        );
        check("这是一个测试句子", Some("zh"));
        check("12345 !!!", None);
        check("", None);
    }

    #[test]
    fn tokenisers() {
        let check = |text: &str, name: &str| {
            assert_eq!(choose_tokeniser([text].into_iter()).name(), name, "{text}");
        };
        check("猫が好きです。", "ja-mecab");
        check("我喜欢猫", "zh");
        check("I like cats very much indeed.", "13a");
        check("Я очень люблю кошек.", "intl");
        check("", "13a");
    }
}
