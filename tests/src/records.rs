//! Ids and records for cases.

use flowkit_core::control::{TaskControl, TaskOptions};
use flowkit_core::id::{BatchUid, ClientId, Epoch, Incarnation, NodeId, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{Artifact, CancelReason};
use flowkit_core::port::Record;
use flowkit_core::record::{
    ArtifactRecord, Grant, GrantCancel, History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord,
    TaskState,
};
use std::collections::BTreeMap;
use std::str::FromStr;

/// An id of any kind.
///
/// # Panics
/// If the text is none.
#[must_use]
pub fn id<T: FromStr>(text: &str) -> T {
    text.parse()
        .ok()
        .unwrap_or_else(|| panic!("{text:?} is no id"))
}

/// A task id.
#[must_use]
pub fn task_id(text: &str) -> TaskId {
    id(text)
}

/// A node id.
#[must_use]
pub fn node_id(text: &str) -> NodeId {
    id(text)
}

/// A worker id.
#[must_use]
pub fn worker_id(text: &str) -> WorkerId {
    id(text)
}

/// An owner of shards.
#[must_use]
pub fn owner_id(text: &str) -> ClientId {
    id(text)
}

/// A batch uid.
#[must_use]
pub fn batch_uid(text: &str) -> BatchUid {
    id(text)
}

/// JSON text of a string of `bytes` letters.
#[must_use]
pub fn large_json(bytes: usize) -> Json {
    Json::encode(&"x".repeat(bytes)).unwrap_or_default()
}

/// A task that runs.
#[must_use]
pub fn task(id: &str) -> TaskRecord {
    let mut history = History::default();
    history.push(TaskState::Queued, 1_700_000_000_000, "submitted");
    history.push(TaskState::Running, 1_700_000_000_001, "granted");
    TaskRecord {
        version: RECORD_VERSION,
        task_id: task_id(id),
        submission_hash: u128::MAX - 7,
        graph: json(r#"{"nodes":[{"node_id":"a","type":"echo"}]}"#),
        vars: json(r#"{"k":[1,2.5,"ä"]}"#),
        idempotency_key: Some("key-1".into()),
        state: TaskState::Running,
        settled: false,
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: -5,
        history,
        control: TaskControl {
            no: 3,
            options: TaskOptions {
                priority: -7,
                start_delay_ms: 1 << 40,
                limit_key: Some("tenant-é".into()),
            },
        },
        vars_version: 0,
        submitted_vars: None,
        rerun: None,
    }
}

/// The same task, finished and settled.
#[must_use]
pub fn settled_task(id: &str) -> TaskRecord {
    TaskRecord {
        state: TaskState::Finished,
        settled: true,
        ..task(id)
    }
}

/// A node that waits.
#[must_use]
pub fn node(task: &str, node: &str) -> NodeRecord {
    NodeRecord {
        version: RECORD_VERSION,
        task_id: task_id(task),
        node_id: node_id(node),
        state: NodeState::Ready,
        epoch: Epoch(0),
        lease_no: Token(0),
        grant: None,
        last_seq: 0,
        accepted: 0,
        checkpoint: None,
        checkpoint_batches: 0,
        cursor: BTreeMap::new(),
        cursor_batches: 0,
        totals: BTreeMap::new(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 0,
        wait_ms: None,
        new_attempt: true,
        failure: None,
        history: History::default(),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }
}

/// A node granted to a worker.
#[must_use]
pub fn granted(task: &str, name: &str, token: u64, worker: &str) -> NodeRecord {
    NodeRecord {
        state: NodeState::Running,
        epoch: Epoch(1),
        lease_no: Token(token),
        grant: Some(Grant {
            worker_id: worker_id(worker),
            incarnation: Incarnation(1),
            inbox: 3,
            lease_ttl_ms: 60_000,
            cancel: None,
        }),
        checkpoint: Some(json(r#"{"at":7}"#)),
        cursor: BTreeMap::from([(node_id("src"), 4)]),
        grants: 1,
        new_attempt: false,
        ..node(task, name)
    }
}

/// The same node, its grant told to end.
#[must_use]
pub fn told_to_end(mut node: NodeRecord, reason: CancelReason) -> NodeRecord {
    if let Some(grant) = &mut node.grant {
        grant.cancel = Some(GrantCancel {
            reason,
            grace_ms: 30_000,
        });
    }
    node
}

/// An accepted batch.
#[must_use]
pub fn artifact(
    task: &str,
    node: &str,
    number: u64,
    uid: &str,
    body: Option<Artifact>,
) -> ArtifactRecord {
    ArtifactRecord {
        version: RECORD_VERSION,
        task_id: task_id(task),
        node_id: node_id(node),
        number,
        batch_uid: batch_uid(uid),
        token: Token(1),
        metrics: BTreeMap::from([("lines".into(), json("3"))]),
        artifact: body,
    }
}

/// Boxes any record for a commit.
pub trait IntoRecord {
    /// The record as a commit takes it.
    fn record(self) -> Record;
}

impl IntoRecord for TaskRecord {
    fn record(self) -> Record {
        Record::Task(Box::new(self))
    }
}

impl IntoRecord for NodeRecord {
    fn record(self) -> Record {
        Record::Node(Box::new(self))
    }
}

impl IntoRecord for ArtifactRecord {
    fn record(self) -> Record {
        Record::Artifact(Box::new(self))
    }
}

/// JSON from text.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn json(text: &str) -> Json {
    Json::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
