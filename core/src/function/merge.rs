//! `merge.generic`: what several nodes came to, in one result.

use serde_json::{Map, Value, json};

use super::vars::{path_of, with_args};
use super::{Call, Changes, Check, Function, FunctionError};
use crate::graph::{Fields, id, ids, text};
use crate::id::NodeId;
use crate::planted::{Bug, is_planted};
use crate::record::NodeState;
use crate::vars::{Change, VarPath};

/// `merge.generic {from_nodes: […], target?: {var?, node_id?}}`.
///
/// The result: `{merged_from, complete_nodes, batches, results}`. With `target.var` it is put into
/// the vars, too.
#[derive(Debug)]
pub(super) struct Generic;

struct Args {
    from: Vec<NodeId>,
    to: Option<VarPath>,
}

impl Function for Generic {
    fn check(&self, check: &mut Check<'_>) {
        let read = read(check);
        for node in read.map(|args| args.from).unwrap_or_default() {
            check.reads(node);
        }
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let args = with_args(call, read)?;
        let args = args.ok_or_else(|| FunctionError::new("bad_args", "no arguments"))?;
        let (mut complete, mut results, mut batches) = (Vec::new(), Map::new(), 0);
        for node in &args.from {
            let Some(up) = call.parent(node.as_str()) else {
                continue;
            };
            batches = up.batches
                + if is_planted(Bug::MergeCountsLast) {
                    0
                } else {
                    batches
                };
            if up.state == NodeState::Finished {
                complete.push(node.as_str());
            }
            if let Some(result) = up.result {
                let value: Value = result.decode().unwrap_or_default();
                results.insert(node.as_str().to_owned(), value);
            }
        }
        complete.sort_unstable();
        let merged = json!({
            "merged_from": args.from,
            "complete_nodes": complete,
            "batches": batches,
            "results": results,
        });
        Ok(kept(merged, args.to))
    }
}

/// A result that is put into the vars, too, if somebody said where.
pub(super) fn kept(result: Value, to: Option<VarPath>) -> Changes {
    let put = to.map(|path| Change::Set(path, result.clone()));
    Changes::made_of(put.into_iter().collect()).result(result)
}

fn read(check: &mut Check<'_>) -> Option<Args> {
    let base = check.base;
    let fields = Fields::of(check.args, &base, &["from_nodes", "target"], check.faults)?;
    let from = match fields.get("from_nodes") {
        Some(nodes) => {
            let path = fields.path("from_nodes");
            if nodes.as_array().is_some_and(Vec::is_empty) {
                check.fault("from_nodes", "is empty", "name at least one parent");
            }
            ids(nodes, |t| NodeId::new(t), &path, check.faults)
                .into_iter()
                .map(|(_, id)| id)
                .collect()
        }
        None => {
            let cure = "add `from_nodes`, a list of parents";
            check.fault("", "`from_nodes` is missing", cure);
            Vec::new()
        }
    };
    let to = target(check, fields.get("target"));
    Some(Args { from, to })
}

/// `target: {var?, node_id?}`: the result belongs to the node itself, so only its own name fits.
pub(super) fn target(check: &mut Check<'_>, value: Option<&Value>) -> Option<VarPath> {
    let base = check.base;
    let path = base.key("target");
    let fields = Fields::of(value?, &path, &["var", "node_id"], check.faults)?;
    if let Some(name) = fields.text("node_id", check.faults)
        && check.node_id.is_some_and(|own| own.as_str() != name)
    {
        let cure = "write the node's own id, or leave it out: the result is this node's";
        check.fault("target.node_id", "names another node", cure);
    }
    let var = fields.text("var", check.faults)?;
    path_of(check, "target.var", var)
}

/// A node that is named in an argument.
pub(super) fn node_arg(
    check: &mut Check<'_>,
    value: &Value,
    place: &'static str,
) -> Option<NodeId> {
    let path = check.base.key(place);
    let name = text(value, &path, check.faults)?;
    id(name, |t| NodeId::new(t), &path, check.faults)
}
