//! JSON answers: whether a text is one, and one attempt to mend it. Mending takes away what
//! models put around JSON and adds what they forget at its end; it never makes up content.

use serde_json::Value;

use super::schema::Schema;

/// # Errors
/// Why the text is not what it should be; never the text itself.
pub(super) fn check(text: &str, schema: Option<&Schema>, most_bytes: usize) -> Result<(), String> {
    if text.len() > most_bytes {
        return Err(format!(
            "has over {most_bytes} bytes, which are not checked"
        ));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("is not JSON (line {line}, column {column})")
    })?;
    schema.map_or(Ok(()), |schema| schema.check(&value))
}

/// The JSON that the text seems to mean.
pub(super) fn repair(text: &str) -> Option<String> {
    let start = text.find(['{', '['])?;
    let mended = mend(&text[start..]);
    serde_json::from_str::<Value>(&mended).ok()?;
    Some(mended)
}

/// Copies one value: commas before an end go, brackets and strings that are open at the end of
/// the text are closed, what follows the value is left out.
fn mend(text: &str) -> String {
    let (mut out, mut open) = (String::new(), Vec::new());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => copy_string(&mut rest, &mut out),
            '{' | '[' => {
                open.push(if c == '{' { '}' } else { ']' });
                out.push(c);
            }
            '}' | ']' => {
                drop_comma(&mut out);
                if open.pop() != Some(c) {
                    return out;
                }
                out.push(c);
                if open.is_empty() {
                    return out;
                }
            }
            c => out.push(c),
        }
    }
    drop_comma(&mut out);
    if out.trim_end().ends_with(':') {
        out.push_str("null");
    }
    out.extend(open.into_iter().rev());
    out
}

/// Copies a string without its first quote; line breaks in it are escaped, and one that is open
/// at the end is closed.
fn copy_string(rest: &mut std::str::Chars<'_>, out: &mut String) {
    out.push('"');
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' => match rest.next() {
                Some(next) => out.extend([c, next]),
                None => break,
            },
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn drop_comma(out: &mut String) {
    let kept = out.trim_end();
    if let Some(kept) = kept.strip_suffix(',') {
        out.truncate(kept.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_get_wrong_is_mended() {
        for (text, mended) in [
            ("```json\n{\"a\": 1}\n```", Some("{\"a\": 1}")),
            ("Here it is: [1, 2,]", Some("[1, 2]")),
            (
                "{\"a\": [1, {\"b\": \"c",
                Some("{\"a\": [1, {\"b\": \"c\"}]}"),
            ),
            ("{\"a\": 1, \"b\":", Some("{\"a\": 1, \"b\":null}")),
            ("{\"a\": \"x\ny\"}", Some("{\"a\": \"x\\ny\"}")),
            ("{\"a\": 1, }", Some("{\"a\": 1}")),
            ("no json", None),
            ("{a: 1}", None),
        ] {
            assert_eq!(repair(text).as_deref(), mended, "{text}");
        }
    }
}
