//! The store's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the store's time comes from.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Wall time as of the opening, carried on by the monotonic clock.
    ///
    /// Ages of records outlive the process, so they need wall time; but a step of the system's
    /// clock while the process runs must not make a record older or younger than it is.
    System {
        opened: Instant,
        wall_at_open_ms: i64,
    },
    /// As a test says.
    #[cfg(any(test, feature = "testing"))]
    Test(TestClock),
}

impl Clock {
    pub(crate) fn system() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::System {
            opened: Instant::now(),
            wall_at_open_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Milliseconds that only ever grow, from any start. Leases use this one.
    pub(crate) fn mono_ms(&self) -> u64 {
        match self {
            Self::System { opened, .. } => {
                u64::try_from(opened.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Test(clock) => clock.now_ms(),
        }
    }

    /// Store time in milliseconds since the Unix epoch. Ages of records use this one.
    pub(crate) fn wall_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.mono_ms()).unwrap_or(i64::MAX);
        match self {
            Self::System {
                wall_at_open_ms, ..
            } => wall_at_open_ms.saturating_add(elapsed_ms),
            #[cfg(any(test, feature = "testing"))]
            Self::Test(_) => elapsed_ms,
        }
    }
}

/// A clock that stands still until a test moves it. Clones are the same clock.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug, Default)]
pub struct TestClock(std::sync::Arc<std::sync::atomic::AtomicU64>);

#[cfg(any(test, feature = "testing"))]
impl TestClock {
    /// Lets time pass, in milliseconds.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }

    fn now_ms(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}
