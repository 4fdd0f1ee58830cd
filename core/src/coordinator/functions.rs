//! `when` is judged, and `coordinator_fn` nodes run: both over the vars of this very moment, both
//! once, both in the commit that holds what led to them.

use serde_json::{Map, Value};

use super::context::Context;
use super::shard::Shard;
use super::task::{NodeKey, Task};
use crate::function::{Call, Done, FunctionError, Functions, Upstream, carry_out};
use crate::graph::{Plan, PlanNode};
use crate::json::Json;
use crate::planted::{Bug, is_planted};
use crate::record::{NodeRecord, NodeState, TaskRecord, TaskState};

/// Bytes of a commit that a function counts for beside its values.
const FUNCTION_BYTES: usize = 1_024;

/// The vars that a START carries: those of now.
pub(super) fn vars_of_start(task: &Task) -> Json {
    if task.record.vars_version > 0 && is_planted(Bug::StartVarsLost) {
        return Json::null();
    }
    task.record.vars.clone()
}

/// Vars as an object; what is stored was checked.
fn vars_of(vars: &Json) -> Map<String, Value> {
    match vars.decode::<Value>() {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

impl Shard {
    /// The node's fan-in holds: it becomes ready, unless its `when` says otherwise. False if it is
    /// skipped; what follows from that is the caller's business.
    ///
    /// This is the only time that `when` is looked at. A retry or another owner finds a node that
    /// is not queued any more.
    pub(super) fn start_or_skip(&mut self, ctx: &mut Context<'_>, key: NodeKey, why: &str) -> bool {
        let Some(task) = self.task(key) else {
            return true;
        };
        if let Some(condition) = &task.plan.node(key.node).condition {
            let version = task.record.vars_version;
            let vars = if version > 0 && is_planted(Bug::WhenOfNothing) {
                Map::new()
            } else {
                vars_of(&task.record.vars)
            };
            let skip = (!condition.holds(&vars)).then(|| condition.why_not(&vars));
            self.node_mut(key).record.when_vars = Some(version);
            if let Some(what) = skip.filter(|_| !is_planted(Bug::WhenIgnored)) {
                let cause = format!("its `when` does not hold: {what}");
                self.set_state(ctx, key, NodeState::Skipped, &cause);
                return false;
            }
        }
        self.make_ready(ctx, key, why);
        true
    }

    /// Runs the function of a ready node, if the open commit has room for it. False if it waits for
    /// the next one.
    pub(super) fn dispatch_function(&mut self, ctx: &mut Context<'_>, key: NodeKey) -> bool {
        if !self.has_room(ctx.config) {
            return false;
        }
        self.dequeue(key);
        let Some(task) = self.task(key) else {
            return true;
        };
        // A function that panics is set aside with its task: dispatch named it.
        let outcome = call(ctx, task, key.node);
        let queued = task.record.state == TaskState::Queued;
        let function = task.plan.node(key.node).function.as_ref();
        let cause = function.map_or_else(String::new, |f| format!("did `{}`", f.name));
        if queued {
            self.set_task_state(ctx, key.task, TaskState::Running, "first function");
        }
        self.open.bytes += FUNCTION_BYTES;
        match outcome {
            Ok(done) => self.function_done(ctx, key, done, &cause),
            Err(_) if is_planted(Bug::FunctionFailureLost) => {
                let done = Done {
                    vars: None,
                    result: None,
                };
                self.function_done(ctx, key, done, &cause);
            }
            Err(error) => self.end_failed(ctx, key, &error.reason_code, &error.text),
        }
        true
    }

    /// The node ends with the vars that its function made.
    fn function_done(&mut self, ctx: &mut Context<'_>, key: NodeKey, done: Done, cause: &str) {
        self.open.bytes += done.result.as_ref().map_or(0, Json::len);
        let stored = !is_planted(Bug::VarsUnstored);
        if stored {
            self.touch_task(ctx, key.task);
        }
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        task.record.vars_version += 1;
        let version = task.record.vars_version;
        if let Some(vars) = done.vars {
            let vars = Json::from(Value::Object(vars));
            let old = std::mem::replace(&mut task.record.vars, vars);
            // What a rerun begins with, from the first change on.
            task.record.submitted_vars.get_or_insert(old);
        }
        let submitted = task.record.submitted_vars.as_ref().map_or(0, Json::len);
        let bytes = task.record.vars.len() + submitted;
        let record = &mut task.nodes[key.node].record;
        record.made_vars = Some(version);
        record.result = done.result;
        self.open.bytes += bytes;
        self.set_state(ctx, key, NodeState::Finished, cause);
        self.spread(ctx, key);
    }
}

/// Calls the function of a node.
fn call(ctx: &Context<'_>, task: &Task, node: usize) -> Result<Done, FunctionError> {
    let plan = task.plan.node(node);
    let parents = plan.parents.iter();
    let records = parents.map(|parent| &task.nodes[parent.node].record);
    call_over(
        &ctx.config.functions,
        plan,
        records,
        &vars_of(&task.record.vars),
    )
}

/// Calls the function of a node over these records of its parents, and these vars.
fn call_over<'r>(
    functions: &Functions,
    plan: &PlanNode,
    parents: impl Iterator<Item = &'r NodeRecord>,
    vars: &Map<String, Value>,
) -> Result<Done, FunctionError> {
    let Some(wanted) = &plan.function else {
        return Err(FunctionError::new("no_function", "the node names none"));
    };
    let built_in = || Functions::default().get(&wanted.name).is_some();
    let lost = is_planted(Bug::UserFunctionUnknown) && !built_in();
    let Some(function) = functions.get(&wanted.name).filter(|_| !lost) else {
        let text = format!(
            "this coordinator knows no function {}; register the same ones with every coordinator",
            crate::graph::quoted(&wanted.name)
        );
        return Err(FunctionError::new("no_function", text));
    };
    let upstream: Vec<Upstream<'_>> = parents.map(Upstream::of).collect();
    let call = Call {
        node_id: &plan.id,
        args: &wanted.args,
        vars,
        upstream: &upstream,
        functions,
    };
    carry_out(function, &call)
}

/// The vars that a rerun begins with, and the nodes whose functions made them, in order.
#[derive(Debug)]
pub(super) struct KeptVars {
    pub(super) vars: Json,
    pub(super) made: Vec<usize>,
}

/// The vars of a rerun: those of the submission with the changes of the kept functions, in the order
/// in which they were made. What other functions did is not in them. `nodes` are the old task's
/// records by the plan's order.
///
/// # Errors
/// The node whose change cannot be made without the others, and why.
pub(super) fn kept_vars(
    functions: &Functions,
    plan: &Plan,
    of: &TaskRecord,
    nodes: &[&NodeRecord],
    kept: &[bool],
) -> Result<KeptVars, (usize, FunctionError)> {
    let mut made: Vec<(u64, usize)> = (0..nodes.len())
        .filter(|node| kept[*node])
        .filter_map(|node| Some((nodes[node].made_vars?, node)))
        .collect();
    made.sort_unstable();
    let made: Vec<usize> = made.into_iter().map(|(_, node)| node).collect();
    let submitted = of.submitted_vars.as_ref().unwrap_or(&of.vars);
    if made.len() as u64 == of.vars_version || is_planted(Bug::RerunVarsAsEnded) {
        let vars = of.vars.clone();
        return Ok(KeptVars { vars, made });
    }
    let mut vars = vars_of(submitted);
    let mut changed = false;
    for &node in &made {
        let here = plan.node(node);
        let parents = here.parents.iter().map(|parent| nodes[parent.node]);
        let done = call_over(functions, here, parents, &vars).map_err(|error| (node, error))?;
        if let Some(after) = done.vars.filter(|_| !is_planted(Bug::KeptVarsLost)) {
            vars = after;
            changed = true;
        }
    }
    let vars = if changed {
        Json::from(Value::Object(vars))
    } else {
        submitted.clone()
    };
    Ok(KeptVars { vars, made })
}
