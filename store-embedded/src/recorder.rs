//! The store's raw ceiling: the commits of an engine's run, made again without the engine.

use async_trait::async_trait;
use flowkit_core::id::{ClientId, ShardId};
use flowkit_core::port::{Commit, PortError, Store, StoreReply, StoreRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::store::EmbeddedStore;

/// Passes everything on and keeps a copy of every commit that was applied.
#[derive(Debug)]
pub struct Recorder {
    store: Arc<dyn Store>,
    commits: Mutex<Vec<Commit>>,
}

impl Recorder {
    /// Records what is committed to a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            commits: Mutex::new(Vec::new()),
        }
    }

    /// The commits so far, in order; they are taken out.
    #[must_use]
    pub fn take(&self) -> Vec<Commit> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *commits)
    }
}

#[async_trait]
impl Store for Recorder {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let commit = match &request {
            StoreRequest::Commit(commit) => Some(Commit::clone(commit)),
            _ => None,
        };
        let reply = self.store.call(request).await?;
        if let Some(commit) = commit {
            let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            commits.push(commit);
        }
        Ok(reply)
    }

    fn applies_before_sync(&self) -> bool {
        self.store.applies_before_sync()
    }
}

/// What a replay took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Commits made.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Syncs made beside them, the last one included.
    pub syncs: u64,
    /// From the first commit until all are durable.
    pub took: Duration,
}

/// Makes the commits of a run again, in a store that is empty, as fast as it takes them: one commit
/// in flight, and beside it one sync after the other.
///
/// # Errors
/// The store's first error.
pub async fn replay(store: &EmbeddedStore, commits: Vec<Commit>) -> Result<Replayed, PortError> {
    let mut last: BTreeMap<ShardId, (u64, u64)> = BTreeMap::new();
    let mut replayed = Replayed {
        commits: 0,
        records: 0,
        syncs: 0,
        took: Duration::ZERO,
    };
    let shards: BTreeSet<ShardId> = commits.iter().map(|commit| commit.shard).collect();
    for shard in shards {
        last.insert(shard, (take(store, shard).await?, 0));
    }
    let started = Instant::now();
    let mut syncing = None;
    for mut commit in commits {
        let shard = commit.shard;
        // A repeated commit is there once.
        let (epoch, seq) = last.entry(shard).or_default();
        *seq += 1;
        (commit.epoch, commit.seq) = (*epoch, *seq);
        replayed.commits += 1;
        replayed.records += commit.records.len() as u64;
        let sync = syncing.get_or_insert_with(|| store.call(StoreRequest::Sync { shard }));
        let mut call = pin!(store.call(StoreRequest::Commit(Box::new(commit))));
        let mut synced = false;
        std::future::poll_fn(|cx| {
            // Both run on threads of their own once they were polled.
            if !synced && let Poll::Ready(reply) = sync.as_mut().poll(cx) {
                reply?;
                synced = true;
            }
            call.as_mut().poll(cx).map_ok(drop)
        })
        .await?;
        if synced {
            replayed.syncs += 1;
            syncing = None;
        }
    }
    if let Some(sync) = syncing {
        sync.await?;
        replayed.syncs += 1;
    }
    for shard in last.into_keys() {
        store.call(StoreRequest::Sync { shard }).await?;
        replayed.syncs += 1;
    }
    replayed.took = started.elapsed();
    Ok(replayed)
}

/// Takes a shard over; its new epoch.
async fn take(store: &EmbeddedStore, shard: ShardId) -> Result<u64, PortError> {
    let invalid =
        |why: String| PortError::new(flowkit_core::port::ErrorKind::Invalid, "replay", why);
    let owner = ClientId::new("replay").map_err(|error| invalid(error.to_string()))?;
    let lease = StoreRequest::AcquireShard {
        shard,
        owner: owner.clone(),
        ttl_ms: u64::from(u32::MAX),
    };
    store.call(lease).await?;
    let StoreReply::Shard(read) = store.call(StoreRequest::ReadShard { shard }).await? else {
        return Err(invalid("not a shard".to_owned()));
    };
    if read.commit_seq != 0 {
        return Err(invalid("the store is not empty".to_owned()));
    }
    let raise = StoreRequest::RaiseEpoch {
        shard,
        owner,
        epoch: read.epoch,
        commit_seq: read.commit_seq,
    };
    store.call(raise).await?;
    Ok(read.epoch + 1)
}
