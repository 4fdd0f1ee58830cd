//! What is durable when, and what a failed disk does.

use flowkit_core::id::{Incarnation, Offset};
use flowkit_core::port::{Commit, ErrorKind, Store, StoreReply, StoreRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::records::{id, put_task, task};
use super::{Owner, SHARD, ask};
use crate::EmbeddedStore;
use crate::testing::{FaultyDisk, TestClock};

async fn read_seq(image: Vec<u8>) -> u64 {
    let store = EmbeddedStore::open_on(&FaultyDisk::new(image), TestClock::default()).unwrap();
    match ask(&store, StoreRequest::ReadShard { shard: SHARD }).await {
        StoreReply::Shard(shard) => shard.commit_seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn commits_go_on_while_a_sync_is_held() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t1"))]).await.unwrap();
    disk.hold_syncs(true);
    let sync = StoreRequest::Sync { shard: SHARD };
    let held = owner.store.call(sync.clone());
    tokio::pin!(held);
    // The call is under way once it was polled; its sync then stands at the disk.
    assert!(timeout(Duration::ZERO, &mut held).await.is_err());
    let waiting = disk.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_held_sync())
        .await
        .unwrap();

    let commit = |seq: u64| Commit {
        shard: SHARD,
        epoch: owner.shard.epoch,
        seq,
        id: seq,
        next: Offset(seq),
        last_entry: None,
        records: vec![put_task(task(&format!("t{seq}")))],
    };
    for seq in 2..20 {
        ask(&owner.store, StoreRequest::Commit(Arc::new(commit(seq)))).await;
    }
    assert!(timeout(Duration::ZERO, &mut held).await.is_err());
    disk.hold_syncs(false);
    assert_eq!(held.await, Ok(StoreReply::Synced { seq: 1 }));
    assert_eq!(owner.sync().await, Ok(StoreReply::Synced { seq: 19 }));
    assert_eq!(read_seq(disk.synced()).await, 19);
}

#[tokio::test]
async fn what_was_not_synced_is_lost_and_what_was_is_kept() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t1"))]).await.unwrap();
    owner.sync().await.unwrap();
    owner.commit(vec![put_task(task("t2"))]).await.unwrap();
    assert_eq!(read_seq(disk.synced()).await, 1);
    owner.sync().await.unwrap();
    assert_eq!(read_seq(disk.synced()).await, 2);
}

#[tokio::test]
async fn a_clean_close_keeps_everything() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t1"))]).await.unwrap();
    drop(owner);
    assert_eq!(read_seq(disk.synced()).await, 1);
}

#[tokio::test]
async fn a_registration_is_durable_at_its_reply_and_incarnations_never_fall() {
    let disk = FaultyDisk::new(Vec::new());
    let store = EmbeddedStore::open_on(&disk, TestClock::default()).unwrap();
    let register = |expected: u64| StoreRequest::RegisterWorker {
        worker_id: id("w"),
        expected: Incarnation(expected),
        start_nonce: expected,
        roles: vec![id("r")],
        capacity: 1,
        inbox: 0,
        worker_version: "1".into(),
    };
    for expected in 1..4 {
        let registered = StoreReply::Registered(Incarnation(expected));
        assert_eq!(ask(&store, register(expected - 1)).await, registered);
        let crashed =
            EmbeddedStore::open_on(&FaultyDisk::new(disk.synced()), TestClock::default()).unwrap();
        let registered = StoreReply::Registered(Incarnation(expected + 1));
        assert_eq!(ask(&crashed, register(expected)).await, registered);
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_store_and_is_not_tried_again() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t1"))]).await.unwrap();
    let fatal = owner.store.fatal();
    disk.fail_syncs_after(Some(0));
    let error = owner.sync().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.detail.contains("the disk failed"), "{error}");
    assert_eq!(fatal.await.kind, ErrorKind::Corrupt);

    // The disk is well again, but what it holds is not known: nothing more is written.
    disk.fail_syncs_after(None);
    let before = disk.counts();
    let read = StoreRequest::ReadShard { shard: SHARD };
    for request in [StoreRequest::Sync { shard: SHARD }, read] {
        let error = owner.store.call(request).await.unwrap_err();
        assert!(error.detail.contains("its process must end"), "{error}");
    }
    assert!(owner.commit(vec![put_task(task("t2"))]).await.is_err());
    drop(owner);
    assert_eq!(disk.counts(), before);
}

/// Its threads have nothing left to wait for, however much was applied and not synced.
#[tokio::test]
async fn a_store_whose_disk_failed_with_much_unsynced_can_be_closed() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    disk.hold_syncs(true);
    let fatal = owner.store.fatal();
    // The bound of 256 begins a flush, which is held; as many again are applied beside it.
    for number in 0..512 {
        let commit = owner.next(vec![put_task(task(&format!("t{number}")))]);
        let call = owner.store.call(StoreRequest::Commit(Arc::new(commit)));
        call.await.unwrap();
    }
    disk.fail_syncs_after(Some(0));
    disk.hold_syncs(false);
    assert_eq!(fatal.await.kind, ErrorKind::Corrupt);
    let closed = tokio::task::spawn_blocking(move || drop(owner));
    timeout(Duration::from_secs(60), closed)
        .await
        .expect("it ends")
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_ends_the_store_and_loses_nothing_synced() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t"))]).await.unwrap();
    owner.sync().await.unwrap();
    disk.limit(Some(disk.synced().len()));
    let mut synced = 1;
    let error = loop {
        let seq = owner.shard.commit_seq;
        let records = (0..50)
            .map(|n| put_task(task(&format!("t{seq}-{n}"))))
            .collect();
        owner.commit(records).await.unwrap();
        match owner.sync().await {
            Ok(StoreReply::Synced { seq }) => synced = seq,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Corrupt);
    drop(owner);
    for seed in 0..20 {
        assert!(read_seq(disk.power_cut(seed)).await >= synced);
    }
}

#[tokio::test]
async fn commits_wait_when_too_many_are_not_durable() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    disk.hold_syncs(true);
    let mut waiting = None;
    for number in 0..2_000 {
        let commit = owner.next(vec![put_task(task(&format!("t{number}")))]);
        let request = StoreRequest::Commit(Arc::new(commit));
        let mut call = owner.store.call(request);
        if timeout(Duration::from_secs(3), &mut call).await.is_err() {
            waiting = Some(number);
            disk.hold_syncs(false);
            call.await.unwrap();
            break;
        }
    }
    // One flush began by itself at the bound of 256, maybe with the commit that came just then, and
    // as many again were applied beside it.
    assert!(matches!(waiting, Some(512 | 513)), "{waiting:?}");
}
