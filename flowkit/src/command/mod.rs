//! The commands: one module each, and what they share.

pub(crate) mod args;
mod demo;
mod demo_job;
pub(crate) mod failure;
mod fleet;
mod graph;
mod interrupt;
mod nodes;
mod output;
mod progress;
mod run;
mod session;
mod sim;
mod submit;
mod table;
mod task;
mod vars;

use args::{Cli, Command};
use failure::{Failure, Outcome};

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Demo(args) => on_runtime(demo::run(args)),
        Command::Run(args) => on_runtime(run::run(args)),
        Command::Graph(command) => graph::run(&command),
        Command::Task(command) => on_runtime(task::run(command)),
        Command::Coordinator(args) => on_runtime(fleet::coordinator::run(args)),
        Command::Worker(args) => on_runtime(fleet::worker::run(args)),
        Command::Submit(args) => on_runtime(submit::run(args)),
        Command::Sim(command) => sim::run(&command),
    }
}

fn on_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::engine)?;
    let outcome = runtime.block_on(command);
    // A handler that blocks its thread must not keep the process alive.
    runtime.shutdown_background();
    outcome
}
