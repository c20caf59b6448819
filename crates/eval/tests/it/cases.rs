//! Questions for the oracle, made from a seed: texts that are built of what goes wrong, pairs that
//! overlap without being equal, and every setting.

use serde_json::{Value, json};

use crate::support::Noise;

#[rustfmt::skip]
const WORDS: &[&str] = &[
    "the", "The", "cat", "cats", "running", "flies", "relational", "happily", "generalization",
    "don't", "isn't", "U.S.", "3.14", "1,000", "2026", "5-4", "x-y", "e.g.", "(hi)", "[1]", "{a}",
    "it's", "WOW", "good", "bad", "not", "GREAT", "terrible", "never", "so", "very", "but", "least",
    "kind", "of", "no", "without", "doubt", "this", "like", ":)", ":(", "lol", "!!!", "???", "?", "!",
    "at", "hope", "sadly", "don’t", "“quoted”", "—", "…", "£3", "50%", "a+b", "<b>", "&amp;",
    "&quot;", "&lt;", "&", "<skipped>", "-", "--", "_", "~", "`", "^", "naïve", "café", "Straße",
    "İstanbul", "ΣΑΣ", "12K", "日本語", "東京", "猫", "が", "好き", "です", "。", "、", "「はい」",
    "カタカナ", "ｶﾞｷﾞ", "ＡＢＣ", "１２３", "我爱", "北京", "한국어", "สวัสดี", "привет", "مرحبا", "नमस्ते",
    "👍", "😀", "😂", "👩‍👩‍👧", "🇯🇵", "❤️", "é", "ﬁ", "①", "½", "²", "€", "→", "\u{20000}", "a", "b", "c", "d",
];

const SPACES: &[&str] = &[
    " ", " ", " ", " ", " ", "  ", "\t", "\n", "\n", "\u{a0}", "\u{3000}", "\u{1c}", "\u{1f}",
    "\u{85}", "\u{2009}", "\u{200b}", "", "-\n",
];

const ENDINGS: &[&str] = &[
    "", "s", "es", "ed", "ing", "ly", "ation", "ational", "izer", "ness", "ful", "fulness",
    "ousli", "alli", "bli", "logi", "y", "ies", "ied", "eed", "iviti", "ement", "ion", "ll", "e",
    "al",
];

/// A text of up to so many pieces.
pub(crate) fn text(noise: &mut Noise, most: usize) -> String {
    let mut text = String::new();
    for _ in 0..noise.below(most + 1) {
        text.push_str(noise.pick(WORDS));
        text.push_str(noise.pick(SPACES));
    }
    text
}

/// A text that shares most of its pieces with another.
fn similar(noise: &mut Noise, to: &str) -> String {
    let mut pieces: Vec<&str> = to.split_inclusive(char::is_whitespace).collect();
    for _ in 0..noise.below(9) {
        if pieces.is_empty() {
            break;
        }
        let at = noise.below(pieces.len());
        match noise.below(4) {
            0 => drop(pieces.remove(at)),
            1 => pieces.insert(at, pieces[at]),
            2 => pieces.swap(at, 0),
            _ => pieces[at] = noise.pick(WORDS),
        }
    }
    pieces.concat()
}

fn rows(noise: &mut Noise, count: usize, references: usize) -> Value {
    let rows: Vec<Value> = (0..count)
        .map(|_| {
            let output = text(noise, 14);
            let references: Vec<String> = (0..references)
                .map(|_| {
                    if noise.chance(85) {
                        similar(noise, &output)
                    } else {
                        text(noise, 14)
                    }
                })
                .collect();
            json!([output, references])
        })
        .collect();
    json!(rows)
}

fn bleu(noise: &mut Noise) -> Value {
    let smooth = noise.pick(&["exp", "floor", "add-k", "none"]);
    let smooth_value = match smooth {
        "floor" => json!([0.1, 0.01, 1.0][noise.below(3)]),
        "add-k" => json!([1.0, 0.5, 2.0][noise.below(3)]),
        _ => Value::Null,
    };
    let references = noise.below(3) + 1;
    json!({
        "ask": "bleu",
        "tokeniser": noise.pick(&["13a", "13a", "intl", "char", "zh", "none", "ja-mecab"]),
        "lowercase": noise.chance(30),
        "smooth": smooth,
        "smooth_value": smooth_value,
        "max_order": if noise.chance(80) { 4 } else { noise.below(4) + 1 },
        "effective_order": noise.chance(30),
        "rows": rows(noise, 6, references),
    })
}

fn chrf(noise: &mut Noise) -> Value {
    let references = noise.below(3) + 1;
    let word_order = [0, 2, 1, 3][noise.below(4)];
    let beta = [2, 2, 1, 3][noise.below(4)];
    json!({
        "ask": "chrf",
        "char_order": if noise.chance(70) { 6 } else { noise.below(6) + 1 },
        "word_order": word_order,
        "beta": beta,
        "lowercase": noise.chance(30),
        "whitespace": noise.chance(30),
        "eps_smoothing": noise.chance(30),
        "rows": rows(noise, 6, references),
    })
}

fn rouge(noise: &mut Noise) -> Value {
    let references = noise.below(3) + 1;
    json!({"ask": "rouge", "stem": noise.chance(50), "rows": rows(noise, 6, references)})
}

fn labels(noise: &mut Noise) -> Value {
    let all = ["a", "b", "c", "d"];
    let count = noise.below(30) + 1;
    let mut draw =
        |most: usize| -> Vec<&str> { (0..count).map(|_| all[noise.below(most)]).collect() };
    let (expected, given) = (draw(3), draw(4));
    let list = match noise.below(3) {
        0 => Value::Null,
        1 => json!(["a", "b", "c"]),
        _ => json!(["c", "a", "b", "d", "e"]),
    };
    let beta = [1.0, 0.5, 2.0][noise.below(3)];
    let average = noise.pick(&["macro", "micro", "weighted", "binary"]);
    // One class of many must be among the expected, or scikit-learn does not know it.
    json!({
        "ask": "labels",
        "positive": if average == "binary" { json!(expected[0]) } else { Value::Null },
        "expected": expected,
        "given": given,
        "labels": list,
        "average": average,
        "beta": beta,
        "zero_division": noise.pick(&["0", "1", "nan"]),
    })
}

fn distance(noise: &mut Noise) -> Value {
    let pairs: Vec<Value> = (0..6)
        .map(|_| {
            let a = text(noise, 20);
            let b = if noise.chance(80) {
                similar(noise, &a)
            } else {
                text(noise, 20)
            };
            json!([a, b])
        })
        .collect();
    json!({"ask": "distance", "pairs": pairs})
}

fn texts(noise: &mut Noise, count: usize, most: usize) -> Vec<String> {
    (0..count).map(|_| text(noise, most)).collect()
}

fn porter(noise: &mut Noise) -> Value {
    let stems = [
        "relat", "hop", "fall", "fil", "agre", "happ", "enjo", "gener", "electr", "conform",
        "sensib", "troubl", "control", "siz", "y", "sk", "d", "ti", "geo", "archaeo", "run", "be",
        "syzyg", "str", "a", "1", "12", "oo", "yyy",
    ];
    let words: Vec<String> = (0..40)
        .map(|_| {
            let endings = [noise.pick(ENDINGS), noise.pick(ENDINGS)];
            format!(
                "{}{}{}",
                noise.pick(&stems),
                endings[0],
                if noise.chance(40) { endings[1] } else { "" }
            )
        })
        .collect();
    json!({"ask": "porter", "words": words})
}

/// Two systems over the same rows of plain words, long enough that no sample is without a match.
fn paired(noise: &mut Noise) -> Value {
    let words = [
        "the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "slept",
    ];
    let mut sentence = |like: Option<&str>| -> String {
        let mut own: Vec<&str> = match like {
            Some(other) => other.split(' ').collect(),
            None => (0..noise.below(8) + 10)
                .map(|_| noise.pick(&words))
                .collect(),
        };
        if like.is_some() {
            for _ in 0..3 {
                let at = noise.below(own.len());
                own[at] = noise.pick(&words);
            }
        }
        own.join(" ")
    };
    let (mut rows, mut other) = (Vec::new(), Vec::new());
    for _ in 0..30 {
        let reference = sentence(None);
        rows.push(json!([sentence(Some(&reference)), [&reference]]));
        other.push(sentence(Some(&reference)));
    }
    json!({"ask": "paired", "rows": rows, "other": other})
}

/// Questions of every kind, so many of each.
pub(crate) fn questions(seed: u64, each: usize) -> Vec<Value> {
    let mut noise = Noise(seed);
    let mut questions = Vec::new();
    for at in 0..each {
        questions.push(bleu(&mut noise));
        questions.push(chrf(&mut noise));
        questions.push(rouge(&mut noise));
        questions.push(labels(&mut noise));
        questions.push(distance(&mut noise));
        questions.push(porter(&mut noise));
        if at % 4 == 0 {
            questions.push(paired(&mut noise));
        }
        questions.push(json!({"ask": "vader", "texts": texts(&mut noise, 8, 12)}));
        let tokeniser = noise.pick(&["13a", "intl", "char", "zh", "none"]);
        questions.push(json!({
            "ask": "tokenise", "tokeniser": tokeniser, "texts": texts(&mut noise, 6, 10),
        }));
    }
    questions
}
