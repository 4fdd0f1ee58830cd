//! Four sides can end a run; each ends it with its own reason, in time, and exactly once.

use super::bench::*;
use crate::id::{Incarnation, NodeId};
use crate::message::{Body, CancelReason, RefusalReason, ReleaseReason};
use crate::port::{StoreReply, StoreRequest, TaskWithNodes};
use crate::record::{
    Grant, GrantCancel, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState,
};
use crate::report::ReportKind;
use crate::worker::{RunCommand, RunEvent};

#[test]
fn a_cancelled_handler_is_told_and_its_run_ends_cancelled() {
    let mut bench = Bench::new();
    bench.processing();
    let out = bench.arrive(vec![cancel(1, CancelReason::UserRequest, 700)]);
    assert_eq!(out, vec![told(CancelReason::UserRequest, 1_700)]);
    let out = bench.run(1, RunEvent::Failed(failure("cancelled", false, true)));
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = cancelled(CancelReason::UserRequest);
    let end = event(10, 1, 1, end, 2);
    assert_eq!(out, vec![ended(1, "CANCELLED"), end]);
}

#[test]
fn a_batch_that_succeeds_while_the_run_is_told_to_end_still_counts() {
    let mut bench = Bench::new();
    bench.processing();
    bench.arrive(vec![cancel(1, CancelReason::TaskFailed, 700)]);
    let out = bench.run(1, processed());
    let sent = event(10, 1, 1, Body::BatchOk(ok("a")), 1);
    assert_eq!(out, vec![sent, tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = event(11, 1, 2, cancelled(CancelReason::TaskFailed), 2);
    assert_eq!(out, vec![ended(1, "CANCELLED"), end]);
}

#[test]
fn a_handler_that_ignores_its_cancel_is_dropped_and_then_given_up() {
    let mut bench = Bench::new();
    bench.processing();
    bench.arrive(vec![cancel(1, CancelReason::UserRequest, 300)]);
    assert_eq!(bench.pass(300), vec![tell(1, RunCommand::Abort)]);
    bench.pass(200);
    bench.store(10, grants(&[Some((1, true))]));
    bench.pass(500);
    bench.store(11, grants(&[Some((1, true))]));
    let out = bench.pass(300);
    let expected = vec![
        note(
            ReportKind::Abandoned,
            1,
            "the handler does not end; its slot stays taken",
        ),
        ended(1, "CANCELLED"),
        event(12, 1, 1, cancelled(CancelReason::UserRequest), 1),
        announced(13, 3, "online", 1, 1),
        read_grants(14, 1),
    ];
    assert_eq!(out, expected);
    assert_eq!(
        (bench.worker.abandoned(), bench.worker.free_slots()),
        (1, 1)
    );
    bench.confirm(12);
    // When it is gone after all, owners hear that its slot is free.
    let out = bench.run(1, RunEvent::Failed(failure("late", false, true)));
    assert_eq!(out, vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    assert_eq!(out[0], online(15, 4, "online", 2));
    assert_eq!(
        (bench.worker.abandoned(), bench.worker.free_slots()),
        (0, 2)
    );
}

#[test]
fn a_cleanup_that_hangs_behind_an_abort_is_cut_short_before_the_run_is_given_up() {
    for given_up in [false, true] {
        let mut bench = Bench::new();
        bench.processing();
        bench.arrive(vec![cancel(1, CancelReason::UserRequest, 300)]);
        assert_eq!(bench.pass(300), vec![tell(1, RunCommand::Abort)]);
        if given_up {
            bench.pass(1_000);
        }
        assert_eq!(bench.worker.abandoned(), usize::from(given_up));
        let out = bench.run(1, RunEvent::Failed(failure("late", false, true)));
        assert_eq!(out, vec![tell(1, RunCommand::Close)]);
        let out = bench.pass(1_000);
        let cut = out.contains(&tell(1, RunCommand::Abort));
        assert!(cut, "given up: {given_up}, {out:?}");
        assert_eq!(bench.worker.abandoned(), usize::from(given_up));
        bench.run(1, RunEvent::Closed);
        let state = (bench.worker.abandoned(), bench.worker.free_slots());
        assert_eq!(state, (0, 2));
    }
}

#[test]
fn a_fenced_run_is_dropped_at_once() {
    let mut bench = Bench::new();
    bench.processing();
    let out = bench.arrive(vec![cancel(1, CancelReason::Fenced, 9_000)]);
    let dropped = vec![
        told(CancelReason::Fenced, 1_000),
        tell(1, RunCommand::Abort),
    ];
    assert_eq!(out, dropped);
    // A result that was on its way has no place any more.
    assert_eq!(bench.run(1, processed()), vec![tell(1, RunCommand::Close)]);
    let out = bench.run(1, RunEvent::Closed);
    let end = event(10, 1, 1, released(ReleaseReason::Fenced), 2);
    assert_eq!(out, vec![ended(1, "TASK_RELEASED"), end]);
}

#[test]
fn a_grant_that_the_store_calls_superseded_is_fenced() {
    let mut bench = Bench::new();
    bench.processing();
    assert_eq!(bench.pass(500), vec![read_grants(9, 1)]);
    let out = bench.store(9, grants(&[Some((2, false))]));
    let dropped = vec![
        told(CancelReason::Fenced, 1_500),
        tell(1, RunCommand::Abort),
    ];
    assert_eq!(out, dropped);
}

#[test]
fn a_cancel_that_only_the_store_knows_of_is_carried_out_with_its_reason_and_grace() {
    let mut bench = Bench::new();
    bench.processing();
    bench.pass(500);
    let out = bench.store(9, grants(&[Some((1, true))]));
    let read = StoreRequest::ReadTask { task_id: task() };
    assert_eq!(out, vec![store_op(10, read)]);
    let reply = StoreReply::Task(Some(Box::new(TaskWithNodes {
        task: task_record(TaskState::Running),
        nodes: vec![node_record(Some(GrantCancel {
            reason: CancelReason::UpstreamFailed,
            grace_ms: 100,
        }))],
        node_age_ms: vec![0],
    })));
    let out = bench.store(10, reply);
    assert_eq!(out, vec![told(CancelReason::UpstreamFailed, 1_600)]);
}

#[test]
fn a_run_that_yields_ends_between_batches() {
    let mut bench = Bench::new();
    bench.processing();
    // The batch in work is not disturbed.
    let out = bench.arrive(vec![cancel(1, CancelReason::Yield, 9_000)]);
    assert_eq!(out, vec![]);
    let out = bench.run(1, processed());
    let expected = vec![
        event(10, 1, 1, Body::BatchOk(ok("a")), 1),
        told(CancelReason::Yield, 10_000),
        tell(1, RunCommand::Close),
    ];
    assert_eq!(out, expected);
    let out = bench.run(1, RunEvent::Closed);
    let end = event(11, 1, 2, released(ReleaseReason::Yield), 2);
    assert_eq!(out, vec![ended(1, "TASK_RELEASED"), end]);
}

#[test]
fn a_failure_of_a_handler_that_was_not_told_to_yield_counts() {
    let mut bench = Bench::new();
    bench.processing();
    bench.arrive(vec![cancel(1, CancelReason::Yield, 9_000)]);
    bench.run(1, RunEvent::Failed(failure("odd", true, false)));
    let out = bench.run(1, RunEvent::Closed);
    let end = task_failed(Some("a"), "odd", true, "text");
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), event(10, 1, 1, end, 2)]);
}

#[test]
fn a_stronger_reason_replaces_a_weaker_one_and_the_earlier_deadline_holds() {
    let mut bench = Bench::new();
    bench.processing();
    bench.arrive(vec![cancel(1, CancelReason::Yield, 9_000)]);
    let out = bench.arrive(vec![cancel(1, CancelReason::UserRequest, 700)]);
    assert_eq!(out[0], told(CancelReason::UserRequest, 1_700));
    // The same again is answered with a heartbeat, and moves nothing.
    bench.at += 100;
    let out = bench.arrive(vec![cancel(1, CancelReason::UserRequest, 700)]);
    assert_eq!(out, vec![beat(op_of(&out[0]), 4, &[(1, 0, 100)], 1)]);
}

#[test]
fn a_cancel_of_an_unknown_token_is_answered_and_the_token_never_runs() {
    let mut bench = Bench::new();
    let end = || cancelled(CancelReason::UserRequest);
    let out = bench.arrive(vec![cancel(5, CancelReason::UserRequest, 700)]);
    assert_eq!(out, vec![unknown_end(6, 5, end(), 2)]);
    let out = bench.arrive(vec![started(5)]);
    assert_eq!(out, vec![unknown_end(8, 5, end(), 2)]);
    let out = bench.arrive(vec![cancel(5, CancelReason::UserRequest, 700)]);
    assert_eq!(out, vec![unknown_end(10, 5, end(), 2)]);
    // Nobody waits for a fenced one.
    let out = bench.arrive(vec![cancel(5, CancelReason::Fenced, 0)]);
    assert_eq!(out, vec![]);
    let out = bench.arrive(vec![cancel(6, CancelReason::Fenced, 0)]);
    assert_eq!(out, vec![]);
    let out = bench.arrive(vec![started(6)]);
    assert_eq!(out, vec![refused(14, 6, RefusalReason::NotCurrent, 2)]);
}

#[test]
fn a_start_that_is_cancelled_before_it_is_accepted_never_begins() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    let out = bench.arrive(vec![cancel(1, CancelReason::UserRequest, 700)]);
    let end = || cancelled(CancelReason::UserRequest);
    assert_eq!(out, vec![unknown_end(8, 1, end(), 2)]);
    assert_eq!(bench.store(7, grants(&[Some((1, false))])), vec![]);

    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    bench.store(7, grants(&[Some((1, false))]));
    let out = bench.arrive(vec![cancel(1, CancelReason::UserRequest, 700)]);
    assert_eq!(out, vec![ended(1, "CANCELLED"), event(9, 1, 1, end(), 2)]);
    assert_eq!(bench.confirm(8), vec![]);
}

fn task_record(state: TaskState) -> TaskRecord {
    TaskRecord {
        version: RECORD_VERSION,
        task_id: task(),
        submission_hash: 0,
        graph: json("{}"),
        vars: json("null"),
        idempotency_key: None,
        state,
        settled: false,
        failure: None,
        cancel_grace_ms: None,
        created_at_ms: 0,
        history: Default::default(),
        control: Default::default(),
        vars_version: 0,
        submitted_vars: None,
        rerun: None,
    }
}

fn node_record(cancel: Option<GrantCancel>) -> NodeRecord {
    let node_id: NodeId = node("n");
    NodeRecord {
        version: RECORD_VERSION,
        task_id: task(),
        node_id,
        state: NodeState::Running,
        epoch: crate::id::Epoch(1),
        lease_no: crate::id::Token(1),
        grant: Some(Grant {
            worker_id: id("w"),
            incarnation: Incarnation(3),
            inbox: 0,
            lease_ttl_ms: TTL,
            cancel,
        }),
        last_seq: 0,
        accepted: 0,
        checkpoint: None,
        checkpoint_batches: 0,
        cursor: Default::default(),
        cursor_batches: 0,
        totals: Default::default(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 1,
        wait_ms: None,
        new_attempt: false,
        failure: None,
        history: Default::default(),
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }
}
