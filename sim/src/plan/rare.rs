//! Whole plans for what needs several things to come together; drawn from streams of their own.

use flowkit_core::control::TaskOptions;
use flowkit_core::coordinator::Limits;
use flowkit_core::id::{ShardId, TaskId};

use super::graph::{GraphPlan, NodePlan, Script};
use super::swarm::Draw;
use super::{Action, ActionKind, Fault, Logical, Lost, Plan, Rates, Server, When, WorkerPlan};

const ROLES: [&str; 3] = ["scan", "measure", "summarize"];

/// Every worker has every role and so many slots, and nothing but them holds work back.
fn workers_alike(plan: &mut Plan, capacity: u32) {
    plan.world.limits = Limits::default();
    for task in &mut plan.tasks {
        task.options = TaskOptions::default();
    }
    for worker in &mut plan.world.workers {
        worker.roles = ROLES.map(str::to_owned).to_vec();
        worker.capacity = capacity;
    }
}

fn one_node(script: Script) -> GraphPlan {
    GraphPlan {
        nodes: vec![NodePlan::new("n0", "scan", script)],
    }
}

/// Long work whose heartbeats are confirmed late, and then not at all.
pub(super) fn late_confirmations(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(3) {
        return;
    }
    let lease = plan.world.lease_ttl_ms;
    let script = Script {
        batches: draw.small(30, 60),
        batch_ms: *draw.pick(&[50, 100]),
        ..Script::default()
    };
    plan.tasks.truncate(1);
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.tasks[0].graph = one_node(script);
    workers_alike(plan, 2);
    plan.rates.confirm_late = 500;
    let when = When::Event {
        what: Logical::Beat,
        nth: draw.between(3, 12),
    };
    let for_ms = draw.between(lease, 2 * lease);
    plan.faults.retain(|fault| fault.refused_task().is_none());
    plan.faults.extend(
        (plan.world.coordinators..plan.hosts()).map(|host| Fault::Partition {
            host,
            when,
            for_ms,
            from: Server::Broker,
            lost: Lost::Requests,
        }),
    );
}

/// A handler that blocks its thread and is cancelled, while others wait for its slot.
pub(super) fn blocked(draw: &mut Draw, plan: &mut Plan) {
    if plan.tasks.len() < 2 || !draw.percent(3) {
        return;
    }
    let script = Script {
        batches: 1,
        batch_ms: draw.between(1_000, 6_000),
        blocks: true,
        ..Script::default()
    };
    plan.tasks[0].graph = one_node(script);
    plan.world.workers.truncate(1);
    workers_alike(plan, 1);
    plan.actions.push(Action {
        when: When::Event {
            what: Logical::Processing,
            nth: 1,
        },
        client: 0,
        kind: ActionKind::Cancel {
            task: 0,
            grace_ms: Some(draw.between(0, 300)),
        },
    });
    plan.faults.clear();
}

/// Coordinators that come and go under several shards, and work that goes on long after.
pub(super) fn shards_at_rest(draw: &mut Draw, plan: &mut Plan) {
    let world = &plan.world;
    if world.embedded || world.shards == 1 || world.coordinators == 1 || !draw.percent(40) {
        return;
    }
    let lease = world.shard_lease_ttl_ms;
    // Until faults are over, and for the time in which shards come to rest (`at_rest`) and then some.
    let script = Script {
        batches: 20,
        batch_ms: lease,
        ..Script::default()
    };
    plan.tasks.truncate(1);
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.tasks[0].graph = one_node(script);
    workers_alike(plan, 2);
    // Many that change hands; calls under way meet each other.
    plan.world.shards = draw.small(8, 12);
    plan.world.latency_us_min = 1_000;
    plan.world.latency_us_max = 50_000;
    plan.rates = Rates::default();
    // The last one is back just before faults are over: shards change hands in quiet times.
    plan.heal_ms = 7 * lease;
    plan.faults = (0..plan.world.coordinators)
        .map(|host| Fault::Crash {
            host,
            when: When::At {
                ms: draw.between(3 * lease, 6 * lease),
            },
            down_ms: draw.between(0, lease),
            new_id: false,
        })
        .collect();
}

/// Every coordinator dies with the commit that cancels a task: its worker finds that in the store, or hears
/// of it from the next owner.
pub(super) fn unheard_cancel(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(2) {
        return;
    }
    let script = Script {
        batches: 60,
        batch_ms: *draw.pick(&[50, 100, 100]),
        ..Script::default()
    };
    plan.tasks.truncate(1);
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.tasks[0].graph = one_node(script);
    workers_alike(plan, 2);
    plan.world.db_cancel_poll_ms = *draw.pick(&[100, 300, 60_000, 60_000]);
    plan.world.slow_permille = 0;
    plan.rates = Rates::default();
    plan.actions.push(Action {
        when: When::Event {
            what: Logical::Processing,
            nth: draw.between(1, 10),
        },
        client: 0,
        kind: ActionKind::Cancel {
            task: 0,
            grace_ms: draw.percent(50).then(|| draw.between(500, 3_000)),
        },
    });
    plan.faults = (0..plan.world.coordinators)
        .map(|host| Fault::Crash {
            host,
            when: When::Event {
                what: Logical::Cancelling,
                nth: 1,
            },
            down_ms: draw.between(200, 3_000),
            new_id: false,
        })
        .collect();
}

/// A task is paused for moments, and copies of what its client asks come late, while there is more to start.
pub(super) fn late_pauses(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(2) {
        return;
    }
    let script = Script {
        batches: 20,
        batch_ms: draw.between(100, 300),
        ..Script::default()
    };
    let mut graph = one_node(script);
    let next = NodePlan::new("n1", "measure", Script::default());
    graph.nodes.push(next.after(&["n0"]));
    plan.tasks.truncate(1);
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.tasks[0].graph = graph;
    workers_alike(plan, 2);
    plan.rates = Rates {
        append_twice: 700,
        ..Rates::default()
    };
    plan.actions.push(Action {
        when: When::Event {
            what: Logical::Processing,
            nth: draw.between(1, 3),
        },
        client: 0,
        kind: ActionKind::Pause {
            task: 0,
            for_ms: draw.between(0, 20),
        },
    });
    // Of a task that is not there any more, or that would be set aside.
    plan.faults.retain(|fault| fault.refused_task().is_none());
    plan.faults.truncate(1);
}

/// A worker that has staged a large artifact cannot say so, or cannot stage it, until its lease is over.
pub(super) fn lost_bodies(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(2) {
        return;
    }
    let script = Script {
        batches: 4,
        batch_ms: 50,
        large_at: Some(1),
        ..Script::default()
    };
    let mut graph = one_node(script);
    let reader = NodePlan::new("n1", "measure", Script::default());
    graph.nodes.push(reader.streaming(&["n0"], Some(2)));
    plan.tasks.truncate(1);
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.tasks[0].graph = graph;
    workers_alike(plan, 2);
    plan.rates = Rates::default();
    let lease = plan.world.lease_ttl_ms;
    let from = *draw.pick(&[Server::Broker, Server::Broker, Server::Store]);
    let for_ms = draw.between(lease, 2 * lease);
    let when = When::Event {
        what: Logical::Processing,
        nth: 2,
    };
    plan.faults = (plan.world.coordinators..plan.hosts())
        .map(|host| Fault::Partition {
            host,
            when,
            for_ms,
            from,
            lost: Lost::Requests,
        })
        .collect();
}

/// Two owners, and a worker whose one slot of two is free again while only one of them is told: the other
/// one has long work there that says nothing, and more to start.
pub(super) fn full_worker(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.tasks.len() < 3 || !draw.percent(8) {
        return;
    }
    let tasks = plan
        .tasks
        .iter()
        .filter_map(|task| TaskId::new(&task.id).ok());
    let ids: Vec<TaskId> = tasks.collect();
    let apart = |shards: &u32| {
        let shard = |task: usize| ids.get(task).map(|id| ShardId::of(id, *shards));
        shard(0) == shard(2) && shard(0) != shard(1)
    };
    let fits: Vec<u32> = (2..=12).filter(apart).collect();
    if fits.is_empty() {
        return;
    }
    // Who has which shard is a matter of numbers.
    let (shards, coordinators) = (*draw.pick(&fits), draw.small(2, 4));
    plan.tasks.truncate(3);
    for (task, batch_ms) in [(0, 6_000), (1, 2_000), (2, 10)] {
        plan.tasks[task].graph = one_node(Script {
            batches: 1,
            batch_ms,
            ..Script::default()
        });
    }
    workers_alike(plan, 2);
    plan.faults.clear();
    plan.rates = Rates::default();
    let world = &mut plan.world;
    world.workers.truncate(1);
    world.coordinators = coordinators;
    world.shards = shards;
    world.lease_ttl_ms = 12_000;
    world.hb_interval_ms = 4_000;
    world.announce_interval_ms = 20_000;
    world.latency_us_min = 100;
    world.latency_us_max = draw.between(200, 5_000);
    world.slow_permille = 0;
    // Both have their share by then.
    let begin = 10 * world.shard_lease_ttl_ms;
    plan.heal_ms = begin + 10_000;
    plan.actions = [(1, 0), (0, 300), (2, 1_000)]
        .map(|(task, later_ms)| Action {
            when: When::At {
                ms: begin + later_ms,
            },
            client: 0,
            kind: ActionKind::Submit { task },
        })
        .to_vec();
}

/// Five workers with several slots share one role, and many nodes are ready at once: nothing goes wrong.
pub(super) fn shared_role(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(4) {
        return;
    }
    let nodes = (0..draw.small(8, 20)).map(|number| {
        let script = Script {
            batches: 1,
            batch_ms: draw.between(10, 500),
            ..Script::default()
        };
        NodePlan::new(&format!("n{number}"), "scan", script)
    });
    plan.tasks.truncate(1);
    plan.tasks[0].graph = GraphPlan {
        nodes: nodes.collect(),
    };
    plan.actions
        .retain(|action| action.kind == ActionKind::Submit { task: 0 });
    plan.faults.clear();
    plan.rates = Rates::default();
    workers_alike(plan, 1);
    let world = &mut plan.world;
    world.shards = 1;
    let workers = (0..5).map(|number| WorkerPlan {
        id: format!("w{number}"),
        roles: vec!["scan".to_owned()],
        capacity: draw.small(2, 4),
    });
    world.workers = workers.collect();
    // By then each has announced itself to whoever is the owner.
    world.announce_interval_ms = 1_000;
    for action in &mut plan.actions {
        let ms = draw.between(4_000, 8_000);
        action.when = When::At { ms };
    }
    plan.heal_ms = plan.heal_ms.max(10_000);
}
