//! OTLP's trace export, as protobuf or JSON, as far as spans need it: ids, times, names,
//! status and attributes. Events and links are passed over.
//!
//! A span that cannot be read is counted and left out; only a body that is no export at all
//! is refused. The few messages of the format are read by hand: they have not changed
//! since 1.0, and a generator would be a larger dependency than this file.

use std::io::Read as _;

use base::{SpanId, TraceId};
use serde_json::{Map, Number, Value};

/// How deep a value may be nested.
const MOST_DEEP: usize = 32;
/// Spans of one export, at most.
const MOST_SPANS: usize = 20_000;
/// Bytes of a body after decompression.
const MOST_BYTES: u64 = 32 << 20;

/// One span as its client sent it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OtlpSpan {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// Its own attributes, after those of its resource.
    pub(super) attributes: Map<String, Value>,
    pub(super) failed: bool,
    pub(super) status_message: String,
}

impl OtlpSpan {
    /// An attribute that is a text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)?.as_str()
    }

    /// An attribute that a client wrote as JSON unless it was a text already: what looks like a
    /// number may have been either, and stays a text.
    pub(super) fn json(&self, key: &str) -> Option<Value> {
        match self.attributes.get(key)? {
            Value::String(text) if text.starts_with(['{', '[']) => {
                Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
            }
            other => Some(other.clone()),
        }
    }
}

/// What an export holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Export {
    pub(super) spans: Vec<OtlpSpan>,
    /// Spans that could not be read.
    pub(super) rejected: u64,
}

/// A body without its compression.
///
/// # Errors
/// The compression is unknown or broken, or there is too much in it.
pub(super) fn decompress(encoding: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let limited = |reader: &mut dyn std::io::Read| {
        let mut out = Vec::new();
        let read = reader.take(MOST_BYTES + 1).read_to_end(&mut out);
        read.map_err(|error| format!("the compressed body cannot be read: {error}"))?;
        if out.len() as u64 > MOST_BYTES {
            return Err(format!(
                "the body is larger than {} MiB when unpacked",
                MOST_BYTES >> 20
            ));
        }
        Ok(out)
    };
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body.to_vec()),
        "gzip" => limited(&mut flate2::read::GzDecoder::new(body)),
        "deflate" => limited(&mut flate2::read::ZlibDecoder::new(body)),
        other => Err(format!("the encoding {other:?} is not understood here")),
    }
}

#[derive(Clone, Copy)]
enum Field<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn text(self) -> Option<String> {
        self.bytes()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The fields of a message, in their order.
fn fields(mut rest: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut rest)?),
            1 => Field::Fixed(u64::from_le_bytes(array(take(&mut rest, 8)?))),
            2 => {
                let length = varint(&mut rest)?;
                let length = usize::try_from(length).map_err(|_| broken())?;
                Field::Bytes(take(&mut rest, length)?)
            }
            5 => {
                let bytes: [u8; 4] = array(take(&mut rest, 4)?);
                Field::Fixed(u64::from(u32::from_le_bytes(bytes)))
            }
            _ => return Err(broken()),
        };
        found.push((tag >> 3, field));
    }
    Ok(found)
}

fn broken() -> String {
    "the body is no OTLP export of traces".to_owned()
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(count).ok_or_else(broken)?;
    *rest = tail;
    Ok(head)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

/// Reads an export in protobuf.
///
/// # Errors
/// It is none.
pub(super) fn read_protobuf(body: &[u8]) -> Result<Export, String> {
    let mut export = Export::default();
    for (_, resource_spans) in fields(body)?.iter().filter(|(number, _)| *number == 1) {
        let parts = fields(resource_spans.bytes().ok_or_else(broken)?)?;
        let mut resource = Map::new();
        for (_, part) in parts.iter().filter(|(number, _)| *number == 1) {
            for (number, field) in fields(part.bytes().ok_or_else(broken)?)? {
                if number == 1 {
                    attribute(field, &mut resource)?;
                }
            }
        }
        keep_of_resource(&mut resource);
        for (_, scope) in parts.iter().filter(|(number, _)| *number == 2) {
            for (number, field) in fields(scope.bytes().ok_or_else(broken)?)? {
                if number == 2 {
                    export.add(proto_span(field.bytes().ok_or_else(broken)?, &resource)?);
                }
            }
        }
    }
    Ok(export)
}

impl Export {
    fn add(&mut self, span: Option<OtlpSpan>) {
        match span {
            Some(span) if self.spans.len() < MOST_SPANS => self.spans.push(span),
            _ => self.rejected += 1,
        }
    }
}

/// What a resource says about all of its spans; the rest is about the client's machine.
fn keep_of_resource(resource: &mut Map<String, Value>) {
    resource.retain(|key, _| {
        key.starts_with("langfuse.")
            || matches!(
                key.as_str(),
                "deployment.environment" | "deployment.environment.name" | "service.name"
            )
    });
}

/// A span; `None` for one without usable ids or times.
fn proto_span(body: &[u8], resource: &Map<String, Value>) -> Result<Option<OtlpSpan>, String> {
    let (mut trace, mut span, mut parent) = (None, None, None);
    let (mut name, mut start, mut end) = (String::new(), 0, 0);
    let (mut attributes, mut failed, mut status_message) = (resource.clone(), false, String::new());
    for (number, field) in fields(body)? {
        match (number, field) {
            (1, Field::Bytes(id)) => trace = Some(id),
            (2, Field::Bytes(id)) => span = Some(id),
            (4, Field::Bytes(id)) => parent = Some(id),
            (5, _) => name = field.text().unwrap_or_default(),
            (7, Field::Fixed(nanos)) => start = nanos,
            (8, Field::Fixed(nanos)) => end = nanos,
            (9, _) => attribute(field, &mut attributes)?,
            (15, Field::Bytes(status)) => {
                for (number, field) in fields(status)? {
                    match (number, field) {
                        (2, _) => status_message = field.text().unwrap_or_default(),
                        (3, Field::Varint(code)) => failed = code == 2,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ids = trace.and_then(id).zip(span.and_then(id));
    let times = micros(start).zip(micros(end));
    let Some(((trace, span), (start_us, end_us))) = ids.zip(times) else {
        return Ok(None);
    };
    Ok(Some(OtlpSpan {
        trace: TraceId(trace),
        span: SpanId(span),
        parent: parent.and_then(id).map(SpanId),
        name,
        start_us,
        end_us: end_us.max(start_us),
        attributes,
        failed,
        status_message,
    }))
}

/// An id of the right length that is not all zeros, which means that there is none.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

fn micros(nanos: u64) -> Option<i64> {
    i64::try_from(nanos / 1000).ok().filter(|us| *us > 0)
}

fn attribute(field: Field<'_>, into: &mut Map<String, Value>) -> Result<(), String> {
    let (mut key, mut value) = (String::new(), Value::Null);
    for (number, field) in fields(field.bytes().ok_or_else(broken)?)? {
        match number {
            1 => key = field.text().unwrap_or_default(),
            2 => value = any_value(field, 0)?,
            _ => {}
        }
    }
    into.insert(key, value);
    Ok(())
}

fn any_value(field: Field<'_>, depth: usize) -> Result<Value, String> {
    if depth > MOST_DEEP {
        return Err("an attribute is nested too deeply".to_owned());
    }
    let mut value = Value::Null;
    for (number, field) in fields(field.bytes().ok_or_else(broken)?)? {
        value = match (number, field) {
            (1, _) => Value::String(field.text().unwrap_or_default()),
            (2, Field::Varint(flag)) => Value::Bool(flag != 0),
            (3, Field::Varint(number)) => Value::from(number.cast_signed()),
            (4, Field::Fixed(bits)) => {
                Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
            }
            (5, Field::Bytes(list)) => {
                let items = fields(list)?.into_iter();
                let items = items.filter(|(number, _)| *number == 1);
                let items = items.map(|(_, item)| any_value(item, depth + 1));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            (6, Field::Bytes(list)) => {
                let mut map = Map::new();
                for (_, pair) in fields(list)?.into_iter().filter(|(number, _)| *number == 1) {
                    let (mut key, mut value) = (String::new(), Value::Null);
                    for (number, field) in fields(pair.bytes().ok_or_else(broken)?)? {
                        match number {
                            1 => key = field.text().unwrap_or_default(),
                            2 => value = any_value(field, depth + 1)?,
                            _ => {}
                        }
                    }
                    map.insert(key, value);
                }
                Value::Object(map)
            }
            _ => value,
        };
    }
    Ok(value)
}

/// Reads an export in OTLP's JSON: ids in hex, 64-bit numbers as texts.
///
/// # Errors
/// It is none.
pub(super) fn read_json(body: &[u8]) -> Result<Export, String> {
    let content: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let groups = list(&content, "resourceSpans").ok_or_else(broken)?;
    let mut export = Export::default();
    for group in groups {
        let mut resource = json_attributes(&group["resource"]);
        keep_of_resource(&mut resource);
        for scope in list(group, "scopeSpans").unwrap_or(&[]) {
            for span in list(scope, "spans").unwrap_or(&[]) {
                export.add(json_span(span, &resource));
            }
        }
    }
    Ok(export)
}

fn list<'a>(value: &'a Value, key: &str) -> Option<&'a [Value]> {
    value.get(key)?.as_array().map(Vec::as_slice)
}

fn json_span(value: &Value, resource: &Map<String, Value>) -> Option<OtlpSpan> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let nanos = |key: &str| {
        let number = value[key].as_u64();
        number.or_else(|| value[key].as_str()?.parse().ok())
    };
    let mut attributes = resource.clone();
    attributes.extend(json_attributes(value));
    let start_us = micros(nanos("startTimeUnixNano")?)?;
    let trace: TraceId = text("traceId").to_ascii_lowercase().parse().ok()?;
    let span: SpanId = text("spanId").to_ascii_lowercase().parse().ok()?;
    if trace.0 == [0; 16] || span.0 == [0; 8] {
        return None;
    }
    Some(OtlpSpan {
        trace,
        span,
        parent: text("parentSpanId").to_ascii_lowercase().parse().ok(),
        name: text("name").to_owned(),
        start_us,
        end_us: micros(nanos("endTimeUnixNano")?)?.max(start_us),
        attributes,
        failed: value["status"]["code"] == 2,
        status_message: value["status"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    })
}

fn json_attributes(value: &Value) -> Map<String, Value> {
    let pairs = list(value, "attributes").unwrap_or(&[]).iter();
    let pairs = pairs.filter_map(|pair| {
        let key = pair["key"].as_str()?.to_owned();
        Some((key, json_value(&pair["value"], 0)))
    });
    pairs.collect()
}

fn json_value(value: &Value, depth: usize) -> Value {
    let Some((kind, content)) = value.as_object().and_then(|map| map.iter().next()) else {
        return Value::Null;
    };
    let whole = |content: &Value| {
        let number = content.as_i64();
        number.or_else(|| content.as_str()?.parse().ok())
    };
    match kind.as_str() {
        "intValue" => whole(content).map_or(Value::Null, Value::from),
        "arrayValue" if depth < MOST_DEEP => {
            let items = list(content, "values").unwrap_or(&[]).iter();
            items.map(|item| json_value(item, depth + 1)).collect()
        }
        "kvlistValue" if depth < MOST_DEEP => {
            let pairs = list(content, "values").unwrap_or(&[]).iter();
            let pairs = pairs.filter_map(|pair| {
                let key = pair["key"].as_str()?.to_owned();
                Some((key, json_value(&pair["value"], depth + 1)))
            });
            Value::Object(pairs.collect())
        }
        "stringValue" | "boolValue" | "doubleValue" => content.clone(),
        _ => Value::Null,
    }
}

/// The answer to an export in protobuf.
pub(super) fn answer_protobuf(rejected: u64, message: &str) -> Vec<u8> {
    if rejected == 0 {
        return Vec::new();
    }
    let mut partial = vec![0x08];
    put_varint(&mut partial, rejected);
    partial.push(0x12);
    put_varint(&mut partial, message.len() as u64);
    partial.extend_from_slice(message.as_bytes());
    let mut out = vec![0x0a];
    put_varint(&mut out, partial.len() as u64);
    out.extend(partial);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}
