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

use crate::context::{Extension, PromptFields};
use crate::error::ApiError;
use crate::plan::Limits;

/// Our own extension object, which never reaches a provider.
const EXTENSION: &str = "meguri";
/// Fields that name a prompt, at the top or in `metadata`; they never reach a provider either.
const PROMPT_FIELDS: [&str; 3] = ["prompt_id", "prompt_version", "prompt_variables"];
const METADATA: &str = "metadata";

/// A request body whose top-level fields are known by place.
pub(crate) struct Request {
    body: Bytes,
    members: Vec<Member>,
}

struct Member {
    name: String,
    value: Range<usize>,
}

impl Member {
    /// `base` is the address of the body.
    fn new(name: String, value: &RawValue, base: usize) -> Self {
        // The raw value borrows from the text, so its address tells its place.
        let start = value.get().as_ptr() as usize - base;
        Self {
            name,
            value: start..start + value.get().len(),
        }
    }
}

/// What [`Request::forward`] changes in the caller's bytes.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// The model name without the provider.
    pub model: &'a str,
    /// Messages to put before the caller's.
    pub before: &'a [Value],
    /// Messages to put after the caller's.
    pub after: &'a [Value],
    /// The whole conversation, where it is another than what the caller wrote; then the two
    /// before do not count.
    pub messages: Option<&'a [Value]>,
    /// The texts to embed, where they are other than what the caller wrote.
    pub input: Option<&'a [Value]>,
    /// Fields to add; the caller's own bytes have none of them.
    pub added: Option<&'a Map<String, Value>>,
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
        let base = text.as_ptr() as usize;
        let members = fields.0.into_iter();
        let members = members.map(|(name, value)| Member::new(name, value, base));
        let members: Vec<Member> = members.collect();
        if let Some(twice) = first_duplicate(&members) {
            return Err(ApiError::invalid(
                twice,
                format!("the field {twice:?} is there twice"),
            ));
        }
        Ok(Self { body, members })
    }

    /// The whole body, to read it again.
    pub(crate) fn body(&self) -> Bytes {
        self.body.clone()
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

    /// Which prompt the fields made for that name, and its inputs. Those at the top
    /// win over those in `metadata`.
    pub(crate) fn prompt_fields(&self) -> Result<PromptFields, ApiError> {
        let mut found = PromptFields::default();
        if let Some(metadata) = self.raw(METADATA).and_then(object_members) {
            for (name, value) in metadata.0 {
                found.take(&name, value.get())?;
            }
        }
        for name in PROMPT_FIELDS {
            if let Some(raw) = self.raw(name) {
                found.take(name, raw)?;
            }
        }
        Ok(found)
    }

    /// Every field but these and our own, for the record.
    pub(crate) fn parameters(&self, without: &[&str]) -> Map<String, Value> {
        let wanted =
            |member: &&Member| !is_ours(&member.name) && !without.contains(&member.name.as_str());
        let members = self.members.iter().filter(wanted);
        let values = members.filter_map(|member| {
            Some((
                member.name.clone(),
                serde_json::from_str(self.text(member.value.clone())).ok()?,
            ))
        });
        let mut values: Map<String, Value> = values.collect();
        if let Some(Value::Object(metadata)) = values.get_mut(METADATA) {
            let before = metadata.len();
            metadata.retain(|name, _| !PROMPT_FIELDS.contains(&name.as_str()));
            if metadata.is_empty() && before > 0 {
                values.shift_remove(METADATA);
            }
        }
        values
    }

    /// The caller's bytes with these changes and nothing else.
    pub(crate) fn forward(&self, changes: &Changes<'_>) -> Bytes {
        let mut splices: Vec<(Range<usize>, String)> = Vec::new();
        let mut added: Vec<(&str, String)> = Vec::new();
        let model = Value::from(changes.model).to_string();
        match self.member("model") {
            Some(member) => splices.push((member.value.clone(), model)),
            None => added.push(("model", model)),
        }
        let cuts = self.cuts();
        splices.extend(cuts.ranges.into_iter().map(|range| (range, String::new())));
        self.put_messages(changes, &mut splices, &mut added);
        if let (Some(input), Some(member)) = (changes.input, self.member("input")) {
            let is_list = self.text(member.value.clone()).starts_with('[');
            let text = match input {
                [one] if !is_list => one.to_string(),
                all => Value::from(all).to_string(),
            };
            splices.push((member.value.clone(), text));
        }
        for (name, value) in changes.added.into_iter().flatten() {
            added.push((name, value.to_string()));
        }
        if changes.ask_usage {
            match self.usage_splice() {
                Some(splice) => splices.push(splice),
                None if self.member("stream_options").is_none() => {
                    added.push(("stream_options", r#"{"include_usage":true}"#.to_owned()));
                }
                None => {}
            }
        }
        if let Some(end) = memchr::memrchr(b'}', &self.body).filter(|_| !added.is_empty()) {
            let fields = added
                .iter()
                .map(|(name, value)| format!("{}:{value}", Value::from(*name)));
            let comma = if cuts.leaves_some { "," } else { "" };
            let text = comma.to_owned() + &fields.collect::<Vec<_>>().join(",");
            splices.push((end..end, text));
        }
        self.spliced(splices)
    }

    fn spliced(&self, mut splices: Vec<(Range<usize>, String)>) -> Bytes {
        // Stable, so that what goes before and what goes after in an empty list keep their order.
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

    /// Our own fields, each with one of the commas beside it; also those inside
    /// `metadata`, and `metadata` itself where nothing else is in it.
    fn cuts(&self) -> Cuts {
        let whole = 0..self.body.len();
        let inside = self.metadata_cuts();
        let empty = inside.as_ref().is_some_and(|inside| !inside.leaves_some);
        let mut cuts = cut(&self.body, &whole, &self.members, |member| {
            is_ours(&member.name) || (empty && member.name == METADATA)
        });
        if let Some(inside) = inside.filter(|_| !empty) {
            cuts.ranges.extend(inside.ranges);
        }
        cuts
    }

    /// What is cut inside `metadata`, if anything is.
    fn metadata_cuts(&self) -> Option<Cuts> {
        let place = self.member(METADATA)?.value.clone();
        let members = object_members(self.text(place.clone()))?;
        let base = self.body.as_ptr() as usize;
        let members: Vec<Member> = members
            .0
            .into_iter()
            .map(|(name, value)| Member::new(name, value, base))
            .collect();
        let named = |member: &Member| PROMPT_FIELDS.contains(&member.name.as_str());
        if !members.iter().any(named) {
            return None;
        }
        Some(cut(&self.body, &place, &members, named))
    }

    /// Puts messages around the caller's own, which stay as they are written.
    fn put_messages(
        &self,
        changes: &Changes<'_>,
        splices: &mut Vec<(Range<usize>, String)>,
        added: &mut Vec<(&str, String)>,
    ) {
        if let Some(messages) = changes.messages {
            let text = Value::from(messages).to_string();
            match self.member("messages") {
                Some(member) => splices.push((member.value.clone(), text)),
                None => added.push(("messages", text)),
            }
            return;
        }
        if changes.before.is_empty() && changes.after.is_empty() {
            return;
        }
        let list = |messages: &[Value]| {
            let texts: Vec<String> = messages.iter().map(Value::to_string).collect();
            texts.join(",")
        };
        let all = || format!("[{}]", list(&[changes.before, changes.after].concat()));
        let Some(messages) = self.member("messages") else {
            added.push(("messages", all()));
            return;
        };
        if !self.text(messages.value.clone()).starts_with('[') {
            splices.push((messages.value.clone(), all()));
            return;
        }
        let (first, end) = (messages.value.start + 1, messages.value.end - 1);
        let empty = self.body[first..end].iter().all(u8::is_ascii_whitespace);
        if empty {
            let inside = list(&[changes.before, changes.after].concat());
            splices.push((first..first, inside));
            return;
        }
        if !changes.before.is_empty() {
            splices.push((first..first, list(changes.before) + ","));
        }
        if !changes.after.is_empty() {
            splices.push((end..end, ",".to_owned() + &list(changes.after)));
        }
    }

    /// Puts `include_usage: true` into options that are there.
    fn usage_splice(&self) -> Option<(Range<usize>, String)> {
        let options = self.member("stream_options")?;
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

fn is_ours(name: &str) -> bool {
    name == EXTENSION || PROMPT_FIELDS.contains(&name)
}

fn object_members(raw: &str) -> Option<Members<'_>> {
    serde_json::from_str(raw).ok()
}

struct Cuts {
    ranges: Vec<Range<usize>>,
    /// Whether a member stays.
    leaves_some: bool,
}

/// Where to cut members out of the object at `place`, so that the commas come out right.
fn cut(
    body: &[u8],
    place: &Range<usize>,
    members: &[Member],
    gone: impl Fn(&Member) -> bool,
) -> Cuts {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut kept: Option<usize> = None;
    // The end of members at the beginning that go, whose comma stands behind them.
    let mut leading: Option<usize> = None;
    for member in members {
        if gone(member) {
            match (kept, ranges.last_mut()) {
                // One run of members with the one before.
                (Some(before), Some(last)) if last.start == before => last.end = member.value.end,
                (Some(before), _) => ranges.push(before..member.value.end),
                (None, _) => leading = Some(member.value.end),
            }
        } else {
            kept = Some(member.value.end);
        }
    }
    let open = memchr::memchr(b'{', &body[place.clone()]).map(|at| place.start + at + 1);
    if let (Some(open), Some(end)) = (open, leading) {
        let comma = memchr::memchr(b',', &body[end..place.end]).filter(|_| kept.is_some());
        ranges.push(open..comma.map_or(end, |offset| end + offset + 1));
    }
    Cuts {
        ranges,
        leaves_some: kept.is_some(),
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
        check_changes(
            body,
            &Changes {
                before: prompt,
                ask_usage,
                ..Changes::default()
            },
            expected,
        );
    }

    #[track_caller]
    fn check_changes(body: &str, changes: &Changes<'_>, expected: &str) {
        let forwarded = read(body).unwrap().forward(&Changes {
            model: "m",
            ..*changes
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
    fn a_prompts_fields_are_cut_out_and_its_own_are_added() {
        let none = Changes::default();
        check_changes(
            r#"{"prompt_id":"a", "prompt_version":3 ,"model":"p/m", "x" : 1.0,"prompt_variables":{"a":"}"},"y":[]}"#,
            &none,
            r#"{"model":"m", "x" : 1.0,"y":[]}"#,
        );
        check_changes(
            r#"{"model":"p/m","metadata":{"a" : "1", "prompt_id":"p", "prompt_version":"2","b":"2"},"meguri":{}}"#,
            &none,
            r#"{"model":"m","metadata":{"a" : "1","b":"2"}}"#,
        );
        check_changes(
            r#"{"model":"p/m","metadata": { "prompt_id":"p", "prompt_variables":"{}" , "b":"2"},"n":1}"#,
            &none,
            r#"{"model":"m","metadata": { "b":"2"},"n":1}"#,
        );
        check_changes(
            r#"{"metadata":{"prompt_id":"p"},"prompt_variables":{},"model":"p/m","n":1}"#,
            &none,
            r#"{"model":"m","n":1}"#,
        );
        check_changes(r#"{"prompt_id":"p"}"#, &none, r#"{"model":"m"}"#);
        check_changes(
            r#"{"metadata":{},"model":"p/m"}"#,
            &none,
            r#"{"metadata":{},"model":"m"}"#,
        );
        check_changes(
            r#"{"metadata":"prompt_id","model":"p/m"}"#,
            &none,
            r#"{"metadata":"prompt_id","model":"m"}"#,
        );

        let (before, after) = ([json!({"role": "system"})], [json!({"role": "user"})]);
        let added = json!({"temperature": 0.5, "tools": []})
            .as_object()
            .cloned()
            .unwrap();
        let all = Changes {
            before: &before,
            after: &after,
            added: Some(&added),
            ask_usage: true,
            ..Changes::default()
        };
        let end = r#""temperature":0.5,"tools":[],"stream_options":{"include_usage":true}}"#;
        let both = r#"[{"role":"system"},{"role":"user"}]"#;
        for (body, start) in [
            (
                r#"{"model":"p/m","messages":[ 1.0 ]}"#,
                r#"{"model":"m","messages":[{"role":"system"}, 1.0 ,{"role":"user"}],"#.to_owned(),
            ),
            (
                r#"{"model":"p/m","messages":[]}"#,
                format!(r#"{{"model":"m","messages":{both},"#),
            ),
            (
                r#"{"model":"p/m","messages":null}"#,
                format!(r#"{{"model":"m","messages":{both},"#),
            ),
            (
                r#"{"model":"p/m"}"#,
                format!(r#"{{"model":"m","messages":{both},"#),
            ),
            (
                r#"{"prompt_id":"p"}"#,
                format!(r#"{{"model":"m","messages":{both},"#),
            ),
            (r#"{}"#, format!(r#"{{"model":"m","messages":{both},"#)),
        ] {
            check_changes(body, &all, &(start + end));
        }
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
            order in Just(vec!["model", "meguri", "messages", "prompt_id", "prompt_variables", "metadata", "x", "y"]).prop_shuffle(),
            inside in Just(vec!["prompt_version", "a", "prompt_id", "b"]).prop_shuffle(),
            some in 0..5_usize,
            space in prop::sample::select(vec!["", " ", "\n\t"]),
        ) {
            let inside: Vec<&str> = inside.into_iter().take(some).collect();
            let members: Vec<String> = inside.iter().map(|name| format!("{space}\"{name}\":{space}\"}},{{\"{space}").replace("},{", "1")).collect();
            let metadata = format!("{{{}}}", members.join(","));
            let value = |name: &str| match name {
                "metadata" => metadata.as_str(),
                "prompt_id" => r#""x,}""#,
                "prompt_variables" => r#"{"a":","}"#,
                "model" => r#""p/m""#,
                "meguri" => r#"{"tags":["}",","]}"#,
                "messages" => r#"[{"role":"user","content":"{"}]"#,
                _ => "[1,{\"}\":\",\"}]",
            };
            let fields: Vec<String> =
                order.iter().map(|name| format!("{space}\"{name}\"{space}:{space}{}{space}", value(name))).collect();
            let body = format!("{{{}}}", fields.join(","));
            let forwarded = read(&body).unwrap().forward(&Changes { model: "m", ..Changes::default() });
            let mut expected: Value = serde_json::from_str(&body).unwrap();
            expected["model"] = "m".into();
            let fields = expected.as_object_mut().unwrap();
            for ours in ["meguri", "prompt_id", "prompt_variables"] {
                fields.shift_remove(ours);
            }
            let metadata = fields["metadata"].as_object_mut().unwrap();
            metadata.retain(|name, _| !name.starts_with("prompt"));
            if metadata.is_empty() && !inside.is_empty() {
                fields.shift_remove("metadata");
            }
            prop_assert_eq!(serde_json::from_slice::<Value>(&forwarded).unwrap(), expected);
        }
    }
}
