//! `cargo xtask sim`: the simulator in an optimised build.

use clap::Args;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::{Outcome, cargo, step};

/// Options of `cargo xtask sim`.
#[derive(Args, Debug)]
pub(crate) struct Options {
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
    match (options.replay, options.from) {
        (Some(seed), _) => flowkit(&["replay", "--seed", &seed.to_string()]),
        (None, Some(from)) => seeds(options.seeds, from),
        (None, None) => fresh(options.seeds),
    }
}

/// Runs seeds that no earlier run has seen.
pub(crate) fn fresh(count: u64) -> Outcome {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    // Room for a thousand seeds per millisecond before two runs could meet; stays far below 2^63.
    let from = u64::try_from(millis).unwrap_or(0).wrapping_mul(1_000) >> 1;
    seeds(count, from)
}

fn seeds(count: u64, from: u64) -> Outcome {
    flowkit(&[
        "run",
        "--seeds",
        &count.to_string(),
        "--from",
        &from.to_string(),
    ])
}

fn flowkit(arguments: &[&str]) -> Outcome {
    let (command, rest) = arguments.split_first().ok_or("no simulator command")?;
    step(
        "simulation",
        cargo()
            .args(["run", "--release", "--quiet", "-p", "flowkit", "--", "sim"])
            .args([*command, "--tier", "0"])
            .args(rest),
    )
}
