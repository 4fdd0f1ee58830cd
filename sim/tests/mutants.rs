//! The checkers can fail: a sample of the planted bugs is found. `cargo xtask mutants` hunts all.

use flowkit_sim::mutants::{Baseline, Bug, SAMPLE, hunt, plant, tiers_of};
use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{Tier, check, page_of, replay, shrink};

#[test]
fn a_sample_of_planted_bugs_is_found() {
    let baseline = Baseline::default();
    for bug in SAMPLE {
        let tier = tiers_of(*bug)[0];
        let hunt = hunt(*bug, tier, 0..500, &baseline);
        assert!(hunt.killed.is_some() && hunt.unclean.is_empty(), "{hunt:?}");
    }
}

#[test]
fn without_a_bug_the_same_seeds_hold() {
    let baseline = Baseline::default();
    for (tier, seeds) in [(Tier::Zero, 100), (Tier::One, 30)] {
        for seed in 0..seeds {
            assert!(baseline.holds(tier, seed), "tier {tier}, seed {seed}");
        }
    }
}

#[test]
fn what_is_found_shrinks_to_ten_faults_at_most_single_calls_among_them() {
    let baseline = Baseline::default();
    for (bug, tier) in [
        (Bug::LeaseIgnored, Tier::Zero),
        (Bug::OldTokenAccepted, Tier::Zero),
        (Bug::GapIgnored, Tier::Zero),
        (Bug::CheckpointAhead, Tier::Zero),
        (Bug::UnknownDropped, Tier::Zero),
        (Bug::NonceKept, Tier::One),
    ] {
        let hunt = hunt(bug, tier, 0..500, &baseline);
        let seed = hunt.killed.expect("it is found").seed;
        plant(Some(bug));
        let shrunk = shrink(tier, &tier.plan(seed), &mut |_, _| {});
        plant(None);
        let plan = shrunk.expect("it breaks the promise again").plan;
        let calls = match &plan.calls {
            _ if plan.rates.is_quiet() => 0,
            Some(calls) => calls.len(),
            None => panic!("{}: any call may go wrong: {plan:?}", bug.name()),
        };
        let faults = plan.faults.len() + calls;
        assert!(
            (1..=10).contains(&faults),
            "{}: {faults}: {plan:?}",
            bug.name()
        );
        assert!(check(tier, &plan, true).holds(), "without the bug");
    }
}

#[test]
fn every_bug_has_an_id_of_its_own() {
    let mut names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Bug::ALL.len());
}

#[test]
fn a_machine_that_panics_leaves_a_run_to_replay_and_to_shrink() {
    std::panic::set_hook(Box::new(|_| {}));
    plant(Some(Bug::SettledEarly));
    let panics = |seed: &u64| {
        let verdict = check(Tier::Zero, &Plan::from_seed(*seed), true);
        verdict.failures.first().map(|f| f.promise.clone()) == Some("no_panic".to_owned())
    };
    let seed = (0..500).find(panics).expect("an assertion of a machine");
    let report = replay(Tier::Zero, seed, false);
    let failure = &report.verdict.failures[0];
    let said = "the coordinator panicked: ";
    assert!(failure.explanation.starts_with(said), "{failure:?}");
    assert!(failure.at_ms > 0, "{failure:?}");
    assert_ne!(report.verdict.trace_hash, 0);
    assert_eq!(report.verdict.failures.len(), 1, "{:?}", report.verdict);
    let granted = |row: &String| row.contains("COMMIT");
    assert!(report.rows.iter().any(granted), "{:#?}", report.rows);
    let page = page_of(Tier::Zero, &report.plan);
    assert!(page.contains(&format!("no_panic BROKEN {said}")));
    let shrunk = shrink(Tier::Zero, &report.plan, &mut |_, _| {}).expect("it still panics");
    assert_eq!(shrunk.promise, "no_panic");
    assert!(shrunk.explanation.starts_with(said));
    assert!(shrunk.plan.faults.len() <= report.plan.faults.len());
    plant(None);
}

#[test]
fn the_table_of_planted_bugs_has_a_row_for_each_and_no_other() {
    let table = include_str!("../../docs/planted-bugs.md");
    let lines = table.lines().filter(|line| line.starts_with('|'));
    let rows = lines.filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // Those of children have a table of their own, with one column less in front.
        cells
            .iter()
            .take(3)
            .find_map(|cell| cell.strip_prefix('`')?.strip_suffix('`'))
    });
    let mut rows: Vec<&str> = rows.collect();
    let mut bugs: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    rows.sort_unstable();
    bugs.sort_unstable();
    assert_eq!(rows, bugs);
}
