//! Requests of clients: each is answered after the commit that it rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::commit::When;
use super::context::{Context, ShardOp};
use super::fold::reject;
use super::shard::Shard;
use super::task::Task;
use crate::control::TaskControl;
use crate::graph::{Fault, check_vars};
use crate::hash::stable128;
use crate::id::{Incarnation, NodeId, ShardId, TaskId, Token, WorkerId};
use crate::message::{
    Body, CancelReason, CancelTask, Envelope, ErrorReply, Reply, ReplyError, SenderRole, Submit,
};
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, StoreReply, StoreRequest, Stream, TaskAnswer};
use crate::record::{History, RECORD_VERSION, TaskRecord, TaskState};
use crate::text::{REASON_BYTES_MAX, cut};

/// Most who wait for the end of one task; a client that goes on waiting asks again.
pub(super) const WATCHERS_MAX: usize = 1_000;

impl Shard {
    /// A request of a client.
    pub(super) fn request(&mut self, ctx: &mut Context<'_>, message: Arc<Envelope>) {
        let Some(task) = message.task_id.clone() else {
            let error = refusal(ReplyError::Invalid, "the request names no task_id");
            return self.reply(ctx, &message, error);
        };
        if ShardId::of(&task, ctx.config.shards) != self.id {
            return reject(ctx, &message, "its task belongs to another shard");
        }
        match &message.body {
            Body::Submit(_) | Body::CancelTask(_) | Body::WaitTask(_) | Body::RerunTask(_) => {}
            Body::PauseTask(_) | Body::ResumeTask(_) => {}
            body => {
                let text = format!("this version does not know the request {}", body.kind());
                return self.reply(ctx, &message, refusal(ReplyError::Unsupported, &text));
            }
        }
        if self.numbers.contains_key(&task) {
            return self.carry_out(ctx, &message, &task, None);
        }
        if is_planted(Bug::StoreUnasked) {
            return self.carry_out(ctx, &message, &task, None);
        }
        // Not in memory: new, or settled and only in the store. The store knows.
        self.parked.push(task, message);
    }

    /// Asks the store about every task that requests wait for.
    pub(super) fn look_up(&mut self, ctx: &mut Context<'_>) {
        let waits = self.lookup_at.is_some_and(|at| at > ctx.now.mono);
        let parked = &self.parked.by_task;
        if self.lookup.is_some() || waits || parked.is_empty() || !self.may_change() {
            return;
        }
        self.lookup_at = None;
        let mut tasks: BTreeSet<TaskId> = parked.keys().cloned().collect();
        let reruns = parked.values().flatten();
        tasks.extend(reruns.filter_map(|message| super::rerun::source_of(message)));
        // In order, so that one of them is found soon.
        let tasks: Vec<TaskId> = tasks.into_iter().collect();
        let waiting = |task: &TaskId| parked.get(task).map_or(0, Vec::len);
        let lookup = tasks.iter().map(|task| (task.clone(), waiting(task)));
        self.lookup = Some(lookup.collect());
        ctx.store(
            self.purpose(ShardOp::Lookup),
            StoreRequest::LookupTasks { tasks },
        );
    }

    pub(super) fn looked_up(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<StoreReply, PortError>,
    ) {
        let Some(tasks) = self.lookup.take() else {
            return;
        };
        let outdated = std::mem::take(&mut self.outdated);
        let Ok(StoreReply::Answers(answers)) = result else {
            self.lookup_at = Some(ctx.now.mono.after(ctx.config.retry_backoff_ms));
            return;
        };
        let answers = answers.into_iter().zip(tasks.keys());
        let answers: Vec<Option<TaskAnswer>> = answers
            .map(|(answer, task)| Some(self.as_owned(task, answer?)))
            .collect();
        let known: BTreeMap<_, _> = tasks.keys().zip(&answers).collect();
        for ((task, count), answer) in tasks.iter().zip(&answers) {
            // With care, one change goes into one commit: the others are looked up again.
            if !self.may_change() {
                break;
            }
            // It was in memory meanwhile, so the store may have answered too early: once more.
            if outdated.contains(task) {
                continue;
            }
            ctx.subject.task_id = Some(task.clone());
            // What came since the question was asked may be about what the store did not know then:
            // an owner that is none any more must not tell who has just been told of a task by the
            // next one that there is none.
            for message in self.parked.take(task, *count) {
                let of = super::rerun::source_of(&message);
                let asked = [Some(task), of.as_ref()].into_iter().flatten();
                let unsure = |task: &TaskId| {
                    let answer = known.get(task).and_then(|answer| answer.as_ref());
                    let unreadable = |answer: &TaskAnswer| {
                        answer.state == TaskState::Quarantined && answer.submission_hash == 0
                    };
                    self.left_out.contains(task) || answer.is_some_and(unreadable)
                };
                if asked.into_iter().any(unsure) {
                    // An owner that was replaced may have left out what the next one has, or its store may
                    // have been unable to read it: what it says is to rest on a commit, which it cannot make.
                    self.open.begin(ctx.now.mono);
                }
                let of = of.filter(|_| answer.is_none() && !self.numbers.contains_key(task));
                match (message.sender.role, of) {
                    (SenderRole::Worker, _) => self.answer_run(ctx, &message, answer.as_ref()),
                    (_, Some(of)) => {
                        let source = known.get(&of).filter(|_| !outdated.contains(&of));
                        let source = source.map(|source| source.as_ref());
                        self.rerun_unknown(ctx, message, source);
                    }
                    _ => self.carry_out(ctx, &message, task, answer.as_ref()),
                }
            }
        }
        ctx.subject.task_id = None;
    }

    /// What the store knows, as this owner sees it: a task that it left out is nobody's until it can be
    /// loaded again, however alive its record is. Who asks must hear of it.
    fn as_owned(&self, task: &TaskId, mut answer: TaskAnswer) -> TaskAnswer {
        if self.left_out.contains(task) && !answer.settled && !is_planted(Bug::LeftOutSilent) {
            answer.state = TaskState::Quarantined;
            answer.settled = true;
        }
        answer
    }

    /// A run of a task that is not in memory: over, unless the store knows it as alive (then
    /// another owner is current, and this one will soon notice).
    pub(super) fn look_up_fenced(
        &mut self,
        ctx: &mut Context<'_>,
        worker: &WorkerId,
        incarnation: Incarnation,
        about: (&TaskId, &NodeId, Token),
    ) {
        let sender = crate::message::Sender {
            role: SenderRole::Worker,
            id: Arc::from(worker.as_str()),
            incarnation,
        };
        let mut message = Envelope::new(sender, ctx.now.wall_ms, Body::SlotFree);
        message.task_id = Some(about.0.clone());
        message.node_id = Some(about.1.clone());
        message.lease_no = Some(about.2);
        self.parked.push(about.0.clone(), Arc::new(message));
    }

    fn answer_run(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        answer: Option<&TaskAnswer>,
    ) {
        let (Some(task), Some(node), Some(token)) =
            (&message.task_id, &message.node_id, message.lease_no)
        else {
            return;
        };
        let Ok(worker) = WorkerId::new(&message.sender.id) else {
            return;
        };
        if self.numbers.contains_key(task) || answer.is_some_and(|known| !known.settled) {
            return;
        }
        self.send_fenced(
            ctx,
            &worker,
            message.sender.incarnation,
            (task, node, token),
        );
    }

    pub(super) fn carry_out(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        stored: Option<&TaskAnswer>,
    ) {
        match &message.body {
            Body::Submit(submit) => self.submit(ctx, message, task, submit, stored),
            Body::CancelTask(cancel) => self.cancel(ctx, message, task, cancel, stored),
            Body::PauseTask(control) => self.control(ctx, message, task, (control, true), stored),
            Body::ResumeTask(control) => {
                self.control(ctx, message, task, (control, false), stored);
            }
            Body::RerunTask(rerun) => {
                let hash = super::rerun::hash_of(rerun);
                self.answer_same(ctx, message, task, hash, stored);
            }
            Body::WaitTask(wait) => {
                if let Some(number) = self.numbers.get(task)
                    && let Some(known) = self.tasks.get_mut(number)
                {
                    let watcher = (message.sender.id.clone(), corr_id(message));
                    known.watchers.insert(watcher, wait.inbox);
                    if known.watchers.len() > WATCHERS_MAX {
                        known.watchers.pop_first();
                    }
                    if known.record.settled || is_planted(Bug::WaitAtOnce) {
                        let number = *number;
                        self.answer_watchers(ctx, number);
                    }
                } else {
                    match stored {
                        Some(known) if known.settled => self.reply(ctx, message, answer(known)),
                        // Alive in the store but not here: another owner's business.
                        Some(_) => {}
                        None => self.reply(ctx, message, not_found(task)),
                    }
                }
            }
            _ => {}
        }
    }

    fn submit(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        submit: &Submit,
        stored: Option<&TaskAnswer>,
    ) {
        let hash = submission_hash(submit);
        if self.answer_same(ctx, message, task, hash, stored) {
            return;
        }
        let full = self.tasks.len() >= ctx.config.tasks_in_flight_max;
        if full && !is_planted(Bug::OverloadTaken) {
            let text = format!("{} tasks are in flight; try again later", self.tasks.len());
            return self.reply(ctx, message, refusal(ReplyError::Overloaded, &text));
        }
        let faults = submit.options.faults();
        if !faults.is_empty() {
            let text = format!("the options have {} fault(s)", faults.len());
            let mut reply = refusal(ReplyError::Invalid, &text);
            if let Some(error) = &mut reply.error {
                error.faults = faults.iter().map(|f| Arc::from(f.as_str())).collect();
            }
            return self.reply(ctx, message, reply);
        }
        let vars_faults = check_vars(&submit.vars).err().unwrap_or_default();
        let functions = Some(&ctx.config.functions);
        let (graph, plan) = match self.plans.compile(&submit.graph, functions) {
            Ok(compiled) if vars_faults.is_empty() => compiled,
            compiled => {
                let graph_faults = compiled.err().unwrap_or_default();
                return self.reply(ctx, message, faulty(&graph_faults, &vars_faults));
            }
        };
        let mut history = History::default();
        history.push(TaskState::Queued, ctx.now.wall_ms, "submitted");
        let record = TaskRecord {
            version: RECORD_VERSION,
            task_id: task.clone(),
            submission_hash: hash,
            graph,
            vars: submit.vars.clone(),
            idempotency_key: submit.idempotency_key.clone(),
            state: TaskState::Queued,
            settled: false,
            failure: None,
            cancel_grace_ms: None,
            vars_version: 0,
            submitted_vars: None,
            created_at_ms: ctx.now.wall_ms,
            history,
            control: TaskControl {
                no: 0,
                options: submit.options.clone(),
            },
            rerun: None,
        };
        self.open.bytes += submit.graph.len() + submit.vars.len();
        if self.refused.get(task) == Some(&hash) {
            return self.refuse_request(ctx, message, "the store refuses to keep this task");
        }
        // A task of that name may have been blamed for a commit that would have created it.
        self.quarantine.remove(task);
        self.open.created.push((task.clone(), hash));
        let number = self.insert(Task::submitted(record, plan, ctx.now.wall_ms));
        self.touch_task(ctx, number);
        self.begin_task(ctx, number);
        self.delay_start(ctx, number);
        let state = self
            .tasks
            .get(&number)
            .map(|known| answer(&answer_of(&known.record)));
        if let Some(reply) = state {
            self.reply(ctx, message, reply);
        }
    }

    /// Answers what would make a task that exists: the same again from state, anything else is a
    /// conflict. False if there is no such task.
    fn answer_same(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        hash: u128,
        stored: Option<&TaskAnswer>,
    ) -> bool {
        let known = self
            .numbers
            .get(task)
            .and_then(|number| self.tasks.get(number));
        let known = known.map(|known| answer_of(&known.record));
        let Some(known) = known.as_ref().or(stored) else {
            return false;
        };
        let reply = if known.submission_hash == hash || is_planted(Bug::OtherGraphTaken) {
            answer(known)
        } else {
            refusal(
                ReplyError::IdempotencyConflict,
                &format!(
                    "task {task} exists with another graph, other vars or options, or as another rerun"
                ),
            )
        };
        self.reply(ctx, message, reply);
        true
    }

    fn cancel(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        cancel: &CancelTask,
        stored: Option<&TaskAnswer>,
    ) {
        let Some(&number) = self.numbers.get(task) else {
            return self.answer_absent(ctx, message, task, stored);
        };
        let Some(known) = self.tasks.get_mut(&number) else {
            return;
        };
        if !known.is_closing() {
            let grace_ms = cancel.grace_ms.unwrap_or(ctx.config.cancel_grace_ms);
            known.record.cancel_grace_ms = Some(grace_ms);
            let cause = if cancel.reason.is_empty() {
                "cancelled by a client".to_string()
            } else {
                format!("cancelled: {}", cut(&cancel.reason, REASON_BYTES_MAX))
            };
            self.set_task_state(ctx, number, TaskState::Cancelling, &cause);
            let reason = |_| CancelReason::UserRequest;
            self.end_others(ctx, number, &cause, reason, |_| false);
            self.task_progress(ctx, number);
        }
        self.answer_state(ctx, message, number);
    }

    /// Answers a request about a task that is in memory.
    pub(super) fn answer_state(&mut self, ctx: &mut Context<'_>, message: &Envelope, number: u64) {
        if let Some(known) = self.tasks.get(&number) {
            let reply = answer(&answer_of(&known.record));
            self.reply(ctx, message, reply);
        }
    }

    /// Answers a request that would change a task which is not in memory: it has ended, or there is
    /// none. If it is alive in the store, it is another owner's business.
    pub(super) fn answer_absent(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        stored: Option<&TaskAnswer>,
    ) {
        match stored {
            Some(known) if known.state.is_terminal() => self.reply(ctx, message, answer(known)),
            Some(_) => {}
            None => self.reply(ctx, message, not_found(task)),
        }
    }

    /// Answers a request that the store refused to take, once the entry is behind the shard's position: a
    /// next owner would fold it again, and the store might take it then.
    pub(super) fn refuse_request(&mut self, ctx: &mut Context<'_>, message: &Envelope, why: &str) {
        self.open.begin(ctx.now.mono);
        self.reply(ctx, message, refusal(ReplyError::Invalid, why));
    }

    /// Answers a client once everything folded so far is safe from any crash.
    pub(super) fn reply(&mut self, ctx: &mut Context<'_>, message: &Envelope, reply: Reply) {
        let inbox = match &message.body {
            Body::Submit(submit) => submit.inbox,
            Body::CancelTask(cancel) => cancel.inbox,
            Body::WaitTask(wait) => wait.inbox,
            Body::PauseTask(control) | Body::ResumeTask(control) => control.inbox,
            Body::RerunTask(rerun) => rerun.inbox,
            _ => crate::id::inbox_of(&message.sender.id, ctx.config.inboxes),
        };
        let to = (message.sender.id.clone(), corr_id(message));
        self.reply_to(ctx, message.task_id.clone(), to, inbox, reply);
        let early = match &message.body {
            Body::Submit(_) => is_planted(Bug::SubmitAckedEarly),
            Body::CancelTask(_) => is_planted(Bug::CancelAckedEarly),
            Body::PauseTask(_) => is_planted(Bug::PauseAckedEarly),
            _ => false,
        };
        if early && let Some(reply) = self.open.outbox.pop() {
            self.release(ctx, reply);
        }
    }

    fn reply_to(
        &mut self,
        ctx: &mut Context<'_>,
        task: Option<TaskId>,
        to: (Arc<str>, Arc<str>),
        inbox: u32,
        reply: Reply,
    ) {
        let mut envelope = ctx.envelope(&to.0, None, Body::Reply(reply));
        envelope.task_id = task;
        envelope.corr_id = Some(to.1);
        let envelope = envelope.identified(ctx.now.mono.0);
        self.send(
            ctx,
            When::Durable,
            Stream::Inbox(inbox % ctx.config.inboxes.max(1)),
            envelope,
        );
    }

    /// Answers everyone who waits for the task to settle.
    pub(super) fn answer_watchers(&mut self, ctx: &mut Context<'_>, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        if task.watchers.is_empty() {
            return;
        }
        let watchers: BTreeMap<_, _> = std::mem::take(&mut task.watchers);
        let reply = answer(&answer_of(&task.record));
        let id = task.id().clone();
        for (to, inbox) in watchers {
            self.reply_to(ctx, Some(id.clone()), to, inbox, reply.clone());
        }
    }
}

/// Identity of a submission. Options count only if there are any: without them it is what it was.
fn submission_hash(submit: &Submit) -> u128 {
    let (graph, vars) = (
        submit.graph.text().as_bytes(),
        submit.vars.text().as_bytes(),
    );
    let options = &submit.options;
    if options.is_default() {
        return stable128(&[graph, vars]);
    }
    let key = options.limit_key.as_deref().unwrap_or_default();
    stable128(&[
        graph,
        vars,
        &options.priority.to_le_bytes(),
        &options.start_delay_ms.to_le_bytes(),
        key.as_bytes(),
    ])
}

fn corr_id(message: &Envelope) -> Arc<str> {
    message.corr_id.clone().unwrap_or_default()
}

pub(super) fn answer_of(record: &TaskRecord) -> TaskAnswer {
    TaskAnswer {
        submission_hash: record.submission_hash,
        state: record.state,
        settled: record.settled,
        failure: record.failure.clone(),
        swept: false,
    }
}

pub(super) fn answer(known: &TaskAnswer) -> Reply {
    Reply {
        ok: true,
        state: Some(known.state),
        failure: known.failure.clone(),
        error: None,
    }
}

pub(super) fn refusal(kind: ReplyError, message: &str) -> Reply {
    let error = ErrorReply {
        kind,
        message: Arc::from(message),
        faults: Vec::new(),
    };
    Reply {
        ok: false,
        state: None,
        failure: None,
        error: Some(error),
    }
}

/// Every fault of a submission at once.
fn faulty(graph: &[Fault], vars: &[Fault]) -> Reply {
    let (kind, text) = match (graph.len(), vars.len()) {
        (0, vars) => (
            ReplyError::Invalid,
            format!("the vars have {vars} fault(s)"),
        ),
        (graph, 0) => (
            ReplyError::InvalidGraph,
            format!("the graph has {graph} fault(s)"),
        ),
        (graph, vars) => (
            ReplyError::InvalidGraph,
            format!("the graph has {graph} fault(s), the vars have {vars}"),
        ),
    };
    let mut reply = refusal(kind, &text);
    if let Some(error) = &mut reply.error {
        let all = graph.iter().chain(vars);
        error.faults = all.map(|fault| Arc::from(fault.to_string())).collect();
    }
    reply
}

fn not_found(task: &TaskId) -> Reply {
    refusal(ReplyError::NotFound, &format!("there is no task {task}"))
}
