//! Corners that the swarm alone meets too seldom. They are drawn from a stream of their own, so
//! that the rest of a seed's plan stays as it is.

use super::graph::{FanIn, GraphPlan, Link, NodePlan, Script, Trouble, TroubleKind};
use super::swarm::{Draw, moment};
use super::{Fault, Logical, Lost, Plan, Rotten, Server, When};

const ROLES: [&str; 3] = ["scan", "measure", "summarize"];

/// Now and then the last task has one of these graphs.
pub(super) fn task(draw: &mut Draw, plan: &mut Plan) {
    let graph = match draw.small(0, 19) {
        0 => beside_a_skipped_node(draw),
        1 => shrinking(draw),
        2 | 3 => half_done_artifacts(draw, plan),
        _ => return,
    };
    if let Some(last) = plan.tasks.last_mut() {
        last.graph = graph;
    }
}

/// A reader of two sources at work that cuts their artifacts into many chunks, and loses its holder
/// in the middle of one, twice.
fn half_done_artifacts(draw: &mut Draw, plan: &mut Plan) -> GraphPlan {
    let source = |draw: &mut Draw| Script {
        batches: draw.small(4, 8),
        items: draw.small(3, 6),
        batch_ms: *draw.pick(&[10, 50, 50]),
        ..Script::default()
    };
    let sources = [source(draw), source(draw)];
    let script = Script {
        batch_ms: *draw.pick(&[1, 10]),
        ..Script::default()
    };
    let reader = node(draw, 2, script).streaming(&["n0", "n1"], Some(draw.small(1, 2)));
    plan.tasks.truncate(1);
    for worker in &mut plan.world.workers {
        worker.roles = ROLES.map(str::to_owned).to_vec();
        worker.capacity = 3;
    }
    let workers = if plan.world.embedded {
        0..1
    } else {
        plan.world.coordinators..plan.hosts()
    };
    let first = draw.between(6, 16);
    for nth in [first, first + draw.between(2, 10)] {
        let down_ms = draw.between(0, 200);
        plan.faults.extend(workers.clone().map(|host| Fault::Crash {
            host,
            when: When::Event {
                what: Logical::Accepted,
                nth,
            },
            down_ms,
            new_id: false,
        }));
    }
    let [first, second] = sources;
    GraphPlan {
        nodes: vec![node(draw, 0, first), node(draw, 1, second), reader],
    }
}

fn node(draw: &mut Draw, number: u32, script: Script) -> NodePlan {
    let role = *draw.pick(&ROLES);
    NodePlan::new(&format!("n{number}"), role, script)
}

/// A node that waits for one that is skipped and for one that takes its time.
fn beside_a_skipped_node(draw: &mut Draw) -> GraphPlan {
    let slow = Script {
        batches: draw.small(1, 3),
        batch_ms: *draw.pick(&[10, 50, 300]),
        ..Script::default()
    };
    let finishes = node(draw, 0, Script::default());
    let mut skipped = node(draw, 1, Script::default());
    skipped.parents.push((finishes.id.clone(), Link::OnFailure));
    let open = node(draw, 2, slow);
    let mut waits = node(draw, 3, Script::default()).after(&["n1", "n2"]);
    waits.fan_in = *draw.pick(&[FanIn::Any, FanIn::Count(1), FanIn::Count(2), FanIn::All]);
    GraphPlan {
        nodes: vec![finishes, skipped, open, waits],
    }
}

/// A source that fails behind its last batch, and has one batch less when it is tried again.
fn shrinking(draw: &mut Draw) -> GraphPlan {
    let script = Script {
        batches: draw.small(2, 5),
        batch_ms: *draw.pick(&[1, 10, 50]),
        shrinks_at_epoch: Some(2),
        trouble: vec![Trouble {
            epoch: 1,
            batch: None,
            hook: None,
            kind: TroubleKind::Transient,
        }],
        ..Script::default()
    };
    let nodes = vec![node(draw, 0, script)];
    GraphPlan { nodes }
}

/// Now and then a process freezes for longer than a lease at the worst moment.
pub(super) fn stalls(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let world = &plan.world;
    if world.embedded || (plan.faults.is_empty() && plan.rates.is_quiet()) {
        return;
    }
    let (lease, hosts) = (world.lease_ttl_ms, plan.hosts());
    // An owner that nobody can replace wakes to leases that look lapsed.
    if world.coordinators == 1 && draw.percent(30) {
        plan.faults.push(Fault::Stall {
            host: 0,
            when: moment(draw, span),
            for_ms: draw.between(lease + 1_000, 2 * lease + 3_000),
        });
    }
    // A holder in the middle of its work, maybe with a confirmation on its way.
    if draw.percent(15) {
        let first_worker = world.coordinators;
        plan.faults.push(Fault::Stall {
            host: draw.small(first_worker, hosts - 1),
            when: When::Event {
                what: *draw.pick(&[Logical::Beat, Logical::Beat, Logical::Processing]),
                nth: draw.between(1, 12),
            },
            for_ms: draw.between(lease, 3 * lease),
        });
    }
}

/// Now and then a shard's lease lapses under an owner that is in the middle of its work, so that two
/// owners commit side by side while one of them takes over.
pub(super) fn store_clock(draw: &mut Draw, plan: &mut Plan) {
    let world = &plan.world;
    if world.embedded || plan.faults.is_empty() || !draw.percent(20) {
        return;
    }
    // Slow calls leave the old owner time to commit between the steps of a takeover.
    let slow = draw.percent(60);
    if slow {
        for worker in &mut plan.world.workers {
            worker.roles = ROLES.map(str::to_owned).to_vec();
        }
    }
    let ttl = i64::try_from(plan.world.shard_lease_ttl_ms).unwrap_or(0);
    for _ in 0..draw.small(1, 10) {
        let when = When::Event {
            what: *draw.pick(&[Logical::Granted, Logical::Accepted, Logical::Committed]),
            nth: draw.between(1, 25),
        };
        let by_ms = if draw.percent(85) {
            ttl + i64::try_from(draw.between(0, 2_000)).unwrap_or(0)
        } else {
            -ttl / 2
        };
        plan.faults.push(Fault::StoreClock { when, by_ms });
        if slow {
            plan.faults.push(Fault::Slow {
                server: Server::Store,
                when,
                for_ms: 2_000,
                extra_ms: draw.between(50, 400),
            });
        }
    }
}

/// Now and then the store takes everything but one task.
pub(super) fn refused_task(draw: &mut Draw, plan: &mut Plan) {
    if draw.percent(3) && plan.tasks.len() > 1 {
        let last = u32::try_from(plan.tasks.len() - 1).unwrap_or(0);
        let task = draw.small(0, last);
        plan.faults.push(Fault::RefuseTask { task });
    }
}

/// Now and then the store takes nothing of one task for a while, not even that it is set aside.
pub(super) fn refused_writes(draw: &mut Draw, plan: &mut Plan, span: u64) {
    if plan.faults.is_empty() || !draw.percent(3) {
        return;
    }
    let last = u32::try_from(plan.tasks.len() - 1).unwrap_or(0);
    plan.faults.push(Fault::RefuseWrites {
        task: draw.small(0, last),
        when: moment(draw, span),
        for_ms: draw.wide(100, 12_000),
    });
}

/// A handler that hangs ends by a cancel only, and a client that was told that the store refuses its task cancels
/// nothing; but a copy of its submission may come to an owner that knows nothing of that, when the store takes
/// it. So no task hangs that may be refused at first.
pub(super) fn no_hang_behind_a_refusal(plan: &mut Plan) {
    let refused = |number: usize| {
        plan.faults.iter().any(|fault| match fault {
            Fault::RefuseWrites { task, .. } => *task as usize == number,
            Fault::RefuseCommit { .. } => true,
            _ => false,
        })
    };
    let refused: Vec<usize> = (0..plan.tasks.len())
        .filter(|number| refused(*number))
        .collect();
    for number in refused {
        for node in &mut plan.tasks[number].graph.nodes {
            let trouble = &mut node.script.trouble;
            trouble.retain(|trouble| trouble.kind != TroubleKind::Hangs);
        }
    }
}

/// Now and then a record can no longer be read, of a task or of a worker, and who knew it by heart is gone.
pub(super) fn rotten(draw: &mut Draw, plan: &mut Plan, span: u64) {
    if plan.faults.is_empty() || !draw.percent(4) {
        return;
    }
    let when = moment(draw, span);
    let tasks = u32::try_from(plan.tasks.len()).unwrap_or(1);
    let workers = u32::try_from(plan.world.workers.len()).unwrap_or(1);
    let task = draw.small(0, tasks - 1);
    let nodes = &plan.tasks[task as usize].graph.nodes;
    let what = match draw.small(0, 2) {
        0 => Rotten::Task { task },
        1 => Rotten::Node {
            task,
            node: draw.pick(nodes).id.clone(),
        },
        _ => Rotten::Worker {
            worker: draw.small(0, workers - 1),
        },
    };
    plan.faults.push(Fault::Rot { when, what });
    for host in 0..plan.world.coordinators {
        plan.faults.push(Fault::Crash {
            host,
            when,
            down_ms: draw.wide(0, 2_000),
            new_id: false,
        });
    }
}

/// Now and then a worker is gone for good; others have its roles.
pub(super) fn gone(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let world = &plan.world;
    if world.embedded || plan.faults.is_empty() || !draw.percent(10) {
        return;
    }
    let workers = &world.workers;
    let last = u32::try_from(workers.len() - 1).unwrap_or(0);
    let one = draw.small(0, last);
    let replaceable = workers[one as usize].roles.iter().all(|role| {
        let mut others = (0..).zip(workers).filter(|(at, _)| *at != one);
        others.any(|(_, worker)| worker.roles.contains(role))
    });
    if !replaceable {
        return;
    }
    let mut when = moment(draw, span);
    let host = world.coordinators + one;
    if draw.percent(50) {
        // Slots are scarce, and readers may hold those that their sources now need.
        when = When::Event {
            what: Logical::Processing,
            nth: draw.between(1, 8),
        };
        for worker in &mut plan.world.workers {
            worker.capacity = 1;
        }
    }
    plan.faults.push(Fault::Gone { host, when });
}

/// Now and then a machine loses its power, or a way holds messages back for a while.
pub(super) fn cables(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let world = &plan.world;
    if world.embedded || plan.faults.is_empty() {
        return;
    }
    let (lease, hosts) = (world.lease_ttl_ms, plan.hosts());
    if draw.percent(25) {
        plan.faults.push(Fault::PowerLoss {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            down_ms: draw.wide(0, 3 * lease),
        });
    }
    if draw.percent(25) {
        for _ in 0..draw.small(1, 3) {
            plan.faults.push(Fault::Hold {
                host: draw.small(0, hosts - 1),
                when: moment(draw, span),
                for_ms: draw.wide(10, 2 * lease),
                from: *draw.pick(&[Server::Store, Server::Broker]),
            });
        }
    }
}

/// Now and then a worker is told to stop while nobody hears what it says.
pub(super) fn unheard_goodbye(draw: &mut Draw, plan: &mut Plan) {
    let world = &plan.world;
    if world.embedded || plan.faults.is_empty() || !draw.percent(4) {
        return;
    }
    let host = draw.small(world.coordinators, plan.hosts() - 1);
    let when = When::Event {
        what: Logical::Processing,
        nth: draw.between(1, 6),
    };
    let grace_ms = draw.between(0, 500);
    // Not just until the stop is over: a worker that waits for an answer would get it.
    let for_ms = draw.between(5_000, 8_000);
    plan.heal_ms += for_ms;
    plan.faults.push(Fault::Partition {
        host,
        when,
        for_ms,
        from: Server::Broker,
        lost: Lost::Both,
    });
    plan.faults.push(Fault::Shutdown {
        host,
        when,
        grace_ms,
        down_ms: draw.between(0, 1_000),
    });
}

/// Now and then few lost grants are too many.
pub(super) fn losses(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(15) {
        return;
    }
    for node in plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes) {
        if draw.percent(70) && node.function.is_none() {
            node.losses_max = Some(draw.small(1, 3));
        }
    }
}

/// Now and then an inbox loses its log.
pub(super) fn inboxes(draw: &mut Draw, plan: &mut Plan, span: u64) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(15) {
        return;
    }
    for _ in 0..draw.small(1, 3) {
        plan.faults.push(Fault::InboxLost {
            when: moment(draw, span),
            inbox: draw.small(0, plan.world.inboxes - 1),
        });
    }
}

/// Now and then the log of a shard is created anew, or loses its newest entries, maybe while nobody
/// follows it.
pub(super) fn logs(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let world = &plan.world;
    if world.embedded || plan.faults.is_empty() || !draw.percent(5) {
        return;
    }
    let (shards, coordinators) = (world.shards, world.coordinators);
    for _ in 0..draw.small(1, 2) {
        let when = moment(draw, span);
        plan.faults.push(Fault::LogLost {
            when,
            shard: draw.small(0, shards - 1),
            newest: draw.percent(50).then(|| draw.wide(1, 20)),
        });
        if draw.percent(40) {
            plan.faults.push(Fault::Crash {
                host: draw.small(0, coordinators - 1),
                when,
                down_ms: draw.wide(0, 4_000),
                new_id: false,
            });
        }
    }
}
