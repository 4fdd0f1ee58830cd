//! `flowkit graph check`, and reading graph files.

use flowkit_core::graph::{GRAPH_BYTES_MAX, Graph, Node};
use flowkit_core::hash::stable128;
use flowkit_core::json::Json;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::args::GraphCommand;
use super::exec::{FLAG, Programs};
use super::failure::{Ending, Failure, Outcome};
use super::output::putln;
use super::table::counted;
use crate::roles;

/// Most bytes that are read of a graph file: white space may be most of it.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

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
    let GraphCommand::Check { file, exec, json } = command;
    let programs = Programs::for_run(exec, FLAG)?;
    let graph = read(file, Some(&programs), *json)?;
    if *json {
        putln!("{}", json!({"ok": true, "nodes": graph.nodes}));
    } else {
        putln!("{}: ok, {} nodes", file.display(), graph.nodes);
    }
    Ok(Ending::Finished)
}

/// Why a graph file was refused.
struct Refused {
    text: String,
    faults: Vec<String>,
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        let faults = vec![text.clone()];
        Self { text, faults }
    }
}

/// Reads and checks a graph file; a failure lists every fault, with `json` on standard output as well. Without
/// `programs` it is for the workers of a deployment, whose roles are not known here.
pub(crate) fn read(
    file: &Path,
    programs: Option<&Programs>,
    json: bool,
) -> Result<GraphFile, Failure> {
    checked(file, programs).map_err(|refused| {
        if json {
            putln!("{}", json!({"ok": false, "faults": refused.faults}));
        }
        Failure::input(refused.text)
    })
}

/// The text of a graph file, as far as it can be one.
fn text_of(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let cannot = |e| format!("cannot read the graph file {shown}: {e}");
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(cannot)?;
    let mut some = opened.take(FILE_BYTES_MAX + 1);
    some.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "{shown} is larger than {FILE_BYTES_MAX} bytes, and a graph at most {GRAPH_BYTES_MAX}; give \
             large inputs by `io.input_ref`"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!("{shown} is not UTF-8 (byte {at}); save it as UTF-8")
    })?;
    if text.starts_with('\u{feff}') {
        return Err(format!(
            "{shown} begins with a byte order mark (BOM): save it as UTF-8 without one"
        ));
    }
    if text.trim().is_empty() {
        return Err(format!("{shown} is empty; graphs are JSON files"));
    }
    Ok(text)
}

fn checked(file: &Path, programs: Option<&Programs>) -> Result<GraphFile, Refused> {
    let shown = file.display();
    let text = text_of(file)?;
    let not_json = |e| format!("{shown} is not JSON: {e}");
    let json = Json::parse(&text).map_err(|e| match is_yaml(file) {
        true => format!("{}; graphs are JSON files, not YAML", not_json(e)),
        false => not_json(e),
    })?;
    let mut faults: Vec<String> = Vec::new();
    let mut nodes = 0;
    match Graph::parse(&json) {
        Ok(graph) => {
            nodes = graph.nodes().len();
            if let Some(programs) = programs {
                faults.extend(unknown_roles(&graph, programs));
                faults.extend(bad_commands(&json));
            }
        }
        Err(found) => faults.extend(found.iter().map(ToString::to_string)),
    }
    if !faults.is_empty() {
        let text = format!(
            "{shown} has {}:\n  - {}",
            counted(faults.len()),
            faults.join("\n  - ")
        );
        return Err(Refused { text, faults });
    }
    let value = json.decode().map_err(not_json)?;
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let hash = stable128(&[path.as_os_str().as_encoded_bytes(), text.as_bytes()]);
    Ok(GraphFile {
        value,
        key: format!("run {hash:032x}"),
        nodes,
    })
}

fn is_yaml(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|e| ["yaml", "yml"].contains(&e.to_ascii_lowercase().as_str()))
}

/// This command's workers, or its coordinator, run the node.
fn is_run_here(node: &Node, programs: &Programs) -> bool {
    let role = node.role.as_str();
    node.function.is_some()
        || roles::NAMES.contains(&role)
        || role == roles::EXEC
        || programs.has(role)
}

/// Roles of a stored graph's nodes that this command's workers do not run, of the nodes that are asked
/// for.
pub(crate) fn roles_of_others(
    graph: &Json,
    programs: &Programs,
    asked: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let Ok(graph) = Graph::parse(graph) else {
        return BTreeSet::new();
    };
    let nodes = graph.nodes().iter();
    nodes
        .filter(|node| asked(node.id.as_str()) && !is_run_here(node, programs))
        .map(|node| node.role.to_string())
        .collect()
}

/// A graph for other workers than this command's would wait for ever.
fn unknown_roles(graph: &Graph, programs: &Programs) -> Vec<String> {
    let known = roles::NAMES.join("`, `");
    let nodes = graph.nodes().iter().enumerate();
    let unknown = nodes.filter(|(_, node)| !is_run_here(node, programs));
    unknown
        .map(|(at, node)| {
            format!(
                "nodes[{at}].type: no built-in role is named `{role}`; use one of `{known}`, `exec` \
                 with a `command`, or run it with --exec {role}='COMMAND'",
                role = node.role
            )
        })
        .collect()
}

/// Commands of `exec` nodes that no run could start.
fn bad_commands(graph: &Json) -> Vec<String> {
    let graph: Value = graph.decode().unwrap_or_default();
    let nodes = graph["nodes"].as_array().into_iter().flatten().enumerate();
    nodes
        .filter(|(_, node)| node["type"] == roles::EXEC)
        .filter_map(|(at, node)| {
            let fault = roles::command_of(&node["io"]["input_inline"]).err()?;
            Some(format!("nodes[{at}].io.input_inline.command: {fault}"))
        })
        .collect()
}
