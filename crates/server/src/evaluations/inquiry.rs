//! Evaluators that ask a model several questions about one answer: the metrics of
//! answers that stand on retrieved texts, and the cosine of embeddings.
//!
//! Each question is a call like any other: through the gateway, with a trace of its
//! own, on the bill, found again after a kill. A reply is mended once, asked for once
//! more with the reason, and given up; one question without an answer leaves the
//! example unscored, because a formula over a part of its parts is another formula.

use serde_json::{Map, Value, json};

use super::call::{Halted, Request, lane_of};
use super::judging::{About, Fields, Judged, Look, Paid, RAW_BYTES, REASON_BYTES, Voice};
use super::store::{Cell, Outcome};
use crate::error::{AppError, Result};
use crate::evaluators::embedding::EmbeddingEvaluator;
use crate::evaluators::rag::{
    self, Against, Asked, FactualValue, Question, RagEvaluator, RagMetric, Supported,
};
use crate::evaluators::{OutputRule, judge, text_of};

use super::call::Caller;

/// Where several questions are drawn, they should not all be the same.
const DRAWN: f64 = 0.3;

/// Why there is no number.
enum Stop {
    /// No more calls should begin.
    Halted,
    /// A fault of ours.
    Failed(AppError),
    /// The instrument failed.
    Unscored(String),
}

impl From<AppError> for Stop {
    fn from(error: AppError) -> Self {
        Self::Failed(error)
    }
}

/// A number, and what it is made of.
struct Found {
    value: f64,
    reason: String,
    detail: Value,
}

/// Questions about one answer, and what they came to.
struct Inquiry<'a> {
    voice: Voice<'a>,
    key: String,
    parameters: &'a Map<String, Value>,
    replies: Vec<Value>,
    paid: Paid,
}

impl<'a> Inquiry<'a> {
    fn new(
        caller: &'a Caller,
        about: &'a About,
        model: &'a str,
        parameters: &'a Map<String, Value>,
    ) -> Self {
        let Cell {
            place,
            candidate,
            repetition,
        } = about.cell;
        Self {
            voice: Voice {
                caller,
                model,
                tags: &about.tags,
            },
            key: format!("ask/{}/{candidate}/{place}/{repetition}", about.evaluator),
            parameters,
            replies: Vec::new(),
            paid: Paid::default(),
        }
    }

    /// One question: asked, mended, asked again, given up.
    async fn ask<T>(
        &mut self,
        name: &str,
        question: &Question,
        temperature: f64,
        read: impl Fn(&Value) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, Stop> {
        let mut messages = question.messages.clone();
        let mut why = String::new();
        for round in 0..2 {
            let key = format!("{}/{name}/{round}", self.key);
            let body = |fields: Fields| self.body(&messages, question, temperature, fields);
            let mut paid = self.paid;
            let said = self.voice.say(&key, &body, &mut paid).await;
            self.paid = paid;
            let said = match said? {
                Ok(Ok(said)) => said,
                Ok(Err(why)) => {
                    self.replies.push(json!({"question": name, "error": why}));
                    return Err(Stop::Unscored(format!(
                        "the judge could not be asked: {why}"
                    )));
                }
                Err(Halted) => return Err(Stop::Halted),
            };
            let raw = base::text::cut_bytes(&said.text, RAW_BYTES);
            let understood =
                rag::object_of(&said.text).and_then(|(value, mended)| Ok((read(&value)?, mended)));
            match understood {
                Ok((understood, mended)) => {
                    let reply = json!({"question": name, "reply": raw, "mended": mended});
                    self.replies.push(reply);
                    return Ok(understood);
                }
                Err(problem) => {
                    let reply = json!({"question": name, "reply": raw, "problem": problem});
                    self.replies.push(reply);
                    messages.push(json!({"role": "assistant", "content": raw}));
                    messages.push(judge::reminder(&problem));
                    why = problem;
                }
            }
        }
        Err(Stop::Unscored(format!(
            "the judge's reply could not be read: {why}"
        )))
    }

    fn body(
        &self,
        messages: &[Value],
        question: &Question,
        temperature: f64,
        fields: Fields,
    ) -> Map<String, Value> {
        let mut body = self.parameters.clone();
        body.insert("model".to_owned(), json!(self.voice.model));
        body.insert("messages".to_owned(), json!(messages));
        body.entry("temperature")
            .or_insert_with(|| json!(temperature));
        if fields.structured {
            let schema = json!({"name": "reply", "strict": true, "schema": question.schema});
            let format = json!({"type": "json_schema", "json_schema": schema});
            body.insert("response_format".to_owned(), format);
        }
        body
    }

    /// The vectors of texts, by one call.
    async fn embed(
        &mut self,
        model: &str,
        texts: &[String],
    ) -> std::result::Result<Vec<Vec<f64>>, Stop> {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        body.insert("input".to_owned(), json!(texts));
        let request = Request {
            key: format!("{}/embed", self.key),
            lane: lane_of(model),
            body,
            prompt: None,
            variables: Map::new(),
            tags: self.voice.tags.clone(),
        };
        let called = match self.voice.caller.embed(&request).await? {
            Ok(called) => called,
            Err(Halted) => return Err(Stop::Halted),
        };
        self.paid.add(&called);
        let said = called.answer.map_err(|problem| {
            Stop::Unscored(format!("the texts were not embedded: {}", problem.message))
        })?;
        match said.vectors.len() == texts.len() {
            true => Ok(said.vectors),
            false => Err(Stop::Unscored(
                "the embedding model did not answer every text".to_owned(),
            )),
        }
    }

    fn conclude(
        self,
        found: std::result::Result<Found, Stop>,
    ) -> Result<std::result::Result<Judged, Halted>> {
        let replies = json!(self.replies);
        let mut judged = match found {
            Ok(found) if found.value.is_finite() => {
                let mut detail = found.detail;
                detail["replies"] = replies;
                Judged {
                    outcome: Outcome::Scored(found.value),
                    reason: base::text::cut_bytes(&found.reason, REASON_BYTES).to_owned(),
                    ..Judged::unscored("", detail)
                }
            }
            Ok(_) => Judged::unscored(
                "the result is no finite number",
                json!({"replies": replies}),
            ),
            Err(Stop::Unscored(why)) => Judged::unscored(why, json!({"replies": replies})),
            Err(Stop::Halted) => return Ok(Err(Halted)),
            Err(Stop::Failed(error)) => return Err(error),
        };
        judged.trace = self.paid.trace;
        judged.bill = self.paid.bill;
        Ok(Ok(judged))
    }
}

/// Measures an answer that stands on retrieved texts.
pub(super) async fn ask_rag(
    caller: &Caller,
    about: &About,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> Result<std::result::Result<Judged, Halted>> {
    let mut inquiry = Inquiry::new(caller, about, &rag.model, &rag.parameters);
    let found = match rag.metric {
        RagMetric::Faithfulness => faithfulness(&mut inquiry, rag, look).await,
        RagMetric::AnswerRelevancy => answer_relevancy(&mut inquiry, rag, look).await,
        RagMetric::ContextPrecision => context_precision(&mut inquiry, rag, look).await,
        RagMetric::ContextRecall => context_recall(&mut inquiry, rag, look).await,
        RagMetric::FactualCorrectness => factual_correctness(&mut inquiry, rag, look).await,
    };
    inquiry.conclude(found)
}

async fn faithfulness(
    inquiry: &mut Inquiry<'_>,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let chunks = chunks_of(rag, look)?;
    let answer = rag.answer(look.answer, look.value);
    let input = question_of(&look.value["input"]);
    let statements = statements(inquiry, "statements", &input, &answer).await?;
    if statements.is_empty() {
        return unscored("the answer states nothing that could be checked");
    }
    let verdicts = support(inquiry, "support", &chunks.join("\n"), &statements).await?;
    let value = rag::faithfulness(&yes(&verdicts));
    found(value, &statements, &verdicts)
}

async fn context_recall(
    inquiry: &mut Inquiry<'_>,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let chunks = chunks_of(rag, look)?;
    let expected = expected_of(look)?;
    let sentences = eval::text::sentences(&expected);
    let verdicts = support(inquiry, "support", &chunks.join("\n"), &sentences).await?;
    let value = rag::context_recall(&yes(&verdicts));
    found(value, &sentences, &verdicts)
}

async fn context_precision(
    inquiry: &mut Inquiry<'_>,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let chunks = chunks_of(rag, look)?;
    let answer = match rag.against() {
        Against::Expected => expected_of(look)?,
        Against::Answer => rag.answer(look.answer, look.value),
    };
    if answer.trim().is_empty() {
        return unscored("there is no answer that the context could be of use for");
    }
    let input = question_of(&look.value["input"]);
    let mut verdicts = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let question = rag::ask_useful(&input, &answer, chunk);
        let name = format!("useful/{index}");
        verdicts.push(inquiry.ask(&name, &question, 0.0, rag::read_useful).await?);
    }
    let value = rag::context_precision(&yes(&verdicts));
    found(value, &chunks, &verdicts)
}

async fn answer_relevancy(
    inquiry: &mut Inquiry<'_>,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let answer = rag.answer(look.answer, look.value);
    let input = question_of(&look.value["input"]);
    if answer.trim().is_empty() || input.trim().is_empty() {
        return unscored("there is no question, or no answer to it");
    }
    let question = rag::ask_question(&answer);
    let temperature = if rag.questions() > 1 { DRAWN } else { 0.0 };
    let mut asked: Vec<Asked> = Vec::new();
    for index in 0..rag.questions() {
        let name = format!("question/{index}");
        let one = inquiry
            .ask(&name, &question, temperature, rag::read_question)
            .await?;
        asked.push(one);
    }
    let written: Vec<String> = asked
        .iter()
        .map(|one| one.question.clone())
        .filter(|question| !question.is_empty())
        .collect();
    if written.is_empty() {
        return unscored("no question could be made of the answer");
    }
    let texts: Vec<String> = std::iter::once(input).chain(written).collect();
    let model = rag.embedding_model.as_deref().unwrap_or_default();
    let vectors = inquiry.embed(model, &texts).await?;
    let Some((own, others)) = vectors.split_first() else {
        return unscored("the embedding model did not answer every text");
    };
    let cosines: Option<Vec<f64>> = others.iter().map(|one| rag::cosine(own, one)).collect();
    let Some(mut cosines) = cosines else {
        return unscored("the embedding model gave a vector that cannot be compared");
    };
    let compared = cosines.clone();
    // What is no question is like none.
    cosines.resize(asked.len(), 0.0);
    let evasive = asked.iter().all(|one| one.evasive);
    Ok(Found {
        value: rag::answer_relevancy(&cosines, evasive).unwrap_or(f64::NAN),
        reason: texts.get(1..).unwrap_or_default().join(" / "),
        detail: json!({"questions": asked, "cosines": compared, "evasive": evasive}),
    })
}

async fn factual_correctness(
    inquiry: &mut Inquiry<'_>,
    rag: &RagEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let expected = expected_of(look)?;
    let answer = rag.answer(look.answer, look.value);
    let input = question_of(&look.value["input"]);
    let ours = statements(inquiry, "statements/answer", &input, &answer).await?;
    let of_answer = support(inquiry, "support/answer", &expected, &ours).await?;
    let (theirs, of_expected) = match rag.value() {
        FactualValue::Precision => (Vec::new(), Vec::new()),
        FactualValue::F1 | FactualValue::Recall => {
            let theirs = statements(inquiry, "statements/expected", &input, &expected).await?;
            if theirs.is_empty() {
                return unscored("what was expected states nothing that could be checked");
            }
            let verdicts = support(inquiry, "support/expected", &answer, &theirs).await?;
            (theirs, verdicts)
        }
    };
    let value = rag::factual_correctness(&yes(&of_answer), &yes(&of_expected), rag.value());
    Ok(Found {
        value,
        reason: first_no(&ours, &of_answer)
            .or_else(|| first_no(&theirs, &of_expected))
            .unwrap_or_default(),
        detail: json!({
            "answer": listed(&ours, &of_answer), "expected": listed(&theirs, &of_expected),
        }),
    })
}

async fn statements(
    inquiry: &mut Inquiry<'_>,
    name: &str,
    input: &str,
    text: &str,
) -> std::result::Result<Vec<String>, Stop> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let question = rag::ask_statements(input, text);
    inquiry
        .ask(name, &question, 0.0, rag::read_statements)
        .await
}

async fn support(
    inquiry: &mut Inquiry<'_>,
    name: &str,
    source: &str,
    statements: &[String],
) -> std::result::Result<Vec<Supported>, Stop> {
    if statements.is_empty() {
        return Ok(Vec::new());
    }
    let question = rag::ask_support(source, statements);
    let read = |reply: &Value| rag::read_support(reply, statements.len());
    inquiry.ask(name, &question, 0.0, read).await
}

fn unscored<T>(why: &str) -> std::result::Result<T, Stop> {
    Err(Stop::Unscored(why.to_owned()))
}

fn chunks_of(rag: &RagEvaluator, look: &Look<'_>) -> std::result::Result<Vec<String>, Stop> {
    rag.chunks(look.answer, look.value, look.context)
        .map_err(Stop::Unscored)
}

/// What was expected; of several answers the first, for Ragas knows one.
fn expected_of(look: &Look<'_>) -> std::result::Result<String, Stop> {
    let text = expected_texts(look).into_iter().next();
    let text = text.filter(|text| !text.trim().is_empty());
    text.ok_or_else(|| Stop::Unscored("nothing was expected".to_owned()))
}

/// Every answer that was expected.
pub(super) fn expected_texts(look: &Look<'_>) -> Vec<String> {
    match look.expected {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(text_of).collect(),
        Some(other) => vec![text_of(other)],
    }
}

/// The question in an input: a text, the last message of a user, or all of it.
fn question_of(input: &Value) -> String {
    let messages = input.as_array().or_else(|| input["messages"].as_array());
    let of_user = |message: &&Value| message["role"] == "user";
    let last = messages.and_then(|messages| messages.iter().rev().find(of_user));
    match last {
        Some(message) => text_of(&message["content"]),
        None => text_of(input),
    }
}

fn yes(verdicts: &[Supported]) -> Vec<bool> {
    verdicts.iter().map(|one| one.verdict).collect()
}

fn first_no(texts: &[String], verdicts: &[Supported]) -> Option<String> {
    let mut both = texts.iter().zip(verdicts);
    let (text, one) = both.find(|(_, one)| !one.verdict)?;
    Some(format!("{text} – {}", one.reason))
}

fn listed(texts: &[String], verdicts: &[Supported]) -> Value {
    let line = |(text, one): (&String, &Supported)| json!({"text": text, "verdict": one.verdict, "reason": one.reason});
    texts.iter().zip(verdicts).map(line).collect()
}

fn found(
    value: Option<f64>,
    texts: &[String],
    verdicts: &[Supported],
) -> std::result::Result<Found, Stop> {
    Ok(Found {
        value: value.unwrap_or(f64::NAN),
        reason: first_no(texts, verdicts).unwrap_or_default(),
        detail: json!({"verdicts": listed(texts, verdicts)}),
    })
}

/// The cosine to the expected answer that is most alike.
pub(super) async fn compare(
    caller: &Caller,
    about: &About,
    embedding: &EmbeddingEvaluator,
    look: &Look<'_>,
) -> Result<std::result::Result<Judged, Halted>> {
    let none = Map::new();
    let mut inquiry = Inquiry::new(caller, about, &embedding.model, &none);
    let found = cosine_of(&mut inquiry, embedding, look).await;
    inquiry.conclude(found)
}

async fn cosine_of(
    inquiry: &mut Inquiry<'_>,
    embedding: &EmbeddingEvaluator,
    look: &Look<'_>,
) -> std::result::Result<Found, Stop> {
    let answer = measured_text(embedding.output.as_deref(), look);
    let mut texts = expected_texts(look);
    texts.retain(|text| !text.trim().is_empty());
    if texts.is_empty() {
        return unscored("nothing was expected");
    }
    if answer.trim().is_empty() {
        return Ok(Found {
            value: 0.0,
            reason: "the answer is empty".to_owned(),
            detail: json!({}),
        });
    }
    texts.insert(0, answer);
    let vectors = inquiry.embed(&embedding.model, &texts).await?;
    let cosines: Option<Vec<f64>> = match vectors.split_first() {
        Some((own, others)) => others.iter().map(|one| rag::cosine(own, one)).collect(),
        None => None,
    };
    let Some(cosines) = cosines else {
        return unscored("the embedding model gave a vector that cannot be compared");
    };
    Ok(Found {
        value: cosines.iter().copied().fold(f64::NAN, f64::max),
        reason: String::new(),
        detail: json!({"cosines": cosines}),
    })
}

/// The part of an answer that is measured. An answer without it is an empty one.
pub(super) fn measured_text(rule: Option<&str>, look: &Look<'_>) -> String {
    match rule.map(OutputRule::parse) {
        Some(Ok(rule)) => rule.apply(look.answer, look.value).unwrap_or_default(),
        _ => look.answer.to_owned(),
    }
}
