//! Reads the few fields of a request that matter and edits its bytes in place.
//!
//! A request to a provider of the same protocol must arrive as the caller wrote
//! it: unknown fields, their order, the spelling of numbers. So the body is never
//! re-serialised; [`Request::forward`] splices the model name and what else must
//! change into the caller's own bytes.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::context::Extension;
use crate::error::ApiError;
use crate::plan::Limits;

/// Our own extension object, which never reaches a provider.
const EXTENSION: &str = "meguri";

/// A request body whose top-level fields are known by place.
pub(crate) struct Request {
    body: Bytes,
    members: Vec<Member>,
}

struct Member {
    name: String,
    value: Range<usize>,
}

/// What [`Request::forward`] changes in the caller's bytes.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// The model name without the provider.
    pub model: &'a str,
    /// Messages to put before the caller's.
    pub prompt: &'a [Value],
    /// Ask the provider for token counts at the end of the stream.
    pub ask_usage: bool,
}

impl Request {
    /// Checks size, encoding, syntax and nesting, and finds the fields.
    pub(crate) fn read(body: Bytes, limits: &Limits) -> Result<Self, ApiError> {
        if body.len() > limits.request_bytes {
            let message = format!(
                "the body has {} bytes; at most {} are allowed",
                body.len(),
                limits.request_bytes
            );
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                message,
            ));
        }
        let text = std::str::from_utf8(&body).map_err(|error| {
            ApiError::bad_json(format!(
                "the body is not UTF-8: byte {} is wrong",
                error.valid_up_to()
            ))
        })?;
        check_depth(text, limits.json_depth)?;
        let fields: Members<'_> = serde_json::from_str(text).map_err(|error| {
            ApiError::bad_json(format!(
                "the body is not a JSON object as expected: {error}"
            ))
        })?;
        let members = fields.0.into_iter().map(|(name, value)| {
            // The raw value borrows from the text, so its address tells its place.
            let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
            Member {
                name,
                value: start..start + value.get().len(),
            }
        });
        let members: Vec<Member> = members.collect();
        if let Some(twice) = first_duplicate(&members) {
            return Err(ApiError::invalid(
                twice,
                format!("the field {twice:?} is there twice"),
            ));
        }
        Ok(Self { body, members })
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    fn text(&self, range: Range<usize>) -> &str {
        // The whole body was checked to be UTF-8 and ranges lie between JSON tokens.
        std::str::from_utf8(&self.body[range]).unwrap_or_default()
    }

    /// The JSON text of a field.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.member(name)
            .map(|member| self.text(member.value.clone()))
    }

    /// A field as this type; `null` counts as not there.
    pub(crate) fn field<T: DeserializeOwned>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        serde_json::from_str(raw)
            .map_err(|_| ApiError::invalid(name, format!("{name:?} must be {expected}")))
    }

    /// Our extension object.
    pub(crate) fn extension(&self) -> Result<Extension, ApiError> {
        let Some(raw) = self.raw(EXTENSION) else {
            return Ok(Extension::default());
        };
        serde_json::from_str(raw).map_err(|error| {
            ApiError::invalid(EXTENSION, format!("{EXTENSION:?} cannot be read: {error}"))
        })
    }

    /// Every field but these and the extension, for the record.
    pub(crate) fn parameters(&self, without: &[&str]) -> Map<String, Value> {
        let wanted =
            |member: &&Member| member.name != EXTENSION && !without.contains(&member.name.as_str());
        let members = self.members.iter().filter(wanted);
        let values = members.filter_map(|member| {
            Some((
                member.name.clone(),
                serde_json::from_str(self.text(member.value.clone())).ok()?,
            ))
        });
        values.collect()
    }

    /// The caller's bytes with these changes and nothing else.
    pub(crate) fn forward(&self, changes: &Changes<'_>) -> Bytes {
        let mut splices: Vec<(Range<usize>, String)> = Vec::new();
        if let Some(model) = self.member("model") {
            splices.push((model.value.clone(), Value::from(changes.model).to_string()));
        }
        splices.extend(self.extension_cut().map(|range| (range, String::new())));
        splices.extend(self.prompt_splice(changes.prompt));
        if changes.ask_usage {
            splices.extend(self.usage_splice());
        }
        splices.sort_by_key(|(range, _)| range.start);
        let added: usize = splices.iter().map(|(_, text)| text.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + added);
        let mut copied = 0;
        for (range, text) in splices {
            out.extend_from_slice(&self.body[copied..range.start]);
            out.extend_from_slice(text.as_bytes());
            copied = range.end;
        }
        out.extend_from_slice(&self.body[copied..]);
        out.into()
    }

    /// The extension with one of the commas beside it.
    fn extension_cut(&self) -> Option<Range<usize>> {
        let index = self
            .members
            .iter()
            .position(|member| member.name == EXTENSION)?;
        let end = self.members[index].value.end;
        if let Some(before) = index.checked_sub(1) {
            return Some(self.members[before].value.end..end);
        }
        let start = memchr::memchr(b'{', &self.body)? + 1;
        let comma = memchr::memchr(b',', &self.body[end..]).filter(|_| self.members.len() > 1);
        Some(start..comma.map_or(end, |offset| end + offset + 1))
    }

    fn prompt_splice(&self, prompt: &[Value]) -> Option<(Range<usize>, String)> {
        let messages = self.member("messages").filter(|_| !prompt.is_empty())?;
        let inside = messages.value.start + 1;
        let texts: Vec<String> = prompt.iter().map(Value::to_string).collect();
        let empty = self.body[inside..messages.value.end - 1]
            .iter()
            .all(u8::is_ascii_whitespace);
        let comma = if empty { "" } else { "," };
        Some((inside..inside, texts.join(",") + comma))
    }

    /// Puts `include_usage: true` where it belongs.
    fn usage_splice(&self) -> Option<(Range<usize>, String)> {
        let Some(options) = self.member("stream_options") else {
            let end = memchr::memrchr(b'}', &self.body)?;
            return Some((
                end..end,
                r#","stream_options":{"include_usage":true}"#.to_owned(),
            ));
        };
        let raw = self.text(options.value.clone());
        let text = match serde_json::from_str::<Value>(raw) {
            Ok(Value::Object(mut map)) => {
                map.insert("include_usage".to_owned(), Value::Bool(true));
                Value::Object(map).to_string()
            }
            Ok(Value::Null) => r#"{"include_usage":true}"#.to_owned(),
            // Not for us to judge: the provider will say what is wrong with it.
            _ => return None,
        };
        Some((options.value.clone(), text))
    }
}

fn first_duplicate(members: &[Member]) -> Option<&str> {
    // Requests have a handful of fields; a crafted one with thousands must not cost their square.
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

/// Nesting is counted before parsing: parsers recurse.
fn check_depth(text: &str, most: usize) -> Result<(), ApiError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Err(ApiError::bad_json(format!(
                "the body is nested deeper than {most} levels at byte {at}"
            )));
        }
    }
    Ok(())
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut found = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    found.push(entry);
                }
                Ok(Members(found))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(body: &str) -> Result<Request, ApiError> {
        Request::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::default())
    }

    #[track_caller]
    fn check(body: &str, prompt: &[Value], ask_usage: bool, expected: &str) {
        let forwarded = read(body).unwrap().forward(&Changes {
            model: "m",
            prompt,
            ask_usage,
        });
        assert_eq!(std::str::from_utf8(&forwarded).unwrap(), expected);
    }

    #[test]
    fn only_what_must_change_changes() {
        check(
            r#"{ "model" : "p/m","x":1.50, "big":12345678901234567890123,"é":"\u00e9" }"#,
            &[],
            false,
            r#"{ "model" : "m","x":1.50, "big":12345678901234567890123,"é":"\u00e9" }"#,
        );
        check(
            r#"{"meguri":{"session":"s"} , "model":"p/m"}"#,
            &[],
            false,
            r#"{ "model":"m"}"#,
        );
        check(
            r#"{"model":"p/m","meguri":{"tags":["a,b"]}}"#,
            &[],
            false,
            r#"{"model":"m"}"#,
        );
        check(
            r#"{"model":"p/m", "meguri":{},"n":1}"#,
            &[],
            false,
            r#"{"model":"m","n":1}"#,
        );
        check(
            r#"{"model":"p/m","stream":true}"#,
            &[],
            true,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        );
        check(
            r#"{"stream_options":{"a":1,"include_usage":false},"model":"p/m"}"#,
            &[],
            true,
            r#"{"stream_options":{"a":1,"include_usage":true},"model":"m"}"#,
        );
        let system = [json!({"role": "system", "content": "be \"kind\""})];
        check(
            r#"{"model":"p/m","messages":[ {"role":"user","content":"x"}]}"#,
            &system,
            false,
            r#"{"model":"m","messages":[{"role":"system","content":"be \"kind\""}, {"role":"user","content":"x"}]}"#,
        );
        check(
            r#"{"model":"p/m","messages":[ ]}"#,
            &system,
            false,
            r#"{"model":"m","messages":[{"role":"system","content":"be \"kind\""} ]}"#,
        );
    }

    #[test]
    fn bad_bodies_are_told_where_they_are_bad() {
        let problem = |body: &[u8]| {
            let error = Request::read(Bytes::copy_from_slice(body), &Limits::default()).err();
            error.map(|e| e.message).unwrap_or_default()
        };
        assert_eq!(
            problem(b"{\"a\": \xff}"),
            "the body is not UTF-8: byte 6 is wrong"
        );
        assert!(
            problem(b"{\"a\": 1,\n \"b\" 2}").contains("line 2 column 6"),
            "{}",
            problem(b"{\"a\": 1,\n \"b\" 2}")
        );
        assert!(problem(b"[1]").contains("expected a JSON object"));
        assert!(problem(b"").contains("EOF"));
        assert!(problem(br#"{"model":"a","model":"b"}"#).contains("twice"));
        assert!(problem(br#"{"model":"a","\u006dodel":"b"}"#).contains("twice"));
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64));
        assert!(problem(deep.as_bytes()).contains("nested deeper than 64"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::read(Bytes::from(bytes), &Limits::default());
        }

        #[test]
        fn what_is_forwarded_means_the_same(
            order in Just(vec!["model", "meguri", "messages", "x", "y"]).prop_shuffle(),
            space in prop::sample::select(vec!["", " ", "\n\t"]),
        ) {
            let value = |name: &str| match name {
                "model" => r#""p/m""#,
                "meguri" => r#"{"tags":["}",","]}"#,
                "messages" => r#"[{"role":"user","content":"{"}]"#,
                _ => "[1,{\"}\":\",\"}]",
            };
            let fields: Vec<String> =
                order.iter().map(|name| format!("{space}\"{name}\"{space}:{space}{}{space}", value(name))).collect();
            let body = format!("{{{}}}", fields.join(","));
            let forwarded = read(&body).unwrap().forward(&Changes { model: "m", prompt: &[], ask_usage: false });
            let mut expected: Value = serde_json::from_str(&body).unwrap();
            expected["model"] = "m".into();
            expected.as_object_mut().unwrap().shift_remove("meguri");
            prop_assert_eq!(serde_json::from_slice::<Value>(&forwarded).unwrap(), expected);
        }
    }
}
