//! Measures the engine as separate processes over a real Kafka and a real MongoDB:
//! `cargo xtask bench --fleet`. What each figure means stands where it is measured; all of them come
//! from one run on one machine, on which the servers run as well.

mod ceiling;
mod census;
mod cpu;
mod deployment;
mod latency;
mod load;
mod process;
mod report;
mod takeover;

use flowkit_runtime::{TaskHandle, TaskState};
use serde_json::{Value, json};
use std::error::Error;
use std::path::PathBuf;

use deployment::Servers;
use report::Report;

/// The allocator of the `flowkit` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Leases of workers in the measurements of takeovers; the default of a minute would only be waited
/// for. Their margin is the least there is.
const LEASE_TTL_SEC: f64 = 5.0;
const LEASE_MARGIN_SEC: f64 = 1.0;
/// The default.
const SHARD_LEASE_TTL_SEC: f64 = 5.0;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Seconds of the throughput measurement.
    seconds: u64,
    /// Batches of each of 64 nodes.
    batches: u64,
    /// Repeats of each latency measurement.
    repeats: usize,
    /// Repeats of each takeover.
    takeovers: usize,
}

const FULL: Size = Size {
    seconds: 20,
    batches: 2_000,
    repeats: 300,
    takeovers: 3,
};
const QUICK: Size = Size {
    seconds: 4,
    batches: 200,
    repeats: 50,
    takeovers: 1,
};
/// Tasks in flight: under load, and when the coordinator dies.
const IN_FLIGHT: usize = 1_000;
const IN_FLIGHT_AT_DEATH: usize = 10_000;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value_of = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let needed = |name: &str, value: Option<String>| value.ok_or(format!("{name} is missing"));
    let servers = Servers {
        kafka: needed("FLOWKIT_KAFKA", std::env::var("FLOWKIT_KAFKA").ok())?,
        mongo: needed("FLOWKIT_MONGO", std::env::var("FLOWKIT_MONGO").ok())?,
        flowkit: PathBuf::from(needed("--flowkit", value_of("--flowkit"))?),
    };
    let shards = value_of("--shards").map_or(Ok(1), |shards| shards.parse())?;
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let size = if quick { QUICK } else { FULL };
    // For tuning.
    let only = value_of("--only").map(|name| Part::named(&name));
    let only = only.transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new(shards);
    let measured = runtime.block_on(async {
        for part in Part::ALL {
            if only.is_none_or(|only| only == part) {
                part.measure(&servers, shards, size, &mut report).await?;
            }
        }
        Outcome::Ok(())
    });
    measured?;
    print!("{}", report.table());
    if let Some(out) = value_of("--out").map(PathBuf::from) {
        if let Some(parent) = out.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&out, serde_json::to_string_pretty(&report.json())? + "\n")?;
        println!("written to {}", out.display());
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("measuring {what} …");
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nodes per second, and the ceiling right after it.
    Load,
    Batches,
    Latency,
    Takeover,
}

impl Part {
    const ALL: [Self; 4] = [Self::Load, Self::Batches, Self::Latency, Self::Takeover];

    fn named(name: &str) -> Result<Self, String> {
        let is_it = |part: &Self| format!("{part:?}").eq_ignore_ascii_case(name);
        let part = Self::ALL.into_iter().find(is_it);
        part.ok_or_else(|| format!("--only {name}: there are {:?}", Self::ALL))
    }

    async fn measure(
        self,
        servers: &Servers,
        shards: u32,
        size: Size,
        report: &mut Report,
    ) -> Outcome {
        match self {
            Self::Load => {
                say("nodes per second, 1,000 tasks in flight");
                let load = deployment::with(servers, shards, &[], async |deployment| {
                    load::nodes(deployment, IN_FLIGHT, size.seconds).await
                })
                .await?;
                report.load(&load);
                say("the servers alone with the same messages and transactions");
                let ceiling = deployment::with(servers, shards, &[], async |deployment| {
                    ceiling::measure(deployment, &load.census, load.nodes).await
                })
                .await?;
                report.ceiling(&load, &ceiling);
            }
            Self::Batches => {
                say("batches per second");
                let batches = deployment::with(servers, shards, &[], async |deployment| {
                    load::batches(deployment, size.batches).await
                })
                .await?;
                report.figure("batches_per_s", batches);
            }
            Self::Latency => {
                say("one node, and a chain of three");
                let latency = deployment::with(servers, shards, &[], async |deployment| {
                    latency::measure(deployment, size.repeats).await
                })
                .await?;
                report.latency(&latency);
            }
            Self::Takeover => takeovers(servers, size, report).await?,
        }
        Ok(())
    }
}

async fn takeovers(servers: &Servers, size: Size, report: &mut Report) -> Outcome {
    let leases = [
        ("FLOWKIT_LEASE_TTL_SEC", LEASE_TTL_SEC.to_string()),
        ("FLOWKIT_HB_INTERVAL_SEC", "1".to_owned()),
    ];
    for restart in [false, true] {
        let what = if restart { "restarts" } else { "stays dead" };
        say(&format!(
            "the takeover of a worker's nodes: kill -9, it {what}"
        ));
        let mut all = Vec::new();
        for _ in 0..size.takeovers {
            let times = deployment::with(servers, 1, &leases, async |deployment| {
                takeover::worker(deployment, restart).await
            });
            all.extend(times.await?);
        }
        report.worker(restart, &mut all);
    }
    say("the takeover of a shard: kill -9 of its owner, 10,000 tasks in flight");
    let mut all = Vec::new();
    for _ in 0..size.takeovers {
        let takeover = deployment::with(servers, 1, &[], async |deployment| {
            takeover::coordinator(deployment, IN_FLIGHT_AT_DEATH).await
        });
        all.push(takeover.await?);
    }
    report.coordinator(&all);
    Ok(())
}

/// The value below which this share of the measurements lies.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// A graph of one node.
fn one_node(role: &str, input: &Value) -> Value {
    json!({"nodes": [{"node_id": "n", "type": role, "io": {"input_inline": input}}]})
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
