//! `io.fn` and `io.fn_args` of a `coordinator_fn` node.

use serde_json::{Map, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::fault::{Faults, Path, quoted, similar};
use super::read::Fields;
use crate::function::{Check, Function, Functions};
use crate::id::NodeId;

/// The function of a node, with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// `io.fn`.
    pub name: Arc<str>,
    /// `io.fn_args`, an object.
    pub args: Value,
}

/// Reads the function of a node, and which nodes it reads.
///
/// Without `functions` nothing is known of them: a graph that was taken on before is read by a
/// coordinator that may know others.
pub(super) fn read(
    io: Option<Fields<'_>>,
    path: &Path<'_>,
    node: Option<&NodeId>,
    functions: Option<&Functions>,
    faults: &mut Faults,
) -> Option<(FunctionCall, Vec<NodeId>)> {
    let named = io.and_then(|io| io.get("fn").map(|_| io));
    let Some(io) = named else {
        let cure = "name a function, as in \"fn\": \"vars.set\"";
        faults.add(path.key("io"), "`fn` is missing", cure);
        return None;
    };
    for key in ["input_ref", "input_inline"] {
        if io.get(key).is_some() {
            let cure = "remove it; a function gets `fn_args`";
            faults.add(io.path(key), "stands in a `coordinator_fn` node", cure);
        }
    }
    let name = io.text("fn", faults)?;
    let nothing = Value::Object(Map::new());
    let args = io.get("fn_args").unwrap_or(&nothing);
    let call = FunctionCall {
        name: Arc::from(name),
        args: args.clone(),
    };
    let Some(functions) = functions else {
        return Some((call, Vec::new()));
    };
    let at = io.path("fn_args");
    if !args.is_object() {
        let problem = format!("is {}", super::kind(args));
        faults.add(at, problem, "write an object");
        return None;
    }
    let Some(function) = functions.get(name) else {
        let cure = match similar(name, functions.names()) {
            Some(like) => format!("did you mean `{like}`?"),
            None => {
                let known: Vec<&str> = functions.names().collect();
                format!("use one of {}, or register it", known.join(", "))
            }
        };
        let problem = format!("{} is not a coordinator function", quoted(name));
        faults.add(io.path("fn"), problem, cure);
        return None;
    };
    let reads = check(function, Check::new(args, node, at, functions, faults));
    let Some(reads) = reads else {
        let cure = "mend the function that was registered under this name";
        faults.add(io.path("fn"), "panicked over its arguments", cure);
        return None;
    };
    Some((call, reads))
}

/// `None` if a user's check panics: that must not cost more than the graph.
fn check(function: &dyn Function, mut check: Check<'_>) -> Option<Vec<NodeId>> {
    catch_unwind(AssertUnwindSafe(move || {
        function.check(&mut check);
        check.into_reads()
    }))
    .ok()
}
