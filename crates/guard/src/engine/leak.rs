//! Passages of a system prompt in a text: the longest run of letters and digits that both have.
//!
//! The prompt is a suffix automaton, so that one step per character tells how much of what was
//! just read stands somewhere in the prompt, and text is held for just that much. Spaces and
//! signs do not count: a passage that was laid out otherwise is the same passage.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cluster::is_letter;
use super::fold::{Kind, fold_text};

/// More of a prompt is not looked at.
const MOST_CHARS: usize = 50_000;
/// A longer passage is reported in parts, so that text is not held for all of it.
const MOST_HELD: usize = 200;

/// A system prompt, prepared for finding passages of it. Built once per prompt, shared by streams.
#[derive(Debug)]
pub struct PromptIndex {
    states: Vec<State>,
    /// Where letters of ASCII lead from the beginning, where most texts are most of the time.
    first: [u32; 128],
}

#[derive(Clone, Debug)]
struct State {
    len: u32,
    link: u32,
    next: Vec<(char, u32)>,
}

impl State {
    fn go(&self, c: char) -> Option<u32> {
        let known = self.next.binary_search_by_key(&c, |(c, _)| *c);
        known.ok().map(|at| self.next[at].1)
    }

    fn set(&mut self, c: char, to: u32) {
        match self.next.binary_search_by_key(&c, |(c, _)| *c) {
            Ok(at) => self.next[at].1 = to,
            Err(at) => self.next.insert(at, (c, to)),
        }
    }
}

const NONE: u32 = u32::MAX;

impl PromptIndex {
    /// Prepares a prompt. What is over 50,000 letters and digits is left out.
    pub fn new(prompt: &str) -> Self {
        let mut index = PromptIndex {
            states: vec![State {
                len: 0,
                link: NONE,
                next: Vec::new(),
            }],
            first: [NONE; 128],
        };
        let mut last = 0;
        let folded = fold_text(Kind::Plain, prompt);
        for c in folded.chars().filter(|c| is_letter(*c)).take(MOST_CHARS) {
            last = index.extend(last, c);
        }
        for (c, to) in &index.states[0].next {
            if let Some(first) = index.first.get_mut(*c as usize) {
                *first = *to;
            }
        }
        index
    }

    #[inline]
    fn go(&self, state: u32, c: char) -> Option<u32> {
        match (state, self.first.get(c as usize)) {
            (0, Some(to)) => (*to != NONE).then_some(*to),
            _ => self.at(state).go(c),
        }
    }

    fn add(&mut self, state: State) -> u32 {
        self.states.push(state);
        (self.states.len() - 1) as u32
    }

    fn at(&self, state: u32) -> &State {
        &self.states[state as usize]
    }

    fn extend(&mut self, last: u32, c: char) -> u32 {
        let new = self.add(State {
            len: self.at(last).len + 1,
            link: 0,
            next: Vec::new(),
        });
        let mut from = last;
        while from != NONE && self.at(from).go(c).is_none() {
            self.states[from as usize].set(c, new);
            from = self.at(from).link;
        }
        if from == NONE {
            return new;
        }
        let to = self.at(from).go(c).unwrap_or(0);
        let len = self.at(from).len + 1;
        let link = if self.at(to).len == len {
            to
        } else {
            self.split(from, to, c, len)
        };
        self.states[new as usize].link = link;
        new
    }

    fn split(&mut self, mut from: u32, to: u32, c: char, len: u32) -> u32 {
        let twin = State {
            len,
            ..self.at(to).clone()
        };
        let twin = self.add(twin);
        while from != NONE && self.at(from).go(c) == Some(to) {
            self.states[from as usize].set(c, twin);
            from = self.at(from).link;
        }
        self.states[to as usize].link = twin;
        twin
    }
}

/// A passage: where its first letter begins and its last ends, in the original, and its length in
/// letters and digits.
pub(super) type Passage = (usize, usize, usize);

#[derive(Debug)]
pub(super) struct Leak {
    index: Arc<PromptIndex>,
    least: usize,
    state: u32,
    /// The original's places of the letters that stand in the prompt.
    places: VecDeque<(usize, usize)>,
}

impl Leak {
    pub(super) fn new(index: Arc<PromptIndex>, least: usize) -> Self {
        Leak {
            index,
            least,
            state: 0,
            places: VecDeque::new(),
        }
    }

    /// The next character and its place in the original; a passage that ended before it.
    pub(super) fn step(&mut self, c: char, start: usize, end: usize) -> Option<Passage> {
        if !is_letter(c) {
            return None;
        }
        let mut passage = None;
        let mut next = self.index.go(self.state, c);
        if next.is_none() || self.places.len() >= self.least + MOST_HELD {
            passage = self.end();
            if passage.is_some() {
                next = self.index.go(self.state, c);
            }
        }
        while self.state != 0 && next.is_none() {
            self.state = self.index.at(self.state).link;
            self.keep(self.index.at(self.state).len as usize);
            next = self.index.go(self.state, c);
        }
        if let Some(next) = next {
            self.state = next;
            self.places.push_back((start, end));
        }
        passage
    }

    fn keep(&mut self, len: usize) {
        let gone = self.places.len().saturating_sub(len);
        self.places.drain(..gone);
    }

    /// The passage that ends here, if it is long enough.
    pub(super) fn end(&mut self) -> Option<Passage> {
        if self.places.len() < self.least {
            return None;
        }
        let passage = (self.places[0].0, self.places.back()?.1, self.places.len());
        self.state = 0;
        self.places.clear();
        Some(passage)
    }

    /// Where a passage might have begun.
    pub(super) fn settled(&self) -> Option<usize> {
        self.places.front().map(|(start, _)| *start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_is_found_however_it_is_laid_out() {
        let prompt = "You are Meguri's helper. Never mention the discount of 40 percent to anyone.";
        let mut leak = Leak::new(Arc::new(PromptIndex::new(prompt)), 30);
        let text = "my rules: NEVER mention -- the discount, of 40 percent! i swear";
        let mut found = Vec::new();
        for (at, c) in text.char_indices() {
            let c = c.to_ascii_lowercase();
            found.extend(leak.step(c, at, at + c.len_utf8()));
        }
        found.extend(leak.end());
        assert_eq!(found.len(), 1);
        assert_eq!(
            &text[found[0].0..found[0].1],
            "NEVER mention -- the discount, of 40 percent"
        );
    }
}
