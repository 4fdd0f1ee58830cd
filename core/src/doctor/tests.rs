//! Each check finds what it is for, and nothing in a sound deployment.

use super::*;
use crate::control::TaskControl;
use crate::id::{Epoch, Incarnation, NodeId, Role, ShardId, TaskId, Token, WorkerId};
use crate::json::Json;
use crate::message::Cursor;
use crate::port::TaskWithNodes;
use crate::record::{
    Failure, Grant, History, MetricTotal, NodeRecord, NodeState, RECORD_VERSION, TaskRecord,
    TaskState, Totals,
};
use crate::why::WorkerFacts;
use serde_json::json;
use std::collections::BTreeMap;

fn listed(name: &str) -> Listed {
    Listed {
        facts: WorkerFacts {
            worker_id: WorkerId::new(name).expect("an id"),
            roles: vec![Role::new("ocr").expect("a role")],
            capacity: 1,
            held: 0,
            heard_ms: Some(5_000),
            leaving: false,
            silent_after_ms: 90_000,
            free_slots: None,
            abandoned: 0,
        },
        registered: Some(Incarnation(2)),
        heard: Some(Incarnation(2)),
        older_heard: 0,
        batch_ms_max: 100,
        heartbeat_ms: None,
        lease_ttl_ms: 60_000,
    }
}

const TIMING: Timing = Timing {
    lease_ttl_ms: 60_000,
    lease_given: true,
    hb_interval_ms: 20_000,
    db_cancel_poll_ms: 500,
};

fn subjects(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.subject.as_str()).collect()
}

#[test]
fn a_sound_deployment_has_no_findings() {
    let workers = [listed("w")];
    let waiting = BTreeMap::from([(Role::new("ocr").expect("a role"), 3)]);
    assert_eq!(roles(&waiting, &workers), []);
    assert_eq!(conflicts(&workers), []);
    assert_eq!(timing(TIMING, &workers, &Lapses::new()), []);
    assert_eq!(
        folding(&[(ShardId(0), 0, None), (ShardId(1), 4, Some(200))]),
        []
    );
    let inboxes = BTreeMap::from([(WorkerId::new("w").expect("an id"), 15)]);
    assert_eq!(subscription(0, 16, &inboxes), []);
}

#[test]
fn a_role_that_waits_without_a_live_worker_is_found() {
    let waiting = BTreeMap::from([
        (Role::new("ocr").expect("a role"), 3),
        (Role::new("ocrr").expect("a role"), 1),
    ]);
    let mut silent = listed("w");
    silent.facts.heard_ms = Some(100_000);
    let found = roles(&waiting, &[silent]);
    assert_eq!(subjects(&found), ["ocr", "ocrr"]);
    assert!(
        found[0].finding.contains("3 nodes wait"),
        "{}",
        found[0].finding
    );
    assert!(
        found[0].finding.contains("100 s ago"),
        "{}",
        found[0].finding
    );
}

#[test]
fn processes_and_deployments_in_each_others_way_are_found() {
    let (mut twin, mut stranger, mut newer) = (listed("twin"), listed("stranger"), listed("newer"));
    twin.older_heard = 2;
    stranger.registered = None;
    newer.heard = Some(Incarnation(7));
    let found = conflicts(&[twin, stranger, newer]);
    assert_eq!(subjects(&found), ["twin", "stranger", "newer"]);
    assert!(found[1].cure.contains("topic_prefix"));
}

fn lapsed(of: &[(&str, u64)]) -> Lapses {
    let of = of
        .iter()
        .map(|(worker, count)| (WorkerId::new(worker).ok(), *count));
    of.collect()
}

#[test]
fn times_that_do_not_fit_are_found() {
    let tight = Timing {
        db_cancel_poll_ms: 70_000,
        ..TIMING
    };
    let found = timing(tight, &[], &lapsed(&[]));
    assert_eq!(subjects(&found), ["db_cancel_poll_ms"]);
    let mut long = listed("long");
    long.batch_ms_max = 95_000;
    assert_eq!(
        timing(TIMING, &[long.clone()], &lapsed(&[])),
        [],
        "a long batch alone is well"
    );
    let of_it = lapsed(&[("long", 2)]);
    assert_eq!(subjects(&timing(TIMING, &[long.clone()], &of_it)), ["long"]);
    let mut late = listed("late");
    (late.facts.held, late.heartbeat_ms) = (1, Some(61_000));
    assert_eq!(subjects(&timing(TIMING, &[late], &lapsed(&[]))), ["late"]);
    // A long batch of another worker has nothing to do with it.
    let both = lapsed(&[("long", 2), ("w", 3), ("gone", 1)]);
    let found = timing(TIMING, &[long.clone(), listed("w")], &both);
    assert_eq!(subjects(&found), ["long", "lease_ttl_sec"]);
    assert!(found[0].finding.ends_with("and 2 leases of it ran out"));
    assert_eq!(found[1].finding, "4 leases of 60 s ran out: of gone 1, w 3");
    let of_another = lapsed(&[("w", 1)]);
    let found = timing(TIMING, &[long], &of_another);
    assert_eq!(subjects(&found), ["lease_ttl_sec"]);
    let of_nobody = Lapses::from([(None, 7)]);
    let found = timing(TIMING, &[], &of_nobody);
    assert_eq!(found[0].finding, "7 leases of 60 s ran out");
}

#[test]
fn a_heartbeat_interval_beyond_a_third_of_the_lease_is_no_trouble() {
    assert_eq!(beats_sooner(TIMING), None);
    let long = Timing {
        hb_interval_ms: 30_000,
        ..TIMING
    };
    assert_eq!(timing(long, &[], &lapsed(&[])), []);
    assert_eq!(
        beats_sooner(long).as_deref(),
        Some(
            "heartbeats are sent every 20 s, a third of the lease, which is less than hb_interval_sec"
        )
    );
}

#[test]
fn leases_that_ran_out_are_counted_for_the_worker_that_had_them_wherever_it_was_noticed() {
    use crate::record::cause;
    let id = |name: &str| WorkerId::new(name).expect("an id");
    let mut node = stored().nodes.remove(0);
    node.history = History::default();
    let mut enter = |at_ms, cause: &str| node.history.push(NodeState::Ready, at_ms, cause);
    enter(10, &cause::granted_to(&id("old")));
    enter(20, cause::LEASE_RAN_OUT);
    for (at_ms, worker, why) in [
        (30, "a", cause::LEASE_RAN_OUT),
        (40, "b", cause::LEASE_LAPSED),
        (50, "c", "its worker's process is gone"),
        (60, "a", cause::LEASE_LAPSED),
        (70, "d", cause::WORKER_LOST),
    ] {
        enter(at_ms, &cause::granted_to(&id(worker)));
        enter(at_ms + 5, why);
    }
    let of = |names: &[&str]| names.iter().map(|n| Some(id(n))).collect::<Vec<_>>();
    assert_eq!(lapses(&node, 20), of(&["a", "b", "a"]));
    node.failure = Some(Failure {
        node_id: node.node_id.clone(),
        reason_code: cause::WORKER_LOST.into(),
        error: format!(
            "lost 5 grants in a row; the last time: {}",
            cause::LEASE_RAN_OUT
        )
        .into(),
    });
    assert_eq!(lapses(&node, 20), of(&["a", "b", "a", "d"]));
    assert_eq!(lapses(&node, 0), of(&["old", "a", "b", "a", "d"]));
    assert_eq!(lapses(&node, 75), []);
}

#[test]
fn leases_of_another_length_than_the_settings_say_are_found() {
    let mut other = listed("other");
    other.lease_ttl_ms = 30_000;
    let found = timing(TIMING, &[listed("w"), other.clone()], &lapsed(&[]));
    assert_eq!(subjects(&found), ["lease_ttl_sec"]);
    let text = &found[0].finding;
    assert!(text.contains("30 s") && text.contains("60 s"), "{text}");
    // A default says nothing, and a worker without a lease neither.
    let mut timing_of_defaults = TIMING;
    timing_of_defaults.lease_given = false;
    assert_eq!(
        timing(timing_of_defaults, &[other.clone()], &lapsed(&[])),
        []
    );
    other.lease_ttl_ms = 0;
    assert_eq!(timing(TIMING, &[other], &lapsed(&[])), []);
}

#[test]
fn a_shard_that_nobody_folds_and_streams_of_others_are_found() {
    let found = folding(&[(ShardId(0), 12, Some(41_000))]);
    assert_eq!(subjects(&found), ["shard 0"]);
    let inboxes = BTreeMap::from([(WorkerId::new("w").expect("an id"), 16)]);
    assert_eq!(subjects(&subscription(3, 16, &inboxes)), ["streams", "w"]);
}

#[test]
fn memory_that_grows_is_found_and_a_peak_is_not() {
    const MIB: u64 = 1024 * 1024;
    let samples = |bytes: &dyn Fn(u64) -> u64| -> Vec<(u64, u64)> {
        (0..16)
            .map(|n| ((16 - n) * 60_000, bytes(n) * MIB))
            .collect()
    };
    let grown = samples(&|n| 100 + n * 20);
    let finding = memory_growth("w", &grown).expect("it grows");
    assert_eq!(
        finding.finding,
        "its memory grew from 160 to 340 MiB within 16 min"
    );
    for well in [
        samples(&|_| 500),
        samples(&|n| if n == 8 { 4_000 } else { 100 }),
        samples(&|n| 100 + n),
        samples(&|n| 2_000 - n * 100),
        grown[..7].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(memory_growth("w", &well), None);
    }
}

fn stored() -> TaskWithNodes {
    let node = |name: &str, state| {
        let mut history = History::default();
        history.push(state, 0, "test");
        NodeRecord {
            version: RECORD_VERSION,
            task_id: TaskId::new("t").expect("an id"),
            node_id: NodeId::new(name).expect("an id"),
            state,
            epoch: Epoch(1),
            lease_no: Token(1),
            grant: None,
            last_seq: 0,
            accepted: 2,
            checkpoint: None,
            checkpoint_batches: 0,
            cursor: Cursor::new(),
            cursor_batches: 0,
            totals: Totals::from([(
                "n".into(),
                MetricTotal {
                    count: 3,
                    ..MetricTotal::default()
                },
            )]),
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
            history,
        }
    };
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "ocr"}, {"node_id": "b", "type": "ocr", "depends_on": ["a"]}]});
    let mut history = History::default();
    history.push(TaskState::Running, 0, "test");
    let mut running = node("b", NodeState::Running);
    running.grant = Some(Grant {
        worker_id: WorkerId::new("w").expect("an id"),
        incarnation: Incarnation(1),
        inbox: 0,
        lease_ttl_ms: 1,
        cancel: None,
    });
    TaskWithNodes {
        task: TaskRecord {
            version: RECORD_VERSION,
            task_id: TaskId::new("t").expect("an id"),
            submission_hash: 1,
            graph: Json::encode(&graph).expect("JSON"),
            vars: Json::default(),
            idempotency_key: None,
            state: TaskState::Running,
            settled: false,
            failure: None,
            cancel_grace_ms: None,
            control: TaskControl::default(),
            vars_version: 0,
            submitted_vars: None,
            rerun: None,
            created_at_ms: 0,
            history,
        },
        nodes: vec![node("a", NodeState::Finished), running],
        node_age_ms: vec![0, 0],
    }
}

#[test]
fn a_function_that_only_its_coordinator_knows_is_no_fault() {
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "coordinator_fn", "io": {"fn": "our.own", "fn_args": {"x": 1}}},
        {"node_id": "b", "type": "ocr", "depends_on": ["a"]}]});
    let mut task = stored();
    task.task.graph = Json::encode(&graph).expect("JSON");
    assert_eq!(faults_of(&task), Vec::<String>::new());
}

#[test]
fn the_nodes_of_a_task_that_was_set_aside_stay_as_they_were() {
    let mut task = stored();
    task.task.state = TaskState::Quarantined;
    task.task.settled = true;
    task.task.history.push(TaskState::Quarantined, 0, "test");
    assert_eq!(faults_of(&task), Vec::<String>::new());
    // What runs of a failed task still held is nobody's any more either.
    let mut task = stored();
    task.task.state = TaskState::Failed;
    task.task.settled = true;
    task.task.failure = Some(Failure {
        node_id: NodeId::new("a").expect("an id"),
        reason_code: "bad_input".into(),
        error: "no".into(),
    });
    task.task.history.push(TaskState::Failed, 0, "test");
    assert_eq!(faults_of(&task), Vec::<String>::new());
}

type Damage = (&'static str, fn(&mut TaskWithNodes));

#[test]
fn state_that_makes_no_sense_is_found_and_sound_state_is_not() {
    assert_eq!(faults_of(&stored()), Vec::<String>::new());
    let damages: [Damage; 12] = [
        ("node `b` of its graph has no record", |t| {
            drop(t.nodes.pop())
        }),
        ("node `x` is in no graph", |t| {
            t.nodes[0].node_id = NodeId::new("x").expect("an id");
        }),
        ("its graph breaks", |t| t.task.graph = Json::default()),
        ("it is settled, in state Running with 1 grants", |t| {
            t.task.settled = true
        }),
        ("it is Finished, and 1 of its nodes have not ended", |t| {
            t.task.state = TaskState::Finished;
        }),
        ("it is Failed, and no cause is stored", |t| {
            t.task.state = TaskState::Failed
        }),
        (
            "its state is Queued, its last transition was to Running",
            |t| {
                t.task.state = TaskState::Queued;
            },
        ),
        ("node `b`: its state is Running, with no grant", |t| {
            t.nodes[1].grant = None
        }),
        ("node `b`: its newest token is 1, after 2 grants", |t| {
            t.nodes[1].grants = 2
        }),
        ("node `a`: its checkpoint or cursor is ahead", |t| {
            t.nodes[0].checkpoint_batches = 3;
        }),
        (
            "node `a`: its totals count 3 values, of 1 accepted batches",
            |t| {
                t.nodes[0].accepted = 1;
            },
        ),
        ("node `a`: it has failed, and no cause is stored", |t| {
            t.nodes[0].state = NodeState::Failed;
        }),
    ];
    for (said, damage) in damages {
        let mut task = stored();
        damage(&mut task);
        let faults = faults_of(&task);
        assert!(
            faults.iter().any(|fault| fault.starts_with(said)),
            "{said}: {faults:?}"
        );
    }
}

#[test]
fn every_finding_about_what_runs_is_told_word_for_word() {
    let role = Role::new("ocr").expect("a role");
    let waiting = BTreeMap::from([(role, 3)]);
    let mut silent = listed("w");
    silent.facts.heard_ms = Some(100_000);
    let (mut twin, mut stranger, mut newer) = (listed("twin"), listed("stranger"), listed("newer"));
    twin.older_heard = 2;
    stranger.registered = None;
    newer.heard = Some(Incarnation(7));
    let tight = Timing {
        db_cancel_poll_ms: 70_000,
        ..TIMING
    };
    let (mut long, mut late) = (listed("long"), listed("late"));
    long.batch_ms_max = 95_000;
    (late.facts.held, late.heartbeat_ms) = (2, Some(61_000));
    let inboxes = BTreeMap::from([(WorkerId::new("w").expect("an id"), 16)]);
    let mib = 1024 * 1024;
    let samples: Vec<(u64, u64)> = (1..=8)
        .map(|n| (9_000 - n * 1_000, n * 100 * mib))
        .collect();
    let found = [
        roles(&waiting, &[]),
        roles(&waiting, &[silent]),
        conflicts(&[twin, stranger, newer]),
        subscription(3, 16, &inboxes),
        folding(&[(ShardId(1), 12, Some(41_000))]),
        timing(tight, &[long, late], &lapsed(&[("long", 4)])),
        timing(TIMING, &[], &lapsed(&[("w", 4)])),
        memory_growth("w", &samples).into_iter().collect(),
    ]
    .concat();
    let told: Vec<String> = found
        .iter()
        .map(|f| format!("{}: {} -> {}", f.subject, f.finding, f.cure))
        .collect();
    let start = "start one: flowkit worker --role ocr; or is the `type` in the graph misspelt?";
    assert_eq!(
        told,
        [
            format!("ocr: 3 nodes wait for a worker of this role, and none lives -> {start}")
                .as_str(),
            &format!(
                "ocr: 3 nodes wait for a worker of this role, and none lives (the last was heard 100 s ago) \
                 -> {start}"
            ),
            "twin: two processes with this id speak in turn -> give each process a worker_id of its own, or \
             none; the older one is stopped as soon as it reads the store",
            "stranger: it speaks on these topics, and this store does not know it -> two deployments share a \
             topic_prefix: give each its own, or name the right database",
            "newer: process start 7 speaks, and the store knows of 2 only -> two deployments share a \
             topic_prefix, or the store was set back to an older state",
            "streams: 3 of the newest entries are no messages of FlowKit -> see which other program writes to \
             these topics; they are skipped, nothing is lost by them",
            "w: it listens on inbox 16, and this deployment has 16 -> stop it and start it again: it was \
             started for another deployment",
            "shard 1: 12 messages wait, the oldest for 41 s: no coordinator folds them -> start a coordinator \
             (flowkit coordinator); if one runs, ask its /readyz and its log",
            "db_cancel_poll_ms: grants are read every 70 s, less than once per lease of 60 s -> set \
             db_cancel_poll_ms well below lease_ttl_sec",
            "long: a batch was in work for 95 s, longer than a lease of 60 s, and 4 leases of it ran out -> a handler \
             must not block its thread (use spawn_blocking or a child process); make batches smaller, or raise \
             lease_ttl_sec",
            "late: it holds 2 nodes and sent no heartbeat for 61 s -> see whether the process is alive and \
             reaches the transport; its nodes are granted anew when their lease runs out",
            "lease_ttl_sec: 4 leases of 60 s ran out: of w 4 -> did workers die or lose the network at that time? If \
             not, raise lease_ttl_sec",
            "w: its memory grew from 200 to 700 MiB within 8 s -> let handlers give back what a run took in \
             `cleanup`, keep no batch after its `process`, and look with a memory profiler",
        ]
    );
}
