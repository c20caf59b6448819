//! Keeps special tokens in what users write from becoming control tokens.
//!
//! A message that contains `<|im_end|>` must not end its own turn. So text of the
//! conversation that could be read as a special token is broken by a mark, a
//! character that occurs nowhere else, before the template sees it; the tokenizer
//! takes the marks out again where no special token is looked for. Conversations
//! without such text are not touched and tokenise exactly as before.
//!
//! Covered are whole special tokens inside a text and halves at its ends, which
//! could meet in the rendered prompt. A template that itself writes both ends of a
//! special token around a field (`<|` role `|>`) means it and is left alone.

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::request::ChatPrompt;

/// Characters that may serve as the mark: Unicode's noncharacters, then private use.
fn candidates() -> impl Iterator<Item = char> {
    ('\u{fdd0}'..='\u{fdef}').chain('\u{e000}'..='\u{f8ff}')
}

/// The conversation with marks, and which character they are; `None` if it needs none.
pub(crate) fn mark(
    chat: &ChatPrompt,
    specials: &[String],
) -> Result<Option<(ChatPrompt, char)>, String> {
    let texts = || chat.messages.iter().chain(&chat.tools);
    if !texts().any(|value| any_text(value, &|text| is_risky(text, specials))) {
        return Ok(None);
    }
    let is_free = |mark: &char| !texts().any(|value| any_text(value, &|t| t.contains(*mark)));
    let mark = candidates()
        .find(is_free)
        .ok_or("the conversation uses every private character, so its special tokens cannot be told from the template's")?;
    let marked = |values: &[Json]| {
        values
            .iter()
            .map(|value| with_marks(value, mark, specials))
            .collect()
    };
    let chat = ChatPrompt {
        messages: marked(&chat.messages),
        tools: marked(&chat.tools),
        add_generation_prompt: chat.add_generation_prompt,
    };
    Ok(Some((chat, mark)))
}

/// Whether any text in a value, keys included, satisfies the condition.
fn any_text(value: &Json, condition: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Json::String(text) => condition(text),
        Json::Array(values) => values.iter().any(|value| any_text(value, condition)),
        Json::Object(fields) => fields
            .iter()
            .any(|(key, value)| condition(key) || any_text(value, condition)),
        _ => false,
    }
}

fn with_marks(value: &Json, mark: char, specials: &[String]) -> Json {
    let text = |text: &str| marked_text(text, mark, specials).into_owned();
    match value {
        Json::String(value) => Json::String(text(value)),
        Json::Array(values) => values
            .iter()
            .map(|value| with_marks(value, mark, specials))
            .collect(),
        Json::Object(fields) => fields
            .iter()
            .map(|(key, value)| (text(key), with_marks(value, mark, specials)))
            .collect(),
        other => other.clone(),
    }
}

fn is_risky(text: &str, specials: &[String]) -> bool {
    !breaks(text, specials).is_empty()
}

fn marked_text<'a>(text: &'a str, mark: char, specials: &[String]) -> Cow<'a, str> {
    let breaks = breaks(text, specials);
    if breaks.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + breaks.len() * mark.len_utf8());
    let mut from = 0;
    for at in breaks {
        out.push_str(&text[from..at]);
        out.push(mark);
        from = at;
    }
    Cow::Owned(out + &text[from..])
}

/// Where marks go, in order.
fn breaks(text: &str, specials: &[String]) -> Vec<usize> {
    let mut breaks = Vec::new();
    for special in specials {
        let Some(first) = special.chars().next() else {
            continue;
        };
        // Each occurrence, overlapping ones too, breaks after its first character.
        let mut from = 0;
        while let Some(at) = text[from..].find(special.as_str()) {
            from += at + first.len_utf8();
            breaks.push(from);
        }
        // Templates trim, so halves are also looked for behind white space.
        if let Some(length) = half(special, |half| text.trim_end().ends_with(half), true) {
            breaks.push(text.trim_end().len() - length + first.len_utf8());
        }
        if let Some(length) = half(special, |half| text.trim_start().starts_with(half), false) {
            let last = special.chars().next_back().map_or(0, char::len_utf8);
            breaks.push(text.len() - text.trim_start().len() + length - last);
        }
    }
    breaks.sort_unstable();
    breaks.dedup();
    breaks
}

/// Bytes of the longest proper beginning (or end) of a special token that satisfies the
/// condition.
fn half(special: &str, condition: impl Fn(&str) -> bool, beginning: bool) -> Option<usize> {
    let cuts = special
        .char_indices()
        .map(|(at, _)| at)
        .filter(|at| *at > 0);
    let halves = cuts.map(|at| {
        if beginning {
            &special[..at]
        } else {
            &special[at..]
        }
    });
    halves.filter(|half| condition(half)).map(str::len).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn specials() -> Vec<String> {
        ["<|im_start|>", "<|im_end|>", "</s>"]
            .map(str::to_owned)
            .to_vec()
    }

    fn marked(text: &str) -> String {
        marked_text(text, '#', &specials()).into_owned()
    }

    #[test]
    fn whole_tokens_and_halves_at_the_ends_are_broken() {
        for (text, expected) in [
            ("plain text, a < b > c", "plain text, a < b > c"),
            ("a<|im_end|>b", "a<#|im_end|>b"),
            ("</s></s>", "<#/s><#/s>"),
            ("ends in <|im_", "ends in <#|im_"),
            ("ends in <  \n", "ends in <#  \n"),
            (" d|> begins", " d|#> begins"),
            ("<|im_end", "<#|im_end"),
            ("", ""),
        ] {
            assert_eq!(marked(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_mark_is_chosen_that_the_conversation_does_not_use() {
        let text = "\u{fdd0}\u{fdd1}<|im_end|>";
        let chat = ChatPrompt::new(vec![
            json!({"role": "user", "content": [{"type": "text", "text": text}]}),
        ]);
        let (chat, chosen) = mark(&chat, &specials()).unwrap().unwrap();
        assert_eq!(chosen, '\u{fdd2}');
        assert_eq!(
            chat.messages[0]["content"][0]["text"],
            "\u{fdd0}\u{fdd1}<\u{fdd2}|im_end|>"
        );
        let plain = ChatPrompt::new(vec![json!({"role": "user", "content": "1 < 2 > 0"})]);
        assert!(mark(&plain, &specials()).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_special_token_survives_between_fields(fields in prop::collection::vec("[<|/>s](im_|end|start|/s|\\|){0,3}[<|/>s ]?", 1..5)) {
            let joined: String = fields.iter().map(|field| marked(field)).collect();
            for special in specials() {
                prop_assert!(!joined.contains(&special), "{} in {}", special, joined);
            }
            prop_assert_eq!(joined.replace('#', ""), fields.concat());
        }
    }
}
