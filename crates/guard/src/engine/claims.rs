//! Sentences that claim nothing, so that nobody need be asked whether they are borne out.
//!
//! Only what is sure: questions, greetings, thanks, offers of help and lead-ins, in English and
//! Japanese. What is missed here a judge can still call "no claim"; what is wrongly taken for one
//! would never be checked.

use super::fold::{Kind, fold_text};

/// A longer sentence may greet and claim in one.
const MOST_CHARS: usize = 120;
/// A longer one says what follows.
const MOST_LEAD_IN_CHARS: usize = 40;

/// How a sentence begins that greets, thanks, offers or apologises. Folded as texts are.
const BEGINNINGS: &[&str] = &[
    "hello",
    "hi there",
    "hi!",
    "hi,",
    "good morning",
    "good afternoon",
    "good evening",
    "thank you",
    "thanks for",
    "you're welcome",
    "you are welcome",
    "my pleasure",
    "of course!",
    "sure!",
    "sure,",
    "certainly!",
    "happy to help",
    "i'd be happy to",
    "i would be happy to",
    "i'm happy to help",
    "glad to help",
    "let me know if",
    "please let me know",
    "feel free to",
    "i hope this helps",
    "hope this helps",
    "is there anything else",
    "have a great",
    "have a nice",
    "here is what i found",
    "here's what i found",
    "here are the",
    "here is a summary",
    "here's a summary",
    "i'm sorry",
    "i am sorry",
    "i apologize",
    "i apologise",
    "こんにちは",
    "こんばんは",
    "おはようございます",
    "はじめまして",
    "ありがとうございます",
    "お問い合わせありがとうございます",
    "ご質問ありがとうございます",
    "お役に立て",
    "ご不明な点",
    "ご不明点",
    "他にご質問",
    "ほかにご質問",
    "何かございましたら",
    "お気軽に",
    "かしこまりました",
    "承知しました",
    "承知いたしました",
    "申し訳ございません",
    "申し訳ありません",
    "どういたしまして",
    "よろしくお願い",
    "以下のとおりです",
    "以下の通りです",
    "お手伝いできることが",
];

/// With these a sentence that begins so goes on to claim something after all.
const TURNS: &[&str] = &[
    " but ",
    " because ",
    " since ",
    " is ",
    " are ",
    " was ",
    " were ",
    " has ",
    " have been ",
    "が、",
    "ですが",
    "ますが",
    "ため",
    "ので",
];

/// Whether a judge should be asked about these sentences.
pub(super) fn claims_something(text: &str) -> bool {
    let folded = fold_text(Kind::Plain, text);
    let mut sentences = sentences(&folded).filter(|it| it.chars().any(char::is_alphanumeric));
    sentences.any(|sentence| !claims_nothing(sentence))
}

/// Each with the sign that ends it.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| matches!(c, '.' | '!' | '?' | '。' | '\n' | ';');
    text.split_inclusive(ends).map(str::trim)
}

fn claims_nothing(sentence: &str) -> bool {
    is_question(sentence) || is_lead_in(sentence) || is_courtesy(sentence)
}

fn is_question(sentence: &str) -> bool {
    let bare = sentence.trim_end_matches(['"', '\'', ')', '」', '』']);
    let asked_politely = ["ですか。", "ますか。", "でしょうか。", "ませんか。"];
    bare.ends_with('?') || asked_politely.iter().any(|end| bare.ends_with(end))
}

/// "Opening hours:"; not "Entry is free:".
fn is_lead_in(sentence: &str) -> bool {
    let Some(bare) = sentence.strip_suffix(':') else {
        return false;
    };
    bare.chars().count() <= MOST_LEAD_IN_CHARS
        && !bare.ends_with(['す', 'た', 'だ', 'い'])
        && !bare.chars().any(char::is_numeric)
        && !takes_a_turn(bare)
}

fn is_courtesy(sentence: &str) -> bool {
    let bare = sentence.trim_start_matches(['-', '*', '"', ' ']);
    BEGINNINGS.iter().any(|begin| bare.starts_with(begin))
        && bare.chars().count() <= MOST_CHARS
        && !takes_a_turn(bare)
}

fn takes_a_turn(sentence: &str) -> bool {
    TURNS.iter().any(|turn| sentence.contains(turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_greetings_and_lead_ins_claim_nothing() {
        for text in [
            "Hello! How can I help you today?",
            "Thank you for your question.",
            "Let me know if you need more.",
            "Opening hours:\n",
            "料金：\n",
            "…",
            "こんにちは！ご質問ありがとうございます。",
            "ほかに知りたいことはありますか。",
            "お気軽にお問い合わせください。",
            "以下のとおりです。",
        ] {
            assert!(!claims_something(text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_asked_about() {
        for text in [
            "The museum opens at nine.",
            "Hello! The museum opens at nine.",
            "Sure, it opens at nine, because the curator is an early riser.",
            "Is it open? It opens at nine.",
            "I'm sorry, the museum was closed in 1990.",
            "Opening hours: nine to six.",
            "Entry is free: nobody pays.",
            "返金は無料です：",
            "美術館は九時に開きます。",
            "申し訳ございませんが、返品期限は三日です。",
            "ありがとうございます。料金は三百円です。",
            "開いていますか。九時に開きます。",
        ] {
            assert!(claims_something(text), "{text}");
        }
    }
}
