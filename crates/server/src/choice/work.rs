//! The worker of one choice: which evaluation comes next, and what its end means.
//!
//! A round's evaluation is named after the choice and the round. Whoever takes a choice
//! over looks for that name before starting one, so that a kill between starting an
//! evaluation and writing it down starts no second one.

use serde_json::Value;

use super::document::{ChoiceDocument, Round};
use super::store::{self, Choice, Progress};
use super::weigh::{self, Family};
use super::{Desk, KIND, digest_of, nano, result_of, scope_of, sheet_of, unless_too_late, usd};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::{self, Evaluation, SuiteSource};
use crate::runs::{End, Hold, Looks, State, Trouble, explain};

/// Looks after a choice to its end, or until it is held.
pub(super) async fn run(app: App, hold: Hold) -> std::result::Result<End, Trouble> {
    let found = store::find(&app.db, hold.project, &hold.id).await?;
    let Some(choice) = found else {
        return Ok(End::Finished);
    };
    let worker = Worker {
        progress: choice.progress.clone(),
        app,
        hold,
        choice,
    };
    // What a round refers to cannot be had any more: no later turn will.
    worker.run().await.map_err(Trouble::of_pinned)
}

/// What waiting for an evaluation came to.
enum Waited {
    Ended(Box<Evaluation>),
    /// Somebody holds or stopped the choice, or took it over.
    NotOurs,
    ServerStops,
}

struct Worker {
    app: App,
    hold: Hold,
    choice: Choice,
    progress: Progress,
}

impl Worker {
    fn desk(&self) -> Desk<'_> {
        Desk::of(&self.app)
    }

    async fn run(mut self) -> Result<End> {
        loop {
            if self.progress.rounds.last().is_none_or(|round| round.done)
                && !self.begin_round().await?
            {
                return Ok(End::Finished);
            }
            let evaluation = match self.wait().await? {
                Waited::Ended(evaluation) => evaluation,
                Waited::NotOurs => return Ok(End::Finished),
                Waited::ServerStops => return Ok(End::ServerStops),
            };
            let over = match evaluation.state {
                State::Done => self.conclude(&evaluation).await?,
                State::Paused => {
                    self.let_go(State::Paused, &evaluation.reason).await?;
                    true
                }
                _ => {
                    let reason = format!(
                        "the evaluation of round {} is {}: {}",
                        self.progress.rounds.len(),
                        evaluation.state.name(),
                        evaluation.reason
                    );
                    self.let_go(State::Failed, reason.trim_end_matches(": "))
                        .await?;
                    true
                }
            };
            if over {
                return Ok(End::Finished);
            }
        }
    }

    /// The models that are still there.
    fn survivors(&self) -> Vec<String> {
        let out = |model: &String| {
            let rounds = self.progress.rounds.iter();
            rounds
                .flat_map(|round| &round.dropped)
                .any(|one| one.model == *model)
                || self.progress.excluded.iter().any(|one| one.model == *model)
        };
        let models = self.choice.task.models.iter();
        models.filter(|model| !out(model)).cloned().collect()
    }

    /// What is left of the budget for the round that comes or is under way.
    fn budget_left(&self) -> Option<i64> {
        let done = self.progress.rounds.iter().filter(|round| round.done);
        let spent: i64 = done.map(|round| nano(round.spent_usd)).sum();
        self.choice.budget.map(|budget| budget - spent)
    }

    /// Starts the evaluation of the next round. False when the choice ends here instead.
    async fn begin_round(&mut self) -> Result<bool> {
        let task = &self.choice.task;
        let models = self.survivors();
        if models.is_empty() {
            self.let_go(State::Failed, "no model keeps the limits")
                .await?;
            return Ok(false);
        }
        let left = self.budget_left();
        if left.is_some_and(|left| left <= 0) {
            self.let_go(State::Paused, "the budget is used up").await?;
            return Ok(false);
        }
        let number = self.progress.rounds.len();
        let samples = task.samples(self.progress.examples);
        let sample = match models.len() <= task.finalists as usize {
            true => None,
            false => samples.get(number).copied(),
        };
        let suite = task.suite(&models, sample, left.map(usd)).to_value();
        let evaluation = self.evaluation(number + 1, suite).await?;
        self.progress.rounds.push(Round {
            examples: sample.unwrap_or(self.progress.examples),
            is_final: sample.is_none(),
            models,
            evaluation: evaluation.id.clone(),
            done: false,
            compared: 0,
            figures: Vec::new(),
            dropped: Vec::new(),
            spent_usd: 0.0,
        });
        if store::write_progress(&self.app.db, &self.hold, &self.progress).await? {
            return Ok(true);
        }
        // Held or stopped at this very moment: whoever goes on finds the evaluation by its name.
        let desk = self.desk().evaluations();
        let _ = evaluations::pause(desk, scope_of(&self.choice), &evaluation.id, "").await;
        Ok(false)
    }

    /// The evaluation of a round: the one that was started before a kill, or a new one.
    async fn evaluation(&self, number: usize, suite: Value) -> Result<Evaluation> {
        let name = format!("{} #{number} ({})", self.choice.name, self.choice.id);
        let scope = scope_of(&self.choice);
        let desk = self.desk().evaluations();
        let known = evaluations::list(desk, scope, Some(&name), None, 1).await?;
        if let Some(known) = known.into_iter().next() {
            return Ok(known);
        }
        let source = SuiteSource::Inline {
            document: suite,
            name,
        };
        evaluations::start(desk, scope, &source).await
    }

    async fn wait(&self) -> Result<Waited> {
        let Some(round) = self.progress.rounds.last() else {
            return Ok(Waited::NotOurs);
        };
        let mut looks = Looks::new(&self.app);
        let scope = scope_of(&self.choice);
        let mut is_first = true;
        loop {
            looks.next().await;
            if looks.server_stops() {
                return Ok(Waited::ServerStops);
            }
            // A worker that was thought dead ends here.
            if !self.hold.is_running(&self.app.db).await? {
                return Ok(Waited::NotOurs);
            }
            let desk = self.desk().evaluations();
            let evaluation = evaluations::find(desk, scope, &round.evaluation).await?;
            if evaluation.state == State::Paused && is_first {
                // The choice goes on, so what it waits for does, with what is left to spend.
                let left = self.budget_left().map(usd).filter(|left| *left > 0.0);
                unless_too_late(evaluations::resume(desk, scope, &evaluation.id, left).await)?;
            } else if !evaluation.state.is_active() {
                return Ok(Waited::Ended(Box::new(evaluation)));
            }
            is_first = false;
        }
    }

    /// Judges the round that has ended. True when the choice has, too.
    async fn conclude(&mut self, evaluation: &Evaluation) -> Result<bool> {
        let Some(round) = self.progress.rounds.last().cloned() else {
            return Ok(true);
        };
        let sheet = sheet_of(self.desk(), &self.choice, &round.models, evaluation).await?;
        if round.is_final {
            return self.finish(evaluation, round).await;
        }
        let task = self.choice.task.clone();
        let family = Family {
            rounds: u32::try_from(task.samples(self.progress.examples).len()).unwrap_or(u32::MAX),
            models: task.models.len() - self.progress.excluded.len(),
        };
        let scales = self.progress.scales;
        let judged =
            tokio::task::spawn_blocking(move || weigh::judge_round(&task, &sheet, scales, family));
        let judged = judged.await.map_err(AppError::internal)??;
        self.progress.scales = judged.scales;
        if let Some(last) = self.progress.rounds.last_mut() {
            *last = Round {
                done: true,
                compared: judged.compared,
                figures: judged.figures,
                dropped: judged.dropped,
                spent_usd: usd(evaluation.spent.0),
                ..round
            };
        }
        Ok(!store::write_progress(&self.app.db, &self.hold, &self.progress).await?)
    }

    /// Saves the result under the choice's name, and lets the choice go in the same transaction.
    async fn finish(&mut self, evaluation: &Evaluation, round: Round) -> Result<bool> {
        let task = self.choice.task.clone();
        let mut choice = self.choice.clone();
        choice.version = None;
        choice.progress = self.progress.clone();
        if let Some(last) = choice.progress.rounds.last_mut() {
            last.done = true;
        }
        let result = result_of(self.desk(), &choice, task.weights, &task.limits).await?;
        let result = result.ok_or_else(|| AppError::internal(anyhow::anyhow!("no result")))?;
        if let Some(last) = self.progress.rounds.last_mut() {
            let figures = result.finalists.iter().map(|one| one.figures.clone());
            *last = Round {
                done: true,
                compared: result.examples,
                figures: figures.collect(),
                spent_usd: usd(evaluation.spent.0),
                ..round
            };
        }
        let document = ChoiceDocument {
            choice: self.choice.id.clone(),
            dataset: digest_of(&self.progress).unwrap_or_else(|| base::Digest::of(b"")),
            excluded: self.progress.excluded.clone(),
            rounds: self.progress.rounds.clone(),
            result,
            task,
        };
        let content = serde_json::to_value(&document).map_err(AppError::internal)?;
        match self.save(&content).await {
            // A reference was deleted meanwhile; what was measured is still shown.
            Err(error) if error.status.is_client_error() => {
                let reason = format!("the result could not be saved: {}", explain(&error));
                self.let_go(State::Done, &reason).await?;
            }
            saved => saved?,
        }
        Ok(true)
    }

    /// Saves the result and lets the choice go, both or neither.
    async fn save(&self, content: &Value) -> Result<()> {
        let name: db::Name = self
            .choice
            .name
            .parse()
            .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("name"))?;
        let new = db::NewVersion {
            kind: KIND,
            name: &name,
            content,
            message: "",
        };
        let catalog = &self.app.catalog;
        let mut tx = self.app.db.begin_write().await?;
        let saved = catalog
            .save_made_in(&mut tx, scope_of(&self.choice), new)
            .await?;
        let version = Some(saved.version.number);
        let (hold, progress) = (&self.hold, &self.progress);
        if store::let_go(&mut tx, hold, State::Done, "", progress, version).await? {
            tx.commit().await?;
        }
        Ok(())
    }

    async fn let_go(&self, to: State, reason: &str) -> Result<()> {
        let mut tx = self.app.db.begin_write().await?;
        store::let_go(&mut tx, &self.hold, to, reason, &self.progress, None).await?;
        Ok(tx.commit().await?)
    }
}
