//! A database of one case on the real MongoDB, and an owner of a shard in it.

use flowkit_core::id::{Offset, ShardId};
use flowkit_core::port::{Commit, PortError, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::ShardRecord;
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_tests::records::{IntoRecord, artifact, node, owner_id, task};
use flowkit_tests::{run, servers};
use std::future::Future;
use std::sync::Arc;

pub(crate) const SHARD: ShardId = ShardId(0);

/// Runs a test in a database of its own, which is dropped if the test passes.
pub(crate) fn in_database<F: Future<Output = ()>>(test: impl FnOnce(mongodb::Database) -> F) {
    run(async {
        let client = mongodb::Client::with_uri_str(servers::mongo()).await;
        let name = servers::fresh_name("flowkit_own");
        let database = client.expect("MongoDB is up").database(&name);
        test(database.clone()).await;
        database.drop().await.expect("MongoDB is up");
    });
}

pub(crate) fn settings(database: &mongodb::Database) -> MongoSettings {
    MongoSettings::new(&servers::mongo())
        .database(database.name())
        .pool_max(8)
}

pub(crate) async fn opened(database: &mongodb::Database) -> MongoStore {
    let store = MongoStore::connect(settings(database)).await;
    store.unwrap_or_else(|error| panic!("{error}"))
}

/// Host and port of the server, without the rest of the URI.
pub(crate) fn address() -> String {
    let uri = servers::mongo();
    let hosts = uri.trim_start_matches("mongodb://");
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, hosts)| hosts);
    let first = hosts.split(['/', ',', '?']).next();
    first.unwrap_or_default().to_owned()
}

pub(crate) async fn take(store: &dyn Store, owner: &str) -> ShardRecord {
    let request = StoreRequest::AcquireShard {
        shard: SHARD,
        owner: owner_id(owner),
        ttl_ms: 3_600_000,
    };
    store.call(request).await.expect("nobody else asks");
    let read = stored(store).await;
    let raise = StoreRequest::RaiseEpoch {
        shard: SHARD,
        owner: owner_id(owner),
        epoch: read.epoch,
        commit_seq: read.commit_seq,
    };
    match store.call(raise).await {
        Ok(StoreReply::Shard(shard)) => shard,
        other => panic!("not raised: {other:?}"),
    }
}

pub(crate) async fn stored(store: &dyn Store) -> ShardRecord {
    match store.call(StoreRequest::ReadShard { shard: SHARD }).await {
        Ok(StoreReply::Shard(shard)) => shard,
        other => panic!("not a shard: {other:?}"),
    }
}

/// The commit after `shard`, with one more accepted batch of a node.
pub(crate) fn next(shard: &ShardRecord) -> Commit {
    let seq = shard.commit_seq + 1;
    let records: Vec<Record> = vec![
        task("t").record(),
        node("t", "a").record(),
        artifact("t", "a", seq, &format!("u{seq}"), None).record(),
    ];
    Commit {
        shard: SHARD,
        epoch: shard.epoch,
        seq,
        id: shard.epoch * 1_000_000 + seq,
        next: Offset(seq),
        last_entry: None,
        records,
    }
}

pub(crate) async fn submit(store: &dyn Store, commit: &Commit) -> Result<StoreReply, PortError> {
    let commit = Arc::new(commit.clone());
    store.call(StoreRequest::Commit(commit)).await
}
