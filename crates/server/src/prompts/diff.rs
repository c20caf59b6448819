//! What changed between two texts, line by line, with the changed words marked.

use serde::Serialize;
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff};

/// A line of a unified diff, or a gap of unchanged ones.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<usize>,
    old_no: Option<usize>,
    new_no: Option<usize>,
    segments: Vec<Segment>,
}

/// A run of text inside a line.
#[derive(Debug, Serialize, Clone)]
pub(super) struct Segment {
    text: String,
    mark: bool,
}

/// One side of a split row.
#[derive(Debug, Serialize, Clone)]
pub(super) struct Side {
    no: usize,
    kind: &'static str,
    segments: Vec<Segment>,
}

/// A row of a split diff, or a gap.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    gap: Option<usize>,
    left: Option<Side>,
    right: Option<Side>,
}

/// Both views of one difference.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    pub(super) same: bool,
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) unified: Vec<Line>,
    pub(super) split: Vec<Row>,
}

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;

/// Compares two texts.
pub(super) fn compare(old: &str, new: &str) -> Difference {
    let diff = TextDiff::configure()
        .algorithm(Algorithm::Patience)
        .diff_lines(old, new);
    let mut result = Difference {
        same: old == new,
        added: 0,
        removed: 0,
        unified: Vec::new(),
        split: Vec::new(),
    };
    let mut shown_old = 0;
    for group in diff.grouped_ops(CONTEXT) {
        let start = group.first().map_or(shown_old, |op| op.old_range().start);
        push_gap(&mut result, start - shown_old);
        for op in &group {
            push_op(&mut result, &diff, op);
            shown_old = op.old_range().end;
        }
    }
    let total = old.lines().count();
    push_gap(&mut result, total.saturating_sub(shown_old));
    result
}

fn push_gap(result: &mut Difference, lines: usize) {
    if lines > 0 && !result.same {
        result.unified.push(Line {
            kind: "gap",
            lines: Some(lines),
            old_no: None,
            new_no: None,
            segments: Vec::new(),
        });
        result.split.push(Row {
            gap: Some(lines),
            left: None,
            right: None,
        });
    }
}

fn push_op<'a>(result: &mut Difference, diff: &'a TextDiff<'a, 'a, 'a, str>, op: &DiffOp) {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    for change in diff.iter_inline_changes(op) {
        let segments: Vec<Segment> = change
            .iter_strings_lossy()
            .map(|(mark, text)| Segment {
                text: text.trim_end_matches(['\n', '\r']).to_owned(),
                mark,
            })
            .filter(|segment| !segment.text.is_empty())
            .collect();
        let old_no = change.old_index().map(|index| index + 1);
        let new_no = change.new_index().map(|index| index + 1);
        let kind = match change.tag() {
            ChangeTag::Equal => "same",
            ChangeTag::Delete => "del",
            ChangeTag::Insert => "add",
        };
        result.unified.push(Line {
            kind,
            lines: None,
            old_no,
            new_no,
            segments: segments.clone(),
        });
        match change.tag() {
            ChangeTag::Equal => {
                let side = |no: Option<usize>| {
                    Some(Side {
                        no: no.unwrap_or(0),
                        kind,
                        segments: segments.clone(),
                    })
                };
                result.split.push(Row {
                    gap: None,
                    left: side(old_no),
                    right: side(new_no),
                });
            }
            ChangeTag::Delete => removed.push(Side {
                no: old_no.unwrap_or(0),
                kind,
                segments,
            }),
            ChangeTag::Insert => added.push(Side {
                no: new_no.unwrap_or(0),
                kind,
                segments,
            }),
        }
    }
    result.added += added.len();
    result.removed += removed.len();
    let rows = removed.len().max(added.len());
    let (mut left, mut right) = (removed.into_iter(), added.into_iter());
    result.split.extend((0..rows).map(|_| Row {
        gap: None,
        left: left.next(),
        right: right.next(),
    }));
}
