//! Faults on real FlowKit processes over a real Kafka and MongoDB, judged by the checkers of the
//! simulation. `cargo xtask chaos` builds what is needed, starts the servers and runs it.

mod faults;
mod hosts;
mod journal;
mod merge;
mod oplog;
mod proxy;
mod recorder;
mod round;
mod servers;
mod streams;
mod tamper;
mod timeline;
mod worker;

use clap::{Args, Parser, Subcommand};
use flowkit_sim::plan::{Logical, Plan};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use round::{Report, Site};
use servers::Servers;

#[derive(Debug, Parser)]
#[command(name = "flowkit-chaos")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Run plans.
    Run(RunOptions),
    /// A worker process of a plan.
    Worker(worker::Options),
}

#[derive(Args, Debug)]
struct RunOptions {
    /// The xtask program, which sees to the servers.
    #[arg(long)]
    xtask: PathBuf,
    /// Folder of the servers.
    #[arg(long)]
    services: PathBuf,
    /// The `flowkit` command, built with its adapters.
    #[arg(long)]
    flowkit: PathBuf,
    /// Where plans, journals, logs and histories go.
    #[arg(long)]
    out: PathBuf,
    /// First seed; each round takes the next one.
    #[arg(long)]
    seed: u64,
    /// No round is begun after so many minutes.
    #[arg(long)]
    minutes: f64,
    /// Run this plan once instead.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Keep what rounds without a failure leave, too.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().part {
        Part::Worker(options) => return worker::run(&options),
        Part::Run(options) => tokio::runtime::Runtime::new()
            .map_err(|e| e.to_string())
            .and_then(|runtime| runtime.block_on(unless_interrupted(run(options)))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C ends the run, and with it every process of it, frozen ones too.
async fn unless_interrupted(run: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted; the servers stay up: `cargo xtask services \
            down --folder target/chaos/services` stops them".to_owned()),
    }
}

/// Milliseconds as the settings have them.
#[expect(clippy::cast_precision_loss, reason = "plans hold small numbers")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn read_plan(path: &Path) -> Result<Plan, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let plan: Plan =
        serde_json::from_str(&text).map_err(|e| format!("{} is no plan: {e}", path.display()))?;
    plan.fit_processes().map_err(|wrong| {
        let wrong = wrong.join("\n  - ");
        format!(
            "{}: not a plan for real processes:\n  - {wrong}",
            path.display()
        )
    })
}

async fn run(options: RunOptions) -> Result<(), String> {
    // Before any server is asked for.
    let plan = options.plan.as_deref().map(read_plan).transpose()?;
    let servers = Servers::of(options.xtask, options.services)?;
    let site = Site::new(servers, options.flowkit).await?;
    let mut sum = Sum {
        keep: options.keep,
        ..Sum::default()
    };
    if let Some(plan) = plan {
        sum.round(&site, &Arc::new(plan), &options.out).await?;
        return sum.verdict();
    }
    let time = Duration::try_from_secs_f64(options.minutes * 60.0);
    let time = time.map_err(|e| format!("--minutes {}: {e}", options.minutes))?;
    let began = Instant::now();
    for seed in options.seed.. {
        let plan = Arc::new(Plan::for_processes(seed));
        sum.round(&site, &plan, &options.out).await?;
        if began.elapsed() >= time {
            break;
        }
    }
    sum.verdict()
}

/// All rounds together.
#[derive(Debug, Default)]
struct Sum {
    keep: bool,
    rounds: u64,
    failed: Vec<u64>,
    faults: usize,
    met: BTreeMap<&'static str, u64>,
    found_out: usize,
    grants: u64,
    batches: u64,
    overlap_ms: u64,
    slowest_ms: u64,
}

impl Sum {
    async fn round(&mut self, site: &Site, plan: &Arc<Plan>, out: &Path) -> Result<(), String> {
        let folder = out.join(format!("seed-{}", plan.seed));
        let report = site.run(plan, &folder).await;
        self.rounds += 1;
        let report = match report {
            Ok(report) => report,
            Err(why) => {
                self.failed.push(plan.seed);
                println!("seed {}: FAILED: {why}", plan.seed);
                println!("  plan, journals and logs: {}", folder.display());
                println!("{}", hosts::log_ends(&folder));
                return Ok(());
            }
        };
        self.add(&report);
        println!("{}", line(plan, &report));
        if report.holds() && self.keep {
            println!("  plan, history, journals and logs: {}", folder.display());
            return Ok(());
        }
        if report.holds() {
            return fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()));
        }
        self.failed.push(plan.seed);
        for broken in &report.judgement.broken {
            let at_ms = broken.at_us / 1_000;
            println!("  {at_ms} ms: {} broken: {}", broken.promise, broken.what);
        }
        for misfit in &report.misfits {
            println!("  the sources do not fit together: {misfit}");
        }
        println!("  plan, history, journals and logs: {}", folder.display());
        let plan = folder.join("plan.json");
        println!("  again: cargo xtask chaos --plan {}", plan.display());
        Ok(())
    }

    fn add(&mut self, report: &Report) {
        self.faults += report.faults;
        for (name, times) in &report.met {
            *self.met.entry(name).or_default() += times;
        }
        let takeovers = report.count(Logical::Takeover);
        *self.met.entry("takeovers").or_default() += takeovers;
        self.found_out += report.found_out;
        self.grants += report.count(Logical::Granted);
        self.batches += report.count(Logical::Accepted);
        let overlap_ms = report.judgement.overlap_us / 1_000;
        self.overlap_ms = self.overlap_ms.max(overlap_ms);
        self.slowest_ms = self.slowest_ms.max(report.settled_ms.unwrap_or(0));
    }

    fn verdict(&self) -> Result<(), String> {
        let met = self
            .met
            .iter()
            .map(|(name, times)| format!("{name} {times}"));
        println!(
            "faults that met something: {}",
            met.collect::<Vec<_>>().join(", ")
        );
        println!(
            "chaos: {} rounds, {} failed; {} faults made, {} grants, {} batches accepted; settled \
             {} ms after healing at the latest; two handlers of one node overlapped {} ms at most; \
             {} bent histories were found out",
            self.rounds,
            self.failed.len(),
            self.faults,
            self.grants,
            self.batches,
            self.slowest_ms,
            self.overlap_ms,
            self.found_out
        );
        if self.failed.is_empty() {
            return Ok(());
        }
        Err(format!("rounds failed with seeds {:?}", self.failed))
    }
}

fn line(plan: &Plan, report: &Report) -> String {
    format!(
        "seed {}: {} tasks, {} faults; {} events, {} grants, {} batches accepted; settled {}: {}",
        plan.seed,
        plan.tasks.len(),
        report.faults,
        report.events,
        report.count(Logical::Granted),
        report.count(Logical::Accepted),
        report
            .settled_ms
            .map_or_else(|| "NEVER".to_owned(), |ms| format!("after {ms} ms")),
        if report.holds() { "ok" } else { "FAILED" }
    )
}
