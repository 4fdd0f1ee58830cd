//! The store's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time as of the opening, carried on by the monotonic clock.
///
/// Ages of records outlive the process, so they need wall time; but a step of the system's clock
/// while the process runs must not make a record older or younger than it is.
#[derive(Debug)]
pub(crate) struct Clock {
    opened: Instant,
    wall_at_open_ms: i64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            opened: Instant::now(),
            wall_at_open_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Milliseconds since the store was opened.
    pub(crate) fn mono_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Store time in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.mono_ms()).unwrap_or(i64::MAX);
        self.wall_at_open_ms.saturating_add(elapsed)
    }
}
