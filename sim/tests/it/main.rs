//! The simulator at work: named scenarios on both tiers, the crash sweep, recovery from random cuts, plans that once
//! failed, fresh seeds.

mod clients;
mod processes;
mod recovery;
mod scenarios;
mod schedules;
mod seeds;
mod shards;
mod sweep;

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{Tier, check};

/// A fault that need not strike processes: time has another grain there, and commits another size.
const ON_MACHINES: &str = "on machines: ";

/// Every promise holds with the real drivers on hosts, too, and what strikes the machines strikes
/// there as well.
fn holds_as_processes(plan: &Plan, fired: &[&str]) {
    let verdict = check(Tier::One, &plan.clone().fit_hosts(), true);
    assert!(verdict.holds(), "tier 1: {:#?}", verdict.failures);
    for family in fired {
        if family.starts_with(ON_MACHINES) {
            continue;
        }
        let names: &[&str] = match *family {
            // A thread that is blocked would block the whole simulation.
            "handler_blocks" => continue,
            "store_away" => &["store_frozen", "store_restarted"],
            "broker_away" => &["broker_frozen", "broker_restarted"],
            other => &[other],
        };
        let struck = names.iter().any(|name| verdict.fired.contains_key(*name));
        assert!(struck, "tier 1: {family} did not fire: {:?}", verdict.fired);
    }
}
