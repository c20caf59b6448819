//! Japanese personal names: in characters, in kana, with or without an honorific.
//!
//! Names are words: 千葉 is a prefecture, 大和 a name and a company, 未来 the future. So a name
//! counts when a surname and a given name of the lists meet and end where a word may end, or when
//! something around says that it is a person: さん, 様, 部長, 氏名：. The lists are in
//! `data/names`, see there for where they come from.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::LazyLock;

use super::text::{is_han, is_hiragana, is_katakana};
use super::{Candidate, Detector, Verdict, View};

pub(super) static JP_PERSON_NAME: Detector = Detector {
    name: "jp_person_name",
    label: "PERSON",
    view: View::Plain,
    patterns: &[
        r"[\p{Han}々ヶ]{1,6} ?[\p{Han}\p{Hiragana}\p{Katakana}ー々ヶ]{0,6}",
        r"[\p{Katakana}ー]{2,8}[ ・]?[\p{Katakana}ー]{0,8}(?:さん|様|さま|氏|くん|君|ちゃん|先生)?",
        r"[\p{Hiragana}]{2,6} [\p{Hiragana}]{2,6}",
    ],
    max_chars: 22,
    at_word: false,
    validate,
};

/// The names that are known.
struct Names {
    surnames: HashSet<&'static str>,
    surname_readings: HashSet<&'static str>,
    given: HashSet<String>,
    given_readings: HashSet<&'static str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let surnames = || {
        lines(include_str!("../../data/names/surnames.txt")).filter_map(|line| line.split_once(' '))
    };
    let given = lines(include_str!("../../data/names/given.txt"))
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(start, ends)| ends.chars().map(move |end| format!("{start}{end}")))
        .collect();
    Names {
        surnames: surnames().map(|(name, _)| name).collect(),
        surname_readings: surnames().map(|(_, reading)| reading).collect(),
        given,
        given_readings: lines(include_str!("../../data/names/given_readings.txt")).collect(),
    }
});

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// What follows a name and makes it one. Longer ones first.
const HONORIFICS: &[&str] = &[
    "さん",
    "さま",
    "くん",
    "ちゃん",
    "様方",
    "様",
    "氏",
    "君",
    "殿",
    "先生",
    "先輩",
    "部長",
    "課長",
    "社長",
    "係長",
    "主任",
    "専務",
    "常務",
    "会長",
    "教授",
    "准教授",
    "博士",
    "議員",
    "選手",
    "監督",
    "弁護士",
    "医師",
    "店長",
    "院長",
    "校長",
    "女史",
    "夫妻",
    "容疑者",
    "被告",
];

/// What stands right before a name and makes it one.
const LABELS: &[&str] = &[
    "氏名",
    "名前",
    "名前は",
    "担当",
    "担当は",
    "担当者",
    "担当者は",
    "患者",
    "患者名",
    "契約者",
    "申込者",
    "申請者",
    "受取人",
    "宛名",
    "名義",
    "名義人",
    "保護者",
    "代表者",
    "代表取締役",
    "代表取締役社長",
    "差出人",
    "本人",
    "利用者",
    "作成者",
    "著者",
    "社員",
    "従業員",
    "顧客名",
    "会員名",
    "フリガナ",
    "ふりがな",
    "カナ",
    "氏名カナ",
    "営業部",
    "部長",
    "課長",
    "社長",
    "私は",
    "私、",
    "僕は",
    "弁護士",
    "医師",
    "店長",
    "教授",
    "候補者",
    "応募者",
    "送り主",
    "届け先",
    "の夫",
    "の妻",
    "上司の",
    "同僚の",
    "友人の",
    "友達の",
    "先輩の",
    "後輩の",
    "部下の",
    "name",
    "お客様",
    "作家の",
    "俳優の",
    "歌手の",
    "選手の",
    "監督の",
    "担当の",
    "株式会社",
];

/// Given names of one character that are hardly ever the end of another word.
const SURE_GIVEN: &str = "誠健翼翔蓮駿聡剛徹茂隆薫忍葵凛瞳舞綾惇淳潤諒遼稔肇晃昴樹蘭茜梓渚悠颯湊";

/// Given names that are words at least as often.
const WORDS: &[&str] = &[
    "一番", "一部", "一方", "一族", "一人", "二人", "三人", "一家", "工業", "産業", "大学", "大字",
    "大地", "中央", "平和", "自然", "未来", "希望", "勝利", "人生", "成功", "安全", "公平", "正義",
    "正直", "正確", "明治", "大正", "昭和", "平成", "和平", "東洋", "太平", "海洋", "海里", "千代",
    "八代", "三代", "二代", "初代", "古道", "街道", "武道", "成人", "新人", "本人", "友人", "美人",
    "夫人", "歌人", "詩人", "名人", "達人", "恩人", "大人", "同人", "住人", "住友", "公道", "国道",
    "鉄道", "水道", "軌道", "報道", "道理", "料理", "管理", "真理", "原理", "地理", "心理", "論理",
    "倫理", "修理", "整理", "総理", "代理", "処理", "高校", "高原", "温泉", "美術", "芸術", "音楽",
    "文化", "文明", "文学", "科学", "数学", "理学", "医学", "法学", "見学", "入学", "進学", "留学",
    "光明", "説明", "証明", "発明", "照明", "表明", "判明", "不明", "行政", "財政", "国政", "市政",
    "内政", "政治", "自治", "統治", "事実", "現実", "真実", "果実", "充実", "実現", "実行", "実力",
    "協力", "努力", "能力", "勢力", "有力", "電力", "水力", "建築", "宮城", "山城", "名城", "古城",
    "城下", "山門", "正門", "中門", "西門", "東門", "記念", "信仰", "信用", "信頼", "美容", "健康",
    "健全", "生命", "長寿", "永久", "永遠", "元気", "勇気", "天気", "空気", "電気", "景気", "人気",
    "活気", "元年", "青年", "少年", "新年", "今年", "来年", "毎年", "七夕", "三月", "五月", "六月",
    "八月", "十月", "正月", "元日", "朝日", "旭日", "春日", "今日", "明日", "昨日", "毎日", "平日",
    "先生", "学生", "衛生", "厚生", "更生", "野生", "芝生", "一生", "海岸", "海外", "世界", "世紀",
    "世代", "時代", "現代", "近代", "古代", "歴史", "国史", "通信", "送信", "受信", "自信", "確信",
    "電信", "交通", "普通", "共通", "開通", "流通", "大通", "目的", "公的", "知的", "美的", "教育",
    "体育", "保育", "飼育", "発育", "委員", "会社", "神社", "本社", "有利", "勝利", "権利", "便利",
    "金利", "支店", "本店", "商店", "商事", "商会", "支配", "新田", "本町", "新町", "大町", "弥生",
    "公園", "庭園", "学園", "花園", "楽園", "農園", "空港", "新港", "漁港", "本港", "大橋", "新橋",
    "石橋", "高橋", "大山", "小山", "遺伝", "宣伝", "自伝", "自由", "理由", "経由", "由来", "将来",
    "従来", "元来", "本来", "和歌", "短歌", "国歌", "校歌", "詩歌", "高級", "上級", "初級", "学級",
    "等級", "進級", "大和", "中和", "調和", "緩和", "共和", "英和", "和英", "和紙", "用紙", "表紙",
    "全国", "中国", "四国", "英国", "米国", "王国", "帝国", "大国", "小国", "建国", "開国", "祖国",
    "愛国", "天国", "異国", "本気", "里山", "登山", "鉱山", "火山", "本山", "高山", "中山", "西山",
    "東山", "秋山", "春山", "夏山", "青山", "村山", "丸山", "城山",
];

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    let first = found.text.chars().next()?;
    match first {
        c if is_katakana(c) || is_hiragana(c) => in_kana(found),
        _ => in_characters(found),
    }
}

/// What is known around a name that would end at `end`.
struct Around {
    /// さん, 様, 部長 …
    honorific: bool,
    /// The name ends where a word may end.
    ends: bool,
}

fn around(found: &Candidate<'_>, end: usize) -> Around {
    let rest = &found.text[end..];
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let honorific = HONORIFICS.iter().any(|word| follows(found, rest, word));
    let next = rest.chars().next().or(found.after);
    let ends = honorific || !next.is_some_and(|c| is_han(c) || is_katakana(c));
    Around { honorific, ends }
}

/// Whether an honorific comes next and is not the beginning of another word (氏名, 君主).
fn follows(found: &Candidate<'_>, rest: &str, word: &str) -> bool {
    if let Some(beyond) = rest.strip_prefix(word) {
        let next = beyond.chars().next().or(found.after);
        return !(word.ends_with(is_han) && next.is_some_and(is_han));
    }
    // The candidate may end within the honorific: what is after it tells the next character.
    let Some(after) = found.after.filter(|_| word.starts_with(rest)) else {
        return false;
    };
    let seen = format!("{rest}{after}");
    word == seen || (seen.chars().count() >= 2 && word.starts_with(&seen))
}

fn in_characters(found: &Candidate<'_>) -> Option<Verdict> {
    // The longest surname first: 佐々木, not 佐. Looked up before all else: nearly every character
    // of a Japanese text is a candidate.
    let surnames = (1..=3).rev().filter_map(|size| {
        let end = prefix_end(found.text, size)?;
        NAMES.surnames.contains(&found.text[..end]).then_some(end)
    });
    let label = Label::of(found);
    let joins = |c: char| is_han(c) || is_katakana(c) || c == 'お' || c == 'ご';
    let clear = !found.previous().is_some_and(joins);
    for end in surnames {
        let verdict = match clear || label.is_there() {
            true => full_name(found, end, &label)
                .or_else(|| rare_given(found, end))
                .or_else(|| surname_alone(found, &found.text[..end], &label)),
            false => behind_a_word(found, end),
        };
        if verdict.is_some() {
            return verdict;
        }
    }
    let size = han_run(found.text);
    if !clear || !(3..=6).contains(&size) {
        return None;
    }
    rare_surname(found, size).or_else(|| in_a_form(found, size))
}

/// Whether something right before a name says that one comes. Asked for late and once, because
/// nearly every character is a candidate and there are many labels.
struct Label<'a> {
    found: &'a Candidate<'a>,
    known: OnceCell<bool>,
}

impl<'a> Label<'a> {
    fn of(found: &'a Candidate<'a>) -> Self {
        Label {
            found,
            known: OnceCell::new(),
        }
    }

    fn is_there(&self) -> bool {
        *self
            .known
            .get_or_init(|| self.found.tail().label_ends(LABELS))
    }
}

/// How many Chinese characters the text begins with.
fn han_run(text: &str) -> usize {
    text.chars().take_while(|c| is_han(*c)).count()
}

/// What companies, offices, places and crowds end with, which are greeted with さん as well.
const NO_PERSON: &str = "店社会院局部課係屋館校所寺駅市県町村区行庁署民業組団員者手師士長役人家客主生界側城神様方子供宮堂園省府都道郡族軍党派隊座\
    学属銀設機工気鉄鋼薬品器料油電化研協連庫田岳谷台岬川山原路通丁浜名";

/// A known surname, and before さん, 様 or 氏 a given name that is on no list.
fn rare_given(found: &Candidate<'_>, surname_end: usize) -> Option<Verdict> {
    let run = han_run(found.text);
    let surname = found.text[..surname_end].chars().count();
    // 様 and 氏 are of the run themselves.
    (surname + 1..=run.min(surname + 3)).find_map(|size| {
        let end = prefix_end(found.text, size)?;
        let given = &found.text[surname_end..end];
        let person = surname >= 2
            && !HONORIFICS.iter().any(|word| given.starts_with(word))
            && !given.ends_with(|c| NO_PERSON.contains(c));
        let polite = POLITE
            .iter()
            .any(|word| follows(found, &found.text[end..], word));
        (person && polite).then_some(found.part(end, 0.75)?)
    })
}

/// How people, and hardly anything else, are greeted.
const POLITE: &[&str] = &["さん", "さま", "様", "氏", "くん"];

/// A surname that is on no list, and before さん, 様 or 氏 a given name that is.
fn rare_surname(found: &Candidate<'_>, run: usize) -> Option<Verdict> {
    (4..=run.min(6)).find_map(|size| {
        let end = prefix_end(found.text, size)?;
        let start = prefix_end(found.text, 2)?;
        let given = &found.text[start..end];
        let known = is_given(given) && given.chars().count() >= 2 && !WORDS.contains(&given);
        let polite = POLITE
            .iter()
            .any(|word| follows(found, &found.text[end..], word));
        let person = !given.ends_with(|c| NO_PERSON.contains(c));
        (known && polite && person).then_some(found.part(end, 0.7)?)
    })
}

/// What stands in a form where a name goes, whatever it is.
fn in_a_form(found: &Candidate<'_>, run: usize) -> Option<Verdict> {
    const FIELDS: &[&str] = &[
        "氏名",
        "名前",
        "患者名",
        "契約者",
        "契約者名",
        "申込者",
        "申込者名",
        "申請者",
        "受取人",
        "名義人",
        "保護者",
        "保護者名",
        "担当者名",
        "会員名",
        "顧客名",
        "社員名",
        "代表者名",
        "差出人",
    ];
    const NO_ANSWERS: &[&str] = &[
        "未入力",
        "非公開",
        "非表示",
        "記入欄",
        "入力欄",
        "省略可",
        "不明者",
        "記載例",
        "記入例",
        "未定義",
        "文字列",
    ];
    let marked = found
        .before
        .trim_end()
        .ends_with([':', '：', '】', '」', '=', '|']);
    if !marked || !found.tail().label_ends(FIELDS) {
        return None;
    }
    let size = match found.text.chars().nth(run - 1) {
        Some('様' | '殿' | '氏') => run - 1,
        _ => run,
    };
    let end = prefix_end(found.text, size)?;
    let name = &found.text[..end];
    let next = found.next(prefix_end(found.text, run)?);
    let ends = !next.is_some_and(|c| is_han(c) || is_hiragana(c) || is_katakana(c));
    let answer = !NO_ANSWERS.contains(&name)
        && !WORDS.contains(&name)
        && !name.ends_with(|c| "欄用済中無外可否名値型列".contains(c));
    (ends && answer && size >= 3).then_some(found.part(end, 0.7)?)
}

/// A surname right behind another word (至急伊藤部長): only a long enough one with an honorific.
fn behind_a_word(found: &Candidate<'_>, end: usize) -> Option<Verdict> {
    let long = found.text[..end].chars().nth(1).is_some();
    if !long || found.previous().is_some_and(|c| !is_han(c)) {
        return None;
    }
    let sure = ["さん", "様", "さま", "氏", "くん", "部長", "課長", "社長"];
    let polite = sure
        .iter()
        .any(|word| follows(found, &found.text[end..], word));
    polite.then_some(found.part(end, 0.7)?)
}

/// Where the first `size` characters end.
fn prefix_end(text: &str, size: usize) -> Option<usize> {
    let (at, c) = text.char_indices().nth(size - 1)?;
    Some(at + c.len_utf8())
}

/// A surname of the list and a given name behind it.
fn full_name(found: &Candidate<'_>, surname_end: usize, label: &Label<'_>) -> Option<Verdict> {
    let rest = &found.text[surname_end..];
    let spaced = rest.starts_with(' ');
    let start = surname_end + usize::from(spaced);
    let surname_size = found.text[..surname_end].chars().count();
    (1..=4).rev().find_map(|size| {
        let end = start + prefix_end(&found.text[start..], size)?;
        let given = &found.text[start..end];
        let kana = given.chars().all(|c| is_hiragana(c) || is_katakana(c));
        let known = match kana {
            true => size >= 2 && NAMES.given_readings.contains(hiragana(given).as_str()),
            false => is_given(given),
        };
        if !known {
            return None;
        }
        let around = around(found, end);
        if !around.ends {
            return None;
        }
        let told = around.honorific || label.is_there();
        let likely = match (surname_size, size) {
            (1, 1) => around.honorific && label.is_there(),
            (1, _) => told || (spaced && size == 2 && !WORDS.contains(&given) && !kana),
            (_, 1) => told || spaced || SURE_GIVEN.contains(given),
            // Kana behind a surname is mostly grammar: "山田あり" is no name.
            (_, _) if kana => {
                told || (spaced && size >= 3) || (size >= 3 && given.chars().all(is_katakana))
            }
            (_, _) => told || !WORDS.contains(&given),
        };
        likely.then_some(found.part(end, if told { 0.95 } else { 0.8 })?)
    })
}

/// Whether characters are a given name: of the list, or made as long ones are made.
fn is_given(name: &str) -> bool {
    const ENDS: &[&str] = &[
        "太郎",
        "一郎",
        "次郎",
        "二郎",
        "三郎",
        "四郎",
        "五郎",
        "太朗",
        "一朗",
        "士郎",
        "史郎",
        "志郎",
        "之介",
        "之助",
        "之進",
        "之丞",
        "右衛門",
        "左衛門",
        "兵衛",
    ];
    let made = |end: &&str| {
        name.strip_suffix(*end)
            .is_some_and(|start| start.chars().count() == 1)
    };
    // 由美子 is 由美 and an ending.
    let lengthened = name.chars().count() == 3
        && name
            .strip_suffix(|c| "子代江恵香奈乃".contains(c))
            .is_some_and(|start| NAMES.given.contains(start));
    NAMES.given.contains(name) || lengthened || ENDS.iter().any(made)
}

/// Surnames that are an ordinary word before 様 or さん (奥様, 皆さん).
const NO_SURNAMES: &str = "奥皆神王仏姫客娘嫁孫主宮堂殿何今見";

/// What makes a surname of one character a name: 南殿 and 北部長 are places and posts.
const AFTER_SHORT: &[&str] = &["さん", "さま", "くん", "ちゃん", "様", "氏", "先生"];

fn surname_alone(found: &Candidate<'_>, surname: &str, label: &Label<'_>) -> Option<Verdict> {
    let around = around(found, surname.len());
    let short = surname.chars().count() == 1;
    if NO_SURNAMES.contains(surname) {
        return None;
    }
    let rest = &found.text[surname.len()..];
    let polite = || AFTER_SHORT.iter().any(|word| follows(found, rest, word));
    if around.honorific && (!short || polite()) {
        return found.part(surname.len(), 0.9);
    }
    // "氏名：山田" and "担当: 佐藤", but not "の妻は" nor "課長林".
    let marked = found.before.ends_with([':', '：', '】', '」', '=', '|']);
    (marked && around.ends && !short && label.is_there()).then_some(found.part(surname.len(), 0.8)?)
}

/// Names in katakana or hiragana, by their readings.
fn in_kana(found: &Candidate<'_>) -> Option<Verdict> {
    let katakana = found.text.starts_with(is_katakana);
    let joined = |c: char| {
        if katakana {
            is_katakana(c) || c == '・'
        } else {
            is_hiragana(c)
        }
    };
    if found.previous().is_some_and(joined) {
        return None;
    }
    let label = found.tail().label_ends(LABELS);
    let end = found
        .text
        .char_indices()
        .find(|(_, c)| {
            let same = if katakana {
                is_katakana(*c)
            } else {
                is_hiragana(*c)
            };
            !(same || *c == ' ' || *c == '・')
        })
        .map_or(found.text.len(), |(at, _)| at);
    let name = &found.text[..end].trim_end();
    let around = around(found, name.len());
    if found.next(name.len()).is_some_and(joined) {
        return None;
    }
    match name.split_once([' ', '・']) {
        Some((first, second)) => two_parts(found, name.len(), (first, second), &around, label),
        None => one_part(found, name, &around, label),
    }
}

/// Words in katakana that stand in pairs and before さん without being names.
const LOANWORDS: &[&str] = &[
    "システム",
    "エンジニア",
    "マネージャー",
    "サービス",
    "ユーザー",
    "スタッフ",
    "メーカー",
    "センター",
    "グループ",
    "チーム",
    "パートナー",
    "オーナー",
    "デザイナー",
    "ディレクター",
    "カスタマー",
    "サポート",
    "ショップ",
    "ストア",
    "ホテル",
    "レストラン",
    "スーパー",
    "コンサル",
    "プロジェクト",
    "ドライバー",
    "アドバイザー",
    "クリニック",
    "スクール",
    "ネット",
    "カフェ",
    "バイト",
];

fn two_parts(
    found: &Candidate<'_>,
    end: usize,
    (first, second): (&str, &str),
    around: &Around,
    label: bool,
) -> Option<Verdict> {
    let japanese = NAMES.surname_readings.contains(hiragana(first).as_str())
        && NAMES.given_readings.contains(hiragana(second).as_str());
    let foreign = found.text.contains('・')
        && second.chars().count() >= 2
        && !LOANWORDS
            .iter()
            .any(|word| first.contains(word) || second.contains(word));
    let told = label || around.honorific;
    match (japanese, foreign) {
        (true, _) => found.part(end, if told { 0.95 } else { 0.75 }),
        (_, true) if told => found.part(end, 0.85),
        _ => None,
    }
}

/// Surname and given name without a space, or a surname with an honorific.
fn one_part(found: &Candidate<'_>, name: &str, around: &Around, label: bool) -> Option<Verdict> {
    let reading = hiragana(name);
    let alone = NAMES.surname_readings.contains(reading.as_str());
    // カミさん is a wife.
    let alone = alone && reading != "かみ";
    if around.honorific && alone && reading.chars().count() >= 2 && name.starts_with(is_katakana) {
        return found.part(name.len(), 0.85);
    }
    let both = reading.char_indices().skip(2).any(|(at, _)| {
        NAMES.surname_readings.contains(&reading[..at])
            && NAMES.given_readings.contains(&reading[at..])
    });
    let account = found.tail().has(24, &["普通", "当座", "口座", "名義"]);
    (both && (label || around.honorific || account)).then_some(found.part(name.len(), 0.85)?)
}

/// Katakana as hiragana.
fn hiragana(text: &str) -> String {
    let one = |c: char| match c {
        'ァ'..='ヶ' => char::from_u32(c as u32 - 0x60).unwrap_or(c),
        _ => c,
    };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::JP_PERSON_NAME;

    #[test]
    fn names() {
        for marked in [
            "⟦山田太郎⟧です",
            "⟦佐藤 花子⟧様",
            "担当の⟦鈴木⟧さんに連絡",
            "⟦佐々木健一⟧部長は不在です",
            "氏名：⟦高橋⟧",
            "氏名：⟦林 誠⟧様",
            "⟦田中誠⟧が来た",
            "⟦伊藤美咲⟧と⟦渡辺翔太⟧の二人",
            "フリガナ：⟦ヤマダ タロウ⟧",
            "普通 1234567 ⟦ヤマダタロウ⟧",
            "⟦タナカ⟧様、お世話になります",
            "⟦やまだ たろう⟧",
            "⟦ジョン・スミス⟧氏が",
            "⟦森⟧さんと⟦林⟧先生",
            "代表取締役社長⟦中村健太郎⟧",
            "⟦山田はなこ⟧さん",
            "⟦石川⟧君",
            "奥田という人ではなく⟦奥田文敏⟧さん、⟦鰍沢正胤⟧様",
            "氏名：⟦築田總一郎⟧",
            "山田商店さん、千葉銀行様、管理人さん、看護師さん",
            "氏名：未入力、名前：変数名",
            "千葉大学と石川県と宮崎市",
            "奥様、皆様、お客様、神様、王様",
            "東京都と京都府、東洋の西洋料理",
            "山口県庁、高田馬場駅、大久保駅前",
            "本田技研工業と松下電器、三井住友銀行",
            "森林、林道、原因、関係、谷間、岡山城",
            "スター・ウォーズとユーザーさん",
            "氏名を入力してください。名前は必須です。",
            "上田電鉄、長野新幹線、福島原発、金子みすゞ記念館",
        ] {
            check(&JP_PERSON_NAME, marked);
        }
    }
}
