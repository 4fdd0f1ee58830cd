//! Plans for real processes are plans: what holds there holds in a simulation, and the other way.

use flowkit_sim::plan::{Plan, When};
use flowkit_sim::runner::{Tier, check};

const SEEDS: u64 = 150;

#[test]
fn plans_for_processes_keep_every_promise_in_a_simulation() {
    for seed in 0..SEEDS {
        let plan = Plan::for_processes(seed);
        let verdict = check(Tier::Zero, &plan, false);
        let json = serde_json::to_string(&plan).expect("a plan is JSON");
        assert!(verdict.holds(), "seed {seed}: {verdict:?}\n{json}");
    }
}

#[test]
fn every_kind_of_fault_that_can_be_made_from_outside_is_drawn() {
    let mut kinds: Vec<String> = (0..SEEDS)
        .flat_map(|seed| Plan::for_processes(seed).faults)
        .map(|fault| {
            let text = format!("{fault:?}");
            text.split(' ').next().unwrap_or_default().to_owned()
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    let all = [
        "Away",
        "Crash",
        "Gone",
        "Hold",
        "Partition",
        "Poison",
        "Shutdown",
        "Slow",
        "Stall",
        "Twin",
    ];
    assert_eq!(kinds, all);
}

#[test]
fn plans_for_processes_name_times_and_no_events_of_a_simulation() {
    for seed in 0..SEEDS {
        let plan = Plan::for_processes(seed);
        for fault in &plan.faults {
            let at = matches!(fault.when(), Some(When::At { .. }));
            assert!(at, "seed {seed}: {fault:?}");
        }
        let mut actions = plan.actions.iter();
        assert!(actions.all(|action| matches!(action.when, When::At { .. })));
    }
}
