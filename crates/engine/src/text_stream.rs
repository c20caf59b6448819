//! Bytes of tokens to text that may be shown.
//!
//! Two things are held back: the beginning of a character whose other bytes have
//! not come, and text that may turn out to be the beginning of a stop text.

/// Turns the bytes of one answer into text, piece by piece.
#[derive(Debug, Default)]
pub(crate) struct TextStream {
    stops: Vec<String>,
    /// The beginning of a character.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop text.
    held: String,
}

/// What a piece adds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Text to show.
    pub(crate) text: String,
    /// Whether a stop text was found; the answer ends before it.
    pub(crate) stopped: bool,
}

impl TextStream {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self {
            stops,
            bytes: Vec::new(),
            held: String::new(),
        }
    }

    /// Adds bytes and gives out what is certain.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Piece {
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if let Some(at) = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min()
        {
            self.held.truncate(at);
            return Piece {
                text: std::mem::take(&mut self.held),
                stopped: true,
            };
        }
        let keep = self.possible_stop();
        let rest = self.held.split_off(self.held.len() - keep);
        Piece {
            text: std::mem::replace(&mut self.held, rest),
            stopped: false,
        }
    }

    /// The end of the answer: what was held back is text after all, but for a character that the
    /// end cut; its bytes are known from the tokens.
    pub(crate) fn finish(&mut self) -> String {
        self.bytes.clear();
        std::mem::take(&mut self.held)
    }

    /// Moves whole characters from `bytes` to `held`. Bytes that can no longer become one turn
    /// into U+FFFD.
    fn take_characters(&mut self) {
        loop {
            let (valid, bad) = match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.bytes.clear();
                    return;
                }
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.held
                .push_str(&String::from_utf8_lossy(&self.bytes[..valid]));
            self.bytes.drain(..valid);
            let Some(bad) = bad else { return };
            self.held.push(char::REPLACEMENT_CHARACTER);
            self.bytes.drain(..bad);
        }
    }

    /// Bytes at the end of `held` that are the beginning of a stop text.
    fn possible_stop(&self) -> usize {
        let longest = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
            ends.filter(|end| self.held.ends_with(&stop[..*end]))
                .max()
                .unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes pieces; gives the text after each, and the whole answer.
    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, String, bool) {
        let mut stream = TextStream::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut shown = Vec::new();
        let mut stopped = false;
        for piece in pieces {
            let piece = stream.push(piece);
            shown.push(piece.text);
            if piece.stopped {
                stopped = true;
                break;
            }
        }
        let end = if stopped {
            String::new()
        } else {
            stream.finish()
        };
        let whole = shown.concat() + &end;
        (shown, whole, stopped)
    }

    #[test]
    fn a_stop_text_across_pieces_is_never_shown() {
        let (shown, whole, stopped) = run(&["END"], &[b"one E", b"N", b"D two"]);
        assert_eq!(
            (shown, whole.as_str(), stopped),
            (
                vec!["one ".into(), String::new(), String::new()],
                "one ",
                true
            )
        );
    }

    #[test]
    fn a_false_start_is_shown_after_all() {
        let (shown, whole, stopped) = run(&["END"], &[b"EN", b"EN", b"ENx"]);
        assert_eq!(shown, ["", "EN", "ENENx"]);
        assert_eq!((whole.as_str(), stopped), ("ENENENx", false));
    }

    #[test]
    fn the_earliest_of_several_stops_wins() {
        let (_, whole, stopped) = run(&["world", "lo"], &[b"hello world"]);
        assert_eq!((whole.as_str(), stopped), ("hel", true));
    }

    #[test]
    fn characters_wait_for_their_last_byte() {
        let (shown, whole, _) = run(&[], &[&[0xe5], &[0xb7], &[0xa1, b'x', 0xff, 0xe3]]);
        assert_eq!(shown, ["", "", "巡x\u{fffd}"]);
        assert_eq!(whole, "巡x\u{fffd}");
    }

    #[test]
    fn a_character_that_the_end_cuts_is_left_out() {
        // The first two bytes of a kanji, as `max_tokens` may leave it.
        let (_, whole, _) = run(&[], &["ど".as_bytes(), &[0xe5], &[0xb7]]);
        assert_eq!(whole, "ど");
        let (_, whole, _) = run(&["END"], &[b"EN", &[0xf0, 0x9f, 0x8c]]);
        assert_eq!(whole, "EN");
        // What can never become a character still shows that something was there.
        let (_, whole, _) = run(&[], &[b"a", &[0xb7], &[0xe5]]);
        assert_eq!(whole, "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_text(text in "[ab巡🌸]{0,24}", cuts in prop::collection::vec(0usize..80, 0..8), stop in "[ab巡]{1,3}") {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let (_, whole, stopped) = run(&[&stop], &pieces);
            let expected = text.find(&stop).map_or(text.as_str(), |at| &text[..at]);
            prop_assert_eq!(whole.as_str(), expected);
            prop_assert_eq!(stopped, text.contains(&stop));
        }
    }
}
