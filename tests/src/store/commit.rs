//! Group commits: compare-and-set on epoch and seq, all or nothing, the same one again.

use flowkit_core::id::{DedupId, Offset};
use flowkit_core::message::Artifact;
use flowkit_core::port::{Commit, ErrorKind, Record};
use flowkit_core::record::{NodeState, TaskState};

use super::{Owner, SHARD, accepted, exists, lookup, read_task, shard_record, submit};
use crate::StoreInstance;
use crate::records::{IntoRecord, artifact, granted, large_json, node, settled_task, task};

/// Where nobody took over, nobody owns.
pub async fn a_commit_before_any_takeover_is_fenced(store: &mut StoreInstance) {
    for epoch in [0, 1] {
        let commit = Commit {
            shard: SHARD,
            epoch,
            seq: 1,
            id: 1,
            next: Offset(1),
            last_entry: None,
            records: vec![task("t").record()],
        };
        assert_eq!(submit(store, &commit).await, Err(ErrorKind::Fenced));
    }
    assert!(!exists(store, "t").await);
    assert_eq!(shard_record(store, SHARD).await.commit_seq, 0);
}

/// The shard record is part of the commit, even of one without records.
pub async fn a_commit_moves_seq_offset_and_last_entry(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let commit = Commit {
        id: u64::MAX,
        next: Offset(i64::MAX.unsigned_abs()),
        last_entry: Some(DedupId(u64::MAX - 1)),
        ..owner.next(vec![])
    };
    assert_eq!(submit(store, &commit).await, Ok(1));
    owner.done(&commit);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
    let commit = Commit {
        next: Offset(3),
        ..owner.next(vec![])
    };
    assert_eq!(submit(store, &commit).await, Ok(2));
    owner.done(&commit);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
}

/// The answer to a lost reply: it happened once.
pub async fn the_same_commit_again_is_committed_again(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let records = vec![
        task("t").record(),
        node("t", "a").record(),
        artifact("t", "a", 1, "u", None).record(),
    ];
    let commit = owner.next(records);
    for _ in 0..3 {
        assert_eq!(submit(store, &commit).await, Ok(1));
    }
    owner.done(&commit);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1]);
    let both = owner.next(vec![task("u").record()]);
    let (one, two) = tokio::join!(submit(store, &both), submit(store, &both));
    assert_eq!((one, two), (Ok(2), Ok(2)));
}

/// One seq, one commit.
pub async fn another_commit_under_a_used_seq_is_a_conflict(store: &mut StoreInstance) {
    let owner = Owner::take(store, "one").await;
    assert_eq!(submit(store, &owner.next(vec![])).await, Ok(1));
    let other = Commit {
        id: 77,
        ..owner.next(vec![task("t").record()])
    };
    assert_eq!(submit(store, &other).await, Err(ErrorKind::Conflict));
    assert!(!exists(store, "t").await);
}

/// Neither a gap nor a late copy of an older commit is written.
pub async fn a_commit_out_of_order_is_a_conflict(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let first = owner.next(vec![task("t").record()]);
    let gap = Commit {
        seq: 2,
        ..owner.next(vec![task("u").record()])
    };
    assert_eq!(submit(store, &gap).await, Err(ErrorKind::Conflict));
    assert_eq!(submit(store, &first).await, Ok(1));
    owner.done(&first);
    owner.commit(store, vec![settled_task("t").record()]).await;
    assert_eq!(submit(store, &first).await, Err(ErrorKind::Conflict));
    assert!(!exists(store, "u").await);
    let answer = lookup(store, &["t"]).await[0].clone();
    assert!(answer.is_some_and(|task| task.settled));
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
}

/// The owner before the last takeover, and one from the future.
pub async fn a_stale_epoch_is_refused_and_writes_nothing(store: &mut StoreInstance) {
    let mut old = Owner::take(store, "one").await;
    old.commit(store, vec![task("t").record()]).await;
    let mut new = Owner::take(store, "one").await;
    for epoch in [0, 1, 3] {
        let commit = Commit {
            epoch,
            ..new.next(vec![settled_task("t").record(), task("u").record()])
        };
        assert_eq!(submit(store, &commit).await, Err(ErrorKind::Fenced));
    }
    assert!(!exists(store, "u").await);
    let answer = lookup(store, &["t"]).await[0].clone();
    assert!(answer.is_some_and(|task| !task.settled));
    new.commit(store, vec![]).await;
    assert_eq!(shard_record(store, SHARD).await, new.shard);
}

/// Even where the late copy's seq would fit, and where it had happened.
pub async fn a_late_copy_of_a_fenced_owners_commit_changes_nothing(store: &mut StoreInstance) {
    let mut old = Owner::take(store, "one").await;
    let happened = old.next(vec![task("t").record()]);
    assert_eq!(submit(store, &happened).await, Ok(1));
    old.done(&happened);
    let in_flight = old.next(vec![task("u").record()]);
    let new = Owner::take(store, "one").await;
    assert_eq!(new.shard.commit_seq, 1);
    assert_eq!(submit(store, &happened).await, Err(ErrorKind::Fenced));
    assert_eq!(submit(store, &in_flight).await, Err(ErrorKind::Fenced));
    assert!(!exists(store, "u").await);
    assert_eq!(shard_record(store, SHARD).await, new.shard);
}

/// Every record of a commit is there, as it was given.
pub async fn a_group_commit_is_seen_whole(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let nodes = [granted("t", "a", 3, "w"), node("t", "b"), node("t", "c")];
    let mut records: Vec<Record> = nodes.iter().cloned().map(IntoRecord::record).collect();
    records.push(task("t").record());
    records.push(task("u").record());
    records.push(artifact("t", "a", 1, "u1", None).record());
    records.push(artifact("t", "a", 2, "u2", None).record());
    owner.commit(store, records).await;
    let read = read_task(store, "t").await.expect("it is committed");
    assert_eq!(read.task, task("t"));
    assert_eq!(read.nodes, nodes);
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1, 2]);
    assert!(exists(store, "u").await);
}

/// Records are plainly written over.
pub async fn a_later_commit_writes_over_an_earlier_one(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let first = vec![task("t").record(), granted("t", "a", 1, "w").record()];
    owner.commit(store, first).await;
    let mut ended = node("t", "a");
    ended.state = NodeState::Finished;
    ended.totals.entry("lines".into()).or_default().add(2.5);
    ended.result = Some(large_json(10));
    let second = vec![settled_task("t").record(), ended.clone().record()];
    owner.commit(store, second).await;
    let read = read_task(store, "t").await.expect("it is committed");
    assert_eq!(read.task.state, TaskState::Finished);
    assert_eq!(read.nodes, [ended]);
}

/// The number is unique in its node.
pub async fn an_artifact_number_is_taken_once(store: &mut StoreInstance) {
    refuses_second_artifact(store, 1, "other").await;
}

/// The batch uid is unique in its node.
pub async fn a_batch_uid_is_accepted_once(store: &mut StoreInstance) {
    refuses_second_artifact(store, 2, "u1").await;
}

async fn refuses_second_artifact(store: &StoreInstance, number: u64, uid: &str) {
    let mut owner = Owner::take(store, "one").await;
    let first = artifact("t", "a", 1, "u1", None).record();
    owner.commit(store, vec![first]).await;
    let refused = owner.next(vec![
        task("t").record(),
        artifact("t", "a", number, uid, None).record(),
        task("u").record(),
    ]);
    assert_eq!(submit(store, &refused).await, Err(ErrorKind::Invalid));
    assert!(!exists(store, "t").await);
    assert!(!exists(store, "u").await);
    assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [1]);
    assert_eq!(shard_record(store, SHARD).await, owner.shard);
    // Neither is taken in another node or another task.
    let elsewhere = vec![
        artifact("t", "b", number, uid, None).record(),
        artifact("u", "a", number, uid, None).record(),
    ];
    owner.commit(store, elsewhere).await;
}

/// Within one commit as over two.
pub async fn an_artifact_twice_in_one_commit_is_refused_whole(store: &mut StoreInstance) {
    let owner = Owner::take(store, "one").await;
    for (number, uid) in [(1, "u2"), (2, "u1")] {
        let refused = owner.next(vec![
            task("t").record(),
            artifact("t", "a", 1, "u1", None).record(),
            artifact("t", "a", number, uid, None).record(),
        ]);
        assert_eq!(submit(store, &refused).await, Err(ErrorKind::Invalid));
        assert!(!exists(store, "t").await);
        assert_eq!(accepted(store, ("t", "a"), 0, 10).await, [0; 0]);
    }
}

/// The next try, with other records, takes the same seq; the refused one again stays refused.
pub async fn a_refused_commit_leaves_its_seq_free(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    owner
        .commit(store, vec![artifact("t", "a", 1, "u1", None).record()])
        .await;
    let refused = owner.next(vec![
        task("bad").record(),
        artifact("t", "a", 1, "u1", None).record(),
    ]);
    for _ in 0..2 {
        assert_eq!(submit(store, &refused).await, Err(ErrorKind::Invalid));
    }
    owner.commit(store, vec![task("good").record()]).await;
    assert_eq!(owner.shard.commit_seq, 2);
    assert!(exists(store, "good").await);
    assert!(!exists(store, "bad").await);
}

/// The size that a group commit grows to.
pub async fn a_commit_carries_512_records_and_4_mib(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let body = large_json(12 * 1024);
    let mut records: Vec<Record> = (1..=350)
        .map(|n| {
            let inline = Some(Artifact::Inline(body.clone()));
            artifact("t", "a", n, &format!("u{n}"), inline).record()
        })
        .collect();
    records.extend((0..162).map(|n| node("t", &format!("n{n:03}")).record()));
    records.push(task("t").record());
    owner.commit(store, records).await;
    assert_eq!(accepted(store, ("t", "a"), 0, 1_000).await.len(), 350);
    let read = read_task(store, "t").await.expect("it is committed");
    assert_eq!(read.nodes.len(), 162);
}
