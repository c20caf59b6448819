//! Merging two texts that come from a third: each one's changes, where they do not touch the
//! same lines.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// What one text changed: these lines of the base became those.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change<'a> {
    start: usize,
    end: usize,
    lines: Vec<&'a str>,
}

/// The base with the changes of both; none where both changed the same lines in different ways.
/// Where both added lines at the same place, both additions stay.
pub(super) fn merge(base: &str, one: &str, other: &str) -> Option<String> {
    let lines: Vec<&str> = base.split('\n').collect();
    let (ours, theirs) = (changes(&lines, one), changes(&lines, other));
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    let mut out: Vec<&str> = Vec::new();
    let mut at = 0;
    loop {
        let next = match (ours.peek(), theirs.peek()) {
            (None, None) => break,
            (Some(_), None) => ours.next()?,
            (None, Some(_)) => theirs.next()?,
            (Some(a), Some(b)) if a == b => {
                theirs.next();
                ours.next()?
            }
            (Some(a), Some(b)) if overlap(a, b) => return None,
            (Some(a), Some(b)) if (a.start, a.end) <= (b.start, b.end) => ours.next()?,
            _ => theirs.next()?,
        };
        out.extend(lines.get(at..next.start)?);
        out.extend(next.lines);
        at = next.end;
    }
    out.extend(lines.get(at..)?);
    Some(out.join("\n"))
}

fn overlap(a: &Change<'_>, b: &Change<'_>) -> bool {
    let both_add = a.start == a.end && b.start == b.end;
    !both_add && a.start < b.end.max(b.start + 1) && b.start < a.end.max(a.start + 1)
}

fn changes<'a>(base: &[&str], text: &'a str) -> Vec<Change<'a>> {
    let lines: Vec<&'a str> = text.split('\n').collect();
    let changed = |op: DiffOp| match op {
        DiffOp::Equal { .. } => None,
        other => Some(Change {
            start: other.old_range().start,
            end: other.old_range().end,
            lines: lines.get(other.new_range()).unwrap_or_default().to_vec(),
        }),
    };
    let ops = capture_diff_slices(Algorithm::Patience, base, &lines);
    ops.into_iter().filter_map(changed).collect()
}
