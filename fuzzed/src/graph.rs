//! Target `graph`: JSON that a client submits.

use flowkit_core::graph::{FAULTS_MAX, Graph, GraphOptions, generate};
use flowkit_core::json::Json;
use serde_json::Value;

/// Reads and checks the text as `flowkit graph check` does; what is accepted can be planned, and
/// its own JSON form is accepted as the same graph.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Json::parse(text) {
        Ok(json) => judge(&json),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What [`run`] does, for a value that is JSON already.
pub(crate) fn judge(json: &Json) {
    let graph = match Graph::parse(json) {
        Ok(graph) => graph,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX + 1);
            for fault in &faults {
                let texts = [&fault.path, &fault.problem, &fault.cure];
                assert!(texts.iter().all(|text| !text.is_empty()), "{fault:?}");
            }
            return;
        }
    };
    let plan = graph.plan();
    assert_eq!(plan.len(), graph.nodes().len());
    assert_eq!(plan.topological_order().len(), plan.len());
    for (at, node) in plan.nodes().iter().enumerate() {
        assert_eq!(plan.index(&node.id), Some(at));
        for (slot, edge) in node.parents.iter().enumerate() {
            let children = &plan.node(edge.node).children;
            assert!(children.iter().any(|c| (c.node, c.slot) == (at, slot)));
        }
        let reads = |read: &usize| node.parents.iter().any(|edge| edge.node == *read);
        assert!(node.reads.iter().all(reads), "{} reads no parent", node.id);
    }
    let form = graph.to_json();
    // Defaults written out take room: near the limit the form may be beyond it.
    if form.len() <= flowkit_core::graph::GRAPH_BYTES_MAX {
        assert_eq!(Graph::parse(&form).expect("its own form"), graph);
    }
}

/// A valid graph.
#[must_use]
pub fn donor(number: u32) -> Value {
    let mut state = u64::from(number) | 1 << 40;
    let mut draw = |end: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % end
    };
    generate(&mut draw, &GraphOptions::default())
}
