//! What is MongoDB's own: opening again, callers that give up, connections that break.

mod mongo_database;

use flowkit_core::port::{Commit, ErrorKind, Store, StoreReply, StoreRequest};
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_tests::records::{IntoRecord, node_id, owner_id, task, task_id};
use mongo_database::{SHARD, address, in_database, next, opened, stored, submit, take};
use mongodb::bson::{Document, doc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Submits the same commit until it is known to have happened, as an owner does.
async fn settle(store: &dyn Store, commit: &Commit) {
    loop {
        match submit(store, commit).await {
            Ok(reply) => return assert_eq!(reply, StoreReply::Committed { seq: commit.seq }),
            Err(error) if matches!(error.kind, ErrorKind::Unknown | ErrorKind::Retry) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn accepted(store: &dyn Store) -> Vec<u64> {
    let request = StoreRequest::ReadAccepted {
        task_id: task_id("t"),
        node_id: node_id("a"),
        after: 0,
        limit: 1_000,
    };
    match store.call(request).await {
        Ok(StoreReply::Accepted(found)) => found.into_iter().map(|(number, _)| number).collect(),
        other => panic!("not accepted batches: {other:?}"),
    }
}

#[test]
fn opening_again_changes_nothing_and_no_index_lets_documents_expire() {
    in_database(async |database| {
        let mut listed = Vec::new();
        for _ in 0..2 {
            drop(opened(&database).await);
            let mut names = database.list_collection_names().await.expect("up");
            names.sort();
            let mut indexes = Vec::new();
            for name in names {
                let collection = database.collection::<Document>(&name);
                let reply = database.run_command(doc! { "listIndexes": &name }).await;
                let reply = reply.expect("up").to_string();
                assert!(!reply.contains("expireAfterSeconds"), "{reply}");
                let mut found = collection.list_index_names().await.expect("up");
                found.sort();
                indexes.push((name, found));
            }
            listed.push(indexes);
        }
        assert_eq!(listed[0], listed[1]);
        assert!(listed[0].iter().any(|(_, indexes)| indexes.len() > 1));
    });
}

#[test]
fn a_commit_whose_caller_gives_up_happens_once() {
    in_database(async |database| {
        let store: Arc<dyn Store> = Arc::new(opened(&database).await);
        let mut shard = take(&*store, "one").await;
        for wait_us in (0..40).map(|step| step * 150) {
            let commit = next(&shard);
            let call = submit(&*store, &commit);
            let _ = tokio::time::timeout(Duration::from_micros(wait_us), call).await;
            settle(&*store, &commit).await;
            shard = stored(&*store).await;
            assert_eq!((shard.commit_seq, shard.commit_id), (commit.seq, commit.id));
        }
        assert_eq!(accepted(&*store).await, (1..=40).collect::<Vec<_>>());
    });
}

#[test]
fn of_two_owners_the_fenced_one_writes_nothing() {
    in_database(async |database| {
        let store: Arc<dyn Store> = Arc::new(opened(&database).await);
        let old = take(&*store, "one").await;
        let release = StoreRequest::ReleaseShard {
            shard: SHARD,
            owner: owner_id("one"),
        };
        store.call(release).await.expect("it is ours");
        let mut new = take(&*store, "two").await;
        for _ in 0..20 {
            let stale = Commit {
                epoch: old.epoch,
                id: 7,
                records: vec![task("stale").record()],
                ..next(&new)
            };
            let commit = next(&new);
            let settled = settle(&*store, &commit);
            let (refused, ()) = tokio::join!(submit(&*store, &stale), settled);
            let kind = refused.map_err(|error| error.kind);
            assert_eq!(kind, Err(ErrorKind::Fenced));
            new = stored(&*store).await;
        }
        assert_eq!(new.commit_seq, 20);
        let request = StoreRequest::LookupTasks {
            tasks: vec![task_id("stale"), task_id("t")],
        };
        match store.call(request).await {
            Ok(StoreReply::Answers(answers)) => {
                assert!(answers[0].is_none() && answers[1].is_some());
            }
            other => panic!("not answers: {other:?}"),
        }
    });
}

/// Forwards connections to the server. Every so many replies it swallows one and hangs up.
async fn cutting_proxy(every: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = listener.local_addr().expect("it is bound");
    let replies = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(address()).await else {
                return;
            };
            let replies = replies.clone();
            tokio::spawn(async move {
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let requests = tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut near_in, &mut far_out).await;
                });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = far_in.read(&mut bytes).await {
                    // The server has done it, and nobody hears of it.
                    if replies.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
                        break;
                    }
                    if near_out.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
                requests.abort();
            });
        }
    });
    proxy.to_string()
}

#[test]
fn commits_over_breaking_connections_happen_once_each() {
    in_database(async |database| {
        let direct: Arc<dyn Store> = Arc::new(opened(&database).await);
        let mut shard = take(&*direct, "one").await;
        let proxy = cutting_proxy(23).await;
        let uri = format!("mongodb://{proxy}/?directConnection=true");
        let settings = MongoSettings::new(&uri).database(database.name());
        let mut tries = 0;
        let store: Arc<dyn Store> = loop {
            tries += 1;
            match MongoStore::connect(settings.clone()).await {
                Ok(store) => break Arc::new(store),
                Err(error) => assert!(tries < 100, "{error}"),
            }
        };
        for seq in 1..=60 {
            let commit = next(&shard);
            settle(&*store, &commit).await;
            shard = stored(&*direct).await;
            assert_eq!((shard.commit_seq, shard.commit_id), (seq, commit.id));
        }
        assert_eq!(accepted(&*direct).await, (1..=60).collect::<Vec<_>>());
    });
}

/// Forwards connections to the server until a request says so; from then on it forwards nothing, like
/// a process that was killed.
async fn proxy_until(last_word: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let proxy = listener.local_addr().expect("it is bound");
    let dead = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(address()).await else {
                return;
            };
            let dead = dead.clone();
            tokio::spawn(async move {
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = near_in.read(&mut bytes).await {
                    let request = &bytes[..read];
                    let is_last = request.windows(last_word.len()).any(|w| w == last_word);
                    if is_last || dead.load(Ordering::Relaxed) {
                        dead.store(true, Ordering::Relaxed);
                        continue;
                    }
                    if far_out.write_all(request).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    proxy.to_string()
}

#[test]
fn a_commit_that_a_dead_owner_left_open_holds_nobody_up() {
    in_database(async |database| {
        let proxy = proxy_until(b"commitTransaction").await;
        let uri = format!("mongodb://{proxy}/?directConnection=true");
        // Its commit waits for so long, everything before it must not.
        let behind = MongoSettings::new(&uri)
            .database(database.name())
            .operation_timeout(Duration::from_secs(5));
        let store = MongoStore::connect(behind).await;
        let old: Arc<dyn Store> = Arc::new(store.unwrap_or_else(|error| panic!("{error}")));
        let shard = take(&*old, "one").await;
        let release = StoreRequest::ReleaseShard {
            shard: SHARD,
            owner: owner_id("one"),
        };
        old.call(release).await.expect("it is ours");
        let open = submit(&*old, &next(&shard)).await;
        assert_eq!(
            open.map_err(|error| error.kind),
            Err(ErrorKind::Unknown),
            "its last command is swallowed"
        );
        // The server would keep the transaction for a minute, and no operation waits for so long.
        let new: Arc<dyn Store> = Arc::new(opened(&database).await);
        let raised = take(&*new, "two").await;
        assert_eq!((raised.epoch, raised.commit_seq), (shard.epoch + 1, 0));
        let reply = submit(&*new, &next(&raised)).await;
        assert_eq!(reply, Ok(StoreReply::Committed { seq: 1 }));
    });
}
