//! Evaluators that look inside a model of this server: BERTScore by an encoder's
//! token vectors, perplexity by a chat model's probabilities. Nobody is called and
//! nothing is paid, so there is no trace.

use std::collections::HashMap;
use std::sync::Arc;

use eval::bertscore::{self, BertScore, Encoded, Frequencies};
use gateway::LocalError;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::call::Caller;
use super::inquiry::{expected_texts, measured_text};
use super::judging::{Judged, Look};
use super::store::Outcome;
use crate::app::App;
use crate::datasets::Reading;
use crate::error::Result;
use crate::evaluators::bertscore::BertScoreEvaluator;
use crate::evaluators::perplexity::{self, Given, PerplexityEvaluator};
use crate::evaluators::text_of;

/// Texts whose tokens are counted at a time.
const AT_A_TIME: usize = 256;

/// The expected answers of a dataset, for evaluators that weigh by all of them.
#[derive(Default)]
pub(crate) struct References {
    /// Read once; none where an evaluator runs without a dataset.
    reading: Mutex<Option<Expected>>,
    /// By model.
    known: Mutex<HashMap<String, Arc<Frequencies>>>,
}

enum Expected {
    Unread {
        reading: Reading,
        split: Option<String>,
    },
    Read(Arc<Vec<String>>),
}

impl References {
    /// The expected answers of a split, or of all.
    pub(super) fn of(reading: Reading, split: Option<String>) -> Self {
        Self {
            reading: Mutex::new(Some(Expected::Unread { reading, split })),
            known: Mutex::default(),
        }
    }

    async fn texts(&self) -> Result<Option<Arc<Vec<String>>>> {
        let mut kept = self.reading.lock().await;
        let mut texts = Vec::new();
        match kept.as_mut() {
            None => return Ok(None),
            Some(Expected::Read(texts)) => return Ok(Some(Arc::clone(texts))),
            Some(Expected::Unread { reading, split }) => {
                while let Some(examples) = reading.next().await? {
                    for example in examples {
                        if split.is_some() && example.split != *split {
                            continue;
                        }
                        let Some(expected) = &example.expected else {
                            continue;
                        };
                        match expected {
                            Value::Array(items) => texts.extend(items.iter().map(text_of)),
                            other => texts.push(text_of(other)),
                        }
                    }
                }
            }
        }
        let texts = Arc::new(texts);
        *kept = Some(Expected::Read(Arc::clone(&texts)));
        Ok(Some(texts))
    }

    /// How many of the expected answers have each token, as this model cuts them.
    async fn frequencies(
        &self,
        app: &App,
        model: &str,
    ) -> Result<std::result::Result<Arc<Frequencies>, String>> {
        let mut known = self.known.lock().await;
        if let Some(found) = known.get(model) {
            return Ok(Ok(Arc::clone(found)));
        }
        let Some(texts) = self.texts().await? else {
            return Ok(Err(
                "idf weighs by the expected answers of a dataset".to_owned()
            ));
        };
        let mut frequencies = Frequencies::default();
        for part in texts.chunks(AT_A_TIME) {
            let trimmed = part.iter().map(|text| text.trim().to_owned()).collect();
            match app.engine.token_ids(model, trimmed).await {
                Ok(ids) => ids.iter().for_each(|ids| frequencies.add(ids)),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        let frequencies = Arc::new(frequencies);
        known.insert(model.to_owned(), Arc::clone(&frequencies));
        Ok(Ok(frequencies))
    }
}

fn scored(value: f64, detail: Value) -> Judged {
    match value.is_finite() {
        true => Judged {
            outcome: Outcome::Scored(value),
            ..Judged::unscored("", detail)
        },
        false => Judged::unscored("the result is no finite number", detail),
    }
}

fn model_failed(error: &LocalError) -> Judged {
    Judged::unscored(format!("the model could not be used: {error}"), Value::Null)
}

/// BERTScore of an answer against everything that was expected.
pub(super) async fn score_tokens(
    caller: &Caller,
    evaluator: &BertScoreEvaluator,
    look: &Look<'_>,
) -> Result<Judged> {
    let engine = &caller.app.engine;
    let name = evaluator.model_name();
    let mut texts = expected_texts(look);
    texts.retain(|text| !text.trim().is_empty());
    if texts.is_empty() {
        return Ok(Judged::unscored("nothing was expected", Value::Null));
    }
    let answer = measured_text(evaluator.output.as_deref(), look);
    texts.insert(0, answer);
    let idf = match evaluator.idf {
        false => None,
        true => match caller
            .ready
            .references
            .frequencies(&caller.app, name)
            .await?
        {
            Ok(frequencies) => Some(frequencies),
            Err(why) => return Ok(Judged::unscored(why, Value::Null)),
        },
    };
    let texts = texts.iter().map(|text| text.trim().to_owned()).collect();
    let layer = evaluator.layer.map(|layer| layer as usize);
    let encoded = match engine.token_vectors(name, texts, layer).await {
        Ok(encoded) => encoded,
        Err(error) => return Ok(model_failed(&error)),
    };
    let encoded: Vec<Encoded<'_>> = encoded
        .iter()
        .map(|one| Encoded {
            ids: &one.token_ids,
            vectors: &one.vectors,
        })
        .collect();
    let Some((answer, expected)) = encoded.split_first() else {
        return Ok(Judged::unscored("nothing was encoded", Value::Null));
    };
    let scores = expected
        .iter()
        .map(|expected| bertscore::score(*answer, *expected, idf.as_deref()));
    let scores: Option<Vec<BertScore>> = scores.collect();
    let Some(best) = scores.and_then(|scores| scores.into_iter().reduce(BertScore::best)) else {
        let why = "every token is in every expected answer, so idf gives them no weight";
        return Ok(Judged::unscored(why, Value::Null));
    };
    let best = evaluator.rescale(best);
    Ok(scored(evaluator.value(best), json!({"bertscore": best})))
}

/// Perplexity of an answer.
pub(super) async fn read_along(
    caller: &Caller,
    evaluator: &PerplexityEvaluator,
    look: &Look<'_>,
) -> Judged {
    let text = measured_text(evaluator.output.as_deref(), look);
    if text.trim().is_empty() {
        return Judged::unscored("the answer is empty", Value::Null);
    }
    let before = match evaluator.given {
        Given::Nothing => None,
        Given::Input => Some(messages_of(&look.value["input"])),
    };
    let bytes = text.len();
    let name = evaluator.model_name();
    let logprobs = match caller.app.engine.text_logprobs(name, before, text).await {
        Ok(logprobs) => logprobs,
        Err(error) => return model_failed(&error),
    };
    let sum: f64 = logprobs.iter().sum();
    let detail = json!({
        "tokens": logprobs.len(), "logprob": sum, "bits_per_byte": perplexity::bits_per_byte(&logprobs, bytes),
    });
    match perplexity::perplexity(&logprobs) {
        Some(value) => scored(value, detail),
        None => Judged::unscored("the text has no token that could be foretold", detail),
    }
}

/// An input as the conversation that an answer ends.
fn messages_of(input: &Value) -> Vec<Value> {
    let is_conversation = |list: &&Vec<Value>| list.iter().all(|one| one["role"].is_string());
    let list = input.as_array().or_else(|| input["messages"].as_array());
    match list.filter(is_conversation) {
        Some(messages) => messages.clone(),
        None => vec![json!({"role": "user", "content": text_of(input)})],
    }
}
