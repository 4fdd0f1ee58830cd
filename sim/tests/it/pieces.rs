//! Pieces of named plans: worlds whose shape says who does what, faults and actions in few words.
//!
//! Hosts of [`Plan::small`] and of all plans here: 0 and 1 are coordinators, 2 and 3 are the workers
//! `w0` and `w1`.

use flowkit_sim::plan::{
    Action, ActionKind, Fault, GraphPlan, Logical, Lost, NodePlan, Plan, Script, Server, TaskPlan,
    When, WorkerPlan,
};

/// The host of `w0`.
pub(crate) const WORKER: u32 = 2;

pub(crate) const fn at(ms: u64) -> When {
    When::At { ms }
}

pub(crate) const fn on(what: Logical, nth: u64) -> When {
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

pub(crate) const fn stall(host: u32, when: When, for_ms: u64) -> Fault {
    Fault::Stall { host, when, for_ms }
}

pub(crate) const fn cut(host: u32, when: When, for_ms: u64, from: Server, lost: Lost) -> Fault {
    Fault::Partition {
        host,
        when,
        for_ms,
        from,
        lost,
    }
}

pub(crate) fn submit(task: u32, when: When) -> Action {
    Action {
        when,
        client: 0,
        kind: ActionKind::Submit { task },
    }
}

pub(crate) fn cancel(when: When) -> Action {
    Action {
        when,
        client: 0,
        kind: ActionKind::Cancel {
            task: 0,
            grace_ms: Some(500),
        },
    }
}

/// One more task like the first, submitted at this time.
pub(crate) fn add_task(plan: &mut Plan, ms: u64) {
    let number = u32::try_from(plan.tasks.len()).expect("a few");
    plan.tasks.push(TaskPlan {
        id: format!("task-{number}"),
        ..plan.tasks[0].clone()
    });
    plan.actions.push(submit(number, at(ms)));
}

/// Both workers are known to whoever owns the shard before the task comes.
fn known_workers(mut plan: Plan, workers: &[(&[&str], u32)]) -> Plan {
    let workers = workers.iter().enumerate();
    plan.world.workers = workers
        .map(|(number, &(roles, capacity))| WorkerPlan {
            id: format!("w{number}"),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            capacity,
        })
        .collect();
    plan.world.announce_interval_ms = 200;
    plan.actions[0].when = at(1_000);
    plan
}

fn with_nodes(mut plan: Plan, nodes: Vec<NodePlan>) -> Plan {
    plan.tasks[0].graph = GraphPlan { nodes };
    plan
}

/// The only node is `scan`.
pub(crate) fn one_node(script: Script) -> Plan {
    with_nodes(Plan::small(), vec![NodePlan::new("scan", "scan", script)])
}

fn batches(batches: u32, batch_ms: u64) -> Script {
    Script {
        batches,
        batch_ms,
        ..Script::default()
    }
}

/// `w0` has most room and gets the only node, of eight batches; `w1` is there to take it over.
pub(crate) fn busy(batch_ms: u64) -> Plan {
    let plan = one_node(batches(8, batch_ms));
    known_workers(plan, &[(&["scan"], 2), (&["scan"], 1)])
}

/// Each of the two workers runs a node of its own: `left` and `right`.
pub(crate) fn both_busy() -> Plan {
    let node = |id| NodePlan::new(id, "scan", batches(6, 100));
    let plan = with_nodes(Plan::small(), vec![node("left"), node("right")]);
    known_workers(plan, &[(&["scan"], 2), (&["scan"], 2)])
}

/// One worker with two slots for the whole streaming graph: it is never idle.
pub(crate) fn one_worker() -> Plan {
    let mut plan = Plan::small();
    plan.world.workers.truncate(1);
    plan
}

/// `w0` runs the source and goes for good once its reader runs on the only slot of `w1`, which is
/// then the only slot for both.
pub(crate) fn one_slot(goes: When) -> Plan {
    let mut plan = known_workers(
        Plan::small(),
        &[(&["scan"], 2), (&["scan", "measure", "summarize"], 1)],
    );
    let scan = &mut plan.tasks[0].graph.nodes[0].script;
    (scan.batches, scan.batch_ms) = (12, 60);
    plan.heal_ms = 15_000;
    plan.with(Fault::Gone {
        host: WORKER,
        when: goes,
    })
}

/// Each of the two coordinators owns a shard before the four tasks come, and there is one slot.
pub(crate) fn shards_on_one_slot(shards: u32) -> Plan {
    let mut plan = Plan::small();
    plan.world.shards = shards;
    plan.world.workers.truncate(1);
    plan.world.workers[0].capacity = 1;
    plan.actions[0].when = at(10_000);
    (1..2 * shards).for_each(|_| add_task(&mut plan, 10_000));
    plan.heal_ms = 25_000;
    plan
}
