//! A run's lease on the worker's own clock: live until the send time of its last confirmed
//! heartbeat plus the lease's length.

use crate::planted::{Bug, is_planted};
use crate::time::Mono;
use serde::Serialize;

/// The lease of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lease {
    ttl_ms: u64,
    /// Live before this moment. Before the first heartbeat is confirmed: give up at this moment.
    until: Option<Mono>,
    confirmed: bool,
}

impl Lease {
    pub(super) const fn new(ttl_ms: u64) -> Self {
        Self {
            ttl_ms,
            until: None,
            confirmed: false,
        }
    }

    /// The first heartbeat leaves now: it must be confirmed before the returned moment.
    pub(super) fn ask(&mut self, sent: Mono) -> Mono {
        let until = sent.after(self.ttl_ms);
        *self.until.get_or_insert(until)
    }

    /// A heartbeat sent at `sent` is confirmed. Returns the new end, or `None` if that is too late
    /// or moves nothing.
    pub(super) fn confirm(&mut self, sent: Mono, now: Mono) -> Option<Mono> {
        let until = sent.after(self.ttl_ms);
        let late = until <= now || self.until.is_some_and(|old| old <= now);
        if late && !is_planted(Bug::LeaseRevived) {
            return None;
        }
        let until = if late { now.after(self.ttl_ms) } else { until };
        let until = if is_planted(Bug::LeaseFromAnswer) {
            now.after(self.ttl_ms)
        } else {
            until
        };
        self.confirmed = true;
        if self.until.is_some_and(|old| old >= until) {
            return self.until;
        }
        self.until = Some(until);
        self.until
    }

    /// A heartbeat of this run was confirmed in time, at least once.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}
