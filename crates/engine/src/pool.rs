//! A small pool of threads for work that is split finely and waited for at once.
//!
//! One decoded token runs hundreds of matrix products of a few microseconds
//! each; waking a sleeping thread costs as much as such a product. So workers
//! spin for a moment after each job and sleep only when no new one comes. The
//! thread that calls [`Pool::run`] works too and returns when every task is done.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

/// How often a worker looks for a new job before it sleeps: a few tens of microseconds.
const SPINS_BEFORE_SLEEP: u32 = 4_000;

type Task = dyn Fn(usize) + Sync;

/// Threads that run tasks of the pool's owner.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
}

struct Shared {
    /// Job number in the upper half, tasks not yet taken in the lower half. One word, so that
    /// taking a task proves that the job it belongs to is still the current one.
    state: AtomicU64,
    unfinished: AtomicUsize,
    job: UnsafeCell<Option<*const Task>>,
    sleepers: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[expect(unsafe_code, reason = "the job pointer is handed to other threads")]
// SAFETY: `job` is written only by `Pool::run` while no task of any job is taken or can be taken
// (state's lower half and `unfinished` are 0), and read only by a thread that has taken a task of
// the current job, which `run` waits for. The task itself is `Sync`.
unsafe impl Sync for Shared {}
#[expect(unsafe_code, reason = "the job pointer is handed to other threads")]
// SAFETY: as for `Sync`.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool that computes on `threads` threads, the caller's included.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            unfinished: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            sleepers: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers: Vec<_> = (1..threads)
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                // Without the thread the pool is slower and still right.
                std::thread::Builder::new()
                    .name(format!("engine-compute-{index}"))
                    .spawn(move || shared.work())
                    .ok()
            })
            .collect();
        let handles = workers
            .iter()
            .map(|worker| worker.thread().clone())
            .collect();
        Self {
            shared,
            workers,
            handles,
        }
    }

    /// Threads that compute, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(count - 1)`, each once, on all threads, and waits for the last.
    /// Only the pool's owner may call it, one call at a time (hence `&mut`).
    pub(crate) fn run(&mut self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || count <= 1 {
            (0..count).for_each(task);
            return;
        }
        self.publish(count, task);
        while self.shared.run_one() {}
        let mut spins = 0u32;
        while self.shared.unfinished.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins.is_multiple_of(256) {
                // The worker with the last task may have lost its core to somebody else.
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a compute task panicked"
        );
    }

    #[expect(unsafe_code, reason = "the job pointer is handed to other threads")]
    fn publish(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared = &self.shared;
        // SAFETY: the lifetime is erased, and `run` does not return before the last task is done.
        let task: *const Task = unsafe { std::mem::transmute(std::ptr::from_ref(task)) };
        // SAFETY: no task is taken or can be taken now; see `Sync for Shared`.
        unsafe { *shared.job.get() = Some(task) };
        shared.unfinished.store(count, Ordering::Relaxed);
        let job = (shared.state.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        shared
            .state
            .store((job << 32) | count as u64, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.handles.iter().for_each(Thread::unpark);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.handles.iter().for_each(Thread::unpark);
        for worker in self.workers.drain(..) {
            // A worker only panics if a task did, and that panic was reported by then.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Takes and runs one task of the current job; false when none is left.
    #[expect(unsafe_code, reason = "the job pointer is handed to other threads")]
    fn run_one(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let left = state & 0xffff_ffff;
            if left == 0 {
                return false;
            }
            match self.state.compare_exchange_weak(
                state,
                state - 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    // SAFETY: a task of the current job was taken; see `Sync for Shared`.
                    if let Some(task) = unsafe { *self.job.get() } {
                        // SAFETY: `run` keeps the task alive until `unfinished` is 0.
                        let task = unsafe { &*task };
                        self.guard(|| task(left as usize - 1));
                    }
                    self.unfinished.fetch_sub(1, Ordering::Release);
                    return true;
                }
                Err(now) => state = now,
            }
        }
    }

    /// A panic must not leave `run` before the other tasks are done, nor kill a worker.
    fn guard(&self, task: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(task)).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn has_task(&self) -> bool {
        self.state.load(Ordering::SeqCst) & 0xffff_ffff != 0
    }

    fn work(&self) {
        let mut spins = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if self.run_one() {
                spins = 0;
            } else if spins < SPINS_BEFORE_SLEEP {
                spins += 1;
                std::hint::spin_loop();
            } else {
                // Announce the sleep first, look once more, then sleep: a job published in
                // between sees the announcement and wakes us.
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                if !self.has_task() && !self.stop.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                spins = 0;
            }
        }
    }
}

/// A slice whose disjoint parts are written by several tasks.
#[derive(Clone, Copy)]
pub(crate) struct SharedSlice<T> {
    start: *mut T,
    length: usize,
}

#[expect(unsafe_code, reason = "tasks write disjoint parts of one buffer")]
// SAFETY: access goes through `part`, whose callers promise that parts do not overlap.
unsafe impl<T: Send> Sync for SharedSlice<T> {}

impl<T> SharedSlice<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            length: slice.len(),
        }
    }

    /// The part `from..from + length`.
    ///
    /// # Safety
    /// No two parts in use at once may overlap, and the slice must outlive them.
    #[expect(unsafe_code, reason = "tasks write disjoint parts of one buffer")]
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn part(&self, from: usize, length: usize) -> &mut [T] {
        assert!(from + length <= self.length, "part outside the slice");
        // SAFETY: inside the slice, checked above; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_every_task_once_in_many_small_jobs() {
        let mut pool = Pool::new(4);
        for round in 0..5_000usize {
            let count = round % 17;
            let hits: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            pool.run(count, &|index| {
                hits[index].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1),
                "round {round}"
            );
        }
    }
}
