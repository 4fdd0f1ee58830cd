//! What MongoDB or its database may have that it should not: each is named with its cure, nothing
//! secret is shown, and the rest goes on.

mod mongo_database;

use flowkit_core::id::Token;
use flowkit_core::message::Artifact;
use flowkit_core::port::{Commit, ErrorKind, Record, Store, StoreReply, StoreRequest};
use flowkit_core::record::{ArtifactRecord, TaskRecord};
use flowkit_store_mongo::{MongoSettings, MongoStore, OpenError};
use flowkit_tests::records::{
    IntoRecord, artifact, batch_uid, granted, json, large_json, node_id, task, task_id, worker_id,
};
use flowkit_tests::run;
use mongo_database::{address, in_database, next, opened, settings, submit, take};
use mongodb::bson::{Document, doc};
use std::time::Duration;
use tokio::net::TcpListener;

const SECRET: &str = "hunter2";
const MIB: usize = 1024 * 1024;

async fn refused(settings: MongoSettings) -> OpenError {
    match MongoStore::connect(settings).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_server_that_does_not_answer_is_named_as_such_in_time() {
    run(async {
        // A port that nobody listens at: it was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let closed = listener.local_addr().expect("it is bound");
        drop(listener);
        let uri = format!("mongodb://user:{SECRET}@{closed}/?replicaSet=rs0");
        let settings = MongoSettings::new(&uri).server_timeout(Duration::from_millis(100));
        let error = refused(settings).await;
        assert!(matches!(error, OpenError::Unreachable(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    });
}

#[test]
fn no_error_and_no_debug_text_shows_the_password() {
    run(async {
        let rest = format!("user:{SECRET}@{}", address());
        for uri in [
            format!("mongodb://{rest}/?replicaSet=rs0&directConnection=true"),
            format!("mongodb://{rest}/?w=-5"),
            format!("mongodb://{rest}/?authMechanism={SECRET}"),
            format!("mongodb://user:{SECRET}@@/{SECRET}"),
            format!("nonsense://{rest}"),
            format!("mongodb+srv://user:{SECRET}@localhost"),
        ] {
            let settings = MongoSettings::new(&uri).server_timeout(Duration::from_millis(500));
            assert!(!format!("{settings:?}").contains(SECRET), "{settings:?}");
            let error = refused(settings).await;
            let told = format!("{error} {error:?}");
            assert!(!told.contains(SECRET), "{told} for {uri}");
        }
    });
}

#[test]
fn a_layout_of_a_newer_version_is_refused() {
    in_database(async |database| {
        drop(opened(&database).await);
        let meta = database.collection::<Document>("meta");
        let newer = doc! { "$set": { "version": 99_i64 } };
        let raised = meta.update_one(doc! { "_id": "layout" }, newer).await;
        assert_eq!(raised.expect("MongoDB is up").matched_count, 1);
        let error = refused(settings(&database)).await;
        assert!(
            matches!(error, OpenError::Layout { found: 99, .. }),
            "{error}"
        );
    });
}

#[test]
fn a_user_that_the_server_does_not_know_is_named_as_such_with_the_cure() {
    run(async {
        let uri = format!("mongodb://nobody:{SECRET}@{}/?replicaSet=rs0", address());
        let settings = MongoSettings::new(&uri).server_timeout(Duration::from_secs(5));
        let error = refused(settings).await;
        assert!(matches!(error, OpenError::Credentials(_)), "{error:?}");
        let told = format!("{error} {error:?}");
        assert!(
            told.contains("check user, password and authSource"),
            "{told}"
        );
        assert!(!told.contains(SECRET), "{told}");
    });
}

/// An index of ours that was made otherwise: it is named, and once it is dropped all is well.
#[test]
fn an_index_that_is_not_as_it_must_be_is_refused_with_the_cure() {
    for (keys, expires) in [
        (doc! { "node": 1, "uid": 1 }, None),
        (doc! { "uid": 1 }, None),
        (doc! { "written": 1 }, Some(Duration::from_secs(60))),
    ] {
        in_database(async move |database| {
            let options = mongodb::options::IndexOptions::builder()
                .name("uid".to_owned())
                .expire_after(expires)
                .build();
            let other = mongodb::IndexModel::builder().keys(keys);
            let artifacts = database.collection::<Document>("artifacts");
            let made = artifacts.create_index(other.options(options).build()).await;
            made.expect("MongoDB is up");
            let error = refused(settings(&database)).await;
            assert!(matches!(error, OpenError::Index { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("index uid of artifacts"), "{text}");
            assert!(text.contains("drop it"), "{text}");
            artifacts.drop_index("uid").await.expect("it is there");
            drop(opened(&database).await);
        });
    }
}

/// Every way a record may be damaged in: its run is told to end, the others go on.
#[test]
fn a_rotten_record_is_told_in_reads_of_grants_and_leaves_the_others_alone() {
    let ways = || {
        [
            doc! { "$set": { "v": 99 } },
            doc! { "$set": { "body": "rotten" } },
            doc! { "$set": { "body": 7 } },
            doc! { "$unset": { "body": true } },
        ]
    };
    in_database(async |database| {
        let store = opened(&database).await;
        let mut shard = take(&store, "one").await;
        for (collection, id) in [("tasks", "bad"), ("nodes", "bad\na")] {
            for rot in ways() {
                let records: Vec<Record> = ["bad", "good"]
                    .into_iter()
                    .flat_map(|id| [task(id).record(), granted(id, "a", 1, "w").record()])
                    .collect();
                let whole = Commit {
                    records,
                    ..next(&shard)
                };
                submit(&store, &whole).await.expect("it is in order");
                shard.commit_seq += 1;
                let found = database.collection::<Document>(collection);
                let done = found.update_one(doc! { "_id": id }, rot.clone()).await;
                assert_eq!(done.expect("MongoDB is up").modified_count, 1);
                let told = format!("{collection}: {rot}");
                assert_eq!(current(&store).await, [false, true], "{told}");
                assert_eq!(loaded(&store).await, ["good"], "{told}");
            }
        }
    });
}

/// Whether the runs of `bad` and `good` may go on.
async fn current(store: &dyn Store) -> Vec<bool> {
    let nodes = ["bad", "good"].map(|id| (task_id(id), node_id("a")));
    let request = StoreRequest::ReadGrants {
        worker_id: worker_id("w"),
        nodes: nodes.to_vec(),
    };
    match store.call(request).await {
        Ok(StoreReply::Grants { grants, .. }) => {
            let views = grants.iter().flatten();
            views
                .map(|view| view.token.is_some() && !view.cancelled)
                .collect()
        }
        other => panic!("not grants: {other:?}"),
    }
}

async fn loaded(store: &dyn Store) -> Vec<String> {
    let request = StoreRequest::LoadTasks {
        shard: mongo_database::SHARD,
        after: None,
        limit: 9,
    };
    match store.call(request).await {
        Ok(StoreReply::Tasks(page)) => {
            assert_eq!(page.unreadable.len(), 1);
            page.tasks
                .iter()
                .map(|task| task.task.task_id.to_string())
                .collect()
        }
        other => panic!("not tasks: {other:?}"),
    }
}

fn large_task(id: &str, bytes: usize) -> TaskRecord {
    TaskRecord {
        graph: large_json(bytes),
        ..task(id)
    }
}

/// MongoDB keeps 16 MiB in a document, and takes 48 MB in a message.
#[test]
fn what_no_document_holds_is_invalid_and_the_store_goes_on() {
    in_database(async |database| {
        let store = opened(&database).await;
        let mut shard = take(&store, "one").await;
        for bytes in [17 * MIB, 50 * MIB] {
            let too_large = Commit {
                records: vec![task("small").record(), large_task("large", bytes).record()],
                ..next(&shard)
            };
            let refused = submit(&store, &too_large).await;
            let kind = refused.map_err(|error| error.kind);
            assert_eq!(kind, Err(ErrorKind::Invalid), "{bytes}");
            let stage = StoreRequest::StageArtifact {
                task_id: task_id("t"),
                node_id: node_id("a"),
                batch_uid: batch_uid("u"),
                token: Token(1),
                body: large_json(bytes),
            };
            let refused = store.call(stage).await.map_err(|error| error.kind);
            assert_eq!(refused, Err(ErrorKind::Invalid), "{bytes}");
        }
        let lookup = StoreRequest::LookupTasks {
            tasks: vec![task_id("small")],
        };
        let nothing = Ok(StoreReply::Answers(vec![None]));
        assert_eq!(store.call(lookup).await, nothing);
        // Each of them fits, all of them together need several commands.
        let many = (0..40).map(|n| large_task(&format!("t{n:02}"), MIB).record());
        let many = Commit {
            records: many.collect(),
            ..next(&shard)
        };
        let done = submit(&store, &many).await;
        assert_eq!(done, Ok(StoreReply::Committed { seq: many.seq }));
        shard.commit_seq += 1;
        let done = submit(&store, &next(&shard)).await;
        assert_eq!(
            done,
            Ok(StoreReply::Committed {
                seq: shard.commit_seq + 1
            })
        );
    });
}

/// A page of artifacts costs two queries, however many of its bodies are staged.
#[test]
fn staged_bodies_are_read_in_one_query() {
    in_database(async |database| {
        let store = opened(&database).await;
        let shard = take(&store, "one").await;
        let body = |number: u64| json(&format!("[{number}]"));
        let mut records: Vec<Record> = vec![task("t").record()];
        for number in 1..=50 {
            let uid = format!("u{number}");
            let stage = StoreRequest::StageArtifact {
                task_id: task_id("t"),
                node_id: node_id("a"),
                batch_uid: batch_uid(&uid),
                token: Token(1),
                body: body(number),
            };
            assert_eq!(store.call(stage).await, Ok(StoreReply::Done));
            let staged = Artifact::Staged(body(number).len() as u64);
            records.push(artifact("t", "a", number, &uid, Some(staged)).record());
        }
        let commit = Commit {
            records,
            ..next(&shard)
        };
        submit(&store, &commit).await.expect("it is in order");
        let profiled = database.run_command(doc! { "profile": 2 }).await;
        profiled.expect("MongoDB is up");
        let read = StoreRequest::ReadArtifacts {
            task_id: task_id("t"),
            node_id: node_id("a"),
            after: 0,
            limit: 100,
        };
        let found = store.call(read).await;
        let Ok(StoreReply::Artifacts(found)) = found else {
            panic!("not artifacts: {found:?}");
        };
        let bodies: Vec<_> = found
            .iter()
            .map(|found: &ArtifactRecord| &found.artifact)
            .collect();
        let inline: Vec<_> = (1..=50)
            .map(|number| Some(Artifact::Inline(body(number))))
            .collect();
        assert_eq!(bodies, inline.iter().collect::<Vec<_>>());
        let stopped = database.run_command(doc! { "profile": 0 }).await;
        stopped.expect("MongoDB is up");
        let staged = doc! { "ns": format!("{}.staged", database.name()) };
        let profile = database.collection::<Document>("system.profile");
        let queries = profile.count_documents(staged).await;
        assert_eq!(queries.expect("MongoDB is up"), 1);
    });
}
