//! Planted bugs: proof that the search can fail.

pub use flowkit_core::planted::{Bug, Reach};

use crate::scope::Scope;
use crate::search::{Limits, Outcome, search};

/// The small scopes in which bugs are looked for, cheapest first.
pub const SCOPES_OF_BUGS: &[&str] = &[
    "plain",
    "cancel",
    "double",
    "delay",
    "restart",
    "owner-crash",
    "chain",
    "crash",
    "takeover",
    "pause",
];

/// Bugs of the machines that no scope shows, and what would be needed: docs/guide/exploration.md.
/// One that is found after all, or another one that is not, makes the hunt fail.
pub const SURVIVORS: &[&str] = &[
    // A confirmation that comes late, and a lease that lapses in between.
    "lease-from-answer",
    // Readers.
    "cursor-early",
    "cursor-over-accepted",
    "cursor-uncounted",
    "never-recalled",
    "source-unnamed",
    // More than one parent.
    "fan-in-early",
    "skipped-counts",
    // Handlers that fail.
    "backoff-ignored",
    "permanent-retried",
    "retry-once-more",
    "retry-lost",
    "wait-forgotten",
    // Batches that mark the result of their node.
    "mark-lost",
    // Grants that are lost again and again.
    "loss-once-more",
    "loss-once-less",
    // Handlers that ignore their cancel.
    "grace-ignored",
    "abandoned-free",
    // Several tasks, priorities, delays, limits.
    "priority-ignored",
    "delay-ignored",
    "limit-ignored",
    "limit-leaked",
    "limit-uncounted",
    "limit-unwoken",
    "starts-forgotten",
    "overload-taken",
    "other-graph-taken",
    // Tasks that are paused.
    "pause-ignored",
    "pause-acked-early",
    "pause-forgotten",
    "control-repeated",
    "resumed-idle",
    // Workers that are told to stop.
    "drain-takes",
    "drain-untold",
    "drain-unbounded",
    // Records that cannot be read.
    "rot-stops-load",
    "rot-hides-workers",
    "left-out-silent",
    // A task that the store refuses to set aside.
    "spared-forgotten",
    // Engines that stop.
    "never-begun-kept",
    // A cancel, and a new owner after it.
    "cancel-forgotten",
    // The embedded store.
    "acked-unsynced",
    // Totals and results are not looked at.
    "sum-unchecked",
    "totals-restart",
    "result-unstored",
    // More ready nodes than slots.
    "one-slot-more",
    "slots-ignored",
    "never-forgiven",
    // Vars, conditions and functions.
    "when-ignored",
    "when-of-nothing",
    "vars-unstored",
    "start-vars-lost",
    "incr-twice",
    "set-partly",
    "unset-unpruned",
    "mean-is-sum",
    "function-failure-lost",
    // Clients that wait.
    "wait-at-once",
    "settled-early",
    // Commits that are refused, entries that do not decode.
    "nobody-blamed",
    "dead-letter-stops",
    // Several shards.
    "peers-kept",
    "renewed-released",
    // A second task, made of the first one by a rerun.
    "kept-below",
    "rerun-of-live",
    "kept-unread",
    "rerun-vars-as-ended",
    "kept-vars-lost",
    // Retention: every scope ends with its task.
    "swept-early",
    "pointed-swept",
    "no-tombstone",
    "task-before-nodes",
    // Planted since the last hunt, for the simulator: not looked for here yet. Most spoil what no scope has.
    "any-waits",
    "count-short",
    "first-batch-ignored",
    "on-batch-ignored",
    "route-swapped",
    "handled-fails",
    "unhandled-passes",
    "failure-spares",
    "failure-untold",
    "permanent-on-ignored",
    "look-ignored",
    "look-misreads",
    "reason-mixed",
    "starts-unlimited",
    "never-polls",
    "proposal-ignored",
    "proposal-first",
    "strict-ignored",
    "end-unlooked",
    "input-lost",
    "staged-unsent",
    "staged-early",
    "bodies-kept",
    "announced-once",
    "announced-as-another",
    "announced-one-role",
    "announced-one-type",
    "announced-room",
    "announced-unversioned",
    "announced-leaving",
    "dedup-collides",
    "sync-covers-all",
    "room-untold",
    "merge-is-set",
    "merge-counts-last",
    "user-function-unknown",
    "sensitive-taken",
    // Several workers of one role with several slots.
    "first-by-name",
    // Functions of users, vars beyond their limits, readers.
    "user-detectors-ignored",
    "limit-of-vars-ignored",
    "listless-skipped",
];

/// Bugs that a scope shows, as the table of docs/guide/exploration.md has them.
pub fn found_by_the_guide() -> impl Iterator<Item = &'static str> {
    let guide = include_str!("../../docs/guide/exploration.md");
    let table = guide.split("## Planted bugs").nth(1).unwrap_or_default();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
}

/// Looks for a bug in the scopes, one after the other; the scope that shows it, with the way to it.
#[must_use]
pub fn hunt(bug: Bug, scopes: &[&str], limits: Limits) -> Option<(&'static Scope, Outcome)> {
    for name in scopes {
        let Some(scope) = Scope::named(name) else {
            continue;
        };
        let outcome = search(scope, limits, Some(bug));
        if outcome.counterexample.is_some() {
            return Some((scope, outcome));
        }
    }
    None
}
