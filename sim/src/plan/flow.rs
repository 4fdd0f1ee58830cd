//! Vars, conditions and coordinator functions in the graphs of a plan.

use serde_json::{Map, Value, json};

use super::graph::{FanIn, FunctionPlan, GraphPlan, Link, NodePlan, Script};
use super::swarm::Draw;
use super::{Plan, TaskPlan};
use crate::functions::{CARDS, DOUBLE, LEAK, MUCH, PANICS};

/// Vars that functions and conditions are about: few, so that they meet.
const PATHS: [&str; 6] = ["a", "b", "n.x", "n.y", "flag", "c.d.e"];

/// Adds them to about half of the tasks.
pub(super) fn add(draw: &mut Draw, plan: &mut Plan) {
    for task in &mut plan.tasks {
        if draw.percent(45) {
            flow(draw, task);
        }
    }
}

/// Now and then a function that breaks the machine that calls it: its task is set aside, and no other.
pub(super) fn broken(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(8) {
        return;
    }
    let task = draw
        .pick(&(0..plan.tasks.len()).collect::<Vec<_>>())
        .to_owned();
    let graph = &mut plan.tasks[task].graph;
    let mut new = node("fp", call(PANICS, json!({})));
    let open = free(graph);
    if !open.is_empty() && draw.percent(60) {
        let parent = graph.nodes[*draw.pick(&open)].id.clone();
        new.parents.push((parent, Link::DependsOn));
    }
    graph.nodes.push(new);
}

fn flow(draw: &mut Draw, task: &mut TaskPlan) {
    task.vars = initial(draw);
    for number in 0..draw.small(1, 4) {
        let id = format!("f{number}");
        match draw.small(0, 9) {
            0..=2 => before(draw, &mut task.graph, &id),
            3..=8 => after(draw, &mut task.graph, &id),
            _ => handled(draw, &mut task.graph, &id),
        }
    }
    let free = free(&task.graph);
    for at in free {
        if draw.percent(30) {
            task.graph.nodes[at].when = Some(condition(draw, 0));
        }
    }
}

/// Some functions that do nothing make a value instead that may look like a secret.
pub(super) fn leaks(draw: &mut Draw, plan: &mut Plan) {
    let nodes = plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes);
    for function in nodes.filter_map(|node| node.function.as_mut()) {
        if function.name == "noop" && draw.percent(70) {
            let (of, to) = (*draw.pick(&PATHS), *draw.pick(&PATHS));
            *function = call(LEAK, json!({"path": of, "to": to}));
        }
    }
}

/// Some functions ask the detector of a user about what they make, beside the built-in one or in its place.
pub(super) fn detectors(draw: &mut Draw, plan: &mut Plan) {
    let nodes = plan.tasks.iter_mut().flat_map(|task| &mut task.graph.nodes);
    for function in nodes.filter_map(|node| node.function.as_mut()) {
        match &*function.name {
            LEAK if draw.percent(50) => function.args["card"] = json!(true),
            "vars.unset" if draw.percent(25) => {
                let (of, to) = (*draw.pick(&PATHS), *draw.pick(&PATHS));
                *function = call(LEAK, json!({"path": of, "to": to, "card": true}));
            }
            "vars.set" if function.args["block_sensitive"] == json!(true) => {
                let lists = [json!(true), json!([CARDS]), json!(["secrets", CARDS])];
                function.args["block_sensitive"] = draw.pick(&lists).clone();
            }
            _ => {}
        }
    }
}

/// Now and then functions make as much of the vars as they may, or more: paths at once, bytes of one value, bytes
/// of all, keys of a path.
pub(super) fn overflows(draw: &mut Draw, plan: &mut Plan) {
    if !draw.percent(12) {
        return;
    }
    for graph in plan.tasks.iter_mut().map(|task| &mut task.graph) {
        let functions = graph.nodes.iter_mut().filter_map(|n| n.function.as_mut());
        let mut functions: Vec<&mut FunctionPlan> = functions.collect();
        let mut any = false;
        for function in &mut functions {
            if matches!(&*function.name, "vars.set" | "vars.merge") && draw.percent(60) {
                **function = much(draw);
                any = true;
            }
        }
        // How large what they tell is, is looked at by nobody.
        for function in functions.into_iter().filter(|_| any) {
            if let Some(args) = function.args.as_object_mut() {
                args.remove("target");
            }
        }
    }
}

fn much(draw: &mut Draw) -> FunctionPlan {
    let path = *draw.pick(&PATHS);
    // Two of 40 KiB are less than all vars may have, three are more; nothing comes near it.
    let (of, most): (&str, &[u32]) = match draw.small(0, 3) {
        0 => ("paths", &[2, 256, 257]),
        1 => ("keys", &[3, 16, 17]),
        _ => (
            "bytes",
            &[40 << 10, 40 << 10, 40 << 10, 1 << 16, (1 << 16) + 1],
        ),
    };
    let merge = draw.percent(40);
    call(
        MUCH,
        json!({"path": path, "of": of, "n": draw.pick(most), "merge": merge}),
    )
}

fn initial(draw: &mut Draw) -> Value {
    let mut vars = Map::new();
    if draw.percent(25) {
        return Value::Null;
    }
    for (key, value) in [
        ("a", json!(draw.small(0, 3))),
        ("b", value(draw)),
        ("n", json!({"x": draw.small(0, 3), "y": "text"})),
        ("flag", json!(draw.percent(50))),
    ] {
        if draw.percent(60) {
            vars.insert(key.to_owned(), value);
        }
    }
    Value::Object(vars)
}

fn value(draw: &mut Draw) -> Value {
    match draw.small(0, 7) {
        0..=2 => json!(draw.small(0, 3)),
        3 => json!(0.5),
        4 => json!("text"),
        5 => json!(null),
        6 => json!([1, {"k": "v"}]),
        _ => json!(draw.percent(50)),
    }
}

fn condition(draw: &mut Draw, depth: u32) -> Value {
    if depth < 2 && draw.percent(25) {
        let inner = |draw: &mut Draw| -> Vec<Value> {
            let count = draw.small(1, 2);
            (0..count).map(|_| condition(draw, depth + 1)).collect()
        };
        return match draw.small(0, 2) {
            0 => json!({"all": inner(draw)}),
            1 => json!({"any": inner(draw)}),
            _ => json!({"not": condition(draw, depth + 1)}),
        };
    }
    let var = *draw.pick(&PATHS);
    let number = json!(draw.small(0, 3));
    match draw.small(0, 9) {
        0 => json!({"var": var, "op": "exists"}),
        1 => json!({"var": var, "op": "exists", "value": draw.percent(50)}),
        2 => json!({"var": var, "op": "in", "value": [0, 1, "text", true]}),
        3 => json!({"var": var, "op": "eq", "value": value(draw)}),
        4 => json!({"var": var, "op": "lt", "value": number}),
        5 => json!({"var": var, "op": "gt", "value": number}),
        6 => json!({"var": var, "op": "le", "value": number}),
        7 => json!({"var": var, "op": "ge", "value": number}),
        _ => json!({"var": var, "op": "ne", "value": value(draw)}),
    }
}

/// Nodes that no outcome of another is routed to, and that route none of their own.
fn free(graph: &GraphPlan) -> Vec<usize> {
    let routes = |link: Link| matches!(link, Link::OnSuccess | Link::OnFailure);
    let routed = |at: usize| {
        let node = &graph.nodes[at];
        let target = node.parents.iter().any(|(_, link)| routes(*link));
        let mut parents = graph.nodes.iter().flat_map(|node| &node.parents);
        target || parents.any(|(parent, link)| *parent == node.id && routes(*link))
    };
    (0..graph.nodes.len()).filter(|at| !routed(*at)).collect()
}

/// A function that a node waits for.
fn before(draw: &mut Draw, graph: &mut GraphPlan, id: &str) {
    let open: Vec<usize> = free(graph)
        .into_iter()
        .filter(|at| graph.nodes[*at].fan_in == FanIn::All)
        .collect();
    if open.is_empty() {
        return;
    }
    let child = *draw.pick(&open);
    let parent = (id.to_owned(), Link::DependsOn);
    graph.nodes[child].parents.push(parent);
    let function = changes(draw);
    graph.nodes.insert(0, node(id, function));
}

/// A function that waits for nodes.
fn after(draw: &mut Draw, graph: &mut GraphPlan, id: &str) {
    let open = free(graph);
    let mut parents: Vec<String> = Vec::new();
    if !open.is_empty() && !draw.percent(15) {
        for _ in 0..draw.small(1, 2) {
            let parent = graph.nodes[*draw.pick(&open)].id.clone();
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
    }
    let function = match draw.small(0, 9) {
        0 | 1 if !parents.is_empty() => merge(draw, id, &parents),
        2 | 3 if !parents.is_empty() => aggregate(draw, id, &parents),
        _ => changes(draw),
    };
    let tells = matches!(&*function.name, "merge.generic" | "metrics.aggregate");
    let mut new = node(id, function);
    for parent in &parents {
        let link = *draw.pick(&[Link::DependsOn, Link::Edge]);
        new.parents.push((parent.clone(), link));
    }
    if !tells && parents.len() == 2 && draw.percent(25) {
        new.fan_in = FanIn::Any;
    }
    if !tells && !parents.is_empty() && draw.percent(10) {
        new.first_batch = true;
    }
    graph.nodes.push(new);
}

/// A function that fails where a number is a text, and one that mends it.
fn handled(draw: &mut Draw, graph: &mut GraphPlan, id: &str) {
    let key = *draw.pick(&PATHS);
    let fails = json!({"key": key, "by": 1});
    graph.nodes.push(node(id, call("vars.incr", fails)));
    let mends = format!("{id}m");
    let mut new = node(&mends, changes(draw));
    new.parents.push((id.to_owned(), Link::OnFailure));
    graph.nodes.push(new);
}

fn node(id: &str, function: FunctionPlan) -> NodePlan {
    let script = Script {
        batches: 0,
        items: 0,
        ..Script::default()
    };
    let mut node = NodePlan::new(id, "coordinator_fn", script);
    node.backoff_ms = 0;
    node.retry_max = 1;
    node.function = Some(function);
    node
}

fn call(name: &str, args: Value) -> FunctionPlan {
    FunctionPlan {
        name: name.to_owned(),
        args,
    }
}

/// A function that changes vars.
fn changes(draw: &mut Draw) -> FunctionPlan {
    let path = *draw.pick(&PATHS);
    let other = *draw.pick(&PATHS);
    let distinct = path != other;
    match draw.small(0, 11) {
        0..=2 => {
            let mut kv = Map::new();
            kv.insert(path.to_owned(), value(draw));
            if distinct && draw.percent(40) {
                kv.insert(other.to_owned(), value(draw));
            }
            let block = draw.percent(30);
            call("vars.set", json!({"kv": kv, "block_sensitive": block}))
        }
        3 | 4 => {
            // Now and then an object in place of a value, or the reverse.
            let data = match draw.small(0, 3) {
                0 => json!({"n": value(draw)}),
                1 => json!({"n": {"x": {"deep": 1}, "z": 2}, "a": value(draw)}),
                2 => json!({"c": {"d": value(draw)}, "b": {"k": {}}}),
                _ => json!({"a": {"k": 1}, "flag": value(draw)}),
            };
            call("vars.merge", json!({"data": data}))
        }
        5..=7 => {
            let by = draw.pick(&[json!(1), json!(-2), json!(0.5)]).clone();
            call("vars.incr", json!({"key": path, "by": by}))
        }
        8 | 9 => {
            let mut keys = vec![path];
            if distinct && draw.percent(50) {
                keys.push(other);
            }
            call("vars.unset", json!({"keys": keys}))
        }
        10 => call(DOUBLE, json!({"path": path})),
        _ => call("noop", json!({})),
    }
}

/// A function whose result is put into the vars, too, now and then.
fn kept(draw: &mut Draw, mut args: Value, id: &str) -> Value {
    if draw.percent(50) {
        args["target"] = json!({"node_id": id, "var": format!("told.{id}")});
    }
    args
}

fn merge(draw: &mut Draw, id: &str, parents: &[String]) -> FunctionPlan {
    let args = kept(draw, json!({"from_nodes": parents}), id);
    call("merge.generic", args)
}

fn aggregate(draw: &mut Draw, id: &str, parents: &[String]) -> FunctionPlan {
    let mode = *draw.pick(&["sum", "mean", "mean", "min", "max"]);
    let args = json!({"node_id": parents[0], "mode": mode});
    call("metrics.aggregate", kept(draw, args, id))
}
