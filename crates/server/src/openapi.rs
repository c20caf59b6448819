//! The OpenAPI 3.1 document, made from the route table and the types' JSON
//! Schemas, so that it cannot drift from what the server does: `openapi.json`
//! beside this file is its text, and a test says when the two differ.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::http::{Access, Route};

/// Where the committed document has the version: each release would be a difference.
pub const NO_VERSION: &str = "\"version\": \"0.0.0\"";

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// How one route reads in the document.
pub struct Doc {
    tag: &'static str,
    summary: &'static str,
    query: Option<SchemaOf>,
    body: Option<SchemaOf>,
    answer: Option<SchemaOf>,
    status: u16,
}

impl Doc {
    /// A group and one line.
    pub fn new(tag: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            summary,
            query: None,
            body: None,
            answer: None,
            status: 200,
        }
    }

    /// The type of the query string.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| T::json_schema(generator));
        self
    }

    /// The type of the JSON body.
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// The type of the JSON answer.
    pub fn answer<T: JsonSchema>(mut self) -> Self {
        self.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// The status of success, when it is not 200.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

/// The document for these routes, without a version; those without a [`Doc`] (pages) are left out.
pub fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = SchemaGenerator::new(settings);
    let error = generator.subschema_for::<crate::error::ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        if let Some(doc) = &route.doc {
            // `{*name}` is the router's way to write a parameter that may hold slashes.
            let entry = paths
                .entry(route.path.replace("{*", "{"))
                .or_insert_with(|| json!({}));
            entry[route.method.as_str().to_ascii_lowercase()] =
                operation(&mut generator, route, doc, &error);
        }
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Meguri",
            "version": "0.0.0",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(generator: &mut SchemaGenerator, route: &Route, doc: &Doc, error: &Schema) -> Value {
    let mut parameters: Vec<Value> = path_parameters(route.path);
    if let Some(query) = doc.query {
        parameters.extend(query_parameters(&query(generator)));
    }
    let mut success = json!({"description": "Success"});
    if let Some(answer) = doc.answer {
        success["content"] = json!({"application/json": {"schema": answer(generator)}});
    }
    let mut responses = Map::new();
    responses.insert(doc.status.to_string(), success);
    let failure = json!({"description": "Refused or failed", "content": {"application/json": {"schema": error}}});
    responses.insert("default".to_owned(), failure);
    let mut operation = json!({
        "tags": [doc.tag],
        "summary": doc.summary,
        "operationId": operation_id(route),
        "responses": responses,
    });
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(body) = doc.body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body(generator)}}});
    }
    match route.access {
        Access::Public => operation["security"] = json!([]),
        Access::SignedIn => operation["security"] = json!([{"key": []}]),
        Access::Needs(permission) => {
            operation["security"] = json!([{"key": []}]);
            operation["x-permission"] = json!(permission.name());
        }
        Access::OfKind(for_prompts, for_others) => {
            operation["security"] = json!([{"key": []}]);
            operation["x-permission"] = json!(for_others.name());
            operation["x-permission-for-prompts"] = json!(for_prompts.name());
        }
    }
    operation
}

/// Unique: our own API goes without its prefix, OpenAI's surface keeps its `v1`.
fn operation_id(route: &Route) -> String {
    let path = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
    let path: Vec<&str> = path
        .split(['/', '{', '}', '-', '.', '*'])
        .filter(|word| !word.is_empty())
        .collect();
    format!(
        "{}_{}",
        route.method.as_str().to_ascii_lowercase(),
        path.join("_")
    )
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    let parameter = |name: &str| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    };
    names.map(parameter).collect()
}

fn query_parameters(schema: &Schema) -> Vec<Value> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, property): (&String, &Value)| {
        let mut property = property.clone();
        let description = property
            .as_object_mut()
            .and_then(|map| map.remove("description"));
        json!({
            "name": name, "in": "query", "required": required.contains(&name.as_str()),
            "description": description, "schema": property,
        })
    };
    properties.into_iter().flatten().map(parameter).collect()
}
