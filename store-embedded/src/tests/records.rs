//! Records for tests.

use flowkit_core::control::{TaskControl, TaskOptions};
use flowkit_core::id::{BatchUid, Epoch, IdError, Incarnation, NodeId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::message::{Artifact, Cursor, Metrics};
use flowkit_core::port::Record;
use flowkit_core::record::{
    ArtifactRecord, Grant, History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState,
    Totals,
};
use std::sync::Arc;

pub(crate) fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn task(name: &str) -> TaskRecord {
    TaskRecord {
        version: RECORD_VERSION,
        task_id: id(name),
        submission_hash: 1 << 100,
        graph: Json::parse(r#"{"nodes":[{"node_id":"a","type":"t"}]}"#).unwrap(),
        vars: Json::null(),
        idempotency_key: Some(Arc::from("key")),
        state: TaskState::Running,
        settled: false,
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: 1_700_000_000_000,
        history: History::default(),
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

pub(crate) fn node(task: &str, name: &str) -> NodeRecord {
    NodeRecord {
        version: RECORD_VERSION,
        task_id: id(task),
        node_id: id(name),
        state: NodeState::Running,
        epoch: Epoch(1),
        lease_no: Token(3),
        grant: None,
        last_seq: 0,
        accepted: 0,
        checkpoint: None,
        checkpoint_batches: 0,
        cursor: Cursor::default(),
        cursor_batches: 0,
        totals: Totals::default(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 1,
        wait_ms: None,
        new_attempt: false,
        failure: None,
        history: History::default(),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }
}

pub(crate) fn grant(worker: &str) -> Grant {
    Grant {
        worker_id: id(worker),
        incarnation: Incarnation(1),
        inbox: 0,
        lease_ttl_ms: 60_000,
        cancel: None,
    }
}

pub(crate) fn artifact(task: &str, node: &str, number: u64, body: Artifact) -> ArtifactRecord {
    ArtifactRecord {
        version: RECORD_VERSION,
        task_id: id::<TaskId>(task),
        node_id: id::<NodeId>(node),
        number,
        batch_uid: id::<BatchUid>(&format!("batch-{number}")),
        token: Token(3),
        metrics: Metrics::default(),
        artifact: Some(body),
    }
}

pub(crate) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

pub(crate) fn put_task(record: TaskRecord) -> Record {
    Record::Task(Box::new(record))
}

pub(crate) fn put_node(record: NodeRecord) -> Record {
    Record::Node(Box::new(record))
}

pub(crate) fn put_artifact(record: ArtifactRecord) -> Record {
    Record::Artifact(Box::new(record))
}
