//! One command per job of the FlowKit repository: `cargo xtask test`, `cargo xtask check`, …

mod bench;
mod chaos;
mod check;
mod explore;
mod fidelity;
mod fuzz;
mod licences;
mod mutants;
mod purity;
mod run;
mod services;
mod sim;
mod spdx;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// One command per job of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Build, run every test (doctests included), then the simulator on fresh seeds.
    Test(test::Options),
    /// Everything that can be judged without running tests: format, lints, purity, docs, licences.
    Check,
    /// File lengths and words that must not be left in the code.
    Tidy,
    /// Licences, banned crates and sources of every dependency, as `deny.toml` says.
    Licences,
    /// Measure the engine; writes `target/bench/embedded.json`, with `--fleet` `fleet.json`.
    Bench(bench::Options),
    /// Compare the models with the real servers: the same generated operations on both.
    Fidelity(fidelity::Options),
    /// Feed parsers and files with what a fuzzer makes up; needs a nightly toolchain.
    Fuzz(fuzz::Options),
    /// Plant each known bug in turn and see that the simulator finds it.
    Mutants(mutants::Options),
    /// A real Apache Kafka and a real MongoDB for tests: up, down, status, kill or restart.
    Services(services::Options),
    /// Faults on real processes over real servers, judged by the simulation's checkers.
    Chaos(chaos::Options),
    /// Visit every state of small scopes of the real machines (an optimised build).
    Explore(explore::Options),
    /// Run the simulator (an optimised build).
    Sim(sim::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().job {
        Job::Test(options) => test::run(&options),
        Job::Check => check::run(),
        Job::Tidy => tidy::run(),
        Job::Licences => licences::run(),
        Job::Bench(options) => bench::run(&options),
        Job::Fidelity(options) => fidelity::run(&options),
        Job::Fuzz(options) => fuzz::run(&options),
        Job::Mutants(options) => mutants::run(&options),
        Job::Services(options) => services::run(&options),
        Job::Chaos(options) => chaos::run(&options),
        Job::Explore(options) => explore::run(&options),
        Job::Sim(options) => sim::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nerror: {message}");
            ExitCode::FAILURE
        }
    }
}
