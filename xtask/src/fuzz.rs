//! `cargo xtask fuzz`: libFuzzer on the targets of `fuzz/`, by a nightly toolchain and cargo-fuzz.

use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::run::{Outcome, cargo, output, root, step};

/// The folders of `fuzz/corpus`, and the programs of `fuzz/fuzz_targets`.
const TARGETS: [&str; 6] = ["envelope", "graph", "config", "store", "plan", "machines"];

/// Longest input in bytes: beyond the longest plan of the corpus.
const LEN_MAX: u32 = 32 * 1024;
/// One input may take so long, in seconds.
const TIMEOUT_S: u32 = 20;
/// A run may use so much memory.
const MEMORY_MB: u32 = 2_048;

/// Options of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The target; each in turn if absent.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Time of each target.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// `address` also finds faults of memory in what the engine depends on, at a third of the speed.
    #[arg(long, default_value = "none", value_parser = ["none", "address"])]
    sanitizer: String,
}

/// What a target came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    edges: u64,
    corpus: u64,
    per_second: u64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    nightly()?;
    cargo_fuzz()?;
    let targets = TARGETS
        .iter()
        .filter(|name| options.target.as_deref().is_none_or(|t| t == **name));
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for target in targets {
        let (figures, outcome) = fuzz(target, options)?;
        let found = if outcome.is_ok() {
            "nothing"
        } else {
            "A FINDING"
        };
        lines.push(format!(
            "{target:<9} {:>11} {:>8} {:>7} {:>7}  {found}",
            figures.executions, figures.edges, figures.corpus, figures.per_second
        ));
        if let Err(why) = outcome {
            eprintln!("error: {why}");
            failed.push(*target);
        }
    }
    println!("\ntarget     executions    edges  corpus  exec/s  found");
    println!("{}", lines.join("\n"));
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "findings in {}: the inputs stand in fuzz/artifacts/; docs/guide/fuzzing.md says what to do",
        failed.join(", ")
    ))
}

/// libFuzzer's instrumentation is known to nightly toolchains only.
fn nightly() -> Outcome {
    let cure = "fuzzing needs one: `rustup toolchain install nightly`";
    let list = output(Command::new("rustup").args(["toolchain", "list"]))
        .map_err(|e| format!("{e}: {cure}"))?;
    if list.lines().any(|line| line.starts_with("nightly")) {
        return Ok(());
    }
    Err(format!("there is no nightly toolchain, and {cure}"))
}

fn cargo_fuzz() -> Outcome {
    let known = cargo()
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if known.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("cargo-fuzz is missing and is being installed");
    step(
        "cargo-fuzz",
        cargo().args(["install", "cargo-fuzz", "--locked"]),
    )
}

/// Runs one target; the error inside is a finding, or a build that failed.
fn fuzz(target: &str, options: &Options) -> Outcome<(Figures, Outcome)> {
    // What is found goes here and not into the repository's own corpus, which stays small.
    let found = root().join("fuzz/target/corpus").join(target);
    std::fs::create_dir_all(&found).map_err(|e| format!("{}: {e}", found.display()))?;
    let mut command = Command::new("rustup");
    command.current_dir(root());
    command.args(["run", "nightly", "cargo", "fuzz", "run"]);
    command.args(["--fuzz-dir", "fuzz", "--sanitizer", &options.sanitizer]);
    command.arg(target).arg(&found);
    for folder in ["corpus", "regressions"] {
        let folder = root().join("fuzz").join(folder).join(target);
        if folder.is_dir() {
            command.arg(folder);
        }
    }
    if target == "plan" {
        command.arg(root().join("sim/regressions"));
    }
    let seconds = (options.minutes * 60.0).max(1.0) as u64;
    command.arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={LEN_MAX}"));
    command.arg(format!("-timeout={TIMEOUT_S}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MB}"));
    // Panics that the store catches leave things behind.
    command.args(["-detect_leaks=0", "-print_final_stats=1"]);
    println!("\n== fuzz {target}: {} minutes", options.minutes);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start rustup: {e}"))?;
    let mut figures = Figures::default();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            figures.read(&line);
            eprintln!("{line}");
        }
    }
    let status = child
        .wait()
        .map_err(|e| format!("cannot wait for cargo fuzz: {e}"))?;
    let outcome = if status.success() {
        Ok(())
    } else {
        Err(format!("fuzz {target} failed ({status})"))
    };
    Ok((figures, outcome))
}

impl Figures {
    /// Takes what a line of libFuzzer's output says.
    fn read(&mut self, line: &str) {
        let word_after = |name: &str| {
            let mut words = line.split_whitespace();
            words.find(|word| *word == name)?;
            words.next()
        };
        let number = |text: &str| text.split('/').next()?.parse().ok();
        for (name, figure) in [
            ("cov:", &mut self.edges),
            ("corp:", &mut self.corpus),
            ("stat::number_of_executed_units:", &mut self.executions),
            ("stat::average_exec_per_sec:", &mut self.per_second),
        ] {
            if let Some(found) = word_after(name).and_then(number) {
                *figure = found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, TARGETS};

    #[test]
    fn figures_are_those_of_the_last_lines() {
        let mut figures = Figures::default();
        for line in [
            "#2\tINITED cov: 10 ft: 11 corp: 1/5b exec/s: 0 rss: 40Mb",
            "#900\tDONE   cov: 4512 ft: 9 corp: 212/31Kb lim: 4096 exec/s: 300 rss: 41Mb",
            "stat::number_of_executed_units: 900",
            "stat::average_exec_per_sec:     300",
        ] {
            figures.read(line);
        }
        let expected = Figures {
            executions: 900,
            edges: 4_512,
            corpus: 212,
            per_second: 300,
        };
        assert_eq!(figures, expected);
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let fuzz = crate::run::root().join("fuzz");
        for target in TARGETS {
            let program = fuzz.join("fuzz_targets").join(format!("{target}.rs"));
            assert!(program.is_file(), "{}", program.display());
            assert!(fuzz.join("corpus").join(target).is_dir(), "{target}");
        }
    }
}
