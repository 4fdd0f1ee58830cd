//! Every timer of the machine in one ordered structure. Decides nothing.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::io::RunId;
use crate::id::{OpId, ShardId};
use crate::time::Mono;

/// What is due. At most one timer per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Timer {
    /// Stop believing in a run. Taken before everything else that is due, so that a process that
    /// was stalled does nothing for a run that has lapsed meanwhile.
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
    /// Announce it if it has room, as it had not when it was announced last.
    Room,
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
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Timers {
    leases: BTreeSet<(Mono, Timer)>,
    others: BTreeSet<(Mono, Timer)>,
    by_key: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Sets (or moves) a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Mono) {
        self.cancel(timer);
        self.by_key.insert(timer, at);
        self.of_kind(timer).insert((at, timer));
    }

    /// Sets a timer unless it is due earlier already.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Mono) {
        if self.at(timer).is_none_or(|old| at < old) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(old) = self.by_key.remove(&timer) {
            self.of_kind(timer).remove(&(old, timer));
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
        let (lease, other) = (self.leases.first(), self.others.first());
        lease.into_iter().chain(other).map(|(at, _)| *at).min()
    }

    /// Takes the earliest timer that is due, leases first.
    pub(super) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let due = |timers: &BTreeSet<(Mono, Timer)>| {
            let (at, timer) = *timers.first()?;
            (at <= now).then_some(timer)
        };
        let timer = due(&self.leases).or_else(|| due(&self.others))?;
        self.cancel(timer);
        Some(timer)
    }

    fn of_kind(&mut self, timer: Timer) -> &mut BTreeSet<(Mono, Timer)> {
        match timer {
            Timer::Lease(_) => &mut self.leases,
            _ => &mut self.others,
        }
    }

    pub(super) fn clear(&mut self) {
        self.leases.clear();
        self.others.clear();
        self.by_key.clear();
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.leases.len() + self.others.len(), self.by_key.len());
    }
}
