//! Named schedules, each a plan of a few lines. The first four are those of the small exhaustive
//! models that the protocol was worked out with.

use flowkit_sim::plan::{
    Action, ActionKind, Clock, Fault, GraphPlan, Link, Logical, Lost, NodePlan, Plan, Rotten,
    Script, Server, TaskPlan, Trouble, TroubleKind, When, WorkerPlan,
};
use flowkit_sim::runner::{ReplayReport, Tier, replay_plan};

pub(crate) const fn at(ms: u64) -> When {
    When::At { ms }
}

const fn on(what: Logical, nth: u64) -> When {
    When::Event { what, nth }
}

pub(crate) const fn crash(host: u32, when: When, down_ms: u64) -> Fault {
    Fault::Crash {
        host,
        when,
        down_ms,
        new_id: false,
    }
}

const fn stall(host: u32, when: When, for_ms: u64) -> Fault {
    Fault::Stall { host, when, for_ms }
}

/// Runs the plan and requires every promise, and that the named things took effect.
pub(crate) fn hold(plan: &Plan, fired: &[&str]) -> ReplayReport {
    let report = replay_plan(Tier::Zero, plan, true);
    let verdict = &report.verdict;
    assert!(
        verdict.holds(),
        "{:#?}\n{}",
        verdict.failures,
        report.rows.join("\n")
    );
    for family in fired {
        let family = family.trim_start_matches(crate::ON_MACHINES);
        assert!(verdict.fired.contains_key(family), "{family} never fired");
    }
    crate::holds_as_processes(plan, fired);
    report
}

/// How many rows of the run's table hold the text.
pub(crate) fn rows(report: &ReplayReport, text: &str) -> usize {
    report.rows.iter().filter(|row| row.contains(text)).count()
}

/// True time in milliseconds of the first row that holds the text.
fn time_of(report: &ReplayReport, text: &str) -> u64 {
    let row = report.rows.iter().find(|row| row.contains(text));
    let row = row.unwrap_or_else(|| panic!("no row with {text:?}"));
    let ms = row.trim_start().split('.').next().unwrap_or_default();
    ms.parse().expect("a row begins with its time")
}

fn cancel(when: When) -> Action {
    Action {
        when,
        client: 0,
        kind: ActionKind::Cancel {
            task: 0,
            grace_ms: Some(500),
        },
    }
}

fn one_node(script: Script) -> Plan {
    let mut plan = Plan::small();
    plan.tasks[0].graph = GraphPlan {
        nodes: vec![NodePlan::new("scan", "scan", script)],
    };
    plan
}

#[test]
fn grants_every_message_twice_and_runs_that_lapse() {
    let mut plan = Plan::small();
    plan.rates.append_twice = 1_000;
    plan.heal_ms = 12_000;
    let plan = plan
        .with(stall(2, on(Logical::Processing, 2), 5_000))
        .with(stall(3, on(Logical::Processing, 2), 5_000));
    hold(&plan, &["append_twice", "stall"]);
}

#[test]
fn group_commit_lost_replies_late_execution_and_a_takeover_in_between() {
    let mut plan = Plan::small();
    plan.rates.store_reply_lost = 300;
    plan.rates.store_late = 100;
    plan.heal_ms = 15_000;
    let mut repeated = 0;
    for seed in 1..=20 {
        let mut plan = plan
            .clone()
            .with(crash(0, on(Logical::Accepted, 2), 500))
            .with(crash(1, on(Logical::Accepted, 3), 500));
        plan.seed = seed;
        let report = hold(&plan, &["store_reply_lost"]);
        repeated += report.verdict.fired.get("commit_repeated").unwrap_or(&0);
    }
    assert!(repeated > 0, "no commit was repeated after it had happened");
}

#[test]
fn slots_two_shards_share_a_worker_with_one_slot() {
    let mut plan = Plan::small();
    plan.world.shards = 2;
    plan.world.workers.truncate(1);
    plan.world.workers[0].capacity = 1;
    plan.tasks = (0..4)
        .map(|n| TaskPlan {
            vars: serde_json::Value::Null,
            id: format!("task-{n}"),
            key: None,
            options: Default::default(),
            graph: GraphPlan::three_streaming_nodes(),
            rerun: None,
        })
        .collect();
    plan.actions = (0..4)
        .map(|task| Action {
            when: at(100),
            client: 0,
            kind: ActionKind::Submit { task },
        })
        .collect();
    plan.heal_ms = 8_000;
    let plan = plan.with(crash(0, on(Logical::Accepted, 4), 300));
    let report = hold(&plan, &["crash"]);
    assert!(rows(&report, "TAKEOVER S1") >= 1);
}

#[test]
fn timed_lease_clocks_drift_apart_and_the_holder_stalls_past_its_lease() {
    let mut plan = Plan::small();
    let clock = |mono_offset_ms, drift_ppm| Clock {
        mono_offset_ms,
        drift_ppm,
        wall_offset_ms: 0,
    };
    plan.world.clocks = vec![
        clock(0, 500),
        clock(99, 500),
        clock(5_000, -500),
        clock(7, -500),
    ];
    plan.heal_ms = 20_000;
    for nth in [1, 4, 9] {
        let plan = plan
            .clone()
            .with(stall(2, on(Logical::Processing, nth), 4_500))
            .with(stall(3, on(Logical::Processing, nth), 4_500));
        let report = hold(&plan, &["stall"]);
        assert!(rows(&report, "LeaseLapsed") >= 1, "the lease never lapsed");
    }
}

#[test]
fn a_worker_that_dies_in_a_batch_is_replaced_and_the_batch_counts_once() {
    for nth in 1..=12 {
        let plan = Plan::small()
            .with(crash(2, on(Logical::Processing, nth), 200))
            .with(crash(3, on(Logical::Processing, nth), 200));
        hold(&plan, &["crash"]);
    }
}

#[test]
fn a_partition_that_outlasts_the_lease_ends_with_a_fenced_holder() {
    let mut plan = Plan::small();
    plan.heal_ms = 15_000;
    for host in [2, 3] {
        for from in [Server::Store, Server::Broker] {
            plan = plan.with(Fault::Partition {
                host,
                when: on(Logical::Processing, 3),
                for_ms: 6_000,
                from,
                lost: Lost::Both,
            });
        }
    }
    let report = hold(&plan, &["partition_store", "partition_broker"]);
    assert!(report.verdict.virtual_ms > 6_000);
}

#[test]
fn a_cancel_at_every_point_of_a_task_is_final() {
    let mut cancelled = 0;
    for nth in 1..=20 {
        for what in [Logical::BatchSent, Logical::Accepted, Logical::Granted] {
            let mut plan = Plan::small();
            plan.actions.push(cancel(on(what, nth)));
            let report = hold(&plan, &[]);
            cancelled += rows(&report, "Cancelling settled false").min(1);
        }
    }
    assert!(
        cancelled > 10,
        "only {cancelled} cancels met a running task"
    );
}

#[test]
fn a_coordinator_that_wakes_after_its_lease_is_fenced() {
    let mut fenced = 0;
    for nth in 2..=8 {
        let mut plan = Plan::small();
        plan.heal_ms = 12_000;
        // Whichever owns the shard freezes first; the other one is up again when its lease ends.
        let plan = plan
            .with(stall(0, on(Logical::BatchSent, nth), 4_000))
            .with(stall(1, on(Logical::BatchSent, nth), 200));
        let report = hold(&plan, &["stall"]);
        fenced += rows(&report, "refused: Fenced");
    }
    assert!(fenced >= 1, "no zombie ever committed");
}

#[test]
fn a_reader_gives_the_only_slot_back_to_its_source() {
    let mut plan = Plan::small();
    plan.world.workers.truncate(1);
    plan.world.workers[0].capacity = 1;
    plan.heal_ms = 8_000;
    for nth in [2, 5, 7] {
        let plan = plan
            .clone()
            .with(crash(2, on(Logical::Processing, nth), 100));
        hold(&plan, &["crash"]);
    }
}

#[test]
fn a_chain_of_readers_gives_back_the_slot_that_the_first_source_needs() {
    let mut plan = Plan::small();
    plan.world.coordinators = 1;
    plan.world.workers[0].capacity = 1;
    plan.world.workers[1].roles = vec!["measure".to_owned()];
    plan.world.workers[1].capacity = 1;
    plan.heal_ms = 9_000;
    let plan = plan.with(Fault::Crash {
        host: 1,
        when: on(Logical::Processing, 3),
        down_ms: 500,
        new_id: true,
    });
    hold(&plan, &["crash_new_id"]);
}

#[test]
fn an_unknown_commit_is_repeated_until_it_is_known() {
    let mut plan = Plan::small();
    plan.rates.store_lost = 200;
    plan.rates.store_reply_lost = 200;
    plan.heal_ms = 20_000;
    let mut repeated = 0;
    for seed in 1..=20 {
        plan.seed = seed;
        let report = hold(&plan, &["store_lost"]);
        repeated += report.verdict.fired.get("commit_repeated").unwrap_or(&0);
    }
    assert!(repeated > 0, "no commit was repeated after it had happened");
}

#[test]
fn a_start_that_comes_again_after_the_run_lapsed_is_not_run_again() {
    let mut plan = one_node(Script {
        batches: 8,
        batch_ms: 300,
        ..Script::default()
    });
    plan.rates.append_twice = 1_000;
    plan.heal_ms = 15_000;
    let plan = plan
        .with(Fault::Partition {
            host: 2,
            when: on(Logical::Processing, 2),
            for_ms: 4_000,
            from: Server::Broker,
            lost: Lost::Replies,
        })
        .with(Fault::Partition {
            host: 3,
            when: on(Logical::Processing, 2),
            for_ms: 4_000,
            from: Server::Broker,
            lost: Lost::Replies,
        });
    hold(&plan, &["partition_replies", "append_twice"]);
}

#[test]
fn a_restarted_worker_gets_its_nodes_back_long_before_its_lease_ends() {
    let mut plan = Plan::small();
    plan.world.lease_ttl_ms = 60_000;
    plan.world.workers.truncate(1);
    let plan = plan.with(crash(2, on(Logical::Processing, 3), 50));
    let report = hold(&plan, &["crash"]);
    let finished = time_of(&report, "task-0 Finished settled true");
    assert!(finished < 2_000, "finished after {finished} ms");
}

#[test]
fn a_worker_that_stops_gracefully_hands_its_nodes_over_at_once() {
    let mut plan = Plan::small();
    plan.world.lease_ttl_ms = 60_000;
    for host in [2, 3] {
        let plan = plan.clone().with(Fault::Shutdown {
            host,
            when: on(Logical::Processing, 3),
            grace_ms: 500,
            down_ms: 20_000,
        });
        let report = hold(&plan, &["shutdown"]);
        let finished = time_of(&report, "task-0 Finished settled true");
        assert!(finished < 2_000, "finished after {finished} ms");
    }
}

#[test]
fn a_second_process_of_one_worker_id_ends_the_first() {
    for host in [2, 3] {
        let plan = Plan::small().with(Fault::Twin {
            host,
            when: on(Logical::Processing, 2),
        });
        hold(&plan, &["twin", "superseded"]);
    }
}

#[test]
fn entries_that_are_no_messages_change_nothing() {
    let mut plan = Plan::small();
    for nth in 1..=6 {
        plan = plan.with(Fault::Poison {
            when: on(Logical::BatchSent, nth),
            shard: 0,
        });
    }
    hold(&plan, &["poison"]);
}

#[test]
fn a_batch_that_no_store_takes_fails_its_node_and_not_the_shard() {
    let mut plan = Plan::small().with(Fault::RefuseBatches {
        task: 0,
        node: "measure".to_owned(),
    });
    plan.tasks.push(TaskPlan {
        vars: serde_json::Value::Null,
        id: "task-1".to_owned(),
        key: None,
        options: Default::default(),
        graph: GraphPlan::three_streaming_nodes(),
        rerun: None,
    });
    plan.actions.push(Action {
        when: at(110),
        client: 0,
        kind: ActionKind::Submit { task: 1 },
    });
    let report = hold(&plan, &["refuse_batches"]);
    assert!(rows(&report, "(event_refused)") >= 1);
    assert!(rows(&report, "task-1 Finished settled true") == 1);
}

#[test]
fn a_task_that_no_store_takes_is_refused_to_its_client_and_others_go_on() {
    let mut plan = Plan::small().with(Fault::RefuseTask { task: 1 });
    for number in 1..=2 {
        plan.tasks.push(TaskPlan {
            vars: serde_json::Value::Null,
            id: format!("task-{number}"),
            key: None,
            options: Default::default(),
            graph: GraphPlan::three_streaming_nodes(),
            rerun: None,
        });
        plan.actions.push(Action {
            when: at(110),
            client: 0,
            kind: ActionKind::Submit { task: number },
        });
    }
    let report = hold(&plan, &["refuse_task"]);
    assert!(rows(&report, "gets Submit of task-1: ok false") == 1);
    assert!(rows(&report, "task-0 Finished settled true") == 1);
    assert!(rows(&report, "task-2 Finished settled true") == 1);
}

/// Nobody else will answer those who wait for it.
#[test]
fn a_task_with_a_record_that_cannot_be_read_is_told_of_and_others_go_on() {
    let rotten = [
        Rotten::Task { task: 1 },
        Rotten::Node {
            task: 1,
            node: "scan".to_owned(),
        },
    ];
    for what in rotten {
        let when = on(Logical::Processing, 4);
        let mut plan = Plan::small().with(Fault::Rot { when, what });
        for host in 0..plan.world.coordinators {
            plan = plan.with(crash(host, when, 100));
        }
        plan.tasks.push(TaskPlan {
            vars: serde_json::Value::Null,
            id: "task-1".to_owned(),
            key: None,
            options: Default::default(),
            graph: GraphPlan::three_streaming_nodes(),
            rerun: None,
        });
        plan.actions.push(Action {
            when: at(110),
            client: 0,
            kind: ActionKind::Submit { task: 1 },
        });
        let report = hold(&plan, &["rot_task"]);
        assert!(rows(&report, "gets Wait of task-1: ok true Some(Quarantined)") == 1);
        assert!(rows(&report, "task-0 Finished settled true") == 1);
    }
}

#[test]
fn a_commit_refused_once_is_folded_again_and_nothing_is_blamed() {
    for nth in 1..=20 {
        let plan = Plan::small().with(Fault::RefuseCommit { nth });
        hold(&plan, &["on machines: refuse_commit"]);
    }
}

#[test]
fn a_handler_that_cannot_be_ended_is_abandoned_and_the_task_settles() {
    let mut plan = one_node(Script {
        batches: 3,
        blocks: true,
        trouble: vec![Trouble {
            epoch: 0,
            batch: Some(1),
            hook: None,
            kind: TroubleKind::Hangs,
        }],
        ..Script::default()
    });
    plan.actions.push(cancel(at(600)));
    let report = hold(&plan, &["handler_blocks"]);
    assert!(rows(&report, "task-0 Cancelled settled true") == 1);
}

#[test]
fn the_same_submission_again_is_answered_and_another_graph_is_a_conflict() {
    let mut plan = Plan::small();
    for (ms, kind) in [
        (105, ActionKind::Submit { task: 0 }),
        (150, ActionKind::SubmitOther { task: 0 }),
        (2_000, ActionKind::Submit { task: 0 }),
        (2_100, ActionKind::SubmitOther { task: 0 }),
    ] {
        plan.actions.push(Action {
            when: at(ms),
            client: 0,
            kind,
        });
    }
    let report = hold(&plan, &[]);
    assert_eq!(rows(&report, "IdempotencyConflict"), 2);
}

#[test]
fn retries_wait_for_their_back_off_and_end_at_the_policy() {
    let trouble = |epoch, batch, kind| Trouble {
        epoch,
        batch,
        hook: None,
        kind,
    };
    let mut plan = one_node(Script {
        batches: 4,
        checkpoints: 1,
        trouble: vec![
            trouble(1, Some(2), TroubleKind::Transient),
            trouble(2, Some(3), TroubleKind::RetryAfter { ms: 900 }),
        ],
        ..Script::default()
    });
    plan.tasks[0].graph.nodes[0].retry_max = 3;
    let report = hold(&plan, &[]);
    assert_eq!(rows(&report, "TASK_FAILED"), 2);
    plan.tasks[0].graph.nodes[0].retry_max = 2;
    let report = hold(&plan, &[]);
    assert_eq!(rows(&report, "task-0 Failed settled true"), 1);
}

#[test]
fn a_source_that_lost_an_accepted_batch_fails_for_good() {
    let mut plan = one_node(Script {
        batches: 3,
        trouble: vec![Trouble {
            epoch: 1,
            batch: None,
            hook: None,
            kind: TroubleKind::Transient,
        }],
        shrinks_at_epoch: Some(2),
        ..Script::default()
    });
    plan.tasks[0].graph.nodes[0].retry_max = 3;
    let report = hold(&plan, &[]);
    assert!(rows(&report, "(input_changed)") >= 1);
}

#[test]
fn a_handled_failure_leaves_the_task_on_its_way() {
    let mut plan = one_node(Script {
        trouble: vec![Trouble {
            epoch: 0,
            batch: Some(0),
            hook: None,
            kind: TroubleKind::Permanent,
        }],
        ..Script::default()
    });
    let mut rescue = NodePlan::new("rescue", "measure", Script::default());
    rescue.parents.push(("scan".to_owned(), Link::OnFailure));
    let mut party = NodePlan::new("party", "measure", Script::default());
    party.parents.push(("scan".to_owned(), Link::OnSuccess));
    plan.tasks[0].graph.nodes.extend([rescue, party]);
    let report = hold(&plan, &[]);
    assert_eq!(rows(&report, "task-0 Finished settled true"), 1);
    assert!(rows(&report, "party Skipped") >= 1);
}

#[test]
fn who_gets_two_nodes_in_one_commit_was_the_most_free_one_for_the_first() {
    let mut plan = Plan::small();
    let worker = |id: &str, roles: &[&str]| WorkerPlan {
        id: id.to_owned(),
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        capacity: 3,
    };
    // Only one of them can run the second node.
    plan.world.workers = vec![worker("w0", &["scan", "measure"]), worker("w1", &["scan"])];
    plan.world.announce_interval_ms = 1_000;
    plan.tasks[0].graph = GraphPlan {
        nodes: vec![
            NodePlan::new("first", "scan", Script::default()),
            NodePlan::new("second", "measure", Script::default()),
        ],
    };
    plan.actions[0].when = at(6_000);
    plan.heal_ms = 8_000;
    let report = hold(&plan, &[]);
    assert_eq!(rows(&report, "TASK_START"), 2);
}
