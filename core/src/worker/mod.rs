//! The worker machine: takes STARTs, drives runs batch by batch, keeps their leases alive.

mod config;
mod io;

pub use config::Config;
pub use io::{Effect, Input, RunCommand, RunEvent, RunFailure, RunId, RunSpec};
