//! A checked graph, as written.

use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

use super::fan_in::FanIn;
use super::function::FunctionCall;
use super::when::Condition;
use crate::id::{NodeId, Role};
use crate::json::Json;
use crate::message::AdapterSpec;

/// How often a node is tried, and what ends it sooner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts that the handler may end in failure, the first included; at least 1. Default 2.
    pub max: u32,
    /// Wait before a new attempt, in milliseconds; 0 = none. Default 300,000.
    pub backoff_ms: u64,
    /// Reason codes that no new attempt can cure. Default `bad_input`, `schema_mismatch`.
    pub permanent_on: Arc<[Arc<str>]>,
    /// Workers lost in a row that end the node as `worker_lost`; at least 1. Default 20.
    pub losses_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        // Shared by every node of every task: most nodes keep the default.
        static PERMANENT_ON: LazyLock<Arc<[Arc<str>]>> =
            LazyLock::new(|| Arc::from(["bad_input", "schema_mismatch"].map(Arc::from)));
        Self {
            max: 2,
            backoff_ms: 300_000,
            permanent_on: PERMANENT_ON.clone(),
            losses_max: 20,
        }
    }
}

/// A node, as written, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `node_id`, unique in the graph.
    pub id: NodeId,
    /// `type`: the role that runs it.
    pub role: Role,
    /// `depends_on`.
    pub depends_on: Vec<NodeId>,
    /// `fan_in`; default `all`.
    pub fan_in: FanIn,
    /// `retry_policy`.
    pub retry: RetryPolicy,
    /// `routing.on_success`.
    pub on_success: Vec<NodeId>,
    /// `routing.on_failure`.
    pub on_failure: Vec<NodeId>,
    /// `io.input_ref`.
    pub input_ref: Option<Json>,
    /// `io.input_inline`: an object.
    pub input_inline: Option<Json>,
    /// `io.input_inline.input_adapter` with its `input_args`.
    pub adapter: Option<AdapterSpec>,
    /// The nodes the adapter reads, all of them parents.
    pub sources: Vec<NodeId>,
    /// `io.start_when` is `first_batch`.
    pub first_batch: bool,
    /// `when`.
    pub condition: Option<Condition>,
    /// `io.fn` with `io.fn_args`, of a `coordinator_fn` node.
    pub function: Option<FunctionCall>,
}

/// A checked graph.
///
/// Its nodes keep their order of appearance. There is no other way to one than
/// [`Graph::parse`], so what it says of its nodes holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<(NodeId, NodeId)>,
    pub(super) batch_edges: Vec<(NodeId, NodeId)>,
}

impl Graph {
    /// The nodes, in order of appearance.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// `edges`: parent and child.
    #[must_use]
    pub fn edges(&self) -> &[(NodeId, NodeId)] {
        &self.edges
    }

    /// `edges_ex` with trigger `on_batch`: parent and child.
    #[must_use]
    pub fn batch_edges(&self) -> &[(NodeId, NodeId)] {
        &self.batch_edges
    }

    /// The graph as JSON, defaults written out; it parses to the same graph.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let nodes: Vec<Value> = self.nodes.iter().map(Node::to_value).collect();
        let pairs = |edges: &[(NodeId, NodeId)], make: fn(&str, &str) -> Value| -> Vec<Value> {
            edges
                .iter()
                .map(|(from, to)| make(from.as_str(), to.as_str()))
                .collect()
        };
        Json::from(json!({
            "nodes": nodes,
            "edges": pairs(&self.edges, |from, to| json!([from, to])),
            "edges_ex": pairs(&self.batch_edges, |from, to| {
                json!({"from": from, "to": to, "mode": "async", "trigger": "on_batch"})
            }),
        }))
    }
}

impl Node {
    fn to_value(&self) -> Value {
        let mut io = Map::new();
        // What was parsed parses again.
        let value = |json: &Json| json.decode::<Value>().unwrap_or_default();
        if let Some(json) = &self.input_ref {
            io.insert("input_ref".to_owned(), value(json));
        }
        if let Some(json) = &self.input_inline {
            io.insert("input_inline".to_owned(), value(json));
        }
        let start_when = if self.first_batch {
            "first_batch"
        } else {
            "ready"
        };
        io.insert("start_when".to_owned(), json!(start_when));
        if let Some(call) = &self.function {
            io.insert("fn".to_owned(), json!(call.name));
            io.insert("fn_args".to_owned(), call.args.clone());
        }
        let mut node = json!({
            "node_id": self.id,
            "type": self.role,
            "depends_on": self.depends_on,
            "fan_in": self.fan_in.to_string(),
            "retry_policy": {
                "max": self.retry.max,
                "backoff_sec": self.retry.backoff_ms as f64 / 1000.0,
                "permanent_on": self.retry.permanent_on,
                "losses_max": self.retry.losses_max,
            },
            "routing": {"on_success": self.on_success, "on_failure": self.on_failure},
            "io": io,
        });
        if let Some(condition) = &self.condition {
            node["when"] = condition.to_value();
        }
        node
    }
}
