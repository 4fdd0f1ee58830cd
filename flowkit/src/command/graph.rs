//! `flowkit graph check`, and reading graph files.

use flowkit_core::graph::Graph;
use flowkit_core::hash::stable128;
use flowkit_core::json::Json;
use serde_json::{Value, json};
use std::path::Path;

use super::args::GraphCommand;
use super::failure::{Ending, Failure, Outcome};
use super::output::putln;
use crate::roles;

/// A graph file that passed the check.
#[derive(Debug)]
pub(crate) struct GraphFile {
    /// The graph.
    pub(crate) value: Value,
    /// Names this file with this content.
    pub(crate) key: String,
    nodes: usize,
}

pub(crate) fn run(command: &GraphCommand) -> Outcome {
    let GraphCommand::Check { file, json } = command;
    let graph = read(file)?;
    if *json {
        putln!("{}", json!({"ok": true, "nodes": graph.nodes}));
    } else {
        putln!("{}: ok, {} nodes", file.display(), graph.nodes);
    }
    Ok(Ending::Finished)
}

/// Reads and checks a graph file; a failure lists every fault.
pub(crate) fn read(file: &Path) -> Result<GraphFile, Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file)
        .map_err(|e| Failure::input(format!("cannot read the graph file {shown}: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::input(format!(
            "{shown} is not UTF-8 (byte {at}); save it as UTF-8"
        ))
    })?;
    let json =
        Json::parse(&text).map_err(|e| Failure::input(format!("{shown} is not JSON: {e}")))?;
    let mut faults: Vec<String> = Vec::new();
    let mut nodes = 0;
    match Graph::parse(&json) {
        Ok(graph) => {
            nodes = graph.nodes().len();
            faults.extend(unknown_roles(&graph));
        }
        Err(found) => faults.extend(found.iter().map(ToString::to_string)),
    }
    if !faults.is_empty() {
        return Err(Failure::input(format!(
            "{shown} has {} faults:\n  - {}",
            faults.len(),
            faults.join("\n  - ")
        )));
    }
    let value = json
        .decode()
        .map_err(|e| Failure::input(format!("{shown} is not JSON: {e}")))?;
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let hash = stable128(&[path.as_os_str().as_encoded_bytes(), text.as_bytes()]);
    Ok(GraphFile {
        value,
        key: format!("run {hash:032x}"),
        nodes,
    })
}

/// A graph for other workers than this command's would wait for ever.
fn unknown_roles(graph: &Graph) -> Vec<String> {
    let known = roles::NAMES.join("`, `");
    let unknown = graph.nodes().iter().enumerate().filter(|(_, node)| {
        let role = node.role.as_str();
        node.function.is_none() && !roles::NAMES.contains(&role)
    });
    unknown
        .map(|(at, node)| {
            format!(
                "nodes[{at}].type: no built-in role is named `{}`; use one of `{known}`",
                node.role
            )
        })
        .collect()
}
