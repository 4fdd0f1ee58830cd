//! Group commit: nothing leaves before what it rests on is in the store.

use super::bench::*;
use crate::coordinator::{Effect, Input};
use crate::id::{Offset, OpId, Token};
use crate::message::Body;
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest, Stream, TransportRequest};
use crate::record::{NodeState, TaskState};

const ONE: &str = r#"{"nodes":[{"node_id":"n","type":"a"}]}"#;

#[test]
fn reply_and_start_leave_after_the_commit_in_one_piece() {
    let mut bench = Bench::owned();
    let out = bench.arrive(vec![submit("t", ONE)]).to_vec();
    let asked = StoreRequest::LookupTasks {
        tasks: vec![task_id("t")],
    };
    let [Effect::Store { request, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*request, asked);
    assert_eq!(
        bench.unknown_tasks(),
        [],
        "nothing leaves before the commit"
    );
    bench.input(Input::Idle);
    let (op, commit) = bench.commit();
    assert_eq!(
        bench.out.len(),
        1,
        "nothing leaves before the commit: {:?}",
        bench.out
    );
    assert_eq!((commit.epoch, commit.seq, commit.next), (1, 1, Offset(1)));
    assert_eq!(task_of(&commit).state, TaskState::Running);
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.state, node.lease_no, node.epoch),
        (NodeState::Running, Token(1), epoch(1))
    );
    bench.input(store_ok(op, StoreReply::Committed { seq: 1 }));
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START n 1"]);
}

#[test]
fn an_unknown_commit_is_submitted_again_unchanged_until_it_is_answered() {
    let mut bench = Bench::owned();
    bench.arrive(vec![submit("t", ONE)]);
    bench.unknown_tasks();
    bench.input(Input::Idle);
    let (mut op, first) = bench.commit();
    for _ in 0..3 {
        let unknown = PortError::new(ErrorKind::Unknown, "commit", "no answer");
        bench.input(store_error(op, unknown));
        assert!(bench.sent().is_empty(), "an unknown commit sends nothing");
        bench.pass(2_000);
        let (again, commit) = bench.commit();
        assert_eq!(
            commit, first,
            "the same commit, not one that was folded anew"
        );
        op = again;
    }
    bench.input(store_ok(op, StoreReply::Committed { seq: 1 }));
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START n 1"]);
}

#[test]
fn the_next_commit_is_folded_while_one_is_in_flight_and_cut_after_it() {
    let mut bench = Bench::owned();
    bench.arrive(vec![submit("t1", ONE)]);
    bench.unknown_tasks();
    bench.input(Input::Idle);
    let (op, _) = bench.commit();
    bench.arrive(vec![submit("t2", ONE)]);
    bench.unknown_tasks();
    bench.input(Input::Idle);
    assert_eq!(bench.out, [], "one commit of a shard at a time");
    bench.input(store_ok(op, StoreReply::Committed { seq: 1 }));
    let (_, second) = bench.commit();
    assert_eq!((second.seq, second.next), (2, Offset(2)));
}

#[test]
fn where_apply_comes_before_sync_starts_leave_when_applied_and_replies_when_durable() {
    let mut config = config();
    config.applies_before_sync = true;
    let mut bench = Bench::owned_with(config, Vec::new(), vec![worker_record("w1", 1, &["a"])]);
    bench.arrive(vec![submit("t", ONE)]);
    bench.unknown_tasks();
    bench.input(Input::Idle);
    let (op, _) = bench.commit();
    bench.input(store_ok(op, StoreReply::Committed { seq: 1 }));
    assert_eq!(bench.sent_kinds(), ["TASK_START n 1"]);
    let sync: Vec<OpId> = bench
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Store {
                op,
                request: StoreRequest::Sync { .. },
            } => Some(*op),
            _ => None,
        })
        .collect();
    bench.input(store_ok(sync[0], StoreReply::Synced { seq: 1 }));
    assert_eq!(bench.sent_kinds(), ["REPLY - 0"]);
}

#[test]
fn a_refused_commit_is_never_sent_again_and_the_shard_is_loaded_anew() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 1, Body::BatchOk(batch("b1")))]);
    bench.input(Input::Idle);
    let (op, refused) = bench.commit();
    assert_eq!(refused.next, Offset(2));
    let invalid = PortError::new(ErrorKind::Invalid, "commit", "duplicate batch uid");
    let out = bench.input(store_error(op, invalid)).to_vec();
    assert_eq!(bench.machine.shards_owned(), 0, "memory is dropped");
    let probe = TransportRequest::Bounds {
        stream: Stream::Shard(SHARD),
    };
    let asked =
        |effect: &Effect| matches!(effect, Effect::Transport { request, .. } if *request == probe);
    assert!(
        out.iter().any(asked),
        "and the takeover starts over at once: {out:?}"
    );
}

/// The task's record is what the store does not take.
#[test]
fn an_entry_whose_refusal_is_refused_is_blamed_on_its_task() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    let entry = event("t", "n", 1, 1, Body::BatchOk(batch("b1")));
    let place = (Offset(1), entry.dedup_id);
    for (poisoned, tasks) in [(false, vec![]), (true, vec![task_id("t")])] {
        let mut bench = Bench {
            machine: bench.machine.clone(),
            out: bench.out.clone(),
            ..bench
        };
        let shard = bench.machine.slots[0].owned().expect("it is owned");
        shard.careful_left = 64;
        shard.poisoned.extend(poisoned.then_some(place));
        bench.arrive(vec![entry.clone()]);
        bench.input(Input::Idle);
        let shard = bench.machine.slots[0].owned().expect("it is owned");
        let blame = shard.blame().1.expect("something is to blame");
        let expected = (!poisoned).then_some(place);
        assert_eq!((blame.entry, blame.tasks), (expected, tasks));
    }
}
