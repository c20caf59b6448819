//! Japanese words beside MeCab 0.996 with the same dictionary: frozen sentences always, some two
//! thousand generated ones where the oracle is.

use serde_json::{Value, json};

use crate::compat::answers;
use crate::support::{Noise, oracle, resources};

/// Sentences with what MeCab made of them, one `text<TAB>words` per line.
const FROZEN: &str = include_str!("japanese.tsv");

#[test]
fn frozen_sentences() {
    let japanese = resources().japanese.as_ref().unwrap();
    let mut count = 0;
    for line in FROZEN.lines() {
        let (text, expected) = line.split_once('\t').expect("two columns");
        assert_eq!(japanese.wakati(text), expected, "{text}");
        count += 1;
    }
    assert!(count >= 100);
}

#[test]
fn generated_sentences() {
    let Some(python) = oracle() else {
        eprintln!("no Python oracle here (scripts/eval-oracle makes one)");
        return;
    };
    let sentences = sentences(2_000);
    let asked = [json!({"ask": "wakati", "texts": sentences})];
    let answer = answers(&python, &asked).remove(0);
    let japanese = resources().japanese.as_ref().unwrap();
    let wrong: Vec<(&String, String, &Value)> = sentences
        .iter()
        .zip(answer["rows"].as_array().unwrap())
        .map(|(text, theirs)| (text, japanese.wakati(text), theirs))
        .filter(|(_, ours, theirs)| Some(ours.as_str()) != theirs.as_str())
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {:?}",
        wrong.len(),
        sentences.len(),
        &wrong[..wrong.len().min(5)]
    );
}

#[test]
fn words_have_base_forms() {
    let japanese = resources().japanese.as_ref().unwrap();
    let found: Vec<(String, String)> = japanese
        .morphemes("昨日は走った")
        .into_iter()
        .map(|word| (word.part_of_speech, word.base))
        .collect();
    let expected = [
        ("名詞", "昨日"),
        ("助詞", "は"),
        ("動詞", "走る"),
        ("助動詞", "た"),
    ];
    assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn long_texts_end() {
    let japanese = resources().japanese.as_ref().unwrap();
    let text = "今日は良い天気です。".repeat(12_000);
    assert_eq!(japanese.wakati(&text).split(' ').count(), 6 * 12_000);
    let one_run = "ア".repeat(60_000);
    assert_eq!(japanese.wakati(&one_run).replace(' ', ""), one_run);
}

/// Sentences of our own: grammar put together at random, with what makes tokenisers disagree put in
/// between.
pub(crate) fn sentences(count: usize) -> Vec<String> {
    let topics = [
        "私は",
        "彼女は",
        "先生が",
        "会社の同僚が",
        "東京都の職員は",
        "この新しいモデルは",
        "昨日の会議では",
        "外国人参政権について",
        "すもももももも",
        "プログラミング言語Rustは",
        "機械学習の研究者が",
        "猫も犬も",
        "田中さんと鈴木さんは",
        "２０２６年の予算は",
        "GPT-4は",
        "その小さな喫茶店の店主は",
        "母が作った料理は",
    ];
    let places = [
        "図書館で",
        "京都まで",
        "インターネット上で",
        "駅前のスーパーマーケットにて",
        "午後三時に",
        "雨の中を",
        "会議室Aで",
        "地下鉄の中で",
        "世界中に",
        "静かに",
        "思わず",
        "できるだけ早く",
        "",
    ];
    let objects = [
        "本を",
        "新しい技術を",
        "データベースの設計を",
        "日本語の文章を",
        "美味しいラーメンを",
        "長い手紙を",
        "難しい問題を",
        "1,234.56円を",
        "「吾輩は猫である」を",
        "Pythonのコードを",
        "自然言語処理を",
        "歌を",
        "",
    ];
    let verbs = [
        "読んでいます。",
        "食べなければならない。",
        "見せてくれませんか？",
        "勉強していたそうです。",
        "考え直したい！",
        "書かされていた。",
        "飲みすぎちゃった…",
        "使いこなせるようになりました。",
        "やめておいたほうがいいでしょう。",
        "送ってもらえると助かります。",
        "研究させていただいております。",
        "知らないわけではない。",
        "走り出した",
    ];
    let oddities = [
        "",
        "",
        "",
        "😀",
        "\u{3000}",
        "  ",
        "ｶﾞｷﾞｸﾞ",
        "ＡＢＣ",
        "スーパーカリフラジリスティックエクスピアリドーシャスナガイコトバ",
        "12月25日",
        "https://example.com/a?b=c",
        "ヴァイオリン",
        "々〆ヵヶ",
        "ーーー",
        "www",
        "（笑）",
        "①②③",
        "𠮷野家",
        "ﾊﾟｿｺﾝ",
        "\t",
        "a\u{301}",
        "№",
        "！？",
        "…",
        "한국어",
        "é",
        "Ω",
        "がが",
        "っっ",
        "ゎ",
    ];
    let mut noise = Noise(20_261_121);
    (0..count)
        .map(|_| {
            let mut text = String::new();
            for part in [&topics[..], &places[..], &objects[..], &verbs[..]] {
                text.push_str(noise.pick(part));
                if noise.chance(20) {
                    text.push_str(noise.pick(&oddities));
                }
            }
            text
        })
        .collect()
}
