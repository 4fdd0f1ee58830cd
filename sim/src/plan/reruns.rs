//! Tasks that run other tasks of the plan again.

use flowkit_core::control::TaskOptions;
use flowkit_core::id::{ShardId, TaskId};
use serde::{Deserialize, Serialize};

use super::swarm::{Draw, moment};
use super::{Action, ActionKind, Plan, TaskPlan, When};

/// What a task runs again. Its graph and vars are those of the other task, and its options but for the
/// delay; its scripts may differ. It is asked for once that one is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunPlan {
    /// Index of a task before it.
    pub of: u32,
    /// Nodes that run again although they finished.
    #[serde(default)]
    pub from: Vec<String>,
    /// Every node runs again.
    #[serde(default)]
    pub all: bool,
    /// It is asked for once the submission of the other one is acknowledged, and again until that one
    /// is settled.
    #[serde(default)]
    pub early: bool,
}

/// Some plans run tasks again, whatever became of them; the second time nothing goes wrong by itself.
pub(super) fn add(draw: &mut Draw, plan: &mut Plan) {
    let submits = |task: usize| {
        let submit = |kind| matches!(kind, ActionKind::Submit { task: t } if t as usize == task);
        plan.actions.iter().any(|action| submit(action.kind))
    };
    if !draw.percent(25) || !(0..plan.tasks.len()).all(submits) {
        return;
    }
    // Work that outlasts shards which come to rest (`rare.rs`) is long enough as it is.
    if plan.world.shards > 3 {
        return;
    }
    for _ in 0..draw.small(1, 2) {
        let last = u32::try_from(plan.tasks.len() - 1).unwrap_or(0);
        let of = draw.small(0, last);
        let source = &plan.tasks[of as usize];
        let mut graph = source.graph.clone();
        for node in &mut graph.nodes {
            node.script.trouble.clear();
            node.script.shrinks_at_epoch = None;
            node.script.duplicate_at = None;
        }
        let mut from = Vec::new();
        if draw.percent(40) {
            for _ in 0..draw.small(1, 2) {
                from.push(draw.pick(&graph.nodes).id.clone());
            }
        }
        let all = from.is_empty() && draw.percent(20);
        let id = id_beside(&source.id, plan.tasks.len(), plan.world.shards);
        let (vars, options) = (source.vars.clone(), options(source));
        plan.tasks.push(TaskPlan {
            id,
            key: None,
            options,
            graph,
            vars,
            rerun: Some(RerunPlan {
                of,
                from,
                all,
                early: draw.percent(40),
            }),
        });
        actions(draw, plan, last + 1);
    }
}

/// How what runs a task again is operated: like that one, and at once.
pub(super) fn options(source: &TaskPlan) -> TaskOptions {
    TaskOptions {
        start_delay_ms: 0,
        ..source.options.clone()
    }
}

/// Some worlds do not keep tasks for ever, and look often for what may go.
pub(super) fn retention(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(30) {
        return;
    }
    let world = &mut plan.world;
    world.sweep_interval_ms = draw.wide(200, 2_000);
    world.retention_finished_ms = draw.percent(80).then(|| draw.wide(1, 4_000));
    world.retention_failed_ms = draw.percent(60).then(|| draw.wide(1, 4_000));
}

/// An id of the same shard.
fn id_beside(source: &str, number: usize, shards: u32) -> String {
    let shard = |id: &str| TaskId::new(id).map(|id| ShardId::of(&id, shards));
    let names = (0..).map(|k| format!("again-{number}-{k}"));
    let mut fitting = names.filter(|name| shard(name) == shard(source));
    fitting.next().unwrap_or_default()
}

fn actions(draw: &mut Draw, plan: &mut Plan, task: u32) {
    let (span, clients) = (plan.heal_ms, plan.world.clients);
    let mut act = |draw: &mut Draw, when: When, kind: ActionKind| {
        plan.actions.push(Action {
            when,
            client: draw.small(0, clients - 1),
            kind,
        });
    };
    let at = |draw: &mut Draw| When::At {
        ms: draw.between(0, span),
    };
    let when = at(draw);
    act(draw, when, ActionKind::Submit { task });
    if draw.percent(25) {
        let when = at(draw);
        act(draw, when, ActionKind::Submit { task });
    }
    if draw.percent(10) {
        let when = at(draw);
        act(draw, when, ActionKind::SubmitOther { task });
    }
    if draw.percent(15) {
        let when = moment(draw, span);
        let grace_ms = draw.percent(50).then(|| draw.wide(0, 2_000));
        act(draw, when, ActionKind::Cancel { task, grace_ms });
    }
    if draw.percent(15) {
        let when = moment(draw, span);
        let for_ms = draw.wide(0, span / 2);
        act(draw, when, ActionKind::Pause { task, for_ms });
    }
}

/// Makes reruns fit what they run again, which may have been made smaller: they keep their scripts.
pub(crate) fn fit(plan: &mut Plan) {
    for at in 0..plan.tasks.len() {
        let Some(source) = plan.tasks[at].rerun.as_ref().map(|rerun| rerun.of) else {
            continue;
        };
        let Some(source) = plan.tasks.get(source as usize).cloned() else {
            continue;
        };
        let task = &mut plan.tasks[at];
        let mut graph = source.graph.clone();
        for node in &mut graph.nodes {
            if let Some(mine) = task.graph.node(&node.id) {
                node.script = mine.script.clone();
            }
        }
        task.options = options(&source);
        (task.graph, task.vars) = (graph, source.vars);
        if let Some(rerun) = &mut task.rerun {
            rerun.from.retain(|node| task.graph.node(node).is_some());
        }
    }
}
