//! Pause and resume: while a task is held back no grant of it is made, and copies change nothing.

use super::bench::*;
use crate::message::{Body, CancelTask, ControlTask, Envelope, ReleaseReason, TaskReleased};
use crate::port::TaskWithNodes;
use crate::record::{NodeState, TaskState};

const TWO: &str =
    r#"{"nodes":[{"node_id":"a","type":"a"},{"node_id":"b","type":"a","depends_on":["a"]}]}"#;

fn control(no: u64) -> ControlTask {
    ControlTask {
        control_no: no,
        reason: "deploy".into(),
        inbox: 0,
    }
}

fn pause(no: u64) -> Envelope {
    client("t", Body::PauseTask(control(no)))
}

fn resume(no: u64) -> Envelope {
    client("t", Body::ResumeTask(control(no)))
}

/// The states that the replies in `out` name.
fn answered(bench: &Bench) -> Vec<Option<TaskState>> {
    let replies = bench.sent().into_iter();
    let states = replies.filter_map(|(_, body)| match body {
        Body::Reply(reply) => Some(reply.state),
        _ => None,
    });
    states.collect()
}

#[test]
fn a_pause_is_answered_after_its_commit_and_what_becomes_ready_waits_for_the_resume() {
    let mut bench = Bench::owned();
    bench.submitted("t", TWO);
    bench.arrive(vec![beat("t", "a", 1), pause(1)]);
    assert!(bench.sent().is_empty());
    let commit = bench.take_commit();
    let task = task_of(&commit);
    assert_eq!((task.state, task.control.no), (TaskState::Paused, 1));
    assert_eq!(
        task.history.entries.last().expect("one").cause,
        "paused: deploy"
    );
    assert_eq!(answered(&bench), [Some(TaskState::Paused)]);
    // What runs goes on to its end.
    bench.arrive(vec![event("t", "a", 1, 1, done(0, 0, 0))]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "a").state, NodeState::Finished);
    assert_eq!(node_of(&commit, "b").state, NodeState::Ready);
    assert!(bench.sent().is_empty());
    bench.arrive(vec![resume(2)]);
    let commit = bench.take_commit();
    let task = task_of(&commit);
    assert_eq!((task.state, task.control.no), (TaskState::Running, 2));
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START b 1"]);
}

#[test]
fn a_task_that_is_paused_before_its_first_grant_goes_back_to_queued() {
    let mut bench = Bench::owned_with(
        {
            let mut config = config();
            config.shard_lease_ttl_ms = 1_000_000;
            config
        },
        Vec::new(),
        Vec::new(),
    );
    bench.submitted("t", TWO);
    bench.arrive(vec![pause(1)]);
    bench.take_commit();
    bench.arrive(vec![resume(2)]);
    assert_eq!(task_of(&bench.take_commit()).state, TaskState::Queued);
}

#[test]
fn a_request_that_is_not_the_next_one_is_answered_from_state() {
    let mut bench = Bench::owned();
    bench.submitted("t", TWO);
    for no in [0, 2, u64::MAX] {
        bench.arrive(vec![pause(no)]);
        assert_eq!(answered(&bench), [Some(TaskState::Running)], "number {no}");
    }
    bench.arrive(vec![
        pause(1),
        pause(1),
        resume(1),
        pause(2),
        resume(2),
        pause(1),
        resume(2),
    ]);
    let commit = bench.take_commit();
    let task = task_of(&commit);
    assert_eq!((task.state, task.control.no), (TaskState::Running, 2));
    let (paused, running) = (Some(TaskState::Paused), Some(TaskState::Running));
    assert_eq!(
        answered(&bench),
        [paused, paused, paused, paused, running, running, running]
    );
}

#[test]
fn a_run_that_ends_early_while_its_task_is_paused_is_granted_after_the_resume() {
    let mut bench = Bench::owned();
    bench.submitted("t", TWO);
    let released = Body::TaskReleased(TaskReleased {
        reason: ReleaseReason::Shutdown,
    });
    bench.arrive(vec![pause(1), event("t", "a", 1, 1, released)]);
    let commit = bench.take_commit();
    assert_eq!(node_of(&commit, "a").state, NodeState::Ready);
    assert_eq!(bench.sent_kinds(), ["REPLY - 0"]);
    bench.arrive(vec![resume(2)]);
    bench.take_commit();
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START a 2"]);
}

#[test]
fn a_paused_task_can_be_cancelled_and_then_not_be_resumed() {
    let mut bench = Bench::owned();
    bench.submitted("t", TWO);
    let cancel = Body::CancelTask(CancelTask {
        reason: "".into(),
        grace_ms: None,
        inbox: 0,
    });
    bench.arrive(vec![pause(1), client("t", cancel), resume(2)]);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).state, TaskState::Cancelling);
    assert_eq!(task_of(&commit).control.no, 1);
}

#[test]
fn a_task_finishes_while_it_is_paused_if_nothing_of_it_is_left() {
    let mut bench = Bench::owned();
    bench.submitted("t", r#"{"nodes":[{"node_id":"a","type":"a"}]}"#);
    bench.arrive(vec![pause(1), event("t", "a", 1, 1, done(0, 0, 0))]);
    assert_eq!(task_of(&bench.take_commit()).state, TaskState::Finished);
    // It is not in memory any more: the store answers.
    bench.arrive(vec![resume(2)]);
    bench.unknown_tasks();
    let (_, body) = bench.sent().pop().expect("an answer");
    let Body::Reply(reply) = body else {
        panic!("{body:?}")
    };
    assert_eq!(
        reply.error.map(|error| error.kind),
        Some(crate::message::ReplyError::NotFound)
    );
}

#[test]
fn a_new_owner_makes_no_grant_of_a_paused_task() {
    let mut bench = Bench::owned();
    bench.submitted("t", TWO);
    bench.arrive(vec![pause(1), event("t", "a", 1, 1, done(0, 0, 0))]);
    let commit = bench.take_commit();
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    let stored = TaskWithNodes {
        task: task_of(&commit).clone(),
        nodes: vec![node_of(&commit, "a").clone(), node_of(&commit, "b").clone()],
        node_age_ms: vec![0, 0],
    };
    let workers = vec![worker_record("w1", 1, &["a", "b"])];
    let mut bench = Bench::owned_with(config, vec![stored], workers);
    bench.pass(10);
    assert!(bench.sent().is_empty(), "{:?}", bench.out);
    bench.arrive(vec![resume(2)]);
    bench.take_commit();
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START b 1"]);
}
