//! Guards around model calls: which policies watch a call, and what they found.
//!
//! A call that no policy watches costs one look at a map. Where one does, the caller's messages
//! are scanned before anything is sent (`text.rs`), and the answer on its way back: whole
//! (`answer.rs`) or while it streams (`stream.rs`), always by the same engine, the crate `guard`.
//! What only a model can tell is asked in `ask.rs`.
//!
//! Nothing is skipped in silence. A policy that cannot run refuses the calls that it watches, a
//! tier that does not answer is a finding, and each policy that found something writes one
//! record of its own below the call's. What is recorded of the answer is what the client got.
//!
//! A call of an app is one conversation with its guards (`run.rs`): the policies that its release
//! pins, one vault, and what came through already, for all its steps.

mod answer;
mod ask;
mod entire;
mod ground;
mod instructions;
mod run;
mod saying;
mod stream;
mod text;
mod values;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guard::{Ended, Evidence, Finding, Point, Told, Vault};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::call::{Caller, begin};
use crate::context::CallContext;
use crate::error::ApiError;
use crate::experiment::{ArmUsed, Target};
use crate::failure::Failure;
use crate::plan::{GuardPolicies, GuardPolicy, ProjectPlan};
use crate::prompt::PRODUCTION;
use crate::record::{CallStatus, GuardUsed, RecordKind};
use crate::settle::{About, Part, Settler};

use ask::Host;
pub(crate) use ask::answer;
pub(crate) use entire::Entire;
pub(crate) use ground::told_in;
pub(crate) use instructions::{PromptIndexes, with_sentence, without_mark};
pub use run::AppGuards;
pub(crate) use run::Here;
use run::Passed;
pub(crate) use stream::Guarded;

/// The policies that watch one call, and what they have found so far.
pub(crate) struct Watch {
    host: Host,
    context: guard::Context,
    /// What placeholders stand for in this call. The caller sends its whole conversation each
    /// time, and the same values get the same placeholders each time: nothing need be kept.
    vault: Arc<Mutex<Vault>>,
    noted: Vec<Noted>,
    /// In an app: what came through already.
    passed: Option<Arc<Passed>>,
    /// In an app: what its tools and steps told so far.
    told: Vec<Told>,
    /// It looks at what an app says as a whole, which its models' watches may have seen.
    is_outer: bool,
}

/// One policy at work. Its record is begun with the call, so that there is a place for what it
/// finds at any later moment, and is written only if it found something.
struct Noted {
    policy: Arc<GuardPolicy>,
    rules: Arc<guard::Compiled>,
    settler: Option<Settler>,
    findings: Vec<Value>,
    rule_names: Vec<String>,
    decision: Outcome,
    took: Duration,
    /// Its record is written also where nothing was found: it is a step of an app.
    is_step: bool,
}

/// The strongest thing that a policy did to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Flagged,
    Edited,
    Blocked,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Flagged => "flagged",
            Self::Edited => "edited",
            Self::Blocked => "blocked",
        }
    }
}

/// Where a finding was made.
#[derive(Clone, Copy)]
struct Place<'a> {
    point: Point,
    /// The field, as in `messages[2].content`.
    field: &'a str,
}

impl Place<'_> {
    /// What a model thinks, or says instead of an answer.
    fn is_aside(&self) -> bool {
        let name = self.field.rsplit('.').next().unwrap_or_default();
        self.field.starts_with("choices[")
            && matches!(name, "reasoning" | "reasoning_content" | "refusal")
    }
}

/// What is hidden in the instructions of a call.
pub(crate) struct Mark {
    pub mark: String,
    pub sentence: String,
}

/// A text that was ended by a rule.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    policy: String,
    rule: String,
}

impl Refusal {
    fn new(policy: &GuardPolicy, ended: &Ended) -> Self {
        Self {
            policy: policy.name.clone(),
            rule: ended.rule_name.clone(),
        }
    }

    /// What stands in the answer instead of the rest.
    pub(crate) fn sentence(&self) -> String {
        format!("The rest of this answer was withheld by {}.", self.by())
    }

    /// Who it was.
    pub(crate) fn by(&self) -> String {
        format!("the rule {:?} of the guard {:?}", self.rule, self.policy)
    }
}

/// The policies that watch a call, and the side of an experiment that they are.
#[derive(Default)]
struct Choice {
    policies: Vec<Arc<GuardPolicy>>,
    arm: Option<ArmUsed>,
}

/// What decides which policies watch a call.
pub(crate) struct Watched<'a> {
    pub environment: &'a str,
    pub key: Option<String>,
    pub app: Option<&'a str>,
    pub model: &'a str,
    /// What the app calls the models of which this is one.
    pub route: Option<&'a str>,
}

impl Watched<'_> {
    /// What holds for this call: the label, and the version that it points to.
    fn holds<'p>(&self, versions: &'p GuardPolicies) -> Option<(&'p str, &'p Arc<GuardPolicy>)> {
        let of = |label: &str| versions.labels.get_key_value(label);
        let (label, policy) = of(self.environment).or_else(|| of(PRODUCTION))?;
        Some((label, policy))
    }

    fn is_of(&self, policy: &GuardPolicy) -> bool {
        let to = &policy.applies_to;
        let is_model = |wanted: &String| match wanted.strip_suffix("/*") {
            Some(provider) => self
                .model
                .split_once('/')
                .is_some_and(|(of, _)| of == provider),
            None => wanted == self.model || Some(wanted.as_str()) == self.route,
        };
        to.everything
            || to.apps.iter().any(|app| Some(app.as_str()) == self.app)
            || to.keys.iter().any(|key| Some(key) == self.key.as_ref())
            || to.models.iter().any(is_model)
    }
}

/// Begins to watch a call of a model, if any policy does.
///
/// # Errors
/// A policy that watches it cannot run, or there is no place for its record.
pub(crate) async fn watch(
    caller: Caller<'_>,
    context: &CallContext,
    settler: &mut Settler,
    model: &str,
) -> Result<Option<Watch>, Failure> {
    let in_app = context.guards.is_app();
    let record = settler.record_mut();
    let here = Here {
        caller,
        context,
        app: record.app.clone(),
        may_split: in_app || record.arm.is_none(),
        span: settler.span(),
    };
    let (watch, arm) = here.watch(model).await?;
    if !in_app {
        // What happens in an app is counted once, as the app's.
        let record = settler.record_mut();
        record.arm = record.arm.take().or(arm);
    }
    Ok(watch)
}

impl Here<'_> {
    /// Begins to watch what happens here, by everything that watches it by itself or is pinned.
    /// The second is the side of an experiment that this is.
    ///
    /// # Errors
    /// As [`watch`].
    async fn watch(&self, model: &str) -> Result<(Option<Watch>, Option<ArmUsed>), Failure> {
        let Choice { policies, arm } = self.choose(model);
        if policies.is_empty() && !self.context.guards.has_values() {
            return Ok((None, arm));
        }
        let mut noted = Vec::with_capacity(policies.len());
        for policy in policies {
            noted.push(self.note(policy).await?);
        }
        Ok((Some(self.open(model, noted)), arm))
    }

    /// Those that the release pins, and those that watch by themselves; the same version once.
    fn choose(&self, model: &str) -> Choice {
        let Caller {
            plan, principal, ..
        } = self.caller;
        let mut choice = Choice {
            policies: self.context.guards.policies().to_vec(),
            arm: None,
        };
        let project = plan.projects.get(&principal.project);
        let project = project.filter(|it| !self.context.unguarded && !it.guards.is_empty());
        if let Some(project) = project {
            let call = Watched {
                environment: &principal.environment,
                key: principal.key_id.map(|key| key.to_string()),
                app: self.app.as_ref().map(|app| app.name.as_str()),
                model,
                route: self.context.guards.route(),
            };
            for (name, versions) in &project.guards {
                let split = self.split(project, name, versions, &call, &choice);
                let policy = match split {
                    Some((policy, used)) => {
                        choice.arm = Some(used);
                        Some(policy)
                    }
                    None => call.holds(versions).map(|(_, policy)| policy),
                };
                let same = |policy: &&Arc<GuardPolicy>| {
                    let is = |it: &Arc<GuardPolicy>| {
                        it.name == policy.name && it.digest == policy.digest
                    };
                    choice.policies.iter().any(is)
                };
                let policy = policy.filter(|policy| call.is_of(policy) && !same(policy));
                choice.policies.extend(policy.cloned());
            }
        }
        choice.policies.sort_by(|one, other| {
            let key = |it: &Arc<GuardPolicy>| (it.name.clone(), it.number);
            key(one).cmp(&key(other))
        });
        choice
    }

    /// The version that an experiment chooses for whoever calls. A record has room for one side of
    /// one experiment, so a call is part of one: what is chosen is also what is counted.
    fn split<'p>(
        &self,
        project: &'p ProjectPlan,
        name: &str,
        versions: &'p GuardPolicies,
        call: &Watched<'_>,
        choice: &Choice,
    ) -> Option<(&'p Arc<GuardPolicy>, ArmUsed)> {
        let may_split = self.may_split && self.context.guards.may_split();
        if !may_split || choice.arm.is_some() || versions.versions.is_empty() {
            return None;
        }
        let (label, _) = call.holds(versions)?;
        let experiment = project.experiments.get(&Target::Guard {
            name: name.to_owned(),
            label: label.to_owned(),
        })?;
        let is_watched = |arm: &crate::experiment::Arm| {
            let policy = versions.versions.get(&arm.number);
            policy.is_some_and(|policy| call.is_of(policy))
        };
        if !experiment.arms.iter().any(is_watched) {
            return None;
        }
        let (arm, used) = experiment.choose(&self.context.unit(experiment.unit))?;
        Some((versions.versions.get(&arm.number)?, used))
    }

    /// Begins the record of one policy.
    async fn note(&self, policy: Arc<GuardPolicy>) -> Result<Noted, Failure> {
        let rules = policy.compiled.clone();
        let rules = rules.map_err(|words| broken(&policy, &words))?;
        let part = Part {
            parent: Some(self.span),
            app: self.app.clone(),
            ..Part::default()
        };
        let about = About {
            kind: RecordKind::Guard,
            principal: self.caller.principal,
            context: self.context,
            part,
            request_bytes: 0,
        };
        let settler = begin(self.caller.gateway, self.caller.plan, &about).await?;
        Ok(Noted {
            policy,
            rules,
            settler: Some(settler),
            findings: Vec::new(),
            rule_names: Vec::new(),
            decision: Outcome::Flagged,
            took: Duration::ZERO,
            is_step: false,
        })
    }

    fn open(&self, model: &str, noted: Vec<Noted>) -> Watch {
        let vault = self.context.guards.vault();
        let mut watch = Watch {
            host: Host::new(self.caller, self.context, self.span, model),
            context: guard::Context {
                pseudonyms: Some(pseudonyms(&vault)),
                ..guard::Context::default()
            },
            vault,
            noted,
            passed: self.context.guards.passed(),
            told: Vec::new(),
            is_outer: false,
        };
        if watch.holds_to_evidence() {
            watch.told = self.context.guards.told();
            watch.hold_to(&[]);
        }
        watch
    }
}

/// Placeholders that stand for a kept value have names of their own: what another rule takes out
/// for good is numbered within its text, and must never be put back as somebody else's value.
fn pseudonyms(vault: &Arc<Mutex<Vault>>) -> guard::Pseudonyms {
    let vault = vault.clone();
    Arc::new(move |label, value| {
        let mut vault = lock(&vault);
        let label = format!("KEPT_{label}");
        vault.placeholder(&label, value).ok().map(str::to_owned)
    })
}

fn lock(vault: &Mutex<Vault>) -> MutexGuard<'_, Vault> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(policy: &GuardPolicy, words: &str) -> Failure {
    let message = format!(
        "the guard {:?} watches this call and cannot run, so the call is refused",
        policy.name
    );
    let mut failure: Failure = ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "guard_unavailable",
        message,
    )
    .into();
    failure.detail = Some(words.into());
    failure
}

impl Watch {
    /// Scans what the caller sends. The messages may be changed; true says that they were.
    ///
    /// # Errors
    /// A rule refuses the call.
    pub(crate) async fn input(&mut self, messages: &mut [Value]) -> Result<bool, Failure> {
        if self.noted.iter().any(|it| it.rules.looks_for_leaks()) {
            let told = system_prompt(messages);
            self.context.system = told.map(|text| self.host.index_of(&text));
        }
        let edited = self.messages(messages).await?;
        if self.holds_to_evidence() {
            self.hold_to(messages);
        }
        Ok(edited)
    }

    async fn messages(&mut self, messages: &mut [Value]) -> Result<bool, Failure> {
        let mut edited = false;
        for (at, message) in messages.iter_mut().enumerate() {
            let point = match message["role"].as_str() {
                Some("user") => Point::Input,
                Some("tool" | "function") => Point::ToolResult,
                _ => continue,
            };
            for (field, text) in texts_of(message, at) {
                edited |= self.field(point, &field, text).await?;
            }
        }
        Ok(edited)
    }

    fn holds_to_evidence(&self) -> bool {
        let mut rules = self.noted.iter();
        rules.any(|noted| noted.rules.holds_to_evidence(Point::Output))
    }

    /// What answers are held to: these messages, as they go up, and what the app told.
    fn hold_to(&mut self, messages: &[Value]) {
        let told = ground::told_in(messages).into_iter();
        let evidence = Evidence::new(told.chain(self.told.iter().cloned()));
        self.context.evidence = Some(Arc::new(evidence));
    }

    /// Scans texts that are to be embedded; true says that some were changed.
    ///
    /// # Errors
    /// A rule refuses the call, or there are tokens where a rule wants to read.
    pub(crate) async fn texts(&mut self, input: &mut [Value]) -> Result<bool, Failure> {
        if !self.looks_at(Point::Input) {
            return Ok(false);
        }
        let mut edited = false;
        let is_one = input.len() == 1;
        for (at, item) in input.iter_mut().enumerate() {
            let field = match is_one {
                true => "input".to_owned(),
                false => format!("input[{at}]"),
            };
            let Value::String(text) = item else {
                let words = "a guard reads the texts of this call, and tokens cannot be read; \
                             send the texts themselves";
                let mut error = ApiError::new(StatusCode::BAD_REQUEST, "guard_unreadable", words);
                error.param = Some(field);
                return Err(error.into());
            };
            edited |= self.field(Point::Input, &field, text).await?;
        }
        Ok(edited)
    }

    /// Scans one text of the caller's in its place; true says that it was changed.
    async fn field(
        &mut self,
        point: Point,
        field: &str,
        text: &mut String,
    ) -> Result<bool, Failure> {
        let scanned = self.scan(Place { point, field }, text).await;
        if let Some(refusal) = scanned.ended {
            return Err(refused(&refusal, field));
        }
        let is_edited = scanned.text != *text;
        *text = scanned.text;
        Ok(is_edited)
    }

    /// A mark for this call, where some rule looks for one: who repeats it has read the
    /// instructions aloud. What to say of it at the end of the instructions.
    pub(crate) fn hide_mark(&mut self) -> Option<Mark> {
        if !self.noted.iter().any(|it| it.rules.looks_for_canaries()) {
            return None;
        }
        let mark = self.host.fresh_mark();
        self.context.canaries.push(mark.clone());
        Some(Mark {
            sentence: instructions::sentence(&mark),
            mark,
        })
    }

    /// Whether some rule may ask for another answer.
    pub(crate) fn may_rewrite(&self) -> bool {
        let mut rules = self.noted.iter();
        rules.any(|noted| noted.rules.may_rewrite(Point::Output))
    }

    /// Whether anything is to be done about the answer.
    pub(crate) fn looks_at_answers(&self) -> bool {
        let looked_at = [Point::Output, Point::ToolArguments];
        !lock(&self.vault).is_empty() || looked_at.into_iter().any(|point| self.looks_at(point))
    }

    pub(crate) fn looks_at(&self, point: Point) -> bool {
        self.noted.iter().any(|noted| noted.rules.looks_at(point))
    }

    fn context_of(&self, is_aside: bool) -> guard::Context {
        guard::Context {
            is_aside,
            ..self.context.clone()
        }
    }

    fn note(&mut self, at: usize, place: Place<'_>, findings: &[Finding]) {
        if let Some(noted) = self.noted.get_mut(at) {
            noted.take(place, findings);
        }
    }

    fn ended(&mut self, at: usize, ended: &Ended) -> Option<Refusal> {
        let noted = self.noted.get_mut(at)?;
        noted.decision = Outcome::Blocked;
        Some(Refusal::new(&noted.policy, ended))
    }

    fn took(&mut self, at: usize, since: Instant) {
        if let Some(noted) = self.noted.get_mut(at) {
            noted.took += since.elapsed();
        }
    }
}

impl Noted {
    fn take(&mut self, place: Place<'_>, findings: &[Finding]) {
        use guard::Outcome as Done;
        for finding in findings {
            if matches!(
                finding.outcome,
                Done::Redacted | Done::Replaced | Done::Repaired
            ) {
                self.decision = self.decision.max(Outcome::Edited);
            }
            if !self.rule_names.contains(&finding.rule_name) {
                self.rule_names.push(finding.rule_name.clone());
            }
            if self.findings.len() < KEPT_FINDINGS {
                let mut shown = json!(finding);
                shown["point"] = json!(place.point);
                shown["field"] = place.field.into();
                self.findings.push(shown);
            }
        }
    }

    /// Writes what was found, if anything was.
    fn close(&mut self) {
        let Some(mut settler) = self.settler.take() else {
            return;
        };
        let found = !self.rule_names.is_empty();
        if !found && !self.is_step {
            settler.discard();
            return;
        }
        let record = settler.record_mut();
        record.request_model.clone_from(&self.policy.name);
        record.guard = Some(GuardUsed {
            policy: self.policy.name.clone(),
            version: self.policy.number,
            digest: self.policy.digest,
            decision: if found {
                self.decision.as_str()
            } else {
                PASSED
            },
            rules: std::mem::take(&mut self.rule_names),
            took_us: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        });
        settler.output = std::mem::take(&mut self.findings);
        settler.settle(CallStatus::Ok, None);
    }
}

/// The decision of a step that found nothing.
const PASSED: &str = "passed";
/// A text of a million card numbers is one record like another.
const KEPT_FINDINGS: usize = 200;

impl Drop for Watch {
    fn drop(&mut self) {
        self.noted.iter_mut().for_each(Noted::close);
    }
}

pub(crate) fn refused(refusal: &Refusal, field: &str) -> Failure {
    let message = format!("the request was refused by {}", refusal.by());
    let mut error = ApiError::new(StatusCode::BAD_REQUEST, "guard_blocked", message);
    error.param = Some(field.to_owned());
    error.into()
}

/// What the instructions of a conversation say, for rules about what may not leave.
fn system_prompt(messages: &[Value]) -> Option<String> {
    let told = messages
        .iter()
        .filter(|it| matches!(it["role"].as_str(), Some("system" | "developer")));
    let texts: Vec<&str> = told
        .flat_map(|message| text_fields(message, 0))
        .map(|(_, text)| text)
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// The texts of a message, each with its place in the request.
fn text_fields(message: &Value, at: usize) -> Vec<(String, &str)> {
    match &message["content"] {
        Value::String(text) => vec![(format!("messages[{at}].content"), text)],
        Value::Array(parts) => {
            let texts = parts.iter().enumerate();
            let texts = texts.filter_map(|(part, it)| {
                let field = format!("messages[{at}].content[{part}].text");
                Some((field, it["text"].as_str()?))
            });
            texts.collect()
        }
        _ => Vec::new(),
    }
}

/// The same, to be edited.
fn texts_of(message: &mut Value, at: usize) -> Vec<(String, &mut String)> {
    match message.get_mut("content") {
        Some(Value::String(text)) => vec![(format!("messages[{at}].content"), text)],
        Some(Value::Array(parts)) => {
            let texts =
                parts
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(part, it)| match it.get_mut("text") {
                        Some(Value::String(text)) => {
                            Some((format!("messages[{at}].content[{part}].text"), text))
                        }
                        _ => None,
                    });
            texts.collect()
        }
        _ => Vec::new(),
    }
}
