//! Limits on calls and money, for jobs that must not go over them: asked before each
//! attempt, told after it.
//!
//! What an attempt will cost is known only afterwards. The first one of its kind therefore
//! holds all the money that is left and runs alone; later ones hold half as much again as
//! the dearest of their kind. Every attempt is kept under its trace's id until somebody
//! writes it down, so one that is found again after a kill counts once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::TraceId;
use tokio::sync::{Notify, watch};

use super::call::Bill;

/// What attempts of a kind hold, as a multiple of the dearest so far.
const MARGIN: i64 = 3;
const MARGIN_OF: i64 = 2;

/// Counts attempts and refuses those that could break a limit.
#[derive(Debug)]
pub(crate) struct Meter {
    state: Mutex<Counted>,
    changed: Notify,
}

/// An attempt that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paid {
    pub trace: TraceId,
    /// The kind of call.
    pub payer: String,
    /// Whether a provider took it.
    pub counts: bool,
    pub bill: Bill,
}

/// Why no more attempts begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// So many calls were made.
    Calls,
    /// So much money was spent.
    Money,
    /// A price is not known, so money cannot be limited.
    Price,
}

#[derive(Debug, Default)]
struct Counted {
    most_calls: Option<i64>,
    most_nano: Option<i64>,
    /// What is kept back for later.
    reserved_calls: i64,
    reserved_nano: i64,
    calls: i64,
    spent: i64,
    unpriced: i64,
    /// What runs.
    running: i64,
    held: i64,
    dearest: HashMap<String, i64>,
    known: HashSet<TraceId>,
    unwritten: Vec<Paid>,
    ended: Option<Ended>,
}

impl Meter {
    /// A meter with these limits on what was made before and what comes.
    pub(crate) fn new(
        most_calls: Option<i64>,
        most_nano: Option<i64>,
        before: impl Iterator<Item = Paid>,
    ) -> Arc<Self> {
        let mut state = Counted {
            most_calls,
            most_nano,
            ..Counted::default()
        };
        before.for_each(|paid| state.count(paid));
        state.unwritten.clear();
        // Somebody may have added the price since.
        state.unpriced = 0;
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps so much back from here on, and forgets that something was refused before.
    pub(crate) fn reserve(&self, calls: i64, nano: i64) {
        let mut state = self.lock();
        (state.reserved_calls, state.reserved_nano) = (calls, nano);
        state.ended = None;
    }

    /// Why attempts are refused, if they are.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.lock().ended
    }

    /// Calls that may be made still, beside those that are reserved.
    pub(crate) fn calls_left(&self) -> Option<i64> {
        let state = self.lock();
        let most = state.most_calls?;
        Some(most - state.reserved_calls - state.calls - state.running)
    }

    /// Nano-dollars that may be spent still, beside those that are reserved.
    pub(crate) fn money_left(&self) -> Option<i64> {
        let state = self.lock();
        let most = state.most_nano?;
        Some(most - state.reserved_nano - state.spent - state.held)
    }

    /// The dearest attempt of a kind so far.
    pub(crate) fn dearest(&self, payer: &str) -> Option<i64> {
        self.lock().dearest.get(payer).copied()
    }

    /// What was made and not written down yet.
    pub(crate) fn take_unwritten(&self) -> Vec<Paid> {
        std::mem::take(&mut self.lock().unwritten)
    }

    /// Counts an attempt that was found in telemetry, once.
    pub(super) fn found(&self, trace: TraceId, payer: &str, bill: Bill, counts: bool) {
        self.lock().count(Paid {
            trace,
            payer: payer.to_owned(),
            counts,
            bill,
        });
    }

    /// Waits until an attempt may begin. None when it may not, or when the job stops.
    pub(super) async fn admit(
        self: &Arc<Self>,
        payer: &str,
        stop: &watch::Receiver<bool>,
    ) -> Option<Admitted> {
        let mut stop = stop.clone();
        loop {
            let changed = self.changed.notified();
            match self.lock().hold(payer) {
                Room::Yes(held) => {
                    return Some(Admitted {
                        meter: Arc::clone(self),
                        payer: payer.to_owned(),
                        held,
                    });
                }
                Room::No => return None,
                Room::WhenOthersEnded => {}
            }
            tokio::select! {
                () = changed => {}
                _ = stop.wait_for(|stop| *stop) => return None,
            }
        }
    }
}

enum Room {
    Yes(i64),
    WhenOthersEnded,
    No,
}

impl Counted {
    fn count(&mut self, paid: Paid) {
        if !self.known.insert(paid.trace) {
            return;
        }
        self.calls += i64::from(paid.counts);
        self.spent = self.spent.saturating_add(paid.bill.spent);
        self.unpriced += paid.bill.unpriced;
        // What no provider took, or nobody knew the price of, says nothing about the next one.
        if paid.counts && paid.bill.unpriced == 0 {
            let dearest = self.dearest.entry(paid.payer.clone()).or_insert(0);
            *dearest = (*dearest).max(paid.bill.spent);
        }
        self.unwritten.push(paid);
    }

    /// Room for one more attempt, which is then held.
    fn hold(&mut self, payer: &str) -> Room {
        let refuse = |state: &mut Self, why| match state.running > 0 {
            // What runs may turn out to need less.
            true => Room::WhenOthersEnded,
            false => {
                state.ended = Some(why);
                Room::No
            }
        };
        if let Some(most) = self.most_calls
            && self.calls + self.running >= most - self.reserved_calls
        {
            return refuse(self, Ended::Calls);
        }
        let mut held = 0;
        if let Some(most) = self.most_nano {
            if self.unpriced > 0 {
                return refuse(self, Ended::Price);
            }
            let left = most
                .saturating_sub(self.reserved_nano)
                .saturating_sub(self.spent)
                .saturating_sub(self.held);
            held = match self.dearest.get(payer) {
                Some(dearest) => dearest.saturating_mul(MARGIN) / MARGIN_OF,
                None if self.held > 0 => return Room::WhenOthersEnded,
                None => left.max(1),
            };
            if held > left {
                return refuse(self, Ended::Money);
            }
        }
        self.running += 1;
        self.held += held;
        Room::Yes(held)
    }
}

/// An attempt that may be made. Dropped without being settled, it was not.
#[derive(Debug)]
pub(super) struct Admitted {
    meter: Arc<Meter>,
    payer: String,
    held: i64,
}

impl Admitted {
    /// Says what became of it.
    pub(super) fn settle(self, trace: TraceId, bill: Bill, counts: bool) {
        self.meter.lock().count(Paid {
            trace,
            payer: self.payer.clone(),
            counts,
            bill,
        });
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.meter.lock();
        state.running -= 1;
        state.held -= self.held;
        drop(state);
        self.meter.changed.notify_waiters();
    }
}
