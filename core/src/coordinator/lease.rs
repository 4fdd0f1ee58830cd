//! The clock of every grant: what is sent again, what is judged when, what is given up.

use super::context::{Context, ShardOp};
use super::shard::Shard;
use super::task::{NodeKey, Run};
use crate::id::Offset;
use crate::planted::{Bug, is_planted};
use crate::port::{PortError, TransportReply, TransportRequest};
use crate::record::{GrantCancel, NodeState, cause};
use crate::report::{Report, ReportKind};
use crate::time::Mono;

/// Commands are sent again at most this far apart.
const RESEND_BACKOFF_MS_MAX: u64 = 5_000;

/// What is to become of a grant whose time may be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// It lives.
    Live,
    /// Its worker's process is gone.
    Dead,
    /// It was told to end and had its time.
    Close,
    /// Its START was never answered.
    Unanswered,
    /// Its lease ran out.
    Lapsed,
}

impl Run {
    /// When it has to be judged, as things stand.
    fn judge_at(&self, config: &super::Config) -> Option<Mono> {
        if self.dead {
            return Some(Mono(0));
        }
        if !self.released {
            return None; // Nobody was told yet: its clocks begin with START.
        }
        let silence_ms = if self.heard {
            config.lease_ttl_ms + config.lease_margin_ms()
        } else {
            config.accept_timeout_ms
        };
        let silent = self.heard_at.after(silence_ms);
        Some(self.close_at.map_or(silent, |close| close.min(silent)))
    }

    fn judge(&self, now: Mono, config: &super::Config) -> Judgement {
        if self.dead {
            Judgement::Dead
        } else if self.close_at.is_some_and(|at| at <= now) {
            Judgement::Close
        } else if self.judge_at(config).is_none_or(|at| at > now) {
            Judgement::Live
        } else if self.heard {
            Judgement::Lapsed
        } else {
            Judgement::Unanswered
        }
    }
}

impl Shard {
    /// Something with the node's token arrived.
    pub(super) fn hear(&mut self, ctx: &Context<'_>, key: NodeKey) {
        // Judged lazily: the timer finds the later time when it fires.
        if let Some(run) = &mut self.node_mut(key).run {
            run.heard = true;
            run.heard_at = ctx.now.mono;
        }
    }

    /// Moves a granted node's timer to what is due next.
    pub(super) fn rearm(&mut self, ctx: &Context<'_>, key: NodeKey) {
        let Some(run) = self.node(key).and_then(|node| node.run.as_ref()) else {
            return;
        };
        let judge_at = if run.gated {
            None
        } else {
            run.judge_at(ctx.config)
        };
        let due = judge_at.into_iter().chain(run.resend_at).min();
        self.set_due(key, due);
    }

    /// Everything whose time has come.
    pub(super) fn tick(&mut self, ctx: &mut Context<'_>) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > ctx.now.mono || !self.may_change() {
                break;
            }
            self.blame_if_broken(ctx, key);
            self.set_due(key, None);
            if self.node(key).is_some_and(super::task::Node::is_granted) {
                self.tick_grant(ctx, key);
            } else if self
                .node(key)
                .is_some_and(|n| n.record.state == NodeState::Deferred)
            {
                self.make_ready(ctx, key, "its wait is over");
            }
            ctx.subject.task_id = None;
        }
        while self.may_change()
            && let Some(key) = self.gate.passed(self.next)
        {
            self.blame_if_broken(ctx, key);
            self.judge(ctx, key);
            ctx.subject.task_id = None;
        }
        if self.gate.ask(ctx.now.mono) {
            let stream = self.stream();
            ctx.transport(
                self.purpose(ShardOp::EndOffset),
                TransportRequest::Bounds { stream },
            );
        }
    }

    fn tick_grant(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let now = ctx.now.mono;
        let config = ctx.config;
        let Some(run) = &mut self.node_mut(key).run else {
            return;
        };
        let enter = !run.gated && run.judge(now, config) != Judgement::Live;
        run.gated |= enter;
        let resend = run.resend_at.is_some_and(|at| at <= now);
        if resend {
            run.resend_backoff_ms = (run.resend_backoff_ms * 2).min(RESEND_BACKOFF_MS_MAX);
            run.resend_at = Some(now.after(run.resend_backoff_ms));
        }
        if enter && is_planted(Bug::ExpiredUnread) {
            return self.judge(ctx, key);
        }
        if enter {
            self.gate.enter(key);
        }
        if resend {
            self.resend(ctx, key);
        }
        self.rearm(ctx, key);
    }

    /// Sends again what the state says must still arrive.
    fn resend(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let Some(task) = self.task(key) else { return };
        let node = &task.nodes[key.node];
        let Some(run) = &node.run else { return };
        let told: Option<GrantCancel> = node.record.grant.as_ref().and_then(|g| g.cancel);
        if told.is_some() {
            self.send_cancel(ctx, key);
        } else if !run.heard {
            if let Some(start) = self.start(ctx, key) {
                self.send_outgoing(ctx, start);
            }
        } else if !super::task::sources(task.plan.node(key.node)).any(|s| !task.ended(s))
            && super::task::sources(task.plan.node(key.node))
                .next()
                .is_some()
        {
            // It must not miss that its input is at its end.
            if let Some(ready) = self.input_ready(ctx, key) {
                self.send_outgoing(ctx, ready);
            }
        } else if let Some(run) = &mut self.node_mut(key).run {
            run.resend_at = None;
        }
    }

    /// The stream's end is known, or could not be asked for.
    pub(super) fn end_offset(
        &mut self,
        ctx: &mut Context<'_>,
        result: Result<TransportReply, PortError>,
    ) {
        match result {
            Ok(TransportReply::Bounds { end, .. }) => {
                self.stream_ok_at = ctx.now.mono;
                self.gate.answered(ctx.now.mono, end);
            }
            Ok(_) | Err(_) => {
                self.gate
                    .failed(ctx.now.mono.after(ctx.config.retry_backoff_ms.max(100)));
            }
        }
    }

    /// Everything that could speak for the grant is folded: it ends, or its clock goes on.
    fn judge(&mut self, ctx: &mut Context<'_>, key: NodeKey) {
        let now = ctx.now.mono;
        let config = ctx.config;
        let Some(task) = self.tasks.get_mut(&key.task) else {
            return;
        };
        let node = &mut task.nodes[key.node];
        let Some(run) = node.run.as_mut().filter(|run| run.gated) else {
            return; // It ended meanwhile; a newer grant has a clock of its own.
        };
        run.gated = false;
        let judgement = run.judge(now, config);
        let record = &node.record;
        let Some(worker) = record.grant.as_ref().map(|grant| grant.worker_id.clone()) else {
            return;
        };
        match judgement {
            Judgement::Live => self.rearm(ctx, key),
            Judgement::Dead => self.lose_grant(ctx, key, "its worker's process is gone"),
            Judgement::Lapsed => self.lose_grant(ctx, key, cause::LEASE_RAN_OUT),
            Judgement::Close => self.end_uncounted(ctx, key, "it had its time to end"),
            Judgement::Unanswered => {
                let report = Report::new(ReportKind::GrantUnanswered, format!("by {worker}"))
                    .about(&record.task_id, &record.node_id, Some(record.lease_no));
                ctx.report(report);
                ctx.workers.unanswered(&worker);
                node.avoid = Some(worker);
                self.end_uncounted(ctx, key, "its START was not answered");
            }
        }
    }

    /// The stream is another one: read it from its start, and believe every lease anew.
    pub(super) fn restart_stream(&mut self, start: Offset) {
        self.next = start;
        self.last_entry = None;
        // The first commit behind this names the new log.
        self.careful_until = Offset(0);
        self.open.begin(Mono(0));
    }
}
