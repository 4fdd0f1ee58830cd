//! The lease runs on the worker's own clock, from the send time of confirmed heartbeats.

use super::bench::*;
use crate::message::{CancelReason, ReleaseReason};
use crate::port::ErrorKind;
use crate::worker::{Effect, RunCommand, RunEvent};

/// Grant polls are answered so that only the lease is looked at.
fn pass(bench: &mut Bench, ms: u64) -> Vec<Effect> {
    let mut out = bench.pass(ms);
    let polls: Vec<_> = out
        .extract_if(.., |effect| matches!(effect, Effect::Store { .. }))
        .collect();
    for poll in polls {
        assert_eq!(
            bench.store(op_of(&poll), grants(&[Some((1, false))])),
            vec![]
        );
    }
    out
}

#[test]
fn heartbeats_leave_every_third_of_the_lease_and_confirmed_ones_prolong_it() {
    let mut bench = Bench::new();
    bench.processing();
    for round in 0..10_u64 {
        let out = pass(&mut bench, TTL / 3);
        assert_eq!(out.len(), 1, "{out:?}");
        let in_batch_ms = (round + 1) * TTL / 3;
        let expected = beat(op_of(&out[0]), 3 + round, &[(1, 0, in_batch_ms)], 1);
        assert_eq!(out, vec![expected]);
        assert_eq!(bench.confirm(op_of(&out[0])), vec![]);
    }
}

#[test]
fn a_run_whose_lease_lapses_stops_by_itself() {
    let mut bench = Bench::new();
    bench.processing();
    let mut beats = pass(&mut bench, TTL / 3);
    beats.extend(pass(&mut bench, TTL / 3));
    assert_eq!(beats.len(), 2);
    // One tick before its end the run lives.
    assert_eq!(pass(&mut bench, TTL / 3 - 1), vec![]);
    let out = pass(&mut bench, 1);
    assert_eq!(out[0], told(CancelReason::LeaseLapsed, 1_000 + TTL + 500));
    // A confirmation that is processed after that moment revives nothing.
    assert_eq!(bench.confirm(op_of(&beats[1])), vec![]);
    let out = pass(&mut bench, 500);
    assert_eq!(out, vec![tell(1, RunCommand::Abort)]);
    let out = bench.run(1, RunEvent::Failed(failure("dropped", false, true)));
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = released(ReleaseReason::LeaseLapsed);
    assert_eq!(out[0], ended(1, "TASK_RELEASED"));
    assert_eq!(out[1], event(op_of(&out[1]), 1, 1, end.clone(), 2));
    bench.confirm(op_of(&out[1]));
    // A START of the lapsed token is answered from memory.
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![event(op_of(&out[0]), 1, 1, end, 2)]);
}

#[test]
fn a_first_heartbeat_that_is_confirmed_too_late_begins_nothing() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    let out = bench.store(7, grants(&[Some((1, false))]));
    assert_eq!(out, vec![beat(8, 2, &[(1, 0, 0)], 1)]);
    bench.at += TTL;
    let out = bench.confirm(8);
    let end = event(9, 1, 1, released(ReleaseReason::LeaseLapsed), 2);
    assert_eq!(out[..2], [ended(1, "TASK_RELEASED"), end]);
    assert!(
        !out.iter()
            .any(|effect| matches!(effect, Effect::Run { .. }))
    );
}

#[test]
fn a_failed_heartbeat_is_repeated_soon_and_counts_from_its_new_send_time() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    bench.store(7, grants(&[Some((1, false))]));
    assert_eq!(bench.transport_fails(8, ErrorKind::Unknown), vec![]);
    let out = bench.pass(50);
    assert_eq!(out, vec![beat(9, 3, &[(1, 0, 0)], 1)]);
    assert_eq!(bench.transport_fails(9, ErrorKind::Retry), vec![]);
    let out = bench.pass(100);
    assert_eq!(out, vec![beat(10, 4, &[(1, 0, 0)], 1)]);
    let out = bench.confirm(10);
    assert_eq!(out[1], tell(1, spec(1, &start())));
}

#[test]
fn heartbeats_name_a_run_until_its_end_is_confirmed() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    let out = pass(&mut bench, TTL / 3);
    assert_eq!(out, vec![beat(10, 3, &[(1, 0, 0)], 2)]);
    bench.confirm(9);
    assert_eq!(pass(&mut bench, TTL / 3), vec![]);
}
