//! Generated graphs: they are valid, they compile, and under the rules every one of them settles.

use proptest::prelude::*;
use std::collections::BTreeSet;

use super::graph;
use crate::graph::{
    Adapter, EdgeCondition, EdgeState, FanIn, FanInTally, Graph, GraphOptions, ParentView, Plan,
    Verdict, edge_state, generate,
};
use crate::json::Json;
use crate::record::NodeState;

/// Draws from a seed (splitmix64).
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        assert!(bound > 0, "a draw needs a bound");
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

fn generated(seed: u64, max_nodes: usize) -> Graph {
    let options = GraphOptions {
        max_nodes,
        ..GraphOptions::default()
    };
    graph(generate(&mut draws(seed), &options))
}

proptest! {
    #[test]
    fn a_generated_graph_is_valid_and_round_trips(seed: u64, max_nodes in 1_usize..60) {
        let graph = generated(seed, max_nodes);
        prop_assert!((1..=max_nodes).contains(&graph.nodes().len()));
        let again = Graph::parse(&graph.to_json());
        prop_assert_eq!(again.as_ref(), Ok(&graph));
        let through_text = Json::parse(graph.to_json().text()).expect("JSON");
        prop_assert_eq!(Graph::parse(&through_text), Ok(graph));
    }

    #[test]
    fn a_plan_mirrors_its_edges_and_orders_its_nodes(seed: u64, max_nodes in 1_usize..60) {
        let plan = generated(seed, max_nodes).plan();
        let order = plan.topological_order();
        let place: Vec<usize> = (0..plan.len())
            .map(|n| order.iter().position(|&o| o == n).expect("every node once"))
            .collect();
        let mut children = 0;
        for (index, node) in plan.nodes().iter().enumerate() {
            prop_assert_eq!(plan.index(&node.id), Some(index));
            for (slot, edge) in node.parents.iter().enumerate() {
                let back: Vec<_> = plan.node(edge.node).children.iter()
                    .filter(|c| c.node == index).collect();
                prop_assert_eq!(back.len(), 1, "one edge per pair");
                prop_assert_eq!(back[0].slot, slot);
                prop_assert!(place[edge.node] < place[index]);
                let on_failure = plan.node(edge.node).on_failure.contains(&index);
                prop_assert_eq!(edge.when == EdgeCondition::Failure, on_failure);
            }
            for &target in node.on_success.iter().chain(&node.on_failure) {
                prop_assert!(node.children.iter().any(|c| c.node == target));
            }
            for &source in &node.reads {
                prop_assert!(node.parents.iter().any(|e| e.node == source));
            }
            if let Some(spec) = &node.adapter {
                let adapter = Adapter::parse(spec).expect("checked");
                prop_assert_eq!(adapter.pull().sources.len(), node.reads.len());
            }
            prop_assert_eq!(node.streaming, node.parents.iter().any(|e| e.first_batch));
            children += node.children.len();
        }
        let parents: usize = plan.nodes().iter().map(|n| n.parents.len()).sum();
        prop_assert_eq!(children, parents);
    }

    #[test]
    fn whatever_the_nodes_do_every_node_ends(seed: u64, max_nodes in 1_usize..30) {
        let plan = generated(seed, max_nodes).plan();
        Life::new(&plan, draws(!seed)).run();
    }
}

/// Lives a task's life with random outcomes, and judges every node anew after every step.
struct Life<'a, D> {
    plan: &'a Plan,
    draw: D,
    views: Vec<ParentView>,
    edges: Vec<Vec<EdgeState>>,
    tallies: Vec<FanInTally>,
}

impl<'a, D: FnMut(u64) -> u64> Life<'a, D> {
    fn new(plan: &'a Plan, draw: D) -> Self {
        let queued = ParentView {
            state: NodeState::Queued,
            accepted: 0,
        };
        let parents = |n: usize| plan.node(n).parents.len();
        Self {
            plan,
            draw,
            views: vec![queued; plan.len()],
            edges: (0..plan.len())
                .map(|n| vec![EdgeState::Pending; parents(n)])
                .collect(),
            tallies: (0..plan.len())
                .map(|n| FanInTally::new(parents(n)))
                .collect(),
        }
    }

    fn run(mut self) {
        let mut touched: Vec<usize> = (0..self.plan.len()).collect();
        let mut steps = 0;
        loop {
            while let Some(node) = touched.pop() {
                self.judge(node, &mut touched);
            }
            let running: Vec<usize> = (0..self.plan.len())
                .filter(|&n| self.views[n].state == NodeState::Running)
                .collect();
            if running.is_empty() {
                break;
            }
            steps += 1;
            let pick = (self.draw)(running.len() as u64) as usize;
            let node = running[pick];
            match (self.draw)(if steps > 200 { 2 } else { 5 }) {
                0 => self.views[node].state = NodeState::Finished,
                1 => self.views[node].state = NodeState::Failed,
                _ => self.views[node].accepted += 1,
            }
            self.tell_children(node, &mut touched);
        }
        for (index, view) in self.views.iter().enumerate() {
            assert!(view.state.is_terminal(), "node {index} is stuck: {view:?}");
        }
    }

    fn judge(&mut self, node: usize, touched: &mut Vec<usize>) {
        let fresh = self.tally_anew(node);
        assert_eq!(self.tallies[node], fresh, "the counters drifted");
        if self.views[node].state != NodeState::Queued {
            return;
        }
        match fresh.verdict(self.plan.node(node).fan_in) {
            Verdict::Wait => {}
            Verdict::Start => self.views[node].state = NodeState::Running,
            Verdict::Skip => {
                self.views[node].state = NodeState::Skipped;
                self.tell_children(node, touched);
            }
        }
    }

    fn tally_anew(&self, node: usize) -> FanInTally {
        let parents = &self.plan.node(node).parents;
        let mut tally = FanInTally::new(parents.len());
        for edge in parents {
            tally.move_edge(EdgeState::Pending, edge_state(edge, self.views[edge.node]));
        }
        tally
    }

    fn tell_children(&mut self, node: usize, touched: &mut Vec<usize>) {
        for child in &self.plan.node(node).children {
            let edge = &self.plan.node(child.node).parents[child.slot];
            let to = edge_state(edge, self.views[node]);
            let from = std::mem::replace(&mut self.edges[child.node][child.slot], to);
            self.tallies[child.node].move_edge(from, to);
            touched.push(child.node);
        }
    }
}

#[test]
fn generated_graphs_use_every_feature() {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for seed in 0..500 {
        let graph = generated(seed, 12);
        let plan = graph.plan();
        for (name, found) in [
            ("edges", !graph.edges().is_empty()),
            ("batch edges", !graph.batch_edges().is_empty()),
            ("one node", plan.len() == 1),
            ("twelve nodes", plan.len() == 12),
        ] {
            if found {
                seen.insert(name);
            }
        }
        for node in plan.nodes() {
            for (name, found) in [
                ("root", node.parents.is_empty()),
                ("fan-in of four", node.parents.len() >= 4),
                ("fan-out of four", node.children.len() >= 4),
                ("any", node.fan_in == FanIn::Any),
                ("count", matches!(node.fan_in, FanIn::Count(2..))),
                ("on_success", !node.on_success.is_empty()),
                ("on_failure", !node.on_failure.is_empty()),
                ("streaming", node.streaming),
                ("reads two", node.reads.len() >= 2),
                ("one attempt", node.retry.max == 1),
                ("no backoff", node.retry.backoff_ms == 0),
                ("fraction", node.retry.backoff_ms == 50),
                ("own codes", node.retry.permanent_on.len() == 1),
            ] {
                if found {
                    seen.insert(name);
                }
            }
            match node.adapter.as_ref().map(Adapter::parse) {
                Some(Ok(Adapter::FromArtifacts(_))) => seen.insert("pull"),
                Some(Ok(Adapter::Rechunk { .. })) => seen.insert("rechunk"),
                _ => false,
            };
        }
    }
    assert_eq!(seen.len(), 19, "{seen:?}");
}

#[test]
fn options_switch_features_off() {
    let options = GraphOptions {
        max_nodes: 12,
        roles: vec!["a".to_owned(), "b".to_owned()],
        max_batches: 0,
        routing: false,
        streaming: false,
        fan_in: false,
        retries: false,
    };
    for seed in 0..200 {
        let plan = graph(generate(&mut draws(seed), &options)).plan();
        for node in plan.nodes() {
            assert!(["a", "b"].contains(&node.role.as_str()));
            assert!(node.on_failure.is_empty() && node.on_success.is_empty());
            assert!(!node.streaming && node.adapter.is_none());
            assert_eq!(node.fan_in, FanIn::All);
            assert_eq!(node.retry, crate::graph::RetryPolicy::default());
            assert!(node.input.text().contains(r#""batches":0"#));
        }
    }
}
