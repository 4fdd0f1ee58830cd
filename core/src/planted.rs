//! Bugs planted on purpose, to see that the simulator's checkers find them.
//!
//! Each bug is one line at the decision it spoils: `if is_planted(Bug::…)`. Without the feature
//! `planted-bugs` that is a constant `false`: no cost, no trace in a binary. With it, a bug is
//! planted for the calling thread ([`plant`]), so that threads may look for different ones.

macro_rules! bugs {
    ($($part:literal { $($bug:ident = $name:literal, $promise:literal, $about:literal;)+ })+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $about] $bug,)+)+
        }

        #[cfg(feature = "planted-bugs")]
        impl Bug {
            /// Every bug.
            pub const ALL: &[Self] = &[$($(Self::$bug,)+)+];

            /// Its id, as in `cargo xtask mutants --only ID`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$bug => $name,)+)+ }
            }

            /// The part of the engine that it spoils.
            #[must_use]
            pub const fn part(self) -> &'static str {
                match self { $($(Self::$bug => $part,)+)+ }
            }

            /// The promise that should be seen broken.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self { $($(Self::$bug => $promise,)+)+ }
            }

            /// What it does, in one line.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $($(Self::$bug => $about,)+)+ }
            }
        }
    };
}

bugs! {
    "lease" {
        LeaseRevived = "lease-revived", "single_owner",
            "A confirmation processed after the lease lapsed revives the run.";
        LeaseIgnored = "lease-ignored", "single_owner",
            "A worker does not stop a run whose lease lapsed.";
        ExpiredUnread = "expired-unread", "single_owner",
            "An owner expires a lease without reading its stream to the end first.";
    }
    "token check" {
        OldTokenAccepted = "old-token-accepted", "single_owner",
            "An owner takes events of a token that is not the current one.";
        GrantUnchecked = "grant-unchecked", "single_owner",
            "A worker takes a START although the store says that its token is not current.";
        FencedIgnored = "fenced-ignored", "single_owner",
            "A worker goes on with a run that it was told is fenced.";
    }
    "take once" {
        TakenTwice = "taken-twice", "single_owner",
            "A process takes a token again that it has ended.";
    }
    "seq" {
        CopyApplied = "copy-applied", "settle",
            "An event that stands in the stream twice is applied twice.";
        GapIgnored = "gap-ignored", "effect_once",
            "An event is applied although one before it is missing.";
    }
    "checkpoint" {
        CheckpointAhead = "checkpoint-ahead", "single_owner",
            "The checkpoint of an event is kept although its batch is not accepted.";
        CheckpointUncounted = "checkpoint-uncounted", "settle",
            "A checkpoint is stored without the number of batches behind it.";
        SavedLost = "saved-lost", "resume_point",
            "The batch that was in work does not get the checkpoint that was saved in it.";
        AcceptedAgain = "accepted-again", "resume_point",
            "A new holder does not skip batches that are accepted.";
    }
    "cursor" {
        CursorEarly = "cursor-early", "effect_once",
            "A reader's cursor moves with the first chunk of a batch, not with the last.";
        CursorOverAccepted = "cursor-over-accepted", "resume_point",
            "A reader's cursor counts batches of another source's half-done artifact as behind it.";
    }
    "fan-in" {
        FanInEarly = "fan-in-early", "start_rule",
            "A node that waits for all of its parents starts while one is open.";
        SkippedCounts = "skipped-counts", "start_rule",
            "A skipped parent counts like a finished one.";
    }
    "retry" {
        BackoffIgnored = "backoff-ignored", "retry_bounded",
            "A failed node is ready again at once.";
        PermanentRetried = "permanent-retried", "retry_bounded",
            "A permanent failure is tried again.";
        RetryOnceMore = "retry-once-more", "retry_bounded",
            "A node gets one attempt more than its policy says.";
        LossIsFailure = "loss-is-failure", "single_owner",
            "A lost lease counts as a failure of the handler.";
    }
    "cancel" {
        GrantAfterCancel = "grant-after-cancel", "cancel_final",
            "A run of a cancelled task that ends is granted anew.";
        CancelUnchecked = "cancel-unchecked", "cancel_final",
            "A worker's check of a START does not look at the cancel flag.";
        CancelAckedEarly = "cancel-acked-early", "cancel_final",
            "A cancel is acknowledged before its commit.";
        GraceIgnored = "grace-ignored", "cancel_final",
            "A handler that ignores its cancel is never dropped.";
    }
    "restart" {
        NewGrantsEnded = "new-grants-ended", "single_owner",
            "A new owner takes the grants of a worker's living process for those of a dead one.";
        AnyIncarnation = "any-incarnation", "single_owner",
            "A process takes commands that are for another incarnation of its worker.";
    }
    "readers" {
        NeverRecalled = "never-recalled", "settle",
            "A reader that waits for a source without a slot is never recalled.";
    }
    "takeover" {
        LoadedFirst = "loaded-first", "settle",
            "A new owner loads the tasks before it raises the shard epoch.";
    }
    "commit" {
        UnknownIsDone = "unknown-is-done", "settle",
            "A commit of unknown outcome is taken for made.";
        UnknownDropped = "unknown-dropped", "effect_once",
            "A commit of unknown outcome is dropped, and the next one sent in its place.";
        SubmitAckedEarly = "submit-acked-early", "no_lost_task",
            "A submission is acknowledged before its commit.";
        AckedUnsynced = "acked-unsynced", "no_lost_task",
            "An embedded engine acknowledges what is applied, but not synced.";
    }
    "sum" {
        SumUnchecked = "sum-unchecked", "settle",
            "The counts of TASK_DONE are not held against the accepted batches.";
    }
    "capacity" {
        OneSlotMore = "one-slot-more", "capacity",
            "A worker has one slot more than its capacity.";
        SlotsIgnored = "slots-ignored", "capacity",
            "An owner grants without looking at free slots.";
    }
}

#[cfg(feature = "planted-bugs")]
mod on {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static STRUCK: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants one bug for this thread, or none. Sets [`times_struck`] back to 0.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
        STRUCK.set(0);
    }

    /// How often the planted bug decided something since it was planted in this thread.
    #[must_use]
    pub fn times_struck() -> u64 {
        STRUCK.get()
    }

    /// A bug is planted in this thread.
    pub(crate) fn is_any() -> bool {
        PLANTED.get().is_some()
    }

    /// Asked last in a condition, so that what is counted are decisions that came out otherwise.
    pub(crate) fn is_planted(bug: Bug) -> bool {
        let planted = PLANTED.get() == Some(bug);
        if planted {
            STRUCK.set(STRUCK.get() + 1);
        }
        planted
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use on::{is_any, is_planted};
#[cfg(feature = "planted-bugs")]
pub use on::{plant, times_struck};

/// No bug is planted without the feature.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is_any() -> bool {
    false
}

/// No bug is planted without the feature.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}
