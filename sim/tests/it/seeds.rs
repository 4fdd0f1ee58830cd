//! Fresh seeds, and every plan that ever failed.

use std::collections::BTreeSet;
use std::path::Path;

use flowkit_sim::plan::Plan;
use flowkit_sim::runner::{Options, Shape, Tier, check, replay_plan, run};

/// `FLOWKIT_SIM_SEED` names the first seed; without it the clock does.
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "fresh seeds come from outside; each run sees its seed only"
)]
fn first_seed() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    if let Ok(named) = std::env::var("FLOWKIT_SIM_SEED") {
        return named.parse().expect("FLOWKIT_SIM_SEED is a whole number");
    }
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    clock.map_or(0, |since| since.as_secs()) * 1_000
}

#[test]
fn fresh_seeds_keep_every_promise_and_repeat_exactly() {
    fresh(Tier::Zero, 300);
}

#[test]
fn fresh_seeds_keep_every_promise_as_processes_and_repeat_exactly() {
    fresh(Tier::One, 120);
}

#[test]
fn of_a_shape_only_the_seeds_that_have_it_are_run() {
    let shape: Shape = "2x4".parse().expect("a shape");
    let mut options = Options::default();
    options.shape = Some(shape);
    let report = run(Tier::Zero, 0..200, &options, &mut |_| {});
    let of_shape = (0..200).map(|seed| Tier::Zero.plan(seed));
    let of_shape = of_shape.filter(|plan| Shape::of(plan) == shape).count() as u64;
    assert!(of_shape > 0);
    assert_eq!(
        (report.seeds, report.passed_over),
        (of_shape, 200 - of_shape)
    );
    for text in ["", "2", "2x", "x4", "2x4x1", "-1x2"] {
        assert!(text.parse::<Shape>().is_err(), "{text}");
    }
}

fn fresh(tier: Tier, seeds: u64) {
    let first = first_seed();
    println!("first seed: {first} (FLOWKIT_SIM_SEED repeats this run)");
    let mut options = Options::default();
    options.twice_every = 1;
    let report = run(tier, first..first + seeds, &options, &mut |_| {});
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.seeds, seeds);
    // A fault that never strikes proves nothing; the rarest ones need more seeds than these.
    let rare = BTreeSet::from([
        "broker_restarted",
        "commit_fenced",
        "crash_new_id",
        "gone",
        "handler_blocks",
        "handler_hangs",
        "handler_ignores_cancel",
        "handler_panics",
        "handler_permanent",
        "inbox_lost",
        "large_artifact",
        "log_lost",
        "machine_panic",
        "power_loss",
        "refuse_batches",
        "refuse_commit",
        "refuse_task",
        "refuse_writes",
        "rot_node",
        "rot_task",
        "rot_worker",
        "store_restarted",
        "superseded",
        "twin",
        "unsynced_lost",
        "zombie_owner",
    ]);
    let silent: Vec<&String> = report
        .never_fired
        .iter()
        .filter(|family| !rare.contains(family.as_str()))
        .collect();
    assert!(silent.is_empty(), "never fired: {silent:?}");
}

/// A trace that depends on where or when a run was made would make every replay worthless.
#[test]
fn a_seed_has_one_trace_wherever_it_runs() {
    let plan = Plan::from_seed(7);
    let json = serde_json::to_string(&plan).expect("a plan is JSON");
    let again: Plan = serde_json::from_str(&json).expect("a plan comes back");
    assert_eq!(plan, again);
    let alone = check(Tier::Zero, &plan, true);
    let other = check(Tier::Zero, &Plan::from_seed(8), false);
    let later = replay_plan(Tier::Zero, &again, true);
    assert_eq!(alone.trace_hash, later.verdict.trace_hash);
    assert_ne!(alone.trace_hash, other.trace_hash);
    assert!(!later.rows.is_empty());
}

/// Each file is a plan that once broke a promise, or made a checker too strict; its name says how.
#[test]
fn no_plan_that_ever_failed_fails_again() {
    assert!(regressions("regressions", Tier::Zero) >= 25);
    // Those of tier 0 hold as processes, too.
    assert!(regressions("regressions", Tier::One) >= 25);
    assert!(regressions("regressions/hosts", Tier::One) >= 4);
}

fn regressions(folder: &str, tier: Tier) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut plans = 0;
    for file in std::fs::read_dir(&folder).expect("a folder of plans") {
        let path = file.expect("a readable entry").path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable plan");
        let mut plan: Plan = serde_json::from_str(&text).expect("a plan");
        if tier == Tier::One {
            plan = plan.fit_hosts();
        }
        let verdict = check(tier, &plan, true);
        let name = path.display();
        assert!(verdict.holds(), "{name}: {:#?}", verdict.failures);
        plans += 1;
    }
    plans
}
