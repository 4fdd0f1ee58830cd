//! Target `plan`: plan files of the simulation.

use flowkit_sim::plan::Plan;
use flowkit_sim::runner;
use serde_json::Value;

/// Events of a run; enough for every fault of a small plan to come.
const EVENTS_MAX: u64 = 2_000;

/// Reads the plan as `flowkit sim --plan` does. What has no fault of form is run for a while:
/// promises may break, the world may not.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let Ok(plan) = serde_json::from_slice::<Plan>(bytes) else {
        return;
    };
    let wrong = plan.faults_of_form();
    assert!(wrong.iter().all(|fault| !fault.is_empty()));
    match plan.clone().fit_processes() {
        Ok(fit) => {
            assert!(wrong.is_empty());
            assert_eq!(fit.faults_of_form(), wrong);
        }
        Err(more) => assert!(more.len() >= wrong.len() && !more.is_empty()),
    }
    let text = serde_json::to_vec(&plan).expect("a plan has a JSON form");
    assert!(serde_json::from_slice::<Plan>(&text).is_ok_and(|again| again == plan));
    if wrong.is_empty() {
        let _ = plan.settle_bound_ms();
        let _ended = runner::run_some(&plan, EVENTS_MAX, &[]);
    }
}

/// A plan without faults of form.
#[must_use]
pub fn donor(number: u32) -> Value {
    let plan = match number % 8 {
        0 => Plan::small(),
        1 => Plan::small_embedded(),
        2 => Plan::for_processes(u64::from(number)),
        3 => Plan::for_hosts(u64::from(number)),
        _ => Plan::from_seed(u64::from(number)),
    };
    serde_json::to_value(plan).unwrap_or_default()
}
