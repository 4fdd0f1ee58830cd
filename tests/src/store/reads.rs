//! Loads, lookups, lists, active runs; ids and values of any shape.

use flowkit_core::id::ShardId;
use flowkit_core::port::{ErrorKind, Record, StoreReply, StoreRequest};
use flowkit_core::record::{Failure, NodeRecord, TaskState};

use super::{Owner, SHARD, grants, ids, list, load, lookup, read_task};
use crate::StoreInstance;
use crate::records::{
    IntoRecord, granted, large_json, node, node_id, settled_task, task, task_id, worker_id,
};

/// By task id, without the settled ones and without those of other shards.
pub async fn loading_pages_the_unsettled_tasks_of_a_shard(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let mut other = Owner::take_shard(store, "one", ShardId(1)).await;
    assert_eq!(ids(&load(store, SHARD, None, 10).await), [""; 0]);
    let mut records: Vec<Record> = ["c", "a", "e", "b", "d"]
        .map(|id| task(id).record())
        .to_vec();
    records.push(settled_task("bb").record());
    records.push(node("b", "n").record());
    records.push(node("e", "n").record());
    owner.commit(store, records).await;
    other.commit(store, vec![task("aa").record()]).await;
    let page = load(store, SHARD, None, 2).await;
    assert_eq!((ids(&page), page.more), (vec!["a", "b"], true));
    assert_eq!(page.tasks[1].nodes, [node("b", "n")]);
    let page = load(store, SHARD, Some("b"), 2).await;
    assert_eq!((ids(&page), page.more), (vec!["c", "d"], true));
    let page = load(store, SHARD, Some("d"), 2).await;
    assert_eq!((ids(&page), page.more), (vec!["e"], false));
    let page = load(store, SHARD, Some("b"), 3).await;
    assert_eq!((ids(&page), page.more), (vec!["c", "d", "e"], false));
    assert!(load(store, SHARD, Some("e"), 2).await.tasks.is_empty());
    assert_eq!(ids(&load(store, ShardId(1), None, 9).await), ["aa"]);
    owner.commit(store, vec![settled_task("c").record()]).await;
    let page = load(store, SHARD, None, 9).await;
    assert_eq!(ids(&page), ["a", "b", "d", "e"]);
    // A terminal task that still has a grant is not settled.
    let mut failed = task("c");
    failed.state = TaskState::Failed;
    owner.commit(store, vec![failed.record()]).await;
    assert_eq!(load(store, SHARD, None, 9).await.tasks.len(), 5);
}

/// Each node on its own, from its newest write.
pub async fn records_age_by_store_time(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let first = vec![
        task("t").record(),
        node("t", "a").record(),
        node("t", "b").record(),
    ];
    owner.commit(store, first).await;
    store.pass_time(100).await;
    owner.commit(store, vec![node("t", "b").record()]).await;
    store.pass_time(20).await;
    let page = load(store, SHARD, None, 10).await;
    let [a, b] = page.tasks[0].node_age_ms[..] else {
        panic!("not two ages: {:?}", page.tasks[0].node_age_ms);
    };
    assert!(a >= 120 && b >= 20 && a - b >= 100, "ages {a} and {b}");
    store.crash_and_reopen().await;
    let page = load(store, SHARD, None, 10).await;
    let [a, b] = page.tasks[0].node_age_ms[..] else {
        panic!("not two ages: {:?}", page.tasks[0].node_age_ms);
    };
    // A clock that stood still while nothing was open is late, never early.
    assert!(a >= b && a - b >= 100, "ages {a} and {b} after a crash");
}

/// One answer per id, the unknown ones too.
pub async fn lookups_answer_in_order(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let mut failed = settled_task("f");
    failed.state = TaskState::Failed;
    failed.submission_hash = 1 << 100;
    failed.failure = Some(Failure {
        node_id: node_id("a"),
        reason_code: "bad_input".into(),
        error: "line 3: ö".into(),
    });
    owner
        .commit(store, vec![task("t").record(), failed.clone().record()])
        .await;
    let answers = lookup(store, &["x", "f", "t", "f"]).await;
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0], None);
    let found = answers[1].as_ref().expect("it exists");
    assert_eq!(
        (found.submission_hash, found.state, found.settled),
        (failed.submission_hash, TaskState::Failed, true)
    );
    assert_eq!(found.failure, failed.failure);
    let found = answers[2].as_ref().expect("it exists");
    assert_eq!(
        (found.submission_hash, found.state, found.settled),
        (task("t").submission_hash, TaskState::Running, false)
    );
    assert_eq!(answers[1], answers[3]);
    assert!(lookup(store, &[]).await.is_empty());
}

/// All shards, settled or not, without nodes.
pub async fn lists_page_every_task(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let mut other = Owner::take_shard(store, "one", ShardId(1)).await;
    assert!(list(store, None, 5).await.tasks.is_empty());
    let records = vec![
        task("b").record(),
        settled_task("d").record(),
        node("b", "n").record(),
    ];
    owner.commit(store, records).await;
    other
        .commit(store, vec![task("a").record(), settled_task("c").record()])
        .await;
    let mut found: Vec<String> = Vec::new();
    let mut after = None;
    for more in [true, false] {
        let page = list(store, after.clone(), 2).await;
        assert_eq!(page.more, more);
        assert!(page.tasks.iter().all(|task| task.nodes.is_empty()));
        found.extend(ids(&page).into_iter().map(str::to_owned));
        after = page.tasks.last().map(|t| t.task.task_id.clone());
    }
    assert_eq!(found, ["a", "b", "c", "d"]);
}

/// Nodes come by node id, each with its age; an unknown task is `None`.
pub async fn a_task_is_read_with_its_nodes_by_id(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let nodes = ["b", "ab", "a", "B"].map(|name| node("t", name));
    let mut records: Vec<Record> = nodes.map(IntoRecord::record).to_vec();
    records.push(task("t").record());
    owner.commit(store, records).await;
    let read = read_task(store, "t").await.expect("it is committed");
    let names: Vec<&str> = read.nodes.iter().map(|n| n.node_id.as_str()).collect();
    assert_eq!(names, ["B", "a", "ab", "b"]);
    assert_eq!(read.node_age_ms.len(), 4);
    assert_eq!(read_task(store, "u").await, None);
}

async fn active(store: &StoreInstance, worker: &str) -> Vec<NodeRecord> {
    let request = StoreRequest::ActiveRuns {
        worker_id: worker_id(worker),
    };
    match store.ok(request).await {
        StoreReply::Nodes(nodes) => nodes,
        other => panic!("not nodes: {other:?}"),
    }
}

/// Granted here, granted elsewhere, ended.
pub async fn active_runs_follow_the_grants(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let first = [granted("t", "a", 1, "w1"), granted("u", "a", 1, "w1")];
    let mut records: Vec<Record> = first.iter().cloned().map(IntoRecord::record).collect();
    records.push(granted("t", "b", 1, "w2").record());
    records.push(node("t", "c").record());
    records.extend(["t", "u"].map(|id| task(id).record()));
    owner.commit(store, records).await;
    assert_eq!(active(store, "w1").await, first);
    assert_eq!(active(store, "w2").await.len(), 1);
    assert_eq!(active(store, "w3").await, []);
    let moved = granted("t", "a", 2, "w2");
    owner
        .commit(store, vec![moved.record(), node("u", "a").record()])
        .await;
    assert_eq!(active(store, "w1").await, []);
    assert_eq!(active(store, "w2").await.len(), 2);
    store.crash_and_reopen().await;
    assert_eq!(active(store, "w2").await.len(), 2);
}

/// The others load; its id stays taken, its runs are told to end.
pub async fn an_unreadable_record_sets_its_task_aside(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let mut records: Vec<Record> = ["a", "b", "c"].map(|id| task(id).record()).to_vec();
    records.push(granted("b", "n", 1, "w").record());
    records.push(granted("c", "n", 1, "w").record());
    owner.commit(store, records).await;
    let damaged = store.make_unreadable(&task_id("a"), None).await;
    assert_eq!(damaged, store.caps.unreadable);
    if !damaged {
        assert_eq!(load(store, SHARD, None, 9).await.tasks.len(), 3);
        return;
    }
    assert!(
        store
            .make_unreadable(&task_id("b"), Some(&node_id("n")))
            .await
    );
    let page = load(store, SHARD, None, 9).await;
    assert_eq!(ids(&page), ["c"]);
    let aside: Vec<&str> = page.unreadable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(aside, ["a", "b"]);
    let answer = lookup(store, &["a"]).await[0].clone();
    let answer = answer.expect("its id is taken");
    assert_eq!(answer.state, TaskState::Quarantined);
    let views = grants(store, &[("b", "n"), ("c", "n")]).await;
    let view = views[0].as_ref().expect("the node exists");
    assert_eq!((view.token, view.cancelled), (None, true));
    assert!(view.unreadable, "its token may show again");
    let view = views[1].as_ref().expect("the node exists");
    assert!(view.token.is_some() && !view.cancelled && !view.unreadable);
    let read = StoreRequest::ReadTask {
        task_id: task_id("a"),
    };
    assert_eq!(store.refused(read).await, ErrorKind::Corrupt);
    let page = list(store, None, 9).await;
    assert_eq!(ids(&page), ["b", "c"]);
    assert_eq!(page.unreadable.len(), 1);
}

/// Keys built of ids never run into each other, and order is that of the text's bytes.
pub async fn ids_of_any_script_and_shape_stay_apart(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let long = "ü".repeat(100);
    let mut names = vec![
        "a",
        "a.b",
        "a/b",
        "a:b",
        "a b",
        "ab",
        "aa",
        "A",
        "-",
        "Ω",
        "任务",
        "🦀",
        "é",
        "e\u{301}",
        "\u{ff}",
        "\u{10ffff}",
        "null",
        "0",
        "00",
        "{}",
        "a|b",
        "a,b",
        "\"",
        "a$",
        "%00",
        &long,
    ];
    let mut records = Vec::new();
    for name in &names {
        records.push(task(name).record());
        records.push(granted(name, "n", 1, name).record());
        records.push(granted(name, name, 2, name).record());
    }
    owner.commit(store, records).await;
    names.sort_unstable();
    assert_eq!(ids(&load(store, SHARD, None, 99).await), names);
    let mut after = None;
    for name in &names {
        let page = load(store, SHARD, after, 1).await;
        assert_eq!(ids(&page), [*name]);
        assert_eq!(page.tasks[0].nodes.len(), 2, "nodes of {name}");
        assert_eq!(active(store, name).await.len(), 2, "runs of {name}");
        after = Some(*name);
    }
}

/// Megabytes, numbers at their limits, text that needs escapes.
pub async fn large_values_come_back_whole(store: &mut StoreInstance) {
    let mut owner = Owner::take(store, "one").await;
    let mut big = task("t");
    big.graph = large_json(1024 * 1024);
    big.created_at_ms = i64::MIN;
    big.submission_hash = u128::MAX;
    big.idempotency_key = Some("\"\\\u{7f}\n\t€".into());
    big.cancel_grace_ms = Some(i64::MAX.unsigned_abs());
    let mut at_limits = granted("t", "a", i64::MAX.unsigned_abs(), "w");
    at_limits.checkpoint = Some(large_json(64 * 1024));
    at_limits.accepted = i64::MAX.unsigned_abs();
    at_limits.failures = u32::MAX;
    let total = at_limits.totals.entry("a.b$c".into()).or_default();
    total.add(f64::MIN_POSITIVE);
    total.add(f64::MAX);
    let records = vec![big.clone().record(), at_limits.clone().record()];
    owner.commit(store, records).await;
    store.crash_and_reopen().await;
    let read = read_task(store, "t").await.expect("it is committed");
    assert_eq!(read.task, big);
    assert_eq!(read.nodes, [at_limits]);
}
