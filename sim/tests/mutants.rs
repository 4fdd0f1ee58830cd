//! The checkers can fail: a sample of the planted bugs is found. `cargo xtask mutants` hunts all.

use flowkit_sim::mutants::{Baseline, Bug, SAMPLE, hunt};

#[test]
fn a_sample_of_planted_bugs_is_found() {
    let baseline = Baseline::default();
    for bug in SAMPLE {
        let hunt = hunt(*bug, 0..500, &baseline);
        assert!(hunt.killed.is_some() && hunt.unclean.is_empty(), "{hunt:?}");
    }
}

#[test]
fn without_a_bug_the_same_seeds_hold() {
    let baseline = Baseline::default();
    for seed in 0..100 {
        assert!(baseline.holds(seed), "seed {seed}");
    }
}

#[test]
fn every_bug_has_an_id_of_its_own() {
    let mut names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Bug::ALL.len());
}
