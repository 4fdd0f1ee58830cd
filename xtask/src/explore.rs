//! `cargo xtask explore`: every schedule of small scopes, on the real machines.

use clap::Args;

use crate::run::{Outcome, cargo, step};

/// Options of `cargo xtask explore`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The scopes (`--list` shows them); without one, all that take less than a minute.
    #[arg(long)]
    scope: Vec<String>,
    /// Most states per scope.
    #[arg(long, default_value_t = 20_000_000)]
    states_max: u64,
    /// Most states of one level: they are kept whole, about 20 KB each.
    #[arg(long, default_value_t = 300_000)]
    level_max: usize,
    /// Longest time per scope.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Threads; all of this machine's if absent.
    #[arg(long)]
    threads: Option<usize>,
    /// Plant each known bug in turn and look for it in the scopes.
    #[arg(long)]
    mutants: bool,
    /// With `--mutants`: only this bug, and the shortest way to it.
    #[arg(long, requires = "mutants")]
    only: Option<String>,
    /// Print the scopes and visit none.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "-p", "flowkit-explore"]);
    if options.mutants {
        command.args(["--features", "planted-bugs"]);
    }
    command.arg("--");
    for scope in &options.scope {
        command.args(["--scope", scope]);
    }
    command.args(["--states-max", &options.states_max.to_string()]);
    command.args(["--level-max", &options.level_max.to_string()]);
    command.args(["--minutes", &options.minutes.to_string()]);
    if let Some(threads) = options.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(only) = &options.only {
        command.args(["--only", only, "--traces"]);
    }
    let flags = [("--mutants", options.mutants), ("--list", options.list)];
    command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    step("explore", &mut command)
}
