//! The small scopes, whole: no schedule of them breaks a promise.

use std::time::Duration;

use flowkit_explore::{Limits, Planted, Scope, search};

/// More than the scopes have; a scope that grows beyond it fails the test as incomplete.
const LIMITS: Limits = Limits {
    states_max: 200_000,
    level_max: 100_000,
    time_max: Duration::from_secs(600),
    // Which of two alike states comes first is always the same, and so is the number of states.
    threads: 1,
};

fn visit(name: &str) {
    let scope = Scope::named(name).expect("a scope of that name");
    let outcome = search(scope, LIMITS, Planted::default());
    assert!(
        outcome.counterexample.is_none(),
        "{name}: {:#?}",
        outcome.counterexample
    );
    assert_eq!(outcome.left, 0, "{name}: every state was visited");
    assert!(outcome.ends > 0, "{name}: somewhere it ends");
    let found = (outcome.states, outcome.depth);
    assert_eq!(Some(found), told(name), "{name}: and the guide's row of it");
}

/// States and depth of a small scope, as the guide tells them.
fn told(name: &str) -> Option<(usize, usize)> {
    let guide = include_str!("../../docs/guide/exploration.md");
    let row = guide
        .lines()
        .find(|line| line.starts_with(&format!("| `{name}` (small) |")))?;
    let mut numbers = row
        .split('|')
        .skip(3)
        .map(|cell| cell.trim().replace(',', "").parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[test]
fn nothing_breaks_where_nothing_goes_wrong() {
    visit("plain");
}

#[test]
fn no_moment_is_wrong_for_a_cancel() {
    visit("cancel");
}

#[test]
fn a_message_may_come_twice() {
    visit("double");
}

#[test]
fn a_message_or_a_commit_may_come_late_or_never() {
    visit("delay");
}

#[test]
fn no_moment_is_wrong_for_an_owner_to_crash() {
    visit("owner-crash");
}

#[test]
fn no_moment_is_wrong_for_a_worker_to_crash() {
    visit("crash");
}

#[test]
fn a_chain_of_two_nodes_keeps_its_order() {
    visit("chain");
}

#[test]
fn a_state_has_one_digest_however_it_is_reached() {
    let scope = Scope::named("plain").expect("a scope of that name");
    let (a, b) = (
        flowkit_explore::World::start(scope),
        flowkit_explore::World::start(scope),
    );
    assert_eq!(a.digest(), b.digest());
    let actions = a.actions();
    assert_ne!(a.after(actions[0]).digest(), a.digest());
}
