//! Events: pipelined, bounded, repeated in order under the same seq and identity.

use super::bench::*;
use crate::message::Body;
use crate::port::ErrorKind;
use crate::report::{Report, ReportKind};
use crate::worker::{Effect, RunCommand, RunEvent};

fn sent(op: u64, seq: u64, batch_uid: &str, free: u32) -> Effect {
    event(op, 1, seq, Body::BatchOk(ok(batch_uid)), free)
}

/// Batches a, b and c are processed; their events are ops 9, 10 and 11.
fn three(bench: &mut Bench) {
    bench.begin(start(), 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    for name in ["a", "b", "c"] {
        bench.run(1, batch(name, false));
        bench.run(1, processed());
    }
}

#[test]
fn after_a_failed_send_it_and_all_later_events_are_sent_again_in_order() {
    let mut bench = Bench::new();
    three(&mut bench);
    assert_eq!(bench.transport_fails(10, ErrorKind::Unknown), vec![]);
    assert_eq!(bench.confirm(11), vec![], "of an earlier round");
    let out = bench.pass(50);
    assert_eq!(out, vec![sent(12, 2, "b", 1), sent(13, 3, "c", 1)]);
    // The first one fails late: it goes first again.
    assert_eq!(bench.transport_fails(9, ErrorKind::Retry), vec![]);
    let out = bench.pass(100);
    assert_eq!(
        out,
        vec![
            sent(14, 1, "a", 1),
            sent(15, 2, "b", 1),
            sent(16, 3, "c", 1)
        ]
    );
    for op in [14, 15, 16] {
        assert_eq!(bench.confirm(op), vec![]);
    }
}

#[test]
fn events_queued_during_the_wait_follow_in_order() {
    let mut bench = Bench::new();
    three(&mut bench);
    bench.transport_fails(11, ErrorKind::Retry);
    bench.run(1, batch("d", false));
    let out = bench.run(1, processed());
    assert_eq!(out, vec![tell(1, RunCommand::NextBatch)]);
    let out = bench.pass(50);
    assert_eq!(out, vec![sent(12, 3, "c", 1), sent(13, 4, "d", 1)]);
}

#[test]
fn a_run_with_too_many_unconfirmed_events_waits() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    let mut out = Vec::new();
    for number in 0..64 {
        bench.run(1, batch(&format!("b{number}"), false));
        out = bench.run(1, processed());
    }
    assert_eq!(out, vec![sent(72, 64, "b63", 1)], "and no further batch");
    assert_eq!(bench.confirm(10), vec![], "the oldest is still unconfirmed");
    assert_eq!(bench.confirm(9), vec![tell(1, RunCommand::NextBatch)]);
}

#[test]
fn an_event_that_can_never_be_sent_fails_the_run_in_its_place() {
    let mut bench = Bench::new();
    three(&mut bench);
    let out = bench.transport_fails(10, ErrorKind::Invalid);
    let report = Report::new(ReportKind::PortFailed, "op: detail (Invalid)");
    let reason = crate::message::CancelReason::TaskFailed;
    let expected = vec![
        Effect::Report(report),
        told(reason, 1_000),
        tell(1, RunCommand::Abort),
    ];
    assert_eq!(out, expected);
    bench.run(1, RunEvent::Failed(failure("dropped", false, true)));
    let out = bench.run(1, RunEvent::Closed);
    let text = "event 2 of the run was refused: detail";
    let end = event(12, 1, 2, task_failed(None, "event_refused", true, text), 2);
    assert_eq!(out, vec![ended(1, "TASK_FAILED"), end]);
}

#[test]
fn a_terminal_event_that_can_never_be_sent_is_replaced_by_a_failure() {
    let mut bench = Bench::new();
    bench.begin(start(), 1);
    bench.run(1, RunEvent::Loaded { adapter: None });
    bench.run(1, RunEvent::BatchesEnded);
    bench.run(1, finalized());
    bench.run(1, RunEvent::Closed);
    let out = bench.transport_fails(9, ErrorKind::Invalid);
    let text = "event 1 of the run was refused: detail";
    let end = || task_failed(None, "event_refused", true, text);
    assert_eq!(out[1..], [event(10, 1, 1, end(), 2)]);
    // If not even that can be told, the run is forgotten; its lease ends at the owner's.
    let out = bench.transport_fails(10, ErrorKind::Invalid);
    assert_eq!(out.len(), 1, "{out:?}");
    let out = bench.arrive(vec![started(1)]);
    let text = format!("{out:?}");
    assert!(text.contains("NotCurrent"), "never run again: {text}");
}
