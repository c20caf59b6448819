//! A small sentiment lexicon of our own, English and Japanese. It is **not VADER** and has no claim
//! to its numbers: some hundred words that everybody agrees on, a flip by negation, and the balance
//! of what is left. Good for watching a direction over many answers, too coarse for one.

/// The sentiment of a text by the small lexicon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SmallSentiment {
    /// Positive words found, after negation.
    pub positive: usize,
    /// Negative words found, after negation.
    pub negative: usize,
}

impl SmallSentiment {
    /// (positive − negative) ÷ (positive + negative), −1 to 1; none when no word was found, because
    /// "no opinion found" is not "neutral".
    pub fn balance(self) -> Option<f64> {
        let found = self.positive + self.negative;
        (found > 0).then(|| (self.positive as f64 - self.negative as f64) / found as f64)
    }
}

#[rustfmt::skip]
const GOOD: &[&str] = &[
    "good", "great", "excellent", "wonderful", "fantastic", "amazing", "awesome", "perfect",
    "lovely", "nice", "beautiful", "brilliant", "superb", "outstanding", "impressive",
    "delightful", "pleasant", "happy", "glad", "pleased", "satisfied", "love", "loved", "loves",
    "like", "liked", "enjoy", "enjoyed", "thanks", "thank", "helpful", "useful", "recommend",
    "recommended", "best", "better", "success", "successful", "win", "friendly", "easy",
    "reliable", "clear", "correct", "fast",
];

#[rustfmt::skip]
const BAD: &[&str] = &[
    "bad", "terrible", "awful", "horrible", "poor", "worst", "worse", "disappointing",
    "disappointed", "disappointment", "useless", "broken", "wrong", "sad", "angry", "annoying",
    "annoyed", "hate", "hated", "hates", "dislike", "ugly", "boring", "confusing", "difficult",
    "slow", "unreliable", "fail", "failed", "fails", "failure", "error", "problem", "problems",
    "unhappy", "unhelpful", "dangerous", "rude", "waste", "regret", "lost", "pain", "painful",
    "fear", "afraid",
];

const NOT: &[&str] = &[
    "not", "no", "never", "without", "hardly", "nothing", "cannot",
];

#[rustfmt::skip]
const GOOD_JA: &[&str] = &[
    "良い", "よい", "良かった", "よかった", "いいです", "素晴らしい", "すばらしい", "素敵", "最高",
    "嬉しい", "うれしい", "楽しい", "楽しかった", "美味しい", "おいしい", "好き", "満足", "感謝",
    "ありがと", "助かり", "助かった", "便利", "快適", "安心", "親切", "丁寧", "綺麗", "きれい",
    "美しい", "面白い", "おもしろい", "お勧め", "おすすめ", "役に立", "完璧", "優秀", "見事", "成功",
    "幸せ", "分かりやすい", "わかりやすい", "使いやすい",
];

#[rustfmt::skip]
const BAD_JA: &[&str] = &[
    "悪い", "悪かった", "ひどい", "酷い", "最悪", "最低", "残念", "悲しい", "つらい", "辛かった",
    "嫌い", "嫌だ", "不満", "不便", "不安", "不快", "失敗", "失望", "がっかり", "困る", "困った",
    "困って", "面倒", "怖い", "危険", "遅い", "壊れ", "間違", "問題が", "使いにくい", "わかりにくい",
    "分かりにくい", "まずい", "つまらない", "後悔", "無駄", "怒り", "苦情", "腹が立",
];

/// What turns a Japanese word round when it stands right after it.
const NOT_JA: &[&str] = &[
    "ない",
    "なかった",
    "ません",
    "くない",
    "くなかった",
    "くありません",
    "ではない",
    "ではありません",
    "じゃない",
    "ではなかった",
    "とは言えない",
    "とはいえない",
    "はない",
    "はありません",
];

/// Counts the words of both lists, whatever the language.
pub fn small_sentiment(text: &str) -> SmallSentiment {
    let text = crate::text::nfkc(text).to_lowercase();
    let mut found = SmallSentiment::default();
    english(&text, &mut found);
    japanese(&text, &mut found);
    found
}

fn english(text: &str, found: &mut SmallSentiment) {
    let words: Vec<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .filter(|word| !word.is_empty())
        .collect();
    for (at, word) in words.iter().enumerate() {
        let good = GOOD.contains(word);
        if !good && !BAD.contains(word) {
            continue;
        }
        let before = &words[at.saturating_sub(3)..at];
        let turned = before
            .iter()
            .any(|word| NOT.contains(word) || word.ends_with("n't") || word.ends_with("n’t"));
        count(found, good != turned);
    }
}

fn japanese(text: &str, found: &mut SmallSentiment) {
    for (list, good) in [(GOOD_JA, true), (BAD_JA, false)] {
        for word in list {
            for (at, _) in text.match_indices(word) {
                let after = &text[at + word.len()..];
                let turned = NOT_JA.iter().any(|not| after.starts_with(not));
                count(found, good != turned);
            }
        }
    }
    // An adjective's own negation changes its ending: 良い, 良くない.
    for (list, good) in [(GOOD_JA, true), (BAD_JA, false)] {
        for stem in list.iter().filter_map(|word| word.strip_suffix('い')) {
            for ending in ["くない", "くなかった", "くありません"] {
                for _ in text.match_indices(&format!("{stem}{ending}")) {
                    count(found, !good);
                }
            }
        }
    }
}

fn count(found: &mut SmallSentiment, good: bool) {
    if good {
        found.positive += 1;
    } else {
        found.negative += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(small_sentiment(text).balance(), expected, "{text}");
        };
        check("This is a great and helpful answer.", Some(1.0));
        check("It isn't good.", Some(-1.0));
        check("Good start, terrible end.", Some(0.0));
        check("The train leaves at nine.", None);
        check("とても使いやすくて最高です", Some(1.0));
        check("最悪の体験でした", Some(-1.0));
        check("美味しくない", Some(-1.0));
        check("好きではない", Some(-1.0));
        check("電車は九時に出ます", None);
        check("", None);
    }
}
