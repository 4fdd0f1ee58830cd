//! Named schedules, a few lines each: what breaks such engines, and that it does not break this one.
//!
//! Hosts of [`Plan::small`]: 0 and 1 are coordinators, 2 and 3 workers. The first six tests are the
//! schedules of the four models that the design was judged by: grants, group commit, slots, leases.

use flowkit_sim::plan::{
    Action, ActionKind, Fault, Leaving, Logical, Lost, Plan, Rates, Server, When, WorkerPlan,
};
use flowkit_sim::runner::{Tier, Verdict, check};

const WORKER: u32 = 2;

fn at(what: Logical, nth: u64) -> When {
    When::Event { what, nth }
}

/// Runs the plan twice; every promise holds, and each fault named took effect.
fn holds(plan: &Plan, fired: &[&str]) -> Verdict {
    let verdict = check(Tier::Zero, plan, true);
    assert!(verdict.holds(), "{:?}", verdict.failures);
    for family in fired {
        let family = family.trim_start_matches(crate::ON_MACHINES);
        assert!(
            verdict.fired.get(family).is_some_and(|n| *n > 0),
            "{family} did not fire: {:?}",
            verdict.fired
        );
    }
    crate::holds_as_processes(plan, fired);
    verdict
}

fn crash(host: u32, when: When, down_ms: u64) -> Fault {
    Fault::Crash {
        host,
        when,
        down_ms,
        new_id: false,
    }
}

fn partition(host: u32, when: When, for_ms: u64, from: Server, lost: Lost) -> Fault {
    Fault::Partition {
        host,
        when,
        for_ms,
        from,
        lost,
    }
}

fn cancel(when: When) -> Action {
    Action {
        when,
        client: 0,
        kind: ActionKind::Cancel {
            task: 0,
            grace_ms: None,
        },
    }
}

/// One worker with one slot for the whole streaming graph.
fn one_slot() -> Plan {
    let mut plan = Plan::small();
    plan.world.workers.truncate(1);
    plan.world.workers[0].capacity = 1;
    plan
}

#[test]
fn grants_a_run_that_lapses_by_itself_does_not_run_again_under_its_token() {
    // START arrives twice, the run lapses behind a partition, START is sent again.
    let mut plan = Plan::small();
    plan.rates = Rates {
        append_twice: 300,
        ..Rates::default()
    };
    for host in [WORKER, WORKER + 1] {
        let fault = partition(
            host,
            at(Logical::Processing, 2),
            7_000,
            Server::Broker,
            Lost::Both,
        );
        plan = plan.with(fault);
    }
    plan.heal_ms = 12_000;
    holds(&plan, &["append_twice", "partition_broker"]);
}

#[test]
fn group_commit_a_commit_that_nobody_answers_for_is_submitted_again_unchanged() {
    let mut repeated = 0;
    for seed in 0..20 {
        let mut plan = Plan::small();
        plan.seed = seed;
        plan.rates = Rates {
            store_reply_lost: 250,
            store_late: 100,
            ..Rates::default()
        };
        let verdict = holds(&plan, &["store_reply_lost"]);
        repeated += verdict.fired.get("commit_repeated").copied().unwrap_or(0);
    }
    assert!(
        repeated > 0,
        "at least one commit was found to have happened"
    );
}

#[test]
fn group_commit_an_owner_that_wakes_up_late_is_fenced() {
    let mut fenced = 0;
    for host in [0, 1] {
        for nth in 2..6 {
            let when = at(Logical::Committed, nth);
            let plan = Plan::small().with(Fault::Stall {
                host,
                when,
                for_ms: 6_000,
            });
            let verdict = holds(&plan, &["stall"]);
            fenced += verdict.fired.get("zombie_owner").copied().unwrap_or(0);
        }
    }
    assert!(fenced > 0, "at least one late owner tried to commit");
}

#[test]
fn slots_a_reader_makes_room_for_its_source_on_the_only_slot() {
    holds(&one_slot(), &[]);
    // After a crash the reader may get the only slot first.
    for nth in 1..6 {
        let plan = one_slot().with(crash(WORKER, at(Logical::Accepted, nth), 200));
        holds(&plan, &["crash"]);
    }
}

#[test]
fn leases_heartbeats_that_are_confirmed_late_revive_nothing() {
    let mut plan = Plan::small();
    plan.rates = Rates {
        confirm_late: 400,
        confirm_lost: 100,
        ..Rates::default()
    };
    holds(&plan, &["confirm_late", "on machines: confirm_lost"]);
}

#[test]
fn leases_a_worker_that_stalls_past_its_lease_changes_nothing_when_it_comes_back() {
    for nth in 1..8 {
        let when = at(Logical::Processing, nth);
        let plan = Plan::small().with(Fault::Stall {
            host: WORKER,
            when,
            for_ms: 9_000,
        });
        holds(&plan, &["stall"]);
    }
}

#[test]
fn a_worker_crashes_in_the_middle_of_a_batch() {
    for nth in 1..8 {
        let plan = Plan::small().with(crash(WORKER, at(Logical::Processing, nth), 500));
        holds(&plan, &["crash"]);
    }
}

#[test]
fn a_restarted_worker_is_an_instant_expiry() {
    let mut plan = Plan::small();
    // So long a lease that nobody could have waited for it.
    plan.world.lease_ttl_ms = 600_000;
    plan.heal_ms = 300;
    let plan = plan.with(crash(WORKER, at(Logical::Processing, 3), 100));
    let verdict = holds(&plan, &["on machines: crash"]);
    let settled = verdict.settled_after_ms.expect("it settles");
    assert!(settled < 1_000, "it settled after {settled} ms");
}

#[test]
fn a_worker_that_comes_back_under_another_id_is_replaced_after_its_lease() {
    let when = at(Logical::Processing, 3);
    let fault = Fault::Crash {
        host: WORKER,
        when,
        down_ms: 500,
        new_id: true,
    };
    holds(&Plan::small().with(fault), &["crash_new_id"]);
}

#[test]
fn a_second_process_under_the_same_worker_id_ends_the_first() {
    let fault = Fault::Twin {
        host: WORKER,
        when: at(Logical::Processing, 2),
    };
    holds(&Plan::small().with(fault), &["twin", "superseded"]);
}

#[test]
fn a_cancel_races_every_step_of_the_task() {
    for what in [
        Logical::Granted,
        Logical::Began,
        Logical::Accepted,
        Logical::DoneSent,
    ] {
        for nth in 1..5 {
            let mut plan = Plan::small();
            plan.actions.push(cancel(at(what, nth)));
            holds(&plan, &[]);
        }
    }
}

#[test]
fn a_cancel_is_final_over_a_takeover() {
    for host in [0, 1] {
        let mut plan = Plan::small().with(crash(host, at(Logical::Cancelling, 1), 400));
        plan.actions.push(cancel(at(Logical::Accepted, 2)));
        holds(&plan, &[]);
    }
}

#[test]
fn a_handler_that_blocks_is_abandoned_and_holds_up_nobody_else() {
    let mut plan = Plan::small();
    plan.tasks[0].graph.nodes[0].script.ignores_cancel = true;
    plan.tasks[0].graph.nodes[0].script.blocks = true;
    plan.tasks[0].graph.nodes[0].script.batch_ms = 60_000;
    plan.actions.push(cancel(at(Logical::Processing, 2)));
    holds(&plan, &["handler_blocks"]);
}

#[test]
fn both_coordinators_crash_at_once() {
    let when = at(Logical::Accepted, 2);
    let plan = Plan::small()
        .with(crash(0, when, 900))
        .with(crash(1, when, 400));
    holds(&plan, &["crash"]);
}

#[test]
fn the_network_reaches_the_broker_but_not_the_store() {
    for (from, family) in [
        (Server::Store, "partition_store"),
        (Server::Broker, "partition_broker"),
    ] {
        for host in 0..4 {
            let when = at(Logical::Accepted, 1);
            let plan = Plan::small().with(partition(host, when, 5_000, from, Lost::Both));
            holds(&plan, &[family]);
        }
    }
}

#[test]
fn requests_get_lost_although_replies_would_come() {
    for host in 0..4 {
        for from in [Server::Store, Server::Broker] {
            let when = at(Logical::Processing, 1);
            let plan = Plan::small().with(partition(host, when, 2_500, from, Lost::Requests));
            holds(&plan, &["partition_requests"]);
        }
    }
}

#[test]
fn replies_get_lost_although_the_work_was_done() {
    for host in 0..4 {
        for from in [Server::Store, Server::Broker] {
            let when = at(Logical::Processing, 1);
            let plan = Plan::small().with(partition(host, when, 2_500, from, Lost::Replies));
            holds(&plan, &["partition_replies"]);
        }
    }
}

#[test]
fn the_store_is_away_while_a_shard_is_taken_over() {
    for nth in 1..3 {
        let when = at(Logical::Takeover, nth);
        let away = Fault::Away {
            server: Server::Store,
            when,
            for_ms: 1_500,
            how: Leaving::Killed,
        };
        let plan = Plan::small()
            .with(away)
            .with(crash(0, at(Logical::Accepted, 1), 300));
        holds(&plan, &[]);
    }
}

#[test]
fn an_entry_that_is_no_message_is_set_aside() {
    let poison = Fault::Poison {
        when: at(Logical::Accepted, 1),
        shard: 0,
    };
    holds(&Plan::small().with(poison), &["poison"]);
}

#[test]
fn a_refused_commit_costs_nothing_and_a_refused_batch_costs_its_node() {
    for nth in 1..6 {
        holds(
            &Plan::small().with(Fault::RefuseCommit { nth }),
            &["refuse_commit"],
        );
    }
    let refuse = Fault::RefuseBatches {
        task: 0,
        node: "measure".to_owned(),
    };
    holds(&Plan::small().with(refuse), &["refuse_batches"]);
}

#[test]
fn a_worker_that_stops_hands_its_runs_over() {
    for nth in 1..6 {
        let when = at(Logical::Processing, nth);
        let stop = Fault::Shutdown {
            host: WORKER,
            when,
            grace_ms: 200,
            down_ms: 1_000,
        };
        holds(&Plan::small().with(stop), &["shutdown"]);
    }
}

#[test]
fn one_process_loses_its_unsynced_commits_with_its_broker() {
    let mut lost = 0;
    for nth in 1..12 {
        let mut plan = Plan::small_embedded().with(crash(0, at(Logical::Committed, nth), 100));
        // How many survive is drawn.
        plan.seed = nth;
        let verdict = holds(&plan, &["crash"]);
        lost += verdict.fired.get("unsynced_lost").copied().unwrap_or(0);
    }
    assert!(lost > 3, "commits were lost {lost} times");
}

fn log_lost(when: When, newest: Option<u64>) -> Fault {
    Fault::LogLost {
        when,
        shard: 0,
        newest,
    }
}

#[test]
fn a_log_that_is_created_anew_under_its_owner_is_read_from_its_start() {
    for what in [Logical::Granted, Logical::BatchSent, Logical::DoneSent] {
        for nth in 1..4 {
            let plan = Plan::small().with(log_lost(at(what, nth), None));
            holds(&plan, &["log_lost"]);
        }
    }
}

#[test]
fn a_log_that_loses_its_newest_entries_costs_runs_and_no_batch() {
    let mut noticed = 0;
    for newest in [1, 2, 5] {
        for what in [Logical::BatchSent, Logical::DoneSent] {
            for nth in 1..4 {
                let plan = Plan::small().with(log_lost(at(what, nth), Some(newest)));
                let verdict = holds(&plan, &[]);
                noticed += verdict.fired.get("log_lost").copied().unwrap_or(0);
            }
        }
    }
    assert!(noticed > 0, "an owner fell out of its log");
}

#[test]
fn a_log_that_is_lost_with_its_owner_costs_no_acknowledged_task() {
    for newest in [None, Some(1), Some(10)] {
        for nth in 1..5 {
            let when = at(Logical::Committed, nth);
            let plan = Plan::small()
                .with(log_lost(when, newest))
                .with(crash(0, when, 1_000))
                .with(crash(1, when, 500));
            holds(&plan, &["crash"]);
        }
    }
}

#[test]
fn shards_share_workers() {
    let mut plan = Plan::small();
    plan.world.shards = 3;
    plan.world.workers = vec![WorkerPlan {
        id: "w0".to_owned(),
        roles: plan.world.workers[0].roles.clone(),
        capacity: 1,
    }];
    for task in 1..6 {
        let mut other = plan.tasks[0].clone();
        other.id = format!("task-{task}");
        plan.tasks.push(other);
        plan.actions.push(Action {
            when: When::At { ms: 100 },
            client: 0,
            kind: ActionKind::Submit { task },
        });
    }
    holds(&plan, &[]);
}

#[test]
fn wall_clocks_that_jump_change_nothing() {
    let calm = holds(&Plan::small(), &[]);
    let mut plan = Plan::small();
    for host in 0..4 {
        let when = at(Logical::Processing, 1);
        plan = plan.with(Fault::WallStep {
            host,
            when,
            by_ms: -86_400_000,
        });
    }
    let jumped = holds(&plan, &["wall_step"]);
    assert_eq!(jumped.virtual_ms, calm.virtual_ms);
    assert_eq!(jumped.effects, calm.effects);
}
