//! Copies of calls whose answers nobody sees.
//!
//! They run beside the calls and must never slow them down: so many at a time,
//! one that finds no place is dropped and counted, and the gateway waits for them
//! when it closes, then ends them. A copy that is ended settles its record like
//! any other call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

/// Copies at a time.
const MOST: usize = 16;
/// What a copy gets to come to its end when the gateway closes.
const CLOSE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Shadows {
    /// None once closed.
    tasks: Mutex<Option<JoinSet<()>>>,
    dropped: AtomicU64,
}

impl Shadows {
    pub(crate) fn new() -> Self {
        Self {
            tasks: Mutex::new(Some(JoinSet::new())),
            dropped: AtomicU64::new(0),
        }
    }

    /// Starts a copy, if there is a place for it.
    pub(crate) fn start(&self, copy: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tasks) = tasks.as_mut() else {
            return;
        };
        while tasks.try_join_next().is_some() {}
        if tasks.len() < MOST {
            tasks.spawn(copy);
            return;
        }
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(dropped, "a shadow copy was dropped: too many run already");
    }

    /// Waits a moment for the copies that run, then ends them.
    pub(crate) async fn close(&self) {
        let tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.take()
        };
        let Some(mut tasks) = tasks else {
            return;
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}
