//! Named schedules of servers: hosts that cannot reach one, a store that is away, refuses or loses what
//! was not synced, poisoned and lost logs.

use flowkit_sim::plan::{Fault, Leaving, Logical, Lost, Plan, Server, When};

use crate::pieces::{WORKER, busy, crash, cut, on};
use crate::tiers::{FINISHED, Met, Ran, holds};

const SERVERS: [Server; 2] = [Server::Store, Server::Broker];

/// `w0` works for so long that cuts of some seconds meet it, and keeps a checkpoint in each batch.
fn long() -> Plan {
    let mut plan = busy(500);
    plan.tasks[0].graph.nodes[0].script.checkpoints = 1;
    plan.heal_ms = 10_000;
    plan
}

/// Each of both coordinators is cut off; whichever owns the shard is replaced.
fn owner_cut_off(for_ms: u64, from: Server, lost: Lost, family: &str) -> [Ran; 2] {
    [0, 1].map(|host| {
        let when = on(Logical::Processing, 2);
        let plan = long().with(cut(host, when, for_ms, from, lost));
        holds(&plan, &[family], &["*** Partition", FINISHED])
    })
}

fn is_replaced(runs: &[Ran]) {
    let mut replaced = Met::default();
    for ran in runs {
        replaced.told(ran, &["*** Partition", "TAKEOVER S0 epoch 2", FINISHED]);
    }
    replaced.at_least(1);
}

#[test]
fn the_network_reaches_the_broker_but_not_the_store() {
    is_replaced(&owner_cut_off(
        5_000,
        Server::Store,
        Lost::Both,
        "partition_store",
    ));
    let when = on(Logical::Processing, 2);
    let plan = long().with(cut(WORKER, when, 5_000, Server::Store, Lost::Both));
    // Heartbeats keep its lease, but it cannot know any more whether its grant is current.
    holds(
        &plan,
        &["partition_store"],
        &[
            "*** Partition",
            "HEARTBEAT from w0 [task-0/scan t1]",
            "scan t1 told to end: StoreUnreachable",
            "TASK_RELEASED from w0 task-0/scan t1 … StoreUnreachable",
            "w1 task-0/scan t2 begin",
            FINISHED,
        ],
    );
}

#[test]
fn the_network_reaches_the_store_but_not_the_broker() {
    is_replaced(&owner_cut_off(
        5_000,
        Server::Broker,
        Lost::Both,
        "partition_broker",
    ));
    let when = on(Logical::Processing, 2);
    let plan = long().with(cut(WORKER, when, 5_000, Server::Broker, Lost::Both));
    let story = [
        "*** Partition",
        "scan … loss 1",
        "w1 task-0/scan t2 begin",
        FINISHED,
    ];
    holds(&plan, &["partition_broker"], &story);
}

#[test]
fn requests_get_lost_although_replies_would_come() {
    let family = "partition_requests";
    for from in SERVERS {
        is_replaced(&owner_cut_off(2_500, from, Lost::Requests, family));
        let when = on(Logical::Processing, 2);
        let plan = long().with(cut(WORKER, when, 2_500, from, Lost::Requests));
        let (asks, happens) = match from {
            Server::Store => ("saves a checkpoint in b001", "keeps … for b001"),
            Server::Broker => ("did b001", "BATCH_OK … b001"),
        };
        let ran = holds(&plan, &[family], &["*** Partition", FINISHED]);
        for ms in ran.lasts(&["*** Partition", asks, happens]) {
            assert!(ms >= 2_500, "it came through after {ms} ms");
        }
    }
}

#[test]
fn replies_get_lost_although_the_work_was_done() {
    let family = "partition_replies";
    let mut repeated = Met::default();
    for ran in owner_cut_off(2_500, Server::Store, Lost::Replies, family) {
        repeated.struck(&ran, "commit_repeated");
    }
    repeated.at_least(1);
    is_replaced(&owner_cut_off(2_500, Server::Broker, Lost::Replies, family));
    for (from, done) in [
        (Server::Store, "keeps … for b001"),
        (Server::Broker, "BATCH_OK … b001"),
    ] {
        let when = on(Logical::Processing, 2);
        let plan = long().with(cut(WORKER, when, 2_500, from, Lost::Replies));
        let ran = holds(&plan, &[family], &["*** Partition", done, done, FINISHED]);
        assert_eq!(ran.rows("scan += 2:b001"), [1, 1]);
    }
}

#[test]
fn the_store_is_away_while_a_shard_is_taken_over() {
    for nth in 1..3 {
        let away = Fault::Away {
            server: Server::Store,
            when: on(Logical::Takeover, nth),
            for_ms: 1_500,
            how: Leaving::Killed,
        };
        let plan = Plan::small()
            .with(away)
            .with(crash(0, on(Logical::Accepted, 1), 300))
            .with(crash(1, on(Logical::Accepted, 1), 300));
        let epoch = format!("TAKEOVER S0 epoch {nth}");
        let fired = ["store_away", "crash"];
        holds(
            &plan,
            &fired,
            &[&epoch, "*** Away", "TAKEOVER S0", FINISHED],
        );
    }
}

#[test]
fn an_entry_that_is_no_message_is_set_aside() {
    let poison = Fault::Poison {
        when: on(Logical::Accepted, 1),
        shard: 0,
    };
    let plan = Plan::small().with(poison);
    let ran = holds(&plan, &["poison"], &["*** Poison", "BATCH_OK", FINISHED]);
    assert_eq!(ran.rows("TASK_START"), [3, 3], "no node was granted again");
}

#[test]
fn a_refused_commit_costs_nothing_and_a_refused_batch_costs_its_node() {
    for nth in 1..6 {
        let plan = Plan::small().with(Fault::RefuseCommit { nth });
        let ran = holds(
            &plan,
            &["refuse_commit"],
            &["refused: Invalid", "COMMIT", FINISHED],
        );
        assert_eq!(ran.rows("TASK_START … t2"), [0, 0]);
    }
    let plan = Plan::small().with(Fault::RefuseBatches {
        task: 0,
        node: "measure".to_owned(),
    });
    let story = ["refused: Invalid", "measure Failed … (event_refused)"];
    let ran = holds(&plan, &["refuse_batches"], &story);
    ran.tells(&["scan Finished"]);
    ran.tells(&["task-0 Failed settled true"]);
}

#[test]
fn one_process_loses_its_unsynced_commits_with_its_broker() {
    let mut lost = Met::default();
    for nth in 1..12 {
        let mut plan = Plan::small_embedded().with(crash(0, on(Logical::Committed, nth), 100));
        // How many survive is drawn.
        plan.seed = nth;
        let ran = holds(
            &plan,
            &["crash"],
            &["*** Crashed", "TAKEOVER S0 epoch 2", FINISHED],
        );
        lost.struck(&ran, "unsynced_lost");
    }
    lost.at_least(3);
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
            let plan = Plan::small().with(log_lost(on(what, nth), None));
            let ran = holds(&plan, &["log_lost"], &[FINISHED]);
            ran.tells(&["*** LogLost", "*** entries @0 to", "TAKEOVER S0 epoch 2"]);
        }
    }
}

#[test]
fn a_log_that_loses_its_newest_entries_costs_runs_and_no_batch() {
    let (mut noticed, mut granted_anew) = <(Met, Met)>::default();
    for newest in [1, 2, 5] {
        for what in [Logical::BatchSent, Logical::DoneSent] {
            for nth in 1..4 {
                let plan = Plan::small().with(log_lost(on(what, nth), Some(newest)));
                let ran = holds(&plan, &[], &["*** entries @ … are lost"]);
                ran.tells(&[FINISHED]);
                noticed.struck(&ran, "log_lost");
                granted_anew.told(&ran, &["*** entries @ … are lost", " t2 begin", FINISHED]);
            }
        }
    }
    noticed.at_least(5);
    granted_anew.at_least(2);
}

#[test]
fn a_log_that_is_lost_with_its_owner_costs_no_acknowledged_task() {
    for newest in [None, Some(1), Some(10)] {
        for nth in 1..5 {
            let when = on(Logical::Committed, nth);
            let plan = Plan::small()
                .with(log_lost(when, newest))
                .with(crash(0, when, 1_000))
                .with(crash(1, when, 500));
            holds(
                &plan,
                &["crash"],
                &[
                    "*** entries @ … are lost",
                    "*** Crashed",
                    "TAKEOVER S0 epoch 2",
                    FINISHED,
                ],
            );
        }
    }
}
