//! The clocks of a host as functions of true time.

use flowkit_core::time::{Mono, Now};

use crate::plan::Clock;

/// Two clocks of a host as a function of true time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostClock {
    plan: Clock,
    pub(crate) stepped_ms: i64,
}

const WALL_START_MS: i64 = 1_700_000_000_000;
const MILLION: i64 = 1_000_000;

impl HostClock {
    pub(crate) const fn new(plan: Clock) -> Self {
        Self {
            plan,
            stepped_ms: 0,
        }
    }

    /// What the clocks show at a true time in microseconds.
    pub(crate) fn now(&self, at: u64) -> Now {
        let wall = WALL_START_MS + i64::try_from(at / 1_000).unwrap_or(0);
        Now::new(
            self.mono(at),
            wall + self.plan.wall_offset_ms + self.stepped_ms,
        )
    }

    fn mono(&self, at: u64) -> u64 {
        let run = scaled(at, MILLION + self.plan.drift_ppm, MILLION) / 1_000;
        self.plan.mono_offset_ms + run
    }

    /// First true time in microseconds at which the monotonic clock shows `mono` or more.
    pub(crate) fn when(&self, mono: Mono) -> u64 {
        let run = mono.0.saturating_sub(self.plan.mono_offset_ms);
        let mut at = scaled(run, 1_000 * MILLION, MILLION + self.plan.drift_ppm);
        while self.mono(at) < mono.0 {
            at += 1;
        }
        at
    }
}

/// `value * by / of` for positive rates; in 64 bits as long as they hold it, since clocks are read at
/// every event.
fn scaled(value: u64, by: i64, of: i64) -> u64 {
    let (by, of) = (by.unsigned_abs(), of.unsigned_abs());
    match value.checked_mul(by) {
        Some(product) => product / of,
        None => {
            let exact = u128::from(value) * u128::from(by) / u128::from(of);
            u64::try_from(exact).unwrap_or(u64::MAX / 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_moment_first_when_it_says_so() {
        for drift_ppm in [-400, 0, 371] {
            let clock = HostClock::new(Clock {
                mono_offset_ms: 777,
                drift_ppm,
                wall_offset_ms: 0,
            });
            for mono in [777, 778, 1_000, 123_456] {
                let at = clock.when(Mono(mono));
                assert!(clock.now(at).mono.0 >= mono);
                assert!(at == 0 || clock.now(at - 1).mono.0 < mono);
            }
        }
    }
}
