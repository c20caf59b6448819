//! Where text is cut for classifiers and judges: sentences, each with the one before it. The cuts
//! follow from the text alone; a sentence is known when the character after it is.

use super::cluster::is_letter;

/// How text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lengths {
    /// A shorter piece (a heading, "Yes.") goes with the next.
    pub(super) least: usize,
    /// From here on a space is enough.
    pub(super) soft: usize,
    /// No piece is longer.
    pub(super) most: usize,
    /// A piece and the one before it go together up to this length.
    pub(super) pair: usize,
}

impl Lengths {
    pub(super) const SENTENCES: Lengths = Lengths {
        least: 24,
        soft: 200,
        most: 300,
        pair: 400,
    };
    pub(super) const PARAGRAPHS: Lengths = Lengths {
        least: 160,
        soft: 300,
        most: 400,
        pair: 0,
    };

    /// Sentences that are judged one by one: Japanese says in twelve characters what English says
    /// in thirty.
    pub(super) const CLAIMS: Lengths = Lengths {
        least: 12,
        soft: 200,
        most: 300,
        pair: 600,
    };
    /// What a judge reads beside a sentence.
    pub(super) const PASSAGES: Lengths = Lengths {
        least: 240,
        soft: 420,
        most: 500,
        pair: 0,
    };

    pub(super) fn judged(every_chars: u32) -> Lengths {
        let most = every_chars as usize;
        Lengths {
            least: most * 3 / 4,
            soft: most * 7 / 8,
            most,
            pair: most + most / 8,
        }
    }
}

/// A piece, in positions of the top layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Where its text begins: at the piece before it, or at itself.
    pub(super) from: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug)]
pub(super) struct Cutter {
    pub(super) lengths: Lengths,
    start: usize,
    chars: usize,
    last: char,
    /// Whether the piece has a letter or a digit: others ask for nothing.
    says_something: bool,
    previous: Option<(usize, usize)>,
}

impl Cutter {
    pub(super) fn new(lengths: Lengths) -> Self {
        Cutter {
            lengths,
            start: 0,
            chars: 0,
            last: ' ',
            says_something: false,
            previous: None,
        }
    }

    /// Where the piece begins that is not yet whole.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Text from here on is needed.
    pub(super) fn needs(&self) -> usize {
        self.previous.map_or(self.start, |(start, _)| start)
    }

    /// The next character; a piece that ends before it.
    pub(super) fn step(&mut self, at: usize, c: char) -> Option<Window> {
        let lengths = self.lengths;
        let cut = self.chars >= lengths.most
            || self.chars >= lengths.soft && c.is_whitespace()
            || self.chars >= lengths.least && ends_sentence(self.last, c);
        let window = if cut { self.end(at) } else { None };
        self.chars += 1;
        self.last = c;
        self.says_something |= is_letter(c);
        window
    }

    /// The piece that ends here.
    pub(super) fn end(&mut self, at: usize) -> Option<Window> {
        let chars = self.chars;
        let whole = self.says_something;
        let from = match self.previous {
            Some((start, before)) if before + chars <= self.lengths.pair => start,
            _ => self.start,
        };
        let window = Window {
            from,
            start: self.start,
            end: at,
        };
        self.previous = Some((self.start, chars));
        self.start = at;
        self.chars = 0;
        self.says_something = false;
        whole.then_some(window)
    }
}

fn ends_sentence(c: char, next: char) -> bool {
    match c {
        '。' | '！' | '？' | '．' => !"」』）)。！？".contains(next),
        '」' | '』' => false,
        '\n' => true,
        '.' | '!' | '?' | ';' => next.is_whitespace(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        let mut cutter = Cutter::new(Lengths::SENTENCES);
        let mut windows: Vec<Window> = text
            .char_indices()
            .filter_map(|(at, c)| cutter.step(at, c))
            .collect();
        windows.extend(cutter.end(text.len()));
        windows
            .into_iter()
            .map(|window| &text[window.from..window.end])
            .collect()
    }

    #[test]
    fn sentences_come_with_the_one_before() {
        assert_eq!(
            cut("The first sentence stands here. The second sentence follows. Then the third."),
            [
                "The first sentence stands here.",
                "The first sentence stands here. The second sentence follows.",
                " The second sentence follows. Then the third.",
            ]
        );
        assert!(cut(" \n\n ").is_empty());
    }

    #[test]
    fn no_window_is_too_long() {
        for text in ["x".repeat(3000), "あ".repeat(2000), "word ".repeat(900)] {
            assert!(
                cut(&text)
                    .iter()
                    .all(|window| window.chars().count() <= 400)
            );
        }
    }
}
