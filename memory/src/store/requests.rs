//! Requests: each to its rule.

use flowkit_core::id::{BatchUid, Incarnation, NodeId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{Commit, ErrorKind, PortError, StoreReply, StoreRequest};
use flowkit_core::record::{RECORD_VERSION, ScratchRecord, ShardRecord, WorkerRecord};

use super::tables::Write;
use super::{StoreModel, fault};

impl StoreModel {
    /// Carries out one request at the store's own time `now_ms` (milliseconds on any clock; it
    /// decides leases and record ages, and nothing else).
    ///
    /// # Errors
    /// As documented at each [`StoreRequest`]; an error means that nothing changed.
    pub fn apply(&mut self, now_ms: u64, request: &StoreRequest) -> Result<StoreReply, PortError> {
        let StoreRequest::Commit(commit) = request else {
            let before = self.side.durable_writes;
            let reply = self.apply_other(now_ms, request);
            if self.side.durable_writes != before {
                // One log: what is durable carries everything applied before it along.
                self.sync_commits(usize::MAX);
            }
            return reply;
        };
        self.commit(now_ms, (**commit).clone())
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
        let orphans = self.applied.write(&write);
        match &mut self.unsynced {
            // What is beside the tables goes when the commit is durable.
            Some(unsynced) => unsynced.commits.push_back(write),
            None => orphans.iter().for_each(|orphan| self.side.forget(orphan)),
        }
        Ok(StoreReply::Committed { seq })
    }

    fn apply_other(
        &mut self,
        now_ms: u64,
        request: &StoreRequest,
    ) -> Result<StoreReply, PortError> {
        let op = request.name();
        self.faults.before(op, fault::writes(request))?;
        let error = |kind, detail: &str| Err(PortError::new(kind, op, detail));
        Ok(match request {
            StoreRequest::Commit(_) => unreachable!("`apply` took it"),
            StoreRequest::Deployment { propose } => {
                if self.side.deployment.is_none() {
                    self.side.deployment = Some(*propose);
                    self.side.durable_writes += 1;
                }
                StoreReply::Deployment(self.side.deployment.unwrap_or(*propose))
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
                let Some(unsynced) = &mut self.unsynced else {
                    return error(
                        ErrorKind::Unsupported,
                        "every commit is durable at its reply",
                    );
                };
                let covers = unsynced.covers.take();
                let count = covers.map_or(u64::MAX, |covers| covers.saturating_sub(unsynced.made));
                self.sync_commits(usize::try_from(count).unwrap_or(usize::MAX));
                let seq = self.synced().shard_or_zero(*shard).commit_seq;
                StoreReply::Synced { seq }
            }
            StoreRequest::LookupTasks { tasks } => {
                StoreReply::Answers(tasks.iter().map(|id| self.applied.lookup(id)).collect())
            }
            StoreRequest::ReadWorkers => StoreReply::Workers(self.side.all_workers()),
            StoreRequest::RegisterWorker {
                worker_id,
                expected,
                start_nonce,
                roles,
                capacity,
                inbox,
                worker_version,
            } => self.side.register(WorkerRecord {
                version: RECORD_VERSION,
                worker_id: worker_id.clone(),
                incarnation: expected.next(),
                start_nonce: *start_nonce,
                roles: roles.clone(),
                capacity: *capacity,
                inbox: *inbox,
                worker_version: worker_version.clone(),
            }),
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
                save_no,
                batch_uid,
                checkpoint,
            } => {
                let scratch = ScratchRecord {
                    token: *token,
                    save_no: *save_no,
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
            StoreRequest::ReadExpired {
                shard,
                failed,
                age_ms,
                after,
                limit,
            } => StoreReply::Expired(self.applied.expired(
                now_ms,
                (*shard, *failed),
                *age_ms,
                after.as_ref(),
                *limit,
            )),
            StoreRequest::ReadRemains { task_id } => {
                match self.applied.read_remains(now_ms, task_id) {
                    Ok(task) => StoreReply::Task(task.map(Box::new)),
                    Err(reason) => return error(ErrorKind::Corrupt, &reason),
                }
            }
            StoreRequest::ReadStaged { after, limit } => {
                let most = super::read::limit_of(*limit);
                let (tasks, more) = self.side.staged_tasks(after.as_ref(), most);
                StoreReply::Staged { tasks, more }
            }
            StoreRequest::SweepStaged {
                task_id,
                after,
                limit,
            } => {
                let (removed, next) =
                    self.applied
                        .sweep_staged(&mut self.side, task_id, after.as_ref(), *limit);
                StoreReply::Swept { removed, next }
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
