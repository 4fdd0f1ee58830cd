//! What a fault says of itself: when it is due, and which host it is about.

use super::{Fault, When};

impl Fault {
    /// When it is due; `None` for those that wait for a call.
    #[must_use]
    pub fn when(&self) -> Option<When> {
        Some(match self {
            Self::Crash { when, .. }
            | Self::PowerLoss { when, .. }
            | Self::Hold { when, .. }
            | Self::Stall { when, .. }
            | Self::Partition { when, .. }
            | Self::Away { when, .. }
            | Self::Slow { when, .. }
            | Self::Poison { when, .. }
            | Self::Shutdown { when, .. }
            | Self::WallStep { when, .. }
            | Self::StoreClock { when, .. }
            | Self::Gone { when, .. }
            | Self::Twin { when, .. } => *when,
            Self::RefuseCommit { .. } | Self::RefuseBatches { .. } | Self::RefuseTask { .. } => {
                return None;
            }
        })
    }

    /// Makes it about another host.
    pub(crate) fn rehost(&mut self, other: impl Fn(u32) -> u32) {
        match self {
            Self::Crash { host, .. }
            | Self::PowerLoss { host, .. }
            | Self::Hold { host, .. }
            | Self::Stall { host, .. }
            | Self::Partition { host, .. }
            | Self::Shutdown { host, .. }
            | Self::WallStep { host, .. }
            | Self::Gone { host, .. }
            | Self::Twin { host, .. } => *host = other(*host),
            _ => {}
        }
    }

    /// The host that it is about, if it is about one.
    #[must_use]
    pub fn host(&self) -> Option<u32> {
        match self {
            Self::Crash { host, .. }
            | Self::PowerLoss { host, .. }
            | Self::Hold { host, .. }
            | Self::Stall { host, .. }
            | Self::Partition { host, .. }
            | Self::Shutdown { host, .. }
            | Self::WallStep { host, .. }
            | Self::Gone { host, .. }
            | Self::Twin { host, .. } => Some(*host),
            _ => None,
        }
    }
}
