//! What only processes with the real library meet, on top of the plan that every tier has.

use flowkit_runtime::task_id_of_key;

use super::swarm::{Draw, moment};
use super::{Fault, Plan, When};

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
