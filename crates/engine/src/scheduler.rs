//! The thread that owns a loaded model and serves its requests.

/// Tells a waiting scheduler that something changed.
#[derive(Debug, Default)]
pub(crate) struct Wakeup;

impl Wakeup {
    pub(crate) fn reader_moved(&self) {}
}
