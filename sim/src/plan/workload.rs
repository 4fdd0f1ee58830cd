//! Graphs and scripts of a plan.

use flowkit_core::control::TaskOptions;

use super::graph::{FanIn, GraphPlan, Link, NodePlan, Reader, Script, Trouble, TroubleKind};
use super::swarm::Draw;
use super::{TaskPlan, World};

const ROLES: [&str; 3] = ["scan", "measure", "summarize"];

/// One task.
pub(super) fn task(draw: &mut Draw, number: u32, _world: &World) -> TaskPlan {
    let graph = match draw.small(0, 9) {
        0..=2 => GraphPlan::three_streaming_nodes(),
        3..=4 => chain(draw),
        _ => any_graph(draw),
    };
    let mut graph = graph;
    // Half of the tasks have handlers without trouble, so that faults act alone.
    if draw.percent(50) {
        for at in 0..graph.nodes.len() {
            trouble(draw, &mut graph, at);
        }
    }
    TaskPlan {
        id: format!("task-{number}"),
        key: None,
        options: TaskOptions::default(),
        graph,
        vars: serde_json::Value::Null,
        rerun: None,
    }
}

fn script(draw: &mut Draw) -> Script {
    Script {
        batches: draw.small(0, 6),
        items: draw.small(0, 5),
        init_ms: draw.between(0, 20),
        batch_ms: *draw.pick(&[0, 1, 10, 10, 50, 300]),
        finalize_ms: *draw.pick(&[0, 1, 10, 400]),
        checkpoints: *draw.pick(&[0, 0, 1, 2]),
        checkpoint_every: *draw.pick(&[0, 0, 2, 3]),
        large_at: draw.percent(3).then(|| draw.small(0, 3)),
        says_last: draw.percent(50),
        ..Script::default()
    }
}

fn node(draw: &mut Draw, number: usize) -> NodePlan {
    let role = *draw.pick(&ROLES);
    let mut node = NodePlan::new(&format!("n{number}"), role, script(draw));
    node.retry_max = draw.small(1, 3);
    node.backoff_ms = *draw.pick(&[0, 50, 300, 1_500]);
    node
}

/// A chain of readers.
fn chain(draw: &mut Draw) -> GraphPlan {
    let mut nodes = vec![node(draw, 0)];
    for number in 1..draw.small(2, 4) as usize {
        let mut next = node(draw, number);
        let source = nodes[number - 1].id.clone();
        read(draw, &mut next, vec![source]);
        nodes.push(next);
    }
    GraphPlan { nodes }
}

/// Makes a node a reader of nodes that are not its parents yet.
fn read(draw: &mut Draw, node: &mut NodePlan, from: Vec<String>) {
    node.first_batch = draw.percent(70);
    for source in &from {
        let link = if node.first_batch {
            *draw.pick(&[Link::DependsOn, Link::Edge])
        } else {
            *draw.pick(&[Link::DependsOn, Link::Edge, Link::OnBatch])
        };
        node.parents.push((source.clone(), link));
    }
    node.reader = Some(Reader {
        from,
        rechunk: draw.percent(60).then(|| draw.small(1, 4)),
        ..Reader::default()
    });
}

fn any_graph(draw: &mut Draw) -> GraphPlan {
    let count = draw.small(1, 6) as usize;
    let mut nodes: Vec<NodePlan> = Vec::new();
    // Routed-to nodes are nobody's ordinary parent, and their sources feed no stream: what such a
    // mixture should come to is a matter of timing.
    let mut routing: Vec<String> = Vec::new();
    for number in 0..count {
        let mut next = node(draw, number);
        let free: Vec<String> = nodes
            .iter()
            .map(|node| node.id.clone())
            .filter(|id| !routing.contains(id))
            .collect();
        if !free.is_empty() && !draw.percent(20) {
            match draw.small(0, 9) {
                0..=3 => {
                    let from = some(draw, &free, 2);
                    read(draw, &mut next, from);
                }
                4..=7 => {
                    for parent in some(draw, &free, 3) {
                        let link = *draw.pick(&[Link::DependsOn, Link::Edge]);
                        next.parents.push((parent, link));
                    }
                    let parents = u32::try_from(next.parents.len()).unwrap_or(1);
                    next.fan_in = match draw.small(0, 3) {
                        0 => FanIn::Any,
                        1 => FanIn::Count(draw.small(1, parents)),
                        _ => FanIn::All,
                    };
                }
                _ => {
                    let from = draw.pick(&free).clone();
                    let feeds = nodes
                        .iter()
                        .any(|node| node.parents.iter().any(|(parent, _)| *parent == from));
                    if feeds {
                        next.parents.push((from, Link::DependsOn));
                    } else {
                        let link = *draw.pick(&[Link::OnSuccess, Link::OnFailure]);
                        next.parents.push((from.clone(), link));
                        routing.push(from);
                        routing.push(next.id.clone());
                    }
                }
            }
        }
        nodes.push(next);
    }
    GraphPlan { nodes }
}

/// Up to `most` of them, each once.
fn some(draw: &mut Draw, of: &[String], most: u32) -> Vec<String> {
    let mut picked: Vec<String> = Vec::new();
    for _ in 0..draw.small(1, most) {
        let one = draw.pick(of).clone();
        if !picked.contains(&one) {
            picked.push(one);
        }
    }
    picked
}

/// What goes wrong in a node's handler.
fn trouble(draw: &mut Draw, graph: &mut GraphPlan, at: usize) {
    let reader = graph.nodes[at].reader.is_some();
    let node = &mut graph.nodes[at];
    let script = &mut node.script;
    if draw.percent(35) {
        let batch = if draw.percent(25) {
            None
        } else {
            Some(draw.small(0, script.batches.max(1) - 1))
        };
        let kind = match draw.small(0, 19) {
            0..=7 => TroubleKind::Transient,
            8..=9 => TroubleKind::Panics,
            10..=12 => TroubleKind::RetryAfter {
                ms: draw.between(0, 800),
            },
            13..=14 => TroubleKind::Permanent,
            15 => TroubleKind::Hangs,
            _ => TroubleKind::Slow {
                ms: draw.between(100, 4_000),
            },
        };
        for epoch in 1..=draw.small(1, 3) {
            script.trouble.push(Trouble {
                epoch,
                batch,
                hook: None,
                kind,
            });
        }
    }
    script.ignores_cancel = draw.percent(15);
    script.blocks = draw.percent(3);
    if !reader && script.batches > 1 && draw.percent(6) {
        script.shrinks_at_epoch = Some(2);
    }
    if !reader && script.batches > 2 && script.shrinks_at_epoch.is_none() && draw.percent(5) {
        script.duplicate_at = Some(draw.small(1, script.batches - 1));
        script.checkpoints = 0;
    }
}
