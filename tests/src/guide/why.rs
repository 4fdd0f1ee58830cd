//! Why a task is not running, as whoever looks from outside is told.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, HandlerError, Json, NodeState, RunContext, WaitsFor, Why, WorkerSettings,
    handler_fn,
};
use serde_json::json;
use std::sync::Mutex;
use std::time::Duration;

use super::{Ground, Site, finished, one_node, until};

/// One node of each kind of waiting.
pub async fn why_says_of_every_node_what_it_waits_for(ground: impl Ground) {
    let site = Site::new(ground).await;
    let hold = handler_fn(|cx: RunContext, _: Batch<Json>| async move {
        cx.cancelled().await;
        Err::<BatchResult<()>, _>(HandlerError::cancelled())
    });
    let flaky = handler_fn(|_, _: Batch<Json>| async move {
        Err::<BatchResult<()>, _>(HandlerError::transient("rate_limited", "ask later"))
    });
    let process = site.process().await;
    process.start(process.builder().worker_id("holder").role("hold", hold));
    site.worker("flaky", flaky).await;
    let nothing = || handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    let left = site.worker("left", nothing()).await;
    finished(&site.submit(&one_node("left", json!({}))).await).await;
    left.stop().await.expect("in order");
    // Announces itself often, so it is missed soon.
    let often = WorkerSettings::default().announce_interval_sec(1.0);
    let killed = site.process().await;
    killed.start(killed.builder().role("killed", nothing()).settings(often));
    finished(&site.submit(&one_node("killed", json!({}))).await).await;
    killed.kill().await;

    let held = site.submit(&one_node("hold", json!({}))).await;
    until(async || {
        let node = held.status().await.expect("there").nodes.remove(0);
        (node.state == NodeState::Running).then_some(())
    })
    .await;
    let joins = |id: &str, fan_in: &str| {
        let parents = ["done", "busy", "lonely"];
        json!({"node_id": id, "type": "hold", "depends_on": parents, "fan_in": fan_in})
    };
    let graph = json!({"nodes": [
        {"node_id": "done", "type": "coordinator_fn", "io": {"fn": "noop"}},
        joins("all", "all"),
        joins("some", "count:3"),
        {"node_id": "busy", "type": "hold"},
        {"node_id": "retried", "type": "flaky", "retry_policy": {"max": 2, "backoff_sec": 3000}},
        {"node_id": "lonely", "type": "nobody"},
        {"node_id": "left", "type": "left"},
        {"node_id": "killed", "type": "killed"},
    ]});
    let task = site.submit(&graph).await;
    let expected = [
        (
            "all",
            WaitsFor::Parents,
            "waits for 2 of 3 parents: `busy` (ready), `lonely` (ready)",
        ),
        (
            "some",
            WaitsFor::Parents,
            "waits for 2 more of 3 parents (its fan_in is `count:3`): `busy` (ready), `lonely` (ready)",
        ),
        (
            "busy",
            WaitsFor::Slot,
            "all slots of role `hold` are busy: holder",
        ),
        ("retried", WaitsFor::Retry, "next retry in 4"),
        (
            "lonely",
            WaitsFor::Worker,
            "no worker for role `nobody` has ever registered",
        ),
        (
            "left",
            WaitsFor::Worker,
            "the workers for role `left` are stopping or have stopped",
        ),
        (
            "killed",
            WaitsFor::Worker,
            "no worker for role `killed` seen for ",
        ),
    ];
    let said = |why: &Why, (id, waits_for, begin): (&str, WaitsFor, &str)| {
        let mut nodes = why.nodes.iter();
        let node = nodes.find(|node| node.node_id.as_str() == id)?;
        let as_said = node.waits_for == waits_for && node.why.starts_with(begin);
        (as_said && (waits_for == WaitsFor::Parents || node.cure.is_some())).then_some(())
    };
    // What is told of workers stands in streams, where it comes by and by.
    let told = |why: &Why| expected.iter().all(|node| said(why, *node).is_some());
    let seen = Mutex::new(None);
    let look = async || {
        let why = task.why().await.expect("it can be told");
        let all = told(&why).then_some(());
        *seen.lock().expect("no panic") = Some(why);
        all
    };
    let in_time = tokio::time::timeout(Duration::from_secs(40), until(look)).await;
    let why = seen.into_inner().expect("no panic").expect("it looked");
    assert!(in_time.is_ok(), "{why:#?}");
    assert_eq!(
        why.nodes.len(),
        expected.len(),
        "what is done needs no word"
    );
    let retried = why
        .nodes
        .iter()
        .find(|node| node.state == NodeState::Deferred);
    let retried = &retried.expect("it waits").why;
    assert!(
        retried.ends_with(" min: attempt 1 of 2 failed (rate_limited)"),
        "{retried}"
    );
    let whole = "nothing of it runs: node `busy` all slots of role `hold` are busy";
    assert!(why.why.starts_with(whole), "{why:?}");

    let why = held.why().await.expect("it can be told");
    assert_eq!(why.why, "it runs: nodes running 1, waiting 0");
    let node = &why.nodes[0];
    assert!(
        node.why.starts_with("runs on holder: 0 batches accepted"),
        "{node:?}"
    );
    for task in [held, task] {
        task.cancel("enough", None).await.expect("durable");
        task.wait().await.expect("it ends");
        let why = task.why().await.expect("it can be told");
        let whole = "it was cancelled (enough)";
        assert_eq!((why.why.as_str(), why.nodes.len()), (whole, 0));
    }
    site.stop().await;
}
