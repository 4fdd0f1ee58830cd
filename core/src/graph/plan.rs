//! The compiled form of a graph: numbered nodes and merged edges.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::fan_in::FanIn;
use super::function::FunctionCall;
use super::spec::{Graph, Node, RetryPolicy};
use super::when::Condition;
use crate::id::{NodeId, Role};
use crate::json::Json;
use crate::message::AdapterSpec;
use crate::planted::{Bug, is_planted};

/// Which end of the parent an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeCondition {
    /// Its successful end: `depends_on`, `edges`, `edges_ex`, `routing.on_success`.
    Success,
    /// Its failure for good: `routing.on_failure`.
    Failure,
}

/// An edge as the child sees it. All ways to name the same parent are one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentEdge {
    /// Index of the parent.
    pub node: usize,
    /// Which end of the parent counts.
    pub when: EdgeCondition,
    /// The parent counts from its first accepted batch: the child's `start_when` is `first_batch`,
    /// or the edge is in `edges_ex`. Never set for failure edges.
    pub first_batch: bool,
}

/// An edge as the parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildEdge {
    /// Index of the child.
    pub node: usize,
    /// Index of the edge among the child's `parents`.
    pub slot: usize,
}

/// A node of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNode {
    /// Its name.
    pub id: NodeId,
    /// The role that runs it.
    pub role: Role,
    /// Its parents, each once: `depends_on`, then `edges`, `edges_ex`, routing.
    pub parents: Vec<ParentEdge>,
    /// Its children, each once, in order of their index.
    pub children: Vec<ChildEdge>,
    /// When it may start.
    pub fan_in: FanIn,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// Indexes of its `on_failure` targets, which are among its children.
    pub on_failure: Vec<usize>,
    /// Indexes of its `on_success` targets, which are among its children.
    pub on_success: Vec<usize>,
    /// `{"input_ref":…,"input_inline":…}`; absent parts are left out.
    pub input: Json,
    /// The adapter that the graph names, checked.
    pub adapter: Option<AdapterSpec>,
    /// Indexes of the nodes the adapter reads, all of them parents.
    pub reads: Vec<usize>,
    /// Some parent counts from its first batch.
    pub streaming: bool,
    /// Over the vars, judged once, when its fan-in holds.
    pub condition: Option<Condition>,
    /// It runs inside the coordinator.
    pub function: Option<FunctionCall>,
}

/// A compiled graph. Nodes are numbered in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    nodes: Vec<PlanNode>,
    /// Node indexes in order of the nodes' names.
    by_name: Box<[u32]>,
}

impl Plan {
    /// The nodes, in order of appearance.
    #[must_use]
    pub fn nodes(&self) -> &[PlanNode] {
        &self.nodes
    }

    /// How many nodes there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a graph is never empty")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A node by its index.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, index: usize) -> &PlanNode {
        &self.nodes[index]
    }

    /// The index of a node by its name.
    #[must_use]
    pub fn index(&self, id: &NodeId) -> Option<usize> {
        let at = self
            .by_name
            .binary_search_by(|&index| self.nodes[index as usize].id.cmp(id))
            .ok()?;
        Some(self.by_name[at] as usize)
    }

    /// Every index, parents before children; otherwise in order of appearance.
    #[must_use]
    pub fn topological_order(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = self.nodes.iter().map(|n| n.parents.len()).collect();
        let mut order: Vec<usize> = (0..self.nodes.len()).filter(|&n| waits[n] == 0).collect();
        let mut done = 0;
        while let Some(&node) = order.get(done) {
            done += 1;
            for child in &self.nodes[node].children {
                waits[child.node] -= 1;
                if waits[child.node] == 0 {
                    order.push(child.node);
                }
            }
        }
        assert_eq!(
            order.len(),
            self.nodes.len(),
            "a checked graph has no cycle"
        );
        order
    }
}

impl Graph {
    /// Compiles the graph.
    ///
    /// # Panics
    /// Never for a graph of [`Graph::parse`], which is the only source of graphs.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let index: BTreeMap<&NodeId, usize> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (&n.id, i))
            .collect();
        let indexes = |ids: &[NodeId]| -> Vec<usize> { ids.iter().map(|id| index[id]).collect() };
        let mut nodes: Vec<PlanNode> = self
            .nodes
            .iter()
            .map(|node| PlanNode {
                id: node.id.clone(),
                role: node.role.clone(),
                parents: Vec::with_capacity(node.depends_on.len()),
                children: Vec::new(),
                fan_in: node.fan_in,
                retry: node.retry.clone(),
                on_failure: indexes(&node.on_failure),
                on_success: indexes(&node.on_success),
                input: input(node),
                adapter: node.adapter.clone(),
                reads: indexes(&node.sources),
                streaming: false,
                condition: node.condition.clone(),
                function: node.function.clone(),
            })
            .collect();

        let mut merge = Merge::default();
        for (child, node) in self.nodes.iter().enumerate() {
            for parent in &node.depends_on {
                merge.success(&mut nodes, index[parent], child, first_batch(node));
            }
        }
        for (parent, child) in &self.edges {
            let child = index[child];
            let first_batch = first_batch(&self.nodes[child]);
            merge.success(&mut nodes, index[parent], child, first_batch);
        }
        for (parent, child) in &self.batch_edges {
            let first_batch = !is_planted(Bug::OnBatchIgnored);
            merge.success(&mut nodes, index[parent], index[child], first_batch);
        }
        for parent in 0..nodes.len() {
            for child in nodes[parent].on_success.clone() {
                let first_batch = first_batch(&self.nodes[child]);
                merge.success(&mut nodes, parent, child, first_batch);
            }
            for child in nodes[parent].on_failure.clone() {
                nodes[child].parents.push(ParentEdge {
                    node: parent,
                    when: EdgeCondition::Failure,
                    first_batch: false,
                });
            }
        }
        for child in 0..nodes.len() {
            nodes[child].streaming = nodes[child].parents.iter().any(|e| e.first_batch);
            for slot in 0..nodes[child].parents.len() {
                let parent = nodes[child].parents[slot].node;
                nodes[parent].children.push(ChildEdge { node: child, slot });
            }
        }
        Plan {
            nodes,
            // The number of nodes is bounded far below a u32.
            by_name: index.values().map(|&i| i as u32).collect(),
        }
    }
}

/// Its parents count from their first batch.
fn first_batch(node: &Node) -> bool {
    node.first_batch && !is_planted(Bug::FirstBatchIgnored)
}

/// Finds the edge that already joins a pair of nodes.
#[derive(Default)]
struct Merge {
    slots: BTreeMap<(usize, usize), usize>,
}

impl Merge {
    fn success(&mut self, nodes: &mut [PlanNode], parent: usize, child: usize, first_batch: bool) {
        let parents = &mut nodes[child].parents;
        let slot = *self.slots.entry((parent, child)).or_insert_with(|| {
            parents.push(ParentEdge {
                node: parent,
                when: EdgeCondition::Success,
                first_batch: false,
            });
            parents.len() - 1
        });
        parents[slot].first_batch |= first_batch;
    }
}

fn input(node: &Node) -> Json {
    let raw = |json: &Json| json.decode::<Box<RawValue>>().ok();
    let parts: BTreeMap<&str, Box<RawValue>> = [
        ("input_ref", &node.input_ref),
        ("input_inline", &node.input_inline),
    ]
    .into_iter()
    .filter_map(|(key, part)| Some((key, raw(part.as_ref()?)?)))
    .collect();
    // Text keys and JSON that was parsed: encoding cannot fail.
    Json::encode(&parts).unwrap_or_default()
}
