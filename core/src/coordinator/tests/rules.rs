//! Rules of graphs, as the machine carries them out.

use std::sync::Arc;

use super::bench::*;
use crate::coordinator::Effect;
use crate::id::{Incarnation, Offset, OpId};
use crate::message::{Body, CancelReason, SourceState, TaskFailed};
use crate::port::{StoreRequest, TransportReply};
use crate::record::{NodeState, TaskState};

fn fail() -> Body {
    Body::TaskFailed(TaskFailed {
        batch_uid: None,
        reason_code: "bad_input".into(),
        permanent: false,
        error: "no".into(),
        retry_after_ms: None,
    })
}

#[test]
fn a_reader_starts_on_the_first_batch_and_hears_of_the_next_ones() {
    let graph = r#"{"nodes":[
        {"node_id":"src","type":"a"},
        {"node_id":"rdr","type":"b","depends_on":["src"],
         "io":{"start_when":"first_batch","input_inline":{"input_adapter":"pull.from_artifacts",
               "input_args":{"from_nodes":["src"]}}}}]}"#;
    let mut bench = Bench::owned();
    bench.submitted("t", graph);
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START src 1"]);
    bench.arrive(vec![event("t", "src", 1, 1, Body::BatchOk(batch("b1")))]);
    bench.take_commit();
    let [(_, Body::TaskStart(start))] = &bench.sent()[..] else {
        panic!("{:?}", bench.out)
    };
    assert_eq!(
        start.sources,
        [SourceState {
            node_id: node_id("src"),
            last: 1,
            ended: false,
            kept_from: None,
        }]
    );
    bench.arrive(vec![
        event("t", "src", 1, 2, Body::BatchOk(batch("b2"))),
        event("t", "src", 1, 3, done(2, 0, 0)),
    ]);
    bench.take_commit();
    let [(_, Body::InputReady(ready))] = &bench.sent()[..] else {
        panic!("{:?}", bench.out)
    };
    assert_eq!(
        ready.sources,
        [SourceState {
            node_id: node_id("src"),
            last: 2,
            ended: true,
            kept_from: None,
        }]
    );
}

#[test]
fn the_outcome_not_taken_is_skipped_and_a_handled_failure_finishes_the_task() {
    let graph = r#"{"nodes":[
        {"node_id":"n","type":"a","routing":{"on_success":["yes"],"on_failure":["no"]}},
        {"node_id":"yes","type":"a"},{"node_id":"no","type":"a"}]}"#;
    let mut bench = Bench::owned();
    bench.submitted("t", graph);
    bench.arrive(vec![event("t", "n", 1, 1, fail())]);
    let commit = bench.take_commit();
    assert_eq!(
        node_of(&commit, "n").state,
        NodeState::Failed,
        "bad_input is permanent"
    );
    assert_eq!(node_of(&commit, "yes").state, NodeState::Skipped);
    assert_eq!(node_of(&commit, "no").state, NodeState::Running);
    bench.arrive(vec![event("t", "no", 1, 1, done(0, 0, 0))]);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Finished);
}

#[test]
fn an_unhandled_failure_fails_the_task_at_once_and_ends_the_rest() {
    let graph = r#"{"nodes":[
        {"node_id":"n","type":"a"},{"node_id":"below","type":"a","depends_on":["n"]},
        {"node_id":"beside","type":"b"},
        {"node_id":"later","type":"a","depends_on":["beside"]}]}"#;
    let mut bench = Bench::owned();
    bench.submitted("t", graph);
    bench.arrive(vec![event("t", "n", 1, 1, fail())]);
    let commit = bench.take_commit();
    assert_eq!(
        (task_of(&commit).state, task_of(&commit).settled),
        (TaskState::Failed, false)
    );
    assert_eq!(node_of(&commit, "below").state, NodeState::Skipped);
    assert_eq!(node_of(&commit, "later").state, NodeState::Cancelled);
    let told = node_of(&commit, "beside")
        .grant
        .as_ref()
        .and_then(|g| g.cancel)
        .expect("told");
    assert_eq!(told.reason, CancelReason::TaskFailed);
    assert_eq!(bench.sent_kinds(), ["TASK_CANCEL beside 1"]);
}

/// A source, a reader of it, a reader of that one, and a node beside; all of them run.
fn streaming() -> Bench {
    let graph = r#"{"nodes":[
        {"node_id":"src","type":"a","routing":{"on_failure":["handler"]}},
        {"node_id":"rdr","type":"a","depends_on":["src"],
         "io":{"start_when":"first_batch","input_inline":{"input_adapter":"pull.from_artifacts",
               "input_args":{"from_nodes":["src"]}}}},
        {"node_id":"far","type":"a","depends_on":["rdr"],"io":{"start_when":"first_batch"}},
        {"node_id":"beside","type":"a"},
        {"node_id":"handler","type":"a"}]}"#;
    let mut record = worker_record("w1", 1, &["a"]);
    record.capacity = 5;
    let mut bench = Bench::owned_with(config(), Vec::new(), vec![record]);
    bench.submitted("t", graph);
    for node in ["src", "rdr"] {
        bench.arrive(vec![event("t", node, 1, 1, Body::BatchOk(batch("b1")))]);
        bench.take_commit();
    }
    assert_eq!(bench.sent_kinds(), ["TASK_START far 1"]);
    bench
}

/// Who is told to end, and why.
fn told(bench: &Bench) -> Vec<(String, CancelReason, u64)> {
    let kinds = bench.sent_kinds();
    let told = kinds.into_iter().zip(bench.sent());
    let told = told.filter_map(|(kind, (_, body))| match body {
        Body::TaskCancel(cancel) => Some((kind, cancel.reason, cancel.grace_ms)),
        _ => None,
    });
    told.collect()
}

#[test]
fn readers_of_what_failed_are_told_that_their_source_did() {
    let mut bench = streaming();
    // Its failure is handled by a node: nobody is told until that has failed, too.
    bench.arrive(vec![event("t", "src", 1, 2, fail())]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "src").state, NodeState::Failed);
    assert_eq!(told(&bench), []);
    bench.arrive(vec![event("t", "rdr", 1, 2, fail())]);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Failed);
    let cancel = |node: &str, reason| (format!("TASK_CANCEL {node} 1"), reason, 30_000);
    let expected = [
        cancel("far", CancelReason::UpstreamFailed),
        cancel("beside", CancelReason::TaskFailed),
        cancel("handler", CancelReason::TaskFailed),
    ];
    assert_eq!(told(&bench), expected);
    for (node, reason) in [
        ("far", CancelReason::UpstreamFailed),
        ("beside", CancelReason::TaskFailed),
    ] {
        let grant = node_of(&commit, node).grant.as_ref();
        let stored = grant.and_then(|grant| grant.cancel).expect("told");
        assert_eq!((stored.reason, stored.grace_ms), (reason, 30_000));
    }
}

#[test]
fn a_failure_that_is_handled_ends_no_reader_and_one_whose_handler_fails_ends_them() {
    let mut bench = streaming();
    bench.arrive(vec![event("t", "src", 1, 2, fail())]);
    bench.take_commit();
    bench.arrive(vec![event("t", "handler", 1, 1, fail())]);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Failed);
    let cancel = |node: &str, reason| (format!("TASK_CANCEL {node} 1"), reason, 30_000);
    let failed = task_of(&commit).failure.as_ref().expect("it failed");
    // What failed unhandled is the handler, and nobody reads that.
    assert_eq!(failed.node_id, node_id("handler"));
    let expected = ["rdr", "far", "beside"].map(|node| cancel(node, CancelReason::TaskFailed));
    assert_eq!(told(&bench), expected);
}

#[test]
fn a_worker_gets_no_more_than_its_capacity() {
    let graph = r#"{"nodes":[{"node_id":"x","type":"a"},{"node_id":"y","type":"a"},
        {"node_id":"z","type":"b"}]}"#;
    let mut bench = Bench::owned();
    bench.submitted("t", graph);
    assert_eq!(
        bench.sent_kinds(),
        ["REPLY - 0", "TASK_START x 1", "TASK_START y 1"]
    );
    bench.arrive(vec![event("t", "x", 1, 1, done(0, 0, 0))]);
    bench.take_commit();
    assert_eq!(bench.sent_kinds(), ["TASK_START z 1"]);
}

#[test]
fn a_free_slot_goes_to_the_node_that_has_waited_longest_whatever_its_role() {
    let graph = r#"{"nodes":[{"node_id":"p","type":"b"},{"node_id":"q","type":"b"},
        {"node_id":"z","type":"b"},{"node_id":"x","type":"a","depends_on":["p"]}]}"#;
    let mut bench = Bench::owned();
    bench.submitted("t", graph);
    bench.arrive(vec![event("t", "p", 1, 1, done(0, 0, 0))]);
    bench.take_commit();
    assert_eq!(bench.sent_kinds(), ["TASK_START z 1"]);
}

#[test]
fn a_reader_makes_room_for_the_source_it_waits_for() {
    let graph = r#"{"nodes":[
        {"node_id":"src","type":"a"},
        {"node_id":"rdr","type":"a","depends_on":["src"],
         "io":{"start_when":"first_batch","input_inline":{"input_adapter":"pull.from_artifacts",
               "input_args":{"from_nodes":["src"]}}}},
        {"node_id":"other","type":"a","depends_on":["src"],"io":{"start_when":"first_batch"}}]}"#;
    let mut record = worker_record("w1", 1, &["a"]);
    record.capacity = 2;
    let mut bench = Bench::owned_with(config(), Vec::new(), vec![record]);
    bench.submitted("t", graph);
    bench.arrive(vec![event("t", "src", 1, 1, Body::BatchOk(batch("b1")))]);
    bench.take_commit();
    assert_eq!(bench.sent_kinds(), ["TASK_START rdr 1"]);
    // The source loses its grant, and the third node takes neither slot: it is a reader, too.
    bench.arrive(vec![event("t", "src", 1, 9, Body::BatchOk(batch("b9")))]);
    let commit = bench.take_commit();
    assert_eq!(
        node_of(&commit, "src").lease_no.0,
        2,
        "the free slot goes to the source"
    );
}

#[test]
fn a_bad_graph_is_answered_with_every_fault_and_stores_nothing() {
    let mut bench = Bench::owned();
    bench.arrive(vec![submit(
        "t",
        r#"{"nodes":[{"node_id":"n"},{"type":"a"}],"x":1}"#,
    )]);
    bench.unknown_tasks();
    let sent = bench.sent();
    let [(to, Body::Reply(reply))] = &sent[..] else {
        panic!("{:?}", bench.out)
    };
    assert_eq!(to, "client");
    let error = reply.error.as_ref().expect("refused");
    assert!(error.faults.len() >= 3, "{:?}", error.faults);
    assert_eq!(bench.machine.tasks_in_flight(), 0);
}

#[test]
fn a_copy_that_comes_late_takes_no_free_slot_away() {
    let told = |free, no| {
        let mut message = beat("t", "n", 1);
        message.body = Body::SlotFree;
        message.free_slots = Some(free);
        message.slots_no = Some(no);
        message
    };
    let mut bench = Bench::owned();
    bench.arrive(vec![told(0, 7), told(2, 8)]);
    // A copy, or an announcement that was written before.
    bench.arrive(vec![told(0, 7)]);
    bench.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START n 1"]);
}

#[test]
fn a_word_of_an_unknown_worker_makes_the_owner_read_the_workers() {
    let word_of = |worker: &str, incarnation: u64| {
        let mut message = beat("t", "n", 1);
        message.body = Body::SlotFree;
        message.sender.id = Arc::from(worker);
        message.sender.incarnation = Incarnation(incarnation);
        message.identified(0)
    };
    // Known; never seen; a newer process than the known one.
    for (worker, incarnation, asks) in [("w1", 1, false), ("w2", 1, true), ("w1", 2, true)] {
        let mut bench = Bench::owned();
        bench.arrive(vec![word_of(worker, incarnation)]);
        // The long poll for announcements ends: its fourth request.
        let nothing = TransportReply::Entries {
            entries: Vec::new(),
            next: Offset(0),
        };
        let out = bench.raw(transport_ok(OpId(4), nothing));
        let asked = out.iter().any(|effect| {
            matches!(
                effect,
                Effect::Store {
                    request: StoreRequest::ReadWorkers,
                    ..
                }
            )
        });
        assert_eq!(asked, asks, "{worker} {incarnation}: {out:?}");
    }
}
