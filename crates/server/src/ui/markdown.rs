//! Markdown that people of a project write for each other: guidelines of reviews.
//!
//! A small part of it: headings, paragraphs, lists, quotes, code, emphasis and links. A
//! line's end is a line's end, as in comments of forges. There is no HTML in it: every
//! character of the text goes through [`base::text::reveal`] and is escaped, and the only
//! tags are the ones that this file writes. Links lead to the web and to mail, open
//! elsewhere and tell nothing of where they were; one that does not stand there as its
//! address shows the host behind it. Nothing is fetched: an image is a link. Whatever the text is, the
//! work grows with its length.

use std::fmt::Write as _;

/// Lists in lists and quotes in quotes that are followed; deeper ones are text.
const MOST_DEPTH: usize = 6;
/// Emphasis in emphasis that is followed.
const MOST_SPANS: usize = 4;
/// A mark inside lines closes within so many bytes, or it is a character like any other:
/// what is searched for each is bounded.
const NEAR: usize = 1000;

/// The HTML of a text.
pub(super) fn html(text: &str) -> String {
    let text = base::text::reveal(&text.replace('\r', ""));
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    blocks(&lines, 0, &mut out);
    out
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

/// What a line begins.
enum Start<'a> {
    Blank,
    Fence(&'a str),
    Heading(usize, &'a str),
    Rule,
    Quote,
    Item(Item),
    Text,
}

/// The mark of a list's item.
#[derive(Clone, Copy, PartialEq)]
struct Item {
    indent: usize,
    /// Where its own text begins, in bytes.
    text: usize,
    /// The first number of a numbered list.
    number: Option<u32>,
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn start(line: &str) -> Start<'_> {
    let trimmed = line.trim_start_matches(' ');
    if trimmed.trim().is_empty() {
        return Start::Blank;
    }
    for fence in ["```", "~~~"] {
        if trimmed.starts_with(fence) {
            return Start::Fence(fence);
        }
    }
    let hashes = trimmed.len() - trimmed.trim_start_matches('#').len();
    if (1..=6).contains(&hashes)
        && let Some(rest) = trimmed[hashes..].strip_prefix(' ')
    {
        return Start::Heading(hashes, rest.trim().trim_end_matches('#').trim_end());
    }
    if ['-', '*', '_']
        .into_iter()
        .any(|mark| is_rule(trimmed, mark))
    {
        return Start::Rule;
    }
    if trimmed.starts_with('>') {
        return Start::Quote;
    }
    item(line, trimmed).map_or(Start::Text, Start::Item)
}

fn is_rule(line: &str, mark: char) -> bool {
    line.chars().all(|c| c == mark || c == ' ') && line.matches(mark).count() >= 3
}

fn item(line: &str, trimmed: &str) -> Option<Item> {
    let indent = line.len() - trimmed.len();
    let digits = trimmed.len()
        - trimmed
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let number = match digits {
        0 => None,
        1..=6 => Some(trimmed[..digits].parse().ok()?),
        _ => return None,
    };
    let rest = &trimmed[digits..];
    let marks: &[char] = if number.is_some() {
        &['.', ')']
    } else {
        &['-', '*', '+']
    };
    let after = rest.strip_prefix(marks)?;
    let text = after
        .strip_prefix(' ')
        .map(|text| text.trim_start_matches(' '))?;
    Some(Item {
        indent,
        text: line.len() - text.len(),
        number,
    })
}

fn blocks(lines: &[&str], depth: usize, out: &mut String) {
    let mut at = 0;
    while at < lines.len() {
        at += match start(lines[at]) {
            Start::Blank => 1,
            Start::Fence(fence) => code(&lines[at..], fence, out),
            Start::Heading(level, text) => {
                // The page's own headings are above: a text's first is the third.
                let level = (level + 2).min(6);
                let _ = write!(out, "<h{level}>");
                inline(text, MOST_SPANS, false, out);
                let _ = write!(out, "</h{level}>");
                1
            }
            Start::Rule => {
                out.push_str("<hr>");
                1
            }
            Start::Quote if depth < MOST_DEPTH => quote(&lines[at..], depth, out),
            Start::Item(item) if depth < MOST_DEPTH => list(&lines[at..], item, depth, out),
            Start::Quote | Start::Item(_) | Start::Text => paragraph(&lines[at..], depth, out),
        };
    }
}

/// Each of these gives how many lines it took.
fn code(lines: &[&str], fence: &str, out: &mut String) -> usize {
    let indent = indent_of(lines[0]);
    let end = lines[1..]
        .iter()
        .position(|line| line.trim().starts_with(fence))
        .map_or(lines.len(), |found| found + 1);
    out.push_str("<pre tabindex=\"0\"><code>");
    for line in &lines[1..end] {
        escape(dedent(line, indent), out);
        out.push('\n');
    }
    out.push_str("</code></pre>");
    (end + 1).min(lines.len())
}

fn quote(lines: &[&str], depth: usize, out: &mut String) -> usize {
    let taken = lines
        .iter()
        .take_while(|line| matches!(start(line), Start::Quote))
        .count();
    let inner: Vec<&str> = lines[..taken]
        .iter()
        .map(|line| {
            let line = line.trim_start_matches(' ');
            let line = line.strip_prefix('>').unwrap_or(line);
            line.strip_prefix(' ').unwrap_or(line)
        })
        .collect();
    out.push_str("<blockquote>");
    blocks(&inner, depth + 1, out);
    out.push_str("</blockquote>");
    taken
}

fn list(lines: &[&str], first: Item, depth: usize, out: &mut String) -> usize {
    let tag = if first.number.is_some() { "ol" } else { "ul" };
    match first.number {
        Some(number) if number != 1 => {
            let _ = write!(out, "<ol start=\"{number}\">");
        }
        _ => {
            let _ = write!(out, "<{tag}>");
        }
    }
    let belongs =
        |item: &Item| item.indent < first.text && item.number.is_some() == first.number.is_some();
    let mut at = 0;
    while let Some(item) = lines.get(at).and_then(|line| match start(line) {
        Start::Item(item) if belongs(&item) => Some(item),
        _ => None,
    }) {
        let end = at + item_lines(&lines[at..], &item);
        let mut inner = vec![&lines[at][item.text..]];
        inner.extend(
            lines[at + 1..end]
                .iter()
                .map(|line| dedent(line, item.text)),
        );
        out.push_str("<li>");
        blocks(&inner, depth + 1, out);
        out.push_str("</li>");
        // An empty line between two items does not end a list.
        let blank = lines[end..]
            .iter()
            .take_while(|line| line.trim().is_empty())
            .count();
        let goes_on = lines
            .get(end + blank)
            .is_some_and(|line| matches!(start(line), Start::Item(item) if belongs(&item)));
        at = if goes_on { end + blank } else { end };
    }
    let _ = write!(out, "</{tag}>");
    at.max(1)
}

fn dedent(line: &str, by: usize) -> &str {
    &line[by.min(indent_of(line))..]
}

/// How many lines belong to an item: its own, what is indented under it, and the lines
/// that go on with its words.
fn item_lines(lines: &[&str], item: &Item) -> usize {
    let mut end = 1;
    while let Some(line) = lines.get(end) {
        let inside = indent_of(line) > item.indent && !line.trim().is_empty();
        let goes_on = matches!(start(line), Start::Text);
        let blank_inside = line.trim().is_empty()
            && lines
                .get(end + 1)
                .is_some_and(|next| !next.trim().is_empty() && indent_of(next) >= item.indent + 2);
        if !(inside || goes_on || blank_inside) {
            break;
        }
        end += 1;
    }
    end
}

fn paragraph(lines: &[&str], depth: usize, out: &mut String) -> usize {
    let is_deep = depth >= MOST_DEPTH;
    let rest = lines[1..].iter().take_while(|line| match start(line) {
        Start::Text => true,
        Start::Quote | Start::Item(_) => is_deep,
        _ => false,
    });
    let taken = 1 + rest.count();
    let text: Vec<&str> = lines[..taken].iter().map(|line| line.trim()).collect();
    out.push_str("<p>");
    inline(&text.join("\n"), MOST_SPANS, false, out);
    out.push_str("</p>");
    taken
}

/// Marks inside lines. `left` is how many levels of emphasis may still open; in the words
/// of a link there are no links.
fn inline(text: &str, left: usize, in_link: bool, out: &mut String) {
    let mut at = 0;
    while at < text.len() {
        let taken = code_span(&text[at..], out).or_else(|| emphasis(text, at, left, in_link, out));
        let taken = match taken {
            None if !in_link => link(&text[at..], left, out).or_else(|| address(text, at, out)),
            taken => taken,
        };
        at += taken.unwrap_or_else(|| plain(&text[at..], out));
    }
}

/// One character, or a mark that a backslash takes its meaning from.
fn plain(rest: &str, out: &mut String) -> usize {
    let mut chars = rest.chars();
    let Some(first) = chars.next() else { return 1 };
    if first == '\\'
        && let Some(next) = chars.next()
        && next.is_ascii_punctuation()
    {
        escape(next.encode_utf8(&mut [0; 4]), out);
        return 2;
    }
    if first == '\n' {
        out.push_str("<br>");
    } else {
        escape(first.encode_utf8(&mut [0; 4]), out);
    }
    first.len_utf8()
}

/// Where a mark closes, if it is near.
fn find(text: &str, mark: &str) -> Option<usize> {
    base::text::cut_bytes(text, NEAR).find(mark)
}

fn code_span(rest: &str, out: &mut String) -> Option<usize> {
    let marks = rest.len() - rest.trim_start_matches('`').len();
    let mark = ["", "`", "``"].get(marks).filter(|mark| !mark.is_empty())?;
    let end = find(&rest[marks..], mark)?;
    let inner = rest[marks..marks + end].trim_matches(' ');
    if inner.is_empty() {
        return None;
    }
    out.push_str("<code>");
    escape(inner, out);
    out.push_str("</code>");
    Some(end + 2 * marks)
}

fn emphasis(text: &str, at: usize, left: usize, in_link: bool, out: &mut String) -> Option<usize> {
    let rest = &text[at..];
    let (mark, tag) = match rest.as_bytes().first()? {
        b'*' if rest.starts_with("**") => ("**", "strong"),
        b'*' => ("*", "em"),
        // In names_like_this a low line is a letter.
        b'_' if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') => ("_", "em"),
        _ => return None,
    };
    let inner = &rest[mark.len()..];
    if left == 0 || inner.starts_with(|c: char| c.is_whitespace() || c == '*' || c == '_') {
        return None;
    }
    let end = find(inner, mark)?;
    let goes_on = mark == "_" && inner[end + 1..].starts_with(char::is_alphanumeric);
    if goes_on || inner[..end].ends_with(char::is_whitespace) {
        return None;
    }
    let _ = write!(out, "<{tag}>");
    inline(&inner[..end], left - 1, in_link, out);
    let _ = write!(out, "</{tag}>");
    Some(end + 2 * mark.len())
}

fn is_address(address: &str) -> bool {
    let starts = |scheme: &&str| {
        let own = address.get(..scheme.len());
        own.is_some_and(|own| own.eq_ignore_ascii_case(scheme)) && address.len() > scheme.len()
    };
    ["https://", "http://", "mailto:"].iter().any(starts)
        && !address.contains(|c: char| c.is_whitespace() || c == '\\')
}

/// What stands between the scheme and the path, a name before an @ among it.
fn host(address: &str) -> &str {
    let (_, rest) = address.split_once(':').unwrap_or(("", address));
    let rest = rest.trim_start_matches('/');
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// A link; one whose words do not show where it leads says so behind it.
fn anchor(address: &str, words: &str, left: usize, out: &mut String) {
    out.push_str(
        "<a class=\"link\" target=\"_blank\" rel=\"noopener noreferrer nofollow\" href=\"",
    );
    escape(address, out);
    out.push_str("\">");
    if words == address {
        escape(words, out);
    } else {
        inline(words, left, true, out);
    }
    out.push_str("</a>");
    if words != address {
        out.push_str(" <span class=\"small muted\">(");
        escape(host(address), out);
        out.push_str(")</span>");
    }
}

/// `[words](address)`; an image is a link as well.
fn link(rest: &str, left: usize, out: &mut String) -> Option<usize> {
    let from = rest.strip_prefix('!').unwrap_or(rest);
    let inner = from.strip_prefix('[')?;
    let middle = find(inner, "](")?;
    let (words, target) = (&inner[..middle], &inner[middle + 2..]);
    let address = &target[..find(target, ")")?];
    if words.trim().is_empty() || words.contains(['[', '\n']) || !is_address(address) {
        return None;
    }
    anchor(address, words, left, out);
    Some(rest.len() - target.len() + address.len() + 1)
}

/// An address that stands in the text, with or without angle brackets.
fn address(text: &str, at: usize, out: &mut String) -> Option<usize> {
    let rest = &text[at..];
    if let Some(inner) = rest.strip_prefix('<') {
        let address = &inner[..find(inner, ">")?];
        if !is_address(address) {
            return None;
        }
        anchor(address, address, 0, out);
        return Some(address.len() + 2);
    }
    if !rest.starts_with("http") || text[..at].ends_with(char::is_alphanumeric) {
        return None;
    }
    let ends = |c: char| !c.is_ascii_graphic() || "<>\"`|\\*".contains(c);
    let near = base::text::cut_bytes(rest, NEAR);
    let address = &near[..near.find(ends).unwrap_or(near.len())];
    let address = address.trim_end_matches(|c: char| ".,;:!?)]'_".contains(c));
    if !is_address(address) {
        return None;
    }
    anchor(address, address, 0, out);
    Some(address.len())
}
