//! The coordinator machine: owns shards, folds their streams, decides what may start.

mod config;
mod io;

pub use config::Config;
pub use io::{Effect, Input};
