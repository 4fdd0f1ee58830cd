//! What owners tell the worker: TASK_START, TASK_CANCEL, INPUT_READY.

use std::sync::Arc;

use super::Worker;
use super::calls::Sent;
use super::cancel::event_of;
use super::ended::Answer;
use super::io::{Effect, RunId};
use super::lease::Lease;
use super::outgoing::Outgoing;
use super::run::{NodeKey, Run, Work};
use super::tally::Tally;
use crate::id::{ShardId, Token};
use crate::message::{
    Body, CancelReason, Envelope, InputReady, RefusalReason, SourceState, TaskCancel, TaskRefused,
    TaskStart,
};
use crate::planted::{Bug, is_planted};
use crate::port::{Entry, Stream};
use crate::record::Totals;
use crate::report::{Report, ReportKind};
use crate::time::Now;

impl Worker {
    /// One entry of the inbox, which is shared with other workers and clients.
    pub(super) fn entry(&mut self, entry: Entry, now: Now, out: &mut Vec<Effect>) {
        let envelope = match entry.message {
            Ok(envelope) => envelope,
            Err(error) => {
                let report = Report::new(ReportKind::DeadLetter, error.to_string());
                out.push(Effect::Report(report));
                return;
            }
        };
        if envelope.to.as_deref() != Some(self.config.worker_id.as_str())
            || envelope.to_incarnation != Some(self.incarnation) && !is_planted(Bug::AnyIncarnation)
        {
            return;
        }
        let (Some(task), Some(node), Some(token)) =
            (&envelope.task_id, &envelope.node_id, envelope.lease_no)
        else {
            self.rejected("a command without task, node or token", out);
            return;
        };
        let node = (task.clone(), node.clone());
        match &envelope.body {
            Body::TaskStart(start) => {
                self.task_start(node, token, &envelope, start, now, out);
            }
            Body::TaskCancel(cancel) => self.task_cancel(&node, token, cancel, now, out),
            Body::InputReady(ready) => self.input_ready(&node, token, ready, now, out),
            other => {
                let why = format!("a worker does not take {}", other.kind());
                self.rejected(&why, out);
            }
        }
    }

    fn task_start(
        &mut self,
        node: NodeKey,
        token: Token,
        envelope: &Arc<Envelope>,
        start: &TaskStart,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if let Some(id) = self.by_node.get(&node).copied() {
            let held = self.runs[&id].token;
            if token == held {
                self.say_again(id, now, out);
                return;
            }
            if token < held {
                self.send_refusal(&node, token, RefusalReason::NotCurrent, now, out);
                return;
            }
            // The greater token was granted, so the held one is not current any more.
            self.supersede(id, now, out);
            if self.by_node.contains_key(&node) {
                // A node runs here once at a time: this grant goes back while the handler ends.
                self.refuse(&node, token, RefusalReason::Busy, now, out);
                return;
            }
        }
        if let Some(ended) = self.ended.get(&node) {
            if token == ended.token && !is_planted(Bug::TakenTwice) {
                self.answer_again(&node, now, out);
                return;
            }
            if token < ended.token {
                self.send_refusal(&node, token, RefusalReason::NotCurrent, now, out);
                return;
            }
            self.ended.superseded_by(&node, token);
        }
        // The cache saves a read, it decides nothing: without it the store would say the same.
        let mut identity = envelope.dedup_id;
        if is_planted(Bug::DedupCollides) {
            identity.0 %= 16;
        }
        if self.dedup.seen(identity, now.mono) && !is_planted(Bug::TakenTwice) {
            // Met before, ended since, and the store has shown it superseded.
            self.send_refusal(&node, token, RefusalReason::NotCurrent, now, out);
            return;
        }
        let role = envelope.step_type.as_ref();
        let role = role
            .filter(|role| self.config.roles.contains(role))
            .cloned();
        let refusal = if self.drain.is_some() && !is_planted(Bug::DrainTakes) {
            RefusalReason::Draining
        } else if role.is_none() {
            RefusalReason::NoHandler
        } else if self.contact.is_away() {
            RefusalReason::StoreUnreachable
        } else if self.slots.free() == 0 || self.ended.is_full() {
            RefusalReason::Busy
        } else {
            let role = role.expect("checked above");
            self.check_lease(start.lease_ttl_ms, out);
            self.take(node, token, role, envelope, start);
            return;
        };
        self.refuse(&node, token, refusal, now, out);
    }

    /// A START carries the deployment's value, which counts; says once if the settings have another.
    fn check_lease(&mut self, lease_ttl_ms: u64, out: &mut Vec<Effect>) {
        let Some(set) = self.config.lease_ttl_ms else {
            return;
        };
        if lease_ttl_ms == set || self.lease_told == Some(lease_ttl_ms) {
            return;
        }
        self.lease_told = Some(lease_ttl_ms);
        let detail = format!(
            "lease_ttl_sec: this worker's settings say {set} ms, and leases of the deployment last \
             {lease_ttl_ms} ms, which counts: give workers and coordinators the same value"
        );
        out.push(Effect::Report(Report::new(
            ReportKind::LeaseDiffers,
            detail,
        )));
    }

    /// Occupies a slot; the grant is checked with the next read of grants.
    fn take(
        &mut self,
        node: NodeKey,
        token: Token,
        role: crate::id::Role,
        envelope: &Envelope,
        start: &TaskStart,
    ) {
        self.last_run += 1;
        let id = RunId(self.last_run);
        self.slots.take(id);
        self.ttl_ms = start.lease_ttl_ms.max(1);
        let mut start = Box::new(start.clone());
        let totals = std::mem::take(&mut start.totals);
        let totals = if is_planted(Bug::TotalsRestart) {
            Totals::default()
        } else {
            totals
        };
        let run = Run {
            id,
            shard: self.shard_of(&node),
            task_id: node.0.clone(),
            node_id: node.1.clone(),
            role,
            epoch: envelope.attempt_epoch.unwrap_or_default(),
            token,
            lease: Lease::new(self.ttl_ms),
            start,
            work: Work::Checking,
            outgoing: Outgoing::default(),
            tally: Tally::new(totals),
            ending: None,
            verdict: None,
            held: None,
            puller: None,
            scratch: None,
            saves: std::collections::VecDeque::new(),
            saves_newest: 0,
            aborted: false,
            abandoned: false,
            forgotten: false,
        };
        self.runs.insert(id, run);
        self.by_node.insert(node, id);
        self.grants.check(id);
    }

    /// A START or CANCEL of a token that is in work here.
    fn say_again(&mut self, id: RunId, now: Now, out: &mut Vec<Effect>) {
        let run = &self.runs[&id];
        // A run that is still being checked, or was fenced, gives its answer soon anyway.
        if !matches!(run.work, Work::Checking) && !run.is_fenced() {
            let shard = run.shard;
            self.send_beats(shard, vec![id], now, out);
        }
    }

    fn task_cancel(
        &mut self,
        node: &NodeKey,
        token: Token,
        cancel: &TaskCancel,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if let Some(id) = self.by_node.get(node).copied() {
            let held = self.runs[&id].token;
            if token == held {
                let deadline = now.mono.after(cancel.grace_ms);
                let deadline = match cancel.reason {
                    CancelReason::Fenced => now.mono,
                    _ => deadline,
                };
                let known = self.runs[&id].ending.is_some();
                self.end_run(id, cancel.reason, deadline, now, out);
                if known && self.runs.contains_key(&id) {
                    self.say_again(id, now, out);
                }
                return;
            }
            if token < held {
                return;
            }
            // A greater token was granted: the held one is not current.
            self.supersede(id, now, out);
        }
        match self.ended.get(node) {
            Some(ended) if token < ended.token => return,
            Some(ended) if token == ended.token => {
                // Nobody waits for the end of a fenced token, and an answer would be answered.
                if cancel.reason != CancelReason::Fenced {
                    self.answer_again(node, now, out);
                }
                return;
            }
            _ => {}
        }
        self.end_unknown(node, token, cancel.reason, now, out);
    }

    /// A token that this process never took is to end: it never will be taken, and the owner
    /// gets the end it waits for.
    pub(super) fn end_unknown(
        &mut self,
        node: &NodeKey,
        token: Token,
        reason: CancelReason,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if self.ended.is_full() {
            // Not remembered, so not answered: the owner asks again.
            self.rejected("too many ended tokens are remembered", out);
            return;
        }
        if reason == CancelReason::Fenced {
            let answer = Answer::Refused(RefusalReason::NotCurrent);
            self.ended.insert(node.clone(), token, answer);
            return;
        }
        let mut envelope = self.about(node, token, event_of(reason), now);
        envelope.seq = Some(1);
        let envelope = envelope.identified(0);
        let answer = Answer::Event(Box::new(envelope));
        self.ended.insert(node.clone(), token, answer);
        self.answer_again(node, now, out);
    }

    fn input_ready(
        &mut self,
        node: &NodeKey,
        token: Token,
        ready: &InputReady,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self
            .by_node
            .get(node)
            .and_then(|id| self.runs.get_mut(id))
            .filter(|run| run.token == token)
        else {
            return;
        };
        let id = run.id;
        merge_sources(&mut run.start.sources, &ready.sources);
        self.sources_moved(id, &ready.sources, now, out);
    }

    /// Refuses a START: the token is never taken by this process.
    pub(super) fn refuse(
        &mut self,
        node: &NodeKey,
        token: Token,
        reason: RefusalReason,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if reason == RefusalReason::Busy {
            let shard = self.shard_of(node);
            self.slots.note_refused(shard);
        }
        // At the limit the memory is not grown: the START is refused as busy, and so it is again.
        if !self.ended.is_full() {
            self.ended
                .insert(node.clone(), token, Answer::Refused(reason));
        }
        self.send_refusal(node, token, reason, now, out);
    }

    fn send_refusal(
        &mut self,
        node: &NodeKey,
        token: Token,
        reason: RefusalReason,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let body = Body::TaskRefused(TaskRefused { reason });
        let envelope = self.about(node, token, body, now).identified(0);
        let stream = Stream::Shard(self.shard_of(node));
        self.send(stream, envelope, Sent::Loose, out);
    }

    /// Tells the owner once more how an ended token ended, under the old identity.
    fn answer_again(&mut self, node: &NodeKey, now: Now, out: &mut Vec<Effect>) {
        let Some(ended) = self.ended.get(node).cloned() else {
            return;
        };
        match ended.answer {
            Answer::Refused(reason) => self.send_refusal(node, ended.token, reason, now, out),
            Answer::Event(envelope) => {
                let stream = Stream::Shard(self.shard_of(node));
                self.send(stream, *envelope, Sent::Loose, out);
            }
        }
    }

    /// A slot is free again: the shard that was refused first hears of it.
    pub(super) fn offer_slot(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.free_slots() == 0 {
            return;
        }
        if let Some(shard) = self.slots.next_refused() {
            let nonce = self.nonce();
            let envelope = Envelope::new(self.sender.clone(), now.wall_ms, Body::SlotFree);
            let envelope = envelope.identified(nonce);
            self.send(Stream::Shard(shard), envelope, Sent::Room { shard }, out);
        }
    }

    pub(super) fn shard_of(&self, node: &NodeKey) -> ShardId {
        ShardId::of(&node.0, self.config.shards)
    }

    /// An envelope about a token, without seq and identity.
    pub(super) fn about(&self, node: &NodeKey, token: Token, body: Body, now: Now) -> Envelope {
        let mut envelope = Envelope::new(self.sender.clone(), now.wall_ms, body);
        envelope.task_id = Some(node.0.clone());
        envelope.node_id = Some(node.1.clone());
        envelope.lease_no = Some(token);
        envelope
    }
}

/// Where it is, looked for from `at` on and then from the start: lists of thousands of sources come in
/// the same order each time.
pub(super) fn position_from<T>(of: &[T], at: usize, is: impl Fn(&T) -> bool) -> Option<usize> {
    let at = at.min(of.len());
    let behind = of[at..].iter().position(&is).map(|found| at + found);
    behind.or_else(|| of[..at].iter().position(&is))
}

/// Newer states of sources: numbers only grow, an end stays an end.
pub(super) fn merge_sources(known: &mut [SourceState], news: &[SourceState]) {
    let mut at = 0;
    for state in news {
        if let Some(found) = position_from(known, at, |old| old.node_id == state.node_id) {
            at = found + 1;
            let old = &mut known[found];
            old.last = old.last.max(state.last);
            old.ended |= state.ended;
            if old.kept_from.is_none() {
                old.kept_from.clone_from(&state.kept_from);
            }
        }
    }
}
