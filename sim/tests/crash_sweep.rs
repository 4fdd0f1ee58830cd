//! A crash right after every effect of every process, over one task's whole life.

use flowkit_sim::plan::Plan;
use flowkit_sim::tier0::sweep::crash_everywhere;

#[test]
fn two_coordinators_and_two_workers_survive_a_crash_at_every_effect() {
    let report = crash_everywhere(&Plan::small());
    println!("{report}");
    assert!(
        report.points > 100,
        "the plan has a life to crash: {report}"
    );
    assert!(report.is_clean(), "{report}");
}

#[test]
fn one_embedded_process_survives_a_crash_at_every_effect() {
    let report = crash_everywhere(&Plan::small_embedded());
    println!("{report}");
    assert!(
        report.points > 100,
        "the plan has a life to crash: {report}"
    );
    assert!(report.is_clean(), "{report}");
}
