//! A graceful stop.

use super::bench::*;
use crate::message::{Body, CancelReason, RefusalReason, ReleaseReason};
use crate::worker::{Effect, Input, RunCommand, RunEvent};

const STOPPED: Effect = Effect::Stopped { superseded: false };

#[test]
fn an_idle_worker_says_goodbye_and_stops() {
    let mut bench = Bench::new();
    let out = bench.input(Input::Shutdown { grace_ms: 1_000 });
    assert_eq!(out, vec![offline(6, 2)]);
    assert_eq!(bench.confirm(6), vec![STOPPED]);
    assert_eq!(bench.pass(60_000), vec![]);
}

#[test]
fn a_worker_that_nobody_knows_yet_stops_at_once() {
    let mut bench = Bench::cold(|_| {});
    bench.input(Input::Wake);
    let out = bench.input(Input::Shutdown { grace_ms: 1_000 });
    assert_eq!(out, vec![STOPPED]);
}

#[test]
fn running_batches_end_and_runs_are_handed_over() {
    let mut bench = Bench::new();
    bench.processing();
    let out = bench.input(Input::Shutdown { grace_ms: 1_000 });
    let expected = vec![
        online(9, 3, "draining", 0),
        told(CancelReason::Shutdown, 2_000),
        read_grants(10, 1),
    ];
    assert_eq!(out, expected);
    let mut other = started(2);
    other.node_id = Some(node("m"));
    let out = bench.arrive(vec![other.identified(0)]);
    assert!(format!("{out:?}").contains("Draining"), "{out:?}");
    let out = bench.run(1, processed());
    let sent = event(13, 1, 1, Body::BatchOk(ok("a")), 0);
    assert_eq!(out, vec![sent, tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = event(14, 1, 2, released(ReleaseReason::Shutdown), 0);
    assert_eq!(out, vec![ended(1, "TASK_RELEASED"), end]);
    // The goodbye waits until the hand-over is confirmed.
    assert_eq!(bench.confirm(13), vec![]);
    assert_eq!(bench.confirm(14), vec![offline(15, 4)]);
    assert_eq!(bench.confirm(15), vec![STOPPED]);
}

#[test]
fn a_start_in_its_check_is_refused_by_a_worker_that_drains() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    let out = bench.input(Input::Shutdown { grace_ms: 1_000 });
    let expected = vec![
        online(8, 2, "draining", 0),
        refused(9, 1, RefusalReason::Draining, 0),
        offline(10, 3),
    ];
    assert_eq!(out, expected);
}

#[test]
fn the_drain_ends_even_if_a_handler_does_not() {
    let mut bench = Bench::new();
    bench.processing();
    bench.input(Input::Shutdown { grace_ms: 400 });
    bench.store(10, grants(&[Some((1, false))]));
    assert_eq!(bench.pass(400), vec![tell(1, RunCommand::Abort)]);
    bench.pass(100);
    let out = bench.pass(900);
    let end = event(op_of(&out[2]), 1, 1, released(ReleaseReason::Shutdown), 0);
    assert_eq!(out[1..3], [ended(1, "TASK_RELEASED"), end]);
    let out = bench.pass(1_000);
    assert!(out.contains(&offline(op_of(&out[0]), 4)), "{out:?}");
    let out = bench.pass(1_000);
    assert_eq!(out.last(), Some(&STOPPED));
}
