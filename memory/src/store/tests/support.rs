//! Records for the tests of the store model.

use super::super::StoreModel;
use flowkit_core::control::TaskControl;
use flowkit_core::id::{
    BatchUid, ClientId, Epoch, Incarnation, NodeId, Offset, ShardId, TaskId, Token,
};
use flowkit_core::json::Json;
use flowkit_core::port::{
    Commit, ErrorKind, PortError, Record, StoreReply, StoreRequest, TaskAnswer,
};
use flowkit_core::record::{
    ArtifactRecord, Grant, History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState,
};
use std::collections::BTreeMap;

pub(super) fn owner(name: &str) -> ClientId {
    name.parse().expect("an id")
}

pub(super) fn task_id(name: &str) -> TaskId {
    name.parse().expect("an id")
}

pub(super) fn node(name: &str) -> NodeId {
    name.parse().expect("an id")
}

/// The store with shard 0 leased to `owner` and its epoch raised to 1.
pub(super) fn owned(mut store: StoreModel) -> StoreModel {
    let acquire = StoreRequest::AcquireShard {
        shard: ShardId(0),
        owner: owner("owner"),
        ttl_ms: 1_000,
    };
    let raise = StoreRequest::RaiseEpoch {
        shard: ShardId(0),
        owner: owner("owner"),
        epoch: 0,
        commit_seq: 0,
    };
    store.apply(0, &acquire).expect("the shard is free");
    store.apply(0, &raise).expect("it is leased");
    store
}

pub(super) fn commit(seq: u64, records: Vec<Record>) -> Commit {
    Commit {
        shard: ShardId(0),
        epoch: 1,
        seq,
        id: seq * 10,
        next: Offset(seq),
        last_entry: None,
        records,
    }
}

pub(super) fn task(name: &str) -> Record {
    Record::Task(Box::new(TaskRecord {
        version: RECORD_VERSION,
        task_id: task_id(name),
        submission_hash: 7,
        graph: Json::null(),
        vars: Json::null(),
        idempotency_key: None,
        state: TaskState::Running,
        settled: false,
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: 0,
        history: History::default(),
        control: TaskControl::default(),
        vars_version: 0,
        submitted_vars: None,
        rerun: None,
    }))
}

/// A node granted under a token to the worker `w{token}`.
pub(super) fn granted(task: &str, name: &str, token: u64) -> Record {
    Record::Node(Box::new(NodeRecord {
        version: RECORD_VERSION,
        task_id: task_id(task),
        node_id: node(name),
        state: NodeState::Running,
        epoch: Epoch(1),
        lease_no: Token(token),
        grant: Some(Grant {
            worker_id: format!("w{token}").parse().expect("an id"),
            incarnation: Incarnation(1),
            inbox: 0,
            lease_ttl_ms: 1,
            cancel: None,
        }),
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
        grants: 1,
        wait_ms: None,
        new_attempt: false,
        failure: None,
        history: History::default(),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }))
}

pub(super) fn artifact(task: &str, name: &str, number: u64, uid: &str) -> Record {
    let batch_uid: BatchUid = uid.parse().expect("an id");
    Record::Artifact(Box::new(ArtifactRecord {
        version: RECORD_VERSION,
        task_id: task_id(task),
        node_id: node(name),
        number,
        batch_uid,
        token: Token(1),
        metrics: BTreeMap::new(),
        artifact: None,
    }))
}

pub(super) fn kind_of(result: Result<StoreReply, PortError>) -> ErrorKind {
    result.expect_err("it is refused").kind
}

pub(super) fn lookup(store: &mut StoreModel, name: &str) -> Option<TaskAnswer> {
    let request = StoreRequest::LookupTasks {
        tasks: vec![task_id(name)],
    };
    match store.apply(0, &request) {
        Ok(StoreReply::Answers(answers)) => answers.into_iter().next().flatten(),
        other => panic!("no answers: {other:?}"),
    }
}

pub(super) fn token_of(store: &mut StoreModel, task: &str, name: &str) -> Option<Token> {
    let request = StoreRequest::ReadGrants {
        worker_id: "w1".parse().expect("an id"),
        nodes: vec![(task_id(task), node(name))],
    };
    match store.apply(0, &request) {
        Ok(StoreReply::Grants { grants, .. }) => grants[0].as_ref().and_then(|g| g.token),
        other => panic!("no grants: {other:?}"),
    }
}
