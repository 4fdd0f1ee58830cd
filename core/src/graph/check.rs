//! What concerns several nodes: names, parents, cycles, counts, routing, sources, message size.

use std::collections::BTreeMap;
use std::fmt;

use super::cycle::cycles;
use super::fan_in::FanIn;
use super::fault::{Faults, quoted, similar};
use super::parse::{Draft, DraftEdge};
use super::{GRAPH_NODES_MAX, START_BYTES_MAX};
use crate::id::NodeId;
use crate::json::Json;

/// Checks the drafts against each other. `drafts[i]` was read from `nodes[i]`.
pub(super) fn check(
    drafts: &[Draft],
    edges: &[DraftEdge],
    batch_edges: &[DraftEdge],
    faults: &mut Faults,
) {
    let mut checker = Checker {
        drafts,
        by_name: BTreeMap::new(),
        success: BTreeMap::new(),
        failure: BTreeMap::new(),
        faults,
    };
    checker.names();
    checker.success_edges(edges, batch_edges);
    checker.failure_edges();
    let parents = checker.parents();
    checker.cycles(&parents);
    for (index, parents) in parents.iter().enumerate() {
        checker.count(index, parents.len());
        checker.sources(index, parents);
        checker.start_size(index, parents);
    }
}

/// Where an edge is written.
#[derive(Clone, Copy)]
enum Origin {
    DependsOn(usize, usize),
    Edge(usize),
    BatchEdge(usize),
    OnSuccess(usize, usize),
    OnFailure(usize, usize),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DependsOn(node, at) => write!(f, "nodes[{node}].depends_on[{at}]"),
            Self::Edge(at) => write!(f, "edges[{at}]"),
            Self::BatchEdge(at) => write!(f, "edges_ex[{at}]"),
            Self::OnSuccess(node, at) => write!(f, "nodes[{node}].routing.on_success[{at}]"),
            Self::OnFailure(node, at) => write!(f, "nodes[{node}].routing.on_failure[{at}]"),
        }
    }
}

struct Checker<'a> {
    drafts: &'a [Draft],
    by_name: BTreeMap<&'a str, usize>,
    /// Success edges (parent, child) and where each is written first.
    success: BTreeMap<(usize, usize), Origin>,
    /// Failure edges likewise.
    failure: BTreeMap<(usize, usize), Origin>,
    faults: &'a mut Faults,
}

impl<'a> Checker<'a> {
    fn names(&mut self) {
        for (index, draft) in self.drafts.iter().enumerate() {
            let Some(id) = &draft.id else { continue };
            if let Some(first) = self.by_name.get(id.as_str()) {
                self.faults.add(
                    format_args!("nodes[{index}].node_id"),
                    format!("{} is also the name of nodes[{first}]", quoted(id.as_str())),
                    "rename one of them",
                );
            } else {
                self.by_name.insert(id.as_str(), index);
            }
        }
    }

    /// The index of a named node; a fault if there is none.
    fn find(&mut self, id: &NodeId, path: impl fmt::Display) -> Option<usize> {
        if let Some(&index) = self.by_name.get(id.as_str()) {
            return Some(index);
        }
        let names = self.by_name.keys().copied().take(1000);
        let like = self.faults.few().then(|| similar(id.as_str(), names));
        let cure = match like.flatten() {
            Some(like) => format!("did you mean {}?", quoted(like)),
            None => "name a node of this graph, or add the node".to_owned(),
        };
        let problem = format!("{} is not a node", quoted(id.as_str()));
        self.faults.add(path, problem, cure);
        None
    }

    fn success_edges(&mut self, edges: &[DraftEdge], batch_edges: &[DraftEdge]) {
        let drafts = self.drafts;
        for (child, draft) in drafts.iter().enumerate() {
            for (at, parent) in &draft.depends_on {
                let origin = Origin::DependsOn(child, *at);
                if let Some(parent) = self.find(parent, origin) {
                    self.success.entry((parent, child)).or_insert(origin);
                }
            }
        }
        self.listed_edges(edges, Origin::Edge);
        self.listed_edges(batch_edges, Origin::BatchEdge);
        for (parent, draft) in drafts.iter().enumerate() {
            for (at, child) in &draft.on_success {
                let origin = Origin::OnSuccess(parent, *at);
                if let Some(child) = self.find(child, origin) {
                    self.success.entry((parent, child)).or_insert(origin);
                }
            }
        }
    }

    fn listed_edges(&mut self, list: &[DraftEdge], origin_of: impl Fn(usize) -> Origin) {
        let mut seen: BTreeMap<(usize, usize), Origin> = BTreeMap::new();
        for (at, from, to) in list {
            let origin = origin_of(*at);
            let ends = (self.find(from, origin), self.find(to, origin));
            let (Some(parent), Some(child)) = ends else {
                continue;
            };
            if let Some(first) = seen.get(&(parent, child)) {
                let problem = format!("is the same edge as {first}");
                self.faults.add(origin, problem, "remove one of them");
                continue;
            }
            seen.insert((parent, child), origin);
            self.success.entry((parent, child)).or_insert(origin);
        }
    }

    fn failure_edges(&mut self) {
        let drafts = self.drafts;
        for (parent, draft) in drafts.iter().enumerate() {
            for (at, target) in &draft.on_failure {
                let origin = Origin::OnFailure(parent, *at);
                let Some(child) = self.find(target, origin) else {
                    continue;
                };
                self.failure.insert((parent, child), origin);
                let Some(other) = self.success.get(&(parent, child)) else {
                    continue;
                };
                let problem = format!(
                    "{} waits for the failure of its source here and for its success in {other}",
                    quoted(target.as_str()),
                );
                self.faults
                    .add(origin, problem, "remove it from one of the two");
            }
        }
    }

    /// The parents of every node, each once, in ascending order.
    fn parents(&self) -> Vec<Vec<usize>> {
        let mut parents = vec![Vec::new(); self.drafts.len()];
        for &(parent, child) in self.success.keys() {
            parents[child].push(parent);
        }
        for edge in self.failure.keys() {
            if !self.success.contains_key(edge) {
                parents[edge.1].push(edge.0);
            }
        }
        for list in &mut parents {
            list.sort_unstable();
        }
        parents
    }

    fn name(&self, index: usize) -> String {
        let id = self.drafts[index].id.as_ref();
        id.map_or_else(|| format!("nodes[{index}]"), |id| quoted(id.as_str()))
    }

    fn cycles(&mut self, parents: &[Vec<usize>]) {
        const SHOWN_MAX: usize = 12;
        for cycle in cycles(parents) {
            let mut names: Vec<String> = cycle
                .iter()
                .take(SHOWN_MAX)
                .map(|&node| self.name(node))
                .collect();
            if cycle.len() > SHOWN_MAX {
                names.push(format!("… {} more", cycle.len() - SHOWN_MAX));
            }
            names.push(self.name(cycle[0]));
            self.faults.add(
                format_args!("nodes[{}]", cycle[0]),
                format!("is in a cycle: {}", names.join(" -> ")),
                "remove one of these dependencies, so that a first node can start",
            );
        }
    }

    fn count(&mut self, index: usize, parents: usize) {
        if let FanIn::Count(count) = self.drafts[index].fan_in
            && usize::try_from(count).is_ok_and(|count| count > parents)
        {
            self.faults.add(
                format_args!("nodes[{index}].fan_in"),
                format!("`count:{count}` asks for more than its parents, {parents} in number"),
                "lower the count or add parents",
            );
        }
    }

    fn sources(&mut self, index: usize, parents: &[usize]) {
        let drafts = self.drafts;
        let draft = &drafts[index];
        let of_adapter = draft.sources.iter().map(|s| (s, "input_inline.input_args"));
        let of_function = draft.function_reads.iter().map(|s| (s, "fn_args"));
        for (source, place) in of_adapter.chain(of_function) {
            let path = format!("nodes[{index}].io.{place}");
            let Some(node) = self.find(source, &path) else {
                continue;
            };
            if parents.binary_search(&node).is_err() {
                let source = quoted(source.as_str());
                self.faults.add(
                    path,
                    format!(
                        "reads {source}, which is not a parent of {}",
                        self.name(index)
                    ),
                    format!("add {source} to nodes[{index}].depends_on"),
                );
            }
        }
    }

    /// The message that starts a node carries its input, and a line per parent.
    fn start_size(&mut self, index: usize, parents: &[usize]) {
        // `{"node_id":"","last":,"ended":false},` and `"":,`, with numbers of ten digits.
        const SOURCE: usize = 48;
        const CURSOR: usize = 14;
        let draft = &self.drafts[index];
        let len = |json: &Option<Json>| json.as_ref().map_or(0, Json::len);
        let escaped = |id: &NodeId| {
            let quotes = id.as_str().matches(['"', '\\']).count();
            id.as_str().len() + quotes
        };
        let adapter = draft.adapter.as_ref().map_or(0, |a| a.args.len());
        let sources: usize = parents
            .iter()
            .filter_map(|&parent| self.drafts[parent].id.as_ref())
            .map(|id| escaped(id) + SOURCE)
            .sum();
        let cursor: usize = draft.sources.iter().map(|id| escaped(id) + CURSOR).sum();
        let bytes = len(&draft.input_ref) + len(&draft.input_inline) + adapter + sources + cursor;
        if bytes > START_BYTES_MAX {
            self.faults.add(
                format_args!("nodes[{index}]"),
                format!(
                    "its input and its {} parents need {bytes} bytes",
                    parents.len()
                ),
                format!("at most {START_BYTES_MAX}: shrink the input, or join parents in between"),
            );
        }
    }
}

// A fan-in of the largest graph with names of ten bytes fits, adapter or not.
const _: () = assert!((GRAPH_NODES_MAX) * (10 + 48) < START_BYTES_MAX);
