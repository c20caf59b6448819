//! One text, or the messages of one call, under one policy.
//!
//! Nothing of the text is stored: this is what the test bench, the API for other gateways,
//! moderations and the figures all run. Tiers that ask a model do so where there is a server to
//! ask (`asker.rs`); on the command line they count as failed, so each rule's `on_failure`
//! decides, and the answer says so. Offsets are given in bytes of UTF-8 and in characters, since
//! clients count in either.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use guard::{Compiled, Context, Decision, Ended, Evidence, Finding, Outcome, Point, PromptIndex};
use guard::{Reading, Scanned, Source, Tier, Told};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::asker::{self, Asker};
use super::{Found, classifiers};
use crate::error::{AppError, Result};

/// Checks that run at once: each takes a core while it runs.
const AT_ONCE: usize = 4;
/// How long one waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// Messages of one call.
const MOST_MESSAGES: usize = 2_000;

/// What a check knows beside the text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Beside {
    /// The system prompt, for rules about leaks of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Marks that were hidden in the prompt, for rules about canaries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// What the model was shown, for rules that hold an answer to that: each counts as retrieved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retrieved: Vec<String>,
}

impl Beside {
    /// The same, as the engine takes it.
    pub fn context(&self) -> Context {
        let retrieved = self.retrieved.iter().zip(0..);
        let retrieved = retrieved.map(|(text, at)| Told {
            source: Source::Retrieved,
            field: format!("context.retrieved[{at}]"),
            text: text.clone(),
        });
        Context {
            system: self
                .system
                .as_deref()
                .map(|system| Arc::new(PromptIndex::new(system))),
            canaries: self.canaries.clone(),
            evidence: Some(Arc::new(Evidence::new(retrieved))),
            ..Context::default()
        }
    }
}

/// A text to check.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Where in a call it stands.
    pub point: Point,
    /// Where in the messages it is, if it is of one.
    pub slot: Option<Slot>,
    /// The text.
    pub text: String,
}

impl Piece {
    /// A text of its own.
    pub fn new(point: Point, text: impl Into<String>) -> Self {
        Self {
            point,
            slot: None,
            text: text.into(),
        }
    }
}

/// A text of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    message: usize,
    of: Of,
}

/// Which of a message's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The content, which is one text.
    Content,
    /// The text of a part of the content.
    Part(usize),
    /// The arguments of a tool call.
    Arguments(usize),
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = self.message;
        match self.of {
            Of::Content => write!(f, "messages[{message}].content"),
            Of::Part(part) => write!(f, "messages[{message}].content[{part}].text"),
            Of::Arguments(call) => {
                write!(
                    f,
                    "messages[{message}].tool_calls[{call}].function.arguments"
                )
            }
        }
    }
}

impl Slot {
    fn of(self, messages: &mut [Value]) -> Option<&mut Value> {
        let message = messages.get_mut(self.message)?;
        match self.of {
            Of::Content => message.get_mut("content"),
            Of::Part(part) => message.get_mut("content")?.get_mut(part)?.get_mut("text"),
            Of::Arguments(call) => message
                .get_mut("tool_calls")?
                .get_mut(call)?
                .pointer_mut("/function/arguments"),
        }
    }
}

/// What a whole request is to be checked as.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// One text.
    Text(Piece),
    /// The messages of a call.
    Messages(Vec<Value>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It goes on with edits.
    Edited,
    /// The model is to be asked again.
    Rewrite,
    /// It does not go on.
    Blocked,
}

impl Verdict {
    pub(super) fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Pass => Self::Pass,
            Decision::Edited => Self::Edited,
            Decision::Rewrite(_) => Self::Rewrite,
            Decision::Blocked(_) => Self::Blocked,
        }
    }

    /// The word of the API, and of texts and styles of pages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Edited => "edited",
            Self::Rewrite => "rewrite",
            Self::Blocked => "blocked",
        }
    }

    pub(super) fn worse(self, other: Self) -> Self {
        let rank = |verdict| match verdict {
            Self::Pass => 0,
            Self::Edited => 1,
            Self::Rewrite => 2,
            Self::Blocked => 3,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingJson {
    /// The rule's name.
    pub rule: String,
    /// What found it.
    pub detector: String,
    /// What it is called in placeholders.
    pub label: String,
    /// `rules`, `linear`, `embedding` or `judge`.
    pub tier: String,
    /// How sure, 0 to 1.
    pub score: f64,
    /// First byte of the text as it was sent.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// First character.
    pub start_char: usize,
    /// The character after the last.
    pub end_char: usize,
    /// How the text was read: `raw`, `plain`, `base64` …
    pub reading: String,
    /// Why, in words; never the text itself.
    pub reason: String,
    /// What was done: `blocked`, `redacted`, `flagged`, `shadow` …
    pub outcome: String,
    /// `input`, `output` …
    pub point: String,
    /// The field that it is in, where messages were sent: `messages[2].content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// Why a text does not go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndedJson {
    /// The rule's name.
    pub rule: String,
    /// Why, in words; never the text itself.
    pub reason: String,
    /// What the model is to be told, if it is to be asked again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
}

/// How long the tiers took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Patterns, words and counts.
    pub rules: u64,
    /// Linear classifiers.
    pub linear: u64,
    /// Waiting for models that were asked.
    #[serde(default)]
    pub models: u64,
    /// All of them.
    pub total: u64,
}

/// Which policy it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyRef {
    /// Its name.
    pub name: String,
    /// The version's number.
    pub version: i64,
    /// The content's identity.
    pub digest: String,
}

impl PolicyRef {
    pub(super) fn of(found: &Found) -> Option<Self> {
        found.digest.map(|digest| Self {
            name: found.name.clone(),
            version: found.number,
            digest: digest.to_string(),
        })
    }
}

/// What a check answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// The decision.
    pub decision: Verdict,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedJson>,
    /// The text as it may go on: up to the first blocking finding, with edits. Where a text was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The messages as they may go on, where messages were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Value>>,
    /// What was found, in the order of the text.
    pub findings: Vec<FindingJson>,
    /// Which policy it was; none for one that was sent along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// How long the tiers took.
    pub timing_us: Timing,
    /// The trace in which questions to models are recorded, with their cost, if the policy has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Checked {
    /// Whether a rule that is not in shadow found anything.
    pub fn is_flagged(&self) -> bool {
        self.findings.iter().any(|finding| counts(&finding.outcome))
    }
}

/// Whether an outcome's word stands for something that was found and is not only tried out.
pub fn counts(outcome: &str) -> bool {
    !matches!(outcome, "shadow" | "failed_open")
}

/// Checks a text or messages, off the threads that serve calls. Without somebody to ask, tiers
/// that ask models count as failed.
///
/// # Errors
/// 400 for too many messages; 503 when every place is taken for too long.
pub async fn check(
    found: &Found,
    subject: Subject,
    beside: &Beside,
    asker: Option<&Asker>,
) -> Result<Checked> {
    let (policy, compiled) = (PolicyRef::of(found), Arc::clone(&found.ready.compiled));
    let asker = asker.filter(|_| asker::asks(&found.ready.policy));
    let (mut beside, messages) = (beside.clone(), subject.messages()?);
    if let (None, Some(messages)) = (&beside.system, &messages) {
        beside.system = system_of(messages);
    }
    let pieces = match (&messages, subject) {
        (None, Subject::Text(piece)) => vec![piece],
        (messages, _) => pieces(messages.as_deref().unwrap_or_default()),
    };
    let scans = match asker {
        Some(asker) => {
            let context = beside.context();
            let mut scans = Vec::new();
            for piece in &pieces {
                scans.push(asker::scan(&compiled, piece, &context, asker).await?);
            }
            (pieces, scans)
        }
        None => {
            off_thread(move || {
                let context = beside.context();
                let scan = |piece: &Piece| scan(&compiled, piece, &context);
                let scans = pieces.iter().map(scan).collect();
                (pieces, scans)
            })
            .await?
        }
    };
    let mut checked = together(messages, scans);
    checked.policy = policy;
    checked.trace_id = asker.map(|asker| asker.trace().to_string());
    Ok(checked)
}

/// A place among the checks that run at once; free again when it is dropped.
///
/// # Errors
/// 503 when every place is taken for too long.
pub(super) async fn place() -> Result<OwnedSemaphorePermit> {
    static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
    let turn = tokio::time::timeout(TURN, Arc::clone(&PLACES).acquire_owned()).await;
    turn.map_err(|_| AppError::unavailable("too many texts are being checked at this moment"))?
        .map_err(AppError::internal)
}

/// Runs work on a thread of its own that may block, in a place.
///
/// # Errors
/// As [`place`].
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let place = place().await?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(AppError::internal)
}

impl Subject {
    /// The messages, if it is of messages.
    fn messages(&self) -> Result<Option<Vec<Value>>> {
        match self {
            Self::Text(_) => Ok(None),
            Self::Messages(messages) if messages.len() > MOST_MESSAGES => {
                let why = format!("{} messages are more than {MOST_MESSAGES}", messages.len());
                Err(AppError::invalid(why).at("messages"))
            }
            Self::Messages(messages) => Ok(Some(messages.clone())),
        }
    }
}

/// What became of all pieces: the worst decision counts, and the first that ended says why.
fn together(
    messages: Option<Vec<Value>>,
    (pieces, scans): (Vec<Piece>, Vec<(Scanned, Timing)>),
) -> Checked {
    let mut checked = Checked {
        decision: Verdict::Pass,
        ended: None,
        text: None,
        messages,
        findings: Vec::new(),
        policy: None,
        timing_us: Timing::default(),
        trace_id: None,
    };
    for (piece, (scanned, timing)) in pieces.iter().zip(scans) {
        checked.decision = checked.decision.worse(Verdict::of(&scanned.decision));
        if checked.ended.is_none() {
            checked.ended = ended_of(&scanned.decision);
        }
        checked
            .findings
            .extend(findings_of(piece, &scanned.findings));
        checked.timing_us.rules += timing.rules;
        checked.timing_us.linear += timing.linear;
        checked.timing_us.models += timing.models;
        checked.timing_us.total += timing.total;
        match (&mut checked.messages, piece.slot) {
            (Some(messages), Some(slot)) => {
                if let Some(text) = slot.of(messages) {
                    *text = Value::String(scanned.text);
                }
            }
            _ => checked.text = Some(scanned.text),
        }
    }
    checked
}

/// What the caller wrote as instructions, for rules about leaks of it.
pub(super) fn system_of(messages: &[Value]) -> Option<String> {
    let of_system = messages
        .iter()
        .filter(|message| matches!(role(message), "system" | "developer"));
    let texts: Vec<String> = of_system
        .flat_map(|message| texts_of(message).map(|(_, text)| text.to_owned()))
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn role(message: &Value) -> &str {
    message
        .get("role")
        .and_then(Value::as_str)
        .unwrap_or("user")
}

/// The texts of a message's content: all of it, or its parts.
fn texts_of(message: &Value) -> impl Iterator<Item = (Of, &str)> {
    let content = message.get("content");
    let whole = content.and_then(Value::as_str);
    let parts = content.and_then(Value::as_array).into_iter().flatten();
    let parts = parts.enumerate().filter_map(|(at, part)| {
        let text = part.get("text").and_then(Value::as_str)?;
        Some((Of::Part(at), text))
    });
    whole
        .map(|text| (Of::Content, text))
        .into_iter()
        .chain(parts)
}

fn arguments_of(message: &Value) -> impl Iterator<Item = (Of, &str)> {
    let calls = message.get("tool_calls").and_then(Value::as_array);
    let calls = calls.into_iter().flatten().enumerate();
    calls.filter_map(|(at, call)| {
        let arguments = call.pointer("/function/arguments")?.as_str()?;
        Some((Of::Arguments(at), arguments))
    })
}

/// The texts of messages, each with its place in a call. What the caller wrote as instructions
/// is not looked at: it is the caller's own.
pub(super) fn pieces(messages: &[Value]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let point = match role(message) {
            "system" | "developer" => continue,
            "assistant" => Point::Output,
            "tool" | "function" => Point::ToolResult,
            _ => Point::Input,
        };
        let piece = |point: Point| {
            move |(of, text): (Of, &str)| Piece {
                point,
                slot: Some(Slot { message: at, of }),
                text: text.to_owned(),
            }
        };
        pieces.extend(texts_of(message).map(piece(point)));
        pieces.extend(arguments_of(message).map(piece(Point::ToolArguments)));
    }
    pieces
}

/// Scans a text on this thread, and says how long it took.
pub(super) fn scan(
    compiled: &Arc<Compiled>,
    piece: &Piece,
    context: &Context,
) -> (Scanned, Timing) {
    timed(|| compiled.scan(piece.point, &piece.text, context))
}

/// Does work on this thread, and says how long rules and classifiers took.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Timing) {
    classifiers::took();
    let begin = Instant::now();
    let done = work();
    let total = micros(begin.elapsed());
    let linear = micros(classifiers::took()).min(total);
    let timing = Timing {
        rules: total - linear,
        linear,
        models: 0,
        total,
    };
    (done, timing)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn ended_of(decision: &Decision) -> Option<EndedJson> {
    let ended: &Ended = match decision {
        Decision::Blocked(ended) | Decision::Rewrite(ended) => ended,
        Decision::Pass | Decision::Edited => return None,
    };
    Some(EndedJson {
        rule: ended.rule_name.clone(),
        reason: ended.reason.clone(),
        rewrite: ended.rewrite.clone(),
    })
}

pub(super) fn findings_of(piece: &Piece, findings: &[Finding]) -> Vec<FindingJson> {
    let mut offsets: Vec<usize> = findings
        .iter()
        .flat_map(|finding| [finding.start, finding.end])
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    let characters = characters_before(&piece.text, &offsets);
    let at = |offset: usize| {
        let found = offsets.binary_search(&offset);
        found.map_or(0, |index| characters[index])
    };
    let json = |finding: &Finding| FindingJson {
        rule: finding.rule_name.clone(),
        detector: finding.detector.clone(),
        label: finding.label.clone(),
        tier: tier_name(finding.tier).to_owned(),
        score: score(finding.score),
        start: finding.start,
        end: finding.end,
        start_char: at(finding.start),
        end_char: at(finding.end),
        reading: reading_name(finding.view).to_owned(),
        reason: finding.reason.clone(),
        outcome: outcome_name(finding.outcome).to_owned(),
        point: point_name(piece.point).to_owned(),
        field: piece.slot.map(|slot| slot.to_string()),
    };
    findings.iter().map(json).collect()
}

/// How many characters stand before each of these bytes, which are in order.
fn characters_before(text: &str, offsets: &[usize]) -> Vec<usize> {
    let mut counted = (0, 0);
    let count = |&offset: &usize| {
        let (byte, characters) = counted;
        let between = text.get(byte..offset).unwrap_or_default();
        counted = (offset, characters + between.chars().count());
        counted.1
    };
    offsets.iter().map(count).collect()
}

/// A score in the digits that it has.
#[expect(clippy::cast_possible_truncation, reason = "rounded to four digits")]
pub(super) fn score(score: f32) -> f64 {
    let rounded = (f64::from(score) * 10_000.0).round() as i64;
    #[expect(clippy::cast_precision_loss, reason = "at most 10,000")]
    let rounded = rounded as f64;
    rounded / 10_000.0
}

pub(super) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Rules => "rules",
        Tier::Linear => "linear",
        Tier::Embedding => "embedding",
        Tier::Judge => "judge",
    }
}

pub(super) fn point_name(point: Point) -> &'static str {
    match point {
        Point::Input => "input",
        Point::Output => "output",
        Point::Retrieved => "retrieved",
        Point::ToolArguments => "tool_arguments",
        Point::ToolResult => "tool_result",
    }
}

/// A place in a call, by its word.
pub fn point_of(word: &str) -> Option<Point> {
    const POINTS: [Point; 5] = [
        Point::Input,
        Point::Output,
        Point::Retrieved,
        Point::ToolArguments,
        Point::ToolResult,
    ];
    POINTS.into_iter().find(|point| point_name(*point) == word)
}

fn reading_name(reading: Reading) -> &'static str {
    match reading {
        Reading::Raw => "raw",
        Reading::Plain => "plain",
        Reading::Digits => "digits",
        Reading::Leet => "leet",
        Reading::Rot13 => "rot13",
        Reading::Base64 => "base64",
        Reading::Hex => "hex",
        Reading::Url => "url",
        Reading::Tags => "tags",
    }
}

pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Blocked => "blocked",
        Outcome::Redacted => "redacted",
        Outcome::Replaced => "replaced",
        Outcome::Repaired => "repaired",
        Outcome::Rewrite => "rewrite",
        Outcome::Flagged => "flagged",
        Outcome::Shadow => "shadow",
        Outcome::Covered => "covered",
        Outcome::FailedOpen => "failed_open",
    }
}
