//! How far a pull is: bytes, speed, time left.
//!
//! Kept in memory only. A pull that a restart interrupts begins counting where
//! its partial file ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;

/// One look at a running pull.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
pub struct Progress {
    /// What is being done: `listing`, `downloading`, `copying`, `verifying`, `installing`.
    pub stage: Stage,
    /// The file at hand.
    pub file: String,
    /// Bytes that are here, of all files.
    pub done_bytes: u64,
    /// Bytes of all files, when it is known.
    pub total_bytes: Option<u64>,
    /// Over the last seconds.
    pub bytes_per_s: Option<u64>,
    /// At that speed.
    pub seconds_left: Option<u64>,
}

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for its turn.
    #[default]
    Queued,
    /// Asking the source what it has.
    Listing,
    /// Fetching files.
    Downloading,
    /// Reading what is there already, to continue it or check it.
    Verifying,
    /// Copying or unpacking files on this machine.
    Copying,
    /// Reading the model's facts and moving it into place.
    Installing,
}

/// Counts bytes and tells somebody, a few times a second.
pub(super) struct Meter<'a> {
    tell: &'a (dyn Fn(Progress) + Send + Sync),
    now: Progress,
    told: Option<Instant>,
    /// When, and how many bytes had come by then; the last few seconds.
    marks: VecDeque<(Instant, u64)>,
}

const TELL_EVERY: Duration = Duration::from_millis(200);
const SPEED_OVER: Duration = Duration::from_secs(8);

impl<'a> Meter<'a> {
    /// A meter at zero.
    pub(super) fn new(tell: &'a (dyn Fn(Progress) + Send + Sync)) -> Self {
        Self {
            tell,
            now: Progress::default(),
            told: None,
            marks: VecDeque::new(),
        }
    }

    /// Begins something else.
    pub(super) fn stage(&mut self, stage: Stage, file: &str) {
        self.now.stage = stage;
        file.clone_into(&mut self.now.file);
        self.tell_now();
    }

    /// How many bytes there will be.
    pub(super) fn total(&mut self, bytes: Option<u64>) {
        self.now.total_bytes = bytes;
    }

    /// Bytes that were here already: they count as done, not as speed.
    pub(super) fn found(&mut self, bytes: u64) {
        self.now.done_bytes += bytes;
        self.marks.clear();
        self.tell_now();
    }

    /// Bytes that have come.
    pub(super) fn add(&mut self, bytes: u64) {
        self.now.done_bytes += bytes;
        let now = Instant::now();
        self.marks.push_back((now, self.now.done_bytes));
        if self
            .told
            .is_none_or(|told| now.duration_since(told) >= TELL_EVERY)
        {
            self.tell_now();
        }
    }

    /// Bytes that came and are of no use.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.now.done_bytes = self.now.done_bytes.saturating_sub(bytes);
        self.marks.clear();
    }

    fn tell_now(&mut self) {
        let now = Instant::now();
        while self.marks.len() > 2
            && self
                .marks
                .front()
                .is_some_and(|mark| now.duration_since(mark.0) > SPEED_OVER)
        {
            self.marks.pop_front();
        }
        self.now.bytes_per_s = speed(&self.marks);
        self.now.seconds_left = match (self.now.total_bytes, self.now.bytes_per_s) {
            (Some(total), Some(speed)) if speed > 0 => {
                Some(total.saturating_sub(self.now.done_bytes).div_ceil(speed))
            }
            _ => None,
        };
        self.told = Some(now);
        (self.tell)(self.now.clone());
    }
}

fn speed(marks: &VecDeque<(Instant, u64)>) -> Option<u64> {
    let ((first_at, first), (last_at, last)) = (marks.front()?, marks.back()?);
    let millis = u64::try_from(last_at.duration_since(*first_at).as_millis()).ok()?;
    // Shorter than this says nothing.
    (millis >= 400).then(|| last.saturating_sub(*first) * 1000 / millis)
}
