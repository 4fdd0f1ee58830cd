//! The way of a run's events into its shard's stream: pipelined, repeated in order until confirmed.

use super::Worker;
use super::calls::{Sent, is_passing};
use super::cancel::Ending;
use super::ended::Answer;
use super::io::{Effect, RunId};
use super::limits;
use super::outgoing::UNCONFIRMED_MAX;
use super::run::Work;
use super::timers::Timer;
use crate::id::OpId;
use crate::message::{Body, CancelReason, Envelope, RefusalReason};
use crate::port::{PortError, Stream, TransportReply};
use crate::report::{Report, ReportKind};
use crate::time::Now;

impl Worker {
    /// The next event of a run as an envelope, complete but for its free slots.
    pub(super) fn next_event(&self, id: RunId, body: Body, now: Now) -> Envelope {
        let run = &self.runs[&id];
        let mut envelope = self.about(&run.node(), run.token, body, now);
        envelope.step_type = Some(run.role.clone());
        envelope.attempt_epoch = Some(run.epoch);
        envelope.seq = Some(run.outgoing.next_seq());
        envelope.identified(0)
    }

    /// Queues an event and sends what can be sent.
    pub(super) fn queue(
        &mut self,
        id: RunId,
        envelope: Envelope,
        terminal: bool,
        out: &mut Vec<Effect>,
    ) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.outgoing.push(envelope, terminal);
        }
        self.flush(id, out);
    }

    /// The wait after a failed send is over.
    pub(super) fn resend(&mut self, id: RunId, _now: Now, out: &mut Vec<Effect>) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.outgoing.resume();
            self.flush(id, out);
        }
    }

    fn flush(&mut self, id: RunId, out: &mut Vec<Effect>) {
        while let Some(run) = self.runs.get(&id)
            && let Some((seq, envelope)) = run.outgoing.next_to_send()
        {
            let (stream, envelope) = (Stream::Shard(run.shard), envelope.clone());
            self.send(stream, envelope, Sent::Event { run: id, seq }, out);
        }
    }

    pub(super) fn event_sent(
        &mut self,
        id: RunId,
        seq: u64,
        op: OpId,
        result: &Result<TransportReply, PortError>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| !run.forgotten) else {
            return;
        };
        match result {
            Ok(_) => {
                run.outgoing.confirmed(seq, op);
                if run.outgoing.settled().is_some() {
                    self.settled(id);
                } else if matches!(run.work, Work::Crowded) && run.outgoing.len() < UNCONFIRMED_MAX
                {
                    self.proceed(id, now, out);
                }
            }
            Err(error) if is_passing(error) => {
                if let Some(failures) = run.outgoing.failed(seq, op) {
                    let wait_ms = self.backoff_ms(failures);
                    self.timers.set(Timer::Resend(id), now.mono.after(wait_ms));
                }
            }
            Err(error) => self.never_sendable(id, seq, op, error, now, out),
        }
    }

    /// The transport will never take this event: the run fails in its place, for good.
    fn never_sendable(
        &mut self,
        id: RunId,
        seq: u64,
        op: OpId,
        error: &PortError,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.outgoing.is_terminal(seq, op).is_none() {
            return;
        }
        out.push(Effect::Report(Report::new(
            ReportKind::PortFailed,
            error.to_string(),
        )));
        let ended = run.outgoing.has_terminal();
        if ended && matches!(run.verdict, Some(Body::TaskFailed(_))) {
            // Not even the failure can be told. The lease ends by itself at the owner's; a
            // repeated START goes back as refused.
            let answer = Answer::Refused(RefusalReason::NotCurrent);
            self.ended.insert(run.node(), run.token, answer);
            self.forget_run(id);
            return;
        }
        run.outgoing.take_back(seq);
        let text = format!("event {seq} of the run was refused: {}", error.detail);
        let failure = limits::permanent("event_refused", &text);
        let body = Body::TaskFailed(limits::failed_event(&failure));
        run.verdict = Some(body.clone());
        if ended {
            let envelope = self.next_event(id, body, now);
            self.queue(id, envelope, true, out);
            return;
        }
        run.ending
            .get_or_insert(Ending::new(CancelReason::TaskFailed, now.mono));
        self.press_ending(id, now, out);
    }

    /// The terminal event and all before it are in the stream.
    fn settled(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        if let Some(envelope) = run.outgoing.settled() {
            let answer = Answer::Event(Box::new(envelope.clone()));
            self.ended.insert(run.node(), run.token, answer);
        }
        self.forget_run(id);
    }

    /// Nothing more is to be sent about the run. A handler that was given up keeps its slot.
    pub(super) fn forget_run(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        let (node, shard) = (run.node(), run.shard);
        run.forgotten = true;
        if self.by_node.get(&node) == Some(&id) {
            self.by_node.remove(&node);
        }
        self.stop_beating(shard, id);
        self.timers.cancel_run(id);
        if !self.slots.holds(id) {
            self.runs.remove(&id);
        }
    }
}
