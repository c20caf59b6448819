//! Where in a recorded text a guard's finds stand, and the text in pieces with its marks.
//!
//! The surprising thing: offsets of finds are of the text that a policy read, while a record holds
//! what became of it after all policies. So the edits are followed: each leaves a placeholder
//! whose form is known, and only while every one of them stands where it must are places told at
//! all. What cannot be told is left without a mark; a wrong mark is worse than none.

use std::ops::Range;

use serde::Serialize;

/// A find in one text, as far as its place goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// First byte of the text that the policy read.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// What was done: `redacted`, `flagged` …
    pub outcome: &'a str,
    /// What it is called in placeholders.
    pub label: &'a str,
    /// What a rule that replaces puts in its place, where that is known.
    pub replacement: Option<&'a str>,
}

/// What the record holds of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// What was read: the call was refused before anything was changed.
    AsRead,
    /// What policies let through.
    AsPassed,
}

/// The places of finds in a recorded text, policy by policy in the order in which they read it.
/// Where nothing was released from a place on, that place is an empty range at the end.
pub fn place(
    text: &str,
    policies: &[Vec<Found<'_>>],
    kept: Kept,
) -> Vec<Vec<Option<Range<usize>>>> {
    match kept {
        Kept::AsRead => place_as_read(text, policies),
        Kept::AsPassed => place_as_passed(text, policies),
    }
}

fn is_edit(found: &Found<'_>) -> bool {
    matches!(found.outcome, "redacted" | "replaced" | "repaired")
}

fn is_end(found: &Found<'_>) -> bool {
    matches!(found.outcome, "blocked" | "rewrite")
}

/// What nobody could point to: it was never found, or stands inside an edit.
fn has_no_place(found: &Found<'_>) -> bool {
    matches!(found.outcome, "covered" | "failed_open")
}

fn checked(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let is_there = range.start < range.end && text.get(range.clone()).is_some();
    is_there.then_some(range)
}

fn place_as_read(text: &str, policies: &[Vec<Found<'_>>]) -> Vec<Vec<Option<Range<usize>>>> {
    let mut is_same = true;
    let mut places = Vec::new();
    for policy in policies {
        let here = |found: &Found<'_>| {
            let told = is_same && found.outcome != "failed_open";
            told.then(|| checked(text, found.start..found.end))
                .flatten()
        };
        places.push(policy.iter().map(here).collect());
        is_same &= !policy.iter().any(is_edit);
    }
    places
}

fn place_as_passed(text: &str, policies: &[Vec<Found<'_>>]) -> Vec<Vec<Option<Range<usize>>>> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut places = Vec::new();
    for policy in policies.iter().rev() {
        let (layer, edits) = follow(text, policy, &layers);
        layers.push(layer);
        let of = |(found, edit): (&Found<'_>, Option<Range<usize>>)| {
            if is_edit(found) {
                return edit;
            }
            if has_no_place(found) {
                return None;
            }
            let start = through(&layers, found.start, Edge::Start, text)?;
            if is_end(found) {
                return (start == text.len()).then_some(start..start);
            }
            let end = through(&layers, found.end, Edge::End, text)?;
            checked(text, start..end)
        };
        places.push(policy.iter().zip(edits).map(of).collect());
    }
    places.reverse();
    places
}

/// What one policy left as it was: parts of what it read, and where they are in what it passed on.
#[derive(Debug, Default)]
struct Layer {
    pieces: Vec<Piece>,
    /// What was edited, and where what stands for it is in what was passed on.
    edits: Vec<(Range<usize>, Range<usize>)>,
}

#[derive(Debug)]
struct Piece {
    from: usize,
    to: usize,
    /// None: to the end, wherever that is.
    len: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

impl Layer {
    /// A place inside an edit is where what stands for it begins or ends.
    fn at(&self, at: usize, edge: Edge) -> Option<usize> {
        for (read, passed) in &self.edits {
            match edge {
                Edge::Start if read.contains(&at) => return Some(passed.start),
                Edge::End if read.start < at && at <= read.end => return Some(passed.end),
                Edge::Start | Edge::End => {}
            }
        }
        let holds = |piece: &&Piece| {
            let Some(inside) = at.checked_sub(piece.from) else {
                return false;
            };
            match (piece.len, edge) {
                (None, _) => true,
                (Some(len), Edge::Start) => inside < len,
                (Some(len), Edge::End) => inside <= len && (inside > 0 || at == 0),
            }
        };
        let piece = self.pieces.iter().find(holds)?;
        Some(piece.to + (at - piece.from))
    }
}

/// A place of what the first of these policies read, in the recorded text. The last layer is the
/// first policy.
fn through(layers: &[Layer], at: usize, edge: Edge, text: &str) -> Option<usize> {
    let found = layers
        .iter()
        .rev()
        .try_fold(at, |at, layer| layer.at(at, edge))?;
    (found <= text.len() && text.is_char_boundary(found)).then_some(found)
}

/// Follows a policy's edits, in order, for as long as each is where it must be.
fn follow(text: &str, policy: &[Found<'_>], later: &[Layer]) -> (Layer, Vec<Option<Range<usize>>>) {
    let mut order: Vec<usize> = (0..policy.len())
        .filter(|at| is_edit(&policy[*at]))
        .collect();
    order.sort_by_key(|at| policy[*at].start);
    let mut edits = vec![None; policy.len()];
    let mut layer = Layer::default();
    let (mut read, mut passed) = (0, 0);
    for at in order {
        let found = &policy[at];
        let Some(gap) = found.start.checked_sub(read) else {
            return (layer, edits);
        };
        layer.pieces.push(Piece {
            from: read,
            to: passed,
            len: Some(gap),
        });
        let stands = through(later, passed + gap, Edge::Start, text)
            .and_then(|from| Some(from..from + stand_in(text.get(from..)?, found)?));
        let Some(stands) = stands else {
            return (layer, edits);
        };
        read = found.end;
        let from = passed + gap;
        passed = from + stands.len();
        layer.edits.push((found.start..found.end, from..passed));
        edits[at] = Some(stands);
    }
    layer.pieces.push(Piece {
        from: read,
        to: passed,
        len: None,
    });
    (layer, edits)
}

/// How long what stands for a find is, if the text begins with it.
fn stand_in(text: &str, found: &Found<'_>) -> Option<usize> {
    match found.outcome {
        "replaced" => {
            let with = found.replacement?;
            text.starts_with(with).then_some(with.len())
        }
        "redacted" => {
            let rest = text.strip_prefix('<')?;
            let rest = rest.strip_prefix("KEPT_").unwrap_or(rest);
            let rest = rest.strip_prefix(found.label)?;
            let rest = rest.strip_prefix('_').map_or(rest, |number| {
                number.trim_start_matches(|c: char| c.is_ascii_digit())
            });
            let rest = rest.strip_prefix('>')?;
            Some(text.len() - rest.len())
        }
        _ => None,
    }
}

/// A mark on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where; empty for "nothing from here on".
    pub range: Range<usize>,
    /// What was done, which decides what it looks like.
    pub outcome: String,
    /// What to say of it: the rule and what was done.
    pub title: String,
    /// Its number in the list beside the text.
    pub number: Option<usize>,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// The text; empty where the text was ended.
    pub text: String,
    /// The style of its mark.
    pub mark: Option<&'static str>,
    /// What its marks say.
    pub title: Option<String>,
    /// Their numbers.
    pub numbers: Vec<usize>,
}

/// The style of a mark: what stops is red and doubly underlined, what is changed blue and
/// dashed, what is only tried out a dashed frame. Never by the colour alone.
pub fn style(outcome: &str) -> &'static str {
    match outcome {
        "blocked" | "rewrite" => "mark-3",
        "redacted" | "replaced" | "repaired" => "mark-1",
        "shadow" | "covered" | "failed_open" => "mark-5",
        _ => "mark-0",
    }
}

/// Which mark shows where several lie over each other.
fn strength(outcome: &str) -> u8 {
    match style(outcome) {
        "mark-3" => 3,
        "mark-1" => 2,
        "mark-0" => 1,
        _ => 0,
    }
}

/// The text in pieces, each with the marks that lie over it.
pub fn segments(text: &str, marks: &[Mark]) -> Vec<Segment> {
    let mut cuts: Vec<usize> = marks
        .iter()
        .flat_map(|mark| [mark.range.start, mark.range.end])
        .chain([0, text.len()])
        .filter(|cut| text.is_char_boundary(*cut))
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces = Vec::new();
    for pair in cuts.windows(2) {
        let over = |mark: &&Mark| mark.range.start <= pair[0] && pair[1] <= mark.range.end;
        pieces.push(segment(&text[pair[0]..pair[1]], marks.iter().filter(over)));
    }
    let ends = marks.iter().filter(|mark| mark.range.is_empty());
    let end = segment("", ends);
    pieces.extend(end.mark.is_some().then_some(end));
    pieces
}

fn segment<'a>(text: &str, marks: impl Iterator<Item = &'a Mark>) -> Segment {
    let mut marks: Vec<&Mark> = marks.collect();
    marks.sort_by_key(|mark| std::cmp::Reverse(strength(&mark.outcome)));
    let titles: Vec<&str> = marks.iter().map(|mark| mark.title.as_str()).collect();
    Segment {
        text: text.to_owned(),
        mark: marks.first().map(|mark| style(&mark.outcome)),
        title: (!titles.is_empty()).then(|| titles.join("; ")),
        numbers: marks.iter().filter_map(|mark| mark.number).collect(),
    }
}
