//! What an answer may stand on: the texts that its model was shown, cut into numbered passages,
//! and which of these matter for one sentence.
//!
//! They are chosen by the words that they share with the sentence (pairs of characters where a
//! script has no spaces), rare ones counting more. That only decides what a judge reads; it is
//! never a verdict. Where nothing is shared, as between two languages, the first passages are read.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::{Arc, OnceLock};

use super::fold::{Kind, fold_text};
use super::sentences::{Cutter, Lengths};
use crate::policy::Source;

/// More than a model's context holds; what comes after is left out, and finds say so.
const MOST_BYTES: usize = 1 << 20;
/// How much one question may show. Less evidence than that is shown whole.
const SHOWN_CHARS: usize = 8_000;
/// Of longer words only the beginning counts, so that endings do not matter.
const STEM_CHARS: usize = 6;
/// What the sentence before counts for, which only says what the sentence is about.
const BEFORE_WEIGHT: f32 = 0.5;

/// A text that a model was shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Told {
    /// Who said it.
    pub source: Source,
    /// Where it stands, as in `messages[2].content`.
    pub field: String,
    /// The text.
    pub text: String,
}

/// A part of such a text, as a judge is shown it.
#[derive(Clone, PartialEq, Eq)]
pub struct Passage {
    /// Its number among all passages that count for the rule, from 1 on.
    pub number: usize,
    /// Where its text stands.
    pub field: Arc<str>,
    /// Its first byte there.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// What it says.
    pub text: Arc<str>,
}

struct Piece {
    source: Source,
    field: Arc<str>,
    start: usize,
    end: usize,
    text: Arc<str>,
}

impl Piece {
    fn chars(&self) -> usize {
        self.text.chars().count()
    }
}

/// Everything that an answer may stand on.
pub struct Evidence {
    pieces: Vec<Piece>,
    is_cut: bool,
    /// Made when the first passage must be chosen: most evidence is shown whole.
    terms: OnceLock<Terms>,
}

/// Texts are never shown by accident.
impl fmt::Debug for Evidence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Evidence")
            .field("pieces", &self.pieces.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({} bytes)", self.field, self.text.len())
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "[{}] {} {}..{}",
            self.number, self.field, self.start, self.end
        )
    }
}

impl Evidence {
    /// Cuts texts into passages. A text that was told twice is one.
    pub fn new(told: impl IntoIterator<Item = Told>) -> Self {
        let mut evidence = Self {
            pieces: Vec::new(),
            is_cut: false,
            terms: OnceLock::new(),
        };
        let mut known = BTreeSet::new();
        let mut room = MOST_BYTES;
        for one in told {
            let fresh = known.insert((one.source, hash(&one.text)));
            if !fresh {
                continue;
            }
            let fits = one.text.floor_char_boundary(room);
            evidence.is_cut |= fits < one.text.len();
            room -= fits;
            evidence.add(&one, &one.text[..fits]);
        }
        evidence
    }

    fn add(&mut self, told: &Told, text: &str) {
        let mut cutter = Cutter::new(Lengths::PASSAGES);
        let mut windows: Vec<_> = text
            .char_indices()
            .filter_map(|(at, c)| cutter.step(at, c))
            .collect();
        windows.extend(cutter.end(text.len()));
        let field: Arc<str> = told.field.as_str().into();
        self.pieces.extend(windows.into_iter().map(|window| Piece {
            source: told.source,
            field: field.clone(),
            start: window.start,
            end: window.end,
            text: text[window.start..window.end].into(),
        }));
    }

    /// Whether there was more than could be read.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The passages of these sources that a sentence is held to, in their order.
    pub(super) fn passages_for(
        &self,
        sources: &[Source],
        before: &str,
        sentence: &str,
    ) -> Vec<Passage> {
        let all = self.pieces.iter().enumerate();
        let counting = all.filter(|(_, piece)| sources.contains(&piece.source));
        let mut shown: Vec<Numbered<'_>> = counting
            .zip(1..)
            .map(|((at, piece), number)| Numbered { number, at, piece })
            .collect();
        if shown.iter().map(|it| it.piece.chars()).sum::<usize>() > SHOWN_CHARS {
            self.keep_those_that_matter(&mut shown, before, sentence);
        }
        shown.iter().map(Numbered::passage).collect()
    }

    fn keep_those_that_matter(&self, all: &mut Vec<Numbered<'_>>, before: &str, sentence: &str) {
        let terms = self.terms.get_or_init(|| Terms::of(&self.pieces));
        let wanted = terms.wanted(before, sentence);
        all.sort_by_cached_key(|it| {
            let likeness = terms.likeness(&wanted, it.at);
            (Reverse(ordered(likeness)), it.number)
        });
        let mut room = SHOWN_CHARS;
        all.retain(|it| match room.checked_sub(it.piece.chars()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        all.sort_by_key(|it| it.number);
    }
}

/// A piece that counts for a rule.
struct Numbered<'a> {
    number: usize,
    /// Its place among all pieces.
    at: usize,
    piece: &'a Piece,
}

impl Numbered<'_> {
    fn passage(&self) -> Passage {
        Passage {
            number: self.number,
            field: self.piece.field.clone(),
            start: self.piece.start,
            end: self.piece.end,
            text: self.piece.text.clone(),
        }
    }
}

/// Positive numbers are in the order of their bits.
fn ordered(likeness: f32) -> u32 {
    likeness.to_bits()
}

/// What passages are compared by.
struct Terms {
    /// Of each piece.
    of: Vec<BTreeSet<u64>>,
    /// In how many pieces a term stands.
    pieces_with: HashMap<u64, u16>,
}

impl Terms {
    fn of(pieces: &[Piece]) -> Self {
        let of: Vec<BTreeSet<u64>> = pieces.iter().map(|it| terms_of(&it.text)).collect();
        let mut pieces_with: HashMap<u64, u16> = HashMap::new();
        for term in of.iter().flatten() {
            let count = pieces_with.entry(*term).or_default();
            *count = count.saturating_add(1);
        }
        Self { of, pieces_with }
    }

    /// What a passage should have, with what each counts for.
    fn wanted(&self, before: &str, sentence: &str) -> Vec<(u64, f32)> {
        let own = terms_of(sentence);
        let around = terms_of(before);
        let around = around.difference(&own).map(|term| (*term, BEFORE_WEIGHT));
        let all = own.iter().map(|term| (*term, 1.0)).chain(around);
        all.map(|(term, weight)| (term, weight * self.rarity(term)))
            .collect()
    }

    fn rarity(&self, term: u64) -> f32 {
        let with = self.pieces_with.get(&term).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a weight")]
        let all = self.of.len() as f32;
        (1.0 + all / (1.0 + f32::from(with))).ln()
    }

    fn likeness(&self, wanted: &[(u64, f32)], at: usize) -> f32 {
        let has = |term: &u64| self.of[at].contains(term);
        let shared = wanted.iter().filter(|(term, _)| has(term));
        // The sum of nothing would be a negative zero.
        shared.fold(0.0, |sum, (_, weight)| sum + weight)
    }
}

/// Words, by their beginnings; pairs of characters of scripts without spaces.
fn terms_of(text: &str) -> BTreeSet<u64> {
    let folded = fold_text(Kind::Plain, text);
    let mut terms = BTreeSet::new();
    for run in folded.split(|c: char| !c.is_alphanumeric()) {
        let mut word = String::new();
        let mut last = None;
        for c in run.chars() {
            if has_no_spaces(c) {
                add_word(&mut terms, &mut word);
                if let Some(last) = last.replace(c) {
                    terms.insert(hash(&(last, c)));
                }
            } else {
                last = None;
                word.push(c);
            }
        }
        add_word(&mut terms, &mut word);
    }
    terms
}

fn add_word(terms: &mut BTreeSet<u64>, word: &mut String) {
    if !word.is_empty() {
        let stem: String = word.chars().take(STEM_CHARS).collect();
        terms.insert(hash(&stem));
        word.clear();
    }
}

/// Whether a character is of a script that puts no spaces between words.
fn has_no_spaces(c: char) -> bool {
    matches!(c as u32, 0x0E00..=0x0EFF | 0x3041..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF)
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: Source, text: &str) -> Told {
        Told {
            source,
            field: "messages[0].content".to_owned(),
            text: text.to_owned(),
        }
    }

    fn numbers(evidence: &Evidence, sentence: &str) -> Vec<usize> {
        let passages = evidence.passages_for(&[Source::ToolResult], "", sentence);
        passages.iter().map(|passage| passage.number).collect()
    }

    #[test]
    fn short_evidence_is_shown_whole_and_once() {
        let text = "The library opens at nine. It closes at six.";
        let evidence = Evidence::new([
            told(Source::ToolResult, text),
            told(Source::ToolResult, text),
            told(Source::Input, "It opens at five."),
        ]);
        assert_eq!(numbers(&evidence, "It opens at nine."), [1]);
        let passage = &evidence.passages_for(&[Source::Input], "", "")[0];
        assert_eq!((passage.number, passage.start, passage.end), (1, 0, 17));
        assert!(evidence.passages_for(&[], "", "").is_empty());
    }

    /// The passage that a sentence is about is shown, wherever it stands in a long text.
    #[test]
    fn of_long_evidence_the_passages_that_matter_are_shown() {
        for (filler, needle, sentence) in [
            (
                "The committee met again and nothing at all was decided on that day. ",
                "Parking costs 300 yen per hour for visitors of the museum. ",
                "Visitors pay 300 yen an hour for parking.",
            ),
            (
                "委員会はまた集まったが、その日は何も決まらなかった。",
                "美術館の駐車料金は一時間につき三百円です。",
                "駐車料金は一時間三百円です。",
            ),
        ] {
            let text = format!("{}{needle}{}", filler.repeat(400), filler.repeat(400));
            let at = text.find(needle).unwrap_or_default();
            let evidence = Evidence::new([told(Source::ToolResult, &text)]);
            let shown = evidence.passages_for(&[Source::ToolResult], "", sentence);
            assert!(shown.iter().any(|it| it.start <= at && at < it.end));
            let chars: usize = shown.iter().map(|it| it.text.chars().count()).sum();
            assert!(chars <= SHOWN_CHARS && chars > SHOWN_CHARS / 2, "{chars}");
            assert!(shown.is_sorted_by_key(|it| it.number));
            for passage in shown {
                assert_eq!(*passage.text, text[passage.start..passage.end]);
            }
        }
    }

    #[test]
    fn too_much_evidence_is_cut_and_known_to_be() {
        let evidence = Evidence::new([
            told(Source::ToolResult, &"長い文。".repeat(100_000)),
            told(Source::ToolResult, "and more"),
        ]);
        assert!(evidence.is_cut());
        assert!(!Evidence::new([told(Source::Input, "short")]).is_cut());
    }
}
