//! `cargo xtask chaos`: two coordinators and four workers as real processes, over a Kafka and a
//! MongoDB of their own, with faults made from outside.

use clap::Args;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{Outcome, cargo, step, target_folder};
use crate::services::Apart;
use crate::sim;

/// Processes of a plan, and one more that takes the name of another.
const LISTENERS: u16 = 10;

/// Options of `cargo xtask chaos`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// No round is begun after so many minutes; a round takes about half a minute.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// First seed, each round takes the next one; a fresh one if absent.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run the plan of this file once: a plan of the simulation. Clocks, latencies, time-outs and the
    /// grace of a stop are those of real processes; what else cannot be made is refused.
    #[arg(long)]
    pub(crate) plan: Option<PathBuf>,
    /// Keep plan, history, journals and logs of rounds without a failure, too.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Runs fresh seeds for a time, with the programs (`flowkit-chaos` is built for its test, `flowkit` with its adapters for
/// the tests of fleets) that the tests have just built and used: a build of
/// their own, with other features and optimised otherwise, took four minutes of the whole run.
pub(crate) fn run_for(minutes: f64) -> Outcome {
    run_built(&Options {
        minutes,
        seed: None,
        plan: None,
        keep: false,
    })
}

pub(crate) fn run(options: &Options) -> Outcome {
    let build = ["build", "-p", "flowkit", "--features", "fleet"];
    step("the command with its adapters", cargo().args(build))?;
    let build = ["build", "-p", "flowkit-chaos"];
    step("the harness", cargo().args(build))?;
    run_built(options)
}

fn run_built(options: &Options) -> Outcome {
    let folder = target_folder()?.join("chaos");
    // One run at a time: the next one's servers would replace this one's.
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let lock = folder.join("lock");
    let lock = std::fs::File::create(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    if lock.try_lock().is_err() {
        println!("waiting for another `cargo xtask chaos`");
        lock.lock().map_err(|e| format!("cannot wait: {e}"))?;
    }
    // Servers of their own: they are killed.
    let servers = Apart::up(&folder.join("services"), LISTENERS)?;
    let programs = target_folder()?.join("debug");
    let xtask = std::env::current_exe().map_err(|e| format!("our own program: {e}"))?;
    let mut command = Command::new(programs.join("flowkit-chaos"));
    command.arg("run").arg("--xtask").arg(xtask);
    command.arg("--services").arg(servers.folder());
    command.arg("--flowkit").arg(programs.join("flowkit"));
    command.arg("--out").arg(folder.join("rounds"));
    let seed = options.seed.unwrap_or_else(sim::fresh);
    command.args(["--seed", &seed.to_string()]);
    command.args(["--minutes", &options.minutes.to_string()]);
    if let Some(plan) = &options.plan {
        command.arg("--plan").arg(plan);
    }
    if options.keep {
        command.arg("--keep");
    }
    let outcome = step("chaos", &mut command);
    outcome.and(servers.down())
}
