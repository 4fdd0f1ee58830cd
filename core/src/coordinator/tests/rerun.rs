//! Running a settled task again.

use super::bench::*;
use crate::coordinator::Effect;
use crate::id::OpId;
use crate::message::{
    Body, CancelTask, Envelope, Reply, ReplyError, RerunTask, SourceState, TaskFailed, WaitTask,
};
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest, TaskAnswer, TaskWithNodes};
use crate::record::{NodeState, TaskState};

/// `a -> b -> c`, and `d` alone; `b` reads `a`.
const GRAPH: &str = r#"{"nodes":[
    {"node_id":"a","type":"a"},
    {"node_id":"b","type":"b","depends_on":["a"],"retry_policy":{"max":1},
     "io":{"input_inline":{"input_adapter":"pull.from_artifacts","input_args":{"from_node":"a"}}}},
    {"node_id":"c","type":"a","depends_on":["b"]},
    {"node_id":"d","type":"a"}]}"#;

pub(super) fn rerun(of: &str, from: &[&str], all: bool) -> Body {
    Body::RerunTask(RerunTask {
        of: task_id(of),
        from: from.iter().map(|node| node_id(node)).collect(),
        all,
        inbox: 0,
    })
}

/// A task as the store has it, its nodes in these states.
fn stored(id: &str, state: TaskState, states: [NodeState; 4]) -> TaskWithNodes {
    let mut bench = Bench::owned();
    let commit = bench.submitted(id, GRAPH);
    let mut task = task_of(&commit).clone();
    (task.state, task.settled) = (state, true);
    let mut nodes: Vec<_> = ["a", "b", "c", "d"]
        .map(|node| node_of(&commit, node).clone())
        .into();
    for (node, state) in nodes.iter_mut().zip(states) {
        node.grant = None;
        node.state = state;
        node.accepted = 2 * u64::from(state == NodeState::Finished);
    }
    TaskWithNodes {
        node_age_ms: vec![0; nodes.len()],
        task,
        nodes,
    }
}

fn failed() -> TaskWithNodes {
    use NodeState::{Failed, Finished, Skipped};
    stored(
        "t",
        TaskState::Failed,
        [Finished, Failed, Skipped, Finished],
    )
}

fn lookup(bench: &Bench) -> (OpId, Vec<String>) {
    let find = |effect: &Effect| match effect {
        Effect::Store {
            op,
            request: StoreRequest::LookupTasks { tasks },
        } => Some((*op, tasks.iter().map(ToString::to_string).collect())),
        _ => None,
    };
    bench.out.iter().find_map(find).expect("a lookup")
}

pub(super) fn source_read(bench: &Bench) -> OpId {
    let find = |effect: &Effect| match effect {
        Effect::Store {
            op,
            request: StoreRequest::ReadRemains { .. },
        } => Some(*op),
        _ => None,
    };
    bench
        .out
        .iter()
        .find_map(find)
        .expect("a read of the source")
}

fn known(task: &TaskWithNodes) -> TaskAnswer {
    TaskAnswer {
        submission_hash: task.task.submission_hash,
        state: task.task.state,
        settled: task.task.settled,
        failure: None,
        swept: false,
    }
}

/// A rerun arrives; the store knows its source, and not its id.
pub(super) fn asked(bench: &mut Bench, id: &str, body: Body, source: Option<&TaskWithNodes>) {
    bench.arrive(vec![client(id, body)]);
    let (op, tasks) = lookup(bench);
    let answers = tasks.iter().map(|task| {
        let source = source.filter(|source| source.task.task_id.as_str() == task);
        source.map(known)
    });
    bench.input(store_ok(op, StoreReply::Answers(answers.collect())));
}

pub(super) fn made(
    bench: &mut Bench,
    id: &str,
    body: Body,
    source: &TaskWithNodes,
) -> crate::port::Commit {
    asked(bench, id, body, Some(source));
    let op = source_read(bench);
    bench.input(store_ok(
        op,
        StoreReply::Task(Some(Box::new(source.clone()))),
    ));
    bench.take_commit()
}

fn states(commit: &crate::port::Commit) -> [(NodeState, bool); 4] {
    ["a", "b", "c", "d"].map(|node| {
        let node = node_of(commit, node);
        (node.state, node.kept_from.is_some())
    })
}

fn reply(bench: &Bench) -> Reply {
    let replies: Vec<_> = bench
        .sent()
        .into_iter()
        .filter_map(|(to, body)| match body {
            Body::Reply(reply) if to == "client" => Some(reply),
            _ => None,
        })
        .collect();
    let [reply] = &replies[..] else {
        panic!("one reply, not {replies:?} in {:?}", bench.out)
    };
    reply.clone()
}

pub(super) fn refusal(bench: &Bench) -> (ReplyError, String) {
    let error = reply(bench).error.expect("a refusal");
    (error.kind, error.message.to_string())
}

#[test]
fn what_finished_is_kept_and_the_rest_runs_again() {
    let mut bench = Bench::owned();
    let source = failed();
    asked(&mut bench, "r", rerun("t", &[], false), Some(&source));
    assert_eq!(
        bench.out,
        [Effect::Store {
            op: source_read(&bench),
            request: StoreRequest::ReadRemains {
                task_id: task_id("t")
            },
        }]
    );
    let op = source_read(&bench);
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(source)))));
    let commit = bench.take_commit();
    use NodeState::{Finished, Queued, Running};
    assert_eq!(
        states(&commit),
        [
            (Finished, true),
            (Running, false),
            (Queued, false),
            (Finished, true)
        ]
    );
    let task = task_of(&commit);
    let points = task.rerun.as_ref().expect("a rerun");
    assert_eq!(
        (points.of.as_str(), &points.holds[..]),
        ("t", &[task_id("t")][..])
    );
    let kept = node_of(&commit, "a");
    assert_eq!((kept.accepted, kept.lease_no.0), (2, 0));
    assert_eq!(bench.sent_kinds(), ["REPLY - 0", "TASK_START b 1"]);
    assert_eq!(reply(&bench).state, Some(TaskState::Queued));
    let start = bench.sent().into_iter().find_map(|(_, body)| match body {
        Body::TaskStart(start) => Some(start),
        _ => None,
    });
    assert_eq!(
        start.expect("a START").sources,
        [SourceState {
            node_id: node_id("a"),
            last: 2,
            ended: true,
            kept_from: Some(task_id("t")),
        }]
    );
}

#[test]
fn named_nodes_run_again_with_everything_below_them() {
    use NodeState::{Finished, Queued, Running};
    let source = || stored("t", TaskState::Finished, [Finished; 4]);
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &["b"], false), &source());
    let (kept, run) = ((Finished, true), (Running, false));
    assert_eq!(states(&commit), [kept, run, (Queued, false), kept]);

    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &[], true), &source());
    let waits = (Queued, false);
    assert_eq!(states(&commit), [run, waits, waits, run]);
    let points = task_of(&commit).rerun.clone().expect("a rerun");
    assert_eq!(points.holds, [task_id("t")]);
}

#[test]
fn a_rerun_of_a_rerun_points_to_where_the_batches_are() {
    let mut source = failed();
    source.nodes[0].kept_from = Some(task_id("first"));
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &[], false), &source);
    assert_eq!(node_of(&commit, "a").kept_from, Some(task_id("first")));
    assert_eq!(node_of(&commit, "d").kept_from, Some(task_id("t")));
    let points = task_of(&commit).rerun.clone().expect("a rerun");
    assert_eq!(points.holds, [task_id("first"), task_id("t")]);
}

#[test]
fn the_same_rerun_again_is_answered_from_state_and_another_one_conflicts() {
    let mut bench = Bench::owned();
    let source = failed();
    made(&mut bench, "r", rerun("t", &["c", "d"], false), &source);
    // The order of the names says nothing.
    bench.arrive(vec![client("r", rerun("t", &["d", "c", "d"], false))]);
    assert_eq!(reply(&bench).state, Some(TaskState::Running));
    for other in [rerun("t", &["c"], false), rerun("u", &["c", "d"], false)] {
        bench.arrive(vec![client("r", other)]);
        assert_eq!(refusal(&bench).0, ReplyError::IdempotencyConflict);
    }
    bench.arrive(vec![submit("r", GRAPH)]);
    assert_eq!(refusal(&bench).0, ReplyError::IdempotencyConflict);
    // A late copy, when the rerun has left memory: the store knows it.
    let mut bench = Bench::owned();
    let mut known = failed();
    known.task.task_id = task_id("r");
    asked(&mut bench, "r", rerun("t", &[], false), Some(&known));
    assert_eq!(refusal(&bench).0, ReplyError::IdempotencyConflict);
}

#[test]
fn copies_that_arrive_together_make_one_task() {
    let mut bench = Bench::owned();
    let copy = |corr: &str| {
        let mut copy: Envelope = client("r", rerun("t", &[], false));
        copy.corr_id = Some(corr.into());
        copy
    };
    bench.arrive(vec![copy("1"), copy("2")]);
    let (op, _) = lookup(&bench);
    let source = failed();
    // Sorted by id: `r`, `t`.
    let answers = vec![None, Some(known(&source))];
    bench.input(store_ok(op, StoreReply::Answers(answers)));
    let op = source_read(&bench);
    // A third one comes meanwhile: it waits for a lookup of its own.
    bench.arrive(vec![copy("3")]);
    let (late, _) = lookup(&bench);
    let answers = vec![None, Some(known(&source))];
    bench.input(store_ok(late, StoreReply::Answers(answers)));
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(source)))));
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).task_id, task_id("r"));
    let replies = bench.sent_kinds();
    let replies = replies.iter().filter(|kind| kind.starts_with("REPLY"));
    assert_eq!(replies.count(), 3);
}

/// A rerun is made and ends while the store is slow to answer a lookup that it began before.
fn made_and_gone(bench: &mut Bench) -> (OpId, TaskWithNodes) {
    let source = failed();
    asked(bench, "r", rerun("t", &[], false), Some(&source));
    let read = source_read(bench);
    bench.arrive(vec![client("r", rerun("t", &[], false))]);
    let (late, _) = lookup(bench);
    bench.input(store_ok(
        read,
        StoreReply::Task(Some(Box::new(source.clone()))),
    ));
    bench.take_commit();
    bench.arrive(vec![event("r", "b", 1, 1, not_at_all())]);
    bench.take_commit();
    assert_eq!(bench.machine.tasks_in_flight(), 0, "{:?}", bench.out);
    (late, source)
}

fn not_at_all() -> Body {
    Body::TaskFailed(TaskFailed {
        batch_uid: None,
        reason_code: "bad_input".into(),
        permanent: true,
        error: "no".into(),
        retry_after_ms: None,
    })
}

#[test]
fn an_answer_of_the_store_from_before_a_task_was_made_and_ended_makes_it_no_second_time() {
    let mut bench = Bench::owned();
    let (late, source) = made_and_gone(&mut bench);
    let answers = vec![None, Some(known(&source))];
    bench.input(store_ok(late, StoreReply::Answers(answers)));
    // It is asked again, and the store knows it now.
    let (op, tasks) = lookup(&bench);
    assert_eq!(tasks, ["r", "t"]);
    let mut ended = known(&source);
    ended.submission_hash = crate::coordinator::rerun::hash_of(&RerunTask {
        of: task_id("t"),
        from: Vec::new(),
        all: false,
        inbox: 0,
    });
    let answers = vec![Some(ended), Some(known(&source))];
    bench.input(store_ok(op, StoreReply::Answers(answers)));
    assert_eq!(reply(&bench).state, Some(TaskState::Failed));
    assert_eq!(bench.machine.tasks_in_flight(), 0);
}

#[test]
fn a_source_that_settles_while_it_is_looked_up_is_looked_up_again() {
    let mut bench = Bench::owned();
    bench.submitted("t", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    bench.arrive(vec![client("r", rerun("t", &[], false))]);
    let (late, tasks) = lookup(&bench);
    assert_eq!(tasks, ["r", "t"]);
    bench.arrive(vec![event("t", "n", 1, 1, not_at_all())]);
    bench.take_commit();
    // Both answers are of the time before the task was stored.
    bench.input(store_ok(late, StoreReply::Answers(vec![None, None])));
    let (op, tasks) = lookup(&bench);
    assert_eq!(
        tasks,
        ["r", "t"],
        "and nobody was told that there is no such task"
    );
    let source = failed();
    let answers = vec![None, Some(known(&source))];
    bench.input(store_ok(op, StoreReply::Answers(answers)));
    source_read(&bench);
}

#[test]
fn a_rerun_over_which_the_machine_broke_is_refused_from_then_on() {
    let mut bench = Bench::owned();
    // What the machine before this one was handling when it panicked.
    let shard = bench.machine.slots[0].owned().expect("an owner");
    shard.quarantine.insert(task_id("r"));
    let source = failed();
    asked(&mut bench, "r", rerun("t", &[], false), Some(&source));
    let read = source_read(&bench);
    bench.input(store_ok(read, StoreReply::Task(Some(Box::new(source)))));
    let (kind, text) = refusal(&bench);
    assert_eq!(kind, ReplyError::Invalid);
    assert!(text.contains("name it in `from`"), "{text}");
}

#[test]
fn what_cannot_be_run_again_is_refused_with_the_reason() {
    use NodeState::Finished;
    let quarantined = stored("t", TaskState::Quarantined, [Finished; 4]);
    let mut bench = Bench::owned();
    asked(&mut bench, "r", rerun("t", &[], false), None);
    let (kind, text) = refusal(&bench);
    assert_eq!(kind, ReplyError::NotFound);
    assert!(text.contains("no task t"), "{text}");

    asked(&mut bench, "r", rerun("t", &[], false), Some(&quarantined));
    let (kind, text) = refusal(&bench);
    assert_eq!(kind, ReplyError::Invalid);
    assert!(text.contains("set aside"), "{text}");

    asked(&mut bench, "r", rerun("t", &["a"], true), Some(&failed()));
    assert!(refusal(&bench).1.contains("`all`"));

    // Nothing is left to be done.
    let finished = stored("t", TaskState::Finished, [Finished; 4]);
    for (body, says) in [
        (rerun("t", &[], false), "every node"),
        (rerun("t", &["nowhere", "a"], false), "unknown nodes"),
    ] {
        asked(&mut bench, "r", body, Some(&finished));
        let op = source_read(&bench);
        bench.input(store_ok(
            op,
            StoreReply::Task(Some(Box::new(finished.clone()))),
        ));
        let (kind, text) = refusal(&bench);
        assert_eq!(kind, ReplyError::Invalid);
        assert!(text.contains(says), "{text}");
    }
    let faults = reply(&bench).error.expect("a refusal").faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("nowhere"), "{faults:?}");

    asked(&mut bench, "r", rerun("t", &[], false), Some(&failed()));
    let op = source_read(&bench);
    let rotten = PortError::new(ErrorKind::Corrupt, "read_task", "rotten");
    bench.input(store_error(op, rotten));
    assert_eq!(refusal(&bench).0, ReplyError::Invalid);
}

#[test]
fn a_task_that_has_not_ended_is_not_run_again() {
    let mut bench = Bench::owned();
    bench.submitted("t", GRAPH);
    let mut live = failed();
    (live.task.state, live.task.settled) = (TaskState::Running, false);
    asked(&mut bench, "r", rerun("t", &[], false), Some(&live));
    let (kind, text) = refusal(&bench);
    assert_eq!(kind, ReplyError::NotSettled);
    assert!(text.contains("has not ended"), "{text}");
    // Told to end, and not there yet.
    let cancel = CancelTask {
        reason: "".into(),
        grace_ms: None,
        inbox: 0,
    };
    bench.arrive(vec![client("t", Body::CancelTask(cancel))]);
    bench.take_commit();
    asked(&mut bench, "r", rerun("t", &[], false), Some(&live));
    assert_eq!(refusal(&bench).0, ReplyError::NotSettled);
}

#[test]
fn a_source_that_is_not_durable_yet_is_read_again() {
    let mut bench = Bench::owned();
    let source = failed();
    asked(&mut bench, "r", rerun("t", &[], false), Some(&source));
    let mut before = source.clone();
    before.task.settled = false;
    let op = source_read(&bench);
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(before)))));
    assert_eq!(bench.out, []);
    bench.pass(1_000);
    let (op, _) = lookup(&bench);
    let answers = vec![None, Some(known(&source))];
    bench.input(store_ok(op, StoreReply::Answers(answers)));
    let op = source_read(&bench);
    bench.input(store_ok(op, StoreReply::Task(Some(Box::new(source)))));
    assert!(task_of(&bench.take_commit()).rerun.is_some());
}

#[test]
fn a_question_that_comes_during_a_lookup_is_not_answered_by_it() {
    let wait = || client("r", Body::WaitTask(WaitTask { inbox: 0 }));
    let mut bench = Bench::owned();
    bench.arrive(vec![wait()]);
    let (op, tasks) = lookup(&bench);
    assert_eq!(tasks, ["r"]);
    // Another owner may have made the task after the store looked, and before this one was asked.
    bench.arrive(vec![wait()]);
    bench.input(store_ok(op, StoreReply::Answers(vec![None])));
    assert_eq!(refusal(&bench).0, ReplyError::NotFound, "the first one");
    assert_eq!(bench.sent_kinds().len(), 1, "and only that one");
    let (op, tasks) = lookup(&bench);
    assert_eq!(tasks, ["r"], "the second one is looked up");
    let source = stored("r", TaskState::Failed, [NodeState::Finished; 4]);
    let answers = vec![Some(known(&source))];
    bench.input(store_ok(op, StoreReply::Answers(answers)));
    let replies = bench.sent().into_iter().filter_map(|(_, body)| match body {
        Body::Reply(reply) => Some(reply.state),
        _ => None,
    });
    assert_eq!(replies.collect::<Vec<_>>(), [Some(TaskState::Failed)]);
}
