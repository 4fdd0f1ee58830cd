//! Every timer of the machine in one ordered structure. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::io::RunId;
use crate::id::{OpId, ShardId};
use crate::time::Mono;

/// What is due. At most one timer per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Stop believing in a run. First in order: it beats everything else due at the same moment.
    Lease(RunId),
    /// The store has been failing for a whole lease.
    StoreLost,
    /// The store has been failing long enough to say so.
    StoreAway,
    /// Tell a handler to drop, then give it up.
    Deadline(RunId),
    /// Start the process, or try again to.
    Boot,
    /// Read the inbox again after an error.
    Inbox,
    /// Announce the worker.
    Announce,
    /// Read the grants of active runs and ended tokens.
    GrantPoll,
    /// Read grants again after an error.
    GrantRetry,
    /// Heartbeat of one shard.
    Beat(ShardId),
    /// Repeat a store call after an error.
    Call(OpId),
    /// Send a run's events again after an error.
    Resend(RunId),
    /// Look for input a reader was not woken for.
    Pull(RunId),
    /// Send the last batch alone: `finalize` takes long.
    HeldBatch(RunId),
    /// The drain is over.
    DrainEnd,
}

/// Pending timers, by time.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Mono, Timer)>,
    by_key: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets (or moves) a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        if let Some(old) = self.by_key.insert(timer, at) {
            self.by_time.remove(&(old, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Sets a timer unless it is due earlier already.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Mono) {
        if self.at(timer).is_none_or(|old| at < old) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(old) = self.by_key.remove(&timer) {
            self.by_time.remove(&(old, timer));
        }
    }

    /// Forgets every timer of a run.
    pub(super) fn cancel_run(&mut self, run: RunId) {
        for timer in [
            Timer::Lease(run),
            Timer::Deadline(run),
            Timer::Resend(run),
            Timer::Pull(run),
            Timer::HeldBatch(run),
        ] {
            self.cancel(timer);
        }
    }

    pub(super) fn at(&self, timer: Timer) -> Option<Mono> {
        self.by_key.get(&timer).copied()
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    pub(super) fn clear(&mut self) {
        self.by_time.clear();
        self.by_key.clear();
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.by_time.len(), self.by_key.len());
    }
}
