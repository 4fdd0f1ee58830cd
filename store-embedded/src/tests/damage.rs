//! Damaged files are reported; they never become a panic of the process, or other rows.

use flowkit_core::port::{ErrorKind, Store, StoreReply, StoreRequest};
use std::sync::Arc;

use super::power::{Load, Model};
use super::records::{id, node, put_node, put_task, task};
use super::{Owner, SHARD, ask};
use crate::disk::faulty::Random;
use crate::testing::{FaultyDisk, TestClock};
use crate::{EmbeddedStore, OpenError};

/// A store with some content, closed cleanly: the file that redb itself would trust.
async fn closed_cleanly() -> (Vec<u8>, Model) {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let mut load = Load::new(5);
    for _ in 0..40 {
        let records = load.records();
        let commit = owner.next(records);
        ask(&owner.store, StoreRequest::Commit(Arc::new(commit.clone()))).await;
        load.model.apply(&commit);
    }
    drop(owner);
    (disk.synced(), load.model)
}

#[tokio::test]
async fn damage_after_a_clean_close_is_reported_or_touches_nothing() {
    let (image, model) = closed_cleanly().await;
    let mut random = Random::new(11);
    let (mut reported, mut harmless) = (0, 0);
    for round in 0..150 {
        let mut damaged = image.clone();
        let at = random.below(image.len() as u64) as usize;
        match round % 3 {
            0 => damaged[at] ^= 1 << random.below(8),
            1 => damaged[at & !4095..][..512].fill(0),
            _ => damaged.truncate(at),
        }
        match EmbeddedStore::open_on(&FaultyDisk::new(damaged), TestClock::default()) {
            Ok(store) => {
                assert!(
                    Model::read(&store).await == model,
                    "other rows after {round} at {at}"
                );
                harmless += 1;
            }
            Err(OpenError::Damaged { .. } | OpenError::NotOurs { .. }) => reported += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(reported > 30, "{reported} reported, {harmless} harmless");
}

#[tokio::test]
async fn a_panic_below_the_store_ends_it_with_an_error() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    owner.commit(vec![put_task(task("t"))]).await.unwrap();
    let fatal = owner.store.fatal();
    disk.panic_on_writes();
    let error = owner.sync().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.detail.contains("a planted panic"), "{error}");
    assert_eq!(fatal.await.kind, ErrorKind::Corrupt);
    assert!(owner.commit(vec![]).await.is_err());
}

#[tokio::test]
async fn a_record_of_a_newer_version_costs_its_task_and_not_the_store() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let names = ["a", "b"];
    let tasks = names.map(|name| put_task(task(name)));
    let nodes = names.map(|name| put_node(node(name, "n")));
    owner
        .commit(tasks.into_iter().chain(nodes).collect())
        .await
        .unwrap();
    assert!(owner.store.damage(&id("a"), Some(&id("n"))).await);
    assert!(!owner.store.damage(&id("c"), None).await);
    let load = StoreRequest::LoadTasks {
        shard: SHARD,
        after: None,
        limit: 10,
    };
    let StoreReply::Tasks(page) = ask(&owner.store, load).await else {
        panic!("not tasks");
    };
    assert_eq!(page.tasks.len(), 1);
    let (aside, why) = &page.unreadable[0];
    assert_eq!(aside.as_str(), "a");
    assert!(why.contains("version 65535 is not known"), "{why}");
    let read = StoreRequest::ReadTask { task_id: id("a") };
    assert_eq!(
        owner.store.call(read).await.unwrap_err().kind,
        ErrorKind::Corrupt
    );
    owner.commit(vec![put_task(task("c"))]).await.unwrap();
}
