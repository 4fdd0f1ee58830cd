//! The generator: what may be asked of a store, and what may happen to it.

use flowkit_core::id::{Incarnation, Offset, ShardId, Token};
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{Record, Removal, StoreRequest};
use flowkit_core::record::{
    ArtifactRecord, DeploymentRecord, RECORD_VERSION, TaskState, TombstoneRecord,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::records::{
    IntoRecord, artifact, batch_uid, granted, json, node, node_id, settled_task, task, task_id,
    worker_id,
};

pub(super) const TASKS: [&str; 4] = ["t", "t2", "ü", "z"];
pub(super) const NODES: [&str; 2] = ["a", "a/b"];
pub(super) const OWNERS: [&str; 2] = ["one", "two"];
pub(super) const WORKERS: [&str; 2] = ["w1", "w2"];
/// Shards that are owned; the tasks of the first are the first ones.
pub(super) const SHARDS: u32 = 2;

/// The shard of a task, by its index.
pub(super) const fn shard_of(task: usize, shards: u32) -> ShardId {
    // A task belongs to one shard for good: what two shards make of one is left open.
    ShardId(if task < 3 { 0 } else { shards - 1 })
}

/// One step; numbers are indexes into the names above.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire(u32, usize),
    Release(u32, usize),
    Raise {
        shard: u32,
        owner: usize,
        stale: bool,
    },
    Commit {
        shard: u32,
        fault: Fault,
        writes: Vec<Write>,
    },
    Sync(u32),
    Crash,
    PassTime(u64),
    /// A record can no longer be decoded.
    Rot(usize, Option<usize>),
    Register(usize, u64, u64),
    Take(Place, u64),
    Put {
        at: Place,
        token: u64,
        uid: u64,
        save_no: u64,
    },
    Stage {
        at: Place,
        uid: u64,
        token: u64,
        other: bool,
    },
    /// Staged bodies of a task that nothing can point to any more.
    SweepStaged(usize),
    Ask(Ask),
}

/// A read, of what is there and of what is not.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Deployment(u32, u32),
    Shard(u32),
    Load {
        shard: u32,
        after: Option<usize>,
        limit: u32,
    },
    List {
        after: Option<usize>,
        limit: u32,
    },
    Lookup(Vec<usize>),
    Grants(usize, Vec<Place>),
    Accepted(Place, u64, u32),
    Artifacts(Place, u64, u32),
    Task(usize),
    Active(usize),
    Workers,
    /// What is left of a task that is swept.
    Remains(usize),
    /// Settled tasks, of a shard.
    Expired(u32, bool),
    Staged {
        after: Option<usize>,
        limit: u32,
    },
}

pub(super) type Place = (usize, usize);

/// What is wrong with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Again,
    OldEpoch,
    NewEpoch,
    Gap,
    OtherId,
    /// A key is written twice.
    Twice,
}

#[derive(Clone, Debug)]
pub(super) enum Write {
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
    /// A sweep of a task begins: nothing of it is written any more.
    Swept(usize),
    /// Part of a task that is swept goes.
    Gone(usize, Part),
}

/// A part that goes, with all that is below it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Artifacts(usize, u64, u64),
    Node(usize),
    Task,
}

impl Write {
    const fn task(&self) -> usize {
        match self {
            Self::Settled(task) | Self::Running((task, _), _) => *task,
            Self::Swept(task) | Self::Gone(task, _) => *task,
            Self::Accepted { at, .. } => at.0,
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    (0..TASKS.len(), 0..NODES.len())
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        1 => (0..TASKS.len()).prop_map(Write::Settled),
        3 => (place(), option::of((1..4_u64, 0..WORKERS.len())))
            .prop_map(|(at, grant)| Write::Running(at, grant)),
        3 => (place(), 1..4_u64, 1..4_u64, 0..4_u64)
            .prop_map(|(at, number, uid, body)| Write::Accepted { at, number, uid, body }),
        1 => (0..TASKS.len()).prop_map(Write::Swept),
        2 => (0..TASKS.len(), part()).prop_map(|(task, part)| Write::Gone(task, part)),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        2 => (0..NODES.len(), 1..4_u64, 1..5_u64)
            .prop_map(|(node, from, to)| Part::Artifacts(node, from, to)),
        1 => (0..NODES.len()).prop_map(Part::Node),
        1 => Just(Part::Task),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    // One more than there are: of what was never written.
    let task = || 0..=TASKS.len();
    let any_place = || (0..=TASKS.len(), 0..=NODES.len());
    let limit = || 0..5_u32;
    prop_oneof![
        1 => (1..5_u32, 1..5_u32).prop_map(|(shards, inboxes)| Ask::Deployment(shards, inboxes)),
        1 => (0..=SHARDS).prop_map(Ask::Shard),
        4 => (0..=SHARDS, option::of(task()), limit())
            .prop_map(|(shard, after, limit)| Ask::Load { shard, after, limit }),
        2 => (option::of(task()), limit()).prop_map(|(after, limit)| Ask::List { after, limit }),
        2 => vec(task(), 0..5).prop_map(Ask::Lookup),
        4 => (0..=WORKERS.len(), vec(any_place(), 0..6))
            .prop_map(|(worker, nodes)| Ask::Grants(worker, nodes)),
        2 => (any_place(), 0..4_u64, limit())
            .prop_map(|(at, after, limit)| Ask::Accepted(at, after, limit)),
        4 => (any_place(), 0..4_u64, limit())
            .prop_map(|(at, after, limit)| Ask::Artifacts(at, after, limit)),
        2 => task().prop_map(Ask::Task),
        2 => (0..=WORKERS.len()).prop_map(Ask::Active),
        1 => Just(Ask::Workers),
        2 => task().prop_map(Ask::Remains),
        2 => (0..=SHARDS, any::<bool>()).prop_map(|(shard, failed)| Ask::Expired(shard, failed)),
        1 => (option::of(task()), limit()).prop_map(|(after, limit)| Ask::Staged { after, limit }),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        12 => Just(Fault::None),
        2 => Just(Fault::Again),
        1 => Just(Fault::OldEpoch),
        1 => Just(Fault::NewEpoch),
        1 => Just(Fault::Gap),
        1 => Just(Fault::OtherId),
        1 => Just(Fault::Twice),
    ];
    let shard = || prop_oneof![3 => Just(0_u32), 1 => Just(SHARDS - 1)];
    prop_oneof![
        2 => (shard(), 0..OWNERS.len()).prop_map(|(shard, owner)| Step::Acquire(shard, owner)),
        1 => (shard(), 0..OWNERS.len()).prop_map(|(shard, owner)| Step::Release(shard, owner)),
        2 => (shard(), 0..OWNERS.len(), proptest::bool::weighted(0.2))
            .prop_map(|(shard, owner, stale)| Step::Raise { shard, owner, stale }),
        10 => (shard(), fault, vec(write(), 0..4))
            .prop_map(|(shard, fault, writes)| Step::Commit { shard, fault, writes }),
        2 => shard().prop_map(Step::Sync),
        1 => Just(Step::Crash),
        1 => (1..30_u64).prop_map(Step::PassTime),
        1 => (0..TASKS.len(), option::of(0..NODES.len()))
            .prop_map(|(task, node)| Step::Rot(task, node)),
        2 => (0..WORKERS.len(), 0..3_u64, 0..3_u64)
            .prop_map(|(worker, expected, nonce)| Step::Register(worker, expected, nonce)),
        2 => (place(), 1..4_u64).prop_map(|(at, token)| Step::Take(at, token)),
        2 => (place(), 1..4_u64, 1..4_u64, 0..3_u64)
            .prop_map(|(at, token, uid, save_no)| Step::Put { at, token, uid, save_no }),
        3 => (place(), 1..4_u64, 2..4_u64, proptest::bool::weighted(0.2))
            .prop_map(|(at, uid, token, other)| Step::Stage { at, uid, token, other }),
        1 => (0..TASKS.len()).prop_map(Step::SweepStaged),
        12 => ask().prop_map(Step::Ask),
    ]
}

/// A name, or one that nothing has.
fn name(names: &'static [&'static str], at: usize) -> &'static str {
    names.get(at).copied().unwrap_or("nobody")
}

impl Ask {
    /// What is read is of durable state only.
    pub(super) const fn is_of_synced(&self) -> bool {
        matches!(
            self,
            Self::Artifacts(..) | Self::Task(_) | Self::Active(_) | Self::List { .. }
        )
    }

    pub(super) fn request(&self) -> StoreRequest {
        let task = |at: usize| task_id(name(&TASKS, at));
        let after = |at: Option<usize>| at.map(task);
        let node = |at: usize| node_id(name(&NODES, at));
        let worker = |at: usize| worker_id(name(&WORKERS, at));
        match self {
            Self::Deployment(shards, inboxes) => StoreRequest::Deployment {
                propose: DeploymentRecord {
                    shards: *shards,
                    inboxes: *inboxes,
                },
            },
            Self::Shard(shard) => StoreRequest::ReadShard {
                shard: ShardId(*shard),
            },
            Self::Load {
                shard,
                after: at,
                limit,
            } => StoreRequest::LoadTasks {
                shard: ShardId(*shard),
                after: after(*at),
                limit: *limit,
            },
            Self::List { after: at, limit } => StoreRequest::ListTasks {
                after: after(*at),
                limit: *limit,
            },
            Self::Lookup(tasks) => StoreRequest::LookupTasks {
                tasks: tasks.iter().copied().map(task).collect(),
            },
            Self::Grants(at, nodes) => StoreRequest::ReadGrants {
                worker_id: worker(*at),
                nodes: nodes.iter().map(|at| (task(at.0), node(at.1))).collect(),
            },
            Self::Accepted(at, after, limit) => StoreRequest::ReadAccepted {
                task_id: task(at.0),
                node_id: node(at.1),
                after: *after,
                limit: *limit,
            },
            Self::Artifacts(at, after, limit) => StoreRequest::ReadArtifacts {
                task_id: task(at.0),
                node_id: node(at.1),
                after: *after,
                limit: *limit,
            },
            Self::Task(at) => StoreRequest::ReadTask { task_id: task(*at) },
            Self::Active(at) => StoreRequest::ActiveRuns {
                worker_id: worker(*at),
            },
            Self::Workers => StoreRequest::ReadWorkers,
            Self::Remains(at) => StoreRequest::ReadRemains { task_id: task(*at) },
            Self::Expired(shard, failed) => StoreRequest::ReadExpired {
                shard: ShardId(*shard),
                failed: *failed,
                age_ms: 0,
                after: None,
                limit: 99,
            },
            Self::Staged { after: at, limit } => StoreRequest::ReadStaged {
                after: after(*at),
                limit: *limit,
            },
        }
    }

    /// Every read there is.
    pub(super) fn everything() -> Vec<Self> {
        let tasks = 0..TASKS.len();
        let places = || (0..TASKS.len()).flat_map(|task| (0..NODES.len()).map(move |n| (task, n)));
        let mut reads = vec![
            Self::Workers,
            Self::Lookup(tasks.clone().collect()),
            Self::Grants(0, places().collect()),
            Self::List {
                after: Some(0),
                limit: 9,
            },
        ];
        for shard in 0..SHARDS {
            reads.push(Self::Shard(shard));
            reads.extend([false, true].map(|failed| Self::Expired(shard, failed)));
            reads.extend([1, 9].map(|limit| Self::Load {
                shard,
                after: None,
                limit,
            }));
        }
        reads.extend(places().map(|at| Self::Accepted(at, 1, 9)));
        reads.extend(places().map(|at| Self::Artifacts(at, 0, 9)));
        reads.extend(tasks.clone().map(Self::Remains));
        reads.extend(tasks.map(Self::Task));
        reads.extend((0..WORKERS.len()).map(Self::Active));
        reads
    }
}

/// The request of a step that is one, whatever came before it.
pub(super) fn request(step: &Step) -> Option<StoreRequest> {
    let at = |(task, node): Place| (task_id(TASKS[task]), node_id(NODES[node]));
    Some(match *step {
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
        Step::Put {
            at: place,
            token,
            uid,
            save_no,
        } => {
            let (task_id, node_id) = at(place);
            StoreRequest::PutScratch {
                task_id,
                node_id,
                token: Token(token),
                save_no,
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
            let (task_id, node_id) = at(place);
            StoreRequest::StageArtifact {
                task_id,
                node_id,
                batch_uid: batch_uid(&format!("u{uid}")),
                token: Token(token),
                body: if other { json("0") } else { body(uid, token) },
            }
        }
        Step::SweepStaged(task) => StoreRequest::SweepStaged {
            task_id: task_id(TASKS[task]),
            after: None,
            limit: 99,
        },
        _ => return None,
    })
}

fn body(uid: u64, token: u64) -> Json {
    json(&format!("{{\"uid\":{uid},\"token\":{token}}}"))
}

/// At most one record per key, of the shard's own tasks, and grants only in tasks that are not
/// settled. Of tasks whose sweep has begun, in this commit or before, nothing is written, and of others
/// nothing goes.
pub(super) fn records_of(
    writes: &[Write],
    shard: ShardId,
    shards: u32,
    was_swept: impl Fn(usize) -> bool,
) -> Vec<Record> {
    let mut tasks = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    let mut artifacts = Vec::new();
    let mut tombstones = BTreeMap::new();
    let mut removals = Vec::new();
    for write in writes {
        if let Write::Swept(task) = write {
            tombstones.insert(*task, tombstone(*task));
        }
    }
    let is_swept = |task: usize| was_swept(task) || tombstones.contains_key(&task);
    let writes = writes.iter();
    for write in writes.filter(|write| shard_of(write.task(), shards) == shard) {
        let goes = matches!(write, Write::Swept(_) | Write::Gone(..));
        if goes != is_swept(write.task()) {
            continue;
        }
        match *write {
            Write::Swept(_) => {}
            Write::Gone(task, part) => removals.extend(removals_of(task, part)),
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
    let tombstones = tombstones.into_iter();
    let tombstones = tombstones.filter(|(task, _)| shard_of(*task, shards) == shard);
    let records = tasks.chain(nodes).chain(artifacts);
    let records = records.chain(tombstones.map(|(_, tombstone)| tombstone));
    records.chain(removals).collect()
}

fn tombstone(task: usize) -> Record {
    Record::Tombstone(Box::new(TombstoneRecord {
        version: RECORD_VERSION,
        task_id: task_id(TASKS[task]),
        submission_hash: 77,
        state: TaskState::Cancelled,
    }))
}

/// Children go before what they are children of.
fn removals_of(task: usize, part: Part) -> Vec<Record> {
    let id = || task_id(TASKS[task]);
    let artifacts = |at: usize, from, to| Removal::Artifacts {
        task_id: id(),
        node_id: node_id(NODES[at]),
        from,
        to,
    };
    let node = |at: usize| {
        let whole = Removal::Node {
            task_id: id(),
            node_id: node_id(NODES[at]),
        };
        [artifacts(at, 1, 9), whole]
    };
    let removals = match part {
        Part::Artifacts(at, from, to) => vec![artifacts(at, from, to)],
        Part::Node(at) => node(at).into(),
        Part::Task => {
            let nodes = (0..NODES.len()).flat_map(node);
            nodes.chain([Removal::Task { task_id: id() }]).collect()
        }
    };
    removals.into_iter().map(Record::Remove).collect()
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

/// `next` of the commit of a seq.
pub(super) const fn next_of(seq: u64) -> Offset {
    Offset(seq * 3)
}
