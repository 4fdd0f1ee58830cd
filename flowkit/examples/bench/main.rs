//! Measures the engine on the embedded store: `cargo xtask bench`. What each figure means stands
//! where it is measured; all of them come from one run on one machine.

mod ceiling;
mod child;
mod engine;
mod latency;
mod load;
mod machine;
mod recorder;

use flowkit::prelude::*;
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};

/// The allocator of the `flowkit` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Seconds of each throughput measurement.
    seconds: u64,
    /// Tasks in flight in the large measurement.
    many: usize,
    /// Repeats of each latency measurement.
    repeats: usize,
    /// Process starts after kill -9.
    restarts: usize,
}

const FULL: Size = Size {
    seconds: 10,
    many: 100_000,
    repeats: 300,
    restarts: 15,
};
const QUICK: Size = Size {
    seconds: 2,
    many: 10_000,
    repeats: 50,
    restarts: 3,
};

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value_of = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if let Some(part) = value_of("--child") {
        let data = value_of("--data").ok_or("--child needs --data")?;
        return child::run(&part, Path::new(&data));
    }
    let size = if arguments.iter().any(|argument| argument == "--quick") {
        QUICK
    } else {
        FULL
    };
    let folder = match value_of("--data") {
        Some(path) => {
            std::fs::create_dir_all(&path)?;
            tempfile::tempdir_in(path)?
        }
        None => tempfile::tempdir()?,
    };
    // For a profiler: nothing but this load.
    if let Some(in_flight) = value_of("--in-flight") {
        let load = load::nodes(folder.path(), in_flight.parse()?, size.seconds, false);
        let runtime = tokio::runtime::Runtime::new()?;
        println!("{:.0} nodes/s", runtime.block_on(load)?.nodes_per_s);
        return Ok(());
    }
    let report = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure(folder.path(), size))?;
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(out) = value_of("--out").map(PathBuf::from) {
        if let Some(parent) = out.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&out, text + "\n")?;
        eprintln!("written to {}", out.display());
    }
    Ok(())
}

async fn measure(folder: &Path, size: Size) -> Outcome<Value> {
    let say = |what: &str| eprintln!("measuring {what} …");
    say("fdatasync");
    let mut syncs = machine::fdatasync_ms(folder, 200)?;

    say("one node, and a chain of three");
    let latency = latency::measure(&folder.join("latency"), size.repeats).await?;
    // Before and after: what else runs on the machine moves both figures.
    syncs.extend(machine::fdatasync_ms(folder, 200)?);
    let fdatasync_ms = percentile(&mut syncs, 0.5);

    say("nodes per second, 1,000 tasks in flight");
    let few = load::nodes(&folder.join("few"), 1_000, size.seconds, true).await?;
    say("the store alone with the same commits");
    let ceiling = ceiling::nodes_per_s(&folder.join("ceiling"), few.log, few.nodes_logged).await?;
    say("nodes per second, very many tasks in flight");
    let many = load::nodes(&folder.join("many"), size.many, size.seconds, false).await?;
    say("batches per second");
    let batches = load::batches(&folder.join("batches"), size.seconds).await?;

    say("restarts after kill -9");
    let restart_ms = child::restart_ms(&folder.join("restart"), size.restarts)?;
    say("memory");
    let idle_mib = child::idle_mib(&folder.join("idle"))?;
    let bytes = child::bytes_per_waiting_node(&folder.join("waiting"))?;

    eprintln!(
        "\n{:.0} % of the store's ceiling; with {} in flight {:.1} % slower per node than with \
         1,000; one node takes {:.2} syncs",
        100.0 * few.nodes_per_s / ceiling,
        size.many,
        100.0 * (few.nodes_per_s / many.nodes_per_s - 1.0),
        latency.node_ms_p50 / fdatasync_ms,
    );
    Ok(json!({
        "noop_nodes_per_s_1k": round(few.nodes_per_s),
        "noop_nodes_per_s_100k": round(many.nodes_per_s),
        "ceiling_nodes_per_s": round(ceiling),
        "slots": engine::SLOTS,
        "batches_per_s": round(batches),
        "fdatasync_ms_p50": round(fdatasync_ms),
        "node_ms_p50": round(latency.node_ms_p50),
        "node_ms_p99": round(latency.node_ms_p99),
        "chain3_ms_p50": round(latency.chain3_ms_p50),
        "first_batch_ms_p50": round(latency.first_batch_ms_p50),
        "restart_ms_p50": round(restart_ms),
        "idle_mib": round(idle_mib),
        "bytes_per_waiting_node": round(bytes),
    }))
}

/// Three significant digits behind the point at most; more would be noise.
fn round(value: f64) -> f64 {
    if value >= 100.0 {
        value.round()
    } else {
        (value * 1_000.0).round() / 1_000.0
    }
}

/// The value below which this share of the measurements lies.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// A graph of one node.
fn one_node(role: &str) -> Value {
    json!({"nodes": [{"node_id": "n", "type": role}]})
}

/// Waits for a task that must finish.
async fn finished(task: &TaskHandle) -> Outcome {
    let outcome = task.wait().await?;
    if outcome.state == TaskState::Finished {
        Ok(())
    } else {
        Err(format!("task {} ended as {:?}", task.id(), outcome).into())
    }
}
