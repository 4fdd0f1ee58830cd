//! The store's raw ceiling: the commits of a measured run, on a fresh store, without the engine.

use flowkit_core::id::ShardId;
use flowkit_core::port::{Store, StoreRequest};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::recorder::Log;
use crate::{Outcome, engine};

/// Nodes per second if nothing but the store had to work: same bytes, same grouping, the next
/// commit while the last one is made durable.
pub(crate) async fn nodes_per_s(path: &Path, log: Log, nodes: u64) -> Outcome<f64> {
    let store = engine::store(path).await?;
    let started = Instant::now();
    let sync = StoreRequest::Sync { shard: ShardId(0) };
    let mut syncing: Option<tokio::task::JoinHandle<_>> = None;
    for request in log {
        let is_commit = matches!(request, StoreRequest::Commit(_));
        store.call(request).await?;
        if !is_commit {
            continue;
        }
        // One sync at a time, like the engine: it covers all that was applied before it.
        if syncing
            .as_ref()
            .is_none_or(tokio::task::JoinHandle::is_finished)
        {
            if let Some(done) = syncing.take() {
                done.await??;
            }
            let (store, sync) = (Arc::clone(&store), sync.clone());
            syncing = Some(tokio::spawn(async move { store.call(sync).await }));
        }
    }
    if let Some(done) = syncing {
        done.await??;
    }
    store.call(sync).await?;
    Ok(nodes as f64 / started.elapsed().as_secs_f64())
}
