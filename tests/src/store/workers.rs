//! Incarnations and the reading of grants.

use std::sync::atomic::{AtomicU64, Ordering};

use flowkit_core::id::{Incarnation, Token};
use flowkit_core::message::CancelReason;
use flowkit_core::port::{GrantView, StoreReply, StoreRequest, WorkerList};
use flowkit_core::record::{RECORD_VERSION, TaskState, WorkerRecord};

use super::{Owner, grants};
use crate::StoreInstance;
use crate::records::{
    IntoRecord, granted, id, node, node_id, task, task_id, told_to_end, worker_id,
};

fn registration(worker: &str, expected: u64, start_nonce: u64) -> StoreRequest {
    StoreRequest::RegisterWorker {
        worker_id: worker_id(worker),
        expected: Incarnation(expected),
        start_nonce,
        roles: vec![id("echo")],
        capacity: 1,
        inbox: 0,
        worker_version: "1".into(),
    }
}

pub(super) async fn register(store: &StoreInstance, worker: &str) -> Incarnation {
    static STARTS: AtomicU64 = AtomicU64::new(1);
    let nonce = STARTS.fetch_add(1, Ordering::Relaxed);
    let mut expected = Incarnation(0);
    loop {
        match store.ok(registration(worker, expected.0, nonce)).await {
            StoreReply::Registered(incarnation) => return incarnation,
            StoreReply::IncarnationIs(stored) => expected = stored,
            other => panic!("not registered: {other:?}"),
        }
    }
}

/// Neither a repeat nor a late copy raises an incarnation above a living process.
pub async fn a_registration_raises_only_from_what_it_expects(store: &mut StoreInstance) {
    let registered = |n| StoreReply::Registered(Incarnation(n));
    let stored = |n| StoreReply::IncarnationIs(Incarnation(n));
    assert_eq!(store.ok(registration("w", 0, 7)).await, registered(1));
    assert_eq!(store.ok(registration("w", 0, 7)).await, registered(1));
    assert_eq!(store.ok(registration("w", 0, 8)).await, stored(1));
    assert_eq!(store.ok(registration("w", 1, 8)).await, registered(2));
    assert_eq!(store.ok(registration("w", 0, 7)).await, stored(2));
    assert_eq!(store.ok(registration("w", 1, 8)).await, registered(2));
    assert_eq!(store.ok(registration("w", 5, 9)).await, stored(2));
}

/// From 1, per worker id, also when two starts race.
pub async fn every_registration_raises_the_incarnation(store: &mut StoreInstance) {
    assert_eq!(register(store, "w").await, Incarnation(1));
    assert_eq!(register(store, "w").await, Incarnation(2));
    assert_eq!(register(store, "v").await, Incarnation(1));
    let (one, two) = tokio::join!(register(store, "w"), register(store, "w"));
    let mut both = [one, two];
    both.sort_unstable();
    assert_eq!(both, [Incarnation(3), Incarnation(4)]);
    let read = StoreRequest::ReadGrants {
        worker_id: worker_id("w"),
        nodes: vec![],
    };
    let expected = StoreReply::Grants {
        incarnation: Incarnation(4),
        grants: vec![],
    };
    assert_eq!(store.ok(read).await, expected);
}

/// What the newest start said is what stands there.
pub async fn a_registration_writes_the_whole_record(store: &mut StoreInstance) {
    assert_eq!(
        store.ok(StoreRequest::ReadWorkers).await,
        StoreReply::Workers(WorkerList::default())
    );
    register(store, "w").await;
    let request = StoreRequest::RegisterWorker {
        worker_id: worker_id("w"),
        expected: Incarnation(1),
        start_nonce: 77,
        roles: vec![id("count"), id("Zähler")],
        capacity: 7,
        inbox: 5,
        worker_version: "2.0.0".into(),
    };
    store.ok(request).await;
    register(store, "a").await;
    let StoreReply::Workers(found) = store.ok(StoreRequest::ReadWorkers).await else {
        panic!("not workers");
    };
    assert_eq!(found.unreadable, []);
    let mut workers = found.workers;
    workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
    assert_eq!(workers.len(), 2);
    let expected = WorkerRecord {
        version: RECORD_VERSION,
        worker_id: worker_id("w"),
        incarnation: Incarnation(2),
        start_nonce: 77,
        roles: vec![id("count"), id("Zähler")],
        capacity: 7,
        inbox: 5,
        worker_version: "2.0.0".into(),
    };
    assert_eq!(workers[1], expected);
}

/// Who takes a shard over reads all of them: one record must not keep it from the others.
pub async fn an_unreadable_worker_is_named_and_the_others_are_read(store: &mut StoreInstance) {
    for worker in ["a", "b", "c"] {
        register(store, worker).await;
    }
    assert!(!store.make_worker_unreadable(&worker_id("nobody")).await);
    let damaged = store.make_worker_unreadable(&worker_id("b")).await;
    assert_eq!(damaged, store.caps.unreadable);
    let StoreReply::Workers(found) = store.ok(StoreRequest::ReadWorkers).await else {
        panic!("not workers");
    };
    let mut read: Vec<&str> = found.workers.iter().map(|w| w.worker_id.as_str()).collect();
    read.sort_unstable();
    let left_out: Vec<&str> = found.unreadable.iter().map(|(id, _)| id.as_str()).collect();
    if damaged {
        assert_eq!((read, left_out), (vec!["a", "c"], vec!["b"]));
        assert!(!found.unreadable[0].1.is_empty(), "it says why");
    } else {
        assert_eq!((read, left_out), (vec!["a", "b", "c"], vec![]));
    }
}

/// A worker that never registered has incarnation 0.
pub async fn grants_are_read_in_order_and_unknown_nodes_are_none(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let records = vec![
        task("t").record(),
        granted("t", "a", 4, "w").record(),
        node("t", "b").record(),
    ];
    owner.commit(store, records).await;
    let nodes = ["b", "x", "a", "a"].map(|name| (task_id("t"), node_id(name)));
    let mut nodes = nodes.to_vec();
    nodes.push((task_id("u"), node_id("a")));
    let read = StoreRequest::ReadGrants {
        worker_id: worker_id("never"),
        nodes,
    };
    let view = |token| {
        Some(GrantView {
            token,
            cancelled: false,
            unreadable: false,
        })
    };
    let (free, held) = (view(None), view(Some(Token(4))));
    let expected = StoreReply::Grants {
        incarnation: Incarnation(0),
        grants: vec![free, None, held.clone(), held, None],
    };
    assert_eq!(store.ok(read).await, expected);
}

/// `lease_no` outlives the grant; the token does not.
pub async fn a_token_is_current_while_its_grant_stands(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let token = async |store: &StoreInstance| {
        let view = grants(store, &[("t", "a")]).await[0].clone();
        view.expect("the node exists").token
    };
    let first = granted("t", "a", 1, "w");
    owner
        .apply(store, vec![task("t").record(), first.clone().record()])
        .await;
    assert_eq!(token(store).await, Some(Token(1)));
    let mut ended = first;
    ended.grant = None;
    owner.apply(store, vec![ended.record()]).await;
    assert_eq!(token(store).await, None);
    owner
        .apply(store, vec![granted("t", "a", 2, "w").record()])
        .await;
    assert_eq!(token(store).await, Some(Token(2)));
}

/// Cancelled, failed and told to end: one flag for the worker.
pub async fn a_grant_is_cancelled_with_its_task_or_alone(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let states = [
        (TaskState::Running, false),
        (TaskState::Cancelling, true),
        (TaskState::Failed, true),
        (TaskState::Cancelled, true),
        (TaskState::Quarantined, true),
    ];
    for (state, cancelled) in states {
        let mut changed = task("t");
        changed.state = state;
        let records = vec![changed.record(), granted("t", "a", 1, "w").record()];
        owner.apply(store, records).await;
        let view = grants(store, &[("t", "a")]).await[0].clone();
        let view = view.expect("the node exists");
        assert_eq!(view.cancelled, cancelled, "a task that is {state:?}");
        assert_eq!(view.token, Some(Token(1)));
    }
    let told = told_to_end(granted("t", "b", 1, "w"), CancelReason::Yield);
    owner
        .apply(store, vec![task("t").record(), told.record()])
        .await;
    let views = grants(store, &[("t", "a"), ("t", "b")]).await;
    let cancelled: Vec<bool> = views.into_iter().flatten().map(|v| v.cancelled).collect();
    assert_eq!(cancelled, [false, true]);
}
