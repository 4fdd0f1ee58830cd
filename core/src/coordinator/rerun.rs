//! RERUN: a new task that runs a settled one again and keeps what that has done.
//!
//! The source is read from the store. A kept node is finished from the start and points to the task
//! that has its accepted batches; nothing is copied. The rest of the graph begins anew.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::context::{Context, ShardOp};
use super::functions::kept_vars;
use super::parked::PARKED_PER_TASK_MAX;
use super::request::{answer, answer_of, refusal};
use super::shard::Shard;
use super::task::{NodeKey, Task};
use crate::control::{TaskControl, TaskOptions};
use crate::graph::{Plan, Verdict};
use crate::hash::stable128;
use crate::id::{Epoch, ShardId, TaskId, Token};
use crate::message::{Body, Envelope, Reply, ReplyError, RerunTask};
use crate::planted::{Bug, is_planted};
use crate::port::{ErrorKind, PortError, StoreReply, StoreRequest, TaskAnswer, TaskWithNodes};
use crate::record::{History, NodeRecord, NodeState, RECORD_VERSION, Rerun, TaskRecord, TaskState};

/// Reruns whose source is to be read: the store knows it as settled, and not the new task.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Reruns {
    /// Requests by the new task.
    waiting: BTreeMap<TaskId, Vec<Arc<Envelope>>>,
    /// The new task whose source is being read.
    asked: Option<TaskId>,
}

impl Reruns {
    /// Some are on their way.
    pub(super) fn wait(&self) -> bool {
        self.asked.is_some() || !self.waiting.is_empty()
    }

    /// A rerun of this task is on its way.
    pub(super) fn wait_for(&self, task: &TaskId) -> bool {
        let mut waiting = self.waiting.values().flatten();
        waiting.any(|message| source_of(message).as_ref() == Some(task))
    }
}

/// The task that a request wants to run again.
pub(super) fn source_of(message: &Envelope) -> Option<TaskId> {
    match &message.body {
        Body::RerunTask(rerun) => Some(rerun.of.clone()),
        _ => None,
    }
}

/// The identity of a rerun: the same nodes of the same task.
pub(super) fn hash_of(rerun: &RerunTask) -> u128 {
    let from: BTreeSet<_> = rerun.from.iter().collect();
    let mut parts: Vec<&[u8]> = vec![b"rerun", rerun.of.as_str().as_bytes()];
    parts.push(if rerun.all { b"all" } else { b"kept" });
    parts.extend(from.into_iter().map(|node| node.as_str().as_bytes()));
    stable128(&parts)
}

/// Which nodes are kept: those that finished and have no node above them that runs again.
fn kept(plan: &Plan, states: &[NodeState], rerun: &RerunTask) -> Vec<bool> {
    let mut kept = vec![false; plan.len()];
    if rerun.all {
        return kept;
    }
    for node in plan.topological_order() {
        let here = plan.node(node);
        let above = here.parents.iter().all(|parent| kept[parent.node]);
        kept[node] = states[node] == NodeState::Finished
            && !rerun.from.contains(&here.id)
            && (above || is_planted(Bug::KeptBelow));
    }
    kept
}

impl Shard {
    /// A rerun under an id that the store does not know. `source`: what it knows of the task to run
    /// again, if it was asked.
    pub(super) fn rerun_unknown(
        &mut self,
        ctx: &mut Context<'_>,
        message: Arc<Envelope>,
        source: Option<Option<&TaskAnswer>>,
    ) {
        let (Some(task), Body::RerunTask(rerun)) = (message.task_id.clone(), &message.body) else {
            return;
        };
        let of = &rerun.of;
        if rerun.all && !rerun.from.is_empty() {
            let text = "`from` and `all` were both given: name nodes, or ask for all of them";
            return self.reply(ctx, &message, refusal(ReplyError::Invalid, text));
        }
        if ShardId::of(of, ctx.config.shards) != self.id {
            let text = format!(
                "the id {task} belongs to another shard than {of}: choose one of the same shard"
            );
            return self.reply(ctx, &message, refusal(ReplyError::Invalid, &text));
        }
        let here = self
            .numbers
            .get(of)
            .and_then(|number| self.tasks.get(number));
        let live = here.filter(|here| !here.record.settled);
        if let Some(live) = live.filter(|_| !is_planted(Bug::RerunOfLive)) {
            let text = if live.record.state.is_terminal() {
                format!("runs of task {of} are still ending; try again once it is settled")
            } else {
                format!("task {of} has not ended: wait until it has, or cancel it")
            };
            return self.reply(ctx, &message, refusal(ReplyError::NotSettled, &text));
        }
        let gone = source.flatten().is_some_and(|known| known.swept);
        if gone {
            let text = format!("task {of} was swept: its retention ended");
            return self.reply(ctx, &message, refusal(ReplyError::Swept, &text));
        }
        let looks_again = match source {
            None => true,
            // A sweep that has begun may not come to be stored: the store will know.
            Some(Some(_)) if self.sweeps.is_sweeping(of) => {
                self.lookup_at = Some(ctx.now.mono.after(ctx.config.retry_backoff_ms));
                true
            }
            Some(None) => {
                let text = format!("there is no task {of} to run again");
                return self.reply(ctx, &message, refusal(ReplyError::NotFound, &text));
            }
            Some(Some(known)) if known.state == TaskState::Quarantined => {
                let text = format!("task {of} was set aside: what it has done cannot be relied on");
                return self.reply(ctx, &message, refusal(ReplyError::Invalid, &text));
            }
            // Alive in the store but not here: another owner's business.
            Some(Some(known)) if !known.settled && here.is_none() => return,
            Some(Some(_)) => false,
        };
        let waiting = &self.reruns.waiting;
        let (tasks, known) = if looks_again {
            (self.parked.tasks(), self.parked.contains(&task))
        } else {
            (waiting.len(), waiting.contains_key(&task))
        };
        let many = self.tasks.len() + tasks >= ctx.config.tasks_in_flight_max;
        if many && !known {
            let text = "too many tasks are in flight or wait to run again; try again later";
            return self.reply(ctx, &message, refusal(ReplyError::Overloaded, text));
        }
        if looks_again {
            return self.parked.push(task, message);
        }
        let waits = self.reruns.waiting.entry(task).or_default();
        if waits.len() < PARKED_PER_TASK_MAX {
            waits.push(message);
        }
    }

    /// Reads the source of the next rerun.
    pub(super) fn read_source(&mut self, ctx: &mut Context<'_>) {
        if self.reruns.asked.is_some() || !self.may_change() {
            return;
        }
        let Some((task, messages)) = self.reruns.waiting.first_key_value() else {
            return;
        };
        let Some(task_id) = messages.first().and_then(|message| source_of(message)) else {
            return;
        };
        self.reruns.asked = Some(task.clone());
        // As of the newest applied commit: what is durable may not know yet that the task was swept.
        let request = StoreRequest::ReadRemains { task_id };
        ctx.store(self.purpose(ShardOp::Source), request);
    }

    pub(super) fn source_read(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<StoreReply, PortError>,
    ) {
        // With care, one change goes into one commit: it is read again when the next one may.
        let Some(task) = self.reruns.asked.take().filter(|_| self.may_change()) else {
            return;
        };
        let Some(messages) = self.reruns.waiting.remove(&task) else {
            return;
        };
        ctx.subject.task_id = Some(task.clone());
        let found = match result {
            Ok(StoreReply::Task(Some(found)))
                if found.task.settled || is_planted(Bug::RerunOfLive) =>
            {
                Ok(found)
            }
            Err(error) if error.kind == ErrorKind::Corrupt => {
                let text = "records of the task to run again cannot be read";
                Err(refusal(ReplyError::Invalid, text))
            }
            // Not settled, swept meanwhile, or not to be had: looked up again after a while.
            _ => {
                for message in messages {
                    self.parked.push(task.clone(), message);
                }
                self.lookup_at = Some(ctx.now.mono.after(ctx.config.retry_backoff_ms));
                ctx.subject.task_id = None;
                return;
            }
        };
        let mut made = false;
        for message in messages {
            let Body::RerunTask(rerun) = &message.body else {
                continue;
            };
            if made || self.numbers.contains_key(&task) {
                self.carry_out(ctx, &message, &task, None);
                continue;
            }
            let reply = match &found {
                Ok(found) => self.rerun(ctx, &task, rerun, found),
                Err(refused) => Err(refused.clone()),
            };
            made = reply.is_ok();
            let (Ok(reply) | Err(reply)) = reply;
            self.reply(ctx, &message, reply);
        }
        ctx.subject.task_id = None;
    }

    /// Makes the new task, or says why not.
    fn rerun(
        &mut self,
        ctx: &mut Context<'_>,
        task: &TaskId,
        rerun: &RerunTask,
        found: &TaskWithNodes,
    ) -> Result<Reply, Reply> {
        let of = &found.task;
        if self.tasks.len() >= ctx.config.tasks_in_flight_max {
            let text = format!("{} tasks are in flight; try again later", self.tasks.len());
            return Err(refusal(ReplyError::Overloaded, &text));
        }
        let unfit = || {
            let text = format!(
                "the records of task {} and its graph do not fit",
                of.task_id
            );
            refusal(ReplyError::Invalid, &text)
        };
        let (graph, plan) = self.plans.compile(&of.graph, None).map_err(|_| unfit())?;
        let mut sources: Vec<Option<&NodeRecord>> = vec![None; plan.len()];
        for node in &found.nodes {
            let index = plan.index(&node.node_id).ok_or_else(unfit)?;
            sources[index] = Some(node);
        }
        let sources: Option<Vec<&NodeRecord>> = sources.into_iter().collect();
        let sources = sources.ok_or_else(unfit)?;
        let unknown = rerun.from.iter().filter(|node| plan.index(node).is_none());
        let faults: Vec<Arc<str>> = unknown
            .map(|node| Arc::from(format!("from: task {} has no node `{node}`", of.task_id)))
            .collect();
        if !faults.is_empty() {
            let mut refused = refusal(ReplyError::Invalid, "`from` names unknown nodes");
            if let Some(error) = &mut refused.error {
                error.faults = faults;
            }
            return Err(refused);
        }
        let states: Vec<NodeState> = sources.iter().map(|node| node.state).collect();
        let kept = kept(&plan, &states, rerun);
        if kept.iter().all(|kept| *kept) {
            let text = format!(
                "every node of task {} finished: name those to run again in `from`, or ask for all",
                of.task_id
            );
            return Err(refusal(ReplyError::Invalid, &text));
        }
        let hash = hash_of(rerun);
        if self.refused.get(task) == Some(&hash) {
            let text = "the store refuses to keep this task";
            // Told once the entry is behind the shard's position, as a refused submission.
            self.open.begin(ctx.now.mono);
            return Err(refusal(ReplyError::Invalid, text));
        }
        if self.quarantine.contains(task) {
            let text = "a function of it broke the coordinator; if its node is to be kept, name it in `from`";
            return Err(refusal(ReplyError::Invalid, text));
        }
        let functions = &ctx.config.functions;
        let begins = kept_vars(functions, &plan, of, &sources, &kept).map_err(|(node, error)| {
            let node = &plan.node(node).id;
            let text = format!(
                "`{node}` is to be kept, but what it did to the vars cannot be done without the nodes \
                 that run again ({error}): name it in `from`, too"
            );
            refusal(ReplyError::Invalid, &text)
        })?;
        let submitted = of.submitted_vars.as_ref().unwrap_or(&of.vars);
        let mut holds = BTreeSet::from([of.task_id.clone()]);
        let mut history = History::default();
        let cause = format!("a rerun of {}", of.task_id);
        history.push(TaskState::Queued, ctx.now.wall_ms, cause);
        let record = TaskRecord {
            version: RECORD_VERSION,
            task_id: task.clone(),
            submission_hash: hash,
            graph,
            submitted_vars: (begins.vars != *submitted).then(|| submitted.clone()),
            vars: begins.vars,
            vars_version: begins.made.len() as u64,
            idempotency_key: None,
            state: TaskState::Queued,
            settled: false,
            failure: None,
            cancel_grace_ms: None,
            created_at_ms: ctx.now.wall_ms,
            history,
            control: TaskControl {
                no: 0,
                options: options_of(of),
            },
            rerun: None,
        };
        self.open.bytes += of.graph.len() + submitted.len() + record.vars.len();
        let mut made = Task::submitted(record, plan.clone(), ctx.now.wall_ms);
        for (node, source) in sources
            .into_iter()
            .enumerate()
            .filter(|(node, _)| kept[*node])
        {
            let origin = source.kept_from.as_ref().unwrap_or(&source.task_id);
            holds.insert(origin.clone());
            keep(
                &mut made.nodes[node].record,
                source,
                origin,
                ctx.now.wall_ms,
            );
            made.open -= 1;
            self.open.bytes += source.result.as_ref().map_or(0, crate::json::Json::len);
        }
        for (version, node) in (1..).zip(begins.made) {
            made.nodes[node].record.made_vars = Some(version);
        }
        made.record.rerun = Some(Rerun {
            of: of.task_id.clone(),
            holds: holds.into_iter().collect(),
        });
        self.open.created.push((task.clone(), hash));
        let number = self.insert(made);
        self.touch_task(ctx, number);
        self.begin_rerun(ctx, number, &plan);
        let made = self.tasks.get(&number);
        made.map(|made| answer(&answer_of(&made.record)))
            .ok_or_else(unfit)
    }

    /// Starts what may start behind the kept nodes, the way that it starts in any task.
    fn begin_rerun(&mut self, ctx: &mut Context<'_>, number: u64, plan: &Plan) {
        for node in plan.topological_order() {
            let key = NodeKey { task: number, node };
            self.touch(ctx, key);
            let Some(here) = self.node(key) else { return };
            if here.record.state == NodeState::Queued {
                match here.tally.verdict(plan.node(node).fan_in) {
                    Verdict::Wait => {}
                    Verdict::Start => {
                        self.start_or_skip(ctx, key, "what it waits for is there");
                    }
                    Verdict::Skip => {
                        let why = "its start rule cannot hold: nodes above it ended otherwise";
                        self.set_state(ctx, key, NodeState::Skipped, why);
                    }
                }
            }
            if let Some(task) = self.tasks.get_mut(&number) {
                task.move_edges(node, &mut Vec::new());
            }
        }
        self.task_progress(ctx, number);
    }
}

/// How a rerun is operated: like the task that it runs again. Who asks for it wants it to start now,
/// so the delay of that one's submission is over.
fn options_of(of: &TaskRecord) -> TaskOptions {
    TaskOptions {
        start_delay_ms: 0,
        ..of.control.options.clone()
    }
}

/// Makes a fresh record that of a kept node. Its `when` was judged once, and is not again.
fn keep(record: &mut NodeRecord, source: &NodeRecord, origin: &TaskId, now_ms: i64) {
    record.state = NodeState::Finished;
    record.epoch = Epoch(0);
    record.lease_no = Token(0);
    record.accepted = source.accepted;
    record.totals.clone_from(&source.totals);
    record.result.clone_from(&source.result);
    record.kept_from = Some(origin.clone());
    record.history = History::default();
    let cause = format!("kept from {origin}");
    record.history.push(NodeState::Finished, now_ms, cause);
}
