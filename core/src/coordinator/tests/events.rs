//! Events of runs: applied once, in order, under the current token.

use std::sync::Arc;

use super::bench::*;
use crate::coordinator::{Effect, Input};
use crate::graph::{START_BYTES_MAX, VARS_BYTES_MAX};
use crate::id::Token;
use crate::json::Json;
use crate::message::{BatchOk, Body, CHECKPOINT_BYTES_MAX, CancelReason, TaskFailed};
use crate::port::{Commit, Record};
use crate::record::{
    CAUSE_BYTES_MAX, ERROR_BYTES_MAX, Failure, NodeState, REASON_CODE_BYTES_MAX, TaskState,
};

const ONE: &str =
    r#"{"nodes":[{"node_id":"n","type":"a","retry_policy":{"max":2,"backoff_sec":3}}]}"#;

fn failed(permanent: bool) -> Body {
    Body::TaskFailed(TaskFailed {
        batch_uid: None,
        reason_code: "boom".into(),
        permanent,
        error: "it broke".into(),
        retry_after_ms: None,
    })
}

#[test]
fn a_batch_counts_once_however_often_it_arrives() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    let ok = event("t", "n", 1, 1, Body::BatchOk(batch("b1")));
    bench.arrive(vec![ok.clone(), ok.clone()]);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!((node.accepted, node.last_seq), (1, 1));
    assert_eq!(node.totals["n"].count, 1);
    let artifacts = commit
        .records
        .iter()
        .filter(|r| matches!(r, Record::Artifact(_)))
        .count();
    assert_eq!(artifacts, 1);
    bench.arrive(vec![ok]);
    bench.input(Input::Idle);
    assert_eq!(
        bench.out,
        [],
        "a copy changes nothing, so there is nothing to commit"
    );
}

#[test]
fn what_a_batch_marks_stays_the_nodes_result_unless_finalize_returns_another() {
    let marks = |uid: &str, text: &str| BatchOk {
        result: Json::parse(text).ok(),
        ..batch(uid)
    };
    for (finalized, stored) in [(None, "2"), (Some("3"), "3")] {
        let mut bench = Bench::owned();
        bench.submitted("t", ONE);
        let first = event("t", "n", 1, 1, Body::BatchOk(marks("b1", "1")));
        bench.arrive(vec![first]);
        let commit = bench.take_commit();
        let result = node_of(&commit, "n").result.as_ref();
        assert_eq!(result.map(Json::text), Some("1"), "with its batch");
        let Body::TaskDone(mut end) = done(2, 0, 0) else {
            panic!("a TASK_DONE");
        };
        end.last_batch = Some(marks("b2", "2"));
        end.result = finalized.and_then(|text| Json::parse(text).ok());
        bench.arrive(vec![event("t", "n", 1, 2, Body::TaskDone(end))]);
        let commit = bench.take_commit();
        let node = node_of(&commit, "n");
        assert_eq!(node.state, NodeState::Finished);
        assert_eq!(node.result.as_ref().map(Json::text), Some(stored));
    }
}

#[test]
fn a_gap_in_the_events_ends_the_grant_and_the_node_is_granted_anew() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 2, Body::BatchOk(batch("b2")))]);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.accepted, node.losses, node.lease_no),
        (0, 1, Token(2))
    );
    assert_eq!(node.epoch, epoch(1), "a loss begins no new attempt");
    assert_eq!(bench.sent_kinds(), ["TASK_START n 2"]);
}

#[test]
fn an_event_under_an_old_token_changes_nothing_and_is_told_so_once_a_second() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 2, Body::BatchOk(batch("b2")))]);
    bench.take_commit();
    let late = event("t", "n", 1, 1, Body::BatchOk(batch("b1")));
    bench.arrive(vec![late.clone(), late]);
    let [Effect::Transport { .. }] = bench.out[..] else {
        panic!("{:?}", bench.out)
    };
    assert!(matches!(
        &bench.sent()[..],
        [(to, Body::TaskCancel(cancel))] if to == "w1" && cancel.reason == CancelReason::Fenced
    ));
}

#[test]
fn a_token_from_the_future_means_that_this_owner_is_the_outdated_one() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 7, 1, Body::BatchOk(batch("b1")))]);
    assert_eq!(bench.out, [], "it stays silent");
}

#[test]
fn done_with_the_sum_of_what_is_accepted_finishes_node_and_task() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![
        event("t", "n", 1, 1, Body::BatchOk(batch("b1"))),
        event("t", "n", 1, 2, done(1, 0, 0)),
    ]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "n").state, NodeState::Finished);
    assert_eq!(
        (task_of(&commit).state, task_of(&commit).settled),
        (TaskState::Finished, true)
    );
    assert_eq!(bench.machine.tasks_in_flight(), 0);
}

#[test]
fn done_that_counts_too_much_lost_events_and_too_little_changed_its_input() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 1, done(1, 0, 0))]);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!((node.state, node.losses), (NodeState::Running, 1));
    bench.arrive(vec![
        event("t", "n", 2, 1, Body::BatchOk(batch("b1"))),
        event("t", "n", 2, 2, done(0, 0, 0)),
    ]);
    let commit = bench.take_commit();
    let failure = node_of(&commit, "n").failure.clone().expect("a failure");
    assert_eq!(&*failure.reason_code, "input_changed");
    assert_eq!(task_of(&commit).state, TaskState::Failed);
}

#[test]
fn a_failed_attempt_waits_its_backoff_and_begins_a_new_epoch() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 1, failed(false))]);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.state, node.wait_ms),
        (NodeState::Deferred, Some(3_000))
    );
    bench.pass(2_999);
    assert_eq!(bench.out, [], "no retry before its backoff");
    bench.pass(1);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.state, node.epoch, node.lease_no),
        (NodeState::Running, epoch(2), Token(2))
    );
    bench.arrive(vec![event("t", "n", 2, 1, failed(false))]);
    let commit = bench.take_commit();
    assert_eq!(
        node_of(&commit, "n").state,
        NodeState::Failed,
        "the policy's max is used up"
    );
}

#[test]
fn a_permanent_failure_is_not_tried_again() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    bench.arrive(vec![event("t", "n", 1, 1, failed(true))]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "n").state, NodeState::Failed);
    assert_eq!(task_of(&commit).state, TaskState::Failed);
    assert_eq!(
        task_of(&commit).failure.as_ref().map(|f| &*f.error),
        Some("it broke")
    );
}

#[test]
fn of_an_endless_failure_the_beginning_is_kept() {
    let endless: Arc<str> = "x".repeat(400 * 1024).into();
    for permanent in [true, false] {
        let mut bench = Bench::owned();
        bench.submitted("t", ONE);
        let body = Body::TaskFailed(TaskFailed {
            batch_uid: None,
            reason_code: endless.clone(),
            permanent,
            error: endless.clone(),
            retry_after_ms: None,
        });
        bench.arrive(vec![event("t", "n", 1, 1, body)]);
        let commit = bench.take_commit();
        let node = node_of(&commit, "n");
        let cause = &node.history.entries.last().expect("a transition").cause;
        assert!(cause.len() <= CAUSE_BYTES_MAX && cause.ends_with("x…"));
        assert_eq!(node.failure.is_some(), permanent);
        for failure in node.failure.iter().chain(&task_failure(&commit)) {
            assert_eq!(failure.reason_code.len(), REASON_CODE_BYTES_MAX);
            assert_eq!(failure.error.len(), ERROR_BYTES_MAX);
        }
    }
}

/// What the commit says of the task's failure.
fn task_failure(commit: &Commit) -> Option<Failure> {
    commit.records.iter().find_map(|record| match record {
        Record::Task(task) => task.failure.clone(),
        _ => None,
    })
}

#[test]
fn the_checkpoint_is_stored_with_the_number_of_batches_accepted() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    let mut second = batch("b2");
    second.checkpoint = Some(Json::parse("42").expect("JSON"));
    bench.arrive(vec![
        event("t", "n", 1, 1, Body::BatchOk(batch("b1"))),
        event("t", "n", 1, 2, Body::BatchOk(second)),
        event("t", "n", 1, 3, Body::BatchOk(batch("b3"))),
        event("t", "n", 1, 9, Body::BatchOk(batch("b9"))),
    ]);
    bench.take_commit();
    let [(_, Body::TaskStart(start))] = &bench.sent()[..] else {
        panic!("{:?}", bench.out)
    };
    assert_eq!(start.checkpoint, Some(Json::parse("42").expect("JSON")));
    assert_eq!((start.checkpoint_batches, start.accepted), (2, 3));
}

/// Each part of it is within its bounds. Sent, it would never arrive, and be sent for ever.
#[test]
fn a_node_whose_start_fits_into_no_message_fails_and_says_why() {
    let mut bench = Bench::owned();
    let input = "x".repeat(START_BYTES_MAX - 100);
    let graph = format!(
        r#"{{"nodes":[{{"node_id":"n","type":"a","retry_policy":{{"max":2,"backoff_sec":0}},
            "io":{{"input_inline":{{"x":"{input}"}}}}}}]}}"#
    );
    let half = "v".repeat(VARS_BYTES_MAX / 2 - 100);
    let vars = format!(r#"{{"v":"{half}","w":"{half}"}}"#);
    bench.submit_with("t", &graph, &vars);
    bench.input(Input::Idle);
    assert_eq!(bench.sent(), [], "nothing is refused");
    bench.take_commit();
    let name = |n: usize| Arc::from(format!("{n:03}{}", "m".repeat(250)));
    let ok = BatchOk {
        metrics: (0..250)
            .map(|n| (name(n), Json::encode(&n).expect("JSON")))
            .collect(),
        checkpoint: Json::encode(&"c".repeat(CHECKPOINT_BYTES_MAX - 10)).ok(),
        ..batch("b1")
    };
    bench.arrive(vec![
        event("t", "n", 1, 1, Body::BatchOk(ok)),
        event("t", "n", 1, 2, failed(false)),
    ]);
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    let failure = node.failure.as_ref().expect("it failed");
    assert_eq!(
        (node.state, &*failure.reason_code),
        (NodeState::Failed, "start_too_large")
    );
    assert!(failure.error.contains("join nodes"), "{}", failure.error);
    assert_eq!(node.grant, None);
    assert_eq!(task_of(&commit).state, TaskState::Failed);
    assert!(!bench.sent_kinds().iter().any(|kind| kind.contains("START")));
}
