//! What needs a process of its own: restarts after kill -9, and memory. The program starts itself
//! with `--child PART --data PATH`.

use flowkit::prelude::*;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::resident_bytes;
use crate::{Outcome, engine, one_node, percentile};

/// Waiting nodes whose memory is measured.
const WAITING: usize = 100_000;

/// The child's side.
pub(crate) fn run(part: &str, data: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match part {
            "steps" => steps(data).await,
            "idle" => idle(data).await,
            "waiting" => waiting(data).await,
            other => Err(format!("no part `{other}`").into()),
        }
    })
}

/// Runs the one long task of the folder; a line for every batch that a handler begins.
async fn steps(data: &Path) -> Outcome {
    let engine = engine::start(engine::store(data).await?).await?;
    let worker = Worker::builder(&engine)
        .worker_id("bench")
        .role("step", Step)
        .build()?
        .start();
    let graph = one_node("step");
    let options = SubmitOptions::with_key("the one task");
    engine.client().submit(&graph, options).await?;
    worker.stopped().await?;
    Ok(())
}

/// Batches of ten milliseconds, without end; resumes at its checkpoint.
struct Step;

impl Handler for Step {
    type Run = ();
    type Input = u64;
    type Output = ();

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let from = cx.checkpoint::<u64>()?.map_or(0, |last| last + 1);
        Ok(BatchStream::iter(
            (from..).map(|n| Batch::new(n.to_string(), n)),
        ))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<()>, HandlerError> {
        println!("batch {}", batch.payload);
        cx.save_checkpoint(&batch.payload).await?;
        cx.sleep(Duration::from_millis(10)).await?;
        Ok(BatchResult::new())
    }
}

/// An engine with an empty store and a worker with nothing to do.
async fn idle(data: &Path) -> Outcome {
    let engine = engine::start(engine::store(data).await?).await?;
    let _workers = engine::workers(&engine, "noop", engine::noop)?;
    // One task has been through all of it.
    let client = engine.client();
    let task = client
        .submit(&one_node("noop"), SubmitOptions::default())
        .await?;
    crate::finished(&task).await?;
    println!("ready");
    std::future::pending().await
}

/// The same, then very many tasks of one node that no worker has the role for.
async fn waiting(data: &Path) -> Outcome {
    let engine = engine::start(engine::store(data).await?).await?;
    let client = engine.client();
    let graph = json!({"nodes": [{"node_id": "n", "type": "nobody"}]});
    client.submit(&graph, SubmitOptions::default()).await?;
    println!("ready");
    // Bounded concurrency: what is measured is waiting nodes, not clients.
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, graph) = (client.clone(), graph.clone());
        lanes.spawn(async move {
            for _ in 0..WAITING / 100 {
                client.submit(&graph, SubmitOptions::default()).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended??;
    }
    println!("waiting");
    std::future::pending().await
}

/// The parent's side: a child and its lines.
struct Started {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Started {
    fn new(part: &str, data: &Path) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", part, "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        Ok(Self {
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    fn line(&mut self) -> Outcome<String> {
        Ok(self.lines.next().ok_or("the child ended early")??)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SIGKILL; it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Median time from the start of a process whose predecessor was killed with SIGKILL in the middle
/// of a batch to the first batch that a handler begins.
pub(crate) fn restart_ms(data: &Path, repeats: usize) -> Outcome<f64> {
    let mut times = Vec::with_capacity(repeats);
    for number in 0..=repeats {
        let started = Instant::now();
        let mut child = Started::new("steps", data)?;
        child.line()?;
        if number > 0 {
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
        for _ in 0..3 {
            child.line()?;
        }
    }
    Ok(percentile(&mut times, 0.5))
}

/// Resident memory of an engine with nothing to do.
pub(crate) fn idle_mib(data: &Path) -> Outcome<f64> {
    let mut child = Started::new("idle", data)?;
    child.line()?;
    // What start-up needed for a moment goes back.
    std::thread::sleep(Duration::from_secs(2));
    Ok(resident_bytes(child.child.id())? / (1_024.0 * 1_024.0))
}

/// Growth of resident memory per waiting node; the store's page cache is part of it.
pub(crate) fn bytes_per_waiting_node(data: &Path) -> Outcome<f64> {
    let mut child = Started::new("waiting", data)?;
    child.line()?;
    let before = resident_bytes(child.child.id())?;
    child.line()?;
    let after = resident_bytes(child.child.id())?;
    Ok((after - before) / WAITING as f64)
}
