//! `cargo xtask bench`: the engine on the embedded store, measured in an optimised build.

use clap::Args;

use crate::run::{Outcome, cargo, root, step};

/// Options of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder for the data files; measure on the disk that matters to you.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
    /// A tenth of the work: for a first look, not for figures to quote.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let out = root().join("target/bench/embedded.json");
    let mut command = cargo();
    command.args(["run", "--release", "--quiet", "-p", "flowkit"]);
    command
        .args(["--example", "bench", "--", "--out"])
        .arg(&out);
    if let Some(data) = &options.data {
        command.arg("--data").arg(data);
    }
    if options.quick {
        command.arg("--quick");
    }
    step("bench", &mut command)
}
