//! Tasks that are deep, wide or heavy, now and then: most seeds pay for them with nothing.

use serde_json::{Value, json};

use super::Plan;
use super::graph::{FanIn, GraphPlan, Link, NodePlan, Script};
use super::swarm::Draw;

const ROLES: [&str; 3] = ["scan", "measure", "summarize"];
/// Near the limit of one variable.
const BALLAST_BYTES: usize = 60_000;

/// One plan in a hundred has such a task, and no other.
pub(super) fn task(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(1) {
        return;
    }
    plan.tasks.truncate(1);
    let Some(task) = plan.tasks.first_mut() else {
        return;
    };
    task.graph = if draw.percent(50) {
        deep(draw)
    } else {
        wide(draw)
    };
    if draw.percent(50) {
        task.vars = json!({"ballast": Value::from("x".repeat(BALLAST_BYTES))});
    }
}

fn node(draw: &mut Draw, number: u32) -> NodePlan {
    let script = Script {
        batches: draw.small(0, 2),
        items: draw.small(0, 2),
        batch_ms: *draw.pick(&[0, 1, 10]),
        ..Script::default()
    };
    let role = *draw.pick(&ROLES);
    NodePlan::new(&format!("n{number}"), role, script)
}

/// Each waits for, or reads, the one before it.
fn deep(draw: &mut Draw) -> GraphPlan {
    let mut nodes = vec![node(draw, 0)];
    for number in 1..draw.small(12, 20) {
        let before = format!("n{}", number - 1);
        let next = node(draw, number);
        nodes.push(if draw.percent(50) {
            next.streaming(&[&before], draw.percent(50).then(|| draw.small(1, 3)))
        } else {
            next.after(&[&before])
        });
    }
    GraphPlan { nodes }
}

/// One, then many at once, then one that waits for them, or for some.
fn wide(draw: &mut Draw) -> GraphPlan {
    let many = draw.small(20, 40);
    let mut nodes = vec![node(draw, 0)];
    for number in 1..=many {
        let link = *draw.pick(&[Link::DependsOn, Link::Edge]);
        let mut next = node(draw, number);
        next.parents.push(("n0".to_owned(), link));
        nodes.push(next);
    }
    let mut last = node(draw, many + 1);
    for number in 1..=many {
        last.parents.push((format!("n{number}"), Link::DependsOn));
    }
    last.fan_in = match draw.small(0, 2) {
        0 => FanIn::Any,
        1 => FanIn::Count(draw.small(1, many)),
        _ => FanIn::All,
    };
    nodes.push(last);
    GraphPlan { nodes }
}
