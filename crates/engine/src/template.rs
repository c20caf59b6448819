//! A model's own chat template, rendered without trusting it.
//!
//! The template comes from the model file, so it is foreign code: it gets no
//! loader, a limit on steps, depth and output, and only the functions that
//! published templates use. Nothing it does can reach a file or another model.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, context};
use serde::Serialize;
use serde_json::Value as Json;

use crate::request::ChatPrompt;

const NAME: &str = "chat_template";
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
const MAX_STEPS: u64 = 5_000_000;
const MAX_DEPTH: usize = 100;
const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// A compiled chat template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos_text: String,
    eos_text: String,
}

impl ChatTemplate {
    /// Compiles a template. `bos_text` and `eos_text` are the model's special tokens.
    pub(crate) fn new(source: &str, bos_text: &str, eos_text: &str) -> Result<Self, String> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(format!(
                "the chat template has {} bytes, more than {MAX_TEMPLATE_BYTES}",
                source.len()
            ));
        }
        let mut environment = Environment::new();
        // Published templates are written for these two settings.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(MAX_STEPS));
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        let source = without_generation_marks(source);
        environment
            .add_template_owned(NAME, source)
            .map_err(|error| format!("the chat template does not compile: {error:#}"))?;
        Ok(Self {
            environment,
            bos_text: bos_text.to_owned(),
            eos_text: eos_text.to_owned(),
        })
    }

    /// Renders a conversation at a moment, which some templates write into the system message.
    pub(crate) fn render(&self, chat: &ChatPrompt, now_us: i64) -> Result<String, String> {
        let messages: Vec<Json> = chat
            .messages
            .iter()
            .map(plain_message)
            .collect::<Result<_, _>>()?;
        let tools = if chat.tools.is_empty() {
            Value::from(())
        } else {
            Value::from(Serde(&chat.tools))
        };
        let strftime_now = move |format: &str| strftime(format, now_us);
        let context = context! {
            messages => Value::from(Serde(&messages)),
            tools => tools,
            add_generation_prompt => chat.add_generation_prompt,
            bos_token => self.bos_text.clone(),
            eos_token => self.eos_text.clone(),
            strftime_now => Value::from_function(strftime_now),
        };
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| format!("{error:#}"))?;
        let mut output = Limited { bytes: Vec::new() };
        template
            .render_captured_to(context, &mut output)
            .map_err(|error| explain(&error))?;
        String::from_utf8(output.bytes).map_err(|error| error.to_string())
    }
}

/// A template's own complaint is the message; other errors come with their place.
fn explain(error: &Error) -> String {
    match error.kind() {
        ErrorKind::InvalidOperation if error.detail().is_some_and(|d| d.starts_with(RAISED)) => {
            error.detail().unwrap_or_default()[RAISED.len()..].to_owned()
        }
        ErrorKind::OutOfFuel => "the template takes too many steps".to_owned(),
        ErrorKind::WriteFailure => {
            format!("the template writes more than {MAX_OUTPUT_BYTES} bytes")
        }
        _ => format!("{error:#}"),
    }
}

const RAISED: &str = "raised by the template: ";

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{message}"),
    ))
}

/// Message content as templates expect it: text. Lists of text parts are joined, null is empty.
fn plain_message(message: &Json) -> Result<Json, String> {
    let mut message = message
        .as_object()
        .ok_or("a message is not an object")?
        .clone();
    if message.get("role").and_then(Json::as_str).is_none() {
        return Err("a message has no role".to_owned());
    }
    let text = match message.get("content") {
        Some(Json::String(text)) => text.clone(),
        None | Some(Json::Null) => String::new(),
        Some(Json::Array(parts)) => parts.iter().map(text_part).collect::<Result<_, _>>()?,
        Some(_) => {
            return Err("the content of a message is neither text nor a list of parts".to_owned());
        }
    };
    message.insert("content".to_owned(), Json::String(text));
    Ok(Json::Object(message))
}

fn text_part(part: &Json) -> Result<&str, String> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        (kind, _) => Err(format!(
            "this model reads text only, not content of type {:?}",
            kind.unwrap_or("none")
        )),
    }
}

/// `{% generation %}` marks the trained part of a conversation; it changes no output.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}").map(|end| end + 2) else {
            break;
        };
        let inside = rest[at + 2..at + length - 2]
            .trim_matches(['-', '+'])
            .trim();
        out.push_str(&rest[..at]);
        if matches!(inside, "generation" | "endgeneration") {
            // An `if` keeps the whitespace control that was written on the mark.
            out.push_str(&rest[at..at + length].replacen(
                inside,
                if inside == "generation" {
                    "if true"
                } else {
                    "endif"
                },
                1,
            ));
        } else {
            out.push_str(&rest[at..at + length]);
        }
        rest = &rest[at + length..];
    }
    out + rest
}

/// JSON as Python's `json.dumps` writes it, because models were trained on that: a space after
/// each comma and colon, nothing escaped for HTML.
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted and ignored: our output always is what these set to False asks for.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let style = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, style))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, Spaced,
        )),
    };
    written.map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    Ok(Value::from(String::from_utf8_lossy(&out).into_owned()))
}

/// One line, with spaces.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// Output with an end.
struct Limited {
    bytes: Vec<u8>,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// The common directives of C's strftime, in UTC.
fn strftime(format: &str, now_us: i64) -> String {
    let seconds = now_us.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_date(days);
    let weekday = WEEKDAYS[days.rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year.rem_euclid(100)),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('e') => out += &format!("{day:2}"),
            Some('H') => out += &format!("{:02}", second / 3600),
            Some('M') => out += &format!("{:02}", second / 60 % 60),
            Some('S') => out += &format!("{:02}", second % 60),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('%') => out.push('%'),
            Some('-') => match characters.next() {
                Some('d') => out += &day.to_string(),
                Some('m') => out += &month.to_string(),
                other => out.extend(['%', '-'].into_iter().chain(other)),
            },
            other => out.extend(std::iter::once('%').chain(other)),
        }
    }
    out
}

/// Year, month and day of a day count since 1970-01-01, by the 400-year cycle.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: Vec<Json>) -> Result<String, String> {
        ChatTemplate::new(source, "<s>", "</s>")?
            .render(&ChatPrompt::new(messages), 1_700_000_000_000_000)
    }

    fn user(content: Json) -> Vec<Json> {
        vec![json!({"role": "user", "content": content})]
    }

    #[test]
    fn python_methods_and_the_usual_functions_work() {
        for (source, expected) in [
            ("{{ messages[0]['content'].strip().upper() }}", "HI"),
            (
                "{{ bos_token }}{{ messages|length }}{{ eos_token }}",
                "<s>1</s>",
            ),
            ("{{ strftime_now('%d %b %Y') }}", "14 Nov 2023"),
            (
                "{{ {'a': [1, '<é>'], 'b': none}|tojson }}",
                r#"{"a": [1, "<é>"], "b": null}"#,
            ),
            ("{{ {'a': 1}|tojson(indent=4) }}", "{\n    \"a\": 1\n}"),
            ("{%- generation %}x{%- endgeneration %}", "x"),
            ("{% if tools %}t{% else %}none{% endif %}", "none"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "1",
            ),
        ] {
            assert_eq!(
                render(source, user(json!(" hi "))).as_deref(),
                Ok(expected),
                "{source}"
            );
        }
    }

    #[test]
    fn content_parts_are_joined_and_other_kinds_refused() {
        let source = "{{ messages[0].content }}";
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        assert_eq!(render(source, user(parts)).as_deref(), Ok("ab"));
        assert_eq!(render(source, user(Json::Null)).as_deref(), Ok(""));
        let image = render(source, user(json!([{"type": "image_url"}]))).unwrap_err();
        assert!(image.contains("image_url"), "{image}");
        assert!(render(source, vec![json!("text")]).is_err());
        assert!(render(source, user(json!(5))).is_err());
    }

    #[test]
    fn hostile_templates_end_in_errors() {
        for (source, expected) in [
            (
                "{{ raise_exception('roles must alternate') }}",
                "roles must alternate",
            ),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                "too many steps",
            ),
            (
                "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
                "more than",
            ),
            ("{% include '/etc/passwd' %}", "template"),
            (
                "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                "recursion",
            ),
            ("{{ 'x' * 99999999999 }}", "large"),
        ] {
            let error = render(source, user(json!("hi"))).unwrap_err();
            assert!(error.contains(expected), "{source}: {error}");
        }
        assert!(
            render("{% if %}", user(json!("hi")))
                .unwrap_err()
                .contains("compile")
        );
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |days: i64| civil_date(days);
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(-1), (1969, 12, 31));
        assert_eq!(
            strftime("%A %-d %B %H:%M:%S %q", 86_399_000_000),
            "Thursday 1 January 23:59:59 %q"
        );
    }
}
