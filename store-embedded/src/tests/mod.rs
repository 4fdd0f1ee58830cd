//! Tests of the store through its port.

mod commits;
mod damage;
mod killed;
mod opening;
mod power;
pub(crate) mod records;
mod syncing;

use flowkit_core::id::{Offset, ShardId};
use flowkit_core::port::{Commit, PortError, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::ShardRecord;
use std::sync::Arc;

use crate::EmbeddedStore;
use crate::testing::{FaultyDisk, TestClock};

const SHARD: ShardId = ShardId(0);

/// A store and the owner of its one shard.
struct Owner {
    store: EmbeddedStore,
    shard: ShardRecord,
}

impl Owner {
    /// A new store on a disk, with the shard taken.
    async fn on(disk: &FaultyDisk) -> Self {
        Self::of(EmbeddedStore::open_on(disk, TestClock::default()).unwrap()).await
    }

    async fn of(store: EmbeddedStore) -> Self {
        let owner = records::id("owner");
        let lease = StoreRequest::AcquireShard {
            shard: SHARD,
            owner: records::id("owner"),
            ttl_ms: 60_000,
        };
        store.call(lease).await.unwrap();
        let StoreReply::Shard(read) = store
            .call(StoreRequest::ReadShard { shard: SHARD })
            .await
            .unwrap()
        else {
            panic!("not a shard");
        };
        let raise = StoreRequest::RaiseEpoch {
            shard: SHARD,
            owner,
            epoch: read.epoch,
            commit_seq: read.commit_seq,
        };
        let StoreReply::Shard(shard) = store.call(raise).await.unwrap() else {
            panic!("not a shard");
        };
        Self { store, shard }
    }

    /// The next commit with these records.
    fn next(&mut self, records: Vec<Record>) -> Commit {
        self.shard.commit_seq += 1;
        Commit {
            shard: SHARD,
            epoch: self.shard.epoch,
            seq: self.shard.commit_seq,
            id: self.shard.commit_seq * 10 + 1,
            next: Offset(self.shard.commit_seq * 7),
            last_entry: None,
            records,
        }
    }

    async fn commit(&mut self, records: Vec<Record>) -> Result<StoreReply, PortError> {
        let commit = self.next(records);
        self.store
            .call(StoreRequest::Commit(Arc::new(commit)))
            .await
    }

    async fn sync(&self) -> Result<StoreReply, PortError> {
        self.store.call(StoreRequest::Sync { shard: SHARD }).await
    }
}

async fn ask(store: &EmbeddedStore, request: StoreRequest) -> StoreReply {
    store.call(request).await.unwrap()
}
