//! `cargo xtask mutants`: plants each known bug in turn and sees that the simulator finds it.

use clap::Args;

use crate::run::{Outcome, cargo, step};

/// Options of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Most seeds per planted bug.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Only this bug.
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "-p", "flowkit-sim"]);
    command.args(["--features", "planted-bugs", "--bin", "mutants", "--"]);
    command.args(["--seeds", &options.seeds.to_string()]);
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    step("mutants", &mut command)
}
