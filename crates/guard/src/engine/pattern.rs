//! Reads a regular expression and refuses what the engine will not run: no bound, too large, or
//! a look around anywhere but at an edge.

use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_syntax::hir::{Hir, HirKind, Look};

/// A pattern without the word boundaries at its edges, which the engine tests itself.
pub(super) struct Parsed {
    pub(super) hir: Hir,
    pub(super) edge_before: bool,
    pub(super) edge_after: bool,
}

/// No pattern of a policy is longer, in bytes: text waits for a whole match.
pub(super) const MOST_BYTES: usize = 1_024;
const MOST_NFA_BYTES: usize = 4 << 20;

/// # Errors
/// What is wrong with it.
pub(super) fn parse(pattern: &str, ignore_case: bool) -> Result<Parsed, String> {
    let config = syntax::Config::new()
        .case_insensitive(ignore_case)
        .nest_limit(64);
    let hir = syntax::parse_with(pattern, &config)
        .map_err(|error| format!("not a regular expression: {}", one_line(&error.to_string())))?;
    let parsed = strip_edges(hir);
    let properties = parsed.hir.properties();
    if !properties.look_set().is_empty() {
        return Err(
            "looks around itself (`^`, `$`, or `\\b` other than at its ends), which a text \
                    in parts cannot answer"
                .to_owned(),
        );
    }
    if properties.minimum_len().unwrap_or(0) == 0 {
        return Err("matches the empty text".to_owned());
    }
    if properties.maximum_len().is_none() {
        return Err(
            "has no bound: give every `*`, `+` and `{n,}` an upper end, as in `{0,50}`".to_owned(),
        );
    }
    Ok(parsed)
}

/// Checks the size of a policy's pattern, and gives the most characters that it matches.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_size(hir: &Hir) -> Result<usize, String> {
    let bytes = hir.properties().maximum_len().unwrap_or(usize::MAX);
    if bytes > MOST_BYTES {
        return Err(format!(
            "matches up to {bytes} bytes, at most {MOST_BYTES} are allowed"
        ));
    }
    thompson::Compiler::new()
        .configure(
            thompson::Config::new()
                .nfa_size_limit(Some(MOST_NFA_BYTES))
                .which_captures(thompson::WhichCaptures::None),
        )
        .build_from_hir(hir)
        .map_err(|_| "is too large: fewer repetitions or smaller classes".to_owned())?;
    Ok(bytes)
}

fn one_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim().to_owned()
}

fn strip_edges(hir: Hir) -> Parsed {
    let HirKind::Concat(parts) = hir.kind() else {
        return Parsed {
            hir,
            edge_before: false,
            edge_after: false,
        };
    };
    let edge_before = parts.first().is_some_and(is_word_edge);
    let edge_after = parts.last().is_some_and(is_word_edge);
    let kept = parts[usize::from(edge_before)..parts.len() - usize::from(edge_after)].to_vec();
    Parsed {
        hir: Hir::concat(kept),
        edge_before,
        edge_after,
    }
}

fn is_word_edge(hir: &Hir) -> bool {
    matches!(
        hir.kind(),
        HirKind::Look(Look::WordAscii | Look::WordUnicode)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(pattern: &str, because: &str) {
        let outcome = parse(pattern, false).and_then(|parsed| check_size(&parsed.hir));
        let message = outcome.expect_err(pattern);
        assert!(message.contains(because), "{pattern}: {message}");
    }

    #[test]
    fn what_cannot_run_on_a_stream_is_refused() {
        refused("a+", "no bound");
        refused("a{3,}", "no bound");
        refused("(?:a{0,5})", "empty text");
        refused("^a", "looks around");
        refused(r"a\bb", "looks around");
        refused("a{2000}", "at most 1024");
        refused("((a{60}){60}){60}", "at most 1024");
        refused(r"(?:\w{8}|[^\w]{12}){16}", "too large");
        refused("(a", "not a regular expression");
        refused(r"(a)\1", "not a regular expression");
        let edges = parse(r"\bfoo\b", false).unwrap();
        assert!(edges.edge_before && edges.edge_after);
        assert_eq!(check_size(&edges.hir), Ok(3));
    }
}
