//! The clocks of a process, as the machines take them.

use flowkit_core::time::{Mono, Now};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Monotonic time since this process's engine was made, and wall time.
///
/// The monotonic part follows tokio's clock, so paused and simulated time work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            base: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: Mono(millis(self.base.elapsed())),
            wall_ms: wall_ms(),
        }
    }

    /// When the monotonic clock reads `mono`.
    pub(crate) fn instant_of(&self, mono: Mono) -> Instant {
        // `Instant` arithmetic fails on overflow only; no timer is set for centuries.
        self.base
            .checked_add(Duration::from_millis(mono.0))
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

pub(crate) fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(millis(since)).unwrap_or(i64::MAX))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
