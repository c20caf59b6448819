//! The classifiers that come with the program, as policies use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use guard::Scorer;
use guard::classify::{Linear, Task};

/// By the names that checks have: `injection` and `toxicity`.
pub(super) fn shipped() -> BTreeMap<String, Scorer> {
    let scorer = |task: Task| {
        let model = Linear::shipped(task);
        let scorer = Scorer {
            name: model.header().name.clone(),
            threshold: model.threshold(),
            score: Arc::new(|text| model.score(text)),
        };
        (task.name().to_owned(), scorer)
    };
    [Task::Injection, Task::Toxicity].map(scorer).into()
}
