//! Cancel: acknowledged means that nothing of the task starts any more.

use super::bench::*;
use crate::message::{Body, CancelReason, CancelTask, Cancelled, ReleaseReason, TaskReleased};
use crate::record::{NodeState, TaskState};

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
