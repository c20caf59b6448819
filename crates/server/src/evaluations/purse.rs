//! What an evaluation may still spend, while calls are under way whose price is not known yet.

use std::collections::HashMap;

use base::NanoUsd;

use super::call::Bill;

/// Until a call has shown what one costs, and as a margin afterwards.
const HOLD_MARGIN: f64 = 1.5;

/// Whose calls cost alike: a candidate, or an evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    Candidate(usize),
    Evaluator(usize),
}

/// Whether the next call may be made.
pub(super) enum Room {
    /// This much is kept back for it.
    Yes(i64),
    /// What others have kept back may be enough.
    WhenOthersEnded,
    /// Why it may not.
    No(String),
}

/// Money, in nano-dollars.
pub(super) struct Purse {
    /// What may be spent in all; none where anything may.
    budget: Option<i64>,
    spent: i64,
    /// What is kept back for calls that are under way.
    held: i64,
    /// By payer, the dearest call so far; below 0 where its price is not known.
    dearest: HashMap<Payer, i64>,
}

impl Purse {
    pub(super) fn new(budget_usd: Option<f64>, spent: NanoUsd) -> Self {
        Self {
            budget: budget_usd.map(nano),
            spent: spent.0,
            held: 0,
            dearest: HashMap::new(),
        }
    }

    /// Keeps back what a call may turn out to need. The first one of its payer holds all
    /// that is left, because nobody knows; it then runs alone.
    pub(super) fn hold(&mut self, payer: Payer) -> Room {
        let Some(budget) = self.budget else {
            return Room::Yes(0);
        };
        let room = self.room(budget, payer);
        if let Room::Yes(wanted) = room {
            if self.has_unpriced() {
                let reason = "the price of a model is not known, so the budget cannot be kept; add its price and resume";
                return Room::No(reason.to_owned());
            }
            self.held += wanted;
        }
        room
    }

    fn room(&self, budget: i64, payer: Payer) -> Room {
        let left = budget.saturating_sub(self.spent).saturating_sub(self.held);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "an estimate"
        )]
        let wanted = match self.dearest.get(&payer) {
            Some(dearest) => (*dearest as f64 * HOLD_MARGIN) as i64,
            None if self.held == 0 && left > 0 => return Room::Yes(left),
            None if self.held > 0 => return Room::WhenOthersEnded,
            None => return self.used_up(budget),
        };
        match (wanted <= left, self.held > 0) {
            (true, _) => Room::Yes(wanted),
            (false, true) => Room::WhenOthersEnded,
            (false, false) => self.used_up(budget),
        }
    }

    fn used_up(&self, budget: i64) -> Room {
        Room::No(format!(
            "the budget is used up: {} of {} are spent and the next call would not fit",
            NanoUsd(self.spent),
            NanoUsd(budget)
        ))
    }

    fn has_unpriced(&self) -> bool {
        self.dearest.values().any(|cost| *cost < 0)
    }

    /// A call has ended, whatever came of it: what was kept back for it is free.
    pub(super) fn release(&mut self, held: i64) {
        self.held -= held;
    }

    pub(super) fn pay(&mut self, payer: Payer, bill: Bill) {
        self.spent = self.spent.saturating_add(bill.spent);
        let dearest = self.dearest.entry(payer).or_insert(0);
        *dearest = match bill.unpriced {
            0 => (*dearest).max(bill.spent),
            // Marks that this payer's price is not known.
            _ => -1,
        };
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "budgets are at most a million dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}
