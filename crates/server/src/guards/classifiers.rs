//! Classifiers as policies use them, and how long they take: those that come with the program, by
//! the names of their tasks, and those that learned from a project's reviewed texts, by the digest
//! of their file among the project's blobs. A policy's version so says for ever what ran.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard::classify::{Linear, Task};
use guard::{Check, Policy, Rule, Scorer};

thread_local! {
    /// What classifiers took on this thread since somebody last asked. Scans of a whole text stay
    /// on one thread, so what is read after one is of that one.
    static TOOK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What classifiers took on this thread since this was last called.
pub(super) fn took() -> Duration {
    TOOK.take()
}

/// By the names that checks have: `injection` and `toxicity`.
pub(super) fn shipped() -> BTreeMap<String, Scorer> {
    let shipped = |task: Task| {
        let model = Linear::shipped(task);
        (task.name().to_owned(), scorer(Arc::new(model.clone())))
    };
    [Task::Injection, Task::Toxicity].map(shipped).into()
}

fn scorer(model: Arc<Linear>) -> Scorer {
    Scorer {
        name: model.header().name.clone(),
        threshold: model.threshold(),
        score: Arc::new(move |text| {
            let begin = Instant::now();
            let score = model.score(text);
            TOOK.set(TOOK.get().saturating_add(begin.elapsed()));
            score
        }),
    }
}

/// What stands for a classifier where a policy is only checked, and never runs.
pub(super) fn absent(name: &str) -> Scorer {
    Scorer {
        name: name.to_owned(),
        threshold: 1.0,
        score: Arc::new(|_| 0.0),
    }
}

/// The classifiers that a policy's rules name by the digest of their file.
pub(super) fn named(policy: &Policy) -> Vec<(&str, Task)> {
    policy.rules.iter().filter_map(named_by).collect()
}

fn named_by(rule: &Rule) -> Option<(&str, Task)> {
    match &rule.check {
        Check::Injection { classifier, .. } => Some((classifier.as_deref()?, Task::Injection)),
        Check::Toxicity { classifier, .. } => Some((classifier.as_deref()?, Task::Toxicity)),
        _ => None,
    }
}

/// A file of a project's as a rule for this task uses it.
///
/// # Errors
/// It is no classifier, or one for something else.
pub(super) fn read(bytes: &[u8], task: Task) -> Result<Scorer, String> {
    let model = Linear::read(bytes).map_err(|error| error.to_string())?;
    let of = model.header().task;
    if of != task {
        return Err(format!(
            "it looks for {}, and the rule for {}",
            of.name(),
            task.name()
        ));
    }
    Ok(scorer(Arc::new(model)))
}
