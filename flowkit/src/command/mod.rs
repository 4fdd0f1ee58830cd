//! The commands: one module each, and what they share.

pub(crate) mod args;
mod colours;
mod demo;
mod demo_job;
mod doctor;
mod exec;
pub(crate) mod failure;
mod fleet;
mod given;
mod graph;
mod health;
mod help;
mod history;
mod interrupt;
mod nodes;
pub(crate) mod output;
mod progress;
mod rerun;
mod run;
mod session;
mod shell;
mod sim;
mod sim_args;
mod stuck;
mod submit;
mod table;
mod task;
pub(crate) mod telemetry;
mod vars;
mod why;
mod workers;

use args::{Cli, Command};
use failure::{Failure, Outcome};
use std::time::Duration;

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
        Command::Why { id, at } => on_runtime(why::run(&id, &at)),
        Command::Doctor(args) => on_runtime(doctor::run(args)),
        Command::Sim(command) => sim::run(&command),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(folder.as_deref()),
    }
}

/// Longest wait for what is dropped at the end.
const DROP_MAX: Duration = Duration::from_secs(1);

fn on_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::engine)?;
    let outcome = runtime.block_on(command);
    // A handler that blocks its thread must not keep the process alive. After an error runs may not have
    // been stopped: they are dropped, which ends what they hold.
    match outcome {
        Ok(_) => runtime.shutdown_background(),
        Err(_) => runtime.shutdown_timeout(DROP_MAX),
    }
    outcome
}
