//! Latency of a deployment with nothing else to do.

use flowkit_runtime::{Client, SubmitOptions};
use serde_json::{Value, json};
use std::time::Instant;

use crate::deployment::Deployment;
use crate::{Outcome, finished, one_node, percentile};

/// Milliseconds from `submit` called to `wait` returned.
#[derive(Debug)]
pub(crate) struct Latency {
    /// Task of one no-op node.
    pub(crate) node_ms_p50: f64,
    pub(crate) node_ms_p99: f64,
    /// Three no-op nodes in a chain.
    pub(crate) chain3_ms_p50: f64,
    pub(crate) chain3_ms_p99: f64,
}

pub(crate) async fn measure(deployment: &Deployment, repeats: usize) -> Outcome<Latency> {
    let _coordinator = deployment.coordinator()?;
    let _worker = deployment.worker("bench", "echo", 8)?;
    let engine = deployment.engine().await?;
    let client = engine.client();
    let mut node = tasks(&client, &one_node("echo", &json!(null)), repeats).await?;
    let chain = json!({"nodes": [
        {"node_id": "a", "type": "echo"},
        {"node_id": "b", "type": "echo", "depends_on": ["a"]},
        {"node_id": "c", "type": "echo", "depends_on": ["b"]},
    ]});
    let mut chain = tasks(&client, &chain, repeats).await?;
    Ok(Latency {
        node_ms_p50: percentile(&mut node, 0.5),
        node_ms_p99: percentile(&mut node, 0.99),
        chain3_ms_p50: percentile(&mut chain, 0.5),
        chain3_ms_p99: percentile(&mut chain, 0.99),
    })
}

/// Runs tasks one after the other; the first ones warm up and are not counted.
async fn tasks(client: &Client, graph: &Value, repeats: usize) -> Outcome<Vec<f64>> {
    let mut times = Vec::with_capacity(repeats);
    let warm_up = repeats / 10;
    for number in 0..repeats + warm_up {
        let started = Instant::now();
        let task = client.submit(graph, SubmitOptions::default()).await?;
        finished(&task).await?;
        if number >= warm_up {
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    Ok(times)
}
