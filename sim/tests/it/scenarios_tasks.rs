//! Named scenarios of single tasks: what stores refuse and lose of them, what clients ask twice, what
//! handlers do.

use flowkit_sim::plan::{
    Action, ActionKind, Fault, Link, Logical, NodePlan, Plan, Rotten, Script, Trouble, TroubleKind,
};

use crate::pieces::{add_task, at, cancel, crash, on, one_node};
use crate::tiers::{FINISHED, Met, holds};

#[test]
fn entries_that_are_no_messages_change_nothing() {
    let mut plan = Plan::small();
    for nth in 1..=6 {
        plan = plan.with(Fault::Poison {
            when: on(Logical::BatchSent, nth),
            shard: 0,
        });
    }
    let ran = holds(&plan, &["poison"], &["*** Poison", "BATCH_OK", FINISHED]);
    assert_eq!(ran.struck("poison"), [6, 6]);
    assert_eq!(
        ran.rows("TAKEOVER"),
        [1, 1],
        "the shard was not loaded again"
    );
    assert_eq!(ran.rows("TASK_START"), [3, 3], "no node was granted again");
}

#[test]
fn a_batch_that_no_store_takes_fails_its_node_and_not_the_shard() {
    let mut plan = Plan::small().with(Fault::RefuseBatches {
        task: 0,
        node: "measure".to_owned(),
    });
    add_task(&mut plan, 110);
    let ran = holds(
        &plan,
        &["refuse_batches"],
        &["task-1 Finished settled true"],
    );
    ran.tells(&["refused: Invalid", "measure Failed … (event_refused)"]);
    ran.tells(&["gets Wait of task-0: ok true Some(Failed)"]);
}

#[test]
fn a_task_that_no_store_takes_is_refused_to_its_client_and_others_go_on() {
    let mut plan = Plan::small().with(Fault::RefuseTask { task: 1 });
    add_task(&mut plan, 110);
    add_task(&mut plan, 110);
    let ran = holds(
        &plan,
        &["refuse_task"],
        &["gets Submit of task-1: ok false"],
    );
    for other in ["task-0", "task-2"] {
        ran.tells(&[
            "refused: Invalid",
            &format!("{other} Finished settled true"),
        ]);
    }
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
        let mut plan = Plan::small()
            .with(Fault::Rot { when, what })
            .with(crash(0, when, 100))
            .with(crash(1, when, 100));
        add_task(&mut plan, 110);
        let ran = holds(
            &plan,
            &["crash"],
            &[
                "*** a record of task-1 can no longer be read",
                "TAKEOVER S0 epoch 2",
                FINISHED,
            ],
        );
        let told = "gets Wait of task-1: ok true Some(Quarantined)";
        assert_eq!(ran.rows(told), [1, 1]);
    }
}

#[test]
fn a_commit_refused_once_is_folded_again_and_nothing_is_blamed() {
    let mut refused = Met::default();
    for nth in 1..=20 {
        let plan = Plan::small().with(Fault::RefuseCommit { nth });
        let ran = holds(&plan, &[], &[FINISHED]);
        refused.told(&ran, &["refused: Invalid", "COMMIT", "gets Wait of task-0"]);
        assert_eq!(ran.rows("(event_refused)"), [0, 0]);
        assert_eq!(ran.rows("TASK_START … t2"), [0, 0]);
    }
    refused.at_least(12);
}

#[test]
fn a_handler_that_cannot_be_ended_is_abandoned_and_the_task_settles() {
    let mut plan = one_node(Script {
        batches: 3,
        ignores_cancel: true,
        blocks: true,
        trouble: vec![trouble(0, Some(1), TroubleKind::Hangs)],
        ..Script::default()
    });
    plan.actions.push(cancel(at(1_000)));
    let ran = holds(
        &plan,
        &["handler_blocks", "handler_ignores_cancel"],
        &[
            "scan t1 told to end: UserRequest",
            "scan t1 abort",
            "CANCELLED from",
            "task-0 Cancelled settled true",
        ],
    );
    // On hosts it ends when it is dropped.
    assert_eq!(ran.rows("scan t1 closed"), [0, 1]);
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
    let conflict = "gets SubmitOther of task-0: ok false None Some(IdempotencyConflict)";
    let ran = holds(&plan, &[], &[conflict, FINISHED, conflict]);
    assert_eq!(ran.rows(conflict), [2, 2]);
    assert_eq!(ran.rows("gets Submit of task-0: ok true"), [3, 3]);
    assert_eq!(ran.rows("TASK_START … task-0/scan"), [1, 1]);
}

const fn trouble(epoch: u32, batch: Option<u32>, kind: TroubleKind) -> Trouble {
    Trouble {
        epoch,
        batch,
        hook: None,
        kind,
    }
}

#[test]
fn retries_wait_for_their_back_off_and_end_at_the_policy() {
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
    let ran = holds(&plan, &["handler_transient"], &["scan t3 begin", FINISHED]);
    assert_eq!(ran.rows("TASK_FAILED"), [2, 2]);
    for (failed, begins, least) in [("t1", "t2", 200), ("t2", "t3", 900)] {
        let failed = format!("TASK_FAILED … scan {failed}");
        let waits = ran.lasts(&[&failed, &format!("scan {begins} begin")]);
        assert!(
            waits.iter().all(|ms| (least..least + 600).contains(ms)),
            "{waits:?}"
        );
    }
    plan.tasks[0].graph.nodes[0].retry_max = 2;
    let ran = holds(
        &plan,
        &[],
        &["TASK_FAILED", "TASK_FAILED", "task-0 Failed settled true"],
    );
    assert_eq!(ran.rows("scan t3 begin"), [0, 0]);
}

#[test]
fn a_source_that_lost_an_accepted_batch_fails_for_good() {
    let mut plan = one_node(Script {
        batches: 3,
        trouble: vec![trouble(1, None, TroubleKind::Transient)],
        shrinks_at_epoch: Some(2),
        ..Script::default()
    });
    plan.tasks[0].graph.nodes[0].retry_max = 3;
    let failed = "task-0 Failed settled true … (input_changed)";
    let ran = holds(&plan, &[], &["scan += 3:b002", "scan t2 begin", failed]);
    assert_eq!(ran.rows("scan t3 begin"), [0, 0]);
}

#[test]
fn a_handled_failure_leaves_the_task_on_its_way() {
    let mut plan = one_node(Script {
        trouble: vec![trouble(0, Some(0), TroubleKind::Permanent)],
        ..Script::default()
    });
    let mut rescue = NodePlan::new("rescue", "measure", Script::default());
    rescue.parents.push(("scan".to_owned(), Link::OnFailure));
    let mut party = NodePlan::new("party", "measure", Script::default());
    party.parents.push(("scan".to_owned(), Link::OnSuccess));
    plan.tasks[0].graph.nodes.extend([rescue, party]);
    let fired = ["handler_permanent"];
    let ran = holds(&plan, &fired, &["scan Failed", "rescue t1 begin", FINISHED]);
    ran.tells(&["scan Failed", "rescue Finished"]);
    ran.tells(&["party Skipped"]);
}
