//! What happened to a task, for people and as JSON: every change of state with time and cause.

use flowkit::prelude::*;
use serde_json::{Value, json};

use super::nodes::{in_order, word};
use super::table::{Table, one_line};

/// A task as JSON, with its history and those of its nodes.
pub(crate) fn with_history(mut value: Value, task: &TaskStatus) -> Value {
    value["history"] = json!(task.history);
    for node in &task.nodes {
        value["nodes"][node.node_id.as_str()]["history"] = json!(node.history);
    }
    value
}

/// A line per change of state of the task and its nodes, in the order of time.
pub(crate) fn text(task: &TaskStatus) -> String {
    let mut lines: Vec<(i64, [String; 3])> = Vec::new();
    add(&mut lines, "task", &task.history);
    for node in in_order(task) {
        add(&mut lines, node.node_id.as_str(), &node.history);
    }
    // At the same time: the task first, then its nodes in their order.
    lines.sort_by_key(|(at_ms, _)| *at_ms);
    let mut table = Table::new(&["after", "what", "state", "cause"]);
    for (at_ms, [what, state, cause]) in lines {
        // By the clocks of the owners, which may differ.
        let after_ms = at_ms.saturating_sub(task.created_at_ms);
        let after = format!("{:.3} s", after_ms as f64 / 1_000.0);
        table.row([after, what, state, cause]);
    }
    let mut text = table.to_string();
    let nodes = task
        .nodes
        .iter()
        .map(|node| (node.node_id.as_str(), node.history.dropped));
    for (what, count) in std::iter::once(("task", task.history.dropped)).chain(nodes) {
        if count > 0 {
            let what = one_line(what, 40);
            text.push_str(&format!("{what}: {count} more in between, not kept\n"));
        }
    }
    text
}

fn add<S: serde::Serialize>(lines: &mut Vec<(i64, [String; 3])>, what: &str, history: &History<S>) {
    for entry in &history.entries {
        let cause = one_line(&entry.cause, 200);
        lines.push((entry.at_ms, [one_line(what, 40), word(&entry.to), cause]));
    }
}
