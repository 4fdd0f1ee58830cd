//! Recovery invariants: whatever a crash cuts off, what resumes from durable state ends with the
//! same counts and artifacts as a run without a crash. The checkers compare with the expected
//! result of each plan's scripts; here plans and crash points are drawn at random.

use flowkit_sim::plan::{Fault, Plan, Rates, When};
use flowkit_sim::runner::{Tier, check};
use proptest::prelude::*;

/// A generated workload without any fault of its own.
fn calm(seed: u64) -> Plan {
    let mut plan = Plan::from_seed(seed);
    plan.faults.clear();
    plan.rates = Rates::default();
    plan
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_history_cut_by_crashes_anywhere_ends_like_one_without(
        seed in any::<u64>(),
        cuts in proptest::collection::vec((any::<u32>(), 1..2_000_u64, 1..5_000_u64), 1..5),
    ) {
        let calm = calm(seed);
        let without = check(Tier::Zero, &calm, false);
        prop_assert!(without.failures.is_empty(), "without a crash: {:?}", without.failures);
        let mut plan = calm;
        for (host, nth, down_ms) in cuts {
            let host = host % plan.hosts();
            let when = When::Effect { nth };
            plan = plan.with(Fault::Crash { host, when, down_ms, new_id: false });
        }
        let with = check(Tier::Zero, &plan, false);
        prop_assert!(with.failures.is_empty(), "{:?} of {}", with.failures,
            serde_json::to_string(&plan).unwrap_or_default());
    }
}
