//! Commits recorded in one store and made again in another.

use flowkit_core::port::{Store, StoreReply, StoreRequest};
use std::sync::Arc;

use super::records::{node, put_node, put_task, task};
use super::{SHARD, ask};
use crate::EmbeddedStore;
use crate::testing::{FaultyDisk, Recorder, TestClock, replay};

#[tokio::test]
async fn a_replay_commits_the_same_records() {
    let open = || EmbeddedStore::open_on(&FaultyDisk::new(Vec::new()), TestClock::default());
    let mut owner = super::Owner::of(open().unwrap()).await;
    let mut sent = Vec::new();
    for number in 0..20 {
        let name = format!("t{number}");
        sent.push(owner.next(vec![put_task(task(&name)), put_node(node(&name, "n"))]));
    }
    let recorder = Recorder::new(Arc::new(owner.store));
    for commit in &sent {
        let request = StoreRequest::Commit(Box::new(commit.clone()));
        recorder.call(request).await.unwrap();
    }
    let recorded = recorder.take();
    assert_eq!(recorded, sent);

    let store = open().unwrap();
    let replayed = replay(&store, recorded).await.unwrap();
    assert_eq!((replayed.commits, replayed.records), (20, 40));
    let list = StoreRequest::LoadTasks {
        shard: SHARD,
        after: None,
        limit: 50,
    };
    let StoreReply::Tasks(page) = ask(&store, list).await else {
        panic!("not tasks");
    };
    assert_eq!(page.tasks.len(), 20);
    assert!(
        replay(&store, sent).await.is_err(),
        "only into an empty store"
    );
}
