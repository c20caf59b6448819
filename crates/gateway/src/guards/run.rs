//! What the guards of one call of an app share, whatever its steps do.
//!
//! The release pins the policies that its app names, so that a rollback takes its guards back too.
//! One vault serves the whole run: inside it texts hold placeholders, and values come back only
//! where a text leaves, in the app's answer and in what its tools are sent. A text that a policy
//! let through is not read by it again at the next step, so nothing is found twice and no judge
//! is asked twice. What tools and steps told is kept for rules that hold answers to it.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base::{Digest, SpanId};
use guard::{Form, Point, Restore, Source, Told, Vault};
use serde_json::{Value, json};

use super::{Noted, PASSED, Watch, lock};
use crate::app::as_text;
use crate::call::Caller;
use crate::context::CallContext;
use crate::experiment::ArmUsed;
use crate::failure::Failure;
use crate::plan::GuardPolicy;
use crate::record::AppUsed;

/// Texts that are remembered to have come through; more are read again.
const MOST_PASSED: usize = 10_000;
/// What a run keeps of what was told: more than a rule reads.
const MOST_TOLD_BYTES: usize = 2 << 20;

/// The guards of one call of an app. Empty for a call of a model alone.
#[derive(Clone, Default)]
pub struct AppGuards {
    shared: Option<Arc<Shared>>,
    /// The app's name for the models that a call may go to.
    route: Option<Arc<str>>,
}

struct Shared {
    policies: Vec<Arc<GuardPolicy>>,
    vault: Arc<Mutex<Vault>>,
    passed: Arc<Passed>,
    told: Mutex<Vec<Told>>,
    may_split: bool,
}

impl fmt::Debug for AppGuards {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.policies().iter().map(|policy| &policy.name);
        out.debug_list().entries(names).finish()
    }
}

impl PartialEq for AppGuards {
    fn eq(&self, other: &Self) -> bool {
        let is_same = match (&self.shared, &other.shared) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        is_same && self.route == other.route
    }
}

impl AppGuards {
    /// What begins with a call of an app whose release pins these. An experiment of policies may
    /// split it where no other one does.
    pub(crate) fn new(policies: Vec<Arc<GuardPolicy>>, may_split: bool) -> Self {
        let shared = Shared {
            policies,
            vault: Arc::default(),
            passed: Arc::default(),
            told: Mutex::default(),
            may_split,
        };
        Self {
            shared: Some(Arc::new(shared)),
            route: None,
        }
    }

    /// The same for a call that goes by a route of the app.
    pub(crate) fn by_route(self, route: Option<Arc<str>>) -> Self {
        Self { route, ..self }
    }

    pub(super) fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    pub(super) fn is_app(&self) -> bool {
        self.shared.is_some()
    }

    pub(super) fn may_split(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.may_split)
    }

    pub(super) fn policies(&self) -> &[Arc<GuardPolicy>] {
        self.shared.as_ref().map_or(&[], |shared| &shared.policies)
    }

    /// The run's vault, or one for this call alone.
    pub(super) fn vault(&self) -> Arc<Mutex<Vault>> {
        self.shared
            .as_ref()
            .map_or_else(Arc::default, |shared| shared.vault.clone())
    }

    pub(super) fn passed(&self) -> Option<Arc<Passed>> {
        self.shared.as_ref().map(|shared| shared.passed.clone())
    }

    /// What an answer of this run may stand on from now on.
    pub(crate) fn tell(&self, source: Source, field: &str, value: &Value) {
        let told = Told {
            source,
            field: field.to_owned(),
            text: as_text(value),
        };
        self.tell_all([told]);
    }

    pub(crate) fn tell_all(&self, told: impl IntoIterator<Item = Told>) {
        let Some(shared) = &self.shared else { return };
        let mut all = shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: usize = all.iter().map(|it| it.text.len()).sum();
        for one in told {
            bytes = bytes.saturating_add(one.text.len());
            if bytes <= MOST_TOLD_BYTES && !one.text.is_empty() {
                all.push(one);
            }
        }
    }

    /// What was told so far.
    pub(super) fn told(&self) -> Vec<Told> {
        let all = self.shared.as_ref().map(|shared| &shared.told);
        let all = all.map(|told| told.lock().unwrap_or_else(PoisonError::into_inner));
        all.map_or_else(Vec::new, |told| told.clone())
    }

    /// Whether placeholders stand for something here.
    pub(crate) fn has_values(&self) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| !lock(&shared.vault).is_empty())
    }

    /// A text that leaves, with its values.
    pub(crate) fn restored(&self, text: &str, form: Form) -> String {
        match &self.shared {
            Some(shared) => lock(&shared.vault).restore(text, form),
            None => text.to_owned(),
        }
    }

    /// Every text of a value that leaves, with its values.
    pub(crate) fn restore_all(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.restored(text, Form::Plain),
            Value::Array(items) => items.iter_mut().for_each(|item| self.restore_all(item)),
            Value::Object(map) => map.values_mut().for_each(|item| self.restore_all(item)),
            _ => {}
        }
    }

    /// A piece of a text that leaves in pieces; what may become a placeholder waits.
    pub(crate) fn restored_piece(&self, restore: &mut Restore, piece: &str) -> String {
        match &self.shared {
            Some(shared) => restore.push(&lock(&shared.vault), piece),
            None => piece.to_owned(),
        }
    }
}

/// Which texts a policy let through at a point.
#[derive(Default)]
pub(super) struct Passed(Mutex<HashSet<Digest>>);

impl Passed {
    fn key(policy: &GuardPolicy, point: Point, text: &str) -> Digest {
        let head = format!("{}:{}:{point:?}:", policy.digest, policy.name);
        Digest::of([head.as_bytes(), text.as_bytes()].concat().as_slice())
    }

    fn has(&self, policy: &GuardPolicy, point: Point, text: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !known.is_empty() && known.contains(&Self::key(policy, point, text))
    }

    fn put(&self, policy: &GuardPolicy, point: Point, text: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_PASSED {
            known.insert(Self::key(policy, point, text));
        }
    }
}

impl Watch {
    /// Whether this policy has let this very text through here before. What a model says is read
    /// each time, against the instructions that this model had; only the app as a whole trusts
    /// what was let through inside it.
    pub(super) fn has_passed(&self, at: usize, point: Point, text: &str) -> bool {
        let again = match point {
            Point::Input | Point::ToolResult | Point::Retrieved => true,
            Point::Output => self.is_outer,
            Point::ToolArguments => false,
        };
        let passed = self.passed.as_ref().filter(|_| again);
        passed.is_some_and(|passed| passed.has(&self.noted[at].policy, point, text))
    }

    /// Every policy let this text through.
    pub(super) fn let_pass(&self, point: Point, text: &str) {
        let Some(passed) = &self.passed else { return };
        for noted in &self.noted {
            if noted.rules.looks_at(point) {
                passed.put(&noted.policy, point, text);
            }
        }
    }

    /// What a step says about its check.
    pub(crate) fn verdict(&self, refusal: Option<&super::Refusal>) -> Verdict {
        let noted = self.noted.first();
        let found = noted.filter(|noted| !noted.rule_names.is_empty());
        Verdict {
            decision: found.map_or(PASSED, |noted| noted.decision.as_str()),
            rule: refusal.map(|refusal| refusal.rule.clone()),
            findings: noted.map_or(Value::Null, |noted| json!(noted.findings)),
        }
    }
}

/// What a `guard` step found.
pub(crate) struct Verdict {
    pub decision: &'static str,
    /// The rule that ended the text.
    pub rule: Option<String>,
    pub findings: Value,
}

/// A place in a call of an app, or a call of a model, that is to be watched.
pub(crate) struct Here<'a> {
    pub caller: Caller<'a>,
    pub context: &'a CallContext,
    /// The records of guards stand below this.
    pub span: SpanId,
    pub app: Option<AppUsed>,
    /// Whether an experiment of policies may choose here.
    pub may_split: bool,
}

impl Here<'_> {
    /// Watches what happens here beside calls of models: an app's inputs and answer, its tools.
    ///
    /// # Errors
    /// A policy that watches it cannot run, or there is no place for its record.
    pub(crate) async fn watch_app(&self) -> Result<Option<Watch>, Failure> {
        Ok(self.watch_whole_app().await?.0)
    }

    /// The same, and the side of an experiment that this call is.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn watch_whole_app(
        &self,
    ) -> Result<(Option<Watch>, Option<ArmUsed>), Failure> {
        let (mut watch, arm) = self.watch("").await?;
        if let Some(watch) = &mut watch {
            watch.is_outer = true;
        }
        Ok((watch, arm))
    }

    /// One policy, as a step: its record is written whatever it finds.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn watch_by(&self, policy: &Arc<GuardPolicy>) -> Result<Watch, Failure> {
        let noted = Noted {
            is_step: true,
            ..self.note(policy.clone()).await?
        };
        let mut watch = self.open("", vec![noted]);
        // A step is there to look, also at what somebody looked at before.
        watch.passed = None;
        Ok(watch)
    }
}
