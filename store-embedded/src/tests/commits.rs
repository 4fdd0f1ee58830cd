//! What commits write and reads return.

use flowkit_core::id::{Incarnation, ShardId, TaskId, Token};
use flowkit_core::message::Artifact;
use flowkit_core::port::{ErrorKind, GrantView, Record, Store, StoreReply, StoreRequest, TaskPage};
use flowkit_core::record::TaskState;
use std::sync::Arc;

use super::records::{artifact, grant, id, json, node, put_artifact, put_node, put_task, task};
use super::{Owner, SHARD, ask};
use crate::testing::FaultyDisk;

async fn load(owner: &Owner, after: Option<TaskId>, limit: u32) -> TaskPage {
    let request = StoreRequest::LoadTasks {
        shard: SHARD,
        after,
        limit,
    };
    match ask(&owner.store, request).await {
        StoreReply::Tasks(page) => page,
        other => panic!("{other:?}"),
    }
}

fn ids(page: &TaskPage) -> Vec<&str> {
    page.tasks.iter().map(|t| t.task.task_id.as_str()).collect()
}

#[tokio::test]
async fn an_applied_commit_is_read_by_the_owner_and_synced_state_by_others() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let mut running = node("t1", "a");
    running.grant = Some(grant("w"));
    owner
        .commit(vec![put_task(task("t1")), put_node(running.clone())])
        .await
        .unwrap();

    let page = load(&owner, None, 10).await;
    assert_eq!(page.tasks[0].nodes, vec![running.clone()]);
    let read = StoreRequest::ReadTask { task_id: id("t1") };
    assert_eq!(
        ask(&owner.store, read.clone()).await,
        StoreReply::Task(None)
    );
    let runs = StoreRequest::ActiveRuns { worker_id: id("w") };
    assert_eq!(
        ask(&owner.store, runs.clone()).await,
        StoreReply::Nodes(vec![])
    );

    assert_eq!(owner.sync().await, Ok(StoreReply::Synced { seq: 1 }));
    match ask(&owner.store, read).await {
        StoreReply::Task(Some(found)) => assert_eq!(found.task, task("t1")),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        ask(&owner.store, runs).await,
        StoreReply::Nodes(vec![running])
    );
}

#[tokio::test]
async fn unsettled_tasks_are_paged_in_order_and_settled_ones_left_out() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let names = ["t10", "t1", "t2", "t1x"];
    owner
        .commit(names.iter().map(|name| put_task(task(name))).collect())
        .await
        .unwrap();
    let mut settled = task("t2");
    settled.state = TaskState::Finished;
    settled.settled = true;
    owner.commit(vec![put_task(settled)]).await.unwrap();

    let page = load(&owner, None, 2).await;
    assert_eq!((ids(&page), page.more), (vec!["t1", "t10"], true));
    let page = load(&owner, Some(id("t10")), 2).await;
    assert_eq!((ids(&page), page.more), (vec!["t1x"], false));
    let other = StoreRequest::LoadTasks {
        shard: ShardId(1),
        after: None,
        limit: 10,
    };
    match ask(&owner.store, other).await {
        StoreReply::Tasks(page) => assert!(page.tasks.is_empty() && !page.more),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_commit_writes_nothing_and_says_why() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let inline = || Artifact::Inline(json("1"));
    let first = put_artifact(artifact("t", "n", 1, inline()));
    owner.commit(vec![first.clone()]).await.unwrap();

    let mut same_uid = artifact("t", "n", 2, inline());
    same_uid.batch_uid = id("batch-1");
    let mut same_number = artifact("t", "n", 1, inline());
    same_number.batch_uid = id("batch-9");
    let twice = vec![put_task(task("t")), put_task(task("t"))];
    let cases: [(Vec<Record>, &str); 3] = [
        (
            vec![put_task(task("new")), put_artifact(same_uid)],
            "batch batch-1 of t/n exists already",
        ),
        (
            vec![put_task(task("new")), put_artifact(same_number)],
            "artifact 1 of t/n exists already",
        ),
        (twice, "task t is written twice in one commit"),
    ];
    for (records, why) in cases {
        let error = owner.commit(records).await.unwrap_err();
        assert_eq!((error.kind, &*error.detail), (ErrorKind::Invalid, why));
        owner.shard.commit_seq -= 1;
    }
    assert!(load(&owner, None, 10).await.tasks.is_empty());
    owner.commit(vec![put_task(task("new"))]).await.unwrap();
    assert_eq!(ids(&load(&owner, None, 10).await), ["new"]);
}

#[tokio::test]
async fn commits_are_fenced_by_epoch_repeated_by_id_and_kept_in_order() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let commit = owner.next(vec![put_task(task("t"))]);
    let send = |commit| owner.store.call(StoreRequest::Commit(Arc::new(commit)));
    let kind =
        |result: Result<StoreReply, _>| result.map_err(|e: flowkit_core::port::PortError| e.kind);

    let mut ahead = commit.clone();
    ahead.seq = 2;
    assert_eq!(kind(send(ahead).await), Err(ErrorKind::Conflict));
    let mut zombie = commit.clone();
    zombie.epoch = 0;
    assert_eq!(kind(send(zombie).await), Err(ErrorKind::Fenced));
    assert_eq!(
        send(commit.clone()).await,
        Ok(StoreReply::Committed { seq: 1 })
    );
    assert_eq!(
        send(commit.clone()).await,
        Ok(StoreReply::Committed { seq: 1 })
    );
    let mut another = commit;
    another.id += 1;
    assert_eq!(kind(send(another).await), Err(ErrorKind::Conflict));
}

#[tokio::test]
async fn grants_are_read_as_applied() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let mut running = node("t", "a");
    running.grant = Some(grant("w"));
    let records = vec![
        put_task(task("t")),
        put_node(running),
        put_node(node("t", "b")),
    ];
    owner.commit(records).await.unwrap();
    let asked = |name| (id("t"), id(name));
    let read = StoreRequest::ReadGrants {
        worker_id: id("w"),
        nodes: vec![asked("a"), asked("b"), asked("c")],
    };
    let view = |token, cancelled| {
        Some(GrantView {
            token,
            cancelled,
            unreadable: false,
        })
    };
    assert_eq!(
        ask(&owner.store, read.clone()).await,
        StoreReply::Grants {
            incarnation: Incarnation(0),
            grants: vec![view(Some(Token(3)), false), view(None, false), None],
        }
    );
    let mut cancelling = task("t");
    cancelling.state = TaskState::Cancelling;
    owner.commit(vec![put_task(cancelling)]).await.unwrap();
    assert_eq!(
        ask(&owner.store, read).await,
        StoreReply::Grants {
            incarnation: Incarnation(0),
            grants: vec![view(Some(Token(3)), true), view(None, true), None],
        }
    );
}

#[tokio::test]
async fn staged_artifacts_are_resolved_and_kept_once_accepted() {
    let disk = FaultyDisk::new(Vec::new());
    let mut owner = Owner::on(&disk).await;
    let stage = |body: &str| StoreRequest::StageArtifact {
        task_id: id("t"),
        node_id: id("n"),
        batch_uid: id("batch-1"),
        token: Token(3),
        body: json(body),
    };
    ask(&owner.store, stage("[1]")).await;
    ask(&owner.store, stage("[2]")).await;
    let records = vec![
        put_artifact(artifact("t", "n", 1, Artifact::Staged(3))),
        put_artifact(artifact("t", "n", 2, Artifact::Inline(json("5")))),
    ];
    owner.commit(records).await.unwrap();
    owner.sync().await.unwrap();

    let error = owner.store.call(stage("[3]")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(ask(&owner.store, stage("[2]")).await, StoreReply::Done);
    let read = |after| StoreRequest::ReadArtifacts {
        task_id: id("t"),
        node_id: id("n"),
        after,
        limit: 10,
    };
    let expected = |number, body| artifact("t", "n", number, Artifact::Inline(json(body)));
    assert_eq!(
        ask(&owner.store, read(0)).await,
        StoreReply::Artifacts(vec![expected(1, "[2]"), expected(2, "5")])
    );
    assert_eq!(
        ask(&owner.store, read(1)).await,
        StoreReply::Artifacts(vec![expected(2, "5")])
    );
    let accepted = StoreRequest::ReadAccepted {
        task_id: id("t"),
        node_id: id("n"),
        after: 0,
        limit: 1,
    };
    assert_eq!(
        ask(&owner.store, accepted).await,
        StoreReply::Accepted(vec![(1, id("batch-1"))])
    );
}

#[tokio::test]
async fn an_older_token_can_neither_read_nor_write_the_scratch() {
    let disk = FaultyDisk::new(Vec::new());
    let owner = Owner::on(&disk).await;
    let take = |token| StoreRequest::TakeScratch {
        task_id: id("t"),
        node_id: id("n"),
        token: Token(token),
    };
    let put = |token, x: &str| StoreRequest::PutScratch {
        task_id: id("t"),
        node_id: id("n"),
        token: Token(token),
        save_no: 1,
        batch_uid: id("b"),
        checkpoint: json(x),
    };
    assert_eq!(ask(&owner.store, take(1)).await, StoreReply::Scratch(None));
    assert_eq!(ask(&owner.store, put(1, "10")).await, StoreReply::Done);
    match ask(&owner.store, take(2)).await {
        StoreReply::Scratch(Some(found)) => assert_eq!(found.checkpoint, json("10")),
        other => panic!("{other:?}"),
    }
    for late in [take(1), put(1, "11")] {
        assert_eq!(
            owner.store.call(late).await.unwrap_err().kind,
            ErrorKind::Fenced
        );
    }
    assert_eq!(ask(&owner.store, put(2, "12")).await, StoreReply::Done);
}
