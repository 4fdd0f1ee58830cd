//! Graphs of a plan and what their handlers do. Kept apart from `core::graph`, so that checkers
//! judge with rules of their own.

use std::collections::BTreeSet;

use flowkit_core::graph::Graph;
use flowkit_core::json::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::functions::functions_of_processes;

/// A graph with the scripts of its handlers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphPlan {
    /// The nodes; parents come first.
    pub nodes: Vec<NodePlan>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Its id.
    pub id: String,
    /// The role that runs it.
    pub role: String,
    /// Parents by id, and how the graph says so.
    #[serde(default)]
    pub parents: Vec<(String, Link)>,
    /// Which parents must count.
    #[serde(default)]
    pub fan_in: FanIn,
    /// Parents count from their first batch.
    #[serde(default)]
    pub first_batch: bool,
    /// It reads the artifacts of its parents.
    #[serde(default)]
    pub reader: Option<Reader>,
    /// Attempts that the handler may fail.
    pub retry_max: u32,
    /// Wait after a failed attempt.
    pub backoff_ms: u64,
    /// Codes of failures after which there is no other attempt; the engine's default if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permanent_on: Vec<String>,
    /// Grants that may be lost in a row; the engine's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses_max: Option<u32>,
    /// What the handler does.
    #[serde(default)]
    pub script: Script,
    /// Its `io.input_ref`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_ref: Option<Value>,
    /// Its condition over the vars, as in a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Value>,
    /// It runs inside the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionPlan>,
}

/// A coordinator function with its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionPlan {
    /// `io.fn`.
    pub name: String,
    /// `io.fn_args`.
    pub args: Value,
}

/// How a graph names a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// `depends_on` of the child.
    DependsOn,
    /// An edge.
    Edge,
    /// An `on_batch` edge: the parent counts from its first batch.
    OnBatch,
    /// The parent routes to the child when it succeeds.
    OnSuccess,
    /// The parent routes to the child when it fails for good.
    OnFailure,
}

/// Which parents must count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FanIn {
    /// Every one (skipped ones aside).
    #[default]
    All,
    /// One.
    Any,
    /// So many.
    Count(u32),
}

/// How a node reads its parents' artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// Whose artifacts.
    pub from: Vec<String>,
    /// Chunks of this size; a batch per artifact if absent.
    pub rechunk: Option<u32>,
    /// The graph does not say so: the handler proposes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proposed: bool,
    /// The handler proposes chunks of this size beside what the graph says, which counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoy: Option<u32>,
    /// It does not say which list of an artifact is to be cut: strict workers do not take that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyless: bool,
    /// It names a list that no artifact has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// A single source is named alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// The end of its sources is believed after one more look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub looks_twice: bool,
    /// How often it looks for itself; the worker's setting if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_ms: Option<u32>,
    /// How seldom at most, while nothing comes; the worker's setting if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u32>,
}

impl Reader {
    /// The adapter that is to drive the node: its name and arguments.
    fn adapter(&self) -> (&'static str, Value) {
        self.cut(self.rechunk)
    }

    /// Each artifact is one item, for no list of it is cut.
    #[must_use]
    pub const fn takes_whole(&self) -> bool {
        self.rechunk.is_some() && (self.keyless || self.elsewhere)
    }

    /// What the handler proposes, if anything.
    #[must_use]
    pub fn proposal(&self) -> Option<(&'static str, Value)> {
        if self.proposed {
            Some(self.adapter())
        } else {
            self.decoy.map(|size| self.cut(Some(size)))
        }
    }

    fn cut(&self, size: Option<u32>) -> (&'static str, Value) {
        let mut args = match (&self.from[..], self.alone) {
            ([one], true) => json!({ "from_node": one }),
            _ => json!({ "from_nodes": self.from }),
        };
        if let Some(ms) = self.poll_ms {
            args["poll_ms"] = json!(ms);
        }
        if let Some(ms) = self.backoff_max_ms {
            args["backoff_max_ms"] = json!(ms);
        }
        if self.looks_twice {
            args["eof_on_task_done"] = json!(false);
        }
        let Some(size) = size else {
            return ("pull.from_artifacts", args);
        };
        args["size"] = json!(size);
        if !self.keyless {
            args["meta_list_key"] = json!(if self.elsewhere { "rows" } else { "items" });
        }
        ("pull.from_artifacts.rechunk:size", args)
    }
}

/// What a handler does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// Batches of its own source (readers have none).
    pub batches: u32,
    /// Items in each artifact.
    pub items: u32,
    /// Time of `init`.
    pub init_ms: u64,
    /// Time of one batch.
    pub batch_ms: u64,
    /// Time of `finalize`.
    pub finalize_ms: u64,
    /// Checkpoints saved within each batch.
    pub checkpoints: u32,
    /// Saves checkpoints only in every n-th batch; 0 = in every one.
    pub checkpoint_every: u32,
    /// This batch (from 0) leaves an artifact too large to travel in a message.
    pub large_at: Option<u32>,
    /// The source says with the last batch that it is the last.
    pub says_last: bool,
    /// It does not wait for one checkpoint to be safe before it saves the next.
    pub hasty: bool,
    /// Each batch marks the node's result, and `finalize` returns none.
    pub marks: bool,
    /// What goes wrong, and when.
    pub trouble: Vec<Trouble>,
    /// The handler does not react to a cancel.
    pub ignores_cancel: bool,
    /// The handler does not even end when it is dropped.
    pub blocks: bool,
    /// From this attempt on the source has one batch less.
    pub shrinks_at_epoch: Option<u32>,
    /// The source gives this batch (from 1) the uid of the one before it.
    pub duplicate_at: Option<u32>,
}

/// The longest that a cleanup may take which nobody waits for, and the second that its end takes.
const CLEANUP_MS: u64 = 31_000;

/// What goes wrong in a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// In which attempt; 0 = in every one.
    pub epoch: u32,
    /// In which batch of its own source (from 0); readers: in any. Absent: in `finalize`.
    pub batch: Option<u32>,
    /// In which other hook; `batch` does not matter then.
    #[serde(default)]
    pub hook: Option<Hook>,
    /// What.
    pub kind: TroubleKind,
}

/// Hooks beside `process` and `finalize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// `init`.
    Init,
    /// `load_input`.
    LoadInput,
    /// `batches`; readers do not have it.
    Batches,
    /// `cleanup`; what it cannot say is no trouble there.
    Cleanup,
}

impl Trouble {
    /// It strikes in this attempt.
    #[must_use]
    pub const fn is_in(&self, epoch: u32) -> bool {
        self.epoch == 0 || self.epoch == epoch
    }
}

/// Ways a handler goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TroubleKind {
    /// A transient failure.
    Transient,
    /// A transient failure that asks for a wait.
    RetryAfter {
        /// How long.
        ms: u64,
    },
    /// A permanent failure.
    Permanent,
    /// A panic: a transient failure.
    Panics,
    /// An error, and a panic as it is classified: a transient failure.
    PanicsNaming,
    /// An error of the handler's own, to which it gives a class.
    Classified {
        /// For good.
        permanent: bool,
    },
    /// It never returns by itself (until it is cancelled).
    Hangs,
    /// It takes so much longer.
    Slow {
        /// How much.
        ms: u64,
    },
}

impl Default for Script {
    fn default() -> Self {
        Self {
            batches: 1,
            items: 2,
            init_ms: 1,
            batch_ms: 10,
            finalize_ms: 1,
            checkpoints: 0,
            checkpoint_every: 0,
            large_at: None,
            says_last: false,
            hasty: false,
            marks: false,
            trouble: Vec::new(),
            ignores_cancel: false,
            blocks: false,
            shrinks_at_epoch: None,
            duplicate_at: None,
        }
    }
}

impl NodePlan {
    /// A node with its own source and nothing special.
    #[must_use]
    pub fn new(id: &str, role: &str, script: Script) -> Self {
        Self {
            id: id.to_owned(),
            role: role.to_owned(),
            parents: Vec::new(),
            fan_in: FanIn::All,
            first_batch: false,
            reader: None,
            retry_max: 2,
            backoff_ms: 200,
            permanent_on: Vec::new(),
            losses_max: None,
            script,
            input_ref: None,
            when: None,
            function: None,
        }
    }

    /// Makes it a reader of `from`, which it depends on and follows from the first batch on.
    #[must_use]
    pub fn streaming(mut self, from: &[&str], rechunk: Option<u32>) -> Self {
        self = self.after(from);
        self.first_batch = true;
        self.reader = Some(Reader {
            from: from.iter().map(|&id| id.to_owned()).collect(),
            rechunk,
            ..Reader::default()
        });
        self
    }

    /// Makes it depend on nodes.
    #[must_use]
    pub fn after(mut self, parents: &[&str]) -> Self {
        for parent in parents {
            self.parents.push(((*parent).to_owned(), Link::DependsOn));
        }
        self
    }

    /// The parent counts for this node from its first accepted batch.
    #[must_use]
    pub fn streams_from(&self, link: Link) -> bool {
        link == Link::OnBatch || (self.first_batch && matches!(link, Link::DependsOn | Link::Edge))
    }

    fn to_json(&self) -> Value {
        let fan_in = match self.fan_in {
            FanIn::All => "all".to_owned(),
            FanIn::Any => "any".to_owned(),
            FanIn::Count(n) => format!("count:{n}"),
        };
        let depends_on: Vec<&str> = self.parents_by(Link::DependsOn).collect();
        #[expect(clippy::cast_precision_loss, reason = "plans hold small numbers")]
        let backoff_sec = self.backoff_ms as f64 / 1_000.0;
        let mut node = json!({
            "node_id": self.id,
            "type": self.role,
            "depends_on": depends_on,
            "fan_in": fan_in,
            "retry_policy": { "max": self.retry_max, "backoff_sec": backoff_sec },
        });
        if let Some(losses_max) = self.losses_max {
            node["retry_policy"]["losses_max"] = json!(losses_max);
        }
        if !self.permanent_on.is_empty() {
            node["retry_policy"]["permanent_on"] = json!(self.permanent_on);
        }
        let mut io = serde_json::Map::new();
        if self.first_batch {
            io.insert("start_when".to_owned(), json!("first_batch"));
        }
        if let Some(reader) = self.reader.as_ref().filter(|reader| !reader.proposed) {
            let (name, args) = reader.adapter();
            io.insert(
                "input_inline".to_owned(),
                json!({ "input_adapter": name, "input_args": args }),
            );
        }
        if let Some(input) = &self.input_ref {
            io.insert("input_ref".to_owned(), input.clone());
        }
        if let Some(function) = &self.function {
            io.insert("fn".to_owned(), json!(function.name));
            io.insert("fn_args".to_owned(), function.args.clone());
        }
        if let Some(when) = &self.when {
            node["when"] = when.clone();
        }
        if !io.is_empty() {
            node["io"] = Value::Object(io);
        }
        node
    }

    fn parents_by(&self, link: Link) -> impl Iterator<Item = &str> {
        self.parents
            .iter()
            .filter(move |(_, by)| *by == link)
            .map(|(id, _)| id.as_str())
    }
}

impl GraphPlan {
    /// `scan -> measure -> summarize`, each starting on its parent's first batch.
    #[must_use]
    pub fn three_streaming_nodes() -> Self {
        let scan = Script {
            batches: 4,
            items: 3,
            checkpoints: 1,
            ..Script::default()
        };
        let measure = Script {
            checkpoints: 1,
            ..Script::default()
        };
        Self {
            nodes: vec![
                NodePlan::new("scan", "scan", scan),
                NodePlan::new("measure", "measure", measure).streaming(&["scan"], Some(2)),
                NodePlan::new("summarize", "summarize", Script::default())
                    .streaming(&["measure"], None),
            ],
        }
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The graph as a client submits it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut nodes: Vec<Value> = self.nodes.iter().map(NodePlan::to_json).collect();
        let mut edges = Vec::new();
        let mut edges_ex = Vec::new();
        for child in &self.nodes {
            for (parent, link) in &child.parents {
                let key = match link {
                    Link::DependsOn => continue,
                    Link::Edge => {
                        edges.push(json!([parent, child.id]));
                        continue;
                    }
                    Link::OnBatch => {
                        edges_ex.push(json!({
                            "from": parent, "to": child.id, "mode": "async", "trigger": "on_batch",
                        }));
                        continue;
                    }
                    Link::OnSuccess => "on_success",
                    Link::OnFailure => "on_failure",
                };
                let from = self.nodes.iter().position(|node| node.id == *parent);
                if let Some(from) = from {
                    let routing = &mut nodes[from]["routing"];
                    if routing.is_null() {
                        *routing = json!({});
                    }
                    if routing[key].is_null() {
                        routing[key] = json!([]);
                    }
                    if let Some(targets) = routing[key].as_array_mut() {
                        targets.push(json!(child.id));
                    }
                }
            }
        }
        json!({ "nodes": nodes, "edges": edges, "edges_ex": edges_ex })
    }

    /// What makes no sense in it: every fault that the engine finds, and what it cannot see.
    pub(super) fn faults_of_form(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut above: BTreeSet<&str> = BTreeSet::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for (parent, _) in &node.parents {
                if !above.contains(parent.as_str()) {
                    wrong.push(format!(
                        "nodes[{at}].parents: {parent:?} is no node above it"
                    ));
                }
            }
            above.insert(&node.id);
        }
        if wrong.is_empty()
            && let Err(faults) =
                Graph::parse_with(&Json::from(self.to_json()), &functions_of_processes(|| {}))
        {
            wrong.extend(faults.iter().map(ToString::to_string));
        }
        wrong
    }

    /// The work of all nodes one after the other, with all attempts and back-offs.
    #[must_use]
    pub fn work_ms(&self) -> u64 {
        // No reader gets more batches than there are items upstream, in total.
        let own = |node: &NodePlan| {
            u64::from(node.script.batches).saturating_mul(u64::from(node.script.items.max(1)))
        };
        let upstream = self.nodes.iter().map(own).fold(2, u64::saturating_add);
        self.nodes
            .iter()
            .map(|node| {
                let script = &node.script;
                let batches = match &node.reader {
                    None => u64::from(script.batches),
                    Some(_) => upstream,
                };
                let slow = script.trouble.iter().map(|trouble| match trouble.kind {
                    // Every chunk of a reader may count as the batch in question.
                    TroubleKind::Slow { ms } if node.reader.is_some() && trouble.hook.is_none() => {
                        ms.saturating_mul(upstream)
                    }
                    TroubleKind::Hangs if trouble.hook == Some(Hook::Cleanup) => CLEANUP_MS,
                    TroubleKind::Slow { ms } | TroubleKind::RetryAfter { ms } => ms,
                    _ => 0,
                });
                let attempt = batches
                    .saturating_mul(script.batch_ms.saturating_add(20))
                    .saturating_add(script.init_ms)
                    .saturating_add(script.finalize_ms)
                    .saturating_add(slow.fold(0, u64::saturating_add))
                    .saturating_add(node.backoff_ms.saturating_mul(2));
                attempt.saturating_mul(u64::from(node.retry_max.max(1)))
            })
            .fold(0, u64::saturating_add)
    }
}
