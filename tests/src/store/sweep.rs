//! Sweeping: tombstones, removals, and what is found for them.

use flowkit_core::id::{TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{ExpiredPage, Record, Removal, StagedKey, StoreReply, StoreRequest};
use flowkit_core::record::{
    NodeState, RECORD_VERSION, Rerun, TaskRecord, TaskState, TombstoneRecord,
};
use std::time::{Duration, Instant};

use super::artifacts::staged;
use super::{Owner, SHARD, accepted, ids, list, load, lookup, read_task};
use crate::StoreInstance;
use crate::records::{IntoRecord, batch_uid, large_json, node, node_id, settled_task, task_id};

fn tombstone(id: &str) -> Record {
    Record::Tombstone(Box::new(TombstoneRecord {
        version: RECORD_VERSION,
        task_id: task_id(id),
        submission_hash: 77,
        state: TaskState::Failed,
    }))
}

fn over(task: &str, name: &str) -> Record {
    let mut record = node(task, name);
    record.state = NodeState::Finished;
    record.record()
}

fn artifacts_of(task: &str, name: &str, from: u64, to: u64) -> Record {
    Record::Remove(Removal::Artifacts {
        task_id: task_id(task),
        node_id: node_id(name),
        from,
        to,
    })
}

fn node_of(task: &str, name: &str) -> Record {
    Record::Remove(Removal::Node {
        task_id: task_id(task),
        node_id: node_id(name),
    })
}

fn whole(task: &str) -> Record {
    Record::Remove(Removal::Task {
        task_id: task_id(task),
    })
}

async fn stage(store: &StoreInstance, node: (&str, &str), uid: &str, token: u64, body: &Json) {
    let request = StoreRequest::StageArtifact {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        batch_uid: batch_uid(uid),
        token: Token(token),
        body: body.clone(),
    };
    assert_eq!(store.ok(request).await, StoreReply::Done);
}

async fn remains(store: &StoreInstance, task: &str) -> Option<usize> {
    let task_id = task_id(task);
    match store.ok(StoreRequest::ReadRemains { task_id }).await {
        StoreReply::Task(found) => found.map(|found| found.nodes.len()),
        other => panic!("not a task: {other:?}"),
    }
}

async fn expired(
    store: &StoreInstance,
    failed: bool,
    age_ms: u64,
    after: Option<(i64, TaskId)>,
    limit: u32,
) -> ExpiredPage {
    let request = StoreRequest::ReadExpired {
        shard: SHARD,
        failed,
        age_ms,
        after,
        limit,
    };
    match store.ok(request).await {
        StoreReply::Expired(page) => page,
        other => panic!("not a page: {other:?}"),
    }
}

fn names(page: &ExpiredPage) -> Vec<&str> {
    page.tasks
        .iter()
        .map(|task| task.task_id.as_str())
        .collect()
}

async fn swept(
    store: &StoreInstance,
    task: &str,
    after: Option<StagedKey>,
    limit: u32,
) -> (u32, Option<StagedKey>) {
    let request = StoreRequest::SweepStaged {
        task_id: task_id(task),
        after,
        limit,
    };
    match store.ok(request).await {
        StoreReply::Swept { removed, next } => (removed, next),
        other => panic!("not swept: {other:?}"),
    }
}

/// From its tombstone on a task is seen by nobody but who sweeps it, and its id is taken.
pub async fn a_tombstone_hides_its_task_and_keeps_its_id(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "o").await;
    let records = vec![settled_task("t").record(), over("t", "n")];
    owner.commit(store, records).await;
    owner.commit(store, vec![settled_task("u").record()]).await;
    owner.commit(store, vec![tombstone("t")]).await;
    assert!(read_task(store, "t").await.is_none());
    assert_eq!(ids(&list(store, None, 10).await), ["u"]);
    assert_eq!(remains(store, "t").await, Some(1));
    for _ in 0..2 {
        let known = lookup(store, &["t", "u", "v"]).await;
        let stone = known[0].as_ref().expect("a tombstone");
        let said = (
            stone.submission_hash,
            stone.state,
            stone.settled,
            stone.swept,
        );
        assert_eq!(said, (77, TaskState::Failed, true, true));
        assert!(known[1].as_ref().is_some_and(|known| !known.swept));
        assert!(known[2].is_none());
        // The same again, and without its task.
        let records = vec![tombstone("t"), node_of("t", "n"), whole("t")];
        owner.commit(store, records).await;
    }
    assert_eq!(remains(store, "t").await, None);
    assert_eq!(load(store, SHARD, None, 10).await.tasks.len(), 0);
}

/// Removals name what they take; what is not there is no fault, and neighbours stay.
pub async fn a_removal_takes_its_own_records_and_nothing_else(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "o").await;
    let body = large_json(300_000);
    let mut records = vec![
        settled_task("t").record(),
        settled_task("t2").record(),
        over("t", "n"),
        over("t", "n2"),
        over("t2", "n"),
    ];
    for (task, name) in [("t", "n"), ("t", "n2"), ("t2", "n")] {
        for number in 1..=4 {
            let uid = format!("b{number}");
            stage(store, (task, name), &uid, 1, &body).await;
            records.push(staged(task, name, number, &uid, 1, &body).record());
        }
    }
    owner.commit(store, records).await;
    let gone = vec![artifacts_of("t", "n", 2, 3), artifacts_of("t", "n", 9, 5)];
    owner.commit(store, gone).await;
    assert_eq!(accepted(store, ("t", "n"), 0, 10).await, [1, 4]);
    assert_eq!(accepted(store, ("t", "n2"), 0, 10).await, [1, 2, 3, 4]);
    assert_eq!(accepted(store, ("t2", "n"), 0, 10).await, [1, 2, 3, 4]);
    // Their bodies and uids are gone with them: the number and the uid may be used again.
    let again = staged("t", "n", 2, "b3", 2, &body);
    stage(store, ("t", "n"), "b3", 2, &body).await;
    owner.commit(store, vec![again.record()]).await;
    assert_eq!(swept(store, "t", None, 100).await, (0, None));
    let gone = vec![artifacts_of("t", "n", 1, u64::MAX), node_of("t", "n")];
    owner.commit(store, gone.clone()).await;
    owner.commit(store, gone).await;
    assert_eq!(remains(store, "t").await, Some(1));
    assert_eq!(accepted(store, ("t", "n"), 0, 10).await, [0_u64; 0]);
    owner.commit(store, vec![whole("t"), whole("nobody")]).await;
    assert_eq!(remains(store, "t").await, None);
    assert_eq!(accepted(store, ("t", "n2"), 0, 10).await, [1, 2, 3, 4]);
    assert_eq!(remains(store, "t2").await, Some(1));
    assert_eq!(names(&expired(store, false, 0, None, 10).await), ["t2"]);
}

/// The store's clock decides, counted from the last write of a settled task's record.
pub async fn settled_tasks_expire_by_store_time_longest_ago_first(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "o").await;
    let failed = |id: &str| TaskRecord {
        state: TaskState::Cancelled,
        ..settled_task(id)
    };
    owner.commit(store, vec![settled_task("c").record()]).await;
    store.pass_time(300).await;
    let live = crate::records::task("live").record();
    let records = vec![settled_task("a").record(), failed("f").record(), live];
    owner.commit(store, records).await;
    assert_eq!(names(&expired(store, false, 0, None, 10).await), ["c", "a"]);
    // A real clock may have gone on so far that "a" is old, too. Written again it is young again.
    for round in 0.. {
        assert!(round < 100, "no round within 250 ms");
        let began = Instant::now();
        owner.commit(store, vec![settled_task("a").record()]).await;
        let page = expired(store, false, 250, None, 10).await;
        if began.elapsed() < Duration::from_millis(250) {
            assert_eq!(names(&page), ["c"]);
            break;
        }
    }
    assert_eq!(names(&expired(store, true, 0, None, 10).await), ["f"]);
    assert_eq!(
        names(&expired(store, true, 3_600_000, None, 10).await),
        [""; 0]
    );
    assert_eq!(
        names(&expired(store, true, u64::MAX, None, 10).await),
        [""; 0]
    );
    // Paged.
    let page = expired(store, false, 0, None, 1).await;
    assert_eq!((names(&page), page.more), (vec!["c"], true));
    let last = &page.tasks[0];
    let after = Some((last.written_ms, last.task_id.clone()));
    let page = expired(store, false, 0, after, 1).await;
    assert_eq!((names(&page), page.more), (vec!["a"], false));
    // Written again: its time begins anew, in its new class.
    store.pass_time(50).await;
    owner.commit(store, vec![failed("c").record()]).await;
    assert_eq!(names(&expired(store, false, 0, None, 10).await), ["a"]);
    assert_eq!(names(&expired(store, true, 0, None, 10).await), ["f", "c"]);
}

/// A rerun points to its sources until its own record goes.
pub async fn a_task_that_another_one_points_to_says_so(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "o").await;
    let again = TaskRecord {
        rerun: Some(Rerun {
            of: task_id("t"),
            holds: vec![task_id("first"), task_id("t")],
        }),
        ..settled_task("again")
    };
    let records = vec![
        settled_task("first").record(),
        settled_task("t").record(),
        settled_task("t2").record(),
        again.record(),
    ];
    owner.commit(store, records).await;
    let pointed = |page: ExpiredPage| -> Vec<String> {
        let tasks = page.tasks.into_iter().filter(|task| task.pointed);
        tasks.map(|task| task.task_id.to_string()).collect()
    };
    let page = expired(store, false, 0, None, 10).await;
    assert_eq!(names(&page), ["again", "first", "t", "t2"]);
    assert_eq!(pointed(page), ["first", "t"]);
    owner.commit(store, vec![tombstone("again")]).await;
    assert_eq!(pointed(expired(store, false, 0, None, 10).await).len(), 2);
    owner.commit(store, vec![whole("again")]).await;
    assert_eq!(pointed(expired(store, false, 0, None, 10).await), [""; 0]);
}

/// Bodies of nodes that may still accept stay, and so do accepted ones.
pub async fn staged_bodies_that_nothing_can_point_to_are_swept(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "o").await;
    let body = large_json(300_000);
    let records = vec![
        crate::records::task("t").record(),
        over("t", "done"),
        node("t", "live").record(),
    ];
    owner.commit(store, records).await;
    for name in ["done", "gone", "live"] {
        for (uid, token) in [("b1", 1), ("b1", 2), ("b2", 2)] {
            stage(store, ("t", name), uid, token, &body).await;
        }
    }
    let taken = staged("t", "done", 1, "b1", 2, &body);
    owner.commit(store, vec![taken.record()]).await;
    let (mut removed, mut pages, mut after) = (0, 0, None);
    loop {
        let (count, next) = swept(store, "t", after, 2).await;
        (removed, pages) = (removed + count, pages + 1);
        if next.is_none() {
            break;
        }
        after = next;
    }
    assert_eq!((removed, pages), (5, 5));
    assert_eq!(swept(store, "t", None, 100).await, (0, None));
    assert_eq!(swept(store, "nobody", None, 100).await, (0, None));
    let kept = super::artifacts(store, ("t", "done"), 0, 10).await;
    assert_eq!(kept.len(), 1);
}

/// Whether the task exists or not.
pub async fn tasks_with_staged_bodies_are_paged(store: &mut StoreInstance) {
    let body = large_json(300_000);
    for task in ["a", "a b", "b", "ab"] {
        for name in ["n", "m"] {
            stage(store, (task, name), "b1", 1, &body).await;
        }
    }
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let request = StoreRequest::ReadStaged {
            after: after.clone(),
            limit: 2,
        };
        let StoreReply::Staged { tasks, more } = store.ok(request).await else {
            panic!("not staged");
        };
        assert_eq!(more, found.is_empty());
        after = tasks.last().cloned();
        found.extend(tasks);
        if !more {
            break;
        }
    }
    let found: Vec<&str> = found.iter().map(TaskId::as_str).collect();
    assert_eq!(found, ["a", "a b", "ab", "b"]);
    for task in found {
        assert_eq!(swept(store, task, None, 100).await, (2, None));
    }
    let request = StoreRequest::ReadStaged {
        after: None,
        limit: 2,
    };
    let nothing = StoreReply::Staged {
        tasks: vec![],
        more: false,
    };
    assert_eq!(store.ok(request).await, nothing);
}
