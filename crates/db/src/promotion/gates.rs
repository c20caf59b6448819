//! Gates: what must be shown of content before it may be moved.
//!
//! Everything that gates look at is read in bulk, one query per table, and only
//! the tables that the rules at hand need; judging is then plain code. So one
//! proposal and a whole board are judged by the same lines.

use std::collections::{HashMap, HashSet};

use base::{Digest, ProjectId};
use sqlx::AnyConnection;

use super::store::{self, Range, Stay};
use super::{
    EARLIER_ENVIRONMENT, Evidence, GateOutcome, GateReport, GateRule, GateState, Outcome,
    Promotion, PromotionError, RESOLVES, Rules,
};
use crate::catalog::{Label, Name, Selector};
use crate::{DbError, Scope};

/// How many documents may hang together through references.
const MAX_CLOSURE: usize = 2000;

/// One kind's names, and what gates look at.
pub(super) struct Facts {
    environments: Vec<String>,
    evidence: HashMap<(String, Digest, String), Evidence>,
    stays: HashMap<(String, String, Digest), Stayed>,
    quarantined: HashSet<(String, String, String)>,
    references: References,
    kind: String,
}

/// How long content was in an environment.
#[derive(Debug, Clone, Copy, Default)]
struct Stayed {
    longest_us: i64,
    /// Since when it is there now.
    since: Option<i64>,
}

/// Kind and name, or kind and digest.
type Pair = (String, String);

#[derive(Default)]
struct References {
    /// Kind and digest → kind and name of what it mentions, and the selector.
    mentions: HashMap<Pair, Vec<(Pair, String)>>,
    versions: HashMap<Pair, Vec<(i64, String)>>,
    pointers: HashMap<(String, String, String), String>,
}

impl Facts {
    /// Reads what these rules need to know of a kind's names in the range.
    pub(super) async fn load<'a>(
        connection: &mut AnyConnection,
        project: ProjectId,
        kind: &str,
        range: &Range,
        rules: impl Iterator<Item = &'a Rules>,
        now_us: i64,
    ) -> Result<Self, DbError> {
        let gates: Vec<&GateRule> = rules.flat_map(|rules| &rules.gates).collect();
        let wants = |name: &str| gates.iter().any(|gate| gate.name == name);
        let mut facts = Self {
            environments: store::environments(connection, project).await?,
            evidence: HashMap::new(),
            stays: HashMap::new(),
            quarantined: HashSet::new(),
            references: References::default(),
            kind: kind.to_owned(),
        };
        for row in store::active_quarantines(connection, project).await? {
            let key = (row.kind, row.name.to_string(), row.digest.to_string());
            facts.quarantined.insert(key);
        }
        if gates.iter().any(|gate| gate.wants_evidence()) {
            for row in store::newest_evidence(connection, project, kind, range).await? {
                let key = (row.name.to_string(), row.digest, row.gate.clone());
                facts.evidence.insert(key, row);
            }
        }
        if wants(EARLIER_ENVIRONMENT) {
            facts.stays = stayed(
                store::stays(connection, project, kind, range).await?,
                now_us,
            );
        }
        if wants(RESOLVES) {
            facts.references = References::load(connection, project).await?;
        }
        Ok(facts)
    }

    pub(super) fn is_quarantined(&self, name: &Name, digest: &Digest) -> bool {
        let key = (self.kind.clone(), name.to_string(), digest.to_string());
        self.quarantined.contains(&key)
    }

    /// How the gates of a label stand for this content.
    pub(super) fn report(
        &self,
        rules: &Rules,
        name: &Name,
        digest: &Digest,
        label: &str,
    ) -> GateReport {
        let gates: Vec<GateState> = rules
            .gates
            .iter()
            .map(|gate| self.state(gate, name, digest, label))
            .collect();
        let passes = gates
            .iter()
            .all(|gate| !gate.required || gate.outcome == GateOutcome::Pass);
        GateReport { passes, gates }
    }

    fn state(&self, gate: &GateRule, name: &Name, digest: &Digest, label: &str) -> GateState {
        let mut state = GateState {
            name: gate.name.clone(),
            required: gate.required,
            outcome: GateOutcome::Pass,
            why: String::new(),
            passes_at: None,
            evidence: None,
        };
        match gate.name.as_str() {
            RESOLVES => {
                if let Some(why) = self.unresolved(digest) {
                    (state.outcome, state.why) = (GateOutcome::Fail, why);
                }
            }
            EARLIER_ENVIRONMENT => self.judge_stay(gate, name, digest, label, &mut state),
            _ => {
                let key = (name.to_string(), *digest, gate.name.clone());
                self.judge_evidence(self.evidence.get(&key), &mut state);
            }
        }
        state
    }

    fn judge_evidence(&self, evidence: Option<&Evidence>, state: &mut GateState) {
        state.evidence = evidence.cloned();
        (state.outcome, state.why) = match evidence.map(|evidence| evidence.outcome) {
            Some(Outcome::Pass) => (GateOutcome::Pass, String::new()),
            Some(Outcome::Fail) => (
                GateOutcome::Fail,
                "the newest evidence says that it fails".to_owned(),
            ),
            Some(Outcome::Inconclusive) => (
                GateOutcome::Inconclusive,
                "the newest evidence does not say".to_owned(),
            ),
            None => (
                GateOutcome::Missing,
                "there is no evidence for this content yet".to_owned(),
            ),
        };
    }

    fn judge_stay(
        &self,
        gate: &GateRule,
        name: &Name,
        digest: &Digest,
        label: &str,
        state: &mut GateState,
    ) {
        let position = self.environments.iter().position(|known| known == label);
        let before = match position {
            // The first has none before.
            Some(0) => return,
            Some(position) => &self.environments[position - 1],
            None => {
                state.outcome = GateOutcome::Fail;
                state.why = format!("{label} is no environment, so there is none before it");
                return;
            }
        };
        let key = (name.to_string(), before.clone(), *digest);
        let Some(stay) = self.stays.get(&key) else {
            state.outcome = GateOutcome::Missing;
            state.why = format!("it has not been in {before}");
            return;
        };
        let wanted_us = gate.min_s.saturating_mul(1_000_000);
        if stay.longest_us >= wanted_us {
            return;
        }
        match stay.since {
            Some(since) => {
                state.outcome = GateOutcome::Waiting;
                state.passes_at = Some(since.saturating_add(wanted_us));
                state.why = format!("it has been in {before} for less than {} s", gate.min_s);
            }
            None => {
                state.outcome = GateOutcome::Fail;
                state.why = format!("it was in {before} for less than {} s", gate.min_s);
            }
        }
    }

    /// What a document refers to, itself or through others, that is not there or quarantined.
    fn unresolved(&self, digest: &Digest) -> Option<String> {
        let root = (self.kind.clone(), digest.to_string());
        let mut seen = HashSet::from([root.clone()]);
        let mut open = vec![root];
        while let Some(document) = open.pop() {
            for ((kind, name), selector) in self
                .references
                .mentions
                .get(&document)
                .into_iter()
                .flatten()
            {
                let text = format!("{kind}:{name}@{selector}");
                let Some(found) = self.references.find(kind, name, selector) else {
                    return Some(format!("it refers to {text}, which does not exist"));
                };
                let key = (kind.clone(), name.clone(), found.to_owned());
                if self.quarantined.contains(&key) {
                    return Some(format!("it refers to {text}, which is quarantined"));
                }
                let next = (kind.clone(), found.to_owned());
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if seen.len() > MAX_CLOSURE {
                return Some(format!("it refers to more than {MAX_CLOSURE} documents"));
            }
        }
        None
    }
}

impl References {
    async fn load(connection: &mut AnyConnection, project: ProjectId) -> Result<Self, DbError> {
        let mut references = Self::default();
        for (from, to, selector) in store::mentions(connection, project).await? {
            let list = references.mentions.entry(from).or_default();
            list.push((to, selector));
        }
        if references.mentions.is_empty() {
            return Ok(references);
        }
        for (kind, name, number, digest) in store::mentioned_versions(connection, project).await? {
            let list = references.versions.entry((kind, name)).or_default();
            list.push((number, digest));
        }
        for (kind, name, label, digest) in store::mentioned_pointers(connection, project).await? {
            references.pointers.insert((kind, name, label), digest);
        }
        Ok(references)
    }

    /// The digest that a reference stands for.
    fn find(&self, kind: &str, name: &str, selector: &str) -> Option<&str> {
        let versions = || {
            let key = (kind.to_owned(), name.to_owned());
            self.versions.get(&key).into_iter().flatten()
        };
        match selector.parse::<Selector>().ok()? {
            Selector::Latest => versions()
                .max_by_key(|(number, _)| *number)
                .map(|(_, digest)| digest.as_str()),
            Selector::Number(wanted) => versions()
                .find(|(number, _)| *number == wanted)
                .map(|(_, digest)| digest.as_str()),
            Selector::Digest(wanted) => {
                let wanted = wanted.to_string();
                versions()
                    .find(|(_, digest)| *digest == wanted)
                    .map(|(_, digest)| digest.as_str())
            }
            Selector::Label(label) => {
                let key = (kind.to_owned(), name.to_owned(), label.to_string());
                self.pointers.get(&key).map(String::as_str)
            }
        }
    }
}

/// From the moves of each pointer, in order, how long each content stayed.
fn stayed(moves: Vec<Stay>, now_us: i64) -> HashMap<(String, String, Digest), Stayed> {
    let mut stays: HashMap<(String, String, Digest), Stayed> = HashMap::new();
    let mut moves = moves.into_iter().peekable();
    while let Some(stay) = moves.next() {
        if stay.action == "remove" {
            continue;
        }
        let next = moves
            .peek()
            .filter(|next| next.name == stay.name && next.label == stay.label);
        let until = next.map_or(now_us, |next| next.moved_at);
        let is_there = next.is_none();
        let known = stays
            .entry((stay.name.to_string(), stay.label, stay.digest))
            .or_default();
        known.longest_us = known.longest_us.max(until - stay.moved_at);
        if is_there {
            known.since = Some(stay.moved_at);
        }
    }
    stays
}

impl Promotion {
    /// How a label's gates stand for content of a name, whether or not anybody wants to move it there.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn gate_report(
        &self,
        scope: Scope,
        kind: &str,
        name: &Name,
        digest: &Digest,
        label: &Label,
    ) -> Result<GateReport, PromotionError> {
        self.catalog.kinds().get(kind)?;
        let mut connection = self.db.read().acquire().await?;
        let protection = store::protection(&mut connection, scope.project, label.as_str()).await?;
        let rules = protection.map(|known| known.rules).unwrap_or_default();
        let range = Range::one(name);
        let facts = Facts::load(
            &mut connection,
            scope.project,
            kind,
            &range,
            std::iter::once(&rules),
            self.db.now_us(),
        )
        .await?;
        Ok(facts.report(&rules, name, digest, label.as_str()))
    }
}
