//! The simulator at work: named scenarios on both tiers, the crash sweep, recovery from random cuts, plans that once
//! failed, fresh seeds.

mod processes;
mod recovery;
mod scenarios;
mod schedules;
mod seeds;
mod sweep;

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{Tier, check};

/// Every promise holds with the real drivers on hosts, too. What strikes there may differ: time has
/// another grain.
fn holds_as_processes(plan: &Plan) {
    let verdict = check(Tier::One, &plan.clone().fit_hosts(), true);
    assert!(verdict.holds(), "tier 1: {:#?}", verdict.failures);
}
