//! `cargo xtask bench`: the engine measured in an optimised build, on the embedded store or as
//! processes over Kafka and MongoDB.

use clap::Args;

use crate::run::{Outcome, cargo, root, step, target_folder};
use crate::services::{self, Addresses};

/// Options of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Processes over a real Kafka and a real MongoDB instead of the embedded store; writes
    /// `target/bench/fleet.json`. The servers are those of `cargo xtask services`.
    #[arg(long, conflicts_with = "data")]
    fleet: bool,
    /// Shards of the deployment that is measured with `--fleet`.
    #[arg(long, default_value_t = 1, requires = "fleet")]
    shards: u32,
    /// Only one part of `--fleet`: `load`, `batches`, `latency` or `takeover`.
    #[arg(long, requires = "fleet")]
    only: Option<String>,
    /// Folder for the data files; measure on the disk that matters to you.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
    /// A tenth of the work: for a first look, not for figures to quote.
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(options: &Options) -> Outcome {
    if options.fleet {
        println!("== servers");
        let up = services::up()?;
        let outcome = fleet(options, &up.addresses);
        let stopped = up.undo();
        return outcome.and(stopped);
    }
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

fn fleet(options: &Options, addresses: &Addresses) -> Outcome {
    // One build for both, so that what they share is compiled once.
    let packages = ["-p", "flowkit", "-p", "flowkit-tests"];
    let what = ["--bin", "flowkit", "--example", "fleet"];
    let mut build = cargo();
    build.args(["build", "--release", "--features", "flowkit/fleet"]);
    step("build", build.args(packages).args(what))?;
    let built = target_folder()?.join("release");
    let mut command = std::process::Command::new(built.join("examples/fleet"));
    command
        .arg("--flowkit")
        .arg(built.join("flowkit"))
        .arg("--out")
        .arg(root().join("target/bench/fleet.json"))
        .args(["--shards", &options.shards.to_string()])
        .envs(addresses.iter().cloned());
    if options.quick {
        command.arg("--quick");
    }
    if let Some(part) = &options.only {
        command.args(["--only", part]);
    }
    step("bench", &mut command)
}
