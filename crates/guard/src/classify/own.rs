//! The texts of our own, as the program carries them: what keeps a classifier in its place while
//! it learns from reviewed texts. They are the templates of `data/`, filled here in the same
//! spirit as for training (`data/README.md`), so that they need no download.
//!
//! The packaged data sets are not among them: their texts are not ours to ship.

use super::file::Task;
use super::math::Rng;
use super::train::Labelled;

/// What a family of templates is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To train with.
    Train,
    /// To measure with; no classifier of ours was trained on it.
    Test,
}

impl Use {
    /// Variants of one template, at most: few keep a model in its place as well as many.
    fn variants(self) -> usize {
        match self {
            Self::Train => 1,
            Self::Test => 2,
        }
    }
}

const BENIGN: [&str; 6] = [
    include_str!("../../data/en/both-benign.txt"),
    include_str!("../../data/en/both-benign-wide.txt"),
    include_str!("../../data/en/both-benign-wide2.txt"),
    include_str!("../../data/ja/both-benign.txt"),
    include_str!("../../data/ja/both-benign-wide.txt"),
    include_str!("../../data/ja/both-benign-wide2.txt"),
];
const ATTACKS: [&str; 5] = [
    include_str!("../../data/en/injection-attack.txt"),
    include_str!("../../data/en/injection-wide.txt"),
    include_str!("../../data/ja/injection-attack.txt"),
    include_str!("../../data/ja/injection-wide.txt"),
    include_str!("../../data/ja/injection-wide2.txt"),
];
const ABUSE: [&str; 3] = [
    include_str!("../../data/en/toxicity-abuse.txt"),
    include_str!("../../data/en/toxicity-wide.txt"),
    include_str!("../../data/ja/toxicity-abuse.txt"),
];
const NO_ABUSE: [&str; 2] = [
    include_str!("../../data/en/toxicity-benign.txt"),
    include_str!("../../data/ja/toxicity-benign.txt"),
];

/// Our own texts for a task and a use.
pub fn own_texts(task: Task, wanted: Use) -> Vec<Labelled> {
    let (positive, negative): (&[&str], Vec<&str>) = match task {
        Task::Injection => (&ATTACKS, BENIGN.to_vec()),
        Task::Toxicity => (&ABUSE, BENIGN.iter().chain(&NO_ABUSE).copied().collect()),
    };
    let texts = |files: &[&str], positive: bool| -> Vec<Labelled> {
        let filled = files.iter().flat_map(|file| filled(file, wanted));
        filled
            .map(|text| Labelled {
                text,
                positive,
                source: "own".to_owned(),
                licence: "Apache-2.0".to_owned(),
            })
            .collect()
    };
    let mut all = texts(positive, true);
    all.extend(texts(&negative, false));
    all
}

/// The texts that a file's templates of one use make.
fn filled(file: &str, wanted: Use) -> Vec<String> {
    let mut texts = Vec::new();
    let mut variants = 0;
    for line in file.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(family) = line.strip_prefix("@ ") {
            let mut words = family.split_whitespace().skip(1);
            let is_wanted = match words.next() {
                Some("test") => wanted == Use::Test,
                Some("train") => wanted == Use::Train,
                _ => false,
            };
            let count = words.next().and_then(|count| count.parse().ok());
            variants = match is_wanted {
                true => wanted.variants().min(count.unwrap_or(1)),
                false => 0,
            };
            continue;
        }
        for variant in 0..variants {
            let text = fill(line, variant as u64);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    texts
}

/// A template with one choice in each slot, which follows from the template and the variant.
fn fill(template: &str, variant: u64) -> String {
    let seed = template
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mut rng = Rng(seed ^ variant.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, slot)) = rest.split_once('{') {
        out.push_str(before);
        let Some((choices, after)) = slot.split_once('}') else {
            out.push('{');
            rest = slot;
            break;
        };
        let choices: Vec<&str> = choices.split('|').collect();
        let at = (rng.next() % choices.len() as u64) as usize;
        out.push_str(choices.get(at).copied().unwrap_or_default());
        rest = after;
    }
    out.push_str(rest);
    out.replace("\\n", "\n")
}
