//! A run's life without faults: from START to the memory of its ended token.

use super::bench::*;
use crate::id::Incarnation;
use crate::message::{Body, TaskStart};
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest, TransportRequest};
use crate::record::Totals;
use crate::report::{Report, ReportKind};
use crate::worker::{Effect, Input, RunCommand, RunEvent};

#[test]
fn a_worker_looks_up_its_inbox_registers_announces_itself_and_reads() {
    let mut bench = Bench::cold(|_| {});
    let out = bench.input(Input::Wake);
    let stream = inbox();
    let request = TransportRequest::Bounds { stream };
    let op = crate::id::OpId(1);
    assert_eq!(out, vec![Effect::Transport { op, request }]);
    assert_eq!(bench.input(Input::Wake), vec![]);

    let out = bench.transport(1, bounds(0, 7));
    let request = StoreRequest::RegisterWorker {
        worker_id: id("w"),
        expected: Incarnation(0),
        start_nonce: 7,
        roles: vec![role("count"), role("sum")],
        capacity: 2,
        inbox: 0,
        worker_version: "2.0.0".into(),
    };
    assert_eq!(out, vec![store_op(2, request)]);

    let out = bench.store(2, StoreReply::Registered(Incarnation(3)));
    let expected = vec![
        online(3, 1, "online", 2),
        read_inbox(4, 7),
        read_grants(5, 0),
    ];
    assert_eq!(out, expected);
}

#[test]
fn a_worker_whose_record_cannot_be_read_ends_with_what_the_store_says() {
    let mut bench = Bench::cold(|_| {});
    bench.input(Input::Wake);
    bench.transport(1, bounds(0, 7));
    let error = PortError::new(ErrorKind::Corrupt, "register_worker", "version 9");
    let result = Err(error.clone());
    let op = crate::id::OpId(2);
    let out = bench.input(Input::StoreDone { op, result });
    let said = Report::new(ReportKind::PortFailed, error.to_string());
    assert_eq!(out, vec![Effect::Report(said), Effect::Unregistered(error)]);
    assert_eq!(bench.worker.poll_timeout(), None);
    assert_eq!(bench.pass(60_000), vec![]);
}

#[test]
fn a_start_is_checked_accepted_run_and_ended() {
    let mut bench = Bench::new();
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![read_grants(7, 1)]);
    let out = bench.store(7, grants(&[Some((1, false))]));
    assert_eq!(out, vec![beat(8, 2, &[(1, 0, 0)], 1)]);
    let out = bench.confirm(8);
    let begin = tell(1, spec(1, &start()));
    assert_eq!(out, vec![note(ReportKind::Run, 1, "started"), begin]);
    let out = bench.run(1, RunEvent::Loaded { adapter: None });
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);
    let out = bench.run(1, batch("a", false));
    assert_eq!(out, vec![tell(1, process("a", "1", None))]);
    let out = bench.run(1, processed());
    let sent = event(9, 1, 1, Body::BatchOk(ok("a")), 1);
    assert_eq!(out, vec![sent, tell(1, RunCommand::NextBatch)]);
    assert_eq!(bench.confirm(9), vec![]);
    let out = bench.run(1, RunEvent::BatchesEnded);
    let totals = Totals::new();
    assert_eq!(out, vec![tell(1, RunCommand::Finalize { totals })]);
    let out = bench.run(1, finalized());
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let ended = note(ReportKind::Run, 1, "ended: TASK_DONE");
    assert_eq!(out, vec![ended, event(10, 1, 2, done((1, 0, 0), None), 2)]);
    assert_eq!(bench.confirm(10), vec![]);
    // The ended token is asked about until the store shows that it is not current.
    let out = bench.pass(500);
    assert_eq!(out, vec![read_grants(11, 1)]);
    assert_eq!(bench.store(11, grants(&[None])), vec![]);
    assert_eq!(bench.pass(500), vec![]);
}

#[test]
fn the_last_batch_travels_inside_task_done() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, batch("a", true));
    let out = bench.run(1, processed());
    let totals = Totals::new();
    assert_eq!(out, vec![tell(1, RunCommand::Finalize { totals })]);
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let ended = note(ReportKind::Run, 1, "ended: TASK_DONE");
    let sent = event(9, 1, 1, done((1, 0, 0), Some(ok("a"))), 2);
    assert_eq!(out, vec![ended, sent]);
}

#[test]
fn a_cleanup_that_hangs_is_dropped_after_30_s_and_given_up_a_second_later() {
    let mut bench = Bench::new();
    let start = TaskStart {
        lease_ttl_ms: 600_000,
        ..start()
    };
    bench.begin(start, 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, RunEvent::BatchesEnded);
    let out = bench.run(1, finalized());
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.pass(29_999);
    assert!(!out.contains(&tell(1, RunCommand::Abort)), "{out:?}");
    let out = bench.pass(1);
    assert!(out.contains(&tell(1, RunCommand::Abort)), "{out:?}");
    let out = bench.pass(1_000);
    // What the run has come to stands, and only its slot is lost.
    let given_up = note(
        ReportKind::Abandoned,
        1,
        "the handler does not end; its slot stays taken",
    );
    assert!(out.contains(&given_up), "{out:?}");
    assert!(out.contains(&ended(1, "TASK_DONE")), "{out:?}");
    assert_eq!(bench.worker.free_slots(), 1);
    bench.run(1, RunEvent::Closed);
    assert_eq!(bench.worker.free_slots(), 2);
}

#[test]
fn a_long_finalize_does_not_hold_the_last_batch_back() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, batch("a", true));
    bench.run(1, processed());
    let out = bench.pass(50);
    assert_eq!(out, vec![event(9, 1, 1, Body::BatchOk(ok("a")), 1)]);
    bench.run(1, finalized());
    let out = bench.run(1, RunEvent::Closed);
    let ended = note(ReportKind::Run, 1, "ended: TASK_DONE");
    assert_eq!(out, vec![ended, event(10, 1, 2, done((1, 0, 0), None), 2)]);
}
