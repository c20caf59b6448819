//! The classifiers that come with the program, as policies use them, and how long they take.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard::Scorer;
use guard::classify::{Linear, Task};

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
    let scorer = |task: Task| {
        let model = Linear::shipped(task);
        let scorer = Scorer {
            name: model.header().name.clone(),
            threshold: model.threshold(),
            score: Arc::new(|text| {
                let begin = Instant::now();
                let score = model.score(text);
                TOOK.set(TOOK.get().saturating_add(begin.elapsed()));
                score
            }),
        };
        (task.name().to_owned(), scorer)
    };
    [Task::Injection, Task::Toxicity].map(scorer).into()
}
