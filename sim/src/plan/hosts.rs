//! What only processes with the real library meet, on top of the plan that every tier has.

use flowkit_runtime::task_id_of_key;

use super::swarm::{Draw, clock, moment};
use super::{Action, ActionKind, ClientFault, Clock, Fault, Lost, Plan, Server, When};

/// Uses of the library that no machine knows of, and drivers that lose their machine.
pub(super) fn library(draw: &mut Draw, plan: &mut Plan) {
    for (number, task) in plan.tasks.iter_mut().enumerate() {
        if draw.percent(25) {
            let key = format!("key-{number}");
            task.id = task_id_of_key(&key).to_string();
            task.key = Some(key);
        }
        for node in &mut task.graph.nodes {
            if node.script.checkpoints > 0 && draw.percent(35) {
                node.script.hasty = true;
                node.script.checkpoints = draw.small(2, 3);
            }
        }
    }
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(20) {
        return;
    }
    let span = plan.heal_ms;
    for _ in 0..draw.small(1, 3) {
        let host = draw.small(0, plan.hosts() - 1);
        let when = moment(draw, span);
        plan.faults.push(Fault::MachinePanic { host, when });
        // One that breaks again before it has answers.
        if let When::At { ms } = when {
            for _ in 0..draw.small(0, 3) {
                let ms = ms + draw.between(10, 400);
                let when = When::At { ms };
                plan.faults.push(Fault::MachinePanic { host, when });
            }
        }
    }
}

/// Now and then no coordinator is there for longer than a client asks.
pub(super) fn silence(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || !draw.percent(2) {
        return;
    }
    plan.heal_ms = draw.between(63_000, 75_000);
    for host in 0..plan.world.coordinators {
        plan.faults.push(Fault::Crash {
            host,
            when: When::At { ms: 40 },
            down_ms: 90_000,
            new_id: false,
        });
    }
}

/// Clients die, freeze and lose their ways like everybody else.
pub(super) fn clients(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded || plan.faults.is_empty() || !draw.percent(35) {
        return;
    }
    let (span, longest) = (plan.heal_ms, 3 * plan.world.lease_ttl_ms);
    let one = |draw: &mut Draw, family: u32| {
        let (ms, from) = (
            draw.wide(10, longest),
            *draw.pick(&[Server::Store, Server::Broker]),
        );
        match family {
            0 => ClientFault::Crash { down_ms: ms },
            1 => ClientFault::Stall { for_ms: ms },
            2 => ClientFault::Partition {
                for_ms: ms,
                from,
                lost: *draw.pick(&[Lost::Requests, Lost::Replies, Lost::Both]),
            },
            _ => ClientFault::Hold { for_ms: ms, from },
        }
    };
    for family in 0..4 {
        if !draw.percent(45) {
            continue;
        }
        for _ in 0..draw.small(1, 3) {
            let what = one(draw, family);
            let client = draw.small(0, plan.world.clients - 1);
            let when = if draw.percent(50) {
                let nth = draw.wide(1, 40);
                When::Effect { nth }
            } else {
                moment(draw, span)
            };
            plan.faults.push(Fault::Client { client, when, what });
        }
    }
}

/// Clients' clocks are off, and jump, like everybody else's.
pub(super) fn client_clocks(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.embedded {
        return;
    }
    let (hosts, clients) = (plan.hosts() as usize, plan.world.clients);
    plan.world.clocks.resize(hosts, Clock::default());
    let clocks = (0..clients).map(|_| clock(draw));
    plan.world.clocks.extend(clocks);
    if plan.faults.is_empty() || !draw.percent(20) {
        return;
    }
    let span = plan.heal_ms;
    for _ in 0..draw.small(1, 3) {
        let client = draw.small(0, clients - 1);
        let by_ms = i64::try_from(draw.between(0, 200_000)).unwrap_or(0) - 100_000;
        plan.faults.push(Fault::Client {
            client,
            when: moment(draw, span),
            what: ClientFault::WallStep { by_ms },
        });
    }
}

/// How often others go first: never, now and then, or as often as not.
pub(super) fn yields(draw: &mut Draw, plan: &mut Plan) {
    plan.world.yield_permille = draw.small(0, 500);
}

/// People look at tasks.
pub(super) fn looks(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(40) {
        return;
    }
    let span = plan.heal_ms;
    for task in 0..u32::try_from(plan.tasks.len()).unwrap_or(0) {
        for _ in 0..draw.small(0, 2) {
            plan.actions.push(Action {
                when: moment(draw, span),
                client: draw.small(0, plan.world.clients - 1),
                kind: ActionKind::Look { task },
            });
        }
    }
}
