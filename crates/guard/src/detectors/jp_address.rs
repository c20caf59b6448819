//! Japanese postal codes and addresses down to the house. A prefecture or a city alone is no
//! personal data and is left alone.

use super::text::{is_dash, is_han, is_hiragana, is_katakana, is_word};
use super::{Candidate, Detector, Verdict, View};

pub(super) static JP_POSTAL_CODE: Detector = Detector {
    name: "jp_postal_code",
    label: "POSTAL_CODE",
    view: View::Digits,
    patterns: &[
        r"[〒〠] ?[0-9]{3}[-‐-―−ー ]?[0-9]{4}",
        r"[0-9]{3}[-‐-―−ー][0-9]{4}(?:[ \n]{0,2}(?:北海道|東京都|京都府|大阪府|[\p{Han}0-9]{2,3}県))?",
        r"[0-9]{7}",
    ],
    max_chars: 16,
    at_word: true,
    validate: validate_postal_code,
};

pub(super) static JP_ADDRESS: Detector = Detector {
    name: "jp_address",
    label: "ADDRESS",
    view: View::Plain,
    patterns: &[concat!(
        r"(?:(?:北海道|東京都|京都府|大阪府|[\p{Han}]{2,3}県) ?)?",
        r"(?:[\p{Han}ヶケノツ]{1,6}|さいたま|つくば|つくばみらい|いわき|ひたちなか|かすみがうら|みどり|ふじみ野|",
        r"いすみ|うるま|さくら|つがる|にかほ|みやま|えびの|たつの|みよし|あま|いなべ|おいらせ|むつ|かほく|",
        r"あきる野|あわら|さぬき|東かがわ|まんのう|いの|ニセコ)[市区町村郡]",
        r" ?[\p{Han}\p{Hiragana}\p{Katakana}ーヶ]{0,16} ?",
        r"(?:[東西南北]?[0-9〇一二三四五六七八九十百]{1,4}(?:丁目|番地の?|番|号|条|[-‐-―−ー]|の) ?){1,5}",
        r"(?:[0-9〇一二三四五六七八九十百]{1,4}(?:号室|号|番地|番)?)?",
        r"(?: ?[\p{Han}\p{Katakana}ーa-z]{2,14} ?[0-9]{1,4}(?:号室|号|室|階|f))?",
    )],
    max_chars: 80,
    at_word: false,
    validate: validate_address,
};

fn validate_postal_code(found: &Candidate<'_>) -> Option<Verdict> {
    let joins = |c: char| is_word(c) || is_dash(c) || c == '.';
    let marked = found.text.starts_with(['〒', '〠']);
    if !marked && found.previous().is_some_and(joins) {
        return None;
    }
    let last = found.text.rfind(|c: char| c.is_ascii_digit())?;
    let before_prefecture = found.text.ends_with(['道', '都', '府', '県']);
    let code_end = match before_prefecture {
        // A prefecture that begins with a numeral (三重県) has one behind the code.
        true => {
            found
                .text
                .char_indices()
                .filter(|(_, c)| c.is_ascii_digit())
                .nth(6)?
                .0
                + 1
        }
        false => last + 1,
    };
    let continues = |c: char| is_word(c) || is_dash(c);
    if found.next(code_end).is_some_and(continues) && !before_prefecture {
        return None;
    }
    let labels = ["郵便番号", "〒", "zip", "postal", "postcode"];
    let labelled = found.tail().has(12, &labels);
    match (marked || labelled, before_prefecture) {
        (true, _) => found.part(code_end, 0.97),
        (false, true) => found.part(code_end, 0.95),
        _ => None,
    }
}

/// Words that end like a municipality and are none.
const NO_PLACES: &[&str] = &[
    "地区",
    "校区",
    "学区",
    "都市",
    "特区",
    "選挙区",
    "管区",
    "農村",
    "漁村",
    "下町",
    "港町",
    "城下町",
    "区",
    "市",
    "町",
    "村",
    "郡",
    "朝市",
    "夜市",
    "市区",
    "各市",
    "同市",
    "当市",
    "本市",
    "全市",
    "各区",
    "同区",
    "各町",
    "市町",
    "大都市",
    "政令市",
    "先端都市",
    "工区",
    "街区",
    "鉱区",
    "禁漁区",
    "保護区",
    "解放区",
];

fn validate_address(found: &Candidate<'_>) -> Option<Verdict> {
    // Within a longer word, its start was tried before. A label may stand right before.
    let label = found.tail().label_ends(&[
        "住所",
        "所在地",
        "宛先",
        "送付先",
        "届け先",
        "本籍",
        "勤務先",
        "自宅",
    ]);
    if !label
        && found
            .previous()
            .is_some_and(|c| is_han(c) || is_katakana(c))
    {
        return None;
    }
    let text = found.text.trim_end();
    let prefecture = prefecture_end(text);
    let rest = &text[prefecture..];
    let place = rest.find(['市', '区', '町', '村', '郡'])?;
    let place_end = place + '市'.len_utf8();
    if NO_PLACES.contains(&rest[..place_end].trim_start()) {
        return None;
    }
    let number = number_start(&rest[place_end..])? + place_end;
    if !is_town(&rest[place_end..number]) {
        return None;
    }
    let numbers = &rest[number..];
    // 南町一条 alone is the name of a quarter.
    let units = ["丁目", "番", "号"]
        .iter()
        .filter(|unit| numbers.contains(*unit))
        .count();
    let dashes = numbers.chars().filter(|c| is_dash(*c)).count();
    let house = units >= 1 || dashes >= 2 || (prefecture > 0 && dashes >= 1);
    if !house
        || text.ends_with(is_dash)
        || found.next(text.len()).is_some_and(|c| c.is_ascii_digit())
    {
        return None;
    }
    found.part(text.len(), if prefecture > 0 { 0.95 } else { 0.85 })
}

/// Where the prefecture ends; zero without one.
fn prefecture_end(text: &str) -> usize {
    const NAMES: &[&str] = &[
        "北海道",
        "東京都",
        "京都府",
        "大阪府",
        "青森県",
        "岩手県",
        "宮城県",
        "秋田県",
        "山形県",
        "福島県",
        "茨城県",
        "栃木県",
        "群馬県",
        "埼玉県",
        "千葉県",
        "神奈川県",
        "新潟県",
        "富山県",
        "石川県",
        "福井県",
        "山梨県",
        "長野県",
        "岐阜県",
        "静岡県",
        "愛知県",
        "三重県",
        "滋賀県",
        "兵庫県",
        "奈良県",
        "和歌山県",
        "鳥取県",
        "島根県",
        "岡山県",
        "広島県",
        "山口県",
        "徳島県",
        "香川県",
        "愛媛県",
        "高知県",
        "福岡県",
        "佐賀県",
        "長崎県",
        "熊本県",
        "大分県",
        "宮崎県",
        "鹿児島県",
        "沖縄県",
    ];
    NAMES
        .iter()
        .find(|name| text.starts_with(**name))
        .map_or(0, |name| name.len())
}

const NUMERALS: &str = "0123456789〇一二三四五六七八九十百";

/// Where the number of the block begins: the first numeral that is counted in blocks, because
/// names of towns have numerals as well (三田, 四日市).
fn number_start(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    let mut start = None;
    while let Some((at, c)) = chars.next() {
        if !NUMERALS.contains(c) {
            start = None;
            continue;
        }
        let run = *start.get_or_insert(at);
        let counted = |next: char| is_dash(next) || "丁番号条の".contains(next);
        if chars.peek().is_some_and(|(_, next)| counted(*next)) {
            return Some(run);
        }
    }
    None
}

/// Whether what stands between municipality and number can be the name of a town, and not the
/// rest of a sentence (`東京都知事選で2-1`).
fn is_town(town: &str) -> bool {
    let town = town.trim();
    let no_particle = !town.contains(['を', 'で', 'は', 'へ']);
    let no_ending = !town.ends_with(|c| "がをにでとへもの".contains(c))
        && !town.ends_with("から")
        && !town.ends_with("まで");
    let verbs = town.chars().filter(|c| is_hiragana(*c)).count() <= 7;
    no_particle && no_ending && verbs
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn postal_codes() {
        for marked in [
            "⟦〒100-0001⟧ 東京都",
            "⟦〒１００－０００１⟧",
            "⟦〒一〇〇－〇〇〇一⟧",
            "郵便番号：⟦150-0002⟧",
            "郵便番号は⟦1500002⟧",
            "⟦514-0001⟧ 三重県津市",
            "⟦100-0001⟧東京都千代田区",
            "100-2000個、123-4567、1500002",
        ] {
            check(&JP_POSTAL_CODE, marked);
        }
    }

    #[test]
    fn addresses() {
        for marked in [
            "⟦東京都千代田区千代田1-1⟧にあります",
            "住所は⟦横浜市西区みなとみらい2-2-1⟧です",
            "⟦大阪府大阪市北区梅田三丁目一番三号⟧",
            "住所：⟦北海道札幌市中央区北1条西2丁目3番地⟧",
            "⟦神奈川県川崎市麻生区上麻生１−２−３ サンプルビル405号室⟧へ",
            "⟦三重県四日市市諏訪町1番5号⟧",
            "⟦埼玉県さいたま市浦和区高砂3-15-1⟧",
            "⟦福岡県福岡市博多区博多駅前二丁目9番28号⟧。",
            "⟦東京都港区 芝公園 4-2-8⟧",
            "東京都港区に住む",
            "東京都知事選挙で2-1の差",
            "この地区1-2-3番目、都市1-2-3",
            "浦和が鹿島町に3-0で勝った",
            "千葉市の人口は98万人",
            "南町一条と住吉町三条",
        ] {
            check(&JP_ADDRESS, marked);
        }
    }
}
