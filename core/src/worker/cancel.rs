//! How a run that was told to end ends: which reason wins, until when, and with which event.

use crate::message::{Body, CancelReason, Cancelled, ReleaseReason, TaskReleased};
use crate::time::Mono;
use serde::Serialize;

/// Time a handler has after its lease lapsed. The owner waits at least a second longer than the
/// lease, so nobody else runs the node before this is over.
pub(super) const LAPSE_GRACE_MS: u64 = 500;
/// How long after its deadline a handler is given up.
pub(super) const ABANDON_AFTER_MS: u64 = 1_000;
/// Time for `cleanup` of a run that nobody told to end.
pub(super) const CLEANUP_MS: u64 = 30_000;
/// Grace of a cancel that is only known from the store.
pub(super) const CANCEL_GRACE_MS: u64 = 30_000;

/// A run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ending {
    pub(super) reason: CancelReason,
    pub(super) deadline: Mono,
    /// The handler was told this reason and deadline.
    pub(super) told: bool,
}

impl Ending {
    pub(super) const fn new(reason: CancelReason, deadline: Mono) -> Self {
        Self {
            reason,
            deadline,
            told: false,
        }
    }

    /// Adds another reason to end: the stronger reason and the earlier deadline hold. True if
    /// anything changed.
    pub(super) fn merge(&mut self, other: Self) -> bool {
        let before = (self.reason, self.deadline);
        if rank(other.reason) > rank(self.reason) {
            self.reason = other.reason;
        }
        self.deadline = self.deadline.min(other.deadline);
        let changed = before != (self.reason, self.deadline);
        self.told &= !changed;
        changed
    }

    /// The handler is not told before its deadline: the run ends between batches.
    pub(super) const fn waits_for_batch(&self) -> bool {
        matches!(self.reason, CancelReason::Yield)
    }

    /// The event that ends the run.
    pub(super) const fn event(&self) -> Body {
        event_of(self.reason)
    }
}

/// The terminal event of a run that ends for a reason. Only what the task's owner decided ends as
/// CANCELLED; everything else hands the node back.
pub(super) const fn event_of(reason: CancelReason) -> Body {
    let reason = match reason {
        CancelReason::UserRequest | CancelReason::UpstreamFailed | CancelReason::TaskFailed => {
            return Body::Cancelled(Cancelled { reason });
        }
        CancelReason::Fenced => ReleaseReason::Fenced,
        CancelReason::Yield => ReleaseReason::Yield,
        CancelReason::LeaseLapsed => ReleaseReason::LeaseLapsed,
        CancelReason::Shutdown => ReleaseReason::Shutdown,
        CancelReason::StoreUnreachable => ReleaseReason::StoreUnreachable,
    };
    Body::TaskReleased(TaskReleased { reason })
}

const fn rank(reason: CancelReason) -> u8 {
    match reason {
        CancelReason::Yield => 0,
        CancelReason::Shutdown => 1,
        CancelReason::UpstreamFailed => 2,
        CancelReason::TaskFailed => 3,
        CancelReason::UserRequest => 4,
        CancelReason::StoreUnreachable => 5,
        CancelReason::LeaseLapsed => 6,
        CancelReason::Fenced => 7,
    }
}
