//! Clocks of grants: what is sent again, and what is expired only after everything is read.

use super::bench::*;
use crate::coordinator::{Effect, Input};
use crate::id::{Incarnation, Offset, OpId, Token};
use crate::message::{Body, Capabilities, Capacity, Envelope, Sender, SenderRole, WorkerOnline};
use crate::port::{StoreReply, Stream, TransportReply, TransportRequest};
use crate::record::NodeState;

const ONE: &str = r#"{"nodes":[{"node_id":"n","type":"a"}]}"#;

fn end_question(bench: &Bench) -> Option<OpId> {
    bench.out.iter().find_map(|effect| match effect {
        Effect::Transport {
            op,
            request: TransportRequest::Bounds { stream },
        } if *stream == Stream::Shard(SHARD) => Some(*op),
        _ => None,
    })
}

fn end_at(op: OpId, end: u64) -> Input {
    transport_ok(
        op,
        TransportReply::Bounds {
            start: Offset(0),
            end: Offset(end),
        },
    )
}

#[test]
fn a_start_is_repeated_until_the_run_is_heard() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.pass(499);
    assert_eq!(bench.sent_kinds(), [""; 0]);
    bench.pass(1);
    assert_eq!(bench.sent_kinds(), ["TASK_START n 1"]);
    bench.pass(1_000);
    assert_eq!(bench.sent_kinds(), ["TASK_START n 1"]);
    bench.arrive(vec![beat("t", "n", 1)]);
    bench.pass(3_000);
    assert_eq!(bench.sent_kinds(), [""; 0], "heard: nothing is missing");
}

#[test]
fn an_unanswered_start_is_granted_anew_once_the_stream_is_folded() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.pass(5_000);
    let op = end_question(&bench).expect("the stream's end is asked for");
    bench.input(end_at(op, 1));
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    // The only worker left it unanswered: nobody gets it before that one is heard again.
    assert_eq!((node.state, node.losses), (NodeState::Ready, 0));
    bench.arrive(vec![beat("t", "n", 1)]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "n").lease_no, Token(2));
}

#[test]
fn a_silent_run_is_expired_only_after_everything_below_the_end_is_folded() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![beat("t", "n", 1)]);
    // ttl 10 s + margin 1 s after it was heard.
    bench.pass(10_999);
    assert_eq!(end_question(&bench), None);
    bench.pass(1);
    let op = end_question(&bench).expect("its time is up");
    // Two more entries stand in the stream: a heartbeat is among them.
    bench.input(end_at(op, 4));
    assert_eq!(bench.sent_kinds(), [""; 0]);
    bench.arrive(vec![beat("t", "n", 1), beat("t", "n", 1)]);
    bench.input(Input::Idle);
    assert_eq!(bench.out, [], "it was heard: its lease goes on");
    bench.pass(11_000);
    let op = end_question(&bench).expect("its time is up again");
    bench.input(end_at(op, 4));
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.losses, node.lease_no, node.state),
        (1, Token(2), NodeState::Running)
    );
}

#[test]
fn nothing_is_expired_while_the_end_of_the_stream_cannot_be_asked_for() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![beat("t", "n", 1)]);
    bench.pass(11_000);
    let op = end_question(&bench).expect("its time is up");
    let away = crate::port::PortError::new(crate::port::ErrorKind::Retry, "bounds", "away");
    bench.input(Input::TransportDone {
        op,
        result: Err(away),
    });
    assert_eq!(bench.sent_kinds(), [""; 0]);
    bench.pass(1_000);
    let op = end_question(&bench).expect("asked again");
    bench.input(end_at(op, 2));
    assert_eq!(node_of(&bench.take_commit(), "n").lease_no, Token(2));
}

#[test]
fn a_newer_process_of_the_worker_ends_the_grants_of_the_older_one() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![beat("t", "n", 1)]);
    // The announcement's read is outstanding since the takeover; its op is the one after the
    // workers were read.
    let online = WorkerOnline {
        worker_id: "w1".parse().expect("an id"),
        kind: "a".into(),
        capabilities: Capabilities {
            roles: vec!["a".parse().expect("a role")],
        },
        version: "1".into(),
        capacity: Capacity { tasks: 2 },
        status: "online".into(),
        incarnation: Incarnation(2),
        inbox: 0,
        abandoned: 0,
        announce_interval_ms: 0,
    };
    let sender = Sender {
        role: SenderRole::Worker,
        id: "w1".into(),
        incarnation: Incarnation(2),
    };
    let message = Envelope::new(sender, 0, Body::WorkerOnline(online));
    let entry = crate::port::Entry {
        offset: Offset(0),
        message: Ok(message.into()),
    };
    let reply = TransportReply::Entries {
        entries: vec![entry],
        next: Offset(1),
    };
    bench.input(transport_ok(OpId(4), reply));
    let op = end_question(&bench).expect("what the old process sent is folded first");
    bench.input(end_at(op, 2));
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!((node.lease_no, node.epoch), (Token(2), epoch(1)));
    let grant = node.grant.as_ref().expect("granted at once");
    assert_eq!(grant.incarnation, Incarnation(2));
    let _ = StoreReply::Done;
}

#[test]
fn an_end_that_was_lost_with_the_tail_of_the_log_holds_no_lease_for_ever() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![beat("t", "n", 1)]);
    bench.pass(11_000);
    let op = end_question(&bench).expect("its lease is over");
    // Three more entries stood there; before they are read, they are gone.
    bench.input(end_at(op, 5));
    assert_eq!(end_question(&bench), None);
    bench.pass(4_999);
    assert_eq!(end_question(&bench), None);
    bench.pass(1);
    let op = end_question(&bench).expect("is the end still there?");
    bench.input(end_at(op, 2));
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "n").losses, 1);
}
