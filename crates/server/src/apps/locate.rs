//! Where a JSON Pointer stands in a text, so that a form can name the line.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The line, from 1, at which the value of this pointer begins; of the nearest value
/// around it where the pointer names something that is missing.
pub(super) fn line_of(text: &str, pointer: &str) -> Option<usize> {
    let mut at: &str = text;
    for token in pointer.split('/').skip(1) {
        match inside(at, &token.replace("~1", "/").replace("~0", "~")) {
            Some(next) => at = next,
            None => break,
        }
    }
    // Every value that was found is a part of the text, so that the difference of addresses is its place.
    let start = (at.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let before = text.get(..start)?;
    let leading = at.len() - at.trim_start().len();
    let blank = at.get(..leading)?;
    Some(1 + before.matches('\n').count() + blank.matches('\n').count())
}

fn inside<'a>(value: &'a str, token: &str) -> Option<&'a str> {
    match value.trim_start().as_bytes().first()? {
        b'{' => {
            let mut fields: HashMap<String, &'a RawValue> = serde_json::from_str(value).ok()?;
            fields.remove(token).map(RawValue::get)
        }
        b'[' => {
            let items: Vec<&'a RawValue> = serde_json::from_str(value).ok()?;
            items
                .get(token.parse::<usize>().ok()?)
                .map(|item| item.get())
        }
        _ => None,
    }
}
