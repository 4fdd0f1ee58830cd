//! A crash at every effect of every process over one task's life.

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::Tier;
use flowkit_sim::runner::sweep::{SweepReport, crash_everywhere, crash_pairs};

fn judge(name: &str, report: &SweepReport) {
    println!("{name}: {report}");
    assert!(report.is_clean(), "{name}: {report}");
}

/// Two coordinators, two workers, a streaming graph of three nodes: crashes that are over at once
/// and crashes that outlast every lease.
#[test]
fn a_task_survives_a_crash_at_every_effect_of_every_process() {
    let mut plan = Plan::small();
    plan.heal_ms = 7_000;
    let report = crash_everywhere(Tier::Zero, &plan, &[30, 6_000]);
    judge("two coordinators, two workers", &report);
    assert!(report.points > 400, "{}", report.points);
}

/// Engine, workers, store and broker in one process: unsynced commits and the broker die with it.
#[test]
fn an_embedded_task_survives_a_crash_at_every_effect() {
    let mut plan = Plan::small_embedded();
    plan.heal_ms = 2_000;
    let report = crash_everywhere(Tier::Zero, &plan, &[20]);
    judge("embedded", &report);
    assert!(report.points > 150, "{}", report.points);
}

#[test]
fn a_task_survives_pairs_of_crashes() {
    let mut plan = Plan::small();
    plan.heal_ms = 2_000;
    judge("pairs, servers", &crash_pairs(Tier::Zero, &plan, 30, 151));
    let mut plan = Plan::small_embedded();
    plan.heal_ms = 2_000;
    judge("pairs, embedded", &crash_pairs(Tier::Zero, &plan, 20, 151));
}
