//! Retention: what goes, in which order, and what keeps it.

use super::bench::*;
use crate::coordinator::Effect;
use crate::id::OpId;
use crate::message::{Body, Reply, ReplyError, RerunTask, TaskFailed};
use crate::port::{
    ErrorKind, ExpiredPage, ExpiredTask, PortError, Record, Removal, StoreReply, StoreRequest,
    TaskAnswer, TaskWithNodes,
};
use crate::record::{NodeState, TaskState};

const ONE: &str = r#"{"nodes":[{"node_id":"n","type":"a","retry_policy":{"max":1}}]}"#;

/// An owner that keeps finished tasks for a minute and looks every second.
fn owner() -> Bench {
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    config.retention_finished_ms = Some(60_000);
    config.sweep_interval_ms = 1_000;
    Bench::owned_with(config, Vec::new(), vec![worker_record("w1", 1, &["a"])])
}

fn store_of(bench: &Bench) -> (OpId, StoreRequest) {
    let requests: Vec<_> = bench
        .out
        .iter()
        .filter_map(|effect| match effect {
            Effect::Store { op, request } => Some((*op, request.clone())),
            _ => None,
        })
        .collect();
    let [request] = &requests[..] else {
        panic!("one request, not {requests:?}")
    };
    request.clone()
}

/// The time for a look comes.
fn look(bench: &mut Bench) -> OpId {
    bench.pass(1_000);
    let (op, request) = store_of(bench);
    let expected = StoreRequest::ReadExpired {
        shard: SHARD,
        failed: false,
        age_ms: 60_000,
        after: None,
        limit: 100,
    };
    assert_eq!(request, expected);
    op
}

fn page(tasks: &[(&str, bool)]) -> StoreReply {
    let task = |(id, pointed): &(&str, bool)| ExpiredTask {
        task_id: task_id(id),
        written_ms: 5,
        pointed: *pointed,
    };
    StoreReply::Expired(ExpiredPage {
        tasks: tasks.iter().map(task).collect(),
        more: false,
    })
}

fn ended(id: &str, accepted: u64) -> TaskWithNodes {
    let mut bench = Bench::owned();
    let commit = bench.submitted(id, ONE);
    let mut task = task_of(&commit).clone();
    (task.state, task.settled) = (TaskState::Finished, true);
    let mut node = node_of(&commit, "n").clone();
    (node.state, node.grant, node.accepted) = (NodeState::Finished, None, accepted);
    TaskWithNodes {
        task,
        nodes: vec![node],
        node_age_ms: vec![0],
    }
}

fn remains_of(bench: &Bench, id: &str) -> OpId {
    let (op, request) = store_of(bench);
    let task_id = task_id(id);
    assert_eq!(request, StoreRequest::ReadRemains { task_id });
    op
}

fn artifacts(id: &str, from: u64, to: u64) -> Record {
    Record::Remove(Removal::Artifacts {
        task_id: task_id(id),
        node_id: node_id("n"),
        from,
        to,
    })
}

fn nothing_left(id: &str) -> [Record; 2] {
    let task_id = task_id(id);
    let node = Removal::Node {
        task_id: task_id.clone(),
        node_id: node_id("n"),
    };
    [
        Record::Remove(node),
        Record::Remove(Removal::Task { task_id }),
    ]
}

fn refused(bench: &Bench) -> (ReplyError, String) {
    let reply = bench.sent().into_iter().find_map(|(_, body)| match body {
        Body::Reply(Reply { error, .. }) => error,
        _ => None,
    });
    let error = reply.expect("a refusal");
    (error.kind, error.message.to_string())
}

#[test]
fn a_tombstone_comes_first_then_the_children_and_the_task_goes_last() {
    let mut bench = owner();
    let op = look(&mut bench);
    bench.input(store_ok(op, page(&[("pointed", true), ("t", false)])));
    let op = remains_of(&bench, "t");
    let found = ended("t", 600);
    let hash = found.task.submission_hash;
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(found)))));
    let first = bench.take_commit().records;
    let Record::Tombstone(stone) = &first[0] else {
        panic!("{first:?}")
    };
    assert_eq!(
        (stone.submission_hash, stone.state),
        (hash, TaskState::Finished)
    );
    // Bounded steps.
    assert_eq!(first[1..], [artifacts("t", 1, 256)]);
    let second = bench.take_commit().records;
    assert_eq!(
        second[..2],
        [artifacts("t", 257, 512), artifacts("t", 513, 600)]
    );
    assert_eq!(second[2..], nothing_left("t"));
    bench.pass(1);
    assert_eq!(bench.out, []);
    look(&mut bench);
}

#[test]
fn a_sweep_that_another_owner_began_goes_on() {
    let mut bench = owner();
    let op = look(&mut bench);
    bench.input(store_ok(op, page(&[("t", false)])));
    let op = remains_of(&bench, "t");
    let mut found = ended("t", 3);
    found.nodes.clear();
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(found)))));
    let records = bench.take_commit().records;
    assert!(matches!(records[0], Record::Tombstone(_)), "{records:?}");
    assert_eq!(records[1..], nothing_left("t")[1..]);
}

#[test]
fn what_is_gone_or_cannot_be_read_is_left_alone() {
    let mut bench = owner();
    let op = look(&mut bench);
    let tasks = [("a", false), ("b", false), ("c", false)];
    bench.input(store_ok(op, page(&tasks)));
    let op = remains_of(&bench, "a");
    bench.input(store_ok(op, StoreReply::Task(None)));
    let op = remains_of(&bench, "b");
    let rotten = PortError::new(ErrorKind::Corrupt, "read_remains", "rotten");
    bench.input(store_error(op, rotten));
    let op = remains_of(&bench, "c");
    let mut live = ended("c", 1);
    live.task.settled = false;
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(live)))));
    assert_eq!(bench.out, []);
    // A store that is away is asked again later.
    let op = look(&mut bench);
    bench.input(store_error(
        op,
        PortError::new(ErrorKind::Retry, "read_expired", "away"),
    ));
    assert_eq!(bench.out, []);
    look(&mut bench);
}

#[test]
fn nothing_is_looked_for_without_retention() {
    let mut bench = Bench::owned();
    bench.pass(100_000);
    assert_eq!(bench.out, []);
}

#[test]
fn a_swept_id_is_answered_from_its_tombstone() {
    let mut bench = owner();
    let stone = |hash| TaskAnswer {
        submission_hash: hash,
        state: TaskState::Finished,
        settled: true,
        failure: None,
        swept: true,
    };
    let asked = |bench: &mut Bench, message, answers: Vec<Option<TaskAnswer>>| {
        bench.arrive(vec![message]);
        let (op, _) = store_of(bench);
        bench.input(store_ok(op, StoreReply::Answers(answers)));
    };
    let hash = ended("t", 0).task.submission_hash;
    asked(&mut bench, submit("t", ONE), vec![Some(stone(hash))]);
    let reply = bench.sent().into_iter().find_map(|(_, body)| match body {
        Body::Reply(reply) => Some(reply),
        _ => None,
    });
    let reply = reply.expect("an answer");
    assert_eq!((reply.ok, reply.state), (true, Some(TaskState::Finished)));
    asked(&mut bench, submit("t", ONE), vec![Some(stone(hash + 1))]);
    assert_eq!(refused(&bench).0, ReplyError::IdempotencyConflict);
    let rerun = Body::RerunTask(RerunTask {
        of: task_id("t"),
        from: Vec::new(),
        all: true,
        inbox: 0,
    });
    asked(
        &mut bench,
        client("r", rerun),
        vec![None, Some(stone(hash))],
    );
    let (kind, text) = refused(&bench);
    assert_eq!(kind, ReplyError::Swept);
    assert!(text.contains("retention ended"), "{text}");
}

#[test]
fn a_task_that_a_rerun_is_about_to_keep_is_not_swept() {
    let mut bench = owner();
    let op = look(&mut bench);
    // A rerun comes while the store answers; its commit is not made yet.
    let rerun = Body::RerunTask(RerunTask {
        of: task_id("t"),
        from: Vec::new(),
        all: true,
        inbox: 0,
    });
    bench.arrive(vec![client("r", rerun)]);
    let (lookup, _) = store_of(&bench);
    let source = ended("t", 2);
    let known = TaskAnswer {
        submission_hash: 1,
        state: TaskState::Finished,
        settled: true,
        failure: None,
        swept: false,
    };
    bench.input(store_ok(
        lookup,
        StoreReply::Answers(vec![None, Some(known)]),
    ));
    let (read, _) = store_of(&bench);
    bench.input(store_ok(op, page(&[("t", false)])));
    assert_eq!(bench.out, [], "it is about to be pointed to");
    bench.input(store_ok(read, StoreReply::Task(Some(Box::new(source)))));
    let commit = bench.take_commit();
    assert!(task_of(&commit).rerun.is_some());
    // And while the rerun is in memory.
    let op = look(&mut bench);
    bench.input(store_ok(op, page(&[("t", false)])));
    assert_eq!(bench.out, []);
}

#[test]
fn staged_bodies_of_a_task_that_had_trouble_are_looked_at_once_it_is_settled() {
    let mut bench = Bench::owned();
    bench.submitted("t", ONE);
    let failed = Body::TaskFailed(TaskFailed {
        batch_uid: None,
        reason_code: "bad_input".into(),
        permanent: true,
        error: "".into(),
        retry_after_ms: None,
    });
    bench.arrive(vec![event("t", "n", 1, 1, failed)]);
    bench.take_commit();
    let (op, request) = store_of(&bench);
    let expected = StoreRequest::SweepStaged {
        task_id: task_id("t"),
        after: None,
        limit: 256,
    };
    assert_eq!(request, expected);
    let done = StoreReply::Swept {
        removed: 0,
        next: None,
    };
    bench.input(store_ok(op, done));
    assert_eq!(bench.out, []);
    // One that ended well at once has left none.
    bench.submitted("u", ONE);
    bench.arrive(vec![event("u", "n", 1, 1, done_with(0))]);
    bench.take_commit();
    let asks = |effect: &Effect| matches!(effect, Effect::Store { .. });
    assert!(!bench.out.iter().any(asks), "{:?}", bench.out);
}

#[test]
fn what_fails_holds_up_no_other_task_and_no_later_look() {
    let away = || PortError::new(ErrorKind::Unknown, "read", "no answer");
    let mut bench = owner();
    let op = look(&mut bench);
    bench.input(store_ok(op, page(&[("t", false), ("u", false)])));
    let op = remains_of(&bench, "t");
    bench.input(store_error(op, away()));
    assert_eq!(bench.out, [], "a pause first");
    bench.pass(1_000);
    let op = remains_of(&bench, "u");
    bench.input(store_ok(op, StoreReply::Task(None)));
    // A body of which the artifact cannot be read is left where it is.
    let mut bench = owner();
    bench.submitted("v", ONE);
    let failed = Body::TaskFailed(TaskFailed {
        batch_uid: None,
        reason_code: "bad_input".into(),
        permanent: true,
        error: "".into(),
        retry_after_ms: None,
    });
    bench.arrive(vec![event("v", "n", 1, 1, failed)]);
    bench.take_commit();
    let (op, request) = store_of(&bench);
    assert!(
        matches!(request, StoreRequest::SweepStaged { .. }),
        "{request:?}"
    );
    let corrupt = PortError::new(ErrorKind::Corrupt, "sweep", "not to be read");
    bench.input(store_error(op, corrupt));
    look(&mut bench);
}

fn done_with(new: u64) -> Body {
    done(new, 0, 0)
}
