//! Holding a task back: from its submission for a time, or until a client lets it go on.
//!
//! While a task is paused no grant of it is made. What runs goes on to its end, and counts; a run
//! that fails or is lost waits like the rest. Cancel works as ever.

use super::context::Context;
use super::shard::Shard;
use super::task::{NodeKey, Task};
use crate::id::{TaskId, Token};
use crate::message::{ControlTask, Envelope};
use crate::planted::{Bug, is_planted};
use crate::port::TaskAnswer;
use crate::record::{NodeState, TaskState};
use crate::text::{REASON_BYTES_MAX, cut};

impl Task {
    /// No node may be granted for now: its nodes stand in no queue.
    pub(super) fn is_held(&self) -> bool {
        self.record.state == TaskState::Paused
    }
}

impl Shard {
    /// PAUSE_TASK or RESUME_TASK: carried out if it is the next one and changes anything; answered
    /// from state in any case.
    pub(super) fn control(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Envelope,
        task: &TaskId,
        (control, pause): (&ControlTask, bool),
        stored: Option<&TaskAnswer>,
    ) {
        let Some(&number) = self.numbers.get(task) else {
            return self.answer_absent(ctx, message, task, stored);
        };
        let Some(known) = self.tasks.get_mut(&number) else {
            return;
        };
        let no = &mut known.record.control.no;
        let next = control.control_no.checked_sub(1) == Some(*no);
        let held = known.record.state == TaskState::Paused;
        let changes = held != pause && !known.is_closing();
        if changes && (next || is_planted(Bug::ControlRepeated)) {
            known.record.control.no += 1;
            let (verb, state) = match (pause, known.nodes.iter().any(was_granted)) {
                (true, _) => ("paused", TaskState::Paused),
                (false, true) => ("resumed", TaskState::Running),
                (false, false) => ("resumed", TaskState::Queued),
            };
            let cause = if control.reason.is_empty() {
                format!("{verb} by a client")
            } else {
                format!("{verb}: {}", cut(&control.reason, REASON_BYTES_MAX))
            };
            self.set_task_state(ctx, number, state, &cause);
            if pause {
                self.hold(number);
            } else {
                self.let_go(number);
            }
        }
        self.answer_state(ctx, message, number);
    }

    /// A task that was just submitted starts later, if that was asked for: what may start waits as a
    /// node that is to be tried again does, so a new owner knows it from the records.
    pub(super) fn delay_start(&mut self, ctx: &Context<'_>, number: u64) {
        let Some(task) = self.tasks.get(&number) else {
            return;
        };
        let delay_ms = task.record.control.options.start_delay_ms;
        if delay_ms == 0 || is_planted(Bug::DelayIgnored) {
            return;
        }
        for node in 0..task.nodes.len() {
            let key = NodeKey { task: number, node };
            if self
                .node(key)
                .is_none_or(|node| node.record.state != NodeState::Ready)
            {
                continue;
            }
            self.dequeue(key);
            let why = format!("its task starts in {delay_ms} ms");
            self.set_state(ctx, key, NodeState::Deferred, &why);
            let at = ctx.now.mono.after(delay_ms);
            self.node_mut(key).retry_at = Some(at);
            self.set_due(key, Some(at));
        }
    }

    /// Takes a task's ready nodes out of their queues.
    fn hold(&mut self, number: u64) {
        let nodes = self.tasks.get(&number).map_or(0, |task| task.nodes.len());
        for node in 0..nodes {
            if !is_planted(Bug::PauseIgnored) {
                self.dequeue(NodeKey { task: number, node });
            }
        }
    }

    /// Puts a task's ready nodes (back) into their queues, at the end.
    fn let_go(&mut self, number: u64) {
        let nodes = self.tasks.get(&number).map_or(0, |task| task.nodes.len());
        for node in 0..nodes {
            let key = NodeKey { task: number, node };
            let waits = self
                .node(key)
                .is_some_and(|node| node.record.state == NodeState::Ready && node.queued.is_none());
            let fed = self.task(key).is_some_and(|task| task.is_fed(node));
            if waits && fed && !is_planted(Bug::ResumedIdle) {
                self.enqueue(key);
            }
        }
    }
}

fn was_granted(node: &super::task::Node) -> bool {
    node.record.lease_no > Token(0)
}
