//! `metrics.aggregate`: one number for each metric of a node.

use serde_json::{Map, Value, json};

use super::merge::{kept, node_arg, target};
use super::vars::with_args;
use super::{Call, Changes, Check, Function, FunctionError};
use crate::graph::{Fields, quoted, similar};
use crate::id::NodeId;
use crate::planted::{Bug, is_planted};
use crate::record::MetricTotal;
use crate::vars::VarPath;

/// `metrics.aggregate {node_id, mode = "sum", target?: {var?, node_id?}}`.
///
/// The result: `{node_id, mode, stats: {metric: number}}`, over the node's accepted batches.
#[derive(Debug)]
pub(super) struct Aggregate;

const MODES: [&str; 4] = ["sum", "mean", "min", "max"];

struct Args {
    node: NodeId,
    mode: &'static str,
    to: Option<VarPath>,
}

impl Function for Aggregate {
    fn check(&self, check: &mut Check<'_>) {
        if let Some(args) = read(check) {
            check.reads(args.node);
        }
    }

    fn run(&self, call: &Call<'_>) -> Result<Changes, FunctionError> {
        let args = with_args(call, read)?;
        let args = args.ok_or_else(|| FunctionError::new("bad_args", "no arguments"))?;
        let up = call.parent(args.node.as_str());
        let totals = up.into_iter().flat_map(|up| up.totals);
        let stats: Map<String, Value> = totals
            .map(|(name, total)| (name.to_string(), Value::from(number(total, args.mode))))
            .collect();
        let result = json!({"node_id": args.node, "mode": args.mode, "stats": stats});
        Ok(kept(result, args.to))
    }
}

/// A total is made of at least one finite value, and its sum stays finite.
fn number(total: &MetricTotal, mode: &str) -> f64 {
    match mode {
        "mean" if is_planted(Bug::MeanIsSum) => total.sum.0,
        // Counts of batches are far below what a double holds exactly.
        "mean" => total.sum.0 / total.count.max(1) as f64,
        "min" => total.min.0,
        "max" => total.max.0,
        _ => total.sum.0,
    }
}

fn read(check: &mut Check<'_>) -> Option<Args> {
    let base = check.base;
    let known = &["node_id", "mode", "target"];
    let fields = Fields::of(check.args, &base, known, check.faults)?;
    let node = match fields.get("node_id") {
        Some(name) => node_arg(check, name, "node_id"),
        None => {
            let cure = "add `node_id`, the parent whose metrics are meant";
            check.fault("", "`node_id` is missing", cure);
            None
        }
    };
    let mode = match fields.text("mode", check.faults) {
        None => Some("sum"),
        Some(name) => {
            let known = MODES.into_iter().find(|mode| *mode == name);
            if known.is_none() {
                let cure = match similar(name, MODES) {
                    Some(like) => format!("did you mean `{like}`?"),
                    None => format!("use one of {}", MODES.join(", ")),
                };
                check.fault("mode", format!("{} is not a mode", quoted(name)), cure);
            }
            known
        }
    };
    let to = target(check, fields.get("target"));
    Some(Args {
        node: node?,
        mode: mode?,
        to,
    })
}
