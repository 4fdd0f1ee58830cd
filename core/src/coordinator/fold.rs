//! Folding the stream: what one message of a worker does to the shard.

use std::sync::Arc;

use super::commit::When;
use super::context::Context;
use super::shard::Shard;
use super::task::NodeKey;
use super::workers::Heard;
use crate::id::{Incarnation, Token, WorkerId, inbox_of};
use crate::message::{
    BatchOk, Body, CancelReason, Envelope, Heartbeat, RefusalReason, ReleaseReason, SenderRole,
    TaskCancel, TaskDone, TaskFailed,
};
use crate::planted::{Bug, is_planted};
use crate::port::{Entry, Stream};
use crate::record::{ArtifactRecord, RECORD_VERSION, add_metrics, cause};
use crate::report::{Report, ReportKind};

/// Most runs for which the time of the last `fenced` is remembered.
const FENCED_TOLD_MAX: usize = 10_000;
/// A run is told at most this often that it is fenced.
const FENCED_EVERY_MS: u64 = 1_000;

impl Shard {
    /// Folds what was read, as far as the open commit has room.
    pub(super) fn pump(&mut self, ctx: &mut Context<'_>) {
        while self.has_room(ctx.config) {
            let Some(entry) = self.backlog.pop_front() else {
                break;
            };
            if entry.message.is_err() && is_planted(Bug::DeadLetterStops) {
                self.backlog.push_front(entry);
                break;
            }
            self.fold_entry(ctx, entry);
        }
    }

    pub(super) fn fold_entry(&mut self, ctx: &mut Context<'_>, entry: Entry) {
        let was_empty = self.open.is_empty();
        self.fold(ctx, entry);
        self.open.by_entry |= was_empty && !self.open.is_empty();
    }

    fn fold(&mut self, ctx: &mut Context<'_>, entry: Entry) {
        ctx.subject.offset = Some(entry.offset);
        self.next = entry.offset.next();
        self.open.entries += 1;
        match entry.message {
            Err(error) => {
                self.last_entry = None;
                let detail = format!("offset {}: {error}", entry.offset);
                ctx.report(Report::new(ReportKind::DeadLetter, detail));
            }
            Ok(message) => {
                self.last_entry = Some(message.dedup_id);
                ctx.subject.message = Some(message.dedup_id);
                ctx.subject.task_id.clone_from(&message.task_id);
                if self.poisoned.contains(&(entry.offset, message.dedup_id)) {
                    self.fold_poisoned(ctx, &message);
                } else {
                    match message.sender.role {
                        SenderRole::Worker => self.fold_worker(ctx, &message),
                        SenderRole::Client => self.request(ctx, message),
                        SenderRole::Coordinator => {
                            reject(ctx, &message, "a coordinator's message in a shard's stream");
                        }
                    }
                }
            }
        }
        ctx.subject.offset = None;
        ctx.subject.message = None;
        ctx.subject.task_id = None;
    }

    /// An entry that the store refused although it stood alone in its commit.
    fn fold_poisoned(&mut self, ctx: &mut Context<'_>, message: &Envelope) {
        let detail = format!("{} was refused by the store", message.body.kind());
        ctx.report(Report::new(ReportKind::DeadLetter, detail));
        self.open.begin(ctx.now.mono);
        if message.sender.role == SenderRole::Client {
            self.refuse_request(ctx, message, "the store refused it");
        } else if let Some((key, token)) = self.subject_of(message)
            && self.is_current(key, token)
        {
            self.end_failed(
                ctx,
                key,
                "event_refused",
                "the store refused an event of the run",
            );
        }
    }

    fn subject_of(&self, message: &Envelope) -> Option<(NodeKey, Token)> {
        let key = self.key_of(message.task_id.as_ref()?, message.node_id.as_ref()?)?;
        Some((key, message.lease_no?))
    }

    /// The token is the node's current grant.
    pub(super) fn is_current(&self, key: NodeKey, token: Token) -> bool {
        self.node(key)
            .is_some_and(|n| n.is_granted() && n.record.lease_no == token)
    }

    fn fold_worker(&mut self, ctx: &mut Context<'_>, message: &Arc<Envelope>) {
        let Ok(worker) = WorkerId::new(&message.sender.id) else {
            return reject(ctx, message, "the sender's id is no worker id");
        };
        let incarnation = message.sender.incarnation;
        let heard = ctx
            .workers
            .heard(&worker, incarnation, message.free_slots, message.slots_no);
        if heard == Heard::Stranger {
            ctx.workers.strangers = true;
        }
        match &message.body {
            Body::Heartbeat(heartbeat) => self.heartbeat(ctx, &worker, incarnation, heartbeat),
            Body::SlotFree => {}
            Body::TaskRefused(refused) => {
                if let Some((key, token)) = self.subject_of(message)
                    && self.is_current(key, token)
                {
                    self.refused(ctx, key, &worker, refused.reason);
                }
            }
            Body::BatchOk(_)
            | Body::TaskDone(_)
            | Body::TaskFailed(_)
            | Body::Cancelled(_)
            | Body::TaskReleased(_) => self.run_event(ctx, &worker, message),
            _ => reject(ctx, message, "a kind that workers do not send to a shard"),
        }
    }

    fn heartbeat(
        &mut self,
        ctx: &mut Context<'_>,
        worker: &WorkerId,
        incarnation: Incarnation,
        heartbeat: &Heartbeat,
    ) {
        for beat in &heartbeat.runs {
            match self.key_of(&beat.task_id, &beat.node_id) {
                Some(key) if self.is_held_by(key, beat.token, worker, incarnation) => {
                    self.hear(ctx, key);
                }
                Some(key) => {
                    let about = (&beat.task_id, &beat.node_id, beat.token);
                    self.tell_fenced(ctx, Some(key), worker, incarnation, about);
                }
                None => {
                    let about = (&beat.task_id, &beat.node_id, beat.token);
                    self.tell_fenced(ctx, None, worker, incarnation, about);
                }
            }
        }
    }

    fn is_held_by(
        &self,
        key: NodeKey,
        token: Token,
        worker: &WorkerId,
        incarnation: Incarnation,
    ) -> bool {
        self.is_current(key, token)
            && self
                .node(key)
                .and_then(|n| n.record.grant.as_ref())
                .is_some_and(|grant| grant.worker_id == *worker && grant.incarnation == incarnation)
    }

    fn run_event(&mut self, ctx: &mut Context<'_>, worker: &WorkerId, message: &Arc<Envelope>) {
        let (Some(task), Some(node), Some(token), Some(seq)) = (
            &message.task_id,
            &message.node_id,
            message.lease_no,
            message.seq,
        ) else {
            return reject(
                ctx,
                message,
                "an event of a run without task, node, token or seq",
            );
        };
        let incarnation = message.sender.incarnation;
        let key = self.key_of(task, node);
        if let (Some(key), Body::BatchOk(batch)) = (key, &message.body)
            && batch.checkpoint.is_some()
            && is_planted(Bug::CheckpointAhead)
        {
            let record = &mut self.node_mut(key).record;
            record.checkpoint.clone_from(&batch.checkpoint);
        }
        let Some(key) = key.filter(|key| {
            self.is_held_by(*key, token, worker, incarnation)
                || self.node(*key).is_some_and(super::task::Node::is_granted)
                    && is_planted(Bug::OldTokenAccepted)
        }) else {
            return self.tell_fenced(ctx, key, worker, incarnation, (task, node, token));
        };
        self.hear(ctx, key);
        let last_seq = self.node_mut(key).record.last_seq;
        if seq <= last_seq && !is_planted(Bug::CopyApplied) {
            return; // A copy: it was applied.
        }
        if seq > last_seq + 1 && !is_planted(Bug::GapIgnored) {
            return self.lose_grant(ctx, key, "events of the run are missing");
        }
        match &message.body {
            Body::BatchOk(batch) => {
                self.touch(ctx, key);
                self.node_mut(key).record.last_seq = seq;
                self.accept_batch(ctx, key, token, batch);
                self.after_progress(ctx, key);
            }
            Body::TaskDone(done) => self.done(ctx, key, token, seq, done),
            Body::TaskFailed(failed) => self.failed(ctx, key, failed),
            Body::Cancelled(cancelled) => {
                self.end_told(ctx, key, cancelled.reason == CancelReason::Yield);
            }
            Body::TaskReleased(released) => match released.reason {
                ReleaseReason::Yield => self.end_told(ctx, key, true),
                ReleaseReason::LeaseLapsed | ReleaseReason::Fenced => {
                    self.lose_grant(ctx, key, cause::LEASE_LAPSED);
                }
                ReleaseReason::Shutdown => self.end_uncounted(ctx, key, "its worker stopped"),
                ReleaseReason::StoreUnreachable => {
                    self.end_uncounted(ctx, key, "its worker could not reach the store");
                }
            },
            _ => {}
        }
    }

    /// Takes a batch in: its artifact, its metrics, its checkpoint and cursor, all or nothing.
    fn accept_batch(&mut self, ctx: &mut Context<'_>, key: NodeKey, token: Token, batch: &BatchOk) {
        self.touch(ctx, key);
        let record = &mut self.node_mut(key).record;
        record.accepted += 1;
        record.losses = 0;
        add_metrics(&mut record.totals, &batch.metrics);
        if let Some(checkpoint) = &batch.checkpoint {
            record.checkpoint = Some(checkpoint.clone());
            if !is_planted(Bug::CheckpointUncounted) {
                record.checkpoint_batches = record.accepted;
            }
        }
        if let Some(cursor) = &batch.cursor {
            record.cursor.clone_from(cursor);
            if !is_planted(Bug::CursorUncounted) {
                record.cursor_batches = record.accepted;
            }
        }
        if batch.result.is_some() && !is_planted(Bug::MarkLost) {
            record.result.clone_from(&batch.result);
        }
        let artifact = ArtifactRecord {
            version: RECORD_VERSION,
            task_id: record.task_id.clone(),
            node_id: record.node_id.clone(),
            number: record.accepted,
            batch_uid: batch.batch_uid.clone(),
            token,
            metrics: batch.metrics.clone(),
            artifact: batch.artifact.clone(),
        };
        self.open.bytes += 256 + size_of_batch(batch);
        self.open.artifacts.push(artifact);
    }

    fn done(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        token: Token,
        seq: u64,
        done: &TaskDone,
    ) {
        let record = &self.node_mut(key).record;
        let accepted = record.accepted + u64::from(done.last_batch.is_some());
        let counts = &done.counts;
        let sum = counts
            .new
            .saturating_add(counts.skipped)
            .saturating_add(counts.behind_checkpoint);
        if sum > accepted && !is_planted(Bug::SumUnchecked) {
            return self.lose_grant(ctx, key, "it counts more batches than were accepted");
        }
        if sum < accepted && !is_planted(Bug::SumUnchecked) {
            let error = format!(
                "{accepted} batches are accepted, but this attempt's input has {sum}: the input \
                 changed between attempts"
            );
            return self.end_failed(ctx, key, "input_changed", &error);
        }
        self.touch(ctx, key);
        self.node_mut(key).record.last_seq = seq;
        if let Some(batch) = &done.last_batch {
            self.accept_batch(ctx, key, token, batch);
        }
        self.open.bytes += done.result.as_ref().map_or(0, crate::json::Json::len);
        let record = &mut self.node_mut(key).record;
        add_metrics(&mut record.totals, &done.metrics);
        // Without one, what its batches marked stays.
        if done.result.is_some() && !is_planted(Bug::ResultUnstored) {
            record.result.clone_from(&done.result);
        }
        self.end_finished(ctx, key);
    }

    fn failed(&mut self, ctx: &mut Context<'_>, key: NodeKey, failed: &TaskFailed) {
        self.touch(ctx, key);
        let Some(task) = self.task(key) else { return };
        let retry = &task.plan.node(key.node).retry;
        let (failures_max, backoff_ms) = (retry.max, retry.backoff_ms);
        let named = retry.permanent_on.contains(&failed.reason_code)
            && !is_planted(Bug::PermanentOnIgnored);
        let permanent = failed.permanent || named;
        let record = &mut self.node_mut(key).record;
        record.failures += 1;
        let permanent = permanent && !is_planted(Bug::PermanentRetried);
        let once_more =
            record.failures == failures_max && !permanent && is_planted(Bug::RetryOnceMore);
        if (permanent || record.failures >= failures_max) && !once_more {
            self.end_failed(ctx, key, &failed.reason_code, &failed.error);
        } else {
            let wait_ms = failed
                .retry_after_ms
                .map_or(backoff_ms, |after| after.max(backoff_ms));
            let early = wait_ms > 0 && is_planted(Bug::BackoffIgnored);
            let wait_ms = if early { 0 } else { wait_ms };
            self.end_to_retry(ctx, key, wait_ms, &failed.reason_code);
        }
    }

    fn refused(
        &mut self,
        ctx: &mut Context<'_>,
        key: NodeKey,
        worker: &WorkerId,
        reason: RefusalReason,
    ) {
        let role = self
            .task(key)
            .map(|task| task.plan.node(key.node).role.clone());
        match reason {
            RefusalReason::Draining => ctx.workers.leaving(worker),
            RefusalReason::NoHandler => {
                if let Some(role) = role {
                    ctx.workers.refuses_role(worker, &role);
                }
            }
            // `busy` and `store_unreachable` say themselves how many slots are free.
            RefusalReason::Busy | RefusalReason::NotCurrent | RefusalReason::StoreUnreachable => {}
        }
        self.node_mut(key).avoid = Some(worker.clone());
        self.end_uncounted(ctx, key, "its START was refused");
    }

    /// Tells a run that its token is not current, at most once a second. Only what this owner
    /// surely knows to be over: a greater token than its own means that *it* is the outdated one.
    fn tell_fenced(
        &mut self,
        ctx: &mut Context<'_>,
        key: Option<NodeKey>,
        worker: &WorkerId,
        incarnation: Incarnation,
        about: (&crate::id::TaskId, &crate::id::NodeId, Token),
    ) {
        let (task, node, token) = about;
        if let Some(key) = key {
            if self.node(key).is_none_or(|n| n.record.lease_no < token) {
                return;
            }
        } else if !self.numbers.contains_key(task) {
            // Known to the store, but not to us? Only a lookup tells whether it is over.
            return self.look_up_fenced(ctx, worker, incarnation, about);
        }
        self.send_fenced(ctx, worker, incarnation, (task, node, token));
    }

    pub(super) fn send_fenced(
        &mut self,
        ctx: &mut Context<'_>,
        worker: &WorkerId,
        incarnation: Incarnation,
        about: (&crate::id::TaskId, &crate::id::NodeId, Token),
    ) {
        let now = ctx.now.mono;
        let name = (about.0.clone(), about.1.clone(), about.2);
        if self
            .fenced_told
            .get(&name)
            .is_some_and(|at| now.since(*at) < FENCED_EVERY_MS)
        {
            return;
        }
        if self.fenced_told.len() >= FENCED_TOLD_MAX {
            self.fenced_told
                .retain(|_, at| now.since(*at) < FENCED_EVERY_MS);
            if self.fenced_told.len() >= FENCED_TOLD_MAX {
                self.fenced_told.pop_first();
            }
        }
        self.fenced_told.insert(name, now);
        let inbox = inbox_of(worker.as_str(), ctx.config.inboxes);
        let cancel = TaskCancel {
            reason: CancelReason::Fenced,
            grace_ms: 0,
        };
        let mut envelope =
            ctx.envelope(worker.as_str(), Some(incarnation), Body::TaskCancel(cancel));
        envelope.task_id = Some(about.0.clone());
        envelope.node_id = Some(about.1.clone());
        envelope.lease_no = Some(about.2);
        let envelope = envelope.identified(now.0);
        self.send(ctx, When::Applied, Stream::Inbox(inbox), envelope);
    }
}

fn size_of_batch(batch: &BatchOk) -> usize {
    let artifact = match &batch.artifact {
        Some(crate::message::Artifact::Inline(value)) => value.len(),
        _ => 0,
    };
    let metrics: usize = batch.metrics.values().map(crate::json::Json::len).sum();
    let values = [&batch.checkpoint, &batch.result];
    let values = values.map(|value| value.as_ref().map_or(0, crate::json::Json::len));
    artifact + metrics + values.iter().sum::<usize>()
}

pub(super) fn reject(ctx: &mut Context<'_>, message: &Envelope, why: &str) {
    let mut report = Report::new(
        ReportKind::Rejected,
        format!("{} of {}: {why}", message.body.kind(), message.sender.id),
    );
    report.task_id.clone_from(&message.task_id);
    report.node_id.clone_from(&message.node_id);
    report.token = message.lease_no;
    ctx.report(report);
}
