//! Langfuse's composition tags and our partials.
//!
//! `@@@langfusePrompt:name=N|label=L@@@` in a text becomes `{{ partials.pK }}`
//! and a reference in the document, so that the gateway and the catalog's checks
//! know it; clients get the text resolved, or the tag back as it was.

use db::Scope;
use db::catalog::Selector;
use serde_json::{Map, Value, json};

use super::content::{Body, Part};
use super::find;
use crate::app::App;
use crate::error::{AppError, Result};
use crate::prompts::{KIND, PRODUCTION};

const OPEN: &str = "@@@langfusePrompt:";
const CLOSE: &str = "@@@";
/// As deep as Langfuse goes.
const DEPTH: usize = 5;
/// The most text that resolving may make.
const BYTES: usize = 1 << 20;

/// Takes the tags out of a body; the second value is the document's `partials`.
///
/// # Errors
/// A tag that cannot be read.
pub(super) fn from_tags(body: Body) -> Result<(Body, Map<String, Value>)> {
    let mut partials = Map::new();
    let body = map_texts(body, |text| take_tags(text, &mut partials))?;
    Ok((body, partials))
}

fn take_tags(text: &str, partials: &mut Map<String, Value>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (tag, after) = after.split_once(CLOSE).ok_or_else(|| {
            AppError::invalid(format!("a tag {OPEN}… has no {CLOSE} at its end")).at("prompt")
        })?;
        let reference = read_tag(tag)?;
        let known = partials
            .iter()
            .find(|(_, known)| **known == reference)
            .map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| format!("p{}", partials.len() + 1));
        partials.insert(name.clone(), reference);
        out.push_str(before);
        out.push_str(&mention(&name));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn mention(name: &str) -> String {
    format!("{{{{partials.{name}}}}}")
}

/// `name=N|label=L` or `name=N|version=3` as a reference of ours.
fn read_tag(tag: &str) -> Result<Value> {
    let wrong = || {
        AppError::invalid(format!(
            "the tag {OPEN}{tag}{CLOSE} is not name=…|label=… or name=…|version=…"
        ))
        .at("prompt")
    };
    let (mut name, mut selector) = (None, None);
    for field in tag.split('|') {
        match field.split_once('=').ok_or_else(wrong)? {
            ("name", value) => name = Some(value),
            ("label" | "version", value) => selector = Some(value),
            _ => return Err(wrong()),
        }
    }
    let name = name.filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    Ok(json!(format!(
        "{KIND}:{name}@{}",
        selector.unwrap_or(PRODUCTION)
    )))
}

/// Puts the tags back where the partials are mentioned.
pub(super) fn to_tags(body: Body, document: &Value) -> Body {
    let partials = partials_of(document);
    let put_back = |text: &str| {
        let mut text = text.to_owned();
        for (name, reference) in &partials {
            let Some((of, selector)) = split(reference) else {
                continue;
            };
            let field = if selector.bytes().all(|b| b.is_ascii_digit()) {
                "version"
            } else {
                "label"
            };
            text = text.replace(
                &mention(name),
                &format!("{OPEN}name={of}|{field}={selector}{CLOSE}"),
            );
        }
        Ok(text)
    };
    // Replacing cannot fail, so the body is there.
    map_texts(body.clone(), put_back).unwrap_or(body)
}

/// The body with the text of every partial in place.
///
/// # Errors
/// A partial that is missing, is no text, or goes too deep.
pub(super) async fn resolve(app: &App, scope: Scope, body: Body, document: &Value) -> Result<Body> {
    let mut texts: Vec<(String, String)> = Vec::new();
    for (name, reference) in partials_of(document) {
        texts.push((
            mention(&name),
            text_of(app, scope, &reference, DEPTH).await?,
        ));
    }
    map_texts(body, |text| {
        let filled = texts
            .iter()
            .fold(text.to_owned(), |text, (mention, value)| {
                text.replace(mention, value)
            });
        if filled.len() > BYTES {
            return Err(AppError::invalid(
                "the resolved prompt is larger than 1 MiB",
            ));
        }
        Ok(filled)
    })
}

async fn text_of(app: &App, scope: Scope, reference: &str, depth: usize) -> Result<String> {
    let broken = |why: &str| AppError::conflict(format!("{reference}: {why}"));
    let (name, selector) =
        split(reference).ok_or_else(|| broken("is not a reference to a prompt"))?;
    if depth == 0 {
        return Err(broken("prompts refer to each other too deeply"));
    }
    let selector: Selector = selector
        .parse()
        .map_err(|problem: db::Problem| broken(&problem.message))?;
    let found = find(app, scope, &super::parse_name(name)?, &selector).await?;
    let Body::Text(mut text) = Body::of_document(&found.content) else {
        return Err(broken("only text prompts can be a part of others here"));
    };
    for (name, reference) in partials_of(&found.content) {
        let value = Box::pin(text_of(app, scope, &reference, depth - 1)).await?;
        text = text.replace(&mention(&name), &value);
        if text.len() > BYTES {
            return Err(broken("the resolved prompt is larger than 1 MiB"));
        }
    }
    Ok(text)
}

fn partials_of(document: &Value) -> Vec<(String, String)> {
    let partials = document["partials"].as_object().into_iter().flatten();
    let texts = partials
        .filter_map(|(name, reference)| Some((name.clone(), reference.as_str()?.to_owned())));
    texts.collect()
}

/// Name and selector of `prompt:NAME@SELECTOR`.
fn split(reference: &str) -> Option<(&str, &str)> {
    let rest = reference.strip_prefix(KIND)?.strip_prefix(':')?;
    Some(rest.rsplit_once('@').unwrap_or((rest, PRODUCTION)))
}

fn map_texts(body: Body, mut change: impl FnMut(&str) -> Result<String>) -> Result<Body> {
    Ok(match body {
        Body::Text(text) => Body::Text(change(&text)?),
        Body::Chat(parts) => {
            let changed = parts.into_iter().map(|part| match part {
                Part::Message(role, text) => Ok(Part::Message(role, change(&text)?)),
                other => Ok(other),
            });
            Body::Chat(changed.collect::<Result<_>>()?)
        }
    })
}
