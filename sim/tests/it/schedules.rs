//! Named schedules, a few lines each: what breaks such engines, and that it does not break this one.
//!
//! The first six tests are the schedules of the four models that the design was judged by: grants,
//! group commit, slots, leases. What is lost of servers and their logs is in `schedules_servers`.

use flowkit_sim::plan::{Fault, Logical, Lost, Plan, Rates, Server};

use crate::pieces::{
    WORKER, add_task, busy, cancel, crash, cut, on, one_slot, one_worker, shards_on_one_slot, stall,
};
use crate::tiers::{FINISHED, LAPSES, Met, holds};

#[test]
fn grants_a_run_that_lapses_by_itself_does_not_run_again_under_its_token() {
    // START arrives twice, the run lapses behind a partition, START is sent again.
    let mut again = Met::default();
    for seed in 1..=6 {
        let mut plan = busy(700);
        plan.seed = seed;
        plan.rates.append_twice = 700;
        plan.heal_ms = 15_000;
        for host in [WORKER, WORKER + 1] {
            let when = on(Logical::Processing, 2);
            plan = plan.with(cut(host, when, 7_000, Server::Broker, Lost::Both));
        }
        let fired = ["append_twice", "partition_broker"];
        let story = ["*** Partition", LAPSES, "scan … loss 1", FINISHED];
        let ran = holds(&plan, &fired, &story);
        assert_eq!(ran.rows("scan t1 begin"), [1, 1]);
        again.told(
            &ran,
            &["TASK_START … scan t1", "TASK_START … scan t1", FINISHED],
        );
    }
    again.at_least(2);
}

#[test]
fn group_commit_a_commit_that_nobody_answers_for_is_submitted_again_unchanged() {
    let (mut repeated, mut late) = <(Met, Met)>::default();
    for seed in 0..20 {
        let mut plan = Plan::small();
        plan.seed = seed;
        plan.rates = Rates {
            store_reply_lost: 250,
            store_late: 100,
            ..Rates::default()
        };
        let ran = holds(&plan, &["store_reply_lost"], &[FINISHED]);
        repeated.struck(&ran, "commit_repeated");
        late.struck(&ran, "store_late");
    }
    late.at_least(10);
    repeated.at_least(1);
}

#[test]
fn group_commit_an_owner_that_wakes_up_late_is_fenced() {
    let (mut late, mut fenced) = <(Met, Met)>::default();
    for host in [0, 1] {
        for nth in 2..16 {
            let plan = Plan::small().with(stall(host, on(Logical::Committed, nth), 6_000));
            let ran = holds(&plan, &["stall"], &["*** Stalled", "*** Resumed"]);
            late.told(
                &ran,
                &[
                    "*** Stalled",
                    "TAKEOVER S0 epoch 2",
                    FINISHED,
                    "*** Resumed",
                ],
            );
            fenced.told(&ran, &["*** Resumed", "commit e1 … refused: Fenced"]);
        }
    }
    late.at_least(10);
    fenced.at_least(1);
}

#[test]
fn slots_a_reader_makes_room_for_its_source_on_the_only_slot() {
    let yields = [
        "w1 task-0/measure t1 begin",
        "TASK_CANCEL … to w1 task-0/measure t1 Yield",
        "w1 task-0/scan … begin",
        FINISHED,
    ];
    let plan = one_slot(on(Logical::Began, 2));
    holds(&plan, &["gone"], &yields);
    // The worker with the only slot crashes, too: after the reader was granted, while it makes room,
    // once the source is granted again.
    for nth in 3..=6 {
        let when = on(Logical::Granted, nth);
        let plan = plan.clone().with(crash(WORKER + 1, when, 200));
        let yields = ["TASK_CANCEL … to w1 task-0/measure … Yield", FINISHED];
        holds(&plan, &["gone", "crash"], &yields);
    }
}

#[test]
fn leases_heartbeats_that_are_confirmed_late_revive_nothing() {
    for seed in 1..=3 {
        let mut plan = busy(700);
        plan.seed = seed;
        plan.rates.confirm_late = 400;
        // Nobody gives a call up while it is held back.
        plan.world.call_timeout_ms = 8_000;
        plan.heal_ms = 15_000;
        let plan = plan.with(Fault::Hold {
            host: WORKER,
            when: on(Logical::Processing, 2),
            for_ms: 4_500,
            from: Server::Broker,
        });
        let comes_late = "HEARTBEAT from w0 [task-0/scan t1]";
        let ran = holds(
            &plan,
            &["hold", "confirm_late"],
            &["*** Hold", LAPSES, comes_late],
        );
        ran.tells(&[LAPSES, "w1 task-0/scan t2 begin", FINISHED]);
        assert_eq!(ran.rows("scan t1 begin"), [1, 1]);
    }
}

#[test]
fn leases_a_worker_that_stalls_past_its_lease_changes_nothing_when_it_comes_back() {
    for nth in 1..8 {
        let mut plan = busy(100);
        plan.heal_ms = 12_000;
        let plan = plan.with(stall(WORKER, on(Logical::Processing, nth), 9_000));
        let ran = holds(
            &plan,
            &["stall_past_lease"],
            &[
                "w0 task-0/scan t1 process",
                "h2 … *** Stalled",
                "scan … by w1 … loss 1",
                "w1 task-0/scan t2 begin",
                "h2 … *** Resumed",
                "w0 task-0/scan t1 told to end: LeaseLapsed",
                "is told that task-0/scan t1 is fenced",
            ],
        );
        assert_eq!(ran.rows("scan += "), [8, 8], "each batch counts once");
    }
}

#[test]
fn a_worker_crashes_in_the_middle_of_a_batch() {
    for nth in 1..8 {
        let plan = one_worker().with(crash(WORKER, on(Logical::Processing, nth), 500));
        let ran = holds(&plan, &["crash"], &["*** Crashed", " t2 begin", FINISHED]);
        ran.does_again_what_was_lost();
    }
}

#[test]
fn a_restarted_worker_is_an_instant_expiry() {
    let mut plan = one_worker();
    // So long a lease that nobody could have waited for it.
    plan.world.lease_ttl_ms = 600_000;
    let plan = plan.with(crash(WORKER, on(Logical::Processing, 3), 100));
    let story = [
        "h2 … *** Crashed",
        "w0 task-0/scan t1 lost",
        "w0 is incarnation 2",
        "scan … loss 1",
        "w0 task-0/scan t2 begin",
    ];
    for ms in holds(&plan, &["crash"], &story).lasts(&story) {
        assert!(ms < 1_000, "it ran again after {ms} ms");
    }
}

#[test]
fn a_worker_that_comes_back_under_another_id_is_replaced_after_its_lease() {
    let mut plan = busy(100);
    plan.heal_ms = 8_000;
    let (lease_ms, hb_ms) = (plan.world.lease_ttl_ms, plan.world.hb_interval_ms);
    let plan = plan.with(Fault::Crash {
        host: WORKER,
        when: on(Logical::Processing, 3),
        down_ms: 500,
        new_id: true,
    });
    let story = [
        "*** Crashed",
        "w0x is incarnation 1",
        "scan … loss 1",
        "scan t2 begin",
    ];
    let ran = holds(
        &plan,
        &["crash_new_id"],
        &["w0 task-0/scan t1 lost", FINISHED],
    );
    for ms in ran.lasts(&story) {
        assert!(
            ms >= lease_ms - hb_ms - 200,
            "it was replaced after {ms} ms"
        );
    }
}

#[test]
fn a_second_process_under_the_same_worker_id_ends_the_first() {
    let twin = Fault::Twin {
        host: WORKER,
        when: on(Logical::Processing, 2),
    };
    let plan = busy(100).with(twin);
    let second = "w0 is incarnation 2";
    let ran = holds(
        &plan,
        &["twin", "superseded"],
        &[
            "w0 task-0/scan t1 process",
            second,
            "h2 … *** Stopped",
            "scan t1 lost",
        ],
    );
    ran.tells(&[second, "w0 task-0/scan t2 begin", FINISHED]);
}

#[test]
fn a_cancel_races_every_step_of_the_task() {
    for (what, least) in [
        (Logical::Granted, 2),
        (Logical::Began, 2),
        (Logical::Accepted, 3),
        (Logical::DoneSent, 1),
    ] {
        let mut running = Met::default();
        for nth in 1..5 {
            let mut plan = Plan::small();
            plan.actions.push(cancel(on(what, nth)));
            let ran = holds(&plan, &[], &["settled true"]);
            let story = ["Cancelling settled false", "task-0 Cancelled settled true"];
            running.told(&ran, &story);
        }
        running.at_least(least);
    }
}

#[test]
fn a_cancel_is_final_over_a_takeover() {
    for down_ms in [(400, 900), (900, 400)] {
        let when = on(Logical::Cancelling, 1);
        let mut plan = busy(200)
            .with(crash(0, when, down_ms.0))
            .with(crash(1, when, down_ms.1));
        plan.actions.push(cancel(on(Logical::Accepted, 2)));
        let ran = holds(
            &plan,
            &["crash"],
            &[
                "task-0 Cancelling settled false",
                "h0 … *** Crashed",
                "h1 … *** Crashed",
                "TAKEOVER S0 epoch 2",
                "task-0 Cancelled settled true",
            ],
        );
        assert_eq!(ran.rows(FINISHED), [0, 0]);
    }
}

#[test]
fn a_handler_that_blocks_is_abandoned_and_holds_up_nobody_else() {
    let mut plan = one_worker();
    add_task(&mut plan, 200);
    let script = &mut plan.tasks[0].graph.nodes[0].script;
    script.ignores_cancel = true;
    script.blocks = true;
    script.batch_ms = 60_000;
    plan.actions.push(cancel(on(Logical::Processing, 1)));
    let abandoned = [
        "w0 task-0/scan t1 process",
        "task-0/scan t1 told to end: UserRequest",
        "task-0/scan t1 abort",
        "task-0 Cancelled settled true",
    ];
    let ran = holds(&plan, &["handler_blocks"], &abandoned);
    ran.tells(&["w0 task-0/scan t1 process", "task-1 Finished settled true"]);
    // On hosts it ends when it is dropped.
    assert_eq!(ran.rows("task-0/scan t1 closed"), [0, 1]);
}

#[test]
fn both_coordinators_crash_at_once() {
    let when = on(Logical::Accepted, 2);
    let plan = Plan::small()
        .with(crash(0, when, 900))
        .with(crash(1, when, 400));
    holds(
        &plan,
        &["crash"],
        &[
            "h0 … *** Crashed",
            "h1 … *** Crashed",
            "TAKEOVER S0 epoch 2",
            FINISHED,
        ],
    );
}

#[test]
fn a_worker_that_stops_hands_its_runs_over() {
    for nth in 1..6 {
        let plan = busy(200).with(Fault::Shutdown {
            host: WORKER,
            when: on(Logical::Processing, nth),
            grace_ms: 100,
            down_ms: 1_000,
        });
        holds(
            &plan,
            &["shutdown"],
            &[
                "w0 task-0/scan t1 process",
                "h2 … *** Asked",
                "TASK_RELEASED from w0 task-0/scan t1 … Shutdown",
                "w1 task-0/scan t2 begin",
                FINISHED,
            ],
        );
    }
}

#[test]
fn shards_share_workers() {
    let plan = shards_on_one_slot(3);
    let ran = holds(&plan, &[], &["TASK_REFUSED from w0 … Busy"]);
    for owner in ["h0 … TAKEOVER", "h1 … TAKEOVER"] {
        ran.tells(&[owner, "asks Submit", "TASK_REFUSED from w0 … Busy"]);
    }
    for shard in ["S0", "S1", "S2"] {
        ran.tells(&[&format!("{shard} … BATCH_OK from w0")]);
    }
    assert_eq!(ran.rows("COMMIT … Finished settled true"), [6, 6]);
}

#[test]
fn wall_clocks_that_jump_change_nothing() {
    let calm = holds(&Plan::small(), &[], &[FINISHED]);
    let mut plan = Plan::small();
    for host in 0..4 {
        plan = plan.with(Fault::WallStep {
            host,
            when: on(Logical::Processing, 1),
            by_ms: -86_400_000,
        });
    }
    let story = ["*** WallStep", "BATCH_OK", FINISHED];
    let jumped = holds(&plan, &["wall_step"], &story);
    assert_eq!(jumped.rows("*** WallStep"), [4, 4]);
    for (calm, mut jumped) in calm.tiers.into_iter().zip(jumped.tiers) {
        jumped.rows.retain(|row| !row.contains("*** WallStep"));
        assert_eq!(
            jumped.rows, calm.rows,
            "all else happened at the same times"
        );
        assert_eq!(jumped.verdict.effects, calm.verdict.effects);
    }
}
