//! How tasks of a plan are operated. Drawn from streams of their own, so that the rest of a seed's
//! plan stays as it is.

use flowkit_core::coordinator::{Limit, Limits};
use flowkit_core::id::Role;
use std::sync::Arc;

use super::graph::{GraphPlan, NodePlan, Script};
use super::swarm::{Draw, moment};
use super::{Action, ActionKind, Plan, TaskPlan, When};

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

/// Priorities, and tasks that start later.
pub(super) fn options(draw: &mut Draw, plan: &mut Plan) {
    let (ranked, delayed) = (draw.percent(35), draw.percent(15));
    for task in &mut plan.tasks {
        if ranked {
            task.options.priority = *draw.pick(&[-5, 0, 0, 1, 1, 7]);
        }
        if delayed && draw.percent(60) {
            task.options.start_delay_ms = draw.wide(1, 5_000);
        }
    }
}

/// Limits of all, of types and of keys.
pub(super) fn limits(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.shards > 1 || !draw.percent(30) {
        return;
    }
    for task in &mut plan.tasks {
        let key = *draw.pick(&[None, Some("a"), Some("a"), Some("b"), Some("c")]);
        task.options.limit_key = key.map(Arc::from);
    }
    let mut limits = Limits::default();
    limits.running_max = draw.percent(30).then(|| draw.small(1, 3));
    for role in ["scan", "measure", "summarize"] {
        if draw.percent(35)
            && let Ok(role) = Role::new(role)
        {
            limits.types.insert(role, limit(draw));
        }
    }
    if draw.percent(60) {
        limits.keys.insert(Arc::from("a"), limit(draw));
    }
    if draw.percent(40) {
        limits.key_default = Some(limit(draw));
    }
    plan.world.limits = limits;
}

/// Coordinators that are soon full, and workers that remember little.
pub(super) fn caches(draw: &mut Draw, plan: &mut Plan) {
    let world = &mut plan.world;
    world.tasks_in_flight_max = draw.percent(12).then(|| draw.small(1, 2));
    if draw.percent(30) {
        world.dedup_cache_size = Some(*draw.pick(&[1, 1, 2, 5]));
    }
    if draw.percent(30) {
        world.dedup_ttl_ms = Some(draw.wide(1, 5_000));
    }
}

fn limit(draw: &mut Draw) -> Limit {
    let mut limit = Limit::default();
    limit.running_max = draw.percent(75).then(|| draw.small(1, 2));
    limit.starts_max = draw.percent(40).then(|| draw.small(1, 4));
    limit.window_ms = draw.between(100, 1_500);
    limit
}

/// Many small tasks of a few keys for few slots: who goes first is the question, and who may at all.
pub(super) fn crowd(draw: &mut Draw, plan: &mut Plan) {
    if plan.world.shards > 1 || !draw.percent(4) {
        return;
    }
    plan.faults.retain(|fault| fault.refused_task().is_none());
    plan.actions.clear();
    plan.tasks.clear();
    for number in 0..draw.small(6, 12) {
        let script = Script {
            batches: draw.small(1, 3),
            batch_ms: *draw.pick(&[10, 100, 300]),
            ..Script::default()
        };
        let source = NodePlan::new("n0", "scan", script);
        let mut nodes = vec![source];
        if draw.percent(50) {
            let reads_as: &str = draw.pick::<&str>(&["scan", "measure"]);
            let reader = NodePlan::new("n1", reads_as, Script::default());
            nodes.push(reader.streaming(&["n0"], None));
        }
        let mut task = TaskPlan {
            vars: serde_json::Value::Null,
            id: format!("task-{number}"),
            key: None,
            options: Default::default(),
            graph: GraphPlan { nodes },
            rerun: None,
        };
        task.options.priority = *draw.pick(&[0, 0, 1, 2]);
        task.options.limit_key = Some(Arc::from(*draw.pick(&["a", "b"])));
        plan.tasks.push(task);
        plan.actions.push(Action {
            when: When::At {
                ms: draw.between(0, 1_000),
            },
            client: draw.small(0, plan.world.clients - 1),
            kind: ActionKind::Submit { task: number },
        });
    }
    if draw.percent(60) {
        plan.world.limits.keys.insert(Arc::from("a"), limit(draw));
    }
}
