//! `cargo xtask mutants`: plants each known bug in turn and sees that the simulator finds it.

use clap::Args;

use crate::run::{Outcome, cargo, step};

/// Options of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Most seeds per planted bug.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Where to hunt: `0`, `1` or `all`. Default: each bug on the cheapest tier that it can strike on.
    #[arg(long)]
    tier: Option<String>,
    /// Only this bug; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// Only the bugs of this part.
    #[arg(long)]
    part: Option<String>,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only a few bugs that fall soon.
    #[arg(long, conflicts_with = "only")]
    sample: bool,
    /// One JSON list on stdout.
    #[arg(long)]
    json: bool,
    /// The table as `docs/planted-bugs.md` has it.
    #[arg(long)]
    markdown: bool,
    /// Print every bug with the promise that should fall, and run nothing.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut command = cargo();
    command.args(["run", "--profile", "sim", "--quiet", "-p", "flowkit-sim"]);
    command.args(["--features", "planted-bugs", "--bin", "mutants", "--"]);
    command.args(["--seeds", &options.seeds.to_string()]);
    for only in &options.only {
        command.args(["--only", only]);
    }
    for (name, value) in [("--tier", &options.tier), ("--part", &options.part)] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    command.args(["--from", &options.from.to_string()]);
    let flags = [
        ("--sample", options.sample),
        ("--json", options.json),
        ("--markdown", options.markdown),
        ("--list", options.list),
    ];
    command.args(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| flag));
    step("mutants", &mut command)
}
