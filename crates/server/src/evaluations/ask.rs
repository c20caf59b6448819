//! What a candidate is asked: from an example to the body of a call.

use db::Problem;
use gateway::{NamedExpression, PromptDocument, PromptRef};
use serde_json::{Map, Value, json};

use super::call::{Request, chat_body, lane_of, tags};
use super::document::{Candidate, SuiteDocument};
use super::pin::{Pinned, PinnedCandidate, app_name};
use super::store::{CallProblem, Cell};
use crate::evaluators::text_of;

/// A candidate, ready to be asked.
pub(crate) struct Asker {
    name: String,
    prompt: Option<PromptRef>,
    /// The one variable of its prompt, which an input that is a text fills.
    only_variable: Option<String>,
    model: Option<String>,
    lane: String,
    variables: Vec<(String, NamedExpression)>,
    parameters: Map<String, Value>,
}

impl Asker {
    /// Every candidate of an evaluation. `prompts` are the documents of their prompts.
    ///
    /// # Errors
    /// An expression cannot be read, which was checked when the suite was saved.
    pub(crate) fn all(
        suite: &SuiteDocument,
        pinned: &Pinned,
        prompts: &[Option<PromptDocument>],
    ) -> Result<Vec<Self>, Problem> {
        let candidates = suite.candidates.iter().zip(&pinned.candidates).zip(prompts);
        candidates
            .map(|((candidate, pinned), prompt)| Self::new(candidate, pinned, prompt.as_ref()))
            .collect()
    }

    fn new(
        candidate: &Candidate,
        pinned: &PinnedCandidate,
        prompt: Option<&PromptDocument>,
    ) -> Result<Self, Problem> {
        let mut variables = Vec::new();
        for (name, text) in &candidate.variables {
            let expression = NamedExpression::parse(text, &["example"])
                .map_err(|message| Problem::new(format!("/variables/{name}"), message))?;
            variables.push((name.clone(), expression));
        }
        let named = prompt.map(PromptDocument::variables).unwrap_or_default();
        let only_variable = match named.as_slice() {
            [only] => Some(only.name.clone()),
            _ => None,
        };
        let model = match &pinned.release {
            Some(release) => Some(format!("app/{}", app_name(release))),
            None => candidate.model.clone(),
        };
        let lane = match (&pinned.release, pinned.models.first()) {
            (None, Some(model)) => lane_of(model),
            // An app calls whatever it calls.
            _ => format!("candidate:{}", candidate.name),
        };
        Ok(Self {
            name: candidate.name.clone(),
            prompt: pinned.prompt.as_ref().map(|version| PromptRef {
                name: version.name.clone(),
                version: Some(version.number),
                ..PromptRef::default()
            }),
            only_variable,
            model,
            lane,
            variables,
            parameters: candidate.parameters.clone(),
        })
    }

    /// Whose calls wait for each other.
    pub(crate) fn lane(&self) -> &str {
        &self.lane
    }

    /// The inputs and messages that an example becomes.
    ///
    /// # Errors
    /// An expression failed on this example.
    pub(crate) fn inputs(&self, example: &Value) -> Result<Inputs, CallProblem> {
        let input = &example["input"];
        let mut inputs = Inputs::default();
        for (name, expression) in &self.variables {
            let value = expression.run(&[("example", example)]);
            let value = value.map_err(|message| CallProblem {
                kind: "bad_input".to_owned(),
                message: format!("the variable {name:?}: {message}"),
            })?;
            inputs.variables.insert(name.clone(), value);
        }
        match input {
            Value::Object(fields) => {
                if let Some(Value::Array(messages)) = fields.get("messages") {
                    inputs.messages.clone_from(messages);
                } else if self.is_plain() {
                    inputs.messages.push(user(&text_of(input)));
                }
                if self.variables.is_empty() && !self.is_plain() {
                    let others = fields.iter().filter(|(name, _)| *name != "messages");
                    let others = others.map(|(name, value)| (name.clone(), value.clone()));
                    inputs.variables.extend(others);
                }
            }
            // A conversation.
            Value::Array(messages)
                if messages.iter().all(|message| message["role"].is_string()) =>
            {
                inputs.messages.clone_from(messages);
            }
            other => match &self.only_variable {
                Some(name) if self.variables.is_empty() => {
                    inputs.variables.insert(name.clone(), other.clone());
                }
                _ if self.variables.is_empty() || self.is_plain() => {
                    inputs.messages.push(user(&text_of(other)));
                }
                _ => {}
            },
        }
        Ok(inputs)
    }

    /// Whether it is a model without a prompt or an app around it.
    fn is_plain(&self) -> bool {
        self.prompt.is_none()
            && self
                .model
                .as_deref()
                .is_some_and(|model| !model.starts_with("app/"))
    }

    /// The call for these inputs.
    pub(crate) fn request(
        &self,
        evaluation: &str,
        cell: Cell,
        example_id: &str,
        inputs: &Inputs,
    ) -> Request {
        Request {
            key: format!(
                "answer/{}/{}/{}",
                cell.candidate, cell.place, cell.repetition
            ),
            lane: self.lane.clone(),
            body: chat_body(self.model.as_deref(), &inputs.messages, &self.parameters),
            prompt: self.prompt.clone(),
            variables: inputs.variables.clone(),
            tags: tags(evaluation, &self.name, example_id),
        }
    }
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// What a candidate is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inputs {
    pub messages: Vec<Value>,
    pub variables: Map<String, Value>,
}
