//! `cargo xtask test`: every test of the workspace, real servers included, then the simulator on fresh
//! seeds.

use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use crate::chaos;
use crate::run::{Outcome, cargo, step, target_folder};
use crate::services::{self, Addresses};
use crate::sim;

/// Seeds of the simulator's parts: two minutes' worth. `cargo xtask sim` runs any number.
const SEEDS_DEFAULT: u64 = 20_000;
const HOST_SEEDS_DEFAULT: u64 = 1_000;

/// Options of `cargo xtask test`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Fresh seeds for the simulator's machines; 0 leaves them out.
    #[arg(long, default_value_t = SEEDS_DEFAULT)]
    seeds: u64,
    /// The same for whole processes on a simulated network.
    #[arg(long, default_value_t = HOST_SEEDS_DEFAULT)]
    host_seeds: u64,
    /// Minutes of faults on real processes; 0 leaves them out. `cargo xtask chaos` runs any number.
    #[arg(long, default_value_t = 2.0)]
    chaos_minutes: f64,
}

pub(crate) fn run(options: &Options) -> Outcome {
    // Nothing is skipped for want of a server: without them the run fails.
    let started = Instant::now();
    println!("== servers");
    let up = services::up()?;
    let outcome = run_all(options, &up.addresses);
    let stopped = up.undo();
    let (outcome, line) = outcome?;
    println!("{:.0} minutes", started.elapsed().as_secs_f64() / 60.0);
    // Alone on the last line, so that people and programs find it.
    println!("{line}");
    outcome.and(stopped)
}

/// Everything; the closing line beside the outcome.
fn run_all(options: &Options, addresses: &Addresses) -> Outcome<(Outcome, String)> {
    step("build", cargo().args(["test", "--workspace", "--no-run"]))?;
    // The crash proof (`flowkit/tests/it/crash.rs`: SIGKILL at random moments) is one of these.
    let mut sum = Sum::default();
    let tests = run_tests(&["--workspace"], addresses, &mut sum);
    // The command with the servers' adapters and with traces is another build of it.
    let features = [
        "--features",
        "fleet,otel,sim",
        "--test",
        "fleet",
        "--test",
        "programs",
        "--test",
        "otel",
        "--test",
        "simulated",
    ];
    let fleet = [&["-p", "flowkit"][..], &features].concat();
    let fleet = run_tests(&fleet, addresses, &mut sum);
    let page = ["-p", "flowkit", "--features", "fleet,otel,sim", "--doc"];
    let page = [&page[..], &["guide::deployment"]].concat();
    let fleet = fleet.and(run_tests(&page, addresses, &mut sum));
    let traces = ["-p", "flowkit-observe", "--features", "otel", "traces"];
    let fleet = fleet.and(run_tests(&traces, addresses, &mut sum));
    // A few planted bugs must be found; `cargo xtask mutants` hunts all of them.
    let sample = ["-p", "flowkit-sim", "--features", "planted-bugs"];
    let mutants = [&sample[..], &["--test", "mutants"]].concat();
    let mutants = run_tests(&mutants, addresses, &mut sum);
    let sample = ["-p", "flowkit-explore", "--features", "planted-bugs"];
    let found = [&sample[..], &["--test", "mutants"]].concat();
    let mutants = mutants.and(run_tests(&found, addresses, &mut sum));
    // Those that only real processes can show.
    let children = ["-p", "flowkit-runtime", "--features", "planted-bugs"];
    let children = [&children[..], &["--test", "planted"]].concat();
    let mutants = mutants.and(run_tests(&children, addresses, &mut sum));
    let simulation = fresh(0, options.seeds)?;
    let hosts = fresh(1, options.host_seeds)?;
    let builds = sim::builds_agree();
    let chaos = if options.chaos_minutes > 0.0 {
        chaos::run_for(options.chaos_minutes)
    } else {
        println!("\n== chaos: left out (--chaos-minutes 0)");
        Ok(())
    };
    let ignored = if sum.ignored == 0 {
        Ok(())
    } else {
        Err(format!(
            "tests that were ignored: {}; none may be",
            sum.ignored
        ))
    };
    let outcomes = [
        ("tests", &tests),
        ("processes", &fleet),
        ("planted bugs", &mutants),
        ("simulation, tier 0", &simulation),
        ("simulation, tier 1", &hosts),
        ("simulation, builds agree", &builds),
        ("chaos", &chaos),
        ("none ignored", &ignored),
    ];
    for (what, outcome) in outcomes {
        println!("{what}: {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    }
    let line = format!("{} passed, {} failed", sum.passed, sum.failed);
    let parts = tests
        .and(fleet)
        .and(mutants)
        .and(simulation)
        .and(hosts)
        .and(builds);
    Ok((parts.and(chaos).and(ignored), line))
}

/// Seeds that no run has seen. Inside: what came of them; outside: whether they could be run.
fn fresh(tier: u8, seeds: u64) -> Outcome<Outcome> {
    if seeds == 0 {
        println!("\n== simulation, tier {tier}: left out");
        return Ok(Ok(()));
    }
    // The command that its own tests have just used: optimised a little, assertions on.
    let flowkit = target_folder()?.join("debug/flowkit");
    Ok(sim::run_fresh(&flowkit, tier, seeds))
}

/// Runs `cargo test`, shows its output and adds up its result lines.
fn run_tests(what: &[&str], addresses: &Addresses, sum: &mut Sum) -> Outcome {
    let failed_before = sum.failed;
    println!("\n== tests: cargo test {} --no-fail-fast", what.join(" "));
    let started = Instant::now();
    let mut child = cargo()
        .args(["test", "--no-fail-fast"])
        .args(what)
        .envs(addresses.iter().cloned())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start cargo test: {e}"))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| format!("cannot read the output of cargo test: {e}"))?;
            println!("{line}");
            sum.add(&line);
        }
    }
    let status = child
        .wait()
        .map_err(|e| format!("cannot wait for cargo test: {e}"))?;
    println!("== tests: {:.0} s", started.elapsed().as_secs_f64());
    if status.success() && sum.failed == failed_before && sum.passed > 0 {
        Ok(())
    } else {
        Err(format!(
            "tests failed ({status}): {} passed, {} failed; the failures are listed above",
            sum.passed, sum.failed
        ))
    }
}

/// The numbers of all `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Sum {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        // "ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        let Some((_, counts)) = rest.split_once(". ") else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn result_lines_of_all_binaries_are_added_up() {
        let mut sum = Sum::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "a test that prints test result: ok. 9 passed; 9 failed",
        ] {
            sum.add(line);
        }
        let expected = Sum {
            passed: 7,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(sum, expected);
    }
}
