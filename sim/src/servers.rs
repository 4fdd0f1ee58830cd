//! The two servers: the models, what the plan makes them refuse, and what comes to pass in them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::{NodeId, Offset, ShardId, TaskId, WorkerId};
use flowkit_core::message::{DecodeError, Envelope};
use flowkit_core::port::{
    Commit, ErrorKind, PortError, Record, StoreReply, StoreRequest, Stream, TransportReply,
    TransportRequest,
};
use flowkit_core::record::DeploymentRecord;
use flowkit_memory::{BrokerModel, Outcome, StoreFault, StoreModel};

use crate::history::{Place, What};
use crate::ledger::Fact;
use crate::observer::{CommitSeen, Observer};
use crate::plan::{Fault, Plan, Rotten};
use crate::strays::strays;

/// The store's clock shows this at the start of a run.
const STORE_START_MS: u64 = 5_000_000;

/// The store and the broker of a run. Times are true time in microseconds.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) store: StoreModel,
    pub(crate) broker: BrokerModel,
    /// How far the store's clock is ahead of true time.
    store_ahead_ms: i64,
    /// It has jumped, and no lease was asked for since.
    clock_jumped: bool,
    /// The host that raised the epoch of each shard last.
    owners: BTreeMap<ShardId, u32>,
    /// Streams whose log was lost, and nobody has noticed.
    lost: BTreeSet<Stream>,
    /// Tasks of which the store takes nothing, by index, and until when.
    refused: Vec<(u32, u64)>,
    /// Commits that reached the store.
    commits: u64,
    /// The store applies before it syncs, and dies with its process.
    embedded: bool,
}

impl Servers {
    pub(crate) fn new(plan: &Plan) -> Self {
        let world = &plan.world;
        Self {
            store: if world.embedded {
                StoreModel::two_phase()
            } else {
                StoreModel::durable()
            },
            broker: if world.embedded {
                BrokerModel::new()
            } else {
                BrokerModel::of_deployment(world.shards, world.inboxes)
            },
            store_ahead_ms: 0,
            clock_jumped: false,
            owners: BTreeMap::new(),
            lost: BTreeSet::new(),
            refused: Vec::new(),
            commits: 0,
            embedded: world.embedded,
        }
    }

    /// Creates the deployment.
    pub(crate) fn create(&mut self, shards: u32, inboxes: u32) {
        let propose = DeploymentRecord { shards, inboxes };
        let _ = self.store.apply(0, &StoreRequest::Deployment { propose });
    }

    fn store_ms(&self, now: u64) -> u64 {
        (STORE_START_MS + now / 1_000).saturating_add_signed(self.store_ahead_ms)
    }

    /// A request reaches the store.
    pub(crate) fn store(
        &mut self,
        now: u64,
        from: Place,
        request: StoreRequest,
        seen: &mut Observer,
    ) -> Result<StoreReply, PortError> {
        match request {
            StoreRequest::Commit(commit) => {
                self.commit(now, from, Arc::unwrap_or_clone(commit), seen)
            }
            request => self.other(now, from, &request, seen),
        }
    }

    fn commit(
        &mut self,
        now: u64,
        from: Place,
        commit: Commit,
        seen: &mut Observer,
    ) -> Result<StoreReply, PortError> {
        self.commits += 1;
        let host = from.host;
        let (shard, epoch, seq, next) = (commit.shard, commit.epoch, commit.seq, commit.next);
        let stored = self.store.applied().shard(shard).copied();
        let fresh =
            stored.is_some_and(|stored| stored.commit_seq + 1 == seq && stored.epoch == epoch);
        let refused = |kind| What::Refused {
            host,
            kind,
            epoch,
            seq,
        };
        if fresh && self.refuses(now, &commit, seen) {
            seen.note(now, refused(ErrorKind::Invalid));
            return Err(PortError::new(ErrorKind::Invalid, "commit", "simulated"));
        }
        let facts: Vec<Fact> = if fresh {
            commit.records.iter().map(Fact::of).collect()
        } else {
            Vec::new()
        };
        let result = self.store.commit(self.store_ms(now), commit);
        match &result {
            Ok(_) if fresh => {
                let commit = CommitSeen {
                    host,
                    epoch,
                    seq,
                    next,
                    facts,
                };
                seen.committed(now, commit, self.embedded);
            }
            Ok(_) => seen.fire("commit_repeated"),
            Err(error) => {
                let another = self.owners.get(&shard).is_some_and(|owner| *owner != host);
                if error.kind == ErrorKind::Fenced && another && seen.lives(from) {
                    seen.fire("zombie_owner");
                }
                seen.fire(match error.kind {
                    ErrorKind::Fenced => "commit_fenced",
                    ErrorKind::Conflict => "commit_conflict",
                    _ => "commit_refused",
                });
                seen.note(now, refused(error.kind));
            }
        }
        result
    }

    /// Whether a fault of the plan makes the store refuse this commit.
    fn refuses(&self, now: u64, commit: &Commit, seen: &mut Observer) -> bool {
        let mut family = None;
        let until = |until: u64| until.min(seen.plan.heal_ms * 1_000);
        for (task, _) in self.refused.iter().filter(|(_, at)| now < until(*at)) {
            let id = seen.plan.tasks[*task as usize].id.as_str();
            let mut ids = commit.records.iter().map(Record::task_id);
            if let Some(of) = ids.find(|of| of.as_str() == id) {
                seen.ledger.refuse(of.clone());
                family = Some("refuse_writes");
            }
        }
        for fault in &seen.plan.faults {
            match fault {
                Fault::RefuseCommit { nth } if *nth == self.commits => {
                    // One of them may be blamed, and set aside with its nodes as they are.
                    for record in &commit.records {
                        seen.ledger.blame(record.task_id().clone());
                    }
                    family = Some("refuse_commit");
                }
                Fault::RefuseBatches { task, node } => {
                    let id = &seen.plan.tasks[*task as usize].id;
                    let hit = commit.records.iter().any(|record| {
                        matches!(record, Record::Artifact(artifact)
                            if artifact.task_id.as_str() == id && artifact.node_id.as_str() == node)
                    });
                    if hit {
                        family = Some("refuse_batches");
                    }
                }
                Fault::RefuseTask { task } => {
                    let id = &seen.plan.tasks[*task as usize].id;
                    let hit = commit.records.iter().any(|record| {
                        matches!(record, Record::Task(task) if task.task_id.as_str() == id)
                    });
                    if hit {
                        family = Some("refuse_task");
                    }
                }
                _ => {}
            }
        }
        if let Some(family) = family {
            seen.fire(family);
        }
        family.is_some()
    }

    fn other(
        &mut self,
        now: u64,
        from: Place,
        request: &StoreRequest,
        seen: &mut Observer,
    ) -> Result<StoreReply, PortError> {
        let result = self.store.apply(self.store_ms(now), request);
        if self.embedded {
            // A durable write of its own carries every commit before it along.
            seen.ledger.synced(self.synced_seq());
        }
        match (request, &result) {
            (StoreRequest::RaiseEpoch { shard, .. }, Ok(StoreReply::Shard(record))) => {
                let what = What::EpochRaised {
                    host: from.host,
                    shard: *shard,
                    epoch: record.epoch,
                };
                self.owners.insert(*shard, from.host);
                seen.note(now, what);
                seen.ledger.synced(self.synced_seq());
            }
            (StoreRequest::AcquireShard { .. }, _) if self.clock_jumped => {
                self.clock_jumped = false;
                seen.fire("store_clock");
            }
            (
                StoreRequest::StageArtifact {
                    task_id,
                    node_id,
                    batch_uid,
                    token,
                    ..
                },
                Ok(_),
            ) => {
                seen.fire("large_artifact");
                let what = What::Staged {
                    task: task_id.clone(),
                    node: node_id.clone(),
                    uid: batch_uid.clone(),
                    token: *token,
                };
                seen.note(now, what);
            }
            (StoreRequest::SweepStaged { task_id, .. }, Ok(_)) => {
                let task = task_id.clone();
                seen.note(now, What::BodiesSwept { task });
            }
            (StoreRequest::ReleaseShard { shard, .. }, Ok(_)) => {
                let (host, shard) = (from.host, *shard);
                seen.note(now, What::Released { host, shard });
            }
            (StoreRequest::Sync { .. }, Ok(_)) => seen.ledger.synced(self.synced_seq()),
            (StoreRequest::RegisterWorker { worker_id, .. }, Ok(StoreReply::Registered(n))) => {
                let what = What::Registered {
                    place: from,
                    worker: worker_id.clone(),
                    incarnation: *n,
                };
                seen.note(now, what);
            }
            (
                StoreRequest::PutScratch {
                    task_id,
                    node_id,
                    token,
                    batch_uid,
                    checkpoint,
                    ..
                },
                Ok(_),
            ) => {
                let what = What::Kept {
                    task: task_id.clone(),
                    node: node_id.clone(),
                    token: *token,
                    uid: batch_uid.clone(),
                    value: checkpoint.clone(),
                };
                seen.note(now, what);
            }
            (StoreRequest::ReadGrants { nodes, .. }, Ok(_)) if !nodes.is_empty() => {
                let nodes: Rc<[_]> = Rc::from(nodes.as_slice());
                seen.note(now, What::GrantsRead { place: from, nodes });
            }
            _ => {}
        }
        result
    }

    /// Newest commit of the first shard that a crash would not undo.
    pub(crate) fn synced_seq(&self) -> u64 {
        let record = self.store.synced().shard(ShardId(0));
        record.map_or(0, |record| record.commit_seq)
    }

    /// The process died: commits that were not synced are gone, but for the first `keep`.
    pub(crate) fn lose_unsynced(&mut self, now: u64, keep: usize, seen: &mut Observer) {
        let unsynced = self.store.unsynced_commits();
        if keep < unsynced {
            seen.fire("unsynced_lost");
        }
        self.store.crash_keeping(keep.min(unsynced));
        // One shard per store is what an embedded engine has; with more, commits of all of them
        // carry their own seq, and the ledger is told by the newest surviving one of each.
        let changes = seen.ledger.undo_above(self.synced_seq());
        if !changes.is_empty() {
            seen.note(now, What::Undone { changes });
        }
    }

    /// The store's clock jumps; that strikes whoever asks for a lease next.
    pub(crate) fn step_clock(&mut self, now: u64, by_ms: i64, seen: &mut Observer) {
        self.store_ahead_ms += by_ms;
        self.clock_jumped = true;
        seen.note(now, What::StoreClock { by_ms });
    }

    /// From now on the store takes nothing of a task, until then or until faults are over.
    pub(crate) fn refuse_writes(&mut self, task: u32, until: u64) {
        self.refused.push((task, until));
    }

    /// A record can no longer be read, if it is there.
    pub(crate) fn rot(&mut self, now: u64, what: &Rotten, seen: &mut Observer) {
        let plan = seen.plan.clone();
        let (fault, of) = match what {
            Rotten::Worker { worker } => {
                let worker = plan.world.workers.get(*worker as usize);
                let Some(worker_id) = worker.and_then(|w| WorkerId::new(&w.id).ok()) else {
                    return;
                };
                (StoreFault::PoisonWorker { worker_id }, None)
            }
            Rotten::Task { task } | Rotten::Node { task, .. } => {
                let task = plan.tasks.get(*task as usize);
                let Some(task_id) = task.and_then(|task| TaskId::new(&task.id).ok()) else {
                    return;
                };
                let node_id = match what {
                    Rotten::Node { node, .. } => NodeId::new(node).ok(),
                    _ => None,
                };
                let of = (task_id.clone(), node_id.clone());
                (StoreFault::Poison { task_id, node_id }, Some(of))
            }
        };
        let before = self.store.fired().values().sum::<u64>();
        self.store.inject(fault);
        if self.store.fired().values().sum::<u64>() == before {
            return;
        }
        let Some((task, node)) = of else {
            return seen.fire("rot_worker");
        };
        seen.fire(if node.is_some() {
            "rot_node"
        } else {
            "rot_task"
        });
        seen.ledger.rot(task.clone(), node);
        seen.note(now, What::Rotten { task });
    }

    /// The log of an inbox is lost; the next message stands further on than any before.
    pub(crate) fn lose_inbox(&mut self, inbox: u32, seen: &Observer) -> Stream {
        let stream = Stream::Inbox(inbox.min(seen.plan.world.inboxes - 1));
        let (_, end) = self.bounds(stream);
        self.broker.set_start(stream, Offset(end.0 + 3));
        self.lost.insert(stream);
        stream
    }

    /// The log of a shard loses its newest entries, or is created anew.
    pub(crate) fn lose_log(
        &mut self,
        now: u64,
        shard: u32,
        newest: Option<u64>,
        seen: &mut Observer,
    ) -> Stream {
        let shard = ShardId(shard.min(seen.plan.world.shards - 1));
        let stream = Stream::Shard(shard);
        let (start, end) = self.bounds(stream);
        let from = match newest {
            Some(newest) => {
                let from = Offset(end.0.saturating_sub(newest).max(start.0));
                self.broker.truncate(stream, from);
                from
            }
            None => {
                self.broker.recreate(stream);
                Offset(0)
            }
        };
        self.lost.insert(stream);
        seen.note(now, What::LogLost { shard, from, end });
        stream
    }

    fn bounds(&mut self, stream: Stream) -> (Offset, Offset) {
        let request = TransportRequest::Bounds { stream };
        match self.broker.apply(0, &request) {
            Outcome::Done(Ok(TransportReply::Bounds { start, end })) => (start, end),
            _ => Default::default(),
        }
    }

    /// A request other than an append reaches the broker. A lost log strikes who falls out of it.
    pub(crate) fn broker(
        &mut self,
        now: u64,
        request: &TransportRequest,
        seen: &mut Observer,
    ) -> Outcome {
        let outcome = self.broker.apply(self.store_ms(now), request);
        if let (Outcome::Done(Err(error)), TransportRequest::Read { stream, .. }) =
            (&outcome, request)
            && error.kind == ErrorKind::Invalid
            && self.lost.remove(stream)
        {
            seen.fire(match stream {
                Stream::Shard(_) => "log_lost",
                _ => "inbox_lost",
            });
        }
        outcome
    }

    /// A message comes to stand in a stream.
    pub(crate) fn append(
        &mut self,
        now: u64,
        stream: Stream,
        envelope: &Arc<Envelope>,
        seen: &mut Observer,
    ) -> Result<TransportReply, PortError> {
        let request = TransportRequest::Append {
            stream,
            envelope: envelope.clone(),
        };
        let result = match self.broker.apply(self.store_ms(now), &request) {
            Outcome::Done(result) => result,
            Outcome::Wait => Err(PortError::new(ErrorKind::Retry, "append", "busy")),
        };
        if let Ok(TransportReply::Appended { offset }) = &result {
            let what = What::Appended {
                stream,
                offset: *offset,
                envelope: envelope.clone(),
            };
            seen.note(now, what);
        }
        result
    }

    /// Entries that nobody should trip over; returns their streams.
    pub(crate) fn poison(&mut self, now: u64, shard: u32, seen: &mut Observer) -> Vec<Stream> {
        seen.fire("poison");
        let all = strays(&seen.plan, shard, now);
        let mut streams = Vec::new();
        for (stream, strays) in all {
            let error = DecodeError::Envelope("simulated garbage".to_owned());
            let _ = self.broker.append_undecodable(now / 1_000, stream, error);
            for stray in strays {
                let _ = self.append(now, stream, &Arc::new(stray), seen);
            }
            streams.push(stream);
        }
        streams
    }
}
