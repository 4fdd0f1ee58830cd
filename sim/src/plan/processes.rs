//! Plans for real processes over real servers: two coordinators and four workers, with faults that
//! can be made from outside.

use super::swarm::{Draw, Streams, actions};
use super::workload::task;
use super::{Fault, Leaving, Lost, Plan, Rates, Server, When, WorkerPlan, World};

const COORDINATORS: u32 = 2;
const WORKERS: u32 = 4;

const ROLES: [&str; 3] = ["scan", "measure", "summarize"];

/// The plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
    // Apart from the draws of `from_seed`.
    let mut streams = Streams::of_seed(seed);
    let mut stream = |concern: u8| streams.of(100 + concern);
    let mut world = world(&mut stream(1));
    fixed(&mut world);
    let mut draw = stream(2);
    let tasks = (0..draw.small(8, 14)).map(|n| task(&mut draw, n, &world));
    let mut tasks: Vec<_> = tasks.collect();
    for node in tasks.iter_mut().flat_map(|task| &mut task.graph.nodes) {
        // Only a supervisor that kills its process ends such a handler.
        node.script.blocks = false;
        // Faults that are made at times meet only work that takes some.
        node.script.batch_ms += *draw.pick(&[0, 30, 100, 100, 250, 500]);
    }
    let span = stream(3).between(8_000, 15_000);
    let mut plan = Plan {
        seed,
        tasks,
        world,
        actions: Vec::new(),
        faults: Vec::new(),
        rates: Rates::default(),
        calls: None,
        heal_ms: span,
    };
    actions(&mut stream(4), &mut plan, span);
    super::operated::pauses(&mut stream(7), &mut plan, span);
    super::operated::options(&mut stream(8), &mut plan);
    let mut draw = stream(6);
    for action in &mut plan.actions {
        // Work comes in as long as things go wrong.
        action.when = moment(&mut draw, span);
    }
    faults(&mut stream(5), &mut plan, span);
    plan
}

fn world(draw: &mut Draw) -> World {
    let lease_ttl_ms = draw.between(2_500, 4_000);
    let mut workers: Vec<WorkerPlan> = (0..WORKERS)
        .map(|n| WorkerPlan {
            id: format!("w{n}"),
            roles: ROLES.map(str::to_owned).to_vec(),
            capacity: *draw.pick(&[1, 1, 2, 3]),
        })
        .collect();
    // Every role keeps two workers or more.
    for (n, role) in ROLES.iter().enumerate() {
        if draw.percent(50) {
            workers[n].roles.retain(|mine| mine != role);
        }
    }
    World {
        coordinators: COORDINATORS,
        workers,
        shards: *draw.pick(&[1, 1, 2]),
        inboxes: draw.small(1, 4),
        clients: 2,
        lease_ttl_ms,
        hb_interval_ms: lease_ttl_ms / draw.between(3, 5),
        announce_interval_ms: draw.between(1_000, 3_000),
        shard_lease_ttl_ms: draw.between(1_500, 3_000),
        cancel_grace_ms: draw.between(200, 3_000),
        db_cancel_poll_ms: *draw.pick(&[100, 500, 500, 2_000]),
        ..World::default()
    }
}

/// What the drivers have and no setting changes, and how late a busy machine may be.
pub(super) fn fixed(world: &mut World) {
    world.accept_timeout_ms = 5_000;
    world.call_timeout_ms = 10_000;
    world.slack_ms = 1_000;
}

fn moment(draw: &mut Draw, span: u64) -> When {
    When::At {
        ms: draw.between(200, span * 9 / 10),
    }
}

/// How many faults of one family a plan has: a run takes half a minute, so mostly some.
fn some(draw: &mut Draw) -> u32 {
    match draw.small(0, 9) {
        0..=2 => 0,
        3..=7 => draw.small(1, 2),
        _ => draw.small(3, 5),
    }
}

fn faults(draw: &mut Draw, plan: &mut Plan, span: u64) {
    let hosts = COORDINATORS + WORKERS;
    let lease = plan.world.lease_ttl_ms;
    for _ in 0..some(draw) {
        plan.faults.push(Fault::Crash {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            down_ms: draw.wide(0, 2 * lease),
            new_id: false,
        });
    }
    for _ in 0..some(draw) {
        plan.faults.push(Fault::Stall {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            for_ms: draw.wide(50, 3 * lease),
        });
    }
    for _ in 0..some(draw).min(2) {
        plan.faults.push(Fault::Shutdown {
            host: draw.small(0, hosts - 1),
            when: moment(draw, span),
            grace_ms: Plan::PROCESS_GRACE_MS,
            down_ms: draw.wide(0, 3_000),
        });
    }
    for _ in 0..some(draw) {
        let host = draw.small(0, hosts - 1);
        let when = moment(draw, span);
        // Every third one cuts connections, and no more.
        let for_ms = if draw.percent(33) {
            20
        } else {
            draw.wide(100, 3 * lease)
        };
        let from = *draw.pick(&[Server::Store, Server::Broker]);
        let lost = *draw.pick(&[Lost::Requests, Lost::Replies, Lost::Both]);
        let partition = |from| Fault::Partition {
            host,
            when,
            for_ms,
            from,
            lost,
        };
        plan.faults.push(partition(from));
        if for_ms > 20 && draw.percent(40) {
            plan.faults.push(Fault::Hold {
                host,
                when: moment(draw, span),
                for_ms,
                from,
            });
        }
        // Sometimes a host is cut off from everything.
        if draw.percent(25) {
            let other = match from {
                Server::Store => Server::Broker,
                Server::Broker => Server::Store,
            };
            plan.faults.push(partition(other));
        }
    }
    for server in [Server::Store, Server::Broker] {
        if draw.percent(40) {
            plan.faults.push(Fault::Away {
                server,
                when: moment(draw, span),
                for_ms: draw.wide(100, lease),
                how: *draw.pick(&[Leaving::Frozen, Leaving::Stopped, Leaving::Killed]),
            });
        }
        if draw.percent(25) {
            plan.faults.push(Fault::Slow {
                server,
                when: moment(draw, span),
                for_ms: draw.wide(500, lease),
                extra_ms: draw.wide(1, 500),
            });
        }
    }
    if draw.percent(20) {
        plan.faults.push(Fault::Poison {
            when: moment(draw, span),
            shard: draw.small(0, plan.world.shards - 1),
        });
    }
    if draw.percent(15) {
        plan.faults.push(Fault::Twin {
            host: draw.small(COORDINATORS, hosts - 1),
            when: moment(draw, span),
        });
    }
    if draw.percent(15) {
        plan.faults.push(Fault::Gone {
            host: draw.small(COORDINATORS, hosts - 1),
            when: moment(draw, span),
        });
    }
}
