//! Tests of the store model.

mod prefix;
mod support;

use super::*;
use flowkit_core::id::{Offset, ShardId, Token, WorkerId};
use flowkit_core::port::{Commit, ErrorKind, Record, StoreReply, StoreRequest};
use flowkit_core::record::TaskState;
use support::{
    artifact, commit, granted, kind_of, lookup, node, owned, owner, task, task_id, token_of,
};

#[test]
fn a_commit_needs_epoch_and_seq_and_is_answered_again_under_its_id() {
    let mut store = owned(StoreModel::durable());
    let first = commit(1, vec![task("t")]);
    assert_eq!(
        store.commit(0, first.clone()),
        Ok(StoreReply::Committed { seq: 1 })
    );
    assert_eq!(
        store.commit(0, first.clone()),
        Ok(StoreReply::Committed { seq: 1 })
    );
    let other = Commit { id: 99, ..first };
    assert_eq!(kind_of(store.commit(0, other.clone())), ErrorKind::Conflict);
    let zombie = Commit { epoch: 0, ..other };
    assert_eq!(kind_of(store.commit(0, zombie)), ErrorKind::Fenced);
    let gap = commit(3, vec![]);
    assert_eq!(kind_of(store.commit(0, gap)), ErrorKind::Conflict);
}

#[test]
fn nothing_commits_to_a_shard_that_was_never_taken_over() {
    let mut store = StoreModel::durable();
    let commit = Commit {
        epoch: 0,
        ..commit(1, vec![])
    };
    assert_eq!(kind_of(store.commit(0, commit)), ErrorKind::Fenced);
}

#[test]
fn a_crash_loses_what_was_not_synced_and_keeps_an_order() {
    let mut store = owned(StoreModel::two_phase());
    for seq in 1..=3 {
        let id = format!("t{seq}");
        store
            .commit(0, commit(seq, vec![task(&id)]))
            .expect("it is in order");
    }
    assert_eq!(store.unsynced_commits(), 3);
    let mut cut = store.clone();
    cut.crash_keeping(2);
    assert!(lookup(&mut cut, "t2").is_some());
    assert!(lookup(&mut cut, "t3").is_none());
    store
        .apply(0, &StoreRequest::Sync { shard: ShardId(0) })
        .expect("it is a two-phase store");
    store
        .commit(0, commit(4, vec![task("t4")]))
        .expect("it is in order");
    store.crash();
    assert!(lookup(&mut store, "t3").is_some());
    assert!(lookup(&mut store, "t4").is_none());
    assert_eq!(
        store.applied().shard(ShardId(0)).map(|s| s.commit_seq),
        Some(3)
    );
    assert_eq!(store.fired().get("crash_lost_commits"), Some(&1));
}

#[test]
fn a_durable_store_loses_nothing_and_knows_no_sync() {
    let mut store = owned(StoreModel::durable());
    store
        .commit(0, commit(1, vec![task("t")]))
        .expect("in order");
    let sync = StoreRequest::Sync { shard: ShardId(0) };
    assert_eq!(kind_of(store.apply(0, &sync)), ErrorKind::Unsupported);
    store.crash();
    assert!(lookup(&mut store, "t").is_some());
}

#[test]
fn a_crash_frees_shard_leases_only_where_one_process_is_everything() {
    for (mut store, held) in [
        (StoreModel::two_phase(), true),
        (StoreModel::durable(), false),
    ] {
        store = owned(store);
        store.crash();
        let acquire = StoreRequest::AcquireShard {
            shard: ShardId(0),
            owner: owner("other"),
            ttl_ms: 10,
        };
        let Ok(StoreReply::Lease(lease)) = store.apply(1, &acquire) else {
            panic!("no lease view");
        };
        assert_eq!(lease.held, held);
    }
}

#[test]
fn raising_the_epoch_syncs_what_came_before() {
    let mut store = owned(StoreModel::two_phase());
    store
        .commit(0, commit(1, vec![task("t")]))
        .expect("in order");
    let raise = StoreRequest::RaiseEpoch {
        shard: ShardId(0),
        owner: owner("owner"),
        epoch: 1,
        commit_seq: 1,
    };
    store.apply(0, &raise).expect("lease, epoch and seq hold");
    store.crash();
    assert!(lookup(&mut store, "t").is_some());
    assert_eq!(store.applied().shard(ShardId(0)).map(|s| s.epoch), Some(2));
}

#[test]
fn readers_see_synced_state_and_the_owner_sees_applied_state() {
    let mut store = owned(StoreModel::two_phase());
    let records = vec![task("t"), granted("t", "a", 1), artifact("t", "a", 1, "u1")];
    store.commit(0, commit(1, records)).expect("in order");
    let read = StoreRequest::ReadTask {
        task_id: task_id("t"),
    };
    assert_eq!(store.apply(0, &read), Ok(StoreReply::Task(None)));
    assert_eq!(token_of(&mut store, "t", "a"), Some(Token(1)));
    assert!(lookup(&mut store, "t").is_some());
    store
        .apply(0, &StoreRequest::Sync { shard: ShardId(0) })
        .expect("two-phase");
    assert!(matches!(
        store.apply(0, &read),
        Ok(StoreReply::Task(Some(_)))
    ));
}

#[test]
fn a_refused_commit_writes_nothing_and_the_others_pass() {
    let mut store = owned(StoreModel::durable());
    store.inject(StoreFault::RefuseTask {
        task_id: task_id("bad"),
        times: 2,
    });
    for _ in 0..2 {
        let group = commit(1, vec![task("good"), task("bad")]);
        assert_eq!(kind_of(store.commit(0, group)), ErrorKind::Invalid);
        assert!(lookup(&mut store, "good").is_none());
    }
    store
        .commit(0, commit(1, vec![task("bad")]))
        .expect("twice");
    assert_eq!(store.fired().get("refuse_task"), Some(&2));
}

#[test]
fn a_refused_artifact_is_refused_until_healed() {
    let mut store = owned(StoreModel::durable());
    store.inject(StoreFault::RefuseArtifact {
        task_id: task_id("t"),
        node_id: node("a"),
        batch_uid: "u1".parse().expect("an id"),
    });
    let bad = commit(1, vec![task("t"), artifact("t", "a", 1, "u1")]);
    for _ in 0..3 {
        assert_eq!(kind_of(store.commit(0, bad.clone())), ErrorKind::Invalid);
    }
    store.heal();
    store.commit(0, bad).expect("healed");
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let mut store = owned(StoreModel::durable());
    store.inject(StoreFault::DiskFull);
    assert_eq!(
        kind_of(store.commit(0, commit(1, vec![]))),
        ErrorKind::Retry
    );
    assert!(lookup(&mut store, "t").is_none());
    store.heal();
    store.commit(0, commit(1, vec![])).expect("healed");
}

#[test]
fn a_poisoned_record_sets_its_task_aside_until_it_is_written_again() {
    let mut store = owned(StoreModel::two_phase());
    let records = vec![task("t"), granted("t", "a", 1), task("u")];
    store.commit(0, commit(1, records)).expect("in order");
    store.inject(StoreFault::Poison {
        task_id: task_id("t"),
        node_id: Some(node("a")),
    });
    let load = StoreRequest::LoadTasks {
        shard: ShardId(0),
        after: None,
        limit: 10,
    };
    let Ok(StoreReply::Tasks(page)) = store.apply(0, &load) else {
        panic!("no page");
    };
    assert_eq!(page.tasks.len(), 1);
    assert_eq!(page.unreadable[0].0, task_id("t"));
    assert_eq!(token_of(&mut store, "t", "a"), None);
    store.inject(StoreFault::Poison {
        task_id: task_id("u"),
        node_id: None,
    });
    let answer = lookup(&mut store, "u").expect("its id is taken");
    assert_eq!(answer.state, TaskState::Quarantined);
    store
        .commit(0, commit(2, vec![granted("t", "a", 2), task("u")]))
        .expect("in order");
    let Ok(StoreReply::Tasks(page)) = store.apply(0, &load) else {
        panic!("no page");
    };
    assert!(page.unreadable.is_empty());
    assert_eq!(page.tasks.len(), 2);
}

#[test]
fn the_index_of_active_runs_follows_the_grants() {
    let mut store = owned(StoreModel::durable());
    let worker = |name: &str| -> WorkerId { name.parse().expect("an id") };
    store
        .commit(0, commit(1, vec![task("t"), granted("t", "a", 1)]))
        .expect("in order");
    assert_eq!(store.applied().active_runs(&worker("w1")).len(), 1);
    store
        .commit(0, commit(2, vec![granted("t", "a", 2)]))
        .expect("in order");
    assert_eq!(store.applied().active_runs(&worker("w1")).len(), 0);
    assert_eq!(store.applied().active_runs(&worker("w2")).len(), 1);
    let Record::Node(mut ended) = granted("t", "a", 3) else {
        panic!("not a node");
    };
    ended.grant = None;
    store
        .commit(0, commit(3, vec![Record::Node(ended)]))
        .expect("in order");
    assert!(store.applied().active.is_empty());
}

#[test]
fn the_offset_of_a_commit_is_what_the_next_owner_reads() {
    let mut store = owned(StoreModel::durable());
    let commit = Commit {
        next: Offset(77),
        ..commit(1, vec![])
    };
    store.commit(0, commit).expect("in order");
    let read = StoreRequest::ReadShard { shard: ShardId(0) };
    let Ok(StoreReply::Shard(shard)) = store.apply(0, &read) else {
        panic!("no shard");
    };
    assert_eq!((shard.next, shard.commit_seq), (Offset(77), 1));
}
