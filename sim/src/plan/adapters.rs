//! How readers come by their input adapters, what these are told, and inputs that handlers find for
//! themselves. Drawn from streams of their own, so that the rest of a seed's plan stays as it is.

use serde_json::json;

use super::Plan;
use super::swarm::Draw;

/// Some handlers propose their adapter, or another one than the graph's; some adapters have settings.
pub(super) fn readers(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(45) {
        return;
    }
    for node in plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes) {
        let Some(reader) = &mut node.reader else {
            continue;
        };
        match draw.small(0, 9) {
            0..=3 => reader.proposed = true,
            4..=6 => reader.decoy = Some(draw.small(1, 6)),
            _ => {}
        }
        reader.alone = draw.percent(50);
        reader.looks_twice = draw.percent(30);
        reader.poll_ms = draw.percent(30).then(|| draw.small(1, 1_000));
        reader.backoff_max_ms = draw.percent(30).then(|| draw.small(1_000, 3_000));
    }
}

/// Now and then workers are strict, and some readers do not know what they cut.
pub(super) fn strict(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(5) {
        return;
    }
    plan.world.strict_adapters = true;
    for node in plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes) {
        if let Some(reader) = &mut node.reader {
            reader.keyless = reader.rechunk.is_some() && draw.percent(35);
        }
    }
}

/// Some readers do not say which list they cut, or name one that no artifact has: each artifact is one item.
pub(super) fn listless(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(12) {
        return;
    }
    let strict = plan.world.strict_adapters;
    for graph in plan.tasks.iter_mut().map(|task| &mut task.graph) {
        // What holds a large artifact is a large one itself, and checkers do not see into these.
        if graph.nodes.iter().any(|n| n.script.large_at.is_some()) {
            continue;
        }
        let readers = graph.nodes.iter_mut().filter_map(|n| n.reader.as_mut());
        for reader in readers.filter(|reader| reader.rechunk.is_some()) {
            match draw.small(0, 9) {
                0..=2 if !strict => reader.keyless = true,
                3..=6 => reader.elsewhere = true,
                _ => {}
            }
        }
    }
}

/// Some nodes are told where their input lies.
pub(super) fn inputs(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(40) {
        return;
    }
    let nodes = plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes);
    for node in nodes.filter(|node| node.function.is_none()) {
        if draw.percent(30) {
            node.input_ref = Some(json!({"file": node.id, "row": draw.small(0, 9)}));
        }
    }
}
