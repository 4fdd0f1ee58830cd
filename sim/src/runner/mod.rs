//! Run seeds, replay one, run a plan: on either tier.

mod page;
mod report;
mod row;
mod shrink;
pub mod sweep;

pub(crate) use report::MET;
#[cfg(feature = "planted-bugs")]
pub(crate) use report::Stopwatch;
pub use report::{Failure, Progress, ReplayReport, RunReport, Verdict};
pub(crate) use shrink::{Judged, shrink_by};
pub use shrink::{Shrunk, shrink, test_of};

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use flowkit_core::message::Envelope;
use flowkit_core::port::Stream;
use serde::{Deserialize, Serialize};
use tracing::subscriber::{NoSubscriber, with_default};

use crate::checkers::Broken;
use crate::outcome::{Outcome, panic_text};
use crate::plan::Plan;
use crate::tier1;
use crate::world;

/// How much of FlowKit runs in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// The machines, on one heap of events: exact in time, and fastest.
    Zero,
    /// Whole processes with their drivers, on simulated hosts and a simulated network.
    One,
}

impl Tier {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
        }
    }

    /// The plan of a seed.
    #[must_use]
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Self::Zero => Plan::from_seed(seed),
            Self::One => Plan::for_hosts(seed),
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// How seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Options {
    /// Every so many seeds, one is run twice and the hashes of everything that happened are
    /// compared; default 32. 1 = each, 0 = none.
    pub twice_every: u64,
    /// Stop after so many failures; default 10.
    pub failures_max: usize,
    /// Run only the seeds whose plan has this shape; default all.
    pub shape: Option<Shape>,
}

/// How many processes of each kind a plan has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Coordinators.
    pub coordinators: u32,
    /// Workers.
    pub workers: u32,
}

impl Shape {
    /// That of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            coordinators: plan.world.coordinators,
            workers: u32::try_from(plan.world.workers.len()).unwrap_or(u32::MAX),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    /// Reads `2x4`: two coordinators, four workers.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (coordinators, workers) = text.split_once('x')?;
            Some(Self {
                coordinators: coordinators.parse().ok()?,
                workers: workers.parse().ok()?,
            })
        };
        read().ok_or_else(|| "coordinators x workers are expected, for instance 2x4".to_owned())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            twice_every: 32,
            failures_max: 10,
            shape: None,
        }
    }
}

/// The one line that replays a seed.
#[must_use]
pub fn replay_line(tier: Tier, seed: u64) -> String {
    format!("flowkit sim replay --tier {tier} --seed {seed}")
}

/// Runs the plans of seeds, one after the other on this thread.
///
/// Seeds are independent: several ranges may run on several threads.
pub fn run(
    tier: Tier,
    seeds: Range<u64>,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> RunReport {
    let mut meter = report::Meter::start(tier, &seeds);
    for seed in seeds {
        let plan = tier.plan(seed);
        if options.shape.is_some_and(|shape| shape != Shape::of(&plan)) {
            meter.pass_over();
            progress(&meter.progress());
            continue;
        }
        let every = options.twice_every;
        let twice = every > 0 && seed.is_multiple_of(every);
        let verdict = check(tier, &plan, twice);
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
pub fn replay(tier: Tier, seed: u64, verbose: bool) -> ReplayReport {
    replay_plan(tier, &tier.plan(seed), verbose)
}

/// Runs a plan and shows it as one self-contained page of HTML.
#[must_use]
pub fn page_of(tier: Tier, plan: &Plan) -> String {
    match outcome(tier, plan, true) {
        Ok(outcome) => page::page(plan, &outcome.history, &outcome.broken),
        Err(panic) => {
            let broken = Broken::new("no_panic", 0, report::panicked(&panic));
            page::page(plan, &[], &[broken])
        }
    }
}

/// Runs a plan with its history kept.
#[must_use]
pub fn replay_plan(tier: Tier, plan: &Plan, verbose: bool) -> ReplayReport {
    let (verdict, history) = match outcome(tier, plan, true) {
        Ok(outcome) => {
            let history = row::rows(&outcome.history, verbose);
            (Verdict::of(tier, plan, &outcome, None), history)
        }
        Err(panic) => (Verdict::panicked(tier, plan, &panic), Vec::new()),
    };
    ReplayReport {
        tier,
        seed: plan.seed,
        plan: plan.clone(),
        rows: history,
        verdict,
    }
}

/// The table of a run whose history was kept.
pub(crate) fn rows_of(outcome: &Outcome) -> Vec<String> {
    row::rows(&outcome.history, false)
}

/// Runs a plan and judges it; `twice` also compares the trace of a second run.
#[must_use]
pub fn check(tier: Tier, plan: &Plan, twice: bool) -> Verdict {
    let first = match outcome(tier, plan, false) {
        Ok(outcome) => outcome,
        Err(panic) => return Verdict::panicked(tier, plan, &panic),
    };
    let differs = twice
        .then(|| match outcome(tier, plan, false) {
            Ok(second) => difference(&first, &second),
            Err(panic) => Some(format!("only the second run of a plan panicked: {panic}")),
        })
        .flatten()
        .map(|what| Broken::new("determinism", 0, what));
    Verdict::of(tier, plan, &first, differs)
}

/// What two runs of one plan show of a world that is not deterministic.
pub(crate) fn difference(first: &Outcome, second: &Outcome) -> Option<String> {
    let same = (first.trace_hash, &first.broken) == (second.trace_hash, &second.broken);
    (!same).then(|| {
        format!(
            "two runs of one plan differ: {:016x} after {} events, {:016x} after {}",
            first.trace_hash, first.trace_events, second.trace_hash, second.trace_events
        )
    })
}

/// Runs a plan on tier 0 for so many events at most, for those who feed plans and messages of
/// strangers; whether it came to its end. Each stray message appears in its stream at its time in
/// milliseconds. Promises are not told: a forged message may break any.
///
/// # Panics
/// On a panic of the world or of a machine: what a fuzzer is after.
#[must_use]
pub fn run_some(plan: &Plan, events_max: u64, strays: &[(u64, Stream, Envelope)]) -> bool {
    world::run_some(plan, events_max, strays)
}

/// Runs a plan. A panic of a machine is a broken promise of the outcome, at its moment; one of the
/// world itself leaves nothing but its words.
fn outcome(tier: Tier, plan: &Plan, keep_history: bool) -> Result<Outcome, String> {
    let run = || match tier {
        Tier::Zero => world::run(plan, keep_history),
        Tier::One if keep_history => tier1::run(plan, true),
        // Thousands of simulated processes have nothing to say in this one's log.
        Tier::One => with_default(NoSubscriber::new(), || tier1::run(plan, false)),
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_text(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_of_one_plan_are_alike_and_one_event_more_or_a_broken_promise_is_a_difference() {
        for tier in [Tier::Zero, Tier::One] {
            let plan = Plan::small();
            let first = outcome(tier, &plan, false).expect("it runs");
            let mut second = outcome(tier, &plan, false).expect("it runs");
            assert_eq!(difference(&first, &second), None);
            let other = outcome(
                tier,
                &Plan {
                    seed: plan.seed + 1,
                    ..plan
                },
                false,
            );
            let told = difference(&first, &other.expect("it runs")).expect("another seed");
            assert!(told.starts_with("two runs of one plan differ: "), "{told}");
            second.broken.push(Broken::new("settle", 0, "only here"));
            assert!(difference(&first, &second).is_some());
        }
    }
}
