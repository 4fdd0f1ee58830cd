//! The clocks of a process, as the machines take them.

use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::time::{Mono, Now};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

use crate::environment::Environment;

/// Monotonic time since this process's engine was made, and wall time.
///
/// The monotonic part follows tokio's clock, so paused and simulated time work.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    base: Instant,
    environment: Option<Arc<dyn Environment>>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self::within(None)
    }

    pub(crate) fn within(environment: Option<Arc<dyn Environment>>) -> Self {
        Self {
            base: Instant::now(),
            environment,
        }
    }

    /// Time comes from a simulator.
    pub(crate) const fn is_simulated(&self) -> bool {
        self.environment.is_some()
    }

    pub(crate) fn now(&self) -> Now {
        let elapsed = self.base.elapsed();
        let mono = match &self.environment {
            None => millis(elapsed),
            Some(environment) => environment.mono_ms(elapsed),
        };
        let mono = if is_planted(Bug::WallForMono) {
            self.wall_ms().unsigned_abs()
        } else {
            mono
        };
        Now {
            mono: Mono(mono),
            wall_ms: self.wall_ms(),
        }
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        match &self.environment {
            None => system_wall_ms(),
            Some(environment) => environment.wall_ms(),
        }
    }

    /// When the monotonic clock reads `mono`.
    pub(crate) fn instant_of(&self, mono: Mono) -> Instant {
        let elapsed = match &self.environment {
            None => Duration::from_millis(mono.0),
            Some(environment) => environment.elapsed_at(mono.0),
        };
        if is_planted(Bug::WallForMono) {
            let left = mono.0.saturating_sub(self.wall_ms().unsigned_abs());
            return Instant::now() + Duration::from_millis(left.max(1));
        }
        let elapsed = if is_planted(Bug::DeadlineFar) {
            elapsed.saturating_mul(1_000)
        } else {
            elapsed
        };
        // `Instant` arithmetic fails on overflow only; no timer is set for centuries.
        self.base
            .checked_add(elapsed)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

fn system_wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(millis(since)).unwrap_or(i64::MAX))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
