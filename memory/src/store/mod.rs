//! The store as a pure state machine.

mod fault;
mod read;
mod requests;
mod side;
mod sweep;
mod tables;

#[cfg(test)]
mod tests;

pub use fault::StoreFault;
pub use tables::Tables;

use flowkit_core::record::WorkerRecord;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

use fault::Faults;
use side::Side;
use tables::Write;

/// A model of the store, in one of two modes.
///
/// **Durable** ([`StoreModel::durable`], like a database server): every reply stands for durable
/// state and a crash of the store loses nothing. `Sync` answers `Unsupported`.
///
/// **Two-phase** ([`StoreModel::two_phase`], like a store inside the engine's own process):
/// `Commit` answers when applied and `Sync` makes every applied commit durable.
///
/// | request | reads | after a crash |
/// |---|---|---|
/// | `Commit` | applied | lost if not synced: always a suffix |
/// | `ReadShard`, `LoadTasks`, `LookupTasks` (the owner), `ReadGrants`, `ReadAccepted` (they go with a grant) | applied | |
/// | `ReadArtifacts`, `ReadTask`, `ListTasks`, `ActiveRuns` (readers and people, whose effects outlive the process) | synced | |
/// | `ReadExpired`, `ReadRemains` (the owner) | applied | |
/// | `ReadStaged`, `SweepStaged` | own records; `SweepStaged` syncs every commit before it | kept |
/// | `RaiseEpoch` | applied; syncs every commit before it | kept |
/// | `Deployment`, `RegisterWorker`, `TakeScratch`, `PutScratch`, `StageArtifact` | own records; sync every commit before them | kept |
/// | `AcquireShard`, `ReleaseShard` | own records | gone: the process that held the lease is dead |
///
/// **Commit.** Another epoch, or no shard record yet: `Fenced`. The stored seq and id again:
/// `Committed` again. The next seq: applied, or `Invalid` with nothing written. Any other seq, or
/// the stored seq with another id, under the *current* epoch: `Conflict`. An owner that submits one
/// commit after the other and repeats each unchanged never sees `Conflict` for the commit it waits
/// for (only a late copy of an older one gets it, and nobody waits for that reply), and it sees
/// `Fenced` only when another start of an owner raised the epoch. So `Conflict` on the newest commit
/// means a broken owner or a store that lost commits: drop the shard's memory as for `Fenced`, and
/// say so.
///
/// **A record that cannot be read** sets its task aside in pages; lookups call the task
/// `Quarantined` with submission hash 0, grant reads tell its runs to end, `ReadTask` is `Corrupt`.
#[derive(Clone, Debug, Serialize)]
pub struct StoreModel {
    applied: Tables,
    side: Side,
    /// Set in two-phase mode.
    unsynced: Option<Unsynced>,
    #[serde(skip)]
    faults: Faults,
}

/// What two-phase mode keeps beside the applied state.
#[derive(Clone, Debug, Default, Serialize)]
struct Unsynced {
    /// State as of the last sync.
    durable: Tables,
    /// Commits applied since, in order.
    commits: VecDeque<Write>,
    /// How many the last syncs made durable, in all.
    made: u64,
    /// What the next sync covers at most, in all.
    covers: Option<u64>,
}

impl StoreModel {
    /// A store whose commits are durable when they are answered.
    #[must_use]
    pub fn durable() -> Self {
        Self {
            applied: Tables::default(),
            side: Side::default(),
            unsynced: None,
            faults: Faults::default(),
        }
    }

    /// A store whose commits are durable after `Sync`.
    #[must_use]
    pub fn two_phase() -> Self {
        Self {
            unsynced: Some(Unsynced::default()),
            ..Self::durable()
        }
    }

    /// What `Store::applies_before_sync` of this store answers.
    #[must_use]
    pub const fn applies_before_sync(&self) -> bool {
        self.unsynced.is_some()
    }

    /// The state that every applied commit has reached.
    #[must_use]
    pub const fn applied(&self) -> &Tables {
        &self.applied
    }

    /// The state that would survive a crash now.
    #[must_use]
    pub fn synced(&self) -> &Tables {
        match &self.unsynced {
            Some(unsynced) => &unsynced.durable,
            None => &self.applied,
        }
    }

    /// The newest incarnation of every worker id, as registered.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerRecord> {
        self.side.workers.values()
    }

    /// Commits that a crash now would lose.
    #[must_use]
    pub fn unsynced_commits(&self) -> usize {
        self.unsynced.as_ref().map_or(0, |u| u.commits.len())
    }

    /// How many commits there are in all: what a sync that begins now covers.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.unsynced
            .as_ref()
            .map_or(0, |u| u.made + u.commits.len() as u64)
    }

    /// The next `Sync` began when there were so many commits: it makes no more of them durable.
    pub fn sync_covers(&mut self, commits: u64) {
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.covers = Some(commits);
        }
    }

    /// The process dies and the store is opened again: everything unsynced is lost.
    pub fn crash(&mut self) {
        self.crash_keeping(0);
    }

    /// As [`StoreModel::crash`], but the first `commits` of the unsynced ones had reached the disk
    /// by themselves: a crash loses *some* suffix.
    pub fn crash_keeping(&mut self, commits: usize) {
        self.sync_commits(commits);
        let Some(unsynced) = &mut self.unsynced else {
            return;
        };
        if !unsynced.commits.is_empty() {
            self.faults.note("crash_lost_commits");
            unsynced.commits.clear();
            self.applied = unsynced.durable.clone();
        }
        self.side.drop_leases();
    }

    /// Injects a fault.
    pub fn inject(&mut self, fault: StoreFault) {
        if let StoreFault::Poison { task_id, node_id } = &fault {
            let applied = self.applied.poison(task_id, node_id.as_ref());
            let durable = self.unsynced.as_mut();
            let durable = durable.is_some_and(|u| u.durable.poison(task_id, node_id.as_ref()));
            if applied || durable {
                self.faults.note("poison");
            }
        }
        if let StoreFault::PoisonWorker { worker_id } = &fault
            && self.side.poison(worker_id)
        {
            self.faults.note("poison_worker");
        }
        self.faults.add(fault);
    }

    /// Ends every fault in force; records that cannot be read stay so.
    pub fn heal(&mut self) {
        self.faults.heal();
    }

    /// How often each kind of fault took effect, by name.
    #[must_use]
    pub const fn fired(&self) -> &BTreeMap<&'static str, u64> {
        &self.faults.fired
    }

    /// Makes the first `count` unsynced commits durable.
    fn sync_commits(&mut self, count: usize) {
        if let Some(unsynced) = &mut self.unsynced {
            let count = count.min(unsynced.commits.len());
            unsynced.made += count as u64;
            for write in unsynced.commits.drain(..count) {
                for orphan in unsynced.durable.write(&write) {
                    self.side.forget(&orphan);
                }
            }
        }
    }
}
