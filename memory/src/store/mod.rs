//! The store as a pure state machine.

mod fault;
mod read;
mod side;
mod tables;

#[cfg(test)]
mod tests;

pub use fault::StoreFault;
pub use tables::Tables;

use flowkit_core::id::{BatchUid, Incarnation, NodeId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{Commit, ErrorKind, PortError, StoreReply, StoreRequest};
use flowkit_core::record::{RECORD_VERSION, ScratchRecord, ShardRecord, WorkerRecord};
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
/// | `RaiseEpoch` | applied; syncs every commit before it | kept |
/// | `Deployment`, `RegisterWorker`, `TakeScratch`, `PutScratch`, `StageArtifact` | own records | kept |
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
#[derive(Clone, Debug)]
pub struct StoreModel {
    applied: Tables,
    side: Side,
    /// Set in two-phase mode.
    unsynced: Option<Unsynced>,
    faults: Faults,
}

/// What two-phase mode keeps beside the applied state.
#[derive(Clone, Debug, Default)]
struct Unsynced {
    /// State as of the last sync.
    durable: Tables,
    /// Commits applied since, in order.
    commits: VecDeque<Write>,
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

    /// Carries out one request at the store's own time `now_ms` (milliseconds on any clock; it
    /// decides leases and record ages, and nothing else).
    ///
    /// # Errors
    /// As documented at each [`StoreRequest`]; an error means that nothing changed.
    pub fn apply(&mut self, now_ms: u64, request: &StoreRequest) -> Result<StoreReply, PortError> {
        match request {
            StoreRequest::Commit(commit) => self.commit(now_ms, (**commit).clone()),
            other => self.apply_other(now_ms, other),
        }
    }

    /// Carries out a commit without copying its records; otherwise as [`StoreModel::apply`].
    ///
    /// # Errors
    /// See [`StoreModel`].
    pub fn commit(&mut self, now_ms: u64, commit: Commit) -> Result<StoreReply, PortError> {
        const OP: &str = "commit";
        self.faults.before(OP, true)?;
        let error = |kind, detail: &str| Err(PortError::new(kind, OP, detail));
        let Some(stored) = self.applied.shard(commit.shard).copied() else {
            return error(ErrorKind::Fenced, "the shard was never taken over");
        };
        if stored.epoch != commit.epoch {
            let detail = format!("epoch is {}, not {}", stored.epoch, commit.epoch);
            return error(ErrorKind::Fenced, &detail);
        }
        if stored.commit_seq == commit.seq && stored.commit_id == commit.id && commit.seq > 0 {
            return Ok(StoreReply::Committed { seq: commit.seq });
        }
        if stored.commit_seq + 1 != commit.seq {
            let detail = format!(
                "commit_seq is {}, cannot commit {}",
                stored.commit_seq, commit.seq
            );
            return error(ErrorKind::Conflict, &detail);
        }
        if let Some(detail) = self.faults.refusal(&commit) {
            return error(ErrorKind::Invalid, detail);
        }
        if let Some(detail) = self.applied.refusal(&commit) {
            return error(ErrorKind::Invalid, &detail);
        }
        let write = Write::new(now_ms, commit);
        let seq = write.shard.commit_seq;
        self.applied.write(&write);
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.commits.push_back(write);
        }
        Ok(StoreReply::Committed { seq })
    }

    fn apply_other(
        &mut self,
        now_ms: u64,
        request: &StoreRequest,
    ) -> Result<StoreReply, PortError> {
        let op = op_of(request);
        self.faults.before(op, fault::writes(request))?;
        let error = |kind, detail: &str| Err(PortError::new(kind, op, detail));
        Ok(match request {
            StoreRequest::Commit(commit) => return self.commit(now_ms, (**commit).clone()),
            StoreRequest::Deployment { propose } => {
                StoreReply::Deployment(*self.side.deployment.get_or_insert(*propose))
            }
            StoreRequest::AcquireShard {
                shard,
                owner,
                ttl_ms,
            } => StoreReply::Lease(self.side.acquire(now_ms, *shard, owner, *ttl_ms)),
            StoreRequest::ReleaseShard { shard, owner } => {
                self.side.release(*shard, owner);
                StoreReply::Done
            }
            StoreRequest::ReadShard { shard } => {
                StoreReply::Shard(self.applied.shard_or_zero(*shard))
            }
            StoreRequest::RaiseEpoch {
                shard,
                owner,
                epoch,
                commit_seq,
            } => {
                let stored = self.applied.shard_or_zero(*shard);
                if !self.side.holds(now_ms, *shard, owner) {
                    return error(ErrorKind::Fenced, "the lease is not the asker's");
                }
                if (stored.epoch, stored.commit_seq) != (*epoch, *commit_seq) {
                    return error(ErrorKind::Fenced, "epoch or commit_seq moved on");
                }
                StoreReply::Shard(self.raise_epoch(stored))
            }
            StoreRequest::LoadTasks {
                shard,
                after,
                limit,
            } => {
                let page = self
                    .applied
                    .load_tasks(now_ms, *shard, after.as_ref(), *limit);
                StoreReply::Tasks(page)
            }
            StoreRequest::Sync { shard } => {
                if self.unsynced.is_none() {
                    return error(
                        ErrorKind::Unsupported,
                        "every commit is durable at its reply",
                    );
                }
                self.sync_commits(usize::MAX);
                let seq = self.applied.shard_or_zero(*shard).commit_seq;
                StoreReply::Synced { seq }
            }
            StoreRequest::LookupTasks { tasks } => {
                StoreReply::Answers(tasks.iter().map(|id| self.applied.lookup(id)).collect())
            }
            StoreRequest::ReadWorkers => {
                StoreReply::Workers(self.side.workers.values().cloned().collect())
            }
            StoreRequest::RegisterWorker {
                worker_id,
                roles,
                capacity,
                inbox,
                worker_version,
            } => StoreReply::Registered(self.side.register(WorkerRecord {
                version: RECORD_VERSION,
                worker_id: worker_id.clone(),
                incarnation: Incarnation(0),
                roles: roles.clone(),
                capacity: *capacity,
                inbox: *inbox,
                worker_version: worker_version.clone(),
            })),
            StoreRequest::ReadGrants { worker_id, nodes } => {
                let worker = self.side.workers.get(worker_id);
                let grants = nodes
                    .iter()
                    .map(|(task, node)| self.applied.grant(task, node));
                StoreReply::Grants {
                    incarnation: worker.map_or(Incarnation(0), |w| w.incarnation),
                    grants: grants.collect(),
                }
            }
            StoreRequest::ReadAccepted {
                task_id,
                node_id,
                after,
                limit,
            } => {
                let accepted = self.applied.accepted(task_id, node_id, *after, *limit);
                StoreReply::Accepted(accepted.map(|a| (a.number, a.batch_uid.clone())).collect())
            }
            StoreRequest::ReadArtifacts {
                task_id,
                node_id,
                after,
                limit,
            } => {
                let tables = self.synced();
                let found = tables.resolved(&self.side, (task_id, node_id), *after, *limit);
                match found {
                    Ok(artifacts) => StoreReply::Artifacts(artifacts),
                    Err(detail) => return error(ErrorKind::Corrupt, &detail),
                }
            }
            StoreRequest::TakeScratch {
                task_id,
                node_id,
                token,
            } => match self.side.take_scratch(task_id, node_id, *token) {
                Ok(scratch) => StoreReply::Scratch(scratch),
                Err(greater) => return error(ErrorKind::Fenced, &fenced_by(greater)),
            },
            StoreRequest::PutScratch {
                task_id,
                node_id,
                token,
                batch_uid,
                checkpoint,
            } => {
                let scratch = ScratchRecord {
                    token: *token,
                    batch_uid: Some(batch_uid.clone()),
                    checkpoint: checkpoint.clone(),
                };
                match self.side.put_scratch(task_id, node_id, scratch) {
                    Ok(()) => StoreReply::Done,
                    Err(greater) => return error(ErrorKind::Fenced, &fenced_by(greater)),
                }
            }
            StoreRequest::StageArtifact {
                task_id,
                node_id,
                batch_uid,
                token,
                body,
            } => {
                if self.accepted_otherwise(task_id, node_id, batch_uid, *token, body) {
                    return error(ErrorKind::Conflict, "accepted with another body");
                }
                // Before it is accepted a body may be replaced: a crash that took the grant with
                // it lets the next run of the node have the same token.
                self.side.stage(task_id, node_id, batch_uid, *token, body);
                StoreReply::Done
            }
            StoreRequest::ReadTask { task_id } => match self.synced().read_task(now_ms, task_id) {
                Ok(task) => StoreReply::Task(task.map(Box::new)),
                Err(reason) => return error(ErrorKind::Corrupt, &reason),
            },
            StoreRequest::ListTasks { after, limit } => {
                StoreReply::Tasks(self.synced().list_tasks(after.as_ref(), *limit))
            }
            StoreRequest::ActiveRuns { worker_id } => {
                StoreReply::Nodes(self.synced().active_runs(worker_id))
            }
        })
    }

    fn raise_epoch(&mut self, stored: ShardRecord) -> ShardRecord {
        let raised = ShardRecord {
            epoch: stored.epoch + 1,
            ..stored
        };
        self.sync_commits(usize::MAX);
        self.applied.set_shard(raised);
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.durable.set_shard(raised);
        }
        raised
    }

    /// Makes the first `count` unsynced commits durable.
    fn sync_commits(&mut self, count: usize) {
        if let Some(unsynced) = &mut self.unsynced {
            let count = count.min(unsynced.commits.len());
            for write in unsynced.commits.drain(..count) {
                unsynced.durable.write(&write);
            }
        }
    }

    /// The batch is accepted under this token, with another body than this one.
    fn accepted_otherwise(
        &self,
        task: &TaskId,
        node: &NodeId,
        uid: &BatchUid,
        token: Token,
        body: &Json,
    ) -> bool {
        let Some(row) = self.applied.node_row(task, node) else {
            return false;
        };
        let number = row.numbers.get(uid);
        let accepted = number.and_then(|number| row.artifacts.get(number));
        accepted.is_some_and(|artifact| artifact.token == token)
            && self.side.staged(task, node, uid, token) != Some(body)
    }
}

fn fenced_by(greater: Token) -> String {
    format!("token {greater} was there")
}

/// The name of a request in errors.
fn op_of(request: &StoreRequest) -> &'static str {
    match request {
        StoreRequest::Deployment { .. } => "deployment",
        StoreRequest::AcquireShard { .. } => "acquire_shard",
        StoreRequest::ReleaseShard { .. } => "release_shard",
        StoreRequest::ReadShard { .. } => "read_shard",
        StoreRequest::RaiseEpoch { .. } => "raise_epoch",
        StoreRequest::LoadTasks { .. } => "load_tasks",
        StoreRequest::Commit(_) => "commit",
        StoreRequest::Sync { .. } => "sync",
        StoreRequest::LookupTasks { .. } => "lookup_tasks",
        StoreRequest::ReadWorkers => "read_workers",
        StoreRequest::RegisterWorker { .. } => "register_worker",
        StoreRequest::ReadGrants { .. } => "read_grants",
        StoreRequest::ReadAccepted { .. } => "read_accepted",
        StoreRequest::ReadArtifacts { .. } => "read_artifacts",
        StoreRequest::TakeScratch { .. } => "take_scratch",
        StoreRequest::PutScratch { .. } => "put_scratch",
        StoreRequest::StageArtifact { .. } => "stage_artifact",
        StoreRequest::ReadTask { .. } => "read_task",
        StoreRequest::ListTasks { .. } => "list_tasks",
        StoreRequest::ActiveRuns { .. } => "active_runs",
    }
}
