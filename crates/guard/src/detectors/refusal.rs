//! Answers that refuse: what models say instead of an answer, in English and Japanese.
//!
//! Only near the start of a text. Further down the same words are advice ("I cannot recommend
//! this hotel enough"), a quotation, or a limit beside an answer.

use super::{Candidate, Detector, Verdict, View};

/// How many characters may stand before a refusal: a greeting, a sentence that thanks.
const LEAD_CHARS: usize = 60;

pub(super) static REFUSAL: Detector = Detector {
    name: "refusal",
    label: "REFUSAL",
    view: View::Plain,
    patterns: &[
        r"(?:i['’]?m|i am|we are|we['’]re) (?:very |so |really |truly )?sorry,? (?:but )?(?:i|we|that|this|as) ?(?:can['’]?t|cannot|can not|won['’]?t|will not|am (?:not able|unable)|['’]m (?:not able|unable)|must decline)",
        r"(?:sorry|apologies|i apologi[sz]e),? but (?:i|we) (?:can['’]?t|cannot|won['’]?t|am unable|am not able|must decline)",
        r"i (?:can['’]?t|cannot|can not|won['’]?t|will not|am unable to|am not able to|['’]?m unable to) (?:really |ethically |in good conscience )?(?:assist|help|comply|provide|fulfill|fulfil|create|generate|write|answer|engage|support|discuss|participate|continue|do that|do this|share)",
        r"i['’]m (?:unable|not able) to (?:assist|help|comply|provide|fulfill|fulfil|create|generate|write|answer|engage|discuss|continue|share)",
        r"i (?:must|have to|need to|will have to) (?:respectfully |politely )?(?:decline|refuse)",
        r"as an ai(?: language model| assistant| model)?,? i (?:can['’]?t|cannot|do not|don['’]?t|am not|am unable|won['’]?t|must)",
        r"(?:this|that|your|the) (?:request|question|topic|content) (?:violates|goes against|is against|is not something i can)",
        r"it (?:would be|is|['’]s) (?:not appropriate|inappropriate|unethical|against my)",
        r"i['’]?m not comfortable (?:with|helping|providing|writing)",
        r"(?:申し訳|もうしわけ)(?:ござ|あり)ません(?:が|けれど|けど)?[、, ]?[^。\n]{0,40}(?:でき(?:ません|かね)|お答え|お手伝い|対応(?:でき|いたし)|応じ|お断り|いたしかね|控え)",
        r"すみませんが?[、, ]?[^。\n]{0,30}(?:でき(?:ません|かね)|お答え|お手伝いでき|応じられ|お断り)",
        r"(?:その|この|ご)?(?:依頼|要求|リクエスト|質問|要望|内容|件)(?:に|には|について|については)[^。\n]{0,16}(?:お答え|回答|対応|お応え|応じる|協力|お手伝い)[^。\n]{0,10}(?:でき(?:ません|かね)|いたしかね|ません)",
        r"お(?:答え|手伝い|応え)(?:すること(?:は|が))?(?:でき(?:ません|かね)|いたしかね|しかね)",
        r"(?:提供|生成|作成|回答|説明|支援|協力)(?:すること)?(?:は|が)?でき(?:ません|かねます)",
        r"お断り(?:いたします|します|させて)",
        r"ai(?:言語モデル|アシスタント)?(?:として|ですので|なので)[、, ]?[^。\n]{0,30}(?:でき(?:ません|かね)|ありません)",
    ],
    max_chars: 100,
    at_word: true,
    validate,
};

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    let before = found.before.chars().count();
    // "提供はできませんでした" tells what happened.
    let past = found.next(found.text.len()) == Some('で') && found.text.ends_with("ません");
    (before <= LEAD_CHARS && !past).then_some(found.whole(0.9)?)
}

#[cfg(test)]
mod tests {
    use super::super::check::find;
    use super::REFUSAL;

    #[test]
    fn answers() {
        for refusal in [
            "I'm sorry, but I can't help with that.",
            "I cannot assist with this request.",
            "Sorry, but I won't do that.",
            "As an AI language model, I don't have opinions on this.",
            "Thank you for asking. I must respectfully decline.",
            "I’m unable to provide that information.",
            "申し訳ございませんが、そのご依頼にはお答えできません。",
            "申し訳ありませんが、お手伝いすることはできません。",
            "すみませんが、その質問には回答できません。",
            "そのリクエストには対応できかねます。",
            "ご質問ありがとうございます。この件についてはお答えいたしかねます。",
            "AIアシスタントとして、医療上の診断はできません。",
        ] {
            assert_eq!(find(&REFUSAL, refusal).len().min(1), 1, "{refusal}");
        }
        for answer in [
            "Sure! Here is how to bake bread.",
            "You can't help but smile when it rains there.",
            "The server cannot write to the disk, so restart it.",
            "I can help you with that.",
            "はい、できます。手順は次の通りです。",
            "申し訳ございませんと伝えましょう。",
            "このボタンを押すと保存できます。設定がない場合は保存されません。",
        ] {
            assert!(find(&REFUSAL, answer).is_empty(), "{answer}");
        }
        let late = format!(
            "{} I cannot assist with this request.",
            "A long answer. ".repeat(10)
        );
        assert!(find(&REFUSAL, &late).is_empty());
    }
}
