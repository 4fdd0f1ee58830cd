//! A store and its model, side by side.

mod steps;

use flowkit_core::id::{DedupId, NodeId, ShardId, TaskId, Token};
use flowkit_core::port::{Commit, ErrorKind, PortError, Record, StoreReply, StoreRequest};
use flowkit_memory::{StoreFault, StoreModel};
use proptest::collection::vec;
use std::sync::Arc;

use super::explore::{Budget, Compared, Difference, explore};
use crate::StoreInstance;
use crate::records::{batch_uid, node_id, owner_id, task_id};
use steps::{Ask, Fault, NODES, OWNERS, Place, SHARDS, Step, TASKS, Write};

/// A lease that no sequence sees the end of.
const LEASE_MS: u64 = 3_600_000;

/// How the sequences are cut.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Most steps of a sequence.
    pub steps_max: usize,
    /// After so many steps, and at the end, everything is read.
    pub read_all_every: usize,
}

impl Shape {
    /// Reads cost nothing.
    pub const IN_PROCESS: Self = Self {
        steps_max: 50,
        read_all_every: 1,
    };
    /// Opening costs as much as a hundred requests.
    pub const SERVER: Self = Self {
        steps_max: 200,
        read_all_every: 50,
    };
}

/// Runs sequences on the model and on the store, each on a fresh instance.
///
/// # Errors
/// The first difference, as short as it could be made.
///
/// # Panics
/// If the instance cannot be used at all.
pub fn compare(
    budget: Budget,
    shape: Shape,
    open: impl AsyncFn() -> StoreInstance + Sync,
) -> Result<Compared, Difference> {
    let sequences = || vec(steps::step(), 1..shape.steps_max);
    explore(budget, sequences, |steps| {
        // Nothing is committed before a takeover: most sequences should get that far.
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            all.push(Step::Acquire(shard, 0));
            all.push(Step::Raise {
                shard,
                owner: 0,
                stale: false,
            });
        }
        all.extend(steps.iter().cloned());
        crate::run(async { Pair::new(open().await).run(&all, shape).await })
    })
}

struct Pair {
    store: StoreInstance,
    model: StoreModel,
    now_ms: u64,
    last: [Option<Commit>; SHARDS as usize],
    /// Shards in use. What a crash leaves of a two-phase store is told by one shard's record.
    shards: u32,
}

impl Pair {
    fn new(store: StoreInstance) -> Self {
        let (model, shards) = if store.is_two_phase() {
            (StoreModel::two_phase(), 1)
        } else {
            (StoreModel::durable(), SHARDS)
        };
        Self {
            store,
            model,
            now_ms: 0,
            last: Default::default(),
            shards,
        }
    }

    /// How many steps had an answer that was compared.
    async fn run(&mut self, steps: &[Step], shape: Shape) -> Result<u64, String> {
        let mut compared = 0;
        for (number, step) in steps.iter().enumerate() {
            let done = self.step(step).await;
            let done = done.map_err(|error| format!("step {number}, {step:?}: {error}"))?;
            compared += u64::from(done);
            if (number + 1).is_multiple_of(shape.read_all_every) || number + 1 == steps.len() {
                let same = self.read_all().await;
                same.map_err(|error| format!("after step {number}, {step:?}: {error}"))?;
            }
        }
        Ok(compared)
    }

    async fn read_all(&mut self) -> Result<(), String> {
        for ask in Ask::everything() {
            self.ask(&ask).await?;
        }
        Ok(())
    }

    /// False: the step makes no sense now, or has no answer.
    async fn step(&mut self, step: &Step) -> Result<bool, String> {
        let request = match step {
            Step::Crash => {
                self.crash().await?;
                return Ok(true);
            }
            Step::PassTime(ms) => {
                self.now_ms += ms;
                self.store.pass_time(*ms).await;
                return Ok(false);
            }
            Step::Rot(task, node) => return self.rot(*task, *node).await,
            Step::Ask(ask) => return self.ask(ask).await,
            Step::SweepStaged(_) if self.store.is_two_phase() => return Ok(false),
            // Nobody runs a node of a task that was swept; until that is synced, the model goes by less than
            // the order of writes.
            Step::Take(at, _) | Step::Put { at, .. } | Step::Stage { at, .. }
                if self.model.unsynced_commits() > 0 && self.is_swept(&task_id(TASKS[at.0])) =>
            {
                return Ok(false);
            }
            // Another body than the first is defined once the batch is accepted.
            Step::Stage {
                at,
                uid,
                token,
                other: true,
            } if !self.is_accepted(*at, *uid, *token) => return Ok(false),
            Step::Commit {
                shard,
                fault,
                writes,
            } => StoreRequest::Commit(Arc::new(self.commit(self.shard(*shard), *fault, writes))),
            Step::Acquire(shard, owner) => StoreRequest::AcquireShard {
                shard: self.shard(*shard),
                owner: owner_id(OWNERS[*owner]),
                ttl_ms: LEASE_MS,
            },
            Step::Release(shard, owner) => StoreRequest::ReleaseShard {
                shard: self.shard(*shard),
                owner: owner_id(OWNERS[*owner]),
            },
            Step::Raise {
                shard,
                owner,
                stale,
            } => {
                let shard = self.shard(*shard);
                let (epoch, commit_seq) = self.stored(shard);
                StoreRequest::RaiseEpoch {
                    shard,
                    owner: owner_id(OWNERS[*owner]),
                    epoch,
                    commit_seq: commit_seq.saturating_sub(u64::from(*stale)),
                }
            }
            Step::Sync(shard) => StoreRequest::Sync {
                shard: self.shard(*shard),
            },
            other => match steps::request(other) {
                Some(request) => request,
                None => return Ok(false),
            },
        };
        self.both(request).await?;
        Ok(true)
    }

    async fn ask(&mut self, ask: &Ask) -> Result<bool, String> {
        // A store may have synced more by itself than it was asked for.
        if ask.is_of_synced() && self.model.unsynced_commits() > 0 {
            return Ok(false);
        }
        // When exactly bodies go of what is not synced yet is the store's affair.
        if matches!(ask, Ask::Staged { .. }) && self.store.is_two_phase() {
            return Ok(false);
        }
        self.both(ask.request()).await?;
        Ok(true)
    }

    fn shard(&self, shard: u32) -> ShardId {
        ShardId(shard.min(self.shards - 1))
    }

    fn is_accepted(&self, (task, node): Place, uid: u64, token: u64) -> bool {
        let uid = batch_uid(&format!("u{uid}"));
        let (task, node) = (task_id(TASKS[task]), node_id(NODES[node]));
        let mut accepted = self.model.applied().artifacts(&task, &node);
        accepted.any(|a| a.batch_uid == uid && a.token == Token(token))
    }

    /// Epoch and commit_seq as the model has them.
    fn stored(&self, shard: ShardId) -> (u64, u64) {
        let shard = self.model.applied().shard(shard);
        shard.map_or((0, 0), |shard| (shard.epoch, shard.commit_seq))
    }

    /// A sweep of the task has begun.
    fn is_swept(&self, task: &TaskId) -> bool {
        self.model.applied().tombstone(task).is_some()
    }

    fn commit(&mut self, shard: ShardId, fault: Fault, writes: &[Write]) -> Commit {
        let (epoch, commit_seq) = self.stored(shard);
        let was_swept = |task: usize| self.is_swept(&task_id(TASKS[task]));
        let records = steps::records_of(writes, shard, self.shards, was_swept);
        // An engine writes nothing more of what is swept; a commit that failed before may hold it.
        let over = |commit: &Commit| {
            let mut records = commit.records.iter();
            records.any(|record| {
                let written = !matches!(record, Record::Tombstone(_) | Record::Remove(_));
                written && self.is_swept(record.task_id())
            })
        };
        let last = self.last[shard.0 as usize].clone();
        let last = last.filter(|last| last.seq <= commit_seq || !over(last));
        let seq = commit_seq + 1;
        let right = Commit {
            shard,
            epoch,
            seq,
            id: epoch * 1_000 + seq,
            next: steps::next_of(seq),
            last_entry: (seq % 2 == 0).then_some(DedupId(u64::MAX - seq)),
            records,
        };
        let commit = match (fault, last) {
            (Fault::Again, Some(last)) => last,
            (Fault::OldEpoch, _) => Commit {
                epoch: epoch.saturating_sub(1),
                ..right
            },
            (Fault::NewEpoch, _) => Commit {
                epoch: epoch + 1,
                ..right
            },
            (Fault::Gap, _) => Commit {
                seq: seq + 1,
                ..right
            },
            (Fault::OtherId, _) => Commit {
                seq: commit_seq,
                id: 9_999,
                ..right
            },
            (Fault::Twice, _) => Commit {
                records: [right.records.clone(), right.records.clone()].concat(),
                ..right
            },
            (Fault::None | Fault::Again, _) => right,
        };
        self.last[shard.0 as usize] = Some(commit.clone());
        commit
    }

    /// The store loses what it may; the model then loses the same.
    async fn crash(&mut self) -> Result<(), String> {
        self.store.crash_and_reopen().await;
        let shard = self.shard(0);
        let synced = self.model.synced().shard(shard);
        let synced = synced.map_or(0, |shard| shard.commit_seq);
        let left = self.store.call(StoreRequest::ReadShard { shard }).await;
        let Ok(StoreReply::Shard(left)) = left else {
            return Err(format!("no shard after a crash: {left:?}"));
        };
        let (_, applied) = self.stored(shard);
        if !(synced..=applied).contains(&left.commit_seq) {
            return Err(format!(
                "{synced} commits were synced of {applied}, {} are left",
                left.commit_seq
            ));
        }
        let kept = usize::try_from(left.commit_seq - synced).unwrap_or(usize::MAX);
        self.model.crash_keeping(kept);
        Ok(())
    }

    /// A record that is durable rots in both.
    async fn rot(&mut self, task: usize, node: Option<usize>) -> Result<bool, String> {
        if !self.store.caps.unreadable || self.store.is_two_phase() {
            return Ok(false);
        }
        let (task_id, node_id): (TaskId, Option<NodeId>) =
            (task_id(TASKS[task]), node.map(|node| node_id(NODES[node])));
        let is_there = match &node_id {
            Some(node_id) => self.model.applied().node(&task_id, node_id).is_some(),
            None => self.model.applied().task(&task_id).is_some(),
        };
        let rotten = self.store.make_unreadable(&task_id, node_id.as_ref()).await;
        if rotten != is_there {
            return Err(format!(
                "a record is there: store {rotten}, model {is_there}"
            ));
        }
        self.model.inject(StoreFault::Poison { task_id, node_id });
        Ok(true)
    }

    /// Asks both.
    async fn both(&mut self, request: StoreRequest) -> Result<(), String> {
        let expected = comparable(self.model.apply(self.now_ms, &request));
        let found = comparable(self.store.call(request.clone()).await);
        if expected == found {
            Ok(())
        } else {
            Err(format!(
                "{request:?}\n  store {found:?}\n  model {expected:?}"
            ))
        }
    }
}

/// A reply without what may legally differ: [`super`] says why.
fn comparable(result: Result<StoreReply, PortError>) -> Result<StoreReply, ErrorKind> {
    let mut reply = result.map_err(|error| error.kind)?;
    match &mut reply {
        StoreReply::Lease(lease) => lease.remaining_ms = 0,
        StoreReply::Tasks(page) => {
            let ages = page.tasks.iter_mut().flat_map(|task| &mut task.node_age_ms);
            ages.for_each(|age| *age = 0);
            let reasons = page.unreadable.iter_mut().map(|(_, reason)| reason);
            reasons.for_each(|reason| *reason = "".into());
        }
        StoreReply::Task(Some(task)) => task.node_age_ms.fill(0),
        StoreReply::Expired(page) => {
            page.tasks.sort_by(|a, b| a.task_id.cmp(&b.task_id));
            page.tasks.iter_mut().for_each(|task| task.written_ms = 0);
        }
        StoreReply::Workers(found) => {
            found.workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
            let reasons = found.unreadable.iter_mut().map(|(_, reason)| reason);
            reasons.for_each(|reason| *reason = "".into());
            found.unreadable.sort();
        }
        StoreReply::Nodes(nodes) => {
            nodes.sort_by(|a, b| (&a.task_id, &a.node_id).cmp(&(&b.task_id, &b.node_id)));
        }
        _ => {}
    }
    Ok(reply)
}
