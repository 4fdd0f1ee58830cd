//! `cargo xtask fidelity`: the same generated operations on the models and on the real servers.

use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::run::{Outcome, cargo, step};
use crate::services::{self, Addresses};

/// Options of `cargo xtask fidelity`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Least operations to compare on each server.
    #[arg(long, default_value_t = 10_000)]
    operations: u64,
    /// Seed of the first sequence; a fresh one if absent.
    #[arg(long)]
    seed: Option<u64>,
}

const TEST: [&str; 5] = ["test", "-p", "flowkit-tests", "--test", "fidelity"];

pub(crate) fn run(options: &Options) -> Outcome {
    println!("== servers");
    let up = services::up()?;
    let outcome = compare(options, &up.addresses);
    let stopped = up.undo();
    // Alone on the last line, so that people and programs find it.
    println!("{}", outcome?);
    stopped
}

/// What was compared, on one line.
fn compare(options: &Options, addresses: &Addresses) -> Outcome<String> {
    step("build", cargo().args(TEST).arg("--no-run"))?;
    let seed = options.seed.unwrap_or_else(crate::sim::fresh).to_string();
    println!(
        "\n== fidelity: {} operations each from seed {seed} on",
        options.operations
    );
    let mut child = cargo()
        .args(TEST)
        .envs(addresses.iter().cloned())
        .env(
            "FLOWKIT_FIDELITY_OPERATIONS",
            options.operations.to_string(),
        )
        .env("FLOWKIT_FIDELITY_SEED", &seed)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start cargo test: {e}"))?;
    let mut parts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| format!("cannot read the output of cargo test: {e}"))?;
            println!("{line}");
            parts.extend(compared(&line));
        }
    }
    let status = child.wait();
    let status = status.map_err(|e| format!("cannot wait for cargo test: {e}"))?;
    if !status.success() {
        return Err(format!(
            "a model and its server differ, or one of them could not be asked ({status}): see above"
        ));
    }
    summary(parts, &seed)
}

/// "fidelity: 10,240 operations compared on MongoDB (seed 7, …" -> how many, and where.
fn compared(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once("fidelity: ")?;
    let (count, rest) = rest.split_once(" operations compared on ")?;
    let (server, _) = rest.split_once(" (seed ")?;
    Some((server.to_owned(), count.to_owned()))
}

fn summary(mut parts: Vec<(String, String)>, seed: &str) -> Outcome<String> {
    parts.sort();
    match &parts[..] {
        [(kafka, appended), (mongo, stored)] if kafka == "Kafka" && mongo == "MongoDB" => {
            Ok(format!(
                "fidelity: {stored} operations compared on MongoDB, {appended} on Kafka (seed {seed}): \
             no difference"
            ))
        }
        other => Err(format!("not both servers were compared, but {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_are_on_the_closing_line_and_neither_may_be_missing() {
        let lines = [
            "test x ... fidelity: 10,112 operations compared on Kafka (seed 7, 90 sequences): no difference",
            "running 2 tests",
            "fidelity: 10,240 operations compared on MongoDB (seed 7, 101 sequences): no difference",
        ];
        let mut parts: Vec<_> = lines.into_iter().filter_map(compared).collect();
        let line = "fidelity: 10,240 operations compared on MongoDB, 10,112 on Kafka (seed 7): \
                    no difference";
        assert_eq!(summary(parts.clone(), "7"), Ok(line.to_owned()));
        parts.pop();
        assert!(summary(parts, "7").is_err());
    }
}
