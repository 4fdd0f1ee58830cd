//! The search can fail: planted bugs are found, each by a shortest way.

use std::time::Duration;

use flowkit_explore::Limits;
use flowkit_explore::mutants::{Bug, Reach, SURVIVORS, found_by_the_guide, hunt};

const LIMITS: Limits = Limits {
    states_max: 100_000,
    level_max: 100_000,
    time_max: Duration::from_secs(300),
    threads: 2,
};

/// A bug, the scope that shows it, the promise that it breaks.
const BUGS: &[(Bug, &str, &str)] = &[
    (Bug::OldTokenAccepted, "delay", "single_owner"),
    (Bug::TakenTwice, "double", "single_owner"),
    (Bug::CopyApplied, "double", "settle"),
    (Bug::CheckpointAhead, "delay", "resume_point"),
    (Bug::AcceptedAgain, "delay", "resume_point"),
    (Bug::CancelUnchecked, "cancel", "cancel_final"),
    (Bug::GrantAfterCancel, "cancel", "cancel_final"),
    (Bug::SubmitAckedEarly, "plain", "no_lost_task"),
];

#[test]
fn planted_bugs_are_found_with_the_way_to_them() {
    // Some trip an assertion, which is caught and told.
    std::panic::set_hook(Box::new(|_| {}));
    for (bug, scope, promise) in BUGS {
        let found = hunt(*bug, &[scope], LIMITS);
        let found = found.and_then(|(_, outcome)| outcome.counterexample);
        let Some(found) = found else {
            panic!("{} survived in {scope}", bug.name());
        };
        println!("{}: {}", bug.name(), found.broken);
        for (number, step) in found.steps.iter().enumerate() {
            println!("{:4}  {step}", number + 1);
        }
        assert_eq!(found.broken.promise, *promise, "{}", bug.name());
        assert!(!found.steps.is_empty());
    }
}

#[test]
fn every_survivor_is_a_bug_of_the_machines_and_none_that_is_found_here() {
    for name in SURVIVORS {
        let bug = Bug::ALL.iter().find(|bug| bug.name() == *name);
        let bug = bug.unwrap_or_else(|| panic!("no bug is called {name}"));
        assert_eq!(bug.reach(), Reach::Machines, "{name}");
        assert!(!BUGS.iter().any(|(found, ..)| found == bug), "{name}");
    }
}

#[test]
fn every_bug_of_the_machines_stands_in_the_guides_table_or_among_the_survivors() {
    let found: Vec<&str> = found_by_the_guide().collect();
    for bug in Bug::ALL {
        let lists = [found.contains(&bug.name()), SURVIVORS.contains(&bug.name())];
        let times = lists.iter().filter(|stands| **stands).count();
        let expected = usize::from(bug.reach() == Reach::Machines);
        assert_eq!(times, expected, "{}: in {times} of the lists", bug.name());
    }
    for name in found {
        let known = Bug::ALL.iter().any(|bug| bug.name() == name);
        assert!(
            known,
            "the guide's table names {name}, and no bug is called so"
        );
    }
}
