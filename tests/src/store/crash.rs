//! What a crash may take and what it may not.

use flowkit_core::id::{Incarnation, Token};
use flowkit_core::port::{ErrorKind, Record, StoreReply, StoreRequest};

use super::scratch::{put, take};
use super::workers::register;
use super::{
    LONG_MS, Owner, SHARD, accepted, acquire, artifacts, exists, grants, load, read_task,
    shard_record, submit, sync,
};
use crate::StoreInstance;
use crate::records::{IntoRecord, artifact, granted, json, owner_id, task};

/// Everything of it: shard record, tasks, nodes, artifacts.
pub async fn what_was_synced_survives_a_crash(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let node = granted("t", "a", 1, "w");
    let records = vec![
        task("t").record(),
        node.clone().record(),
        artifact("t", "a", 1, "u1", None).record(),
    ];
    owner.commit(store, records).await;
    store.crash_and_reopen().await;
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
    let read = read_task(store, "t").await.expect("it was synced");
    assert_eq!((read.task, read.nodes), (task("t"), vec![node]));
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1]);
    assert_eq!(load(store, SHARD, None, 10).await.tasks.len(), 1);
}

/// Whole commits, without gaps, at least up to the last sync.
pub async fn a_crash_leaves_a_prefix_of_commits(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    for round in 0..8_u64 {
        let synced = owner.shard.commit_seq;
        for _ in 0..5 {
            let seq = owner.shard.commit_seq + 1;
            owner.apply(store, numbered(seq)).await;
            if round % 2 == 1 && seq % 3 == 0 {
                sync(store, SHARD, seq).await;
            }
        }
        let applied = owner.shard.commit_seq;
        store.crash_and_reopen().await;
        let left = shard_record(store, SHARD).await.commit_seq;
        assert!((synced..=applied).contains(&left), "{left} of {applied}");
        if !store.is_two_phase() {
            assert_eq!(left, applied);
        }
        for seq in 1..=applied {
            let expected = seq <= left;
            assert_eq!(exists(store, &format!("t{seq}")).await, expected);
            assert_eq!(exists(store, &format!("also{seq}")).await, expected);
        }
        let numbers: Vec<u64> = (1..=left).collect();
        assert_eq!(accepted(store, ("t", "a"), 0, 1_000).await, numbers);
        owner = Owner::take(store, "one").await;
        assert_eq!(owner.shard.commit_seq, left);
    }
}

fn numbered(seq: u64) -> Vec<Record> {
    vec![
        task(&format!("t{seq}")).record(),
        artifact("t", "a", seq, &format!("u{seq}"), None).record(),
        task(&format!("also{seq}")).record(),
    ]
}

/// The owner outlived the store and never got the answer: the same commit again settles it. Where
/// owner and store are one process, the commit is in the log whole or not at all.
pub async fn a_commit_in_doubt_is_settled_after_a_crash(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    owner.commit(store, vec![]).await;
    let doubt = owner.next(vec![artifact("t", "a", 1, "u1", None).record()]);
    assert_eq!(submit(store, &doubt).await, Ok(2));
    store.crash_and_reopen().await;
    assert_eq!(submit(store, &doubt).await, Ok(2));
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1]);
}

/// Otherwise the owner before the crash and the one after it would be one.
pub async fn a_raised_epoch_survives_a_crash(store: &mut StoreInstance) {
    let mut first = Owner::take(store, "one").await;
    first.apply(store, vec![task("t").record()]).await;
    let second = Owner::take(store, "one").await;
    store.crash_and_reopen().await;
    assert_eq!(shard_record(store, SHARD).await, second.shard);
    assert!(exists(store, "t").await, "the raise stands behind it");
    let late = first.next(vec![]);
    assert_eq!(submit(store, &late).await, Err(ErrorKind::Fenced));
}

/// An incarnation is never given twice.
pub async fn registrations_survive_a_crash(store: &mut StoreInstance) {
    assert_eq!(register(store, "w").await, Incarnation(1));
    store.crash_and_reopen().await;
    assert_eq!(register(store, "w").await, Incarnation(2));
    store.crash_and_reopen().await;
    let StoreReply::Workers(found) = store.ok(StoreRequest::ReadWorkers).await else {
        panic!("not workers");
    };
    let workers = found.workers;
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].incarnation, Incarnation(2));
}

/// They were acknowledged to a handler.
pub async fn scratch_and_staged_bodies_survive_a_crash(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let checkpoint = json(r#"{"line":9}"#);
    put(store, ("t", "a"), 1, "u1", &checkpoint)
        .await
        .expect("it is free");
    let body = json(r#"[1,2,3]"#);
    artifacts::stage(store, ("t", "a"), "u1", 1, &body).await;
    store.crash_and_reopen().await;
    owner = Owner::take(store, &owner.name.to_string()).await;
    let scratch = take(store, ("t", "a"), 2).await.expect("2 is greater");
    let scratch = scratch.expect("it was acknowledged");
    assert_eq!((scratch.token, scratch.checkpoint), (Token(1), checkpoint));
    let staged = artifacts::staged("t", "a", 1, "u1", 1, &body);
    owner.commit(store, vec![staged.record()]).await;
    let found = artifacts(store, ("t", "a"), 0, 10).await;
    let expected = artifacts::inline("t", "a", 1, "u1", &body);
    assert_eq!(found, [expected]);
}

/// A store in the owner's process knows that the holder is dead; a server does not.
pub async fn a_lease_after_a_crash(store: &mut StoreInstance) {
    assert!(acquire(store, SHARD, "one", LONG_MS).await.held);
    store.crash_and_reopen().await;
    let lease = acquire(store, SHARD, "two", LONG_MS).await;
    assert_eq!(lease.held, store.is_two_phase());
    let holder = if lease.held { "two" } else { "one" };
    assert_eq!(lease.owner, owner_id(holder));
}

/// Two-phase stores count what is durable; the others say that there is nothing to do.
pub async fn sync_is_for_stores_that_apply_first(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    owner.apply(store, vec![]).await;
    owner.apply(store, vec![]).await;
    let request = StoreRequest::Sync { shard: SHARD };
    if store.is_two_phase() {
        for _ in 0..2 {
            let reply = store.ok(request.clone()).await;
            assert_eq!(reply, StoreReply::Synced { seq: 2 });
        }
    } else {
        assert_eq!(store.refused(request).await, ErrorKind::Unsupported);
    }
}

/// Who acts outside of the process (readers of artifacts, people) sees only what lasts; the owner,
/// and who checks a grant, sees what is applied.
pub async fn readers_see_synced_state_and_owners_applied_state(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let records = vec![
        task("t").record(),
        granted("t", "a", 5, "w").record(),
        artifact("t", "a", 1, "u1", None).record(),
    ];
    owner.apply(store, records).await;
    let grant = grants(store, &[("t", "a")]).await[0].clone();
    assert_eq!(grant.and_then(|g| g.token), Some(Token(5)));
    assert!(exists(store, "t").await);
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1]);
    assert_eq!(load(store, SHARD, None, 10).await.tasks.len(), 1);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
    let shown = !store.is_two_phase();
    assert_eq!(readers_see(store).await, [shown; 4]);
    sync(store, SHARD, 1).await;
    assert_eq!(readers_see(store).await, [true; 4]);
}

async fn readers_see(store: &StoreInstance) -> [bool; 4] {
    let active = StoreRequest::ActiveRuns {
        worker_id: crate::records::worker_id("w"),
    };
    let StoreReply::Nodes(nodes) = store.ok(active).await else {
        panic!("not nodes");
    };
    [
        read_task(store, "t").await.is_some(),
        !super::list(store, None, 10).await.tasks.is_empty(),
        !artifacts(store, ("t", "a"), 0, 10).await.is_empty(),
        !nodes.is_empty(),
    ]
}
