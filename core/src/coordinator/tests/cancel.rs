//! Cancel: acknowledged means that nothing of the task starts any more.

use super::bench::*;
use crate::message::{
    Body, CancelReason, CancelTask, Cancelled, ControlTask, MESSAGE_BYTES_MAX, ReleaseReason,
    TaskReleased,
};
use crate::port::{Commit, Record};
use crate::record::{CAUSE_BYTES_MAX, NodeState, TaskState};

const CHAIN: &str =
    r#"{"nodes":[{"node_id":"a","type":"a"},{"node_id":"b","type":"a","depends_on":["a"]}]}"#;

fn cancel() -> Body {
    Body::CancelTask(CancelTask {
        reason: "enough".into(),
        grace_ms: Some(2_000),
        inbox: 0,
    })
}

#[test]
fn a_cancel_is_acknowledged_after_its_commit_and_told_to_what_runs() {
    let mut bench = Bench::owned();
    bench.submitted("t", CHAIN);
    bench.arrive(vec![client("t", cancel())]);
    assert!(bench.sent().is_empty());
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Cancelling);
    assert_eq!(node_of(&commit, "b").state, NodeState::Cancelled);
    let told = node_of(&commit, "a")
        .grant
        .as_ref()
        .and_then(|g| g.cancel)
        .expect("told");
    assert_eq!(
        (told.reason, told.grace_ms),
        (CancelReason::UserRequest, 2_000)
    );
    assert_eq!(bench.sent_kinds(), ["TASK_CANCEL a 1", "REPLY - 0"]);
    let body = Body::Cancelled(Cancelled {
        reason: CancelReason::UserRequest,
    });
    bench.arrive(vec![event("t", "a", 1, 1, body)]);
    let commit = bench.take_commit();
    assert_eq!(
        (task_of(&commit).state, task_of(&commit).settled),
        (TaskState::Cancelled, true)
    );
}

#[test]
fn the_end_of_the_last_node_before_the_cancel_in_the_stream_wins() {
    let mut bench = Bench::owned();
    bench.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    bench.arrive(vec![
        event("t", "n", 1, 1, done(0, 0, 0)),
        client("t", cancel()),
    ]);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Finished);
}

#[test]
fn the_end_of_the_last_node_after_the_cancel_leaves_the_task_cancelled() {
    let mut bench = Bench::owned();
    bench.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    bench.arrive(vec![
        client("t", cancel()),
        event("t", "n", 1, 1, done(0, 0, 0)),
    ]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "n").state, NodeState::Finished);
    assert_eq!(task_of(&commit).state, TaskState::Cancelled);
}

#[test]
fn a_run_released_while_the_task_is_cancelling_is_not_granted_again() {
    let mut bench = Bench::owned();
    bench.submitted("t", CHAIN);
    let released = Body::TaskReleased(TaskReleased {
        reason: ReleaseReason::Shutdown,
    });
    bench.arrive(vec![client("t", cancel()), event("t", "a", 1, 1, released)]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "a").state, NodeState::Cancelled);
    assert_eq!(bench.sent_kinds(), ["TASK_CANCEL a 1", "REPLY - 0"]);
}

#[test]
fn a_cancel_is_repeated_until_the_run_ends() {
    let mut bench = Bench::owned();
    bench.submitted("t", CHAIN);
    bench.arrive(vec![beat("t", "a", 1), client("t", cancel())]);
    bench.take_commit();
    bench.pass(500);
    assert_eq!(bench.sent_kinds(), ["TASK_CANCEL a 1"]);
    bench.pass(1_000);
    assert_eq!(bench.sent_kinds(), ["TASK_CANCEL a 1"]);
}

/// A reason as long as a message can carry it, of characters of two bytes.
fn endless() -> std::sync::Arc<str> {
    "ü".repeat((MESSAGE_BYTES_MAX - 8 * 1024) / 2).into()
}

/// The causes of the newest transitions in a commit, which keep to their bound.
fn causes(commit: &Commit) -> Vec<String> {
    let newest = commit.records.iter().filter_map(|record| match record {
        Record::Task(task) => Some(task.history.entries.last()?.cause.to_string()),
        Record::Node(node) => Some(node.history.entries.last()?.cause.to_string()),
        _ => None,
    });
    let causes: Vec<String> = newest.collect();
    assert!(causes.iter().all(|cause| cause.len() <= CAUSE_BYTES_MAX));
    causes
}

#[test]
fn of_an_endless_reason_for_a_cancel_the_beginning_is_kept_in_every_record() {
    let mut bench = Bench::owned();
    let nodes = (0..50).map(|n| format!(r#"{{"node_id":"n{n}","type":"nobody"}}"#));
    let nodes: Vec<String> = nodes.collect();
    bench.submitted("t", &format!(r#"{{"nodes":[{}]}}"#, nodes.join(",")));
    let Body::CancelTask(mut request) = cancel() else {
        unreachable!("a cancel")
    };
    request.reason = endless();
    bench.arrive(vec![client("t", Body::CancelTask(request))]);
    let causes = causes(&bench.take_commit());
    assert_eq!(causes.len(), 51);
    for cause in causes
        .iter()
        .filter(|cause| *cause != "every run has ended")
    {
        assert!(
            cause.starts_with("cancelled: ü") && cause.ends_with("ü…"),
            "{cause}"
        );
    }
}

#[test]
fn of_an_endless_reason_for_a_pause_the_beginning_is_kept() {
    let mut bench = Bench::owned();
    bench.submitted("t", CHAIN);
    let control = ControlTask {
        control_no: 1,
        reason: endless(),
        inbox: 0,
    };
    bench.arrive(vec![client("t", Body::PauseTask(control))]);
    let causes = causes(&bench.take_commit());
    assert!(
        causes[0].starts_with("paused: ü") && causes[0].ends_with("ü…"),
        "{causes:?}"
    );
}
