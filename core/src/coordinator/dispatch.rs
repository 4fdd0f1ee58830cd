//! Dispatch: ready nodes meet free slots.

use std::sync::Arc;

use super::commit::{Outgoing, When};
use super::context::Context;
use super::shard::Shard;
use super::task::{NodeKey, Run};
use crate::hash::stable64;
use crate::id::{Role, Token, WorkerId};
use crate::message::{Body, CancelReason, InputReady, MESSAGE_BYTES_MAX, TaskCancel, TaskStart};
use crate::planted::{Bug, is_planted};
use crate::port::Stream;
use crate::record::{Grant, GrantCancel, NodeState, TaskState, cause};

impl Shard {
    /// Puts a ready node behind those of its priority.
    pub(super) fn enqueue(&mut self, key: NodeKey) {
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        if task.is_held() && !is_planted(Bug::PauseIgnored) {
            return; // It is queued once the task goes on.
        }
        let asked = task.record.control.options.priority;
        let ignored = asked != 0 && is_planted(Bug::PriorityIgnored);
        let priority = if ignored { 0 } else { asked };
        let role = &task.plan.node(key.node).role;
        let limit = task.limit_key.as_ref();
        let place = self.ready.push(role, limit, priority, key);
        task.nodes[key.node].queued = Some(place);
    }

    pub(super) fn dequeue(&mut self, key: NodeKey) {
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        let Some(place) = task.nodes[key.node].queued.take() else {
            return;
        };
        let role = &task.plan.node(key.node).role;
        self.ready.remove(role, task.limit_key.as_ref(), place);
    }

    /// Grants ready nodes to free slots until one or the other is used up.
    pub(super) fn dispatch(&mut self, ctx: &mut Context<'_>) {
        if !self.may_change() {
            return;
        }
        for key in self.meters.passed(ctx.now.mono) {
            self.ready.take_back(&key);
        }
        // The first of all goes first, whatever its role: a node that gave its slot up for one of
        // another role must not get it back before that one had its turn.
        self.ready.rewind();
        while self.has_room(ctx.config) {
            let Some(role) = self.ready.next_role() else {
                break;
            };
            if !self.dispatch_one(ctx, &role) {
                self.ready.pass_by(&role);
            }
            ctx.subject.task_id = None;
        }
    }

    /// False when the role has no ready node or no free slot.
    fn dispatch_one(&mut self, ctx: &mut Context<'_>, role: &Role) -> bool {
        let Some(place) = self.ready.first(role) else {
            return false;
        };
        let key = place.key();
        self.blame_if_broken(ctx, key);
        let runs_here = |task: &super::task::Task| task.plan.node(key.node).function.is_some();
        if self.task(key).is_some_and(runs_here) {
            return self.dispatch_function(ctx, key);
        }
        if !self.task(key).is_some_and(|task| task.is_fed(key.node)) {
            // It waits outside of the queue until its sources are granted.
            self.dequeue(key);
            return true;
        }
        if let Some(more) = self.held_by_limit(ctx, role, key) {
            return more;
        }
        let avoid = self.node(key).and_then(|node| node.avoid.as_ref());
        let Some(worker) = ctx.workers.choose(role, avoid) else {
            let wanted = self.ready.waiting(role);
            let workers = &*ctx.workers;
            let fits = |_: &Self, _: NodeKey, worker: &WorkerId| workers.runs_role(worker, role);
            let told = self.readers_to_recall(wanted, fits);
            self.recall(ctx, told);
            return false;
        };
        let (id, incarnation, inbox) = (
            worker.record.worker_id.clone(),
            worker.record.incarnation,
            worker.record.inbox,
        );
        self.dequeue(key);
        ctx.workers.offered(role, &id);
        let grant = Grant {
            worker_id: id,
            incarnation,
            inbox,
            lease_ttl_ms: ctx.config.lease_ttl_ms,
            cancel: None,
        };
        self.grant(ctx, key, grant);
        true
    }

    fn grant(&mut self, ctx: &mut Context<'_>, key: NodeKey, grant: Grant) {
        self.touch(ctx, key);
        self.held
            .entry(grant.worker_id.clone())
            .or_default()
            .insert(key);
        ctx.workers.grant_begins(&grant.worker_id);
        self.count_grant(key, true, true);
        let cause = cause::granted_to(&grant.worker_id);
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        assert!(
            !task.is_closing() || is_planted(Bug::GrantAfterCancel),
            "no grant is made once a task is ending"
        );
        assert!(
            !task.is_held() || is_planted(Bug::PauseIgnored),
            "no grant is made while a task is paused"
        );
        task.grants += 1;
        let node = &mut task.nodes[key.node];
        node.avoid = None;
        node.run = Some(Run::new(ctx.now.mono, ctx.config.resend_backoff_ms));
        let record = &mut node.record;
        assert!(
            record.grant.is_none() && record.state == NodeState::Ready,
            "granted once"
        );
        record.lease_no = record.lease_no.next();
        if record.new_attempt {
            record.new_attempt = false;
            record.epoch = record.epoch.next();
        }
        record.grants += 1;
        record.last_seq = 0;
        record.state = NodeState::Running;
        record
            .history
            .push(NodeState::Running, ctx.now.wall_ms, cause);
        record.grant = Some(grant);
        if task.record.state == TaskState::Queued {
            self.set_task_state(ctx, key.task, TaskState::Running, "first grant");
        }
        if let Some(start) = self.start(ctx, key) {
            if !start.envelope.is_within_limit() {
                // No worker would ever get it, and each would be taken for one that does not answer.
                let error = format!(
                    "the message that starts it would be larger than {MESSAGE_BYTES_MAX} bytes with its input, checkpoint, \
                     vars, totals and a line per node that it reads: shrink them, or join nodes in between"
                );
                return self.end_failed(ctx, key, cause::START_TOO_LARGE, &error);
            }
            self.send_outgoing(ctx, start);
        }
        self.update_reader(key);
        self.update_readers(key);
    }

    /// The START of a node's current grant, as of now.
    pub(super) fn start(&self, ctx: &Context<'_>, key: NodeKey) -> Option<Outgoing> {
        let task = self.task(key)?;
        let plan = task.plan.node(key.node);
        let record = &task.nodes[key.node].record;
        let grant = record.grant.as_ref()?;
        let reads = super::task::sources(plan).next().is_some();
        let body = Body::TaskStart(Box::new(TaskStart {
            input: if is_planted(Bug::InputLost) {
                crate::json::Json::from(serde_json::json!({}))
            } else {
                plan.input.clone()
            },
            adapter: plan.adapter.clone(),
            lease_ttl_ms: grant.lease_ttl_ms,
            checkpoint: record.checkpoint.clone(),
            checkpoint_batches: record.checkpoint_batches,
            cursor: record.cursor.clone(),
            cursor_batches: record.cursor_batches,
            accepted: record.accepted,
            totals: record.totals.clone(),
            vars: super::functions::vars_of_start(task),
            sources: task.start_states(key.node),
        }));
        let mut envelope = ctx.envelope(grant.worker_id.as_str(), Some(grant.incarnation), body);
        envelope.task_id = Some(record.task_id.clone());
        envelope.node_id = Some(record.node_id.clone());
        envelope.step_type = Some(plan.role.clone());
        envelope.attempt_epoch = Some(record.epoch);
        envelope.lease_no = Some(record.lease_no);
        // Artifacts are read as synced: a reader that was sent before would find nothing yet.
        Some(Outgoing {
            when: if reads { When::Durable } else { When::Applied },
            stream: Stream::Inbox(grant.inbox),
            envelope: Arc::new(envelope.identified(0)),
            start_of: Some(key),
        })
    }

    /// The START's commit is in the store: its clocks begin. False if it is no longer wanted.
    pub(super) fn start_released(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        token: Option<Token>,
    ) -> bool {
        if !token.is_some_and(|token| self.is_current(key, token)) {
            return false;
        }
        let node = self.node_mut(key);
        if node
            .record
            .grant
            .as_ref()
            .is_some_and(|grant| grant.cancel.is_some())
        {
            return false;
        }
        if let Some(run) = &mut node.run
            && !run.released
        {
            run.released = true;
            run.heard_at = ctx.now.mono;
            run.resend_at = Some(ctx.now.mono.after(run.resend_backoff_ms));
            self.rearm(ctx, key);
        }
        true
    }

    /// Tells a granted run to end; told once, repeated until it has.
    pub(super) fn tell_cancel(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        reason: CancelReason,
        grace_ms: u64,
    ) {
        let close_ms = grace_ms.max(ctx.config.lease_ttl_ms + ctx.config.lease_margin_ms());
        let node = self.node_mut(key);
        let Some(grant) = &mut node.record.grant else {
            return;
        };
        if grant
            .cancel
            .is_some_and(|told| told.reason != CancelReason::Yield)
        {
            return;
        }
        grant.cancel = Some(GrantCancel { reason, grace_ms });
        if let Some(run) = &mut node.run {
            run.released = true;
            run.close_at = Some(ctx.now.mono.after(close_ms));
            run.resend_backoff_ms = ctx.config.resend_backoff_ms;
            run.resend_at = Some(ctx.now.mono.after(run.resend_backoff_ms));
        }
        self.touch(ctx, key);
        self.rearm(ctx, key);
        self.send_cancel(ctx, key);
    }

    pub(super) fn send_cancel(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let Some(node) = self.node(key) else { return };
        let record = &node.record;
        let Some(grant) = &record.grant else { return };
        let Some(told) = grant.cancel else { return };
        let body = Body::TaskCancel(TaskCancel {
            reason: told.reason,
            grace_ms: told.grace_ms,
        });
        let about = (
            record.task_id.clone(),
            record.node_id.clone(),
            record.lease_no,
        );
        let to = (grant.worker_id.clone(), grant.incarnation, grant.inbox);
        let nonce = ctx.now.mono.0;
        self.command(
            ctx,
            (&to.0, to.1, to.2),
            (&about.0, &about.1, about.2),
            nonce,
            body,
        );
    }

    /// Tells the readers whose sources moved on what there is, as of the commit being cut.
    pub(super) fn tell_readers(&mut self, ctx: &mut Context<'_>) {
        for key in std::mem::take(&mut self.open.readers) {
            self.blame_if_broken(ctx, key);
            let Some(task) = self.tasks.get_mut(&key.task) else {
                continue;
            };
            let ended = super::task::sources(task.plan.node(key.node)).all(|s| task.ended(s));
            if let Some(run) = task.nodes[key.node].run.as_mut().filter(|_| ended) {
                // Repeated until the reader ends: it must not miss that nothing more comes.
                run.resend_at = Some(ctx.now.mono.after(run.resend_backoff_ms));
                self.rearm(ctx, key);
            }
            if let Some(envelope) = self.input_ready(ctx, key) {
                self.open.outbox.push(envelope);
            }
        }
        ctx.subject.task_id = None;
    }

    pub(super) fn input_ready(&self, ctx: &Context<'_>, key: NodeKey) -> Option<Outgoing> {
        let task = self.task(key)?;
        let record = &task.nodes[key.node].record;
        let grant = record.grant.as_ref()?;
        let sources = task.source_states(key.node);
        // Two in one millisecond are two messages if they say different things.
        let news: u64 = sources
            .iter()
            .map(|s| 2 * s.last + u64::from(s.ended))
            .sum();
        let nonce = stable64(&[&ctx.now.mono.0.to_le_bytes(), &news.to_le_bytes()]);
        let body = Body::InputReady(InputReady { sources });
        let mut envelope = ctx.envelope(grant.worker_id.as_str(), Some(grant.incarnation), body);
        envelope.task_id = Some(record.task_id.clone());
        envelope.node_id = Some(record.node_id.clone());
        envelope.lease_no = Some(record.lease_no);
        Some(Outgoing {
            when: When::Durable,
            stream: Stream::Inbox(grant.inbox),
            envelope: Arc::new(envelope.identified(nonce)),
            start_of: None,
        })
    }

    /// No room for a ready node: readers that wait for a source without a grant make some. Recomputed
    /// at every dispatch, so nothing of it is remembered.
    pub(super) fn readers_to_recall(
        &self,
        mut wanted: usize,
        fits: impl Fn(&Self, NodeKey, &WorkerId) -> bool,
    ) -> Vec<NodeKey> {
        let mut told = Vec::new();
        for key in &self.starving {
            if wanted == 0 {
                break;
            }
            let Some(grant) = self.node(*key).and_then(|node| node.record.grant.as_ref()) else {
                continue;
            };
            if !fits(self, *key, &grant.worker_id) {
                continue;
            }
            wanted -= 1;
            if grant.cancel.is_none() && !is_planted(Bug::NeverRecalled) {
                told.push(*key);
            }
        }
        told
    }

    pub(super) fn recall(&mut self, ctx: &mut Context<'_>, told: Vec<NodeKey>) {
        let grace_ms = ctx.config.cancel_grace_ms;
        for key in told {
            self.tell_cancel(ctx, key, CancelReason::Yield, grace_ms);
        }
    }

    /// A newer process of the worker is alive: what the older one held is over, once the stream
    /// is folded.
    pub(super) fn worker_restarted(
        &mut self,
        ctx: &Context<'_>,
        worker: &WorkerId,
        incarnation: crate::id::Incarnation,
    ) {
        let held = self.held.get(worker).into_iter().flatten().copied();
        let older: Vec<NodeKey> = held
            .filter(|key| {
                let grant = self.node(*key).and_then(|node| node.record.grant.as_ref());
                grant.is_some_and(|grant| grant.incarnation < incarnation)
            })
            .collect();
        for key in older {
            if let Some(run) = &mut self.node_mut(key).run {
                run.dead = true;
            }
            self.rearm(ctx, key);
        }
    }
}
