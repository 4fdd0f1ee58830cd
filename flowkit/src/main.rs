//! The `flowkit` command.

mod command;
mod roles;

use crate::command::output::eputln;
use clap::Parser;
use std::process::ExitCode;

/// Messages are made on one thread and dropped on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = command::args::Cli::parse();
    let ended = command::telemetry::start(&cli.command).and_then(|telemetry| {
        let outcome = command::run(cli);
        telemetry.end();
        outcome
    });
    match ended {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eputln!("error: {failure}");
            failure.code()
        }
    }
}
