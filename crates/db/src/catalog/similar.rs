//! Near-duplicates: which other documents say nearly the same.
//!
//! A document's text is cut into overlapping pieces of five characters, which
//! works for scripts without spaces too. The share of pieces that two texts have
//! in common is estimated from 128 minimum hashes (MinHash, Broder 1997), give or
//! take 4 %. Groups of four of them are the buckets by which candidates are found:
//! two texts with 70 % in common meet in one of 32 buckets with 99.98 %.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;
use unicode_normalization::UnicodeNormalization;

use super::{Catalog, CatalogError, Name, store};
use crate::{DbError, Scope};
use base::{Digest, ProjectId};

/// The least share in common that is worth telling.
const THRESHOLD: f64 = 0.7;
/// How many similar documents are told, the most similar ones.
const MAX_SIMILAR: usize = 5;
const HASHES: usize = 128;
const PER_BUCKET: usize = 4;
const SHINGLE_CHARS: usize = 5;
/// What lies behind is not compared: a bound on the work for megabytes of text.
const MAX_CHARS: usize = 100_000;

/// Another document with nearly the same text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Similar {
    /// Its name.
    pub name: Name,
    /// Its most similar version.
    pub number: i64,
    /// The estimated share of the texts that is the same, from 0.7 to 1.
    pub similarity: f64,
}

/// What is kept of a text in order to find others like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch(Vec<u32>);

impl Sketch {
    /// The estimated share of two texts that is the same, from 0 to 1.
    pub fn share(&self, other: &Self) -> f64 {
        let same = self
            .0
            .iter()
            .zip(&other.0)
            .filter(|(own, other)| own == other)
            .count();
        same as f64 / HASHES as f64
    }

    /// Two texts that are alike have one of these in common: each is worth comparing only
    /// with those that share one.
    pub fn bands(&self) -> impl Iterator<Item = u64> {
        let band = |(index, group): (usize, &[u32])| {
            group
                .iter()
                .fold(SEEDS[index], |hash, value| mixed(hash ^ u64::from(*value)))
        };
        self.0.chunks(PER_BUCKET).enumerate().map(band)
    }

    /// `None` for a text that is empty but for spaces.
    pub fn of(text: &str) -> Option<Self> {
        let shingles = shingles(text);
        if shingles.is_empty() {
            return None;
        }
        let mut least = vec![u32::MAX; HASHES];
        for shingle in shingles {
            for (index, least) in least.iter_mut().enumerate() {
                let hash = mixed(shingle ^ SEEDS[index]) >> 32;
                *least = (*least).min(u32::try_from(hash).unwrap_or(u32::MAX));
            }
        }
        Some(Self(least))
    }

    /// The text form that is kept: of each hash 16 bits, which 65,535 times of 65,536 tell two apart.
    pub(super) fn to_text(&self) -> String {
        let low_bits = |hash: &u32| format!("{:04x}", hash & 0xffff);
        self.0.iter().map(low_bits).collect()
    }

    /// Texts that are alike share one of these. They differ from project to project
    /// and kind to kind, so that a bucket holds nothing foreign.
    pub(super) fn buckets(&self, project: ProjectId, kind: &str) -> Vec<i64> {
        let place = hash_of(format!("{project}/{kind}").chars());
        let bucket = |(index, group): (usize, &[u32])| {
            let start = mixed(place ^ SEEDS[index]);
            let hash = group
                .iter()
                .fold(start, |hash, value| mixed(hash ^ u64::from(*value)));
            hash.cast_signed()
        };
        self.0.chunks(PER_BUCKET).enumerate().map(bucket).collect()
    }
}

/// Hashes of the different pieces of a text in compatibility form, each run of spaces as one.
fn shingles(text: &str) -> HashSet<u64> {
    let words: String = text.nfkc().take(MAX_CHARS).collect();
    let mut folded = String::with_capacity(words.len());
    for word in words.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    let chars: Vec<char> = folded.chars().collect();
    if chars.is_empty() {
        return HashSet::new();
    }
    if chars.len() < SHINGLE_CHARS {
        return HashSet::from([hash_of(chars)]);
    }
    chars
        .windows(SHINGLE_CHARS)
        .map(|window| hash_of(window.iter().copied()))
        .collect()
}

/// FNV-1a over characters, finished by a mixer: what is kept must not change with
/// the standard library's hash.
fn hash_of(chars: impl IntoIterator<Item = char>) -> u64 {
    let step = |hash: u64, c: char| (hash ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01b3);
    mixed(chars.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The finaliser of SplitMix64.
const fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One hash function for each, made from its number.
const SEEDS: [u64; HASHES] = {
    let mut seeds = [0; HASHES];
    let mut state: u64 = 0;
    let mut index = 0;
    while index < HASHES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        seeds[index] = mixed(state);
        index += 1;
    }
    seeds
};

/// The estimated share of two texts that is the same, by what is kept of them.
fn similarity(one: &str, other: &str) -> f64 {
    let pairs = one.as_bytes().chunks(4).zip(other.as_bytes().chunks(4));
    let same = pairs.filter(|(one, other)| one == other).count();
    same as f64 / HASHES as f64
}

impl Catalog {
    /// Other names of the kind with nearly this text, the most similar first. Names
    /// that hold the very same document are among them.
    ///
    /// # Errors
    /// There is no such kind, or the database cannot be read.
    pub async fn similar(
        &self,
        scope: Scope,
        kind: &str,
        content: &Value,
    ) -> Result<Vec<Similar>, CatalogError> {
        let text = (self.kinds().get(kind)?.text_of)(content);
        let Some(sketch) = Sketch::of(&text) else {
            return Ok(Vec::new());
        };
        let mut connection = self.db.read().acquire().await?;
        Ok(find_similar(&mut connection, scope.project, kind, &sketch, "").await?)
    }
}

/// The most similar version of each other name, the most similar name first.
pub(super) async fn find_similar(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    sketch: &Sketch,
    own_name: &str,
) -> Result<Vec<Similar>, DbError> {
    let buckets = sketch.buckets(project, kind);
    let rows = store::sketched(connection, project, kind, &buckets, own_name).await?;
    let own = sketch.to_text();
    let mut found: Vec<Similar> = Vec::new();
    for (name, number, kept) in rows {
        let similarity = similarity(&own, &kept);
        if similarity < THRESHOLD {
            continue;
        }
        match found.iter_mut().find(|known| known.name == name) {
            // Of two that are alike the newer one is more likely the one that people use.
            Some(known) if (known.similarity, known.number) < (similarity, number) => {
                known.similarity = similarity;
                known.number = number;
            }
            Some(_) => {}
            None => found.push(Similar {
                name,
                number,
                similarity,
            }),
        }
    }
    found.sort_by(|a, b| {
        let by_similarity = b.similarity.total_cmp(&a.similarity);
        by_similarity.then_with(|| a.name.cmp(&b.name))
    });
    found.truncate(MAX_SIMILAR);
    Ok(found)
}

/// Keeps what finds this document again.
pub(super) async fn keep_sketch(
    connection: &mut AnyConnection,
    project: ProjectId,
    kind: &str,
    digest: &Digest,
    sketch: &Sketch,
) -> Result<(), DbError> {
    let buckets = sketch.buckets(project, kind);
    store::insert_sketch(
        connection,
        project,
        kind,
        digest,
        &sketch.to_text(),
        &buckets,
    )
    .await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(a: &str, b: &str) -> f64 {
        let kept = |text| Sketch::of(text).unwrap().to_text();
        similarity(&kept(a), &kept(b))
    }

    const ANSWER: &str = "You answer questions of customers about their orders. Be brief and polite, \
        and never promise a date of delivery that you do not know.";

    #[test]
    fn what_people_see_as_nearly_the_same_is() {
        assert!(share(ANSWER, &ANSWER.replace("brief", "short")) > 0.7);
        assert!(share(ANSWER, &ANSWER.replace(' ', "\n  ")) > 0.99);
        assert!(
            share(
                ANSWER,
                "Translate the text into Japanese, keeping its tone."
            ) < 0.2
        );
        let japanese = "あなたはお客様の注文に関する質問に答えます。簡潔かつ丁寧に、分からない配達日を約束しないでください。";
        assert!(share(japanese, &japanese.replace("簡潔", "手短")) > 0.7);
        assert!(share(japanese, "文章を日本語に翻訳し、調子を保ってください。") < 0.2);
        assert!(
            share("ＡＢＣ１２３", "ABC123") > 0.99,
            "width does not matter"
        );
    }

    #[test]
    fn short_and_empty_texts() {
        assert_eq!(Sketch::of(" \n\t"), None);
        assert!(share("hi", "hi") > 0.99);
        assert!(share("hi", "ho") < 0.1);
    }

    #[test]
    fn what_is_kept_never_changes() {
        // A changed hash would make every kept sketch worthless.
        let sketch = Sketch::of("the same for ever").unwrap();
        assert_eq!(
            Digest::of(sketch.to_text().as_bytes()).short(),
            "3da5482cb684"
        );
    }

    proptest! {
        #[test]
        fn the_estimate_is_close_to_the_share_of_pieces(a in "[a-d]{20,80}", b in "[a-d]{20,80}", keep in 0..80_usize) {
            let b = format!("{}{b}", a.chars().take(keep).collect::<String>());
            let (own, other) = (shingles(&a), shingles(&b));
            let both = own.intersection(&other).count() as f64;
            let all = own.union(&other).count() as f64;
            // Five standard errors of 128 hashes.
            prop_assert!((share(&a, &b) - both / all).abs() < 5.0 * 0.0442, "{a} {b}");
        }
    }
}
