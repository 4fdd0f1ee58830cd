//! What is said of each kind of wait, word for word.

mod slots;

use super::*;
use crate::control::TaskControl;
use crate::coordinator::Limit;
use crate::id::{Epoch, Incarnation, Token};
use crate::json::Json;
use crate::message::{CancelReason, Cursor};
use crate::record::{
    Failure, Grant, GrantCancel, History, NodeRecord, RECORD_VERSION, TaskRecord, Totals,
};
use serde_json::{Value, json};

const KEEPS_UP: Owner = Owner::Folds {
    lag: 0,
    oldest_ms: None,
};

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("an id")
}

fn node(name: &str, state: NodeState) -> NodeRecord {
    NodeRecord {
        version: RECORD_VERSION,
        task_id: TaskId::new("t").expect("an id"),
        node_id: id(name),
        state,
        epoch: Epoch(1),
        lease_no: Token(1),
        grant: None,
        last_seq: 0,
        accepted: 0,
        checkpoint: None,
        checkpoint_batches: 0,
        cursor: Cursor::new(),
        cursor_batches: 0,
        totals: Totals::new(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 1,
        wait_ms: None,
        new_attempt: false,
        when_vars: None,
        made_vars: None,
        kept_from: None,
        failure: None,
        history: History::default(),
    }
}

fn granted(name: &str, cancel: Option<GrantCancel>) -> NodeRecord {
    let mut record = node(name, NodeState::Running);
    record.grant = Some(Grant {
        worker_id: WorkerId::new("w").expect("an id"),
        incarnation: Incarnation(1),
        inbox: 0,
        lease_ttl_ms: 60_000,
        cancel,
    });
    record
}

fn task(state: TaskState, graph: &Value, nodes: Vec<NodeRecord>) -> TaskWithNodes {
    let node_age_ms = nodes.iter().map(|_| 10_000).collect();
    TaskWithNodes {
        task: TaskRecord {
            version: RECORD_VERSION,
            task_id: TaskId::new("t").expect("an id"),
            submission_hash: 1,
            graph: Json::encode(graph).expect("JSON"),
            vars: Json::default(),
            idempotency_key: None,
            state,
            settled: false,
            failure: None,
            cancel_grace_ms: None,
            control: TaskControl::default(),
            vars_version: 0,
            submitted_vars: None,
            rerun: None,
            created_at_ms: 0,
            history: History::default(),
        },
        nodes,
        node_age_ms,
    }
}

fn worker(name: &str, capacity: u32, held: u32, heard_ms: Option<u64>) -> WorkerFacts {
    WorkerFacts {
        worker_id: WorkerId::new(name).expect("an id"),
        roles: vec![Role::new("ocr").expect("a role")],
        capacity,
        held,
        heard_ms,
        leaving: false,
        silent_after_ms: 90_000,
        free_slots: None,
        abandoned: 0,
    }
}

fn ask(task: &TaskWithNodes, workers: &[WorkerFacts], owner: Owner) -> Why {
    why(&Facts {
        task,
        workers,
        owner,
        limits: &Limits::default(),
        running: &Running::default(),
    })
}

/// A ready node of type `ocr` and limit key `api`, with a free slot, under these limits; a `scan` of
/// another key and two `ocr` of its own run.
fn limited(limits: &Limits, slots: u32) -> NodeWhy {
    let mut found = task(
        TaskState::Running,
        &single(),
        vec![node("n", NodeState::Ready)],
    );
    found.task.control.options.limit_key = Some("api".into());
    let role = |name: &str| Role::new(name).expect("a role");
    let mut running = Running::default();
    running.count(&role("ocr"), Some(&"api".into()));
    running.count(&role("ocr"), Some(&"api".into()));
    running.count(&role("scan"), Some(&"other".into()));
    running.count(&role("scan"), None);
    let mut said = why(&Facts {
        task: &found,
        workers: &[worker("w", slots, 2, Some(1))],
        owner: KEEPS_UP,
        limits,
        running: &running,
    });
    said.nodes.remove(0)
}

fn single() -> Value {
    json!({"nodes": [{"node_id": "n", "type": "ocr"}]})
}

fn one(record: NodeRecord, workers: &[WorkerFacts], owner: Owner) -> NodeWhy {
    let found = task(TaskState::Running, &single(), vec![record]);
    let mut said = ask(&found, workers, owner).nodes;
    assert_eq!(said.len(), 1);
    said.remove(0)
}

#[test]
fn a_node_names_the_parents_it_waits_for() {
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "ocr"}, {"node_id": "b", "type": "ocr"},
        {"node_id": "c", "type": "ocr"},
        {"node_id": "n", "type": "ocr", "depends_on": ["a", "b", "c"]},
        {"node_id": "m", "type": "ocr", "depends_on": ["a", "b", "c"], "fan_in": "count:2"}]});
    let nodes = vec![
        node("a", NodeState::Finished),
        granted("b", None),
        node("c", NodeState::Ready),
        node("m", NodeState::Queued),
        node("n", NodeState::Queued),
    ];
    let found = task(TaskState::Running, &graph, nodes);
    let said = ask(&found, &[worker("w", 1, 1, Some(5_000))], KEEPS_UP);
    assert_eq!(said.why, "it runs: nodes running 1, waiting 3");
    let by_name: Vec<(&str, WaitsFor)> = said
        .nodes
        .iter()
        .map(|node| (node.why.as_str(), node.waits_for))
        .collect();
    assert_eq!(
        by_name,
        [
            (
                "runs on w: 0 batches accepted, the newest word of it 10 s ago",
                WaitsFor::Nothing
            ),
            (
                "all slots of role `ocr` are busy: w runs 1 of 1",
                WaitsFor::Slot
            ),
            (
                "waits for 2 of 3 parents: `b` (running), `c` (ready)",
                WaitsFor::Parents
            ),
            (
                "waits for 1 more of 3 parents (its fan_in is `count:2`): `b` (running), `c` (ready)",
                WaitsFor::Parents
            ),
        ]
    );
}

#[test]
fn a_role_without_a_live_worker_is_named_with_how_long() {
    let ready = || node("n", NodeState::Ready);
    let said = one(ready(), &[], KEEPS_UP);
    assert_eq!(said.why, "no worker for role `ocr` has ever registered");
    assert!(
        said.cure
            .expect("a cure")
            .contains("flowkit worker --role ocr")
    );
    let said = one(ready(), &[worker("w", 1, 0, Some(410_000))], KEEPS_UP);
    assert_eq!(said.why, "no worker for role `ocr` seen for 6 min");
    assert_eq!(said.waits_for, WaitsFor::Worker);
    let mut gone = worker("w", 1, 0, Some(41_000));
    gone.leaving = true;
    let said = one(ready(), &[gone], KEEPS_UP);
    assert_eq!(
        said.why,
        "the workers for role `ocr` are stopping or have stopped"
    );
    let said = one(ready(), &[worker("w", 1, 0, None)], KEEPS_UP);
    assert_eq!(said.why, "no worker for role `ocr` seen lately");
    let said = one(ready(), &[worker("w", 2, 1, Some(1))], KEEPS_UP);
    assert_eq!(said.why, "is about to start: w has a free slot");
}

#[test]
fn a_node_that_waits_for_its_retry_says_when_and_after_what() {
    let mut record = node("n", NodeState::Deferred);
    record.wait_ms = Some(40_000);
    record.new_attempt = true;
    record.failures = 1;
    record.history.push(NodeState::Deferred, 0, "timeout");
    let said = one(record.clone(), &[], KEEPS_UP);
    assert_eq!(
        said.why,
        "next retry in 30 s: attempt 1 of 2 failed (timeout)"
    );
    record.wait_ms = Some(10_000);
    let said = one(record.clone(), &[], KEEPS_UP);
    assert!(
        said.why.ends_with("the next try begins at once"),
        "{}",
        said.why
    );
    (record.new_attempt, record.losses) = (false, 4);
    record.wait_ms = Some(12_000);
    let said = one(record, &[], KEEPS_UP);
    assert_eq!(
        said.why,
        "next retry in 2 s: it lost its worker 4 times in a row (timeout)"
    );
}

#[test]
fn a_cancelled_task_waits_for_its_grant_to_end() {
    let cancel = GrantCancel {
        reason: CancelReason::UserRequest,
        grace_ms: 30_000,
    };
    let found = task(
        TaskState::Cancelling,
        &single(),
        vec![granted("n", Some(cancel))],
    );
    let said = ask(&found, &[worker("w", 1, 1, Some(1))], KEEPS_UP);
    assert_eq!(
        said.why,
        "it is being cancelled; runs that have not ended yet: 1"
    );
    assert_eq!(said.nodes[0].waits_for, WaitsFor::RunsEnd);
    assert_eq!(
        said.nodes[0].why,
        "cancelling: waits for its run on w to end, which has 60 s for it"
    );
}

#[test]
fn a_run_on_a_silent_worker_waits_for_its_lease() {
    let said = one(
        granted("n", None),
        &[worker("w", 1, 1, Some(61_000))],
        KEEPS_UP,
    );
    assert_eq!(said.waits_for, WaitsFor::LeaseEnd);
    assert_eq!(
        said.why,
        "runs on w, which was not heard for 61 s; it is granted anew once its lease of 60 s has run out"
    );
}

#[test]
fn without_a_coordinator_nothing_else_matters() {
    let nobody = Owner::Folds {
        lag: 12,
        oldest_ms: Some(41_000),
    };
    let said = one(
        node("n", NodeState::Ready),
        &[worker("w", 1, 0, Some(1))],
        nobody,
    );
    assert_eq!(said.waits_for, WaitsFor::Coordinator);
    assert!(
        said.why
            .ends_with("no coordinator owns its shard: 12 messages wait, the oldest for 41 s"),
        "{}",
        said.why
    );
    let busy = Owner::Folds {
        lag: 12,
        oldest_ms: Some(300),
    };
    let said = one(
        node("n", NodeState::Ready),
        &[worker("w", 1, 0, Some(1))],
        busy,
    );
    assert_eq!(said.waits_for, WaitsFor::Nothing, "it keeps up");
}

#[test]
fn in_a_folder_that_nothing_runs_on_the_engine_is_what_is_missing() {
    for record in [
        node("n", NodeState::Ready),
        node("n", NodeState::Deferred),
        granted("n", None),
    ] {
        let said = one(record, &[], Owner::Stopped);
        assert_eq!(said.waits_for, WaitsFor::Engine, "{}", said.why);
        assert!(said.cure.is_some());
    }
    let found = task(
        TaskState::Running,
        &single(),
        vec![node("n", NodeState::Ready)],
    );
    let said = ask(&found, &[], Owner::Stopped);
    assert!(said.why.starts_with("nothing of it runs: "), "{}", said.why);
    assert_eq!(
        said.why,
        "nothing of it runs: node `n` is ready to start; no engine runs on this data folder"
    );
}

#[test]
fn a_reader_waits_for_the_source_that_has_no_slot() {
    let graph = json!({"nodes": [
        {"node_id": "s", "type": "ocr"},
        {"node_id": "n", "type": "ocr", "depends_on": ["s"], "io": {"start_when": "first_batch",
         "input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {"from_nodes": ["s"]}}}}]});
    let mut source = node("s", NodeState::Ready);
    source.accepted = 3;
    let found = task(
        TaskState::Running,
        &graph,
        vec![node("n", NodeState::Ready), source],
    );
    let said = ask(&found, &[worker("w", 1, 0, Some(1))], KEEPS_UP);
    assert_eq!(said.nodes[1].waits_for, WaitsFor::Source);
    assert_eq!(
        said.nodes[1].why,
        "reads `s` and starts once `s` runs; see what is said of `s`"
    );
}

#[test]
fn an_ended_paused_or_unreadable_task_says_so() {
    let mut failed = task(
        TaskState::Failed,
        &single(),
        vec![node("n", NodeState::Failed)],
    );
    failed.task.failure = Some(Failure {
        node_id: id("n"),
        reason_code: "bad_input".into(),
        error: "no such page".into(),
    });
    let said = ask(&failed, &[], KEEPS_UP);
    assert_eq!(
        said.why,
        "it has failed: node `n`: no such page (bad_input)"
    );
    assert!(said.nodes.is_empty());
    let mut paused = task(
        TaskState::Paused,
        &single(),
        vec![node("n", NodeState::Ready)],
    );
    let said = ask(&paused, &[worker("w", 1, 0, Some(1))], KEEPS_UP);
    assert_eq!(said.nodes[0].waits_for, WaitsFor::Limit);
    let plain = "it is paused: no node starts, what runs goes on";
    assert_eq!(said.why, plain);
    // The reason of the newest pause, or none.
    let history = &mut paused.task.history;
    history.push(TaskState::Paused, 1, "paused: disk is full");
    let said = ask(&paused, &[], KEEPS_UP);
    assert_eq!(
        said.why,
        "it is paused (disk is full): no node starts, what runs goes on"
    );
    let history = &mut paused.task.history;
    history.push(TaskState::Running, 2, "resumed by a client");
    history.push(TaskState::Paused, 3, "paused by a client");
    assert_eq!(ask(&paused, &[], KEEPS_UP).why, plain);
    let mut cancelled = task(TaskState::Cancelled, &single(), vec![]);
    let history = &mut cancelled.task.history;
    history.push(TaskState::Cancelling, 1, "cancelled: wrong year");
    history.push(TaskState::Cancelled, 2, "nothing of it runs any more");
    let said = ask(&cancelled, &[], KEEPS_UP);
    assert_eq!(said.why, "it was cancelled (wrong year)");
    let newer = json!({"nodes": [{"node_id": "n", "type": "ocr", "from_the_future": 1}]});
    let said = ask(&task(TaskState::Running, &newer, vec![]), &[], KEEPS_UP);
    assert_eq!(said.why, "its graph cannot be read by this version");
}

#[test]
fn a_worker_is_given_up_by_how_often_it_said_that_it_speaks() {
    for (interval_ms, after_ms) in [
        (0, 90_000),
        (60_000, 90_000),
        (600_000, 900_000),
        (1_000, 5_000),
        (u64::MAX, u64::MAX),
    ] {
        assert_eq!(silent_after_ms(interval_ms), after_ms, "{interval_ms}");
    }
    let mut slow = worker("w", 2, 0, Some(600_000));
    let says = |worker: &WorkerFacts| {
        one(
            node("n", NodeState::Ready),
            std::slice::from_ref(worker),
            KEEPS_UP,
        )
        .why
    };
    assert_eq!(says(&slow), "no worker for role `ocr` seen for 10 min");
    slow.silent_after_ms = silent_after_ms(600_000);
    let lives = says(&slow);
    assert!(!lives.contains("no worker"), "{lives}");
}

#[test]
fn a_full_limit_is_named_with_how_many_run_and_where_it_stands() {
    let ocr = || Role::new("ocr").expect("a role");
    for (limits, why, place) in [
        (
            Limits::default().of_key("api", Limit::running(2)),
            "is ready, and limit `api` is full: 2 of 2 nodes run",
            "limits.keys.\"api\"",
        ),
        (
            Limits::default().of_each_other_key(Limit::running(1)),
            "is ready, and limit `api` is full: 2 of 1 nodes run",
            "limits.key_default",
        ),
        (
            Limits::default().of_type(ocr(), Limit::starts(1, 1_000).and_running(2)),
            "is ready, and the limit of type `ocr` is full: 2 of 2 nodes run",
            "limits.types.ocr",
        ),
        (
            Limits::default().all(4).of_key("api", Limit::running(2)),
            "is ready, and the limit of all nodes is full: 4 of 4 nodes run",
            "limits",
        ),
    ] {
        // Whether or not a slot is free as well.
        for slots in [2, 3] {
            let said = limited(&limits, slots);
            assert_eq!((said.waits_for, said.why.as_str()), (WaitsFor::Limit, why));
            let cure = format!(
                "wait until one of them ends, or raise `{place}.running_max` of every coordinator"
            );
            assert_eq!(said.cure.as_deref(), Some(cure.as_str()));
        }
    }
}

#[test]
fn a_limit_that_is_not_full_or_of_another_key_holds_nothing_back() {
    let limits = Limits::default()
        .all(5)
        .of_key("api", Limit::running(3))
        .of_key("other", Limit::running(1))
        .of_type(Role::new("scan").expect("a role"), Limit::starts(1, 1_000));
    let said = limited(&limits, 3);
    assert_eq!(said.waits_for, WaitsFor::Nothing);
    assert_eq!(said.why, "is about to start: w has a free slot");
    let cure = said.cure.expect("a cure");
    assert_eq!(cure, "if it stays so, `flowkit doctor` looks for the cause");
    // Who knows of no limits says how to ask with them.
    let said = limited(&Limits::default(), 3);
    let cure = said.cure.expect("a cure");
    assert!(cure.contains("--config FILE"), "{cure}");
}

#[test]
fn a_limit_of_starts_is_in_force_where_a_slot_is_free() {
    let limits = Limits::default().of_key("api", Limit::starts(10, 60_000));
    let said = limited(&limits, 3);
    assert_eq!(said.waits_for, WaitsFor::Limit);
    assert_eq!(
        said.why,
        "is ready, and limit `api` allows 10 starts within any 60 s: it starts once an earlier start \
         is older than that"
    );
    let cure = "wait, or raise `limits.keys.\"api\".starts_max` of every coordinator";
    assert_eq!(said.cure.as_deref(), Some(cure));
    assert_eq!(limited(&limits, 2).waits_for, WaitsFor::Slot);
}

#[test]
fn what_nobody_could_run_is_told_before_a_full_limit() {
    let said = limited(&Limits::default().all(1), 2);
    assert_eq!(said.waits_for, WaitsFor::Limit);
    let found = task(
        TaskState::Running,
        &single(),
        vec![node("n", NodeState::Ready)],
    );
    let mut running = Running::default();
    running.count(&Role::new("scan").expect("a role"), None);
    let said = why(&Facts {
        task: &found,
        workers: &[],
        owner: KEEPS_UP,
        limits: &Limits::default().all(1),
        running: &running,
    });
    assert_eq!(said.nodes[0].waits_for, WaitsFor::Worker);
}

#[test]
fn a_function_runs_inside_the_coordinator_and_needs_no_worker() {
    let graph = json!({"nodes": [
        {"node_id": "n", "type": "coordinator_fn", "io": {"fn": "noop", "fn_args": {}}}]});
    let nodes = || vec![node("n", NodeState::Ready)];
    let found = task(TaskState::Running, &graph, nodes());
    let said = ask(&found, &[], KEEPS_UP);
    assert_eq!(said.nodes[0].waits_for, WaitsFor::Nothing);
    assert_eq!(said.nodes[0].why, "is about to run inside the coordinator");
}

#[test]
fn a_graph_with_a_function_that_a_user_registered_elsewhere_is_read() {
    let graph = json!({"nodes": [
        {"node_id": "f", "type": "coordinator_fn", "io": {"fn": "mine.own", "fn_args": {"x": 1}}},
        {"node_id": "n", "type": "ocr", "depends_on": ["f"]}]});
    let nodes = vec![node("f", NodeState::Finished), node("n", NodeState::Ready)];
    let found = task(TaskState::Running, &graph, nodes);
    let said = ask(&found, &[], KEEPS_UP);
    let open: Vec<&str> = said
        .nodes
        .iter()
        .map(|node| node.node_id.as_str())
        .collect();
    assert_eq!(open, ["n"], "{}", said.why);
}

#[test]
fn a_delayed_start_says_when_it_is_and_who_asked_for_it() {
    let mut record = node("n", NodeState::Deferred);
    record.wait_ms = Some(90_000);
    record.new_attempt = true;
    record
        .history
        .push(NodeState::Deferred, 0, "its task starts in 90000 ms");
    let said = |record: &NodeRecord, owner| {
        let mut found = task(TaskState::Queued, &single(), vec![record.clone()]);
        found.task.control.options.start_delay_ms = 90_000;
        ask(&found, &[], owner).nodes.remove(0)
    };
    let waits = said(&record, KEEPS_UP);
    assert_eq!(waits.waits_for, WaitsFor::Delay);
    assert_eq!(
        waits.why,
        "starts in 80 s: its submission asked for a delay of 90 s"
    );
    let cure = "nothing need be done; the delay is `--delay-sec` of the submission";
    assert_eq!(waits.cure.as_deref(), Some(cure));
    let stopped = said(&record, Owner::Stopped);
    assert_eq!(stopped.waits_for, WaitsFor::Engine);
    assert_eq!(
        stopped.why,
        "waits for its start time (its submission asked for a delay of 90 s); no engine runs on this \
         data folder"
    );
    record.wait_ms = Some(10_000);
    let over = said(&record, KEEPS_UP);
    assert_eq!(
        over.why,
        "its submission asked for a delay of 90 s, which is over: it may start at once"
    );
}
