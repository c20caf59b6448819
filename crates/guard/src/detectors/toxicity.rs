//! Threats, insults and calls to hurt, in English and Japanese: the rules tier of a `toxicity`
//! check.
//!
//! Whole phrases that are aimed at somebody, not single words: "kill the process" and "shoot the
//! photo" are work. Slurs belong into a list of the operator's (`words`), because which are used,
//! quoted or reclaimed is not for a program to decide alone.

use super::{Candidate, Detector, Verdict, View};

const fn phrases(name: &'static str, patterns: &'static [&'static str]) -> Detector {
    Detector {
        name,
        label: "TOXICITY",
        view: View::Plain,
        patterns,
        max_chars: 80,
        at_word: true,
        validate,
    }
}

pub(super) static THREAT: Detector = phrases(
    "threat",
    &[
        r"(?:i will|i['’]ll|i am going to|i['’]m going to|i['’]m gonna|gonna|we will|we['’]ll) (?:kill|murder|stab|strangle|rape|behead|shoot|beat up|burn|hurt|find and kill) (?:you|u|him|her|them|your (?:family|kids|mother|wife|children))",
        r"(?:you deserve to|you should|you must|hope you|wish you(?: would)?|go and|just go) (?:die|kill yourself|burn in hell|get raped|hang yourself|drop dead)",
        r"(?:kill yourself|kys|drop dead|go die)",
        r"(?:お前|おまえ|てめえ|貴様|あんた|あいつ|君|あなた)(?:ら|たち)?(?:を|の家族を|の子供を)?(?:絶対に?|必ず|今から|いつか)?(?:ぶっ)?(?:殺す|殺して(?:やる|やろう)|刺して?やる|殴って?やる|ぶちのめ)",
        r"(?:ぶっ殺す|ぶっ殺してやる|殺してやる|死ねよ|死んでしまえ|死んじまえ|くたばれ|首(?:を)?吊れ|自殺しろ|消え失せろ)",
    ],
);

pub(super) static INSULT: Detector = phrases(
    "insult",
    &[
        r"(?:you|u)(?:['’]?re| are| r)? (?:such )?(?:an? |a fucking |an? absolute |an? complete |all |nothing but an? )?(?:fucking |stupid |worthless |disgusting |pathetic |filthy |dumb ){0,3}(?:idiots?|morons?|imbeciles?|retards?|scum|bitch(?:es)?|assholes?|cunts?|bastards?|dumbass(?:es)?|piece of (?:shit|trash|garbage)|pieces of (?:shit|trash)|worthless|waste of (?:space|oxygen|air))",
        r"(?:fuck (?:you|off)|go fuck yourself|shut the fuck up|screw you|eat shit|suck my (?:dick|cock))",
        r"(?:お前|おまえ|てめえ|貴様|あんた|あいつ|こいつ|君)(?:ら|たち)?(?:は|って|なんか|みたいな|の(?:よう|ような))?(?:、)?(?:本当に|本当の|ただの|この)?(?:馬鹿|バカ|ばか|アホ|あほ|クズ|くず|ゴミ|ごみ|カス|かす|間抜け|マヌケ|無能|ブス|キモい|きもい|クソ野郎|低能|役立たず)",
        r"(?:この|ほんと(?:に)?|マジで)?(?:クソ野郎|くそ野郎|クソったれ|ゴミ野郎|クズ野郎|カス野郎|馬鹿野郎|バカヤロー|ばかやろう|ゴミクズ|ゴミ人間|人間のクズ)",
    ],
);

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    // 死ねよう, 殺すな: a longer word or its negation.
    let negated = found.after.is_some_and(|c| c == 'な' || c == 'う');
    let continues = found.after.is_some_and(|c| c.is_ascii_alphanumeric())
        && found.text.ends_with(|c: char| c.is_ascii_alphanumeric());
    (!negated && !continues).then_some(found.whole(0.9)?)
}

#[cfg(test)]
mod tests {
    use super::super::TOXICITY;
    use super::super::check::find;

    #[test]
    fn phrases() {
        let hits = |text: &str| {
            TOXICITY
                .iter()
                .any(|detector| !find(detector, text).is_empty())
        };
        for text in [
            "I will kill you.",
            "You are a worthless piece of shit",
            "just go kill yourself",
            "FUCK YOU",
            "You're an idiot.",
            "お前を殺してやる",
            "さっさとくたばれ",
            "お前は本当にバカだな",
            "このクソ野郎",
        ] {
            assert!(hits(text), "{text}");
        }
        for text in [
            "Kill the process and restart the server.",
            "You are an expert on idioms.",
            "The hero dies in the last act.",
            "You should drop the table.",
            "I'm going to shoot the photos tomorrow.",
            "彼を殺すなと叫んだ。",
            "馬鹿げた話だと彼は笑った。",
            "ゴミは月曜日に出してください。",
            "カスタマーサポートに連絡する。",
            "死ぬほど美味しいラーメン",
            "プロセスを殺すコマンドはkillです。",
        ] {
            assert!(!hits(text), "{text}");
        }
    }
}
