//! A coordinator that is told to stop: what was said before is folded, and then its shard is given back.

use super::super::{Effect, Input};
use super::bench::{Bench, beat, client, event, node_of, submit, transport_ok};
use crate::id::{Offset, OpId, ShardId};
use crate::message::{Body, Envelope, ReleaseReason, TaskReleased, WaitTask};
use crate::port::{
    Entry, ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportReply, TransportRequest,
};
use crate::record::NodeState;
use std::sync::Arc;

const GRAPH: &str = r#"{"nodes":[{"node_id":"a","type":"a"}]}"#;

fn released() -> Envelope {
    let reason = ReleaseReason::Shutdown;
    event("t", "a", 1, 1, Body::TaskReleased(TaskReleased { reason }))
}

/// Told to stop; the read that follows, and whatever else.
fn told(bench: &mut Bench) -> (OpId, TransportRequest) {
    told_by(bench, false)
}

fn told_by(bench: &mut Bench, workers_left: bool) -> (OpId, TransportRequest) {
    let out = bench.raw(Input::Shutdown { workers_left });
    match &out[..] {
        [Effect::Transport { op, request }] => (*op, request.clone()),
        other => panic!("one read: {other:?}"),
    }
}

fn entries(from: u64, messages: Vec<Envelope>) -> TransportReply {
    let entries = (from..).zip(messages).map(|(offset, message)| Entry {
        offset: Offset(offset),
        message: Ok(Arc::new(message)),
    });
    let entries: Vec<Entry> = entries.collect();
    let next = Offset(from + entries.len() as u64);
    TransportReply::Entries { entries, next }
}

fn gives_back(out: &[Effect]) -> bool {
    out.iter().any(|effect| {
        matches!(
            effect,
            Effect::Store {
                request: StoreRequest::ReleaseShard { .. },
                ..
            }
        )
    })
}

#[test]
fn what_a_worker_said_before_the_stop_is_folded() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let (op, request) = told(&mut bench);
    let wanted = TransportRequest::Read {
        stream: Stream::Shard(ShardId(0)),
        from: Offset(1),
        limit: 512,
        wait_ms: 0,
    };
    assert_eq!(request, wanted);
    bench.input(transport_ok(op, entries(1, vec![released()])));
    let commit = bench.take_commit();
    let node = node_of(&commit, "a");
    // Nobody's, and nothing that counts; nor is it granted again.
    assert_eq!((node.state, node.losses), (NodeState::Ready, 0));
    assert_eq!(bench.sent_kinds(), ["COORDINATOR_OFFLINE - 0"]);
    assert!(gives_back(&bench.out), "{:?}", bench.out);
}

#[test]
fn the_read_that_was_under_way_and_the_last_one_say_the_same() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let under_way = bench.fetch.take().expect("a read");
    let (last, _) = told(&mut bench);
    bench.input(transport_ok(under_way, entries(1, vec![released()])));
    bench.input(Input::Idle);
    let (commit_op, commit) = bench.commit();
    assert_eq!(commit.next, Offset(2));
    bench.input(transport_ok(last, entries(1, vec![released()])));
    let committed = StoreReply::Committed { seq: commit.seq };
    let out = bench.raw(super::bench::store_ok(commit_op, committed));
    assert!(gives_back(&out), "{out:?}");
}

#[test]
fn a_request_about_an_unknown_task_and_what_is_behind_it_are_for_the_next_owner() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let (op, _) = told(&mut bench);
    let wait = client("t", Body::WaitTask(WaitTask { inbox: 0 }));
    let said = vec![wait, submit("u", GRAPH), released()];
    let out = bench.raw(transport_ok(op, entries(1, said)));
    assert!(gives_back(&out), "{out:?}");
}

/// A START that came when its worker had read for the last time: the next start would take the grant for lost.
#[test]
fn what_no_worker_began_is_handed_back_once_all_have_stopped_and_their_last_words_are_folded() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let (op, _) = told_by(&mut bench, true);
    bench.input(transport_ok(op, entries(1, vec![])));
    let commit = bench.take_commit();
    let node = node_of(&commit, "a");
    assert_eq!((node.state, node.losses), (NodeState::Ready, 0));
    assert_eq!(node.grant, None);
    assert!(gives_back(&bench.out), "{:?}", bench.out);
}

#[test]
fn what_may_have_been_begun_stays_granted() {
    // Workers live on; or what they said last is not known.
    for (workers_left, is_read) in [(false, true), (true, false)] {
        let mut bench = Bench::owned();
        bench.submitted("t", GRAPH);
        let (op, _) = told_by(&mut bench, workers_left);
        let result = if is_read {
            Ok(entries(1, vec![]))
        } else {
            Err(PortError::new(ErrorKind::Retry, "read", "away"))
        };
        let out = bench.raw(Input::TransportDone { op, result });
        let commits = out.iter().any(|effect| {
            matches!(
                effect,
                Effect::Store {
                    request: StoreRequest::Commit(_),
                    ..
                }
            )
        });
        assert!(gives_back(&out) && !commits, "{out:?}");
    }
}

#[test]
fn a_last_read_that_fails_holds_up_nothing() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let (op, _) = told(&mut bench);
    let error = PortError::new(ErrorKind::Retry, "read", "away");
    let out = bench.raw(Input::TransportDone {
        op,
        result: Err(error),
    });
    assert!(gives_back(&out), "{out:?}");
}

#[test]
fn a_question_that_was_asked_before_is_not_passed_over() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    bench.arrive(vec![submit("u", GRAPH)]);
    let out = bench.raw(Input::Shutdown {
        workers_left: false,
    });
    let op = *super::bench::ops(&out).last().expect("a read");
    let out = bench.raw(transport_ok(op, entries(2, vec![released()])));
    // No commit goes beyond the submission: the next owner folds both.
    assert!(gives_back(&out), "{out:?}");
}

#[test]
fn a_lease_that_is_just_renewed_is_given_back_after_that() {
    let mut bench = Bench::owned();
    let (op, _) = told(&mut bench);
    bench.now_ms += 900_000;
    let out = bench.raw(transport_ok(op, entries(0, Vec::new())));
    let [Effect::Store { op, request }] = &out[..] else {
        panic!("a renewal and nothing else: {out:?}")
    };
    assert!(matches!(request, StoreRequest::AcquireShard { .. }));
    let error = PortError::new(ErrorKind::Retry, "acquire_shard", "away");
    let out = bench.raw(super::bench::store_error(*op, error));
    assert!(gives_back(&out), "{out:?}");
}

#[test]
fn what_a_worker_asked_keeps_nothing_from_being_heard() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    // A question of a run that nobody knows: the store is asked.
    bench.arrive(vec![beat("gone", "a", 7)]);
    let out = bench.raw(Input::Shutdown {
        workers_left: false,
    });
    let op = *super::bench::ops(&out).last().expect("a read");
    bench.input(transport_ok(op, entries(2, vec![released()])));
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "a").state, NodeState::Ready);
}
