//! Takeovers after SIGKILL. Every time is read from the database, from outside.

use flowkit_runtime::{Engine, SubmitOptions};
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Document, doc};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::deployment::Deployment;
use crate::{Outcome, one_node};

/// Nodes that the worker holds when it dies.
const HELD: u32 = 32;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// What does not happen within this is an error.
const PATIENCE: Duration = Duration::from_secs(120);
/// Submissions at once.
const LANES: usize = 500;

/// From the worker's death until each of its nodes was granted anew, in milliseconds, ascending.
/// With `restart`, the same worker is started again at once and the time runs from then; without,
/// another worker waits.
pub(crate) async fn worker(deployment: &Deployment, restart: bool) -> Outcome<Vec<f64>> {
    let _coordinator = deployment.coordinator()?;
    let victim = deployment.worker("victim", "sleep", HELD)?;
    let engine = deployment.engine().await?;
    let database = deployment.database().await?;
    submit(&engine, HELD as usize, 600_000).await?;
    let before = until(async || {
        let tokens = tokens(&database).await?;
        Ok((tokens.len() == HELD as usize).then_some(tokens))
    })
    .await?;
    let _other = match restart {
        true => None,
        false => Some(deployment.worker("other", "sleep", HELD)?),
    };
    // Past the first heartbeats; the next one is due at some moment.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    victim.kill();
    let died = Instant::now();
    let _again = match restart {
        true => Some(deployment.worker("victim", "sleep", HELD)?),
        false => None,
    };
    let mut granted: BTreeMap<String, f64> = BTreeMap::new();
    until(async || {
        let now = tokens(&database).await?;
        let at = died.elapsed().as_secs_f64() * 1_000.0;
        for (node, token) in &before {
            if now.get(node).is_some_and(|newer| newer > token) {
                granted.entry(node.clone()).or_insert(at);
            }
        }
        Ok((granted.len() == before.len()).then_some(()))
    })
    .await?;
    let mut times: Vec<f64> = granted.into_values().collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// From the owner's death, in milliseconds.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// Until the next one had raised the shard's epoch.
    pub(crate) epoch_ms: f64,
    /// Until its first commit.
    pub(crate) commit_ms: f64,
    /// Until the first task settled.
    pub(crate) settled_ms: f64,
    /// Tasks that were unsettled at the time.
    pub(crate) in_flight: u64,
}

/// Kills the coordinator that owns the shard while another one waits.
pub(crate) async fn coordinator(deployment: &Deployment, tasks: usize) -> Outcome<Takeover> {
    let owner = deployment.coordinator()?;
    let engine = deployment.engine().await?;
    let database = deployment.database().await?;
    // So long that they are still in flight when it happens, and some end every moment.
    submit(&engine, tasks, 2_000).await?;
    let _next = deployment.coordinator()?;
    let workers = ["a", "b"].map(|id| deployment.worker(id, "sleep", 256));
    let _workers: Vec<_> = workers.into_iter().collect::<Outcome<_>>()?;
    until(async || Ok((settled(&database).await? >= 100).then_some(()))).await?;
    owner.kill();
    let died = Instant::now();
    let ms = || died.elapsed().as_secs_f64() * 1_000.0;
    let (before, had_settled) = (shard(&database).await?, settled(&database).await?);
    let (epoch_ms, raised) = until(async || {
        let now = shard(&database).await?;
        Ok((now.0 > before.0).then_some((ms(), now)))
    })
    .await?;
    let commit_ms = until(async || {
        let now = shard(&database).await?;
        Ok((now.1 > raised.1).then_some(ms()))
    })
    .await?;
    let settled_ms = until(async || {
        let now = settled(&database).await?;
        Ok((now > had_settled).then_some(ms()))
    })
    .await?;
    Ok(Takeover {
        epoch_ms,
        commit_ms,
        settled_ms,
        in_flight: tasks as u64 - had_settled,
    })
}

/// Submits tasks of one node that sleeps.
async fn submit(engine: &Engine, tasks: usize, ms: u64) -> Outcome {
    let client = engine.client();
    let graph = one_node("sleep", &json!({"ms": ms}));
    let mut lanes = tokio::task::JoinSet::new();
    let count = LANES.min(tasks);
    for lane in 0..count {
        let (client, graph) = (client.clone(), graph.clone());
        lanes.spawn(async move {
            for _ in (lane..tasks).step_by(count) {
                client.submit(&graph, SubmitOptions::default()).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    Ok(())
}

/// Looks until there is an answer.
async fn until<T>(mut look: impl AsyncFnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!("nothing happened within {} s", PATIENCE.as_secs()).into())
}

/// The token of every node that is granted.
async fn tokens(database: &Database) -> Outcome<BTreeMap<String, i64>> {
    let granted = doc! { "token": { "$type": "long" } };
    let nodes = database.collection::<Document>("nodes");
    let found = nodes.find(granted).projection(doc! { "token": 1 });
    let found: Vec<Document> = found.await?.try_collect().await?;
    let token = |node: Document| Ok((node.get_str("_id")?.to_owned(), node.get_i64("token")?));
    found.into_iter().map(token).collect()
}

async fn settled(database: &Database) -> Outcome<u64> {
    let tasks = database.collection::<Document>("tasks");
    let settled = doc! { "shard": 0_i64, "settled": true };
    Ok(tasks.count_documents(settled).await?)
}

/// Epoch and `commit_seq` of the first shard.
async fn shard(database: &Database) -> Outcome<(i64, i64)> {
    let shards = database.collection::<Document>("shards");
    let shard = shards.find_one(doc! { "_id": 0_i64 }).await?;
    let shard = shard.ok_or("there is no shard")?;
    Ok((shard.get_i64("epoch")?, shard.get_i64("commit_seq")?))
}
