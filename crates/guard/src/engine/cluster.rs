//! Cuts text into grapheme clusters as it comes. A cut depends on the text alone: the last
//! cluster waits for the character after it, and one that goes on and on (a letter under a
//! thousand accents) is cut after [`MOST_CHARS`].
//!
//! Surprising: almost no text goes through the Unicode rules. Between two characters of the
//! common scripts that never combine there is always a boundary, and only the rest is asked for.

use unicode_segmentation::UnicodeSegmentation;

/// A longer cluster is cut here.
const MOST_CHARS: usize = 32;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// So many bytes of characters that are each a cluster.
    Single(usize),
    /// One cluster of so many bytes.
    Cluster(usize),
}

/// The next clusters of `text`, which begins at a boundary; none when only more text can tell.
pub(super) fn next(text: &str, finished: bool) -> Option<Cut> {
    let (mut singles, mut last) = (0, 0);
    let mut open = false;
    for (at, c) in text.char_indices() {
        if !stands_alone(c) {
            open = true;
            break;
        }
        last = at;
        singles = at + c.len_utf8();
    }
    if finished && !open {
        return (singles > 0).then_some(Cut::Single(singles));
    }
    if last > 0 {
        return Some(Cut::Single(last));
    }
    cluster(text, finished)
}

fn cluster(text: &str, finished: bool) -> Option<Cut> {
    // Not the whole text: a cluster without end would be read from each of its cuts to there.
    let near = text.char_indices().nth(MOST_CHARS + 1);
    let near = near.map_or(text, |(end, _)| &text[..end]);
    let whole = near.graphemes(true).next()?;
    let cut = match whole.char_indices().nth(MOST_CHARS) {
        Some((at, _)) => at,
        None => whole.len(),
    };
    (cut < text.len() || finished).then_some(Cut::Cluster(cut))
}

/// Whether there is a boundary between any two characters of which this holds.
#[inline]
pub(super) fn stands_alone(c: char) -> bool {
    match c as u32 {
        0x0D => false,
        0..=0x7E => true,
        0xC0..=0x24F | 0x370..=0x482 | 0x48A..=0x52F => true,
        0x2010..=0x2027 | 0x2030..=0x203B => true,
        0x3000..=0x3029 | 0x3041..=0x3096 | 0x30A0..=0x30FF => true,
        0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7A3 => true,
        0xFF01..=0xFF9D => true,
        _ => false,
    }
}

/// Letters and digits, as the standard library has them; fast for the scripts that are common.
#[inline]
pub(super) fn is_letter(c: char) -> bool {
    match c as u32 {
        0..=0x7F => c.is_ascii_alphanumeric(),
        0x3041..=0x3096 | 0x30A1..=0x30FA | 0x4E00..=0x9FFF => true,
        _ => c.is_alphanumeric(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short cut is right: checked against the rules for every pair of a sample.
    #[test]
    fn characters_that_stand_alone_never_combine() {
        let all = (0..=0x10FFFF).filter_map(char::from_u32);
        let alone: Vec<char> = all.filter(|c| stands_alone(*c)).collect();
        let some: Vec<char> = alone.iter().copied().step_by(997).collect();
        for first in &alone {
            for second in some
                .iter()
                .step_by(17)
                .chain(['\n', 'a', 'あ', 'ー'].iter())
            {
                let pair: String = [*first, *second].iter().collect();
                assert_eq!(pair.graphemes(true).count(), 2, "{pair:?}");
            }
        }
    }

    #[test]
    fn letters_are_those_of_the_standard_library() {
        let mut all = (0..=0x1_FFFF).filter_map(char::from_u32);
        assert_eq!(all.find(|c| is_letter(*c) != c.is_alphanumeric()), None);
    }

    /// Read from each cut to its end, this would take hours.
    #[test]
    fn a_cluster_without_end_is_read_once() {
        let tower = format!("e{}", "\u{301}".repeat(1_000_000));
        let (mut at, mut cuts) = (0, 0);
        while let Some(Cut::Cluster(len)) = next(&tower[at..], true) {
            (at, cuts) = (at + len, cuts + 1);
        }
        assert_eq!(
            (at, cuts),
            (tower.len(), 1_000_001_usize.div_ceil(MOST_CHARS))
        );
    }

    #[test]
    fn a_cut_waits_for_what_could_join() {
        assert_eq!(next("ab", false), Some(Cut::Single(1)));
        assert_eq!(next("b", false), None);
        assert_eq!(next("b", true), Some(Cut::Single(1)));
        assert_eq!(next("e\u{301}", false), None);
        assert_eq!(next("e\u{301}x", false), Some(Cut::Cluster(3)));
        assert_eq!(next("\r", false), None);
        let tower = format!("e{}", "\u{301}".repeat(100));
        assert_eq!(next(&tower, false), Some(Cut::Cluster(1 + 31 * 2)));
        let family = "👩\u{200d}👩\u{200d}👧!";
        assert_eq!(next(family, false), Some(Cut::Cluster(family.len() - 1)));
    }
}
