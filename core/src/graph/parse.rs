//! From JSON to drafts of nodes and edges: shapes, types, ranges. What concerns several nodes is
//! checked in `check`.

use serde_json::Value;
use std::sync::Arc;

use super::check::check;
use super::fan_in::FanIn;
use super::fault::{Fault, Faults, Path, quoted, similar};
use super::function::{self, FunctionCall};
use super::read::{Fields, id, ids, list, text};
use super::spec::{Graph, Node, RetryPolicy};
use super::when::{self, Condition};
use super::{GRAPH_BYTES_MAX, GRAPH_NODES_MAX, adapter};
use crate::function::{COORDINATOR_FN, Functions};
use crate::id::{NodeId, Role};
use crate::json::{JSON_DEPTH_MAX, Json, Limits, breaks};
use crate::message::AdapterSpec;

/// Longest `backoff_sec`: a year.
const BACKOFF_SEC_MAX: f64 = 31_536_000.0;
/// Most attempts and losses that can be asked for.
const ATTEMPTS_MAX: u32 = 1_000_000;
/// Format versions that this build reads.
const SCHEMA_VERSIONS: [&str; 2] = ["1", "1.0"];
const LATER: &str = "is not supported by this version";

/// A node as far as it could be read.
pub(super) struct Draft {
    pub(super) id: Option<NodeId>,
    pub(super) role: Option<Role>,
    pub(super) depends_on: Vec<(usize, NodeId)>,
    pub(super) fan_in: FanIn,
    pub(super) retry: RetryPolicy,
    pub(super) on_success: Vec<(usize, NodeId)>,
    pub(super) on_failure: Vec<(usize, NodeId)>,
    pub(super) input_ref: Option<Json>,
    pub(super) input_inline: Option<Json>,
    pub(super) adapter: Option<AdapterSpec>,
    pub(super) sources: Vec<NodeId>,
    pub(super) first_batch: bool,
    pub(super) condition: Option<Condition>,
    pub(super) function: Option<FunctionCall>,
    /// Nodes that its function reads.
    pub(super) function_reads: Vec<NodeId>,
}

/// An edge of `edges` or `edges_ex`: its place in the list, parent, child.
pub(super) type DraftEdge = (usize, NodeId, NodeId);

impl Graph {
    /// Reads and checks a graph.
    ///
    /// `null` counts as an absent field. `retry_policy.max` and `losses_max` count what ends the
    /// node, so their least value is 1; `backoff_sec` may be 0 or a fraction of a second.
    ///
    /// Coordinator functions are the built-in ones; see [`Graph::parse_with`].
    ///
    /// # Errors
    /// Every fault of the graph, at most [`super::FAULTS_MAX`] of them.
    pub fn parse(json: &Json) -> Result<Self, Vec<Fault>> {
        Self::parse_with(json, &Functions::default())
    }

    /// The same with the functions and detectors that a coordinator knows.
    ///
    /// # Errors
    /// As [`Graph::parse`].
    pub fn parse_with(json: &Json, functions: &Functions) -> Result<Self, Vec<Fault>> {
        Self::read(json, Some(functions))
    }

    /// A graph that was taken on before: what its functions and their arguments are about was
    /// checked then, perhaps by a coordinator that knew others.
    ///
    /// # Errors
    /// As [`Graph::parse`].
    pub fn parse_stored(json: &Json) -> Result<Self, Vec<Fault>> {
        Self::read(json, None)
    }

    fn read(json: &Json, functions: Option<&Functions>) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let limits = Limits {
            bytes_max: GRAPH_BYTES_MAX,
            depth_max: JSON_DEPTH_MAX,
            unique_keys: true,
        };
        let broken = breaks(json.text(), limits);
        for found in &broken {
            let place = if found.path.is_empty() {
                "graph"
            } else {
                &found.path
            };
            faults.add(place, found.problem.clone(), found.cure);
        }
        if json.len() > GRAPH_BYTES_MAX {
            return Err(faults.into_list());
        }
        let root = match json.decode::<Value>() {
            Ok(root) => root,
            Err(error) => {
                // Too deep, or half a surrogate pair: named above already.
                if faults.is_empty() {
                    faults.add(
                        Path::Root,
                        format!("is not JSON: {error}"),
                        "mend the JSON text",
                    );
                }
                return Err(faults.into_list());
            }
        };
        let graph = read_graph(&root, functions, &mut faults);
        match graph {
            Some(graph) if faults.is_empty() => Ok(graph),
            _ => Err(faults.into_list()),
        }
    }
}

fn read_graph(root: &Value, functions: Option<&Functions>, faults: &mut Faults) -> Option<Graph> {
    let path = Path::Root;
    let known = &["schema_version", "nodes", "edges", "edges_ex"];
    let fields = Fields::of(root, &path, known, faults)?;
    schema_version(fields, faults);
    let nodes_path = fields.path("nodes");
    let Some(nodes) = fields.get("nodes") else {
        faults.add(path, "`nodes` is missing", "add `nodes`, a list of nodes");
        return None;
    };
    let nodes = list(nodes, &nodes_path, "a list of nodes", faults);
    if nodes.is_empty() && faults.is_empty() {
        faults.add(nodes_path, "is empty", "add at least one node");
    }
    if nodes.len() > GRAPH_NODES_MAX {
        let problem = format!("holds {} nodes", nodes.len());
        let cure = format!("at most {GRAPH_NODES_MAX}: split the graph into several tasks");
        faults.add(nodes_path, problem, cure);
        return None;
    }
    let drafts: Vec<Draft> = nodes
        .iter()
        .enumerate()
        .filter_map(|(index, value)| read_node(value, &nodes_path.index(index), functions, faults))
        .collect();
    let edges = read_edges(fields, faults);
    let batch_edges = read_batch_edges(fields, faults);
    if drafts.len() < nodes.len() {
        // Places in the list and indexes of drafts differ; an element is not even an object.
        return None;
    }
    check(&drafts, &edges, &batch_edges, faults);
    let nodes: Option<Vec<Node>> = drafts.into_iter().map(Draft::finish).collect();
    let pairs = |edges: Vec<DraftEdge>| edges.into_iter().map(|(_, a, b)| (a, b)).collect();
    Some(Graph {
        nodes: nodes?,
        edges: pairs(edges),
        batch_edges: pairs(batch_edges),
    })
}

fn schema_version(fields: Fields<'_>, faults: &mut Faults) {
    let Some(value) = fields.get("schema_version") else {
        return;
    };
    let version = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    if !SCHEMA_VERSIONS.contains(&version.as_str()) {
        let problem = format!("{} is not a known version", quoted(&version));
        let cure = "write \"1.0\" or leave it out";
        faults.add(fields.path("schema_version"), problem, cure);
    }
}

impl Draft {
    fn finish(self) -> Option<Node> {
        let names = |ids: Vec<(usize, NodeId)>| ids.into_iter().map(|(_, id)| id).collect();
        Some(Node {
            id: self.id?,
            role: self.role?,
            depends_on: names(self.depends_on),
            fan_in: self.fan_in,
            retry: self.retry,
            on_success: names(self.on_success),
            on_failure: names(self.on_failure),
            input_ref: self.input_ref,
            input_inline: self.input_inline,
            adapter: self.adapter,
            sources: self.sources,
            first_batch: self.first_batch,
            condition: self.condition,
            function: self.function,
        })
    }
}

fn read_node(
    value: &Value,
    path: &Path<'_>,
    functions: Option<&Functions>,
    faults: &mut Faults,
) -> Option<Draft> {
    let known = &[
        "node_id",
        "type",
        "depends_on",
        "fan_in",
        "retry_policy",
        "routing",
        "when",
        "io",
    ];
    let fields = Fields::of(value, path, known, faults)?;
    for (key, cure) in [
        ("node_id", "add `node_id`, a name unique in the graph"),
        ("type", "add `type`, the role that runs the node"),
    ] {
        if fields.get(key).is_none() {
            faults.add(path, format!("`{key}` is missing"), cure);
        }
    }
    let id = fields
        .text("node_id", faults)
        .and_then(|text| id(text, |t| NodeId::new(t), &fields.path("node_id"), faults));
    let coordinator_fn = fields.get("type").and_then(Value::as_str) == Some(COORDINATOR_FN);
    let role = fields
        .text("type", faults)
        .and_then(|text| super::read::id(text, |t| Role::new(t), &fields.path("type"), faults));
    let condition = fields
        .get("when")
        .and_then(|value| when::read(value, &fields.path("when"), faults));
    let names = |key, faults: &mut Faults| match fields.get(key) {
        Some(value) => ids(value, |t| NodeId::new(t), &fields.path(key), faults),
        None => Vec::new(),
    };
    let depends_on = names("depends_on", faults);
    let mut draft = Draft {
        id,
        role,
        depends_on,
        fan_in: read_fan_in(fields, faults),
        retry: read_retry(fields, faults),
        on_success: Vec::new(),
        on_failure: Vec::new(),
        input_ref: None,
        input_inline: None,
        adapter: None,
        sources: Vec::new(),
        first_batch: false,
        condition,
        function: None,
        function_reads: Vec::new(),
    };
    read_routing(fields, &mut draft, faults);
    let io = read_io(fields, coordinator_fn, &mut draft, faults);
    if coordinator_fn {
        let io_path = fields.path("io");
        let io = io.and_then(|value| Fields::open(value, &io_path, faults));
        let read = function::read(io, path, draft.id.as_ref(), functions, faults);
        if let Some((call, reads)) = read {
            draft.function = Some(call);
            draft.function_reads = reads;
        }
    }
    Some(draft)
}

fn read_fan_in(fields: Fields<'_>, faults: &mut Faults) -> FanIn {
    let path = fields.path("fan_in");
    let Some(text) = fields.text("fan_in", faults) else {
        return FanIn::All;
    };
    match text {
        "all" => return FanIn::All,
        "any" => return FanIn::Any,
        _ => {}
    }
    match text.strip_prefix("count:").map(str::parse::<u32>) {
        Some(Ok(0)) => {
            let cure = "write at least `count:1`";
            faults.add(path, "asks for 0 parents", cure);
            FanIn::Any
        }
        Some(Ok(count)) => FanIn::Count(count),
        Some(Err(_)) | None => {
            let problem = format!("{} is not a fan-in", quoted(text));
            faults.add(path, problem, "write `all`, `any` or `count:n`");
            FanIn::All
        }
    }
}

fn read_retry(fields: Fields<'_>, faults: &mut Faults) -> RetryPolicy {
    let mut policy = RetryPolicy::default();
    let path = fields.path("retry_policy");
    let known = &["max", "backoff_sec", "permanent_on", "losses_max"];
    let Some(fields) = fields
        .get("retry_policy")
        .and_then(|value| Fields::of(value, &path, known, faults))
    else {
        return policy;
    };
    if let Some(max) = fields.whole("max", 1, ATTEMPTS_MAX, faults) {
        policy.max = max;
    }
    if let Some(max) = fields.whole("losses_max", 1, ATTEMPTS_MAX, faults) {
        policy.losses_max = max;
    }
    if let Some(seconds) = fields.number("backoff_sec", 0.0, BACKOFF_SEC_MAX, faults) {
        // In range, so the conversion is exact up to the rounding; a wait above 0 stays one.
        let millis = (seconds * 1000.0).round() as u64;
        policy.backoff_ms = if seconds > 0.0 { millis.max(1) } else { 0 };
    }
    if let Some(codes) = fields.get("permanent_on") {
        let path = fields.path("permanent_on");
        policy.permanent_on = list(codes, &path, "a list of reason codes", faults)
            .iter()
            .enumerate()
            .filter_map(|(index, code)| {
                let path = path.index(index);
                let code = text(code, &path, faults)?;
                if code.is_empty() {
                    faults.add(path, "is empty", "name a reason code or remove it");
                }
                Some(Arc::from(code))
            })
            .collect();
    }
    policy
}

fn read_routing(fields: Fields<'_>, draft: &mut Draft, faults: &mut Faults) {
    let path = fields.path("routing");
    let Some(fields) = fields
        .get("routing")
        .and_then(|value| Fields::of(value, &path, &["on_success", "on_failure"], faults))
    else {
        return;
    };
    let names = |key, faults: &mut Faults| match fields.get(key) {
        Some(value) => ids(value, |t| NodeId::new(t), &fields.path(key), faults),
        None => Vec::new(),
    };
    draft.on_success = names("on_success", faults);
    draft.on_failure = names("on_failure", faults);
}

/// Reads `io` apart from its function; gives `io` back if it is an object.
fn read_io<'a>(
    fields: Fields<'a>,
    coordinator_fn: bool,
    draft: &mut Draft,
    faults: &mut Faults,
) -> Option<&'a Value> {
    let path = fields.path("io");
    let known = &[
        "input_ref",
        "input_inline",
        "batching",
        "start_when",
        "fn",
        "fn_args",
    ];
    let io = fields.get("io")?;
    let fields = Fields::of(io, &path, known, faults)?;
    for key in ["fn", "fn_args"] {
        if !coordinator_fn && fields.get(key).is_some() {
            let cure = "remove it, or set the node's `type` to `coordinator_fn`";
            let problem = "belongs to a node that runs inside the coordinator";
            faults.add(fields.path(key), problem, cure);
        }
    }
    if fields.get("batching").is_some() {
        let cure = format!("remove it; `{}` cuts batches", adapter::RECHUNK);
        faults.add(fields.path("batching"), LATER, cure);
    }
    match fields.text("start_when", faults) {
        None | Some("ready") => {}
        Some("first_batch") => draft.first_batch = true,
        Some(other) => {
            let cure = match similar(other, ["ready", "first_batch"]) {
                Some(like) => format!("did you mean `{like}`?"),
                None => "write `ready` or `first_batch`".to_owned(),
            };
            let problem = format!("{} is not a start condition", quoted(other));
            faults.add(fields.path("start_when"), problem, cure);
        }
    }
    if coordinator_fn {
        return Some(io);
    }
    draft.input_ref = fields.get("input_ref").map(|v| Json::from(v.clone()));
    if let Some(inline) = fields.get("input_inline") {
        draft.input_inline = Some(Json::from(inline.clone()));
        read_adapter(inline, &fields.path("input_inline"), draft, faults);
    }
    Some(io)
}

fn read_adapter(inline: &Value, path: &Path<'_>, draft: &mut Draft, faults: &mut Faults) {
    let Some(fields) = Fields::open(inline, path, faults) else {
        return;
    };
    let args = fields.get("input_args");
    if fields.get("input_adapter").is_none() {
        if args.is_some() {
            let cure = "add `input_adapter` beside it, or rename it if it is the handler's own";
            faults.add(
                fields.path("input_args"),
                "stands without `input_adapter`",
                cure,
            );
        }
        return;
    }
    let Some(name) = fields.text("input_adapter", faults) else {
        return;
    };
    let args = args.unwrap_or(&Value::Null);
    if let Some(adapter) = adapter::read(name, args, path, faults) {
        draft.sources.clone_from(&adapter.pull().sources);
        draft.adapter = Some(AdapterSpec {
            name: Arc::from(name),
            args: Json::from(args.clone()),
        });
    }
}

fn read_edges(fields: Fields<'_>, faults: &mut Faults) -> Vec<DraftEdge> {
    let path = fields.path("edges");
    let Some(value) = fields.get("edges") else {
        return Vec::new();
    };
    let mut edges = Vec::new();
    for (index, edge) in list(value, &path, "a list of [from, to]", faults)
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let [from, to] = list(edge, &path, "[from, to]", faults) else {
            if edge.is_array() {
                faults.add(path, "is not a pair", "write [from, to]");
            }
            continue;
        };
        let mut end = |value, place| {
            let path = path.index(place);
            let name = text(value, &path, faults)?;
            id(name, |t| NodeId::new(t), &path, faults)
        };
        let (from, to) = (end(from, 0), end(to, 1));
        if let (Some(from), Some(to)) = (from, to) {
            edges.push((index, from, to));
        }
    }
    edges
}

fn read_batch_edges(fields: Fields<'_>, faults: &mut Faults) -> Vec<DraftEdge> {
    let path = fields.path("edges_ex");
    let Some(value) = fields.get("edges_ex") else {
        return Vec::new();
    };
    let mut edges = Vec::new();
    for (index, edge) in list(value, &path, "a list of objects", faults)
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let known = &["from", "to", "mode", "trigger"];
        let Some(fields) = Fields::of(edge, &path, known, faults) else {
            continue;
        };
        for (key, only) in [("mode", "async"), ("trigger", "on_batch")] {
            if fields.get(key).is_none() {
                let problem = format!("`{key}` is missing");
                faults.add(path, problem, format!("add \"{key}\": \"{only}\""));
            } else if let Some(found) = fields.text(key, faults)
                && found != only
            {
                let problem = format!("{} is not a known {key}", quoted(found));
                faults.add(fields.path(key), problem, format!("write \"{only}\""));
            }
        }
        let mut end = |key| {
            if fields.get(key).is_none() {
                let problem = format!("`{key}` is missing");
                faults.add(path, problem, format!("add `{key}`, a node id"));
            }
            let name = fields.text(key, faults)?;
            id(name, |t| NodeId::new(t), &fields.path(key), faults)
        };
        let (from, to) = (end("from"), end("to"));
        if let (Some(from), Some(to)) = (from, to) {
            edges.push((index, from, to));
        }
    }
    edges
}
