//! How tasks of a plan are operated. Drawn from streams of their own, so that the rest of a seed's
//! plan stays as it is.

use super::swarm::{Draw, moment};
use super::{Action, ActionKind, Plan};

/// Tasks that are paused, and resumed before faults heal; some by two clients at once.
pub(super) fn pauses(draw: &mut Draw, plan: &mut Plan, span: u64) {
    if !draw.percent(35) {
        return;
    }
    let clients = plan.world.clients;
    for task in 0..u32::try_from(plan.tasks.len()).unwrap_or(0) {
        for _ in 0..*draw.pick(&[0, 0, 1, 1, 2, 3]) {
            plan.actions.push(Action {
                when: moment(draw, span),
                client: draw.small(0, clients - 1),
                kind: ActionKind::Pause {
                    task,
                    for_ms: draw.wide(0, span / 2),
                },
            });
        }
    }
}
