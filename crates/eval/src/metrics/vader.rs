//! Sentiment of English text as vaderSentiment 3.3.2 computes it (Hutto and Gilbert 2014; MIT).
//!
//! The lexicon with its 7,500 ratings is not ours and not here: it is read from the package's own
//! files. The rules and the words that they turn on are the method itself and are written out
//! below, oddities included: the weight of what stands around "but" goes to the first word with an
//! equal rating, not to the word itself, and "so" or "this" before a word strengthens it even
//! without "never".

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::text::{split, trim};

/// The lexicon and the names of emoji.
#[derive(Clone)]
pub struct Vader {
    ratings: HashMap<String, f64>,
    emoji: HashMap<char, String>,
}

impl std::fmt::Debug for Vader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vader({} ratings)", self.ratings.len())
    }
}

/// The four numbers of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Polarity {
    /// −1 to 1: everything in one number.
    pub compound: f64,
    /// Share of the text that is positive.
    pub positive: f64,
    /// Share of the text that is neutral.
    pub neutral: f64,
    /// Share of the text that is negative.
    pub negative: f64,
}

impl Polarity {
    pub(super) fn detail(self) -> Value {
        json!({
            "compound": self.compound,
            "positive": self.positive,
            "neutral": self.neutral,
            "negative": self.negative,
        })
    }
}

const BOOST: f64 = 0.293;
const CAPITALS: f64 = 0.733;
const NEGATED: f64 = -0.74;

#[rustfmt::skip]
const NEGATIONS: &[&str] = &[
    "aint", "arent", "cannot", "cant", "couldnt", "darent", "didnt", "doesnt", "dont", "hadnt",
    "hasnt", "havent", "isnt", "mightnt", "mustnt", "neednt", "oughtnt", "shant", "shouldnt",
    "wasnt", "werent", "wont", "wouldnt", "neither", "never", "none", "nope", "nor", "not",
    "nothing", "nowhere", "uhuh", "uh-uh", "without", "rarely", "seldom", "despite",
];

#[rustfmt::skip]
const STRONGER: &[&str] = &[
    "absolutely", "amazingly", "awfully", "completely", "considerable", "considerably",
    "decidedly", "deeply", "effing", "enormous", "enormously", "entirely", "especially",
    "exceptional", "exceptionally", "extreme", "extremely", "fabulously", "flipping", "flippin",
    "frackin", "fracking", "fricking", "frickin", "frigging", "friggin", "fully", "fuckin",
    "fucking", "fuggin", "fugging", "greatly", "hella", "highly", "hugely", "incredible",
    "incredibly", "intensely", "major", "majorly", "more", "most", "particularly", "purely",
    "quite", "really", "remarkably", "so", "substantially", "thoroughly", "total", "totally",
    "tremendous", "tremendously", "uber", "unbelievably", "unusually", "utter", "utterly", "very",
];

#[rustfmt::skip]
const WEAKER: &[&str] = &[
    "almost", "barely", "hardly", "just enough", "kind of", "kinda", "kindof", "kind-of", "less",
    "little", "marginal", "marginally", "occasional", "occasionally", "partly", "scarce",
    "scarcely", "slight", "slightly", "somewhat", "sort of", "sorta", "sortof", "sort-of",
];

const IDIOMS: &[(&str, f64)] = &[
    ("the shit", 3.0),
    ("the bomb", 3.0),
    ("bad ass", 1.5),
    ("badass", 1.5),
    ("bus stop", 0.0),
    ("yeah right", -2.0),
    ("kiss of death", -1.5),
    ("to die for", 3.0),
    ("beating heart", 3.5),
];

impl Vader {
    /// From the package's `vader_lexicon.txt` and `emoji_utf8_lexicon.txt`.
    pub fn read(lexicon: &str, emoji: &str) -> Result<Vader, String> {
        let mut ratings = HashMap::new();
        for (number, line) in lexicon
            .split('\n')
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
        {
            let mut fields = trim(line).split('\t');
            let rating = fields
                .next()
                .zip(fields.next().and_then(|rating| rating.parse().ok()));
            let (word, rating): (&str, f64) = rating
                .filter(|(_, rating): &(&str, f64)| rating.is_finite())
                .ok_or_else(|| format!("line {} of VADER's lexicon has no rating", number + 1))?;
            ratings.insert(word.to_owned(), rating);
        }
        let mut names = HashMap::new();
        for line in emoji.split('\n').filter(|line| !line.is_empty()) {
            let Some((symbol, name)) = trim(line).split_once('\t') else {
                return Err(format!("{line:?} names no emoji"));
            };
            // Only single characters can ever match: the text is read character by character.
            let mut characters = symbol.chars();
            if let (Some(one), None) = (characters.next(), characters.next()) {
                let name = name.split('\t').next().unwrap_or(name);
                names.insert(one, name.to_owned());
            }
        }
        Ok(Vader {
            ratings,
            emoji: names,
        })
    }

    /// The sentiment of a text.
    pub fn polarity(&self, text: &str) -> Polarity {
        let named = self.name_emoji(text);
        let text = trim(&named);
        let words: Vec<Word> = split(text).map(Word::new).collect();
        let capitals = words.iter().filter(|word| word.upper).count();
        let sentence = Sentence {
            vader: self,
            mixed_case: capitals > 0 && capitals < words.len(),
            words: &words,
        };
        let mut ratings: Vec<f64> = (0..words.len()).map(|at| sentence.rate(at)).collect();
        weigh_but(&words, &mut ratings);
        polarity(&ratings, text)
    }

    fn name_emoji(&self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut after_space = true;
        for c in text.chars() {
            if let Some(name) = self.emoji.get(&c) {
                if !after_space {
                    named.push(' ');
                }
                named.push_str(name);
                after_space = false;
            } else {
                named.push(c);
                after_space = c == ' ';
            }
        }
        named
    }
}

struct Word {
    lower: String,
    upper: bool,
}

impl Word {
    /// Without the punctuation around it, unless what remains is so short that the whole may have
    /// been an emoticon.
    fn new(token: &str) -> Word {
        let bare = token.trim_matches(|c: char| c.is_ascii_punctuation());
        let word = if bare.chars().nth(2).is_some() {
            bare
        } else {
            token
        };
        Word {
            lower: word.to_lowercase(),
            upper: is_upper(word),
        }
    }
}

/// Python's `isupper`: some letter has case, and none is lower or title case.
fn is_upper(word: &str) -> bool {
    let is_title =
        |c: char| c.to_lowercase().next() != Some(c) && c.to_uppercase().next() != Some(c);
    word.chars().any(char::is_uppercase)
        && !word
            .chars()
            .any(|c| c.is_lowercase() || (!c.is_uppercase() && is_title(c)))
}

fn booster(word: &str) -> Option<f64> {
    if STRONGER.contains(&word) {
        Some(BOOST)
    } else {
        WEAKER.contains(&word).then_some(-BOOST)
    }
}

fn negates(word: &str) -> bool {
    // Every contraction of the original's list has "n't" in it, which alone is enough.
    NEGATIONS.contains(&word) || word.contains("n't")
}

struct Sentence<'a> {
    vader: &'a Vader,
    words: &'a [Word],
    mixed_case: bool,
}

impl Sentence<'_> {
    /// The word so many places before another.
    fn back(&self, at: usize, steps: usize) -> &str {
        at.checked_sub(steps)
            .map_or("", |at| self.words[at].lower.as_str())
    }

    fn rating(&self, word: &str) -> Option<f64> {
        self.vader.ratings.get(word).copied()
    }

    fn rate(&self, at: usize) -> f64 {
        let word = &self.words[at];
        let next = self.words.get(at + 1).map(|word| word.lower.as_str());
        if booster(&word.lower).is_some() || (word.lower == "kind" && next == Some("of")) {
            return 0.0;
        }
        let Some(own) = self.rating(&word.lower) else {
            return 0.0;
        };
        let mut rating = own;
        if word.lower == "no" && next.is_some_and(|next| self.rating(next).is_some()) {
            rating = 0.0;
        }
        let no_before = self.back(at, 1) == "no"
            || self.back(at, 2) == "no"
            || (self.back(at, 3) == "no" && matches!(self.back(at, 1), "or" | "nor"));
        if no_before {
            rating = own * NEGATED;
        }
        if word.upper && self.mixed_case {
            rating += if rating > 0.0 { CAPITALS } else { -CAPITALS };
        }
        for distance in 1..=3 {
            if at >= distance && self.rating(self.back(at, distance)).is_none() {
                rating += self.boost(at - distance, rating) * [1.0, 0.95, 0.9][distance - 1];
                rating = self.negate(rating, at, distance);
                if distance == 3 {
                    rating = self.idioms(rating, at);
                }
            }
        }
        self.least(rating, at)
    }

    fn boost(&self, at: usize, rating: f64) -> f64 {
        let word = &self.words[at];
        let Some(mut by) = booster(&word.lower) else {
            return 0.0;
        };
        if rating < 0.0 {
            by = -by;
        }
        if word.upper && self.mixed_case {
            by += if rating > 0.0 { CAPITALS } else { -CAPITALS };
        }
        by
    }

    fn negate(&self, rating: f64, at: usize, distance: usize) -> f64 {
        let (one, two, three) = (self.back(at, 1), self.back(at, 2), self.back(at, 3));
        let emphatic = |word: &str| matches!(word, "so" | "this");
        let negated = negates(self.back(at, distance));
        match distance {
            2 if two == "never" && emphatic(one) => rating * 1.25,
            2 if two == "without" && one == "doubt" => rating,
            3 if (three == "never" && emphatic(two)) || emphatic(one) => rating * 1.25,
            3 if three == "without" && (two == "doubt" || one == "doubt") => rating,
            _ if negated => rating * NEGATED,
            _ => rating,
        }
    }

    fn idioms(&self, mut rating: f64, at: usize) -> f64 {
        let (zero, one) = (self.words[at].lower.as_str(), self.back(at, 1));
        let (two, three) = (self.back(at, 2), self.back(at, 3));
        let idiom = |phrase: &str| {
            let found = IDIOMS.iter().find(|(known, _)| *known == phrase);
            found.map(|(_, rating)| *rating)
        };
        let before = [
            format!("{one} {zero}"),
            format!("{two} {one} {zero}"),
            format!("{two} {one}"),
            format!("{three} {two} {one}"),
            format!("{three} {two}"),
        ];
        if let Some(found) = before.iter().find_map(|phrase| idiom(phrase)) {
            rating = found;
        }
        if let Some(next) = self.words.get(at + 1) {
            if let Some(found) = idiom(&format!("{zero} {}", next.lower)) {
                rating = found;
            }
            if let Some(after) = self.words.get(at + 2)
                && let Some(found) = idiom(&format!("{zero} {} {}", next.lower, after.lower))
            {
                rating = found;
            }
        }
        for phrase in [&before[3], &before[4], &before[2]] {
            rating += booster(phrase).unwrap_or(0.0);
        }
        rating
    }

    fn least(&self, rating: f64, at: usize) -> f64 {
        if self.back(at, 1) != "least" || self.rating("least").is_some() {
            return rating;
        }
        if at > 1 && matches!(self.back(at, 2), "at" | "very") {
            return rating;
        }
        rating * NEGATED
    }
}

/// What stands before "but" counts half, what stands after it half as much again.
fn weigh_but(words: &[Word], ratings: &mut [f64]) {
    let Some(but) = words.iter().position(|word| word.lower == "but") else {
        return;
    };
    for at in 0..ratings.len() {
        let rating = ratings[at];
        // The first equal rating, which may be another word's: so it is in the original.
        let Some(first) = ratings.iter().position(|other| *other == rating) else {
            continue;
        };
        match first.cmp(&but) {
            std::cmp::Ordering::Less => ratings[first] = rating * 0.5,
            std::cmp::Ordering::Greater => ratings[first] = rating * 1.5,
            std::cmp::Ordering::Equal => {}
        }
    }
}

fn polarity(ratings: &[f64], text: &str) -> Polarity {
    if ratings.is_empty() {
        return Polarity::default();
    }
    let emphasis = emphasis(text);
    let mut sum: f64 = ratings.iter().sum();
    if sum > 0.0 {
        sum += emphasis;
    } else if sum < 0.0 {
        sum -= emphasis;
    }
    let (mut positive, mut negative, mut neutral) = (0.0_f64, 0.0_f64, 0.0_f64);
    for rating in ratings {
        if *rating > 0.0 {
            positive += rating + 1.0;
        } else if *rating < 0.0 {
            negative += rating - 1.0;
        } else {
            neutral += 1.0;
        }
    }
    if positive > negative.abs() {
        positive += emphasis;
    } else if positive < negative.abs() {
        negative -= emphasis;
    }
    let total = positive + negative.abs() + neutral;
    Polarity {
        compound: round((sum / (sum * sum + 15.0).sqrt()).clamp(-1.0, 1.0), 4),
        positive: round((positive / total).abs(), 3),
        neutral: round((neutral / total).abs(), 3),
        negative: round((negative / total).abs(), 3),
    }
}

fn emphasis(text: &str) -> f64 {
    let count = |mark: u8| text.bytes().filter(|byte| *byte == mark).count();
    let questions = match count(b'?') {
        0 | 1 => 0.0,
        some @ 2..=3 => some as f64 * 0.18,
        _ => 0.96,
    };
    count(b'!').min(4) as f64 * 0.292 + questions
}

/// The nearest decimal, as Python's `round`: of the exact binary number, ties to even.
fn round(number: f64, digits: usize) -> f64 {
    format!("{number:.digits$}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vader() -> Vader {
        let lexicon = "good\t1.9\t0.9\t[1]\nbad\t-2.5\t0.6\t[1]\nno\t-1.2\nsmart\t1.7\n:)\t2.0\n";
        Vader::read(lexicon, "😀\tgood face\n").unwrap()
    }

    #[test]
    fn rules() {
        let vader = vader();
        let compound = |text: &str| vader.polarity(text).compound;
        let alone = compound("a good day");
        assert_eq!(alone, round(1.9 / (1.9_f64 * 1.9 + 15.0).sqrt(), 4));
        assert!(compound("a very good day") > alone);
        assert!(compound("a kinda good day") < alone);
        assert!(compound("not a good day") < 0.0);
        assert!(compound("a GOOD day") > alone);
        assert_eq!(compound("A GOOD DAY"), alone);
        assert!(compound("a good day!!!") > alone);
        assert!(compound("so 😀") > 0.4);
        assert_eq!(compound(":)"), round(2.0 / 19.0_f64.sqrt(), 4));
        assert!(compound("good but bad") < compound("bad but good"));
        assert_eq!(vader.polarity(""), Polarity::default());
    }

    #[test]
    fn a_broken_lexicon_is_refused() {
        assert!(Vader::read("good\tmuch\n", "").is_err());
        assert!(Vader::read("good\n", "").is_err());
        assert!(Vader::read("good\tNaN\n", "").is_err());
    }
}
