//! How a grant ends, and what the end of one node means for the others.

use std::collections::{BTreeSet, VecDeque};

use super::context::Context;
use super::shard::Shard;
use super::task::{NodeKey, sources};
use crate::graph::{EdgeCondition, Verdict};
use crate::message::CancelReason;
use crate::planted::{Bug, is_planted};
use crate::record::{
    ERROR_BYTES_MAX, Failure, Grant, NodeState, REASON_CODE_BYTES_MAX, TaskState, cause,
};
use crate::report::{Report, ReportKind};
use crate::text::cut;

/// Losses in a row from which on the next grant waits.
const LOSSES_FREE: u32 = 3;

impl Shard {
    pub(super) fn set_state(
        &mut self,
        ctx: &Context<'_>,
        key: NodeKey,
        state: NodeState,
        cause: &str,
    ) {
        self.touch(ctx, key);
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        let record = &mut task.nodes[key.node].record;
        assert!(
            !record.state.is_terminal(),
            "a terminal state never changes"
        );
        record.state = state;
        record.history.push(state, ctx.now.wall_ms, cause);
        if state.is_terminal() {
            task.open -= 1;
        }
    }

    pub(super) fn set_task_state(
        &mut self,
        ctx: &Context<'_>,
        number: u64,
        state: TaskState,
        cause: &str,
    ) {
        self.touch_task(ctx, number);
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        assert!(
            !task.record.state.is_terminal(),
            "a terminal state never changes"
        );
        task.record.state = state;
        task.record.history.push(state, ctx.now.wall_ms, cause);
    }

    /// Takes the current grant away. The caller gives the node its next state in the same step.
    fn take_grant(&mut self, ctx: &mut Context<'_>, key: NodeKey) -> Option<Grant> {
        self.set_due(key, None);
        self.starving.remove(&key);
        let task = self.tasks.get_mut(&key.task)?;
        let node = &mut task.nodes[key.node];
        node.run = None;
        let grant = node.record.grant.take()?;
        node.record.last_seq = 0;
        task.grants -= 1;
        if let Some(held) = self.held.get_mut(&grant.worker_id) {
            held.remove(&key);
            if held.is_empty() {
                self.held.remove(&grant.worker_id);
            }
        }
        ctx.workers.grant_ends(&grant.worker_id);
        self.count_grant(key, false, false);
        self.touch(ctx, key);
        Some(grant)
    }

    /// The run ended well.
    pub(super) fn end_finished(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        self.take_grant(ctx, key);
        self.set_state(ctx, key, NodeState::Finished, "done");
        self.spread(ctx, key);
    }

    /// The node failed for good.
    pub(super) fn end_failed(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        reason_code: &str,
        error: &str,
    ) {
        self.take_grant(ctx, key);
        if self
            .tasks
            .get(&key.task)
            .is_some_and(super::task::Task::is_closing)
        {
            self.set_state(ctx, key, NodeState::Cancelled, "failed while it was ending");
        } else {
            let record = &mut self.node_mut(key).record;
            record.failure = Some(Failure {
                node_id: record.node_id.clone(),
                // The worker cuts them, but a message may come from anywhere.
                reason_code: cut(reason_code, REASON_CODE_BYTES_MAX).into(),
                error: cut(error, ERROR_BYTES_MAX).into(),
            });
            self.set_state(ctx, key, NodeState::Failed, reason_code);
        }
        self.spread(ctx, key);
    }

    /// The attempt failed; the next one may begin after a while.
    pub(super) fn end_to_retry(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        wait_ms: u64,
        reason_code: &str,
    ) {
        self.node_mut(key).record.new_attempt = true;
        self.end_to_ready(ctx, key, wait_ms, reason_code);
    }

    /// The lease ran out, or its holder's process is gone.
    pub(super) fn lose_grant(&mut self, ctx: &mut Context<'_>, key: NodeKey, why: &str) {
        let Some(task) = self.task(key) else { return };
        let losses_max = task.plan.node(key.node).retry.losses_max;
        let closing = task.is_closing();
        let record = &mut self.node_mut(key).record;
        record.losses += 1;
        record.failures += u32::from(is_planted(Bug::LossIsFailure));
        let losses = record.losses;
        let report = Report::new(ReportKind::GrantLost, why).about(
            &record.task_id,
            &record.node_id,
            Some(record.lease_no),
        );
        ctx.report(report);
        let too_many = if is_planted(Bug::LossOnceMore) {
            losses > losses_max
        } else if is_planted(Bug::LossOnceLess) {
            losses + 1 >= losses_max
        } else {
            losses >= losses_max
        };
        if too_many && !closing {
            let error = format!("lost {losses} grants in a row; the last time: {why}");
            return self.end_failed(ctx, key, cause::WORKER_LOST, &error);
        }
        let wait_ms = match losses.checked_sub(LOSSES_FREE + 1) {
            None => 0,
            Some(doublings) => (1_000_u64 << doublings.min(6)).min(60_000),
        };
        self.end_to_ready(ctx, key, wait_ms, why);
    }

    /// A refusal, a recall or a drain: counts nowhere.
    pub(super) fn end_uncounted(&mut self, ctx: &mut Context<'_>, key: NodeKey, why: &str) {
        self.end_to_ready(ctx, key, 0, why);
    }

    /// The run says that it ended because it was told to. If nobody here told it (the order came
    /// from an owner before us, or it yields), the node is granted anew.
    pub(super) fn end_told(&mut self, ctx: &mut Context<'_>, key: NodeKey, yielded: bool) {
        let why = if yielded {
            "it made room for another node"
        } else {
            "it was told to end"
        };
        self.end_to_ready(ctx, key, 0, why);
    }

    fn end_to_ready(&mut self, ctx: &mut Context<'_>, key: NodeKey, wait_ms: u64, why: &str) {
        self.take_grant(ctx, key);
        if self
            .tasks
            .get(&key.task)
            .is_some_and(|task| task.is_closing() && !is_planted(Bug::GrantAfterCancel))
        {
            self.set_state(ctx, key, NodeState::Cancelled, why);
            return self.spread(ctx, key);
        }
        if wait_ms == 0 {
            self.make_ready(ctx, key, why);
        } else {
            self.set_state(ctx, key, NodeState::Deferred, why);
            let at = ctx.now.mono.after(wait_ms);
            self.node_mut(key).retry_at = Some(at);
            self.set_due(key, Some(at));
        }
        self.update_readers(key);
    }

    pub(super) fn make_ready(&mut self, ctx: &mut Context<'_>, key: NodeKey, why: &str) {
        self.set_state(ctx, key, NodeState::Ready, why);
        self.node_mut(key).retry_at = None;
        self.set_due(key, None);
        self.enqueue(key);
    }

    /// A batch of the node was accepted: readers look for it, children that wait for it may start.
    pub(super) fn after_progress(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let first = self.node(key).is_some_and(|node| node.record.accepted == 1);
        self.note_readers(key);
        if first {
            self.spread(ctx, key);
        }
    }

    /// Granted readers of the node are told after the commit.
    fn note_readers(&mut self, key: NodeKey) {
        let Some(task) = self.tasks.get(&key.task) else {
            return;
        };
        for child in &task.plan.node(key.node).children {
            let reads = sources(task.plan.node(child.node)).any(|source| source == key.node);
            if reads && task.nodes[child.node].is_granted() {
                self.open.readers.insert(NodeKey {
                    task: key.task,
                    node: child.node,
                });
            }
        }
    }

    /// A source was granted, or lost its grant, or ended: its readers may start, or hold a slot
    /// for nothing, and so may the readers of those.
    pub(super) fn update_readers(&mut self, key: NodeKey) {
        let Some(plan) = self.tasks.get(&key.task).map(|task| task.plan.clone()) else {
            return;
        };
        let mut seen = BTreeSet::from([key.node]);
        let mut work = vec![key.node];
        while let Some(changed) = work.pop() {
            for child in &plan.node(changed).children {
                if !sources(plan.node(child.node)).any(|source| source == changed) {
                    continue;
                }
                let reader = NodeKey {
                    task: key.task,
                    node: child.node,
                };
                if self.update_reader(reader) && seen.insert(child.node) {
                    work.push(child.node);
                }
            }
        }
    }

    /// True if the reader holds a grant, so that its own readers may be starving with it.
    pub(super) fn update_reader(&mut self, reader: NodeKey) -> bool {
        let Some(task) = self.tasks.get(&reader.task) else {
            return false;
        };
        let node = &task.nodes[reader.node];
        if node.is_granted() {
            if task.is_fed(reader.node) {
                self.starving.remove(&reader);
            } else {
                self.starving.insert(reader);
            }
            return true;
        }
        let waits = node.record.state == NodeState::Ready && node.queued.is_none();
        if waits && task.is_fed(reader.node) {
            self.enqueue(reader);
        }
        false
    }

    /// What follows from a node's new state, down the graph.
    pub(super) fn spread(&mut self, ctx: &mut Context<'_>, start: NodeKey) {
        let number = start.task;
        let mut work = VecDeque::from([start.node]);
        while let Some(node) = work.pop_front() {
            let key = NodeKey { task: number, node };
            self.note_readers(key);
            self.update_readers(key);
            self.spread_edges(ctx, key, &mut work);
            self.spread_failure(ctx, key);
        }
        self.task_progress(ctx, number);
    }

    fn spread_edges(&mut self, ctx: &mut Context<'_>, key: NodeKey, work: &mut VecDeque<usize>) {
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        let mut changed = Vec::new();
        task.move_edges(key.node, &mut changed);
        if task.is_closing() {
            return; // Whatever has not started was ended with the task.
        }
        let plan = task.plan.clone();
        for child in changed {
            let Some(task) = self.tasks.get(&key.task) else {
                return;
            };
            let node = &task.nodes[child];
            if node.record.state != NodeState::Queued {
                continue;
            }
            let verdict = node.tally.verdict(plan.node(child).fan_in);
            let child_key = NodeKey {
                task: key.task,
                node: child,
            };
            let parent = &plan.node(key.node).id;
            match verdict {
                Verdict::Wait => {}
                Verdict::Start => {
                    let why = format!("`{parent}` made its start rule hold");
                    if !self.start_or_skip(ctx, child_key, &why) {
                        work.push_back(child);
                    }
                }
                Verdict::Skip => {
                    let why = format!("`{parent}` ended so that its start rule cannot hold");
                    self.set_state(ctx, child_key, NodeState::Skipped, &why);
                    work.push_back(child);
                }
            }
        }
    }

    /// A failure is judged once the nodes that were to handle it have ended.
    fn spread_failure(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let Some(task) = self.tasks.get(&key.task) else {
            return;
        };
        let parents = task.plan.node(key.node).parents.iter();
        let of_others = parents
            .filter(|e| e.when == EdgeCondition::Failure)
            .map(|e| e.node);
        let judged: Vec<usize> = std::iter::once(key.node).chain(of_others).collect();
        for node in judged {
            let Some(task) = self.tasks.get_mut(&key.task) else {
                return;
            };
            let failed = NodeKey {
                task: key.task,
                node,
            };
            match task.resolve(node) {
                None => {}
                Some(true) => self.note_readers(failed),
                Some(false) if task.is_closing() => {}
                Some(false) => self.fail_task(ctx, failed),
            }
        }
    }

    /// A failure that nothing handles: the task fails at once.
    fn fail_task(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        task.record
            .failure
            .clone_from(&task.nodes[key.node].record.failure);
        let plan = task.plan.clone();
        let cause = format!("`{}` failed", plan.node(key.node).id);
        self.set_task_state(ctx, key.task, TaskState::Failed, &cause);
        if is_planted(Bug::FailureSpares) {
            return;
        }
        let mixed = is_planted(Bug::ReasonMixed);
        let reason = |node| {
            if mixed {
                return CancelReason::UserRequest;
            }
            let reads = sources(plan.node(node)).any(|source| source == key.node);
            if reads && !is_planted(Bug::SourceUnnamed) {
                CancelReason::UpstreamFailed
            } else {
                CancelReason::TaskFailed
            }
        };
        let mut below = vec![false; plan.len()];
        for node in plan.topological_order() {
            if node == key.node || below[node] {
                for child in &plan.node(node).children {
                    below[child.node] = true;
                }
            }
        }
        self.end_others(ctx, key.task, &cause, reason, |node| below[node]);
    }

    /// Ends every node that has not started and tells running ones to end, each for its reason.
    pub(super) fn end_others(
        &mut self,
        ctx: &mut Context<'_>,
        number: u64,
        cause: &str,
        reason: impl Fn(usize) -> CancelReason,
        skipped: impl Fn(usize) -> bool,
    ) {
        let Some(task) = self.tasks.get(&number) else {
            return;
        };
        let grace_ms = task
            .record
            .cancel_grace_ms
            .unwrap_or(ctx.config.cancel_grace_ms);
        for node in 0..task.nodes.len() {
            let key = NodeKey { task: number, node };
            let Some(current) = self.node(key) else {
                return;
            };
            if current.record.state.is_terminal() {
                continue;
            }
            if current.is_granted() {
                let reason = reason(node);
                if reason != CancelReason::UserRequest && is_planted(Bug::FailureUntold) {
                    continue;
                }
                self.tell_cancel(ctx, key, reason, grace_ms);
                continue;
            }
            self.dequeue(key);
            self.set_due(key, None);
            self.node_mut(key).retry_at = None;
            let state = if skipped(node) {
                NodeState::Skipped
            } else {
                NodeState::Cancelled
            };
            self.set_state(ctx, key, state, cause);
            // A reader that still ends need not wait for this source any more.
            self.update_readers(key);
        }
    }

    /// Ends the task if its nodes have, and settles it once no grant is left.
    pub(super) fn task_progress(&mut self, ctx: &mut Context<'_>, number: u64) {
        let Some(task) = self.tasks.get(&number) else {
            return;
        };
        if task.record.state == TaskState::Cancelling && task.grants == 0 {
            self.set_task_state(ctx, number, TaskState::Cancelled, "every run has ended");
        } else if !task.is_closing() && task.open == 0 {
            self.set_task_state(ctx, number, TaskState::Finished, "every node has ended");
        }
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        let over = task.grants == 0 || is_planted(Bug::SettledEarly);
        if task.record.state.is_terminal() && over && !task.record.settled {
            task.record.settled = true;
            self.touch_task(ctx, number);
            self.open.settled.push(number);
            self.answer_watchers(ctx, number);
        }
    }

    /// Forgets a settled task: its last commit is in the store.
    pub(super) fn drop_task(&mut self, ctx: &mut Context<'_>, number: u64) {
        self.answer_watchers(ctx, number);
        if let Some(task) = self.tasks.remove(&number) {
            self.numbers.remove(task.id());
            if let Some(asked) = &self.lookup
                && asked.contains_key(task.id())
            {
                self.outdated.insert(task.id().clone());
            }
            self.sweeps.left(&task);
        }
    }
}
