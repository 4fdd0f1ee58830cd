//! Every question to a store: answers or clear errors.

use flowkit_core::id::{Incarnation, ShardId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{Commit, Store, StoreReply, StoreRequest};
use flowkit_core::record::{DeploymentRecord, TaskRecord};
use flowkit_store_embedded::EmbeddedStore;
use std::sync::Arc;

/// Pages of a walk over all tasks; there are fewer tasks.
const PAGES_MAX: usize = 64;

fn id<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is an id"))
}

/// Asks and carries on; an error has words.
async fn ask(store: &EmbeddedStore, request: StoreRequest) -> Option<StoreReply> {
    match store.call(request).await {
        Ok(reply) => Some(reply),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Every task that can be read.
pub(super) async fn tasks(store: &EmbeddedStore) -> Vec<TaskRecord> {
    let mut found = Vec::new();
    let mut after: Option<TaskId> = None;
    for _ in 0..PAGES_MAX {
        let list = StoreRequest::ListTasks { after, limit: 2 };
        let Some(StoreReply::Tasks(page)) = ask(store, list).await else {
            break;
        };
        let aside = page.unreadable.iter().map(|(id, _)| id.clone());
        let last = aside.chain(page.tasks.iter().map(|t| t.task.task_id.clone()));
        after = last.max();
        found.extend(page.tasks.into_iter().map(|task| task.task));
        if !page.more || after.is_none() {
            break;
        }
    }
    found
}

/// Asks for everything, reads first.
pub(super) async fn everything(store: &EmbeddedStore) {
    let (task, node, worker) = (|| id("t0"), || id("n"), || id("w"));
    let shard = ShardId(0);
    let _ = tasks(store).await;
    for name in ["t0", "t1", "t2"] {
        ask(store, StoreRequest::ReadTask { task_id: id(name) }).await;
    }
    for shard in [ShardId(0), ShardId(u32::MAX)] {
        ask(store, StoreRequest::ReadShard { shard }).await;
        let (after, limit) = (None, 10);
        ask(
            store,
            StoreRequest::LoadTasks {
                shard,
                after,
                limit,
            },
        )
        .await;
    }
    let lookup = vec![task(), id("nobody")];
    let nodes = vec![(task(), node()), (id("t1"), node())];
    let (after, limit) = (0, 100);
    for request in [
        StoreRequest::LookupTasks { tasks: lookup },
        StoreRequest::ReadWorkers,
        StoreRequest::ReadGrants {
            worker_id: worker(),
            nodes,
        },
        StoreRequest::ReadAccepted {
            task_id: task(),
            node_id: node(),
            after,
            limit,
        },
        StoreRequest::ReadArtifacts {
            task_id: task(),
            node_id: node(),
            after,
            limit,
        },
        StoreRequest::ActiveRuns {
            worker_id: worker(),
        },
        StoreRequest::Deployment {
            propose: DeploymentRecord {
                shards: 1,
                inboxes: 1,
            },
        },
        StoreRequest::RegisterWorker {
            worker_id: worker(),
            expected: Incarnation(1),
            start_nonce: 9,
            roles: vec![id("scan")],
            capacity: 1,
            inbox: 0,
            worker_version: Arc::from("3"),
        },
        StoreRequest::TakeScratch {
            task_id: task(),
            node_id: node(),
            token: Token(2),
        },
        StoreRequest::PutScratch {
            task_id: task(),
            node_id: node(),
            token: Token(2),
            save_no: 2,
            batch_uid: id("b2"),
            checkpoint: Json::null(),
        },
        StoreRequest::StageArtifact {
            task_id: task(),
            node_id: node(),
            batch_uid: id("b1"),
            token: Token(3),
            body: Json::null(),
        },
        StoreRequest::AcquireShard {
            shard,
            owner: id("other"),
            ttl_ms: 1_000,
        },
    ] {
        ask(store, request).await;
    }
    take_over(store).await;
}

/// A new owner raises the epoch and commits.
async fn take_over(store: &EmbeddedStore) {
    let shard = ShardId(0);
    let read = ask(store, StoreRequest::ReadShard { shard }).await;
    let Some(StoreReply::Shard(read)) = read else {
        return;
    };
    let raise = StoreRequest::RaiseEpoch {
        shard,
        owner: id("other"),
        epoch: read.epoch,
        commit_seq: read.commit_seq,
    };
    let Some(StoreReply::Shard(mine)) = ask(store, raise).await else {
        return;
    };
    let commit = Commit {
        shard,
        epoch: mine.epoch,
        seq: mine.commit_seq.wrapping_add(1),
        id: 1,
        next: mine.next,
        last_entry: None,
        records: Vec::new(),
    };
    ask(store, StoreRequest::Commit(Arc::new(commit))).await;
    ask(store, StoreRequest::Sync { shard }).await;
}
