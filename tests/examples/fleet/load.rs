//! Throughput: a constant number of tasks in flight, and nodes of many batches.

use flowkit_runtime::{SubmitOptions, TaskState};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::census::{self, Census};
use crate::cpu::Cpu;
use crate::deployment::Deployment;
use crate::process::Process;
use crate::{Outcome, finished, one_node};

/// Nodes that run at once, over all workers.
pub(crate) const SLOTS: u32 = 512;
const WORKERS: u32 = 2;
/// Until the first figures count.
const WARM_UP: Duration = Duration::from_secs(3);

/// What a run with a constant number of tasks in flight gave.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// Finished nodes per second.
    pub(crate) nodes_per_s: f64,
    /// Cores that each part used meanwhile.
    pub(crate) cores: Vec<(&'static str, f64)>,
    /// Nodes of the whole run, warm-up and end included.
    pub(crate) nodes: u64,
    /// Everything that the run sent and wrote.
    pub(crate) census: Census,
}

fn workers(deployment: &Deployment, role: &str) -> Outcome<Vec<Process>> {
    let worker = |n| deployment.worker(&format!("bench-{n}"), role, SLOTS / WORKERS);
    (1..=WORKERS).map(worker).collect()
}

/// Keeps `in_flight` tasks of one no-op node each unsettled: whenever one is done, its lane submits
/// the next. So a node's figure includes its task's submission, and the wait for its end.
pub(crate) async fn nodes(
    deployment: &Deployment,
    in_flight: usize,
    seconds: u64,
) -> Outcome<Nodes> {
    let coordinator = deployment.coordinator()?;
    let workers = workers(deployment, "echo")?;
    let mut cpu = Cpu::default();
    cpu.watch("client", std::process::id());
    cpu.watch("coordinator", coordinator.id());
    workers.iter().for_each(|w| cpu.watch("workers", w.id()));
    cpu.watch_server("kafka", &deployment.servers.kafka);
    cpu.watch_server("mongodb", &deployment.servers.mongo);
    let engine = deployment.engine().await?;
    let client = engine.client();
    let graph = Arc::new(one_node("echo", &json!(null)));
    let done = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (client, graph) = (client.clone(), graph.clone());
        let (done, enough) = (done.clone(), enough.clone());
        lanes.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                let task = client.submit(&*graph, SubmitOptions::default()).await?;
                finished(&task).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (before, mark, started) = (done.load(Ordering::Relaxed), cpu.mark(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let counted = done.load(Ordering::Relaxed) - before;
    let nodes_per_s = counted as f64 / started.elapsed().as_secs_f64();
    let cores = cpu.cores_since(&mark);

    enough.store(true, Ordering::Relaxed);
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    let nodes = done.load(Ordering::Relaxed);
    drop((coordinator, workers));
    let census = census::take(deployment, &engine, nodes).await?;
    Ok(Nodes {
        nodes_per_s,
        cores,
        nodes,
        census,
    })
}

/// Accepted no-op batches per second, over 64 nodes that stream at once: submit to done.
pub(crate) async fn batches(deployment: &Deployment, per_node: u64) -> Outcome<f64> {
    const NODES: u64 = 64;
    let _coordinator = deployment.coordinator()?;
    let _workers = workers(deployment, "sleep")?;
    let engine = deployment.engine().await?;
    let client = engine.client();
    let input = json!({"ms": 0, "batches": per_node});
    // Everybody knows everybody.
    let first = one_node("sleep", &json!({"ms": 0}));
    let first = client.submit(&first, SubmitOptions::default()).await?;
    finished(&first).await?;
    let nodes: Vec<_> = (0..NODES)
        .map(
            |n| json!({"node_id": format!("n{n}"), "type": "sleep", "io": {"input_inline": input}}),
        )
        .collect();
    let started = Instant::now();
    let task = client
        .submit(&json!({"nodes": nodes}), SubmitOptions::default())
        .await?;
    finished(&task).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let status = task.status().await?;
    let accepted: u64 = status.nodes.iter().map(|node| node.batches).sum();
    if status.state != TaskState::Finished || accepted != NODES * per_node {
        return Err(format!("{accepted} batches were accepted of {}", NODES * per_node).into());
    }
    Ok(accepted as f64 / elapsed)
}
