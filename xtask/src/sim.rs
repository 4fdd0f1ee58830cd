//! `cargo xtask sim`: the simulator in an optimised build.

use clap::Args;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::{Outcome, cargo, output, step, target_folder};

/// Options of `cargo xtask sim`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// 0 = the machines, 1 = whole processes on a simulated network.
    #[arg(long, value_name = "0|1", default_value_t = 0)]
    tier: u8,
    /// Number of seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// First seed; a fresh one if absent.
    #[arg(long)]
    from: Option<u64>,
    /// Replay this one seed with its trace instead.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    replay: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let arguments = match (options.replay, options.from) {
        (Some(seed), _) => {
            let (tier, seed) = (options.tier.to_string(), seed.to_string());
            words(["replay", "--tier", &tier, "--seed", &seed])
        }
        (None, Some(from)) => seeds(options.tier, options.seeds, from),
        (None, None) => seeds(options.tier, options.seeds, fresh()),
    };
    // Optimised; arithmetic and invariants are checked.
    let mut command = cargo();
    command.args([
        "run",
        "--profile",
        "sim",
        "--quiet",
        "-p",
        "flowkit",
        "--",
        "sim",
    ]);
    step("simulation", command.args(arguments))
}

/// Runs seeds that no earlier run has seen, on a `flowkit` that is built already.
pub(crate) fn run_fresh(flowkit: &Path, tier: u8, count: u64) -> Outcome {
    let mut command = Command::new(flowkit);
    let title = format!("simulation, tier {tier}");
    let arguments = seeds(tier, count, fresh());
    // Each seed twice: a run that does not repeat is a bug like any other.
    step(
        &title,
        command
            .arg("sim")
            .args(arguments)
            .args(["--twice-every", "1"]),
    )
}

/// Seeds on each tier whose runs are compared between builds.
const COMPARED: u64 = 20;

/// Fresh seeds come to the very same history and hash in a build for tests (little optimised, with every
/// assertion) and in a release.
pub(crate) fn builds_agree() -> Outcome {
    println!("\n== simulation: builds agree");
    let built = cargo()
        .args(["build", "--release", "--quiet", "-p", "flowkit"])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the optimised build failed".to_owned());
    }
    let folder = target_folder()?;
    let (plain, optimised) = (folder.join("debug/flowkit"), folder.join("release/flowkit"));
    let from = fresh();
    for tier in ["0", "1"] {
        for seed in from..from + COMPARED {
            let seed = seed.to_string();
            let history = |flowkit: &Path| {
                let mut command = Command::new(flowkit);
                // Logs show real time.
                command.env("RUST_LOG", "off");
                output(command.args(["sim", "replay", "--tier", tier, "--seed", &seed]))
            };
            if history(&plain)? != history(&optimised)? {
                return Err(format!(
                    "tier {tier}, seed {seed}: two builds, two histories"
                ));
            }
        }
        println!("tier {tier}: {COMPARED} seeds from {from} on, the same history in both builds");
    }
    Ok(())
}

/// A first seed that no earlier run has used.
pub(crate) fn fresh() -> u64 {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    // Room for five hundred seeds per millisecond before two runs could meet; far below 2^63.
    u64::try_from(millis).unwrap_or(0).wrapping_mul(500)
}

fn seeds(tier: u8, count: u64, from: u64) -> Vec<String> {
    let (tier, count, from) = (tier.to_string(), count.to_string(), from.to_string());
    words(["run", "--tier", &tier, "--seeds", &count, "--from", &from])
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}
