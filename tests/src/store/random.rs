//! Random sequences of requests and crashes, against the plain model.
//!
//! What may differ is left out: how much store time passed, and how much of what was not synced a
//! crash took (any suffix is right; the model then loses the same).

use flowkit_core::id::{Incarnation, Offset, ShardId, Token};
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{Commit, ErrorKind, PortError, Record, StoreReply, StoreRequest};
use flowkit_core::record::ArtifactRecord;
use flowkit_memory::StoreModel;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LONG_MS, SHARD};
use crate::StoreInstance;
use crate::records::{
    IntoRecord, artifact, batch_uid, granted, json, node, node_id, owner_id, settled_task, task,
    task_id, worker_id,
};

const TASKS: [&str; 3] = ["t", "t2", "ü"];
const NODES: [&str; 2] = ["a", "a/b"];
const OWNERS: [&str; 2] = ["one", "two"];
const WORKERS: [&str; 2] = ["w1", "w2"];

/// One step; numbers are indexes into the names above.
#[derive(Clone, Debug)]
enum Step {
    Acquire(usize),
    Release(usize),
    Raise {
        owner: usize,
        stale: bool,
    },
    Commit {
        fault: Fault,
        writes: Vec<Write>,
    },
    Sync,
    Crash,
    PassTime(u64),
    Register(usize, u64, u64),
    Take(Place, u64),
    Put(Place, u64, u64),
    Stage {
        at: Place,
        uid: u64,
        token: u64,
        other: bool,
    },
}

type Place = (usize, usize);

/// What is wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Again,
    OldEpoch,
    NewEpoch,
    Gap,
    OtherId,
}

#[derive(Clone, Debug)]
enum Write {
    /// A settled task, and none of its nodes granted.
    Settled(usize),
    /// A task with a node, granted or not.
    Running(Place, Option<(u64, usize)>),
    Accepted {
        at: Place,
        number: u64,
        uid: u64,
        /// 0 = no body, 1 = in the record, above = staged under that token.
        body: u64,
    },
}

fn place() -> impl Strategy<Value = Place> {
    (0..TASKS.len(), 0..NODES.len())
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        1 => (0..TASKS.len()).prop_map(Write::Settled),
        3 => (place(), proptest::option::of((1..4_u64, 0..WORKERS.len())))
            .prop_map(|(at, grant)| Write::Running(at, grant)),
        3 => (place(), 1..4_u64, 1..4_u64, 0..4_u64)
            .prop_map(|(at, number, uid, body)| Write::Accepted { at, number, uid, body }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        12 => Just(Fault::None),
        2 => Just(Fault::Again),
        1 => Just(Fault::OldEpoch),
        1 => Just(Fault::NewEpoch),
        1 => Just(Fault::Gap),
        1 => Just(Fault::OtherId),
    ];
    prop_oneof![
        2 => (0..OWNERS.len()).prop_map(Step::Acquire),
        1 => (0..OWNERS.len()).prop_map(Step::Release),
        2 => (0..OWNERS.len(), proptest::bool::weighted(0.2))
            .prop_map(|(owner, stale)| Step::Raise { owner, stale }),
        10 => (fault, vec(write(), 0..4)).prop_map(|(fault, writes)| Step::Commit { fault, writes }),
        2 => Just(Step::Sync),
        1 => Just(Step::Crash),
        1 => (1..30_u64).prop_map(Step::PassTime),
        2 => (0..WORKERS.len(), 0..3_u64, 0..3_u64)
            .prop_map(|(worker, expected, nonce)| Step::Register(worker, expected, nonce)),
        2 => (place(), 1..4_u64).prop_map(|(at, token)| Step::Take(at, token)),
        2 => (place(), 1..4_u64, 1..4_u64).prop_map(|(at, token, uid)| Step::Put(at, token, uid)),
        3 => (place(), 1..4_u64, 2..4_u64, proptest::bool::weighted(0.2))
            .prop_map(|(at, uid, token, other)| Step::Stage { at, uid, token, other }),
    ]
}

/// Runs random sequences against the store and the model; each on a fresh instance.
///
/// # Panics
/// With the shortest sequence found on which they differ.
pub fn matches_the_model(open: impl AsyncFn() -> StoreInstance) {
    if let Some(difference) = find_difference(64, open) {
        panic!("{difference}");
    }
}

/// The same with a number of sequences, and the difference as text instead of a panic.
///
/// # Panics
/// If the instance cannot be used at all.
#[must_use]
pub fn find_difference(cases: u32, open: impl AsyncFn() -> StoreInstance) -> Option<String> {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let found = TestRunner::new(config).run(&vec(step(), 1..50), |steps| {
        // Nothing is committed before a takeover: most sequences should get that far.
        let mut all = vec![
            Step::Acquire(0),
            Step::Raise {
                owner: 0,
                stale: false,
            },
        ];
        all.extend(steps);
        let compared = crate::run(async { Pair::new(open().await).run(&all).await });
        compared.map_err(TestCaseError::fail)
    });
    match found {
        Ok(()) => None,
        Err(TestError::Fail(reason, steps)) => Some(format!("{reason}\nafter {steps:#?}")),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// A store and the model of it, side by side.
struct Pair {
    store: StoreInstance,
    model: StoreModel,
    now_ms: u64,
    last: Option<Commit>,
}

impl Pair {
    fn new(store: StoreInstance) -> Self {
        let model = if store.is_two_phase() {
            StoreModel::two_phase()
        } else {
            StoreModel::durable()
        };
        Self {
            store,
            model,
            now_ms: 0,
            last: None,
        }
    }

    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            let done = self.step(step).await;
            done.map_err(|error| format!("step {number}, {step:?}: {error}"))?;
            for request in self.reads() {
                let same = self.both(request).await;
                same.map_err(|error| format!("after step {number}, {step:?}: {error}"))?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Crash => return self.crash().await,
            Step::PassTime(ms) => {
                self.now_ms += ms;
                self.store.pass_time(*ms).await;
                return Ok(());
            }
            Step::Commit { fault, writes } => {
                let commit = self.commit(*fault, writes);
                return self.both(StoreRequest::Commit(Arc::new(commit))).await;
            }
            _ => {}
        }
        match self.request(step) {
            Some(request) => self.both(request).await,
            None => Ok(()),
        }
    }

    /// The request of a step that is one; `None` if it makes no sense now.
    fn request(&self, step: &Step) -> Option<StoreRequest> {
        let at = |(task, node): Place| (task_id(TASKS[task]), node_id(NODES[node]));
        Some(match *step {
            Step::Crash | Step::PassTime(_) | Step::Commit { .. } => return None,
            Step::Acquire(owner) => StoreRequest::AcquireShard {
                shard: SHARD,
                owner: owner_id(OWNERS[owner]),
                ttl_ms: LONG_MS,
            },
            Step::Release(owner) => StoreRequest::ReleaseShard {
                shard: SHARD,
                owner: owner_id(OWNERS[owner]),
            },
            Step::Raise { owner, stale } => {
                let (epoch, commit_seq) = self.shard();
                StoreRequest::RaiseEpoch {
                    shard: SHARD,
                    owner: owner_id(OWNERS[owner]),
                    epoch,
                    commit_seq: commit_seq.saturating_sub(u64::from(stale)),
                }
            }
            Step::Sync => StoreRequest::Sync { shard: SHARD },
            Step::Register(worker, expected, nonce) => StoreRequest::RegisterWorker {
                worker_id: worker_id(WORKERS[worker]),
                expected: Incarnation(expected),
                start_nonce: nonce,
                roles: vec![],
                capacity: 1,
                inbox: 0,
                worker_version: "1".into(),
            },
            Step::Take(place, token) => {
                let (task_id, node_id) = at(place);
                StoreRequest::TakeScratch {
                    task_id,
                    node_id,
                    token: Token(token),
                }
            }
            Step::Put(place, token, uid) => {
                let (task_id, node_id) = at(place);
                StoreRequest::PutScratch {
                    task_id,
                    node_id,
                    token: Token(token),
                    save_no: uid % 3,
                    batch_uid: batch_uid(&format!("u{uid}")),
                    checkpoint: json(&format!("[{token},{uid}]")),
                }
            }
            Step::Stage {
                at: place,
                uid,
                token,
                other,
            } => {
                // Another body than the first is defined once the batch is accepted.
                if other && !self.is_accepted(place, uid, token) {
                    return None;
                }
                let (task_id, node_id) = at(place);
                StoreRequest::StageArtifact {
                    task_id,
                    node_id,
                    batch_uid: batch_uid(&format!("u{uid}")),
                    token: Token(token),
                    body: if other { json("0") } else { body(uid, token) },
                }
            }
        })
    }

    fn is_accepted(&self, (task, node): Place, uid: u64, token: u64) -> bool {
        let uid = batch_uid(&format!("u{uid}"));
        let (task, node) = (task_id(TASKS[task]), node_id(NODES[node]));
        let mut accepted = self.model.applied().artifacts(&task, &node);
        accepted.any(|a| a.batch_uid == uid && a.token == Token(token))
    }

    /// Epoch and commit_seq as the model has them.
    fn shard(&self) -> (u64, u64) {
        let shard = self.model.applied().shard(SHARD);
        shard.map_or((0, 0), |shard| (shard.epoch, shard.commit_seq))
    }

    fn commit(&mut self, fault: Fault, writes: &[Write]) -> Commit {
        let (epoch, commit_seq) = self.shard();
        let seq = commit_seq + 1;
        let right = Commit {
            shard: SHARD,
            epoch,
            seq,
            id: epoch * 1_000 + seq,
            next: Offset(seq * 3),
            last_entry: None,
            records: records_of(writes),
        };
        let commit = match (fault, &self.last) {
            (Fault::Again, Some(last)) => last.clone(),
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
            (Fault::None | Fault::Again, _) => right,
        };
        self.last = Some(commit.clone());
        commit
    }

    /// The store loses what it may; the model then loses the same.
    async fn crash(&mut self) -> Result<(), String> {
        self.store.crash_and_reopen().await;
        let synced = self.model.synced().shard(SHARD);
        let synced = synced.map_or(0, |shard| shard.commit_seq);
        let left = self
            .store
            .call(StoreRequest::ReadShard { shard: SHARD })
            .await;
        let Ok(StoreReply::Shard(left)) = left else {
            return Err(format!("no shard after a crash: {left:?}"));
        };
        let (_, applied) = self.shard();
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

    /// Every read there is, as far as its answer is settled.
    fn reads(&self) -> Vec<StoreRequest> {
        let tasks: Vec<_> = TASKS.map(task_id).into();
        let places = || {
            let nodes = |task| NODES.map(|node| (task_id(task), node_id(node)));
            TASKS.into_iter().flat_map(nodes)
        };
        let mut reads = vec![
            StoreRequest::ReadShard { shard: SHARD },
            StoreRequest::ReadWorkers,
            StoreRequest::LookupTasks { tasks },
            StoreRequest::ReadGrants {
                worker_id: worker_id(WORKERS[0]),
                nodes: places().collect(),
            },
        ];
        reads.extend([1, 9].map(|limit| StoreRequest::LoadTasks {
            shard: SHARD,
            after: None,
            limit,
        }));
        reads.push(StoreRequest::LoadTasks {
            shard: ShardId(1),
            after: None,
            limit: 9,
        });
        reads.extend(
            places().map(|(task_id, node_id)| StoreRequest::ReadAccepted {
                task_id,
                node_id,
                after: 1,
                limit: 9,
            }),
        );
        if self.model.unsynced_commits() > 0 {
            // A store may have synced more by itself than it was asked for.
            return reads;
        }
        reads.extend(
            places().map(|(task_id, node_id)| StoreRequest::ReadArtifacts {
                task_id,
                node_id,
                after: 0,
                limit: 9,
            }),
        );
        reads.extend(TASKS.map(|task| StoreRequest::ReadTask {
            task_id: task_id(task),
        }));
        reads.extend(WORKERS.map(|worker| StoreRequest::ActiveRuns {
            worker_id: worker_id(worker),
        }));
        reads.push(StoreRequest::ListTasks {
            after: Some(task_id(TASKS[0])),
            limit: 9,
        });
        reads
    }

    /// Asks both and compares what does not depend on the clock.
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

fn body(uid: u64, token: u64) -> Json {
    json(&format!("{{\"uid\":{uid},\"token\":{token}}}"))
}

/// At most one record per key, and grants only in tasks that are not settled.
fn records_of(writes: &[Write]) -> Vec<Record> {
    let mut tasks = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    let mut artifacts = Vec::new();
    for write in writes {
        match *write {
            Write::Settled(task) => {
                tasks.insert(task, settled_task(TASKS[task]));
                for (number, name) in NODES.into_iter().enumerate() {
                    nodes.insert((task, number), node(TASKS[task], name));
                }
            }
            Write::Running(at, grant) => {
                let (id, name) = (TASKS[at.0], NODES[at.1]);
                tasks.insert(at.0, task(id));
                let record = match grant {
                    Some((token, worker)) => granted(id, name, token, WORKERS[worker]),
                    None => node(id, name),
                };
                nodes.insert(at, record);
            }
            Write::Accepted {
                at,
                number,
                uid,
                body: kind,
            } => artifacts.push(accepted(at, number, uid, kind)),
        }
    }
    let tasks = tasks.into_values().map(IntoRecord::record);
    let nodes = nodes.into_values().map(IntoRecord::record);
    let artifacts = artifacts.into_iter().map(IntoRecord::record);
    tasks.chain(nodes).chain(artifacts).collect()
}

fn accepted((task, node): Place, number: u64, uid: u64, kind: u64) -> ArtifactRecord {
    let size = body(uid, kind).len() as u64;
    let artifact_body = match kind {
        0 => None,
        1 => Some(Artifact::Inline(json("[1]"))),
        _ => Some(Artifact::Staged(size)),
    };
    ArtifactRecord {
        token: Token(kind),
        ..artifact(
            TASKS[task],
            NODES[node],
            number,
            &format!("u{uid}"),
            artifact_body,
        )
    }
}

/// A reply without clock readings and without the words of errors.
fn comparable(result: Result<StoreReply, PortError>) -> Result<StoreReply, ErrorKind> {
    let mut reply = result.map_err(|error| error.kind)?;
    match &mut reply {
        StoreReply::Lease(lease) => lease.remaining_ms = 0,
        StoreReply::Tasks(page) => {
            let ages = page.tasks.iter_mut().flat_map(|task| &mut task.node_age_ms);
            ages.for_each(|age| *age = 0);
        }
        StoreReply::Task(Some(task)) => task.node_age_ms.fill(0),
        StoreReply::Workers(workers) => workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id)),
        StoreReply::Nodes(nodes) => {
            nodes.sort_by(|a, b| (&a.task_id, &a.node_id).cmp(&(&b.task_id, &b.node_id)));
        }
        _ => {}
    }
    Ok(reply)
}
