//! What a task's nodes did, for people and as JSON.

use flowkit::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::table::{Table, one_line, thousands};

/// Every node, in the order of the graph.
pub(crate) fn in_order(task: &TaskStatus) -> Vec<&NodeStatus> {
    let graph: Value = task.graph.decode().unwrap_or_default();
    let listed = graph["nodes"].as_array().into_iter().flatten();
    let names = listed.filter_map(|node| node["node_id"].as_str());
    // There may be thousands of nodes.
    let places: BTreeMap<&str, usize> = names.zip(0..).collect();
    let mut nodes: Vec<&NodeStatus> = task.nodes.iter().collect();
    nodes.sort_by_cached_key(|node| places.get(node.node_id.as_str()));
    nodes
}

/// What every node did, by name: `{batches, attempts, grants}`.
pub(crate) fn counts(task: &TaskStatus) -> Map<String, Value> {
    let counts = |node: &NodeStatus| {
        json!({
            "batches": node.batches,
            "attempts": node.attempts,
            "grants": node.grants,
        })
    };
    let nodes = task.nodes.iter();
    nodes
        .map(|node| (node.node_id.to_string(), counts(node)))
        .collect()
}

/// The same with states, totals of metrics, results and failures.
pub(crate) fn details(task: &TaskStatus) -> Map<String, Value> {
    let mut nodes = counts(task);
    for node in &task.nodes {
        if let Some(Value::Object(details)) = nodes.get_mut(node.node_id.as_str()) {
            details.insert("state".to_owned(), json!(node.state));
            if !node.totals.is_empty() {
                details.insert("totals".to_owned(), json!(node.totals));
            }
            if let Some(of) = &node.kept_from {
                details.insert("kept_from".to_owned(), json!(of));
            }
            if let Some(result) = &node.result {
                details.insert("result".to_owned(), json!(result));
            }
            if let Some(failure) = &node.failure {
                details.insert("failure".to_owned(), failure_value(failure));
            }
        }
    }
    nodes
}

/// A whole task as one JSON object.
pub(crate) fn task_value(task: &TaskStatus) -> Value {
    let mut value = json!({
        "task_id": task.task_id,
        "status": task.state,
        "nodes": details(task),
    });
    let sums = task.sums();
    if !sums.is_empty() {
        value["sums"] = json!(sums);
    }
    if let Some(vars) = vars_value(task) {
        value["vars"] = vars;
    }
    if !task.options.is_default() {
        value["options"] = json!(task.options);
    }
    if let Some(of) = &task.rerun_of {
        value["rerun_of"] = json!(of);
    }
    if let Some(failure) = &task.failure {
        value["failure"] = failure_value(failure);
    }
    value
}

/// A task's vars, if it has any.
fn vars_value(task: &TaskStatus) -> Option<Value> {
    let vars: Value = task.vars.decode().ok()?;
    vars.as_object()
        .is_some_and(|map| !map.is_empty())
        .then_some(vars)
}

/// A line with the task's vars, or nothing.
pub(crate) fn vars_line(task: &TaskStatus) -> String {
    const CHARS_MAX: usize = 2_000;
    vars_value(task).map_or_else(String::new, |vars| {
        format!("vars {}\n", one_line(&vars.to_string(), CHARS_MAX))
    })
}

/// The nodes as a table.
pub(crate) fn nodes_table(task: &TaskStatus) -> Table {
    let mut table = Table::new(&["node", "state", "batches", "attempts", "grants"]);
    for node in in_order(task) {
        table.row([
            one_line(node.node_id.as_str(), 40),
            word(&node.state),
            thousands(node.batches),
            node.attempts.to_string(),
            node.grants.to_string(),
        ]);
    }
    table
}

/// A failure as JSON.
pub(crate) fn failure_value(failure: &Failure) -> Value {
    json!({
        "node": failure.node_id,
        "reason_code": failure.reason_code,
        "error": failure.error,
    })
}

/// A failure in one line.
pub(crate) fn failure_line(failure: &Failure) -> String {
    format!(
        "node `{}` failed: {} ({})",
        one_line(failure.node_id.as_str(), 40),
        one_line(&failure.error, 400),
        one_line(&failure.reason_code, 60)
    )
}

/// A state as the one word that JSON has for it.
pub(crate) fn word(state: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(state).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// A task whose nodes stand in the graph the other way round.
    async fn with_nodes(count: usize) -> TaskStatus {
        let engine = Engine::memory();
        engine.start().await.expect("started");
        let graph = json!({"nodes": [{"node_id": "n", "type": "t"}]});
        let client = engine.client();
        let task = client.submit(&graph, SubmitOptions::default()).await;
        let task = task.expect("submitted");
        let mut status = task.status().await.expect("a status");
        engine.stop().await;
        let node = status.nodes.remove(0);
        let named = |n: usize| format!("n{n:05}");
        for n in 0..count {
            let mut node = node.clone();
            node.node_id = NodeId::new(named(n)).expect("a name");
            status.nodes.push(node);
        }
        let listed = (0..count).rev().map(|n| json!({"node_id": named(n)}));
        status.graph = json!({"nodes": listed.collect::<Vec<_>>()}).into();
        status
    }

    #[tokio::test]
    async fn thousands_of_nodes_are_put_into_the_order_of_the_graph_in_little_time() {
        let status = with_nodes(10_000).await;
        let least = |work: &dyn Fn()| {
            let took = (0..3).map(|_| {
                let began = Instant::now();
                work();
                began.elapsed()
            });
            took.min().unwrap_or(Duration::ZERO)
        };
        // What it takes at least is the measure, whatever else this machine does.
        let read = least(&|| drop(status.graph.decode::<Value>()));
        let ordered = least(&|| drop(in_order(&status)));
        assert!(
            ordered < read * 20,
            "{ordered:?}, of which {read:?} to read"
        );
        let names: Vec<&str> = in_order(&status)
            .iter()
            .map(|n| n.node_id.as_str())
            .collect();
        assert!(names.is_sorted_by(|a, b| a > b));
    }
}
