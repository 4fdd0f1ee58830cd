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
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only a few bugs that fall soon.
    #[arg(long, conflicts_with = "only")]
    sample: bool,
    /// One JSON list on stdout.
    #[arg(long)]
    json: bool,
    /// Print the table of `docs/planted-bugs.md` and run nothing.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut command = cargo();
    command.args(["run", "--profile", "sim", "--quiet", "-p", "flowkit-sim"]);
    command.args(["--features", "planted-bugs", "--bin", "mutants", "--"]);
    command.args(["--seeds", &options.seeds.to_string()]);
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    command.args(["--from", &options.from.to_string()]);
    let flags = [
        ("--sample", options.sample),
        ("--json", options.json),
        ("--list", options.list),
    ];
    command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    step("mutants", &mut command)
}
