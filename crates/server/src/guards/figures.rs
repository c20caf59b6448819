//! Guards in numbers, over a time and over as long a time before it: for the overview.
//!
//! Everything is counted in calls, over guards' spans; a call that two policies watched is one.

use std::collections::{BTreeMap, HashSet};

use base::{SpanId, TraceId};
use db::catalog::NameFilter;
use db::{PageRequest, Scope};
use telemetry::Scope as SpanScope;

use super::KIND;
use super::recorded::{self, Guarded};
use super::verdict::{SCORE, Verdict};
use crate::app::App;
use crate::error::Result;
use crate::traces::AskText;

/// Guards' spans that are counted, the newest.
const MOST_SPANS: usize = 10_000;
/// Users that are listed.
const USERS: usize = 8;

/// The numbers.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Over the time.
    pub(crate) now: Counts,
    /// Over as long a time before.
    pub(crate) before: Counts,
    /// Users of the application whose calls were blocked: how often, and when last.
    pub(crate) users: Vec<(String, usize, i64)>,
    /// Whether there were more finds than are counted.
    pub(crate) is_cut: bool,
}

/// Calls.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    hits: HashSet<Call>,
    blocked: HashSet<Call>,
    injections: HashSet<Call>,
    false_alarms: HashSet<Call>,
}

type Call = (TraceId, Option<SpanId>);

impl Counts {
    /// Calls in which a rule in force found something.
    pub(crate) fn hits(&self) -> usize {
        self.hits.len()
    }

    /// Calls that did not go on.
    pub(crate) fn blocked(&self) -> usize {
        self.blocked.len()
    }

    /// Calls in which a rule for prompt injection found something, in shadow or not.
    pub(crate) fn injections(&self) -> usize {
        self.injections.len()
    }

    /// Calls with a find that somebody called a false alarm.
    pub(crate) fn false_alarms(&self) -> usize {
        self.false_alarms.len()
    }

    fn take(&mut self, one: &Guarded, is_false: bool) {
        let call = (one.trace_id, one.call);
        if one.is_enforced() {
            self.hits.insert(call);
        }
        if one.decision == "blocked" {
            self.blocked.insert(call);
        }
        let is_injection =
            |name: &String| one.rule(name).is_some_and(|rule| rule.check == "injection");
        if one.found_by.iter().any(is_injection) {
            self.injections.insert(call);
        }
        if is_false {
            self.false_alarms.insert(call);
        }
    }
}

/// The numbers; none for a project that has no policy and never had a find.
///
/// # Errors
/// Telemetry or the database cannot be read.
pub(crate) async fn figures(
    app: &App,
    scope: Scope,
    from_us: i64,
    to_us: i64,
) -> Result<Option<Figures>> {
    let ask = AskText {
        from: Some((from_us - (to_us - from_us)).to_string()),
        to: Some(to_us.to_string()),
        filter: Some("kind = \"guard\"".to_owned()),
        scope: Some("spans".to_owned()),
        ..AskText::default()
    };
    let ask = ask.parse(app.clock.now_us())?;
    debug_assert_eq!(ask.scope, SpanScope::Spans, "guards stand below calls");
    let project = scope.project;
    let (mut found, is_cut) = crate::traces::read(&app.telemetry, move |reader| {
        recorded::newest(reader, project, &ask, MOST_SPANS)
    })
    .await?;
    if found.is_empty() && !has_policy(app, scope).await? {
        return Ok(None);
    }
    recorded::with_rules(app, project, &mut found).await?;
    let mut figures = Figures {
        is_cut,
        ..Figures::default()
    };
    let mut users: BTreeMap<String, (HashSet<Call>, i64)> = BTreeMap::new();
    for one in &found {
        let is_false = one.scores.iter().any(|score| {
            score.name == SCORE && score.label.as_deref() == Some(Verdict::FalseAlarm.name())
        });
        if one.at_us < from_us {
            figures.before.take(one, is_false);
            continue;
        }
        figures.now.take(one, is_false);
        if let Some(user) = one.user.clone().filter(|_| one.decision == "blocked") {
            let row = users.entry(user).or_default();
            row.0.insert((one.trace_id, one.call));
            row.1 = row.1.max(one.at_us);
        }
    }
    figures.users = users
        .into_iter()
        .map(|(user, (calls, last))| (user, calls.len(), last))
        .collect();
    figures
        .users
        .sort_by_key(|(_, calls, last)| std::cmp::Reverse((*calls, *last)));
    figures.users.truncate(USERS);
    Ok(Some(figures))
}

async fn has_policy(app: &App, scope: Scope) -> Result<bool> {
    let one = PageRequest {
        cursor: None,
        limit: 1,
    };
    let names = app
        .catalog
        .list_names(scope, KIND, &NameFilter::default(), &one)
        .await?;
    Ok(!names.items.is_empty())
}
