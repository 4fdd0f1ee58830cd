//! Requests under way: what each answer is for, and repeating calls that had no outcome.

use super::away::Way;
use super::contact::Change;
use super::grants::GrantRead;
use super::io::{Effect, RunId};
use super::timers::Timer;
use super::{Worker, contact};
use crate::id::{NodeId, OpId, ShardId, TaskId};
use crate::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, TransportReply, TransportRequest,
};
use crate::report::{Report, ReportKind};
use crate::time::{Mono, Now};
use serde::Serialize;

/// What a store call is for.
#[derive(Clone, Debug, Serialize)]
pub(super) enum For {
    Register,
    Grants(GrantRead),
    /// Why a grant was told to end.
    CancelReason(TaskId),
    Scratch(RunId),
    Accepted(RunId),
    Save(RunId),
    Stage(RunId),
    Artifacts(RunId, NodeId),
    /// What the sources of a reader are up to.
    Sources(RunId),
}

/// A store call under way, or waiting to be repeated.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Call {
    pub(super) why: For,
    request: StoreRequest,
    issued: Mono,
    failures: u32,
}

/// What a sent request of the transport is for.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Sent {
    Bounds,
    Inbox,
    Online,
    Offline,
    Beat {
        shard: ShardId,
        at: Mono,
        runs: Vec<RunId>,
    },
    Event {
        run: RunId,
        seq: u64,
    },
    /// News for a shard that a slot is free.
    Room {
        shard: ShardId,
    },
    /// A message whose loss is cured by whoever asks again.
    Loose,
}

/// Whether the same request may have another outcome later.
pub(super) const fn is_passing(error: &PortError) -> bool {
    matches!(error.kind, ErrorKind::Retry | ErrorKind::Unknown)
}

impl Worker {
    pub(super) fn call(
        &mut self,
        why: For,
        request: StoreRequest,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let op = self.new_op();
        out.push(Effect::Store {
            op,
            request: request.clone(),
        });
        let call = Call {
            why,
            request,
            issued: now.mono,
            failures: 0,
        };
        self.calls.insert(op, call);
    }

    /// The wait before the repeat of a call is over.
    pub(super) fn repeat_call(&mut self, op: OpId, now: Now, out: &mut Vec<Effect>) {
        let Some(mut call) = self.calls.remove(&op) else {
            return;
        };
        if !self.is_wanted(&call.why) {
            return;
        }
        call.issued = now.mono;
        let op = self.new_op();
        out.push(Effect::Store {
            op,
            request: call.request.clone(),
        });
        self.calls.insert(op, call);
    }

    pub(super) fn store_done(
        &mut self,
        op: OpId,
        result: Result<StoreReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // One that failed waits to be repeated: another answer to it is a copy.
        let waits = self.timers.at(Timer::Call(op)).is_some();
        let call = if waits { None } else { self.calls.remove(&op) };
        let Some(mut call) = call else {
            self.rejected("answer to a store request that is not under way", out);
            return;
        };
        match &result {
            Err(error) if is_passing(error) => {
                let report = self.away.failed(Way::Store, error, call.issued, now.mono);
                out.extend(report.map(Effect::Report));
                self.store_failed(call.issued);
                call.failures += 1;
                let wait_ms = self.backoff_ms(call.failures);
                match call.why {
                    // Several STARTs may wait by then: the next read is made up anew.
                    For::Grants(read) => self.grants_failed(read, wait_ms, now),
                    _ if self.is_wanted(&call.why) => {
                        self.timers.set(Timer::Call(op), now.mono.after(wait_ms));
                        self.calls.insert(op, call);
                    }
                    _ => {}
                }
                return;
            }
            _ => {
                out.extend(self.away.answered(Way::Store).map(Effect::Report));
                self.store_answered(now, out);
            }
        }
        if let Err(error) = &result {
            let report = Report::new(ReportKind::PortFailed, error.to_string());
            out.push(Effect::Report(report));
        }
        match call.why {
            For::Register => self.registered(result, now, out),
            For::Grants(read) => self.grants_read(read, result, now, out),
            For::CancelReason(task) => self.cancel_reason(&task, result, now, out),
            For::Scratch(run) => self.scratch_taken(run, result, now, out),
            For::Accepted(run) => self.accepted_read(run, result, now, out),
            For::Save(run) => self.checkpoint_put(run, result, now, out),
            For::Stage(run) => self.artifact_staged(run, result, now, out),
            For::Artifacts(run, source) => self.artifacts_read(run, &source, result, now, out),
            For::Sources(run) => self.sources_read(run, result, now, out),
        }
    }

    pub(super) fn transport_done(
        &mut self,
        op: OpId,
        result: Result<TransportReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(sent) = self.sent.remove(&op) else {
            self.rejected("answer to a transport request that is not under way", out);
            return;
        };
        let way = match sent {
            Sent::Bounds | Sent::Inbox => Way::Read,
            _ => Way::Send,
        };
        let report = match (&result, way) {
            // The place that was to be read is gone: that is an answer.
            (Err(error), Way::Read) if error.kind == ErrorKind::Invalid => self.away.answered(way),
            (Err(error), _) => self.away.failed(way, error, now.mono, now.mono),
            (Ok(_), _) => self.away.answered(way),
        };
        out.extend(report.map(Effect::Report));
        match sent {
            Sent::Bounds => self.bounds_known(result, now, out),
            Sent::Inbox => self.inbox_read(result, now, out),
            Sent::Online => self.online_sent(&result, now),
            Sent::Offline => self.offline_sent(out),
            Sent::Beat { shard, at, runs } => {
                self.beat_sent(shard, at, &runs, &result, now, out);
            }
            Sent::Event { run, seq } => self.event_sent(run, seq, op, &result, now, out),
            // It may never have heard: told again.
            Sent::Room { shard } if result.is_err() => {
                self.full_to.insert(shard);
            }
            Sent::Room { .. } | Sent::Loose => {}
        }
    }

    pub(super) fn ask_transport(
        &mut self,
        why: Sent,
        request: TransportRequest,
        out: &mut Vec<Effect>,
    ) {
        let op = self.new_op();
        self.sent.insert(op, why);
        out.push(Effect::Transport { op, request });
    }

    /// A call of a run that is over by now is not repeated.
    fn is_wanted(&self, why: &For) -> bool {
        match why {
            For::Register | For::Grants(_) => true,
            For::CancelReason(_) => true,
            For::Scratch(run) | For::Accepted(run) | For::Artifacts(run, _) | For::Sources(run) => {
                self.runs.get(run).is_some_and(|run| !run.is_ending())
            }
            For::Stage(run) => {
                let run = self.runs.get(run);
                run.is_some_and(|run| matches!(run.work, super::run::Work::Staging(_)))
            }
            // The handler may still want to save while it is told to end.
            For::Save(run) => self.runs.get(run).is_some_and(|run| !run.saves.is_empty()),
        }
    }

    fn store_failed(&mut self, issued: Mono) {
        if let Change::Failing(since) = self.contact.failed(issued) {
            let away = since.after(contact::AWAY_AFTER_MS);
            self.timers.set(Timer::StoreAway, away);
            let lost = since.after(self.ttl_ms);
            self.timers.set(Timer::StoreLost, lost);
            // Someone must notice that it is back.
            self.grants.probe();
        }
    }

    fn store_answered(&mut self, now: Now, out: &mut Vec<Effect>) {
        if let Change::Back { was_away } = self.contact.answered() {
            self.timers.cancel(Timer::StoreAway);
            self.timers.cancel(Timer::StoreLost);
            if was_away {
                // Owners believe that no slot is free.
                self.announce(now, out);
            }
        }
    }
}
