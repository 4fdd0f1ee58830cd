//! Random valid graphs, for simulation and property tests.
//!
//! No randomness of its own: the caller draws. The same draws give the same graph.

use serde_json::{Map, Value, json};

use super::adapter::{PULL, RECHUNK};

/// What to generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphOptions {
    /// Most nodes, at least 1. Default 8.
    pub max_nodes: usize,
    /// Roles to choose `type` from; not empty. Default `work`.
    pub roles: Vec<String>,
    /// Most batches of a node that reads no other: each gets
    /// `io.input_inline.batches` from 0 to this. Default 5.
    pub max_batches: u64,
    /// Use `routing.on_success` and `routing.on_failure`. Default true.
    pub routing: bool,
    /// Use `start_when: first_batch`, `edges_ex` and input adapters. Default true.
    pub streaming: bool,
    /// Use `fan_in: any` and `count:n`. Default true.
    pub fan_in: bool,
    /// Use retry policies of all kinds. Default true; else the default policy.
    pub retries: bool,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self {
            max_nodes: 8,
            roles: vec!["work".to_owned()],
            max_batches: 5,
            routing: true,
            streaming: true,
            fan_in: true,
            retries: true,
        }
    }
}

/// Overall shape of a graph.
#[derive(Clone, Copy)]
enum Shape {
    /// One after the other.
    Chain,
    /// One root, many children, one join.
    Wide,
    /// Two branches and a join, again and again.
    Diamonds,
    /// Up to three parents among the last few nodes.
    Mixed,
    /// Several parts that do not know each other.
    Loose,
}

/// A random graph that [`super::Graph::parse`] accepts.
///
/// `draw(n)` gives a number below `n`, uniformly; it is never called with 0. Nodes are named
/// `n0`, `n1`, … in an order that respects their edges, and stand in the list in another one.
///
/// # Panics
/// When `options.roles` is empty.
pub fn generate(draw: &mut dyn FnMut(u64) -> u64, options: &GraphOptions) -> Value {
    assert!(!options.roles.is_empty(), "a node needs a role");
    let mut build = Build {
        draw,
        options,
        nodes: Vec::new(),
        edges: Vec::new(),
        batch_edges: Vec::new(),
    };
    build.run();
    build.finish()
}

/// A node while it is built; its name is `n{index}`.
#[derive(Default)]
struct Draft {
    fields: Map<String, Value>,
    depends_on: Vec<usize>,
    on_success: Vec<usize>,
    on_failure: Vec<usize>,
}

struct Build<'a> {
    draw: &'a mut dyn FnMut(u64) -> u64,
    options: &'a GraphOptions,
    nodes: Vec<Draft>,
    edges: Vec<(usize, usize)>,
    batch_edges: Vec<(usize, usize)>,
}

fn name(index: usize) -> String {
    format!("n{index}")
}

fn names(indexes: &[usize]) -> Vec<String> {
    indexes.iter().map(|&i| name(i)).collect()
}

impl Build<'_> {
    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        // The result is below a usize.
        (self.draw)(bound.max(1) as u64) as usize
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn run(&mut self) {
        let count = 1 + self.below(self.options.max_nodes);
        let shape = match self.below(5) {
            0 => Shape::Chain,
            1 => Shape::Wide,
            2 => Shape::Diamonds,
            3 => Shape::Mixed,
            _ => Shape::Loose,
        };
        for index in 0..count {
            self.nodes.push(Draft::default());
            let parents = self.parents(shape, index, count);
            self.node(index, &parents);
        }
    }

    fn parents(&mut self, shape: Shape, index: usize, count: usize) -> Vec<usize> {
        let before = |steps: usize| index.checked_sub(steps).into_iter().collect::<Vec<_>>();
        match shape {
            _ if index == 0 => Vec::new(),
            Shape::Chain => before(1),
            Shape::Wide if index + 1 == count && count > 2 => (1..index).collect(),
            Shape::Wide => vec![0],
            Shape::Diamonds => match index % 3 {
                1 => before(1),
                2 => before(2),
                _ => vec![index - 2, index - 1],
            },
            Shape::Mixed => {
                let wanted = 1 + self.below(3);
                self.among_last(index, 5, wanted)
            }
            Shape::Loose => {
                let wanted = self.below(3);
                self.among_last(index, 3, wanted)
            }
        }
    }

    /// Up to `wanted` nodes among the last `window` before `index`, ascending.
    fn among_last(&mut self, index: usize, window: usize, wanted: usize) -> Vec<usize> {
        let first = index.saturating_sub(window);
        let mut found: Vec<usize> = (0..wanted)
            .map(|_| first + self.below(index - first))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn node(&mut self, index: usize, parents: &[usize]) {
        for &parent in parents {
            self.edge(parent, index);
        }
        let role = self.below(self.options.roles.len());
        let fields = [
            ("node_id", json!(name(index))),
            ("type", json!(self.options.roles[role])),
        ];
        for (key, value) in fields {
            self.set(index, key, value);
        }
        if self.options.fan_in && parents.len() > 1 {
            let fan_in = match self.below(4) {
                0 => "any".to_owned(),
                1 => format!("count:{}", 1 + self.below(parents.len())),
                2 => "all".to_owned(),
                _ => String::new(),
            };
            if !fan_in.is_empty() {
                self.set(index, "fan_in", json!(fan_in));
            }
        }
        if self.options.retries && !self.once_in(3) {
            let policy = self.retry_policy();
            self.set(index, "retry_policy", policy);
        }
        let io = self.io(parents);
        self.set(index, "io", io);
    }

    fn set(&mut self, index: usize, key: &str, value: Value) {
        self.nodes[index].fields.insert(key.to_owned(), value);
    }

    /// Writes one edge in one of the ways the format knows.
    fn edge(&mut self, parent: usize, child: usize) {
        if self.options.routing && self.once_in(4) {
            if self.once_in(2) {
                self.nodes[parent].on_failure.push(child);
            } else {
                self.nodes[parent].on_success.push(child);
            }
            return;
        }
        match self.below(5) {
            0 => self.edges.push((parent, child)),
            1 if self.options.streaming => self.batch_edges.push((parent, child)),
            2 => {
                self.edges.push((parent, child));
                self.nodes[child].depends_on.push(parent);
            }
            _ => self.nodes[child].depends_on.push(parent),
        }
    }

    fn retry_policy(&mut self) -> Value {
        let backoff_sec = [0.0, 0.05, 1.0, 5.0][self.below(4)];
        let mut policy = json!({"max": 1 + self.below(4), "backoff_sec": backoff_sec});
        if self.once_in(4) {
            policy["permanent_on"] = json!(["broken"]);
        }
        if self.once_in(8) {
            policy["losses_max"] = json!(4 + self.below(20));
        }
        policy
    }

    fn io(&mut self, parents: &[usize]) -> Value {
        let mut io = Map::new();
        if self.once_in(4) {
            io.insert("input_ref".to_owned(), json!({"file": "data"}));
        }
        let mut inline = Map::new();
        let reads = self.options.streaming && !parents.is_empty() && !self.once_in(3);
        if reads {
            self.adapter(parents, &mut inline);
        } else {
            let batches = (self.draw)(self.options.max_batches.saturating_add(1));
            inline.insert("batches".to_owned(), json!(batches));
        }
        if self.options.streaming && !parents.is_empty() && self.once_in(2) {
            io.insert("start_when".to_owned(), json!("first_batch"));
        }
        io.insert("input_inline".to_owned(), Value::Object(inline));
        Value::Object(io)
    }

    fn adapter(&mut self, parents: &[usize], inline: &mut Map<String, Value>) {
        let mut sources: Vec<usize> = Vec::new();
        for &parent in parents {
            if !self.once_in(3) {
                sources.push(parent);
            }
        }
        if sources.is_empty() {
            sources.push(parents[self.below(parents.len())]);
        }
        let mut args = if sources.len() == 1 && self.once_in(2) {
            json!({"from_node": name(sources[0])})
        } else {
            json!({"from_nodes": names(&sources)})
        };
        if self.once_in(3) {
            args["poll_ms"] = json!(10 + self.below(1000));
        }
        let adapter = if self.once_in(2) {
            PULL
        } else {
            args["size"] = json!(1 + self.below(4));
            if self.once_in(2) {
                args["meta_list_key"] = json!("items");
            }
            RECHUNK
        };
        inline.insert("input_adapter".to_owned(), json!(adapter));
        inline.insert("input_args".to_owned(), args);
    }

    fn finish(mut self) -> Value {
        let mut nodes: Vec<Value> = std::mem::take(&mut self.nodes)
            .into_iter()
            .map(|draft| {
                let mut fields = draft.fields;
                if !draft.depends_on.is_empty() {
                    fields.insert("depends_on".to_owned(), json!(names(&draft.depends_on)));
                }
                let mut routing = Map::new();
                for (key, targets) in [
                    ("on_success", &draft.on_success),
                    ("on_failure", &draft.on_failure),
                ] {
                    if !targets.is_empty() {
                        routing.insert(key.to_owned(), json!(names(targets)));
                    }
                }
                if !routing.is_empty() {
                    fields.insert("routing".to_owned(), Value::Object(routing));
                }
                Value::Object(fields)
            })
            .collect();
        // Order of appearance must not matter to anyone.
        for last in (1..nodes.len()).rev() {
            let other = self.below(last + 1);
            nodes.swap(last, other);
        }
        let pairs: Vec<Value> = self
            .edges
            .iter()
            .map(|&(from, to)| json!([name(from), name(to)]))
            .collect();
        let batch_edges: Vec<Value> = self
            .batch_edges
            .iter()
            .map(|&(from, to)| {
                json!({"from": name(from), "to": name(to), "mode": "async", "trigger": "on_batch"})
            })
            .collect();
        let mut graph = json!({"schema_version": "1.0", "nodes": nodes});
        if !pairs.is_empty() {
            graph["edges"] = json!(pairs);
        }
        if !batch_edges.is_empty() {
            graph["edges_ex"] = json!(batch_edges);
        }
        graph
    }
}
