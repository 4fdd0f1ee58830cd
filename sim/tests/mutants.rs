//! The checkers can fail: a sample of the planted bugs is found. `cargo xtask mutants` hunts all.

use flowkit_sim::mutants::{Baseline, Bug, SAMPLE, hunt, tiers_of};
use flowkit_sim::runner::Tier;

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
fn every_bug_has_an_id_of_its_own() {
    let mut names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Bug::ALL.len());
}
