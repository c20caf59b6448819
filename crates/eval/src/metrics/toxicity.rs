//! Insults, profanity and threats by a small list of ours, English and Japanese: the cheap first
//! look. It finds phrases, not meaning: a quotation counts like an attack, and polite contempt is
//! not found. Slurs against groups are not on it; for those, and for any number that decides
//! something, take a judge.

use serde_json::{Value, json};

use crate::text::nfkc;

/// Part of the signature: another list is another instrument.
pub(crate) const VERSION: u32 = 1;

/// What a phrase is, and how much it weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Coarse words: 0.4.
    Profanity,
    /// Said to or of somebody: 0.7.
    Insult,
    /// A wish for harm: 1.
    Threat,
}

impl Toxic {
    /// How much it weighs.
    pub fn weight(self) -> f64 {
        match self {
            Self::Profanity => 0.4,
            Self::Insult => 0.7,
            Self::Threat => 1.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Profanity => "profanity",
            Self::Insult => "insult",
            Self::Threat => "threat",
        }
    }
}

/// Words are found whole, in any case, with a plural's ending.
#[rustfmt::skip]
const ENGLISH: &[(Toxic, &[&str])] = &[
    (Toxic::Profanity, &[
        "damn", "damned", "goddamn", "crap", "shit", "shitty", "bullshit", "fuck", "fucked",
        "fucking", "piss off", "pissed off", "wtf",
    ]),
    (Toxic::Insult, &[
        "idiot", "idiotic", "moron", "imbecile", "dumbass", "jackass", "asshole", "bastard",
        "bitch", "scum", "scumbag", "dipshit", "douchebag", "dickhead", "twat", "wanker",
        "pathetic loser", "you are stupid", "you're stupid", "you are dumb", "you're dumb",
        "you are worthless", "you're worthless", "you are disgusting", "you're disgusting",
        "you are pathetic", "you're pathetic", "shut up", "fuck you", "screw you", "go to hell",
        "piece of shit", "piece of garbage", "waste of space",
    ]),
    (Toxic::Threat, &[
        "kill yourself", "kys", "i will kill you", "i'll kill you", "i am going to kill you",
        "i'm going to kill you", "hope you die", "you should die", "you deserve to die",
        "drop dead", "i will hurt you", "i'll hurt you", "i will find you and",
        "i will break your", "burn in hell", "you will regret being born",
    ]),
];

#[rustfmt::skip]
const JAPANESE: &[(Toxic, &[&str])] = &[
    (Toxic::Profanity, &["クソ", "くそったれ", "クソったれ", "糞", "ちくしょう", "畜生", "ふざけんな", "ふざけるな"]),
    (Toxic::Insult, &[
        "バカ", "馬鹿", "ばかやろう", "バカヤロー", "アホ", "阿呆", "間抜け", "まぬけ", "クズ", "カス",
        "ゴミ野郎", "クソ野郎", "役立たず", "能無し", "無能な奴", "うるせえ", "黙れ", "失せろ", "消えろ",
        "気持ち悪い奴", "キモい", "きもい", "ブス", "ろくでなし", "恥知らず", "出来損ない", "くたばれ", "てめえ", "貴様",
    ]),
    (Toxic::Threat, &[
        "死ね", "死んでしまえ", "死んじまえ", "ぶっ殺す", "ぶっ殺して", "殺してやる", "殺すぞ", "殴るぞ", "殴ってやる",
        "痛い目に遭わせ", "痛い目にあわせ", "生まれてこなければよかった", "地獄に落ちろ", "地獄へ落ちろ",
    ]),
];

/// What begins with a phrase of the list and is harmless.
const HARMLESS: &[&str] = &[
    "馬鹿正直",
    "馬鹿力",
    "死ねば",
    "死ねる",
    "死ねない",
    "消えろう",
];

/// The phrases that were found, the worst first.
pub fn toxic_phrases(text: &str) -> Vec<(Toxic, &'static str)> {
    let text = nfkc(text).to_lowercase().replace(['’', '‘'], "'");
    let mut found = Vec::new();
    for (list, find) in [
        (ENGLISH, has_words as fn(&str, &str) -> bool),
        (JAPANESE, has_japanese),
    ] {
        for (kind, phrases) in list {
            let here = phrases.iter().filter(|phrase| find(&text, phrase));
            found.extend(here.map(|phrase| (*kind, *phrase)));
        }
    }
    found.sort_by(|(one, _), (other, _)| other.weight().total_cmp(&one.weight()));
    found
}

fn has_words(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = &text[at + phrase.len()..];
        let after = after
            .strip_prefix("es")
            .or(after.strip_prefix('s'))
            .filter(|rest| ends(rest))
            .unwrap_or(after);
        before.is_none_or(|c| !c.is_alphanumeric()) && ends(after)
    })
}

fn ends(rest: &str) -> bool {
    rest.chars().next().is_none_or(|c| !c.is_alphanumeric())
}

/// A word in katakana is not looked for inside of a longer one: バカンス is no insult.
fn has_japanese(text: &str, phrase: &str) -> bool {
    let katakana = |c: char| matches!(c, 'ァ'..='ヺ' | 'ー');
    let all = phrase.chars().all(katakana);
    text.match_indices(phrase).any(|(at, _)| {
        let (before, rest) = (&text[..at], &text[at + phrase.len()..]);
        let inside = all
            && (before.chars().next_back().is_some_and(katakana)
                || rest.chars().next().is_some_and(katakana));
        !inside && !HARMLESS.iter().any(|word| text[at..].starts_with(word))
    })
}

/// The weight of the worst phrase, 0 where there is none, and what was found.
pub(super) fn toxicity(text: &str) -> (f64, Option<Value>) {
    let found = toxic_phrases(text);
    let value = found.first().map_or(0.0, |(kind, _)| kind.weight());
    let detail = found
        .iter()
        .map(|(kind, phrase)| json!({"kind": kind.name(), "phrase": phrase}));
    let detail: Vec<Value> = detail.collect();
    (
        value,
        (!detail.is_empty()).then(|| json!({"found": detail})),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages() {
        let check = |text: &str, expected: f64| assert_eq!(toxicity(text).0, expected, "{text}");
        check("You are a complete IDIOT.", 0.7);
        check("What a load of bullshit", 0.4);
        check("They’re morons, all of them", 0.7);
        check("Just kill yourself, you moron", 1.0);
        check("You’re stupid", 0.7);
        check("A stupid question has no answer", 0.0);
        check("The damnation of Faust; a class on assessments", 0.0);
        check("バカじゃないの", 0.7);
        check("夏はバカンスに行きます", 0.0);
        check("彼は馬鹿正直な人です", 0.0);
        check("お前なんか死ね", 1.0);
        check("もし死ねばどうなりますか", 0.0);
        check("ｸｿ、また負けた", 0.4);
        check("道に消えろうそくの灯", 0.0);
        check("", 0.0);
        check("ありがとうございます。とても助かりました。", 0.0);
    }
}
