//! What a task's nodes did, for people and as JSON.

use flowkit::prelude::*;
use serde_json::{Map, Value, json};

use super::table::{Table, one_line, thousands};

/// Every node, in the order of the graph.
pub(crate) fn in_order(task: &TaskStatus) -> Vec<&NodeStatus> {
    let graph: Value = task.graph.decode().unwrap_or_default();
    let names: Vec<&str> = graph["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["node_id"].as_str())
        .collect();
    let mut nodes: Vec<&NodeStatus> = task.nodes.iter().collect();
    nodes.sort_by_key(|node| names.iter().position(|name| *name == node.node_id.as_str()));
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
