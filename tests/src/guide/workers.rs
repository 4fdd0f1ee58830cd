//! Workers: roles, slots, shares, state that can be asked for, ids.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_core::report::ReportKind;
use flowkit_runtime::{
    Batch, BatchResult, BatchStream, ClientError, CoordinatorSettings, Handler, HandlerError, Json,
    NodeId, RunContext, TaskInput, WorkerId, WorkerSettings, handler_fn,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, Semaphore, mpsc};

use super::{Ground, Site, artifacts, decoded, finished, one_node};

fn many_nodes(count: usize, role: impl Fn(usize) -> &'static str) -> Value {
    let nodes: Vec<_> = (0..count)
        .map(|n| json!({"node_id": format!("n{n}"), "type": role(n), "retry_policy": {"max": 1}}))
        .collect();
    json!({ "nodes": nodes })
}

pub async fn a_node_goes_only_to_a_worker_of_its_role(ground: impl Ground) {
    let site = Site::new(ground).await;
    let roles = ["cpu", "io", "gpu"];
    for role in roles {
        let handler = handler_fn(move |_, _: Batch<Json>| async move { Ok(BatchResult::of(role)) });
        site.worker(role, handler).await;
    }
    let task = site.submit(&many_nodes(9, |n| roles[n % 3])).await;
    finished(&task).await;
    for n in 0..9 {
        let ran = artifacts::<String>(&task, &format!("n{n}")).await;
        assert_eq!(ran, [roles[n % 3]]);
    }
    site.stop().await;
}

/// Two slots and three roles: one permit per slot, so a third run, of whichever role, finds none.
pub async fn the_roles_of_a_worker_share_its_slots(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (slots, together) = (Arc::new(Semaphore::new(2)), Arc::new(Barrier::new(2)));
    let handler = handler_fn(move |_, _: Batch<Json>| {
        let (slots, together) = (slots.clone(), together.clone());
        async move {
            let permit = slots.try_acquire()?;
            // Both slots are used: a node ends with another one.
            together.wait().await;
            drop(permit);
            Ok(BatchResult::of(1))
        }
    });
    let handler = Arc::new(handler);
    let process = site.process().await;
    let mut builder = process.builder().capacity(2);
    let roles = ["a", "b", "c"];
    for role in roles {
        builder = builder.role(role, handler.clone());
    }
    process.start(builder);
    let task = site.submit(&many_nodes(30, |n| roles[n % 3])).await;
    finished(&task).await;
    site.stop().await;
}

/// Nodes that end only when all of their task run: the first task fills every slot there is, so all
/// five workers are known; the second has far more slots to choose from than it needs.
pub async fn five_workers_share_one_role_evenly(ground: impl Ground) {
    let site = Site::new(ground).await;
    let tasks = [50, 20];
    let together = Arc::new(tasks.map(Barrier::new));
    type Index = BTreeMap<String, usize>;
    let handler = handler_fn(move |cx: RunContext, batch: Batch<Index>| {
        let together = together.clone();
        async move {
            together[batch.payload["task"]].wait().await;
            Ok(BatchResult::of(cx.info().worker_id.to_string()))
        }
    });
    let handler = Arc::new(handler);
    for _ in 0..5 {
        let process = site.process().await;
        process.start(process.builder().role("r", handler.clone()).capacity(10));
    }
    for (index, nodes) in tasks.into_iter().enumerate() {
        let mut graph = many_nodes(nodes, |_| "r");
        for node in graph["nodes"].as_array_mut().expect("a list") {
            node["io"] = json!({"input_inline": {"task": index}});
        }
        let task = site.submit(&graph).await;
        finished(&task).await;
        let mut shares = BTreeMap::new();
        for n in 0..nodes {
            for worker in artifacts::<String>(&task, &format!("n{n}")).await {
                *shares.entry(worker).or_insert(0) += 1;
            }
        }
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [nodes / 5; 5]);
    }
    assert_eq!(site.client().workers().await.expect("readable").len(), 5);
    site.stop().await;
}

/// Two nodes that end only if both run, and one slot each: neither is enough by itself.
pub async fn workers_of_one_process_have_slots_and_ids_of_their_own(ground: impl Ground) {
    let site = Site::new(ground).await;
    let together = Arc::new(Barrier::new(2));
    let pair = Arc::new(handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let together = together.clone();
        async move {
            together.wait().await;
            Ok(BatchResult::of(cx.info().worker_id.to_string()))
        }
    }));
    let alone = Arc::new(handler_fn(|cx: RunContext, _: Batch<Json>| async move {
        Ok(BatchResult::of(cx.info().worker_id.to_string()))
    }));
    let process = site.process().await;
    let [first, _second] = ["w1", "w2"].map(|id| {
        let builder = process.builder().worker_id(id).role("pair", pair.clone());
        process.start(builder.role("alone", alone.clone()))
    });
    let task = site.submit(&many_nodes(2, |_| "pair")).await;
    finished(&task).await;
    let mut ran = artifacts::<String>(&task, "n0").await;
    ran.extend(artifacts::<String>(&task, "n1").await);
    ran.sort();
    assert_eq!(ran, ["w1", "w2"]);
    assert_eq!(site.client().workers().await.expect("readable").len(), 2);

    // One that stops takes nothing from the other.
    first.stop().await.expect("in order");
    let task = site.submit(&many_nodes(3, |_| "alone")).await;
    finished(&task).await;
    for n in 0..3 {
        assert_eq!(artifacts::<String>(&task, &format!("n{n}")).await, ["w2"]);
    }
    site.stop().await;
}

pub async fn an_announcement_says_who_the_worker_is_and_what_it_can(ground: impl Ground) {
    let site = Site::new(ground).await;
    let process = site.process().await;
    let nothing = || handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    let settings = WorkerSettings::default();
    let builder = process
        .builder()
        .worker_id("w")
        .role("ocr", nothing())
        .role("crawl", nothing())
        .capacity(3)
        .settings(
            settings
                .worker_version("7.7".to_owned())
                .announce_interval_sec(50.0),
        );
    let worker = process.start(builder);
    let said = super::until(async || site.announced().await.pop()).await;
    assert_eq!(
        serde_json::to_value(&said).expect("a message"),
        json!({
            "worker_id": "w",
            "type": "ocr,crawl",
            "capabilities": {"roles": ["ocr", "crawl"]},
            "version": "7.7",
            "capacity": {"tasks": 3},
            "status": "online",
            "incarnation": 1,
            "inbox": said.inbox,
            "announce_interval_ms": 50_000,
        })
    );
    worker.stop().await.expect("in order");
    site.stop().await;
}

/// One batch with a checkpoint; in the second it waits for its cancel.
struct Half(mpsc::UnboundedSender<()>);

impl Handler for Half {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        Ok(BatchStream::iter(
            [1, 2].map(|n| Batch::new(format!("b{n}"), n)),
        ))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        if batch.payload == 2 {
            let _ = self.0.send(());
            cx.cancelled().await;
            return Err(HandlerError::cancelled());
        }
        cx.save_checkpoint(&json!({"page": 12})).await?;
        Ok(BatchResult::of(batch.payload))
    }
}

pub async fn what_a_worker_runs_its_checkpoints_and_when_it_was_heard_can_be_asked(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let (began, mut begun) = mpsc::unbounded_channel();
    let handle = site.worker("r", Half(began)).await;
    let task = site.submit(&one_node("r", json!({}))).await;
    begun.recv().await.expect("it runs");
    let client = site.client();
    // The commit of the first batch may be under way still.
    let runs = super::until(async || {
        let id = handle.id().clone();
        let runs = client.active_runs(id).await.expect("readable");
        runs[0].checkpoint.is_some().then_some(runs)
    })
    .await;
    let [run] = &runs[..] else {
        panic!("one run: {runs:?}");
    };
    assert_eq!((&run.task_id, run.batches), (task.id(), 1));
    let page: Value = decoded(run.checkpoint.as_ref().expect("of the first batch"));
    assert_eq!(page, json!({"page": 12}));

    let views = client.worker_views().await.expect("readable");
    assert_eq!(views.len(), 1);
    let view = client.worker(handle.id()).await.expect("readable");
    let view = view.expect("known");
    assert_eq!(view.record.incarnation.0, 1);
    let heard = view.heard.as_ref().expect("it announced itself");
    assert_eq!(heard.status, "online");
    assert_eq!((heard.incarnation.0, heard.conflicts), (1, 0));
    assert!(heard.heartbeat_age_ms.is_some(), "it accepted its START");
    let [run] = &view.runs[..] else {
        panic!("one run: {view:?}");
    };
    assert_eq!((&run.node.task_id, run.token.0), (task.id(), 1));
    assert_eq!(run.node.checkpoint, runs[0].checkpoint);
    assert!(run.beat.is_some(), "{view:?}");
    assert_eq!(run.told_to_end, None);
    assert!(client.unreadable().await.expect("readable").is_empty());
    let nobody = WorkerId::new("nobody").expect("an id");
    assert_eq!(client.worker(&nobody).await.expect("readable"), None);

    task.cancel("enough", None).await.expect("durable");
    task.wait().await.expect("it ends");
    handle.stop().await.expect("in order");
    let view = client.worker(handle.id()).await.expect("readable");
    let view = view.expect("known");
    assert!(view.runs.is_empty());
    assert_eq!(view.heard.expect("it said goodbye").status, "offline");
    let presence = client.presence().await.expect("readable");
    assert_eq!(presence.shards.len(), 1);
    site.stop().await;
}

/// Its lease is far longer than a case may take: only the new process can end what the old one held.
pub async fn a_worker_that_is_killed_and_starts_again_goes_on_long_before_its_lease_ends(
    ground: impl Ground,
) {
    let lease = Duration::from_secs(600);
    let settings = CoordinatorSettings::default().lease_ttl_sec(lease.as_secs_f64());
    let site = Site::with(ground, settings).await;
    let (begin, mut began) = mpsc::unbounded_channel();
    let handler = Arc::new(handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let begin = begin.clone();
        async move {
            if let Some(page) = cx.batch_checkpoint::<u32>()? {
                return Ok(BatchResult::of(page));
            }
            cx.save_checkpoint(&7).await?;
            let _ = begin.send(());
            cx.cancelled().await;
            Err(HandlerError::cancelled())
        }
    }));
    let start = async || {
        let process = site.process().await;
        process.start(process.builder().worker_id("w").role("r", handler.clone()));
        process
    };
    let process = start().await;
    let task = site.submit(&one_node("r", json!({}))).await;
    began.recv().await.expect("it runs");
    process.kill().await;
    let killed = Instant::now();
    start().await;
    finished(&task).await;
    assert!(killed.elapsed() < lease / 10, "{:?}", killed.elapsed());
    assert_eq!(artifacts::<u32>(&task, "n").await, [7]);
    let node = task.status().await.expect("there").nodes.remove(0);
    assert_eq!((node.attempts.0, node.grants, node.failures), (1, 2, 0));
    site.stop().await;
}

/// The coordinator that loads them says so, and goes on with all others; whoever looks sees it, too.
pub async fn records_that_cannot_be_read_cost_their_tasks_and_nothing_else(ground: impl Ground) {
    let site = Site::new(ground).await;
    let graph = one_node("r", json!({}));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(site.submit(&graph).await.id().clone());
    }
    let [task, of_node, sound] = &ids[..] else {
        panic!("three");
    };
    site.damage(task, None).await;
    let node = NodeId::new("n").expect("an id");
    site.damage(of_node, Some(&node)).await;
    let site = site.restart().await;
    let nothing = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    site.worker("r", nothing).await;
    finished(&site.client().task(sound.clone())).await;
    let later = site.submit(&graph).await;
    finished(&later).await;
    assert_eq!(site.reports(ReportKind::Quarantined).await, 2);
    let unreadable = site.client().unreadable().await.expect("readable");
    let mut named: Vec<_> = unreadable.into_iter().map(|(id, _)| id).collect();
    named.sort();
    let mut damaged = vec![task.clone(), of_node.clone()];
    damaged.sort();
    assert_eq!(named, damaged);
    for id in [task, of_node] {
        let handle = site.client().task(id.clone());
        let status = handle.status().await.expect_err("nobody can read it");
        let why = handle.why().await.expect_err("nobody can read it");
        for error in [status, why] {
            let is_named =
                matches!(&error, ClientError::Unreadable { task_id, .. } if task_id == id);
            assert!(is_named, "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains("is set aside: a record of it cannot be read"),
                "{text}"
            );
            assert!(text.contains("`flowkit doctor`"), "{text}");
        }
    }
    // Every page of one ends behind what it held, readable or not. A list does not read the nodes.
    let (mut listed, mut set_aside, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = site.client().list(after, 1).await.expect("readable");
        listed.extend(page.tasks.into_iter().map(|task| task.task_id));
        set_aside.extend(page.unreadable.into_iter().map(|(id, _)| id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(set_aside.iter().collect::<Vec<_>>(), [task]);
    let mut readable = vec![of_node.clone(), sound.clone(), later.id().clone()];
    readable.sort();
    assert_eq!(listed, readable);
    site.stop().await;
}
