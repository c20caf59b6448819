//! The anchored scanner: at each position of a folded text, which targets begin here?
//!
//! A position is settled when the automata have died, whatever comes after; until then it waits
//! for more text, and the whole is tried again from it. So what is found depends on the text
//! alone, and nothing is held but what begins a possible match. Positions whose first byte begins
//! nothing cost one look at a table, which is why this is fast although it never skips.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::pool::Pool;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use super::cluster::stands_alone;
use super::fold::{Folded, Kind, fold_text};
use super::pattern;
use crate::detectors::{BEFORE_CHARS, Candidate, Detector, Verdict};

/// What a scanner looks for.
pub(super) struct Target {
    /// Stands in findings.
    pub(super) detector: String,
    pub(super) label: String,
    pub(super) reason: String,
    pub(super) test: Test,
    /// The rules that want to know.
    pub(super) takers: Vec<Taker>,
}

/// A rule that wants to know of a target's finds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taker {
    pub(super) rule: usize,
    /// For links: the hosts that are no find.
    pub(super) hosts: Option<Vec<String>>,
}

/// How a match of a target's patterns is tested.
pub(super) enum Test {
    Detector(&'static Detector),
    /// A pattern of a policy; whether a word's edge is needed at its start and its end.
    Pattern(PatternTest),
    /// Words.
    Words(Words),
}

pub(super) struct PatternTest {
    pub(super) pattern: String,
    pub(super) ignore_case: bool,
    pub(super) edge_before: bool,
    pub(super) edge_after: bool,
    pub(super) max_chars: usize,
}

pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// Whether a word counts inside a longer one.
    pub(super) inside: bool,
    /// Words with fewer characters are left out.
    pub(super) min_chars: usize,
}

/// A find, in positions of the folded text.
pub(super) struct Found {
    pub(super) target: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) score: f32,
}

/// All targets of one way of reading.
pub(super) struct Scanner {
    pub(super) targets: Vec<Target>,
    anywhere: Option<Machine>,
    at_word: Option<Machine>,
    words: Option<Trie>,
    /// Which of the three can begin with some bytes, as bits.
    begins: Begins,
}

/// Which automata live on after the first bytes of a position. Nearly every position of a text
/// ends here, without a step of an automaton. Filled as texts need it: what an entry says follows
/// from the automata alone, so whoever fills it writes the same.
struct Begins {
    /// After one byte.
    byte: Box<[AtomicU8]>,
    /// Only the first table is used: there is too little to look for to be worth the others.
    small: bool,
    /// After two, at `first << 8 | second`; not for leads of three-byte characters.
    pair: Box<[AtomicU8]>,
    /// After a character of three bytes, at its number.
    wide: Box<[AtomicU8]>,
}

impl Begins {
    fn new(small: bool) -> Self {
        let table = |len: usize| (0..len).map(|_| AtomicU8::new(0)).collect();
        let large = if small { 0 } else { 1 << 16 };
        Begins {
            byte: table(1 << 8),
            small,
            pair: table(large),
            wide: table(large),
        }
    }

    /// The entry for a position, and how many of its bytes that is about.
    #[inline]
    fn entry(&self, bytes: &[u8], at: usize) -> (&AtomicU8, usize) {
        match &bytes[at..] {
            [first, ..] if self.small => (&self.byte[usize::from(*first)], 1),
            [first @ 0xE0..=0xEF, second, third, ..] => {
                (&self.wide[wide(*first, *second, *third)], 3)
            }
            [first @ ..=0xDF | first @ 0xF0.., second, ..] => {
                (&self.pair[pair(*first, *second)], 2)
            }
            [first, ..] => (&self.byte[usize::from(*first)], 1),
            [] => (&self.byte[0], 1),
        }
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn wide(first: u8, second: u8, third: u8) -> usize {
    usize::from(first & 0xF) << 12 | usize::from(second & 0x3F) << 6 | usize::from(third & 0x3F)
}

const ANYWHERE: u8 = 1;
const AT_WORD: u8 = 2;
const WORDS: u8 = 4;
/// The entry of a table was filled.
const KNOWN: u8 = 8;

impl fmt::Debug for Scanner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.targets.iter().map(|target| &target.detector);
        out.debug_list().entries(names).finish()
    }
}

/// Where a scan of one folded text stands.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Everything before is settled.
    pub(super) at: usize,
    /// Per target: where its last find ended.
    taken: Vec<usize>,
    hits: Vec<Hit>,
}

impl State {
    pub(super) fn clear(&mut self) {
        self.at = 0;
        self.taken.clear();
    }
}

#[derive(Debug)]
struct Hit {
    target: usize,
    end: usize,
}

impl Scanner {
    /// # Errors
    /// The target that cannot be built, and why.
    pub(super) fn new(kind: Kind, targets: Vec<Target>) -> Result<Scanner, (usize, String)> {
        let words_first = |target: &Target| match &target.test {
            Test::Detector(detector) => detector.at_word,
            _ => false,
        };
        let anywhere = Machine::new(&targets, |target| !words_first(target))?;
        let at_word = Machine::new(&targets, words_first)?;
        let words = Trie::new(kind, &targets)?;
        let few = words.as_ref().is_none_or(|trie| trie.nfa.is_none());
        let small = few && anywhere.is_none() && at_word.is_none();
        Ok(Scanner {
            targets,
            anywhere,
            at_word,
            words,
            begins: Begins::new(small),
        })
    }

    /// Settles as many positions as the text allows.
    pub(super) fn run(
        &self,
        folded: &Folded,
        state: &mut State,
        finished: bool,
        emit: &mut dyn FnMut(Found),
    ) {
        state.taken.resize(self.targets.len(), 0);
        let bytes = folded.text.as_bytes();
        let mut at = state.at - folded.off;
        let mut caches = Caches::default();
        while at < bytes.len() {
            let mut bits = self.begins(bytes, at);
            if bits & AT_WORD != 0 && at > 0 && bytes[at - 1].is_ascii_alphanumeric() {
                bits &= !AT_WORD;
            }
            if bits & !KNOWN != 0 {
                state.hits.clear();
                if !self.try_at(bytes, at, bits, finished, &mut caches, &mut state.hits) {
                    break;
                }
                if !state.hits.is_empty() {
                    self.test_hits(folded, at, state, emit);
                }
            }
            at += 1;
        }
        state.at = at + folded.off;
    }

    /// What can begin at a position.
    #[inline]
    fn begins(&self, bytes: &[u8], at: usize) -> u8 {
        let (entry, len) = self.begins.entry(bytes, at);
        match entry.load(Ordering::Relaxed) {
            0 => self.fill(entry, &bytes[at..at + len]),
            bits => bits,
        }
    }

    #[cold]
    fn fill(&self, entry: &AtomicU8, bytes: &[u8]) -> u8 {
        let lives = |machine: &Option<Machine>, bit: u8| match machine {
            Some(machine) if machine.lives(bytes) => bit,
            _ => 0,
        };
        let words = self.words.as_ref().is_some_and(|trie| trie.begins(bytes));
        let bits = KNOWN
            | lives(&self.anywhere, ANYWHERE)
            | lives(&self.at_word, AT_WORD)
            | if words { WORDS } else { 0 };
        entry.store(bits, Ordering::Relaxed);
        bits
    }

    /// Collects what matches at a position; false when only more text can tell.
    fn try_at<'s>(
        &'s self,
        bytes: &[u8],
        at: usize,
        bits: u8,
        finished: bool,
        caches: &mut Caches<'s>,
        hits: &mut Vec<Hit>,
    ) -> bool {
        let mut settled = true;
        if let (true, Some(machine)) = (bits & ANYWHERE != 0, &self.anywhere) {
            let cache = caches.anywhere.get_or_insert_with(|| machine.caches.get());
            settled &= machine.run(cache, bytes, at, finished, hits);
        }
        if let (true, true, Some(machine)) = (settled, bits & AT_WORD != 0, &self.at_word) {
            let cache = caches.at_word.get_or_insert_with(|| machine.caches.get());
            settled &= machine.run(cache, bytes, at, finished, hits);
        }
        if let (true, true, Some(trie)) = (settled, bits & WORDS != 0, &self.words) {
            settled &= trie.run(bytes, at, finished, hits);
        }
        settled
    }

    fn test_hits(
        &self,
        folded: &Folded,
        at: usize,
        state: &mut State,
        emit: &mut dyn FnMut(Found),
    ) {
        let start = at + folded.off;
        // The longest end first, so that a target takes the longest that passes.
        state
            .hits
            .sort_by_key(|hit| (hit.target, std::cmp::Reverse(hit.end)));
        let text = &folded.text;
        // Once for all: a generous pattern has hundreds of ends at one place.
        let before = last_chars(&text[..at], BEFORE_CHARS);
        let mut refused = None;
        for hit in &state.hits {
            if start < state.taken[hit.target] || refused == Some(hit.target) {
                continue;
            }
            let candidate = Candidate {
                text: &text[at..hit.end],
                before,
                after: text[hit.end..].chars().next(),
            };
            let Some(verdict) = self.test(hit, &candidate) else {
                // A detector decides on the longest candidate alone, and takes less of it itself.
                if matches!(self.targets[hit.target].test, Test::Detector(_)) {
                    refused = Some(hit.target);
                }
                continue;
            };
            let len = verdict.len.min(candidate.text.len());
            if len == 0 || !candidate.text.is_char_boundary(len) {
                continue;
            }
            state.taken[hit.target] = start + len;
            emit(Found {
                target: hit.target,
                start,
                end: start + len,
                score: verdict.score,
            });
        }
    }

    fn test(&self, hit: &Hit, candidate: &Candidate<'_>) -> Option<Verdict> {
        let previous = candidate.before.chars().next_back();
        let passes = match &self.targets[hit.target].test {
            Test::Detector(detector) => return (detector.validate)(candidate),
            Test::Pattern(test) => {
                (!test.edge_before || is_edge(previous, candidate.text.chars().next()))
                    && (!test.edge_after
                        || is_edge(candidate.text.chars().next_back(), candidate.after))
            }
            Test::Words(words) => {
                words.inside
                    || !continues_word(previous, candidate.text.chars().next())
                        && !continues_word(candidate.text.chars().next_back(), candidate.after)
            }
        };
        passes.then_some(Verdict {
            score: 1.0,
            len: candidate.text.len(),
        })
    }
}

/// A word boundary of a pattern: a word character on one side only.
fn is_edge(left: Option<char>, right: Option<char>) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    is_word(left) != is_word(right)
}

/// Whether two neighbours belong to one word. Scripts without spaces have no such words.
fn continues_word(left: Option<char>, right: Option<char>) -> bool {
    let spaced = |c: Option<char>| {
        c.is_some_and(|c| c.is_alphanumeric() && (!stands_alone(c) || (c as u32) < 0x2000))
    };
    spaced(left) && spaced(right)
}

fn last_chars(text: &str, chars: usize) -> &str {
    match text.char_indices().rev().nth(chars.saturating_sub(1)) {
        Some((at, _)) => &text[at..],
        None => text,
    }
}

/// Caches taken from their pools for one run.
#[derive(Default)]
struct Caches<'s> {
    anywhere: Option<CacheGuard<'s>>,
    at_word: Option<CacheGuard<'s>>,
}

type CacheMaker =
    Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;
type CacheGuard<'s> = regex_automata::util::pool::PoolGuard<'s, Cache, CacheMaker>;

/// The patterns of some targets as one lazy automaton: linear in the text whatever they are.
struct Machine {
    dfa: Arc<DFA>,
    caches: Pool<Cache, CacheMaker>,
    /// Per pattern: its target, and how many characters a match may have.
    of: Vec<(usize, usize)>,
    max_chars: usize,
}

/// Room for the states of one automaton. They are made as texts need them.
const CACHE_BYTES: usize = 8 << 20;
const NFA_BYTES: usize = 32 << 20;

impl Machine {
    fn new(
        targets: &[Target],
        wanted: impl Fn(&Target) -> bool,
    ) -> Result<Option<Machine>, (usize, String)> {
        let (mut hirs, mut of) = (Vec::new(), Vec::new());
        for (at, target) in targets.iter().enumerate() {
            if !wanted(target) {
                continue;
            }
            for (pattern, ignore_case, max_chars) in target.test.patterns() {
                let parsed =
                    pattern::parse(pattern, ignore_case).map_err(|message| (at, message))?;
                hirs.push(parsed.hir);
                of.push((at, max_chars));
            }
        }
        let Some(max_chars) = of.iter().map(|(_, chars)| *chars).max() else {
            return Ok(None);
        };
        let target = of[0].0;
        let dfa = build(&hirs).map_err(|message| (target, message))?;
        let maker = {
            let dfa = dfa.clone();
            Box::new(move || dfa.create_cache()) as CacheMaker
        };
        Ok(Some(Machine {
            dfa,
            caches: Pool::new(maker),
            of,
            max_chars,
        }))
    }

    /// Whether a position that begins with these bytes can still match, or has matched.
    fn lives(&self, bytes: &[u8]) -> bool {
        let mut cache = self.caches.get();
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let Ok(mut state) = self.dfa.start_state(&mut cache, &anchored) else {
            return true;
        };
        for byte in bytes {
            match self.dfa.next_state(&mut cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                // It may die with the next byte and still have found something.
                Ok(next) if next.is_match() || next.is_quit() => return true,
                Ok(next) => state = next,
                Err(_) => return true,
            }
        }
        true
    }

    /// False when the text ends before the automaton does.
    fn run(
        &self,
        cache: &mut Cache,
        bytes: &[u8],
        at: usize,
        finished: bool,
        hits: &mut Vec<Hit>,
    ) -> bool {
        let anchored = start::Config::new().anchored(Anchored::Yes);
        let Ok(mut state) = self.dfa.start_state(cache, &anchored) else {
            return true;
        };
        let mut chars = 0;
        for (offset, byte) in bytes[at..].iter().enumerate() {
            chars += usize::from(byte & 0xC0 != 0x80);
            // A match shows one byte late, so one character more than the longest is walked.
            if chars > self.max_chars + 1 {
                return true;
            }
            match self.dfa.next_state(cache, state, *byte) {
                Ok(next) => state = next,
                Err(_) => return true,
            }
            if state.is_tagged() {
                if state.is_match() {
                    let matched = chars - usize::from(byte & 0xC0 != 0x80);
                    self.note(cache, state, at + offset, matched, hits);
                } else if state.is_dead() || state.is_quit() {
                    return true;
                }
            }
        }
        if !finished {
            return false;
        }
        if let Ok(state) = self.dfa.next_eoi_state(cache, state)
            && state.is_match()
        {
            self.note(cache, state, bytes.len(), chars, hits);
        }
        true
    }

    fn note(
        &self,
        cache: &Cache,
        state: regex_automata::hybrid::LazyStateID,
        end: usize,
        chars: usize,
        hits: &mut Vec<Hit>,
    ) {
        for index in 0..self.dfa.match_len(cache, state) {
            let pattern = self.dfa.match_pattern(cache, state, index).as_usize();
            let (target, max_chars) = self.of[pattern];
            if chars > max_chars {
                continue;
            }
            match hits.iter_mut().find(|hit| hit.target == target) {
                Some(hit) => hit.end = end,
                None => hits.push(Hit { target, end }),
            }
        }
    }
}

impl Test {
    fn patterns(&self) -> Vec<(&str, bool, usize)> {
        match self {
            Test::Detector(detector) => {
                let patterns = detector.patterns.iter();
                patterns
                    .map(|pattern| (*pattern, false, detector.max_chars))
                    .collect()
            }
            Test::Pattern(test) => vec![(&test.pattern, test.ignore_case, test.max_chars)],
            Test::Words(_) => Vec::new(),
        }
    }
}

fn build(hirs: &[Hir]) -> Result<Arc<DFA>, String> {
    let nfa = thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .nfa_size_limit(Some(NFA_BYTES))
                .shrink(false)
                .which_captures(thompson::WhichCaptures::None),
        )
        .build_many_from_hir(hirs)
        .map_err(|error| format!("too large: {error}"))?;
    let config = DFA::config()
        .match_kind(MatchKind::All)
        .cache_capacity(CACHE_BYTES)
        .skip_cache_capacity_check(true);
    let dfa = DFA::builder()
        .configure(config)
        .build_from_nfa(nfa)
        .map_err(|error| format!("too large: {error}"))?;
    Ok(Arc::new(dfa))
}

/// Of longer lists only whole words are looked for: each way to write one takes room.
const MOST_SPACED: usize = 10_000;

/// A word with something between its letters, as people write what is not to be found.
fn spaced_out(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let ascii = letters.iter().all(char::is_ascii_alphabetic);
    let least = if ascii { 3 } else { 2 };
    if letters.len() < least || !letters.iter().all(|c| c.is_alphabetic()) {
        return Vec::new();
    }
    let between = |sign: char| {
        let mut out = String::with_capacity(word.len() + letters.len());
        for (at, c) in letters.iter().enumerate() {
            if at > 0 {
                out.push(sign);
            }
            out.push(*c);
        }
        out
    };
    " .-_*・".chars().map(between).collect()
}

/// Up to so many words are compared one by one.
const FEW_WORDS: usize = 8;

/// The words of all lists, as one trie.
struct Trie {
    /// None where the words are few: then each is compared, and nothing need be built. Marks in
    /// prompts are such, and differ from call to call.
    nfa: Option<contiguous::NFA>,
    few: Vec<String>,
    /// Per word: its target and its length in bytes.
    of: Vec<(usize, usize)>,
    /// The first three bytes of each word, or all of a shorter one.
    starts: Vec<Vec<u8>>,
}

impl Trie {
    fn new(kind: Kind, targets: &[Target]) -> Result<Option<Trie>, (usize, String)> {
        let (mut all, mut of) = (Vec::new(), Vec::new());
        let ways = !matches!(kind, Kind::Raw | Kind::Rot13);
        // That text was turned; words are as they are.
        let kind = if kind == Kind::Rot13 {
            Kind::Plain
        } else {
            kind
        };
        for (at, target) in targets.iter().enumerate() {
            let Test::Words(words) = &target.test else {
                continue;
            };
            for word in &words.words {
                let folded = fold_text(kind, word.trim());
                if folded.is_empty() || folded.chars().count() < words.min_chars {
                    continue;
                }
                let spaced = ways && words.words.len() <= MOST_SPACED;
                let all_ways = spaced.then(|| spaced_out(&folded)).into_iter().flatten();
                for way in all_ways.chain([folded]) {
                    of.push((at, way.len()));
                    all.push(way);
                }
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let starts = all.iter().map(|word| word.bytes().take(3).collect());
        let mut starts: Vec<Vec<u8>> = starts.collect();
        starts.sort_unstable();
        starts.dedup();
        if all.len() <= FEW_WORDS {
            return Ok(Some(Trie {
                nfa: None,
                few: all,
                of,
                starts,
            }));
        }
        let nfa = contiguous::Builder::new()
            .match_kind(aho_corasick::MatchKind::Standard)
            .build(&all)
            .map_err(|error| (of[0].0, format!("the list is too large: {error}")))?;
        Ok(Some(Trie {
            nfa: Some(nfa),
            few: Vec::new(),
            of,
            starts,
        }))
    }

    /// As [`Trie::run`], word by word.
    fn compare(&self, text: &[u8], at: usize, finished: bool, hits: &mut Vec<Hit>) -> bool {
        let mut settled = true;
        for (word, (target, len)) in self.few.iter().zip(&self.of) {
            if text.starts_with(word.as_bytes()) {
                hits.push(Hit {
                    target: *target,
                    end: at + len,
                });
            }
            // Also when all of the word is there: what comes after it decides.
            settled &= finished || !word.as_bytes().starts_with(text);
        }
        settled
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        let from = self.starts.partition_point(|start| start[..] < bytes[..1]);
        let same = self.starts[from..]
            .iter()
            .take_while(|start| start[0] == bytes[0]);
        same.into_iter()
            .any(|start| start.iter().zip(bytes).all(|(one, other)| one == other))
    }

    fn run(&self, bytes: &[u8], at: usize, finished: bool, hits: &mut Vec<Hit>) -> bool {
        let Some(nfa) = &self.nfa else {
            return self.compare(&bytes[at..], at, finished, hits);
        };
        let anchored = aho_corasick::Anchored::Yes;
        let Ok(mut state) = nfa.start_state(anchored) else {
            return true;
        };
        for (offset, byte) in bytes[at..].iter().enumerate() {
            state = nfa.next_state(anchored, state, *byte);
            if nfa.is_dead(state) {
                return true;
            }
            if nfa.is_match(state) {
                for index in 0..nfa.match_len(state) {
                    let word = nfa.match_pattern(state, index).as_usize();
                    let (target, len) = self.of[word];
                    // A state also stands for the words that end here and began later.
                    if len == offset + 1 {
                        hits.push(Hit {
                            target,
                            end: at + len,
                        });
                    }
                }
            }
        }
        finished
    }
}
