//! What a START is answered with, the first time and every time.

use super::bench::*;
use crate::id::{Incarnation, ShardId};
use crate::message::{
    Body, CancelReason, Heartbeat, RefusalReason, ReleaseReason, RunBeat, TaskStart,
};
use crate::port::{GrantView, StoreReply, StoreRequest, Stream};
use crate::report::{Report, ReportKind};
use crate::worker::{Effect, Input, RunCommand, RunEvent};

fn of_node(name: &str, token: u64) -> crate::message::Envelope {
    let mut envelope = started(token);
    envelope.node_id = Some(node(name));
    envelope.identified(0)
}

#[test]
fn a_lease_of_another_length_than_the_settings_say_is_told_once() {
    let told = |out: &[Effect]| {
        let report = out.iter().find_map(|effect| match effect {
            Effect::Report(report) => Some(report.clone()),
            _ => None,
        });
        report.map(|report| (report.kind, report.detail.to_string()))
    };
    let mut bench = Bench::with(|config| config.lease_ttl_ms = Some(30_000));
    let (kind, text) = told(&bench.arrive(vec![started(1)])).expect("a report");
    assert_eq!(kind, ReportKind::LeaseDiffers);
    for part in ["lease_ttl_sec", "30000 ms", "9000 ms"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(told(&bench.arrive(vec![of_node("b", 1)])), None);
    for same in [None, Some(TTL)] {
        let mut bench = Bench::with(|config| config.lease_ttl_ms = same);
        assert_eq!(told(&bench.arrive(vec![started(1)])), None, "{same:?}");
    }
}

#[test]
fn what_is_meant_for_another_worker_or_process_is_ignored() {
    let mut bench = Bench::new();
    let mut other = started(1);
    other.to = Some("v".into());
    let mut older = started(1);
    older.to_incarnation = Some(Incarnation(2));
    assert_eq!(bench.arrive(vec![other, older]), vec![]);
}

#[test]
fn starts_that_arrive_during_a_check_share_the_next_one_and_one_heartbeat() {
    let mut bench = Bench::with(|config| config.capacity = 4);
    bench.arrive(vec![of_node("a", 1)]);
    assert_eq!(bench.arrive(vec![of_node("b", 1)]), vec![]);
    assert_eq!(bench.arrive(vec![of_node("c", 2)]), vec![]);
    let out = bench.store(7, grants(&[None]));
    let read = StoreRequest::ReadGrants {
        worker_id: id("w"),
        // The refused one is asked about too, until the store shows it superseded.
        nodes: ["b", "c", "a"].map(|name| (task(), node(name))).to_vec(),
    };
    let refusal = &out[0];
    assert!(format!("{refusal:?}").contains("NotCurrent"), "{refusal:?}");
    assert_eq!(out[1..], [store_op(11, read)]);
    let beat = |name: &str, token| RunBeat {
        task_id: task(),
        node_id: node(name),
        token: crate::id::Token(token),
        batches: 0,
        in_batch_ms: 0,
    };
    let body = Body::Heartbeat(Heartbeat {
        runs: vec![beat("b", 1), beat("c", 2)],
    });
    let out = bench.store(11, grants(&[Some((1, false)), Some((2, false)), None]));
    assert_eq!(out, vec![plain(12, shard(), body, 2, 2)]);
}

#[test]
fn a_repeated_start_is_answered_with_a_heartbeat_while_it_runs() {
    let mut bench = Bench::new();
    bench.arrive(vec![started(1)]);
    assert_eq!(bench.arrive(vec![started(1)]), vec![], "the check answers");
    bench.store(7, grants(&[Some((1, false))]));
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![beat(10, 3, &[(1, 0, 0)], 1)]);
}

#[test]
fn a_repeated_start_of_an_ended_token_gets_its_end_again_with_the_old_seq() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    let out = bench.run(1, RunEvent::Closed);
    let end = || task_failed(Some("a"), "odd", false, "text");
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), event(9, 1, 1, end(), 2)]);
    bench.confirm(9);
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![event(10, 1, 1, end(), 2)]);
    // Until the store has shown it superseded; then a copy is recognised without a read.
    bench.pass(500);
    bench.store(12, grants(&[None]));
    let out = bench.arrive(vec![started(1)]);
    let refusal = refused(13, 1, RefusalReason::NotCurrent, 2);
    assert_eq!(out, vec![refusal]);
}

/// The grant cannot be read.
fn unread() -> StoreReply {
    let rotten = GrantView {
        token: None,
        cancelled: true,
        unreadable: true,
    };
    StoreReply::Grants {
        incarnation: Incarnation(3),
        grants: vec![Some(rotten)],
    }
}

/// A commit of an owner that died may write the record again: then its token is current as before.
#[test]
fn an_ended_token_is_remembered_while_its_grant_cannot_be_read() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    bench.confirm(9);
    let end = || task_failed(Some("a"), "odd", false, "text");
    assert_eq!(bench.pass(500), vec![read_grants(10, 1)]);
    assert_eq!(bench.store(10, unread()), vec![]);
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![event(11, 1, 1, end(), 2)]);
}

/// The same while its end is still on its way.
#[test]
fn a_token_whose_end_is_on_its_way_is_remembered_while_its_grant_cannot_be_read() {
    let mut bench = Bench::new();
    bench.processing();
    assert_eq!(bench.pass(500), vec![read_grants(9, 1)]);
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    let end = || task_failed(Some("a"), "odd", false, "text");
    let out = bench.run(1, RunEvent::Closed);
    assert_eq!(
        out,
        vec![ended(1, "TASK_FAILED"), event(10, 1, 1, end(), 2)]
    );
    assert_eq!(bench.store(9, unread()), vec![]);
    bench.confirm(10);
    let out = bench.arrive(vec![started(1)]);
    assert_eq!(out, vec![event(11, 1, 1, end(), 2)]);
}

#[test]
fn a_start_that_the_store_does_not_confirm_is_refused() {
    for view in [None, Some((2, false)), Some((1, true))] {
        let mut bench = Bench::new();
        bench.arrive(vec![started(1)]);
        let out = bench.store(7, grants(&[view]));
        let refusal = refused(8, 1, RefusalReason::NotCurrent, 2);
        assert_eq!(out, vec![refusal]);
        // The same answer again, and never a run.
        let out = bench.arrive(vec![started(1)]);
        assert_eq!(out, vec![refused(9, 1, RefusalReason::NotCurrent, 2)]);
    }
}

#[test]
fn a_start_without_a_slot_is_refused_and_its_shard_hears_of_the_next_free_one() {
    let mut bench = Bench::with(|config| config.capacity = 1);
    bench.processing();
    let out = bench.arrive(vec![of_node("m", 4)]);
    let Effect::Transport { op, .. } = &out[0] else {
        panic!("{out:?}");
    };
    assert_eq!((out.len(), op.0), (1, 9));
    assert!(format!("{out:?}").contains("Busy"), "{out:?}");
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    let out = bench.run(1, RunEvent::Closed);
    let end = task_failed(Some("a"), "odd", false, "text");
    let free = plain(12, Stream::Shard(ShardId(0)), Body::SlotFree, 3, 1);
    let expected = vec![ended(1, "TASK_FAILED"), event(11, 1, 1, end, 1), free];
    assert_eq!(out, expected);
}

#[test]
fn the_changes_of_the_number_of_free_slots_are_counted() {
    let mut bench = Bench::with(|config| config.capacity = 1);
    let online = bench.slots_no;
    bench.processing();
    let taken = bench.slots_no;
    assert_eq!(taken, online + 1, "the slot is taken");
    bench.arrive(vec![of_node("m", 4)]);
    assert_eq!(bench.slots_no, taken, "refused: nothing has changed");
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    assert_eq!(bench.slots_no, taken + 1, "it is free again");
}

#[test]
fn a_start_of_a_role_without_handler_is_refused() {
    let mut bench = Bench::new();
    let mut envelope = started(1);
    envelope.step_type = Some(role("other"));
    let out = bench.arrive(vec![envelope]);
    assert_eq!(out, vec![refused(6, 1, RefusalReason::NoHandler, 2)]);
}

#[test]
fn an_older_token_is_refused_and_a_newer_one_fences_the_run() {
    let mut bench = Bench::new();
    bench.begin(start(), 3);
    let out = bench.arrive(vec![started(2)]);
    assert_eq!(out, vec![refused(9, 2, RefusalReason::NotCurrent, 1)]);
    // The handler owes an answer, so it is dropped; the node runs here once at a time.
    let out = bench.arrive(vec![started(4)]);
    let expected = vec![
        told(CancelReason::Fenced, 1_000),
        tell(1, RunCommand::Abort),
        refused(11, 4, RefusalReason::Busy, 1),
    ];
    assert_eq!(out, expected);
    bench.run(1, RunEvent::Failed(failure("dropped", false, true)));
    let out = bench.run(1, RunEvent::Closed);
    let end = released(ReleaseReason::Fenced);
    let free = plain(14, shard(), Body::SlotFree, 3, 2);
    assert_eq!(
        out,
        vec![ended(3, "TASK_RELEASED"), event(13, 3, 1, end, 2), free]
    );
}

#[test]
fn a_newer_token_is_taken_when_only_the_confirmation_of_the_old_end_is_missing() {
    let mut bench = Bench::new();
    bench.processing();
    bench.run(1, RunEvent::Failed(failure("odd", false, false)));
    bench.run(1, RunEvent::Closed);
    assert_eq!(bench.arrive(vec![started(2)]), vec![read_grants(11, 1)]);
    // The confirmation comes late and changes nothing.
    assert_eq!(bench.confirm(9), vec![]);
}

#[test]
fn a_newer_process_of_this_worker_stops_this_one() {
    let mut bench = Bench::new();
    bench.processing();
    bench.pass(500);
    let reply = StoreReply::Grants {
        incarnation: Incarnation(4),
        grants: vec![None],
    };
    let out = bench.store(9, reply);
    let text = "incarnation 4 of this worker is alive; this is 3";
    let expected = vec![
        Effect::Report(Report::new(ReportKind::Superseded, text)),
        told(CancelReason::Fenced, 1_500),
        tell(1, RunCommand::Abort),
        Effect::Stopped { superseded: true },
    ];
    assert_eq!(out, expected);
    assert_eq!(bench.input(Input::Wake), vec![]);
    assert_eq!(bench.worker.poll_timeout(), None);
}

#[test]
fn an_unreadable_or_incomplete_command_is_reported_and_changes_nothing() {
    let mut bench = Bench::new();
    let mut envelope = started(1);
    envelope.lease_no = None;
    let out = bench.arrive(vec![envelope]);
    let text = "a command without task, node or token";
    let report = Report::new(ReportKind::Rejected, text);
    assert_eq!(out, vec![Effect::Report(report)]);
    let out = bench.arrive(vec![command(1, Body::SlotFree)]);
    let report = Report::new(ReportKind::Rejected, "a worker does not take SLOT_FREE");
    assert_eq!(out, vec![Effect::Report(report)]);
}

#[test]
fn the_first_token_reads_nothing_and_later_ones_what_earlier_holders_left() {
    let start = || TaskStart {
        accepted: 3,
        checkpoint_batches: 1,
        checkpoint: Some(json("9")),
        ..start()
    };
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    let out = bench.run(1, RunEvent::Loaded { adapter: None });
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);

    let mut bench = Bench::new();
    let out = bench.begin(start(), 2);
    let begin = tell(1, spec(2, &start()));
    assert_eq!(out, vec![note(ReportKind::Run, 2, "started"), begin]);
    let out = bench.run(1, RunEvent::Loaded { adapter: None });
    let scratch = StoreRequest::TakeScratch {
        task_id: task(),
        node_id: node("n"),
        token: crate::id::Token(2),
    };
    assert_eq!(
        out,
        vec![store_op(9, scratch), store_op(10, accepted_after(1))]
    );
    // Page after page, up to the number that was accepted at the grant.
    let page = StoreReply::Accepted(vec![(2, uid("b"))]);
    assert_eq!(bench.store(10, page), vec![store_op(11, accepted_after(2))]);
    assert_eq!(bench.store(9, StoreReply::Scratch(None)), vec![]);
    let page = StoreReply::Accepted(vec![(3, uid("c"))]);
    let out = bench.store(11, page);
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);
}

fn accepted_after(after: u64) -> StoreRequest {
    StoreRequest::ReadAccepted {
        task_id: task(),
        node_id: node("n"),
        after,
        limit: 1_000,
    }
}
