//! Prompts by name: finding the version, rendering its templates.
//!
//! Templates come from people and variables from anybody, so rendering is boxed
//! in: no loader, a short list of filters and tests, fuel, a recursion limit, an
//! output cap, and every undefined variable is an error. Only `if`, `for` and
//! `raw` are allowed as tags: `set`, `with` and macros would let forty short
//! lines double a string forty times, which fuel does not count.

use std::io::Write;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, filters, tests};
use serde_json::{Map, Value, json};

use crate::context::PromptRef;
use crate::error::ApiError;
use crate::plan::ProjectPlan;
use crate::record::PromptUsed;
use http::StatusCode;

const TAGS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
const RAW_TAGS: [&str; 2] = ["raw", "endraw"];
const FUEL: u64 = 100_000;
/// The largest result of one filter.
const FILTER_BYTES: usize = 1 << 20;

/// The label that is meant when the caller names none.
const DEFAULT_LABEL: &str = "production";

/// Finds and renders a prompt.
pub(crate) fn render(
    project: &ProjectPlan,
    wanted: &PromptRef,
    max_bytes: usize,
) -> Result<(PromptUsed, Vec<Value>), ApiError> {
    let prompt = project
        .prompts
        .get(&wanted.name)
        .ok_or_else(|| missing(project, wanted))?;
    let label = wanted.label.as_deref().unwrap_or(DEFAULT_LABEL);
    let version = wanted.version.or_else(|| prompt.labels.get(label).copied());
    let found = version.and_then(|number| Some((number, prompt.versions.get(&number)?)));
    let Some((version, document)) = found else {
        let selector = wanted.version.map_or(format!("label {label:?}"), |number| {
            format!("version {number}")
        });
        let message = format!("the prompt {:?} has no {selector}", wanted.name);
        return Err(not_found(message));
    };
    let mut messages = Vec::with_capacity(document.messages.len());
    for message in &document.messages {
        let text = render_template(&message.template, &wanted.variables, max_bytes).map_err(
            |problem| {
                ApiError::invalid("prompt", format!("the prompt {:?}: {problem}", wanted.name))
            },
        )?;
        messages.push(json!({ "role": message.role, "content": text }));
    }
    let label = wanted.version.is_none().then(|| label.to_owned());
    Ok((
        PromptUsed {
            name: wanted.name.clone(),
            version,
            digest: document.digest,
            label,
        },
        messages,
    ))
}

fn missing(project: &ProjectPlan, wanted: &PromptRef) -> ApiError {
    let hint = match crate::nearest(&wanted.name, project.prompts.keys().map(String::as_str)) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => String::new(),
    };
    not_found(format!(
        "there is no prompt {:?} in this project{hint}",
        wanted.name
    ))
}

fn not_found(message: String) -> ApiError {
    let mut error = ApiError::new(StatusCode::NOT_FOUND, "prompt_not_found", message);
    error.param = Some("prompt".to_owned());
    error
}

/// Whether a template can be saved: it parses and uses only what is allowed.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub fn check_template(template: &str) -> Result<(), String> {
    check_tags(template)?;
    environment()
        .template_from_str(template)
        .map(|_| ())
        .map_err(|error| describe(&error))
}

/// Renders a template with these variables, to at most `max_bytes`.
///
/// # Errors
/// What is wrong: a syntax error, an undefined variable, too much work or text.
pub fn render_template(
    template: &str,
    variables: &Map<String, Value>,
    max_bytes: usize,
) -> Result<String, String> {
    check_tags(template)?;
    let compiled = environment()
        .template_from_str(template)
        .map_err(|error| describe(&error))?;
    let mut out = Capped {
        bytes: Vec::new(),
        room: max_bytes,
        full: false,
    };
    match compiled.render_captured_to(minijinja::Value::from(Serde(variables)), &mut out) {
        Ok(_) => String::from_utf8(out.bytes).map_err(|_| "the text is not UTF-8".to_owned()),
        Err(_) if out.full => Err(format!(
            "the rendered text is larger than {max_bytes} bytes"
        )),
        Err(error) => Err(describe(&error)),
    }
}

fn check_tags(template: &str) -> Result<(), String> {
    let mut raw = false;
    for piece in template.split("{%").skip(1) {
        let tag = piece.trim_start_matches(['-', '+']).trim_start();
        let name: &str = tag
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        if RAW_TAGS.contains(&name) {
            raw = name == "raw";
        } else if !raw && !TAGS.contains(&name) {
            return Err(format!(
                "the tag {name:?} is not allowed in prompts; use if, for and raw"
            ));
        }
    }
    Ok(())
}

fn describe(error: &minijinja::Error) -> String {
    if error.kind() == ErrorKind::OutOfFuel {
        return "the template does too much work".to_owned();
    }
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
        let mut env = Environment::empty();
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            env.set_syntax(syntax);
        }
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(50);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.add_filter("upper", filters::upper);
        env.add_filter("lower", filters::lower);
        env.add_filter("title", filters::title);
        env.add_filter("capitalize", filters::capitalize);
        env.add_filter("trim", filters::trim);
        env.add_filter("length", filters::length);
        env.add_filter("first", filters::first);
        env.add_filter("last", filters::last);
        env.add_filter("items", filters::items);
        env.add_filter("default", filters::default);
        env.add_filter("tojson", filters::tojson);
        env.add_filter("join", join);
        env.add_filter("replace", replace);
        env.add_test("defined", tests::is_defined);
        env.add_test("undefined", tests::is_undefined);
        env.add_test("none", tests::is_none);
        env.add_test("string", tests::is_string);
        env.add_test("number", tests::is_number);
        env.add_test("mapping", tests::is_mapping);
        env.add_test("sequence", tests::is_sequence);
        env
    });
    &ENVIRONMENT
}

/// The library's `replace` and `join` multiply their inputs' sizes, and chained
/// they do so again and again; these stop at a cap.
fn replace(text: &str, from: &str, to: &str) -> Result<String, minijinja::Error> {
    let count = text.matches(from).count();
    capped(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(text.replace(from, to))
}

fn join(items: Vec<String>, separator: Option<&str>) -> Result<String, minijinja::Error> {
    let separator = separator.unwrap_or_default();
    let texts: usize = items.iter().map(String::len).sum();
    capped(texts.saturating_add(items.len().saturating_mul(separator.len())))?;
    Ok(items.join(separator))
}

fn capped(bytes: usize) -> Result<(), minijinja::Error> {
    let message = "the result of a filter is too large";
    if bytes > FILTER_BYTES {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    } else {
        Ok(())
    }
}

struct Capped {
    bytes: Vec<u8>,
    room: usize,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.room {
            self.full = true;
            return Err(std::io::Error::other("the output is full"));
        }
        self.room -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests_of_templates {
    use super::*;

    #[track_caller]
    fn check(template: &str, variables: Value, expected: Result<&str, &str>) {
        let variables = variables.as_object().cloned().unwrap_or_default();
        let got = render_template(template, &variables, 200);
        match expected {
            Ok(text) => assert_eq!(got.as_deref(), Ok(text), "{template}"),
            Err(part) => assert!(
                got.as_ref().is_err_and(|e| e.contains(part)),
                "{template}: {got:?}"
            ),
        }
    }

    #[test]
    fn templates_render_in_a_box() {
        check(
            "Hi {{ name }}!\n",
            json!({"name": "<世界>"}),
            Ok("Hi <世界>!\n"),
        );
        check(
            "{% for x in xs %}{{ x|upper }},{% endfor %}",
            json!({"xs": ["a", "b"]}),
            Ok("A,B,"),
        );
        check(
            "{{ xs|join(' ') }}{% if y is defined %}!{% endif %}",
            json!({"xs": [1, 2]}),
            Ok("1 2"),
        );
        check("{% raw %}{{ x }}{% endraw %}", json!({}), Ok("{{ x }}"));
        check("{{ missing }}", json!({}), Err("undefined"));
        check("{{ a.b.c }}", json!({"a": {}}), Err("undefined"));
        check("{{ x", json!({}), Err("line 1"));
        check("{% set x = 1 %}", json!({}), Err("\"set\" is not allowed"));
        check("{%- include 'secret' %}", json!({}), Err("not allowed"));
        check("{{ range(10) }}", json!({}), Err("range"));
        check("{{ 'x' * 201 }}", json!({}), Err("larger than 200"));
        check(
            "{{ x|replace('a', x)|replace('a', x)|replace('a', x) }}",
            json!({"x": "a".repeat(900)}),
            Err("too large"),
        );
        let nested = "{% for a in xs %}".repeat(6) + &"{% endfor %}".repeat(6);
        check(&nested, json!({"xs": vec![1; 100]}), Err("too much work"));
    }
}
