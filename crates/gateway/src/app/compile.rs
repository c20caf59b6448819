//! From a document to something that runs: expressions read, schemas compiled,
//! dependencies found. Whatever does not fit together is found on the way, so
//! checking a document and compiling it are the same code.
//!
//! Steps see the steps of their own group and of the groups around it; of a
//! chain, others see only its own result. What a step inside a chain needs from
//! outside, the chain itself waits for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use base::Digest;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::document::{
    AgentLimits, AgentStream, AppDocument, ChainStep, HttpTool, OnBlock, OutputKind, PromptSource,
    Step, Tool, pointer_token,
};
use super::expr::{Expression, Mentions, with_room};
use crate::problem::DocumentProblem;
use crate::prompt::{Dialect, PromptDocument, PromptVersion};

/// Steps of one app, those in chains included.
const MOST_STEPS: usize = 100;
const MOST_TOOLS: usize = 64;
const MOST_ROUTES: usize = 32;
const MOST_GUARDS: usize = 16;
/// Models of one route.
const MOST_FALLBACKS: usize = 8;
/// Chains inside chains.
const DEEPEST_CHAINS: usize = 4;
/// Bytes of one JSON Schema.
const SCHEMA_BYTES: usize = 64 << 10;
/// Bytes of a tool's address.
const URL_BYTES: usize = 2_000;
const LONGEST_NAME: usize = 64;

/// The input that the conversation itself is under.
pub(crate) const MESSAGES: &str = "messages";
/// The input that the last user message becomes when there are several texts.
pub(crate) const QUESTION: &str = "question";

/// What a credential's name in the environment begins with: an app must not be
/// able to send away what is not meant for apps.
pub(crate) const CREDENTIAL: &str = "env:MEGURI_TOOL_";

#[derive(Debug)]
pub(crate) struct Compiled {
    pub inputs: Inputs,
    pub group: Group,
    pub tools: HashMap<String, CompiledTool>,
    pub output: CompiledOutput,
}

/// What an app takes.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub validator: Option<Validator>,
    /// The input that the last user message becomes when nobody names inputs.
    pub main: Option<String>,
    pub defaults: Map<String, Value>,
}

/// Steps that run together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub steps: Vec<CompiledStep>,
}

#[derive(Debug)]
pub(crate) struct CompiledStep {
    pub id: String,
    pub when: Option<Expression>,
    /// Places in the group of the steps that come before.
    pub needs: Vec<usize>,
    pub work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    Prompt(ModelWork),
    Agent(AgentWork),
    Tool {
        tool: String,
        arguments: Vec<(String, Expression)>,
    },
    Chain {
        for_each: Option<Expression>,
        group: Group,
    },
    Guard(GuardWork),
    /// Defined, and not there yet: `retrieve`.
    Missing(&'static str),
}

/// A policy and what it is to look at.
#[derive(Debug)]
pub(crate) struct GuardWork {
    /// The reference, as releases know it.
    pub guard: String,
    /// None only where the expression is wrong.
    pub on: Option<Expression>,
    pub point: guard::Point,
    pub on_block: OnBlock,
}

/// A model with tools.
#[derive(Debug)]
pub(crate) struct AgentWork {
    pub model: ModelWork,
    pub tools: Vec<String>,
    pub limits: AgentLimits,
    pub stream: AgentStream,
}

/// A prompt and the models that may answer it.
#[derive(Debug)]
pub(crate) struct ModelWork {
    pub prompt: Source,
    pub variables: Vec<(String, Expression)>,
    /// The models to try; empty means the prompt's own.
    pub models: Vec<String>,
    /// The route that these are.
    pub route: Option<Arc<str>>,
    pub parameters: Map<String, Value>,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// Found in the release.
    Reference(String),
    Inline(Arc<PromptVersion>),
}

#[derive(Debug)]
pub(crate) struct CompiledTool {
    pub http: HttpTool,
    pub validator: Option<Validator>,
    /// Arguments that stand in the address.
    pub in_url: HashSet<String>,
}

#[derive(Debug)]
pub(crate) struct CompiledOutput {
    pub kind: OutputKind,
    pub value: Option<Expression>,
    /// The step whose text is the answer, where it is one.
    pub step: Option<usize>,
}

/// Compiles a document and tells everything that is wrong with it.
pub(crate) fn compile(document: &AppDocument) -> (Compiled, Vec<DocumentProblem>) {
    with_room(|| compile_here(document)).unwrap_or_else(|message| {
        let nothing = compile_here(&AppDocument::default()).0;
        (nothing, vec![DocumentProblem::new("", message)])
    })
}

fn compile_here(document: &AppDocument) -> (Compiled, Vec<DocumentProblem>) {
    let mut compiler = Compiler {
        document,
        problems: Vec::new(),
        ids: BTreeSet::new(),
        declared: declared_inputs(document),
        steps_left: MOST_STEPS,
    };
    compiler.routes();
    compiler.guards();
    let inputs = compiler.inputs();
    let tools = compiler.tools();
    compiler.ids("", &document.steps, 0);
    let (group, _) = compiler.group("", &document.steps, &Around::default());
    let output = compiler.output(&group);
    let compiled = Compiled {
        inputs,
        group,
        tools,
        output,
    };
    (compiled, compiler.problems)
}

/// The names of the inputs; `None` where the schema allows others too.
fn declared_inputs(document: &AppDocument) -> Option<BTreeSet<String>> {
    let Some(schema) = &document.inputs else {
        return Some([MESSAGES, QUESTION].map(str::to_owned).into());
    };
    let properties = schema.get("properties")?.as_object()?;
    if schema
        .get("additionalProperties")
        .is_some_and(|more| more != &Value::Bool(false))
    {
        return None;
    }
    let names = properties.keys().map(String::as_str).chain([MESSAGES]);
    Some(names.map(str::to_owned).collect())
}

/// What a group sees of the groups around it.
#[derive(Default, Clone)]
struct Around {
    ids: BTreeSet<String>,
    item: bool,
}

struct Compiler<'a> {
    document: &'a AppDocument,
    problems: Vec<DocumentProblem>,
    ids: BTreeSet<String>,
    declared: Option<BTreeSet<String>>,
    steps_left: usize,
}

impl Compiler<'_> {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(DocumentProblem::new(path, message));
    }

    fn routes(&mut self) {
        let document = self.document;
        if document.models.len() > MOST_ROUTES {
            self.problem(
                "/models",
                format!("at most {MOST_ROUTES} routes are allowed"),
            );
        }
        for (alias, models) in &document.models {
            let path = format!("/models/{}", pointer_token(alias));
            if let Err(message) = check_name(alias) {
                self.problem(&path, message);
            }
            if models.is_empty() || models.len() > MOST_FALLBACKS {
                self.problem(
                    &path,
                    format!("a route has 1 to {MOST_FALLBACKS} models, tried in this order"),
                );
            }
            for (at, model) in models.iter().enumerate() {
                if let Err(message) = check_model(model) {
                    self.problem(format!("{path}/{at}"), message);
                }
            }
        }
    }

    fn guards(&mut self) {
        let guards = &self.document.guards;
        if guards.len() > MOST_GUARDS {
            let message = format!("at most {MOST_GUARDS} guards are allowed");
            self.problem("/guards", message);
        }
        for (at, text) in guards.iter().enumerate() {
            let path = format!("/guards/{at}");
            self.named_reference(&path, "guard", text);
            let name = |text: &str| text.split('@').next().map(str::to_owned);
            if guards[..at].iter().any(|other| name(other) == name(text)) {
                self.problem(path, "this guard is there twice");
            }
        }
    }

    fn inputs(&mut self) -> Inputs {
        let usual = json!({
            "type": "object",
            "properties": { QUESTION: { "type": "string" } },
            "required": [QUESTION],
        });
        let schema = self.document.inputs.clone().map_or(usual, Value::Object);
        let properties = schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        if properties.contains_key(MESSAGES) {
            let message = "the conversation itself is under this name; choose another";
            self.problem(format!("/inputs/properties/{MESSAGES}"), message);
        }
        let defaults = properties
            .iter()
            .filter_map(|(name, property)| Some((name.clone(), property.get("default")?.clone())));
        Inputs {
            validator: self.schema("/inputs", &schema),
            main: main_input(&properties),
            defaults: defaults.collect(),
        }
    }

    /// A schema of an object, compiled.
    fn schema(&mut self, path: &str, schema: &Value) -> Option<Validator> {
        if schema.to_string().len() > SCHEMA_BYTES {
            let message = format!("a schema has at most {SCHEMA_BYTES} bytes");
            self.problem(path, message);
            return None;
        }
        if schema.get("type").is_some_and(|kind| kind != "object") {
            self.problem(format!("{path}/type"), "this must be \"object\"");
        }
        if let Some(place) = find_reference(path, schema) {
            // References can go round in circles, which a validator follows for ever.
            self.problem(
                place,
                "references are not allowed here; write the schema in place",
            );
            return None;
        }
        match jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema)
        {
            Ok(validator) => Some(validator),
            Err(error) => {
                let place = format!("{path}{}", error.instance_path());
                let message = error.to_string();
                let message = base::text::cut_bytes(&message, 300);
                self.problem(place, format!("this is not a JSON Schema: {message}"));
                None
            }
        }
    }

    fn tools(&mut self) -> HashMap<String, CompiledTool> {
        let document = self.document;
        if document.tools.len() > MOST_TOOLS {
            self.problem("/tools", format!("at most {MOST_TOOLS} tools are allowed"));
        }
        let mut tools = HashMap::new();
        for (name, Tool::Http(http)) in &document.tools {
            let path = format!("/tools/{}", pointer_token(name));
            if let Err(message) = check_name(name) {
                self.problem(&path, message);
            }
            tools.insert(name.clone(), self.tool(&path, http));
        }
        tools
    }

    fn tool(&mut self, path: &str, http: &HttpTool) -> CompiledTool {
        let known = http.parameters.get("properties").and_then(Value::as_object);
        let mut in_url = HashSet::new();
        match url_variables(&http.url) {
            Ok(variables) => {
                for variable in &variables {
                    if !known.is_some_and(|known| known.contains_key(variable)) {
                        self.problem(
                            format!("{path}/url"),
                            format!("{{{variable}}} is not among the tool's parameters"),
                        );
                    }
                }
                in_url.extend(variables);
            }
            Err(message) => self.problem(format!("{path}/url"), message),
        }
        for (name, value) in &http.headers {
            if let Err(message) = check_header(name, value) {
                self.problem(format!("{path}/headers/{}", pointer_token(name)), message);
            }
        }
        let good = |credential: &String| {
            credential.strip_prefix(CREDENTIAL).is_some_and(|rest| {
                !rest.is_empty()
                    && rest
                        .bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            })
        };
        if http.credential.as_ref().is_some_and(|it| !good(it)) {
            let message =
                format!("a credential is {CREDENTIAL}NAME, a variable of the server's environment");
            self.problem(format!("{path}/credential"), message);
        }
        if let Some(header) = &http.credential_header {
            let place = format!("{path}/credential_header");
            if http.credential.is_none() {
                self.problem(&place, "there is no credential to send");
            }
            if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
                self.problem(&place, "this is not the name of a header");
            }
        }
        if http
            .timeout_ms
            .is_some_and(|ms| !(100..=60_000).contains(&ms))
        {
            self.problem(format!("{path}/timeout_ms"), "this must be 100 to 60000");
        }
        let parameters = Value::Object(http.parameters.clone());
        let validator = match http.parameters.is_empty() {
            true => None,
            false => self.schema(&format!("{path}/parameters"), &parameters),
        };
        CompiledTool {
            http: http.clone(),
            validator,
            in_url,
        }
    }

    /// Every id once, and neither too many steps nor too deep.
    fn ids(&mut self, path: &str, steps: &[Step], depth: usize) {
        if steps.is_empty() {
            self.problem(format!("{path}/steps"), "there must be at least one step");
        }
        if depth > DEEPEST_CHAINS {
            self.problem(path, "chains are nested too deep");
            return;
        }
        for (at, step) in steps.iter().enumerate() {
            let path = format!("{path}/steps/{at}");
            match self.steps_left.checked_sub(1) {
                Some(left) => self.steps_left = left,
                None => {
                    self.problem(path, format!("an app has at most {MOST_STEPS} steps"));
                    return;
                }
            }
            if let Err(message) = check_id(step.id()) {
                self.problem(format!("{path}/id"), message);
            } else if !self.ids.insert(step.id().to_owned()) {
                let message = format!("another step is called {:?} already", step.id());
                self.problem(format!("{path}/id"), message);
            }
            if let Step::Chain(chain) = step {
                self.ids(&path, &chain.steps, depth + 1);
            }
        }
    }

    /// A group, and the ids of steps around it that it needs.
    fn group(&mut self, path: &str, steps: &[Step], around: &Around) -> (Group, BTreeSet<String>) {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (at, step) in steps.iter().enumerate() {
            places.entry(step.id()).or_insert(at);
        }
        let mut outside = BTreeSet::new();
        let mut compiled = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let path = format!("{path}/steps/{at}");
            let mut around = around.clone();
            around
                .ids
                .extend(steps.iter().map(|step| step.id().to_owned()));
            let (step, needed) = self.step(&path, step, &around);
            let mut needs = BTreeSet::new();
            for id in needed {
                match places.get(id.as_str()) {
                    Some(place) => {
                        needs.insert(*place);
                    }
                    None => {
                        outside.insert(id);
                    }
                }
            }
            compiled.push(CompiledStep {
                needs: needs.into_iter().collect(),
                ..step
            });
        }
        self.circles(path, &compiled);
        (Group { steps: compiled }, outside)
    }

    /// One step, and the ids that it needs.
    fn step(
        &mut self,
        path: &str,
        step: &Step,
        around: &Around,
    ) -> (CompiledStep, BTreeSet<String>) {
        let mut needed = BTreeSet::new();
        for (at, id) in step.after().iter().enumerate() {
            if self.is_known(&format!("{path}/after/{at}"), id, around) {
                needed.insert(id.clone());
            }
        }
        let mut expressions: HashMap<String, Expression> = HashMap::new();
        for (place, text) in step.expressions() {
            let full = format!("{path}{place}");
            if let Some((expression, mentions)) = self.expression(&full, text, around) {
                needed.extend(mentions.steps);
                expressions.insert(place, expression);
            }
        }
        let mut named =
            |field: &str, map: &BTreeMap<String, String>| -> Vec<(String, Expression)> {
                map.keys()
                    .filter_map(|name| {
                        let place = format!("/{field}/{}", pointer_token(name));
                        Some((name.clone(), expressions.remove(&place)?))
                    })
                    .collect()
            };
        let work = match step {
            Step::Prompt(step) => Work::Prompt(ModelWork {
                prompt: self.prompt(path, &step.prompt, &step.variables),
                variables: named("variables", &step.variables),
                models: self.models(path, step.model.as_deref(), &step.prompt),
                route: self.route(step.model.as_deref()),
                parameters: self.parameters(path, &step.parameters),
            }),
            Step::Agent(step) => Work::Agent(AgentWork {
                model: ModelWork {
                    prompt: self.prompt(path, &step.prompt, &step.variables),
                    variables: named("variables", &step.variables),
                    models: self.models(path, step.model.as_deref(), &step.prompt),
                    route: self.route(step.model.as_deref()),
                    parameters: self.parameters(path, &step.parameters),
                },
                tools: self.agent_tools(path, &step.tools),
                limits: self.limits(path, &step.limits),
                stream: step.stream,
            }),
            Step::Tool(step) => {
                let arguments = named("arguments", &step.arguments);
                self.tool_arguments(path, &step.tool, &step.arguments);
                Work::Tool {
                    tool: step.tool.clone(),
                    arguments,
                }
            }
            Step::Chain(step) => {
                let (group, outside) = self.chain(path, step, around);
                needed.extend(outside);
                Work::Chain {
                    for_each: expressions.remove("/for_each"),
                    group,
                }
            }
            Step::Retrieve(step) => {
                self.named_reference(&format!("{path}/index"), "index", &step.index);
                Work::Missing("retrieve")
            }
            Step::Guard(step) => {
                self.named_reference(&format!("{path}/guard"), "guard", &step.guard);
                Work::Guard(GuardWork {
                    guard: step.guard.clone(),
                    on: expressions.remove("/on"),
                    point: step.point,
                    on_block: step.on_block,
                })
            }
        };
        let compiled = CompiledStep {
            id: step.id().to_owned(),
            when: expressions.remove("/when"),
            needs: Vec::new(),
            work,
        };
        (compiled, needed)
    }

    fn chain(
        &mut self,
        path: &str,
        chain: &ChainStep,
        around: &Around,
    ) -> (Group, BTreeSet<String>) {
        let inside = Around {
            ids: around.ids.clone(),
            item: around.item || chain.for_each.is_some(),
        };
        let (group, outside) = self.group(path, &chain.steps, &inside);
        if outside.contains(&chain.id) {
            let message = format!(
                "a step of the chain {:?} waits for the chain itself",
                chain.id
            );
            self.problem(path, message);
        }
        (group, outside)
    }

    /// Reads an expression and asks whether everything that it mentions is there.
    fn expression(
        &mut self,
        path: &str,
        text: &str,
        around: &Around,
    ) -> Option<(Expression, Mentions)> {
        let read = Expression::parse(text).and_then(|expression| {
            let mentions = expression.mentions()?;
            Ok((expression, mentions))
        });
        let (expression, mut mentions) = match read {
            Ok(read) => read,
            Err(message) => {
                self.problem(path, message);
                return None;
            }
        };
        mentions.steps.retain(|id| self.is_known(path, id, around));
        if mentions.item && !around.item {
            self.problem(
                path,
                "item and index are there only in a chain with for_each",
            );
        }
        if let Some(declared) = &self.declared {
            let unknown: Vec<String> = mentions.inputs.difference(declared).cloned().collect();
            for name in unknown {
                let near = self.nearest_input(&name);
                self.problem(path, format!("the app has no input {name:?}{near}"));
            }
        }
        Some((expression, mentions))
    }

    fn nearest_input(&self, name: &str) -> String {
        let known = self.declared.iter().flatten().map(String::as_str);
        crate::nearest(name, known)
            .map(|near| format!("; did you mean {near:?}?"))
            .unwrap_or_default()
    }

    fn is_known(&mut self, path: &str, id: &str, around: &Around) -> bool {
        if around.ids.contains(id) {
            return true;
        }
        let message = if self.ids.contains(id) {
            format!("the step {id:?} is inside a chain; use the chain's own result")
        } else {
            let near = crate::nearest(id, self.ids.iter().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean {near:?}?"));
            format!("there is no step {id:?}{}", hint.unwrap_or_default())
        };
        self.problem(path, message);
        false
    }

    fn prompt(
        &mut self,
        path: &str,
        prompt: &PromptSource,
        variables: &BTreeMap<String, String>,
    ) -> Source {
        let path = format!("{path}/prompt");
        let document = match prompt {
            PromptSource::Reference(text) => {
                self.named_reference(&path, "prompt", text);
                return Source::Reference(text.clone());
            }
            PromptSource::Inline(document) => document,
        };
        let value = document.to_value();
        if let Err(problems) = PromptDocument::parse(&value) {
            for problem in problems {
                self.problem(format!("{path}{}", problem.path), problem.message);
            }
        } else if document.inputs.is_none() {
            for variable in document.variables() {
                let name = variable.name.split('.').next().unwrap_or_default();
                if !variables.contains_key(name) && document.dialect == Dialect::Jinja {
                    let message = format!("the prompt uses {name:?}, which variables do not give");
                    self.problem(&path, message);
                }
            }
        }
        let digest = Digest::of(value.to_string().as_bytes());
        Source::Inline(Arc::new(PromptVersion::new(digest, (**document).clone())))
    }

    /// The route that a step names, if it names one.
    fn route(&self, model: Option<&str>) -> Option<Arc<str>> {
        let known = |name: &&str| self.document.models.contains_key(*name);
        model.filter(known).map(Arc::from)
    }

    /// The models that a step tries.
    fn models(&mut self, path: &str, model: Option<&str>, prompt: &PromptSource) -> Vec<String> {
        let Some(model) = model else {
            if matches!(prompt, PromptSource::Inline(document) if document.model.is_none()) {
                self.problem(path, "a model is missing, and the prompt names none");
            }
            return Vec::new();
        };
        if let Some(route) = self.document.models.get(model) {
            return route.clone();
        }
        if let Err(mut message) = check_model(model) {
            let routes = self.document.models.keys().map(String::as_str);
            if let Some(near) = crate::nearest(model, routes) {
                message = format!("there is no route {model:?}; did you mean {near:?}?");
            }
            self.problem(format!("{path}/model"), message);
        }
        vec![model.to_owned()]
    }

    fn named_reference(&mut self, path: &str, kind: &str, text: &str) {
        let name = text
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix(':'));
        if name.is_none_or(|name| name.split('@').next().is_none_or(str::is_empty)) {
            self.problem(path, format!("write {kind}:NAME@LABEL, not {text:?}"));
        }
    }

    fn parameters(&mut self, path: &str, parameters: &Map<String, Value>) -> Map<String, Value> {
        for own in [
            "model",
            "messages",
            "stream",
            "stream_options",
            "meguri",
            "n",
        ] {
            if parameters.contains_key(own) {
                let message = "this is decided by the app itself";
                self.problem(format!("{path}/parameters/{own}"), message);
            }
        }
        parameters.clone()
    }

    fn agent_tools(&mut self, path: &str, tools: &[String]) -> Vec<String> {
        for (at, tool) in tools.iter().enumerate() {
            self.known_tool(&format!("{path}/tools/{at}"), tool);
            if tools[..at].contains(tool) {
                self.problem(format!("{path}/tools/{at}"), "this tool is there twice");
            }
        }
        tools.to_vec()
    }

    fn known_tool(&mut self, path: &str, name: &str) -> bool {
        let tools = &self.document.tools;
        if tools.contains_key(name) {
            return true;
        }
        let near = crate::nearest(name, tools.keys().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean {near:?}?"));
        let message = format!("there is no tool {name:?}{}", hint.unwrap_or_default());
        self.problem(path, message);
        false
    }

    fn tool_arguments(&mut self, path: &str, tool: &str, arguments: &BTreeMap<String, String>) {
        if !self.known_tool(&format!("{path}/tool"), tool) {
            return;
        }
        let Some(Tool::Http(http)) = self.document.tools.get(tool) else {
            return;
        };
        let none = Map::new();
        let known = http.parameters.get("properties").and_then(Value::as_object);
        let known = known.unwrap_or(&none);
        for name in arguments.keys().filter(|name| !known.contains_key(*name)) {
            let place = format!("{path}/arguments/{}", pointer_token(name));
            self.problem(
                place,
                format!("the tool {tool:?} has no parameter {name:?}"),
            );
        }
        let required = http.parameters.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !arguments.contains_key(name) {
                let message = format!("the tool {tool:?} needs the argument {name:?}");
                self.problem(format!("{path}/arguments"), message);
            }
        }
    }

    fn limits(&mut self, path: &str, limits: &AgentLimits) -> AgentLimits {
        let path = format!("{path}/limits");
        if limits.steps.is_some_and(|steps| !(1..=50).contains(&steps)) {
            self.problem(format!("{path}/steps"), "this must be 1 to 50");
        }
        if limits
            .seconds
            .is_some_and(|seconds| !(1..=900).contains(&seconds))
        {
            self.problem(format!("{path}/seconds"), "this must be 1 to 900");
        }
        if limits
            .cost_usd
            .is_some_and(|cost| !(cost > 0.0 && cost <= 1000.0))
        {
            self.problem(
                format!("{path}/cost_usd"),
                "this must be above 0, at most 1000",
            );
        }
        limits.clone()
    }

    /// Steps that wait for each other in a circle would wait for ever.
    fn circles(&mut self, path: &str, steps: &[CompiledStep]) {
        if let Some(circle) = find_circle(steps) {
            let ids: Vec<&str> = circle.iter().map(|at| steps[*at].id.as_str()).collect();
            let message = format!("these steps wait for each other: {}", ids.join(" → "));
            self.problem(format!("{path}/steps/{}", circle[0]), message);
        }
    }

    fn output(&mut self, group: &Group) -> CompiledOutput {
        let last = group.steps.len().checked_sub(1);
        let Some(output) = &self.document.output else {
            return CompiledOutput {
                kind: OutputKind::Text,
                value: None,
                step: last,
            };
        };
        let text_of = |text: &str| {
            let id = text.trim().strip_prefix("steps.")?.strip_suffix(".text")?;
            group.steps.iter().position(|step| step.id == id)
        };
        let around = Around {
            ids: group.steps.iter().map(|step| step.id.clone()).collect(),
            item: false,
        };
        let value = output.value.as_deref().and_then(|text| {
            let read = self.expression("/output/value", text, &around)?;
            Some(read.0)
        });
        let step = match (output.kind, output.value.as_deref()) {
            (OutputKind::Text, None) => last,
            (OutputKind::Text, Some(text)) => text_of(text),
            (OutputKind::Json, _) => None,
        };
        CompiledOutput {
            kind: output.kind,
            value,
            step,
        }
    }
}

/// The input that the last user message becomes: the only text, or `question`.
fn main_input(properties: &Map<String, Value>) -> Option<String> {
    let is_text = |property: &Value| property.get("type").is_none_or(|kind| kind == "string");
    if properties.get(QUESTION).is_some_and(is_text) {
        return Some(QUESTION.to_owned());
    }
    let mut texts = properties.iter().filter(|(_, property)| is_text(property));
    match (texts.next(), texts.next()) {
        (Some((name, _)), None) => Some(name.clone()),
        _ => None,
    }
}

fn find_reference(path: &str, schema: &Value) -> Option<String> {
    match schema {
        Value::Object(map) => map.iter().find_map(|(name, value)| {
            let place = format!("{path}/{}", pointer_token(name));
            if matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef") {
                return Some(place);
            }
            find_reference(&place, value)
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(at, item)| find_reference(&format!("{path}/{at}"), item)),
        _ => None,
    }
}

/// The names in `{…}` of a tool's address.
fn url_variables(url: &str) -> Result<Vec<String>, String> {
    if url.len() > URL_BYTES {
        return Err(format!("an address has at most {URL_BYTES} bytes"));
    }
    let mut variables = Vec::new();
    let mut rest = url;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after
            .split_once('}')
            .ok_or("a { is not closed by a }".to_owned())?;
        if before.contains('}') {
            return Err("a } has no { before it".to_owned());
        }
        plain.push_str(before);
        if variables.is_empty() && !has_whole_host(&plain) {
            return Err("the host must be written out: no {…} before its first /".to_owned());
        }
        check_name(name)?;
        variables.push(name.to_owned());
        plain.push('x');
        rest = after;
    }
    if rest.contains('}') {
        return Err("a } has no { before it".to_owned());
    }
    plain.push_str(rest);
    let parsed = url::Url::parse(&plain).map_err(|error| format!("this is no address: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err("an address begins with https:// or http://".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("no name or password in an address; use credential".to_owned());
    }
    Ok(variables)
}

/// Whether scheme, host and port are all there, so that no argument becomes part of them.
fn has_whole_host(url: &str) -> bool {
    url.split_once("://")
        .is_some_and(|(_, rest)| rest.contains(['/', '?', '#']))
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    const OURS: [&str; 9] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
    ];
    let parsed = http::HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| "this is not the name of a header".to_owned())?;
    if OURS.contains(&parsed.as_str()) {
        return Err(
            "this header cannot be set here; a credential has a field of its own".to_owned(),
        );
    }
    http::HeaderValue::from_str(value)
        .map(drop)
        .map_err(|_| "this is not the value of a header".to_owned())
}

/// Names that stand in expressions and traces.
fn check_id(id: &str) -> Result<(), String> {
    let first = id.bytes().next();
    let good = id.len() <= LONGEST_NAME
        && first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Ok(());
    }
    Err(format!(
        "an id has 1 to {LONGEST_NAME} letters, digits and _, and does not begin with a digit"
    ))
}

/// Names that models and addresses must understand too.
fn check_name(name: &str) -> Result<(), String> {
    let good = (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if good {
        return Ok(());
    }
    Err(format!(
        "the name {name:?} must have 1 to {LONGEST_NAME} letters, digits, _ and -"
    ))
}

fn check_model(model: &str) -> Result<(), String> {
    match model.split_once('/') {
        Some((provider, name))
            if !provider.is_empty() && !name.is_empty() && model.len() <= 300 =>
        {
            Ok(())
        }
        _ => Err(format!(
            "{model:?} is neither a route of \"models\" nor PROVIDER/MODEL"
        )),
    }
}

/// Places of steps that need each other in a circle, if there are any.
fn find_circle(steps: &[CompiledStep]) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    fn visit(
        at: usize,
        steps: &[CompiledStep],
        marks: &mut [Mark],
        way: &mut Vec<usize>,
    ) -> Option<Vec<usize>> {
        match marks[at] {
            Mark::Done => return None,
            Mark::Open => {
                let start = way.iter().position(|step| *step == at).unwrap_or(0);
                return Some(way[start..].to_vec());
            }
            Mark::New => {}
        }
        marks[at] = Mark::Open;
        way.push(at);
        for need in &steps[at].needs {
            if let Some(circle) = visit(*need, steps, marks, way) {
                return Some(circle);
            }
        }
        way.pop();
        marks[at] = Mark::Done;
        None
    }
    let mut marks = vec![Mark::New; steps.len()];
    (0..steps.len()).find_map(|at| visit(at, steps, &mut marks, &mut Vec::new()))
}
