//! Priority, delayed start and limits: who is granted next, and who has to wait.

use super::bench::*;
use crate::control::TaskOptions;
use crate::coordinator::{Config, Input, Limit, Limits};
use crate::message::{Body, CancelReason, Envelope, ReplyError, TaskReleased};
use crate::port::{Commit, Record, TaskWithNodes};
use crate::record::{NodeState, TaskState};

const ONE: &str = r#"{"nodes":[{"node_id":"n","type":"a"}]}"#;
const OTHER: &str = r#"{"nodes":[{"node_id":"n","type":"b"}]}"#;
const STREAM: &str = r#"{"nodes":[{"node_id":"s","type":"a"},
    {"node_id":"r","type":"b","depends_on":["s"],"io":{"start_when":"first_batch",
     "input_inline":{"input_adapter":"pull.from_artifacts","input_args":{"from_nodes":["s"]}}}}]}"#;

/// A machine with one worker of so many slots for both types.
fn bench(capacity: u32, limits: Limits) -> Bench {
    let mut worker = worker_record("w1", 1, &["a", "b"]);
    worker.capacity = capacity;
    Bench::owned_with(long(limits), Vec::new(), vec![worker])
}

fn long(limits: Limits) -> Config {
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    config.limits = limits;
    config
}

fn running(max: u32) -> Limit {
    Limit {
        running_max: Some(max),
        ..Limit::default()
    }
}

fn starts(max: u32, window_ms: u64) -> Limit {
    Limit {
        starts_max: Some(max),
        window_ms,
        ..Limit::default()
    }
}

fn with(task: &str, graph: &str, change: impl FnOnce(&mut TaskOptions)) -> Envelope {
    let mut message = submit(task, graph);
    if let Body::Submit(submit) = &mut message.body {
        change(&mut submit.options);
    }
    message
}

fn ranked(task: &str, priority: i32) -> Envelope {
    with(task, ONE, |options| options.priority = priority)
}

fn keyed(task: &str, graph: &str, key: &str) -> Envelope {
    with(task, graph, |options| options.limit_key = Some(key.into()))
}

impl Bench {
    /// Submits tasks in one commit; whom STARTs go to, in order.
    fn submit_all(&mut self, messages: Vec<Envelope>) -> Vec<String> {
        self.arrive(messages);
        self.unknown_tasks();
        self.take_commit();
        self.started()
    }

    /// The tasks whose nodes are started by `out`.
    fn started(&self) -> Vec<String> {
        let sent = self.out.iter().filter_map(|effect| match effect {
            crate::coordinator::Effect::Transport {
                request: crate::port::TransportRequest::Append { envelope, .. },
                ..
            } if matches!(envelope.body, Body::TaskStart(_)) => {
                let node = envelope.node_id.as_ref()?;
                Some(format!("{}/{node}", envelope.task_id.as_ref()?))
            }
            _ => None,
        });
        sent.collect()
    }

    /// A run ends well; what starts in its place.
    fn ends(&mut self, task: &str, node: &str) -> Vec<String> {
        self.arrive(vec![event(task, node, 1, 1, done(0, 0, 0))]);
        self.take_commit();
        self.started()
    }
}

#[test]
fn the_highest_priority_goes_first_and_among_equals_who_waited_longest() {
    let mut bench = bench(1, Limits::default());
    let tasks = [("t0", 0), ("t1", -5), ("t2", 7), ("t3", 0), ("t4", 7)];
    let messages = tasks.map(|(task, priority)| ranked(task, priority));
    assert_eq!(bench.submit_all(messages.into()), ["t2/n"]);
    for (ends, starts) in [
        ("t2", "t4/n"),
        ("t4", "t0/n"),
        ("t0", "t3/n"),
        ("t3", "t1/n"),
    ] {
        assert_eq!(bench.ends(ends, "n"), [starts]);
    }
}

#[test]
fn the_same_submission_with_another_priority_is_a_conflict() {
    let mut bench = bench(1, Limits::default());
    bench.submit_all(vec![ranked("t", 3)]);
    let kinds = |bench: &Bench| -> Vec<Option<ReplyError>> {
        let replies = bench.sent().into_iter();
        let kinds = replies.filter_map(|(_, body)| match body {
            Body::Reply(reply) => Some(reply.error.map(|error| error.kind)),
            _ => None,
        });
        kinds.collect()
    };
    bench.arrive(vec![ranked("t", 3), ranked("t", 4), submit("t", ONE)]);
    let conflict = Some(ReplyError::IdempotencyConflict);
    assert_eq!(kinds(&bench), [None, conflict, conflict]);
}

#[test]
fn impossible_options_are_refused_and_nothing_is_stored() {
    let mut bench = bench(1, Limits::default());
    let messages = vec![
        with("t", ONE, |options| {
            options.start_delay_ms = u64::MAX;
            options.limit_key = Some("\n".into());
        }),
        with("u", ONE, |options| options.limit_key = Some("".into())),
        with("v", ONE, |options| {
            options.limit_key = Some("a\u{0}".into())
        }),
        with("w", ONE, |options| {
            options.limit_key = Some("k".repeat(1_000).into())
        }),
    ];
    bench.arrive(messages);
    bench.unknown_tasks();
    let texts: Vec<String> = bench
        .sent()
        .into_iter()
        .filter_map(|(_, body)| match body {
            Body::Reply(reply) => reply.error.map(|error| error.faults.join("\n")),
            _ => None,
        })
        .collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(texts[0].contains("options.start_delay_ms: "), "{texts:?}");
    assert!(
        texts
            .iter()
            .all(|text| text.contains("options.limit_key: must"))
    );
    assert_eq!(bench.machine.tasks_in_flight(), 0);
}

#[test]
fn a_delayed_task_starts_when_its_time_has_come_and_not_before() {
    let mut bench = bench(1, Limits::default());
    let later = with("t", ONE, |options| options.start_delay_ms = 5_000);
    bench.arrive(vec![later]);
    bench.unknown_tasks();
    let commit = bench.take_commit();
    let node = node_of(&commit, "n");
    assert_eq!(
        (node.state, node.wait_ms),
        (NodeState::Deferred, Some(5_000))
    );
    assert_eq!(task_of(&commit).state, TaskState::Queued);
    bench.pass(4_999);
    assert!(bench.out.is_empty(), "{:?}", bench.out);
    bench.pass(1);
    bench.take_commit();
    assert_eq!(bench.started(), ["t/n"]);
}

#[test]
fn a_new_owner_waits_for_the_rest_of_a_delay_by_the_stores_clock() {
    let mut bench = bench(1, Limits::default());
    bench.arrive(vec![with("t", ONE, |options| {
        options.start_delay_ms = 5_000
    })]);
    bench.unknown_tasks();
    let commit = bench.take_commit();
    let mut stored = stored(&commit, "t");
    stored.node_age_ms = vec![3_000];
    let workers = vec![worker_record("w1", 1, &["a"])];
    let mut bench = Bench::owned_with(long(Limits::default()), vec![stored], workers);
    bench.pass(1_999);
    assert!(bench.out.is_empty(), "{:?}", bench.out);
    bench.pass(1);
    bench.take_commit();
    assert_eq!(bench.started(), ["t/n"]);
}

/// A task as a commit left it.
fn stored(commit: &Commit, task: &str) -> TaskWithNodes {
    let mut nodes = Vec::new();
    let mut found = None;
    for record in &commit.records {
        match record {
            Record::Task(record) if record.task_id.as_str() == task => found = Some(record),
            Record::Node(record) if record.task_id.as_str() == task => {
                nodes.push((**record).clone());
            }
            _ => {}
        }
    }
    TaskWithNodes {
        task: (**found.expect("a task")).clone(),
        node_age_ms: vec![0; nodes.len()],
        nodes,
    }
}

#[test]
fn no_more_run_than_the_limit_of_all_says() {
    let limits = Limits {
        running_max: Some(2),
        ..Limits::default()
    };
    let mut bench = bench(9, limits);
    let tasks = ["t0", "t1", "t2", "t3"].map(|task| submit(task, ONE));
    assert_eq!(bench.submit_all(tasks.into()), ["t0/n", "t1/n"]);
    assert_eq!(bench.ends("t1", "n"), ["t2/n"]);
}

#[test]
fn no_more_of_a_type_run_than_its_limit_says_and_others_go_past_them() {
    let limits = Limits {
        types: [("a".parse().expect("a role"), running(1))].into(),
        ..Limits::default()
    };
    let mut bench = bench(9, limits);
    let tasks = vec![submit("t0", ONE), submit("t1", ONE), submit("t2", OTHER)];
    assert_eq!(bench.submit_all(tasks), ["t0/n", "t2/n"]);
    assert_eq!(bench.ends("t2", "n"), Vec::<String>::new());
    assert_eq!(bench.ends("t0", "n"), ["t1/n"]);
}

#[test]
fn no_more_of_a_key_run_than_its_limit_says_and_others_go_past_them() {
    let limits = Limits {
        keys: [("big".into(), running(2))].into(),
        key_default: Some(running(1)),
        ..Limits::default()
    };
    let mut bench = bench(9, limits);
    let tasks = vec![
        keyed("b0", ONE, "big"),
        keyed("b1", OTHER, "big"),
        keyed("b2", ONE, "big"),
        keyed("s0", ONE, "small"),
        keyed("s1", ONE, "small"),
        keyed("o0", ONE, "other"),
        submit("free", ONE),
    ];
    let started = bench.submit_all(tasks);
    assert_eq!(started, ["b0/n", "b1/n", "free/n", "o0/n", "s0/n"]);
    assert_eq!(bench.ends("free", "n"), Vec::<String>::new());
    assert_eq!(bench.ends("s0", "n"), ["s1/n"]);
    assert_eq!(bench.ends("b1", "n"), ["b2/n"]);
}

#[test]
fn no_more_start_within_a_time_than_the_limit_says_however_fast_they_end() {
    let limits = Limits {
        keys: [("k".into(), starts(2, 1_000))].into(),
        ..Limits::default()
    };
    let mut bench = bench(9, limits);
    let tasks = ["t0", "t1", "t2"].map(|task| keyed(task, ONE, "k"));
    assert_eq!(bench.submit_all(tasks.into()), ["t0/n", "t1/n"]);
    assert_eq!(bench.ends("t0", "n"), Vec::<String>::new());
    bench.arrive(vec![beat("t1", "n", 1)]);
    // By the slowest clock, a millisecond of rounding each way.
    bench.pass(1_002);
    assert_eq!(bench.started(), Vec::<String>::new());
    assert!(
        bench
            .machine
            .poll_timeout()
            .is_some_and(|at| at.0 == bench.now_ms + 1)
    );
    bench.pass(1);
    bench.take_commit();
    assert_eq!(bench.started(), ["t2/n"]);
}

#[test]
fn a_new_owner_counts_the_grants_it_finds_and_takes_every_start_for_just_made() {
    let limits = Limits {
        types: [("a".parse().expect("a role"), running(1))].into(),
        keys: [("k".into(), starts(1, 1_000))].into(),
        ..Limits::default()
    };
    let mut old = bench(9, limits.clone());
    old.arrive(vec![
        submit("t0", ONE),
        submit("t1", ONE),
        keyed("t2", OTHER, "k"),
    ]);
    old.unknown_tasks();
    let commit = old.take_commit();
    assert_eq!(old.started(), ["t0/n", "t2/n"]);
    let workers = vec![worker_record("w1", 1, &["a", "b"])];
    let tasks = ["t0", "t1", "t2"].map(|task| stored(&commit, task));
    let mut new = Bench::owned_with(long(limits), tasks.into(), workers);
    new.arrive(vec![beat("t0", "n", 1), beat("t2", "n", 1)]);
    assert_eq!(new.started(), Vec::<String>::new());
    assert_eq!(new.ends("t0", "n"), ["t1/n"]);
}

#[test]
fn a_reader_that_holds_the_last_place_of_a_limit_is_recalled_for_who_waits_for_it() {
    let limits = Limits {
        keys: [("k".into(), running(1))].into(),
        ..Limits::default()
    };
    let mut old = bench(9, Limits::default());
    old.submit_all(vec![keyed("t", STREAM, "k")]);
    old.arrive(vec![event("t", "s", 1, 1, Body::BatchOk(batch("b")))]);
    let commit = old.take_commit();
    let reader = node_of(&commit, "r").clone();
    assert!(reader.grant.is_some());
    // A new owner, with a limit now: the reader is granted, its source is not.
    let mut source = node_of(&commit, "s").clone();
    source.grant = None;
    source.state = NodeState::Ready;
    let mut first = bench(9, Limits::default());
    first.arrive(vec![keyed("t", STREAM, "k")]);
    first.unknown_tasks();
    let mut task = task_of(&first.take_commit()).clone();
    task.state = TaskState::Running;
    let stored = TaskWithNodes {
        task,
        nodes: vec![source, reader],
        node_age_ms: vec![0, 0],
    };
    let workers = vec![worker_record("w1", 1, &["a", "b"])];
    let mut bench = Bench::owned_with(long(limits), vec![stored], workers);
    bench.pass(1);
    bench.take_commit();
    let told: Vec<_> = bench
        .sent()
        .into_iter()
        .filter_map(|(_, body)| match body {
            Body::TaskCancel(cancel) => Some(cancel.reason),
            _ => None,
        })
        .collect();
    assert!(told.contains(&CancelReason::Yield), "{:?}", bench.out);
    let released = Body::TaskReleased(TaskReleased {
        reason: crate::message::ReleaseReason::Yield,
    });
    bench.arrive(vec![event("t", "r", 1, 1, released)]);
    bench.take_commit();
    assert_eq!(bench.started(), ["t/s"]);
}

#[test]
fn impossible_limits_are_told_each_with_its_place() {
    let limits = Limits {
        running_max: Some(0),
        types: [("ocr".parse().expect("a role"), running(0))].into(),
        keys: [
            ("k".into(), starts(0, 0)),
            ("".into(), starts(20_000, u64::MAX)),
        ]
        .into(),
        key_default: Some(starts(1, 86_400_001)),
    };
    let faults = limits.faults().join("\n");
    for part in [
        "running_max must be 1 or more",
        "types.ocr.running_max",
        "keys.k.starts_max must be 1",
        "keys.k.window_ms must be from 1",
        "keys..starts_max must be at most 10000",
        "keys.\"\": no task can have such a limit_key",
        "key_default.window_ms",
    ] {
        assert!(faults.contains(part), "{part}: {faults}");
    }
    assert!(Limits::default().faults().is_empty() && Limits::default().is_none());
    for text in [
        r#"{"running_max":-1}"#,
        r#"{"running_max":1.5}"#,
        r#"{"running_max":"4"}"#,
        r#"{"running_max":4294967296}"#,
        r#"{"types":{"":{}}}"#,
        r#"{"types":["ocr"]}"#,
        r#"{"types":{"ocr":4}}"#,
        r#"{"keys":{"k":{"max":1}}}"#,
        r#"{"window_ms":1}"#,
        r#"{"running_max":null}"#,
        r#"{"key_default":null}"#,
        "null",
    ] {
        assert!(serde_json::from_str::<Limits>(text).is_err(), "{text}");
    }
}

#[test]
#[should_panic(expected = "limits need a deployment of one shard")]
fn a_machine_of_several_shards_takes_no_limits() {
    let mut config = long(Limits {
        running_max: Some(1),
        ..Limits::default()
    });
    config.shards = 2;
    let _ = crate::coordinator::Coordinator::new(config);
}

#[test]
fn an_owner_with_as_many_tasks_as_it_may_refuses_others_until_one_is_settled() {
    let mut config = long(Limits::default());
    config.tasks_in_flight_max = 2;
    let worker = worker_record("w1", 1, &["a"]);
    let mut bench = Bench::owned_with(config, Vec::new(), vec![worker]);
    bench.submitted("t1", ONE);
    bench.submitted("t2", ONE);
    let answer = |bench: &Bench| {
        let replies = bench.sent().into_iter().find_map(|(_, body)| match body {
            Body::Reply(reply) => Some(reply.error.map(|error| error.kind)),
            _ => None,
        });
        replies.expect("a reply")
    };
    bench.arrive(vec![submit("t3", ONE)]);
    bench.unknown_tasks();
    assert_eq!(answer(&bench), Some(ReplyError::Overloaded));
    bench.input(Input::Idle);
    assert_eq!(bench.out, [], "nothing is stored of it");
    bench.arrive(vec![submit("t2", ONE)]);
    assert_eq!(answer(&bench), None, "what is there is no more load");
    bench.arrive(vec![event("t1", "n", 1, 1, done(0, 0, 0))]);
    bench.take_commit();
    bench.submitted("t3", ONE);
    assert_eq!(answer(&bench), None);
}
