//! Tier 0: run seeds, replay one, run a plan.

mod page;
mod report;
mod row;
mod shrink;
pub mod sweep;

#[cfg(feature = "planted-bugs")]
pub(crate) use report::Stopwatch;
pub use report::{Failure, Progress, ReplayReport, RunReport, Verdict};
pub use shrink::{Shrunk, shrink, test_of};

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flowkit_core::message::Envelope;
use flowkit_core::port::Stream;
use serde::{Deserialize, Serialize};

use crate::checkers::Broken;
use crate::plan::Plan;
use crate::world::{self, Outcome};

/// How seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Options {
    /// Run each seed twice and compare the hashes of everything that happened; default true.
    pub twice: bool,
    /// Stop after so many failures; default 10.
    pub failures_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            twice: true,
            failures_max: 10,
        }
    }
}

/// The one line that replays a seed.
#[must_use]
pub fn replay_line(seed: u64) -> String {
    format!("flowkit sim replay --tier 0 --seed {seed}")
}

/// Runs the plans of seeds, one after the other on this thread.
///
/// Seeds are independent: several ranges may run on several threads.
pub fn run(seeds: Range<u64>, options: &Options, progress: &mut dyn FnMut(&Progress)) -> RunReport {
    let mut meter = report::Meter::start(&seeds);
    for seed in seeds {
        let plan = Plan::from_seed(seed);
        let verdict = check(&plan, options.twice);
        meter.add(seed, &plan, &verdict);
        progress(&meter.progress());
        if meter.failures() >= options.failures_max {
            break;
        }
    }
    meter.report()
}

/// Runs the plan of a seed with its history kept; `verbose` rows also show reads and checks.
#[must_use]
pub fn replay(seed: u64, verbose: bool) -> ReplayReport {
    replay_plan(&Plan::from_seed(seed), verbose)
}

/// Runs a plan and shows it as one self-contained page of HTML.
#[must_use]
pub fn page_of(plan: &Plan) -> String {
    match outcome(plan, true) {
        Ok(outcome) => page::page(plan, &outcome.history, &outcome.broken),
        Err(panic) => {
            let broken = Broken::new("no_panic", 0, format!("a machine panicked: {panic}"));
            page::page(plan, &[], &[broken])
        }
    }
}

/// Runs a plan with its history kept.
#[must_use]
pub fn replay_plan(plan: &Plan, verbose: bool) -> ReplayReport {
    let (verdict, history) = match outcome(plan, true) {
        Ok(outcome) => {
            let history = row::rows(&outcome.history, verbose);
            (Verdict::of(plan, &outcome, None), history)
        }
        Err(panic) => (Verdict::panicked(plan, &panic), Vec::new()),
    };
    ReplayReport {
        seed: plan.seed,
        plan: plan.clone(),
        rows: history,
        verdict,
    }
}

/// Runs a plan and judges it; `twice` also compares the trace of a second run.
#[must_use]
pub fn check(plan: &Plan, twice: bool) -> Verdict {
    let first = match outcome(plan, false) {
        Ok(outcome) => outcome,
        Err(panic) => return Verdict::panicked(plan, &panic),
    };
    let second = if twice {
        outcome(plan, false).ok()
    } else {
        None
    };
    let differs = second
        .filter(|second| (second.trace_hash, &second.broken) != (first.trace_hash, &first.broken));
    let differs = differs.map(|second| {
        let what = format!(
            "two runs of one plan differ: {:016x} after {} events, {:016x} after {}",
            first.trace_hash, first.trace_events, second.trace_hash, second.trace_events
        );
        Broken::new("determinism", 0, what)
    });
    Verdict::of(plan, &first, differs)
}

/// Runs a plan for so many events at most, for those who feed plans and messages of strangers;
/// whether it came to its end. Each stray message appears in its stream at its time in milliseconds.
/// Promises are not told: a forged message may break any.
///
/// # Panics
/// On a panic of the world or of a machine: what a fuzzer is after.
#[must_use]
pub fn run_some(plan: &Plan, events_max: u64, strays: &[(u64, Stream, Envelope)]) -> bool {
    world::run_some(plan, events_max, strays)
}

/// Runs a plan; a panic of a machine is caught, and is a broken promise too.
fn outcome(plan: &Plan, keep_history: bool) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(plan, keep_history))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without words".to_owned())
    })
}
