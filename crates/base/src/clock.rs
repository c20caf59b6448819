//! Time and randomness as inputs.
//!
//! Nothing else in the workspace reads the system clock or makes random bytes;
//! `clippy.toml` forbids it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where the current time comes from. All times are UTC microseconds since the
/// Unix epoch, the unit of every `_at` and `_us` field in the product.
pub trait Clock: Send + Sync + 'static {
    /// Now, in microseconds since the Unix epoch.
    fn now_us(&self) -> i64;
}

/// Where unpredictable bytes come from: ids, tokens, salts, seeds.
pub trait Random: Send + Sync + 'static {
    /// Fills the buffer with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now_us(&self) -> i64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// The operating system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Without a working random source no token is safe to hand out, so stopping is the only
        // honest answer; the call fails only on kernels older than this program supports.
        getrandom::fill(bytes).expect("the operating system has no random source");
    }
}
