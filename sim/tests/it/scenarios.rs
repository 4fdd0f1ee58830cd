//! Named scenarios, each a plan of a few lines. The first four are those of the small exhaustive
//! models that the protocol was worked out with. What befalls single tasks is in `scenarios_tasks`.

use flowkit_sim::plan::{
    Clock, Fault, GraphPlan, Logical, Lost, NodePlan, Plan, Script, Server, WorkerPlan,
};

use crate::pieces::{
    WORKER, at, both_busy, busy, cancel, crash, cut, on, one_slot, one_worker, shards_on_one_slot,
    stall,
};
use crate::tiers::{FINISHED, LAPSES, Met, holds};

#[test]
fn grants_every_message_twice_and_runs_that_lapse() {
    let mut plan = Plan::small();
    plan.rates.append_twice = 1_000;
    plan.heal_ms = 12_000;
    let plan = plan
        .with(stall(2, on(Logical::Processing, 2), 5_000))
        .with(stall(3, on(Logical::Processing, 2), 5_000));
    holds(
        &plan,
        &["append_twice", "stall_past_lease"],
        &["*** Stalled", LAPSES, "scan t2 begin", FINISHED],
    );
}

#[test]
fn group_commit_lost_replies_late_execution_and_a_takeover_in_between() {
    let (mut repeated, mut late, mut taken_over) = <(Met, Met, Met)>::default();
    for seed in 1..=20 {
        let mut plan = Plan::small()
            .with(crash(0, on(Logical::Accepted, 2), 500))
            .with(crash(1, on(Logical::Accepted, 2), 900));
        plan.seed = seed;
        plan.rates.store_reply_lost = 150;
        plan.rates.store_late = 50;
        plan.heal_ms = 15_000;
        let ran = holds(&plan, &["store_reply_lost"], &[FINISHED]);
        repeated.struck(&ran, "commit_repeated");
        late.struck(&ran, "store_late");
        taken_over.told(&ran, &["scan += 2", "*** Crashed", "TAKEOVER", FINISHED]);
    }
    taken_over.at_least(15);
    late.at_least(10);
    repeated.at_least(3);
}

#[test]
fn slots_two_shards_share_a_worker_with_one_slot() {
    let plan = shards_on_one_slot(2).with(crash(0, on(Logical::Accepted, 4), 300));
    let ran = holds(&plan, &["crash"], &["TASK_REFUSED from w0 … Busy"]);
    for owner in ["h0 … TAKEOVER", "h1 … TAKEOVER"] {
        ran.tells(&[owner, "asks Submit", "h0 … *** Crashed", "TAKEOVER"]);
    }
    for shard in ["S0", "S1"] {
        ran.tells(&["h0 … *** Crashed", &format!("{shard} … BATCH_OK from w0")]);
    }
    assert_eq!(ran.rows("COMMIT … Finished settled true"), [4, 4]);
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
        holds(
            &plan,
            &["stall_past_lease"],
            &[
                "*** Stalled",
                "*** Resumed",
                "told to end: LeaseLapsed",
                FINISHED,
            ],
        );
    }
}

#[test]
fn a_worker_that_dies_in_a_batch_is_replaced_and_the_batch_counts_once() {
    for nth in 1..=12 {
        let plan = Plan::small()
            .with(crash(2, on(Logical::Processing, nth), 200))
            .with(crash(3, on(Logical::Processing, nth), 200));
        let ran = holds(&plan, &["crash"], &["*** Crashed", " t2 begin", FINISHED]);
        ran.does_again_what_was_lost();
    }
}

#[test]
fn a_partition_that_outlasts_the_lease_ends_with_a_fenced_holder() {
    let mut plan = busy(100);
    plan.heal_ms = 15_000;
    for from in [Server::Store, Server::Broker] {
        let when = on(Logical::Processing, 3);
        plan = plan.with(cut(WORKER, when, 6_000, from, Lost::Both));
    }
    holds(
        &plan,
        &["partition_store", "partition_broker"],
        &[
            "w0 task-0/scan t1 process",
            "*** Partition",
            "scan … loss 1",
            "w1 task-0/scan t2 begin",
            "is told that task-0/scan t1 is fenced",
        ],
    );
}

#[test]
fn a_cancel_at_every_point_of_a_task_is_final() {
    for (what, least) in [
        (Logical::BatchSent, 15),
        (Logical::Accepted, 15),
        // Of the three grants, the first is before anybody could cancel.
        (Logical::Granted, 2),
    ] {
        let mut cancelled = Met::default();
        for nth in 1..=20 {
            let mut plan = Plan::small();
            plan.actions.push(cancel(on(what, nth)));
            let ran = holds(&plan, &[], &["settled true"]);
            let story = ["Cancelling settled false", "task-0 Cancelled settled true"];
            cancelled.told(&ran, &story);
        }
        cancelled.at_least(least);
    }
}

#[test]
fn a_coordinator_that_wakes_after_its_lease_is_fenced() {
    let mut fenced = Met::default();
    for nth in 2..=8 {
        for owner in [0, 1] {
            let mut plan = Plan::small();
            plan.heal_ms = 12_000;
            // If it owns the shard, the other one is up again when its lease ends.
            let plan = plan
                .with(stall(owner, on(Logical::BatchSent, nth), 4_000))
                .with(stall(1 - owner, on(Logical::BatchSent, nth), 200));
            let ran = holds(&plan, &["stall"], &[FINISHED]);
            let story = [
                "TAKEOVER S0 epoch 2",
                "*** Resumed",
                "commit e1 … refused: Fenced",
            ];
            fenced.told(&ran, &story);
        }
    }
    fenced.at_least(2);
}

#[test]
fn a_reader_gives_the_only_slot_back_to_its_source() {
    for (what, nth) in [
        (Logical::Began, 2),
        (Logical::Processing, 8),
        (Logical::Processing, 14),
    ] {
        holds(
            &one_slot(on(what, nth)),
            &["gone"],
            &[
                "w1 task-0/measure t1 begin",
                "w0 task-0/scan t1 lost",
                "scan … loss 1",
                "TASK_CANCEL … to w1 task-0/measure t1 Yield",
                "TASK_RELEASED from w1 task-0/measure t1 … Yield",
                "w1 task-0/scan … begin",
                "w1 task-0/measure t2 begin",
                FINISHED,
            ],
        );
    }
}

#[test]
fn a_chain_of_readers_gives_back_the_slot_that_the_first_source_needs() {
    let mut plan = Plan::small();
    plan.world.coordinators = 1;
    plan.world.workers[0].capacity = 1;
    plan.world.workers[1].roles = vec!["measure".to_owned()];
    plan.world.workers[1].capacity = 1;
    let scan = &mut plan.tasks[0].graph.nodes[0].script;
    (scan.batches, scan.batch_ms) = (12, 60);
    plan.heal_ms = 15_000;
    // The slot of the lost source goes to the reader of its reader.
    let plan = plan.with(Fault::Crash {
        host: 1,
        when: on(Logical::Began, 2),
        down_ms: 500,
        new_id: true,
    });
    holds(
        &plan,
        &["crash_new_id"],
        &[
            "w1 task-0/measure t1 begin",
            "w0 task-0/scan t1 lost",
            "w0x task-0/summarize t1 begin",
            "scan Ready … loss 1",
            "TASK_CANCEL … to w0x task-0/summarize t1 Yield",
            "TASK_RELEASED from w0x task-0/summarize t1 … Yield",
            "w0x task-0/scan t2 begin",
            "w0x task-0/summarize t2 begin",
            FINISHED,
        ],
    );
}

#[test]
fn an_unknown_commit_is_repeated_until_it_is_known() {
    let mut plan = Plan::small();
    plan.rates.store_lost = 200;
    plan.rates.store_reply_lost = 200;
    plan.heal_ms = 20_000;
    let mut repeated = Met::default();
    for seed in 1..=20 {
        plan.seed = seed;
        let ran = holds(&plan, &["store_lost", "store_reply_lost"], &[FINISHED]);
        repeated.struck(&ran, "commit_repeated");
    }
    repeated.at_least(3);
}

#[test]
fn a_start_that_comes_again_after_the_run_lapsed_is_not_run_again() {
    let mut again = Met::default();
    for seed in 1..=8 {
        let mut plan = busy(700);
        plan.seed = seed;
        plan.rates.append_twice = 1_000;
        plan.heal_ms = 20_000;
        let when = on(Logical::Processing, 2);
        let plan = plan
            .with(cut(2, when, 6_000, Server::Broker, Lost::Replies))
            .with(cut(3, when, 6_000, Server::Broker, Lost::Replies));
        let fired = ["partition_replies", "append_twice"];
        let ran = holds(&plan, &fired, &["*** Partition", LAPSES, FINISHED]);
        assert_eq!(ran.rows("scan t1 begin"), [1, 1]);
        again.told(
            &ran,
            &[LAPSES, "TASK_REFUSED from w0 task-0/scan t1 NotCurrent"],
        );
    }
    again.at_least(4);
}

#[test]
fn a_restarted_worker_gets_its_nodes_back_long_before_its_lease_ends() {
    let mut plan = one_worker();
    plan.world.lease_ttl_ms = 60_000;
    let plan = plan.with(crash(WORKER, on(Logical::Processing, 3), 50));
    let story = [
        "*** Crashed",
        "w0 task-0/scan t1 lost",
        "w0 task-0/scan t2 begin",
        FINISHED,
    ];
    for ms in holds(&plan, &["crash"], &story).lasts(&story) {
        assert!(ms < 2_000, "finished {ms} ms after the crash");
    }
}

#[test]
fn a_worker_that_stops_gracefully_hands_its_nodes_over_at_once() {
    for (host, own, other) in [(2, "w0", "w1"), (3, "w1", "w0")] {
        let mut plan = both_busy();
        plan.world.lease_ttl_ms = 60_000;
        let plan = plan.with(Fault::Shutdown {
            host,
            when: on(Logical::Processing, 4),
            grace_ms: 300,
            down_ms: 20_000,
        });
        let released = format!("TASK_RELEASED from {own} … Shutdown");
        let taken = format!("{other} task-0/ … t2 begin");
        let story = ["*** Asked", &released, &taken, FINISHED];
        for ms in holds(&plan, &["shutdown"], &story).lasts(&story[..3]) {
            assert!(ms < 1_000, "it took {ms} ms");
        }
    }
}

#[test]
fn a_second_process_of_one_worker_id_ends_the_first() {
    for (host, id) in [(2, "w0"), (3, "w1")] {
        let plan = both_busy().with(Fault::Twin {
            host,
            when: on(Logical::Processing, 4),
        });
        let second = format!("{id} is incarnation 2");
        let first_ends = format!("h{host} … *** Stopped (process 1)");
        let goes_on = format!("{id} task-0/ … t2 begin");
        let ran = holds(
            &plan,
            &["twin", "superseded"],
            &["*** Twin", &second, &first_ends],
        );
        ran.tells(&["*** Twin", &second, &goes_on, FINISHED]);
    }
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
    let both = "COMMIT … first Running t1 by w0 … second Running t1 by w0";
    let ran = holds(&plan, &[], &[both, FINISHED]);
    assert_eq!(ran.rows("TASK_START"), [2, 2]);
}
