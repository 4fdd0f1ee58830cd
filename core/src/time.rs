//! Time as the machines see it: handed in by the driver, never read.

use serde::{Deserialize, Serialize};

/// A point on one process's monotonic clock, in milliseconds.
///
/// Leases and timers use this clock only. Two processes' values must never be compared.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

impl Mono {
    /// This point plus a duration in milliseconds (saturating).
    #[must_use]
    pub const fn after(self, duration_ms: u64) -> Self {
        Self(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds from `earlier` to this point; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks of a process at the moment an input is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// The monotonic clock. Every decision rests on this one.
    pub mono: Mono,
    /// Wall time in milliseconds since the Unix epoch. Shown to people, never compared.
    pub wall_ms: i64,
}

impl Now {
    /// Both clocks at once.
    #[must_use]
    pub const fn new(mono_ms: u64, wall_ms: i64) -> Self {
        Self {
            mono: Mono(mono_ms),
            wall_ms,
        }
    }
}
