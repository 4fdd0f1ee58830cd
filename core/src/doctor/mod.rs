//! Is a deployment well? Pure checks over what is stored, heard and configured: each finding names
//! its subject and the cure.

mod memory;
mod setup;
mod stored;

#[cfg(test)]
mod tests;

pub use memory::memory_growth;
pub use setup::{
    Lapses, Listed, Timing, beats_sooner, conflicts, folding, roles, subscription, timing,
};
pub use stored::{faults_of, lapses};

use serde::Serialize;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Check {
    /// The store answers, and fast.
    Store,
    /// Every stream can be read, and holds nothing but messages of this deployment.
    Subscription,
    /// Every type of node that waits has a live worker.
    Roles,
    /// No two processes, and no two deployments, are in each other's way.
    Conflicts,
    /// Somebody folds every shard.
    Folding,
    /// Lease and heartbeats fit each other and the batches that were seen.
    Timing,
    /// Processes that were asked are ready.
    Health,
    /// No worker's memory grows without end.
    Memory,
    /// What is stored makes sense.
    State,
}

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check found it.
    pub check: Check,
    /// What it is about: a worker, a role, a shard, a task, a setting.
    pub subject: String,
    /// One sentence.
    pub finding: String,
    /// What to do about it.
    pub cure: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(
        check: Check,
        subject: impl Into<String>,
        finding: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            check,
            subject: subject.into(),
            finding: finding.into(),
            cure: cure.into(),
        }
    }
}
