//! Records that cannot be read: each costs its task, and nothing else.

use std::sync::Arc;

use super::bench::*;
use crate::coordinator::{Coordinator, Effect, Input};
use crate::id::{ClientId, Offset, OpId, TaskId, WorkerId};
use crate::message::{Body, CancelTask, WaitTask};
use crate::port::{
    LeaseView, StoreReply, StoreRequest, TaskAnswer, TaskPage, TaskWithNodes, TransportReply,
    TransportRequest, WorkerList,
};
use crate::record::TaskState;
use crate::report::{Report, ReportKind};

/// A task whose node is ready, as stored by an owner that knew no worker.
fn stored(id: &str) -> TaskWithNodes {
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    let mut before = Bench::owned_with(config, Vec::new(), Vec::new());
    let commit = before.submitted(id, r#"{"nodes":[{"node_id":"n","type":"a"}]}"#);
    TaskWithNodes {
        task: task_of(&commit).clone(),
        nodes: vec![node_of(&commit, "n").clone()],
        node_age_ms: vec![0],
    }
}

/// Takes the shard over up to its load: the op that asks for the first page.
fn asked_to_load(bench: &mut Bench) -> OpId {
    let out = bench.raw(Input::Wake);
    let [announce, probe] = ops(&out)[..] else {
        panic!("two reads of bounds: {out:?}")
    };
    let workers = vec![worker_record("w1", 1, &["a"])];
    let out = bench.raw(transport_ok(announce, empty()));
    bench.raw(store_ok(ops(&out)[0], StoreReply::Workers(workers.into())));
    let out = bench.raw(transport_ok(probe, empty()));
    let lease = LeaseView {
        held: true,
        owner: ClientId::new("c1").expect("an id"),
        remaining_ms: 5_000,
    };
    let out = bench.raw(store_ok(ops(&out)[0], StoreReply::Lease(lease)));
    let read = StoreReply::Shard(shard_record(0, 0));
    let out = bench.raw(store_ok(ops(&out)[0], read));
    let raised = StoreReply::Shard(shard_record(1, 0));
    let out = bench.raw(store_ok(ops(&out)[0], raised));
    ops(&out)[0]
}

fn empty() -> TransportReply {
    TransportReply::Bounds {
        start: Offset(0),
        end: Offset(0),
    }
}

fn unreadable(id: &str, why: &str) -> Effect {
    let mut report = Report::new(ReportKind::Quarantined, format!("unreadable: {why}"));
    report.task_id = Some(task_id(id));
    Effect::Report(report)
}

#[test]
fn tasks_that_cannot_be_read_are_reported_and_the_others_go_on() {
    let mut bench = Bench {
        machine: Coordinator::new(config()),
        now_ms: 1_000,
        fetch: None,
        next: 0,
        out: Vec::new(),
    };
    let load = asked_to_load(&mut bench);
    // The page ends with one that cannot be read: the next one begins behind it.
    let page = TaskPage {
        tasks: vec![stored("t2")],
        unreadable: vec![
            (task_id("t1"), Arc::from("node `n`: rotten")),
            (task_id("t3"), Arc::from("version 999")),
        ],
        more: true,
    };
    let out = bench.raw(store_ok(load, StoreReply::Tasks(page)));
    let load = ops(&out)[0];
    let next_page = StoreRequest::LoadTasks {
        shard: SHARD,
        after: Some(task_id("t3")),
        limit: 1_000,
    };
    let expected = [
        unreadable("t1", "node `n`: rotten"),
        unreadable("t3", "version 999"),
        Effect::Store {
            op: load,
            request: next_page,
        },
    ];
    assert_eq!(out, expected);

    let page = TaskPage {
        tasks: vec![stored("t4")],
        unreadable: Vec::new(),
        more: false,
    };
    let out = bench.raw(store_ok(load, StoreReply::Tasks(page)));
    let owned = bench.raw(transport_ok(ops(&out)[0], empty()));
    let text = "shard 0 at epoch 1, 2 tasks";
    let report = Effect::Report(Report::new(ReportKind::ShardOwned, text));
    assert_eq!(owned.first(), Some(&report), "{owned:?}");

    bench.out = owned;
    bench.take_commit();
    let mut started: Vec<_> = bench.out.iter().filter_map(started).collect();
    started.sort();
    assert_eq!(started, ["t2", "t4"]);
}

/// An owner that left t1 out: a record of it cannot be read.
fn without_t1() -> Bench {
    loaded(TaskPage {
        tasks: Vec::new(),
        unreadable: vec![(task_id("t1"), Arc::from("node `n`: rotten"))],
        more: false,
    })
}

/// An owner whose shard was loaded.
fn loaded(page: TaskPage) -> Bench {
    let mut bench = Bench {
        machine: Coordinator::new(config()),
        now_ms: 1_000,
        fetch: None,
        next: 0,
        out: Vec::new(),
    };
    let load = asked_to_load(&mut bench);
    let out = bench.raw(store_ok(load, StoreReply::Tasks(page)));
    bench.out = bench.raw(transport_ok(ops(&out)[0], empty()));
    bench.fetch = bench.out.iter().find_map(|effect| match effect {
        Effect::Transport {
            op,
            request: TransportRequest::Read { .. },
        } => Some(*op),
        _ => None,
    });
    bench
}

/// The store answers what it was asked: t1 is alive, of all else it knows nothing.
fn looked_up(bench: &mut Bench) {
    let lookup = bench.out.iter().find_map(|effect| match effect {
        Effect::Store {
            op,
            request: StoreRequest::LookupTasks { tasks },
        } => Some((*op, tasks.clone())),
        _ => None,
    });
    let (op, tasks) = lookup.expect("the store is asked");
    let alive = TaskAnswer {
        submission_hash: 7,
        state: TaskState::Running,
        settled: false,
        failure: None,
        swept: false,
    };
    let answer = |task: &TaskId| (task.as_str() == "t1").then(|| alive.clone());
    let answers = tasks.iter().map(answer).collect();
    bench.input(store_ok(op, StoreReply::Answers(answers)));
}

/// How clients were answered.
fn replies(bench: &Bench) -> Vec<(bool, Option<TaskState>)> {
    let replies = bench.sent().into_iter().filter_map(|(_, body)| match body {
        Body::Reply(reply) => Some((reply.ok, reply.state)),
        _ => None,
    });
    replies.collect()
}

/// Its record may be as alive as ever; nobody else will answer.
#[test]
fn who_asks_for_a_task_that_was_left_out_is_told() {
    let mut bench = without_t1();
    let asked = [
        Body::WaitTask(WaitTask { inbox: 0 }),
        Body::CancelTask(CancelTask {
            reason: Arc::from("enough"),
            grace_ms: None,
            inbox: 0,
        }),
    ];
    for body in asked {
        bench.arrive(vec![client("t1", body)]);
        looked_up(&mut bench);
        // An owner that was replaced cannot say so.
        assert_eq!(bench.sent(), []);
        bench.take_commit();
        assert_eq!(replies(&bench), [(true, Some(TaskState::Quarantined))]);
    }
}

/// As after a change of version, or by hands in the store.
#[test]
fn who_asks_for_a_task_whose_records_do_not_fit_is_told() {
    let mut unfit = stored("t1");
    unfit.nodes.clear();
    unfit.node_age_ms.clear();
    let mut bench = loaded(TaskPage {
        tasks: vec![unfit],
        unreadable: Vec::new(),
        more: false,
    });
    bench.arrive(vec![client("t1", Body::WaitTask(WaitTask { inbox: 0 }))]);
    looked_up(&mut bench);
    assert_eq!(bench.sent(), []);
    bench.take_commit();
    assert_eq!(replies(&bench), [(true, Some(TaskState::Quarantined))]);
}

/// The store cannot read it, and another owner may be about to write it again.
#[test]
fn that_a_task_cannot_be_read_is_told_after_a_commit() {
    let mut bench = without_t1();
    bench.arrive(vec![client("t2", Body::WaitTask(WaitTask { inbox: 0 }))]);
    let unreadable = TaskAnswer {
        submission_hash: 0,
        state: TaskState::Quarantined,
        settled: true,
        failure: None,
        swept: false,
    };
    let lookup = ops(&bench.out)[0];
    let answers = StoreReply::Answers(vec![Some(unreadable)]);
    bench.input(store_ok(lookup, answers));
    assert_eq!(bench.sent(), []);
    bench.take_commit();
    assert_eq!(replies(&bench), [(true, Some(TaskState::Quarantined))]);
}

/// After a refused commit each change goes into a commit of its own: that answer is one, and the next one is not
/// kept from it.
#[test]
fn with_care_who_asks_for_a_task_that_was_left_out_is_told_and_others_get_on() {
    let mut bench = without_t1();
    if let Some(shard) = bench.machine.slots[0].owned() {
        shard.careful_left = 64;
    }
    let wait = client("t1", Body::WaitTask(WaitTask { inbox: 0 }));
    bench.arrive(vec![
        wait,
        submit("t2", r#"{"nodes":[{"node_id":"n","type":"a"}]}"#),
    ]);
    looked_up(&mut bench);
    bench.take_commit();
    assert_eq!(replies(&bench), [(true, Some(TaskState::Quarantined))]);
    looked_up(&mut bench);
    let commit = bench.take_commit();
    assert_eq!(task_of(&commit).task_id, task_id("t2"));
}

#[test]
fn a_worker_whose_record_cannot_be_read_is_told_and_the_others_are_known() {
    let mut bench = Bench {
        machine: Coordinator::new(config()),
        now_ms: 1_000,
        fetch: None,
        next: 0,
        out: Vec::new(),
    };
    let out = bench.raw(Input::Wake);
    let [announce, _] = ops(&out)[..] else {
        panic!("two reads of bounds: {out:?}")
    };
    let out = bench.raw(transport_ok(announce, empty()));
    let found = WorkerList {
        workers: vec![worker_record("w1", 1, &["a"])],
        unreadable: vec![(WorkerId::new("w2").expect("an id"), Arc::from("version 9"))],
    };
    let out = bench.raw(store_ok(ops(&out)[0], StoreReply::Workers(found)));
    let text = "the record of worker w2 is left out: version 9";
    let report = Effect::Report(Report::new(ReportKind::Quarantined, text));
    assert_eq!(out.first(), Some(&report), "{out:?}");
}

/// The task whose node is started by this.
fn started(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Transport {
            request: TransportRequest::Append { envelope, .. },
            ..
        } if envelope.body.kind() == "TASK_START" => {
            envelope.task_id.as_ref().map(ToString::to_string)
        }
        _ => None,
    }
}
