//! The `flowkit` command.

mod command;
mod roles;

use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Messages are made on one thread and dropped on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = command::args::Cli::parse();
    // `RUST_LOG=flowkit=debug` shows the engine at work; results go to standard output alone.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(command::colours_on_stderr())
        .init();
    match command::run(cli) {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code()
        }
    }
}
